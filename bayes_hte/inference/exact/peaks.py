"""All peaks of the posterior of the hyperparameters, and a scan that says where a sampler has to look.

Precise segments that agree and noisy ones that differ can be explained by a small between-segment SD or by a large one.
Each explanation is a peak, a search climbs one of them, and no weights of points around it tell of the other. So
every coordinate that may have several peaks is scanned: at each of its values the other coordinates are put to their
modes given it, and Laplace's formula gives its marginal density

    p(θ_c | D) ≈ p(θ_c, θ̂_rest | D) |Σ_rest|^½      θ̂_rest: the conditional mode, Σ_rest: the inverse Hessian there

The climb to conditional modes uses quadratic likelihoods, which cost next to nothing.
"""

from dataclasses import dataclass, replace

import numpy as np

from bayes_hte.inference.exact.search import (
    FIRST_STEP,
    LONGEST,
    TRIALS,
    Peak,
    Rough,
    derivatives,
    evaluate,
    find_peak,
    invert,
    measure_units,
    starting_point,
)
from bayes_hte.inference.exact.space import Array, Hyperparameter
from bayes_hte.inference.exact.target import Target
from bayes_hte.spec.distributions import Cauchy, StudentT

SCAN_STEP = 0.5
"""Between values of log τ: as a function of it a log density bends within a unit or more, however many segments."""
SCAN_ROUNDS = 8
"""Newton steps to the conditional modes, at most."""
MAX_DEPTH = 10.0
"""Nats below the highest peak from which a peak is left out: e⁻¹⁰ of the mass changes nothing that is reported."""
MAX_PEAKS = 6
PRIOR_DEPTH = 3.0
"""Nats below the prior's peak down to which a scan follows it."""
FEWEST_POINTS = 3
"""Points of a sampler in an interval from which on their weights say how much mass it has."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Marginal density of one coordinate by Laplace's formula.

    Attributes
    ----------
    column : int
        The coordinate.
    places : ndarray
        (place,) its values, ascending.
    points : ndarray
        (place, coordinate): the other coordinates at their modes given it.
    log_density : ndarray
        (place,), up to a constant that all profiles of a target share.
    """

    column: int
    places: Array
    points: Array
    log_density: Array

    def list_summits(self) -> list[Array]:
        """List the points at which the profile is no lower than beside, within reach of the highest."""
        padded = np.concatenate([[-np.inf], self.log_density, [-np.inf]])
        is_summit = (padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:])
        # The summit proper lies between two places: it may be higher by some nats than both.
        is_summit &= self.log_density > self.log_density.max() - 2 * MAX_DEPTH
        return list(self.points[is_summit])

    def interval_masses(self) -> Array:
        """Compute the share of the mass in every interval between neighbouring places."""
        # ∫ of a density whose logarithm is linear from a to b over a width w:  w (eᵇ − eᵃ) / (b − a)
        low, high = np.sort([self.log_density[:-1], self.log_density[1:]], axis=0)
        rise = np.maximum(high - low, 1e-9)
        with np.errstate(under="ignore"):
            mass = np.diff(self.places) * np.exp(high - self.log_density.max()) * -np.expm1(-rise) / rise
        return np.asarray(mass / mass.sum())


@dataclass(frozen=True, slots=True)
class Landscape:
    """Peaks of the posterior of the hyperparameters, the one with most mass first, and scans through them."""

    peaks: list[Peak]
    profiles: list[Profile]

    def measure_unexplored(self, points: Array) -> float:
        """Measure the largest share of mass that a scan sees where none of a sampler's points lie."""
        missed = [0.0]
        for column in {profile.column for profile in self.profiles}:
            profile = join_profiles([each for each in self.profiles if each.column == column])
            profile = raise_to_peaks(profile, self.peaks)
            counts, _ = np.histogram(points[:, column], profile.places)
            missed.append(float(profile.interval_masses()[counts < FEWEST_POINTS].sum()))
        return max(missed)


def join_profiles(profiles: list[Profile]) -> Profile:
    """Join scans of one coordinate from several peaks: the highest conditional mode that one of them found."""
    places, first = np.unique(np.concatenate([each.places for each in profiles]), return_index=True)
    heights = np.stack([np.interp(places, each.places, np.maximum(each.log_density, -1e300)) for each in profiles])
    points = np.concatenate([each.points for each in profiles])[first]
    return Profile(profiles[0].column, places, points, heights.max(0))


def raise_to_peaks(profile: Profile, peaks: list[Peak]) -> Profile:
    """Raise a profile, where a peak is known, to that peak's own height.

    Conditional modes are climbed to on quadratic likelihoods. Where cutpoints or hazards move a precise cell, these
    are poor, and all of a profile may lie far below the peak that was climbed to without them.
    """
    log_density = profile.log_density.copy()
    for peak in peaks:
        place = int(np.abs(profile.places - peak.point[profile.column]).argmin())
        # |Σ_rest given the coordinate| = |Σ| / Σ_cc
        height = peak.log_mass - 0.5 * float(np.log(peak.covariance[profile.column, profile.column]))
        log_density[place] = max(log_density[place], height)
    return replace(profile, log_density=log_density)


