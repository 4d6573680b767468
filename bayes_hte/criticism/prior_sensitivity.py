"""Measure by power-scaling how much answers would move if the priors, or the data, counted a little more or less.

A sensitivity is the distance between posteriors per doubling of the power of one component (Kallioinen et al. 2024,
Statistics and Computing 34:57), by importance weights on the draws at hand: nothing is fitted again. ArviZ's `psense`
computes it; this module selects the quantities to examine and puts the sensitivities into words.
"""

import math
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.criticism.arviz_groups import add_log_densities
from bayes_hte.criticism.own_estimates.prior_conflict import find_prior_conflicts
from bayes_hte.criticism.own_estimates.segment_estimates import estimate_segments
from bayes_hte.errors import DataError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.estimands.weights import average_over_segments, compute_average_weights
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, require_known_model

MIN_NOTICEABLE_SENSITIVITY = 0.05
"""A shift of a normal posterior by 0.3 SD per doubling of the power: the threshold of Kallioinen et al."""
MIN_LOG_DENSITY_RANGE = 1e-6
"""Range of a log-density over the draws below which no power of it moves anything: the sensitivity is less."""
MAX_EXAMINED_SEGMENTS = 200
"""Beyond so many segments only what they share is examined, and the average: rows that someone reads."""
SAMPLE_DIMS = ("chain", "draw")
WEAK_DATA_TEXT = "the prior matters: the data say little here"
CONTRADICTION_TEXT = "the prior matters: it contradicts the data, and outweighs them (see the diagnosis)"


def tabulate_sensitivity(fit_tree: xr.DataTree, question: EffectQuestion) -> pd.DataFrame:
    """Tabulate sensitivities to priors and data, one row per quantity; see `Fit.sensitivity`.

    Raises
    ------
    DataError
        If the log-likelihood of the fit is too large to be kept.
    """
    require_known_model(fit_tree, "the sensitivity to priors")
    arviz_groups = add_log_densities(fit_tree)
    if "log_likelihood" not in arviz_groups.children:
        raise DataError("the log-likelihood of every draw and cell is too large to be kept: fit with fewer draws")
    reported_draws = select_reported_draws(fit_tree, question)
    log_prior, log_likelihood = (arviz_groups[name].to_dataset() for name in ("log_prior", "log_likelihood"))
    prior_sensitivities = compute_power_sensitivity(reported_draws, log_prior, "prior")
    likelihood_sensitivities = compute_power_sensitivity(reported_draws, log_likelihood, "likelihood")
    diagnoses = list(map(describe_sensitivity, prior_sensitivities, likelihood_sensitivities))
    # Where the prior holds against the data no small power of the data moves anything: not because they say little.
    if has_prior_conflict(fit_tree):
        diagnoses = [CONTRADICTION_TEXT if text == WEAK_DATA_TEXT else text for text in diagnoses]
    return pd.DataFrame(
        {
            "quantity": list(reported_draws),
            "prior": prior_sensitivities,
            "likelihood": likelihood_sensitivities,
            "diagnosis": diagnoses,
        }
    )


def has_prior_conflict(fit_tree: xr.DataTree) -> bool:
    """Tell whether prior and data contradict each other, so that the fit is pulled away from the data."""
    problem = build_problem(get_fitted_cells(fit_tree), require_known_model(fit_tree, "the prior's conflict with data"))
    return bool(find_prior_conflicts(estimate_segments(problem), fit_tree["posterior"].to_dataset()).problems)


def compute_power_sensitivity(
    reported_draws: dict[str, xr.DataArray], log_density: xr.Dataset, component: Literal["prior", "likelihood"]
) -> NDArray[np.float64]:
    """Compute every quantity's sensitivity to the power of one component; NaN where draws or weights do not vary."""
    import arviz_stats as az

    # log p(component) = Σ over variables and their elements; its power a changes the log posterior by (a − 1)
    # times this sum.
    element_dims = [dim for dim in log_density.dims if dim not in SAMPLE_DIMS]
    total_log_density = log_density.sum(element_dims).to_dataarray().sum("variable")
    if total_log_density.max() - total_log_density.min() < MIN_LOG_DENSITY_RANGE:
        return np.zeros(len(reported_draws))
    quantity_index = pd.Index(list(reported_draws), name="quantity")
    stacked_draws = xr.concat(list(reported_draws.values()), quantity_index).to_dataset(name="x")
    scaling_tree = xr.DataTree.from_dict(
        {"posterior": stacked_draws, f"log_{component}": xr.Dataset({"total": total_log_density})}
    )
    try:
        with np.errstate(invalid="ignore"):
            return np.asarray(az.psense(scaling_tree, group=component, sample_dims=list(SAMPLE_DIMS))["x"].values)
    except ValueError:  # "All tail values are the same": a chain is stuck, which the diagnosis says
        return np.full(len(reported_draws), np.nan)


def select_reported_draws(fit_tree: xr.DataTree, question: EffectQuestion) -> dict[str, xr.DataArray]:
    """Select the draws of every reported scalar, dims (chain, draw), by the names of the rows."""
    posterior, cells = fit_tree["posterior"].to_dataset(), get_fitted_cells(fit_tree)
    effect_draws = compute_effects(fit_tree, question.scale)
    reported_draws: dict[str, xr.DataArray] = {}
    for variable_name in map(str, posterior.data_vars):
        if "effect" in variable_name and variable_name.endswith(("_mean", "_between", "_slope", "_correlation")):
            reported_draws |= _split_scalars(variable_name, posterior[variable_name])
    average_weights = compute_average_weights(fit_tree, question.scale)
    reported_draws |= _split_scalars("ate", average_over_segments(effect_draws, average_weights))
    if cells.sizes[cell_table.SEGMENT] <= MAX_EXAMINED_SEGMENTS:
        reported_draws |= _split_scalars("effect", effect_draws.transpose("chain", "draw", "segment", "arm"))
    return reported_draws


def _split_scalars(variable_name: str, variable_draws: xr.DataArray) -> dict[str, xr.DataArray]:
    """Split a variable into scalars, named as ArviZ names them: ``effect[mobile, email]``."""
    scalar_dims = [str(dim) for dim in variable_draws.dims if dim not in SAMPLE_DIMS]
    scalar_draws = {}
    for element_index in np.ndindex(*(variable_draws.sizes[dim] for dim in scalar_dims)):
        element_draws = variable_draws.isel(dict(zip(scalar_dims, element_index, strict=True)))
        index_label = ", ".join(str(element_draws[dim].values) for dim in scalar_dims)
        scalar_name = f"{variable_name}[{index_label}]" if index_label else variable_name
        scalar_draws[scalar_name] = element_draws.reset_coords(drop=True)
    return scalar_draws


def describe_sensitivity(prior_sensitivity: float, likelihood_sensitivity: float) -> str:
    """Put a quantity's sensitivities to prior and likelihood into words."""
    if not (math.isfinite(prior_sensitivity) and math.isfinite(likelihood_sensitivity)):
        return "not known: the draws do not vary, or a chain is stuck"
    # A sensitive prior beside an insensitive likelihood: weak data. Both sensitive: prior and data disagree.
    if prior_sensitivity < MIN_NOTICEABLE_SENSITIVITY:
        return "the prior hardly matters"
    if likelihood_sensitivity < MIN_NOTICEABLE_SENSITIVITY:
        return WEAK_DATA_TEXT
    return "the prior matters: it and the data pull on this number"
