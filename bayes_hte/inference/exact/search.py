"""The most probable hyperparameters, and how sharply the posterior falls around them.

Newton's method with derivatives from a stencil: all points of a stencil, and all trial steps along a
direction, are evaluated in one vectorised call, which costs little more than a single point.
"""

from dataclasses import dataclass, replace

import numpy as np

from bayes_hte.inference.exact.integrate import Index
from bayes_hte.inference.exact.space import Array, Hyperparameter
from bayes_hte.inference.exact.target import Group, Target
from bayes_hte.model.priors import compute_log_prior, freeze_distribution

TRIALS = np.array([1.0, 0.5, 2.0, 0.25, 0.1, 0.03, 0.01])
LONGEST = 2.0
"""Longest Newton step in any coordinate: log τ, log-odds and the like change their meaning within a few units."""
MAX_SD = 3.0
"""A direction in which the posterior is nearly flat is given this SD; sampling widens it if need be."""
FIRST_STEP = 0.1
"""Of the first finite differences. This and the two above count in units of each coordinate (`measure_units`)."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The mode, and the inverse of the negative Hessian there.

    Attributes
    ----------
    point : ndarray
        (coordinate,).
    covariance : ndarray
        (coordinate, coordinate).
    log_density : float
        At the point, with Laplace's integrals over segments.
    """

    point: Array
    covariance: Array
    log_density: float = 0.0

    @property
    def log_mass(self) -> float:
        """Log of the mass around the peak, up to a constant, as if it were normal."""
        # log ∫ exp(height − ½ xᵀ Σ⁻¹ x) dx = height + ½ log |Σ| + const
        return self.log_density + 0.5 * float(np.linalg.slogdet(self.covariance)[1])


def find_peak(target: Target, start: Array, *, units: Array | None = None, rounds: int = 40) -> tuple[Target, Peak]:
    """Climb from `start`; return the target with its anchors at the mode.

    The integrals are Laplace's here: the mode is only where sampling starts.

    Parameters
    ----------
    target : Target
    start : ndarray
        (coordinate,).
    units : ndarray, optional
        Typical size of a change of each coordinate; 1 by default.
    rounds : int
        Newton steps, at most.
    """
    units = np.ones(len(start)) if units is None else units
    laplace = tuple(replace(group, order=1) for group in target.groups)
    columns = np.arange(len(start))
    point, scale = start, FIRST_STEP * units
    value = float(target.log_density(point[None], laplace)[0])
    covariance = np.diag(scale**2)
    for _ in range(rounds):
        gradient, hessian = (each[0] for each in derivatives(target, point[None], scale, columns, laplace))
        covariance = invert(-hessian, units)
        step = covariance @ gradient
        if float(gradient @ step) < 1e-3:
            break
        step *= min(1.0, LONGEST / max(np.abs(step / units).max(), 1e-12))
        trials = point + TRIALS[:, None] * step
        found = target.log_density(trials, laplace)
        best = int(np.argmax(found))
        if not found[best] > value:
            break
        point, value = trials[best], float(found[best])
        target = target.anchored(point)
        scale = np.clip(np.sqrt(np.diag(covariance)) * 0.3, 1e-5 * units, 0.3 * units)
    return target.anchored(point), Peak(point, covariance, value)


def derivatives(
    target: Target, points: Array, scale: Array, columns: Index, groups: tuple[Group, ...] | None
) -> tuple[Array, Array]:
    """Compute gradient and Hessian along some coordinates, by central differences, at several points at once.

    Parameters
    ----------
    target : Target
    points : ndarray
        (point, coordinate).
    scale : ndarray
        (coordinate,): steps of the differences.
    columns : ndarray
        Coordinates along which derivatives are taken.
    groups : tuple of Group or None
        How segments are integrated; None for the closed form of quadratic models.

    Returns
    -------
    gradient, hessian : ndarray
        (point, column) and (point, column, column).
    """
    size = len(columns)
    steps = np.zeros((size, points.shape[1]))
    steps[np.arange(size), columns] = scale[columns]
    pairs = [(i, j) for i in range(size) for j in range(i)]
    both = [steps[i] + steps[j] for i, j in pairs]
    offsets = np.array([np.zeros(points.shape[1]), *steps, *-steps, *both, *(-each for each in both)])
    values = evaluate(target, (points[:, None] + offsets).reshape(-1, points.shape[1]), groups)
    values = values.reshape(len(points), -1).T
    width = scale[columns][:, None]
    centre, up, down = values[0], values[1 : size + 1], values[size + 1 : 2 * size + 1]
    gradient = ((up - down) / (2 * width)).T
    hessian = np.zeros((len(points), size, size))
    hessian[:, np.arange(size), np.arange(size)] = ((up - 2 * centre + down) / width**2).T
    plus, minus = np.split(values[2 * size + 1 :], 2)
    for (i, j), high, low in zip(pairs, plus, minus, strict=True):
        mixed = (high + low - up[i] - up[j] - down[i] - down[j] + 2 * centre) / (2 * width[i] * width[j])
        hessian[:, i, j] = hessian[:, j, i] = mixed
    return gradient, hessian


def evaluate(target: Target, points: Array, groups: tuple[Group, ...] | None) -> Array:
    """Compute log densities by quadrature, or, without `groups`, in closed form under quadratic likelihoods."""
    return target.log_quadratic(points) if groups is None else target.log_density(points, groups)


