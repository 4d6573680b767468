"""bins=: numbers and dates cut into levels, the same in every engine as pandas cuts them unit by unit."""

import datetime as dt
import importlib
import itertools
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from table_engines import skip_without

from bayes_hte.cells import from_rows
from bayes_hte.cells.reading.labels import format_bin_label
from bayes_hte.cells.units.binning import PERIOD_NAMES, _find_shortest_number
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

KEYS: dict[str, Any] = {"outcome": "y", "arm": "arm", "control": "old"}


def people(n: int = 300, seed: int = 3) -> dict[str, list[Any]]:
    """Ages with ties, incomes without, times around a new year."""
    draw = np.random.default_rng(seed)
    start = dt.datetime(2025, 9, 20, 0, 0)
    return {
        "arm": draw.choice(["old", "new"], n).tolist(),
        "y": draw.normal(size=n).tolist(),
        "age": draw.integers(15, 70, n).tolist(),
        "income": draw.lognormal(3, 1, n).tolist(),
        "seen": [start + dt.timedelta(minutes=int(minutes)) for minutes in draw.integers(0, 200 * 24 * 60, n)],
    }


def read(data: Any, **asked: Any) -> xr.Dataset:
    return from_rows(data, **{**KEYS, **asked})


def by_level(cells: xr.Dataset) -> dict[tuple[str, str], tuple[int, float]]:
    """n and mean by segment and arm, of the cells that are not empty."""
    return {
        (str(segment), str(arm)): (int(cells["n"].sel(segment=segment, arm=arm)), mean)
        for segment in cells["segment"].values
        for arm in cells["arm"].values
        if not math.isnan(mean := float(cells["mean"].sel(segment=segment, arm=arm)))
    }


def of_pandas(columns: dict[str, list[Any]], levels: Any) -> dict[tuple[str, str], tuple[int, float]]:
    """The same from a column of levels that pandas made."""
    rows = pd.DataFrame({"arm": columns["arm"], "y": columns["y"], "level": np.asarray(levels).astype(str)})
    return {(level, arm): (len(y), y.mean()) for (level, arm), y in rows.groupby(["level", "arm"])["y"]}


def same(found: dict[tuple[str, str], tuple[int, float]], expected: dict[tuple[str, str], tuple[int, float]]) -> None:
    assert found.keys() == expected.keys()
    for key, (n, mean) in expected.items():
        assert found[key] == (n, pytest.approx(mean, rel=1e-12, abs=1e-13)), key


@pytest.mark.parametrize("column", ["age", "income"])
def test_stated_cuts_are_those_of_pandas_in_every_engine(engine, column):
    columns = people()
    edges = [18, 24.5, 65]
    cells = read(engine(columns), segments=[column], bins={column: edges})
    ends = [-math.inf, *edges, math.inf]
    labels = [format_bin_label(low, high) for low, high in itertools.pairwise(ends)]
    same(by_level(cells), of_pandas(columns, pd.cut(columns[column], ends, right=False, labels=labels)))
    assert cells["segment"].values.tolist() == ["< 18", "18 to < 24.5", "24.5 to < 65", "65 or more"]
    assert cell_table.list_notes(cells) == [f"{column} is cut at 18, 24.5, 65"]


def test_a_bin_includes_its_lower_end(engine):
    columns = {"arm": ["old", "new"] * 4, "y": [1.0, 2, 3, 4, 5, 6, 7, 8], "age": [17, 17, 18, 18, 64, 64, 65, 65]}
    cells = read(engine(columns), segments=["age"], bins={"age": [18, 65]})
    assert cells["mean"].values.tolist() == [[1, 2], [4, 5], [7, 8]]


@pytest.mark.parametrize("number", [2, 3, 7])
@pytest.mark.parametrize("column", ["age", "income"])
def test_a_number_of_bins_cuts_at_the_quantiles_of_numpy_in_every_engine(engine, column, number):
    columns = people()
    cells = read(engine(columns), segments=[column], bins={column: number})
    edges = np.quantile(columns[column], [i / number for i in range(1, number)])
    groups = np.searchsorted(edges * (1 - 1e-12), columns[column], side="right")  # a bin includes its lower end
    names = dict(zip(range(number), cells["segment"].values, strict=True))
    same(by_level(cells), of_pandas(columns, [names[group] for group in groups]))


def test_a_number_of_bins_has_the_same_names_in_every_engine(engine):
    columns = people(97, seed=8)
    cells = read(engine(columns), segments=["income"], bins={"income": 7})
    expected = read(pd.DataFrame(columns), segments=["income"], bins={"income": 7})
    assert cells["segment"].values.tolist() == expected["segment"].values.tolist()
    assert cell_table.list_notes(cells) == cell_table.list_notes(expected)


