"""Weigh joint draws of benefits against a rule: how probable each of its conditions is, and what follows.

Benefit is the effect in the direction in which the outcome is better. Nothing here knows of segments or arms: any
array of draws goes, of a fit, of an average, of a simulated experiment.
"""

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError
from bayes_hte.inference.draw_blocks import SAMPLE_DIMS, summarise_rows
from bayes_hte.spec import Plan, Rule
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.rule import (
    ShipCondition,
    StopCondition,
    resolve_threshold,
    settle_call_prob,
    settle_matters,
)

Decision = Literal["ship", "stop", "equivalent", "undecided"]
"""What a rule says of one effect: act, act the other way, ask no more, or collect more."""
SHIP_CONDITION: Final = "ship_condition"
STOP_CONDITION: Final = "stop_condition"


def choose_rule(rule: Rule | None, plan: Plan | None, scale: EffectScale | None = None) -> Rule:
    """Choose the rule that is asked for, else the plan's, else the default, with the size that matters settled.

    Parameters
    ----------
    rule : Rule or None
        As the caller states it.
    plan : Plan or None
        Of the fit. Its smallest effect that matters holds for every rule that does not state one, and its
        ``report.call_prob`` for the signs of the default rule.
    scale : str, optional
        Of the effects; by default the plan's.

    Raises
    ------
    ArgumentError
        If the plan's rule is for effects on another scale.
    PlanError
        If the rule names the smallest effect that matters, and nobody states it.
    """
    if rule is not None and not isinstance(rule, Rule):
        raise ArgumentError(f"rule is {describe_value(rule)}; give hte.Rule(…), or nothing for the plan's")
    is_plan_scale = plan is not None and scale in (None, plan.report.scale)
    if rule is None and plan is not None and plan.decision is not None and not is_plan_scale:
        raise ArgumentError(
            f"the rule of the plan is for effects on its {plan.report.scale} scale; give rule=hte.Rule(…) with numbers "
            f"for the {scale} one"
        )
    plan_size = plan.matters if plan is not None and is_plan_scale else None
    if rule is None and plan is not None and plan.decision is None:
        # A plan that says when a sign is called says it of shipping and stopping too.
        return settle_call_prob(settle_matters(Rule(), plan_size), plan.report.call_prob, stated_keys=())
    # A caller's own size goes before the plan's: whoever gives another rule asks what it would change.
    chosen_rule = rule or (None if plan is None else plan.decision) or Rule()
    return settle_matters(chosen_rule, plan_size if chosen_rule.matters is None else chosen_rule.matters)


def turn_to_benefit(effects: xr.DataArray, *, higher_is_better: bool) -> xr.DataArray:
    """Turn effects into benefits: their sign changes where lower is better."""
    return effects if higher_is_better else -effects


def get_size_that_matters(rule: Rule) -> float:
    """Return the smallest effect that matters, 0 where every effect does."""
    if rule.matters is not None:
        return rule.matters
    # A rule may state the size where it uses it only.
    is_stated_within = rule.equivalent is not None and not isinstance(rule.equivalent.within, str)
    return float(rule.equivalent.within) if is_stated_within and rule.equivalent is not None else 0.0


