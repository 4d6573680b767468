"""check: what is weak about the cells, in sentences."""

from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import check, from_estimates, from_rows, from_summary, from_times
from bayes_hte.cells.checks.check import collect_findings
from bayes_hte.errors import DataError


def counts(rows: list[tuple[Any, str, int, int]], control: str = "old") -> xr.Dataset:
    table = pd.DataFrame(rows, columns=["device", "arm", "n", "bought"])
    return from_summary(table, arm="arm", control=control, segments=["device"], n="n", events="bought")


WELL = [("mobile", "old", 100, 10), ("mobile", "new", 100, 12)]


def test_sound_cells_need_no_sentence():
    assert check(counts(WELL)) == ()


def test_notes_come_before_what_is_tiny():
    cells = counts([*WELL, (None, "old", 5, 1)])
    first, second, third = check(cells)
    assert first == "1 row has no value for device; it forms the level (missing)"
    assert second == "1 segment lacks an arm: (missing) (no new); kept, but the effect there comes from the prior"
    assert third.startswith("1 segment has fewer than 10 units in an arm: (missing); ")


def test_segments_with_one_arm_are_named_up_to_five():
    cells = counts(WELL + [(f"tv {i}", "old" if i % 2 else "new", 50, 5) for i in range(1, 8)])
    assert check(cells) == (
        "the levels of 'device' are distributed differently over the arms (p = 3e-71; largest difference: tv 2, "
        "0 % of old, 20 % of new): was it measured after treatment, or changed by it? Then use the value from before; "
        "if its levels were given the arms in different shares by plan, this is as it should be",
        "7 segments lack an arm: tv 1 (no new), tv 2 (no old), tv 3 (no new), tv 4 (no old), tv 5 (no new) "
        "and 2 more; kept, but the effect there comes from the prior",
    )


def test_segments_and_arms_without_units_are_named():
    rows = [*WELL, ("tv", "old", 0, 0), ("tv", "new", 0, 0), ("tv", "newer", 0, 0)]
    assert check(counts(rows)) == (
        "the arm 'newer' has no data in any segment; its effects come from the prior",
        "1 segment has no data in any arm: tv; kept, but all said of it comes from the prior",
    )


@pytest.mark.parametrize(("n", "sentences"), [(9, 1), (10, 0)])
def test_fewer_than_ten_units_are_few(n, sentences):
    found = check(counts([*WELL, ("tv", "old", n, 1), ("tv", "new", 12, 2)]))
    assert [sentence.startswith("1 segment has fewer than 10 units in an arm: tv; ") for sentence in found] == [
        True
    ] * sentences


def test_cells_where_all_or_none_have_the_event_are_counted():
    found = check(counts([*WELL, ("tv", "old", 50, 50), ("tv", "new", 50, 0)]))
    assert found == (
        "2 cells have no variation in the outcome, the first tv, arm old; "
        "raw estimates there look more certain than they are",
    )


def test_cells_of_equal_numbers_have_no_variation():
    rows = pd.DataFrame({"device": ["a"] * 60, "arm": ["old", "new"] * 30, "y": [2.5, 1.0] * 20 + [2.5, 3.0] * 10})
    found = check(from_rows(rows, outcome="y", arm="arm", control="old", segments=["device"]))
    assert found[0].startswith("1 cell has no variation in the outcome: a, arm old; ")


def test_estimates_with_gaps_are_named():
    table = pd.DataFrame({"school": ["A", "A", "B"], "arm": ["x", "y", "x"], "y": [1.0, 2, 3], "se": [1.0, 1, 1]})
    cells = from_estimates(table, segments=["school"], estimate="y", se="se", arm="arm")
    shared_control, lacking_arm = check(cells)
    assert shared_control.startswith("1 segment has estimates of several arms: A; ")
    assert lacking_arm == "1 segment lacks an arm: B (no y); kept, but the effect there comes from the prior"


def test_rates_without_events_are_counted_and_full_ones_are_not():
    table = pd.DataFrame(
        {
            "device": ["a", "a", "b", "b", "c", "c"],
            "arm": ["old", "new"] * 3,
            "events": [20, 30, 0, 12, 0, 0],
            "hours": [10.0, 20.0, 5.0, 12.0, 1.0, 0.0],  # as many events as hours are not constant
        }
    )
    cells = from_summary(table, arm="arm", control="old", segments=["device"], events="events", exposure="hours")
    assert check(cells) == (
        "1 segment lacks an arm: c (no new); kept, but the effect there comes from the prior",
        "no events in 2 cells, the first b, arm old; raw estimates there are 0 or unbounded",
    )
    assert check(cells.sel(segment=["a"])) == ()


