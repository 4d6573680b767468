"""The section of decisions: only where the plan has a rule, each with its word, its reason and P(wrong)."""

from typing import Any

from example_posterior import example_fit, example_plan

from bayes_hte import Fit
from bayes_hte.report.answer.decisions import MAX_OPEN_DECISIONS, DecisionSection, build_decision_section


def section(fit: Fit, **asked: Any) -> DecisionSection | None:
    return build_decision_section(fit.tree, fit.question(**asked), fit.plan)


def test_a_plan_without_a_rule_has_no_decisions() -> None:
    assert section(example_fit(3, plan=example_plan())) is None
    assert section(example_fit(3)) is None
    # Numbers of the rule are of the plan's scale.
    assert section(example_fit(3, plan=example_plan(decision={})), scale="relative") is None


def test_every_segment_and_arm_has_its_decision_and_reason_as_in_python() -> None:
    plan = example_plan(decision={}, report={"rope": 0.01})
    fit = example_fit(3, effect=0.9, arms=("control", "sms", "email"), plan=plan)
    found, table = section(fit), fit.decide()
    assert found is not None
    assert [row.decision for row in found.rows] == table["decision"].tolist()
    assert [row.reason for row in found.rows] == table["why"].tolist()
    assert [row.arm_name for row in found.rows] == ["sms", "email"] * 3
    assert [row.segment_name for row in found.rows][::2] == ["device 1", "device 2", "device 3"]
    assert {row.tone for row in found.rows if row.decision == "ship"} == {"good"}
    assert found.rule_sentence.startswith(
        "Ship where the benefit is above 0 (P ≥ 95 %) and above 1 percentage point (P"
    )
    assert found.average_sentences[0].startswith("sms: All segments together: ship.")
    assert not found.is_folded


def test_many_decisions_are_folded() -> None:
    found = section(example_fit(MAX_OPEN_DECISIONS + 1, plan=example_plan(decision={})))
    assert found is not None
    assert found.is_folded


def test_the_page_shows_the_decisions_and_escapes_names(tmp_path: Any) -> None:
    fit = example_fit(["<b>x</b>", "tablet"], effect=0.9, plan=example_plan(decision={}))
    html = fit.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="decisions">What to do</h2>' in html
    assert "<b>x</b>" not in html
    plain = example_fit(2, plan=example_plan()).report(tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "What to do" not in plain
