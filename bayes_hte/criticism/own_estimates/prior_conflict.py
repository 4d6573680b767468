"""Find priors that contradict the data, and pull the answer away from them.

    T      = Σ w_s y_s / Σ w_s, w_s = 1 / se_s²: the average of segments' own estimates
    Q      = Σ (y_s − ȳ)² / (se_s² + V_s): their scatter, V_s the largest variance between segments that is believable

The prior predictive distribution of T follows from the prior alone (Box 1980, Journal of the Royal Statistical Society
A 143:383; Evans & Moshonov 2006, Bayesian Analysis 1:893). An unlikely T is no fault where data are strong: the
posterior follows them. It misleads where the fit's own average is more than a standard error of T away from T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.cells.checks.wording import format_p_value, shorten_label
from bayes_hte.criticism.own_estimates.segment_estimates import SegmentEstimates
from bayes_hte.model.coefficients import limit_offset_variance
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.model.priors import draw_prior
from bayes_hte.spec.distributions import Distribution, Normal

CONFLICT_P_VALUE = 0.001
"""Prior predictive tail probability below which prior and data contradict each other: that of a sound fit's alarms."""
MAX_PULL = 1.0
"""Standard errors by which a contradicted prior may move an average: then a 95 % interval still covers 83 %."""
MAX_BASELINE_PULL = 3.0
"""The same of baselines, whose estimates are biased by less than this where events are rare."""
MAX_UNITS_RATIO = 3.0
"""Standard error of the average in prior SDs above which the data hold less than a tenth of the information."""
PRIOR_DRAW_COUNT = 10_000
"""Draws from the priors: ten of them lie beyond the probability that counts."""


@dataclass(frozen=True, slots=True)
class PriorConflicts:
    """Sentences on priors that contradict the data: those that mislead, and those that the data outweigh."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Average:
    """The average of segments' estimates beside what the prior expects of it and what the fit makes of it."""

    value: float
    se: float
    prior_low: float
    prior_high: float
    prior_sd: float
    prior_p: float
    p: float
    fitted: float

    @property
    def pull(self) -> float:
        """Standard errors by which the fit's average is away from the data's."""
        return abs(self.fitted - self.value) / self.se


def find_prior_conflicts(
    segment_estimates: Sequence[SegmentEstimates], posterior: xr.Dataset | None = None
) -> PriorConflicts:
    """Find contradictions between prior and data in the effects of every arm and in the baselines.

    Parameters
    ----------
    segment_estimates : sequence of SegmentEstimates
        Of the fit's problem.
    posterior : xarray.Dataset, optional
        Of a fit; without it the pull of the prior is that of a normal prior on a normal average.

    Notes
    -----
    A fit whose priors are right has a problem with probability .001 for the average and .001 for the scatter, over
    all arms together; less, as the posterior has to be pulled away, too. Not so where the data hold less than a tenth
    of the information (`MAX_UNITS_RATIO`): there every estimate that is many prior SDs away is questioned.
    """
    problems: list[str] = []
    notes: list[str] = []
    test_count = sum(estimates.arm_index is not None for estimates in segment_estimates)
    for estimates in segment_estimates:
        alarm_p = CONFLICT_P_VALUE / max(test_count, 1)
        average = _compare_average(estimates, posterior)
        if average is None:
            continue
        if estimates.arm_index is None:
            if average.p < alarm_p and average.pull > MAX_BASELINE_PULL:
                problems.append(_describe_average(estimates, average))
            continue
        is_mistaken = average.se > MAX_UNITS_RATIO * average.prior_sd and average.prior_p < alarm_p
        if (average.p < alarm_p or is_mistaken) and average.pull > MAX_PULL:
            problems.append(_describe_average(estimates, average))
        elif average.p < alarm_p:
            notes.append(_describe_outweighed(estimates, average))
        elif average.se > MAX_UNITS_RATIO * average.prior_sd:
            notes.append(_describe_weak_data(estimates, average))
        elif scatter := _describe_scatter(estimates, posterior, alarm_p):
            problems.append(scatter)
    return PriorConflicts(tuple(problems), tuple(notes))


def _compare_average(estimates: SegmentEstimates, posterior: xr.Dataset | None) -> _Average | None:
    """Compare the average of the estimates with its prior predictive distribution; None where it has no prior."""
    if estimates.coefficient.pool_priors.mean is None:
        return None
    w = estimates.standard_errors**-2.0
    w = w / w.sum()
    value = float(w @ estimates.estimates)
    noise_variance = (
        float(w**2 @ estimates.standard_errors**2)
        if estimates.covariance is None
        else float(w @ estimates.covariance @ w)
    )
    centre, variance = _draw_average_prior(estimates, w)
    standard_normal = np.random.default_rng(2).standard_normal(PRIOR_DRAW_COUNT)
    true_averages = centre + np.sqrt(variance) * standard_normal
    predicted = centre + np.sqrt(variance + noise_variance) * standard_normal
    low, high = np.quantile(predicted, [0.025, 0.975])
    # SD by quantiles: that of heavy tails may be infinite
    prior_sd = float(np.subtract(*np.quantile(true_averages, [0.84, 0.16])) / 2)
    if posterior is None:
        weight = prior_sd**2 / (prior_sd**2 + noise_variance)
        fitted = float(np.median(centre)) * (1 - weight) + value * weight
    else:
        fitted = float(w @ estimates.average_segments(posterior))
    return _Average(
        value,
        float(np.sqrt(noise_variance)),
        float(low),
        float(high),
        prior_sd,
        _measure_tail(value, centre, variance),
        _measure_tail(value, centre, variance + noise_variance),
        fitted,
    )


