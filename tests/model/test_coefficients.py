"""The structure in NumPy: equal to the PyMC model's for every structure, and to its limits and moments."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from example_cells import example
from example_structures import HALF, STRUCTURES, stated
from pytensor import config
from scipy import stats

from bayes_hte.model.coefficients import (
    SegmentOffsets,
    compute_coefficients,
    compute_offset_variance,
    draw_offsets,
    limit_offset_variance,
    place_segments,
    regularise_scale,
)
from bayes_hte.model.parameters import list_coefficients, name_term_variable
from bayes_hte.model.problem import build_problem
from bayes_hte.model.pymc.build import build_pymc_model
from bayes_hte.spec.model import Effect

SLOPE: dict[str, Any] = {"covariates": ["age"], "slope": {"dist": "Normal", "sigma": 0.7}}
ALL_STRUCTURES: dict[str, dict[str, Any]] = STRUCTURES | {
    "crossed": {"by": ["*"], "by_between": HALF},
    "nested": {"by": ["device", "device:plan"]} | SLOPE | {"shape": "student_t"},
    "horseshoe": {"shape": "horseshoe", "slab": 2.0},
    "horseshoe in strata": {"shape": "horseshoe", "slab": 0.3, "strata": "plan", "shared_between": True} | SLOPE,
}


@pytest.fixture(autouse=True)
def _interpreted() -> Iterator[None]:
    """A few draws of each model: interpreting it is faster than compiling."""
    with config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.mark.parametrize("structure", ALL_STRUCTURES)
def test_coefficients_equal_those_of_the_pymc_model_at_random_points(structure: str) -> None:
    cells = example("binomial", segments=6, arms=("control", "email", "sms"), seed=2)
    problem = build_problem(cells, stated("binomial", ALL_STRUCTURES[structure]))
    with build_pymc_model(problem):
        points = pm.sample_prior_predictive(draws=5, random_seed=1)["prior"].to_dataset()
    shared_values = {str(name): values for name, values in points.data_vars.items()}
    placement = place_segments(problem.segment_design)
    for coefficient in list_coefficients(problem.model):
        name = coefficient.name
        offsets = SegmentOffsets(
            points[f"{name}_offset"], shared_values.get(f"{name}_local_offset"), shared_values["baseline_offset"]
        )
        computed = compute_coefficients(coefficient, shared_values, offsets, placement)
        assert computed.dims == ("chain", "draw", *coefficient.dims)
        # Both are a dozen operations on numbers of the same size.
        np.testing.assert_allclose(computed.values, points[name].values, rtol=1e-12, atol=1e-13)
        assert all(name_term_variable(name, term) in points for term in coefficient.pool_priors.by)


def test_a_regularised_scale_is_the_smaller_of_scale_and_slab_at_its_ends() -> None:
    scales = np.array([1e-9, 1e9])
    # slab w / √(slab² + w²) = min(slab, w) (1 − O(ratio²)), and the ratio is below 1e-8 here
    np.testing.assert_allclose(regularise_scale(scales, 2.0), np.minimum(scales, 2.0), rtol=1e-15)


def test_the_variance_of_offsets_is_that_of_their_distribution() -> None:
    assert compute_offset_variance(_effect()) == 1.0
    for nu in (2.5, 4.0, 30.0):
        assert compute_offset_variance(_effect(shape="student_t", nu=nu)) == pytest.approx(float(stats.t(nu).var()))
    assert compute_offset_variance(_effect(shape="student_t", nu=2.0)) == np.inf
    assert np.isfinite(limit_offset_variance(_effect(shape="student_t", nu=2.0)))
    assert limit_offset_variance(_effect(shape="student_t")) == 2.0  # four degrees of freedom unless stated


@pytest.mark.parametrize(
    ("priors", "law"),
    [(None, stats.norm()), ({}, stats.norm()), ({"shape": "student_t", "nu": 3.0}, stats.t(3.0)),
     ({"shape": "horseshoe", "slab": 1.0}, stats.norm())],
)  # fmt: skip
def test_offsets_are_drawn_from_their_distributions(priors: dict[str, Any] | None, law: Any) -> None:
    effect = None if priors is None else _effect(**priors)
    offsets = draw_offsets(effect, {"draw": 4000, "segment": 5}, np.random.default_rng(1))
    assert offsets.own.sizes == {"draw": 4000, "segment": 5}
    # Fixed seed; right draws fail this with probability 1e-4.
    assert stats.kstest(offsets.own.values.ravel(), law.cdf).pvalue > 1e-4
    assert (offsets.local is not None) == (effect is not None and effect.shape == "horseshoe")
    if offsets.local is not None:
        assert stats.kstest(offsets.local.values.ravel(), stats.halfcauchy.cdf).pvalue > 1e-4


def test_a_single_segment_has_the_coefficient_that_it_has_among_all() -> None:
    cells = example("binomial", segments=6, seed=2)
    problem = build_problem(cells, stated("binomial", STRUCTURES["all"]))
    coefficient = list_coefficients(problem.model)[0]
    rng, arms, levels = np.random.default_rng(3), problem.coords["arm"], problem.coords["device"]
    shared_values = {
        "effect_mean": xr.DataArray(rng.normal(size=len(arms)), dims="arm"),
        "effect_slope": xr.DataArray(rng.normal(size=(1, len(arms))), dims=("covariate", "arm")),
        "effect_between": xr.DataArray(rng.exponential(size=len(levels)), dims="device"),
        "effect_correlation": xr.DataArray(rng.uniform(-1, 1, len(arms)), dims="arm"),
    }
    offsets = SegmentOffsets(
        xr.DataArray(rng.normal(size=(6, len(arms))), dims=("segment", "arm")),
        baseline=xr.DataArray(rng.normal(size=6), dims="segment"),
    )
    placement = place_segments(problem.segment_design)
    together = compute_coefficients(coefficient, shared_values, offsets, placement)
    for segment in range(6):
        assert offsets.baseline is not None
        alone = compute_coefficients(
            coefficient,
            shared_values,
            SegmentOffsets(offsets.own.isel(segment=segment), baseline=offsets.baseline.isel(segment=segment)),
            type(placement)(
                {dim: index.isel(segment=segment) for dim, index in placement.level_index.items()},
                placement.standardised_covariates.isel(segment=segment),
            ),
        )
        xr.testing.assert_identical(alone, together.isel(segment=segment))


def _effect(**structure: Any) -> Effect:
    """Effects with a shape."""
    return stated("binomial", structure).effect
