"""Searches end at the same peak from every start, scans find the others, and maps are exact changes of variables."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.inference.exact.latent.density import build_density
from bayes_hte.inference.exact.latent.engine import draw_latent_posterior
from bayes_hte.inference.exact.latent.maps import KNOTS, build_linear_maps, fit_maps
from bayes_hte.inference.exact.latent.peaks import choose_start, climb_peak, survey_peaks
from bayes_hte.inference.exact.latent.requests import carry_out
from bayes_hte.model.problem import Problem, build_problem


@pytest.fixture
def problem(counts: xr.Dataset) -> Problem:
    return build_problem(counts, hte.read_model("conversion"))


def make_two_modes(ratio: float, spread: float, seed: int) -> Problem:
    """Precise segments that agree, and noisy ones that differ by more than their errors."""
    rng = np.random.default_rng(seed)
    errors = np.repeat([0.5 / ratio, 0.5], 8)
    effects = np.where(errors < 0.4, 0.0, rng.normal(0.0, spread, 16)) + 0.1
    frame = pd.DataFrame(
        [
            (f"s{s}", arm, rng.normal(effects[s] * (arm == "b"), errors[s] * 0.5), errors[s])
            for s in range(16)
            for arm in "ab"
        ],
        columns=["segment", "arm", "mean", "se"],
    )
    cells = hte.cells.from_summary(frame, arm="arm", control="a", segments=["segment"], mean="mean", se="se")
    pool = {"mean": {"dist": "Normal", "sigma": 1.0}, "between": {"dist": "HalfNormal", "sigma": 0.5}}
    return build_problem(cells, hte.Model.model_validate({"family": "mean", "effect": pool, "baseline": pool}))


@pytest.mark.parametrize("score", [-2.0, 1.0])
def test_the_peak_is_the_same_from_every_start(problem: Problem, score: float) -> None:
    density = build_density(problem)
    expected = carry_out(climb_peak(density, choose_start(density)))
    found = carry_out(climb_peak(density, choose_start(density, score)))
    assert expected.is_converged
    # A search ends within .05 SD of the peak, each of the two
    assert expected.measure_distances(found.point[np.newaxis])[0] < 0.1 * len(found.point) ** 0.5


@pytest.mark.parametrize("ratio", [60.0, 300.0])
def test_no_peak_with_mass_is_missed(ratio: float) -> None:
    """tau by a grid over both SDs, all else in closed form; at most one problem in six is refused."""
    refused = 0
    for seed in range(6):
        problem = make_two_modes(ratio, 0.9, seed)
        density = build_density(problem).settled(np.zeros(2))
        scores = np.linspace(-6.0, 6.0, 241)
        points = np.stack(np.meshgrid(scores, scores, indexing="ij"), axis=-1).reshape(-1, 2)
        heights = density.approximate(points)
        masses = np.exp(heights - heights.max())
        natural = density.structure.compute_natural(points)["effect_between"][:, 0]
        expected = float(masses @ natural / masses.sum())
        spread = float(np.sqrt(masses @ (natural - expected) ** 2 / masses.sum()))
        drawn = draw_latent_posterior(problem, draws=2000, seed=seed)
        if drawn.require_certificate().list_warnings():
            refused += 1
            continue
        # 600 effective points at least: .041 SD, five of them; the grid's spacing adds a few thousandths
        assert abs(float(drawn.posterior["effect_between"].mean()) - expected) < 5 * 0.045 * spread
    assert refused <= 1


def test_maps_and_their_inverses_belong_together(problem: Problem) -> None:
    peak = carry_out(survey_peaks(build_density(problem))).peaks[0]
    rng = np.random.default_rng(1)
    straight = rng.normal(0.0, 2.0, (500, len(peak.point)))
    for maps in (carry_out(fit_maps(peak)), build_linear_maps(peak)):
        points, log_jacobian = maps.evaluate(straight)
        # invert() interpolates between 320 places: good to a thousandth of a knot's distance
        assert maps.invert(points) == pytest.approx(straight, abs=1e-3)
        step = 1e-6
        slopes = np.ones(len(straight))
        for column in range(straight.shape[1]):
            moved = straight.copy()
            moved[:, column] += step
            slopes *= (maps.evaluate(moved)[0] - points)[:, column] / step
        assert log_jacobian == pytest.approx(np.log(slopes), abs=1e-4)
    assert len(KNOTS) == len(carry_out(fit_maps(peak)).values)
