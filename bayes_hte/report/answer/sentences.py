"""The answer for one arm in two plain sentences: what it does on average, and in which segments something is known."""

from typing import Final

from bayes_hte._support.phrases import NBSP
from bayes_hte.decisions.verdicts import Verdict, VerdictRule
from bayes_hte.report.arm_results import ArmResult
from bayes_hte.report.notation import (
    format_interval_probability,
    isolate_name,
    join_names,
    quote_outcome,
    state_probability,
)

ALMOST_CERTAIN_PROBABILITY: Final = 0.995  # what rounds to "P = 100 %" in whole percent
TENDENCY_PROBABILITY: Final = 0.8
"""Below this the average is not worth a tendency: one in five would be wrong."""


def write_call_criterion(rule: VerdictRule) -> str:
    """Write what "clearly" means: ``P > 97.5 %``."""
    return f"P{NBSP}>{NBSP}{format_interval_probability(rule.call_prob)}"


def write_average_sentence(arm_result: ArmResult) -> str:
    """Write what the arm does on average, and how sure that is."""
    ate_row, effect_format = arm_result.ate_row, arm_result.effect_format
    effect, low, high = (ate_row[name] for name in ("effect", "ci_low", "ci_high"))
    interval_probability = format_interval_probability(arm_result.question.ci_prob)
    if not arm_result.control:
        # Published estimates may be of any contrast: "raised" and "lowered" would say too much.
        outcome_phrase = "" if arm_result.outcome == "effect" else f" on {quote_outcome(arm_result.outcome)}"
        effect_text = f"{effect_format.format_signed(effect)}{effect_format.unit_phrase}"
        interval_text = effect_format.format_interval(low, high, with_sign=True)
        effect_clause = f"{_phrase_scope(arm_result)} the effect{outcome_phrase} is {effect_text}"
    else:
        verb, arm_name = "raised" if effect > 0 else "lowered", isolate_name(arm_result.arm)
        effect_text = effect_format.format_magnitude(effect)
        interval_text = effect_format.format_change(low, high)
        effect_clause = (
            f"{_phrase_scope(arm_result)} {arm_name} {verb} {quote_outcome(arm_result.outcome)} by {effect_text}"
        )
    effect_clause = f"{effect_clause} ({interval_probability} interval {interval_text})"
    # Certainty about a sign that is not that of the mean would mislead.
    if arm_result.mean_change is not None and arm_result.mean_change.is_opposite:
        return f"{effect_clause}, if segments’ own effects are averaged; but the mean of all units went the other way."
    return f"{effect_clause}; {_phrase_certainty(arm_result)}."


def _phrase_scope(arm_result: ArmResult) -> str:
    """Phrase whose average the first sentence is of, and that a relative one is of the total."""
    is_of_total = arm_result.question.scale == "relative" and arm_result.average_kind.startswith("change in the mean")
    return f"Over all {arm_result.population} together," if is_of_total else f"On average over {arm_result.population},"


def _phrase_certainty(arm_result: ArmResult) -> str:
    """Phrase the verdict on the average with its probability, in the words of `bayes_hte.decisions.verdicts`."""
    sides, verdict = arm_result.ate_sides, arm_result.ate_verdict
    better_verb, worse_verb = ("help", "harm") if arm_result.direction_is_known else ("raise it", "lower it")
    # The likelier side speaks.
    is_better = sides.better >= sides.worse
    verb = better_verb if is_better else worse_verb
    p_matters, p_side = (sides.benefit, sides.better) if is_better else (sides.harm, sides.worse)
    match verdict:
        case "helps" | "harms" | "raises" | "lowers":
            size_phrase = "" if arm_result.question.rope is None else " by enough to matter"
            certainty = state_probability(p_matters)
            if p_matters >= ALMOST_CERTAIN_PROBABILITY:
                return f"it is almost certain to {verb}{size_phrase} ({certainty})"
            return f"it very probably {_conjugate(verb)}{size_phrase} ({certainty})"
        case "too small":
            return f"that is clearly too small to matter ({state_probability(sides.too_small)})"
        case "not known" | "not tested":
            if p_side > TENDENCY_PROBABILITY:
                return f"it probably {_conjugate(verb)}, but that is not settled ({state_probability(p_side)})"
            whether_phrase = f"{_conjugate(better_verb)} or {_conjugate(worse_verb)}"
            return f"whether it {whether_phrase} is not known (it {_conjugate(verb)} with {state_probability(p_side)})"
        case _:  # the sign alone
            return (
                f"it is clearly {verdict} ({state_probability(p_side)}), but perhaps by too little to matter "
                f"({state_probability(sides.too_small)})"
            )


