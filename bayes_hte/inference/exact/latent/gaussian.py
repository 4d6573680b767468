"""Solve the Gaussian that a model is at a point of its coordinates, where every cell's likelihood is a Gaussian site.

    site of cell j      exp(r x − w x² / 2),   x = η − reference
    η_j = M_j + L_j z_0 + S_j z_j              M_j: linear in the columns v,  L_j, S_j: SDs of offsets,  z ~ N(0, I)

Offsets are integrated segment by segment, arms first:

    q_j = 1 / (1 + w_j S_j²),  g_j = w_j q_j,  p_j = q_j r_j − g_j m_j                   m_j = M_j − reference at v = 0
    k   = 1 / (1 + Σ g_j L_j²),   Λ = Σ L_j p_j
    message about M:  pull P_j = p_j − k g_j L_j Λ,   precision N_ij = [i = j] g_j − k g_i L_i g_j L_j

and the columns, whose posterior is normal with precision H = I + D (Σ_s A_s' N_s A_s) D, D their scales. Arrays of
segments are (segment, row): rows are contiguous, so that what differs between points alone costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bayes_hte.inference.exact.latent.structure import NaturalValues, Structure
from bayes_hte.model.normal_scores import Array
from bayes_hte.spec.distributions import Normal


@dataclass(frozen=True, slots=True)
class Sites:
    """Gaussian sites of all cells: linear terms r and precisions w, each a tuple over cells of (segment, row or 1)."""

    linear: tuple[Array, ...]
    precision: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class OffsetScales:
    """SDs of segments' offsets.

    Attributes
    ----------
    shared : tuple of ndarray
        L_j: by how much every cell's η moves with the offset of the baseline; (1, row) or (segment, row).
    own : tuple of ndarray
        S_j: by how much with the offset of its own effect.
    """

    shared: tuple[Array, ...]
    own: tuple[Array, ...]


def compute_offset_scales(structure: Structure, natural: NaturalValues, rows: int) -> OffsetScales:
    """Compute the SDs of offsets at points, cell by cell."""
    nothing = np.zeros((1, rows))
    deviations = [_compute_deviation(structure, index, natural, rows) for index in range(len(structure.layouts))]
    if not structure.has_baseline:
        return OffsetScales(tuple(nothing for _ in deviations), tuple(deviations))
    shared, own = [deviations[0]], [nothing]
    for layout, deviation in zip(structure.layouts[1:], deviations[1:], strict=True):
        correlation = natural.get(f"{layout.coefficient.name}_correlation")
        rho = nothing if correlation is None else correlation[:, layout.arm][np.newaxis]
        # effect = … + τ (ρ z_0 + √(1 − ρ²) z_j)
        shared.append(deviations[0] + rho * deviation)
        own.append(np.sqrt(1 - rho**2) * deviation)
    return OffsetScales(tuple(shared), tuple(own))


def _compute_deviation(structure: Structure, index: int, natural: NaturalValues, rows: int) -> Array:
    """Compute the SD of a coefficient around its centre: (1, row), or (segment, row) with strata."""
    layout = structure.layouts[index]
    coefficient = layout.coefficient
    if coefficient.pooling == "complete":
        return np.zeros((1, rows))
    if coefficient.pooling == "none":
        prior = coefficient.pool_priors.mean
        if not isinstance(prior, Normal):
            raise AssertionError("an unpooled coefficient under this prior is not Gaussian")
        return np.full((1, rows), prior.sigma)
    between = natural[f"{coefficient.name}_between"]
    effect_priors = coefficient.effect_priors
    position = 0 if effect_priors is not None and effect_priors.shared_between else layout.arm
    if coefficient.strata is None or structure.strata_index is None:
        return np.ascontiguousarray(between[:, position])[np.newaxis]
    by_stratum = between.reshape(rows, structure.strata_index.max() + 1, -1)[:, :, position]
    return np.ascontiguousarray(by_stratum.T)[structure.strata_index]


@dataclass(frozen=True, slots=True)
class OffsetPosterior:
    """Offsets of segments given the columns: normal under Gaussian sites.

    Attributes
    ----------
    scales : OffsetScales
    sites : Sites
    shrinkage : tuple of ndarray
        q_j, (segment, row).
    effective : tuple of ndarray
        g_j.
    shared_variance : ndarray
        k.
    """

    scales: OffsetScales
    sites: Sites
    shrinkage: tuple[Array, ...]
    effective: tuple[Array, ...]
    shared_variance: Array

    def compute_shared_mean(self, centres: list[Array]) -> Array:
        """Compute the mean of z_0 given the cells' centres M − reference: k Σ L_j (q_j r_j − g_j M_j)."""
        total = np.zeros_like(self.shared_variance)
        for j, centre in enumerate(centres):
            total = total + self.scales.shared[j] * (
                self.shrinkage[j] * self.sites.linear[j] - self.effective[j] * centre
            )
        return np.asarray(self.shared_variance * total)

    def compute_own_mean(self, j: int, level: Array) -> Array:
        """Compute the mean of x_j given M_j + L_j z_0 (`level`): q level + S² q r."""
        return self.shrinkage[j] * (level + self.scales.own[j] ** 2 * self.sites.linear[j])

    def compute_means(self, centres: list[Array]) -> list[Array]:
        """Compute the means of x given the cells' centres."""
        shared = self.compute_shared_mean(centres)
        return [self.compute_own_mean(j, centre + self.scales.shared[j] * shared) for j, centre in enumerate(centres)]

    def compute_variances(self) -> list[Array]:
        """Compute the variances of x given the columns: q² L² k + S² q."""
        return [
            (q * shared) ** 2 * self.shared_variance + own**2 * q
            for q, shared, own in zip(self.shrinkage, self.scales.shared, self.scales.own, strict=True)
        ]

    def compute_segment_integral(self, centres: list[Array]) -> Array:
        """Compute log Z_s given the cells' centres: sites integrated over a segment's offsets, (segment, row)."""
        # ½ log k + ½ k Λ² + Σ_j [½ log q + ½ q S² r² + q r M − ½ g M²],  Λ = Σ L_j (q_j r_j − g_j M_j)
        total = np.log(self.shared_variance) + self.compute_shared_mean(centres) ** 2 / self.shared_variance
        for j, centre in enumerate(centres):
            q, r = self.shrinkage[j], self.sites.linear[j]
            total = total + np.log(q) + q * (self.scales.own[j] * r) ** 2
            total = total + (2 * q * r - self.effective[j] * centre) * centre
        return np.asarray(0.5 * total)


