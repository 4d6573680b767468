"""Binomial: how many of n units did it.

events[s, a] ~ Binomial(n[s, a], p[s, a]);   logit p = baseline[s] + effect[s, a]
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    StandIn,
    compare_with_control,
    convert_mean_by_logit,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec.cell_table import EffectScale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select n and events of every cell."""
    way_out = "every outcome must be 0 or 1; for other outcomes use family normal or mean"
    cell_statistics = require_statistics(cells, ["n", "events"], family="binomial", why=way_out)
    if int(cell_statistics["events"].sum()) == 0:
        raise DataError("no events in any cell: there is nothing to compare; is the outcome the right column?")
    return cell_statistics


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed events: Binomial with a logit link."""
    import pymc as pm

    n, events = hold_value("n", long_cells["n"].values), hold_value("events", long_cells["events"].values)

    pm.Binomial("events", n=n, logit_p=eta, observed=events, dims="cell")


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack n, events and log C(n, events)."""
    # log C(n, y) = log Γ(n + 1) − log Γ(y + 1) − log Γ(n − y + 1)
    n, y = cell_statistics["n"].values.astype(float), cell_statistics["events"].values.astype(float)
    log_choose = special.gammaln(n + 1) - special.gammaln(y + 1) - special.gammaln(n - y + 1)
    return {"n": n, "events": y, "log_choose": np.asarray(log_choose)}


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute log C(n, y) + y eta − n log(1 + e^eta) of every cell.

    The plain formula of the softplus is wrong by at most 1e-16, and the fastest there is.
    """
    # In place, for this is where the fast engine spends its time: softplus = log(1 + e^eta)
    with np.errstate(over="ignore"):
        softplus = np.exp(eta)
    softplus += 1.0
    np.log(softplus, out=softplus)
    if np.isinf(softplus).any():  # beyond 709 the softplus is eta itself
        softplus = np.where(np.isinf(softplus), eta, softplus)
    # log p = y eta − n softplus + log C(n, y)
    softplus *= arm_data["n"]
    log_density: FloatArray = arm_data["events"] * eta
    log_density -= softplus
    log_density += arm_data["log_choose"]
    return log_density


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute y − n p and n p (1 − p)."""
    # p = 1 / (1 + e^−eta), in place
    p = np.negative(eta)
    with np.errstate(over="ignore"):
        np.exp(p, out=p)
    p += 1.0
    np.reciprocal(p, out=p)
    expected_events: FloatArray = arm_data["n"] * p
    # From here on p is the curvature: (1 − p) n p
    np.subtract(1.0, p, out=p)
    p *= expected_events
    return arm_data["events"] - expected_events, p


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the log-odds with half an event added to both sides: a place to start looking, nothing more."""
    return np.log((arm_data["events"] + 0.5) / (arm_data["n"] - arm_data["events"] + 0.5))


CELL_LIKELIHOOD = CellLikelihood(pack_arrays, compute_log_density, compute_derivatives, guess_eta, is_quadratic=False)


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate event counts."""
    event_probability = invert_logit(eta)
    return {
        "events": event_probability.copy(
            data=rng.binomial(
                long_cells["n"].broadcast_like(event_probability).transpose(*event_probability.dims).values,
                event_probability.values,
            )
        )
    }


def compute_mean(eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset) -> xr.DataArray:
    """Compute the probability of the event from its log-odds."""
    return invert_logit(eta)


def invert_logit(eta: xr.DataArray) -> xr.DataArray:
    """Invert the logit, with the dims of eta."""
    return eta.copy(data=special.expit(eta.values))


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate risk differences, risk ratios less one, or log odds ratios, without any pooling.

    A cell with no event (or nothing but events) has a Wald variance of zero, which claims certainty; its
    variance is taken at (events + 1) / (n + 2) instead (Agresti & Caffo 2000), the estimate itself is
    untouched. A log odds ratio with such a cell does not exist: NaN, never a silent half event.
    """
    n, y = cell_statistics["n"], cell_statistics["events"]
    event_rate = y / n.where(n > 0)
    is_degenerate = (y == 0) | (y == n)
    if scale == "link":
        # Var logit(y / n) ≈ 1 / y + 1 / (n − y)   (Woolf)
        log_odds = event_rate.copy(data=special.logit(event_rate.where(~is_degenerate).values))
        return compare_with_control(log_odds, 1 / y.where(~is_degenerate) + 1 / (n - y).where(~is_degenerate), "link")
    # Var(y / n) = p (1 − p) / n
    adjusted_rate = ((y + 1) / (n + 2)).where(is_degenerate, event_rate)
    return compare_with_control(event_rate, adjusted_rate * (1 - adjusted_rate) / n.where(n > 0), scale)


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute 1 / Fisher information of the log odds ratio at the drawn rates, also for cells without events."""
    baseline, effect = parameter_draws["baseline"], parameter_draws["effect"]
    n_control = cell_statistics["n"].isel(arm=0, drop=True)
    n_treated = cell_statistics["n"].isel(arm=slice(1, None))
    with np.errstate(divide="ignore"):
        return _invert_information(n_control, baseline) + _invert_information(n_treated, baseline + effect)


def _invert_information(n: xr.DataArray, eta: xr.DataArray) -> xr.DataArray:
    # The Fisher information about eta is n p (1 − p).
    p = invert_logit(eta)
    return 1 / (n * p * (1 - p))


def measure_control_outcome(cell_statistics: xr.Dataset) -> tuple[float, float]:
    """Measure rate and SD of the control's outcome."""
    # A unit's outcome is 0 or 1: SD² = p (1 − p)
    control_cells = cell_statistics.isel(arm=0)
    event_rate = float(control_cells["events"].sum() / control_cells["n"].sum())
    return event_rate, float(np.sqrt(event_rate * (1 - event_rate)))


def compute_control_mean(cell_statistics: xr.Dataset) -> float:
    """Compute the event rate of all the control's units."""
    return measure_control_outcome(cell_statistics)[0]


FAMILY = Family(
    name="binomial",
    link="logit",
    ratio_name="odds ratio",
    mean_is_probability=True,
    formula_lines=(
        "events[s, a] ~ Binomial(n[s, a], p[s, a])",
        "logit p[s, a] = baseline[s] + effect[s, a]",
    ),
    outcome_sentence="Each unit did it or did not; effects are log odds ratios between an arm and the control.",
    pymc_lines=('    pm.Binomial("events", n=n, logit_p=eta, observed=events, dims="cell")',),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=CELL_LIKELIHOOD.compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("events",),
    simulated_totals={"events": "events in all cells"},
    compute_mean=compute_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=measure_control_outcome,
    compute_control_mean=compute_control_mean,
    convert_mean_to_link=convert_mean_by_logit,
    stand_ins=(StandIn("counts", "logit"), StandIn("moments", "logit")),
)
