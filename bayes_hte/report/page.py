"""From a fit to everything the page says, as plain values: the template computes nothing."""

from dataclasses import dataclass
from typing import Any

import xarray as xr
from markupsafe import Markup

from bayes_hte._support.phrases import clean_text, format_percent_probability, shorten_text
from bayes_hte.criticism.diagnostics import Diagnosis
from bayes_hte.criticism.question_doubts import list_answer_doubts, list_question_doubts
from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.decisions.verdicts import VerdictRule, choose_verdict_rule
from bayes_hte.errors import ArgumentError, DataError, ModelError
from bayes_hte.estimands import tables
from bayes_hte.estimands.effects import get_fitted_family
from bayes_hte.estimands.result_tables import ResultTables, compute_result_tables, hold_common_results
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.plot.from_fit import plot_shrinkage
from bayes_hte.report import background, dimensions, prior_notes
from bayes_hte.report.answer import notes, sentences
from bayes_hte.report.answer.decisions import DecisionSection, build_decision_section
from bayes_hte.report.answer.policy import write_policy_sentences
from bayes_hte.report.arm_results import (
    ArmResult,
    collect_arm_results,
    describe_outcome,
    get_outcome_unit,
    get_pooling,
    list_records,
)
from bayes_hte.report.background import Background
from bayes_hte.report.dimensions import LevelRow
from bayes_hte.report.figures import FigureStyles
from bayes_hte.report.forest_table import ForestTable, build_forest_table
from bayes_hte.report.notation import format_interval_probability, isolate_name, join_names
from bayes_hte.report.prior_notes import PriorNotes
from bayes_hte.report.segment_table import (
    MAX_DETAILED_SEGMENTS,
    QuantityRow,
    SegmentRow,
    build_quantity_rows,
    build_segment_rows,
    write_effect_heading,
)
from bayes_hte.spec import Plan, cell_table
from bayes_hte.spec.fit_tree import (
    get_fitted_cells,
    get_fitted_model,
    get_registration,
    get_seed,
    is_from_posterior,
)


@dataclass(frozen=True, slots=True)
class ArmSection:
    """Texts, figures and tables of one arm, in the order of the page."""

    title: str
    average_sentence: str
    segments_sentence: str
    answer_notes: list[str]
    forest: ForestTable
    shrinkage_figures: tuple[Markup, Markup] | None
    no_shrinkage_reason: str
    segment_rows: list[SegmentRow]
    has_long_list: bool
    quantity_rows: list[QuantityRow]
    level_rows: list[LevelRow]
    drivers_sentence: str
    effect_heading: str
    interval_heading: str
    averages_text: str
    new_segment_sentence: str


@dataclass(frozen=True, slots=True)
class ReportPage:
    """Content of the whole page.

    Attributes
    ----------
    title, plan_question : str
        As the plan states them; the title else from the names, the question else "".
    status_sentence : str
        Whether what was asked was registered before the test.
    comparison_facts : list of pairs
        What was compared, under the title.
    diagnosis : Diagnosis
    diagnosis_sentences : list of str
        Verdict, problems and numbers of the diagnosis.
    arm_sections : list of ArmSection
    dimension_names : list of str
        First columns of the segment table.
    table_footnotes : list of str
        Under the segment table.
    decisions : DecisionSection or None
        What the plan's rule decides, if it has one.
    pooling_sentence : str
        What the shrinkage plot shows under this model.
    background : Background
        Assumptions, data, reproduction, glossary.
    prior_notes : PriorNotes
        Whether the priors matter.
    policy_sentences : list of str
        What policies are worth; empty where no rule is stated.
    figure_css : Markup
        Styles of all figures.
    """

    title: str
    plan_question: str
    status_sentence: str
    comparison_facts: list[tuple[str, str]]
    diagnosis: Diagnosis
    diagnosis_sentences: list[str]
    arm_sections: list[ArmSection]
    dimension_names: list[str]
    table_footnotes: list[str]
    decisions: DecisionSection | None
    pooling_sentence: str
    background: Background
    prior_notes: PriorNotes
    policy_sentences: list[str]
    figure_css: Markup


@dataclass(frozen=True, slots=True, eq=False)
class PageMaterial:
    """Material of the page that is the same for every arm; `new_segment_rows` by arm, or why there are none."""

    fit_tree: xr.DataTree
    plan: Plan | None
    result_tables: ResultTables
    new_segment_rows: dict[str, dict[str, Any]] | str
    style_sheet: FigureStyles


