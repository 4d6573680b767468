"""Where to evaluate the posterior of the hyperparameters: mixtures of multivariate t, learnt from weighted points."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.inference.exact.search import Peak
from bayes_hte.inference.exact.space import Array

EXTRA = 3
"""Uniforms that a point takes besides those of its coordinates."""
FREEDOM = 4.0
"""Degrees of freedom: tails heavier than those of any posterior with a proper prior on log τ, which are exponential."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of multivariate t distributions with `FREEDOM` degrees of freedom.

    Attributes
    ----------
    weights : ndarray
        (component,), sums to 1.
    means : ndarray
        (component, coordinate).
    roots : ndarray
        (component, coordinate, coordinate): lower Cholesky factors of the scale matrices.
    """

    weights: Array
    means: Array
    roots: Array

    def draw(self, uniforms: Array) -> Array:
        """Points from uniforms (point, coordinate + `EXTRA`): one picks the component, two the tail."""
        component = np.minimum(np.searchsorted(np.cumsum(self.weights), uniforms[:, 0]), len(self.weights) - 1)
        chi2 = -2 * np.log(uniforms[:, 1] * uniforms[:, 2])  # of 4 degrees of freedom: two exponentials
        normal = special.ndtri(uniforms[:, EXTRA:]) * np.sqrt(FREEDOM / chi2)[:, None]
        points = np.empty_like(normal)
        for each, (mean, root) in enumerate(zip(self.means, self.roots, strict=True)):
            mine = component == each
            points[mine] = mean + normal[mine] @ root.T
        return points

    def distances(self, points: Array) -> Array:
        """Squared Mahalanobis distances (component, point)."""
        found = np.empty((len(self.means), len(points)))
        for each, (mean, inverse) in enumerate(zip(self.means, np.linalg.inv(self.roots), strict=True)):
            standard = inverse @ (points - mean).T
            np.einsum("ip,ip->p", standard, standard, out=found[each])
        return found

    def log_components(self, points: Array, distances: Array) -> Array:
        """Log of weight times density of every component: (component, point)."""
        size = points.shape[1]
        constant = (
            special.gammaln((FREEDOM + size) / 2) - special.gammaln(FREEDOM / 2) - 0.5 * size * np.log(FREEDOM * np.pi)
        )
        log_det = np.log(np.diagonal(self.roots, axis1=1, axis2=2)).sum(1)
        kernel = -0.5 * (FREEDOM + size) * np.log1p(distances / FREEDOM)
        return np.asarray(kernel + (constant - log_det + np.log(self.weights))[:, None])

    def log_density(self, points: Array) -> Array:
        """Log density of each point."""
        return _log_sum(self.log_components(points, self.distances(points)))


def around(mean: Array, covariance: Array, *, inflate: float) -> Mixture:
    """One t, its scale matrix the covariance times a factor."""
    return Mixture(np.ones(1), mean[None], np.linalg.cholesky(covariance * inflate)[None])


def surround(peaks: list[Peak], *, inflate: float) -> Mixture:
    """Put one t around each of several peaks, with equal shares."""
    return blend(
        [around(peak.point, peak.covariance, inflate=inflate) for peak in peaks], np.full(len(peaks), 1 / len(peaks))
    )


def _log_sum(log_parts: Array) -> Array:
    """Log of the sum over components; every point lies in the support of all of them."""
    top = log_parts.max(0)
    total: Array = top + np.log(np.exp(log_parts - top).sum(0))
    return total


def fitted(points: Array, weights: Array, components: int, *, rounds: int = 6) -> Mixture:
    """The mixture closest to weighted points (expectation–maximisation for t mixtures: Peel & McLachlan 2000)."""
    size = points.shape[1]
    mean = weights @ points
    centred = points - mean
    whole = (weights[:, None] * centred).T @ centred
    whole += np.diag(1e-6 * np.diag(whole) + 1e-12)
    if components == 1:
        return around(mean, whole, inflate=1.0)
    # Start from slices along the longest, most skewed direction, with equal shares of the weight.
    score = centred @ _longest(centred, weights, whole)
    order = np.argsort(score)
    slices = np.minimum((np.cumsum(weights[order]) * components).astype(int), components - 1)
    share = np.zeros((components, len(points)))
    share[slices, order] = 1.0
    pull = np.ones_like(share)
    mixture = around(mean, whole, inflate=1.0)
    for _ in range(rounds):
        mixture = _maximised(points, weights * share, weights * share * pull, whole)
        distances = mixture.distances(points)
        log_parts = mixture.log_components(points, distances)
        share = np.exp(log_parts - _log_sum(log_parts))
        pull = (FREEDOM + size) / (FREEDOM + distances)
    return mixture


def _longest(centred: Array, weights: Array, covariance: Array) -> Array:
    """The coordinate with the strongest skewness, in its own SDs."""
    standard = centred / np.sqrt(np.diag(covariance))
    skewness = np.abs(weights @ standard**3)
    chosen = np.zeros(centred.shape[1])
    chosen[int(np.argmax(skewness))] = 1.0
    return chosen


def _maximised(points: Array, mass: Array, pulled: Array, whole: Array) -> Mixture:
    total = np.maximum(mass.sum(1), 1e-3)
    means = (pulled @ points) / np.maximum(pulled.sum(1), 1e-300)[:, None]
    roots = []
    for component, mean in enumerate(means):
        centred = points - mean
        scatter = (pulled[component][:, None] * centred).T @ centred / total[component]
        # A hundredth of the whole covariance keeps every component proper and wide enough to explore.
        roots.append(np.linalg.cholesky(scatter + 0.01 * whole))
    return Mixture(total / total.sum(), means, np.stack(roots))


def blend(mixtures: list[Mixture], shares: NDArray[np.float64]) -> Mixture:
    """Several mixtures as one; components that they share are counted once."""
    merged: dict[bytes, tuple[float, Array, Array]] = {}
    for mixture, share in zip(mixtures, shares, strict=True):
        for weight, mean, root in zip(mixture.weights, mixture.means, mixture.roots, strict=True):
            key = mean.tobytes() + root.tobytes()
            merged[key] = (merged[key][0] if key in merged else 0.0) + share * weight, mean, root
    weights, means, roots = zip(*merged.values(), strict=True)
    return Mixture(np.array(weights) / np.sum(weights), np.stack(means), np.stack(roots))
