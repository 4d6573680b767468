"""Published estimates: everything but τ has a closed form, or nearly, so one-dimensional quadrature is exact.

y ~ Normal(effect, V),  effect[s] ~ Normal(m, τ)     V diagonal, or a covariance matrix that is diagonalised first

Given τ the likelihood of m is normal. Under a Normal prior m is integrated in closed form, under any other by
Gauss–Legendre; then τ on its logarithm, over the range that holds all but 1e-12 of its mass (direct integration
as in bayesmeta: Röver 2020, J. Stat. Softw. 93(6)). With several arms every arm is a problem of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from bayes_hte.inference.exact.space import Array
from bayes_hte.model.priors import compute_log_prior, freeze_distribution
from bayes_hte.spec.distributions import Distribution, Normal, Uniform
from bayes_hte.spec.model import Model

NODES = 160
"""Gauss–Legendre nodes for log τ; half as many change eight schools' means by less than 1e-9."""
INNER_NODES = 64
FINE = 1500
"""Equally spaced values of log τ between which draws are interpolated."""
DEPTH = 32.0
"""How far below the peak of the log density the range of log τ reaches."""
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, slots=True)
class Rotated:
    """Estimates of one arm in coordinates in which their errors are independent.

    Attributes
    ----------
    y, variance : ndarray
        (coordinate,); variance is infinite where there is no estimate.
    loading : ndarray
        How the common effect enters each coordinate: 1 without rotation.
    axes : ndarray or None
        (segment, coordinate): back to segments; None without rotation.
    constant : float
        Of the log density; the logarithm of the determinant is counted elsewhere.
    """

    y: Array
    variance: Array
    loading: Array
    axes: Array | None = None

    def precision(self, tau: Array) -> Array:
        """1 / (variance + τ²): (τ, coordinate); 0 where there is no estimate."""
        precision: Array = 1.0 / (self.variance + np.square(tau)[:, None])
        return precision

    def borrowed(self, tau: Array) -> Array:
        """Share of a coordinate that comes from the common effect: variance / (variance + τ²)."""
        there = np.isfinite(self.variance)
        kept = np.where(there, self.variance, 1.0)
        share: Array = np.where(there, kept / np.maximum(kept + np.square(tau)[:, None], 1e-300), 1.0)
        return share


def rotated(estimate: Array, se: Array, covariance: Array | None) -> Rotated:
    """Diagonalise the errors; a missing estimate has an infinite variance."""
    if covariance is None:
        there = np.isfinite(se)
        return Rotated(np.where(there, estimate, 0.0), np.where(there, se, np.inf) ** 2, np.ones(len(se)))
    variance, axes = np.linalg.eigh(covariance)
    return Rotated(axes.T @ estimate, np.maximum(variance, 0.0), axes.sum(0), axes)


@dataclass(frozen=True, slots=True)
class Common:
    """Likelihood of the common effect m at every τ: a normal in m, exp(log_height − (m − centre)² / (2 variance))."""

    log_height: Array
    centre: Array
    variance: Array


def likelihood(data: Rotated, tau: Array) -> Common:
    """p(y | m, τ) as a function of m."""
    precision = data.precision(tau)
    weighted = precision * data.loading
    total = weighted @ data.loading
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.where(total > 0, (weighted @ data.y) / total, 0.0)
        logs = np.where(precision > 0, np.log(precision) - LOG_2PI, 0.0).sum(1)
        rest = (precision * (data.y - centre[:, None] * data.loading) ** 2).sum(1)
        return Common(0.5 * (logs - rest), centre, np.where(total > 0, 1 / total, np.inf))


@dataclass(frozen=True, slots=True)
class Nodes:
    """Weighted values of (τ, m); where m was integrated in closed form, `spread` is its variance at that τ.

    Attributes
    ----------
    tau, mean, spread, weights : ndarray
        (node,); the weights sum to 1.
    log_evidence : float
        log p(y).
    """

    tau: Array
    mean: Array
    spread: Array
    weights: Array
    log_evidence: float


