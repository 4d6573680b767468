"""Compute effects as joint draws on a stated scale from a posterior alone, without PyMC.

absolute   E[y | treated] − E[y | control]
relative   absolute / E[y | control], draw by draw: the mean of a ratio is not the ratio of means
           under a log link exp(effect) − 1, the same thing; for survival the hazard ratio less one
link       log-odds, logarithm, or the outcome itself
"""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.cells.combine.split import pool_segments
from bayes_hte.cells.units.clusters import read_spanning_clusters
from bayes_hte.errors import ModelError
from bayes_hte.inference.draw_blocks import split_draws
from bayes_hte.model.families import FAMILIES, Family, select_model_statistics
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import (
    TEST_CELLS_GROUP,
    add_groups,
    get_fitted_cells,
    get_fitted_model,
    get_test_tree,
    list_test_names,
)


def get_fitted_family(fit_tree: xr.DataTree) -> Family:
    """Return the fitted outcome family."""
    return FAMILIES[get_fitted_model(fit_tree).family]


def select_parameters(fit_tree: xr.DataTree, group_name: str = "posterior") -> ParameterDraws:
    """Select the draws of a group that the likelihood needs: effect, baseline and nuisance parameters."""
    return select_likelihood_parameters(fit_tree[group_name].to_dataset())


def drop_cell_labels[Labelled: (xr.Dataset, xr.DataArray)](labelled: Labelled) -> Labelled:
    """Drop the labels of segments and arms, and the levels of segments; the order says which is which.

    xarray aligns labels in every operation, which takes ten times as long as what a small problem has to compute.
    """
    cell_dims = {cell_table.SEGMENT, cell_table.ARM}
    dims_by_name = {name: set(labelled.coords[name].dims) for name in labelled.coords}
    return labelled.drop_vars([name for name, dims in dims_by_name.items() if dims and dims <= cell_dims])


def drop_aligned_labels(
    cell_statistics: xr.Dataset, parameter_draws: ParameterDraws
) -> tuple[xr.Dataset, ParameterDraws]:
    """Drop the labels of cells and parameters where both have them in the same order, else leave them to xarray."""
    segments, arms = (cell_statistics[dim].values for dim in (cell_table.SEGMENT, cell_table.ARM))
    effect = parameter_draws["effect"]
    # Parameters have no control, which comes first among the arms of cells; estimates have none either.
    effect_arms = effect[cell_table.ARM].values
    is_aligned = (
        len(arms) - len(effect_arms) in (0, 1)
        and np.array_equal(arms[len(arms) - len(effect_arms) :], effect_arms)
        and np.array_equal(segments, effect[cell_table.SEGMENT].values)
    )
    if not is_aligned:
        return cell_statistics, parameter_draws
    return drop_cell_labels(cell_statistics), {name: drop_cell_labels(draws) for name, draws in parameter_draws.items()}


HELD_EFFECTS_GROUP = "held_effects"
"""Group of a tree in which `hold_effects` keeps effects, a variable for each scale."""
COEFFICIENT_NAMES = ("effect", "baseline")
"""Coefficients of every family; parts of an outcome have a prefix before them."""


def select_likelihood_parameters(draws: xr.Dataset) -> ParameterDraws:
    """Select the variables that a likelihood needs; draws may have dims of the same names, which are left out."""
    # Of any family: the model is not known here.
    nuisance_names = {family.nuisance.name: None for family in FAMILIES.values() if family.nuisance is not None}
    part_prefixes = {part.prefix: None for family in FAMILIES.values() for part in family.parts}
    parameter_names = (
        *COEFFICIENT_NAMES,
        *nuisance_names,
        *(f"{prefix}{name}" for prefix in part_prefixes for name in COEFFICIENT_NAMES),
    )
    # Data variables only: a dimension of the experiment may be called like a parameter.
    return {name: draws[name] for name in parameter_names if name in draws.data_vars}


