"""Normal: a continuous outcome whose spread may differ between arms.

mean[s, a] ~ Normal(baseline[s] + effect[s, a], sigma[a] / sqrt(n[s, a]))
SS[a]      ~ Gamma(N[a] / 2, rate = 1 / (2 sigma[a]^2)),   SS[a] = Σ_s ss[s, a],  N[a] = Σ_s (n[s, a] − 1)

Within-cell sums of squares are independent of the means and sigma is common to an arm, so their sum
over segments loses nothing; a cell without variation (ss = 0) needs no special case.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    NuisanceParameter,
    compare_with_control,
    compute_identity_mean,
    convert_mean_by_identity,
    measure_control_from_moments,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws, select_variant_values
from bayes_hte.model.priors import ValueHolder, compute_upper_bound
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.distributions import Distribution

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select n, mean and ss of every cell."""
    # Means of clusters, with weights or adjusted come with standard errors, which rows given anew would not change.
    way_out = (
        'means with standard errors, as clusters and weights give, are for the family mean: model = "metric"'
        if "se" in cells
        else "give rows, or n, mean and sd"
    )
    cell_statistics = require_statistics(cells, ["n", "mean", "ss"], family="normal", why=way_out)
    if float(cell_statistics["ss"].sum()) <= 0:
        raise DataError("the outcome does not vary within any cell: its spread cannot be estimated")
    return cell_statistics


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed means and sums of squares: the exact Gaussian likelihood of the sufficient statistics."""
    import pymc as pm

    sigma, arm_index = nuisance_variables["sigma"], long_cells["arm_index"].values
    cell_means = hold_value("mean", long_cells["mean"].values)
    root_n = hold_value("root_n", np.sqrt(long_cells["n"].values))
    arm_squares, arm_freedom = sum_squares_within_arms(long_cells)
    # SS ~ Gamma(N / 2, rate 1 / (2 sigma²)); an arm with one unit per cell, or without variation, tells nothing of it.
    observed_arms = np.flatnonzero((arm_freedom > 0) & (arm_squares > 0))
    observed_squares = hold_value("ss", arm_squares[observed_arms])
    half_freedom = hold_value("half_freedom", arm_freedom[observed_arms] / 2)

    pm.Normal("mean", eta, sigma[arm_index] / root_n, observed=cell_means, dims="cell")
    pm.Gamma("ss", alpha=half_freedom, beta=0.5 / sigma[observed_arms] ** 2, observed=observed_squares)


def sum_squares_within_arms(long_cells: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Sum squares and degrees of freedom within cells over the segments of every arm, from the long form."""
    arm_index = long_cells["arm_index"].values
    arm_squares = np.bincount(arm_index, weights=long_cells["ss"].values)
    return arm_squares, np.bincount(arm_index, weights=long_cells["n"].values - 1)


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack n and mean; a cell without units has n = 0."""
    # constant = ½ log n − ½ log 2π
    n = cell_statistics["n"].values.astype(float)
    log_constant = np.where(n > 0, 0.5 * np.log(np.maximum(n, 1.0)) - 0.5 * np.log(2 * np.pi), 0.0)
    return {
        "n": n,
        "mean": np.where(n > 0, cell_statistics["mean"].values, 0.0),
        "constant": log_constant,
        "has_units": 1.0 * (n > 0),
    }


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute the normal log density of the cell's mean, given the arm's SD."""
    sigma = _require_sigma(nuisance_values)
    # log p = constant − log sigma − n (mean − eta)² / (2 sigma²)
    squared_residual = 0.5 * arm_data["n"] * ((arm_data["mean"] - eta) / sigma) ** 2
    return np.asarray(arm_data["constant"] - arm_data["has_units"] * np.log(sigma) - squared_residual)


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute residual over variance, and the precision."""
    precision = arm_data["n"] / _require_sigma(nuisance_values) ** 2
    return precision * (arm_data["mean"] - eta), np.broadcast_to(precision, eta.shape)


def _require_sigma(nuisance_values: FloatArray | None) -> FloatArray:
    if nuisance_values is None:
        raise AssertionError("the normal family was asked for a density without the arm's SD")
    return nuisance_values


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the mean itself."""
    return arm_data["mean"]


