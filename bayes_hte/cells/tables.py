"""Read tables that hold one row per cell already: summaries of an experiment, or published estimates."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.asked import check_given, check_text
from bayes_hte.cells.assembly import About, assemble
from bayes_hte.cells.covariances import checked_covariance, covariance_of
from bayes_hte.cells.covariates import attach, covariate_roles
from bayes_hte.cells.forms import Convert, form_of, with_errors
from bayes_hte.cells.labels import SEPARATOR, text_of
from bayes_hte.cells.records import Rows, check_distinct, name_cell, read
from bayes_hte.cells.sources import check_arms, check_names, name_of
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table


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
    covariates: Sequence[str] | None = None,
) -> xr.Dataset:
    """Read a summary with one row per segment and arm.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to a .csv, .csv.gz, .tsv or .parquet
        file.
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
    covariates
        Columns of numbers that are known of each segment as a whole, the same in the rows of all its arms.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. n and events, or events and non_events, give n, events; n, mean and
        sd give n, mean and ss = sd² (n - 1), and so do n, total and sum_squares; mean and se, with or without n, are
        kept, and so are events and exposure; n, mean, sd, positive, log_mean and log_sd give n, mean, ss, positive,
        log_mean and log_ss = log_sd² (positive - 1). Covariates have dims (segment, covariate).

    Raises
    ------
    DataError
        If columns are missing or no such combination is given, a row appears twice, a number is impossible, the
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
    check_given(arm=arm, control=control)
    check_text(outcome=outcome)
    columns = {"n": n, "events": events, "non_events": non_events, "mean": mean, "sd": sd, "total": total}
    columns |= {"sum_squares": sum_squares, "se": se, "exposure": exposure}
    columns |= {"positive": positive, "log_mean": log_mean, "log_sd": log_sd}
    given = {role: column for role, column in columns.items() if column is not None}
    convert = form_of(given)
    known = covariate_roles(covariates)
    dims = check_names(segments, {"arm": arm, **given, **known})
    rows = read(table, dims=dims, arm=arm, columns=given | known)
    check_distinct(rows.keys, name_cell)
    about = About(outcome=outcome, control=text_of(control) or "", dims=dims, source=rows.source)
    return summarised(rows, convert, about, arm=arm, known=known)


def summarised(rows: Rows, convert: Convert, about: About, *, arm: str, known: Mapping[str, str]) -> xr.Dataset:
    """Make the cell table from rows that hold one cell each.

    Parameters
    ----------
    rows
        Distinct cells and their numbers.
    convert
        What to make of the numbers.
    about
        Attributes; the notes are those of the rows.
    arm
        Where the arms were found, for messages.
    known
        The roles of covariates, and their columns.
    """
    values = convert(rows)
    size = values.get("exposure", values.get("n", np.ones(len(rows.keys))))
    full = size > 0
    check_arms((label for (_, label), there in zip(rows.keys, full, strict=True) if there), about.control, arm)
    return attach(assemble(rows.keys, values, replace(about, notes=rows.notes)), rows, known)


def from_estimates(
    table: "Table",
    *,
    segments: Sequence[str],
    estimate: str,
    se: str | None = None,
    covariance: "npt.ArrayLike | os.PathLike[str] | None" = None,
    arm: str | None = None,
    n: str | None = None,
    outcome: str = "effect",
    covariates: Sequence[str] | None = None,
) -> xr.Dataset:
    """Read effects that were estimated elsewhere, one row per segment (and arm).

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to a .csv, .csv.gz, .tsv or .parquet
        file.
    segments
        Columns that define the segments: the dimensions.
    estimate
        Column with the estimated effects.
    se
        Column with their standard errors; may be left out if `covariance` is given.
    covariance
        Covariance matrix of the estimates, rows and columns in the order of the table's rows; for one arm only. Or the
        path of a .csv, .csv.gz, .tsv or .parquet file with the square matrix, whose header names the segments (the
        levels of several dimensions joined by " · "); so may one more column before these, for the rows, which else
        have the header's order. Any order will do.
    arm
        Column that names the treated arm; without it there is one arm, "treated".
    n
        Column with the units behind each estimate.
    outcome
        What was measured, for tables and reports.
    covariates
        Columns of numbers that are known of each segment as a whole, the same in the rows of all its arms.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm): estimate and se in the unit of the estimates, n if given, and covariance with dims
        (segment, other_segment) if given. Covariates have dims (segment, covariate). There is no control: its
        attribute is "".

    Raises
    ------
    DataError
        If columns are missing, a row appears twice, a number is not finite, a standard error is not positive, or the
        covariance is not symmetric, not positive definite, or disagrees with the standard errors.

    Examples
    --------
    >>> import pandas as pd
    >>> schools = pd.DataFrame({"school": ["A", "B"], "y": [28.0, 8.0], "se": [15.0, 10.0]})
    >>> from_estimates(schools, segments=["school"], estimate="y", se="se")["estimate"].values.tolist()
    [[28.0], [8.0]]
    """
    if se is None and covariance is None:
        raise DataError(
            "estimates need their uncertainty: name the column of standard errors as se, or give covariance"
        )
    check_given(estimate=estimate)
    check_text(outcome=outcome)
    columns = {"estimate": estimate, "se": se, "n": n}
    given = {role: column for role, column in columns.items() if column is not None}
    known = covariate_roles(covariates)
    dims = check_names(segments, {"arm": arm, **given, **known})
    rows = read(table, dims=dims, arm=arm, columns=given | known)
    check_distinct(rows.keys, name_cell)
    about = About(outcome=outcome, control="", dims=dims, source=rows.source, notes=rows.notes)
    if n is not None:
        rows.fail_at(rows.numbers["n"] == 0, "n must be at least 1 where there is an estimate")
    if covariance is None:
        return attach(assemble(rows.keys, with_errors(rows, "estimate"), about), rows, known)
    if len({label for _, label in rows.keys}) > 1:
        raise DataError("a covariance can be given for one arm only; give one arm's rows at a time")
    labels = [SEPARATOR.join(levels) for levels, _ in rows.keys]
    if isinstance(covariance, str | os.PathLike):
        about = replace(about, source=f"{about.source}, covariance of {name_of(covariance)}")
        covariance = covariance_of(covariance, labels)
    matrix = checked_covariance(covariance, labels, rows.numbers.get("se"))
    rows.numbers["se"] = np.sqrt(np.diag(matrix))
    return attach(assemble(rows.keys, with_errors(rows, "estimate"), about, covariance=matrix), rows, known)
