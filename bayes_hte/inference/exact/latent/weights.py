"""Weigh points of the coordinates exactly, and draw everything else at each.

    p(u | y) ∝ p(u) Z(u) R(u)      Z: the Gaussian's integral,  R = E_q[exp Σ (l − site)],  q: the Gaussian

R is estimated by antithetic draws. Columns v come in pairs v̂ ± L⁻ᵀ ε; given v segments are independent, so every
segment has a pair of offsets of its own, averaged before the product over segments:

    R(u) = ½ Σ_(v pair) Π_s ½ Σ_(offsets pair) exp Σ_j (l_j − site_j)

The odd part of what sites miss, which would ruin a product over hundreds of segments, cancels twice. Where the two of a
pair of columns hardly differ, one of them is enough.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.exact.latent.density import LatentDensity
from bayes_hte.inference.exact.latent.gaussian import Solution, compute_centre_covariance, compute_variances
from bayes_hte.inference.exact.latent.likelihood import CellData, compute_means
from bayes_hte.inference.exact.latent.structure import NaturalValues
from bayes_hte.model.normal_scores import Array

WIDE_SHARE, WIDE_SPREAD = 0.3, 1.7
"""Of columns drawn from a wider normal, where draws are defensive."""


@dataclass(frozen=True, slots=True)
class LatentDraws:
    """Weights of points, and one joint draw of everything Gaussian at each.

    Attributes
    ----------
    log_weight : ndarray
        log p(u) Z R, unbiased on the natural scale: (point,).
    noise : ndarray
        Half the squared difference of the logarithms of the two estimates of R at a point: (point,).
    columns : ndarray
        v, (point, column), in units of their scales D.
    column_scales : ndarray
        D, (point, column).
    predictors : ndarray
        η of every cell: (cell, segment, point).
    effect_means, effect_sds : ndarray
        Of every effect under the Gaussian: (arm, segment, point).
    log_ratio : ndarray
        log R, without the correction for columns from a wider normal: (point,).
    plain_signs : ndarray
        Whether effects are positive in a draw of the columns as they were drawn, and of offsets from the Gaussian,
        made with the same random numbers: (arm, segment, point).
    """

    log_weight: Array
    noise: Array
    columns: Array
    column_scales: Array
    predictors: Array
    effect_means: Array
    effect_sds: Array
    log_ratio: Array
    plain_signs: NDArray[np.bool_]


def weigh_points(density: LatentDensity, points: Array, rng: np.random.Generator) -> LatentDraws:
    """Weigh points exactly, and draw means, levels and coefficients of segments at each."""
    chunks = [_weigh_chunk(density, points[rows], rng) for rows in density.cut_rows(len(points))]
    return join_draws(chunks)


def join_draws(chunks: list[LatentDraws]) -> LatentDraws:
    """Join draws at different points."""
    return LatentDraws(
        *(np.concatenate([getattr(chunk, name) for chunk in chunks], axis=axis) for name, axis in _POINT_AXES.items())
    )


_POINT_AXES = {"log_weight": 0, "noise": 0, "columns": 0, "column_scales": 0, "predictors": 2, "effect_means": 2,
               "effect_sds": 2, "log_ratio": 0, "plain_signs": 2}  # fmt: skip
"""Axis of the points in every field of `LatentDraws`, in their order."""


def _weigh_chunk(density: LatentDensity, points: Array, rng: np.random.Generator) -> LatentDraws:
    natural = density.structure.compute_natural(points)
    if not natural:
        natural = {"": np.empty((len(points), 0))}
    solution = density.solve_at(natural)
    fixed_part = density.compute_point_density(points, natural) + solution.log_integral
    step, column_correction = _draw_column_step(density, solution, len(points), rng)
    drawn = _draw_predictors(density, solution, step, natural, rng)
    means, sds = summarise_effects(solution, density.cells)
    predictors = np.stack(
        [reference + x for reference, x in zip(density.cells.references, drawn.positions, strict=True)]
    )
    plain = np.stack(
        [reference + x for reference, x in zip(density.cells.references, drawn.plain_positions, strict=True)]
    )
    plain_effects = plain[1:] - plain[:1] if density.structure.has_baseline else plain
    log_weight = fixed_part + drawn.log_ratio + column_correction
    return LatentDraws(log_weight, drawn.noise, drawn.columns, solution.column_scales, predictors, means, sds,
                       drawn.log_ratio, plain_effects > 0)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _DrawnPredictors:
    """Columns, x of every cell drawn by weight or not, log R and its noise: one joint draw at every point."""

    columns: Array
    positions: list[Array]
    plain_positions: list[Array]
    log_ratio: Array
    noise: Array


def _draw_predictors(
    density: LatentDensity, solution: Solution, step: Array, natural: NaturalValues, rng: np.random.Generator
) -> _DrawnPredictors:
    """Draw x of every cell around the mean of the columns plus a step, and average what sites miss."""
    quiet = np.zeros(len(step))
    columns = solution.column_mean + step
    if density.is_gaussian:
        positions = _draw_positions(solution, columns, rng, signs=(1.0,))[0]
        log_ratio = np.broadcast_to(density.compute_constant(natural), quiet.shape)
        return _DrawnPredictors(columns, positions, positions, log_ratio, quiet)
    nuisances = density.cells.select_nuisances(natural)
    first = _weigh_columns(density, solution, columns, nuisances, rng)
    if not density.draws_both_signs:
        return _DrawnPredictors(columns, first.positions, first.plain_positions, first.log_ratio, quiet)
    opposite = solution.column_mean - step
    second = _weigh_columns(density, solution, opposite, nuisances, rng)
    total = np.logaddexp(first.log_ratio, second.log_ratio)
    # One of the two v by weight: together with the choice of offsets an exact draw of the weighted point. With the
    # same random number but even chances it is a draw of the Gaussian.
    uniform = np.log(rng.random(len(step)))
    takes_second = uniform + total < second.log_ratio
    is_heads = uniform < np.log(0.5)
    return _DrawnPredictors(
        np.where(takes_second[:, np.newaxis], opposite, columns),
        [np.where(takes_second, *pair) for pair in zip(second.positions, first.positions, strict=True)],
        [np.where(is_heads, *pair) for pair in zip(second.plain_positions, first.plain_positions, strict=True)],
        total - np.log(2.0),
        0.5 * (first.log_ratio - second.log_ratio) ** 2,
    )


def _draw_column_step(
    density: LatentDensity, solution: Solution, rows: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw L⁻ᵀ ε, (row, column), and the log of the Gaussian over the density that it was drawn from, (row,)."""
    count = solution.structure.column_count
    normal = rng.standard_normal((rows, count))
    correction = np.zeros(rows)
    if density.is_defensive and count:
        is_wide = rng.random(rows) < WIDE_SHARE
        normal *= np.where(is_wide, WIDE_SPREAD, 1.0)[:, np.newaxis]
        # log N(ε; 0, I) − log[(1 − a) N(ε; 0, I) + a N(ε; 0, s² I)]
        log_wide = 0.5 * (normal**2).sum(1) * (1 - WIDE_SPREAD**-2) - count * np.log(WIDE_SPREAD)
        correction = -np.logaddexp(np.log1p(-WIDE_SHARE), np.log(WIDE_SHARE) + log_wide)
    return np.matmul(solution.inverse_root.transpose(0, 2, 1), normal[:, :, np.newaxis])[:, :, 0], correction


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One of the two values of the columns: log R given it, and x of every cell for offsets drawn by weight, or not."""

    log_ratio: Array
    positions: list[Array]
    plain_positions: list[Array]


def _draw_positions(
    solution: Solution, columns: Array, rng: np.random.Generator, signs: tuple[float, ...]
) -> list[list[Array]]:
    """Draw offsets given the columns, and return x of every cell, (segment, row), for each sign of the same noise."""
    centres = solution.compute_centres(columns)
    offsets = solution.offsets
    shared_mean = offsets.compute_shared_mean(centres)
    shape = (solution.structure.segment_count, len(columns))
    count = len(centres)
    normals = rng.standard_normal((count + solution.structure.has_baseline, *shape), dtype=np.float32)
    shared_noise = np.sqrt(offsets.shared_variance) * normals[-1] if solution.structure.has_baseline else 0.0
    own_noise: list[Array] = [
        solution.offsets.scales.own[j] * np.sqrt(offsets.shrinkage[j]) * normals[j] for j in range(count)
    ]
    found = []
    for sign in signs:
        shared = shared_mean + sign * shared_noise
        found.append(
            [
                np.broadcast_to(
                    offsets.compute_own_mean(j, centres[j] + solution.offsets.scales.shared[j] * shared)
                    + sign * own_noise[j],
                    shape,
                )
                for j in range(count)
            ]
        )
    return found


def _weigh_columns(
    density: LatentDensity,
    solution: Solution,
    columns: Array,
    nuisances: list[Array | None],
    rng: np.random.Generator,
) -> _Candidate:
    """Weigh one value of the columns, averaging each segment's antithetic offsets before the product."""
    candidates = _draw_positions(solution, columns, rng, signs=(1.0, -1.0))
    if density.is_defensive:
        candidates += _draw_prior_positions(solution, columns, rng)
    log_segment = (
        solution.offsets.compute_segment_integral(solution.compute_centres(columns))
        if density.is_defensive
        else np.zeros(())
    )
    chosen: list[Array] = []
    plain: list[Array] = []
    total: Array = np.zeros(())
    for number, positions in enumerate(candidates):
        log_mass = np.zeros((solution.structure.segment_count, len(columns)))
        log_site = np.zeros_like(log_mass)
        for j, x in enumerate(positions):
            log_mass += density.cells.evaluate(j, x, nuisances[j])
            log_site += (solution.offsets.sites.linear[j] - 0.5 * solution.offsets.sites.precision[j] * x) * x
        # f / q = exp(l − site) Z_s;  of draws from half q, half the prior p: f / (½ q + ½ p),  p / q = Z_s / site
        log_mass -= log_site
        if density.is_defensive:
            log_mass -= np.logaddexp(0.0, log_segment - log_site) - np.log(2.0)
        if number == 0:
            chosen, plain, total = positions, positions, log_mass
            continue
        total = np.logaddexp(total, log_mass)
        uniform = np.log(rng.random(total.shape, dtype=np.float32) + np.float32(1e-12))
        takes_this = uniform + total < log_mass
        chosen = [np.where(takes_this, new, old) for new, old in zip(positions, chosen, strict=True)]
        if number == 1:
            plain = [np.where(uniform < np.log(0.5), new, old) for new, old in zip(positions, plain, strict=True)]
    log_ratio = (total - np.log(len(candidates))).sum(0)
    return _Candidate(np.where(np.isfinite(log_ratio), log_ratio, -np.inf), chosen, plain)