def solve_offsets(scales: OffsetScales, sites: Sites) -> OffsetPosterior:
    """Solve the offsets of segments given the columns, whatever these are."""
    cells = range(len(sites.linear))
    # q = 1 / (1 + w S²),  g = w q,  k = 1 / (1 + Σ g L²)
    shrinkage = tuple(1 / (1 + sites.precision[j] * scales.own[j] ** 2) for j in cells)
    effective = tuple(sites.precision[j] * shrinkage[j] for j in cells)
    shared_variance = np.asarray(1 / (1 + sum(effective[j] * scales.shared[j] ** 2 for j in cells)))
    return OffsetPosterior(scales, sites, shrinkage, effective, shared_variance)


@dataclass(frozen=True, slots=True)
class Solution:
    """The Gaussian at points: what is needed to draw from it, and its log integral.

    Attributes
    ----------
    structure : Structure
    offsets : OffsetPosterior
    start : tuple of ndarray
        m_j: M_j − reference where every column is 0, (segment, row or 1).
    column_scales : ndarray
        D, (row, column).
    inverse_root : ndarray
        L⁻¹, H = L Lᵀ: (row, column, column).
    column_mean : ndarray
        Posterior mean of v, (row, column).
    log_integral : ndarray
        log Z, (row,).
    """

    structure: Structure
    offsets: OffsetPosterior
    start: tuple[Array, ...]
    column_scales: Array
    inverse_root: Array
    column_mean: Array
    log_integral: Array

    def compute_centres(self, columns: Array) -> list[Array]:
        """Compute M_j − reference for values of the columns (row, column): a list over cells of (segment, row)."""
        return compute_centres(self.structure, self.start, columns * self.column_scales)


def compute_centres(structure: Structure, start: tuple[Array, ...], scaled_columns: Array) -> list[Array]:
    """Compute M_j − reference from means, slopes and levels less their locations (row, column), cell by cell."""
    transposed = np.ascontiguousarray(scaled_columns.T)
    moves = [layout.design @ transposed[layout.columns] for layout in structure.layouts]
    if structure.has_baseline:
        moves = [moves[0]] + [moves[0] + effect for effect in moves[1:]]
    return [first + move for first, move in zip(start, moves, strict=True)]


