"""The answer for one arm: two plain sentences, and what must be kept in mind with them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pandas as pd

from bayes_hte.report.notation import NBSP, Measure, counted, listing, name, p_is, percent, probability
from bayes_hte.spec.model import Pooling
from bayes_hte.summary import Question

CALL: Final = 0.95
"""A sign is called where its probability is above this: the convention that readers bring."""
CALLED: Final = f"P{NBSP}>{NBSP}{percent(CALL)}"
ALMOST_CERTAIN: Final = 0.995
PROBABLE: Final = 0.8
"""Below this the average is not worth a tendency: one in five would be wrong."""
BORROWED: Final = 0.8
"""Above this share of the estimate comes from the other segments, the segment itself was hardly tested."""

Verdict = Literal["helps", "harms", "not known", "not tested"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One row of the table with what is concluded from it."""

    label: str
    row: dict[str, Any]
    tested: bool
    verdict: Verdict

    @property
    def called(self) -> bool:
        """Whether the sign is called."""
        return self.verdict in ("helps", "harms")

    @property
    def wrong(self) -> float:
        """The probability that the sign that would be called is wrong."""
        return float(min(self.row["p_positive"], self.row["p_negative"]))


@dataclass(frozen=True, slots=True)
class Overall:
    """By how much the mean of all units changes, where effects are reported on another scale.

    Attributes
    ----------
    words : str
        The absolute average effect with its unit.
    surely : str
        Which sign it has, and how probable that is.
    opposite : bool
        Whether it has the other sign than the average of the segments' effects.
    """

    words: str
    surely: str
    opposite: bool


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one arm.

    Attributes
    ----------
    arm, control, outcome : str
        Names; the control is "" for published estimates.
    segments : tuple of Segment
    ate : dict
        The row of `summary.ate`.
    spread : dict
        Quantities of `summary.heterogeneity` by name.
    distinct : tuple of str
        Segments whose effect differs from the average with a probability above `CALL`.
    pooling : str
    question : Question
    measure : Measure
    overall : Overall, optional
        Absent on the absolute scale, which says it already.
    """

    arm: str
    control: str
    outcome: str
    segments: tuple[Segment, ...]
    ate: dict[str, Any]
    spread: dict[str, dict[str, Any]]
    distinct: tuple[str, ...]
    pooling: Pooling
    question: Question
    measure: Measure
    overall: Overall | None = None

    def labels(self, verdict: Verdict) -> list[str]:
        """The segments with a verdict."""
        return [segment.label for segment in self.segments if segment.verdict == verdict]


def read(rows: pd.DataFrame, labels: Sequence[str], tested: Sequence[bool], question: Question) -> tuple[Segment, ...]:
    """One arm's rows of the table with a verdict each; a segment without an arm never wins."""
    found = []
    for row, label, own in zip(rows.to_dict("records"), labels, tested, strict=True):
        values = {str(key): value for key, value in row.items()}
        found.append(Segment(label, values, own, _verdict(values, question) if own else "not tested"))
    return tuple(found)


def _verdict(row: dict[str, Any], question: Question) -> Verdict:
    up: Verdict = "helps" if question.higher_is_better else "harms"
    down: Verdict = "harms" if question.higher_is_better else "helps"
    if row["p_positive"] > CALL:
        return up
    return down if row["p_negative"] > CALL else "not known"


def average_sentence(case: Case) -> str:
    """What the arm does on average, and how sure that is."""
    row, measure = case.ate, case.measure
    effect = row["effect"]
    within = f"{percent(case.question.ci_prob)} interval {measure.interval(row['ci_low'], row['ci_high'])}"
    if not case.control:
        of = "" if case.outcome == "effect" else f" on {name(case.outcome)}"
        what = f"On average the effect{of} is {measure.signed(effect)}{measure.words} ({within})"
    else:
        did = "raised" if effect > 0 else "lowered"
        what = f"On average {name(case.arm)} {did} {name(case.outcome)} by {measure.size(effect)} ({within})"
    if case.overall is not None and case.overall.opposite:
        return f"{what}, if segments’ own effects are averaged; but the mean of all units went the other way."
    return f"{what}; {_sureness(row, case.question)}."


def _sureness(row: dict[str, Any], question: Question) -> str:
    helps = row["p_positive"] if question.higher_is_better else row["p_negative"]
    harms = row["p_negative"] if question.higher_is_better else row["p_positive"]
    verb, chance = ("help", helps) if helps >= harms else ("harm", harms)
    if chance >= ALMOST_CERTAIN:
        return f"it is almost certain to {verb} ({p_is(chance)})"
    if chance > CALL:
        return f"it very probably {verb}s ({p_is(chance)})"
    if chance > PROBABLE:
        return f"it probably {verb}s, but that is not settled ({p_is(chance)})"
    return f"whether it helps or harms is not known (it {verb}s with {p_is(chance)})"


