"""The answer for one arm: two plain sentences, and what must be kept in mind with them."""

from typing import Final

import pandas as pd

from bayes_hte._support.phrases import write_count
from bayes_hte.decisions.verdicts import VerdictRule, compute_false_sign_rate
from bayes_hte.report.arm_results import ArmResult
from bayes_hte.report.notation import (
    NBSP,
    format_interval_probability,
    format_percent_probability,
    isolate_name,
    join_names,
    state_probability,
)

ALMOST_CERTAIN_PROBABILITY: Final = 0.995  # what rounds to "P = 100 %" in whole percent
TENDENCY_PROBABILITY: Final = 0.8
"""Below this the average is not worth a tendency: one in five would be wrong."""


def write_call_criterion(rule: VerdictRule) -> str:
    """Write what "clearly" means: ``P > 95 %``."""
    return f"P{NBSP}>{NBSP}{format_interval_probability(rule.call_prob)}"


def write_average_sentence(arm_result: ArmResult) -> str:
    """Write what the arm does on average, and how sure that is."""
    ate_row, effect_format = arm_result.ate_row, arm_result.effect_format
    effect, outcome_name = ate_row["effect"], isolate_name(arm_result.outcome)
    interval_text = effect_format.format_interval(ate_row["ci_low"], ate_row["ci_high"])
    interval_phrase = f"({format_interval_probability(arm_result.question.ci_prob)} interval {interval_text})"
    if not arm_result.control:
        # Published estimates may be of any contrast: "raised" and "lowered" would say too much.
        outcome_phrase = "" if arm_result.outcome == "effect" else f" on {outcome_name}"
        effect_text = f"{effect_format.format_signed(effect)}{effect_format.unit_phrase}"
        effect_clause = f"On average the effect{outcome_phrase} is {effect_text} {interval_phrase}"
    else:
        change_phrase = f"{'raised' if effect > 0 else 'lowered'} {outcome_name}"
        effect_text = effect_format.format_magnitude(effect)
        effect_clause = f"On average {isolate_name(arm_result.arm)} {change_phrase} by {effect_text} {interval_phrase}"
    # Certainty about a sign that is not that of the mean would mislead.
    if arm_result.mean_change is not None and arm_result.mean_change.is_opposite:
        return f"{effect_clause}, if segments’ own effects are averaged; but the mean of all units went the other way."
    return f"{effect_clause}; {_phrase_certainty(arm_result)}."


def _phrase_certainty(arm_result: ArmResult) -> str:
    # Help and harm are signs of the effect only once it is known which direction is better.
    p_helps, p_harms = arm_result.ate_row["p_positive"], arm_result.ate_row["p_negative"]
    if not arm_result.question.higher_is_better:
        p_helps, p_harms = p_harms, p_helps
    likelier_verb, likelier_probability = ("help", p_helps) if p_helps >= p_harms else ("harm", p_harms)
    # A rule may ask for more than what rounds to certainty.
    is_called = arm_result.rule.calls(likelier_probability)
    if is_called and likelier_probability >= ALMOST_CERTAIN_PROBABILITY:
        return f"it is almost certain to {likelier_verb} ({state_probability(likelier_probability)})"
    if is_called:
        return f"it very probably {likelier_verb}s ({state_probability(likelier_probability)})"
    if likelier_probability > TENDENCY_PROBABILITY:
        return f"it probably {likelier_verb}s, but that is not settled ({state_probability(likelier_probability)})"
    return (
        f"whether it helps or harms is not known (it {likelier_verb}s with {state_probability(likelier_probability)})"
    )


def write_segments_sentence(arm_result: ArmResult) -> str:
    """Write in how many segments the sign is known, and which way."""
    segment_count = len(arm_result.readings)
    if segment_count == 1:
        return "There is one segment and nothing to compare it with: the average is its effect."
    if arm_result.pooling == "complete":
        return (
            f"The model assumes one common effect for all {segment_count} segments: "
            "it answers for everyone together and cannot tell one segment from another."
        )
    helped_labels, harmed_labels = arm_result.select_labels("helps"), arm_result.select_labels("harms")
    unknown_labels, untested_labels = arm_result.select_labels("not known"), arm_result.select_labels("not tested")
    clauses = [_phrase_helped(len(helped_labels), segment_count, arm_result.rule), _phrase_harmed(harmed_labels)]
    if unknown_labels:
        clauses.append(f"in {len(unknown_labels)} the sign is not known: {join_names(unknown_labels)}")
    if untested_labels:
        clauses.append(
            f"{len(untested_labels)} could not be tested, because an arm is missing: {join_names(untested_labels)}"
        )
    return "; ".join(clauses) + "."


def _phrase_helped(helped_count: int, segment_count: int, rule: VerdictRule) -> str:
    certainty_phrase = f"clearly ({write_call_criterion(rule)})"
    if helped_count == 0:
        return f"It helps {certainty_phrase} in none of the {segment_count} segments"
    share_phrase = "all" if helped_count == segment_count else f"{helped_count} of"
    return f"It helps {certainty_phrase} in {share_phrase} {segment_count} segments"


def _phrase_harmed(harmed_labels: list[str]) -> str:
    if not harmed_labels:
        return "none is clearly harmed"
    return f"it clearly harms in {len(harmed_labels)}: {join_names(harmed_labels)}"


