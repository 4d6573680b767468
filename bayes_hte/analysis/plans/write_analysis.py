"""Write an analysis of several questions as files: one report, one table, one summary, and a folder of fits."""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bayes_hte._support.atomic_files import write_text_atomically
from bayes_hte._support.csv_json import BYTE_ORDER_MARK, to_safe_csv, to_strict_json
from bayes_hte.analysis import export
from bayes_hte.analysis.load import load_fit
from bayes_hte.analysis.plans.analysis import Analysis
from bayes_hte.analysis.plans.by_question import ByQuestion, RegisteredQuestions
from bayes_hte.analysis.result import check_report_path
from bayes_hte.errors import HteError, OutputError
from bayes_hte.estimands.result_tables import ResultTables
from bayes_hte.spec import Plan
from bayes_hte.spec.questions.list_questions import QuestionKey, list_metrics, title_question
from bayes_hte.spec.questions.planned_metric import name_breakdown
from bayes_hte.spec.questions.registration import RegistrationStatus, list_declaration_doubts

ANALYSIS_FORMAT: Final = "bayes_hte analysis 1"
ANALYSIS_FILE: Final = "analysis.json"
FITS_FOLDER: Final = "fits"
FIT_FILE_PATTERN: Final = re.compile(r"\d{2,}-[a-z0-9-]*\.nc")
"""Names that `name_fit_files` gives: only such files of an earlier analysis are removed."""
MAX_NAME_LENGTH: Final = 60


def write_report(analysis: Analysis, path: str | Path) -> Path:
    """Write the report of all questions as one HTML file.

    Raises
    ------
    ArgumentError
        If the name has the ending of another kind of file.
    OutputError
        If the file cannot be written.
    """
    from bayes_hte.report import render_several  # loads matplotlib and jinja2

    report_path = check_report_path(path)
    return write_text_atomically(
        report_path,
        render_several(analysis.plan, _list_answers(analysis), list_notes(analysis), list_decisions(analysis)),
    )


def _list_answers(analysis: Analysis) -> list[Any]:
    from bayes_hte.report import AnsweredQuestion

    # Fits carry their role too, but a question that failed has no fit.
    roles = {metric.name: metric.role for metric in list_metrics(analysis.plan)}
    answers = []
    for key, status in analysis.registered.items():
        names: dict[str, Any] = {
            "metric_name": key[0],
            "breakdown_name": name_breakdown(key[1]),
            "role": roles[key[0]],
            "is_registered": bool(status),
        }
        if key in analysis.failed:
            answers.append(AnsweredQuestion(**names, failure=analysis.failed[key]))
            continue
        fit = analysis.fits[key]
        answers.append(
            AnsweredQuestion(
                **names,
                fit_tree=fit.posterior,
                question=fit.question(),
                diagnosis=fit.diagnosis,
                plan=fit.plan,
            )
        )
    return answers


def list_decisions(analysis: Analysis) -> list[dict[str, str]]:
    """List what is decided for every segment and arm, once for all goals; nothing where the plan has no rule."""
    if analysis.plan.decision is None:
        return []
    decisions = analysis.decide().drop_duplicates(["breakdown", "segment", "arm"])
    return [
        {name: str(row[name]) for name in ("breakdown", "segment", "arm", "decision", "why")}
        for row in decisions.to_dict("records")
    ]


def list_notes(analysis: Analysis) -> list[str]:
    """List what is to be said of all answers: what was registered, what was dropped, what did not work."""
    statuses = list(analysis.registered.values())
    # The count first: a reader should know it before the first effect.
    registered_count = sum(map(bool, statuses))
    reasons = list(dict.fromkeys(reason for status in statuses for reason in status.reasons))
    notes = [f"{registered_count} of {len(statuses)} questions were registered before the test."]
    if reasons:
        exploratory = "The others are" if registered_count else "All are"
        notes.append(f"{exploratory} exploratory, because: {'; '.join(reasons)}.")
    if changes := next((status.changes for status in statuses), ()):
        notes.append(f"Changed in the plan since it was registered: {'; '.join(changes)}.")
    if analysis.dropped:
        dropped_text = ", ".join(map(title_question, analysis.dropped))
        notes.append(f"Registered, and not asked any more: {dropped_text}. Ask for them, and say what they showed.")
    notes += [f"{doubt[:1].upper()}{doubt[1:]}." for doubt in list_declaration_doubts(analysis.plan)]
    if analysis.failed:
        notes.append(f"{len(analysis.failed)} of {len(statuses)} questions could not be fitted.")
    return notes


