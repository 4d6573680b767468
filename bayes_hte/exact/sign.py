"""P(effect > 0 | data) without the noise of counting draws (Rao–Blackwell).

Given the hyperparameters the probability is an integral of one segment's posterior, closed for Gaussian
families; it is averaged over the weighted points. For other families it is computed at a few hundred points, and
a regression on the normal approximation, which is known at all points, carries it there: the average of
what it predicts plus the average of what it misses is unbiased however bad the regression is (a control variate).
"""

import numpy as np
from scipy import special

from bayes_hte.exact.accuracy import closed_form
from bayes_hte.exact.coefficients import Map
from bayes_hte.exact.importance import Sample
from bayes_hte.exact.integrate import Index, Maps, Mode, Segments, log_sum, rule
from bayes_hte.exact.space import Array
from bayes_hte.exact.target import Group, Target, Work

POINTS, LEAST_POINTS, WORK = 160, 48, 2.5e6
"""Points at which the integral is computed: 160, but fewer for more than 10,000 segments."""
BLOCK = 4096
REACH = 8.0
"""How many SDs from its mode an offset is followed."""


def positive(target: Target, sample: Sample, *, seed: int) -> tuple[Array, Array]:
    """Probability (segment, arm) and its Monte-Carlo standard error."""
    size, arms = target.segments.size, len(target.segments.arms) - 1
    found, error = np.empty((size, arms)), np.empty((size, arms))
    count = min(int(np.clip(WORK / size, LEAST_POINTS, POINTS)), len(sample.points))
    chosen = sample.resampled(count, np.random.default_rng(seed))
    for group in target.groups:
        for start in range(0, len(group.members), BLOCK):
            block = Group(group.members[start : start + BLOCK], group.order)
            found[block.members], error[block.members] = _of_block(target, block, sample, chosen)
    return found, error


def _of_block(target: Target, block: Group, sample: Sample, chosen: Index) -> tuple[Array, Array]:
    """Segments of one quadrature order, few enough for their numbers at all points to fit into memory."""
    z = target.over(sample.points, block.members, _standardised, modes=sample.modes)
    if closed_form(target):
        return _weighted(special.ndtr(z), sample.weights)
    known = target.over(sample.points[chosen], block.members, _integrated(block.order))
    return _carried(known, z, chosen, sample)


def _weighted(values: Array, weights: Array) -> tuple[Array, Array]:
    mean = np.tensordot(weights, values, axes=1)
    return mean, np.sqrt(np.tensordot(weights**2, (values - mean) ** 2, axes=1))


def _carried(known: Array, z: Array, chosen: Index, sample: Sample) -> tuple[Array, Array]:
    """From the points where the probability is known to all points, by least squares, segment by segment."""
    features = _features(z)
    seen = features[chosen]
    square = np.einsum("psaf,psag->safg", seen, seen)
    square += 1e-6 * len(chosen) * np.eye(square.shape[-1])
    solved = np.linalg.solve(square, np.einsum("psaf,psa->saf", seen, known)[..., None])[..., 0]
    mean, error = _weighted(np.einsum("psaf,saf->psa", features, solved), sample.weights)
    missed = known - np.einsum("psaf,saf->psa", seen, solved)
    spread = missed.std(0, ddof=1) / np.sqrt(len(chosen))
    return np.clip(mean + missed.mean(0), 0.0, 1.0), np.hypot(error, spread)


def _features(z: Array) -> Array:
    """What a probability is regressed on: the normal approximation, and how skewness bends it (Edgeworth)."""
    density = np.exp(-0.5 * z**2)
    return np.stack([np.ones_like(z), special.ndtr(z), density, z**2 * density], axis=-1)


def _standardised(segments: Segments, maps: Maps, mode: Mode) -> Array:
    """By how many SDs the mode of an effect lies above zero: (point, segment, arm)."""
    found = []
    for arm, effect in enumerate(maps.effects):
        spread = np.hypot(mode.arm_sd[arm], mode.lean[arm] * mode.base_sd)
        z = (mode.arms[arm] - effect.offset(np.zeros(1))) / spread
        value = np.broadcast_to(effect.value(np.zeros_like(z)), z.shape)
        fixed = np.broadcast_to(effect.slope(np.zeros_like(z)), z.shape) == 0
        found.append(np.clip(np.where(fixed, np.where(value > 0, 40.0, -40.0), z), -40.0, 40.0))
    return np.stack(found, axis=2)


def _integrated(order: int) -> Work:
    """P(effect > 0 | θ, data of the segment) by this quadrature order: (point, member, arm)."""
    return lambda segments, maps, mode: np.stack(_by_arm(segments, maps, mode, order), axis=2)


def _by_arm(segments: Segments, maps: Maps, mode: Mode, order: int) -> list[Array]:
    """For every arm: quadrature over the baseline, and over both sides of zero within it."""
    nodes, weights = rule(order)
    totals: list[Array] = []
    shares: list[list[Array]] = [[] for _ in maps.effects]
    for node, weight in zip(nodes, weights, strict=True):
        base = mode.base + mode.base_sd * node
        baseline = maps.baseline.value(base)
        total = segments.curve.density(segments.arms[0], baseline, maps.sigma[0]) - 0.5 * base**2 + weight
        for arm in range(len(maps.effects)):
            centre = mode.arms[arm] + mode.lean[arm] * mode.base_sd * node
            above, below = _sides(segments, maps, (baseline, centre, mode.arm_sd[arm]), arm, order)
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


def _sides(segments: Segments, maps: Maps, at: tuple[Array, Array, Array], arm: int, order: int) -> tuple[Array, Array]:
    """log ∫ of an arm's posterior over its offset, above and below the offset of a zero effect."""
    baseline, centre, spread = at
    effect, cell, sigma = maps.effects[arm], segments.arms[arm + 1], maps.sigma[arm + 1]
    zero = np.clip(effect.offset(np.zeros(1)), -1e6, 1e6)
    # Sparse cells, the ones with a high order, have long tails on one side: as wide as the prior.
    reach = REACH * (spread if order <= 7 else np.minimum(1.0, 2.0 * spread))
    nodes, weights = np.polynomial.legendre.leggauss(12 if order <= 7 else 24)
    found = []
    for end in (np.maximum(centre + reach, zero + 0.5 * spread), np.minimum(centre - reach, zero - 0.5 * spread)):
        near = np.clip(zero, centre - reach, centre + reach)
        half = 0.5 * (end - near)
        terms = []
        for node, weight in zip(nodes, weights, strict=True):
            offset = near + half * (1.0 + node)
            density = segments.curve.density(cell, baseline + effect.value(offset), sigma)
            terms.append(density - 0.5 * offset**2 + np.log(weight))
        found.append(log_sum(terms) + np.log(np.abs(half)))
    return found[0], found[1]
