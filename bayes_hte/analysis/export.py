"""Write a fit's results as files: a report, a CSV that a spreadsheet can open safely, one JSON object, and the fit."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte import cells as cell_tables
from bayes_hte._support.atomic_files import write_text_atomically
from bayes_hte._support.csv_json import BYTE_ORDER_MARK, to_safe_csv, to_strict_json
from bayes_hte._support.phrases import NBSP, format_percent_probability
from bayes_hte.analysis.result import Fit
from bayes_hte.decisions.direction import ask_about_direction
from bayes_hte.decisions.verdicts import Verdict, choose_verdict_rule, judge_effects, list_tested_rows
from bayes_hte.errors import OutputError
from bayes_hte.estimands.effects import get_fitted_family
from bayes_hte.estimands.result_tables import ResultTables, compute_result_tables, mark_reliability
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import collect_provenance, get_plan, get_registration, get_stated_direction
from bayes_hte.spec.questions.registration import RegistrationStatus

REPORT_FILE = "report.html"
SIGNIFICANT_DIGITS = 6
"""Of the numbers in effects.csv: more than the Monte-Carlo error leaves, and short enough to read."""
# In the order in which they are put into place.
RESULT_FILES = (REPORT_FILE, "effects.csv", "summary.json", "fit.nc")


def build_result_tables(fit: Fit) -> ResultTables:
    """Build the tables that the files and the terminal show of a fit, on the scale of its plan."""
    result_tables = compute_result_tables(fit.tree, fit.question(), with_details=True)
    return result_tables.mark_reliability(reliable=fit.diagnosis.ok)


def write_results(
    fit: Fit,
    folder: Path,
    *,
    result_tables: ResultTables | None = None,
    report: bool = True,
    excel: bool = False,
) -> list[Path]:
    """Write report.html, effects.csv, summary.json and fit.nc: all of them, or none.

    Parameters
    ----------
    fit : Fit
    folder : Path
        Made if it does not exist.
    result_tables : Tables, optional
        The tables of `build_result_tables`, where they are known already.
    report : bool
        False leaves out report.html, and removes one that an earlier run left in the folder: it
        would be read as the report of the new files.
    excel : bool
        Whether effects.csv begins with the mark by which Excel knows UTF-8.

    Raises
    ------
    OutputError
        If the folder cannot be written; then it holds what it held before.
    """
    staging_folder = make_staging_folder(folder)
    try:
        write_by_file_name = _map_file_writers(
            fit, result_tables or build_result_tables(fit), BYTE_ORDER_MARK if excel else ""
        )
        file_names = [name for name in RESULT_FILES if report or name != REPORT_FILE]
        for file_name in file_names:
            write_by_file_name[file_name](staging_folder / file_name)
        folder.mkdir(parents=True, exist_ok=True)
        if not report:
            (folder / REPORT_FILE).unlink(missing_ok=True)
        # All files are complete: from here only renames are left, which hardly fail.
        return [(staging_folder / name).replace(folder / name) for name in file_names]
    except OSError as os_error:
        raise OutputError(f"{folder} cannot be written: {os_error.strerror or os_error}") from os_error
    finally:  # after success the folder is empty
        shutil.rmtree(staging_folder, ignore_errors=True)


def make_staging_folder(folder: Path) -> Path:
    """Make a staging folder on the same disk, which also shows that the target can be written.

    Raises
    ------
    OutputError
        If files stand in the way, or the disk refuses.
    """
    # The innermost folder that exists: a rename from there to the target stays on one disk.
    existing_folder = folder
    while not existing_folder.is_dir():
        if existing_folder.exists():
            raise OutputError(f"{folder} cannot be a folder: {existing_folder} is a file")
        existing_folder = existing_folder.parent
    for file_name in RESULT_FILES:
        if (folder / file_name).is_dir():
            raise OutputError(
                f"{folder / file_name} is a folder, in the way of the file; move it or name another folder"
            )
    try:
        return Path(tempfile.mkdtemp(dir=existing_folder, prefix=".bayes-hte-"))
    except OSError as os_error:
        raise OutputError(f"{folder} cannot be written: {os_error.strerror or os_error}") from os_error


def _map_file_writers(fit: Fit, result_tables: ResultTables, csv_start: str) -> dict[str, Callable[[Path], Any]]:
    return {
        REPORT_FILE: lambda path: _write_report(fit, result_tables, path),
        "effects.csv": lambda path: write_text_atomically(path, csv_start + _write_effects(fit, result_tables)),
        "summary.json": lambda path: write_text_atomically(path, to_strict_json(build_summary(fit, result_tables))),
        "fit.nc": fit.save,
    }


def _write_effects(fit: Fit, result_tables: ResultTables) -> str:
    return to_safe_csv(build_effects_table(fit, result_tables), significant_digits=SIGNIFICANT_DIGITS)


def build_effects_table(fit: Fit, result_tables: ResultTables) -> pd.DataFrame:
    """Build the table of segments with what its numbers are and what they say, for who has only the file."""
    segment_table, scale = result_tables.segment_table, fit.question().scale
    dimension_names = cell_table.list_dimensions(fit.cells)
    added_columns: dict[str, Any] = {
        "scale": scale,
        "units": describe_effect_units(fit.tree, scale),
        "reading": _read_effects(fit, segment_table),
        "registered": bool(fit.registered),
    }
    # Only a rule that was stated before is acted on by programs; without one there is nothing to copy.
    if (decision_table := decide_by_plan(fit)) is not None:
        added_columns |= {name: decision_table[name].tolist() for name in ("decision", "why")}
    # A dimension may have one of these names; it keeps it.
    renamed_columns = {
        f"effect_{name}" if name in dimension_names else name: values for name, values in added_columns.items()
    }
    return mark_reliability(segment_table.assign(**renamed_columns), reliable=fit.diagnosis.ok)


def decide_by_plan(fit: Fit) -> pd.DataFrame | None:
    """Decide by the rule of a fit's plan; None where the plan has none."""
    plan = fit.plan
    return None if plan is None or plan.decision is None else fit.decide()


