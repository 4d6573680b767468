"""A rule says what must hold before somebody acts: its defaults, its spellings, what it refuses, where it stands."""

import itertools
from typing import Any

import numpy as np
import pytest
from example_posterior import example_plan

import bayes_hte as hte
from bayes_hte.spec.rule import (
    DEFAULT_SHIP,
    ShipCondition,
    StopCondition,
    exclude_each_other,
    resolve_threshold,
    settle_matters,
)


def test_the_default_rule_ships_what_surely_helps_and_probably_enough() -> None:
    rule = hte.Rule()
    assert [(condition.above, condition.p) for condition in rule.ship] == [(0.0, 0.95), ("matters", 0.5)]
    assert [(condition.below, condition.p) for condition in rule.stop] == [(0.0, 0.95)]
    assert rule.equivalent is not None
    assert (rule.equivalent.within, rule.equivalent.p, rule.guardrail.p) == ("matters", 0.9, 0.9)
    assert (rule.matters, rule.cost, rule.value, rule.looks, rule.wrong_calls) == (None, 0.0, None, 1, 0.05)


def test_pairs_of_python_and_tables_of_a_plan_say_the_same() -> None:
    tables: dict[str, Any] = {
        "ship": [{"above": 0.01, "p": 0.9}, {"above": "matters", "p": 0.6}],
        "stop": [{"below": "-matters", "p": 0.8}],
        "equivalent": {"within": "matters", "p": 0.7},
    }
    pairs: dict[str, Any] = {
        "ship": [(0.01, 0.9), ["matters", 0.6]],
        "stop": [("-matters", 0.8)],
        "equivalent": ("matters", 0.7),
    }
    rule = hte.Rule(matters=0.02, **pairs)
    assert rule == hte.Rule(matters=0.02, **tables)
    assert hte.Rule.model_validate_json(rule.model_dump_json()) == rule


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ship": [(0.0, 0.3)]}, r"ship, entry 1.p: should be greater than or equal to 0.5, not 0.3"),
    ({"ship": [(0.0, 1.0)]}, r"ship, entry 1.p: should be less than 1, not 1.0"),
    ({"stop": [(0.0, 95)]}, r"stop, entry 1.p: should be less than 1, not 95"),
    ({"ship": []}, "ship: should have 1 entry or more, not 0"),
    ({"ship": (0.0, 0.95)}, r"ship, entry 1: should be a table, as in \{ above = 0.0, p = 0.95 \}, not 0.0"),
    ({"ship": [("much", 0.9)]}, 'ship, entry 1.above: should be a number, or "matters" or "-matters".*not "much"'),
    ({"ship": [{"above": 0.0}]}, "the key 'ship, entry 1.p' is missing"),
    ({"stop": [{"above": 0.0, "p": 0.9}]}, "unknown key 'stop, entry 1.above'.*Known keys here: below, p"),
    ({"equivalent": (-0.1, 0.9)}, 'equivalent.within: should be "matters" or a number above 0, the half-width'),
    ({"equivalent": ([0.1, -0.1], 0.9)}, "equivalent.within: .* half-width .* not a list"),
    ({"matters": -0.002}, "matters: should be greater than 0, not -0.002"),
    ({"guardrail": {}}, "the key 'guardrail.p' is missing"),
    ({"guardrail": {"p": 1.5}}, "guardrail.p: should be less than 1, not 1.5"),
    ({"cost": -2.0}, "a cost of -2 in units of the outcome would be a benefit.*needs `value`"),
    ({"value": 0.0}, "value: should be greater than 0, not 0.0"),
    ({"looks": 0}, "looks: should be greater than or equal to 1, not 0"),
    ({"wrong_calls": 1.2}, "wrong_calls: should be less than 1, not 1.2"),
    ({"shp": []}, "unknown key 'shp'; did you mean 'ship'"),
    ({"ship": [(-0.1, 0.9)]}, r"ship \(a benefit above -0.1 with p = 0.9\) and stop .* can both hold"),
    ({"ship": [(0.0, 0.5)], "stop": [(0.0, 0.5)]}, "can both hold for the same effect: let stop ask"),
]


@pytest.mark.parametrize(("stated", "sentence"), REFUSED, ids=[str(stated) for stated, _ in REFUSED])
def test_a_rule_that_makes_no_sense_is_refused_in_a_sentence(stated: dict[str, Any], sentence: str) -> None:
    with pytest.raises(hte.PlanError, match=sentence):
        hte.Rule(**stated)


def test_money_that_a_treatment_saves_is_a_negative_cost() -> None:
    assert hte.Rule(cost=-2.0, value=10.0).cost == -2.0


