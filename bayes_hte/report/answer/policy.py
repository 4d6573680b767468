"""The worth of policies in a few sentences: what shipping to all brings, and what choosing segments adds."""

from typing import Any

import xarray as xr

from bayes_hte._support.phrases import choose_decimals, format_share
from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.decisions.policy.comparison import tabulate_policies
from bayes_hte.decisions.policy.valuation import PolicyTerms
from bayes_hte.decisions.rules.evidence import choose_rule
from bayes_hte.estimands.effects import get_fitted_family
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.report.notation import (
    EffectFormat,
    choose_effect_format,
    format_interval_probability,
    isolate_text,
    state_probability,
)
from bayes_hte.spec import Plan


def write_policy_sentences(fit_tree: xr.DataTree, question: EffectQuestion, plan: Plan | None) -> list[str]:
    """Write what policies are worth under the plan's rule; nothing where no rule is stated or no direction is known."""
    # Without a rule nobody has said that something is to be decided, and its numbers are on the plan's own scale.
    if plan is None or plan.decision is None or question.scale != plan.report.scale:
        return []
    # Without a direction a gain may be a loss.
    if not is_direction_known(fit_tree, question):
        return []
    rule = choose_rule(None, plan)
    policy_table = tabulate_policies(fit_tree, question, rule, PolicyTerms())
    rows = [{str(name): value for name, value in row.items()} for row in policy_table.to_dict("records")]
    reference = next(row for row in rows if row["policy"] == policy_table.attrs["all"])
    # The best of those that choose: with several arms each segment its own.
    best = max(rows, key=lambda row: row["gain"])
    gain_format = _choose_gain_format(fit_tree, plan, is_money=rule.value is not None, rows=rows)
    to_all = (
        f"{_name_shipping(reference)} gains {_phrase_gain(reference, gain_format, question)} per unit of the "
        f"population, against shipping to none{', costs taken off' if rule.cost else ''}."
    )
    if best["policy"] == reference["policy"] or best["p_beats_all"] == 0:
        return [to_all, "No choice of segments is expected to gain more."]
    if not best["arm"]:
        return [to_all, "No choice of segments is expected to gain anything: shipping to none is the best policy."]
    return [
        to_all,
        f"{_name_shipping(best)} ({isolate_text(best['treats'])}; {format_share(best['share_treated'])} of all) gains "
        f"{_phrase_gain(best, gain_format, question)}; that is more than shipping to all with "
        f"{state_probability(best['p_beats_all'])}.",
    ]


def _choose_gain_format(
    fit_tree: xr.DataTree, plan: Plan, *, is_money: bool, rows: list[dict[str, Any]]
) -> EffectFormat:
    """Choose digits and unit of gains: those of absolute effects, or none where they are money."""
    widths = [row["ci_high"] - row["ci_low"] for row in rows]
    if is_money:
        return EffectFormat(1.0, choose_decimals(widths), " in money", "money")
    return choose_effect_format(get_fitted_family(fit_tree), "absolute", plan.report.unit, widths)


def _phrase_gain(row: dict[str, Any], gain_format: EffectFormat, question: EffectQuestion) -> str:
    interval_text = gain_format.format_interval(row["ci_low"], row["ci_high"], with_sign=True)
    return (
        f"{gain_format.format_signed(row['gain'])}{gain_format.unit_phrase} "
        f"({format_interval_probability(question.ci_prob)} interval {interval_text})"
    )


def _name_shipping(row: dict[str, Any]) -> str:
    """Name a policy as what begins a sentence: ``Shipping to all``."""
    return isolate_text(f"Shipping{str(row['policy']).removeprefix('ship')}")
