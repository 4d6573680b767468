"""Group rows of units inside the engine that holds them, in one query, and find what is missing among them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte.cells.build import TableAttributes
from bayes_hte.cells.reading.engines import check_arms, describe_missing_levels
from bayes_hte.cells.reading.labels import CellKey, describe_equal_numbers, format_labels, match_label
from bayes_hte.cells.units.clusters import aggregate_clusters, name_cluster_count
from bayes_hte.cells.units.scan.grouping_sets import query_key_sets
from bayes_hte.cells.units.scan.unit_rows import WORD_FLAG, UnitRows
from bayes_hte.cells.units.statistics import (
    ColumnPair,
    CountColumn,
    FloatColumn,
    Moments,
    StatisticsAnswer,
    StatisticsQuery,
    merge_queries,
)
from bayes_hte.errors import DataError
from bayes_hte.spec.cell_table import MISSING_LEVEL

type QueryBuilder = Callable[[Callable[[str], str]], StatisticsQuery]
"""Builds the query of a metric; it is told how to name the columns of `UnitRows`, and those that it derives."""

MAX_GROUPS = 1_000_000
"""Most groups of an answer: more come of an id among the dimensions, and would no longer be small."""


@dataclass(frozen=True)
class GroupedUnits:
    """Statistics of units by arm and levels, as an engine answers them; the last axis of every array is the group."""

    arm_labels: npt.NDArray[np.object_]  # text, or None if missing
    level_labels: npt.NDArray[np.object_]  # text, or None if missing; axes (dimension, group)
    row_counts: CountColumn  # all rows
    complete_counts: CountColumn  # rows in which all numbers are finite: the statistics are of these rows
    unit_counts: CountColumn  # units of analysis among complete rows: rows, or clusters
    fault_sentences: Sequence[str]  # why rows are not complete, over all groups
    numeric_keys: Mapping[str, FloatColumn]
    value_counts: Mapping[str, CountColumn]
    column_sums: Mapping[str, FloatColumn]
    column_moments: Mapping[str, Moments]
    pair_products: Mapping[ColumnPair, FloatColumn]

    @cached_property
    def cell_keys(self) -> list[CellKey]:
        """The cell of each group; levels that are missing form a level of their own."""
        filled_levels = np.where(self.level_labels == None, MISSING_LEVEL, self.level_labels)  # noqa: E711, elementwise
        return list(zip(map(tuple, filled_levels.T), self.arm_labels, strict=True))

    def take(self, kept_groups: npt.NDArray[Any]) -> "GroupedUnits":
        """Select groups by mask or index."""
        return GroupedUnits(
            self.arm_labels[kept_groups],
            self.level_labels[:, kept_groups],
            self.row_counts[kept_groups],
            self.complete_counts[kept_groups],
            self.unit_counts[kept_groups],
            self.fault_sentences,
            {name: values[kept_groups] for name, values in self.numeric_keys.items()},
            {name: values[kept_groups] for name, values in self.value_counts.items()},
            {name: values[kept_groups] for name, values in self.column_sums.items()},
            {name: values.take_groups(kept_groups) for name, values in self.column_moments.items()},
            {pair: values[kept_groups] for pair, values in self.pair_products.items()},
        )


def group_unit_rows(
    rows_by_metric: Sequence[UnitRows],
    query_builders: Sequence[QueryBuilder],
    breakdowns: Sequence[Sequence[str]],
) -> list[list[GroupedUnits]]:
    """Query the statistics of units by arm and levels, through functions that every engine computes stably.

    Parameters
    ----------
    rows_by_metric
        The same rows, as each metric sees them.
    query_builders
        What each metric asks of them.
    breakdowns
        Dimensions to group by, each a part of those of the rows.

    Returns
    -------
    list of list of GroupedUnits
        By metric and breakdown.

    Raises
    ------
    DataError
        If there are no rows, they cannot be grouped, or a dimension looks like an id.
    """
    own_queries, frame_queries = (
        [
            _complete_query(rows, build_query, name_column or rows.name_column)
            for rows, build_query in zip(rows_by_metric, query_builders, strict=True)
        ]
        for name_column in (str, None)
    )
    # Values of an outcome are keys to group by, which other metrics do not share: they are asked for on their own.
    plain = [i for i, query in enumerate(own_queries) if not query.numeric_keys]
    batches = [plain, *([i] for i, query in enumerate(own_queries) if query.numeric_keys)]
    groups_by_metric: list[list[GroupedUnits]] = [[] for _ in rows_by_metric]
    for batch in filter(None, batches):
        answers = _query_batch(rows_by_metric[batch[0]], [frame_queries[i] for i in batch], breakdowns)
        _refuse_words([rows_by_metric[i] for i in batch], answers[0])
        for dims, answer in zip(breakdowns, answers, strict=True):
            labels = _label_keys(rows_by_metric[batch[0]].select_dims(dims), answer)
            for i in batch:
                groups = _collect_statistics(answer, own_queries[i], frame_queries[i])
                groups_by_metric[i].append(GroupedUnits(*labels, **groups))
    for rows, metric_groups in zip(rows_by_metric, groups_by_metric, strict=True):
        is_complete = (metric_groups[0].complete_counts == metric_groups[0].row_counts).all()
        fault_sentences = [] if is_complete else _describe_faults(rows)
        metric_groups[:] = [replace(groups, fault_sentences=fault_sentences) for groups in metric_groups]
    return groups_by_metric


def _complete_query(
    unit_rows: UnitRows, build_query: QueryBuilder, name_column: Callable[[str], str]
) -> StatisticsQuery:
    """Complete the query of a metric by the counts and moments that are asked of all."""
    query = build_query(name_column)
    capped_columns = [] if unit_rows.cap is None else ["capped"]
    flag_columns = [] if unit_rows.source.text_numbers is None else [WORD_FLAG]
    pre_columns = [f"p{j}" for j in range(len(unit_rows.columns.pre))]
    return replace(
        query,
        count_columns=[*map(name_column, ["y0", *capped_columns]), *query.count_columns, *flag_columns],
        moment_columns=[*query.moment_columns, *map(name_column, pre_columns)],
        # By cluster the moments are of totals, which are no longer 0 or 1.
        binary_columns=[name_column("y0")]
        if unit_rows.has_binary_outcome and unit_rows.columns.cluster is None
        else [],
        complete_column=name_column("y0"),
    )


def _query_batch(
    unit_rows: UnitRows, queries: Sequence[StatisticsQuery], breakdowns: Sequence[Sequence[str]]
) -> list[StatisticsAnswer]:
    """Query several metrics by every breakdown."""
    key_sets = [tuple(unit_rows.select_dims(dims).key_columns) for dims in breakdowns]
    limits: dict[str, Any] = {"table_name": unit_rows.table_name, "group_limit": MAX_GROUPS}
    try:
        if unit_rows.columns.cluster is None:
            return query_key_sets(unit_rows.frame, key_sets, merge_queries(queries), **limits)
        # A cluster in several segments is one of each, and one of all together: totals are made by breakdown.
        return [aggregate_clusters(unit_rows.frame, keys, queries, **limits) for keys in key_sets]
    except TypeError as error:  # pandas cannot group by lists, dicts and the like
        raise DataError(
            f"the columns {quote_names([unit_rows.columns.arm, *unit_rows.columns.dims])} cannot all be grouped by: "
            f"{error}; every row must hold a single value in them, a text or a number"
        ) from error


def _refuse_words(rows_by_metric: Sequence[UnitRows], answer: StatisticsAnswer) -> None:
    """Raise DataError where a text file has words in place of numbers."""
    text_numbers, table_name = rows_by_metric[0].source.text_numbers, rows_by_metric[0].table_name
    # Words are looked up only now that there are some: it takes another pass over the file.
    if text_numbers is not None and answer.value_counts[WORD_FLAG].any():
        number_columns = dict.fromkeys(column for rows in rows_by_metric for _, column in rows.columns.roles_of_numbers)
        text_numbers.refuse_words(number_columns, table_name)


def _label_keys(
    unit_rows: UnitRows, answer: StatisticsAnswer
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """Label the arm and the levels of each group as text."""
    arm_labels, *level_labels = (_format_labels(raw_labels) for raw_labels in answer.key_columns)
    for dim, cut in unit_rows.cuts_by_dim.items():
        dim_labels = level_labels[unit_rows.columns.dims.index(dim)]
        dim_labels[:] = [None if bin_text is None else cut.label_bin(bin_text) for bin_text in dim_labels]
    return arm_labels, np.stack(level_labels)


def _collect_statistics(
    answer: StatisticsAnswer, own_query: StatisticsQuery, frame_query: StatisticsQuery
) -> dict[str, Any]:
    """Collect the statistics of one metric from the answer for all, under the names that the metric has for them."""

    def collect[T](answered: Mapping[Any, T], field_name: str) -> dict[Any, T]:
        names = zip(getattr(own_query, field_name), getattr(frame_query, field_name), strict=True)
        return {own_name: answered[frame_name] for own_name, frame_name in names}

    value_counts = collect(answer.value_counts, "count_columns")
    cluster_count = name_cluster_count(frame_query.complete_column)
    return {
        "row_counts": answer.row_counts,
        "complete_counts": value_counts["y0"],
        "unit_counts": answer.value_counts.get(cluster_count, value_counts["y0"]),
        "fault_sentences": (),
        "numeric_keys": collect(answer.numeric_keys, "numeric_keys"),
        "value_counts": value_counts,
        "column_sums": collect(answer.column_sums, "sum_columns"),
        "column_moments": collect(answer.column_moments, "moment_columns"),
        "pair_products": collect(answer.pair_products, "product_pairs"),
    }


def _format_labels(raw_labels: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Write labels as text, each distinct value once: engines repeat the same few values in many groups."""
    distinct_values = dict.fromkeys(
        (type(value), value) for value in raw_labels
    )  # True and 1 are equal, but two labels
    labels = format_labels([value for _, value in distinct_values])
    label_of_value = dict(zip(distinct_values, labels, strict=True))
    return np.array([label_of_value[type(value), value] for value in raw_labels], dtype=np.object_)


