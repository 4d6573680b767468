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


FAMILIES: dict[str, dict[str, Any]] = {
    "binomial": {"baseline": 0.2, "effect": 0.3},
    "normal": {"baseline": 50.0, "effect": -2.0, "sd": {"mobile": 10.0, "desktop": 5.0, "tablet": 20.0}},
    "mean": {"baseline": 3.0, "effect": 1.0, "sd": {"control": 1.0, "treatment": 2.0}},
    "poisson": {"baseline": 0.8, "effect": -0.2, "exposure": 2.5},
    "negative_binomial": {"baseline": 1.5, "effect": 0.2, "alpha": 2.0},
    "two_part": {"baseline": 2.0, "effect": 0.3, "chance": 0.4, "log_sd": 0.5},
    "ordinal": {"answers": [0.1, 0.2, 0.3, 0.4], "effect": -0.4},
    "piecewise_exponential": {
        "baseline": 0.3, "effect": 0.4, "horizon": 2.0, "follow_up": 3.0, "breaks": [1.0], "relative_hazards": [1, 2]
    },
}  # fmt: skip
OUTCOMES = [family for family in FAMILIES if family != "piecewise_exponential"]
"""Families whose mean is a mean over units; of survival it is a risk, which hazards give."""


def cell_means(cells: xr.Dataset) -> np.ndarray:
    if "exposure" in cells:
        return np.asarray(cells["events"] / cells["exposure"])
    if "histogram" in cells:
        return np.asarray((cells["histogram"] * cells["value"]).sum("value") / cells["n"])
    return np.asarray(cells["mean"] if "mean" in cells else cells["events"] / cells["n"])


def find_unit_variance(family: str, mean: np.ndarray) -> np.ndarray:
    """Find the variance of one unit's mean outcome from the distribution's own formula, (segment, arm)."""
    # half of the effect on the log of the mean of two parts acts on the chance; E a² = (E a)² e^0.25
    chance = 0.4 * np.exp([0.0, 0.15])
    # P(y > k) by arm: the variance of 1 + Σ_k [y > k] is Σ_k (2k − 1) P(y > k) − (Σ_k P(y > k))²
    above = 1 / (1 + np.exp(np.log([1 / 9, 3 / 7, 6 / 4])[:, None] - np.array([0.0, -0.4])))
    variances = {
        "binomial": mean * (1 - mean),
        "normal": np.array([[100.0, 100.0], [25.0, 25.0], [400.0, 400.0]]),
        "mean": np.array([[1.0, 4.0]] * 3),
        "poisson": mean / 2.5,
        "negative_binomial": mean + mean**2 / 2,
        "two_part": chance * np.exp(0.25) * (mean / chance) ** 2 - mean**2,
        "ordinal": (above * np.array([[1.0], [3.0], [5.0]])).sum(0) - above.sum(0) ** 2,
    }
    return np.broadcast_to(variances[family], mean.shape)


def true_means(simulation: hte.Simulation) -> np.ndarray:
    return simulation.truth[["baseline", "mean"]].to_numpy()


@pytest.mark.parametrize("family", OUTCOMES)
def test_cells_have_the_mean_and_the_variance_of_the_truth(family: str) -> None:
    options = {"family": family, "n": 3_000, **FAMILIES[family]}
    many = hte.simulate(DEVICES, fixed_sizes=True, experiments=3_000, seed=11, **options)
    means, truth = cell_means(many.cells), true_means(hte.simulate(DEVICES, **options))
    n = many.cells["n"].isel(experiment=0).values
    unit_variance = find_unit_variance(family, truth)
    assert_mean(means, truth)
    assert_variance(means, unit_variance / n)
    if "ss" in many.cells:
        ss = many.cells["ss"].values
        assert_mean(ss, unit_variance * (n - 1))
        if family != "two_part":  # ss ~ sd² χ²(n − 1), not correlated with the mean
            assert_variance(ss, 2 * unit_variance**2 * (n - 1))
            assert_mean((means - truth) * (ss - unit_variance * (n - 1)), 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_are_distributed_as_the_reduction_of_rows(family: str) -> None:
    options = {"family": family, "n": 600, **FAMILIES[family]}
    many = hte.simulate(DEVICES, experiments=2_000, seed=3, **options).cells
    from_rows = [hte.simulate(DEVICES, rows=True, seed=1_000 + i, **options).cells for i in range(60)]
    statistics = set(many.data_vars) & set(from_rows[0].data_vars)
    assert len(statistics) > 1
    for name in statistics:
        # Of counts the first values: how many there are differs from draw to draw.
        cut = {"value": slice(0, 4)} if "value" in many[name].dims else {}
        drawn = many[name].isel(cut).values.astype(float)
        reduced = np.stack([cells[name].isel(cut).values for cells in from_rows]).astype(float)
        for power in (1, 2):  # first and second moments, around the directly drawn mean
            center = drawn.mean(axis=0) if power == 2 else 0.0
            one, other = (drawn - center) ** power, (reduced - center) ** power
            standard_error = np.sqrt(one.var(axis=0) / len(one) + other.var(axis=0) / len(other))
            assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) <= ALARM_SE * standard_error).all(), name


