"""From a problem to posterior draws with a certificate, for one-way segments with a baseline.

search      the most probable hyperparameters
accuracy    quadrature orders, segment by segment
importance  weighted points of the hyperparameters
draw        segments' coefficients at the points
sign        P(effect > 0), averaged analytically
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.draws import CHAIN_COUNT, Draws, EngineRefusalError
from bayes_hte.inference.exact import accuracy, draw, sign
from bayes_hte.inference.exact.emulate import Values
from bayes_hte.inference.exact.importance import Effort, Sample, explore
from bayes_hte.inference.exact.peaks import survey
from bayes_hte.inference.exact.proposal import EXTRA, surround
from bayes_hte.inference.exact.search import first_sight
from bayes_hte.inference.exact.space import Array
from bayes_hte.inference.exact.straighten import straightened
from bayes_hte.inference.exact.target import Target, target_of
from bayes_hte.model.problem import Problem

EFFICIENCY = 0.8
"""Effective points per draw that are worth computing,"""
PLENTY = 1.5
"""and how many times as many are worth predicting: then few points are drawn twice."""
WORK = 6e6
"""Points × segments that the importance sampler aims at, at most; beyond 2,500 segments it takes fewer points."""
LEAST_EFFECTIVE = 600.0
"""However few draws are wanted: 400 effective points are needed for the result to pass."""
EVALUATIONS = 1.2e9
"""Evaluations of a cell's density, about ten seconds: a problem that needs more is left to NUTS."""
REFINEMENTS = 4
MAX_DISAGREEMENT = 0.05
"""Of two computations of one probability, beyond their combined error: then draws and integrals are both in doubt."""
CHECKED = 64
"""Points at which a finer quadrature rule is compared with the one that was used."""


def posterior(task: Problem, *, draws: int, seed: int) -> Draws:
    """Draws from the posterior of a problem, and what certifies them."""
    target, sample = points(task, wanted=EFFICIENCY * draws, seed=seed)
    rng = np.random.default_rng([seed, 1])
    drawn_points = sample.points[in_chains(sample.resampled(CHAIN_COUNT * -(-draws // CHAIN_COUNT), rng), rng)]
    drawn = draw.coefficients(target, drawn_points, seed=seed)
    probability, error = sign.positive(target, sample, seed=seed)
    probability, error, disagreement = sign.reconcile(probability, error, drawn.effect, sample.effective)
    if disagreement > MAX_DISAGREEMENT:
        raise EngineRefusalError(
            f"P(effect > 0) by integration and by counting draws differ by {disagreement:.2f} more than chance allows"
        )
    stats = {
        "pareto_k": sample.pareto_k,
        "effective_points": sample.effective,
        "quadrature_error": sample.error,
        "unexplored_mass": sample.unexplored,
        "acceptance": drawn.acceptance,
        "unmoved_share": drawn.unmoved_share,
        "log_evidence": sample.log_evidence,
    }
    natural = target.space.natural(drawn_points)
    return Draws.from_arrays(
        task,
        {**natural, **({"baseline": drawn.baseline} if task.family.has_baseline else {}), "effect": drawn.effect},
        stats,
        {"p_positive": probability, "p_positive_mcse": error},
    )


def points(
    task: Problem, *, wanted: float, seed: int, held: Mapping[tuple[str, int], float] | None = None
) -> tuple[Target, Sample]:
    """The target, ready to be evaluated, and weighted points of its hyperparameters."""
    target = target_of(task, held)
    if not target.space.parameters:
        target = accuracy.with_orders(target.anchored(np.empty(0)), np.empty((2, 0)))
        return target, nothing_shared(target, int(wanted))
    work = WORK / len(task.coords["segment"])
    wanted, welcome = (max(min(each, work), LEAST_EFFECTIVE) for each in (wanted, PLENTY * wanted))
    rough = first_sight(target)
    target, landscape = survey(target, rough)
    uniforms = np.random.default_rng([seed, 2]).random((16, len(target.space.parameters) + EXTRA))
    target = accuracy.with_orders(target, surround(landscape.peaks, inflate=1.0).draw(uniforms))
    straight = straightened(target.space, landscape.peaks[0], rough)
    straight_peaks = [straight.peak(peak) for peak in landscape.peaks]
    budget = min(max(8 * wanted, 8000.0), EVALUATIONS / evaluations(target))
    sample = explore(target, straight, straight_peaks, Effort(wanted, budget, welcome), seed=seed)
    sample = replace(sample, unexplored=landscape.measure_unexplored(sample.points))
    return refined(target, sample, seed=seed)


def evaluations(target: Target) -> float:
    """Evaluations of a cell's density at one point."""
    arms = len(target.segments.arms) - 1
    per_component = sum(len(group.members) * (group.order + arms * group.order**2) for group in target.groups)
    return float(per_component * len(target.maps(np.zeros((1, len(target.space.parameters)))).components()))


def refined(target: Target, sample: Sample, *, seed: int) -> tuple[Target, Sample]:
    """More quadrature nodes where the posterior turns out to reach further than its peak suggested."""
    for attempt in range(REFINEMENTS + 1):
        checked = sample.resampled(CHECKED, np.random.default_rng([seed, 5]))
        error = accuracy.quadrature_error(target, sample.points[checked], sample.values.log_density[checked])
        sample = replace(sample, error=error)
        if error <= accuracy.TOLERANCE or attempt == REFINEMENTS:
            break
        better = accuracy.with_orders(target, sample.points[checked]) if attempt == 0 else accuracy.finer(target)
        if evaluations(better) * sample.values.computed.sum() > EVALUATIONS:
            break
        target, sample = better, sample.revalued(better)
    return target, sample


def nothing_shared(target: Target, count: int) -> Sample:
    """Neither effects nor baselines are pooled: there are no hyperparameters to sample."""
    log_density = target.log_density(np.empty((1, 0)))
    even = np.full(count, 1 / count)
    same, empty = np.repeat(log_density, count), np.empty((count, 0))
    values = Values(empty, empty, same, same, np.ones(count, dtype=bool))
    return Sample(values, np.zeros(count), even, -np.inf, float(log_density[0]), error=0.0)


def evaluator(task: Problem, points: Array) -> Target:
    """The target of a problem whose posterior points are known already, from whichever engine."""
    target = target_of(task)
    middle = np.median(points, axis=0) if points.shape[1] else np.empty(0)
    some = points[np.linspace(0, len(points) - 1, min(CHECKED, len(points))).astype(int)]
    return accuracy.with_orders(target.anchored(middle), some)


def in_chains(chosen: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Distinct points in random order, copies side by side.

    ArviZ then sees copies as correlated draws, and its effective sample size counts what is really there.
    """
    distinct, counts = np.unique(chosen, return_counts=True)
    order = rng.permutation(len(distinct))
    return np.repeat(distinct[order], counts[order])
