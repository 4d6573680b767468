"""Evaluate the likelihood of cells, (segment, row), and approximate it by Gaussian sites.

A site is moved in one step of expectation propagation: under the marginal N(m, V) of η that all sites give,
the site's own likelihood takes its place, and the new site is the one that leaves mean and variance as they are then.

References
----------
Minka (2001), Expectation propagation for approximate Bayesian inference, UAI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bayes_hte.inference.exact.latent.gaussian import Sites, Solution, compute_centre_covariance, compute_variances
from bayes_hte.inference.exact.latent.structure import NaturalValues
from bayes_hte.model.families.cell_likelihood import CellLikelihood
from bayes_hte.model.normal_scores import Array
from bayes_hte.model.problem import Problem

NODE_COUNT = 5
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(NODE_COUNT)
LOG_WEIGHTS = np.log(WEIGHTS / WEIGHTS.sum())
VARIANCE_RANGE = (0.2, 5.0)
"""Of a new variance, in old ones: a step may go so far, and no further."""
LONGEST_SHIFT = 2.0
"""Of a new mean, in old SDs."""
LEAST_PRECISION = 0.05
"""Of a new site's precision, in the old one's: sites stay proper."""
LONGEST_MOVE = 2.0
"""Of η in a Newton step: likelihoods on a log or logit scale are not quadratic further away."""


@dataclass(frozen=True, slots=True)
class CellData:
    """The data of all cells, and the reference from which every η is counted.

    Attributes
    ----------
    likelihood : CellLikelihood
    arms : tuple of mapping
        Packed arrays of each cell of a segment: the arms, or the estimates of treated arms.
    references : tuple of ndarray
        (segment, 1).
    """

    likelihood: CellLikelihood
    arms: tuple[Mapping[str, Array], ...]
    references: tuple[Array, ...]

    def evaluate(self, j: int, x: Array, nuisance: Array | None) -> Array:
        """Evaluate the log density at η = reference + x, (segment, row)."""
        eta = self._predict(j, x, nuisance)
        return np.asarray(self.likelihood.compute_log_density(self.arms[j], eta.T, nuisance)).T

    def derive(self, j: int, x: Array, nuisance: Array | None) -> tuple[Array, Array]:
        """Compute slope and curvature at η = reference + x, (segment, row)."""
        slope, curvature = self.likelihood.compute_derivatives(self.arms[j], self._predict(j, x, nuisance).T, nuisance)
        return np.asarray(slope).T, np.asarray(curvature).T

    def _predict(self, j: int, x: Array, nuisance: Array | None) -> Array:
        """Compute η, with a row for every value of the nuisance parameter."""
        eta = self.references[j] + x
        return eta if nuisance is None else np.broadcast_to(eta, (len(eta), max(eta.shape[1], nuisance.shape[-2])))

    def select_nuisances(self, natural: NaturalValues) -> list[Array | None]:
        """Select the nuisance values of every cell at points."""
        return [self.likelihood.select_arm_nuisance(natural, j) for j in range(len(self.arms))]

    def moved(self, shifts: tuple[Array, ...]) -> "CellData":
        """Return the data with other references."""
        return replace(self, references=tuple(old + by for old, by in zip(self.references, shifts, strict=True)))


def pack_cells(problem: Problem) -> CellData:
    """Pack the data of a problem; references are the cells' own estimates."""
    likelihood = problem.family.checked_cell_likelihood
    cell_statistics = problem.cell_statistics.transpose("segment", "arm", ...)
    packed = likelihood.pack_arrays(cell_statistics)
    arms = tuple(
        {name: np.ascontiguousarray(values[..., arm]) for name, values in packed.items()}
        for arm in range(cell_statistics.sizes["arm"])
    )
    references = tuple(np.nan_to_num(likelihood.guess_eta(arm_data))[:, np.newaxis] for arm_data in arms)
    return CellData(likelihood, arms, references)


