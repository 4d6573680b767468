"""The posterior density of the coordinates, approximately: by Gaussian sites that are moved to every point.

    p(u | y) ≈ p(u) Z(u) exp Σ log E[exp(l − site)]        Z: the Gaussian's integral

It is what searches climb and proposals are fitted to; `weights` has what is exact.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from bayes_hte.inference.exact.latent.gaussian import (
    Sites,
    Solution,
    solve_gaussian,
)
from bayes_hte.inference.exact.latent.likelihood import (
    LONGEST_MOVE,
    CellData,
    compute_marginals,
    compute_means,
    fit_tangent_sites,
    move_sites,
    pack_cells,
)
from bayes_hte.inference.exact.latent.structure import NaturalValues, Structure, build_structure
from bayes_hte.model.normal_scores import Array
from bayes_hte.model.problem import Problem

CHUNK = 12_288
"""Numbers in one array: a dozen such arrays stay in a core's cache."""
NEWTON_STEPS = 6
"""Of η to its mode at a peak, at most."""
LEAST_MOVE = 1e-3
"""Of η in a Newton step, below which it has arrived."""
SITE_STEPS = 2
"""Of expectation propagation at a peak."""
NUISANCE_STEPS = 1
"""Newton steps of η at every point where a nuisance parameter moves it."""


