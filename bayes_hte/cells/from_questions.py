"""Make the cell tables of all questions of a plan, from one pass over its data where they have one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from bayes_hte.cells.combine.merge import merge
from bayes_hte.cells.combine.split import split
from bayes_hte.cells.from_plan import (
    complete_cells,
    find_data,
    from_plan,
    speak_of_plan,
    translate_notes,
)
from bayes_hte.cells.units.scan.from_rows_many import from_rows_many
from bayes_hte.errors import DataError, HteError, PlanError
from bayes_hte.spec.cell_table import list_dimensions
from bayes_hte.spec.data_forms import Rows, Times
from bayes_hte.spec.questions.list_questions import PlannedQuestion, QuestionKey
from bayes_hte.spec.questions.planned_metric import name_breakdown

type CellsOrError = xr.Dataset | HteError

# Keywords of one metric, and those of the rows, which all metrics of a scan share.
_METRIC_KEYWORDS = ("metric", "levels", "exposure", "denominator", "cuped", "cap", "cap_quantile")
_ROW_KEYWORDS = ("weights", "cluster", "unit", "balance", "drop_missing", "fold_labels", "bins", "rare")


def from_questions(
    questions: Sequence[PlannedQuestion], folder: Path, *, data: Any = None
) -> dict[QuestionKey, CellsOrError]:
    """Make the cell table of every question, or say why it has none.

    Parameters
    ----------
    questions : sequence of PlannedQuestion
        Of one plan.
    folder : Path
        Of the plan: its paths are relative to it.
    data : data frame, relation or path, optional
        In place of the plan's ``data.path``.

    Returns
    -------
    dict
        Cell table, dims (segment, arm), or the error of a question, by metric and dimensions.

    Raises
    ------
    PlanError
        If the plan names no data, or a key has a value that it cannot take.
    DataError
        If the data lack a column that the plan names, or there is no cell table of any question.

    Notes
    -----
    Metrics that say the same of the rows (weights, clusters, what is missing) share one scan. Where a scan fails, each
    of its questions is asked on its own, so that the others have their answer.
    """
    cells_by_question: dict[QuestionKey, CellsOrError] = {}
    for group in _group_by_scan(questions):
        try:
            with speak_of_plan():
                cells_by_question |= _scan_group(group, folder, data=data)
        # Which question it was is found by asking each: messages are then those of single plans, too.
        except HteError:
            for question in group:
                cells_by_question[question.key] = _ask_alone(question, folder, data=data)
    # Nothing to show at all is an error of the run, and no row of a table.
    errors = [result for result in cells_by_question.values() if isinstance(result, HteError)]
    if len(errors) == len(questions):
        raise errors[0]
    return {question.key: cells_by_question[question.key] for question in questions}


def _ask_alone(question: PlannedQuestion, folder: Path, *, data: Any) -> CellsOrError:
    """Make the cells of one question, or keep the error; what is wrong with the plan itself stops everything."""
    try:
        return from_plan(question.plan, folder, data=data)
    except PlanError as error:
        raise PlanError(f"{question.title}: {error}") from error
    except DataError as error:
        # A column that nobody has is a slip of the pen: it is cheap to mend before anything is fitted.
        if error.missing_columns:
            raise
        return error


def _group_by_scan(questions: Sequence[PlannedQuestion]) -> list[list[PlannedQuestion]]:
    """Group the questions whose metrics say the same of the rows; other data than rows have one metric."""
    groups: dict[str, list[PlannedQuestion]] = {}
    for question in questions:
        is_rows = isinstance(question.plan.data, Rows)
        row_options = {key: getattr(question.metric, key) for key in _ROW_KEYWORDS} if is_rows else {}
        groups.setdefault(repr(row_options), []).append(question)
    return list(groups.values())


def _scan_group(questions: Sequence[PlannedQuestion], folder: Path, *, data: Any) -> dict[QuestionKey, CellsOrError]:
    first_plan = questions[0].plan
    if len(questions) == 1 or isinstance(first_plan.data, Times):
        # Intervals of time may be cut where the events of a breakdown are, so each has a pass of its own.
        return {question.key: _ask_alone(question, folder, data=data) for question in questions}
    table = find_data(first_plan, folder, data)
    if isinstance(first_plan.data, Rows):
        return _scan_rows(questions, table, folder)
    return _add_up_summary(questions, table, folder)


def _scan_rows(questions: Sequence[PlannedQuestion], table: Any, folder: Path) -> dict[QuestionKey, CellsOrError]:
    """Reduce rows to the cells of metrics that say the same of them, in one pass."""
    plan, metrics = questions[0].plan, {question.metric.name: question.metric for question in questions}
    breakdowns = {name_breakdown(question.dimensions): question.dimensions for question in questions}
    row_options = {key: getattr(questions[0].metric, key) for key in _ROW_KEYWORDS}
    data_options = plan.data.model_dump(include={"arm", "control", "decimal"})
    given = {key: value for key, value in (row_options | data_options).items() if value is not None}
    tables = from_rows_many(
        table,
        metrics={name: _list_keywords(metric, ("outcome", *_METRIC_KEYWORDS)) for name, metric in metrics.items()},
        breakdowns=breakdowns,
        **given,
    )
    return {
        question.key: translate_notes(
            complete_cells(tables[question.metric.name, name_breakdown(question.dimensions)], question.plan, folder)
        )
        for question in questions
    }


def _list_keywords(options: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _add_up_summary(questions: Sequence[PlannedQuestion], table: Any, folder: Path) -> dict[QuestionKey, CellsOrError]:
    """Read a table of summaries by all dimensions that any question names, and add the others up for each."""
    # The finest cells that the plan names; a table with more dimensions repeats cells, which is refused.
    all_dims = list(dict.fromkeys(name for question in questions for name in question.dimensions))
    plan = questions[0].plan
    # What belongs to the segments of a question is added where these are made.
    whole_plan = plan.model_copy(
        update={
            "data": plan.data.model_copy(update={"segments": tuple(all_dims), "shares": None}),
            "covariates": None,
            "privacy": None,
        }
    )
    whole_cells = from_plan(whole_plan, folder, data=table)
    found: dict[QuestionKey, CellsOrError] = {}
    for question in questions:
        try:
            cells = _add_up_dimensions(whole_cells, question.dimensions)
            found[question.key] = translate_notes(complete_cells(cells, question.plan, folder))
        except DataError as error:
            found[question.key] = error
    return found


def _add_up_dimensions(cells: xr.Dataset, kept_dimensions: Sequence[str]) -> xr.Dataset:
    """Add cells up over all dimensions but those that are kept."""
    for dimension in list_dimensions(cells):
        if dimension not in kept_dimensions:
            cells = merge(*split(cells, dimension).values())
    return cells
