"""Score by leave-one-segment-out how well the other segments predict each one.

score of s = log p(data of s | data of all others) = log ∫ p(data of s | θ) p(θ | data of the others) dθ

The segment's own coefficients are integrated out exactly; only its hold on the few hyperparameters is removed by
importance weights, which is why they behave where those of plain PSIS-LOO by cell do not: there every cell has
a parameter of its own. Where the weights still have a long tail the segment is left out for real.

Structures beyond the exact engine are fitted again, each time without a tenth of the segments. The cells of those
are emptied, not removed: so levels, covariates and priors stay what they were.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from bayes_hte.errors import DataError, ModelError
from bayes_hte.estimands.effects import select_likelihood_parameters
from bayes_hte.estimands.new_segment import NewSegmentSampler
from bayes_hte.inference.draws import add_mean_outcome
from bayes_hte.inference.exact import beyond, closed, direct, engine, parts
from bayes_hte.inference.exact.estimates import Arm, Rotated, rotated
from bayes_hte.inference.exact.latent.engine import name_shared_variables, weigh_problem
from bayes_hte.inference.exact.latent.requests import carry_out
from bayes_hte.inference.exact.latent.segment_evidence import compute_segment_evidence
from bayes_hte.inference.exact.one_part import is_latent
from bayes_hte.inference.exact.smooth import smooth
from bayes_hte.inference.exact.space import space_of
from bayes_hte.inference.exact.target import Target
from bayes_hte.model.long_form import build_long_form, compute_linear_predictor
from bayes_hte.model.parameters import collect_hyperparameters, collect_variable_dims, list_coefficients
from bayes_hte.model.priors import draw_prior
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import Model, cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, get_seed, is_reliable, require_known_model

MAX_HYPERPARAMETER_POINTS = 4000
"""Draws of the hyperparameters that are weighted; each costs a marginal likelihood of every segment."""
MAX_TRUSTED_PARETO_K = 0.7
"""Pareto k above which importance weights are not trusted (Vehtari et al. 2024)."""
MAX_TRUSTED_MCSE = 0.03
"""Monte-Carlo error of a score above which the segment is left out for real, which takes a fraction of a second."""
FOLD_COUNT = 10
"""Fits of a structure beyond the exact engine; each leaves out a tenth of the segments, so nearly all of them stay."""
REFIT_ESS, PROPOSAL_POINTS = 2000, 200
"""Effective points of a fit without one segment, and those among them that place the quadrature of its segments."""
HELD_OUT_DRAWS, COPIES_PER_DRAW = 1000, 200
"""Draws of the hyperparameters for a segment left out, and of its own coefficients given each."""

type SegmentScores = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
type RefitFunction = Callable[[xr.Dataset, Model], xr.DataTree]
"""(cells, model) -> the tree of a fit."""


def score_left_out_segments(fit_tree: xr.DataTree, refit: RefitFunction | None = None) -> pd.DataFrame:
    """Score every segment by its log score and Monte-Carlo error, one row each; see `hte.loso`.

    Parameters
    ----------
    fit_tree : xarray.DataTree
        A fit's posterior.
    refit : callable, optional
        Fits again where the structure is beyond the exact engine.

    Raises
    ------
    DataError
        If there is one segment.
    ModelError
        If the structure is beyond the exact engine and cannot be fitted again.
    """
    cells = get_fitted_cells(fit_tree)
    if cells.sizes[cell_table.SEGMENT] < 2:
        raise DataError("one segment: there are no others to predict it from")
    problem = build_problem(cells, require_known_model(fit_tree, "a leave-one-segment-out score"))
    unsupported_reason, are_folds_reliable = beyond(problem), True
    if unsupported_reason is None:
        elpd, mcse, pareto_k = _score_exactly(problem, fit_tree["posterior"].to_dataset(), get_seed(fit_tree))
    elif refit is None:
        raise ModelError(f"leave-one-segment-out scores need the exact engine: {unsupported_reason}")
    else:
        (elpd, mcse, pareto_k), are_folds_reliable = _score_by_folds(problem, fit_tree, refit)
    level_columns = {name: cells[name].values.astype(str) for name in cell_table.list_dimensions(cells)}
    score_table = pd.DataFrame({**level_columns, "elpd": elpd, "mcse": mcse, "pareto_k": pareto_k})
    # elpd = Σ_s score_s, and as a sum of S scores its error is √S · SD(score)
    score_table.attrs |= {"elpd": float(elpd.sum()), "se": float(np.sqrt(len(elpd)) * elpd.std(ddof=1))}
    score_table.attrs["folds_reliable"] = are_folds_reliable
    return score_table


def _score_exactly(problem: Problem, posterior: xr.Dataset, seed: int) -> SegmentScores:
    """Score segments by the exact engine, in the way that the structure allows."""
    if problem.model.amount is not None:
        return _score_two_parts(problem, posterior, seed)
    return _score_by_quadrature(problem) if closed(problem) else _score_by_importance(problem, posterior, seed)


def _score_two_parts(problem: Problem, posterior: xr.Dataset, seed: int) -> SegmentScores:
    """Score both parts of a two-part outcome, whose posteriors have nothing in common, and add the scores."""
    outcome_draws = posterior.drop_vars(["effect", "baseline"])
    part_scores = [
        _score_by_importance(part_problem, outcome_draws.rename(_strip_part_prefix(posterior, part.prefix)), seed)
        for part, part_problem in zip(problem.family.parts, parts.split(problem), strict=True)
    ]
    (chance_elpd, chance_mcse, chance_k), (amount_elpd, amount_mcse, amount_k) = part_scores
    return (
        chance_elpd + amount_elpd - _count_log_orderings(problem.cell_statistics),
        np.hypot(chance_mcse, amount_mcse),
        np.maximum(chance_k, amount_k),
    )


def _count_log_orderings(statistics: xr.Dataset) -> NDArray[np.float64]:
    """Count the orders in which a segment's positive outcomes can come, as a log: units are scored one by one."""
    n, positive_count = (
        statistics[name].transpose(cell_table.SEGMENT, cell_table.ARM).values for name in ("n", "positive")
    )
    # log C(n, positive), summed over arms
    log_orderings = (
        special.gammaln(n + 1) - special.gammaln(positive_count + 1) - special.gammaln(n - positive_count + 1)
    )
    return np.asarray(log_orderings.sum(1))


