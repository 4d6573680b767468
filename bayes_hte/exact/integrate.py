"""One segment given the hyperparameters: its mode, and the integral of its likelihood over its offsets.

I_s(θ) = ∫ φ(u) L0(b(u)) Π_a [ ∫ φ(x) L_a(b(u) + e_a(x)) dx ] du       φ: standard normal density

Given the baseline the arms are independent, so K arms cost K nested one-dimensional integrals. Gauss–Hermite
nodes are centred at the mode and scaled by the curvature there (adaptive quadrature: Naylor & Smith 1982,
JRSS C 31:214); for Gaussian families one node is exact. Arrays are (point, segment) throughout.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bayes_hte.exact.coefficients import Line, Map
from bayes_hte.exact.space import Array
from bayes_hte.families.family import CellData, Curve

Index = NDArray[np.intp]
Quantity = Callable[[Array, Array], Array]
"""Of a baseline and an effect on the link scale."""
MAX_STEP = 3.0
"""Longest step of an offset: beyond a few prior SDs a quadratic model of a binomial likelihood is worthless."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The cells of some segments, arm by arm, the control first, and how their likelihood is computed."""

    curve: Curve
    arms: tuple[CellData, ...]
    anchors: tuple[Array, ...]

    @property
    def size(self) -> int:
        """How many segments."""
        return len(self.anchors[0])

    def pick(self, chosen: Index) -> "Segments":
        """Only these segments."""
        arms = tuple({name: values[chosen] for name, values in arm.items()} for arm in self.arms)
        return Segments(self.curve, arms, tuple(anchor[chosen] for anchor in self.anchors))


@dataclass(frozen=True, slots=True)
class Maps:
    """Baseline and effects as functions of offsets at some points; sigma per arm where the family has it."""

    points: int
    baseline: Map
    effects: tuple[Map, ...]
    sigma: tuple[Array | None, ...]


@dataclass(frozen=True, slots=True)
class Mode:
    """Where a segment's posterior given the hyperparameters is highest, and its shape there.

    Attributes
    ----------
    base, base_sd : ndarray
        Offset of the baseline, and its standard deviation with the arms integrated out.
    arms, arm_sd : tuple of ndarray
        Offset of each arm's effect, and its standard deviation given the baseline.
    lean : tuple of ndarray
        By how much the mode of an arm's offset moves when the baseline's offset moves by one.
    """

    base: Array
    base_sd: Array
    arms: tuple[Array, ...]
    arm_sd: tuple[Array, ...]
    lean: tuple[Array, ...]

    def each(self, change: Callable[[Array], Array]) -> "Mode":
        """The same change to every array: rows, columns."""
        parts = (tuple(map(change, part)) for part in (self.arms, self.arm_sd, self.lean))
        return Mode(change(self.base), change(self.base_sd), *parts)

    @classmethod
    def joined(cls, modes: "Sequence[Mode]") -> "Mode":
        """Points of several modes under each other."""

        def stack(parts: Iterator[Array]) -> Array:
            return np.concatenate(list(parts))

        arms = range(len(modes[0].arms))
        return cls(
            stack(mode.base for mode in modes),
            stack(mode.base_sd for mode in modes),
            tuple(stack(mode.arms[arm] for mode in modes) for arm in arms),
            tuple(stack(mode.arm_sd[arm] for mode in modes) for arm in arms),
            tuple(stack(mode.lean[arm] for mode in modes) for arm in arms),
        )


def locate(segments: Segments, maps: Maps, *, steps: int) -> Mode:
    """Gauss–Newton to the mode of every (point, segment).

    The first step starts from a quadratic model of the likelihood at `segments.anchors`, which is where the
    mode was at the most probable hyperparameters: it needs no evaluation, and is exact for Gaussian families.
    """
    system = _anchored_system(segments, maps)
    zero = np.zeros((maps.points, segments.size))
    base, arms = _moved(system, zero, [zero] * len(maps.effects), limit=np.inf)
    if not (segments.curve.quadratic and straight(maps)):
        for _ in range(steps):
            system = _system(segments, maps, base, arms)
            base, arms = _moved(system, base, arms, limit=MAX_STEP)
    shape = base.shape
    return Mode(
        base,
        np.broadcast_to(system.precision**-0.5, shape),
        tuple(arms),
        tuple(np.broadcast_to(own**-0.5, shape) for own in system.own),
        tuple(np.broadcast_to(lean, shape) for lean in system.lean),
    )


