"""Ask an engine for the statistics of groups: counts, sums and moments, each of which adds up over parts of the rows.

Engines are asked only for what all of them compute stably: for a variance they keep the mean as they go, so that a
mean of 1e9 with a standard deviation of 1 loses no digits. One that does not (Dask combines partitions through sums
of squares) is asked partition by partition, and the parts are pooled here.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import batched
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.build import CellIndex, CellValues, index_cells, pool_means, sum_by_cell
from bayes_hte.cells.reading import dask
from bayes_hte.cells.reading.engines import cast_to_float64, fetch_rows, fetch_rows_or_none, make_no_rows_error
from bayes_hte.cells.reading.labels import CellKey, format_label, is_missing
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type FloatColumn = npt.NDArray[np.float64]
type CountColumn = npt.NDArray[np.int64]
type ColumnPair = tuple[str, str]

MOMENT_FUNCTIONS = MappingProxyType({"n": "count", "mean": "avg", "var": "var_samp", "low": "min", "high": "max"})
"""By what is kept of a column: the aggregate that gives it, as SQL calls it."""
BINARY_FUNCTIONS = MappingProxyType({"n": "count", "ones": "sum"})
"""The same of a column of zeros and ones, from which its moments follow exactly."""
MOMENT_FIELDS = ("n", "mean", "ss", "min_value", "max_value")
"""The fields of `Moments`."""
MAX_PANDAS_COLUMNS = 60
"""Statistics that pandas is asked for at a time."""


@dataclass(frozen=True, slots=True)
class StatisticsQuery:
    """The statistics that an engine is asked for, by column; nulls take no part in any of them."""

    derived_columns: "Mapping[str, nw.Expr]" = field(default_factory=lambda: MappingProxyType({}))
    count_columns: Sequence[str] = ()
    sum_columns: Sequence[str] = ()
    moment_columns: Sequence[str] = ()
    numeric_keys: Sequence[str] = ()  # columns of numbers to group by, as the values of a histogram
    product_pairs: Sequence[ColumnPair] = ()  # pairs of `moment_columns` whose products are summed
    binary_columns: Collection[str] = ()  # of `moment_columns`: all values are 0 or 1, so that counts say all
    complete_column: str = "y0"  # null in the rows that no statistic but their number is of


def merge_queries(queries: "Sequence[StatisticsQuery]") -> StatisticsQuery:
    """Merge the queries of several metrics into one, in which what two of them ask for stands once."""

    def merge_columns(field_name: str) -> list[Any]:
        return list(dict.fromkeys(name for query in queries for name in getattr(query, field_name)))

    return StatisticsQuery(
        {name: expression for query in queries for name, expression in query.derived_columns.items()},
        merge_columns("count_columns"),
        merge_columns("sum_columns"),
        merge_columns("moment_columns"),
        merge_columns("numeric_keys"),
        merge_columns("product_pairs"),
        merge_columns("binary_columns"),
    )


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of one column in each group: number, mean, sum of squared deviations, smallest and largest value."""

    n: CountColumn
    mean: FloatColumn
    ss: FloatColumn
    min_value: FloatColumn
    max_value: FloatColumn

    def take_groups(self, group_index: npt.NDArray[Any]) -> "Moments":
        """Select the moments of some groups, by index or mask."""
        return Moments(
            self.n[group_index],
            self.mean[group_index],
            self.ss[group_index],
            self.min_value[group_index],
            self.max_value[group_index],
        )


@dataclass(frozen=True, slots=True)
class StatisticsAnswer:
    """The answer of an engine, one entry per group; a group may appear several times, as parts to be pooled."""

    key_columns: Sequence[Sequence[Any]]  # one sequence per key
    row_counts: CountColumn
    numeric_keys: Mapping[str, FloatColumn]
    value_counts: Mapping[str, CountColumn]
    column_sums: Mapping[str, FloatColumn]
    column_moments: Mapping[str, Moments]
    pair_products: Mapping[ColumnPair, FloatColumn]  # Σ (x − x̄)(y − ȳ); pooled as sums of squares are


