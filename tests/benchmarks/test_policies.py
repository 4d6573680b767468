"""The stored regrets are those of the code, the page shows them, and says nothing that is not in them."""

import json
from itertools import product

import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, load

script = load("policies")
STORED = json.loads((BENCHMARKS / "results" / "policies.json").read_text(encoding="utf-8"))
CELLS = [(name, str(count)) for name, count in product(script.SCENARIOS, script.SEGMENT_COUNTS)]
POOLED = ("pooled policy", "pooled rule")


def regret(name: str, count: str, method: str) -> float:
    value: float = STORED[name][count]["methods"][method]["regret"]
    return value


def test_every_scenario_is_stored_and_the_page_is_made_of_it() -> None:
    assert [(name, count) for name in STORED for count in STORED[name]] == CELLS
    for name, count in CELLS:
        assert STORED[name][count]["repetitions"] == script.REPETITIONS
        assert list(STORED[name][count]["methods"]) == list(script.METHODS)
    assert script.write_table(STORED) in (BENCHMARKS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "count"), [("prior", "8"), ("few winners", "40")])
def test_the_first_experiments_get_the_stored_answers(name: str, count: str) -> None:
    for repetition in range(script.KEPT_REPETITIONS):
        record = script.try_experiment(name, int(count), repetition)
        for method in script.METHODS:
            stored = STORED[name][count]["methods"][method]
            if method not in POOLED:
                assert record[method]["regret"] == pytest.approx(
                    stored["first_regret"][repetition], rel=1e-9, abs=1e-12
                )
        # Σ w max(0, mean) has at most the error of the average: its SD is below 1 / 2.8; 5 errors of 1,000 draws.
        error = 5 * (1 / 2.8) / script.FIT_DRAWS**0.5
        promised = STORED[name][count]["methods"]["pooled policy"]["first_promised"][repetition]
        assert record["pooled policy"]["promised"] == pytest.approx(promised, abs=error)


@pytest.mark.parametrize(("name", "count"), CELLS)
def test_the_page_concludes_what_is_stored(name: str, count: str) -> None:
    pooled = regret(name, count, "pooled policy")
    others = {method: regret(name, count, method) for method in script.METHODS if method not in POOLED}
    if name in ("prior", "size trend"):
        assert pooled < min(others.values())
        assert pooled < 0.5 * min(others["Holm"], others["Benjamini–Hochberg"])
    if name in ("null", "quarter"):
        assert others["Holm"] < pooled < others["no pooling"]
        assert regret(name, count, "pooled rule") < pooled
    if name == "few winners":
        assert min(others, key=others.__getitem__) == ("each tested" if count == "8" else "no pooling")
    raw = STORED[name][count]["methods"]["no pooling"]
    assert raw["promised"] > raw["gain"] + 0.2
    if name == "prior":
        # A promise is kept within 4 standard errors of the mean, which are at most those of the regret and more: .03.
        own = STORED[name][count]["methods"]["pooled policy"]
        assert own["promised"] == pytest.approx(own["gain"], abs=0.03)
        stated, achieved = (STORED[name][count][key] for key in ("stated_p_beats_all", "achieved_beats_all"))
        # Binomial SE of 1,500 experiments at .85 is .009: 4 of them.
        assert stated == pytest.approx(achieved, abs=0.037)


@pytest.mark.parametrize("seed", range(5))
def test_the_procedures_reject_what_their_adjusted_p_values_reject(seed: int) -> None:
    """By the other definition: adjusted p-values as running maxima and minima."""
    p = np.random.default_rng(seed).random(12) ** 6
    order = np.argsort(p)
    holm = np.empty(12)
    holm[order] = np.maximum.accumulate(p[order] * np.arange(12, 0, -1))
    hochberg = np.empty(12)
    hochberg[order] = np.minimum.accumulate((p[order] * 12 / np.arange(1, 13))[::-1])[::-1]
    assert script.reject_by_holm(p).tolist() == (holm <= 0.05).tolist()
    assert script.reject_by_benjamini_hochberg(p).tolist() == (hochberg <= 0.05).tolist()
    assert not script.reject_by_holm(np.ones(3)).any()
    assert script.reject_by_benjamini_hochberg(np.zeros(3)).all()
