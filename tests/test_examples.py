"""The examples are what they say: figures that match their sources, plans that hold, scripts and notebooks that run."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import jupytext
import nbclient
import numpy as np
import pandas as pd
import pytest
from example_pages import EXAMPLES, readme, readme_tables
from paths import ROOT

import bayes_hte as hte
from bayes_hte.analysis.run import prepare_analysis
from bayes_hte.cells.from_plan import MAKER_BY_FORM
from bayes_hte.estimands.effects import compute_effects

PLANS = sorted(
    path
    for path in EXAMPLES.glob("*/*.toml")
    # Locks and looks have two endings; a plan of several metrics is run by the tests of the simulated examples.
    if path.name != "model.toml"
    and path.suffixes == [".toml"]
    and "[[metrics]]" not in path.read_text(encoding="utf-8")
)
FOLDERS = [
    "eight_schools",
    pytest.param("hillstrom", marks=pytest.mark.slow),
    pytest.param("thornton", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_plan_of_the_examples_is_valid(plan: Path) -> None:
    prepared = prepare_analysis(plan)
    assert prepared.cells.sizes["segment"] >= 3
    assert prepared.plan.title
    assert prepared.plan.question
    assert prepared.plan.source


FORMS = sorted(MAKER_BY_FORM)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_has_a_plan_that_runs(form: str, tmp_path: Path) -> None:
    """From the plan as it stands to a report; the data are those that its script makes."""
    plan = EXAMPLES / "forms" / f"{form}.toml"
    fit = hte.run(plan)
    assert fit.plan is not None
    assert fit.plan.data.form == form
    assert fit.diagnosis.ok
    fit.report(tmp_path / "report.html")
    made = runpy.run_path(str(EXAMPLES / "forms" / "make_data.py"))["TABLES"][form]()
    pd.testing.assert_frame_equal(pd.read_csv(plan.with_suffix(".csv")), made, check_dtype=False, rtol=1e-9)


def test_the_segments_of_the_design_sketch_are_those_of_hillstrom() -> None:
    cells = prepare_analysis(EXAMPLES / "hillstrom" / "plan.toml").cells
    n = cells["n"].sel(segment="women's only · known · under $200")
    assert n.sel(arm=["No e-mail", "Women's e-mail"]).values.tolist() == [3216, 3189]


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
    control, *treated = per_customer["spend"]
    plain = said(r"plain differences of all customers are \+(\d+\.\d\d) and \+(\d+\.\d\d),", "hillstrom")
    assert plain == [round(spend - control, 2) for spend in treated]


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
def test_the_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # "python3" is this interpreter's, not one from the home folder
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


def test_notebooks_are_committed_as_sources_without_outputs() -> None:
    listed = subprocess.run(["git", "ls-files", "examples"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    assert not [name for name in listed.stdout.splitlines() if name.endswith(".ipynb")]


MEAN_MOVES, BOUND_MOVES = 0.3, 0.75
"""Posterior SDs that two runs may differ by. A passed diagnosis means 400 effective draws or more: the error of a mean
is SD / 20, of a 2.5 % bound 0.13 SD (sqrt(.025 · .975) / .0584 / 20); four of those, times sqrt(2) for two runs."""


def said(pattern: str, name: str) -> list[float]:
    """The figures of the one place in a README that reads like `pattern`, whatever its line breaks."""
    (found,) = re.findall(pattern, " ".join(readme(name).split()))
    return [float(figure) for figure in (found if isinstance(found, tuple) else (found,))]


def check_effect(shown: list[float], found: pd.Series, *, factor: float, unit: float) -> None:
    """An effect and its interval are those of a run, rounded to `unit`, within Monte-Carlo error."""
    for figure, column, moves in zip(
        shown, ("effect", "ci_low", "ci_high"), (MEAN_MOVES, BOUND_MOVES, BOUND_MOVES), strict=False
    ):
        assert abs(figure - factor * found[column]) < unit / 2 + moves * factor * found["sd"], column


def test_figures_in_the_eight_schools_readme_are_those_of_a_run() -> None:
    table = hte.run(EXAMPLES / "eight_schools" / "plan.toml").table(detail=True).set_index("school")
    (rows,) = readme_tables("eight_schools")
    assert len(rows) == 3
    for school, published, pooled, p_positive in rows:
        found = table.loc[school]
        assert float(published) == found["raw"]
        # rounding to the printed digit, and four Monte-Carlo errors of each of the two runs
        assert abs(float(pooled) - found["effect"]) < 0.05 + 6 * found["effect_mcse"]
        assert abs(float(p_positive) - found["p_positive"]) < 0.005 + 6 * found["p_mcse"]
    assert table.loc["A", "pooling"] > 0.9


@pytest.mark.slow
def test_figures_in_the_hillstrom_readme_are_those_of_a_run() -> None:
    fit = hte.run(EXAMPLES / "hillstrom" / "plan.toml")
    table = fit.table(detail=True).set_index(["arm", "bought", "customer", "spent"]).sort_index()
    _, rows, _ = readme_tables("hillstrom")  # averages, segments, policies
    assert len(rows) == 5
    for *levels, raw, pooled in rows:
        found = table.loc[("Women's e-mail", *levels)]
        assert float(raw) == round(100 * found["raw"], 1)
        assert abs(float(pooled) - 100 * found["effect"]) < 0.05 + 600 * found["effect_mcse"]
    assert (table.loc["Men's e-mail", "p_positive"] > 0.999).all()  # "works in every segment"
    effect = compute_effects(fit.posterior, "absolute")
    womens_is_better = (effect.sel(arm="Women's e-mail") > effect.sel(arm="Men's e-mail")).mean(("chain", "draw"))
    for bought, p in zip(fit.cells["bought"].values, womens_is_better.values, strict=True):
        assert 0.05 < p < 0.95 if bought == "women's only" else p < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "factor", "unit"), [("plan", 100, 0.1), ("conversion", 100, 0.01), ("spend", 1, 0.01)]
)
def test_averages_in_the_hillstrom_readme_are_those_of_a_run(plan: str, factor: float, unit: float) -> None:
    fit = hte.run(EXAMPLES / "hillstrom" / f"{plan}.toml")
    ate = fit.ate().set_index("arm")
    rows = {name: figures for name, _, *figures in readme_tables("hillstrom")[0]}
    for arm, text in zip(["Men's e-mail", "Women's e-mail"], rows[plan], strict=True):
        shown = [float(figure) for figure in re.findall(r"[+-][\d.]+", text)]
        assert len(shown) == 3
        check_effect(shown, ate.loc[arm], factor=factor, unit=unit)
    if plan == "spend":
        levels = ["Women's e-mail", "men's only", "known", "$200 or more"]
        found = fit.table().set_index(["arm", "bought", "customer", "spent"]).loc[tuple(levels)]
        less, *shown = said(
            r"spent ([\d.]+) less .* into ([\d.]+) more, .* from (-[\d.]+) to \+([\d.]+)\.", "hillstrom"
        )
        assert less == round(-found["raw"], 2)
        check_effect(shown, found, factor=1, unit=0.01)


@pytest.mark.slow
def test_no_sales_channel_of_hillstrom_stands_out() -> None:
    contrasts = hte.run(EXAMPLES / "hillstrom" / "channel.toml").contrasts("rest")
    assert len(contrasts) == 6
    assert contrasts["p_positive"].between(0.05, 0.95).all()


@pytest.mark.slow
def test_figures_in_the_thornton_readme_are_those_of_a_run() -> None:
    fit = hte.run(EXAMPLES / "thornton" / "plan.toml")
    table = fit.table(detail=True)
    (rows,) = readme_tables("thornton")
    shown = {name: (float(raw), float(pooled)) for name, raw, pooled in rows}
    assert shown["segments with an estimate"] == (table["raw"].notna().sum(), len(table))
    for name, reduce in (("smallest", "min"), ("largest", "max"), ("SD of", "std")):
        raw, pooled = next(figures for title, figures in shown.items() if title.startswith(name))
        assert raw == round(100 * table["raw"].agg(reduce))
        # extremes of 120 segments move by a few Monte-Carlo errors of a segment
        assert abs(pooled - 100 * table["effect"].agg(reduce)) < 0.5 + 600 * table["effect_mcse"].max()
    check_effect(said(r"\+(\d+) points on average", "thornton"), fit.ate().iloc[0], factor=100, unit=1)
    new = fit.predict_new_segment().iloc[0]
    check_effect([100 * new["effect"], *said(r"between \+(\d+) and \+(\d+)\.", "thornton")], new, factor=100, unit=1)
    spread = fit.heterogeneity().set_index("quantity").loc["spread"].rename({"value": "effect"})
    spread["sd"] = (spread["ci_high"] - spread["ci_low"]) / 4
    check_effect(said(r"put at ([\d.]+) points \(([\d.]+) to ([\d.]+)\)", "thornton"), spread, factor=100, unit=0.1)


def test_counts_in_the_thornton_readme_are_those_of_the_rows() -> None:
    n = prepare_analysis(EXAMPLES / "thornton" / "plan.toml").cells["n"]
    assert said(r"(\d+) of the 120 segments .* have fewer than 20", "thornton") == [int((n.sum("arm") < 20).sum())]
    assert int((n == 0).any("arm").sum()) == 13
    assert int(n.sel(segment="(missing)").sum()) == 4
    assert f"{4820 - int(n.sum()):,} of 4,820 people" in readme("thornton")


def test_the_worth_of_the_e_mails_in_the_hillstrom_readme_is_that_of_a_run() -> None:
    fit = hte.run(EXAMPLES / "hillstrom" / "spend.toml")
    names = {
        "the men's e-mail to all": 'ship "Men\'s e-mail" to all',
        "the women's e-mail to all": 'ship "Women\'s e-mail" to all',
        "the segments that the rule calls": "ship to the segments that the rule calls",
        "the best arm for each segment": "ship the best arm for each of the segments",
    }
    policies = fit.policy().set_index("policy")
    rows = readme_tables("hillstrom")[2]
    assert len(rows) == 4
    for name, gain, interval, p_best in rows:
        found = policies.loc[names[name]].rename({"gain": "effect"})
        found["sd"] = (found["ci_high"] - found["ci_low"]) / 4
        check_effect([float(gain), *map(float, interval.split(" to "))], found, factor=1, unit=0.01)
        assert abs(float(p_best) - found["p_best"]) < 0.05
    shipped = fit.decide().query("decision == 'ship'").groupby("arm").size()
    assert shipped.to_dict() == {"Men's e-mail": 8, "Women's e-mail": 2}  # the seed of the plan is fixed
    added = said(r"adds four cents per customer, and adds anything with a probability of (\d+) %", "hillstrom")
    assert abs(added[0] / 100 - policies.loc[names["the best arm for each segment"], "p_beats_all"]) < 0.05


@pytest.mark.slow
def test_no_village_of_thornton_is_called_on_its_own() -> None:
    fit = hte.run(EXAMPLES / "thornton" / "plan.toml")
    decisions = fit.decide()
    assert (decisions["decision"] == "undecided").all()
    assert "ship" in str(decisions.attrs["all_segments"])
