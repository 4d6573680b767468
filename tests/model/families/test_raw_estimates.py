"""What new families say of the data alone: raw estimates and their errors, and what data they refuse.

Every estimate is compared with a textbook's formula on the units themselves, or with a published result.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_cells import example, table
from example_revenue import revenue
from numpy.typing import NDArray
from oracle_grids import ARMS, deeper
from scipy import optimize, special, stats

from bayes_hte import DataError, ModelError
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.long_form import build_long_form
from bayes_hte.spec import cell_table

Array = NDArray[np.float64]


# Raw estimates, against formulas on the units


def units_of(family: str) -> tuple[list[list[Array]], xr.Dataset]:
    """Units of every cell, expanded, with the cells."""
    if family == "two_part":
        return revenue(seed=6, segments=3)
    cells = example(family, arms=("control", "email")).isel(segment=slice(0, 5))
    rows = [[np.repeat(cells["value"].values, cells["histogram"].values[s, a]) for a in (0, 1)] for s in range(5)]
    return rows, cells


def raw_of(family: str, cells: xr.Dataset, scale: Any) -> tuple[Array, Array]:
    chosen = FAMILIES[family]
    found = chosen.estimate_raw_effects(chosen.select_statistics(cells), scale)
    assert found["raw"].dims == ("segment", "arm")
    return found["raw"].values.ravel(), found["raw_se"].values.ravel()


@pytest.mark.parametrize("family", ["negative_binomial", "ordinal", "two_part"])
def test_raw_differences_are_those_of_welchs_test_on_the_units(family: str) -> None:
    rows, cells = units_of(family)
    raw, se = raw_of(family, cells, "absolute")
    for s, (control, treated) in enumerate(rows):
        welch = stats.ttest_ind(treated, control, equal_var=False)
        assert raw[s] == pytest.approx(treated.mean() - control.mean(), rel=1e-9)
        assert raw[s] / se[s] == pytest.approx(welch.statistic, rel=1e-9)


@pytest.mark.parametrize("family", ["negative_binomial", "two_part"])
def test_raw_ratios_have_the_delta_methods_errors_from_the_units(family: str) -> None:
    rows, cells = units_of(family)
    link, link_se = raw_of(family, cells, "link")
    relative, relative_se = raw_of(family, cells, "relative")
    for s, (control, treated) in enumerate(rows):
        ratio = treated.mean() / control.mean()
        assert np.exp(link[s]) == pytest.approx(ratio, rel=1e-9)
        assert relative[s] == pytest.approx(ratio - 1, rel=1e-9)
        assert relative_se[s] == pytest.approx(ratio * link_se[s], rel=1e-9)
        variance = sum(y.var(ddof=1) / len(y) / y.mean() ** 2 for y in (control, treated))
        assert link_se[s] == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_raw_log_rate_ratios_of_counts_are_those_of_the_textbook() -> None:
    cells = table(
        {"events": np.array([[7, 11], [0, 3], [4, 4]]),
         "exposure": np.array([[1344.0, 1988.0], [10.0, 20.0], [5.0, 0.5]])},
        arms=ARMS, control="control",
    )  # fmt: skip
    raw, se = raw_of("poisson", cells, "link")
    assert raw[[0, 2]] == pytest.approx([np.log(11 / 1988 / (7 / 1344)), np.log(8 / 0.8)])
    assert se[[0, 2]] == pytest.approx([np.sqrt(1 / 7 + 1 / 11), np.sqrt(0.5)])
    assert np.isnan(raw[1])
    difference, difference_se = raw_of("poisson", cells, "absolute")
    assert difference[1] == pytest.approx(0.15)
    assert difference_se[1] == pytest.approx(np.hypot(1 / 10, np.sqrt(3) / 20))  # no event: the variance of one
    relative, relative_se = raw_of("poisson", cells, "relative")
    assert relative[0] == pytest.approx(np.exp(raw[0]) - 1)
    assert relative_se[0] == pytest.approx(np.exp(raw[0]) * se[0])


def test_hazard_ratio_is_the_published_one_of_mantel_and_haenszel() -> None:
    """British doctors (Doll & Hill 1966): deaths and person-years of smokers and others in five bands of age.

    Stata's manual gives 1.424682 with the interval 1.154703 to 1.757784.
    """
    failures = np.array([[[2, 12, 28, 28, 31], [32, 104, 206, 186, 102]]])
    years = np.array([[[18790.0, 10673, 5710, 2585, 1462], [52407, 43248, 28612, 12663, 5317]]])
    edges = np.arange(6.0) * 10
    cells = deeper(
        {"n": np.array([[20000, 60000]])}, {"failures": failures, "at_risk": years},
        interval=list("abcde"), start=edges[:-1], end=edges[1:], horizon=50.0,
    )  # fmt: skip
    raw, se = raw_of("piecewise_exponential", cells, "link")
    ends = np.exp(raw[0] + stats.norm.ppf([0.025, 0.975]) * se[0])
    assert np.exp(raw[0]) == pytest.approx(1.424682, abs=5e-7)
    assert ends == pytest.approx([1.154703, 1.757784], abs=1e-6)
    relative, relative_se = raw_of("piecewise_exponential", cells, "relative")
    assert relative[0] == pytest.approx(0.424682, abs=5e-7)
    assert relative_se[0] == pytest.approx(np.exp(raw[0]) * se[0])


def survival_cells(times: list[Array], ends: list[Array], edges: Array, horizon: float) -> xr.Dataset:
    """One segment, two arms; follow-up ends at a time of its own for every unit."""
    failures, at_risk = (np.zeros((1, 2, len(edges) - 1)) for _ in range(2))
    for a, (time, end) in enumerate(zip(times, ends, strict=True)):
        stop = np.minimum(time, end)
        for j, (low, high) in enumerate(pairwise(edges)):
            failures[0, a, j] = ((time <= end) & (time > low) & (time <= high)).sum()
            at_risk[0, a, j] = np.clip(np.minimum(stop, high) - low, 0, None).sum()
    return deeper(
        {"n": np.array([[len(time) for time in times]])}, {"failures": failures.astype(int), "at_risk": at_risk},
        interval=[f"{low:g}" for low in edges[:-1]], start=edges[:-1], end=edges[1:], horizon=horizon,
    )  # fmt: skip


def kaplan_meier(time: Array, end: Array, horizon: float) -> tuple[float, float]:
    """Risk by the horizon, and Greenwood's standard error."""
    stop = np.minimum(time, end)
    seen = np.sort(time[(time <= end) & (time <= horizon)])
    at_risk = np.array([(stop >= t).sum() for t in seen])
    survival = np.prod(1 - 1 / at_risk)
    return 1 - survival, survival * np.sqrt((1 / (at_risk * (at_risk - 1.0))).sum())