def list_aggregates(query: StatisticsQuery) -> list[tuple[str, str, str]]:
    """List the aggregates of a query: name in the answer, function in SQL, and column."""
    aggregates = [(f"count_{name}", "count", name) for name in query.count_columns]
    aggregates += [(f"sum_{name}", "sum", name) for name in query.sum_columns]
    aggregates += [
        (f"{statistic}_{name}", function, name)
        for name in query.moment_columns
        for statistic, function in (BINARY_FUNCTIONS if name in query.binary_columns else MOMENT_FUNCTIONS).items()
    ]
    pair_sums = map(name_pair_sum, query.product_pairs)
    return aggregates + [(f"var_{name}", MOMENT_FUNCTIONS["var"], name) for name in pair_sums]


def build_expressions(query: StatisticsQuery) -> "dict[str, nw.Expr]":
    """Build the aggregation expressions of a query, by their names in the answer."""
    import narwhals.stable.v2 as nw

    method_by_function = {
        "count": nw.Expr.count,
        "sum": nw.Expr.sum,
        "avg": nw.Expr.mean,
        "var_samp": nw.Expr.var,  # n − 1 in the denominator, as in SQL
        "min": nw.Expr.min,
        "max": nw.Expr.max,
    }
    return {
        "rows": nw.len(),
        **{name: method_by_function[function](nw.col(column)) for name, function, column in list_aggregates(query)},
    }


def name_pair_sum(column_pair: ColumnPair) -> str:
    """Name the column that holds the sum of two columns, whose variance gives their covariance in every engine."""
    return "_and_".join(column_pair)


def add_query_columns(frame: "nw.LazyFrame[Any]", query: StatisticsQuery) -> "nw.LazyFrame[Any]":
    """Add the derived columns of a query and the sums of its column pairs to the rows."""
    import narwhals.stable.v2 as nw

    rows = add_columns(frame, query.derived_columns)
    rows = add_columns(
        rows,
        {name_pair_sum((first, second)): nw.col(first) + nw.col(second) for first, second in query.product_pairs},
    )
    if not rows.implementation.is_ibis():
        return rows
    return cast_to_float64(
        rows,
        [
            *query.sum_columns,
            *query.moment_columns,
            *map(name_pair_sum, query.product_pairs),
        ],
    )


def add_columns(frame: "nw.LazyFrame[Any]", added_columns: "Mapping[str, nw.Expr]") -> "nw.LazyFrame[Any]":
    """Add columns to the rows, if there are any to add."""
    return frame.with_columns(**added_columns) if added_columns else frame


def query_statistics(
    frame: "nw.LazyFrame[Any]",
    key_columns: Sequence[str],
    query: StatisticsQuery,
    *,
    table_name: str,
    group_limit: int,
) -> StatisticsAnswer:
    """Carry out one group-by.

    Parameters
    ----------
    frame
        Rows.
    key_columns
        Columns to group by; nulls form a group.
    query
        Statistics that are asked for.
    table_name
        What messages call the rows.
    group_limit
        The answer has at most one group more than this.

    Raises
    ------
    DataError
        If there are no rows, or a text is none.
    TypeError
        If a key holds lists, dicts or the like.
    """
    rows = add_query_columns(frame, query)
    if not frame.implementation.is_dask():
        try:
            answer_rows = _fetch_groups(
                rows, key_columns, query, group_limit, lambda groups: fetch_rows(groups, table_name)
            )
        except UnicodeEncodeError as error:
            raise _build_surrogate_error(table_name, error) from error
        return parse_answer(answer_rows, key_columns, query)
    return query_partitions(rows, [key_columns], query, table_name=table_name, group_limit=group_limit)[0]


def query_partitions(
    rows: "nw.LazyFrame[Any]",
    key_sets: Sequence[Sequence[str]],
    query: StatisticsQuery,
    *,
    table_name: str,
    group_limit: int,
) -> list[StatisticsAnswer]:
    """Group the partitions of a Dask table, each read once, by several sets of keys, and pool the answers.

    Parameters
    ----------
    rows
        Rows with the columns of `add_query_columns`.
    key_sets
        Sets of columns to group by.
    query, table_name, group_limit
        As `query_statistics` takes them.
    """
    plain_query = replace(query, derived_columns={})  # what crosses to other processes holds no expressions
    answer_partition = partial(_query_partition, key_sets=key_sets, query=plain_query, group_limit=group_limit)
    pooled_answers: list[StatisticsAnswer] = dask.combine_partitions(
        rows.to_native(), answer_partition, partial(_pool_by_set, group_limit=group_limit)
    )
    if not pooled_answers[0].row_counts.size:
        raise make_no_rows_error(table_name)
    return pooled_answers