def straight(maps: Maps) -> bool:
    """Whether baseline and effects are linear in their offsets."""
    return all(isinstance(each, Line) for each in (maps.baseline, *maps.effects))


@dataclass(frozen=True, slots=True)
class _System:
    """The arrow-shaped Gauss–Newton equations of all (point, segment): arms meet only through the baseline.

    Attributes
    ----------
    total : ndarray
        Slope of the log likelihood along the baseline's offset.
    precision : ndarray
        Of the baseline's offset, with the arms integrated out.
    pulls, own, lean : list of ndarray
        Per arm: slope along its offset, precision of it given the baseline, and `Mode.lean`.
    """

    total: Array
    precision: Array
    pulls: list[Array]
    own: list[Array]
    lean: list[Array]


def _assembled(control: tuple[Array, Array, Array], cells: Sequence[tuple[Array, Array, Array]]) -> _System:
    """From score, information and slope of the map, for the control and every other arm."""
    total, told, slope = control
    pulls, owns, leans = [], [], []
    for score, information, arm_slope in cells:
        total = total + score
        weight = information * arm_slope
        own = weight * arm_slope
        own += 1.0
        # What an arm tells of the baseline once its own offset is free: no difference of large numbers.
        told = told + information / own
        lean = weight * -slope
        lean /= own
        pulls.append(score * arm_slope)
        owns.append(own)
        leans.append(lean)
    precision = told * (slope * slope)
    precision += 1.0
    return _System(total * slope, precision, pulls, owns, leans)


def _anchored_system(segments: Segments, maps: Maps) -> _System:
    """At offsets 0, on the quadratic model of every cell at its anchor."""
    anchors = segments.anchors
    line = maps.baseline.line(anchors[0])
    control = (*_anchored(segments, maps, 0, line.location), line.scale)
    cells = []
    for index, effect in enumerate(maps.effects, start=1):
        tangent = effect.line(anchors[index] - anchors[0])
        cells.append((*_anchored(segments, maps, index, line.location + tangent.location), tangent.scale))
    return _assembled(control, cells)


def _anchored(segments: Segments, maps: Maps, arm: int, eta: Array) -> tuple[Array, Array]:
    """Score and information at `eta`, from the quadratic model of an arm's likelihood at its anchor."""
    anchor, sigma = segments.anchors[arm], maps.sigma[arm]
    at = anchor[None, :] if sigma is None else np.broadcast_to(anchor, (len(sigma), len(anchor)))
    score, information = segments.curve.derivatives(segments.arms[arm], at, sigma)
    return score + information * (anchor - eta), information


def _system(segments: Segments, maps: Maps, base: Array, arms: list[Array]) -> _System:
    """At the current offsets."""
    curve, baseline = segments.curve, maps.baseline.value(base)
    control = (*curve.derivatives(segments.arms[0], baseline, maps.sigma[0]), maps.baseline.slope(base))
    cells = []
    for cell, effect, sigma, offset in zip(segments.arms[1:], maps.effects, maps.sigma[1:], arms, strict=True):
        eta = effect.value(offset)
        eta = eta + baseline
        cells.append((*curve.derivatives(cell, eta, sigma), effect.slope(offset)))
    return _assembled(control, cells)


def _moved(system: _System, base: Array, arms: list[Array], *, limit: float) -> tuple[Array, list[Array]]:
    """One step to the solution of the equations, no longer than `limit` in any offset."""
    pulls = [pull - offset for pull, offset in zip(system.pulls, arms, strict=True)]
    move = system.total - base
    for pull, lean in zip(pulls, system.lean, strict=True):
        move = move + lean * pull
    move /= system.precision
    if np.isfinite(limit):
        np.clip(move, -limit, limit, out=move)
    found = []
    for pull, own, lean, offset in zip(pulls, system.own, system.lean, arms, strict=True):
        step = pull / own
        step = step + lean * move
        if np.isfinite(limit):
            np.clip(step, -limit, limit, out=step)
        found.append(offset + step)
    return base + move, found


