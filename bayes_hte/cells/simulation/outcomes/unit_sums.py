"""Sum what single units add, where their sum has no distribution that could be drawn at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MAX_UNITS_PER_CELL = 1000
"""Cells with more units take the sums' normal limit: its error is then far below the sums' own noise."""
BLOCK_UNITS = 4_000_000
"""Units drawn at a time: some hundred megabytes."""


def sum_units(
    unit_counts: NDArray[np.int64], draw_units: Callable[[NDArray[np.intp]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Sum numbers of units by cell.

    Parameters
    ----------
    unit_counts : array
        Units of each cell, (cell,).
    draw_units : callable
        Cell of each unit, (unit,) -> numbers of each unit, (unit, number).

    Returns
    -------
    array
        (cell, number).
    """
    number_count = draw_units(np.zeros(0, dtype=np.intp)).shape[1]
    sums = np.zeros((len(unit_counts), number_count))
    # Cells whose units together are about one block.
    block_of_cell = np.cumsum(unit_counts) // BLOCK_UNITS
    for block in np.unique(block_of_cell):
        cells = np.flatnonzero(block_of_cell == block)
        place_of_unit = np.repeat(np.arange(len(cells)), unit_counts[cells])
        drawn_numbers = draw_units(cells[place_of_unit])
        for number in range(number_count):
            sums[cells, number] = np.bincount(place_of_unit, drawn_numbers[:, number], len(cells))
    return sums
