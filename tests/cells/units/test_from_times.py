"""from_times: failures and time at risk per interval, against loops over the rows in every engine."""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_times
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table


def trial(units: int = 300, seed: int = 3, days: bool = False) -> dict[str, list[Any]]:
    """Exponential times, censored after 60; whole days have many ties."""
    draw = np.random.default_rng(seed)
    times = draw.exponential(40, units)
    seen = np.minimum(times, 60)
    return {
        "stage": draw.choice(["early", "late"], units).tolist(),
        "site": draw.choice([1, 2], units).tolist(),
        "arm": draw.choice(["old", "new", "newer"], units).tolist(),
        "days": (np.ceil(seen) if days else seen).tolist(),
        "died": (times <= 60).astype(int).tolist(),
    }


def read(data: Any, **changes: Any) -> xr.Dataset:
    keywords: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["stage"]}
    return from_times(data, **(keywords | {"time": "days", "event": "died"} | changes))


def small(**changes: Any) -> pd.DataFrame:
    columns = {
        "stage": ["early"] * 4 + ["late"] * 4,
        "arm": ["old", "old", "new", "new"] * 2,
        "days": [10.0, 30.0, 20.0, 50.0, 5.0, 30.0, 45.0, 60.0],
        "died": [1, 1, 0, 1, 1, 0, 1, 0],
    }
    return pd.DataFrame(columns | changes)


@pytest.mark.parametrize("dims", [["stage"], ["stage", "site"]])
@pytest.mark.parametrize("days", [True, False])
def test_every_engine_agrees_with_a_loop_over_the_rows(engine, dims, days):
    columns = trial(days=days)
    cells = read(engine(columns), segments=dims, breaks=[7, 30.5, 45])
    assert cell_table.identify_kind(cells) == "survival"
    assert cells.interval.values.tolist() == ["0–7", "7–30.5", "30.5–45", "45–60"]
    edges = [0, 7, 30.5, 45, 60]
    expected: dict[tuple[str, str], list[list[float]]] = {}
    for i, (time, died) in enumerate(zip(columns["days"], columns["died"], strict=True)):
        key = " · ".join(str(columns[dim][i]) for dim in dims), columns["arm"][i]
        failures, risk = expected.setdefault(key, [[0.0] * 4, [0.0] * 4])
        for k, (start, end) in enumerate(itertools.pairwise(edges)):
            if time > start:
                risk[k] += min(time, end) - start
                failures[k] += died and time <= end
    for (segment, arm), (failures, risk) in expected.items():
        cell = cells.sel(segment=segment, arm=arm)
        assert cell.failures.values.tolist() == failures
        np.testing.assert_allclose(cell.at_risk, risk, rtol=1e-12)
    assert int(cells.n.sum()) == 300
    assert {name: cells[name].dtype.str for name in cells} == {"n": "<i8", "failures": "<i8", "at_risk": "<f8"}


@pytest.mark.parametrize("days", [True, False])
def test_by_default_events_are_divided_into_four_about_equal_parts(engine, days):
    columns = trial(days=days)
    cells = read(engine(columns))
    died = np.array(columns["days"])[np.array(columns["died"]) == 1]
    quantiles = np.quantile(died, [0.25, 0.5, 0.75], method="lower")
    assert cells.start.values.tolist() == [0, *quantiles]
    assert cells.end.values.tolist() == [*quantiles, 60]
    assert int(cells.failures.sum()) == len(died)
    if not days:  # ties go to one side
        parts = cells.failures.sum(["segment", "arm"]).values
        assert parts.max() - parts.min() <= 2
    (note,) = [note for note in cell_table.list_notes(cells) if "cut" in note]
    assert note.startswith("time is cut at ")
    assert all(repr(float(cut)).removesuffix(".0") in note for cut in quantiles)
    assert abs((np.array(columns["days"]) <= cells.attrs["horizon"]).mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    ("days", "died", "cuts"),
    [
        ([5, 6, 7, 8, 9, 9, 9, 9], [0, 0, 0, 1, 0, 0, 0, 0], []),  # one event
        ([5, 6, 7, 8, 9, 9, 9, 9], [1, 0, 0, 1, 0, 0, 0, 0], [5]),
        ([5, 6, 7, 8, 9, 9, 9, 9], [1, 1, 0, 1, 0, 0, 0, 0], [5, 6]),
        ([5, 5, 5, 5, 5, 8, 8, 8], [1] * 8, [5]),  # ties
        ([5, 5, 5, 5, 5, 5, 5, 9], [1] * 7 + [0], []),  # all at once
        ([5, 5, 5, 5, 5, 5, 8, 9], [1] * 7 + [0], [5]),
    ],
)
def test_no_interval_of_its_own_choice_is_without_events(engine, days, died, cuts):
    columns = {name: list(column) for name, column in small(days=days, died=died).items()}
    cells = read(engine(columns))
    assert cells.start.values.tolist() == [0, *cuts]
    assert (cells.failures.sum(["segment", "arm"]) > 0).all()
    assert len([note for note in cell_table.list_notes(cells) if "cut" in note]) == bool(cuts)


