"""What a segment has of its own, as a function of a standard normal offset given the hyperparameters.

partial    mean + between * offset
complete   mean
none       quantile(Φ(offset)) of the prior; for a Normal prior that is mu + sigma * offset
heavy      location + scale * t(Φ(offset)), t the quantile function of Student's t; integrated as a mixture of normals

A segment's covariates move its mean, its stratum says which between it has, and a correlation with the baseline adds
a multiple of the baseline's offset.

So the prior of every offset is Normal(0, 1), whatever the model says. A structure that keeps segments
conditionally independent plugs in here: it is a map from offsets to values with its slope.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.inference.exact.space import Array, Natural
from bayes_hte.model.parameters import Coefficient, SegmentDesign
from bayes_hte.model.priors import compute_log_prior, freeze_distribution
from bayes_hte.spec.distributions import Distribution, Normal


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
        law = freeze_distribution(self.prior)
        tail = special.ndtr(-np.abs(offset))
        return np.asarray(np.where(offset > 0, law.isf(tail), law.ppf(tail)))

    def slope(self, offset: Array) -> Array:
        """Density of the offset over density of the value."""
        log_normal = -0.5 * offset**2 - 0.5 * np.log(2 * np.pi)
        return np.asarray(
            np.exp(np.clip(log_normal - compute_log_prior(self.prior, self.value(offset)), -700.0, 700.0))
        )

    def offset(self, value: Array) -> Array:
        """The normal quantile of the value's rank, kept within what double precision can tell."""
        law = freeze_distribution(self.prior)
        lower, upper = special.ndtri(law.cdf(value)), -special.ndtri(law.sf(value))
        return np.asarray(np.clip(np.where(np.abs(lower) < np.abs(upper), lower, upper), -6.0, 6.0))

    def line(self, value: Array) -> Line:
        """The tangent."""
        at = self.offset(value)
        slope = self.slope(at)
        return Line(self.value(at) - slope * at, slope)


@dataclass(frozen=True, slots=True)
class Heavy:
    """location + scale * (quantile of Student's t with nu degrees of freedom at Φ(offset)).

    Between its own estimate and the crowd a segment may have two peaks. Given the scale that it has of its own it has
    one: t = √λ · normal, λ ~ nu / χ²(nu). So integrals and draws go over `components`, never around a peak of the t.
    """

    location: Array
    scale: Array
    nu: float

    def components(self) -> list[tuple[float, "Line"]]:
        """List normal components, with the logarithms of their weights."""
        return [
            (float(log_weight), Line(self.location, self.scale * factor))
            for log_weight, factor in zip(*mix_normals(self.nu), strict=True)
        ]

    def value(self, offset: Array) -> Array:
        """The coefficient."""
        return self.location + self.scale * stretched(self.nu).at(offset)

    def slope(self, offset: Array) -> Array:
        """Its derivative."""
        return self.scale * stretched(self.nu).slope(offset)

    def offset(self, value: Array) -> Array:
        """The normal quantile of the value's rank; 0 where the scale is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(self.scale > 0, (value - self.location) / self.scale, 0.0)
        lower = special.ndtri(np.maximum(special.stdtr(self.nu, -np.abs(z)), 1e-300))
        return np.asarray(np.where(z > 0, -lower, lower))

    def line(self, value: Array) -> Line:
        """The tangent."""
        at = np.clip(self.offset(value), -4.0, 4.0)
        slope = self.slope(at)
        return Line(self.value(at) - slope * at, slope)


@dataclass(frozen=True, slots=True)
class Stretch:
    """From normal to t quantiles by cubic interpolation between equally spaced offsets: a tenth of their cost.

    Attributes
    ----------
    values, slopes : ndarray
        At offsets from −REACH to REACH.
    """

    values: Array
    slopes: Array

    def _places(self, offset: Array) -> tuple[NDArray[np.intp], Array]:
        scaled = (np.clip(offset, -REACH, REACH) + REACH) * STEPS
        index = np.minimum(scaled.astype(np.intp), len(self.values) - 2)
        return index, scaled - index

    def at(self, offset: Array) -> Array:
        """The t quantile."""
        index, t = self._places(offset)
        left, right = self.values[index], self.values[index + 1]
        rise, fall = self.slopes[index] / STEPS, self.slopes[index + 1] / STEPS
        both = right - left
        return np.asarray(left + t * (rise + t * (3 * both - 2 * rise - fall + t * (rise + fall - 2 * both))))

    def slope(self, offset: Array) -> Array:
        """Derivative of the interpolation."""
        index, t = self._places(offset)
        both = self.values[index + 1] - self.values[index]
        rise, fall = self.slopes[index] / STEPS, self.slopes[index + 1] / STEPS
        return np.asarray((rise + t * (2 * (3 * both - 2 * rise - fall) + t * 3 * (rise + fall - 2 * both))) * STEPS)


MIXING_DEPTH = 24.0
"""How far below its peak the density of log λ is followed: to segments 600 scales away with 4 degrees of freedom."""
MAX_MIXING_STEP = 0.65
"""Of log λ: |Γ(a + iω)| falls as exp(−πω / 2), so at ω = 2π / 0.65 the trapezoid rule is off by exp(−π² / 0.65)."""


@lru_cache(maxsize=8)
def mix_normals(nu: float) -> tuple[Array, Array]:
    """Compute log weights and factors √λ of normals whose mixture is Student's t, by the trapezoid rule in log λ."""
    # λ ~ nu / χ²(nu), t = log λ:   log p(t) = const − ½ nu (t + e⁻ᵗ), highest at 0. Data sharpen it to nu + 1 at
    # most; where that is nearly normal, steps of 0.8 SD leave an error of exp(−2π² / 0.8²).
    step = min(0.8 * float(special.polygamma(1, 0.5 * (nu + 1)) ** 0.5), MAX_MIXING_STEP)
    highest = 1 + 2 * MIXING_DEPTH / nu
    lowest = -float(np.log(highest))
    places = step * np.arange(np.floor(lowest / step), np.ceil(highest / step) + 1)
    heights = -0.5 * nu * (places + np.exp(-places))
    return heights - special.logsumexp(heights), np.exp(0.5 * places)


