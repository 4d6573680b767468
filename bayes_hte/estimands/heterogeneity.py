"""Measure how much, and in which direction, effects differ between segments, from joint draws."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from bayes_hte.estimands.effects import (
    compute_effects,
    estimate_without_pooling,
    get_fitted_family,
)
from bayes_hte.estimands.pooling_factor import average_pooling
from bayes_hte.estimands.tables import EffectQuestion, compute_harm_probability
from bayes_hte.estimands.weights import (
    SegmentWeights,
    average_over_segments,
    compute_average_weights,
    compute_population_shares,
    describe_population,
)
from bayes_hte.inference.draw_blocks import compute_by_draw
from bayes_hte.model.coefficients import compute_offset_variance
from bayes_hte.model.parameters import Coefficient, expand_dimensions, list_coefficients, name_term_variable
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model

SAMPLE_DIMS = ("chain", "draw")
HARM_PROBABILITY = 0.9
"""P(harm) above which a segment counts as harmed: a strong suspicion, less than an interval's certainty."""


def tabulate_heterogeneity(
    fit_tree: xr.DataTree, question: EffectQuestion, weights: SegmentWeights | None = None
) -> pd.DataFrame:
    """Tabulate how effects differ, one row per arm and quantity; see `Fit.heterogeneity`."""
    effect_draws = compute_effects(fit_tree, question.scale)
    cells = get_fitted_cells(fit_tree)
    segment_shares = compute_population_shares(cells, weights)
    segment_weights = compute_average_weights(fit_tree, question.scale, weights)
    raw_estimates = estimate_without_pooling(fit_tree, question.scale)
    if "covariance" in cells:  # the test on raw estimates takes them to be independent
        raw_estimates = raw_estimates.where(False)
    table_rows: list[dict[str, Any]] = []
    for arm in map(str, effect_draws["arm"].values):
        for coefficient in list_coefficients(expand_dimensions(get_fitted_model(fit_tree), cells)):
            if "arm" in coefficient.dims:
                table_rows += _describe_common_effect(fit_tree, coefficient, arm, question)
        spread_draws = _compute_population_spread(effect_draws.sel(arm=arm), segment_weights)
        table_rows += _describe_population_spread(
            effect_draws.sel(arm=arm), spread_draws, segment_shares, arm, question
        )
        table_rows += _describe_qualitative_interaction(
            effect_draws.sel(arm=arm), raw_estimates.sel(arm=arm), arm, question
        )
    heterogeneity_table = pd.DataFrame(table_rows, columns=["arm", "quantity", "value", "ci_low", "ci_high", "meaning"])
    heterogeneity_table.attrs["population"] = describe_population(cells, weights)
    return heterogeneity_table


def _describe_common_effect(
    fit_tree: xr.DataTree, coefficient: Coefficient, arm: str, question: EffectQuestion
) -> list[dict[str, Any]]:
    """Describe the shared prior of segments on the link scale: centre, between-segment SDs and I², a row each."""
    posterior, coefficient_name = fit_tree["posterior"].to_dataset(), coefficient.name
    part_prefix = coefficient_name.removesuffix("effect")
    effect_phrase_by_prefix = {part.prefix: part.effect_phrase for part in get_fitted_family(fit_tree).listed_parts}
    outcome_phrase = effect_phrase_by_prefix[part_prefix]
    table_rows = []
    if f"{coefficient_name}_mean" in posterior.data_vars:
        centre_draws = _select_arm(posterior[f"{coefficient_name}_mean"], arm)
        meaning = f"the effect{outcome_phrase} that segments shrink to, link scale"
        table_rows.append(_build_interval_row(arm, f"{part_prefix}effect_mean", centre_draws, meaning, question))
    if f"{coefficient_name}_between" not in posterior.data_vars:
        return table_rows
    for quantity_name, quantity_draws, meaning in _collect_spread_draws(posterior, coefficient, arm):
        scale_phrase = "" if quantity_name == "correlation" else ", link scale"
        full_meaning = meaning.replace("effects", f"effects{outcome_phrase}", 1) + scale_phrase
        full_name = f"{part_prefix}{quantity_name}"
        table_rows.append(_build_interval_row(arm, full_name, quantity_draws, full_meaning, question))
    total_sd = None if part_prefix else _compute_total_sd(posterior, coefficient, arm)
    return table_rows if total_sd is None else table_rows + _describe_tau(fit_tree, total_sd, arm, question)


