"""The questions of a plan: one for every metric by every breakdown, each a plan of its own with one answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bayes_hte.spec.data_forms import Rows, Times
from bayes_hte.spec.plan import Plan
from bayes_hte.spec.questions.planned_metric import (
    METRIC_DATA_KEYS,
    PlannedMetric,
    build_metric_rule,
    choose_matters,
    name_breakdown,
)
from bayes_hte.spec.rule import Rule

type QuestionKey = tuple[str, tuple[str, ...]]
"""Name of a metric, and the dimensions of a breakdown."""


@dataclass(frozen=True, slots=True)
class PlannedQuestion:
    """One question: the effect on one metric, by one breakdown.

    Attributes
    ----------
    metric : PlannedMetric
        With everything that the plan says of it, wherever it says so.
    dimensions : tuple of str
    plan : Plan
        The plan that asks this question and no other: of the same data, with the same seed.
    rule : Rule
        Of the plan, else the default one, with the sizes of this metric.
    """

    metric: PlannedMetric
    dimensions: tuple[str, ...]
    plan: Plan
    rule: Rule

    @property
    def key(self) -> QuestionKey:
        """Name of the metric and the dimensions."""
        return self.metric.name, self.dimensions

    @property
    def title(self) -> str:
        """Name of the metric and of the breakdown, as in "bought by device × customer"."""
        return title_question(self.key)


def title_question(key: QuestionKey) -> str:
    """Name a question as people read it: the metric by the breakdown."""
    return f"{key[0]} by {name_breakdown(key[1])}"


def asks_several(plan: Plan) -> bool:
    """Tell whether a plan lists metrics or breakdowns: its answer is then an `Analysis`, even of one question."""
    return plan.metrics is not None or plan.breakdowns is not None


def list_breakdowns(plan: Plan) -> list[tuple[str, ...]]:
    """List the breakdowns of a plan: those of ``data.segments`` first, unless they stand among the others.

    Examples
    --------
    >>> from bayes_hte import Plan
    >>> data = {"outcome": "bought", "arm": "arm", "control": "old", "segments": ["device"]}
    >>> list_breakdowns(Plan(title="t", model="conversion", data=data, breakdowns=[["country"]]))
    [('device',), ('country',)]
    """
    breakdowns = list(plan.breakdowns or ())
    segments = plan.data.segments
    # A table whose columns say what they hold may leave its dimensions open.
    if segments is None or set(segments) in [set(dimensions) for dimensions in breakdowns]:
        return breakdowns or [()]
    return [tuple(segments), *breakdowns]


def list_metrics(plan: Plan) -> list[PlannedMetric]:
    """List the metrics of a plan with everything that it says of them; without [[metrics]] its outcome is the goal."""
    if plan.metrics is None:
        # A table whose columns say what they hold may leave its outcome open.
        outcome = plan.data.outcome or "outcome"
        return [_complete_metric(PlannedMetric(name=outcome, outcome=outcome), plan)]
    return [_complete_metric(metric, plan) for metric in plan.metrics]


def _complete_metric(metric: PlannedMetric, plan: Plan) -> PlannedMetric:
    """Fill in what a metric leaves to the rest of the plan."""
    # Left: the key of a metric; right: where a plan with one outcome says the same.
    elsewhere: dict[str, Any] = {
        "model": plan.model,
        "matters": choose_matters(metric, plan.matters),
        "value": None if plan.decision is None else plan.decision.value,
        "higher_is_better": plan.report.higher_is_better,
        "effect_unit": plan.report.unit or None,
        "planned_effect": plan.planned_effect,
        "unit_variance": plan.unit_variance,
    }
    if isinstance(plan.data, Rows):
        elsewhere |= {key: getattr(plan.data, key) for key in METRIC_DATA_KEYS}
    # False is what a switch says by default: a metric that is silent stays silent.
    filled = {
        key: value for key, value in elsewhere.items() if getattr(metric, key) is None and value not in (None, False)
    }
    return metric.model_copy(update=filled)


def list_questions(plan: Plan) -> list[PlannedQuestion]:
    """List the questions of a plan: every metric by every breakdown, in their order.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    list of PlannedQuestion
        One of them for a plan without [[metrics]] and breakdowns, whose plan is the one given.

    Examples
    --------
    >>> from bayes_hte import Plan
    >>> plan = Plan(
    ...     title="New checkout",
    ...     breakdowns=[["device"], ["device", "customer"]],
    ...     data={"arm": "arm", "control": "old"},
    ...     metrics=[
    ...         {"name": "bought", "outcome": "bought", "model": "conversion"},
    ...         {"name": "spent", "outcome": "spent", "model": "revenue", "cap": 500},
    ...     ],
    ... )
    >>> [question.title for question in list_questions(plan)][-1]
    'spent by device × customer'
    >>> list_questions(plan)[-1].plan.data.cap
    500.0
    """
    # The plan of one question is handed back as it is: nothing of it may change.
    if not asks_several(plan):
        (metric,), (dimensions,) = list_metrics(plan), list_breakdowns(plan)
        return [PlannedQuestion(metric, dimensions, plan, _choose_question_rule(plan, metric))]
    questions = []
    for metric in list_metrics(plan):
        rule = _choose_question_rule(plan, metric)
        for dimensions in list_breakdowns(plan):
            own_plan = _build_plan(plan, metric, dimensions, rule)
            questions.append(PlannedQuestion(metric, dimensions, own_plan, rule))
    return questions


def _choose_question_rule(plan: Plan, metric: PlannedMetric) -> Rule:
    """Choose the rule for a metric: the plan's, else the default one."""
    return build_metric_rule(plan.decision or Rule(), metric, plan.matters, plan.report.call_prob)


def _build_plan(plan: Plan, metric: PlannedMetric, dimensions: tuple[str, ...], rule: Rule) -> Plan:
    """Build the plan of one question; what was valid in the whole plan is valid here."""
    data_keys: dict[str, Any] = {"segments": dimensions}
    if plan.metrics is not None:
        data_keys |= {key: getattr(metric, key) for key in METRIC_DATA_KEYS if getattr(metric, key) is not None}
    if isinstance(plan.data, Rows | Times):
        # Cuts of a dimension belong to the breakdowns that have it.
        for key in {"bins", "rare"} & type(plan.data).model_fields.keys():
            data_keys[key] = _keep_dimensions(data_keys.get(key, getattr(plan.data, key)), dimensions)
    report_keys: dict[str, Any] = {"rope": metric.matters, "higher_is_better": metric.higher_is_better}
    report_keys["unit"] = metric.effect_unit or ""
    # Copied without validation: the whole plan was validated, and this is a part of it.
    return plan.model_copy(
        update={
            "title": f"{plan.title}: {title_question((metric.name, dimensions))}",
            "model": metric.model,
            "planned_effect": metric.planned_effect,
            "unit_variance": metric.unit_variance,
            # Of this metric, so that a saved fit knows its role and margin.
            "metrics": None if plan.metrics is None else (metric,),
            "breakdowns": None,
            "data": plan.data.model_copy(update=data_keys),
            "report": plan.report.model_copy(update=report_keys),
            # What a guardrail alone would say of shipping is no answer: it has a say in the decision over all metrics.
            "decision": None if plan.decision is None or metric.role == "guardrail" else rule,
        }
    )


def _keep_dimensions(cuts: Any, dimensions: Sequence[str]) -> Any:
    """Keep the entries of a mapping that are of these dimensions; what holds for all of them stays."""
    if not isinstance(cuts, Mapping):
        return cuts
    return {name: cut for name, cut in cuts.items() if name in dimensions} or None
