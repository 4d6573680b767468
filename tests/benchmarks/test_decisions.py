"""The stored table of wrong calls is that of the code, its posterior is that of the package, and the page tells it."""

import json

import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, load

import bayes_hte as hte

scenarios = load("decision_scenarios")
script = load("decisions")
STORED = json.loads((BENCHMARKS / "results" / "decisions.json").read_text(encoding="utf-8"))


def test_every_scenario_is_stored_and_the_page_has_the_table() -> None:
    assert STORED["experiments"] == script.EXPERIMENTS
    titles = [f"{name}, {count} segments" for name in scenarios.SCENARIOS for count in scenarios.SEGMENT_COUNTS]
    assert list(STORED["scenarios"]) == titles
    assert all(list(judged) == list(script.METHODS) for judged in STORED["scenarios"].values())
    assert script.write_table(STORED) in (BENCHMARKS / "decisions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["prior", "few winners"])
def test_a_quarter_of_the_experiments_agrees_with_the_stored_numbers(name: str) -> None:
    """The first 500 of the 2,000 experiments: a mean of them differs from that of all with SE √(1/500 − 1/2000)."""
    found = script.run_scenario(name, 8, 500)
    for method, judged in found.items():
        stored = STORED["scenarios"][f"{name}, 8 segments"][method]
        # √(1/500 − 1/2000) = √3 / √2000: √3 standard errors of all; five of them for shares that are skewed.
        error = stored["wrong_share_error"] * 3**0.5
        assert abs(judged["wrong_share"] - stored["wrong_share"]) < 5 * error, method


@pytest.mark.parametrize("segment_count", [8, 40])
def test_the_integrated_posterior_is_the_one_that_the_package_fits(segment_count: int) -> None:
    for name in ("prior", "size trend"):
        batch = script.draw_batch(name, segment_count, 2)
        posterior = script.integrate_posterior(batch.raw_effects, batch.raw_errors)
        for index in range(2):
            experiment = scenarios.Experiment(*(getattr(batch, key)[index] for key in scenarios.Experiment.__slots__))
            table = hte.fit(experiment.build_cells(), scenarios.MODEL, sampler="exact", draws=4000, seed=1).table()
            # The engine integrates signs; the pooling factor is a mean of 4,000 draws with an SD below .3.
            np.testing.assert_allclose(posterior.p_positive[index], table["p_positive"], atol=2e-3)
            np.testing.assert_allclose(posterior.pooling[index], table["pooling"], atol=5 * 0.3 / 4000**0.5)


def test_the_pooled_rule_calls_what_a_fit_decides() -> None:
    batch = script.draw_batch("prior", 8, 12)
    calls = script.call_pooled(batch)
    agreed = 0
    for index in range(12):
        experiment = scenarios.Experiment(*(getattr(batch, key)[index] for key in scenarios.Experiment.__slots__))
        decisions = hte.fit(experiment.build_cells(), scenarios.MODEL, sampler="exact", seed=1).decide()["decision"]
        agreed += int(((decisions == "ship") == calls.ships[index]).sum())
        agreed += int(((decisions == "stop") == calls.stops[index]).sum())
    # A segment whose probability or pooling lies within the Monte-Carlo error of a threshold may fall on either side.
    assert agreed >= 2 * 8 * 12 - 3
    assert calls.ships.any()
    assert calls.stops.any()


def test_calls_are_judged_by_the_truth() -> None:
    ships = np.array([[True, False, True, False], [False, False, True, False]])
    stops = np.array([[False, True, False, False], [False, True, False, False]])
    truth = np.array([[1.0, 0.0, -1.0, 2.0], [0.0, -1.0, 0.0, 1.0]])
    judged = script.judge_calls(script.Calls(ships, stops, np.full((2, 4), 0.1)), truth)
    # Wrong: stopped at 0, shipped at −1; shipped at 0.
    assert (judged["calls"], judged["wrong"], judged["wrong_share"]) == (2.5, 1.5, 0.6)
    assert (judged["any_wrong"], judged["stated"], judged["found"]) == (1.0, pytest.approx(0.1), pytest.approx(1 / 3))


def test_stated_wrong_calls_come_out_where_effects_are_as_the_prior_says() -> None:
    for count in scenarios.SEGMENT_COUNTS:
        for method in ("pooled rule", "pooled, borrowed too"):
            judged = STORED["scenarios"][f"prior, {count} segments"][method]
            # Four such numbers within 3 standard errors: a false alarm in 100 seeds.
            assert abs(judged["wrong_share"] - judged["stated"]) < 3 * judged["wrong_share_error"], (count, method)
