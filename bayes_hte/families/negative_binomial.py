"""Negative binomial: counts per unit that vary more than a Poisson's: visits, purchases, tickets.

y[i] ~ NegativeBinomial(mean m[s, a], alpha[a]);   log m = baseline[s] + effect[s, a],   Var y = m + m² / alpha

The histogram of each cell is sufficient. Given alpha only the number of units and their total depend on m; what
depends on alpha alone is a sum over the arm's histogram:

log p = total eta − (total + n alpha) log(alpha + e^eta) + n alpha log alpha
        + Σ_k units[k] log Γ(k + alpha) / (Γ(alpha) k!)
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
    exponential,
    need,
    no_spread,
    on_log_scale,
)
from bayes_hte.layout import Parameters, variant_values
from bayes_hte.priors import Given
from bayes_hte.schema import VALUE, Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

ALPHAS = (0.02, 500.0)
"""Where a first guess of alpha may be: beyond, a count is nearly constant 0 or nearly Poisson."""


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """The histogram, the number of units, their total, and how many have none."""
    found = need(cells, ["n", "histogram"], family="negative_binomial", why='make the cells with metric="histogram"')
    values = found[VALUE].values
    if (values < 0).any() or (values != np.round(values)).any():
        raise ModelError('family "negative_binomial" needs whole outcomes from 0; use "normal", "mean" or "two_part"')
    total = (found["histogram"] * found[VALUE]).sum(VALUE).round().astype(np.int64)
    if int(total.sum()) == 0:
        raise DataError("every count is 0: there is nothing to compare; is the outcome the right column?")
    zeros = found["histogram"].sel({VALUE: 0}, drop=True) if 0 in values else xr.zeros_like(found["n"])
    return found.assign(total=total, zeros=zeros)


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """Every unit's count; units of a cell with the same count are counted together."""
    import pymc as pm
    import pytensor.tensor as pt

    units = cells["histogram"].transpose("cell", VALUE).values
    cell, place = np.nonzero(np.ones_like(units))
    weight, count = given("units", units[cell, place]), given("counts", cells[VALUE].values[place].astype(np.int64))
    alpha = nuisance["alpha"][cells["arm_index"].values]

    law = pm.NegativeBinomial.dist(mu=pt.exp(eta)[cell], alpha=alpha[cell])
    pm.Potential("histogram", (weight * pm.logp(law, count)).sum())


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """n and the total."""
    return {"n": cells["n"].values.astype(float), "total": cells["total"].values.astype(float)}


def density(data: CellData, eta: Array, nuisance: Array | None = None) -> Array:
    """What depends on the mean, given alpha."""
    alpha = _given(nuisance)
    # log(alpha + e^eta) − log alpha, so that empty cells give 0 and no large numbers cancel
    excess = np.logaddexp(0.0, eta - np.log(alpha))
    return np.asarray(data["total"] * (eta - np.log(alpha)) - (data["total"] + data["n"] * alpha) * excess)


def derivatives(data: CellData, eta: Array, nuisance: Array | None = None) -> tuple[Array, Array]:
    """Slope, and minus the second derivative."""
    alpha = _given(nuisance)
    share = special.expit(eta - np.log(alpha))  # m / (alpha + m)
    weight = data["total"] + data["n"] * alpha
    return data["total"] - weight * share, weight * share * (1 - share)


def _given(alpha: Array | None) -> Array:
    if alpha is None:
        raise AssertionError("the negative binomial was asked for a density without alpha")
    return alpha


def guess(data: CellData) -> Array:
    """The log mean with half an event added."""
    rate = (data["total"].sum() + 0.5) / max(data["n"].sum(), 1.0)
    return np.where(data["n"] > 0, np.log((data["total"] + 0.5) / (data["n"] + 0.5 / rate)), 0.0)


