"""What is promised of every engine: the same numbers, in one pass inside it, whatever columns and levels are called."""

import datetime as dt
import math
import subprocess
import sys
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr
from cell_agreement import assert_agree
from hypothesis import given, settings
from hypothesis import strategies as st
from table_engines import count_scans, in_dask, in_postgres, in_spark, skip_without, table_in

from bayes_hte.cells import from_rows, from_summary, from_times
from bayes_hte.cells.reading import engines
from bayes_hte.cells.reading.engines import fetch_rows, open_table, pick_columns
from bayes_hte.cells.units import statistics
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

type Columns = dict[str, list[Any]]


def visitors(units: int = 1000, seed: int = 5) -> Columns:
    """Three arms, dimensions of text and of numbers, both with gaps, and an outcome that is sometimes missing."""
    draw = np.random.default_rng(seed)
    start = dt.datetime(2024, 1, 1)

    def gaps(values: list[Any], share: float) -> list[Any]:
        return [None if gone else value for value, gone in zip(values, draw.random(units) < share, strict=True)]

    return {
        "device": gaps(draw.choice(["mobile", "desktop; drop table rows", "tv", "größe·"], units).tolist(), 0.1),
        "age": gaps(draw.choice([9, 10, 63], units).tolist(), 0.1),
        "arm": draw.choice(["old", "new b", "new a"], units).tolist(),
        "spent": gaps(draw.lognormal(2, 1, units).tolist(), 0.05),
        "bought": (draw.random(units) < 0.3).tolist(),
        "visits": draw.poisson(2, units).tolist(),
        "before": gaps(draw.normal(40, 9, units).tolist(), 0.05),
        "weight": draw.integers(1, 4, units).tolist(),
        "village": draw.integers(0, 90, units).tolist(),
        "days": np.round(draw.exponential(3, units) + 0.1, 1).tolist(),
        "joined": [start + dt.timedelta(hours=int(hours)) for hours in draw.integers(0, 9000, units)],
    }


def read(data: Any, **changes: Any) -> xr.Dataset:
    keywords: dict[str, Any] = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["device"]}
    return from_rows(data, **(keywords | changes))


def small(**changes: Any) -> Columns:
    """Eight users, two devices, two arms."""
    columns = {
        "device": ["mobile"] * 4 + ["tv"] * 4,
        "arm": ["old", "old", "new", "new"] * 2,
        "spent": [1.0, 3.0, 4.0, 8.0, 0.0, 2.0, 1.0, 5.0],
    }
    return columns | changes


def test_every_engine_agrees_with_exact_sums(every_engine):
    columns = visitors()
    cells = read(every_engine(columns), segments=["device", "age"], drop_missing=True)
    groups = defaultdict(list)
    for device, age, arm, spent in zip(*(columns[name] for name in ("device", "age", "arm", "spent")), strict=True):
        if spent is not None:
            groups[device or "(missing)", "(missing)" if age is None else str(age), arm].append(spent)
    assert int((cells.n > 0).sum()) == len(groups) == 5 * 4 * 3
    for (device, age, arm), values in groups.items():
        (place,) = np.flatnonzero((cells.device == device) & (cells.age == age))
        cell = cells.isel(segment=place).sel(arm=arm)
        mean = math.fsum(values) / len(values)
        assert int(cell.n) == len(values)
        assert float(cell["mean"]) == pytest.approx(mean, rel=1e-12)
        assert float(cell.ss) == pytest.approx(math.fsum((value - mean) ** 2 for value in values), rel=1e-12)
    gone = sum(value is None for value in columns["spent"])
    assert cell_table.list_notes(cells)[0] == f"{gone} of 1,000 outcomes in 'spent' are missing; dropped"


