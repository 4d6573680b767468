"""Weighted points of the posterior of the hyperparameters: adaptive importance sampling.

Rounds of points from a mixture of t distributions that learns from all points before it;
every point is weighted by the mixture of all proposals so far (Owen & Zhou 2000, JASA 95:135), and the
weights are Pareto-smoothed (Vehtari et al. 2024, JMLR 25:72).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.exact.emulate import Values, effective_size, learnt
from bayes_hte.inference.exact.proposal import EXTRA, Mixture, blend, fitted, surround
from bayes_hte.inference.exact.search import Peak
from bayes_hte.inference.exact.smooth import smooth
from bayes_hte.inference.exact.space import Array
from bayes_hte.inference.exact.straighten import Straight
from bayes_hte.inference.exact.target import Target

FIRST, SECOND = 256, 512
"""Points of the two rounds that mostly teach the proposal."""
MAX_ROUNDS = 12
GOOD_K = 0.5
"""Below it the weights have a finite variance. Sampling goes on until then; up to 0.7 is accepted."""
COMPONENTS = 3
MOSTLY = 0.6
"""Share of computed points above which points are not cheap: the first rounds are computed whatever happens."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Weighted points.

    Attributes
    ----------
    values : Values
        The points, their places in straight coordinates, and their log densities, unnormalised.
    log_proposal : ndarray
        Log density, at each point, of the mixture it was drawn from.
    weights : ndarray
        Pareto-smoothed, sum to 1.
    pareto_k : float
        Shape of the tail of the raw weights; above 0.7 nothing can be trusted.
    log_evidence : float
        Log of the integral of the density.
    error : float
        SD of the error of the log density over the posterior; NaN until it is measured.
    unexplored : float
        Share of the mass that a scan of the hyperparameters sees where no point lies.
    """

    values: Values
    log_proposal: Array
    weights: Array
    pareto_k: float
    log_evidence: float
    error: float = np.nan
    unexplored: float = 0.0

    @classmethod
    def of(cls, values: Values, log_proposal: Array) -> "Sample":
        """Smooth the weights, and measure what can be measured."""
        log_ratio = values.log_density - log_proposal
        weights, pareto_k = smooth(log_ratio)
        top = float(log_ratio.max())
        log_evidence = float(np.log(np.mean(np.exp(log_ratio - top)))) + top
        return cls(values, log_proposal, weights, pareto_k, log_evidence)

    def revalued(self, target: Target) -> "Sample":
        """The same points under a more accurate density."""
        revalued = Sample.of(self.values.revalued(target, self.log_proposal), self.log_proposal)
        return replace(revalued, unexplored=self.unexplored)

    @property
    def points(self) -> Array:
        """Hyperparameters: (point, coordinate)."""
        return self.values.points

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
    """When to stop.

    Attributes
    ----------
    wanted : float
        Effective points.
    budget : float
        Points at which integrals may be computed.
    welcome : float
        Effective points where most are predicted, at a tenth of the cost.
    """

    wanted: float
    budget: float
    welcome: float


def explore(target: Target, straight: Straight, peaks: list[Peak], effort: Effort, *, seed: int) -> Sample:
    """Sample, in straight coordinates from all peaks, until the effort is spent or rewarded."""
    size = len(peaks[0].point)
    rng = np.random.default_rng(seed)
    wide = surround(peaks, inflate=1.6)
    proposal, proposals, counts = wide, list[Mixture](), list[int]()
    values, log_jacobian, correction = Values.nowhere(size), np.empty(0), None
    count = FIRST
    for _ in range(MAX_ROUNDS):
        fresh = proposal.draw(np.clip(rng.random((count, size + EXTRA)), 1e-12, 1 - 1e-12))
        fresh_points, fresh_jacobian = straight.points(fresh)
        values = values.extended(target, fresh, fresh_points, correction)
        log_jacobian = np.concatenate([log_jacobian, fresh_jacobian])
        proposals, counts = [*proposals, proposal], [*counts, count]
        everywhere = blend(proposals, np.array(counts) / values.size)
        log_proposal = everywhere.log_density(values.places) - log_jacobian
        correction = (
            learnt(values, log_proposal, segments=target.segments.size) or correction
        )  # one that was accurate before still is nearby
        values = values.settled(target, correction)
        log_ratio = values.log_density - log_proposal
        effective = effective_size(np.exp(log_ratio - log_ratio.max()))
        wanted = effort.wanted if values.computed.mean() > MOSTLY else effort.welcome
        left = effort.budget - values.computed.sum()
        if left <= 0 or (effective >= wanted and smooth(log_ratio)[1] <= GOOD_K):
            break
        proposal = _learnt(values.places, log_ratio, wide)
        if effective >= wanted:  # enough points, but too few in some tail
            proposal = blend([proposal, _tail(values.places, log_ratio)], np.array([0.5, 0.5]))
            count = max(SECOND, values.size // 5)
            continue
        share = effective / values.size if len(counts) > 1 else 0.1
        missing = (wanted - effective) / max(share, 0.05) * 1.1
        most = left + SECOND if correction is None else 4 * effort.welcome
        count = SECOND if len(counts) == 1 else int(np.clip(missing, SECOND, max(most, SECOND)))
    return Sample.of(values, log_proposal)


def _learnt(points: Array, log_ratio: Array, wide: Mixture) -> Mixture:
    """A mixture fitted to the points so far; a tenth of its points still come from the first proposal."""
    size = points.shape[1]
    tempered = log_ratio - log_ratio.max()
    # Flatten the weights until there are enough points to learn a covariance from.
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1):
        if effective_size(np.exp(power * tempered)) >= 10 * size:
            break
    weights = np.exp(power * tempered)
    kept = np.argsort(weights)[-4096:]
    weights = weights[kept] / weights[kept].sum()
    components = COMPONENTS if effective_size(np.exp(power * tempered)) >= 25 * size else 1
    return blend([fitted(points[kept], weights, components), wide], np.array([0.9, 0.1]))


def _tail(places: Array, log_ratio: Array) -> Mixture:
    """Where proposals have been too rare: around the points with the largest ratios."""
    count = max(4 * places.shape[1], int(3 * np.sqrt(len(places))))
    return fitted(places[np.argsort(log_ratio)[-count:]], np.full(count, 1 / count), 1)
