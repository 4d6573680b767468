"""Ordinal: answers on a scale of a few ordered levels: satisfaction from 1 to 5, severity of a disease.

P(y[i] ≤ level k) = logistic(cutpoints[k] − baseline[s] − effect[s, a])

The effect is a log odds ratio, the same at every cutpoint (proportional odds: McCullagh 1980, JRSS B 42:109). The
mean outcome is that of the levels' numbers; the cutpoints play the role of a mean of the baselines, which is 0.
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.families.family import Array, CellData, Curve, Family, against_control, need, no_spread
from bayes_hte.layout import Parameters, dim_first
from bayes_hte.priors import Given
from bayes_hte.schema import ARM, SEGMENT, VALUE, Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

MAX_LEVELS = 12
"""More levels than this are counts or measurements, and have families of their own."""
TINY = 1e-30


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """Units at each level."""
    found = need(cells, ["n", "histogram"], family="ordinal", why='make the cells with metric="histogram"')
    levels = found.sizes[VALUE]
    if levels > MAX_LEVELS:
        raise DataError(f"the outcome has {levels} levels, ordinal takes {MAX_LEVELS}; use normal or negative_binomial")
    unused = [f"{value:g}" for value in found[VALUE].values[(found["histogram"].sum((SEGMENT, ARM)) == 0).values]]
    if unused:
        raise DataError(f"nobody chose the levels {', '.join(unused)}: leave them out, or join them with a neighbour")
    return found


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """Multinomial with cumulative log-odds."""
    import pymc as pm
    import pytensor.tensor as pt

    units = given("units", cells["histogram"].transpose("cell", VALUE).values)
    n = given("n", cells["n"].values)

    below = pm.math.sigmoid(nuisance["cutpoints"][None, :] - eta[:, None])
    ends = pt.zeros((eta.shape[0], 1))
    levels = pt.concatenate([below, ends + 1], axis=1) - pt.concatenate([ends, below], axis=1)
    pm.Multinomial("histogram", n=n, p=levels, observed=units)


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """Units at each level, (level, …), and the multinomial coefficient."""
    last = [dim for dim in cells["histogram"].dims if dim != VALUE]
    units = cells["histogram"].transpose(VALUE, *last).values.astype(float)
    constant = special.gammaln(units.sum(0) + 1) - special.gammaln(units + 1).sum(0)
    return {"units": units, "constant": constant}


def _log_probability(eta: Array, cutpoints: Array, level: int) -> Array:
    """Log probability of a level; F(u) − F(l) = F(u) F(−l) (1 − e^(l − u)), which loses no digits in the tails."""
    found = np.zeros(1, dtype=eta.dtype)
    if level < len(cutpoints):
        found = found - np.logaddexp(0.0, eta - cutpoints[level])
    if level:
        found = found - np.logaddexp(0.0, cutpoints[level - 1] - eta)
    if 0 < level < len(cutpoints):
        gap = np.maximum(cutpoints[level] - cutpoints[level - 1], TINY)
        found = found + np.log(-np.expm1(-gap))
    return found


def density(data: CellData, eta: Array, nuisance: Array | None = None) -> Array:
    """Multinomial log density."""
    cutpoints = _given(nuisance)
    total = np.zeros(np.broadcast_shapes(eta.shape, cutpoints.shape[1:], data["constant"].shape)) + data["constant"]
    for level in range(len(cutpoints) + 1):
        total += data["units"][level] * _log_probability(eta, cutpoints, level)
    return total


def derivatives(data: CellData, eta: Array, nuisance: Array | None = None) -> tuple[Array, Array]:
    """Slope, and minus the second derivative, which is a sum of variances and never negative."""
    cutpoints = _given(nuisance)
    shape = np.broadcast_shapes(eta.shape, cutpoints.shape[1:], data["constant"].shape)
    slope, curvature = np.zeros(shape), np.zeros(shape)
    for level in range(len(cutpoints) + 1):
        # Of F(u) − F(l), F logistic: the logarithm's slope is P(below the level) less P(above it).
        beyond = special.expit(eta - cutpoints[level]) if level < len(cutpoints) else np.zeros(1)
        below = special.expit(cutpoints[level - 1] - eta) if level else np.zeros(1)
        slope += data["units"][level] * (below - beyond)
        curvature += data["units"][level] * (below * (1 - below) + beyond * (1 - beyond))
    return slope, curvature


def _given(cutpoints: Array | None) -> Array:
    if cutpoints is None:
        raise AssertionError("the ordinal family was asked for a density without cutpoints")
    return cutpoints


def guess(data: CellData) -> Array:
    """How far the cell's mean rank is above the middle of all cells, as log-odds."""
    units = data["units"]
    share = (units.sum(1) + 0.5) / (units.sum() + 0.5 * len(units))
    rank = np.cumsum(share) - 0.5 * share  # of each level among all units
    mean = (rank @ units + 1.0 * (rank @ share)) / (units.sum(0) + 1.0)
    return np.where(units.sum(0) > 0, 2.0 * special.logit(np.clip(mean, 0.02, 0.98)), 0.0)


