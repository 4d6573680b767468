"""Estimate: published effects with their standard errors, as in a meta-analysis.

estimate[s] ~ Normal(effect[s], se[s]), or MvNormal(effect, covariance) when the estimates share data
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.errors import ModelError
from bayes_hte.families.family import Family, identity, need
from bayes_hte.layout import Parameters
from bayes_hte.schema import Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """estimate and se, and the covariance between segments where it is known."""
    names = ["estimate", "se", *(name for name in ("n", "covariance") if name in cells)]
    return need(cells, names, family="estimate", why="make the cells with from_estimates")


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]") -> None:
    """Normal with known standard errors, or multivariate normal with a known covariance."""
    import pymc as pm

    y = cells["estimate"].values
    if "covariance" in cells:
        pm.MvNormal("estimate", eta, cov=cells["covariance"].values, observed=y, dims="cell")
    else:
        pm.Normal("estimate", eta, cells["se"].values, observed=y, dims="cell")


def log_likelihood(cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
    """Log density of each estimate; with a covariance, given the estimates before it (they sum to the joint)."""
    residual = (cells["estimate"] - eta).transpose(*eta.dims)
    if "covariance" in cells:
        factor = np.linalg.cholesky(cells["covariance"].values)
        z = residual.copy(data=np.linalg.solve(factor, residual.values[..., None])[..., 0])
        log_scale = xr.DataArray(np.log(np.diag(factor)), dims="cell")
    else:
        z = residual / cells["se"]
        log_scale = cells["se"].copy(data=np.log(cells["se"].values))
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
    has_baseline=False,
    statistics=statistics,
    likelihood=likelihood,
    log_likelihood=log_likelihood,
    predictive=predictive,
    inverse_link=identity,
    raw=raw,
    effect_variance=effect_variance,
    control_location=control_location,
)
