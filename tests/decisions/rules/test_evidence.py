"""Rules weighed against joint draws: brute force, closed forms of the normal case, what must not change decisions."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_posterior import example_plan
from hypothesis import given
from hypothesis import strategies as st

import bayes_hte as hte
from bayes_hte.decisions.rules.evidence import (
    choose_rule,
    compute_best_arm_probability,
    compute_gains,
    weigh_benefit,
)
from bayes_hte.spec.rule import settle_matters

NORMAL = NormalDist()
GRID = np.array([NORMAL.inv_cdf((index + 0.5) / 4000) for index in range(4000)])
"""A normal posterior without Monte-Carlo error: its quantiles."""


def draws_of(values: np.ndarray, *dims: str) -> xr.DataArray:
    """Draws as one chain, their dim last in `values`."""
    return xr.DataArray(values[None], dims=("chain", *dims, "draw"))


def decisions_of(values: np.ndarray, rule: hte.Rule) -> list[str]:
    return weigh_benefit(draws_of(values, "segment"), rule)["decision"].values.tolist()


def count_by_hand(benefits: np.ndarray, matters: float) -> str:
    """The default rule in words, for one effect."""
    if np.mean(benefits > 0) >= 0.95 and np.mean(benefits > matters) >= 0.5:
        return "ship"
    if np.mean(benefits < 0) >= 0.95:
        return "stop"
    return "equivalent" if np.mean(np.abs(benefits) <= matters) >= 0.9 else "undecided"


def test_the_default_rule_is_what_counting_draws_by_hand_gives() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(rng.normal(0, 0.8, (300, 1)), rng.uniform(0.05, 1.0, (300, 1)), (300, 400))
    found = decisions_of(values, hte.Rule(matters=0.4))
    assert found == [count_by_hand(row, 0.4) for row in values]
    assert min(found.count(decision) for decision in ("ship", "stop", "equivalent", "undecided")) > 10


def test_the_probabilities_are_those_of_their_events_and_the_three_sizes_add_up() -> None:
    values = np.random.default_rng(2).normal(0.3, 1, (5, 200))
    rule = hte.Rule(ship=[(0.2, 0.8), ("matters", 0.5)], stop=[("-matters", 0.7)], equivalent=(0.9, 0.6), matters=0.5)
    evidence = weigh_benefit(draws_of(values, "segment"), rule)
    for name, event in {
        "p_better": values > 0, "p_worse": values < 0, "p_benefit": values > 0.5, "p_harm": values < -0.5,
        "p_equivalent": abs(values) <= 0.5, "p_within": abs(values) <= 0.9,
    }.items():  # fmt: skip
        assert evidence[name].values.tolist() == event.mean(axis=1).tolist()
    assert evidence["p_ship"].sel(ship_condition=1).values.tolist() == (values > 0.5).mean(axis=1).tolist()
    assert evidence["p_stop"].sel(stop_condition=0).values.tolist() == (values < -0.5).mean(axis=1).tolist()
    np.testing.assert_allclose(evidence["p_benefit"] + evidence["p_harm"] + evidence["p_equivalent"], 1, rtol=1e-12)


@pytest.mark.parametrize("matters", [0.5, 2.0])
@pytest.mark.parametrize("truth", [-1.0, 0.0, 1.0, 2.5])
def test_a_two_arm_normal_test_ships_as_often_as_its_closed_form_says(truth: float, matters: float) -> None:
    """Posterior N(y, 1) of an estimate y ~ N(truth, 1): shipped where y ≥ max(Φ⁻¹(.95), matters)."""
    experiments = 1500
    estimates = np.random.default_rng(round(10 * (truth + 3) + matters)).normal(truth, 1, experiments)
    found = decisions_of(estimates[:, None] + GRID, hte.Rule(matters=matters))
    cut = NORMAL.inv_cdf(0.95)
    expected = {
        "ship": 1 - NORMAL.cdf(max(cut, matters) - truth),
        "stop": NORMAL.cdf(-cut - truth),
        # P(|effect| ≤ m) ≥ .9 needs |y| ≤ b with Φ(m − b) − Φ(−m − b) = .9: b = 0.697 for m = 2, none for m = .5
        "equivalent": NORMAL.cdf(0.697 - truth) - NORMAL.cdf(-0.697 - truth) if matters == 2.0 else 0.0,
    }
    for decision, probability in expected.items():
        # Twelve such shares beyond 4.5 binomial errors: a false alarm in 10,000 seeds; one cut is rounded to 1/4000.
        error = np.sqrt(max(probability * (1 - probability), 1e-4) / experiments)
        assert abs(found.count(decision) / experiments - probability) < 4.5 * error + 1e-3


def test_what_is_pooled_completely_ships_by_the_closed_form_of_the_common_mean() -> None:
    """Eight segments of one true effect, estimated together: se is 1 / √8 of one segment's."""
    experiments, truth = 1500, 0.4
    means = np.random.default_rng(4).normal(truth, 1 / np.sqrt(8), experiments)
    found = decisions_of(means[:, None] + GRID / np.sqrt(8), settle_matters(hte.Rule(), None))
    expected = 1 - NORMAL.cdf(NORMAL.inv_cdf(0.95) - truth * np.sqrt(8))
    assert abs(found.count("ship") / experiments - expected) < 4 * np.sqrt(expected * (1 - expected) / experiments)


