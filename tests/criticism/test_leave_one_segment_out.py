"""Leave-one-segment-out scores: exact for published estimates, and the same by weights as by leaving out."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import example, table
from example_structures import stated
from paths import REFERENCE
from scipy import stats

import bayes_hte as hte
from bayes_hte.criticism import leave_one_segment_out
from bayes_hte.model.prior_draws import draw_from_prior
from bayes_hte.model.problem import build_problem

SCHOOLS = json.loads((REFERENCE / "eight_schools.json").read_text(encoding="utf-8"))
PUBLISHED = [-4.597, -3.543, -4.050, -3.599, -3.873, -3.754, -3.962, -3.960]
"""Exact values under effect.mean ~ Normal(0, 100), effect.between ~ Uniform(0, 104.44); their sum is -31.338."""


def schools_model(**effect: Any) -> hte.Model:
    stated = {"mean": {"dist": "Normal", "sigma": 100.0}, "between": {"dist": "Uniform", "upper": 104.44}}
    return hte.Model.model_validate({"family": "estimate", "effect": stated | effect})


@pytest.fixture(scope="module")
def eight() -> hte.Fit:
    rows = pd.DataFrame(SCHOOLS["cells"])
    cells = hte.cells.from_estimates(rows, segments=["segment"], estimate="y", se="se")
    return hte.fit(cells, schools_model(), draws=8000)


def test_eight_schools_have_the_exact_scores(eight: hte.Fit) -> None:
    found = hte.loso(eight)
    # the values are known to three decimals
    assert np.abs(found["elpd"] - PUBLISHED).max() < 6e-4
    assert found.attrs["elpd"] == pytest.approx(-31.338, abs=1e-3)
    assert (found["mcse"] == 0).all()


def test_weights_give_the_scores_that_quadrature_gives(eight: hte.Fit) -> None:
    elpd, mcse, pareto_k = leave_one_segment_out._score_by_importance(
        build_problem(eight.cells, eight.model), eight.tree["posterior"].to_dataset(), seed=1
    )
    assert (pareto_k < 0.7).all()
    # eight comparisons at 4 standard errors: a false alarm in 1 of 2000 seeds
    assert (np.abs(elpd - hte.loso(eight)["elpd"]) < 4 * mcse + 1e-3).all()


def test_a_segment_left_out_for_real_has_the_score_that_weights_give(counts: xr.Dataset) -> None:
    fit = hte.fit(counts, "conversion", sampler="exact", draws=8000)
    elpd, mcse, _ = leave_one_segment_out._score_by_importance(
        build_problem(fit.cells, fit.model), fit.tree["posterior"].to_dataset(), seed=1
    )
    for segment in (0, 3, 5):
        exact, error = leave_one_segment_out._refit_without_segment(
            build_problem(fit.cells, fit.model), segment, seed=2
        )
        assert abs(exact - elpd[segment]) < 4 * np.hypot(error, mcse[segment])


def test_the_likelihood_of_a_segment_counts_its_spread_too() -> None:
    """Under complete pooling and a known baseline the score of a normal segment is the density of its units."""
    units = [[[0.2, 1.1, 1.6, 1.1], [1.9, 0.3, 2.2, 1.4, 1.2]], [[2.5, -0.6, 0.4, 1.3, 1.9, -0.1], [1.2, 1.2, 1.2]]]
    n = np.array([[len(cell) for cell in row] for row in units])
    mean = np.array([[np.mean(cell) for cell in row] for row in units])
    ss = n * np.array([[np.var(cell) for cell in row] for row in units])
    cells = table({"n": n, "mean": mean, "ss": ss}, arms=("control", "email"), control="control")
    narrow = {"dist": "Normal", "mu": 1.0, "sigma": 1e-4}
    model = hte.Model.model_validate({
        "family": "normal", "pooling": "complete",
        "effect": {"mean": {"dist": "Normal", "mu": 0.3, "sigma": 1e-4}},
        "baseline": {"mean": narrow, "pooling": "none"},
        "nuisance": {"sigma": {"dist": "Uniform", "lower": 1.0999, "upper": 1.1001}},
    })  # fmt: skip
    found = hte.loso(hte.fit(cells, model, sampler="exact"))["elpd"]
    expected = [sum(stats.norm.logpdf(units[s][a], 1.0 + 0.3 * a, 1.1).sum() for a in (0, 1)) for s in (0, 1)]
    assert found.to_numpy() == pytest.approx(expected, abs=2e-3)


def test_a_long_tail_is_replaced_by_leaving_the_segment_out(
    counts: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = hte.fit(counts, "conversion", sampler="exact")
    monkeypatch.setattr(leave_one_segment_out, "MAX_TRUSTED_PARETO_K", -np.inf)
    asked: list[int] = []
    monkeypatch.setattr(
        leave_one_segment_out,
        "_refit_without_segment",
        lambda task, segment, *, seed: asked.append(segment) or (-1.0, 0.1),
    )
    assert (hte.loso(fit)["elpd"] == -1.0).all()
    assert asked == list(range(6))


def test_one_segment_has_no_others(counts: xr.Dataset) -> None:
    fit = hte.fit(counts.isel(segment=[0]), "conversion", sampler="exact")
    with pytest.raises(hte.DataError, match="no others"):
        hte.loso(fit)


@pytest.mark.parametrize("pooling", ["none", "complete"])
def test_correlated_estimates_are_predicted_from_each_other(pooling: str) -> None:
    y, se = np.array([1.0, 1.2, 0.1]), np.array([0.5, 0.5, 0.6])
    covariance = np.diag(se**2)
    covariance[0, 1] = covariance[1, 0] = 0.2
    cells = table({"estimate": y[:, None], "se": se[:, None]}, arms=("treated",), control="")
    cells = cells.assign(covariance=xr.DataArray(covariance, dims=("segment", "other_segment")))
    model = hte.Model.model_validate({"family": "estimate", "pooling": pooling,
                                      "effect": {"mean": {"dist": "Normal", "sigma": 2.0}}})  # fmt: skip
    found = hte.loso(hte.fit(cells, model))["elpd"]
    whole = covariance + (4.0 if pooling == "complete" else 4.0 * np.eye(3))
    joint = stats.multivariate_normal(np.zeros(3), whole)
    for s in range(3):
        kept = [i for i in range(3) if i != s]
        others = stats.multivariate_normal(np.zeros(2), whole[np.ix_(kept, kept)])
        assert found[s] == pytest.approx(joint.logpdf(y) - others.logpdf(y[kept]), rel=1e-6)


def test_a_segment_left_out_is_where_its_covariate_says() -> None:
    cells = example("estimate", segments=6, seed=2)
    slope = {"covariates": ["age"], "slope": {"dist": "Normal", "sigma": 5.0}}
    problem = build_problem(cells, stated("estimate", slope | {"shape": "horseshoe", "slab": 1.0}))
    rng = np.random.default_rng(4)
    posterior = xr.Dataset(draw_from_prior(problem, draw_count=4000, rng=rng))
    for segment in (0, 3):
        drawn = leave_one_segment_out._draw_new_coefficients(problem, posterior, cells, segment, rng)["effect"]
        z = problem.segment_design.standardised_covariates[segment, 0]
        centre = posterior["effect_mean"] + z * posterior["effect_slope"].isel(covariate=0, drop=True)
        own = (drawn.isel(segment=0, drop=True) - centre).isel(arm=0, drop=True)
        slope_draws = posterior["effect_slope"].isel(covariate=0, arm=0, drop=True)
        # What is left is independent of the slope: |correlation| < 4.5 / √4000 but with probability 7e-6.
        assert abs(float(xr.corr(own, slope_draws))) < 4.5 / np.sqrt(4000)