def solve_gaussian(structure: Structure, natural: NaturalValues, sites: Sites, start: tuple[Array, ...]) -> Solution:
    """Solve the Gaussian at points.

    Parameters
    ----------
    structure : Structure
    natural : mapping
        Hyperparameters at the points, (row, entry).
    sites : Sites
    start : tuple of ndarray
        M_j − reference where every column is 0, (segment, 1).
    """
    # Without any hyperparameter there is one row, repeated by who asks.
    rows = len(next(iter(natural.values()))) if natural else sites.linear[0].shape[1]
    scales = compute_offset_scales(structure, natural, rows)
    offsets = solve_offsets(scales, sites)
    shrinkage, effective, shared_variance = offsets.shrinkage, offsets.effective, offsets.shared_variance
    cells = range(len(start))
    pulls = [shrinkage[j] * sites.linear[j] - effective[j] * start[j] for j in cells]
    shared_pull = np.asarray(sum(scales.shared[j] * pulls[j] for j in cells))
    # log Z_s = Σ_j ½ log q + ½ r² S² q + q r m − ½ g m²  +  ½ log k + ½ k Λ²
    constant = np.log(shared_variance) + shared_variance * shared_pull**2
    for j in cells:
        constant = constant + np.log(shrinkage[j]) + shrinkage[j] * (sites.linear[j] * scales.own[j]) ** 2
        constant += (pulls[j] + shrinkage[j] * sites.linear[j]) * start[j]
    messages = _condense_messages(structure, offsets, pulls, shared_pull)
    column_scales = structure.scales.evaluate(natural, rows)
    precision, pull = _assemble_columns(structure, column_scales, messages)
    inverse_root = _invert_lower(np.linalg.cholesky(precision))
    half_mean = np.matmul(inverse_root, pull[:, :, np.newaxis])
    column_mean = np.matmul(inverse_root.transpose(0, 2, 1), half_mean)[:, :, 0]
    diagonal = np.diagonal(inverse_root, axis1=1, axis2=2)
    log_integral = 0.5 * np.broadcast_to(constant, (structure.segment_count, rows)).sum(0)
    log_integral = log_integral + 0.5 * (half_mean[:, :, 0] ** 2).sum(1) + np.log(diagonal).sum(1)
    return Solution(structure, offsets, start, column_scales, inverse_root, column_mean, log_integral)


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of segments about their coefficients: pulls, and precisions of every pair, all (segment, row)."""

    pulls: list[Array]
    precisions: list[Array]


def _condense_messages(
    structure: Structure,
    offsets: OffsetPosterior,
    pulls: list[Array],
    shared_pull: Array,
) -> Messages:
    """Turn messages about the cells' centres into messages about coefficients."""
    cells = range(len(pulls))
    effective, shared_variance = offsets.effective, offsets.shared_variance
    weighted = [effective[j] * offsets.scales.shared[j] for j in cells]
    # P_j = p_j − k g_j L_j Λ
    centred = [pulls[j] - shared_variance * weighted[j] * shared_pull for j in cells]
    if not structure.has_baseline:
        return Messages(centred, [effective[j] if i == j else np.zeros_like(effective[j]) for j in cells
                                  for i in range(j + 1)])  # fmt: skip
    total_weight = sum(weighted[j] for j in cells)
    # Rows of N summed over cells: g_j − k g_j L_j Σ_i g_i L_i
    row_sums = [effective[j] - shared_variance * weighted[j] * total_weight for j in cells]
    precisions = [np.asarray(sum(row_sums))]
    for j in cells[1:]:
        precisions.append(row_sums[j])
        for i in range(1, j + 1):
            shared = shared_variance * weighted[i] * weighted[j]
            precisions.append(effective[j] - shared if i == j else -shared)
    return Messages([np.asarray(sum(centred)), *centred[1:]], precisions)


def _assemble_columns(structure: Structure, column_scales: Array, messages: Messages) -> tuple[Array, Array]:
    """Assemble precision (row, column, column) and pull (row, column) of the standardised columns."""
    rows, count = column_scales.shape
    precision = np.zeros((rows, count, count))
    for pair, segment_precision in zip(structure.pairs, messages.precisions, strict=True):
        first, second = structure.layouts[pair.first].columns, structure.layouts[pair.second].columns
        full = np.broadcast_to(segment_precision, (structure.segment_count, rows))
        block = pair.gather(full).reshape(len(first), len(second), rows).transpose(2, 0, 1)
        precision[:, first[:, np.newaxis], second] = block
        if pair.first != pair.second:
            precision[:, second[:, np.newaxis], first] = block.transpose(0, 2, 1)
    precision *= column_scales[:, :, np.newaxis] * column_scales[:, np.newaxis, :]
    precision[:, np.arange(count), np.arange(count)] += 1.0
    pull = np.zeros((rows, count))
    for layout, segment_pull in zip(structure.layouts, messages.pulls, strict=True):
        full = np.broadcast_to(segment_pull, (structure.segment_count, rows))
        pull[:, layout.columns] = (layout.design.T @ full).T
    return precision, pull * column_scales


