"""The stored table of skewed means is that of the code, and what the guide concludes from it stands in it."""

import json

import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, load

script = load("skewed_means")
STORED = json.loads((BENCHMARKS / "results" / "skewed_means.json").read_text(encoding="utf-8"))
QUICK = ["wide", "gamma"]
LOGNORMAL = [name for name, design in script.DESIGNS.items() if design.draw_amounts is script.draw_lognormal_amounts]
LEAST_EFFECTIVE_DRAWS = 600
"""Effective points that a fit aims at."""


def test_every_design_is_stored_and_the_table_is_made_of_it() -> None:
    assert set(STORED) == set(script.DESIGNS)
    for results in STORED.values():
        assert results["repetitions"] == script.REPETITIONS
        assert list(results["models"]) == [*script.MODELS, script.PLAIN]
    assert script.write_table(STORED) in (BENCHMARKS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in script.DESIGNS]
)
def test_the_first_experiment_gets_the_stored_answers(name: str) -> None:
    """Five combined Monte-Carlo errors, for versions that draw other numbers: a false alarm in 10⁶."""
    _, answers = script.answer_by_all(name, 0)
    for title, answer in answers.items():
        stored, low, high = STORED[name]["models"][title]["first"][0]
        if title == script.PLAIN:
            assert answer.average == pytest.approx([stored, low, high], rel=1e-9)
            continue
        posterior_sd = (high - low) / (2 * script.NORMAL_QUANTILE)
        error = posterior_sd * (2 / LEAST_EFFECTIVE_DRAWS) ** 0.5
        assert answer.average[0] == pytest.approx(stored, abs=5 * error), title


def test_moments_of_a_cell_are_those_of_all_its_units() -> None:
    amounts = np.array([3.0, 10.0, 0.5, 40.0])
    units = np.concatenate([amounts, np.zeros(96)])
    measured = script.measure_cell(amounts, 100)
    assert measured["mean"] == pytest.approx(units.mean(), rel=1e-12)
    assert measured["sd"] == pytest.approx(units.std(ddof=1), rel=1e-12)
    assert measured["log_sd"] == pytest.approx(np.log(amounts).std(ddof=1), rel=1e-12)


@pytest.mark.parametrize("name", script.DESIGNS)
def test_amounts_have_the_mean_that_true_effects_are_made_of(name: str) -> None:
    """Five standard errors: with other seeds a false alarm in 10⁶."""
    design = script.DESIGNS[name]
    for sigma in (1.0, design.treated_sigma):
        amounts = design.draw_amounts(np.random.default_rng(1), 200_000, sigma)
        assert amounts.mean() == pytest.approx(np.exp(4), abs=5 * amounts.std() / amounts.size**0.5)


@pytest.mark.parametrize("name", script.DESIGNS)
def test_variance_pooled_per_arm_keeps_the_average_unbiased_and_covered(name: str) -> None:
    """Bias within 3.5 Monte-Carlo errors, coverage within 3 of .95: 1 in 2,000 and 1 in 200 with other seeds."""
    judged = STORED[name]["models"]["metric"]
    bias, error = judged["average_bias"]
    assert abs(bias) < 3.5 * error
    assert judged["average_covered"] > 0.95 - 3 * (0.95 * 0.05 / script.REPETITIONS) ** 0.5


@pytest.mark.parametrize("name", ["wide", "wide_differing"])
def test_own_variances_lose_much_of_the_average_where_base_rates_differ(name: str) -> None:
    judged = STORED[name]["models"]["metric, own variances"]
    assert judged["average_bias"][0] < -0.3 * STORED[name]["true_average"]
    assert judged["average_covered"] < 0.85


@pytest.mark.parametrize("name", script.DESIGNS)
def test_revenue_speaks_where_amounts_are_not_lognormal_and_is_silent_where_they_are(name: str) -> None:
    says_so = STORED[name]["models"]["revenue"]["says_so"]
    assert says_so <= 0.03 if name in LOGNORMAL else says_so >= 0.97
