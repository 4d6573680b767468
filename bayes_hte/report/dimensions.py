"""What single dimensions do: effects within their levels, and their shares of all differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from bayes_hte import marginal, schema
from bayes_hte.effects import cells_of, model_of
from bayes_hte.plot.text import clean, shorten
from bayes_hte.report.answer import Case
from bayes_hte.report.notation import listing, percent, probability, share
from bayes_hte.report.tables import LONGEST_LEVEL
from bayes_hte.summary import Question

MOST_LEVELS = 40
"""A dimension with more is left to `Fit.marginal`: nobody reads the rows."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a dimension: names, effect, interval, probabilities of signs."""

    dimension: str
    level: str
    effect: str
    interval: str
    p_positive: str
    p_negative: str


def levels(tree: xr.DataTree, case: Case) -> list[Level]:
    """The effect within every level of every dimension; empty for one dimension, whose levels are the segments."""
    cells = cells_of(tree)
    dimensions = schema.dimensions(cells)
    if len(dimensions) < 2:
        return []
    found = []
    for dimension in dimensions:
        if len(set(cells[dimension].values.astype(str))) > MOST_LEVELS:
            continue
        rows = marginal.marginal(tree, dimension, case.question)
        found += [_level(case, dimension, row) for row in rows[rows["arm"] == case.arm].to_dict("records")]
    return found


def _level(case: Case, dimension: str, row: Mapping[Any, Any]) -> Level:
    return Level(
        shorten(clean(dimension)),
        shorten(clean(str(row["level"])), LONGEST_LEVEL),
        case.measure.signed(row["effect"]),
        case.measure.interval(row["ci_low"], row["ci_high"], sign=True),
        probability(row["p_positive"]),
        probability(row["p_negative"]),
    )


def drivers(tree: xr.DataTree, arm: str, question: Question) -> str:
    """Which part of the model the differences between segments come from; empty where it has no parts."""
    effect = model_of(tree).effect
    if not effect.by and not effect.covariates:
        return ""
    rows = marginal.variance_shares(tree, question)
    rows = rows[rows["arm"] == arm].sort_values("share", ascending=False)
    parts = [
        f"{shorten(clean(str(row['source'])))} {share(row['share'])} "
        f"({share(row['share_low'])} to {share(row['share_high'])})"
        for row in rows.to_dict("records")
    ]
    return (
        f"Of the variance of true effects between these segments belong to {listing(parts)}, "
        f"with {percent(question.ci_prob)} intervals; “rest” is what no single dimension or covariate explains."
    )