def test_actions_exclude_each_other_exactly_where_no_distribution_meets_both() -> None:
    # Every distribution on five points with probabilities in tenths: brute force over all that a rule could be told.
    points = np.array([-2.0, -0.5, 0.2, 0.8, 2.0])
    weights = np.array([w for w in itertools.product(range(11), repeat=5) if sum(w) == 10]) / 10
    thresholds, probabilities = (-1.0, 0.0, 0.5, 1.0), (0.5, 0.7, 0.9)

    def is_met(condition: ShipCondition | StopCondition) -> np.ndarray:
        if isinstance(condition, ShipCondition):
            hit = points > resolve_threshold(condition.above, 1.0)
        else:
            hit = points < resolve_threshold(condition.below, 1.0)
        return (weights[:, hit].sum(axis=1) > condition.p - 1e-9).astype(bool)

    ship_pairs = itertools.combinations(itertools.product(thresholds, probabilities), 2)
    for ship_pair in ship_pairs:
        ship = [ShipCondition(above=above, p=p) for above, p in ship_pair]
        ships = is_met(ship[0]) & is_met(ship[1])
        for below, p in itertools.product(thresholds, probabilities):
            stop = StopCondition(below=below, p=p)
            assert exclude_each_other(ship, [stop], 1.0) == (not (ships & is_met(stop)).any()), (ship, stop)


def test_the_smallest_effect_that_matters_has_one_number() -> None:
    assert settle_matters(hte.Rule(), 0.01) == hte.Rule(matters=0.01)
    assert settle_matters(hte.Rule(matters=0.01), 0.01).matters == 0.01
    with pytest.raises(hte.PlanError, match=r"stated twice, as 0.02 and as 0.01 in the rule"):
        settle_matters(hte.Rule(matters=0.01), 0.02)
    for stated in ({"ship": [(0.0, 0.95), ("matters", 0.5)]}, {"equivalent": ("matters", 0.9)}):
        with pytest.raises(
            hte.PlanError, match=f"{next(iter(stated))} of the rule names.* none is stated: add matters"
        ):
            settle_matters(hte.Rule(**stated), None)


def test_without_a_size_that_matters_the_defaults_leave_size_out() -> None:
    settled = settle_matters(hte.Rule(cost=1.0), None)
    assert (settled.ship, settled.equivalent, settled.cost) == (DEFAULT_SHIP[:1], None, 1.0)
    assert settle_matters(settled, None) == settled


def test_a_plan_settles_its_rule_and_keeps_it_when_it_is_saved() -> None:
    plan = example_plan(decision={}, report={"rope": 0.01})
    assert plan.decision == hte.Rule(matters=0.01)
    assert plan.matters == example_plan(decision={"matters": 0.01}).matters == 0.01
    assert example_plan().decision is example_plan().matters is None
    for decision in ({}, {"matters": 0.01}, {"ship": [{"above": 0.0, "p": 0.9}]}):
        plan = example_plan(decision=decision)
        again = hte.Plan.model_validate_json(plan.model_dump_json(exclude_none=True))
        assert again.decision == plan.decision


def test_a_plan_says_once_how_probable_a_sign_must_be() -> None:
    plan = example_plan(decision={"cost": 0.1}, report={"call_prob": 0.99, "rope": 0.02})
    assert plan.decision is not None
    assert [(each.above, each.p) for each in plan.decision.ship] == [(0.0, 0.99), ("matters", 0.5)]
    assert plan.decision.stop[0].p == 0.99
    assert hte.Plan.model_validate_json(plan.model_dump_json(exclude_none=True)).decision == plan.decision
    same = example_plan(decision={"ship": [{"above": 0.0, "p": 0.99}]}, report={"call_prob": 0.99})
    assert same.decision is not None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"decision": {"matters": 0.02}, "report": {"rope": 0.01}}, "matters is stated twice, as 0.01 and as 0.02"),
        ({"decision": {"ship": [{"above": "matters", "p": 0.9}]}}, "ship of the rule names.* none is stated"),
        (
            {"decision": {"stop": [{"below": 0.0, "p": 0.95}]}, "report": {"call_prob": 0.99}},
            r"report.call_prob is 0.99, and stop of the rule calls a sign at 0.95.* state one of them",
        ),
        ({"decision": {"ship": [{"above": 0.0, "p": 1.5}]}}, "decision.ship, entry 1.p: should be less than 1"),
    ],
)
def test_a_plan_whose_rule_does_not_fit_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(hte.PlanError, match=sentence):
        example_plan(**changes)
