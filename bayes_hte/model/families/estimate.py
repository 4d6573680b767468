"""Estimate: published effects with their standard errors, as in a meta-analysis.

estimate[s] ~ Normal(effect[s], se[s]), or MvNormal(effect, covariance) when the estimates share data
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.errors import ModelError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    StandIn,
    compute_identity_mean,
    convert_mean_by_identity,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec.cell_table import EffectScale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select estimate and se, and the covariance between segments where it is known."""
    statistic_names = ["estimate", "se", *(name for name in ("n", "covariance") if name in cells)]
    return require_statistics(cells, statistic_names, family="estimate", why="make the cells with from_estimates")


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed estimates: normal with known standard errors, or multivariate normal with a known covariance."""
    import pymc as pm

    observed_estimates = hold_value("estimate", long_cells["estimate"].values)
    if "covariance" in long_cells:
        pm.MvNormal(
            "estimate",
            eta,
            cov=hold_value("covariance", long_cells["covariance"].values),
            observed=observed_estimates,
            dims="cell",
        )
    else:
        pm.Normal("estimate", eta, hold_value("se", long_cells["se"].values), observed=observed_estimates, dims="cell")


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack the estimates and their precisions, 0 where there is no estimate."""
    se = cell_statistics["se"].values.astype(float)
    has_estimate = np.isfinite(se)
    # constant = −log se − ½ log 2π
    return {
        "estimate": np.where(has_estimate, cell_statistics["estimate"].values, 0.0),
        "precision": np.where(has_estimate, se**-2.0, 0.0),
        "constant": np.where(has_estimate, -np.log(se) - 0.5 * np.log(2 * np.pi), 0.0),
    }


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute the normal log density of the estimate."""
    # log p = constant − (estimate − eta)² / (2 se²)
    return np.asarray(arm_data["constant"] - 0.5 * arm_data["precision"] * (arm_data["estimate"] - eta) ** 2)


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute residual over variance, and the precision."""
    return arm_data["precision"] * (arm_data["estimate"] - eta), np.broadcast_to(arm_data["precision"], eta.shape)


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the estimate itself."""
    return arm_data["estimate"]


CELL_LIKELIHOOD = CellLikelihood(pack_arrays, compute_log_density, compute_derivatives, guess_eta, is_quadratic=True)


def compute_log_likelihood(long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute the log density of each estimate; with a covariance, given the estimates before it (the sum is joint)."""
    if "covariance" not in long_cells:
        return CELL_LIKELIHOOD.compute_log_likelihood(long_cells, eta, parameter_draws)
    residual = (long_cells["estimate"] - eta).transpose(*eta.dims)
    # Σ = L Lᵀ,  z = L⁻¹ (estimate − eta):  log p = Σ_c −½ z_c² − log L_cc − ½ log 2π
    cholesky_factor = np.linalg.cholesky(long_cells["covariance"].values)
    whitened_residual = residual.copy(data=np.linalg.solve(cholesky_factor, residual.values[..., None])[..., 0])
    log_scale = xr.DataArray(np.log(np.diag(cholesky_factor)), dims="cell")
    log_density: xr.DataArray = -0.5 * whitened_residual**2 - log_scale - 0.5 * np.log(2 * np.pi)
    return log_density.transpose(*eta.dims)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate estimates."""
    # Standard noise first, so that both forms use the same random numbers.
    standard_noise = rng.standard_normal(eta.shape)
    # estimate = eta + L z, z standard normal, with one z per row
    if "covariance" in long_cells:
        return {"estimate": eta + standard_noise @ np.linalg.cholesky(long_cells["covariance"].values).T}
    return {"estimate": eta + standard_noise * long_cells["se"].values}


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Return the published estimates, which no pooling has changed."""
    if scale == "relative":
        raise ModelError("published estimates have no control mean: use scale absolute or link")
    return xr.Dataset({"raw": cell_statistics["estimate"], "raw_se": cell_statistics["se"]})


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute se², infinite where there is no estimate."""
    return (cell_statistics["se"] ** 2).fillna(np.inf)


def measure_control_outcome(cell_statistics: xr.Dataset) -> tuple[float, float]:
    """Refuse priors in control SDs: nothing is known of the control's units."""
    raise ModelError('published estimates carry no unit-level spread: write priors in their own units (units = "link")')


FAMILY = Family(
    name="estimate",
    link="identity",
    ratio_name=None,
    mean_is_probability=False,
    formula_lines=("estimate[s, a] ~ Normal(effect[s, a], se[s, a])",),
    outcome_sentence="Each estimate is normal around its true effect with the standard error that was published.",
    pymc_lines=('    pm.Normal("estimate", eta, se, observed=estimate, dims="cell")',),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("estimate",),
    compute_mean=compute_identity_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=measure_control_outcome,
    compute_control_mean=None,
    convert_mean_to_link=convert_mean_by_identity,
    stand_ins=(StandIn("estimates", "identity"),),
)
