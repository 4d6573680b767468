"""Analyse second tests on their own, thousands of them, and decide each as the first was decided.

On the link scale, of one arm, with hyperparameters φ (between-segment SDs) and estimates of both tests' own

    θ | φ ~ N(m, P(φ))        y₁ | θ ~ N(θ, V)        y₂ | θ ~ N(θ, U)

    P(φ) = σ² 1 1ᵀ + Σ_covariates σ_slope² z zᵀ + Σ_terms τ_term² [same level] + diag(τ²)

where σ is the prior SD of the common effect. Given φ the second test's posterior is normal; over φ it is a mixture. Its
points are draws φ_k of the first test's posterior, which have the second's weights where they are weighted by

    w_k ∝ N(y₂; m, P(φ_k) + U) / N(y₁; m, P(φ_k) + V)

so that the first test is taken out again: p(φ | y₁) ∝ p(φ) p(y₁ | φ). What is approximate is the normal likelihood of
each segment's own estimate, as in the standard errors of any table; arms of a segment are analysed one by one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.decisions.repetition.between_tests import draw_next_test
from bayes_hte.decisions.repetition.normal_decisions import BenefitPosteriors, decide_benefits
from bayes_hte.decisions.verdicts import find_tested_cells
from bayes_hte.estimands.effects import compute_effects, estimate_without_pooling
from bayes_hte.estimands.pooling_factor import average_pooling, compute_between_variance
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.model.parameters import build_segment_design, expand_dimensions, name_term_variable
from bayes_hte.model.priors import freeze_distribution
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, SEGMENT
from bayes_hte.spec.fit_tree import (
    get_fitted_cells,
    get_fitted_model,
    get_resolved_model,
    get_seed,
    is_from_posterior,
    list_test_names,
)

SECOND_TESTS: Final = 1000
"""Second tests that are simulated: a probability of one half has a standard error of .016."""
MIXTURE_POINTS: Final = 100
"""Draws of the between-segment SDs that a second posterior is made of."""
MAX_NUMBERS: Final = 2e7
"""Means of all segments at all points after all tests that are held at once: 160 MB."""
FLAT_SDS: Final = 30.0
"""SD of a prior that says nothing, in SDs of what is known."""


@dataclass(frozen=True, slots=True)
class ArmPrior:
    """Prior of the effects of one arm given draws of what segments share; link scale.

    Attributes
    ----------
    mean : float
        Of the common effect.
    covariances : ndarray
        (point, segment, segment).
    own_variances : ndarray
        Of what segments differ by beyond levels and covariates, (point, segment); NaN where nobody knows it.
    """

    mean: float
    covariances: FloatArray
    own_variances: FloatArray


def decide_second_tests(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, size_ratios: xr.DataArray
) -> xr.DataArray:
    """Decide second tests, each on its own; dims (sample, segment, arm).

    Parameters
    ----------
    fit_tree : xarray.DataTree
    question : EffectQuestion
    rule : Rule
        With the smallest effect that matters settled.
    size_ratios : xarray.DataArray
        How many times as large the second test is; dims (segment,).
    """
    averages = average_pooling(fit_tree)
    first_variance = averages["sampling_variance"].transpose(SEGMENT, ARM)
    second_variance = first_variance / size_ratios
    raw = estimate_without_pooling(fit_tree, "link")["raw"].transpose(SEGMENT, ARM)
    tests_differ = bool(list_test_names(fit_tree))
    effects = draw_next_test(fit_tree, "link") if tests_differ else compute_effects(fit_tree, "link")
    effects = effects.transpose("chain", "draw", SEGMENT, ARM)
    rng = np.random.default_rng([get_seed(fit_tree), 16])
    sample_count, point_count = _choose_sizes(effects.sizes[SEGMENT])
    flat_effects = effects.values.reshape(-1, *effects.shape[2:])
    chosen = rng.permutation(len(flat_effects))[:sample_count]
    points = rng.permutation(len(flat_effects))[:point_count]
    posteriors = []
    for arm_index, arm in enumerate(effects[ARM].values):
        precision = _invert(second_variance.values[:, arm_index])
        noise = np.where(precision > 0, np.maximum(precision, 1e-300) ** -0.5, 0.0)
        estimates = flat_effects[chosen, :, arm_index] + noise * rng.standard_normal((len(chosen), len(noise)))
        first = (
            np.nan_to_num(raw.values[:, arm_index]),
            _invert(first_variance.where(np.isfinite(raw)).values[:, arm_index]),
        )
        prior = build_arm_prior(fit_tree, str(arm), points)
        posteriors.append(analyse_second_estimates(prior, first, (estimates, precision)))
    slope = _measure_slope(fit_tree, question)
    benefits = BenefitPosteriors(
        weights=np.stack([each.weights for each in posteriors], axis=-1),
        means=np.stack([each.means for each in posteriors], axis=-1),
        sds=np.stack([each.sds for each in posteriors], axis=-1),
        scale_factor=slope if question.higher_is_better else -slope,
        pooling=np.stack([each.pooling for each in posteriors], axis=-1),
        can_be_called=find_tested_cells(get_fitted_cells(fit_tree)).transpose(SEGMENT, ARM)
        & is_direction_known(fit_tree, question),
    )
    return decide_benefits(fit_tree, question, rule, benefits)


def _choose_sizes(segment_count: int) -> tuple[int, int]:
    """Choose numbers of second tests and of mixture points that memory holds."""
    point_count = int(np.clip(4e9 / segment_count**3, 20, MIXTURE_POINTS))
    return int(np.clip(MAX_NUMBERS / (segment_count * point_count), 200, SECOND_TESTS)), point_count


def _invert(variance: FloatArray) -> FloatArray:
    """Invert variances to precisions: 0 where nothing was measured."""
    is_known = np.isfinite(variance) & (variance > 0)
    return np.where(is_known, 1 / np.where(is_known, variance, 1.0), 0.0)


def _measure_slope(fit_tree: xr.DataTree, question: EffectQuestion) -> xr.DataArray:
    """Measure by how much an effect on the question's scale moves with that on the link scale; dims (segment, arm)."""
    own, link = (compute_effects(fit_tree, scale) for scale in (question.scale, "link"))
    # Through the origin, where both are 0: Σ own link / Σ link²
    slope: xr.DataArray = (own * link).mean(("chain", "draw")) / (link**2).mean(("chain", "draw"))
    return slope.transpose(SEGMENT, ARM)


