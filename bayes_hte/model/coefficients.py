"""Compute coefficients of segments from what segments share and how far each stands from it: the structure in NumPy.

    coefficient[s] = centre[s] + scale[s] * offset[s]

    centre[s] = mean + Σ_c z[s, c] slope[c] + Σ_terms effect of the level of s
    scale[s]  = τ[stratum of s]                                     normal, Student's t
                slab w / √(slab² + w²),   w = τ[stratum of s] λ[s]    horseshoe, λ ~ HalfCauchy(1)
    offset[s] = own[s]                                              Normal(0, 1), or Student's t
                ρ baseline[s] + √(1 − ρ²) own[s]                    tied to the baseline's offset by a correlation ρ

Prior draws, segments that were not in the experiment and segments left out all take them from here. The PyMC graph of
`model.pymc.pooling` shares the formulas that work on its variables too; a test compares the two for every structure.

References
----------
Piironen & Vehtari (2017), Electronic Journal of Statistics 11:5018 (regularised horseshoe).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayes_hte.model.parameters import Coefficient, SegmentDesign, name_term_variable
from bayes_hte.spec.cell_table import SEGMENT
from bayes_hte.spec.model import Effect

MIN_NU_EXCESS = 0.1
"""Degrees of freedom above 2 at which a t's variance is taken where it must be finite: there 21 times its scale²."""


def regularise_scale(wide_scale: Any, slab: Any) -> Any:
    """Limit the scale of a horseshoe by its slab, of arrays and PyTensor variables alike.

    Examples
    --------
    >>> float(regularise_scale(3.0, 4.0)), float(regularise_scale(1e9, 4.0))
    (2.4, 4.0)
    """
    # slab w / √(slab² + w²): w where w ≪ slab, slab where w ≫ slab
    return slab * wide_scale / (slab**2 + wide_scale**2) ** 0.5


def split_offset(baseline_offset: Any, correlation: Any) -> tuple[Any, Any]:
    """Split an effect's offset into the part that the baseline's tells and the factor of its own, in any array type."""
    # offset = ρ baseline + √(1 − ρ²) own: of variance 1, and of correlation ρ with the baseline's
    return correlation * baseline_offset, (1 - correlation**2) ** 0.5


def compute_offset_variance(effect_priors: Effect) -> float:
    """Compute the variance of an offset in squared between-segment scales: 1, or that of Student's t, infinite at 2."""
    if effect_priors.shape != "student_t":
        return 1.0
    # Var[t_ν] = ν / (ν − 2)
    nu = effect_priors.tail_nu
    return nu / (nu - 2) if nu > 2 else math.inf


def limit_offset_variance(effect_priors: Effect) -> float:
    """Limit the variance of an offset to a finite number where Student's t has nearly none."""
    return min(compute_offset_variance(effect_priors), effect_priors.tail_nu / MIN_NU_EXCESS)


@dataclass(frozen=True, slots=True)
class SegmentPlacement:
    """Places of segments in a model's structure: of many, dim segment, or of a single one without that dim.

    Attributes
    ----------
    level_index : mapping
        Dim of a term or of strata -> position of each segment's level among its labels; dims (segment,) or ().
    standardised_covariates : xarray.DataArray
        In SDs over the fitted segments; dims (segment, covariate) or (covariate,).
    """

    level_index: Mapping[str, xr.DataArray]
    standardised_covariates: xr.DataArray

    def select_level(self, level_values: xr.DataArray, dim_name: str | None) -> xr.DataArray:
        """Select every segment's level of a dim; values without that dim stay as they are."""
        if dim_name is None:
            return level_values
        return level_values.isel({dim_name: self.level_index[dim_name]}).drop_vars(dim_name, errors="ignore")


def place_segments(segment_design: SegmentDesign) -> SegmentPlacement:
    """Place all segments of a design."""
    return SegmentPlacement(
        {dim_name: xr.DataArray(index, dims=SEGMENT) for dim_name, index in segment_design.level_index.items()},
        xr.DataArray(segment_design.standardised_covariates, dims=(SEGMENT, "covariate")),
    )


@dataclass(frozen=True, slots=True)
class SegmentOffsets:
    """Offsets of segments from their centres, in units of their scale.

    Attributes
    ----------
    own : xarray.DataArray
        Standard normal, or Student's t.
    local : xarray.DataArray, optional
        Local scales λ of a horseshoe, half-Cauchy.
    baseline : xarray.DataArray, optional
        Offsets of the same segments' baselines, where a correlation ties the effect to them.
    """

    own: xr.DataArray
    local: xr.DataArray | None = None
    baseline: xr.DataArray | None = None


