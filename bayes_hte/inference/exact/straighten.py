"""Coordinates in which the posterior of hyperparameters is closer to a multivariate t.

The spread of a common mean grows with the between-segment SD, as a funnel: given τ its posterior has about

    precision  S / (τ² + v) + 1 / sd²        S segments with sampling variance v, prior SD sd

A point is therefore described by how many of these SDs the mean lies from its centre given τ.

Where τ may be 0 its density is flat there, and that of log τ has an exponential tail on the left; so does any
logarithm or log-odds under a prior with mass at its bound. There log τ = w − w²/2 for w < 0, in which the tail
is like a normal's.

Both are changes of variables for the proposals alone: densities carry their Jacobian, so they cannot bias anything.
"""

from dataclasses import dataclass, replace

import numpy as np

from bayes_hte.inference.exact.search import Peak, Rough
from bayes_hte.inference.exact.space import Array, Space
from bayes_hte.spec.distributions import Cauchy, HalfCauchy, HalfStudentT, InverseGamma, Normal, StudentT, Uniform

_HEAVY = (HalfCauchy, HalfStudentT, InverseGamma, Uniform)
"""Priors whose logarithm or log-odds has an exponential tail on the right as well."""


@dataclass(frozen=True, slots=True)
class Funnel:
    """One common mean and the between-segment SD that goes with it.

    Attributes
    ----------
    mean, between : int
        Their coordinates.
    segments, variance : float
        How many segments inform the mean, and their typical sampling variance.
    prior_mean, prior_sd : float
    centre : float
        Where the data alone put the mean.
    """

    mean: int
    between: int
    segments: float
    variance: float
    prior_mean: float
    prior_sd: float
    centre: float

    def given(self, log_between: Array) -> tuple[Array, Array]:
        """Centre and SD of the mean at every τ."""
        data = self.segments / (np.exp(2 * np.clip(log_between, -300.0, 300.0)) + self.variance)
        total = data + self.prior_sd**-2.0
        return (data * self.centre + self.prior_mean * self.prior_sd**-2.0) / total, total**-0.5


@dataclass(frozen=True, slots=True)
class Tail:
    """A coordinate with an exponential tail on the left of `centre`, and on the right of it if `both`."""

    column: int
    centre: float
    both: bool

    def bent(self, straight: Array) -> tuple[Array, Array]:
        """The coordinate itself, and the log derivative."""
        low, high = np.minimum(straight, 0.0), np.maximum(straight, 0.0) * self.both
        return self.centre + straight - 0.5 * low**2 + 0.5 * high**2, np.log1p(high - low)

    def unbend(self, value: float) -> tuple[float, float]:
        """Find the straight coordinate of a value, and the slope of `bent` there."""
        # w − w²/2 = d  ⇒  w = 1 − √(1 − 2 d) for d < 0; mirrored on the right
        distance = value - self.centre
        if distance > 0 and not self.both:
            return distance, 1.0
        slope = float(np.sqrt(1 + 2 * abs(distance)))
        return float(np.copysign(slope - 1, distance)), slope


@dataclass(frozen=True, slots=True)
class Straight:
    """A change of variables of the whole space."""

    tails: tuple[Tail, ...]
    funnels: tuple[Funnel, ...]

    def points(self, straight: Array) -> tuple[Array, Array]:
        """Points in the space of hyperparameters, and the log of the Jacobian."""
        points, log_jacobian = straight.copy(), np.zeros(len(straight))
        for tail in self.tails:
            points[:, tail.column], log_slope = tail.bent(straight[:, tail.column])
            log_jacobian += log_slope
        for funnel in self.funnels:
            centre, sd = funnel.given(points[:, funnel.between])
            points[:, funnel.mean] = centre + sd * straight[:, funnel.mean]
            log_jacobian += np.log(sd)
        return points, log_jacobian

    def peak(self, peak: Peak) -> Peak:
        """The peak in straight coordinates: to first order, the mean and τ are no longer tied."""
        point, scale = peak.point.copy(), np.ones(len(peak.point))
        for tail in self.tails:
            point[tail.column], slope = tail.unbend(float(peak.point[tail.column]))
            scale[tail.column] = 1 / slope
        for funnel in self.funnels:
            centre, sd = funnel.given(peak.point[funnel.between : funnel.between + 1])
            point[funnel.mean] = (peak.point[funnel.mean] - centre[0]) / sd[0]
            scale[funnel.mean] = 1 / sd[0]
        return replace(peak, point=point, covariance=peak.covariance * np.outer(scale, scale))


def straightened(space: Space, peak: Peak, rough: dict[str, list[Rough]]) -> Straight:
    """One funnel for every mean on the real line whose between-segment SD is a positive coordinate as well."""
    places = {(each.name, each.position): column for column, each in enumerate(space.parameters)}
    funnels = []
    for (name, position), column in places.items():
        stem, parameter = name.removesuffix("_mean"), space.parameters[column]
        size = space.sizes.get(f"{stem}_between", 0)
        # One SD for every mean, or one for all; strata have several for each.
        if size not in (1, space.sizes[name]):
            continue
        between = places.get((f"{stem}_between", 0 if size == 1 else position))
        if not name.endswith("_mean") or between is None or space.parameters[between].line != "positive":
            continue
        if not isinstance(parameter.prior, Normal | StudentT | Cauchy):
            continue
        known = rough[stem][position]
        funnel = Funnel(column, between, known.segments, known.variance, parameter.prior.mu, parameter.prior.sigma,
                        float(peak.point[column]))  # fmt: skip
        # The data's centre is where the peak is the precision-weighted mean of it and the prior's.
        _, sd = funnel.given(peak.point[between : between + 1])
        pull = sd[0] ** 2 / funnel.prior_sd**2
        centre = funnel.centre + (funnel.centre - funnel.prior_mean) * pull / max(1 - pull, 0.1)
        funnels.append(Funnel(column, between, known.segments, known.variance, funnel.prior_mean, funnel.prior_sd,
                              float(centre)))  # fmt: skip
    tails = [
        Tail(column, float(peak.point[column]), both=isinstance(each.prior, _HEAVY))
        for column, each in enumerate(space.parameters)
        if each.line != "real"
    ]
    return Straight(tuple(tails), tuple(funnels))
