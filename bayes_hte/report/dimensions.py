"""Single dimensions: effects within their levels, and their shares of all differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from bayes_hte._support.phrases import clean_text, format_percent_probability, format_share, shorten_text
from bayes_hte.estimands import by_dimension
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.report.arm_results import ArmResult
from bayes_hte.report.notation import format_interval_probability, join_names
from bayes_hte.report.segment_table import MAX_LEVEL_COLUMNS
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model

MAX_LEVELS = 40
"""A dimension with more is left to `Fit.marginal`: nobody reads the rows."""


@dataclass(frozen=True, slots=True)
class LevelRow:
    """One level of a dimension: names, effect, interval, probabilities of signs."""

    dimension_name: str
    level_name: str
    effect_text: str
    interval_text: str
    p_positive: str
    p_negative: str


def build_level_rows(fit_tree: xr.DataTree, arm_result: ArmResult) -> list[LevelRow]:
    """Build a row for every level of every dimension; none for one dimension, whose levels are the segments."""
    cells = get_fitted_cells(fit_tree)
    dimension_names = cell_table.list_dimensions(cells)
    if len(dimension_names) < 2:
        return []
    level_rows = []
    for dimension_name in dimension_names:
        # Skipped before it is computed: a table of thousands of levels takes time.
        if len(set(cells[dimension_name].values.astype(str))) > MAX_LEVELS:
            continue
        marginal_table = by_dimension.tabulate_marginal_effects(fit_tree, dimension_name, arm_result.question)
        level_rows += [
            _build_level_row(arm_result, dimension_name, table_row)
            for table_row in marginal_table[marginal_table["arm"] == arm_result.arm].to_dict("records")
        ]
    return level_rows


def _build_level_row(arm_result: ArmResult, dimension_name: str, table_row: Mapping[Any, Any]) -> LevelRow:
    return LevelRow(
        shorten_text(clean_text(dimension_name)),
        shorten_text(clean_text(str(table_row["level"])), MAX_LEVEL_COLUMNS),
        arm_result.effect_format.format_signed(table_row["effect"]),
        arm_result.effect_format.format_interval(table_row["ci_low"], table_row["ci_high"], with_sign=True),
        format_percent_probability(table_row["p_positive"]),
        format_percent_probability(table_row["p_negative"]),
    )


def write_drivers_sentence(fit_tree: xr.DataTree, arm: str, question: EffectQuestion) -> str:
    """Write which parts of the model the differences between segments come from; "" where it has no parts."""
    effect_model = get_fitted_model(fit_tree).effect
    if not effect_model.by and not effect_model.covariates:
        return ""
    share_table = by_dimension.tabulate_variance_shares(fit_tree, question)
    share_table = share_table[share_table["arm"] == arm].sort_values("share", ascending=False)
    share_phrases = [
        f"{shorten_text(clean_text(str(share_row['source'])))} {format_share(share_row['share'])} "
        f"({format_share(share_row['share_low'])} to {format_share(share_row['share_high'])})"
        for share_row in share_table.to_dict("records")
    ]
    return (
        f"Of the variance of true effects between these segments belong to {join_names(share_phrases)}, with "
        f"{format_interval_probability(question.ci_prob)} intervals; “rest” is what no single dimension or covariate "
        "explains."
    )
