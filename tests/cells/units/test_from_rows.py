"""from_rows: every engine gives what a few lines of plain Python give, and bad input is named."""

import datetime as dt
import json
import math
import statistics
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_rows
from bayes_hte.spec import cell_table

property_test = settings(max_examples=30)


def experiment(units: int = 400, seed: int = 7) -> dict[str, list[Any]]:
    """A test with two dimensions, three arms and a skewed outcome; one cross of levels never occurs."""
    draw = np.random.default_rng(seed)
    devices = draw.choice(["mobile", "desktop", "tv"], units).tolist()
    ages = draw.choice([9, 10, 63], units).tolist()
    arms = draw.choice(["old", "new b", "new a"], units).tolist()
    spent, bought = draw.lognormal(2, 1, units).tolist(), (draw.random(units) < 0.3).tolist()
    rows = [row for row in zip(devices, ages, arms, spent, bought, strict=True) if row[:2] != ("tv", 63)]
    names = ("device", "age", "arm", "spent", "bought")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def brute_force(
    columns: dict[str, list[Any]], outcome: str, dims: list[str]
) -> dict[tuple[str, str], tuple[int, float, float]]:
    """n, mean and ss per segment label and arm, with exact sums."""
    cells = defaultdict(list)
    for i, value in enumerate(columns[outcome]):
        cells[" · ".join(str(columns[dim][i]) for dim in dims), columns["arm"][i]].append(float(value))
    means = {key: math.fsum(values) / len(values) for key, values in cells.items()}
    return {
        key: (len(values), means[key], math.fsum((value - means[key]) ** 2 for value in values))
        for key, values in cells.items()
    }


def small(**changes: Any) -> pd.DataFrame:
    """Eight users, two devices, two arms."""
    columns = {
        "device": ["mobile"] * 4 + ["tv"] * 4,
        "arm": ["old", "old", "new", "new"] * 2,
        "spent": [1.0, 3.0, 4.0, 8.0, 0.0, 2.0, 1.0, 5.0],
    }
    return pd.DataFrame(columns | changes)


def read(data: Any, **changes: Any) -> xr.Dataset:
    keywords: dict[str, Any] = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["device"]}
    return from_rows(data, **(keywords | changes))


@pytest.mark.parametrize("dims", [["device"], ["device", "age"], ["age"]])
def test_every_engine_agrees_with_brute_force(engine, dims):
    columns = experiment()
    cells = read(engine(columns), segments=dims)
    expected = brute_force(columns, "spent", dims)

    assert {(s, a) for s in cells.segment.values for a in cells.arm.values if cells.n.sel(segment=s, arm=a) > 0} == set(
        expected
    )
    for (segment, arm), (n, mean, ss) in expected.items():
        cell = cells.sel(segment=segment, arm=arm)
        assert int(cell.n) == n
        assert float(cell["mean"]) == pytest.approx(mean, rel=1e-12)
        assert float(cell.ss) == pytest.approx(ss, rel=1e-12)
    assert "events" not in cells


def test_every_engine_counts_the_events_of_a_yes_or_no_outcome(engine):
    columns = experiment()
    cells = read(engine(columns), outcome="bought", segments=["device"])
    for (segment, arm), (n, mean, _) in brute_force(columns, "bought", ["device"]).items():
        assert int(cells.events.sel(segment=segment, arm=arm)) == round(n * mean)
    assert {name: cells[name].dtype.str for name in cells} == {"n": "<i8", "mean": "<f8", "ss": "<f8", "events": "<i8"}


def test_numbers_0_and_1_are_events_but_0_1_and_2_are_not():
    assert read(small(spent=[0, 1, 1, 1, 0, 0, 1, 0])).events.values.tolist() == [[1, 2], [0, 1]]
    assert "events" not in read(small(spent=[0, 1, 1, 1, 0, 0, 2, 0]))


