"""Clusters with rows in several segments: counted once where arms are compared, and never added up twice."""

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.cells import check, from_rows, merge, protect, sample_ratio, split, with_shares
from bayes_hte.cells.units.clusters import read_spanning_clusters
from bayes_hte.errors import DataError
from bayes_hte.spec import cell_table

KEYS: dict[str, Any] = {"outcome": "y", "arm": "arm", "control": "old", "cluster": "user"}
HALVES = {"old": 0.5, "new": 0.5}


def sessions(users: int = 60, days: int = 5, *, seed: int = 1, unknown: bool = False) -> pd.DataFrame:
    """Users in one plan and arm each, on some of the days, with one or several devices."""
    draw = np.random.default_rng(seed)
    plan, arm = draw.choice(["free", "paid"], users), draw.choice(["old", "new"], users)
    before = draw.normal(size=users)
    user = np.repeat(np.arange(users), days)
    rows = pd.DataFrame(
        {
            "user": user,
            "date": np.tile(pd.date_range("2026-01-29", periods=days), users),
            "plan": plan[user],
            "arm": arm[user],
            "device": draw.choice(["mobile", "tv", *([None] * unknown)], len(user)),
            "before": before[user],
            "y": before[user] + draw.normal(size=len(user)),
        }
    )
    return rows[draw.uniform(size=len(rows)) < 0.7].reset_index(drop=True)


def read(rows: Any, *segments: str, **asked: Any) -> xr.Dataset:
    return from_rows(rows, segments=list(segments), **KEYS, **asked)


@pytest.mark.parametrize("unknown", [False, True])
def test_clusters_are_counted_once_in_every_engine(every_engine, unknown):
    rows = sessions(unknown=unknown).drop(columns="date")
    rows.loc[rows["user"] == 3, "y"] = None
    table = every_engine({name: [None if pd.isna(v) else v for v in column] for name, column in rows.items()})
    found = read_spanning_clusters(read(table, "plan", "device", drop_missing=True))
    assert found is not None
    complete = rows.dropna(subset="y").fillna({"device": "(missing)"})
    places = complete.groupby(["arm", "user"]).apply(lambda each: len(each[["plan", "device"]].drop_duplicates()))
    assert found.clusters_by_arm == places.groupby("arm").size().to_dict()
    assert found.squares_by_arm == (places**2).groupby("arm").sum().to_dict()
    assert found.varying_dims == ["device"]
    assert found.sliced_dim == ""


def test_nothing_is_said_where_every_cluster_is_in_one_segment():
    cells = read(sessions(), "plan")
    assert read_spanning_clusters(cells) is None
    assert cell_table.list_notes(cells) == ["the units of analysis are 60 clusters in 'user'"]


def test_the_note_counts_clusters_in_several_arms_once():
    rows = sessions()
    rows.loc[0, "arm"] = "new" if rows.loc[0, "arm"] == "old" else "old"
    (note,) = cell_table.list_notes(read(rows, "plan"))
    assert note.startswith("the units of analysis are 60 clusters in 'user'")
    assert "1 of 60 clusters" in json.loads(read(rows, "plan").attrs["doubts"])[0]


def test_slices_of_the_same_clusters_do_not_merge():
    days = split(read(sessions(), "date", "plan", bins={"date": "day"}), "date")
    with pytest.raises(DataError, match=r"several levels of 'date' would count in each of these tables.*from the rows"):
        merge(*days.values())
    first, *_ = days.values()
    rows = sessions()
    users = rows[rows["date"] == rows["date"].min()].groupby("arm")["user"].nunique()
    assert sample_ratio(first)[["n_old", "n_new"]].iloc[0].tolist() == [users["old"], users["new"]]
    other = read(sessions(seed=2).assign(user=lambda rows: rows["user"] + 1000), "plan")
    merged = merge(first, other)  # different users
    assert read_spanning_clusters(merged) is not None
    with pytest.raises(DataError, match="several levels of 'date'"):
        merge(merged, days["2026-01-30"])


