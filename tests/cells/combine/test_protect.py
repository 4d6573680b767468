"""protect: no small cell is left, nor what would say of whom it was."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_estimates, from_rows, from_summary, from_times, merge, protect, with_covariates
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import OTHER_LEVEL

KEYS: dict[str, Any] = {"arm": "arm", "control": "old"}


def people(n: int = 600, seed: int = 6) -> pd.DataFrame:
    """Two large countries and small ones, two plans."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "country": draw.choice(["DE", "FR", "MT", "LU", "LI"], n, p=[0.5, 0.38, 0.06, 0.04, 0.02]),
            "plan": draw.choice(["free", "paid"], n),
            "arm": draw.choice(["old", "new"], n),
            "y": draw.normal(size=n),
            "bought": draw.random(n) < 0.3,
            "visits": draw.poisson(2, n),
            "hours": draw.gamma(2, 1, n) + 0.1,
            "revenue": draw.lognormal(size=n) * (draw.random(n) < 0.6),
            "before": draw.normal(size=n),
        }
    )


ASKED: dict[str, dict[str, Any]] = {
    "mean": {"outcome": "y"},
    "balance": {"outcome": "y", "balance": ["before"]},
    "yes or no": {"outcome": "bought"},
    "rates": {"outcome": "visits", "exposure": "hours"},
    "histogram": {"outcome": "visits", "metric": "histogram"},
    "two_part": {"outcome": "revenue", "metric": "two_part"},
    "ratio": {"outcome": "y", "denominator": "hours"},
    "weights": {"outcome": "y", "weights": "hours"},
    "cuped": {"outcome": "y", "cuped": "before"},
}
KINDS = [*ASKED, "survival"]


def read(rows: pd.DataFrame, kind: str, dims: list[str]) -> xr.Dataset:
    if kind == "survival":
        return from_times(rows, time="hours", event="bought", segments=dims, breaks=[1.0, 2.0], **KEYS)
    return from_rows(rows, segments=dims, **KEYS, **ASKED[kind])


def small(rows: pd.DataFrame, dims: list[str], least: int) -> pd.Series:
    """Which rows are of a segment that has an arm with fewer units than this, but some."""
    sizes = rows.groupby([*dims, "arm"]).size().groupby(dims).min()
    keys = pd.MultiIndex.from_frame(rows[dims]) if len(dims) > 1 else pd.Index(rows[dims[0]])
    return pd.Series(keys.map(sizes).to_numpy() < least, rows.index)


def without_extremes(cells: xr.Dataset) -> xr.Dataset:
    return cells.drop_vars([name for name in ("lowest", "highest") if name in cells]).drop_attrs()


@pytest.mark.parametrize("dims", [["country"], ["country", "plan"]])
@pytest.mark.parametrize("kind", KINDS)
def test_small_segments_are_left_out(kind, dims):
    rows = people()
    cells = read(rows, kind, dims)
    found = protect(cells, 15)
    few = small(rows, dims, 15)
    assert few.any()
    kept = rows[~few]
    assert int(found["n"].sum()) == len(kept)
    assert not ((found["n"] > 0) & (found["n"] < 15)).any()
    levels = [tuple(row) for row in kept[dims].drop_duplicates().to_numpy()]
    assert set(zip(*(found[dim].values for dim in dims), strict=True)) == set(levels)
    by = dict(zip(cells["segment"].values, range(cells.sizes["segment"]), strict=True))
    whole = cells.isel(segment=[by[label] for label in found["segment"].values])
    xr.testing.assert_equal(found.drop_attrs(), without_extremes(whole))


