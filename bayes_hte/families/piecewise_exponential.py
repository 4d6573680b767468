"""Piecewise exponential: time until an event, with censoring; hazards constant within intervals.

failures[s, a, j] ~ Poisson(at_risk[s, a, j] * hazard[s, a, j])
log hazard[s, a, j] = baseline[s] + hazards[j] + effect[s, a],   hazards of the first interval 0

The effect is a log hazard ratio, the same in all intervals. The likelihood of censored times under hazards that are
constant within intervals is that of Poisson counts (Holford 1980, Biometrics 36:299), up to a constant. On the
absolute scale an effect is a difference in the probability of the event by a stated time, the horizon; the
difference in survival is its negative.
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.families.family import Array, CellData, Curve, Family, against_control, bounded_exp, need, no_spread
from bayes_hte.layout import Parameters, dim_first
from bayes_hte.priors import Given
from bayes_hte.schema import ARM, INTERVAL, SEGMENT, Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """Failures and time at risk in every interval, and the failures of all intervals together as events."""
    names = ["n", "failures", "at_risk"]
    found = need(cells, names, family="piecewise_exponential", why="make the cells with from_times")
    if int(found["failures"].sum()) == 0:
        raise DataError("no events in any cell: there is nothing to compare; is 1 the code of an event?")
    return found.assign(events=found["failures"].sum(INTERVAL))


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """Poisson counts of every interval in which somebody was at risk."""
    import pymc as pm
    import pytensor.tensor as pt

    exposure = cells["at_risk"].transpose("cell", INTERVAL).values
    cell, interval = np.nonzero(exposure > 0)
    at_risk = given("at_risk", exposure[cell, interval])
    failures = given("failures", cells["failures"].transpose("cell", INTERVAL).values[cell, interval])
    hazards = pt.concatenate([pt.zeros(1), nuisance["hazards"]])

    pm.Poisson("failures", mu=at_risk * pt.exp(eta[cell] + hazards[interval]), observed=failures)


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """Failures and time at risk of every interval, (interval, …), their total, and the part that is constant."""
    last = [dim for dim in cells["failures"].dims if dim != INTERVAL]
    failures = cells["failures"].transpose(INTERVAL, *last).values.astype(float)
    at_risk = cells["at_risk"].transpose(INTERVAL, *last).values.astype(float)
    constant = failures * np.log(np.where(at_risk > 0, at_risk, 1.0)) - special.gammaln(failures + 1)
    return {"failures": failures, "at_risk": at_risk, "events": failures.sum(0), "constant": constant.sum(0)}


def _parts(data: CellData, hazards: Array) -> tuple[Array, Array]:
    """Time at risk weighted by relative hazards, and Σ failures × log relative hazard."""
    exposure, shift = data["at_risk"][0] + 0.0 * hazards[0], 0.0 * hazards[0] + data["constant"]
    for later, hazard in enumerate(hazards, start=1):
        exposure = exposure + data["at_risk"][later] * np.exp(hazard)
        shift = shift + data["failures"][later] * hazard
    return exposure, shift


def density(data: CellData, eta: Array, nuisance: Array | None = None) -> Array:
    """Poisson log density of all intervals together."""
    exposure, shift = _parts(data, _given(nuisance))
    return np.asarray(data["events"] * eta - exposure * bounded_exp(eta) + shift)


def derivatives(data: CellData, eta: Array, nuisance: Array | None = None) -> tuple[Array, Array]:
    """Events − expected, and expected."""
    exposure, _ = _parts(data, _given(nuisance))
    expected = exposure * bounded_exp(eta)
    return data["events"] - expected, expected


def _given(hazards: Array | None) -> Array:
    if hazards is None:
        raise AssertionError("survival was asked for a density without the hazards of its intervals")
    return hazards


def guess(data: CellData) -> Array:
    """The log hazard of all intervals together, with half an event added."""
    exposure = data["at_risk"].sum(0)
    rate = (data["events"].sum() + 0.5) / max(exposure.sum(), 1e-300)
    return np.where(exposure > 0, np.log((data["events"] + 0.5) / (exposure + 0.5 / rate)), 0.0)


def rough(cells: xr.Dataset) -> Array:
    """Log hazards over all cells relative to the first interval's."""
    failures, at_risk = (cells[name].sum((SEGMENT, ARM)).values.astype(float) for name in ("failures", "at_risk"))
    rate = np.log((failures + 0.5) / np.maximum(at_risk, 1e-300))
    return np.asarray(rate[1:] - rate[0])


CURVE = Curve(arrays, density, derivatives, guess, quadratic=False, shared="hazards", each_arm=False, rough=rough)


