"""Piecewise exponential: time until an event, with censoring; hazards constant within intervals.

failures[s, a, j] ~ Poisson(at_risk[s, a, j] * hazard[s, a, j])
log hazard[s, a, j] = baseline[s] + hazards[j] + effect[s, a],   hazards of the first interval 0

The effect is a log hazard ratio, the same in all intervals. The likelihood of censored times under hazards that are
constant within intervals is that of Poisson counts (Holford 1980, Biometrics 36:299), up to a constant. On the
absolute scale an effect is a difference in the probability of the event by a stated time, the horizon; the
difference in survival is its negative.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.cells.checks.proportional_hazards import describe_changing_hazards
from bayes_hte.errors import DataError
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood, FloatArray
from bayes_hte.model.families.family import (
    Family,
    NuisanceParameter,
    compare_with_control,
    compute_bounded_exp,
    refuse_control_sd,
    require_statistics,
)
from bayes_hte.model.long_form import ParameterDraws, move_dim_first
from bayes_hte.model.priors import ValueHolder, compute_central_interval
from bayes_hte.spec.cell_table import ARM, INTERVAL, SEGMENT, EffectScale
from bayes_hte.spec.distributions import Distribution

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def select_statistics(cells: xr.Dataset) -> xr.Dataset:
    """Select failures and time at risk in every interval, and add the failures of all intervals together as events."""
    statistic_names = ["n", "failures", "at_risk"]
    cell_statistics = require_statistics(
        cells, statistic_names, family="piecewise_exponential", why="make the cells with from_times"
    )
    if int(cell_statistics["failures"].sum()) == 0:
        raise DataError("no events in any cell: there is nothing to compare; is 1 the code of an event?")
    return cell_statistics.assign(events=cell_statistics["failures"].sum(INTERVAL))


def add_likelihood(
    long_cells: xr.Dataset,
    eta: "TensorVariable",
    nuisance_variables: "dict[str, TensorVariable]",
    hold_value: ValueHolder,
) -> None:
    """Add the observed failures: Poisson counts of every interval in which somebody was at risk."""
    import pymc as pm
    import pytensor.tensor as pt

    time_at_risk = long_cells["at_risk"].transpose("cell", INTERVAL).values
    failure_counts = long_cells["failures"].transpose("cell", INTERVAL).values
    cell_index, interval_index = np.nonzero(time_at_risk > 0)
    at_risk = hold_value("at_risk", time_at_risk[cell_index, interval_index])
    failures = hold_value("failures", failure_counts[cell_index, interval_index])
    log_hazards = pt.concatenate([pt.zeros(1), nuisance_variables["hazards"]])

    pm.Poisson("failures", mu=at_risk * pt.exp(eta[cell_index] + log_hazards[interval_index]), observed=failures)


def pack_arrays(cell_statistics: xr.Dataset) -> dict[str, FloatArray]:
    """Pack failures and time at risk of every interval, (interval, …), total failures, and what is constant."""
    cell_dims = [dim for dim in cell_statistics["failures"].dims if dim != INTERVAL]
    failures = cell_statistics["failures"].transpose(INTERVAL, *cell_dims).values.astype(float)
    at_risk = cell_statistics["at_risk"].transpose(INTERVAL, *cell_dims).values.astype(float)
    # constant = Σ_j d_j log t_j − log d_j!
    log_constant = failures * np.log(np.where(at_risk > 0, at_risk, 1.0)) - special.gammaln(failures + 1)
    return {"failures": failures, "at_risk": at_risk, "events": failures.sum(0), "constant": log_constant.sum(0)}


def _collapse_intervals(arm_data: ArmCellData, log_hazards: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Add up time at risk weighted by relative hazards, and failures times log relative hazards."""
    # exposure = t_0 + Σ_j t_j e^hazard_j,   shift = Σ_j d_j hazard_j + constant
    # Zeros give both the shape of the points, which a single interval would not: it has no hazards beside its own.
    point_zeros = np.zeros(log_hazards.shape[1:])
    weighted_exposure, log_shift = arm_data["at_risk"][0] + point_zeros, arm_data["constant"] + point_zeros
    for interval_index, log_hazard in enumerate(log_hazards, start=1):
        weighted_exposure = weighted_exposure + arm_data["at_risk"][interval_index] * np.exp(log_hazard)
        log_shift = log_shift + arm_data["failures"][interval_index] * log_hazard
    return weighted_exposure, log_shift


