"""Write counts, numbers and names as they are printed: in messages, notes, checks, figures and reports.

Names come from data, so every one of them is treated as hostile: see `clean_text`.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

MAX_NAMES_SHOWN = 20
"""Names that a message lists before it stops: more would hide what the message says."""
ELLIPSIS = "…"
UNKNOWN_TEXT = "–"
NBSP = "\N{NO-BREAK SPACE}"
"""Between a number and its unit, so that no line begins with "%"."""
MAX_DECIMALS = 9
"""Effects are computed with about so many digits: more would show rounding errors."""
MAX_NAME_COLUMNS = 40  # about a third of the width of a page
MAX_LABEL_COLUMNS = 64  # several names in a row: segments differ in any of them
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""These marks could turn the text that follows a name around."""


def write_count(noun_count: int, singular_noun: str, plural_noun: str) -> str:
    """Write a count with its noun.

    Examples
    --------
    >>> write_count(1, "unit", "units"), write_count(1200, "unit", "units")
    ('1 unit', '1,200 units')
    """
    return f"{noun_count:,} {singular_noun if noun_count == 1 else plural_noun}"


def quote_names(names: Sequence[str]) -> str:
    """List names in quotes, up to `MAX_NAMES_SHOWN` of them.

    Examples
    --------
    >>> quote_names(["age", "arm"])
    "'age', 'arm'"
    """
    # A label may hold a comma: only quotes tell where it ends.
    quoted_text = ", ".join(repr(name) for name in names[:MAX_NAMES_SHOWN])
    return quoted_text + (f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else "")


def clean_text(text: str) -> str:
    r"""Make one printable line of a text: white space becomes a space, what cannot be printed becomes �.

    Examples
    --------
    >>> clean_text("two\nlines\x00")
    'two lines�'
    """
    one_line = " ".join(text.split())
    if one_line.isascii() and one_line.isprintable():  # most names
        return one_line
    return "".join(_replace_unprintable(character) for character in one_line)


def _replace_unprintable(character: str) -> str:
    if character in _DIRECTION_MARKS:
        return ""
    # Cc, Cs and Cn hold everything that XML 1.0 forbids.
    return "\ufffd" if unicodedata.category(character) in {"Cc", "Cs", "Cn", "Co"} else character


def shorten_text(text: str, max_columns: int = MAX_NAME_COLUMNS) -> str:
    """Cut the middle out of a long name: names often differ only in how they end.

    Wide (East Asian) characters count twice.

    Examples
    --------
    >>> shorten_text("a very long name, new customer", 15)
    'a very…customer'
    """
    one_line = clean_text(text)
    if sum(map(_count_columns, one_line)) <= max_columns:
        return one_line
    # A wide character takes two columns, so that `max_columns` characters may still be too many.
    kept_columns = max_columns
    while sum(map(_count_columns, _cut_middle(one_line, kept_columns))) > max_columns:
        kept_columns -= 1
    return _cut_middle(one_line, kept_columns)


def _cut_middle(line: str, kept_columns: int) -> str:
    tail_length = kept_columns // 2 + (kept_columns % 2)
    return line[: kept_columns - tail_length - 1].rstrip() + ELLIPSIS + line[len(line) - tail_length :].lstrip()


def _count_columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def choose_decimals(interval_widths: Iterable[float]) -> int:
    """Choose the decimals that show an interval of typical width with two significant digits.

    Examples
    --------
    >>> choose_decimals([3.4, 3.1, 5.0]), choose_decimals([0.034]), choose_decimals([340.0])
    (1, 3, 0)
    """
    finite_widths = [value for value in interval_widths if math.isfinite(value) and value > 0]
    if not finite_widths:
        return 2
    # Two significant digits of w need 1 − ⌊log₁₀ w⌋ decimals.
    return min(max(0, 1 - math.floor(math.log10(np.median(finite_widths)))), MAX_DECIMALS)


def format_number(value: float, decimal_places: int, *, sign: bool = True) -> str:
    """Write a number with thousands separators, a true minus sign and, with `sign`, a plus sign.

    Examples
    --------
    >>> format_number(7.94, 1), format_number(-0.04, 1), format_number(-1234.5, 0)
    ('+7.9', '0.0', '−1,234')
    """
    if not math.isfinite(value):
        return UNKNOWN_TEXT
    rounded_value = round(value, decimal_places)
    # What rounds to zero has no sign: "−0.0" would claim one.
    if rounded_value == 0:
        return f"{0:.{decimal_places}f}"
    return f"{rounded_value:{'+' if sign else ''},.{decimal_places}f}".replace("-", "−")


def format_bound(bound: float, decimal_places: int, *, sign: bool = True) -> str:
    """Write the end of an interval with as many decimals as show on which side of 0 it lies.

    Examples
    --------
    >>> format_bound(-0.0042, 1), format_bound(0.04, 1, sign=False), format_bound(0.0, 1)
    ('−0.004', '0.04', '0.0')
    """
    shown_places = decimal_places
    # 0.0 would leave open what a reader asks first: whether 0 is inside.
    while math.isfinite(bound) and bound != 0 and round(bound, shown_places) == 0 and shown_places < MAX_DECIMALS:
        shown_places += 1
    return format_number(bound, shown_places if round(bound, shown_places) else decimal_places, sign=sign)


def format_interval(low: float, high: float, decimal_places: int, *, sign: bool = True) -> str:
    """Write an interval with the word "to", because a dash between signed numbers misleads.

    Examples
    --------
    >>> format_interval(-0.004, 1.23, 1)
    '−0.004 to +1.2'
    """
    return f"{format_bound(low, decimal_places, sign=sign)} to {format_bound(high, decimal_places, sign=sign)}"


def format_count(unit_count: float) -> str:
    """Write a number of units.

    Examples
    --------
    >>> format_count(3216.0), format_count(float("nan"))
    ('3,216', '–')
    """
    return f"{unit_count:,.0f}" if math.isfinite(unit_count) else UNKNOWN_TEXT


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


def format_share(share: float) -> str:
    """Write a share in whole percent; as 0 % or 100 % only if it is exactly that.

    Examples
    --------
    >>> [format_share(share).replace(NBSP, " ") for share in (0.42, 0.999, 0.001, 0.99999, 1.0)]
    ['42 %', '99.9 %', '0.1 %', '> 99.9 %', '100 %']
    """
    if not math.isfinite(share):
        return UNKNOWN_TEXT
    if 0 < share < 1 and round(100 * share) in (0, 100):
        return format_percent_probability(share)
    return f"{100 * share:.0f}{NBSP}%"


def format_percentage(share: float) -> str:
    """Write the probability of an interval in percent.

    Examples
    --------
    >>> format_percentage(0.95), format_percentage(0.975)
    ('95 %', '97.5 %')
    """
    return f"{100 * share:.4g} %"
