"""Convert the numbers of a summary to variables of the cell table, and check them: one function for each form."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from statistics import NormalDist
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import write_count
from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.build import CellValues
from bayes_hte.cells.summaries.small_tables import (
    FloatValues,
    SummaryRows,
    check_finite,
    describe_cell,
    require_whole_numbers,
)
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


DEFAULT_LEVEL = 0.95
"""Confidence level of published limits where nothing else is said."""


def check_uncertainty(given_columns: Mapping[str, str], level: object, *, has_covariance: bool) -> None:
    """Raise ArgumentError unless the columns of estimates say what they are and how uncertain, once each."""
    given = given_columns.keys()
    if len(given & {"estimate", "ratio"}) != 1:
        raise ArgumentError(
            "name one column of effects: as estimate, or as ratio if they are hazard, odds or risk ratios"
        )
    has_limits = bool(given & {"lower", "upper"})
    if has_limits and not {"lower", "upper"} <= given:
        raise ArgumentError("an interval has two limits: name both columns, as lower and upper")
    if has_limits + ("se" in given or has_covariance) == 0:
        raise ArgumentError(
            "estimates need their uncertainty: name the column of standard errors as se, those of the limits of "
            "intervals as lower and upper, or give covariance"
        )
    if has_limits and ("se" in given or has_covariance):
        raise ArgumentError("lower and upper say how uncertain estimates are; leave se and covariance out")
    if "ratio" in given and not has_limits:
        raise ArgumentError(
            "a ratio needs its limits, lower and upper; of the logarithm of a ratio with a standard error give "
            "estimate and se"
        )
    level_number = to_float(level)
    if level_number is None or not 0.5 <= level_number < 1:
        raise ArgumentError(f"level is {describe_value(level)}; give the confidence level as a share, such as 0.95")


ASYMMETRY_SHARE = 0.01
"""Share of an interval's width by which its middle may miss the estimate, beside the rounding of printed digits."""
MAX_SHOWN_ROWS = 5


def convert_limits(rows: SummaryRows, level: float, columns: Mapping[str, str]) -> None:
    """Convert the limits of confidence intervals to standard errors, and ratios to their logarithms.

    The numbers of estimate and se are put in the place of those given; a note says how they follow from them.

    Parameters
    ----------
    rows
        Rows with numbers of the roles lower and upper, and of ratio or estimate.
    level
        Confidence level of the limits, between 0 and 1.
    columns
        Names of the columns by role, for messages and the note.

    Raises
    ------
    DataError
        If a number is missing, a ratio is not positive, or an estimate does not lie in the middle of its limits: for
        a ratio the middle of their logarithms.
    """
    role = "ratio" if "ratio" in columns else "estimate"
    roles = (role, "lower", "upper")
    for number_role in roles:
        check_finite(rows, number_role)
    numbers = np.array([rows.numbers_by_role[number_role] for number_role in roles])
    if role == "ratio":
        rows.fail_at((numbers <= 0).any(0), "a ratio and its limits must be greater than 0")
    rows.fail_at(numbers[1] >= numbers[2], "lower must be less than upper")
    is_off = _find_asymmetric(numbers, on_logs=role == "ratio")
    if is_off.any():
        raise DataError(_describe_asymmetry(rows, is_off, numbers, role, columns))
    estimate, lower, upper = np.log(numbers) if role == "ratio" else numbers
    # se = (upper − lower) / (2 z), with z = Φ⁻¹((1 + level) / 2), which is 1.96 for 95 %
    quantile = NormalDist().inv_cdf((1 + level) / 2)
    rows.numbers_by_role.update(estimate=estimate, se=(upper - lower) / (2 * quantile))
    subject = f"logarithms of {columns[role]}, with" if role == "ratio" else f"{columns[role]}, with"
    log_word = "log " if role == "ratio" else ""
    rows.notes.append(
        f"the estimates are {subject} standard errors from the limits of {100 * level:g} % intervals: "
        f"({log_word}{columns['upper']} - {log_word}{columns['lower']}) / {2 * quantile:.3g}"
    )


def _find_asymmetric(numbers: FloatValues, *, on_logs: bool) -> npt.NDArray[np.bool_]:
    """Find rows whose estimate misses the middle of its limits by more than rounding; (estimate, lower, upper) × rows.

    A printed number x stands for anything within h of it, h half a unit of its last decimal; its logarithm for
    anything within −log(1 − h / |x|).
    """
    decimals = np.array([[_count_decimals(number) for number in row] for row in numbers.T]).T
    # A number that ends in 0 lost decimals that its neighbours in the row still show.
    half_units = 0.5 * 10.0 ** -np.maximum(decimals, np.median(decimals, axis=0))
    if on_logs:
        with np.errstate(divide="ignore", invalid="ignore"):
            half_units = np.where(half_units < numbers, -np.log1p(-half_units / numbers), np.inf)
        numbers = np.log(numbers)
    estimate, lower, upper = numbers
    # |2 estimate − lower − upper| ≤ 2 h_estimate + h_lower + h_upper + share (upper − lower)
    slack = 2 * half_units[0] + half_units[1] + half_units[2] + ASYMMETRY_SHARE * (upper - lower)
    return np.asarray(abs(2 * estimate - lower - upper) > slack)


def _count_decimals(number: float) -> int:
    """Count the decimals with which a number is written in as few digits as tell it apart."""
    return max(-int(Decimal(repr(float(number))).normalize().as_tuple().exponent), 0)


def _describe_asymmetry(
    rows: SummaryRows, is_off: npt.NDArray[np.bool_], numbers: FloatValues, role: str, columns: Mapping[str, str]
) -> str:
    """Describe which rows have an estimate off the middle of their limits, and what it may be instead."""
    off_rows = np.flatnonzero(is_off)
    shown = [
        f"{describe_cell(rows.cell_keys[row])} ({numbers[0, row]:g}, {numbers[1, row]:g} to {numbers[2, row]:g})"
        for row in off_rows[:MAX_SHOWN_ROWS]
    ]
    more = f" and {write_count(len(off_rows) - len(shown), 'other row', 'other rows')}" if len(off_rows) > 5 else ""
    middle = "the middle of its limits on the log scale" if role == "ratio" else "the middle of its limits"
    # The other scale is likely the one meant if it fits every row.
    may_be_other = role == "ratio" or bool((numbers > 0).all())
    if may_be_other and not _find_asymmetric(numbers, on_logs=role != "ratio").any():
        other_role = "estimate" if role == "ratio" else "ratio"
        scale = "as they are" if role == "ratio" else "on the log scale"
        way_out = f"they are symmetric {scale}: name the column as {other_role} in place of {role}"
    else:
        way_out = (
            "check the columns and the level; of limits that are not symmetric, such as exact ones, give estimate "
            f"and se{' on the log scale' if role == 'ratio' else ''}"
        )
    return f"{columns[role]!r} is not in {middle} in {'; '.join(shown)}{more}; {way_out}"


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
