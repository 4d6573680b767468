"""Segments' own coefficients given draws of the hyperparameters.

Gaussian families: independent draws. Others: independence Metropolis from a mixture around the mode; the number of
steps is set by the acceptance rate measured in a pilot, so that a draw that never moved is one in a thousand.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayes_hte.exact.accuracy import closed_form
from bayes_hte.exact.integrate import Index, Maps, Mode, Segments, locate
from bayes_hte.exact.space import Array
from bayes_hte.exact.target import CHUNK, Target, in_threads

STUCK = 1e-3
SMALLEST = np.float32(1e-9)
"""Of a uniform random number of single precision, which can be 0."""
RARE = 0.1
"""Share of the wide proposals."""
PILOT = 24
CLASSES = np.array([2, 3, 4, 6, 10, 20, 50, 200])
"""Numbers of Metropolis steps in use: segments are treated together, so there are not too many of them."""
ORDINARY = 7
"""Highest quadrature order of a segment whose posterior is close to normal."""


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
        Whether their posteriors lean far to one side: then the proposal is wider, with heavier tails.
    steps : int
        Metropolis steps; 0 where the posterior is normal.
    """

    members: Index
    sparse: bool
    steps: int

    @property
    def wide(self) -> float:
        """How much wider one proposal out of ten is: far enough for the long side of a sparse cell's posterior."""
        return 3.0 if self.sparse else 1.7

    def around(self, mode: Mode) -> Mode:
        """Where proposals come from: for sparse cells halfway between the curvature's scale and the prior's."""
        if not self.sparse:
            return mode
        return replace(mode, base_sd=mode.base_sd**0.5, arm_sd=tuple(spread**0.5 for spread in mode.arm_sd))


def coefficients(target: Target, points: Array, modes: Mode | None, *, seed: int) -> tuple[Array, Array, float]:
    """Baselines (point, segment), effects (point, segment, arm), and the lowest acceptance rate of a segment.

    `modes` are those of all segments at the points, where they are known.
    """
    segments, arms = target.segments.size, len(target.segments.arms) - 1
    drawn = np.empty((len(points), segments)), np.empty((len(points), segments, arms))
    seeds = np.random.SeedSequence([seed, 3])
    batches, lowest = _batches(target, points, seeds)
    for batch in batches:
        for start in range(0, len(batch.members), CHUNK):
            block = replace(batch, members=batch.members[start : start + CHUNK])
            _fill(target, (points, modes), block, seeds, drawn)
    return (*drawn, lowest)


def _batches(target: Target, points: Array, seeds: np.random.SeedSequence) -> tuple[list[Batch], float]:
    """Which segments need how many steps, and the lowest acceptance rate."""
    if closed_form(target):
        return [Batch(np.arange(target.segments.size), sparse=False, steps=0)], 1.0
    some = points[np.linspace(0, len(points) - 1, min(PILOT, len(points))).astype(int)]
    batches, lowest = [], 1.0
    for group in target.groups:
        trial = Batch(group.members, sparse=group.order > ORDINARY, steps=4)
        rate = _acceptance(target, some, trial, seeds.spawn(1)[0])
        needed = np.log(STUCK) / np.log(np.clip(1 - rate, 1e-12, 0.99))
        steps = CLASSES[np.minimum(np.searchsorted(CLASSES, needed), len(CLASSES) - 1)]
        batches += [replace(trial, members=group.members[steps == count], steps=int(count)) for count in set(steps)]
        lowest = min(lowest, float(rate.min()))
    kinds = sorted({(batch.sparse, batch.steps) for batch in batches})
    merged = [
        Batch(np.sort(np.concatenate([b.members for b in batches if (b.sparse, b.steps) == kind])), *kind)
        for kind in kinds
    ]
    return merged, lowest


