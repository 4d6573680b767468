"""What the plan's rule decides, segment by segment, with the reason: only of plans that have a rule."""

from dataclasses import dataclass

import xarray as xr

from bayes_hte._support.phrases import clean_text, format_percent_probability, shorten_text
from bayes_hte.decisions.decide import build_context, decide_segments
from bayes_hte.decisions.rules.evidence import choose_rule
from bayes_hte.decisions.rules.reasons import write_rule_sentence
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.report.notation import isolate_name
from bayes_hte.spec import Plan, cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells

# Words that ask for nothing have no colour, as among verdicts.
DECISION_TONES: dict[str, str] = {"ship": "good", "stop": "bad"}
MAX_OPEN_DECISIONS = 40
"""More decisions than these are folded: the answer above must stay on the first screens."""


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One decision of the page: names of segment and arm, the word and its colour, the reason, P(wrong)."""

    segment_name: str
    arm_name: str
    decision: str
    tone: str
    reason: str
    wrong_text: str


@dataclass(frozen=True, slots=True)
class DecisionSection:
    """Decisions of all segments and arms.

    Attributes
    ----------
    rule_sentence : str
    average_sentences : list of str
        What the rule makes of the average over all segments, for each arm.
    rows : list of DecisionRow
    is_folded : bool
        Whether there are so many that the page shows them on request.
    """

    rule_sentence: str
    average_sentences: list[str]
    rows: list[DecisionRow]
    is_folded: bool


def build_decision_section(
    fit_tree: xr.DataTree, question: EffectQuestion, plan: Plan | None
) -> DecisionSection | None:
    """Build the section from the plan's rule; None where the plan has none, or is asked on another scale."""
    if plan is None or plan.decision is None or question.scale != plan.report.scale:
        return None
    # The same rule, tables and sentences as `Fit.decide`: the page only arranges them.
    rule = choose_rule(None, plan)
    decision_table = decide_segments(fit_tree, question, rule)
    average_by_arm: dict[str, str] = decision_table.attrs["all_segments"]
    has_several_arms = len(average_by_arm) > 1
    labels = [str(label) for label in get_fitted_cells(fit_tree)[cell_table.SEGMENT].values]
    # Arms of a segment stand together, segments in the order of the cells.
    rows = [
        DecisionRow(
            segment_name=shorten_text(clean_text(labels[position // len(average_by_arm)])),
            arm_name=isolate_name(str(row["arm"])) if has_several_arms else "",
            decision=row["decision"],
            tone=DECISION_TONES.get(row["decision"], "open"),
            reason=clean_text(row["why"]),
            wrong_text="" if row["decision"] == "undecided" else format_percent_probability(row["p_wrong"]),
        )
        for position, row in enumerate(decision_table.to_dict("records"))
    ]
    return DecisionSection(
        clean_text(write_rule_sentence(rule, build_context(fit_tree, question, rule).sizes)),
        [
            f"{isolate_name(arm)}: {clean_text(sentence)}" if has_several_arms else clean_text(sentence)
            for arm, sentence in average_by_arm.items()
        ],
        rows,
        is_folded=len(rows) > MAX_OPEN_DECISIONS,
    )
