"""Decide for every segment and arm by a stated rule, and say why in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte.decisions.direction import ask_about_direction, is_direction_known
from bayes_hte.decisions.rules.evidence import (
    SHIP_CONDITION,
    STOP_CONDITION,
    Decision,
    compute_best_arm_probability,
    compute_gains,
    turn_to_benefit,
    weigh_benefit,
)
from bayes_hte.decisions.rules.reasons import (
    SizeFormat,
    choose_size_format,
    write_arm_note,
    write_borrowing_reason,
    write_cost_reason,
    write_gain_note,
    write_interval_note,
    write_rule_reason,
)
from bayes_hte.decisions.verdicts import MOSTLY_BORROWED_FACTOR, find_tested_cells
from bayes_hte.estimands.effects import compute_effects, get_fitted_family
from bayes_hte.estimands.pooling_factor import average_pooling
from bayes_hte.estimands.tables import EffectQuestion, build_effect_table, select_sign_probabilities, summarise_draws
from bayes_hte.estimands.weights import average_over_segments, compute_average_weights
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, EffectScale
from bayes_hte.spec.fit_tree import (
    get_fitted_cells,
    get_fitted_model,
    get_plan,
    is_from_posterior,
    is_reliable,
)

DECISION_COLUMNS = (
    *("decision", "why", "p_benefit", "p_harm", "p_equivalent"),
    *("expected_gain", "expected_loss", "p_wrong", "pooling"),
)
"""Columns of `Fit.decide` after those of the dimensions and the arm."""
NOT_TESTED_REASON = "There are no data in this segment and arm: what is estimated comes from other segments."
UNRELIABLE_NOTE = "The draws did not pass their diagnosis: mend that before you act."
CALLED_TOGETHER_NOTE = "The model gives all segments one effect: they are called together."

type EvidenceRecord = Mapping[str, Any]
"""What is known of one segment and arm: labels, probabilities, gains; p_ship and p_stop as lists over conditions."""


@dataclass(frozen=True, slots=True)
class SegmentCall:
    """What is decided for one segment and arm, and why.

    Attributes
    ----------
    decision : str
    why : str
        Sentences, with numbers.
    """

    decision: Decision
    why: str


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """What holds for all segments of a fit while they are decided.

    Attributes
    ----------
    question : EffectQuestion
    rule : Rule
    sizes, absolute_sizes : SizeFormat
        How sizes are written, on the scale of the rule and on the absolute one.
    direction_question : str
        Asked where nobody has said which direction is better and it is doubtful, else "".
    is_one_effect : bool
        Whether the model gives all segments one effect.
    is_reliable : bool
    average_by_arm : mapping
        What the rule says of the average over all segments, a sentence by arm.
    """

    question: EffectQuestion
    rule: Rule
    sizes: SizeFormat
    absolute_sizes: SizeFormat
    direction_question: str
    is_one_effect: bool
    is_reliable: bool
    average_by_arm: Mapping[str, str]


def decide_segments(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule) -> pd.DataFrame:
    """Decide for every segment and arm; see `Fit.decide` for the columns.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    question : EffectQuestion
        The scale of the rule, the interval, and the direction that is better.
    rule : Rule
        With the smallest effect that matters settled; see `bayes_hte.decisions.rules.evidence.choose_rule`.
    """
    context = build_context(fit_tree, question, rule)
    evidence_table = build_evidence_table(fit_tree, question, rule)
    calls = call_segments(list_records(evidence_table, rule), context)
    return build_decision_table(evidence_table, calls, context)


def weigh_segments(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule) -> xr.Dataset:
    """Weigh the benefits of all segments against a rule, dims (segment, arm); see `weigh_benefit`."""
    signs = select_sign_probabilities(fit_tree)
    names = ("p_positive", "p_negative") if question.higher_is_better else ("p_negative", "p_positive")
    benefit_signs = (
        {name: signs[sign] for name, sign in zip(("p_better", "p_worse"), names, strict=True)} if signs else {}
    )
    benefit_draws = turn_to_benefit(
        compute_effects(fit_tree, question.scale), higher_is_better=question.higher_is_better
    )
    return weigh_benefit(benefit_draws, rule, benefit_signs)


def build_evidence_table(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule) -> pd.DataFrame:
    """Build the table of everything that decisions rest on, one row per segment and arm, arms of a segment together.

    Conditions are columns of their own: p_ship_0, p_ship_1, …, p_stop_0, …
    """
    cells, evidence = get_fitted_cells(fit_tree), weigh_segments(fit_tree, question, rule)
    effect_draws = compute_effects(fit_tree, question.scale)
    # Money and outcomes add up over people on the absolute scale only.
    absolute_draws = compute_effects(fit_tree, "absolute")
    gain, loss = compute_gains(turn_to_benefit(absolute_draws, higher_is_better=question.higher_is_better), rule)
    columns = {str(name): values for name, values in evidence.data_vars.items() if values.dims == gain.dims}
    for name, dim in (("p_ship", SHIP_CONDITION), ("p_stop", STOP_CONDITION)):
        columns |= {f"{name}_{index}": evidence[name].isel({dim: index}) for index in range(evidence.sizes[dim])}
    summary = {**summarise_draws(effect_draws, question), **select_sign_probabilities(fit_tree)}
    columns |= {name: summary[name] for name in ("ci_low", "ci_high", "p_positive", "p_negative")}
    columns |= {"expected_gain": gain, "expected_loss": loss, "pooling": average_pooling(fit_tree)["pooling"]}
    columns |= {"is_tested": find_tested_cells(cells)}
    benefit_draws = turn_to_benefit(effect_draws, higher_is_better=question.higher_is_better)
    if benefit_draws.sizes[ARM] > 1:
        columns["p_best"] = compute_best_arm_probability(benefit_draws)
    return build_effect_table(columns, cells)


def list_records(evidence_table: pd.DataFrame, rule: Rule) -> list[EvidenceRecord]:
    """List the rows of a table of evidence, with the probabilities of a rule's conditions as lists."""
    return [
        {
            **{str(name): value for name, value in row.items()},
            "p_ship": [row[f"p_ship_{index}"] for index in range(len(rule.ship))],
            "p_stop": [row[f"p_stop_{index}"] for index in range(len(rule.stop))],
        }
        for row in evidence_table.to_dict("records")
    ]