def segments_sentence(case: Case) -> str:
    """In how many segments the sign is known, and which way."""
    total = len(case.segments)
    if total == 1:
        return "There is one segment and nothing to compare it with: the average is its effect."
    if case.pooling == "complete":
        return (
            f"The model assumes one common effect for all {total} segments: "
            "it answers for everyone together and cannot tell one segment from another."
        )
    helps, harms = case.labels("helps"), case.labels("harms")
    unknown, untested = case.labels("not known"), case.labels("not tested")
    parts = [_helped(len(helps), total), _harmed(harms)]
    if unknown:
        parts.append(f"in {len(unknown)} the sign is not known: {listing(unknown)}")
    if untested:
        parts.append(f"{len(untested)} could not be tested, because an arm is missing: {listing(untested)}")
    return "; ".join(parts) + "."


def _helped(count: int, total: int) -> str:
    sure = f"clearly ({CALLED})"
    if count == 0:
        return f"It helps {sure} in none of the {total} segments"
    return f"It helps {sure} in {'all' if count == total else f'{count} of'} {total} segments"


def _harmed(labels: list[str]) -> str:
    if not labels:
        return "none is clearly harmed"
    return f"it clearly harms in {len(labels)}: {listing(labels)}"


def notes(case: Case) -> list[str]:
    """What must be kept in mind with the two sentences."""
    found = [_overall(case), _difference(case), _borrowed(case), _wrong_signs(case), _rope(case)]
    return [text for text in found if text]


def _overall(case: Case) -> str:
    """Ratios of small segments may point another way than the mean of all units."""
    if case.overall is None or not case.overall.opposite:
        return ""
    return (
        "Mind the scale: the average of the segments’ own effects and the change in the mean of all units have "
        f"opposite signs. The latter, which is what happens if everyone gets the treatment, is {case.overall.words} "
        f"({case.overall.surely})."
    )


def _difference(case: Case) -> str:
    if len(case.segments) < 2 or case.pooling == "complete":
        return ""
    if case.pooling == "none":
        return (
            "Segments were not pooled: each stands alone, and the largest and smallest effects among them "
            "are exaggerated by chance."
        )
    every = case.spread["p_all_positive" if case.question.higher_is_better else "p_all_negative"]["value"]
    spread = case.spread["spread"]
    if case.distinct:
        verb = "differs" if len(case.distinct) == 1 else "differ"
        count = f"{len(case.distinct)} of {len(case.segments)} segments"
        first = f"{count} clearly {verb} from the average ({CALLED}): {listing(case.distinct)}."
    else:
        first = "No segment clearly differs from the average; that is not proof that they are all alike."
    return (
        f"{first} True effects differ between segments with an SD of {case.measure.size(spread['value'])} "
        f"({percent(case.question.ci_prob)} interval "
        f"{case.measure.interval(spread['ci_low'], spread['ci_high'])}); the probability that it helps in every "
        f"segment is {probability(every)}."
    )


def _borrowed(case: Case) -> str:
    if case.pooling != "partial":
        return ""
    few = [segment for segment in case.segments if segment.tested and segment.row["pooling"] > BORROWED]
    if not few:
        return ""
    if len(few) == len(case.segments) and len(few) > 1:
        where = "Every segment's estimate is"
    else:
        where = f"In {listing([segment.label for segment in few])} the estimate is"
    called = sum(segment.called for segment in few)
    text = f"{where} mostly borrowed from the others (pooling factor above {BORROWED:g}): hardly tested on its own."
    if not called:
        return text
    return f"{text} {counted(called, 'sign called above rests', 'signs called above rest')} on that."


def _wrong_signs(case: Case) -> str:
    called = [segment for segment in case.segments if segment.called]
    if case.pooling == "complete" or len(case.segments) == 1:
        return ""
    if not called:
        return "No sign is called, so none can be wrong."
    wrong = expected_wrong(called)
    signs = counted(len(called), "sign", "signs")
    return f"Of the {signs} called, {probability(wrong)} are expected to be wrong (the mean local false sign rate)."


def expected_wrong(called: Sequence[Segment]) -> float:
    """Expected share of wrong signs among the segments called: the mean of their local false sign rates."""
    return sum(segment.wrong for segment in called) / len(called) if called else math.nan


def _rope(case: Case) -> str:
    rope = case.question.rope
    if rope is None:
        return ""
    matters = [segment.label for segment in case.segments if segment.tested and segment.row["p_benefit"] > CALL]
    small = [segment.label for segment in case.segments if segment.tested and segment.row["p_rope"] > CALL]
    total = len(case.segments)
    text = f"The smallest effect that matters is {declared(case, rope)}: a larger benefit is clear in {len(matters)}"
    return f"{text} of {total}, and in {len(small) or 'none'} the effect is clearly too small to matter."


def declared(case: Case, rope: float) -> str:
    """The smallest effect that matters, as it was stated."""
    written = f"{case.measure.factor * rope:.3g}{case.measure.words}"
    return "1 percentage point" if written == "1 percentage points" else written
