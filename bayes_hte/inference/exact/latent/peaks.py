"""Find the peaks of the posterior of the coordinates: Newton steps from several starts, and a scan for others.

Precise segments that agree and noisy ones that differ can be explained by a small between-segment SD or by a large
one. Each explanation is a peak, and no weights of points around one tell of the other: so every SD is scanned over all
that its prior and the data allow, and so is the whole space, thinly; what rises anywhere is climbed.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from bayes_hte.inference.exact.latent.density import LatentDensity
from bayes_hte.inference.exact.latent.requests import ApproximateDensity, SettleSites, Steps
from bayes_hte.model.normal_scores import Array, compute_value_of_score, find_score_of_value

USUAL_START = -0.3
"""Normal score of SDs at which a search starts: a little below the prior median."""
MAX_ITERATIONS = 25
SETTLED_STEP = 0.05
"""In SDs: a step so short ends the search."""
LONGEST_STEP = 1.0
"""Of a coordinate at once; a normal score of 1 is far."""
FIRST_DIFFERENCE = {True: 0.15, False: 0.01}
"""Of coordinates for derivatives, before their SDs are known: of SDs and the like, and of nuisance parameters."""
RELATIVE_DIFFERENCE = 0.3
"""Of a coordinate, in its SDs, once they are known."""
FULL_HESSIAN_DIM = 5
"""Up to so many coordinates every step has a Hessian of its own; beyond, the last ones."""
CLOSE_STEP = 0.5
"""In SDs: after a step so short the next one has a Hessian of its own."""
NEAR = 1.0
"""Mahalanobis distance from a peak within which a point belongs to it."""
LEAST_CURVATURE = 0.5
"""Of the negative Hessian: that of the prior is 1."""
TRIALS = np.array([1.0, 0.5, 0.25, 0.1, 1.6])
MAX_DEPTH = 10.0
"""Nats below the highest peak from which a peak is left out: e⁻¹⁰ of the mass changes nothing that is reported."""
CLIMB_DEPTH = 30.0
"""Nats below a peak up to which a rise on a scan is climbed: a summit lies higher than the places beside it."""
MAX_PEAKS = 4
SCAN_NEWTON_STEPS = 4
"""Of η at every point of a scan: the sites of a peak are no guide to what is far from it."""
CAREFUL_SITE_STEPS = 2
SCAN_PLACES = 24
SCAN_POINTS = 64
FAR = 5.0
"""Mahalanobis distance from a peak beyond which a high point belongs to another."""


@dataclass(frozen=True, slots=True)
class LatentPeak:
    """A peak: the density settled there, its place, the inverse of the negative Hessian, its height."""

    density: LatentDensity
    point: Array
    covariance: Array
    log_height: float
    is_converged: bool

    @property
    def log_mass(self) -> float:
        """Log of the mass around the peak by Laplace's formula, up to (2π)^(d/2)."""
        return self.log_height + 0.5 * float(np.linalg.slogdet(self.covariance)[1])

    def measure_distances(self, points: Array) -> Array:
        """Measure Mahalanobis distances of points from the peak."""
        away = points - self.point
        return np.asarray(np.sqrt(np.maximum(np.sum(away * np.linalg.solve(self.covariance, away.T).T, axis=1), 0.0)))


@dataclass(frozen=True, slots=True)
class Landscape:
    """Peaks, the one with the most mass first, and scanned points with their approximate log densities."""

    peaks: list[LatentPeak]
    scanned: Array
    scanned_density: Array


def choose_start(density: LatentDensity, score: float = USUAL_START) -> Array:
    """Choose a point to start from: SDs at a normal score of their priors, nuisance parameters at rough estimates."""
    structure, likelihood = density.structure, density.cells.likelihood
    point = np.array([score if each.is_scale else 0.0 for each in structure.coordinates])
    if structure.nuisance_name is None or likelihood.guess_nuisance is None:
        return point
    guesses = np.asarray(likelihood.guess_nuisance(density.problem.cell_statistics), dtype=float)
    for column, each in enumerate(structure.coordinates):
        if each.name == structure.nuisance_name:
            if each.is_gap:
                point[column] = np.log(max(guesses[each.position] - guesses[each.position - 1], 1e-3))
            else:
                point[column] = np.clip(find_score_of_value(each.prior, float(guesses[each.position])), -8.0, 8.0)
    return point


