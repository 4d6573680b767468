"""Reduce rows, one per unit, to cells, inside the engine that holds them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import xarray as xr

from bayes_hte._support.validation import check_column_names, check_not_none, describe_value, to_float
from bayes_hte.cells.build import CellCoords, CellValues, build_cell_table, pool_groups
from bayes_hte.cells.reading.engines import Source, check_arms, check_dimensions, open_table, pick_columns, quote_names
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.units import adjusted_means
from bayes_hte.cells.units.binning import BinSpec, check_bins, check_rare, merge_rare_levels
from bayes_hte.cells.units.clusters import (
    SpanningClusters,
    count_spanning_clusters,
    describe_analysis_units,
    note_crossing_clusters,
    note_repeated_units,
)
from bayes_hte.cells.units.group_by import (
    Cap,
    GroupedUnits,
    UnitRows,
    drop_incomplete_rows,
    group_unit_rows,
    prepare_unit_rows,
)
from bayes_hte.cells.units.metrics import METRIC_REDUCTIONS, MetricName, MetricReduction, check_cap
from bayes_hte.cells.units.statistics import Moments
from bayes_hte.errors import DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, PRE_COVARIATE, SEGMENT, VALUE

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table


def from_rows(  # noqa: PLR0913, one keyword per column or decision
    data: "Table",
    *,
    outcome: str,
    arm: str,
    control: str,
    segments: Sequence[str],
    drop_missing: bool = False,
    exposure: str | None = None,
    metric: MetricName = "mean",
    denominator: str | None = None,
    weights: str | None = None,
    cluster: str | None = None,
    cuped: str | Sequence[str] | None = None,
    cap: float | tuple[float, float] | None = None,
    cap_quantile: float | tuple[float, float] | None = None,
    bins: Mapping[str, BinSpec] | None = None,
    rare: int | Mapping[str, int] | None = None,
    unit: str | None = None,
    balance: str | Sequence[str] | None = None,
    connection: Any = None,
) -> xr.Dataset:
    """Reduce rows to cells: by default n, mean and sum of squared deviations per segment and arm.

    Parameters
    ----------
    data
        One row per unit: a pandas, Polars (eager or lazy), PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to
        a .csv, .csv.gz, .tsv or .parquet file, or a pattern such as "day-*.parquet"; with `connection` a query in SQL.
    outcome
        Column of numbers or booleans, one per unit.
    arm
        Column that says which variant the unit was assigned.
    control
        The arm that the others are compared with, as text.
    segments
        Columns known before treatment that divide the units: the dimensions.
    drop_missing
        Leave out the rows whose outcome or another number is missing or infinite, or whose arm or cluster is missing,
        and say so in a note.
    exposure
        Column with the time, visits or area over which the outcome counts events: the cells hold rates.
    metric : {"mean", "histogram", "two_part"}
        What to keep of the outcome: its mean; the units by value, for counts and ratings; or the share of units above
        0 and the logarithms of their outcomes, for revenue.
    denominator
        Column that the outcome is divided by: the metric is the sum of outcomes over the sum of denominators, such as
        clicks per view. Its standard error is that of the delta method.
    weights
        Column that says how many units a row stands for, 0 or more.
    cluster
        Column that names what was assigned, if that is not the row: a village, or a user with many sessions. Rows of
        a cluster are added up, and n counts clusters.
    cuped
        Columns of numbers that were measured before treatment: the outcome's mean is adjusted for them. A unit
        without a value is adjusted by its own group of such units.
    cap
        Largest outcome, in its unit, or the smallest and the largest: what is beyond counts as this.
    cap_quantile
        The same, as quantiles of all outcomes together, such as 0.99 or (0.01, 0.99); a note says where they are.
    bins
        By dimension: where to cut its numbers, as in [18, 35, 65] (a bin includes its lower end); into how many bins
        of about equal size; or, of dates, "day", "week", "month", "quarter" or "year".
    rare
        Levels with fewer rows than this form the level (other), in all dimensions or by dimension.
    unit
        Column that names the unit: a note says how many have several rows, or are in several arms.
    balance
        Columns of numbers that were measured before treatment: `check` says if they differ between the arms.
    connection
        DuckDB connection or Ibis backend in which `data`, then a query, is carried out.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. For the mean n, mean, ss, and events if every outcome is 0 or 1; with
        exposure n, events and exposure; for a histogram n and histogram with dims (segment, arm, value); for two parts
        n, mean, ss, positive, log_mean and log_ss. The mean has the unit of the outcome, ss that unit squared. With
        denominator, weights, cluster or cuped: n, mean and se, the columns that these follow from, so that tables can
        be merged, and variance_reduction, the share of the mean's variance that the adjustment took away. Besides, for
        `check`: lowest and highest outcome, n_missing, n_rows, and pre_n, pre_mean and pre_ss, where they apply.

    Raises
    ------
    DataError
        If a column is missing, unsuitable or used twice, an outcome or arm is missing, the control or a second arm is
        not there, the outcome does not vary, or a dimension looks like an id. With exposure, if outcomes are no whole
        numbers or exposure is negative; for a histogram, if there are more than 1,000 values; for two parts, if the
        outcome is negative, never 0 or never above it. If a weight is negative, denominators add up to 0, bins cannot
        be made, or what is asked does not go together.

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
    ...         "hours": [10, 10, 20, 10, 5, 5, 5, 0.5],
    ...     }
    ... )
    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"])
    >>> cells["mean"].sel(segment="mobile").values.tolist()
    [2.0, 6.0]

    With exposure the outcome is a number of events:

    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"], exposure="hours")
    >>> (cells["events"] / cells["exposure"]).sel(segment="mobile").values.tolist()
    [0.2, 0.4]

    Units by value of the outcome:

    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"], metric="histogram")
    >>> cells["histogram"].sel(segment="tv", arm="new").to_series().loc[lambda units: units > 0].to_dict()
    {1.0: 2}

    A ratio of two columns, which need not be whole numbers:

    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"], denominator="hours")
    >>> cells["mean"].sel(segment="mobile").values.tolist(), cells.attrs["outcome"]
    ([0.2, 0.4], 'spent per hours')
    """
    check_not_none(outcome=outcome, arm=arm, control=control)
    bins = {} if bins is None else bins
    columns_by_role = {"outcome": outcome, "exposure": exposure, "denominator": denominator, "weight": weights}
    number_columns = {role: column for role, column in columns_by_role.items() if column is not None}
    cuped_columns, balance_columns = _list_columns("cuped", cuped), _list_columns("balance", balance)
    bounds = _build_cap(cap, cap_quantile)
    adjustments = {"denominator": denominator, "weights": weights, "cluster": cluster, "cuped": cuped_columns or None}
    _check_combination(metric, exposure, [name for name, value in adjustments.items() if value is not None], bounds)
    pre_roles = {f"cuped {column!r}": column for column in cuped_columns}
    pre_roles |= {f"balance {column!r}": column for column in balance_columns if column not in cuped_columns}
    # A column from before treatment may be adjusted for and be cut into levels: only then it has two roles.
    column_roles = {**number_columns, "arm": arm, "cluster": cluster}
    cut_dims = bins if isinstance(bins, Mapping) else {}
    column_roles |= {role: column for role, column in pre_roles.items() if column not in cut_dims}
    dims = check_dimensions(segments, column_roles, reserved_names={VALUE} if metric == "histogram" else ())
    bins_by_dim, rare_limits = check_bins(bins, dims), check_rare(rare, dims)
    if cluster is not None:
        _check_cluster_levels(rare_limits, bins_by_dim)
    # Labels are read as text; dimensions to be cut keep their type, as do the numbers.
    text_dims = [dim for dim in dims if dim not in bins_by_dim]
    numeric_dims = [dim for dim, dim_bins in bins_by_dim.items() if not isinstance(dim_bins, str)]
    id_columns = [column for column in (cluster, unit) if column is not None]
    if unit is not None and not isinstance(unit, str):
        raise DataError(f"unit must be the name of one column, not {describe_value(unit)}")
    label_columns = list(
        dict.fromkeys([*text_dims, arm, *(column for column in id_columns if column not in column_roles)])
    )
    needed_numbers = [*number_columns.values(), *pre_roles.values(), *numeric_dims]
    with open_table(data, label_columns=label_columns, number_columns=needed_numbers, connection=connection) as source:
        rows = prepare_unit_rows(
            source,
            number_columns=number_columns,
            arm_column=arm,
            dims=dims,
            pre_columns=list(pre_roles.values()),
            cluster_column=cluster,
            bins_by_dim=bins_by_dim,
            cap=bounds,
        )
        reduction = _choose_metric(metric, exposure, rows, cuped_columns)
        groups = group_unit_rows(rows, reduction.build_query())
        warnings = [] if cluster is None else note_crossing_clusters(rows.frame, cluster, rows.table_name)
        spanning, cluster_notes = (
            (None, []) if cluster is None else _count_clusters(rows, groups, crossing=bool(warnings))
        )
        # A unit that is the cluster may have many rows, which are added up.
        warnings += [] if unit in {None, cluster} else _note_repeats(source, str(unit), arm)
    reduction.check_groups(groups, rows)
    # Rows without an arm are dropped later, so that they make no level common.
    kept_rows = np.where(groups.arm_labels == None, 0, groups.complete_counts)  # noqa: E711, elementwise
    level_labels, rare_notes = merge_rare_levels(groups.level_labels, kept_rows, dims=dims, minimum_rows=rare_limits)
    groups = replace(groups, level_labels=level_labels)
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
        *cluster_notes,
        *_note_variance_reduction(variables, cuped_columns),
        *rare_notes,
    ]
    attributes = replace(
        attributes,
        notes=notes,
        validity_warnings=warnings,
        recipe_text=None if reduction.adjustment_recipe is None else reduction.adjustment_recipe.to_json(),
    )
    attributes = replace(attributes, spanning_text=None if spanning is None else spanning.to_json())
    # Lowest and highest are of single outcomes: ratios, totals of clusters and weighted rows have none.
    keeps_extremes = (
        "events" not in variables
        and reduction.extremes_column in groups.column_moments
        and "denominator" not in number_columns
    )
    extremes = (
        groups.column_moments[reduction.extremes_column]
        if keeps_extremes and cluster is None and weights is None
        else None
    )
    check_variables, check_coords = _build_check_variables(groups, rows, cell_keys, missing_by_cell, extremes)
    cells = build_cell_table(
        cell_keys, {**variables, **check_variables}, attributes, extra_coords={**metric_coords, **check_coords}
    )
    has_arm_data = cell_table.has_data(cells).any(SEGMENT)  # units without exposure say nothing of an arm
    check_arms((str(label) for label in cells[ARM].values[has_arm_data.values]), attributes.control_arm, arm)
    return cells


def _list_columns(option_name: str, columns: str | Sequence[str] | None) -> list[str]:
    names = [columns] if isinstance(columns, str) else check_column_names(option_name, columns or ())
    if len(set(names)) < len(names):
        raise DataError(f"{option_name} repeats a column: {quote_names(names)}; name each once")
    return names


def _build_cap(cap: float | tuple[float, float] | None, cap_quantile: float | tuple[float, float] | None) -> Cap | None:
    """Build the cap of outcomes from the options; None without one."""
    if cap is not None and cap_quantile is not None:
        raise DataError("cap and cap_quantile are both given; name the value, or the quantile, at which to cap")
    cap_option = cap if cap_quantile is None else cap_quantile
    if cap_option is None:
        return None
    option_name = "cap" if cap_quantile is None else "cap_quantile"
    low, high = _parse_bounds(cap_option)
    # low = −∞ is no lower bound; NaN, from what is no number, fails low < high.
    if not low < high or not np.isfinite(high) or (cap_quantile is not None and not (low >= 0 or low == -np.inf)):
        raise DataError(
            f"{option_name} is {describe_value(cap_option)}; give a finite number, or a pair of them, the smaller first"
        )
    if cap_quantile is not None and not 0 < high < 1:
        raise DataError(
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


def _check_combination(metric: str, exposure: str | None, adjusting_options: Sequence[str], cap: Cap | None) -> None:
    """Raise DataError if options of `from_rows` exclude each other."""
    if metric not in get_args(MetricName):
        raise DataError(f"no metric {metric!r}; there are {quote_names(get_args(MetricName))}")
    if exposure is not None and metric != "mean":
        raise DataError(f"exposure makes rates, and metric={metric!r} something else; leave one of them out")
    if exposure is not None and adjusting_options:
        raise DataError(
            f"exposure makes rates of independent units, which {' and '.join(adjusting_options)} cannot adjust; name "
            "the column as denominator in place of exposure, for the family mean"
        )
    if exposure is not None and cap is not None:
        raise DataError(
            "exposure counts events, and a cap would leave some out; name the column as denominator instead"
        )
    if metric != "mean" and adjusting_options:
        raise DataError(
            f"metric={metric!r} keeps what independent units did, which {' and '.join(adjusting_options)} cannot "
            "adjust; use "
            'metric="mean"'
        )


def _check_cluster_levels(rare_limits: Mapping[str, int], bins_by_dim: Mapping[str, BinSpec]) -> None:
    """Raise DataError where levels would be merged after clusters were added up level by level."""
    weekly_dims = [dim for dim, dim_bins in bins_by_dim.items() if dim_bins == "week"]
    if rare_limits or weekly_dims:
        level_phrase = "rare levels" if rare_limits else f"the days of {weekly_dims[0]!r}"
        raise DataError(
            f"{level_phrase} are put together after the rows of a cluster are added up, so that one with rows in two "
            "of them would count twice; put them together in a column of the data, and name that"
        )


def _choose_metric(
    metric: MetricName, exposure: str | None, unit_rows: UnitRows, cuped_columns: Sequence[str]
) -> MetricReduction:
    """Choose how to reduce the rows: by a metric's own statistics, or as adjusted means."""
    roles = list(unit_rows.number_columns)
    weights, denominator = (
        unit_rows.number_columns.get("weight"),
        unit_rows.number_columns.get("denominator"),
    )
    if exposure is not None or not (weights or denominator or unit_rows.cluster_column or cuped_columns):
        return METRIC_REDUCTIONS[metric if exposure is None else "rates"]
    # The recipe is stored with the cells: merged tables solve for their adjusted means anew.
    recipe = adjusted_means.build_recipe(
        denominator=denominator, weights=weights, cluster=unit_rows.cluster_column, cuped=cuped_columns
    )
    positions = {role: roles.index(role) if role in roles else None for role in ("weight", "denominator")}
    return MetricReduction(
        lambda: adjusted_means.build_query(recipe, **positions),
        lambda groups, units: adjusted_means.reduce_to_adjusted_means(groups, units, recipe),
        adjustment_recipe=recipe,
    )