def drop_incomplete_rows(
    unit_rows: UnitRows, groups: GroupedUnits, *, outcome_name: str, control: str, drop_missing: bool
) -> tuple[GroupedUnits, TableAttributes]:
    """Keep groups of rows that have an arm and finite numbers, and note the rows dropped, or refuse to drop any.

    Raises
    ------
    DataError
        If something is missing or infinite without `drop_missing`, the control or a second arm is not there, or a
        dimension looks like an id.
    """
    _check_ids(groups, unit_rows.columns.dims)
    row_phrase = write_count(int(groups.row_counts.sum()), "row", "rows")
    groups, drop_notes = _keep_complete_groups(unit_rows, groups, drop_missing=drop_missing)
    attributes = TableAttributes(
        outcome_name=outcome_name,
        control_arm=match_label(control, (arm for arm in groups.arm_labels if arm is not None)),
        dims=unit_rows.columns.dims,
        source_text=f"{row_phrase} of {unit_rows.table_name}",
        notes=[
            *unit_rows.source.notes,
            *drop_notes,
            *describe_missing_levels(groups.level_labels, groups.unit_counts, unit_rows.columns.dims, "unit"),
            *_note_equal_numbers(unit_rows, groups),
        ],
        level_orders=unit_rows.level_orders,
    )
    check_arms(groups.arm_labels, attributes.control_arm, unit_rows.columns.arm)
    return groups, attributes


