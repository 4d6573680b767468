"""The front door: `fit` a model to cells, or `run` the whole analysis that a plan describes."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import xarray as xr

from bayes_hte._support.validation import check_path, check_seed, describe_value, to_int
from bayes_hte.analysis.result import FIT_FORMAT, Fit
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.criticism import diagnostics
from bayes_hte.errors import DataError, FitError, PlanError
from bayes_hte.inference import exact
from bayes_hte.inference.draws import add_mean_outcome
from bayes_hte.inference.nuts.sample import build_fit_tree, collect_provenance, sample_with_nuts
from bayes_hte.model.planned_effect import with_planned_effect
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import Model, Plan, cell_table, read_model, read_plan
from bayes_hte.spec.files import find_model_file, hash_file
from bayes_hte.spec.plan import SamplerName

# The diagnosis asks for 400 effective draws: fewer could not pass even if every draw were independent.
MIN_DRAWS = 400
# Settings of NUTS are (target_accept, tuning steps): the higher the first, the smaller the steps.
FIRST_NUTS_SETTINGS = (0.95, 1000)
# Models in which levels of dimensions have effects, or with a horseshoe, have several funnels: smaller steps at once.
FUNNEL_NUTS_SETTINGS = (0.99, 1500)
# Taken once, when the first draws do not pass their diagnosis.
RETRY_NUTS_SETTINGS = (0.995, 2500)


def fit(
    cells: xr.Dataset,
    model: Model | str | Path,
    *,
    sampler: SamplerName = "auto",
    draws: int = 4000,
    seed: int = 1,
    progress: bool | None = None,
    higher_is_better: bool = True,
) -> Fit:
    """Draw from the posterior of a model given a cell table.

    Parameters
    ----------
    cells : xarray.Dataset
        From `bayes_hte.cells`; dims (segment, arm).
    model : Model, str or Path
        What is believed; a name or path is read with `read_model`.
    sampler : {"auto", "exact", "nuts"}
        The engine. ``exact`` computes the posterior by quadrature and importance sampling, in a fraction of
        a second and without PyMC; it refuses what it cannot vouch for. ``nuts`` samples the PyMC model. ``auto``
        is exact where it applies and its certificate holds, else NUTS; `Fit.engine` says which, and why.
    draws : int
        Posterior draws in all, over four chains. The exact engine takes fewer for tens of thousands of segments, so
        that the draws fit into memory; its probabilities of signs do not depend on the number of draws.
    seed : int
        The only source of randomness.
    progress : bool, optional
        Show a progress bar; by default only to a person at a terminal.
    higher_is_better : bool
        Whether an effect above 0 helps; False for deaths, churn or costs. Reports, ranks and probabilities of benefit
        and harm follow it; a plan says it as ``report.higher_is_better``.

    Returns
    -------
    Fit

    Raises
    ------
    DataError
        If the cells break their contract or hold nothing to compare, or sampler, draws or seed make no sense.
    ModelError
        If there is no such model, or it does not fit the cells.
    FitError
        If the sampler breaks down, or ``sampler="exact"`` cannot vouch for the result.

    Notes
    -----
    If NUTS's draws fail their diagnosis the model is fitted once more with smaller steps and more
    tuning; if they fail again the result is returned and marked as unreliable.

    Examples
    --------
    >>> import pandas as pd, bayes_hte as hte
    >>> schools = pd.DataFrame({"school": ["A", "B", "C"], "y": [28.0, 8.0, -3.0], "se": [15.0, 10.0, 16.0]})
    >>> cells = hte.cells.from_estimates(schools, segments=["school"], estimate="y", se="se")
    >>> model = hte.Model(
    ...     family="estimate",
    ...     effect={"mean": {"dist": "Normal", "sigma": 20.0}, "between": {"dist": "HalfNormal", "sigma": 10.0}},
    ... )
    >>> fit = hte.fit(cells, model, sampler="exact")
    >>> [f"{p:.2f}" for p in fit.table()["p_positive"]]
    ['0.92', '0.87', '0.78']
    """
    new_fit = _fit_exactly_or_by_nuts(cells, model, sampler=sampler, draws=draws, seed=seed, progress=progress)
    if not higher_is_better:
        new_fit.tree.attrs["lower_is_better"] = 1
    return new_fit


def _fit_exactly_or_by_nuts(
    cells: xr.Dataset, model: Model | str | Path, *, sampler: SamplerName, draws: int, seed: int, progress: bool | None
) -> Fit:
    """Draw with the exact engine where it is wanted and can vouch for itself, else with NUTS, twice if need be."""
    model = model if isinstance(model, Model) else read_model(model)
    draws, seed = check_sampling_request(sampler, draws, seed)
    problem = build_problem(cells, model)
    cell_table.check_precision(cells)
    engine_reason = "as asked"
    if sampler != "nuts":
        tree_or_reason = _draw_exactly(problem, cells, draw_count=draws, seed=seed)
        if isinstance(tree_or_reason, xr.DataTree):
            return _complete_fit(tree_or_reason, problem, model, seed=seed)
        if sampler == "exact":
            raise FitError(f"the exact engine cannot solve this: {tree_or_reason}; use sampler auto or nuts")
        engine_reason = f"because the exact engine cannot solve this: {tree_or_reason}"
    if progress is None:  # the sampler's bar goes to standard output
        progress = sys.stdout.isatty() and sys.stderr.isatty()
    first_settings = FUNNEL_NUTS_SETTINGS if _has_funnels(problem.model) else FIRST_NUTS_SETTINGS
    first_tree = _sample_by_nuts(problem, cells, first_settings, draw_count=draws, seed=seed, progress=progress)
    first_tree.attrs |= {"engine": f"Sampled by NUTS on the PyMC model, {engine_reason}.", "sampler": "nuts (nutpie)"}
    first_fit = _complete_fit(first_tree, problem, model, seed=seed)
    if first_fit.diagnosis.ok:
        return first_fit
    retry_tree = _sample_by_nuts(problem, cells, RETRY_NUTS_SETTINGS, draw_count=draws, seed=seed, progress=progress)
    retry_tree.attrs |= first_tree.attrs
    return _complete_fit(retry_tree, problem, model, seed=seed, is_refit=True)


def _has_funnels(model: Model) -> bool:
    """Tell whether the model learns more scales than one per coefficient."""
    # Each scale that multiplies offsets makes a funnel: where it is small, steps have to be small too.
    all_pool_priors = [model.effect] + ([] if model.baseline is None else [model.baseline])
    return model.effect.shape == "horseshoe" or any(pool_priors.by for pool_priors in all_pool_priors)


def check_sampling_request(sampler: str, draws: object, seed: object) -> tuple[int, int]:
    """Check the sampler's name, and convert the numbers of draws and seed to Python's own type.

    Raises
    ------
    DataError
        If there is no such sampler, or the numbers are none or too small.
    """
    if sampler not in get_args(SamplerName):
        raise DataError(f"no sampler {describe_value(sampler)}; there are {', '.join(get_args(SamplerName))}")
    draw_count = to_int(draws)
    if draw_count is None:
        raise DataError(
            f"draws={describe_value(draws)} is no number of draws; give a whole number, {MIN_DRAWS} or more"
        )
    if draw_count < MIN_DRAWS:
        raise DataError(f"draws={draw_count} is too few to report a probability; the least is {MIN_DRAWS}")
    return draw_count, check_seed(seed)


def _draw_exactly(problem: Problem, cells: xr.Dataset, *, draw_count: int, seed: int) -> xr.DataTree | str:
    """Draw with the exact engine: the fit's tree, or a clause that says why there is none."""
    unsupported_reason = exact.beyond(problem)
    if unsupported_reason is not None:
        return unsupported_reason
    # A draw holds an effect per segment and treated arm, and a baseline per segment.
    numbers_per_draw = len(problem.coords["segment"]) * (len(problem.coords["arm"]) + problem.family.has_baseline)
    kept_draw_count = max(MIN_DRAWS, min(draw_count, int(exact.NUMBERS / numbers_per_draw)))
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused below
            posterior_draws = exact.posterior(problem, draws=kept_draw_count, seed=seed)
    except np.linalg.LinAlgError as error:
        return f"its linear algebra failed ({error})"
    if not posterior_draws.is_finite:
        return "some of its numbers are not finite, as where data lie far outside of what a prior allows"
    fit_tree = build_fit_tree(cells, posterior_draws)
    certificate_warnings = diagnostics.list_certificate_warnings(fit_tree)
    if certificate_warnings:
        return " ".join(certificate_warnings).rstrip(".")
    fewer_draws_note = ""
    if kept_draw_count != draw_count:
        fewer_draws_note = f"; {kept_draw_count:,} draws instead of {draw_count:,}, to fit into memory"
    certificate_text = diagnostics.describe_certificate(fit_tree)
    fit_tree.attrs |= {
        "engine": f"Computed by the exact engine, without MCMC: {certificate_text}{fewer_draws_note}.",
        "sampler": "exact",
    }
    return fit_tree


