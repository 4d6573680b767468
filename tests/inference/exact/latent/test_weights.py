"""Weights are unbiased whatever the sites are, and draws are draws of what they weigh."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import special

import bayes_hte as hte
from bayes_hte.inference.exact.latent.density import LatentDensity, build_density
from bayes_hte.inference.exact.latent.gaussian import Sites
from bayes_hte.inference.exact.latent.weights import weigh_points
from bayes_hte.model.problem import build_problem

REPEATS = 6000


@pytest.fixture
def density(counts: xr.Dataset) -> LatentDensity:
    """Six segments, three arms, some without events, settled near the prior medians."""
    built = build_density(build_problem(counts, hte.read_model("conversion")))
    return built.settled(np.full(len(built.structure.coordinates), -0.3))


def average_weight(density: LatentDensity, point: np.ndarray, seed: int) -> tuple[float, float]:
    """Average weights of many draws at one point: the log of their mean, and its standard error."""
    draws = weigh_points(density, np.repeat(point[np.newaxis], REPEATS, axis=0), np.random.default_rng(seed))
    top = draws.log_weight.max()
    relative = np.exp(draws.log_weight - top)
    return float(top + np.log(relative.mean())), float(relative.std() / relative.mean() / REPEATS**0.5)


@pytest.mark.parametrize("change", ["defensive", "more steps", "no steps", "poor sites"])
def test_weights_have_the_same_mean_whatever_the_sites_are(density: LatentDensity, change: str) -> None:
    point = np.array([0.4, -0.8, 0.6])[: len(density.structure.coordinates)]
    poor = Sites(density.sites.linear, tuple(1.3 * precision + 0.5 for precision in density.sites.precision))
    other = {
        "defensive": replace(density, is_defensive=True, site_steps=2),
        "more steps": replace(density, site_steps=3),
        "no steps": replace(density, site_steps=0),
        "poor sites": replace(density, sites=poor, site_steps=0, is_defensive=True),
    }[change]
    expected, expected_error = average_weight(density, point, 1)
    found, error = average_weight(other, point, 2)
    # 5 combined standard errors: a false alarm in 6e-7; they must be small enough to show a fault
    assert np.hypot(error, expected_error) < 0.05
    assert abs(found - expected) < 5 * np.hypot(error, expected_error)


def test_one_cell_by_hand() -> None:
    """A single segment: the integral over baseline and effect by a grid, of a cell without any event."""
    frame = pd.DataFrame({"plan": ["a", "a"], "arm": ["x", "y"], "n": [9, 7], "y": [0, 3]})
    cells = hte.cells.from_summary(frame, arm="arm", control="x", segments=["plan"], n="n", events="y")
    density = build_density(build_problem(cells, hte.read_model("conversion")))
    density = density.settled(np.zeros(2))
    point = np.array([0.5, 1.0])
    natural = density.structure.compute_natural(point[np.newaxis])
    # baseline ~ N(−., σ² + τ²) after its mean is integrated: locations and scales as the model states them
    model = hte.read_model("conversion")
    grid = np.linspace(-30.0, 30.0, 1601)
    step = grid[1] - grid[0]
    priors = [
        (model.baseline.mean.mu, np.hypot(model.baseline.mean.sigma, natural["baseline_between"][0, 0])),
        (model.effect.mean.mu, np.hypot(model.effect.mean.sigma, natural["effect_between"][0, 0])),
    ]
    base, effect = (np.exp(-0.5 * ((grid - mu) / sd) ** 2) / sd / (2 * np.pi) ** 0.5 for mu, sd in priors)
    no_events = special.expit(-grid) ** 9
    rates = special.expit(grid[:, np.newaxis] + grid)
    some_events = special.comb(7, 3) * rates**3 * (1 - rates) ** 4
    exact = np.log(step**2 * (base * no_events) @ some_events @ effect) - 0.5 * (point**2).sum() - np.log(2 * np.pi)
    for is_defensive in (False, True):
        found, error = average_weight(replace(density, is_defensive=is_defensive), point, 4)
        assert error < 0.03
        assert abs(found - exact) < 5 * error


def test_draws_are_those_of_the_weighted_density(density: LatentDensity) -> None:
    """Means of effects weighted by two very different sets of sites agree, segment by segment."""
    point = np.array([0.4, -0.8, 0.6])[: len(density.structure.coordinates)]
    points = np.repeat(point[np.newaxis], REPEATS, axis=0)
    poor = Sites(density.sites.linear, tuple(1.3 * precision + 0.3 for precision in density.sites.precision))
    means, errors = [], []
    for other in (density, replace(density, sites=poor, site_steps=0, is_defensive=True)):
        draws = weigh_points(other, points, np.random.default_rng(7))
        weights = np.exp(draws.log_weight - draws.log_weight.max())
        weights /= weights.sum()
        effects = draws.predictors[1:] - draws.predictors[:1]
        means.append(effects @ weights)
        errors.append(np.sqrt((effects - means[-1][:, :, np.newaxis]) ** 2 @ weights**2))
    # 12 comparisons at 5 standard errors: a false alarm in 1e-5
    assert (np.abs(means[0] - means[1]) < 5 * np.hypot(*errors)).all()
