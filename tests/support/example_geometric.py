"""A family that the package does not ship, in one value: geometric counts, such as refusals before the first consent.

y[i] ~ Geometric(p), counting from 0, with mean m = (1 − p) / p;   log m = baseline[s] + effect[s, a]

A cell holds the sum over its units, events, and their number, exposure: a negative binomial count with alpha = n.
"""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import special

from bayes_hte.model.families import FAMILIES
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    compare_on_log_scale,
    compare_with_control,
    compute_exponential_mean,
    convert_mean_by_log,
    refuse_control_sd,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.family_rules import FAMILY_RULES, FamilyRules


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select sums of counts, and numbers of units."""
    return require_statistics(cells, ["events", "exposure"], family="geometric", why="give events and exposure")


def add_likelihood(long_cells: xr.Dataset, eta: Any, nuisance_variables: Any, hold_value: ValueHolder) -> None:
    """Add the observed sums."""
    import pymc as pm
    import pytensor.tensor as pt

    exposure = hold_value("exposure", long_cells["exposure"].values)
    events = hold_value("events", long_cells["events"].values)
    pm.NegativeBinomial("events", mu=exposure * pt.exp(eta), alpha=exposure, observed=events, dims="cell")


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack sums, numbers of units, and log C(n + y − 1, y)."""
    y, n = (cell_statistics[name].values.astype(float) for name in ("events", "exposure"))
    some_units = np.where(n > 0, n, 1.0)
    log_choose = special.gammaln(some_units + y) - special.gammaln(some_units) - special.gammaln(y + 1)
    return {"events": y, "exposure": n, "constant": np.where(n > 0, log_choose, 0.0)}


def compute_log_density(arm_data: ArmCellData, eta: FloatArray, nuisance_values: Any = None) -> FloatArray:
    """Compute y eta − (n + y) log(1 + e^eta) + constant."""
    y, n = arm_data["events"], arm_data["exposure"]
    return np.asarray(y * eta - (n + y) * np.logaddexp(0.0, eta) + arm_data["constant"])


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: Any = None
) -> tuple[FloatArray, FloatArray]:
    """Compute y − (n + y) q and (n + y) q (1 − q), q = 1 / (1 + e^−eta)."""
    q = special.expit(eta)
    trials = arm_data["exposure"] + arm_data["events"]
    return arm_data["events"] - trials * q, trials * q * (1 - q)


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the log mean with half a count added."""
    return np.log((arm_data["events"] + 0.5) / (arm_data["exposure"] + 0.5))


CELL_LIKELIHOOD = CellLikelihood(pack_arrays, compute_log_density, compute_derivatives, guess_eta, is_quadratic=False)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate sums."""
    return {"events": eta.copy(data=rng.negative_binomial(long_cells["exposure"].values, special.expit(-eta.values)))}


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate differences or ratios of means; Var y = m + m²."""
    n = cell_statistics["exposure"].where(cell_statistics["exposure"] > 0)
    cell_means = cell_statistics["events"] / n
    compare = compare_on_log_scale(cell_means, (cell_means + cell_means**2) / n)
    return compare if scale == "link" else compare_with_control(cell_means, (cell_means + cell_means**2) / n, scale)


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute (1 + 1 / m) / n of both arms."""
    baseline, effect, n = parameter_draws["baseline"], parameter_draws["effect"], cell_statistics["exposure"]
    with np.errstate(divide="ignore"):
        control_variance = (1 + np.exp(-baseline)) / n.isel(arm=0, drop=True)
        return control_variance + (1 + np.exp(-baseline - effect)) / n.isel(arm=slice(1, None))


def compute_control_mean(cell_statistics: xr.Dataset) -> float:
    """Compute the mean of all the control's units."""
    control_cells = cell_statistics.isel(arm=0)
    return float(control_cells["events"].sum() / control_cells["exposure"].sum())


FAMILY = Family(
    name="geometric",
    link="log",
    ratio_name="ratio of means",
    mean_is_probability=False,
    formula_lines=("y[i] ~ Geometric(1 / (1 + m[s, a])) from 0", "log m[s, a] = baseline[s] + effect[s, a]"),
    outcome_sentence="Counts are numbers of refusals before a consent; effects are logs of ratios of means.",
    baseline_noun="mean number of refusals",
    pymc_lines=(
        "    mean = exposure * pt.exp(eta)",
        '    pm.NegativeBinomial("events", mu=mean, alpha=exposure, observed=events, dims="cell")',
    ),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=CELL_LIKELIHOOD.compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("events",),
    simulated_totals={"events": "refusals in all cells"},
    compute_mean=compute_exponential_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=refuse_control_sd,
    compute_control_mean=compute_control_mean,
    convert_mean_to_link=convert_mean_by_log,
)


def add_to_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the two lines that a family takes outside of its file: its rules, and its place in the registry."""
    monkeypatch.setitem(FAMILY_RULES, FAMILY.name, FamilyRules('`metric = "histogram"`', {"levels": ("value, count",)}))
    monkeypatch.setitem(FAMILIES, FAMILY.name, FAMILY)