def write_analysis(analysis: Analysis, folder: Path, *, report: bool = True, excel: bool = False) -> list[Path]:
    """Write report.html, effects.csv, summary.json and the folder fits.

    Parameters
    ----------
    analysis : Analysis
    folder : Path
        Made if it does not exist.
    report : bool
        False leaves out report.html, and removes that of an earlier run.
    excel : bool
        Whether effects.csv begins with the mark by which Excel knows UTF-8.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    tables = {key: export.build_result_tables(fit) for key, fit in analysis.fits.items()}
    staging_folder = export.make_staging_folder(folder)
    try:
        file_texts: dict[str, Callable[[], str]] = {
            "effects.csv": lambda: (BYTE_ORDER_MARK if excel else "") + _write_effects(analysis, tables),
            "summary.json": lambda: to_strict_json(build_summary(analysis, tables)),
        }
        names = [*file_texts]
        if report:
            write_report(analysis, staging_folder / export.REPORT_FILE)
            names = [export.REPORT_FILE, *names]
        for name, write_text in file_texts.items():
            write_text_atomically(staging_folder / name, write_text())
        # The fits are many files: written one by one, and analysis.json, which makes them one, last.
        save_analysis(analysis, folder / FITS_FOLDER)
        # All files are complete: from here only renames are left. What an earlier run left would be taken for results
        # of this one.
        for stale_name in {export.REPORT_FILE, "fit.nc"} - set(names):
            (folder / stale_name).unlink(missing_ok=True)
        written = [(staging_folder / name).replace(folder / name) for name in names]
        return [*written, folder / FITS_FOLDER]
    except OSError as os_error:
        raise OutputError(f"{folder} cannot be written: {os_error.strerror or os_error}") from os_error
    finally:
        shutil.rmtree(staging_folder, ignore_errors=True)


def _write_effects(analysis: Analysis, tables: dict[QuestionKey, ResultTables]) -> str:
    """Write the effects of all questions as CSV, with what their numbers are and what they say."""
    effects = analysis.stack_tables(lambda key, fit: export.build_effects_table(fit, tables[key]))
    if decisions := list_decisions(analysis):
        # One metric's own decision is none: of all metrics together, it is the same in the rows of each.
        decided = pd.DataFrame(decisions)
        effects = effects.drop(columns=["decision", "why"], errors="ignore")
        effects = effects.merge(decided, on=["breakdown", "segment", "arm"], how="left")
    return to_safe_csv(effects, significant_digits=export.SIGNIFICANT_DIGITS)


BRIEF_COLUMNS: Final = (
    *("metric", "breakdown", "segment", "arm", "raw", "effect", "ci_low", "ci_high", "p_positive", "pooling"),
    *("registered", "reliable"),
)
"""Columns that fit on a terminal."""


def tabulate_briefly(analysis: Analysis) -> pd.DataFrame:
    """Tabulate what fits on a terminal of every effect."""
    table = analysis.table()
    # A question without a fit has no effect to show: the notes below the table say why.
    return table.loc[table["segment"].notna(), [name for name in BRIEF_COLUMNS if name in table.columns]]


def build_summary(analysis: Analysis, tables: dict[QuestionKey, ResultTables] | None = None) -> dict[str, Any]:
    """Build the content of summary.json: everything a program needs to act on all questions, as plain values."""
    files, roles = name_fit_files(analysis), {metric.name: metric.role for metric in list_metrics(analysis.plan)}
    questions = []
    for key, status in analysis.registered.items():
        # The keys are a contract with programs, which "format" names.
        entry = {
            "metric": key[0],
            "breakdown": list(key[1]),
            "role": roles[key[0]],
            "registration": export.describe_registration(status),
            "failed": analysis.failed.get(key),
        }
        if key in analysis.fits:
            summary = export.build_summary(analysis.fits[key], None if tables is None else tables[key])
            # What one goal says alone, a guardrail may forbid: decisions stand once, over all metrics.
            entry |= {"file": f"{FITS_FOLDER}/{files[key]}", "fit": {**summary, "decisions": None}}
        questions.append(entry)
    return {
        "format": ANALYSIS_FORMAT,
        "title": analysis.plan.title,
        "reliable": analysis.reliable,
        "registered": bool(analysis.registered),
        "notes": list_notes(analysis),
        "decisions": [] if analysis.plan.decision is None else analysis.decide().to_dict(orient="records"),
        "questions": questions,
    }


def name_fit_files(analysis: Analysis) -> dict[QuestionKey, str]:
    """Name the file of every fit: a number, and what is left of the question in plain letters."""
    names = {}
    for i, key in enumerate(analysis.fits, start=1):
        # Names come from plans and may hold anything; the number tells files apart.
        plain = unicodedata.normalize("NFKD", title_question(key)).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_NAME_LENGTH].rstrip("-")
        names[key] = f"{i:02}-{slug}.nc"
    return names


def save_analysis(analysis: Analysis, folder: Path) -> Path:
    """Save every fit as a file of the folder, and what ties them together as analysis.json, which is written last.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    files = name_fit_files(analysis)
    for key, fit in analysis.fits.items():
        fit.save(folder / files[key])
    content = {
        "format": ANALYSIS_FORMAT,
        "plan": analysis.plan.model_dump(mode="json", exclude_none=True),
        "questions": [
            {
                "metric": key[0],
                "breakdown": list(key[1]),
                "file": files.get(key),
                "failed": analysis.failed.get(key),
                "registration": export.describe_registration(status),
            }
            for key, status in analysis.registered.items()
        ],
        "dropped": [[metric, list(dimensions)] for metric, dimensions in analysis.dropped],
    }
    write_text_atomically(folder / ANALYSIS_FILE, to_strict_json(content))
    # Only files that a run of before wrote under such a name: whatever else is there is somebody's.
    for stale_file in folder.iterdir():
        if FIT_FILE_PATTERN.fullmatch(stale_file.name) and stale_file.name not in files.values():
            stale_file.unlink()
    return folder


