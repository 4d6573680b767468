"""Binomial: how many of n units did it.

events[s, a] ~ Binomial(n[s, a], p[s, a]);   logit p = baseline[s] + effect[s, a]
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.families.family import Array, CellData, Curve, Family, against_control, need
from bayes_hte.layout import Parameters
from bayes_hte.priors import Given
from bayes_hte.schema import Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """n and events."""
    why = "every outcome must be 0 or 1; for other outcomes use family normal or mean"
    found = need(cells, ["n", "events"], family="binomial", why=why)
    if int(found["events"].sum()) == 0:
        raise DataError("no events in any cell: there is nothing to compare; is the outcome the right column?")
    return found


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """Binomial with a logit link."""
    import pymc as pm

    n, events = given("n", cells["n"].values), given("events", cells["events"].values)

    pm.Binomial("events", n=n, logit_p=eta, observed=events, dims="cell")


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """n, events and log C(n, events)."""
    n, y = cells["n"].values.astype(float), cells["events"].values.astype(float)
    choose = special.gammaln(n + 1) - special.gammaln(y + 1) - special.gammaln(n - y + 1)
    return {"n": n, "events": y, "log_choose": np.asarray(choose)}


def density(data: CellData, eta: Array, sigma: Array | None = None) -> Array:
    """log C(n, y) + y eta − n log(1 + e^eta).

    The plain formula of the softplus is wrong by at most 1e-16, and the fastest there is.
    """
    with np.errstate(over="ignore"):
        softplus = np.exp(eta)
    softplus += 1.0
    np.log(softplus, out=softplus)
    if np.isinf(softplus).any():  # beyond 709 the softplus is eta itself
        softplus = np.where(np.isinf(softplus), eta, softplus)
    softplus *= data["n"]
    density: Array = data["events"] * eta
    density -= softplus
    density += data["log_choose"]
    return density


def derivatives(data: CellData, eta: Array, sigma: Array | None = None) -> tuple[Array, Array]:
    """y − n p and n p (1 − p)."""
    p = np.negative(eta)
    with np.errstate(over="ignore"):
        np.exp(p, out=p)
    p += 1.0
    np.reciprocal(p, out=p)
    expected: Array = data["n"] * p
    np.subtract(1.0, p, out=p)
    p *= expected
    return data["events"] - expected, p


def guess(data: CellData) -> Array:
    """The log-odds with half an event added to both sides: a place to start looking, nothing more."""
    return np.log((data["events"] + 0.5) / (data["n"] - data["events"] + 0.5))


CURVE = Curve(arrays, density, derivatives, guess, quadratic=False)


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated event counts."""
    p = probability(eta)
    return {"events": p.copy(data=rng.binomial(cells["n"].broadcast_like(p).transpose(*p.dims).values, p.values))}


def mean(eta: xr.DataArray, parameters: Parameters, statistics: xr.Dataset) -> xr.DataArray:
    """Probability from log-odds."""
    return probability(eta)


def probability(eta: xr.DataArray) -> xr.DataArray:
    """Inverse logit."""
    return eta.copy(data=special.expit(eta.values))


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Risk difference, risk ratio less one, or log odds ratio, without any pooling.

    A cell with no event (or nothing but events) has a Wald variance of zero, which claims certainty; its
    variance is taken at (events + 1) / (n + 2) instead (Agresti & Caffo 2000), the estimate itself is
    untouched. A log odds ratio with such a cell does not exist: NaN, never a silent half event.
    """
    n, y = cells["n"], cells["events"]
    p = y / n.where(n > 0)
    rare = (y == 0) | (y == n)
    if scale == "link":
        odds = p.copy(data=special.logit(p.where(~rare).values))
        return against_control(odds, 1 / y.where(~rare) + 1 / (n - y).where(~rare), "link")
    careful = ((y + 1) / (n + 2)).where(rare, p)
    return against_control(p, careful * (1 - careful) / n.where(n > 0), scale)


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """1 / Fisher information of the log odds ratio at the drawn rates: defined for cells without events too."""
    baseline, effect = parameters["baseline"], parameters["effect"]
    n_control = cells["n"].isel(arm=0, drop=True)
    n_treated = cells["n"].isel(arm=slice(1, None))
    with np.errstate(divide="ignore"):
        return _inverse_information(n_control, baseline) + _inverse_information(n_treated, baseline + effect)


def _inverse_information(n: xr.DataArray, eta: xr.DataArray) -> xr.DataArray:
    p = probability(eta)
    return 1 / (n * p * (1 - p))


def control_location(cells: xr.Dataset) -> tuple[float, float]:
    """Rate and SD of the control's outcome."""
    control = cells.isel(arm=0)
    rate = float(control["events"].sum() / control["n"].sum())
    return rate, float(np.sqrt(rate * (1 - rate)))


FAMILY = Family(
    name="binomial",
    link="logit",
    ratio="odds ratio",
    percent=True,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=CURVE.log_likelihood,
    predictive=predictive,
    predictive_names=("events",),
    mean=mean,
    raw=raw,
    effect_variance=effect_variance,
    control_location=control_location,
)