def _measure_tail(value: float, centre: FloatArray, variance: FloatArray) -> float:
    """Measure the two-sided tail probability of a value under a mixture of normals with these centres and variances."""
    z = (value - centre) / np.sqrt(np.maximum(variance, 1e-300))
    return min(1.0, 2 * min(float(special.ndtr(z).mean()), float(special.ndtr(-z).mean())))


def _draw_average_prior(estimates: SegmentEstimates, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Draw what the prior says of the average: normal centres and variances given them, (draw,) each."""
    coefficient, rng = estimates.coefficient, np.random.default_rng(1)
    pool_priors, shape = coefficient.pool_priors, (PRIOR_DRAW_COUNT,)
    # Weights of independent segments: Var Σ w_s x_s = Σ w_s² Var x
    own_share = float(w @ w)
    centre, mean_variance = _split_mean_prior(pool_priors.mean, shape, rng)
    if coefficient.pooling == "none":  # every segment has the prior of the mean as its own
        spread = np.subtract(*np.quantile(centre, [0.84, 0.16])) / 2 if mean_variance == 0 else np.sqrt(mean_variance)
        return np.full(shape, float(np.median(centre))), np.full(shape, own_share * spread**2)
    variance = np.full(shape, mean_variance)
    if coefficient.pooling == "complete" or pool_priors.between is None:
        return centre, variance
    variance += own_share * _draw_own_variance(estimates, rng)
    for term in pool_priors.by:
        level_index = estimates.problem.segment_design.level_index[term][estimates.segment_index]
        level_shares = np.bincount(level_index, weights=w)
        variance += (
            float(level_shares @ level_shares)
            * draw_prior(pool_priors.get_level_prior(term) or pool_priors.between, shape, rng) ** 2
        )
    effect_priors = coefficient.effect_priors
    if effect_priors is not None and effect_priors.slope is not None:
        covariates = estimates.problem.segment_design.standardised_covariates[estimates.segment_index]
        for mean_covariate in w @ covariates:
            centre = centre + mean_covariate * draw_prior(effect_priors.slope, shape, rng)
    return centre, variance


def _split_mean_prior(
    mean_prior: Distribution | None, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Split the prior of a mean into draws of its centre and a normal variance: a normal prior is all variance."""
    # With the variance in closed form tails keep their digits, however far out the data are.
    if isinstance(mean_prior, Normal):
        return np.full(shape, mean_prior.mu), mean_prior.sigma**2
    if mean_prior is None:
        raise AssertionError("an average without a prior has no prior predictive distribution")
    return draw_prior(mean_prior, shape, rng), 0.0


def _draw_own_variance(estimates: SegmentEstimates, rng: np.random.Generator) -> FloatArray:
    """Draw the variance of a segment around its centre from the prior, (draw,)."""
    coefficient = estimates.coefficient
    if coefficient.pool_priors.between is None:
        raise AssertionError("partial pooling without a prior for the between-segment SD passed validation")
    between_variance = draw_prior(coefficient.pool_priors.between, (PRIOR_DRAW_COUNT,), rng) ** 2
    effect_priors = coefficient.effect_priors
    if effect_priors is None or effect_priors.shape == "normal":
        return between_variance
    if effect_priors.slab is not None:  # of a horseshoe: no segment's scale is above it
        return np.full(PRIOR_DRAW_COUNT, effect_priors.slab**2)
    return between_variance * limit_offset_variance(effect_priors)


def _describe_scatter(estimates: SegmentEstimates, posterior: xr.Dataset | None, alarm_p: float) -> str:
    """Describe estimates that scatter more than the largest between-segment SD that the prior believes; "" if not."""
    coefficient, count = estimates.coefficient, estimates.count
    # Under heavy tails single segments may lie anywhere, and what Q compares with has no name.
    if count < 2 or coefficient.pooling == "complete" or coefficient.shape != "normal":
        return ""
    if estimates.covariance is not None:
        return ""
    largest_variance = _bound_variance(estimates, alarm_p)
    y, se = estimates.estimates, estimates.standard_errors
    w = 1 / (se**2 + largest_variance)
    # Q(V) ~ χ² with S − 1 degrees of freedom where V is the variance, and less where it is smaller.
    q = float(w @ (y - w @ y / w.sum()) ** 2)
    if special.chdtrc(count - 1, q) >= alarm_p / 2:
        return ""
    average = float(w @ y / w.sum())
    fitted = (
        average + (y - average) * largest_variance / (largest_variance + se**2)
        if posterior is None
        else estimates.average_segments(posterior)
    )
    pull = float(np.sqrt(np.mean(((fitted - y) / se) ** 2)))
    if not pull > MAX_PULL:
        return ""
    return (
        f"The prior and the data contradict each other: the estimates of {_name_coefficient(estimates)} scatter "
        f"between segments with an SD of {np.std(y, ddof=1):.3g}, where the prior of that SD hardly goes beyond "
        f"{float(np.sqrt(largest_variance.max())):.3g}, so that the fit moves segments by {pull:.2g} of their standard "
        f"errors (root mean square); {_write_way_out(estimates)}."
    )


def _bound_variance(estimates: SegmentEstimates, alarm_p: float) -> FloatArray:
    """Compute the largest variance of each segment that the prior believes, at 1 − alarm_p / 2; (segment,)."""
    coefficient, rng, shape = estimates.coefficient, np.random.default_rng(3), (PRIOR_DRAW_COUNT,)
    pool_priors, upper = coefficient.pool_priors, 1 - alarm_p / 2
    if coefficient.pooling == "none" or pool_priors.between is None:
        centre, mean_variance = _split_mean_prior(pool_priors.mean, shape, rng)
        return np.full(estimates.count, float(np.var(centre)) + mean_variance)
    variance = np.full(estimates.count, float(np.quantile(draw_prior(pool_priors.between, shape, rng), upper)) ** 2)
    for term in pool_priors.by:
        level_prior = pool_priors.get_level_prior(term) or pool_priors.between
        variance += float(np.quantile(draw_prior(level_prior, shape, rng), upper)) ** 2
    effect_priors = coefficient.effect_priors
    if effect_priors is not None and effect_priors.slope is not None:
        slope = float(np.quantile(np.abs(draw_prior(effect_priors.slope, shape, rng)), upper))
        covariates = estimates.problem.segment_design.standardised_covariates[estimates.segment_index]
        variance = variance + slope**2 * (covariates**2).sum(1)
    return variance


def _describe_average(estimates: SegmentEstimates, average: _Average) -> str:
    """Describe an average that the prior pulls away from the data."""
    return (
        f"The prior and the data contradict each other: the data put the average of {_name_coefficient(estimates)} at "
        f"{average.value:.3g} ± {average.se:.2g} (standard error), where the prior expects {average.prior_low:.2g} to "
        f"{average.prior_high:.2g} with 95 % probability ({_write_tail(average)}), and the fit says "
        f"{average.fitted:.3g}, {average.pull:.2g} standard errors from the data; {_write_way_out(estimates)}."
    )


def _write_tail(average: _Average) -> str:
    """Write the tail probability, or how many prior SDs away the data are where those of noise are larger."""
    if average.p < CONFLICT_P_VALUE:
        return f"prior predictive tail probability: {format_p_value(average.p)}"
    distance = abs(average.value - (average.prior_low + average.prior_high) / 2) / average.prior_sd
    se_ratio = average.se / average.prior_sd
    return f"the average is {distance:.2g} prior SDs away, its standard error as large as {se_ratio:.2g}"


def _describe_outweighed(estimates: SegmentEstimates, average: _Average) -> str:
    """Describe an average that the prior did not expect, where the data are strong enough to be followed."""
    return (
        f"The data put the average of {_name_coefficient(estimates)} at {average.value:.3g}, outside of what the prior "
        f"expects ({average.prior_low:.2g} to {average.prior_high:.2g} with 95 % probability); they outweigh it, so "
        "the fit follows the data, but the prior is worth a second look."
    )


def _describe_weak_data(estimates: SegmentEstimates, average: _Average) -> str:
    """Describe data that hold less than a tenth of the information that the prior holds."""
    return (
        f"Nearly all that is said of {_name_coefficient(estimates)} comes from the prior: the standard error of their "
        f"average, {average.se:.2g}, is {average.se / average.prior_sd:.2g} times the SD that the prior allows it; "
        f"{_write_way_out(estimates)}."
    )


def _name_coefficient(estimates: SegmentEstimates) -> str:
    """Name a coefficient and the scale of its numbers."""
    family, part_phrase = estimates.problem.family, f" of the {estimates.part_title}" if estimates.part_title else ""
    scale_name = {"identity": "", "log": " (logarithms)", "logit": " (log-odds)"}[family.link]
    if estimates.arm_index is None:
        return f"the control's means{part_phrase}{scale_name}"
    return f"the effects{part_phrase} of {shorten_label(estimates.arm)}{scale_name}"


def _write_way_out(estimates: SegmentEstimates) -> str:
    """Write what to do about it: units first, as they are the likeliest cause."""
    units_clause = (
        "check that data and prior are in the same units (dollars, per cent or points against standardised differences "
        "or log ratios)"
        if estimates.problem.family.link == "identity"
        else "check that the columns are what they are taken for (events, units, exposure and its unit)"
    )
    return f"{units_clause}, or state priors that fit in a copy of the model file"