def build_arm_prior(fit_tree: xr.DataTree, arm: str, points: NDArray[np.intp]) -> ArmPrior:
    """Build the prior of an arm's effects given draws of the between-segment SDs.

    Of draws whose model is not known, and of what they leave open, the prior says nothing: the second test then counts
    by its own estimates.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    arm : str
    points : ndarray
        Which draws, of all chains in a row.
    """
    posterior, cells = fit_tree["posterior"].to_dataset(), get_fitted_cells(fit_tree)
    model = expand_dimensions(get_fitted_model(fit_tree), cells)
    segment_count = cells.sizes[SEGMENT]
    effects = posterior["effect"].sel({ARM: arm})
    flat_variance = FLAT_SDS**2 * float((effects**2).mean())
    same, own = np.ones((segment_count, segment_count)), np.eye(segment_count)
    is_known = not (is_from_posterior(fit_tree) and not list_test_names(fit_tree)) and model.amount is None
    resolved_effect = get_resolved_model(fit_tree).effect
    mean_prior = freeze_distribution(resolved_effect.mean) if is_known else None
    mean_variance = (
        flat_variance if mean_prior is None else _limit_variance(float(mean_prior.std()) ** 2, flat_variance)
    )
    centre = 0.0 if mean_prior is None else float(mean_prior.ppf(0.5))
    covariances = np.zeros((len(points), segment_count, segment_count))
    if model.pooling == "none":
        # Without pooling the prior of the mean is that of every segment.
        unpooled = np.full((len(points), segment_count), np.inf if is_known else np.nan)
        return ArmPrior(centre, covariances + mean_variance * own, unpooled)
    covariances += mean_variance * same
    if model.pooling == "complete":
        return ArmPrior(centre, covariances, np.zeros((len(points), segment_count)))
    own_variances = _select_points(compute_between_variance(fit_tree), arm, points, segment_count)
    covariances += own_variances[:, :, None] * own
    if not is_known:
        return ArmPrior(centre, covariances, own_variances)
    design = build_segment_design(model, cells)
    for term in model.effect.by:
        level_index = design.level_index[term]
        is_same_level = (level_index[:, None] == level_index).astype(float)
        variance = posterior[f"{name_term_variable('effect', term)}_between"] ** 2
        covariances += _select_points(variance, arm, points, 1)[:, :, None] * is_same_level
    if resolved_effect.slope is not None:
        slope_variance = _limit_variance(float(freeze_distribution(resolved_effect.slope).std()) ** 2, flat_variance)
        covariances += slope_variance * design.standardised_covariates @ design.standardised_covariates.T
    return ArmPrior(centre, covariances, own_variances)


