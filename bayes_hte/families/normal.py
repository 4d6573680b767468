"""Normal: a continuous outcome whose spread may differ between arms.

mean[s, a] ~ Normal(baseline[s] + effect[s, a], sigma[a] / sqrt(n[s, a]))
SS[a]      ~ Gamma(N[a] / 2, rate = 1 / (2 sigma[a]^2)),   SS[a] = Σ_s ss[s, a],  N[a] = Σ_s (n[s, a] − 1)

Within-cell sums of squares are independent of the means and sigma is common to an arm, so their sum
over segments loses nothing; a cell without variation (ss = 0) needs no special case.
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.families.family import Array, CellData, Curve, Family, against_control, identity, need, spread_over_units
from bayes_hte.layout import Parameters, variant_values
from bayes_hte.priors import Given
from bayes_hte.schema import Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """n, mean and ss."""
    found = need(cells, ["n", "mean", "ss"], family="normal", why="give rows, or n, mean and sd")
    if float(found["ss"].sum()) <= 0:
        raise DataError("the outcome does not vary within any cell: its spread cannot be estimated")
    return found


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """Exact Gaussian likelihood of the sufficient statistics."""
    import pymc as pm

    sigma, arm = nuisance["sigma"], cells["arm_index"].values
    mean, root_n = given("mean", cells["mean"].values), given("root_n", np.sqrt(cells["n"].values))
    total, freedom = within_arm(cells)
    seen = np.flatnonzero((freedom > 0) & (total > 0))
    ss, half = given("ss", total[seen]), given("half_freedom", freedom[seen] / 2)

    pm.Normal("mean", eta, sigma[arm] / root_n, observed=mean, dims="cell")
    pm.Gamma("ss", alpha=half, beta=0.5 / sigma[seen] ** 2, observed=ss)


def within_arm(cells: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Sum of squares and degrees of freedom of every arm, from the long form."""
    arm = cells["arm_index"].values
    return np.bincount(arm, weights=cells["ss"].values), np.bincount(arm, weights=cells["n"].values - 1)


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """n and mean; a cell without units has n = 0."""
    n = cells["n"].values.astype(float)
    constant = np.where(n > 0, 0.5 * np.log(np.maximum(n, 1.0)) - 0.5 * np.log(2 * np.pi), 0.0)
    return {"n": n, "mean": np.where(n > 0, cells["mean"].values, 0.0), "constant": constant, "there": 1.0 * (n > 0)}


def density(data: CellData, eta: Array, sigma: Array | None = None) -> Array:
    """Normal log density of the cell's mean, given the arm's SD."""
    scale = _given(sigma)
    quadratic = 0.5 * data["n"] * ((data["mean"] - eta) / scale) ** 2
    return np.asarray(data["constant"] - data["there"] * np.log(scale) - quadratic)


def derivatives(data: CellData, eta: Array, sigma: Array | None = None) -> tuple[Array, Array]:
    """Residual over variance, and the precision."""
    precision = data["n"] / _given(sigma) ** 2
    return precision * (data["mean"] - eta), np.broadcast_to(precision, eta.shape)


def _given(sigma: Array | None) -> Array:
    if sigma is None:
        raise AssertionError("the normal family was asked for a density without the arm's SD")
    return sigma


def guess(data: CellData) -> Array:
    """The mean itself."""
    return data["mean"]


def nuisance(cells: xr.Dataset, sigma: Array) -> Array:
    """Gamma log density of every arm's sum of squares within cells, added up; sigma has dims (…, arm)."""
    n = cells["n"].transpose("segment", "arm").values
    total = cells["ss"].transpose("segment", "arm").values.sum(0)
    freedom = np.maximum(n - 1, 0).sum(0).astype(float)
    seen = (freedom > 0) & (total > 0)
    shape, rate, ss = freedom[seen] / 2, 0.5 / sigma[..., seen] ** 2, total[seen]
    log_density = shape * np.log(rate) - special.gammaln(shape) + (shape - 1) * np.log(ss) - rate * ss
    return np.asarray(log_density.sum(-1))


def rough(cells: xr.Dataset) -> Array:
    """Each arm's SD within cells, or that of all arms together where an arm does not tell."""
    n = cells["n"].transpose("segment", "arm").values
    ss = cells["ss"].transpose("segment", "arm").values.sum(0)
    freedom = np.maximum(n - 1, 0).sum(0)
    pooled = ss.sum() / max(freedom.sum(), 1)
    return np.asarray(np.sqrt(np.where((freedom > 0) & (ss > 0), ss / np.maximum(freedom, 1), pooled)))


CURVE = Curve(arrays, density, derivatives, guess, quadratic=True, shared="sigma", nuisance=nuisance, rough=rough)


def log_likelihood(cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
    """Log density of the cell's units, given their mean and sum of squares."""
    sigma = variant_values(cells, parameters["sigma"])
    n, distance = cells["n"], cells["ss"] + cells["n"] * (cells["mean"] - eta) ** 2
    density: xr.DataArray = -n * np.log(sigma) - distance / (2 * sigma**2) - n / 2 * np.log(2 * np.pi)
    return density.transpose(*eta.dims)


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated cell means."""
    se = (variant_values(cells, parameters["sigma"]) / np.sqrt(cells["n"])).transpose(*eta.dims)
    return {"mean": eta.copy(data=rng.normal(eta.values, se.values))}


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Difference in means with Welch's standard error; NaN where an arm has one unit."""
    n = cells["n"]
    variance = cells["ss"] / (n - 1).where(n > 1)
    return against_control(cells["mean"], variance / n, scale)


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """sigma[a]² / n[s, a] of the treated arm plus that of the control."""
    with np.errstate(divide="ignore"):
        n = cells["n"].rename(arm="variant")
        variance = parameters["sigma"] ** 2 / n
    control = variance.isel(variant=0, drop=True)
    return variance.isel(variant=slice(1, None)).rename(variant="arm") + control


FAMILY = Family(
    name="normal",
    link="identity",
    ratio=None,
    percent=False,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=log_likelihood,
    predictive=predictive,
    predictive_names=("mean",),
    mean=identity,
    raw=raw,
    effect_variance=effect_variance,
    control_location=spread_over_units,
)