def test_slices_by_what_a_cluster_has_one_of_merge():
    rows = sessions()
    cells = read(rows, "plan", "date", bins={"date": "month"})
    total = merge(*split(cells, "plan").values())
    expected = read(rows, "date", bins={"date": "month"})
    xr.testing.assert_allclose(total[["n", "mean", "se"]], expected[["n", "mean", "se"]], rtol=1e-12)
    assert read_spanning_clusters(total).varying_dims == ["date"]
    assert np.isnan(sample_ratio(total)["p"].iloc[0])  # in how many months each user was is not known any more


def test_merged_tables_add_up_their_clusters():
    one = sessions(40, seed=3)
    other = sessions(50, seed=4).assign(user=lambda rows: rows["user"] + 1000)
    known = read_spanning_clusters(merge(read(one, "device"), read(other, "device")))
    expected = read_spanning_clusters(read(pd.concat([one, other]), "device"))
    assert known == expected


def test_a_table_without_spanning_clusters_adds_its_units():
    one = sessions(40, seed=3)
    other = sessions(50, seed=4).assign(user=lambda rows: rows["user"] + 1000).drop_duplicates("user")
    known = read_spanning_clusters(merge(read(one, "device"), read(other, "device")))
    assert known == read_spanning_clusters(read(pd.concat([one, other]), "device"))


@pytest.mark.parametrize("period", ["month", "quarter", "year"])
def test_a_cluster_counts_once_in_a_period(every_engine, period):
    rows = sessions(30, 120)
    columns = {name: rows[name].tolist() for name in ("user", "arm", "y")}
    cells = read(
        every_engine(columns | {"date": rows["date"].dt.to_pydatetime().tolist()}), "date", bins={"date": period}
    )
    users = rows.groupby([rows["date"].dt.to_period(period[0].upper()), "arm"])["user"].nunique().unstack()
    assert cells["n"].sel(arm=["old", "new"]).values.tolist() == users[["old", "new"]].values.tolist()


def test_arms_of_a_sound_experiment_have_their_shares():
    """100 experiments of 200 users with up to 10 devices: p is that of the users, no alarm is raised.

    An alarm has probability .005 at most per experiment, so more than three have .002; seeds are fixed.
    """
    alarms = 0
    for seed in range(100):
        rows = sessions(200, 10, seed=seed).assign(device=lambda rows: rows["date"].dt.day.astype(str))
        cells = with_shares(read(pl.from_pandas(rows), "device", "plan", balance=["before"]), HALVES)
        alarms += len(check(cells)) - len(cell_table.list_notes(cells))
        users = rows.groupby("arm")["user"].nunique()
        assert sample_ratio(cells)[["n_old", "n_new"]].iloc[0].tolist() == [users["old"], users["new"]]
    assert alarms <= 3


def test_unsound_ones_are_found():
    rows = sessions(400, 10)
    lost = rows[(rows["arm"] == "old") | (rows["user"] % 2 == 0)]
    assert any("sample-ratio mismatch" in said for said in check(with_shares(read(lost, "date"), HALVES)))
    swayed = rows.assign(device=np.where(rows["arm"] == "new", "tv", rows["device"]))
    assert any("'device' are distributed differently" in said for said in check(read(swayed, "device", "plan")))


def test_what_was_before_is_compared_between_users():
    """Users on all days: the test is that of one row per user."""
    rows = sessions(200, 4)
    rows = pd.DataFrame({"date": pd.date_range("2026-01-01", periods=6)}).merge(
        rows.drop_duplicates("user").drop(columns="date"), how="cross"
    )
    rows["before"] += np.where(rows["arm"] == "new", 0.9, 0.0)
    wide = check(read(rows, "date", bins={"date": "day"}, balance=["before"]))
    narrow = check(from_rows(rows.drop_duplicates("user"), segments=["plan"], balance=["before"],
                             outcome="y", arm="arm", control="old"))  # fmt: skip
    found = [[said for said in each if "before treatment" in said] for each in (wide, narrow)]
    assert found[0] == found[1] != []


def test_protected_tables_and_saved_fits_keep_it(tmp_path):
    cells = read(sessions(200), "device")
    assert read_spanning_clusters(protect(cells, 5)) == read_spanning_clusters(cells)
    fit = hte.fit(cells, "metric")
    assert read_spanning_clusters(hte.load(fit.save(tmp_path / "fit.nc")).cells) == read_spanning_clusters(cells)
