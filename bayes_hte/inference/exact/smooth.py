"""Pareto smoothing of importance weights (PSIS), and the shape of their tail.

The largest weights are replaced by quantiles of the generalised Pareto distribution that fits them; its shape k says
how many moments the weights have: below 0.5 a variance, below 0.7 good enough in practice (Vehtari, Simpson, Gelman,
Yao & Gabry 2024, JMLR 25:72). The fit is Zhang & Stephens' (2009, Technometrics 51:316).

ArviZ has the same; importing it takes longer than all that the engine does. A test holds the two together.
"""

import numpy as np
from scipy import special

from bayes_hte.inference.exact.space import Array

LEAST_TAIL = 5
"""Weights in a tail, at least, for a shape to be told."""
PRIOR_SHAPE, PRIOR_COUNT = 0.5, 10
"""The shape is drawn a little towards 0.5, as if ten weights had said so."""


def smooth(log_ratio: Array) -> tuple[Array, float]:
    """Smoothed weights that sum to 1, and Pareto's k.

    k is infinite where there are too few weights to tell, and minus infinity where the largest are all the same.
    """
    log_weights = log_ratio - log_ratio.max()
    order = np.argsort(log_weights, kind="stable")
    tail = int(min(0.2 * len(log_weights), 3 * np.sqrt(len(log_weights))))
    shape = np.inf
    if tail >= LEAST_TAIL:
        largest = order[-tail:]
        threshold = np.exp(log_weights[order[-tail - 1]])
        excess = np.exp(log_weights[largest]) - threshold
        shape, scale = fitted_pareto(excess) if excess[-1] > excess[0] else (-np.inf, np.nan)
        if np.isfinite(shape):
            ranks = (np.arange(tail) + 0.5) / tail
            # Quantiles: threshold + scale ((1 − rank) ** −shape − 1) / shape; none above the largest weight
            smoothed = threshold + scale * special.boxcox(1 / (1 - ranks), shape)
            log_weights[largest] = np.minimum(np.log(smoothed), 0.0)
    weights = np.exp(log_weights)
    return weights / weights.sum(), float(shape)


def fitted_pareto(excess: Array) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution from sorted excesses over a threshold.

    With b = −shape / scale the shape's likelihood equation is solved in closed form: shape = mean log(1 − b x). Zhang
    and Stephens average b over its profile likelihood under a prior that spreads with the first quartile.
    """
    count = len(excess)
    grid = 30 + int(np.sqrt(count))
    quartile = excess[int(count / 4 + 0.5) - 1]
    if not quartile > 0:
        return np.inf, np.nan
    b = 1 / excess[-1] + (1 - np.sqrt(grid / (np.arange(grid) + 0.5))) / (3 * quartile)
    shapes = np.log1p(-b[:, None] * excess).mean(1)
    profile = count * (np.log(-b / shapes) - shapes - 1)
    mean_b = float(special.softmax(profile) @ b)
    shape = float(np.log1p(-mean_b * excess).mean())
    scale = -shape / mean_b
    return (count * shape + PRIOR_COUNT * PRIOR_SHAPE) / (count + PRIOR_COUNT), scale