def compute_nuisance_density(cell_statistics: xr.Dataset, sigma: FloatArray) -> FloatArray:
    """Sum the Gamma log densities of the arms' sums of squares within cells; sigma has dims (…, arm)."""
    n = cell_statistics["n"].transpose("segment", "arm").values
    arm_squares = cell_statistics["ss"].transpose("segment", "arm").values.sum(0)
    arm_freedom = np.maximum(n - 1, 0).sum(0).astype(float)
    is_observed = (arm_freedom > 0) & (arm_squares > 0)
    # log p = shape log rate − log Γ(shape) + (shape − 1) log SS − rate SS
    gamma_shape, gamma_rate = arm_freedom[is_observed] / 2, 0.5 / sigma[..., is_observed] ** 2
    observed_squares = arm_squares[is_observed]
    log_density = (
        gamma_shape * np.log(gamma_rate)
        - special.gammaln(gamma_shape)
        + (gamma_shape - 1) * np.log(observed_squares)
        - gamma_rate * observed_squares
    )
    return np.asarray(log_density.sum(-1))


def guess_nuisance(cell_statistics: xr.Dataset) -> FloatArray:
    """Guess each arm's SD within cells; where an arm does not tell, that of all arms together."""
    n = cell_statistics["n"].transpose("segment", "arm").values
    arm_squares = cell_statistics["ss"].transpose("segment", "arm").values.sum(0)
    arm_freedom = np.maximum(n - 1, 0).sum(0)
    pooled_variance = arm_squares.sum() / max(arm_freedom.sum(), 1)
    is_observed = (arm_freedom > 0) & (arm_squares > 0)
    return np.asarray(np.sqrt(np.where(is_observed, arm_squares / np.maximum(arm_freedom, 1), pooled_variance)))


CELL_LIKELIHOOD = CellLikelihood(
    pack_arrays,
    compute_log_density,
    compute_derivatives,
    guess_eta,
    is_quadratic=True,
    nuisance_name="sigma",
    compute_nuisance_density=compute_nuisance_density,
    guess_nuisance=guess_nuisance,
)


def compute_log_likelihood(long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute the log density of each cell's units from their mean and sum of squares."""
    sigma = select_variant_values(long_cells, parameter_draws["sigma"])
    # Σ_i (y_i − eta)² = ss + n (mean − eta)²
    n, squared_distance = long_cells["n"], long_cells["ss"] + long_cells["n"] * (long_cells["mean"] - eta) ** 2
    log_density: xr.DataArray = -n * np.log(sigma) - squared_distance / (2 * sigma**2) - n / 2 * np.log(2 * np.pi)
    return log_density.transpose(*eta.dims)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate cell means."""
    se = (select_variant_values(long_cells, parameter_draws["sigma"]) / np.sqrt(long_cells["n"])).transpose(*eta.dims)
    return {"mean": eta.copy(data=rng.normal(eta.values, se.values))}


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate differences in means with Welch's standard error; NaN where an arm has one unit."""
    n = cell_statistics["n"]
    # Var mean = ss / (n − 1) / n, in each arm its own
    unit_variance = cell_statistics["ss"] / (n - 1).where(n > 1)
    return compare_with_control(cell_statistics["mean"], unit_variance / n, scale)


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute sigma[a]² / n[s, a] of the treated arm plus that of the control."""
    with np.errstate(divide="ignore"):
        n = cell_statistics["n"].rename(arm="variant")
        mean_variance = parameter_draws["sigma"] ** 2 / n
    control_variance = mean_variance.isel(variant=0, drop=True)
    return mean_variance.isel(variant=slice(1, None)).rename(variant="arm") + control_variance


def compute_control_mean(cell_statistics: xr.Dataset) -> float:
    """Compute the mean of all the control's units."""
    return measure_control_from_moments(cell_statistics)[0]


def describe_nuisance_prior(prior: Distribution, phrase_amount: Callable[[float], str]) -> str:
    """Describe how large the SD of units within an arm may be."""
    return f"SD within an arm: 9 times in 10 below {phrase_amount(compute_upper_bound(prior))}."


FAMILY = Family(
    name="normal",
    link="identity",
    ratio_name=None,
    mean_is_probability=False,
    formula_lines=("y[i] ~ Normal(baseline[s] + effect[s, a], sigma[a])   for unit i of segment s in arm a",),
    outcome_sentence="The outcome is continuous with one standard deviation per arm; effects are differences in means.",
    pymc_lines=(
        '    pm.Normal("mean", eta, sigma[arm_index] / np.sqrt(n), observed=mean, dims="cell")',
        "    # sums of squares and degrees of freedom within cells, added up for each arm",
        '    pm.Gamma("ss", alpha=freedom / 2, beta=0.5 / sigma**2, observed=ss)',
    ),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("mean",),
    compute_mean=compute_identity_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=measure_control_from_moments,
    compute_control_mean=compute_control_mean,
    convert_mean_to_link=convert_mean_by_identity,
    nuisance=NuisanceParameter(
        name="sigma", dims=("variant",), index_letter="a", describe_prior=describe_nuisance_prior
    ),
)
