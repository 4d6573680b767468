"""from_table: one way to read a table is found, said and taken; two ways are named, and none is taken."""

import re
from typing import Any

import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte import cells as hte_cells
from bayes_hte.cells import from_estimates, from_levels, from_summary, from_table, from_wide
from bayes_hte.cells.summaries import column_vocabulary
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

LONG: dict[str, Any] = {"device": ["tv", "tv", "web", "web"], "arm": ["new", "old", "new", "old"]}
COUNTS: dict[str, Any] = LONG | {"users": [40, 50, 900, 1000], "buyers": [4, 5, 120, 100]}
WIDE: dict[str, Any] = {
    "device": ["tv", "web"],
    "n_old": [50, 1000],
    "events_old": [5, 100],
    "n_new": [40, 900],
    "events_new": [4, 120],
}
BASE: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}
EXPECTED = from_summary(pd.DataFrame(COUNTS), **BASE, n="users", events="buyers")

KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "counts": (
        {"Users": [40, 50, 900, 1000], "Conversions": [4, 5, 120, 100]},
        "from_summary(table, arm='arm', control='old', segments=['device'], n='Users', events='Conversions')",
    ),
    "two by two": (
        {"events": [4, 5, 120, 100], "non-events": [36, 45, 780, 900]},
        "from_summary(table, arm='arm', control='old', segments=['device'], events='events', non_events='non-events')",
    ),
    "moments as pandas calls them": (
        {"count": [3, 4, 5, 6], "mean": [1.0, 2.0, 3.0, 4.0], "std": [1.0, 1.0, 2.0, 1.0]},
        "from_summary(table, arm='arm', control='old', segments=['device'], n='count', mean='mean', sd='std')",
    ),
    "sums": (
        {"Number of visitors": [2, 2, 2, 2], "Sum": [3, 4, 5, 6], "Sum of squares": [5, 10, 13, 20]},
        "from_summary(table, arm='arm', control='old', segments=['device'], n='Number of visitors', total='Sum', "
        "sum_squares='Sum of squares')",
    ),
    "adjusted means": (
        {"n": [3, 4, 5, 6], "mean": [1.0, 2.0, 3.0, 4.0], "mean_se": [1.0, 1.0, 2.0, 1.0]},
        "from_summary(table, arm='arm', control='old', segments=['device'], n='n', mean='mean', se='mean_se')",
    ),
    "rates": (
        {"events": [4, 5, 120, 100], "person-years": [36.5, 45, 780, 900]},
        "from_summary(table, arm='arm', control='old', segments=['device'], events='events', exposure='person-years')",
    ),
    "two parts": (
        {"n": [3, 4, 5, 6], "mean": [1.0, 2.0, 3.0, 4.0], "sd": [1.0, 1.0, 2.0, 1.0]}
        | {"payers": [2, 2, 2, 2], "log_mean": [0.5, 1, 1, 1], "log_sd": [1.0, 1, 1, 1]},
        "from_summary(table, arm='arm', control='old', segments=['device'], n='n', mean='mean', sd='sd', "
        "positive='payers', log_mean='log_mean', log_sd='log_sd')",
    ),
}


def evaluated(call: str, table: Any) -> xr.Dataset:
    return eval(call, {name: getattr(hte_cells, name) for name in hte_cells.__all__} | {"table": table})  # noqa: S307


@pytest.mark.parametrize(("columns", "call"), KINDS.values(), ids=KINDS)
def test_the_call_that_is_said_is_the_call_that_is_made(columns, call):
    table = pd.DataFrame(LONG | columns)
    cells = from_table(table, control="old")
    assert cell_table.list_notes(cells) == [f"read as {call}"]
    xr.testing.assert_identical(cells.drop_attrs(), evaluated(call, table).drop_attrs())


def test_values_with_counts_are_levels():
    table = pd.DataFrame(
        {"arm": ["old", "old", "new", "new"], "value": [0, 1] * 2, "users": [9, 1, 8, 2], "device": "tv"}
    )
    cells = from_table(table, control="old")
    expected = from_levels(table, **BASE, value="value", count="users")
    xr.testing.assert_identical(cells.drop_attrs(), expected.drop_attrs())
    assert (
        "read as from_levels(table, arm='arm', control='old', segments=['device'], value="
        in cell_table.list_notes(cells)[0]
    )


