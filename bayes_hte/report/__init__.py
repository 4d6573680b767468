"""The report: one HTML file that needs nothing else, for people who will never open a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import jinja2
import xarray as xr
from markupsafe import Markup

from bayes_hte._support.phrases import clean_text, shorten_text
from bayes_hte.criticism.diagnostics import Diagnosis
from bayes_hte.estimands.result_tables import ResultTables
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.report.answer.decisions import DECISION_TONES
from bayes_hte.report.figures import FigureStyles, name_page_colors
from bayes_hte.report.page import ReportPage, collect_page
from bayes_hte.spec import Plan

__all__ = ["AnsweredQuestion", "render", "render_several"]


def render(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    diagnosis: Diagnosis,
    plan: Plan | None,
    result_tables: ResultTables | None = None,
) -> str:
    """Render the whole report as one self-contained HTML page.

    Parameters
    ----------
    fit_tree : xarray.DataTree
        A fit's posterior.
    question : EffectQuestion
        Scale, interval, smallest effect that matters.
    diagnosis : Diagnosis
        Whether the draws can be trusted; a failure is the first line of the page.
    plan : Plan or None
        Title, question, unit, and what it says of when the segments were chosen.
    result_tables : ResultTables, optional
        Tables of this fit for this question, where they are computed already.

    Returns
    -------
    str
        HTML with inline styles and figures: no scripts, no requests, and a policy that forbids both.

    Raises
    ------
    ModelError
        If the scale needs a control mean that the family does not have.

    Notes
    -----
    Names come from data and are treated as hostile: the template escapes every text; only the figures, which
    `bayes_hte.plot.svg` has escaped, and the package's own style sheet enter as markup.
    """
    report_page = collect_page(fit_tree, question, diagnosis, plan, result_tables)
    return _fill_template("page.html.j2", report_page.figure_css, {"report": report_page})


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """One question of a plan, as the report of several takes it.

    Attributes
    ----------
    metric_name, breakdown_name, role : str
    is_registered : bool
    fit_tree : xarray.DataTree or None
        None where the question has no fit.
    question, diagnosis, plan
        As `render` takes them.
    failure : str
        Why there is no fit.
    """

    metric_name: str
    breakdown_name: str
    role: str
    is_registered: bool
    fit_tree: xr.DataTree | None = None
    question: EffectQuestion | None = None
    diagnosis: Diagnosis | None = None
    plan: Plan | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class JointDecision:
    """What is decided for one segment and arm of a breakdown, over all metrics."""

    breakdown_name: str
    segment_name: str
    arm_name: str
    decision: str
    reason: str
    tone: str


@dataclass(frozen=True, slots=True)
class QuestionSection:
    """One question on the page: what the index says of it, and its own sections."""

    section_id: str
    metric_name: str
    breakdown_name: str
    role: str
    status: str
    page: ReportPage | None
    failure: str


def render_several(
    plan: Plan,
    answers: Sequence[AnsweredQuestion],
    notes: Sequence[str] = (),
    decisions: Sequence[Mapping[str, str]] = (),
) -> str:
    """Render the report of several questions as one self-contained HTML page: an index, and everything of each fit.

    Parameters
    ----------
    plan : Plan
        With all questions.
    answers : sequence of AnsweredQuestion
        In the order of the page.
    notes : sequence of str
        What is to be said of all of them, as sentences.
    decisions : sequence of mapping
        breakdown, segment, arm, decision and why of every segment and arm, where the plan has a rule.

    Returns
    -------
    str
        HTML, as of `render`; a fit's sections open where they are asked for, without a script.
    """
    # One sheet for all figures: their styles are mostly the same.
    figure_styles = FigureStyles()
    sections = [
        QuestionSection(
            section_id=f"question{i}",
            metric_name=shorten_text(answer.metric_name),
            breakdown_name=shorten_text(answer.breakdown_name),
            role=answer.role,
            status="registered" if answer.is_registered else "exploratory",
            page=_collect_answer(answer, figure_styles),
            failure=clean_text(answer.failure),
        )
        for i, answer in enumerate(answers, start=1)
    ]
    content = {
        "title": clean_text(plan.title),
        "plan_question": clean_text(plan.question),
        "notes": list(map(clean_text, notes)),
        "sections": sections,
        "decision_rows": list(map(_read_decision, decisions)),
        "is_reliable": all(section.page is not None and section.page.diagnosis.ok for section in sections),
    }
    return _fill_template("several.html.j2", figure_styles.write_css(), content)


def _read_decision(decision: Mapping[str, str]) -> JointDecision:
    return JointDecision(
        breakdown_name=shorten_text(decision["breakdown"]),
        segment_name=shorten_text(decision["segment"]),
        arm_name=shorten_text(decision["arm"]),
        decision=decision["decision"],
        reason=clean_text(decision["why"]),
        tone=DECISION_TONES.get(decision["decision"], "open"),
    )


def _collect_answer(answer: AnsweredQuestion, figure_styles: FigureStyles) -> ReportPage | None:
    if answer.fit_tree is None or answer.question is None or answer.diagnosis is None:
        return None
    page = collect_page(answer.fit_tree, answer.question, answer.diagnosis, answer.plan, figure_styles=figure_styles)
    # What one metric alone decides stands in the way of what all decide together.
    return replace(page, decisions=None)


def _fill_template(template_name: str, figure_css: Markup, content: dict[str, Any]) -> str:
    template_files = files("bayes_hte.report") / "template"
    # A name that the template misspells is an error, not an empty place on the page.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (template_files / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page_css = (template_files / "style.css").read_text(encoding="utf-8")
    page_text = environment.get_template(template_name).render(
        style=Markup(page_css),  # noqa: S704 - a file of this package
        figure_style=name_page_colors(figure_css, page_css),
        **content,
    )
    return page_text.lstrip()
