"""Convert the numbers of a summary to variables of the cell table, and check them: one function for each form."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from bayes_hte.cells.build import CellValues
from bayes_hte.cells.summaries.small_tables import SummaryRows, check_finite, require_whole_numbers
from bayes_hte.cells.summaries.sums import compute_squared_deviations
from bayes_hte.errors import ArgumentError, DataError

type SummaryConversion = Callable[[SummaryRows], dict[str, CellValues]]


def choose_conversion(column_by_role: Mapping[str, str]) -> SummaryConversion:
    """Choose the conversion for the roles of the columns that are given.

    Raises
    ------
    ArgumentError
        If no form has exactly these roles.
    """
    convert_rows = SUMMARY_FORMS.get(frozenset(column_by_role))
    if convert_rows is None:
        described_columns = ", ".join(f"{role}={column!r}" for role, column in column_by_role.items()) or "none of them"
        raise ArgumentError(
            f"these columns make no summary: {described_columns}; give n and events (yes or no; or events and "
            "non_events), or n, "
            "mean and sd (numbers; or n, total and sum_squares), or mean and se, with n if known (adjusted means), or "
            "events and exposure, with n if known (rates), or n, mean, sd, positive, log_mean and log_sd (two parts), "
            f"and nothing else{'' if column_by_role else ', or let from_table find the columns'}"
        )
    return convert_rows


def _convert_counts(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert numbers of units and of events."""
    n = require_whole_numbers(rows, "n")
    events = require_whole_numbers(rows, "events", may_be_missing=n == 0)  # a sum over no rows is null in SQL
    rows.fail_at(events > n, "events must not be more than n")
    return _check_events_vary({"n": n, "events": events})


