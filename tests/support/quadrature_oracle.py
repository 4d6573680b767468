"""Posteriors of small problems of every structure by quadrature: what engines are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
from example_cells import table
from numpy.typing import NDArray
from scipy import stats

import bayes_hte as hte
from bayes_hte.spec import cell_table

Array = NDArray[np.float64]


Blocks = Mapping[str, Array]


MEAN: dict[str, Any] = {"dist": "Normal", "mu": 0.2, "sigma": 1.1}


HALF: dict[str, Any] = {"dist": "HalfNormal", "sigma": 0.6}


WIDE: dict[str, Any] = {"dist": "HalfNormal", "sigma": 0.9}


SAMPLE = ("chain", "draw")


def grid_of(laws: list[Any], points: int) -> tuple[list[Array], Array]:
    """Values of every SD on the product grid, (point,), and the weights of the prior."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    axes = [law.ppf((nodes + 1) / 2) for law in laws]
    values = [each.ravel() for each in np.meshgrid(*axes, indexing="ij")]
    total = np.ones(1)
    for _ in laws:
        total = np.multiply.outer(total, weights / 2).ravel()
    return values, total


@dataclass(frozen=True)
class Mixture:
    """Posterior of linear functions of z, over the grid: weights (point,), mean and variance (point, function)."""

    weights: Array
    mean: Array
    variance: Array

    def moments(self) -> dict[str, Array]:
        mean = self.weights @ self.mean
        return {
            "mean": mean,
            "sd": np.sqrt(self.weights @ (self.variance + (self.mean - mean) ** 2)),
            "p_positive": self.weights @ stats.norm.cdf(self.mean / np.sqrt(self.variance)),
        }

    def average(self, values: Array) -> tuple[float, float]:
        """Posterior mean and SD of a function of the SDs."""
        mean = float(self.weights @ values)
        return mean, float(np.sqrt(self.weights @ (values - mean) ** 2))


def posterior(y: Array, se: Array, prior: Array, observed: Array, functions: Array, centre: Array, d: Array) -> Mixture:
    """Exact posterior: observed (point, y, z), functions (point, function, z), prior weights (point,)."""
    forward = observed * d**2
    covariance = forward @ observed.transpose(0, 2, 1) + np.diag(se**2)
    residual = y - observed @ centre
    solved = np.linalg.solve(covariance, np.concatenate([residual[..., None], forward], axis=-1))
    log = -0.5 * ((residual * solved[..., 0]).sum(-1) + np.linalg.slogdet(covariance)[1])
    weights = prior * np.exp(log - log.max())
    after = centre + np.einsum("pyz,py->pz", forward, solved[..., 0])
    left = functions * d
    gain = np.einsum("pfz,pyz->pfy", functions, forward)
    variance = (left**2).sum(-1) - np.einsum("pfy,pyz,pfz->pf", gain, solved[..., 1:], functions)
    return Mixture(weights / weights.sum(), np.einsum("pfz,pz->pf", functions, after), variance)


def estimates(y: Array, se: Array, dimensions: Mapping[str, list[str]], covariates: Blocks | None = None) -> xr.Dataset:
    """A cell table of published estimates; y has dims (segment,) or (segment, arm)."""
    y, se = (each.reshape(len(each), -1) for each in (y, se))
    labels = [f"s{i}" for i in range(len(y))]
    cells = xr.Dataset(
        {"estimate": (("segment", "arm"), y), "se": (("segment", "arm"), se)},
        coords={"segment": labels, "arm": [f"a{i}" for i in range(y.shape[1])]}
        | {name: ("segment", levels) for name, levels in dimensions.items()},
        attrs={"outcome": "y", "control": "", "dimensions": cell_table.encode_text_list(dimensions), "notes": "[]"},
    )
    if covariates:
        values = np.stack(list(covariates.values()), axis=-1)
        cells = cells.assign(covariates=(("segment", "covariate"), values)).assign_coords(covariate=list(covariates))
    return cell_table.check_cell_table(cells)


def stated(**structure: Any) -> hte.Model:
    return hte.Model.model_validate({"family": "estimate", "effect": {"mean": MEAN, "between": HALF, **structure}})


def agrees(draws: xr.DataArray, mean: Any, sd: Any, p_positive: Any = None) -> None:
    """Draws with dims (chain, draw, …) have these moments."""
    spread = np.asarray(sd, float)
    mcse = az.mcse(draws.to_dataset(name="x"), method="mean")["x"].values
    off = np.abs(draws.mean(SAMPLE).values - mean)
    assert (off < 4 * mcse + 1e-3 * spread).all(), (off / mcse).max()
    assert draws.std(SAMPLE).values == pytest.approx(spread, rel=4 / np.sqrt(2 * 400))
    if p_positive is not None:
        share = (draws > 0).astype(float)
        error = az.mcse(share.to_dataset(name="x"), method="mean")["x"].values
        assert (np.abs(share.mean(SAMPLE).values - p_positive) < 4 * np.nan_to_num(error) + 1e-3).all()


def matches(fit: hte.Fit, names: Mapping[str, Array], found: Mixture, hyper: Mapping[str, Array]) -> None:
    """Every named variable against its columns of the mixture, every SD against the grid."""
    assert fit.diagnosis.ok, fit.diagnosis
    expected = found.moments()
    draws = fit.posterior["posterior"].to_dataset()
    for name, columns in names.items():
        extra = [dim for dim in draws[name].dims if dim not in SAMPLE]
        flat = draws[name].transpose(*SAMPLE, *extra).values.reshape(*draws[name].shape[:2], -1)
        agrees(xr.DataArray(flat, dims=(*SAMPLE, "flat")), *(expected[key][columns] for key in expected))
    for name, values in hyper.items():
        agrees(
            draws[name].squeeze("arm", drop=True) if "arm" in draws[name].dims else draws[name], *found.average(values)
        )


def columns(sizes: Mapping[str, int]) -> dict[str, NDArray[np.intp]]:
    """Where every block of functions stands."""
    ends = np.cumsum([0, *sizes.values()])
    return {name: np.arange(low, high) for name, low, high in zip(sizes, ends[:-1], ends[1:], strict=True)}


Y = np.array([1.5, 0.9, 0.1, 0.8, -0.4, -0.9, 1.1, 0.3, 0.2])


SE = np.array([0.3, 0.4, 0.5, 0.25, 0.35, 0.6, 0.45, 0.3, 0.5])


DEVICE, PLAN = [f"d{i % 3}" for i in range(9)], [f"p{i // 3}" for i in range(9)]


AGE = np.array([31.0, 44.0, 38.0, 52.0, 61.0, 47.0, 29.0, 40.0, 55.0])


STRATUM = ["a", "a", "a", "b", "b", "b", "b", "a", "b"]


def measured(mean: Array, se: Array) -> xr.Dataset:
    """Cells of family "mean"; arrays have dims (segment, arm)."""
    return table({"mean": mean, "se": se}, arms=("control", "email"), control="control")


def tied(correlation: dict[str, Any]) -> hte.Model:
    """Effects that are correlated with baselines."""
    return hte.Model.model_validate(
        {"family": "mean", "effect": {"mean": MEAN, "between": HALF, "correlation": correlation},
         "baseline": {"mean": MEAN, "between": WIDE}}
    )  # fmt: skip