def _note_repeats(source: Source, unit_column: str, arm_column: str) -> list[str]:
    import narwhals.stable.v2 as nw

    picked_rows = pick_columns(source, [unit_column, arm_column]).select(
        nw.col("c0").alias("u"), nw.col("c1").alias("k0")
    )
    return note_repeated_units(picked_rows, unit_column, source.table_name)


def _describe_outcome(unit_rows: UnitRows) -> str:
    """Describe the outcome with its cap and its denominator."""
    outcome_phrase = unit_rows.number_columns["outcome"]
    if unit_rows.cap is not None:
        outcome_phrase += f" ({unit_rows.cap})"
    return (
        f"{outcome_phrase} per {unit_rows.number_columns['denominator']}"
        if "denominator" in unit_rows.number_columns
        else outcome_phrase
    )


def _note_transformations(unit_rows: UnitRows, groups: GroupedUnits) -> list[str]:
    """Note how dimensions were cut and outcomes were capped."""
    notes = [cut.describe_cut(dim) for dim, cut in unit_rows.cuts_by_dim.items()]
    if unit_rows.cap is not None:
        n_capped, n_complete = int(groups.value_counts["capped"].sum()), int(groups.complete_counts.sum())
        notes.append(
            f"{n_capped:,} of {n_complete:,} outcomes in {unit_rows.number_columns['outcome']!r} lie beyond the cap; "
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
        unit_rows.frame, unit_rows.dims, unit_rows.table_name, crossing=crossing
    )
    return spanning, [describe_analysis_units(str(unit_rows.cluster_column), n_clusters, n_spanning, spanning)]