@pytest.mark.parametrize("dims", [["country"], ["country", "plan"]])
@pytest.mark.parametrize("kind", KINDS)
def test_small_segments_are_merged_as_if_their_levels_had_been_renamed(kind, dims):
    rows = people()
    found = protect(read(rows, kind, dims), 14, "merge")
    few = small(rows, dims, 14)
    renamed = rows.assign(**{dim: rows[dim].where(~few, OTHER_LEVEL) for dim in dims})
    expected = without_extremes(read(renamed, kind, dims))
    assert set(found.data_vars) == set(expected.data_vars)
    xr.testing.assert_allclose(found.drop_attrs(), expected, rtol=1e-9, atol=1e-9)
    assert int(found["n"].sum()) == len(rows)


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 9), min_size=60, max_size=120), st.integers(2, 30), st.sampled_from(["suppress", "merge"])
)
def test_no_cell_with_few_units_is_left(countries, least, how):
    rows = people(len(countries)).assign(country=[f"c{min(country, 5)}" for country in countries])
    cells = read(rows, "mean", ["country"])
    if int(cells["n"].min("arm").max()) < least:  # nothing need be left
        return
    found = protect(cells, least, how)
    assert not ((found["n"] > 0) & (found["n"] < least)).any()
    assert protect(found, least, how).drop_attrs().identical(found.drop_attrs())


def test_a_note_says_how_many_segments_and_what_became_of_them():
    cells = read(people(), "mean", ["country"])
    count = int((cells["n"].min("arm") < 14).sum())
    start = f"{count} segments of 5 with fewer than 14 units in an arm"
    assert cell_table.list_notes(protect(cells, 14))[-1] == f"{start} are left out, to protect the people in them"
    merged = cell_table.list_notes(protect(cells, 14, "merge"))[-1]
    assert merged == f"{start} together form the segment (other), to protect the people in them"


def test_what_is_too_few_even_together_is_left_out():
    rows = people(200)
    rows.loc[:4, "country"], rows.loc[5:, "country"] = "MT", "DE"
    found = protect(read(rows, "mean", ["country"]), 10, "merge")
    assert found["segment"].values.tolist() == ["DE"]
    assert "are left out, for together they are still too few" in cell_table.list_notes(found)[-1]


def test_nothing_is_said_where_nothing_is_small():
    cells = read(people(), "mean", ["plan"])
    found = protect(cells, 15)
    assert cell_table.list_notes(found) == []
    xr.testing.assert_equal(found.drop_attrs(), without_extremes(cells))


def test_extremes_and_the_number_of_rows_are_gone():
    cells = read(people(), "mean", ["country"])
    assert {"lowest", "highest"} <= set(cells.data_vars)
    found = protect(cells, 15)
    assert not {"lowest", "highest"} & set(found.data_vars)
    assert cells.attrs["source"] == "600 rows of pandas.DataFrame"
    assert found.attrs["source"] == "pandas.DataFrame"


def test_the_number_of_rows_is_gone_from_every_part_of_a_merged_table():
    rows = people()
    cells = merge(read(rows[:300], "mean", ["country"]), read(rows[300:], "mean", ["country"]))
    assert protect(cells, 15).attrs["source"] == "pandas.DataFrame + pandas.DataFrame"


def test_notes_that_name_few_units_are_gone():
    rows = people()
    rows.loc[:3, "y"] = np.nan
    rows.loc[10:40, "plan"] = None
    cells = from_rows(rows, outcome="y", segments=["country", "plan"], drop_missing=True, rare=30, cap=1.5, **KEYS)
    notes = cell_table.list_notes(cells)
    assert any(note.startswith("4 of 600 outcomes") for note in notes)
    assert any("LI (" in note for note in notes)
    kept = cell_table.list_notes(protect(cells, 15))
    assert not any(note.startswith("4 of 600") or "LI (" in note for note in kept)
    assert "31 units have no value for plan; they form the level (missing)" in kept
    assert any("lie beyond the cap" in note for note in kept)


@pytest.mark.parametrize(
    ("note", "kept"),
    [
        ("3 units are odd", False),
        ("there are 3.", False),
        ("MT (3), LI (1)", False),
        ("1,003 of 20,000 units", True),
        ("p = 0.003 and 12.5 more", True),
        ("0 of 600 outcomes", True),
        ("10 units", True),
        ("no number at all", True),
    ],
)
def test_a_number_is_few_if_it_could_be_that_of_a_cell(note, kept):
    cells = read(people(), "mean", ["plan"]).assign_attrs(notes=json.dumps([note]))
    assert cell_table.list_notes(protect(cells, 10)) == [note] * kept


