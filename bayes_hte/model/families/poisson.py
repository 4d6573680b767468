"""Poisson: events over an exposure: infections per catheter-day, clicks per visit, calls per month.

events[s, a] ~ Poisson(exposure[s, a] * rate[s, a]);   log rate = baseline[s] + effect[s, a]
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError, ModelError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    StandIn,
    compare_on_log_scale,
    compare_with_control,
    compute_bounded_exp,
    compute_exponential_mean,
    convert_mean_by_log,
    refuse_control_sd,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec.cell_table import EffectScale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

WHOLE_NUMBER_TOLERANCE = 1e-6
"""Relative distance from a whole number that rounding may leave in a sum of whole outcomes."""


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select events and exposure; where cells hold counts per unit with their mean, every unit is exposed once."""
    if "exposure" not in cells and {"n", "mean", "ss"} <= set(map(str, cells.data_vars)):
        cells = _count_events_per_unit(cells)
    elif "exposure" not in cells and "events" in cells:
        raise ModelError(
            'family "poisson" needs events and exposure; these cells count units that did or did not: use "binomial"'
        )
    statistic_names = ["events", "exposure", *(name for name in ("n",) if name in cells)]
    cell_statistics = require_statistics(
        cells, statistic_names, family="poisson", why="give events and exposure, or rows whose outcome is a count"
    )
    if int(cell_statistics["events"].sum()) == 0:
        raise DataError("no events in any cell: there is nothing to compare; is the outcome the right column?")
    return cell_statistics


def _count_events_per_unit(cells: xr.Dataset) -> xr.Dataset:
    # A cell of no units has no mean, and no events.
    n = cells["n"].astype(float)
    outcome_totals = (n * cells["mean"]).fillna(0.0)
    if bool((outcome_totals < -WHOLE_NUMBER_TOLERANCE).any()) or bool(
        (abs(outcome_totals - outcome_totals.round()) > WHOLE_NUMBER_TOLERANCE * (1 + abs(outcome_totals))).any()
    ):
        raise ModelError('family "poisson" counts events: the outcome must be whole numbers; use "normal" or "mean"')
    event_counts = outcome_totals.round().astype(np.int64)
    return xr.Dataset({"n": cells["n"], "events": event_counts, "exposure": n}).assign_attrs(cells.attrs)


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed events: Poisson with a log link; the exposure is an offset."""
    import pymc as pm
    import pytensor.tensor as pt

    exposure = hold_value("exposure", long_cells["exposure"].values)
    events = hold_value("events", long_cells["events"].values)

    pm.Poisson("events", mu=exposure * pt.exp(eta), observed=events, dims="cell")


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack events, exposure, and the part of the log density that is constant."""
    events, exposure = cell_statistics["events"].values.astype(float), cell_statistics["exposure"].values.astype(float)
    # constant = y log exposure − log y!
    positive_exposure = np.where(exposure > 0, exposure, 1.0)
    return {
        "events": events,
        "exposure": exposure,
        "constant": events * np.log(positive_exposure) - special.gammaln(events + 1),
    }


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute y (eta + log exposure) − exposure e^eta − log y!, in place."""
    log_density = compute_bounded_exp(eta)
    log_density *= -arm_data["exposure"]
    log_density += arm_data["events"] * eta
    log_density += arm_data["constant"]
    return log_density


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute y − expected events, and expected events."""
    expected_events = compute_bounded_exp(eta)
    expected_events *= arm_data["exposure"]
    return arm_data["events"] - expected_events, expected_events


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the log rate with half an event added: a place to start looking, nothing more."""
    has_exposure = arm_data["exposure"] > 0
    arm_rate = (arm_data["events"].sum() + 0.5) / max(arm_data["exposure"].sum(), 1e-300)
    # Half an event more over as much exposure as half an event takes at the arm's rate.
    smoothed_rate = (arm_data["events"] + 0.5) / (arm_data["exposure"] + 0.5 / arm_rate)
    return np.where(has_exposure, np.log(smoothed_rate), 0.0)


CELL_LIKELIHOOD = CellLikelihood(pack_arrays, compute_log_density, compute_derivatives, guess_eta, is_quadratic=False)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate event counts."""
    # Draws far out in a prior have means that are too large for NumPy's Poisson numbers.
    return {
        "events": eta.copy(
            data=rng.poisson(np.minimum(long_cells["exposure"].values * compute_bounded_exp(eta.values), 1e15))
        )
    }


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate rate differences, rate ratios less one, or log rate ratios, without any pooling.

    A cell without events has a variance of zero, which claims certainty: its variance is that of one event. A log
    ratio with such a cell does not exist: NaN, never a silent half event.
    """
    exposure = cell_statistics["exposure"].where(cell_statistics["exposure"] > 0)
    # Var(y / exposure) = y / exposure²
    event_rate = cell_statistics["events"] / exposure
    if scale == "link":
        return compare_on_log_scale(event_rate, cell_statistics["events"] / exposure**2)
    return compare_with_control(event_rate, cell_statistics["events"].clip(min=1) / exposure**2, scale)


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute 1 / expected events of both arms, at the drawn rates, also for cells without events."""
    baseline, effect = parameter_draws["baseline"], parameter_draws["effect"]
    exposure = cell_statistics["exposure"]
    with np.errstate(divide="ignore"):
        control_variance = 1 / (exposure.isel(arm=0, drop=True) * np.exp(baseline))
        return control_variance + 1 / (exposure.isel(arm=slice(1, None)) * np.exp(baseline + effect))


def compute_control_mean(cell_statistics: xr.Dataset) -> float:
    """Compute the rate over all the control's exposure."""
    control_cells = cell_statistics.isel(arm=0)
    return float(control_cells["events"].sum() / control_cells["exposure"].sum())


FAMILY = Family(
    name="poisson",
    link="log",
    ratio_name="rate ratio",
    mean_is_probability=False,
    formula_lines=(
        "events[s, a] ~ Poisson(exposure[s, a] * rate[s, a])",
        "log rate[s, a] = baseline[s] + effect[s, a]",
    ),
    outcome_sentence="Events come one by one over an exposure; effects are log rate ratios between an arm and the "
    "control.",
    baseline_noun="rate",
    pymc_lines=('    pm.Poisson("events", mu=exposure * pt.exp(eta), observed=events, dims="cell")',),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=CELL_LIKELIHOOD.compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("events",),
    simulated_totals={"events": "events in all cells"},
    compute_mean=compute_exponential_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=refuse_control_sd,
    compute_control_mean=compute_control_mean,
    convert_mean_to_link=convert_mean_by_log,
    stand_ins=(StandIn("rates", "log"), StandIn("moments", "log")),
)
