"""Levels, arms and segments as text: one rule for every table engine."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from bayes_hte._support.phrases import write_count
from bayes_hte.spec.cell_table import MISSING_LEVEL

EMPTY_LEVEL = "(empty)"
LEVEL_SEPARATOR = " · "

type SegmentLevels = tuple[str, ...]
type CellKey = tuple[SegmentLevels, str]
"""A cell: the levels of its segment, one per dimension, and its arm."""


def format_label(value: Any) -> str | None:
    """Write one level or arm as text; None if the value is missing.

    Equal values give equal texts, whichever engine or file format held them.

    Examples
    --------
    >>> format_label(63.0), format_label(True), format_label(""), format_label(float("nan"))
    ('63', 'true', '(empty)', None)
    """
    if is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bool):
        # Text stays as it is written: 1.10 may be another version than 1.1, and 007 another code than 7.
        return (value if isinstance(value, str) else str(value).lower()) or EMPTY_LEVEL
    if isinstance(value, float | Decimal):
        return _format_number(value)
    if isinstance(value, datetime):  # engines without a date type store dates as midnights
        return str(value.date()) if value.time() == datetime.min.time() else value.isoformat(" ")
    if type(value).__name__ == "Interval":  # of pandas, without importing it
        return _shorten_intervals([str(value)])[0]
    return value.isoformat() if isinstance(value, date) else str(value)


def format_labels(values: Sequence[Any]) -> list[str | None]:
    """Write the distinct levels of one column as text; None where a value is missing.

    Booleans that went through a text file come back as its words: a column of nothing but True and False, or TRUE and
    FALSE, holds booleans. Ends of intervals are written with as few digits as keep the intervals apart.

    Examples
    --------
    >>> format_labels(["TRUE", "FALSE", None]), format_labels(["TRUE", "007"])
    (['true', 'false', None], ['TRUE', '007'])
    >>> format_labels(["(0.1, 0.30000000000000004]", "(0.30000000000000004, 0.5]"])
    ['(0.1, 0.3]', '(0.3, 0.5]']
    """
    labels = [format_label(value) for value in values]
    words = {label for label in labels if label is not None}
    if words and any(words <= spelling for spelling in _BOOLEAN_SPELLINGS):
        return [None if label is None else label.lower() for label in labels]
    if words and all(map(_INTERVAL.fullmatch, words)):
        # Intervals themselves, not their labels, keep the digits that tell them apart.
        raw_texts = [str(value) for value, label in zip(values, labels, strict=True) if label is not None]
        short_texts = iter(_shorten_intervals(raw_texts))
        return [None if label is None else next(short_texts) for label in labels]
    return labels


_BOOLEAN_SPELLINGS = (frozenset({"True", "False"}), frozenset({"TRUE", "FALSE"}))
"""How Python and pandas, and R and spreadsheets, write booleans in a text file."""
_INTERVAL_END = r"[-+]?(?:inf|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
_INTERVAL = re.compile(rf"([\[(])({_INTERVAL_END}), ({_INTERVAL_END})([\])])")
MIN_INTERVAL_DIGITS, MAX_INTERVAL_DIGITS = 6, 17
"""Significant digits of an interval's ends: people read six; 17 tell all float64 apart."""


def _shorten_intervals(texts: Sequence[str]) -> list[str]:
    """Shorten the ends of intervals to as few digits, six or more, as keep all intervals apart."""
    # Edges that differ beyond the sixth digit need more of them: no two bins may look alike.
    for digit_count in range(MIN_INTERVAL_DIGITS, MAX_INTERVAL_DIGITS):
        short_texts = [_shorten_interval(text, digit_count) for text in texts]
        if len(set(short_texts)) == len(set(texts)) and not any(map(_is_empty_interval, short_texts)):
            return short_texts
    return list(texts)


def _shorten_interval(text: str, digit_count: int) -> str:
    def shorten_end(end: str) -> str:
        # 0.25 and 100000.0 stay what they are: only what has more digits is written anew.
        return end if len(re.sub(r"\D", "", end)) <= digit_count else repr(float(f"{float(end):.{digit_count}g}"))

    match = _INTERVAL.fullmatch(text)
    return text if match is None else f"{match[1]}{shorten_end(match[2])}, {shorten_end(match[3])}{match[4]}"


def _is_empty_interval(text: str) -> bool:
    match = _INTERVAL.fullmatch(text)
    return match is not None and match[2] == match[3]


