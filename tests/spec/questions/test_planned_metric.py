"""Metrics and breakdowns of a plan: what is refused, each in one sentence with the way out."""

from typing import Any

import pytest
from example_plans import BREAKDOWNS, GOAL, GUARDRAIL, SPENT, make_plan

from bayes_hte import Plan, PlanError
from bayes_hte.spec.data_forms import PLACE_KEYS, Rows
from bayes_hte.spec.questions.planned_metric import METRIC_DATA_KEYS, PlannedMetric

SUMMARY = {"form": "summary", "arm": "arm", "control": "old", "n": "n", "events": "events"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metrics": [GOAL, {**GUARDRAIL, "higher_is_better": None}]}, "'returns' lacks its direction: say higher_is_"),
        ({"metrics": [GOAL, {**GUARDRAIL, "margin": None}]}, "'returns' lacks its margin: say margin = …"),
        ({"metrics": [GOAL, {**GUARDRAIL, "margin": -0.1}]}, "metrics, entry 2.margin: should be greater than 0"),
        ({"metrics": [{**GOAL, "margin": 0.1}]}, "the goal 'bought' has a margin"),
        ({"metrics": [GOAL, GOAL]}, "the metric 'bought' is there twice"),
        ({"metrics": [GUARDRAIL, {**GUARDRAIL, "name": "b"}]}, "every metric is a guardrail"),
        ({"metrics": [GOAL, {**GOAL, "name": "b", "higher_is_better": False}]}, "'bought' and 'b' disagree"),
        ({"metrics": [{**GOAL, "role": "gaol"}]}, "entry 1.role: should be 'goal' or 'guardrail', not \"gaol\""),
        ({"metrics": [{**GOAL, "modle": "x"}]}, "unknown key 'metrics, entry 1.modle'; did you mean 'model'"),
        ({"metrics": [{**GOAL, "model": None}]}, "the key 'model' is missing"),
        ({"metrics": []}, "metrics: should have 1 entry or more"),
        ({"margin": 0.1}, "unknown key 'margin'; it belongs under [[metrics]]"),
        ({"data": SUMMARY}, '[[metrics]] are measured on rows of units, and data.form = "summary" has one outcome'),
        ({"breakdowns": [["device"], ["device"]]}, "the breakdown 'device' is there twice; state it once"),
        ({"breakdowns": [["a", "b"], ["b", "a"]]}, "'b × a' is there twice, in another order"),
        ({"breakdowns": [["device", "device"]]}, "has 'device' twice; name each dimension once"),
        ({"breakdowns": "device"}, 'breakdowns: should be a list, as in ["device"]'),
        ({"metrics": [{**SPENT, "bins": {"age": 4}}]}, "bins of metric 'spent' names 'age', which is in no breakdown"),
        (
            {"metrics": [{**GOAL, "matters": None}], "decision": {"ship": [{"above": "matters", "p": 0.9}]}},
            "metric 'bought': ship of the rule names the smallest",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PlanError) as raised:
        make_plan(**changes)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_old_plans_need_what_they_needed() -> None:
    with pytest.raises(PlanError, match=r"the key 'model' is missing; the key 'data\.outcome' is missing") as raised:
        Plan(title="t", data={"arm": "arm", "control": "old"})
    assert "the key 'data.segments' is missing" in str(raised.value)


def test_a_metric_takes_every_option_that_rows_take_of_an_outcome() -> None:
    of_the_experiment = {"form", "arm", "control", "segments", "shares", *PLACE_KEYS}
    assert set(METRIC_DATA_KEYS) <= set(PlannedMetric.model_fields) & set(Rows.model_fields)
    assert set(Rows.model_fields) - set(METRIC_DATA_KEYS) <= of_the_experiment


def test_a_breakdown_of_one_dimension_needs_no_brackets() -> None:
    assert make_plan(breakdowns=["device", ["device", "customer"]]).breakdowns == (("device",), ("device", "customer"))
    assert make_plan().breakdowns == tuple(map(tuple, BREAKDOWNS))
