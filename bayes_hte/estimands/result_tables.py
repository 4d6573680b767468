"""Tables that answer one question to a fit, computed once and shown in every figure, page and file."""

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from bayes_hte.estimands import heterogeneity, tables
from bayes_hte.estimands.tables import EffectQuestion

DETAIL_COLUMNS = ("effect_mcse", "p_mcse", "pooling_low", "pooling_high", "complete", "complete_se")
"""Columns that `tables.tabulate_segments` adds for reviewers."""


@dataclass(frozen=True, slots=True, eq=False)
class ResultTables:
    """Tables that answer one question to a fit: computed once, shown in every figure, page and file.

    Attributes
    ----------
    segment_table, ate_table, heterogeneity_table : pandas.DataFrame
        As `tables.tabulate_segments`, `tables.tabulate_ate` and `heterogeneity.tabulate_heterogeneity` give them.
    """

    segment_table: pd.DataFrame
    ate_table: pd.DataFrame
    heterogeneity_table: pd.DataFrame

    @property
    def brief_segment_table(self) -> pd.DataFrame:
        """The segments without the details: `Fit.table` as it is by default."""
        return self.segment_table.drop(columns=list(DETAIL_COLUMNS), errors="ignore")


def compute_result_tables(
    fit_tree: xr.DataTree, question: EffectQuestion, *, with_details: bool = False
) -> ResultTables:
    """Compute the tables of segments, averages and heterogeneity; `with_details` adds columns for reviewers."""
    return ResultTables(
        tables.tabulate_segments(fit_tree, question, with_detail=with_details),
        tables.tabulate_ate(fit_tree, question),
        heterogeneity.tabulate_heterogeneity(fit_tree, question),
    )
