"""The front door: `fit` a model to cells, or `run` the whole analysis that a plan describes."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte import schema
from bayes_hte.diagnose import diagnose
from bayes_hte.errors import DataError, PlanError
from bayes_hte.model import Problem, problem
from bayes_hte.posterior import assemble, provenance, sample
from bayes_hte.result import FORMAT, Fit
from bayes_hte.spec import Model, Plan, read_model, read_plan
from bayes_hte.spec.files import model_path, sha256
from bayes_hte.spec.plan import Sampler

MIN_DRAWS = 400
"""What the diagnosis asks for if every draw were independent."""
FIRST_TRY = (0.95, 1000)
SECOND_TRY = (0.995, 2500)
"""target_accept and tuning steps; the second is taken once, when the first did not pass its diagnosis."""


def fit(
    cells: xr.Dataset,
    model: Model | str | Path,
    *,
    sampler: Sampler = "auto",
    draws: int = 4000,
    seed: int = 1,
    progress: bool | None = None,
) -> Fit:
    """Draw from the posterior of a model given a cell table.

    Parameters
    ----------
    cells : xarray.Dataset
        From `bayes_hte.cells`; dims (segment, arm).
    model : Model, str or Path
        What is believed; a name or path is read with `read_model`.
    sampler : {"auto", "nuts"}
        The engine. Both are NUTS on the PyMC model today.
    draws : int
        Posterior draws in all, over four chains.
    seed : int
        The only source of randomness.
    progress : bool, optional
        Show a progress bar; by default only to a person at a terminal.

    Returns
    -------
    Fit

    Raises
    ------
    DataError
        If the cells break their contract or hold nothing to compare.
    ModelError
        If the model does not fit the cells.
    FitError
        If the sampler breaks down.

    Notes
    -----
    If the draws fail their diagnosis the model is fitted once more with smaller steps and more
    tuning; if they fail again the result is returned and marked as unreliable.
    """
    model = model if isinstance(model, Model) else read_model(model)
    if sampler not in ("auto", "nuts"):
        raise DataError(f"no sampler {sampler!r}; there are auto and nuts")
    if draws < MIN_DRAWS:
        raise DataError(f"draws={draws} is too few to report a probability; the least is {MIN_DRAWS}")
    if not 0 <= seed < 2**32:
        raise DataError(f"seed={seed} is no seed: give a whole number from 0 to 4294967295")
    if progress is None:  # the sampler's bar goes to standard output
        progress = sys.stdout.isatty() and sys.stderr.isatty()
    task = problem(cells, model)
    tree = _attempt(task, cells, model, FIRST_TRY, draws=draws, seed=seed, progress=progress)
    diagnosis = diagnose(tree)
    if not diagnosis.ok:
        tree = _attempt(task, cells, model, SECOND_TRY, draws=draws, seed=seed, progress=progress)
        diagnosis = replace(diagnose(tree), refitted=True)
    tree.attrs["diagnosis"] = json.dumps(asdict(diagnosis))
    return Fit(tree)


def _attempt(
    task: Problem,
    cells: xr.Dataset,
    model: Model,
    effort: tuple[float, int],
    *,
    draws: int,
    seed: int,
    progress: bool,
) -> xr.DataTree:
    target_accept, tune = effort
    drawn = sample(task, draws=draws, seed=seed, target_accept=target_accept, tune=tune, progress=progress)
    tree = assemble(task, cells, drawn, seed=seed)
    tree.attrs = {
        "format": FORMAT,
        "model": model.model_dump_json(exclude_none=True),
        "model_sha256": hashlib.sha256(model.model_dump_json().encode()).hexdigest(),
        "sampler": "nuts (nutpie)",
        **provenance(task, cells, seed=seed),
    }
    return tree


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
    path = Path(plan)
    asked = read_plan(path)
    model_file = model_path(asked.model, path.parent)
    model = read_model(model_file)
    cells = aggregate(asked, path.parent, data=data, drop_missing=drop_missing)
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
    result.posterior.attrs |= {"plan": prepared.plan.model_dump_json(exclude_none=True), **prepared.hashes}
    return result


def aggregate(plan: Plan, folder: Path, *, data: Any = None, drop_missing: bool = False) -> xr.Dataset:
    """The cell table that a plan asks for.

    Raises
    ------
    PlanError
        If neither the plan nor the caller names the data.
    DataError
        If the data cannot be analysed as asked.
    """
    from bayes_hte import cells

    asked = plan.data
    if data is None and asked.path is None:
        raise PlanError("the plan names no data: add data.path, or pass --data FILE")
    source = folder / str(asked.path) if data is None else data
    options = asked.model_dump(exclude={"form", "path"}, exclude_none=True)
    options["segments"] = list(asked.segments)
    match asked.form:
        case "rows":
            options["drop_missing"] = asked.drop_missing or drop_missing
            return cells.from_rows(source, **options)
        case "summary":
            return cells.from_summary(source, **options)
        case "estimates":
            return cells.from_estimates(source, **options)


def cell_frame(cells: xr.Dataset) -> pd.DataFrame:
    """The cell table as a data frame: one row per segment and arm, one column per dimension and statistic."""
    names = [name for name in map(str, cells.data_vars) if cells[name].dims == (schema.SEGMENT, schema.ARM)]
    frame = cells[names].to_dataframe(dim_order=[schema.SEGMENT, schema.ARM]).reset_index()
    if "ss" in names:  # people read standard deviations, and `from_summary` takes them
        names[names.index("ss")] = "sd"
        frame["sd"] = (frame["ss"] / (frame["n"] - 1).where(frame["n"] > 1)) ** 0.5
    return frame[[*schema.dimensions(cells), schema.ARM, *names]]