def test_the_control_comes_first_and_labels_follow_in_natural_order(engine):
    cells = read(engine(experiment()), segments=["device", "age"])
    assert cells.arm.values.tolist() == ["old", "new a", "new b"]
    assert cells.age.values.tolist() == ["9", "10", "63", "9", "10", "63", "9", "10"]
    assert cells.segment.values[0] == "desktop · 9"
    assert cells.device.dims == ("segment",)


def test_text_with_numbers_in_it_is_ordered_by_their_size():
    rows = small(device=["week 10"] * 4 + ["week 9"] * 4)
    assert read(rows).segment.values.tolist() == ["week 9", "week 10"]


def test_an_arm_missing_from_a_segment_is_an_empty_cell():
    rows = small().drop(index=[6, 7])
    cell = read(rows).sel(segment="tv", arm="new")
    assert int(cell.n) == 0
    assert np.isnan(float(cell["mean"]))
    assert float(cell.ss) == 0


def test_a_cell_of_one_unit_has_no_spread(engine):
    cells = read(engine({name: list(column) for name, column in small().drop(index=[7]).items()}))
    assert float(cells.ss.sel(segment="tv", arm="new")) == 0
    assert int(cells.n.sel(segment="tv", arm="new")) == 1


def test_equal_values_have_a_spread_of_exactly_zero(engine):
    columns = {"device": ["a"] * 20, "arm": ["old"] * 7 + ["new"] * 13, "spent": [0.1] * 7 + [0.1, 0.7] * 6 + [0.1]}
    assert float(read(engine(columns)).ss.sel(arm="old").item()) == 0


def test_the_attributes_describe_the_table():
    cells = read(small())
    assert cells.attrs["outcome"] == "spent"
    assert cells.attrs["control"] == "old"
    assert cells.attrs["source"] == "8 rows of pandas.DataFrame"
    assert cell_table.list_dimensions(cells) == ["device"]
    assert cell_table.list_notes(cells) == []


def test_a_file_is_named_without_its_folder(tmp_path):
    small().to_parquet(tmp_path / "day.parquet")
    assert read(tmp_path / "day.parquet").attrs["source"] == "8 rows of file day.parquet"


def test_a_pattern_reads_all_files_it_matches(tmp_path):
    folder = tmp_path / "a [1] b"  # brackets in the name of a file that is there are no pattern
    for other in (folder, tmp_path / "a 1 b"):
        other.mkdir()
    small(device="other").to_csv(tmp_path / "a 1 b" / "day-1.csv", index=False)
    small().to_csv(folder / "day-1.csv", index=False)
    small().to_csv(folder / "day-2.csv", index=False)
    assert read(folder / "day-1.csv").n.values.tolist() == [[2, 2], [2, 2]]
    small().to_csv(tmp_path / "day-1.csv", index=False)
    small().to_csv(tmp_path / "day-2.csv", index=False)
    assert read(tmp_path / "day-*.csv").n.values.tolist() == [[4, 4], [4, 4]]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_name_of_a_folder_replaces_no_column(tmp_path, kind):
    path = tmp_path / "arm=x" / f"rows.{kind}"
    path.parent.mkdir()
    small().to_csv(path, index=False) if kind == "csv" else small().to_parquet(path)
    assert read(path).arm.values.tolist() == ["old", "new"]


@pytest.mark.parametrize(("name", "separator"), [("rows.tsv", "\t"), ("rows.csv.gz", ","), ("rows.CSV", ";")])
def test_text_files_may_be_compressed_or_separated_otherwise(tmp_path, name, separator):
    small().to_csv(tmp_path / name, index=False, sep=separator)
    assert read(tmp_path / name)["mean"].values.tolist() == [[2, 6], [1, 3]]


def test_a_dimension_called_segment_is_the_segment_coordinate():
    cells = read(small().rename(columns={"device": "segment"}), segments=["segment"])
    assert cell_table.list_dimensions(cells) == ["segment"]
    assert cells.segment.values.tolist() == ["mobile", "tv"]


