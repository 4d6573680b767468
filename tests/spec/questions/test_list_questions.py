"""A plan is its questions: each a plan of its own, with everything that the whole plan says of it."""

import pytest
from example_plans import GOAL, GUARDRAIL, SPENT, make_plan
from example_posterior import example_plan

from bayes_hte import Plan
from bayes_hte.spec.questions.list_questions import asks_several, list_breakdowns, list_questions


def test_every_metric_is_asked_by_every_breakdown_in_the_order_of_the_plan() -> None:
    keys = [question.key for question in list_questions(make_plan())]
    breakdowns = [("device",), ("country",), ("device", "customer")]
    assert keys == [(name, dimensions) for name in ("bought", "spent", "returns") for dimensions in breakdowns]


def test_a_plan_with_one_question_is_its_own_question() -> None:
    plan = example_plan()
    (question,) = list_questions(plan)
    assert question.plan is plan
    assert question.key == ("visit", ("device",))
    assert not asks_several(plan)


def test_the_plan_of_a_question_is_the_one_that_somebody_would_write_for_it_alone() -> None:
    question = next(each for each in list_questions(make_plan()) if each.key == ("spent", ("device", "customer")))
    rows = {"path": "rows.csv", "arm": "arm", "control": "old", "outcome": "spent", "cuped": ["before"], "cap": 200}
    alone = Plan(
        title="New checkout: spent by device × customer", model="metric",
        data={**rows, "segments": ["device", "customer"]},
        sampling={"draws": 400}, report={"rope": 0.5, "unit": "EUR", "higher_is_better": True},
    )  # fmt: skip
    exclude = {"metrics"}  # which a saved fit knows its role and margin by
    assert question.plan.model_dump(exclude=exclude) == alone.model_dump(exclude=exclude)


def test_what_data_and_report_say_holds_for_metrics_that_say_nothing_else() -> None:
    plan = make_plan(
        metrics=[{"name": "a", "outcome": "a"}, {"name": "b", "outcome": "b", "cluster": "village", "model": "counts"}],
        model="metric", data={"arm": "arm", "control": "old", "cluster": "school"}, report={"rope": 0.3, "unit": "EUR"},
    )  # fmt: skip
    first, second = (list_questions(plan)[i].plan for i in (0, 3))
    assert (first.model, first.data.cluster, first.report.rope, first.report.unit) == ("metric", "school", 0.3, "EUR")
    assert (second.model, second.data.cluster, second.report.rope) == ("counts", "village", 0.3)


def test_each_metric_has_the_rule_with_its_own_sizes() -> None:
    plan = make_plan(decision={"ship": [{"above": "matters", "p": 0.6}], "looks": 3})
    rules = {question.metric.name: question.rule for question in list_questions(plan)}
    assert {name: (rule.matters, rule.value, rule.looks) for name, rule in rules.items()} == {
        "bought": (0.01, 38.0, 3), "spent": (0.5, None, 3), "returns": (0.02, None, 3),
    }  # fmt: skip


def test_a_guardrail_alone_ships_nothing() -> None:
    decided = {question.metric.name: question.plan.decision for question in list_questions(make_plan(decision={}))}
    assert decided["returns"] is None
    assert decided["bought"] is not None


def test_cuts_go_to_the_breakdowns_that_have_the_dimension() -> None:
    data = {"arm": "arm", "control": "old", "bins": {"age": 4}}
    plan = make_plan(breakdowns=[["age"], ["device"]], data=data, metrics=[GOAL])
    assert [question.plan.data.bins for question in list_questions(plan)] == [{"age": 4}, None]


@pytest.mark.parametrize(
    ("segments", "breakdowns", "listed"),
    [
        (["device"], [["country"]], [("device",), ("country",)]),
        (["device"], [["country"], ["device"]], [("country",), ("device",)]),
        (["a", "b"], [["b", "a"]], [("b", "a")]),
    ],
)
def test_segments_stand_beside_breakdowns_once(
    segments: list[str], breakdowns: list[list[str]], listed: list[tuple[str, ...]]
) -> None:
    data = {"arm": "arm", "control": "old", "segments": segments}
    assert list_breakdowns(make_plan(breakdowns=breakdowns, data=data)) == listed


def test_a_question_keeps_its_answer_when_its_plan_is_saved_and_read() -> None:
    for question in list_questions(make_plan(metrics=[GOAL, SPENT, GUARDRAIL])):
        again = Plan.model_validate_json(question.plan.model_dump_json(exclude_none=True))
        assert again == question.plan
        assert again.metrics is not None
        assert again.metrics[0] == question.metric
