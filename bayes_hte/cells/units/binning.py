"""Cut numbers and dates into levels, inside the engine that holds them, and merge rare levels."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte._support.validation import describe_value, to_int
from bayes_hte.cells.reading.engines import fetch_rows
from bayes_hte.cells.reading.labels import format_bin_label, format_label, is_missing
from bayes_hte.cells.units.statistics import query_quantiles
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec.cell_table import OTHER_LEVEL

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

Period = Literal["day", "week", "month", "quarter", "year"]
type BinSpec = int | Sequence[float] | Period
"""A number of bins of about equal size, the edges to cut at, or the period that dates are put together by."""

PERIOD_NAMES = ("day", "week", "month", "quarter", "year")

MAX_BINS = 100
"""A number of bins above this was meant to be something else, such as an edge."""

MAX_NAMED_LEVELS = 10
"""A note lists so many levels, then counts the others: a column of names may have thousands."""


@dataclass(frozen=True, slots=True)
class NumberCuts:
    """Bins of numbers, which include their lower ends."""

    edges: tuple[float, ...]

    def build_expression(self, column: "nw.Expr") -> "nw.Expr":
        """Build the expression of the bin's number, from 0; null where a number is missing or infinite."""
        import narwhals.stable.v2 as nw

        # The bin's number is how many edges lie at or below the value: Σ 1(x ≥ edge). Every engine can add.
        edge_indicators = [nw.when(column >= edge).then(1).otherwise(0) for edge in self.edges]
        bin_number = edge_indicators[0]
        for indicator in edge_indicators[1:]:
            bin_number = bin_number + indicator
        return nw.when(column.is_finite()).then(bin_number)

    def label_bin(self, bin_text: str) -> str:
        """Label the level of a bin, whose number is given as text."""
        bin_ends = (-math.inf, *self.edges, math.inf)
        return format_bin_label(bin_ends[int(bin_text)], bin_ends[int(bin_text) + 1])

    def describe_cut(self, dimension: str) -> str:
        """Describe the cuts of a dimension, for the notes."""
        return f"{dimension} is cut at {', '.join(str(format_label(edge)) for edge in self.edges)}"


@dataclass(frozen=True, slots=True)
class CalendarPeriods:
    """Calendar periods of dates: days, weeks, months, quarters or years."""

    period: Period
    time_zone: str = ""  # its clock says where a day begins; "" for dates without a time zone

    def build_expression(self, column: "nw.Expr") -> "nw.Expr":
        """Build the expression of the period, by the clock of the time zone.

        It gives the day, also for weeks, which not all engines know; else a number: 202604 is April 2026.
        """
        import narwhals.stable.v2 as nw

        local_time = column.dt.replace_time_zone(None) if self.time_zone else column
        if self.period in {"day", "week"}:
            return local_time.dt.truncate("1d")
        year, month = local_time.dt.year(), local_time.dt.month()
        match self.period:
            case "month":
                return year * 100 + month
            case "quarter":
                # The quarter is 1 + the number of quarters that have ended before the month.
                after_september, after_june, after_march = (
                    nw.when(month >= first_month).then(1).otherwise(0) for first_month in (10, 7, 4)
                )
                return year * 100 + after_march + after_june + after_september + 1
        return year

    def label_bin(self, period_text: str) -> str:
        """Label the level of a period, whose day or number is given as text."""
        match self.period:
            case "day":
                return period_text[:10]
            case "week":
                day = date.fromisoformat(period_text[:10])
                return f"week of {(day - timedelta(days=day.weekday())).isoformat()}"
            case "month":
                return f"{period_text[:-2]}-{period_text[-2:]}"
            case "quarter":
                return f"{period_text[:-2]} Q{period_text[-1]}"
        return period_text

    def describe_cut(self, dimension: str) -> str:
        """Describe the cuts of a dimension, for the notes."""
        return f"{dimension} is put together by {self.period}" + (
            f", by the clock of {self.time_zone}" if self.time_zone else ""
        )


type DimensionCut = NumberCuts | CalendarPeriods