def test_estimates_are_found_with_and_without_an_arm():
    schools = pd.DataFrame({"school": [1, 2], "yi": [28.0, 8.0], "sei": [15.0, 10.0]})
    cells = from_table(schools, outcome="score")
    xr.testing.assert_identical(
        cells.drop_attrs(), from_estimates(schools, segments=["school"], estimate="yi", se="sei").drop_attrs()
    )
    assert cells.attrs["outcome"] == "score"
    said = "read as from_estimates(table, segments=['school'], estimate='yi', se='sei', outcome='score')"
    assert cell_table.list_notes(cells) == [said]
    by_arm = from_table(schools.assign(treatment=["x", "y"]), segments=["school"])
    assert by_arm.arm.values.tolist() == ["x", "y"]


def test_estimates_with_a_control_are_the_means_of_arms_when_the_caller_says_so():
    table = pd.DataFrame(LONG | {"estimate": [1.0, 2, 3, 4], "se": [1.0, 1, 1, 1]})
    assert cell_table.identify_kind(from_table(table, control="old")) == "means"
    assert cell_table.identify_kind(from_table(table)) == "estimates"
    with pytest.raises(DataError, match=r"2 ways: as from_estimates\(.* or as from_summary\(.* mean='estimate'"):
        from_table(table.replace("old", "Control"))


@settings(max_examples=40)
@given(
    order=st.permutations(list(WIDE)),
    spell=st.sampled_from(["{0}_{1}", "{1}_{0}", "{0} ({1})", "{1}.{0}", "{0}  -  {1}", "{1} / {0}"]),
    n=st.sampled_from(["n", "N", "sample size", "Users", "num_units", "total visitors"]),
    events=st.sampled_from(["events", "CONVERSIONS", "number of deaths", "n_converted"]),
    arms=st.sampled_from([("old", "new"), ("Old design", "neu ß"), ("漢", "字"), ("1", "2"), ("a'b", 'c";--d')]),
)
def test_wide_tables_are_long_ones_however_columns_are_spelt_and_ordered(order, spell, n, events, arms):
    names = {f"n_{key}": spell.format(n, arm) for key, arm in zip(("old", "new"), arms, strict=True)}
    names |= {f"events_{key}": spell.format(events, arm) for key, arm in zip(("old", "new"), arms, strict=True)}
    table = pd.DataFrame(WIDE)[order].rename(columns=names)
    cells = from_table(table, control=arms[0])
    long = pd.DataFrame(COUNTS).replace({"arm": {"old": arms[0], "new": arms[1]}})
    expected = from_summary(long, **BASE | {"control": arms[0]}, n="users", events="buyers")
    xr.testing.assert_identical(cells.drop_attrs(), expected.drop_attrs())
    call = cell_table.list_notes(cells)[0].removeprefix("read as ")
    xr.testing.assert_identical(evaluated(call, table).drop_attrs(), expected.drop_attrs())


@settings(max_examples=20)
@given(order=st.permutations([*COUNTS, "conversion rate"]), rows=st.permutations(range(4)))
def test_the_order_of_columns_and_rows_is_irrelevant(order, rows):
    table = pd.DataFrame(COUNTS | {"conversion rate": [0.1] * 4})[order].iloc[list(rows)]
    cells = from_table(table, control="old")
    xr.testing.assert_identical(cells.drop_attrs(), EXPECTED.drop_attrs())
    assert cell_table.list_notes(cells)[1:] == ["not used: 'conversion rate'"]


def test_tables_are_read_from_every_engine(engine):
    xr.testing.assert_identical(from_table(engine(COUNTS), control="old").drop_attrs(), EXPECTED.drop_attrs())
    xr.testing.assert_identical(from_table(engine(WIDE), control="old").drop_attrs(), EXPECTED.drop_attrs())


