"""Compute every segment's effect as a function of the between-segment SD, and the posterior density of that SD.

At τ = 0 all segments have the common effect, far to the right each has its own estimate: the whole range from
complete to no pooling, with the posterior of τ saying which part of it matters (Rubin 1981).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError, ModelError
from bayes_hte.estimands.effects import convert_to_scale
from bayes_hte.inference.exact import beyond, closed, direct, engine
from bayes_hte.inference.exact.estimates import Arm, effects_given
from bayes_hte.inference.exact.latent.conditioning import average_effects_given
from bayes_hte.inference.exact.one_part import is_latent
from bayes_hte.inference.exact.target import mean_of
from bayes_hte.model.families import FAMILIES, Family
from bayes_hte.model.parameters import collect_hyperparameters, list_coefficients, name_term_variable
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import get_fitted_cells, require_known_model
from bayes_hte.spec.model import Model

TAU_GRID_SIZE = 33
"""Values of τ: enough for smooth lines."""
TAU_REACH = 1.6
"""Largest τ as a multiple of the posterior's 99 % quantile: far enough to see where no pooling leads."""
TAU_GRID_POWER = 1.5
"""Above 1 the grid is denser near 0, where effects bend most."""
TARGET_ESS_PER_TAU = 250
"""Effective points of the other hyperparameters at each value of τ."""
FEWEST_AVERAGED_POINTS, MOST_AVERAGED_POINTS = 200, 2000
AVERAGED_EFFECTS = 200_000
"""Points over which effects are averaged, times segments: many where they are cheap, so that lines are smooth. Where
segments are many, other hyperparameters hardly vary."""
COARSE_GRID_SIZE, MAX_FINE_SEGMENTS = 13, 200
"""Values of τ that are computed for more segments than these; a cubic spline fills in the others."""


def profile_tau(fit_tree: xr.DataTree, scale: EffectScale, dimension: str | None = None) -> pd.DataFrame:
    """Tabulate effects given τ in long form, one row per arm, segment and τ; see `Fit.given_tau`.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    scale : {"absolute", "relative", "link"}
    dimension : str, optional
        A term of ``effect.by``: τ is then the SD between its levels, in place of that between segments.

    Raises
    ------
    ArgumentError
        If effects do not differ by the levels of `dimension`.
    ModelError
        If effects are not partially pooled, or the fast engine does not apply.
    """
    cells, model = get_fitted_cells(fit_tree), require_known_model(fit_tree, "effects given tau")
    if model.pooling != "partial":
        raise ModelError(f'there is no between-segment SD under pooling = "{model.pooling}"')
    problem = build_problem(cells, model)
    _check_single_tau(problem, scale)
    unsupported_reason = beyond(problem)
    if unsupported_reason is not None:
        raise ModelError(f"effects given tau need the exact engine: {unsupported_reason}")
    between_name = _name_between(problem, dimension)
    arm_tables = []
    for arm_index, arm in enumerate(problem.coords["arm"]):
        between_draws = fit_tree["posterior"].to_dataset()[between_name]
        # Arms may share one between-segment SD, which then has no dim arm.
        tau_draws = between_draws.isel(arm=arm_index) if "arm" in between_draws.dims else between_draws
        tau_values = build_tau_grid(tau_draws.values)
        if closed(problem):
            effect_profile, log_evidence = _profile_estimates(problem, arm_index, tau_values, scale)
        else:
            effect_profile, log_evidence = _profile_cells_by_spline(
                problem, (between_name, arm_index), tau_values, scale
            )
        tau_density = _compute_tau_density(problem, between_name, tau_values, log_evidence)
        arm_tables.append(_build_profile_table(cells, arm, tau_values, effect_profile, tau_density))
    return pd.concat(arm_tables, ignore_index=True)


def choose_profile_scale(fit_tree: xr.DataTree, requested_scale: EffectScale) -> EffectScale:
    """Choose the requested scale, or the link scale where lines would not meet at τ = 0, or are not known.

    Segments that share an effect on the link scale share it on another only where that is a function of the effect
    alone: differences under an identity link, ratios under a log link. Elsewhere their control means come in.
    """
    model = require_known_model(fit_tree, "effects given tau")
    family = FAMILIES[model.family]
    is_shared = (
        requested_scale == "link"
        or (requested_scale == "absolute" and family.link == "identity")
        or (requested_scale == "relative" and family.link == "log")
    )
    return requested_scale if is_shared and not _is_scale_unavailable(model, family, requested_scale) else "link"


