"""The share of an estimate that is borrowed, against its definition on hand-made draws."""

from typing import Any

import numpy as np
import pytest
from example_posterior import CHAINS, DRAWS, example_fit
from scipy import special

from bayes_hte import Fit
from bayes_hte.estimands.pooling_factor import compute_pooling_factor

SIZE = CHAINS * DRAWS
FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]


def draws_of(fit: Fit, name: str) -> np.ndarray:
    """Plain draws; dims chain, draw, then segment and arm where there are any."""
    return np.asarray(fit.posterior["posterior"][name].values)


def own_variance(fit: Fit) -> np.ndarray:
    """The sampling variance of each effect by the textbook, dims (chain, draw, segment, arm)."""
    cells, family = fit.cells, fit.model.family
    if family == "estimate":
        return np.broadcast_to(cells["se"].values ** 2, draws_of(fit, "effect").shape)
    if family == "mean":
        variance = cells["se"].values ** 2
        return np.broadcast_to(variance[:, 1:] + variance[:, :1], draws_of(fit, "effect").shape)
    n = cells["n"].values
    if family == "normal":
        sigma2 = draws_of(fit, "sigma") ** 2
        return sigma2[:, :, None, 1:] / n[:, 1:] + sigma2[:, :, None, :1] / n[:, :1]
    control = special.expit(draws_of(fit, "baseline"))[..., None]
    treated = special.expit(draws_of(fit, "baseline")[..., None] + draws_of(fit, "effect"))
    return np.asarray(1 / (n[:, :1] * control * (1 - control)) + 1 / (n[:, 1:] * treated * (1 - treated)))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_pooling_factor_is_the_share_of_variance_that_is_chance(family: Any) -> None:
    fit = example_fit(5, family, arms=("control", "email", "sms"))
    variance, tau2 = own_variance(fit), draws_of(fit, "effect_between")[:, :, None, :] ** 2
    found = compute_pooling_factor(fit.posterior)
    assert found.dims == ("chain", "draw", "segment", "arm")
    np.testing.assert_allclose(found, variance / (variance + tau2), rtol=1e-10)


@pytest.mark.parametrize("family", ["binomial", "normal", "mean"])
def test_a_segment_with_one_arm_borrows_everything(family: Any) -> None:
    factor = compute_pooling_factor(example_fit(4, family, one_armed=(2,)).posterior)
    assert (factor.isel(segment=2) == 1).all()
    assert (factor.isel(segment=[0, 1, 3]) < 1).all()


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize(("pooling", "value"), [("none", 0.0), ("complete", 1.0)])
def test_the_pooling_factor_is_a_constant_without_partial_pooling(family: Any, pooling: Any, value: float) -> None:
    factor = compute_pooling_factor(example_fit(3, family, pooling=pooling).posterior)
    assert factor.dims == ("chain", "draw", "segment", "arm")
    assert (factor == value).all()
