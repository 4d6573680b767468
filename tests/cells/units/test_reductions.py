"""What rows are reduced to beyond means: rates, histograms and two parts, against plain Python in every engine."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_rows, with_covariates
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table


def experiment(units: int = 300, seed: int = 11) -> dict[str, list[Any]]:
    """Visits, hours and revenue of units in two dimensions and three arms; one cross of levels never occurs."""
    draw = np.random.default_rng(seed)
    columns = {
        "device": draw.choice(["mobile", "desktop", "tv"], units).tolist(),
        "age": draw.choice([9, 10], units).tolist(),
        "arm": draw.choice(["old", "new b", "new a"], units).tolist(),
        "visits": draw.poisson(1.5, units).tolist(),
        "hours": draw.gamma(2, 1, units).tolist(),
        "revenue": np.where(draw.random(units) < 0.4, draw.lognormal(3, 1, units), 0.0).tolist(),
    }
    keep = [i for i in range(units) if (columns["device"][i], columns["age"][i]) != ("tv", 9)]
    return {name: [column[i] for i in keep] for name, column in columns.items()}


def rows_by_cell(columns: dict[str, list[Any]], dims: list[str], *names: str) -> dict[tuple[str, str], list[Any]]:
    """The values of some columns, row by row, per segment label and arm."""
    cells = defaultdict(list)
    for i, arm in enumerate(columns["arm"]):
        key = " · ".join(str(columns[dim][i]) for dim in dims), arm
        cells[key].append(tuple(columns[name][i] for name in names))
    return dict(cells)


def read(data: Any, **changes: Any) -> xr.Dataset:
    keywords: dict[str, Any] = {"outcome": "visits", "arm": "arm", "control": "old", "segments": ["device"]}
    return from_rows(data, **(keywords | changes))


def small(**changes: Any) -> pd.DataFrame:
    """Eight users, two devices, two arms."""
    columns = {
        "device": ["mobile"] * 4 + ["tv"] * 4,
        "arm": ["old", "old", "new", "new"] * 2,
        "visits": [1, 3, 0, 8, 0, 2, 1, 1],
        "hours": [1.0, 2.0, 0.0, 4.0, 0.5, 0.5, 2.0, 3.0],
    }
    return pd.DataFrame(columns | changes)


@pytest.mark.parametrize("dims", [["device"], ["device", "age"]])
def test_rates_add_up_events_and_exposure_in_every_engine(engine, dims):
    columns = experiment()
    cells = read(engine(columns), segments=dims, exposure="hours")
    assert cell_table.identify_kind(cells) == "rates"
    expected = rows_by_cell(columns, dims, "visits", "hours")
    assert int(cell_table.has_data(cells).sum()) == len(expected)
    for (segment, arm), rows in expected.items():
        cell = cells.sel(segment=segment, arm=arm)
        assert int(cell.n) == len(rows)
        assert int(cell.events) == sum(events for events, _ in rows)
        assert float(cell.exposure) == pytest.approx(math.fsum(hours for _, hours in rows), rel=1e-13)
    assert {name: cells[name].dtype.str for name in cells} == {"n": "<i8", "events": "<i8", "exposure": "<f8"}


def test_cells_without_exposure_are_empty(engine):
    columns = {name: list(column) for name, column in small().items()}
    cells = read(engine(columns | {"hours": [1.0, 2, 0, 4, 0.5, 0.5, 0, 0], "visits": [1, 3, 0, 8, 0, 2, 0, 0]}),
                 exposure="hours")  # fmt: skip
    assert cell_table.has_data(cells).values.tolist() == [[True, True], [True, False]]
    assert cells.exposure.values.tolist() == [[3, 4], [1, 0]]


@pytest.mark.parametrize("dims", [["device"], ["device", "age"]])
def test_histograms_count_units_by_value_in_every_engine(engine, dims):
    columns = experiment()
    cells = read(engine(columns), segments=dims, metric="histogram")
    assert cell_table.identify_kind(cells) == "histogram"
    assert cells.value.values.tolist() == sorted({float(visits) for visits in columns["visits"]})
    for (segment, arm), rows in rows_by_cell(columns, dims, "visits").items():
        counted = Counter(visits for (visits,) in rows)
        cell = cells.sel(segment=segment, arm=arm)
        assert int(cell.n) == len(rows)
        assert dict(zip(cell.value.values, cell.histogram.values.tolist(), strict=True)) == {
            value: counted[value] for value in cell.value.values
        }


def test_values_of_a_histogram_may_be_any_numbers_and_booleans(engine):
    columns = {name: list(column) for name, column in small().items()}
    cells = read(engine(columns | {"visits": [-0.0, 0.5, -1.5, 0.0, 0.0, 0.5, 0.5, 0.5]}), metric="histogram")
    assert list(map(repr, cells.value.values.tolist())) == ["-1.5", "0.0", "0.5"]
    assert cells.histogram.values.tolist() == [[[0, 1, 1], [1, 1, 0]], [[0, 1, 1], [0, 0, 2]]]
    truth = read(engine(columns | {"visits": [True, False] * 4}), metric="histogram")
    assert truth.histogram.values.tolist() == [[[1, 1]] * 2] * 2


@pytest.mark.parametrize("dims", [["device"], ["device", "age"]])
def test_two_parts_keep_the_moments_of_logarithms_in_every_engine(engine, dims):
    columns = experiment()
    cells = read(engine(columns), outcome="revenue", segments=dims, metric="two_part")
    assert cell_table.identify_kind(cells) == "two_part"
    for (segment, arm), rows in rows_by_cell(columns, dims, "revenue").items():
        revenue = np.array([value for (value,) in rows])
        logs = np.log(revenue[revenue > 0])
        cell = cells.sel(segment=segment, arm=arm)
        assert (int(cell.n), int(cell.positive)) == (len(revenue), len(logs))
        assert float(cell["mean"]) == pytest.approx(revenue.mean(), rel=1e-12)
        assert float(cell.ss) == pytest.approx(((revenue - revenue.mean()) ** 2).sum(), rel=1e-11)
        assert float(cell.log_mean) == pytest.approx(logs.mean(), rel=1e-12)
        assert float(cell.log_ss) == pytest.approx(((logs - logs.mean()) ** 2).sum(), rel=1e-11)


def test_cells_with_one_or_no_positive_outcome_have_no_spread_of_logarithms(engine):
    columns = {name: list(column) for name, column in small().items()}
    cells = read(engine(columns | {"visits": [0, 0, 0, math.e, 1, 2, 3, 3]}), metric="two_part")
    assert cells.positive.values.tolist() == [[0, 1], [2, 2]]
    np.testing.assert_allclose(cells.log_mean, [[np.nan, 1], [math.log(2) / 2, math.log(3)]], rtol=1e-14)
    np.testing.assert_allclose(cells.log_ss, [[0, 0], [math.log(2) ** 2 / 2, 0]], rtol=1e-14)
    assert float(cells.log_ss.sel(segment="tv", arm="new")) == 0  # equal values: exactly


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "float32", object])
def test_numbers_may_be_of_any_dtype_with_gaps(dtype):
    rows = pd.concat([small(), small().tail(1).assign(visits=None)]).astype({"visits": dtype})
    for name, keywords in METRICS.items():
        cells = read(rows, **keywords, drop_missing=True).drop_vars("n_missing")
        xr.testing.assert_allclose(cells.drop_attrs(), read(small(), **keywords).drop_attrs(), rtol=1e-14)
        assert cell_table.list_notes(cells) == ["1 of 9 outcomes in 'visits' is missing; dropped"], name


METRICS: dict[str, dict[str, Any]] = {
    "rates": {"exposure": "hours"},
    "histogram": {"metric": "histogram"},
    "two_part": {"metric": "two_part"},
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_dropping_is_the_same_as_never_having_had_the_rows(engine, metric):
    columns = {name: list(column) for name, column in small(hours=1.0).items()}
    more = {"device": ["tv", None, "tv"], "arm": ["new", "old", None], "visits": [None, 4, 5], "hours": [1.0, 1.0, 1.0]}
    whole = {name: columns[name] + more[name] for name in columns}
    with pytest.raises(DataError, match="1 of 11 outcomes in 'visits' is missing; 1 row has no arm in 'arm'; clean"):
        read(engine(whole), **metric)
    cells = read(engine(whole), **metric, drop_missing=True)
    assert cells["n_missing"].sel(segment="tv").values.tolist() == [0, 1]
    cells = cells.drop_vars("n_missing")
    left = {name: columns[name] + more[name][1:2] for name in columns}
    xr.testing.assert_allclose(cells.drop_attrs(), read(pd.DataFrame(left), **metric).drop_attrs(), rtol=1e-14)
    assert cell_table.list_notes(cells) == [
        "1 of 11 outcomes in 'visits' is missing; dropped",
        "1 row has no arm in 'arm'; dropped",
        "1 unit has no value for device; it forms the level (missing)",
    ]


def test_a_row_needs_both_its_events_and_its_exposure(engine):
    columns = {name: list(column) for name, column in small().items()}
    columns |= {"visits": [1, None, 0, 8, 0, 2, 1, 1], "hours": [1.0, None, math.inf, 4, 0.5, None, 2, 3]}
    faults = r"1 of 8 outcomes in 'visits' is missing; 2 of 8 exposures in 'hours' are missing and 1 infinite"
    with pytest.raises(DataError, match=faults):
        read(engine(columns), exposure="hours")
    cells = read(engine(columns), exposure="hours", drop_missing=True)
    assert cells.n.values.tolist() == [[1, 1], [1, 2]]
    assert cells.events.values.tolist() == [[1, 8], [0, 2]]
    assert cells.exposure.values.tolist() == [[1, 4], [0.5, 5]]


def test_levels_that_are_one_as_text_are_one_segment():
    rows = small(device=pd.Series(["1", 1, "1", 1, 2, "2", 2, "2"], dtype=object))
    for name, keywords in METRICS.items():
        cells = read(rows, **keywords)
        assert cells.device.values.tolist() == ["1", "2"], name
        xr.testing.assert_allclose(
            cells.drop_vars(["segment", "device"]).drop_attrs(),
            read(small(), **keywords).drop_vars(["segment", "device"]).drop_attrs(),
            rtol=1e-14,
        )


HOSTILE = ['a"b', "x; drop table rows; --", "größe·", "*", "^a$", "C0", "y0", "k0", "finite0", "n_infinite0", "rows"]


@pytest.mark.parametrize("metric", ["rates", "histogram", "two_part"])
def test_hostile_names_are_only_names(engine, metric):
    names = {"arm": "'); --", "visits": '"', "hours": "e;v.e n"}
    levels = {name: ["mobile"] * 4 + ["tv"] * 4 for name in HOSTILE}
    columns = {names[name]: list(column) for name, column in small().drop(columns="device").items()} | levels
    keywords = METRICS[metric] | ({"exposure": names["hours"]} if metric == "rates" else {})
    cells = read(engine(columns), outcome='"', arm="'); --", segments=HOSTILE, **keywords)
    expected = read(small(), **METRICS[metric])
    for name in cells:
        np.testing.assert_allclose(cells[name].values, expected[name].values, rtol=1e-14)


MANY = pd.DataFrame({"device": "a", "arm": ["old", "new"] * 1001, "visits": range(2002)})

BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "unknown metric": (small(), {"metric": "median"}, "no metric 'median'; there are 'mean', 'histogram', 'two_part'"),
    "metric and exposure": (small(), {"metric": "histogram", "exposure": "hours"}, "leave one of them out"),
    "exposure twice": (small(), {"exposure": "visits"}, "'visits' is used twice, for outcome and for exposure"),
    "no exposure": (small(), {"exposure": "hour"}, r"lacks the column 'hour'; did you mean 'hours'\?"),
    "text exposure": (small(hours="x"), {"exposure": "hours"}, "the exposure 'hours' has dtype .*, and a rate needs"),
    "negative exposure": (small(hours=-1.0), {"exposure": "hours"}, "8 exposures in 'hours' are negative; exposure is"),
    "broken events": (small(visits=[0.5, *[1] * 7]), {"exposure": "hours"}, "1 outcome in 'visits' cannot be a number"),
    "negative events": (small(visits=[-1, *[1] * 7]), {"exposure": "hours"}, "must be a whole number, 0 or more; for"),
    "too many events": (small(visits=1e300), {"exposure": "hours"}, "too many to count"),
    "no events": (small(visits=0), {"exposure": "hours"}, "no events in any cell: every outcome in 'visits' is 0"),
    "events in no time": (small(hours=[0, 0, 1, 1] * 2), {"exposure": "hours"}, "events without exposure in 2 cells"),
    "control without exposure": (
        small(hours=[0, 0, 1, 1] * 2, visits=[0, 0, 1, 1] * 2),
        {"exposure": "hours"},
        "no unit is in the control arm 'old'; arms in 'arm' are 'new'",
    ),
    "many values": (MANY, {"metric": "histogram"}, r'visits.* has 2,002 values or more.*use metric="mean"'),
    "one value": (small(visits=3), {"metric": "histogram"}, "does not vary: it is 3 for every unit"),
    "text value": (small(visits="good"), {"metric": "histogram"}, "'visits' has dtype .* needs numbers"),
    "negative": (small(visits=[-2, *[1] * 7]), {"metric": "two_part"}, "is 0 or more, but 'visits' goes down to -2; "),
    "nothing": (small(visits=0), {"metric": "two_part"}, "no outcome in 'visits' is greater than 0"),
    "no zero": (small(visits=[1, 2] * 4), {"metric": "two_part"}, "is 0, so it has one part.* family mean or normal"),
    "yes or no": (small(visits=[0, 2] * 4), {"metric": "two_part"}, "it says yes or no; .* the family binomial"),
    "control": (small(), {"metric": "two_part", "control": "odl"}, r"did you mean 'old'\?"),
    "id": (small(device=range(8)), {"metric": "histogram"}, "'device' has 8 levels for 8 units; did you mean an id"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "changes", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_named_with_the_way_out(data, changes, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(data, **changes)


def test_a_thousand_values_are_not_too_many():
    cells = read(MANY[:1000], metric="histogram")
    assert cells.sizes["value"] == 1000
    with pytest.raises(DataError, match="1,001 values or more"):
        read(MANY[:1001], metric="histogram")


def test_histograms_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr("bayes_hte.cells.summaries.from_levels.MAX_HISTOGRAM_ENTRIES", 23)
    with pytest.raises(DataError, match="4 cells with 6 values of the outcome 'visits' are too many"):
        read(small(visits=[0, 1, 2, 3, 4, 5, 5, 5]), metric="histogram")


def shifted(cells: xr.Dataset) -> xr.Dataset:
    return cells.assign_coords(value=cells.value + 1)


def renamed(cells: xr.Dataset) -> xr.Dataset:
    return cells.assign_coords(covariate=["other"])


@pytest.mark.parametrize("change", [shifted, renamed])
def test_the_fingerprint_knows_the_labels_of_all_dims(change: Callable[[xr.Dataset], xr.Dataset]) -> None:
    known = pd.DataFrame({"device": ["mobile", "tv"], "size": [1, 2]})
    cells = with_covariates(read(small(), metric="histogram"), known, ["size"])
    assert cell_table.hash_cell_table(cells) == cell_table.hash_cell_table(cells.copy(deep=True))
    assert cell_table.hash_cell_table(change(cells)) != cell_table.hash_cell_table(cells)
