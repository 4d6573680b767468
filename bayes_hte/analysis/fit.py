"""`fit`: draw from the posterior of a model given cells, with an engine that can, and diagnose the draws."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import xarray as xr

from bayes_hte._support.numerics import isolate_call
from bayes_hte._support.validation import check_draw_count, check_seed, describe_value
from bayes_hte.analysis.result import Fit
from bayes_hte.criticism import diagnostics
from bayes_hte.criticism.misfit import list_misfits
from bayes_hte.criticism.own_estimates.fit_findings import add_fit_findings
from bayes_hte.errors import ArgumentError
from bayes_hte.inference.engine import AUTO_SAMPLER, EngineResult, draw_posterior, list_sampler_names
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import Model, cell_table, read_model
from bayes_hte.spec.fit_tree import FitRecord, record_inputs


def fit(
    cells: xr.Dataset,
    model: Model | str | Path,
    *,
    sampler: str = AUTO_SAMPLER,
    draws: int = 4000,
    seed: int = 1,
    progress: bool | None = None,
    higher_is_better: bool | None = None,
) -> Fit:
    """Draw from the posterior of a model given a cell table.

    Parameters
    ----------
    cells : xarray.Dataset
        From `bayes_hte.cells`; dims (segment, arm).
    model : Model, str or Path
        What is believed; a name or path is read with `read_model`.
    sampler : {"auto", "exact", "nuts"} or the name of a registered engine
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
    higher_is_better : bool, optional
        Whether an effect above 0 helps; False for deaths, churn or costs. Reports, ranks and probabilities of benefit
        and harm follow it; a plan says it as ``report.higher_is_better``. If it is not stated, higher is taken as
        better, and the report asks where the outcome's name or a rare event makes that doubtful.

    Returns
    -------
    Fit

    Raises
    ------
    ArgumentError
        If sampler, draws or seed make no sense.
    DataError
        If the cells break their contract or hold nothing to compare.
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
    return fit_and_record(
        cells,
        model if isinstance(model, Model) else read_model(model),
        SamplingRequest(sampler=sampler, draws=draws, seed=seed, progress=progress),
        partial(replace, higher_is_better=higher_is_better),
    )


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """How to draw, as `fit` is asked: by which engine, how often, from which seed, with a progress bar or not."""

    sampler: str = AUTO_SAMPLER
    draws: int = 4000
    seed: int = 1
    progress: bool | None = None


@isolate_call
def fit_and_record(
    cells: xr.Dataset, model: Model, request: SamplingRequest, complete_record: Callable[[FitRecord], FitRecord]
) -> Fit:
    """Build the `Fit` of `compute_fit_tree`, which nothing changes any more."""
    return Fit(compute_fit_tree(cells, model, request, complete_record))


def compute_fit_tree(
    cells: xr.Dataset, model: Model, request: SamplingRequest, complete_record: Callable[[FitRecord], FitRecord]
) -> xr.DataTree:
    """Draw with an engine, once more where the draws fail their diagnosis and the engine can take more care.

    Parameters
    ----------
    cells : xarray.Dataset
    model : Model
    request : SamplingRequest
    complete_record : callable
        Adds what the caller knows of the fit to its record, such as the plan.

    Returns
    -------
    xarray.DataTree
        The draws, what the engine says of them, the cells, and the record with the diagnosis.
    """
    draws, seed = check_sampling_request(request.sampler, request.draws, request.seed)
    problem = build_problem(cells, model)
    cell_table.check_precision(cells)
    progress = request.progress
    if progress is None:  # the sampler's bar goes to standard output
        progress = sys.stdout.isatty() and sys.stderr.isatty()
    result = draw_posterior(problem, request.sampler, draws=draws, seed=seed, progress=progress)
    return complete_fit_tree(problem, cells, model, result, seed=seed, complete_record=complete_record)


def complete_fit_tree(
    problem: Problem,
    cells: xr.Dataset,
    model: Model,
    result: EngineResult,
    *,
    seed: int,
    complete_record: Callable[[FitRecord], FitRecord],
) -> xr.DataTree:
    """Diagnose draws, and build the tree of the fit: what `compute_fit_tree` does once there are draws."""
    record = replace(
        complete_record(_start_record(problem, cells, model, seed=seed)),
        engine_name=result.engine_name,
        engine_sentence=result.engine_sentence,
        sampler=result.sampler,
    )
    posterior_draws = result.draws
    fit_tree = posterior_draws.to_fit_tree(cells, record)
    diagnosis = diagnostics.diagnose_draws(fit_tree)
    if not diagnosis.ok and posterior_draws.retry is not None:
        posterior_draws = posterior_draws.retry()
        fit_tree = posterior_draws.to_fit_tree(cells, record)
        second_diagnosis = diagnostics.diagnose_draws(fit_tree)
        diagnosis = replace(second_diagnosis, refitted=True)
    # After the retry: more care with the draws cannot mend a model that the data contradict.
    diagnosis = diagnosis.with_problems(list_misfits(fit_tree))
    diagnosis = add_fit_findings(diagnosis, problem, posterior_draws.posterior, cells)
    fit_tree.attrs = replace(record, diagnosis=asdict(diagnosis)).encode()
    return fit_tree


def check_sampling_request(sampler: str, draws: object, seed: object) -> tuple[int, int]:
    """Check the sampler's name, and convert the numbers of draws and seed to Python's own type.

    Raises
    ------
    ArgumentError
        If there is no such sampler, or the numbers are none or too small.
    """
    if sampler not in list_sampler_names():
        raise ArgumentError(f"no sampler {describe_value(sampler)}; there are {', '.join(list_sampler_names())}")
    return check_draw_count(draws), check_seed(seed)


def _start_record(problem: Problem, cells: xr.Dataset, model: Model, *, seed: int) -> FitRecord:
    """Record the inputs of a fit, and the hash of its model."""
    # The hash covers unset keys as well: a default that changes makes another model of the same file.
    model_sha256 = hashlib.sha256(model.model_dump_json().encode()).hexdigest()
    return replace(record_inputs(cells, model, resolved_model=problem.model, seed=seed), model_sha256=model_sha256)
