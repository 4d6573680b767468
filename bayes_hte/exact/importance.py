"""Weighted points of the posterior of the hyperparameters: adaptive importance sampling.

Rounds of scrambled-Sobol points from a mixture of t distributions that learns from all points before it;
every point is weighted by the mixture of all proposals so far (Owen & Zhou 2000, JASA 95:135), and the
weights are Pareto-smoothed (Vehtari et al. 2024, JMLR 25:72).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from bayes_hte.exact.integrate import Mode
from bayes_hte.exact.proposal import Mixture, around, blend, fitted
from bayes_hte.exact.search import Peak
from bayes_hte.exact.space import Array
from bayes_hte.exact.straighten import Straight
from bayes_hte.exact.target import KEPT, Target

FIRST, SECOND = 256, 512
"""Points of the two rounds that mostly teach the proposal."""
MAX_ROUNDS = 12
GOOD_K = 0.5
"""Below it the weights have a finite variance. Sampling goes on until then; up to 0.7 is accepted."""
COMPONENTS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Weighted points.

    Attributes
    ----------
    points : ndarray
        (point, coordinate).
    log_density : ndarray
        Of each point, unnormalised.
    log_ratio : ndarray
        Of the density to the proposal's.
    modes : Mode or None
        Of every segment at every point, where they are few enough to be kept.
    weights : ndarray
        Pareto-smoothed, sum to 1.
    pareto_k : float
        Shape of the tail of the raw weights; above 0.7 nothing can be trusted.
    log_evidence : float
        Log of the integral of the density.
    """

    points: Array
    log_density: Array
    log_ratio: Array
    modes: Mode | None
    weights: Array
    pareto_k: float
    log_evidence: float

    @classmethod
    def of(cls, points: Array, log_density: Array, log_ratio: Array, modes: Mode | None) -> "Sample":
        """Smooth the weights, and measure what can be measured."""
        weights, pareto_k = smooth(log_ratio)
        top = float(log_ratio.max())
        log_evidence = float(np.log(np.mean(np.exp(log_ratio - top)))) + top
        return cls(points, log_density, log_ratio, modes, weights, pareto_k, log_evidence)

    def revalued(self, log_density: Array) -> "Sample":
        """The same points under a more accurate density."""
        return Sample.of(self.points, log_density, self.log_ratio + (log_density - self.log_density), self.modes)

    @property
    def effective(self) -> float:
        """Effective number of points."""
        return float(1.0 / (self.weights**2).sum())

    def resampled(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Indices of points in proportion to their weights (systematic resampling), copies side by side."""
        edges = np.cumsum(self.weights)
        return np.minimum(np.searchsorted(edges, (np.arange(count) + rng.random()) / count), len(edges) - 1)


@dataclass(frozen=True, slots=True)
class Effort:
    """When to stop: enough effective points, or no more points."""

    wanted: float
    budget: float


def explore(target: Target, straight: Straight, peak: Peak, effort: Effort, *, seed: int) -> Sample:
    """Sample, in straight coordinates from `peak`, until the effort is spent or rewarded."""
    size = len(peak.point)
    sobol = qmc.Sobol(size + 2, scramble=True, rng=np.random.default_rng(seed))
    wide = around(peak.point, peak.covariance, inflate=1.6)
    proposal, proposals, counts, modes = wide, list[Mixture](), list[int](), list[Mode | None]()
    places, points = np.empty((0, size)), np.empty((0, size))
    values, log_jacobian = np.empty(0), np.empty(0)
    count = FIRST
    for _ in range(MAX_ROUNDS):
        fresh = proposal.draw(np.clip(sobol.random(count), 1e-12, 1 - 1e-12))
        fresh_points, fresh_jacobian = straight.points(fresh)
        places, points = np.concatenate([places, fresh]), np.concatenate([points, fresh_points])
        modes.append(target.modes(fresh_points))
        values = np.concatenate([values, target.log_density(fresh_points, modes=modes[-1])])
        log_jacobian = np.concatenate([log_jacobian, fresh_jacobian])
        proposals, counts = [*proposals, proposal], [*counts, count]
        everywhere = blend(proposals, np.array(counts) / len(points))
        log_ratio = values + log_jacobian - everywhere.log_density(places)
        effective = effective_size(log_ratio)
        if len(points) >= effort.budget or (effective >= effort.wanted and smooth(log_ratio)[1] <= GOOD_K):
            break
        proposal = _learnt(places, log_ratio, wide)
        if effective >= effort.wanted:  # enough points, but too few in some tail
            proposal = blend([proposal, _tail(places, log_ratio)], np.array([0.5, 0.5]))
            count = max(SECOND, len(points) // 5)
            continue
        share = effective / len(points) if len(counts) > 1 else 0.1
        missing = (effort.wanted - effective) / max(share, 0.05) * 1.1
        count = SECOND if len(counts) == 1 else int(np.clip(missing, SECOND, effort.budget - len(points) + SECOND))
    known = [mode for mode in modes if mode is not None]
    kept = len(known) == len(modes) and len(points) * target.segments.size <= 2 * KEPT
    return Sample.of(points, values, log_ratio, Mode.joined(known) if kept else None)


def effective_size(log_ratio: Array) -> float:
    """Kish's effective number of weighted points."""
    weights = np.exp(log_ratio - log_ratio.max())
    return float(weights.sum() ** 2 / (weights**2).sum())


def _learnt(points: Array, log_ratio: Array, wide: Mixture) -> Mixture:
    """A mixture fitted to the points so far; a tenth of its points still come from the first proposal."""
    size = points.shape[1]
    tempered = log_ratio - log_ratio.max()
    # Flatten the weights until there are enough points to learn a covariance from.
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1):
        if effective_size(power * tempered) >= 10 * size:
            break
    weights = np.exp(power * tempered)
    kept = np.argsort(weights)[-4096:]
    weights = weights[kept] / weights[kept].sum()
    components = COMPONENTS if effective_size(power * tempered) >= 25 * size else 1
    return blend([fitted(points[kept], weights, components), wide], np.array([0.9, 0.1]))


def _tail(places: Array, log_ratio: Array) -> Mixture:
    """Where proposals have been too rare: around the points with the largest ratios."""
    count = max(4 * places.shape[1], int(3 * np.sqrt(len(places))))
    return fitted(places[np.argsort(log_ratio)[-count:]], np.full(count, 1 / count), 1)


def smooth(log_ratio: Array) -> tuple[Array, float]:
    """Pareto-smoothed weights that sum to 1, and the shape of their tail (ArviZ)."""
    from arviz_stats.base import array_stats

    log_weights, pareto_k = array_stats.psislw(-log_ratio)  # it takes log-likelihoods, whose ratios are 1 / L
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum(), float(pareto_k)
