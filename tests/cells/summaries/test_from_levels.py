"""from_levels: units by value of the outcome, from a long table."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_levels, from_rows
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

LONG = {
    "device": ["tv", "tv", "tv", "web", "web", "web"],
    "arm": ["new", "old", "old", "old", "new", "new"],
    "stars": [5, 1, 3, 5, 1, 5],
    "users": [4, 6, 2, 9, 0, 7],
}


def long(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame(LONG | changes)


def read(table: Any, **changes: Any) -> xr.Dataset:
    keywords = {"arm": "arm", "control": "old", "segments": ["device"], "value": "stars", "count": "users"}
    return from_levels(table, **(keywords | changes))


def test_units_by_value_find_their_places_in_every_engine(engine):
    cells = read(engine(LONG), outcome="rating")
    assert cell_table.identify_kind(cells) == "histogram"
    assert cells.attrs["outcome"] == "rating"
    assert cells.value.values.tolist() == [1, 3, 5]
    assert cells.histogram.values.tolist() == [[[6, 2, 0], [0, 0, 4]], [[0, 0, 9], [0, 0, 7]]]
    assert cells.n.values.tolist() == [[8, 4], [9, 7]]


def test_the_long_table_of_rows_gives_the_cells_of_the_rows(engine):
    draw = np.random.default_rng(5)
    rows = pd.DataFrame(
        {
            "device": draw.choice(["tv", "web", "app"], 200),
            "arm": draw.choice(["old", "new"], 200),
            "stars": draw.choice([1.0, 2.0, 2.5, 7.0], 200),
        }
    )
    counts = rows.value_counts().reset_index(name="users").sample(frac=1, random_state=1)
    direct = from_rows(rows, outcome="stars", arm="arm", control="old", segments=["device"], metric="histogram")
    cells = read(engine({name: counts[name].tolist() for name in counts}), outcome="stars")
    xr.testing.assert_identical(cells.drop_attrs(), direct.drop_attrs())


def test_values_that_no_unit_has_are_left_out():
    assert read(long(stars=[5, 1, 3, 5, 2, 5])).value.values.tolist() == [1, 3, 5]


def test_a_plain_csv_is_read_without_duckdb(tmp_path, monkeypatch):
    expected = read(long())
    long().to_csv(tmp_path / "long.csv", index=False)
    monkeypatch.setattr("bayes_hte.cells.summaries.small_tables.open_table", None)
    xr.testing.assert_identical(read(tmp_path / "long.csv").drop_attrs(), expected.drop_attrs())


def test_hostile_names_are_only_names(engine):
    names = {"device": "a;b", "arm": '"', "stars": "'); --", "users": "c1"}
    columns = {names[name]: column for name, column in LONG.items()}
    cells = read(engine(columns), arm='"', segments=["a;b"], value="'); --", count="c1")
    np.testing.assert_array_equal(cells.histogram.values, read(long()).histogram.values)


BAD = {
    "missing column": ({}, {"value": "star"}, r"lacks the column 'star'; did you mean 'stars'\?"),
    "used twice": ({}, {"value": "users"}, "'users' is used twice, for value and for count"),
    "twice": ({"stars": [5, 3, 3.0, 5, 1, 5]}, {}, "value 3 of segment 'tv', arm 'old' appears twice, in rows 2 and 3"),
    "missing value": ({"stars": [5, None, 3, 5, 1, 5]}, {}, "value must be a finite number; wrong in segment 'tv'"),
    "text value": ({"stars": list("abcdef")}, {}, "value must hold numbers, but 6 of 6 values are none: 'a'"),
    "infinite value": ({"stars": [5, np.inf, 3, 5, 1, 5]}, {}, "value must be a finite number"),
    "missing count": ({"users": [4, None, 2, 9, 0, 7]}, {}, "count must be a finite number"),
    "broken count": ({"users": [4, 0.5, 2, 9, 0, 7]}, {}, "count must be a whole number"),
    "negative count": ({"users": [4, -1, 2, 9, 0, 7]}, {}, "count must be a whole number, 0 or more"),
    "missing arm": ({"arm": ["new", None, "old", "old", "new", "new"]}, {}, "1 row has no arm in 'arm'"),
    "unknown control": ({}, {"control": "odl"}, r"did you mean 'old'\?"),
    "empty control": ({"users": [4, 0, 0, 0, 0, 7]}, {}, "no unit is in the control arm 'old'"),
    "one value": ({"users": [4, 0, 0, 9, 0, 7]}, {}, "does not vary: it is 5 for every unit"),
    "no dimension": ({}, {"segments": []}, "segments is empty"),
    "reserved": ({}, {"segments": ["histogram"]}, "uses the name 'histogram' itself"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "keywords", "message"), BAD.values(), ids=BAD)
def test_an_impossible_table_is_named(changes, keywords, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(long(**changes), **keywords)


def test_too_many_values_are_refused():
    table = pd.DataFrame({"device": "a", "arm": ["old", "new"] * 501, "stars": range(1002), "users": 1})
    with pytest.raises(DataError, match="the column 'stars' has 1,002 values or more"):
        read(table)