def nuisance(cells: xr.Dataset, alpha: Array) -> Array:
    """Σ over an arm's units of log Γ(k + alpha) / (Γ(alpha) k!), over arms; alpha has dims (point, arm)."""
    units = cells["histogram"].sum("segment").transpose("arm", VALUE).values
    found = np.zeros(alpha.shape[:-1])
    for arm in range(units.shape[0]):
        found += _of_histogram(cells[VALUE].values, units[arm], alpha[..., arm])
    return found


def _of_histogram(values: Array, units: Array, alpha: Array) -> Array:
    """log Γ(k + alpha) − log Γ(alpha) − log k!, times the units with k, summed over k."""
    seen = units > 0
    k, weight = values[seen].astype(float), units[seen].astype(float)
    rising = special.gammaln(k + alpha[..., None]) - special.gammaln(alpha)[..., None]
    return np.asarray((rising - special.gammaln(k + 1)) @ weight)


def rough(cells: xr.Dataset) -> Array:
    """By moments within cells: mean² / (variance − mean)."""
    values, units = cells[VALUE].values.astype(float), cells["histogram"].transpose("arm", "segment", VALUE).values
    n = units.sum(-1)
    mean = units @ values / np.maximum(n, 1)
    excess = (units @ values**2 - n * mean**2).sum(-1) - (np.maximum(n - 1, 0) * mean).sum(-1)
    square = (np.maximum(n - 1, 0) * mean**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(np.where(excess > 0, square / excess, ALPHAS[1]), *ALPHAS)


CURVE = Curve(arrays, density, derivatives, guess, quadratic=False, shared="alpha", nuisance=nuisance, rough=rough)


def log_likelihood(cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
    """Log density of the cell's units."""
    alpha = variant_values(cells, parameters["alpha"]).transpose(*eta.dims)
    units = cells["histogram"].transpose("cell", VALUE).values
    rest = np.stack(
        [_of_histogram(cells[VALUE].values, units[c], alpha.isel(cell=c).values) for c in range(len(units))], axis=-1
    )
    return eta.copy(data=density(arrays(cells), eta.values, alpha.values) + rest)


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated totals, and units with a count of 0: whether there are as many as the model expects is its test."""
    alpha = variant_values(cells, parameters["alpha"]).transpose(*eta.dims).values
    share = 1 / (1 + np.exp(eta.values) / alpha)  # alpha / (alpha + m)
    n = cells["n"].values
    total = rng.poisson(np.minimum(rng.gamma(n * alpha, (1 - share) / share), 1e15))
    return {"total": eta.copy(data=total), "zeros": eta.copy(data=rng.binomial(n, share**alpha))}


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Difference or ratio of means with standard errors from the counts' own variance, which assumes no family."""
    n, values = cells["n"].astype(float), cells[VALUE]
    mean = cells["total"] / n.where(n > 0)
    ss = (cells["histogram"] * (values - mean) ** 2).sum(VALUE)
    variance = ss / (n - 1).where(n > 1) / n
    return on_log_scale(mean, variance) if scale == "link" else against_control(mean, variance, scale)


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """(1 / m + 1 / alpha) / n of both arms, at the drawn parameters."""
    baseline, effect = parameters["baseline"], parameters["effect"]
    alpha = parameters["alpha"]
    n = cells["n"]
    with np.errstate(divide="ignore"):
        control = (1 / alpha.isel(variant=0, drop=True) + np.exp(-baseline)) / n.isel(arm=0, drop=True)
        of_arm = 1 / alpha.isel(variant=slice(1, None)).rename(variant="arm")
        return control + (of_arm + np.exp(-baseline - effect)) / n.isel(arm=slice(1, None))


FAMILY = Family(
    name="negative_binomial",
    link="log",
    ratio="ratio of means",
    percent=False,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=log_likelihood,
    predictive=predictive,
    predictive_names=("total", "zeros"),
    mean=exponential,
    raw=raw,
    effect_variance=effect_variance,
    control_location=no_spread,
)
