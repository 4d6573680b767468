"""Ordinal: answers on a scale of a few ordered levels: satisfaction from 1 to 5, severity of a disease.

P(y[i] ≤ level k) = logistic(cutpoints[k] − baseline[s] − effect[s, a])

The effect is a log odds ratio, the same at every cutpoint (proportional odds: McCullagh 1980, JRSS B 42:109). The
mean outcome is that of the levels' numbers; the cutpoints play the role of a mean of the baselines, which is 0.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    NuisanceParameter,
    compare_with_control,
    convert_mean_by_logit,
    refuse_control_sd,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws, move_dim_first
from bayes_hte.model.priors import ValueHolder, compute_central_interval
from bayes_hte.spec.cell_table import ARM, SEGMENT, VALUE, EffectScale, list_answers
from bayes_hte.spec.distributions import Distribution

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

MAX_LEVELS = 12
"""More levels than this are counts or measurements, and have families of their own."""
MIN_CUTPOINT_GAP = 1e-30
"""Least distance of neighbouring cutpoints, so that the logarithm of a level's probability stays finite."""


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select the number of units at each level."""
    cell_statistics = require_statistics(
        cells, ["n", "histogram"], family="ordinal", why='make the cells with metric="histogram"'
    )
    # A level without units has probability 0 at the maximum of the likelihood, whatever the effect: it has no cutpoint.
    is_chosen = _find_chosen_levels(cell_statistics)
    if int(is_chosen.sum()) < 2:
        raise DataError("every unit gave the same answer: there is nothing to compare")
    cell_statistics = cell_statistics.isel({VALUE: is_chosen})
    level_count = cell_statistics.sizes[VALUE]
    if level_count > MAX_LEVELS:
        raise DataError(
            f"the outcome has {level_count} levels, ordinal takes {MAX_LEVELS}; use normal or negative_binomial"
        )
    return cell_statistics


def _find_chosen_levels(cells: xr.Dataset) -> NDArray[np.bool_]:
    return np.asarray((cells["histogram"].sum((SEGMENT, ARM)) > 0).values)


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed histograms: multinomial with cumulative log-odds."""
    import pymc as pm
    import pytensor.tensor as pt

    unit_counts = hold_value("units", long_cells["histogram"].transpose("cell", VALUE).values)
    n = hold_value("n", long_cells["n"].values)

    # P(level k) = P(y ≤ k) − P(y ≤ k − 1), with 0 and 1 at the ends
    cumulative_probabilities = pm.math.sigmoid(nuisance_variables["cutpoints"][None, :] - eta[:, None])
    boundary_column = pt.zeros((eta.shape[0], 1))
    upper_probabilities = pt.concatenate([cumulative_probabilities, boundary_column + 1], axis=1)
    level_probabilities = upper_probabilities - pt.concatenate([boundary_column, cumulative_probabilities], axis=1)
    pm.Multinomial("histogram", n=n, p=level_probabilities, observed=unit_counts)


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack the units at each level, (level, …), and the log of the multinomial coefficient."""
    cell_dims = [dim for dim in cell_statistics["histogram"].dims if dim != VALUE]
    unit_counts = cell_statistics["histogram"].transpose(VALUE, *cell_dims).values.astype(float)
    # log n! / Π_k units_k!
    log_coefficient = special.gammaln(unit_counts.sum(0) + 1) - special.gammaln(unit_counts + 1).sum(0)
    return {"units": unit_counts, "constant": log_coefficient}


def _compute_log_level_probability(eta: FloatArray, cutpoints: FloatArray, level: int) -> FloatArray:
    """Compute the log probability of a level without loss of digits in the tails."""
    # P(level) = F(u) − F(l) = F(u) F(−l) (1 − e^(l − u)),   F logistic, u and l the cutpoints around the level less eta
    log_probability = np.zeros(1, dtype=eta.dtype)
    if level < len(cutpoints):
        log_probability = log_probability - np.logaddexp(0.0, eta - cutpoints[level])
    if level:
        log_probability = log_probability - np.logaddexp(0.0, cutpoints[level - 1] - eta)
    if 0 < level < len(cutpoints):
        cutpoint_gap = np.maximum(cutpoints[level] - cutpoints[level - 1], MIN_CUTPOINT_GAP)
        log_probability = log_probability + np.log(-np.expm1(-cutpoint_gap))
    return log_probability


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute the multinomial log density of each cell's units."""
    cutpoints = _require_cutpoints(nuisance_values)
    result_shape = np.broadcast_shapes(eta.shape, cutpoints.shape[1:], arm_data["constant"].shape)
    log_density = np.zeros(result_shape) + arm_data["constant"]
    for level in range(len(cutpoints) + 1):
        log_density += arm_data["units"][level] * _compute_log_level_probability(eta, cutpoints, level)
    return log_density


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute the slope, and minus the second derivative, which is a sum of variances and never negative."""
    cutpoints = _require_cutpoints(nuisance_values)
    result_shape = np.broadcast_shapes(eta.shape, cutpoints.shape[1:], arm_data["constant"].shape)
    slope, curvature = np.zeros(result_shape), np.zeros(result_shape)
    for level in range(len(cutpoints) + 1):
        # Of F(u) − F(l), F logistic: the logarithm's slope is P(below the level) less P(above it).
        probability_above = special.expit(eta - cutpoints[level]) if level < len(cutpoints) else np.zeros(1)
        probability_below = special.expit(cutpoints[level - 1] - eta) if level else np.zeros(1)
        slope += arm_data["units"][level] * (probability_below - probability_above)
        curvature += arm_data["units"][level] * (
            probability_below * (1 - probability_below) + probability_above * (1 - probability_above)
        )
    return slope, curvature


def _require_cutpoints(nuisance_values: FloatArray | None) -> FloatArray:
    if nuisance_values is None:
        raise AssertionError("the ordinal family was asked for a density without cutpoints")
    return nuisance_values


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess from how far the cell's mean rank is above the middle of all cells, as log-odds."""
    unit_counts = arm_data["units"]
    level_shares = (unit_counts.sum(1) + 0.5) / (unit_counts.sum() + 0.5 * len(unit_counts))
    # Rank of a level among all units, from 0 to 1: the share below it and half of its own.
    mid_ranks = np.cumsum(level_shares) - 0.5 * level_shares
    mean_rank = (mid_ranks @ unit_counts + 1.0 * (mid_ranks @ level_shares)) / (unit_counts.sum(0) + 1.0)
    # Clipped, for far out the density is flat and a search would start badly.
    return np.where(unit_counts.sum(0) > 0, 2.0 * special.logit(np.clip(mean_rank, 0.02, 0.98)), 0.0)


