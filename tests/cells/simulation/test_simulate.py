"""Simulated experiments have the truth that was stated: shares, means, effects; and the same from rows as from cells.

Means over many draws are compared with their exact values: an alarm is raised beyond 5 standard errors, which a right
value passes but once in 1.7 million comparisons.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.cells.simulation.drawing.cells import pool_days

DEVICES = {"device": {"mobile": 0.6, "desktop": 0.3, "tablet": 0.1}}
ALARM_SE = 5.0


def assert_mean(draws: np.ndarray, exact: Any) -> None:
    """Compare means over the first axis with exact values, in standard errors of the mean."""
    draws = np.asarray(draws, dtype=float)
    standard_error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - exact) < ALARM_SE * standard_error).all()


def assert_variance(draws: np.ndarray, exact: Any) -> None:
    """Compare variances over the first axis with exact values: means of squared deviations from the mean."""
    draws = np.asarray(draws, dtype=float)
    assert_mean((draws - draws.mean(axis=0)) ** 2 * len(draws) / (len(draws) - 1), exact)


def cell_means(cells: xr.Dataset) -> np.ndarray:
    if "exposure" in cells:
        return np.asarray(cells["events"] / cells["exposure"])
    return np.asarray(cells["mean"] if "mean" in cells else cells["events"] / cells["n"])


FAMILIES: dict[str, dict[str, Any]] = {
    "binomial": {"baseline": 0.2, "effect": 0.3},
    "normal": {"baseline": 50.0, "effect": -2.0, "sd": {"mobile": 10.0, "desktop": 5.0, "tablet": 20.0}},
    "mean": {"baseline": 3.0, "effect": 1.0, "sd": {"control": 1.0, "treatment": 2.0}},
    "poisson": {"baseline": 0.8, "effect": -0.2, "exposure": 2.5},
}
UNIT_VARIANCES = {  # of one unit's mean outcome per exposure, from the distribution's own formula; (segment, arm)
    "binomial": lambda mean: mean * (1 - mean),
    "normal": lambda mean: np.array([[100.0, 100.0], [25.0, 25.0], [400.0, 400.0]]),
    "mean": lambda mean: np.array([[1.0, 4.0]] * 3),
    "poisson": lambda mean: mean / 2.5,
}


def true_means(simulation: hte.Simulation) -> np.ndarray:
    return simulation.truth[["baseline", "mean"]].to_numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_have_the_mean_and_the_variance_of_the_truth(family: str) -> None:
    options = {"family": family, "n": 3_000, **FAMILIES[family]}
    many = hte.simulate(DEVICES, fixed_sizes=True, experiments=4_000, seed=11, **options)
    means, truth = cell_means(many.cells), true_means(hte.simulate(DEVICES, **options))
    n = many.cells["n"].isel(experiment=0).values
    assert_mean(means, truth)
    assert_variance(means, UNIT_VARIANCES[family](truth) / n)
    if "ss" in many.cells:
        # ss ~ sd² χ²(n − 1): mean and variance, and no correlation with the mean
        unit_variance = UNIT_VARIANCES[family](truth)
        assert_mean(many.cells["ss"].values, unit_variance * (n - 1))
        assert_variance(many.cells["ss"].values, 2 * unit_variance**2 * (n - 1))
        assert_mean((means - truth) * (many.cells["ss"].values - unit_variance * (n - 1)), 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_are_distributed_as_the_reduction_of_rows(family: str) -> None:
    options = {"family": family, "n": 600, **FAMILIES[family]}
    many = hte.simulate(DEVICES, experiments=3_000, seed=3, **options).cells
    from_rows = [hte.simulate(DEVICES, rows=True, seed=1_000 + i, **options).cells for i in range(150)]
    shared = [name for name in ("n", "mean", "ss", "events", "exposure") if name in many and name in from_rows[0]]
    assert len(shared) > 1
    for name in shared:
        drawn = many[name].values.astype(float)
        reduced = np.stack([cells[name].values for cells in from_rows]).astype(float)
        for power in (1, 2):  # first and second moments, around the directly drawn mean
            center = drawn.mean(axis=0) if power == 2 else 0.0
            one, other = (drawn - center) ** power, (reduced - center) ** power
            standard_error = np.sqrt(one.var(axis=0) / len(one) + other.var(axis=0) / len(other))
            assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) <= ALARM_SE * standard_error).all()


def test_sizes_have_the_stated_shares_and_add_up() -> None:
    arms = {"old": 0.2, "new": 0.5, "bold": 0.3}
    many = hte.simulate(DEVICES, arms=arms, n=1_000, days=[0.5, 0.25, 0.25], experiments=4_000)
    n = many.daily["n"]
    assert (n.sum(("day", "segment", "arm")) == 1_000).all()
    cell_shares = np.einsum("d,s,a->dsa", [0.5, 0.25, 0.25], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3])
    assert_mean(n.values, 1_000 * cell_shares)
    assert_variance(n.values, 1_000 * cell_shares * (1 - cell_shares))
    assert many.cells.attrs["shares"] == '{"old": 0.2, "new": 0.5, "bold": 0.3}'


def test_fixed_sizes_are_the_expected_ones_rounded() -> None:
    cells = hte.simulate(DEVICES, arms={"old": 0.25, "new": 0.75}, n=1_001, fixed_sizes=True).cells
    expected = 1_001 * np.outer([0.6, 0.3, 0.1], [0.25, 0.75])
    assert int(cells["n"].sum()) == 1_001
    assert (np.abs(cells["n"].values - expected) < 1).all()


def test_effects_vary_between_segments_by_the_stated_sd() -> None:
    arms, spread = ["old", "new", "bold"], {"new": 0.2, "bold": 0.05}
    many = hte.simulate(5, arms=arms, effect=0.1, between=spread, experiments=4_000)
    effects = many.truth.pivot_table(index="experiment", columns=["arm", "group"], values="link")
    for arm, between in spread.items():
        draws = effects[arm].to_numpy()
        assert_mean(draws, 0.1)
        assert_variance(draws, between**2)
        assert_mean((draws[:, 0] - 0.1) * (draws[:, 1] - 0.1), 0.0)  # segments are independent


def test_effects_of_levels_are_shared_by_their_segments() -> None:
    segments = {"device": ["mobile", "tv"], "plan": ["free", "paid", "team"]}
    many = hte.simulate(segments, between={"device": 0.3, "segment": 0.1}, experiments=4_000)
    effects = many.truth.pivot_table(index="experiment", columns=["device", "plan"], values="link").to_numpy()
    # Var = 0.3² + 0.1²; the covariance of two plans on one device is 0.3², of two devices 0
    assert_variance(effects, 0.1)
    assert_mean(effects[:, 0] * effects[:, 1], 0.09)
    assert_mean(effects[:, 0] * effects[:, 3], 0.0)


def test_baselines_vary_between_segments_by_the_stated_sd() -> None:
    truth = hte.simulate(4, baseline=0.3, baseline_between=0.5, experiments=4_000).truth
    log_odds = np.log(truth["baseline"] / (1 - truth["baseline"])).to_numpy().reshape(4_000, 4)
    assert_mean(log_odds, np.log(0.3 / 0.7))
    assert_variance(log_odds, 0.25)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (0.2, [0.2] * 4),
        ({"device": {"a": 0.1, "b": 0.3}}, [0.1, 0.1, 0.3, 0.3]),
        ({"device": {"a": 0.1, "b": 0.3}, "plan": {"x": 0.0, "y": -0.2}}, [0.1, -0.1, 0.3, 0.1]),
        ({("a", "x"): 1, ("a", "y"): 2, ("b", "x"): 3, ("b", "y"): 4}, [1, 2, 3, 4]),
        ({"a · x": 1, "a · y": 2, "b · x": 3, "b · y": 4}, [1, 2, 3, 4]),
        (pd.DataFrame({"plan": [*"xyxy"], "device": [*"bbaa"], "effect": [3, 4, 1, 2]}), [1, 2, 3, 4]),
    ],
)  # fmt: skip
def test_effects_may_be_stated_in_every_form(stated: Any, expected: list[float]) -> None:
    segments = {"device": ["a", "b"], "plan": ["x", "y"]}
    truth = hte.simulate(segments, effect=stated).truth
    assert truth["link"].tolist() == pytest.approx(expected)
    by_arm = hte.simulate(segments, arms=["c", "t", "u"], effect={"t": stated, "u": 0.5}).truth
    assert by_arm.loc[by_arm["arm"] == "t", "link"].tolist() == pytest.approx(expected)
    assert by_arm.loc[by_arm["arm"] == "u", "link"].tolist() == pytest.approx([0.5] * 4)


def test_a_table_of_segments_states_shares_baselines_and_effects() -> None:
    table = pd.DataFrame(
        {"plan": ["pro", "free"], "share": [0.25, 0.75], "baseline": [0.4, 0.1], "effect": [0.05, -0.02]}
    )
    truth = hte.simulate(table, scale="absolute").truth
    assert truth[["plan", "share", "baseline", "mean"]].to_numpy().tolist() == [
        ["pro", 0.25, pytest.approx(0.4), pytest.approx(0.45)],
        ["free", 0.75, pytest.approx(0.1), pytest.approx(0.08)],
    ]


@pytest.mark.parametrize("scale", ["absolute", "relative", "link"])
@pytest.mark.parametrize("family", FAMILIES)
def test_truth_has_the_effect_on_the_scale_on_which_it_was_stated(family: str, scale: Any) -> None:
    options = {**FAMILIES[family], "effect": {"mobile": 0.06, "desktop": 0.0, "tablet": -0.05}}
    simulation = hte.simulate(DEVICES, family=family, scale=scale, **options)
    truth = simulation.truth
    assert truth[scale].tolist() == pytest.approx([0.06, 0.0, -0.05])
    assert (truth["mean"] - truth["baseline"]).tolist() == pytest.approx(truth["absolute"].tolist())
    assert (truth["mean"] / truth["baseline"] - 1).tolist() == pytest.approx(truth["relative"].tolist())
    (average,) = simulation.ate.to_dict("records")
    assert average["absolute"] == pytest.approx((truth["share"] * truth["absolute"]).sum())
    total = (truth["share"] * truth["baseline"]).sum()
    assert average["relative"] == pytest.approx((truth["share"] * truth["absolute"]).sum() / total)


def test_days_merge_into_the_whole() -> None:
    simulation = hte.simulate(DEVICES, family="normal", sd=3.0, baseline=1e6, n=500, days=5)
    merged = hte.cells.merge(*simulation.days())
    assert (merged["n"] == simulation.cells["n"]).all()
    np.testing.assert_allclose(merged["mean"], simulation.cells["mean"], rtol=1e-14)
    np.testing.assert_allclose(merged["ss"], simulation.cells["ss"], rtol=1e-9)


def test_days_so_far_are_the_merged_days() -> None:
    daily = hte.simulate(3, family="normal", n=60, days=4, experiments=2).daily
    so_far = pool_days({name: daily[name].values for name in ("n", "mean", "ss")}, cumulative=True)
    for day in range(1, 4):
        merged = hte.cells.merge(*(daily.isel(experiment=1, day=d, drop=True) for d in range(day + 1)))
        for name in ("n", "mean", "ss"):
            np.testing.assert_allclose(so_far[name][1, day], merged[name], rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_and_another_one_something_else(family: str) -> None:
    def draw(seed: int, **more: Any) -> hte.Simulation:
        return hte.simulate(DEVICES, family=family, between=0.1, seed=seed, n=500, **more)

    xr.testing.assert_identical(draw(5).cells, draw(5).cells)
    assert not draw(5).cells["n"].equals(draw(6).cells["n"])
    pd.testing.assert_frame_equal(draw(5, rows=True).rows, draw(5, rows=True).rows)
    pd.testing.assert_frame_equal(draw(5).truth, draw(5, rows=True).truth)


def test_every_experiment_is_a_cell_table_of_its_own() -> None:
    many = hte.simulate(DEVICES, n=300, experiments=3)
    tables = list(many.tables())
    assert len(tables) == 3
    assert len({table["events"].sum().item() for table in tables}) > 1
    fits = hte.fit_many({str(i): table for i, table in enumerate(tables)}, "conversion", draws=400)
    assert len(fits) == 3


def test_rows_are_read_by_their_columns() -> None:
    simulation = hte.simulate(DEVICES, family="poisson", rows=True, n=300, days=2, outcome="calls")
    again = hte.cells.from_rows(simulation.rows, **simulation.columns)
    assert (again["events"] == simulation.cells["events"]).all()
    assert again.attrs["outcome"] == "calls"
    assert set(simulation.rows["day"]) == {1, 2}
    assert again["device"].values.tolist() == ["mobile", "desktop", "tablet"]


def test_the_representation_counts_what_there_is() -> None:
    assert repr(hte.simulate(2, experiments=3)) == "<Simulation of cells: 3 experiments, 2 segments, 1 treated arm>"
    hostile = hte.simulate({"<b>": ["<script>", "b"]}, rows=True, n=100)
    assert repr(hostile) == "<Simulation of rows: 2 segments, 1 treated arm>"
    assert "<script>" not in hostile._repr_html_()


def test_cells_of_nobody_are_empty() -> None:
    cells = hte.simulate(30, family="normal", n=5).cells
    empty = cells["n"] == 0
    assert bool(empty.any())
    assert bool(cells["mean"].isnull().equals(empty))
    assert bool((cells["ss"].where(cells["n"] <= 1, 0.0) == 0).all())
