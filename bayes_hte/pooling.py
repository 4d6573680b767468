"""How one coefficient is shared by segments: partially, not at all, or completely. PyMC, and draws from the prior."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.priors import random, variable
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Pool, Pooling

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def pooled(name: str, pool: Pool, pooling: Pooling, *, dims: tuple[str, ...]) -> "TensorVariable":
    """The coefficient of every segment; `dims` starts with segment, what follows has its own pool."""
    match pooling:
        case "partial":
            return partial_pool(name, pool, dims=dims)
        case "none":
            return variable(name, pool.mean, dims=dims)
        case "complete":
            return complete_pool(name, pool, dims=dims)


def partial_pool(name: str, pool: Pool, *, dims: tuple[str, ...]) -> "TensorVariable":
    """mean + between * offset, offset ~ Normal(0, 1): non-centred, one row per segment."""
    import pymc as pm

    mean = variable(f"{name}_mean", pool.mean, dims=dims[1:] or None)
    between = variable(f"{name}_between", _between(pool), dims=dims[1:] or None)
    offset = pm.Normal(f"{name}_offset", dims=dims)

    return pm.Deterministic(name, mean + between * offset, dims=dims)


def complete_pool(name: str, pool: Pool, *, dims: tuple[str, ...]) -> "TensorVariable":
    """One value for all segments."""
    import pymc as pm
    import pytensor.tensor as pt

    mean = variable(f"{name}_mean", pool.mean, dims=dims[1:] or None)
    segments = pm.modelcontext(None).dim_lengths[dims[0]]

    return pm.Deterministic(name, pt.zeros((segments, *[1] * len(dims[1:]))) + mean, dims=dims)


def prior_draws(
    name: str, pool: Pool, pooling: Pooling, *, coords: dict[str, list[str]], draws: int, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Draws from the prior of one coefficient and of what pools it; dims of `coords`, segment first."""
    shape = [len(labels) for labels in coords.values()]

    def sample(law: Distribution, dims: list[str], sizes: list[int]) -> xr.DataArray:
        values = random(law, (1, draws, *sizes), rng)
        return xr.DataArray(values, dims=("chain", "draw", *dims), coords={dim: coords[dim] for dim in dims})

    shared, shared_shape = list(coords)[1:], shape[1:]
    if pooling == "none":
        return {name: sample(pool.mean, list(coords), shape)}
    mean = sample(pool.mean, shared, shared_shape)
    if pooling == "complete":
        whole = mean.expand_dims({"segment": coords["segment"]}, axis=2)
        return {f"{name}_mean": mean, name: whole}
    between = sample(_between(pool), shared, shared_shape)
    offset = xr.DataArray(rng.standard_normal((1, draws, *shape)), dims=("chain", "draw", *coords), coords=dict(coords))
    return {f"{name}_mean": mean, f"{name}_between": between, name: mean + between * offset}


def hyperpriors(name: str, pool: Pool, pooling: Pooling) -> dict[str, Distribution]:
    """The top-level priors under a pooling, by the name of their variable."""
    match pooling:
        case "partial":
            return {f"{name}_mean": pool.mean, f"{name}_between": _between(pool)}
        case "none":
            return {name: pool.mean}
        case "complete":
            return {f"{name}_mean": pool.mean}


def _between(pool: Pool) -> Distribution:
    """The prior that partial pooling needs; `Model` has checked that it is there."""
    if pool.between is None:
        raise AssertionError("partial pooling without a prior for the between-segment SD passed validation")
    return pool.between