def test_raw_risk_difference_is_that_of_kaplan_and_meier() -> None:
    rng = np.random.default_rng(12)
    times = [rng.weibull(1.4, 1500) * 8, rng.weibull(1.4, 1200) * 10]
    ends = [rng.uniform(1.0, 15.0, len(time)) for time in times]
    cells = survival_cells(times, ends, np.linspace(0.0, 15.0, 61), horizon=6.0)
    raw, se = raw_of("piecewise_exponential", cells, "absolute")
    (control, control_se), (treated, treated_se) = (kaplan_meier(*both, 6.0) for both in zip(times, ends, strict=True))
    expected = np.hypot(control_se, treated_se)
    # Sixty intervals are not the times themselves: that moves the difference by much less than its standard error.
    assert raw[0] == pytest.approx(treated - control, abs=0.05 * expected)
    assert se[0] == pytest.approx(expected, rel=0.02)


def test_the_risk_difference_is_unknown_where_nobody_was_at_risk() -> None:
    rng = np.random.default_rng(13)
    times, ends = [rng.exponential(5.0, 50), rng.exponential(5.0, 50)], [np.full(50, 9.0), np.full(50, 2.0)]
    for horizon, known in ((2.0, True), (5.0, False)):
        cells = survival_cells(times, ends, np.array([0.0, 2.0, 9.0]), horizon=horizon)
        assert np.isfinite(raw_of("piecewise_exponential", cells, "absolute")[0][0]) == known


