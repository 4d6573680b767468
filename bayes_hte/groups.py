"""The groups that ArviZ's own functions look for, computed from the draws when somebody asks for them.

    log_likelihood         per cell, whatever the number of observed variables behind it
    log_prior              of the priors the model file states; offsets are structure, not belief
    posterior_predictive, prior, prior_predictive, observed_data, constant_data

Nothing here needs PyMC: the families' NumPy formulas are tested against the model's own.
"""

import numpy as np
import xarray as xr

from bayes_hte.drawn import headlined
from bayes_hte.effects import cells_of, is_own, likelihood_parameters, model_of, parameters
from bayes_hte.layout import Parameters, linear_predictor
from bayes_hte.model import Problem, problem, top_level_priors
from bayes_hte.pooling import prior_draws
from bayes_hte.priors import log_density
from bayes_hte.structure import coefficients

PRIOR_DRAWS = 1000
PREDICTIVE_DRAWS = 1000
"""Replicated data sets: enough for a picture, a quarter of the file."""
BULKY = 2e7
"""Numbers in a group; a larger one is left out (160 MB of log-likelihood)."""


def complete(tree: xr.DataTree) -> xr.DataTree:
    """Add to the core of a result, in place, every group that follows from it; the second call does nothing."""
    if "constant_data" in tree.children or is_own(tree):
        return tree
    task = problem(cells_of(tree), model_of(tree))
    rng = np.random.default_rng(int(tree.attrs["seed"]))
    draws, cells = parameters(tree), task.cells.sizes["cell"]
    posterior, observed = tree["posterior"].to_dataset(), _observed(task)
    groups = {"log_prior": _log_prior(task, posterior)}
    if posterior.sizes["chain"] * posterior.sizes["draw"] * cells <= BULKY:
        groups["log_likelihood"] = _log_likelihood(task, draws)
    if PREDICTIVE_DRAWS * cells <= BULKY:
        groups["posterior_predictive"] = _predictive(task, draws, rng)
        groups["prior"], groups["prior_predictive"] = _prior(task, rng)
    groups |= {"observed_data": observed, "constant_data": _constant(task, observed)}
    for name, group in groups.items():
        tree[name] = xr.DataTree(group)
    return tree


def _log_likelihood(task: Problem, draws: Parameters) -> xr.Dataset:
    eta = linear_predictor(task.cells, draws)
    found = task.family.log_likelihood(task.cells, eta, draws)
    return found.drop_vars(["segment_of", "arm_of"], errors="ignore").to_dataset(name="y")


def _predictive(task: Problem, draws: Parameters, rng: np.random.Generator) -> xr.Dataset:
    """Replicated data from evenly spaced draws."""
    first = draws["effect"]
    step = max(1, first.sizes["draw"] * first.sizes["chain"] // PREDICTIVE_DRAWS)
    thinned = {name: values.isel(draw=slice(None, None, step)) for name, values in draws.items()}
    return _replicate(task, thinned, rng)


def _replicate(task: Problem, draws: Parameters, rng: np.random.Generator) -> xr.Dataset:
    eta = linear_predictor(task.cells, draws)
    data = task.family.predictive(task.cells, eta, draws, rng)
    return xr.Dataset(
        {name: values.drop_vars(["segment_of", "arm_of"], errors="ignore") for name, values in data.items()}
    )


def before_the_fit(task: Problem, draws: int, rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Draws from the prior, the data they predict, and the data that came."""
    prior, predicted = _prior(task, rng, draws)
    return {"prior": prior, "prior_predictive": predicted, "observed_data": _observed(task)}


def _prior(task: Problem, rng: np.random.Generator, draws: int = PRIOR_DRAWS) -> tuple[xr.Dataset, xr.Dataset]:
    drawn = prior_draws(task.model, task.design, task.coords, coefficients(task.model), draws=draws, rng=rng)
    drawn = {name: values.assign_coords(chain=[0], draw=np.arange(draws)) for name, values in drawn.items()}
    prior = headlined(task, xr.Dataset(drawn).transpose("chain", "draw", "segment", "arm", ..., missing_dims="ignore"))
    return prior, _replicate(task, likelihood_parameters(prior), rng)


def _log_prior(task: Problem, posterior: xr.Dataset) -> xr.Dataset:
    return xr.Dataset(
        {name: posterior[name].copy(data=log_density(law, posterior[name].values))
         for name, law in top_level_priors(task.model).items()}
    )  # fmt: skip


def _observed(task: Problem) -> xr.Dataset:
    """What was observed, by the names of the PyMC model's variables."""
    names = list(task.family.predictive_names)
    return task.cells[names].drop_vars(["segment_of", "arm_of"])


def _constant(task: Problem, observed: xr.Dataset) -> xr.Dataset:
    """What the likelihood conditions on."""
    return task.cells.drop_vars(list(observed.data_vars))
