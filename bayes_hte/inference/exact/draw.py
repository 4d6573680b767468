"""Segments' own coefficients given draws of the hyperparameters.

Gaussian families: independent draws. Others: independence Metropolis from a mixture around the mode. If a proposal is
rejected with probability r, the total variation between it and the posterior is at most r, and about r ** (k + 1)
is left of it after k steps; r is measured in a pilot, and sets k.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.exact.accuracy import closed_form
from bayes_hte.inference.exact.coefficients import Line
from bayes_hte.inference.exact.integrate import (
    Index,
    Maps,
    Mode,
    Segments,
    locate,
    needs_refining,
    straight,
    weigh_components,
)
from bayes_hte.inference.exact.noise import normals
from bayes_hte.inference.exact.space import Array
from bayes_hte.inference.exact.target import LARGE_CHUNK, Target, in_threads, integrate_normal, shared_out

LEFT = 1e-3
"""Total variation between a draw's distribution and the posterior, at most, as measured in the pilot."""
SMALLEST = np.float32(1e-9)
"""Of a uniform random number of single precision, which can be 0."""
PILOT = 96
"""Points at which acceptance is measured, over two steps."""
FEW = 256
"""Segments that are not worth to be treated apart from those that need more steps."""
CLASSES = np.array([1, 2, 3, 4, 6, 10, 20, 50, 200])
"""Numbers of Metropolis steps in use: segments are treated together, so there are not too many of them."""
STRETCHED = (0.05, 1.5)
"""How many proposals are wider, and by what factor."""
FROM_PRIOR = 0.3
"""How many proposals for sparse segments come from the prior."""
WEAK = 0.35
"""Posterior SD on the link scale from which a likelihood leans to one side: a cell with less than eight events."""
PATIENCE = 2.0
"""Times as many steps as the mean acceptance asks for, where it differs much between points: sparse segments."""
WEIGHING_ORDERS = (5, 11)
"""Quadrature orders by which normal components are weighed before one is drawn: of ordinary and of sparse segments."""


