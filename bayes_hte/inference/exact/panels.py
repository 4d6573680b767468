"""Integrals of many densities of one variable at once, to a tolerance: Gauss–Legendre panels, halved where they err.

A density is given by its logarithm, and every panel belongs to a row: a density of its own. A panel is good enough
where it agrees with its halves to within `TOLERANCE` of its row's integral; else its halves take its place (de Boor
1971; Piessens et al. 1983, QUADPACK). Densities are compared on the log scale, so that a peak far inside a wide panel,
whose slopes reach the panel's nodes, is found however narrow it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.exact.space import Array

Rows = NDArray[np.intp]
LogDensity = Callable[[Rows, Array], Array]
"""(row (panel,), x (panel, node)) -> log density (panel, node)."""

ORDER = 10
"""Nodes in a panel: a density that is normal over two SDs is integrated to 1e-13."""
TOLERANCE = 1e-10
"""Error of a panel as a share of its row's integral."""
MAX_ROUNDS = 48
"""Halvings, at most: a singularity is followed to 1e-14 of the first panel's width."""
PLACES = 17
"""Equally spaced values between which the distribution function inside a panel is interpolated for draws."""


@dataclass(frozen=True, slots=True)
class Panels:
    """Panels of all rows, ascending within a row.

    Attributes
    ----------
    row : ndarray
        (panel,).
    lower, upper : ndarray
        (panel,) ends.
    nodes, log_terms : ndarray
        (panel, node): values, and the logarithm of weight times density.
    log_total : ndarray
        (row,): logarithm of the integral.
    error : ndarray
        (row,): by how much finer panels change the integral, as a share of it.
    """

    row: Rows
    lower: Array
    upper: Array
    nodes: Array
    log_terms: Array
    log_total: Array
    error: Array

    def draw(self, row: Rows, ranks: Array) -> Array:
        """Draw one value per rank from the density of its row, by its inverse distribution function.

        Parameters
        ----------
        row : ndarray
            (draw,) rows to draw from.
        ranks : ndarray
            (draw,) uniforms.
        """
        mass = np.exp(_log_sum(self.log_terms) - self.log_total[self.row])
        # Distribution functions of all rows in one ascending array: that of row r rises from r to r + 1.
        before = np.cumsum(mass) - mass
        starts = np.searchsorted(self.row, np.arange(len(self.log_total)))
        ends = np.append(starts[1:], len(self.row)) - 1
        row_mass = before[ends] + mass[ends] - before[starts]
        floor = self.row + (before - before[starts][self.row]) / row_mass[self.row]
        panel = np.clip(np.searchsorted(floor, row + ranks, side="right") - 1, starts[row], ends[row])
        inside = (row + ranks - floor[panel]) * row_mass[row] / mass[panel]
        x = self.lower[panel, None] + (self.upper - self.lower)[panel, None] * np.linspace(0, 1, PLACES)
        height = self.log_terms - legendre(ORDER)[1]
        heights = np.exp(height - np.maximum(height.max(1), -1e300)[:, None])
        # The density is the polynomial through its nodes to the accuracy of the integrals.
        density = np.maximum(heights[panel] @ _interpolation().T, 1e-300)
        cumulative = np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1)
        target = np.clip(inside, 0.0, 1.0) * cumulative[:, -1]
        step = np.minimum((cumulative < target[:, None]).sum(1), PLACES - 2)
        draws = np.arange(len(row))
        low = np.where(step > 0, cumulative[draws, np.maximum(step - 1, 0)], 0.0)
        share = np.clip((target - low) / np.maximum(cumulative[draws, step] - low, 1e-300), 0.0, 1.0)
        return np.asarray(x[draws, step] + share * (x[draws, step + 1] - x[draws, step]))


