"""What a cell stands for in the population: beside its units of analysis, in every form of input, and kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import bayes_hte as hte
from bayes_hte.cells import from_estimates, from_rows, from_summary, from_wide, merge, protect, split
from bayes_hte.cells.from_plan import from_plan, tabulate_cells
from bayes_hte.errors import DataError
from bayes_hte.estimands.weights import compute_population_shares
from bayes_hte.spec import cell_table, read_plan

ASKED: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}
SIZES: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"outcome": "y", "weights": "w"}, "units weighted by w"),
    "denominator": ({"outcome": "y", "denominator": "views"}, "views"),
    "clusters": ({"outcome": "y", "cluster": "village"}, "rows"),
    "weights and denominator": ({"outcome": "y", "weights": "w", "denominator": "views"}, "views weighted by w"),
    "weights and clusters": ({"outcome": "y", "weights": "w", "cluster": "village"}, "rows weighted by w"),
    "denominator and clusters": ({"outcome": "y", "denominator": "views", "cluster": "village"}, "views"),
    "all": (
        {"outcome": "y", "denominator": "views", "weights": "w", "cluster": "village", "cuped": ["before"]},
        "views weighted by w",
    ),
}


def people(n: int = 400, seed: int = 3) -> pd.DataFrame:
    """Units in villages, each of which has one arm; the rows of a village are on several devices."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "device": rng.choice(["mobile", "desktop"], n, p=[0.8, 0.2]),
            "day": rng.choice(["monday", "tuesday"], n),
            "village": rng.integers(0, 30, n),
            "views": rng.integers(1, 9, n),
            "w": rng.uniform(0.2, 3.0, n),
            "before": rng.normal(size=n),
            "y": rng.normal(5.0, 1.0, n),
        }
    )
    rows["arm"] = np.where(rows["village"] % 2, "new", "old")
    return rows


def size_by_hand(rows: pd.DataFrame, asked: dict[str, Any]) -> pd.Series:
    """Σ of weight times denominator over the rows of a cell, each 1 where it is not asked for."""
    size = pd.Series(1.0, rows.index)
    for role in ("weights", "denominator"):
        size = size * rows[asked[role]] if role in asked else size
    return size.groupby([rows["device"], rows["arm"]]).sum()


def sizes_of(cells: xr.Dataset) -> dict[tuple[str, str], float]:
    sizes = cell_table.get_cell_sizes(cells)
    assert sizes is not None
    return {
        (str(s), str(a)): float(sizes.sel(segment=s, arm=a)) for s in cells["segment"].values for a in ("old", "new")
    }


def assert_sizes(cells: xr.Dataset, expected: pd.Series) -> None:
    found = sizes_of(cells)
    assert found.keys() == set(expected.index)
    np.testing.assert_allclose([found[key] for key in expected.index], expected.values, rtol=1e-12)


@pytest.mark.parametrize("name", SIZES)
def test_a_cell_of_rows_knows_what_it_stands_for(name):
    asked, unit = SIZES[name]
    cells = from_rows(people(), **asked, **ASKED)
    assert_sizes(cells, size_by_hand(people(), asked))
    assert cell_table.name_size_unit(cells) == unit
    assert cells.attrs.get("cluster") == asked.get("cluster")


def test_rows_of_clusters_are_whole_and_those_that_were_counted():
    cells = from_rows(people(3000), outcome="y", cluster="village", **ASKED)
    assert (cells["cell_size"] == cells["n_rows"]).all()
    assert (cells["n"] == 15).all()


@pytest.mark.parametrize("asked", [{}, {"cuped": ["before"]}])
def test_plain_units_need_no_size_of_their_own(asked):
    cells = from_rows(people(), outcome="y", **asked, **ASKED)
    assert "cell_size" not in cells
    assert "size_unit" not in cells.attrs
    assert sizes_of(cells) == {key: float(n) for key, n in people().groupby(["device", "arm"]).size().items()}


def test_the_size_of_a_rate_is_its_exposure():
    rows = people().assign(clicks=lambda d: d["views"] // 2)
    cells = from_rows(rows, outcome="clicks", exposure="views", **ASKED)
    assert_sizes(cells, rows.groupby(["device", "arm"])["views"].sum())
    assert cell_table.name_size_unit(cells) == "views"


def test_a_denominator_below_zero_measures_no_population():
    rows = people().assign(views=lambda d: np.where(d["device"] == "desktop", -1.0, 1.0) * d["views"])
    cells = from_rows(rows, outcome="y", denominator="views", **ASKED)
    assert "cell_size" not in cells
    assert any("views add up to less than 0" in note for note in cell_table.list_notes(cells))


@settings(max_examples=15)
@given(part=st.integers(0, 2**32 - 1), name=st.sampled_from([name for name in SIZES if "clusters" not in name]))
def test_sizes_of_parts_merge_to_those_of_the_whole(part, name):
    asked = {key: value for key, value in SIZES[name][0].items() if key != "cluster"}
    rows = people()
    is_first = np.random.default_rng(part).random(len(rows)) < 0.5
    merged = merge(*(from_rows(rows[keep], **asked, **ASKED) for keep in (is_first, ~is_first)))
    assert_sizes(merged, size_by_hand(rows, asked))
    assert cell_table.name_size_unit(merged) == SIZES[name][1]


@pytest.mark.parametrize("name", ["weights", "denominator", "clusters"])
def test_a_table_of_before_sizes_were_kept_merges_by_its_columns(name):
    asked, _ = SIZES[name]
    rows = people()
    early, late = rows[rows["village"] < 15], rows[rows["village"] >= 15]
    old_table = from_rows(early, **asked, **ASKED).drop_vars("cell_size")
    assert_sizes(merge(old_table, from_rows(late, **asked, **ASKED)), size_by_hand(rows, asked))


def test_slices_have_the_sizes_of_their_rows():
    rows = people()
    cells = from_rows(rows, outcome="y", weights="w", **(ASKED | {"segments": ["device", "day"]}))
    days = split(cells, "day")
    for day, table in days.items():
        assert_sizes(table, size_by_hand(rows[rows["day"] == day], {"weights": "w"}))
    assert_sizes(merge(*days.values()), size_by_hand(rows, {"weights": "w"}))


@pytest.mark.parametrize("how", ["suppress", "merge"])
def test_protected_cells_keep_the_sizes_of_what_is_left(how):
    rows = people().assign(device=lambda d: np.where(d.index < 12, "tv", np.where(d.index < 24, "watch", d["device"])))
    cells = protect(from_rows(rows, outcome="y", weights="w", **ASKED), 10, how)
    renamed = rows.assign(device=rows["device"].replace({"tv": "(other)", "watch": "(other)"}))
    expected = size_by_hand(renamed if how == "merge" else rows, {"weights": "w"})
    assert_sizes(cells, expected[expected.index.get_level_values(0).isin(cells["device"].values.astype(str))])


def summary() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "device": ["mobile", "mobile", "tv", "tv"],
            "arm": ["old", "new"] * 2,
            "schools": [20, 20, 20, 20],
            "mean": [5.0, 5.0, 5.0, 6.0],
            "se": [0.01] * 4,
            "pupils": [100.0, 100.0, 900.0, 900.0],
        }
    )