def maximum_likelihood(control: Array, treated: Array) -> tuple[float, float]:
    """Proportional odds by brute optimisation of (cutpoints, effect), and the standard error of the effect."""

    def minus_log(free: Array) -> float:
        cuts = np.cumsum([free[0], *np.exp(free[1:-1])])
        total = 0.0
        for units, eta in ((control, 0.0), (treated, free[-1])):
            below = np.concatenate([[0.0], special.expit(cuts - eta), [1.0]])
            total -= units @ np.log(np.diff(below))
        return total

    start = np.zeros(len(control))
    start[0] = -1.0
    found = optimize.minimize(
        minus_log, start, method="BFGS", options={"gtol": 1e-4 * (control.sum() + treated.sum()) ** 0.5}
    )
    step, size = 1e-3, len(start)
    hessian = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        moved = [
            minus_log(found.x + step * (a * np.eye(size)[i] + b * np.eye(size)[j])) for a in (1, -1) for b in (1, -1)
        ]
        hessian[i, j] = (moved[0] - moved[1] - moved[2] + moved[3]) / (4 * step**2)
    return float(found.x[-1]), float(np.sqrt(np.linalg.inv(hessian)[-1, -1]))


@pytest.mark.parametrize("effect", [0.0, 0.1, -0.2])
def test_the_raw_log_odds_ratio_of_ordered_answers_is_the_maximum_of_their_likelihood(effect: float) -> None:
    cuts = np.array([-1.5, -0.2, 1.0])
    shares = [np.diff(np.concatenate([[0.0], special.expit(cuts - eta), [1.0]])) for eta in (0.3, 0.3 + effect)]
    rng = np.random.default_rng(14)
    units = np.array([[rng.multinomial(20_000, shares[0]), rng.multinomial(15_000, shares[1])]])
    cells = deeper({"n": units.sum(-1)}, {"histogram": units}, value=np.arange(4.0))
    raw, se = raw_of("ordinal", cells, "link")
    expected, error = maximum_likelihood(*units[0].astype(float))
    # One step from no effect: what it misses is of the order of the cube of the effect.
    assert raw[0] == pytest.approx(expected, abs=0.01 * error + abs(effect) ** 3)
    assert se[0] == pytest.approx(error, rel=0.01)


# What the data must be


def without(family: str, *names: str) -> xr.Dataset:
    """Cells in which some variables are 0 throughout."""
    cells = example(family)
    return cells.assign({name: cells[name] * 0 for name in names})


def counted(*values: float) -> xr.Dataset:
    """Cells with histograms of these outcomes."""
    return example("ordinal").assign_coords(value=np.array(values))