def rough(cells: xr.Dataset) -> Array:
    """Log-odds of being at or below each level, over all units of all arms."""
    units = cells["histogram"].sum((SEGMENT, ARM)).values.astype(float)
    below = np.cumsum(units)[:-1]
    return np.asarray(special.logit((below + 0.5) / (units.sum() + 1.0)))


CURVE = Curve(arrays, density, derivatives, guess, quadratic=False, shared="cutpoints", each_arm=False, rough=rough)


def log_likelihood(cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
    """Log density of the cell's units."""
    return eta.copy(data=density(arrays(cells), eta.values, dim_first(parameters["cutpoints"], "cutpoint", eta.ndim)))


def levels(eta: xr.DataArray, cutpoints: xr.DataArray) -> Array:
    """Probability of each level: (level, …)."""
    cuts = dim_first(cutpoints, "cutpoint", eta.ndim)
    each = (np.exp(_log_probability(eta.values, cuts, level)) for level in range(len(cuts) + 1))
    return np.stack([np.broadcast_to(values, eta.shape) for values in each])


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated units at each level."""
    p = np.moveaxis(levels(eta, parameters["cutpoints"]), 0, -1)
    found = rng.multinomial(cells["n"].values, p / p.sum(-1, keepdims=True))
    return {"histogram": xr.DataArray(found, dims=(*eta.dims, VALUE), coords={**eta.coords, VALUE: cells[VALUE]})}


def mean(eta: xr.DataArray, parameters: Parameters, statistics: xr.Dataset) -> xr.DataArray:
    """Mean of the levels' numbers."""
    leading = [dim for dim in ("chain", "draw") if dim in eta.dims]
    ordered = eta.transpose(*leading, ...)
    scores = statistics[VALUE].values.astype(float)
    found = np.einsum("k...,k->...", levels(ordered, parameters["cutpoints"]), scores)
    return ordered.copy(data=found).transpose(*eta.dims)


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Difference of mean levels with its standard error; on the link scale the log odds ratio from the score test.

    score / information at no effect, with ranks: a first step toward the maximum of the proportional-odds likelihood
    that needs no iteration (Whitehead 1993, Statistics in Medicine 12:2257).
    """
    if scale == "link":
        return _score_estimate(cells)
    n, values = cells["n"].astype(float), cells[VALUE].astype(float)
    average = (cells["histogram"] * values).sum(VALUE) / n.where(n > 0)
    ss = (cells["histogram"] * (values - average) ** 2).sum(VALUE)
    return against_control(average, ss / (n - 1).where(n > 1) / n, scale)


def _score_estimate(cells: xr.Dataset) -> xr.Dataset:
    units = cells["histogram"].transpose(..., VALUE).astype(float)
    control, treated = units.isel({ARM: 0}, drop=True), units.isel({ARM: slice(1, None)})
    below = control.cumsum(VALUE) - control
    above = control.sum(VALUE) - control.cumsum(VALUE)
    both = treated + control
    n0, n1, n = control.sum(VALUE), treated.sum(VALUE), both.sum(VALUE)
    score = (treated * (below - above)).sum(VALUE) / (n + 1)
    ties = ((both / n.where(n > 0)) ** 3).sum(VALUE)
    information = n0 * n1 * n / (3 * (n + 1) ** 2) * (1 - ties)
    told = information.where(information > 0)
    return xr.Dataset({"raw": score / told, "raw_se": told**-0.5})


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """1 / information about eta of both arms, given the drawn cutpoints."""
    baseline, effect = parameters["baseline"], parameters["effect"]
    n = cells["n"]
    with np.errstate(divide="ignore"):
        control = 1 / (n.isel(arm=0, drop=True) * _information(baseline, parameters["cutpoints"]))
        treated = _information((baseline + effect).transpose(*effect.dims), parameters["cutpoints"])
        return control + 1 / (n.isel(arm=slice(1, None)) * treated)


def _information(eta: xr.DataArray, cutpoints: xr.DataArray) -> xr.DataArray:
    """Of one unit: Σ over levels of probability times (P(above) − P(below))²."""
    p = levels(eta, cutpoints)
    below = np.cumsum(p, axis=0) - p
    return eta.copy(data=(p * (1 - below - p - below) ** 2).sum(0))


FAMILY = Family(
    name="ordinal",
    link="logit",
    ratio="odds ratio",
    percent=False,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=log_likelihood,
    predictive=predictive,
    predictive_names=("histogram",),
    mean=mean,
    raw=raw,
    effect_variance=effect_variance,
    control_location=no_spread,
)