@given(st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_another_currency_leaves_every_decision_as_it_is(rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(rng.normal(0, 1, (6, 1)), 0.5, (6, 100))
    rule, exchanged = hte.Rule(matters=0.3, cost=0.1), hte.Rule(matters=0.3 * rate, cost=0.1 * rate)
    assert decisions_of(values, rule) == decisions_of(values * rate, exchanged)
    gains, losses = compute_gains(draws_of(values, "segment"), rule)
    exchanged_gains, exchanged_losses = compute_gains(draws_of(values * rate, "segment"), exchanged)
    np.testing.assert_allclose(exchanged_gains, gains * rate, rtol=1e-9, atol=1e-12 * rate)
    np.testing.assert_allclose(exchanged_losses, losses * rate, rtol=1e-9, atol=1e-12 * rate)


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (2, 0, 5, 1, 4, 3)])
def test_the_order_of_segments_leaves_every_decision_as_it_is(order: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(np.linspace(-2, 2, 6)[:, None], 0.6, (6, 150))
    rule = hte.Rule(matters=0.3)
    assert decisions_of(values[list(order)], rule) == [decisions_of(values, rule)[index] for index in order]


def test_swapping_benefit_and_harm_swaps_shipping_and_stopping_by_the_sign() -> None:
    values = np.random.default_rng(1).normal(np.linspace(-2, 2, 9)[:, None], 0.6, (9, 150))
    rule = hte.Rule(ship=[(0.0, 0.9)], stop=[(0.0, 0.9)], equivalent=(0.5, 0.5))
    swapped = {"ship": "stop", "stop": "ship"}
    found = decisions_of(values, rule)
    assert decisions_of(-values, rule) == [swapped.get(decision, decision) for decision in found]
    assert set(found) == {"ship", "stop", "equivalent", "undecided"}


def test_signs_that_are_known_better_than_by_counting_decide() -> None:
    draws = draws_of(np.array([[1.0] * 94 + [-1.0] * 6]), "segment")
    rule = hte.Rule(matters=0.1)
    known = {name: xr.DataArray([p], dims="segment") for name, p in (("p_better", 0.951), ("p_worse", 0.049))}
    assert weigh_benefit(draws, rule)["decision"].item() == "undecided"
    assert weigh_benefit(draws, rule, known)["decision"].item() == "ship"


def test_gains_are_benefits_in_money_less_costs_and_losses_their_negative_part() -> None:
    values = np.random.default_rng(8).normal(0.1, 1, (3, 500))
    gains, losses = compute_gains(draws_of(values, "segment"), hte.Rule(value=38.0, cost=2.0))
    money = 38.0 * values - 2.0
    np.testing.assert_allclose(gains, money.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(losses, np.where(money < 0, -money, 0).mean(axis=1), rtol=1e-12)


def test_the_best_arm_is_counted_draw_by_draw_against_all_others_and_the_control() -> None:
    values = np.random.default_rng(8).normal([[0.2], [0.0], [-0.3]], 1, (3, 300))
    values[:, :2] = 0.0  # ties share
    found = compute_best_arm_probability(draws_of(values, "arm")).values
    expected = np.zeros(4)
    for draw in np.vstack([np.zeros(300), values]).T:
        winners = np.flatnonzero(draw == draw.max())
        expected[winners] += 1 / len(winners) / 300
    np.testing.assert_allclose(found, expected[1:], rtol=1e-12)


def choose(rule: Any, scale: Any = None, **plan: Any) -> hte.Rule:
    return choose_rule(rule, example_plan(**plan) if plan else None, scale)


def test_the_rule_is_the_callers_then_the_plans_then_the_default() -> None:
    stated = {"decision": {"ship": [{"above": 0.0, "p": 0.8}]}, "report": {"rope": 0.01}}
    assert choose(None, **stated) == example_plan(**stated).decision
    assert choose(hte.Rule(cost=1.0), **stated) == hte.Rule(cost=1.0, matters=0.01)
    assert choose(hte.Rule(matters=0.5), **stated).matters == 0.5
    assert choose(None) == settle_matters(hte.Rule(), None)
    called = choose(None, report={"call_prob": 0.99, "rope": 0.01})
    assert [condition.p for condition in called.ship] == [0.99, 0.5]
    assert (called.stop[0].p, called.matters) == (0.99, 0.01)
    assert [condition.p for condition in choose(None, report={"call_prob": 0.99}).ship] == [0.99]


def test_a_rule_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(hte.ArgumentError, match=r"rule is 0.95; give hte.Rule"):
        choose(0.95)
    stated = {"decision": {"matters": 0.01}}
    with pytest.raises(
        hte.ArgumentError, match=r"effects on its absolute scale; give rule=hte.Rule.* the relative one"
    ):
        choose(None, "relative", **stated)
    # The plan's size is a number on the plan's scale.
    assert choose(hte.Rule(), "relative", **stated).matters is None
    with pytest.raises(hte.PlanError, match="none is stated: add matters"):
        choose(hte.Rule(ship=[("matters", 0.9)]))
