"""The simulated examples: data as their scripts make them, pages as a run has them, no wrong decision."""

import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from example_pages import EXAMPLES, readme_tables

import bayes_hte as hte

PLANS = {
    "pricing_page": ["plan"],
    "vaccine_by_region": ["region", "plan"],
    "learning_platform": ["plan", "second"],
    "loyalty_campaign": ["orders", "margin"],  # two metrics of one plan
}


@pytest.mark.parametrize("name", PLANS)
def test_the_data_are_those_that_the_script_makes(name: str) -> None:
    tables = runpy.run_path(str(EXAMPLES / name / "make_data.py"))["tables"]()
    assert "truth.csv" in tables
    for file_name, table in tables.items():
        committed = pd.read_csv(EXAMPLES / name / file_name)
        texts = {column: str for column in table if table[column].dtype.kind not in "if"}
        pd.testing.assert_frame_equal(
            committed.astype(texts), table.astype(texts).reset_index(drop=True), check_dtype=False, rtol=1e-9
        )


@pytest.mark.parametrize("name", PLANS)
def test_the_script_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name / "run.py"), run_name="__main__")
    assert "diagnosis passed" in capsys.readouterr().out
    assert (tmp_path / "results" / name / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(("name", "plan"), [(name, plan) for name, plans in PLANS.items() for plan in plans])
def test_no_decision_is_wrong_and_intervals_hold_the_truth(name: str, plan: str) -> None:
    """Known of these data, whose seeds are fixed; the chance of a right method to fail here is in the intervals."""
    fit = run_question(name, plan)
    truth = read_truth(name, plan)
    dims = [column for column in truth if column not in ("arm", "effect")]
    decisions = fit.decide().merge(truth, on=[*dims, "arm"])
    assert len(decisions) == len(truth)
    benefit = decisions["effect"] * (-1 if name == "vaccine_by_region" else 1)
    assert not ((decisions["decision"] == "ship") & (benefit <= 0)).any()
    assert not ((decisions["decision"] == "stop") & (benefit >= 0)).any()
    table = fit.table(ci_prob=0.99).merge(truth.rename(columns={"effect": "true_effect"}), on=[*dims, "arm"])
    held = table["true_effect"].between(table["ci_low"], table["ci_high"])
    # 37 intervals of 99 % on this page of tests: one outside is what to expect of every third such set.
    assert (~held).sum() <= 1


@cache
def run_loyalty_campaign() -> hte.Analysis:
    return hte.run(EXAMPLES / "loyalty_campaign" / "plan.toml")


def run_question(name: str, plan: str) -> hte.Fit:
    """Run a plan of an example, or give the fit of a metric of the campaign's."""
    if name == "loyalty_campaign":
        return run_loyalty_campaign().fits[plan, ("frequency", "geography")]
    return hte.run(EXAMPLES / name / f"{plan}.toml")


def read_truth(name: str, plan: str) -> pd.DataFrame:
    """Read the true effects of the segments of a plan: dimensions, arm, effect."""
    truth = pd.read_csv(EXAMPLES / name / "truth.csv", dtype={"year": str})
    truth["effect"] = truth["margin_points"] - truth["margin_control"] if plan == "margin" else truth["absolute"]
    if "trial" in truth:
        truth = truth[truth["trial"] == {"plan": "first", "second": "second"}[plan]]
    dims = list(truth.columns[: list(truth.columns).index("arm")])
    if plan == "region":
        # Of a region: the mean over its people, whose doses were kept cold or not.
        dims = ["region"]
        weighted = (truth["effect"] * truth["share"]).groupby(truth["region"]).sum()
        means = weighted / truth.groupby("region")["share"].sum()
        truth = means.rename("effect").reset_index().assign(arm="vaccine")
    return truth[[*dims, "arm", "effect"]].reset_index(drop=True)


def compare_figures(row: list[str], columns: list[int], found: list[float], tolerance: float) -> None:
    """Compare figures of a page with those of a run, to the printed digit and four Monte-Carlo errors."""
    for column, number in zip(columns, found, strict=True):
        decimals = len(row[column].split(".")[1]) if "." in row[column] else 0
        assert abs(float(row[column]) - number) <= 0.5 * 10.0**-decimals + tolerance, (row, column, number)


def list_rows(fit: hte.Fit, dims: list[str]) -> dict[tuple[Any, ...], Any]:
    """List the rows of the table with decisions, by levels."""
    table = fit.table(detail=True).merge(fit.decide()[[*dims, "decision"]], on=dims, suffixes=("_table", ""))
    return {tuple(row[dim] for dim in dims): row for _, row in table.iterrows()}


def test_the_page_of_the_pricing_page_is_that_of_a_run() -> None:
    fit = hte.run(EXAMPLES / "pricing_page" / "plan.toml")
    found, truth = list_rows(fit, ["device"]), read_truth("pricing_page", "plan").set_index("device")["effect"]
    (rows,) = readme_tables("pricing_page")
    for row in rows:
        result = found[(row[0],)]
        compare_figures(row, [2, 3], [100 * truth[row[0]], 100 * result["raw"]], 1e-9)
        compare_figures(row, [4], [100 * result["effect"]], 400 * result["effect_mcse"])
        assert row[5] == result["decision"]
    gains = fit.policy().set_index("policy")["gain"]
    needed = fit.next_test(assurance=0.8).set_index("device")["units_needed"]
    # P(decision) rises slowly there: a Monte-Carlo error of .01 moves the number of units by some 5 %.
    assert abs(needed["tablet"] / 206_000 - 1) < 0.15
    # 11 and 14 cents per visitor
    assert [round(100 * gains[policy]) for policy in ("ship to all", "ship to the chosen segments")] == [11, 14]


def test_the_page_of_the_vaccine_is_that_of_a_run() -> None:
    by_region, by_chain = readme_tables("vaccine_by_region")
    found = list_rows(hte.run(EXAMPLES / "vaccine_by_region" / "region.toml"), ["region"])
    for row in by_region:
        result = found[(row[0],)]
        compare_figures(row, [1], [100 * result["raw"]], 1e-9)
        compare_figures(row, [2], [100 * result["effect"]], 400 * result["effect_mcse"])
        assert row[3] == result["decision"]
    both = hte.run(EXAMPLES / "vaccine_by_region" / "plan.toml")
    shares = both.variance_shares().set_index("source")
    compare_figures(["", "0.96"], [1], [shares.loc["cold_chain", "share"]], 0.03)
    assert shares.loc["region", "share"] < 0.1
    marginal = both.marginal("cold_chain").set_index("level")
    for row in by_chain:
        result = marginal.loc[row[0]]
        compare_figures(row, [2], [100 * result["effect"]], 20 * result["sd"])
        compare_figures(row, [3], [result["p_negative"]], 0.03)


def test_the_page_of_the_learning_platform_is_that_of_a_run() -> None:
    first, second = (hte.run(EXAMPLES / "learning_platform" / f"{plan}.toml") for plan in ("plan", "second"))
    dims = ["self_regulation", "year"]
    found = list_rows(first, dims)
    compared = hte.combine(first, second).compare_tests().set_index(dims)
    (rows,) = readme_tables("learning_platform")
    assert len(rows) == 6
    for row in rows:
        result, difference = found[row[0], row[1]], compared.loc[(row[0], row[1])]
        compare_figures(row, [3], [result["effect"]], 4 * result["effect_mcse"])
        assert row[4] == result["decision"]
        spread = (difference["difference_high"] - difference["difference_low"]) / 4
        compare_figures(row, [6], [difference["difference"]], 0.2 * spread)
        assert row[7] == ("yes" if difference["disagree"] else "no")


def test_the_page_of_the_loyalty_campaign_is_that_of_a_run() -> None:
    dims = ["frequency", "geography"]
    fits = {metric: run_question("loyalty_campaign", metric) for metric in ("orders", "margin")}
    orders, margin = (list_rows(fits[metric], dims) for metric in fits)
    truth = {metric: read_truth("loyalty_campaign", metric).set_index(dims)["effect"] for metric in fits}
    (rows,) = readme_tables("loyalty_campaign")
    assert len(rows) == 6
    for row in rows:
        levels = (row[0], row[1])
        compare_figures(row, [2, 5], [truth["orders"][levels], truth["margin"][levels]], 1e-6)
        compare_figures(row, [3], [orders[levels]["effect"]], 4 * orders[levels]["effect_mcse"])
        compare_figures(row, [6], [margin[levels]["effect"]], 4 * margin[levels]["effect_mcse"])
        assert row[4] == orders[levels]["decision"]
    decided = run_loyalty_campaign().decide().set_index(["breakdown", "segment"]).loc["frequency × geography"]
    assert {"repeat · rural", "repeat · urban"} == set(decided.index[decided["decision"] == "ship"])
    assert (decided.loc[["repeat · rural", "repeat · urban"], "p_guardrail"] > 0.95).all()
    regular = decided.loc[["regular · urban", "regular · rural"], "p_guardrail"]
    assert (abs(regular - [0.37, 0.60]) < 0.05).all()
    follow_up = fits["orders"].next_test(assurance=0.8).set_index(dims)
    assert abs(follow_up.loc[("occasional", "urban"), "units_needed"] / 14_000 - 1) < 0.15


LOCKED_PLANS = sorted(path for name in PLANS for path in (EXAMPLES / name).glob("*.toml") if path.suffixes == [".toml"])


@pytest.mark.parametrize("plan", LOCKED_PLANS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_plan_was_registered_and_has_not_changed_since(plan: Path) -> None:
    """Where a shipped model has changed on purpose: `bayes-hte register --force PLAN`, and commit the lock."""
    result = hte.run(plan)
    assert result.registered, result.registered
    assert hte.read_plan(plan).exploratory is False


def test_the_tour_names_every_simulated_example() -> None:
    tour = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(PLANS) <= set(re.findall(r"^\| \[(\w+)\]", tour, flags=re.M))
