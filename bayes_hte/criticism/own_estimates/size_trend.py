"""Find effects that go together with the size of segments: then small segments are pooled towards the wrong centre.

    y_s = a + b log n_s + noise,   noise ~ N(0, se_s² + τ²), τ that of the fit

Pooling takes segments for alike whatever their size. Where effects fall with it, 95 % intervals of segments covered
89 % in simulations; the logarithm of the size as a covariate brings them back.
"""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.cells.checks.wording import format_p_value, shorten_label
from bayes_hte.criticism.own_estimates.segment_estimates import SegmentEstimates
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.spec.cell_table import ARM

TREND_P_VALUE = 0.01
"""A note, and no alarm: one in a hundred right models has it."""
MIN_SEGMENTS_FOR_TREND = 8
"""Fewer segments tell no trend from chance, and five degrees of freedom are left."""
MIN_SIZE_RATIO = 2.0
"""Segments whose sizes differ by less say nothing of size."""


def describe_size_trends(
    segment_estimates: Sequence[SegmentEstimates], posterior: xr.Dataset, cells: xr.Dataset
) -> list[str]:
    """Describe, for every arm, effects that go together with the logarithm of segment size."""
    if "n" not in cells and "exposure" not in cells:
        return []
    cell_sizes = cells["n" if "n" in cells else "exposure"]
    segment_sizes = cell_sizes.sum(ARM).values.astype(float)
    sentences = []
    for estimates in segment_estimates:
        if estimates.arm_index is None or estimates.coefficient.pooling != "partial":
            continue
        trend = measure_size_trend(estimates, posterior, segment_sizes)
        if trend is not None and trend[1] < TREND_P_VALUE:
            sentences.append(_describe_trend(estimates, *trend))
    return sentences


def measure_size_trend(
    estimates: SegmentEstimates, posterior: xr.Dataset, segment_sizes: FloatArray
) -> tuple[float, float] | None:
    """Measure the slope of effects on the logarithm of size, and its p-value; None where sizes say nothing.

    Parameters
    ----------
    estimates : SegmentEstimates
    posterior : xarray.Dataset
    segment_sizes : ndarray
        (segment,), units or exposure of every segment of the fit.
    """
    between_draws = estimates.select_draws(posterior, suffix="_between")
    sizes = segment_sizes[estimates.segment_index]
    if between_draws is None or estimates.count < MIN_SEGMENTS_FOR_TREND or not sizes.min() > 0:
        return None
    if sizes.max() < MIN_SIZE_RATIO * sizes.min():
        return None
    residuals = estimates.estimates - estimates.average_explained_part(posterior)
    w = 1 / (estimates.standard_errors**2 + float((between_draws**2).mean()))
    log_size = np.log(sizes) - w @ np.log(sizes) / w.sum()
    # b = Σ w x y / Σ w x², Var b = s² / Σ w x², where s² ≥ 1 makes up for a τ that is too small
    information = float(w @ log_size**2)
    slope = float(w @ (log_size * residuals)) / information
    centred = residuals - w @ residuals / w.sum() - slope * log_size
    freedom = estimates.count - 2
    scale = max(1.0, math.sqrt(float(w @ centred**2) / freedom))
    z = slope * math.sqrt(information) / scale
    return slope, float(2 * special.stdtr(freedom, -abs(z)))


def _describe_trend(estimates: SegmentEstimates, slope: float, p_value: float) -> str:
    """Describe one arm's trend, and the way out."""
    family = estimates.problem.family
    scale_name = {"identity": "", "log": " (logarithms)", "logit": " (log-odds)"}[family.link]
    part_phrase = f" on the {estimates.part_title}" if estimates.part_title else ""
    change = abs(slope) * math.log(10)
    return (
        f"Effects of {shorten_label(estimates.arm)}{part_phrase} go together with the size of segments: one ten times "
        f"as large has an effect {change:.2g} {'higher' if slope > 0 else 'lower'}{scale_name} "
        f"({format_p_value(p_value)}); pooling, which takes no account of size, pulls small segments towards large "
        "ones, so that their intervals may miss the truth; give the logarithm of the size as a covariate "
        "(hte.cells.with_covariates, and effect.covariates in the model)."
    )
