"""What a second test would show: simulation from joint draws, closed forms, and second tests analysed one by one."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from example_cells import example
from example_posterior import example_fit, example_plan
from example_structures import stated
from scipy import stats

import bayes_hte as hte
from bayes_hte.errors import HteError
from bayes_hte.spec.distributions import Normal, Uniform

MC_SDS = 4.5
"""Standard errors that two independent estimates may lie apart: a false alarm in 150,000 comparisons."""


def known_fit(y: Any, se: Any, *, mean_sd: float, between: float, n: Any = None) -> hte.Fit:
    """Published estimates whose SDs are known: everything that follows is normal."""
    table = pd.DataFrame({"site": [f"s{i}" for i in range(len(y))], "y": y, "se": se})
    columns = {} if n is None else {"n": "n"}
    table = table if n is None else table.assign(n=n)
    cells = hte.cells.from_estimates(table, segments=["site"], estimate="y", se="se", **columns)
    effect = {"mean": Normal(sigma=mean_sd), "between": Uniform(lower=between, upper=between * (1 + 1e-6))}
    return hte.fit(cells, hte.Model.model_validate({"family": "estimate", "effect": effect}), seed=1, draws=8000)


def test_signs_and_errors_of_raw_estimates_are_those_of_simulated_second_tests() -> None:
    fit = example_fit(4, effect=[0.5, 0.1, 0.0, -0.2], units=400)
    table = fit.replication()
    theta = fit.effects().stack(sample=("chain", "draw")).squeeze("arm").transpose("sample", "segment").values
    rng, repeats = np.random.default_rng(1), 100
    y = theta[:, None] + table["next_se"].to_numpy() * rng.standard_normal((len(theta), repeats, 4))
    is_clear = abs(y) > stats.norm.ppf(0.975) * table["next_se"].to_numpy()
    size = len(theta) * repeats
    # Draws of the posterior are the same in both: only the simulated noise differs.
    for column, events in {
        "p_same_sign": np.sign(y) == np.sign(table["raw"].to_numpy()),
        "p_significant": is_clear & (np.sign(y) == np.sign(table["raw"].to_numpy())),
        "power": is_clear,
    }.items():
        share = events.mean((0, 1))
        np.testing.assert_allclose(table[column], share, atol=MC_SDS * np.sqrt(0.25 / size))
    wrong = (is_clear & (np.sign(y) != np.sign(theta[:, None]))).sum((0, 1)) / is_clear.sum((0, 1))
    np.testing.assert_allclose(table["type_s"], wrong, atol=MC_SDS * np.sqrt(0.25 / is_clear.sum((0, 1)).min()))
    exaggeration = (abs(y) * is_clear).sum((0, 1)) / (abs(theta[:, None]) * is_clear).sum((0, 1))
    np.testing.assert_allclose(table["type_m"], exaggeration, rtol=0.02)


def test_an_effect_that_is_known_has_the_errors_of_gelman_and_carlin() -> None:
    """Their example: an effect of 2 with a standard error of 8.1 has power .06, type S .24 and exaggerates 9.5-fold."""
    fit = known_fit([2.0], [8.1], mean_sd=100.0, between=1e-4)
    draws = fit.tree["posterior"].to_dataset()
    known = hte.from_posterior(draws[["effect"]] * 0 + 2.0, fit.cells)
    row = known.replication().iloc[0]
    assert round(row["power"], 2) == 0.06
    assert round(row["type_s"], 2) == 0.24
    assert round(row["type_m"], 1) == pytest.approx(9.5, abs=0.2)


def test_one_segment_has_the_closed_form() -> None:
    y, se, prior_sd, ratio = 0.3, 0.2, 0.5, 3.0
    table = known_fit([y], [se], mean_sd=0.3, between=0.4, n=[100]).replication(n=100 * ratio)
    variance = 1 / (1 / prior_sd**2 + 1 / se**2)
    mean, next_variance = variance * y / se**2, se**2 / ratio
    spread = np.sqrt(variance + next_variance)
    error = MC_SDS * np.sqrt(0.25 / 4000)
    assert table["p_same_sign"].item() == pytest.approx(stats.norm.cdf(mean / spread), abs=error)
    limit = stats.norm.ppf(0.975) * np.sqrt(next_variance)
    assert table["p_significant"].item() == pytest.approx(stats.norm.sf((limit - mean) / spread), abs=error)
    # The second alone: posterior N(k y₂, k U); shipped where k y₂ > 1.645 √(k U). The first is undecided: P(> 0) = .92
    k = prior_sd**2 / (prior_sd**2 + next_variance)
    boundary = stats.norm.ppf(0.95) * np.sqrt(k * next_variance) / k
    p_undecided = stats.norm.cdf((boundary - mean) / spread) - stats.norm.cdf((-boundary - mean) / spread)
    assert table["decision"].item() == "undecided"
    assert table["p_same_decision"].item() == pytest.approx(p_undecided, abs=MC_SDS * np.sqrt(0.25 / 1000))


def test_decisions_of_second_tests_are_those_of_analysing_each() -> None:
    """Known SDs: every second test is analysed by the normal-normal formula, here from scratch."""
    y, se = np.array([0.5, 0.2, -0.3, 0.1]), np.array([0.2, 0.15, 0.2, 0.1])
    mean_sd, between = 0.6, 0.3
    fit, rule = known_fit(y, se, mean_sd=mean_sd, between=between), hte.Rule(matters=0.1)
    table = fit.replication(rule=rule)
    prior = mean_sd**2 + between**2 * np.eye(4)

    def analyse(estimates: Any) -> tuple[Any, Any]:
        gain = prior @ np.linalg.inv(prior + np.diag(se**2))
        return estimates @ gain.T, prior - gain @ prior

    mean, covariance = analyse(y)
    rng, count = np.random.default_rng(3), 40_000
    theta = rng.multivariate_normal(mean, covariance, count)
    means, _ = analyse(theta + se * rng.standard_normal((count, 4)))
    sd = np.sqrt(np.diag(covariance))

    def decide(centre: Any) -> Any:
        above, enough = stats.norm.cdf(centre / sd), stats.norm.cdf((centre - 0.1) / sd)
        within = stats.norm.cdf((0.1 - centre) / sd) - stats.norm.cdf((-0.1 - centre) / sd)
        conditions = [(above >= 0.95) & (enough >= 0.5), above <= 0.05, within >= 0.9]
        return np.select(conditions, ["ship", "stop", "equivalent"], "undecided")

    assert (table["decision"] == decide(mean)).all()
    assert len(set(table["decision"])) > 1
    expected = (decide(means) == decide(mean)).mean(0)
    np.testing.assert_allclose(table["p_same_decision"], expected, atol=MC_SDS * np.sqrt(0.25 / 1000))


def test_a_larger_second_test_shows_the_sign_and_the_decision_more_surely() -> None:
    fit = example_fit(4, effect=0.4, units=2000)
    total = int(fit.cells["n"].sum())
    same, larger = fit.replication(), fit.replication(n=20 * total)
    np.testing.assert_allclose(fit.replication(n=total)["next_se"], same["raw_se"])
    assert (larger["p_same_sign"] >= same["p_same_sign"]).all()
    by_segment = {str(label): 20 * float(n) for label, n in fit.cells["n"].sum("arm").to_series().items()}
    pd.testing.assert_frame_equal(fit.replication(n=by_segment), larger)


def test_a_change_of_sign_of_the_outcome_changes_nothing_but_the_words() -> None:
    """Lower is better: what is shipped has an effect below 0."""
    y, se = np.array([0.5, 0.2, -0.3]), np.array([0.2, 0.15, 0.2])
    up = known_fit(y, se, mean_sd=0.6, between=0.3)
    down = hte.fit(
        known_fit(-y, se, mean_sd=0.6, between=0.3).cells, up.model, seed=1, draws=8000, higher_is_better=False
    )
    ups, downs = up.replication(), down.replication()
    assert (ups["decision"] == downs["decision"]).all()
    for column in ("p_same_sign", "p_same_decision", "type_s"):
        np.testing.assert_allclose(ups[column], downs[column], atol=MC_SDS * np.sqrt(0.5 / 1000))


@pytest.mark.parametrize(
    "family",
    ["binomial", "mean", "poisson", "negative_binomial", "normal", "ordinal", "piecewise_exponential", "two_part"],
)
@pytest.mark.parametrize("scale", ["absolute", "relative", "link"])
def test_every_family_and_scale_has_an_answer(family: Any, scale: Any) -> None:
    fit = _fit_once(family)
    table = fit.replication(scale=scale)
    tested = table[table["raw_se"].notna()]
    probabilities = tested[["p_same_sign", "p_significant", "power", "type_s", "p_same_decision"]].to_numpy()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (tested["type_m"] >= 1).all()
    assert len(tested) >= len(table) - 1


_FITS: dict[str, hte.Fit] = {}


def _fit_once(family: str) -> hte.Fit:
    if family not in _FITS:
        cells = example(family, segments=4, arms=("control", "email", "sms"), seed=3)
        _FITS[family] = hte.fit(cells, stated(family, {}), seed=1)
    return _FITS[family]


@pytest.mark.parametrize("pooling", ["none", "complete"])
def test_models_without_partial_pooling_have_an_answer(pooling: Any) -> None:
    table = example_fit(3, pooling=pooling).replication()
    assert table["p_same_decision"].between(0, 1).all()


def test_crossed_fits_and_draws_of_ones_own_have_an_answer() -> None:
    crossed = hte.fit(hte.example_cells(), "conversion-by-dimension", seed=1)
    assert crossed.replication()["p_same_decision"].between(0, 1).all()
    own = hte.from_posterior(
        crossed.tree["posterior"].to_dataset()[["effect", "baseline"]], crossed.cells, link="logit"
    )
    assert own.replication()["p_same_sign"].to_numpy() == pytest.approx(crossed.replication()["p_same_sign"].to_numpy())


def test_an_arm_without_any_event_has_the_models_error() -> None:
    cells = hte.example_cells().copy(deep=True)
    cells["events"][5] = 0
    table = hte.fit(cells, "conversion", seed=1).replication()
    assert 0 < table["raw_se"].iloc[5] < 0.2


def test_a_segment_without_an_arm_has_no_replication() -> None:
    table = example_fit(3, one_armed=[2]).replication()
    assert table.iloc[2][["p_same_sign", "power", "p_same_decision"]].isna().all()
    assert table.iloc[0][["p_same_sign", "power", "p_same_decision"]].notna().all()


def test_the_rule_of_the_plan_decides() -> None:
    fit = example_fit(3, plan=example_plan(decision={"ship": [{"above": 0.0, "p": 0.5}]}))
    assert (fit.replication()["decision"] == fit.decide()["decision"]).all()


def test_a_further_test_is_less_sure_where_tests_have_differed() -> None:
    first = hte.example_fit()
    both = hte.combine(first, first)
    merged = hte.fit(hte.cells.merge(first.cells, first.cells), "conversion", seed=1)
    surely = merged.replication()["p_same_sign"][[0, 2, 3]]
    assert (both.replication()["p_same_sign"][[0, 2, 3]] < surely).all()


@pytest.mark.parametrize(
    ("n", "match"),
    [(0, "above 0"), (-5, "above 0"), ("many", "n, the units"), ({"s0": 10}, "one number for each"), (np.inf, "n")],
)
def test_numbers_of_units_that_make_no_sense_are_refused(n: Any, match: str) -> None:
    with pytest.raises(HteError, match=match):
        example_fit(2).replication(n=n)


def test_units_of_published_estimates_are_asked_for() -> None:
    with pytest.raises(HteError, match="how large this test was is not known"):
        example_fit(2, family="estimate", known_n=False).replication(n=100)