@dataclass(frozen=True, slots=True)
class LatentDensity:
    """A problem ready to be evaluated at points, with the sites of a peak.

    Attributes
    ----------
    problem : Problem
    structure : Structure
    cells : CellData
        References are the means of η at the peak.
    sites : Sites
        At the peak, (segment, 1).
    site_steps : int
        Steps of expectation propagation at every point.
    newton_steps : int
        Newton steps of η before these, for points that are far from the peak.
    is_defensive : bool
        Whether some columns and offsets are drawn from wider distributions than the Gaussian, so that weights stay
        bounded where a likelihood leans to one side.
    draws_both_signs : bool
        Whether columns are drawn in antithetic pairs: twice the work, which even weights do not need.
    row_counts : tuple
        (problem, number of rows) of problems that stand side by side; empty where all rows are of `problem`.
    """

    problem: Problem
    structure: Structure
    cells: CellData
    sites: Sites
    site_steps: int = 1
    newton_steps: int = 0
    is_defensive: bool = False
    draws_both_signs: bool = True
    row_counts: tuple[tuple[Problem, int], ...] = ()

    @property
    def is_gaussian(self) -> bool:
        """Whether the likelihood of every cell is quadratic, so that sites are exact."""
        return self.cells.likelihood.is_quadratic

    @property
    def start(self) -> tuple[Array, ...]:
        """M − reference where every column is 0, (segment, 1)."""
        locations = [layout.location[:, np.newaxis] for layout in self.structure.layouts]
        if self.structure.has_baseline:
            locations = [locations[0]] + [locations[0] + effect for effect in locations[1:]]
        return tuple(location - reference for location, reference in zip(locations, self.cells.references, strict=True))

    def approximate(self, points: Array) -> Array:
        """Approximate the log density at points (point, coordinate) by sites alone."""
        chunks = [self.approximate_rows(points[rows]) for rows in self.cut_rows(len(points))]
        return np.concatenate(chunks) if chunks else np.empty(0)

    def approximate_rows(self, points: Array) -> Array:
        """Approximate the log density at points, all at once."""
        natural = self.structure.compute_natural(points)
        log_density = self.compute_point_density(points, natural)
        solution = self.solve_at(natural)
        if not self.is_gaussian:
            _, correction = move_sites(self.cells, solution.offsets.sites, compute_marginals(solution), natural)
            log_density = log_density + correction
        else:
            log_density = log_density + self.compute_constant(natural)
        total = log_density + solution.log_integral
        return np.where(np.isfinite(total), total, -np.inf)

    def compute_point_density(self, points: Array, natural: NaturalValues) -> Array:
        """Compute what depends on the coordinates alone: their prior, and the nuisance parameter's own part."""
        log_density = self.structure.compute_log_prior(points)
        likelihood = self.cells.likelihood
        if likelihood.compute_nuisance_density is None or likelihood.nuisance_name is None:
            return log_density
        nuisance, first, parts = natural[likelihood.nuisance_name], 0, []
        for problem, count in self.row_counts or ((self.problem, len(points)),):
            rows = nuisance[first : first + count]
            parts.append(likelihood.compute_nuisance_density(problem.cell_statistics, rows))
            first += count
        return np.asarray(log_density + np.concatenate(parts))

    def compute_constant(self, natural: NaturalValues) -> Array:
        """Compute Σ l at the references: what exact sites, which are 0 there, leave out; (row,) or (1,)."""
        total: Array = np.zeros(1)
        for j, nuisance in enumerate(self.cells.select_nuisances(natural)):
            nothing = np.zeros_like(self.cells.references[j])
            total = total + self.cells.evaluate(j, nothing, nuisance).sum(0)
        return total

    def solve_at(self, natural: NaturalValues) -> Solution:
        """Solve the Gaussian at points, with sites that have been moved there."""
        sites, newton_steps = self.sites, self.newton_steps
        positions = [np.zeros_like(reference) for reference in self.cells.references]
        if self.cells.likelihood.nuisance_name is not None:
            # The sites of the peak are of its own nuisance values, and these may move a cell by many of its SDs.
            sites = fit_tangent_sites(self.cells, positions, natural)
            newton_steps = max(newton_steps, NUISANCE_STEPS)
        solution = solve_gaussian(self.structure, natural, sites, self.start)
        if self.is_gaussian:
            return solution
        for _ in range(newton_steps):
            positions = limit_moves(positions, compute_means(solution))
            sites = fit_tangent_sites(self.cells, positions, natural)
            solution = solve_gaussian(self.structure, natural, sites, self.start)
        for _ in range(self.site_steps):
            sites, _ = move_sites(self.cells, solution.offsets.sites, compute_marginals(solution), natural)
            solution = solve_gaussian(self.structure, natural, sites, self.start)
        return solution

    @property
    def rows_per_chunk(self) -> int:
        """Points whose arrays, (segment, row), fit a core's cache."""
        return max(8, CHUNK // max(self.structure.segment_count, 1))

    def cut_rows(self, count: int) -> Iterator[slice]:
        """Cut points into chunks whose arrays fit a core's cache."""
        for first in range(0, count, self.rows_per_chunk):
            yield slice(first, min(first + self.rows_per_chunk, count))

    def settled(self, point: Array) -> "LatentDensity":
        """Return the density with references and sites at the mode of η given a point (coordinate,)."""
        return self.settled_rows(point[np.newaxis])

    def settled_rows(self, points: Array) -> "LatentDensity":
        """Return the density with references and sites at the modes of η given a point for every row."""
        natural = self.structure.compute_natural(points)
        density = self
        # Every row stops when it has arrived, whatever the others do.
        is_moving = np.ones(len(points), dtype=bool)
        # A likelihood that is quadratic is so however far away.
        longest = np.inf if density.is_gaussian else LONGEST_MOVE
        for _ in range(NEWTON_STEPS):
            nothing = [np.zeros_like(reference) for reference in density.cells.references]
            sites = fit_tangent_sites(density.cells, nothing, natural)
            solution = solve_gaussian(density.structure, natural, sites, density.start)
            shifts = tuple(
                np.where(is_moving, np.clip(np.nan_to_num(mean), -longest, longest), 0.0)
                for mean in compute_means(solution)
            )
            density = replace(density, cells=density.cells.moved(shifts))
            is_moving = is_moving & (np.max([np.abs(shift).max(0) for shift in shifts], axis=0) >= LEAST_MOVE)
            if not is_moving.any():
                break
        nothing = [np.zeros_like(reference) for reference in density.cells.references]
        sites = fit_tangent_sites(density.cells, nothing, natural)
        solution = solve_gaussian(density.structure, natural, sites, density.start)
        for _ in range(0 if density.is_gaussian else SITE_STEPS):
            sites, _ = move_sites(density.cells, sites, compute_marginals(solution), natural)
            solution = solve_gaussian(density.structure, natural, sites, density.start)
        return replace(density, sites=sites)


def limit_moves(positions: list[Array], wanted: list[Array]) -> list[Array]:
    """Move x towards where the Gaussian puts it, no further than a likelihood is nearly quadratic."""
    return [
        position + np.clip(np.nan_to_num(mean - position), -LONGEST_MOVE, LONGEST_MOVE)
        for position, mean in zip(positions, wanted, strict=True)
    ]


def build_density(problem: Problem, fixed: Mapping[tuple[str, int], float] | None = None) -> LatentDensity:
    """Prepare a problem; its sites are those of cells' own estimates until it is settled at a point."""
    structure = build_structure(problem, fixed)
    cells = pack_cells(problem)
    empty = tuple(np.zeros_like(reference) for reference in cells.references)
    return LatentDensity(problem, structure, cells, Sites(empty, empty))
