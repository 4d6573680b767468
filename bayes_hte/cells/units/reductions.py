"""Reduce rows to means, rates, two parts or histograms: the numbers, the query, the checks and the cells of each."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayes_hte._support.phrases import write_count
from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.build import CellCoords, CellValues, pool_groups
from bayes_hte.cells.reading.answers import AnswerScale
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.summaries.from_levels import build_histogram, check_value_count
from bayes_hte.cells.units import adjusted_means
from bayes_hte.cells.units.adjusted_means import AdjustmentRecipe
from bayes_hte.cells.units.group_by import GroupedUnits, QueryBuilder
from bayes_hte.cells.units.scan.unit_rows import Cap, UnitRows
from bayes_hte.cells.units.statistics import Moments, StatisticsQuery
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec.cell_table import VALUE, VALUE_LABEL

type CapBounds = float | tuple[float, float]
"""The largest outcome, or the smallest and the largest."""

type ReducedCells = tuple[list[CellKey], dict[str, CellValues], CellCoords]
"""Distinct cells, their variables, and coordinates of dims beyond segment and arm."""

SUM_OF_SQUARES_RTOL = 1e-9
"""Rounding error of a sum of squares, relative to the sum; one value of 1/2 shows among 100 million ones."""

MAX_EXACT_EVENTS = 2**53
"""Beyond this float64, in which engines add, skips whole numbers."""


@dataclass(frozen=True, slots=True)
class MetricReduction:
    """One way to reduce rows: the numbers and the query to the engine, and the cells that its answer gives."""

    number_columns: Mapping[str, str]  # by role, the outcome first: the columns y0, y1, … of the query
    build_query: QueryBuilder
    reduce_groups: Callable[[GroupedUnits, UnitRows], ReducedCells]
    cap: Cap | None = None
    covariate_columns: Sequence[str] = ()  # from before treatment, which the outcome is adjusted for
    adjustment_recipe: AdjustmentRecipe | None = None  # of adjusted means
    check_groups: Callable[[GroupedUnits, UnitRows], None] = lambda groups, units: None  # of the answer as it came
    extremes_column: str | None = None  # its smallest and largest value are those of single outcomes
    extra_dims: Collection[str] = ()  # of the cell table, besides segment and arm
    takes_answers: bool = False  # whether the outcome may be words in an order
    answer_scale: AnswerScale | None = None  # their order, where it is stated
    size_unit: str | None = None  # what the sizes of cells count, where that is not units


def parse_cap(cap: CapBounds | None, cap_quantile: CapBounds | None) -> Cap | None:
    """Parse the cap of outcomes; None without one."""
    if cap is not None and cap_quantile is not None:
        raise ArgumentError("cap and cap_quantile are both given; name the value, or the quantile, at which to cap")
    cap_option = cap if cap_quantile is None else cap_quantile
    if cap_option is None:
        return None
    option_name = "cap" if cap_quantile is None else "cap_quantile"
    low, high = _parse_bounds(cap_option)
    # low = −∞ is no lower bound; NaN, from what is no number, fails low < high.
    if not low < high or not np.isfinite(high) or (cap_quantile is not None and not (low >= 0 or low == -np.inf)):
        raise ArgumentError(
            f"{option_name} is {describe_value(cap_option)}; give a finite number, or a pair of them, the smaller first"
        )
    if cap_quantile is not None and not 0 < high < 1:
        raise ArgumentError(
            f"cap_quantile is {describe_value(cap_option)}; quantiles lie between 0 and 1, such as 0.99 or (0.01, 0.99)"
        )
    return Cap(low, high, as_quantiles=cap_quantile is not None)


def _parse_bounds(bounds_option: object) -> tuple[float, float]:
    """Parse a cap option as lower and upper bound; NaN for both where it is no number and no pair of numbers."""
    plain: Any = bounds_option.tolist() if isinstance(bounds_option, np.ndarray) else bounds_option
    upper_bound = to_float(plain)
    if upper_bound is not None:  # a single number caps large outcomes only
        return -np.inf, upper_bound
    is_iterable = isinstance(plain, Iterable) and not isinstance(plain, Mapping | bytes)
    match [to_float(bound) for bound in plain] if is_iterable else []:
        case [float(low), float(high)]:
            return low, high
    return np.nan, np.nan


def check_cap(groups: GroupedUnits, units: UnitRows, extremes_column: str | None) -> None:
    """Raise DataError if a cap moved all outcomes to one value; `extremes_column` is the column that holds them."""
    if units.cap is None or not groups.value_counts["capped"].any():
        return
    if extremes_column is not None:
        outcome_moments = groups.column_moments[extremes_column]
        outcome_values = np.append(outcome_moments.min_value, outcome_moments.max_value)
    elif "value" in groups.numeric_keys:  # those of a histogram
        outcome_values = groups.numeric_keys["value"]
    else:
        return  # a mean over weights, a denominator or clusters varies even where the outcome does not
    if np.nanmin(outcome_values) == np.nanmax(outcome_values):
        raise DataError(
            f"the cap ({units.cap}) makes all outcomes in {units.columns.numbers['outcome']!r} equal, so no effect can "
            "be seen; give cap_quantile a higher quantile, or cap a value that outcomes lie on both sides of"
        )


def plan_means(outcome: str, cap: Cap | None) -> MetricReduction:
    """Plan the reduction to plain means: n, mean, sum of squares, and events if every outcome is 0 or 1."""
    return MetricReduction(
        {"outcome": outcome},
        lambda name_column: StatisticsQuery(moment_columns=[name_column("y0")]),
        _reduce_to_means,
        cap=cap,
        extremes_column="y0",
    )


def _reduce_to_means(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    _check_outcome_varies(groups, units.columns.numbers["outcome"])
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


def plan_adjusted_means(
    column_by_role: Mapping[str, str | None], *, cluster: str | None, cuped: Sequence[str], cap: Cap | None
) -> MetricReduction:
    """Plan the reduction to means with standard errors: ratios, weighted, of clusters, or adjusted for covariates.

    Parameters
    ----------
    column_by_role
        The outcome, and the denominator and the weight or None.
    cluster
        Column of what was assigned.
    cuped
        Columns from before treatment.
    cap
        Bounds of the outcome.
    """
    number_columns = {role: column for role, column in column_by_role.items() if column is not None}
    weights, denominator = number_columns.get("weight"), number_columns.get("denominator")
    # The recipe is stored with the cells: merged tables solve for their adjusted means anew.
    recipe = adjusted_means.build_recipe(denominator=denominator, weights=weights, cluster=cluster, cuped=cuped)
    position_of_role = {role: i for i, role in enumerate(number_columns)}
    has_single_outcomes = weights is None and denominator is None and cluster is None
    return MetricReduction(
        number_columns,
        lambda name_column: adjusted_means.build_query(
            recipe, name_column, weight=position_of_role.get("weight"), denominator=position_of_role.get("denominator")
        ),
        lambda groups, units: adjusted_means.reduce_to_adjusted_means(groups, units, recipe),
        cap=cap,
        covariate_columns=cuped,
        adjustment_recipe=recipe,
        size_unit=_name_size_unit(denominator, weights, cluster),
        extremes_column="y" if has_single_outcomes else None,
    )


def _name_size_unit(denominator: str | None, weights: str | None, cluster: str | None) -> str | None:
    """Name what an adjusted mean is a mean over, in the plural; None where that is units."""
    counted_things = denominator or ("rows" if cluster is not None else "units")
    if weights is not None:
        return f"{counted_things} weighted by {weights}"
    return None if counted_things == "units" else counted_things


def plan_rates(outcome: str, exposure: str) -> MetricReduction:
    """Plan the reduction to rates: n, events and exposure."""
    return MetricReduction(
        {"outcome": outcome, "exposure": exposure}, _build_rates_query, _reduce_to_rates, size_unit=exposure
    )


def _build_rates_query(name_column: Callable[[str], str]) -> StatisticsQuery:
    import narwhals.stable.v2 as nw

    events, exposure = nw.col(name_column("y0")), nw.col(name_column("y1"))
    derived_columns = {
        name_column("broken"): nw.when((events < 0) | (events != events.floor())).then(events),
        name_column("negative"): nw.when(exposure < 0).then(exposure),
    }
    return StatisticsQuery(derived_columns, list(derived_columns), sum_columns=[*map(name_column, ["y0", "y1"])])


def _reduce_to_rates(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    outcome, exposure_column = units.columns.numbers["outcome"], units.columns.numbers["exposure"]
    broken_count, negative_count = int(groups.value_counts["broken"].sum()), int(groups.value_counts["negative"].sum())
    if broken_count:
        raise DataError(
            f"{write_count(broken_count, 'outcome', 'outcomes')} in {outcome!r} cannot be a number of events: with "
            "exposure the outcome must be a whole number, 0 or more; for other numbers leave exposure out"
        )
    if negative_count:
        raise DataError(
            f"{write_count(negative_count, 'exposure', 'exposures')} in {exposure_column!r} "
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


def plan_two_parts(outcome: str, cap: Cap | None) -> MetricReduction:
    """Plan the reduction to two parts: the moments of the outcome, and of the logarithms of those above 0."""
    return MetricReduction(
        {"outcome": outcome}, _build_two_part_query, _reduce_to_two_parts, cap=cap, extremes_column="y0"
    )


def _build_two_part_query(name_column: Callable[[str], str]) -> StatisticsQuery:
    import narwhals.stable.v2 as nw

    y = nw.col(name_column("y0"))
    logs = nw.when(y > 0).then(y).otherwise(1.0).log()  # pandas takes logarithms of what is masked, too
    log_column = name_column("logs")
    return StatisticsQuery({log_column: nw.when(y > 0).then(logs)}, moment_columns=[name_column("y0"), log_column])


def _reduce_to_two_parts(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    outcome = units.columns.numbers["outcome"]
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


def plan_histograms(outcome: str, cap: Cap | None, answer_scale: AnswerScale | None) -> MetricReduction:
    """Plan the reduction to histograms: units by value of the outcome."""
    return MetricReduction(
        {"outcome": outcome},
        _build_histogram_query,
        _reduce_to_histogram,
        cap=cap,
        check_groups=_check_histogram_values,
        extra_dims=(VALUE, VALUE_LABEL),
        takes_answers=True,
        answer_scale=answer_scale,
    )


def _build_histogram_query(name_column: Callable[[str], str]) -> StatisticsQuery:
    import narwhals.stable.v2 as nw

    value_column = name_column("value")
    return StatisticsQuery({value_column: nw.col(name_column("y0"))}, numeric_keys=[value_column])


def _check_histogram_values(groups: GroupedUnits, units: UnitRows) -> None:
    """Raise DataError if the outcome has too many values, which later would look like too many cells."""
    outcome_values = groups.numeric_keys["value"]
    check_value_count(outcome_values[np.isfinite(outcome_values)], f"the outcome {units.columns.numbers['outcome']!r}")


def _reduce_to_histogram(groups: GroupedUnits, units: UnitRows) -> ReducedCells:
    return build_histogram(
        groups.cell_keys,
        groups.numeric_keys["value"],
        groups.unit_counts,
        f"the outcome {units.columns.numbers['outcome']!r}",
        units.answer_scale,
    )
