"""Numbers whose squares are none are refused where cells are made or taken, in one sentence and without a warning."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import bayes_hte as hte
from bayes_hte import DataError
from bayes_hte.cells import from_estimates, from_rows, from_summary, from_times, with_covariates
from bayes_hte.spec import cell_table

pytestmark = pytest.mark.filterwarnings("error")

BASE = np.random.default_rng(0).normal(size=40)
BIG = np.array([1e308 / 4, *BASE[1:]])


def rows(outcome: np.ndarray, other: np.ndarray | float = 1.0, **asked: Any) -> xr.Dataset:
    frame = pd.DataFrame({"device": ["web", "tv"] * 20, "arm": ["old", "old", "new", "new"] * 10, "village": range(40)})
    frame = frame.assign(spent=outcome, other=other)
    return from_rows(frame, outcome="spent", arm="arm", control="old", segments=["device"], **asked)


def sums(**columns: Any) -> xr.Dataset:
    table = pd.DataFrame({"device": ["tv", "tv", "web", "web"], "arm": ["old", "new"] * 2, **columns})
    return from_summary(table, arm="arm", control="old", segments=["device"], **{name: name for name in columns})


def estimates(estimate: list[float], se: list[float]) -> xr.Dataset:
    table = pd.DataFrame({"trial": list("abcd")[: len(se)], "estimate": estimate, "se": se})
    return from_estimates(table, segments=["trial"], estimate="estimate", se="se")


def times() -> xr.Dataset:
    table = pd.DataFrame({"device": "tv", "arm": ["old", "new"] * 20, "days": [1e300, *np.abs(BASE[1:])], "died": 1})
    return from_times(table, time="days", event="died", arm="arm", control="old", segments=["device"])


N: dict[str, Any] = {"n": [10, 20, 30, 40]}
MEANS: dict[str, Any] = {**N, "mean": [1.0, 2, 3, 4]}
TOO_LARGE: dict[str, Callable[[], xr.Dataset]] = {
    "one outcome": lambda: rows(BIG),
    "all outcomes": lambda: rows(BASE * 1e200),
    "sums of squares only": lambda: rows(BASE * 1e160),
    "totals of clusters": lambda: rows(BIG, cluster="village"),
    "an adjusted outcome": lambda: rows(BIG, BASE, cuped="other"),
    "a covariate": lambda: rows(BASE, BIG, cuped="other"),
    "a covariate from before": lambda: rows(BASE, BIG, balance="other"),
    "weights": lambda: rows(BASE, np.abs(BIG), weights="other"),
    "a denominator": lambda: rows(BASE, np.abs(BIG), denominator="other"),
    "two parts": lambda: rows(np.where(BASE > 0, BIG, 0.0), metric="two_part") if BASE[0] > 0 else rows(BIG),
    "a histogram": lambda: rows(np.array([1e200, *np.round(BASE[1:])]), metric="histogram"),
    "exposure": lambda: rows(np.round(np.abs(BASE)), 1e300, exposure="other"),
    "times": times,
    "every sd": lambda: sums(**MEANS, sd=1e200),
    "one sd": lambda: sums(**MEANS, sd=[1e200, 1, 1, 1]),
    "a mean": lambda: sums(**N, mean=[1e200, 2, 3, 4], sd=1.0),
    "the sd of logarithms": lambda: sums(**MEANS, sd=1.0, positive=5, log_mean=[0.0, 1, 2, 3], log_sd=1e200),
    "an estimate": lambda: estimates([1e200, 2.0], [1.0, 1.0]),
    "a standard error": lambda: estimates([1.0, 2.0], [1e200, 1.0]),
    "a covariate of segments": lambda: with_covariates(
        sums(**N, events=5), pd.DataFrame({"device": ["tv", "web"], "size": [1e308, -1e308]}), ["size"]
    ),
}


@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large_to_be_squared_is_refused(make: Callable[[], xr.Dataset]) -> None:
    with pytest.raises(DataError, match=r"often stands for a missing.*; clean .*, or state .* in larger units"):
        make()


def test_the_cell_is_named() -> None:
    with pytest.raises(DataError, match=r"mean is 2\.5e\+306 in segment 'web', arm 'old'"):
        rows(BIG)


TINY = r"too small to be measured; check it, or state the outcome in smaller units"


def test_published_errors_that_are_too_small_to_be_measured_are_refused() -> None:
    with pytest.raises(DataError, match=TINY):
        estimates([1.0, 2.0], [1e-200, 1.0])


def test_outcomes_that_hardly_differ_make_cells_but_no_fit() -> None:
    cells = rows(BASE * 1e-100)
    with pytest.raises(DataError, match=TINY):
        hte.fit(cells, "metric")


@pytest.mark.parametrize("name", ["mean", "ss", "lowest", "highest"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_cells_made_elsewhere_are_refused_before_they_are_checked_or_fitted(name: str, value: float) -> None:
    cells = rows(BASE)
    cells[name].values[0, 0] = value
    for use in (cell_table.check_cell_table, hte.check, lambda found: hte.fit(found, "metric")):
        with pytest.raises(DataError, match=f"{name} is {value:g} in segment 'tv', arm 'old'"):
            use(cells)


def test_empty_cells_have_no_mean_and_no_extremes_and_stay_allowed() -> None:
    cells = sums(n=[10, 20, 30, 0], mean=[1.0, 2, 3, np.nan], sd=[1.0, 1, 1, np.nan])
    assert bool(cells["mean"].isnull().any())
    assert float(cells["ss"].min()) == 0.0
    cell_table.check_cell_table(cells.assign(lowest=cells["mean"], highest=cells["mean"]))


@given(st.floats(-60, 60))
@settings(max_examples=20)  # each reduces rows in DuckDB
def test_outcomes_within_sixty_powers_of_ten_are_allowed(power: float) -> None:
    cell_table.check_cell_table(rows(BASE * 10**power))
    cell_table.check_cell_table(estimates([10**power, 0.0], [10**power, 1.0]))


def test_a_cap_makes_large_outcomes_harmless() -> None:
    assert float(rows(BIG, cap=3.0)["highest"].max()) <= 3.0
