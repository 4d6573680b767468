"""Reduce rows to the cell tables of several metrics and breakdowns: one metric and one breakdown is the smallest case.

columns of all ──► one frame ──► groups by metric and breakdown ──► a cell table of each
(reduce_rows)      (unit_rows)   (group_by, grouping_sets)          (build_cells)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayes_hte._support.validation import check_not_none, describe_value
from bayes_hte.cells.reading.answers import explain_order
from bayes_hte.cells.reading.engines import Source, check_dimensions, open_table
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.units.binning import BinSpec, check_bins, check_rare
from bayes_hte.cells.units.clusters import (
    SpanningClusters,
    count_spanning_clusters,
    describe_analysis_units,
    note_crossing_clusters,
    note_repeated_units,
)
from bayes_hte.cells.units.group_by import GroupedUnits, group_unit_rows
from bayes_hte.cells.units.metrics import Metric, list_columns
from bayes_hte.cells.units.reductions import MetricReduction
from bayes_hte.cells.units.scan.build_cells import LabelOptions, UnitFindings, build_metric_cells
from bayes_hte.cells.units.scan.unit_rows import UnitColumns, UnitRows, prepare_unit_rows
from bayes_hte.errors import ArgumentError, HteError

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table

type PairKey = tuple[str, str]
"""Names of a metric and of a breakdown."""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """What is said of the rows, whatever is measured and by which dimensions; see `from_rows`."""

    arm: str
    control: str
    drop_missing: bool = False
    weights: str | None = None
    cluster: str | None = None
    bins: Mapping[str, BinSpec] | None = None
    rare: int | Mapping[str, int] | None = None
    fold_labels: bool = False
    unit: str | None = None
    balance: str | Sequence[str] | None = None
    connection: Any = None
    decimal: DecimalMark | None = None


def reduce_rows(
    data: "Table", metrics: Mapping[str, Metric], breakdowns: Mapping[str, Sequence[str]], options: RowOptions
) -> dict[PairKey, xr.Dataset]:
    """Reduce rows to a cell table of every metric by every breakdown.

    Parameters
    ----------
    data
        The rows.
    metrics
        What is measured, by name.
    breakdowns
        Dimensions, by the name of their breakdown.
    options
        What is said of the rows.

    Raises
    ------
    ArgumentError, DataError
        As `from_rows`; of several metrics or breakdowns the message begins with the names of the two concerned.
    """
    is_single = len(metrics) * len(breakdowns) == 1
    reductions = {}
    for metric_name, metric in metrics.items():
        with name_place([] if is_single else [metric_name]):
            reductions[metric_name] = metric.plan_reduction(weights=options.weights, cluster=options.cluster)
    check_not_none(arm=options.arm, control=options.control)
    columns_by_pair = {}
    for metric_name, reduction in reductions.items():
        for breakdown, segments in breakdowns.items():
            with name_place([] if is_single else [metric_name, breakdown]):
                columns_by_pair[metric_name, breakdown] = _assign_columns(reduction, segments, options)
    dims_by_breakdown = {breakdown: columns.dims for (_, breakdown), columns in columns_by_pair.items()}
    columns_by_metric = _join_breakdowns(columns_by_pair, options)
    rare_limits = check_rare(options.rare, columns_by_metric[0].dims)
    if options.cluster is not None:
        _check_cluster_levels(rare_limits, columns_by_metric[0].bins_by_dim)
    if options.unit is not None and not isinstance(options.unit, str):
        raise ArgumentError(f"unit must be the name of one column, not {describe_value(options.unit)}")
    with _open_rows(data, columns_by_metric, options) as source:
        rows_by_metric = prepare_unit_rows(source, columns_by_metric, [each.cap for each in reductions.values()])
        breakdown_dims = list(dims_by_breakdown.values())
        groups_by_metric = group_unit_rows(
            rows_by_metric, [each.build_query for each in reductions.values()], breakdown_dims
        )
        findings_by_metric = _query_findings(source, rows_by_metric, groups_by_metric, breakdown_dims, options.unit)
    cells = {}
    for i, (metric_name, reduction) in enumerate(reductions.items()):
        for j, (breakdown, dims) in enumerate(dims_by_breakdown.items()):
            label_options = LabelOptions(
                options.control,
                drop_missing=options.drop_missing,
                fold_labels=options.fold_labels,
                # In the order in which they were stated, else in that of the dimensions: notes follow it.
                rare_limits={
                    dim: rare_limits[dim]
                    for dim in (options.rare if isinstance(options.rare, Mapping) else dims)
                    if dim in dims and dim in rare_limits
                },
            )
            with name_place([] if is_single else [metric_name, breakdown]):
                cells[metric_name, breakdown] = build_metric_cells(
                    reduction,
                    rows_by_metric[i].select_dims(dims),
                    groups_by_metric[i][j],
                    findings_by_metric[i][j],
                    label_options,
                )
    return cells


@contextmanager
def name_place(names: Sequence[str]) -> Iterator[None]:
    """Begin the message of an error by the names of the metric and the breakdown that it is about, if any are given."""
    try:
        yield
    except HteError as error:
        if not names:
            raise
        raise type(error)(f"{' by '.join(names)}: {error}") from error


def _assign_columns(reduction: MetricReduction, segments: Sequence[str], options: RowOptions) -> UnitColumns:
    """Assign each column its use; raise ArgumentError if one has two, DataError if a dimension cannot be one."""
    cuped_columns, balance_columns = reduction.covariate_columns, list_columns("balance", options.balance)
    pre_roles = {f"cuped {column!r}": column for column in cuped_columns}
    pre_roles |= {f"balance {column!r}": column for column in balance_columns if column not in cuped_columns}
    # A column from before treatment may be adjusted for and be cut into levels: only then it has two roles.
    cut_dims = options.bins if isinstance(options.bins, Mapping) else {}
    single_roles = {role: column for role, column in pre_roles.items() if column not in cut_dims}
    column_by_role = {**reduction.number_columns, "arm": options.arm, "cluster": options.cluster, **single_roles}
    return UnitColumns(
        reduction.number_columns,
        options.arm,
        check_dimensions(segments, column_by_role, reserved_names=reduction.extra_dims),
        list(pre_roles.values()),
        options.cluster,
        takes_answers=reduction.takes_answers,
        answer_scale=reduction.answer_scale,
    )


def _join_breakdowns(columns_by_pair: Mapping[PairKey, UnitColumns], options: RowOptions) -> list[UnitColumns]:
    """Join the columns of all breakdowns, for every metric, and add how dimensions are cut."""
    all_dims = list(dict.fromkeys(dim for columns in columns_by_pair.values() for dim in columns.dims))
    bins_by_dim = check_bins({} if options.bins is None else options.bins, all_dims)
    columns_of_metric = {metric_name: columns for (metric_name, _), columns in columns_by_pair.items()}
    return [replace(columns, dims=all_dims, bins_by_dim=bins_by_dim) for columns in columns_of_metric.values()]


def _check_cluster_levels(rare_limits: Mapping[str, int], bins_by_dim: Mapping[str, BinSpec]) -> None:
    """Raise ArgumentError where levels would be merged after clusters were added up level by level."""
    weekly_dims = [dim for dim, dim_bins in bins_by_dim.items() if dim_bins == "week"]
    if rare_limits or weekly_dims:
        level_phrase = "rare levels" if rare_limits else f"the days of {weekly_dims[0]!r}"
        raise ArgumentError(
            f"{level_phrase} are put together after the rows of a cluster are added up, so that one with rows in two "
            "of them would count twice; put them together in a column of the data, and name that"
        )


@contextmanager
def _open_rows(data: "Table", columns_by_metric: Sequence[UnitColumns], options: RowOptions) -> Iterator[Source]:
    """Open the table for the columns of all metrics."""
    label_columns = list(
        dict.fromkeys(column for columns in columns_by_metric for column in _list_labels(columns, options.unit))
    )
    number_columns = list(
        dict.fromkeys(
            column
            for columns in columns_by_metric
            for _, column in columns.roles_of_numbers
            if column not in label_columns
        )
    )
    outcomes = dict.fromkeys((columns.numbers["outcome"], columns.takes_answers) for columns in columns_by_metric)
    with ExitStack() as stack:
        for outcome, takes_answers in outcomes:
            stack.enter_context(explain_order(outcome, role="outcome", takes_answers=takes_answers))
        yield stack.enter_context(
            open_table(data, label_columns, number_columns, options.connection, decimal=options.decimal)
        )


def _list_labels(columns: UnitColumns, unit: str | None) -> list[str]:
    """List the columns that are read as text; dimensions to be cut keep their type, as do the numbers."""
    text_dims = [dim for dim in columns.dims if dim not in columns.bins_by_dim]
    id_columns = [column for column in (columns.cluster, unit) if column is not None]
    has_words = columns.answer_scale is not None and columns.answer_scale.words
    word_columns = [columns.numbers["outcome"]] if has_words else []
    return [*text_dims, columns.arm, *id_columns, *word_columns]


def _query_findings(
    source: Source,
    rows_by_metric: Sequence[UnitRows],
    groups_by_metric: Sequence[Sequence[GroupedUnits]],
    breakdowns: Sequence[Sequence[str]],
    unit: str | None,
) -> list[list[UnitFindings]]:
    """Query which clusters are in several arms or segments, and which units repeat; no query without such columns."""
    rows = rows_by_metric[0]
    cluster, warnings = rows.columns.cluster, []
    if cluster is not None:
        warnings = note_crossing_clusters(rows.frame, cluster, rows.table_name)
    if unit is not None and unit != cluster:  # a unit that is the cluster may have many rows, which are added up
        warned = UnitFindings([*warnings, *note_repeated_units(source, unit, rows.columns.arm)])
    else:
        warned = UnitFindings(warnings)
    if cluster is None:
        return [[warned for _ in breakdowns] for _ in rows_by_metric]

    @cache  # metrics that are known of the same rows have the same clusters
    def count_clusters(complete_column: str, j: int) -> UnitFindings:
        spanning, notes = _count_clusters(rows.select_dims(breakdowns[j]), complete_column, crossing=bool(warnings))
        return replace(warned, spanning=spanning, cluster_notes=notes)

    findings = []
    for metric_rows, metric_groups in zip(rows_by_metric, groups_by_metric, strict=True):
        is_complete = (metric_groups[0].complete_counts == metric_groups[0].row_counts).all()
        complete_column = (rows if is_complete else metric_rows).name_column("y0")
        # Without a complete row there is no cluster to count, and drop_incomplete_rows refuses the data.
        has_units = metric_groups[0].unit_counts[metric_groups[0].arm_labels != None].any()  # noqa: E711, elementwise
        findings.append([count_clusters(complete_column, j) if has_units else warned for j in range(len(breakdowns))])
    return findings


def _count_clusters(
    unit_rows: UnitRows, complete_column: str, *, crossing: bool
) -> tuple[SpanningClusters | None, list[str]]:
    """Count clusters in several segments, and describe the units of analysis in a note."""
    n_clusters, n_spanning, spanning = count_spanning_clusters(
        unit_rows.frame,
        dict(zip(unit_rows.columns.dims, unit_rows.key_columns[1:], strict=True)),
        unit_rows.table_name,
        complete_column=complete_column,
        crossing=crossing,
    )
    return spanning, [describe_analysis_units(str(unit_rows.columns.cluster), n_clusters, n_spanning, spanning)]