ASKED: dict[str, dict[str, Any]] = {
    "yes or no": {"outcome": "bought"},
    "histogram": {"outcome": "visits", "metric": "histogram"},
    "two parts": {"outcome": "visits", "metric": "two_part"},
    "rates": {"outcome": "visits", "exposure": "days"},
    "capped, adjusted, weighted": {"cap_quantile": 0.95, "cuped": ["before"], "weights": "weight"},
    "ratio of clusters": {"denominator": "weight", "cluster": "village", "balance": ["before"]},
    "bins of numbers": {"segments": ["before"], "bins": {"before": 4}, "rare": 50, "unit": "village"},
    "bins of dates": {"segments": ["joined"], "bins": {"joined": "quarter"}},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_every_engine_agrees_on_every_way_to_reduce_rows(every_engine, asked, tmp_path):
    columns = visitors()
    asked = {"segments": ["device", "age"], "drop_missing": True} | asked
    assert_agree(read(every_engine(columns), **asked), read(table_in("polars", columns, tmp_path), **asked))


def test_every_engine_agrees_on_survival(every_engine, tmp_path):
    asked: dict[str, Any] = {"time": "days", "event": "bought", "arm": "arm", "control": "old", "segments": ["device"]}
    columns = visitors()
    cells = from_times(every_engine(columns), **asked)
    expected = from_times(table_in("polars", columns, tmp_path), **asked)
    assert_agree(cells, expected)
    assert cells["end"].values.tolist() == expected["end"].values.tolist()


def test_a_mean_of_1e9_keeps_the_spread_to_6_digits(every_engine):
    spent = 1e9 + np.random.default_rng(3).normal(size=2000)
    cells = read(every_engine(small(device=["a", "b"] * 1000, arm=["old"] * 1000 + ["new"] * 1000, spent=[*spent])))
    for arm, rows in (("old", slice(0, 1000, 2)), ("new", slice(1000, 2000, 2))):
        cell = cells.sel(segment="a", arm=arm)
        assert float(cell.ss) == pytest.approx(float(((spent[rows] - spent[rows].mean()) ** 2).sum()), rel=1e-6)
        assert float(cell["mean"]) == pytest.approx(float(spent[rows].mean()), rel=1e-14)


HOSTILE = [
    'a"b', "a'b", "x; drop table rows; --", "two words", "größe·", "x" * 60, "a.b", "*", "^a$", "C0", "{x}", "%s",
    "a`b", "Device", "device", "\\", "$1", "e\u0301", "select", "a\tb",
]  # fmt: skip


def test_hostile_names_of_columns_and_levels_are_only_names(every_engine, request):
    name = request.node.callspec.params["every_engine"]
    # Only Spark and pandas, Dask, Polars keep names apart that differ in case; DuckDB and PostgreSQL know quotes.
    hostile = [each for each in HOSTILE if each != "Device" or name not in {"duckdb", "csv", "parquet", "ibis-duckdb"}]
    levels = [level for level in (*hostile, "x" * 10_000, "''", "NULL", "\u202e") if level != "a\tb" or name != "csv"]
    columns: Columns = {each: [level for level in levels for _ in range(4)] for each in hostile}
    columns |= {"'); --": ["old", "old", "new", "new"] * len(levels), '"': [1, 3, 4, 8] * len(levels)}
    columns |= {"C2": [0] * (4 * len(levels))}  # to DuckDB and Spark the same as c2
    cells = read(every_engine(columns), outcome='"', arm="'); --", segments=hostile)
    assert cell_table.list_dimensions(cells) == hostile
    for each in hostile:
        assert Counter(cells[each].values.tolist()) == Counter(levels)
    assert cells["mean"].values.tolist() == [[2, 6]] * len(levels)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([True, False], ["false", "true"]),
        ([dt.date(2024, 1, 10), dt.date(2024, 1, 9)], ["2024-01-09", "2024-01-10"]),
        ([dt.datetime(2024, 1, 1, 15), dt.datetime(2024, 1, 2, 3, 4)], ["2024-01-01 15:00:00", "2024-01-02 03:04:00"]),
        ([Decimal("1.50"), Decimal("2.00")], ["1.5", "2"]),
        ([2**60, 2**60 + 1], [str(2**60), str(2**60 + 1)]),
        ([0.1, 1e-7], ["1e-07", "0.1"]),
        (["", "NULL"], ["NULL", "(empty)"]),
    ],
)
def test_levels_of_every_type_read_the_same(every_engine, request, levels, expected):
    if levels[0] == "" and request.node.callspec.params["every_engine"] == "csv":
        pytest.skip("an empty text in a text file is a missing one")
    skip_decimals_in_dask(request, levels[0])
    if isinstance(levels[0], Decimal) and request.node.callspec.params["every_engine"] == "csv":
        expected = list(map(str, levels))  # as they are written: 1.50 may be another version than 1.5
    cells = read(every_engine(small(device=[levels[0]] * 4 + [levels[1]] * 4)))
    assert cells.device.values.tolist() == expected
    assert sorted(cells["mean"].values.tolist()) == [[1, 3], [2, 6]]