def test_segments_that_would_share_a_label_get_unique_ones():
    rows = small(device=["a · b"] * 4 + ["a"] * 4, plan=["c"] * 4 + ["b · c"] * 4)
    cells = read(rows, segments=["device", "plan"])
    assert len(set(cells.segment.values)) == 2
    assert cells.device.values.tolist() == ["a", "a · b"]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([63.0, 1.5], ["1.5", "63"]),
        ([True, False], ["false", "true"]),
        ([dt.date(2024, 1, 10), dt.date(2024, 1, 9)], ["2024-01-09", "2024-01-10"]),
        ([dt.datetime(2024, 1, 1, 15), dt.datetime(2024, 1, 2)], ["2024-01-01 15:00:00", "2024-01-02"]),
        (["yes", "no"], ["no", "yes"]),
        (["T", "F"], ["F", "T"]),
        ([Decimal("1.50"), Decimal("2.00")], ["1.5", "2"]),
        (["007", "7"], ["7", "007"]),
    ],
)
def test_levels_read_the_same_in_every_engine(engine, request, levels, expected):
    columns = {name: list(column) for name, column in small().items()} | {"device": [levels[0]] * 4 + [levels[1]] * 4}
    if "dask" in request.node.callspec.params.values() and isinstance(levels[0], Decimal):
        pytest.skip("Dask itself turns decimals into text")
    if "csv" in request.node.callspec.params.values() and isinstance(levels[0], dt.datetime):
        expected = ["2024-01-01 15:00:00", "2024-01-02 00:00:00"]  # as pandas writes them
    if "csv" in request.node.callspec.params.values() and isinstance(levels[0], float | Decimal):
        expected = list(map(str, levels))  # as they are written: 1.50 may be another version than 1.5
    assert set(read(engine(columns)).device.values) == set(expected)


def test_labels_of_a_text_file_are_kept_as_written(tmp_path):
    (tmp_path / "rows.csv").write_text("arm,when,spent\nyes,10:30,1\nno,10:30,2\nyes,11:00,0\nno,11:00,4\nno,11:00,4\n")
    cells = read(tmp_path / "rows.csv", control="no", segments=["when"])
    assert cells.arm.values.tolist() == ["no", "yes"]
    assert cells.when.values.tolist() == ["10:30", "11:00"]


def test_a_fraction_after_many_whole_numbers_is_read_as_a_number(tmp_path):
    head = "arm,device,spent\n"
    body = "old,mobile,0\nnew,mobile,0\n" * 60_000
    (tmp_path / "rows.csv").write_text(head + body + "new,mobile,0.5\n" + body)
    assert float(read(tmp_path / "rows.csv")["mean"].sel(arm="new").item()) == pytest.approx(0.5 / 120_001, rel=1e-12)


@pytest.mark.parametrize("dtype", ["category", "enum", "interval"])
def test_categories_are_levels(dtype):
    rows = small()
    if dtype == "category":
        data: Any = rows.astype({"device": "category", "arm": "category"})
    elif dtype == "enum":
        data = pl.from_pandas(rows).with_columns(pl.col("device").cast(pl.Enum(["tv", "mobile", "unused"])))
    else:
        data = rows.assign(device=pd.cut(pd.Series([1.0] * 4 + [7.0] * 4), [0, 5, 10]))
    assert read(data).n.values.tolist() == [[2, 2], [2, 2]]
    assert set(read(data).device.values) == ({"(0, 5]", "(5, 10]"} if dtype == "interval" else {"mobile", "tv"})


def test_categories_with_gaps_form_the_missing_level():
    rows = small(device=pd.Categorical(["mobile"] * 4 + [None] * 4))
    for data in (rows, pl.from_pandas(rows), pa.Table.from_pandas(rows)):
        assert read(data).device.values.tolist() == ["mobile", "(missing)"]