def _conjugate(verb_phrase: str) -> str:
    """Put a verb into the third person: ``raise it`` is ``raises it``."""
    verb, _, object_phrase = verb_phrase.partition(" ")
    return f"{verb}s {object_phrase}".rstrip()


def write_segments_sentence(arm_result: ArmResult) -> str:
    """Write in which segments something is known, and what."""
    segment_count = len(arm_result.readings)
    if segment_count == 1:
        return "There is one segment and nothing to compare it with: the average is its effect."
    if arm_result.pooling == "complete":
        return (
            f"The model assumes one common effect for all {segment_count} segments: "
            "it answers for everyone together and cannot tell one segment from another."
        )
    lead_clauses = _phrase_judged(arm_result) if arm_result.direction_is_known else _phrase_directions(arm_result)
    other_clauses = [
        f"in {len(labels)} {description}: {join_names(labels)}"
        for verdict, description in _OTHER_VERDICTS.items()
        if (labels := arm_result.select_labels(verdict))
    ]
    return "; ".join(lead_clauses + other_clauses) + "."


_OTHER_VERDICTS: Final[dict[Verdict, str]] = {
    "better": "it is clearly better, but perhaps by too little to matter",
    "worse": "it is clearly worse, but perhaps by too little to matter",
    "above 0": "the effect is clearly above zero, but perhaps too small to matter",
    "below 0": "the effect is clearly below zero, but perhaps too small to matter",
    "too small": "the effect is clearly too small to matter",
    "not known": "the sign is not known",
    "not tested": "nothing could be tested, because an arm is missing",
}
"""What is said of the segments with a verdict that does not open the sentence, in the order in which it is said."""


def _phrase_judged(arm_result: ArmResult) -> list[str]:
    """Phrase where the arm helps and where it harms."""
    harmed_labels = arm_result.select_labels("harms")
    harmed_clause = (
        f"it clearly harms in {len(harmed_labels)}: {join_names(harmed_labels)}"
        if harmed_labels
        else "none is clearly harmed"
    )
    return [_phrase_lead(arm_result, "helps", "helps"), harmed_clause]


def _phrase_directions(arm_result: ArmResult) -> list[str]:
    """Phrase where the arm raises and where it lowers the outcome: first what it does in more segments."""
    counts = {verdict: len(arm_result.select_labels(verdict)) for verdict in _DIRECTION_VERDICTS}
    first, second = sorted(_DIRECTION_VERDICTS, key=lambda verdict: -counts[verdict])
    second_labels = arm_result.select_labels(second)
    lead_clause = _phrase_lead(arm_result, first, f"{first} {quote_outcome(arm_result.outcome)}")
    if not second_labels:
        return [lead_clause]
    return [lead_clause, f"it clearly {second} it in {len(second_labels)}: {join_names(second_labels)}"]


_DIRECTION_VERDICTS: Final[tuple[Verdict, Verdict]] = ("raises", "lowers")


def _phrase_lead(arm_result: ArmResult, verdict: Verdict, verb_phrase: str) -> str:
    labels, segment_count = arm_result.select_labels(verdict), len(arm_result.readings)
    # "Clearly" is explained where it stands first.
    size_phrase = "" if arm_result.question.rope is None else ", by enough to matter"
    lead_phrase = f"It clearly {verb_phrase} ({write_call_criterion(arm_result.rule)}{size_phrase})"
    if not labels:
        return f"{lead_phrase} in none of the {segment_count} segments"
    # A list of all segments would say less than "all".
    if len(labels) == segment_count:
        return f"{lead_phrase} in all {segment_count} segments"
    return f"{lead_phrase} in {len(labels)} of {segment_count} segments: {join_names(labels)}"