def check_bins(bins: Mapping[str, BinSpec], dims: Sequence[str]) -> dict[str, BinSpec]:
    """Check that the bins of each dimension can be made, and return them with whole numbers as int.

    Raises
    ------
    ArgumentError
        If a dimension is not among the segments, or its bins are no count, cuts or period.
    """
    if not isinstance(bins, Mapping):
        raise ArgumentError(f"bins are {bins!r}; say of which dimension they are, as in bins={{{dims[0]!r}: {bins!r}}}")
    # NumPy's whole numbers count as well.
    bins = {
        dimension: bin_spec if (bin_count := to_int(bin_spec)) is None else bin_count
        for dimension, bin_spec in bins.items()
    }
    for dimension, chosen_bins in bins.items():
        if dimension not in dims:
            raise ArgumentError(
                f"bins are asked for {dimension!r}, which is not among the segments {quote_names(dims)}; add it there"
            )
        if isinstance(chosen_bins, str):
            if chosen_bins not in PERIOD_NAMES:
                raise ArgumentError(
                    f"bins of {dimension!r} are {chosen_bins!r}; dates are put together by {', '.join(PERIOD_NAMES)}"
                )
        elif isinstance(chosen_bins, bool) or (isinstance(chosen_bins, int) and not 2 <= chosen_bins <= MAX_BINS):
            raise ArgumentError(
                f"bins of {dimension!r} are {chosen_bins!r}; give a number from 2 to {MAX_BINS}, or the cuts as a list"
            )
        elif not isinstance(chosen_bins, int):
            _check_edges(dimension, chosen_bins)
    return dict(bins)


def _check_edges(dimension: str, raw_edges: Sequence[float]) -> None:
    try:
        edges = [float(edge) for edge in raw_edges]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"bins of {dimension!r} must be cuts such as [18, 35], a number of bins or a period such as 'day': {error}"
        ) from error
    is_ascending = all(lower < upper for lower, upper in itertools.pairwise(edges))
    if not edges or len(edges) >= MAX_BINS or not is_ascending or not all(map(math.isfinite, edges)):
        raise ArgumentError(
            f"the cuts of {dimension!r} must be finite and ascend, 1 to {MAX_BINS - 1} of them, but are {edges[:10]}; "
            "sort them, and leave out repetitions"
        )


def choose_cut(
    frame: "nw.LazyFrame[Any]", column_name: str, *, dimension: str, bin_spec: BinSpec, table_name: str
) -> DimensionCut:
    """Choose the edges or periods of a dimension; quantiles come from the engine, over all rows together.

    Parameters
    ----------
    frame
        Rows.
    column_name
        Column of float64 among them; of dates for a period.
    dimension
        What the dimension is called.
    bin_spec
        Number of bins, edges or period.
    table_name
        What messages call the rows.

    Raises
    ------
    DataError
        If all numbers are equal, or missing, or dates are none.
    """
    if isinstance(bin_spec, str):
        return CalendarPeriods(bin_spec, time_zone=_find_time_zone(frame, column_name, dimension, table_name))
    if not isinstance(bin_spec, int):
        return NumberCuts(tuple(float(edge) for edge in bin_spec))
    quantile_values = compute_quantiles(
        frame,
        column_name,
        [i / bin_spec for i in range(bin_spec)],
        subject=f"the dimension {dimension!r}",
        table_name=table_name,
    )
    # Without the smallest value: bins include their lower ends, so that nothing would lie below it.
    edges = _shorten_edges(frame, column_name, sorted(set(quantile_values[1:]) - {quantile_values[0]}), table_name)
    if not edges:
        raise DataError(
            f"the dimension {dimension!r} cannot be cut into {bin_spec} bins: too many units have the value "
            f"{format_label(quantile_values[0])}; state the cuts, or leave the bins out"
        )
    return NumberCuts(tuple(edges))


def _find_time_zone(frame: "nw.LazyFrame[Any]", column_name: str, dimension: str, table_name: str) -> str:
    """Find the time zone whose clock says where a day begins: the column's or the engine's; "" if dates have none.

    Raises
    ------
    DataError
        If the column holds no dates.
    """
    import narwhals.stable.v2 as nw

    dtype = frame.collect_schema()[column_name]
    if dtype in (nw.Date, nw.Datetime):
        time_zone_name = getattr(dtype, "time_zone", None) or ""
        # Databases convert points in time by the clock of the session.
        return "the database" if time_zone_name and frame.implementation.is_ibis() else time_zone_name
    if dtype == nw.Unknown and (frame.implementation.is_pandas() or frame.implementation.is_dask()):
        # narwhals knows no zones with an underscore in their names, such as America/New_York.
        native_dtype = frame.to_native().dtypes[column_name]
        if time_zone_name := getattr(getattr(native_dtype, "pyarrow_dtype", native_dtype), "tz", None):
            return str(time_zone_name)
    raise DataError(
        f"the dimension {dimension!r} of {table_name} has dtype {dtype}, and a period needs dates; convert the "
        "column, as pandas.to_datetime does"
    )