def _draw_prior_positions(solution: Solution, columns: Array, rng: np.random.Generator) -> list[list[Array]]:
    """Draw offsets from their prior, and return x of every cell for both signs."""
    centres, scales = solution.compute_centres(columns), solution.offsets.scales
    count, shape = len(centres), (solution.structure.segment_count, len(columns))
    normals = rng.standard_normal((count + 1, *shape), dtype=np.float32)
    moves = [scales.shared[j] * normals[-1] + scales.own[j] * normals[j] for j in range(count)]
    return [[centres[j] + sign * moves[j] for j in range(count)] for sign in (1.0, -1.0)]


def summarise_effects(solution: Solution, cells: CellData) -> tuple[Array, Array]:
    """Compute mean and SD of every effect under the Gaussian, (arm, segment, row)."""
    has_baseline = solution.structure.has_baseline
    shape = (solution.structure.segment_count, len(solution.log_integral))
    means = [reference + mean for reference, mean in zip(cells.references, compute_means(solution), strict=True)]
    covariance = compute_centre_covariance(solution)
    sds = [np.sqrt(each) for each in compute_variances(solution, covariance, against_control=has_baseline)]
    if has_baseline:
        means, sds = [mean - means[0] for mean in means[1:]], sds[1:]
    return _stack_segments(means, shape), _stack_segments(sds, shape)


def _stack_segments(values: list[Array], shape: tuple[int, int]) -> Array:
    return np.stack([np.broadcast_to(each, shape) for each in values])
