"""Read tables that hold one row per cell already: summaries of an experiment, or published estimates."""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.cells.assembly import About, Column, assemble
from bayes_hte.cells.covariances import checked_covariance
from bayes_hte.cells.covariates import attach, covariate_roles
from bayes_hte.cells.labels import SEPARATOR, text_of
from bayes_hte.cells.records import Rows, check_distinct, finite, name_cell, read, whole
from bayes_hte.cells.sources import check_arms, check_names
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
    mean: str | None = None,
    sd: str | None = None,
    se: str | None = None,
    outcome: str = "outcome",
    exposure: str | None = None,
    positive: str | None = None,
    log_mean: str | None = None,
    log_sd: str | None = None,
    covariates: Sequence[str] = (),
) -> xr.Dataset:
    """Read a summary with one row per segment and arm.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow or DuckDB table, or a path to a .csv, .csv.gz, .tsv or .parquet file.
    arm
        Column that names the arm.
    control
        The arm that the others are compared with, as text.
    segments
        Columns that define the segments: the dimensions.
    n, events
        Columns with the units, and with the units whose outcome is 1, or with the events if `exposure` is given.
    mean, sd
        Columns with the mean outcome, and with the standard deviation between units (divisor n - 1).
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
        Dims (segment, arm), the control first. n and events give n, events; n, mean and sd give n, mean and
        ss = sd² (n - 1); mean and se, with or without n, are kept, and so are events and exposure; n, mean, sd,
        positive, log_mean and log_sd give n, mean, ss, positive, log_mean and log_ss = log_sd² (positive - 1).
        Covariates have dims (segment, covariate).

    Raises
    ------
    DataError
        If columns are missing or no such combination is given, a row appears twice, a number is impossible, the
        control or a second arm is not there, or nothing varies.

    Notes
    -----
    A row with n = 0 or exposure = 0 is an empty cell, and so is a combination without a row.

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
    columns = {"n": n, "events": events, "mean": mean, "sd": sd, "se": se, "exposure": exposure}
    columns |= {"positive": positive, "log_mean": log_mean, "log_sd": log_sd}
    given = {role: column for role, column in columns.items() if column is not None}
    convert = _summaries(given)
    known = covariate_roles(covariates)
    dims = check_names(segments, {"arm": arm, **given, **known})
    rows = read(table, dims=dims, arm=arm, columns=given | known)
    check_distinct(rows.keys, name_cell)
    about = About(outcome=outcome, control=text_of(control) or "", dims=dims, source=rows.source, notes=rows.notes)
    values = convert(rows)
    size = values.get("exposure", values.get("n", np.ones(len(rows.keys))))
    full = size > 0
    check_arms((label for (_, label), there in zip(rows.keys, full, strict=True) if there), about.control, arm)
    return attach(assemble(rows.keys, values, about), rows, known)


def _summaries(given: dict[str, str]) -> "Callable[[Rows], dict[str, Column]]":
    """Choose what to make of the columns that are given."""
    convert = _ACCEPTED.get(frozenset(given))
    if convert is None:
        found = ", ".join(f"{role}={column!r}" for role, column in given.items()) or "none of them"
        raise DataError(
            "a summary needs n and events (yes or no), or n, mean and sd (numbers), or mean and se, with n if known "
            "(adjusted means), or events and exposure, with n if known (rates), or n, mean, sd, positive, log_mean and "
            f"log_sd (two parts), and nothing else; given: {found}"
        )
    return convert


def _counts(rows: Rows) -> dict[str, Column]:
    n = whole(rows, "n")
    events = whole(rows, "events", optional=n == 0)  # a sum over no rows is null in SQL
    rows.fail_at(events > n, "events must not be more than n")
    if not events.any():
        raise DataError("no events in any cell: no effect can be seen; check which column is events")
    if (events == n).all():
        raise DataError("the outcome does not vary: every unit has the event, so no effect can be seen")
    return {"n": n, "events": events}


def _moments(rows: Rows) -> dict[str, Column]:
    n = whole(rows, "n")
    finite(rows, "mean", n > 0)
    finite(rows, "sd", n > 1)  # one unit has no standard deviation: any engine writes null
    rows.fail_at((rows.numbers["sd"] < 0), "sd must not be negative")
    mean = np.where(n > 0, rows.numbers["mean"], np.nan)
    ss = np.where(n > 1, rows.numbers["sd"] ** 2 * (n - 1), 0.0)
    if not ss.any() and len(np.unique(mean[n > 0])) == 1:
        raise DataError("the outcome does not vary: all means are equal and every sd is 0, so no effect can be seen")
    return {"n": n, "mean": mean, "ss": ss}


def _rates(rows: Rows) -> dict[str, Column]:
    exposure = rows.numbers["exposure"]
    if "n" in rows.numbers:  # a sum over no rows is null in SQL
        exposure = np.where((rows.numbers["n"] == 0) & np.isnan(exposure), 0.0, exposure)
    rows.fail_at(~np.isfinite(exposure), "exposure must be a finite number")
    rows.fail_at(exposure < 0, "exposure must not be negative")
    events = whole(rows, "events", optional=exposure == 0)
    rows.fail_at((events > 0) & (exposure == 0), "exposure must be greater than 0 where there are events")
    if not events.any():
        raise DataError("no events in any cell: no effect can be seen; check which column is events")
    columns: dict[str, Column] = {"events": events, "exposure": exposure}
    if "n" in rows.numbers:
        columns["n"] = whole(rows, "n")
        rows.fail_at((columns["n"] == 0) & (exposure > 0), "n must be at least 1 where there is exposure")
    return columns


def _two_part(rows: Rows) -> dict[str, Column]:
    columns = _moments(rows)
    n, mean = columns["n"], columns["mean"]
    positive = whole(rows, "positive", optional=n == 0)
    rows.fail_at(positive > n, "positive must not be more than n")
    rows.fail_at((n > 0) & ((mean > 0) != (positive > 0)), "mean must be above 0 where outcomes are positive, else 0")
    finite(rows, "log_mean", positive > 0)
    finite(rows, "log_sd", positive > 1)  # one unit has no standard deviation
    rows.fail_at(rows.numbers["log_sd"] < 0, "log_sd must not be negative")
    if (positive == n).all():
        raise DataError(
            "every outcome is positive: it has one part, not two; give n, mean and sd only, for the family "
            "mean or normal"
        )
    log_mean = np.where(positive > 0, rows.numbers["log_mean"], np.nan)
    log_ss = np.where(positive > 1, rows.numbers["log_sd"] ** 2 * (positive - 1), 0.0)
    if not log_ss.any() and len(np.unique(log_mean[positive > 0])) == 1:
        raise DataError(
            "all positive outcomes are equal: the outcome says yes or no; give n and events only, for the "
            "family binomial"
        )
    return {**columns, "positive": positive, "log_mean": log_mean, "log_ss": log_ss}


def _means(rows: Rows) -> dict[str, Column]:
    return _with_errors(rows, "mean")


def _with_errors(rows: Rows, role: str) -> dict[str, Column]:
    """A mean or estimate with its standard error; cells with n = 0 are empty."""
    columns: dict[str, Column] = {}
    full = np.ones(len(rows.keys), dtype=np.bool_)
    if "n" in rows.numbers:
        columns["n"] = whole(rows, "n")
        full = columns["n"] > 0
    for name in (role, "se"):
        finite(rows, name, full)
        columns[name] = np.where(full, rows.numbers[name], np.nan)
    rows.fail_at(full & ~(rows.numbers["se"] > 0), "se must be greater than 0")
    return columns


_ACCEPTED = MappingProxyType(
    {
        frozenset({"n", "events"}): _counts,
        frozenset({"n", "mean", "sd"}): _moments,
        frozenset({"mean", "se"}): _means,
        frozenset({"n", "mean", "se"}): _means,
        frozenset({"events", "exposure"}): _rates,
        frozenset({"n", "events", "exposure"}): _rates,
        frozenset({"n", "mean", "sd", "positive", "log_mean", "log_sd"}): _two_part,
    }
)


def from_estimates(
    table: "Table",
    *,
    segments: Sequence[str],
    estimate: str,
    se: str | None = None,
    covariance: npt.ArrayLike | None = None,
    arm: str | None = None,
    n: str | None = None,
    outcome: str = "effect",
    covariates: Sequence[str] = (),
) -> xr.Dataset:
    """Read effects that were estimated elsewhere, one row per segment (and arm).

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow or DuckDB table, or a path to a .csv, .csv.gz, .tsv or .parquet file.
    segments
        Columns that define the segments: the dimensions.
    estimate
        Column with the estimated effects.
    se
        Column with their standard errors; may be left out if `covariance` is given.
    covariance
        Covariance matrix of the estimates, rows and columns in the order of the table's rows; for one arm only.
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
        return attach(assemble(rows.keys, _with_errors(rows, "estimate"), about), rows, known)
    if len({label for _, label in rows.keys}) > 1:
        raise DataError("a covariance can be given for one arm only; give one arm's rows at a time")
    matrix = checked_covariance(covariance, _labels(rows), rows.numbers.get("se"))
    rows.numbers["se"] = np.sqrt(np.diag(matrix))
    return attach(assemble(rows.keys, _with_errors(rows, "estimate"), about, covariance=matrix), rows, known)


def _labels(rows: Rows) -> list[str]:
    return [SEPARATOR.join(levels) for levels, _ in rows.keys]