def compute_log_density(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> FloatArray:
    """Compute the Poisson log density of all intervals together."""
    # log p = d eta − exposure e^eta + shift
    weighted_exposure, log_shift = _collapse_intervals(arm_data, _require_hazards(nuisance_values))
    return np.asarray(arm_data["events"] * eta - weighted_exposure * compute_bounded_exp(eta) + log_shift)


def compute_derivatives(
    arm_data: ArmCellData, eta: FloatArray, nuisance_values: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute events − expected events, and expected events."""
    weighted_exposure, _ = _collapse_intervals(arm_data, _require_hazards(nuisance_values))
    expected_events = weighted_exposure * compute_bounded_exp(eta)
    return arm_data["events"] - expected_events, expected_events


def _require_hazards(nuisance_values: FloatArray | None) -> FloatArray:
    if nuisance_values is None:
        raise AssertionError("survival was asked for a density without the hazards of its intervals")
    return nuisance_values


def guess_eta(arm_data: ArmCellData) -> FloatArray:
    """Guess the log hazard of all intervals together, with half an event added."""
    total_exposure = arm_data["at_risk"].sum(0)
    arm_rate = (arm_data["events"].sum() + 0.5) / max(total_exposure.sum(), 1e-300)
    return np.where(total_exposure > 0, np.log((arm_data["events"] + 0.5) / (total_exposure + 0.5 / arm_rate)), 0.0)


def guess_nuisance(cell_statistics: xr.Dataset) -> FloatArray:
    """Guess the log hazards over all cells relative to the first interval's."""
    failures, at_risk = (
        cell_statistics[name].sum((SEGMENT, ARM)).values.astype(float) for name in ("failures", "at_risk")
    )
    log_rates = np.log((failures + 0.5) / np.maximum(at_risk, 1e-300))
    return np.asarray(log_rates[1:] - log_rates[0])


CELL_LIKELIHOOD = CellLikelihood(
    pack_arrays,
    compute_log_density,
    compute_derivatives,
    guess_eta,
    is_quadratic=False,
    nuisance_name="hazards",
    nuisance_per_arm=False,
    guess_nuisance=guess_nuisance,
)


def compute_log_likelihood(long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute the log density of each cell's counts."""
    log_hazards = move_dim_first(parameter_draws["hazards"], "later_interval", eta.ndim)
    return eta.copy(data=compute_log_density(pack_arrays(long_cells), eta.values, log_hazards))


def simulate_data(
    long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Simulate numbers of events, given the time at risk that there was."""
    log_hazards = move_dim_first(parameter_draws["hazards"], "later_interval", eta.ndim)
    weighted_exposure, _ = _collapse_intervals(pack_arrays(long_cells), log_hazards)
    # Draws far out in a prior have means that are too large for NumPy's Poisson numbers.
    return {"events": eta.copy(data=rng.poisson(np.minimum(weighted_exposure * compute_bounded_exp(eta.values), 1e15)))}


def measure_time_in_intervals(cell_statistics: xr.Dataset, until_time: float) -> FloatArray:
    """Measure the part of every interval that lies before a time, (interval,)."""
    interval_start, interval_end = cell_statistics["start"].values, cell_statistics["end"].values
    return np.asarray(np.clip(np.minimum(interval_end, until_time) - interval_start, 0.0, None))


def compute_mean(eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset) -> xr.DataArray:
    """Compute the probability of the event by the horizon."""
    return compute_risk_by_time(eta, parameter_draws, cell_statistics, float(cell_statistics.attrs["horizon"]))


def compute_risk_by_time(
    eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset, until_time: float
) -> xr.DataArray:
    """Compute the probability of the event by a time within the follow-up."""
    return compute_risk(eta, parameter_draws["hazards"], measure_time_in_intervals(cell_statistics, until_time))


def compute_risk(eta: xr.DataArray, log_hazards: xr.DataArray, interval_time: FloatArray) -> xr.DataArray:
    """Compute 1 − exp(−cumulative hazard) of a unit that spends the given times in the intervals, (interval,)."""
    sample_dims = [dim for dim in ("chain", "draw") if dim in eta.dims]
    ordered_eta = eta.transpose(*sample_dims, ...)
    relative_hazards = np.exp(move_dim_first(log_hazards, "later_interval", ordered_eta.ndim))
    # cumulative hazard = e^eta (t_0 + Σ_j t_j e^hazard_j)
    weighted_time = interval_time[0] + np.einsum("j...,j->...", relative_hazards, interval_time[1:])
    return ordered_eta.copy(data=-np.expm1(-np.exp(ordered_eta.values) * weighted_time)).transpose(*eta.dims)


def compute_restricted_mean(
    eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset, until_time: float
) -> xr.DataArray:
    """Compute the mean time without the event up to a time, ∫ S(u) du: the area under the survival curve."""
    sample_dims = [dim for dim in ("chain", "draw") if dim in eta.dims]
    ordered_eta = eta.transpose(*sample_dims, ...)
    log_hazards = move_dim_first(parameter_draws["hazards"], "later_interval", ordered_eta.ndim)
    base_hazard, cumulative_hazard = np.exp(ordered_eta.values), np.zeros(ordered_eta.shape)
    restricted_mean = np.zeros(ordered_eta.shape)
    for interval_index, time in enumerate(measure_time_in_intervals(cell_statistics, until_time)):
        relative_hazard = 1.0 if interval_index == 0 else np.exp(log_hazards[interval_index - 1])
        added_hazard = base_hazard * relative_hazard * time
        # ∫ over the interval = S(start) time (1 − e^−x) / x,   x = hazard × time; → time as x → 0
        mean_share = -np.expm1(-added_hazard) / np.where(added_hazard > 0, added_hazard, 1.0)
        restricted_mean += np.exp(-cumulative_hazard) * time * np.where(added_hazard > 0, mean_share, 1.0)
        cumulative_hazard = cumulative_hazard + added_hazard
    return ordered_eta.copy(data=restricted_mean).transpose(*eta.dims)


def list_misfits(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> list[str]:
    """List arms whose hazard ratio changes over time, where the model has one for all times."""
    return [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in describe_changing_hazards(cell_statistics)]


def estimate_raw_effects(cell_statistics: xr.Dataset, scale: EffectScale) -> xr.Dataset:
    """Estimate differences in risk by the horizon; or hazard ratios less one, or their logs, by Mantel and Haenszel.

    The ratio is that of Mantel and Haenszel over intervals, with the variance of Greenland & Robins (1985, Biometrics
    41:55); NaN where an arm has no event.
    """
    if scale == "absolute":
        return _estimate_risk_difference(cell_statistics)
    d, t = cell_statistics["failures"].astype(float), cell_statistics["at_risk"]
    d0, t0 = d.isel({ARM: 0}, drop=True), t.isel({ARM: 0}, drop=True)
    d1, t1 = d.isel({ARM: slice(1, None)}), t.isel({ARM: slice(1, None)})
    # ratio = Σ_j d₁ t₀ / (t₀ + t₁)  /  Σ_j d₀ t₁ / (t₀ + t₁)
    # Var log ratio ≈ Σ_j (d₀ + d₁) t₀ t₁ / (t₀ + t₁)²  /  (product of the two sums)
    total_time = (t0 + t1).where(t0 + t1 > 0)
    treated_sum, control_sum = (d1 * t0 / total_time).sum(INTERVAL), (d0 * t1 / total_time).sum(INTERVAL)
    both_sums = (treated_sum * control_sum).where((treated_sum > 0) & (control_sum > 0))
    log_ratio_variance = ((d0 + d1) * t0 * t1 / total_time**2).sum(INTERVAL) / both_sums
    log_ratio = np.log((treated_sum / control_sum.where(control_sum > 0)).where(treated_sum > 0))
    if scale == "link":
        return xr.Dataset({"raw": log_ratio, "raw_se": np.sqrt(log_ratio_variance)})
    hazard_ratio = np.exp(log_ratio)
    return xr.Dataset({"raw": hazard_ratio - 1, "raw_se": hazard_ratio * np.sqrt(log_ratio_variance)})


def _estimate_risk_difference(cell_statistics: xr.Dataset) -> xr.Dataset:
    """Estimate differences in risk from every cell's own hazards; NaN where nobody was at risk in an interval."""
    horizon = float(cell_statistics.attrs["horizon"])
    interval_time = xr.DataArray(measure_time_in_intervals(cell_statistics, horizon), dims=INTERVAL)
    at_risk = cell_statistics["at_risk"].where(cell_statistics["at_risk"] > 0)
    is_known = (at_risk.notnull() | (interval_time == 0)).all(INTERVAL)
    # H = Σ_j time_j d_j / t_j,   Var H ≈ Σ_j time_j² d_j / t_j²,   risk = 1 − e^−H,   Var risk ≈ e^−2H Var H
    cumulative_hazard = (interval_time * cell_statistics["failures"] / at_risk).sum(INTERVAL).where(is_known)
    hazard_variance = (interval_time**2 * cell_statistics["failures"] / at_risk**2).sum(INTERVAL).where(is_known)
    survival_probability = cumulative_hazard.copy(data=np.exp(-cumulative_hazard.values))
    return compare_with_control(1 - survival_probability, survival_probability**2 * hazard_variance, "absolute")


def compute_effect_variance(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute 1 / expected events of both arms, at the drawn hazards."""
    baseline, effect, log_hazards = parameter_draws["baseline"], parameter_draws["effect"], parameter_draws["hazards"]
    relative_hazards = (
        log_hazards.copy(data=np.exp(log_hazards.values)).rename(later_interval=INTERVAL).reset_coords(drop=True)
    )
    # By position, for the labels of the draws' intervals need not be those of the cells.
    relative_hazards = relative_hazards.drop_vars(INTERVAL, errors="ignore")
    at_risk = cell_statistics["at_risk"]
    later_exposure = at_risk.isel({INTERVAL: slice(1, None)}).drop_vars([INTERVAL, "start", "end"], errors="ignore")
    # exposure = t_0 + Σ_j t_j e^hazard_j;   expected events = exposure e^eta
    weighted_exposure = at_risk.isel({INTERVAL: 0}, drop=True) + (later_exposure * relative_hazards).sum(INTERVAL)
    with np.errstate(divide="ignore"):
        control_variance = 1 / (weighted_exposure.isel(arm=0, drop=True) * np.exp(baseline))
        total_variance: xr.DataArray = control_variance + 1 / (
            weighted_exposure.isel(arm=slice(1, None)) * np.exp(baseline + effect)
        )
    return total_variance


def compute_control_mean(cell_statistics: xr.Dataset) -> float:
    """Compute the risk by the horizon from the control's hazards over all segments."""
    # risk = 1 − exp(−Σ_j hazard_j time_j),   hazard_j = failures_j / time at risk_j
    interval_totals = cell_statistics.isel({ARM: 0})[["failures", "at_risk"]].sum(SEGMENT)
    interval_time = measure_time_in_intervals(cell_statistics, float(cell_statistics.attrs["horizon"]))
    time_at_risk = interval_totals["at_risk"].where(interval_totals["at_risk"] > 0)
    interval_hazards = (interval_totals["failures"] / time_at_risk).fillna(0.0).values
    return float(-math.expm1(-float(interval_hazards @ interval_time)))


def convert_mean_to_link(risk: float) -> float:
    """Convert a risk p by the horizon to the log cumulative hazard log(−log(1 − p))."""
    return math.log(-math.log1p(-risk))


def describe_nuisance_prior(prior: Distribution, phrase_amount: Callable[[float], str]) -> str:
    """Describe how far hazards of later intervals may be from the first one's."""
    low, high = (math.exp(value) for value in compute_central_interval(prior))
    return f"Hazard of a later interval relative to the first: 9 times in 10 between {low:.2g} and {high:.2g}."


def label_nuisance_dims(cells: xr.Dataset) -> dict[str, list[str]]:
    """Label the hazards by their intervals, the first left out."""
    return {"later_interval": [str(label) for label in cells[INTERVAL].values[1:]]}


FAMILY = Family(
    name="piecewise_exponential",
    link="log",
    ratio_name="hazard ratio",
    mean_is_probability=True,
    formula_lines=(
        "failures[s, a, j] ~ Poisson(at_risk[s, a, j] * hazard[s, a, j])   in interval j",
        "log hazard[s, a, j] = baseline[s] + hazards[j] + effect[s, a]   hazards of the first interval 0",
    ),
    outcome_sentence="Hazards are constant within intervals and proportional between arms; effects are log hazard "
    "ratios.",
    baseline_noun="hazard in the first interval",
    pymc_lines=(
        "    cell, interval = np.nonzero(at_risk > 0)",
        "    log_hazard = eta[cell] + pt.concatenate([pt.zeros(1), hazards])[interval]",
        "    expected = at_risk[cell, interval] * pt.exp(log_hazard)",
        '    pm.Poisson("failures", mu=expected, observed=failures[cell, interval])',
    ),
    select_statistics=select_statistics,
    add_likelihood=add_likelihood,
    cell_likelihood=CELL_LIKELIHOOD,
    compute_log_likelihood=compute_log_likelihood,
    simulate_data=simulate_data,
    simulated_names=("events",),
    simulated_totals={"events": "events in all cells"},
    compute_mean=compute_mean,
    estimate_raw_effects=estimate_raw_effects,
    compute_effect_variance=compute_effect_variance,
    measure_control_outcome=refuse_control_sd,
    compute_control_mean=compute_control_mean,
    convert_mean_to_link=convert_mean_to_link,
    nuisance=NuisanceParameter(
        name="hazards",
        dims=("later_interval",),
        index_letter="j",
        describe_prior=describe_nuisance_prior,
        label_dims=label_nuisance_dims,
    ),
    compute_risk_by_time=compute_risk_by_time,
    compute_restricted_mean=compute_restricted_mean,
    list_misfits=list_misfits,
)
