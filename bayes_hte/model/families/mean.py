"""Mean: any metric whose cell means are close to normal, however skewed its units are.

mean[s, a] ~ Normal(baseline[s] + effect[s, a], se[s, a]),   se[s, a]² = variance[a] / n[s, a]
"""

import json
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.errors import DataError, ModelError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    StandIn,
    compare_with_control,
    convert_mean_by_identity,
    measure_control_from_moments,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec.cell_table import EffectScale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select mean and se, and n where it is known; compute se from the variances over units where those are known.

    The cells of an arm share one variance, pooled over them, unless the attribute unit_variance is "per_cell". In a
    skewed outcome a cell's own variance goes with its mean: cells that by chance have few large values would get the
    smallest standard errors, and cells with a high base rate the largest, which draws averages toward the others.
    Standard errors of published means, of ratios, and of means that are weighted or of clusters stay as they are: what
    their units of analysis stand for differs between cells.
    """
    if "se" in cells:
        statistic_names = ["mean", "se", "n"] if "n" in cells else ["mean", "se"]
        own_statistics = require_statistics(cells, statistic_names, family="mean", why="give mean and se")
        own_statistics = _subtract_covariate_part(own_statistics, cells)
        return own_statistics if not _has_equal_units(cells) else _pool_standard_errors(own_statistics)
    cell_statistics = require_statistics(
        cells, ["n", "mean", "ss"], family="mean", why="give rows, n with mean and sd, or mean and se"
    )
    n, ss = cell_statistics["n"], cell_statistics["ss"]
    arm_variance = _pool_unit_variance(n, ss)
    if not bool((arm_variance > 0).all()):
        raise DataError("the outcome does not vary within an arm: its standard error cannot be estimated")
    unit_variance = arm_variance
    if not _is_pooled(cells):
        # A cell of one unit, or without variation, says nothing of its own spread.
        unit_variance = (ss / (n - 1).where(n > 1)).where(ss > 0, arm_variance)
    # se² = variance over units / n
    standard_errors = (unit_variance / n.where(n > 0)).transpose(*n.dims) ** 0.5
    return xr.Dataset({"n": n, "mean": cell_statistics["mean"], "se": standard_errors}).assign_attrs(
        cells.attrs, control_location=list(measure_control_from_moments(cell_statistics))
    )


def _is_pooled(cells: xr.Dataset) -> bool:
    return bool(cells.attrs.get("unit_variance", "per_arm") == "per_arm")


def _has_equal_units(cells: xr.Dataset) -> bool:
    """Tell whether means with standard errors are of single units, adjusted for covariates: these share a variance."""
    if "recipe" not in cells.attrs or not _is_pooled(cells):
        return False
    recipe = json.loads(cells.attrs["recipe"])
    return all(denominator is None for _, denominator in (recipe["outcome"], *recipe["covariates"]))


def _pool_unit_variance(n: xr.DataArray, ss: xr.DataArray) -> xr.DataArray:
    """Pool the variance over units within the cells of an arm, (arm,); NaN where no cell has two units."""
    # s² of an arm = Σ_s ss_s / Σ_s (n_s − 1)
    arm_freedom = (n - 1).where(n > 0, 0).sum("segment")
    arm_variance: xr.DataArray = ss.sum("segment") / arm_freedom.where(arm_freedom > 0)
    return arm_variance


def _pool_standard_errors(own_statistics: xr.Dataset) -> xr.Dataset:
    """Replace standard errors of cells by those of one variance per arm; of adjusted means it is that of residuals."""
    n = own_statistics["n"]
    # ss = se² n (n − 1)
    arm_variance = _pool_unit_variance(n, (own_statistics["se"] ** 2 * n * (n - 1)).fillna(0.0))
    pooled_se = (arm_variance / n.where(n > 0)).transpose(*n.dims) ** 0.5
    # An arm with one unit in every cell has no variance of its own: it keeps what the reduction gave it.
    return own_statistics.assign(se=pooled_se.where(arm_variance.notnull(), own_statistics["se"]))


def _subtract_covariate_part(own_statistics: xr.Dataset, cells: xr.Dataset) -> xr.Dataset:
    """Move adjusted means to the covariates of all units, so that segments' baselines can be compared and pooled."""
    if "covariate_part" not in cells:
        return own_statistics
    covariate_part = cells["covariate_part"]
    return own_statistics.assign(mean=own_statistics["mean"] - covariate_part, covariate_part=covariate_part)


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed means: normal around their expectation, by the central limit theorem."""
    import pymc as pm

    cell_means, se = hold_value("mean", long_cells["mean"].values), hold_value("se", long_cells["se"].values)

    pm.Normal("mean", eta, se, observed=cell_means, dims="cell")


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack the means and their precisions, 0 where there is no mean."""
    se = cell_statistics["se"].values.astype(float)
    has_mean = np.isfinite(se)
    # constant = −log se − ½ log 2π
    return {
        "mean": np.where(has_mean, cell_statistics["mean"].values, 0.0),
        "precision": np.where(has_mean, se**-2.0, 0.0),
        "constant": np.where(has_mean, -np.log(se) - 0.5 * np.log(2 * np.pi), 0.0),
    }


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute the normal log density of the mean."""
    # log p = constant − (mean − eta)² / (2 se²)
    return np.asarray(arm_data["constant"] - 0.5 * arm_data["precision"] * (arm_data["mean"] - eta) ** 2)


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute residual over variance, and the precision."""
    return arm_data["precision"] * (arm_data["mean"] - eta), np.broadcast_to(arm_data["precision"], eta.shape)


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the mean itself."""
    return arm_data["mean"]


CELL_LIKELIHOOD = CellLikelihood(pack_arrays, compute_log_density, compute_derivatives, guess_eta, is_quadratic=True)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate cell means."""
    return {"mean": eta.copy(data=rng.normal(eta.values, long_cells["se"].values))}


