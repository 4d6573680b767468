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
