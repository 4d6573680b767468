"""Ask an engine for the statistics of groups: counts, sums and moments, each of which adds up over parts of the rows.

Engines are asked only for what all of them compute stably: for a variance they keep the mean as they go, so that a
mean of 1e9 with a standard deviation of 1 loses no digits. One that does not (Dask combines partitions through sums
of squares) is asked partition by partition, and the parts are pooled here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.build import CellValues, pool_groups
from bayes_hte.cells.reading import dask
from bayes_hte.cells.reading.engines import cast_to_float64, fetch_rows, make_no_rows_error
from bayes_hte.cells.reading.labels import CellKey, format_label, is_missing
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type FloatColumn = npt.NDArray[np.float64]
type CountColumn = npt.NDArray[np.int64]
type ColumnPair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StatisticsQuery:
    """The statistics that an engine is asked for, by column; nulls take no part in any of them."""

    derived_columns: "Mapping[str, nw.Expr]" = field(default_factory=lambda: MappingProxyType({}))
    count_columns: Sequence[str] = ()
    sum_columns: Sequence[str] = ()
    moment_columns: Sequence[str] = ()
    numeric_keys: Sequence[str] = ()  # columns of numbers to group by, as the values of a histogram
    product_pairs: Sequence[ColumnPair] = ()  # pairs of `moment_columns` whose products are summed


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


def build_expressions(query: StatisticsQuery) -> "dict[str, nw.Expr]":
    """Build the aggregation expressions of a query, by their names in the answer."""
    import narwhals.stable.v2 as nw

    named_expressions = {"rows": nw.len()}
    named_expressions |= {f"count_{name}": nw.col(name).count() for name in query.count_columns}
    named_expressions |= {f"sum_{name}": nw.col(name).sum() for name in query.sum_columns}
    for name in query.moment_columns:
        column_values = nw.col(name)
        named_expressions |= {
            f"n_{name}": column_values.count(),
            f"mean_{name}": column_values.mean(),
            f"var_{name}": column_values.var(ddof=1),
            f"low_{name}": column_values.min(),
            f"high_{name}": column_values.max(),
        }
    named_expressions |= {
        f"var_{name_pair_sum(pair)}": nw.col(name_pair_sum(pair)).var(ddof=1) for pair in query.product_pairs
    }
    return named_expressions


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
            return _parse_answer(
                fetch_rows(_aggregate_groups(rows, key_columns, query).head(group_limit + 1), table_name),
                key_columns,
                query,
            )
        except UnicodeEncodeError as error:
            raise _build_surrogate_error(table_name, error) from error
    plain_query = replace(query, derived_columns={})  # what crosses to other processes holds no expressions
    query_partition = partial(_query_partition, key_columns=key_columns, query=plain_query, group_limit=group_limit)
    pooled_answer: StatisticsAnswer = dask.combine_partitions(
        rows.to_native(), query_partition, partial(_pool_partitions, group_limit=group_limit)
    )
    if not pooled_answer.row_counts.size:
        raise make_no_rows_error(table_name)
    return pooled_answer


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


def _aggregate_groups(
    rows: "nw.LazyFrame[Any]", key_columns: Sequence[str], query: StatisticsQuery
) -> "nw.LazyFrame[Any]":
    grouped_rows = rows.group_by(*key_columns, *query.numeric_keys, drop_null_keys=False)
    return grouped_rows.agg(
        *(expression.alias(output_name) for output_name, expression in build_expressions(query).items())
    )


def _build_surrogate_error(table_name: str, error: UnicodeEncodeError) -> DataError:
    return DataError(
        f"a text in {table_name} holds {error.object[error.start : error.end]!r}, half of a character (a lone "
        "surrogate); remove it, or read the data in their own encoding"
    )


def _query_partition(
    partition: Any, key_columns: Sequence[str], query: StatisticsQuery, group_limit: int
) -> StatisticsAnswer:
    """Compute the statistics of one Dask partition, in the worker that holds it."""
    import narwhals.stable.v2 as nw

    aggregated_rows = _aggregate_groups(nw.from_native(partition).lazy(), key_columns, query).head(group_limit + 1)
    return _parse_answer(aggregated_rows.collect().rows(), key_columns, query)


def _pool_partitions(answers: Sequence[StatisticsAnswer], group_limit: int) -> StatisticsAnswer:
    """Pool the answers of partitions, one entry per group; keys with the same text, or missing, are one group."""
    first_answer = answers[0]
    pooled_keys = [
        [value for answer in answers for value in answer.key_columns[i]] for i in range(len(first_answer.key_columns))
    ]
    group_values = {
        name: _concatenate_columns(answer.numeric_keys[name] for answer in answers)
        for name in first_answer.numeric_keys
    }
    key_texts = (
        [format_label(value) or "" for value in key_column] for key_column in (*pooled_keys, *group_values.values())
    )
    group_keys: list[CellKey] = [(key_levels, "") for key_levels in zip(*key_texts, strict=True)]
    # The groups in the order in which `pool_groups` returns them.
    kept_index = list({group_key: i for i, group_key in enumerate(group_keys)}.values())[: group_limit + 1]

    def pool_columns(**columns: CellValues) -> dict[str, Any]:
        return {name: pooled[: group_limit + 1] for name, pooled in pool_groups(group_keys, columns)[1].items()}

    value_counts = {
        name: _concatenate_columns(answer.value_counts[name] for answer in answers)
        for name in first_answer.value_counts
    }
    column_sums = {
        name: _concatenate_columns(answer.column_sums[name] for answer in answers) for name in first_answer.column_sums
    }
    column_moments = {
        name: _concatenate_moments([answer.column_moments[name] for answer in answers])
        for name in first_answer.column_moments
    }
    pair_products = {
        pair: _concatenate_columns(answer.pair_products[pair] for answer in answers)
        for pair in first_answer.pair_products
    }
    return StatisticsAnswer(
        [[key_column[i] for i in kept_index] for key_column in pooled_keys],
        pool_columns(rows=_concatenate_columns(answer.row_counts for answer in answers))["rows"],
        {name: values[kept_index] for name, values in group_values.items()},
        pool_columns(**value_counts),
        pool_columns(**column_sums),
        {name: _pool_moments(moments, pool_columns) for name, moments in column_moments.items()},
        {
            (first, second): _pool_products(products, column_moments[first], column_moments[second], pool_columns)
            for (first, second), products in pair_products.items()
        },
    )


def _pool_moments(moments: Moments, pool_columns: Callable[..., dict[str, Any]]) -> Moments:
    """Pool the moments of one column over groups with the same key."""
    pooled_columns = pool_columns(
        n=moments.n, mean=moments.mean, ss=moments.ss, lowest=moments.min_value, highest=moments.max_value
    )
    return Moments(*(pooled_columns[field_name] for field_name in ("n", "mean", "ss", "lowest", "highest")))


def _pool_products(
    products: FloatColumn, first: Moments, second: Moments, pool_columns: Callable[..., dict[str, Any]]
) -> FloatColumn:
    """Pool the sums of products of two columns over groups with the same key."""
    # Only products: the diagonal, sums of squares, is pooled with the moments.
    product_matrices = products[:, None, None] * np.array([[0, 1], [1, 0]])
    mean_pairs = np.stack([first.mean, second.mean], axis=-1)
    pooled_columns = pool_columns(n=first.n, column_mean=mean_pairs, column_ss=product_matrices)
    pooled_products: FloatColumn = pooled_columns["column_ss"][:, 0, 1]
    return pooled_products


def _concatenate_columns(column_parts: Iterable[CellValues]) -> Any:
    return np.concatenate(list(column_parts))


def _concatenate_moments(moment_parts: Sequence[Moments]) -> Moments:
    return Moments(
        *(
            _concatenate_columns(getattr(moments, field_name) for moments in moment_parts)
            for field_name in ("n", "mean", "ss", "min_value", "max_value")
        )
    )


def _parse_answer(
    rows: Sequence[tuple[Any, ...]], key_columns: Sequence[str], query: StatisticsQuery
) -> StatisticsAnswer:
    output_names = [*query.numeric_keys, *build_expressions(query)]
    for row in rows:
        # Some engines group by lists: refused as in pandas, where this is a TypeError.
        hash(row[: len(key_columns)])
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(key_columns) + len(output_names))
    output_values = {
        name: convert_to_float_column(column_values)
        for name, column_values in zip(output_names, columns[len(key_columns) :], strict=True)
    }
    column_moments = {name: _derive_moments(output_values, name) for name in query.moment_columns}
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


def convert_to_float_column(raw_values: Sequence[Any]) -> FloatColumn:
    """Convert the numbers of any engine to float64, with NaN where there is none."""
    try:  # None becomes NaN, decimals become floats
        return np.array(raw_values, dtype=np.float64)
    except (TypeError, ValueError):  # pandas' own missing values do not
        return np.array([np.nan if is_missing(value) else float(value) for value in raw_values], dtype=np.float64)


def convert_to_counts(float_values: FloatColumn) -> CountColumn:
    """Convert to whole numbers; 0 where a sum over no rows is null, as in SQL."""
    return np.nan_to_num(float_values).astype(np.int64)