def test_cuts_at_quantiles_have_no_more_digits_than_it_takes():
    rows = pd.DataFrame({"arm": ["old", "new"] * 4, "y": range(8), "paid": [1.0, 2.0, 2.857, 2.9, 3.1416, 3.2, 9, 12]})
    cells = read(rows, segments=["paid"], bins={"paid": 2})
    assert cells["segment"].values.tolist() == ["< 3", "3 or more"]
    assert cell_table.list_notes(cells) == ["paid is cut at 3"]


@settings(max_examples=300)
@given(
    st.floats(-1e15, 1e15, allow_subnormal=False),
    st.floats(-1e15, 1e15, allow_subnormal=False),
)
def test_the_shortest_number_lies_between_its_bounds(one, other):
    below, above = sorted([one, other])
    if below < above:
        assert below < _find_shortest_number(below, above) <= above


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [(17, 18, 18), (17, 33, 30), (2.8571, 3.1416, 3), (-0.02, 0, 0), (-3.2, -2.9, -3), (0.1, 0.30000000000000004, 0.3)],
)
def test_a_cut_has_the_fewest_digits_that_part_two_values(below, above, expected):
    assert _find_shortest_number(below, above) == expected


def test_ties_at_a_quantile_give_fewer_bins():
    rows = pd.DataFrame({"arm": ["old", "new"] * 10, "y": range(20), "visits": [0] * 12 + [1] * 3 + [2] * 3 + [9, 9]})
    cells = read(rows, segments=["visits"], bins={"visits": 4})
    assert cells["segment"].values.tolist() == ["< 2", "2 or more"]
    assert cells["n"].sum("arm").values.tolist() == [15, 5]


def test_numbers_of_which_nearly_all_are_equal_cannot_be_cut_by_number(engine):
    columns = {"arm": ["old", "new"] * 10, "y": list(range(20)), "visits": [0] * 18 + [1, 2]}
    with pytest.raises(DataError, match=r"'visits' cannot be cut into 2 bins: too many units have the value 0; state"):
        read(engine(columns), segments=["visits"], bins={"visits": 2})
    cells = read(engine(columns), segments=["visits"], bins={"visits": [1]})
    assert cells["segment"].values.tolist() == ["< 1", "1 or more"]


def test_quantiles_that_lie_between_the_same_two_values_make_one_cut():
    rows = pd.DataFrame({"arm": ["old", "new"] * 4, "y": range(8), "size": [1, 1, 1, 1, 5, 5, 5, 5]})
    assert read(rows, segments=["size"], bins={"size": 8})["segment"].values.tolist() == ["< 5", "5 or more"]


@pytest.mark.parametrize("bins", [[20, 40], 3])
def test_missing_and_infinite_numbers_form_the_missing_level(engine, bins):
    columns = people(120)
    columns["age"] = [
        None if i % 10 == 0 else math.inf if i % 10 == 1 else -math.inf if i % 10 == 2 else float(age)
        for i, age in enumerate(columns["age"])
    ]
    cells = read(engine(columns), segments=["age"], bins={"age": bins})
    assert cells["segment"].values[-1] == cell_table.MISSING_LEVEL
    assert int(cells["n"].sel(segment=cell_table.MISSING_LEVEL).sum()) == 36
    assert int(cells["n"].sum()) == 120
    assert "36 units have no value for age; they form the level (missing)" in cell_table.list_notes(cells)


def test_numbers_that_are_all_missing_cannot_be_cut_by_number():
    rows = pd.DataFrame(people(20)).assign(age=math.nan)
    with pytest.raises(DataError, match="the dimension 'age' has no finite value"):
        read(rows, segments=["age"], bins={"age": 4})


def test_bins_come_in_the_order_of_their_numbers():
    rows = pd.DataFrame({"arm": ["old", "new"] * 4, "y": range(8), "change": [-200, -200, -3, -3, 5, 5, 1000, 1000]})
    cells = read(rows, segments=["change"], bins={"change": [-100, -0.5, 30, 999]})
    assert cells["segment"].values.tolist() == [
        "< -100",
        "-100 to < -0.5",
        "-0.5 to < 30",
        "999 or more",
    ]


OF_PANDAS = {"day": "D", "week": "W-SUN", "month": "M", "quarter": "Q", "year": "Y"}
NAMES = {
    "day": lambda period: str(period.start_time.date()),
    "week": lambda period: f"week of {period.start_time.date()}",
    "month": str,
    "quarter": lambda period: f"{period.year} Q{period.quarter}",
    "year": str,
}