def test_missing_levels_form_a_level_of_their_own_and_are_noted(engine):
    columns = {name: list(column) for name, column in small().items()} | {"device": ["mobile"] * 4 + [None] * 4}
    cells = read(engine(columns))
    assert cells.device.values.tolist() == ["mobile", cell_table.MISSING_LEVEL]
    assert cell_table.list_notes(cells) == ["4 units have no value for device; they form the level (missing)"]


def test_null_and_nan_are_one_missing_level():
    rows = pl.from_pandas(small()).with_columns(device=pl.Series([1.0, 1, 1, 1, None, math.nan, None, math.nan]))
    cells = read(rows)
    assert cells.device.values.tolist() == ["1", "(missing)"]
    assert cells["mean"].sel(segment="(missing)").values.tolist() == [1.0, 3.0]
    assert cells.ss.sel(segment="(missing)").values.tolist() == [2.0, 8.0]


def test_empty_text_is_a_level_with_a_name():
    assert read(small(device=["mobile"] * 4 + [""] * 4)).device.values.tolist() == ["mobile", "(empty)"]


@pytest.mark.parametrize("control", ["0", 0, False])
def test_the_control_is_compared_as_text(control):
    rows = small(arm=np.array([0, 0, 1, 1] * 2))
    if control is False:
        rows = rows.astype({"arm": bool})
    assert read(rows, control=control).sizes["arm"] == 2


@pytest.mark.parametrize(
    "column",
    [[Decimal("1.5"), Decimal("2.5")] * 4, pd.array([1, 2] * 4, dtype="Int64"), np.array([1, 2] * 4, dtype=np.int8)],
)
def test_decimals_and_every_kind_of_number_are_outcomes(column):
    rows = small(spent=column)
    expected = [[float(column[0]) + 0.5] * 2] * 2
    assert read(rows)["mean"].values.tolist() == expected
    assert read(pa.Table.from_pandas(rows))["mean"].values.tolist() == expected


HOSTILE = [
    'a"b',
    "a'b",
    "x; drop table rows; --",
    "two words",
    "größe·",
    "x" * 300,
    "a.b",
    "*",
    "^a$",
    "C0",
    "{x}",
]


def test_hostile_column_names_are_only_names(engine, request):
    if "ibis-postgres" in request.node.callspec.params.values():
        pytest.skip("PostgreSQL cuts names at 63 bytes; test_engines asks it for others")
    levels = {name: ["mobile"] * 4 + ["tv"] * 4 for name in HOSTILE}
    columns = {"'); --": ["old", "old", "new", "new"] * 2, '"': [1, 3, 4, 8, 0, 2, 1, 5]} | levels  # * is not the first
    unused = {"C2": [0] * 8}  # to DuckDB the same as c2
    cells = read(engine(columns | unused), outcome='"', arm="'); --", segments=HOSTILE)
    assert cells["mean"].values.tolist() == [[2, 6], [1, 3]]
    assert cell_table.list_dimensions(cells) == HOSTILE
    assert all(cells[name].values.tolist() == ["mobile", "tv"] for name in HOSTILE)


@pytest.mark.parametrize(("outcome", "arm"), [("n", "mean"), ("rows", "finite"), ("c1", "segment")])
def test_outcome_and_arm_may_have_the_names_of_results(engine, outcome, arm):
    columns = {
        "device": ["mobile"] * 4 + ["tv"] * 4,
        arm: ["old", "old", "new", "new"] * 2,
        outcome: [1, 3, 4, 8, 0, 2, 1, 5],
    }
    assert read(engine(columns), outcome=outcome, arm=arm)["mean"].values.tolist() == [[2, 6], [1, 3]]


