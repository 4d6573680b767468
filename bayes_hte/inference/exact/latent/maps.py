"""Straighten coordinates: monotone maps u_j = m_j(g_j) under which the posterior is nearly normal.

Along a ray through the peak, peak + t Σ_j / σ_j, the log density is followed for six SDs to both sides, and
interpolated by a spline. Quantiles of the density that this gives, at normal scores, are the map's knots; outside it
is linear.
Proposals alone live in these coordinates: densities carry their Jacobian, so no map can bias anything.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from bayes_hte.inference.exact.latent.peaks import LatentPeak
from bayes_hte.inference.exact.latent.requests import ApproximateDensity, Steps
from bayes_hte.model.normal_scores import Array

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator

RAY = np.array([0.8, 1.7, 2.7, 4.0, 6.0])
"""Places on a ray, in SDs, to both sides."""
KNOTS = np.arange(-3.0, 3.1, 0.75)
"""Normal scores at which a map is pinned down."""
TABLE = 400
"""Places of a ray's density from which quantiles are read."""


@dataclass(frozen=True, slots=True)
class CoordinateMaps:
    """Maps of all coordinates.

    Attributes
    ----------
    values : ndarray
        u at the knots, (knot, coordinate).
    curves : PchipInterpolator
        Monotone cubics through them.
    end_slopes : ndarray
        du/dg below the first and above the last knot, (2, coordinate).
    """

    values: Array
    curves: "PchipInterpolator"
    end_slopes: Array

    def evaluate(self, straight: Array) -> tuple[Array, Array]:
        """Compute points u (point, coordinate) from g, and the log of the Jacobian (point,)."""
        points, log_jacobian = np.empty_like(straight), np.zeros(len(straight))
        coefficients = self.curves.c
        for column in range(straight.shape[1]):
            g = np.clip(straight[:, column], KNOTS[0], KNOTS[-1])
            interval = np.minimum(((g - KNOTS[0]) / (KNOTS[1] - KNOTS[0])).astype(np.intp), len(KNOTS) - 2)
            t = g - KNOTS[interval]
            a, b, c, d = coefficients[:, interval, column]
            excess = straight[:, column] - g
            slope = np.where(excess < 0, self.end_slopes[0, column], self.end_slopes[1, column])
            points[:, column] = ((a * t + b) * t + c) * t + d + slope * excess
            inner_slope = (3 * a * t + 2 * b) * t + c
            log_jacobian += np.log(np.maximum(np.where(excess == 0, inner_slope, slope), 1e-300))
        return points, log_jacobian

    def invert(self, points: Array) -> Array:
        """Compute g from u by interpolation, (point, coordinate)."""
        table = np.linspace(KNOTS[0], KNOTS[-1], 40 * (len(KNOTS) - 1) + 1)
        values, _ = self.evaluate(np.repeat(table[:, np.newaxis], points.shape[1], axis=1))
        straight = np.empty_like(points)
        for column in range(points.shape[1]):
            u, ends = points[:, column], values[[0, -1], column]
            inside = np.interp(u, values[:, column], table)
            straight[:, column] = inside + np.minimum(u - ends[0], 0) / self.end_slopes[0, column]
            straight[:, column] += np.maximum(u - ends[1], 0) / self.end_slopes[1, column]
        return straight


def fit_maps(peak: LatentPeak) -> Steps[CoordinateMaps]:
    """Fit the maps to the density along rays through a peak."""
    dim = len(peak.point)
    sds = np.sqrt(np.diag(peak.covariance))
    reach = np.concatenate([-RAY[::-1], [0.0], RAY])
    directions = peak.covariance / sds  # column j: moves coordinate j by its SD, and the others with it
    points = peak.point + reach[:, np.newaxis, np.newaxis] * directions.T[np.newaxis]
    flat_heights = yield ApproximateDensity(peak.density, points.reshape(len(reach) * dim, dim))
    heights = flat_heights.reshape(len(reach), dim)
    values = np.empty((len(KNOTS), dim))
    for column in range(dim):
        values[:, column] = peak.point[column] + sds[column] * _find_quantiles(reach, heights[:, column])
    return build_maps(values)


def build_maps(values: Array) -> CoordinateMaps:
    """Build maps through values at the knots, (knot, coordinate)."""
    from scipy.interpolate import PchipInterpolator  # a tenth of a second, which published estimates do not need

    curves = PchipInterpolator(KNOTS, values, axis=0)
    end_slopes = np.maximum(np.diff(values, axis=0)[[0, -1]] / (KNOTS[1] - KNOTS[0]), 1e-12)
    return CoordinateMaps(values, curves, end_slopes)


def build_linear_maps(peak: LatentPeak) -> CoordinateMaps:
    """Build maps that only centre and scale: where there are several peaks, what fits one bends the others."""
    return build_maps(peak.point + np.outer(KNOTS, np.sqrt(np.diag(peak.covariance))))


def _find_quantiles(reach: Array, heights: Array) -> Array:
    """Find quantiles, at the normal scores of the knots, of a density given along a ray."""
    usable = np.isfinite(heights) & (heights > heights.max() - 60.0)
    places = np.linspace(-8.0, 8.0, TABLE)
    if usable.sum() < 4:
        return KNOTS.copy()
    from scipy.interpolate import CubicSpline

    known, logs = reach[usable], heights[usable] - heights.max()
    spline = CubicSpline(known, logs, bc_type="natural")
    inside = np.clip(places, known[0], known[-1])
    # Beyond the ends: the slope there, and the curvature of the normal.
    beyond = places - inside
    ends = np.where(beyond < 0, spline(known[0], 1), spline(known[-1], 1))
    ends = np.where(beyond < 0, np.maximum(ends, 0.5), np.minimum(ends, -0.5))
    log_density = spline(inside) + ends * beyond - 0.5 * beyond**2
    density = np.exp(np.minimum(log_density, 2.0))
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    cumulative /= cumulative[-1]
    # A density that is 0 over a stretch has no unique quantile there: a tiny slope keeps the map ascending.
    cumulative = (cumulative + 1e-12 * np.arange(TABLE)) / (1 + 1e-12 * (TABLE - 1))
    return np.asarray(np.interp(special.ndtr(KNOTS), cumulative, places))