def collect_page(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    diagnosis: Diagnosis,
    plan: Plan | None,
    result_tables: ResultTables | None = None,
    *,
    figure_styles: FigureStyles | None = None,
) -> ReportPage:
    """Collect the content of the whole page; tables that are given are not computed again.

    Pages that become one share `figure_styles`: their figures then have different ids.
    """
    fit_tree = hold_common_results(fit_tree, question)
    result_tables = result_tables or compute_result_tables(fit_tree, question)
    cells, figure_styles = get_fitted_cells(fit_tree), figure_styles or FigureStyles()
    is_known = is_direction_known(fit_tree, question)
    page_material = PageMaterial(
        fit_tree, plan, result_tables, _predict_new_segments(fit_tree, question), figure_styles
    )
    arm_sections = [
        _build_arm_section(arm_result, page_material)
        for arm_result in collect_arm_results(fit_tree, question, plan, result_tables)
    ]
    return ReportPage(
        title=clean_text(plan.title) if plan is not None else _write_title(cells),
        plan_question=clean_text(plan.question) if plan is not None else "",
        status_sentence=clean_text(get_registration(fit_tree).describe()),
        comparison_facts=_list_comparison_facts(cells, question, direction_is_known=is_known),
        diagnosis=diagnosis,
        diagnosis_sentences=background.describe_diagnosis(diagnosis),
        arm_sections=arm_sections,
        dimension_names=[shorten_text(dimension) for dimension in cell_table.list_dimensions(cells)],
        table_footnotes=[
            *background.explain_sizes(cells),
            *_write_footnotes(
                question,
                choose_verdict_rule(plan, question.ci_prob),
                direction_is_known=is_known,
                has_pooling_factor=bool(result_tables.segment_table["pooling"].notna().any()),
            ),
        ],
        decisions=build_decision_section(fit_tree, question, plan),
        # "What pooling did" is another sentence under each kind of pooling.
        pooling_sentence=background.POOLING_SENTENCES[get_pooling(fit_tree)],
        background=background.collect_background(fit_tree, plan),
        prior_notes=prior_notes.collect_prior_notes(fit_tree, question),
        policy_sentences=write_policy_sentences(fit_tree, question, plan),
        figure_css=figure_styles.write_css(),
    )


def _build_arm_section(arm_result: ArmResult, page_material: PageMaterial) -> ArmSection:
    cells, family = get_fitted_cells(page_material.fit_tree), get_fitted_family(page_material.fit_tree)
    shrinkage_figures, no_shrinkage_reason = _draw_shrinkage(arm_result, page_material)
    arm_name, control_name = isolate_name(arm_result.arm), isolate_name(arm_result.control)
    return ArmSection(
        title=f"{arm_name} against {control_name}" if arm_result.control else arm_name,
        average_sentence=sentences.write_average_sentence(arm_result),
        segments_sentence=sentences.write_segments_sentence(arm_result),
        answer_notes=[*_question_answer(arm_result, page_material), *notes.write_notes(arm_result)],
        forest=build_forest_table(page_material.fit_tree, arm_result, page_material.plan, page_material.result_tables),
        shrinkage_figures=shrinkage_figures,
        no_shrinkage_reason=no_shrinkage_reason,
        has_long_list=len(arm_result.readings) > MAX_DETAILED_SEGMENTS,
        segment_rows=build_segment_rows(arm_result, cell_table.list_dimensions(cells), has_unit_counts="n" in cells),
        quantity_rows=build_quantity_rows(arm_result, family, get_outcome_unit(page_material.plan)),
        level_rows=dimensions.build_level_rows(page_material.fit_tree, arm_result),
        drivers_sentence=dimensions.write_drivers_sentence(page_material.fit_tree, arm_result.arm, arm_result.question),
        effect_heading=write_effect_heading(arm_result),
        interval_heading=f"{format_interval_probability(arm_result.question.ci_prob)} interval",
        averages_text=background.explain_averages(
            arm_result, family, has_unit_counts=cell_table.get_cell_sizes(cells) is not None
        ),
        new_segment_sentence=_write_new_segment_sentence(arm_result, page_material),
    )


def _question_answer(arm_result: ArmResult, page_material: PageMaterial) -> list[str]:
    """Write what is doubtful about the question and about the answer that it got."""
    cells, model = get_fitted_cells(page_material.fit_tree), get_fitted_model(page_material.fit_tree)
    doubts = list_question_doubts(arm_result.question, cells, model)
    if not doubts:  # a smallest effect in other units is wider than every interval: that is said once
        labels = [reading.segment_label for reading in arm_result.readings]
        rows = [reading.table_row for reading in arm_result.readings]
        doubts = list_answer_doubts(rows, labels, arm_result.question)
    return [
        clean_text(f"{doubt[:1].upper()}{doubt[1:].rstrip('.')}{'' if doubt.endswith('?') else '.'}")
        for doubt in doubts
    ]


def _draw_shrinkage(arm_result: ArmResult, page_material: PageMaterial) -> tuple[tuple[Markup, Markup] | None, str]:
    """Draw the shrinkage plot for desktop and for a phone, or give the reason why there is none."""
    try:
        figures = [
            plot_shrinkage(
                page_material.fit_tree,
                arm_result.question,
                page_material.plan,
                arm=arm_result.arm,
                result_tables=page_material.result_tables,
                layout=layout,
            )
            for layout in ("wide", "narrow")
        ]
    except DataError as nothing:
        return None, f"There is no such figure: {nothing}."
    figure_description = (
        f"Arrows from the raw to the pooled effect of {isolate_name(arm_result.arm)} in each segment, against its "
        "size. Small segments move furthest toward the average."
    )
    wide_figure, narrow_figure = (
        page_material.style_sheet.add_figure(figure, figure_description) for figure in figures
    )
    return (wide_figure, narrow_figure), ""


