"""Negative binomial: counts per unit that vary more than a Poisson's: visits, purchases, tickets.

y[i] ~ NegativeBinomial(mean m[s, a], alpha[a]);   log m = baseline[s] + effect[s, a],   Var y = m + m² / alpha

The histogram of each cell is sufficient. Given alpha only the number of units and their total depend on m; what
depends on alpha alone is a sum over the arm's histogram:

log p = total eta − (total + n alpha) log(alpha + e^eta) + n alpha log alpha
        + Σ_k units[k] log Γ(k + alpha) / (Γ(alpha) k!)
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError, ModelError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    NuisanceParameter,
    compare_on_log_scale,
    compare_with_control,
    compute_bounded_exp,
    compute_exponential_mean,
    convert_mean_by_log,
    refuse_control_sd,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws, select_variant_values
from bayes_hte.model.priors import ValueHolder, compute_central_interval
from bayes_hte.spec.cell_table import VALUE, VALUE_LABEL, EffectScale
from bayes_hte.spec.distributions import Distribution

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

ALPHA_GUESS_RANGE = (0.02, 500.0)
"""Bounds of a first guess of alpha: beyond, a count is nearly constant 0 or nearly Poisson."""


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select histogram and number of units, and add their total count and how many of them have a count of 0."""
    cell_statistics = require_statistics(
        cells, ["n", "histogram"], family="negative_binomial", why='make the cells with metric="histogram"'
    )
    if VALUE_LABEL in cells.coords:
        raise ModelError('family "negative_binomial" counts, and these are answers in words; use "ordinal"')
    count_values = cell_statistics[VALUE].values
    if (count_values < 0).any() or (count_values != np.round(count_values)).any():
        raise ModelError('family "negative_binomial" needs whole outcomes from 0; use "normal", "mean" or "two_part"')
    total_count = (cell_statistics["histogram"] * cell_statistics[VALUE]).sum(VALUE).round().astype(np.int64)
    if int(total_count.sum()) == 0:
        raise DataError("every count is 0: there is nothing to compare; is the outcome the right column?")
    zero_count = (
        cell_statistics["histogram"].sel({VALUE: 0}, drop=True)
        if 0 in count_values
        else xr.zeros_like(cell_statistics["n"])
    )
    return cell_statistics.assign(total=total_count, zeros=zero_count)


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed histograms: every unit's count, units of a cell with the same count taken together."""
    import pymc as pm
    import pytensor.tensor as pt

    histograms = long_cells["histogram"].transpose("cell", VALUE).values
    # Empty entries stay in, with weight 0: which are empty is data, and the model's structure must not depend on it.
    cell_index, value_index = np.nonzero(np.ones_like(histograms))
    unit_weights = hold_value("units", histograms[cell_index, value_index])
    count_values = hold_value("counts", long_cells[VALUE].values[value_index].astype(np.int64))
    cell_alpha = nuisance_variables["alpha"][long_cells["arm_index"].values]

    count_distribution = pm.NegativeBinomial.dist(mu=pt.exp(eta)[cell_index], alpha=cell_alpha[cell_index])
    pm.Potential("histogram", (unit_weights * pm.logp(count_distribution, count_values)).sum())


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack n and the total count."""
    return {"n": cell_statistics["n"].values.astype(float), "total": cell_statistics["total"].values.astype(float)}


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute the part of the log density that depends on the mean, given alpha."""
    alpha = _require_alpha(nuisance_values)
    # log p = total (eta − log alpha) − (total + n alpha) log(1 + e^eta / alpha)
    # The last logarithm is log(alpha + e^eta) − log alpha, so that empty cells give 0 and no large numbers cancel.
    log_excess = np.logaddexp(0.0, eta - np.log(alpha))
    return np.asarray(
        arm_data["total"] * (eta - np.log(alpha)) - (arm_data["total"] + arm_data["n"] * alpha) * log_excess
    )


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute the slope, and minus the second derivative."""
    # total − (total + n alpha) q  and  (total + n alpha) q (1 − q),  q = m / (alpha + m)
    alpha = _require_alpha(nuisance_values)
    mean_share = special.expit(eta - np.log(alpha))
    total_weight = arm_data["total"] + arm_data["n"] * alpha
    return arm_data["total"] - total_weight * mean_share, total_weight * mean_share * (1 - mean_share)


def _require_alpha(nuisance_values: FloatArray | None) -> FloatArray:
    if nuisance_values is None:
        raise AssertionError("the negative binomial was asked for a density without alpha")
    return nuisance_values


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the log mean with half an event added."""
    # Half an event more among as many units as have half an event at the arm's rate.
    arm_rate = (arm_data["total"].sum() + 0.5) / max(arm_data["n"].sum(), 1.0)
    return np.where(arm_data["n"] > 0, np.log((arm_data["total"] + 0.5) / (arm_data["n"] + 0.5 / arm_rate)), 0.0)


