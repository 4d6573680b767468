"""Give out the joint draws of effects themselves, on the scale of a report: as an array, and as a long table."""

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte.estimands.effects import compute_effects, get_fitted_family
from bayes_hte.model.families import Family
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import get_fitted_cells


def describe_units(family: Family, scale: EffectScale) -> str:
    """Describe in a few words what one unit of an effect is on a scale."""
    if scale == "relative":
        return "share of the control's mean"
    if scale == "link" and family.ratio_name:
        return f"log {family.ratio_name}"
    return "units of the outcome"


def compute_effect_draws(fit_tree: xr.DataTree, scale: EffectScale) -> xr.DataArray:
    """Compute the draws of every segment's effect, dims (chain, draw, segment, arm), with scale and units as attrs."""
    effect_draws = compute_effects(fit_tree, scale).transpose("chain", "draw", "segment", "arm")
    # A new array: on the link scale the draws are those of the posterior itself, which has attributes of its own.
    return effect_draws.copy(deep=False).assign_attrs(
        scale=scale, units=describe_units(get_fitted_family(fit_tree), scale)
    )


def tabulate_effect_draws(fit_tree: xr.DataTree, scale: EffectScale) -> pd.DataFrame:
    """Tabulate every draw of every effect, one row each: the levels of dimensions, arm, chain, draw, effect."""
    effect_draws, cells = compute_effect_draws(fit_tree, scale), get_fitted_cells(fit_tree)
    segment_major = effect_draws.transpose("segment", "arm", "chain", "draw")
    # Row r of the long table is the r-th number in memory: its position on each axis picks the labels.
    segment_index, *other_indexes = (axis_index.ravel() for axis_index in np.indices(segment_major.shape))
    segment_levels = cells.sel({cell_table.SEGMENT: segment_major[cell_table.SEGMENT].values})
    level_columns = {
        name: segment_levels[name].values.astype(str)[segment_index] for name in cell_table.list_dimensions(cells)
    }
    label_columns = {
        dim: segment_major[dim].values[axis_index]
        for dim, axis_index in zip(("arm", "chain", "draw"), other_indexes, strict=True)
    }
    return pd.DataFrame({**level_columns, **label_columns, "effect": segment_major.values.ravel()})
