"""The whole way from cells to posterior against brute force: every parameter on a grid, two segments.

The oracle shares no code with the package. With two segments and one treated arm the model is

    p(b1, b2, e1, e2 | data) ∝ B(b1, b2) E(e1, e2) L1(b1, e1) L2(b2, e2)

where B and E are the priors of baselines and effects with their hyperparameters integrated out on a grid
of their own, and L1, L2 are the two segments' likelihoods. On a grid for b and one for e the marginal of
the effects is E * (L1' B L2): a matrix product. Grids are wide and fine enough that halving the step
changes no mean by more than a thousandth of its posterior SD.

Monte-Carlo tolerance: means within 4 MCSE, probabilities within 4 MCSE and a thousandth for the grid, eight
comparisons or fewer in each test; a right engine with another seed fails one of these files with probability
below 1 in 300, this seed always gives the same.
"""

from collections.abc import Callable
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
from example_cells import table
from oracle_grids import ARMS, Grid, deeper
from scipy import stats

import bayes_hte as hte


def pair_prior(grid: Grid, mean: Any, between: Any) -> Grid:
    """p(x1, x2) with the common mean and the between-segment SD integrated out."""
    quantiles = (np.arange(160) + 0.5) / 160
    total = np.zeros((len(grid), len(grid)))
    for m in mean.ppf(quantiles):
        # one (grid, tau) matrix per mean: p(x1, x2 | m) = mean over tau of N(x1 | m, tau) N(x2 | m, tau)
        tau = between.ppf(quantiles)
        density = stats.norm.pdf(grid[:, None], m, tau)
        total += density @ density.T
    return total / len(quantiles) ** 2


def effect_marginal(effect_prior: Grid, baseline_prior: Grid, first: Grid, second: Grid) -> Grid:
    """p(e1, e2 | data) on the grid; likelihoods are indexed (baseline, effect)."""
    joint = effect_prior * (first.T @ baseline_prior @ second)
    return np.asarray(joint / joint.sum())


def moments_of(grid: Grid, joint: Grid) -> dict[str, Grid]:
    """Posterior mean, SD and P(> 0) of both effects."""
    margins = np.stack([joint.sum(1), joint.sum(0)])
    mean = margins @ grid
    return {
        "mean": mean,
        "sd": np.sqrt(margins @ grid**2 - mean**2),
        "p_positive": margins @ np.where(np.isclose(grid, 0.0), 0.5, grid > 0),
    }


def compare(fit: hte.Fit, expected: dict[str, Grid]) -> None:
    draws = fit.posterior["posterior"]["effect"].squeeze("arm")
    mcse = az.mcse(draws.to_dataset(name="e"), method="mean")["e"].values
    assert fit.diagnosis.ok, fit.diagnosis
    assert (np.abs(draws.mean(("chain", "draw")).values - expected["mean"]) < 4 * mcse).all()
    shown = fit.table(scale="link", detail=True)
    assert (np.abs(shown["p_positive"] - expected["p_positive"]) < 4 * shown["p_mcse"] + 1e-3).all()
    # SD of an SD estimate is about sd / sqrt(2 ESS); 400 effective draws is what the diagnosis guarantees.
    assert shown["sd"].to_numpy() == pytest.approx(expected["sd"], rel=4 / np.sqrt(2 * 400))