def log_likelihood(cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
    """Log density of the cell's counts."""
    hazards = dim_first(parameters["hazards"], "later_interval", eta.ndim)
    return eta.copy(data=density(arrays(cells), eta.values, hazards))


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated numbers of events, given the time at risk that there was."""
    exposure, _ = _parts(arrays(cells), dim_first(parameters["hazards"], "later_interval", eta.ndim))
    return {"events": eta.copy(data=rng.poisson(np.minimum(exposure * np.exp(eta.values), 1e15)))}


def lengths(statistics: xr.Dataset, time: float) -> Array:
    """How much of every interval lies before a time: (interval,)."""
    start, end = statistics["start"].values, statistics["end"].values
    return np.asarray(np.clip(np.minimum(end, time) - start, 0.0, None))


def mean(eta: xr.DataArray, parameters: Parameters, statistics: xr.Dataset) -> xr.DataArray:
    """Probability of the event by the horizon."""
    return risk(eta, parameters["hazards"], lengths(statistics, float(statistics.attrs["horizon"])))


def risk(eta: xr.DataArray, hazards: xr.DataArray, spent: Array) -> xr.DataArray:
    """1 − exp(−cumulative hazard) of a unit that spends so much time in every interval."""
    leading = [dim for dim in ("chain", "draw") if dim in eta.dims]
    ordered = eta.transpose(*leading, ...)
    later = np.exp(dim_first(hazards, "later_interval", ordered.ndim))
    relative = spent[0] + np.einsum("j...,j->...", later, spent[1:])
    return ordered.copy(data=-np.expm1(-np.exp(ordered.values) * relative)).transpose(*eta.dims)


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Difference in risk by the horizon; hazard ratio less one, or its logarithm, by Mantel and Haenszel.

    The ratio is that of Mantel and Haenszel over intervals, with the variance of Greenland & Robins (1985, Biometrics
    41:55); NaN where an arm has no event.
    """
    if scale == "absolute":
        return _risk_difference(cells)
    d, t = cells["failures"].astype(float), cells["at_risk"]
    d0, t0 = d.isel({ARM: 0}, drop=True), t.isel({ARM: 0}, drop=True)
    d1, t1 = d.isel({ARM: slice(1, None)}), t.isel({ARM: slice(1, None)})
    both = (t0 + t1).where(t0 + t1 > 0)
    up, down = (d1 * t0 / both).sum(INTERVAL), (d0 * t1 / both).sum(INTERVAL)
    variance = ((d0 + d1) * t0 * t1 / both**2).sum(INTERVAL) / (up * down).where((up > 0) & (down > 0))
    log_ratio = np.log((up / down.where(down > 0)).where(up > 0))
    if scale == "link":
        return xr.Dataset({"raw": log_ratio, "raw_se": np.sqrt(variance)})
    ratio = np.exp(log_ratio)
    return xr.Dataset({"raw": ratio - 1, "raw_se": ratio * np.sqrt(variance)})


def _risk_difference(cells: xr.Dataset) -> xr.Dataset:
    """From every cell's own hazards, with the variance of their sum; where nobody was at risk, unknown."""
    spent = xr.DataArray(lengths(cells, float(cells.attrs["horizon"])), dims=INTERVAL)
    at_risk = cells["at_risk"].where(cells["at_risk"] > 0)
    known = (at_risk.notnull() | (spent == 0)).all(INTERVAL)
    total = (spent * cells["failures"] / at_risk).sum(INTERVAL).where(known)
    variance = (spent**2 * cells["failures"] / at_risk**2).sum(INTERVAL).where(known)
    survival = total.copy(data=np.exp(-total.values))
    return against_control(1 - survival, survival**2 * variance, "absolute")


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """1 / expected events of both arms, at the drawn hazards."""
    baseline, effect, hazards = parameters["baseline"], parameters["effect"], parameters["hazards"]
    relative = hazards.copy(data=np.exp(hazards.values)).rename(later_interval=INTERVAL).reset_coords(drop=True)
    later = cells["at_risk"].isel({INTERVAL: slice(1, None)}).drop_vars([INTERVAL, "start", "end"], errors="ignore")
    first = cells["at_risk"].isel({INTERVAL: 0}, drop=True)
    exposure = first + (later * relative.drop_vars(INTERVAL, errors="ignore")).sum(INTERVAL)
    with np.errstate(divide="ignore"):
        control = 1 / (exposure.isel(arm=0, drop=True) * np.exp(baseline))
        found: xr.DataArray = control + 1 / (exposure.isel(arm=slice(1, None)) * np.exp(baseline + effect))
    return found


FAMILY = Family(
    name="piecewise_exponential",
    link="log",
    ratio="hazard ratio",
    percent=True,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=log_likelihood,
    predictive=predictive,
    predictive_names=("events",),
    mean=mean,
    raw=raw,
    effect_variance=effect_variance,
    control_location=no_spread,
)
