"""The order of levels, arms and segments: the data's own where they have one, else the order a person would give.

Categories of pandas, Polars, Arrow and DuckDB have an order that somebody chose. Text has none: there numbers sort by
size, with their sign, decimals or parts of a version, ranges and bins by their lower end, and the days of a week and
the months of a year as in a calendar.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bayes_hte.cells.reading.labels import EMPTY_LEVEL, SegmentLevels, format_labels
from bayes_hte.spec.cell_table import MISSING_LEVEL, OTHER_LEVEL, list_dimensions, read_level_orders

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw
    import xarray as xr

type LevelOrder = Sequence[str]
"""Levels in the order that the data give them; levels that are not in it come after these, in natural order."""

_CALENDAR_NAMES = (
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
     "december"),
)  # fmt: skip
_LAST_LEVELS = (OTHER_LEVEL, EMPTY_LEVEL, MISSING_LEVEL)
"""Levels that are none of the data: they come last, whatever the order."""

_NUMBER = r"[-+\N{MINUS SIGN}]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_CURRENCY = r"[$\N{EURO SIGN}\N{POUND SIGN}]?"
_DASHES = r"[-\N{EN DASH}\N{EM DASH}]"
# As short as can be, so that "or more" is no unit; without what numbers, ranges and bins are written with.
_UNIT_SIGNS = r"\s*?[^\d\s<>=+\-\N{EN DASH}\N{EM DASH},.()\[\]]*?"
_EXTENT = re.compile(
    r"(?P<below><=?|\N{LESS-THAN OR EQUAL TO}|under |below |up to )?"
    r"(?P<above>>=?|\N{GREATER-THAN OR EQUAL TO}|over |above )?"
    rf"\s*(?P<bracket>[\[(])?{_CURRENCY}(?P<lower>-inf|{_NUMBER})(?P<unit>{_UNIT_SIGNS})"
    rf"(?:(?(bracket)\s*,|\s*(?:{_DASHES}|\bto\b|\.\.))\s*<?\s*"
    rf"{_CURRENCY}(?P<upper>inf|{_NUMBER})(?P<upper_unit>{_UNIT_SIGNS})[\])]?)?"
    r"(?P<more>\s*\+| or more| or over| and (?:over|above|more|older))?(?P<less> or less| or under)?"
    r"(?P<last_unit> [^\W\d]+)?",
    re.IGNORECASE,
)
"""A number, a range or a bin, with a sign of what is open and a unit: <18, 18-24, (0, 5], $10 to $50, 65+ years."""


def sort_levels(labels: Iterable[str], level_order: LevelOrder = ()) -> list[str]:
    """Sort distinct labels by their own order as far as they have one, then naturally; what is no level comes last.

    Examples
    --------
    >>> sort_levels(["L", "XS", "S", "(missing)"], ["S", "M", "L"])
    ['S', 'L', 'XS', '(missing)']
    """
    distinct_labels = set(labels)
    last_labels = [label for label in _LAST_LEVELS if label in distinct_labels and label not in level_order]
    # Categories that no unit has are part of the order, but no level.
    ordered_labels = [label for label in dict.fromkeys(level_order) if label in distinct_labels]
    return [*ordered_labels, *_sort_by_meaning(distinct_labels.difference(ordered_labels, last_labels)), *last_labels]


def sort_naturally(labels: Iterable[str]) -> list[str]:
    """Sort distinct labels as a person would: numbers, ranges and bins by size, weekdays and months as in a calendar.

    Other, empty and missing levels come last.

    Examples
    --------
    >>> sort_naturally(["10", "9", "-1.5"]), sort_naturally(["week 10", "week 9"])
    (['-1.5', '9', '10'], ['week 9', 'week 10'])
    >>> sort_naturally(["100 or more", "20 to < 100", "< 20"]), sort_naturally(["65+", "<18", "18-24"])
    (['< 20', '20 to < 100', '100 or more'], ['<18', '18-24', '65+'])
    >>> sort_naturally(["1.10", "1.9", "1.10.1"]), sort_naturally(["Tue", "Mon", "Sun"])
    (['1.9', '1.10', '1.10.1'], ['Mon', 'Tue', 'Sun'])
    """
    return sort_levels(labels)


def sort_segments(
    segments: Iterable[SegmentLevels], dims: Sequence[str] = (), level_orders: Mapping[str, LevelOrder] | None = None
) -> list[SegmentLevels]:
    """Sort distinct segments by the order of the levels of each dimension, the first dimension slowest."""
    distinct_segments = list(set(segments))
    if not distinct_segments:
        return []
    ranks_by_dim = []
    for i, dim_levels in enumerate(zip(*distinct_segments, strict=True)):
        level_order = (level_orders or {}).get(dims[i], ()) if dims else ()
        rank_of_level = {level: rank for rank, level in enumerate(sort_levels(dim_levels, level_order))}
        ranks_by_dim.append([rank_of_level[level] for level in dim_levels])
    return [distinct_segments[i] for i in np.lexsort(ranks_by_dim[::-1])]  # the last key counts most


def _sort_by_meaning(labels: set[str]) -> list[str]:
    for calendar_names in _CALENDAR_NAMES:
        # Three letters are the shortest form in use: Mon, Sept.
        places = {label: _find_in_calendar(label, calendar_names) for label in labels}
        if all(place is not None for place in places.values()):
            return sorted(labels, key=lambda label, places=places: (places[label], label))  # type: ignore[misc]
    # Of versions 1.10 follows 1.9, of decimals it does not: that is decided for all labels together.
    has_versions = _have_versions(labels)
    extents = {} if has_versions else _parse_extents(labels)
    rest = sorted(labels.difference(extents), key=lambda label: (_split_numbers(label, has_versions), label))
    return sorted(extents, key=lambda label: (extents[label], label)) + rest


def _find_in_calendar(label: str, calendar_names: Sequence[str]) -> int | None:
    name = label.casefold().rstrip(".")
    matches = [i for i, full_name in enumerate(calendar_names) if len(name) >= 3 and full_name.startswith(name)]
    return matches[0] if len(matches) == 1 else None


def _have_versions(labels: Iterable[str]) -> bool:
    """Tell whether numbers with dots are versions, of which 1.10 follows 1.9, and no decimals.

    Two dots make a version, as does a v before it. Decimals do not end in 0, unless all have as many digits.
    """
    decimals: list[tuple[str, str]] = []
    for label in labels:
        if re.search(r"\d\.\d+\.\d|\bv\d+\.\d", label, re.IGNORECASE):
            return True
        decimals += re.findall(r"(?<![\d.])(\d+)\.(\d+)(?![\d.]|[eE][-+\d])", label)
    # 0.5 and 0.10 may be doses: without any whole part there is nothing to be a version of.
    return (
        len({len(fraction) for _, fraction in decimals}) > 1
        and any(fraction.endswith("0") and len(fraction) > 1 for _, fraction in decimals)
        and any(whole_part.strip("0") for whole_part, _ in decimals)
    )


def _parse_extents(labels: Iterable[str]) -> dict[str, tuple[float, int, float]]:
    """Parse labels as numbers, ranges and bins, by their lower end; none unless most are, in one unit."""
    # A few words among ranges, such as unknown, come after them; but 3 km and 2 h are on no common scale.
    all_labels, units, extents = list(labels), set[str](), {}
    for label in all_labels:
        match = _EXTENT.fullmatch(label.strip())
        if match is None:
            continue
        units.update(unit for name in ("unit", "upper_unit", "last_unit") if (unit := (match[name] or "").strip()))
        extents[label] = _measure_extent(match)
    is_one_scale = len({unit.casefold().rstrip("s") for unit in units}) <= 1 and 2 * len(extents) > len(all_labels)
    return extents if is_one_scale else {}


def _measure_extent(match: re.Match[str]) -> tuple[float, int, float]:
    """Measure the lower end, whether it is left out, and the upper end."""
    lower = _read_number(match["lower"])
    upper = lower if match["upper"] is None else _read_number(match["upper"])
    if match["below"] or match["less"]:
        return -math.inf, 0, lower
    if match["above"] or match["more"]:
        return lower, 1, math.inf
    return lower, 0, upper


def _read_number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def _split_numbers(label: str, has_versions: bool) -> list[tuple[float, int, str]]:
    """Split a label into a sort key of texts and numbers in turn, a number with its sign and decimals."""
    number_pattern = r"(\d+)" if has_versions else r"((?:(?<![\w.)])[-\N{MINUS SIGN}](?=\d))?\d+(?:\.\d+(?![.\d]))?)"
    # Beside its size each number has its digits: float64 does not tell very long ones apart.
    return [
        (_read_number(part), len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0.0, 0, part)
        for i, part in enumerate(re.split(number_pattern, label))
    ]


def find_level_orders(frame: "nw.LazyFrame[Any]", columns: Iterable[str]) -> dict[str, list[str]]:
    """Find the order that columns of a table give their levels themselves, as categories that are ordered do."""
    orders = {column: list_categories(frame, column) for column in columns}
    return {column: _write_categories(categories) for column, categories in orders.items() if categories}


def _write_categories(categories: Sequence[Any]) -> list[str]:
    return [label for label in format_labels(categories) if label is not None]


def list_categories(frame: "nw.LazyFrame[Any]", column: str) -> list[Any]:
    """List the ordered categories of a column, by each engine's own type; empty where there is no order."""
    implementation, native_table = frame.implementation, frame.to_native()
    if implementation.is_pandas() or implementation.is_dask():
        dtype = native_table.dtypes[column]
        # Categories that nobody ordered stand in the order of the alphabet, or of their first appearance.
        return list(dtype.categories) if getattr(dtype, "ordered", None) and hasattr(dtype, "categories") else []
    if implementation.is_polars():
        dtype = native_table.collect_schema()[column]
        return list(dtype.categories) if type(dtype).__name__ == "Enum" else []
    if implementation.is_pyarrow():
        return _list_arrow_categories(native_table, column)
    if implementation.is_duckdb():
        column_type = native_table.types[native_table.columns.index(column)]
        return list(column_type.children[0][1]) if column_type.id == "enum" else []
    return []


