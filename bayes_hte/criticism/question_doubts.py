"""Question what was asked, and answers that are hardly what was meant: units mistaken for shares, and the like."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from bayes_hte.cells.checks.wording import list_first, shorten_label
from bayes_hte.errors import ModelError
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.planned_effect import compute_control_mean
from bayes_hte.spec.model import Model

WHOLE = 1.0
"""On the relative scale as much as the control's mean; of a probability all of it."""
LARGE_LOG_RATIO = 2.0
"""A log ratio of 2 is a ratio of 7.4: hardly a smallest effect that matters."""


def list_question_doubts(question: EffectQuestion, cells: xr.Dataset, model: Model) -> list[str]:
    """List doubts about the smallest effect that matters, before any fit.

    Parameters
    ----------
    question : EffectQuestion
    cells : xarray.Dataset
    model : Model
    """
    rope, family = question.rope, FAMILIES[model.family]
    if rope is None:
        return []
    hundredth = f"{rope / 100:g}"
    if question.scale == "relative" and rope >= WHOLE:
        return [
            f"the smallest effect that matters is {rope:g} on the relative scale, {100 * rope:g} % of the control's "
            f"mean: anything less counts as too small; if {rope:g} % is meant, state {hundredth}"
        ]
    if question.scale == "link" and family.link != "identity" and rope >= LARGE_LOG_RATIO:
        return [
            f"the smallest effect that matters is {rope:g} on the scale of logarithms, where 0.1 is a change by about "
            f"10 %: anything less counts as too small; if {rope:g} % is meant, state {hundredth}"
        ]
    if question.scale == "absolute" and family.mean_is_probability:
        try:
            control_mean = compute_control_mean(family, family.select_statistics(cells))
        except ModelError:
            return []
        # |p₁ − p₀| ≤ max(p₀, 1 − p₀)
        if rope >= max(control_mean, 1 - control_mean):
            return [
                f"the smallest effect that matters is a difference of {rope:g} between probabilities, more than there "
                f"can be where the control's is {control_mean:.3g}; if {rope:g} percentage points are meant, state "
                f"{hundredth}"
            ]
    return []


def list_answer_doubts(
    effect_rows: Sequence[Mapping[str, Any]], labels: Sequence[str], question: EffectQuestion
) -> list[str]:
    """List doubts about the effects of an arm: rows with effect, ci_low and ci_high, and the segments' labels."""
    doubts = []
    if question.rope is not None and len(effect_rows) > 0:
        furthest = max(max(abs(row["ci_low"]), abs(row["ci_high"])) for row in effect_rows)
        if furthest < question.rope:
            doubts.append(
                f"The smallest effect that matters ({question.rope:g}) is wider than every interval (they reach "
                f"{furthest:.2g}), so every segment is too small to matter whatever it shows: is it in the units of "
                f"the {question.scale} scale?"
            )
    if question.scale == "relative":
        beyond = [
            shorten_label(label)
            for label, row in zip(labels, effect_rows, strict=True)
            if row["ci_low"] > WHOLE or row["ci_high"] < -WHOLE
        ]
        if beyond:
            doubts.append(
                f"The effect is beyond ±100 % of the control’s mean in {list_first(beyond)}: check units and columns, "
                "or whether the control’s mean is near 0 there, and read the absolute scale then."
            )
    return doubts
