"""The front door: `fit` a model to cells, or `run` the whole analysis that a plan describes."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import xarray as xr

from bayes_hte import diagnose, exact, schema
from bayes_hte.anchor import anchored
from bayes_hte.asked import described, path_of, seed_of, whole
from bayes_hte.drawn import headlined
from bayes_hte.errors import DataError, FitError, PlanError
from bayes_hte.model import Problem, problem
from bayes_hte.planned import aggregate
from bayes_hte.posterior import core, provenance, sample
from bayes_hte.result import FORMAT, Fit
from bayes_hte.spec import Model, Plan, read_model, read_plan
from bayes_hte.spec.files import model_path, sha256
from bayes_hte.spec.plan import Sampler

MIN_DRAWS = 400
"""What the diagnosis asks for if every draw were independent."""
FIRST_TRY = (0.95, 1000)
HARD_TRY = (0.99, 1500)
SECOND_TRY = (0.995, 2500)
"""target_accept and tuning steps; the second is taken once, when the first did not pass its diagnosis. Models in which
levels of dimensions have effects, or with a horseshoe, have several funnels, and start with smaller steps."""


def fit(
    cells: xr.Dataset,
    model: Model | str | Path,
    *,
    sampler: Sampler = "auto",
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
    found = _fitted(cells, model, sampler=sampler, draws=draws, seed=seed, progress=progress)
    if not higher_is_better:
        found.core.attrs["lower_is_better"] = 1
    return found


def _fitted(
    cells: xr.Dataset, model: Model | str | Path, *, sampler: Sampler, draws: int, seed: int, progress: bool | None
) -> Fit:
    """The exact engine where it is asked for and can, else NUTS."""
    model = model if isinstance(model, Model) else read_model(model)
    draws, seed = checked_request(sampler, draws, seed)
    task = problem(cells, model)
    schema.check_precision(cells)
    why = "as asked"
    if sampler != "nuts":
        found = _exactly(task, cells, draws=draws, seed=seed)
        if isinstance(found, xr.DataTree):
            return _finished(found, task, model, seed=seed)
        if sampler == "exact":
            raise FitError(f"the exact engine cannot solve this: {found}; use sampler auto or nuts")
        why = f"because the exact engine cannot solve this: {found}"
    if progress is None:  # the sampler's bar goes to standard output
        progress = sys.stdout.isatty() and sys.stderr.isatty()
    first = HARD_TRY if _has_funnels(task.model) else FIRST_TRY
    tree = _sampled(task, cells, first, draws=draws, seed=seed, progress=progress)
    tree.attrs |= {"engine": f"Sampled by NUTS on the PyMC model, {why}.", "sampler": "nuts (nutpie)"}
    described = _finished(tree, task, model, seed=seed)
    if described.diagnosis.ok:
        return described
    again = _sampled(task, cells, SECOND_TRY, draws=draws, seed=seed, progress=progress)
    again.attrs |= tree.attrs
    return _finished(again, task, model, seed=seed, refitted=True)


def _has_funnels(model: Model) -> bool:
    """Whether more scales than one per coefficient are learnt."""
    pools = [model.effect] + ([] if model.baseline is None else [model.baseline])
    return model.effect.shape == "horseshoe" or any(pool.by for pool in pools)


def checked_request(sampler: str, draws: object, seed: object) -> tuple[int, int]:
    """Draws and seed as Python's own numbers.

    Raises
    ------
    DataError
        If there is no such sampler, or the numbers are none or too small.
    """
    if sampler not in get_args(Sampler):
        raise DataError(f"no sampler {described(sampler)}; there are {', '.join(get_args(Sampler))}")
    size = whole(draws)
    if size is None:
        raise DataError(f"draws={described(draws)} is no number of draws; give a whole number, {MIN_DRAWS} or more")
    if size < MIN_DRAWS:
        raise DataError(f"draws={size} is too few to report a probability; the least is {MIN_DRAWS}")
    return size, seed_of(seed)


def _exactly(task: Problem, cells: xr.Dataset, *, draws: int, seed: int) -> xr.DataTree | str:
    """The core of a result by the exact engine, or why there is none."""
    reason = exact.beyond(task)
    if reason is not None:
        return reason
    numbers = len(task.coords["segment"]) * (len(task.coords["arm"]) + task.family.has_baseline)
    kept = max(MIN_DRAWS, min(draws, int(exact.NUMBERS / numbers)))
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused below
            drawn = exact.posterior(task, draws=kept, seed=seed)
    except np.linalg.LinAlgError as error:
        return f"its linear algebra failed ({error})"
    if not drawn.finite:
        return "some of its numbers are not finite, as where data lie far outside of what a prior allows"
    tree = core(cells, drawn)
    problems = diagnose.certificate_problems(tree)
    if problems:
        return " ".join(problems).rstrip(".")
    fewer = "" if kept == draws else f"; {kept:,} draws instead of {draws:,}, to fit into memory"
    tree.attrs |= {
        "engine": f"Computed by the exact engine, without MCMC: {diagnose.certificate(tree)}{fewer}.",
        "sampler": "exact",
    }
    return tree


def _sampled(
    task: Problem, cells: xr.Dataset, effort: tuple[float, int], *, draws: int, seed: int, progress: bool
) -> xr.DataTree:
    """The core of a result by NUTS."""
    target_accept, tune = effort
    drawn = sample(task, draws=draws, seed=seed, target_accept=target_accept, tune=tune, progress=progress)
    return core(cells, replace(drawn, posterior=headlined(task, drawn.posterior)))


def _finished(tree: xr.DataTree, task: Problem, model: Model, *, seed: int, refitted: bool = False) -> Fit:
    """Where the numbers come from, and whether they can be trusted."""
    said = model.model_dump_json(exclude_none=True)
    tree.attrs |= {
        "format": FORMAT,
        "model": said,
        "model_sha256": hashlib.sha256(model.model_dump_json().encode()).hexdigest(),
        **provenance(task, tree["cells"].to_dataset(), seed=seed),
    }
    diagnosis = replace(diagnose.diagnose(tree), refitted=refitted)
    tree.attrs["diagnosis"] = json.dumps(asdict(diagnosis))
    return Fit(tree)


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
    return answer(prepare(plan, data=data, drop_missing=drop_missing), draws=draws, seed=seed, progress=progress)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with its model and its cells: everything there is before the fit.

    Attributes
    ----------
    plan : Plan
    model : Model
    cells : xarray.Dataset
    hashes : dict
        SHA-256 of the plan and model files.
    """

    plan: Plan
    model: Model
    cells: xr.Dataset
    hashes: dict[str, str]


