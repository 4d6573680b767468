"""Two parts: an outcome that is mostly 0 and skewed where it is not: revenue, donations, costs.

positive[s, a] ~ Binomial(n[s, a], p[s, a]);   logit p = chance_baseline[s] + chance_effect[s, a]
log y[i]       ~ Normal(amount_baseline[s] + amount_effect[s, a], sigma[a])     for units with y[i] > 0

Everything is reported of the mean outcome, p exp(amount + sigma² / 2): `effect` is the log of the ratio of means and
`baseline` the log of the control's mean, made of both parts draw by draw.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.model.families import binomial, normal
from bayes_hte.model.families.family import (
    Family,
    NuisanceParameter,
    OutcomePart,
    compare_on_log_scale,
    compare_with_control,
    compute_exponential_mean,
    convert_mean_by_log,
    refuse_control_sd,
    require_statistics,
)
from bayes_hte.model.families.lognormal_amounts import MATERIAL_RATIO, PositiveOutcomes, is_shape_wrong
from bayes_hte.model.long_form import ParameterDraws, compute_linear_predictor, select_variant_values
from bayes_hte.model.priors import ValueHolder, compute_upper_bound
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Effect, Model

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

CHANCE_PREFIX, AMOUNT_PREFIX = "chance_", "amount_"
"""Prefixes of the coefficients of both parts."""


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select units, units with a positive outcome, moments of its logarithm, and those of all for raw estimates."""
    statistic_names = ["n", "positive", "log_mean", "log_ss", "mean", "ss"]
    cell_statistics = require_statistics(
        cells, statistic_names, family="two_part", why='make the cells with metric="two_part"'
    )
    if int(cell_statistics["positive"].sum()) == 0:
        raise DataError("no positive outcome in any cell: there is nothing to compare")
    if float(cell_statistics["log_ss"].sum()) <= 0:
        raise DataError("positive outcomes do not vary within any cell: use family binomial for whether there was one")
    return cell_statistics


def select_chance_counts(cell_statistics: xr.Dataset) -> xr.Dataset:
    """Select the first part as statistics of the binomial family."""
    return cell_statistics[["n"]].assign(events=cell_statistics["positive"]).assign_attrs(cell_statistics.attrs)