def test_dropping_missing_outcomes_leaves_the_others_and_says_so(engine):
    columns = {name: list(column) for name, column in small().items()}
    columns |= {"spent": [1.0, None, 4.0, 8.0, 0.0, 2.0, 1.0, 5.0], "arm": [*columns["arm"][:-1], None]}
    cells = read(engine(columns), drop_missing=True)
    assert cells.n.values.tolist() == [[1, 2], [2, 1]]
    assert cells["mean"].values.tolist() == [[1.0, 6.0], [1.0, 1.0]]
    assert cell_table.list_notes(cells) == [
        "1 of 8 outcomes in 'spent' is missing; dropped",
        "1 row has no arm in 'arm'; dropped",
    ]


def test_dropping_leaves_out_infinite_outcomes_too():
    cells = read(small(spent=[np.inf, 3.0, 4.0, 8.0, -np.inf, 2.0, 1.0, np.nan]), drop_missing=True)
    assert cells.n.values.tolist() == [[1, 2], [1, 1]]
    assert cell_table.list_notes(cells) == ["1 of 8 outcomes in 'spent' are missing and 2 infinite; dropped"]


@pytest.mark.parametrize("drop_missing", [True, False])
def test_nothing_is_noted_when_nothing_is_missing(drop_missing):
    assert cell_table.list_notes(read(small(), drop_missing=drop_missing)) == []


rows_of_units = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["old", "new"]), st.floats(-1e6, 1e6).map(lambda x: round(x, 3))),
    min_size=4,
    max_size=40,
).map(lambda rows: [("a", "old", 0.0), ("a", "new", 1.0), ("b", "old", 2.0), ("b", "new", 7.5), *rows])


def frame(rows: list[tuple[str, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["device", "arm", "spent"])


@property_test
@given(rows_of_units, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert_close(read(frame(shuffled)), read(frame(rows)))


@property_test
@given(rows_of_units, st.permutations("abcxyz"))
def test_renaming_segments_only_renames(rows, names):
    renaming = dict(zip("abc", names, strict=False))
    renamed = read(frame([(renaming[device], arm, spent) for device, arm, spent in rows]))
    cells = read(frame(rows))
    for name in cells:
        expected = [cells[name].sel(segment=old).values for old in cells.segment.values]
        found = [renamed[name].sel(segment=renaming[old]).values for old in cells.segment.values]
        np.testing.assert_array_equal(found, expected)


@property_test
@given(rows_of_units, st.sampled_from([-3.0, 0.01, 1.1, 250.0]), st.sampled_from([0.0, -40.0, 1e5]))
def test_a_change_of_unit_transforms_mean_and_spread(rows, scale, shift):
    cells = read(frame(rows))
    changed = read(frame([(device, arm, scale * spent + shift) for device, arm, spent in rows]))
    size = abs(scale) * 1e6 + abs(shift)  # values are no larger, so sums of squares are right to about 40 size² eps
    np.testing.assert_allclose(changed["mean"], scale * cells["mean"] + shift, rtol=1e-12, atol=size * 1e-14)
    np.testing.assert_allclose(changed.ss, scale**2 * cells.ss, rtol=1e-9, atol=40 * (size * 1e-14) * size)


def assert_close(left: xr.Dataset, right: xr.Dataset) -> None:
    xr.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)
    assert json.loads(left.attrs["dimensions"]) == json.loads(right.attrs["dimensions"])


def test_a_large_mean_does_not_swallow_the_spread(engine):
    spent = (1e9 + np.random.default_rng(3).normal(size=2000)).tolist()
    cells = read(engine({"device": ["a", "b"] * 1000, "arm": ["old"] * 1000 + ["new"] * 1000, "spent": spent}))
    expected = statistics.variance([value - 1e9 for value in spent[:1000:2]]) * 499
    assert float(cells.ss.sel(segment="a", arm="old")) == pytest.approx(expected, rel=1e-6)


def test_table_engines_are_imported_only_when_a_table_is_read():
    code = (
        "import sys, bayes_hte.cells; print([name for name in ('narwhals', 'duckdb', 'polars') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
