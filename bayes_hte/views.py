"""Figures of a fit: the tables of `bayes_hte.summary`, drawn by `bayes_hte.plot` with the words of the plan."""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from bayes_hte import answers, schema, summary
from bayes_hte.cells.labels import level_of
from bayes_hte.effects import cells_of, effects, family_of, known_model, model_of, on_scale, parameters, raw
from bayes_hte.errors import DataError
from bayes_hte.spec import Plan
from bayes_hte.summary import Question

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

DETAILS = ("effect_mcse", "p_mcse", "pooling_low", "pooling_high", "complete", "complete_se")
"""Columns that `summary.table` adds for reviewers."""
UNRELIABLE = "NOT RELIABLE: the fit did not pass its own checks"
"""The title of a figure whose draws cannot be trusted, unless the caller gives another."""


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """What a fit says to one question: computed once, shown in every figure, page and file.

    Attributes
    ----------
    segments, average, spread : pandas.DataFrame
        As `summary.table`, `summary.ate` and `answers.heterogeneity` give them.
    """

    segments: pd.DataFrame
    average: pd.DataFrame
    spread: pd.DataFrame

    @property
    def brief(self) -> pd.DataFrame:
        """The segments without the details: `Fit.table` as it is by default."""
        return self.segments.drop(columns=list(DETAILS), errors="ignore")


def tables(tree: xr.DataTree, question: Question, *, detail: bool = False) -> Tables:
    """The tables of a fit; `detail` is that of `summary.table`."""
    return Tables(
        summary.table(tree, question, detail=detail), summary.ate(tree, question), answers.heterogeneity(tree, question)
    )


def forest(
    tree: xr.DataTree,
    question: Question,
    plan: Plan | None = None,
    *,
    arm: str | None = None,
    found: Tables | None = None,
    **options: Any,
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
    found : Tables, optional
        What the fit says to this very question, where that is known already.
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
    return plot.forest(*_shown(tree, question, arm, found), dimensions=schema.dimensions(cells), **(said | options))


def shrinkage(
    tree: xr.DataTree,
    question: Question,
    plan: Plan | None = None,
    *,
    arm: str | None = None,
    found: Tables | None = None,
    **options: Any,
) -> "Figure | SubFigure":
    """How far pooling moved each segment, against its size.

    Parameters
    ----------
    tree, question, plan, arm, found
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
    return plot.shrinkage(*_shown(tree, question, arm, found), dimensions=dimensions, **(said | options))


def trace(
    tree: xr.DataTree,
    question: Question,
    plan: Plan | None,
    found: pd.DataFrame,
    *,
    arm: str | None = None,
    **options: Any,
) -> "Figure | SubFigure":
    """Every segment's effect as a function of the between-segment SD, over the posterior of that SD.

    Parameters
    ----------
    tree, question, plan, arm
        As for `forest`.
    found : pandas.DataFrame
        From `bayes_hte.given_tau`, on the scale of the question.
    **options
        Those of `bayes_hte.plot.trace`; what is given here wins over what the fit says.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    DataError
        If there is no such arm, or an option makes no sense.
    """
    from bayes_hte import plot

    if arm is not None:
        found = found[found["arm"] == _arm(arm, list(dict.fromkeys(found["arm"])))]
    said = {name: value for name, value in wording(tree, question, plan).items() if name != "pooled"}
    ratio = family_of(tree).ratio
    said["tau_label"] = f"between-segment SD (tau){f', log {ratio}' if ratio else ''}"
    density = found[["arm", "tau", "density"]].drop_duplicates(["arm", "tau"])
    dimensions = schema.dimensions(cells_of(tree))
    return plot.trace(found.drop(columns="density"), density, dimensions=dimensions, **(said | options))


def prior(tree: xr.DataTree, question: Question, plan: Plan | None = None, **options: Any) -> "Figure | SubFigure":
    """Prior and, where there is one, posterior of segments' effects, one panel per arm.

    Parameters
    ----------
    tree : xarray.DataTree
        With the group prior.
    question, plan
        As for `forest`.
    **options
        Those of `bayes_hte.plot.prior`.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    DataError
        If there are no draws from the prior, as of very large fits.
    """
    from bayes_hte import plot

    known_model(tree, "a figure of the prior")
    if "prior" not in tree.children:
        raise DataError("this fit is too large to hold draws from its prior; use bayes_hte.plot_prior on a part of it")
    family, cells = family_of(tree), cells_of(tree)
    before = on_scale(family, parameters(tree, "prior"), question.scale, cells)
    after = effects(tree, question.scale) if "posterior" in tree.children else None
    own = raw(tree, question.scale)["raw"]
    beliefs = [
        plot.Belief(
            str(arm),
            before.sel(arm=arm).isel(segment=0).values.ravel(),
            None if after is None else after.sel(arm=arm).values.ravel(),
            own.sel(arm=arm).values,
        )
        for arm in before["arm"].values
    ]
    words = wording(tree, question, plan)
    said = {name: words[name] for name in ("unit", "percent", "axis_label", "title") if name in words}
    if after is None:
        said.pop("title", None)  # there is no diagnosis before the fit
    return plot.prior(beliefs, **(said | options))


def _arm(named: object, arms: list[str]) -> str:
    """The treated arm that a caller names, by its text or as the data held it."""
    arm = level_of(named)
    if arm not in arms:
        raise DataError(f"no treated arm {arm!r}; there are {arms}")
    return arm


def wording(tree: xr.DataTree, question: Question, plan: Plan | None) -> dict[str, Any]:
    """What a figure of this fit is called: unit, percent, the axis, and the verdict if it is bad."""
    family = family_of(tree)
    pooled = {"partial": "partially pooled", "none": "by the model, not pooled", "complete": "completely pooled"}
    said: dict[str, Any] = {
        "unit": "" if plan is None else plan.report.unit,
        "pooled": pooled[model_of(tree).pooling],
    }
    match question.scale:
        case "relative":
            said |= {"percent": True, "axis_label": "effect relative to the control, %"}
        case "absolute" if family.percent:
            said |= {"percent": True, "axis_label": f"effect on {cells_of(tree).attrs['outcome']}, percentage points"}
        case "absolute":
            unit = f", {said['unit']}" if said["unit"] else ""
            said["axis_label"] = f"effect on {cells_of(tree).attrs['outcome']}{unit}"
        case "link" if family.ratio:
            said["axis_label"] = f"effect, log {family.ratio}"
    if not reliable(tree):
        said["title"] = UNRELIABLE
    return said


def reliable(tree: xr.DataTree) -> bool:
    """Whether the diagnosis that travels with a fit was passed; a fit without one was never checked."""
    return bool(json.loads(tree.attrs.get("diagnosis", "{}")).get("ok", False))


def _shown(
    tree: xr.DataTree, question: Question, arm: str | None, found: Tables | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of segments and averages, of all arms or of one."""
    if found is None:
        table, average = summary.table(tree, question), summary.ate(tree, question)
    else:
        table, average = found.segments, found.average
    if arm is None:
        return table, average
    arm = _arm(arm, list(map(str, average["arm"])))
    return table[table["arm"] == arm], average[average["arm"] == arm]
