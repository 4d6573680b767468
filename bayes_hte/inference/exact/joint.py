"""The joint log density of hyperparameters, offsets and data, out of the parts that the engine integrates over.

It exists to be compared with the PyMC model at random points: what is equal there is the same model.
"""

import numpy as np

from bayes_hte.inference.exact.coefficients import Heavy, Map
from bayes_hte.inference.exact.space import Array
from bayes_hte.inference.exact.target import Target


def log_joint(target: Target, point: Array, base: Array, arms: list[Array]) -> float:
    """Log density at one point: hyperparameters on the real line, offsets, data.

    Parameters
    ----------
    target : Target
    point : ndarray
        (coordinate,).
    base : ndarray
        (segment,) offsets of the baseline.
    arms : list of ndarray
        (segment,) offsets of each arm's effect.

    Returns
    -------
    float
        With the offsets as variables where a coefficient is pooled, and with the coefficient itself as the
        variable where it is not, as in the PyMC model.
    """
    maps, segments = target.maps(point[None]), target.segments
    total = target.space.log_prior(point[None])[0] + target.nuisance(point[None])[0]
    pooled = target.model.baseline is not None and target.model.baseline.pooling == "partial"
    total += _log_prior(maps.baseline, base, of_value=not pooled)
    baseline = maps.baseline.value(base)
    total += segments.curve.compute_log_density(segments.arms[0], baseline, maps.sigma[0]).sum()
    for arm, (cell, effect, sigma, offset) in enumerate(
        zip(segments.arms[1:], maps.effects, maps.sigma[1:], arms, strict=True)
    ):
        total += _log_prior(effect, offset, of_value=target.model.pooling == "none")
        eta = maps.below(arm, base, baseline) + effect.value(offset)
        total += segments.curve.compute_log_density(cell, eta, sigma).sum()
    return float(total)


def _log_prior(coefficient: Map, offset: Array, *, of_value: bool) -> float:
    """Log density of offsets, or of the values they stand for; 0 where a coefficient is the same in all segments."""
    slope = np.broadcast_to(coefficient.slope(offset[None]), (1, len(offset)))
    if not slope.any():
        return 0.0
    density = -0.5 * offset**2 - 0.5 * np.log(2 * np.pi)
    if isinstance(coefficient, Heavy):  # in PyMC the offset itself has the t distribution
        return float((density - np.log(slope[0] / np.broadcast_to(coefficient.scale, slope.shape)[0])).sum())
    return float((density - (np.log(slope[0]) if of_value else 0.0)).sum())
