"""from_summary and from_estimates: three kinds of summary, published effects, and what cannot be true."""

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr

from bayes_hte.cells import from_estimates, from_rows, from_summary
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

SUMMARY = {
    "device": ["tv", "mobile", "mobile", "tv"],
    "arm": ["new", "old", "new", "old"],
    "users": [40, 1000, 900, 50],
    "bought": [4, 100, 120, 5],
    "mean": [2.5, 10.0, 12.0, 3.5],
    "sd": [1.5, 5.0, 6.0, 2.0],
    "se": [0.3, 0.2, 0.25, 0.4],
}
COUNTS = {"n": "users", "events": "bought"}
MOMENTS = {"n": "users", "mean": "mean", "sd": "sd"}
MEANS = {"mean": "mean", "se": "se"}


def summary(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame(SUMMARY | changes)


def read(table: Any, **changes: Any) -> xr.Dataset:
    return from_summary(table, **({"arm": "arm", "control": "old", "segments": ["device"]} | changes))


def test_n_and_events_give_counts_in_every_engine(engine):
    cells = read(engine(SUMMARY), **COUNTS)
    assert cell_table.identify_kind(cells) == "counts"
    assert cells.n.values.tolist() == [[1000, 900], [50, 40]]
    assert cells.events.values.tolist() == [[100, 120], [5, 4]]
    assert cells.arm.values.tolist() == ["old", "new"]


def test_n_mean_and_sd_give_moments_in_every_engine(engine):
    cells = read(engine(SUMMARY), **MOMENTS)
    assert cell_table.identify_kind(cells) == "moments"
    np.testing.assert_allclose(cells.ss, [[25 * 999, 36 * 899], [4 * 49, 2.25 * 39]], rtol=1e-15)


@pytest.mark.parametrize("n", [None, "users"])
def test_mean_and_se_give_means(n):
    cells = read(summary(), **MEANS, n=n)
    assert cell_table.identify_kind(cells) == "means"
    assert cells.se.values.tolist() == [[0.2, 0.25], [0.4, 0.3]]
    assert ("n" in cells) == (n is not None)


def test_a_summary_of_rows_gives_the_cells_of_the_rows():
    draw = np.random.default_rng(5)
    rows = pd.DataFrame({"device": ["tv", "web", "app"] * 50, "arm": ["old", "new"] * 75, "y": draw.gamma(2, size=150)})
    table = rows.groupby(["device", "arm"])["y"].agg(["count", "mean", "std"]).reset_index()
    direct = from_rows(rows, outcome="y", arm="arm", control="old", segments=["device"])
    cells = read(table, n="count", mean="mean", sd="std", outcome="y")
    xr.testing.assert_allclose(cells, direct[[*cells.data_vars]], rtol=1e-12)  # rows know their extremes too


def test_whole_numbers_stored_as_floats_are_counts():
    assert read(summary(users=[40.0, 1000.0, 900.0, 50.0]), **COUNTS).n.dtype == np.int64


@pytest.mark.parametrize("kind", [COUNTS, MOMENTS, {**MEANS, "n": "users"}])
def test_a_row_without_units_and_a_missing_row_are_empty_cells(kind):
    nothing = {"bought": [None, 100, 120, 5], "mean": [None, 10.0, 12.0, 3.5], "sd": [None, 5.0, 6.0, 2.0]}
    with_zero = read(summary(users=[0, 1000, 900, 50], se=[None, 0.2, 0.25, 0.4], **nothing), **kind)
    xr.testing.assert_identical(with_zero.drop_attrs(), read(summary().iloc[1:], **kind).drop_attrs())
    assert cell_table.has_data(with_zero).values.tolist() == [[True, True], [True, False]]


def test_one_unit_needs_no_sd():
    cells = read(summary(users=[1, 1000, 900, 50], sd=[None, 5.0, 6.0, 2.0]), **MOMENTS)
    assert float(cells.ss.sel(segment="tv", arm="new")) == 0


def test_rows_without_a_level_form_a_level_and_are_noted():
    cells = read(summary(device=[None, "mobile", "mobile", None]), **COUNTS)
    assert cells.device.values.tolist() == ["mobile", "(missing)"]
    assert cell_table.list_notes(cells) == ["2 rows have no value for device; they form the level (missing)"]


RATES = {"events": "bought", "exposure": "hours"}
TWO_PART = {**MOMENTS, "positive": "bought", "log_mean": "lm", "log_sd": "ls"}
MORE = SUMMARY | {"hours": [40.5, 90.0, 80.0, 4.5], "lm": [1.0, 2.0, 2.5, 0.5], "ls": [0.5, 1.0, 2.0, 0.0]}


def more(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame(MORE | changes)


@pytest.mark.parametrize("n", [None, "users"])
def test_events_and_exposure_give_rates_in_every_engine(engine, n):
    cells = read(engine(MORE), **RATES, n=n)
    assert cell_table.identify_kind(cells) == "rates"
    assert cells.events.values.tolist() == [[100, 120], [5, 4]]
    assert cells.exposure.values.tolist() == [[90, 80], [4.5, 40.5]]
    assert ("n" in cells) == (n is not None)


def test_a_summary_in_two_parts_keeps_moments_of_logarithms_in_every_engine(engine):
    cells = read(engine(MORE), **TWO_PART)
    assert cell_table.identify_kind(cells) == "two_part"
    assert cells.positive.values.tolist() == [[100, 120], [5, 4]]
    assert cells.log_mean.values.tolist() == [[2, 2.5], [0.5, 1]]
    np.testing.assert_allclose(cells.log_ss, [[99, 4 * 119], [0, 0.25 * 3]], rtol=1e-15)
    np.testing.assert_allclose(cells.ss, [[25 * 999, 36 * 899], [4 * 49, 2.25 * 39]], rtol=1e-15)


def test_a_summary_of_rows_in_two_parts_gives_the_cells_of_the_rows():
    draw = np.random.default_rng(5)
    y = np.where(draw.random(150) < 0.5, draw.gamma(2, size=150), 0.0)
    rows = pd.DataFrame({"device": ["tv", "web", "app"] * 50, "arm": ["old", "new"] * 75, "y": y})
    logs = np.log(rows["y"].where(rows["y"] > 0))
    grouped = rows.assign(positive=rows["y"] > 0, logs=logs).groupby(["device", "arm"])
    table = grouped.agg(
        n=("y", "size"),
        mean=("y", "mean"),
        sd=("y", "std"),
        positive=("positive", "sum"),
        lm=("logs", "mean"),
        ls=("logs", "std"),
    )
    direct = from_rows(rows, outcome="y", arm="arm", control="old", segments=["device"], metric="two_part")
    names = {"n": "n", "mean": "mean", "sd": "sd", "positive": "positive", "log_mean": "lm", "log_sd": "ls"}
    cells = read(table.reset_index(), **names, outcome="y")
    xr.testing.assert_allclose(cells, direct[[*cells.data_vars]], rtol=1e-12)


@pytest.mark.parametrize("kind", [RATES | {"n": "users"}, TWO_PART])
def test_a_row_without_units_is_an_empty_cell_of_every_kind(kind):
    table = more(**{name: [None, *MORE[name][1:]] for name in ("bought", "mean", "sd", "hours", "lm", "ls")})
    cells = read(table.assign(users=[0, 1000, 900, 50]), **kind)
    xr.testing.assert_identical(cells.drop_attrs(), read(more().iloc[1:], **kind).drop_attrs())
    assert cell_table.has_data(cells).values.tolist() == [[True, True], [True, False]]


def test_cells_without_exposure_are_empty_whatever_their_units():
    cells = read(more(hours=[0, 90, 80, 4.5], bought=[None, 100, 120, 5]), **RATES)
    assert cell_table.has_data(cells).values.tolist() == [[True, True], [True, False]]


def test_one_positive_unit_needs_no_sd_and_none_no_mean_of_logarithms():
    table = more(bought=[1, 100, 0, 5], lm=[1.0, 2.0, None, 0.5], ls=[None, 1.0, None, 1.0], mean=[2.5, 10.0, 0, 3.5])
    cells = read(table, **TWO_PART)
    np.testing.assert_array_equal(cells.log_mean, [[2, np.nan], [0.5, 1]])
    np.testing.assert_array_equal(cells.log_ss, [[99, 0], [4, 0]])


BAD_KINDS = {
    "events without time": ({"hours": [0, 90, 80, 4.5]}, RATES, "exposure must be greater than 0 where there are ev"),
    "negative exposure": ({"hours": [-1, 90, 80, 4.5]}, RATES, "exposure must not be negative; wrong in segment 'tv'"),
    "missing exposure": ({"hours": [None, 90, 80, 4.5]}, RATES, "exposure must be a finite number"),
    "endless exposure": ({"hours": [np.inf, 90, 80, 4.5]}, RATES, "exposure must be a finite number"),
    "broken events": ({"bought": [0.5, 1, 2, 3]}, RATES, "events must be a whole number"),
    "nothing happened": ({"bought": 0}, RATES, "no events in any cell"),
    "time of nobody": (
        {"users": [0, 1000, 900, 50]},
        RATES | {"n": "users"},
        "n must be at least 1 where there is exp",
    ),
    "no control": ({"hours": [40, 0, 80, 0], "bought": [4, 0, 1, 0]}, RATES, "no unit is in the control arm 'old'"),
    "rates with sd": ({}, RATES | {"sd": "sd"}, r"events and exposure, with n if known \(rates\)"),
    "half of two parts": ({}, MOMENTS | {"positive": "bought"}, "make no summary"),
    "more positive": ({"bought": [41, 1, 2, 3]}, TWO_PART, "positive must not be more than n; wrong in segment 'tv'"),
    "broken positive": ({"bought": [0.5, 1, 2, 3]}, TWO_PART, "positive must be a whole number"),
    "mean of nothing": ({"bought": [0, 1, 2, 3]}, TWO_PART, "mean must be above 0 where outcomes are positive, else 0"),
    "no mean": ({"mean": [0.0, 1, 2, 3]}, TWO_PART, "mean must be above 0 where outcomes are positive"),
    "negative mean": ({"mean": [-1.0, 1, 2, 3]}, TWO_PART, "mean must be above 0 where outcomes are positive"),
    "no log mean": ({"lm": [None, 1, 2, 3]}, TWO_PART, "log_mean must be a finite number; wrong in segment 'tv'"),
    "log of zero": ({"lm": [-np.inf, 1, 2, 3]}, TWO_PART, "log_mean must be a finite number"),
    "no log sd": ({"ls": [None, 1, 2, 3]}, TWO_PART, "log_sd must be a finite number"),
    "negative log sd": ({"ls": [-1, 1, 2, 3]}, TWO_PART, "log_sd must not be negative"),
    "no zero": ({"bought": SUMMARY["users"]}, TWO_PART, "every outcome is positive: .* for the family mean or normal"),
    "yes or no": ({"lm": 1.0, "ls": 0.0}, TWO_PART, "all positive outcomes are equal: .* for the family binomial"),
    "nothing positive": ({"mean": 0.0, "sd": 0.0, "bought": 0}, TWO_PART, "the outcome does not vary"),
}


@pytest.mark.parametrize(("changes", "keywords", "message"), BAD_KINDS.values(), ids=BAD_KINDS)
def test_impossible_rates_and_parts_are_named(changes, keywords, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(more(**changes), **keywords)


BAD_SUMMARIES = {
    "no columns": ({}, {}, r"make no summary: none of them; give n and events .* or let from_table find the columns"),
    "ambiguous": ({}, COUNTS | {"mean": "mean"}, r"make no summary: n='users', events='bought', mean='mean'"),
    "sd and se": ({}, MOMENTS | {"se": "se"}, "make no summary"),
    "events alone": ({}, {"events": "bought"}, "make no summary"),
    "missing column": ({}, {"n": "user", "events": "bought"}, r"lacks the column 'user'; did you mean 'users'\?"),
    "used twice": ({}, {"n": "users", "events": "users"}, "'users' is used twice, for n and for events"),
    "twice": ({"device": "tv"}, COUNTS, "segment 'tv', arm 'new' appears twice, in rows 1 and 3"),
    "more events": (
        {"bought": [41, 1, 2, 3]},
        COUNTS,
        "events must not be more than n; wrong in segment 'tv', arm 'new'",
    ),
    "negative n": (
        {"users": [-40, 1000, 900, 50]},
        COUNTS,
        "n must be a whole number, 0 or more; wrong in segment 'tv', arm 'new'",
    ),
    "broken n": ({"users": [40.5, 1000, 900, 50]}, COUNTS, "n must be a whole number"),
    "broken events": ({"bought": [0.5, 1, 2, 3]}, COUNTS, "events must be a whole number"),
    "missing n": ({"users": [None, 1000, 900, 50]}, COUNTS, "n must be a finite number"),
    "missing events": (
        {"bought": [None, 1, None, 3]},
        COUNTS,
        "events must be a finite number; wrong in segment 'tv', arm 'new' and 1 other row",
    ),
    "text": ({"users": list("abcd")}, COUNTS, "n must hold numbers, but 4 of 4 values are none: 'a'"),
    "numbers as text": ({"users": list("1234")}, COUNTS, "n must be numbers, but holds text, such as '1'"),
    "negative sd": ({"sd": [-1.0, 1, 1, 1]}, MOMENTS, "sd must not be negative"),
    "infinite mean": ({"mean": [np.inf, 1, 1, 1]}, MOMENTS, "mean must be a finite number"),
    "missing mean": ({"mean": [None, 1, 1, 1]}, MEANS, "mean must be a finite number"),
    "missing sd": ({"sd": [None, 1, 1, 1]}, MOMENTS, "sd must be a finite number"),
    "zero se": ({"se": [0.0, 1, 1, 1]}, MEANS, "se must be greater than 0; wrong in segment 'tv', arm 'new'"),
    "negative se": ({"se": [-1.0, 1, 1, 1]}, MEANS, "se must be greater than 0"),
    "infinite se": ({"se": [np.inf, 1, 1, 1]}, MEANS, "se must be a finite number"),
    "unknown control": (
        {},
        COUNTS | {"control": "older"},
        r"control arm 'older'; arms in 'arm' are 'new', 'old'; did you mean 'old'\?",
    ),
    "empty control": (
        {"users": [40, 0, 900, 0], "bought": [4, 0, 1, 0]},
        COUNTS,
        "no unit is in the control arm 'old'; arms in 'arm' are 'new'",
    ),
    "one arm": ({"arm": "old", "device": list("abcd")}, COUNTS, "all units are in one arm"),
    "missing arm": ({"arm": ["new", "old", "new", None]}, COUNTS, "1 row has no arm in 'arm'"),
    "no events": ({"bought": 0}, COUNTS, "no events in any cell"),
    "always": ({"bought": SUMMARY["users"]}, COUNTS, "every unit has the event"),
    "constant": ({"mean": 2.0, "sd": 0.0}, MOMENTS, "the outcome does not vary"),
    "no dimension": ({}, COUNTS | {"segments": []}, "segments is empty"),
    "reserved": ({"raw": "a"}, COUNTS | {"segments": ["device", "raw"]}, "uses the name 'raw' itself"),
}


@pytest.mark.parametrize(("changes", "keywords", "message"), BAD_SUMMARIES.values(), ids=BAD_SUMMARIES)
def test_an_impossible_summary_is_named(changes, keywords, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(summary(**changes), **keywords)


@pytest.mark.parametrize("table", [summary().iloc[:0], pl.DataFrame(SUMMARY).clear().lazy()])
def test_a_summary_without_rows_is_refused(table):
    with pytest.raises(DataError, match="has no rows"):
        read(table, **COUNTS)


def test_a_relation_whose_query_fails_is_named():
    relation = (
        duckdb.connect()
        .sql("select 'a' as device, 'old' as arm, 'x'::varchar as u")
        .project("device, arm, cast(u as integer) as users, 1 as bought")
    )
    with pytest.raises(DataError, match=r"cannot read duckdb.DuckDBPyRelation: Conversion Error") as caught:
        read(relation, **COUNTS)
    assert isinstance(caught.value.__cause__, duckdb.Error)


SCHOOLS = {"school": ["C", "A", "B"], "y": [-3.0, 28.0, 8.0], "se": [16.0, 15.0, 10.0], "pupils": [30, 20, 25]}
COVARIANCE = np.array([[256.0, 10.0, -20.0], [10.0, 225.0, 30.0], [-20.0, 30.0, 100.0]])


def effects(columns: Any = SCHOOLS, **changes: Any) -> xr.Dataset:
    table = pd.DataFrame(columns) if isinstance(columns, dict) else columns
    return from_estimates(table, **({"segments": ["school"], "estimate": "y", "se": "se"} | changes))


def test_estimates_are_kept_in_every_engine(engine):
    cells = effects(engine(SCHOOLS), n="pupils")
    assert cell_table.identify_kind(cells) == "estimates"
    assert cells.attrs["control"] == ""
    assert cells.arm.values.tolist() == cell_table.list_treated_arms(cells) == ["treated"]
    assert cells.estimate.values.tolist() == [[28.0], [8.0], [-3.0]]
    assert cells.se.values.tolist() == [[15.0], [10.0], [16.0]]
    assert cells.n.values.tolist() == [[20], [25], [30]]


def test_estimates_of_several_arms_may_have_gaps():
    cells = effects(
        {"school": ["A", "A", "B"], "arm": ["y", "x", "x"], "y": [1.0, 2.0, 3.0], "se": [1.0] * 3}, arm="arm"
    )
    assert cells.arm.values.tolist() == ["x", "y"]
    np.testing.assert_array_equal(cells.estimate, [[2.0, 1.0], [3.0, np.nan]])


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist, pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("se", ["se", None])
def test_a_covariance_follows_its_segments_into_their_order(kind, se):
    cells = effects(covariance=kind(COVARIANCE), se=se)
    assert cells.covariance.dims == ("segment", "other_segment")
    assert cells.covariance.sel(segment="C", other_segment="B").item() == -20
    assert cells.covariance.sel(segment="A", other_segment="B").item() == 30
    np.testing.assert_array_equal(np.diag(cells.covariance), [225, 100, 256])
    np.testing.assert_array_equal(cells.se.squeeze("arm"), [15, 10, 16])


def test_published_rounding_of_se_agrees_with_the_covariance():
    cells = effects(SCHOOLS | {"se": [16.04, 15.04, 9.96]}, covariance=COVARIANCE)
    np.testing.assert_array_equal(cells.se.squeeze("arm"), [15, 10, 16])


def test_a_covariance_becomes_exactly_symmetric():
    matrix = effects(covariance=changed(0, 1, 10 + 1e-9)).covariance.values
    np.testing.assert_array_equal(matrix, matrix.T)


def changed(i: int, j: int, value: float) -> np.ndarray:
    matrix = COVARIANCE.copy()
    matrix[i, j] = value
    return matrix


LABELLED = pd.DataFrame(COVARIANCE, index=["A", "B", "C"], columns=["A", "B", "C"])

BAD_ESTIMATES = {
    "no uncertainty": ({}, {"se": None}, "estimates need their uncertainty"),
    "missing estimate": (
        {"y": [None, 1.0, 2.0]},
        {},
        "estimate must be a finite number; wrong in segment 'C', arm 'treated'",
    ),
    "infinite se": ({"se": [np.inf, 1.0, 2.0]}, {}, "se must be a finite number"),
    "zero se": ({"se": [0.0, 1.0, 2.0]}, {}, "se must be greater than 0"),
    "negative se": ({"se": [-1.0, 1.0, 2.0]}, {}, "se must be greater than 0"),
    "twice": ({"school": ["A", "B", "A"]}, {}, "segment 'A', arm 'treated' appears twice, in rows 1 and 3"),
    "zero n": ({"pupils": [0, 1, 1]}, {"n": "pupils"}, "n must be at least 1"),
    "broken n": ({"pupils": [1.5, 1, 1]}, {"n": "pupils"}, "n must be a whole number"),
    "two arms": ({"arm": ["x", "x", "y"]}, {"arm": "arm", "covariance": COVARIANCE}, "for one arm only"),
    "missing arm": ({"arm": ["x", "x", None]}, {"arm": "arm"}, "1 row has no arm"),
    "shape": ({}, {"covariance": COVARIANCE[:2]}, r"has shape \(2, 3\); 3 estimates need \(3, 3\)"),
    "ragged": ({}, {"covariance": [[1, 2], [3]]}, "is no matrix of numbers"),
    "gap": ({}, {"covariance": changed(0, 1, np.nan)}, "has 1 entries that are not finite"),
    "asymmetric": ({}, {"covariance": changed(0, 1, 11.0)}, "not symmetric: 'C' with 'A'"),
    "no variance": ({}, {"covariance": changed(0, 0, 0.0)}, "variances must be greater than 0"),
    "indefinite": (
        {},
        {"covariance": np.array([[256, 216, -144], [216, 225, 135], [-144, 135, 100]])},
        "not positive definite",
    ),
    "singular": ({}, {"covariance": np.ones((3, 3))}, "not positive definite"),
    "other se": (
        {"se": [16.2, 15, 10]},
        {"covariance": COVARIANCE},
        "standard error of 'C' is 16.2, but its variance in the covariance gives 16",
    ),
    "other order": ({}, {"covariance": LABELLED}, "the covariance's index have another order"),
}


@pytest.mark.parametrize(("changes", "keywords", "message"), BAD_ESTIMATES.values(), ids=BAD_ESTIMATES)
def test_impossible_estimates_are_named(changes, keywords, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        effects(SCHOOLS | changes, **keywords)
