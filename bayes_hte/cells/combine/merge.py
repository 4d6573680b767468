"""Add cell tables up: what two tables of different units say together."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import describe_type
from bayes_hte.cells.build import CellCoords, CellValues, TableAttributes, build_cell_table, pool_groups
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, CellKey, SegmentLevels
from bayes_hte.cells.reading.level_order import merge_orders
from bayes_hte.cells.summaries.segment_covariates import add_covariates, list_segment_levels
from bayes_hte.cells.summaries.small_tables import FloatValues
from bayes_hte.cells.units import adjusted_means
from bayes_hte.cells.units.clusters import SpanningClusters, count_disjoint_clusters, read_spanning_clusters
from bayes_hte.cells.units.from_times import build_interval_coords
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, COVARIATE, PRE_COVARIATE, SEGMENT, VALUE, VALUE_LABEL


def merge(*tables: xr.Dataset) -> xr.Dataset:
    """Combine cell tables of different units into the one that all their rows would have given.

    Parameters
    ----------
    *tables
        Cell tables with the same outcome, control and dimensions: days, regions, or a replication. Segments and arms
        that only some have are kept.

    Returns
    -------
    xarray.Dataset
        Counts, exposures, histograms and time at risk add up; means and sums of squares by Chan's formula. Events are
        kept if all tables have them. The last interval of survival ends, and its horizon is, where the later one does.
        Adjusted means are worked out anew from their columns, with coefficients of the pooled data. Covariates and
        planned shares are kept.

    Raises
    ------
    ArgumentError
        If no table is given, or tables in a list.
    DataError
        If tables differ in outcome, control, dimensions, kind, breaks of time, adjustment, covariates
        or planned shares, they are slices that have clusters in common, or they hold means with standard errors alone
        or estimates, which cannot be combined exactly.

    Notes
    -----
    Assumes that no unit is in two tables. A unit that returned on the second day counts twice.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> monday, tuesday = (
    ...     from_summary(
    ...         pd.DataFrame({"plan": ["free", "free"], "arm": ["old", "new"], "n": [10, 10], "bought": bought}),
    ...         arm="arm",
    ...         control="old",
    ...         segments=["plan"],
    ...         n="n",
    ...         events="bought",
    ...     )
    ...     for bought in ([1, 2], [3, 5])
    ... )
    >>> merge(monday, tuesday)["events"].values.tolist()
    [[4, 7]]
    """
    if not tables:
        raise ArgumentError("there is nothing to merge; give at least one cell table")
    if isinstance(tables[0], list | tuple | dict):
        call_text = "merge(*tables.values())" if isinstance(tables[0], dict) else "merge(*tables)"
        raise ArgumentError(
            f"merge takes each table on its own, not {describe_type(tables[0])} of them; write {call_text}"
        )
    for table in tables:
        cell_table.check_cell_table(table)
    if len(tables) == 1:
        return tables[0]
    _check_same_attributes(tables)
    for table in tables:
        _check_exact_kind(table)
    _check_same_kind(tables)
    _check_disjoint_clusters(tables)
    aligned_tables, coords = _align_tables(tables)
    variable_names, metadata = _choose_variables(aligned_tables), _merge_metadata(tables)
    if "pre_n" in variable_names:
        # The names are the same in all tables: else `_choose_extra_variables` leaves them out.
        coords = {**coords, PRE_COVARIATE: (PRE_COVARIATE, aligned_tables[0][PRE_COVARIATE].values)}
    group_keys = [key for table in aligned_tables for key in _list_cell_keys(table)]
    variables = {
        name: np.concatenate([_flatten_variable(table, name) for table in aligned_tables]) for name in variable_names
    }
    cell_keys, variables = pool_groups(group_keys, variables)
    if metadata.recipe_text is not None:
        recipe = adjusted_means.AdjustmentRecipe.from_json(metadata.recipe_text)
        variables |= adjusted_means.solve_adjusted_means(cell_keys, variables, recipe)
        coords = {**coords, **adjusted_means.build_column_coords(recipe)}
    return _merge_covariates(build_cell_table(cell_keys, variables, metadata, extra_coords=coords), tables)


def _check_same_attributes(tables: Sequence[xr.Dataset]) -> None:
    """Raise DataError if tables have different outcomes, controls, dimensions or adjustments."""
    attribute_readers: dict[str, Callable[[xr.Dataset], object]] = {
        "outcome": lambda table: table.attrs["outcome"],
        "control": lambda table: table.attrs["control"],
        "dimensions": cell_table.list_dimensions,
        "adjustment": _describe_adjustment,
    }
    for attribute_name, read_attribute in attribute_readers.items():
        for i, table in enumerate(tables[1:], start=2):
            if read_attribute(table) != read_attribute(tables[0]):
                raise DataError(
                    f"tables with different {attribute_name} cannot be merged: {read_attribute(tables[0])!r} in table "
                    f"1, {read_attribute(table)!r} in table {i}; make both with the same {attribute_name}"
                )


def _describe_adjustment(table: xr.Dataset) -> str:
    """Describe which columns adjusted the means of a table."""
    return (
        adjusted_means.AdjustmentRecipe.from_json(table.attrs["recipe"]).source_columns
        if "recipe" in table.attrs
        else "none"
    )


def _check_exact_kind(table: xr.Dataset) -> None:
    """Raise DataError if a table holds standard errors alone, which do not pool exactly."""
    kind = cell_table.identify_kind(table)
    if kind == "estimates" or (kind == "means" and "recipe" not in table.attrs):
        raise DataError(
            f"{kind} cannot be merged exactly: a standard error does not say how the units spread around another "
            "mean. Make the cells from rows, or from n, mean and sd; or give both tables in one, with a column "
            "that tells them apart among the segments"
        )


def _check_same_kind(tables: Sequence[xr.Dataset]) -> None:
    """Raise DataError if tables are of different kinds."""
    # Counts are moments of an outcome that is 0 or 1, so these two kinds go together.
    kinds = sorted({cell_table.identify_kind(table) for table in tables})
    if len(kinds) > 1 and kinds != ["counts", "moments"]:
        raise DataError(f"{' and '.join(kinds)} cannot be merged; make all tables the same way, from the same columns")


def _check_disjoint_clusters(tables: Sequence[xr.Dataset]) -> None:
    """Raise DataError if clusters are in several tables: they would count as many, and standard errors be too small."""
    sliced_dims = [
        span.sliced_dim for span in map(read_spanning_clusters, tables) if span is not None and span.sliced_dim
    ]
    # One slice alone may be merged with tables of other clusters.
    if len(sliced_dims) > 1:
        raise DataError(
            f"clusters with rows in several levels of {sliced_dims[0]!r} would count in each of these tables, and "
            "standard "
            f"errors come out too small; make the total from the rows, without {sliced_dims[0]!r} among the segments"
        )


def _merge_spanning(tables: Sequence[xr.Dataset]) -> str | None:
    """Merge the numbers of clusters that span segments, as JSON; None where no table has any."""
    stored_spans = [read_spanning_clusters(table) for table in tables]
    if not any(stored_spans):
        return None
    known_spans = [span or count_disjoint_clusters(table) for span, table in zip(stored_spans, tables, strict=True)]
    # One table whose number of clusters is not known makes that of all unknown.
    is_counted = all(span.clusters_by_arm for span in known_spans)
    return SpanningClusters(
        clusters_by_arm=_sum_by_arm([span.clusters_by_arm for span in known_spans]) if is_counted else {},
        squares_by_arm=_sum_by_arm([span.squares_by_arm for span in known_spans]) if is_counted else {},
        varying_dims=list(dict.fromkeys(dim for span in known_spans for dim in span.varying_dims)),
        sliced_dim=next((span.sliced_dim for span in known_spans if span.sliced_dim), ""),
    ).to_json()


def _sum_by_arm(arm_counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    arm_names = dict.fromkeys(arm for counts in arm_counts for arm in counts)
    return {arm: sum(counts.get(arm, 0) for counts in arm_counts) for arm in arm_names}


def _choose_variables(tables: Sequence[xr.Dataset]) -> list[str]:
    """Choose the variables that all tables have, or can be given."""
    if {cell_table.identify_kind(table) for table in tables} == {"counts", "moments"}:
        has_events = all("events" in table for table in tables)
        return ["n", "mean", "ss", *(["events"] if has_events else []), *_choose_extra_variables(tables)]
    solved_variables = _SOLVED_VARIABLES if "recipe" in tables[0].attrs else frozenset()
    # Adjusted means are not pooled, but solved anew from the pooled columns.
    own_variables = [
        str(name) for name in tables[0].data_vars if name not in cell_table.EXTRA_VARIABLES | solved_variables
    ]
    return [
        *(name for name in own_variables if all(name in table for table in tables)),
        *_choose_extra_variables(tables),
    ]


def _choose_extra_variables(tables: Sequence[xr.Dataset]) -> list[str]:
    """Choose the variables for checks that all tables have, or can be given."""
    extra_names = [name for name in ("n_rows", "pre_n", "pre_mean", "pre_ss") if all(name in table for table in tables)]
    if any("cell_size" in table for table in tables):  # a table that states none has that of its units
        extra_names.append("cell_size")
    if "pre_n" in extra_names and len({tuple(table[PRE_COVARIATE].values) for table in tables}) > 1:
        # Other covariates before treatment in some table: means over all units are not known of any.
        extra_names = [name for name in extra_names if not name.startswith("pre_")]
    if any("n_missing" in table for table in tables):  # a table that has none left nothing out
        extra_names.append("n_missing")
    has_bounds = all("lowest" in table or _has_binary_outcome(table) for table in tables)
    return (
        [*extra_names, "lowest", "highest"]
        if has_bounds and any("lowest" in table for table in tables)
        else extra_names
    )


def _has_binary_outcome(table: xr.Dataset) -> bool:
    return "events" in table and "exposure" not in table


_SOLVED_VARIABLES = frozenset({"mean", "se", "variance_reduction"})
"""Variables that are computed from the input columns, where a table has these."""


def _require_same_words(tables: Sequence[xr.Dataset]) -> list[str] | None:
    """Return the answers in words that all tables have; None where they have numbers.

    Raises
    ------
    DataError
        If scales differ: the same number would stand for different answers.
    """
    scales = [cell_table.list_answers(table) if VALUE_LABEL in table.coords else None for table in tables]
    for i, scale in enumerate(scales[1:], start=2):
        if scale != scales[0]:
            first, other = (cell_table.list_answers(table) for table in (tables[0], tables[i - 1]))
            raise DataError(
                f"tables with different answers cannot be merged: {quote_names(first)} in table 1, "
                f"{quote_names(other)} in table {i}; make both with the same levels"
            )
    return scales[0]


def _align_tables(tables: Sequence[xr.Dataset]) -> tuple[Sequence[xr.Dataset], CellCoords]:
    """Align the values or intervals of all tables, and return their coordinates."""
    if "histogram" in tables[0]:
        words = _require_same_words(tables)
        if words is not None:
            return tables, {VALUE: (VALUE, tables[0][VALUE].values), VALUE_LABEL: (VALUE, words)}
        all_values = np.unique(np.concatenate([table[VALUE].values for table in tables]))
        return [table.reindex({VALUE: all_values}, fill_value=0) for table in tables], {VALUE: (VALUE, all_values)}
    if "failures" not in tables[0]:
        return tables, {}
    break_times = [table["start"].values.tolist() for table in tables]
    for i, other_breaks in enumerate(break_times[1:], start=2):
        if other_breaks != break_times[0]:
            raise DataError(
                f"tables with different breaks of time cannot be merged: {break_times[0][1:]} in table 1, "
                f"{other_breaks[1:]} in table {i}; make both with the same breaks"
            )
    last_end = max(float(table["end"].values[-1]) for table in tables)
    return tables, build_interval_coords([*break_times[0], last_end])


def _merge_covariates(merged_cells: xr.Dataset, tables: Sequence[xr.Dataset]) -> xr.Dataset:
    """Add the covariates of the tables to the merged cells; they must not contradict each other."""
    covariate_tables = [table for table in tables if "covariates" in table]
    if not covariate_tables:
        return merged_cells
    covariate_names = [list(map(str, table[COVARIATE].values)) for table in covariate_tables]
    for first_names, second_names in pairwise(covariate_names):
        if set(first_names) != set(second_names):
            raise DataError(
                f"tables with different covariates cannot be merged: {quote_names(first_names)} and "
                f"{quote_names(second_names)}; add them after merging, with with_covariates"
            )
    # A table without covariates may have segments that another table describes.
    values_by_segment: dict[SegmentLevels, FloatValues] = {}
    for table in covariate_tables:
        table_values = dict(
            zip(
                list_segment_levels(table), table["covariates"].sel({COVARIATE: covariate_names[0]}).values, strict=True
            )
        )
        for segment in table_values.keys() & values_by_segment.keys():
            if (table_values[segment] != values_by_segment[segment]).any():
                raise DataError(
                    f"the covariates of segment {LEVEL_SEPARATOR.join(segment)!r} differ between the tables; add "
                    "them after merging, with with_covariates"
                )
        values_by_segment |= table_values
    return add_covariates(merged_cells, covariate_names[0], values_by_segment)


def _list_cell_keys(table: xr.Dataset) -> list[CellKey]:
    """List the keys of a table's cells, the arm fastest."""
    return [(levels, str(arm)) for levels in list_segment_levels(table) for arm in table[ARM].values]


