"""The same table in every engine the package promises to read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from table_engines import (
    ADDED,
    IN_PROCESS,
    Engine,
    in_postgres,
    in_spark,
    postgres_server,
    skip_without,
    table_in,
)


@pytest.fixture(params=[*IN_PROCESS, *(pytest.param(name, marks=pytest.mark.slow) for name in ADDED)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Columns in, the table (or the path of a file) out."""
    return builder(request, tmp_path)


@pytest.fixture(params=(*IN_PROCESS, *ADDED))
def every_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """The same, for what is promised of every engine: the slower ones are asked in each run of the tests."""
    return builder(request, tmp_path)


def builder(request: pytest.FixtureRequest, folder: Path) -> Engine:
    """What makes a table of the engine that a fixture was asked for."""
    match request.param:
        case "spark":
            session = request.getfixturevalue("spark")
            return lambda columns: in_spark(session, columns)
        case "ibis-postgres":
            backend = request.getfixturevalue("postgres")
            return lambda columns: in_postgres(backend, columns)
    skip_without(request.param)
    return lambda columns: table_in(request.param, columns, folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """An Ibis backend on a PostgreSQL server of the tests' own."""
    skip_without("ibis-postgres")
    import ibis

    with postgres_server() as folder:
        backend = ibis.postgres.connect(host=str(folder), user="tests", database="postgres")
        yield backend
        backend.disconnect()