def select_amount_moments(cell_statistics: xr.Dataset) -> xr.Dataset:
    """Select the second part as statistics of the normal family."""
    moment_names = {"positive": "n", "log_mean": "mean", "log_ss": "ss"}
    return cell_statistics[list(moment_names)].rename(moment_names).assign_attrs(cell_statistics.attrs)


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "dict[str, TensorVariable]",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed counts and moments: binomial × normal of the logarithm, by its sufficient statistics."""
    import pymc as pm

    sigma, arm_index = nuisance_variables["sigma"], long_cells["arm_index"].values
    # A cell without positive outcomes has no mean of their logarithms.
    positive_cells = np.flatnonzero(long_cells["positive"].values > 0)
    n = hold_value("n", long_cells["n"].values)
    positive_counts = hold_value("positive", long_cells["positive"].values)
    log_mean = hold_value("log_mean", long_cells["log_mean"].values[positive_cells])
    root_positive = hold_value("root_positive", np.sqrt(long_cells["positive"].values[positive_cells]))
    arm_squares, arm_freedom = normal.sum_squares_within_arms(
        select_amount_moments(long_cells).assign(arm_index=long_cells["arm_index"])
    )
    # SS ~ Gamma(N / 2, rate 1 / (2 sigma²)), as in the normal family
    observed_arms = np.flatnonzero((arm_freedom > 0) & (arm_squares > 0))
    log_ss = hold_value("log_ss", arm_squares[observed_arms])
    half_freedom = hold_value("half_freedom", arm_freedom[observed_arms] / 2)

    pm.Binomial("positive", n=n, logit_p=eta[CHANCE_PREFIX], observed=positive_counts, dims="cell")
    pm.Normal(
        "log_mean",
        eta[AMOUNT_PREFIX][positive_cells],
        sigma[arm_index[positive_cells]] / root_positive,
        observed=log_mean,
    )
    pm.Gamma("log_ss", alpha=half_freedom, beta=0.5 / sigma[observed_arms] ** 2, observed=log_ss)


def split_parts(model: Model, cell_statistics: xr.Dataset) -> tuple[tuple[Model, xr.Dataset], ...]:
    """Split into models with statistics: the chance, of the binomial family, and the amount, of the normal one."""
    if model.amount is None:
        raise AssertionError(f'family "{model.family}" has one part')
    chance_model = Model(
        family=binomial.FAMILY.name, pooling=model.pooling, effect=model.effect, baseline=model.baseline
    )
    amount_model = Model(
        family=normal.FAMILY.name,
        pooling=model.pooling,
        effect=Effect(mean=model.amount.effect.mean, between=model.amount.effect.between),
        baseline=model.amount.baseline,
        nuisance=model.nuisance,
    )
    return (
        (chance_model, select_chance_counts(cell_statistics)),
        (amount_model, select_amount_moments(cell_statistics)),
    )


def combine_parts(parameter_draws: ParameterDraws) -> dict[str, xr.DataArray]:
    """Combine the draws of both parts to effect and baseline of the log of the mean outcome."""
    half_variance = 0.5 * parameter_draws["sigma"] ** 2
    baseline = _combine_log_mean(
        parameter_draws[f"{CHANCE_PREFIX}baseline"],
        parameter_draws[f"{AMOUNT_PREFIX}baseline"],
        half_variance.isel(variant=0, drop=True),
    )
    treated_log_mean = _combine_log_mean(
        parameter_draws[f"{CHANCE_PREFIX}baseline"] + parameter_draws[f"{CHANCE_PREFIX}effect"],
        parameter_draws[f"{AMOUNT_PREFIX}baseline"] + parameter_draws[f"{AMOUNT_PREFIX}effect"],
        half_variance.isel(variant=slice(1, None)).rename(variant="arm"),
    )
    # effect = log(treated mean / control mean)
    effect = (treated_log_mean - baseline).transpose(*parameter_draws[f"{CHANCE_PREFIX}effect"].dims)
    return {"effect": effect, "baseline": baseline.transpose(*parameter_draws[f"{CHANCE_PREFIX}baseline"].dims)}


def _combine_log_mean(log_odds: xr.DataArray, log_amount: xr.DataArray, half_variance: xr.DataArray) -> xr.DataArray:
    # log mean = log p + amount + sigma² / 2
    log_chance = log_odds.copy(data=special.log_expit(log_odds.values))
    return log_chance + log_amount + half_variance


def _predict_both_parts(long_cells: xr.Dataset, parameter_draws: ParameterDraws) -> tuple[xr.DataArray, xr.DataArray]:
    part_predictors = (
        compute_linear_predictor(
            long_cells,
            {"effect": parameter_draws[f"{part_prefix}effect"], "baseline": parameter_draws[f"{part_prefix}baseline"]},
        )
        for part_prefix in (CHANCE_PREFIX, AMOUNT_PREFIX)
    )
    chance_eta, amount_eta = part_predictors
    return chance_eta, amount_eta


def compute_log_likelihood(long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute the log density of each cell's units, both parts together."""
    chance_eta, amount_eta = _predict_both_parts(long_cells, parameter_draws)
    chance_density = binomial.CELL_LIKELIHOOD.compute_log_likelihood(
        select_chance_counts(long_cells), chance_eta, parameter_draws
    )
    # Units are known one by one here, not only how many of them were positive: without log C(n, positive).
    log_choose = special.gammaln(long_cells["n"] + 1) - special.gammaln(long_cells["positive"] + 1)
    log_choose = log_choose - special.gammaln(long_cells["n"] - long_cells["positive"] + 1)
    amount_moments = select_amount_moments(long_cells).assign(
        arm_index=long_cells["arm_index"], mean=select_amount_moments(long_cells)["mean"].fillna(0.0)
    )
    amount_density = normal.compute_log_likelihood(amount_moments, amount_eta, parameter_draws)
    return (chance_density - log_choose + amount_density).transpose(*eta.dims)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate numbers of positive outcomes, and means of their logarithm where there were any."""
    chance_eta, amount_eta = _predict_both_parts(long_cells, parameter_draws)
    simulated_positive = rng.binomial(long_cells["n"].values, special.expit(chance_eta.values))
    sigma = select_variant_values(long_cells, parameter_draws["sigma"]).transpose(*amount_eta.dims).values
    se = sigma / np.sqrt(np.maximum(long_cells["positive"].values, 1))
    return {
        "positive": chance_eta.copy(data=simulated_positive),
        "log_mean": amount_eta.copy(data=rng.normal(amount_eta.values, se)),
    }


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate differences or ratios of plain means with Welch's standard error, whatever the distribution."""
    n = cell_statistics["n"]
    mean_variance = cell_statistics["ss"] / (n - 1).where(n > 1) / n
    if scale == "link":
        return compare_on_log_scale(cell_statistics["mean"], mean_variance)
    return compare_with_control(cell_statistics["mean"], mean_variance, scale)


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute the variance of a log ratio of means by the delta method, from n and expected positive outcomes.

    The log of the mean moves by 1 − p per log-odds, and by 1 per unit of the log amount.
    """
    log_odds = parameter_draws[f"{CHANCE_PREFIX}baseline"]
    control_variance = _compute_arm_variance(
        cell_statistics["n"].isel(arm=0, drop=True), log_odds, parameter_draws["sigma"].isel(variant=0, drop=True)
    )
    sigma = parameter_draws["sigma"].isel(variant=slice(1, None)).rename(variant="arm")
    return control_variance + _compute_arm_variance(
        cell_statistics["n"].isel(arm=slice(1, None)), log_odds + parameter_draws[f"{CHANCE_PREFIX}effect"], sigma
    )


def _compute_arm_variance(n: xr.DataArray, log_odds: xr.DataArray, sigma: xr.DataArray) -> xr.DataArray:
    positive_chance = binomial.invert_logit(log_odds)
    # Var log mean ≈ (1 − p)² / (n p (1 − p)) + sigma² / (n p)
    with np.errstate(divide="ignore"):
        return (1 - positive_chance) / (n * positive_chance) + sigma**2 / (n * positive_chance)


def list_misfits(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> list[str]:
    """List arms with too few positive outcomes for a mean, and arms whose amounts are not log-normal."""
    fitted_means = _average_over_units(cell_statistics, parameter_draws)
    sentences = []
    for arm_index, arm in enumerate(map(str, cell_statistics["arm"].values)):
        arm_cells = cell_statistics.isel(arm=arm_index)
        outcomes = _collect_positive_outcomes(arm_cells)
        if outcomes.freedom < outcomes.needed_freedom:
            sentences.append(_describe_few_outcomes(arm, outcomes))
            continue
        plain_mean = float(outcomes.totals.sum() / arm_cells["n"].sum())
        fitted_mean = float(fitted_means[arm_index])
        is_material = abs(np.log(fitted_mean / plain_mean)) > np.log(MATERIAL_RATIO)
        if is_material and is_shape_wrong(outcomes):
            sentences.append(
                f"The positive outcomes of {arm} are not log-normal, as the two-part model takes them to be: its mean "
                f"of all units is {fitted_mean:.4g}, the plain mean {plain_mean:.4g}. Do not use it for these data: "
                "fit the same cells with the model metric, which assumes no shape of the outcome."
            )
    return sentences


def _collect_positive_outcomes(arm_cells: xr.Dataset) -> PositiveOutcomes:
    some_positive = arm_cells["positive"].values > 0
    n, mean = arm_cells["n"].values[some_positive], arm_cells["mean"].values[some_positive]
    return PositiveOutcomes(
        arm_cells["positive"].values[some_positive].astype(float),
        arm_cells["log_mean"].values[some_positive],
        # Other outcomes are 0: sums over all units are those of the positive ones.   Σ y = n m,   Σ y² = ss + n m²
        n * mean,
        arm_cells["ss"].values[some_positive] + n * mean**2,
        float(arm_cells["log_ss"].values[some_positive].sum()),
    )


def _average_over_units(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> np.ndarray:
    """Average the posterior mean of the cells' mean outcome over the units of each arm, (arm,)."""
    baseline, effect = parameter_draws["baseline"], parameter_draws["effect"]
    control_mean = np.exp(baseline.transpose("chain", "draw", "segment").values).mean((0, 1))
    treated_predictor = (baseline + effect).transpose("chain", "draw", "segment", "arm").values
    cell_means = np.concatenate([control_mean[:, None], np.exp(treated_predictor).mean((0, 1))], axis=1)
    # mean of an arm = Σ_s n[s, a] m[s, a] / Σ_s n[s, a]
    n = cell_statistics["n"].transpose("segment", "arm").values.astype(float)
    return np.asarray((n * cell_means).sum(0) / np.maximum(n.sum(0), 1.0))


