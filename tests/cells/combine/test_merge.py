"""merge: what tables of different units say together is what all their rows would have said."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_estimates, from_rows, from_summary, merge
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

property_test = settings(max_examples=30)

type Row = tuple[str, str, float]

FIRST: list[Row] = [("a", "old", 0.0), ("a", "new", 1.0)]
"""With these every part of a partition has both arms and an outcome that varies."""

values = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
parts = st.lists(
    st.tuples(st.sampled_from(["a", "b", "week 10", "week 9"]), st.sampled_from(["old", "new", "newer"]), values),
    max_size=15,
)


def cells_of(rows: Sequence[Row], **changes: Any) -> xr.Dataset:
    frame = pl.DataFrame(list(rows), schema=["device", "arm", "y"], orient="row")
    return from_rows(frame, **({"outcome": "y", "arm": "arm", "control": "old", "segments": ["device"]} | changes))


def counts_of(bought: Sequence[int], arm: str = "new") -> xr.Dataset:
    table = pd.DataFrame({"device": ["a", "a"], "arm": ["old", arm], "n": [10, 20], "bought": bought})
    return from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="bought", outcome="y")


def assert_same(left: xr.Dataset, right: xr.Dataset) -> None:
    # Values up to 1e3 in fewer than 100 rows: sums of squares below 1e8, so 1e-6 is their rounding in float64.
    xr.testing.assert_allclose(left.drop_attrs(), right.drop_attrs(), rtol=1e-9, atol=1e-6)
    assert set(left.data_vars) == set(right.data_vars)


@property_test
@given(parts, parts, parts)
def test_any_partition_of_the_rows_merges_to_the_whole(one, two, three):
    split = [cells_of(FIRST * 2 + part) for part in (one, two, three)]
    assert_same(merge(*split), cells_of(FIRST * 6 + one + two + three))


@property_test
@given(parts, parts, parts)
def test_merging_is_associative_and_commutative(one, two, three):
    x, y, z = (cells_of(FIRST * 2 + part) for part in (one, two, three))
    assert_same(merge(merge(x, y), z), merge(x, merge(y, z)))
    assert_same(merge(x, y), merge(y, x))


def test_counts_add_up_and_stay_whole():
    merged = merge(counts_of([1, 2]), counts_of([3, 4]))
    assert cell_table.identify_kind(merged) == "counts"
    assert merged.n.values.tolist() == [[20, 40]]
    assert merged.events.values.tolist() == [[4, 6]]
    assert merged.events.dtype == np.int64


def test_segments_and_arms_of_either_table_are_kept():
    merged = merge(counts_of([1, 2], arm="new"), counts_of([3, 4], arm="newer"))
    assert merged.arm.values.tolist() == ["old", "new", "newer"]
    assert merged.events.values.tolist() == [[4, 2, 4]]
    other = cells_of([("b", "old", 1.0), ("b", "new", 5.0), ("b", "new", 5.0)])
    merged = merge(cells_of(FIRST * 2), other)
    assert merged.n.values.tolist() == [[2, 2], [1, 2]]
    assert merged["mean"].values.tolist() == [[0, 1], [1, 5]]


def test_events_are_kept_only_if_all_tables_have_them():
    yes_or_no, numbers = cells_of(FIRST * 2), cells_of([*FIRST, ("a", "new", 7.5)])
    assert "events" in merge(yes_or_no, yes_or_no)
    assert "events" not in merge(yes_or_no, numbers)


def test_counts_merge_with_the_moments_of_rows():
    rows = FIRST * 2 + [("a", "new", 0.0)]
    counts = cells_of(rows)[["n", "events"]]
    assert_same(merge(counts, cells_of(rows)), cells_of(rows * 2))


def test_segments_are_joined_by_their_levels_not_their_labels():
    def table(first: str, second: str) -> xr.Dataset:
        frame = pd.DataFrame(FIRST * 2, columns=["device", "arm", "y"]).assign(device=first, plan=second)
        return from_rows(frame, outcome="y", arm="arm", control="old", segments=["device", "plan"])

    merged = merge(table("a · b", "c"), table("a", "b · c"), table("a", "b · c"))
    assert merged.n.sum("arm").values.tolist() == [8, 4]
    assert len(set(merged.segment.values)) == 2


def test_a_large_mean_keeps_six_digits_of_the_spread():
    draw = np.random.default_rng(2)
    noise = draw.normal(size=(5, 400))
    rows = [[("a", "old" if i % 2 else "new", 1e9 + y) for i, y in enumerate(day)] for day in noise]
    merged = merge(*map(cells_of, rows))
    control = noise[:, 1::2].ravel()
    assert float(merged.ss.sel(arm="old").item()) == pytest.approx(((control - control.mean()) ** 2).sum(), rel=1e-6)


def test_one_table_is_returned_as_it_is():
    cells = counts_of([1, 2])
    xr.testing.assert_identical(merge(cells), cells)


def test_notes_and_sources_are_kept():
    rows: list[Any] = [*FIRST * 2, (None, "old", 3.0)]
    merged = merge(cells_of(rows), cells_of(FIRST * 2))
    assert cell_table.list_notes(merged) == ["1 unit has no value for device; it forms the level (missing)"]
    assert merged.attrs["source"] == "5 rows of polars.DataFrame + 4 rows of polars.DataFrame"


def test_nothing_cannot_be_merged():
    with pytest.raises(ArgumentError, match="nothing to merge"):
        merge()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcome": "z"}, "different outcome cannot be merged: 'y' in table 1, 'z' in table 3"),
        ({"control": "new"}, "different control cannot be merged: 'old' in table 1, 'new' in table 3"),
        (
            {"segments": ["plan"]},
            r"different dimensions cannot be merged: \['device'\] in table 1, \['plan'\] in table 3",
        ),
    ],
)
def test_tables_of_different_experiments_are_refused(changes, message):
    frame = pd.DataFrame(FIRST * 2, columns=["device", "arm", "y"]).assign(z=[1, 2, 3, 4], plan="free")
    keywords: dict[str, Any] = {"outcome": "y", "arm": "arm", "control": "old", "segments": ["device"]}
    same = from_rows(frame, **keywords)
    with pytest.raises(DataError, match=message):
        merge(same, same, from_rows(frame, **(keywords | changes)))


def test_standard_errors_are_refused_with_the_way_out():
    table = pd.DataFrame({"device": ["a", "a"], "arm": ["old", "new"], "m": [1.0, 2.0], "e": [0.1, 0.1]})
    means = from_summary(table, arm="arm", control="old", segments=["device"], mean="m", se="e")
    estimates = from_estimates(table.iloc[:1], segments=["device"], estimate="m", se="e")
    for kind, cells in {"means": means, "estimates": estimates}.items():
        with pytest.raises(DataError, match=f"{kind} cannot be merged exactly: .* Make the cells from rows"):
            merge(cells, cells)


def test_the_tables_are_left_as_they_were():
    x, y = cells_of(FIRST * 2), cells_of([*FIRST, ("b", "new", 2.5)])
    before = x.copy(deep=True), y.copy(deep=True)
    merge(x, y)
    xr.testing.assert_identical(x, before[0])
    xr.testing.assert_identical(y, before[1])
