"""Published estimates against nested adaptive integrals, for every prior, far from it, far within it.

The oracle is `scipy.integrate` over the common effect and the logarithm of the between-segment SD: other nodes, other
coordinates, no range that the package chooses. Relative tolerance 1e-6: the engine claims 1e-9, the oracle 1e-8.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from example_cells import table
from numpy.typing import NDArray
from scipy import integrate, special, stats

import bayes_hte as hte
from bayes_hte.inference.exact import closed, direct
from bayes_hte.inference.exact.estimates import Arm, rotated, sign
from bayes_hte.inference.exact.panels import integrate as integrate_panels
from bayes_hte.model.priors import freeze_distribution
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import distributions as d
from bayes_hte.spec.distributions import Distribution

Array = NDArray[np.float64]
SEED = 3

BETWEENS = [
    d.HalfNormal(sigma=0.5),
    d.HalfCauchy(beta=0.5),
    d.HalfStudentT(nu=3.0, sigma=0.4),
    d.Exponential(scale=0.5),
    d.Gamma(alpha=2.0, beta=4.0),
    d.Gamma(alpha=0.4, beta=1.0),
    d.InverseGamma(alpha=2.0, beta=0.5),
    d.LogNormal(mu=-1.0, sigma=0.7),
    d.Uniform(lower=0.0, upper=2.0),
    d.Uniform(lower=0.1, upper=0.3),
]
MEANS = [
    d.StudentT(nu=4.0, mu=0.0, sigma=0.1),
    d.StudentT(nu=1.0, mu=0.5, sigma=1.0),
    d.Uniform(lower=-1.0, upper=1.0),
    d.HalfNormal(sigma=1.0),
    d.LogNormal(mu=0.0, sigma=1.0),
    d.Exponential(scale=0.2),
    d.Gamma(alpha=0.5, beta=1.0),
    d.HalfCauchy(beta=1.0),
    d.InverseGamma(alpha=2.0, beta=1.0),
]
RNG = np.random.default_rng(5)
DATA: dict[str, tuple[Array, Array]] = {
    "usual": (RNG.normal(0.2, 0.5, 8), np.exp(RNG.normal(-1, 0.5, 8))),
    "far from the prior": (RNG.normal(0, 20, 6), np.ones(6)),
    "vague": (RNG.normal(0, 30, 5), np.full(5, 20.0)),
    "precise": (RNG.normal(0.3, 0.2, 6), np.full(6, 0.002)),
    "one": (np.array([1.2]), np.array([0.4])),
    "equal": (np.full(5, 0.7), np.full(5, 0.3)),
    "precise and vague": (
        np.concatenate([0.1 + 0.001 * RNG.normal(size=5), RNG.normal(0.1, 0.9, 6)]),
        np.repeat([0.001, 0.2], [5, 6]),
    ),
}


def name_of(value: Any) -> str:
    return value.dist if hasattr(value, "dist") else str(value)


def integrate_tau(y: Array, se: Array, between: Distribution) -> tuple[float, float, Array]:
    """Integrate tau by SciPy, m ~ Normal(0, 1) in closed form: log evidence, E log tau, P(effect > 0)."""
    law = freeze_distribution(between)
    if isinstance(between, d.Uniform):
        low, high = np.log(max(between.lower, 1e-40 * se.min())), np.log(between.upper)
    else:
        low, high = np.log(1e-40 * se.min()), np.log(1e7 * (1 + np.ptp(y) + se.max()))

    def log_height(place: float) -> float:
        variance = se**2 + np.exp(2 * place)
        weight = 1 + (1 / variance).sum()
        pull = (y / variance).sum()
        rest = stats.norm.logpdf(y, 0, np.sqrt(variance)).sum() - 0.5 * np.log(weight) + 0.5 * pull**2 / weight
        return float(rest + law.logpdf(np.exp(place)) + place)

    def shares(place: float) -> Array:
        variance = se**2 + np.exp(2 * place)
        weight = 1 + (1 / variance).sum()
        kept = np.exp(2 * place) / variance
        centre = kept * y + (1 - kept) * (y / variance).sum() / weight
        spread = np.sqrt(kept * se**2 + (1 - kept) ** 2 / weight)
        return np.asarray(special.ndtr(centre / spread))

    grid = np.linspace(low, high, 4001)
    heights = np.array([log_height(place) for place in grid])
    top, peak = np.nanmax(heights), grid[np.nanargmax(heights)]
    kept = grid[heights > top - 40]
    edges = [kept[0] - 0.05, *np.linspace(kept[0], kept[-1], 12), peak, kept[-1] + 0.05]
    edges = np.unique(np.clip(edges, low, high))

    def total(weight: Any) -> float:
        parts = [
            integrate.quad(lambda t: weight(t) * np.exp(log_height(t) - top), a, b, epsabs=1e-13, epsrel=1e-10)[0]
            for a, b in pairwise(edges)
        ]
        return float(sum(parts))

    mass = total(lambda _: 1.0)
    signs = np.array([total(lambda t, s=s: shares(t)[s]) / mass for s in range(min(len(y), 2))])
    return float(np.log(mass) + top), total(lambda t: t) / mass, signs


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
@pytest.mark.parametrize("between", BETWEENS, ids=name_of)
@pytest.mark.parametrize("data", ["usual", "far from the prior", "precise and vague"])
def test_every_prior_of_tau_is_integrated_wherever_the_data_put_tau(data: str, between: Distribution) -> None:
    y, se = DATA[data]
    arm = Arm(rotated(y, se, None), d.Normal(mu=0.0, sigma=1.0), between)
    nodes = arm.nodes()
    log_evidence, log_tau, signs = integrate_tau(y, se, between)
    assert nodes.log_evidence == pytest.approx(log_evidence, abs=1e-6)
    assert nodes.weights @ np.log(nodes.tau) == pytest.approx(log_tau, abs=1e-5)
    assert sign(arm.data, nodes)[: len(signs)] == pytest.approx(signs, abs=1e-6)
    assert nodes.error < 1e-6


GAUSS_NODES, GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(32)
TAILS = 10.0 ** -np.arange(1.0, 13.0)
"""Quantiles that part a prior: a factor of ten of a Cauchy's tail at a time is smooth enough for 32 nodes."""


