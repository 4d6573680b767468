"""What was learnt from the past is simulated again: shares, baselines and spread of cells, effects of a fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bayes_hte as hte

SEGMENTS = {"device": {"mobile": 0.5, "desktop": 0.3, "tablet": 0.2}}
PAST: dict[str, dict[str, Any]] = {
    "binomial": {"baseline": {"mobile": 0.1, "desktop": 0.2, "tablet": 0.4}},
    "normal": {"baseline": {"mobile": 1, "desktop": 5, "tablet": 9}, "sd": {"mobile": 1, "desktop": 2, "tablet": 3}},
    "mean": {"baseline": {"mobile": 1, "desktop": 5, "tablet": 9}, "sd": 2.0},
    "poisson": {"baseline": {"mobile": 0.5, "desktop": 1.0, "tablet": 2.0}, "exposure": 3.0},
    "negative_binomial": {"baseline": {"mobile": 0.5, "desktop": 1.0, "tablet": 2.0}, "alpha": 1.5},
    "two_part": {"baseline": {"mobile": 2, "desktop": 4, "tablet": 9}, "chance": 0.3, "log_sd": 0.6},
    "ordinal": {"answers": [0.1, 0.3, 0.4, 0.2]},
    "piecewise_exponential": {
        "baseline": {"mobile": 0.1, "desktop": 0.2, "tablet": 0.4}, "breaks": [0.5], "relative_hazards": [1.0, 3.0]
    },
}  # fmt: skip


@pytest.mark.parametrize("family", PAST)
def test_the_past_is_simulated_again(family: str) -> None:
    past = hte.simulate(SEGMENTS, family=family, n=400_000, fixed_sizes=True, outcome="bought", **PAST[family])
    again = hte.simulate(like=past.cells, family=family, seed=2)
    assert again.truth["share"].tolist() == pytest.approx(past.truth["share"].tolist(), rel=1e-4)
    # 40,000 controls or more in each segment: 5 % are far beyond 5 standard errors of every mean here.
    np.testing.assert_allclose(again.truth["baseline"], past.truth["baseline"], rtol=0.05)
    assert (again.truth["link"] == 0).all()
    assert int(again.cells["n"].sum()) == 400_000
    assert again.cells.attrs["outcome"] == "bought"
    assert again.cells["device"].values.tolist() == ["mobile", "desktop", "tablet"]
    if "ss" in past.cells:
        one, other = (table.cells["ss"] / table.cells["n"] for table in (past, again))
        np.testing.assert_allclose(one, other, rtol=0.1)
    if "histogram" in past.cells:
        one, other = (table.cells["histogram"] / table.cells["n"] for table in (past, again))
        width = min(one.sizes["value"], other.sizes["value"])
        assert float(abs(one.values[..., :width] - other.values[..., :width]).max()) < 0.02


def test_what_is_stated_replaces_what_the_past_says() -> None:
    past = hte.simulate(SEGMENTS, arms={"old": 0.8, "new": 0.2}, n=5_000).cells
    again = hte.simulate(like=past, n=1_000, baseline=0.3, effect=0.1, scale="absolute", outcome="paid")
    assert again.truth["mean"].tolist() == pytest.approx([0.4] * 3)
    assert again.cells.attrs["shares"] == '{"old": 0.8, "new": 0.2}'
    assert int(again.cells["n"].sum()) == 1_000
    renamed = hte.simulate(like=past, arms=["a", "b", "c"])
    assert renamed.cells["arm"].values.tolist() == ["a", "b", "c"]


def test_a_segment_without_controls_takes_the_baseline_of_all() -> None:
    past = hte.simulate(SEGMENTS, n=2_000).cells.copy(deep=True)
    past["n"][2, 0] = past["events"][2, 0] = 0
    again = hte.simulate(like=past)
    overall = float(past["events"].isel(arm=0).sum() / past["n"].isel(arm=0).sum())
    assert again.truth["baseline"].iloc[2] == pytest.approx(overall)


def test_the_truth_of_a_fit_is_its_posterior_mean_or_a_draw() -> None:
    fit = hte.example_fit()
    table = fit.table("link")
    mean = hte.simulate(like=fit)
    np.testing.assert_allclose(mean.truth["link"], table["effect"], rtol=1e-6)
    assert mean.cells["segment"].values.tolist() == fit.cells["segment"].values.tolist()
    draws = hte.simulate(like=fit, truth="draw", experiments=4_000).truth
    effects = draws.pivot_table(index="experiment", columns=list(table.columns[:2]), values="link")
    ordered = effects[[tuple(levels) for levels in table.iloc[:, :2].to_numpy()]].to_numpy()
    # Means of 4,000 draws: 5 standard errors, and those of the posterior's own draws
    standard_error = table["sd"].to_numpy() * np.sqrt(2 / 4_000)
    assert (np.abs(ordered.mean(axis=0) - table["effect"].to_numpy()) < 5 * standard_error).all()
    np.testing.assert_allclose(ordered.std(axis=0), table["sd"], rtol=0.15)
    # Draws are joint: segments of a fit are correlated, and so are theirs.
    posterior = fit.effects("link").stack(sample=("chain", "draw")).transpose("sample", "segment", "arm").values
    assert np.corrcoef(ordered.T)[0, 1] == pytest.approx(np.corrcoef(posterior[..., 0].T)[0, 1], abs=0.1)


def test_a_plan_gives_its_data_and_its_family(tmp_path: Path) -> None:
    rows = hte.simulate(SEGMENTS, arms=["old", "new"], n=900, rows=True, outcome="bought").rows
    rows.to_csv(tmp_path / "orders.csv", index=False)
    (tmp_path / "plan.toml").write_text(
        'title = "t"\nmodel = "conversion"\n[data]\npath = "orders.csv"\noutcome = "bought"\narm = "arm"\n'
        'control = "old"\nsegments = ["device"]\nshares = { old = 1, new = 3 }\n',
        encoding="utf-8",
    )
    simulation = hte.simulate(like=tmp_path / "plan.toml")
    assert simulation.cells.attrs["shares"] == '{"old": 0.25, "new": 0.75}'
    assert "events" in simulation.cells
    assert int(simulation.cells["n"].sum()) == 900


def test_a_plan_of_several_questions_gives_its_first(tmp_path: Path) -> None:
    simulate = {"arms": ["old", "new"], "n": 900, "rows": True, "outcome": "bought"}
    rows = hte.simulate({**SEGMENTS, "plan": ["free", "paid"]}, **simulate).rows
    rows.to_csv(tmp_path / "orders.csv", index=False)
    (tmp_path / "plan.toml").write_text(
        'title = "t"\nbreakdowns = [["plan"], ["device", "plan"]]\n[data]\npath = "orders.csv"\narm = "arm"\n'
        'control = "old"\n[[metrics]]\nname = "sales"\noutcome = "bought"\nmodel = "conversion"\n',
        encoding="utf-8",
    )
    cells = hte.simulate(like=tmp_path / "plan.toml").cells
    assert cells["segment"].values.tolist() == ["free", "paid"]
    assert "events" in cells
