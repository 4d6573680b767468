"""The space of hyperparameters: all that segments share, without bounds, and its prior with the Jacobians.

real line      as it is
positive       its logarithm
interval       its log-odds between the bounds
ascending      the first as it is, every other as the logarithm of its distance from the one before

The same transforms as PyMC's, so that densities can be compared point by point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.model.parameters import collect_hyperparameters, count_values
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.model.problem import Problem
from bayes_hte.spec.distributions import Distribution, find_support_bounds, is_positive

Array = NDArray[np.float64]
Natural = Mapping[str, Array]
"""Hyperparameters in their own units by name: (point, entry of the variable)."""
Line = Literal["real", "positive", "interval", "ascending"]


LARGEST = 200.0
"""Logarithms beyond it are cut off: e^200 can still be squared, and no prior with a tail reaches there."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One number that segments share: the `position`-th entry of the variable `name`, whose entries may ascend."""

    name: str
    position: int
    prior: Distribution
    is_ordered: bool = False

    @property
    def line(self) -> Line:
        """How the number is put on the whole real line."""
        if self.is_ordered and self.position:
            return "ascending"
        if find_support_bounds(self.prior) is not None:
            return "interval"
        return "positive" if is_positive(self.prior) else "real"

    def natural(self, free: Array) -> Array:
        """In its own units; of an ascending number its distance from the one before."""
        ends = find_support_bounds(self.prior)
        if ends is not None:
            return np.asarray(ends[0] + (ends[1] - ends[0]) * special.expit(free))
        return np.exp(np.clip(free, -LARGEST, LARGEST)) if self.line in ("positive", "ascending") else free

    def free(self, value: Array) -> Array:
        """On the whole real line; a value at or beyond a bound is put just inside."""
        ends = find_support_bounds(self.prior)
        if ends is not None:
            share = (value - ends[0]) / (ends[1] - ends[0])
            return np.asarray(special.logit(np.clip(share, 1e-6, 1 - 1e-6)))
        return np.log(np.maximum(value, 1e-300)) if self.line in ("positive", "ascending") else value

    def prior_density(self, free: Array) -> Array:
        """Log density of the value that a point on the real line stands for; not of ascending numbers."""
        return compute_log_prior(self.prior, self.natural(free))

    def log_prior(self, free: Array) -> Array:
        """Log density on the real line: of the value, plus the log derivative of the transform."""
        density, ends = self.prior_density(free), find_support_bounds(self.prior)
        if ends is not None:
            return np.asarray(density + np.log(ends[1] - ends[0]) - np.logaddexp(0, free) - np.logaddexp(0, -free))
        return density + free if self.line == "positive" else density


@dataclass(frozen=True, slots=True)
class Space:
    """Every hyperparameter of a problem, in a fixed order, and those held at a value.

    Attributes
    ----------
    parameters : tuple of Hyperparameter
        The coordinates of a point.
    sizes : mapping
        How many entries each variable has.
    held : mapping
        (name, position) -> value, for hyperparameters that are conditioned on.
    ordered_name : str or None
        The variable whose entries are in ascending order.
    """

    parameters: tuple[Hyperparameter, ...]
    sizes: Mapping[str, int]
    held: Mapping[tuple[str, int], float] = field(default_factory=lambda: MappingProxyType({}))
    ordered_name: str | None = None

    def natural(self, points: Array) -> Natural:
        """Points (point, coordinate) as variables in their own units."""
        values = {name: np.empty((len(points), size)) for name, size in self.sizes.items()}
        for column, parameter in enumerate(self.parameters):
            values[parameter.name][:, parameter.position] = parameter.natural(points[:, column])
        for (name, position), value in self.held.items():
            values[name][:, position] = value
        if self.ordered_name is not None:
            np.cumsum(values[self.ordered_name], axis=1, out=values[self.ordered_name])
        return values

    def free(self, natural: Natural) -> Array:
        """The inverse of `natural`."""
        if self.ordered_name is not None:
            gaps = np.diff(natural[self.ordered_name], axis=1, prepend=0.0)
            natural = {**natural, self.ordered_name: gaps}
        return np.stack([p.free(natural[p.name][:, p.position]) for p in self.parameters], axis=1)

    def log_prior(self, points: Array) -> Array:
        """Log prior density of each point, with the Jacobians."""
        total = np.zeros(len(points))
        for column, parameter in enumerate(self.parameters):
            if not parameter.is_ordered:
                total += parameter.log_prior(points[:, column])
        return total + self._log_prior_of_ascending(points)

    def _log_prior_of_ascending(self, points: Array) -> Array:
        """Every one has its own prior, apart from their order."""
        columns = [column for column, each in enumerate(self.parameters) if each.is_ordered]
        if not columns or self.ordered_name is None:
            return np.zeros(len(points))
        prior = self.parameters[columns[0]].prior
        values = self.natural(points)[self.ordered_name]
        return np.asarray(compute_log_prior(prior, values).sum(1) + points[:, columns[1:]].sum(1))


def space_of(task: Problem, held: Mapping[tuple[str, int], float] | None = None) -> Space:
    """The hyperparameters of a problem; those in `held` are conditioned on."""
    own = ("effect", "baseline")
    shared = {name: hyper for name, hyper in collect_hyperparameters(task.model).items() if name not in own}
    sizes = {name: count_values(hyper.dims, task.coords) for name, hyper in shared.items()}
    held = MappingProxyType(dict(held or {}))
    parameters = [
        Hyperparameter(name, position, hyper.prior, hyper.is_ordered)
        for name, hyper in shared.items()
        for position in range(sizes[name])
        if (name, position) not in held
    ]
    ordered_name = next((name for name, hyper in shared.items() if hyper.is_ordered), None)
    return Space(tuple(parameters), MappingProxyType(sizes), held, ordered_name)