def _invert_lower(root: Array) -> Array:
    """Invert lower triangular matrices (row, n, n) by halves: batched products, where a solver goes row by row."""
    size = root.shape[-1]
    if size <= 1:
        return 1 / root
    half = size // 2
    inverse = np.zeros_like(root)
    upper = _invert_lower(np.ascontiguousarray(root[:, :half, :half]))
    lower = _invert_lower(np.ascontiguousarray(root[:, half:, half:]))
    inverse[:, :half, :half], inverse[:, half:, half:] = upper, lower
    # [[A, 0], [B, C]]⁻¹ = [[A⁻¹, 0], [−C⁻¹ B A⁻¹, C⁻¹]]
    inverse[:, half:, :half] = -np.matmul(np.matmul(lower, root[:, half:, :half]), upper)
    return inverse


@dataclass(frozen=True, slots=True)
class CentreCovariance:
    """Posterior covariance of the cells' centres M.

    Attributes
    ----------
    values : mapping
        Of the cells i ≤ j: (segment, row).
    """

    values: Mapping[tuple[int, int], Array]

    def select(self, i: int, j: int) -> Array:
        """Select the covariance of two cells, in any order."""
        return self.values[min(i, j), max(i, j)]


def compute_centre_covariance(solution: Solution) -> CentreCovariance:
    """Compute the posterior covariance of the cells' centres at points."""
    structure = solution.structure
    scaled_root = solution.inverse_root * solution.column_scales[:, np.newaxis, :]
    covariance = np.matmul(scaled_root.transpose(0, 2, 1), scaled_root)
    by_coefficient: dict[tuple[int, int], Array] = {}
    for pair in structure.pairs:
        first, second = structure.layouts[pair.first].columns, structure.layouts[pair.second].columns
        block = covariance[:, first[:, np.newaxis], second].reshape(len(covariance), len(first) * len(second))
        by_coefficient[pair.first, pair.second] = pair.spread(np.ascontiguousarray(block.T))
    if not structure.has_baseline:
        return CentreCovariance(by_coefficient)
    # M_0 = μ_0,  M_j = μ_0 + μ_j:  Cov(M_i, M_j) = c_00 + c_0i + c_0j + c_ij
    values = {}
    for (i, j), own in by_coefficient.items():
        total = by_coefficient[0, 0]
        for effect in (i, j):
            if effect > 0:
                total = total + by_coefficient[0, effect]
        values[i, j] = total + own if i > 0 else total
    return CentreCovariance(values)


def compute_variances(solution: Solution, covariance: CentreCovariance, *, against_control: bool) -> list[Array]:
    """Compute posterior variances of x of every cell, or of its difference from the control's, (segment, row)."""
    # x_j − δ x_0 = q_j M_j − δ M_0 − r k Σ_i L_i g_i M_i + r √k ε_0 + S_j √q_j ε_j,   r = q_j L_j − δ L_0
    offsets, cells = solution.offsets, range(len(solution.start))
    scales, k, delta = offsets.scales, offsets.shared_variance, float(against_control)
    pulled = [offsets.effective[i] * scales.shared[i] for i in cells]
    # a_j = Σ_i L_i g_i Cov(M_i, M_j),   b = Σ_i L_i g_i a_i
    cross = [sum(pulled[i] * covariance.select(i, j) for i in cells) for j in cells]
    both = sum(pulled[i] * cross[i] for i in cells)
    variances = []
    for j in cells:
        q = offsets.shrinkage[j]
        reach = q * scales.shared[j] - delta * scales.shared[0]
        centre_variance = q**2 * covariance.select(j, j) - 2 * reach * k * q * cross[j] + (reach * k) ** 2 * both
        if against_control:
            centre_variance = centre_variance + covariance.select(0, 0) - 2 * q * covariance.select(0, j)
            centre_variance = centre_variance + 2 * reach * k * cross[0]
        variances.append(np.maximum(centre_variance, 0.0) + reach**2 * k + scales.own[j] ** 2 * q)
    return variances
