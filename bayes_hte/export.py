"""Results as files for other programs: a CSV that a spreadsheet can open safely, and one JSON object."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_hte import cells as cell_tables
from bayes_hte import schema
from bayes_hte.errors import OutputError
from bayes_hte.result import Fit
from bayes_hte.storage import write_text

FILES = ("report.html", "effects.csv", "summary.json", "fit.nc")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def write_results(fit: Fit, folder: Path) -> list[Path]:
    """Write report.html, effects.csv, summary.json and fit.nc: all four, or none.

    Parameters
    ----------
    fit : Fit
    folder : Path
        Made if it does not exist.

    Raises
    ------
    OutputError
        If the folder cannot be written; then it holds what it held before.
    """
    staging = reserve(folder)
    try:
        for name, writer in _writers(fit).items():
            writer(staging / name)
        folder.mkdir(parents=True, exist_ok=True)
        return [(staging / name).replace(folder / name) for name in FILES]
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


def _writers(fit: Fit) -> dict[str, Callable[[Path], Any]]:
    return {
        "report.html": fit.report,
        "effects.csv": lambda path: write_text(path, to_csv(fit.table(detail=True))),
        "summary.json": lambda path: write_text(path, to_json(summary(fit))),
        "fit.nc": fit.save,
    }


def summary(fit: Fit) -> dict[str, Any]:
    """Everything a program needs to act on a fit, as plain values."""
    question, cells = fit.question(), fit.cells
    attrs = fit.posterior.attrs
    return {
        "format": "bayes_hte summary 1",
        "title": "" if fit.plan is None else fit.plan.title,
        "outcome": cells.attrs["outcome"],
        "control": cells.attrs["control"],
        "arms": schema.treated_arms(cells),
        "dimensions": schema.dimensions(cells),
        "scale": question.scale,
        "ci_prob": question.ci_prob,
        "reliable": fit.diagnosis.ok,
        "diagnosis": {
            "problems": list(fit.diagnosis.problems),
            "rhat_max": fit.diagnosis.rhat_max,
            "ess_bulk_min": fit.diagnosis.ess_bulk_min,
            "ess_tail_min": fit.diagnosis.ess_tail_min,
            "divergences": fit.diagnosis.divergences,
            "refitted": fit.diagnosis.refitted,
        },
        "warnings": list(cell_tables.check(cells)),
        "ate": _records(fit.ate()),
        "segments": _records(fit.table(detail=True)),
        "heterogeneity": _records(fit.heterogeneity()),
        "provenance": {
            key: json.loads(value) if key == "versions" else value
            for key, value in attrs.items()
            if key in ("seed", "sampler", "versions", "data_sha256", "model_sha256", "plan_sha256")
        },
    }


def to_json(content: Any) -> str:
    """Strict JSON: what is not a finite number becomes null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(frame: pd.DataFrame) -> str:
    """CSV in which no text can be run as a formula by a spreadsheet (a ' is put before it)."""
    safe = frame.rename(columns=_harmless)
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(_harmless)
    return str(safe.to_csv(index=False, lineterminator="\r\n"))


def _harmless(value: Any) -> Any:
    if (
        isinstance(value, str)
        and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        and not _NUMBER.fullmatch(value)
    ):
        return f"'{value}"
    return value


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case str() | None | bool():
            return value
        case _ if value is pd.NA:
            return None
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
