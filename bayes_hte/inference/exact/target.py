"""The log density of hyperparameters given the data: prior + Σ over segments of log I_s(θ)."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from bayes_hte.inference.exact.coefficients import Line, Placed, mapped
from bayes_hte.inference.exact.integrate import (
    Index,
    Maps,
    Quantity,
    Segments,
    expectation,
    locate,
    log_integral,
    log_quadratic,
    mix_log,
    weigh_components,
)
from bayes_hte.inference.exact.space import Array, Space, space_of
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.parameters import SegmentDesign, list_coefficients
from bayes_hte.model.problem import Problem
from bayes_hte.spec.model import Model

CHUNK, LARGE_CHUNK = 24_576, 98_304
"""Numbers in one array: a dozen such arrays stay in a core's cache. Threads need larger ones: they meet at the
interpreter's lock between any two operations."""
WORTH_THREADS = 2_000_000
"""Numbers from which several cores are faster than one."""
BROAD = 41
"""Quadrature order from which nodes spread more broadly than the peak: where a likelihood is nearly a step."""
Work = Callable[[Segments, Maps], Array]
Join = Callable[[list[Array]], Array]


@dataclass(frozen=True, slots=True)
class Group:
    """Segments that need the same quadrature order."""

    members: Index
    order: int


@dataclass(frozen=True, slots=True)
class Target:
    """Everything needed to evaluate a problem at points of its hyperparameter space.

    Attributes
    ----------
    model : Model
    statistics : xarray.Dataset
    space : Space
    design : Design
        Where every segment stands in the model's structure.
    segments : Segments
    groups : tuple of Group
        Every segment once, with its quadrature order.
    """

    model: Model
    statistics: xr.Dataset
    space: Space
    design: SegmentDesign
    segments: Segments
    groups: tuple[Group, ...]

    def log_density(self, points: Array, groups: "tuple[Group, ...] | None" = None) -> Array:
        """Log posterior density up to a constant, of points (point, coordinate)."""
        total = self.space.log_prior(points) + self.nuisance(points)
        for group in self.groups if groups is None else groups:
            total += self.over(points, group.members, integral(group.order), joined=sum_segments, width=group.order)
        return np.where(np.isfinite(total), total, -np.inf)

    def log_quadratic(self, points: Array) -> Array:
        """The log density if every cell's likelihood were its quadratic model at its anchor: a tenth of the cost."""
        total = self.space.log_prior(points) + self.nuisance(points)
        total += self.over(points, np.arange(self.segments.size), integrate_quadratic, joined=sum_segments)
        return np.where(np.isfinite(total), total, -np.inf)

    def log_marginals(self, points: Array) -> Array:
        """log I_s(θ): (point, segment)."""
        found = np.empty((len(points), self.segments.size))
        for group in self.groups:
            found[:, group.members] = self.over(points, group.members, integral(group.order), width=group.order)
        return found

    def over(self, points: Array, members: Index, work: Work, *, joined: Join | None = None, width: int = 1) -> Array:
        """Apply `work` to every (point, member), chunk by chunk, on all cores; first axis of the result: point.

        `width` is how many numbers the work holds of each (point, member) at a time.
        """
        workers, size = shared_out(len(points) * len(members) * width)
        size //= width
        rows = max(1, size // max(1, len(members)))
        blocks = [members[start : start + 2 * size] for start in range(0, len(members), 2 * size)]
        whole = len(members) == self.segments.size
        picked = [self.segments if whole and len(blocks) == 1 else self.segments.pick(block) for block in blocks]
        join = joined or join_segments

        everyone = whole and len(blocks) == 1

        def job(start: int) -> Array:
            here = points[start : start + rows]
            if everyone or not self.differ:
                maps = self.maps(here)
                return join([work(each, maps) for each in picked])
            return join([work(each, self.maps(here, block)) for each, block in zip(picked, blocks, strict=True)])

        return np.concatenate(list(in_threads(job, range(0, len(points), rows), workers)))

    @property
    def has_units(self) -> bool:
        """Whether coefficients are in the outcome's own units, which may be anything, and not logarithms."""
        return FAMILIES[self.model.family].link == "identity"

    @property
    def differ(self) -> bool:
        """Whether the maps of two segments differ: by covariates, or by strata."""
        effect = self.model.effect
        return bool(effect.covariates) or effect.strata is not None

    def maps(self, points: Array, members: Index | None = None) -> Maps:
        """Baseline and effects as functions of offsets; of `members` only, where the maps of segments differ."""
        natural, placed = self.space.natural(points), Placed(self.design, members)
        curve, arms = self.segments.curve, range(len(self.segments.arms) - 1)
        asked = {each.name: each for each in list_coefficients(self.model)}
        nothing = Line(np.zeros((len(points), 1)), np.zeros((len(points), 1)))
        baseline = mapped(asked["baseline"], natural, 0, placed)[0] if "baseline" in asked else nothing
        effects = [mapped(asked["effect"], natural, arm, placed) for arm in arms]
        return Maps(
            len(points),
            baseline,
            tuple(effect for effect, _ in effects),
            tuple(coupling for _, coupling in effects),
            tuple(curve.select_arm_nuisance(natural, arm) for arm in range(len(arms) + 1)),
        )

    def nuisance(self, points: Array) -> Array:
        """Log density of what depends on the nuisance parameters alone."""
        curve = self.segments.curve
        if curve.compute_nuisance_density is None or curve.nuisance_name is None:
            return np.zeros(len(points))
        return curve.compute_nuisance_density(self.statistics, self.space.natural(points)[curve.nuisance_name])

    def anchored(self, point: Array) -> "Target":
        """The same, with the quadratic model of the likelihood taken at the segments' modes at `point`."""
        weighed = weigh_components(self.maps(point[None]), lambda maps: integrate_normal(self.segments, maps, 1))
        anchors = [np.zeros(self.segments.size) for _ in self.segments.arms]
        # Of a mixture, the mean of its components' modes.
        for share, maps in weighed:
            mode = locate(self.segments, maps, settled=1e-6)
            baseline = np.broadcast_to(maps.baseline.value(mode.base), mode.base.shape)[0]
            weight = np.broadcast_to(share, mode.base.shape)[0]
            anchors[0] += weight * baseline
            for arm, offset in enumerate(mode.arms):
                effect = np.broadcast_to(maps.effect(arm, offset, mode.base), mode.base.shape)[0]
                anchors[arm + 1] += weight * (baseline + effect)
        return replace(self, segments=Segments.at(self.segments.curve, self.segments.arms, tuple(anchors)))


def integral(order: int) -> Work:
    """log I_s(θ) by this quadrature order."""
    return lambda segments, maps: mix_log(maps, lambda component: integrate_normal(segments, component, order))


def integrate_normal(segments: Segments, maps: Maps, order: int) -> Array:
    """Compute log I_s(θ) where coefficients are normal, by this quadrature order."""
    mode = locate(segments, maps)
    return log_integral(segments, maps, mode.broader() if order >= BROAD else mode, order)


def integrate_quadratic(segments: Segments, maps: Maps) -> Array:
    """Compute log I_s(θ) in closed form, under quadratic likelihoods."""
    return mix_log(maps, lambda component: log_quadratic(segments, component))


def mean_of(quantity: Quantity, order: int) -> Work:
    """Build the posterior mean of a quantity of (baseline, effect) given θ: (point, segment, arm)."""

    def work(segments: Segments, maps: Maps) -> Array:
        weighed = weigh_components(maps, lambda component: integrate_normal(segments, component, order))
        means = [
            share[..., None] * expectation(segments, each, locate(segments, each), order, quantity)
            for share, each in weighed
        ]
        return np.asarray(np.sum(means, axis=0))

    return work


def join_segments(parts: list[Array]) -> Array:
    """Blocks of segments side by side."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def sum_segments(parts: list[Array]) -> Array:
    """The total over all segments."""
    total = parts[0].sum(1)
    for part in parts[1:]:
        total = total + part.sum(1)
    return total


def shared_out(numbers: int) -> tuple[int, int]:
    """How many threads a piece of work is worth, and how large a chunk of it should be.

    The chunks are the same on every machine, and with them the random numbers.
    """
    return (1, CHUNK) if numbers < WORTH_THREADS else (cores(), LARGE_CHUNK)


def in_threads[T](job: Callable[[int], T], starts: range, workers: int) -> Iterator[T]:
    """Run independent jobs; NumPy lets go of the interpreter while it computes.

    Far out in the tails numbers overflow to infinity, whose weight is zero: that is no reason for a warning.
    """

    def quiet(start: int) -> T:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return job(start)

    workers = min(workers, len(starts))
    if workers < 2:
        yield from map(quiet, starts)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(quiet, starts)


def cores() -> int:
    """Count the cores that this process may use: one if it is a worker of another, among others of its kind."""
    from multiprocessing import parent_process  # here, as work that is too small for threads never asks

    if parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def target_of(task: Problem, held: Mapping[tuple[str, int], float] | None = None) -> Target:
    """The target of a problem, before its mode is known; hyperparameters in `held` are conditioned on."""
    curve = task.family.checked_cell_likelihood
    arrays = curve.pack_arrays(task.cell_statistics.transpose("segment", "arm", ...))
    arms = tuple({name: np.ascontiguousarray(values[..., arm]) for name, values in arrays.items()}
                 for arm in range(task.cell_statistics.sizes["arm"]))  # fmt: skip
    if not task.family.has_baseline:  # a control that tells nothing, and a baseline of 0
        arms = ({name: np.zeros_like(values) for name, values in arms[0].items()}, *arms)
    segments = Segments.at(curve, arms, tuple(curve.guess_eta(arm) for arm in arms))
    everyone = Group(np.arange(segments.size), 1)
    return Target(task.model, task.cell_statistics, space_of(task, held), task.segment_design, segments, (everyone,))