@lru_cache(maxsize=64)
def rule(order: int) -> tuple[Array, Array]:
    """Nodes t and log weights of ∫ f(t) dt ≈ Σ exp(log weight) f(t), for f close to a normal density."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    return nodes, np.log(weights) + 0.5 * nodes**2


def log_integral(segments: Segments, maps: Maps, mode: Mode, order: int) -> Array:
    """log I_s(θ) of every (point, segment), with `order` nodes in each direction."""
    curve, (nodes, weights) = segments.curve, rule(order)
    terms = []
    for node, weight in zip(nodes, weights, strict=True):
        base = mode.base + mode.base_sd * node
        baseline = maps.baseline.value(base)
        total = curve.density(segments.arms[0], baseline, maps.sigma[0]) - 0.5 * base**2 + weight
        for index in range(len(maps.effects)):
            total = total + _arm_integral(segments, maps, mode, (index, baseline, node), (nodes, weights))
        terms.append(total)
    constant = 0.5 * np.log(2 * np.pi)
    return np.asarray(log_sum(terms) + np.log(mode.base_sd) - constant)


def _arm_integral(
    segments: Segments, maps: Maps, mode: Mode, at: tuple[int, Array, float], rule_: tuple[Array, Array]
) -> Array:
    """log ∫ φ(x) L_a(b + e_a(x)) dx of one arm at one node of the baseline."""
    terms = [log_term for log_term, _ in _arm_terms(segments, maps, mode, at, rule_)]
    return np.asarray(log_sum(terms) + np.log(mode.arm_sd[at[0]]) - 0.5 * np.log(2 * np.pi))


def _arm_terms(
    segments: Segments, maps: Maps, mode: Mode, at: tuple[int, Array, float], rule_: tuple[Array, Array]
) -> Iterator[tuple[Array, Array]]:
    """The log of each term of an arm's quadrature, and the effect there."""
    (index, baseline, node), (nodes, weights) = at, rule_
    arm, effect, sigma = segments.arms[index + 1], maps.effects[index], maps.sigma[index + 1]
    spread = mode.arm_sd[index]
    centre = mode.arms[index] + mode.lean[index] * (mode.base_sd * node)
    flat, slope, bend = -0.5 * centre * centre, centre * spread, 0.5 * spread * spread
    first, step = effect.value(centre), effect.slope(centre) * spread
    straight_ = isinstance(effect, Line)
    for inner, weight in zip(nodes, weights, strict=True):
        value = step * inner if straight_ else effect.value(centre + spread * inner)
        if straight_:
            value += first
        density = segments.curve.density(arm, baseline + value, sigma)
        # minus half the squared offset, by powers of the node
        prior = bend * -inner
        prior -= slope
        prior *= inner
        prior += flat
        density += prior
        density += weight
        yield density, value


def expectation(segments: Segments, maps: Maps, mode: Mode, order: int, of: Quantity) -> Array:
    """Posterior mean of a quantity of (baseline, effect) given the hyperparameters: (point, segment, arm)."""
    curve, (nodes, weights) = segments.curve, rule(order)
    totals, means = [], []
    for node, weight in zip(nodes, weights, strict=True):
        base = mode.base + mode.base_sd * node
        baseline = maps.baseline.value(base)
        total = curve.density(segments.arms[0], baseline, maps.sigma[0]) - 0.5 * base**2 + weight
        given = []
        for index in range(len(maps.effects)):
            terms, values = [], []
            for log_term, effect in _arm_terms(segments, maps, mode, (index, baseline, node), (nodes, weights)):
                terms.append(log_term)
                values.append(of(baseline, effect))
            whole = log_sum(terms)
            given.append(np.sum([np.exp(t - whole) * v for t, v in zip(terms, values, strict=True)], axis=0))
            total = total + whole
        totals.append(total)
        means.append(np.stack(np.broadcast_arrays(*given), axis=-1))
    whole = log_sum(totals)
    return np.sum([np.exp(t - whole)[..., None] * m for t, m in zip(totals, means, strict=True)], axis=0)


def log_sum(terms: list[Array]) -> Array:
    """log Σ exp(term) of a quadrature, relative to the term in its middle, where the integrand is about largest."""
    middle = terms[len(terms) // 2]
    total = np.ones_like(middle)
    for position, term in enumerate(terms):
        if position != len(terms) // 2:
            excess = term - middle
            total += np.exp(np.minimum(excess, 700.0, out=excess), out=excess)
    np.log(total, out=total)
    total += middle
    return total