def _sample_by_nuts(
    problem: Problem, cells: xr.Dataset, nuts_settings: tuple[float, int], *, draw_count: int, seed: int, progress: bool
) -> xr.DataTree:
    """Sample with NUTS, and put draws and cells into the fit's tree."""
    target_accept, tuning_steps = nuts_settings
    posterior_draws = sample_with_nuts(
        problem, draws=draw_count, seed=seed, target_accept=target_accept, tune=tuning_steps, progress=progress
    )
    return build_fit_tree(
        cells, replace(posterior_draws, posterior=add_mean_outcome(problem, posterior_draws.posterior))
    )


def _complete_fit(fit_tree: xr.DataTree, problem: Problem, model: Model, *, seed: int, is_refit: bool = False) -> Fit:
    """Write the model, the provenance of its numbers and the diagnosis of its draws into a fit's tree."""
    model_json = model.model_dump_json(exclude_none=True)
    # The hash covers unset keys as well: a default that changes makes another model of the same file.
    fit_tree.attrs |= {
        "format": FIT_FORMAT,
        "model": model_json,
        "model_sha256": hashlib.sha256(model.model_dump_json().encode()).hexdigest(),
        **collect_provenance(problem, fit_tree["cells"].to_dataset(), seed=seed),
    }
    diagnosis = replace(diagnostics.diagnose_draws(fit_tree), refitted=is_refit)
    fit_tree.attrs["diagnosis"] = json.dumps(asdict(diagnosis))
    return Fit(fit_tree)


