"""Segments predicted from all others: standard normal under the model, equal to leaving one out by hand."""

import numpy as np
import pytest
from example_cells import table
from scipy import stats

import bayes_hte as hte
from bayes_hte.criticism.own_estimates.left_out_predictions import predict_left_out
from bayes_hte.criticism.own_estimates.segment_estimates import SegmentEstimates, estimate_segments
from bayes_hte.model.problem import build_problem


def estimates_of(y: np.ndarray, se: np.ndarray) -> SegmentEstimates:
    cells = table({"estimate": y[:, None], "se": se[:, None]}, arms=("t",), control="")
    (estimates,) = estimate_segments(build_problem(cells, hte.read_model("published-estimates")))
    return estimates


def predicted(estimates: SegmentEstimates) -> np.ndarray:
    import xarray as xr

    empty = xr.Dataset({"effect_mean": (("chain", "draw", "arm"), np.zeros((1, 1, 1)))})
    z = predict_left_out(estimates, empty)
    assert z is not None
    return z


def test_closed_sums_equal_leaving_a_segment_out_by_hand() -> None:
    rng = np.random.default_rng(0)
    y, se = rng.normal(0.2, 0.4, 7), rng.uniform(0.1, 0.5, 7)
    z = predicted(estimates_of(y, se))
    # p(τ | others) on a fine grid, the mean N(0, 1) integrated out by the joint normal density of the others.
    tau = np.linspace(1e-4, 4, 800)
    for left_out in range(7):
        others = np.arange(7) != left_out
        log_weight, tail = [], []
        for value in tau:
            covariance = np.diag(se**2 + value**2) + 1.0  # prior variance of the mean
            inner = covariance[np.ix_(others, others)]
            gain = np.linalg.solve(inner, covariance[others, left_out])
            log_weight.append(
                stats.multivariate_normal(np.zeros(6), inner).logpdf(y[others])
                + stats.halfnorm(scale=0.5).logpdf(value)
            )
            sd = np.sqrt(covariance[left_out, left_out] - gain @ covariance[others, left_out])
            tail.append(stats.norm.cdf((y[left_out] - gain @ y[others]) / sd))
        weight = np.exp(np.array(log_weight) - max(log_weight))
        expected = stats.norm.ppf(weight @ np.array(tail) / weight.sum())
        # The grid of 48 values of tau moves z by less than .02.
        assert z[left_out] == pytest.approx(expected, abs=0.02)


def test_z_is_standard_normal_under_the_model_whatever_the_units() -> None:
    rng = np.random.default_rng(1)
    z = []
    for _ in range(200):
        se = rng.uniform(0.05, 0.5, 12)
        tau, mean = abs(rng.normal(0, 0.5)), rng.normal(0, 1)
        z.append(predicted(estimates_of(rng.normal(mean, np.hypot(tau, se)), se)))
    # 2,400 numbers, those of one data set nearly independent: Kolmogorov–Smirnov at p = 1e-4.
    assert stats.kstest(np.concatenate(z), "norm").pvalue > 1e-4


def test_too_few_segments_are_not_predicted() -> None:
    import xarray as xr

    assert predict_left_out(estimates_of(np.zeros(2), np.ones(2)), xr.Dataset()) is None