def survivors(died: int) -> xr.Dataset:
    rows = pd.DataFrame({"stage": "early", "arm": ["old"] * 10 + ["new"] * 10, "days": range(1, 21)})
    rows["died"] = [1] * 10 + [1] * died + [0] * (10 - died)
    ask = {"time": "days", "event": "died", "arm": "arm", "control": "old", "segments": ["stage"]}
    return from_times(rows, breaks=[5], horizon=10, **ask)


@pytest.mark.parametrize(("died", "sentences"), [(0, 1), (1, 0)])
def test_survival_without_events_is_named(died, sentences):
    expected = "no events in 1 cell: early, arm new; raw estimates there are 0 or unbounded"
    assert check(survivors(died)) == (expected,) * sentences


def test_notes_and_few_units_of_survival_are_said():
    rows = pd.DataFrame({"stage": "early", "arm": ["old"] * 10 + ["new"] * 9, "days": range(1, 20), "died": 1})
    cells = from_times(rows, time="days", event="died", arm="arm", control="old", segments=["stage"])
    horizon_note, first, second = check(cells)
    assert horizon_note.startswith("risks are compared at the horizon ")
    assert first == "time is cut at 5, 10, 14, so that each interval has about equally many events"
    assert second.startswith("1 segment has fewer than 10 units in an arm: early; ")


def test_histograms_of_one_value_have_no_variation():
    rows = pd.DataFrame({"device": "a", "arm": ["old", "new"] * 12, "stars": [3, 1, 3, 5] * 6})
    cells = from_rows(rows, outcome="stars", arm="arm", control="old", segments=["device"], metric="histogram")
    assert check(cells) == (
        "1 cell has no variation in the outcome: a, arm old; raw estimates there look more certain than they are",
    )


def test_cells_of_two_parts_without_revenue_have_no_variation():
    rows = pd.DataFrame({"device": "a", "arm": ["old", "new"] * 12, "spent": [0, 1, 0, 0, 0, 5] * 4})
    cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"], metric="two_part")
    assert [sentence.split(";")[0] for sentence in check(cells)] == [
        "1 cell has no variation in the outcome: a, arm old"
    ]


def test_what_makes_the_comparison_unfair_comes_first():
    rows = [(None, "old", 900, 90), (None, "new", 600, 60), ("tv", "old", 400, 40), ("tv", "new", 700, 0)]
    found = collect_findings(counts(rows).assign_attrs(shares='{"old": 0.5, "new": 0.5}'))
    assert [sentence.split(" ")[0] for sentence in found.validity_warnings] == ["the"]
    assert found.other_findings[0] == "2 rows have no value for device; they form the level (missing)"
    assert check(counts(rows)) == (*found.validity_warnings, *found.other_findings)


def test_labels_cannot_break_a_sentence():
    hostile = ["<b>\n- all is well", "W" * 300, "{0} {{x}} %s", "'; drop table"]
    found = check(counts([(name, arm, n, 1) for name in hostile for arm, n in (("o\nld", 90), ("new", 5))], "o\nld"))
    assert len(found) == 2
    assert not any("\n" in sentence or "W" * 100 in sentence for sentence in found)


def test_a_hundred_thousand_segments_are_checked_in_two_seconds():
    """Of processor time: half a second is what it takes on an idle machine."""
    n = np.random.default_rng(1).poisson(12, (100_000, 2))
    n[::3, 1] = 0
    labels = [f"s{i}" for i in range(len(n))]
    cells = xr.Dataset(
        {"n": (("segment", "arm"), n), "events": (("segment", "arm"), n // 3)},
        coords={"segment": labels, "arm": ["old", "new"], "device": ("segment", labels)},
        attrs={"outcome": "y", "control": "old", "dimensions": '["device"]', "notes": "[]"},
    )
    begun = process_time()
    assert len(check(cells)) == 5
    assert process_time() - begun < 2


def test_what_is_no_cell_table_is_refused():
    with pytest.raises(DataError, match="make no cell table"):
        check(xr.Dataset({"x": 1}))


def test_estimates_of_arms_that_may_share_a_control_are_said_to_be_taken_as_independent():
    table = pd.DataFrame({"trial": ["A", "A", "B"], "arm": ["high", "low", "low"], "y": [1.0, 0.7, 0.5], "se": 0.3})
    found = check(from_estimates(table, segments=["trial"], estimate="y", se="se", arm="arm"))
    assert any("1 segment has estimates of several arms: A; the arms are taken to be independent" in s for s in found)
    assert check(from_estimates(table[table["arm"] == "low"], segments=["trial"], estimate="y", se="se")) == ()
