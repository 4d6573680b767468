"""`DataSource`: data that a path alone does not name, such as one table of a database."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError

STANDARD_INPUT = "-"
"""The path that means standard input, as in other programs."""
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class DataSource:
    """A table of a database, a sheet of a workbook, a query, or a text file in another encoding than UTF-8.

    Every function of ``hte.cells`` that takes the path of a file takes this in its place. Nothing is ever written to
    the file or the database.

    Parameters
    ----------
    path : str or Path, optional
        A file, a folder, or ``-`` for standard input.
    table : str, optional
        Table or view of a database, or sheet of a workbook; may be left out where there is only one.
    query : str, optional
        One SELECT in SQL, in place of `table`: of a DuckDB or SQLite file, or carried out through `connection`.
    connection : str, optional
        Name of the environment variable that holds the URL of a database, in place of `path`. The URL itself, which may
        hold a password, is never written anywhere.
    encoding : str, optional
        How a text file is encoded, as Python names it: "latin-1", "windows-1252", "utf-16". UTF-8, and UTF-16 that
        begins with its mark, need not be named.

    Raises
    ------
    ArgumentError
        If neither or both of `path` and `connection` are given, or both of `table` and `query`.

    Examples
    --------
    >>> from bayes_hte.cells import DataSource
    >>> DataSource("shop.duckdb", table="visits").describe()
    'table visits of file shop.duckdb'
    >>> DataSource(connection="WAREHOUSE_URL", query="select * from visits").describe()
    'query by WAREHOUSE_URL'
    """

    path: str | os.PathLike[str] | None = None
    table: str | None = None
    query: str | None = None
    connection: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        """Check that what is given goes together."""
        for name, text in (("table", self.table), ("query", self.query), ("encoding", self.encoding)):
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise ArgumentError(f"{name} is {describe_value(text)}; give text, or leave it out")
        # Checked here, where the caller stands, and not when the data are read.
        if (self.path is None) == (self.connection is None):
            raise ArgumentError("data are at a path or behind a connection: give one of the two, and not both")
        if self.table is not None and self.query is not None:
            raise ArgumentError("table names a whole table, and query chooses the rows itself; leave one of them out")
        if self.connection is None:
            if not isinstance(self.path, str | os.PathLike):
                raise ArgumentError(f"path is {describe_value(self.path)}; give it as text or a pathlib.Path")
            return
        check_variable_name(self.connection)
        if self.table is None and self.query is None:
            raise ArgumentError("a connection leads to many tables; say which data by query, or by table")

    def describe(self) -> str:
        """Name the data in messages and in the report."""
        if self.connection is not None:
            part = "query" if self.table is None else f"table {self.table}"
            return f"{part} by {self.connection}"
        place = "standard input" if str(self.path) == STANDARD_INPUT else f"file {Path(str(self.path)).name}"
        part = "" if self.table is None else f"table {self.table} of "
        return f"query on {place}" if self.query is not None else f"{part}{place}"


def check_variable_name(connection: object) -> str:
    """Check that a value can name an environment variable; a URL in its place is refused, and never shown.

    Raises
    ------
    ArgumentError
        If it cannot.
    """
    if not isinstance(connection, str) or _VARIABLE_NAME.fullmatch(connection) is None:
        raise ArgumentError(
            "connection must be the name of an environment variable that holds the URL, such as WAREHOUSE_URL, and "
            "not the URL itself, which may hold a password"
        )
    return connection
