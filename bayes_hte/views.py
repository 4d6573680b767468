"""Figures of a fit: the tables of `bayes_hte.summary`, drawn by `bayes_hte.plot` with the words of the plan."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from bayes_hte import schema, summary
from bayes_hte.effects import cells_of, family_of, model_of
from bayes_hte.errors import DataError
from bayes_hte.spec import Plan
from bayes_hte.summary import Question

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

UNRELIABLE = "NOT RELIABLE: the fit did not pass its own checks"
"""The title of a figure whose draws cannot be trusted, unless the caller gives another."""


def forest(
    tree: xr.DataTree, question: Question, plan: Plan | None = None, *, arm: str | None = None, **options: Any
) -> "Figure | SubFigure":
    """Every segment's raw and pooled effect, under the average effect of its arm.

    Parameters
    ----------
    tree : xarray.DataTree
        A fit's posterior.
    question : Question
        Scale and interval; an explicit ``ci_prob`` among `options` replaces the question's, in the numbers too.
    plan : Plan, optional
        Names the unit.
    arm : str, optional
        Only this arm; by default all.
    **options
        Those of `bayes_hte.plot.forest`; what is given here wins over what the fit says.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    DataError
        If there is no such arm, or an option makes no sense.
    ModelError
        If the scale needs a control mean that the family does not have.
    """
    from bayes_hte import plot

    question = replace(question, ci_prob=options.get("ci_prob", question.ci_prob))
    cells = cells_of(tree)
    control = cells.attrs["control"] or "control"
    said = {"control": control, "ci_prob": question.ci_prob, **wording(tree, question, plan)}
    return plot.forest(*_tables(tree, question, arm), dimensions=schema.dimensions(cells), **(said | options))


def shrinkage(
    tree: xr.DataTree, question: Question, plan: Plan | None = None, *, arm: str | None = None, **options: Any
) -> "Figure | SubFigure":
    """How far pooling moved each segment, against its size.

    Parameters
    ----------
    tree, question, plan, arm
        As for `forest`.
    **options
        Those of `bayes_hte.plot.shrinkage`; what is given here wins over what the fit says.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    DataError
        If there is no such arm, or no segment has a raw estimate.
    ModelError
        If the scale needs a control mean that the family does not have.
    """
    from bayes_hte import plot

    said = wording(tree, question, plan)
    dimensions = schema.dimensions(cells_of(tree))
    return plot.shrinkage(*_tables(tree, question, arm), dimensions=dimensions, **(said | options))


def wording(tree: xr.DataTree, question: Question, plan: Plan | None) -> dict[str, Any]:
    """What a figure of this fit is called: unit, percent, the axis, and the verdict if it is bad."""
    logit = family_of(tree).link == "logit"
    pooled = {"partial": "partially pooled", "none": "by the model, not pooled", "complete": "completely pooled"}
    said: dict[str, Any] = {
        "unit": "" if plan is None else plan.report.unit,
        "pooled": pooled[model_of(tree).pooling],
    }
    match question.scale:
        case "relative":
            said |= {"percent": True, "axis_label": "effect relative to the control, %"}
        case "absolute" if logit:
            said |= {"percent": True, "axis_label": f"effect on {cells_of(tree).attrs['outcome']}, percentage points"}
        case "absolute":
            unit = f", {said['unit']}" if said["unit"] else ""
            said["axis_label"] = f"effect on {cells_of(tree).attrs['outcome']}{unit}"
        case "link" if logit:
            said["axis_label"] = "effect, log odds ratio"
    if not reliable(tree):
        said["title"] = UNRELIABLE
    return said


def reliable(tree: xr.DataTree) -> bool:
    """Whether the diagnosis that travels with a fit was passed; a fit without one was never checked."""
    return bool(json.loads(tree.attrs.get("diagnosis", "{}")).get("ok", False))


def _tables(tree: xr.DataTree, question: Question, arm: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    table, ate = summary.table(tree, question), summary.ate(tree, question)
    if arm is None:
        return table, ate
    arms = list(map(str, ate["arm"]))
    if arm not in arms:
        raise DataError(f"no treated arm {arm!r}; there are {arms}")
    return table[table["arm"] == arm], ate[ate["arm"] == arm]
