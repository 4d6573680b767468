"""The range of the logarithm of a positive number outside of which its density is negligible, or an exponential.

A between-segment SD may be 0, and then the density of its logarithm rises like an exponential on the left for ever;
what lies there has a closed form. Nothing is taken from the prior alone: data far outside of it put the number there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayes_hte.inference.exact.space import Array
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.spec.distributions import Distribution, find_support_bounds

DEPTH = 45.0
"""How far below its peak a density is followed: e⁻⁴⁵ is 3e-20."""
LARGEST_LOG = 345.0
"""Logarithms of τ and m end at ±345: the square of e³⁴⁵ is still a number."""
LOG_STEP = 0.5
"""Between values of a logarithm at which the range of a density is looked for: it bends within a unit or more."""
TAIL_STEADY = 1e-6
"""Change of the slope of a log density from step to step below which it is a straight line, an exponential tail."""


@dataclass(frozen=True, slots=True)
class LogRange:
    """The range of a logarithm outside of which a density is negligible or an exponential.

    Attributes
    ----------
    lower, upper : float
    lower_slope : float
        Of the log density below `lower`, where it is a straight line; infinite where nothing lies there.
    """

    lower: float
    upper: float
    lower_slope: float

    def edges(self, longest: float) -> Array:
        """Cut the range into panels no longer than `longest`."""
        return np.linspace(self.lower, self.upper, int(np.ceil((self.upper - self.lower) / longest)) + 1)


def find_prior_peak(prior: Distribution) -> float:
    """Find where the prior density of the logarithm of a positive number is highest."""
    places = np.arange(-LARGEST_LOG, LARGEST_LOG, LOG_STEP)
    bounds = find_support_bounds(prior)
    if bounds is not None:
        return float(np.log(bounds[1]))
    return float(places[np.argmax(compute_log_prior(prior, np.exp(places)) + places)])


def find_log_range(
    log_density: Callable[[Array], Array], lowest: float, highest: float, prior: Distribution
) -> LogRange:
    """Extend a range of a logarithm on both sides until its density has fallen by `DEPTH`.

    Parameters
    ----------
    log_density : callable
        Of the logarithm.
    lowest, highest : float
        Between them lies what data and prior suggest.
    prior : Distribution
        Of the positive number; its support may end.
    """
    least, most = max(_lower_bound(prior), -LARGEST_LOG), min(find_upper_bound(prior), LARGEST_LOG)
    lowest, highest = float(np.clip(lowest, least, most)), float(np.clip(highest, least, most))
    places = np.linspace(lowest, highest, int((highest - lowest) / LOG_STEP) + 4 if highest > lowest else 1)
    heights = log_density(places)
    while places[-1] < most and not heights[-1] < heights.max() - DEPTH:
        more = np.minimum(places[-1] + LOG_STEP * np.arange(1, 25), most)
        more = np.unique(more)
        places, heights = np.append(places, more), np.append(heights, log_density(more))
    while places[0] > least and not heights[0] < heights.max() - DEPTH and not _is_steady(places, heights):
        more = np.unique(np.maximum(places[0] - LOG_STEP * np.arange(1, 25), least))
        places, heights = np.append(more, places), np.append(log_density(more), heights)
    kept = np.flatnonzero(heights >= heights.max() - DEPTH)
    first, last = max(kept[0] - 1, 0), min(kept[-1] + 1, len(places) - 1)
    slope = np.inf
    if first == 0 and places[0] > _lower_bound(prior) and len(places) > 1:
        slope = max(float((heights[1] - heights[0]) / (places[1] - places[0])), 1e-3)
    return LogRange(float(places[first]), float(places[last]), slope)


def _is_steady(places: Array, heights: Array) -> bool:
    """Tell whether a log density has become a straight, rising line at its lower end."""
    if len(places) < 4:
        return False
    slopes = np.diff(heights[:4]) / np.diff(places[:4])
    return bool(slopes[0] > 0 and np.abs(np.diff(slopes)).max() < TAIL_STEADY)


def _lower_bound(prior: Distribution) -> float:
    """Logarithm of the lower end of a positive prior's support."""
    bounds = find_support_bounds(prior)
    return float(np.log(bounds[0])) if bounds is not None and bounds[0] > 0 else -np.inf


def find_upper_bound(prior: Distribution) -> float:
    """Logarithm of the upper end of a positive prior's support."""
    bounds = find_support_bounds(prior)
    return float(np.log(bounds[1])) if bounds is not None else np.inf
