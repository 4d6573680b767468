"""Mean: any metric whose cell means are close to normal, however skewed its units are.

mean[s, a] ~ Normal(baseline[s] + effect[s, a], se[s, a])
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.errors import DataError, ModelError
from bayes_hte.families.family import Array, CellData, Curve, Family, against_control, identity, need, spread_over_units
from bayes_hte.layout import Parameters
from bayes_hte.priors import Given
from bayes_hte.schema import Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """mean and se, and n where it is known; se from the moments where those are given.

    A cell of one unit, or without variation (a small segment in which nobody bought), says nothing about
    its own spread: its standard error takes the arm's pooled within-cell variance instead.
    """
    if "se" in cells:
        names = ["mean", "se", "n"] if "n" in cells else ["mean", "se"]
        return need(cells, names, family="mean", why="give mean and se")
    found = need(cells, ["n", "mean", "ss"], family="mean", why="give rows, n with mean and sd, or mean and se")
    n, ss = found["n"], found["ss"]
    freedom = (n - 1).where(n > 0, 0).sum("segment")
    pooled = ss.sum("segment") / freedom.where(freedom > 0)
    if not bool((pooled > 0).all()):
        raise DataError("the outcome does not vary within an arm: its standard error cannot be estimated")
    variance = (ss / (n - 1).where(n > 1)).where(ss > 0, pooled)
    return xr.Dataset({"n": n, "mean": found["mean"], "se": np.sqrt(variance / n.where(n > 0))}).assign_attrs(
        cells.attrs, control_location=list(spread_over_units(found))
    )


def likelihood(cells: xr.Dataset, eta: "TensorVariable", nuisance: "dict[str, TensorVariable]", given: Given) -> None:
    """The central limit theorem."""
    import pymc as pm

    mean, se = given("mean", cells["mean"].values), given("se", cells["se"].values)

    pm.Normal("mean", eta, se, observed=mean, dims="cell")


def arrays(cells: xr.Dataset) -> dict[str, Array]:
    """The mean and its precision, 0 where there is none."""
    se = cells["se"].values.astype(float)
    there = np.isfinite(se)
    return {
        "mean": np.where(there, cells["mean"].values, 0.0),
        "precision": np.where(there, se**-2.0, 0.0),
        "constant": np.where(there, -np.log(se) - 0.5 * np.log(2 * np.pi), 0.0),
    }


def density(data: CellData, eta: Array, sigma: Array | None = None) -> Array:
    """Normal log density of the mean."""
    return np.asarray(data["constant"] - 0.5 * data["precision"] * (data["mean"] - eta) ** 2)


def derivatives(data: CellData, eta: Array, sigma: Array | None = None) -> tuple[Array, Array]:
    """Residual over variance, and the precision."""
    return data["precision"] * (data["mean"] - eta), np.broadcast_to(data["precision"], eta.shape)


def guess(data: CellData) -> Array:
    """The mean itself."""
    return data["mean"]


CURVE = Curve(arrays, density, derivatives, guess, quadratic=True)


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated cell means."""
    return {"mean": eta.copy(data=rng.normal(eta.values, cells["se"].values))}


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Difference in means with its standard error."""
    return against_control(cells["mean"], cells["se"] ** 2, scale)


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """se² of the treated mean plus that of the control's; infinite where an arm was not seen."""
    variance = (cells["se"] ** 2).fillna(np.inf)
    return variance.isel(arm=slice(1, None)) + variance.isel(arm=0, drop=True)


def control_location(cells: xr.Dataset) -> tuple[float, float]:
    """Mean and SD over the control's units; from the standard errors where only those are known."""
    if "control_location" in cells.attrs:
        mean, sd = cells.attrs["control_location"]
        return float(mean), float(sd)
    if "n" not in cells:
        raise ModelError(
            'units = "control_sd" needs the number of units behind every mean: give n, or write priors in the '
            'outcome\'s own units (units = "link")'
        )
    control = cells.isel(arm=0)
    n = control["n"]
    ss = (control["se"] ** 2 * n * (n - 1)).fillna(0.0)
    return spread_over_units(xr.Dataset({"n": cells["n"], "mean": cells["mean"], "ss": ss.expand_dims(arm=1, axis=1)}))


FAMILY = Family(
    name="mean",
    link="identity",
    ratio=None,
    percent=False,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=CURVE,
    log_likelihood=CURVE.log_likelihood,
    predictive=predictive,
    predictive_names=("mean",),
    mean=identity,
    raw=raw,
    effect_variance=effect_variance,
    control_location=control_location,
)