def integrate_mean(common: tuple[float, float], mean: Distribution) -> tuple[float, float]:
    """Integrate m under a normal likelihood (centre, SD) and SciPy's prior: log evidence, and P(m > 0)."""
    centre, sd = common
    law = freeze_distribution(mean)
    lower, upper = law.ppf(0.0), law.ppf(1.0)
    bends = np.concatenate(
        [centre + sd * np.arange(-9.0, 10.0), law.ppf(TAILS), law.ppf(1 - TAILS), law.ppf([0.3, 0.7])]
    )
    bends = np.append(bends, [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
    reach = np.abs(bends).max() * 10
    edges = np.unique(np.clip([*bends, -reach, reach], max(lower, -reach), min(upper, reach)))
    half = np.diff(edges)[:, None] / 2
    m = edges[:-1, None] + half * (1 + GAUSS_NODES)
    heights = law.logpdf(m) + stats.norm.logpdf(centre, m, sd)
    top = float(heights.max())
    # ∫ f over a panel = half its width · Σ w f(node); 0 is an edge, so no panel has both signs.
    parts = (half * GAUSS_WEIGHTS * np.exp(heights - top)).sum(1)
    mass = float(parts.sum())
    return float(np.log(mass) + top), float(parts[edges[:-1] >= 0].sum() / mass)


@pytest.mark.parametrize("mean", MEANS, ids=name_of)
@pytest.mark.parametrize("estimate", [(0.6, 0.5), (9.0, 2.0), (-4.0, 0.3), (2.0, 50.0), (0.3, 1e-3)])
def test_every_prior_of_one_effect_is_integrated(estimate: tuple[float, float], mean: Distribution) -> None:
    cells = table({"estimate": np.array([[estimate[0]]]), "se": np.array([[estimate[1]]])}, arms=("t",), control="")
    model = hte.Model(family="estimate", effect={"mean": mean}, pooling="none")
    problem = build_problem(cells, model)
    assert closed(problem)
    found = direct.posterior(problem, draws=4000, seed=SEED)
    log_evidence, above = integrate_mean(estimate, mean)
    # At e^-92 of the likelihood's height, 13 SEs outside of the prior's support, the edge is followed to 3e-4.
    tolerance = 1e-5 if log_evidence > -50 else 5e-4
    assert found.sample_stats["log_evidence"].item() == pytest.approx(log_evidence, abs=tolerance)
    assert found.sign_probabilities is not None
    assert found.sign_probabilities["p_positive"].item() == pytest.approx(above, abs=1e-6)
    # One draw in each of 4,000 strata: counting is exact to a stratum and the interpolation inside a panel.
    assert float((found.posterior["effect"] > 0).mean()) == pytest.approx(above, abs=1e-3)


@pytest.mark.parametrize("mean", [MEANS[0], MEANS[1], MEANS[2], MEANS[5]], ids=name_of)
@pytest.mark.parametrize("data", ["vague", "far from the prior", "one", "equal"])
def test_a_prior_of_the_common_effect_need_not_be_normal(data: str, mean: Distribution) -> None:
    y, se = DATA[data]
    between = d.HalfNormal(sigma=0.5)
    arm = Arm(rotated(y, se, None), mean, between)
    nodes = arm.nodes()

    def evaluate(tau: float) -> tuple[float, float]:
        """Log density of log tau, and P(m > 0 | tau) by SciPy."""
        weight = 1 / (se**2 + tau**2)
        centre, sd = float((weight * y).sum() / weight.sum()), float(weight.sum() ** -0.5)
        at_centre = stats.norm.logpdf(y, centre, weight**-0.5).sum() - stats.norm.logpdf(0.0, 0.0, sd)
        log_mass, share = integrate_mean((centre, sd), mean)
        return at_centre + log_mass + stats.halfnorm.logpdf(tau, scale=0.5) + np.log(tau), share

    # A coarse grid finds where log tau has its mass, a fine one takes it by the trapezoid rule.
    coarse = np.linspace(np.log(1e-5), np.log(60.0), 40)
    rough = np.array([evaluate(tau)[0] for tau in np.exp(coarse)])
    (inside,) = np.nonzero(rough > rough.max() - 30)
    log_tau = np.linspace(coarse[max(inside[0] - 1, 0)], coarse[min(inside[-1] + 1, 39)], 61)
    heights, above = (np.array(each) for each in zip(*map(evaluate, np.exp(log_tau)), strict=True))
    step, weights = log_tau[1] - log_tau[0], np.exp(heights - heights.max())
    weights[[0, -1]] /= 2
    # Below the grid the density of log tau falls as tau: ∫ e^x dx up to the lowest point is its height there.
    weights[0] += 2 * weights[0] / step
    expected = float(weights @ above / weights.sum())
    log_evidence = float(np.log(weights.sum() * step) + heights.max())
    assert nodes.log_evidence == pytest.approx(log_evidence, abs=2e-4)
    assert float(nodes.weights @ (nodes.mean > 0)) == pytest.approx(expected, abs=2e-4)
    _, mean_draws = arm.draw(4000, np.random.default_rng(SEED))
    # Given tau the draws of m are stratified: counting is at least as exact as 4,000 independent draws.
    assert float((mean_draws > 0).mean()) == pytest.approx(expected, abs=4.5 * 0.5 / np.sqrt(4000))


def test_tau_far_outside_of_its_prior_is_followed() -> None:
    y = np.random.default_rng(7).normal(0, 60.0, 30)
    arm = Arm(rotated(y, np.ones(30), None), d.Normal(mu=0.0, sigma=1.0), d.HalfNormal(sigma=0.5))
    log_evidence, log_tau, _ = integrate_tau(y, np.ones(30), d.HalfNormal(sigma=0.5))
    nodes = arm.nodes()
    assert nodes.log_evidence == pytest.approx(log_evidence, abs=1e-6)
    tau, _ = arm.draw(4000, np.random.default_rng(SEED))
    assert np.log(tau).mean() == pytest.approx(log_tau, abs=1e-3)
    assert np.exp(log_tau) > 16 * 0.5


def test_a_tau_that_may_be_zero_has_the_mass_below_every_node() -> None:
    # Gamma(0.05) has 6 % of its mass below 1e-24: no grid of log tau reaches it, an exponential tail does.
    between = d.Gamma(alpha=0.05, beta=1.0)
    arm = Arm(rotated(np.array([0.0]), np.array([1e3]), None), d.Normal(mu=0.0, sigma=1.0), between)
    nodes = arm.nodes()
    tau, _ = arm.draw(20_000, np.random.default_rng(SEED))
    law = freeze_distribution(between)
    for bound in (1e-24, 1e-6, 0.1):
        share = float(law.cdf(bound))
        assert float((tau < bound).mean()) == pytest.approx(share, abs=2e-3)
    assert nodes.error < 1e-6


def test_panels_find_a_narrow_peak_inside_a_wide_panel() -> None:
    place, width = 123.4, 1e-4

    def log_density(row: NDArray[np.intp], x: Array) -> Array:
        return np.asarray(-0.5 * ((x - place * (row[:, None] + 1)) / width) ** 2)

    panels = integrate_panels(log_density, np.array([0, 1]), np.zeros(2), np.full(2, 1000.0))
    assert panels.log_total == pytest.approx(np.full(2, np.log(width) + 0.5 * np.log(2 * np.pi)), abs=1e-9)
    draws = panels.draw(np.repeat([0, 1], 2000), np.tile((np.arange(2000) + 0.5) / 2000, 2)).reshape(2, -1)
    assert draws.mean(1) == pytest.approx([place, 2 * place], abs=1e-6)
    assert draws.std(1) == pytest.approx([width, width], rel=1e-2)


def test_the_scale_of_the_data_changes_nothing_but_the_scale() -> None:
    y, se = DATA["usual"]
    one = Arm(rotated(y, se, None), d.StudentT(nu=4.0, mu=0.0, sigma=0.1), d.HalfCauchy(beta=0.5)).nodes()
    for scale in (2.0**-40, 2.0**40):
        other = Arm(
            rotated(scale * y, scale * se, None),
            d.StudentT(nu=4.0, mu=0.0, sigma=0.1 * scale),
            d.HalfCauchy(beta=0.5 * scale),
        ).nodes()
        assert other.weights @ other.mean == pytest.approx(scale * (one.weights @ one.mean), rel=1e-7)
        assert other.weights @ other.tau == pytest.approx(scale * (one.weights @ one.tau), rel=1e-7)
        assert other.log_evidence + len(y) * np.log(scale) == pytest.approx(one.log_evidence, abs=1e-7)
