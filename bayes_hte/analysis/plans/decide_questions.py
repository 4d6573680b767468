"""Decide over the metrics of a plan, breakdown by breakdown: what is shipped must help and break no guardrail."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from bayes_hte._support.phrases import shorten_text
from bayes_hte.analysis.plans.by_question import ByQuestion
from bayes_hte.analysis.result import Fit
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR
from bayes_hte.decisions.rules.evidence import choose_rule
from bayes_hte.decisions.rules.guardrails import GoalMetric, GuardrailMetric, decide_with_guardrails
from bayes_hte.errors import DataError
from bayes_hte.spec import Plan, Rule
from bayes_hte.spec.cell_table import list_dimensions
from bayes_hte.spec.questions.list_questions import QuestionKey, list_breakdowns, list_metrics
from bayes_hte.spec.questions.planned_metric import PlannedMetric, name_breakdown

GOAL, GUARDRAIL = "goal", "guardrail"


def decide_questions(
    plan: Plan,
    fits: ByQuestion[Fit],
    registered: Mapping[Any, Any],
    rule: Rule | None,
    *,
    failed: Mapping[Any, str],
    dropped: Collection[QuestionKey],
) -> pd.DataFrame:
    """Decide for every segment and arm of every breakdown over all metrics; see `Analysis.decide`.

    Parameters
    ----------
    plan : Plan
    fits, registered, failed : mapping
        By metric and breakdown, as an `Analysis` has them.
    rule : Rule, optional
    dropped : collection of QuestionKey
        Questions that were registered and are not asked any more.

    Raises
    ------
    ArgumentError, PlanError
        As `Fit.decide`.
    """
    metrics, tables = list_metrics(plan), []
    for dimensions in list_breakdowns(plan):
        keys = [(metric.name, dimensions) for metric in metrics]
        missing = {metric.name: failed[key] for metric, key in zip(metrics, keys, strict=True) if key in failed}
        present = [(metric, fits[key]) for metric, key in zip(metrics, keys, strict=True) if key not in failed]
        try:
            table = _decide_breakdown(present, rule)
        except DataError as error:  # metrics that are known of different segments
            table = _write_undecided(f"Nothing is decided: {error}.")
        if missing:
            table = _hold_back(table, missing, metrics)
        table.attrs = {}  # pandas compares attributes when it joins tables, and these differ
        table.insert(1, "breakdown", name_breakdown(dimensions))
        # A decision is as registered as the least registered of what it rests on, guardrails included; and without a
        # metric that was to have a say in it, it is another one.
        lacks_metric = any(set(names) == set(dimensions) for _, names in dropped)
        tables.append(
            table.assign(
                registered=not lacks_metric and all(bool(registered[key]) for key in keys),
                reliable=not missing and all(fit.diagnosis.ok for _, fit in present),
            )
        )
    return pd.concat(tables, ignore_index=True)


def _decide_breakdown(present: Sequence[tuple[PlannedMetric, Fit]], rule: Rule | None) -> pd.DataFrame:
    """Decide for the segments and arms of one breakdown over the metrics that have a fit."""
    goals = [
        GoalMetric(metric.name, fit.tree, fit.question(), _choose_metric_rule(rule, metric, fit))
        for metric, fit in present
        if metric.role == GOAL
    ]
    guardrails = [
        # Every guardrail has a margin: the plan was refused without one.
        GuardrailMetric(metric.name, fit.tree, fit.question(), float(metric.margin or 0.0))
        for metric, fit in present
        if metric.role == GUARDRAIL
    ]
    if not goals:
        return _write_undecided("Nothing is decided: no goal could be fitted.")
    decisions = decide_with_guardrails(goals, guardrails)
    dimensions = [name for name in list_dimensions(present[0][1].cells) if name in decisions.columns]
    segments = decisions[dimensions].astype(str).agg(LEVEL_SEPARATOR.join, axis=1)
    joined = decisions.drop(columns=[*dimensions, "metric"])
    joined.insert(0, "metric", decisions["metric"])
    joined.insert(1, "segment", segments)
    return joined


def _choose_metric_rule(rule: Rule | None, metric: PlannedMetric, fit: Fit) -> Rule:
    """Choose the rule for a goal: the caller's, else the plan's, with what a unit of this metric is worth."""
    chosen_rule = choose_rule(rule, fit.plan, fit.question().scale)
    return chosen_rule if chosen_rule.value is not None else chosen_rule.model_copy(update={"value": metric.value})


def _write_undecided(reason: str) -> pd.DataFrame:
    """Write the one row of a breakdown for which nothing can be decided."""
    return pd.DataFrame({"metric": [""], "segment": [""], "arm": [""], "decision": ["undecided"], "why": [reason]})


def _hold_back(table: pd.DataFrame, missing: Mapping[str, str], metrics: Sequence[PlannedMetric]) -> pd.DataFrame:
    """Hold back what was to be shipped where a guardrail is not known, and say which metrics are missing."""
    roles = {metric.name: metric.role for metric in metrics}
    note = " ".join(
        f"The {roles[name]} {shorten_text(name)!r} could not be fitted: {reason}." for name, reason in missing.items()
    )
    held = table.assign(why=note + " " + table["why"])
    # Nobody knows whether it is harmed: an unknown guardrail is not a kept one.
    if GUARDRAIL in {roles[name] for name in missing}:
        held["decision"] = held["decision"].where(held["decision"] != "ship", "undecided")
    return held