def _predict_new_segments(fit_tree: xr.DataTree, question: EffectQuestion) -> dict[str, dict[str, Any]] | str:
    """Predict the effect in a new segment, by arm; or give the reason why it cannot be predicted."""
    if get_fitted_model(fit_tree).pooling == "none" and is_from_posterior(fit_tree):
        return "What to expect in a segment that was not in the test is a question to your own model."
    if get_fitted_model(fit_tree).pooling == "none":
        return "Without pooling, the segments say nothing about one that was not in the test."
    # A model may have no answer for a segment that has no place in it: the page says so, and does not fail.
    try:
        prediction_rows = list_records(tables.tabulate_new_segment(fit_tree, question, seed=get_seed(fit_tree)))
    except (ArgumentError, DataError, ModelError):
        return "What to expect in a segment that was not in the test depends on where it stands in the model."
    return {str(row["arm"]): row for row in prediction_rows}


def _write_new_segment_sentence(arm_result: ArmResult, page_material: PageMaterial) -> str:
    if isinstance(page_material.new_segment_rows, str):
        return page_material.new_segment_rows
    prediction_row, effect_format = page_material.new_segment_rows[arm_result.arm], arm_result.effect_format
    effect_text = f"{effect_format.format_signed(prediction_row['effect'])}{effect_format.unit_phrase}"
    interval_text = effect_format.format_interval(prediction_row["ci_low"], prediction_row["ci_high"], with_sign=True)
    if not prediction_row["reliable"]:
        return (
            f"In a segment that was not in the test the effect may be anywhere from {interval_text} "
            f"({format_interval_probability(arm_result.question.ci_prob)} interval): its average is not known."
        )
    return (
        f"In a segment that was not in the test, expect {effect_text} "
        f"({format_interval_probability(arm_result.question.ci_prob)} interval {interval_text}); "
        f"probability of being above zero {format_percent_probability(prediction_row['p_positive'])}."
    )


def _write_title(cells: xr.Dataset) -> str:
    arms_phrase, outcome_name = join_names(cell_table.list_treated_arms(cells)), isolate_name(describe_outcome(cells))
    control_name = str(cells.attrs["control"])
    if control_name:
        return f"{outcome_name}: {arms_phrase} against {isolate_name(control_name)}"
    return f"Effect of {arms_phrase}" if outcome_name == "effect" else f"Effect of {arms_phrase} on {outcome_name}"


def _list_comparison_facts(
    cells: xr.Dataset, question: EffectQuestion, *, direction_is_known: bool
) -> list[tuple[str, str]]:
    control_name = str(cells.attrs["control"])
    arms_phrase = join_names(cell_table.list_treated_arms(cells))
    better_direction = "higher" if question.higher_is_better else "lower"
    direction_phrase = (
        f"{better_direction} is better" if direction_is_known else "nobody has said whether higher or lower is better"
    )
    comparison_facts = [
        ("Compared", f"{arms_phrase} against {isolate_name(control_name)}") if control_name else ("Arm", arms_phrase),
        ("Outcome", f"{isolate_name(describe_outcome(cells))} ({direction_phrase})"),
        ("Segments", f"{cells.sizes[cell_table.SEGMENT]:,} by {join_names(cell_table.list_dimensions(cells))}"),
    ]
    return [*comparison_facts, *background.count_units(cells)]


def _write_footnotes(
    question: EffectQuestion, rule: VerdictRule, *, direction_is_known: bool, has_pooling_factor: bool
) -> list[str]:
    """Write what the readings and the columns of the segment table mean, of those that it has."""
    better, worse, sign_better, sign_worse = (
        ("Helps", "harms", "Better", "worse") if direction_is_known else ("Raises", "lowers", "Above 0", "below 0")
    )
    criterion = sentences.write_call_criterion(rule)
    if question.rope is None:
        footnotes = [
            f"“{better}” and “{worse}” need {criterion}; anything less is “not known”, however large the effect looks."
        ]
    else:
        footnotes = [
            f"“{better}” and “{worse}” need {criterion} that the effect is on that side of 0 and larger than the "
            f"smallest effect that matters; “too small” needs it of the opposite. “{sign_better}” and “{sign_worse}” "
            "need it of the side alone: the effect may be too small to matter. Anything less is “not known”.",
            "The three probabilities P(too small), "
            f"{'P(benefit) and P(harm)' if direction_is_known else 'P(raises) and P(lowers)'} add up to 100 %.",
        ]
    footnotes.append(
        "“Raw” is the segment on its own, with its standard error; “effect” is the model’s, and the number to use."
    )
    if has_pooling_factor:
        footnotes.append(
            "“Pooling” is the share of the estimate borrowed from the other segments: above "
            f"{rule.max_pooling:g} the segment was hardly tested on its own."
        )
    return footnotes
