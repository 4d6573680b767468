"""Read a table or a query of a DuckDB or SQLite file: read-only, one SELECT, and no way to any other file.

Views in a file are code of whoever made it. DuckDB is therefore locked out of the file system once the file is open,
and SQLite allowed nothing but to read.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bayes_hte._support.phrases import quote_names
from bayes_hte.cells.reading.files.load_rows import ROWS_PER_CHUNK, load_rows
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    import duckdb

ONE_SELECT = "give one SELECT, which may begin with WITH"
"""What a query has to be."""
_RESERVED_CATALOGS = frozenset({"main", "memory", "system", "temp"})
# https://www.sqlite.org/c3ref/c_alter_table.html
_READING_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


def open_duckdb_file(
    connection: "duckdb.DuckDBPyConnection", file_path: str, table: str | None, query: str | None
) -> "duckdb.DuckDBPyRelation":
    """Open a table or a query of a DuckDB file as a relation.

    Raises
    ------
    DataError
        If there is no such table, none is named and there are several, or the query is more than one SELECT.
    """
    # The name that the file has to DuckDB itself, so that queries and views may use it.
    stem = Path(file_path).stem
    catalog = "source" if stem.lower() in _RESERVED_CATALOGS else stem
    escaped_path = file_path.replace("'", "''")
    connection.execute(f"attach '{escaped_path}' as {_quote(catalog)} (read_only)")
    connection.execute(f"use {_quote(catalog)}")
    connection.execute("set enable_external_access = false")
    # Else a query could take that back before it reads.
    connection.execute("set lock_configuration = true")
    if query is not None:
        return connection.sql(_check_duckdb_query(query))
    # Of the attached file alone: the private database in memory has tables of its own.
    rows = connection.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = ? union all "
        "select schema_name, view_name from duckdb_views() where database_name = ? and not internal order by 1, 2",
        [catalog, catalog],
    ).fetchall()
    place_by_name = {name if schema == "main" else f"{schema}.{name}": (schema, name) for schema, name in rows}
    schema, name = place_by_name[choose_table(table, list(place_by_name), Path(file_path).name, "table")]
    return connection.sql(f"select * from {_quote(catalog)}.{_quote(schema)}.{_quote(name)}")  # noqa: S608, quoted


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_duckdb_query(query: str) -> str:
    """Return the query, unless it is anything but one SELECT."""
    import duckdb

    try:
        statements = duckdb.extract_statements(query)
    except duckdb.ParserException as error:
        raise DataError(f"the query cannot be read as SQL: {str(error).splitlines()[0]}; {ONE_SELECT}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise DataError(f"the query is not one SELECT, and data are only read; {ONE_SELECT}")
    return str(statements[0].query)


def choose_table(table: str | None, known_names: Sequence[str], file_name: str, noun: str) -> str:
    """Choose the table that is named, or the only one."""
    if table in known_names:
        return str(table)
    if not known_names:
        raise DataError(f"the file {file_name} holds no {noun}; check what wrote it")
    # Which of several is meant cannot be told from what they hold.
    if table is None and len(known_names) == 1:
        return known_names[0]
    listed = f"its {noun}s are {quote_names(known_names)}"
    if table is None:
        raise DataError(f"the file {file_name} holds several {noun}s: name one as table; {listed}")
    raise DataError(f"the file {file_name} has no {noun} {table!r}; {listed}")


def open_sqlite_file(
    connection: "duckdb.DuckDBPyConnection",
    file_path: str,
    table: str | None,
    query: str | None,
    label_columns: Sequence[str],
) -> "duckdb.DuckDBPyRelation":
    """Load a table or a query of a SQLite file, in chunks, and return it as a relation of DuckDB.

    DuckDB reads SQLite by an extension only, which would have to be fetched from a network.

    Raises
    ------
    DataError
        As for a DuckDB file, or if a column's name repeats.
    """
    # Percent signs, question marks and hashes of a name would be parts of the URI.
    database = sqlite3.connect(f"file:{quote(file_path)}?mode=ro", uri=True)
    try:
        # Functions that a view calls cannot have effects, and what the file says of itself is not believed.
        database.execute("pragma trusted_schema = off")
        database.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READING_ACTIONS else sqlite3.SQLITE_DENY
        )
        if query is None:
            names = database.execute(
                "select name from sqlite_master where type in ('table', 'view') and name not like 'sqlite\\_%' "
                "escape '\\' order by name"
            ).fetchall()
            chosen = choose_table(table, [str(name) for (name,) in names], Path(file_path).name, "table")
            query = f"select * from {_quote(chosen)}"  # noqa: S608, the name is quoted
        cursor = _execute_sqlite_query(database, query)
        column_names = [str(column[0]) for column in cursor.description]
        return load_rows(connection, column_names, _iterate_rows(cursor), label_columns)
    finally:
        database.close()


def _execute_sqlite_query(database: sqlite3.Connection, query: str) -> sqlite3.Cursor:
    try:
        cursor = database.execute(query)
    except (sqlite3.ProgrammingError, sqlite3.DatabaseError) as error:
        if "authoriz" in str(error) or "one statement" in str(error):
            raise DataError(f"the query is not one SELECT, and data are only read; {ONE_SELECT}") from error
        raise
    if cursor.description is None:  # an empty text, or a comment alone
        raise DataError(f"the query is not one SELECT, and data are only read; {ONE_SELECT}")
    return cursor


def _iterate_rows(cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(ROWS_PER_CHUNK):
        yield from rows
