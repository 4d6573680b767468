"""Levels, arms and segments as text: one rule for every table engine, and their natural order."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from bayes_hte.schema import MISSING_LEVEL, OTHER_LEVEL

EMPTY_LEVEL = "(empty)"
SEPARATOR = " · "

type Levels = tuple[str, ...]
type Key = tuple[Levels, str]
"""A cell: the levels of its segment, one per dimension, and its arm."""


def text_of(value: Any) -> str | None:
    """Write one level or arm as text; None if the value is missing.

    The same value gives the same text whichever engine or file format held it.

    Examples
    --------
    >>> text_of(63.0), text_of(True), text_of(""), text_of(float("nan"))
    ('63', 'true', '(empty)', None)
    """
    if is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | str):
        return _text_of_word(str(value))
    if isinstance(value, float | Decimal):
        return _text_of_number(value)
    if isinstance(value, datetime):  # engines without a date type store dates as midnights
        return str(value.date()) if value.time() == datetime.min.time() else value.isoformat(" ")
    return value.isoformat() if isinstance(value, date) else str(value)


def level_of(value: Any) -> str:
    """What a value of the data is called as a level or arm: what callers name may be the value, or its text."""
    return text_of(value) or MISSING_LEVEL


def is_missing(value: Any) -> bool:
    """Whether a value is null or NaN, in any engine's spelling."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:  # pandas, without importing it
        return True
    return isinstance(value, float | Decimal | np.floating) and math.isnan(value)


def _text_of_word(text: str) -> str:
    # A column of booleans that went through a CSV file comes back as these words.
    if text in {"True", "TRUE", "False", "FALSE"}:
        return text.lower()
    return text or EMPTY_LEVEL


def _text_of_number(value: float | Decimal) -> str:
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return format(value.normalize(), "f") if isinstance(value, Decimal) else repr(value)


def natural_order(labels: Iterable[str]) -> list[str]:
    """Sort labels the way a person would: as numbers if all are, else as text with the numbers in it by size.

    Bins count as numbers. Other, empty and missing levels come last.

    Examples
    --------
    >>> natural_order(["10", "9", "-1.5"]), natural_order(["week 10", "week 9"])
    (['-1.5', '9', '10'], ['week 9', 'week 10'])
    >>> natural_order(["100 or more", "20 to < 100", "< 20"])
    ['< 20', '20 to < 100', '100 or more']
    """
    distinct = set(labels)
    last = [label for label in (OTHER_LEVEL, EMPTY_LEVEL, MISSING_LEVEL) if label in distinct]
    ordinary = distinct.difference(last)
    numbers = {label: _number(label) for label in ordinary}
    if all(number is not None for number in numbers.values()):
        return sorted(ordinary, key=lambda label: (numbers[label], label)) + last
    return sorted(ordinary, key=lambda label: (_chunks(label), label)) + last


def bin_label(low: float, high: float) -> str:
    """What the numbers from `low` up to, but not including, `high` are called.

    Examples
    --------
    >>> bin_label(-math.inf, 18), bin_label(18, 35.5), bin_label(65, math.inf)
    ('< 18', '18 to < 35.5', '65 or more')
    """
    start, end = text_of(float(low)), text_of(float(high))
    if not math.isfinite(low):
        return f"< {end}"
    return f"{start} to < {end}" if math.isfinite(high) else f"{start} or more"


def _number(label: str) -> float | None:
    """A number, or that where a bin begins."""
    if label.startswith("< "):
        return None if _number(label[2:]) is None else -math.inf
    text = re.sub(r" (or more|to < \S+)$", "", label)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _chunks(label: str) -> list[tuple[int, str]]:
    """Text and numbers in turn; numbers compare by length and digits, as int() refuses very long ones."""
    parts = re.split(r"(\d+)", label)
    return [(len(digits := part.lstrip("0")), digits) if i % 2 else (0, part) for i, part in enumerate(parts)]


def order_segments(segments: Iterable[Levels]) -> list[Levels]:
    """Sort distinct segments by the natural order of each dimension's levels, the first dimension slowest."""
    distinct = list(set(segments))
    if not distinct:
        return []
    ranks = []
    for column in zip(*distinct, strict=True):
        rank = {level: i for i, level in enumerate(natural_order(column))}
        ranks.append([rank[level] for level in column])
    return [distinct[i] for i in np.lexsort(ranks[::-1])]  # the last key counts most


def segment_labels(segments: Sequence[Levels]) -> list[str]:
    """One unique label per segment: its levels, joined.

    Examples
    --------
    >>> segment_labels([("mobile", "new"), ("mobile · new", "x"), ("mobile", "new · x")])
    ['mobile · new', 'mobile · new · x', 'mobile · new · x (2)']
    """
    labels: dict[str, None] = {}  # a set that keeps the order
    for levels in segments:
        label = plain = SEPARATOR.join(levels)
        copy = 2
        while label in labels:
            label, copy = f"{plain} ({copy})", copy + 1
        labels[label] = None
    return list(labels)
