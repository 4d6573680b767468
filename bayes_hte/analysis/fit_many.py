"""`fit_many`: many metrics, dimensions and experiments in one call, on all cores."""

import html
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import xarray as xr
from threadpoolctl import threadpool_limits

from bayes_hte._support.numerics import isolate_call
from bayes_hte._support.phrases import shorten_text
from bayes_hte._support.progress import track_progress
from bayes_hte._support.validation import describe_type, describe_value, to_int
from bayes_hte.analysis.fit import check_sampling_request, complete_fit_tree
from bayes_hte.analysis.result import Fit
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR
from bayes_hte.errors import ArgumentError, FitError, HteError
from bayes_hte.inference.engine import EngineResult, draw_posteriors
from bayes_hte.inference.exact import target
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import Model, cell_table, read_model
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.plan import SamplerName

# Up to so many cell tables the start of other processes would take longer than it saves.
MAX_PROBLEMS_IN_ONE_PROCESS = 12
MAX_PROBLEMS_IN_A_CHUNK = 256
"""That one process draws for at once, and hands over."""
MAX_NAMES_IN_REPR = 5


@dataclass(frozen=True, slots=True, repr=False)
class Fits(Mapping[str, Fit]):
    """The results of `fit_many`, by name; a mapping.

    Attributes
    ----------
    fits : mapping
        Name -> Fit, completed at the first look.
    failed : mapping
        Name -> what was wrong with a problem that could not be fitted.
    """

    fits: Mapping[str, Fit]
    failed: Mapping[str, str]

    def __getitem__(self, name: str) -> Fit:
        """Look up the fit of a problem.

        Raises
        ------
        KeyError
            If there is no such problem, or it could not be fitted: then the error says why.
        """
        if name in self.failed:
            raise KeyError(f"{name!r} could not be fitted: {self.failed[name]}")
        return self.fits[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the problems that were fitted."""
        return iter(self.fits)

    def __len__(self) -> int:
        """Count the problems that were fitted."""
        return len(self.fits)

    def __repr__(self) -> str:
        """Count the problems, and name the first ones."""
        names = [shorten_text(name) for name in self.fits]
        shown_names = ", ".join(names[:MAX_NAMES_IN_REPR]) + ("" if len(names) <= MAX_NAMES_IN_REPR else ", …")
        failed_text = f", {len(self.failed)} failed" if self.failed else ""
        return f"<Fits: {len(names)} fitted{failed_text}{': ' if names else ''}{shown_names}>"

    def _repr_html_(self) -> str:
        """Write the average effects of all problems, and why some failed, as HTML for notebooks."""
        failed_items = "".join(
            f"<li>{html.escape(name)}: {html.escape(reason)}</li>" for name, reason in self.failed.items()
        )
        average_table = self.ate().to_html(index=False, max_rows=60, escape=True, float_format=lambda x: f"{x:.4g}")
        failed_list = f"<p>Could not be fitted:</p><ul>{failed_items}</ul>" if failed_items else ""
        return f"<p><b>{html.escape(repr(self))}</b></p>{failed_list}{average_table}"

    def table(self, scale: EffectScale | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """Stack `Fit.table` of all problems, with the columns problem, segment and reliable.

        The levels of each problem's own dimensions are joined in ``segment``.
        """
        return self._stack_tables("table", scale, ci_prob)

    def ate(self, scale: EffectScale | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """Stack `Fit.ate` of all problems, with the columns problem and reliable."""
        return self._stack_tables("ate", scale, ci_prob)

    def _stack_tables(self, method_name: str, scale: EffectScale | None, ci_prob: float | None) -> pd.DataFrame:
        """Put the tables that a method of `Fit` makes of every problem one under the other."""
        problem_tables = []
        for problem_name, problem_fit in self.fits.items():
            problem_table = getattr(problem_fit, method_name)(scale, ci_prob)
            problem_table.attrs = {}  # pandas compares attributes when it joins tables, and these differ
            if method_name == "table":
                # Columns of dimensions stand before the column arm, and problems may have different ones.
                dimension_columns = list(problem_table.columns[: list(problem_table.columns).index("arm")])
                segment_labels = problem_table[dimension_columns].agg(LEVEL_SEPARATOR.join, axis=1)
                problem_table = problem_table.drop(columns=dimension_columns)
                problem_table.insert(0, "segment", segment_labels)
            problem_table.insert(0, "problem", problem_name)
            problem_tables.append(problem_table)
        return pd.concat(problem_tables, ignore_index=True) if problem_tables else pd.DataFrame()


def fit_many(
    problems: Mapping[str, xr.Dataset],
    model: Model | str | Path | Mapping[str, Model | str | Path],
    *,
    sampler: SamplerName = "auto",
    draws: int = 2000,
    seed: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    higher_is_better: bool | None = None,
) -> Fits:
    """Fit many cell tables: metrics, dimensions, experiments.

    Parameters
    ----------
    problems : mapping
        Name -> cell table. Every problem is fitted on its own, with the same seed.
    model : Model, str or Path, or a mapping
        One for all, or one for each by the same names.
    sampler, seed
        As in `fit`.
    draws : int
        Posterior draws of each problem.
    workers : int, optional
        Processes; by default one per core, and none besides this one for a dozen problems or fewer.
    progress : bool, optional
        Show a progress bar; by default only to a person at a terminal.
    higher_is_better : bool, optional
        Whether effects above 0 help; as in `fit`, for all problems. Metrics of both kinds take two calls.

    Returns
    -------
    Fits
        A mapping from names to fits, with ``table()`` and ``ate()`` of all, and ``failed``: a problem that is
        wrong does not stop the others, but a wrong argument, which is wrong for all, does.

    Raises
    ------
    ArgumentError
        If there is no problem, a problem has no model, or the sampler, draws, seed or workers make no sense.
    ModelError
        If a model file is not valid.

    Examples
    --------
    >>> import pandas as pd, bayes_hte as hte
    >>> counts = pd.DataFrame({
    ...     "device": ["mobile", "mobile", "tablet", "tablet"], "arm": ["a", "b", "a", "b"],
    ...     "n": [9000, 9100, 300, 280], "clicks": [810, 955, 27, 40], "sales": [90, 101, 2, 5],
    ... })
    >>> given = {"arm": "arm", "control": "a", "segments": ["device"], "n": "n"}
    >>> tables = {metric: hte.cells.from_summary(counts, events=metric, **given) for metric in ("clicks", "sales")}
    >>> fits = hte.fit_many(tables, "conversion")
    >>> fits.ate()["problem"].tolist()
    ['clicks', 'sales']
    """
    if not isinstance(problems, Mapping):
        raise ArgumentError(f'problems are {describe_type(problems)}; name each cell table, as in {{"clicks": cells}}')
    if not problems:
        raise ArgumentError("no problems to fit: give a mapping from names to cell tables")
    draws, seed = check_sampling_request(sampler, draws, seed)
    model_by_problem = _match_models(problems, model)
    options = FitOptions(sampler, draws, seed, higher_is_better)
    fit_tasks = [FitTask(name, cells, model_by_problem[name]) for name, cells in problems.items()]
    worker_count = min(target.cores() if workers is None else _check_worker_count(workers), len(fit_tasks))
    uses_this_process = worker_count == 1 or (workers is None and len(fit_tasks) <= MAX_PROBLEMS_IN_ONE_PROCESS)
    chunks = _cut_chunks(fit_tasks, 1 if uses_this_process else worker_count)
    run_chunk = partial(_run_tasks, options=options)
    results = map(run_chunk, chunks) if uses_this_process else _run_in_processes(run_chunk, chunks, worker_count)
    each_result = itertools.chain.from_iterable(results)
    result_by_name: dict[str, Fit | PendingFit] = {}
    error_by_name: dict[str, str] = {}
    for fit_task, result in zip(
        fit_tasks, track_progress(each_result, len(fit_tasks), shows_bar=progress), strict=True
    ):
        if isinstance(result, str):
            error_by_name[fit_task.name] = result
        elif isinstance(result, EngineResult):
            result_by_name[fit_task.name] = PendingFit(fit_task, result, options)
        else:
            result_by_name[fit_task.name] = result
    return Fits(CompletedFits(result_by_name), MappingProxyType(error_by_name))


@dataclass(frozen=True, slots=True)
class FitTask:
    """A cell table to be fitted, its name and its model."""

    name: str
    cells: xr.Dataset
    model: Model


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What is the same for all problems, as in `fit`."""

    sampler: SamplerName
    draws: int
    seed: int
    higher_is_better: bool | None


type TaskResult = EngineResult | Fit | str
"""Draws that are still to be diagnosed, a fit, or why there is none."""


@dataclass(frozen=True, slots=True)
class PendingFit:
    """Draws of a problem, whose fit is completed when somebody asks for it."""

    task: FitTask
    result: EngineResult
    options: FitOptions

    @isolate_call
    def complete(self) -> Fit:
        """Diagnose the draws, and build the fit."""
        cells, model = self.task.cells, self.task.model
        fit_tree = complete_fit_tree(
            build_problem(cells, model),
            cells,
            model,
            self.result,
            seed=self.options.seed,
            complete_record=partial(replace, higher_is_better=self.options.higher_is_better),
        )
        return Fit(fit_tree)


class CompletedFits(Mapping[str, Fit]):
    """Fits by name, each completed at the first look: of thousands of problems, many are never looked at."""

    def __init__(self, results: Mapping[str, Fit | PendingFit]) -> None:
        """Hold fits, and draws of which fits can be made."""
        self._results = dict(results)

    def __getitem__(self, name: str) -> Fit:
        """Look up a fit, completing it if it is the first time."""
        result = self._results[name]
        if isinstance(result, PendingFit):
            result = self._results[name] = result.complete()
        return result

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._results)

    def __len__(self) -> int:
        """Count the fits."""
        return len(self._results)


