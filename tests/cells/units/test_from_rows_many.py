"""What is promised of `from_rows_many`: the tables of `from_rows`, for every engine, in one pass over the rows."""

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr
from cell_agreement import assert_agree
from table_engines import count_scans, in_postgres, in_spark, skip_without, table_in

from bayes_hte.cells import Histogram, Mean, Rate, Ratio, TwoPart, from_rows, from_rows_many
from bayes_hte.cells.reading import engines
from bayes_hte.cells.units import group_by
from bayes_hte.cells.units.scan import grouping_sets, unit_rows
from bayes_hte.errors import ArgumentError, DataError

type Columns = dict[str, list[Any]]

METRICS: dict[str, Any] = {
    "bought": "bought",
    "spent": "spent",
    "capped": Mean("spent", cap_quantile=(0.05, 0.95)),
    "capped alike": {"outcome": "spent", "cap_quantile": (0.05, 0.95)},
    "parts": TwoPart("visits", cap=5),
    "visits": {"outcome": "visits", "metric": "histogram"},
    "answers": Histogram("grade", levels=["bad", "fair", "good"]),
    "rate": Rate("visits", exposure="days"),
    "ratio": Ratio("spent", per="days", cuped=["before"]),
    "adjusted": Mean("spent", cuped=["before", "height"], cap=15),
}
BREAKDOWNS = {
    "device": ["device"],
    "age": ["age"],
    "both": ["age", "device"],
    "country": ["country"],
    "quarter": ["start", "country"],
}
ASKED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "plain": (list(METRICS), {}),
    "rare, folded, balanced": (
        ["spent", "visits", "ratio"],
        {"rare": 60, "fold_labels": True, "balance": ["height"], "unit": "village"},
    ),
    "weighted": (["bought", "ratio"], {"weights": "weight"}),
    "clusters": (["spent", "capped", "ratio"], {"cluster": "village"}),
    "weighted clusters": (["bought", "adjusted"], {"cluster": "village", "weights": "weight"}),
}


def visitors(units: int = 900, seed: int = 5) -> Columns:
    """Two arms, dimensions of text, numbers and dates, with gaps, and numbers of which some are missing."""
    draw = np.random.default_rng(seed)
    first_day = dt.datetime(2024, 1, 1)

    def gaps(values: list[Any], share: float) -> list[Any]:
        return [None if gone else value for value, gone in zip(values, draw.random(units) < share, strict=True)]

    return {
        "device": gaps(draw.choice(["mobile", "desktop; drop", "größe·"], units).tolist(), 0.1),
        "age": gaps(draw.choice([9, 10, 63], units).tolist(), 0.1),
        "country": [f"C{int(9 * share**2)}" for share in draw.random(units)],
        "start": [first_day + dt.timedelta(hours=int(hours)) for hours in draw.integers(0, 9000, units)],
        "arm": draw.choice(["old", "new"], units).tolist(),
        "spent": gaps(draw.lognormal(2, 1, units).tolist(), 0.05),
        "bought": (draw.random(units) < 0.3).tolist(),
        "visits": gaps(draw.poisson(2, units).tolist(), 0.03),
        "grade": gaps(draw.choice(["bad", "good"], units).tolist(), 0.02),
        "before": gaps(draw.normal(40, 9, units).tolist(), 0.05),
        "days": np.round(draw.exponential(3, units) + 0.1, 1).tolist(),
        "height": gaps(draw.normal(170, 10, units).tolist(), 0.02),
        "weight": draw.integers(1, 4, units).tolist(),
        "village": draw.integers(0, 90, units).tolist(),
    }


def ask(data: Any, metrics: Sequence[str], **changes: Any) -> dict[tuple[str, str], xr.Dataset]:
    keywords: dict[str, Any] = {"arm": "arm", "control": "old", "drop_missing": True, "bins": {"start": "quarter"}}
    chosen = {name: METRICS[name] for name in metrics}
    return from_rows_many(data, metrics=chosen, **({"breakdowns": BREAKDOWNS} | keywords | changes))