@pytest.mark.parametrize(
    ("family", "cells", "error", "message"),
    [
        ("poisson", example("binomial"), ModelError, r'count units that did or did not: use "binomial"'),
        ("poisson", example("normal"), ModelError, r"the outcome must be whole numbers"),
        ("poisson", example("mean"), ModelError, r"needs events, exposure of every cell"),
        ("poisson", without("poisson", "events"), DataError, r"no events in any cell"),
        ("negative_binomial", example("poisson"), ModelError, r'make the cells with metric="histogram"'),
        ("negative_binomial", counted(0.0, 1.0, 2.0, 2.5), ModelError, r"whole outcomes from 0"),
        ("negative_binomial", counted(-1.0, 1.0, 2.0, 3.0), ModelError, r"whole outcomes from 0"),
        ("ordinal", example("binomial"), ModelError, r'make the cells with metric="histogram"'),
        ("two_part", example("normal"), ModelError, r'make the cells with metric="two_part"'),
        ("two_part", without("two_part", "positive", "log_ss"), DataError, r"no positive outcome in any cell"),
        ("two_part", without("two_part", "log_ss"), DataError, r"positive outcomes do not vary within any cell"),
        ("piecewise_exponential", example("poisson"), ModelError, r"make the cells with from_times"),
        (
            "piecewise_exponential",
            without("piecewise_exponential", "failures"),
            DataError,
            r"is 1 the code of an event\?",
        ),
    ],
)
def test_a_family_says_what_it_lacks(family: str, cells: xr.Dataset, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FAMILIES[family].select_statistics(cells)


def test_counts_that_are_all_zero_are_an_error() -> None:
    cells = example("negative_binomial")
    units = xr.zeros_like(cells["histogram"])
    units[..., 0] = cells["n"]
    with pytest.raises(DataError, match="every count is 0"):
        FAMILIES["negative_binomial"].select_statistics(cells.assign(histogram=units))


def test_a_level_that_nobody_chose_has_no_cutpoint_and_the_others_keep_their_numbers() -> None:
    cells = example("ordinal")
    units = cells["histogram"].copy()
    units[..., 1], units[..., 2] = units[..., 1] + units[..., 2], 0
    emptied = cells.assign(histogram=units)
    numbers = cells["value"].values
    assert FAMILIES["ordinal"].select_statistics(emptied)["value"].values.tolist() == np.delete(numbers, 2).tolist()
    nuisance = FAMILIES["ordinal"].nuisance
    assert nuisance is not None
    assert nuisance.label_dims(emptied)["cutpoint"][:2] == ["1|2", "2|5"]
    units[..., 0], units[..., 1:] = units.sum("value"), 0
    with pytest.raises(DataError, match="every unit gave the same answer"):
        FAMILIES["ordinal"].select_statistics(cells.assign(histogram=units))


def test_words_are_no_counts() -> None:
    cells = example("negative_binomial")
    words = [f"answer {value:g}" for value in cells["value"].values]
    with pytest.raises(ModelError, match='these are answers in words; use "ordinal"'):
        FAMILIES["negative_binomial"].select_statistics(cells.assign_coords(value_label=("value", words)))


def test_too_many_levels_are_an_error() -> None:
    many = np.ones((2, 2, 13), dtype=int)
    with pytest.raises(DataError, match="the outcome has 13 levels, ordinal takes 12"):
        FAMILIES["ordinal"].select_statistics(deeper({"n": many.sum(-1)}, {"histogram": many}, value=np.arange(13.0)))


def test_counts_per_unit_with_their_mean_are_events_over_units() -> None:
    n, mean = np.array([[4, 5], [2, 0]]), np.array([[1.25, 0.6], [0.5, np.nan]])
    cells = table({"n": n, "mean": mean, "ss": np.where(n > 0, 1.0, 0.0)}, arms=ARMS, control="control")
    found = FAMILIES["poisson"].select_statistics(cells)
    assert found["events"].values.tolist() == [[5, 3], [1, 0]]
    assert (found["exposure"] == cells["n"]).all()
    assert cell_table.has_data(found).values.tolist() == [[True, True], [True, False]]


def test_draws_without_a_level_that_the_cells_have_predict_nothing() -> None:
    cells = FAMILIES["ordinal"].select_statistics(example("ordinal"))
    long_cells = build_long_form(cells)
    eta = xr.DataArray(np.zeros((1, 2, long_cells.sizes["cell"])), dims=("chain", "draw", "cell"))
    cutpoints = xr.DataArray(np.zeros((1, 2, cells.sizes["value"] - 2)), dims=("chain", "draw", "cutpoint"))
    with pytest.raises(DataError, match="a level was chosen in one segment only"):
        FAMILIES["ordinal"].compute_log_likelihood(long_cells, eta, {"cutpoints": cutpoints})
