"""The engines the package promises to read, and the servers that some of them are.

An engine that is not installed has a reason in `absent`; its tests are skipped with it.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

type Columns = Mapping[str, Sequence[Any]]
type Engine = Callable[[Columns], Any]

IN_PROCESS = ("pandas", "pandas-arrow", "polars", "polars-lazy", "pyarrow", "duckdb", "csv", "parquet")
ADDED = ("dask", "ibis-duckdb", "ibis-postgres", "spark")
"""Each in a dependency group of its own."""

POSTGRES_TYPES = {"int64": "bigint", "double": "double precision", "string": "text", "bool": "boolean", "null": "text"}


def absent(engine: str) -> str | None:
    """Why an engine cannot be asked, or None if it can."""
    needed = {
        "dask": ["dask.dataframe"],
        "ibis-duckdb": ["ibis"],
        "ibis-postgres": ["ibis", "psycopg"],
        "ray": ["ray"],
        "spark": ["pyspark"],
    }
    for package in needed.get(engine, []):
        if importlib.util.find_spec(package.split(".")[0]) is None:
            group = "postgres" if engine.startswith("ibis") else engine
            return f"{package} is not installed (dependency group {group})"
    if engine == "spark" and shutil.which("java") is None:
        return "Spark needs Java"
    if engine == "ibis-postgres" and postgres_programs() is None:
        return "no PostgreSQL server (Debian's package is postgresql)"
    return None


def skip_without(engine: str) -> None:
    """Skip a test whose engine cannot be asked, and say why."""
    reason = absent(engine)
    if reason is not None:
        pytest.skip(reason)


def table_in(engine: str, columns: Columns, folder: Path) -> Any:
    """The columns as a table of an engine that lives in this process."""
    table = pa.table(dict(columns))
    path = folder / f"rows.{engine}"

    def write_csv() -> str:
        # Whole numbers with gaps stay whole: pandas' own types would write 9.0, which is another name than 9.
        table.to_pandas(types_mapper=pd.ArrowDtype).to_csv(path, index=False)
        return str(path)

    def write_parquet() -> Path:
        pyarrow.parquet.write_table(table, path)
        return path

    build: dict[str, Callable[[], Any]] = {
        "pandas": table.to_pandas,
        "pandas-arrow": lambda: table.to_pandas(types_mapper=pd.ArrowDtype),
        "polars": lambda: pl.from_arrow(table),
        "polars-lazy": lambda: pl.from_arrow(table).lazy(),
        "pyarrow": lambda: table,
        "duckdb": lambda: duckdb.connect(":memory:").from_arrow(table),
        "csv": write_csv,
        "parquet": write_parquet,
        "dask": lambda: in_dask(table),
        "ibis-duckdb": lambda: in_ibis(table),
    }
    return build[engine]()


def in_ibis(table: pa.Table) -> Any:
    """An Ibis table whose backend is DuckDB."""
    import ibis

    connection = duckdb.connect(":memory:")
    connection.register("arrow", table)
    connection.execute("create table rows as select * from arrow")
    return ibis.duckdb.from_connection(connection).table("rows")


def in_spark(session: Any, columns: Columns) -> Any:
    """The columns as a Spark table."""
    return session.createDataFrame(pa.table(dict(columns)))


def count_scans(postgres: Any, table_name: str) -> int:
    """How often a table of a PostgreSQL server was read from its first row on."""
    with postgres.con.transaction(), postgres.con.cursor() as cursor:
        cursor.execute("select pg_stat_force_next_flush()")
        cursor.execute("select pg_stat_clear_snapshot()")
    with postgres.con.transaction(), postgres.con.cursor() as cursor:
        query = "select seq_scan from pg_stat_user_tables where relname = %s"
        scans: int = cursor.execute(query, [table_name]).fetchone()[0]
        return scans


def in_dask(table: pa.Table, parts: int = 3) -> Any:
    """A Dask table of several partitions, the second of which is empty."""
    import dask.dataframe

    frame = table.to_pandas()
    size = -(-len(frame) // (parts - 1)) if len(frame) else 1
    pieces = [frame.iloc[i * size : (i + 1) * size] for i in range(parts - 1)]
    pieces.insert(1, frame.iloc[:0])
    return dask.dataframe.from_map(lambda piece: piece, pieces, meta=frame.iloc[:0])


@contextlib.contextmanager
def spark_session() -> Iterator[Any]:
    """Spark in this machine's local mode, on the loopback interface, without its web pages."""
    from pyspark.sql import SparkSession

    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.timestampType": "TIMESTAMP_NTZ",  # a timestamp without a zone, as in the other engines
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "1g",
        "spark.log.level": "OFF",
    }
    with tempfile.TemporaryDirectory() as folder:
        builder = SparkSession.builder.master("local[1]").appName("tests")
        options |= {"spark.sql.warehouse.dir": folder, "spark.local.dir": folder}
        for name, value in options.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        try:
            yield session
        finally:
            session.stop()


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's own programs; Debian keeps them out of the path."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    folders = [*reversed(installed), *map(Path, os.get_exec_path())]
    programs = ("initdb", "postgres", "pg_isready")
    return next((folder for folder in folders if all((folder / name).exists() for name in programs)), None)


@contextlib.contextmanager
def postgres_server() -> Iterator[Path]:
    """A PostgreSQL server of the tests' own: in a temporary folder, on a socket in it, and on no network.

    Yields the folder. No server that is installed is touched. Root may not run one: then the user postgres does,
    or nobody. Every statement is in the file log.
    """
    programs = postgres_programs()
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        user = _unprivileged()
        started: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}}
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
            started |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        cluster = folder / "cluster"
        initialise = [programs / "initdb", "-D", cluster, "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initialise, check=True, capture_output=True, **started)
        options = {"listen_addresses": "", "unix_socket_directories": name, "fsync": "off", "log_statement": "all"}
        serve = [programs / "postgres", "-D", cluster, *(f"--{option}={value}" for option, value in options.items())]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log, **started)
        try:
            _wait(programs / "pg_isready", folder, server)
            yield folder
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _unprivileged() -> pwd.struct_passwd | None:
    """Who runs the server when the tests are run by root."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


def _wait(program: Path, folder: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if subprocess.run([program, "--quiet", "--host", folder], check=False).returncode == 0:
            return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()}")


def in_postgres(backend: Any, columns: Columns, name: str = "rows") -> Any:
    """Put the columns into a table of the database, and open it through Ibis."""
    from psycopg import sql

    table = pa.table(dict(columns))
    types = [sql.SQL(_postgres_type(kind)) for kind in table.schema.types]
    columns_of = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column), kind)
        for column, kind in zip(table.column_names, types, strict=True)
    )
    at = sql.Identifier(name)
    with backend.con.transaction(), backend.con.cursor() as cursor:
        cursor.execute(sql.SQL("drop table if exists {}").format(at))
        cursor.execute(sql.SQL("create table {} ({})").format(at, columns_of))
        with cursor.copy(sql.SQL("copy {} from stdin").format(at)) as copy:
            for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                copy.write_row(row)
    return backend.table(name)


def _postgres_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return "numeric"
    if pa.types.is_date(kind):
        return "date"
    return "timestamp" if pa.types.is_timestamp(kind) else POSTGRES_TYPES[str(kind)]
