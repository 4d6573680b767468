"""Compare policies with each other by joint draws: what each is worth, which is best, what targeting adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte._support.phrases import shorten_text
from bayes_hte.decisions.policy.choice import GROUP, ChoiceProblem, find_best_allocations
from bayes_hte.decisions.policy.rule_choice import find_ruled_groups
from bayes_hte.decisions.policy.valuation import PolicyTerms, PricedChoice, price_choice
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.inference.draw_blocks import SAMPLE_DIMS
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM

NO_ARM: Final = ""
BEST_ARM: Final = "best"
MAX_LISTED_GROUPS: Final = 8
"""A list of more names is not read; `Fit.policy_curve` has a row for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """Who gets what.

    Attributes
    ----------
    name : str
        In words, as the table shows it.
    arm : str
        The arm that is shipped; "" for none, "best" where groups get different ones.
    allocation : xarray.DataArray
        Dims (group, arm): the part of each group's units that get each arm.
    """

    name: str
    arm: str
    allocation: xr.DataArray


def tabulate_policies(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, terms: PolicyTerms) -> pd.DataFrame:
    """Tabulate what policies are worth under a rule and terms, one row each; see `Fit.policy`.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    question : EffectQuestion
        The scale of the rule's conditions, and the intervals; gains are on the absolute scale.
    rule : Rule
        With the smallest effect that matters settled.
    terms : PolicyTerms
    """
    choice = price_choice(fit_tree, rule, terms)
    policies = list_policies(choice, find_ruled_groups(fit_tree, question, rule, terms))
    return compare_policies(choice, policies, question.ci_prob)


def list_policies(choice: PricedChoice, ruled_groups: xr.DataArray) -> list[Policy]:
    """List the policies that are compared: nobody, all, the chosen groups, where the rule ships, each its best arm.

    Parameters
    ----------
    choice : PricedChoice
    ruled_groups : xarray.DataArray
        Dims (group, arm): where the rule says ship.
    """
    problem = choice.problem
    arms = [str(arm) for arm in problem.net_gain[ARM].values]
    budget_phrase = f"{100 * problem.budget:.4g} % of all, by chance" if problem.budget < 1 else "all"
    role = choice.group_role
    policies = [Policy("ship to none", NO_ARM, problem.allocate_nobody())]
    # With one arm there is no question which.
    ships = {arm: f"ship {shorten_text(arm)!r}" if len(arms) > 1 else "ship" for arm in arms}
    policies += [Policy(f"{ships[arm]} to {budget_phrase}", arm, problem.allocate_everybody(arm)) for arm in arms]
    policies += [
        Policy(f"{ships[arm]} to the chosen {role}", arm, problem.allocate_best(_allow_arms(problem, [arm])))
        for arm in arms
    ]
    policies.append(
        Policy(
            f"ship to the {role} that the rule calls",
            arms[0] if len(arms) == 1 else BEST_ARM,
            problem.allocate_best(ruled_groups),
        )
    )
    # Of one arm the best for each is the same as the chosen segments.
    if len(arms) > 1:
        policies.append(Policy(f"ship the best arm for each of the {role}", BEST_ARM, problem.allocate_best()))
    return policies


def _allow_arms(problem: ChoiceProblem, allowed_arms: Sequence[str]) -> xr.DataArray:
    """Allow some arms in every group; dims (group, arm)."""
    nobody = problem.allocate_nobody()
    return xr.ones_like(nobody, dtype=bool) & nobody[ARM].isin(list(allowed_arms))


def compare_policies(choice: PricedChoice, policies: Sequence[Policy], ci_prob: float) -> pd.DataFrame:
    """Tabulate what policies are worth, one row each; see `Fit.policy` for the columns.

    The reference of ``versus_all`` is shipping to all the arm whose expected gain from that is largest.
    """
    problem = choice.problem
    gains = np.stack([_stack_samples(problem.compute_gain(policy.allocation)) for policy in policies])
    reference = find_reference(choice, policies)
    # What knows every effect chooses anew in every draw.
    best_draws = find_best_allocations(problem, reference.allocation).gain
    differences = np.stack(
        # The difference of allocations first: two that are the same differ by exactly 0.
        [_stack_samples(problem.compute_gain(policy.allocation - reference.allocation)) for policy in policies]
    )
    benefits = np.stack([_stack_samples(choice.benefit_problem.compute_gain(policy.allocation)) for policy in policies])
    table = pd.DataFrame(
        {
            "policy": [policy.name for policy in policies],
            "arm": [policy.arm for policy in policies],
            "share_treated": [problem.compute_treated_share(policy.allocation) for policy in policies],
            **_summarise_samples("gain", "ci", gains, ci_prob),
            "p_positive": (gains > 0).mean(axis=1),
            "p_best": _compute_best_probabilities([policy.allocation * problem.shares for policy in policies], gains),
            **_summarise_samples("versus_all", "versus_all", differences, ci_prob),
            "p_beats_all": (differences > 0).mean(axis=1),
            "raw_gain": [_compute_raw_gain(choice, policy) for policy in policies],
            # Expected value of perfect information: what is lost against knowing every effect.
            "regret": float(best_draws.mean()) - gains.mean(axis=1),
            **_summarise_samples("outcome_gain", "outcome", benefits, ci_prob),
            "treats": [_name_treated(choice, policy) for policy in policies],
        }
    )
    table.attrs |= describe_choice(choice) | {"all": reference.name}
    return table


