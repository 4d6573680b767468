"""Units until a decision, and what a follow-up is worth: unit normal loss, nested simulation of the joint normal."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from example_cells import example
from example_posterior import example_fit, example_plan
from example_structures import stated
from scipy import stats

import bayes_hte as hte
from bayes_hte.decisions.repetition.next_test import find_decision_ranges
from bayes_hte.errors import HteError
from bayes_hte.spec.distributions import Normal, Uniform
from bayes_hte.spec.rule import settle_matters

MEAN_SD, BETWEEN = 0.6, 0.3
Y, SE, N = np.array([0.25, 0.1, -0.2, 0.02]), np.array([0.2, 0.15, 0.2, 0.1]), np.array([100, 200, 100, 400])


def known_fit(y: Any = Y, se: Any = SE, n: Any = N, **options: Any) -> hte.Fit:
    """Published estimates whose SDs are known: the posterior is normal."""
    table = pd.DataFrame({"site": [f"s{i}" for i in range(len(y))], "y": y, "se": se, "n": n})
    cells = hte.cells.from_estimates(table, segments=["site"], estimate="y", se="se", n="n")
    effect = {"mean": Normal(sigma=MEAN_SD), "between": Uniform(lower=BETWEEN, upper=BETWEEN * (1 + 1e-6))}
    model = hte.Model.model_validate({"family": "estimate", "effect": effect})
    return hte.fit(cells, model, seed=1, draws=20_000, **options)


def known_posterior(y: Any, se: Any) -> tuple[Any, Any]:
    prior = MEAN_SD**2 + BETWEEN**2 * np.eye(len(y))
    gain = prior @ np.linalg.inv(prior + np.diag(se**2))
    return gain @ y, prior - gain @ prior


def test_one_segment_is_worth_the_unit_normal_loss() -> None:
    """The value of a sample is that of deciding by a mean that is N(m, s²k) instead of by m."""
    rule = hte.Rule(value=10.0, cost=1.0)
    row = known_fit(Y[:1], SE[:1], N[:1]).next_test(rule=rule, n=300).iloc[0]
    mean, covariance = known_posterior(Y[:1], SE[:1])
    variance = SE[0] ** 2 * 100 / 300
    gain, sd = 10 * mean[0] - 1, 10 * covariance[0, 0] / np.sqrt(covariance[0, 0] + variance)
    loss = abs(gain) / sd
    unit_normal_loss = stats.norm.pdf(loss) - loss * stats.norm.sf(loss)
    # 20,000 draws tell the posterior's SD to half a percent and its mean to a hundredth of it.
    assert row["evsi"] == pytest.approx(sd * unit_normal_loss, rel=0.06)
    assert row["evsi"] < row["evpi"]


def test_the_worth_of_a_follow_up_is_that_of_nested_simulation() -> None:
    fit, more = known_fit(), 500
    table = fit.next_test(n=more)
    mean, covariance = known_posterior(Y, SE)
    rng, count, shares = np.random.default_rng(1), 400_000, N / N.sum()
    theta = rng.multivariate_normal(mean, covariance, count)
    now = shares @ np.maximum(mean, 0)
    for segment in range(4):
        variance = SE[segment] ** 2 * N[segment] / more
        estimate = theta[:, segment] + np.sqrt(variance) * rng.standard_normal(count)
        # Every simulated follow-up is analysed by the joint posterior, and every segment decided anew.
        gain = covariance[:, segment] / (covariance[segment, segment] + variance)
        means = mean + np.outer(estimate - mean[segment], gain)
        worth = np.maximum(means, 0) @ shares
        error = worth.std() / np.sqrt(count)
        assert table["evsi"][segment] == pytest.approx(worth.mean() - now, rel=0.05, abs=4 * error)
        own = shares[segment] * (np.maximum(means[:, segment], 0).mean() - max(mean[segment], 0))
        assert table["evsi_own"][segment] == pytest.approx(own, rel=0.05, abs=4 * error)


def test_after_the_units_needed_the_decision_is_as_probable_as_was_asked() -> None:
    rule, assurance = hte.Rule(matters=0.1), 0.8
    table = known_fit().next_test(assurance, rule)
    mean, covariance = known_posterior(Y, SE)
    rng, count = np.random.default_rng(2), 100_000
    undecided = table.index[table["decision"] == "undecided"]
    assert len(undecided) > 2
    for segment in undecided:
        m, s = mean[segment], np.sqrt(covariance[segment, segment])
        variance = SE[segment] ** 2 * N[segment] / float(table["units_needed"][segment])
        weight = s**2 / (s**2 + variance)
        benefit = rng.normal(m, s, count)
        centre = m + weight * (benefit + np.sqrt(variance) * rng.standard_normal(count) - m)
        sd = s * np.sqrt(1 - weight)
        above, enough = stats.norm.cdf(centre / sd), stats.norm.cdf((centre - 0.1) / sd)
        within = stats.norm.cdf((0.1 - centre) / sd) - stats.norm.cdf((-0.1 - centre) / sd)
        is_decided = ((above >= 0.95) & (enough >= 0.5)) | (above <= 0.05) | (within >= 0.9)
        # The slope of the probability against 1 % of the posterior's SD, and the noise of this simulation
        assert is_decided.mean() == pytest.approx(assurance, abs=0.015)


def test_decision_ranges_are_where_the_rule_decides() -> None:
    rule, sd = settle_matters(hte.Rule(matters=0.2), None), 0.07
    ranges = find_decision_ranges(rule, sd)
    means = np.linspace(-0.6, 0.6, 2001)
    above, enough = stats.norm.cdf(means / sd), stats.norm.cdf((means - 0.2) / sd)
    within = stats.norm.cdf((0.2 - means) / sd) - stats.norm.cdf((-0.2 - means) / sd)
    decides = ((above >= 0.95) & (enough >= 0.5)) | (above <= 0.05) | (within >= 0.9)
    inside = np.any([(low <= means) & (means <= high) for low, high in ranges], axis=0)
    assert (inside == decides).mean() > 0.999  # the ends themselves may go either way
    assert not decides.all()


def test_what_does_not_pay_is_no_decision_however_sure_it_is() -> None:
    """Its benefit is sure, and shipping costs more: more units make no decision of that, but a benefit that pays."""
    fit, assurance = known_fit(np.array([0.8, 0.9, 0.8, 0.7])), 0.3
    dear = fit.next_test(assurance, hte.Rule(cost=20.0, value=10.0))
    assert set(dear["decision"]) == {"undecided"}
    assert dear["units_needed"].isna().all()
    close = fit.next_test(assurance, hte.Rule(cost=8.3, value=10.0))
    benefits = fit.effects().transpose("segment", "arm", "chain", "draw").values[:, 0].reshape(4, -1)
    undecided = close.index[close["decision"] == "undecided"]
    assert len(undecided) > 0
    for segment in undecided:
        needed = close["units_needed"][segment]
        # With all units in the world it is the probability that the benefit pays.
        p_pays = (benefits[segment] > 0.83).mean()
        assert pd.isna(needed) == bool(p_pays < assurance)
        assert close["p_decision"][segment] <= p_pays + 4 * np.sqrt(0.25 / benefits.shape[1])


def test_more_assurance_takes_more_units_and_more_units_are_worth_more() -> None:
    fit, rule = known_fit(), hte.Rule(matters=0.1)
    low, high = fit.next_test(0.6, rule), fit.next_test(0.9, rule)
    undecided = low["decision"] == "undecided"
    assert (low["units_needed"] < high["units_needed"])[undecided].all()
    few, many = fit.next_test(rule=rule, n=100), fit.next_test(rule=rule, n=10_000)
    assert (few["evsi"] < many["evsi"]).all()
    assert (many["evsi_own"] < many["evpi"] * 1.02).all()


def counted_fit(rows: list[tuple[str, str, int, int]]) -> hte.Fit:
    """Fit buyers among units, by device and arm."""
    table = pd.DataFrame(rows, columns=["device", "arm", "n", "bought"])
    cells = hte.cells.from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="bought")
    return hte.fit(cells, "conversion", seed=1, higher_is_better=True)


def test_no_follow_up_is_worth_more_to_its_segment_than_knowing_the_effect() -> None:
    """Effects of rare events are skewed, and the draws that lose are fewer than those of a normal with their SD."""
    rare = counted_fit([("a", "old", 400, 4), ("a", "new", 400, 12), ("b", "old", 300, 3), ("b", "new", 300, 9)])
    for n in (100.0, 1e9, 1e30, np.inf):
        table = rare.next_test(n=n)
        assert (table["evpi"] > 0).all()
        assert (table["evsi_own"] <= table["evpi"] * (1 + 1e-9)).all()
    np.testing.assert_allclose(table["evsi_own"], table["evpi"])


def test_a_follow_up_in_an_arm_that_was_not_tested_has_no_stated_worth() -> None:
    rows = [("a", "old", 900, 90), ("a", "new", 900, 130), ("b", "old", 800, 80), ("c", "old", 500, 30)]
    table = counted_fit([*rows, ("c", "new", 500, 60)]).next_test(rule=hte.Rule(matters=0.005, value=10.0))
    assert table["evsi"].isna().tolist() == table["evsi_own"].isna().tolist() == [False, True, False]
    assert table["evpi"].notna().all()


def test_a_segment_that_is_decided_needs_nothing() -> None:
    table = known_fit(np.array([2.0, 2.0, 2.0, 2.0])).next_test()
    assert (table["units_needed"] == 0).all()
    assert table["why"].str.startswith("Decided: ship").all()


def test_an_arm_that_another_one_outdoes_needs_nothing() -> None:
    """Sure of both, a segment gets the better one: more units of the other would decide nothing."""
    fit = example_fit(3, arms=("control", "sms", "email"), effect=1.0, units=50_000, pooling="none")
    table = fit.next_test()
    assert sorted(table["decision"]) == ["ship"] * 3 + ["undecided"] * 3
    assert (table["units_needed"] == 0).all()
    outdone = table[table["decision"] == "undecided"]
    assert set(outdone["why"]) == {"Decided: another arm is shipped to this segment."}


def test_where_no_number_of_units_is_enough_it_says_so() -> None:
    """Without a size that is too small to matter, an effect near 0 is never decided: here it would be half of it."""
    rule = hte.Rule(ship=[(1.0, 0.95)], stop=[(-1.0, 0.95)])
    table = known_fit(np.array([0.0, 0.01, 0.0, 0.01])).next_test(0.8, rule)
    assert table["units_needed"].isna().all()
    assert table["why"].str.startswith("No follow-up").all()


def test_lower_is_better_mirrors_everything() -> None:
    up, down = known_fit().next_test(), known_fit(-Y, higher_is_better=False).next_test()
    assert (up["decision"] == down["decision"]).all()
    np.testing.assert_allclose(up["evpi"], down["evpi"], rtol=0.15)


@pytest.mark.parametrize(
    "family", ["binomial", "normal", "poisson", "negative_binomial", "ordinal", "piecewise_exponential"]
)
def test_every_family_with_several_arms_has_an_answer(family: Any) -> None:
    fit = hte.fit(example(family, segments=4, seed=3), stated(family, {}), seed=1, higher_is_better=True)
    table = fit.next_test(scale="link")
    tested = table[table["why"].str.startswith(("With", "Decided", "No follow-up"))]
    assert len(tested) == 7  # one arm of a segment was not seen
    assert (tested[["evsi", "evsi_own", "evpi"]] >= 0).all().all()


def test_combined_fits_crossed_ones_and_plans_have_an_answer() -> None:
    first = hte.example_fit()
    both = hte.combine(first, first)
    assert both.next_test()["evsi"].ge(0).all()
    assert (both.next_test()["units_now"] == 2 * first.next_test()["units_now"]).all()
    crossed = hte.fit(hte.example_cells(), "conversion-by-dimension", seed=1)
    assert crossed.next_test()["evsi"].ge(0).all()
    planned = example_fit(3, plan=example_plan(decision={"value": 5.0}))
    assert planned.next_test().attrs["gain_units"] == "money per person"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"assurance": 1.0}, "between 0 and 1"),
        ({"assurance": "high"}, "assurance, the probability"),
        ({"n": 0}, "above 0"),
        ({"n": -3}, "above 0"),
        ({"rule": "ship"}, "rule is 'ship'"),
    ],
)
def test_questions_that_make_no_sense_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(HteError, match=match):
        example_fit(2).next_test(**options)


def test_estimates_without_units_are_refused() -> None:
    with pytest.raises(HteError, match="how many units these estimates come from"):
        example_fit(2, family="estimate", known_n=False).next_test()