def build_context(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule) -> DecisionContext:
    """Build what holds for all segments of a fit while they are decided."""
    is_known = is_direction_known(fit_tree, question)
    is_complete = get_fitted_model(fit_tree).pooling == "complete" and not is_from_posterior(fit_tree)
    return DecisionContext(
        question,
        rule,
        _choose_sizes(fit_tree, question.scale),
        _choose_sizes(fit_tree, "absolute"),
        direction_question="" if is_known else ask_about_direction(get_fitted_cells(fit_tree), None),
        is_one_effect=is_complete,
        is_reliable=is_reliable(fit_tree),
        average_by_arm=_decide_averages(fit_tree, question, rule),
    )


def _decide_averages(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule) -> dict[str, str]:
    """Say in a sentence for each arm what the rule makes of the average effect over all segments."""
    average_draws = _average_benefits(fit_tree, question, question.scale)
    evidence = weigh_benefit(average_draws, rule)
    gain, _ = compute_gains(_average_benefits(fit_tree, question, "absolute"), rule)
    sizes, absolute_sizes = (_choose_sizes(fit_tree, scale) for scale in (question.scale, "absolute"))
    sentences = {}
    for arm in map(str, average_draws[ARM].values):
        arm_evidence, arm_gain = evidence.sel({ARM: arm}), float(gain.sel({ARM: arm}))
        record = {str(name): values.values.tolist() for name, values in arm_evidence.data_vars.items()}
        decision, reason = record["decision"], write_rule_reason(record["decision"], record, rule, sizes)
        if decision == "ship" and rule.cost > 0 and not arm_gain > 0:
            decision, reason = "undecided", f"{reason} {write_cost_reason(arm_gain, rule, absolute_sizes)}"
        sentences[arm] = f"All segments together: {decision}. {reason}"
    return sentences


def _average_benefits(fit_tree: xr.DataTree, question: EffectQuestion, scale: EffectScale) -> xr.DataArray:
    average_draws = average_over_segments(compute_effects(fit_tree, scale), compute_average_weights(fit_tree, scale))
    return turn_to_benefit(average_draws, higher_is_better=question.higher_is_better)


def _choose_sizes(fit_tree: xr.DataTree, scale: EffectScale) -> SizeFormat:
    plan = get_plan(fit_tree)
    return choose_size_format(get_fitted_family(fit_tree), scale, "" if plan is None else plan.report.unit)


def call_segments(records: Sequence[EvidenceRecord], context: DecisionContext) -> list[SegmentCall]:
    """Decide for every record; of the arms of a segment that may be shipped only the best is.

    Parameters
    ----------
    records : sequence of mapping
        Of `list_records`: the arms of a segment stand together.
    context : DecisionContext
    """
    return choose_best_arms(records, call_arms(records, context), len(context.average_by_arm))


def call_arms(records: Sequence[EvidenceRecord], context: DecisionContext) -> list[SegmentCall]:
    """Decide for every record on its own: several arms of a segment may be shipped."""
    return [_call_record(record, context) for record in records]


