"""Question rows that may be sums of units, and segments that mostly hold a single unit."""

import numpy as np
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.checks.wording import quote_column
from bayes_hte.spec.cell_table import ARM, SEGMENT, list_dimensions

MIN_SEGMENTS_TO_QUESTION = 50
"""Of fewer segments each can be looked at."""
MAX_UNITS_OF_AN_ID = 2
"""A segment of one unit, or one per arm, compares nothing."""
MAX_ROWS_OF_A_SUMMARY = 400
"""Rows of a cell that are days or weeks are fewer; randomised units are not equally many in every cell."""
MIN_CELLS_TO_COMPARE = 4
"""Two cells may have equal numbers of units by chance."""


def describe_tiny_levels(cells: xr.Dataset) -> list[str]:
    """Describe segments that mostly hold a single unit: a dimension of them is an id, or a number that was not cut."""
    if "n" not in cells or cells.sizes[SEGMENT] < MIN_SEGMENTS_TO_QUESTION or "estimate" in cells:
        return []
    unit_counts = cells["n"].sum(ARM).values
    single_count = int((unit_counts <= MAX_UNITS_OF_AN_ID).sum())
    if 2 * single_count <= len(unit_counts):
        return []
    # The dimension with the most levels is the one that takes segments apart.
    level_counts = {dim: len(np.unique(cells[dim].values.astype(str))) for dim in list_dimensions(cells)}
    widest_dim = max(level_counts, key=lambda dim: level_counts[dim])
    return [
        f"{single_count:,} of {write_count(len(unit_counts), 'segment', 'segments')} hold {MAX_UNITS_OF_AN_ID} units "
        f"or fewer, which compares nothing: is {quote_column(widest_dim)}, with {level_counts[widest_dim]:,} levels, "
        "an id or a number? Leave it out, group its levels, cut it (bins), or put rare levels together (rare)"
    ]


def describe_summed_rows(cells: xr.Dataset) -> list[str]:
    """Describe rows that look like sums of units: equally many in every cell, and few."""
    # Only rows have smallest outcomes; those that are 0 or 1 are single units.
    if "lowest" not in cells or "n" not in cells or "events" in cells:
        return []
    row_counts = cells["n"].values
    row_counts = row_counts[row_counts > 0]
    if (
        len(row_counts) < MIN_CELLS_TO_COMPARE
        or len(np.unique(row_counts)) > 1
        or row_counts[0] > MAX_ROWS_OF_A_SUMMARY
    ):
        return []
    if not float(cells["lowest"].min()) >= 0:
        return []
    return [
        f"every cell has exactly {write_count(int(row_counts[0]), 'row', 'rows')}, which randomised units hardly "
        "have: is a row the sum of many units, such as a day? Then give the sums with their numbers of units "
        '(hte.cells.from_summary, or form = "summary"), or name the units as weights'
    ]