def query_quantiles(
    frame: "nw.LazyFrame[Any]", column_name: str, probabilities: Sequence[float], *, table_name: str
) -> list[float]:
    """Compute quantiles of a column in which NaN is null, by linear interpolation; NaN where it has no value.

    Raises
    ------
    DataError
        If there are no rows.
    """
    import narwhals.stable.v2 as nw

    if frame.implementation.is_dask():
        return dask.compute_quantiles(frame.to_native(), column_name, probabilities)
    quantile_expressions = {
        f"q{i}": nw.col(column_name).quantile(probability, "linear") for i, probability in enumerate(probabilities)
    }
    return [
        float(value)
        for value in convert_to_float_column(fetch_rows(frame.select(**quantile_expressions), table_name)[0])
    ]


def aggregate_groups(
    rows: "nw.LazyFrame[Any]",
    key_columns: Sequence[str],
    query: StatisticsQuery,
    output_names: Collection[str] | None = None,
) -> "nw.LazyFrame[Any]":
    """Group rows that have the columns of `add_query_columns`: keys, then the columns of `list_aggregates`, or some."""
    grouped_rows = rows.group_by(*key_columns, *query.numeric_keys, drop_null_keys=False)
    return grouped_rows.agg(
        *(
            expression.alias(output_name)
            for output_name, expression in build_expressions(query).items()
            if output_names is None or output_name in output_names
        )
    )


def _fetch_groups(
    rows: "nw.LazyFrame[Any]",
    key_columns: Sequence[str],
    query: StatisticsQuery,
    group_limit: int,
    fetch_table: Callable[["nw.LazyFrame[Any]"], list[tuple[Any, ...]]],
) -> list[tuple[Any, ...]]:
    """Fetch one row per group; from pandas, which warns of tables of more than 100 columns, a few columns at a time."""
    columns_per_query = MAX_PANDAS_COLUMNS if rows.implementation.is_pandas() else None
    output_names = list(build_expressions(query))
    if columns_per_query is None or len(output_names) <= columns_per_query:
        return fetch_table(aggregate_groups(rows, key_columns, query).head(group_limit + 1))
    # The groups have the same order each time: that of their first rows.
    answers = [
        fetch_table(aggregate_groups(rows, key_columns, query, names).head(group_limit + 1))
        for names in batched(output_names, columns_per_query)
    ]
    key_count = len(key_columns) + len(query.numeric_keys)
    return [
        (*first_row, *(value for row in more_rows for value in row[key_count:]))
        for first_row, *more_rows in zip(*answers, strict=True)
    ]


def _build_surrogate_error(table_name: str, error: UnicodeEncodeError) -> DataError:
    return DataError(
        f"a text in {table_name} holds {error.object[error.start : error.end]!r}, half of a character (a lone "
        "surrogate); remove it, or read the data in their own encoding"
    )


def _query_partition(
    partition: Any, key_sets: Sequence[Sequence[str]], query: StatisticsQuery, group_limit: int
) -> list[StatisticsAnswer]:
    """Compute the statistics of one Dask partition by each set of keys, in the worker that holds it."""
    import narwhals.stable.v2 as nw

    rows = nw.from_native(partition).lazy()
    return [
        parse_answer(_fetch_groups(rows, key_columns, query, group_limit, fetch_rows_or_none), key_columns, query)
        for key_columns in key_sets
    ]


def _pool_by_set(answers: Sequence[Sequence[StatisticsAnswer]], group_limit: int) -> list[StatisticsAnswer]:
    """Pool the answers of partitions, those of each set of keys for themselves."""
    return [pool_answers(set_answers, group_limit) for set_answers in zip(*answers, strict=True)]