def _describe_few_outcomes(arm: str, outcomes: PositiveOutcomes) -> str:
    spread_phrase = f" (SD of their logarithm {outcomes.log_sd:.2g})" if outcomes.freedom > 0 else ""
    return (
        f"{arm} has {outcomes.counts.sum():.0f} units with a positive outcome, {outcomes.freedom:.0f} beyond the first "
        f"of each segment; the mean of such outcomes{spread_phrase} needs {outcomes.needed_freedom}: large ones that "
        "nobody has seen yet would decide it. Collect more, use fewer segments, or ask only whether there was an "
        "outcome (model conversion)."
    )


def compute_between_variance(posterior: xr.Dataset) -> xr.DataArray:
    """Compute the variance of log ratios of means between segments, to first order."""
    # (1 − p)² tau² of chances + tau² of amounts
    control_chance = binomial.invert_logit(posterior[f"{CHANCE_PREFIX}baseline"])
    chance_variance: xr.DataArray = (1 - control_chance) ** 2 * posterior[f"{CHANCE_PREFIX}effect_between"] ** 2
    return chance_variance + posterior[f"{AMOUNT_PREFIX}effect_between"] ** 2


def describe_nuisance_prior(prior: Distribution, phrase_amount: Callable[[float], str]) -> str:
    """Describe how large the SD of the logarithm may be."""
    return f"SD of the log of positive outcomes: 9 times in 10 below {compute_upper_bound(prior):.3g}."


