"""The choice of who is treated is the best one: brute force over all choices, and linear programming under budgets."""

from itertools import product

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from bayes_hte.decisions.policy.choice import ChoiceProblem, fill_budget, find_best_allocations


def build_problem(draws: np.ndarray, shares: np.ndarray, budget: float = 1.0) -> ChoiceProblem:
    """A choice problem of draws with axes (draw, group, arm)."""
    groups = [f"g{i}" for i in range(draws.shape[1])]
    arms = [f"a{i}" for i in range(draws.shape[2])]
    coords = {"group": groups, "arm": arms}
    net_gain = xr.DataArray(draws[None], dims=("chain", "draw", "group", "arm"), coords=coords)
    return ChoiceProblem(net_gain, xr.DataArray(shares, dims="group", coords={"group": groups}), budget)


def draw_problem(seed: int, groups: int, arms: int, budget: float = 1.0) -> ChoiceProblem:
    """A choice problem of random draws, some groups good, some bad."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(0, 1, (1, groups, arms)) + rng.normal(0, 0.5, (200, groups, arms))
    return build_problem(draws, rng.dirichlet(np.ones(groups)), budget)


def gain_of_whole_choices(problem: ChoiceProblem) -> dict[tuple[int, ...], np.ndarray]:
    """Draws of the gain of every way to give each group one of the arms, or nothing (0)."""
    net_gain = problem.net_gain.values[0]
    padded = np.concatenate([np.zeros((*net_gain.shape[:2], 1)), net_gain], axis=2)
    groups = np.arange(net_gain.shape[1])
    return {
        choice: padded[:, groups, choice] @ problem.shares.values
        for choice in product(range(padded.shape[2]), repeat=len(groups))
    }


@pytest.mark.parametrize(("seed", "groups", "arms"), [(1, 8, 1), (2, 8, 1), (3, 6, 2), (4, 4, 3)])
def test_without_a_budget_the_best_of_all_choices_is_found(seed: int, groups: int, arms: int) -> None:
    """All 2^S choices of one arm, all (A + 1)^S of several: by expectation, and in every draw."""
    problem = draw_problem(seed, groups, arms)
    gains = gain_of_whole_choices(problem)
    allocation = problem.allocate_best()
    assert set(np.unique(allocation)) <= {0.0, 1.0}
    best_choice = max(gains, key=lambda choice: gains[choice].mean())
    np.testing.assert_allclose(problem.compute_gain(allocation).values[0], gains[best_choice], atol=1e-12)
    best = find_best_allocations(problem, allocation)
    stacked = np.stack(list(gains.values()))
    np.testing.assert_allclose(best.gain.values[0], stacked.max(axis=0), atol=1e-12)
    chosen_in_draw = np.array(list(gains))[stacked.argmax(axis=0)]
    for arm in range(arms):
        np.testing.assert_allclose(best.mean_allocation.values[:, arm], (chosen_in_draw == arm + 1).mean(axis=0))
    np.testing.assert_allclose(best.agreement.values, (chosen_in_draw == np.array(best_choice)).mean(axis=0))


@pytest.mark.parametrize("budget", [0.05, 0.3, 0.62, 0.999])
@pytest.mark.parametrize(("groups", "arms"), [(7, 1), (4, 3)])
def test_under_a_budget_the_greedy_choice_is_that_of_linear_programming(budget: float, groups: int, arms: int) -> None:
    problem = draw_problem(5, groups, arms, budget)
    shares = problem.shares.values
    filled = fill_budget(problem.net_gain.values[0][:20], shares, budget)
    for values, allocation in zip(problem.net_gain.values[0], filled, strict=False):
        weights = np.repeat(shares, arms)
        limits = np.vstack([np.kron(np.eye(groups), np.ones(arms)), weights])
        program = linprog(-weights * values.ravel(), A_ub=limits, b_ub=[*np.ones(groups), budget], bounds=(0, 1))
        assert -program.fun == pytest.approx((allocation * values * shares[:, None]).sum(), abs=1e-9)
        assert (allocation.sum(axis=1) * shares).sum() <= budget + 1e-12


def test_under_a_budget_no_whole_choice_with_one_divided_group_is_better() -> None:
    """Brute force: all sets that are treated whole, and any one group that takes what is left."""
    problem = draw_problem(6, 7, 1, 0.4)
    values, shares = problem.expected_net_gain.values[:, 0], problem.shares.values
    gains = []
    for whole in product((0, 1), repeat=7):
        used = shares @ whole
        if used > 0.4:
            continue
        gain = (values * shares) @ whole
        gains.append(gain)
        gains += [gain + min(0.4 - used, shares[i]) * values[i] for i in range(7) if not whole[i]]
    achieved = float(problem.compute_gain(problem.allocate_best()).mean())
    assert achieved == pytest.approx(max(gains), abs=1e-12)


@given(st.integers(0, 10_000), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_larger_budget_never_gains_less(seed: int, first: float, second: float) -> None:
    small, large = sorted((first, second))
    by_small, by_large = (draw_problem(seed, 5, 2, budget) for budget in (small, large))
    gain_small, gain_large = (
        float(problem.compute_gain(problem.allocate_best()).mean()) for problem in (by_small, by_large)
    )
    assert gain_large >= gain_small - 1e-12
    assert by_small.compute_treated_share(by_small.allocate_best()) <= small + 1e-12


@given(st.integers(0, 10_000), st.floats(0.01, 1.0))
def test_nothing_is_expected_to_gain_more_than_the_best_arm_for_each(seed: int, budget: float) -> None:
    problem = draw_problem(seed, 5, 2, budget)
    best = float(problem.compute_gain(problem.allocate_best()).mean())
    rng = np.random.default_rng(seed)
    others = [problem.allocate_nobody(), problem.allocate_everybody("a0"), problem.allocate_everybody("a1")]
    random_parts = rng.dirichlet(np.ones(3), size=5)[:, :2] * budget
    others.append(problem.allocate_nobody().copy(data=random_parts))
    assert all(best >= float(problem.compute_gain(other).mean()) - 1e-12 for other in others)


def test_what_perfect_knowledge_adds_is_the_normal_loss() -> None:
    """E max(0, x) = mean Φ(mean / sd) + sd φ(mean / sd) per group; within 5 Monte-Carlo errors, one in a million."""
    from scipy.stats import norm

    rng = np.random.default_rng(7)
    means, sds, shares = np.array([0.5, -0.2, 0.0]), np.array([1.0, 0.3, 0.8]), np.array([0.2, 0.5, 0.3])
    draws = means + sds * rng.standard_normal((40_000, 3))
    problem = build_problem(draws[:, :, None], shares)
    best = find_best_allocations(problem, problem.allocate_best())
    expected = shares @ (means * norm.cdf(means / sds) + sds * norm.pdf(means / sds))
    standard_error = float(best.gain.std()) / np.sqrt(40_000)
    assert float(best.gain.mean()) == pytest.approx(expected, abs=5 * standard_error)
    p_positive = norm.cdf(means / sds)
    np.testing.assert_allclose(best.mean_allocation.values[:, 0], p_positive, atol=5 * 0.5 / np.sqrt(40_000))


def test_groups_without_anybody_take_nothing_of_the_budget() -> None:
    problem = build_problem(np.array([[[2.0], [1.0], [3.0]]]), np.array([0.5, 0.5, 0.0]), 0.6)
    assert problem.allocate_best().values[:, 0].tolist() == pytest.approx([1.0, 0.2, 1.0])


def test_blocks_of_draws_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw_problem(8, 5, 2, 0.5)
    whole = find_best_allocations(problem, problem.allocate_best())
    monkeypatch.setattr("bayes_hte.decisions.policy.choice.MAX_BLOCK_NUMBERS", 37)
    parts = find_best_allocations(problem, problem.allocate_best())
    np.testing.assert_allclose(whole.gain.values, parts.gain.values, atol=1e-15)
    np.testing.assert_allclose(whole.mean_allocation.values, parts.mean_allocation.values, atol=1e-12)