@pytest.fixture(params=["exact", pytest.param("nuts", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Any:
    """Both engines answer to the same oracle."""
    return request.param


def likelihood(grid_b: Grid, grid_e: Grid, log_density: Callable[[Grid, Grid], Grid]) -> Grid:
    values = log_density(grid_b[:, None], grid_e[None, :])
    return np.asarray(np.exp(values - values.max()))


PRIORS: dict[str, Any] = {
    "effect": {"mean": {"dist": "Normal", "sigma": 1.0}, "between": {"dist": "Gamma", "alpha": 4.0, "beta": 8.0}},
    "baseline": {"mean": {"dist": "Normal", "sigma": 1.5}, "between": {"dist": "Gamma", "alpha": 4.0, "beta": 6.0}},
}
EFFECT_LAWS = (stats.norm(0, 1), stats.gamma(4, scale=1 / 8))
BASELINE_LAWS = (stats.norm(0, 1.5), stats.gamma(4, scale=1 / 6))


def test_binomial_equals_brute_force(engine: Any) -> None:
    n, events = np.array([[40, 35], [12, 15]]), np.array([[10, 15], [2, 7]])
    e, b = np.linspace(-3, 4, 281), np.linspace(-5, 3, 241)

    def log_density(s: int) -> Callable[[Grid, Grid], Grid]:
        return lambda base, effect: (
            stats.binom.logpmf(events[s, 0], n[s, 0], 1 / (1 + np.exp(-base)))
            + stats.binom.logpmf(events[s, 1], n[s, 1], 1 / (1 + np.exp(-base - effect)))
        )

    joint = effect_marginal(
        pair_prior(e, *EFFECT_LAWS), pair_prior(b, *BASELINE_LAWS),
        likelihood(b, e, log_density(0)), likelihood(b, e, log_density(1)),
    )  # fmt: skip
    cells = table({"n": n, "events": events}, arms=ARMS, control="control")
    compare(
        hte.fit(cells, hte.Model(family="binomial", **PRIORS), sampler=engine, draws=8000, seed=2), moments_of(e, joint)
    )


def test_mean_equals_brute_force(engine: Any) -> None:
    mean, se = np.array([[1.0, 1.9], [0.2, 0.1]]), np.array([[0.3, 0.4], [0.5, 0.6]])
    e, b = np.linspace(-4, 5, 361), np.linspace(-5, 5, 401)

    def log_density(s: int) -> Callable[[Grid, Grid], Grid]:
        return lambda base, effect: (
            stats.norm.logpdf(mean[s, 0], base, se[s, 0]) + stats.norm.logpdf(mean[s, 1], base + effect, se[s, 1])
        )

    joint = effect_marginal(
        pair_prior(e, *EFFECT_LAWS), pair_prior(b, *BASELINE_LAWS),
        likelihood(b, e, log_density(0)), likelihood(b, e, log_density(1)),
    )  # fmt: skip
    cells = table({"mean": mean, "se": se}, arms=ARMS, control="control")
    compare(
        hte.fit(cells, hte.Model(family="mean", **PRIORS), sampler=engine, draws=8000, seed=3), moments_of(e, joint)
    )


@pytest.mark.slow
def test_normal_equals_brute_force_on_the_units_themselves(engine: Any) -> None:
    rng = np.random.default_rng(8)
    units = [[rng.normal(1.0, 1.0, 14), rng.normal(1.8, 1.4, 11)], [rng.normal(0.0, 1.0, 6), rng.normal(0.5, 1.4, 8)]]
    e, b = np.linspace(-4, 5, 241), np.linspace(-4, 5, 241)
    sigmas = np.linspace(0.4, 3.2, 36)
    # log p(units | centre, sigma) on grids, one unit after the other: no sufficient statistics
    control = [stats.norm.logpdf(y[0][:, None, None], b[:, None], sigmas).sum(0) for y in units]
    centre = b[:, None] + e[None, :]
    effect_prior, baseline_prior = pair_prior(e, *EFFECT_LAWS), pair_prior(b, *BASELINE_LAWS)
    law = stats.halfnorm(scale=2.0)
    total = np.zeros_like(effect_prior)
    for treated_sigma in sigmas:
        treated = [sum(stats.norm.logpdf(value, centre, treated_sigma) for value in y[1]) for y in units]
        for i, control_sigma in enumerate(sigmas):
            logs = [control[s][:, i][:, None] + treated[s] for s in (0, 1)]
            first, second = (np.exp(log + 40.0) for log in logs)
            weight = law.pdf(control_sigma) * law.pdf(treated_sigma)
            total += weight * (first.T @ baseline_prior @ second)
    joint = effect_prior * total
    n = np.array([[len(a) for a in y] for y in units])
    mean = np.array([[a.mean() for a in y] for y in units])
    ss = np.array([[((a - a.mean()) ** 2).sum() for a in y] for y in units])
    cells = table({"n": n, "mean": mean, "ss": ss}, arms=ARMS, control="control")
    model = hte.Model(family="normal", nuisance={"sigma": {"dist": "HalfNormal", "sigma": 2.0}}, **PRIORS)
    compare(hte.fit(cells, model, sampler=engine, draws=8000, seed=4), moments_of(e, joint / joint.sum()))


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_estimate_equals_brute_force(correlation: float, engine: Any) -> None:
    y, se = np.array([1.2, -0.3]), np.array([0.5, 0.8])
    covariance = np.array([[se[0] ** 2, correlation * se.prod()], [correlation * se.prod(), se[1] ** 2]])
    e = np.linspace(-4, 5, 451)
    points = np.stack(np.meshgrid(e, e, indexing="ij"), axis=-1)
    joint = pair_prior(e, *EFFECT_LAWS) * stats.multivariate_normal(y, covariance).pdf(points)
    cells = table({"estimate": y[:, None], "se": se[:, None]}, arms=("coaching",), control="")
    if correlation:
        cells = cells.assign(covariance=xr.DataArray(covariance, dims=("segment", "other_segment")))
    model = hte.Model(family="estimate", effect=PRIORS["effect"])
    compare(hte.fit(cells, model, sampler=engine, draws=8000, seed=5), moments_of(e, joint / joint.sum()))


def centred_pair_prior(grid: Grid, between: Any) -> Grid:
    """p(x1, x2) around the known mean 0: baselines of ordinal outcomes."""
    density = stats.norm.pdf(grid[:, None], 0.0, between.ppf((np.arange(400) + 0.5) / 400))
    return np.asarray(density @ density.T / 400)


def test_poisson_equals_brute_force(engine: Any) -> None:
    exposure, events = np.array([[30.5, 42.0], [8.0, 11.25]]), np.array([[12, 31], [5, 4]])
    e, b = np.linspace(-3, 4, 281), np.linspace(-5, 3, 241)

    def log_density(s: int) -> Callable[[Grid, Grid], Grid]:
        return lambda base, effect: (
            stats.poisson.logpmf(events[s, 0], exposure[s, 0] * np.exp(base))
            + stats.poisson.logpmf(events[s, 1], exposure[s, 1] * np.exp(base + effect))
        )

    joint = effect_marginal(
        pair_prior(e, *EFFECT_LAWS), pair_prior(b, *BASELINE_LAWS),
        likelihood(b, e, log_density(0)), likelihood(b, e, log_density(1)),
    )  # fmt: skip
    cells = table({"events": events, "exposure": exposure}, arms=ARMS, control="control")
    compare(
        hte.fit(cells, hte.Model(family="poisson", **PRIORS), sampler=engine, draws=8000, seed=6), moments_of(e, joint)
    )


def test_negative_binomial_equals_brute_force_on_the_units_themselves(engine: Any) -> None:
    rng = np.random.default_rng(9)
    means, sizes = np.array([[1.2, 2.6], [0.7, 0.9]]), np.array([[16, 13], [7, 9]])
    units = [[rng.negative_binomial(1.3, 1.3 / (1.3 + means[s, a]), sizes[s, a]) for a in (0, 1)] for s in (0, 1)]
    e, b = np.linspace(-3.5, 4, 226), np.linspace(-4, 4, 241)
    alphas = np.exp(np.linspace(np.log(0.1), np.log(25.0), 40))
    law = stats.lognorm(0.7, scale=np.exp(0.2))
    weight = law.pdf(alphas) * alphas  # a grid in log alpha

    def log_density(y: Grid, eta: Grid, alpha: Any) -> Grid:
        # One unit after the other: no sufficient statistics.
        return np.asarray(sum(stats.nbinom.logpmf(value, alpha, alpha / (alpha + np.exp(eta))) for value in y))

    control = [np.exp(log_density(units[s][0], b[:, None], alphas) + 15.0) for s in (0, 1)]
    baseline_prior = pair_prior(b, *BASELINE_LAWS) * ((control[0] * weight) @ control[1].T)
    total, centre = np.zeros((len(e), len(e))), b[:, None] + e[None, :]
    for alpha, own in zip(alphas, weight, strict=True):
        first, second = (np.exp(log_density(units[s][1], centre, alpha) + 15.0) for s in (0, 1))
        total += own * (first.T @ baseline_prior @ second)
    joint = pair_prior(e, *EFFECT_LAWS) * total

    values = np.arange(1.0 + max(y.max() for pair in units for y in pair))
    counted = np.array([[np.bincount(y, minlength=len(values)) for y in pair] for pair in units])
    cells = deeper({"n": sizes}, {"histogram": counted}, value=values)
    model = hte.Model(
        family="negative_binomial", nuisance={"alpha": {"dist": "LogNormal", "mu": 0.2, "sigma": 0.7}}, **PRIORS
    )
    compare(hte.fit(cells, model, sampler=engine, draws=8000, seed=7), moments_of(e, joint / joint.sum()))


def on_sums(log: Grid, e: Grid, b: Grid) -> Grid:
    """A function of baseline + effect, known on the grid of their sums, as a matrix (baseline, effect)."""
    return np.asarray(log[np.arange(len(b))[:, None] + np.arange(len(e))[None, :]])


def test_ordinal_equals_brute_force(engine: Any) -> None:
    units = np.array([[[9, 8, 5], [5, 8, 12]], [[3, 2, 6], [1, 2, 4]]])
    step = 1 / 25
    e, b = np.arange(-3.0, 4.0 + step / 2, step), np.arange(-4.0, 4.0 + step / 2, step)
    sums = e[0] + b[0] + step * np.arange(len(e) + len(b) - 1)
    law, grid = stats.norm(0.1, 1.2), np.linspace(-3.6, 3.6, 37)
    baseline_prior = centred_pair_prior(b, BASELINE_LAWS[1])
    total = np.zeros((len(e), len(e)))
    for low, high in ((c, d) for c in grid for d in grid if d > c):
        # Differences of logistic functions as they are written in textbooks.
        cumulative = [1 / (1 + np.exp(x - np.array([low, high])[:, None])) for x in (b, sums)]
        shares = [np.vstack([c[0], c[1] - c[0], 1 - c[1]]) for c in cumulative]
        control = [np.exp(units[s, 0] @ np.log(shares[0]) + 15.0) for s in (0, 1)]
        treated = [on_sums(np.exp(units[s, 1] @ np.log(shares[1]) + 15.0), e, b) for s in (0, 1)]
        inner = baseline_prior * np.outer(control[0], control[1])
        total += law.pdf(low) * law.pdf(high) * (treated[0].T @ inner @ treated[1])
    joint = pair_prior(e, *EFFECT_LAWS) * total

    cells = deeper({"n": units.sum(-1)}, {"histogram": units}, value=np.array([1.0, 2.0, 3.0]))
    model = hte.Model.model_validate(
        {"family": "ordinal", "effect": PRIORS["effect"], "baseline": {"between": PRIORS["baseline"]["between"]},
         "nuisance": {"cutpoints": {"dist": "Normal", "mu": 0.1, "sigma": 1.2}}}
    )  # fmt: skip
    compare(hte.fit(cells, model, sampler=engine, draws=8000, seed=8), moments_of(e, joint / joint.sum()))


def test_piecewise_exponential_equals_brute_force_on_the_times_themselves(engine: Any) -> None:
    rng = np.random.default_rng(10)
    cut, end, rates = 2.0, 6.0, np.array([[0.25, 0.12], [0.4, 0.3]])
    times = [[rng.exponential(1 / rates[s, a], (14, 9)[s]) for a in (0, 1)] for s in (0, 1)]
    step = 1 / 30
    e, b = np.arange(-4.0, 3.0 + step / 2, step), np.arange(-5.0, 3.0 + step / 2, step)
    sums = e[0] + b[0] + step * np.arange(len(e) + len(b) - 1)
    law = stats.t(5, scale=0.9)

    def log_density(y: Grid, eta: Grid, hazard: float) -> Grid:
        # Unit by unit: the density of a time is hazard × survival, that of a censored one is survival.
        total = np.zeros_like(eta)
        for time in y:
            late, seen = time > cut, time < end
            cumulative = np.exp(eta) * (min(time, cut) + np.exp(hazard) * max(min(time, end) - cut, 0.0))
            total += seen * (eta + hazard * late) - cumulative
        return total

    baseline_law, total = pair_prior(b, *BASELINE_LAWS), np.zeros((len(e), len(e)))
    for hazard in np.linspace(-4.0, 3.0, 71):
        control = [np.exp(log_density(times[s][0], b, hazard) + 20.0) for s in (0, 1)]
        treated = [on_sums(np.exp(log_density(times[s][1], sums, hazard) + 20.0), e, b) for s in (0, 1)]
        inner = baseline_law * np.outer(control[0], control[1])
        total += law.pdf(hazard) * (treated[0].T @ inner @ treated[1])
    joint = pair_prior(e, *EFFECT_LAWS) * total

    failures = np.array(
        [[[((y <= cut) & (y < end)).sum(), ((y > cut) & (y < end)).sum()] for y in pair] for pair in times]
    )
    at_risk = np.array([[[np.minimum(y, cut).sum(), np.clip(np.minimum(y, end) - cut, 0, None).sum()] for y in pair]
                        for pair in times])  # fmt: skip
    cells = deeper(
        {"n": np.array([[len(y) for y in pair] for pair in times])}, {"failures": failures, "at_risk": at_risk},
        interval=["0-2", "2-6"], start=[0.0, cut], end=[cut, end], horizon=5.0,
    )  # fmt: skip
    hazards = {"dist": "StudentT", "nu": 5.0, "sigma": 0.9}
    model = hte.Model(family="piecewise_exponential", nuisance={"hazards": hazards}, **PRIORS)
    compare(hte.fit(cells, model, sampler=engine, draws=8000, seed=9), moments_of(e, joint / joint.sum()))


def test_brute_force_grids_are_fine_enough() -> None:
    e = np.linspace(-4, 5, 451)
    fine = np.linspace(-4, 5, 901)

    def exact(grid: Grid) -> dict[str, Grid]:
        points = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1)
        joint = pair_prior(grid, *EFFECT_LAWS) * stats.multivariate_normal([1.2, -0.3], np.diag([0.25, 0.64])).pdf(
            points
        )
        return moments_of(grid, joint / joint.sum())

    coarse, better = exact(e), exact(fine)
    assert (np.abs(coarse["mean"] - better["mean"]) < 1e-3 * better["sd"]).all()