def _note_equal_numbers(unit_rows: UnitRows, groups: GroupedUnits) -> list[str]:
    dims = unit_rows.columns.dims
    levels_by_dim = dict(zip(dims, groups.level_labels, strict=True))
    # Bins are named by their edges, which differ.
    return [
        note
        for dim in dims
        if dim not in unit_rows.cuts_by_dim
        for note in describe_equal_numbers(levels_by_dim[dim], dim)
    ]


def _check_ids(groups: GroupedUnits, dims: Sequence[str]) -> None:
    n_rows = int(groups.row_counts.sum())
    # An id has a level of its own for most units, which leaves nothing to compare within a segment.
    level_counts = {dim: len(set(dim_levels)) for dim, dim_levels in zip(dims, groups.level_labels, strict=True)}
    widest_dim = max(level_counts, key=lambda dim: level_counts[dim])
    level_phrase = f"the dimension {widest_dim!r} has {level_counts[widest_dim]:,} levels"
    way_out = "did you mean an id? Name a column whose levels many units share, or group its levels first"
    if groups.arm_labels.size > MAX_GROUPS:
        raise DataError(f"there are more than {MAX_GROUPS:,} cells, and {level_phrase} or more; {way_out}")
    if 1 < n_rows <= level_counts[widest_dim] or (n_rows >= 100 and level_counts[widest_dim] > n_rows / 2):
        raise DataError(f"{level_phrase} for {n_rows:,} units; {way_out}")