def test_a_time_equal_to_a_break_belongs_to_the_interval_that_ends_there():
    cells = read(small(), breaks=[30])
    assert cells.failures.values.tolist() == [[[2, 0], [0, 1]], [[1, 0], [0, 1]]]
    assert cells.at_risk.values.tolist() == [[[40, 0], [50, 20]], [[35, 0], [60, 45]]]


def test_time_at_risk_adds_up_to_the_time_of_all_units():
    columns = trial()
    for breaks in (None, [], [1], [1, 2, 3, 50]):
        cells = read(pd.DataFrame(columns), breaks=breaks)
        assert float(cells.at_risk.sum()) == pytest.approx(math.fsum(columns["days"]), rel=1e-12)
        assert int(cells.failures.sum()) == sum(columns["died"])


def test_without_breaks_there_is_one_interval():
    cells = read(small(), breaks=[])
    assert cells.interval.values.tolist() == ["0–60"]
    assert not [note for note in cell_table.list_notes(cells) if "cut" in note]


@pytest.mark.parametrize("horizon", [60, 0.5])
def test_a_stated_horizon_is_kept(horizon):
    assert read(small(), horizon=horizon).attrs["horizon"] == horizon


def follow(times: np.ndarray, died: np.ndarray) -> xr.Dataset:
    arm = np.resize(["old", "new"], len(times))
    rows = pd.DataFrame({"days": times, "died": died, "arm": arm, "site": np.resize(list("aabb"), len(times))})
    return from_times(rows, time="days", event="died", arm="arm", control="old", segments=["site"])


def test_where_everybody_fails_risks_are_compared_when_half_have_failed() -> None:
    times = np.random.default_rng(1).weibull(2.0, 400) * np.resize([60.0, 30.0], 400)
    cells = follow(times, np.ones(400, dtype=int))
    # Between the 45 % and the 55 % quantile: the grid has steps of a twentieth of the events.
    assert np.quantile(times, 0.45) <= cells.attrs["horizon"] <= np.quantile(times, 0.55)
    (note,) = [note for note in cell_table.list_notes(cells) if "horizon" in note]
    assert f"horizon {cells.attrs['horizon']:.4g}," in note
    assert "half of the units" in note


def test_where_few_fail_risks_are_compared_at_the_last_event() -> None:
    rng = np.random.default_rng(2)
    times, died = rng.exponential(500.0, 400), np.ones(400, dtype=int)
    died[times > 30] = 0
    cells = follow(np.minimum(times, 30.0), died)
    assert cells.attrs["horizon"] == times[times <= 30].max()
    assert not [note for note in cell_table.list_notes(cells) if "horizon" in note]


def test_where_few_are_followed_long_risks_are_compared_while_a_tenth_is_there() -> None:
    rng = np.random.default_rng(3)
    times, followed = rng.exponential(500.0, 2000), rng.exponential(20.0, 2000)
    cells = follow(np.minimum(times, followed), (times <= followed).astype(int))
    share_followed = (np.minimum(times, followed) >= cells.attrs["horizon"]).mean()
    assert 0.1 <= share_followed < 0.2
    assert any("a tenth of every arm" in note for note in cell_table.list_notes(cells))


@pytest.mark.parametrize("died", [[True, True, False, True] * 2, [1.0, 1.0, 0.0, 1.0] * 2])
def test_events_may_be_booleans_or_numbers(engine, died):
    columns = {name: list(column) for name, column in small(died=died).items()}
    assert read(engine(columns), breaks=[]).failures.values.tolist() == [[[2], [1]]] * 2


@pytest.mark.parametrize(("days", "died"), [("Int64", "boolean"), ("Float64", "Int64"), ("float32", object)])
def test_numbers_may_be_of_any_dtype_with_gaps(days, died):
    rows = pd.concat([small(), small().tail(1).assign(days=None), small().tail(1).assign(died=None)])
    cells = read(rows.astype({"days": days, "died": died}), breaks=[30], drop_missing=True)
    xr.testing.assert_allclose(cells.drop_attrs(), read(small(), breaks=[30]).drop_attrs())


