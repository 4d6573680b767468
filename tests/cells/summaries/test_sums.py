"""Sums and sums of squares, and 2×2 tables: the same cells as from other forms, and a word where digits are lost."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_rows, from_summary
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

BASE: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}
SUMS = {"n": "n", "total": "t", "sum_squares": "q"}
CELLS = {"device": ["tv", "tv", "web", "web"], "arm": ["new", "old"] * 2}


def summed(outcomes: list[Any]) -> pd.DataFrame:
    """One row per cell, from the outcomes of each, summed without rounding where they are whole."""
    return pd.DataFrame(
        {
            "n": [len(values) for values in outcomes],
            "t": [float(sum(values)) for values in outcomes],
            "q": [float(sum(value * value for value in values)) for values in outcomes],
        }
        | {name: labels[: len(outcomes)] for name, labels in CELLS.items()}
    )


def drawn(mean: float, n: int = 1000) -> list[list[float]]:
    rng = np.random.default_rng(3)
    return [(mean + rng.normal(size=n)).tolist() for _ in range(4)]


def read(table: pd.DataFrame, **changes: Any) -> xr.Dataset:
    return from_summary(table, **(BASE | SUMS | changes))


@settings(max_examples=60)
@given(
    outcomes=st.lists(st.lists(st.integers(-1000, 1000), min_size=1, max_size=20), min_size=4, max_size=4),
    shift=st.sampled_from([0, 10**6, 3 * 10**6]),
)
def test_sums_of_whole_numbers_give_the_moments_to_the_last_digit(outcomes, shift):
    shifted = [[shift + value for value in values] for values in outcomes]
    assume(len({value for values in shifted for value in values}) > 1)
    cells = read(summed(shifted))
    table = pd.DataFrame(CELLS | {"n": [len(values) for values in outcomes]})
    table["mean"] = [shift + np.mean(values) for values in outcomes]
    table["sd"] = [np.std(values, ddof=1) if len(values) > 1 else None for values in outcomes]
    moments = from_summary(table, **BASE, n="n", mean="mean", sd="sd")
    xr.testing.assert_allclose(cells.drop_attrs(), moments.drop_attrs(), rtol=1e-12, atol=1e-9)


def test_sums_of_rows_give_the_cells_of_the_rows():
    draw = np.random.default_rng(5)
    rows = pd.DataFrame({"device": ["tv", "web", "app"] * 50, "arm": ["old", "new"] * 75, "y": draw.gamma(2, size=150)})
    table = (
        rows.assign(q=rows["y"] ** 2).groupby(["device", "arm"]).agg(n=("y", "size"), t=("y", "sum"), q=("q", "sum"))
    )
    cells = read(table.reset_index())
    direct = from_rows(rows, outcome="y", arm="arm", control="old", segments=["device"])
    xr.testing.assert_allclose(cells[["n", "mean", "ss"]].drop_attrs(), direct[["n", "mean", "ss"]].drop_attrs(), 1e-13)


@pytest.mark.parametrize("mean", [1e4, 1e5, 1e6, 1e7])
def test_the_digits_that_are_left_are_named(mean):
    outcomes = drawn(mean)
    cells = read(summed(outcomes))
    true = [np.sum((np.array(values) - np.mean(values)) ** 2) for values in outcomes]
    found = cells.ss.sel(segment=["tv", "web"], arm=["new", "old"]).values.ravel()
    notes = cell_table.list_notes(cells)
    if mean < 1e5:
        assert notes == []
    else:  # eps times the condition number, which is mean² here; 1.5 for the rounding of both sums
        left = round(-np.log10(1.5 * np.finfo(float).eps * mean**2))
        assert notes[0].startswith(f"total and sum_squares leave about {left} digit")
        assert "; give n, mean and sd to keep all" in notes[0]
    # sums of n numbers, each rounded, are off by about √n / 2 roundings at most, which may agree with each other
    np.testing.assert_allclose(found, true, rtol=32 * 1.5 * np.finfo(float).eps * mean**2)


def test_a_note_names_the_cell_and_counts_the_others():
    outcomes = drawn(0.0)
    outcomes[0] = drawn(1e6)[0]
    table = summed(outcomes)
    assert "of the variance in segment 'tv', arm 'new', as the mean is large" in cell_table.list_notes(read(table))[0]
    table = summed(drawn(1e6))
    assert "and fewer than 6 in 3 other cells" in cell_table.list_notes(read(table))[0]


def test_nothing_is_made_of_sums_that_leave_no_digit():
    with pytest.raises(DataError, match=r"leave no digit of the variance, .* give n, mean and sd instead; wrong in"):
        read(summed(drawn(1e9)))


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_amounts_with_few_decimals_are_exact(decimals):
    draw = np.random.default_rng(1)
    coins = [[int(value) for value in draw.integers(1_000_000, 1_000_100, size=50)] for _ in range(4)]
    table, unit = summed(coins), 10**decimals
    table["t"] = [sum(values) / unit for values in coins]
    table["q"] = [sum(value**2 for value in values) / unit**2 for values in coins]
    cells = read(table)
    assert cell_table.list_notes(cells) == []
    expected = [np.sum((np.array(values) - np.mean(values)) ** 2) / unit**2 for values in coins]
    np.testing.assert_allclose(cells.ss.sel(segment=["tv", "web"], arm=["new", "old"]).values.ravel(), expected, 1e-12)


def test_sums_of_few_digits_are_taken_as_they_are_written():
    cells = read(summed([[1.5, 2.5, 2.0], [1.0, 2.5, 3.0], [0.5, 0.5, 1.0], [1.0, 1.5, 1.5]]))
    assert cell_table.list_notes(cells) == []
    np.testing.assert_allclose(cells.ss.sel(segment="tv", arm="new"), 0.5, rtol=1e-15)


def test_cells_of_none_one_and_equal_units_have_no_spread():
    table = summed([[1, 2, 3], [], [2.5], [0.0, 0.0]])
    table.loc[1, ["t", "q"]] = None
    cells = read(table)
    np.testing.assert_array_equal(cells.ss.sel(segment=["tv", "web"], arm=["new", "old"]), [[2, 0], [0, 0]])
    np.testing.assert_array_equal(cells["mean"].sel(segment=["tv", "web"], arm=["new", "old"]), [[2, np.nan], [2.5, 0]])


GOOD = {"n": [3, 3, 3, 3], "t": [6.0, 9.0, 6.0, 3.0], "q": [14.0, 29.0, 12.5, 5.0]}
BAD = {
    "too small": (
        {"q": [11.0, 29, 12.5, 5]},
        "sum_squares must be at least total²/n; .* wrong in segment 'tv', arm 'new'",
    ),
    "negative": ({"q": [-1.0, 29, 12.5, 5]}, "sum_squares must not be negative"),
    "missing total": ({"t": [None, 9, 6, 3]}, "total must be a finite number"),
    "missing squares": ({"q": [None, 29, 12.5, 5]}, "sum_squares must be a finite number"),
    "endless": ({"q": [np.inf, 29, 12.5, 5]}, "sum_squares must be a finite number"),
    "overflow": ({"t": [1e300, 9, 6, 3]}, "sum_squares must be at least total²/n"),
    "broken n": ({"n": [2.5, 3, 3, 3]}, "n must be a whole number"),
    "beyond counting": ({"n": [1e300, 3, 3, 3]}, "n must be at most 2\\^53"),
    "constant": ({"t": 6.0, "q": 12.0}, "the outcome does not vary"),
    "and sd": ({}, "make no summary"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_impossible_sums_are_named(changes, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(pd.DataFrame(CELLS | GOOD | changes), **({} if changes else {"sd": "n"}))


def test_events_and_non_events_are_counts():
    table = pd.DataFrame(CELLS | {"yes": [4, 5, 0, 100], "no": [36, 45, 0, 900], "n": [40, 50, 0, 1000]})
    cells = from_summary(table, **BASE, events="yes", non_events="no")
    xr.testing.assert_identical(cells, from_summary(table, **BASE, events="yes", n="n"))


@pytest.mark.parametrize(
    ("yes", "message"), [(-1, "events must be a whole number, 0 or more"), (None, "events must be a finite number")]
)
def test_an_impossible_two_by_two_table_is_named(yes, message):
    table = pd.DataFrame(CELLS | {"yes": [yes, 5, 0, 100], "no": [36, 45, 0, 900]})
    with pytest.raises(DataError, match=message):
        from_summary(table, **BASE, events="yes", non_events="no")
