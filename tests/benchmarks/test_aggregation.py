"""The benchmark of aggregation: its rows are the same everywhere, and all sides compute the same."""

from pathlib import Path

import benchmark_scripts
import duckdb
import numpy as np
import pytest
from tea_tasting import aggr

import bayes_hte as hte

script = benchmark_scripts.load("aggregation")
ASKED = {"outcome": "spent", "arm": "arm", "control": "control", "segments": ["device", "country"]}


def test_the_generated_rows_follow_from_their_number_alone(tmp_path: Path) -> None:
    for name, rows, seed in (("one", 5000, 1), ("again", 5000, 1), ("longer", 6000, 1), ("other", 5000, 2)):
        script.generate(tmp_path / f"{name}.parquet", rows, seed=seed)
    one, again, longer, other = (
        duckdb.sql(f"from '{tmp_path / name}.parquet'").fetchall() for name in ("one", "again", "longer", "other")
    )
    assert one == again == longer[:5000]
    assert one != other


def test_the_generated_experiment_is_what_it_says(tmp_path: Path) -> None:
    script.generate(tmp_path / "rows.parquet", 200_000)
    cells = hte.cells.from_rows(tmp_path / "rows.parquet", **ASKED)
    assert len(set(cells["device"].values)) == 4
    assert len(set(cells["country"].values)) == 50
    n = cells["n"].sum("segment").values
    assert n.sum() == 200_000
    assert abs(n[1] / n.sum() - 0.5) < 0.006  # 5 standard errors of a fair coin, and these rows are more even
    mean = float((cells["n"] * cells["mean"]).sum() / n.sum())
    assert mean == pytest.approx(10.0, abs=5 * 17.3 / np.sqrt(n.sum()))  # half of an exponential with mean 20; SD √300


def test_plain_sql_computes_the_cells(tmp_path: Path) -> None:
    script.generate(tmp_path / "rows.parquet", 20_000)
    cells = hte.cells.from_rows(tmp_path / "rows.parquet", **ASKED)
    for query in (script.SQL, script.CHECKED):
        rows = duckdb.sql(query.format(path=tmp_path / "rows.parquet")).fetchall()
        assert len(rows) == int((cells["n"] > 0).sum())
        for device, country, arm, *found in rows:
            cell = cells.sel(segment=f"{device} · {country}", arm=arm)
            n, mean, var = found[:3] if query is script.SQL else found[1:4]
            assert int(cell["n"]) == n
            assert float(cell["mean"]) == pytest.approx(mean, rel=1e-12)
            if n > 1:
                assert float(cell["ss"]) == pytest.approx(var * (n - 1), rel=1e-12)


def test_tea_tasting_computes_the_cells() -> None:
    rows = script.experiment(3000, 20)
    cells = hte.cells.from_rows(rows, **{**ASKED, "segments": ["store"]})
    for key, found in script.tea(aggr, rows).items():
        store, arm = key.split("|")
        cell = cells.sel(segment=store, arm=arm)
        assert int(cell["n"]) == found.count()
        assert float(cell["mean"]) == pytest.approx(found.mean("spent"), rel=1e-12)


def test_twenty_metrics_by_ten_breakdowns_are_those_of_from_rows(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    script.generate_many(path, 20_000)
    asked = {"arm": "arm", "control": "control"}
    for metrics in script.choose_metrics().values():
        assert len(metrics) == 20
        tables = hte.cells.from_rows_many(path, metrics=metrics, breakdowns=script.BREAKDOWNS, **asked)
        assert len(tables) == 200
    capped = tables["spent0 capped", "device × customer"]
    expected = hte.cells.from_rows(path, outcome="spent0", cap=20, segments=["device", "customer"], **asked)
    np.testing.assert_allclose(capped["ss"], expected["ss"], rtol=1e-12)