def _strip_part_prefix(posterior: xr.Dataset, part_prefix: str) -> dict[str, str]:
    """Map the variables of one part to the names that they have in a family of one part."""
    variable_names = map(str, posterior.data_vars)
    return {name: name.removeprefix(part_prefix) for name in variable_names if name.startswith(part_prefix)}


def _score_by_quadrature(problem: Problem) -> SegmentScores:
    """Score published estimates by the ratio of two evidences, each exact to quadrature error."""
    segment_count = problem.cell_statistics.sizes[cell_table.SEGMENT]
    if direct.is_separate(problem):  # nothing is learned from other segments: the score is the segment's own evidence
        own_evidence = sum(panels.log_total for _, panels in direct.integrate_separate(problem))
        return np.asarray(own_evidence), np.zeros(segment_count), np.full(segment_count, -np.inf)
    elpd = np.zeros(segment_count)
    cell_statistics = problem.cell_statistics
    covariance = cell_statistics["covariance"].values if "covariance" in cell_statistics else None
    for arm_index, arm in enumerate(direct.arms(problem)):
        full_evidence = _compute_log_evidence(arm)
        arm_estimates = cell_statistics["estimate"].transpose(cell_table.SEGMENT, cell_table.ARM).values[:, arm_index]
        arm_se = cell_statistics["se"].transpose(cell_table.SEGMENT, cell_table.ARM).values[:, arm_index]
        for left_out in range(segment_count):
            is_kept = np.arange(segment_count) != left_out
            kept_covariance = None if covariance is None else covariance[np.ix_(is_kept, is_kept)]
            kept_arm = _replace_arm_data(arm, rotated(arm_estimates[is_kept], arm_se[is_kept], kept_covariance))
            # log p(y_s | y_others) = log p(y) − log p(y_others)
            elpd[left_out] += full_evidence - _compute_log_evidence(kept_arm)
    return elpd, np.zeros(segment_count), np.full(segment_count, -np.inf)