def compute_mean(eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset) -> xr.DataArray:
    """Return eta, with what the covariates of a segment add to its mean, where means are adjusted for some."""
    if "covariate_part" not in cell_statistics or "segment" not in eta.dims:
        return eta
    # The same in all arms of a segment: the control's, the first one's, serves all.
    segment_part = cell_statistics["covariate_part"].isel(arm=0, drop=True).fillna(0.0).reset_coords(drop=True)
    return (eta + segment_part).transpose(*eta.dims)


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate differences in means, or ratios less one, with their standard errors."""
    # At the covariates of the segment itself: relative effects are of its own mean.
    segment_means = cell_statistics["mean"] + cell_statistics.get("covariate_part", 0.0)
    return compare_with_control(segment_means, cell_statistics["se"] ** 2, scale)


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute se² of the treated mean plus that of the control's; infinite where an arm was not seen."""
    mean_variance = (cell_statistics["se"] ** 2).fillna(np.inf)
    return mean_variance.isel(arm=slice(1, None)) + mean_variance.isel(arm=0, drop=True)


def measure_control_outcome(cell_statistics: xr.Dataset) -> tuple[float, float]:
    """Measure mean and SD over the control's units; from the standard errors where only those are known."""
    if "control_location" in cell_statistics.attrs:
        control_mean, control_sd = cell_statistics.attrs["control_location"]
        return float(control_mean), float(control_sd)
    if "n" not in cell_statistics:
        raise ModelError(
            'units = "control_sd" needs the number of units behind every mean: give n, or write priors in the '
            'outcome\'s own units (units = "link")'
        )
    control_cells = cell_statistics.isel(arm=0)
    n = control_cells["n"]
    # se² = ss / (n − 1) / n, solved for ss
    ss = (control_cells["se"] ** 2 * n * (n - 1)).fillna(0.0)
    return measure_control_from_moments(
        xr.Dataset({"n": cell_statistics["n"], "mean": cell_statistics["mean"], "ss": ss.expand_dims(arm=1, axis=1)})
    )


def compute_control_mean(cell_statistics: xr.Dataset) -> float:
    """Compute the mean of all the control's units."""
    return measure_control_outcome(cell_statistics)[0]


def add_moments_of_counts(cells: xr.Dataset) -> xr.Dataset:
    """Add mean and sum of squares of outcomes that are 0 or 1."""
    # mean p = events / n,   ss = n p (1 − p) = events (1 − p)
    event_rate = cells["events"] / cells["n"].where(cells["n"] > 0)
    return cells.assign(mean=event_rate, ss=(cells["events"] * (1 - event_rate)).fillna(0.0))


FAMILY = Family(
    name="mean",
    link="identity",
    ratio_name=None,
    mean_is_probability=False,
    formula_lines=("mean[s, a] ~ Normal(baseline[s] + effect[s, a], se[s, a])",),
    outcome_sentence="Each cell's mean is close to normal (central limit theorem); effects are differences in means.",
    pymc_lines=('    pm.Normal("mean", eta, se, observed=mean, dims="cell")',),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=CELL_LIKELIHOOD.compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("mean",),
    compute_mean=compute_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=measure_control_outcome,
    compute_control_mean=compute_control_mean,
    convert_mean_to_link=convert_mean_by_identity,
    stand_ins=(
        StandIn("moments", "identity"),
        StandIn("counts", "identity", add_moments_of_counts),
        StandIn("means", "identity"),
    ),
)
