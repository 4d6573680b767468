"""rare=: levels with few rows form the level (other), as if they had been renamed before."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_rows, protect
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import MISSING_LEVEL, OTHER_LEVEL

KEYS: dict[str, Any] = {"outcome": "y", "arm": "arm", "control": "old"}


def people(n: int = 400, seed: int = 5) -> dict[str, list[Any]]:
    """Three common countries and a few rare ones, some unknown; four plans."""
    draw = np.random.default_rng(seed)
    countries = ["DE", "FR", "IT", "MT", "LU", "LI", None]
    return {
        "arm": draw.choice(["old", "new"], n).tolist(),
        "y": draw.normal(size=n).tolist(),
        "country": [countries[i] for i in draw.choice(7, n, p=[0.4, 0.3, 0.2, 0.03, 0.02, 0.02, 0.03])],
        "plan": draw.choice(["free", "paid", "gift", "trial"], n, p=[0.5, 0.42, 0.05, 0.03]).tolist(),
        "before": draw.normal(size=n).tolist(),
        "visits": draw.poisson(2, n).tolist(),
        "revenue": (draw.lognormal(size=n) * (draw.random(n) < 0.6)).tolist(),
    }


def read(data: Any, **asked: Any) -> xr.Dataset:
    return from_rows(data, **{**KEYS, "segments": ["country", "plan"], **asked})


def renamed(rows: pd.DataFrame, least: dict[str, int]) -> pd.DataFrame:
    """The same rows with rare levels renamed."""
    rows = rows.copy()
    for dim, number in least.items():
        sizes = rows[dim].value_counts()
        rows[dim] = rows[dim].where(~rows[dim].isin(sizes.index[sizes < number]), OTHER_LEVEL)
    return rows


def same_numbers(one: xr.Dataset, other: xr.Dataset) -> None:
    xr.testing.assert_allclose(one.drop_attrs(), other.drop_attrs(), rtol=1e-9, atol=1e-9)


def test_rare_levels_of_all_dimensions_are_put_together_in_every_engine(engine):
    columns = people()
    cells = read(engine(columns), rare=30)
    same_numbers(cells, read(renamed(pd.DataFrame(columns), {"country": 30, "plan": 30})))
    assert {OTHER_LEVEL} == set(cells["country"].values) - {"DE", "FR", "IT", MISSING_LEVEL}
    assert cells["country"].values[-1] == MISSING_LEVEL
    assert {OTHER_LEVEL} == set(cells["plan"].values) - {"free", "paid"}


def test_each_dimension_may_have_its_own_number(engine):
    columns = people()
    cells = read(engine(columns), rare={"country": 30})
    same_numbers(cells, read(renamed(pd.DataFrame(columns), {"country": 30})))
    assert OTHER_LEVEL not in cells["plan"].values


def test_a_note_lists_the_levels_by_size():
    rows = pd.DataFrame(people())
    sizes = rows["country"].value_counts()
    few = sorted(((level, size) for level, size in sizes.items() if size < 30), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{level} ({size})" for level, size in few)
    cells = read(rows, segments=["country"], rare=30)
    assert f"3 levels of country with fewer than 30 rows form the level (other): {listed}" in cell_table.list_notes(
        cells
    )


def test_a_note_lists_ten_levels_and_says_how_many_more_there_are():
    rows = pd.DataFrame({"arm": ["old", "new"] * 62, "y": range(124)})
    rows["country"] = ["DE"] * 100 + [f"c{i:02}" for i in range(12) for _ in range(2)]
    (note,) = cell_table.list_notes(read(rows, segments=["country"], rare=10))
    assert note.startswith("12 levels of country with fewer than 10 rows form the level (other): c00 (2), c01 (2), ")
    assert note.endswith("c09 (2) and 2 more")


def test_nothing_is_said_or_changed_where_no_level_is_rare():
    rows = pd.DataFrame(people())
    assert cell_table.list_notes(read(rows, segments=["plan"], rare=2)) == []
    same_numbers(read(rows, segments=["plan"], rare=2), read(rows, segments=["plan"]))


def test_a_level_with_just_as_many_rows_is_not_rare():
    rows = pd.DataFrame({"arm": ["old", "new"] * 10, "y": range(20), "plan": ["a"] * 10 + ["b"] * 6 + ["c"] * 4})
    assert read(rows, segments=["plan"], rare=6)["segment"].values.tolist() == ["a", "b", OTHER_LEVEL]


def test_missing_levels_stay_apart_however_few():
    rows = pd.DataFrame(people())
    cells = read(rows, segments=["country"], rare=200)
    assert {MISSING_LEVEL, OTHER_LEVEL} <= set(cells["country"].values)
    assert int(cells["n"].sel(segment=MISSING_LEVEL).sum()) == rows["country"].isna().sum()


def test_levels_are_counted_in_the_rows_that_are_kept():
    rows = pd.DataFrame(people())
    rows.loc[rows["plan"] == "gift", "arm"] = None
    rows.loc[rows["plan"] == "trial", "y"] = np.nan
    rows.loc[rows.index[rows["plan"] == "gift"][:3], "arm"] = "old"
    cells = read(rows, segments=["plan"], rare=5, drop_missing=True)
    assert cell_table.list_notes(cells)[-1] == (
        "2 levels of plan with fewer than 5 rows form the level (other): gift (3), trial (0)"
    )
    assert int(cells["n"].sel(segment=OTHER_LEVEL).sum()) == 3


def test_rare_bins_and_levels_called_like_the_result_are_put_together():
    rows = pd.DataFrame(people())
    cells = read(rows, segments=["before"], bins={"before": [-2, 0, 2]}, rare=20)
    assert cells["segment"].values.tolist() == ["-2 to < 0", "0 to < 2", OTHER_LEVEL]
    taken = rows.assign(plan=rows["plan"].replace("paid", OTHER_LEVEL))
    assert int(read(taken, segments=["plan"], rare=40)["n"].sum()) == 400


def test_a_level_that_is_only_called_none_is_a_level():
    rows = pd.DataFrame({"arm": ["old", "new"] * 10, "y": range(20), "plan": ["a"] * 14 + [None] * 4 + ["None"] * 2})
    cells = read(rows, segments=["plan"], rare=5)
    assert cells["segment"].values.tolist() == ["a", OTHER_LEVEL, MISSING_LEVEL]
    assert cells["n"].sum("arm").values.tolist() == [14, 2, 4]


ASKED: dict[str, dict[str, Any]] = {
    "mean": {},
    "rates": {"outcome": "visits", "exposure": "size"},
    "histogram": {"outcome": "visits", "metric": "histogram"},
    "two_part": {"outcome": "revenue", "metric": "two_part"},
    "cuped": {"cuped": "before"},
    "ratio": {"denominator": "size"},
}


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 7), min_size=40, max_size=40),
    st.lists(st.integers(0, 3), min_size=40, max_size=40),
    st.integers(2, 20),
    st.sampled_from(list(ASKED)),
)
def test_rare_levels_are_as_if_renamed_before_the_reduction(countries, plans, least, kind):
    rows = pd.DataFrame(people(40)).assign(arm=["old", "new"] * 20, size=[1.0, 1.0, 2.0, 3.0] * 10)
    rows["country"] = [None if country == 7 else f"c{country}" for country in countries]
    rows["plan"] = [f"p{plan}" for plan in plans]
    number = {"country": least, "plan": least}
    same_numbers(read(rows, rare=number, **ASKED[kind]), read(renamed(rows, number), **ASKED[kind]))


def test_a_cluster_with_rows_of_two_rare_levels_would_count_twice():
    rows = pd.DataFrame(people()).assign(village=np.arange(400) // 4, arm=(["old"] * 4 + ["new"] * 4) * 50)
    with pytest.raises(ArgumentError, match="rare levels are put together after the rows of a cluster are added up"):
        read(rows, segments=["country"], rare=30, cluster="village")
    days = rows.assign(day=pd.Timestamp("2026-01-01"))
    with pytest.raises(ArgumentError, match="the days of 'day' are put together after"):
        read(days, segments=["day", "country"], bins={"day": "week"}, cluster="village")
    protected = read(rows, segments=["country"], cluster="village")
    with pytest.raises(DataError, match="clusters with rows in two small segments would count twice"):
        protect(protected, 60, "merge")


@pytest.mark.parametrize(
    ("rare", "message"),
    [
        (1, "rare is 1 for 'country'; give a number of rows, 2 or more"),
        (True, "rare is True for 'country'"),
        ({"plan": 2.5}, "rare is 2.5 for 'plan'"),
        ({"plans": 3}, "rare names 'plans', which is not among the segments 'country', 'plan'; add it there"),
        ("10", r"rare is '10'; give a number of rows, or numbers by dimension as in \{'country': 50\}"),
        (2.5, "rare is 2.5; give a number of rows"),
    ],
)
def test_numbers_of_rows_that_make_no_sense_are_refused(rare, message):
    with pytest.raises(ArgumentError, match=message):
        read(pd.DataFrame(people(40)), rare=rare)