def _replace_arm_data(arm: Arm, rotated_data: Rotated) -> Arm:
    """Give an arm's priors to other data."""
    return Arm(rotated_data, arm.mean, arm.between)


def _compute_log_evidence(arm: Arm) -> float:
    """Compute the log evidence of an arm's data by quadrature over its hyperparameters."""
    return arm.nodes().log_evidence


def _score_by_importance(problem: Problem, posterior: xr.Dataset, seed: int) -> SegmentScores:
    """Score segments by draws of the hyperparameters, weighted by how little they owe to the segment."""
    log_likelihood = _compute_log_likelihood(problem, posterior)
    segment_count = log_likelihood.shape[1]
    elpd, mcse, tails = np.empty(segment_count), np.empty(segment_count), np.empty(segment_count)
    for segment_index in range(segment_count):
        elpd[segment_index], mcse[segment_index], tails[segment_index] = _score_by_inverse_likelihood(
            log_likelihood[:, segment_index]
        )
        # An estimate of k from one set of draws may be too low, and then the error says so.
        if tails[segment_index] > MAX_TRUSTED_PARETO_K or mcse[segment_index] > MAX_TRUSTED_MCSE:
            elpd[segment_index], mcse[segment_index] = _refit_without_segment(problem, segment_index, seed=seed)
    return elpd, mcse, tails


def _compute_log_likelihood(problem: Problem, posterior: xr.Dataset) -> NDArray[np.float64]:
    """Compute log p(data of each segment | what segments share) for evenly spaced draws, (draw, segment)."""
    if not is_latent(problem):
        target_density, hyperparameter_points = _select_hyperparameter_points(problem, posterior)
        return _compute_segment_log_marginals(target_density, hyperparameter_points, problem)
    # Effects and baselines are left out: of a segment's own coefficients the score is the integral.
    stacked_draws = posterior.stack(sample=("chain", "draw"), create_index=False)
    draw_count = stacked_draws.sizes["sample"]
    kept_draws = np.linspace(0, draw_count - 1, min(draw_count, MAX_HYPERPARAMETER_POINTS)).astype(int)
    variable_dims = collect_variable_dims(problem.model)
    shared_draws = {
        str(name): values.transpose("sample", *variable_dims[str(name)]).values.reshape(draw_count, -1)[kept_draws]
        for name, values in stacked_draws.data_vars.items()
        if str(name) in variable_dims and str(name) not in ("effect", "baseline")
    }
    return _add_within_cell_density(problem, compute_segment_evidence(problem, shared_draws), shared_draws)