def test_yes_and_no_in_a_file_stay_words(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame(COUNTS).replace({"arm": {"old": "no", "new": "yes"}}).to_csv(path, index=False)
    with pytest.raises(DataError, match="name it as control=…, one of 'no', 'yes'"):
        from_table(path)
    assert from_table(path, control="no").arm.values.tolist() == ["no", "yes"]


METAFOR = {
    "ai": [4, 6], "bi": [119, 300], "ci": [11, 29], "di": [128, 274], "n1i": [123, 306], "n2i": [139, 303],
}  # fmt: skip
"""The first two trials of dat.bcg in the R package metadat 1.2.0."""


@pytest.mark.parametrize("names", [("ai", "bi", "ci", "di"), ("ai", "n1i", "ci", "n2i")])
def test_the_names_of_metafor_are_known(names):
    table = pd.DataFrame({"trial": ["Aronson", "Ferguson"]} | {name: METAFOR[name] for name in names})
    cells = from_table(table, control="2")
    assert cells.n.sel(arm="1").values.tolist() == [123, 306]
    assert cells.events.sel(arm="2").values.tolist() == [11, 29]
    with pytest.raises(DataError, match=r"no arm is called control or placebo, .* one of '1', '2'"):
        from_table(table)


def test_all_of_metafors_names_at_once_are_two_ways():
    with pytest.raises(DataError, match=r"can be read in \d+ ways: as from_wide\(table, segments=\['trial'\], arms="):
        from_table(pd.DataFrame({"trial": ["Aronson", "Ferguson"]} | METAFOR), control="2")


def test_the_data_set_of_bcg_trials_is_read_by_its_names():
    table = pd.DataFrame({"trial": ["Aronson", "Ferguson"], "tpos": [4, 6], "tneg": [119, 300], "cpos": [11, 29]})
    table = table.assign(cneg=[128, 274], ablat=[44, 55])
    cells = from_table(table, segments=["trial"])
    arms: Any = {
        "treated": {"events": "tpos", "non_events": "tneg"},
        "control": {"events": "cpos", "non_events": "cneg"},
    }
    expected = from_wide(table, segments=["trial"], arms=arms, control="control")
    xr.testing.assert_identical(cells.drop_attrs(), expected.drop_attrs())
    assert cell_table.list_notes(cells)[1:] == ["the control is 'control', as its name says", "not used: 'ablat'"]


@pytest.mark.parametrize("label", ["control", "Placebo", "CONTROL"])
def test_a_control_is_known_by_its_name_and_shows_which_column_is_the_arm(label):
    table = pd.DataFrame(COUNTS).rename(columns={"arm": "drug"}).replace("old", label)
    cells = from_table(table)
    assert cells.attrs["control"] == label
    assert cell_table.list_dimensions(cells) == ["device"]
    assert cell_table.list_notes(cells)[1] == f"the control is {label!r}, as its name says"


def test_what_the_caller_says_is_taken():
    table = pd.DataFrame(COUNTS | {"group": ["a", "a", "b", "b"], "age": [1, 1, 2, 2], "users_before": [1, 2, 3, 4]})
    cells = from_table(table, control="old", arm="arm", segments=["device", "age"])
    assert cell_table.list_dimensions(cells) == ["device", "age"]
    assert cell_table.list_notes(cells)[1:] == ["not used: 'group', 'users_before'"]


def test_a_column_that_is_a_dimension_means_nothing_else():
    table = pd.DataFrame(COUNTS).rename(columns={"device": "visitors"})
    assert cell_table.list_dimensions(from_table(table, control="old", segments=["visitors"])) == ["visitors"]
    with pytest.raises(DataError, match="can be read in 2 ways"):
        from_table(table, control="old")


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "two sizes": (
        COUNTS | {"visitors": [50] * 4},
        {},
        r"can be read in 2 ways: as from_summary\(table, arm='arm', control='old', segments=\['device'\], n='users', "
        r"events='buyers'\) or as from_summary\(.* n='visitors', .*\); call the one you mean",
    ),
    "two forms": (COUNTS | {"mean": [1.0] * 4, "sd": [1.0] * 4}, {}, "2 ways: .*events='buyers'.* or as .*sd='sd'"),
    "two arms": (COUNTS | {"variant": ["a", "b"] * 2}, {}, r"2 ways: .*arm='arm'.* or as .*arm='variant'"),
    "two weak arms": (
        {name if name != "arm" else "group": column for name, column in COUNTS.items()} | {"bucket": ["a", "b"] * 2},
        {},
        r"2 ways: .*arm='group'.* or as .*arm='bucket'",
    ),
    "two estimates": (
        {"trial": ["a", "b"], "logrr": [1.0, 2], "se_logrr": [1.0, 1], "logor": [1.0, 2], "se_logor": [1.0, 1]},
        {"control": None},
        r"2 ways: as from_estimates\(.*estimate='logrr', se='se_logrr'\) or as .*estimate='logor', se='se_logor'",
    ),
    "long and wide": (COUNTS | {name: WIDE[name] * 2 for name in list(WIDE)[1:]}, {}, "2 ways: .* or as from_wide"),
    "many ways": ({**COUNTS, **{f"n {noun}": [9] * 4 for noun in ("units", "users", "visitors")}, **LONG,
                   **{f"num {noun}": [9] * 4 for noun in ("units", "users")}}, {}, "in 6 ways: .* or 1 others; call"),
    "numbers that may be a dimension": (COUNTS | {"age": [1, 2, 3, 4]}, {}, "or not, besides 'device': 'age'; name"),
    "text that may be a number": (COUNTS | {"conversion rate": ["1 %"] * 4}, {}, "besides 'device': 'conversion rate'"),
    "no dimension": ({name: COUNTS[name] for name in ("arm", "users", "buyers")}, {}, "is left for the segments"),
    "no arm": ({name: COUNTS[name] for name in ("device", "users", "buyers")}, {}, "understood are only n='users', ev"),
    "nothing known": ({"device": ["a"], "x": [1]}, {}, r"no name of a column says .* columns are 'device', 'x'\. Name"),
    "two controls": (COUNTS | {"arm": ["control", "placebo"] * 2}, {"control": None}, "several arms could be"),
    "all arms together": (
        {**WIDE, "n_total": [90, 1900], "events_total": [9, 220]},
        {},
        r"the arm 'total' may hold the units of all arms; leave it out, or if it is an arm, call from_wide\(table, seg",
    ),
    "a mean as value": (LONG | {"n": [9] * 4, "value": [1.0, 2, 3, 4]}, {}, "every cell has one value in 'value'"),
    "unknown control": ({}, {"control": "older"}, r"control arm 'older'; .* did you mean 'old'\?"),
    "unknown arm": ({}, {"arm": "arms"}, r"lacks the column 'arms'; did you mean 'arm'\?"),
    "unknown dimension": ({}, {"segments": ["devices"]}, r"lacks the column 'devices'; did you mean 'device'\?"),
    "no rows": ({name: [] for name in COUNTS}, {}, "has no rows"),
    "text for numbers": ({"users": ["1"] * 4}, {}, "n must be numbers, but holds text"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "keywords", "message"), BAD.values(), ids=BAD)
