"""Measure how much segments borrow from each other, and what each part of the model adds to their effects."""

import numpy as np
import xarray as xr

from bayes_hte.estimands.effects import get_fitted_family, select_parameters
from bayes_hte.model.coefficients import compute_centre_parts, limit_offset_variance, place_segments
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.parameters import build_segment_design, expand_dimensions, list_coefficients
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model, is_from_posterior


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
    model, posterior, cells = get_fitted_model(fit_tree), fit_tree["posterior"].to_dataset(), get_fitted_cells(fit_tree)
    family = FAMILIES[model.family]
    if family.compute_between_variance is not None:
        return family.compute_between_variance(posterior)
    if model.effect.shape == "horseshoe":
        return posterior["effect_local"] ** 2
    # Var[τ offset] = τ² Var[offset]
    between_variance = posterior["effect_between"] ** 2 * limit_offset_variance(model.effect)
    strata = model.effect.strata
    if strata is None or strata not in between_variance.dims:
        return between_variance
    placement = place_segments(build_segment_design(expand_dimensions(model, cells), cells))
    segment_variance = placement.select_level(between_variance, strata)
    return segment_variance.assign_coords({cell_table.SEGMENT: cells[cell_table.SEGMENT]})


def decompose_effects(fit_tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Split each segment's effect into what every part of the model adds, link scale; dims (chain, draw, segment, arm).

    Together they are the effect less the common effect; "rest" is what levels and covariates leave over.
    """
    posterior, cells = fit_tree["posterior"].to_dataset(), get_fitted_cells(fit_tree)
    model = expand_dimensions(get_fitted_model(fit_tree), cells)
    placement = place_segments(build_segment_design(model, cells))
    coefficient = next(each for each in list_coefficients(model) if each.name == "effect")
    shared_draws = {str(name): draws for name, draws in posterior.data_vars.items()}
    centre_parts = compute_centre_parts(coefficient, shared_draws, placement)
    # Levels first, as the table shows them.
    part_names = [*model.effect.by, *(["covariates"] if model.effect.covariates else [])]
    effect_parts = {name.replace(":", " × "): centre_parts[name] for name in part_names}
    # effect_s = mean + Σ_terms level effect of s + Σ_covariates slope · z_s + rest_s
    explained_part = sum(effect_parts.values(), start=xr.zeros_like(posterior["effect_mean"]))
    effect_parts["rest"] = posterior["effect"] - posterior["effect_mean"] - explained_part
    return {
        name: part_effect.transpose("chain", "draw", "segment", "arm") for name, part_effect in effect_parts.items()
    }
