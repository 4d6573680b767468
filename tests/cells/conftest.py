"""The same table in every engine the package promises to read."""

from collections.abc import Callable, Mapping, Sequence
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

ENGINES = ["pandas", "pandas-arrow", "polars", "polars-lazy", "pyarrow", "duckdb", "csv", "parquet"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Columns in, the table (or the path of a file) out."""

    path = tmp_path / f"rows.{request.param}"

    def write_csv(table: pa.Table) -> str:
        table.to_pandas().to_csv(path, index=False)
        return str(path)

    def write_parquet(table: pa.Table) -> Path:
        pyarrow.parquet.write_table(table, path)
        return path

    build: dict[str, Callable[[pa.Table], Any]] = {
        "pandas": lambda table: table.to_pandas(),
        "pandas-arrow": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
        "polars": pl.from_arrow,
        "polars-lazy": lambda table: pl.from_arrow(table).lazy(),
        "pyarrow": lambda table: table,
        "duckdb": lambda table: duckdb.connect(":memory:").from_arrow(table),
        "csv": write_csv,
        "parquet": write_parquet,
    }
    return lambda columns: build[request.param](pa.table(dict(columns)))
