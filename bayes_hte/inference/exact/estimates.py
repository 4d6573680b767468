"""Published estimates: everything but τ has a closed form, or nearly, so one-dimensional quadrature is exact.

y ~ Normal(effect, V),  effect[s] ~ Normal(m, τ)     V diagonal, or a covariance matrix that is diagonalised first

Given τ the likelihood of m is normal. Under a Normal prior m is integrated in closed form, under any other by panels
that are halved until they agree (`panels`); then τ on its logarithm, over a range that the density itself ends
(direct integration as in bayesmeta: Röver 2020, J. Stat. Softw. 93(6)). With several arms every arm is a problem of
its own; without pooling every segment is one.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from bayes_hte.inference.exact.common_mean import Common, draw_mean, integrate_mean, to_natural
from bayes_hte.inference.exact.log_range import LARGEST_LOG, LogRange, find_log_range, find_prior_peak, find_upper_bound
from bayes_hte.inference.exact.panels import Panels, Rows, integrate
from bayes_hte.inference.exact.space import Array
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.spec.distributions import Distribution, Normal
from bayes_hte.spec.model import Model

LEAST_WEIGHT = 1e-16
"""Of a node, relative to the heaviest: nodes below it are left out."""
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
    error : float
        By how much finer panels, and what lies beyond the range of τ, change the evidence, as a share of it.
    """

    tau: Array
    mean: Array
    spread: Array
    weights: Array
    log_evidence: float
    error: float


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
        return integrate_mean(common, self.mean).log_total

    def log_posterior(self, log_tau: Array) -> Array:
        """Log density of log τ and the data."""
        tau = np.exp(log_tau)
        log_prior = compute_log_prior(_law(self.between), tau) + log_tau
        # The data are asked only where the prior is not 0 already.
        found = np.full(len(tau), -np.inf)
        possible = np.isfinite(log_prior)
        found[possible] = self.log_marginal(tau[possible]) + log_prior[possible]
        return found

    def find_range(self) -> LogRange:
        """Find the range of log τ outside of which the posterior is negligible, from the posterior itself."""
        variance = self.data.variance[np.isfinite(self.data.variance) & (self.data.variance > 0)]
        start = find_prior_peak(_law(self.between))
        likely = [start, start]
        if len(variance):
            widest = float(np.ptp(self.data.y)) + float(variance.max() ** 0.5)
            likely += [float(np.log(0.1 * variance.min() ** 0.5)), float(np.log(10 * widest))]
        return find_log_range(self.log_posterior, min(likely), max(likely), _law(self.between))

    def integrate(self, log_range: LogRange) -> Panels:
        """Integrate the posterior over log τ."""
        edges = log_range.edges(1.0)
        row = np.zeros(len(edges) - 1, dtype=np.intp)
        return integrate(self._log_density, row, edges[:-1], edges[1:])

    def _log_density(self, row: Rows, log_tau: Array) -> Array:
        return self.log_posterior(log_tau.ravel()).reshape(log_tau.shape)

    def nodes(self) -> Nodes:
        """Compute the joint posterior of τ and m on nodes."""
        if isinstance(self.between, float):
            log_tau, log_terms, error = (
                np.log([max(self.between, 1e-300)]),
                self.log_marginal(np.array([self.between])),
                0.0,
            )
            tau = np.array([self.between])
        else:
            log_range = self.find_range()
            panels = self.integrate(log_range)
            log_tail = self._log_tail(log_range)
            log_tau = np.append(log_range.lower - 1 / log_range.lower_slope, panels.nodes.ravel())
            log_terms = np.append(log_tail, panels.log_terms.ravel())
            beyond = np.exp(self.log_posterior(np.array([log_range.upper]))[0] - panels.log_total[0])
            # Beyond the upper end the density falls by DEPTH more within a few units, unless the prior ends there.
            error = float(panels.error[0]) + (0.0 if np.isfinite(find_upper_bound(self.between)) else float(beyond))
            tau = np.exp(log_tau)
        kept = log_terms > log_terms.max() + np.log(LEAST_WEIGHT)
        tau, log_terms = tau[kept], log_terms[kept]
        common = likelihood(self.data, tau)
        if isinstance(self.mean, Normal):
            mean, variance = given_tau(common, self.mean)
        elif isinstance(self.mean, float):
            mean, variance = np.full(len(tau), self.mean), np.zeros(len(tau))
        else:
            inner = integrate_mean(common, self.mean)
            error += float(inner.error.max())
            joint = log_terms[inner.row, None] + inner.log_terms - inner.log_total[inner.row, None]
            heavy = joint > joint.max() + np.log(LEAST_WEIGHT)
            tau = np.broadcast_to(tau[inner.row, None], joint.shape)[heavy]
            mean, log_terms = to_natural(inner.nodes, self.mean)[heavy], joint[heavy]
            variance = np.zeros(len(mean))
        log_evidence = float(np.logaddexp.reduce(log_terms))
        return Nodes(tau, mean, variance, np.exp(log_terms - log_evidence), log_evidence, error)

    def _log_tail(self, log_range: LogRange) -> float:
        """Compute the log of the mass below the range, where the density of log τ is an exponential."""
        # ∫ exp(f(l) + slope (t − l)) dt over t < l  =  exp(f(l)) / slope
        return float(self.log_posterior(np.array([log_range.lower]))[0] - np.log(log_range.lower_slope))

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw τ by its inverse distribution function, one in each of `count` strata, and m given τ."""
        ranks = (rng.permutation(count) + rng.random(count)) / count
        tau = self._draw_tau(ranks)
        common = likelihood(self.data, tau)
        ranks = (rng.permutation(count) + rng.random(count)) / count
        if isinstance(self.mean, float):
            return tau, np.full(count, self.mean)
        if isinstance(self.mean, Normal):
            mean, variance = given_tau(common, self.mean)
            return tau, mean + np.sqrt(variance) * special.ndtri(ranks)
        return tau, draw_mean(common, self.mean, ranks)

    def _draw_tau(self, ranks: Array) -> Array:
        if isinstance(self.between, float):
            return np.full(len(ranks), self.between)
        log_range = self.find_range()
        panels = self.integrate(log_range)
        below = 1 / (1 + np.exp(panels.log_total[0] - self._log_tail(log_range)))
        # Of an exponential that ends at l:  t = l + log(rank) / slope
        with np.errstate(divide="ignore"):
            tail = log_range.lower + np.log(np.minimum(ranks / max(below, 1e-300), 1.0)) / log_range.lower_slope
        row = np.zeros(len(ranks), dtype=np.intp)
        inside = panels.draw(row, np.clip((ranks - below) / (1 - below), 0.0, 1.0))
        return np.asarray(np.exp(np.maximum(np.where(ranks < below, tail, inside), -LARGEST_LOG)))


def _law(prior: Distribution | float) -> Distribution:
    """A prior where a fixed value would make no sense."""
    if isinstance(prior, float):
        raise AssertionError("a fixed value has no density")
    return prior


def given_tau(common: Common, prior: Normal) -> tuple[Array, Array]:
    """Mean and variance of m at every τ."""
    precision = 1 / common.variance + prior.sigma**-2.0
    return (common.centre / common.variance + prior.mu * prior.sigma**-2.0) / precision, 1 / precision


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
    """One problem per arm; estimate and se have dims (segment, arm). Without pooling, only under a Normal prior."""
    prior = model.effect.mean
    mean: Distribution | float = prior
    between: Distribution | float = 0.0
    if model.pooling == "none":
        if not isinstance(prior, Normal):
            raise AssertionError("without pooling only a Normal prior is a problem of all segments together")
        mean, between = prior.mu, prior.sigma
    elif model.pooling == "partial" and model.effect.between is not None:
        between = model.effect.between
    columns = range(estimate.shape[1])
    return [Arm(rotated(estimate[:, a], se[:, a], covariance), mean, between) for a in columns]


def list_separate(estimate: Array, se: Array) -> Common:
    """List every segment's likelihood of its own effect, each a row; a missing estimate says nothing."""
    there = np.isfinite(se)
    with np.errstate(divide="ignore"):
        height = np.where(there, -np.log(np.where(there, se, 1.0)) - 0.5 * LOG_2PI, 0.0)
    return Common(height, np.where(there, estimate, 0.0), np.where(there, se, np.inf) ** 2)