def pool_answers(answers: Sequence[StatisticsAnswer], group_limit: int) -> StatisticsAnswer:
    """Pool answers, one entry per group; keys with the same text, or missing, are one group."""
    joined = answers[0] if len(answers) == 1 else _join_answers(answers)
    key_texts = (
        [format_label(value) or "" for value in key_column]
        for key_column in (*joined.key_columns, *joined.numeric_keys.values())
    )
    group_keys: list[CellKey] = [(key_levels, "") for key_levels in zip(*key_texts, strict=True)]
    distinct_keys, cell_index = index_cells(group_keys)
    n_cells = min(len(distinct_keys), group_limit + 1)
    if n_cells == len(group_keys):  # nothing to pool
        return joined
    kept_index = np.full(len(distinct_keys), -1)
    kept_index[cell_index] = np.arange(len(group_keys))

    def sum_groups(values: CellValues) -> Any:
        return sum_by_cell(values, cell_index, len(distinct_keys))[:n_cells]

    pooled_moments, deviations = _pool_moments(joined.column_moments, cell_index, len(distinct_keys))
    return StatisticsAnswer(
        [[key_column[i] for i in kept_index[:n_cells]] for key_column in joined.key_columns],
        sum_groups(joined.row_counts),
        {name: values[kept_index[:n_cells]] for name, values in joined.numeric_keys.items()},
        {name: sum_groups(counts) for name, counts in joined.value_counts.items()},
        {name: sum_groups(sums) for name, sums in joined.column_sums.items()},
        {name: moments.take_groups(np.arange(n_cells)) for name, moments in pooled_moments.items()},
        {
            # Σ products_g + Σ n_g (x̄_g − x̄)(ȳ_g − ȳ); both columns are known of the same units
            (first, second): sum_groups(
                products + joined.column_moments[first].n * deviations[first] * deviations[second]
            )
            for (first, second), products in joined.pair_products.items()
        },
    )


def select_keys(answer: StatisticsAnswer, positions: Sequence[int], group_limit: int) -> StatisticsAnswer:
    """Pool the groups of an answer that differ in other keys than those at `positions`."""
    return pool_answers([replace(answer, key_columns=[answer.key_columns[i] for i in positions])], group_limit)


def _pool_moments(
    column_moments: Mapping[str, Moments], cell_index: CellIndex, n_cells: int
) -> tuple[dict[str, Moments], dict[str, FloatColumn]]:
    """Pool the moments of columns over the groups of a cell; return each group's deviations from the mean, too."""
    if not column_moments:
        return {}, {}
    n, mean, ss, low, high = (
        np.stack([getattr(moments, name) for moments in column_moments.values()], axis=-1) for name in MOMENT_FIELDS
    )
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused as such
        pooled_mean, deviations = pool_means(n, mean, cell_index, n_cells)
        pooled_ss: FloatColumn = sum_by_cell(ss + n * deviations**2, cell_index, n_cells).astype(np.float64)
    pooled_n: CountColumn = sum_by_cell(n, cell_index, n_cells).astype(np.int64)
    lowest, highest = np.full((2, n_cells, len(column_moments)), np.nan)
    np.fmin.at(lowest, cell_index, low)
    np.fmax.at(highest, cell_index, high)
    return (
        {
            name: Moments(pooled_n[:, i], pooled_mean[:, i], pooled_ss[:, i], lowest[:, i], highest[:, i])
            for i, name in enumerate(column_moments)
        },
        {name: deviations[:, i] for i, name in enumerate(column_moments)},
    )


def _join_answers(answers: Sequence[StatisticsAnswer]) -> StatisticsAnswer:
    """Put answers to one query one behind the other."""
    first = answers[0]

    def join_values(field_name: str) -> dict[Any, Any]:
        columns = [getattr(answer, field_name) for answer in answers]
        return {name: np.concatenate([values[name] for values in columns]) for name in columns[0]}

    def join_moments(column_name: str) -> Moments:
        parts = [answer.column_moments[column_name] for answer in answers]
        return Moments(*(np.concatenate([getattr(part, name) for part in parts]) for name in MOMENT_FIELDS))

    return StatisticsAnswer(
        [[value for answer in answers for value in answer.key_columns[i]] for i in range(len(first.key_columns))],
        np.concatenate([answer.row_counts for answer in answers]),
        join_values("numeric_keys"),
        join_values("value_counts"),
        join_values("column_sums"),
        {name: join_moments(name) for name in first.column_moments},
        join_values("pair_products"),
    )