def convert_to_scale(
    family: Family, parameter_draws: ParameterDraws, scale: EffectScale, statistics: xr.Dataset
) -> xr.DataArray:
    """Convert draws of link-scale effects to a scale; dims (chain, draw, segment, arm).

    Parameters
    ----------
    family : Family
    parameter_draws : mapping
        effect, and baseline and nuisance parameters where the family has them.
    scale : str
    statistics : xarray.Dataset
        The cells, or the family's statistics of them: levels, intervals and the horizon are read from there.

    Raises
    ------
    ModelError
        If the scale needs a control mean that the family does not have.
    """
    effect = parameter_draws["effect"]
    if is_fitted_scale(family, scale):
        return effect
    if not family.has_baseline:
        raise ModelError(f'scale "{scale}" needs the control\'s mean, which published estimates lack; use "absolute"')
    # E[y | treated] / E[y | control] − 1 = exp(effect) − 1 under a log link; expm1 keeps the digits of small effects.
    if scale == "relative" and family.link == "log":
        return effect.copy(data=np.expm1(effect.values))
    control_mean, treated_mean = compute_arm_means(family, parameter_draws, statistics)
    return treated_mean - control_mean if scale == "absolute" else treated_mean / control_mean - 1


def is_fitted_scale(family: Family, scale: EffectScale) -> bool:
    """Tell whether effects on a scale are the model's own: the link scale, and differences under an identity link."""
    return scale == "link" or (scale == "absolute" and family.link == "identity")


def compute_arm_means(
    family: Family, parameter_draws: ParameterDraws, statistics: xr.Dataset
) -> tuple[xr.DataArray, xr.DataArray]:
    """Compute the mean outcome of the control, dims (chain, draw, segment), and of treated arms, (…, segment, arm)."""
    control_mean = family.compute_mean(parameter_draws["baseline"], parameter_draws, statistics)
    # η = baseline + effect, on the link scale
    treated_predictor = parameter_draws["baseline"] + parameter_draws["effect"]
    return control_mean, family.compute_mean(
        treated_predictor.transpose(*parameter_draws["effect"].dims), parameter_draws, statistics
    )


def compute_effects(fit_tree: xr.DataTree, scale: EffectScale = "absolute") -> xr.DataArray:
    """Compute the draws of every segment's effect on a scale; dims (chain, draw, segment, arm)."""
    if _holds_effects(fit_tree, scale):
        return fit_tree[HELD_EFFECTS_GROUP].to_dataset()[scale].rename("effect")
    family, cells, parameter_draws = (
        get_fitted_family(fit_tree),
        get_fitted_cells(fit_tree),
        select_parameters(fit_tree),
    )
    if is_fitted_scale(family, scale):
        return convert_to_scale(family, parameter_draws, scale, cells).rename("effect")
    effect = parameter_draws["effect"]
    # E[y | treated] and E[y | control] of all draws at once would be four arrays of this size.
    converted_values = np.empty(effect.shape)
    draw_axis = effect.get_axis_num("draw")
    cells, parameter_draws = drop_aligned_labels(cells, parameter_draws)
    for block_slice, block_draws in split_draws(parameter_draws):
        block_effects = convert_to_scale(family, block_draws, scale, cells).transpose(*effect.dims)
        converted_values[(slice(None),) * draw_axis + (block_slice,)] = block_effects.values
    return effect.copy(data=converted_values).rename("effect")


def _holds_effects(fit_tree: xr.DataTree, scale: EffectScale) -> bool:
    return HELD_EFFECTS_GROUP in fit_tree.children and scale in fit_tree[HELD_EFFECTS_GROUP].data_vars


def hold_effects(fit_tree: xr.DataTree, scale: EffectScale) -> xr.DataTree:
    """Build a tree that holds the draws of effects on a scale: many tables of one report ask for them.

    The tree given stays as it is. The group is for computing, not for files.
    """
    if _holds_effects(fit_tree, scale):
        return fit_tree
    return add_groups(fit_tree, {HELD_EFFECTS_GROUP: compute_effects(fit_tree, scale).to_dataset(name=scale)})


def estimate_without_pooling(fit_tree: xr.DataTree, scale: EffectScale) -> xr.Dataset:
    """Estimate each segment's effect and standard error from its own data alone; dims (segment, arm).

    Of several tests it is the average of each test's own estimate, by precision: the sum of their rows would take a
    test with other shares of the arms, and another mean outcome, for an effect.
    """
    if list_test_names(fit_tree):
        return _average_tests(estimate_without_pooling(get_test_tree(fit_tree), scale), fit_tree)
    family = get_fitted_family(fit_tree)
    cell_statistics = select_model_statistics(get_fitted_cells(fit_tree), get_fitted_model(fit_tree))
    return _estimate_by_order(family, cell_statistics, scale)