def describe_effect_units(fit_tree: xr.DataTree, scale: EffectScale) -> str:
    """Describe what 1 in the column effect is: the numbers of files are not in percent, those of the report are."""
    family, plan = get_fitted_family(fit_tree), get_plan(fit_tree)
    match scale:
        case "relative":
            return "share of the control's mean (0.01 is 1 %)"
        case "absolute" if family.mean_is_probability:
            return "probability (0.01 is 1 percentage point)"
        case "link" if family.ratio_name:
            return f"log {family.ratio_name}"
        case _:
            return (plan.report.unit if plan is not None else "") or "units of the outcome"


def _read_effects(fit: Fit, segment_table: pd.DataFrame) -> list[str]:
    """Say of every row what its number means: ``new − old in 'bought': above 0 with P = 98.3 %; helps``."""
    control, outcome = fit.cells.attrs["control"], fit.cells.attrs["outcome"]
    readings = []
    for row, verdict in zip(segment_table.to_dict("records"), judge_segments(fit, segment_table), strict=True):
        contrast = f"{row['arm']} − {control}" if control else str(row["arm"])
        is_above = row["p_positive"] >= row["p_negative"]
        side, p_side = ("above", row["p_positive"]) if is_above else ("below", row["p_negative"])
        p_text = format_percent_probability(p_side).replace(NBSP, " ")
        readings.append(f"{contrast} in '{outcome}': {side} 0 with probability {p_text}; {verdict}")
    return readings


def _write_report(fit: Fit, result_tables: ResultTables, report_path: Path) -> None:
    from bayes_hte.report import render  # loads matplotlib and jinja2

    write_text_atomically(report_path, render(fit.posterior, fit.question(), fit.diagnosis, fit.plan, result_tables))