def _is_scale_unavailable(model: Model, family: Family, scale: EffectScale) -> bool:
    """Recognise a scale that needs parameters which all segments share: they are not averaged over here."""
    has_shared_nuisance = (
        model.amount is None and family.cell_likelihood is not None and family.cell_likelihood.nuisance_name is not None
    )
    return has_shared_nuisance and scale == "absolute" and family.link != "identity"


def _check_single_tau(problem: Problem, scale: EffectScale) -> None:
    """Refuse where effects are no function of a single between-segment SD, or the scale needs what is not known."""
    model, family = problem.model, problem.family
    if model.effect.strata is not None or model.amount is not None:
        raise ModelError("there are several between-segment SDs: effects as a function of one are not defined")
    if _is_scale_unavailable(model, family, scale):
        raise ModelError(
            f'effects given tau of family "{model.family}" are known on the link and relative scales only; pass '
            'scale="link"'
        )


def build_tau_grid(tau_draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Build values of τ from nearly 0 to beyond where the posterior ends."""
    # τ_i = τ_max (i / (n − 1))^1.5; the first is not 0, which has no logarithm
    largest_tau = TAU_REACH * float(np.quantile(tau_draws, 0.99))
    tau_values: NDArray[np.float64] = largest_tau * (np.arange(TAU_GRID_SIZE) / (TAU_GRID_SIZE - 1)) ** TAU_GRID_POWER
    tau_values[0] = 1e-3 * largest_tau / TAU_GRID_SIZE
    return tau_values


def _name_between(problem: Problem, dimension: str | None) -> str:
    """Name the variable of the SD between segments, or between the levels of a dimension."""
    if dimension is None:
        return "effect_between"
    terms = next(each.pool_priors.by for each in list_coefficients(problem.model) if each.name == "effect")
    if dimension not in terms:
        found = f"they differ by those of {', '.join(terms)}" if terms else "the model has no effect.by"
        raise ArgumentError(f"effects do not differ by the levels of {describe_value(dimension)}; {found}")
    return f"{name_term_variable('effect', dimension)}_between"


def _compute_tau_density(
    problem: Problem, between_name: str, tau_values: NDArray[np.float64], log_evidence: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the posterior density of τ on its grid: evidence times prior, normalised by the trapezoid rule."""
    between_prior = collect_hyperparameters(problem.model)[between_name].prior
    # p(τ | D) ∝ p(D | τ) p(τ); the maximum is taken out so that exp() does not overflow
    log_posterior = log_evidence + compute_log_prior(between_prior, tau_values)
    relative_density = np.exp(log_posterior - log_posterior.max())
    tau_density: NDArray[np.float64] = relative_density / np.trapezoid(relative_density, tau_values)
    return tau_density


def _profile_estimates(
    problem: Problem, arm_index: int, tau_values: NDArray[np.float64], scale: EffectScale
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute effects of published estimates at every τ in closed form, shape (τ, segment), and log evidence (τ,)."""
    arm = direct.arms(problem)[arm_index]
    effect_profile, log_evidence = [], []
    for tau in tau_values:
        fixed_arm = Arm(arm.data, arm.mean, float(tau))
        quadrature_nodes = fixed_arm.nodes()
        effect_centres, _ = effects_given(arm.data, quadrature_nodes.tau, quadrature_nodes.mean)
        # E[effect | τ, D] = Σ_nodes w E[effect | τ, mean, D], rotated back where estimates have a covariance
        mean_effects = quadrature_nodes.weights @ effect_centres
        effect_profile.append(mean_effects if arm.data.axes is None else arm.data.axes @ mean_effects)
        log_evidence.append(quadrature_nodes.log_evidence)
    return np.array(effect_profile), np.array(log_evidence)


def _profile_cells_by_spline(
    problem: Problem, tau_place: tuple[str, int], tau_values: NDArray[np.float64], scale: EffectScale
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute effects of cells at every τ; of many segments at some values, with a spline between them.

    `tau_place` is the variable of τ, and the arm.
    """
    if len(problem.coords["segment"]) <= MAX_FINE_SEGMENTS:
        return _profile_cells(problem, tau_place, tau_values, scale)
    from scipy.interpolate import CubicSpline

    # The grid is even in τ^(1 / power), in which lines bend little: so is every third of its values.
    steps = np.linspace(0, len(tau_values) - 1, COARSE_GRID_SIZE).round().astype(int)
    effect_profile, log_evidence = _profile_cells(problem, tau_place, tau_values[steps], scale)
    all_steps = np.arange(len(tau_values))
    return CubicSpline(steps, effect_profile)(all_steps), CubicSpline(steps, log_evidence)(all_steps)


def _profile_cells(
    problem: Problem, tau_place: tuple[str, int], tau_values: NDArray[np.float64], scale: EffectScale
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute effects of cells at every τ, other hyperparameters sampled: (τ, segment), and log evidence (τ,)."""

    def convert_effect(baseline: NDArray[np.float64], effect: NDArray[np.float64]) -> NDArray[np.float64]:
        parameter_draws = {"baseline": xr.DataArray(baseline), "effect": xr.DataArray(effect)}
        return np.asarray(convert_to_scale(problem.family, parameter_draws, scale, problem.cell_statistics).values)

    between_name, arm_index = tau_place
    between_index = 0 if problem.model.effect.shared_between else arm_index
    # E[effect | τ, D], averaged over the other hyperparameters by weighted points at every τ
    if is_latent(problem):
        conditional = average_effects_given(
            problem,
            [{(between_name, between_index): float(tau)} for tau in tau_values],
            lambda baseline, effect: _convert_draws(problem, scale, baseline, effect),
            wanted=TARGET_ESS_PER_TAU,
            seed=1,
        )
        profile = np.stack([each.effects[:, arm_index] for each in conditional])
        return profile, np.array([each.log_evidence for each in conditional])
    averaged_points = AVERAGED_EFFECTS // len(problem.coords["segment"])
    averaged_points = min(max(averaged_points, FEWEST_AVERAGED_POINTS), MOST_AVERAGED_POINTS)
    effect_profile, log_evidence = [], []
    for tau in tau_values:
        # The same seed at every τ: Monte-Carlo error shifts the lines, but does not make them rough.
        fixed_values: Mapping[tuple[str, int], float] = {(between_name, between_index): float(tau)}
        target_density, weighted_sample = engine.points(problem, wanted=TARGET_ESS_PER_TAU, seed=1, held=fixed_values)
        resampled_points = weighted_sample.points[weighted_sample.resampled(averaged_points, np.random.default_rng(1))]
        mean_effects = np.empty(target_density.segments.size)
        for segment_group in target_density.groups:
            group_means = target_density.over(
                resampled_points, segment_group.members, mean_of(convert_effect, segment_group.order)
            )
            mean_effects[segment_group.members] = group_means[:, :, arm_index].mean(0)
        effect_profile.append(mean_effects)
        log_evidence.append(weighted_sample.log_evidence)
    return np.array(effect_profile), np.array(log_evidence)


def _convert_draws(
    problem: Problem, scale: EffectScale, baseline: NDArray[np.float64], effect: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Convert drawn effects (point, segment, arm) to a scale."""
    parameter_draws = {
        "baseline": xr.DataArray(baseline, dims=("draw", "segment")),
        "effect": xr.DataArray(effect, dims=("draw", "segment", "arm")),
    }
    converted = convert_to_scale(problem.family, parameter_draws, scale, problem.cell_statistics)
    return np.asarray(converted.transpose("draw", "segment", "arm").values)


def _build_profile_table(
    cells: xr.Dataset,
    arm: str,
    tau_values: NDArray[np.float64],
    effect_profile: NDArray[np.float64],
    tau_density: NDArray[np.float64],
) -> pd.DataFrame:
    """Build the long table of one arm: τ outermost, segments within."""
    segment_count = cells.sizes[cell_table.SEGMENT]
    tau_count = len(tau_values)
    level_columns = {
        name: np.tile(cells[name].values.astype(str), tau_count) for name in cell_table.list_dimensions(cells)
    }
    return pd.DataFrame(
        {
            **level_columns,
            "arm": arm,
            "tau": np.repeat(tau_values, segment_count),
            "effect": effect_profile.ravel(),
            "density": np.repeat(tau_density, segment_count),
        }
    )
