"""The same numbers on every engine, to the last bit, computed where the cells are and when they are asked for."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from cell_tables import KEYS, long_table, records
from table_engines import skip_without

import bayes_hte as hte
from bayes_hte.analysis.batches import frame_engines
from bayes_hte.errors import ArgumentError

OLD_PANDAS = "ignore:PySpark does not yet fully support pandas:FutureWarning"
"""Of PySpark 4.3, wherever it meets pandas 3."""


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    """The result of pandas, which test_fit_rows.py holds to `hte.fit`."""
    return records(hte.fit_table(long_table(), "conversion", keys=KEYS))


def fit(table: Any, **changes: Any) -> Any:
    return hte.fit_table(table, "conversion", keys=KEYS, **changes)


def test_polars_and_arrow_give_the_numbers_of_pandas(expected: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pandas(long_table(), preserve_index=False)
    arrow, polars = fit(table), fit(pl.from_arrow(table))
    assert (type(arrow), type(polars)) == (pa.Table, pl.DataFrame)
    assert records(arrow.to_pandas()) == expected
    assert records(polars.to_pandas()) == expected


def test_columns_keep_the_types_of_the_keys_and_have_their_own() -> None:
    table = long_table().query("experiment == 2").assign(metric=pd.Categorical(["bought"] * 6))
    result = fit(table)
    assert result.dtypes[KEYS].equals(table.dtypes[KEYS])
    assert result.dtypes[["row", "n_control", "effect", "reliable"]].map(str).tolist() == [
        "str", "Int64", "float64", "boolean",
    ]  # fmt: skip


@pytest.mark.parametrize("empty", [long_table()[:0], pl.from_pandas(long_table())[:0]], ids=["pandas", "polars"])
def test_a_table_without_rows_gives_one_without_rows_and_all_columns(empty: Any) -> None:
    result = fit(empty)
    assert len(result) == 0
    assert [*result.columns[:5], result.columns[-1]] == [*KEYS, "row", "segment", "arm", "schema_version"]


def test_keys_that_groupby_left_in_the_index_are_found(expected: list[dict[str, Any]]) -> None:
    table = long_table().set_index([*KEYS, "segment", "arm"])
    assert records(fit(table)) == expected


def test_a_lazy_table_of_polars_stays_lazy_and_filters_the_result_not_the_cells(
    expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    monkeypatch.setattr(frame_engines, "fit_rows", _count_rows(fitted))
    result = fit(pl.from_pandas(long_table()).lazy())
    assert isinstance(result, pl.LazyFrame)
    assert result.collect_schema().names()[:5] == [*KEYS, "row", "segment", "arm"]
    assert fitted == []
    treated = result.filter(pl.col("arm") == "new").collect()
    assert records(treated.to_pandas()) == [row for row in expected if row["arm"] == "new"]


@pytest.mark.parametrize("parts", [1, 4])
def test_dask_gives_the_numbers_of_pandas_however_the_rows_are_partitioned(
    expected: list[dict[str, Any]], parts: int
) -> None:
    skip_without("dask")
    import dask.dataframe

    result = fit(dask.dataframe.from_pandas(long_table(), npartitions=parts))
    assert type(result).__module__.startswith("dask")
    computed = result.compute(scheduler="threads")
    assert records(computed) == expected
    # The types that Dask was told are those that it gets.
    assert result.dtypes.equals(computed.dtypes)


def test_dask_fits_nothing_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without("dask")
    import dask.dataframe

    fitted: list[int] = []
    monkeypatch.setattr(frame_engines, "fit_rows", _count_rows(fitted))
    fit(dask.dataframe.from_pandas(long_table(), npartitions=4))
    assert fitted == [0]  # an empty table, whose result has the types of all


def _count_rows(counts: list[int]) -> Any:
    fit_rows = frame_engines.fit_rows

    def count_and_fit(table: Any, task: Any) -> Any:
        counts.append(len(table))
        return fit_rows(table, task)

    return count_and_fit


def _tell_modules() -> Any:
    """A function that fits, and says in the column ``problems`` whether its process has loaded PyMC."""
    fit_rows = frame_engines.fit_rows

    def fit_and_tell(table: Any, task: Any) -> Any:
        result = fit_rows(table, task)
        told = ",".join(name for name in ("pymc", "pytensor", "nutpie") if name in sys.modules) or "none"
        if hasattr(result, "set_column"):
            place = result.column_names.index("problems")
            return result.set_column(place, "problems", type(result).from_pydict({"x": [told] * len(result)})["x"])
        return result.assign(problems=told)

    return fit_and_tell


@pytest.mark.slow
@pytest.mark.filterwarnings(OLD_PANDAS)
def test_spark_gives_the_numbers_of_pandas(spark: Any, expected: list[dict[str, Any]]) -> None:
    table = spark.createDataFrame(pa.Table.from_pandas(long_table(), preserve_index=False))
    result = fit(table)
    assert [field.dataType.simpleString() for field in result.schema.fields[:6]] == [
        "bigint", "string", "string", "string", "string", "bigint",
    ]  # fmt: skip
    # Through Arrow: pandas would make floats of whole numbers with gaps.
    assert records(result.toArrow().to_pandas(types_mapper=pd.ArrowDtype)) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings(OLD_PANDAS)
def test_workers_of_spark_load_no_pymc_and_take_missing_keys(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_engines, "fit_rows", _tell_modules())
    columns = long_table().query("experiment == 2")
    rows = pa.Table.from_pandas(pd.concat([columns, columns.assign(experiment=None)]), preserve_index=False)
    # A dot, which to Spark means a part of a column.
    rows = rows.rename_columns(["exp.no" if name == "experiment" else name for name in rows.column_names])
    rows = rows.set_column(0, "exp.no", rows["exp.no"].cast(pa.int64()))
    result = hte.fit_table(spark.createDataFrame(rows), "conversion", keys=["exp.no", "metric"]).toArrow()
    assert set(result["problems"].to_pylist()) == {"none"}
    assert sorted(map(str, result["exp.no"].to_pylist())) == ["2"] * 4 + ["None"] * 4
    # Missing or not, a key has a seed of its own.
    assert len(set(result["seed"].to_pylist())) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["pandas", "arrow"])
def test_ray_gives_the_numbers_of_pandas(ray_data: Any, expected: list[dict[str, Any]], form: str) -> None:
    table = long_table()
    if form == "pandas":
        dataset = ray_data.from_pandas(table)
    else:
        dataset = ray_data.from_arrow(pa.Table.from_pandas(table, preserve_index=False)).repartition(3)
    result = fit(dataset)
    assert isinstance(result, ray_data.Dataset)
    arrow = pa.concat_tables(
        [block for reference in result.to_arrow_refs() for block in [_get_from_ray(reference)]],
        promote_options="permissive",
    )
    assert records(arrow.to_pandas(types_mapper=pd.ArrowDtype)) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_of_ray_load_no_pymc(ray_data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_engines, "fit_rows", _tell_modules())
    result = fit(ray_data.from_pandas(long_table().query("experiment == 2"))).to_pandas()
    assert set(result["problems"]) == {"none"}


def _get_from_ray(reference: Any) -> Any:
    import ray

    return ray.get(reference)


@pytest.mark.parametrize("table", [3, "cells.csv", np.zeros(3), pd.Series([1])])
def test_what_is_no_table_of_these_engines_is_refused_with_a_list_of_them(table: Any) -> None:
    with pytest.raises(ArgumentError, match="give a pandas, Polars or PyArrow table, or one of Spark, Dask or Ray"):
        fit(table)


def test_a_table_on_which_nothing_can_be_computed_in_python_is_refused() -> None:
    import duckdb

    relation = duckdb.sql("select 1 as users")
    with pytest.raises(ArgumentError, match="on which nothing can be fitted"):
        fit(relation)
