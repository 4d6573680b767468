"""A hazard ratio that changes over time is seen, and one that does not raises its one alarm in a thousand."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import bayes_hte as hte
from bayes_hte.cells.checks.proportional_hazards import compare_hazards, describe_changing_hazards

EDGES = np.array([0.0, 0.3, 0.8, 1.5])


def follow(ratios: list[float], units: int, seed: int) -> xr.Dataset:
    """Cells of two segments whose units fail with piecewise constant hazards."""
    rng = np.random.default_rng(seed)
    failures, at_risk = np.zeros((2, 2, 3), dtype=np.int64), np.zeros((2, 2, 3))
    for segment, arm in np.ndindex(2, 2):
        is_left = np.ones(units, dtype=bool)
        for interval, hazard in enumerate(np.array([1.0, 0.5, 2.0]) * (1 + segment)):
            time = rng.exponential(1 / (hazard * (ratios[interval] if arm else 1.0)), units)
            width = EDGES[interval + 1] - EDGES[interval]
            at_risk[segment, arm, interval] = np.minimum(time, width)[is_left].sum()
            failures[segment, arm, interval] = (is_left & (time < width)).sum()
            is_left &= time >= width
    dims = ("segment", "arm", "interval")
    coords = {"arm": ["old", "new"], "start": ("interval", EDGES[:-1]), "end": ("interval", EDGES[1:])}
    return xr.Dataset({"failures": (dims, failures), "at_risk": (dims, at_risk)}, coords, {"control": "old"})


def test_proportional_hazards_have_uniform_p_values() -> None:
    p_values = [compare_hazards(follow([1.5] * 3, 60, seed), "new").p_value for seed in range(400)]
    # Kolmogorov–Smirnov: a false alarm once in 1,000 seeds, and these are fixed.
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    assert np.mean(np.array(p_values) < 0.001) < 0.02


def test_hazards_that_cross_are_said_with_their_ratios() -> None:
    (sentence,) = describe_changing_hazards(follow([0.3, 1.0, 3.0], 200, 1))
    assert "hazards cross" in sentence
    assert "between 0 and 0.3" in sentence
    assert "between 0.8 and 1.5" in sentence


def test_interval_ratios_are_the_stated_ones() -> None:
    found = compare_hazards(follow([0.5, 2.0, 1.0], 20_000, 2), "new")
    # Log ratios of thousands of failures each: 4 standard errors are less than a tenth.
    assert np.log(found.ratios) == pytest.approx(np.log([0.5, 2.0, 1.0]), abs=0.1)


@pytest.mark.parametrize("units", [1, 2, 5])
def test_too_few_failures_say_nothing(units: int) -> None:
    assert describe_changing_hazards(follow([0.01, 1.0, 100.0], units, 3)) == []


@pytest.mark.parametrize("emptied_arm", [0, 1])
def test_failures_in_one_arm_alone_say_nothing_of_their_times(emptied_arm: int) -> None:
    cells = follow([1.0, 1.0, 1.0], 50, 3)
    cells["failures"][:, emptied_arm] = 0
    assert compare_hazards(cells, "new").p_value == 1.0
    assert describe_changing_hazards(cells) == []


def test_an_arm_without_failures_is_no_error() -> None:
    cells = follow([1.0] * 3, 50, 4)
    cells["failures"].loc[{"arm": "new"}] = 0
    assert compare_hazards(cells, "new").ratios.max() == 0.0


def test_a_fit_of_hazards_that_cross_is_not_called_reliable() -> None:
    cells = follow([0.2, 1.0, 5.0], 300, 5).assign_coords(segment=["a", "b"], interval=["1", "2", "3"])
    cells = cells.assign_coords(site=("segment", ["a", "b"])).assign(n=(("segment", "arm"), np.full((2, 2), 300)))
    cells = cells.assign_attrs(outcome="death", dims='["site"]', notes="[]", horizon=0.8, control="old")
    from bayes_hte.model.families import FAMILIES

    (problem,) = FAMILIES["piecewise_exponential"].list_misfits(cells, {})
    assert problem.startswith("The hazard ratio of new changes over time")
    assert hte.read_model("survival").family == "piecewise_exponential"
