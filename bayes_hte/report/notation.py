"""Write numbers and names in the report's sentences: digits as in the figures, probabilities never 0 or 1."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bayes_hte._support.phrases import (
    NBSP,
    choose_decimals,
    clean_text,
    format_interval,
    format_number,
    format_percent_probability,
    format_percentage,
    shorten_text,
)
from bayes_hte.model.families import Family
from bayes_hte.spec.cell_table import EffectScale

LEVEL_SEPARATOR = "·"
"""Stands between the levels of a segment's name; a line may end with it, not start."""
MAX_LISTED_NAMES = 5
"""Names that a sentence lists before it counts the others: more are not read, and the table has them all."""


@dataclass(frozen=True, slots=True)
class EffectFormat:
    """Digits and units in which the effects of one arm are written.

    Attributes
    ----------
    display_factor : float
        100 where effects are shown in percent or percentage points.
    decimal_places : int
    unit_phrase : str
        Unit after a number in a sentence, with the space before it.
    column_heading : str
        Unit at the head of a column.
    """

    display_factor: float
    decimal_places: int
    unit_phrase: str
    column_heading: str

    def format_signed(self, effect: float) -> str:
        """Write an effect with its sign: ``+4.5``, ``−0.3``."""
        return format_number(self.display_factor * effect, self.decimal_places)

    def format_unsigned(self, effect: float) -> str:
        """Write an effect without a plus sign: ``4.5``, ``−0.3``."""
        return format_number(self.display_factor * effect, self.decimal_places, sign=False)

    def format_magnitude(self, effect: float) -> str:
        """Write the absolute value of an effect with its unit: ``4.5 percentage points``."""
        return f"{self.format_unsigned(abs(effect))}{self.unit_phrase}"

    def format_interval(self, lower_bound: float, upper_bound: float, *, with_sign: bool = False) -> str:
        """Write the ends of an interval, with the digits that show their sides of 0: ``3.9 to 5.1``."""
        factor = self.display_factor
        return format_interval(factor * lower_bound, factor * upper_bound, self.decimal_places, sign=with_sign)

    def format_change(self, lower_bound: float, upper_bound: float) -> str:
        """Write an interval of changes after "raised by" or "lowered by".

        One that lies on one side of 0 is written without signs, the end nearer to 0 first: ``3.9 to 5.1``.
        """
        if lower_bound > 0 or upper_bound < 0:
            return self.format_interval(*sorted((abs(lower_bound), abs(upper_bound))))
        return self.format_interval(lower_bound, upper_bound, with_sign=True)


def choose_effect_format(
    family: Family, scale: EffectScale, outcome_unit: str, interval_widths: Iterable[float]
) -> EffectFormat:
    """Choose factor, digits and unit of effects on a scale; narrow intervals make more digits mean something."""
    outcome_unit = clean_text(outcome_unit)
    # Probabilities are shown in percentage points, ratios as their logarithm, all else in the outcome's unit.
    match scale:
        case "relative":
            factor, phrase, heading = (100.0, " % relative to the control", "% relative to the control")
        case "absolute" if family.mean_is_probability:
            factor, phrase, heading = 100.0, " percentage points", "percentage points"
        case "link" if family.ratio_name:
            factor, phrase, heading = (1.0, f" in {name_link_scale(family)}", f"log {family.ratio_name}")
        case _:
            factor, phrase, heading = 1.0, f" {outcome_unit}" if outcome_unit else "", outcome_unit
    return EffectFormat(
        factor, choose_decimals(factor * interval_width for interval_width in interval_widths), phrase, heading
    )


def name_link_scale(family: Family) -> str:
    """Name the link scale of a family in a sentence; give "" where it is the scale of the outcome."""
    if not family.ratio_name:
        return ""
    return "log-odds" if family.ratio_name == "odds ratio" else f"the log {family.ratio_name}"


def format_interval_probability(interval_probability: float) -> str:
    """Write the probability of an interval, which no line break divides: ``95 %``."""
    return format_percentage(interval_probability).replace(" ", NBSP)


def state_probability(probability: float) -> str:
    """State a probability as an equation or a bound: ``P = 57.1 %``, ``P > 99.9 %``."""
    probability_text = format_percent_probability(probability)
    return f"P{NBSP}{probability_text}" if probability_text[0] in "<>" else f"P{NBSP}={NBSP}{probability_text}"


def isolate_name(name_from_data: str) -> str:
    """Make a name from data safe inside a sentence: printable, short, and unable to turn the sentence around."""
    return isolate_text(shorten_text(name_from_data).replace(f" {LEVEL_SEPARATOR}", f"{NBSP}{LEVEL_SEPARATOR}"))


def isolate_text(printable_text: str) -> str:
    """Keep a printable text with names from data from turning around the sentence that it stands in."""
    is_right_to_left = any(unicodedata.bidirectional(character) in {"R", "AL", "AN"} for character in printable_text)
    # FIRST STRONG ISOLATE … POP DIRECTIONAL ISOLATE: without it, Arabic letters reorder the numbers after them.
    return f"\u2068{printable_text}\u2069" if is_right_to_left else printable_text


def quote_outcome(outcome: str) -> str:
    """Quote what was measured, so that a sentence reads well whatever its name is: raised “converted” by 2 points.

    Of survival the time stays outside, as it is not part of the name: ``“event” within 30``.
    """
    name, within, horizon = outcome.partition(" within ")
    return f"“{isolate_name(name)}”{within}{horizon}"


def join_names(names_from_data: Sequence[str]) -> str:
    """Join names to ``a, b and c``; after a few of them, count the others.

    Examples
    --------
    >>> join_names(["a", "b", "c"]), join_names(list("abcdefgh"))
    ('a, b and c', 'a, b, c, d, e and 3 more')
    """
    isolated_names = [isolate_name(name) for name in names_from_data]
    # "and 1 more" is as long as the name it hides.
    if len(isolated_names) > MAX_LISTED_NAMES + 1:
        return f"{', '.join(isolated_names[:MAX_LISTED_NAMES])} and {len(isolated_names) - MAX_LISTED_NAMES} more"
    return " and ".join(part for part in (", ".join(isolated_names[:-1]), isolated_names[-1]) if part)
