"""Add the groups that ArviZ's own functions look for, computed from the draws when somebody asks for them.

    log_likelihood         per cell, whatever the number of observed variables behind it
    log_prior              of the priors the model file states; offsets are structure, not belief
    posterior_predictive, prior, prior_predictive, observed_data, constant_data

Nothing here needs PyMC: the families' NumPy formulas are tested against the model's own.
"""

import numpy as np
import xarray as xr

from bayes_hte.estimands.effects import select_likelihood_parameters, select_parameters
from bayes_hte.inference.draws import add_mean_outcome
from bayes_hte.model.long_form import ParameterDraws, compute_linear_predictor
from bayes_hte.model.prior_draws import draw_from_prior
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.model.problem import Problem, build_problem, list_stated_priors
from bayes_hte.spec.fit_tree import add_groups, get_fitted_cells, get_fitted_model, get_seed, is_from_posterior

PRIOR_DRAWS = 1000
"""As many as replicated data sets, which are drawn one for each."""
PREDICTIVE_DRAWS = 1000
"""Replicated data sets: enough for a picture, a quarter of the file."""
MAX_VALUES_PER_GROUP = 2e7
"""Numbers in a group; a larger one is left out (160 MB of log-likelihood)."""


def add_arviz_groups(fit_tree: xr.DataTree) -> xr.DataTree:
    """Build a tree with every group that follows from a fit's tree, which stays as it is; nothing is added twice."""
    if "constant_data" in fit_tree.children or is_from_posterior(fit_tree):
        return fit_tree
    fit_tree = add_log_densities(fit_tree)
    problem = build_problem(get_fitted_cells(fit_tree), get_fitted_model(fit_tree))
    # The seed of the fit: groups that are computed again after loading are the same.
    rng = np.random.default_rng(get_seed(fit_tree))
    parameter_draws, cell_count = select_parameters(fit_tree), problem.long_cells.sizes["cell"]
    observed_data, new_groups = _select_observed_data(problem), dict[str, xr.Dataset]()
    if PREDICTIVE_DRAWS * cell_count <= MAX_VALUES_PER_GROUP:
        new_groups["posterior_predictive"] = _draw_posterior_predictive(problem, parameter_draws, rng)
        new_groups["prior"], new_groups["prior_predictive"] = _draw_prior_and_data(problem, rng)
    new_groups |= {"observed_data": observed_data, "constant_data": _select_constant_data(problem, observed_data)}
    return add_groups(fit_tree, new_groups)


def add_log_densities(fit_tree: xr.DataTree) -> xr.DataTree:
    """Build a tree with the groups log_prior and, unless it is too large, log_likelihood; nothing is added twice."""
    if "log_prior" in fit_tree.children or is_from_posterior(fit_tree):
        return fit_tree
    problem = build_problem(get_fitted_cells(fit_tree), get_fitted_model(fit_tree))
    posterior = fit_tree["posterior"].to_dataset()
    new_groups = {"log_prior": _compute_log_prior_group(problem, posterior)}
    draw_count, cell_count = posterior.sizes["chain"] * posterior.sizes["draw"], problem.long_cells.sizes["cell"]
    if draw_count * cell_count <= MAX_VALUES_PER_GROUP:
        new_groups["log_likelihood"] = _compute_log_likelihood(problem, select_parameters(fit_tree))
    return add_groups(fit_tree, new_groups)


def _compute_log_likelihood(problem: Problem, parameter_draws: ParameterDraws) -> xr.Dataset:
    """Compute the log-likelihood of every cell; variable y, dims (chain, draw, cell)."""
    cell_predictor = compute_linear_predictor(problem.long_cells, parameter_draws)
    log_likelihood = problem.family.compute_log_likelihood(problem.long_cells, cell_predictor, parameter_draws)
    return log_likelihood.drop_vars(["segment_of", "arm_of"], errors="ignore").to_dataset(name="y")


def _draw_posterior_predictive(
    problem: Problem, parameter_draws: ParameterDraws, rng: np.random.Generator
) -> xr.Dataset:
    """Replicate the data from evenly spaced posterior draws, about PREDICTIVE_DRAWS of them."""
    effect_draws = parameter_draws["effect"]
    thinning_step = max(1, effect_draws.sizes["draw"] * effect_draws.sizes["chain"] // PREDICTIVE_DRAWS)
    # Every step-th draw of each chain, and all chains: replications stay comparable between chains.
    every_step = slice(None, None, thinning_step)
    thinned_draws = {name: draws.isel(draw=every_step) for name, draws in parameter_draws.items()}
    return _replicate_data(problem, thinned_draws, rng)


def _replicate_data(problem: Problem, parameter_draws: ParameterDraws, rng: np.random.Generator) -> xr.Dataset:
    """Simulate data of the same cells, one data set for each draw; dims (chain, draw, cell, …)."""
    cell_predictor = compute_linear_predictor(problem.long_cells, parameter_draws)
    replicated_data = problem.family.simulate_data(problem.long_cells, cell_predictor, parameter_draws, rng)
    # Labels of cells are coordinates of the fit's cell table; ArviZ groups keep the plain dims.
    cell_coords = ["segment_of", "arm_of"]
    return xr.Dataset(
        {name: values.drop_vars(cell_coords, errors="ignore") for name, values in replicated_data.items()}
    )


def draw_prior_groups(problem: Problem, draw_count: int, rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Draw from the prior and the data that it predicts, beside the data that came."""
    prior_group, predicted_data = _draw_prior_and_data(problem, rng, draw_count)
    return {"prior": prior_group, "prior_predictive": predicted_data, "observed_data": _select_observed_data(problem)}


def _draw_prior_and_data(
    problem: Problem, rng: np.random.Generator, draw_count: int = PRIOR_DRAWS
) -> tuple[xr.Dataset, xr.Dataset]:
    """Draw every variable from the prior, and data from each draw; dims start with (chain, draw), one chain."""
    variable_draws = draw_from_prior(problem, draw_count=draw_count, rng=rng)
    draw_coords = {"chain": [0], "draw": np.arange(draw_count)}
    prior_group = xr.Dataset({name: draws.assign_coords(draw_coords) for name, draws in variable_draws.items()})
    prior_group = prior_group.transpose("chain", "draw", "segment", "arm", ..., missing_dims="ignore")
    # Two-part outcomes are drawn part by part: the effect on their mean follows from both.
    prior_group = add_mean_outcome(problem, prior_group)
    return prior_group, _replicate_data(problem, select_likelihood_parameters(prior_group), rng)


def _compute_log_prior_group(problem: Problem, posterior: xr.Dataset) -> xr.Dataset:
    """Compute the log-density of every stated prior at the posterior draws; a variable for each parameter."""
    return xr.Dataset(
        {
            name: posterior[name].copy(data=compute_log_prior(prior_distribution, posterior[name].values))
            for name, prior_distribution in list_stated_priors(problem.model).items()
        }
    )


def _select_observed_data(problem: Problem) -> xr.Dataset:
    """Select the observed variables of the cells, by the names of the PyMC model's variables."""
    variable_names = list(problem.family.simulated_names)
    return problem.long_cells[variable_names].drop_vars(["segment_of", "arm_of"])


def _select_constant_data(problem: Problem, observed_data: xr.Dataset) -> xr.Dataset:
    """Select the variables of the cells that the likelihood conditions on."""
    return problem.long_cells.drop_vars(list(observed_data.data_vars))
