"""Poisson: events over an exposure: infections per catheter-day, clicks per visit, calls per month.

events[s, a] ~ Poisson(exposure[s, a] * rate[s, a]);   log rate = baseline[s] + effect[s, a]
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError, ModelError
from bayes_hte.families.family import (
    Array,
    CellData,
    Curve,
    Family,
    against_control,
    bounded_exp,
    exponential,
    need,
    no_spread,
    on_log_scale,
)
from bayes_hte.layout import Parameters
from bayes_hte.priors import Given
from bayes_hte.schema import Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

WHOLE = 1e-6
"""How far from a whole number, relative to it, a sum of whole outcomes may be after rounding."""


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """events and exposure; from counts per unit with their mean, every unit is exposed once."""
    if "exposure" not in cells and {"n", "mean", "ss"} <= set(map(str, cells.data_vars)):
        cells = _per_unit(cells)
    elif "exposure" not in cells and "events" in cells:
        raise ModelError(
            'family "poisson" needs events and exposure; these cells count units that did or did not: use "binomial"'
        )
    names = ["events", "exposure", *(name for name in ("n",) if name in cells)]
    found = need(cells, names, family="poisson", why="give events and exposure, or rows whose outcome is a count")
    if int(found["events"].sum()) == 0:
        raise DataError("no events in any cell: there is nothing to compare; is the outcome the right column?")
    return found


def _per_unit(cells: xr.Dataset) -> xr.Dataset:
    n = cells["n"].astype(float)
    total = (n * cells["mean"]).fillna(0.0)
    if bool((total < -WHOLE).any()) or bool((abs(total - total.round()) > WHOLE * (1 + abs(total))).any()):
        raise ModelError('family "poisson" counts events: the outcome must be whole numbers; use "normal" or "mean"')
    events = total.round().astype(np.int64)
    return xr.Dataset({"n": cells["n"], "events": events, "exposure": n}).assign_attrs(cells.attrs)


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """Poisson with a log link; the exposure is an offset."""
    import pymc as pm
    import pytensor.tensor as pt

    exposure, events = given("exposure", cells["exposure"].values), given("events", cells["events"].values)

    pm.Poisson("events", mu=exposure * pt.exp(eta), observed=events, dims="cell")


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """events, exposure, and the part of the log density that is constant."""
    events, exposure = cells["events"].values.astype(float), cells["exposure"].values.astype(float)
    there = np.where(exposure > 0, exposure, 1.0)
    return {"events": events, "exposure": exposure, "constant": events * np.log(there) - special.gammaln(events + 1)}


def density(data: CellData, eta: Array, nuisance: Array | None = None) -> Array:
    """y (eta + log exposure) − exposure e^eta − log y!"""
    density = bounded_exp(eta)
    density *= -data["exposure"]
    density += data["events"] * eta
    density += data["constant"]
    return density


def derivatives(data: CellData, eta: Array, nuisance: Array | None = None) -> tuple[Array, Array]:
    """y − expected, and expected."""
    expected = bounded_exp(eta)
    expected *= data["exposure"]
    return data["events"] - expected, expected


def guess(data: CellData) -> Array:
    """The log rate with half an event added: a place to start looking, nothing more."""
    there = data["exposure"] > 0
    rate = (data["events"].sum() + 0.5) / max(data["exposure"].sum(), 1e-300)
    # Half an event more over as much exposure as half an event takes at the arm's rate.
    own = (data["events"] + 0.5) / (data["exposure"] + 0.5 / rate)
    return np.where(there, np.log(own), 0.0)


CURVE = Curve(arrays, density, derivatives, guess, quadratic=False)


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated event counts."""
    return {"events": eta.copy(data=rng.poisson(np.minimum(cells["exposure"].values * np.exp(eta.values), 1e15)))}


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Rate difference, rate ratio less one, or log rate ratio, without any pooling.

    A cell without events has a variance of zero, which claims certainty: its variance is that of one event. A log
    ratio with such a cell does not exist: NaN, never a silent half event.
    """
    exposure = cells["exposure"].where(cells["exposure"] > 0)
    rate = cells["events"] / exposure
    if scale == "link":
        return on_log_scale(rate, cells["events"] / exposure**2)
    return against_control(rate, cells["events"].clip(min=1) / exposure**2, scale)


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """1 / expected events of both arms, at the drawn rates: defined for cells without events too."""
    baseline, effect = parameters["baseline"], parameters["effect"]
    exposure = cells["exposure"]
    with np.errstate(divide="ignore"):
        control = 1 / (exposure.isel(arm=0, drop=True) * np.exp(baseline))
        return control + 1 / (exposure.isel(arm=slice(1, None)) * np.exp(baseline + effect))


FAMILY = Family(
    name="poisson",
    link="log",
    ratio="rate ratio",
    percent=False,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=CURVE.log_likelihood,
    predictive=predictive,
    predictive_names=("events",),
    mean=exponential,
    raw=raw,
    effect_variance=effect_variance,
    control_location=no_spread,
)
