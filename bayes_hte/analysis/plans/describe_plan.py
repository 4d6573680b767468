"""Describe a plan before its fits: what each question asks, what is doubtful about it, and all cells as one table."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.analysis.run import PreparedAnalysis, PreparedPlan, list_prepared_findings
from bayes_hte.cells.from_plan import tabulate_cells
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR
from bayes_hte.decisions.direction import ask_about_direction
from bayes_hte.decisions.restated_question import restate_question
from bayes_hte.spec.cell_table import list_dimensions
from bayes_hte.spec.questions.list_questions import QuestionKey, asks_several, title_question
from bayes_hte.spec.questions.planned_metric import name_breakdown
from bayes_hte.spec.questions.registration import list_declaration_doubts


def list_question_warnings(prepared: PreparedAnalysis) -> list[str]:
    """List what is doubtful of one question: first which direction is better, then the question, data and priors."""
    direction_question = ask_about_direction(prepared.cells, prepared.plan.report.higher_is_better)
    return [*([direction_question] if direction_question else []), *list_prepared_findings(prepared)]


def list_plan_warnings(prepared_plan: PreparedPlan) -> list[str]:
    """List what is doubtful of a plan and its questions; what is said of all questions is said once."""
    warnings = list_declaration_doubts(prepared_plan.plan)
    if prepared_plan.dropped:
        dropped_text = ", ".join(map(title_question, prepared_plan.dropped))
        warnings.append(f"registered, and not asked any more: {dropped_text}")
    warnings += [f"{title} cannot be fitted: {reason}" for title, reason in prepared_plan.list_failures()]
    # Nine questions about the same rows would say the same nine times.
    titles_by_warning: dict[str, list[str]] = {}
    for key, prepared in prepared_plan.questions.items():
        for warning in list_question_warnings(prepared):
            titles_by_warning.setdefault(warning, []).append(title_question(key))
    for warning, titles in titles_by_warning.items():
        of_all = len(titles) == len(prepared_plan.questions)
        warnings.append(warning if of_all else f"{', '.join(titles)}: {warning}")
    return warnings


def restate_questions(prepared_plan: PreparedPlan) -> list[tuple[str, dict[str, str]]]:
    """Restate every question of a plan in phrases, under its name; of a plan with one question the name is empty."""
    several = asks_several(prepared_plan.plan)
    restated = []
    for key, prepared in prepared_plan.questions.items():
        phrases = restate_question(prepared.plan, prepared.model, prepared.cells)
        restated.append((title_question(key) if several else "", phrases | {"status": _phrase_status(prepared)}))
    return restated


def _phrase_status(prepared: PreparedAnalysis) -> str:
    reasons = "; ".join(prepared.registration.reasons)
    return f"{prepared.registration}{f': {reasons}' if reasons else ''}"


def summarise_check(prepared_plan: PreparedPlan) -> dict[str, Any]:
    """Summarise what `check` found, as plain values for JSON."""
    questions = []
    for (key, prepared), (_, phrases) in zip(
        prepared_plan.questions.items(), restate_questions(prepared_plan), strict=True
    ):
        questions.append(
            {
                "metric": key[0],
                "breakdown": list(key[1]),
                "segments": prepared.cells.sizes["segment"],
                "arms": prepared.cells.sizes["arm"],
                "question": phrases | {"higher_is_better": prepared.plan.report.higher_is_better},
                "registered": prepared.registration.registered,
            }
        )
    answer = {"ok": not prepared_plan.failed, "warnings": list_plan_warnings(prepared_plan)}
    if asks_several(prepared_plan.plan):
        failed = [
            {"metric": key[0], "breakdown": list(key[1]), "why": reason} for key, reason in prepared_plan.failed.items()
        ]
        return answer | {"questions": questions, "failed": failed}
    # A plan with one question has the keys that programs knew before there were several.
    (question,) = questions
    return answer | {name: question[name] for name in ("segments", "arms", "question", "registered")}


def count_contents(prepared_plan: PreparedPlan) -> str:
    """Count what a plan holds, in a phrase: segments and arms, or questions."""
    if asks_several(prepared_plan.plan):
        return write_count(len(prepared_plan.questions), "question", "questions")
    sizes = prepared_plan.get_only_question().cells.sizes
    segments_text = write_count(sizes["segment"], "segment", "segments")
    return f"{segments_text}, {write_count(sizes['arm'], 'arm', 'arms')}"


def tabulate_all_cells(cells_by_question: Mapping[QuestionKey, xr.Dataset]) -> pd.DataFrame:
    """Tabulate the cells of all questions: metric, breakdown, segment (its levels joined), arm, statistics."""
    tables = []
    for (metric, dimensions), cells in cells_by_question.items():
        table, names = tabulate_cells(cells), list_dimensions(cells)
        segments = table[names].astype(str).agg(LEVEL_SEPARATOR.join, axis=1)
        table = table.drop(columns=names)
        table.insert(0, "metric", metric)
        table.insert(1, "breakdown", name_breakdown(dimensions))
        table.insert(2, "segment", segments)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