def ask_for_each(data: Any, metrics: Sequence[str], **changes: Any) -> dict[tuple[str, str], xr.Dataset]:
    """The same, a call of `from_rows` for each metric and breakdown."""
    keywords: dict[str, Any] = {"arm": "arm", "control": "old", "drop_missing": True} | changes
    tables = {}
    for metric_name in metrics:
        metric = METRICS[metric_name]
        short = {"outcome": metric} if isinstance(metric, str) else metric
        chosen = short if isinstance(short, dict) else {"metric": short}
        for breakdown, dims in BREAKDOWNS.items():
            bins = {"start": "quarter"} if "start" in dims else None
            tables[metric_name, breakdown] = from_rows(data, segments=dims, bins=bins, **chosen, **keywords)
    return tables


@pytest.fixture(scope="module")
def expected_tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[tuple[str, str], xr.Dataset]]:
    """What `from_rows` gives one by one, of Polars: the engines agree with each other, as test_engines holds."""
    table = table_in("polars", visitors(), tmp_path_factory.mktemp("rows"))
    return {name: ask_for_each(table, metrics, **changes) for name, (metrics, changes) in ASKED.items()}


# Clusters take a query for each breakdown: minutes in Dask.
@pytest.mark.parametrize(
    "asked",
    [pytest.param(name, marks=[pytest.mark.slow] if "cluster" in changes else [])
     for name, (_, changes) in ASKED.items()],
)  # fmt: skip
def test_every_engine_gives_the_tables_that_from_rows_gives_one_by_one(every_engine, asked, expected_tables):
    metrics, changes = ASKED[asked]
    tables = ask(every_engine(visitors()), metrics, **changes)
    assert list(tables) == list(expected_tables[asked])
    for pair, expected in expected_tables[asked].items():
        cells = tables[pair]
        # The variance of a ratio of cluster totals is a small difference of large sums of products, in any order.
        assert_agree(cells, expected, rtol=1e-9 if "cluster" in changes else 1e-12)
        assert {**cells.attrs, "source": ""} == {**expected.attrs, "source": ""}, pair
        assert {name: values.dtype for name, values in cells.variables.items()} == {
            name: values.dtype for name, values in expected.variables.items()
        }


KEYS = {"arm": "arm", "control": "old"}


def crossed(levels: int = 150, units: int = 30_000) -> Columns:
    """Dimensions of so many levels that crossing any two of them makes more groups than it saves."""
    draw = np.random.default_rng(3)
    return {
        **{f"d{i}": draw.integers(0, levels, units).tolist() for i in range(3)},
        "arm": draw.choice(["old", "new"], units).tolist(),
        "spent": draw.lognormal(2, 1, units).tolist(),
        "bought": (draw.random(units) < 0.3).tolist(),
    }


def test_breakdowns_that_do_not_cross_are_grouped_in_one_pass_over_a_file(tmp_path, monkeypatch):
    path = table_in("parquet", crossed(), tmp_path)
    plans: list[str] = []
    group = grouping_sets._group_in_duckdb

    def explain(*arguments: Any) -> Any:
        table = group(*arguments)
        plans.append(table.explain())
        return table

    monkeypatch.setattr(grouping_sets, "_group_in_duckdb", explain)
    asked: dict[str, Any] = {"metrics": {"spent": "spent", "bought": "bought"}, "breakdowns": ["d0", "d1", ["d2"]]}
    tables = from_rows_many(path, **asked, **KEYS)
    (plan,) = plans
    assert plan.count("Function: PARQUET_SCAN") == 1
    for (metric, dim), cells in tables.items():
        assert_agree(cells, from_rows(path, outcome=metric, segments=[dim], **KEYS))


@pytest.mark.parametrize("engine_name", ["polars", "polars-lazy", "pandas", "pyarrow", "dask", "ibis-duckdb"])
def test_breakdowns_that_do_not_cross_have_the_same_cells_in_every_engine(engine_name, tmp_path):
    skip_without(engine_name)
    columns = crossed(units=21_000)
    table = table_in(engine_name, columns, tmp_path)
    tables = from_rows_many(table, metrics={"spent": "spent"}, breakdowns=["d0", "d1"], **KEYS)
    polars_table = pl.DataFrame(columns)
    for (_, dim), cells in tables.items():
        assert_agree(cells, from_rows(polars_table, outcome="spent", segments=[dim], **KEYS))


