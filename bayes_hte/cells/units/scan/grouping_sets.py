"""Ask an engine for the statistics of groups by several sets of keys at once.

Groups by few keys follow from groups by more of them: counts and sums add up, moments pool (`cells.build`). So keys
that are part of others cost nothing, and where the levels of several sets are few when crossed, one set of all their
keys stands for them. What is left is asked for in one pass: by grouping sets (DuckDB, Spark), by several answers to one
plan (Polars), or by all sets in each partition (Dask). Other engines carry out a query per set.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.reading.engines import fetch_rows, fetch_rows_or_none, make_no_rows_error, to_lazy_frame
from bayes_hte.cells.units.statistics import (
    StatisticsAnswer,
    StatisticsQuery,
    add_query_columns,
    aggregate_groups,
    list_aggregates,
    parse_answer,
    query_partitions,
    query_statistics,
    select_keys,
)

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type KeySet = tuple[str, ...]
"""Columns to group by, the arm first."""

MAX_CROSSED_STATISTICS = 100_000
"""Most statistics, groups times aggregates, for which sets of keys are crossed; with more, a set more is faster.

Measured in DuckDB with forty aggregates: a pass over 10 million rows takes as long for 1,250 groups as for 8, three
fifths longer for 7,500, and nearly four times as long for 59,000, whose statistics do not fit into the cache.
"""
PEEKED_ROWS = 20_000
"""First rows, among which the combinations of levels are counted before keys are crossed."""


def query_key_sets(
    frame: "nw.LazyFrame[Any]",
    key_sets: Sequence[KeySet],
    query: StatisticsQuery,
    *,
    table_name: str,
    group_limit: int,
) -> list[StatisticsAnswer]:
    """Carry out one query for groups by each of several sets of keys.

    Parameters
    ----------
    frame, query, table_name, group_limit
        As `query_statistics` takes them.
    key_sets
        Sets of columns to group by.

    Returns
    -------
    list of StatisticsAnswer
        One per set of keys, in their order.
    """
    base_sets = choose_base_sets(frame, key_sets, aggregate_count=1 + len(list_aggregates(query)))
    base_answers = _query_base_sets(frame, base_sets, query, table_name=table_name, group_limit=group_limit)
    answer_of_base = dict(zip(base_sets, base_answers, strict=True))
    answers = []
    for keys in key_sets:
        if keys in answer_of_base:
            answers.append(answer_of_base[keys])
            continue
        candidates = [base_keys for base_keys in base_sets if set(keys) <= set(base_keys)]
        base_keys = min(candidates, key=lambda base_keys: answer_of_base[base_keys].row_counts.size)
        answer = answer_of_base[base_keys]
        if answer.row_counts.size > group_limit:  # it was cut off there: these keys are asked for on their own
            answers.append(query_statistics(frame, keys, query, table_name=table_name, group_limit=group_limit))
        else:
            answers.append(select_keys(answer, [base_keys.index(key) for key in keys], group_limit))
    return answers


def choose_base_sets(frame: "nw.LazyFrame[Any]", key_sets: Sequence[KeySet], *, aggregate_count: int) -> list[KeySet]:
    """Choose the sets of keys that are grouped by: all others are part of one of them.

    Where crossing would pay depends on how many combinations of levels there are, for which the first rows are looked
    at. They may mislead about how fast the answer comes, not about what it is.
    """
    largest_sets = [keys for keys in dict.fromkeys(key_sets) if not any(set(keys) < set(more) for more in key_sets)]
    largest_sets = list({frozenset(keys): keys for keys in largest_sets}.values())  # in whatever order they stand
    if len(largest_sets) == 1 or frame.implementation.is_dask():
        return largest_sets
    all_keys = list(dict.fromkeys(key for keys in largest_sets for key in keys))
    peeked_rows = fetch_rows_or_none(frame.select(*all_keys).head(PEEKED_ROWS))
    try:
        codes = {key: _number_values(values) for key, values in zip(all_keys, zip(*peeked_rows, strict=True))}  # noqa: B905, no rows have no columns
    except TypeError:  # lists, which no engine groups by: the query says so
        return largest_sets
    max_groups = MAX_CROSSED_STATISTICS // aggregate_count
    return _cross_sets(largest_sets, codes, max_groups) if codes else largest_sets


def _cross_sets(
    largest_sets: Sequence[KeySet], codes: Mapping[str, npt.NDArray[np.int64]], max_groups: int
) -> list[KeySet]:
    """Cross sets of keys while their levels have few combinations; a set joins the one with which it has fewest."""
    crossed_sets: list[KeySet] = []
    for keys in sorted(largest_sets, key=lambda keys: _count_combinations(keys, codes)):
        unions = {tuple(dict.fromkeys([*crossed, *keys])): crossed for crossed in crossed_sets}
        counts = {union: _count_combinations(union, codes) for union in unions}
        smallest = min(counts, key=lambda union: counts[union], default=None)
        if smallest is not None and counts[smallest] <= max_groups:
            crossed_sets[crossed_sets.index(unions[smallest])] = smallest
        else:
            crossed_sets.append(keys)
    return crossed_sets


def _number_values(values: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Give each distinct value of a column a number, from 0."""
    position_of_value = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return np.array([position_of_value[value] for value in values], dtype=np.int64)


