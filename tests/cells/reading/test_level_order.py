"""Levels stand in the data's own order, through every table that is made of them; text sorts as people would."""

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from example_posterior import example_fit

from bayes_hte.cells import from_rows, from_summary, merge, protect, split
from bayes_hte.cells.reading.level_order import list_levels, merge_orders, sort_naturally

ORDER = ["65+", "unknown", "<18", "18-24"]
"""Nobody would guess it."""


def columns(order: list[str] = ORDER) -> dict[str, list[Any]]:
    """Make units of two plans and two arms for each level."""
    keys = [(level, plan, arm) for level in sorted(order) for plan in ("pro", "free") for arm in "ab"] * 3
    return {
        "seg": [key[0] for key in keys],
        "plan": [key[1] for key in keys],
        "arm": [key[2] for key in keys],
        "y": [i % 3 for i in range(len(keys))],
    }


def as_pandas(data: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame(data | {"seg": pd.Categorical(data["seg"], ORDER, ordered=True)})


def as_arrow(data: dict[str, list[Any]]) -> pa.Table:
    codes = pa.array([ORDER.index(level) for level in data["seg"]], pa.int8())
    return pa.table(data | {"seg": pa.DictionaryArray.from_arrays(codes, pa.array(ORDER), ordered=True)})


def as_duckdb(data: dict[str, list[Any]]) -> duckdb.DuckDBPyRelation:
    connection = duckdb.connect()
    connection.execute(f"create type ages as enum ({', '.join(map(repr, ORDER))})")
    connection.register("units", pa.table(data))
    return connection.sql("select * replace (seg::ages as seg) from units")


ENGINES = {
    "pandas": as_pandas,
    "polars": lambda data: pl.DataFrame(data, schema_overrides={"seg": pl.Enum(ORDER)}),
    "polars-lazy": lambda data: pl.LazyFrame(data, schema_overrides={"seg": pl.Enum(ORDER)}),
    "pyarrow": as_arrow,
    "duckdb": as_duckdb,
}
ASKED: dict[str, Any] = {"outcome": "y", "arm": "arm", "control": "b", "segments": ["plan", "seg"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_keeps_the_order_of_its_categories(engine: str) -> None:
    cells = from_rows(ENGINES[engine](columns()), **ASKED)
    assert list_levels(cells, "seg") == ORDER
    assert cells["segment"].values.tolist() == [f"{plan} · {level}" for plan in ("free", "pro") for level in ORDER]


def test_the_order_stays_through_split_merge_and_protect() -> None:
    cells = from_rows(as_pandas(columns()), **ASKED)
    parts = split(cells, "plan")
    assert all(part["segment"].values.tolist() == ORDER for part in parts.values())
    assert list(split(cells, "seg")) == ORDER
    assert merge(*parts.values())["segment"].values.tolist() == ORDER
    assert protect(cells, 2)["segment"].values.tolist() == cells["segment"].values.tolist()


def test_days_that_saw_different_levels_merge_in_the_common_order() -> None:
    data = pd.DataFrame(as_pandas(columns()))
    monday, tuesday = (from_rows(data[data["seg"].isin(seen)], **ASKED) for seen in (ORDER[::2], ORDER[1::2]))
    assert list_levels(merge(monday, tuesday), "seg") == ORDER
    assert merge_orders([["S", "L"], ["S", "M", "L", "XL"]]) == ["S", "M", "L", "XL"]


def test_suppressed_levels_are_not_left_in_the_order() -> None:
    data = pd.DataFrame(as_pandas(columns()))
    few = data[(data["seg"] != "unknown") | ~data.duplicated(["seg", "plan", "arm"])]
    cells = from_rows(few, **ASKED)
    assert "unknown" in cells.attrs["level_orders"]
    assert "unknown" not in protect(cells, 2).attrs["level_orders"]


def test_arms_keep_their_order_behind_the_control() -> None:
    data = pd.DataFrame(columns())
    data["arm"] = pd.Categorical(np.resize(["low", "mid", "high"], len(data)), ["low", "mid", "high"], ordered=True)
    cells = from_rows(data, **(ASKED | {"control": "mid"}))
    assert cells["arm"].values.tolist() == ["mid", "low", "high"]


def test_keys_in_the_index_are_taken_with_their_order() -> None:
    grouped = (
        as_pandas(columns())
        .groupby(["seg", "arm"], observed=True)
        .agg(n=("y", "count"), k=("y", lambda y: (y > 0).sum()))
    )
    cells = from_summary(grouped, arm="arm", control="a", segments=["seg"], n="n", events="k")
    assert cells["segment"].values.tolist() == ORDER


def test_levels_of_a_table_made_by_hand_stand_as_its_segments_do() -> None:
    fit = example_fit([("tv", "old"), ("tv", "new"), ("pc", "new"), ("app", "old")], dimensions=("device", "plan"))
    assert list_levels(fit.cells, "device") == ["tv", "pc", "app"]
    assert list_levels(fit.cells, "plan") == ["old", "new"]


@pytest.mark.parametrize(
    "ordered",
    [
        ["-10", "-2.5", "0", "1e1", "100"],
        ["< 18", "18 to < 65", "65 or more"],
        ["<18", "18-24", "25–34", "65+"],
        ["under 18", "18 to 24", "65 and over", "unknown"],
        ["(-10, -5]", "(-5, 0]", "(0, 5]", "(5, inf]"],
        ["-10--5", "-5-0", "0-5"],
        ["$0-$10", "$10-$50", ">$50"],
        ["<1h", "1h-5h", ">5h"],
        ["1.1", "1.9", "1.10", "1.10.1", "2.0-rc1"],
        ["v0.9", "v0.10"],
        ["0.10", "0.25", "0.5", "1"],
        ["week 9", "week 10"],
        ["-5 °C", "0 °C", "10 °C"],
        ["0.25 mg", "0.5 mg", "10 mg"],
        ["Mon", "Tue", "Wed", "Sun"],
        ["January", "Feb", "March", "December"],
        ["2025-12", "2026-01"],
        ["12345678901234567890", "12345678901234567891"],
        ["a", "b", "(other)", "(missing)"],
    ],
)
def test_text_sorts_as_people_would(ordered: list[str]) -> None:
    assert sort_naturally(reversed(ordered)) == ordered