def test_polars_reads_a_file_once_for_breakdowns_that_do_not_cross(tmp_path, monkeypatch):
    columns = crossed()
    collected: list[int] = []
    collect_all = pl.collect_all

    def count_frames(frames: list[pl.LazyFrame], **keywords: Any) -> list[pl.DataFrame]:
        collected.append(len(frames))
        return collect_all(frames, **keywords)

    monkeypatch.setattr(pl, "collect_all", count_frames)
    from_rows_many(pl.LazyFrame(columns), metrics={"spent": "spent"}, breakdowns=["d0", "d1", "d2"], **KEYS)
    assert collected == [3]


def test_breakdowns_of_few_levels_are_crossed_into_one_grouping(tmp_path):
    frame = engines.to_lazy_frame(table_in("polars", crossed(levels=5), tmp_path))
    one_each = [("arm", f"d{i}") for i in range(3)]
    (joint,) = grouping_sets.choose_base_sets(frame, [*one_each, ("arm", "d1", "d0")], aggregate_count=100)
    assert set(joint) == {"arm", "d0", "d1", "d2"}
    many = engines.to_lazy_frame(table_in("polars", crossed(), tmp_path))
    assert sorted(grouping_sets.choose_base_sets(many, one_each, aggregate_count=11)) == one_each


def test_breakdowns_within_others_need_no_look_at_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(grouping_sets, "fetch_rows_or_none", lambda frame: pytest.fail("rows were looked at"))
    frame = engines.to_lazy_frame(table_in("polars", crossed(), tmp_path))
    key_sets = [("arm", "d0"), ("arm", "d1", "d0"), ("arm", "d0", "d1"), ("arm", "d1")]
    assert [set(keys) for keys in grouping_sets.choose_base_sets(frame, key_sets, aggregate_count=11)] == [
        {"arm", "d0", "d1"}
    ]


def test_an_answer_that_was_cut_off_is_asked_for_by_breakdown(tmp_path, monkeypatch):
    monkeypatch.setattr(group_by, "MAX_GROUPS", 310)  # 300 cells by d0, 600 by d0 and d1
    columns = crossed(units=9000) | {"d1": [i % 2 for i in range(9000)]}
    asked: dict[str, Any] = {"metrics": {"spent": "spent"}, **KEYS}
    for name in ("polars", "duckdb"):
        table = table_in(name, columns, tmp_path)
        cells = from_rows_many(table, breakdowns=["d0", "d1"], **asked)["spent", "d1"]
        assert_agree(cells, from_rows(table, outcome="spent", segments=["d1"], **KEYS))
        with pytest.raises(DataError, match=r"^spent by d0 × d1: there are more than 310 cells"):
            from_rows_many(table, breakdowns=["d1", ["d0", "d1"]], **asked)


@pytest.mark.parametrize("engine_name", ["pandas", "polars", "duckdb", "dask"])
def test_means_far_from_0_lose_no_digits_when_groups_are_pooled(engine_name, tmp_path):
    skip_without(engine_name)
    draw = np.random.default_rng(8)
    columns = crossed(levels=20, units=4000) | {"spent": (1e9 + draw.normal(0, 1, 4000)).tolist()}
    tables = from_rows_many(
        table_in(engine_name, columns, tmp_path), metrics={"spent": "spent"}, breakdowns=["d0", ["d0", "d1"]], **KEYS
    )
    cells = tables["spent", "d0"]
    for level in ("0", "19"):
        values = [
            value
            for value, dim, arm in zip(columns["spent"], columns["d0"], columns["arm"], strict=True)
            if str(dim) == level and arm == "old"
        ]
        mean = math.fsum(values) / len(values)
        # float64 has steps of 1.2e-7 at 1e9: a sum of squares of deviations from 1 has that relative error at most.
        found = float(cells["ss"].sel(segment=level, arm="old"))
        assert found == pytest.approx(math.fsum((value - mean) ** 2 for value in values), rel=1e-7)


