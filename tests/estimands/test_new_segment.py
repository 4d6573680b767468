"""Effects in a new segment, against the fitted distribution of segments that they are drawn from."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit
from scipy import special

from bayes_hte import Fit, ModelError
from bayes_hte.estimands.new_segment import draw_new_segment_effect
from bayes_hte.estimands.weights import compute_population_shares

SIZE = CHAINS * DRAWS
FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]


def draws_of(fit: Fit, name: str) -> np.ndarray:
    """Plain draws; dims chain, draw, then segment and arm where there are any."""
    return np.asarray(fit.posterior["posterior"][name].values)


def with_model(fit: Fit, **changes: Any) -> xr.DataTree:
    """The same draws under a model whose tables are changed."""
    tree = fit.posterior.copy()
    tree.attrs = {**fit.posterior.attrs, "model": json.dumps(json.loads(fit.posterior.attrs["model"]) | changes)}
    return tree


@pytest.mark.parametrize("family", ["estimate", "mean", "normal"])
def test_a_new_segment_is_drawn_from_the_fitted_distribution_of_segments(family: Any) -> None:
    fit = example_fit(4, family, arms=("control", "email", "sms"))
    mean, tau = draws_of(fit, "effect_mean"), draws_of(fit, "effect_between")
    found = draw_new_segment_effect(fit.posterior, "absolute", seed=3)
    assert found.dims == ("chain", "draw", "arm")
    # Given the draws of mean and tau, the average is normal around theirs with this standard error.
    error = np.sqrt((tau**2).sum(axis=(0, 1))) / SIZE
    assert (np.abs(found.mean(("chain", "draw")) - mean.mean(axis=(0, 1))) < 4 * error).all()
    variance = mean.var(axis=(0, 1)) + (tau**2).mean(axis=(0, 1))
    squares = (found.values - mean.mean(axis=(0, 1))) ** 2
    assert (np.abs(squares.mean(axis=(0, 1)) - variance) < 4 * squares.std(axis=(0, 1)) / np.sqrt(SIZE)).all()


def test_a_new_segment_of_a_binomial_has_a_new_baseline_too() -> None:
    fit = example_fit(4)
    rng = np.random.default_rng(99)  # another way to the same law: 200 new segments for every draw
    mean, tau = draws_of(fit, "effect_mean")[..., 0], draws_of(fit, "effect_between")[..., 0]
    centre, spread = draws_of(fit, "baseline_mean"), draws_of(fit, "baseline_between")
    effect = mean + tau * rng.standard_normal((200, *mean.shape))
    baseline = centre + spread * rng.standard_normal((200, *mean.shape))
    expected = special.expit(baseline + effect) - special.expit(baseline)
    found = draw_new_segment_effect(fit.posterior, "absolute", seed=3).values
    assert abs(found.mean() - expected.mean()) < 4 * expected.std() / np.sqrt(SIZE)
    squares = (expected - expected.mean()) ** 2
    assert abs(found.var() - expected.var()) < 4 * squares.std() / np.sqrt(SIZE)


def test_a_new_segment_depends_on_nothing_but_its_seed() -> None:
    fit = example_fit(4)
    one, same, other = (draw_new_segment_effect(fit.posterior, "absolute", seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(one, same)
    assert not np.allclose(one, other)


def test_complete_pooling_gives_a_new_segment_the_one_effect() -> None:
    fit = example_fit(4, pooling="complete")
    np.testing.assert_array_equal(draw_new_segment_effect(fit.posterior, "link", seed=1), draws_of(fit, "effect_mean"))


def test_without_pooling_nothing_is_said_of_a_new_segment() -> None:
    with pytest.raises(ModelError, match="fit with pooling = partial"):
        draw_new_segment_effect(example_fit(4, pooling="none").posterior, "absolute", seed=1)


def test_a_new_segments_baseline_is_one_of_the_known_where_baselines_are_not_pooled() -> None:
    fit = example_fit(3, pooling="complete")
    free = {"pooling": "none", "mean": {"dist": "Normal", "sigma": 2.5}}
    found = draw_new_segment_effect(with_model(fit, baseline=free), "absolute", seed=4).values
    effect, baseline = draws_of(fit, "effect_mean"), draws_of(fit, "baseline")
    candidates = special.expit(baseline + effect) - special.expit(baseline)
    distance = np.abs(found - candidates)
    assert distance.min(axis=-1).max() < 1e-12
    counted = np.bincount(distance.argmin(axis=-1).ravel(), minlength=3)
    share = compute_population_shares(fit.cells).values
    assert (np.abs(counted / SIZE - share) < 4 * np.sqrt(share * (1 - share) / SIZE)).all()
