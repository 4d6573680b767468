"""Words and numbers as they are printed, and how wide they are.

Segment names come from data, so every one of them is treated as hostile: `clean` is applied to all text
before it is measured or drawn.
"""

import math
import unicodedata
from collections.abc import Iterable
from functools import cache

import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

FAMILY = "DejaVu Sans"
"""Comes with matplotlib, so that widths are the same on every machine; Verdana has nearly the same ones."""
ELLIPSIS = "…"
UNKNOWN = "–"
LONGEST_NAME = 40
LONGEST_LABEL = 64  # several names in a row: segments differ in any of them
_DIRECTION = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""These marks could turn the text that follows a name around."""


def clean(text: str) -> str:
    """One printable line: white space becomes a space, what cannot be printed becomes �.

    Examples
    --------
    >>> clean("two\\nlines\\x00")
    'two lines�'
    """
    line = " ".join(text.split())
    if line.isascii() and line.isprintable():  # most names
        return line
    return "".join(_printable(character) for character in line)


def _printable(character: str) -> str:
    if character in _DIRECTION:
        return ""
    # Cc, Cs and Cn hold everything that XML 1.0 forbids.
    return "\ufffd" if unicodedata.category(character) in {"Cc", "Cs", "Cn", "Co"} else character


def shorten(text: str, longest: int = LONGEST_NAME) -> str:
    """Cut the middle out of a long name: names often differ only in how they end.

    Wide (East Asian) characters count twice.

    Examples
    --------
    >>> shorten("a very long name, new customer", 15)
    'a very…customer'
    """
    line = clean(text)
    if sum(map(_columns, line)) <= longest:
        return line
    kept = longest
    while sum(map(_columns, _cut(line, kept))) > longest:
        kept -= 1
    return _cut(line, kept)


def _cut(line: str, kept: int) -> str:
    tail = kept // 2 + (kept % 2)
    return line[: kept - tail - 1].rstrip() + ELLIPSIS + line[len(line) - tail :].lstrip()


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, room: float, size: float) -> str:
    """`text`, cut until it is at most `room` points wide."""
    line = shorten(text, 10 * LONGEST_NAME)
    kept = len(line)
    while kept > 4 and width(line, size) > room:
        kept -= 1
        line = shorten(text, kept)
    return line


def wrap(text: str, room: float, size: float) -> list[str]:
    """Break `text` at spaces into lines at most `room` points wide; an endless word is cut."""
    lines: list[str] = []
    for word in clean(text).split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size) <= room:
            lines[-1] = longer
        elif word:
            lines.append(fit(word, room, size))
    return lines


@cache
def width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in points of one line of text.

    A character that the font lacks counts as one em: a browser will show it in another font, and East
    Asian characters and emoji are that wide.
    """
    known = _characters()
    line = "".join(character if ord(character) in known else "W" for character in clean(text))
    return float(text_to_path.get_text_width_height_descent(line, font(size, bold=bold), ismath=False)[0])


@cache
def font(size: float, *, bold: bool = False) -> FontProperties:
    """The bundled font; matplotlib copies what it is given."""
    return FontProperties(family=FAMILY, size=size, weight="bold" if bold else "normal")


def widest(texts: Iterable[str], size: float, *, bold: bool = False) -> float:
    """Width in points of the widest of some lines; 0 if there are none."""
    return max((width(text, size, bold=bold) for text in texts), default=0.0)


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=FAMILY))).get_charmap())


def decimals(widths: Iterable[float]) -> int:
    """Decimals that show an interval of typical width with two significant digits.

    Examples
    --------
    >>> decimals([3.4, 3.1, 5.0]), decimals([0.034]), decimals([340.0])
    (1, 3, 0)
    """
    finite = [value for value in widths if math.isfinite(value) and value > 0]
    if not finite:
        return 2
    return min(max(0, 1 - math.floor(math.log10(np.median(finite)))), 9)


def number(value: float, places: int, *, sign: bool = True) -> str:
    """A number with thousands separators, a true minus sign and, where asked, a plus sign.

    Examples
    --------
    >>> number(7.94, 1), number(-0.04, 1), number(-1234.5, 0)
    ('+7.9', '0.0', '−1,234')
    """
    if not math.isfinite(value):
        return UNKNOWN
    rounded = round(value, places)
    if rounded == 0:
        return f"{0:.{places}f}"
    return f"{rounded:{'+' if sign else ''},.{places}f}".replace("-", "−")


def interval(low: float, high: float, places: int) -> str:
    """An interval in words, because a dash between signed numbers misleads."""
    return f"{number(low, places)} to {number(high, places)}"


def count(value: float) -> str:
    """A number of units.

    Examples
    --------
    >>> count(3216.0), count(float("nan"))
    ('3,216', '–')
    """
    return f"{value:,.0f}" if math.isfinite(value) else UNKNOWN


def probability(value: float) -> str:
    """Three digits; never 0 or 1, which no finite number of draws can show.

    Examples
    --------
    >>> probability(0.9484), probability(0.99996), probability(0.0)
    ('.948', '> .999', '< .001')
    """
    if not math.isfinite(value):
        return UNKNOWN
    if value >= 0.9995:
        return "> .999"
    return "< .001" if value < 0.0005 else f"{value:.3f}".removeprefix("0")


def percentage(share: float) -> str:
    """The probability of an interval.

    Examples
    --------
    >>> percentage(0.95), percentage(0.975)
    ('95 %', '97.5 %')
    """
    return f"{100 * share:.4g} %"
