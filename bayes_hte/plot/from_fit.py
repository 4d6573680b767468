"""Figures of a fit: the tables of `estimands.tables`, drawn by `bayes_hte.plot` with the words of the plan."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import shorten_text
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.criticism.prior_density import build_prior_density
from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.estimands import tables
from bayes_hte.estimands.effects import (
    compute_effects,
    convert_to_scale,
    estimate_without_pooling,
    get_fitted_family,
    select_parameters,
)
from bayes_hte.estimands.result_tables import ResultTables
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Plan, cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model, is_reliable, require_known_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MAX_SIDE_COLUMNS = 16
"""Of the name of an arm beside the label of the axis: a longer one would push the label aside."""
UNRELIABLE_TITLE = "NOT RELIABLE: the fit did not pass its own checks"
"""Title of a figure whose draws cannot be trusted, unless the caller gives another."""


def plot_forest(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    plan: Plan | None = None,
    *,
    arm: str | None = None,
    result_tables: ResultTables | None = None,
    **options: Any,
) -> "Figure | SubFigure":
    """Plot every segment's raw and pooled effect, under the average effect of its arm.

    Parameters
    ----------
    fit_tree : xarray.DataTree
        A fit's posterior.
    question : EffectQuestion
        Scale and interval; an explicit ``ci_prob`` among `options` replaces the question's, in the numbers too.
    plan : Plan, optional
        Names the unit.
    arm : str, optional
        Only this arm; by default all.
    result_tables : ResultTables, optional
        Tables of this fit for this question, where they are computed already.
    **options
        Those of `bayes_hte.plot.draw_forest`; what is given here wins over what the fit says.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    ArgumentError
        If there is no such arm, or an option makes no sense.
    ModelError
        If the scale needs a control mean that the family does not have.
    """
    # matplotlib is slow to load: only those who draw wait for it.
    from bayes_hte import plot

    # The tables have intervals of the question's probability: the axis label must not name another.
    question = replace(question, ci_prob=options.get("ci_prob", question.ci_prob))
    cells = get_fitted_cells(fit_tree)
    control = cells.attrs["control"] or "control"
    figure_options = {"control": control, "ci_prob": question.ci_prob, **choose_wording(fit_tree, question, plan)}
    # The best comes first, and the axis says which side is the better one, where that is known.
    figure_options["order"] = "effect" if question.higher_is_better else "lowest"
    if cells.attrs["control"] and "axis_label" in figure_options and is_direction_known(fit_tree, question):
        arm_names = [arm] if arm is not None else cell_table.list_treated_arms(cells)
        better = shorten_text(str(arm_names[0]), MAX_SIDE_COLUMNS) if len(arm_names) == 1 else "treatment"
        left, right = shorten_text(control, MAX_SIDE_COLUMNS), better
        if not question.higher_is_better:
            left, right = right, left
        figure_options["axis_label"] += f"\n← favours {left} · favours {right} →"
    return plot.draw_forest(
        *_select_tables(fit_tree, question, arm, result_tables),
        dimensions=cell_table.list_dimensions(cells),
        **(figure_options | options),
    )


def plot_shrinkage(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    plan: Plan | None = None,
    *,
    arm: str | None = None,
    result_tables: ResultTables | None = None,
    **options: Any,
) -> "Figure | SubFigure":
    """Plot how far pooling moved each segment, against its size.

    Parameters
    ----------
    fit_tree, question, plan, arm, result_tables
        As for `plot_forest`.
    **options
        Those of `bayes_hte.plot.draw_shrinkage`; what is given here wins over what the fit says.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    ArgumentError
        If there is no such arm.
    DataError
        If no segment has a raw estimate.
    ModelError
        If the scale needs a control mean that the family does not have.
    """
    from bayes_hte import plot

    figure_options = choose_wording(fit_tree, question, plan)
    dimension_names = cell_table.list_dimensions(get_fitted_cells(fit_tree))
    return plot.draw_shrinkage(
        *_select_tables(fit_tree, question, arm, result_tables),
        dimensions=dimension_names,
        **(figure_options | options),
    )


def plot_tau_trace(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    plan: Plan | None,
    tau_profile: pd.DataFrame,
    *,
    dimension: str | None = None,
    arm: str | None = None,
    **options: Any,
) -> "Figure | SubFigure":
    """Plot every segment's effect as a function of the between-segment SD, over the posterior of that SD.

    Parameters
    ----------
    fit_tree, question, plan, arm
        As for `plot_forest`.
    tau_profile : pandas.DataFrame
        From `bayes_hte.criticism.tau_profile.profile_tau`, on the scale of the question.
    dimension : str, optional
        Whose levels tau is the SD of.
    **options
        Those of `bayes_hte.plot.draw_tau_trace`; what is given here wins over what the fit says.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    ArgumentError
        If there is no such arm, or an option makes no sense.
    """
    from bayes_hte import plot

    if arm is not None:
        tau_profile = tau_profile[tau_profile["arm"] == _find_arm(arm, list(dict.fromkeys(tau_profile["arm"])))]
    # This figure shows all degrees of pooling, so that no name of one fits.
    figure_options = choose_wording(fit_tree, question, plan)
    figure_options.pop("pooled")
    ratio_name = get_fitted_family(fit_tree).ratio_name
    sd_name = "between-segment SD (tau)"
    if dimension is not None:
        sd_name = f"SD between levels of {shorten_text(dimension)} (tau)"
        figure_options["end_labels"] = ("← levels alike", "levels apart →")
    figure_options["tau_label"] = f"{sd_name}{f', log {ratio_name}' if ratio_name else ''}"
    # The profile repeats the density for every segment.
    density_table = tau_profile[["arm", "tau", "density"]].drop_duplicates(["arm", "tau"])
    dimension_names = cell_table.list_dimensions(get_fitted_cells(fit_tree))
    return plot.draw_tau_trace(
        tau_profile.drop(columns="density"), density_table, dimensions=dimension_names, **(figure_options | options)
    )


def plot_policy(fit_tree: xr.DataTree, curve_table: pd.DataFrame, **options: Any) -> "Axes":
    """Plot what treating more and more people gains, above how sure each segment's place in the policy is.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    curve_table : pandas.DataFrame
        From `bayes_hte.decisions.policy.curve.tabulate_policy_curve`.
    **options
        Those of `bayes_hte.plot.draw_policy`; what is given here wins over what the fit says.

    Returns
    -------
    Axes

    Raises
    ------
    ArgumentError
        If an option makes no sense.
    """
    from bayes_hte import plot

    cells, family = get_fitted_cells(fit_tree), get_fitted_family(fit_tree)
    gain_unit = str(curve_table.attrs["gain"])
    figure_options: dict[str, Any] = {"axis_label": f"gain, {gain_unit}", "budget": curve_table.attrs["budget"]}
    # Probabilities in percentage points, as in the report; money as it is.
    if family.mean_is_probability and not curve_table.attrs["is_money"]:
        figure_options |= {"percent": True, "axis_label": f"gain on {cells.attrs['outcome']}, percentage points"}
    if curve_table.attrs["marginal"]:
        figure_options["caption"] = curve_table.attrs["marginal"]
    if not is_reliable(fit_tree):
        figure_options["title"] = UNRELIABLE_TITLE
    dimension_names = [name for name in cell_table.list_dimensions(cells) if name in curve_table.columns]
    return plot.draw_policy(curve_table, dimensions=dimension_names, **(figure_options | options))


def plot_prior_and_posterior(
    tree: xr.DataTree, question: EffectQuestion, plan: Plan | None = None, **options: Any
) -> "Figure | SubFigure":
    """Plot prior and, where there is one, posterior of segments' effects, one panel per arm.

    Parameters
    ----------
    tree : xarray.DataTree
        With the group prior.
    question, plan
        As for `plot_forest`.
    **options
        Those of `bayes_hte.plot.draw_prior`.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    DataError
        If there are no draws from the prior, as of very large fits.
    """
    from bayes_hte import plot

    require_known_model(tree, "a figure of the prior")
    if "prior" not in tree.children:
        raise DataError("this fit is too large to hold draws from its prior; use bayes_hte.plot_prior on a part of it")
    family, cells = get_fitted_family(tree), get_fitted_cells(tree)
    prior_effects = convert_to_scale(family, select_parameters(tree, "prior"), question.scale, cells)
    posterior_effects = compute_effects(tree, question.scale) if "posterior" in tree.children else None
    raw_effects = estimate_without_pooling(tree, question.scale)["raw"]
    prior_density = build_prior_density(build_problem(cells, get_fitted_model(tree)), question.scale)
    arm_beliefs = [
        plot.ArmBelief(
            str(arm),
            # Before the data all segments have the same distribution: one of them stands for all.
            prior_effects.sel(arm=arm).isel(segment=0).values.ravel(),
            None if posterior_effects is None else posterior_effects.sel(arm=arm).values.ravel(),
            raw_effects.sel(arm=arm).values,
            # Arms have the same prior.
            prior_density,
        )
        for arm in prior_effects["arm"].values
    ]
    fit_options = choose_wording(tree, question, plan)
    figure_options = {
        option_name: fit_options[option_name]
        for option_name in ("unit", "percent", "axis_label", "title")
        if option_name in fit_options
    }
    if posterior_effects is None:
        figure_options.pop("title", None)  # there is no diagnosis before the fit
    return plot.draw_prior(arm_beliefs, **(figure_options | options))


def _find_arm(wanted_arm: object, treated_arms: list[str]) -> str:
    """Find the treated arm that a caller names, by its text or as the data held it."""
    arm_label = format_level(wanted_arm)
    if arm_label not in treated_arms:
        raise ArgumentError(f"no treated arm {arm_label!r}; there are {treated_arms}")
    return arm_label


def choose_wording(fit_tree: xr.DataTree, question: EffectQuestion, plan: Plan | None) -> dict[str, Any]:
    """Choose what a figure of a fit is called: unit, percent, axis label, and the verdict if it is bad."""
    family = get_fitted_family(fit_tree)
    pooled_name_by_kind = {
        "partial": "partially pooled",
        "none": "by the model, not pooled",
        "complete": "completely pooled",
    }
    figure_options: dict[str, Any] = {
        "unit": "" if plan is None else plan.report.unit,
        "pooled": pooled_name_by_kind[get_fitted_model(fit_tree).pooling],
    }
    # In the same units as the report's sentences: probabilities in percentage points, ratios as logarithms.
    match question.scale:
        case "relative":
            figure_options |= {"percent": True, "axis_label": "effect relative to the control, %"}
        case "absolute" if family.mean_is_probability:
            figure_options |= {
                "percent": True,
                "axis_label": f"effect on {get_fitted_cells(fit_tree).attrs['outcome']}, percentage points",
            }
        case "absolute":
            unit_suffix = f", {figure_options['unit']}" if figure_options["unit"] else ""
            figure_options["axis_label"] = f"effect on {get_fitted_cells(fit_tree).attrs['outcome']}{unit_suffix}"
        case "link" if family.ratio_name:
            figure_options["axis_label"] = f"effect, log {family.ratio_name}"
    if not is_reliable(fit_tree):
        figure_options["title"] = UNRELIABLE_TITLE
    return figure_options


def _select_tables(
    fit_tree: xr.DataTree, question: EffectQuestion, arm: str | None, result_tables: ResultTables | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Select the rows of segments and averages, of all arms or of one."""
    if result_tables is None:
        segment_table, ate_table = (
            tables.tabulate_segments(fit_tree, question),
            tables.tabulate_ate(fit_tree, question),
        )
    else:
        segment_table, ate_table = result_tables.segment_table, result_tables.ate_table
    if arm is None:
        return segment_table, ate_table
    arm = _find_arm(arm, list(map(str, ate_table["arm"])))
    return segment_table[segment_table["arm"] == arm], ate_table[ate_table["arm"] == arm]
