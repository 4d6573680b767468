"""Estimate: published effects with their standard errors, as in a meta-analysis.

estimate[s] ~ Normal(effect[s], se[s]), or MvNormal(effect, covariance) when the estimates share data
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.errors import ModelError
from bayes_hte.families.family import Array, CellData, Curve, Family, identity, need
from bayes_hte.layout import Parameters
from bayes_hte.priors import Given
from bayes_hte.schema import Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """estimate and se, and the covariance between segments where it is known."""
    names = ["estimate", "se", *(name for name in ("n", "covariance") if name in cells)]
    return need(cells, names, family="estimate", why="make the cells with from_estimates")


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """Normal with known standard errors, or multivariate normal with a known covariance."""
    import pymc as pm

    y = given("estimate", cells["estimate"].values)
    if "covariance" in cells:
        pm.MvNormal("estimate", eta, cov=given("covariance", cells["covariance"].values), observed=y, dims="cell")
    else:
        pm.Normal("estimate", eta, given("se", cells["se"].values), observed=y, dims="cell")


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """The estimate and its precision, 0 where there is none."""
    se = cells["se"].values.astype(float)
    there = np.isfinite(se)
    return {
        "estimate": np.where(there, cells["estimate"].values, 0.0),
        "precision": np.where(there, se**-2.0, 0.0),
        "constant": np.where(there, -np.log(se) - 0.5 * np.log(2 * np.pi), 0.0),
    }


def density(data: CellData, eta: Array, sigma: Array | None = None) -> Array:
    """Normal log density of the estimate."""
    return np.asarray(data["constant"] - 0.5 * data["precision"] * (data["estimate"] - eta) ** 2)


def derivatives(data: CellData, eta: Array, sigma: Array | None = None) -> tuple[Array, Array]:
    """Residual over variance, and the precision."""
    return data["precision"] * (data["estimate"] - eta), np.broadcast_to(data["precision"], eta.shape)


def guess(data: CellData) -> Array:
    """The estimate itself."""
    return data["estimate"]


CURVE = Curve(arrays, density, derivatives, guess, quadratic=True)


def log_likelihood(cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
    """Log density of each estimate; with a covariance, given the estimates before it (they sum to the joint)."""
    if "covariance" not in cells:
        return CURVE.log_likelihood(cells, eta, parameters)
    residual = (cells["estimate"] - eta).transpose(*eta.dims)
    factor = np.linalg.cholesky(cells["covariance"].values)
    z = residual.copy(data=np.linalg.solve(factor, residual.values[..., None])[..., 0])
    log_scale = xr.DataArray(np.log(np.diag(factor)), dims="cell")
    density: xr.DataArray = -0.5 * z**2 - log_scale - 0.5 * np.log(2 * np.pi)
    return density.transpose(*eta.dims)


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated estimates."""
    noise = rng.standard_normal(eta.shape)
    if "covariance" in cells:
        return {"estimate": eta + noise @ np.linalg.cholesky(cells["covariance"].values).T}
    return {"estimate": eta + noise * cells["se"].values}


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """The estimates as given."""
    if scale == "relative":
        raise ModelError("published estimates have no control mean: use scale absolute or link")
    return xr.Dataset({"raw": cells["estimate"], "raw_se": cells["se"]})


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """se², infinite where there is no estimate."""
    return (cells["se"] ** 2).fillna(np.inf)


def control_location(cells: xr.Dataset) -> tuple[float, float]:
    """Unknown: the caller gives the scale."""
    raise ModelError('published estimates carry no unit-level spread: write priors in their own units (units = "link")')


FAMILY = Family(
    name="estimate",
    link="identity",
    ratio=None,
    percent=False,
    has_baseline=False,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=log_likelihood,
    predictive=predictive,
    predictive_names=("estimate",),
    mean=identity,
    raw=raw,
    effect_variance=effect_variance,
    control_location=control_location,
)
