"""Decide over several metrics: goals that a change should improve, guardrails that it must hardly harm.

From Python, with fits of the same segments and arms:

    goal = GoalMetric("bought", bought.tree, bought.question(), settle_matters(hte.Rule(), 0.002))
    returns = GuardrailMetric("returns", returned.tree, returned.question(), margin=0.001)
    decide_with_guardrails([goal], [returns])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import format_percentage, quote_names, shorten_text
from bayes_hte.decisions.decide import (
    EvidenceRecord,
    SegmentCall,
    build_context,
    build_decision_table,
    build_evidence_table,
    call_arms,
    choose_best_arms,
    list_records,
)
from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.decisions.rules.evidence import Decision, turn_to_benefit
from bayes_hte.decisions.rules.reasons import choose_size_format, write_missed_probability, write_probability
from bayes_hte.decisions.verdicts import find_tested_cells
from bayes_hte.errors import DataError, PlanError
from bayes_hte.estimands.effects import compute_effects, get_fitted_family
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.inference.draw_blocks import SAMPLE_DIMS
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, SEGMENT, list_dimensions
from bayes_hte.spec.fit_tree import get_fitted_cells, get_plan
from bayes_hte.spec.questions.planned_metric import find_cost_doubt


@dataclass(frozen=True, slots=True)
class GoalMetric:
    """A metric that the change should improve.

    Attributes
    ----------
    name : str
    fit_tree : xarray.DataTree
    question : EffectQuestion
        Scale of the rule, interval and direction.
    rule : Rule
        With the smallest effect that matters settled; its value is what one unit of this metric is worth.
    """

    name: str
    fit_tree: xr.DataTree
    question: EffectQuestion
    rule: Rule


@dataclass(frozen=True, slots=True)
class GuardrailMetric:
    """A metric that the change must not harm by more than a margin.

    Attributes
    ----------
    name : str
    fit_tree : xarray.DataTree
    question : EffectQuestion
        Scale of the margin, and the direction that is better.
    margin : float
        Harm that is tolerated, 0 or more.
    """

    name: str
    fit_tree: xr.DataTree
    question: EffectQuestion
    margin: float


@dataclass(frozen=True, slots=True)
class GuardrailReading:
    """How probably one guardrail holds in one segment and arm, in a number and in words."""

    is_kept: bool
    is_broken: bool
    p_kept: float
    sentence: str


def decide_with_guardrails(goals: Sequence[GoalMetric], guardrails: Sequence[GuardrailMetric] = ()) -> pd.DataFrame:
    """Decide for every segment and arm over several metrics.

    Shipped is what at least one goal says ship to and none says stop to, and where every guardrail's harm is below its
    margin with the probability that the first goal's rule needs. A guardrail whose harm exceeds the margin with that
    probability stops the change, whatever the goals say. Goals that say ship and stop of the same segment disagree:
    nothing is decided, and the reason says so. A guardrail without data in a segment and arm lets nothing be shipped
    there. Of several arms that all metrics let pass, a segment gets the one that
    gains most: in money over all goals where each has a value, else by the first goal.

    Parameters
    ----------
    goals : sequence of GoalMetric
        One or more, of the same segments and arms.
    guardrails : sequence of GuardrailMetric
        Of the segments and arms of the goals at least.

    Returns
    -------
    pandas.DataFrame
        One row per segment, arm and goal: the columns of `Fit.decide` with metric after arm, and at the end p_guardrail
        (the least probability of a guardrail that its harm is below its margin; NaN without guardrails). Numbers are
        those of the goal; decision and why are those of all metrics together, the same in each goal's row; p_wrong is
        NaN where the goal alone would say something else.

    Raises
    ------
    PlanError
        If there is no goal, a margin is below 0, or a cost has no one unit for all goals.
    DataError
        If metrics are of different segments or arms.
    """
    if not goals:
        raise PlanError("a decision needs a goal: a metric that the change should improve, beside its guardrails")
    if doubt := find_cost_doubt(goals[0].rule.cost, {goal.name: goal.rule.value for goal in goals}):
        raise PlanError(doubt)
    others: list[GoalMetric | GuardrailMetric] = [*goals[1:], *guardrails]
    for metric in others:
        _check_segments(metric, goals[0])
    readings = [_read_guardrail(guardrail, goals[0].rule.guardrail.p) for guardrail in guardrails]
    evidence = [_weigh_goal(goal) for goal in goals]
    keys, calls, p_guardrail = _list_keys(goals[0].fit_tree), [], []
    for key in keys:
        segment_readings = [reading_by_key[key] for reading_by_key in readings]
        goal_calls = {goal.name: each.calls[key] for goal, each in zip(goals, evidence, strict=True)}
        calls.append(combine_metrics(goal_calls, segment_readings))
        p_guardrail.append(min((reading.p_kept for reading in segment_readings), default=float("nan")))
    # The arm is chosen last: one that breaks a guardrail must not keep the others from being shipped.
    measure = goals[0].name if len(goals) > 1 else ""
    arm_count = goals[0].fit_tree["posterior"].to_dataset().sizes[ARM]
    chosen = choose_best_arms(_add_up_gains(goals, evidence, keys), calls, arm_count, measure=measure)
    combined = pd.DataFrame(
        {
            "decision": [call.decision for call in chosen],
            "why": [call.why for call in chosen],
            "p_guardrail": p_guardrail,
        }
    )
    return _stack_goals(goals, [each.table for each in evidence], combined)


@dataclass(frozen=True, slots=True)
class _GoalEvidence:
    """What one goal says alone, of every arm by itself: a table of decisions, and records and calls by segment, arm."""

    table: pd.DataFrame
    records: Mapping[tuple[str, str], EvidenceRecord]
    calls: Mapping[tuple[str, str], SegmentCall]


def _weigh_goal(goal: GoalMetric) -> _GoalEvidence:
    """Weigh one goal in every segment and arm."""
    context = build_context(goal.fit_tree, goal.question, goal.rule)
    evidence_table = build_evidence_table(goal.fit_tree, goal.question, goal.rule)
    records, keys = list_records(evidence_table, goal.rule), _list_keys(goal.fit_tree)
    calls = call_arms(records, context)
    return _GoalEvidence(
        build_decision_table(evidence_table, calls, context),
        dict(zip(keys, records, strict=True)),
        dict(zip(keys, calls, strict=True)),
    )


def _add_up_gains(
    goals: Sequence[GoalMetric], evidence: Sequence[_GoalEvidence], keys: Sequence[tuple[str, str]]
) -> list[EvidenceRecord]:
    """Take the records of the first goal, with the gain of all goals where all are in money."""
    # Purchases and minutes do not add up. A cost, which each goal takes off, is the same for every arm.
    counted = evidence if all(goal.rule.value is not None for goal in goals) else evidence[:1]
    return [
        {**evidence[0].records[key], "expected_gain": sum(each.records[key]["expected_gain"] for each in counted)}
        for key in keys
    ]


def _list_keys(fit_tree: xr.DataTree) -> list[tuple[str, str]]:
    """List segments and arms in the order of the rows of tables."""
    effect = fit_tree["posterior"].to_dataset()["effect"]
    return [(str(segment), str(arm)) for segment in effect[SEGMENT].values for arm in effect[ARM].values]


def _check_segments(metric: GoalMetric | GuardrailMetric, first_goal: GoalMetric) -> None:
    """Raise DataError unless a metric has the segments and arms of the first goal."""
    goal_keys, metric_keys = _list_keys(first_goal.fit_tree), _list_keys(metric.fit_tree)
    # A guardrail may have been measured in more segments than the goal; two goals must answer for the same ones.
    lacking = sorted({f"{segment} ({arm})" for segment, arm in set(goal_keys) - set(metric_keys)})
    if isinstance(metric, GoalMetric):
        lacking += sorted({f"{segment} ({arm})" for segment, arm in set(metric_keys) - set(goal_keys)})
    if lacking:
        raise DataError(
            f"the metrics {first_goal.name!r} and {metric.name!r} have different segments or arms, such as "
            f"{quote_names(lacking[:3])}: make the cells of both from the same rows"
        )


def _read_guardrail(guardrail: GuardrailMetric, needed: float) -> dict[tuple[str, str], GuardrailReading]:
    """Read one guardrail in every segment and arm.

    Raises
    ------
    PlanError
        If the margin is below 0, or it is doubtful which direction is harm.
    """
    tree, question, margin = guardrail.fit_tree, guardrail.question, guardrail.margin
    if not margin >= 0:
        raise PlanError(
            f"the margin of guardrail {guardrail.name!r} is the harm that is tolerated, 0 or more, not {margin}"
        )
    if not is_direction_known(tree, question):
        raise PlanError(
            f"guardrail {guardrail.name!r} needs its direction, or nobody knows what harm is: say higher_is_better = "
            "false, or true"
        )
    benefit_draws = turn_to_benefit(
        compute_effects(tree, question.scale), higher_is_better=question.higher_is_better
    ).transpose(*SAMPLE_DIMS, SEGMENT, ARM)
    # P(harm < margin) = P(benefit > −margin)
    p_kept = (benefit_draws > -margin).mean(SAMPLE_DIMS).values.ravel().tolist()
    p_broken = (benefit_draws < -margin).mean(SAMPLE_DIMS).values.ravel().tolist()
    plan = get_plan(tree)
    sizes = choose_size_format(get_fitted_family(tree), question.scale, "" if plan is None else plan.report.unit)
    harm_text = f"The harm to {shorten_text(guardrail.name)!r} is below {sizes.format_size(margin)} with probability"
    untested_text = f"There are no data on {shorten_text(guardrail.name)!r} in this segment and arm."
    is_tested = find_tested_cells(get_fitted_cells(tree)).transpose(SEGMENT, ARM).values.ravel().tolist()
    readings = {}
    for key, kept, broken, tested in zip(_list_keys(tree), p_kept, p_broken, is_tested, strict=True):
        probability_text = write_probability(kept) if kept >= needed else write_missed_probability(kept, needed)
        sentence = f"{harm_text} {probability_text} ({format_percentage(needed)} needed)." if tested else untested_text
        # What other segments say of harm neither keeps a guardrail nor breaks it here.
        readings[key] = GuardrailReading(tested and kept >= needed, tested and broken >= needed, kept, sentence)
    return readings


def combine_metrics(goal_calls: Mapping[str, SegmentCall], readings: Sequence[GuardrailReading]) -> SegmentCall:
    """Combine what goals and guardrails say of one segment and arm into one decision with its reason.

    Examples
    --------
    >>> bought, spent = SegmentCall("ship", "It helps."), SegmentCall("stop", "It harms.")
    >>> combine_metrics({"bought": bought}, []).decision
    'ship'
    >>> combine_metrics({"bought": bought, "spent": spent}, [])
    SegmentCall(decision='undecided', why="Goals disagree. 'bought' says ship: It helps. 'spent' says stop: It harms.")
    """
    decisions = [call.decision for call in goal_calls.values()]
    said_text = " ".join(
        f"{shorten_text(name)!r} says {call.decision}: {call.why}" for name, call in goal_calls.items()
    )
    # A guardrail is broken whatever the goals gain: that is what makes it one.
    if broken := [reading.sentence for reading in readings if reading.is_broken]:
        return SegmentCall("stop", f"A guardrail is broken. {' '.join(broken)} {said_text}")
    if "ship" in decisions and "stop" in decisions:
        return SegmentCall("undecided", f"Goals disagree. {said_text}")
    decision: Decision = "equivalent" if set(decisions) == {"equivalent"} else "undecided"
    decision = next((action for action in _ACTIONS if action in decisions), decision)
    if decision == "ship" and (unsure := [reading.sentence for reading in readings if not reading.is_kept]):
        return SegmentCall("undecided", f"A guardrail is in the way. {' '.join(unsure)} {said_text}")
    # One goal that has its way needs no name; where something else decides, the reader must see whose words these are.
    goal_text = said_text if len(goal_calls) > 1 else next(iter(goal_calls.values())).why
    kept_text = " ".join(reading.sentence for reading in readings) if decision == "ship" else ""
    return SegmentCall(decision, f"{goal_text} {kept_text}".strip())


_ACTIONS: Final[tuple[Decision, ...]] = ("ship", "stop")


def _stack_goals(goals: Sequence[GoalMetric], tables: Sequence[pd.DataFrame], combined: pd.DataFrame) -> pd.DataFrame:
    """Stack the goals' tables, the goals of a segment and arm together in the order of the first goal's rows."""
    keys = _list_keys(goals[0].fit_tree)
    positions = {key: position for position, key in enumerate(keys)}
    # Each goal's rows keep their own numbers; their place is that of the first goal's.
    labelled_tables = []
    for goal, table in zip(goals, tables, strict=True):
        rank = [positions[key] for key in _list_keys(goal.fit_tree)]
        labelled = table.drop(columns="why").rename(columns={"decision": "_alone"})
        labelled = labelled.assign(metric=goal.name, _rank=rank)
        labelled_tables.append(labelled)
    stacked = pd.concat(labelled_tables).sort_values("_rank", kind="stable", ignore_index=True)
    stacked = stacked.join(combined, on="_rank")
    # How probably "ship" is wrong says nothing of a "stop" for another metric's sake.
    stacked["p_wrong"] = stacked["p_wrong"].where(stacked["_alone"] == stacked["decision"])
    stacked = stacked.drop(columns=["_rank", "_alone"])
    label_columns = [*list_dimensions(get_fitted_cells(goals[0].fit_tree)), ARM, "metric", "decision", "why"]
    number_columns = [name for name in stacked.columns if name not in (*label_columns, "p_guardrail")]
    return stacked[[*label_columns, *number_columns, "p_guardrail"]]
