"""P(effect > 0 | data) without the noise of counting draws (Rao–Blackwell).

Given the hyperparameters the probability is an integral of one segment's posterior, closed for Gaussian
families. It is averaged over the posterior at three levels, each of which has only the remainder of the one above left
to average (regression estimators, or control variates: unbiased however bad a regression is, up to 1 / points).

    some points      the integral, less what the normal approximation at the mode predicts of it
    more points      that prediction
    all points       polynomials of degree two of the hyperparameters, fitted to both
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from bayes_hte.inference.exact.accuracy import closed_form
from bayes_hte.inference.exact.coefficients import Line, Map
from bayes_hte.inference.exact.emulate import Standard, features
from bayes_hte.inference.exact.importance import Sample
from bayes_hte.inference.exact.integrate import (
    Index,
    Maps,
    Mode,
    Segments,
    locate,
    log_quadratic,
    log_sum,
    needs_refining,
    rule,
    weigh_components,
)
from bayes_hte.inference.exact.space import Array
from bayes_hte.inference.exact.target import Group, Target, Work, integrate_normal

POINTS, LEAST_POINTS, WORK = 96, 64, 2.5e6
"""Points at which the integral is computed: fewer for more than 26,000 segments."""
MORE = 8
"""Times as many at which it is approximated, or computed where it has a closed form."""
PER_FEATURE = 4
"""Points, at least, for every coefficient of the polynomial."""
BLOCK = 4096
ORDINARY = 7
"""Highest quadrature order of a segment whose posterior is close to normal."""
MAX_ERRORS = 4.5
"""Combined standard errors by which an integral may differ from counting: 7e-6 of sound ones exceed them."""
DRAW_BIAS = 0.002
"""Of a counted probability, where draws are Metropolis steps (`draw.LEFT`), with room."""
MAX_ORDER, ORDER_POINTS = 61, 12
"""Highest quadrature order, and points at which two orders are compared."""
MAX_ORDER_CHANGE = 5e-4
"""Mean change of a probability from one order to the next that is small enough."""
REACH = 8.0
"""How many SDs from its mode an offset is followed."""


def positive(target: Target, sample: Sample, *, seed: int) -> tuple[Array, Array]:
    """Probability (segment, arm) and its Monte-Carlo standard error."""
    size, arms = target.segments.size, len(target.segments.arms) - 1
    found, error = np.empty((size, arms)), np.empty((size, arms))
    closed = closed_form(target)
    over = Averages.of(sample, int(np.clip(WORK / size, LEAST_POINTS, POINTS)), np.random.default_rng(seed))
    groups = target.groups
    if not closed:
        some = sample.points[over.some[:: max(1, len(over.some) // ORDER_POINTS)]]
        groups = tuple(finer for group in target.groups for finer in settle_orders(target, group, some))
    for group in groups:
        for start in range(0, len(group.members), BLOCK):
            block = Group(group.members[start : start + BLOCK], group.order)
            mean, spread = _of_block(target, block, sample.points, over, closed=closed)
            found[block.members], error[block.members] = mean.reshape(-1, arms), spread.reshape(-1, arms)
    return np.clip(found, 0.0, 1.0), error


def settle_orders(target: Target, group: Group, points: Array) -> list[Group]:
    """Split a group by the quadrature order at which P(effect > 0) has settled.

    A rule that is exact enough for the density is not for a sign: where a treated cell is more precise than its
    control, P(effect > 0 | baseline) is a step, which three nodes over the baseline cannot follow.
    """
    members, order, settled = group.members, group.order, list[Group]()
    known = target.over(points, members, _integrated(order), width=_nodes(order))
    while len(members) and order < MAX_ORDER:
        finer = min(2 * order + 1, MAX_ORDER)
        better = target.over(points, members, _integrated(finer), width=_nodes(finer))
        moved = np.abs(better - known).mean(0).max(-1) > MAX_ORDER_CHANGE
        if not moved.all():
            settled.append(Group(members[~moved], order))
        members, known, order = members[moved], better[:, moved], finer
    return settled + ([Group(members, order)] if len(members) else [])


def reconcile(probability: Array, error: Array, effect: Array, effective_points: float) -> tuple[Array, Array, float]:
    """Compare integrated probabilities with counted draws, and let them give way where both cannot be right.

    Parameters
    ----------
    probability, error : ndarray
        (segment, arm): integrated, with standard errors.
    effect : ndarray
        (draw, segment, arm).
    effective_points : float
        Points of the hyperparameters that the draws are worth.

    Returns
    -------
    probability, error : ndarray
        Counted where the two differ by more than their combined error.
    disagreement : float
        By how much they differ beyond it, at most.
    """
    count = min(float(len(effect)), effective_points)
    counted = (effect > 0).mean(0)
    # A share of 0 or 1 has an error too: as if half a draw more had fallen on either side.
    smoothed = (counted * count + 0.5) / (count + 1)
    counting_error = np.sqrt(smoothed * (1 - smoothed) / count)
    beyond = np.abs(counted - probability) - MAX_ERRORS * np.hypot(counting_error, error) - DRAW_BIAS
    gives_way = beyond > 0
    return (
        np.where(gives_way, counted, probability),
        np.where(gives_way, counting_error, error),
        float(max(beyond.max(), 0.0)),
    )


def _of_block(target: Target, block: Group, points: Array, over: "Averages", *, closed: bool) -> tuple[Array, Array]:
    """Segments of one quadrature order, few enough for their numbers to fit into memory."""
    shapes = target.over(points[over.more], block.members, _approximated)
    shapes = np.moveaxis(shapes, -1, 0).reshape(3, len(over.more), -1)
    if closed:
        return over.mean(shapes[0], over.more)
    known = target.over(points[over.some], block.members, _integrated(block.order), width=_nodes(block.order))
    known = known.reshape(len(over.some), -1)
    seen = shapes[:, :: over.stride]
    free = over.residuals(seen)
    square = np.einsum("fpq,gpq->qfg", free, free) + 1e-6 * len(over.some) * np.eye(3)
    slopes = np.linalg.solve(square, np.einsum("fpq,pq->qf", free, known)[..., None])[..., 0].T
    predicted = np.einsum("fpq,fq->pq", shapes, slopes)
    rest, rest_error = over.mean(known - predicted[:: over.stride], over.some)
    mean, mean_error = over.mean(predicted, over.more)
    return rest + mean, np.hypot(rest_error, mean_error)


@dataclass(frozen=True, slots=True)
class Averages:
    """Means over all points of quantities that are known at some of them.

    Attributes
    ----------
    more, some : ndarray
        Indices of points in proportion to their weights; every `stride`-th of `more` is in `some`.
    stride : int
    polynomials : ndarray
        (point, feature).
    middle, scatter : ndarray
        Weighted mean of the polynomials, and the variance of its Monte-Carlo error: (feature,), (feature, feature).
    """

    more: Index
    some: Index
    stride: int
    polynomials: Array
    middle: Array
    scatter: Array

    @classmethod
    def of(cls, sample: Sample, count: int, rng: np.random.Generator) -> "Averages":
        """About `count` points, and `MORE` times as many."""
        places, weights = sample.values.places, sample.weights
        polynomials = features(Standard.of(places, weights).at(places))
        count = max(count, PER_FEATURE * polynomials.shape[1])
        more = sample.resampled(min(MORE * count, len(places)), rng)
        stride = max(1, len(more) // count)
        middle = weights @ polynomials
        away = (polynomials - middle) * weights[:, None]
        return cls(more, more[::stride], stride, polynomials, middle, away.T @ away)

    def mean(self, known: Array, chosen: Index) -> tuple[Array, Array]:
        """Mean of quantities (chosen point, quantity), and its standard error."""
        seen = self.polynomials[chosen]
        fit, *_ = np.linalg.lstsq(seen, known, rcond=1e-8)
        missed = known - seen @ fit
        of_rest = (missed**2).sum(0) / max(len(known) - seen.shape[1], 1) / len(known)
        of_fit = np.einsum("fq,fg,gq->q", fit, self.scatter, fit, optimize=True)
        return self.middle @ fit + missed.mean(0), np.sqrt(np.maximum(of_fit, 0.0) + of_rest)

    def residuals(self, known: Array) -> Array:
        """What polynomials leave of quantities (kind, some point, quantity)."""
        basis, _ = np.linalg.qr(self.polynomials[self.some])
        return np.asarray(known - basis @ (basis.T @ known))


def _approximated(segments: Segments, maps: Maps) -> Array:
    """Normal approximation of P(effect > 0 | θ, data), and how skewness bends it: (point, segment, arm, 3)."""
    found = []
    for share, component in weigh_components(maps, lambda each: log_quadratic(segments, each)):
        z = _standardised(segments, component, locate(segments, component, refined=needs_refining(segments, component)))
        # Φ(z), φ(z), z² φ(z)  (Edgeworth)
        density = np.exp(-0.5 * z**2)
        found.append(share[..., None, None] * np.stack([special.ndtr(z), density, z**2 * density], axis=-1))
    return np.asarray(np.sum(found, axis=0))


def _standardised(segments: Segments, maps: Maps, mode: Mode) -> Array:
    """By how many SDs the mode of an effect lies above zero: (point, segment, arm)."""
    found = []
    for arm, effect in enumerate(maps.effects):
        coupling = maps.couplings[arm]
        lean = mode.lean[arm]
        if coupling is not None:  # in units of the arm's own offset
            lean = lean + coupling / np.maximum(effect.slope(mode.arms[arm]), 1e-300)
        spread = np.hypot(mode.arm_sd[arm], lean * mode.base_sd)
        z = (mode.arms[arm] - maps.zero(arm, mode.base)) / spread
        value = np.broadcast_to(effect.value(np.zeros_like(z)), z.shape)
        fixed = np.broadcast_to(effect.slope(np.zeros_like(z)), z.shape) == 0
        found.append(np.clip(np.where(fixed, np.where(value > 0, 40.0, -40.0), z), -40.0, 40.0))
    return np.stack(found, axis=2)


def _integrated(order: int) -> Work:
    """P(effect > 0 | θ, data of the segment) by this quadrature order: (point, member, arm)."""

    def work(segments: Segments, maps: Maps) -> Array:
        weighed = weigh_components(maps, lambda each: integrate_normal(segments, each, order))
        found = [
            share[..., None] * np.stack(_by_arm(segments, each, locate(segments, each), order), axis=2)
            for share, each in weighed
        ]
        return np.asarray(np.sum(found, axis=0))

    return work


def _by_arm(segments: Segments, maps: Maps, mode: Mode, order: int) -> list[Array]:
    """For every arm: quadrature over the baseline, and over both sides of zero within it."""
    nodes, weights = rule(order)
    totals: list[Array] = []
    shares: list[list[Array]] = [[] for _ in maps.effects]
    for node, weight in zip(nodes, weights, strict=True):
        base = mode.base + mode.base_sd * node
        baseline = maps.baseline.value(base)
        total = segments.curve.compute_log_density(segments.arms[0], baseline, maps.sigma[0]) - 0.5 * base**2 + weight
        for arm in range(len(maps.effects)):
            centre = mode.arms[arm] + mode.lean[arm] * mode.base_sd * node
            above, below = _sides(segments, maps, (base, baseline, centre, mode.arm_sd[arm]), arm, order)
            both = np.logaddexp(above, below)
            total = total + both
            shares[arm].append(np.exp(above - both))
        totals.append(total)
    whole = log_sum(totals)
    density = [np.exp(total - whole) for total in totals]
    found = [np.sum([d * share for d, share in zip(density, each, strict=True)], axis=0) for each in shares]
    return [_unless_fixed(effect, each) for effect, each in zip(maps.effects, found, strict=True)]


def _unless_fixed(effect: Map, found: Array) -> Array:
    """Under complete pooling the sign is that of the common effect."""
    slope = np.broadcast_to(effect.slope(np.zeros_like(found)), found.shape)
    value = np.broadcast_to(effect.value(np.zeros_like(found)), found.shape)
    return np.where(slope > 0, found, value > 0)


def _sides(
    segments: Segments, maps: Maps, at: tuple[Array, Array, Array, Array], arm: int, order: int
) -> tuple[Array, Array]:
    """log ∫ of an arm's posterior over its offset, above and below the offset of a zero effect."""
    base, baseline, centre, spread = at
    below = maps.below(arm, base, baseline)
    effect, cell, sigma = maps.effects[arm], segments.arms[arm + 1], maps.sigma[arm + 1]
    zero = np.clip(maps.zero(arm, base), -1e6, 1e6)
    # Sparse cells, the ones with a high order, have long tails on one side: as wide as the prior.
    reach = REACH * (spread if order <= ORDINARY else np.minimum(1.0, 2.0 * spread))
    nodes, log_weights = _between(_nodes(order))
    found = []
    for end in (np.maximum(centre + reach, zero + 0.5 * spread), np.minimum(centre - reach, zero - 0.5 * spread)):
        near = np.clip(zero, centre - reach, centre + reach)
        half = 0.5 * (end - near)
        offset = half * nodes
        offset += near
        terms = segments.curve.compute_log_density(cell, below + effect.value(offset), sigma)
        np.multiply(offset, offset, out=offset)
        offset *= 0.5
        terms -= offset
        terms += log_weights
        # Under heavy tails the middle of the range may lie far below the peak, which `log_sum` starts from.
        total = log_sum(terms) if isinstance(effect, Line) else _log_sum_of_any(terms)
        found.append(total + np.log(np.abs(half)))
    return found[0], found[1]


def _log_sum_of_any(terms: Array) -> Array:
    """log Σ exp(term), relative to the largest."""
    top = terms.max(0)
    return np.asarray(top + np.log(np.exp(terms - top).sum(0)))


def _nodes(order: int) -> int:
    """Nodes on either side of zero for a segment of this quadrature order."""
    return 12 if order <= ORDINARY else 24


@lru_cache(maxsize=4)
def _between(count: int) -> tuple[Array, Array]:
    """Gauss–Legendre nodes, measured from the lower end, and log weights: (node, 1, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (1.0 + nodes)[:, None, None], np.log(weights)[:, None, None]