def _compute_best_probabilities(
    treated_shares: Sequence[xr.DataArray], gains: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute how probably each policy gains most: those that treat the same people are one policy, and have one."""
    # Shares of the population: what a policy says of groups without anybody makes it no other one.
    treated = np.stack([shares.transpose(GROUP, ARM).values.ravel() for shares in treated_shares])
    _, first_positions, distinct_index = np.unique(treated, axis=0, return_index=True, return_inverse=True)
    distinct_gains = gains[first_positions]
    # Different people may gain the same, as nobody and those whom nothing changes: they share the draw.
    is_best = distinct_gains == distinct_gains.max(axis=0)
    best_probabilities = (is_best / is_best.sum(axis=0)).mean(axis=1)
    return np.asarray(best_probabilities[distinct_index.ravel()])


def find_reference(choice: PricedChoice, policies: Sequence[Policy]) -> Policy:
    """Find the policy that ships one arm to all and is expected to gain most from it."""
    arms = [str(arm) for arm in choice.problem.net_gain[ARM].values]
    # In the order of `list_policies`: nobody first, then each arm to all.
    to_all = policies[1 : 1 + len(arms)]
    return max(to_all, key=lambda policy: float(choice.problem.compute_gain(policy.allocation).mean()))


def describe_choice(choice: PricedChoice) -> dict[str, Any]:
    """Describe what the numbers of a table of policies are: unit, population, budget, averaging."""
    averaged_names = " and ".join(choice.averaged_dimensions)
    return {
        "gain": f"{choice.gain_unit} per unit of the population",
        "is_money": choice.is_money,
        "population": choice.population_phrase,
        "budget": choice.problem.budget,
        "marginal": (
            f"The choice is among {choice.group_role}: marginal over {averaged_names}, with the population's shares."
            if averaged_names
            else ""
        ),
    }


def _stack_samples(draws: xr.DataArray) -> NDArray[np.float64]:
    """Stack chains and draws into one axis."""
    return np.asarray(draws.transpose(*SAMPLE_DIMS).values.ravel(), dtype=float)


def _summarise_samples(
    mean_name: str, interval_prefix: str, samples: NDArray[np.float64], ci_prob: float
) -> dict[str, NDArray[np.float64]]:
    """Summarise samples, axes (policy, sample), by their mean and an interval with equal tails."""
    tail_prob = (1 - ci_prob) / 2
    low, high = np.quantile(samples, [tail_prob, 1 - tail_prob], axis=1)
    return {mean_name: samples.mean(axis=1), f"{interval_prefix}_low": low, f"{interval_prefix}_high": high}


def _compute_raw_gain(choice: PricedChoice, policy: Policy) -> float:
    """Compute the gain of a policy by raw estimates: NaN where somebody is treated whose effect was not measured."""
    treated_shares = policy.allocation * choice.problem.shares
    # Who is not treated gains nothing, whether or not there is an estimate.
    raw_gains = (treated_shares * choice.raw_net_gain).where(treated_shares > 0, 0.0)
    return float(raw_gains.sum((GROUP, ARM), skipna=False))


def _name_treated(choice: PricedChoice, policy: Policy) -> str:
    """Name the groups that a policy treats, and the part of them where it is not all."""
    parts = policy.allocation.sum(ARM)
    treated = [
        shorten_text(str(label)) + ("" if part > 1 - 1e-9 else f" ({100 * part:.0f} %)")
        for label, part in zip(parts[GROUP].values, parts.values, strict=True)
        if part > 0
    ]
    # The same part of every group is a draw by chance, not a choice of groups.
    if len(treated) == parts.size and bool((parts == parts[0]).all()):
        return "all" if float(parts[0]) > 1 - 1e-9 else f"{100 * float(parts[0]):.4g} % of each"
    more = f" and {len(treated) - MAX_LISTED_GROUPS} more" if len(treated) > MAX_LISTED_GROUPS else ""
    return (", ".join(treated[:MAX_LISTED_GROUPS]) + more) or "nobody"