def _select_arm(variable_draws: xr.DataArray, arm: str) -> xr.DataArray:
    """Select the draws of one arm from a variable; those of one that all arms share stay unchanged."""
    return variable_draws.sel(arm=arm) if "arm" in variable_draws.dims else variable_draws


def _collect_spread_draws(
    posterior: xr.Dataset, coefficient: Coefficient, arm: str
) -> list[tuple[str, xr.DataArray, str]]:
    """Collect every between-segment SD, slope and correlation as triples of quantity, draws and meaning."""
    coefficient_name, pool = coefficient.name, coefficient.pool_priors
    between_sd = _select_arm(posterior[f"{coefficient_name}_between"], arm)
    spread_draws = []
    if coefficient.strata is not None:
        for stratum_label in map(str, between_sd[coefficient.strata].values):
            meaning = f"SD of true effects between segments of {stratum_label} (tau)"
            stratum_sd = between_sd.sel({coefficient.strata: stratum_label})
            spread_draws.append((f"between_sd[{stratum_label}]", stratum_sd, meaning))
    else:
        spread_draws.append(("between_sd", between_sd, _explain_between_sd(coefficient)))
    for term in pool.by:
        level_sd = _select_arm(posterior[f"{name_term_variable(coefficient_name, term)}_between"], arm)
        meaning = f"SD of true effects between levels of {term.replace(':', ' × ')}"
        spread_draws.append((f"between_sd[{term}]", level_sd, meaning))
    if f"{coefficient_name}_slope" in posterior.data_vars:
        covariate_slopes = _select_arm(posterior[f"{coefficient_name}_slope"], arm)
        for covariate_name in map(str, covariate_slopes["covariate"].values):
            meaning = f"change in true effects per SD of {covariate_name}"
            spread_draws.append((f"slope[{covariate_name}]", covariate_slopes.sel(covariate=covariate_name), meaning))
    if f"{coefficient_name}_correlation" in posterior.data_vars:
        correlation = _select_arm(posterior[f"{coefficient_name}_correlation"], arm)
        spread_draws.append(("correlation", correlation, "correlation of true effects with the control's mean"))
    return spread_draws


def _explain_between_sd(coefficient: Coefficient) -> str:
    """Explain what the between-segment SD measures under the model's shape and parts, in one phrase."""
    pool = coefficient.pool_priors
    base_meaning = {
        "normal": "SD of true effects between segments (tau)",
        "student_t": "scale of true effects between segments (tau); their tails are heavier than normal",
        "horseshoe": "scale of true effects between segments (tau), before some of them stand out",
    }[coefficient.shape]
    explaining_parts = [
        *(["dimensions"] if pool.by else []),
        *(["covariates"] if getattr(pool, "covariates", ()) else []),
    ]
    return f"{base_meaning}, beyond what {' and '.join(explaining_parts)} explain" if explaining_parts else base_meaning


def _compute_total_sd(posterior: xr.Dataset, coefficient: Coefficient, arm: str) -> xr.DataArray | None:
    """Compute the SD of effects around their common effect, all terms together; None where there is no single one."""
    pool, coefficient_name = coefficient.pool_priors, coefficient.name
    if coefficient.strata is not None or coefficient.shape == "horseshoe":
        return None
    # Var[τ offset] = τ² Var[offset]
    total_variance = _select_arm(posterior[f"{coefficient_name}_between"], arm) ** 2
    if coefficient.effect_priors is not None:
        offset_variance = compute_offset_variance(coefficient.effect_priors)
        if not np.isfinite(offset_variance):
            return None
        total_variance = total_variance * offset_variance
    # τ²_total = τ²_segments + Σ_terms τ²_term: the parts are independent a priori
    for term in pool.by:
        level_sd = _select_arm(posterior[f"{name_term_variable(coefficient_name, term)}_between"], arm)
        total_variance = total_variance + level_sd**2
    total_sd: xr.DataArray = total_variance**0.5
    return total_sd


