"""Answers on a scale, in words: their order is the data's own or stated, and all of them are kept."""

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.cells import Histogram, from_levels, from_rows, merge, protect, split
from bayes_hte.cells.from_plan import from_plan, tabulate_cells
from bayes_hte.cells.reading.answers import parse_levels
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

SCALE = ["disagree", "neutral", "agree", "strongly"]
# By the alphabet "agree" would come first; nobody says "neutral".
ROWS = {
    "device": ["tv", "tv", "web", "web"] * 3,
    "site": ["a", "b"] * 6,
    "arm": ["old"] * 6 + ["new"] * 6,
    "answer": ["disagree", "agree", "agree", "disagree"] * 2 + ["strongly", "agree", "strongly", "disagree"],
}
TEXT = pd.DataFrame(ROWS)
ORDERED = TEXT.astype({"answer": pd.CategoricalDtype(SCALE, ordered=True)})


def read(table: Any, **changes: Any) -> xr.Dataset:
    options = {"outcome": "answer", "arm": "arm", "control": "old", "segments": ["device"], "metric": "histogram"}
    return from_rows(table, **(options | changes))


def long_table(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby(["device", "arm", "answer"], observed=True).size().reset_index(name="users")


def read_long(table: Any, **changes: Any) -> xr.Dataset:
    keywords = {"arm": "arm", "control": "old", "segments": ["device"], "value": "answer", "count": "users"}
    return from_levels(table, **(keywords | changes))


def in_duckdb() -> Any:
    connection = duckdb.connect()
    connection.register("answers", TEXT)
    return connection.sql(
        "SELECT * REPLACE (answer::ENUM('disagree', 'neutral', 'agree', 'strongly') AS answer) FROM answers"
    )


ORDERED_TABLES = {
    "pandas": lambda: ORDERED,
    "polars": lambda: pl.DataFrame(ROWS).with_columns(pl.col("answer").cast(pl.Enum(SCALE))),
    "polars lazy": lambda: pl.LazyFrame(ROWS).with_columns(pl.col("answer").cast(pl.Enum(SCALE))),
    "arrow": lambda: pa.Table.from_pandas(ORDERED),
    "duckdb": in_duckdb,
}


@pytest.mark.parametrize("make_table", ORDERED_TABLES.values(), ids=ORDERED_TABLES)
def test_ordered_categories_give_the_order_and_keep_what_nobody_chose(make_table):
    cells = read(make_table())
    assert cells["value"].values.tolist() == [1, 2, 3, 4]
    assert cells["value_label"].values.tolist() == SCALE
    assert cells["histogram"].sel(segment="tv").values.tolist() == [[2, 0, 2, 0], [0, 0, 1, 1]]
    notes = cell_table.list_notes(cells)
    assert "answers in words are numbered in their order: 1 = disagree, 2 = neutral, 3 = agree, 4 = strongly" in notes
    assert "nobody gave the answer 'neutral', which stays on the scale" in notes


def test_text_with_stated_levels_is_the_same_in_every_engine(every_engine):
    xr.testing.assert_identical(read(every_engine(ROWS), levels=SCALE).drop_attrs(), read(ORDERED).drop_attrs())
    with pytest.raises(DataError, match="'answer' holds answers that are not among its levels: 'strongly'; the levels"):
        read(every_engine(ROWS), levels=SCALE[:3])


def test_a_long_table_of_words_is_that_of_its_rows(engine):
    stated = read_long(engine(long_table(TEXT).to_dict("list")), levels=SCALE, outcome="answer")
    xr.testing.assert_identical(stated.drop_attrs(), read(ORDERED).drop_attrs())
    xr.testing.assert_identical(read_long(long_table(ORDERED)).drop_attrs(), stated.drop_attrs())


@pytest.mark.parametrize("read_table", [read, lambda table: read_long(long_table(table))])
def test_words_without_an_order_are_refused_with_the_way_to_give_it(read_table):
    for table in (TEXT, TEXT.astype({"answer": "category"})):
        with pytest.raises(DataError, match=r'levels=\["low", "middle", "high"\]'):
            read_table(table)


def test_words_of_a_text_file_are_refused_with_the_way_to_give_their_order(tmp_path):
    TEXT.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="for answers in words state their order"):
        read(tmp_path / "rows.csv")
    with pytest.raises(DataError) as refusal:  # of a mean no order makes a number
        read(tmp_path / "rows.csv", metric="mean")
    assert "state their order" not in str(refusal.value)


def test_missing_answers_are_missing_and_no_level():
    gaps = ORDERED.assign(answer=ORDERED["answer"].where(ORDERED.index != 0))
    with pytest.raises(DataError, match="1 of 12 outcomes in 'answer' is missing"):
        read(gaps)
    assert read(gaps, drop_missing=True)["n"].sum() == 11
    stated = read(gaps.astype({"answer": object}), levels=SCALE, drop_missing=True)
    xr.testing.assert_identical(stated.drop_attrs(), read(gaps, drop_missing=True).drop_attrs())


