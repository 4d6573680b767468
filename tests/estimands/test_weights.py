"""Shares of a population, by units or by stated weights, and averages over it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit

import bayes_hte as hte
from bayes_hte import ArgumentError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.weights import average_over_segments, compute_population_shares
from bayes_hte.spec.fit_tree import get_fitted_cells

SIZE = CHAINS * DRAWS
FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]


def test_shares_are_the_units_of_all_arms() -> None:
    cells = get_fitted_cells(example_fit(5, arms=("control", "email", "sms"), one_armed=(1,)).posterior)
    n = cells["n"].values
    np.testing.assert_allclose(compute_population_shares(cells), n.sum(axis=1) / n.sum(), rtol=1e-12)


def test_segments_count_the_same_where_units_are_unknown() -> None:
    cells = get_fitted_cells(example_fit(4, "estimate", known_n=False).posterior)
    np.testing.assert_allclose(compute_population_shares(cells), np.full(4, 0.25))


def test_weights_go_by_label_and_in_any_order() -> None:
    cells = get_fitted_cells(example_fit(3).posterior)
    labels = [str(label) for label in cells["segment"].values]
    weights = pd.Series([3.0, 1.0, 0.0], index=labels).iloc[[2, 0, 1]]
    np.testing.assert_allclose(compute_population_shares(cells, weights), [0.75, 0.25, 0.0])
    np.testing.assert_allclose(compute_population_shares(cells, dict(weights)), [0.75, 0.25, 0.0])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1.0, 2.0], r"weights lack the segments \['device 3'\]"),
        ([1.0, -2.0, 1.0], "not negative"),
        ([0.0, 0.0, 0.0], "not all zero"),
        ([1.0, float("nan"), 1.0], "finite"),
        ([1.0, float("inf"), 1.0], "finite"),
    ],
)
def test_weights_that_make_no_population_are_refused(values: list[float], match: str) -> None:
    cells = get_fitted_cells(example_fit(3).posterior)
    with pytest.raises(ArgumentError, match=match):
        compute_population_shares(cells, dict(zip(["device 1", "device 2", "device 3"], values, strict=False)))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_average_effect_is_the_share_weighted_sum_of_every_draw(family: Any) -> None:
    fit = example_fit(4, family, arms=("control", "email", "sms"))
    share = np.array([0.1, 0.2, 0.3, 0.4])
    weights = dict(zip(map(str, fit.cells["segment"].values), share, strict=True))
    draws = compute_effects(fit.posterior)
    found = average_over_segments(draws, compute_population_shares(fit.cells, weights))
    np.testing.assert_allclose(found, np.einsum("cdsa,s->cda", draws.values, share), rtol=1e-12, atol=1e-15)


def test_weights_for_segments_that_are_not_there_are_an_error(counts: xr.Dataset) -> None:
    weights = {f"s{i}": 1.0 for i in range(6)} | {"tablet": 1.0}
    with pytest.raises(ArgumentError, match=r"not there: \['tablet'\]"):
        compute_population_shares(counts, weights)


# Draws of every family whose control has a mean: the average of relative effects against the total, outcome by outcome.


def means_by_hand(fit: Any) -> tuple[Any, Any]:
    """Mean outcome of control and treated per draw and segment, from the formulas of the links."""
    draws = fit.tree["posterior"].to_dataset()
    baseline = draws["baseline"].transpose("chain", "draw", "segment").values[..., None]
    treated = baseline + draws["effect"].transpose("chain", "draw", "segment", "arm").values
    inverse_link = {
        "binomial": lambda eta: 1 / (1 + np.exp(-eta)),
        "poisson": np.exp,
        "negative_binomial": np.exp,
    }.get(fit.model.family, lambda eta: eta)
    return inverse_link(baseline), inverse_link(treated)


def change_of_total(fit: Any, sizes: Any) -> Any:
    """Σ size · treated mean over Σ size · control mean, less one; (chain, draw, arm)."""
    control, treated = means_by_hand(fit)
    sizes = np.asarray(sizes)[:, None]
    return (treated * sizes).sum(2) / (control * sizes).sum(2) - 1


@pytest.fixture(scope="module", params=["conversion", "metric", "rates"])
def fit_with_small_baselines(request: pytest.FixtureRequest) -> Any:
    """A small segment of small means rises most, by three times; the large one hardly changes."""
    table = pd.DataFrame(
        {
            "plan": ["a", "a", "b", "b", "c", "c"],
            "half": ["one", "one", "one", "one", "two", "two"],
            "arm": ["old", "new"] * 3,
            "n": [20_000, 20_000, 30_000, 30_000, 10_000, 9_000],
            "events": [200, 400, 6_000, 6_050, 700, 800],
        }
    )
    asked: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["plan", "half"]}
    if request.param == "rates":
        return hte.fit(hte.cells.from_summary(table, events="events", exposure="n", **asked), "rates", draws=400)
    columns = {"n": "n", "events": "events"}
    if request.param == "metric":
        table = table.assign(mean=table["events"] / table["n"], sd=0.2)
        columns = {"n": "n", "mean": "mean", "sd": "sd"}
    return hte.fit(hte.cells.from_summary(table, **columns, **asked), request.param, draws=400)


def test_the_relative_average_is_the_change_of_the_total_draw_by_draw(fit_with_small_baselines: Any) -> None:
    fit = fit_with_small_baselines
    by_hand = change_of_total(fit, [40_000, 60_000, 19_000])
    ate = fit.ate("relative").iloc[0]
    assert ate["effect"] == pytest.approx(by_hand.mean(), rel=1e-9)
    assert ate["sd"] == pytest.approx(by_hand.std(ddof=1), rel=1e-9)
    np.testing.assert_allclose([ate["ci_low"], ate["ci_high"]], np.quantile(by_hand, [0.025, 0.975]), rtol=1e-9)
    # The total rises exactly where the mean of all does.
    assert ate["p_positive"] == (by_hand > 0).mean() == fit.ate("absolute").iloc[0]["p_positive"]
    # 13,730 events of all in one arm become 14,589 (+6 %): far from the mean of +100 %, +1 % and +27 %.
    assert 0.0 < ate["effect"] < 0.12


def test_the_mean_of_the_segments_ratios_keeps_a_name_of_its_own(fit_with_small_baselines: Any) -> None:
    fit = fit_with_small_baselines
    control, treated = means_by_hand(fit)
    by_hand = ((treated / control - 1) * np.array([40, 60, 19])[:, None] / 119).sum(2)
    table = fit.ate("relative", of="segments")
    assert table["effect"].iloc[0] == pytest.approx(by_hand.mean(), rel=1e-9)
    assert table.attrs["average"] == "mean of the segments' relative effects"
    assert fit.ate("relative").attrs["average"] == "change in the mean of all, relative to the control's"
    for scale in ("absolute", "link"):
        pd.testing.assert_frame_equal(fit.ate(scale, of="segments"), fit.ate(scale))


def test_levels_and_the_rest_rise_by_the_change_of_their_totals(fit_with_small_baselines: Any) -> None:
    fit, sizes = fit_with_small_baselines, np.array([40_000, 60_000, 19_000])
    for level, members in (("one", [True, True, False]), ("two", [False, False, True])):
        row = fit.marginal("half", "relative").set_index("level").loc[level]
        assert row["effect"] == pytest.approx(change_of_total(fit, sizes * members).mean(), rel=1e-9)
    control, treated = means_by_hand(fit)
    effects, total = treated / control - 1, change_of_total(fit, sizes)
    rest = np.stack([change_of_total(fit, sizes * (np.arange(3) != s)) for s in range(3)], axis=2)
    for against, expected in (("rest", effects - rest), ("ate", effects - total[:, :, None])):
        table = fit.contrasts(against, "relative")
        np.testing.assert_allclose(table["difference"], expected.mean((0, 1))[:, 0], rtol=1e-8, atol=1e-12)


def test_the_spread_of_relative_effects_is_around_the_change_of_the_total(fit_with_small_baselines: Any) -> None:
    fit, sizes = fit_with_small_baselines, np.array([40_000, 60_000, 19_000])[:, None]
    control, treated = means_by_hand(fit)
    weights = control * sizes / (control * sizes).sum(2, keepdims=True)
    distances = treated / control - 1 - change_of_total(fit, sizes[:, 0])[:, :, None]
    spread = np.sqrt((weights * distances**2).sum(2)).mean()
    table = fit.heterogeneity("relative").set_index("quantity")
    assert table.loc["spread", "value"] == pytest.approx(spread, rel=1e-9)


def test_stated_weights_are_those_of_the_total_too(fit_with_small_baselines: Any) -> None:
    fit = fit_with_small_baselines
    weights = dict(zip(map(str, fit.cells["segment"].values), [1.0, 0.0, 3.0], strict=True))
    table = fit.ate("relative", weights=weights)
    assert table["effect"].iloc[0] == pytest.approx(change_of_total(fit, [1, 0, 3]).mean(), rel=1e-9)
    assert table.attrs["population"] == "the population that the weights describe"


def test_the_total_hazard_of_survival_is_that_at_the_start() -> None:
    rng = np.random.default_rng(5)
    stage, arm = rng.choice(["early", "late"], 4000, p=[0.7, 0.3]), rng.choice(["old", "new"], 4000)
    hazard = np.where(stage == "early", 0.02, 0.4) * np.where((stage == "early") & (arm == "new"), 2.0, 1.0)
    time = rng.exponential(1 / hazard)
    rows = pd.DataFrame({"stage": stage, "arm": arm, "time": np.minimum(time, 5.0), "died": time < 5.0})
    cells = hte.cells.from_times(rows, time="time", event="died", arm="arm", control="old", segments=["stage"])
    fit = hte.fit(cells, "survival", draws=400)
    draws = fit.tree["posterior"].to_dataset()
    control = np.exp(draws["baseline"].transpose("chain", "draw", "segment").values)
    treated = control * np.exp(draws["effect"].isel(arm=0).transpose("chain", "draw", "segment").values)
    size = cells["n"].sum("arm").values
    expected = (treated * size).sum(2) / (control * size).sum(2) - 1
    table = fit.ate("relative")
    assert table["effect"].iloc[0] == pytest.approx(expected.mean(), rel=1e-9)
    assert table.attrs["average"] == "change in the hazard of all at the start, relative to the control's"
    one = fit.ate("relative", weights={"early": 1, "late": 0})["effect"].iloc[0]
    assert one == pytest.approx(fit.table("relative").set_index("stage").loc["early", "effect"], rel=1e-9)


def test_an_average_of_something_else_is_an_error() -> None:
    with pytest.raises(ArgumentError, match='of is "total" or "segments", not'):
        hte.example_fit().ate("relative", of="ratios")  # type: ignore[arg-type]


def simulate_lift(rng: np.random.Generator, rates: Any, lifts: Any, sizes: Any) -> hte.Fit:
    """Draw events of arms of equal size, and fit them."""
    events = rng.binomial(sizes[:, None], np.column_stack([rates, rates * (1 + lifts)]))
    table = pd.DataFrame(
        {
            "s": np.repeat([f"s{i:02d}" for i in range(len(sizes))], 2),
            "arm": np.tile(["old", "new"], len(sizes)),
            "n": np.repeat(sizes, 2),
            "y": events.ravel(),
        }
    )
    cells = hte.cells.from_summary(table, arm="arm", control="old", segments=["s"], n="n", events="y")
    return hte.fit(cells, "conversion", draws=400)


@pytest.mark.slow
def test_the_lift_of_the_total_is_found_where_rare_segments_rise_most() -> None:
    # 100 experiments of 8 segments in which rare events rise by half and common ones not at all: a 95 % interval that
    # is right misses in 5; 13 or more have probability .001 (binomial tail).
    rng, misses = np.random.default_rng(11), 0
    rates, lifts = np.geomspace(0.01, 0.3, 8), np.linspace(0.5, 0.0, 8)
    sizes = np.full(8, 4000)
    truth = (sizes * rates * (1 + lifts)).sum() / (sizes * rates).sum() - 1
    for _ in range(100):
        ate = simulate_lift(rng, rates, lifts, sizes).ate("relative").iloc[0]
        misses += not ate["ci_low"] <= truth <= ate["ci_high"]
    assert misses < 13