def load_analysis(folder: Path) -> Analysis:
    """Read an analysis back from the folder that `save_analysis` wrote.

    Raises
    ------
    OutputError
        If a file is missing, damaged, or was not written by it.
    """
    analysis_file = folder / ANALYSIS_FILE
    if not analysis_file.is_file():
        raise OutputError(f"no file {analysis_file}: the folder is no saved analysis; name a .nc file")
    try:
        content = json.loads(analysis_file.read_text(encoding="utf-8"))
        if content["format"] != ANALYSIS_FORMAT:
            raise OutputError(f"{analysis_file} has the format {content['format']!r}, not {ANALYSIS_FORMAT!r}")
        plan = Plan.model_validate_json(json.dumps(content["plan"]))
        entries = {(entry["metric"], tuple(entry["breakdown"])): entry for entry in content["questions"]}
        statuses = {key: _read_status(entry["registration"]) for key, entry in entries.items()}
        failed = {key: str(entry["failed"]) for key, entry in entries.items() if entry["failed"] is not None}
        # A name in the file leads nowhere but into the folder.
        files = {key: folder / Path(entry["file"]).name for key, entry in entries.items() if entry["file"]}
        dropped = tuple((metric, tuple(dimensions)) for metric, dimensions in content["dropped"])
    except OutputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, HteError) as error:
        raise OutputError(f"{analysis_file} cannot be read as a saved analysis: {error}") from error
    # A fit that cannot be read is an error: an analysis without it would seem to be all there was.
    fits = {key: load_fit(file) for key, file in files.items()}
    return Analysis(plan, ByQuestion(fits, failed), ByQuestion(failed), RegisteredQuestions(statuses), dropped)


def _read_status(fields: dict[str, Any]) -> RegistrationStatus:
    return RegistrationStatus(
        bool(fields["registered"]), tuple(fields["why"]), tuple(fields["changes"]), fields["registered_on"] or ""
    )