def _shorten_edges(
    frame: "nw.LazyFrame[Any]", column_name: str, edges: Sequence[float], table_name: str
) -> list[float]:
    """Shorten edges to the shortest numbers that cut the values alike.

    Engines round the quantiles between two values differently; any number between the two cuts alike.
    """
    import narwhals.stable.v2 as nw

    if not edges:
        return []
    value = nw.col(column_name)
    side_expressions: dict[str, nw.Expr] = {}
    for i, edge in enumerate(edges):
        edge_below = edge - 1e-12 * abs(edge)  # a quantile that is a value may come out a rounding error above it
        side_expressions[f"below{i}"] = nw.when(value.is_finite() & (value < edge_below)).then(value)
        side_expressions[f"above{i}"] = nw.when(value.is_finite() & (value >= edge_below)).then(value)
    neighbour_expressions = [(nw.col(f"below{i}").max(), nw.col(f"above{i}").min()) for i in range(len(edges))]
    neighbours = itertools.batched(
        fetch_rows(frame.select(**side_expressions).select(*itertools.chain(*neighbour_expressions)), table_name)[0], 2
    )
    return sorted(
        {
            _find_shortest_number(float(largest_below), float(smallest_above))
            for largest_below, smallest_above in neighbours
            if not is_missing(largest_below)
        }
    )


def _find_shortest_number(lower_bound: float, upper_bound: float) -> float:
    """Find the number with the fewest digits that is greater than `lower_bound` and at most `upper_bound`.

    Examples
    --------
    >>> [_find_shortest_number(*bounds) for bounds in ((17.0, 18.0), (2.8571, 3.1416), (-0.02, 0.0))]
    [18.0, 3.0, 0.0]
    """
    decimal_bound = Decimal(repr(upper_bound))
    # 16 digits tell nearly all float64 apart; where they do not, the bound itself is the answer.
    for digit_count in range(1, 17):
        edge = float(
            decimal_bound.quantize(Decimal(1).scaleb(decimal_bound.adjusted() - digit_count + 1), rounding=ROUND_FLOOR)
        )
        if lower_bound < edge <= upper_bound:
            return edge
    return upper_bound


def compute_quantiles(
    frame: "nw.LazyFrame[Any]", column_name: str, probabilities: Sequence[float], *, subject: str, table_name: str
) -> list[float]:
    """Compute quantiles over all finite values of a column in the engine, by linear interpolation.

    Raises
    ------
    DataError
        If there is no finite value.
    """
    import narwhals.stable.v2 as nw

    # Engines treat NaN and infinities differently, but all of them leave out nulls.
    value = nw.col(column_name)
    finite_values = frame.select(nw.when(value.is_finite()).then(value).alias("finite"))
    quantile_values = query_quantiles(finite_values, "finite", probabilities, table_name=table_name)
    if not all(map(math.isfinite, quantile_values)):
        raise DataError(f"{subject} has no finite value, so no quantile; check the column")
    return quantile_values


def check_rare(rare: int | Mapping[str, int] | None, dims: Sequence[str]) -> dict[str, int]:
    """Check the least number of rows that a level must have, and return it by dimension.

    Raises
    ------
    ArgumentError
        If a dimension is not there, or the number is not above 1.
    """
    if rare is None:
        return {}
    is_single = isinstance(rare, bool) or to_int(rare) is not None
    if not is_single and not isinstance(rare, Mapping):
        raise ArgumentError(
            f"rare is {describe_value(rare)}; give a number of rows, or numbers by dimension as in {{{dims[0]!r}: 50}}"
        )
    minimum_rows = {}
    for dimension, raw_minimum in (rare if isinstance(rare, Mapping) else dict.fromkeys(dims, rare)).items():
        if dimension not in dims:
            raise ArgumentError(
                f"rare names {dimension!r}, which is not among the segments {quote_names(dims)}; add it there"
            )
        minimum = to_int(raw_minimum)
        if minimum is None or minimum < 2:
            raise ArgumentError(
                f"rare is {describe_value(raw_minimum)} for {dimension!r}; give a number of rows, 2 or more"
            )
        minimum_rows[dimension] = minimum
    return minimum_rows


def merge_rare_levels(
    level_labels: npt.NDArray[np.object_],
    row_counts: npt.NDArray[np.int64],
    *,
    dims: Sequence[str],
    minimum_rows: Mapping[str, int],
) -> tuple[npt.NDArray[np.object_], list[str]]:
    """Merge levels with too few rows into the level (other), and note which; missing levels stay apart.

    Parameters
    ----------
    level_labels
        Level of each group as text, None where it is missing; axes (dimension, group).
    row_counts
        Number of rows of each group.
    dims
        Names of the dimensions.
    minimum_rows
        By dimension, the least number of rows of a level that stays.
    """
    merged_levels, notes = level_labels.copy(), []
    for dimension, minimum in minimum_rows.items():
        level_column = merged_levels[dims.index(dimension)]
        level_rows: Counter[str] = Counter()
        for level, rows in zip(level_column, row_counts, strict=True):
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
        level_count = write_count(len(rare_levels), "level", "levels")
        notes.append(
            f"{level_count} of {dimension} with fewer than {minimum:,} rows form the level {OTHER_LEVEL}: "
            f"{shown_levels}{remainder}"
        )
    return merged_levels, notes
