"""The report says what policies are worth where a rule is stated, in the numbers of the table, and nothing else."""

import json
from typing import Any

import pytest
from example_posterior import example_fit, example_plan

import bayes_hte as hte
from bayes_hte._support.csv_json import to_strict_json
from bayes_hte._support.phrases import NBSP
from bayes_hte.analysis.export import build_summary
from bayes_hte.report.answer.policy import write_policy_sentences


def sentences(fit: hte.Fit) -> list[str]:
    return [text.replace(NBSP, " ") for text in write_policy_sentences(fit.tree, fit.question(), fit.plan)]


def decided(decision: dict[str, Any], **options: Any) -> hte.Fit:
    return example_fit(plan=example_plan(decision=decision, **options.pop("plan", {})), **options)


def test_choosing_segments_is_compared_with_shipping_to_all() -> None:
    fit = decided({"cost": 0.02}, effect=[0.5, 0.3, -0.3, -0.1, 0.2, 0.0])
    policies = fit.policy().set_index("policy")
    everyone, chosen = policies.loc["ship to all"], policies.loc["ship to the chosen segments"]
    to_all, targeted = sentences(fit)
    assert to_all.startswith(f"Shipping to all gains {100 * everyone['gain']:+.1f} percentage points (95 % interval ")
    assert to_all.endswith("per unit of the population, against shipping to none, costs taken off.")
    assert targeted.startswith("Shipping to the chosen segments (device 1, device 2,")
    assert f"gains {100 * chosen['gain']:+.1f} percentage points" in targeted
    assert targeted.endswith(f"that is more than shipping to all with P = {100 * chosen['p_beats_all']:.1f} %.")


@pytest.mark.parametrize(
    ("effect", "ending"),
    [
        (0.6, "No choice of segments is expected to gain more."),
        (-0.6, "No choice of segments is expected to gain anything: shipping to none is the best policy."),
    ],
)
def test_where_segments_need_no_choice_it_is_said(effect: float, ending: str) -> None:
    assert sentences(decided({"value": 38.0}, effect=effect))[1] == ending


def test_a_lower_outcome_that_is_better_gains_by_falling() -> None:
    fit = decided({}, effect=-0.6, plan={"report": {"higher_is_better": False}})
    assert sentences(fit)[0].startswith("Shipping to all gains +")


def test_several_arms_are_named_as_text() -> None:
    fit = decided({"cost": 0.02}, effect=[0.5, 0.3, -0.3, 0.1, 0.2, 0.0], arms=("control", "<b>mail</b>", "letter"))
    assert "the best arm for each of the segments" in sentences(fit)[1]


def test_without_a_rule_or_a_direction_nothing_is_said() -> None:
    assert sentences(example_fit()) == []
    assert sentences(example_fit(plan=example_plan())) == []
    assert sentences(decided({}, outcome="deaths")) == []
    assert "policy" not in build_summary(example_fit(plan=example_plan()))


def test_the_summary_holds_the_table_of_policies() -> None:
    fit = decided({"value": 38.0, "cost": 0.5})
    block = json.loads(to_strict_json(build_summary(fit)))["policy"]
    policies = fit.policy()
    assert block["gain"] == "money per unit of the population"
    assert (block["all"], block["budget"], block["population"]) == ("ship to all", 1.0, policies.attrs["population"])
    assert [row["policy"] for row in block["policies"]] == policies["policy"].tolist()
    assert [row["gain"] for row in block["policies"]] == policies["gain"].tolist()


def test_the_page_has_the_section_only_with_a_rule(tmp_path: Any) -> None:
    with_rule = decided({"cost": 0.02}).report(tmp_path / "a.html").read_text(encoding="utf-8")
    without = example_fit(plan=example_plan()).report(tmp_path / "b.html").read_text(encoding="utf-8")
    assert "What is that worth?" in with_rule
    assert "What is that worth?" not in without