def test_a_summary_states_its_sizes_in_a_column():
    cells = from_summary(summary(), n="schools", mean="mean", se="se", size="pupils", **ASKED)
    assert cells["cell_size"].values.tolist() == [[100, 100], [900, 900]]
    assert cell_table.name_size_unit(cells) == "pupils"
    assert cells["n"].values.tolist() == [[20, 20], [20, 20]]


def test_what_is_written_of_cells_reads_to_the_same_sizes():
    cells = from_rows(people(), outcome="y", cluster="village", **ASKED)
    again = from_summary(tabulate_cells(cells), n="n", mean="mean", se="se", size="cell_size", **ASKED)
    assert (again["cell_size"] == cells["cell_size"]).all()


def test_a_wide_summary_has_a_size_for_each_arm():
    table = pd.DataFrame(
        {
            "device": ["mobile", "tv"],
            "n0": [50, 50],
            "y0": [5, 5],
            "p0": [1, 9],
            "n1": [50, 50],
            "y1": [5, 10],
            "p1": [1, 9],
        }
    )
    arms = {arm: {"n": f"n{i}", "events": f"y{i}", "size": f"p{i}"} for i, arm in enumerate(["old", "new"])}
    cells = from_wide(table, segments=["device"], arms=arms, control="old")
    assert cells["cell_size"].values.tolist() == [[1, 1], [9, 9]]
    assert cell_table.name_size_unit(cells) == "units of the stated sizes"


def test_published_estimates_are_averaged_by_the_sizes_they_come_with():
    table = pd.DataFrame({"site": ["a", "b"], "y": [0.0, 1.0], "se": [0.01, 0.01], "n": [50, 50], "people": [100, 900]})
    cells = from_estimates(table, segments=["site"], estimate="y", se="se", n="n", size="people")
    model = hte.Model.model_validate(
        {
            "family": "estimate",
            "effect": {"mean": {"dist": "Normal", "sigma": 2.0}, "between": {"dist": "HalfNormal", "sigma": 1.0}},
        }
    )
    ate = hte.fit(cells, model).ate()
    # se² ≪ tau²: each estimate stands; the mean has an error of .01 √(.01 + .81)
    assert abs(float(ate["effect"].iloc[0]) - 0.9) < 5 * 0.01
    assert ate.attrs["population"] == "1,000 people"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([-1, 1, 1, 1], "must not be negative"), ([np.nan, 1, 1, 1], "finite"), ([0, 0, 0, 0], "0 in every row")],
)
def test_sizes_that_make_no_population_are_refused(sizes, message):
    with pytest.raises(DataError, match=message):
        from_summary(summary().assign(pupils=sizes), mean="mean", se="se", size="pupils", **ASKED)


def test_a_plan_names_the_column_of_sizes(tmp_path: Path):
    summary().to_csv(tmp_path / "schools.csv", index=False)
    (tmp_path / "plan.toml").write_text(
        'title = "Schools"\nmodel = "metric"\n[data]\nform = "summary"\npath = "schools.csv"\narm = "arm"\n'
        'control = "old"\nsegments = ["device"]\nn = "schools"\nmean = "mean"\nse = "se"\nsize = "pupils"\n',
        encoding="utf-8",
    )
    cells = from_plan(read_plan(tmp_path / "plan.toml"), tmp_path)
    assert cells["cell_size"].values.tolist() == [[100, 100], [900, 900]]


def test_shares_are_of_all_arms_together_however_units_were_assigned():
    rows = pd.concat([people(), people(seed=4).query("arm == 'new' and device == 'mobile'")])
    cells = from_rows(rows, outcome="y", weights="w", **ASKED)
    by_device = rows.groupby("device")["w"].sum()
    np.testing.assert_allclose(compute_population_shares(cells), by_device / by_device.sum(), rtol=1e-12)


def test_every_engine_counts_the_same_sizes(engine):
    asked, _ = SIZES["all"]
    rows = people()
    assert_sizes(
        from_rows(engine({name: column.tolist() for name, column in rows.items()}), **asked, **ASKED),
        size_by_hand(rows, asked),
    )
