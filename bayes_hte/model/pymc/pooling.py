"""Add one coefficient of segments to a PyMC model: pooled partially, not at all, or completely.

The structure is that of `model.coefficients`, as a graph of random variables.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayes_hte.model.coefficients import regularise_scale, split_offset
from bayes_hte.model.parameters import (
    Coefficient,
    HyperparameterSpec,
    SegmentDesign,
    collect_hyperparameters,
    name_term_variable,
)
from bayes_hte.model.priors import ValueHolder, add_prior_variable, hold_as_constant
from bayes_hte.model.pymc import centering
from bayes_hte.model.pymc.centering import GaussianMessage
from bayes_hte.spec.distributions import Normal

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

    from bayes_hte.spec.model import Model


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
        strata = coefficient.strata
        between_scale = between if strata is None else between[self.segment_design.level_index[strata]]
        if strata is not None and between_scale.ndim < len(coefficient.dims):
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
            # (segment, covariate) @ (covariate, arm)
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
        is_plain = is_plain and coefficient.shape != "horseshoe"
        if data_message is None or not is_plain or not isinstance(prior, Normal):
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
        if effect_priors is not None and effect_priors.shape == "student_t":
            nu = self.hold_value(f"{name}_nu", effect_priors.tail_nu)
            offset = self.add_offset(coefficient, centre, between_scale, data_message, nu)
            return between_scale * offset, offset
        if effect_priors is not None and effect_priors.shape == "horseshoe":
            # w = between λ,   λ ~ HalfCauchy(1): large λ leave the slab's SD
            local_scale = pm.HalfCauchy(f"{name}_local_offset", beta=1.0, dims=dims)
            slab_scale = self.hold_value(f"{name}_slab", effect_priors.slab)
            between_scale = pm.Deterministic(
                f"{name}_local", regularise_scale(between_scale * local_scale, slab_scale), dims=dims
            )
        if f"{name}_correlation" in self.hyperparameters and baseline_offset is not None:
            rho = self.add_hyperparameter(f"{name}_correlation")
            tied_offset, own_factor = split_offset(baseline_offset[:, None], rho)
            own_centre, own_scale = centre + between_scale * tied_offset, between_scale * own_factor
            offset = tied_offset + own_factor * self.add_offset(coefficient, own_centre, own_scale, data_message)
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
