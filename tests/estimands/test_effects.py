"""Effects from a posterior, draw by draw, against plain NumPy on hand-made draws."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit
from scipy import special

from bayes_hte import Fit, ModelError
from bayes_hte.estimands.effects import (
    compute_effects,
    estimate_without_pooling,
)
from bayes_hte.estimands.pooling_factor import average_pooling
from bayes_hte.model.families import FAMILIES
from bayes_hte.spec import cell_table
from bayes_hte.spec.family_rules import FamilyName

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


@pytest.mark.parametrize("family", ["binomial", "normal", "mean"])
def test_effects_do_not_depend_on_whether_labels_or_their_order_say_which_cell_is_which(family: FamilyName) -> None:
    fit = example_fit(4, family, ("control", "sms", "email"))
    # Arms in another order than the cells': there xarray has to align the labels, which it need not do else.
    posterior = fit.tree["posterior"].to_dataset()
    turned = fit.tree
    turned["posterior"] = xr.DataTree(posterior.isel(arm=[1, 0]))
    expected = compute_effects(fit.tree, "absolute")
    xr.testing.assert_identical(compute_effects(turned, "absolute").sel(arm=expected["arm"]), expected)
    pooling, expected_pooling = average_pooling(turned), average_pooling(fit.tree)
    for averages in (pooling.sel(arm=expected_pooling["arm"]), expected_pooling):
        assert set(averages.coords) >= {"segment", "arm"}
    # Sums over draws that lie otherwise in memory may round otherwise.
    xr.testing.assert_allclose(
        pooling.sel(arm=expected_pooling["arm"]).reset_coords(drop=True),
        expected_pooling.reset_coords(drop=True),
        rtol=1e-12,
    )
