"""`fit_many`: many metrics, dimensions and experiments in one call, on all cores."""

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import xarray as xr
from threadpoolctl import threadpool_limits

from bayes_hte.analysis import checked_request, fit
from bayes_hte.asked import described, type_of, whole
from bayes_hte.errors import DataError, HteError
from bayes_hte.exact import target
from bayes_hte.result import Fit
from bayes_hte.schema import Scale
from bayes_hte.spec import Model, read_model
from bayes_hte.spec.plan import Sampler

FEW = 12
"""Up to so many problems the start of other processes would take longer than it saves."""


@dataclass(frozen=True, slots=True)
class Fits(Mapping[str, Fit]):
    """The results of `fit_many`, by name; a mapping.

    Attributes
    ----------
    fits : mapping
        Name -> Fit.
    failed : mapping
        Name -> what was wrong with a problem that could not be fitted.
    """

    fits: Mapping[str, Fit]
    failed: Mapping[str, str]

    def __getitem__(self, name: str) -> Fit:
        """One result.

        Raises
        ------
        KeyError
            If there is no such problem, or it could not be fitted: then the error says why.
        """
        if name in self.failed:
            raise KeyError(f"{name!r} could not be fitted: {self.failed[name]}")
        return self.fits[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the problems that were fitted."""
        return iter(self.fits)

    def __len__(self) -> int:
        """How many were fitted."""
        return len(self.fits)

    def table(self, scale: Scale | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """`Fit.table` of all, one under the other, with the columns problem, segment and reliable.

        The levels of each problem's own dimensions are joined in ``segment``.
        """
        return self._stacked("table", scale, ci_prob)

    def ate(self, scale: Scale | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """`Fit.ate` of all, one under the other, with the columns problem and reliable."""
        return self._stacked("ate", scale, ci_prob)

    def _stacked(self, method: str, scale: Scale | None, ci_prob: float | None) -> pd.DataFrame:
        frames = []
        for name, one in self.fits.items():
            found = getattr(one, method)(scale, ci_prob)
            reliable, found.attrs = found.attrs["reliable"], {}
            if method == "table":
                own = list(found.columns[: list(found.columns).index("arm")])
                label = found[own].agg(" × ".join, axis=1)
                found = found.drop(columns=own)
                found.insert(0, "segment", label)
            found.insert(0, "problem", name)
            found["reliable"] = reliable
            frames.append(found)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def fit_many(
    problems: Mapping[str, xr.Dataset],
    model: Model | str | Path | Mapping[str, Model | str | Path],
    *,
    sampler: Sampler = "auto",
    draws: int = 2000,
    seed: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
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

    Returns
    -------
    Fits
        A mapping from names to fits, with ``table()`` and ``ate()`` of all, and ``failed``: a problem that is
        wrong does not stop the others.

    Raises
    ------
    DataError
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
        raise DataError(f'problems are {type_of(problems)}; name each cell table, as in {{"clicks": cells}}')
    if not problems:
        raise DataError("no problems to fit: give a mapping from names to cell tables")
    draws, seed = checked_request(sampler, draws, seed)
    models = _models(problems, model)
    tasks = [(name, cells, models[name], {"sampler": sampler, "draws": draws, "seed": seed})
             for name, cells in problems.items()]  # fmt: skip
    count = min(target.cores() if workers is None else _processes(workers), len(tasks))
    alone = count == 1 or (workers is None and len(tasks) <= FEW)
    fits: dict[str, Fit] = {}
    failed: dict[str, str] = {}
    for name, found in _watched(map(_one, tasks) if alone else _in_processes(tasks, count), len(tasks), progress):
        if isinstance(found, Fit):
            fits[name] = found
        else:
            failed[name] = found
    return Fits(MappingProxyType(fits), MappingProxyType(failed))


type Task = tuple[str, xr.Dataset, Model, dict[str, Any]]
type Found = tuple[str, Fit | str]


def _models(
    problems: Mapping[str, xr.Dataset], model: Model | str | Path | Mapping[str, Model | str | Path]
) -> dict[str, Model]:
    if isinstance(model, Mapping):
        if lacking := [name for name in problems if name not in model]:
            raise DataError(f"no model for the problems {lacking[:5]}; give one for each name, or one for all")
        read = {str(each): each if isinstance(each, Model) else read_model(each) for each in model.values()}
        return {name: read[str(model[name])] for name in problems}
    one = model if isinstance(model, Model) else read_model(model)
    return dict.fromkeys(problems, one)


def _processes(workers: object) -> int:
    count = whole(workers)
    if count is None or count < 1:
        raise DataError(f"workers is {described(workers)}; give a number of processes, 1 or more")
    return count


def _one(task: Task) -> Found:
    name, cells, model, options = task
    try:
        return name, fit(cells, model, progress=False, **options)
    except HteError as problem:
        return name, str(problem)


def _in_processes(tasks: list[Task], count: int) -> Iterator[Found]:
    """Processes that import the package once and then share the work; each computes on one core."""
    context = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    context.set_forkserver_preload(["bayes_hte.many"])
    with ProcessPoolExecutor(count, mp_context=context, initializer=_use_one_core) as pool:
        yield from pool.map(_one, tasks, chunksize=max(1, min(16, len(tasks) // (4 * count))))


def _use_one_core() -> None:
    """Threads of linear algebra, spinning in several processes at once, would take two thirds of the time."""
    target.use_one_core()
    threadpool_limits(1)


def _watched(found: Iterator[Found], total: int, progress: bool | None) -> Iterator[Found]:
    """Pass results on, with a progress bar for people."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    shown = console.is_terminal if progress is None else progress
    yield from track(found, "fitting", total=total, console=console, disable=not shown)
