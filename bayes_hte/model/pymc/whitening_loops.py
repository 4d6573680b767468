"""Whiten what segments share: values and gradient, as loops that Numba compiles.

v is what is shared, in SDs of its prior; each cell has a precision w and three numbers that move with the SDs: its
information r, the scale t of its effect's own offset, and what an offset of the baseline adds to it, l.

    effect's own offset integrated    g = w / (1 + w t²)        w, r: precision and information of a cell
                                      h = r / (1 + w t²)        t: scale of the effect beyond the baseline's offset
    baseline's offset integrated      k = 1 / (1 + Σ g l²)      l: what that offset adds to each cell
                                      N = diag(g) − k a a'      a = g l;   precision about the centres of the cells
                                      pull = h − a k Σ l h
    all segments                      F = Σ_s B_s' N_s B_s      B_s: from coefficients to the centres of the cells of s
                                      H = I + scale F scale     H = L L'
                                      v_hat = H⁻¹ scale Σ_s B_s' pull_s

    v = L'⁻¹ (L⁻¹ scale Σ_s B_s' pull_s + e)          so that v_hat + L'⁻¹ e, and log |L| is the volume of the change

A bar is the derivative of the log density with respect to what it stands behind. That of H is symmetric:

    H_bar = ½ L'⁻¹ (Φ + Φ') L⁻¹,   Φ = lower triangle of L' L_bar, half of its diagonal

References
----------
Murray (2016), arXiv:1602.07527 (derivatives through the Cholesky factor).
"""

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from bayes_hte.model.families.cell_likelihood import FloatArray

IndexArray = NDArray[np.int64]


@register_jitable
def integrate_offsets(
    precision: FloatArray, moving: FloatArray, has_baseline: bool, pull: FloatArray, joint_precision: FloatArray
) -> None:
    """Fill in the pull (coefficient,) and the precision (coefficient, coefficient) of one segment about its centres.

    Parameters
    ----------
    precision : ndarray
        (cell,)
    moving : ndarray
        (3, cell): information, own scale, loading.
    has_baseline : bool
        Whether the first coefficient is part of all cells, and the first cell has no other.
    pull, joint_precision : ndarray
        To be filled.
    """
    cell_count = len(precision)
    # k⁻¹ = 1 + Σ g l²
    spread, shared_pull = 1.0, 0.0
    for c in range(cell_count):
        shrinkage = 1 / (1 + precision[c] * moving[1, c] ** 2)
        spread += precision[c] * shrinkage * moving[2, c] ** 2
        shared_pull += moving[2, c] * moving[0, c] * shrinkage
    # N = diag(g) − k a a',   pull = h − a k Σ l h
    for c in range(cell_count):
        shrinkage = 1 / (1 + precision[c] * moving[1, c] ** 2)
        weighted = precision[c] * shrinkage * moving[2, c]
        pull[c] = moving[0, c] * shrinkage - weighted * shared_pull / spread
        for d in range(cell_count):
            other = precision[d] / (1 + precision[d] * moving[1, d] ** 2) * moving[2, d]
            joint_precision[c, d] = -weighted * other / spread
        joint_precision[c, c] += precision[c] * shrinkage
    if has_baseline:
        # The baseline is part of every cell: its row and column are sums over cells.
        for c in range(1, cell_count):
            pull[0] += pull[c]
            joint_precision[0] += joint_precision[c]
        for c in range(cell_count):
            for d in range(1, cell_count):
                joint_precision[c, 0] += joint_precision[c, d]


@register_jitable
def sum_segments(  # noqa: PLR0917 (Numba takes arrays by position)
    precision: FloatArray,
    moving: FloatArray,
    entry_index: IndexArray,
    entry_value: FloatArray,
    entry_count: int,
    has_baseline: bool,
) -> tuple[FloatArray, FloatArray]:
    """Sum pulls and precisions of all segments: (entry,) and F (entry, entry)."""
    segment_count, cell_count = precision.shape
    width = entry_index.shape[2]
    # F = Σ_s B_s' N_s B_s: of B_s only the places that are taken are visited, so cost is linear in segments.
    pull_sum, precision_sum = np.zeros(entry_count), np.zeros((entry_count, entry_count))
    pull, joint_precision = np.empty(cell_count), np.empty((cell_count, cell_count))
    for s in range(segment_count):
        integrate_offsets(precision[s], moving[:, s], has_baseline, pull, joint_precision)
        for c in range(cell_count):
            for m in range(width):
                first, first_value = entry_index[c, s, m], entry_value[c, s, m]
                pull_sum[first] += first_value * pull[c]
                for d in range(cell_count):
                    product = first_value * joint_precision[c, d]
                    for n in range(width):
                        precision_sum[first, entry_index[d, s, n]] += product * entry_value[d, s, n]
    return pull_sum, precision_sum


