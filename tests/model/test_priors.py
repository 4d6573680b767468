"""Priors: one definition, and the same law as density, draws, quantiles and text."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import integrate, stats

from bayes_hte import Model, ModelError, read_model
from bayes_hte.model.priors import (
    compute_central_interval,
    compute_log_prior,
    compute_upper_bound,
    draw_prior,
    format_prior,
    freeze_distribution,
    resolve_units,
)
from bayes_hte.spec import Distribution
from bayes_hte.spec.distributions import rescale_distribution

LAWS: TypeAdapter[Any] = TypeAdapter(Distribution)


def law(dist: str, **parameters: float) -> Any:
    return LAWS.validate_python({"dist": dist, **parameters})


PRIORS = [
    law("Normal", mu=-0.7, sigma=1.3),
    law("StudentT", nu=3.5, mu=0.4, sigma=0.8),
    law("Cauchy", alpha=0.3, beta=0.707),
    law("HalfNormal", sigma=0.5),
    law("HalfStudentT", nu=3.0, sigma=0.7),
    law("HalfCauchy", beta=0.6),
    law("Exponential", lam=2.5),
    law("Exponential", scale=0.3),
    law("Gamma", alpha=2.5, beta=3.0),
    law("Gamma", mu=1.2, sigma=0.6),
    law("InverseGamma", alpha=3.0, beta=2.0),
    law("LogNormal", mu=-0.5, sigma=0.6),
    law("Uniform", lower=-1.0, upper=2.5),
]
IDS = [format_prior(prior) for prior in PRIORS]
LOCATED = [prior for prior in PRIORS if prior.dist in ("Normal", "StudentT", "Cauchy", "Uniform")]
QUANTILES = np.array([0.001, 0.05, 0.3, 0.5, 0.8, 0.99])

each_prior = pytest.mark.parametrize("prior", PRIORS, ids=IDS)


def quantiles(prior: Any) -> np.ndarray:
    return np.array([freeze_distribution(prior).ppf(q) for q in QUANTILES])


@each_prior
@settings(max_examples=20)
@given(factor=st.floats(1e-6, 1e6))
def test_a_rescaled_prior_is_the_law_of_the_scaled_draws(prior: Any, factor: float) -> None:
    scaled = rescale_distribution(prior, factor)
    x = quantiles(prior)
    assert quantiles(scaled) == pytest.approx(factor * x, rel=1e-9, abs=1e-12 * factor)
    # p(factor x) factor = p(x): the change of variables
    there, here = freeze_distribution(scaled).logpdf(factor * x[1:-1]), freeze_distribution(prior).logpdf(x[1:-1])
    assert there + np.log(factor) == pytest.approx(here, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("prior", LOCATED, ids=format_prior)
@settings(max_examples=20)
@given(factor=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_a_shifted_prior_is_the_law_of_the_shifted_draws(prior: Any, factor: float, shift: float) -> None:
    moved = quantiles(rescale_distribution(prior, factor, shift))
    assert moved == pytest.approx(shift + factor * quantiles(prior), rel=1e-9, abs=1e-9 * (1 + abs(shift)))


@pytest.mark.parametrize("prior", [prior for prior in PRIORS if prior not in LOCATED], ids=format_prior)
def test_a_prior_without_location_cannot_be_shifted(prior: Any) -> None:
    with pytest.raises(ModelError, match=f"{prior.dist} cannot be centred on the data; use Normal"):
        rescale_distribution(prior, 2.0, 1.0)


@each_prior
def test_every_density_integrates_to_one(prior: Any) -> None:
    low, high = {"Uniform": (-1.0, 2.5), "Normal": (-np.inf, np.inf), "StudentT": (-np.inf, np.inf)}.get(
        prior.dist.replace("Cauchy", "Normal") if prior.dist == "Cauchy" else prior.dist, (0.0, np.inf)
    )
    total, error = integrate.quad(lambda x: float(np.exp(freeze_distribution(prior).logpdf(x))), low, high)
    assert total == pytest.approx(1.0, abs=10 * error + 1e-9)


@each_prior
def test_quantiles_invert_the_density(prior: Any) -> None:
    low, high = compute_central_interval(prior, 0.8)
    total, error = integrate.quad(lambda x: float(np.exp(freeze_distribution(prior).logpdf(x))), low, high)
    assert total == pytest.approx(0.8, abs=10 * error + 1e-9)
    assert compute_upper_bound(prior, 0.9) == pytest.approx(high, rel=1e-12)


@each_prior
def test_draws_follow_the_density(prior: Any) -> None:
    draws = draw_prior(prior, (2000,), np.random.default_rng(5))
    at = quantiles(prior)[1:-1]
    below = (np.asarray(draws)[:, None] <= at).mean(axis=0)
    q = QUANTILES[1:-1]
    # Binomial standard error; 4 of them on 48 comparisons: a false alarm for 1 seed in 300, and the seed is fixed.
    assert (np.abs(below - q) < 4 * np.sqrt(q * (1 - q) / 2000)).all()


def test_the_folded_t_is_the_absolute_value_of_a_t() -> None:
    found, x = freeze_distribution(law("HalfStudentT", nu=3.0, sigma=0.7)), np.array([0.0, 0.1, 1.0, 8.0])
    t = stats.t(3.0, scale=0.7)
    assert np.exp(found.logpdf(x)) == pytest.approx(t.pdf(x) + t.pdf(-x), rel=1e-12)
    assert found.logpdf(np.array([-0.1])) == -np.inf
    for q in QUANTILES:
        assert t.cdf(found.ppf(q)) - t.cdf(-found.ppf(q)) == pytest.approx(q, rel=1e-9)
    # With one degree of freedom it is the half Cauchy, which scipy has.
    assert freeze_distribution(law("HalfStudentT", nu=1.0, sigma=2.0)).logpdf(x) == pytest.approx(
        stats.halfcauchy(scale=2.0).logpdf(x), rel=1e-12
    )


@each_prior
def test_the_fast_density_is_scipys_inside_the_support(prior: Any) -> None:
    x = np.concatenate(
        [quantiles(prior), [freeze_distribution(prior).ppf(1e-9), freeze_distribution(prior).ppf(1 - 1e-9)]]
    )
    assert compute_log_prior(prior, x) == pytest.approx(freeze_distribution(prior).logpdf(x), rel=1e-12, abs=1e-12)
    grid = x.reshape(2, 4)
    assert np.array_equal(compute_log_prior(prior, grid), compute_log_prior(prior, x).reshape(2, 4))


@each_prior
def test_the_fast_density_is_minus_infinity_outside_the_support(prior: Any) -> None:
    low, high = float(freeze_distribution(prior).ppf(0.0)), float(freeze_distribution(prior).ppf(1.0))
    x = np.array([low - 1e-3, low - 10.0, high + 1e-3, high + 10.0])
    x = x[np.isfinite(x)]
    assert (compute_log_prior(prior, x) == -np.inf).all()
    assert (np.asarray(freeze_distribution(prior).logpdf(x)) == -np.inf).all()


@pytest.mark.parametrize(
    "prior", [prior for prior in PRIORS if prior.dist not in ("Normal", "StudentT", "Cauchy")], ids=format_prior
)
def test_the_fast_density_is_scipys_at_the_bounds_of_the_support(prior: Any) -> None:
    bounds = np.array([float(freeze_distribution(prior).ppf(0.0)), float(freeze_distribution(prior).ppf(1.0))])
    bounds = bounds[np.isfinite(bounds)]
    with np.errstate(divide="ignore"):
        expected = np.asarray(freeze_distribution(prior).logpdf(bounds))
    assert compute_log_prior(prior, bounds) == pytest.approx(expected, rel=1e-12)


def test_fast_densities_take_the_largest_and_smallest_numbers() -> None:
    for prior in PRIORS:
        found = compute_log_prior(prior, np.array([1e-300, 1e300, -1e300]))
        assert not np.isnan(found).any(), prior
        assert (found < np.inf).all(), prior


@pytest.mark.parametrize("nu", [1.0, 3.0, 30.0])
def test_the_folded_ts_functions_are_one_law(nu: float) -> None:
    found, t = freeze_distribution(law("HalfStudentT", nu=nu, sigma=0.7)), stats.t(nu, scale=0.7)
    x = np.array([1e-6, 0.01, 0.3, 1.0, 4.0, 50.0])
    assert found.cdf(x) == pytest.approx(t.cdf(x) - t.cdf(-x), rel=1e-9)
    assert found.cdf(x) + found.sf(x) == pytest.approx(np.ones(6), rel=1e-12)
    assert found.ppf(found.cdf(x[:5])) == pytest.approx(x[:5], rel=1e-5)  # 1 - q loses digits where q is tiny
    assert found.isf(found.sf(x)) == pytest.approx(x, rel=1e-5)  # and a tail of all but 1e-6 of the mass loses as many
    # Far in the tail only the survival function keeps its digits.
    assert found.isf(1e-200 * np.ones(1)) == pytest.approx(t.isf(0.5e-200 * np.ones(1)), rel=1e-12)
    for low, high in ((0.1, 0.5), (0.5, 3.0)):
        total, _ = integrate.quad(lambda value: float(np.exp(found.logpdf(np.array([value]))[0])), low, high)
        assert total == pytest.approx(float(found.cdf(np.array([high]))[0] - found.cdf(np.array([low]))[0]), abs=1e-9)


def test_the_folded_t_has_no_mass_below_zero() -> None:
    found = freeze_distribution(law("HalfStudentT", nu=3.0, sigma=0.7))
    below = np.array([-5.0, -1e-9])
    assert (found.cdf(below) == 0).all()
    assert (found.sf(below) == 1).all()
    assert (found.logpdf(below) == -np.inf).all()
    assert (float(found.ppf(0.0)), float(found.ppf(1.0))) == (0.0, np.inf)
    assert (float(found.isf(1.0)), float(found.isf(0.0))) == (0.0, np.inf)


@each_prior
def test_parameters_mean_what_they_mean_in_pymc(prior: Any) -> None:
    pm = pytest.importorskip("pymc")
    parameters = prior.model_dump(exclude={"dist"}, exclude_none=True)
    x = quantiles(prior)[1:-1]
    theirs = pm.logp(getattr(pm, prior.dist).dist(**parameters), x).eval(mode="FAST_COMPILE")
    # PyTensor keeps constants in single precision, whose relative spacing is 1.2e-7; a density takes a few of them.
    assert freeze_distribution(prior).logpdf(x) == pytest.approx(theirs, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (law("Normal", mu=0.0, sigma=1.0), "Normal(mu=0, sigma=1)"),
        (law("Normal", mu=123456.0, sigma=0.00012345), "Normal(mu=1.235e+05, sigma=0.0001234)"),
        (law("Exponential", scale=0.5), "Exponential(scale=0.5)"),
        (law("Gamma", mu=2.0, sigma=1.0), "Gamma(mu=2, sigma=1)"),
        (law("HalfStudentT", nu=3.0, sigma=0.5), "HalfStudentT(nu=3, sigma=0.5)"),
    ],
)
def test_text_names_the_parameters_that_were_given(prior: Any, text: str) -> None:
    assert format_prior(prior) == text


def test_priors_in_control_sds_become_priors_in_the_outcomes_own_units() -> None:
    model = resolve_units(read_model("continuous"), control_mean=100.0, control_sd=20.0)
    assert model.units == "link"
    assert format_prior(model.effect.mean) == "Normal(mu=0, sigma=20)"
    assert model.effect.between is not None
    assert format_prior(model.effect.between) == "HalfNormal(sigma=10)"
    assert model.baseline is not None
    assert format_prior(model.baseline.mean) == "Normal(mu=100, sigma=50)"
    assert model.baseline.between is not None
    assert format_prior(model.baseline.between) == "HalfNormal(sigma=20)"
    assert model.nuisance is not None
    assert format_prior(model.nuisance.sigma) == "HalfNormal(sigma=40)"


def test_priors_in_link_units_are_left_alone() -> None:
    model = read_model("conversion")
    assert resolve_units(model, control_mean=5.0, control_sd=2.0) is model


def test_pools_without_a_between_sd_are_resolved_too() -> None:
    effect = {"mean": {"dist": "Normal"}}
    baseline = {"pooling": "none", "mean": {"dist": "Uniform", "lower": -1.0, "upper": 1.0}}
    model = Model.model_validate(
        {"family": "mean", "pooling": "none", "units": "control_sd", "effect": effect, "baseline": baseline}
    )
    found = resolve_units(model, control_mean=10.0, control_sd=3.0)
    assert found.effect.between is None
    assert found.baseline is not None
    assert format_prior(found.baseline.mean) == "Uniform(lower=7, upper=13)"
