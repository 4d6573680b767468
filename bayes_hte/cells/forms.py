"""What the numbers of a summary may be, and what the cell table keeps of them: one function for each form."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from bayes_hte.cells.assembly import Column
from bayes_hte.cells.records import Rows, finite, whole
from bayes_hte.cells.sums import squared_deviations
from bayes_hte.errors import DataError

type Convert = Callable[[Rows], dict[str, Column]]


def form_of(given: Mapping[str, str]) -> Convert:
    """Choose what to make of the columns that are given, by role.

    Raises
    ------
    DataError
        If no form has exactly these roles.
    """
    convert = FORMS.get(frozenset(given))
    if convert is None:
        found = ", ".join(f"{role}={column!r}" for role, column in given.items()) or "none of them"
        raise DataError(
            f"these columns make no summary: {found}; give n and events (yes or no; or events and non_events), or n, "
            "mean and sd (numbers; or n, total and sum_squares), or mean and se, with n if known (adjusted means), or "
            "events and exposure, with n if known (rates), or n, mean, sd, positive, log_mean and log_sd (two parts), "
            f"and nothing else{'' if given else ', or let from_table find the columns'}"
        )
    return convert


def _counts(rows: Rows) -> dict[str, Column]:
    n = whole(rows, "n")
    events = whole(rows, "events", optional=n == 0)  # a sum over no rows is null in SQL
    rows.fail_at(events > n, "events must not be more than n")
    return _seen({"n": n, "events": events})


def _two_by_two(rows: Rows) -> dict[str, Column]:
    """Both columns of a 2×2 table; a row of two zeros is an empty cell."""
    events = whole(rows, "events")
    return _seen({"n": events + whole(rows, "non_events"), "events": events})


def _seen(columns: dict[str, Column]) -> dict[str, Column]:
    """Counts, if there is anything to see in them."""
    n, events = columns["n"], columns["events"]
    if not events.any():
        raise DataError("no events in any cell: no effect can be seen; check which column is events")
    if (events == n).all():
        raise DataError("the outcome does not vary: every unit has the event, so no effect can be seen")
    return columns


def _sums(rows: Rows) -> dict[str, Column]:
    n = whole(rows, "n")
    for role in ("total", "sum_squares"):
        finite(rows, role, n > 0)  # a sum over no rows is null in SQL
    rows.fail_at(rows.numbers["sum_squares"] < 0, "sum_squares must not be negative")
    ss = squared_deviations(rows, n)
    mean = np.divide(rows.numbers["total"], n, out=np.full(len(n), np.nan), where=n > 0)
    return _varying({"n": n, "mean": mean, "ss": ss})


def _moments(rows: Rows) -> dict[str, Column]:
    n = whole(rows, "n")
    finite(rows, "mean", n > 0)
    finite(rows, "sd", n > 1)  # one unit has no standard deviation: any engine writes null
    rows.fail_at((rows.numbers["sd"] < 0), "sd must not be negative")
    mean = np.where(n > 0, rows.numbers["mean"], np.nan)
    ss = _squares(rows.numbers["sd"], n)
    return _varying({"n": n, "mean": mean, "ss": ss})


def _squares(sd: Column, n: Column) -> Column:
    """Sums of squared deviations, 0 of a single unit."""
    with np.errstate(over="ignore"):  # what is too large is refused as such
        return np.where(n > 1, sd**2 * (n - 1), 0.0)


def _varying(columns: dict[str, Column]) -> dict[str, Column]:
    """Moments, if there is anything to see in them."""
    if not columns["ss"].any() and len(np.unique(columns["mean"][columns["n"] > 0])) == 1:
        raise DataError("the outcome does not vary: all means are equal and every sd is 0, so no effect can be seen")
    return columns


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
    log_ss = _squares(rows.numbers["log_sd"], positive)
    if not log_ss.any() and len(np.unique(log_mean[positive > 0])) == 1:
        raise DataError(
            "all positive outcomes are equal: the outcome says yes or no; give n and events only, for the "
            "family binomial"
        )
    return {**columns, "positive": positive, "log_mean": log_mean, "log_ss": log_ss}


def _means(rows: Rows) -> dict[str, Column]:
    return with_errors(rows, "mean")


def with_errors(rows: Rows, role: str) -> dict[str, Column]:
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


FORMS = MappingProxyType(
    {
        frozenset({"n", "events"}): _counts,
        frozenset({"events", "non_events"}): _two_by_two,
        frozenset({"n", "mean", "sd"}): _moments,
        frozenset({"n", "total", "sum_squares"}): _sums,
        frozenset({"mean", "se"}): _means,
        frozenset({"n", "mean", "se"}): _means,
        frozenset({"events", "exposure"}): _rates,
        frozenset({"n", "events", "exposure"}): _rates,
        frozenset({"n", "mean", "sd", "positive", "log_mean", "log_sd"}): _two_part,
    }
)
"""The roles of columns that say a form together."""

ROLES = frozenset().union(*FORMS)
"""What a column of a summary can mean."""