def _add_within_cell_density(
    problem: Problem, log_likelihood: NDArray[np.float64], shared_draws: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Add what depends on sigma or alpha alone, which the engine counts for all segments together."""
    cell_likelihood = problem.family.checked_cell_likelihood
    if cell_likelihood.compute_nuisance_density is None or cell_likelihood.nuisance_name is None:
        return log_likelihood
    # log p(units of s | θ) = log p(means of s | θ) + log p(units | their means, nuisance parameter)
    nuisance_values = shared_draws[cell_likelihood.nuisance_name]
    within_cells = [
        _compute_within_cell_density(problem, segment_index, nuisance_values)
        for segment_index in range(log_likelihood.shape[1])
    ]
    return log_likelihood + np.stack(within_cells, axis=1)


def _select_hyperparameter_points(problem: Problem, posterior: xr.Dataset) -> tuple[Target, NDArray[np.float64]]:
    """Select evenly spaced draws of the hyperparameters, whichever engine drew them, in free coordinates."""
    hyperparameter_space = space_of(problem)
    stacked_draws = posterior.stack(sample=("chain", "draw"), create_index=False)
    draw_count = stacked_draws.sizes["sample"]
    kept_draws = np.linspace(0, draw_count - 1, min(draw_count, MAX_HYPERPARAMETER_POINTS)).astype(int)
    hyperparameters = collect_hyperparameters(problem.model)
    natural_values = {}
    for name, parameter_size in hyperparameter_space.sizes.items():
        parameter_draws = stacked_draws[name].transpose("sample", *hyperparameters[name].dims).values
        natural_values[name] = parameter_draws.reshape(draw_count, parameter_size)[kept_draws]
    free_points = (
        hyperparameter_space.free(natural_values) if hyperparameter_space.parameters else np.empty((len(kept_draws), 0))
    )
    return engine.evaluator(problem, free_points), free_points


def _compute_segment_log_marginals(
    target_density: Target, hyperparameter_points: NDArray[np.float64], problem: Problem
) -> NDArray[np.float64]:
    """Compute log p(data of each segment | θ), shape (point, segment)."""
    log_marginals = target_density.log_marginals(hyperparameter_points)
    return _add_within_cell_density(problem, log_marginals, target_density.space.natural(hyperparameter_points))


def _compute_within_cell_density(
    problem: Problem, segment_index: int, nuisance_values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the log density of a segment's units less that of what informs its mean, shape (point,).

    The difference depends on sigma or alpha alone. It is of units, not of their sum of squares, so that a cell
    without variation has a density too.
    """
    cell_likelihood, family = problem.family.checked_cell_likelihood, problem.family
    segment_cells = build_long_form(problem.cell_statistics.isel({cell_table.SEGMENT: [segment_index]}))
    cell_arrays = cell_likelihood.pack_arrays(segment_cells)
    cell_nuisance = nuisance_values[:, segment_cells["arm_index"].values]
    # The difference is the same at any η: a plausible one keeps its terms small.
    trial_predictor = np.broadcast_to(cell_likelihood.guess_eta(cell_arrays), cell_nuisance.shape)
    nuisance_draws = {str(cell_likelihood.nuisance_name): xr.DataArray(nuisance_values, dims=("draw", "variant"))}
    unit_density = family.compute_log_likelihood(
        segment_cells, xr.DataArray(trial_predictor, dims=("draw", "cell")), nuisance_draws
    )
    mean_density = cell_likelihood.compute_log_density(cell_arrays, trial_predictor, cell_nuisance)
    return np.asarray((unit_density.transpose("draw", "cell").values - mean_density).sum(1))


def _score_by_inverse_likelihood(log_likelihood: NDArray[np.float64]) -> tuple[float, float, float]:
    """Score a segment by weights 1 / likelihood: log mean likelihood, its standard error, the weights' Pareto k."""
    # Σ w L with w ∝ 1 / L (smoothed, Σ w = 1); error √(Σ w² (L − mean)²), relative to the mean: that of its logarithm.
    # L is divided by its maximum, so that exp() does not underflow.
    importance_weights, pareto_k = smooth(-log_likelihood)
    max_log_likelihood = log_likelihood.max()
    scaled_likelihood = np.exp(log_likelihood - max_log_likelihood)
    mean_likelihood = float(importance_weights @ scaled_likelihood)
    mean_variance = (importance_weights**2) @ (scaled_likelihood - mean_likelihood) ** 2
    relative_mcse = float(np.sqrt(mean_variance)) / mean_likelihood
    return float(np.log(mean_likelihood)) + float(max_log_likelihood), relative_mcse, pareto_k


def _refit_without_segment(problem: Problem, segment_index: int, *, seed: int) -> tuple[float, float]:
    """Fit the other segments, and average the likelihood of this one over their posterior: log score and its error."""
    is_other = np.arange(problem.cell_statistics.sizes[cell_table.SEGMENT]) != segment_index
    reduced_problem = Problem(
        problem.model,
        problem.family,
        problem.cell_statistics.isel(segment=is_other),
        problem.long_cells.isel(cell=problem.long_cells["segment_index"].values != segment_index),
        {**problem.coords, "segment": list(np.array(problem.coords["segment"], dtype=object)[is_other])},
        replace(
            problem.segment_design,
            level_index={
                term: level_index[is_other] for term, level_index in problem.segment_design.level_index.items()
            },
            standardised_covariates=problem.segment_design.standardised_covariates[is_other],
        ),
    )
    log_likelihood, point_weights = _predict_from_others(problem, reduced_problem, segment_index, seed=seed)
    max_log_likelihood = log_likelihood.max()
    scaled_likelihood = np.exp(log_likelihood - max_log_likelihood)
    mean_likelihood = float(point_weights @ scaled_likelihood)
    mean_variance = (point_weights**2) @ (scaled_likelihood - mean_likelihood) ** 2
    relative_mcse = float(np.sqrt(mean_variance)) / mean_likelihood
    return float(np.log(mean_likelihood)) + float(max_log_likelihood), relative_mcse


def _predict_from_others(
    problem: Problem, reduced_problem: Problem, segment_index: int, *, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit all segments but one; return the log likelihood of that one at weighted points, and the weights."""
    if is_latent(problem):
        # Levels keep their columns, so that draws of the others fit the whole problem's layout.
        density, latent_sample = carry_out(weigh_problem(reduced_problem, wanted=REFIT_ESS, seed=seed))
        shared_draws = name_shared_variables(density, latent_sample, np.arange(len(latent_sample.points)))
        log_likelihood = compute_segment_evidence(problem, shared_draws)
        log_likelihood = _add_within_cell_density(problem, log_likelihood, shared_draws)
        return log_likelihood[:, segment_index], latent_sample.weights
    _, weighted_sample = engine.points(reduced_problem, wanted=REFIT_ESS, seed=seed)
    resampled_points = weighted_sample.points[weighted_sample.resampled(PROPOSAL_POINTS, np.random.default_rng(seed))]
    target_density = engine.evaluator(problem, resampled_points)
    log_likelihood = _compute_segment_log_marginals(target_density, weighted_sample.points, problem)
    return log_likelihood[:, segment_index], weighted_sample.weights


def _score_by_folds(problem: Problem, fit_tree: xr.DataTree, refit: RefitFunction) -> tuple[SegmentScores, bool]:
    """Score segments by fits without a tenth of them at a time; no weights are needed, so Pareto k is −∞."""
    if "covariance" in problem.cell_statistics:
        raise ModelError("estimates with a covariance matrix can be left out one by one by the exact engine only")
    cells, segment_count = get_fitted_cells(fit_tree), problem.cell_statistics.sizes[cell_table.SEGMENT]
    rng = np.random.default_rng(get_seed(fit_tree))
    elpd, mcse, are_folds_reliable = np.empty(segment_count), np.empty(segment_count), True
    for fold_segments in np.array_split(rng.permutation(segment_count), min(FOLD_COUNT, segment_count)):
        # The seed of the fit shuffles the segments: a repeated call gives the same folds and scores.
        fold_tree = refit(clear_segments(cells, fold_segments), problem.model)
        are_folds_reliable &= is_reliable(fold_tree)
        posterior = _thin_draws(fold_tree["posterior"].to_dataset())
        for segment_index in map(int, fold_segments):
            elpd[segment_index], mcse[segment_index] = _predict_segment(problem, posterior, cells, segment_index, rng)
    return (elpd, mcse, np.full(segment_count, -np.inf)), are_folds_reliable


def clear_segments(cells: xr.Dataset, segment_indices: NDArray[np.intp]) -> xr.Dataset:
    """Clear the data of some segments in a copy of a cell table, where they remain by name."""
    is_kept = xr.DataArray(
        ~np.isin(np.arange(cells.sizes[cell_table.SEGMENT]), segment_indices), dims=cell_table.SEGMENT
    )
    cleared_cells = cells.copy()
    for variable_name in map(str, cells.data_vars):
        if variable_name == "covariates":
            continue
        # No units is 0 of a count or sum; a mean or an estimate of 0 would be data.
        empty_value = np.nan if variable_name in ("mean", "log_mean", "se", "estimate") else 0
        cleared_values = cells[variable_name].where(is_kept, empty_value).transpose(*cells[variable_name].dims)
        cleared_values = cleared_values.astype(cells[variable_name].dtype)
        cleared_cells[variable_name] = cleared_values.assign_attrs(cells[variable_name].attrs)
    return cleared_cells


def _thin_draws(posterior: xr.Dataset) -> xr.Dataset:
    """Thin the draws evenly to about HELD_OUT_DRAWS, chains together."""
    thinning_step = max(1, posterior.sizes["chain"] * posterior.sizes["draw"] // HELD_OUT_DRAWS)
    return posterior.isel(draw=slice(None, None, thinning_step))


def _predict_segment(
    problem: Problem, posterior: xr.Dataset, cells: xr.Dataset, segment_index: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Predict a segment's data from the others' posterior: its log density and Monte-Carlo standard error."""
    draw_count = posterior.sizes["draw"]
    # Copies of all draws one after the other: (copy · draw) unfolds to (copy, draw) below.
    segment_draws = posterior.isel(segment=[segment_index], draw=np.tile(np.arange(draw_count), COPIES_PER_DRAW))
    segment_draws = segment_draws.assign_coords(draw=np.arange(COPIES_PER_DRAW * draw_count))
    new_coefficients = _draw_new_coefficients(problem, segment_draws, cells, segment_index, rng)
    segment_draws = add_mean_outcome(problem, segment_draws.assign(new_coefficients))
    parameter_draws = select_likelihood_parameters(segment_draws)
    segment_statistics = problem.cell_statistics.isel({cell_table.SEGMENT: [segment_index]})
    segment_cells = build_long_form(segment_statistics)
    cell_predictor = compute_linear_predictor(segment_cells, parameter_draws)
    cell_log_likelihood = problem.family.compute_log_likelihood(segment_cells, cell_predictor, parameter_draws)
    log_likelihood = cell_log_likelihood.transpose("chain", "draw", "cell").values.sum(-1)
    # p(data | others) = E_θ E_coefficients|θ [L]: the inner mean over copies first, so that the error is that of θ
    max_log_likelihood = float(log_likelihood.max())
    scaled_likelihood = np.exp(log_likelihood - max_log_likelihood).reshape(-1, COPIES_PER_DRAW, draw_count).mean(1)
    mean_likelihood = float(scaled_likelihood.mean())
    return float(np.log(mean_likelihood)) + max_log_likelihood, _compute_chain_mcse(scaled_likelihood) / mean_likelihood


def _draw_new_coefficients(
    problem: Problem, posterior: xr.Dataset, cells: xr.Dataset, segment_index: int, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Draw effect and baseline of a segment without data, given every draw of what segments share."""
    segment_levels = {name: str(cells[name].values[segment_index]) for name in cell_table.list_dimensions(cells)}
    covariate_values = {
        name: float(cells["covariates"].sel(covariate=name).values[segment_index])
        for name in problem.model.effect.covariates
    }
    # A coefficient without pooling is replaced below, so the share of the only segment is 1.
    only_share = xr.DataArray([1.0], dims=cell_table.SEGMENT)
    coefficient_draws = NewSegmentSampler(
        problem, posterior, only_share, rng, segment_levels, covariate_values
    ).draw_coefficients()
    for coefficient in list_coefficients(problem.model):
        segment_template = posterior[coefficient.name].isel(segment=0, drop=True)
        if coefficient.pooling == "none":  # nothing is shared: what is known of it is its prior
            coefficient_draws[coefficient.name] = segment_template.copy(
                data=draw_prior(coefficient.pool_priors.mean, segment_template.shape, rng)
            )
        segment_draws = coefficient_draws[coefficient.name].expand_dims(segment=posterior["segment"])
        coefficient_draws[coefficient.name] = segment_draws.transpose(*posterior[coefficient.name].dims)
    return coefficient_draws


def _compute_chain_mcse(likelihood_draws: NDArray[np.float64]) -> float:
    """Compute the Monte-Carlo standard error of the mean over (chain, draw)."""
    import arviz_stats as az

    values = xr.DataArray(likelihood_draws, dims=("chain", "draw"))
    return float(az.mcse(values.to_dataset(name="x"), method="mean")["x"])
