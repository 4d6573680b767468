"""Open a query on a database server whose URL is in an environment variable, read-only; no message shows the URL."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from bayes_hte.cells.reading.files.data_source import DataSource
from bayes_hte.cells.reading.files.databases import ONE_SELECT
from bayes_hte.errors import DataError

_FILE_SCHEMES = frozenset({"duckdb", "sqlite"})


def resolve_connection(source: DataSource) -> tuple[DataSource, str | None]:
    """Look up the URL of a connection: the source and the URL of a server; a file's URL becomes a path, without a URL.

    Raises
    ------
    DataError
        If the environment variable is not set, or holds no URL.
    """
    if source.connection is None:
        return source, None
    url = os.environ.get(source.connection, "")
    if not url:
        raise DataError(
            f"the environment variable {source.connection} is not set; set it to the URL of the database, as in "
            f"export {source.connection}=postgresql://user@host/database"
        )
    scheme, separator, rest = url.partition("://")
    # Key words of libpq, such as host=x password=y, are no URL either; nothing of them is shown.
    if not separator:
        raise DataError(
            f"the environment variable {source.connection} holds no URL of a database (its text is not shown); set it "
            "to one such as postgresql://user@host/database"
        )
    if scheme.lower() in _FILE_SCHEMES:
        # As everywhere: sqlite:///rows.db is relative, sqlite:////data/rows.db is not.
        file_path = unquote(urlsplit(f"//x/{rest.removeprefix('/')}").path.removeprefix("/"))
        return DataSource(file_path or ":memory:", table=source.table, query=source.query), None
    return source, url


@contextmanager
def open_server_table(source: DataSource, url: str) -> Iterator[Any]:
    """Open a table or a query of a server as an Ibis table, which the server carries out.

    Raises
    ------
    DataError
        If Ibis or the server's client is not installed, there is no connection, or the query is not one SELECT.
    """
    scheme = url.partition("://")[0].lower()
    package = "bayes-hte[postgres]" if scheme.startswith("postgres") else f"ibis-framework[{scheme}]"
    try:
        import ibis
    except ImportError:
        raise _make_missing_error(source, package) from None
    try:
        backend = ibis.connect(url)
    except ImportError:
        raise _make_missing_error(source, package) from None
    except Exception as error:  # of any client, whose message may repeat the URL, and so is not shown
        raise DataError(
            f"there is no connection by {source.connection} ({type(error).__name__}); check the URL in that "
            "variable, and that the server can be reached (the URL is not shown, as it may hold a password)"
        ) from None
    try:
        yield _build_table(backend, source)
    finally:
        backend.disconnect()


def _make_missing_error(source: DataSource, package: str) -> DataError:
    return DataError(f"the connection by {source.connection} needs a client; pip install '{package}'")


def _build_table(backend: Any, source: DataSource) -> Any:
    """Build the table, then take from the session the right to write."""
    if source.query is None:
        table = backend.table(source.table)
    else:
        _check_server_query(source.query, backend.dialect)
        table = backend.sql(source.query)  # parsed and described, not carried out
    # Elsewhere the check of the query, and the rights of the user, have to do.
    if backend.name == "postgres":
        # Ibis describes a query by a temporary view, which a session that only reads could not make.
        backend.con.commit()
        backend.con.read_only = True
    return table


def _check_server_query(query: str, dialect: Any) -> None:
    """Raise DataError unless a query is one SELECT without anything that writes inside."""
    import sqlglot
    from sqlglot import expressions as nodes

    changing = (nodes.Insert, nodes.Update, nodes.Delete, nodes.Merge, nodes.Into, nodes.Create, nodes.Command)
    try:
        statements = [statement for statement in sqlglot.parse(query, read=dialect) if statement is not None]
    except sqlglot.errors.SqlglotError as error:
        raise DataError(f"the query cannot be read as SQL: {str(error).splitlines()[0]}; {ONE_SELECT}") from error
    if len(statements) != 1 or not isinstance(statements[0], nodes.Query) or statements[0].find(*changing) is not None:
        raise DataError(f"the query is not one SELECT, and data are only read; {ONE_SELECT}")
