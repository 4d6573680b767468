"""Pooling of one coefficient over segments: partial, none, or complete; in PyMC, and as draws from the prior.

    coefficient[s] = mean + Σ covariate[s] * slope + Σ level effect of s + between * offset[s]

offset ~ Normal(0, 1), Student's t, or Normal with a local scale (regularised horseshoe: Piironen & Vehtari 2017,
Electronic Journal of Statistics 11:5018), or tied to the baseline's offset by a correlation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayes_hte.model.parameters import (
    Coefficient,
    HyperparameterSpec,
    SegmentDesign,
    collect_hyperparameters,
    count_values,
    name_term_variable,
)
from bayes_hte.model.priors import ValueHolder, add_prior_variable, draw_prior, hold_as_constant
from bayes_hte.model.pymc import centering
from bayes_hte.model.pymc.centering import GaussianMessage
from bayes_hte.spec.distributions import Normal

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

    from bayes_hte.spec.model import Model

DEFAULT_NU = 4.0
"""Degrees of freedom of heavy tails unless stated: finite variance, and outliers ten scales away stay believable."""


@dataclass(frozen=True, slots=True)
class CoefficientBuilder:
    """Builder of PyMC variables from coefficients, inside a model context.

    Attributes
    ----------
    hyperparameters : mapping
        `structure.collect_hyperparameters` of the model.
    segment_design : SegmentDesign
    hold_value : callable
        Puts numbers into the model, as constants or as data that can be exchanged.
    segment_count : int
    """

    hyperparameters: dict[str, HyperparameterSpec]
    segment_design: SegmentDesign
    hold_value: ValueHolder
    segment_count: int

    def add_hyperparameter(self, name: str) -> "TensorVariable":
        """Add one variable that segments share."""
        hyperparameter = self.hyperparameters[name]
        return add_prior_variable(
            name, hyperparameter.prior, dims=hyperparameter.dims or None, hold_value=self.hold_value
        )

    def add_coefficient(
        self,
        coefficient: Coefficient,
        baseline_offset: "TensorVariable | None" = None,
        data_message: GaussianMessage | None = None,
    ) -> "tuple[TensorVariable, TensorVariable | None]":
        """Add the coefficient of every segment; return it, and its standard normal offset where it has one."""
        match coefficient.pooling:
            case "partial":
                return self.add_partially_pooled(coefficient, baseline_offset, data_message)
            case "none":
                return self.add_hyperparameter(coefficient.name), None
            case "complete":
                return self.add_completely_pooled(coefficient), None

    def add_partially_pooled(
        self, coefficient: Coefficient, baseline_offset: "TensorVariable | None", data_message: GaussianMessage | None
    ) -> "tuple[TensorVariable, TensorVariable]":
        """Add centre + between * offset, offset ~ Normal(0, 1), one row per segment; return it and the offset."""
        import pymc as pm

        between = self.add_hyperparameter(f"{coefficient.name}_between")
        strata_dim = coefficient.effect_priors.strata if coefficient.effect_priors is not None else None
        between_scale = between if strata_dim is None else between[self.segment_design.level_index[strata_dim]]
        if strata_dim is not None and between_scale.ndim < len(coefficient.dims):
            between_scale = between_scale[:, None]  # one SD for all arms
        centre = self.add_centre(coefficient, between_scale, data_message)
        deviation, offset = self.add_deviation(coefficient, centre, between_scale, baseline_offset, data_message)

        return pm.Deterministic(coefficient.name, centre + deviation, dims=coefficient.dims), offset

    def add_centre(self, coefficient: Coefficient, between_scale: Any, data_message: GaussianMessage | None) -> Any:
        """Add what segments are pooled around: common mean, covariates' slopes and levels' effects."""
        import pymc as pm

        # centre[s] = mean + Σ covariate[s] slope + Σ_terms between_term offset_term[level of s]
        name, centre = coefficient.name, 0.0
        if f"{name}_mean" in self.hyperparameters:
            centre = self.add_common_mean(coefficient, between_scale, data_message)
        if f"{name}_slope" in self.hyperparameters:
            slope = self.add_hyperparameter(f"{name}_slope")
            centre = centre + self.hold_value(f"{name}_covariates", self.segment_design.standardised_covariates) @ slope
        for term in coefficient.pool_priors.by:
            variable_name = name_term_variable(name, term)
            level_dims = (term, *coefficient.dims[1:])
            level_between = self.add_hyperparameter(f"{variable_name}_between")
            level_offset = pm.Normal(f"{variable_name}_offset", dims=level_dims)
            level_effect = pm.Deterministic(variable_name, level_between * level_offset, dims=level_dims)
            centre = centre + level_effect[self.segment_design.level_index[term]]
        return centre

    def add_common_mean(
        self, coefficient: Coefficient, between_scale: Any, data_message: GaussianMessage | None
    ) -> "TensorVariable":
        """Add the common mean; in coordinates that follow the data where segments differ from it in one way only."""
        import pymc as pm

        mean_name, hyperparameter = f"{coefficient.name}_mean", self.hyperparameters[f"{coefficient.name}_mean"]
        prior = hyperparameter.prior
        # Levels and slopes move segments too, and a horseshoe's scales differ between segments: the message about the
        # mean would depend on all of these.
        is_plain = not coefficient.pool_priors.by and f"{coefficient.name}_slope" not in self.hyperparameters
        has_horseshoe = coefficient.effect_priors is not None and coefficient.effect_priors.shape == "horseshoe"
        if data_message is None or not is_plain or has_horseshoe or not isinstance(prior, Normal):
            return self.add_hyperparameter(mean_name)
        prior_mu = self.hold_value(f"{mean_name}_mu", prior.mu)
        prior_sigma = self.hold_value(f"{mean_name}_sigma", prior.sigma)
        mean_message = data_message.combine_to_common_mean(between_scale)
        mean_offset = centering.add_informed_offset(
            f"{mean_name}_offset", mean_message, prior_mu, prior_sigma, dims=hyperparameter.dims or None
        )
        return pm.Deterministic(mean_name, prior_mu + prior_sigma * mean_offset, dims=hyperparameter.dims or None)

    def add_offset(
        self,
        coefficient: Coefficient,
        centre: Any,
        between_scale: Any,
        data_message: GaussianMessage | None,
        nu: Any = None,
    ) -> "TensorVariable":
        """Add a standard offset of every segment, normal or Student's t with `nu` degrees of freedom."""
        import pymc as pm

        offset_name = f"{coefficient.name}_offset"
        if data_message is not None:
            return centering.add_informed_offset(
                offset_name, data_message, centre, between_scale, dims=coefficient.dims, nu=nu
            )
        if nu is None:
            return pm.Normal(offset_name, dims=coefficient.dims)
        return pm.StudentT(offset_name, nu=nu, dims=coefficient.dims)

    def add_deviation(
        self,
        coefficient: Coefficient,
        centre: Any,
        between_scale: Any,
        baseline_offset: "TensorVariable | None",
        data_message: GaussianMessage | None,
    ) -> "tuple[Any, TensorVariable]":
        """Add the deviation of every segment from its centre; return it, and its standard offset."""
        import pymc as pm

        name, dims, effect_priors = coefficient.name, coefficient.dims, coefficient.effect_priors
        effect_shape = "normal" if effect_priors is None else effect_priors.shape
        if effect_priors is not None and effect_shape == "student_t":
            nu = self.hold_value(f"{name}_nu", effect_priors.nu or DEFAULT_NU)
            offset = self.add_offset(coefficient, centre, between_scale, data_message, nu)
            return between_scale * offset, offset
        if effect_priors is not None and effect_shape == "horseshoe":
            # scale = slab w / √(slab² + w²),   w = between λ,   λ ~ HalfCauchy(1): large λ leave the slab's SD
            local_scale = pm.HalfCauchy(f"{name}_local_offset", beta=1.0, dims=dims)
            slab_scale = self.hold_value(f"{name}_slab", effect_priors.slab)
            wide_scale = between_scale * local_scale
            between_scale = pm.Deterministic(
                f"{name}_local", slab_scale * wide_scale / (slab_scale**2 + wide_scale**2) ** 0.5, dims=dims
            )
        if f"{name}_correlation" in self.hyperparameters and baseline_offset is not None:
            # offset = ρ baseline offset + √(1 − ρ²) own offset
            rho = self.add_hyperparameter(f"{name}_correlation")
            tied_offset, untied_share = rho * baseline_offset[:, None], (1 - rho**2) ** 0.5
            own_centre, own_scale = centre + between_scale * tied_offset, between_scale * untied_share
            offset = tied_offset + untied_share * self.add_offset(coefficient, own_centre, own_scale, data_message)
        else:
            offset = self.add_offset(coefficient, centre, between_scale, data_message)
        return between_scale * offset, offset

    def add_completely_pooled(self, coefficient: Coefficient) -> "TensorVariable":
        """Add one value for all segments."""
        import pymc as pm
        import pytensor.tensor as pt

        common_mean = self.add_hyperparameter(f"{coefficient.name}_mean")

        segment_zeros = pt.zeros((self.segment_count, *[1] * len(coefficient.dims[1:])))
        return pm.Deterministic(coefficient.name, segment_zeros + common_mean, dims=coefficient.dims)


