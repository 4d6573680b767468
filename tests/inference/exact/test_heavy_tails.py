"""Heavy-tailed effects where a segment lies between its own estimate and the crowd: two peaks, and neither is missed.

The oracle sums over a grid of the common effect and the scale, and integrates every segment's own effect by the
trapezoid rule over all that prior and data allow. Tolerances: probabilities and means within 4.5 Monte-Carlo errors of
the draws plus .005, the oracle's own error (doubling its grids changes no probability by more).
"""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

import bayes_hte as hte
from bayes_hte.inference.exact.coefficients import mix_normals

Array = NDArray[np.float64]
ORACLE_ERROR = 0.005
DRAWS = 8000


@pytest.mark.parametrize("nu", [1.0, 2.5, 4.0, 30.0])
def test_the_mixture_of_normals_is_students_t(nu: float) -> None:
    log_weights, factors = mix_normals(nu)
    x = np.concatenate([[0.0], np.logspace(-2, 2.5, 40)])
    mixture = np.exp(log_weights) @ stats.norm.pdf(x, scale=factors[:, None])
    within_reach = x < 0.3 * factors[-1]
    assert mixture[within_reach] == pytest.approx(stats.t.pdf(x, nu)[within_reach], rel=2e-4)
    assert len(factors) < 100


def brute_force(y: Array, se: Array, nu: float) -> tuple[Array, Array]:
    """P(effect > 0) and mean of every effect; m ~ Normal(0, 1), scale ~ HalfNormal(0.35)."""
    log_scales, means = np.linspace(np.log(2e-3), np.log(1.2), 46), np.linspace(-0.15, 0.15, 61)
    total, above, first = 0.0, np.zeros(len(y)), np.zeros(len(y))
    lowest, highest = (y - 9 * se).min(), (y + 9 * se).max()
    for scale in np.exp(log_scales):
        fine = scale * np.concatenate(
            [np.linspace(-12, 12, 361), np.logspace(1.08, 4, 160), -np.logspace(1.08, 4, 160)]
        )
        grid = np.unique(np.concatenate([fine, np.linspace(lowest, highest, 801), *(s * np.linspace(-9, 9, 121) + c
                                         for c, s in zip(y, se, strict=True))]))  # fmt: skip
        grid = grid[(grid >= min(lowest, -1.0)) & (grid <= max(highest, 1.0))]
        middle, width = 0.5 * (grid[1:] + grid[:-1]), np.diff(grid)
        likelihood = stats.norm.pdf(y[:, None], middle, se[:, None]) * width
        density = stats.t.pdf((middle - means[:, None]) / scale, nu) / scale  # (mean, effect)
        evidence = density @ likelihood.T  # (mean, segment)
        weight = evidence.prod(1) * stats.norm.pdf(means) * stats.halfnorm.pdf(scale, scale=0.35) * scale
        total += weight.sum()
        above += weight @ (density @ (likelihood * (middle > 0)).T / evidence)
        first += weight @ (density @ (likelihood * middle).T / evidence)
    return above / total, first / total


@pytest.mark.parametrize("distance", [4.0, 5.0, 6.5])
def test_a_vague_outlier_among_precise_segments_equals_brute_force(distance: float) -> None:
    rng = np.random.default_rng(11)
    y = np.append(rng.normal(0.01, 0.05, 9), 0.4 * distance)
    se = np.append(np.full(9, 0.03), 0.4)
    table = pd.DataFrame({"segment_name": [f"s{i}" for i in range(10)], "y": y, "se": se})
    cells = hte.cells.from_estimates(table, segments=["segment_name"], estimate="y", se="se")
    effect = {
        "mean": {"dist": "Normal", "sigma": 1.0},
        "between": {"dist": "HalfNormal", "sigma": 0.35},
        "shape": "student_t",
        "nu": 4.0,
    }
    model = hte.Model.model_validate({"family": "estimate", "effect": effect})
    fit = hte.fit(cells, model, seed=3, draws=DRAWS, sampler="exact")
    above, mean = brute_force(y, se, 4.0)
    p_positive = fit.table("link")["p_positive"].to_numpy()
    draws = fit.posterior["posterior"]["effect"].values.reshape(-1, 10)
    counted = (draws > 0).mean(0)
    # The points of the hyperparameters are worth about as many draws.
    error = 4.5 * np.sqrt(above * (1 - above) / (0.5 * DRAWS)) + ORACLE_ERROR
    assert (np.abs(p_positive - above) < error).all()
    assert (np.abs(counted - above) < error).all()
    assert (np.abs(draws.mean(0) - mean) < 4.5 * draws.std(0) / np.sqrt(0.5 * DRAWS) + ORACLE_ERROR).all()


def test_signs_and_draws_agree_for_a_small_segment_among_large_ones() -> None:
    rng = np.random.default_rng(4)
    n = np.append(np.full(8, 40_000), 200)
    events = [np.append(rng.binomial(n[:8], rate), few) for rate, few in ((0.10, 16), (0.105, 50))]
    names = [f"s{i}" for i in range(9)]
    table = pd.DataFrame(
        {"segment_name": names * 2, "arm": np.repeat(["c", "t"], 9), "n": np.tile(n, 2), "e": np.concatenate(events)}
    )
    cells = hte.cells.from_summary(table, arm="arm", control="c", segments=["segment_name"], n="n", events="e")
    fit = hte.fit(cells, "conversion-outliers", sampler="exact", seed=2, draws=DRAWS)
    counted = (fit.posterior["posterior"]["effect"] > 0).mean(("chain", "draw")).values.ravel()
    p_positive = fit.table("link")["p_positive"].to_numpy()
    allowed = 4.5 * np.sqrt(p_positive * (1 - p_positive) / (0.5 * DRAWS)) + 0.002
    assert (np.abs(counted - p_positive) < allowed).all()
