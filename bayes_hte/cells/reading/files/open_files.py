"""Open files of any kind as one DuckDB relation on a private connection.

Rows stay where they are, but for SQLite files and workbooks. Extensions are never installed, and nothing is fetched
from a network.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bayes_hte.cells.reading.files.data_source import DataSource
from bayes_hte.cells.reading.files.databases import open_duckdb_file, open_sqlite_file
from bayes_hte.cells.reading.files.find_files import FoundFiles, find_files
from bayes_hte.cells.reading.files.text_files import (
    OpenedFiles,
    choose_folder_options,
    open_text_files,
    recode_files,
)
from bayes_hte.cells.reading.files.workbooks import open_workbook
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.errors import ArgumentError

if TYPE_CHECKING:
    import duckdb


def connect_to_duckdb() -> "duckdb.DuckDBPyConnection":
    """Open a private database in memory that cannot fetch extensions, and so has no way to a network."""
    import duckdb

    settings = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        # A query from a plan must not find the variables of whoever calls.
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(":memory:", config={**settings})
    connection.execute("set TimeZone = 'UTC'")  # files hold points in time: days must not hang on where they are read
    return connection


@contextmanager
def open_files(
    source: DataSource,
    label_columns: Sequence[str],
    number_columns: Sequence[str],
    *,
    table_name: str,
    decimal: DecimalMark | None = None,
) -> Iterator[OpenedFiles]:
    """Open the file, or the files, of a source as a relation, which can be read within the `with` block.

    Raises
    ------
    ArgumentError
        If the source says what files of this kind have not: a table, a query, an encoding.
    DataError
        If there is no such file, it cannot be read, or its header leaves doubts.
    """
    found = find_files(os.fspath(source.path))  # type: ignore[arg-type]  # a source without a connection has a path
    _check_options(source, found)
    with connect_to_duckdb() as connection:
        match found.kind:
            case "parquet":
                yield OpenedFiles(_open_parquet(connection, found))
            case "duckdb":
                yield OpenedFiles(open_duckdb_file(connection, found.paths[0], source.table, source.query))
            case "sqlite":
                yield OpenedFiles(
                    open_sqlite_file(connection, found.paths[0], source.table, source.query, label_columns)
                )
            case "workbook":
                yield OpenedFiles(open_workbook(connection, found.paths[0], source.table, label_columns))
            case "text":
                with recode_files(found.paths, source.encoding) as utf_8_paths:
                    yield open_text_files(
                        connection,
                        FoundFiles("text", utf_8_paths, found.folder_columns),
                        label_columns,
                        number_columns,
                        table_name=table_name,
                        decimal=decimal,
                    )


def _check_options(source: DataSource, found: FoundFiles) -> None:
    """Raise ArgumentError if the source says what files of this kind have not."""
    is_database = found.kind in {"duckdb", "sqlite"}
    if source.query is not None and not is_database:
        raise ArgumentError(
            "query chooses rows of a DuckDB or SQLite file, or of a server by connection; leave it out here: every row "
            "of the file is read"
        )
    if source.table is not None and not is_database and found.kind != "workbook":
        raise ArgumentError("table names a table of a database or a sheet of a workbook; leave it out of other files")
    if source.encoding is not None and found.kind != "text":
        raise ArgumentError("encoding is of text files only; leave it out")


def _open_parquet(connection: "duckdb.DuckDBPyConnection", found: FoundFiles) -> "duckdb.DuckDBPyRelation":
    paths = list(map(glob.escape, found.paths))
    header = connection.read_parquet(paths[:1], hive_partitioning=False).columns if found.folder_columns else ()
    options = choose_folder_options(found, header)
    if not options["hive_partitioning"]:
        return connection.read_parquet(paths, hive_partitioning=False)
    return connection.sql(
        "select * from read_parquet($paths, hive_partitioning = true, hive_types_autocast = false)",
        params={"paths": paths},
    )
