"""Restate in words what a plan asks, before anything is computed: a wrong direction or scale is cheap to mend then."""

import xarray as xr

from bayes_hte._support.phrases import format_count, shorten_text
from bayes_hte.decisions.rules.evidence import choose_rule
from bayes_hte.decisions.rules.reasons import choose_size_format, write_rule_sentence
from bayes_hte.decisions.verdicts import choose_verdict_rule
from bayes_hte.model.families import FAMILIES, Family
from bayes_hte.spec import Model, Plan, cell_table
from bayes_hte.spec.cell_table import ARM, SEGMENT

MAX_SEGMENTS_NAMED = 8
"""Segments that are named with their sizes; more are counted."""


def restate_question(plan: Plan, model: Model, cells: xr.Dataset) -> dict[str, str]:
    """Restate outcome, direction, scale, smallest effect, arms, segments and model, each in a phrase.

    Parameters
    ----------
    plan : Plan
    model : Model
        The one that the plan names.
    cells : xarray.Dataset
        Cell table, dims (segment, arm).

    Returns
    -------
    dict
        Phrases by what they describe, in the order in which they are read.
    """
    family, control = FAMILIES[model.family], str(cells.attrs["control"])
    unit_counts = _count_units(cells, SEGMENT)
    treated_arms = ", ".join(_name_with_size(arm, unit_counts) for arm in cell_table.list_treated_arms(cells))
    control_phrase = f" against {_name_with_size(control, unit_counts)}" if control else ""
    rule = choose_verdict_rule(plan, plan.report.ci_prob)
    return {
        "outcome": f"'{shorten_text(str(cells.attrs['outcome']))}': {_phrase_direction(plan)}",
        "effect": f"{_phrase_scale(plan, family)}; {_phrase_smallest_effect(plan, family)}",
        "arms": f"{treated_arms}{control_phrase}",
        "segments": _list_segments(cells),
        "model": f"{plan.model}: {model.family} outcomes, {model.pooling} pooling",
        "called": f"what is more probable than {100 * rule.call_prob:.4g} %; intervals of "
        f"{100 * plan.report.ci_prob:.4g} %",
        **({"decided": _phrase_decisions(plan, family)} if plan.decision is not None else {}),
    }


def _phrase_decisions(plan: Plan, family: Family) -> str:
    sizes = choose_size_format(family, plan.report.scale, plan.report.unit)
    rule_sentence = write_rule_sentence(choose_rule(None, plan), sizes)
    return rule_sentence[:1].lower() + rule_sentence[1:].removesuffix(".")


def _phrase_direction(plan: Plan) -> str:
    match plan.report.higher_is_better:
        case True:
            return "higher is better"
        case False:
            return "lower is better"
        case None:
            return "higher is taken as better, as report.higher_is_better is not stated"


def _phrase_scale(plan: Plan, family: Family) -> str:
    match plan.report.scale:
        case "relative":
            return "in percent of the control's mean"
        case "absolute" if family.mean_is_probability:
            return "difference in percentage points"
        case "link" if family.ratio_name:
            return f"log {family.ratio_name}"
        case _:
            return f"difference in {plan.report.unit}" if plan.report.unit else "difference in units of the outcome"


def _phrase_smallest_effect(plan: Plan, family: Family) -> str:
    smallest_effect, report = plan.matters, plan.report
    if smallest_effect is None:
        return "no smallest effect that matters is stated (report.rope)"
    match report.scale:
        case "relative":
            size_text = f"{100 * smallest_effect:.4g} %"
        case "absolute" if family.mean_is_probability:
            size_text = f"{100 * smallest_effect:.4g} percentage point{'s' * (smallest_effect != 0.01)}"
        case _:
            size_text = f"{smallest_effect:.4g} {report.unit}".rstrip()
    return f"smaller than {size_text} is too small to matter"


def _count_units(cells: xr.Dataset, summed_dim: str) -> dict[str, float]:
    """Count the units of every arm, or segment, over the other dim; empty where they are not known."""
    if "n" not in cells:
        return {}
    sums = cells["n"].sum(summed_dim)
    return {str(label): float(count) for label, count in zip(sums[sums.dims[0]].values, sums.values, strict=True)}


def _name_with_size(name: str, unit_counts: dict[str, float]) -> str:
    shown_name = shorten_text(name)
    return f"{shown_name} ({format_count(unit_counts[name])} units)" if name in unit_counts else shown_name


def _list_segments(cells: xr.Dataset) -> str:
    unit_counts = _count_units(cells, ARM)
    labels = [str(label) for label in cells[SEGMENT].values]
    shown_labels = [
        f"{shorten_text(label)} ({format_count(unit_counts[label])})" if label in unit_counts else shorten_text(label)
        for label in labels[:MAX_SEGMENTS_NAMED]
    ]
    hidden_count = len(labels) - len(shown_labels)
    more = f", and {hidden_count:,} more" if hidden_count else ""
    dimension_names = " and ".join(shorten_text(name) for name in cell_table.list_dimensions(cells))
    return f"{len(labels):,} by {dimension_names}: {', '.join(shown_labels)}{more}"