def draw_offsets(
    effect_priors: Effect | None,
    sizes: Mapping[str, int],
    rng: np.random.Generator,
    *,
    baseline_offset: xr.DataArray | None = None,
) -> SegmentOffsets:
    """Draw offsets, and a horseshoe's local scales, from their distributions.

    Parameters
    ----------
    effect_priors : Effect or None
        Says the shape; None for a baseline, which is normal.
    sizes : mapping
        Dim -> its length, in the order of the dims.
    rng : numpy.random.Generator
    baseline_offset : xarray.DataArray, optional
        Kept for a correlation.
    """
    dims, shape = tuple(sizes), tuple(sizes.values())
    effect_shape = "normal" if effect_priors is None else effect_priors.shape
    if effect_priors is not None and effect_shape == "student_t":
        own_offset = rng.standard_t(effect_priors.tail_nu, shape)
    else:
        own_offset = rng.standard_normal(shape)
    local_scale = None
    if effect_shape == "horseshoe":
        local_scale = xr.DataArray(np.abs(rng.standard_cauchy(shape)), dims=dims)
    return SegmentOffsets(xr.DataArray(own_offset, dims=dims), local_scale, baseline_offset)


def compute_centre_parts(
    coefficient: Coefficient, shared_values: Mapping[str, xr.DataArray], placement: SegmentPlacement
) -> dict[str, xr.DataArray]:
    """Compute what segments are pooled around, part by part: ``mean``, ``covariates``, and every term by its name.

    Parameters
    ----------
    coefficient : Coefficient
    shared_values : mapping
        Hyperparameters and effects of levels by the names of their variables, any leading dims.
    placement : SegmentPlacement
    """
    name = coefficient.name
    centre_parts = {}
    if f"{name}_mean" in shared_values:
        centre_parts["mean"] = shared_values[f"{name}_mean"]
    if f"{name}_slope" in shared_values:
        # Σ_c z[s, c] slope[c]; labels of covariates are dropped, their order is the model's on both sides
        slope = shared_values[f"{name}_slope"].drop_vars("covariate", errors="ignore")
        centre_parts["covariates"] = xr.dot(slope, placement.standardised_covariates, dim="covariate")
    for term in coefficient.pool_priors.by:
        centre_parts[term] = placement.select_level(shared_values[name_term_variable(name, term)], term)
    return centre_parts


def compute_scale(
    coefficient: Coefficient,
    shared_values: Mapping[str, xr.DataArray],
    offsets: SegmentOffsets,
    placement: SegmentPlacement,
) -> xr.DataArray:
    """Compute the scale of every segment's offset: its stratum's between-segment SD, or a horseshoe's local scale."""
    between_scale = placement.select_level(shared_values[f"{coefficient.name}_between"], coefficient.strata)
    if offsets.local is None or coefficient.effect_priors is None:
        return between_scale
    return regularise_scale(between_scale * offsets.local, coefficient.effect_priors.slab)  # type: ignore[no-any-return]


def compute_coefficients(
    coefficient: Coefficient,
    shared_values: Mapping[str, xr.DataArray],
    offsets: SegmentOffsets,
    placement: SegmentPlacement,
) -> xr.DataArray:
    """Compute a partially pooled coefficient of segments; the dims of the offsets, in their order.

    Parameters
    ----------
    coefficient : Coefficient
    shared_values : mapping
        Hyperparameters and effects of levels by the names of their variables; dims as
        `parameters.collect_variable_dims` says, after any leading ones such as (chain, draw).
    offsets : SegmentOffsets
    placement : SegmentPlacement
    """
    offset = offsets.own
    correlation = shared_values.get(f"{coefficient.name}_correlation")
    if correlation is not None and offsets.baseline is not None:
        tied_offset, own_factor = split_offset(offsets.baseline, correlation)
        offset = tied_offset + own_factor * offset
    centre = sum(compute_centre_parts(coefficient, shared_values, placement).values(), start=xr.zeros_like(offsets.own))
    scale = compute_scale(coefficient, shared_values, offsets, placement)
    # coefficient[s] = centre[s] + scale[s] offset[s]
    return (centre + scale * offset).transpose(*offsets.own.dims)