def compute_nuisance_density(cell_statistics: xr.Dataset, alpha: FloatArray) -> FloatArray:
    """Sum log Γ(k + alpha) / (Γ(alpha) k!) over the units of all arms; alpha has dims (point, arm)."""
    arm_histograms = cell_statistics["histogram"].sum("segment").transpose("arm", VALUE).values
    log_density = np.zeros(alpha.shape[:-1])
    for arm in range(arm_histograms.shape[0]):
        log_density += _sum_over_histogram(cell_statistics[VALUE].values, arm_histograms[arm], alpha[..., arm])
    return log_density


def _sum_over_histogram(count_values: FloatArray, unit_counts: FloatArray, alpha: FloatArray) -> FloatArray:
    """Sum log Γ(k + alpha) − log Γ(alpha) − log k! over the counts k of a histogram, times the units with k."""
    has_units = unit_counts > 0
    k, unit_weights = count_values[has_units].astype(float), unit_counts[has_units].astype(float)
    log_rising_factorial = special.gammaln(k + alpha[..., None]) - special.gammaln(alpha)[..., None]
    return np.asarray((log_rising_factorial - special.gammaln(k + 1)) @ unit_weights)


def guess_nuisance(cell_statistics: xr.Dataset) -> FloatArray:
    """Guess alpha by moments within cells: mean² / (variance − mean)."""
    count_values = cell_statistics[VALUE].values.astype(float)
    histograms = cell_statistics["histogram"].transpose("arm", "segment", VALUE).values
    n = histograms.sum(-1)
    cell_means = histograms @ count_values / np.maximum(n, 1)
    # alpha = Σ_s (n_s − 1) mean_s² / Σ_s (ss_s − (n_s − 1) mean_s),   ss = Σ y² − n mean²
    cell_squares, cell_freedom = (histograms @ count_values**2 - n * cell_means**2).sum(-1), np.maximum(n - 1, 0)
    excess_squares = cell_squares - (cell_freedom * cell_means).sum(-1)
    squared_means = (cell_freedom * cell_means**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(
            np.where(excess_squares > 0, squared_means / excess_squares, ALPHA_GUESS_RANGE[1]), *ALPHA_GUESS_RANGE
        )


CELL_LIKELIHOOD = CellLikelihood(
    pack_arrays,
    compute_log_density,
    compute_derivatives,
    guess_eta,
    is_quadratic=False,
    nuisance_name="alpha",
    compute_nuisance_density=compute_nuisance_density,
    guess_nuisance=guess_nuisance,
)


def compute_log_likelihood(long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute the log density of each cell's units."""
    alpha = select_variant_values(long_cells, parameter_draws["alpha"]).transpose(*eta.dims)
    histograms = long_cells["histogram"].transpose("cell", VALUE).values
    nuisance_density = np.stack(
        [
            _sum_over_histogram(long_cells[VALUE].values, histograms[cell_index], alpha.isel(cell=cell_index).values)
            for cell_index in range(len(histograms))
        ],
        axis=-1,
    )
    return eta.copy(data=compute_log_density(pack_arrays(long_cells), eta.values, alpha.values) + nuisance_density)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate totals, and numbers of units with a count of 0: as many as the model expects, if it is right."""
    alpha = select_variant_values(long_cells, parameter_draws["alpha"]).transpose(*eta.dims).values
    # total ~ Poisson(Gamma(n alpha, scale m / alpha)),   zeros ~ Binomial(n, (alpha / (alpha + m))^alpha)
    dispersion_share = 1 / (1 + compute_bounded_exp(eta.values) / alpha)
    n = long_cells["n"].values
    # Draws far out in a prior have means that are too large for NumPy's Poisson numbers.
    simulated_totals = rng.poisson(np.minimum(rng.gamma(n * alpha, (1 - dispersion_share) / dispersion_share), 1e15))
    return {"total": eta.copy(data=simulated_totals), "zeros": eta.copy(data=rng.binomial(n, dispersion_share**alpha))}


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate differences or ratios of means; standard errors are of the counts' own variance, whatever the family."""
    n, count_values = cell_statistics["n"].astype(float), cell_statistics[VALUE]
    cell_means = cell_statistics["total"] / n.where(n > 0)
    ss = (cell_statistics["histogram"] * (count_values - cell_means) ** 2).sum(VALUE)
    mean_variance = ss / (n - 1).where(n > 1) / n
    if scale == "link":
        return compare_on_log_scale(cell_means, mean_variance)
    return compare_with_control(cell_means, mean_variance, scale)


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute (1 / m + 1 / alpha) / n of both arms, at the drawn parameters."""
    baseline, effect = parameter_draws["baseline"], parameter_draws["effect"]
    alpha = parameter_draws["alpha"]
    n = cell_statistics["n"]
    with np.errstate(divide="ignore"):
        control_variance = (1 / alpha.isel(variant=0, drop=True) + np.exp(-baseline)) / n.isel(arm=0, drop=True)
        inverse_alpha = 1 / alpha.isel(variant=slice(1, None)).rename(variant="arm")
        return control_variance + (inverse_alpha + np.exp(-baseline - effect)) / n.isel(arm=slice(1, None))


def compute_control_mean(cell_statistics: xr.Dataset) -> float:
    """Compute the mean count of all the control's units."""
    control_cells = cell_statistics.isel(arm=0)
    return float(control_cells["total"].sum() / control_cells["n"].sum())


def describe_nuisance_prior(prior: Distribution, phrase_amount: Callable[[float], str]) -> str:
    """Describe how much counts vary beyond chance."""
    # Var y = m + m² / alpha, at m = 1
    low, high = compute_central_interval(prior)
    return f"Variance of a count with mean 1: 9 times in 10 between {1 + 1 / high:.2g} and {1 + 1 / low:.2g}."


FAMILY = Family(
    name="negative_binomial",
    link="log",
    ratio_name="ratio of means",
    mean_is_probability=False,
    formula_lines=(
        "y[i] ~ NegativeBinomial(m[s, a], alpha[a])   for unit i of segment s in arm a; Var y = m + m² / alpha",
        "log m[s, a] = baseline[s] + effect[s, a]",
    ),
    outcome_sentence="Counts per unit vary more than chance alone would have them; effects are logs of ratios of "
    "means.",
    pymc_lines=(
        "    # histogram[cell, value]: how many units have each count",
        "    law = pm.NegativeBinomial.dist(mu=pt.exp(eta)[:, None], alpha=alpha[arm_index][:, None])",
        '    pm.Potential("histogram", (histogram * pm.logp(law, value[None, :])).sum())',
    ),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("total", "zeros"),
    simulated_totals={"total": "sum of all counts", "zeros": "units with a count of 0"},
    compute_mean=compute_exponential_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=refuse_control_sd,
    compute_control_mean=compute_control_mean,
    convert_mean_to_link=convert_mean_by_log,
    nuisance=NuisanceParameter(
        name="alpha", dims=("variant",), index_letter="a", describe_prior=describe_nuisance_prior
    ),
)