def _limit_variance(variance: float, largest: float) -> float:
    """Limit a prior's variance, which Student's t may not have, to one that says nothing."""
    return min(variance, largest) if np.isfinite(variance) else largest


def _select_points(variance: xr.DataArray, arm: str, points: NDArray[np.intp], segment_count: int) -> FloatArray:
    """Select a variance's draws at points: (point, segment or 1)."""
    if ARM in variance.dims:
        variance = variance.sel({ARM: arm}, drop=True) if ARM in variance.coords else variance.isel({ARM: 0}, drop=True)
    has_segments = SEGMENT in variance.dims
    values = variance.transpose("chain", "draw", *([SEGMENT] if has_segments else [])).values
    flat_values = values.reshape(values.shape[0] * values.shape[1], -1)[points]
    return np.broadcast_to(flat_values, (len(points), segment_count if has_segments else flat_values.shape[1]))


@dataclass(frozen=True, slots=True)
class SecondPosteriors:
    """Posteriors after second tests: mixtures of normals over the points of the prior.

    Attributes
    ----------
    weights : ndarray
        (test, point), 1 over points.
    means : ndarray
        (point, test, segment).
    sds : ndarray
        (point, segment).
    pooling : ndarray
        Share of each estimate that is borrowed, (test, segment).
    """

    weights: FloatArray
    means: FloatArray
    sds: FloatArray
    pooling: FloatArray


def analyse_second_estimates(
    prior: ArmPrior, first: tuple[FloatArray, FloatArray], second: tuple[FloatArray, FloatArray]
) -> SecondPosteriors:
    """Analyse second tests, each on its own.

    Parameters
    ----------
    prior : ArmPrior
        At points from the first test's posterior.
    first : tuple of ndarray
        The first test's own estimates and their precisions, both (segment,); precision 0 where there is none.
    second : tuple of ndarray
        Second tests' own estimates, (test, segment), and their precisions, (segment,).
    """
    (first_estimates, first_precision), (estimates, precision) = first, second
    log_weights = np.empty((len(estimates), len(prior.covariances)))
    means = np.empty((len(prior.covariances), *estimates.shape))
    sds = np.empty((len(prior.covariances), estimates.shape[1]))
    for point, covariance in enumerate(prior.covariances):
        log_second, gain = _weigh_estimates(covariance, precision, estimates - prior.mean)
        log_first, _ = _weigh_estimates(covariance, first_precision, first_estimates[None] - prior.mean)
        log_weights[:, point] = log_second - log_first
        # θ | y ~ N(m + G (y − m), P − G P)
        means[point] = prior.mean + (estimates - prior.mean) @ gain.T
        sds[point] = np.sqrt(np.maximum(np.diag(covariance - gain @ covariance), 0.0))
    weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    # se² / (se² + τ²) = 1 / (1 + τ² precision), averaged over the second posterior of τ; 1 where nothing was measured
    with np.errstate(invalid="ignore"):
        own_shares = 1 / (1 + np.where(precision > 0, prior.own_variances * precision, 0.0))
    return SecondPosteriors(weights, means, sds, weights @ own_shares)


def _weigh_estimates(
    covariance: FloatArray, precision: FloatArray, residuals: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Compute log N(y; m, P + U) of every row of residuals up to what P does not move, and the gain P (P + U)⁻¹."""
    # With D = U^(−1/2): (P + U)⁻¹ = D (D P D + 1)⁻¹ D, which holds where D is 0, too.
    root = np.sqrt(precision)
    cholesky = np.linalg.cholesky(root[:, None] * covariance * root + np.eye(len(root)))
    inverse = root[:, None] * np.linalg.inv(cholesky @ cholesky.T) * root
    log_density = -0.5 * np.einsum("ts,sr,tr->t", residuals, inverse, residuals) - np.log(np.diag(cholesky)).sum()
    return log_density, covariance @ inverse
