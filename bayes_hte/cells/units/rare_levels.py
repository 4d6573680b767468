"""Put rare levels together, where someone asked for it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bayes_hte._support.validation import describe_value, to_int
from bayes_hte.cells.reading.engines import format_count, quote_names
from bayes_hte.cells.units.group_by import GroupedUnits
from bayes_hte.errors import DataError
from bayes_hte.spec.cell_table import OTHER_LEVEL

MAX_NAMED_LEVELS = 10
"""A note lists so many levels, then counts the others: a column of names may have thousands."""


def check_rare(rare: int | Mapping[str, int] | None, dims: Sequence[str]) -> dict[str, int]:
    """Check the least number of rows that a level must have, and return it by dimension.

    Raises
    ------
    DataError
        If a dimension is not there, or the number is not above 1.
    """
    if rare is None:
        return {}
    is_single = isinstance(rare, bool) or to_int(rare) is not None
    if not is_single and not isinstance(rare, Mapping):
        raise DataError(
            f"rare is {describe_value(rare)}; give a number of rows, or numbers by dimension as in {{{dims[0]!r}: 50}}"
        )
    minimum_rows = {}
    for dimension, raw_minimum in (rare if isinstance(rare, Mapping) else dict.fromkeys(dims, rare)).items():
        if dimension not in dims:
            raise DataError(
                f"rare names {dimension!r}, which is not among the segments {quote_names(dims)}; add it there"
            )
        minimum = to_int(raw_minimum)
        if minimum is None or minimum < 2:
            raise DataError(
                f"rare is {describe_value(raw_minimum)} for {dimension!r}; give a number of rows, 2 or more"
            )
        minimum_rows[dimension] = minimum
    return minimum_rows


def merge_rare_levels(
    groups: GroupedUnits, dims: Sequence[str], minimum_rows: Mapping[str, int]
) -> tuple[GroupedUnits, list[str]]:
    """Merge levels with too few rows into the level (other), and note which; missing levels stay apart."""
    merged_levels, notes = groups.level_labels.copy(), []
    # Rows without an arm are dropped later, so that they make no level common.
    kept_rows = np.where(groups.arm_labels == None, 0, groups.complete_counts)  # noqa: E711, elementwise
    for dimension, minimum in minimum_rows.items():
        level_column = merged_levels[dims.index(dimension)]
        level_rows: Counter[str] = Counter()
        for level, rows in zip(level_column, kept_rows, strict=True):
            if level is not None:
                level_rows[level] += int(rows)
        rare_levels = {level: size for level, size in level_rows.items() if size < minimum}
        if not rare_levels:
            continue
        # In place: `level_column` is a row of `merged_levels`.
        level_column[np.array([level in rare_levels for level in level_column])] = OTHER_LEVEL
        sorted_levels = sorted(rare_levels.items(), key=lambda level_size: (-level_size[1], level_size[0]))
        shown_levels = ", ".join(f"{level} ({size:,})" for level, size in sorted_levels[:MAX_NAMED_LEVELS])
        remainder = f" and {len(rare_levels) - MAX_NAMED_LEVELS:,} more" if len(rare_levels) > MAX_NAMED_LEVELS else ""
        level_count = format_count(len(rare_levels), "level", "levels")
        notes.append(
            f"{level_count} of {dimension} with fewer than {minimum:,} rows form the level {OTHER_LEVEL}: "
            f"{shown_levels}{remainder}"
        )
    return replace(groups, level_labels=merged_levels), notes