def skip_decimals_in_dask(request: pytest.FixtureRequest, value: Any) -> None:
    """Dask makes text of all that pandas holds as objects, before anyone else sees it."""
    if isinstance(value, Decimal) and request.node.callspec.params["every_engine"] == "dask":
        pytest.skip("Dask itself turns decimals into text")


@pytest.mark.parametrize("kind", ["yes or no", "decimal", "whole"])
def test_outcomes_of_every_type_are_numbers(every_engine, request, kind):
    values = {"yes or no": [True, False] * 4, "decimal": [Decimal("1.5"), Decimal("2.5")] * 4, "whole": [1, 2] * 4}[
        kind
    ]
    skip_decimals_in_dask(request, values[0])
    cells = read(every_engine(small(spent=values)))
    assert cells["mean"].values.tolist() == [[float(values[0] + values[1]) / 2] * 2] * 2
    assert ("events" in cells) == (kind == "yes or no")


def test_missing_levels_form_a_level_of_their_own(every_engine):
    cells = read(every_engine(small(device=["mobile"] * 4 + [None] * 4)))
    assert cells.device.values.tolist() == ["mobile", cell_table.MISSING_LEVEL]
    assert cell_table.list_notes(cells) == ["4 units have no value for device; they form the level (missing)"]


def test_what_is_no_number_is_missing_or_infinite(every_engine):
    cells = read(every_engine(small(spent=[math.inf, 3.0, 4.0, 8.0, -math.inf, 2.0, 1.0, math.nan])), drop_missing=True)
    assert cells.n.values.tolist() == [[1, 2], [1, 1]]
    (note,) = cell_table.list_notes(cells)  # text files tell how the missing one is written
    assert note.replace(" (written 'nan')", "") == "1 of 8 outcomes in 'spent' are missing and 2 infinite; dropped"


BAD = {
    "a missing column": (small(), {"outcome": "spend"}, "lacks the column 'spend'; did you mean 'spent'"),
    "no rows": ({"device": [], "arm": [], "spent": []}, {}, "has no rows; check it, or the filter that made it"),
    "an outcome of text": (
        small(spent=[*"abcdefgh"]),
        {},
        "'spent'.* (has dtype String, and a mean needs|must hold) numbers",
    ),
    "one arm": (small(arm=["old"] * 8), {}, "all units are in one arm, 'old'"),
    "an outcome that does not vary": (small(spent=[3.5] * 8), {}, "'spent' is 3.5 for every unit"),
    "an id": (small(device=[*range(8)]), {}, "'device' has 8 levels for 8 units; did you mean an id"),
    "missing arms": (small(arm=["old", None, "new", None] * 2), {}, "4 rows have no arm in 'arm'; clean them or pass"),
    "missing outcomes": (small(spent=[None, *range(7)]), {}, "1 of 8 outcomes in 'spent' is missing; clean them or"),
}


