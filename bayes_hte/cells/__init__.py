"""From an experiment's data, in whatever table it comes, to the cell table: all that a model ever sees.

rows ──from_rows, _many───────┐               metric=Mean, Ratio, Rate, Histogram or TwoPart: what is measured
times ──from_times────────────┤
summary ──from_summary, _wide─┼──► cell table, an xarray.Dataset with dims (segment, arm) ──merge, check
units by value ──from_levels──┤                                   ├──with_covariates: what is known of segments
estimates ──from_estimates────┘                                   ├──with_shares: what each arm was planned to get
                                                                  ├──sample_ratio: whether it got that
                                                                  ├──split: the tables of each day
                                                                  └──protect: without small cells
"""

from bayes_hte.cells.checks.check import check
from bayes_hte.cells.checks.sample_ratio import sample_ratio
from bayes_hte.cells.combine.merge import merge
from bayes_hte.cells.combine.planned_shares import with_shares
from bayes_hte.cells.combine.protect import protect
from bayes_hte.cells.combine.split import split
from bayes_hte.cells.reading.files.data_source import DataSource
from bayes_hte.cells.summaries.from_levels import from_levels
from bayes_hte.cells.summaries.from_summary import from_estimates, from_summary
from bayes_hte.cells.summaries.from_table import from_table
from bayes_hte.cells.summaries.from_wide import from_wide
from bayes_hte.cells.summaries.segment_covariates import with_covariates
from bayes_hte.cells.units.from_rows import from_rows
from bayes_hte.cells.units.from_times import from_times
from bayes_hte.cells.units.metrics import Histogram, Mean, Rate, Ratio, TwoPart
from bayes_hte.cells.units.scan.from_rows_many import from_rows_many

# Completion offers what is public, not the modules behind it.
__all__ = [
    "DataSource",
    "Histogram",
    "Mean",
    "Rate",
    "Ratio",
    "TwoPart",
    "check",
    "from_estimates",
    "from_levels",
    "from_rows",
    "from_rows_many",
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


def __dir__() -> list[str]:
    return list(__all__)