def _match_models(
    problems: Mapping[str, xr.Dataset], model: Model | str | Path | Mapping[str, Model | str | Path]
) -> dict[str, Model]:
    """Give every problem its model, and read each model file once."""
    if isinstance(model, Mapping):
        if problems_without_model := [problem_name for problem_name in problems if problem_name not in model]:
            raise ArgumentError(
                f"no model for the problems {problems_without_model[:5]}; give one for each name, or one for all"
            )
        file_names = {str(source) for source in model.values() if not isinstance(source, Model)}
        model_by_file = {file_name: read_model(file_name) for file_name in file_names}
        return {
            problem_name: source if isinstance(source := model[problem_name], Model) else model_by_file[str(source)]
            for problem_name in problems
        }
    shared_model = model if isinstance(model, Model) else read_model(model)
    return dict.fromkeys(problems, shared_model)


def _check_worker_count(workers: object) -> int:
    """Convert the number of processes to an int; raise ArgumentError if it is none, or below 1."""
    worker_count = to_int(workers)
    if worker_count is None or worker_count < 1:
        raise ArgumentError(f"workers is {describe_value(workers)}; give a number of processes, 1 or more")
    return worker_count


def _cut_chunks(fit_tasks: list[FitTask], worker_count: int) -> list[list[FitTask]]:
    """Cut the work into four chunks or more per process, so that all of them finish at about the same time."""
    size = max(1, min(MAX_PROBLEMS_IN_A_CHUNK, -(-len(fit_tasks) // (4 * worker_count))))
    return [fit_tasks[first : first + size] for first in range(0, len(fit_tasks), size)]


@isolate_call
def _run_tasks(fit_tasks: list[FitTask], options: FitOptions) -> list[TaskResult]:
    """Draw for cell tables, those that are alike together; an error becomes a message, and does not stop the others."""
    draws, seed = check_sampling_request(options.sampler, options.draws, options.seed)
    results: dict[int, TaskResult] = {}
    problems: dict[int, Problem] = {}
    for number, fit_task in enumerate(fit_tasks):
        try:
            problems[number] = build_problem(fit_task.cells, fit_task.model)
            cell_table.check_precision(fit_task.cells)
        except ArgumentError:
            raise  # a typo in the call says nothing of this problem
        except HteError as error:
            problems.pop(number, None)
            results[number] = str(error)
    drawn = draw_posteriors(list(problems.values()), options.sampler, draws=draws, seeds=[seed] * len(problems))
    for number, result in zip(problems, drawn, strict=True):
        if isinstance(result, FitError):
            results[number] = str(result)
        elif result.draws.retry is None:
            results[number] = result
        else:
            # Chains that fail their diagnosis are drawn once more: that is work for this process.
            results[number] = PendingFit(fit_tasks[number], result, options).complete()
    return [results[number] for number in range(len(fit_tasks))]


def _run_in_processes(
    run_chunk: Callable[[list[FitTask]], list[TaskResult]], chunks: list[list[FitTask]], worker_count: int
) -> Iterator[list[TaskResult]]:
    """Share the work among processes that import the package once; each computes on one core."""
    # A forked copy of this process would inherit the locks of its threads; the server has none, but Windows lacks it.
    process_context = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    process_context.set_forkserver_preload(["bayes_hte.analysis.fit_many"])
    with ProcessPoolExecutor(worker_count, mp_context=process_context, initializer=_use_one_core) as process_pool:
        yield from process_pool.map(run_chunk, chunks)


def _use_one_core() -> None:
    """Keep the linear algebra of a worker process to one core; the exact engine sees itself that it is in a worker."""
    # Threads of linear algebra, spinning in several processes at once, would take two thirds of the time.
    threadpool_limits(1)