def fit_tangent_sites(cells: CellData, positions: list[Array], natural: NaturalValues) -> Sites:
    """Fit sites that touch the log likelihood at x (`positions`): r = l' + w x, w = −l''."""
    linear, precision = [], []
    for j, nuisance in enumerate(cells.select_nuisances(natural)):
        slope, curvature = cells.derive(j, positions[j], nuisance)
        curvature = np.maximum(curvature, 0.0)
        linear.append(slope + curvature * positions[j])
        precision.append(curvature)
    return Sites(tuple(linear), tuple(precision))


@dataclass(frozen=True, slots=True)
class Marginals:
    """Means and variances of x under the Gaussian, cell by cell, (segment, row)."""

    means: list[Array]
    variances: list[Array]


def compute_means(solution: Solution) -> list[Array]:
    """Compute posterior means of x = η − reference."""
    return solution.offsets.compute_means(solution.compute_centres(solution.column_mean))


def move_sites(cells: CellData, sites: Sites, marginals: Marginals, natural: NaturalValues) -> tuple[Sites, Array]:
    """Move every site by one step of expectation propagation.

    Returns
    -------
    Sites
    correction : ndarray
        Σ log E[exp(l − site)] over the cells under their old marginals, (row,).
    """
    linear, precision = [], []
    correction: Array = np.zeros(())
    for j, nuisance in enumerate(cells.select_nuisances(natural)):
        mean, sd = marginals.means[j], np.sqrt(marginals.variances[j])
        r, w = sites.linear[j], sites.precision[j]
        moments = _tilt(cells, (j, nuisance), (mean, sd), (r, w))
        correction = correction + moments.log_mass.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            old_precision = 1 / sd**2
            new_precision = 1 / (sd**2 * moments.variance)
            # the site's own part: what is there less what is without it
            moved = np.maximum(w + new_precision - old_precision, LEAST_PRECISION * w)
            kept = moved - w
            # r' − r = m' / V' − m / V, with the variance that the limited precision gives
            pull = r + (mean + sd * moments.mean) * (old_precision + kept) - mean * old_precision
        is_usable = np.isfinite(pull) & np.isfinite(moved) & (sd > 0)
        linear.append(np.where(is_usable, pull, r))
        precision.append(np.where(is_usable, moved, w))
    return Sites(tuple(linear), tuple(precision)), correction


@dataclass(frozen=True, slots=True)
class _TiltedMoments:
    """Of (x − m) / √V under N(m, V) times the likelihood over the site."""

    log_mass: Array
    mean: Array
    variance: Array


def _tilt(
    cells: CellData, cell: tuple[int, Array | None], marginal: tuple[Array, Array], site: tuple[Array, Array]
) -> _TiltedMoments:
    (j, nuisance), (mean, sd), (linear, precision) = cell, marginal, site
    differences = []
    for node in NODES:
        x = mean + sd * node
        differences.append(cells.evaluate(j, x, nuisance) - (linear - 0.5 * precision * x) * x)
    top = np.maximum.reduce(differences)
    mass, first, second = np.zeros_like(top), np.zeros_like(top), np.zeros_like(top)
    for node, log_weight, difference in zip(NODES, LOG_WEIGHTS, differences, strict=True):
        share = np.exp(difference - top + log_weight)
        mass += share
        first += node * share
        second += node**2 * share
    shift = first / mass
    spread = second / mass - shift**2
    return _TiltedMoments(
        top + np.log(mass), np.clip(shift, -LONGEST_SHIFT, LONGEST_SHIFT), np.clip(spread, *VARIANCE_RANGE)
    )


def compute_marginals(solution: Solution) -> Marginals:
    """Compute the marginals of x.

    With the covariance of centres at the point itself: that of a peak may be too wide by orders of magnitude.
    """
    covariance = compute_centre_covariance(solution)
    return Marginals(compute_means(solution), compute_variances(solution, covariance, against_control=False))
