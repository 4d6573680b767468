"""Compute sums of squared deviations from sums and sums of squares, and estimate how many digits are left.

    ss = sum_squares - total² / n

is a small difference of large numbers where the mean is large against the spread. Here it is computed without
rounding, from the numbers as they are written. The digits that these numbers lost beforehand are estimated:

- Numbers of more than 15 digits are float64, off by up to half a unit in the last place, so that ss is off by about
  eps (sum_squares + 2 total² / n) / 2, which is eps times the condition number sum_squares / ss, and a little more.
  An engine that adds one number after the other, and a million of them, has lost up to two digits more.
- Numbers of fewer digits may be whole, or what a print has left of them. Outcomes with d decimals have sums with d
  decimals and sums of squares with 2 d: if the latter have fewer, the last digit of both columns may be rounded.
"""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.reading.engines import format_count
from bayes_hte.cells.reading.small_tables import MAX_EXACT_INTEGER, FloatValues, SummaryRows, describe_cell

MIN_VARIANCE_DIGITS = 6
"""Digits of a variance below which a note warns; three digits are still good enough for any interval."""
MAX_EXACT_DIGITS = 15
"""Decimal numbers with so many digits pass through float64 unchanged, as do whole numbers up to 2^53."""
MAX_CHANCE_ZEROS = 4
"""Final zeros of whole numbers in a column that may be chance: one column in 10,000 has so many together."""

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
    storage_error, print_error = _estimate_errors(n, cell_totals, cell_squares)
    rows.fail_at(
        ss < -storage_error, "sum_squares must be at least total²/n; give both with all digits, or n, mean and sd"
    )
    rows.fail_at(
        (ss <= storage_error) & (storage_error > 0),
        "total and sum_squares leave no digit of the variance, as the mean is too large against the spread; "
        "give n, mean and sd instead",
    )
    digits_left = _count_digits_left(ss, np.maximum(storage_error, print_error))
    if (digits_left < MIN_VARIANCE_DIGITS).any():
        loss_reason = (
            "their last digits may be rounded" if print_error.any() else "the mean is large against the spread"
        )
        rows.notes.append(_describe_lost_digits(rows, digits_left, loss_reason))
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


def _describe_lost_digits(rows: SummaryRows, digits_left: FloatValues, loss_reason: str) -> str:
    worst_cell = int(digits_left.argmin())
    n_digits = round(float(digits_left[worst_cell]))
    digit_phrase = f"about {format_count(n_digits, 'digit', 'digits')}" if n_digits else "no digit"
    n_others = int((digits_left < MIN_VARIANCE_DIGITS).sum()) - 1
    others_phrase = (
        f" and fewer than {MIN_VARIANCE_DIGITS} in {format_count(n_others, 'other cell', 'other cells')}"
        if n_others
        else ""
    )
    return (
        f"total and sum_squares leave {digit_phrase} of the variance in "
        f"{describe_cell(rows.cell_keys[worst_cell])}{others_phrase}, as {loss_reason}; give n, mean and sd to keep all"
    )


def _estimate_errors(
    n: npt.NDArray[np.int64], total: FloatValues, sum_squares: FloatValues
) -> tuple[FloatValues, FloatValues]:
    """Estimate the errors of each ss from rounding to float64, and from rounding for print."""
    safe_n = np.maximum(n, 1)
    total_texts, squares_texts = ([_DecimalText(value) for value in column.tolist()] for column in (total, sum_squares))
    are_exact = np.array(
        [
            total_digits.is_exact and squares_digits.is_exact
            for total_digits, squares_digits in zip(total_texts, squares_texts, strict=True)
        ]
    )
    # |δ ss| ≤ ½ eps (Σ y² + 2 (Σ y)² / n)
    with np.errstate(over="ignore"):  # what is too large is refused as such
        storage_error = np.where(are_exact, 0.0, _HALF_EPS * (sum_squares + 2 * total**2 / safe_n))
    total_decimals, squares_decimals = _count_decimals(total_texts), _count_decimals(squares_texts)
    if not are_exact.all() or squares_decimals >= 2 * total_decimals:
        return storage_error, np.zeros(len(n))
    total_places, squares_places = (
        _find_last_places(total_texts, total_decimals),
        _find_last_places(squares_texts, squares_decimals),
    )
    # |δ ss| ≤ ½ (u₂ + 2 |Σ y| / n · u₁), with u₁ and u₂ one unit in the last place of Σ y and of Σ y²
    print_error = (squares_places + 2 * np.abs(total) / safe_n * total_places) / 2
    return storage_error, np.where(sum_squares == 0, 0.0, print_error)


class _DecimalText:
    """The digits of a number as the shortest text that stands for it: their count, and the exponent of the last."""

    __slots__ = ("digit_count", "is_exact", "last_exponent")

    def __init__(self, value: float) -> None:
        _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
        self.digit_count = len(digits) if value else 0
        self.last_exponent = int(exponent)
        self.is_exact = self.digit_count <= MAX_EXACT_DIGITS or (value.is_integer() and abs(value) <= MAX_EXACT_INTEGER)


def _count_decimals(decimal_texts: list[_DecimalText]) -> int:
    """Count decimals of a column's numbers; negative if all are multiples of a power of ten, and not by chance."""
    decimal_counts = [-number.last_exponent for number in decimal_texts if number.digit_count]
    max_decimals = max(decimal_counts, default=0)
    return 0 if -MAX_CHANCE_ZEROS < max_decimals * len(decimal_counts) < 0 else max_decimals


def _find_last_places(decimal_texts: list[_DecimalText], decimals: int) -> FloatValues:
    """Find a unit in the last place of each number, if all were rounded to as many digits or decimals as any has."""
    max_digits = max(number.digit_count for number in decimal_texts)
    last_exponents = [
        max(number.last_exponent + number.digit_count - max_digits, -decimals) for number in decimal_texts
    ]
    return np.asarray(10.0 ** np.array(last_exponents, dtype=np.float64))
