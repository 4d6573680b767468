"""Build the cell table of one metric and breakdown from the groups that an engine answered with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from bayes_hte.cells.build import CellCoords, CellValues, build_cell_table, pool_groups
from bayes_hte.cells.reading.answers import describe_scale
from bayes_hte.cells.reading.engines import check_arms
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.units.binning import merge_rare_levels
from bayes_hte.cells.units.clusters import SpanningClusters
from bayes_hte.cells.units.fold_groups import fold_group_labels
from bayes_hte.cells.units.group_by import GroupedUnits, drop_incomplete_rows
from bayes_hte.cells.units.reductions import MetricReduction, check_cap
from bayes_hte.cells.units.scan.unit_rows import UnitRows
from bayes_hte.cells.units.statistics import Moments
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, PRE_COVARIATE, SEGMENT


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What is done with the labels of groups, and with rows that are not complete."""

    control: str
    drop_missing: bool
    fold_labels: bool
    rare_limits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class UnitFindings:
    """What is known besides the statistics: clusters in several segments, units that repeat, merged labels."""

    warnings: Sequence[str] = ()
    spanning: SpanningClusters | None = None
    cluster_notes: Sequence[str] = ()
    label_notes: Sequence[str] = ()


def build_metric_cells(
    reduction: MetricReduction,
    rows: UnitRows,
    groups: GroupedUnits,
    unit_findings: UnitFindings,
    options: LabelOptions,
) -> xr.Dataset:
    """Build the cell table of a metric: fold labels, merge rare levels, drop incomplete rows, reduce.

    Parameters
    ----------
    reduction
        How the metric makes cells of groups.
    rows
        The rows, with the dimensions of the breakdown.
    groups
        Their groups.
    unit_findings
        What is known of clusters and units.
    options
        What is done with labels, and with rows that are not complete.
    """
    reduction.check_groups(groups, rows)
    fold_notes: list[str] = []
    if options.fold_labels:
        groups, fold_notes = fold_group_labels(groups, rows.columns, control=options.control)
    groups, rare_notes = _merge_rare_groups(groups, rows.columns.dims, options.rare_limits)
    unit_findings = replace(unit_findings, label_notes=[*fold_notes, *rare_notes])
    return _build_cells(
        reduction, rows, groups, unit_findings, control=options.control, drop_missing=options.drop_missing
    )


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
    unit_findings: UnitFindings,
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
