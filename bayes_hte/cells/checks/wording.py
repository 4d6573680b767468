"""Write labels and numbers into the sentences of the checks."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.spec.cell_table import ARM, SEGMENT

MAX_NAMED_SEGMENTS = 5
"""A sentence names so many segments, then counts the others: more are not read."""
MAX_LABEL_LENGTH = 80
"""Characters of a label that are shown: a line of a terminal."""
# Below this the exponent has three digits, which tell nobody more.
_MIN_SHOWN_P = 1e-99


def shorten_label(raw_label: object) -> str:
    r"""Shorten a label for a sentence: on one line, and its middle cut out where it is long.

    Examples
    --------
    >>> shorten_label("two\nlines"), len(shorten_label("W" * 300))
    ('two lines', 80)
    """
    single_line = " ".join(str(raw_label).split())
    if len(single_line) <= MAX_LABEL_LENGTH:
        return single_line
    # Both ends stay: labels that several dimensions make often differ only in how they end.
    tail_length = MAX_LABEL_LENGTH // 2
    return f"{single_line[: MAX_LABEL_LENGTH - tail_length - 1]}…{single_line[-tail_length:]}"


def quote_column(column_name: object) -> str:
    """Quote the name of a column for a sentence."""
    return repr(shorten_label(column_name))


def list_first(names: Sequence[str], shown_count: int = MAX_NAMED_SEGMENTS) -> str:
    """List the first few names, and count the others."""
    hidden_count = len(names) - shown_count
    return ", ".join(names[:shown_count]) + (f" and {hidden_count:,} more" if hidden_count > 0 else "")


def locate_condition(condition: xr.DataArray) -> str:
    """Name the first cell where a condition holds, after a colon or, if there are others, after a comma."""
    segment_indices, arm_indices = np.nonzero(condition.transpose(SEGMENT, ARM).values)
    first_cell = name_cell(condition, int(segment_indices[0]), int(arm_indices[0]))
    return f": {first_cell}" if len(segment_indices) == 1 else f", the first {first_cell}"


def name_cell(cells: xr.DataArray | xr.Dataset, segment_index: int, arm_index: int) -> str:
    """Name one cell by its segment and arm."""
    segment_label, arm_label = cells[SEGMENT].values[segment_index], cells[ARM].values[arm_index]
    return f"{shorten_label(segment_label)}, arm {shorten_label(arm_label)}"


def format_p_value(p_value: float) -> str:
    """Format a p-value with one digit.

    Examples
    --------
    >>> format_p_value(0.00042), format_p_value(1.8e-6), format_p_value(0.0)
    ('p = 0.0004', 'p = 2e-6', 'p < 1e-99')
    """
    if p_value < _MIN_SHOWN_P:
        return f"p < {_MIN_SHOWN_P:g}"
    return f"p = {p_value:.1g}".replace("e-0", "e-")


def format_percentages(shares: npt.NDArray[np.float64], difference: float) -> list[str]:
    """Format shares in percent, with the digits that a difference between them needs to be seen.

    Examples
    --------
    >>> format_percentages(np.array([0.50187, 0.49813]), 0.00374)
    ['50.19 %', '49.81 %']
    >>> format_percentages(np.array([0.4, 0.52]), 0.12)
    ['40 %', '52 %']
    >>> format_percentages(np.array([0.999, 0.001]), 0.998)
    ['99.90 %', '0.10 %']
    """
    # A share of 99.9 % is not 100 %: what is left of all or nothing needs its digits, too.
    remainders = [remainder for share in shares for remainder in (share, 1 - share) if remainder > 0]
    finest_in_percent = 100 * min([abs(difference), *remainders])
    # Two digits of the difference: 1 − ⌊log₁₀ d⌋ places, where 1e-6 lets 9.9999999 be 10; six places at most.
    decimal_places = min(max(1 - math.floor(math.log10(finest_in_percent) + 1e-6), 0), 6) if difference else 0
    return [f"{100 * share:.{decimal_places}f} %" for share in shares]


def format_mean(mean: float) -> str:
    """Format a mean with four digits."""
    return f"{mean:,.0f}" if abs(mean) >= 1e4 else f"{mean:.4g}"