@pytest.mark.parametrize("period", PERIOD_NAMES)
def test_periods_of_datetimes_are_those_of_pandas_in_every_engine(engine, period):
    columns = people(600)  # enough that days are no id
    cells = read(engine(columns), segments=["seen"], bins={"seen": period})
    periods = pd.Series(columns["seen"]).dt.to_period(OF_PANDAS[period])
    same(by_level(cells), of_pandas(columns, [NAMES[period](each) for each in periods]))
    assert cells["segment"].values.tolist() == list(dict.fromkeys(NAMES[period](each) for each in sorted(periods)))
    assert cell_table.list_notes(cells) == [f"seen is put together by {period}"]


@pytest.mark.parametrize("period", PERIOD_NAMES)
def test_periods_of_dates_are_those_of_pandas_in_every_engine(engine, request, period):
    columns = people(600)
    dates = [None if i % 50 == 0 else when.date() for i, when in enumerate(columns["seen"])]
    name = request.node.callspec.params["engine"]
    if name in {"pandas", "dask"}:  # dates are objects there, and could be anything; Dask makes text of objects
        dtype = "Object" if name == "pandas" else "String"
        with pytest.raises(DataError, match=f"has dtype {dtype}, and a period needs dates; convert the column"):
            read(engine(columns | {"seen": dates}), segments=["seen"], bins={"seen": period})
        return
    cells = read(engine(columns | {"seen": dates}), segments=["seen"], bins={"seen": period})
    periods = pd.Series(pd.to_datetime(pd.Series(dates))).dt.to_period(OF_PANDAS[period])
    expected = [cell_table.MISSING_LEVEL if each is pd.NaT else NAMES[period](each) for each in periods]
    same(by_level(cells), of_pandas(columns, expected))
    assert f"seen is put together by {period}" in cell_table.list_notes(cells)


def test_times_with_a_zone_are_put_together_by_its_clock(engine):
    columns = people(50)
    columns["seen"] = [when.replace(tzinfo=dt.UTC) for when in columns["seen"]]
    cells = read(engine(columns), segments=["seen"], bins={"seen": "month"})
    assert int(cells["n"].sum()) == 50
    assert all(len(label) == len("2025-09") for label in cells["segment"].values)


def test_a_zone_decides_on_which_day_something_was():
    evening = dt.datetime(2026, 1, 1, 3, 0, tzinfo=dt.UTC)
    rows = pl.DataFrame(
        {"arm": ["old", "new"] * 4, "y": range(8), "seen": [evening] * 4 + [evening.replace(hour=9)] * 4}
    )
    zoned = rows.with_columns(pl.col("seen").dt.convert_time_zone("America/New_York"))
    cells = read(zoned, segments=["seen"], bins={"seen": "day"})
    assert cells["segment"].values.tolist() == ["2025-12-31", "2026-01-01"]


@pytest.mark.parametrize("zone", ["America/New_York", "Etc/GMT+5", "Asia/Ho_Chi_Minh", "UTC"])
@pytest.mark.parametrize("kind", ["pandas", "dask", "polars"])
def test_every_zone_has_a_clock_and_is_said(kind, zone):
    skip_without(kind)
    begin = pd.date_range("2026-03-01", periods=96, freq="h", tz="UTC").tz_convert(zone)
    rows = pd.DataFrame({"arm": ["old", "new"] * 48, "y": range(96), "seen": begin})
    table = pl.from_pandas(rows) if kind == "polars" else rows
    if kind == "dask":
        table = importlib.import_module("dask.dataframe").from_pandas(rows, npartitions=2)
    cells = read(table, segments=["seen"], bins={"seen": "day"})
    expected = rows.groupby(rows["seen"].dt.strftime("%Y-%m-%d")).size()
    assert cells["n"].sum("arm").to_series().to_dict() == expected.to_dict()
    assert cell_table.list_notes(cells) == [f"seen is put together by day, by the clock of {zone}"]