def _flatten_variable(table: xr.Dataset, name: str) -> CellValues:
    """Flatten a variable to one value per cell, the arm fastest; of counts also those that a mean has."""
    if name in table:
        cell_values: CellValues = table[name].transpose(SEGMENT, ARM, ...).values
        return cell_values.reshape(-1, *cell_values.shape[2:])
    if name in ("cell_size", "n_missing"):
        return _measure_sizes(table) if name == "cell_size" else np.zeros_like(_flatten_variable(table, "n"))
    unit_counts = _flatten_variable(table, "n")
    event_counts = _flatten_variable(table, "events")
    # Of y that is 0 or 1 with p = events / n: mean p, SS = n p (1 − p) = events (1 − p).
    event_share = np.where(unit_counts > 0, event_counts / np.maximum(unit_counts, 1), np.nan)
    match name:
        case "mean":
            return event_share
        case "lowest":
            return np.where(unit_counts > 0, (event_counts == unit_counts) * 1.0, np.nan)
        case "highest":
            return np.where(unit_counts > 0, (event_counts > 0) * 1.0, np.nan)
    return np.where(unit_counts > 0, event_counts * (1 - event_share), 0.0)


def _measure_sizes(table: xr.Dataset) -> CellValues:
    """Measure the cells of a table that states no sizes, made before sizes were kept or without a column of them."""
    if "recipe" in table.attrs:
        recipe = adjusted_means.AdjustmentRecipe.from_json(table.attrs["recipe"])
        columns = {column_name: _flatten_variable(table, column_name) for column_name in ("n", "column_mean")}
        recipe_sizes = adjusted_means.measure_sizes(columns, recipe)
        if recipe_sizes is not None:
            return recipe_sizes
    cell_sizes = cell_table.get_cell_sizes(table)
    if cell_sizes is None:
        raise DataError(
            "one table states sizes of its cells, another neither sizes nor units: name their column as size in all"
        )
    return np.asarray(cell_sizes.transpose(SEGMENT, ARM).values.reshape(-1))


