"""Simulation-based calibration: the stored run of benchmarks/calibration.py, and a small one of the same functions.

False alarms: with new seeds an engine that is right fails the small run with probability FALSE_ALARM per design, and
the stored one with probability .012: .01 for uniformity, .002 for the 25 comparisons at 4 standard errors. With the
seeds here the outcome is always the same.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_scripts import load
from numpy.typing import NDArray
from scipy import stats

ROOT = Path(__file__).parent.parent
FALSE_ALARM = 0.001
LEAST = 2000
"""Stored replications per design."""


calibration = load("calibration")
DESIGNS = list(calibration.DESIGNS)


def small_run(name: str, count: int, engine: str = "exactly") -> dict[str, Any]:
    """What is kept of a few replications."""
    found = list(calibration.replications(name, count, engine=engine, seed=7, draws=1000))
    record: dict[str, Any] = calibration.summarised(found)
    assert record["outcomes"] == {"certified": count}, record["reasons"]
    return record


def suspicious(record: dict[str, Any]) -> dict[str, float]:
    """Quantities whose ranks are not uniform by the chi-square test, with Holm's adjusted p-values."""
    p = np.array([calibration.chi_square(np.array(counts)) for counts in record["ranks"].values()])
    adjusted = zip(record["ranks"], calibration.holm(p), strict=True)
    return {name: float(each) for name, each in adjusted if not each > FALSE_ALARM}


@pytest.mark.parametrize(("name", "count"), [("binomial", 120), ("mean", 100), ("estimate", 200)])
def test_ranks_of_the_truth_are_uniform(name: str, count: int) -> None:
    assert suspicious(small_run(name, count)) == {}


def test_a_posterior_under_another_prior_is_caught() -> None:
    record = small_run("estimate", 80, "halved_prior")
    assert "effect_between[treated]" in suspicious(record)
    assert calibration.faults(calibration.judged({"estimate": record})["estimate"])


def test_a_posterior_that_ignores_an_arm_is_caught_by_the_likelihood_alone() -> None:
    assert list(suspicious(small_run("binomial", 30, "deaf"))) == ["log_likelihood"]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(calibration.RESULTS.read_text(encoding="utf-8"))
    return content


@pytest.fixture(params=DESIGNS)
def record(request: pytest.FixtureRequest, stored: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = stored["designs"][request.param]
    return content


def test_stored_calibration_is_that_of_the_present_engine(stored: dict[str, Any]) -> None:
    now = calibration.engine_sha256()
    stale = [name for name in DESIGNS if stored["designs"][name]["engine_sha256"] != now]
    assert not stale, (
        f"bayes_hte/exact or bayes_hte/families changed since {', '.join(stale)} were calibrated: "
        "run benchmarks/calibration.py again"
    )


def test_stored_calibration_has_enough_replications_of_every_family(stored: dict[str, Any]) -> None:
    assert {each["family"] for each in stored["designs"].values()} == {"binomial", "normal", "mean", "estimate"}
    for each in stored["designs"].values():
        ranked = each["replications"] - each["outcomes"].get("unsupported", 0) - each["outcomes"].get("broken", 0)
        assert ranked >= 0.99 * LEAST
        assert each["replications"] >= LEAST
        assert each["draws"] >= 4000
        assert {sum(counts) for counts in each["ranks"].values()} == {ranked}


def test_stored_calibration_found_nothing_wrong(record: dict[str, Any]) -> None:
    assert calibration.faults(record) == []


def test_stored_p_values_follow_from_the_stored_ranks(stored: dict[str, Any]) -> None:
    again = calibration.judged(stored["designs"])
    for name, each in stored["designs"].items():
        for quantity, p in each["p"].items():
            assert again[name]["p"][quantity] == pytest.approx(p, rel=1e-6)


def test_engines_that_are_wrong_on_purpose_were_all_caught(stored: dict[str, Any]) -> None:
    assert [(each["engine"], each["design"]) for each in stored["wrong"]] == list(calibration.WRONG)
    assert all(each["faults"] for each in stored["wrong"])


def test_page_and_figure_belong_to_the_stored_results(stored: dict[str, Any]) -> None:
    page = calibration.PAGE.read_text(encoding="utf-8")
    assert calibration.tables(stored) in page
    picture = calibration.FIGURE.read_text(encoding="utf-8")
    assert len(picture) < 200_000
    for name, each in stored["designs"].items():
        assert f"{name}: {len(each['ranks'])} quantities" in picture


def uniform(sets: int, total: int) -> NDArray[np.int64]:
    """Counts of ranks that are uniform: (set, rank)."""
    return np.random.default_rng(3).multinomial(total, np.full(calibration.RANKS, 0.01), size=sets)


@pytest.mark.parametrize("test", ["chi_square", "ecdf_p"])
def test_tests_of_uniformity_keep_their_level(test: str) -> None:
    p = np.array([getattr(calibration, test)(counts) for counts in uniform(500, 300)])
    for level in (0.05, 0.5):
        low, high = stats.binom(500, level).ppf([0.0005, 0.9995])
        assert low <= (p <= level).sum() <= high


def test_an_ecdf_leaves_its_band_when_its_p_value_is_below_alpha() -> None:
    low, high = calibration.band(300, 0.1)
    edges = np.arange(1, calibration.RANKS) / calibration.RANKS
    for counts in uniform(300, 300):
        difference = counts.cumsum()[:-1] / 300 - edges
        outside = bool(((difference < low - 1e-9) | (difference > high + 1e-9)).any())
        assert outside == (calibration.ecdf_p(counts) <= 0.1)


def test_holm_steps_down() -> None:
    assert calibration.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_ties_get_every_rank_equally_often() -> None:
    rng, values = np.random.default_rng(5), np.zeros(calibration.RANKS)
    ranks = [calibration.rank_of_last(values, rng) for _ in range(5000)]
    assert stats.chisquare(np.bincount(ranks, minlength=calibration.RANKS)).pvalue > FALSE_ALARM


def test_missing_draws_are_an_error_not_a_rank() -> None:
    values = np.zeros(calibration.RANKS)
    values[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        calibration.rank_of_last(values, np.random.default_rng(5))


def test_simulated_cells_have_the_moments_that_their_parameters_promise() -> None:
    rng = np.random.default_rng(2)
    ratios, z = [], []
    for _ in range(100):
        experiment = calibration.simulate("normal", rng)
        drawn = experiment.truth.isel(chain=0, draw=0)
        cells = experiment.cells.isel(arm=1)
        sigma, n = float(drawn["sigma"].isel(variant=1)), cells["n"].values
        expected = (drawn["baseline"] + drawn["effect"].isel(arm=0)).values
        z += list((cells["mean"].values - expected) / (sigma / np.sqrt(n)))
        ratios.append(float(cells["ss"].sum()) / sigma**2)
        assert (cells["ss"].values[n == 1] == 0).all()
    freedom = int((calibration.SMALL[:, 1] - 1).sum())
    assert stats.kstest(z, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(ratios, stats.chi2(freedom).cdf).pvalue > FALSE_ALARM