def parse_answer(
    rows: Sequence[tuple[Any, ...]], key_columns: Sequence[str], query: StatisticsQuery
) -> StatisticsAnswer:
    """Parse the rows that an engine answers with: keys, then the columns of `list_aggregates`."""
    output_names = [*query.numeric_keys, "rows", *(name for name, _, _ in list_aggregates(query))]
    for row in rows:
        # Some engines group by lists: refused as in pandas, where this is a TypeError.
        hash(row[: len(key_columns)])
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(key_columns) + len(output_names))
    output_values = {
        name: convert_to_float_column(column_values)
        for name, column_values in zip(output_names, columns[len(key_columns) :], strict=True)
    }
    column_moments = {
        name: (_derive_binary_moments if name in query.binary_columns else _derive_moments)(output_values, name)
        for name in query.moment_columns
    }
    return StatisticsAnswer(
        columns[: len(key_columns)],
        convert_to_counts(output_values["rows"]),
        {name: output_values[name] for name in query.numeric_keys},
        {name: convert_to_counts(output_values[f"count_{name}"]) for name in query.count_columns},
        {name: output_values[f"sum_{name}"] for name in query.sum_columns},
        column_moments,
        {
            pair: _derive_products(
                column_moments[pair[0]],
                column_moments[pair[1]],
                output_values[f"var_{name_pair_sum(pair)}"],
            )
            for pair in query.product_pairs
        },
    )


def _derive_products(first: Moments, second: Moments, sum_variance: FloatColumn) -> FloatColumn:
    """Derive Σ (x − x̄)(y − ȳ) of each group from the variance of x + y; both columns are known of the same units."""
    # Σ (x − x̄)(y − ȳ) = ((n − 1) Var(x + y) − SS_x − SS_y) / 2; exactly 0 where a column is constant.
    both_vary = (first.ss > 0) & (second.ss > 0)
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused as such
        return np.where(
            both_vary,
            (np.nan_to_num(sum_variance) * (first.n - 1) - first.ss - second.ss) / 2,
            0.0,
        )


def _derive_moments(output_values: Mapping[str, FloatColumn], column_name: str) -> Moments:
    """Derive the moments of a column from the answer; sums of squares are 0 where all values are equal."""
    n, mean, variance, min_value, max_value = (
        output_values[f"{statistic}_{column_name}"] for statistic in ("n", "mean", "var", "low", "high")
    )
    # SS = (n − 1) Var; rounding may leave a trace of variance among equal values, and one value has no variance.
    with np.errstate(over="ignore"):  # what is too large is refused as such
        sum_of_squares = np.where((n > 1) & (min_value < max_value), variance * (n - 1), 0.0)
    return Moments(convert_to_counts(n), mean, sum_of_squares, min_value, max_value)


def _derive_binary_moments(output_values: Mapping[str, FloatColumn], column_name: str) -> Moments:
    """Derive the moments of a column of zeros and ones from their numbers."""
    n, ones = convert_to_counts(output_values[f"n_{column_name}"]), np.nan_to_num(output_values[f"ones_{column_name}"])
    has_values = n > 0
    # SS = Σ y² − (Σ y)² / n = k (n − k) / n for k ones, as y² = y.
    share = np.where(has_values, ones / np.maximum(n, 1), np.nan)
    sum_of_squares = ones * (n - ones) / np.maximum(n, 1)
    lowest = np.where(has_values, np.where(ones < n, 0.0, 1.0), np.nan)
    highest = np.where(has_values, np.where(ones > 0, 1.0, 0.0), np.nan)
    return Moments(n, share, sum_of_squares, lowest, highest)


def convert_to_float_column(raw_values: Sequence[Any]) -> FloatColumn:
    """Convert the numbers of any engine to float64, with NaN where there is none."""
    try:  # None becomes NaN, decimals become floats
        return np.array(raw_values, dtype=np.float64)
    except (TypeError, ValueError):  # pandas' own missing values do not
        return np.array([np.nan if is_missing(value) else float(value) for value in raw_values], dtype=np.float64)


def convert_to_counts(float_values: FloatColumn) -> CountColumn:
    """Convert to whole numbers; 0 where a sum over no rows is null, as in SQL."""
    return np.nan_to_num(float_values).astype(np.int64)
