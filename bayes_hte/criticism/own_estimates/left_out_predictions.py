"""Predict every segment from all others, and measure how surprising its own estimate is: calibrated by construction.

Replicated data of a cell that has a parameter of its own come out where the data are, so a check of them never speaks
(Bayarri & Berger 2000, Journal of the American Statistical Association 95:1127). Predicted from the others, with
estimates y_s ~ N(centre_s, se_s² + τ²) and centre_s ~ N(μ, …):

    p(τ | y_-s) ∝ p(τ) Π_{j ≠ s} N(y_j; μ, se_j² + τ²), μ integrated out
    z_s = Φ⁻¹(P(Y_s ≤ y_s | y_-s)), averaged over a grid of τ

Under the model every z_s is standard normal, whatever the prior's part in it. All segments are left out at once, in
closed form: sums over the others are sums over all, less the segment's own term.
"""

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.criticism.own_estimates.segment_estimates import SegmentEstimates
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.spec.distributions import Distribution, Normal

TAU_GRID_SIZE = 48
"""Values of τ: z changes by less than .01 with twice as many."""
LOWEST_TAU, HIGHEST_TAU = 0.02, 30.0
"""Ends of the grid of τ, in units of the estimates' own scatter and error: below the first τ is 0."""
TAIL_NODE_COUNT = 64
"""Nodes of the scale mixture that Student's t is."""
MIN_SEGMENTS = 3
"""Fewer segments leave nothing to predict one from."""


def predict_left_out(estimates: SegmentEstimates, posterior: xr.Dataset) -> FloatArray | None:
    """Compute z of every segment, (segment,): standard normal under the model. None where others do not predict it."""
    coefficient = estimates.coefficient
    if coefficient.pooling == "none" or estimates.count < MIN_SEGMENTS or coefficient.shape == "horseshoe":
        return None
    # Estimates that share data are no independent witnesses: their whitened residuals have no segment's name.
    if estimates.covariance is not None and np.abs(estimates.covariance - np.diag(np.diag(estimates.covariance))).any():
        return None
    residuals = estimates.estimates - estimates.average_explained_part(posterior)
    if coefficient.shape == "student_t":
        return _predict_heavy_tails(estimates, residuals, posterior)
    between_prior = None if coefficient.pooling == "complete" else coefficient.pool_priors.between
    mean_prior = coefficient.pool_priors.mean
    z_scores = np.empty(estimates.count)
    for members in _group_by_stratum(estimates):
        z_scores[members] = _predict_normal(
            residuals[members], estimates.standard_errors[members], between_prior, mean_prior
        )
    return z_scores


def _group_by_stratum(estimates: SegmentEstimates) -> list[np.ndarray]:
    """Group segments that share a between-segment SD."""
    if estimates.coefficient.strata is None:
        return [np.arange(estimates.count)]
    level_index = estimates.problem.segment_design.level_index[estimates.coefficient.strata][estimates.segment_index]
    return [np.flatnonzero(level_index == level) for level in np.unique(level_index)]


def _predict_normal(
    y: FloatArray, se: FloatArray, between_prior: Distribution | None, mean_prior: Distribution | None
) -> FloatArray:
    """Compute z of every estimate from the others, where coefficients are normal around their mean."""
    # Measured from a weighted mean, so that sums of squares of large numbers do not cancel.
    centre = float(np.average(y, weights=se**-2.0))
    y = y - centre
    prior_mean, prior_precision = _approximate_mean_prior(mean_prior, centre)
    tau, log_tau_prior = _weigh_tau(y, se, between_prior)
    # Sums over the others: w = 1 / (se² + τ²), arrays (tau, segment)
    variances = se**2 + tau[:, None] ** 2
    w = 1 / variances
    w_others = w.sum(1, keepdims=True) - w + prior_precision
    wy_others = (w @ y)[:, None] - w * y + prior_precision * prior_mean
    wyy_others = (w @ y**2)[:, None] - w * y**2 + prior_precision * prior_mean**2
    log_w_others = np.log(w).sum(1, keepdims=True) - np.log(w)
    # log p(y_-s | τ) = ½ Σ log w − ½ log W − ½ (Σ w y² − (Σ w y)² / W)
    log_evidence = 0.5 * (log_w_others - np.log(w_others) - wyy_others + wy_others**2 / w_others)
    log_weights = log_tau_prior[:, None] + log_evidence
    tau_weights = np.exp(log_weights - log_weights.max(0))
    tau_weights /= tau_weights.sum(0)
    # Y_s | τ, y_-s ~ N(Σ w y / W, se² + τ² + 1 / W)
    z_given_tau = (y - wy_others / w_others) / np.sqrt(variances + 1 / w_others)
    return _average_tails(z_given_tau, tau_weights)


