"""Fit the problems in a table in memory: the pure function that every engine runs, whole problems at a time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayes_hte._support.numerics import isolate_numerics
from bayes_hte._support.validation import SEED_LIMIT
from bayes_hte.analysis.batches.cell_columns import CellColumns
from bayes_hte.analysis.batches.fit_problems import CellProblem, TableRequest, describe_fault, fit_problems
from bayes_hte.analysis.batches.result_columns import (
    ResultSchema,
    build_arrow_table,
    build_pandas_table,
    build_polars_table,
)
from bayes_hte.cells.reading.labels import format_label
from bayes_hte.errors import HteError

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type ProblemKey = tuple[str | None, ...]
"""Values of the key columns as text, None where missing."""


@dataclass(frozen=True, slots=True)
class TableTask:
    """Everything that `fit_rows` needs besides the rows; pickled, it is what a cluster sends to its workers."""

    columns: CellColumns
    request: TableRequest
    seed: int

    @property
    def schema(self) -> ResultSchema:
        """The columns of the result."""
        return ResultSchema(self.columns.keys, self.columns.dims)


def derive_seed(base_seed: int, key: ProblemKey) -> int:
    """Derive a problem's seed from its key: the same on every engine, in any order, in any partition.

    Examples
    --------
    >>> derive_seed(1, ("checkout", "bought")), derive_seed(1, ("checkout", "spent"))
    (3995125364, 1919086979)
    """
    # JSON keeps keys apart that plain joining would not: ("a", "b c") and ("a b", "c").
    key_text = json.dumps([base_seed, *key], ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(key_text.encode()).digest()[:8]) % SEED_LIMIT


def fit_rows(table: Any, task: TableTask) -> Any:
    """Fit every problem in a pandas, Polars or PyArrow table; a problem's rows must all be in it.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame or pyarrow.Table
        One row per cell.
    task : TableTask

    Returns
    -------
    The same kind of table
        One row per problem, segment and arm, and so on, in the order in which problems first occur.
    """
    import narwhals.stable.v2 as nw

    frame = nw.from_native(table, eager_only=True)
    column_values = {name: frame[name].to_list() for name in task.columns.names}
    rows_by_key = _group_rows([column_values[name] for name in task.columns.keys], len(frame))
    problems = [
        _build_problem({name: [values[row] for row in rows] for name, values in column_values.items()}, key, task)
        for key, rows in rows_by_key.items()
    ]
    with isolate_numerics():  # one thread of linear algebra per worker, and NumPy's own handling of errors
        results = fit_problems(problems, task.request)
    # Keys are taken from the input, and so keep their types: a join with what else is known of them needs no cast.
    first_rows = [rows[0] for rows, result in zip(rows_by_key.values(), results, strict=True) for _ in result]
    result_columns = task.schema.complete_columns([row for result in results for row in result])
    return _build_native_table(frame, first_rows, result_columns, task.schema)


def _group_rows(key_columns: Sequence[Sequence[Any]], row_count: int) -> dict[ProblemKey, list[int]]:
    """Group row numbers by the text of their key, in the order of first appearance."""
    key_texts = [[format_label(value) for value in values] for values in key_columns]
    rows_by_key: dict[ProblemKey, list[int]] = {}
    for row in range(row_count):
        rows_by_key.setdefault(tuple(texts[row] for texts in key_texts), []).append(row)
    return rows_by_key


def _build_problem(values_by_column: dict[str, list[Any]], key: ProblemKey, task: TableTask) -> CellProblem:
    """Build a problem from its rows; what is wrong with them stands in place of its cells."""
    seed = derive_seed(task.seed, key)
    try:
        return CellProblem(task.columns.read_cells(values_by_column), seed)
    except HteError as error:
        return CellProblem(str(error), seed)
    except Exception as error:  # as in `fit_problems`: the other problems go on
        return CellProblem(describe_fault(error), seed)


def _build_native_table(
    frame: "nw.DataFrame[Any]", key_rows: list[int], result_columns: dict[str, list[Any]], schema: ResultSchema
) -> Any:
    """Build a table of the same kind: keys of the given rows of `frame`, then the columns of the result."""
    key_table = frame.select(*schema.keys)[key_rows].to_native()
    implementation = frame.implementation
    if implementation.is_polars():
        return key_table.hstack(build_polars_table(result_columns, schema))
    if implementation.is_pyarrow():
        result_table = build_arrow_table(result_columns, schema)
        for name in result_table.column_names:
            key_table = key_table.append_column(result_table.schema.field(name), result_table[name])
        return key_table
    import pandas as pd

    return pd.concat([key_table.reset_index(drop=True), build_pandas_table(result_columns, schema)], axis=1)
