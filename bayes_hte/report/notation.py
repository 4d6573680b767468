"""Write numbers and names in the report's sentences: digits as in the figures, probabilities never 0 or 1."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bayes_hte._support.phrases import (
    UNKNOWN_TEXT,
    choose_decimals,
    clean_text,
    format_number,
    format_percentage,
    shorten_text,
)
from bayes_hte.model.families import Family
from bayes_hte.spec.cell_table import EffectScale

# Between a number and its unit, so that no line begins with "%".
NBSP = "\N{NO-BREAK SPACE}"
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
        """Write the ends of an interval of effects: ``3.9 to 5.1``."""
        format_bound = self.format_signed if with_sign else self.format_unsigned
        return f"{format_bound(lower_bound)} to {format_bound(upper_bound)}"


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


def format_percent_probability(probability: float) -> str:
    """Write a probability in percent with one decimal, and never as 0 % or 100 %.

    No finite number of draws can show that something is impossible or certain.

    Examples
    --------
    >>> [format_percent_probability(p).replace(NBSP, " ") for p in (0.5714, 0.99996, 0.0)]
    ['57.1 %', '> 99.9 %', '< 0.1 %']
    """
    if not math.isfinite(probability):
        return UNKNOWN_TEXT
    # Beyond 99.95 % one decimal would round to 100.0 %; below 0.05 %, to 0.0 %.
    if probability >= 0.9995:
        return f">{NBSP}99.9{NBSP}%"
    return f"<{NBSP}0.1{NBSP}%" if probability < 0.0005 else f"{100 * probability:.1f}{NBSP}%"


def format_interval_probability(interval_probability: float) -> str:
    """Write the probability of an interval, which no line break divides: ``95 %``."""
    return format_percentage(interval_probability).replace(" ", NBSP)


def state_probability(probability: float) -> str:
    """State a probability as an equation or a bound: ``P = 57.1 %``, ``P > 99.9 %``."""
    probability_text = format_percent_probability(probability)
    return f"P{NBSP}{probability_text}" if probability_text[0] in "<>" else f"P{NBSP}={NBSP}{probability_text}"


def format_share(share: float) -> str:
    """Write a share of units or of variation in whole percent; it may be 0 % or 100 %."""
    return f"{100 * share:.0f}{NBSP}%" if math.isfinite(share) else UNKNOWN_TEXT


def isolate_name(name_from_data: str) -> str:
    """Make a name from data safe inside a sentence: printable, short, and unable to turn the sentence around."""
    short_name = shorten_text(name_from_data).replace(f" {LEVEL_SEPARATOR}", f"{NBSP}{LEVEL_SEPARATOR}")
    is_right_to_left = any(unicodedata.bidirectional(character) in {"R", "AL", "AN"} for character in short_name)
    # FIRST STRONG ISOLATE … POP DIRECTIONAL ISOLATE: without it, Arabic letters reorder the numbers after them.
    return f"\u2068{short_name}\u2069" if is_right_to_left else short_name


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
