"""A segment's evidence given what all share, against plain sums over a fine grid of its offsets."""

import numpy as np
import pytest
import xarray as xr
from scipy import special

import bayes_hte as hte
from bayes_hte.inference.exact.latent.segment_evidence import compute_segment_evidence
from bayes_hte.model.problem import build_problem


def test_the_evidence_is_the_sum_over_a_grid_of_offsets(counts: xr.Dataset) -> None:
    problem = build_problem(counts, hte.read_model("conversion"))
    shared = {
        "baseline_mean": np.array([[-2.0], [-2.4]]),
        "baseline_between": np.array([[0.3], [0.6]]),
        "effect_mean": np.array([[0.3, 0.1], [0.0, 0.4]]),
        "effect_between": np.array([[0.2, 0.4], [0.1, 0.05]]),
    }
    found = compute_segment_evidence(problem, shared)
    offsets = np.linspace(-9.0, 9.0, 721)
    mass = np.exp(-0.5 * offsets**2)
    mass /= mass.sum()
    n, events = (counts[name].transpose("segment", "arm").values for name in ("n", "events"))
    for draw in range(2):
        base = shared["baseline_mean"][draw, 0] + shared["baseline_between"][draw, 0] * offsets
        for segment in range(len(n)):
            total = compute_likelihood(base, n[segment, 0], events[segment, 0])
            for arm in range(2):
                effect = shared["effect_mean"][draw, arm] + shared["effect_between"][draw, arm] * offsets
                likelihood = compute_likelihood(
                    base[:, np.newaxis] + effect, n[segment, arm + 1], events[segment, arm + 1]
                )
                total = total * (likelihood @ mass)
            # Eleven nodes around the mode of cells with a handful of events: within a hundredth
            assert found[draw, segment] == pytest.approx(np.log(total @ mass), abs=0.01)


def compute_likelihood(eta: np.ndarray, n: int, events: int) -> np.ndarray:
    rate = special.expit(eta)
    return np.asarray(special.comb(n, events) * rate**events * (1 - rate) ** (n - events))