FAMILY = Family(
    name="two_part",
    link="log",
    ratio_name="ratio of means",
    mean_is_probability=False,
    formula_lines=(
        "positive[s, a] ~ Binomial(n[s, a], p[s, a])",
        "logit p[s, a] = chance_baseline[s] + chance_effect[s, a]",
        "log y[i] ~ Normal(amount_baseline[s] + amount_effect[s, a], sigma[a])   for units with y[i] > 0",
        "baseline, effect: of the log of the mean, p exp(amount + sigma² / 2)",
    ),
    outcome_sentence="Most outcomes are 0 and the others log-normal; effects are logs of ratios of means, made of an "
    "effect on the chance of a positive outcome and one on its size.",
    baseline_noun="chance of a positive outcome",
    pymc_lines=(
        '    pm.Binomial("positive", n=n, logit_p=chance_eta, observed=positive, dims="cell")',
        "    some = np.flatnonzero(positive > 0)",
        "    se = sigma[arm_index[some]] / np.sqrt(positive[some])",
        '    pm.Normal("log_mean", amount_eta[some], se, observed=log_mean[some])',
        "    # sums of squares and degrees of freedom within cells, added up for each arm",
        '    pm.Gamma("log_ss", alpha=freedom / 2, beta=0.5 / sigma**2, observed=log_ss)',
    ),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=None,
    compute_log_likelihood=compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("positive", "log_mean"),
    simulated_totals={"positive": "units with a positive outcome"},
    compute_mean=compute_exponential_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=refuse_control_sd,
    compute_control_mean=None,
    convert_mean_to_link=convert_mean_by_log,
    nuisance=NuisanceParameter(
        name="sigma", dims=("variant",), index_letter="a", describe_prior=describe_nuisance_prior
    ),
    parts=(
        OutcomePart(
            prefix=CHANCE_PREFIX,
            title="chance of a positive outcome",
            link_scale_name="log-odds",
            prior_phrase=" of the chance of a positive outcome",
            effect_phrase=" on the chance of a positive outcome",
            link="logit",
            ratio_name="odds ratio",
        ),
        OutcomePart(
            prefix=AMOUNT_PREFIX,
            title="amount",
            link_scale_name="the log of positive outcomes",
            prior_phrase=" of the size of positive outcomes",
            effect_phrase=" on the log of positive outcomes",
            link="log",
            ratio_name="ratio",
        ),
    ),
    split_parts=split_parts,
    combine_parts=combine_parts,
    compute_between_variance=compute_between_variance,
    list_misfits=list_misfits,
)