def _list_arrow_categories(table: Any, column: str) -> list[Any]:
    # Only the type of a dictionary says whether its values are in order.
    arrow_type = table.schema.field(column).type
    if not getattr(arrow_type, "ordered", False) or not table.num_rows:
        return []
    # Chunks may have dictionaries of their own, which a unified table has in common.
    return list(table.select([column]).unify_dictionaries().column(0).chunk(0).dictionary.to_pylist())


def merge_orders(orders: Sequence[LevelOrder]) -> list[str]:
    """Merge orders of the same levels: each level of a later order stands behind the one that it follows there."""
    merged = list(dict.fromkeys(orders[0])) if orders else []
    for level_order in orders[1:]:
        for previous, level in pairwise([None, *level_order]):
            if level not in merged and level is not None:
                merged.insert(0 if previous is None else merged.index(previous) + 1, level)
    return merged


def list_levels(cells: "xr.Dataset", dimension: str) -> list[str]:
    """List the levels of a dimension of a cell table in their order: the data's own, or that of the segments."""
    levels = list(map(str, cells[dimension].values))
    own_order = read_level_orders(cells).get(dimension)
    if own_order is not None:
        return sort_levels(levels, own_order)
    natural_order = sort_naturally(levels)
    rank_of_level = {level: rank for rank, level in enumerate(natural_order)}
    # Segments that agree in the dimensions before this one stand in the order of its levels.
    dims = list_dimensions(cells)
    outer_levels = zip(*(map(str, cells[dim].values) for dim in dims[: dims.index(dimension)]), strict=True)
    runs: dict[tuple[str, ...], list[str]] = {}
    for outer, level in zip(outer_levels if dims[0] != dimension else [()] * len(levels), levels, strict=True):
        runs.setdefault(outer, []).append(level)
    is_natural = all(rank_of_level[a] <= rank_of_level[b] for run in runs.values() for a, b in pairwise(run))
    return natural_order if is_natural else merge_orders(list(runs.values()))
