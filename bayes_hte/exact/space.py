"""The space of hyperparameters: all that segments share, without bounds, and its prior with the Jacobians.

real line      as it is
positive       its logarithm
interval       its log-odds between the bounds

The same transforms as PyMC's, so that densities can be compared point by point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.model import Problem, top_level_priors
from bayes_hte.priors import log_density
from bayes_hte.spec.distributions import Distribution, Uniform, is_positive

Array = NDArray[np.float64]
Natural = Mapping[str, Array]
"""Hyperparameters in their own units by name: (point, arm), (point, variant), or (point, 1)."""
Line = Literal["real", "positive", "interval"]


LARGEST = 200.0
"""Logarithms beyond it are cut off: e^200 can still be squared, and no prior with a tail reaches there."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One number that segments share: the `position`-th entry of the variable `name`."""

    name: str
    position: int
    prior: Distribution

    @property
    def line(self) -> Line:
        """How the number is put on the whole real line."""
        if isinstance(self.prior, Uniform):
            return "interval"
        return "positive" if is_positive(self.prior) else "real"

    def natural(self, free: Array) -> Array:
        """In its own units."""
        match self.prior:
            case Uniform(lower=lower, upper=upper):
                return np.asarray(lower + (upper - lower) * special.expit(free))
        return np.exp(np.clip(free, -LARGEST, LARGEST)) if self.line == "positive" else free

    def free(self, value: Array) -> Array:
        """On the whole real line; a value at or beyond a bound is put just inside."""
        match self.prior:
            case Uniform(lower=lower, upper=upper):
                return np.asarray(special.logit(np.clip((value - lower) / (upper - lower), 1e-6, 1 - 1e-6)))
        return np.log(np.maximum(value, 1e-300)) if self.line == "positive" else value

    def prior_density(self, free: Array) -> Array:
        """Log density of the value that a point on the real line stands for."""
        return log_density(self.prior, self.natural(free))

    def log_prior(self, free: Array) -> Array:
        """Log density on the real line: of the value, plus the log derivative of the transform."""
        density = self.prior_density(free)
        match self.prior:
            case Uniform(lower=lower, upper=upper):
                return np.asarray(density + np.log(upper - lower) - np.logaddexp(0, free) - np.logaddexp(0, -free))
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
    """

    parameters: tuple[Hyperparameter, ...]
    sizes: Mapping[str, int]
    held: Mapping[tuple[str, int], float] = field(default_factory=lambda: MappingProxyType({}))

    def natural(self, points: Array) -> Natural:
        """Points (point, coordinate) as variables in their own units."""
        values = {name: np.empty((len(points), size)) for name, size in self.sizes.items()}
        for column, parameter in enumerate(self.parameters):
            values[parameter.name][:, parameter.position] = parameter.natural(points[:, column])
        for (name, position), value in self.held.items():
            values[name][:, position] = value
        return values

    def free(self, natural: Natural) -> Array:
        """The inverse of `natural`."""
        return np.stack([p.free(natural[p.name][:, p.position]) for p in self.parameters], axis=1)

    def log_prior(self, points: Array) -> Array:
        """Log prior density of each point, with the Jacobians."""
        total = np.zeros(len(points))
        for column, parameter in enumerate(self.parameters):
            total += parameter.log_prior(points[:, column])
        return total


def space_of(task: Problem, held: Mapping[tuple[str, int], float] | None = None) -> Space:
    """The hyperparameters of a problem; those in `held` are conditioned on."""
    arms, variants = len(task.coords["arm"]), len(task.coords["variant"])
    priors = {name: prior for name, prior in top_level_priors(task.model).items() if name not in ("effect", "baseline")}
    sizes = {name: variants if name == "sigma" else arms if name.startswith("effect") else 1 for name in priors}
    held = MappingProxyType(dict(held or {}))
    parameters = [
        Hyperparameter(name, position, prior)
        for name, prior in priors.items()
        for position in range(sizes[name])
        if (name, position) not in held
    ]
    return Space(tuple(parameters), MappingProxyType(sizes), held)
