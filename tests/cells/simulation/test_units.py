"""Clusters, covariates and rows in a database have the stated correlations, and give the cells that are drawn directly.

Alarms are raised beyond 5 standard errors, which a right value passes once in 1.7 million comparisons.
"""

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte
from bayes_hte.cells.simulation.drawing.relation import build_alias_table

DEVICES = {"device": {"mobile": 0.6, "tablet": 0.4}}
ALARM_SE = 5.0
DATABASE_FAMILIES: dict[str, dict[str, Any]] = {
    "binomial": {"baseline": 0.2},
    "normal": {"baseline": 5.0, "sd": 2.0},
    "poisson": {"baseline": 0.8, "exposure": 2.0},
    "negative_binomial": {"baseline": 1.5, "alpha": 2.0},
    "two_part": {"baseline": 2.0, "chance": 0.4, "log_sd": 0.5},
    "ordinal": {"answers": [0.1, 0.2, 0.3, 0.4]},
}


@pytest.mark.parametrize("options", [{"family": "binomial", "baseline": 0.3}, {"family": "normal", "sd": 3.0}])
@pytest.mark.parametrize("icc", [0.0, 0.2])
def test_units_of_a_cluster_have_the_stated_correlation(options: dict[str, Any], icc: float) -> None:
    size, count = 5, 20_000
    rows = hte.simulate({"device": ["tv"]}, cluster_size=size, icc=icc, n=size * count, rows=True, **options).rows
    assert len(rows) == size * count
    by_cluster = rows.groupby("cluster")["outcome"]
    assert (by_cluster.count() == size).all()
    assert (rows.groupby("cluster")["arm"].nunique() == 1).all()
    # Anova estimate: Var of cluster means = sd² (rho + (1 − rho) / m); its SE is near √(2 / clusters) relative to it.
    mean_variance, unit_variance = by_cluster.mean().var(), rows["outcome"].var()
    found = (mean_variance / unit_variance - 1 / size) / (1 - 1 / size)
    standard_error = np.sqrt(2 / count) * (icc + (1 - icc) / size) / (1 - 1 / size)
    assert abs(found - icc) < ALARM_SE * standard_error


@pytest.mark.parametrize("options", [{"family": "binomial", "baseline": 0.3}, {"family": "mean", "sd": 3.0}])
def test_cells_of_clusters_have_the_variance_of_their_design_effect(options: dict[str, Any]) -> None:
    size, icc = 10, 0.15
    many = hte.simulate(
        DEVICES, cluster_size=size, icc=icc, n=4_000, fixed_sizes=True, experiments=800, **options
    ).cells  # fmt: skip
    unit_variance = 0.3 * 0.7 if options["family"] == "binomial" else 9.0
    # Var = sd² (1 + (m − 1) rho) / units
    exact = unit_variance * (1 + (size - 1) * icc) / many["cell_size"].isel(experiment=0).values
    draws = many["mean"].values
    squares = (draws - draws.mean(axis=0)) ** 2
    standard_error = squares.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(squares.mean(axis=0) - exact) < ALARM_SE * standard_error).all()
    squared_errors = many["se"].values ** 2
    standard_error = squared_errors.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(squared_errors.mean(axis=0) - exact) < ALARM_SE * standard_error).all()


def test_cells_of_clusters_are_what_rows_reduce_to() -> None:
    options = {"cluster_size": 8, "icc": 0.1, "baseline": 0.3, "n": 2_000}
    rows, cells = hte.simulate(DEVICES, rows=True, **options).cells, hte.simulate(DEVICES, **options).cells
    assert set(cells.data_vars) == set(rows.data_vars)
    assert cells.attrs["cluster"] == rows.attrs["cluster"] == "cluster"
    assert (cells["n_rows"] == 8 * cells["n"]).all()
    assert int(cells["n"].sum()) == int(rows["n"].sum()) == 250
    fit = hte.fit(cells, "metric", draws=400)
    assert len(fit.table()) == 2


@pytest.mark.parametrize(
    "options", [{"family": "binomial", "baseline": 0.3}, {"family": "normal", "sd": 3.0}, {"family": "two_part"}]
)
def test_the_covariate_has_the_stated_correlation_and_differs_by_no_arm(options: dict[str, Any]) -> None:
    correlation, n = 0.6, 40_000
    rows = hte.simulate({"device": ["tv"]}, effect=0.3, pre_correlation=correlation, n=n, rows=True, **options).rows
    for _, arm_rows in rows.groupby("arm", observed=True):
        found = np.corrcoef(arm_rows["outcome"], arm_rows["before"])[0, 1]
        # Fisher's z has the SE 1 / √n for normal numbers; skewed ones are allowed three times as much.
        slack = 3.0 if options["family"] == "two_part" else 1.5
        assert abs(np.arctanh(found) - np.arctanh(correlation)) < slack * ALARM_SE / np.sqrt(len(arm_rows))
    means = rows.groupby("arm", observed=True)["before"].agg(["mean", "var", "count"])
    difference = means["mean"].diff().iloc[-1]
    assert abs(difference) < ALARM_SE * np.sqrt((means["var"] / means["count"]).sum())