def survey(target: Target, rough: dict[str, list[Rough]]) -> tuple[Target, Landscape]:
    """Find all peaks; return the target with its anchors at the first one.

    Parameters
    ----------
    target : Target
        Before its mode is known.
    rough : dict
        From `search.first_sight`.
    """
    units = measure_units(target, rough)
    found = [find_peak(target, starting_point(target, rough), units=units)]
    profiles: list[Profile] = []
    scanned = 0
    # What a scan from one peak finds is scanned in turn: there the other coordinates are elsewhere.
    while scanned < len(found):
        _, peak = found[scanned]
        scanned += 1
        wide = target.anchored(_widen(target, peak.point, rough))
        for column in _list_columns(target):
            known = [each.point[column] for _, each in found]
            profile = scan(wide, peak.point, column, _list_places(target, column, rough, known), units)
            profiles.append(profile)
            for summit in profile.list_summits():
                if len(found) < MAX_PEAKS and all(abs(summit[column] - place) > SCAN_STEP for place in known):
                    climbed = find_peak(target, summit, units=units)
                    if all(_are_apart(climbed[1], each) for _, each in found):
                        found.append(climbed)
    found.sort(key=lambda each: -each[1].log_mass)
    peaks = [peak for _, peak in found if peak.log_mass > found[0][1].log_mass - MAX_DEPTH]
    return found[0][0], Landscape(peaks, profiles)


def scan(target: Target, start: Array, column: int, places: Array, units: Array) -> Profile:
    """Compute the profile of one coordinate, climbing to conditional modes from `start`."""
    points = np.tile(start, (len(places), 1))
    points[:, column] = places
    others = np.delete(np.arange(len(start)), column)
    half_log_det = np.zeros(len(places))
    scale = FIRST_STEP * units
    values = evaluate(target, points, None)
    for _ in range(SCAN_ROUNDS if len(others) else 0):
        gradient, hessian = derivatives(target, points, scale, others, None)
        covariance = invert(-hessian, units[others])
        half_log_det = 0.5 * np.linalg.slogdet(covariance)[1]
        step = np.einsum("pij,pj->pi", covariance, np.nan_to_num(gradient))
        step *= np.minimum(1.0, LONGEST / np.maximum(np.abs(step / units[others]).max(1), 1e-12))[:, None]
        trials = np.repeat(points[:, None], len(TRIALS), axis=1)
        trials[:, :, others] += TRIALS[:, None] * step[:, None]
        heights = evaluate(target, trials.reshape(-1, len(start)), None).reshape(len(places), -1)
        best, rows = heights.argmax(1), np.arange(len(places))
        is_better = heights[rows, best] > values
        gain = float(np.where(is_better, heights[rows, best] - values, 0.0).max())
        points = np.where(is_better[:, None], trials[rows, best], points)
        values = np.where(is_better, heights[rows, best], values)
        if not gain > 0.01:
            break
    laplace = tuple(replace(group, order=1) for group in target.groups)
    return Profile(column, places, points, target.log_density(points, laplace) + half_log_det)


def _list_columns(target: Target) -> list[int]:
    """List coordinates along which there may be two peaks: scales, correlations, and means under heavy tails."""
    return [
        column
        for column, each in enumerate(target.space.parameters)
        if each.name.endswith(("_between", "_correlation"))
        or (each.name.endswith(("_mean", "_slope")) and isinstance(each.prior, StudentT | Cauchy))
    ]


def _list_places(target: Target, column: int, rough: dict[str, list[Rough]], known: list[float]) -> Array:
    """List the values at which a coordinate is scanned: wherever data or prior could put it, and at known peaks."""
    parameter = target.space.parameters[column]
    estimates = rough[parameter.name.partition("_")[0]]
    prior_range = _find_prior_range(parameter)
    if parameter.line == "real":
        mean = float(np.mean([each.mean for each in estimates]))
        reach = 6 * max(max(each.between, each.variance**0.5) for each in estimates)
        data_range = [mean - reach, mean + reach]
    elif parameter.name.endswith("_correlation"):
        data_range = []  # a correlation's prior covers all that it can be
    else:
        data_range = list(
            parameter.free(
                np.array([0.1 * min(e.smallest_sd for e in estimates), 3 * max(e.spread for e in estimates)])
            )
        )
    inside = [*known, *data_range, *prior_range]
    if parameter.line != "real":
        count = int(np.ceil((max(inside) - min(inside)) / SCAN_STEP)) + 1
        return np.unique([*np.linspace(min(inside), max(inside), count), *known])
    # A mean may be wherever its prior or its data are, on very different scales.
    grids = [np.linspace(prior_range[0], prior_range[1], 9), np.linspace(data_range[0], data_range[1], 13)]
    return np.unique(np.concatenate([known, *grids]))


def _find_prior_range(parameter: Hyperparameter) -> tuple[float, float]:
    """Find where the density of a coordinate's prior is highest."""
    if isinstance(parameter.prior, StudentT | Cauchy):
        return parameter.prior.mu - 4 * parameter.prior.sigma, parameter.prior.mu + 4 * parameter.prior.sigma
    places = np.linspace(-40.0, 40.0, 321)
    height = parameter.log_prior(places)
    kept = places[height > height.max() - PRIOR_DEPTH]
    return float(kept[0]), float(kept[-1])


def _widen(target: Target, point: Array, rough: dict[str, list[Rough]]) -> Array:
    """Raise between-segment SDs until every informative cell is near its own estimate."""
    # Quadratic likelihoods are taken there: valid where segments differ, and near enough where they agree.
    wide = point.copy()
    for column, parameter in enumerate(target.space.parameters):
        if parameter.name.endswith("_between"):
            spread = max(each.spread for each in rough[parameter.name.partition("_")[0]])
            wide[column] = max(point[column], float(parameter.free(np.array([spread / 4]))[0]))
    return wide


def _are_apart(one: Peak, other: Peak) -> bool:
    """Tell whether two peaks are different ones: further from each other than their own SDs."""
    away = one.point - other.point
    return all(float(away @ np.linalg.solve(peak.covariance, away)) > 1.0 for peak in (one, other))
