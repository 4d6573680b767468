"""Tables that answer one question to a fit, computed once and shown in every figure, page and file."""

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from bayes_hte.estimands import heterogeneity, tables
from bayes_hte.estimands.effects import hold_effects
from bayes_hte.estimands.pooling_factor import hold_pooling
from bayes_hte.estimands.tables import EffectQuestion

DETAIL_COLUMNS = ("effect_mcse", "p_mcse", "pooling_low", "pooling_high", "complete", "complete_se")
"""Columns that `tables.tabulate_segments` adds for reviewers."""
RELIABLE_COLUMN = "reliable"
"""Last column of every table of results: whether the draws behind it passed their diagnosis."""


def mark_reliability(result_table: pd.DataFrame, *, reliable: bool) -> pd.DataFrame:
    """Build the table with a last column that says whether to trust it; one that judges its rows itself keeps it."""
    if RELIABLE_COLUMN not in result_table.columns:
        result_table = result_table.assign(**{RELIABLE_COLUMN: reliable})
    other_columns = [name for name in result_table.columns if name != RELIABLE_COLUMN]
    return result_table[[*other_columns, RELIABLE_COLUMN]]


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
        """The segments without the details, and without the mark of reliability, which a reader is told in words."""
        return self.segment_table.drop(columns=[*DETAIL_COLUMNS, RELIABLE_COLUMN], errors="ignore")

    def mark_reliability(self, *, reliable: bool) -> "ResultTables":
        """Build the tables with a last column ``reliable``, as files hold them."""
        return ResultTables(
            *(
                mark_reliability(result_table, reliable=reliable)
                for result_table in (self.segment_table, self.ate_table, self.heterogeneity_table)
            )
        )


def hold_common_results(fit_tree: xr.DataTree, question: EffectQuestion) -> xr.DataTree:
    """Build a tree that holds what several tables are made from: effects on the scale asked for, and pooling."""
    return hold_effects(hold_pooling(fit_tree), question.scale)


def compute_result_tables(
    fit_tree: xr.DataTree, question: EffectQuestion, *, with_details: bool = False
) -> ResultTables:
    """Compute the tables of segments, averages and heterogeneity; `with_details` adds columns for reviewers."""
    fit_tree = hold_common_results(fit_tree, question)
    return ResultTables(
        tables.tabulate_segments(fit_tree, question, with_detail=with_details),
        tables.tabulate_ate(fit_tree, question),
        heterogeneity.tabulate_heterogeneity(fit_tree, question),
    )
