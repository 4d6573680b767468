"""from_wide: the cells of the long table, whatever the order of columns, and what cannot be true."""

from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_summary, from_wide
from bayes_hte.cells.summaries.from_wide import SummaryRole
from bayes_hte.cells.summaries.statistics_given import SUMMARY_FORMS, SUMMARY_ROLES
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

BCG = """
Aronson 1948|4|119|11|128|-0.938694140870392
Ferguson & Simes 1949|6|300|29|274|-1.66619072902655
Rosenthal et al 1960|3|228|11|209|-1.38629436111989
Hart & Sutherland 1977|62|13536|248|12619|-1.45644354931298
Frimodt-Moller et al 1973|33|5036|47|5761|-0.219141085675433
Stein & Aronson 1953|180|1361|372|1079|-0.958122040776267
Vandiviere et al 1973|8|2537|10|619|-1.6337758382289
TPT Madras 1980|505|87886|499|87892|0.0120206014527326
Coetzee & Berjak 1968|29|7470|45|7232|-0.471746035838696
Rosenthal et al 1961|17|1699|65|1600|-1.40121013928348
Comstock et al 1974|186|50448|141|27197|-0.340849646366211
Comstock & Webster 1969|5|2493|3|2338|0.446634682274446
Comstock et al 1976|27|16886|29|17825|-0.0173418739290936
"""
"""Tuberculosis with and without BCG vaccine (Colditz et al. 1994, JAMA 271:698), as dat.bcg of the R package metadat
1.2.0 holds it; the last column is the log odds ratio that escalc of the R package metafor gives."""
TRIALS = pd.DataFrame(
    [line.split("|") for line in BCG.strip().splitlines()], columns=["trial", "tpos", "tneg", "cpos", "cneg", "logor"]
).astype(dict.fromkeys(["tpos", "tneg", "cpos", "cneg"], int) | {"logor": float})
TWO_BY_TWO = {
    "vaccine": {"events": "tpos", "non_events": "tneg"},
    "none": {"events": "cpos", "non_events": "cneg"},
}

NUMBERS = {
    "n": [40, 50, 60, 70],
    "events": [4, 5, 6, 9],
    "non_events": [36, 45, 54, 61],
    "mean": [2.5, 3.5, 1.5, 2.0],
    "sd": [1.5, 2.0, 0.5, 1.0],
    "total": [100.0, 175.0, 90.0, 140.0],
    "sum_squares": [337.75, 808.5, 149.75, 349.0],
    "se": [0.3, 0.2, 0.25, 0.4],
    "exposure": [40.5, 50.25, 60.0, 4.5],
    "positive": [30, 20, 10, 69],
    "log_mean": [1.0, 2.0, 0.5, 0.25],
    "log_sd": [0.5, 0.25, 1.0, 2.0],
}
"""Of tv and web, in the arm old and then in the arm new."""


def pair(roles: Any, *, tv: str = "tv", old: str = "old", new: str = "new") -> tuple[xr.Dataset, xr.Dataset]:
    """The cells of the same numbers, given long and wide."""
    long = pd.DataFrame({"device": [tv, "web"] * 2, "arm": [old, old, new, new]} | {r: NUMBERS[r] for r in roles})
    wide = {"device": [tv, "web"]}
    arms: dict[str, dict[Any, str]] = {new: {}, old: {}}
    for role in sorted(roles):
        for arm, at in ((new, slice(2, 4)), (old, slice(0, 2))):
            arms[arm][role] = f"{arm} {role}"
            wide[f"{arm} {role}"] = NUMBERS[role][at]
    one = from_summary(long, arm="arm", control=old, segments=["device"], **{role: role for role in roles})
    return one, from_wide(pd.DataFrame(wide), arms=arms, control=old, segments=["device"])


@pytest.mark.parametrize("roles", SUMMARY_FORMS, ids=lambda roles: " ".join(sorted(roles)))
def test_every_form_of_a_summary_may_be_wide(roles):
    long, wide = pair(roles)
    xr.testing.assert_identical(wide.drop_attrs(), long.drop_attrs())
    assert wide.attrs | {"source": ""} == long.attrs | {"source": ""}


@settings(max_examples=30)
@given(names=st.lists(st.text("ab\"';-% *漢\u202e", min_size=1, max_size=5).map(str.strip), min_size=3, unique=True))
def test_labels_and_columns_may_hold_anything(names):
    names = [name for name in names if name not in {"", "web"}]
    if len(names) >= 3:
        long, wide = pair({"n", "events"}, tv=names[0], old=names[1], new=names[2])
        xr.testing.assert_identical(wide.drop_attrs(), long.drop_attrs())


