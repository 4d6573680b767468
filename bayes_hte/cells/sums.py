"""Sums of squared deviations from sums and sums of squares, and how many digits of them are left.

    ss = sum_squares - total² / n

is a small difference of large numbers where the mean is large against the spread. Here it is computed without
rounding, from the numbers as they are written. What they lost before they were given is estimated:

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

from bayes_hte.cells.records import MOST, Floats, Rows, name_cell
from bayes_hte.cells.sources import counted

LEAST_DIGITS = 6
"""A variance with fewer digits deserves a word; with three it is still good enough for any interval."""
SAFE_DIGITS = 15
"""Decimal numbers with so many digits pass through float64 unchanged, and so do whole numbers up to `MOST`."""
CHANCE_ZEROS = 4
"""Whole numbers of a column that end in fewer zeros together may do so by chance: one column in 10,000 does."""

_HALF_EPS = float(np.finfo(np.float64).eps) / 2


def squared_deviations(rows: Rows, n: npt.NDArray[np.int64]) -> Floats:
    """Sums of squared deviations from the cells' means, from the roles total and sum_squares.

    Adds a note to the rows if few digits are left.

    Raises
    ------
    DataError
        If a sum of squares is less than it can be, or no digit is left.
    """
    several = n > 1  # one unit deviates from no mean
    total = np.where(several, rows.numbers["total"], 0.0)
    squares = np.where(several, rows.numbers["sum_squares"], 0.0)
    ss = np.array([_deviations(*cell) for cell in zip(n.tolist(), total.tolist(), squares.tolist(), strict=True)])
    stored, printed = _errors(n, total, squares)
    rows.fail_at(ss < -stored, "sum_squares must be at least total²/n; give both with all digits, or n, mean and sd")
    rows.fail_at(
        (ss <= stored) & (stored > 0),
        "total and sum_squares leave no digit of the variance, as the mean is too large against the spread; "
        "give n, mean and sd instead",
    )
    digits = _digits(ss, np.maximum(stored, printed))
    if (digits < LEAST_DIGITS).any():
        why = "their last digits may be rounded" if printed.any() else "the mean is large against the spread"
        rows.notes.append(_note(rows, digits, why))
    return ss


def _deviations(n: int, total: float, squares: float) -> float:
    exact = Fraction(repr(squares)) - Fraction(repr(total)) ** 2 / max(n, 1)
    try:
        return float(exact)
    except OverflowError:  # it is at most `squares`
        return -np.inf


def _digits(ss: Floats, error: Floats) -> Floats:
    """Digits of each ss that its error leaves."""
    certain = np.full(len(ss), np.inf)
    return np.asarray(np.log10(np.maximum(np.divide(ss, error, out=certain, where=error > 0), 1.0)))


def _note(rows: Rows, digits: Floats, why: str) -> str:
    worst = int(digits.argmin())
    left = round(float(digits[worst]))
    some = f"about {counted(left, 'digit', 'digits')}" if left else "no digit"
    more = int((digits < LEAST_DIGITS).sum()) - 1
    others = f" and fewer than {LEAST_DIGITS} in {counted(more, 'other cell', 'other cells')}" if more else ""
    return (
        f"total and sum_squares leave {some} of the variance in {name_cell(rows.keys[worst])}{others}, as {why}; "
        "give n, mean and sd to keep all"
    )


def _errors(n: npt.NDArray[np.int64], total: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """How far each ss may be off, since numbers were rounded to float64, and since digits were left out."""
    count = np.maximum(n, 1)
    sums, sums_of_squares = ([_Written(value) for value in column.tolist()] for column in (total, squares))
    safe = np.array([a.safe and b.safe for a, b in zip(sums, sums_of_squares, strict=True)])
    with np.errstate(over="ignore"):  # what is too large is refused as such
        stored = np.where(safe, 0.0, _HALF_EPS * (squares + 2 * total**2 / count))
    decimals, decimals_of_squares = _decimals(sums), _decimals(sums_of_squares)
    if not safe.all() or decimals_of_squares >= 2 * decimals:
        return stored, np.zeros(len(n))
    unit, unit_of_squares = _units(sums, decimals), _units(sums_of_squares, decimals_of_squares)
    printed = (unit_of_squares + 2 * np.abs(total) / count * unit) / 2
    return stored, np.where(squares == 0, 0.0, printed)


class _Written:
    """A number as the shortest text that says it: how many digits it has, and the place of the first and the last."""

    __slots__ = ("digits", "last", "safe")

    def __init__(self, value: float) -> None:
        _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
        self.digits = len(digits) if value else 0
        self.last = int(exponent)
        self.safe = self.digits <= SAFE_DIGITS or (value.is_integer() and abs(value) <= MOST)


def _decimals(column: list[_Written]) -> int:
    """Decimals of the numbers of a column; negative if all are multiples of a power of ten, and not by chance."""
    decimals = [-number.last for number in column if number.digits]
    most = max(decimals, default=0)
    return 0 if -CHANCE_ZEROS < most * len(decimals) < 0 else most


def _units(column: list[_Written], decimals: int) -> Floats:
    """One in the last place of each number, were all rounded to as many digits or to as many decimals as any has."""
    most = max(number.digits for number in column)
    last = [max(number.last + number.digits - most, -decimals) for number in column]
    return np.asarray(10.0 ** np.array(last, dtype=np.float64))