def prepare(plan: str | Path, *, data: Any = None, drop_missing: bool = False) -> Prepared:
    """Read the plan and its model, reduce the data to cells, and check that they fit together.

    Raises
    ------
    PlanError, ModelError, DataError
        As the step that fails says.
    """
    path = path_of(plan, "the plan", PlanError)
    asked = read_plan(path)
    model_file = model_path(asked.model, path.parent)
    model = read_model(model_file)
    cells = aggregate(asked, path.parent, data=data, drop_missing=drop_missing)
    if asked.planned_effect is not None:
        model = anchored(model, cells, asked.planned_effect, asked.report.scale)
    problem(cells, model)
    return Prepared(asked, model, cells, {"plan_sha256": sha256(path), "model_sha256": sha256(model_file)})


def answer(
    prepared: Prepared, *, draws: int | None = None, seed: int | None = None, progress: bool | None = None
) -> Fit:
    """Fit what was prepared; the plan and the hashes of both files travel with the result."""
    asked = prepared.plan.sampling
    result = fit(
        prepared.cells,
        prepared.model,
        sampler=asked.sampler,
        draws=asked.draws if draws is None else draws,
        seed=asked.seed if seed is None else seed,
        progress=progress,
    )
    result.core.attrs |= {"plan": prepared.plan.model_dump_json(exclude_none=True), **prepared.hashes}
    return result