def run(
    plan: str | Path,
    *,
    data: Any = None,
    drop_missing: bool = False,
    draws: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> Fit:
    """Carry out the whole analysis that a plan file describes.

    Parameters
    ----------
    plan : str or Path
        The plan file.
    data : data frame, relation or path, optional
        In place of the plan's ``data.path``.
    drop_missing : bool
        Drop units without a finite outcome, even if the plan does not ask for it.
    draws, seed : int, optional
        In place of the plan's.
    progress : bool, optional
        Show a progress bar; by default only to a person at a terminal.

    Returns
    -------
    Fit

    Raises
    ------
    PlanError, ModelError, DataError, FitError
        As the step that fails says.
    """
    return fit_prepared_analysis(
        prepare_analysis(plan, data=data, drop_missing=drop_missing), draws=draws, seed=seed, progress=progress
    )


@dataclass(frozen=True, slots=True)
class PreparedAnalysis:
    """A plan with its model and its cells: everything there is before the fit.

    Attributes
    ----------
    plan : Plan
    model : Model
    cells : xarray.Dataset
    file_hashes : dict
        SHA-256 of the plan and model files.
    """

    plan: Plan
    model: Model
    cells: xr.Dataset
    file_hashes: dict[str, str]


def prepare_analysis(plan_path: str | Path, *, data: Any = None, drop_missing: bool = False) -> PreparedAnalysis:
    """Read the plan and its model, reduce the data to cells, and check that they fit together.

    Raises
    ------
    PlanError, ModelError, DataError
        As the step that fails says.
    """
    # Paths in a plan are relative to its folder, wherever the program runs.
    plan_file = check_path(plan_path, "the plan", PlanError)
    plan = read_plan(plan_file)
    model_file = find_model_file(plan.model, plan_file.parent)
    model = read_model(model_file)
    cells = from_plan(plan, plan_file.parent, data=data, drop_missing=drop_missing)
    if plan.planned_effect is not None:
        model = with_planned_effect(model, cells, plan.planned_effect, plan.report.scale)
    # Built for its errors alone: `bayes-hte check` reports them without a fit.
    build_problem(cells, model)
    return PreparedAnalysis(
        plan, model, cells, {"plan_sha256": hash_file(plan_file), "model_sha256": hash_file(model_file)}
    )


def fit_prepared_analysis(
    prepared_analysis: PreparedAnalysis,
    *,
    draws: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> Fit:
    """Fit what was prepared; the plan and the hashes of both files travel with the result."""
    sampling_options = prepared_analysis.plan.sampling
    new_fit = fit(
        prepared_analysis.cells,
        prepared_analysis.model,
        sampler=sampling_options.sampler,
        draws=sampling_options.draws if draws is None else draws,
        seed=sampling_options.seed if seed is None else seed,
        progress=progress,
    )
    new_fit.tree.attrs |= {
        "plan": prepared_analysis.plan.model_dump_json(exclude_none=True),
        **prepared_analysis.file_hashes,
    }
    return new_fit
