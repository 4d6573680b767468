"""Draw the effect in a segment that was not in the experiment, from the fitted distribution of segments."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte._support.validation import check_number, list_mapping_items
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.errors import ArgumentError, DataError, ModelError
from bayes_hte.estimands.effects import convert_to_scale
from bayes_hte.estimands.weights import compute_population_shares
from bayes_hte.model.coefficients import (
    SegmentPlacement,
    compute_coefficients,
    draw_offsets,
)
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.parameters import Coefficient, list_coefficients, name_term_variable
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model


def draw_new_segment_effect(
    fit_tree: xr.DataTree,
    scale: EffectScale,
    seed: int,
    *,
    where: Mapping[str, str] | None = None,
    covariates: Mapping[str, float] | None = None,
) -> xr.DataArray:
    """Draw the effect in a segment that was not in the experiment; dims (chain, draw, arm).

    Its effect and baseline come from the fitted distribution of segments; where baselines are not
    pooled, its baseline is that of a segment drawn with the population's shares.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    scale : str
    seed : int
    where : mapping, optional
        Dimension -> level, for the dimensions whose levels have effects or between-segment SDs of their own; a level
        that was not seen, or is not stated, is drawn as well.
    covariates : mapping, optional
        Covariate -> value in its own units; one that is not stated is at the mean of the segments.

    Raises
    ------
    ModelError
        If effects were not pooled: then segments say nothing about a new one.
    DataError
        If a dimension or covariate is not part of the model.
    """  # fmt: skip
    model = get_fitted_model(fit_tree)
    if model.pooling == "none":
        raise ModelError("without pooling the segments say nothing about a new one; fit with pooling = partial")
    level_items = list_mapping_items("where", {} if where is None else where, "{'device': 'mobile'}")
    covariate_items = list_mapping_items("covariates", {} if covariates is None else covariates, "{'age': 40}")
    segment_sampler = NewSegmentSampler.from_fit(
        fit_tree,
        np.random.default_rng(seed),
        {str(dimension): format_level(level) for dimension, level in level_items},
        {str(name): check_number(raw_value, f"the covariate {name!r}") for name, raw_value in covariate_items},
    )
    parameter_draws = segment_sampler.draw_coefficients()
    # Nuisance parameters are shared by all segments, so a new one has those of the fit.
    family = FAMILIES[model.family]
    if family.nuisance is not None:
        parameter_draws[family.nuisance.name] = fit_tree["posterior"].to_dataset()[family.nuisance.name]
    if family.combine_parts is not None:
        parameter_draws |= family.combine_parts(parameter_draws)
    return convert_to_scale(family, parameter_draws, scale, get_fitted_cells(fit_tree))


@dataclass(frozen=True, slots=True)
class NewSegmentSampler:
    """Sampler of a segment's coefficients from the fitted distribution of segments.

    Attributes
    ----------
    problem : Problem
        Of the fit: its segments say what a covariate of 0 and each level's position are.
    posterior : xarray.Dataset
    segment_shares : xarray.DataArray
        Shares of the segments among which one without pooling is picked; dims (segment,).
    rng : numpy.random.Generator
    stated_levels : dict
        Dimension -> level of the segment; those that are not stated are drawn.
    stated_covariates : dict
        Covariate -> value in its own units; those that are not stated are at their mean.
    """

    problem: Problem
    posterior: xr.Dataset
    segment_shares: xr.DataArray
    rng: np.random.Generator
    stated_levels: dict[str, str]
    stated_covariates: dict[str, float]

    @classmethod
    def from_fit(
        cls,
        fit_tree: xr.DataTree,
        rng: np.random.Generator,
        stated_levels: dict[str, str],
        stated_covariates: dict[str, float],
    ) -> "NewSegmentSampler":
        """Check the stated levels and covariates of a segment against a fit, and prepare its sampler."""
        cells = get_fitted_cells(fit_tree)
        problem = build_problem(cells, get_fitted_model(fit_tree))
        dimension_names = cell_table.list_dimensions(cells)
        if unknown_names := [stated_name for stated_name in stated_levels if stated_name not in dimension_names]:
            raise ArgumentError(f"no dimension {unknown_names[0]!r}; there are {dimension_names}")
        model_covariates = list(problem.model.effect.covariates)
        if unknown_names := [stated_name for stated_name in stated_covariates if stated_name not in model_covariates]:
            raise ArgumentError(f"no covariate {unknown_names[0]!r} in this model; it has {model_covariates or 'none'}")
        posterior, segment_shares = fit_tree["posterior"].to_dataset(), compute_population_shares(cells)
        return cls(problem, posterior, segment_shares, rng, stated_levels, stated_covariates)

    def draw_coefficients(self) -> dict[str, xr.DataArray]:
        """Draw effect and baseline, or those of both parts; dims (chain, draw, …) without segment."""
        coefficient_draws: dict[str, xr.DataArray] = {}
        baseline_offset: xr.DataArray | None = None
        for coefficient in reversed(list_coefficients(self.problem.model)):  # baselines first
            if coefficient.pooling == "none":
                coefficient_draws[coefficient.name] = self._draw_existing_segment(coefficient.name)
            elif coefficient.pooling == "complete":
                # The common value, which every segment has: any of them shows it.
                coefficient_draws[coefficient.name] = self.posterior[coefficient.name].isel(segment=0, drop=True)
            else:
                coefficient_draws[coefficient.name], own_offset = self._draw_coefficient(coefficient, baseline_offset)
                baseline_offset = own_offset if coefficient.dims == ("segment",) else None
        return coefficient_draws

    def _draw_coefficient(
        self, coefficient: Coefficient, baseline_offset: xr.DataArray | None
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Draw one coefficient of the segment and its own standardised offset, which a correlated coefficient needs."""
        sample_draws = self.posterior[coefficient.name].isel(segment=0, drop=True)
        sizes = {str(dim): sample_draws.sizes[dim] for dim in sample_draws.dims}
        shared_draws = {str(name): draws for name, draws in self.posterior.data_vars.items()}
        level_index: dict[str, xr.DataArray] = {}
        for term in coefficient.pool_priors.by:
            variable_name = name_term_variable(coefficient.name, term)
            shared_draws[variable_name], level_index[term] = self._find_level_effects(variable_name, term, sizes)
        if coefficient.strata is not None:
            level_index[coefficient.strata] = self._find_stratum(coefficient.strata)
        offsets = draw_offsets(coefficient.effect_priors, sizes, self.rng, baseline_offset=baseline_offset)
        placement = SegmentPlacement(level_index, self._standardise_covariates())
        return compute_coefficients(coefficient, shared_draws, offsets, placement), offsets.own

    def _find_level_effects(
        self, variable_name: str, term: str, sizes: dict[str, int]
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Find the effects of a term's levels and the segment's position; a level not stated, or new, is drawn."""
        level_effects = self.posterior[variable_name]
        level_labels = list(level_effects[term].values.astype(str))
        term_levels = [self.stated_levels.get(dimension) for dimension in term.split(":")]
        level_label = " | ".join(map(str, term_levels))
        if None not in term_levels and level_label in level_labels:
            return level_effects, xr.DataArray(level_labels.index(level_label))
        # effect of a level without a fitted one = between-level SD · standard normal
        level_offset = xr.DataArray(self.rng.standard_normal(tuple(sizes.values())), dims=tuple(sizes))
        new_effect = self.posterior[f"{variable_name}_between"] * level_offset
        return new_effect.expand_dims(term), xr.DataArray(0)

    def _find_stratum(self, strata_dimension: str) -> xr.DataArray:
        """Find the position of the segment's stratum, which must be one of the fitted."""
        stated_level = self.stated_levels.get(strata_dimension)
        stratum_labels = self.problem.coords[strata_dimension]
        if stated_level not in stratum_labels:
            raise DataError(
                f"say in which {strata_dimension} the new segment is: where={{{strata_dimension!r}: …}}; "
                f"there are {stratum_labels}"
            )
        return xr.DataArray(stratum_labels.index(stated_level))

    def _standardise_covariates(self) -> xr.DataArray:
        """Standardise the segment's covariates over the fitted segments; dims (covariate,)."""
        design = self.problem.segment_design
        # z = (x − mean) / SD over the fitted segments
        known_means = zip(self.problem.model.effect.covariates, design.covariate_means, strict=True)
        values = np.array([self.stated_covariates.get(name, mean) for name, mean in known_means])
        return xr.DataArray((values - design.covariate_means) / design.covariate_sds, dims="covariate")

    def _draw_existing_segment(self, coefficient_name: str) -> xr.DataArray:
        """Draw the coefficient of one of the fitted segments, picked with the population's shares."""
        segment_coefficients = self.posterior[coefficient_name]
        sample_shape = (segment_coefficients.sizes["chain"], segment_coefficients.sizes["draw"])
        segment_indices = xr.DataArray(
            self.rng.choice(self.segment_shares.size, size=sample_shape, p=self.segment_shares.values),
            dims=("chain", "draw"),
        )
        return segment_coefficients.isel(segment=segment_indices).drop_vars("segment")