def test_postgres_reads_the_table_once_for_all_metrics_and_breakdowns(postgres):
    table = in_postgres(postgres, visitors(), "once")
    asked: dict[str, Any] = {"breakdowns": [["device", "age"], "device"], "drop_missing": True, **KEYS}
    before = count_scans(postgres, "once")
    from_rows_many(table, metrics={"bought": "bought", "days": Mean("days", cuped=["height"])}, **asked)
    assert count_scans(postgres, "once") - before == 1


def test_spark_carries_out_one_query_for_breakdowns_within_others_and_one_more_to_cross(spark):
    table = in_spark(spark, crossed())
    store = spark._jsparkSession.sharedState().statusStore()
    metrics = {"spent": "spent", "bought": "bought"}
    for breakdowns, queries in (([["d0", "d1"], "d0"], 1), (["d0", "d1", "d2"], 2)):
        before = store.executionsCount()
        tables = from_rows_many(table, metrics=metrics, breakdowns=breakdowns, **KEYS)
        assert store.executionsCount() - before == queries
    assert_agree(tables["spent", "d1"], from_rows(pl.DataFrame(crossed()), outcome="spent", segments=["d1"], **KEYS))


def test_what_is_missing_is_counted_once_for_all_metrics(monkeypatch, tmp_path):
    counted: list[str] = []
    count = unit_rows._count_faults
    monkeypatch.setattr(unit_rows, "_count_faults", lambda *args: [counted.append(args[1]), count(*args)][1])
    metrics = {name: METRICS[name] for name in ("spent", "ratio", "adjusted", "visits")}
    ask(table_in("polars", visitors(), tmp_path), list(metrics))
    assert len(counted) == 1


def test_an_error_begins_with_the_metric_and_the_breakdown(tmp_path):
    table = table_in("polars", visitors() | {"nothing": [0] * 900}, tmp_path)
    asked: dict[str, Any] = {"breakdowns": {"where": ["country"], "by age": ["age"]}, "drop_missing": True, **KEYS}
    with pytest.raises(DataError, match=r"^none by where: no events in any cell"):
        from_rows_many(table, metrics={"bought": "bought", "none": "nothing"}, **asked)
    with pytest.raises(ArgumentError, match=r"^age by by age: the column 'age' is used twice"):
        from_rows_many(table, metrics={"bought": "bought", "age": "age"}, **asked)
    with pytest.raises(ArgumentError, match=r"^parts: a TwoPart keeps what independent units did"):
        from_rows_many(table, metrics={"bought": "bought", "parts": TwoPart("visits")}, cluster="village", **asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {}}, "metrics is .*; give metrics by name"),
        ({"metrics": ["bought"]}, "metrics is .*; give metrics by name"),
        ({"metrics": {"bought": 3}}, "bought: it is 3; give a metric such as Mean"),
        ({"metrics": {"bought": Mean}}, "bought: metric is a class"),
        ({"metrics": {"bought": {"outcome": "bought", "metric": "median"}}}, "bought: no metric 'median'"),
        ({"breakdowns": []}, "breakdowns is empty"),
        ({"breakdowns": "device"}, "breakdowns is 'device'; give a list of lists"),
        ({"breakdowns": [[]]}, "segments is empty"),
        ({"breakdowns": [3]}, "segments is 3; give a list of columns"),
        ({"breakdowns": ["device", ["device"]]}, "breakdowns has 'device' twice"),
        ({"bins": {"height": 3}}, "bins are asked for 'height', which is not among the segments"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_way_out(changes, message, tmp_path):
    asked: dict[str, Any] = {"metrics": {"bought": "bought"}, "breakdowns": ["device"]} | KEYS | changes
    with pytest.raises(ArgumentError, match=message):
        from_rows_many(table_in("polars", visitors(), tmp_path), **asked)


def test_an_unknown_keyword_of_a_metric_is_named(tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword argument 'capped'"):
        from_rows_many(
            table_in("polars", visitors(), tmp_path),
            metrics={"spent": {"outcome": "spent", "capped": 3}},
            breakdowns=["device"],
            **KEYS,
        )