def test_numbers_with_stated_levels_keep_the_stars_that_nobody_gave():
    stars = TEXT.assign(answer=ORDERED["answer"].cat.codes + 1)
    cells = read(stars, levels=[1, 2, 3, 4, 5])
    assert cells["value"].values.tolist() == [1, 2, 3, 4, 5]
    assert "value_label" not in cells.coords
    assert cells["histogram"].sum(["segment", "arm"]).values.tolist() == [5, 0, 5, 2, 0]
    as_categories = stars.astype({"answer": pd.CategoricalDtype([1, 2, 3, 4, 5], ordered=True)})
    xr.testing.assert_identical(read(as_categories), cells)
    with pytest.raises(DataError, match="not among its levels: '4'"):
        read(stars, levels=[1, 2, 3])


def test_words_stay_through_split_merge_protect_and_a_table():
    cells = read(ORDERED, segments=["device", "site"])
    for changed in (*split(cells, "site").values(), merge(cells, cells), protect(cells, 2, "merge")):
        assert changed["value_label"].values.tolist() == SCALE
    total = merge(*split(cells, "site").values())
    assert (total["histogram"] == read(ORDERED)["histogram"]).all()
    assert set(tabulate_cells(cells)["value"]) == {"disagree", "agree", "strongly"}
    backwards = read(TEXT, levels=SCALE[::-1])
    with pytest.raises(DataError, match="tables with different answers cannot be merged: 'disagree', 'neutral'"):
        merge(read(ORDERED), backwards)
    assert cell_table.hash_cell_table(backwards) != cell_table.hash_cell_table(read(ORDERED))


def test_a_fit_shows_words_and_survives_its_file(tmp_path):
    draw = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "device": ["tv", "web"] * 150,
            "arm": ["old"] * 150 + ["new"] * 150,
            "answer": [
                *draw.choice(SCALE, 150, p=[0.5, 0, 0.3, 0.2]),
                *draw.choice(SCALE, 150, p=[0.2, 0, 0.3, 0.5]),
            ],
        }
    )
    fit = hte.fit(read(rows, levels=SCALE), "ordered-scale", seed=1)
    assert fit.tree["posterior"]["cutpoint"].values.tolist() == ["disagree|agree", "agree|strongly"]
    assert list(fit.predictive_checks()["check"][:3]) == [f"units with outcome {SCALE[i]}" for i in (0, 2, 3)]
    # Higher answers under the treatment: an order turned round would make these negative.
    assert (fit.table()["effect"] > 0).all()
    fit.save(tmp_path / "fit.nc")
    assert hte.load(tmp_path / "fit.nc").cells["value_label"].values.tolist() == SCALE


def test_an_answer_that_nobody_gave_does_not_move_the_others():
    with_level = hte.fit(read(TEXT, levels=SCALE), "ordered-scale", seed=1).table(scale="link")
    without = hte.fit(read(TEXT, levels=[SCALE[0], *SCALE[2:]]), "ordered-scale", seed=1).table(scale="link")
    np.testing.assert_allclose(with_level["effect"], without["effect"], rtol=1e-12)


BAD_LEVELS = {
    "one": (["good"], "two or more different"),
    "twice": (["good", "good"], "two or more different"),
    "text": ("good", "give a list"),
    "descending": ([3, 2, 1], "numbers in ascending order"),
    "mixed": (["good", 1], "all words, or all numbers"),
    "not a number": ([1, float("nan")], "all words, or all numbers"),
}


@pytest.mark.parametrize(("levels", "message"), BAD_LEVELS.values(), ids=BAD_LEVELS)
def test_levels_that_make_no_scale_are_refused(levels, message):
    with pytest.raises(ArgumentError, match=message):
        parse_levels(levels)


def test_levels_go_with_a_histogram_and_without_a_cap():
    with pytest.raises(ArgumentError, match='add metric="histogram"'):
        read(TEXT, metric="mean", levels=SCALE)
    with pytest.raises(ArgumentError, match="a cap is for amounts"):
        Histogram("answer", levels=SCALE, cap=3)
    with pytest.raises(ArgumentError, match="a cap is for amounts"):
        read(ORDERED, cap=3)
    assert Histogram("answer", levels=SCALE) == Histogram("answer", levels=tuple(SCALE))


def test_a_plan_states_the_order_of_answers(tmp_path):
    TEXT.to_csv(tmp_path / "rows.csv", index=False)
    plan_text = """
title = "Answers"
model = "ordered-scale"

[data]
path = "rows.csv"
outcome = "answer"
arm = "arm"
control = "old"
segments = "device"
metric = "histogram"
"""
    (tmp_path / "plan.toml").write_text(plan_text + f"levels = {SCALE}\n".replace("'", '"'))
    plan = hte.read_plan(tmp_path / "plan.toml")
    xr.testing.assert_identical(from_plan(plan, tmp_path).drop_attrs(), read(ORDERED).drop_attrs())
    (tmp_path / "plan.toml").write_text(plan_text + 'levels = ["good"]\n')
    with pytest.raises(hte.PlanError, match="levels: should be a list of two or more answers"):
        hte.read_plan(tmp_path / "plan.toml")