@pytest.mark.parametrize(("columns", "changes", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_named_alike(every_engine, columns, changes, message):
    with pytest.raises(DataError, match=message):
        read(every_engine(columns), **changes)


def test_a_summary_is_read_alike(every_engine):
    columns = {"device": ["tv", "tv", None, None], "arm": ["old", "new"] * 2, "n": [9, 8, 7, 6], "events": [1, 2, 3, 0]}
    cells = from_summary(every_engine(columns), arm="arm", control="old", segments=["device"], n="n", events="events")
    assert cells.device.values.tolist() == ["tv", "(missing)"]
    assert cells.events.values.tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize("engine", ["polars", "duckdb", "parquet", "ibis-duckdb", "ibis-postgres", "spark"])
def test_a_dimension_of_lists_is_refused(engine, request, tmp_path):
    if engine == "spark":
        table = in_spark(request.getfixturevalue("spark"), small(device=[["a"]] * 4 + [["b"]] * 4))
    elif engine == "ibis-postgres":
        table = in_postgres(request.getfixturevalue("postgres"), small())
        table = table.mutate(device=table.device.split("o"))
    else:
        skip_without(engine)
        table = table_in(engine, small(device=[["a"]] * 4 + [["b"]] * 4), tmp_path)
    with pytest.raises(DataError, match="cannot all be grouped by"):
        read(table)


def test_the_engine_is_asked_once_and_answers_with_one_row_per_cell(every_engine, monkeypatch):
    answers: list[int] = []

    def counted(frame: Any, name: str) -> list[tuple[Any, ...]]:
        rows = fetch_rows(frame, name)
        answers.append(len(rows))
        return rows

    for module in (statistics, engines):
        monkeypatch.setattr(module, "fetch_rows", counted)
    part = statistics._query_partition
    monkeypatch.setattr(statistics, "_query_partition", lambda *args, **kw: [answers.append(0), part(*args, **kw)][1])
    cells = read(every_engine(visitors(600) | {"spent": [*range(600)]}))
    assert int((cells.n > 0).sum()) == 15
    assert answers in ([15], [0, 0, 0])  # of Dask three partitions, one of them empty


def test_postgres_reads_the_table_once_and_sends_cells(postgres):
    table = in_postgres(postgres, visitors() | {"spent": [*range(1000)]}, "once")
    before = count_scans(postgres, "once")
    read(table, segments=["device", "age"])
    assert count_scans(postgres, "once") - before == 1


def test_postgres_keeps_types_that_arrow_lacks(postgres):
    in_postgres(postgres, small(device=[f"{i // 4:032x}" for i in range(8)]), "typed")
    with postgres.con.transaction(), postgres.con.cursor() as cursor:
        cursor.execute("alter table typed alter device type uuid using device::uuid")
    cells = read(postgres.table("typed"))
    assert cells.device.values.tolist() == [f"00000000-0000-0000-0000-{i:012x}" for i in range(2)]


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # Ibis sets it
def test_a_table_that_ibis_brings_along_can_be_joined(postgres):
    import ibis

    names = ibis.memtable({"device": ["mobile", "tv"], "kind": ["small", "large"]})
    table = in_postgres(postgres, small(), "joined").join(names, "device")
    assert read(table, segments=["kind"])["mean"].values.tolist() == [[1, 3], [2, 6]]


def test_spark_carries_out_one_query_and_collects_cells(spark):
    table = in_spark(spark, visitors() | {"spent": [*range(1000)]})
    store = spark._jsparkSession.sharedState().statusStore()
    before = store.executionsCount()
    read(table, segments=["device", "age"])
    assert store.executionsCount() - before == 1


def test_names_that_differ_in_case_only_are_two_columns_in_spark(spark):
    table = in_spark(spark, small(Spent=[0.0] * 8, DEVICE=["x"] * 8))
    assert read(table)["mean"].values.tolist() == [[2, 6], [1, 3]]


def test_names_that_repeat_in_dask_are_refused():
    skip_without("dask")
    table = in_dask(pa.table(small()))
    table.columns = ["device", "arm", "arm"]
    with pytest.raises(DataError, match=r"column names repeat in the dask\.DataFrame; rename them: 'arm'"):
        read(table)


def test_names_that_repeat_in_spark_are_refused(spark):
    with pytest.raises(DataError, match=r"column names repeat in the pyspark\.DataFrame; rename them: 'arm'"):
        read(in_spark(spark, small()).toDF("device", "arm", "arm"))


def queries(request: pytest.FixtureRequest, kind: str) -> Any:
    """Something that carries out queries, with a table called units."""
    if kind == "duckdb":
        connection = duckdb.connect(":memory:")
        connection.register("units", pd.DataFrame(small()))
        return connection
    if kind == "spark":
        session = request.getfixturevalue("spark")
        in_spark(session, small()).createOrReplaceTempView("units")
        return session
    backend = request.getfixturevalue("postgres")
    in_postgres(backend, small(), "units")
    return backend


@pytest.mark.parametrize("kind", ["duckdb", "ibis-postgres", "spark"])
def test_a_query_is_carried_out_by_its_connection(request, kind):
    connection = queries(request, kind)
    query = "select device, arm, spent * 2 as spent from units where spent > 0"
    cells = read(query, connection=connection)
    assert cells["mean"].values.tolist() == [[4, 12], [4, 6]]
    assert cells.attrs["source"].startswith("7 rows of query on ")


@pytest.mark.parametrize("kind", ["duckdb", "ibis-postgres", "spark"])
def test_what_an_engine_refuses_is_said_in_one_line(request, kind):
    connection = queries(request, kind)
    for query in ("select nothing from units", "select device, arm, 1 / (spent * 0) as spent from nowhere", "units;;("):
        with pytest.raises(DataError, match=r"cannot read query on .*; repair or convert it and try again") as caught:
            read(query, connection=connection)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ibis-postgres", "spark"])
def test_what_an_engine_refuses_only_when_it_is_asked_is_said_too(request, kind):
    connection = queries(request, kind)
    query = "select device, arm, 1 / cast(spent as int) as spent from units"
    with pytest.raises(DataError, match=r"cannot read query on .*division by zero|DIVIDE_BY_ZERO"):
        read(query, connection=connection)
    assert read("select * from units", connection=connection)["mean"].values.tolist() == [[2, 6], [1, 3]]


def test_a_connection_needs_a_query_and_a_query_a_connection():
    with pytest.raises(ArgumentError, match=r"data is a pandas\.DataFrame; give the query as text, or leave"):
        read(pd.DataFrame(small()), connection=duckdb.connect(":memory:"))
    with pytest.raises(ArgumentError, match=r"connection is a builtins\.object, which takes no query here; give a"):
        read("select 1", connection=object())
    with pytest.raises(DataError, match=r"known endings are .*; a query needs connection="):
        read("select * from units")


def test_survival_takes_a_query_too():
    connection = duckdb.connect(":memory:")
    connection.register("units", pd.DataFrame(visitors()))
    asked: dict[str, Any] = {"time": "days", "event": "bought", "arm": "arm", "control": "old", "segments": ["device"]}
    cells = from_times("select * from units", connection=connection, **asked)
    assert int(cells.n.sum()) == 1000


def test_a_file_that_is_gone_when_polars_reads_it_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    pl.DataFrame(small()).write_parquet(path)
    lazy = pl.scan_parquet(path).filter(pl.col("spent").str.len_chars() > 0)
    with pytest.raises(DataError, match=r"cannot read polars\.LazyFrame"):
        read(lazy)


def test_dask_pools_more_partitions_than_fit_one_level_of_the_tree(tmp_path):
    skip_without("dask")
    columns = visitors(2000)
    many = in_dask(table_in("pyarrow", columns, tmp_path), parts=20)
    asked: dict[str, Any] = {
        "segments": ["device", "age"],
        "drop_missing": True,
        "cuped": "before",
        "cluster": "village",
    }
    for changes in ({}, asked):
        keywords = {"drop_missing": True} | changes
        assert_agree(read(many, **keywords), read(table_in("polars", columns, tmp_path), **keywords))


@pytest.mark.parametrize("limit", [1, 3])
def test_dask_answers_with_no_more_groups_than_are_looked_at(limit, tmp_path):
    skip_without("dask")
    table = in_dask(table_in("pyarrow", visitors(), tmp_path), parts=20)
    with open_table(table, label_columns=["device", "arm"]) as source:
        query = statistics.StatisticsQuery(moment_columns=["c2"])
        answer = statistics.query_statistics(
            pick_columns(source, ["device", "arm", "spent"]), ["c0", "c1"], query, table_name="it", group_limit=limit
        )
    assert len(answer.row_counts) == len(answer.key_columns[0]) == len(answer.column_moments["c2"].ss) == limit + 1


@settings(max_examples=25)
@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_quantiles_of_dask_are_exact(values, probabilities):
    skip_without("dask")
    table = in_dask(pa.table({"x": pa.array(values, pa.float64())}), parts=4)
    with open_table(table, label_columns=[]) as source:
        found = statistics.query_quantiles(pick_columns(source, ["x"]), "c0", probabilities, table_name="it")
    there = [value for value in values if value is not None]
    expected = np.quantile(there, probabilities) if there else [math.nan] * len(probabilities)
    # Between two values a quantile is known to the rounding of the larger.
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15 * max(map(abs, there), default=0.0))


def test_engines_that_are_not_in_use_are_not_imported():
    code = (  # xarray imports Dask where it can
        "import sys, pandas as pd; from bayes_hte.cells import from_rows;"
        "rows = pd.DataFrame({'s': ['a'] * 4, 'a': [0, 0, 1, 1], 'y': [1.0, 2.0, 3.0, 5.0]});"
        "from_rows(rows, outcome='y', arm='a', control='0', segments=['s']);"
        "print([name for name in ('ibis', 'polars', 'psycopg', 'pyspark') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