def guess_nuisance(cell_statistics: xr.Dataset) -> FloatArray:
    """Guess the cutpoints as log-odds of being at or below each level, over all units of all arms."""
    level_totals = cell_statistics["histogram"].sum((SEGMENT, ARM)).values.astype(float)
    cumulative_totals = np.cumsum(level_totals)[:-1]
    return np.asarray(special.logit((cumulative_totals + 0.5) / (level_totals.sum() + 1.0)))


CELL_LIKELIHOOD = CellLikelihood(
    pack_arrays,
    compute_log_density,
    compute_derivatives,
    guess_eta,
    is_quadratic=False,
    nuisance_name="cutpoints",
    nuisance_per_arm=False,
    guess_nuisance=guess_nuisance,
)


def compute_log_likelihood(long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute the log density of each cell's units."""
    cutpoints = move_dim_first(parameter_draws["cutpoints"], "cutpoint", eta.ndim)
    # Draws of a fit to other segments have no cutpoint for a level that only these cells chose.
    if len(cutpoints) + 1 != long_cells.sizes[VALUE]:
        raise DataError(
            "a level was chosen in one segment only: the others cannot predict it; join it with a neighbour"
        )
    return eta.copy(data=compute_log_density(pack_arrays(long_cells), eta.values, cutpoints))


def compute_level_probabilities(eta: xr.DataArray, cutpoints: xr.DataArray) -> FloatArray:
    """Compute the probability of each level, (level, …)."""
    cutpoint_values = move_dim_first(cutpoints, "cutpoint", eta.ndim)
    level_probabilities = (
        np.exp(_compute_log_level_probability(eta.values, cutpoint_values, level))
        for level in range(len(cutpoint_values) + 1)
    )
    return np.stack([np.broadcast_to(probabilities, eta.shape) for probabilities in level_probabilities])


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate the number of units at each level."""
    level_probabilities = np.moveaxis(compute_level_probabilities(eta, parameter_draws["cutpoints"]), 0, -1)
    # NumPy refuses probabilities whose sum rounding has put above 1.
    simulated_units = rng.multinomial(
        long_cells["n"].values, level_probabilities / level_probabilities.sum(-1, keepdims=True)
    )
    return {
        "histogram": xr.DataArray(
            simulated_units, dims=(*eta.dims, VALUE), coords={**eta.coords, VALUE: long_cells[VALUE]}
        )
    }


def compute_mean(eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset) -> xr.DataArray:
    """Compute the mean of the levels' numbers."""
    sample_dims = [dim for dim in ("chain", "draw") if dim in eta.dims]
    ordered_eta = eta.transpose(*sample_dims, ...)
    # Whole cells come here too, with levels that nobody chose.
    level_scores = cell_statistics[VALUE].values[_find_chosen_levels(cell_statistics)].astype(float)
    mean_scores = np.einsum(
        "k...,k->...", compute_level_probabilities(ordered_eta, parameter_draws["cutpoints"]), level_scores
    )
    return ordered_eta.copy(data=mean_scores).transpose(*eta.dims)


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate differences of mean levels with standard errors; on the link scale log odds ratios by the score test.

    score / information at no effect, with ranks: a first step toward the maximum of the proportional-odds likelihood
    that needs no iteration (Whitehead 1993, Statistics in Medicine 12:2257).
    """
    if scale == "link":
        return _estimate_by_score_test(cell_statistics)
    n, level_values = cell_statistics["n"].astype(float), cell_statistics[VALUE].astype(float)
    mean_level = (cell_statistics["histogram"] * level_values).sum(VALUE) / n.where(n > 0)
    ss = (cell_statistics["histogram"] * (level_values - mean_level) ** 2).sum(VALUE)
    return compare_with_control(mean_level, ss / (n - 1).where(n > 1) / n, scale)


def _estimate_by_score_test(cell_statistics: xr.Dataset) -> xr.Dataset:
    unit_counts = cell_statistics["histogram"].transpose(..., VALUE).astype(float)
    control_units, treated_units = unit_counts.isel({ARM: 0}, drop=True), unit_counts.isel({ARM: slice(1, None)})
    control_below = control_units.cumsum(VALUE) - control_units
    control_above = control_units.sum(VALUE) - control_units.cumsum(VALUE)
    both_arms = treated_units + control_units
    n_control, n_treated, n = control_units.sum(VALUE), treated_units.sum(VALUE), both_arms.sum(VALUE)
    # score = Σ_k treated_k (control below k − control above k) / (n + 1)
    # information = n₀ n₁ n (1 − Σ_k (n_k / n)³) / (3 (n + 1)²)
    rank_score = (treated_units * (control_below - control_above)).sum(VALUE) / (n + 1)
    tie_share = ((both_arms / n.where(n > 0)) ** 3).sum(VALUE)
    score_information = n_control * n_treated * n / (3 * (n + 1) ** 2) * (1 - tie_share)
    positive_information = score_information.where(score_information > 0)
    return xr.Dataset({"raw": rank_score / positive_information, "raw_se": positive_information**-0.5})


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute 1 / information about eta of both arms, given the drawn cutpoints."""
    baseline, effect = parameter_draws["baseline"], parameter_draws["effect"]
    n = cell_statistics["n"]
    cutpoints = parameter_draws["cutpoints"]
    with np.errstate(divide="ignore"):
        control_variance = 1 / (n.isel(arm=0, drop=True) * _compute_unit_information(baseline, cutpoints))
        treated_information = _compute_unit_information((baseline + effect).transpose(*effect.dims), cutpoints)
        return control_variance + 1 / (n.isel(arm=slice(1, None)) * treated_information)


def _compute_unit_information(eta: xr.DataArray, cutpoints: xr.DataArray) -> xr.DataArray:
    """Compute what one unit tells of eta: Σ over levels of probability times (P(above) − P(below))²."""
    level_probabilities = compute_level_probabilities(eta, cutpoints)
    probability_below = np.cumsum(level_probabilities, axis=0) - level_probabilities
    # P(above) = 1 − P(below) − P(level)
    level_slopes = 1 - probability_below - level_probabilities - probability_below
    return eta.copy(data=(level_probabilities * level_slopes**2).sum(0))


def describe_nuisance_prior(prior: Distribution, phrase_amount: Callable[[float], str]) -> str:
    """Describe where a cutpoint may be, as a probability."""
    low, high = (1 / (1 + math.exp(-value)) for value in compute_central_interval(prior))
    range_text = f"9 times in 10 between {100 * low:.2f} % and {100 * high:.2f} %"
    return f"Share at or below a level in an average segment: {range_text}."


def label_nuisance_dims(cells: xr.Dataset) -> dict[str, list[str]]:
    """Label the cutpoints by the levels on both sides, of those that somebody chose: ``"1|2"``, ``"bad|good"``."""
    level_texts = list_answers(cells.isel({VALUE: _find_chosen_levels(cells)}))
    return {"cutpoint": [f"{low}|{high}" for low, high in pairwise(level_texts)]}


FAMILY = Family(
    name="ordinal",
    link="logit",
    ratio_name="odds ratio",
    mean_is_probability=False,
    formula_lines=(
        "P(y[i] ≤ level k) = logistic(cutpoints[k] - baseline[s] - effect[s, a])   for unit i of s in arm a",
    ),
    outcome_sentence="Answers are ordered levels; effects are log odds ratios for a higher answer, the same at every "
    "level.",
    baseline_sentence="Control's answers in an average segment are set by the cutpoints; segments' own are pooled "
    "around them.",
    pymc_lines=(
        "    below = pm.math.sigmoid(cutpoints[None, :] - eta[:, None])",
        "    ends = pt.zeros((len(n), 1))",
        "    levels = pt.concatenate([below, ends + 1], axis=1) - pt.concatenate([ends, below], axis=1)",
        '    pm.Multinomial("histogram", n=n, p=levels, observed=histogram)',
    ),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("histogram",),
    compute_mean=compute_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=refuse_control_sd,
    compute_control_mean=None,
    convert_mean_to_link=convert_mean_by_logit,
    nuisance=NuisanceParameter(
        name="cutpoints",
        dims=("cutpoint",),
        index_letter="k",
        is_ordered=True,
        describe_prior=describe_nuisance_prior,
        label_dims=label_nuisance_dims,
    ),
)