def test_times_have_the_hazards_of_the_truth_in_small_and_in_large_cells() -> None:
    options = {"family": "piecewise_exponential", **FAMILIES["piecewise_exponential"]}
    # H(2) = h (1 + 2) = −log(1 − 0.3) in the control
    hazard = -np.log(0.7) / 3 * np.exp([0.0, 0.4])[:, None] * [1, 2]
    for n in (600, 60_000):  # tens of events in a cell, and thousands
        cells = hte.simulate({"device": ["tv"]}, n=n, fixed_sizes=True, experiments=1_500, **options).cells
        failures, at_risk = cells["failures"].values[:, 0], cells["at_risk"].values[:, 0]
        # Events less hazard × time at risk is a martingale: its mean is 0, its variance the expected events.
        residual = failures - hazard * at_risk
        assert_mean(residual, 0.0)
        assert_variance(residual, failures.mean(axis=0))
        # E time in the first interval = n (1 − e^−h) / h
        assert_mean(at_risk[:, :, 0], n / 2 * -np.expm1(-hazard[:, 0]) / hazard[:, 0])


def test_outcomes_in_two_parts_have_the_moments_of_units_in_large_cells_too() -> None:
    options = {"family": "two_part", "chance": 0.5, "log_sd": 0.7, "baseline": 2.0}
    one = {"device": ["tv"]}
    large = hte.simulate(one, n=8_000, fixed_sizes=True, experiments=3_000, **options).cells  # 2,000 positive outcomes
    amount = large["mean"] * large["n"] / large["positive"]
    log_plain = np.log(amount.values[:, 0, 0])
    log_mean, log_ss = large["log_mean"].values[:, 0, 0], large["log_ss"].values[:, 0, 0]
    variance, k = 0.49, large["positive"].values[:, 0, 0]
    mu = np.log(4.0) - variance / 2
    assert_mean(log_mean, mu)
    assert_variance(np.sqrt(k) * (log_mean - mu), variance)
    assert_mean(log_ss / (k - 1), variance)
    # Var of the mean of e^z relative to its square is (e^v − 1) / k; its covariance with z̄ is v / k.
    assert_variance(np.sqrt(k) * (log_plain - np.log(4.0)), np.expm1(variance))
    assert_mean(k * (log_plain - np.log(4.0)) * (log_mean - mu), variance)


def test_estimates_are_normal_around_the_effects() -> None:
    effect = {"mobile": 1, "desktop": 2, "tablet": 3}
    many = hte.simulate(DEVICES, family="estimate", effect=effect, se=0.5, experiments=3_000)
    assert_mean(many.cells["estimate"].values[..., 0], [1, 2, 3])
    assert_variance(many.cells["estimate"].values[..., 0], 0.25)
    assert many.truth["baseline"].isna().all()
    fit = hte.fit(next(many.tables()), "published-estimates", draws=400)
    assert len(fit.table()) == 3


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
@pytest.mark.parametrize("family", OUTCOMES)
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


@pytest.mark.parametrize("family", ["binomial", "piecewise_exponential"])
def test_days_of_rows_merge_into_the_whole(family: str) -> None:
    simulation = hte.simulate(2, family=family, n=900, days=3, rows=True)
    days = simulation.days()
    assert [int(day["n"].sum()) for day in days] == simulation.rows["day"].value_counts(
        sort=False
    ).sort_index().tolist()
    assert hte.cells.merge(*days)["n"].equals(simulation.cells["n"])


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


def test_fits_of_simulated_cells_recover_the_truth() -> None:
    """Intervals of 90 % hold 90 % of the true effects, whose common mean and SD the prior finds believable."""
    many = hte.simulate(6, family="normal", sd=1.0, effect=0.0, between=0.3, n=1_200, experiments=40, seed=8)
    fits = hte.fit_many({str(i): table for i, table in enumerate(many.tables())}, "continuous", draws=400, workers=1)
    table = fits.table("link", ci_prob=0.9)
    truth = many.truth["link"].to_numpy()
    held = (table["ci_low"].to_numpy() < truth) & (truth < table["ci_high"].to_numpy())
    # 240 intervals, of which those of one experiment share its hyperparameters: as sure as half as many, an SE of .027.
    assert abs(held.mean() - 0.9) < 3 * 0.027


def test_a_baseline_for_another_number_of_segments_is_refused() -> None:
    with pytest.raises(hte.ArgumentError, match=r"baseline is .*; give a number, a number by segment"):
        hte.simulate({"device": ["mobile", "desktop"]}, baseline=np.array([0.5]))


def test_too_many_crossings_are_refused_before_memory_is_asked_for_them() -> None:
    with pytest.raises(hte.ArgumentError, match="segments are 4000000, and 1,000,000 can be simulated; give fewer"):
        hte.simulate({"street": [f"s{i}" for i in range(2000)], "shop": [f"s{i}" for i in range(2000)]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experiments": 10**12}, "has 4,000,000,000,000 cells .* a part at a time"),
        ({"experiments": 10**6, "days": 1000}, "has 4,000,000,000 cells"),
        ({"n": 10**13, "rows": True}, "n is 10,000,000,000,000, and .* rows can be held; give a connection"),
        ({"days": 10**9}, "days is 1,000,000,000, and an experiment has 100,000 at most"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_before_it_is_asked_for(options: Any, message: str) -> None:
    with pytest.raises(hte.ArgumentError, match=message):
        hte.simulate({"device": ["mobile", "desktop"]}, **options)
