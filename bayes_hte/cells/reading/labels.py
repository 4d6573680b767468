"""Levels, arms and segments as text: one rule for every table engine, and their natural order."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from bayes_hte.spec.cell_table import MISSING_LEVEL, OTHER_LEVEL

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
    if isinstance(value, bool | str):
        return _format_word(str(value))
    if isinstance(value, float | Decimal):
        return _format_number(value)
    if isinstance(value, datetime):  # engines without a date type store dates as midnights
        return str(value.date()) if value.time() == datetime.min.time() else value.isoformat(" ")
    return value.isoformat() if isinstance(value, date) else str(value)


def format_level(value: Any) -> str:
    """Write a level or arm that a caller names, by its value or its text, as the cell table has it."""
    return format_label(value) or MISSING_LEVEL


def is_missing(value: Any) -> bool:
    """Tell whether a value is null or NaN, in any engine's spelling."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:  # pandas, without importing it
        return True
    return isinstance(value, float | Decimal | np.floating) and math.isnan(value)


def _format_word(text: str) -> str:
    # A column of booleans that went through a CSV file comes back as these words.
    if text in {"True", "TRUE", "False", "FALSE"}:
        return text.lower()
    return text or EMPTY_LEVEL


def _format_number(value: float | Decimal) -> str:
    # Engines turn whole numbers into floats where a column has gaps: 63.0 and 63 are the same level.
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return format(value.normalize(), "f") if isinstance(value, Decimal) else repr(value)


def sort_naturally(labels: Iterable[str]) -> list[str]:
    """Sort labels as a person would: as numbers if all are numbers, else as text in which numbers sort by size.

    Bins count as numbers. Other, empty and missing levels come last.

    Examples
    --------
    >>> sort_naturally(["10", "9", "-1.5"]), sort_naturally(["week 10", "week 9"])
    (['-1.5', '9', '10'], ['week 9', 'week 10'])
    >>> sort_naturally(["100 or more", "20 to < 100", "< 20"])
    ['< 20', '20 to < 100', '100 or more']
    """
    distinct_labels = set(labels)
    last_labels = [label for label in (OTHER_LEVEL, EMPTY_LEVEL, MISSING_LEVEL) if label in distinct_labels]
    ordinary_labels = distinct_labels.difference(last_labels)
    number_of_label = {label: _parse_number(label) for label in ordinary_labels}
    if all(number is not None for number in number_of_label.values()):
        return sorted(ordinary_labels, key=lambda label: (number_of_label[label], label)) + last_labels
    return sorted(ordinary_labels, key=lambda label: (_split_numbers(label), label)) + last_labels


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


def _parse_number(label: str) -> float | None:
    """Parse a label as a number, a bin as its lower edge; None for other text."""
    if label.startswith("< "):
        return None if _parse_number(label[2:]) is None else -math.inf
    number_text = re.sub(r" (or more|to < \S+)$", "", label)
    try:
        number = float(number_text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _split_numbers(label: str) -> list[tuple[int, str]]:
    """Split a label into a sort key of texts and numbers in turn, each number as its length and its digits."""
    # Length and digits compare as the numbers do, and int() refuses very long ones.
    label_parts = re.split(r"(\d+)", label)
    return [
        (len(significant_digits := label_part.lstrip("0")), significant_digits) if i % 2 else (0, label_part)
        for i, label_part in enumerate(label_parts)
    ]


def sort_segments(segments: Iterable[SegmentLevels]) -> list[SegmentLevels]:
    """Sort distinct segments by the natural order of the levels of each dimension, the first dimension slowest."""
    distinct_segments = list(set(segments))
    if not distinct_segments:
        return []
    ranks_by_dim = []
    for dim_levels in zip(*distinct_segments, strict=True):
        rank_of_level = {level: i for i, level in enumerate(sort_naturally(dim_levels))}
        ranks_by_dim.append([rank_of_level[level] for level in dim_levels])
    return [distinct_segments[i] for i in np.lexsort(ranks_by_dim[::-1])]  # the last key counts most


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
