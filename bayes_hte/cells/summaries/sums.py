"""Compute sums of squared deviations from sums and sums of squares, and estimate how many digits are left.

    ss = sum_squares - total² / n

is a small difference of large numbers where the mean is large against the spread. Here it is computed without
rounding, from the numbers as they are written. Numbers of more than 15 digits are float64, off by up to half a unit in
the last place, so that ss is off by about eps (sum_squares + 2 total² / n) / 2, which is eps times the condition number
sum_squares / ss, and a little more. An engine that adds one number after the other, and a million of them, has lost up
to two digits more.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.summaries.small_tables import MAX_EXACT_INTEGER, FloatValues, SummaryRows, describe_cell

MIN_VARIANCE_DIGITS = 6
"""Digits of a variance below which a note warns; three digits are still good enough for any interval."""
MAX_EXACT_DIGITS = 15
"""Decimal numbers with so many digits pass through float64 unchanged, as do whole numbers up to 2^53."""

_HALF_EPS = float(np.finfo(np.float64).eps) / 2
"""The largest relative error of a number rounded to float64."""


def compute_squared_deviations(rows: SummaryRows, n: npt.NDArray[np.int64]) -> FloatValues:
    """Compute sums of squared deviations from the cells' means, in the order of the rows.

    Adds a note to the rows if few digits are left.

    Parameters
    ----------
    rows
        Rows with the roles total and sum_squares.
    n
        Units in each cell.

    Raises
    ------
    DataError
        If a sum of squares is less than it can be, or no digit is left.
    """
    has_several_units = n > 1  # one unit deviates from no mean
    cell_totals = np.where(has_several_units, rows.numbers_by_role["total"], 0.0)
    cell_squares = np.where(has_several_units, rows.numbers_by_role["sum_squares"], 0.0)
    ss = np.array(
        [
            _subtract_exactly(*cell_sums)
            for cell_sums in zip(n.tolist(), cell_totals.tolist(), cell_squares.tolist(), strict=True)
        ]
    )
    ss_error = _estimate_rounding_error(n, cell_totals, cell_squares)
    rows.fail_at(ss < -ss_error, "sum_squares must be at least total²/n; give both with all digits, or n, mean and sd")
    rows.fail_at(
        (ss <= ss_error) & (ss_error > 0),
        "total and sum_squares leave no digit of the variance, as the mean is too large against the spread; "
        "give n, mean and sd instead",
    )
    digits_left = _count_digits_left(ss, ss_error)
    if (digits_left < MIN_VARIANCE_DIGITS).any():
        rows.notes.append(_describe_lost_digits(rows, digits_left))
    return ss


def _subtract_exactly(n: int, total: float, sum_squares: float) -> float:
    # ss = Σ y² − (Σ y)² / n, in fractions: no digit cancels.
    exact_ss = Fraction(repr(sum_squares)) - Fraction(repr(total)) ** 2 / max(n, 1)
    try:
        return float(exact_ss)
    except OverflowError:  # only from below, as ss ≤ sum_squares
        return -np.inf


def _count_digits_left(ss: FloatValues, ss_error: FloatValues) -> FloatValues:
    """Count the decimal digits of each sum of squares that its error leaves, at least 0."""
    # digits = log10(ss / error)
    unlimited_digits = np.full(len(ss), np.inf)
    return np.asarray(np.log10(np.maximum(np.divide(ss, ss_error, out=unlimited_digits, where=ss_error > 0), 1.0)))


def _describe_lost_digits(rows: SummaryRows, digits_left: FloatValues) -> str:
    worst_cell = int(digits_left.argmin())
    n_digits = round(float(digits_left[worst_cell]))
    digit_phrase = f"about {write_count(n_digits, 'digit', 'digits')}" if n_digits else "no digit"
    n_others = int((digits_left < MIN_VARIANCE_DIGITS).sum()) - 1
    others_phrase = (
        f" and fewer than {MIN_VARIANCE_DIGITS} in {write_count(n_others, 'other cell', 'other cells')}"
        if n_others
        else ""
    )
    return (
        f"total and sum_squares leave {digit_phrase} of the variance in "
        f"{describe_cell(rows.cell_keys[worst_cell])}{others_phrase}, as the mean is large against the spread; "
        "give n, mean and sd to keep all"
    )


def _estimate_rounding_error(n: npt.NDArray[np.int64], total: FloatValues, sum_squares: FloatValues) -> FloatValues:
    """Estimate the error of each ss from rounding its sums to float64; 0 where both are exact."""
    are_exact = np.array(
        [_is_exact(t) and _is_exact(q) for t, q in zip(total.tolist(), sum_squares.tolist(), strict=True)]
    )
    # |δ ss| ≤ ½ eps (Σ y² + 2 (Σ y)² / n)
    with np.errstate(over="ignore"):  # what is too large is refused as such
        return np.where(are_exact, 0.0, _HALF_EPS * (sum_squares + 2 * total**2 / np.maximum(n, 1)))


def _is_exact(value: float) -> bool:
    """Tell whether a number is what was written, and not the nearest number that float64 has."""
    is_counted = value.is_integer() and abs(value) <= MAX_EXACT_INTEGER
    return is_counted or float(f"{value:.{MAX_EXACT_DIGITS}g}") == value