def _merge_metadata(tables: Sequence[xr.Dataset]) -> TableAttributes:
    first_table = tables[0]
    return TableAttributes(
        outcome_name=first_table.attrs["outcome"],
        control_arm=first_table.attrs["control"],
        dims=cell_table.list_dimensions(first_table),
        source_text=" + ".join(str(table.attrs.get("source", "unknown")) for table in tables),
        notes=[note for table in tables for note in cell_table.list_notes(table)],
        validity_warnings=[warning for table in tables for warning in cell_table.list_validity_warnings(table)],
        recipe_text=first_table.attrs.get("recipe"),
        shares_text=_merge_planned_shares(tables),
        level_orders=_merge_level_orders(tables),
        spanning_text=_merge_spanning(tables),
        size_unit=_find_common_attribute(tables, "size_unit"),
        cluster_column=_find_common_attribute(tables, "cluster"),
        horizon=max(float(table.attrs["horizon"]) for table in tables) if "horizon" in first_table.attrs else None,
    )


def _find_common_attribute(tables: Sequence[xr.Dataset], attribute_name: str) -> str | None:
    """Find the value of an attribute that all tables share; None where they differ, or one lacks it."""
    attribute_values = {table.attrs.get(attribute_name) for table in tables}
    return attribute_values.pop() if len(attribute_values) == 1 else None


def _merge_level_orders(tables: Sequence[xr.Dataset]) -> dict[str, list[str]]:
    """Merge the orders that the tables' data gave to levels and arms, by dimension."""
    orders_by_table = [cell_table.read_level_orders(table) for table in tables]
    names = dict.fromkeys(name for orders in orders_by_table for name in orders)
    return {name: merge_orders([orders[name] for orders in orders_by_table if name in orders]) for name in names}


def _merge_planned_shares(tables: Sequence[xr.Dataset]) -> str | None:
    """Return the planned shares that the tables have in common, as JSON; None where no table states any."""
    # Shares that change in the middle of an experiment bias sums over the days: Simpson's paradox.
    stated_shares = list(dict.fromkeys(str(table.attrs["shares"]) for table in tables if "shares" in table.attrs))
    if len(stated_shares) > 1:
        raise DataError(
            f"tables with different planned shares cannot be merged: {stated_shares[0]} and {stated_shares[1]}; days "
            "on which the "
            "shares were different are different experiments: name what tells them apart among the segments"
        )
    return stated_shares[0] if stated_shares else None