def weigh_benefit(
    benefit_draws: xr.DataArray, rule: Rule, sign_probabilities: Mapping[str, xr.DataArray] | None = None
) -> xr.Dataset:
    """Weigh benefits against a rule: the probability of every condition, and the decision by the rule alone.

    Parameters
    ----------
    benefit_draws : xarray.DataArray
        Joint draws, dims chain, draw and any others, on the scale of the rule.
    rule : Rule
        With the smallest effect that matters settled.
    sign_probabilities : mapping, optional
        ``p_better`` and ``p_worse``, of a benefit above and below 0, where they are known better than by counting.

    Returns
    -------
    xarray.Dataset
        Dims are the others. p_better and p_worse, of a benefit above and below 0; p_benefit, p_harm and p_equivalent,
        of one that is large enough to matter on either side, and of one that is not, which add up to 1; p_ship and
        p_stop, of each condition, dims ship_condition and stop_condition besides; p_within, that of being equivalent,
        NaN where the rule has none; decision, "ship", "stop", "equivalent" or "undecided".

    Examples
    --------
    >>> draws = xr.DataArray(np.linspace(-0.1, 0.9, 1000).reshape(1, 1000), dims=("chain", "draw"))
    >>> evidence = weigh_benefit(draws, settle_matters(Rule(ship=[(0.0, 0.8)]), None))
    >>> float(evidence["p_better"]), str(evidence["decision"].values)
    (0.9, 'ship')
    """
    size = get_size_that_matters(rule)
    ship_limits = [resolve_threshold(condition.above, size) for condition in rule.ship]
    stop_limits = [resolve_threshold(condition.below, size) for condition in rule.stop]
    within = np.nan if rule.equivalent is None else resolve_threshold(rule.equivalent.within, size)

    def count_block(block: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        # One pass over the draws: of many segments they are gigabytes.
        sizes = abs(block)
        events = [block > 0, block < 0, block > size, block < -size, sizes <= size, sizes <= within]
        events += [*(block > limit for limit in ship_limits), *(block < limit for limit in stop_limits)]
        return [event.mean(axis=1) for event in events]

    better, worse, benefit, harm, too_small, is_within, *conditions = summarise_rows(benefit_draws, count_block)
    # The exact engine integrates signs; its draws are only as good as their number.
    if sign_probabilities:
        better, worse = sign_probabilities["p_better"], sign_probabilities["p_worse"]
    ship_count = len(ship_limits)
    by_ship = [better if limit == 0 else p for limit, p in zip(ship_limits, conditions[:ship_count], strict=True)]
    by_stop = [worse if limit == 0 else p for limit, p in zip(stop_limits, conditions[ship_count:], strict=True)]
    # Every effect matters: the sizes are the sides, and stay consistent with the better of both numbers.
    if size == 0:
        benefit, harm = better, worse
    evidence = xr.Dataset(
        {
            "p_better": better,
            "p_worse": worse,
            "p_benefit": benefit,
            "p_harm": harm,
            "p_equivalent": too_small,
            "p_ship": xr.concat(by_ship, SHIP_CONDITION),
            "p_stop": xr.concat(by_stop, STOP_CONDITION),
            "p_within": is_within if rule.equivalent is not None else xr.full_like(is_within, np.nan),
        }
    )
    return evidence.assign(decision=decide_by_rule(evidence, rule))


def decide_by_rule(evidence: xr.Dataset, rule: Rule) -> xr.DataArray:
    """Decide by the probabilities of a rule's conditions alone, dims as of the evidence.

    Shipping and stopping exclude each other, as the rule makes sure of. Both go before being equivalent: an effect may
    surely help and be too small to matter.
    """
    ships = _meets_all(evidence["p_ship"], rule.ship, SHIP_CONDITION)
    stops = _meets_all(evidence["p_stop"], rule.stop, STOP_CONDITION)
    # NaN, where the rule has no such condition, is never enough.
    is_equivalent = evidence["p_within"] >= (1.0 if rule.equivalent is None else rule.equivalent.p)
    dims = is_equivalent.dims
    claims = [claim.transpose(*dims).values for claim in (ships, stops, is_equivalent)]
    # The first claim that holds.
    return is_equivalent.copy(data=np.select(claims, ["ship", "stop", "equivalent"], "undecided"))


def _meets_all(
    probabilities: xr.DataArray, conditions: tuple[ShipCondition, ...] | tuple[StopCondition, ...], dim: str
) -> xr.DataArray:
    required = xr.DataArray([condition.p for condition in conditions], dims=dim)
    meets_all: xr.DataArray = (probabilities >= required).all(dim)
    return meets_all


def compute_gains(absolute_benefit_draws: xr.DataArray, rule: Rule) -> tuple[xr.DataArray, xr.DataArray]:
    """Compute what shipping gains per treated unit on average, and what it loses where it is wrong, after costs.

    In money where the rule says what a unit of benefit is worth, else in units of the outcome. Not shipping gains
    nothing, and loses on average the sum of both numbers: E[max(gain, 0)] = E[gain] + E[max(−gain, 0)].
    """
    # Without a value in money, outcome units are their own currency.
    value, cost = 1.0 if rule.value is None else rule.value, rule.cost

    def summarise_block(block: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        # gain = value · benefit − cost,  loss = max(−gain, 0)
        gains = value * block - cost
        return [gains.mean(axis=1), np.maximum(-gains, 0).mean(axis=1)]

    expected_gain, expected_loss = summarise_rows(absolute_benefit_draws, summarise_block)
    return expected_gain, expected_loss


def compute_best_arm_probability(benefit_draws: xr.DataArray) -> xr.DataArray:
    """Compute how probably each treated arm is the best of all, control included; arms that tie share it.

    Parameters
    ----------
    benefit_draws : xarray.DataArray
        Dims chain, draw, arm and any others; the benefit of the control is 0.
    """
    # best = max(0, max over arms)
    best_benefit = benefit_draws.max("arm").clip(min=0)
    is_best = benefit_draws == best_benefit
    # The control has benefit 0, and takes part in a tie at 0.
    ties = is_best.sum("arm") + (best_benefit == 0)
    probability: xr.DataArray = (is_best / ties).mean(SAMPLE_DIMS)
    return probability