def _count_combinations(keys: KeySet, codes: Mapping[str, npt.NDArray[np.int64]]) -> int:
    """Count the combinations of values that occur in the rows looked at."""
    combination = np.zeros_like(codes[keys[0]])
    for key in keys:
        # Numbered anew at each step, so that the product of the levels never overflows.
        _, combination = np.unique(combination * (codes[key].max() + 1) + codes[key], return_inverse=True)
    return int(combination.max()) + 1


def _query_base_sets(
    frame: "nw.LazyFrame[Any]",
    base_sets: Sequence[KeySet],
    query: StatisticsQuery,
    *,
    table_name: str,
    group_limit: int,
) -> list[StatisticsAnswer]:
    """Group by each of the sets, in one pass where the engine can."""
    rows = add_query_columns(frame, query)
    if len(base_sets) > 1:
        implementation = frame.implementation
        if implementation.is_duckdb() or implementation.is_spark_like():
            answers = _query_grouping_sets(rows, base_sets, query, table_name, group_limit)
            if answers is not None:
                return answers
        elif implementation.is_polars():
            return _query_polars(rows, base_sets, query, table_name, group_limit)
        elif implementation.is_dask():
            return query_partitions(rows, base_sets, query, table_name=table_name, group_limit=group_limit)
    return [query_statistics(frame, keys, query, table_name=table_name, group_limit=group_limit) for keys in base_sets]


def _query_polars(
    rows: "nw.LazyFrame[Any]",
    base_sets: Sequence[KeySet],
    query: StatisticsQuery,
    table_name: str,
    group_limit: int,
) -> list[StatisticsAnswer]:
    """Collect several groupings of one Polars plan, which then reads its file once."""
    import polars as pl

    groupings = [aggregate_groups(rows, keys, query).head(group_limit + 1).to_native() for keys in base_sets]
    tables = pl.collect_all(groupings)
    if tables[0].is_empty():
        raise make_no_rows_error(table_name)
    return [parse_answer(table.rows(), keys, query) for table, keys in zip(tables, base_sets, strict=True)]


def _query_grouping_sets(
    rows: "nw.LazyFrame[Any]",
    base_sets: Sequence[KeySet],
    query: StatisticsQuery,
    table_name: str,
    group_limit: int,
) -> list[StatisticsAnswer] | None:
    """Group by grouping sets; None where the answer would have more than `group_limit` rows."""
    all_keys = [*dict.fromkeys(key for keys in base_sets for key in keys), *query.numeric_keys]
    full_sets = [(*keys, *query.numeric_keys) for keys in base_sets]
    aggregates = {"rows": "count(*)"}
    aggregates |= {name: f"{function}({column})" for name, function, column in list_aggregates(query)}
    build_table = _group_in_duckdb if rows.implementation.is_duckdb() else _group_in_spark
    table = build_table(rows.to_native(), all_keys, full_sets, aggregates)
    answer_rows = fetch_rows(to_lazy_frame(table).head(group_limit + 1), table_name)
    if len(answer_rows) > group_limit:
        return None
    rows_by_set: dict[int, list[tuple[Any, ...]]] = {}
    for set_number, *values in answer_rows:
        rows_by_set.setdefault(int(set_number), []).append(tuple(values))
    answers = []
    for keys, full_set in zip(base_sets, full_sets, strict=True):
        positions = [all_keys.index(key) for key in full_set]
        set_rows = [
            (*(row[i] for i in positions), *row[len(all_keys) :])
            for row in rows_by_set[_number_set(full_set, all_keys)]
        ]
        answers.append(parse_answer(set_rows, keys, query))
    return answers


def _number_set(keys: Sequence[str], all_keys: Sequence[str]) -> int:
    """Calculate the number of a grouping set in SQL: a bit per key, the first the highest, 1 where it is left out."""
    return sum(1 << i for i, key in enumerate(reversed(all_keys)) if key not in keys)


def _group_in_duckdb(
    table: Any, all_keys: Sequence[str], key_sets: Sequence[Sequence[str]], aggregates: Mapping[str, str]
) -> Any:
    """Group a DuckDB relation by several sets of keys: their number, the keys, the aggregates."""
    # Names of columns are our own: k0, y0 and the like need no quotes.
    key_list = ", ".join(all_keys)
    outputs = [f"grouping_id({key_list})", key_list, *(f'{sql} as "{name}"' for name, sql in aggregates.items())]
    sets_list = ", ".join(f"({', '.join(keys)})" for keys in key_sets)
    return table.aggregate(", ".join(outputs), f"grouping sets ({sets_list})")


def _group_in_spark(
    table: Any, all_keys: Sequence[str], key_sets: Sequence[Sequence[str]], aggregates: Mapping[str, str]
) -> Any:
    """Group a Spark table by several sets of keys: their number, the keys, the aggregates."""
    from pyspark.sql import functions

    grouped = table.groupingSets([[functions.col(key) for key in keys] for keys in key_sets], *all_keys)
    answer = grouped.agg(
        functions.grouping_id().alias("set_number"),
        *(functions.expr(sql).alias(name) for name, sql in aggregates.items()),
    )
    return answer.select("set_number", *all_keys, *aggregates)
