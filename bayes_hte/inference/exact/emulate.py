"""The log density at many points from integrals at a few.

    log p(θ) = log q(θ) + c(θ)

q is the density under quadratic models of all cells' likelihoods: closed form, a tenth of the cost. c, what it
misses, is small and smooth; a polynomial is fitted to it where p has been computed, and is used at other points among
these as long as its leave-one-out error is small. Points further out are computed. What is left of the error counts
as quadrature error in the certificate, which compares the values that were used with a finer rule's at points of the
posterior.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.exact.space import Array
from bayes_hte.inference.exact.target import Target

Mask = NDArray[np.bool_]
DEGREES = (2, 3, 4)
TOLERANCE = 0.01
"""SD, over the posterior, of the error in the log density up to which a correction is used."""
SQUARED_FEATURES_PER_SEGMENT = 3e4
"""Beyond it a polynomial takes longer to fit than the integrals that it would save: features² against segments."""
PER_FEATURE = 4
"""Effective points that have been computed, at least, for every coefficient of the polynomial."""
REACH = 2.5
"""Half-width of the shell around the typical set in which values are predicted, in SDs: |z| < √d + REACH."""
LEAST_SHARE = 0.02
"""Weight of the least plausible point in the fit, relative to an average one."""


@dataclass(frozen=True, slots=True)
class Standard:
    """Coordinates of weighted mean 0 and covariance 1."""

    mean: Array
    inverse_root: Array

    @classmethod
    def of(cls, places: Array, weights: Array) -> "Standard":
        """From weighted places; weights sum to 1."""
        mean = weights @ places
        centred = places - mean
        covariance = (weights[:, None] * centred).T @ centred
        covariance += np.diag(1e-9 * np.diag(covariance) + 1e-12)
        return cls(mean, np.linalg.inv(np.linalg.cholesky(covariance)))

    def at(self, places: Array) -> Array:
        """Standardised."""
        z: Array = (places - self.mean) @ self.inverse_root.T
        return z

    def near(self, places: Array) -> Mask:
        """Which places are in or around the typical set."""
        z = self.at(places)
        return np.asarray((z * z).sum(1) < (np.sqrt(z.shape[1]) + REACH) ** 2)


@lru_cache(maxsize=64)
def _powers(size: int, degree: int) -> tuple[tuple[int, ...], ...]:
    return tuple(combinations_with_replacement(range(size), degree))


def features(z: Array, degree: int = 2) -> Array:
    """All monomials up to a degree: (point, feature)."""
    found: dict[tuple[int, ...], Array] = {(): np.ones(len(z))}
    for power in range(1, degree + 1):
        found |= {each: found[each[:-1]] * z[:, each[-1]] for each in _powers(z.shape[1], power)}
    return np.stack(list(found.values()), axis=1)


@dataclass(frozen=True, slots=True)
class Correction:
    """What the quadratic model misses, as a function of the place."""

    standard: Standard
    degree: int
    coefficients: Array

    def at(self, places: Array) -> Array:
        """The correction."""
        return np.asarray(features(self.standard.at(places), self.degree) @ self.coefficients)


@dataclass(frozen=True, slots=True)
class Values:
    """Log densities of all points so far.

    Attributes
    ----------
    places, points : ndarray
        (point, coordinate): in straight coordinates, and as hyperparameters.
    quadratic : ndarray
        Log density under the quadratic models.
    log_density : ndarray
    computed : ndarray of bool
        Where the log density was integrated; elsewhere it is predicted.
    """

    places: Array
    points: Array
    quadratic: Array
    log_density: Array
    computed: Mask

    @classmethod
    def nowhere(cls, size: int) -> "Values":
        """No points yet."""
        return cls(np.empty((0, size)), np.empty((0, size)), np.empty(0), np.empty(0), np.empty(0, dtype=bool))

    def extended(self, target: Target, places: Array, points: Array, correction: Correction | None) -> "Values":
        """With more points: predicted where there is a correction and they are near, computed elsewhere."""
        predicted = np.zeros(len(places), dtype=bool) if correction is None else correction.standard.near(places)
        quadratic = target.log_quadratic(points)
        values = quadratic + (0.0 if correction is None else correction.at(places))
        values[~predicted] = target.log_density(points[~predicted])
        return Values(
            np.concatenate([self.places, places]),
            np.concatenate([self.points, points]),
            np.concatenate([self.quadratic, quadratic]),
            np.concatenate([self.log_density, values]),
            np.concatenate([self.computed, ~predicted]),
        )

    @property
    def size(self) -> int:
        """How many points."""
        return len(self.points)

    def settled(self, target: Target, correction: Correction | None) -> "Values":
        """Predicted by this correction where values were not computed; computed if there is none."""
        if self.computed.all():
            return self
        return self.complete(target) if correction is None else self.predicted(correction)

    def predicted(self, correction: Correction) -> "Values":
        """With what this correction says of all points that were not computed."""
        predicted = self.quadratic + correction.at(self.places)
        return replace(self, log_density=np.where(self.computed, self.log_density, predicted))

    def complete(self, target: Target) -> "Values":
        """Computed everywhere."""
        values = self.log_density.copy()
        values[~self.computed] = target.log_density(self.points[~self.computed])
        return replace(self, log_density=values, computed=np.ones_like(self.computed))

    def revalued(self, target: Target, log_proposal: Array) -> "Values":
        """Under a more accurate target, whose anchors are the same."""
        values = self.log_density.copy()
        values[self.computed] = target.log_density(self.points[self.computed])
        again = replace(self, log_density=values)
        return again.settled(
            target, None if self.computed.all() else learnt(again, log_proposal, segments=target.segments.size)
        )


def learnt(values: Values, log_proposal: Array, *, segments: int) -> Correction | None:
    """The correction, from all computed points that are near; None while they are too few, or if it is not accurate.

    None as well where there are so few segments that computing all points is cheaper than fitting it.
    Its error is the SD of leave-one-out residuals, weighted by the posterior.
    """
    log_ratio = values.log_density - log_proposal
    weights = np.exp(log_ratio - log_ratio.max())
    standard = Standard.of(values.places, weights / weights.sum())
    used = values.computed & standard.near(values.places) & np.isfinite(values.quadratic + values.log_density)
    weights = weights[used] / weights[used].sum()
    missed = values.log_density[used] - values.quadratic[used]
    z, enough = standard.at(values.places[used]), effective_size(weights) / PER_FEATURE
    for degree in DEGREES:
        count = comb(z.shape[1] + degree, degree)
        if count > enough or count**2 > SQUARED_FEATURES_PER_SEGMENT * segments:
            return None
        coefficients, error = _fitted(features(z, degree), missed, weights)
        if error < TOLERANCE:
            return Correction(standard, degree, coefficients)
    return None


def _fitted(design: Array, missed: Array, weights: Array) -> tuple[Array, float]:
    """Coefficients of weighted least squares, and the SD of leave-one-out residuals under the weights."""
    root = np.sqrt(np.minimum(weights * len(weights), 1.0) + LEAST_SHARE)
    basis, triangle = np.linalg.qr(design * root[:, None])
    rotated = basis.T @ (missed * root)
    leverage = (basis * basis).sum(1)
    residual = (missed - basis @ rotated / root) / np.maximum(1 - leverage, 1e-6)
    error = np.sqrt(weights @ (residual - weights @ residual) ** 2)
    return np.linalg.solve(triangle, rotated), float(error)


def effective_size(weights: Array) -> float:
    """Kish's effective number of points; weights need not sum to 1."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0
