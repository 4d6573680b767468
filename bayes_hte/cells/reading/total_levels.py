"""Find levels that are the total of others, by their names and by arithmetic: every unit would count twice.

By name: total, all, overall in several languages, and the empty level that a rollup or cube of a database leaves. By
arithmetic: in every arm its numbers are the sums of the other levels', or its estimates their precision-weighted mean.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.cells.reading.labels import EMPTY_LEVEL
from bayes_hte.cells.reading.similar_labels import simplify_label
from bayes_hte.errors import DataError
from bayes_hte.spec.cell_table import ARM, MISSING_LEVEL, SEGMENT, list_dimensions

TOTAL_NAMES = frozenset(
    {
        *("total", "totals", "all", "overall", "everyone", "everybody", "combined", "aggregate", "aggregated"),
        *("subtotal", "subtotals", "grand_total", "all_segments", "all_users", "all_customers", "all_units"),
        *("gesamt", "insgesamt", "alle", "summe", "tout", "tous", "toutes", "ensemble", "todos", "todas", "suma"),
        *("totale", "totaal", "totalt"),
    }
)
"""Simplified names that totals have, words joined by underscores."""
UNNAMED_LEVELS = frozenset({MISSING_LEVEL, EMPTY_LEVEL, "null", "na", "n/a", "none", "-", "*"})
"""What rollups and cubes of databases write in place of a level in a row of totals."""
MAX_MEAN_GAP = 0.1
"""Gap in standard errors below which a mean is that of the others together: published numbers are rounded."""
MAX_PRECISION_GAP = 0.02
"""Relative gap of its standard error from that of the mean of the others."""
MIN_LEVELS_FOR_ARITHMETIC = 3
"""With two levels in all each is the sum of the others where they are equal by chance."""


# Sums of several variables, not of one alone: equal numbers of units come about by design.
_SUMMED_VARIABLES = ("n", "events", "exposure", "positive", "histogram", "failures", "at_risk")


@dataclass(frozen=True, slots=True)
class TotalLevel:
    """A level of a dimension that may be the total of the others.

    Attributes
    ----------
    dimension, level : str
    is_named : bool
        Whether its name says so; that of a rollup's empty level does.
    is_sum : bool
        Whether its numbers are those of the others together, in every arm.
    """

    dimension: str
    level: str
    is_named: bool
    is_sum: bool


def find_totals(cells: xr.Dataset, *, named_only: bool = False) -> list[TotalLevel]:
    """Find levels that are, by name or by arithmetic, the total of the other levels of their dimension.

    Parameters
    ----------
    cells
        Cell table, dims (segment, arm).
    named_only
        Leave out levels whose names do not say that they are totals.
    """
    totals = []
    dimensions = list_dimensions(cells)
    labels_by_dim = {dimension: list(map(str, cells[dimension].values)) for dimension in dimensions}
    # Labels may be thousands of characters long: they are compared once, their numbers many times.
    code_columns = [_number_distinct_values(labels_by_dim[dimension]) for dimension in dimensions]
    for dimension, level_codes in zip(dimensions, code_columns, strict=True):
        distinct_levels = list(dict.fromkeys(labels_by_dim[dimension]))
        if len(distinct_levels) < 2:
            continue
        candidates = [level for level in distinct_levels if is_total_name(level) or is_unnamed(level)]
        # The only level that can be a sum of positive numbers is the one that holds half of them.
        if len(distinct_levels) >= MIN_LEVELS_FOR_ARITHMETIC and not named_only:
            heaviest_level = distinct_levels[_find_heaviest_level(cells, level_codes)]
            candidates += [heaviest_level] * (heaviest_level not in candidates)
        if not candidates:
            continue
        other_columns = [codes.tolist() for codes in code_columns if codes is not level_codes]
        rest_codes = _number_distinct_values(
            zip(*other_columns, strict=True) if other_columns else [()] * len(level_codes)
        )
        for level in candidates:
            is_sum = _is_sum_of_others(cells, rest_codes, level_codes == distinct_levels.index(level))
            if is_sum or is_total_name(level):
                totals.append(TotalLevel(dimension, level, is_total_name(level) or is_unnamed(level), is_sum))
    return totals


def _number_distinct_values(values: Iterable[Hashable]) -> npt.NDArray[np.intp]:
    """Give each value the rank of its first appearance, from 0."""
    code_of_value: dict[Hashable, int] = {}
    return np.array([code_of_value.setdefault(value, len(code_of_value)) for value in values], dtype=np.intp)


def is_total_name(level: str) -> bool:
    """Tell whether a level's name says that it is a total.

    Examples
    --------
    >>> is_total_name("Grand Total"), is_total_name("(all)"), is_total_name("Allendale")
    (True, True, False)
    """
    words = "".join(character if character.isalnum() else " " for character in simplify_label(level)).split()
    return "_".join(words) in TOTAL_NAMES


def is_unnamed(level: str) -> bool:
    """Tell whether a level is what databases leave empty in a row of totals."""
    return simplify_label(level) in UNNAMED_LEVELS or level in UNNAMED_LEVELS


def refuse_totals(cells: xr.Dataset) -> xr.Dataset:
    """Return the cells, unless a level is the total of the others by its name and by arithmetic.

    Raises
    ------
    DataError
        If so: every unit would count twice.
    """
    certain_totals = [total for total in find_totals(cells, named_only=True) if total.is_named and total.is_sum]
    if certain_totals:
        total = certain_totals[0]
        sums_clause = "is their precision-weighted mean" if "estimate" in cells else "has the sums of their numbers"
        rollup_clause = ", as a rollup leaves a level empty" if is_unnamed(total.level) else ""
        raise DataError(
            f"the level {total.level!r} of {total.dimension!r} is the total of the others{rollup_clause}: it "
            f"{sums_clause}, so everything would count twice; leave its rows out of the data"
        )
    return cells


def _find_heaviest_level(cells: xr.Dataset, level_codes: npt.NDArray[np.intp]) -> int:
    """Find the number of the level with the largest size: a total is the largest of its dimension."""
    size_name = None if "estimate" in cells else next((name for name in _SUMMED_VARIABLES if name in cells), None)
    sizes = _read_numbers(cells, size_name) if size_name else _read_numbers(cells, "se") ** -2.0
    segment_sizes = np.nan_to_num(sizes).reshape(len(level_codes), -1).sum(1)
    return int(np.bincount(level_codes, weights=segment_sizes).argmax())


def _read_numbers(cells: xr.Dataset, name: str) -> npt.NDArray[np.float64]:
    """Read a variable, (segment, arm, …)."""
    return np.asarray(cells[name].transpose(SEGMENT, ARM, ...).values, dtype=float)


def _is_sum_of_others(cells: xr.Dataset, rest_codes: npt.NDArray[np.intp], is_level: npt.NDArray[np.bool_]) -> bool:
    """Tell whether a level's numbers are the sums of the others', for every combination of the other dimensions."""
    if not {"n", "events", "failures"} & set(map(str, cells.data_vars)) or "estimate" in cells:
        return _is_pooled_estimate(cells, rest_codes, is_level)
    # Rows of a rollup are totals of some of the other dimensions' levels only: compared where both have rows.
    is_shared = np.isin(rest_codes, np.intersect1d(rest_codes[is_level], rest_codes[~is_level]))
    names = [name for name in _SUMMED_VARIABLES if name in cells]
    numbers = np.concatenate([_read_numbers(cells, name).reshape(len(is_level), -1) for name in names], axis=1)
    code_count = int(rest_codes.max()) + 1
    own_sums = _sum_by_code(numbers[is_level & is_shared], rest_codes[is_level & is_shared], code_count)
    other_sums = _sum_by_code(numbers[~is_level & is_shared], rest_codes[~is_level & is_shared], code_count)
    if not own_sums.any() or not np.allclose(own_sums, other_sums, rtol=1e-9, atol=1e-9):
        return False
    return (
        "mean" not in cells or "events" in cells or _has_common_mean(cells, is_level & is_shared, ~is_level & is_shared)
    )


def _has_common_mean(cells: xr.Dataset, is_level: npt.NDArray[np.bool_], is_other: npt.NDArray[np.bool_]) -> bool:
    """Tell whether a level has the mean of the others together, in every arm, but for rounding."""
    n, mean = _read_numbers(cells, "n"), np.nan_to_num(_read_numbers(cells, "mean"))
    totals = [(n[rows].sum(0), (n[rows] * mean[rows]).sum(0)) for rows in (is_level, is_other)]
    own_mean, other_mean = (sums / np.maximum(counts, 1) for counts, sums in totals)
    if "ss" in cells:
        # se of the level's mean, from its own sum of squares: √(ss / n) / √n
        se = np.sqrt(_read_numbers(cells, "ss")[is_level].sum(0)) / np.maximum(totals[0][0], 1)
    else:
        se = np.sqrt(np.nan_to_num(_read_numbers(cells, "se")[is_level]) ** 2).max(0)
    return bool((np.abs(own_mean - other_mean) <= MAX_MEAN_GAP * se + 1e-12).all())


def _sum_by_code(
    numbers: npt.NDArray[np.float64], codes: npt.NDArray[np.intp], code_count: int
) -> npt.NDArray[np.float64]:
    """Sum rows that have the same code, (code, number)."""
    sums = np.zeros((code_count, numbers.shape[1]))
    np.add.at(sums, codes, numbers)
    return sums


def _is_pooled_estimate(cells: xr.Dataset, rest_codes: npt.NDArray[np.intp], is_level: npt.NDArray[np.bool_]) -> bool:
    """Tell whether a level's estimates are the precision-weighted means of the others', with the errors of these."""
    value_name = "estimate" if "estimate" in cells else "mean"
    values, errors = _read_numbers(cells, value_name), _read_numbers(cells, "se")
    compared = 0
    for segment_index in np.flatnonzero(is_level):
        others = ~is_level & (rest_codes == rest_codes[segment_index])
        if others.sum() < 2:
            return False
        for arm_index in range(values.shape[1]):
            w = np.where(np.isfinite(errors[others, arm_index]), errors[others, arm_index] ** -2.0, 0.0)
            if not (w.sum() > 0 and np.isfinite(errors[segment_index, arm_index])):
                continue
            # ȳ = Σ w y / Σ w,   se = (Σ w)^−½
            pooled_se = w.sum() ** -0.5
            gap = abs(w @ np.nan_to_num(values[others, arm_index]) / w.sum() - values[segment_index, arm_index])
            if abs(errors[segment_index, arm_index] / pooled_se - 1) > MAX_PRECISION_GAP:
                return False
            if gap > MAX_MEAN_GAP * pooled_se:
                return False
            compared += 1
    return compared > 0