def invert(precision: Array, units: Array) -> Array:
    """Invert matrices (…, i, j) that should be positive definite; make flat or wrong directions wide."""
    size = precision.shape[-1]
    diagonal = np.abs(np.diagonal(precision, axis1=-2, axis2=-1))
    lengths = np.sqrt(np.maximum(diagonal, 1 / (MAX_SD * units) ** 2))
    outer = lengths[..., :, None] * lengths[..., None, :]
    values, vectors = np.linalg.eigh(np.nan_to_num(precision / outer, posinf=0.0, neginf=0.0) + 1e-12 * np.eye(size))
    # In units of each coordinate's own curvature a direction is flat below a hundredth.
    inverse = (vectors / np.maximum(np.abs(values), 0.01)[..., None, :]) @ np.swapaxes(vectors, -2, -1)
    return np.asarray(inverse / outer)


@dataclass(frozen=True, slots=True)
class Rough:
    """What a coefficient's estimates say at first sight.

    Attributes
    ----------
    mean, between : float
        Precision-weighted mean, and a between-segment SD (DerSimonian & Laird's, not below half a typical error).
    segments, variance : float
        How many segments are informative, and their typical sampling variance.
    smallest_sd, spread : float
        The most precise estimate's standard error, and the range of the estimates: beyond both, nothing of the data
        depends on a between-segment SD.
    """

    mean: float
    between: float
    segments: float
    variance: float
    smallest_sd: float = 1.0
    spread: float = 1.0


def first_sight(target: Target) -> dict[str, list[Rough]]:
    """Rough estimates of every pooled coefficient, arm by arm."""
    curve, segments = target.segments.curve, target.segments
    shared = rough_nuisance(target)
    weights = []
    for arm, (data, anchor) in enumerate(zip(segments.arms, segments.anchors, strict=True)):
        weights.append(curve.compute_derivatives(data, anchor[None], curve.select_arm_nuisance(shared, arm))[1][0])
    effects = []
    for anchor, weight in zip(segments.anchors[1:], weights[1:], strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.where((weight > 0) & (weights[0] > 0), 1 / (1 / weight + 1 / weights[0]), 0.0)
        effects.append(_moments(anchor - segments.anchors[0], weight if target.model.baseline is None else both))
    return {"baseline": [_moments(segments.anchors[0], weights[0])], "effect": effects}


def starting_point(target: Target, rough: dict[str, list[Rough]]) -> Array:
    """A point from which the peak can be climbed."""
    found: dict[str, list[float]] = {name: list(values[0]) for name, values in rough_nuisance(target).items()}
    for name, each in rough.items():
        found |= {f"{name}_mean": [one.mean for one in each], f"{name}_between": [one.between for one in each]}
    sizes = target.space.sizes
    starts = {name: _to_size(found.get(name, [0.0]), size) for name, size in sizes.items()}
    ordered_name = target.space.ordered_name
    ascending = np.empty(0) if ordered_name is None else np.diff(starts[ordered_name], prepend=0.0)
    return np.array([
        start_of(each, float(ascending[each.position] if each.is_ordered else starts[each.name][each.position]))
        for each in target.space.parameters
    ])  # fmt: skip


def _to_size(values: list[float], size: int) -> Array:
    """One value for every entry: a mean of those of arms that share one, repeated for strata."""
    if size < len(values):
        return np.full(size, np.mean(values))
    return np.tile(np.asarray(values, dtype=float), -(-size // max(len(values), 1)))[:size]


def start_of(parameter: Hyperparameter, value: float) -> float:
    """On the real line; a value that its prior excludes is replaced by the prior's median."""
    if parameter.line != "ascending" and not np.isfinite(compute_log_prior(parameter.prior, np.array([value])))[0]:
        value = float(freeze_distribution(parameter.prior).ppf(0.5))
    return float(parameter.free(np.array([value]))[0])


def _moments(estimates: Array, precision: Array) -> Rough:
    if not precision.sum() > 0:
        return Rough(0.0, 0.3, 1.0, 1.0)
    informative = float(np.count_nonzero(precision))
    smallest_sd = float(precision.max() ** -0.5)
    spread = float(np.ptp(estimates[precision > 0]) + precision[precision > 0].min() ** -0.5)
    precision = np.minimum(precision, 1e4 * np.median(precision[precision > 0]))
    total = precision.sum()
    mean = float((precision * estimates).sum() / total)
    excess = float((precision * (estimates - mean) ** 2).sum()) - (informative - 1)
    room = total - (precision**2).sum() / total
    typical = informative / total
    between = np.sqrt(max(excess / room if room > 0 else 0.0, 0.25 * typical))
    return Rough(mean, float(between), informative, float(typical), smallest_sd, spread)


def measure_units(target: Target, rough: dict[str, list[Rough]]) -> Array:
    """Measure how large a change of each coordinate is: of a mean as the data say, 1 for logarithms and log-odds."""
    # A mean in cents varies a hundred times as much as one in dollars: Newton's limits are in these units.
    units = np.ones(len(target.space.parameters))
    for column, parameter in enumerate(target.space.parameters):
        known = rough.get(parameter.name.partition("_")[0])
        if parameter.line == "real" and known and target.has_units:
            units[column] = max(max(each.between, each.variance**0.5) for each in known)
    return units


def rough_nuisance(target: Target) -> dict[str, Array]:
    """The nuisance parameter as the data have it at first sight: (1, entry) by name."""
    curve = target.segments.curve
    if curve.nuisance_name is None or curve.guess_nuisance is None:
        return {}
    statistics = target.statistics.transpose("segment", "arm", ...)
    return {curve.nuisance_name: curve.guess_nuisance(statistics)[None]}
