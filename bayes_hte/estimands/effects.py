"""Compute effects as joint draws on a stated scale from a posterior alone, without PyMC.

absolute   E[y | treated] − E[y | control]
relative   absolute / E[y | control], draw by draw: the mean of a ratio is not the ratio of means
           under a log link exp(effect) − 1, the same thing; for survival the hazard ratio less one
link       log-odds, logarithm, or the outcome itself
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.validation import describe_value, list_mapping_items, to_float
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.errors import DataError, ModelError
from bayes_hte.model.families import FAMILIES, Family
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.parameters import (
    Coefficient,
    build_segment_design,
    expand_dimensions,
    list_coefficients,
    name_term_variable,
)
from bayes_hte.model.problem import build_problem
from bayes_hte.model.pymc.pooling import DEFAULT_NU
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.model import Model

SegmentWeights = Mapping[str, float] | pd.Series


def get_fitted_model(fit_tree: xr.DataTree) -> Model:
    """Return the fitted model as its file states it."""
    return Model.model_validate_json(fit_tree.attrs["model"])


def get_fitted_cells(fit_tree: xr.DataTree) -> xr.Dataset:
    """Return the fitted cell table."""
    return fit_tree["cells"].to_dataset()


def is_from_posterior(fit_tree: xr.DataTree) -> bool:
    """Recognise draws of a model that is not known here; see `bayes_hte.from_posterior`."""
    return "own" in fit_tree.attrs


def require_known_model(fit_tree: xr.DataTree, requested_result: str) -> Model:
    """Return the fitted model, or refuse a result that needs it where only draws are known.

    Raises
    ------
    ModelError
        If only the draws of the model are known.
    """
    if is_from_posterior(fit_tree):
        raise ModelError(
            f"{requested_result} needs the model, and only draws of a model of your own are known: use ArviZ on those"
        )
    return get_fitted_model(fit_tree)


def describe_engine(fit_tree: xr.DataTree) -> str:
    """Name the engine that drew the posterior, and the reason, in one sentence."""
    return str(fit_tree.attrs["engine"]) if "engine" in fit_tree.attrs else f"Drawn by {fit_tree.attrs['sampler']}."


def get_fitted_family(fit_tree: xr.DataTree) -> Family:
    """Return the fitted outcome family."""
    return FAMILIES[get_fitted_model(fit_tree).family]


def select_parameters(fit_tree: xr.DataTree, group_name: str = "posterior") -> ParameterDraws:
    """Select the draws of a group that the likelihood needs: effect, baseline and nuisance parameters."""
    return select_likelihood_parameters(fit_tree[group_name].to_dataset())


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
    if scale == "link" or (scale == "absolute" and family.link == "identity"):
        return effect
    if not family.has_baseline:
        raise ModelError(f'scale "{scale}" needs the control\'s mean, which published estimates lack; use "absolute"')
    # E[y | treated] / E[y | control] − 1 = exp(effect) − 1 under a log link; expm1 keeps the digits of small effects.
    if scale == "relative" and family.link == "log":
        return effect.copy(data=np.expm1(effect.values))
    control_mean, treated_mean = compute_arm_means(family, parameter_draws, statistics)
    return treated_mean - control_mean if scale == "absolute" else treated_mean / control_mean - 1


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
    return convert_to_scale(
        get_fitted_family(fit_tree), select_parameters(fit_tree), scale, get_fitted_cells(fit_tree)
    ).rename("effect")


def compute_population_shares(cells: xr.Dataset, weights: SegmentWeights | None = None) -> xr.DataArray:
    """Compute each segment's share of the population; dims (segment,), sums to 1.

    Parameters
    ----------
    cells : xarray.Dataset
        The cell table.
    weights : mapping or pandas.Series, optional
        Population size of each segment by its label; by default the units of all arms together, or
        equal shares where the number of units is not known.

    Raises
    ------
    DataError
        If the weights do not name every segment, or are negative or all zero.
    """
    segment_labels = [str(label) for label in cells[cell_table.SEGMENT].values]
    if weights is not None:
        weight_by_label = _parse_weights(weights, segment_labels)
        if missing_labels := [label for label in segment_labels if label not in weight_by_label]:
            raise DataError(
                f"weights lack the segments {missing_labels[:5]}; give one number for each of {segment_labels[:5]} …"
            )
        if unknown_labels := sorted(set(weight_by_label) - set(segment_labels)):
            raise DataError(
                f"weights name segments that are not there: {unknown_labels[:5]}; there are {segment_labels[:5]} …"
            )
        segment_sizes = np.array([weight_by_label[label] for label in segment_labels])
    elif "n" in cells:
        # An arm that a segment lacks has no units there.
        segment_sizes = cells["n"].fillna(0).sum(cell_table.ARM).values.astype(float)
    else:
        segment_sizes = np.ones(len(segment_labels))
    if not np.isfinite(segment_sizes).all() or (segment_sizes < 0).any() or segment_sizes.sum() <= 0:
        raise DataError("weights must be finite, not negative, and not all zero")
    return xr.DataArray(
        segment_sizes / segment_sizes.sum(), dims=cell_table.SEGMENT, coords={cell_table.SEGMENT: segment_labels}
    )


def _parse_weights(weights: object, segment_labels: list[str]) -> dict[str, float]:
    """Read the weights of segments as numbers by label."""
    weight_items = list_mapping_items("weights", weights, str(dict.fromkeys(segment_labels[:2], 1)))
    weight_by_label = {
        format_level(label): _require_number(raw_weight, f"the weight of {label!r}")
        for label, raw_weight in weight_items
    }
    if len(weight_by_label) < len(weight_items):
        raise DataError(f"weights name a segment twice: {[label for label, _ in weight_items][:5]}; add them up")
    return weight_by_label


def _require_number(raw_value: object, value_description: str) -> float:
    """Read a number that a caller gave, or refuse it by its description."""
    parsed_number = to_float(raw_value)
    if parsed_number is None:
        raise DataError(f"{value_description} is {describe_value(raw_value)}; give a number")
    return parsed_number


def average_over_segments(effect_draws: xr.DataArray, segment_shares: xr.DataArray) -> xr.DataArray:
    """Average effects over segments with the population's shares, draw by draw: the ATE, dims (chain, draw, arm)."""
    # ATE = Σ_s share_s · effect_s
    return (effect_draws * segment_shares).sum(cell_table.SEGMENT)


def estimate_without_pooling(fit_tree: xr.DataTree, scale: EffectScale) -> xr.Dataset:
    """Estimate each segment's effect and standard error from its own data alone; dims (segment, arm)."""
    family = get_fitted_family(fit_tree)
    return family.estimate_raw_effects(family.select_statistics(get_fitted_cells(fit_tree)), scale)


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
        {str(name): _require_number(raw_value, f"the covariate {name!r}") for name, raw_value in covariate_items},
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