def choose_best_arms(
    records: Sequence[EvidenceRecord], calls: Sequence[SegmentCall], arm_count: int, *, measure: str = ""
) -> list[SegmentCall]:
    """Ship to every segment only the arm that gains most among those that may be shipped.

    Parameters
    ----------
    records : sequence of mapping
        With arm, expected_gain and p_best; the arms of a segment stand together.
    calls : sequence of SegmentCall
        Of every record on its own.
    arm_count : int
    measure : str
        Metric by which arms are compared, where there are several.
    """
    if arm_count == 1:
        return list(calls)
    chosen = []
    for segment_records, segment_calls in zip(batched(records, arm_count), batched(calls, arm_count), strict=True):
        chosen += _choose_best_arm(segment_records, segment_calls, measure)
    return chosen


def _call_record(record: EvidenceRecord, context: DecisionContext) -> SegmentCall:
    """Decide for one segment and arm, without a look at its other arms."""
    decision, rule = record["decision"], context.rule
    # What forbids any call goes first, the weightiest reason of all.
    if not record["is_tested"]:
        return SegmentCall("undecided", NOT_TESTED_REASON)
    if context.direction_question:
        return SegmentCall("undecided", context.direction_question[0].upper() + context.direction_question[1:] + ".")
    # NaN, of draws whose pooling nobody knows, forbids nothing.
    if record["pooling"] > MOSTLY_BORROWED_FACTOR and not context.is_one_effect:
        together = context.average_by_arm[record["arm"]]
        return SegmentCall("undecided", write_borrowing_reason(record["pooling"], decision, together))
    sentences = [write_rule_reason(decision, record, rule, context.sizes)]
    # Conditions are on benefits before costs, so that an effect may be sure and not pay.
    if decision == "ship" and rule.cost > 0 and not record["expected_gain"] > 0:
        sentences.append(write_cost_reason(record["expected_gain"], rule, context.absolute_sizes))
        return SegmentCall("undecided", " ".join(sentences))
    if decision in ("ship", "stop"):
        sentences.append(write_interval_note(record, context.question, context.sizes))
    if decision == "ship":
        sentences.append(
            write_gain_note(record["expected_gain"], record["expected_loss"], rule, context.absolute_sizes)
        )
    sentences += [CALLED_TOGETHER_NOTE] * context.is_one_effect
    sentences += [UNRELIABLE_NOTE] * (decision != "undecided" and not context.is_reliable)
    return SegmentCall(decision, " ".join(filter(None, sentences)))


def _choose_best_arm(
    segment_records: Sequence[EvidenceRecord], segment_calls: Sequence[SegmentCall], measure: str
) -> list[SegmentCall]:
    """Ship to a segment only the arm that gains most among those that may be shipped."""
    arm_count = len(segment_records)
    # The first of arms that tie.
    best_index = max(range(arm_count), key=lambda index: segment_records[index]["expected_gain"])
    ship_indexes = [index for index in range(arm_count) if segment_calls[index].decision == "ship"]
    shipped_index = max(ship_indexes, key=lambda index: segment_records[index]["expected_gain"], default=best_index)
    # Where nothing may be shipped, the reason still says which arm would be the one.
    shipped = segment_records[shipped_index]
    note = write_arm_note(shipped["arm"], shipped["p_best"], arm_count, measure)
    chosen_calls = []
    for index, call in enumerate(segment_calls):
        decision, why = call.decision, call.why
        if decision == "ship" and index != shipped_index:
            decision, why = "undecided", f"It may be shipped, but another arm gains more. {note} {why}"
        elif index == shipped_index:
            why = f"{why} {note}"
        chosen_calls.append(SegmentCall(decision, why))
    return chosen_calls


def build_decision_table(
    evidence_table: pd.DataFrame, calls: Sequence[SegmentCall], context: DecisionContext
) -> pd.DataFrame:
    """Build the table that is shown: labels, what is decided and why, and the numbers behind it."""
    # P(wrong): shipped without benefit, stopped without harm, called equivalent and larger.
    right_columns = {"ship": "p_better", "stop": "p_worse", "equivalent": "p_within"}
    p_wrong = [
        1 - row[right_columns[call.decision]] if call.decision in right_columns else float("nan")
        for call, row in zip(calls, evidence_table.to_dict("records"), strict=True)
    ]
    label_columns = list(evidence_table.columns[: list(evidence_table.columns).index(ARM) + 1])
    decision_table = evidence_table.assign(
        decision=[call.decision for call in calls], why=[call.why for call in calls], p_wrong=p_wrong
    )[[*label_columns, *DECISION_COLUMNS]]
    has_value = context.rule.value is not None
    decision_table.attrs["gain_units"] = "money per treated unit" if has_value else "outcome per treated unit"
    decision_table.attrs["all_segments"] = dict(context.average_by_arm)
    return decision_table