def match_label(wanted: Any, labels: Iterable[str]) -> str:
    """Find the label that a caller names by its value or its text; the text itself where there is none.

    A label as it is named comes first. Else a number stands for the only label that is equal to it, and text that is
    a whole number or a boolean likewise: 0 and "0" for "0.0", as a column of numbers with gaps is written.

    Examples
    --------
    >>> match_label(0, ["0.0", "1.0"]), match_label("2.1", ["2.1", "2.10"]), match_label("2.1", ["2.10", "3"])
    ('0.0', '2.1', '2.1')
    """
    wanted_text, known_labels = format_level(wanted), set(labels)
    if wanted_text in known_labels:
        return wanted_text
    # Text that is no whole number means itself: 1.1 is no other version.
    wanted_number, is_text = _parse_float(wanted_text), isinstance(wanted, str)
    if wanted_number is None or (is_text and not wanted_number.is_integer()):
        equal_labels = [label for label in known_labels if _is_same_boolean(label, wanted_text)]
    else:
        equal_labels = [label for label in known_labels if _parse_float(label) == wanted_number]
    return equal_labels[0] if len(equal_labels) == 1 else wanted_text


def _is_same_boolean(label: str, other_label: str) -> bool:
    return label.casefold() == other_label.casefold() and label.casefold() in {"true", "false"}


def _parse_float(text: str) -> float | None:
    """Parse a plain finite number, without the words and digits that only Python reads."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII):
        return None
    return number if math.isfinite(number := float(text)) else None


def describe_equal_numbers(labels: Iterable[str | None], dimension: str) -> list[str]:
    """Say in a sentence which labels of a dimension are equal as numbers and yet kept apart; none if there are none."""
    labels_by_number: dict[float, list[str]] = {}
    for label in dict.fromkeys(labels):
        if label is not None and (number := _parse_float(label)) is not None:
            labels_by_number.setdefault(number, []).append(label)
    # One example is enough to find the others by.
    equal_labels = [sorted(same) for same in labels_by_number.values() if len(same) > 1]
    if not equal_labels:
        return []
    others_phrase = f", and {write_count(len(equal_labels) - 1, 'more number', 'more numbers')}" * (
        len(equal_labels) > 1
    )
    return [
        f"{' and '.join(map(repr, equal_labels[0]))} are levels of their own in {dimension}, as they are written, "
        f"though equal as numbers{others_phrase}; if they mean the same, write them alike"
    ]


def format_level(value: Any) -> str:
    """Write a level or arm that a caller names, by its value or its text, as the cell table has it."""
    return format_label(value) or MISSING_LEVEL


def is_missing(value: Any) -> bool:
    """Tell whether a value is null or NaN, in any engine's spelling."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:  # pandas, without importing it
        return True
    return isinstance(value, float | Decimal | np.floating) and math.isnan(value)


def _format_number(value: float | Decimal) -> str:
    # Engines turn whole numbers into floats where a column has gaps: 63.0 and 63 are the same level.
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return format(value.normalize(), "f") if isinstance(value, Decimal) else repr(value)


def format_bin_label(lower_edge: float, upper_edge: float) -> str:
    """Name the bin of the numbers from `lower_edge` up to, but not including, `upper_edge`.

    Examples
    --------
    >>> format_bin_label(-math.inf, 18), format_bin_label(18, 35.5), format_bin_label(65, math.inf)
    ('< 18', '18 to < 35.5', '65 or more')
    """
    lower_text, upper_text = format_label(float(lower_edge)), format_label(float(upper_edge))
    if not math.isfinite(lower_edge):
        return f"< {upper_text}"
    return f"{lower_text} to < {upper_text}" if math.isfinite(upper_edge) else f"{lower_text} or more"


def label_segments(segments: Sequence[SegmentLevels]) -> list[str]:
    """Join the levels of each segment to a label; a repeated label gets a number.

    Examples
    --------
    >>> label_segments([("mobile", "new"), ("mobile · new", "x"), ("mobile", "new · x")])
    ['mobile · new', 'mobile · new · x', 'mobile · new · x (2)']
    """
    unique_labels: dict[str, None] = {}  # a set that keeps the order
    for levels in segments:
        label = joined_levels = LEVEL_SEPARATOR.join(levels)
        copy_number = 2
        while label in unique_labels:
            label, copy_number = f"{joined_levels} ({copy_number})", copy_number + 1
        unique_labels[label] = None
    return list(unique_labels)