def test_summaries_and_estimates_can_be_suppressed_but_not_merged():
    table = pd.DataFrame({"country": ["DE", "DE", "MT", "MT"], "arm": ["old", "new"] * 2, "n": [90, 80, 9, 8],
                          "m": [1.0, 2, 3, 4], "s": 0.5})  # fmt: skip
    means = from_summary(table, segments=["country"], n="n", mean="m", se="s", **KEYS)
    effects = from_estimates(table[table["arm"] == "new"], segments=["country"], estimate="m", se="s", n="n")
    for cells in (means, effects):
        assert protect(cells, 10)["segment"].values.tolist() == ["DE"]
        with pytest.raises(DataError, match='cannot be put together; use "suppress", or give rows'):
            protect(cells, 10, "merge")


def test_a_covariance_loses_the_rows_and_columns_of_small_segments():
    table = pd.DataFrame({"country": ["DE", "MT", "FR"], "effect": [1.0, 2, 3], "n": [90, 8, 70]})
    matrix = np.array([[2.0, 0.5, 0.3], [0.5, 3.0, 0.1], [0.3, 0.1, 4.0]])
    cells = from_estimates(table, segments=["country"], estimate="effect", n="n", covariance=matrix)
    found = protect(cells, 10)
    assert found["segment"].values.tolist() == found["other_segment"].values.tolist() == ["DE", "FR"]
    assert found["covariance"].values.tolist() == [[2, 0.3], [0.3, 4]]


def test_covariates_are_kept_where_segments_are_left_out():
    rows = people()
    known = pd.DataFrame({"country": ["DE", "FR", "MT", "LU", "LI"], "size": [80, 60, 1, 1, 0]})
    cells = with_covariates(read(rows, "mean", ["country"]), known, ["size"])
    assert protect(cells, 20)["covariates"].values.tolist() == [[80], [60]]
    assert "covariates" not in protect(cells, 14, "merge")


def test_the_table_is_left_as_it_was():
    cells = read(people(), "cuped", ["country"])
    before = cells.copy(deep=True)
    protect(cells, 14, "merge")
    xr.testing.assert_identical(cells, before)


@pytest.mark.parametrize(
    ("min_units", "how", "message"),
    [
        (1, "suppress", "min_units is 1; give a number of units, 2 or more"),
        (True, "suppress", "min_units is True"),
        (9.5, "suppress", "min_units is 9.5"),
        (10, "hide", "there is no way 'hide' to protect small cells; there are suppress, merge"),
        (100_000, "suppress", "all 5 segments have fewer than 100000 units in an arm, so nothing is left; name fewer"),
        (100_000, "merge", "so nothing is left"),
    ],
)
def test_what_makes_no_sense_is_refused(min_units, how, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        protect(read(people(), "mean", ["country"]), min_units, how)


def test_cells_without_a_number_of_units_cannot_be_protected():
    table = pd.DataFrame({"school": ["a", "b"], "effect": [1.0, 2.0], "se": [1.0, 1.0]})
    with pytest.raises(DataError, match=r"how many units a cell has is not known, .*; give n"):
        protect(from_estimates(table, segments=["school"], estimate="effect", se="se"), 10)


def test_what_is_known_of_few_units_besides_is_gone():
    n = 400
    draw = np.random.default_rng(3)
    rows = pd.DataFrame(
        {"arm": ["old", "new"] * (n // 2), "device": ["tv"] * 200 + ["web"] * 200, "y": draw.normal(size=n)}
    )
    rows["age"] = np.where(rows.index < 199, np.nan, draw.normal(40, 5, n))  # known of one unit of tv in the new arm
    rows.loc[[300, 302, 304], "y"] = np.nan  # of web in the old arm
    rows.loc[rows.index[201:250:2], "y"] = np.nan
    cells = from_rows(
        rows, outcome="y", arm="arm", control="old", segments=["device"], balance=["age"], drop_missing=True
    )
    assert cells["pre_n"].sel(segment="tv").values.ravel().tolist() == [0, 1]
    shown = protect(cells, 10)
    assert shown["pre_n"].sel(segment="tv").values.ravel().tolist() == [0, 0]
    assert shown["pre_mean"].sel(segment="tv").isnull().all()
    assert shown["n_missing"].sel(segment="web").values.tolist() == [0, 25]
    xr.testing.assert_identical(shown["pre_mean"].sel(segment="web"), cells["pre_mean"].sel(segment="web"))
