"""Run `fit_rows` where a table is: in memory, or lazily on the workers of Polars, Spark, Dask or Ray.

Rows are brought together by their keys inside the engine; nothing is collected. What travels are a `TableTask` and
cells, never rows of units. Workers need the package, and no PyMC as long as the sampler is the exact engine.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from bayes_hte._support.validation import describe_type
from bayes_hte.analysis.batches.cell_columns import ColumnKind
from bayes_hte.analysis.batches.fit_rows import TableTask, derive_seed, fit_rows
from bayes_hte.analysis.batches.result_columns import build_spark_schema, list_polars_types
from bayes_hte.cells.reading.engines import pick_in_spark
from bayes_hte.cells.reading.labels import format_label
from bayes_hte.errors import ArgumentError

BATCH_COLUMN = "bayes_hte_batch"
"""Column by which Spark and Ray bring the rows of a problem together; it is not in the result."""


def is_of_package(table: Any, package: str) -> bool:
    """Tell whether a table is of a package, without importing it."""
    return any(f"{base.__module__}.".startswith(f"{package}.") for base in type(table).__mro__)


def read_column_kinds(table: Any) -> dict[str, ColumnKind]:
    """Read from the header what each column can be; no rows are fetched but those by which Ray finds its schema.

    Raises
    ------
    ArgumentError
        If this is no table of an engine that results can be computed on.
    """
    import narwhals.stable.v2 as nw

    # A header is all that is needed: of Ray and Dask an empty table stands for it.
    if is_of_package(table, "ray.data"):
        table = _build_empty_ray_table(table)
    elif is_of_package(table, "dask"):
        table = getattr(table, "_meta", table)
    try:
        frame = nw.from_native(table)
    except TypeError as error:
        raise ArgumentError(f"frame is {describe_type(table)}; {_list_engines()}") from error
    implementation = frame.implementation
    if not (
        implementation.is_pandas()
        or implementation.is_polars()
        or implementation.is_pyarrow()
        or implementation.is_pyspark()
        or implementation.is_pyspark_connect()
    ):
        raise ArgumentError(f"frame is {describe_type(table)}, on which nothing can be fitted; {_list_engines()}")

    def tell_kind(dtype: Any) -> ColumnKind:
        if dtype.is_numeric():
            return "number"
        label_types = (nw.String, nw.Categorical, nw.Enum, nw.Boolean, nw.Object)
        return "label" if isinstance(dtype, label_types) else "other"

    return {name: tell_kind(dtype) for name, dtype in frame.collect_schema().items() if isinstance(name, str)}


def _list_engines() -> str:
    return "give a pandas, Polars or PyArrow table, or one of Spark, Dask or Ray"


def _build_empty_ray_table(dataset: Any) -> Any:
    """Build a table without rows that has the columns of a Ray dataset."""
    import pyarrow as pa

    schema = dataset.schema()
    if schema is None:
        raise ArgumentError("the Ray dataset has no rows, and so no columns; check the filter that made it")
    return pa.schema(list(zip(schema.names, schema.types, strict=True))).empty_table()


def run_on_engine(table: Any, task: TableTask) -> Any:
    """Compute the result in memory, or describe it lazily, as the table itself is."""
    import narwhals.stable.v2 as nw

    if is_of_package(table, "ray.data"):
        return _run_on_ray(table, task)
    if is_of_package(table, "dask"):
        return _run_on_dask(table, task)
    implementation = nw.from_native(table).implementation
    if implementation.is_pyspark() or implementation.is_pyspark_connect():
        return _run_on_spark(table, task)
    if implementation.is_polars() and not hasattr(table, "hstack"):
        return _run_on_lazy_polars(table, task)
    return fit_rows(table, task)


def _run_on_lazy_polars(table: Any, task: TableTask) -> Any:
    """Describe the result of a Polars LazyFrame; filters of the result must not move before the fits."""
    picked = table.select(task.columns.names)
    key_types: Mapping[str, Any] = picked.select(task.columns.keys).collect_schema()
    # Filters, columns and slices stay where they are unless one allows their move: an arm that is not wanted in the
    # result is needed for the fit.
    return picked.map_batches(
        partial(fit_rows, task=task), schema={**key_types, **list_polars_types(task.schema)}, streamable=False
    )


def _run_on_dask(table: Any, task: TableTask) -> Any:
    """Describe the result of a Dask table: each partition of the shuffled table holds whole problems."""
    picked = table[task.columns.names]
    # The types of an empty result are those of all: Dask asks for them before anything is computed.
    empty_result = fit_rows(picked._meta, task)
    return picked.shuffle(on=list(task.columns.keys)).map_partitions(
        fit_rows, task=task, meta=empty_result, enforce_metadata=False
    )


def _run_on_spark(table: Any, task: TableTask) -> Any:
    """Describe the result of a Spark table: batches of whole problems, each a call of the function."""
    from pyspark.sql import functions

    names = task.columns.names
    picked = pick_in_spark(table, names)
    batch_count = int(table.sparkSession.conf.get("spark.sql.shuffle.partitions"))
    # Keys come first among the columns, which are called c0, c1, … here: applyInPandas knows no names with dots.
    key_columns = [f"c{i}" for i in range(len(task.columns.keys))]
    batch_number = functions.pmod(functions.hash(*key_columns), functions.lit(batch_count))
    key_fields = [table.schema[name] for name in task.columns.keys]
    # With a stated number of partitions Spark does not merge them: by their size, a few kilobytes, one would do, and
    # one core would then fit all problems.
    batches = picked.withColumn(BATCH_COLUMN, batch_number).repartition(batch_count, BATCH_COLUMN)
    # A function without type hints: Spark would look for its own kinds of functions among them.
    return batches.groupBy(BATCH_COLUMN).applyInPandas(
        lambda rows: fit_rows(rows.set_axis([*names, BATCH_COLUMN], axis=1), task),
        schema=build_spark_schema(task.schema, key_fields),
    )


def _run_on_ray(dataset: Any, task: TableTask) -> Any:
    """Describe the result of a Ray dataset: batches of whole problems, each a call of the function."""
    from ray.data import DataContext

    # By a number of ours and not by the keys: Ray sorts what it groups by, and keys may be missing or of mixed types.
    batch_count = DataContext.get_current().default_hash_shuffle_parallelism
    numbered = dataset.select_columns(task.columns.names).map_batches(
        partial(_number_batches, task=task, batch_count=batch_count), batch_format="pyarrow"
    )
    return numbered.groupby(BATCH_COLUMN, num_partitions=batch_count).map_groups(
        partial(fit_rows, task=task), batch_format="pyarrow"
    )


def _number_batches(rows: Any, task: TableTask, batch_count: int) -> Any:
    """Add the number of the batch that each row belongs to: rows of one problem share it."""
    import pyarrow as pa

    key_texts = [[format_label(value) for value in rows[name].to_pylist()] for name in task.columns.keys]
    numbers = [derive_seed(0, key) % batch_count for key in zip(*key_texts, strict=True)]
    return rows.append_column(BATCH_COLUMN, pa.array(numbers, type=pa.int64()))
