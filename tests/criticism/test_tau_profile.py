"""Effects as functions of tau: against the closed form, and against the posterior they average to."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import table

import bayes_hte as hte

NORMAL = {"dist": "Normal", "sigma": 50.0}


def schools_fit(pooling: str = "partial") -> hte.Fit:
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    se = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    cells = table({"estimate": y[:, None], "se": se[:, None]}, arms=("coached",), control="")
    effect = {"mean": NORMAL, "between": {"dist": "HalfCauchy", "beta": 10.0}}
    return hte.fit(cells, hte.Model.model_validate({"family": "estimate", "pooling": pooling, "effect": effect}))


def lines(found: pd.DataFrame, fit: hte.Fit) -> np.ndarray:
    """(tau, segment)"""
    return found["effect"].to_numpy().reshape(-1, fit.cells.sizes["segment"])


def test_effects_given_tau_are_those_of_the_closed_form() -> None:
    fit = schools_fit()
    found = fit.given_tau("link")
    taus = found["tau"].to_numpy().reshape(-1, 8)[:, 0]
    y, se = fit.cells["estimate"].values[:, 0], fit.cells["se"].values[:, 0]
    for tau, effects in zip(taus, lines(found, fit), strict=True):
        w = 1 / (se**2 + tau**2)
        m = (w @ y) / (w.sum() + 1 / 50.0**2)
        expected = (y / se**2 + m / tau**2) / (1 / se**2 + 1 / tau**2)
        np.testing.assert_allclose(effects, expected, rtol=1e-6, atol=1e-6)


def test_at_zero_segments_agree_and_far_right_each_has_its_own_estimate() -> None:
    fit = schools_fit()
    effects = lines(fit.given_tau("link"), fit)
    raw = fit.table("link")["raw"].to_numpy()
    assert np.ptp(effects[0]) < 1e-3
    assert np.abs(effects[-1] - raw).max() < np.abs(effects[0] - raw).max() / 2
    assert (np.diff(np.ptp(effects, axis=1)) > 0).all()


def test_averaged_over_the_posterior_of_tau_they_are_the_posterior_means(counts: xr.Dataset) -> None:
    fit = hte.fit(counts, "conversion", sampler="exact", draws=8000)
    found = fit.given_tau("absolute")
    shown = fit.table(detail=True)
    for arm in ("email", "sms"):
        part = found[found["arm"] == arm]
        taus = part["tau"].to_numpy().reshape(-1, 6)[:, 0]
        density = part["density"].to_numpy().reshape(-1, 6)[:, 0]
        mean = np.trapezoid(density[:, None] * part["effect"].to_numpy().reshape(-1, 6), taus, axis=0)
        expected = shown[shown["arm"] == arm]
        # 250 effective points at each of 33 values of tau, and the tail beyond the grid: a twentieth of an SD
        assert (np.abs(mean - expected["effect"]) < 4 * expected["effect_mcse"] + 0.05 * expected["sd"]).all()


def test_the_density_is_that_of_the_draws() -> None:
    fit = schools_fit()
    found = fit.given_tau("link").drop_duplicates("tau")
    tau, density = found["tau"].to_numpy(), found["density"].to_numpy()
    draws = fit.posterior["posterior"]["effect_between"].values.ravel()
    cumulative = np.concatenate([[0.0], np.cumsum(np.diff(tau) * (density[1:] + density[:-1]) / 2)])
    for prob in (0.25, 0.5, 0.75):
        # the grid ends at 1.6 times the 99th percentile, so that it misses under a hundredth
        assert np.interp(np.quantile(draws, prob), tau, cumulative) == pytest.approx(prob, abs=0.03)


def test_without_partial_pooling_there_is_no_tau() -> None:
    with pytest.raises(hte.ModelError, match="no between-segment SD under pooling"):
        schools_fit("complete").given_tau()


def test_the_picture_has_a_line_for_every_segment() -> None:
    figure = schools_fit().plot_tau_trace()
    assert figure is not None


def crossed_estimates() -> hte.Fit:
    """Six segments of published estimates, whose effects differ by device."""
    frame = pd.DataFrame({
        "device": ["mobile", "mobile", "desktop", "desktop", "tablet", "tablet"], "plan": ["free", "paid"] * 3,
        "y": [0.9, 0.7, 0.1, 0.3, -0.5, -0.2], "se": [0.2, 0.3, 0.25, 0.3, 0.4, 0.35],
    })  # fmt: skip
    cells = hte.cells.from_estimates(frame, segments=["device", "plan"], estimate="y", se="se")
    model = hte.Model.model_validate({"family": "estimate", "effect": {
        "mean": {"dist": "Normal", "sigma": 1.0}, "between": {"dist": "HalfNormal", "sigma": 0.3},
        "by": ["device"], "by_between": {"dist": "HalfNormal", "sigma": 0.8},
    }})  # fmt: skip
    return hte.fit(cells, model, sampler="exact", draws=8000)


def test_effects_given_the_sd_between_levels_equal_a_grid_over_the_other_sd() -> None:
    fit = crossed_estimates()
    found = fit.given_tau("link", dimension="device")
    taus, effects = found["tau"].to_numpy().reshape(-1, 6)[:, 0], lines(found, fit)
    y, noise = fit.cells["estimate"].values[:, 0], np.diag(fit.cells["se"].values[:, 0] ** 2)
    same_device = np.kron(np.eye(3), np.ones((2, 2)))
    between = np.linspace(1e-3, 1.5, 200)
    density = []
    for tau, given in zip(taus, effects, strict=True):
        log_weights, means = [], []
        for sd in between:
            # effect ~ N(0, 1 + tau² [same device] + sd² I),  y = effect + noise
            prior = np.ones((6, 6)) + tau**2 * same_device + sd**2 * np.eye(6)
            solved = np.linalg.solve(prior + noise, y)
            log_weights.append(-0.5 * (y @ solved + np.linalg.slogdet(prior + noise)[1] + (sd / 0.3) ** 2))
            means.append(prior @ solved)
        weights = np.exp(np.array(log_weights) - max(log_weights))
        density.append(np.log(weights.sum()) + max(log_weights) - 0.5 * (tau / 0.8) ** 2)
        # 250 effective points of the other SD: its effects have an SD of at most .05 over its posterior
        np.testing.assert_allclose(given, weights @ means / weights.sum(), atol=5 * 0.05 / 250**0.5)
    expected = np.exp(np.array(density) - max(density))
    found_density = found["density"].to_numpy().reshape(-1, 6)[:, 0]
    np.testing.assert_allclose(found_density, expected / np.trapezoid(expected, taus), rtol=0.1)


def test_where_levels_are_alike_their_dimension_does_not_divide_segments() -> None:
    fit = crossed_estimates()
    found = lines(fit.given_tau("link", dimension="device"), fit)
    # Devices are two segments each: at the left the means of devices are closer than at the right.
    spread = np.ptp(found.reshape(len(found), 3, 2).mean(2), axis=1)
    assert spread[0] < 0.6 * spread[-1]
    assert fit.plot_tau_trace(dimension="device") is not None


def test_a_dimension_by_which_effects_do_not_differ_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(hte.ArgumentError, match="by the levels of 'plan'; they differ by those of device"):
        crossed_estimates().given_tau(dimension="plan")
    with pytest.raises(hte.ArgumentError, match=r"the model has no effect\.by"):
        schools_fit().plot_tau_trace(dimension="device")
