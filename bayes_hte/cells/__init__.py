"""From an experiment's data, in whatever table it comes, to the cell table: all that a model ever sees.

rows ──from_rows──┐
summary ──from_summary──┼──► cell table, an xarray.Dataset with dims (segment, arm) ──merge, check
estimates ──from_estimates──┘
"""

from bayes_hte.cells.checks import check
from bayes_hte.cells.merging import merge
from bayes_hte.cells.rows import from_rows
from bayes_hte.cells.tables import from_estimates, from_summary

__all__ = ["check", "from_estimates", "from_rows", "from_summary", "merge"]
