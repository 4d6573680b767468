"""Fit problems one by one, and turn each into plain rows: the one place through which every table of results goes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte.analysis.batches.result_columns import (
    AVERAGE_ROW,
    CERTIFICATE_COLUMNS,
    FAILURE_ROW,
    SCHEMA_VERSION,
    SEGMENT_ROW,
)
from bayes_hte.analysis.fit import SamplingRequest, compute_fit_tree
from bayes_hte.criticism.diagnostics import read_diagnosis
from bayes_hte.errors import HteError
from bayes_hte.estimands import tables
from bayes_hte.estimands.effects import hold_effects
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.inference.certificate import read_certificate
from bayes_hte.spec import Model
from bayes_hte.spec.fit_tree import get_engine_name

type ResultRows = list[dict[str, Any]]
"""Rows of a result, by column; what a row lacks is missing."""


@dataclass(frozen=True, slots=True)
class TableRequest:
    """What is asked of every problem of a table: plain values, so that they travel to the workers of a cluster."""

    model: Model
    question: EffectQuestion
    sampler: str
    draws: int


@dataclass(frozen=True, slots=True)
class CellProblem:
    """Cells and the seed of their draws; or, in place of the cells, why there are none."""

    cells: xr.Dataset | str
    seed: int


def fit_problems(problems: Sequence[CellProblem], request: TableRequest) -> list[ResultRows]:
    """Fit every problem and list its rows; what cannot be fitted is one row that says why.

    Parameters
    ----------
    problems : sequence of CellProblem
    request : TableRequest

    Returns
    -------
    list of list of dict
        Of each problem: a row per segment and arm, then one per arm for the average; or one row with an ``error``.
    """
    return [_fit_problem(problem, request) for problem in problems]


def _fit_problem(problem: CellProblem, request: TableRequest) -> ResultRows:
    """Fit one problem; no error of it may end the work on the others."""
    if isinstance(problem.cells, str):
        return [build_failure_row(problem.cells, request, problem.seed)]
    try:
        sampling = SamplingRequest(request.sampler, request.draws, problem.seed, progress=False)
        # Without a `Fit`: that would copy and freeze what is thrown away after two tables.
        fit_tree = compute_fit_tree(problem.cells, request.model, sampling, lambda record: record)
        return list(_list_rows(fit_tree, request, problem.seed))
    except HteError as error:
        return [build_failure_row(str(error), request, problem.seed)]
    except Exception as error:  # one problem that shows a fault must not end a night's work on a cluster
        return [build_failure_row(describe_fault(error), request, problem.seed)]


def describe_fault(error: Exception) -> str:
    """Describe an error that nothing foresees, so that it can be told from one in the data."""
    return f"a fault of bayes_hte, please report it: {type(error).__name__}: {error}"


def build_failure_row(reason: str, request: TableRequest, seed: int) -> dict[str, Any]:
    """Build the row of a problem that could not be fitted."""
    return {"row": FAILURE_ROW, "error": reason, **_list_request_values(request, seed)}


def _list_request_values(request: TableRequest, seed: int) -> dict[str, Any]:
    """List the columns that are known before the fit."""
    question = request.question
    return {
        "scale": question.scale,
        "ci_prob": question.ci_prob,
        "seed": seed,
        "schema_version": SCHEMA_VERSION,
    }


def _list_rows(fit_tree: xr.DataTree, request: TableRequest, seed: int) -> Iterator[dict[str, Any]]:
    """List the rows of a fit: segments by arm, then the average effect of each arm."""
    certificate = read_certificate(fit_tree)
    certificate_values = {} if certificate is None else asdict(certificate)
    diagnosis = read_diagnosis(fit_tree)
    problem_values = {
        **_list_request_values(request, seed),
        **{name: certificate_values.get(name) for name in CERTIFICATE_COLUMNS},
        "reliable": diagnosis.ok,
        "problems": " ".join(diagnosis.problems) or None,
        "engine": get_engine_name(fit_tree),
    }
    # Effects of all draws are computed once for both tables; what only one needs is not held.
    fit_tree = hold_effects(fit_tree, request.question.scale)
    for row_kind, effect_table in (
        (SEGMENT_ROW, tables.tabulate_segments(fit_tree, request.question)),
        (AVERAGE_ROW, tables.tabulate_ate(fit_tree, request.question)),
    ):
        yield from ({"row": row_kind, **values, **problem_values} for values in _list_records(effect_table))


def _list_records(effect_table: pd.DataFrame) -> list[dict[str, Any]]:
    """List the rows of a table as Python values, None where a whole number is missing."""
    return [
        {str(name): None if value is pd.NA else value for name, value in record.items()}
        for record in effect_table.to_dict("records")
    ]
