"""Trace the gain of treating more and more people, and how stable each group's place in the policy is."""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.decisions.policy.choice import GROUP, find_best_allocations
from bayes_hte.decisions.policy.comparison import describe_choice
from bayes_hte.decisions.policy.valuation import PolicyTerms, PricedChoice, price_choice
from bayes_hte.inference.draw_blocks import SAMPLE_DIMS
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM


def tabulate_policy_curve(fit_tree: xr.DataTree, rule: Rule, terms: PolicyTerms, ci_prob: float) -> pd.DataFrame:
    """Tabulate the gain against the share treated under a rule and terms; see `Fit.policy_curve`."""
    return trace_policy_curve(price_choice(fit_tree, rule, terms), ci_prob)


def trace_policy_curve(choice: PricedChoice, ci_prob: float) -> pd.DataFrame:
    """Trace the gain against the share treated, a row per group in the order in which they are treated.

    See `Fit.policy_curve` for the columns. Each group gets the arm that is expected to gain most there. The budget does
    not end the curve: it decides ``part_treated``, ``p_optimal`` and ``p_flip``.
    """
    problem = choice.problem
    expected = problem.expected_net_gain
    best_arms = expected.values.argmax(axis=1)
    # Stable, as in `fill_budget`: groups that gain the same stay in the order of the data.
    order = np.argsort(-expected.values.max(axis=1), kind="stable")
    best_net_gain = problem.net_gain.isel({ARM: xr.DataArray(best_arms, dims=GROUP)}).isel({GROUP: order})
    ordered_shares = problem.shares.values[order]
    samples = best_net_gain.transpose(GROUP, *SAMPLE_DIMS).values.reshape(len(order), -1)
    # gain of the first k groups = Σ_{j ≤ k} w_j v_j, draw by draw
    cumulative_gain = np.cumsum(ordered_shares[:, None] * samples, axis=0)
    # What is really treated, under the budget, with which the best of every draw is compared.
    allocation = problem.allocate_best()
    best = find_best_allocations(problem, allocation)
    band_low, band_high = compute_simultaneous_band(cumulative_gain, ci_prob)
    tail_prob = (1 - ci_prob) / 2
    net_low, net_high = np.quantile(samples, [tail_prob, 1 - tail_prob], axis=1)
    ci_low, ci_high = np.quantile(cumulative_gain, [tail_prob, 1 - tail_prob], axis=1)
    curve_table = pd.DataFrame(
        {
            **{name: levels.to_numpy()[order] for name, levels in choice.group_levels.items()},
            "arm": problem.net_gain[ARM].values.astype(str)[best_arms[order]],
            "population_share": ordered_shares,
            "net_gain": samples.mean(axis=1),
            "net_low": net_low,
            "net_high": net_high,
            "share_treated": np.cumsum(ordered_shares),
            "gain": cumulative_gain.mean(axis=1),
            "ci_low": ci_low,
            "ci_high": ci_high,
            "band_low": band_low,
            "band_high": band_high,
            "part_treated": allocation.sum(ARM).values[order],
            "p_optimal": best.mean_allocation.values[order, best_arms[order]],
            "p_flip": np.clip(1 - best.agreement.values[order], 0.0, 1.0),
        }
    )
    curve_table.attrs |= describe_choice(choice)
    return curve_table


def compute_simultaneous_band(
    samples: NDArray[np.float64], ci_prob: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute a band that holds all rows at once with a probability: sup-t, from joint draws.

    Parameters
    ----------
    samples : array, axes (row, sample)
    ci_prob : float

    Returns
    -------
    tuple of arrays, axis (row,)
        The band's lower and upper ends.

    References
    ----------
    Montiel Olea & Plagborg-Møller (2019), Journal of Applied Econometrics 34:1: sup-t bands, the narrowest of those
    that are everywhere as many SDs wide.

    Examples
    --------
    Of one row the band is its interval, of two that depend on nothing it is wider.

    >>> samples = np.random.default_rng(1).standard_normal((2, 400_000))
    >>> [round(float(compute_simultaneous_band(samples[:rows], 0.95)[1][0]), 1) for rows in (1, 2)]
    [2.0, 2.2]
    """
    means, sds = samples.mean(axis=1, keepdims=True), samples.std(axis=1, keepdims=True)
    # c = quantile of max_k |g_k − mean_k| / sd_k; a row that never moves adds nothing.
    standardised = np.divide(abs(samples - means), sds, out=np.zeros_like(samples), where=sds > 0)
    half_width = np.quantile(standardised.max(axis=0), ci_prob) * sds
    return (means - half_width)[:, 0], (means + half_width)[:, 0]
