"""Goals and guardrails together: shipped only what no metric forbids, and disagreement is said."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_posterior import example_fit, example_plan

import bayes_hte as hte
from bayes_hte import Fit
from bayes_hte.decisions.decide import SegmentCall
from bayes_hte.decisions.rules.guardrails import (
    GoalMetric,
    GuardrailMetric,
    GuardrailReading,
    combine_metrics,
    decide_with_guardrails,
)
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.spec.rule import settle_matters

RULE = settle_matters(hte.Rule(), None)
CALLS = {name: SegmentCall(name, f"{name} by the rule.") for name in ("ship", "stop", "equivalent", "undecided")}  # type: ignore[arg-type]
KEPT = GuardrailReading(True, False, 0.97, "Kept.")
UNSURE = GuardrailReading(False, False, 0.6, "Unsure.")
BROKEN = GuardrailReading(False, True, 0.02, "Broken.")


@pytest.mark.parametrize(
    ("goals", "readings", "decision", "why"),
    [
        (["ship"], [], "ship", "ship by the rule."),
        (["ship"], [KEPT], "ship", "ship by the rule. Kept."),
        (["ship"], [KEPT, UNSURE], "undecided", "A guardrail is in the way. Unsure. 'm0' says ship: ship by"),
        (["ship"], [KEPT, BROKEN], "stop", "A guardrail is broken. Broken. 'm0' says ship: ship by"),
        # Whose words these are must be told: a change that is stopped is not undecided.
        (["undecided"], [BROKEN], "stop", "A guardrail is broken. Broken. 'm0' says undecided: undecided by the rule."),
        (["undecided"], [UNSURE], "undecided", "undecided by the rule."),
        (["stop"], [KEPT], "stop", "stop by the rule."),
        (["ship", "stop"], [KEPT], "undecided", "Goals disagree. 'm0' says ship: ship by the rule. 'm1' says stop"),
        (["undecided", "ship"], [KEPT], "ship", "'m0' says undecided: undecided by the rule. 'm1' says ship"),
        (["equivalent", "equivalent"], [], "equivalent", "'m0' says equivalent"),
        (["equivalent", "undecided"], [], "undecided", "'m0' says equivalent"),
        (["stop", "undecided"], [], "stop", "'m0' says stop"),
    ],
)
def test_goals_and_guardrails_make_one_decision_with_its_reason(
    goals: list[str], readings: list[GuardrailReading], decision: str, why: str
) -> None:
    found = combine_metrics({f"m{index}": CALLS[goal] for index, goal in enumerate(goals)}, readings)
    assert found.decision == decision
    assert found.why.startswith(why)


def goal_of(fit: Fit, name: str = "visit") -> GoalMetric:
    return GoalMetric(name, fit.tree, fit.question(), RULE)


def guard_of(fit: Fit, margin: float, name: str = "returns") -> GuardrailMetric:
    return GuardrailMetric(name, fit.tree, fit.question(), margin)


def returns(effect: float, *, higher: bool = False, seed: int = 5, **options: Any) -> Fit:
    plan = example_plan(report={"higher_is_better": higher})
    return example_fit(4, effect=effect, seed=seed, plan=plan, units=20_000, **options)


def test_a_guardrail_is_kept_as_probably_as_its_draws_are_below_the_margin() -> None:
    goal, guardrail, margin = example_fit(4, effect=0.9, units=20_000), returns(0.1), 0.02
    found = decide_with_guardrails([goal_of(goal)], [guard_of(guardrail, margin)])
    # Lower is better: an effect is the harm itself.
    harm = compute_effects(guardrail.tree).transpose("segment", "arm", "chain", "draw").values
    expected = (harm < margin).mean(axis=(2, 3)).ravel()
    assert found["p_guardrail"].tolist() == expected.tolist()
    alone = goal.decide()
    for row, kept, decision in zip(found.to_dict("records"), expected, alone["decision"], strict=True):
        if decision == "ship":
            assert row["decision"] == ("ship" if kept >= 0.9 else "stop" if kept <= 0.1 else "undecided")
            assert "The harm to 'returns' is below 2 percentage points with probability" in row["why"]
    assert {"ship", "undecided"} <= set(found["decision"])
    assert found["p_benefit"].tolist() == alone["p_benefit"].tolist()
    assert list(found.columns)[:5] == ["device", "arm", "metric", "decision", "why"]
    assert list(found.columns)[-1] == "p_guardrail"


def test_a_guardrail_that_is_surely_broken_stops_what_the_goal_would_ship() -> None:
    found = decide_with_guardrails([goal_of(example_fit(4, effect=0.9, units=20_000))], [guard_of(returns(0.9), 0.01)])
    assert set(found["decision"]) == {"stop"}
    assert all(why.startswith("A guardrail is broken.") for why in found["why"])


def test_the_order_of_a_metrics_segments_does_not_matter() -> None:
    goal, second, guardrail = example_fit(4, effect=0.9, units=20_000), example_fit(4, effect=0.9, seed=9), returns(0.1)

    def reverse(fit: Fit) -> Fit:
        tree = xr.DataTree.from_dict(
            {
                str(name): node.to_dataset().isel(segment=slice(None, None, -1), missing_dims="ignore")
                for name, node in fit.tree.children.items()
            }
        )
        tree.attrs = dict(fit.tree.attrs)
        return Fit(tree)

    before = decide_with_guardrails([goal_of(goal), goal_of(second, "other")], [guard_of(guardrail, 0.02)])
    after = decide_with_guardrails(
        [goal_of(goal), goal_of(reverse(second), "other")], [guard_of(reverse(guardrail), 0.02)]
    )
    assert before["metric"].tolist() == ["visit", "other"] * 4
    assert after["decision"].tolist() == before["decision"].tolist()
    np.testing.assert_allclose(after["p_guardrail"], before["p_guardrail"])
    np.testing.assert_allclose(after["p_benefit"], before["p_benefit"])


def test_a_guardrail_without_data_in_a_segment_is_neither_kept_nor_broken_there() -> None:
    goal = set_effects(example_fit(4, units=50_000, pooling="none"), {"email": 0.9})
    kept = set_effects(returns(0.0, one_armed=(1,)), {"email": -1.0})
    broken = set_effects(returns(0.0, one_armed=(1,)), {"email": 4.0})
    assert set(goal.decide()["decision"]) == {"ship"}
    for guardrail, elsewhere in ((kept, "ship"), (broken, "stop")):
        found = decide_with_guardrails([goal_of(goal)], [guard_of(guardrail, 0.1)])
        # What is estimated there comes from the other segments alone.
        assert found["decision"].tolist() == [elsewhere, "undecided", elsewhere, elsewhere]
        assert "There are no data on 'returns' in this segment and arm." in found["why"][1]


ARMS = ("control", "sms", "email")


def set_effects(fit: Fit, effect_by_arm: dict[str, float]) -> Fit:
    """Give every segment the same effect of an arm, link scale, with draws that stay as wide as they are."""
    tree = fit.tree.copy()
    effect = tree["posterior"].to_dataset()["effect"]
    wanted = xr.DataArray(list(effect_by_arm.values()), dims="arm", coords={"arm": list(effect_by_arm)})
    tree["posterior"] = tree["posterior"].to_dataset().assign(effect=effect - effect.mean(("chain", "draw")) + wanted)
    return Fit(tree)


def test_an_arm_that_breaks_a_guardrail_leaves_the_segment_to_the_next_best() -> None:
    goal = set_effects(example_fit(4, arms=ARMS, units=50_000, pooling="none"), {"sms": 0.5, "email": 0.9})
    guardrail = set_effects(returns(0.0, arms=ARMS), {"sms": 0.0, "email": 3.0})
    # By the goal alone the e-mail gains more, and it is what the guardrail forbids.
    assert goal.decide()["decision"].tolist() == ["undecided", "ship"] * 4
    found = decide_with_guardrails([goal_of(goal)], [guard_of(guardrail, 0.1)])
    assert found["decision"].tolist() == ["ship", "stop"] * 4
    # How probably the e-mail does not help is no number of a stop that spares returns.
    assert found["p_wrong"].isna().tolist() == [False, True] * 4


@pytest.mark.parametrize("worth", [None, (1.0, 1.0), (1.0, 10.0)])
def test_goals_that_prefer_different_arms_ship_one_of_them(worth: tuple[float, float] | None) -> None:
    first = set_effects(example_fit(4, arms=ARMS, units=50_000, pooling="none"), {"sms": 0.9, "email": 0.6})
    second = set_effects(example_fit(4, arms=ARMS, units=50_000, pooling="none", seed=2), {"sms": 0.6, "email": 0.8})
    rules = [RULE if worth is None else RULE.model_copy(update={"value": value}) for value in worth or (1.0, 1.0)]
    goals = [
        GoalMetric(name, fit.tree, fit.question(), rule)
        for name, fit, rule in zip(("first", "other"), (first, second), rules, strict=True)
    ]
    found = decide_with_guardrails(goals).drop_duplicates(["device", "arm"])
    # In money over both goals where both have a value, else by the first.
    means = [compute_effects(fit.tree).mean(("chain", "draw")).transpose("segment", "arm") for fit in (first, second)]
    gains = means[0] if worth is None else worth[0] * means[0] + worth[1] * means[1]
    best = gains["arm"].values[gains.argmax("arm").values]
    assert found.loc[found["decision"] == "ship", "arm"].tolist() == best.tolist()
    assert set(best) == ({"email"} if worth == (1.0, 10.0) else {"sms"})
    assert found["why"].str.contains("is the best by 'first' with probability").all()


def test_metrics_that_do_not_fit_are_refused() -> None:
    goal = goal_of(example_fit(4, effect=0.9))
    with pytest.raises(hte.PlanError, match="a decision needs a goal"):
        decide_with_guardrails([])
    dear = GoalMetric("visit", goal.fit_tree, goal.question, RULE.model_copy(update={"cost": 0.1}))
    with pytest.raises(hte.PlanError, match=r"a cost of 0.1 per treated unit .* of 'visit'"):
        decide_with_guardrails([dear, goal_of(example_fit(4), "other")])
    with pytest.raises(hte.DataError, match=r"'visit' and 'other' have different segments.*'device 4 \(email\)'"):
        decide_with_guardrails([goal, goal_of(example_fit(3), "other")])
    with pytest.raises(hte.DataError, match="'visit' and 'returns' have different segments"):
        decide_with_guardrails([goal], [guard_of(example_fit(3), 0.1)])
    with pytest.raises(hte.PlanError, match="margin of guardrail 'returns' is the harm that is tolerated, 0 or more"):
        decide_with_guardrails([goal], [guard_of(returns(0.0), -0.1)])
    with pytest.raises(hte.PlanError, match="guardrail 'refunds' needs its direction"):
        decide_with_guardrails([goal], [guard_of(example_fit(4, outcome="refunds"), 0.1, "refunds")])
