"""Draw every parameter of a model from its prior, with NumPy."""

from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from bayes_hte.model.coefficients import (
    SegmentPlacement,
    compute_coefficients,
    draw_offsets,
    place_segments,
)
from bayes_hte.model.parameters import (
    Coefficient,
    HyperparameterSpec,
    collect_hyperparameters,
    list_coefficients,
    name_term_variable,
)
from bayes_hte.model.priors import draw_prior
from bayes_hte.model.problem import Problem


def draw_from_prior(problem: Problem, *, draw_count: int, rng: np.random.Generator) -> dict[str, xr.DataArray]:
    """Draw all parameters of a problem's model from their prior; dims (chain, draw, …) with one chain.

    Parameters
    ----------
    problem : Problem
    draw_count : int
    rng : numpy.random.Generator
    """
    sampler = PriorSampler(problem.coords, place_segments(problem.segment_design), draw_count, rng)
    for name, hyperparameter in collect_hyperparameters(problem.model).items():
        sampler.draw_hyperparameter(name, hyperparameter)
    # Baselines first, which have fewer dims: effects may be tied to their offsets.
    for coefficient in sorted(list_coefficients(problem.model), key=lambda each: len(each.dims)):
        sampler.draw_coefficient(coefficient)
    return {
        name: values.expand_dims("chain").assign_coords({str(dim): problem.coords[str(dim)] for dim in values.dims[1:]})
        for name, values in sampler.values_by_name.items()
    }


@dataclass(frozen=True, slots=True)
class PriorSampler:
    """Sampler of a structure's prior; all arrays have dims (draw, …).

    Attributes
    ----------
    coords : dict
        Labels of every dim.
    placement : SegmentPlacement
    draw_count : int
    rng : numpy.random.Generator
    values_by_name : dict
        What was drawn so far, by the name of its variable.
    offsets_by_name : dict
        Standardised offsets of coefficients so far.
    """

    coords: dict[str, list[str]]
    placement: SegmentPlacement
    draw_count: int
    rng: np.random.Generator
    values_by_name: dict[str, xr.DataArray] = field(default_factory=dict)
    offsets_by_name: dict[str, xr.DataArray] = field(default_factory=dict)

    def measure_sizes(self, dims: tuple[str, ...]) -> dict[str, int]:
        """Measure the sizes of an array with these dims after draw."""
        return {"draw": self.draw_count} | {dim: len(self.coords[dim]) for dim in dims}

    def draw_hyperparameter(self, name: str, hyperparameter: HyperparameterSpec) -> None:
        """Draw a variable that segments share."""
        sizes = self.measure_sizes(hyperparameter.dims)
        values = draw_prior(hyperparameter.prior, tuple(sizes.values()), self.rng)
        # Ordered ones, such as cutpoints, are the order statistics of as many independent draws.
        ordered_values = np.sort(values) if hyperparameter.is_ordered else values
        self.values_by_name[name] = xr.DataArray(ordered_values, dims=tuple(sizes))

    def draw_coefficient(self, coefficient: Coefficient) -> None:
        """Draw the coefficient of every segment, and the effects of levels that it has; nothing without pooling."""
        # Without pooling the coefficient is its own hyperparameter.
        if coefficient.pooling == "none":
            return
        name, sizes = coefficient.name, self.measure_sizes(coefficient.dims)
        if coefficient.pooling == "complete":
            # A model may do without a mean: cutpoints play the role of an ordinal baseline's.
            zeros = xr.DataArray(np.zeros(tuple(sizes.values())), dims=tuple(sizes))
            self.values_by_name[name] = zeros + self.values_by_name.get(f"{name}_mean", 0.0)
            return
        for term in coefficient.pool_priors.by:
            self.draw_level_effects(name_term_variable(name, term), (term, *coefficient.dims[1:]))
        if coefficient.shape == "student_t":
            # Not used: with it a seed gives the numbers that it always gave.
            self.rng.standard_normal(tuple(sizes.values()))
        baseline_offset = self.offsets_by_name.get(name.replace("effect", "baseline"))
        offsets = draw_offsets(coefficient.effect_priors, sizes, self.rng, baseline_offset=baseline_offset)
        self.offsets_by_name[name] = offsets.own
        self.values_by_name[name] = compute_coefficients(coefficient, self.values_by_name, offsets, self.placement)

    def draw_level_effects(self, variable_name: str, dims: tuple[str, ...]) -> None:
        """Draw the effects of a term's levels: between-level SD times standard normal offsets."""
        sizes = self.measure_sizes(dims)
        level_offset = xr.DataArray(self.rng.standard_normal(tuple(sizes.values())), dims=tuple(sizes))
        level_effects = self.values_by_name[f"{variable_name}_between"] * level_offset
        self.values_by_name[variable_name] = level_effects.transpose(*sizes)
