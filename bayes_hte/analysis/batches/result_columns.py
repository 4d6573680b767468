"""Columns of the result table: their names, order and types in every engine, under one version number.

A program that reads the table may rely on names, order, types and meanings as long as ``schema_version`` is the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from bayes_hte._support.phrases import quote_names
from bayes_hte.errors import ArgumentError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from pyspark.sql.types import StructType

type ValueKind = Literal["text", "integer", "number", "flag"]
"""Type of a column, whatever the engine calls it; every column may have missing values."""
type ResultValues = Mapping[str, Sequence[Any]]
"""Columns of a result as Python values, None where missing."""

SCHEMA_VERSION = 1
"""Goes up with every change of a name, an order, a type or a meaning below: a test holds the two together."""

SEGMENT_ROW, AVERAGE_ROW, FAILURE_ROW = "segment", "average", "failure"
"""Kinds of rows: the effect in a segment, the average effect of an arm, a problem that could not be fitted."""

EFFECT_COLUMNS: Mapping[str, ValueKind] = MappingProxyType(
    {
        "n_control": "integer",
        "n_treated": "integer",
        "raw": "number",
        "raw_se": "number",
        "effect": "number",
        "sd": "number",
        "ci_low": "number",
        "ci_high": "number",
        "p_positive": "number",
        "p_negative": "number",
        "pooling": "number",
    }
)
"""Columns of `Fit.table`, under the names they have there; an average has no pooling."""
CERTIFICATE_COLUMNS = ("pareto_k", "effective_points", "quadrature_error", "unexplored_mass", "unmoved_share")
"""Numbers of `Certificate`; missing where an engine does not measure one."""
PROBLEM_COLUMNS: Mapping[str, ValueKind] = MappingProxyType(
    {
        "scale": "text",
        "ci_prob": "number",
        "reliable": "flag",
        "problems": "text",
        "engine": "text",
        **dict.fromkeys(CERTIFICATE_COLUMNS, "number"),
        "seed": "integer",
        "error": "text",
        "schema_version": "integer",
    }
)
"""Columns that are the same in all rows of a problem."""


@dataclass(frozen=True, slots=True)
class ResultSchema:
    """The columns of one result: keys, kind of row, dimensions, arm, numbers, what is known of the problem."""

    keys: tuple[str, ...]
    dims: tuple[str, ...]

    @property
    def kind_by_column(self) -> dict[str, ValueKind]:
        """Type of every column after the keys, in order; keys keep the types that they have in the input."""
        label_columns: dict[str, ValueKind] = dict.fromkeys(("row", *self.dims, "arm"), "text")
        return {**label_columns, **EFFECT_COLUMNS, **PROBLEM_COLUMNS}

    def check_names(self) -> None:
        """Raise ArgumentError if a key or a dimension has the name of a column of the result."""
        taken_names = {"row", "arm", *EFFECT_COLUMNS, *PROBLEM_COLUMNS}
        clashes = [name for name in (*self.keys, *self.dims) if name in taken_names]
        if clashes:
            raise ArgumentError(f"the result has columns {quote_names(clashes)} of its own; rename those of the table")

    def complete_columns(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Turn rows into complete columns; what a row lacks, and a number that is not finite, is None."""
        return {name: [make_plain(row.get(name), kind) for row in rows] for name, kind in self.kind_by_column.items()}


def make_plain(value: Any, kind: ValueKind) -> Any:
    """Make a Python value of a kind, None where it is missing: engines do not agree on what NaN is."""
    match kind:
        case "text":
            return None if value is None else str(value)
        case "flag":
            return None if value is None else bool(value)
        case "integer":
            return None if value is None or value != value else int(value)  # noqa: PLR0124, only NaN differs from itself
        case "number":
            return None if value is None or not math.isfinite(value) else float(value)


def build_pandas_table(columns: ResultValues, schema: ResultSchema) -> "pd.DataFrame":
    """Build a pandas table whose whole numbers and flags may be missing."""
    import pandas as pd

    # Nullable types: whole numbers would else become floats, and flags objects, where a row lacks them.
    dtypes = {"text": "str", "integer": "Int64", "number": "float64", "flag": "boolean"}
    return pd.DataFrame(
        {name: pd.Series(columns[name], dtype=dtypes[kind]) for name, kind in schema.kind_by_column.items()}
    )


def list_polars_types(schema: ResultSchema) -> "dict[str, Any]":
    """List the types of a Polars table."""
    import polars as pl

    types = {"text": pl.String, "integer": pl.Int64, "number": pl.Float64, "flag": pl.Boolean}
    return {name: types[kind] for name, kind in schema.kind_by_column.items()}


def build_polars_table(columns: ResultValues, schema: ResultSchema) -> "pl.DataFrame":
    """Build a Polars table."""
    import polars as pl

    return pl.DataFrame(columns, schema=list_polars_types(schema))


def build_arrow_table(columns: ResultValues, schema: ResultSchema) -> "pa.Table":
    """Build a PyArrow table."""
    import pyarrow as pa

    types = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_()}
    return pa.table({name: pa.array(columns[name], type=types[kind]) for name, kind in schema.kind_by_column.items()})


def build_spark_schema(schema: ResultSchema, key_fields: Sequence[Any]) -> "StructType":
    """Build the schema of a Spark table: the fields of the keys as they are, then those of the result."""
    from pyspark.sql import types

    spark_types = {
        "text": types.StringType(), "integer": types.LongType(), "number": types.DoubleType(),
        "flag": types.BooleanType(),
    }  # fmt: skip
    result_fields = [types.StructField(name, spark_types[kind]) for name, kind in schema.kind_by_column.items()]
    return types.StructType([*key_fields, *result_fields])
