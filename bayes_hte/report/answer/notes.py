"""What must be kept in mind with the answer for one arm: scale, differences, borrowing, wrong signs, sizes."""

import pandas as pd

from bayes_hte._support.phrases import NBSP, format_percent_probability, write_count
from bayes_hte.decisions.verdicts import (
    MAX_PULL_SE,
    compute_false_sign_rate,
    compute_interval_call_prob,
    holds_zero_against_sign,
    is_pulled_in,
)
from bayes_hte.report.answer.sentences import write_call_criterion
from bayes_hte.report.arm_results import ArmResult
from bayes_hte.report.notation import format_interval_probability, join_names

AVERAGE_NAME = "the average"
"""The average effect, among names of segments."""


def write_notes(arm_result: ArmResult) -> list[str]:
    """Write what must be kept in mind with the two sentences."""
    candidate_notes = [
        _write_scale_note(arm_result),
        arm_result.dependence,
        _write_rope_note(arm_result),
        _write_one_sided_note(arm_result),
        _write_differences_note(arm_result),
        _write_borrowing_note(arm_result),
        _write_pulled_in_note(arm_result),
        _write_wrong_signs_note(arm_result),
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


def _write_rope_note(arm_result: ArmResult) -> str:
    smallest_effect = arm_result.question.rope
    if smallest_effect is None:
        return ""
    words = "“Helps” and “harms”" if arm_result.direction_is_known else "“Raises” and “lowers”"
    rope_text = format_rope(arm_result, smallest_effect)
    return f"The smallest effect that matters is {rope_text}. {words} mean by more than that."


def format_rope(arm_result: ArmResult, smallest_effect: float) -> str:
    """Write the smallest effect that matters with the digits in which it was stated."""
    effect_format = arm_result.effect_format
    rope_text = f"{effect_format.display_factor * smallest_effect:.3g}{effect_format.unit_phrase}"
    # The one unit whose plural is written here; others are words of the plan.
    return "1 percentage point" if rope_text == "1 percentage points" else rope_text


def _write_one_sided_note(arm_result: ArmResult) -> str:
    """Explain, once, why a sign can be more probable than the interval, and the interval hold 0 all the same."""
    ci_prob = arm_result.question.ci_prob
    rows_by_name = {reading.segment_label: reading.table_row for reading in arm_result.readings if reading.is_tested}
    if len(arm_result.readings) > 1:
        rows_by_name[AVERAGE_NAME] = arm_result.ate_row
    names = [name for name, row in rows_by_name.items() if holds_zero_against_sign(row, ci_prob)]
    if not names:
        return ""
    interval_name = f"{format_interval_probability(ci_prob)} interval"
    tail_text = format_interval_probability((1 - ci_prob) / 2)
    zero_text = format_interval_probability(compute_interval_call_prob(ci_prob))
    note = (
        f"In {join_names(names)} one sign has P{NBSP}>{NBSP}{format_interval_probability(ci_prob)} and the "
        f"{interval_name} still holds 0. That is no contradiction: P counts one side of 0, the interval leaves out "
        f"{tail_text} on each side, so that it leaves 0 out only from P{NBSP}>{NBSP}{zero_text} on."
    )
    if arm_result.rule.call_prob >= compute_interval_call_prob(ci_prob):
        return note
    return f"{note} The plan calls a sign from {write_call_criterion(arm_result.rule)} on."


def _write_differences_note(arm_result: ArmResult) -> str:
    if len(arm_result.readings) < 2 or arm_result.pooling == "complete":
        return ""
    if arm_result.pooling == "none":
        return (
            "Segments were not pooled: each stands alone, and the largest and smallest effects among them "
            "are exaggerated by chance."
        )
    if distinct_segments := arm_result.distinct_segments:
        differ_phrase = f"clearly {'differs' if len(distinct_segments) == 1 else 'differ'} from the average"
        first_sentence = (
            f"{len(distinct_segments)} of {len(arm_result.readings)} segments {differ_phrase} "
            f"({write_call_criterion(arm_result.rule)}): {join_names(distinct_segments)}."
        )
    else:
        first_sentence = "No segment clearly differs from the average; that is not proof that they are all alike."
    return f"{first_sentence} {_write_spread_sentence(arm_result)}"


def _write_spread_sentence(arm_result: ArmResult) -> str:
    question, effect_format = arm_result.question, arm_result.effect_format
    all_better_name = "p_all_positive" if question.higher_is_better else "p_all_negative"
    p_all_better = arm_result.heterogeneity[all_better_name]["value"]
    spread_row = arm_result.heterogeneity["spread"]
    interval_text = effect_format.format_interval(spread_row["ci_low"], spread_row["ci_high"])
    every_segment_phrase = (
        "it is better in every segment" if arm_result.direction_is_known else "it is above zero in every segment"
    )
    return (
        f"True effects differ between segments with an SD of {effect_format.format_magnitude(spread_row['value'])} "
        f"({format_interval_probability(question.ci_prob)} interval {interval_text}); the probability that "
        f"{every_segment_phrase} is {format_percent_probability(p_all_better)}."
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


def _write_pulled_in_note(arm_result: ArmResult) -> str:
    """Warn of segments whose own estimate the model moved far: a true exception would look the same."""
    pulled_labels = [
        reading.segment_label
        for reading in arm_result.readings
        if arm_result.is_mostly_borrowed(reading) and is_pulled_in(reading.table_row)
    ]
    if not pulled_labels:
        return ""
    is_single = len(pulled_labels) == 1
    return (
        f"In {join_names(pulled_labels)} the segment’s own estimate lies more than {MAX_PULL_SE:g} standard errors "
        f"from the pooled one: if {'it is a true exception' if is_single else 'they are true exceptions'}, the pooled "
        f"{'interval misses it' if is_single else 'intervals miss them'}. Look at the raw "
        f"{'estimate' if is_single else 'estimates'}, test there again, or take a model with heavy tails "
        "(shape = student_t)."
    )


def _write_wrong_signs_note(arm_result: ArmResult) -> str:
    # With one common effect all signs are right or wrong together: a share of them says nothing.
    called_segments = [reading for reading in arm_result.readings if reading.is_called]
    if arm_result.pooling == "complete" or len(arm_result.readings) == 1:
        return ""
    if not called_segments:
        return "No sign is called, so none can be wrong."
    expected_wrong_share = compute_false_sign_rate(pd.DataFrame([reading.table_row for reading in called_segments]))
    share_text = format_percent_probability(expected_wrong_share)
    if len(called_segments) == 1:
        return f"One sign is called; the probability that it is wrong is {share_text} (its local false sign rate)."
    return (
        f"{len(called_segments)} signs are called, of which {share_text} are expected to be wrong "
        "(the mean local false sign rate)."
    )
