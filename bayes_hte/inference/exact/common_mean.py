"""The common effect m under any prior, given τ: one-dimensional integrals, and draws, for many values of τ at once.

    p(m | τ, y) ∝ p(m) exp(−(m − centre)² / (2 variance))

The prior may be much narrower or much wider than the likelihood, or far from it: the first panels end where either
bends, and are halved from there (`panels`). A positive prior is integrated over the logarithm of m.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayes_hte.inference.exact.log_range import DEPTH, find_log_range, find_prior_peak
from bayes_hte.inference.exact.panels import Panels, Rows, integrate
from bayes_hte.inference.exact.space import Array
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.spec.distributions import Cauchy, Distribution, Normal, StudentT, find_support_bounds, is_positive

LIKELIHOOD_KNOTS = np.array([-40.0, -8.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0, 40.0])
"""Ends of the first panels around the likelihood's centre, in its SDs; adaptation does the rest."""
DRAW_ROWS = 1000
"""Draws whose own integrals over m are computed at a time."""


@dataclass(frozen=True, slots=True)
class Common:
    """Likelihood of the common effect m at every τ: a normal in m, exp(log_height − (m − centre)² / (2 variance))."""

    log_height: Array
    centre: Array
    variance: Array

    def pick(self, rows: slice | Rows) -> "Common":
        """Pick some rows."""
        return Common(self.log_height[rows], self.centre[rows], self.variance[rows])


def integrate_mean(common: Common, prior: Distribution) -> Panels:
    """Integrate prior and likelihood over m at every τ, each a row; coordinates are those of `to_natural`."""
    knots = np.sort(find_knots(common, prior), axis=1)
    row = np.repeat(np.arange(len(knots)), knots.shape[1] - 1)
    return integrate(mean_density(common, prior), row, knots[:, :-1].ravel(), knots[:, 1:].ravel())


def draw_mean(common: Common, prior: Distribution, ranks: Array) -> Array:
    """Draw one m from each row's posterior, by its inverse distribution function."""
    drawn = []
    for first in range(0, len(ranks), DRAW_ROWS):
        here = slice(first, first + DRAW_ROWS)
        part = common.pick(here)
        panels = integrate_mean(part, prior)
        rows = np.arange(len(part.centre))
        drawn.append(to_natural(panels.draw(rows, ranks[here]), prior))
    return np.concatenate(drawn)


def mean_density(common: Common, prior: Distribution) -> Callable[[Rows, Array], Array]:
    """Build the log density of m and the data at every τ, as a function of row and coordinate."""

    def log_density(row: Rows, x: Array) -> Array:
        m = to_natural(x, prior)
        distance = (m - common.centre[row, None]) ** 2 / common.variance[row, None]
        jacobian = x if _is_logged(prior) else 0.0
        return np.asarray(common.log_height[row, None] - 0.5 * distance + compute_log_prior(prior, m) + jacobian)

    return log_density


def to_natural(x: Array, prior: Distribution) -> Array:
    """Convert a coordinate to m: its exponential where the prior is positive and without an upper end."""
    return np.exp(x) if _is_logged(prior) else x


def _is_logged(prior: Distribution) -> bool:
    return is_positive(prior) and find_support_bounds(prior) is None


def find_knots(common: Common, prior: Distribution) -> Array:
    """Find ends of the first panels for m at every τ: (τ, knot), where prior or likelihood bend."""
    sd = np.sqrt(np.where(np.isfinite(common.variance), common.variance, 0.0))[:, None]
    likely = common.centre[:, None] + sd * LIKELIHOOD_KNOTS
    if _is_logged(prior):
        peak = find_prior_peak(prior)
        log_range = find_log_range(lambda x: compute_log_prior(prior, np.exp(x)) + x, peak, peak, prior)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(likely > 0, np.log(np.maximum(likely, 1e-300)), log_range.lower)
        fixed = log_range.edges(2.0)
        lower, upper = log_range.lower, log_range.upper
        likely = logs
    else:
        # The sign of an effect is a step at 0 where τ is small: no panel may hold it inside.
        bounds = find_support_bounds(prior)
        fixed = np.linspace(*bounds, 9) if bounds is not None else _spread_knots(prior)
        lower, upper = float(fixed[0]), float(fixed[-1])
        fixed = np.append(fixed, np.clip(0.0, lower, upper))
    return np.concatenate([np.clip(likely, lower, upper), np.broadcast_to(fixed, (len(likely), len(fixed)))], axis=1)


def _spread_knots(prior: Distribution) -> Array:
    """Spread knots over a prior on the real line, four times as far from one to the next, to where nothing is left."""
    if not isinstance(prior, StudentT | Cauchy | Normal):
        raise AssertionError(f"{prior.dist} is no prior on the real line")
    distances: Array = prior.sigma * 4.0 ** np.arange(-1, 240, dtype=float)
    heights = compute_log_prior(prior, prior.mu + distances) + np.log(distances)
    kept = distances[(heights > heights.max() - DEPTH) & (distances < 1e150)]
    return np.concatenate([prior.mu - kept[::-1], [prior.mu], prior.mu + kept])
