"""Results as files for other programs: a CSV that a spreadsheet can open safely, and one JSON object."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_hte import cells as cell_tables
from bayes_hte import schema
from bayes_hte.errors import OutputError
from bayes_hte.formats import to_csv, to_json
from bayes_hte.result import Fit
from bayes_hte.storage import write_text
from bayes_hte.views import Tables, tables

REPORT = "report.html"
FILES = (REPORT, "effects.csv", "summary.json", "fit.nc")


def answers(fit: Fit) -> Tables:
    """Everything that the files and the terminal show of a fit, in the words of its plan."""
    return tables(fit.core, fit.question(), detail=True)


def write_results(fit: Fit, folder: Path, *, found: Tables | None = None, report: bool = True) -> list[Path]:
    """Write report.html, effects.csv, summary.json and fit.nc: all of them, or none.

    Parameters
    ----------
    fit : Fit
    folder : Path
        Made if it does not exist.
    found : Tables, optional
        The `answers` of the fit, where they are known already.
    report : bool
        False leaves out report.html, and removes one that an earlier run left in the folder: it
        would be read as the report of the new files.

    Raises
    ------
    OutputError
        If the folder cannot be written; then it holds what it held before.
    """
    staging = reserve(folder)
    try:
        writers = _writers(fit, found or answers(fit))
        names = [name for name in FILES if report or name != REPORT]
        for name in names:
            writers[name](staging / name)
        folder.mkdir(parents=True, exist_ok=True)
        if not report:
            (folder / REPORT).unlink(missing_ok=True)
        return [(staging / name).replace(folder / name) for name in names]
    except OSError as problem:
        raise OutputError(f"{folder} cannot be written: {problem.strerror or problem}") from problem
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def reserve(folder: Path) -> Path:
    """A staging folder on the same disk, which also shows that the target can be written."""
    parent = folder
    while not parent.is_dir():
        if parent.exists():
            raise OutputError(f"{folder} cannot be a folder: {parent} is a file")
        parent = parent.parent
    for name in FILES:
        if (folder / name).is_dir():
            raise OutputError(f"{folder / name} is a folder, in the way of the file; move it or name another folder")
    try:
        return Path(tempfile.mkdtemp(dir=parent, prefix=".bayes-hte-"))
    except OSError as problem:
        raise OutputError(f"{folder} cannot be written: {problem.strerror or problem}") from problem


def _writers(fit: Fit, found: Tables) -> dict[str, Callable[[Path], Any]]:
    return {
        REPORT: lambda path: _write_report(fit, found, path),
        "effects.csv": lambda path: write_text(path, to_csv(found.segments)),
        "summary.json": lambda path: write_text(path, to_json(summary(fit, found))),
        "fit.nc": fit.save,
    }


def _write_report(fit: Fit, found: Tables, path: Path) -> None:
    from bayes_hte.report import render  # loads matplotlib and jinja2

    write_text(path, render(fit.core, fit.question(), fit.diagnosis, fit.plan, found))


def summary(fit: Fit, found: Tables | None = None) -> dict[str, Any]:
    """Everything a program needs to act on a fit, as plain values; `found` are its `answers`, where known."""
    found = found or answers(fit)
    question, cells, diagnosis = fit.question(), fit.cells, fit.diagnosis
    attrs, plan = fit.core.attrs, fit.plan
    return {
        "format": "bayes_hte summary 1",
        "title": "" if plan is None else plan.title,
        "outcome": cells.attrs["outcome"],
        "control": cells.attrs["control"],
        "arms": schema.treated_arms(cells),
        "dimensions": schema.dimensions(cells),
        "scale": question.scale,
        "ci_prob": question.ci_prob,
        "reliable": diagnosis.ok,
        "diagnosis": {
            "problems": list(diagnosis.problems),
            "rhat_max": diagnosis.rhat_max,
            "ess_bulk_min": diagnosis.ess_bulk_min,
            "ess_tail_min": diagnosis.ess_tail_min,
            "divergences": diagnosis.divergences,
            "refitted": diagnosis.refitted,
            "pareto_k": diagnosis.pareto_k,
            "quadrature_error": diagnosis.quadrature_error,
        },
        "warnings": list(cell_tables.check(cells)),
        "ate": _records(found.average),
        "segments": _records(found.segments),
        "heterogeneity": _records(found.spread),
        "provenance": {
            key: json.loads(value) if key == "versions" else value
            for key, value in attrs.items()
            if key in ("seed", "sampler", "engine", "versions", "data_sha256", "model_sha256", "plan_sha256")
        },
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]