def test_dropping_is_the_same_as_never_having_had_the_rows(engine):
    columns = {name: list(column) for name, column in small().items()}
    more = {
        "stage": ["late", "late", "late", "late", None],
        "arm": ["old", "new", "new", None, "new"],
        "days": [None, 70.0, math.inf, 99.0, 33.0],
        "died": [1, None, 1, 1, 1],
    }
    whole = {name: columns[name] + more[name] for name in columns}
    faults = "2 of 13 times in 'days' are missing|1 of 13 times in 'days' are missing and 1 infinite"
    with pytest.raises(DataError, match=rf"({faults}); 1 of 13 events in 'died' is missing; 1 row has no arm"):
        read(engine(whole))
    cells = read(engine(whole), drop_missing=True)
    left = {name: columns[name] + more[name][-1:] for name in columns}
    expected = read(pd.DataFrame(left))
    xr.testing.assert_allclose(cells.drop_attrs(), expected.drop_attrs(), rtol=1e-14)
    assert cells.attrs["horizon"] == expected.attrs["horizon"] == 30
    assert len(cell_table.list_notes(cells)) == 6


def test_hostile_names_are_only_names(engine):
    names = {"stage": "risk0", "arm": '"', "days": "'); --", "died": "y0"}
    columns = {names[name]: list(column) for name, column in small().items()}
    cells = read(engine(columns), arm='"', segments=["risk0"], time="'); --", event="y0", breaks=[30])
    np.testing.assert_array_equal(cells.at_risk.values, read(small(), breaks=[30]).at_risk.values)


BAD: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {
    "zero time": (small(days=[0, *[1] * 7]), {}, "1 time in 'days' is not greater than 0; count time"),
    "negative time": (small(days=[-1, -2, *[1] * 6]), {}, "2 times in 'days' are not greater than 0"),
    "text time": (small(days="x"), {}, "the time 'days' has dtype .*, and a time needs numbers"),
    "text event": (small(died="yes"), {}, "the event 'died' has dtype .*, and an event needs numbers"),
    "odd event": (small(died=[2, *[1] * 7]), {}, "1 value of 'died' is neither 0 nor 1; an event is 1"),
    "no event": (small(died=0), {}, "no events: 'died' is 0 for every unit"),
    "nothing": (small(days=np.nan), {}, "8 of 8 times in 'days' are missing; clean them"),
    "nothing left": (small(days=np.nan), {"drop_missing": True, "breaks": [5]}, "no row is left .* these columns"),
    "no rows": (small().iloc[:0], {}, "has no rows"),
    "one arm": (small(arm="old"), {}, "all units are in one arm"),
    "unknown control": (small(), {"control": "odl"}, r"did you mean 'old'\?"),
    "descending": (small(), {"breaks": [30, 20]}, "must be greater than 0 and ascend, but are 30, 20"),
    "repeated": (small(), {"breaks": [30, 30]}, "greater than 0 and ascend"),
    "zero break": (small(), {"breaks": [0, 30]}, "greater than 0 and ascend, but are 0, 30; sort them, and leave"),
    "endless break": (small(), {"breaks": [30, np.inf]}, "greater than 0 and ascend"),
    "no number": (small(), {"breaks": ["soon"]}, "breaks must be a list of times"),
    "no list": (small(), {"breaks": 30}, "breaks must be a list of times, not 30"),
    "late break": (small(), {"breaks": [30, 60]}, "the break 60 is not before the largest time, 60"),
    "late horizon": (small(), {"horizon": 60.5}, "horizon is 60.5, but times were observed above 0 and up to 60"),
    "zero horizon": (small(), {"horizon": 0}, "horizon is 0, but times were observed"),
    "no horizon": (small(), {"horizon": np.nan}, "horizon is nan"),
    "used twice": (small(), {"event": "days"}, "'days' is used twice, for time and for event"),
    "reserved": (small().rename(columns={"stage": "start"}), {"segments": ["start"]}, "uses the name 'start' itself"),
    "id": (small(stage=range(8)), {}, "'stage' has 8 levels for 8 units; did you mean an id"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "changes", "message"), BAD.values(), ids=BAD)
def test_bad_times_are_named_with_the_way_out(data, changes, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(data, **changes)


def test_the_fingerprint_knows_breaks_and_horizon():
    one = read(small(), breaks=[30])
    assert cell_table.hash_cell_table(one) != cell_table.hash_cell_table(read(small(), breaks=[30], horizon=20))
    moved = one.assign_coords(end=("interval", [30.0, 61.0]))
    assert cell_table.hash_cell_table(one) != cell_table.hash_cell_table(moved)