@lru_cache(maxsize=8)
def legendre(count: int) -> tuple[Array, Array]:
    """Compute nodes and log weights of Gauss–Legendre quadrature on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 * (nodes + 1), np.log(0.5 * weights)


@lru_cache(maxsize=1)
def _interpolation() -> Array:
    """Compute the matrix from values at the nodes of a panel to values at `PLACES` equally spaced ones."""
    nodes, places = legendre(ORDER)[0], np.linspace(0, 1, PLACES)
    others = ~np.eye(ORDER, dtype=bool)
    # Lagrange: l_j(x) = Π_{k ≠ j} (x − x_k) / (x_j − x_k)
    columns = [
        np.prod((places[:, None] - nodes[keep]) / (nodes[j] - nodes[keep]), axis=1) for j, keep in enumerate(others)
    ]
    return np.stack(columns, axis=1)


def integrate(log_density: LogDensity, row: Rows, lower: Array, upper: Array) -> Panels:
    """Integrate the densities of all rows over their panels, which are halved as often as it takes.

    Parameters
    ----------
    log_density : callable
    row, lower, upper : ndarray
        (panel,): the panels to begin with; every row from 0 on has one, and none of them overlap. A panel whose
        ends are the same is left out.
    """
    rows = int(row.max()) + 1
    wide = upper > lower
    active = _evaluate(log_density, row[wide], lower[wide], upper[wide])
    done: list[_Batch] = []
    error = np.zeros(rows)
    for round_ in range(MAX_ROUNDS):
        log_total = _sum_rows(rows, [*done, active])
        middle = 0.5 * (active.lower + active.upper)
        halves = _evaluate(
            log_density,
            np.repeat(active.row, 2),
            np.stack([active.lower, middle], axis=1).ravel(),
            np.stack([middle, active.upper], axis=1).ravel(),
        )
        whole, both = _log_sum(active.log_terms), _log_sum(_log_sum(halves.log_terms).reshape(-1, 2))
        # Halves may hold far more than the whole panel showed: an infinite share of what was known so far.
        shares = [np.exp(np.minimum(each - log_total[active.row], 700.0)) for each in (whole, both)]
        missed = np.abs(shares[0] - shares[1])
        # A panel that cannot be halved any more in double precision stays as it is.
        good = (missed <= TOLERANCE) | ~((active.lower < middle) & (middle < active.upper))
        good |= round_ == MAX_ROUNDS - 1
        np.add.at(error, active.row[good], missed[good])
        done.append(active.pick(good))
        active = halves.pick(np.repeat(~good, 2))
        if not len(active.row):
            break
    merged = _Batch(
        np.concatenate([each.row for each in done]),
        np.concatenate([each.lower for each in done]),
        np.concatenate([each.upper for each in done]),
        np.concatenate([each.nodes for each in done]),
        np.concatenate([each.log_terms for each in done]),
    )
    order = np.lexsort((merged.lower, merged.row))
    log_total = _sum_rows(rows, [merged])
    kept = merged.pick(order)
    return Panels(kept.row, kept.lower, kept.upper, kept.nodes, kept.log_terms, log_total, error)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some panels."""

    row: Rows
    lower: Array
    upper: Array
    nodes: Array
    log_terms: Array

    def pick(self, chosen: NDArray[np.bool_] | Rows) -> "_Batch":
        """Only these panels."""
        return _Batch(
            self.row[chosen], self.lower[chosen], self.upper[chosen], self.nodes[chosen], self.log_terms[chosen]
        )


def _evaluate(log_density: LogDensity, row: Rows, lower: Array, upper: Array) -> _Batch:
    places, log_weights = legendre(ORDER)
    width = (upper - lower)[:, None]
    nodes = lower[:, None] + width * places
    heights = np.nan_to_num(log_density(row, nodes), nan=-np.inf, posinf=-np.inf)
    return _Batch(row, lower, upper, nodes, heights + np.log(width) + log_weights)


def _sum_rows(rows: int, batches: list[_Batch]) -> Array:
    """Compute the log of each row's integral over all batches."""
    row = np.concatenate([each.row for each in batches])
    terms = np.concatenate([_log_sum(each.log_terms) for each in batches])
    top = np.full(rows, -np.inf)
    np.maximum.at(top, row, terms)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.bincount(row, weights=np.exp(terms - top[row]), minlength=rows)
    return np.asarray(np.log(np.maximum(total, 1e-300)) + top)


def _log_sum(terms: Array) -> Array:
    """Compute log Σ exp(term) over the last axis; −∞ where all terms are."""
    top = np.maximum(terms.max(-1), -1e300)
    return np.asarray(np.log(np.maximum(np.exp(terms - top[..., None]).sum(-1), 1e-300)) + top)
