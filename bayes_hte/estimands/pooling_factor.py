"""Measure how much segments borrow from each other, and what each part of the model adds to their effects."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from bayes_hte.estimands.effects import drop_aligned_labels, drop_cell_labels, get_fitted_family, select_parameters
from bayes_hte.inference.draw_blocks import SAMPLE_DIMS, split_draws
from bayes_hte.model.coefficients import compute_centre_parts, limit_offset_variance, place_segments
from bayes_hte.model.families import FAMILIES, select_model_statistics
from bayes_hte.model.parameters import build_segment_design, expand_dimensions, list_coefficients
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import add_groups, get_fitted_cells, get_fitted_model, is_from_posterior

HELD_POOLING_GROUP = "held_pooling"
"""Group of a tree in which `hold_pooling` keeps averages."""


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
    effect = select_parameters(fit_tree)["effect"]
    factor_values, draw_axis = np.empty(effect.shape), effect.get_axis_num("draw")
    for block_slice, factor_block, _ in _compute_factor_blocks(fit_tree):
        factor_values[(slice(None),) * draw_axis + (block_slice,)] = factor_block.values
    return effect.copy(data=factor_values).drop_attrs()


def average_pooling(fit_tree: xr.DataTree) -> xr.Dataset:
    """Average the pooling factor and the sampling variance of effects over draws, dims (segment, arm).

    Variables ``pooling`` and ``sampling_variance`` (se², link scale). The draws themselves are not kept.
    """
    if HELD_POOLING_GROUP in fit_tree.children:
        return fit_tree[HELD_POOLING_GROUP].to_dataset()
    effect = select_parameters(fit_tree)["effect"]
    draw_count = effect.sizes["chain"] * effect.sizes["draw"]
    # mean = Σ over blocks of their sums / draws
    zeros = xr.zeros_like(effect.isel(chain=0, draw=0, drop=True), dtype=float).drop_attrs()
    factor_sum = variance_sum = drop_cell_labels(zeros)
    for _, factor_block, variance_block in _compute_factor_blocks(fit_tree):
        factor_sum = factor_sum + factor_block.sum(SAMPLE_DIMS, skipna=False)
        variance_sum = variance_sum + variance_block.sum(SAMPLE_DIMS, skipna=False)
    averages = xr.Dataset({"pooling": factor_sum / draw_count, "sampling_variance": variance_sum / draw_count})
    return averages.assign_coords(zeros.coords)


def hold_pooling(fit_tree: xr.DataTree) -> xr.DataTree:
    """Build a tree that holds the averages of `average_pooling`; the tree given stays as it is."""
    if HELD_POOLING_GROUP in fit_tree.children:
        return fit_tree
    return add_groups(fit_tree, {HELD_POOLING_GROUP: average_pooling(fit_tree)})


def _compute_factor_blocks(fit_tree: xr.DataTree) -> Iterator[tuple[slice, xr.DataArray, xr.DataArray]]:
    """Compute pooling factors and sampling variances block by block, with the positions of each block's draws."""
    family, model = get_fitted_family(fit_tree), get_fitted_model(fit_tree)
    cell_statistics = select_model_statistics(get_fitted_cells(fit_tree), model)
    cell_statistics, parameter_draws = drop_aligned_labels(cell_statistics, select_parameters(fit_tree))
    is_partial = model.pooling == "partial"
    between_variance = compute_between_variance(fit_tree) if is_partial else None
    fixed_factor = np.nan if is_from_posterior(fit_tree) else {"complete": 1.0}.get(model.pooling, 0.0)
    for block_slice, block_draws in split_draws(parameter_draws):
        effect = block_draws["effect"]
        sampling_variance = family.compute_effect_variance(cell_statistics, block_draws)
        sampling_variance = sampling_variance.broadcast_like(effect).transpose(*effect.dims)
        if between_variance is None:
            yield block_slice, xr.full_like(effect, fixed_factor), sampling_variance
            continue
        block_between = between_variance.isel(draw=block_slice)
        if cell_table.ARM not in effect.coords:  # labels were dropped above: two that are dropped need no alignment
            block_between = drop_cell_labels(block_between)
        # se² / (se² + τ²) = 1 / (1 + τ² / se²): the second is finite where se² is infinite, and is then 1
        yield block_slice, (1 / (1 + block_between / sampling_variance)).transpose(*effect.dims), sampling_variance


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