@pytest.mark.parametrize("machine", ["America/New_York", "Asia/Tokyo"])  # before and after UTC, where tests run
def test_days_in_files_do_not_hang_on_where_they_are_read(machine, tmp_path):
    begin = pd.date_range("2026-03-01", periods=48, freq="h", tz="Europe/Berlin")
    rows = pd.DataFrame({"arm": ["old", "new"] * 24, "y": range(48), "seen": begin, "at": [*begin[:2]] * 24})
    rows.to_parquet(tmp_path / "rows.parquet")
    code = (
        "from bayes_hte.cells import from_rows\n"
        "asked = {'outcome': 'y', 'arm': 'arm', 'control': 'old'}\n"
        "print(from_rows('rows.parquet', segments=['seen'], bins={'seen': 'day'}, **asked).segment.values.tolist())\n"
        "print(from_rows('rows.parquet', segments=['at'], **asked).segment.values.tolist())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"TZ": machine}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.stderr == ""
    days, points = found.stdout.splitlines()
    assert days == "['2026-02-28', '2026-03-01', '2026-03-02']"
    assert points == "['2026-02-28 23:00:00+00:00', '2026-03-01']"


HOSTILE = ['a"b', "a'b", "x; drop table rows; --", "größe·", "*", "^a$", "C0", "q0", "finite", "below0", "p0", "capped"]


@pytest.mark.parametrize("bins", [[20, 40], 2])
def test_hostile_names_of_dimensions_are_only_names(engine, bins):
    columns = people(60)
    expected = read(pd.DataFrame(columns), segments=["age"], bins={"age": bins})
    ages = columns.pop("age")
    cells = read(engine(columns | dict.fromkeys(HOSTILE, ages)), segments=HOSTILE, bins=dict.fromkeys(HOSTILE, bins))
    assert cell_table.list_dimensions(cells) == HOSTILE
    for name in HOSTILE:
        assert cells[name].values.tolist() == expected["age"].values.tolist()
    np.testing.assert_allclose(cells["mean"].values, expected["mean"].values, rtol=1e-12)


def test_one_column_may_be_a_dimension_in_bins_and_a_covariate(engine):
    columns = people()
    asked: dict[str, Any] = {"segments": ["income"], "bins": {"income": [10, 40]}, "cuped": "income"}
    cells = read(engine(columns), **asked, balance=["income"])
    rows = pd.DataFrame(columns)
    apart = rows.assign(level=pd.cut(rows["income"], [-np.inf, 10, 40, np.inf], right=False).cat.codes)
    expected = read(apart, segments=["level"], cuped="income")
    for name in ("n", "mean", "se", "variance_reduction", "pre_mean", "pre_ss"):
        np.testing.assert_allclose(cells[name].values, expected[name].values, rtol=1e-9, err_msg=name)


def test_a_dimension_in_bins_is_used_once_all_the_same():
    with pytest.raises(ArgumentError, match="'age' is used twice, for segments and for cuped 'age'"):
        read(pd.DataFrame(people(40)), segments=["age"], cuped="age")
    with pytest.raises(ArgumentError, match="'y' is used twice, for segments and for outcome"):
        read(pd.DataFrame(people(40)), segments=["y"], bins={"y": [0]})


def test_several_dimensions_are_cut_each_in_its_own_way(engine):
    columns = people()
    asked = {"age": [30], "income": 2, "seen": "year"}
    cells = read(engine(columns), segments=["age", "income", "seen"], bins=asked)
    assert len(set(cells["age"].values)) == len(set(cells["income"].values)) == len(set(cells["seen"].values)) == 2
    assert [note.split(" ")[0] for note in cell_table.list_notes(cells)] == ["age", "income", "seen"]


WRONG: dict[str, tuple[Any, str]] = {
    "one bin": ({"age": 1}, "bins of 'age' are 1; give a number from 2 to 100, or the cuts as a list"),
    "too many bins": ({"age": 101}, "bins of 'age' are 101; give a number from 2 to 100"),
    "truth": ({"age": True}, "bins of 'age' are True; give a number"),
    "a fraction": ({"age": 3.5}, "bins of 'age' must be cuts such as"),
    "descending": ({"age": [40, 20]}, r"cuts of 'age' must be finite and ascend.* are \[40.0, 20.0\]; sort them"),
    "repeated": ({"age": [20, 20]}, "leave out repetitions"),
    "infinite": ({"age": [20, math.inf]}, "must be finite and ascend"),
    "no cuts": ({"age": []}, r"1 to 99 of them, but are \[\]"),
    "words": ({"age": ["a", "b"]}, "bins of 'age' must be cuts such as"),
    "unknown period": ({"seen": "hour"}, "bins of 'seen' are 'hour'; dates are put together by day, week, month"),
    "dates by number": ({"seen": 4}, "the dimension 'seen' has dtype Datetime.*and a dimension needs numbers"),
    "numbers by period": ({"age": "day"}, "'age' of pandas.DataFrame has dtype Int64, and a period needs dates"),
    "no dimension": ({"income": 4}, "bins are asked for 'income', which is not among the segments 'age', 'seen'"),
    "no mapping": (4, r"bins are 4; say of which dimension they are, as in bins=\{'age': 4\}"),
    "text": ({"arm_": 3}, "bins are asked for 'arm_'"),
}


@pytest.mark.parametrize(("bins", "message"), WRONG.values(), ids=WRONG)
def test_bins_that_cannot_be_made_are_refused(bins, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(pd.DataFrame(people(40)), segments=["age", "seen"], bins=bins)