def write_notes(arm_result: ArmResult) -> list[str]:
    """Write what must be kept in mind with the two sentences."""
    candidate_notes = [
        _write_scale_note(arm_result),
        _write_differences_note(arm_result),
        _write_borrowing_note(arm_result),
        _write_wrong_signs_note(arm_result),
        _write_rope_note(arm_result),
    ]
    return [note for note in candidate_notes if note]


def _write_scale_note(arm_result: ArmResult) -> str:
    """Warn where the average of segments' ratios points another way than the mean of all units."""
    mean_change = arm_result.mean_change
    if mean_change is None or not mean_change.is_opposite:
        return ""
    return (
        "Mind the scale: the average of the segments’ own effects and the change in the mean of all units have "
        "opposite signs. The latter, which is what happens if everyone gets the treatment, is "
        f"{mean_change.change_text} ({mean_change.sign_text})."
    )


def _write_differences_note(arm_result: ArmResult) -> str:
    if len(arm_result.readings) < 2 or arm_result.pooling == "complete":
        return ""
    if arm_result.pooling == "none":
        return (
            "Segments were not pooled: each stands alone, and the largest and smallest effects among them "
            "are exaggerated by chance."
        )
    question, effect_format = arm_result.question, arm_result.effect_format
    helped_quantity = "p_all_positive" if question.higher_is_better else "p_all_negative"
    p_all_helped = arm_result.heterogeneity[helped_quantity]["value"]
    if distinct_segments := arm_result.distinct_segments:
        differ_phrase = f"clearly {'differs' if len(distinct_segments) == 1 else 'differ'} from the average"
        first_sentence = (
            f"{len(distinct_segments)} of {len(arm_result.readings)} segments {differ_phrase} "
            f"({write_call_criterion(arm_result.rule)}): {join_names(distinct_segments)}."
        )
    else:
        first_sentence = "No segment clearly differs from the average; that is not proof that they are all alike."
    spread_row = arm_result.heterogeneity["spread"]
    interval_text = effect_format.format_interval(spread_row["ci_low"], spread_row["ci_high"])
    return (
        f"{first_sentence} True effects differ between segments with an SD of "
        f"{effect_format.format_magnitude(spread_row['value'])} ({format_interval_probability(question.ci_prob)} "
        f"interval {interval_text}); the probability that it helps in every segment is "
        f"{format_percent_probability(p_all_helped)}."
    )


def _write_borrowing_note(arm_result: ArmResult) -> str:
    mostly_borrowed = [reading for reading in arm_result.readings if arm_result.is_mostly_borrowed(reading)]
    if not mostly_borrowed:
        return ""
    # A list of all segments would say less than "every".
    if len(mostly_borrowed) == len(arm_result.readings) and len(mostly_borrowed) > 1:
        estimate_phrase = "Every segment's estimate is"
    else:
        estimate_phrase = f"In {join_names([reading.segment_label for reading in mostly_borrowed])} the estimate is"
    called_count = sum(reading.is_called for reading in mostly_borrowed)
    borrowing_sentence = (
        f"{estimate_phrase} mostly borrowed from the others (pooling factor above {arm_result.rule.max_pooling:g}): "
        "hardly tested on its own."
    )
    if not called_count:
        return borrowing_sentence
    called_phrase = write_count(called_count, "sign called above rests", "signs called above rest")
    return f"{borrowing_sentence} {called_phrase} on that."


def _write_wrong_signs_note(arm_result: ArmResult) -> str:
    # With one common effect all signs are right or wrong together: a share of them says nothing.
    called_segments = [reading for reading in arm_result.readings if reading.is_called]
    if arm_result.pooling == "complete" or len(arm_result.readings) == 1:
        return ""
    if not called_segments:
        return "No sign is called, so none can be wrong."
    expected_wrong_share = compute_false_sign_rate(pd.DataFrame([reading.table_row for reading in called_segments]))
    called_phrase = write_count(len(called_segments), "sign", "signs")
    return (
        f"Of the {called_phrase} called, {format_percent_probability(expected_wrong_share)} are expected to be wrong "
        "(the mean local false sign rate)."
    )


def _write_rope_note(arm_result: ArmResult) -> str:
    smallest_effect = arm_result.question.rope
    if smallest_effect is None:
        return ""
    tested_rows = [reading.table_row for reading in arm_result.readings if reading.is_tested]
    benefit_count = sum(arm_result.rule.calls(row["p_benefit"]) for row in tested_rows)
    too_small_count = sum(arm_result.rule.calls(row["p_rope"]) for row in tested_rows)
    return (
        f"The smallest effect that matters is {format_rope(arm_result, smallest_effect)}: a larger benefit is clear in "
        f"{benefit_count} of {len(arm_result.readings)}, and in {too_small_count or 'none'} the effect is clearly too "
        "small to matter."
    )


def format_rope(arm_result: ArmResult, smallest_effect: float) -> str:
    """Write the smallest effect that matters with the digits in which it was stated."""
    effect_format = arm_result.effect_format
    rope_text = f"{effect_format.display_factor * smallest_effect:.3g}{effect_format.unit_phrase}"
    # The one unit whose plural is written here; others are words of the plan.
    return "1 percentage point" if rope_text == "1 percentage points" else rope_text
