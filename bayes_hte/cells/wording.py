"""Labels and numbers inside the sentences of the checks."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.schema import ARM, SEGMENT

NAMED = 5
"""How many segments a sentence names before it stops."""
LONGEST = 80
"""Characters of a label that are shown."""
_LEAST_P = 1e-99


def label(text: object) -> str:
    """A label inside a sentence: on one line, and its middle cut out where it is long.

    Examples
    --------
    >>> label("two\\nlines"), len(label("W" * 300))
    ('two lines', 80)
    """
    line = " ".join(str(text).split())
    if len(line) <= LONGEST:
        return line
    tail = LONGEST // 2
    return f"{line[: LONGEST - tail - 1]}…{line[-tail:]}"


def quoted(text: object) -> str:
    """The name of a column inside a sentence."""
    return repr(label(text))


def some(names: Sequence[str], named: int = NAMED) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - named
    return ", ".join(names[:named]) + (f" and {more:,} more" if more > 0 else "")


def where(cells: xr.DataArray) -> str:
    """The first cell where a condition holds, and whether there are others."""
    rows, columns = np.nonzero(cells.transpose(SEGMENT, ARM).values)
    first = place(cells, int(rows[0]), int(columns[0]))
    return f": {first}" if len(rows) == 1 else f", the first {first}"


def place(cells: xr.DataArray | xr.Dataset, row: int, column: int) -> str:
    """One cell in words."""
    return f"{label(cells[SEGMENT].values[row])}, arm {label(cells[ARM].values[column])}"


def p_is(value: float) -> str:
    """A p-value with one digit.

    Examples
    --------
    >>> p_is(0.00042), p_is(1.8e-6), p_is(0.0)
    ('p = 0.0004', 'p = 2e-6', 'p < 1e-99')
    """
    if value < _LEAST_P:
        return f"p < {_LEAST_P:g}"
    return f"p = {value:.1g}".replace("e-0", "e-")


def percentages(values: npt.NDArray[np.float64], apart: float) -> list[str]:
    """Shares in percent, with the digits that a difference of `apart` between them needs.

    Examples
    --------
    >>> percentages(np.array([0.50187, 0.49813]), 0.00374), percentages(np.array([0.4, 0.52]), 0.12)
    (['50.19 %', '49.81 %'], ['40 %', '52 %'])
    """
    size = 100 * abs(apart)
    places = min(max(1 - math.floor(math.log10(size) + 1e-6), 0), 6) if size > 0 else 0
    return [f"{100 * value:.{places}f} %" for value in values]


def number(value: float) -> str:
    """A mean, with four digits."""
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
