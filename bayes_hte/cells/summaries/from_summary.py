"""Read tables that hold one row per cell already: summaries of an experiment, or published estimates."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte._support.validation import check_nonempty_text, check_not_none
from bayes_hte.cells.build import TableAttributes, build_cell_table
from bayes_hte.cells.reading.engines import check_arms, check_dimensions, name_table
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, match_label
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.summaries.covariances import check_covariance, read_covariance
from bayes_hte.cells.summaries.segment_covariates import attach_covariates, name_covariate_roles
from bayes_hte.cells.summaries.small_tables import SummaryRows, check_distinct, describe_cell, read_summary_rows
from bayes_hte.cells.summaries.statistics_given import (
    DEFAULT_LEVEL,
    SummaryConversion,
    check_uncertainty,
    choose_conversion,
    choose_size_unit,
    convert_limits,
    convert_sizes,
    convert_with_errors,
    name_size_role,
)
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table


def from_summary(  # noqa: PLR0913, one keyword per column
    table: "Table",
    *,
    arm: str,
    control: str,
    segments: Sequence[str],
    n: str | None = None,
    events: str | None = None,
    non_events: str | None = None,
    mean: str | None = None,
    sd: str | None = None,
    total: str | None = None,
    sum_squares: str | None = None,
    se: str | None = None,
    outcome: str = "outcome",
    exposure: str | None = None,
    positive: str | None = None,
    log_mean: str | None = None,
    log_sd: str | None = None,
    size: str | None = None,
    covariates: Sequence[str] | None = None,
    fold_labels: bool = False,
    decimal: DecimalMark | None = None,
) -> xr.Dataset:
    """Read a summary with one row per segment and arm.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, the path of a file, or a
        `DataSource`.
    arm
        Column that names the arm.
    control
        The arm that the others are compared with, as text.
    segments
        Columns that define the segments: the dimensions.
    n, events
        Columns with the units, and with the units whose outcome is 1, or with the events if `exposure` is given.
    non_events
        Column with the units whose outcome is 0, in place of `n`: both columns of a 2×2 table.
    mean, sd
        Columns with the mean outcome, and with the standard deviation between units (divisor n - 1).
    total, sum_squares
        Columns with the sum of the outcomes, and of their squares, in place of `mean` and `sd`.
    se
        Column with the standard error of the mean, for means that were adjusted or whose units are not independent.
    outcome
        What was measured, for tables and reports.
    exposure
        Column with the time, visits or area over which the events were counted.
    positive
        Column with the units whose outcome is greater than 0, of an outcome in two parts such as revenue.
    log_mean, log_sd
        Columns with the mean and the standard deviation (divisor positive - 1) of the natural logarithm of the
        positive outcomes.
    size
        Column with what each row stands for in the population, where that is not `n` or `exposure`: people where n
        counts clusters, views of a mean per view, the sum of weights. Averages over segments count each by it.
    covariates
        Columns of numbers that are known of each segment as a whole, the same in the rows of all its arms.
    fold_labels
        Take labels that differ only in case, spaces or Unicode form for one, in the spelling that most rows have (that
        of the control stays), and say so in a note.
    decimal
        "," or ".": the mark of decimals in a text file. Without it a comma is taken for one, with a note, where nothing
        else can be meant.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. n and events, or events and non_events, give n, events; n, mean and
        sd give n, mean and ss = sd² (n - 1), and so do n, total and sum_squares; mean and se, with or without n, are
        kept, and so are events and exposure; n, mean, sd, positive, log_mean and log_sd give n, mean, ss, positive,
        log_mean and log_ss = log_sd² (positive - 1). The size is kept as cell_size. Covariates have dims (segment,
        covariate).

    Raises
    ------
    ArgumentError
        If no such combination is given.
    DataError
        If columns are missing, a row appears twice, a number is impossible, the
        control or a second arm is not there, nothing varies, or sums of squares leave no digit of a variance.

    Notes
    -----
    A row with n = 0 or exposure = 0 is an empty cell, and so is a combination without a row.

    ss = sum_squares - total²/n loses digits where the mean is large against the spread: a mean a million times as
    large as the SD leaves three or four of sixteen. Where fewer than six are left, a note in the cells says so.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile", "mobile", "tv", "tv"],
    ...         "arm": ["old", "new", "old", "new"],
    ...         "users": [1000, 1000, 50, 50],
    ...         "bought": [100, 120, 5, 4],
    ...     }
    ... )
    >>> cells = from_summary(table, arm="arm", control="old", segments=["device"], n="users", events="bought")
    >>> cells["events"].values.tolist()
    [[100, 120], [5, 4]]
    """
    check_not_none(arm=arm, control=control)
    check_nonempty_text(outcome=outcome)
    columns = {"n": n, "events": events, "non_events": non_events, "mean": mean, "sd": sd, "total": total}
    columns |= {"sum_squares": sum_squares, "se": se, "exposure": exposure}
    columns |= {"positive": positive, "log_mean": log_mean, "log_sd": log_sd}
    column_by_role = {role: column for role, column in columns.items() if column is not None}
    # The roles that have a column say which form the summary has.
    convert_rows = choose_conversion(column_by_role)
    column_by_role |= name_size_role(size)
    covariate_columns = name_covariate_roles(covariates)
    dims = check_dimensions(segments, {"arm": arm, **column_by_role, **covariate_columns})
    rows = read_summary_rows(
        table,
        dims=dims,
        arm_column=arm,
        columns_by_role=column_by_role | covariate_columns,
        fold_labels=fold_labels,
        control=control,
        decimal=decimal,
    )
    check_distinct(rows.cell_keys, describe_cell)
    attributes = TableAttributes(
        outcome_name=outcome,
        size_unit=choose_size_unit(size or exposure),
        control_arm=match_label(control, rows.arm_labels),
        dims=dims,
        source_text=rows.source_text,
        level_orders=rows.level_orders,
    )
    return build_summary_cells(rows, convert_rows, attributes, arm=arm, covariate_columns=covariate_columns)


def build_summary_cells(
    rows: SummaryRows,
    convert_rows: SummaryConversion,
    attributes: TableAttributes,
    *,
    arm: str,
    covariate_columns: Mapping[str, str],
) -> xr.Dataset:
    """Build the cell table from rows that hold one cell each.

    Parameters
    ----------
    rows
        Distinct cells and their numbers.
    convert_rows
        Conversion of the numbers to variables of the cell table.
    attributes
        Attributes of the cell table; the notes are those of the rows.
    arm
        Column of the arms, for messages.
    covariate_columns
        The roles of covariates, and their columns.
    """
    variables = convert_rows(rows) | convert_sizes(rows)
    cell_sizes = variables.get("exposure", variables.get("n", np.ones(len(rows.cell_keys))))
    # An arm with empty cells alone was never seen, so it cannot be the control.
    has_data = cell_sizes > 0
    check_arms(
        (label for (_, label), is_seen in zip(rows.cell_keys, has_data, strict=True) if is_seen),
        attributes.control_arm,
        arm,
    )
    return attach_covariates(
        build_cell_table(rows.cell_keys, variables, replace(attributes, notes=rows.notes)), rows, covariate_columns
    )


def from_estimates(  # noqa: PLR0913, one keyword per column
    table: "Table",
    *,
    segments: Sequence[str],
    estimate: str | None = None,
    se: str | None = None,
    ratio: str | None = None,
    lower: str | None = None,
    upper: str | None = None,
    level: float = DEFAULT_LEVEL,
    covariance: "npt.ArrayLike | os.PathLike[str] | None" = None,
    arm: str | None = None,
    n: str | None = None,
    size: str | None = None,
    outcome: str = "effect",
    covariates: Sequence[str] | None = None,
    fold_labels: bool = False,
    decimal: DecimalMark | None = None,
) -> xr.Dataset:
    """Read effects that were estimated elsewhere, one row per segment (and arm).

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, the path of a file, or a
        `DataSource`.
    segments
        Columns that define the segments: the dimensions.
    estimate
        Column with the estimated effects.
    se
        Column with their standard errors; may be left out if `covariance`, or both limits, are given.
    ratio
        Column with hazard, odds or risk ratios, in place of `estimate`: analysed as their logarithms, with standard
        errors from the limits.
    lower, upper
        Columns with the limits of confidence intervals, of estimates or of ratios, as published.
    level
        Confidence level of these limits.
    covariance
        Covariance matrix of the estimates, rows and columns in the order of the table's rows; for one arm only. Or the
        path of a file with the square matrix, whose header names the segments (the
        levels of several dimensions joined by " · "); so may one more column before these, for the rows, which else
        have the header's order. Any order will do.
    arm
        Column that names the treated arm; without it there is one arm, "treated".
    n
        Column with the units behind each estimate.
    size
        Column with what each estimate stands for in the population, where that is not `n`: averages over segments
        count each by it.
    outcome
        What was measured, for tables and reports.
    covariates
        Columns of numbers that are known of each segment as a whole, the same in the rows of all its arms.
    fold_labels
        Take labels that differ only in case, spaces or Unicode form for one, in the spelling that most rows have (that
        of the control stays), and say so in a note.
    decimal
        "," or ".": the mark of decimals in a text file. Without it a comma is taken for one, with a note, where nothing
        else can be meant.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm): estimate and se in the unit of the estimates, of ratios in logarithms; n if given, and
        covariance with dims (segment, other_segment) if given; the size as cell_size. Covariates have dims (segment,
        covariate). There is no control: its attribute is "".

    Raises
    ------
    ArgumentError
        If neither standard errors, nor limits, nor a covariance are given, or what is given says it twice.
    DataError
        If columns are missing, a row appears twice, a number is not finite, a standard error is not positive, an
        estimate is not in the middle of its limits (of a ratio on the log scale, up to rounding), or the covariance is
        not symmetric, not positive definite, or disagrees with the standard errors.

    Examples
    --------
    >>> import pandas as pd
    >>> schools = pd.DataFrame({"school": ["A", "B"], "y": [28.0, 8.0], "se": [15.0, 10.0]})
    >>> from_estimates(schools, segments=["school"], estimate="y", se="se")["estimate"].values.tolist()
    [[28.0], [8.0]]

    Hazard ratios with 95 % limits become logarithms with standard errors:

    >>> trials = pd.DataFrame({"sex": ["women", "men"], "hr": [0.5, 0.8], "low": [0.25, 0.5], "high": [1.0, 1.28]})
    >>> cells = from_estimates(trials, segments=["sex"], ratio="hr", lower="low", upper="high")
    >>> cells["estimate"].values.round(3).tolist(), cells["se"].values.round(3).tolist()
    ([[-0.223], [-0.693]], [[0.24], [0.354]])
    """
    columns = {"estimate": estimate, "ratio": ratio, "se": se, "lower": lower, "upper": upper}
    given_columns = {role: column for role, column in columns.items() if column is not None}
    check_uncertainty(given_columns, level, has_covariance=covariance is not None)
    check_nonempty_text(outcome=outcome)
    column_by_role = given_columns | ({} if n is None else {"n": n}) | name_size_role(size)
    covariate_columns = name_covariate_roles(covariates)
    dims = check_dimensions(segments, {"arm": arm, **column_by_role, **covariate_columns})
    rows = read_summary_rows(
        table,
        dims=dims,
        arm_column=arm,
        columns_by_role=column_by_role | covariate_columns,
        fold_labels=fold_labels,
        decimal=decimal,
    )
    check_distinct(rows.cell_keys, describe_cell)
    if lower is not None:
        convert_limits(rows, level, given_columns)
    # Effects are differences already: the table holds no arm that they could be compared with.
    attributes = TableAttributes(
        outcome_name=outcome,
        control_arm="",
        dims=dims,
        source_text=rows.source_text,
        notes=rows.notes,
        size_unit=choose_size_unit(size),
        level_orders=rows.level_orders,
    )
    if n is not None:
        rows.fail_at(rows.numbers_by_role["n"] == 0, "n must be at least 1 where there is an estimate")
    if covariance is None:
        return attach_covariates(
            build_cell_table(rows.cell_keys, convert_with_errors(rows, "estimate") | convert_sizes(rows), attributes),
            rows,
            covariate_columns,
        )
    # The covariance of a cell table is between segments: it has no room for a second arm.
    if len({label for _, label in rows.cell_keys}) > 1:
        raise DataError("a covariance can be given for one arm only; give one arm's rows at a time")
    segment_labels = [LEVEL_SEPARATOR.join(levels) for levels, _ in rows.cell_keys]
    # A file names its segments, so that it is put in order; a matrix must be in the order of the rows.
    if isinstance(covariance, str | os.PathLike):
        attributes = replace(
            attributes, source_text=f"{attributes.source_text}, covariance of {name_table(covariance)}"
        )
        covariance = read_covariance(covariance, segment_labels)
    covariance_matrix = check_covariance(covariance, segment_labels, rows.numbers_by_role.get("se"))
    # se_s = √Σ_ss: the standard errors of the diagonal, unrounded, in place of those that were printed.
    rows.numbers_by_role["se"] = np.sqrt(np.diag(covariance_matrix))
    return attach_covariates(
        build_cell_table(
            rows.cell_keys,
            convert_with_errors(rows, "estimate") | convert_sizes(rows),
            attributes,
            covariance=covariance_matrix,
        ),
        rows,
        covariate_columns,
    )
