"""Reduce rows to a mean, a rate, a two-part outcome or a histogram: the query, the checks and the cells of each."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from bayes_hte.cells.build import CellCoords, CellValues, pool_groups
from bayes_hte.cells.reading.engines import format_count
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.summaries.from_levels import build_histogram, check_value_count
from bayes_hte.cells.units.adjusted_means import AdjustmentRecipe
from bayes_hte.cells.units.group_by import GroupedUnits, UnitRows
from bayes_hte.cells.units.statistics import Moments, StatisticsQuery
from bayes_hte.errors import DataError

MetricName = Literal["mean", "histogram", "two_part"]

type ReducedCells = tuple[list[CellKey], dict[str, CellValues], CellCoords]
"""Distinct cells, their variables, and coordinates of dims beyond segment and arm."""

SUM_OF_SQUARES_RTOL = 1e-9
"""Rounding error of a sum of squares, relative to the sum; one value of 1/2 shows among 100 million ones."""

MAX_EXACT_EVENTS = 2**53
"""Beyond this float64, in which engines add, skips whole numbers."""


@dataclass(frozen=True, slots=True)
class MetricReduction:
    """One way to reduce rows: the query to the engine, and the cells that its answer gives."""

    build_query: Callable[[], StatisticsQuery]
    reduce_groups: Callable[[GroupedUnits, UnitRows], ReducedCells]
    check_groups: Callable[[GroupedUnits, UnitRows], None] = lambda groups, units: None  # of the answer as it came
    adjustment_recipe: AdjustmentRecipe | None = None  # of adjusted means
    extremes_column: str = "y"  # its smallest and largest value are those of the outcome


def check_cap(groups: GroupedUnits, units: UnitRows, extremes_column: str) -> None:
    """Raise DataError if a cap moved all outcomes to one value; `extremes_column` is the column that holds them."""
    if units.cap is None or not groups.value_counts["capped"].any():
        return
    if units.cluster_column is not None or not {"weight", "denominator"}.isdisjoint(units.number_columns):
        return  # a mean over weights, a denominator or clusters varies even where the outcome does not
    outcome_moments = groups.column_moments.get(extremes_column)
    outcome_values = (
        groups.numeric_keys["value"]
        if outcome_moments is None
        else np.append(outcome_moments.min_value, outcome_moments.max_value)
    )
    if np.nanmin(outcome_values) == np.nanmax(outcome_values):
        raise DataError(
            f"the cap ({units.cap}) makes all outcomes in {units.number_columns['outcome']!r} equal, so no effect can "
            "be seen; give cap_quantile a higher quantile, or cap a value that outcomes lie on both sides of"
        )


def _reduce_to_means(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    _check_outcome_varies(groups, units.number_columns["outcome"])
    y = groups.column_moments["y0"]
    keys, columns = pool_groups(groups.cell_keys, {"n": groups.unit_counts, "mean": y.mean, "ss": y.ss})
    if _is_binary(y):
        columns["events"] = np.round(columns["n"] * columns["mean"]).astype(np.int64)
    return keys, columns, {}


def _is_binary(y: Moments) -> bool:
    """Tell whether all values of an outcome are 0 or 1, from its moments.

    Counting the zeros and ones would make the whole query a fifth slower.
    """
    n, total = y.n, y.n * y.mean
    has_values = n > 0
    if not np.isin(y.min_value[has_values], (0, 1)).all() or not np.isin(y.max_value[has_values], (0, 1)).all():
        return False
    # Within [0, 1] each y − y² ≥ 0, so all are 0 or 1 if Σ y − Σ y² = 0, with Σ y² = SS + n ȳ².
    off_binary = total - (y.ss + total * y.mean)
    return bool((np.abs(off_binary[has_values]) <= SUM_OF_SQUARES_RTOL * np.maximum(total[has_values], 1)).all())


def _check_outcome_varies(groups: GroupedUnits, outcome: str) -> None:
    y = groups.column_moments["y0"]
    lowest_outcome, highest_outcome = float(np.nanmin(y.min_value)), float(np.nanmax(y.max_value))
    if lowest_outcome == highest_outcome == 0:
        raise DataError(
            f"no events in any cell: every outcome in {outcome!r} is 0, so no effect can be seen; check "
            "the column, and that no filter removed what happened"
        )
    if lowest_outcome == highest_outcome:
        raise DataError(
            f"the outcome does not vary: {outcome!r} is {lowest_outcome:g} for every unit, so no effect can be seen; "
            "check the column"
        )


def _build_rates_query() -> StatisticsQuery:
    import narwhals.stable.v2 as nw

    events, exposure = nw.col("y0"), nw.col("y1")
    derived_columns = {
        "broken": nw.when((events < 0) | (events != events.floor())).then(events),
        "negative": nw.when(exposure < 0).then(exposure),
    }
    return StatisticsQuery(derived_columns, ["broken", "negative"], sum_columns=["y0", "y1"])


def _reduce_to_rates(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    outcome, exposure_column = units.number_columns["outcome"], units.number_columns["exposure"]
    broken_count, negative_count = int(groups.value_counts["broken"].sum()), int(groups.value_counts["negative"].sum())
    if broken_count:
        raise DataError(
            f"{format_count(broken_count, 'outcome', 'outcomes')} in {outcome!r} cannot be a number of events: with "
            "exposure the outcome must be a whole number, 0 or more; for other numbers leave exposure out"
        )
    if negative_count:
        raise DataError(
            f"{format_count(negative_count, 'exposure', 'exposures')} in {exposure_column!r} "
            f"{'is' if negative_count == 1 else 'are'} negative; exposure is time, visits or area, 0 or more: correct "
            "the column"
        )
    events, exposure = groups.column_sums["y0"], groups.column_sums["y1"]
    if not events.any():
        raise DataError(f"no events in any cell: every outcome in {outcome!r} is 0, so no effect can be seen")
    if events.sum() >= MAX_EXACT_EVENTS:
        raise DataError(f"there are {events.sum():g} events in {outcome!r}, too many to count; check the column")
    return *pool_groups(
        groups.cell_keys, {"n": groups.unit_counts, "events": events.astype(np.int64), "exposure": exposure}
    ), {}


def _build_two_part_query() -> StatisticsQuery:
    import narwhals.stable.v2 as nw

    y = nw.col("y0")
    logs = nw.when(y > 0).then(y).otherwise(1.0).log()  # pandas takes logarithms of what is masked, too
    return StatisticsQuery({"logs": nw.when(y > 0).then(logs)}, moment_columns=["y0", "logs"])


def _reduce_to_two_parts(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    outcome = units.number_columns["outcome"]
    alternative_metric = 'use metric="mean" with the family mean or normal'
    y, logs = groups.column_moments["y0"], groups.column_moments["logs"]
    if (y.min_value < 0).any():
        raise DataError(
            f"a two-part outcome is 0 or more, but {outcome!r} goes down to {y.min_value.min():g}; {alternative_metric}"
        )
    positive = logs.n
    if not positive.any():
        raise DataError(f"no outcome in {outcome!r} is greater than 0, so no effect can be seen; check the column")
    if (positive == groups.unit_counts).all():
        raise DataError(f"no outcome in {outcome!r} is 0, so it has one part, not two; {alternative_metric}")
    if np.nanmin(logs.min_value) == np.nanmax(logs.max_value):
        raise DataError(
            f"all outcomes in {outcome!r} that are greater than 0 are equal: it says yes or no; make it 0 "
            'or 1, and use metric="mean" with the family binomial'
        )
    columns: dict[str, CellValues] = {
        "n": groups.unit_counts,
        "mean": y.mean,
        "ss": y.ss,
        "positive": positive,
        "log_mean": logs.mean,
        "log_ss": logs.ss,
    }
    return *pool_groups(groups.cell_keys, columns), {}


def _build_histogram_query() -> StatisticsQuery:
    import narwhals.stable.v2 as nw

    return StatisticsQuery({"value": nw.col("y0")}, numeric_keys=["value"])


def _check_histogram_values(groups: GroupedUnits, units: UnitRows) -> None:
    """Raise DataError if the outcome has too many values, which later would look like too many cells."""
    outcome_values = groups.numeric_keys["value"]
    check_value_count(outcome_values[np.isfinite(outcome_values)], f"the outcome {units.number_columns['outcome']!r}")


def _reduce_to_histogram(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    return build_histogram(
        groups.cell_keys,
        groups.numeric_keys["value"],
        groups.unit_counts,
        f"the outcome {units.number_columns['outcome']!r}",
    )


METRIC_REDUCTIONS = MappingProxyType(
    {
        "mean": MetricReduction(lambda: StatisticsQuery(moment_columns=["y0"]), _reduce_to_means, extremes_column="y0"),
        "rates": MetricReduction(_build_rates_query, _reduce_to_rates),
        "two_part": MetricReduction(_build_two_part_query, _reduce_to_two_parts, extremes_column="y0"),
        "histogram": MetricReduction(_build_histogram_query, _reduce_to_histogram, _check_histogram_values),
    }
)
