"""The random walk that random problems are compared with: right where a grid is exact, and able to see a fault."""

import numpy as np
import pytest
from metropolis_reference import summarise, walk
from random_problems import RandomProblem, build_table
from reference_agreement import Expected, find_disagreements
from reference_batches import pack_estimate
from scipy import stats

import bayes_hte as hte

Y, SE = np.array([1.4, 0.2, -0.6]), np.array([0.3, 0.5, 0.2])
SPEC = {
    "family": "estimate",
    "effect": {"mean": {"dist": "Normal", "mu": 0.0, "sigma": 1.0}, "between": {"dist": "HalfNormal", "sigma": 0.7}},
}


def make_small_problem() -> RandomProblem:
    data = {"estimate": Y[None], "se": SE[None]}
    return RandomProblem("estimate", build_table(data), SPEC, data)


def test_the_walk_agrees_with_a_grid_over_tau() -> None:
    # Given tau estimates are normal: p(tau | y) on a grid, the common mean and effects in closed form.
    tau = np.linspace(1e-4, 6, 4000)[:, None]
    variance = SE**2 + tau**2
    precision = 1 + (1 / variance).sum(1)
    centre = (Y / variance).sum(1) / precision
    log_density = stats.norm.logpdf(Y, 0, np.sqrt(variance)).sum(1) + 0.5 * centre**2 * precision
    log_density += -0.5 * np.log(precision) + stats.halfnorm.logpdf(tau[:, 0], scale=0.7)
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    # effect | tau: shrunk towards the common mean by k, whose uncertainty is carried along
    k = tau**2 / variance
    mean = k * Y + (1 - k) * centre[:, None]
    sd = np.sqrt(k * SE**2 + (1 - k) ** 2 / precision[:, None])
    exact = weight @ stats.norm.cdf(mean / sd)

    drawn = walk(pack_estimate([make_small_problem()]), sweeps=4000, seed=3)
    found = summarise(drawn["e"], (0.025, 0.5, 0.975))
    # Five errors, three comparisons: a false alarm in 10,000 seeds, and this one is fixed.
    assert (np.abs(found["p_positive"][0, :3] - exact) < 5 * found["error"][-1, 0, :3] + 1e-4).all()
    for value, share in enumerate((0.025, 0.5, 0.975)):
        below = weight @ stats.norm.cdf((found["at"][value, 0, :3] - mean) / sd)
        assert (np.abs(below - share) < 5 * found["error"][value, 0, :3]).all()


@pytest.mark.parametrize(("name", "change"), [("effect", 0.3), ("effect_mean", 0.3), ("effect_between", 0.5)])
def test_draws_that_are_off_by_a_fraction_of_an_sd_are_seen(name: str, change: float) -> None:
    problem = make_small_problem()
    fit = hte.fit(problem.cells, problem.model, sampler="exact", seed=1)
    drawn = walk(pack_estimate([problem]), sweeps=4000, seed=3)
    every = np.concatenate([drawn["e"][..., :3], drawn["mean_e"][..., None], drawn["log_e"][..., None]], axis=-1)
    found = summarise(every, (0.025, 0.5, 0.975))
    expected = Expected(found["at"][:, 0], found["p_positive"][0], found["error"][:, 0])
    assert find_disagreements(fit, expected) == []
    tree = fit.tree.copy(deep=True)
    tree["posterior"][name] = tree["posterior"][name] + change * tree["posterior"][name].std(("chain", "draw"))
    assert find_disagreements(hte.Fit(tree), expected)
