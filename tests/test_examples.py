"""The examples are what they say: figures that match their sources, plans that hold, scripts and notebooks that run."""

import subprocess
import sys
from pathlib import Path

import jupytext
import nbclient
import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte
from bayes_hte.analysis import prepare

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PLANS = sorted(path for path in EXAMPLES.glob("*/*.toml") if path.name != "model.toml")
FOLDERS = [
    "eight_schools",
    pytest.param("hillstrom", marks=pytest.mark.slow),
    pytest.param("thornton", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_plan_of_the_examples_is_valid(plan: Path) -> None:
    prepared = prepare(plan)
    assert prepared.cells.sizes["segment"] >= 3


@pytest.mark.parametrize("cells", ["cells.csv", "cells_by_channel.csv"])
def test_hillstrom_cells_add_up_to_the_published_totals(cells: str) -> None:
    """Totals per arm as in the publisher's file (SHA-256 in make_cells.py) and in many published analyses of it."""
    table = pd.read_csv(EXAMPLES / "hillstrom" / cells)
    table["spend"] = table["n"] * table["spend_mean"]
    total = table.groupby("arm")[["n", "visits", "conversions", "spend"]].sum()
    arms = ["No e-mail", "Men's e-mail", "Women's e-mail"]
    assert total.loc[arms, "n"].tolist() == [21306, 21307, 21387]
    per_customer = total.loc[arms].div(total.loc[arms, "n"], axis=0)
    np.testing.assert_allclose(per_customer["visits"], [0.10617, 0.18276, 0.15140], atol=5e-6)
    np.testing.assert_allclose(per_customer["conversions"], [0.00573, 0.01253, 0.00884], atol=5e-6)
    np.testing.assert_allclose(per_customer["spend"], [0.6528, 1.4226, 1.0772], atol=5e-5)


def test_hillstrom_raw_effects_by_past_purchases_are_the_known_ones() -> None:
    cells = hte.cells.from_summary(
        EXAMPLES / "hillstrom" / "cells.csv", arm="arm", control="No e-mail", segments=["bought", "customer", "spent"],
        n="n", events="visits",
    )  # fmt: skip
    by_purchase = cells[["n", "events"]].groupby("bought").sum()
    rate = by_purchase["events"] / by_purchase["n"]
    difference = rate.sel(arm="Women's e-mail") - rate.sel(arm="No e-mail")
    assert difference.to_pandas().round(3).to_dict() == {"both": 0.071, "men's only": 0.011, "women's only": 0.074}


def test_thornton_rows_are_those_of_causaldata() -> None:
    module = {"__file__": str(EXAMPLES / "thornton" / "make_data.py"), "__name__": "make_data"}
    exec((EXAMPLES / "thornton" / "make_data.py").read_text(encoding="utf-8"), module)  # noqa: S102
    committed = pd.read_csv(EXAMPLES / "thornton" / "thornton.csv")
    rows = module["rows"]()
    assert len(rows) == 4820
    pd.testing.assert_frame_equal(committed, rows, check_dtype=False)


def test_eight_schools_are_rubins() -> None:
    schools = pd.read_csv(EXAMPLES / "eight_schools" / "schools.csv")
    assert schools["effect"].tolist() == [28, 8, -3, 7, -1, 1, 18, 12]
    assert schools["se"].tolist() == [15, 10, 16, 11, 9, 11, 10, 18]


@pytest.mark.parametrize("name", FOLDERS)
def test_the_script_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name / "run.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "diagnosis passed" in done.stdout
    assert (tmp_path / "results" / name / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.filterwarnings("default")  # the kernel's own libraries warn about their event loops
def test_the_notebook_runs(name: str) -> None:
    notebook = jupytext.read(EXAMPLES / name / "explore.py")
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(EXAMPLES / name)}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [
        cell for cell in code if any(out.output_type in ("execute_result", "display_data") for out in cell.outputs)
    ]
    assert len(code) >= 7
    assert len(shown) >= len(code) - 2


def readme_rows(name: str) -> list[list[str]]:
    """Cells of the table in an example's README, without the heading."""
    lines = (EXAMPLES / name / "README.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]


def test_figures_in_the_eight_schools_readme_are_those_of_a_run() -> None:
    table = hte.run(EXAMPLES / "eight_schools" / "plan.toml").table(detail=True).set_index("school")
    rows = readme_rows("eight_schools")
    assert len(rows) == 3
    for school, published, pooled, p_positive in rows:
        found = table.loc[school]
        assert float(published) == found["raw"]
        # rounding to the printed digit, and four Monte-Carlo errors of each of the two runs
        assert abs(float(pooled) - found["effect"]) < 0.05 + 6 * found["effect_mcse"]
        assert abs(float(p_positive) - found["p_positive"]) < 0.005 + 6 * found["p_mcse"]


@pytest.mark.slow
def test_figures_in_the_hillstrom_readme_are_those_of_a_run() -> None:
    table = hte.run(EXAMPLES / "hillstrom" / "plan.toml").table(detail=True)
    womens = table[table["arm"] == "Women's e-mail"].set_index(["bought", "customer", "spent"])
    rows = readme_rows("hillstrom")
    assert len(rows) == 5
    for *levels, raw, pooled in rows:
        found = womens.loc[tuple(levels)]
        assert float(raw) == round(100 * found["raw"], 1)
        assert abs(float(pooled) - 100 * found["effect"]) < 0.05 + 600 * found["effect_mcse"]


@pytest.mark.slow
def test_figures_in_the_thornton_readme_are_those_of_a_run() -> None:
    table = hte.run(EXAMPLES / "thornton" / "plan.toml").table(detail=True)
    shown = {name: (float(raw), float(pooled)) for name, raw, pooled in readme_rows("thornton")}
    assert shown["villages with an estimate"] == (table["raw"].notna().sum(), len(table))
    for name, reduce in (("smallest", "min"), ("largest", "max"), ("SD between", "std")):
        raw, pooled = next(figures for title, figures in shown.items() if title.startswith(name))
        assert raw == round(100 * table["raw"].agg(reduce))
        # extremes of 120 villages move by a few Monte-Carlo errors of a village
        assert abs(pooled - 100 * table["effect"].agg(reduce)) < 0.5 + 600 * table["effect_mcse"].max()