def test_what_is_not_clear_is_asked(columns, keywords, message):
    whole = columns if "device" in columns or "arm" in columns or "trial" in columns else COUNTS | columns
    with pytest.raises((ArgumentError, DataError), match=re.compile(message, re.DOTALL)):
        from_table(pd.DataFrame(whole), **{"control": "old"} | keywords)


PIECES = [
    "n", "users", "events", "mean", "sd", "se", "total", "sum squares", "old", "new", "control", "arm", "group", "y",
    "value", "estimate", "rate", "device", "", "_", "*", "'; drop table t; --", '"', "漢", "ﬁ", "İ", "Ⅷ", "n1i", "%s",
]  # fmt: skip


@settings(max_examples=150)
@given(
    names=st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("_".join), min_size=1, max_size=8),
    column=st.sampled_from([[1, 2, 3, 4], [0.5, None, 1.5, 9.0], ["a", "control", "a", None], [True, False] * 2]),
    keywords=st.sampled_from([{}, {"control": "old"}, {"arm": "arm"}, {"segments": ["device"]}, {"control": "1"}]),
)
def test_no_table_is_too_odd_for_an_answer(names, column, keywords):
    table = pd.DataFrame({name: column if i % 2 else LONG["arm"] for i, name in enumerate(names)} | {"n": [1, 2, 3, 4]})
    try:
        cells = from_table(table, **keywords)
    except DataError:
        return
    call = cell_table.list_notes(cells)[0].removeprefix("read as ")
    xr.testing.assert_identical(cells.drop_attrs(), evaluated(call, table).drop_attrs())


def test_every_word_has_one_meaning():
    lists = [f"{word}" for words in column_vocabulary._PLAIN_NAMES.values() for word in words.split("|")]
    lists += [word for words in column_vocabulary._COUNTED_NOUNS.values() for word in words.split()]
    assert len(set(lists)) == len(lists)
    assert not {(word,) for word in column_vocabulary.DERIVED_WORDS} & {
        *column_vocabulary.ROLE_BY_WORDS,
        *column_vocabulary.ARM_WORDS,
    }
    assert not {*column_vocabulary.ARM_WORDS, *column_vocabulary.PERHAPS_ARM_WORDS} & {*column_vocabulary.ROLE_BY_WORDS}
