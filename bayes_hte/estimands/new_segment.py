"""Draw the effect in a segment that was not in the experiment, from the fitted distribution of segments."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte._support.validation import check_number, list_mapping_items
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.errors import DataError, ModelError
from bayes_hte.estimands.effects import (
    convert_to_scale,
    get_fitted_cells,
    get_fitted_model,
)
from bayes_hte.estimands.weights import compute_population_shares
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.parameters import (
    Coefficient,
    build_segment_design,
    list_coefficients,
    name_term_variable,
)
from bayes_hte.model.problem import build_problem
from bayes_hte.model.pymc.pooling import DEFAULT_NU
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.model import Model


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
    """Sampler of a segment's coefficients from the fitted distribution of segments."""

    model: Model
    posterior: xr.Dataset
    cells: xr.Dataset
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
        # The problem's model spells out the dimensions that the stated one leaves to the cells.
        model = build_problem(cells, get_fitted_model(fit_tree)).model
        dimension_names = cell_table.list_dimensions(cells)
        if unknown_names := [stated_name for stated_name in stated_levels if stated_name not in dimension_names]:
            raise DataError(f"no dimension {unknown_names[0]!r}; there are {dimension_names}")
        model_covariates = list(model.effect.covariates)
        if unknown_names := [stated_name for stated_name in stated_covariates if stated_name not in model_covariates]:
            raise DataError(f"no covariate {unknown_names[0]!r} in this model; it has {model_covariates or 'none'}")
        return cls(model, fit_tree["posterior"].to_dataset(), cells, rng, stated_levels, stated_covariates)

    def draw_coefficients(self) -> dict[str, xr.DataArray]:
        """Draw effect and baseline, or those of both parts; dims (chain, draw, …) without segment."""
        coefficient_draws: dict[str, xr.DataArray] = {}
        baseline_offset: xr.DataArray | None = None
        for coefficient in reversed(list_coefficients(self.model)):  # baselines first
            if coefficient.pooling == "none":
                coefficient_draws[coefficient.name] = self._draw_existing_segment(coefficient.name)
            else:
                coefficient_draws[coefficient.name], segment_offset = self._draw_coefficient(
                    coefficient, baseline_offset
                )
                baseline_offset = segment_offset if coefficient.name.endswith("baseline") else None
        return coefficient_draws

    def _draw_coefficient(
        self, coefficient: Coefficient, baseline_offset: xr.DataArray | None
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Draw one coefficient of the segment and its standardised offset, which a correlated coefficient needs.

        coefficient = mean + Σ slope · z + Σ level effects + between SD · offset
        """
        coefficient_name, posterior = coefficient.name, self.posterior
        segment_template = posterior[coefficient.name].isel(segment=0, drop=True)
        coefficient_centre: xr.DataArray = (
            posterior[f"{coefficient_name}_mean"]
            if f"{coefficient_name}_mean" in posterior.data_vars
            else 0.0 * segment_template
        )
        if coefficient.pooling == "complete":
            return coefficient_centre, 0.0 * segment_template
        if f"{coefficient_name}_slope" in posterior.data_vars:
            segment_design = build_segment_design(self.model, self.cells)
            known_means = zip(self.model.effect.covariates, segment_design.covariate_means, strict=True)
            covariate_values = [self.stated_covariates.get(name, mean) for name, mean in known_means]
            # z = (x − mean) / SD over the fitted segments
            standardised_covariates = xr.DataArray(
                (np.array(covariate_values) - segment_design.covariate_means) / segment_design.covariate_sds,
                dims="covariate",
            )
            coefficient_centre = coefficient_centre + (
                posterior[f"{coefficient_name}_slope"].reset_coords(drop=True) * standardised_covariates
            ).sum("covariate")
        for term in coefficient.pool_priors.by:
            coefficient_centre = coefficient_centre + self._draw_level_effect(coefficient_name, term, segment_template)
        segment_offset = self._draw_offset(segment_template, coefficient)
        # effect = centre + between SD · offset, the non-centred form of the model
        between_sd = self._draw_between_sd(coefficient, segment_template)
        correlation = posterior.data_vars.get(f"{coefficient_name}_correlation")
        if correlation is not None and baseline_offset is not None:
            # ρ z_baseline + √(1 − ρ²) z: the offset's own variance stays 1
            segment_offset = correlation * baseline_offset + (1 - correlation**2) ** 0.5 * segment_offset
        return (coefficient_centre + between_sd * segment_offset).transpose(*segment_template.dims), segment_offset

    def _draw_offset(self, segment_template: xr.DataArray, coefficient: Coefficient) -> xr.DataArray:
        """Draw the segment's deviation from its centre in between-segment SDs: normal or Student t."""
        effect_spec = coefficient.effect_priors
        if effect_spec is not None and effect_spec.shape == "student_t":
            return segment_template.copy(data=self.rng.standard_t(effect_spec.nu or DEFAULT_NU, segment_template.shape))
        return segment_template.copy(data=self.rng.standard_normal(segment_template.shape))

    def _draw_between_sd(self, coefficient: Coefficient, segment_template: xr.DataArray) -> xr.DataArray:
        """Draw the between-segment SD that applies to the segment: its stratum's, or a horseshoe's own scale."""
        between_sd, effect_spec = self.posterior[f"{coefficient.name}_between"], coefficient.effect_priors
        if effect_spec is None:
            return between_sd
        if effect_spec.strata is not None:
            stated_level = self.stated_levels.get(effect_spec.strata)
            stratum_labels = [str(label) for label in between_sd[effect_spec.strata].values]
            if stated_level not in stratum_labels:
                raise DataError(
                    f"say in which {effect_spec.strata} the new segment is: where={{{effect_spec.strata!r}: …}}; "
                    f"there are {stratum_labels}"
                )
            between_sd = between_sd.sel({effect_spec.strata: stated_level}, drop=True)
        if effect_spec.shape == "horseshoe" and effect_spec.slab is not None:
            # Regularised horseshoe: λ ~ C⁺(0, 1), own SD = c λτ / √(c² + λ²τ²), at most the slab's width c
            unbounded_scale = between_sd * segment_template.copy(
                data=np.abs(self.rng.standard_cauchy(segment_template.shape))
            )
            between_sd = effect_spec.slab * unbounded_scale / (effect_spec.slab**2 + unbounded_scale**2) ** 0.5
        return between_sd

    def _draw_level_effect(self, coefficient_name: str, term: str, segment_template: xr.DataArray) -> xr.DataArray:
        """Draw the effect of a term's level: as fitted where it is stated and was seen, else from its distribution."""
        level_effects = self.posterior[name_term_variable(coefficient_name, term)]
        term_levels = [self.stated_levels.get(dimension) for dimension in term.split(":")]
        known_levels = [level for level in term_levels if level is not None]
        level_label = " | ".join(known_levels) if None not in term_levels else None
        if level_label is not None and level_label in level_effects[term].values.astype(str):
            return level_effects.sel({term: level_label}, drop=True)
        # A level without a fitted effect: between SD of the levels · standard normal
        return self.posterior[f"{name_term_variable(coefficient_name, term)}_between"] * segment_template.copy(
            data=self.rng.standard_normal(segment_template.shape)
        )

    def _draw_existing_segment(self, coefficient_name: str) -> xr.DataArray:
        """Draw the coefficient of one of the fitted segments, picked with the population's shares."""
        segment_coefficients, segment_shares = self.posterior[coefficient_name], compute_population_shares(self.cells)
        sample_shape = (segment_coefficients.sizes["chain"], segment_coefficients.sizes["draw"])
        segment_indices = xr.DataArray(
            self.rng.choice(segment_shares.size, size=sample_shape, p=segment_shares.values), dims=("chain", "draw")
        )
        return segment_coefficients.isel(segment=segment_indices).drop_vars("segment")
