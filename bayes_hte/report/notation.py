"""Numbers and names as the report writes them: the same digits as the figures, probabilities never 0 or 1."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bayes_hte.families import Family
from bayes_hte.plot.text import UNKNOWN, clean, decimals, number, percentage, shorten
from bayes_hte.schema import Scale

NBSP = "\N{NO-BREAK SPACE}"
SEPARATOR = "·"
"""Stands between the levels of a segment's name; a line may end with it, not start."""
NAMED = 5
"""How many names a sentence lists before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How effects of one arm are written.

    Attributes
    ----------
    factor : float
        100 where effects are shown in percent or percentage points.
    places : int
        Decimals.
    words : str
        What follows a number in a sentence.
    heading : str
        The same at the head of a column.
    """

    factor: float
    places: int
    words: str
    heading: str

    def signed(self, value: float) -> str:
        """``+4.5``, ``−0.3``."""
        return number(self.factor * value, self.places)

    def plain(self, value: float) -> str:
        """``4.5``, ``−0.3``."""
        return number(self.factor * value, self.places, sign=False)

    def size(self, value: float) -> str:
        """The amount without its direction, with its unit: ``4.5 percentage points``."""
        return f"{self.plain(abs(value))}{self.words}"

    def interval(self, low: float, high: float, *, sign: bool = False) -> str:
        """``3.9 to 5.1``."""
        write = self.signed if sign else self.plain
        return f"{write(low)} to {write(high)}"


def measure(family: Family, scale: Scale, unit: str, widths: Iterable[float]) -> Measure:
    """The measure of effects on a scale; `widths` of the intervals decide how many digits mean something."""
    unit = clean(unit)
    match scale:
        case "relative":
            factor, words, heading = 100.0, " % relative to the control", "% relative to the control"
        case "absolute" if family.percent:
            factor, words, heading = 100.0, " percentage points", "percentage points"
        case "link" if family.ratio:
            factor, words, heading = 1.0, f" in {logarithm(family)}", f"log {family.ratio}"
        case _:
            factor, words, heading = 1.0, f" {unit}" if unit else "", unit
    return Measure(factor, decimals(factor * width for width in widths), words, heading)


def logarithm(family: Family) -> str:
    """What the link scale of a family is called in a sentence; empty where it is the outcome's own."""
    if not family.ratio:
        return ""
    return "log-odds" if family.ratio == "odds ratio" else f"the log {family.ratio}"


def probability(value: float) -> str:
    """Three digits in percent; never 0 % or 100 %, which no finite number of draws can show.

    Examples
    --------
    >>> [probability(p).replace(NBSP, " ") for p in (0.5714, 0.99996, 0.0)]
    ['57.1 %', '> 99.9 %', '< 0.1 %']
    """
    if not math.isfinite(value):
        return UNKNOWN
    if value >= 0.9995:
        return f">{NBSP}99.9{NBSP}%"
    return f"<{NBSP}0.1{NBSP}%" if value < 0.0005 else f"{100 * value:.1f}{NBSP}%"


def percent(probability_of_interval: float) -> str:
    """``95 %``, unbroken."""
    return percentage(probability_of_interval).replace(" ", NBSP)


def p_is(value: float) -> str:
    """``P = 57.1 %`` or ``P > 99.9 %``."""
    text = probability(value)
    return f"P{NBSP}{text}" if text[0] in "<>" else f"P{NBSP}={NBSP}{text}"


def share(value: float) -> str:
    """A share of units or of variation, which may be 0 or all."""
    return f"{100 * value:.0f}{NBSP}%" if math.isfinite(value) else UNKNOWN


def name(text: str) -> str:
    """A name from data inside a sentence: printable, short, and unable to turn the sentence around."""
    short = shorten(text).replace(f" {SEPARATOR}", f"{NBSP}{SEPARATOR}")
    turned = any(unicodedata.bidirectional(character) in {"R", "AL", "AN"} for character in short)
    return f"\u2068{short}\u2069" if turned else short


def listing(names: Sequence[str]) -> str:
    """``a, b and c``; after a few, how many more.

    Examples
    --------
    >>> listing(["a", "b", "c"]), listing(list("abcdefgh"))
    ('a, b and c', 'a, b, c, d, e and 3 more')
    """
    shown = [name(text) for text in names]
    if len(shown) > NAMED + 1:
        return f"{', '.join(shown[:NAMED])} and {len(shown) - NAMED} more"
    return " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)


def counted(count: int, one: str, many: str) -> str:
    """``1 segment``, ``2 segments``."""
    return f"{count:,} {one if count == 1 else many}"