def survey_peaks(density: LatentDensity) -> Steps[Landscape]:
    """Find all peaks that searches and scans show."""
    peaks = [(yield from climb_peak(density, choose_start(density)))]
    scanned, heights = [], []
    looked_at = 0
    while looked_at < len(peaks):
        peak = peaks[looked_at]
        looked_at += 1
        points, starts = yield from scan_around(peak, peaks)
        scanned.append(points[0])
        heights.append(points[1])
        for start in starts:
            if len(peaks) < MAX_PEAKS and not _is_near(peaks, start):
                climbed = yield from climb_peak(peak.density, start, known=peaks)
                if not _is_near(peaks, climbed.point):
                    peaks.append(climbed)
    peaks.sort(key=lambda each: -each.log_mass)
    kept = [each for each in peaks if each.log_mass > peaks[0].log_mass - MAX_DEPTH]
    return Landscape(kept, np.concatenate(scanned), np.concatenate(heights))


def _is_near(peaks: list[LatentPeak], point: Array) -> bool:
    return any(each.measure_distances(point[np.newaxis])[0] <= NEAR for each in peaks)


def climb_peak(density: LatentDensity, start: Array, known: list[LatentPeak] | None = None) -> Steps[LatentPeak]:
    """Climb to a peak by Newton steps on the approximate log density, or until a known peak is near.

    Parameters
    ----------
    density : LatentDensity
    start : ndarray
        (coordinate,).
    known : list of LatentPeak, optional
        Peaks that need not be climbed again.
    """
    point, dim = start.copy(), len(start)
    density = yield SettleSites(density, point)
    if not dim:
        height = float((yield ApproximateDensity(density, point[np.newaxis]))[0])
        return LatentPeak(density, point, np.empty((0, 0)), height, is_converged=True)
    names = [each.name == density.structure.nuisance_name for each in density.structure.coordinates]
    difference = np.array([FIRST_DIFFERENCE[not is_nuisance] for is_nuisance in names])
    covariance = np.diag(difference**2)
    height, is_converged, needs_hessian = -np.inf, False, dim <= FULL_HESSIAN_DIM
    hessian, gradient, step = np.zeros((dim, dim)), np.zeros(dim), np.zeros(dim)
    for _ in range(MAX_ITERATIONS):
        old_gradient = gradient
        slopes = yield from differentiate(density, point, difference, with_hessian=needs_hessian)
        height, gradient = slopes.height, slopes.gradient
        if slopes.hessian is not None:
            hessian = slopes.hessian
        else:
            hessian = _learn_hessian(hessian, step, gradient - old_gradient, slopes.curvature)
        covariance = invert_negative(hessian)
        sds = np.sqrt(np.diag(covariance))
        step = covariance @ gradient
        difference = np.clip(RELATIVE_DIFFERENCE * sds, 1e-5, 0.15)
        longest = float(np.abs(step / sds).max())
        if longest < SETTLED_STEP and slopes.hessian is not None:
            is_converged = True
            break
        # All second derivatives take d² evaluations: they are worth it near the top.
        needs_hessian = dim <= FULL_HESSIAN_DIM or longest < CLOSE_STEP
        step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), 1e-12))
        trials = point + TRIALS[:, np.newaxis] * step
        values = yield ApproximateDensity(density, trials)
        best = int(np.argmax(values))
        if not values[best] > height:
            # Differences may be too long for a narrow peak: no step is uphill, so take shorter ones.
            difference, needs_hessian, step = 0.3 * difference, True, np.zeros(dim)
            continue
        point, step = trials[best], trials[best] - point
        density = yield SettleSites(density, point)
        if known and _is_near(known, point):
            break
    return LatentPeak(density, point, covariance, height, is_converged)