def _fill(
    target: Target,
    at: tuple[Array, Mode | None],
    batch: Batch,
    seeds: np.random.SeedSequence,
    drawn: tuple[Array, Array],
) -> None:
    """Draw one batch for all points, chunk by chunk; each chunk has a generator of its own."""
    (points, modes), (baseline, effect) = at, drawn
    block, rows = batch.members, max(1, CHUNK // len(batch.members))
    segments = target.segments if len(block) == target.segments.size else target.segments.pick(block)
    starts = range(0, len(points), rows)
    generators = dict(zip(starts, seeds.spawn(len(starts)), strict=True))

    def job(first: int) -> None:
        here = slice(first, first + rows)
        maps = target.maps(points[here])
        mode = (
            locate(segments, maps, steps=target.steps)
            if modes is None
            else modes.each(lambda values: values[here][:, block])
        )
        found = _drawn(segments, maps, mode, batch, np.random.Generator(np.random.SFC64(generators[first])))
        baseline[here, block] = maps.baseline.value(found.base)
        for arm, (each, offset) in enumerate(zip(maps.effects, found.arms, strict=True)):
            effect[here, block, arm] = each.value(offset)

    for _ in in_threads(job, starts):
        pass


def _drawn(segments: Segments, maps: Maps, mode: Mode, batch: Batch, rng: np.random.Generator) -> Offsets:
    """The state after some steps of independence Metropolis; after none, a draw from the normal at the mode."""
    if batch.steps == 0:
        return _normal(mode, rng)
    around = batch.around(mode)
    state = _proposed(segments, maps, around, batch.wide, rng)
    for _ in range(batch.steps):
        state, _ = _moved(state, _proposed(segments, maps, around, batch.wide, rng), rng)
    return state


def _normal(mode: Mode, rng: np.random.Generator) -> Offsets:
    shape = mode.base.shape
    shift = mode.base_sd * rng.standard_normal(shape)
    arms = tuple(
        offset + lean * shift + spread * rng.standard_normal(shape)
        for offset, spread, lean in zip(mode.arms, mode.arm_sd, mode.lean, strict=True)
    )
    return Offsets(mode.base + shift, arms, np.zeros(1))


def _proposed(segments: Segments, maps: Maps, mode: Mode, wide: float, rng: np.random.Generator) -> Offsets:
    """A draw around the mode, with the log ratio of the posterior to the proposal's density.

    The proposal is a normal that is `wide` times as wide in one draw out of ten. Its random numbers are of single
    precision, which is fast; the density is that of the number that was drawn.
    """
    shape, curve = mode.base.shape, segments.curve
    stretch = np.where(rng.random(shape, dtype=np.float32) < RARE, np.float32(wide), np.float32(1.0))
    z = stretch * rng.standard_normal(shape, dtype=np.float32)
    distance = np.multiply(z, z, dtype=np.float64)
    shift = mode.base_sd * z
    base = mode.base + shift
    baseline = maps.baseline.value(base)
    log_target = curve.density(segments.arms[0], baseline, maps.sigma[0])
    squares = base * base
    arms = []
    for index, effect in enumerate(maps.effects):
        z = stretch * rng.standard_normal(shape, dtype=np.float32)
        distance += np.multiply(z, z, dtype=np.float64)
        offset = mode.arm_sd[index] * z
        offset += mode.lean[index] * shift
        offset += mode.arms[index]
        squares += offset * offset
        eta = baseline + effect.value(offset)
        log_target += curve.density(segments.arms[index + 1], eta, maps.sigma[index + 1])
        arms.append(offset)
    squares -= distance
    squares *= 0.5
    log_target -= squares
    distance *= 0.5 * (1 - wide**-2.0)
    np.exp(np.minimum(distance, 700.0, out=distance), out=distance)
    distance *= RARE / wide ** (1 + len(arms))
    distance += 1 - RARE
    log_target -= np.log(distance, out=distance)
    return Offsets(base, tuple(arms), log_target)


def _moved(state: Offsets, proposed: Offsets, rng: np.random.Generator) -> tuple[Offsets, NDArray[np.bool_]]:
    """Metropolis: take the proposal with probability min(1, ratio of ratios)."""
    rank = rng.random(state.base.shape, dtype=np.float32)
    taken = np.log(np.maximum(rank, SMALLEST)) < proposed.log_ratio - state.log_ratio
    arms = tuple(np.where(taken, new, old) for new, old in zip(proposed.arms, state.arms, strict=True))
    base = np.where(taken, proposed.base, state.base)
    return Offsets(base, arms, np.where(taken, proposed.log_ratio, state.log_ratio)), taken


def _acceptance(target: Target, points: Array, trial: Batch, seed: np.random.SeedSequence) -> Array:
    """Mean acceptance rate of each member, over a few points and steps."""
    rng = np.random.Generator(np.random.SFC64(seed))
    segments = target.segments.pick(trial.members)
    maps = target.maps(points)
    around = trial.around(locate(segments, maps, steps=target.steps))
    state = _proposed(segments, maps, around, trial.wide, rng)
    rate = np.zeros(segments.size)
    for _ in range(trial.steps):
        state, taken = _moved(state, _proposed(segments, maps, around, trial.wide, rng), rng)
        rate += taken.mean(0) / trial.steps
    return rate