def build_summary(fit: Fit, result_tables: ResultTables | None = None) -> dict[str, Any]:
    """Build the content of summary.json: everything a program needs to act on a fit, as plain values."""
    result_tables = result_tables or build_result_tables(fit)
    question, cells, diagnosis = fit.question(), fit.cells, fit.diagnosis
    plan, direction_question = fit.plan, ask_about_direction(cells, get_stated_direction(fit.tree))
    ate_verdicts = _choose_judge(fit)(result_tables.ate_table)
    segment_verdicts = judge_segments(fit, result_tables.segment_table)
    # These keys are a contract with programs, which "format" names.
    return {
        "format": "bayes_hte summary 1",
        "title": "" if plan is None else plan.title,
        "outcome": cells.attrs["outcome"],
        "control": cells.attrs["control"],
        "arms": cell_table.list_treated_arms(cells),
        "dimensions": cell_table.list_dimensions(cells),
        "scale": question.scale,
        "ci_prob": question.ci_prob,
        "call_prob": choose_verdict_rule(plan, question.ci_prob).call_prob,
        "reliable": diagnosis.ok,
        "registration": describe_registration(get_registration(fit.tree)),
        "diagnosis": {
            "problems": list(diagnosis.problems),
            "notes": list(diagnosis.notes),
            "rhat_max": diagnosis.rhat_max,
            "ess_bulk_min": diagnosis.ess_bulk_min,
            "ess_tail_min": diagnosis.ess_tail_min,
            "divergences": diagnosis.divergences,
            "refitted": diagnosis.refitted,
            "pareto_k": diagnosis.pareto_k,
            "quadrature_error": diagnosis.quadrature_error,
        },
        "higher_is_better": get_stated_direction(fit.tree),
        "warnings": [*([direction_question] if direction_question else []), *cell_tables.check(cells)],
        "average": result_tables.ate_table.attrs["average"],
        "population": result_tables.ate_table.attrs["population"],
        "ate": _list_records(result_tables.ate_table.assign(verdict=ate_verdicts)),
        "segments": _list_records(result_tables.segment_table.assign(verdict=segment_verdicts)),
        "decisions": _summarise_decisions(fit),
        "heterogeneity": _list_records(result_tables.heterogeneity_table),
        **_build_policy_block(fit),
        "provenance": collect_provenance(fit.tree),
    }


def _summarise_decisions(fit: Fit) -> dict[str, Any] | None:
    """Summarise what the plan's rule decides: the rule, what it makes of the average by arm, every segment."""
    plan, decision_table = fit.plan, decide_by_plan(fit)
    if decision_table is None or plan is None or plan.decision is None:
        return None
    return {
        "rule": plan.decision.model_dump(mode="json", exclude_none=True),
        "gain_units": decision_table.attrs["gain_units"],
        "all_segments": decision_table.attrs["all_segments"],
        "segments": _list_records(decision_table),
    }


def _build_policy_block(fit: Fit) -> dict[str, Any]:
    """Build the block ``policy`` of summary.json: what policies are worth, where the plan states a rule."""
    if fit.plan is None or fit.plan.decision is None:
        return {}
    policy_table = fit.policy()
    facts = {name: policy_table.attrs[name] for name in ("gain", "population", "budget", "all")}
    return {"policy": {**facts, "policies": _list_records(policy_table.drop(columns="reliable"))}}


def describe_registration(status: RegistrationStatus) -> dict[str, Any]:
    """Describe whether a finding was registered, as plain values for JSON."""
    return {
        "registered": status.registered,
        "why": list(status.reasons),
        "changes": list(status.changes),
        "registered_on": status.registered_on or None,
    }


def judge_segments(fit: Fit, segment_table: pd.DataFrame) -> list[Verdict]:
    """Judge the rows of a table of segments by the plan's rule."""
    return _choose_judge(fit)(segment_table, is_tested=list_tested_rows(segment_table, fit.cells))


def _choose_judge(fit: Fit) -> Callable[..., list[Verdict]]:
    question = fit.question()
    return partial(
        judge_effects,
        rule=choose_verdict_rule(fit.plan, question.ci_prob),
        higher_is_better=question.higher_is_better,
        direction_is_known=not ask_about_direction(fit.cells, get_stated_direction(fit.tree)),
    )


def _list_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(column_name): cell_value for column_name, cell_value in record.items()}
        for record in table.to_dict(orient="records")
    ]