@pytest.mark.parametrize("options", [{"family": "binomial", "baseline": 0.3}, {"family": "normal", "sd": 3.0}])
def test_adjusted_cells_lose_the_share_of_variance_that_the_covariate_explains(options: dict[str, Any]) -> None:
    many = hte.simulate(DEVICES, pre_correlation=0.6, n=4_000, fixed_sizes=True, experiments=500, **options).cells
    unit_variance = 0.3 * 0.7 if options["family"] == "binomial" else 9.0
    # The difference of the arms has 1 − r² of its variance: each arm alone keeps what their common mean X̄ has.
    difference = (many["mean"].isel(arm=1) - many["mean"].isel(arm=0)).values
    n = many["n"].isel(experiment=0).values
    exact = (1 - 0.36) * unit_variance * (1 / n[:, 0] + 1 / n[:, 1])
    squares = (difference - difference.mean(axis=0)) ** 2
    assert (np.abs(squares.mean(axis=0) - exact) < ALARM_SE * squares.std(axis=0) / np.sqrt(500)).all()
    assert float(abs(many["variance_reduction"].mean() - 0.36)) < 0.01  # 2,000 units in each of 2,000 cells
    rows = hte.simulate(DEVICES, pre_correlation=0.6, n=400, rows=True, **options).cells
    checks_only = {"lowest", "highest", "pre_n", "pre_mean", "pre_ss"}
    assert set(many.data_vars) == set(rows.data_vars) - checks_only


def test_days_of_adjusted_cells_merge_into_the_whole() -> None:
    simulation = hte.simulate(DEVICES, pre_correlation=0.5, family="normal", n=2_000, days=3)
    merged = hte.cells.merge(*simulation.days())
    for name in ("n", "mean", "se", "column_mean", "column_ss"):
        np.testing.assert_allclose(merged[name], simulation.cells[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", DATABASE_FAMILIES)
def test_rows_in_a_database_have_the_moments_of_the_truth(family: str) -> None:
    arms, options = {"old": 0.3, "new": 0.7}, {"family": family, "effect": 0.2, **DATABASE_FAMILIES[family]}
    with duckdb.connect() as connection:
        simulation = hte.simulate(DEVICES, arms=arms, n=200_000, connection=connection, **options)
        assert simulation.cells is None
        assert list(simulation.tables()) == []
        cells = hte.cells.from_rows(simulation.rows, **simulation.columns)
        in_memory = hte.simulate(DEVICES, arms=arms, n=200_000, rows=True, **options).cells
    shares = np.outer([0.6, 0.4], [0.3, 0.7])
    assert (np.abs(cells["n"] - 200_000 * shares) < ALARM_SE * np.sqrt(200_000 * shares * (1 - shares))).all()
    assert cells["device"].values.tolist() == ["mobile", "tablet"]
    for power in (1, 2):
        found, variance = (_find_moment(table, power) for table in (cells, in_memory))
        standard_error = np.sqrt(found[1] + variance[1])
        assert (np.abs(found[0] - variance[0]) < ALARM_SE * standard_error).all()


def _find_moment(cells: Any, power: int) -> tuple[np.ndarray, np.ndarray]:
    """Find a moment of the outcome and its variance; second moments only of histograms, else of the means' spread."""
    n = cells["n"].values
    if "histogram" in cells:
        shares = cells["histogram"] / cells["n"]
        moment = (shares * cells["value"] ** power).sum("value").values
        return moment, ((shares * cells["value"] ** (2 * power)).sum("value").values - moment**2) / n
    if "exposure" in cells:
        rate = (cells["events"] / cells["exposure"]).values
        return rate, rate / cells["exposure"].values
    variance = cells["ss"].values / (n - 1)
    if power == 1:
        return cells["mean"].values, variance / n
    # Var of a variance is (kurtosis − 1) sd⁴ / n: 2 for normal outcomes, some ten for the others here
    return variance, 20 * variance**2 / n


def test_rows_in_a_database_are_the_same_for_a_seed_and_any_number_of_threads() -> None:
    drawn = []
    for seed, threads in ((1, 1), (1, 2), (2, 1)):
        with duckdb.connect(config={"threads": threads}) as connection:
            options = {"family": "normal", "days": 4, "pre_correlation": 0.5, "connection": connection}
            rows = hte.simulate(DEVICES, n=20_000, seed=seed, **options).rows
            drawn.append(rows.order("outcome").df())
    pd.testing.assert_frame_equal(drawn[0], drawn[1])
    assert not drawn[0].equals(drawn[2])
    assert set(drawn[0]["day"]) == {1, 2, 3, 4}
    by_arm = drawn[0].groupby(["device", "arm"], observed=True)[["outcome", "before"]].corr().iloc[0::2, -1]
    assert (np.abs(np.arctanh(by_arm) - np.arctanh(0.5)) < ALARM_SE / np.sqrt(3_000)).all()


def test_hostile_names_are_names_in_a_database_too() -> None:
    name, level = 'x"; DROP TABLE y; --', "'); DROP TABLE y; --"
    with duckdb.connect() as connection:
        connection.sql("CREATE TABLE y AS SELECT 1 AS kept")
        simulation = hte.simulate({name: [level, "b"]}, n=1_000, connection=connection, outcome='o"u')
        assert simulation.rows.columns == [name, "arm", 'o"u']
        assert {row[0] for row in simulation.rows.fetchall()} == {level, "b"}
        assert connection.sql("SELECT kept FROM y").fetchall() == [(1,)]


def test_alias_tables_give_back_the_probabilities() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.full(9, 0.3), size=20)
    cut, alias = build_alias_table(probabilities)
    # P(value) = Σ over slots of the parts that name it / slots
    given = cut / 9
    for row in range(20):
        np.add.at(given[row], alias[row], (1 - cut[row]) / 9)
    np.testing.assert_allclose(given, probabilities, atol=1e-14)
