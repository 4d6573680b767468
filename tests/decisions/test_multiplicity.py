"""Many segments: p-values against SciPy and statsmodels, joint intervals against closed forms, calls by hand."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import example
from example_posterior import example_fit, example_plan
from example_structures import stated
from scipy import stats
from statsmodels.stats.multitest import multipletests

import bayes_hte as hte
from bayes_hte.decisions.multiplicity import (
    adjust_by_benjamini_hochberg,
    adjust_by_holm,
    compute_raw_p_values,
    compute_simultaneous_intervals,
)
from bayes_hte.estimands.effects import compute_effects, estimate_without_pooling
from bayes_hte.model.families import FAMILIES as MODEL_FAMILIES

COLUMNS = [
    "arm", "raw", "raw_se", "test", "p_raw", "p_holm", "p_bh", "effect", "p_positive", "local_false_sign_rate",
    "simultaneous_low", "simultaneous_high", "decision", "p_wrong", "reliable",
]  # fmt: skip
ARMS = ("control", "sms", "email")
FAMILIES: list[Any] = ["binomial", "normal", "mean", "estimate"]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_adjusted_p_values_are_those_of_statsmodels(count: int) -> None:
    # Rounded, so that some tie; with both ends of the range.
    p_values = [0.0, 1.0, *np.random.default_rng(count).beta(0.4, 1.5, count).round(2).tolist()][-count:]
    known = xr.DataArray(p_values, dims="segment")
    for adjust, method in ((adjust_by_holm, "holm"), (adjust_by_benjamini_hochberg, "fdr_bh")):
        expected = multipletests(p_values, method=method)[1]
        np.testing.assert_allclose(adjust(known), expected, rtol=1e-12, atol=1e-300)
        # What was never tested counts for nothing.
        gaps = adjust(xr.DataArray([np.nan, *p_values, np.nan], dims="segment")).values
        np.testing.assert_allclose(gaps[1:-1], expected, rtol=1e-12, atol=1e-300)
        assert np.isnan(gaps[[0, -1]]).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", ["absolute", "link"])
def test_p_values_are_z_tests_of_the_estimates_that_the_table_shows(family: Any, scale: Any) -> None:
    fit = example_fit(4, family, arms=ARMS, dimensions=("device", "plan"), units=20_000, one_armed=(1,))
    found, table = fit.multiplicity(scale=scale), fit.table(scale)
    assert list(found.columns) == ["device", "plan", *COLUMNS]
    for name in ("raw", "raw_se", "effect", "p_positive"):
        np.testing.assert_array_equal(found[name], table[name])
    is_z = found["test"] == "z"
    assert is_z.sum() == 7
    z = (table["raw"] / table["raw_se"])[is_z]
    np.testing.assert_allclose(found.loc[is_z, "p_raw"], 2 * stats.norm.sf(abs(z)), rtol=1e-12)
    assert found.loc[~is_z, "p_raw"].isna().all()
    expected_holm = multipletests(found.loc[is_z, "p_raw"], method="holm")[1]
    np.testing.assert_allclose(found.loc[is_z, "p_holm"], expected_holm, rtol=1e-12)
    rate = np.minimum(table["p_positive"], table["p_negative"])
    np.testing.assert_array_equal(found["local_false_sign_rate"], rate)


def test_few_counts_of_units_have_fishers_exact_test() -> None:
    fit = example_fit(4, units=120, arms=ARMS, effect=0.3)
    raw = estimate_without_pooling(fit.tree, "absolute")
    found, tests = compute_raw_p_values(fit.tree, raw)
    events, n = (fit.cells[name].transpose("segment", "arm").values for name in ("events", "n"))
    seen = set()
    for segment in range(4):
        for arm in (1, 2):
            table = [[events[segment, k], n[segment, k] - events[segment, k]] for k in (0, arm)]
            expected = stats.contingency.expected_freq(np.array(table)) if np.sum(table, axis=0).all() else np.zeros(1)
            exact = expected.min() < 5
            seen.add(bool(exact))
            assert tests.values[segment, arm - 1] == ("Fisher" if exact else "z")
            if exact:
                assert found.values[segment, arm - 1] == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)
    assert seen == {True, False}


def test_few_events_over_exposures_have_the_conditional_binomial_test() -> None:
    table = pd.DataFrame(
        [("a", "old", 3, 900.0), ("a", "new", 6, 700.0), ("b", "old", 400, 9000.0), ("b", "new", 460, 9000.0)],
        columns=["site", "arm", "events", "hours"],
    )
    cells = hte.cells.from_summary(
        table, arm="arm", control="old", segments=["site"], events="events", exposure="hours", outcome="purchases"
    )
    posterior = xr.Dataset(
        {
            "effect": (("chain", "draw", "segment"), np.random.default_rng(1).normal(0.1, 0.2, (4, 500, 2))),
            "baseline": (("chain", "draw", "segment"), np.random.default_rng(2).normal(-4, 0.1, (4, 500, 2))),
        },
        {"segment": ["a", "b"]},
    )
    found = hte.from_posterior(posterior, cells, link="log").multiplicity()
    assert found["test"].tolist() == ["conditional binomial", "z"]
    assert found["p_raw"][0] == pytest.approx(stats.binomtest(6, 9, 700 / 1600).pvalue, rel=1e-9)


@pytest.mark.parametrize("family", list(MODEL_FAMILIES))
def test_every_family_has_p_values_also_with_covariates_of_segments(family: Any) -> None:
    fit = hte.fit(example(family, segments=4, seed=3), stated(family, {}), seed=1, draws=400, higher_is_better=True)
    assert "covariate" in fit.cells.dims
    found = fit.multiplicity(scale="link")
    raw = fit.table("link")[["raw", "raw_se"]]
    # A p-value takes an estimate of its own, or counts: without any event in an arm there is no log ratio.
    is_exact = ~found["test"].isin(["z", ""])
    assert (found["p_raw"].notna() == (is_exact | (raw.notna().all(axis=1) & (raw["raw_se"] > 0)))).all()
    assert ((found["test"] == "") == found["p_raw"].isna()).all()
    # Units that are censored early are no units without the event.
    if family == "piecewise_exponential":
        assert set(found["test"]) <= {"z", ""}


@pytest.mark.parametrize("count", [1, 3, 12])
def test_independent_normal_effects_have_intervals_of_sidak(count: int) -> None:
    draws = xr.DataArray(np.random.default_rng(count).normal(3.0, 0.5, (4, 5000, count)), dims=("chain", "draw", "s"))
    low, high = compute_simultaneous_intervals(draws, 0.9)
    critical = NormalDist().inv_cdf((1 + 0.9 ** (1 / count)) / 2)
    # The relative error of an SD is 1 / √(2 N), 0.5 %, and that of tail quantiles of 20,000 draws some 2 %.
    np.testing.assert_allclose((high - low) / 2, 0.5 * critical, rtol=0.05)


def test_joint_intervals_hold_all_draws_together_however_they_depend_and_are_skewed() -> None:
    rng = np.random.default_rng(2)
    common = rng.standard_normal((1, 4000, 1))
    draws = xr.DataArray(np.exp(0.8 * common + 0.4 * rng.standard_normal((1, 4000, 20))), dims=("chain", "draw", "s"))
    low, high = compute_simultaneous_intervals(draws, 0.95)
    share = float(((draws >= low) & (draws <= high)).all("s").mean())
    assert share == pytest.approx(0.95, abs=1 / 4000)
    own = draws.quantile([0.025, 0.975], ("chain", "draw"))
    assert bool((low <= own[0]).all())
    assert bool((high >= own[1]).all())


def test_an_effect_without_spread_is_held_by_its_own_value() -> None:
    draws = xr.DataArray(np.full((4, 50, 2), 1.5), dims=("chain", "draw", "s"))
    low, high = compute_simultaneous_intervals(draws, 0.95)
    assert low.values.tolist() == high.values.tolist() == [1.5, 1.5]


def test_simultaneous_intervals_hold_all_true_effects_as_often_as_they_say() -> None:
    """Effects from the prior N(0, 1), estimates with known se: the posterior is normal, and its intervals cover."""
    rng, experiments, count = np.random.default_rng(7), 600, 8
    ses = np.linspace(0.3, 2.0, count)
    held = 0
    for _ in range(experiments):
        truth = rng.standard_normal(count)
        estimates = truth + ses * rng.standard_normal(count)
        weight = 1 / (1 + ses**2)
        draws = rng.normal(weight * estimates, np.sqrt(weight) * ses, (1, 1000, count))
        low, high = compute_simultaneous_intervals(xr.DataArray(draws, dims=("chain", "draw", "s")), 0.9)
        held += bool(((truth >= low.values) & (truth <= high.values)).all())
    # A false alarm in 1,000 seeds; 1,000 draws make the factor 1 % too small, half a percentage point of coverage.
    assert stats.binom.ppf(0.0005, experiments, 0.895) <= held <= stats.binom.ppf(0.9995, experiments, 0.9)


@pytest.mark.parametrize("higher", [True, False])
def test_wrong_calls_are_counted_in_joint_draws(higher: bool) -> None:
    plan = example_plan(report={"higher_is_better": higher})
    fit = example_fit(5, effect=(2.0, 0.3, -2.0, 0.02, 0.1), units=40_000, arms=ARMS, plan=plan)
    rule = hte.Rule(ship=[(0.0, 0.8)], stop=[(0.0, 0.8)], wrong_calls=0.2)
    found = fit.multiplicity(rule)
    benefits = compute_effects(fit.tree).transpose("segment", "arm", "chain", "draw").values * (1 if higher else -1)
    benefits = benefits.reshape(len(found), -1)
    wrong, all_right = [], np.ones(benefits.shape[1], dtype=bool)
    for row, draws in zip(found.to_dict("records"), benefits, strict=True):
        if row["decision"] in ("ship", "stop"):
            right = draws > 0 if row["decision"] == "ship" else draws < 0
            wrong.append(1 - right.mean())
            all_right &= right
    assert found.attrs["calls"] == len(wrong) > 2
    assert found.attrs["expected_wrong_calls"] == pytest.approx(sum(wrong), abs=1e-12)
    assert found.attrs["expected_wrong_share"] == pytest.approx(np.mean(wrong), abs=1e-12)
    assert found.attrs["p_all_calls_right"] == all_right.mean()
    assert (found.attrs["wanted_wrong_share"], found.attrs["simultaneous_prob"]) == (0.2, 0.95)


def test_without_calls_nothing_can_be_wrong() -> None:
    found = example_fit(3, effect=0.0).multiplicity(hte.Rule(ship=[(9.0, 0.95)], stop=[(-9.0, 0.95)]))
    assert (found.attrs["calls"], found.attrs["expected_wrong_calls"], found.attrs["p_all_calls_right"]) == (
        0,
        0.0,
        1.0,
    )
    assert np.isnan(found.attrs["expected_wrong_share"])