def _describe_tau(fit_tree: xr.DataTree, tau: xr.DataArray, arm: str, question: EffectQuestion) -> list[dict[str, Any]]:
    """Describe tau by I², and by P(tau matters) where the smallest effect that matters is on the same scale."""
    # I² = τ² / (τ² + s²), s² the sampling variance of a typical segment
    i2_draws = tau**2 / (tau**2 + _compute_typical_variance(fit_tree, arm))
    meaning = "share of the variation of raw estimates that is not chance (I²)"
    table_rows = [_build_interval_row(arm, "i2", i2_draws, meaning, question)]
    is_same_scale = question.scale == "link" or (
        question.scale == "absolute" and get_fitted_family(fit_tree).link == "identity"
    )
    if question.rope is not None and is_same_scale:
        meaning = f"probability that tau exceeds {question.rope:g}, the smallest effect that matters"
        table_rows.append(_build_point_row(arm, "p_tau_matters", tau > question.rope, meaning))
    return table_rows


def _compute_typical_variance(fit_tree: xr.DataTree, arm: str) -> float:
    """Compute the sampling variance of a typical segment.

    References
    ----------
    Higgins & Thompson (2002), Statistics in Medicine 21:1539.
    """
    # w = 1 / se²,  s² = (k − 1) Σ w / ((Σ w)² − Σ w²) of k segments with data
    w = (1 / average_pooling(fit_tree)["sampling_variance"].sel(arm=arm)).values
    w = w[w > 0]
    if len(w) < 2:
        return float(1 / w.sum()) if len(w) else float("inf")
    return float((len(w) - 1) * w.sum() / (w.sum() ** 2 - (w**2).sum()))


def _compute_population_spread(effect_draws: xr.DataArray, segment_weights: xr.DataArray) -> xr.DataArray:
    """Compute the SD of one arm's effects over the population, draw by draw; dims (chain, draw)."""
    # spread² = Σ_s weight_s (effect_s − ATE)²; below 0 only by rounding, or where control means have both signs
    mean_effect = average_over_segments(effect_draws, segment_weights)
    population_variance = compute_by_draw(
        lambda block: ((block["effect"] - block["mean"]) ** 2 * block["weight"]).sum("segment"),
        {"effect": effect_draws, "mean": mean_effect, "weight": segment_weights},
    )
    spread_draws: xr.DataArray = population_variance.clip(min=0) ** 0.5
    return spread_draws


def _describe_population_spread(
    effect_draws: xr.DataArray,
    spread_draws: xr.DataArray,
    segment_shares: xr.DataArray,
    arm: str,
    question: EffectQuestion,
) -> list[dict[str, Any]]:
    """Describe how much, and in which direction, the segments at hand differ on the reported scale."""
    # Harm is what the table calls so: beyond the smallest effect that matters, where one is stated.
    is_harmed = compute_harm_probability(effect_draws, question) > HARM_PROBABILITY
    all_positive, all_negative = (effect_draws > 0).all("segment"), (effect_draws < 0).all("segment")
    share_harmed = segment_shares.where(is_harmed, 0).sum()
    spread_meaning = f"SD of effects over the population, {question.scale} scale"
    harmed_meaning = f"share of units in segments with P(harm) > {100 * HARM_PROBABILITY:g} %"
    table_rows = [
        _build_interval_row(arm, "spread", spread_draws, spread_meaning, question),
        _build_point_row(arm, "p_all_positive", all_positive, "probability that every effect is positive"),
        _build_point_row(arm, "p_all_negative", all_negative, "probability that every effect is negative"),
        _build_point_row(arm, "share_harmed", share_harmed, harmed_meaning),
    ]
    if question.rope is not None:
        meaning = f"probability that the spread exceeds {question.rope:g}, the smallest effect that matters"
        table_rows.append(_build_point_row(arm, "p_spread_matters", spread_draws > question.rope, meaning))
    return table_rows