def prepare_builder(
    model: "Model", segment_design: SegmentDesign, segment_count: int, hold_value: ValueHolder = hold_as_constant
) -> CoefficientBuilder:
    """Prepare the builder of one model's coefficients."""
    return CoefficientBuilder(collect_hyperparameters(model), segment_design, hold_value, segment_count)


@dataclass(frozen=True, slots=True)
class PriorSampler:
    """Sampler of a structure's prior, with NumPy; all arrays start with (draw,).

    Attributes
    ----------
    hyperparameters : mapping
        `structure.collect_hyperparameters` of the model.
    segment_design : SegmentDesign
    coords : dict
        Labels of every dim.
    draw_count : int
    rng : numpy.random.Generator
    """

    hyperparameters: dict[str, HyperparameterSpec]
    segment_design: SegmentDesign
    coords: dict[str, list[str]]
    draw_count: int
    rng: np.random.Generator

    def draw_all(self, coefficients: list[Coefficient]) -> dict[str, xr.DataArray]:
        """Draw every hyperparameter, and every coefficient of every segment; dims (chain, draw, …)."""
        draws_by_name = {
            name: draw_prior(
                hyperparameter.prior, (self.draw_count, *self._measure_shape(hyperparameter.dims)), self.rng
            )
            for name, hyperparameter in self.hyperparameters.items()
        }
        for name, hyperparameter in self.hyperparameters.items():
            if hyperparameter.is_ordered:
                draws_by_name[name] = np.sort(draws_by_name[name], axis=-1)
        dims_by_name = {name: hyperparameter.dims for name, hyperparameter in self.hyperparameters.items()}
        offsets_by_name: dict[str, np.ndarray] = {}
        # Baselines first, which have fewer dims: effects may be tied to their offsets.
        for coefficient in sorted(coefficients, key=lambda each: len(each.dims)):
            if coefficient.pooling == "none":
                continue
            draws_by_name |= self._draw_coefficient(coefficient, draws_by_name, offsets_by_name)
            dims_by_name |= {coefficient.name: coefficient.dims} | {
                name_term_variable(coefficient.name, term): (term, *coefficient.dims[1:])
                for term in coefficient.pool_priors.by
            }
        return {
            name: xr.DataArray(
                each[None],
                dims=("chain", "draw", *dims_by_name[name]),
                coords={dim: self.coords[dim] for dim in dims_by_name[name]},
            )
            for name, each in draws_by_name.items()
        }

    def _measure_shape(self, dims: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(count_values((dim,), self.coords) for dim in dims)

    def _draw_coefficient(
        self, coefficient: Coefficient, draws_by_name: dict[str, np.ndarray], offsets_by_name: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        name, coefficient_shape = coefficient.name, self._measure_shape(coefficient.dims)
        coefficient_draws: dict[str, np.ndarray] = {}
        centre = np.zeros((self.draw_count, *coefficient_shape))
        if f"{name}_mean" in draws_by_name:
            centre = centre + draws_by_name[f"{name}_mean"][:, None]
        if coefficient.pooling == "complete":
            return {name: centre}
        if f"{name}_slope" in draws_by_name:
            centre = centre + np.einsum(
                "sc,dca->dsa", self.segment_design.standardised_covariates, draws_by_name[f"{name}_slope"]
            )
        # centre[s] = mean + Σ covariate[s] slope + Σ_terms between_term offset_term[level of s]
        for term in coefficient.pool_priors.by:
            variable_name = name_term_variable(name, term)
            level_shape = (len(self.coords[term]), *coefficient_shape[1:])
            level_scale = _widen_scale(draws_by_name[f"{variable_name}_between"], len(level_shape))
            coefficient_draws[variable_name] = level_scale * self.rng.standard_normal((self.draw_count, *level_shape))
            centre = centre + coefficient_draws[variable_name][:, self.segment_design.level_index[term]]
        effect_priors = coefficient.effect_priors
        between_scale = draws_by_name[f"{name}_between"]
        if effect_priors is not None and effect_priors.strata:
            between_scale = between_scale[:, self.segment_design.level_index[effect_priors.strata]]
            between_scale = between_scale if between_scale.ndim == centre.ndim else between_scale[..., None]
        else:
            between_scale = _widen_scale(between_scale, len(coefficient_shape))
        offset = self.rng.standard_normal((self.draw_count, *coefficient_shape))
        offsets_by_name[name] = offset
        if effect_priors is not None and effect_priors.shape == "student_t":
            offset = self.rng.standard_t(effect_priors.nu or DEFAULT_NU, offset.shape)
        if effect_priors is not None and effect_priors.shape == "horseshoe" and effect_priors.slab is not None:
            # scale = slab w / √(slab² + w²),   w = between λ,   λ ~ HalfCauchy(1)
            wide_scale = between_scale * np.abs(self.rng.standard_cauchy(offset.shape))
            between_scale = effect_priors.slab * wide_scale / np.hypot(effect_priors.slab, wide_scale)
        if f"{name}_correlation" in draws_by_name:
            # offset = ρ baseline offset + √(1 − ρ²) own offset
            rho = draws_by_name[f"{name}_correlation"][:, None]
            baseline_offset = offsets_by_name[name.replace("effect", "baseline")]
            offset = rho * baseline_offset[..., None] + np.sqrt(1 - rho**2) * offset
        return coefficient_draws | {name: centre + between_scale * offset}


def _widen_scale(scale_draws: np.ndarray, dim_count: int) -> np.ndarray:
    """Add a segment axis to a scale (draw,) or (draw, arm), for multiplication with (draw, segment[, arm])."""
    if scale_draws.ndim == dim_count:
        return scale_draws[:, None]
    return scale_draws.reshape(len(scale_draws), *[1] * dim_count)


def draw_from_prior(
    model: "Model",
    segment_design: SegmentDesign,
    coords: dict[str, list[str]],
    coefficients: list[Coefficient],
    *,
    draw_count: int,
    rng: np.random.Generator,
) -> dict[str, xr.DataArray]:
    """Draw all parameters of a model from their prior; dims (chain, draw, …) with one chain."""
    return PriorSampler(collect_hyperparameters(model), segment_design, coords, draw_count, rng).draw_all(coefficients)