def _learn_hessian(hessian: Array, step: Array, change: Array, curvature: Array) -> Array:
    """Learn second derivatives from the change of the gradient over a step (BFGS), and from those along each axis."""
    # B + y y' / (y's) − B s s' B / (s'B s),  B = −H,  y = −(change of the gradient)
    negative, fall = -hessian, -change
    if step @ fall > 1e-10 and step @ negative @ step > 0:
        pulled = negative @ step
        learnt = negative + np.outer(fall, fall) / (fall @ step) - np.outer(pulled, pulled) / (step @ pulled)
    else:
        learnt = negative
    # Off the diagonal as correlations, so that the diagonal may be replaced by what is known of it.
    scale = np.sqrt(np.maximum(np.diag(learnt), 1e-12))
    known_scale = np.sqrt(np.maximum(-curvature, LEAST_CURVATURE))
    correlation = np.where(np.eye(len(step)) > 0, 1.0, learnt / np.outer(scale, scale) if hessian.any() else 0.0)
    return np.asarray(-correlation * np.outer(known_scale, known_scale))


@dataclass(frozen=True, slots=True)
class Slopes:
    """Derivatives of the approximate log density at a point.

    Attributes
    ----------
    height : float
    gradient : ndarray
        (coordinate,).
    curvature : ndarray
        Second derivatives along each axis, (coordinate,).
    hessian : ndarray or None
        (coordinate, coordinate), where it was asked for.
    """

    height: float
    gradient: Array
    curvature: Array
    hessian: Array | None


def differentiate(density: LatentDensity, point: Array, difference: Array, *, with_hessian: bool) -> Steps[Slopes]:
    """Differentiate the approximate log density."""
    dim = len(point)
    moves = np.diag(difference)
    corners = [(i, j) for j in range(dim) for i in range(j)] if with_hessian else []
    places = [point, *(point + moves), *(point - moves)]
    places += [point + moves[i] + moves[j] for i, j in corners] + [point - moves[i] - moves[j] for i, j in corners]
    values = yield ApproximateDensity(density, np.stack(places))
    centre, up, down = values[0], values[1 : dim + 1], values[dim + 1 : 2 * dim + 1]
    gradient = np.nan_to_num((up - down) / (2 * difference))
    curvature = np.nan_to_num((up + down - 2 * centre) / difference**2, nan=0.0, posinf=0.0, neginf=-1e8)
    if not with_hessian:
        return Slopes(float(centre), gradient, curvature, None)
    # F_ij ≈ (F(+i+j) − F(+i) − F(+j) + 2 F − F(−i) − F(−j) + F(−i−j)) / (2 h_i h_j)
    hessian = np.diag(curvature)
    both_up, both_down = values[2 * dim + 1 :][: len(corners)], values[2 * dim + 1 + len(corners) :]
    for number, (i, j) in enumerate(corners):
        total = both_up[number] + both_down[number] - up[i] - up[j] - down[i] - down[j] + 2 * centre
        hessian[i, j] = hessian[j, i] = total / (2 * difference[i] * difference[j])
    hessian = np.nan_to_num(hessian, nan=0.0, posinf=0.0, neginf=-1e8)
    return Slopes(float(centre), gradient, curvature, hessian)


def invert_negative(hessian: Array) -> Array:
    """Invert a negative Hessian, whose curvatures are put to a least value where they are smaller."""
    scale = np.sqrt(np.maximum(-np.diag(hessian), LEAST_CURVATURE))
    values, vectors = np.linalg.eigh(-hessian / np.outer(scale, scale))
    values = np.maximum(values, LEAST_CURVATURE / scale.max() ** 2 if scale.max() < 1 else 0.05)
    inverse = (vectors / values) @ vectors.T
    return np.asarray(inverse / np.outer(scale, scale))