def _describe_qualitative_interaction(
    effect_draws: xr.DataArray, raw_estimates: xr.Dataset, arm: str, question: EffectQuestion
) -> list[dict[str, Any]]:
    """Describe the evidence that some segments gain while others lose: a qualitative interaction."""
    if effect_draws.sizes["segment"] < 2:
        return []
    smallest_effect = question.rope or 0.0
    has_both_signs = (effect_draws > smallest_effect).any("segment") & (effect_draws < -smallest_effect).any("segment")
    size_phrase = f" by more than {smallest_effect:g}, the smallest effect that matters" if smallest_effect else ""
    meaning = f"probability that some effects are positive and some negative{size_phrase}"
    table_rows = [_build_point_row(arm, "p_qualitative", has_both_signs, meaning)]
    p_value = compute_gail_simon_p(raw_estimates["raw"].values, raw_estimates["raw_se"].values)
    if np.isfinite(p_value):
        meaning = "Gail–Simon test of a qualitative interaction on raw estimates: its p-value, not a probability of one"
        table_rows.append(_build_point_row(arm, "gail_simon_p", xr.DataArray(p_value), meaning))
    return table_rows


def compute_gail_simon_p(raw_estimates: NDArray[np.float64], raw_se: NDArray[np.float64]) -> float:
    """Compute the p-value of the test that all effects have one sign, whatever their sizes; NaN for fewer than two.

    min(Σ z² of the positive, Σ z² of the negative estimates) is largest under that hypothesis, in distribution, where
    one effect is infinite and all others are 0: then the number of estimates against the sign is binomial.

    References
    ----------
    Gail & Simon (1985), Biometrics 41:361.
    """
    is_usable = np.isfinite(raw_estimates) & np.isfinite(raw_se) & (raw_se > 0)
    z = raw_estimates[is_usable] / raw_se[is_usable]
    other_count = len(z) - 1
    if other_count < 1:
        return float("nan")
    q = min((z[z > 0] ** 2).sum(), (z[z < 0] ** 2).sum())
    if q == 0:  # no estimate is against the others
        return 1.0
    # p = Σ_{h=1}^{k−1} C(k − 1, h) 2^−(k − 1) P(χ²_h > q), the binomial weights through logarithms of factorials
    h = np.arange(1, other_count + 1)
    binomial_weights = np.exp(
        special.gammaln(other_count + 1)
        - special.gammaln(h + 1)
        - special.gammaln(other_count - h + 1)
        - other_count * np.log(2)
    )
    return float((binomial_weights * special.chdtrc(h, q)).sum())


def _build_interval_row(
    arm: str, quantity_name: str, quantity_draws: xr.DataArray, meaning: str, question: EffectQuestion
) -> dict[str, Any]:
    """Build the row of a quantity from its draws: mean and interval with equal tails."""
    tail_prob = (1 - question.ci_prob) / 2
    ci_low, ci_high = np.quantile(quantity_draws.values, [tail_prob, 1 - tail_prob])
    return {
        "arm": arm,
        "quantity": quantity_name,
        "value": float(quantity_draws.mean()),
        "ci_low": float(ci_low),
        "ci_high": float(ci_high),
        "meaning": meaning,
    }


def _build_point_row(arm: str, quantity_name: str, quantity_draws: xr.DataArray, meaning: str) -> dict[str, Any]:
    """Build the row of a number without an interval: a probability, a share, a p-value."""
    nan = float("nan")
    mean_value = float(quantity_draws.mean())
    return {
        "arm": arm,
        "quantity": quantity_name,
        "value": mean_value,
        "ci_low": nan,
        "ci_high": nan,
        "meaning": meaning,
    }