@settings(max_examples=30)
@given(order=st.permutations(["trial", "tpos", "tneg", "cpos", "cneg", "logor"]), rows=st.permutations(range(13)))
def test_order_of_rows_columns_and_arms_is_irrelevant(order, rows):
    arms = dict(reversed(TWO_BY_TWO.items())) if order[0] < order[1] else TWO_BY_TWO
    cells = from_wide(TRIALS[order].iloc[list(rows)], segments=["trial"], arms=arms, control="none")
    xr.testing.assert_identical(cells, from_wide(TRIALS, segments=["trial"], arms=TWO_BY_TWO, control="none"))


def test_a_wide_table_is_read_from_every_engine(engine):
    columns = {name: TRIALS[name].tolist() for name in ("trial", "tpos", "tneg", "cpos", "cneg")}
    cells = from_wide(engine(columns), segments=["trial"], arms=TWO_BY_TWO, control="none")
    assert cell_table.identify_kind(cells) == "counts"
    assert cells.arm.values.tolist() == ["none", "vaccine"]
    assert cells.events.sel(segment="TPT Madras 1980").values.tolist() == [499, 505]
    assert cells.n.sel(segment="TPT Madras 1980").values.tolist() == [88391, 88391]


def test_odds_ratios_of_two_by_two_tables_are_those_of_metafor():
    cells = from_wide(TRIALS, segments=["trial"], arms=TWO_BY_TWO, control="none", covariates=["logor"])
    odds = cells.events / (cells.n - cells.events)
    found = np.log(odds.sel(arm="vaccine") / odds.sel(arm="none"))
    np.testing.assert_allclose(found, cells.covariates.sel(covariate="logor"), rtol=1e-13)


def test_an_arm_without_numbers_was_not_seen():
    table = TRIALS.iloc[:3].astype({"tpos": float, "tneg": float})
    table.loc[1, ["tpos", "tneg"]] = None
    cells = from_wide(table, segments=["trial"], arms=TWO_BY_TWO, control="none")
    assert cell_table.has_data(cells).sel(arm="vaccine").values.tolist() == [True, False, True]
    assert cell_table.list_notes(cells) == ["1 cell has no numbers in the table: nothing was seen there"]


def test_the_roles_of_arms_are_those_of_a_summary():
    assert set(get_args(SummaryRole.__value__)) == SUMMARY_ROLES


N = {"n": "tneg", "events": "tpos"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no arms": ({"arms": {}}, "arms must say for each arm what its columns mean"),
    "one column": ({"arms": {"old": "tpos"}}, "arms must say for each arm"),
    "a list": ({"arms": ["old", "new"]}, r"arms must say .*, not \['old', 'new'\]"),
    "unknown role": ({"arms": {"old": {"event": "tpos"}}}, "can mean 'event', as said of arm 'old'; did you mean 'eve"),
    "strange role": ({"arms": {"old": {"%": "tpos"}}}, "no column of an arm can mean '%', .* known ones are 'events'"),
    "different": (
        {"arms": {"old": N, "new": {"events": "cpos"}}},
        "'old' has 'n', 'events', but 'new' has 'events'; describe both alike",
    ),
    "half a form": ({"arms": {"old": {"n": "tpos"}, "new": {"n": "cpos"}}}, "make no summary: n='tpos'"),
    "shared column": (
        {"arms": {"old": N, "new": N}},
        "'tneg' is used twice, for n of arm 'old' and for n of arm 'new'",
    ),
    "unknown control": ({"control": "nothing"}, "in the control arm 'nothing'; arms in 'arms' are 'none', 'vaccine'"),
    "one arm": ({"arms": {"none": N}}, "all units are in one arm, 'none'"),
    "same text": ({"arms": {"1": N, 1: N}}, "two arms have the same name as text"),
    "missing column": ({"segments": ["study"]}, "lacks the column 'study'"),
    "text": (
        {"segments": ["cpos"], "arms": {"none": {"n": "trial", "events": "tpos"}}},
        "n of arm 'none' must hold num",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_an_impossible_wide_table_is_named(changes, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        from_wide(TRIALS, **({"segments": ["trial"], "arms": TWO_BY_TWO, "control": "none"} | changes))


def test_a_wrong_number_is_named_by_its_cell():
    with pytest.raises(DataError, match="wrong in segment 'TPT Madras 1980', arm 'vaccine'; correct the table"):
        from_wide(
            TRIALS.assign(tpos=TRIALS["tpos"].where(TRIALS["tpos"] < 500, 0.5)),
            segments=["trial"],
            arms=TWO_BY_TWO,
            control="none",
        )


def test_a_segment_in_two_rows_is_named():
    table = pd.concat([TRIALS, TRIALS.iloc[:1]])
    with pytest.raises(DataError, match="segment 'Aronson 1948' appears twice, in rows 1 and 14"):
        from_wide(table, segments=["trial"], arms=TWO_BY_TWO, control="none")