def _keep_complete_groups(
    unit_rows: UnitRows, groups: GroupedUnits, *, drop_missing: bool
) -> tuple[GroupedUnits, list[str]]:
    lacks_arm = groups.arm_labels == None  # noqa: E711, elementwise
    faults = [
        *groups.fault_sentences,
        *_describe_rows_without(int(groups.row_counts[lacks_arm].sum()), "arm", unit_rows.columns.arm),
    ]
    if not faults:
        return groups, []
    if not drop_missing:
        raise DataError(f"{'; '.join(faults)}; clean them or pass drop_missing=True (--drop-missing)")
    is_kept = ~lacks_arm & (groups.unit_counts > 0)  # the statistics of a group are of its complete rows anyway
    if not is_kept.any():
        column_phrase = "both columns" if len(unit_rows.columns.numbers) == 1 else "these columns"
        raise DataError(f"{'; '.join(faults)}: no row is left when they are dropped; check {column_phrase}")
    kept_groups = groups.take(is_kept)
    return kept_groups, [f"{fault}; dropped" for fault in faults]


def _describe_faults(unit_rows: UnitRows) -> list[str]:
    """Describe missing and infinite numbers in sentences; runs a query, which complete rows do not need."""
    counts = unit_rows.count_faults()
    total_rows = counts["all_rows"]
    sentences = []
    for i, (role, column_name) in enumerate(unit_rows.columns.numbers.items()):
        n_infinite = counts[unit_rows.name_column(f"infinite{i}")]
        n_missing = total_rows - counts[unit_rows.name_column(f"finite{i}")] - n_infinite
        subject = f"{role}s in {column_name!r}"
        words = unit_rows.list_missing_words(column_name) if n_missing else []
        spelling = f" (written {', '.join(map(repr, words))})" if words else ""
        sentences += _describe_unusable_numbers(total_rows, n_missing, n_infinite, subject, spelling)
    return sentences + _describe_rows_without(counts.get("lost", 0), "cluster", str(unit_rows.columns.cluster))


def _describe_unusable_numbers(
    n_rows: int, n_missing: int, n_infinite: int, subject: str, spelling: str = ""
) -> list[str]:
    if not n_missing and not n_infinite:
        return []
    verb = "is" if n_missing + n_infinite == 1 else "are"
    phrases = [f"{n_missing:,} of {n_rows:,} {subject} {verb} missing{spelling}"] * (n_missing > 0)
    if n_infinite:
        phrases.append(
            f"{n_infinite:,} infinite" if n_missing else f"{n_infinite:,} of {n_rows:,} {subject} {verb} infinite"
        )
    return [" and ".join(phrases)]


def _describe_rows_without(n_rows: int, label_role: str, column_name: str) -> list[str]:
    return [f"{write_count(n_rows, 'row has', 'rows have')} no {label_role} in {column_name!r}"] if n_rows else []
