"""The most probable hyperparameters, and how sharply the posterior falls around them.

Newton's method with derivatives from a stencil: all points of a stencil, and all trial steps along a
direction, are evaluated in one vectorised call, which costs little more than a single point.
"""

from dataclasses import dataclass, replace

import numpy as np

from bayes_hte.inference.exact.space import Array, Hyperparameter
from bayes_hte.inference.exact.target import Group, Target
from bayes_hte.model.priors import compute_log_prior, freeze_distribution

TRIALS = np.array([1.0, 0.5, 2.0, 0.25, 0.1, 0.03, 0.01])
LONGEST = 2.0
"""Longest Newton step in any coordinate: log τ, log-odds and the like change their meaning within a few units."""
MAX_SD = 3.0
"""A direction in which the posterior is nearly flat is given this SD; sampling widens it if need be."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The mode, and the inverse of the negative Hessian there."""

    point: Array
    covariance: Array


def find_peak(target: Target, start: Array, *, rounds: int = 40) -> tuple[Target, Peak]:
    """Climb from `start`; returns the target with its anchors at the mode.

    The integrals are Laplace's here: the mode is only where sampling starts.
    """
    laplace = tuple(replace(group, order=1) for group in target.groups)
    point, scale = start, np.full(len(start), 0.1)
    value = float(target.log_density(point[None], laplace)[0])
    peak = Peak(point, np.diag(scale**2))
    for _ in range(rounds):
        gradient, hessian = derivatives(target, point, scale, laplace)
        peak = Peak(point, _inverse(-hessian, scale))
        step = peak.covariance @ gradient
        if float(gradient @ step) < 1e-3:
            break
        step *= min(1.0, LONGEST / max(np.abs(step).max(), 1e-12))
        trials = point + TRIALS[:, None] * step
        found = target.log_density(trials, laplace)
        best = int(np.argmax(found))
        if not found[best] > value:
            break
        point, value = trials[best], float(found[best])
        target = target.anchored(point)
        scale = np.clip(np.sqrt(np.diag(peak.covariance)) * 0.3, 1e-5, 0.3)
    return target.anchored(peak.point), peak


def derivatives(target: Target, point: Array, scale: Array, groups: tuple[Group, ...]) -> tuple[Array, Array]:
    """Gradient and Hessian by central differences with steps `scale`."""
    size = len(point)
    steps = np.diag(scale)
    pairs = [(i, j) for i in range(size) for j in range(i)]
    both = [steps[i] + steps[j] for i, j in pairs]
    offsets = np.array([np.zeros(size), *steps, *-steps, *both, *(-each for each in both)])
    values = target.log_density(point + offsets, groups)
    centre, up, down = values[0], values[1 : size + 1], values[size + 1 : 2 * size + 1]
    gradient = (up - down) / (2 * scale)
    hessian = np.diag((up - 2 * centre + down) / scale**2)
    plus, minus = np.split(values[2 * size + 1 :], 2)
    for (i, j), high, low in zip(pairs, plus, minus, strict=True):
        mixed = (high + low - up[i] - up[j] - down[i] - down[j] + 2 * centre) / (2 * scale[i] * scale[j])
        hessian[i, j] = hessian[j, i] = mixed
    return gradient, hessian


def _inverse(precision: Array, scale: Array) -> Array:
    """Inverse of a matrix that should be positive definite, with flat or wrong directions made wide."""
    units = np.sqrt(np.maximum(np.abs(np.diag(precision)), 1 / MAX_SD**2))
    values, vectors = np.linalg.eigh(precision / np.outer(units, units))
    # In units of each coordinate's own curvature a direction is flat below a hundredth.
    inverse = (vectors / np.maximum(np.abs(values), 0.01)) @ vectors.T
    covariance: Array = inverse / np.outer(units, units)
    return covariance


@dataclass(frozen=True, slots=True)
class Rough:
    """What a coefficient's estimates say at first sight.

    Attributes
    ----------
    mean, between : float
        Precision-weighted mean, and a between-segment SD (DerSimonian & Laird's, not below half a typical error).
    segments, variance : float
        How many segments are informative, and their typical sampling variance.
    """

    mean: float
    between: float
    segments: float
    variance: float


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
    return np.tile(np.asarray(values, dtype=float), -(-size // len(values)))[:size]


def start_of(parameter: Hyperparameter, value: float) -> float:
    """On the real line; a value that its prior excludes is replaced by the prior's median."""
    if parameter.line != "ascending" and not np.isfinite(compute_log_prior(parameter.prior, np.array([value])))[0]:
        value = float(freeze_distribution(parameter.prior).ppf(0.5))
    return float(parameter.free(np.array([value]))[0])


def _moments(estimates: Array, precision: Array) -> Rough:
    if not precision.sum() > 0:
        return Rough(0.0, 0.3, 1.0, 1.0)
    informative = float(np.count_nonzero(precision))
    precision = np.minimum(precision, 1e4 * np.median(precision[precision > 0]))
    total = precision.sum()
    mean = float((precision * estimates).sum() / total)
    excess = float((precision * (estimates - mean) ** 2).sum()) - (informative - 1)
    room = total - (precision**2).sum() / total
    typical = informative / total
    between = np.sqrt(max(excess / room if room > 0 else 0.0, 0.25 * typical))
    return Rough(mean, float(between), informative, float(typical))


def rough_nuisance(target: Target) -> dict[str, Array]:
    """The nuisance parameter as the data have it at first sight: (1, entry) by name."""
    curve = target.segments.curve
    if curve.nuisance_name is None or curve.guess_nuisance is None:
        return {}
    statistics = target.statistics.transpose("segment", "arm", ...)
    return {curve.nuisance_name: curve.guess_nuisance(statistics)[None]}
