"""Add the coefficients of segments to a PyMC model: pooled partially, not at all, or completely.

The structure is that of `model.coefficients`, as a graph of random variables. Where every cell's likelihood has a
normal approximation, what is sampled are coordinates that follow it (`whitening`, `centering`); the model is the same.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayes_hte.model.coefficients import regularise_scale, split_offset
from bayes_hte.model.normal_scores import compute_from_scores, has_score_formula
from bayes_hte.model.parameters import Coefficient, HyperparameterSpec, SegmentDesign, name_term_variable
from bayes_hte.model.priors import ValueHolder, add_prior_variable
from bayes_hte.model.pymc.centering import GaussianMessage, SegmentSites, add_informed_offset
from bayes_hte.model.pymc.linear_terms import BETWEEN_SCORE, BetweenScales, LinearTerm
from bayes_hte.spec.distributions import Distribution, Normal

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


@dataclass(frozen=True, slots=True)
class PooledCoefficient:
    """A coefficient as far as it can be added before what is normal given the SDs.

    Attributes
    ----------
    coefficient : Coefficient
    known_part : number or variable
        What is added to terms and offset: parts of the centre with other priors, or the whole coefficient where
        segments do not differ from it by an offset. Broadcasts with the coefficient.
    between_scale : number or variable
        Scale of the offset; broadcasts with the coefficient. 0 where there is none.
    correlation : variable or None
        Of the offset with that of the baseline.
    terms : tuple of LinearTerm
        Parts of the centre with a normal prior, to be whitened.
    """

    coefficient: Coefficient
    known_part: Any
    between_scale: Any = 0.0
    correlation: Any = None
    terms: tuple[LinearTerm, ...] = ()

    @property
    def has_offset(self) -> bool:
        """Whether segments differ from what is known by an offset."""
        return self.coefficient.pooling == "partial"

    def split_scale(self) -> tuple[Any, Any]:
        """Split the scale of the offset into what a baseline's offset of 1 adds, and the scale of what is left."""
        if self.correlation is None:
            return 0.0, self.between_scale
        tied_offset, own_factor = split_offset(1.0, self.correlation)
        return self.between_scale * tied_offset, self.between_scale * own_factor