@register_jitable
def factorise(precision_sum: FloatArray, prior_scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Factorise H = I + scale F scale: L, and L⁻¹; no numbers, and no error, where H is none."""
    entry_count = len(prior_scale)
    root, inverse = np.zeros((entry_count, entry_count)), np.zeros((entry_count, entry_count))
    # Row by row, L_ij = (H_ij − Σ_m<j L_im L_jm) / L_jj. LAPACK raises an error where an SD has overflowed; here the
    # density becomes no number, and the sampler turns round.
    for i in range(entry_count):
        for j in range(i + 1):
            value = prior_scale[i] * precision_sum[i, j] * prior_scale[j]
            for m in range(j):
                value -= root[i, m] * root[j, m]
            root[i, j] = np.sqrt(1 + value) if i == j else value / root[j, j]
    # L L⁻¹ = I, column by column
    for j in range(entry_count):
        inverse[j, j] = 1 / root[j, j]
        for i in range(j + 1, entry_count):
            value = 0.0
            for m in range(j, i):
                value += root[i, m] * inverse[m, j]
            inverse[i, j] = -value / root[i, i]
    return root, inverse


@register_jitable
def solve_shared(
    pull_sum: FloatArray, precision_sum: FloatArray, prior_scale: FloatArray, whitened: FloatArray
) -> tuple[FloatArray, float]:
    """Solve for v; and compute the log density of e under Normal(v; 0, I) / |L|, less that under Normal(e; 0, I)."""
    root, inverse = factorise(precision_sum, prior_scale)
    # v = L'⁻¹ (L⁻¹ q + e)
    standard = inverse.T @ (inverse @ (prior_scale * pull_sum) + whitened)
    log_change = 0.5 * ((whitened**2).sum() - (standard**2).sum()) - np.log(np.diag(root)).sum()
    return standard, log_change


@register_jitable
def add_up_centres(
    shared_values: FloatArray, entry_index: IndexArray, entry_value: FloatArray, centres: FloatArray
) -> None:
    """Add up the entries that are part of every segment's coefficients, (coefficient, segment)."""
    for c in range(entry_index.shape[0]):
        for s in range(entry_index.shape[1]):
            for m in range(entry_index.shape[2]):
                centres[c, s] += entry_value[c, s, m] * shared_values[entry_index[c, s, m]]


@register_jitable
def spread_centre_bars(
    centre_bar: FloatArray, entry_index: IndexArray, entry_value: FloatArray, shared_bar: FloatArray
) -> None:
    """Differentiate `add_up_centres`: add to the bars of the entries."""
    for c in range(entry_index.shape[0]):
        for s in range(entry_index.shape[1]):
            for m in range(entry_index.shape[2]):
                shared_bar[entry_index[c, s, m]] += entry_value[c, s, m] * centre_bar[c, s]


@register_jitable
def differentiate_shared(  # noqa: PLR0917 (Numba takes arrays by position)
    pull_sum: FloatArray,
    precision_sum: FloatArray,
    prior_scale: FloatArray,
    whitened: FloatArray,
    standard_bar: FloatArray,
    change_bar: float,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Differentiate `solve_shared`: bars of Σ pull, F, scale and e."""
    root, inverse = factorise(precision_sum, prior_scale)
    scaled_pull = inverse @ (prior_scale * pull_sum)
    standard = inverse.T @ (scaled_pull + whitened)
    solved_bar = inverse @ (standard_bar - change_bar * standard)
    pull_bar = inverse.T @ solved_bar
    # L' dv = de + d(L⁻¹ q) − dL' v, and the volume: L_bar = −v e_bar' − q_bar (L⁻¹ q)' − diag(change_bar / L_ii)
    # NumPy's outer products fill the whole matrix; L has a lower triangle only.
    root_bar = -np.outer(standard, solved_bar) - np.outer(pull_bar, scaled_pull)
    for i in range(len(prior_scale)):
        root_bar[i, i] -= change_bar / root[i, i]
        root_bar[i, i + 1 :] = 0.0
    triangle = np.tril(root.T @ root_bar)
    for i in range(len(prior_scale)):
        triangle[i, i] *= 0.5
    joint_bar = 0.5 * (inverse.T @ ((triangle + triangle.T) @ inverse))
    # H = I + scale F scale and q = scale Σ pull both move with the scale.
    scale_bar = 2 * ((joint_bar * precision_sum) @ prior_scale) + pull_bar * pull_sum
    whitened_bar = solved_bar + change_bar * whitened
    return pull_bar * prior_scale, joint_bar * np.outer(prior_scale, prior_scale), scale_bar, whitened_bar


@register_jitable
def differentiate_offsets(
    precision: FloatArray, moving: FloatArray, pull_bar: FloatArray, precision_bar: FloatArray, moving_bar: FloatArray
) -> None:
    """Differentiate `integrate_offsets` about the centres of the cells: fill in the bars of the moving numbers.

    Parameters
    ----------
    precision, moving : ndarray
        Of one segment.
    pull_bar, precision_bar : ndarray
        Bars of pull (cell,) and of N (cell, cell), symmetric.
    moving_bar : ndarray
        (3, cell): to be filled.
    """
    cell_count = len(precision)
    shrinkage = 1 / (1 + precision * moving[1] ** 2)
    strength, information = precision * shrinkage, moving[0] * shrinkage
    weighted = strength * moving[2]
    k = 1 / (1 + (weighted * moving[2]).sum())
    shared_pull = (moving[2] * information).sum()
    # pull = h − a k Σ l h: what all cells' bars say of k Σ l h
    weighted_pull = (pull_bar * weighted).sum()
    bar_weighted = np.zeros(cell_count)
    for c in range(cell_count):
        for d in range(cell_count):
            bar_weighted[c] += precision_bar[c, d] * weighted[d]
    # k = 1 / (1 + Σ a l):  the bar of 1 / k is −k² k_bar
    spread_bar = k**2 * (weighted_pull * shared_pull + (weighted * bar_weighted).sum())
    weighted_bar = -pull_bar * k * shared_pull - 2 * k * bar_weighted + spread_bar * moving[2]
    information_bar = pull_bar - k * weighted_pull * moving[2]
    # g = w q and h = r q of the shrinkage q = 1 / (1 + w t²), a = g l
    for c in range(cell_count):
        strength_bar = precision_bar[c, c] + weighted_bar[c] * moving[2, c]
        shrinkage_bar = strength_bar * precision[c] + information_bar[c] * moving[0, c]
        moving_bar[0, c] = information_bar[c] * shrinkage[c]
        moving_bar[1, c] = -2 * shrinkage_bar * shrinkage[c] ** 2 * precision[c] * moving[1, c]
        moving_bar[2, c] = weighted_bar[c] * strength[c] - k * weighted_pull * information[c] + spread_bar * weighted[c]


@register_jitable
def spread_bars(  # noqa: PLR0917 (Numba takes arrays by position)
    pull_bar: FloatArray,
    precision_bar: FloatArray,
    entry_index: IndexArray,
    entry_value: FloatArray,
    segment: int,
    has_baseline: bool,
) -> tuple[FloatArray, FloatArray]:
    """Spread the bars of Σ pull and F to those of one segment's cells: (cell,) and (cell, cell)."""
    cell_count, width = entry_index.shape[0], entry_index.shape[2]
    cell_pull, cell_precision = np.zeros(cell_count), np.zeros((cell_count, cell_count))
    for c in range(cell_count):
        for m in range(width):
            first, first_value = entry_index[c, segment, m], entry_value[c, segment, m]
            cell_pull[c] += first_value * pull_bar[first]
            for d in range(cell_count):
                for n in range(width):
                    product = first_value * entry_value[d, segment, n]
                    cell_precision[c, d] += product * precision_bar[first, entry_index[d, segment, n]]
    if has_baseline:
        # What was summed over cells is given back to each of them.
        for c in range(1, cell_count):
            cell_pull[c] += cell_pull[0]
        for c in range(cell_count):
            for d in range(1, cell_count):
                cell_precision[c, d] += cell_precision[c, 0]
        for c in range(1, cell_count):
            cell_precision[c] += cell_precision[0]
    return cell_pull, cell_precision