def _convert_two_by_two(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert both columns of a 2×2 table; a row of two zeros is an empty cell."""
    events = require_whole_numbers(rows, "events")
    return _check_events_vary({"n": events + require_whole_numbers(rows, "non_events"), "events": events})


def _check_events_vary(variables: dict[str, CellValues]) -> dict[str, CellValues]:
    """Return counts, or raise DataError if the outcome is the same for all units."""
    n, events = variables["n"], variables["events"]
    if not events.any():
        raise DataError("no events in any cell: no effect can be seen; check which column is events")
    if (events == n).all():
        raise DataError("the outcome does not vary: every unit has the event, so no effect can be seen")
    return variables


def _convert_sums(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert sums of the outcome and of its square: SS = Σ y² − (Σ y)² / n."""
    n = require_whole_numbers(rows, "n")
    for role in ("total", "sum_squares"):
        check_finite(rows, role, n > 0)  # a sum over no rows is null in SQL
    rows.fail_at(rows.numbers_by_role["sum_squares"] < 0, "sum_squares must not be negative")
    sums_of_squares = compute_squared_deviations(rows, n)
    means = np.divide(rows.numbers_by_role["total"], n, out=np.full(len(n), np.nan), where=n > 0)
    return _check_moments_vary({"n": n, "mean": means, "ss": sums_of_squares})


def _convert_moments(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert means and standard deviations."""
    n = require_whole_numbers(rows, "n")
    check_finite(rows, "mean", n > 0)
    check_finite(rows, "sd", n > 1)  # one unit has no standard deviation: any engine writes null
    rows.fail_at((rows.numbers_by_role["sd"] < 0), "sd must not be negative")
    means = np.where(n > 0, rows.numbers_by_role["mean"], np.nan)
    sums_of_squares = _compute_sums_of_squares(rows.numbers_by_role["sd"], n)
    return _check_moments_vary({"n": n, "mean": means, "ss": sums_of_squares})


def _compute_sums_of_squares(sd: CellValues, n: CellValues) -> CellValues:
    """Compute sums of squared deviations from standard deviations; 0 of a single unit."""
    # SS = sd² (n − 1)
    with np.errstate(over="ignore"):  # what is too large is refused as such
        return np.where(n > 1, sd**2 * (n - 1), 0.0)


def _check_moments_vary(variables: dict[str, CellValues]) -> dict[str, CellValues]:
    """Return moments, or raise DataError if the outcome is the same for all units."""
    if not variables["ss"].any() and len(np.unique(variables["mean"][variables["n"] > 0])) == 1:
        raise DataError("the outcome does not vary: all means are equal and every sd is 0, so no effect can be seen")
    return variables


def _convert_rates(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert numbers of events and their exposure."""
    exposure = rows.numbers_by_role["exposure"]
    if "n" in rows.numbers_by_role:  # a sum over no rows is null in SQL
        exposure = np.where((rows.numbers_by_role["n"] == 0) & np.isnan(exposure), 0.0, exposure)
    rows.fail_at(~np.isfinite(exposure), "exposure must be a finite number")
    rows.fail_at(exposure < 0, "exposure must not be negative")
    events = require_whole_numbers(rows, "events", may_be_missing=exposure == 0)
    rows.fail_at((events > 0) & (exposure == 0), "exposure must be greater than 0 where there are events")
    if not events.any():
        raise DataError("no events in any cell: no effect can be seen; check which column is events")
    variables: dict[str, CellValues] = {"events": events, "exposure": exposure}
    if "n" in rows.numbers_by_role:
        variables["n"] = require_whole_numbers(rows, "n")
        rows.fail_at((variables["n"] == 0) & (exposure > 0), "n must be at least 1 where there is exposure")
    return variables


def _convert_two_parts(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert moments of an outcome and of the logarithms of its positive values."""
    variables = _convert_moments(rows)
    unit_counts, means = variables["n"], variables["mean"]
    positive_counts = require_whole_numbers(rows, "positive", may_be_missing=unit_counts == 0)
    rows.fail_at(positive_counts > unit_counts, "positive must not be more than n")
    rows.fail_at(
        (unit_counts > 0) & ((means > 0) != (positive_counts > 0)),
        "mean must be above 0 where outcomes are positive, else 0",
    )
    check_finite(rows, "log_mean", positive_counts > 0)
    check_finite(rows, "log_sd", positive_counts > 1)  # one unit has no standard deviation
    rows.fail_at(rows.numbers_by_role["log_sd"] < 0, "log_sd must not be negative")
    if (positive_counts == unit_counts).all():
        raise DataError(
            "every outcome is positive: it has one part, not two; give n, mean and sd only, for the family "
            "mean or normal"
        )
    log_mean = np.where(positive_counts > 0, rows.numbers_by_role["log_mean"], np.nan)
    log_ss = _compute_sums_of_squares(rows.numbers_by_role["log_sd"], positive_counts)
    if not log_ss.any() and len(np.unique(log_mean[positive_counts > 0])) == 1:
        raise DataError(
            "all positive outcomes are equal: the outcome says yes or no; give n and events only, for the "
            "family binomial"
        )
    return {**variables, "positive": positive_counts, "log_mean": log_mean, "log_ss": log_ss}


def _convert_means(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert means with standard errors."""
    return convert_with_errors(rows, "mean")


def convert_with_errors(rows: SummaryRows, role: str) -> dict[str, CellValues]:
    """Convert a mean or an estimate with its standard error; cells with n = 0 are empty."""
    variables: dict[str, CellValues] = {}
    has_data = np.ones(len(rows.cell_keys), dtype=np.bool_)
    if "n" in rows.numbers_by_role:
        variables["n"] = require_whole_numbers(rows, "n")
        has_data = variables["n"] > 0
    for number_role in (role, "se"):
        check_finite(rows, number_role, has_data)
        variables[number_role] = np.where(has_data, rows.numbers_by_role[number_role], np.nan)
    rows.fail_at(has_data & ~(rows.numbers_by_role["se"] > 0), "se must be greater than 0")
    return variables


def convert_sizes(rows: SummaryRows) -> dict[str, CellValues]:
    """Convert the sizes of cells, numbers of 0 or more that add up to something; nothing where no column has them."""
    if "size" not in rows.numbers_by_role:
        return {}
    check_finite(rows, "size")
    rows.fail_at(rows.numbers_by_role["size"] < 0, "size must not be negative")
    if not rows.numbers_by_role["size"].any():
        raise DataError("size is 0 in every row, so that no segment counts; check which column is size")
    return {"cell_size": rows.numbers_by_role["size"]}


def name_size_role(size_column: str | None) -> dict[str, str]:
    """Name the column of sizes by its role; no form of a summary needs one."""
    return {} if size_column is None else {"size": size_column}


def choose_size_unit(size_column: str | None) -> str | None:
    """Choose the column of sizes to say what they count, unless its name says no more than that they are sizes."""
    return None if size_column in ("size", "cell_size", "exposure") else size_column


SUMMARY_FORMS = MappingProxyType(
    {
        frozenset({"n", "events"}): _convert_counts,
        frozenset({"events", "non_events"}): _convert_two_by_two,
        frozenset({"n", "mean", "sd"}): _convert_moments,
        frozenset({"n", "total", "sum_squares"}): _convert_sums,
        frozenset({"mean", "se"}): _convert_means,
        frozenset({"n", "mean", "se"}): _convert_means,
        frozenset({"events", "exposure"}): _convert_rates,
        frozenset({"n", "events", "exposure"}): _convert_rates,
        frozenset({"n", "mean", "sd", "positive", "log_mean", "log_sd"}): _convert_two_parts,
    }
)
"""Conversion of each form, by the roles of its columns."""

SUMMARY_ROLES = frozenset({"size"}).union(*SUMMARY_FORMS)
"""All roles that a column of a summary can have."""