REACH, STEPS = 9.0, 256
"""Offsets beyond ±9 have a probability of 1e-19; 256 steps per unit leave an error below 1e-9 of the value."""


@lru_cache(maxsize=8)
def stretched(nu: float) -> Stretch:
    """The table for one number of degrees of freedom."""
    offsets = np.arange(-REACH * STEPS, REACH * STEPS + 1) / STEPS
    lower = special.stdtrit(nu, special.ndtr(-np.abs(offsets)))
    values = np.where(offsets > 0, -lower, lower)
    log_t = (
        special.gammaln((nu + 1) / 2)
        - special.gammaln(nu / 2)
        - 0.5 * np.log(nu * np.pi)
        - 0.5 * (nu + 1) * np.log1p(values**2 / nu)
    )
    return Stretch(values, np.exp(-0.5 * offsets**2 - 0.5 * np.log(2 * np.pi) - log_t))


@dataclass(frozen=True, slots=True)
class Placed:
    """Some segments' places in the model's structure.

    Attributes
    ----------
    design : Design
    members : ndarray or None
        Indices of segments; None for all.
    """

    design: SegmentDesign
    members: NDArray[np.intp] | None = None

    @property
    def covariates(self) -> Array:
        """(segment, covariate)."""
        found = self.design.standardised_covariates
        return found if self.members is None else found[self.members]

    def stratum(self, name: str) -> NDArray[np.intp]:
        """Position of each segment's level."""
        found = self.design.level_index[name]
        return found if self.members is None else found[self.members]


def mapped(asked: Coefficient, natural: Natural, arm: int, placed: Placed) -> tuple[Map, Array | None]:
    """The map of one coefficient of one arm, and by how much it moves with the baseline's offset."""
    name, pool = asked.name, asked.pool_priors
    if asked.pooling == "none":
        return _alone(pool.mean), None
    points = len(next(iter(natural.values())))
    location = natural[f"{name}_mean"][:, arm, None] if f"{name}_mean" in natural else np.zeros((points, 1))
    if asked.pooling == "complete":
        return Line(location, np.zeros_like(location)), None
    effect = asked.effect_priors
    scale = _scale(asked, natural, arm, placed)
    if effect is None:
        return Line(location, scale), None
    if f"{name}_slope" in natural:
        slopes = natural[f"{name}_slope"].reshape(points, len(effect.covariates), -1)[:, :, arm]
        location = location + slopes @ placed.covariates.T
    if f"{name}_correlation" in natural:
        rho = natural[f"{name}_correlation"][:, arm, None]
        return Line(location, scale * np.sqrt(1 - rho**2)), scale * rho
    heavy = effect.shape == "student_t"
    return (Heavy(location, scale, effect.tail_nu) if heavy else Line(location, scale)), None


def _alone(prior: Distribution) -> Map:
    """Of a segment that shares nothing with others."""
    if isinstance(prior, Normal):
        return Line(np.full((1, 1), prior.mu), np.full((1, 1), prior.sigma))
    return Quantile(prior)


def _scale(asked: Coefficient, natural: Natural, arm: int, placed: Placed) -> Array:
    """The between-segment SD of an arm: (point, 1), or (point, segment) with strata."""
    between, effect = natural[f"{asked.name}_between"], asked.effect_priors
    column = 0 if effect is not None and effect.shared_between else arm
    if effect is None or effect.strata is None:
        return between[:, column, None]
    levels = len(placed.design.level_labels[effect.strata])
    each: Array = between.reshape(len(between), levels, -1)[:, placed.stratum(effect.strata), column]
    return each