def _note_variance_reduction(cell_variables: Mapping[str, CellValues], cuped_columns: Sequence[str]) -> list[str]:
    """Note the share of variance that the adjustment took away, over cells."""
    if "variance_reduction" not in cell_variables or not np.isfinite(cell_variables["variance_reduction"]).any():
        return []
    reductions = cell_variables["variance_reduction"]
    low, middle, high = (round(float(share), 2) + 0.0 for share in np.nanquantile(reductions, [0, 0.5, 1]))  # no -0 %
    return [
        f"adjusting for {', '.join(cuped_columns)} (CUPED) took away {middle:.0%} of the variance of a cell's mean "
        f"(median; from {low:.0%} to {high:.0%})"
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
    if unit_rows.cluster_column is not None:
        variables["n_rows"] = groups.complete_counts
    if outcome_extremes is not None:
        variables |= {"lowest": outcome_extremes.min_value, "highest": outcome_extremes.max_value}
    pre_coords: CellCoords = {}
    if unit_rows.pre_columns:
        pre_moments = [groups.column_moments[f"p{j}"] for j in range(len(unit_rows.pre_columns))]
        variables["pre_n"] = np.stack([moments.n for moments in pre_moments], axis=-1)
        variables["pre_mean"] = np.stack([moments.mean for moments in pre_moments], axis=-1)
        variables["pre_ss"] = np.stack([moments.ss for moments in pre_moments], axis=-1)
        pre_coords = {PRE_COVARIATE: (PRE_COVARIATE, list(unit_rows.pre_columns))}
    pooled_keys, pooled = pool_groups(groups.cell_keys, variables)
    if pooled_keys != cell_keys:  # a histogram leaves out cells without values
        index_of_key = {key: i for i, key in enumerate(pooled_keys)}
        pooled = {name: values[[index_of_key[key] for key in cell_keys]] for name, values in pooled.items()}
    if any(missing_by_cell.values()):
        pooled["n_missing"] = np.array([missing_by_cell[key] for key in cell_keys], dtype=np.int64)
    return pooled, pre_coords
