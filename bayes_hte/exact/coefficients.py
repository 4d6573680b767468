"""What a segment has of its own, as a function of a standard normal offset given the hyperparameters.

partial    mean + between * offset
complete   mean
none       quantile(Φ(offset)) of the prior; for a Normal prior that is mu + sigma * offset

So the prior of every offset is Normal(0, 1), whatever the model says. A structure that keeps segments
conditionally independent plugs in here: it is a map from offsets to values with its slope.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

from bayes_hte.exact.space import Array, Natural
from bayes_hte.priors import frozen, log_density
from bayes_hte.spec.distributions import Distribution, Normal
from bayes_hte.spec.model import Pool, Pooling


class Map(Protocol):
    """From offsets (point, segment) to values of a coefficient (point, segment)."""

    def value(self, offset: Array) -> Array:
        """The coefficient."""

    def slope(self, offset: Array) -> Array:
        """Its derivative in the offset."""

    def offset(self, value: Array) -> Array:
        """The inverse of `value`."""

    def line(self, value: Array) -> "Line":
        """The straight line that touches the map where it takes this value."""


@dataclass(frozen=True, slots=True)
class Line:
    """location + scale * offset, both (point, 1) or (point, segment)."""

    location: Array
    scale: Array

    def value(self, offset: Array) -> Array:
        """The coefficient."""
        return self.location + self.scale * offset

    def slope(self, offset: Array) -> Array:
        """The scale, whatever the offset."""
        return self.scale

    def offset(self, value: Array) -> Array:
        """Standardised value; 0 where the scale is 0, because nothing depends on the offset then."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.scale > 0, (value - self.location) / self.scale, 0.0)

    def line(self, value: Array) -> "Line":
        """Itself."""
        return self


@dataclass(frozen=True, slots=True)
class Quantile:
    """quantile(Φ(offset)) of any prior."""

    prior: Distribution

    def value(self, offset: Array) -> Array:
        """The quantile, taken from the nearer tail."""
        law = frozen(self.prior)
        tail = special.ndtr(-np.abs(offset))
        return np.asarray(np.where(offset > 0, law.isf(tail), law.ppf(tail)))

    def slope(self, offset: Array) -> Array:
        """Density of the offset over density of the value."""
        log_normal = -0.5 * offset**2 - 0.5 * np.log(2 * np.pi)
        return np.asarray(np.exp(np.clip(log_normal - log_density(self.prior, self.value(offset)), -700.0, 700.0)))

    def offset(self, value: Array) -> Array:
        """The normal quantile of the value's rank, kept within what double precision can tell."""
        law = frozen(self.prior)
        lower, upper = special.ndtri(law.cdf(value)), -special.ndtri(law.sf(value))
        return np.asarray(np.clip(np.where(np.abs(lower) < np.abs(upper), lower, upper), -6.0, 6.0))

    def line(self, value: Array) -> Line:
        """The tangent."""
        at = self.offset(value)
        slope = self.slope(at)
        return Line(self.value(at) - slope * at, slope)


def coefficient(name: str, pool: Pool, pooling: Pooling, natural: Natural, position: int) -> Map:
    """The map of one coefficient; `position` is the arm of an effect."""
    if pooling == "none":
        if isinstance(pool.mean, Normal):
            return Line(np.full((1, 1), pool.mean.mu), np.full((1, 1), pool.mean.sigma))
        return Quantile(pool.mean)
    mean = natural[f"{name}_mean"][:, position, None]
    if pooling == "complete":
        return Line(mean, np.zeros_like(mean))
    return Line(mean, natural[f"{name}_between"][:, position, None])
