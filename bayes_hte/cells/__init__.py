"""From an experiment's data, in whatever table it comes, to the cell table: all that a model ever sees.

rows ──from_rows──────────────┐
times ──from_times────────────┤
summary ──from_summary, _wide─┼──► cell table, an xarray.Dataset with dims (segment, arm) ──merge, check
units by value ──from_levels──┤                                   ├──with_covariates: what is known of segments
estimates ──from_estimates────┘                                   ├──with_shares: what each arm was planned to get
                                                                  ├──sample_ratio: whether it got that
                                                                  ├──split: the tables of each day
                                                                  └──protect: without small cells
"""

from bayes_hte.cells.checks import check
from bayes_hte.cells.covariates import with_covariates
from bayes_hte.cells.detect import from_table
from bayes_hte.cells.histograms import from_levels
from bayes_hte.cells.merging import merge
from bayes_hte.cells.privacy import protect
from bayes_hte.cells.randomisation import sample_ratio
from bayes_hte.cells.rows import from_rows
from bayes_hte.cells.shares import with_shares
from bayes_hte.cells.slices import split
from bayes_hte.cells.survival import from_times
from bayes_hte.cells.tables import from_estimates, from_summary
from bayes_hte.cells.wide import from_wide

__all__ = [
    "check",
    "from_estimates",
    "from_levels",
    "from_rows",
    "from_summary",
    "from_table",
    "from_times",
    "from_wide",
    "merge",
    "protect",
    "sample_ratio",
    "split",
    "with_covariates",
    "with_shares",
]
