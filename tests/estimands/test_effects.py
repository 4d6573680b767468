"""Effects from a posterior, draw by draw, against plain NumPy on hand-made draws."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit
from scipy import special

from bayes_hte import DataError, Fit, ModelError
from bayes_hte.estimands.effects import (
    average_over_segments,
    compute_effects,
    compute_pooling_factor,
    compute_population_shares,
    draw_new_segment_effect,
    estimate_without_pooling,
    get_fitted_cells,
)
from bayes_hte.model.families import FAMILIES
from bayes_hte.spec import cell_table

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


def test_binomial_effects_follow_their_definitions_draw_by_draw() -> None:
    fit = example_fit(5, "binomial", arms=("control", "email", "sms"))
    effect, baseline = draws_of(fit, "effect"), draws_of(fit, "baseline")[..., None]
    control, treated = special.expit(baseline), special.expit(baseline + effect)
    found = {scale: compute_effects(fit.posterior, scale) for scale in cell_table.EFFECT_SCALES}
    assert all(draws.dims == ("chain", "draw", "segment", "arm") for draws in found.values())
    np.testing.assert_array_equal(found["link"], effect)
    np.testing.assert_allclose(found["absolute"], treated - control, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found["relative"], treated / control - 1, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("family", ["normal", "mean"])
def test_identity_effects_follow_their_definitions_draw_by_draw(family: Any) -> None:
    fit = example_fit(4, family)
    effect, baseline = draws_of(fit, "effect"), draws_of(fit, "baseline")[..., None]
    np.testing.assert_array_equal(compute_effects(fit.posterior, "link"), effect)
    np.testing.assert_array_equal(compute_effects(fit.posterior, "absolute"), effect)
    np.testing.assert_allclose(compute_effects(fit.posterior, "relative"), effect / baseline, rtol=1e-12, atol=1e-14)


def test_published_estimates_have_no_relative_effect() -> None:
    fit = example_fit(4, "estimate")
    np.testing.assert_array_equal(compute_effects(fit.posterior, "absolute"), draws_of(fit, "effect"))
    with pytest.raises(ModelError, match=r'scale "relative" needs .*use "absolute"'):
        compute_effects(fit.posterior, "relative")
    with pytest.raises(ModelError, match="use scale absolute or link"):
        estimate_without_pooling(fit.posterior, "relative")


def test_shares_are_the_units_of_all_arms() -> None:
    cells = get_fitted_cells(example_fit(5, arms=("control", "email", "sms"), one_armed=(1,)).posterior)
    n = cells["n"].values
    np.testing.assert_allclose(compute_population_shares(cells), n.sum(axis=1) / n.sum(), rtol=1e-12)


def test_segments_count_the_same_where_units_are_unknown() -> None:
    cells = get_fitted_cells(example_fit(4, "estimate", known_n=False).posterior)
    np.testing.assert_allclose(compute_population_shares(cells), np.full(4, 0.25))


def test_weights_go_by_label_and_in_any_order() -> None:
    cells = get_fitted_cells(example_fit(3).posterior)
    labels = [str(label) for label in cells["segment"].values]
    weights = pd.Series([3.0, 1.0, 0.0], index=labels).iloc[[2, 0, 1]]
    np.testing.assert_allclose(compute_population_shares(cells, weights), [0.75, 0.25, 0.0])
    np.testing.assert_allclose(compute_population_shares(cells, dict(weights)), [0.75, 0.25, 0.0])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1.0, 2.0], r"weights lack the segments \['device 3'\]"),
        ([1.0, -2.0, 1.0], "not negative"),
        ([0.0, 0.0, 0.0], "not all zero"),
        ([1.0, float("nan"), 1.0], "finite"),
        ([1.0, float("inf"), 1.0], "finite"),
    ],
)
def test_weights_that_make_no_population_are_refused(values: list[float], match: str) -> None:
    cells = get_fitted_cells(example_fit(3).posterior)
    with pytest.raises(DataError, match=match):
        compute_population_shares(cells, dict(zip(["device 1", "device 2", "device 3"], values, strict=False)))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_average_effect_is_the_share_weighted_sum_of_every_draw(family: Any) -> None:
    fit = example_fit(4, family, arms=("control", "email", "sms"))
    share = np.array([0.1, 0.2, 0.3, 0.4])
    weights = dict(zip(map(str, fit.cells["segment"].values), share, strict=True))
    draws = compute_effects(fit.posterior)
    found = average_over_segments(draws, compute_population_shares(fit.cells, weights))
    np.testing.assert_allclose(found, np.einsum("cdsa,s->cda", draws.values, share), rtol=1e-12, atol=1e-15)


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


def raw_of(name: Any, cells: xr.Dataset, scale: Any) -> tuple[np.ndarray, np.ndarray]:
    found = FAMILIES[name].estimate_raw_effects(FAMILIES[name].select_statistics(cells), scale)
    assert found["raw"].dims == found["raw_se"].dims == ("segment", "arm")
    return found["raw"].values, found["raw_se"].values


def test_raw_risk_differences_are_walds_but_for_cells_without_variation(counts: xr.Dataset) -> None:
    value, se = raw_of("binomial", counts, "absolute")
    n, y = counts["n"].values.astype(float), counts["events"].values
    for s, a in [(0, 0), (0, 1), (1, 0), (2, 1)]:
        p, q = y[s, 0] / n[s, 0], y[s, a + 1] / n[s, a + 1]
        assert value[s, a] == pytest.approx(q - p)
        assert se[s, a] == pytest.approx(np.sqrt(p * (1 - p) / n[s, 0] + q * (1 - q) / n[s, a + 1]))
    # Segment 3 has no events among 30 controls: (0 + 1) / (30 + 2), only in the standard error.
    p, q = 1 / 32, 4 / 25
    assert value[3, 0] == pytest.approx(4 / 25)
    assert se[3, 0] == pytest.approx(np.sqrt(p * (1 - p) / 30 + q * (1 - q) / 25))
    assert np.isnan(value[5, 1])
    assert np.isnan(se[5, 1])


def test_raw_log_odds_ratios_are_woolfs_and_do_not_exist_for_empty_cells(counts: xr.Dataset) -> None:
    value, se = raw_of("binomial", counts, "link")
    # Segment 2, email: 5 of 60 against 12 of 70.
    assert value[2, 0] == pytest.approx(np.log((12 / 58) / (5 / 55)))
    assert se[2, 0] == pytest.approx(np.sqrt(1 / 12 + 1 / 58 + 1 / 5 + 1 / 55))
    gone = np.array([[False, False]] * 3 + [[True, True], [True, False], [False, True]])
    np.testing.assert_array_equal(np.isnan(value), gone)
    np.testing.assert_array_equal(np.isnan(se), gone)


def test_raw_ratios_have_the_delta_methods_error(counts: xr.Dataset) -> None:
    value, se = raw_of("binomial", counts, "relative")
    p, q, n, m = 90 / 900, 120 / 850, 900, 850
    assert value[0, 0] == pytest.approx(q / p - 1)
    assert se[0, 0] == pytest.approx((q / p) * np.sqrt((1 - p) / (n * p) + (1 - q) / (m * q)))
    # Binomial draws of the ratio itself: its SD is known to 1 / sqrt(2 · 200 000); the delta method is first order,
    # and leaves out terms of the size of the control's relative variance, 1 %.
    rng = np.random.default_rng(0)
    ratio = (rng.binomial(m, q, 200_000) / m) / (rng.binomial(n, p, 200_000) / n)
    relative_variance = (1 - p) / (n * p)
    assert ratio.std() == pytest.approx(se[0, 0], rel=3 * relative_variance + 4 / np.sqrt(2 * 200_000))
    assert np.isnan(value[3, 0]), "no ratio to a control without events"


def test_raw_differences_in_means_have_welchs_error(moments: xr.Dataset) -> None:
    value, se = raw_of("normal", moments, "absolute")
    assert value[:, 0] == pytest.approx([1.5, 0.4, 1.0, 3.0, 1.5])
    expected = [np.sqrt(9 / 200 + 3.2**2 / 190), np.sqrt(2.8**2 / 50 + 3.1**2 / 60), np.sqrt(3.3**2 / 12 + 2.5**2 / 10)]
    assert se[:3, 0] == pytest.approx(expected)
    assert np.isnan(se[3, 0]), "one unit has no spread"
    relative, relative_se = raw_of("normal", moments, "relative")
    assert relative[0, 0] == pytest.approx(0.15)
    assert relative_se[0, 0] == pytest.approx(1.15 * np.sqrt(9 / 200 / 100 + 3.2**2 / 190 / 11.5**2))


def test_raw_differences_of_given_means_add_their_variances(means: xr.Dataset) -> None:
    value, se = raw_of("mean", means, "absolute")
    assert value[:, 0] == pytest.approx([1.5, 0.4, 1.0, 3.0, 1.5])
    assert se[0, 0] == pytest.approx(np.hypot(0.3, 0.25))


def test_raw_published_estimates_are_the_estimates(schools: xr.Dataset) -> None:
    value, se = raw_of("estimate", schools, "link")
    np.testing.assert_array_equal(value, schools["estimate"])
    np.testing.assert_array_equal(se, schools["se"])


def test_weights_for_segments_that_are_not_there_are_an_error(counts: xr.Dataset) -> None:
    weights = {f"s{i}": 1.0 for i in range(6)} | {"tablet": 1.0}
    with pytest.raises(DataError, match=r"not there: \['tablet'\]"):
        compute_population_shares(counts, weights)
