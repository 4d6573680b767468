"""Write in a sentence, with its numbers, why a segment is shipped, stopped, equivalent or undecided."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bayes_hte._support.phrases import (
    NBSP,
    choose_decimals,
    clean_text,
    format_interval,
    format_number,
    format_percent_probability,
    format_percentage,
    format_share,
    shorten_text,
)
from bayes_hte.decisions.rules.evidence import Decision, get_size_that_matters
from bayes_hte.decisions.verdicts import holds_zero_against_sign
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.families import Family
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.rule import resolve_threshold


@dataclass(frozen=True, slots=True)
class SizeFormat:
    """How sizes of effects are written in a sentence.

    Attributes
    ----------
    display_factor : float
        100 where effects are shown in percent or percentage points.
    singular_unit, plural_unit : str
        What stands after a number, "" where nobody has said.
    """

    display_factor: float
    singular_unit: str
    plural_unit: str

    def format_size(self, size: float) -> str:
        """Write a size with its unit, in the digits in which it was stated: ``0.2 percentage points``."""
        shown_size = self.display_factor * size
        unit = self.singular_unit if abs(shown_size) == 1 else self.plural_unit
        return f"{shown_size:.4g}".replace("-", "−") + (f" {unit}" if unit and shown_size else "")


def choose_size_format(family: Family, scale: EffectScale, outcome_unit: str) -> SizeFormat:
    """Choose the unit in which the sizes of effects on a scale are written."""
    match scale:
        case "relative":
            return SizeFormat(100.0, "%", "%")
        case "absolute" if family.mean_is_probability:
            return SizeFormat(100.0, "percentage point", "percentage points")
    # Of other scales a number is what the plan says it counts; log ratios have no unit.
    unit = "" if scale == "link" and family.ratio_name else clean_text(outcome_unit)
    return SizeFormat(1.0, unit, unit)


def write_probability(probability: float) -> str:
    """Write a probability for a table or a file: ``97.5 %``, never 0 or 100."""
    return format_percent_probability(probability).replace(NBSP, " ")


def write_missed_probability(probability: float, needed: float) -> str:
    """Write a probability that is less than what is needed so that it reads as less.

    Examples
    --------
    >>> write_missed_probability(0.912, 0.95), write_missed_probability(0.9497, 0.95)
    ('91.2 %', 'just below 95 %')
    """
    # Rounded to one decimal, 94.97 % would read as if the 95 % were met.
    rounds_up = round(100 * probability, 1) >= round(100 * needed, 6)
    return f"just below {format_percentage(needed)}" if rounds_up else write_probability(probability)


def write_rule_reason(decision: Decision, row: Mapping[str, Any], rule: Rule, sizes: SizeFormat) -> str:
    """Write why the rule alone says what it says.

    Parameters
    ----------
    decision : str
    row : mapping
        Of one effect, p_better, p_worse and p_within, and p_ship and p_stop as lists over the conditions.
    rule : Rule
    sizes : SizeFormat
    """
    # Numbers in words are those of the rule, so that a reader can hold the reason against the plan.
    size = get_size_that_matters(rule)
    ship_texts = [f"above {sizes.format_size(resolve_threshold(each.above, size))}" for each in rule.ship]
    stop_texts = [f"below {sizes.format_size(resolve_threshold(each.below, size))}" for each in rule.stop]
    ship_needs, stop_needs = [each.p for each in rule.ship], [each.p for each in rule.stop]
    match decision:
        case "ship":
            return f"The benefit is {_list_met(ship_texts, row['p_ship'], ship_needs)}."
        case "stop":
            return f"The benefit is {_list_met(stop_texts, row['p_stop'], stop_needs)}."
        case "equivalent":
            return f"The effect is too small to matter: {_write_within(row, rule, sizes)}."
    # The nearer of the two actions is the one whose conditions are worth knowing.
    if row["p_better"] >= row["p_worse"]:
        return f"To ship, the benefit must be {_list_unmet(ship_texts, row['p_ship'], ship_needs)}."
    return f"To stop, the benefit must be {_list_unmet(stop_texts, row['p_stop'], stop_needs)}."


def _write_within(row: Mapping[str, Any], rule: Rule, sizes: SizeFormat) -> str:
    condition = rule.equivalent
    if condition is None:  # without one nothing is called equivalent
        return ""
    within = sizes.format_size(resolve_threshold(condition.within, get_size_that_matters(rule)))
    return f"it lies within ±{within} with probability {_state_met(row['p_within'], condition.p)}"


def _state_met(probability: float, needed: float) -> str:
    return f"{write_probability(probability)} ({format_percentage(needed)} needed)"


def _list_met(texts: Sequence[str], probabilities: Iterable[float], needs: Iterable[float]) -> str:
    return " and ".join(
        f"{text} with probability {_state_met(probability, needed)}"
        for text, probability, needed in zip(texts, probabilities, needs, strict=True)
    )


def _list_unmet(texts: Sequence[str], probabilities: Iterable[float], needs: Iterable[float]) -> str:
    # What already holds is left out: the reader wants to know what is missing.
    unmet = [
        f"{text} with probability {format_percentage(needed)}, and is with "
        f"{write_missed_probability(probability, needed)}"
        for text, probability, needed in zip(texts, probabilities, needs, strict=True)
        if not probability >= needed
    ]
    return "; ".join(unmet)


def write_interval_note(row: Mapping[str, Any], question: EffectQuestion, sizes: SizeFormat) -> str:
    """Explain why a sign may be called though the interval holds 0; "" where there is nothing to explain."""
    if not holds_zero_against_sign({name: float(row[name]) for name in _INTERVAL_COLUMNS}, question.ci_prob):
        return ""
    low, high = (sizes.display_factor * row[name] for name in ("ci_low", "ci_high"))
    # Enough digits to show on which side of 0 each end lies.
    interval = format_interval(low, high, choose_decimals([high - low]), sign=False)
    unit_text = f" {sizes.plural_unit}" if sizes.plural_unit else ""
    ci_text, tail_text = format_percentage(question.ci_prob), format_percentage((1 - question.ci_prob) / 2)
    return (
        f"The {ci_text} interval, {interval}{unit_text}, holds 0 all the same: the probability counts one side of 0, "
        f"and the interval leaves out {tail_text} on each side."
    )


_INTERVAL_COLUMNS = ("p_positive", "p_negative", "ci_low", "ci_high")


def write_borrowing_reason(pooling_factor: float, decision: Decision, together: str) -> str:
    """Write that a segment's estimate is mostly borrowed, what the rule would say of it, and what it says of all.

    Parameters
    ----------
    pooling_factor : float
    decision : str
        By the rule alone.
    together : str
        Sentence on the average over all segments.
    """
    # What the pooled posterior says is told too: it is the best guess, and no ground to act on this segment alone.
    would_be = "" if decision == "undecided" else f" The rule alone would say {decision}."
    share_text = format_share(pooling_factor).replace(NBSP, " ")
    return (
        f"{share_text} of this estimate is borrowed from the other segments, so the segment is not called on its own."
        f"{would_be} {together}"
    )


def write_cost_reason(expected_gain: float, rule: Rule, sizes: SizeFormat) -> str:
    """Write that shipping costs more than it brings."""
    if rule.value is None:
        return (
            f"It costs {sizes.format_size(rule.cost)} per treated unit, which is "
            f"{sizes.format_size(-expected_gain)} more than it brings on average."
        )
    return f"It costs {rule.cost:.4g} per treated unit, in money, which is {-expected_gain:.4g} more than it brings."


def write_gain_note(expected_gain: float, expected_loss: float, rule: Rule, sizes: SizeFormat) -> str:
    """Write what shipping gains per treated unit on average, and its expected loss in the same digits."""
    factor = sizes.display_factor if rule.value is None else 1.0
    unit = sizes.plural_unit if rule.value is None else "in money"
    # Three digits of the gain mean something; the loss is read against it.
    decimals = choose_decimals([abs(factor * expected_gain) / 10])
    gain_text = format_number(factor * expected_gain, decimals, sign=False)
    loss_text = format_number(factor * expected_loss, decimals, sign=False)
    unit_text = f" {unit}" if unit else ""
    gain_sentence = f"Shipping gains {gain_text}{unit_text} per treated unit on average"
    # No draw loses anything: a number after that would be rounding.
    if expected_loss == 0:
        return f"{gain_sentence}."
    if float(loss_text.replace(",", "")) == 0:
        loss_text = f"less than {10.0**-decimals:.{decimals}f}"
    return f"{gain_sentence}; the chance that it loses costs {loss_text} of that."


def write_arm_note(arm: str, best_probability: float, arm_count: int, measure: str = "") -> str:
    """Write how probably an arm is the best of all, control included; by which metric, where there are several."""
    measure_text = f" by {shorten_text(measure)!r}" if measure else ""
    return (
        f"Of {arm_count} arms and the control, {shorten_text(arm)!r} is the best{measure_text} with probability "
        f"{write_probability(best_probability)}."
    )


def write_rule_sentence(rule: Rule, sizes: SizeFormat) -> str:
    """Write a rule in a sentence: what must hold, and how probably, before anything is called.

    Examples
    --------
    >>> write_rule_sentence(Rule(matters=0.5), SizeFormat(1.0, "euro", "euros")).partition(", equivalent")[0]
    'Ship where the benefit is above 0 (P ≥ 95 %) and above 0.5 euros (P ≥ 50 %), stop where it is below 0 (P ≥ 95 %)'
    """
    size = get_size_that_matters(rule)
    ship = [(f"above {sizes.format_size(resolve_threshold(each.above, size))}", each.p) for each in rule.ship]
    stop = [(f"below {sizes.format_size(resolve_threshold(each.below, size))}", each.p) for each in rule.stop]
    parts = [f"Ship where the benefit is {_list_needs(ship)}", f"stop where it is {_list_needs(stop)}"]
    if rule.equivalent is not None:
        within = sizes.format_size(resolve_threshold(rule.equivalent.within, size))
        parts.append(f"equivalent where the effect is within {_list_needs([(f'±{within}', rule.equivalent.p)])}")
    return f"{', '.join(parts)}; all else is undecided."


def _list_needs(conditions: Sequence[tuple[str, float]]) -> str:
    return " and ".join(f"{text} (P ≥ {format_percentage(needed)})" for text, needed in conditions)