def _average_tails(z_given_tau: FloatArray, weights: FloatArray) -> FloatArray:
    """Average tail probabilities over τ, the nearer tail so that it keeps its digits; back as a normal score."""
    lower, upper = (weights * special.ndtr(z_given_tau)).sum(0), (weights * special.ndtr(-z_given_tau)).sum(0)
    # Below 1e-300 a double ends; z = 37 there.
    tail_scores = -special.ndtri(np.clip(np.minimum(lower, upper), 1e-300, 0.5))
    return np.where(upper < lower, tail_scores, -tail_scores)


def _approximate_mean_prior(mean_prior: Distribution | None, centre: float) -> tuple[float, float]:
    """Approximate the prior of a mean by its location, less the centre, and a precision; flat if it is not normal."""
    # Heavy tails are there to give way to data: what they hold back is next to nothing.
    if isinstance(mean_prior, Normal):
        return mean_prior.mu - centre, mean_prior.sigma**-2.0
    return 0.0, 1e-12


def _weigh_tau(y: FloatArray, se: FloatArray, between_prior: Distribution | None) -> tuple[FloatArray, FloatArray]:
    """Lay a grid of τ, and give the log of its prior density times its spacing."""
    if between_prior is None:
        return np.zeros(1), np.zeros(1)
    unit = float(np.sqrt(np.var(y) + np.median(se) ** 2))
    tau = unit * np.geomspace(LOWEST_TAU, HIGHEST_TAU, TAU_GRID_SIZE)
    # Spacing of a geometric grid ∝ τ; the first stands for all below it as well.
    with np.errstate(divide="ignore"):
        log_weights = compute_log_prior(between_prior, tau) + np.log(tau)
    # A prior that ends within the grid: where it has no density τ is not.
    return tau, np.where(np.isfinite(log_weights), log_weights, -np.inf) if np.isfinite(
        log_weights
    ).any() else tau * 0.0


def _predict_heavy_tails(
    estimates: SegmentEstimates, residuals: FloatArray, posterior: xr.Dataset
) -> FloatArray | None:
    """Compute z of every estimate under Student's t: heavy tails do not let one segment move what all share."""
    mean_draws, tau_draws = (estimates.select_draws(posterior, suffix) for suffix in ("_mean", "_between"))
    effect_priors = estimates.coefficient.effect_priors
    if mean_draws is None or tau_draws is None or effect_priors is None or estimates.coefficient.strata is not None:
        return None
    centre, tau = float(mean_draws.mean()), float(np.sqrt((tau_draws**2).mean()))
    # t_ν = z √(ν / g), g ~ χ²_ν: nodes at quantiles of g, denser where g is small and the tails come from
    share = (np.arange(TAIL_NODE_COUNT) + 0.5) / TAIL_NODE_COUNT
    nu = effect_priors.tail_nu
    g = 2 * special.gammaincinv(nu / 2, share**3)
    node_weights = 3 * share**2 / TAIL_NODE_COUNT
    node_weights /= node_weights.sum()
    scales = np.sqrt(estimates.standard_errors**2 + (tau**2 * nu / g)[:, None])
    return _average_tails((residuals - centre) / scales, np.broadcast_to(node_weights[:, None], scales.shape))
