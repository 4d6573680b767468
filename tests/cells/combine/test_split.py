"""split: the slices of a table merge to what its rows would have given without the dimension."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import (
    from_estimates,
    from_rows,
    from_summary,
    from_times,
    merge,
    split,
    with_covariates,
    with_shares,
)
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

KEYS: dict[str, Any] = {"arm": "arm", "control": "old"}


def rows_of(asked: dict[str, Any]) -> Callable[[pd.DataFrame, list[str]], xr.Dataset]:
    return lambda rows, dims: from_rows(rows, segments=dims, **{**KEYS, "outcome": "y", **asked})


def times(rows: pd.DataFrame, dims: list[str]) -> xr.Dataset:
    return from_times(rows, time="t", event="e", segments=dims, breaks=[1.0, 2.0], horizon=2.5, **KEYS)


KINDS: dict[str, Callable[[pd.DataFrame, list[str]], xr.Dataset]] = {
    "mean": rows_of({}),
    "balance": rows_of({"balance": ["before"]}),
    "yes or no": rows_of({"outcome": "e"}),
    "rates": rows_of({"outcome": "visits", "exposure": "t"}),
    "histogram": rows_of({"outcome": "visits", "metric": "histogram"}),
    "two_part": rows_of({"outcome": "revenue", "metric": "two_part"}),
    "survival": times,
    "ratio": rows_of({"denominator": "t"}),
    "weights": rows_of({"weights": "t"}),
    "cluster": rows_of({"cluster": "village"}),
    "cuped": rows_of({"cuped": ["before", "gap"]}),
    "all": rows_of({"cuped": "before", "weights": "t", "cluster": "village", "denominator": "visits1", "cap": 2.0}),
}


def people(days: list[int]) -> pd.DataFrame:
    """Units of three plans, two arms, on the days given; every day has both arms."""
    n = len(days)
    draw = np.random.default_rng(sum(days) + n)
    rows = pd.DataFrame(
        {
            "day": [f"day {day}" for day in days],
            "plan": draw.choice(["free", "paid", "gift"], n),
            "arm": ["old", "new", "newer"] * (n // 3),
            "y": draw.normal(size=n),
            "e": draw.random(n) < 0.5,
            "t": draw.uniform(0.25, 3.0, n),
            "visits": draw.poisson(2, n),
            "before": draw.normal(size=n),
            "revenue": draw.lognormal(size=n) * (draw.random(n) < 0.6),
        }
    )
    rows.loc[0:2, ["e", "revenue", "t"]] = [[True, 0.0, 3.0], [False, 1.0, 1.0], [True, 2.0, 2.0]]
    rows["gap"] = rows["before"].where(rows.index % 4 > 0)
    return rows.assign(visits1=rows["visits"] + 1, village=[f"{day} {i % 9}" for i, day in enumerate(days)])


def same(left: xr.Dataset, right: xr.Dataset) -> None:
    assert set(left.data_vars) == set(right.data_vars)
    assert {name: left[name].dtype for name in left} == {name: right[name].dtype for name in right}
    xr.testing.assert_allclose(left.drop_attrs(), right.drop_attrs(), rtol=1e-9, atol=1e-9)
    for name in ("outcome", "control", "dimensions", "horizon", "recipe"):
        assert left.attrs.get(name) == right.attrs.get(name), name


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=6), st.booleans())
def test_slices_merge_to_the_table_without_the_dimension(kind, days, last):
    rows = people([day for day in days for _ in range(45)])  # enough on every day for a standard error
    dims = ["plan", "day"] if last else ["day", "plan"]
    slices = split(KINDS[kind](rows, dims), "day")
    same(merge(*slices.values()), KINDS[kind](rows, ["plan"]))


@pytest.mark.parametrize("kind", KINDS)
def test_each_slice_is_the_table_of_its_rows(kind):
    rows = people([1] * 60 + [2] * 90 + [10] * 60)
    slices = split(KINDS[kind](rows, ["day", "plan"]), "day")
    assert list(slices) == ["day 1", "day 2", "day 10"]
    for day, found in slices.items():
        expected = KINDS[kind](rows[rows["day"] == day], ["plan"])
        for name in set(expected.data_vars) - {"histogram", "at_risk", "failures"}:  # values and ends are of all days
            np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-9, atol=1e-9, err_msg=name)
        assert found["segment"].values.tolist() == expected["segment"].values.tolist()
        assert found["arm"].values.tolist() == expected["arm"].values.tolist()


def test_days_of_dates_are_slices_in_their_order(engine):
    draw = np.random.default_rng(2)
    columns = {
        "seen": pd.to_datetime(["2026-02-27"] * 60 + ["2026-02-28"] * 60 + ["2026-03-01"] * 60).to_list(),
        "plan": draw.choice(["free", "paid"], 180).tolist(),
        "arm": ["old", "new"] * 90,
        "y": draw.normal(size=180).tolist(),
    }
    data = engine(columns)
    cells = from_rows(data, outcome="y", segments=["seen", "plan"], bins={"seen": "day"}, **KEYS)
    slices = split(cells, "seen")
    assert list(slices) == ["2026-02-27", "2026-02-28", "2026-03-01"]
    same(merge(*slices.values()), from_rows(data, outcome="y", segments=["plan"], **KEYS))


def test_a_slice_keeps_all_arms_and_what_is_stated_of_the_table():
    rows = people([1] * 60 + [2] * 60)
    rows = rows[(rows["day"] != "day 2") | (rows["arm"] != "newer")]
    cells = with_shares(KINDS["mean"](rows, ["day", "plan"]), {"old": 2, "new": 1, "newer": 1})
    second = split(cells, "day")["day 2"]
    assert second["arm"].values.tolist() == ["old", "new", "newer"]
    assert second["n"].sel(arm="newer").values.tolist() == [0, 0, 0]
    assert second.attrs["shares"] == cells.attrs["shares"]
    assert cell_table.list_notes(second) == cell_table.list_notes(cells)
    assert second.attrs["source"] == "day day 2 in 100 rows of pandas.DataFrame"


def test_missing_days_are_a_slice_of_their_own_and_the_last():
    rows = people([1] * 60 + [2] * 60).assign(day=lambda x: x["day"].where(x.index % 3 > 0))
    rows["arm"] = np.random.default_rng(0).choice(["old", "new"], len(rows))
    assert list(split(KINDS["mean"](rows, ["day", "plan"]), "day")) == ["day 1", "day 2", cell_table.MISSING_LEVEL]


def test_summaries_and_estimates_are_split_too():
    table = pd.DataFrame({"day": [1, 1, 2, 2], "plan": "a", "arm": ["old", "new"] * 2, "m": [1.0, 2, 3, 4], "s": 0.5})
    slices = split(from_summary(table, segments=["day", "plan"], mean="m", se="s", **KEYS), "day")
    assert {day: part["mean"].values.tolist() for day, part in slices.items()} == {"1": [[1, 2]], "2": [[3, 4]]}
    trials = from_estimates(table[table["arm"] == "new"], segments=["day", "plan"], estimate="m", se="s")
    assert split(trials, "plan")["a"]["estimate"].values.tolist() == [[2], [4]]


def test_the_table_is_left_as_it_was():
    cells = KINDS["cuped"](people([1] * 60 + [2] * 60), ["day", "plan"])
    before = cells.copy(deep=True)
    split(cells, "day")
    xr.testing.assert_identical(cells, before)


def test_covariates_of_segments_are_left_out():
    cells = KINDS["mean"](people([1] * 60 + [2] * 60), ["day", "plan"])
    known = pd.DataFrame(
        {"day": ["day 1"] * 3 + ["day 2"] * 3, "plan": ["free", "paid", "gift"] * 2, "seats": range(6)}
    )
    assert "covariates" not in split(with_covariates(cells, known, ["seats"]), "day")["day 1"]


def two_days(**keywords: Any) -> xr.Dataset:
    return KINDS["mean"](people([1] * 60 + [2] * 60), keywords.get("dims", ["day", "plan"]))


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ArgumentError, match="no dimension 'date' to split by; the dimensions are 'day', 'plan'"):
        split(two_days(), "date")
    with pytest.raises(DataError, match="'day' is the only dimension, so nothing would be left; add another one"):
        split(two_days(dims=["day"]), "day")
    table = pd.DataFrame({"a": ["x", "y"], "b": ["u", "v"], "effect": [1.0, 2.0]})
    cells = from_estimates(table, segments=["a", "b"], estimate="effect", covariance=np.eye(2))
    with pytest.raises(DataError, match=r"estimates with a covariance cannot be split: .*; leave the covariance out"):
        split(cells, "a")


def test_a_slice_without_a_standard_error_is_named():
    rows = people([1] * 60 + [2] * 3)
    with pytest.raises(DataError, match="day day 2 cannot be split off: the metric does not vary between units"):
        split(KINDS["weights"](rows, ["day", "plan"]), "day")
