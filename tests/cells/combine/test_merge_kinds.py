"""merge, for each kind of cells beyond means: the tables' sum is what all their rows would have given."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_estimates, from_rows, from_summary, from_times, merge, with_covariates
from bayes_hte.errors import DataError
from bayes_hte.spec import cell_table

property_test = settings(max_examples=12)

KEYWORDS: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}
FIRST = [("a", "old", 0, 1.0), ("a", "new", 3, 2.0), ("a", "old", 2, 0.5), ("a", "new", 1, 4.0)] * 2
"""With these every part of a partition has both arms, and outcomes that vary."""

parts = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "week 10", "week 9"]),
        st.sampled_from(["old", "new", "newer"]),
        st.integers(0, 5),
        st.integers(0, 40).map(lambda x: x / 8),  # sums are exact
    ),
    max_size=12,
)


def rates(rows: pl.DataFrame) -> xr.Dataset:
    return from_rows(rows, outcome="y", exposure="t", **KEYWORDS)


def histogram(rows: pl.DataFrame) -> xr.Dataset:
    return from_rows(rows, outcome="y", metric="histogram", **KEYWORDS)


def two_part(rows: pl.DataFrame) -> xr.Dataset:
    return from_rows(rows, outcome="y", metric="two_part", **KEYWORDS)


def survival(rows: pl.DataFrame) -> xr.Dataset:
    return from_times(
        rows.with_columns(t=pl.col("t") + 0.5, e=pl.col("y") > 1), time="t", event="e", breaks=[0.75, 2], **KEYWORDS
    )


KINDS: dict[str, Callable[[pl.DataFrame], xr.Dataset]] = {
    "rates": rates,
    "histogram": histogram,
    "two_part": two_part,
    "survival": survival,
}


def frame(rows: list[tuple[str, str, int, float]]) -> pl.DataFrame:
    table = pl.DataFrame(FIRST + rows, schema=["device", "arm", "y", "t"], orient="row")
    return table.with_columns(y=pl.when(pl.col("t") > 0).then("y").otherwise(0))  # no events without exposure


def assert_same(left: xr.Dataset, right: xr.Dataset) -> None:
    # Up to 60 rows of outcomes up to 5: sums of squares below 1500, so 1e-11 is their rounding in float64.
    xr.testing.assert_allclose(left.drop_attrs(), right.drop_attrs(), rtol=1e-11, atol=1e-11)
    assert set(left.data_vars) == set(right.data_vars)
    assert {name: left[name].dtype for name in left} == {name: right[name].dtype for name in right}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@property_test
@given(one=parts, two=parts, three=parts)
def test_any_partition_of_the_rows_merges_to_the_whole(make, one, two, three):
    split = [make(frame(part)) for part in (one, two, three)]
    assert_same(merge(*split), make(pl.concat([frame(part) for part in (one, two, three)])))
    assert_same(merge(merge(*split[:2]), split[2]), merge(split[0], merge(*split[1:])))
    assert_same(merge(*split), merge(*reversed(split)))


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_the_tables_are_left_as_they_were(make):
    one, two = make(frame([])), make(frame([("b", "newer", 5, 5.0)]))
    before = one.copy(deep=True), two.copy(deep=True)
    merge(one, two)
    xr.testing.assert_identical(one, before[0])
    xr.testing.assert_identical(two, before[1])


def test_histograms_of_different_values_are_joined():
    table = pd.DataFrame({"device": "a", "arm": ["old", "new"] * 2, "y": [0, 1, 0, 1]})
    merged = merge(histogram(table), histogram(table.assign(y=[0.5, 1, -2, 1])))
    assert merged.value.values.tolist() == [-2, 0, 0.5, 1]
    assert merged.histogram.values.tolist() == [[[1, 2, 1, 0], [0, 0, 0, 4]]]


def test_rates_without_units_stay_without():
    table = pd.DataFrame({"device": "a", "arm": ["old", "new"], "n": 5, "y": [1, 2], "t": [1.5, 2.5]})
    bare = from_summary(table, events="y", exposure="t", **KEYWORDS)
    full = from_summary(table, n="n", events="y", exposure="t", **KEYWORDS)
    assert "n" not in merge(bare, full)
    assert merge(bare, full).exposure.values.tolist() == [[3, 5]]
    assert merge(full, full).n.values.tolist() == [[10, 10]]


def test_the_last_interval_ends_and_the_horizon_is_where_the_later_one_does():
    one, two = survival(frame([])), survival(frame([("a", "old", 5, 9.0)]))
    two.attrs["horizon"] = 9.0  # as stated by the caller
    assert one.attrs["horizon"] < 9
    merged = merge(one, two)
    assert merged.interval.values.tolist() == ["0–0.75", "0.75–2", "2–9.5"]
    assert merged.attrs["horizon"] == 9.0


def test_other_breaks_are_refused():
    rows = frame([]).with_columns(e=1)
    other = from_times(rows, time="t", event="e", breaks=[3], **KEYWORDS)
    with pytest.raises(DataError, match=r"different outcome"):
        merge(survival(frame([])), other.assign_attrs(outcome="other"))
    with pytest.raises(
        DataError, match=r"different breaks .*: \[0.75, 2.0\] in table 1, \[3.0\] in table 2; make both"
    ):
        merge(survival(frame([])), other)


@pytest.mark.parametrize("one", KINDS)
def test_different_kinds_are_refused(one):
    rows = frame([])
    makers = KINDS | {"moments": lambda rows: from_rows(rows, outcome="y", **KEYWORDS)}
    for other, make in makers.items():
        if other != one:
            left, right = KINDS[one](rows), make(rows)
            first, second = sorted([one, other])
            with pytest.raises(DataError, match=f"{first} and {second} cannot be merged; make all tables the same way"):
                merge(left.assign_attrs(outcome="y"), right.assign_attrs(outcome="y"))


KNOWN = pd.DataFrame({"device": ["a", "b", "c"], "size": [1.0, 2.0, 3.0], "age": [10.0, 30.0, 20.0]})


def cells_of(*devices: str) -> xr.Dataset:
    return two_part(pl.concat([frame([]).with_columns(device=pl.lit(device)) for device in devices]))


def test_covariates_are_kept():
    one = with_covariates(cells_of("b", "c"), KNOWN, ["size", "age"])
    two = with_covariates(cells_of("a", "b"), KNOWN, ["age", "size"])
    merged = merge(one, two)
    assert merged.segment.values.tolist() == ["a", "b", "c"]
    assert merged.covariates.sel(covariate=["size", "age"]).values.tolist() == [[1, 10], [2, 30], [3, 20]]
    assert int(merged.n.sum()) == 32
    assert cell_table.identify_kind(merged) == "two_part"


def test_covariates_of_one_table_suffice_if_they_are_of_all_segments():
    merged = merge(with_covariates(cells_of("a", "b"), KNOWN, ["size"]), cells_of("b"))
    assert merged.covariates.values.tolist() == [[1], [2]]
    with pytest.raises(DataError, match="covariates are missing for 1 of 3 segments: 'c'; add a row for each"):
        merge(with_covariates(cells_of("a", "b"), KNOWN, ["size"]), cells_of("c"))


def test_covariates_that_contradict_each_other_are_refused():
    one = with_covariates(cells_of("a", "b"), KNOWN, ["size"])
    with pytest.raises(DataError, match="the covariates of segment 'b' differ between the tables; add them after"):
        merge(one, with_covariates(cells_of("b", "c"), KNOWN.assign(size=[1, 2.5, 3]), ["size"]))
    with pytest.raises(DataError, match="different covariates cannot be merged: 'size' and 'age'; add them after"):
        merge(one, with_covariates(cells_of("b", "c"), KNOWN, ["age"]))


def test_estimates_with_covariates_cannot_be_merged_either():
    table = KNOWN.assign(se=1.0)
    cells = from_estimates(table, segments=["device"], estimate="size", se="se", covariates=["age"])
    with pytest.raises(DataError, match="estimates cannot be merged exactly"):
        merge(cells, cells)
