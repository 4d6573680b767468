"""Draws from the prior of every structure: moments and distributions that follow from what the model states."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from quadrature_oracle import AGE, DEVICE, PLAN, SE, STRATUM, WIDE, Y, estimates, measured, stated, tied
from scipy import stats

from bayes_hte.model.prior_draws import draw_from_prior
from bayes_hte.model.problem import build_problem


def prior_of(dimensions: Mapping[str, list[str]], **structure: Any) -> xr.Dataset:
    """40,000 draws with one chain, for the nine segments above; with a baseline where a correlation needs one."""
    if "correlation" in structure:
        cells, model = measured(np.stack([Y, Y + 0.5], axis=-1), np.full((9, 2), 0.3)), tied(structure["correlation"])
    else:
        cells, model = (
            estimates(Y, SE, dimensions, {"age": AGE} if "covariates" in structure else None),
            stated(**structure),
        )
    task = build_problem(cells, model)
    rng = np.random.default_rng(20)
    drawn = draw_from_prior(task, draw_count=40_000, rng=rng)
    return xr.Dataset({name: values.isel(chain=0).squeeze("arm", drop=True) if "arm" in values.dims else
                       values.isel(chain=0) for name, values in drawn.items()})  # fmt: skip


def near(values: Any, expected: float) -> None:
    """The average over draws, within 4.5 of its standard errors."""
    values = np.asarray(values)
    assert abs(values.mean() - expected) < 4.5 * values.std() / np.sqrt(len(values))


def test_prior_draws_of_crossed_dimensions_have_the_stated_covariances() -> None:
    drawn = prior_of({"device": DEVICE, "plan": PLAN}, by=["*"], by_between=WIDE)
    away = (drawn["effect"] - 0.2).values
    common, level, own = 1.1**2, 0.9**2, 0.6**2  # E[SD²] of a half-normal is its scale squared
    near(away[:, 0], 0.0)
    near(away[:, 0] ** 2, common + 2 * level + own)
    near(away[:, 0] * away[:, 3], common + level)  # the same device
    near(away[:, 0] * away[:, 1], common + level)  # the same plan
    near(away[:, 0] * away[:, 4], common)
    near((drawn["effect_device"][:, 0] / drawn["effect_device_between"]).values ** 2, 1.0)


def test_prior_draws_of_a_dimension_with_a_prior_of_its_own_have_that_sd() -> None:
    narrow = {"plan": {"dist": "HalfNormal", "sigma": 0.3}}
    drawn = prior_of({"device": DEVICE, "plan": PLAN}, by=["*"], by_between=WIDE, level_between=narrow)
    near(drawn["effect_device"].values[:, 0] ** 2, 0.9**2)
    near(drawn["effect_plan"].values[:, 0] ** 2, 0.3**2)


def test_prior_draws_with_a_covariate_move_with_it() -> None:
    drawn = prior_of({"device": DEVICE}, covariates=["age"], slope={"dist": "Normal", "sigma": 0.7})
    z = (AGE - AGE.mean()) / AGE.std(ddof=1)
    away = (drawn["effect"] - 0.2).values
    near(away[:, 4] ** 2, 1.1**2 + (0.7 * z[4]) ** 2 + 0.6**2)
    near(away[:, 4] * away[:, 6], 1.1**2 + 0.7**2 * z[4] * z[6])
    assert z[4] * z[6] < 0


def test_prior_draws_of_strata_have_sds_of_their_own() -> None:
    drawn = prior_of({"stratum": STRATUM}, strata="stratum")
    own = ((drawn["effect"] - drawn["effect_mean"]) ** 2).values
    scale = (drawn["effect_between"] ** 2).transpose("draw", "stratum").values
    for segment, stratum in ((0, 0), (3, 1)):
        near(own[:, segment] / scale[:, stratum], 1.0)
        # Squares of the other stratum's SD say nothing of these.
        near((own[:, segment] - 0.36) * (scale[:, 1 - stratum] - 0.36), 0.0)


def test_prior_draws_of_heavy_tails_follow_students_t() -> None:
    drawn = prior_of({"device": DEVICE}, shape="student_t", nu=5.0)
    offset = ((drawn["effect"] - drawn["effect_mean"]) / drawn["effect_between"]).values[:, 2]
    # A fixed seed; a right sampler fails this with probability 1e-4.
    assert stats.kstest(offset, stats.t(5.0).cdf).pvalue > 1e-4
    assert stats.kstest(offset, stats.norm.cdf).pvalue < 1e-4


def test_prior_draws_of_the_horseshoe_are_bounded_by_the_slab() -> None:
    drawn = prior_of({"device": DEVICE}, shape="horseshoe", slab=2.0)
    own = (drawn["effect"] - drawn["effect_mean"]).values[:, 5]
    nodes, weights = np.polynomial.legendre.leggauss(400)
    wide = stats.halfnorm(scale=0.6).ppf((nodes + 1) / 2)[:, None] * stats.halfcauchy.ppf((nodes + 1) / 2)
    scale = 2.0 * wide / np.hypot(2.0, wide)
    weight = np.outer(weights, weights) / 4
    near(own**2, float((weight * scale**2).sum()))
    for edge in (0.1, 1.0, 3.0):
        near(np.abs(own) < edge, float((weight * (2 * stats.norm.cdf(edge / scale) - 1)).sum()))


def test_prior_draws_of_a_correlation_tie_effects_to_baselines() -> None:
    drawn = prior_of({"device": DEVICE}, correlation={"dist": "LKJ", "eta": 2.0})
    base = ((drawn["baseline"] - drawn["baseline_mean"]) / drawn["baseline_between"]).values[:, 1]
    effect = ((drawn["effect"] - drawn["effect_mean"]) / drawn["effect_between"]).values[:, 1]
    rho = drawn["effect_correlation"].values
    near(rho, 0.0)
    near(rho**2, 1 / 5)  # Beta(2, 2) from −1 to 1
    near(effect**2, 1.0)
    near(base * effect * rho, 1 / 5)
