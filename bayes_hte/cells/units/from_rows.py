"""Reduce rows, one per unit, to cells, inside the engine that holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import xarray as xr

from bayes_hte._support.validation import check_not_none, describe_value
from bayes_hte.cells.build import CellCoords, CellValues, build_cell_table, pool_groups
from bayes_hte.cells.reading.answers import describe_scale, explain_order
from bayes_hte.cells.reading.engines import Source, check_arms, check_dimensions, open_table
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.units.binning import BinSpec, check_bins, check_rare, merge_rare_levels
from bayes_hte.cells.units.clusters import (
    SpanningClusters,
    count_spanning_clusters,
    describe_analysis_units,
    note_crossing_clusters,
    note_repeated_units,
)
from bayes_hte.cells.units.fold_groups import fold_group_labels
from bayes_hte.cells.units.group_by import (
    GroupedUnits,
    UnitColumns,
    UnitRows,
    drop_incomplete_rows,
    group_unit_rows,
    prepare_unit_rows,
)
from bayes_hte.cells.units.metrics import Metric, MetricKeywords, MetricName, list_columns, resolve_metric
from bayes_hte.cells.units.reductions import MetricReduction, check_cap
from bayes_hte.cells.units.statistics import Moments
from bayes_hte.errors import ArgumentError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, PRE_COVARIATE, SEGMENT

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table


def from_rows(  # noqa: PLR0913, one keyword per column or decision
    data: "Table",
    *,
    metric: Metric | MetricName = "mean",
    arm: str,
    control: str,
    segments: Sequence[str],
    drop_missing: bool = False,
    weights: str | None = None,
    cluster: str | None = None,
    bins: Mapping[str, BinSpec] | None = None,
    rare: int | Mapping[str, int] | None = None,
    fold_labels: bool = False,
    unit: str | None = None,
    balance: str | Sequence[str] | None = None,
    connection: Any = None,
    decimal: DecimalMark | None = None,
    **metric_keywords: Unpack[MetricKeywords],
) -> xr.Dataset:
    """Reduce rows to cells: by default n, mean and sum of squared deviations per segment and arm.

    Parameters
    ----------
    data
        One row per unit: a pandas, Polars (eager or lazy), PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to
        a .csv, .csv.gz, .tsv or .parquet file, or a pattern such as "day-*.parquet"; with `connection` a query in SQL.
    metric : Mean, Ratio, Rate, Histogram, TwoPart, or a name
        What is measured, and what to keep of it, as in ``hte.cells.Mean("spent", cuped=["before"])``. The names
        "mean", "histogram" and "two_part" go with the keywords below, which are short for such a value.
    arm
        Column that says which variant the unit was assigned.
    control
        The arm that the others are compared with, as text.
    segments
        Columns known before treatment that divide the units: the dimensions.
    drop_missing
        Leave out the rows whose outcome or another number is missing or infinite, or whose arm or cluster is missing,
        and say so in a note.
    weights
        Column that says how many units a row stands for, 0 or more.
    cluster
        Column that names what was assigned, if that is not the row: a village, or a user with many sessions. Rows of
        a cluster are added up, and n counts clusters.
    bins
        By dimension: where to cut its numbers, as in [18, 35, 65] (a bin includes its lower end); into how many bins
        of about equal size; or, of dates, "day", "week", "month", "quarter" or "year".
    rare
        Levels with fewer rows than this form the level (other), in all dimensions or by dimension.
    fold_labels
        Take labels that differ only in case, spaces or Unicode form for one, in the spelling that most rows have (that
        of the control stays), and say so in a note.
    unit
        Column that names the unit: a note says how many have several rows, or are in several arms.
    balance
        Columns of numbers that were measured before treatment: `check` says if they differ between the arms.
    connection
        DuckDB connection or Ibis backend in which `data`, then a query, is carried out.
    decimal
        "," or ".": the mark of decimals in a text file. Without it a comma is taken for one, with a note, where nothing
        else can be meant.
    **metric_keywords
        The short form of `metric`: the column `outcome`, and the options of a metric under their names there;
        `denominator` is what `Ratio` calls ``per``.

        ==========================================  =========================================
        short form                                  metric
        ==========================================  =========================================
        ``outcome="y"``                             ``Mean("y")``
        ``outcome="y", denominator="d"``            ``Ratio("y", per="d")``
        ``outcome="y", exposure="e"``               ``Rate("y", exposure="e")``
        ``outcome="y", metric="histogram"``         ``Histogram("y")``
        ``outcome="y", metric="two_part"``          ``TwoPart("y")``
        ``cuped="x"``, ``levels``, ``cap=9``, …     the same of a metric that has the option
        ==========================================  =========================================

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. For the mean n, mean, ss, and events if every outcome is 0 or 1; with
        exposure n, events and exposure; for a histogram n and histogram with dims (segment, arm, value); for two parts
        n, mean, ss, positive, log_mean and log_ss. The mean has the unit of the outcome, ss that unit squared. With
        a denominator, weights, cluster or cuped: n, mean and se, the columns that these follow from, so that tables can
        be merged, variance_reduction, the share of the mean's variance that the adjustment took away, and cell_size,
        the sum of the denominator, of the weights, or of the rows of clusters: averages over segments count each by
        it, or by exposure where there is one. The attribute size_unit says what it counts. Besides, for `check`:
        lowest and highest outcome, n_missing, n_rows, and pre_n, pre_mean and pre_ss, where they apply.

    Raises
    ------
    ArgumentError
        If an option has a value that it cannot take, options exclude each other, or one column is used twice.
    DataError
        If a column is missing or unsuitable, an outcome or arm is missing, the control or a second arm is
        not there, the outcome does not vary, or a dimension looks like an id. With exposure, if outcomes are no whole
        numbers or exposure is negative; for a histogram, if there are more than 1,000 values; for two parts, if the
        outcome is negative, never 0 or never above it. If a weight is negative, denominators add up to 0, bins cannot
        be made, or what is asked does not go together.
    TypeError
        If a keyword is not known.

    Notes
    -----
    Assumes that rows, or clusters, are independent. Missing levels form a level of their own: a unit is never dropped
    for what is unknown about it before treatment.

    The engine that holds the data is asked one query, and answers with one row per cell; quantiles (cap_quantile,
    bins by number) and the check of unit take a query more each, cluster takes two, and one per dimension where
    clusters have rows in several segments.

    References
    ----------
    Deng et al. 2013 (CUPED), Deng et al. 2018 (delta method): see `bayes_hte.cells.units.adjusted_means`.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame(
    ...     {
    ...         "device": ["mobile"] * 4 + ["tv"] * 4,
    ...         "arm": ["old", "old", "new", "new"] * 2,
    ...         "spent": [1, 3, 4, 8, 0, 2, 1, 1],
    ...     }
    ... )
    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"])
    >>> cells["mean"].sel(segment="mobile").values.tolist()
    [2.0, 6.0]

    The same, with its largest outcomes capped, as a value:

    >>> from bayes_hte.cells import Mean
    >>> cells = from_rows(rows, metric=Mean("spent", cap=5), arm="arm", control="old", segments=["device"])
    >>> cells["mean"].sel(segment="mobile").values.tolist()
    [2.0, 4.5]
    """
    chosen_metric = resolve_metric(metric, metric_keywords, weights=weights, cluster=cluster)
    reduction = chosen_metric.plan_reduction(weights=weights, cluster=cluster)
    check_not_none(arm=arm, control=control)
    columns = _assign_columns(reduction, arm=arm, segments=segments, cluster=cluster, bins=bins, balance=balance)
    rare_limits = check_rare(rare, columns.dims)
    if cluster is not None:
        _check_cluster_levels(rare_limits, columns.bins_by_dim)
    if unit is not None and not isinstance(unit, str):
        raise ArgumentError(f"unit must be the name of one column, not {describe_value(unit)}")
    label_columns = _list_label_columns(columns, unit)
    number_columns = [column for _, column in columns.roles_of_numbers if column not in label_columns]
    with (
        explain_order(columns.numbers["outcome"], role="outcome", takes_answers=columns.takes_answers),
        open_table(data, label_columns, number_columns, connection, decimal=decimal) as source,
    ):
        rows = prepare_unit_rows(source, columns, reduction.cap)
        groups = group_unit_rows(rows, reduction.build_query())
        unit_findings = _query_unit_findings(source, rows, groups, unit=unit)
    reduction.check_groups(groups, rows)
    fold_notes: list[str] = []
    if fold_labels:
        groups, fold_notes = fold_group_labels(groups, columns, control=control)
    groups, rare_notes = _merge_rare_groups(groups, columns.dims, rare_limits)
    unit_findings = replace(unit_findings, label_notes=[*fold_notes, *rare_notes])
    return _build_cells(reduction, rows, groups, unit_findings, control=control, drop_missing=drop_missing)


@dataclass(frozen=True, slots=True)
class _UnitFindings:
    """What is known besides the statistics: clusters in several segments, units that repeat, merged labels."""

    warnings: Sequence[str]
    spanning: SpanningClusters | None
    cluster_notes: Sequence[str]
    label_notes: Sequence[str] = ()


def _assign_columns(
    reduction: MetricReduction,
    *,
    arm: str,
    segments: Sequence[str],
    cluster: str | None,
    bins: Mapping[str, BinSpec] | None,
    balance: str | Sequence[str] | None,
) -> UnitColumns:
    """Assign each column its use; raise ArgumentError if one has two, DataError if a dimension cannot be one."""
    cuped_columns, balance_columns = reduction.covariate_columns, list_columns("balance", balance)
    pre_roles = {f"cuped {column!r}": column for column in cuped_columns}
    pre_roles |= {f"balance {column!r}": column for column in balance_columns if column not in cuped_columns}
    bins = {} if bins is None else bins
    # A column from before treatment may be adjusted for and be cut into levels: only then it has two roles.
    cut_dims = bins if isinstance(bins, Mapping) else {}
    single_roles = {role: column for role, column in pre_roles.items() if column not in cut_dims}
    column_by_role = {**reduction.number_columns, "arm": arm, "cluster": cluster, **single_roles}
    dims = check_dimensions(segments, column_by_role, reserved_names=reduction.extra_dims)
    return UnitColumns(
        reduction.number_columns,
        arm,
        dims,
        list(pre_roles.values()),
        cluster,
        bins_by_dim=check_bins(bins, dims),
        takes_answers=reduction.takes_answers,
        answer_scale=reduction.answer_scale,
    )


def _list_label_columns(columns: UnitColumns, unit: str | None) -> list[str]:
    """List the columns that are read as text; dimensions to be cut keep their type, as do the numbers."""
    text_dims = [dim for dim in columns.dims if dim not in columns.bins_by_dim]
    id_columns = [column for column in (columns.cluster, unit) if column is not None]
    has_words = columns.answer_scale is not None and columns.answer_scale.words
    word_columns = [columns.numbers["outcome"]] if has_words else []
    return list(dict.fromkeys([*text_dims, columns.arm, *id_columns, *word_columns]))


def _query_unit_findings(source: Source, rows: UnitRows, groups: GroupedUnits, *, unit: str | None) -> _UnitFindings:
    """Query which clusters are in several arms or segments, and which units repeat; no query without such columns."""
    cluster, spanning = rows.columns.cluster, None
    warnings: list[str] = []
    notes: list[str] = []
    if cluster is not None:
        warnings = note_crossing_clusters(rows.frame, cluster, rows.table_name)
        spanning, notes = _count_clusters(rows, groups, crossing=bool(warnings))
    if unit is not None and unit != cluster:  # a unit that is the cluster may have many rows, which are added up
        warnings = [*warnings, *note_repeated_units(source, unit, rows.columns.arm)]
    return _UnitFindings(warnings, spanning, notes)


def _merge_rare_groups(
    groups: GroupedUnits, dims: Sequence[str], rare_limits: Mapping[str, int]
) -> tuple[GroupedUnits, list[str]]:
    # Rows without an arm are dropped later, so that they make no level common.
    kept_rows = np.where(groups.arm_labels == None, 0, groups.complete_counts)  # noqa: E711, elementwise
    level_labels, notes = merge_rare_levels(groups.level_labels, kept_rows, dims=dims, minimum_rows=rare_limits)
    return replace(groups, level_labels=level_labels), notes


def _build_cells(
    reduction: MetricReduction,
    rows: UnitRows,
    groups: GroupedUnits,
    unit_findings: _UnitFindings,
    *,
    control: str,
    drop_missing: bool,
) -> xr.Dataset:
    """Build the cell table from the answer of the engine."""
    # Counted before they are dropped: check compares the arms by the rows they lack.
    missing_by_cell = count_incomplete_rows(groups)
    groups, attributes = drop_incomplete_rows(
        rows, groups, outcome_name=_describe_outcome(rows), control=control, drop_missing=drop_missing
    )
    check_cap(groups, rows, reduction.extremes_column)
    cell_keys, variables, metric_coords = reduction.reduce_groups(groups, rows)
    notes = [
        *attributes.notes,
        *_note_transformations(rows, groups),
        *describe_scale(rows.answer_scale, groups.numeric_keys.get("value", np.array([]))),
        *unit_findings.cluster_notes,
        *_note_variance_reduction(variables, reduction.covariate_columns),
        *_note_unknown_sizes(variables, reduction),
        *unit_findings.label_notes,
    ]
    recipe, spanning = reduction.adjustment_recipe, unit_findings.spanning
    attributes = replace(
        attributes,
        notes=notes,
        validity_warnings=unit_findings.warnings,
        recipe_text=None if recipe is None else recipe.to_json(),
        spanning_text=None if spanning is None else spanning.to_json(),
        size_unit=reduction.size_unit if {"cell_size", "exposure"} & variables.keys() else None,
        cluster_column=rows.columns.cluster,
    )
    # Lowest and highest are of single outcomes: ratios, totals of clusters and weighted rows have none.
    keeps_extremes = reduction.extremes_column is not None and "events" not in variables
    extremes = groups.column_moments[str(reduction.extremes_column)] if keeps_extremes else None
    check_variables, check_coords = _build_check_variables(groups, rows, cell_keys, missing_by_cell, extremes)
    cells = build_cell_table(
        cell_keys, {**variables, **check_variables}, attributes, extra_coords={**metric_coords, **check_coords}
    )
    has_arm_data = cell_table.has_data(cells).any(SEGMENT)  # units without exposure say nothing of an arm
    check_arms(map(str, cells[ARM].values[has_arm_data.values]), attributes.control_arm, rows.columns.arm)
    return cells


def _check_cluster_levels(rare_limits: Mapping[str, int], bins_by_dim: Mapping[str, BinSpec]) -> None:
    """Raise ArgumentError where levels would be merged after clusters were added up level by level."""
    weekly_dims = [dim for dim, dim_bins in bins_by_dim.items() if dim_bins == "week"]
    if rare_limits or weekly_dims:
        level_phrase = "rare levels" if rare_limits else f"the days of {weekly_dims[0]!r}"
        raise ArgumentError(
            f"{level_phrase} are put together after the rows of a cluster are added up, so that one with rows in two "
            "of them would count twice; put them together in a column of the data, and name that"
        )


def _describe_outcome(unit_rows: UnitRows) -> str:
    """Describe the outcome with its cap and its denominator."""
    outcome_phrase = unit_rows.columns.numbers["outcome"]
    if unit_rows.cap is not None:
        outcome_phrase += f" ({unit_rows.cap})"
    return (
        f"{outcome_phrase} per {unit_rows.columns.numbers['denominator']}"
        if "denominator" in unit_rows.columns.numbers
        else outcome_phrase
    )


def _note_transformations(unit_rows: UnitRows, groups: GroupedUnits) -> list[str]:
    """Note how dimensions were cut and outcomes were capped."""
    notes = [cut.describe_cut(dim) for dim, cut in unit_rows.cuts_by_dim.items()]
    if unit_rows.cap is not None:
        n_capped, n_complete = int(groups.value_counts["capped"].sum()), int(groups.complete_counts.sum())
        notes.append(
            f"{n_capped:,} of {n_complete:,} outcomes in {unit_rows.columns.numbers['outcome']!r} lie beyond the cap; "
            f"{_describe_outcome(unit_rows)}"
        )
    return notes


def _count_clusters(
    unit_rows: UnitRows, groups: GroupedUnits, *, crossing: bool
) -> tuple[SpanningClusters | None, list[str]]:
    """Count clusters in several segments, and describe the units of analysis in a note."""
    # Without a complete row there is no cluster to count, and drop_incomplete_rows refuses the data.
    if not groups.unit_counts[groups.arm_labels != None].any():  # noqa: E711, elementwise
        return None, []
    n_clusters, n_spanning, spanning = count_spanning_clusters(
        unit_rows.frame, unit_rows.columns.dims, unit_rows.table_name, crossing=crossing
    )
    return spanning, [describe_analysis_units(str(unit_rows.columns.cluster), n_clusters, n_spanning, spanning)]


def _note_variance_reduction(cell_variables: Mapping[str, CellValues], cuped_columns: Sequence[str]) -> list[str]:
    """Note the share of variance that the adjustment took away, over cells."""
    if "variance_reduction" not in cell_variables or not np.isfinite(cell_variables["variance_reduction"]).any():
        return []
    reductions = cell_variables["variance_reduction"]
    low, middle, high = (round(float(share), 2) + 0.0 for share in np.nanquantile(reductions, [0, 0.5, 1]))  # no -0 %
    return [
        f"adjusting for {', '.join(cuped_columns)} (CUPED) took away {100 * middle:.0f} % of the variance of a cell's "
        f"mean (median; from {100 * low:.0f} % to {100 * high:.0f} %)"
    ]


def _note_unknown_sizes(cell_variables: Mapping[str, CellValues], reduction: MetricReduction) -> list[str]:
    """Note that segments count by their units, where what the outcome is divided by measures no population."""
    if reduction.size_unit is None or {"cell_size", "exposure"} & cell_variables.keys():
        return []
    return [
        f"{reduction.size_unit} add up to less than 0 in some cells, so that averages over segments count these by "
        "their units; pass weights where others are meant"
    ]


def count_incomplete_rows(groups: GroupedUnits) -> dict[CellKey, int]:
    """Count rows with an arm that are not complete, by cell."""
    if not groups.fault_sentences:
        return {}
    # Rows without an arm belong to no cell; they are counted among the faults.
    known_groups = groups.take(groups.arm_labels != None)  # noqa: E711, elementwise
    cell_keys, cell_variables = pool_groups(
        known_groups.cell_keys, {"n_missing": known_groups.row_counts - known_groups.complete_counts}
    )
    return dict(zip(cell_keys, cell_variables["n_missing"].tolist(), strict=True))


def _build_check_variables(
    groups: GroupedUnits,
    unit_rows: UnitRows,
    cell_keys: Sequence[CellKey],
    missing_by_cell: Mapping[CellKey, int],
    outcome_extremes: Moments | None,
) -> tuple[dict[str, CellValues], CellCoords]:
    """Build the variables of the cell table that only `check` reads, and their coordinates."""
    variables: dict[str, CellValues] = {}
    if unit_rows.columns.cluster is not None:
        variables["n_rows"] = groups.complete_counts
    if outcome_extremes is not None:
        variables |= {"lowest": outcome_extremes.min_value, "highest": outcome_extremes.max_value}
    pre_coords: CellCoords = {}
    if unit_rows.columns.pre:
        pre_moments = [groups.column_moments[f"p{j}"] for j in range(len(unit_rows.columns.pre))]
        variables["pre_n"] = np.stack([moments.n for moments in pre_moments], axis=-1)
        variables["pre_mean"] = np.stack([moments.mean for moments in pre_moments], axis=-1)
        variables["pre_ss"] = np.stack([moments.ss for moments in pre_moments], axis=-1)
        pre_coords = {PRE_COVARIATE: (PRE_COVARIATE, list(unit_rows.columns.pre))}
    pooled_keys, pooled = pool_groups(groups.cell_keys, variables)
    if pooled_keys != cell_keys:  # a histogram leaves out cells without values
        index_of_key = {key: i for i, key in enumerate(pooled_keys)}
        pooled = {name: values[[index_of_key[key] for key in cell_keys]] for name, values in pooled.items()}
    if any(missing_by_cell.values()):
        pooled["n_missing"] = np.array([missing_by_cell[key] for key in cell_keys], dtype=np.int64)
    return pooled, pre_coords
