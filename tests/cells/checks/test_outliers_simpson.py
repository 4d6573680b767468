"""What check says of cells that one unit carries, and of effects that turn round in the sum."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from bayes_hte.cells import check, from_summary
from bayes_hte.cells.checks.outliers_simpson import describe_outliers, describe_reversals
from bayes_hte.spec import cell_table


def cells_of(groups, arms=("old", "new")) -> xr.Dataset:
    """Cells from outcomes per segment and arm."""
    rows = [[np.asarray(values, dtype=float) for values in row] for row in groups]

    def of(function, empty, dtype=float):
        return ("segment", "arm"), np.array([[function(v) if len(v) else empty for v in row] for row in rows], dtype)

    labels = [f"s{i}" for i in range(len(rows))]
    return cell_table.check_cell_table(
        xr.Dataset(
            {
                "n": of(len, 0, np.int64),
                "mean": of(np.mean, np.nan),
                "ss": of(lambda v: np.var(v) * len(v), 0.0),
                "lowest": of(np.min, np.nan),
                "highest": of(np.max, np.nan),
            },
            coords={"segment": labels, "arm": list(arms), "device": ("segment", labels)},
            attrs={"outcome": "y", "control": arms[0], "dimensions": '["device"]', "notes": "[]"},
        )
    )


def test_a_unit_that_carries_its_cell_is_said_with_the_mean_without_it():
    rng = np.random.default_rng(1)
    plain = rng.normal(5, 1, (4, 40))
    spoilt = np.append(plain[3], 400.0)
    (sentence,) = describe_outliers(cells_of([[plain[0], plain[1]], [plain[2], spoilt]]))
    assert sentence == (
        "1 cell has one unit that makes up more than half of the variation of the outcome: s1, arm new, where the mean "
        f"of 41 units is {spoilt.mean():.4g} with it and {plain[3].mean():.4g} without it; check the record, cap the "
        "outcome (cap), or choose a family for such outcomes"
    )


def test_low_outliers_count_as_well_and_the_worst_is_named():
    rng = np.random.default_rng(2)
    high, low = np.append(rng.normal(0, 1, 30), 20.0), np.append(rng.normal(0, 1, 30), -1e6)
    (sentence,) = describe_outliers(cells_of([[high, low]]))
    assert sentence.startswith(
        "2 cells have one unit that makes up more than half of the variation of the outcome, most"
    )
    assert "s0, arm new, where the mean of 31 units is -32,258 with it and " in sentence


@given(st.lists(st.floats(-1e3, 1e3), min_size=10, max_size=30), st.floats(-1e3, 1e3))
def test_the_share_of_a_unit_is_what_its_removal_takes_away(values, last):
    y = np.array([*values, last])
    n, ss = len(y), np.var(y) * len(y)
    without = ss - np.var(values) * len(values)
    assert (last - y.mean()) ** 2 * n / (n - 1) == pytest.approx(without, rel=1e-6, abs=1e-6 * max(ss, 1))


@pytest.mark.parametrize("n", [9, 10])
def test_fewer_than_ten_units_have_no_outlier(n):
    found = describe_outliers(cells_of([[[*np.arange(n - 1) / 10, 1e4], np.arange(20)]]))
    assert len(found) == (n == 10)


def test_constant_cells_and_outcomes_of_0_or_1_have_no_outliers():
    one = cells_of([[[0.0] * 99 + [1.0], [2.0] * 50]])
    assert len(describe_outliers(one)) == 1
    assert describe_outliers(one.assign(events=one["n"] * 0)) == []
    assert describe_outliers(cells_of([[[2.0] * 50, [1.0] * 50]])) == []


def test_normal_outcomes_are_silent_but_for_one_in_a_thousand():
    """Over all 40 cells of a table: 300 tables have more than 4 alarms with probability 2e-5."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        groups = [[rng.normal(size=n) for n in rng.integers(10, 40, 2)] for _ in range(20)]
        alarms += bool(describe_outliers(cells_of(groups)))
    assert alarms <= 4


STONES = pd.DataFrame(
    {
        "stones": ["small", "small", "large", "large"],
        "arm": ["nephrolithotomy", "surgery"] * 2,
        "n": [270, 87, 80, 263],
        "well": [234, 81, 55, 192],
    }
)
"""Charig et al. 1986: surgery succeeds more often for small and for large stones, and less often in all."""


def stones(n: str | None = "n") -> xr.Dataset:
    return from_summary(
        STONES.rename(columns={"well": "events"}), arm="arm", control="nephrolithotomy", segments=["stones"], n=n,
        events="events",
    )  # fmt: skip


def test_simpsons_paradox_is_said_of_kidney_stones():
    (sentence,) = describe_reversals(stones())
    assert sentence == (
        "surgery is higher than nephrolithotomy in each of 2 segments, but lower when they are added up (0.78 against "
        "0.8257), because the arms have different shares of the segments (Simpson's paradox); read the effects by "
        "segment and the average effect, never the crude sum"
    )
    assert sentence in check(stones())


def test_the_paradox_is_found_in_every_kind():
    n, rate = stones()["n"].values, (stones()["events"] / stones()["n"]).values
    moments = stones().drop_vars("events").assign(mean=(("segment", "arm"), rate), ss=(("segment", "arm"), n * 0.2))
    assert describe_reversals(moments) == describe_reversals(stones())
    counted = np.stack([n - np.round(rate * n), np.round(rate * n)], axis=-1).astype(int)
    histogram = stones().drop_vars("events").assign_coords(value=[0.0, 1.0])
    assert describe_reversals(histogram.assign(histogram=(("segment", "arm", "value"), counted))) == describe_reversals(
        stones()
    )
    exposed = stones().assign(exposure=stones()["n"].astype(float))
    assert describe_reversals(exposed) == describe_reversals(stones())
    assert describe_reversals(exposed.drop_vars("n")) == []  # 0.78 and 0.83 per unit of time may well be chance
    assert len(describe_reversals(exposed.drop_vars("n") * 100)) == 1


def test_other_directions_arms_and_empty_cells():
    lower = stones().assign(events=stones()["n"] - stones()["events"])
    (sentence,) = describe_reversals(lower)
    assert sentence.startswith("surgery is lower than nephrolithotomy in each of 2 segments, but higher when ")
    gone = stones().copy(deep=True)
    gone["n"][1, 1] = gone["events"][1, 1] = 0
    assert describe_reversals(gone) == []
    assert describe_reversals(stones().isel(segment=[0])) == []
    even = stones().assign(n=stones()["n"] * 0 + 300)
    assert describe_reversals(even) == []


def test_a_sum_that_turns_round_by_chance_is_not_said():
    """Both arms have nearly the same shares of the segments, and tiny effects: the paradox is luck."""
    n, events = np.array([[1000, 1030], [1000, 970]]), np.array([[900, 928], [100, 98]])
    rate = events / n
    assert ((rate[:, 1] - rate[:, 0]) > 0).all()
    assert events[:, 1].sum() / 2000 > events[:, 0].sum() / 2000
    cells = stones().assign(n=(("segment", "arm"), n[::-1]), events=(("segment", "arm"), events[::-1]))
    down = cells.assign(events=cells["n"] - cells["events"])
    assert describe_reversals(cells) == describe_reversals(down) == []