@dataclass(frozen=True, slots=True)
class Arm:
    """The problem of one arm: its data, and priors or fixed values of m and τ."""

    data: Rotated
    mean: Distribution | float
    between: Distribution | float

    def log_marginal(self, tau: Array) -> Array:
        """log p(y | τ)."""
        common = likelihood(self.data, tau)
        if isinstance(self.mean, float):
            return common.log_height - 0.5 * (self.mean - common.centre) ** 2 / common.variance
        if isinstance(self.mean, Normal):
            total = common.variance + self.mean.sigma**2
            finite = np.isfinite(common.variance)
            shift = np.where(finite, (common.centre - self.mean.mu) ** 2 / np.where(finite, total, 1.0), 0.0)
            with np.errstate(invalid="ignore"):
                ratio = np.where(finite, np.log(np.where(finite, common.variance / total, 1.0)), 0.0)
            return common.log_height + 0.5 * (ratio - shift)
        return _log_sum(self._inner(common)[1])

    def _inner(self, common: Common) -> tuple[Array, Array]:
        """Values of m (τ, inner node), and the log of weight times density there."""
        prior = _law(self.mean)
        lower, upper = inner_range(common, prior)
        nodes, weights = legendre(INNER_NODES)
        half = 0.5 * (upper - lower)[:, None]
        m = lower[:, None] + half * (nodes + 1.0)
        with np.errstate(divide="ignore"):
            distance = (m - common.centre[:, None]) ** 2 / common.variance[:, None]
        return m, common.log_height[:, None] - 0.5 * distance + compute_log_prior(prior, m) + np.log(half * weights)

    def log_posterior(self, log_tau: Array) -> Array:
        """Log density of log τ and the data."""
        tau = np.exp(log_tau)
        return self.log_marginal(tau) + compute_log_prior(_law(self.between), tau) + log_tau

    def limits(self) -> tuple[float, float]:
        """The range of log τ outside of which the posterior is negligible."""
        if isinstance(self.between, float):
            return -np.inf, np.inf
        return span(self.log_posterior, self.between)

    def nodes(self, limits: tuple[float, float], count: int = NODES) -> Nodes:
        """The joint posterior of τ and m on nodes; `limits` are those of log τ."""
        if isinstance(self.between, float):
            tau, log_weight = np.array([self.between]), np.zeros(1)
        else:
            places, weights = legendre(count)
            half = 0.5 * (limits[1] - limits[0])
            log_tau = limits[0] + half * (places + 1.0)
            tau = np.exp(log_tau)
            log_weight = np.log(weights * half) + compute_log_prior(self.between, tau) + log_tau
        common = likelihood(self.data, tau)
        if isinstance(self.mean, Normal):
            mean, variance = given_tau(common, self.mean)
            total = log_weight + self.log_marginal(tau)
        elif isinstance(self.mean, float):
            mean, variance = np.full(len(tau), self.mean), np.zeros(len(tau))
            total = log_weight + self.log_marginal(tau)
        else:
            m, log_inner = self._inner(common)
            total = (log_weight[:, None] + log_inner).ravel()
            tau, mean, variance = np.repeat(tau, INNER_NODES), m.ravel(), np.zeros(m.size)
        log_evidence = float(np.logaddexp.reduce(total))
        return Nodes(tau, mean, variance, np.exp(total - log_evidence), log_evidence)

    def draw(self, count: int, limits: tuple[float, float], rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws of τ and m: τ by its inverse distribution function, one in each of `count` strata; m given τ."""
        if isinstance(self.between, float):
            tau = np.full(count, self.between)
        else:
            log_tau = np.linspace(*limits, FINE)
            ranks = (rng.permutation(count) + rng.random(count)) / count
            tau = np.exp(inverse(log_tau, self.log_posterior(log_tau), ranks))
        if isinstance(self.mean, float):
            return tau, np.full(count, self.mean)
        common = likelihood(self.data, tau)
        ranks = (rng.permutation(count) + rng.random(count)) / count
        if isinstance(self.mean, Normal):
            mean, variance = given_tau(common, self.mean)
            return tau, mean + np.sqrt(variance) * special.ndtri(ranks)
        lower, upper = inner_range(common, self.mean)
        m = lower[:, None] + (upper - lower)[:, None] * np.linspace(0, 1, 400)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = -0.5 * (m - common.centre[:, None]) ** 2 / common.variance[:, None] + compute_log_prior(
                self.mean, m
            )
        return tau, np.array([inverse(*each) for each in zip(m, density, ranks, strict=True)])


def _law(prior: Distribution | float) -> Distribution:
    """A prior where a fixed value would make no sense."""
    if isinstance(prior, float):
        raise AssertionError("a fixed value has no density")
    return prior


@lru_cache(maxsize=8)
def legendre(count: int) -> tuple[Array, Array]:
    """Nodes and weights of Gauss–Legendre quadrature on (−1, 1)."""
    return np.polynomial.legendre.leggauss(count)


def given_tau(common: Common, prior: Normal) -> tuple[Array, Array]:
    """Mean and variance of m at every τ."""
    precision = 1 / common.variance + prior.sigma**-2.0
    return (common.centre / common.variance + prior.mu * prior.sigma**-2.0) / precision, 1 / precision


def inner_range(common: Common, prior: Distribution) -> tuple[Array, Array]:
    """Where m can be, at every τ: within reach of the likelihood and of the prior, or between them."""
    law, sd = freeze_distribution(prior), np.sqrt(np.minimum(common.variance, 1e300))
    lowest, highest = float(law.ppf(1e-13)), float(law.ppf(1 - 1e-13))
    lower, upper = common.centre - 9 * sd, common.centre + 9 * sd
    inside = (lower < highest) & (upper > lowest)
    # Where the two do not meet, all mass is between the edge of the one and the edge of the other.
    low = np.where(inside, np.maximum(lower, lowest), np.where(lower >= highest, lowest, upper))
    high = np.where(inside, np.minimum(upper, highest), np.where(lower >= highest, lower, highest))
    return np.clip(low, lowest, highest), np.maximum(np.clip(high, lowest, highest), low + 1e-12)


def span(log_posterior: Callable[[Array], Array], prior: Distribution) -> tuple[float, float]:
    """The range of log τ outside of which the posterior is negligible."""
    law = freeze_distribution(prior)
    lower = float(np.log(max(float(law.ppf(1e-14)), 1e-150)))
    bounded = isinstance(prior, Uniform)
    upper = float(np.log(min(float(law.ppf(1.0 if bounded else 1 - 1e-14)), 1e150)))
    for _ in range(12):
        places = np.linspace(lower, upper, 120)
        density = np.nan_to_num(log_posterior(places), nan=-np.inf)  # where numbers end, so does the range
        kept = np.flatnonzero(density >= density.max() - DEPTH)
        first, last = max(kept[0] - 1, 0), min(kept[-1] + 1, len(places) - 1)
        if last - first > 0.8 * len(places):
            break
        lower, upper = float(places[first]), float(places[last])
    return lower, upper


def inverse(places: Array, log_height: Array, ranks: Array | float) -> Array:
    """Quantiles of a density given on equally spaced places."""
    density = np.exp(log_height - log_height.max())
    steps = 0.5 * (density[1:] + density[:-1])
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(np.interp(ranks * cumulative[-1], cumulative, places))


def effects_given(data: Rotated, tau: Array, mean: Array) -> tuple[Array, Array]:
    """Mean and SD of every coordinate's effect given τ and m: (point, coordinate)."""
    borrowed = data.borrowed(tau)
    there = np.isfinite(data.variance)
    centre = borrowed * (mean[:, None] * data.loading) + (1 - borrowed) * data.y
    variance = np.where(there, np.where(there, data.variance, 0.0) * (1 - borrowed), np.square(tau)[:, None])
    return centre, np.sqrt(variance)


def sign(data: Rotated, nodes: Nodes) -> Array:
    """P(effect > 0 | y) of every segment, exact to the accuracy of the nodes."""
    total = np.zeros(len(data.y))
    for rows in np.array_split(np.arange(len(nodes.tau)), max(1, nodes.tau.size * data.y.size // 2_000_000)):
        tau, weights = nodes.tau[rows], nodes.weights[rows]
        centre, sd = effects_given(data, tau, nodes.mean[rows])
        variance, pull = sd**2, data.borrowed(tau) * data.loading
        if data.axes is not None:
            centre, variance, pull = centre @ data.axes.T, variance @ (data.axes**2).T, pull @ data.axes.T
        spread = np.sqrt(variance + pull**2 * nodes.spread[rows, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(spread > 0, special.ndtr(centre / spread), centre > 0)
        total += weights @ each
    return np.clip(total, 0.0, 1.0)


def arms_of(model: Model, estimate: Array, se: Array, covariance: Array | None) -> list[Arm]:
    """One problem per arm; estimate and se have dims (segment, arm)."""
    prior = model.effect.mean
    mean: Distribution | float = prior
    between: Distribution | float = 0.0
    if model.pooling == "none":
        if not isinstance(prior, Normal):
            raise AssertionError("without pooling only a Normal prior has a closed form")
        mean, between = prior.mu, prior.sigma
    elif model.pooling == "partial" and model.effect.between is not None:
        between = model.effect.between
    columns = range(estimate.shape[1])
    return [Arm(rotated(estimate[:, a], se[:, a], covariance), mean, between) for a in columns]


def _log_sum(terms: Array) -> Array:
    top = terms.max(axis=1)
    return np.log(np.exp(terms - top[:, None]).sum(1)) + top