def scan_around(peak: LatentPeak, known: list[LatentPeak]) -> Steps[tuple[tuple[Array, Array], list[Array]]]:
    """Scan every SD through a peak, and the space around thinly; return the scan, and where to climb from."""
    dim, structure = len(peak.point), peak.density.structure
    scale_columns = [column for column, each in enumerate(structure.coordinates)
                     if each.is_scale or each.name.endswith("_correlation")]  # fmt: skip
    if not scale_columns:
        return (np.empty((0, dim)), np.empty(0)), []
    lines = [_line_places(peak, column) for column in scale_columns]
    rays = []
    for column, places in zip(scale_columns, lines, strict=True):
        ray = np.tile(peak.point, (len(places), 1))
        ray[:, column] = places
        rays.append(ray)
    cloud = _scatter_points(peak, scale_columns, lines)
    points = np.concatenate([*rays, cloud])
    careful = replace(peak.density, newton_steps=SCAN_NEWTON_STEPS)
    heights = yield ApproximateDensity(careful, points)
    starts, first = [], 0
    for ray in rays:
        mine = heights[first : first + len(ray)]
        first += len(ray)
        padded = np.concatenate([[-np.inf], mine, [-np.inf]])
        is_summit = (mine >= padded[:-2]) & (mine > padded[2:]) & (mine > peak.log_height - CLIMB_DEPTH)
        starts += [ray[place] for place in np.flatnonzero(is_summit)]
    high = np.flatnonzero(heights[first:] > peak.log_height - MAX_DEPTH) + first
    far = [place for place in high if all(each.measure_distances(points[[place]])[0] > FAR for each in known)]
    if far:
        starts.append(points[max(far, key=lambda place: heights[place])])
    if len(starts) > 1:
        order = np.argsort(-(yield ApproximateDensity(careful, np.stack(starts))))
        starts = [starts[place] for place in order]
    return (points, heights), starts


def _line_places(peak: LatentPeak, column: int) -> Array:
    """List the places of an SD that its prior and the data allow."""
    ends = [-3.5, 3.0, float(peak.point[column])]
    each = peak.density.structure.coordinates[column]
    if each.is_scale and not each.name.endswith("_mixing"):
        # η of cells differ by as much: no SD is larger than a few times this
        spread = max(float(np.ptp(reference)) for reference in peak.density.cells.references)
        ends.append(min(find_score_of_value(each.prior, 2 * spread + 1e-12), 37.0))
        smallest = float(compute_value_of_score(each.prior, np.array(-3.5)))
        typical = _find_smallest_error(peak.density)
        if typical < smallest:
            ends.append(max(find_score_of_value(each.prior, 0.3 * typical), -12.0))
    return np.linspace(min(ends), max(ends), SCAN_PLACES)


def _find_smallest_error(density: LatentDensity) -> float:
    """Find the smallest sampling SD of a cell."""
    precision = max(float(each.max()) for each in density.sites.precision)
    return float(precision**-0.5) if precision > 0 else np.inf


def _scatter_points(peak: LatentPeak, columns: list[int], lines: list[Array]) -> Array:
    """Scatter points over the ranges of all SDs at once, evenly."""
    if len(columns) == 1:  # its line has been scanned
        return np.empty((0, len(peak.point)))
    uniforms = np.random.default_rng(0).random((SCAN_POINTS, len(columns)))
    points = np.tile(peak.point, (SCAN_POINTS, 1))
    for number, (column, places) in enumerate(zip(columns, lines, strict=True)):
        # Most within the prior, the ends as far as the data go.
        scores = special.ndtri(np.clip(uniforms[:, number], 1e-6, 1 - 1e-6)) * 1.5
        points[:, column] = np.clip(scores, places[0], places[-1])
    return points


def make_careful(peak: LatentPeak) -> LatentPeak:
    """Return the peak with more steps of sites at every point, and defensive draws."""
    density = replace(peak.density, site_steps=CAREFUL_SITE_STEPS, is_defensive=True)
    return replace(peak, density=density)