def _average_tests(test_estimates: xr.Dataset, fit_tree: xr.DataTree) -> xr.Dataset:
    """Average the raw estimates of segment × test over tests, by precision; dims (segment, arm)."""
    cells, test_cells = get_fitted_cells(fit_tree), fit_tree[TEST_CELLS_GROUP].to_dataset()
    members = mark_pooled_segments(cells, test_cells)
    precision = (test_estimates["raw_se"] ** -2.0).where(np.isfinite(test_estimates["raw"])).fillna(0.0)
    weighted = (precision * test_estimates["raw"].fillna(0.0)).transpose(cell_table.SEGMENT, cell_table.ARM)
    totals = members @ precision.transpose(*weighted.dims).values
    # raw = Σ_t w_t raw_t / Σ_t w_t,   se = (Σ_t w_t)^(−1/2),   w_t = 1 / se_t²; NaN where no test has an estimate
    totals = np.where(totals > 0, totals, np.nan)
    labels = {cell_table.SEGMENT: cells[cell_table.SEGMENT], cell_table.ARM: test_estimates[cell_table.ARM]}
    raw = xr.DataArray(members @ weighted.values / totals, dims=weighted.dims, coords=labels)
    return xr.Dataset({"raw": raw, "raw_se": raw.copy(data=totals**-0.5)})


def mark_pooled_segments(cells: xr.Dataset, test_cells: xr.Dataset) -> NDArray[np.float64]:
    """Mark with 1 which cells segment × test are of a segment: (segment, segment × test)."""
    dims = cell_table.list_dimensions(cells)
    own_levels, test_levels = (
        list(zip(*(table[name].values.astype(str) for name in dims), strict=True)) for table in (cells, test_cells)
    )
    return np.array([[float(levels == own) for levels in test_levels] for own in own_levels])


def _estimate_by_order(family: Family, cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate effects from cells without their labels, and label the result."""
    raw_estimates = family.estimate_raw_effects(drop_cell_labels(cell_statistics), scale)
    control_count = cell_statistics.sizes[cell_table.ARM] - raw_estimates.sizes[cell_table.ARM]
    return raw_estimates.assign_coords(cell_statistics.isel({cell_table.ARM: slice(control_count, None)}).coords)


def estimate_plain_difference(fit_tree: xr.DataTree, scale: EffectScale) -> xr.Dataset:
    """Estimate the difference of the arms from all units together: no segments, no pooling, no covariates; dims (arm,).

    Of published estimates it is their average by the sizes of their cells. The standard error is NaN where clusters
    have rows in several segments: cells do not say how these depend on each other. Of several tests it is the average
    of each test's own difference, by precision.
    """
    if list_test_names(fit_tree):
        return _average_plain_differences(fit_tree, scale)
    family, cells = get_fitted_family(fit_tree), get_fitted_cells(fit_tree)
    plain_estimates = _estimate_by_order(family, family.select_statistics(pool_segments(cells)), scale)
    # In the order of the cells' arms, which need not be that of a rebuilt table.
    plain_estimates = plain_estimates.isel({cell_table.SEGMENT: 0}, drop=True).sel(
        {cell_table.ARM: cell_table.list_treated_arms(cells)}
    )
    if read_spanning_clusters(cells) is None:
        return plain_estimates
    return plain_estimates.assign(raw_se=xr.full_like(plain_estimates["raw_se"], np.nan))


def _average_plain_differences(fit_tree: xr.DataTree, scale: EffectScale) -> xr.Dataset:
    """Average the plain difference of the arms over tests, by precision; dims (arm,)."""
    test_tree, cells = get_test_tree(fit_tree), get_fitted_cells(fit_tree)
    test_cells = get_fitted_cells(test_tree)
    (dimension,) = set(cell_table.list_dimensions(test_cells)) - set(cell_table.list_dimensions(cells))
    differences = []
    for test in dict.fromkeys(test_cells[dimension].values.astype(str)):
        own_cells = test_cells.isel({cell_table.SEGMENT: test_cells[dimension].values.astype(str) == test})
        own_tree = add_groups(test_tree, {"cells": own_cells})
        differences.append(estimate_plain_difference(own_tree, scale))
    by_test = xr.concat(differences, dim="test")
    precision = (by_test["raw_se"] ** -2.0).where(np.isfinite(by_test["raw"]))
    total = precision.sum("test", min_count=1)
    return xr.Dataset({"raw": (precision * by_test["raw"]).sum("test") / total, "raw_se": total**-0.5})


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
