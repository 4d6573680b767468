"""How many quadrature nodes each segment needs, and how far the integrals that were used are off.

Only what varies with the hyperparameters matters: an error common to all points cancels.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from bayes_hte.inference.exact.integrate import Index, straight
from bayes_hte.inference.exact.space import Array
from bayes_hte.inference.exact.target import Group, Target, integral

LADDER = (3, 5, 7, 11, 17, 25, 41, 61)
"""Quadrature orders in use: a cell with thousands of units needs 3 nodes, a single unit under a wide prior 41."""
TOLERANCE = 0.02
"""Error in the log density of hyperparameters, over the region that carries weight, that is aimed at."""


def closed_form(target: Target) -> bool:
    """Whether integrals over a segment are Gaussian, so that one node is exact."""
    maps = target.maps(np.zeros((1, len(target.space.parameters))))
    return target.segments.curve.is_quadratic and straight(maps)


def with_orders(target: Target, points: Array) -> Target:
    """The target with a quadrature order for every segment, judged at a few typical points."""
    everyone = np.arange(target.segments.size)
    if closed_form(target):
        return replace(target, groups=(Group(everyone, 1),))
    groups, left, budget = [], everyone, TOLERANCE / 2
    for order, above in pairwise(LADDER):
        error = _spread(target, points, left, (order, above))
        ranked = np.argsort(error)
        allowed = budget * len(left) / len(everyone) if above != LADDER[-1] else np.inf
        fine = int(np.searchsorted(np.cumsum(error[ranked]), allowed, side="right"))
        if fine:
            groups.append(Group(np.sort(left[ranked[:fine]]), order))
            left = np.sort(left[ranked[fine:]])
        if not len(left):
            break
    return replace(target, groups=tuple(groups))


def _spread(target: Target, points: Array, members: Index, orders: tuple[int, int]) -> Array:
    """By how much two rules differ about each segment, apart from a constant."""
    coarse, fine = (target.over(points, members, integral(order), width=order) for order in orders)
    return np.asarray((coarse - fine).std(0))


def quadrature_error(target: Target, points: Array, used: Array) -> float:
    """SD, over points drawn from the posterior, of what a finer rule changes in the log densities that were used.

    An error of 0.05 shifts no posterior mean by more than 0.05 of its SD.
    """
    better = target if closed_form(target) else finer(finer(target))
    return float(np.std(better.log_density(points) - used))


def finer(target: Target) -> Target:
    """Every segment with the next higher quadrature order."""
    steps = {order: LADDER[min(place + 1, len(LADDER) - 1)] for place, order in enumerate(LADDER)}
    return replace(target, groups=tuple(replace(group, order=steps[group.order]) for group in target.groups))
