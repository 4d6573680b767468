"""Integrate a segment's offsets given everything that segments share: log p(data of s | u, v).

Given the columns, offsets are low-dimensional: the baseline's, and given it every arm's own. Sites are moved to each
draw, and what they miss is integrated by Gauss-Hermite quadrature around them, arms within the baseline:

    log Z_s + log E_(z_0)[ Π_j E_(z_j | z_0)[ exp(l_j − site_j) ] ]
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from bayes_hte.inference.exact.latent.density import LatentDensity, build_density, limit_moves
from bayes_hte.inference.exact.latent.gaussian import (
    OffsetPosterior,
    compute_centres,
    compute_offset_scales,
    solve_offsets,
)
from bayes_hte.inference.exact.latent.likelihood import Marginals, fit_tangent_sites, move_sites
from bayes_hte.inference.exact.latent.structure import NaturalValues
from bayes_hte.model.normal_scores import Array
from bayes_hte.model.problem import Problem

NEWTON_STEPS, SITE_STEPS = 6, 2
ORDER = 11
"""Nodes in each direction: likelihoods of few events lean to one side."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(ORDER)
LOG_WEIGHTS = np.log(WEIGHTS / WEIGHTS.sum())


@dataclass(frozen=True, slots=True)
class SharedDraws:
    """Draws of what segments share.

    Attributes
    ----------
    natural : mapping
        SDs, correlations and nuisance parameters in their own units: (draw, entry).
    columns : ndarray
        Means, slopes and effects of levels less their locations, (draw, column).
    """

    natural: NaturalValues
    columns: Array

    def take(self, rows: slice) -> "SharedDraws":
        """Take some of the draws."""
        return SharedDraws({name: values[rows] for name, values in self.natural.items()}, self.columns[rows])


def collect_shared_draws(density: LatentDensity, variables: Mapping[str, Array]) -> SharedDraws:
    """Collect what segments share from a posterior's variables, (draw, entry) each."""
    structure = density.structure
    natural = {name: variables[name] for name in structure.sizes if not name.endswith("_mixing")}
    draw_count = len(next(iter(variables.values())))
    columns = np.empty((draw_count, structure.column_count))
    for column, (name, position, location) in enumerate(structure.column_names):
        columns[:, column] = variables[name][:, position] - location
    return SharedDraws(natural, columns)


def compute_segment_evidence(problem: Problem, variables: Mapping[str, Array]) -> Array:
    """Compute log p(data of each segment | what segments share) for draws, (draw, segment).

    Parameters
    ----------
    problem : Problem
    variables : mapping
        Hyperparameters and effects of levels by name, (draw, entry).
    """
    density = build_density(problem)
    draws = collect_shared_draws(density, variables)
    chunks = [_integrate_offsets(density, draws.take(rows)) for rows in density.cut_rows(len(draws.columns))]
    return np.concatenate(chunks)


def _integrate_offsets(density: LatentDensity, draws: SharedDraws) -> Array:
    """Integrate the offsets of all segments at some draws: (draw, segment)."""
    structure, cells, rows = density.structure, density.cells, len(draws.columns)
    scales = compute_offset_scales(structure, draws.natural, rows)
    centres = compute_centres(structure, density.start, draws.columns)
    positions = [np.zeros_like(reference) for reference in cells.references]
    offsets = solve_offsets(scales, fit_tangent_sites(cells, positions, draws.natural))
    if not density.is_gaussian:
        for _ in range(NEWTON_STEPS):
            positions = limit_moves(positions, offsets.compute_means(centres))
            offsets = solve_offsets(scales, fit_tangent_sites(cells, positions, draws.natural))
        for _ in range(SITE_STEPS):
            marginals = Marginals(offsets.compute_means(centres), offsets.compute_variances())
            sites, _ = move_sites(cells, offsets.sites, marginals, draws.natural)
            offsets = solve_offsets(scales, sites)
    log_evidence = offsets.compute_segment_integral(centres)
    shape = (structure.segment_count, rows)
    if density.is_gaussian:
        nuisances = cells.select_nuisances(draws.natural)
        constant = sum(cells.evaluate(j, np.zeros_like(positions[j]), nuisance)
                       for j, nuisance in enumerate(nuisances))  # fmt: skip
        return np.array(np.broadcast_to(log_evidence + constant, shape).T)
    return np.array(np.broadcast_to(log_evidence + _integrate_rest(density, offsets, centres, draws), shape).T)


def _integrate_rest(
    density: LatentDensity, offsets: OffsetPosterior, centres: list[Array], draws: SharedDraws
) -> Array:
    """Integrate what sites miss, exp Σ (l − site), over the offsets: its log, (segment, row)."""
    nuisances = density.cells.select_nuisances(draws.natural)
    shared_mean, shared_sd = offsets.compute_shared_mean(centres), np.sqrt(offsets.shared_variance)
    # Without a baseline nothing is shared, and its one node is the mean.
    shared_nodes = list(zip(NODES, LOG_WEIGHTS, strict=True)) if density.structure.has_baseline else [(0.0, 0.0)]
    parts = []
    for node, log_weight in shared_nodes:
        shared = shared_mean + node * shared_sd
        total: Array = np.full((), log_weight)
        for j, centre in enumerate(centres):
            mean = offsets.compute_own_mean(j, centre + offsets.scales.shared[j] * shared)
            sd = offsets.scales.own[j] * np.sqrt(offsets.shrinkage[j])
            total = total + _average_ratio(density, offsets, (j, nuisances[j]), mean, sd)
        parts.append(total)
    return np.asarray(special.logsumexp(np.stack(np.broadcast_arrays(*parts)), axis=0))


def _average_ratio(
    density: LatentDensity, offsets: OffsetPosterior, cell: tuple[int, Array | None], mean: Array, sd: Array
) -> Array:
    """Average exp(l − site) of a cell over N(mean, sd²): its log."""
    j, nuisance = cell
    linear, precision = offsets.sites.linear[j], offsets.sites.precision[j]
    nodes = zip(NODES, LOG_WEIGHTS, strict=True) if np.any(sd > 0) else [(0.0, 0.0)]
    parts = []
    for node, log_weight in nodes:
        x = mean + node * sd
        parts.append(density.cells.evaluate(j, x, nuisance) - (linear - 0.5 * precision * x) * x + log_weight)
    return np.asarray(special.logsumexp(np.stack(parts), axis=0))
