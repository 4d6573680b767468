"""Load rows of Python values into a private DuckDB table, column by column in one type each."""

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import duckdb

ROWS_PER_CHUNK = 50_000
"""Rows that are in Python's memory at a time: some ten megabytes."""
_TYPE_BY_CLASSES = {
    frozenset({bool}): "boolean",
    frozenset({int}): "bigint",
    frozenset({int, float}): "double",
    frozenset({float}): "double",
    frozenset({date}): "date",
    frozenset({datetime}): "timestamp",
    frozenset({date, datetime}): "timestamp",
}
"""SQL type of a column, by the classes of its values; columns of anything else are text."""
LARGEST_INTEGER = 2**63


def load_rows(
    connection: "duckdb.DuckDBPyConnection",
    column_names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    label_columns: Collection[str],
) -> "duckdb.DuckDBPyRelation":
    """Load rows and return them as a relation.

    A column has the type of its values. One of text that is not among `label_columns`, and has a date in every row,
    holds dates: SQLite has no other way to hold them.

    Parameters
    ----------
    connection
        A private connection in memory.
    column_names
        Names of the columns, in the order of the values of a row.
    rows
        Read once, in chunks.
    label_columns
        Columns whose text stays as it is written.
    """
    numbered = ", ".join(f"c{i} varchar" for i in range(len(column_names)))
    connection.execute(f"create or replace temp table loaded_rows ({numbered})")
    classes_by_column: list[set[type]] = [set() for _ in column_names]
    chunk: list[Sequence[Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == ROWS_PER_CHUNK:
            _insert_chunk(connection, chunk, classes_by_column)
            chunk = []
    if chunk:
        _insert_chunk(connection, chunk, classes_by_column)
    # Types are known after the last row only; text loses nothing until then.
    projections = []
    for i, (name, classes) in enumerate(zip(column_names, classes_by_column, strict=True)):
        column_type = _TYPE_BY_CLASSES.get(frozenset(classes), "varchar")
        if classes == {str} and name not in label_columns:
            column_type = _find_date_type(connection, f"c{i}")
        quoted_name = name.replace('"', '""')
        projections.append(f'cast(c{i} as {column_type}) as "{quoted_name}"')
    return connection.sql(f"select {', '.join(projections)} from loaded_rows")  # noqa: S608, names are quoted above


def _insert_chunk(
    connection: "duckdb.DuckDBPyConnection", chunk: Sequence[Sequence[Any]], classes_by_column: Sequence[set[type]]
) -> None:
    """Insert rows as text, which later casts lose nothing of, and add the classes of their values."""
    # Column by column: DuckDB takes arrays at once, and rows one at a time.
    texts = {}
    for i, values in enumerate(zip(*chunk, strict=True)):
        column_texts = np.empty(len(values), dtype=object)
        column_texts[:] = [_write_text(value) for value in values]
        texts[f"c{i}"] = column_texts
        classes_by_column[i].update(
            _classify_value(value) for value, text in zip(values, column_texts, strict=True) if text is not None
        )
    connection.register("row_chunk", pd.DataFrame(texts))
    connection.execute("insert into loaded_rows select * from row_chunk")
    connection.unregister("row_chunk")


def _classify_value(value: Any) -> type:
    # A number beyond 64 bits is a float to DuckDB, as it is in a text file.
    if type(value) is int and not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
        return float
    return type(value)


def _write_text(value: Any) -> str | None:
    """Write a value as DuckDB reads it in a cast; a missing one is None."""
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case float() if math.isnan(value):
            return None
        # In a column with text, 7.0 is the label 7, as every other engine's number is.
        case float() if value.is_integer():
            return str(int(value))
        case bytes():
            return value.decode("utf-8", errors="backslashreplace")
    return str(value)


def _find_date_type(connection: "duckdb.DuckDBPyConnection", column: str) -> str:
    """Find whether all texts of a column are dates, or points in time, in ISO 8601: the type, or ``varchar``."""
    (is_iso, is_date, is_time) = connection.sql(
        rf"""select bool_and(regexp_matches({column}, '^\d{{4}}-\d\d-\d\d')),
        bool_and(try_cast({column} as date) is not null and length({column}) = 10),
        bool_and(try_cast({column} as timestamp) is not null) from loaded_rows where {column} is not null"""  # noqa: S608
    ).fetchall()[0]
    if not is_iso or not is_time:
        return "varchar"
    return "date" if is_date else "timestamp"
