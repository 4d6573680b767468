"""Measure how much segments borrow from each other, and what each part of the model adds to their effects."""

import numpy as np
import xarray as xr

from bayes_hte.estimands.effects import (
    get_fitted_cells,
    get_fitted_family,
    get_fitted_model,
    is_from_posterior,
    select_parameters,
)
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.parameters import (
    build_segment_design,
    expand_dimensions,
    name_term_variable,
)
from bayes_hte.model.pymc.pooling import DEFAULT_NU
from bayes_hte.spec import cell_table
from bayes_hte.spec.model import Model


def compute_pooling_factor(fit_tree: xr.DataTree) -> xr.DataArray:
    """Compute the share of a segment's estimate that is borrowed, se² / (se² + tau²), of every draw.

    se is the standard error that the segment's effect would have on the link scale if it were
    estimated alone, at the drawn parameters; so a cell without events has one too.

    It describes the pooling of effects. Baselines are pooled as well and shared by all arms, so an estimate
    can also move because the control's mean does, which this factor does not count.

    References
    ----------
    Gelman & Pardoe (2006), Technometrics 48:241.
    """
    family, model = get_fitted_family(fit_tree), get_fitted_model(fit_tree)
    sampling_variance = family.compute_effect_variance(
        family.select_statistics(get_fitted_cells(fit_tree)), select_parameters(fit_tree)
    )
    effect = select_parameters(fit_tree)["effect"]
    sampling_variance = sampling_variance.broadcast_like(effect).transpose(*effect.dims)
    if is_from_posterior(fit_tree) and model.pooling != "partial":
        return sampling_variance.copy(data=np.full(sampling_variance.shape, np.nan))
    if model.pooling != "partial":
        return sampling_variance.copy(
            data=np.full(sampling_variance.shape, 1.0 if model.pooling == "complete" else 0.0)
        )
    between_variance = compute_between_variance(fit_tree)
    # se² / (se² + τ²) = 1 / (1 + τ² / se²): the second is finite where se² is infinite, and is then 1
    return (1 / (1 + between_variance / sampling_variance)).transpose(*sampling_variance.dims)


def compute_between_variance(fit_tree: xr.DataTree) -> xr.DataArray:
    """Compute the variance of effects around their levels' and covariates' sum, link scale; dims (chain, draw, …).

    Of heavy tails it is the scale's square times nu / (nu − 2); of a horseshoe that of each segment's own scale.
    """
    model, posterior = get_fitted_model(fit_tree), fit_tree["posterior"].to_dataset()
    family = FAMILIES[model.family]
    if family.compute_between_variance is not None:
        return family.compute_between_variance(posterior)
    effect_spec = model.effect
    if effect_spec.shape == "horseshoe":
        return posterior["effect_local"] ** 2
    between_variance = posterior["effect_between"] ** 2
    if effect_spec.shape == "student_t":
        nu = effect_spec.nu or DEFAULT_NU
        # Var[τ t_ν] = τ² ν / (ν − 2); it is infinite for ν ≤ 2, where 0.1 keeps the factor finite
        between_variance = between_variance * nu / max(nu - 2, 0.1)
    return expand_strata_to_segments(between_variance, model, get_fitted_cells(fit_tree))


def decompose_effects(fit_tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Split each segment's effect into what every part of the model adds, link scale; dims (chain, draw, segment, arm).

    Together they are the effect less the common effect; "rest" is what levels and covariates leave over.
    """
    posterior, cells = fit_tree["posterior"].to_dataset(), get_fitted_cells(fit_tree)
    model = expand_dimensions(get_fitted_model(fit_tree), cells)
    segment_design = build_segment_design(model, cells)
    effect_parts: dict[str, xr.DataArray] = {}
    for term in model.effect.by:
        level_index = xr.DataArray(segment_design.level_index[term], dims="segment")
        effect_parts[term.replace(":", " × ")] = (
            posterior[name_term_variable("effect", term)].isel({term: level_index}).drop_vars(term)
        )
    if model.effect.covariates:
        covariate_values = xr.DataArray(segment_design.standardised_covariates, dims=("segment", "covariate"))
        effect_parts["covariates"] = xr.dot(
            posterior["effect_slope"].drop_vars("covariate"), covariate_values, dim="covariate"
        )
    # effect_s = mean + Σ_terms level effect of s + Σ_covariates slope · z_s + rest_s
    explained_part = sum(effect_parts.values(), start=xr.zeros_like(posterior["effect_mean"]))
    effect_parts["rest"] = posterior["effect"] - posterior["effect_mean"] - explained_part
    return {
        name: part_effect.transpose("chain", "draw", "segment", "arm") for name, part_effect in effect_parts.items()
    }


def expand_strata_to_segments(stratum_values: xr.DataArray, model: Model, cells: xr.Dataset) -> xr.DataArray:
    """Repeat the values of strata for their segments; values without strata stay unchanged."""
    strata_dimension = model.effect.strata
    if strata_dimension is None or strata_dimension not in stratum_values.dims:
        return stratum_values
    segment_strata = xr.DataArray(cells[strata_dimension].values.astype(str), dims=cell_table.SEGMENT)
    segment_values = stratum_values.sel({strata_dimension: segment_strata}).drop_vars(strata_dimension)
    return segment_values.assign_coords({cell_table.SEGMENT: cells[cell_table.SEGMENT]})
