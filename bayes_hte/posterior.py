"""From a problem to a posterior: one DataTree, with the groups that ArviZ's own functions look for.

    posterior, sample_stats     drawn by NUTS on the PyMC model
    log_likelihood              per cell, whatever the number of observed variables behind it
    log_prior                   of the priors the model file states; offsets are structure, not belief
    posterior_predictive, prior, prior_predictive, observed_data, constant_data
    cells                       the cell table itself, so that a saved fit needs nothing else

After the draws nothing here needs PyMC: the family's NumPy log-likelihood is tested against the model's own.
"""

import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from bayes_hte import schema
from bayes_hte.errors import FitError
from bayes_hte.layout import linear_predictor
from bayes_hte.model import Problem, build, top_level_priors
from bayes_hte.pooling import prior_draws
from bayes_hte.priors import frozen

CHAINS = 4
"""R-hat compares chains; four is what Vehtari et al. (2021) recommend."""
PRIOR_DRAWS = 1000
PREDICTIVE_DRAWS = 1000
"""Replicated data sets: enough for a picture, a quarter of the file."""


def sample(
    task: Problem, *, draws: int, seed: int, target_accept: float, tune: int, progress: bool
) -> tuple[xr.Dataset, xr.Dataset]:
    """Run NUTS (nutpie) on the PyMC model; returns posterior and sample_stats.

    Raises
    ------
    FitError
        If the sampler cannot start or breaks down.
    """
    import pymc as pm

    try:
        per_chain = -(-draws // CHAINS)
        with build(task):
            tree = pm.sample(
                draws=per_chain,
                tune=tune,
                chains=CHAINS,
                nuts_sampler="nutpie",
                nuts={"target_accept": target_accept},
                random_seed=seed,
                progressbar="combined" if progress else False,
                quiet=not progress,
                compute_convergence_checks=False,
            )
    except (RuntimeError, pm.exceptions.SamplingError) as problem:
        raise FitError(f"the sampler broke down: {problem}; look at the data with `bayes-hte check`") from problem
    if tree["posterior"].sizes["draw"] < per_chain:  # nutpie answers Ctrl-C with the draws it has
        raise KeyboardInterrupt
    stats = tree["sample_stats"].to_dataset().drop_vars("divergence_message", errors="ignore")
    return _tidy(tree["posterior"].to_dataset()), stats


def _tidy(posterior: xr.Dataset) -> xr.Dataset:
    """Plain coordinates, and only what has a meaning outside the sampler."""
    kept = [name for name in map(str, posterior.data_vars) if not name.endswith("__")]
    as_text = {dim: posterior[dim].astype(str) for dim in ("segment", "arm", "variant") if dim in posterior.coords}
    return (
        posterior[kept].assign_coords(as_text).transpose("chain", "draw", "segment", "arm", ..., missing_dims="ignore")
    )


def assemble(task: Problem, cells: xr.Dataset, drawn: tuple[xr.Dataset, xr.Dataset], *, seed: int) -> xr.DataTree:
    """Add to the draws everything that ArviZ and a reader of the file need."""
    posterior, stats = drawn
    rng = np.random.default_rng(seed)
    parameters = _parameters(posterior)
    eta = linear_predictor(task.cells, parameters)
    prior, prior_predictive = _prior(task, rng)
    observed = _observed(task)
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": stats,
            "log_likelihood": task.family.log_likelihood(task.cells, eta, parameters)
            .drop_vars(["segment_of", "arm_of"], errors="ignore")
            .to_dataset(name="y"),
            "log_prior": _log_prior(task, posterior),
            "posterior_predictive": _predictive(task, parameters, rng),
            "prior": prior,
            "prior_predictive": prior_predictive,
            "observed_data": observed,
            "constant_data": _constant(task, observed),
            "cells": cells,
        }
    )


def _predictive(task: Problem, parameters: dict[str, xr.DataArray], rng: np.random.Generator) -> xr.Dataset:
    """Replicated data from evenly spaced draws."""
    first = parameters["effect"]
    step = max(1, first.sizes["draw"] * first.sizes["chain"] // PREDICTIVE_DRAWS)
    thinned = {name: values.isel(draw=slice(None, None, step)) for name, values in parameters.items()}
    return _replicate(task, thinned, rng)


def _replicate(task: Problem, parameters: dict[str, xr.DataArray], rng: np.random.Generator) -> xr.Dataset:
    eta = linear_predictor(task.cells, parameters)
    data = task.family.predictive(task.cells, eta, parameters, rng)
    return xr.Dataset(
        {name: values.drop_vars(["segment_of", "arm_of"], errors="ignore") for name, values in data.items()}
    )


def _prior(task: Problem, rng: np.random.Generator) -> tuple[xr.Dataset, xr.Dataset]:
    model, coords = task.model, task.coords
    effect_coords = {"segment": coords["segment"], "arm": coords["arm"]}
    drawn = prior_draws("effect", model.effect, model.pooling, coords=effect_coords, draws=PRIOR_DRAWS, rng=rng)
    if model.baseline is not None:
        segment = {"segment": coords["segment"]}
        drawn |= prior_draws(
            "baseline", model.baseline, model.baseline.pooling, coords=segment, draws=PRIOR_DRAWS, rng=rng
        )
    if model.nuisance is not None:
        variant = {"variant": coords["variant"]}
        values = frozen(model.nuisance.sigma).rvs(size=(1, PRIOR_DRAWS, len(coords["variant"])), random_state=rng)
        drawn["sigma"] = xr.DataArray(values, dims=("chain", "draw", "variant"), coords=variant)
    drawn = {name: values.assign_coords(chain=[0], draw=np.arange(PRIOR_DRAWS)) for name, values in drawn.items()}
    prior = xr.Dataset(drawn).transpose("chain", "draw", "segment", "arm", ..., missing_dims="ignore")
    return prior, _replicate(task, _parameters(prior), rng)


def _parameters(draws: xr.Dataset) -> dict[str, xr.DataArray]:
    """What a likelihood needs, out of everything that was drawn."""
    return {name: draws[name] for name in ("effect", "baseline", "sigma") if name in draws}


def _log_prior(task: Problem, posterior: xr.Dataset) -> xr.Dataset:
    return xr.Dataset(
        {name: posterior[name].copy(data=frozen(law).logpdf(posterior[name].values))
         for name, law in top_level_priors(task.model).items()}
    )  # fmt: skip


def _observed(task: Problem) -> xr.Dataset:
    """What was observed, by the names of the PyMC model's variables."""
    names = [name for name in ("events", "mean", "estimate") if name in task.cells]
    return task.cells[names].drop_vars(["segment_of", "arm_of"])


def _constant(task: Problem, observed: xr.Dataset) -> xr.Dataset:
    """What the likelihood conditions on."""
    return task.cells.drop_vars(list(observed.data_vars))


def provenance(task: Problem, cells: xr.Dataset, *, seed: int) -> dict[str, Any]:
    """What it takes to get the same numbers again, as netCDF attributes."""
    packages = ("bayes_hte", "pymc", "nutpie", "arviz", "numpy", "xarray", "pandas", "scipy")
    return {
        "seed": seed,
        "versions": schema.encode([f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]),
        "data_sha256": schema.fingerprint(cells),
        "resolved_model": task.model.model_dump_json(exclude_none=True),
    }