@dataclass(frozen=True, slots=True)
class Offsets:
    """One draw of a segment's offsets, and its log importance ratio."""

    base: Array
    arms: tuple[Array, ...]
    log_ratio: Array


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments that are drawn in the same way.

    Attributes
    ----------
    members : ndarray
        Indices of segments.
    sparse : bool
        Whether their posteriors may lean far to one side: then some proposals come from the prior.
    steps : int
        Metropolis steps; 0 where the posterior is normal.
    single : bool
        Whether single precision is enough to compute ratios of densities, which takes half the time.
    """

    members: Index
    sparse: bool
    steps: int
    single: bool = False


@dataclass(frozen=True, slots=True)
class SegmentDraws:
    """Coefficients of every segment at every point, and what tells whether they are to be trusted.

    Attributes
    ----------
    baseline, effect : ndarray
        (point, segment) and (point, segment, arm).
    acceptance : float
        Lowest mean acceptance rate of a segment; 1 where draws are independent.
    unmoved_share : float
        Largest share of a segment's points whose first proposal was never left. A mean acceptance rate hides points
        at which all proposals are wrong; what is left of a first proposal is at most this share.
    """

    baseline: Array
    effect: Array
    acceptance: float
    unmoved_share: float


def coefficients(target: Target, points: Array, *, seed: int) -> SegmentDraws:
    """Draw the coefficients of all segments at hyperparameters (point, parameter)."""
    segments, arms = target.segments.size, len(target.segments.arms) - 1
    baseline, effect = np.empty((len(points), segments)), np.empty((len(points), segments, arms))
    drawn = baseline, effect, np.zeros((len(points), segments), dtype=bool)
    seeds = np.random.SeedSequence([seed, 3])
    batches, lowest = _batches(target, points, seeds)
    for batch in batches:
        for start in range(0, len(batch.members), LARGE_CHUNK):
            block = replace(batch, members=batch.members[start : start + LARGE_CHUNK])
            _fill(target, points, block, seeds, drawn)
    return SegmentDraws(baseline, effect, lowest, float(drawn[2].mean(0).max()))


def _batches(target: Target, points: Array, seeds: np.random.SeedSequence) -> tuple[list[Batch], float]:
    """Which segments need how many steps, and the lowest acceptance rate."""
    if closed_form(target):
        return [Batch(np.arange(target.segments.size), sparse=False, steps=0)], 1.0
    some = points[np.linspace(0, len(points) - 1, min(PILOT, len(points))).astype(int)]
    batches, lowest = list[Batch](), 1.0
    everyone = np.arange(target.segments.size)
    sparse = np.median(target.over(some, everyone, _spread), axis=0) > WEAK
    for members, weak in ((everyone[~sparse], False), (everyone[sparse], True)):
        if not len(members):
            continue
        trial = Batch(members, sparse=weak, steps=2)
        rate, single = _piloted(target, some, trial, seeds.spawn(1)[0])
        needed = np.log(LEFT) / np.log(np.clip(1 - rate, 1e-12, 0.99)) - 1
        needed *= PATIENCE if weak else 1.0
        if len(members) <= FEW:
            needed = np.broadcast_to(needed.max(), needed.shape)
        steps = CLASSES[np.minimum(np.searchsorted(CLASSES, needed), len(CLASSES) - 1)]
        batches += [Batch(members[steps == k], weak, int(k), single) for k in sorted(set(steps))]
        lowest = min(lowest, float(rate.min()))
    return batches, lowest


def _spread(segments: Segments, maps: Maps) -> Array:
    """The larger SD of an arm's linear predictor's two parts, on the link scale: (point, segment)."""
    _, maps = maps.components()[len(maps.components()) // 2]  # about the scale itself
    mode = locate(segments, maps, refined=needs_refining(segments, maps))
    found = np.abs(maps.baseline.slope(mode.base)) * mode.base_sd
    for effect, offset, spread in zip(maps.effects, mode.arms, mode.arm_sd, strict=True):
        found = np.maximum(found, np.abs(effect.slope(offset)) * spread)
    return np.asarray(found)


def _fill(
    target: Target,
    points: Array,
    batch: Batch,
    seeds: np.random.SeedSequence,
    drawn: tuple[Array, Array, NDArray[np.bool_]],
) -> None:
    """Draw one batch for all points, chunk by chunk; each chunk has a generator of its own."""
    baseline, effect, unmoved = drawn
    block = batch.members
    workers, size = shared_out(len(points) * len(block))
    rows = max(1, size // len(block))
    whole = len(block) == target.segments.size
    segments = target.segments if whole else target.segments.pick(block)
    columns = slice(None) if whole else block
    compute = _single_cells(segments) if batch.single else segments
    starts = range(0, len(points), rows)
    generators = dict(zip(starts, seeds.spawn(len(starts)), strict=True))

    def job(first: int) -> None:
        here = slice(first, first + rows)
        rng = np.random.Generator(np.random.SFC64(generators[first]))
        maps = _pick_components(segments, target.maps(points[here], None if whole else block), batch, rng)
        mode = locate(segments, maps, refined=needs_refining(segments, maps))
        if batch.single:
            maps, mode = _single_maps(maps), _single_mode(mode)
        found, unmoved[here, columns] = _drawn(compute, maps, mode, batch, rng)
        baseline[here, columns] = maps.baseline.value(found.base)
        for arm, offset in enumerate(found.arms):
            effect[here, columns, arm] = maps.effect(arm, offset, found.base)

    for _ in in_threads(job, starts, workers):
        pass


def _pick_components(segments: Segments, maps: Maps, batch: Batch, rng: np.random.Generator) -> Maps:
    """Draw a normal component of the effect of every (point, segment), in proportion to what the data make of it."""
    if not maps.is_heavy:
        return maps
    order = 1 if batch.steps == 0 else WEIGHING_ORDERS[batch.sparse]
    weighed = weigh_components(maps, lambda each: integrate_normal(segments, each, order))
    ranks = np.cumsum([share for share, _ in weighed], axis=0)
    picked = np.minimum((rng.random(ranks.shape[1:]) > ranks).sum(0), len(weighed) - 1)
    for arm in range(len(maps.effects)):
        lines = [each.effects[arm] for _, each in weighed]
        scales = np.stack([np.broadcast_to(line.slope(np.zeros(1)), picked.shape) for line in lines])
        scale = np.take_along_axis(scales, picked[None], axis=0)[0]
        maps = maps.replace_effect(arm, Line(lines[0].value(np.zeros((1, 1))), scale))
    return maps


def _drawn(
    segments: Segments, maps: Maps, mode: Mode, batch: Batch, rng: np.random.Generator
) -> tuple[Offsets, NDArray[np.bool_]]:
    """The state after some steps of independence Metropolis, and whether it was never left (point, segment).

    After no step, it is a draw from the normal at the mode.
    """
    if batch.steps == 0:
        return _normal(mode, rng), np.zeros(mode.base.shape, dtype=bool)
    propose = _proposed_widely if batch.sparse else _proposed
    state = propose(segments, maps, mode, rng)
    unmoved = np.ones(mode.base.shape, dtype=bool)
    for _ in range(batch.steps):
        state, taken = _moved(state, propose(segments, maps, mode, rng), rng)
        unmoved &= ~taken
    return state, unmoved


def _normal(mode: Mode, rng: np.random.Generator) -> Offsets:
    shape = mode.base.shape
    shift = mode.base_sd * rng.standard_normal(shape)
    arms = tuple(
        offset + lean * shift + spread * rng.standard_normal(shape)
        for offset, spread, lean in zip(mode.arms, mode.arm_sd, mode.lean, strict=True)
    )
    return Offsets(mode.base + shift, arms, np.zeros(1))


def _proposed(segments: Segments, maps: Maps, mode: Mode, rng: np.random.Generator) -> Offsets:
    """A draw around the mode, with the log ratio of the posterior to the proposal's density.

    The proposal is a normal, or in a few cases a wider one. Its random numbers are of single precision, which is
    fast; the density is that of the number that was drawn.
    """
    (share, stretched), shape = STRETCHED, mode.base.shape
    first, *others = normals(rng, 1 + len(maps.effects), shape)
    stretch = (rng.random(shape, dtype=np.float32) < share) * np.float32(stretched - 1.0)
    stretch += np.float32(1.0)
    z = np.multiply(first, stretch, out=first)
    distance = z * z
    shift = mode.base_sd * z
    base, arms = mode.base + shift, []
    for index, other in enumerate(others):
        z = np.multiply(other, stretch, out=other)
        distance += z * z
        offset = mode.arm_sd[index] * z
        offset += mode.lean[index] * shift
        offset += mode.arms[index]
        arms.append(offset)
    log_ratio = _log_posterior(segments, maps, base, arms)
    log_ratio += 0.5 * distance
    distance *= np.float32(0.5 * (1 - stretched**-2.0))
    np.exp(np.minimum(distance, np.float32(80.0), out=distance), out=distance)
    distance *= np.float32(share / stretched ** (1 + len(arms)))
    distance += np.float32(1 - share)
    log_ratio -= np.log(distance, out=distance)
    return Offsets(base, tuple(arms), log_ratio)


def _proposed_widely(segments: Segments, maps: Maps, mode: Mode, rng: np.random.Generator) -> Offsets:
    """The same for sparse segments: from a broad normal around the mode, or from the prior.

    However far a likelihood leans, the posterior is nowhere larger than a multiple of the prior.
    """
    shape, around = mode.base.shape, mode.broader()
    prior = rng.random(shape, dtype=np.float32) < FROM_PRIOR
    first, *others = (each.astype(np.float64) for each in normals(rng, 1 + len(maps.effects), shape))
    base = np.where(prior, first, around.base + around.base_sd * first)
    shift = base - around.base
    squares, distance, scale = base * base, (shift / around.base_sd) ** 2, np.log(around.base_sd)
    arms = []
    for z, centre, spread, lean in zip(others, around.arms, around.arm_sd, around.lean, strict=True):
        middle = centre + lean * shift
        offset = np.where(prior, z, middle + spread * z)
        squares += offset * offset
        distance += ((offset - middle) / spread) ** 2
        scale = scale + np.log(spread)
        arms.append(offset)
    log_prior, log_normal = np.log(FROM_PRIOR) - 0.5 * squares, np.log1p(-FROM_PRIOR) - 0.5 * distance - scale
    log_ratio = _log_posterior(segments, maps, base, arms)
    log_ratio -= np.logaddexp(log_prior, log_normal)
    return Offsets(base, tuple(arms), log_ratio)


def _log_posterior(segments: Segments, maps: Maps, base: Array, arms: list[Array]) -> Array:
    """Log density of offsets given the hyperparameters and the data, up to a constant."""
    curve, baseline = segments.curve, maps.baseline.value(base)
    total = curve.compute_log_density(segments.arms[0], baseline, maps.sigma[0])
    squares = base * base
    for index, (effect, offset) in enumerate(zip(maps.effects, arms, strict=True), start=1):
        squares += offset * offset
        eta = effect.value(offset)
        eta = eta + maps.below(index - 1, base, baseline)
        total += curve.compute_log_density(segments.arms[index], eta, maps.sigma[index])
    squares *= 0.5
    total -= squares
    return total


def _moved(state: Offsets, proposed: Offsets, rng: np.random.Generator) -> tuple[Offsets, NDArray[np.bool_]]:
    """Metropolis: take the proposal with probability min(1, ratio of ratios)."""
    rank = rng.random(state.base.shape, dtype=np.float32)
    taken = np.log(np.maximum(rank, SMALLEST)) < proposed.log_ratio - state.log_ratio
    arms = tuple(np.where(taken, new, old) for new, old in zip(proposed.arms, state.arms, strict=True))
    base = np.where(taken, proposed.base, state.base)
    return Offsets(base, arms, np.where(taken, proposed.log_ratio, state.log_ratio)), taken


def _piloted(target: Target, points: Array, trial: Batch, seed: np.random.SeedSequence) -> tuple[Array, bool]:
    """Mean acceptance rate of each member, over a few points and steps, and whether single precision is enough."""
    segments = target.segments.pick(trial.members)
    rng = np.random.Generator(np.random.SFC64(seed))
    maps = _pick_components(segments, target.maps(points, trial.members), trial, rng)
    mode = locate(segments, maps, refined=needs_refining(segments, maps))
    propose = _proposed_widely if trial.sparse else _proposed
    start = rng.bit_generator.state
    state = first = propose(segments, maps, mode, rng)
    rate = np.zeros(segments.size)
    for _ in range(trial.steps):
        state, taken = _moved(state, propose(segments, maps, mode, rng), rng)
        rate += taken.mean(0) / trial.steps
    if trial.sparse or not straight(maps):
        return rate, False
    again = np.random.Generator(np.random.SFC64())
    again.bit_generator.state = start  # the same numbers
    rounded = _proposed(_single_cells(segments), _single_maps(maps), _single_mode(mode), again)
    with np.errstate(invalid="ignore"):
        error = np.abs(rounded.log_ratio - first.log_ratio)
    return rate, bool(np.quantile(error, 0.99) < LEFT)


def _single(values: Array) -> Array:
    """In single precision; typed as the rest, which takes both."""
    return values.astype(np.float32)


def _single_cells(segments: Segments) -> Segments:
    arms = tuple({name: _single(values) for name, values in arm.items()} for arm in segments.arms)
    return replace(segments, arms=arms)


def _single_maps(maps: Maps) -> Maps:
    baseline, *effects = (
        Line(_single(each.location), _single(each.scale))
        for each in (maps.baseline, *maps.effects)
        if isinstance(each, Line)
    )
    sigma = tuple(None if each is None else _single(each) for each in maps.sigma)
    couplings = tuple(None if each is None else _single(each) for each in maps.couplings)
    return Maps(maps.points, baseline, tuple(effects), couplings, sigma)


def _single_mode(mode: Mode) -> Mode:
    arms, spreads, leans = (tuple(map(_single, part)) for part in (mode.arms, mode.arm_sd, mode.lean))
    return Mode(_single(mode.base), _single(mode.base_sd), arms, spreads, leans)