@dataclass(frozen=True, slots=True)
class CoefficientBuilder:
    """Builder of PyMC variables from coefficients, inside a model context.

    Attributes
    ----------
    hyperparameters : mapping
        `parameters.collect_hyperparameters` of the model.
    segment_design : SegmentDesign
    hold_value : callable
        Puts numbers into the model, as constants or as data that can be exchanged.
    segment_count, arm_count : int
        Arms with an effect.
    cell_message : GaussianMessage or None
        About linear predictors, (segment, cell): the control's cell first where there is a baseline, then those of the
        arms. With it, coordinates follow the data.
    between_scales : BetweenScales or None
        SDs that are there already, as normal scores of their priors.
    """

    hyperparameters: dict[str, HyperparameterSpec]
    segment_design: SegmentDesign
    hold_value: ValueHolder
    segment_count: int
    arm_count: int
    cell_message: GaussianMessage | None = None
    between_scales: BetweenScales | None = None

    def add_hyperparameter(self, name: str) -> "TensorVariable":
        """Add one variable that segments share, unless it is there already."""
        if self.between_scales is not None and name in self.between_scales.values:
            return self.between_scales.values[name]
        hyperparameter = self.hyperparameters[name]
        return add_prior_variable(
            name, hyperparameter.prior, dims=hyperparameter.dims or None, hold_value=self.hold_value
        )

    def add_coefficients(self, baseline: Coefficient | None, effect: Coefficient) -> "dict[str, TensorVariable]":
        """Add the coefficients of every segment; return them by name."""
        # SDs first, then what is normal given these: what segments share, baselines, effects.
        pooled_baseline = None if baseline is None else self.add_pooled(baseline)
        pooled_effect = self.add_pooled(effect)
        baseline_centre, effect_centre, baseline_message = 0.0, 0.0, None
        if self.cell_message is not None and self.between_scales is not None:
            sites = self.prepare_sites(pooled_baseline, pooled_effect, self.cell_message)
            baseline_centre, effect_centre = self.add_shared(pooled_baseline, pooled_effect, sites, self.between_scales)
            if pooled_baseline is not None:
                cell_centres = self.spread_over_cells(baseline_centre, effect_centre)
                baseline_message = sites.describe_baseline(cell_centres)
        values: dict[str, TensorVariable] = {}
        baseline_value, baseline_offset = None, None
        if pooled_baseline is not None:
            baseline_value, baseline_offset = self.add_baseline(pooled_baseline, baseline_centre, baseline_message)
            values[pooled_baseline.coefficient.name] = baseline_value
        values[effect.name] = self.add_effect(pooled_effect, effect_centre, baseline_value, baseline_offset)
        return values

    def add_pooled(self, coefficient: Coefficient) -> PooledCoefficient:
        """Add the SDs of a coefficient, or the whole of one that is not partially pooled."""
        if coefficient.pooling == "none":
            return PooledCoefficient(coefficient, self.add_hyperparameter(coefficient.name))
        if coefficient.pooling == "complete":
            return PooledCoefficient(coefficient, self.add_completely_pooled(coefficient))
        correlation = None
        if f"{coefficient.name}_correlation" in self.hyperparameters:
            correlation = self.add_hyperparameter(f"{coefficient.name}_correlation")
        between_scale = self.add_between_scale(coefficient)
        known_part, terms = self.add_centre_parts(coefficient)
        return PooledCoefficient(coefficient, known_part, between_scale, correlation, terms)

    def add_between_scale(self, coefficient: Coefficient) -> Any:
        """Add the scale of every segment's offset: its stratum's between-segment SD, or a horseshoe's local scale."""
        import pymc as pm

        name, dims, strata = coefficient.name, coefficient.dims, coefficient.strata
        between = self.add_hyperparameter(f"{name}_between")
        between_scale = between if strata is None else between[self.segment_design.level_index[strata]]
        if strata is not None and between_scale.ndim < len(dims):
            between_scale = between_scale[:, None]  # one SD for all arms
        if coefficient.effect_priors is None or coefficient.shape != "horseshoe":
            return between_scale
        # w = between λ,   λ ~ HalfCauchy(1): large λ leave the slab's SD
        local_scale = pm.HalfCauchy(f"{name}_local_offset", beta=1.0, dims=dims)
        slab_scale = self.hold_value(f"{name}_slab", coefficient.effect_priors.slab)
        return pm.Deterministic(f"{name}_local", regularise_scale(between_scale * local_scale, slab_scale), dims=dims)

    def add_centre_parts(self, coefficient: Coefficient) -> tuple[Any, tuple[LinearTerm, ...]]:
        """Add common mean, slopes and levels' effects; of those that are to be whitened, what their priors need."""
        # centre[s] = mean + Σ covariate[s] slope + Σ_terms between_term offset_term[level of s]
        name, known_part, whitened_terms = coefficient.name, 0.0, list[LinearTerm]()
        if f"{name}_mean" in self.hyperparameters:
            if self.is_whitened(f"{name}_mean"):
                whitened_terms.append(self.prepare_normal_term(f"{name}_mean"))
                known_part = whitened_terms[-1].prior_centre
            else:
                known_part = self.add_hyperparameter(f"{name}_mean")
        if f"{name}_slope" in self.hyperparameters:
            covariates = self.hold_value(f"{name}_covariates", self.segment_design.standardised_covariates)
            if self.is_whitened(f"{name}_slope"):
                whitened_terms.append(self.prepare_normal_term(f"{name}_slope", covariates))
                known_part = known_part + whitened_terms[-1].prior_centre
            else:
                # (segment, covariate) @ (covariate, arm)
                known_part = known_part + covariates @ self.add_hyperparameter(f"{name}_slope")
        for term in coefficient.pool_priors.by:
            level_term = self.prepare_levels(coefficient, term)
            if self.cell_message is None:
                known_part = known_part + self.add_levels(level_term)[level_term.level_index]
            else:
                whitened_terms.append(level_term)
        return known_part, tuple(whitened_terms)

    def is_whitened(self, name: str) -> bool:
        """Tell whether a mean or slopes are whitened: their prior has to be normal."""
        return self.cell_message is not None and isinstance(self.hyperparameters[name].prior, Normal)

    def prepare_normal_term(self, name: str, covariates: Any = None) -> LinearTerm:
        """Prepare a mean or slopes with a normal prior."""
        prior, dims = self.hyperparameters[name].prior, self.hyperparameters[name].dims
        mu, sigma = (self.hold_value(f"{name}_{key}", getattr(prior, key)) for key in ("mu", "sigma"))
        column_count = 1 if covariates is None else self.segment_design.standardised_covariates.shape[1]
        return LinearTerm(name, dims, mu, sigma, column_count, covariates=covariates)

    def prepare_levels(self, coefficient: Coefficient, term: str) -> LinearTerm:
        """Prepare the effects of a term's levels: add their SD."""
        variable_name = name_term_variable(coefficient.name, term)
        level_between = self.add_hyperparameter(f"{variable_name}_between")
        level_index, level_count = self.segment_design.level_index[term], len(self.segment_design.level_labels[term])
        scale_positions = None
        if self.between_scales is not None:
            scale_positions = self.between_scales.positions.get(f"{variable_name}_between")
        return LinearTerm(
            variable_name,
            (term, *coefficient.dims[1:]),
            prior_mean=0.0,
            prior_scale=level_between,
            column_count=level_count,
            level_index=level_index,
            scale_positions=scale_positions,
        )

    def add_levels(self, level_term: LinearTerm) -> "TensorVariable":
        """Add the effects of a term's levels: their SD times standard normal offsets."""
        import pymc as pm

        level_offset = pm.Normal(f"{level_term.variable_name}_offset", dims=level_term.dims)
        return pm.Deterministic(level_term.variable_name, level_term.prior_scale * level_offset, dims=level_term.dims)

    def prepare_sites(
        self, baseline: PooledCoefficient | None, effect: PooledCoefficient, cell_message: GaussianMessage
    ) -> SegmentSites:
        """Prepare the messages of the cells: subtract what is known, and say what offsets add."""
        effect_loading, effect_scale = effect.split_scale()
        if baseline is None:
            zeros, known_part = self.spread_over_cells(None, 0.0), self.spread_over_cells(None, effect.known_part)
            return SegmentSites(cell_message.without(known_part), self.spread_over_cells(None, effect_scale), zeros)
        return SegmentSites(
            cell_message.without(self.spread_over_cells(baseline.known_part, effect.known_part)),
            own_scale=self.spread_over_cells(0.0, effect_scale),
            loading=self.spread_over_cells(baseline.between_scale, effect_loading),
        )

    def spread_over_cells(self, baseline_part: Any, effect_part: Any) -> Any:
        """Add baseline and effect in every cell, (segment, cell); the control has no effect, and None no baseline."""
        import pytensor.tensor as pt

        effect_by_cell = np.zeros((self.segment_count, self.arm_count)) + effect_part
        if baseline_part is None:
            return effect_by_cell
        baseline_by_segment = np.zeros(self.segment_count) + baseline_part
        control_zeros = np.zeros((self.segment_count, 1))
        return baseline_by_segment[:, None] + pt.concatenate([control_zeros, effect_by_cell], axis=1)

    def add_shared(
        self,
        baseline: PooledCoefficient | None,
        effect: PooledCoefficient,
        sites: SegmentSites,
        between_scales: BetweenScales,
    ) -> tuple[Any, Any]:
        """Add the whitened terms; return their sums for baseline and effect, less their prior means."""
        from bayes_hte.model.pymc.whitening import add_whitened_terms

        has_baseline = baseline is not None
        baseline_terms = () if baseline is None else baseline.terms
        arm_positions = tuple(range(has_baseline, has_baseline + self.arm_count))
        placed_terms = [(term, (0,)) for term in baseline_terms] + [(term, arm_positions) for term in effect.terms]
        if not placed_terms:
            return 0.0, 0.0
        shape = (self.segment_count, has_baseline + self.arm_count)
        centres = add_whitened_terms(placed_terms, between_scales, sites, shape, has_baseline=has_baseline)
        # (coefficient, segment): the baseline's first
        return centres[0] if has_baseline else 0.0, centres[int(has_baseline) :].T

    def add_baseline(
        self, baseline: PooledCoefficient, shared_centre: Any, offset_message: GaussianMessage | None
    ) -> "tuple[TensorVariable, TensorVariable | None]":
        """Add the baseline of every segment; return it, and its offset where it has one."""
        import pymc as pm

        if not baseline.has_offset:
            return baseline.known_part, None
        name, dims = baseline.coefficient.name, baseline.coefficient.dims
        if offset_message is None:
            offset = pm.Normal(f"{name}_offset", dims=dims)
        else:
            offset = add_informed_offset(f"{name}_offset", offset_message, 0.0, 1.0, dims=dims)
        centre = baseline.known_part + shared_centre
        return pm.Deterministic(name, centre + baseline.between_scale * offset, dims=dims), offset

    def add_effect(
        self,
        effect: PooledCoefficient,
        shared_centre: Any,
        baseline_value: "TensorVariable | None",
        baseline_offset: "TensorVariable | None",
    ) -> "TensorVariable":
        """Add the effect of every segment and arm, given the baselines."""
        import pymc as pm

        if not effect.has_offset:
            return effect.known_part
        name, dims = effect.coefficient.name, effect.coefficient.dims
        loading, own_scale = effect.split_scale()
        own_centre = effect.known_part + shared_centre
        if effect.correlation is not None and baseline_offset is not None:
            own_centre = own_centre + loading * baseline_offset[:, None]
        own_offset = self.add_effect_offset(effect, own_centre, own_scale, baseline_value)
        return pm.Deterministic(name, own_centre + own_scale * own_offset, dims=dims)

    def add_effect_offset(
        self, effect: PooledCoefficient, own_centre: Any, own_scale: Any, baseline_value: "TensorVariable | None"
    ) -> "TensorVariable":
        """Add a standard offset of every segment and arm, normal or Student's t."""
        import pymc as pm

        name, dims, effect_priors = (
            f"{effect.coefficient.name}_offset",
            effect.coefficient.dims,
            effect.coefficient.effect_priors,
        )
        nu = None
        if effect_priors is not None and effect_priors.shape == "student_t":
            nu = self.hold_value(f"{effect.coefficient.name}_nu", effect_priors.tail_nu)
        if self.cell_message is not None:
            effect_message = self.cell_message
            if baseline_value is not None:
                effect_message = effect_message.select_treated().without(baseline_value[:, None])
            return add_informed_offset(name, effect_message, own_centre, own_scale, dims=dims, nu=nu)
        return pm.Normal(name, dims=dims) if nu is None else pm.StudentT(name, nu=nu, dims=dims)

    def add_completely_pooled(self, coefficient: Coefficient) -> "TensorVariable":
        """Add one value for all segments."""
        import pymc as pm
        import pytensor.tensor as pt

        common_mean = self.add_hyperparameter(f"{coefficient.name}_mean")

        segment_zeros = pt.zeros((self.segment_count, *[1] * len(coefficient.dims[1:])))
        return pm.Deterministic(coefficient.name, segment_zeros + common_mean, dims=coefficient.dims)


def add_between_scales(
    hyperparameters: Mapping[str, HyperparameterSpec], coords: Mapping[str, list[str]], hold_value: ValueHolder
) -> BetweenScales:
    """Add all between-segment SDs as normal scores of their priors, where these have a formula."""
    import pymc as pm

    positions: dict[str, NDArray[np.intp]] = {}
    # One vector for all: the time to compile grows with the number of variables.
    priors = list[Distribution]()
    for name, hyperparameter in hyperparameters.items():
        if name.endswith("_between") and has_score_formula(hyperparameter.prior):
            shape = tuple(len(coords[dim]) for dim in hyperparameter.dims)
            value_count = math.prod(shape)
            positions[name] = len(priors) + np.arange(value_count).reshape(shape)
            priors += [hyperparameter.prior] * value_count
    if not priors:
        return BetweenScales(np.zeros(0), {}, {})
    vector = compute_from_scores(priors, pm.Normal(BETWEEN_SCORE, shape=len(priors)), hold_value)
    values = {
        name: pm.Deterministic(name, vector[at if at.ndim else int(at)], dims=hyperparameters[name].dims or None)
        for name, at in positions.items()
    }
    return BetweenScales(vector, positions, values)
