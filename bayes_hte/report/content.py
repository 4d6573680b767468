"""From a fit to everything the page says, as plain values: the template computes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr
from markupsafe import Markup

from bayes_hte import schema, summary, views
from bayes_hte.diagnose import Diagnosis
from bayes_hte.effects import cells_of, family_of, is_own, model_of
from bayes_hte.errors import DataError, ModelError
from bayes_hte.plot.text import clean, count, shorten
from bayes_hte.report import answer, background, dimensions, priors
from bayes_hte.report.answer import CALL, CALLED, Case, Overall
from bayes_hte.report.figures import Sheet
from bayes_hte.report.notation import listing, measure, name, p_is, percent, probability
from bayes_hte.report.tables import Quantity, Row, effect_head, quantities, segment_rows, tested
from bayes_hte.spec import Plan
from bayes_hte.spec.model import Pooling
from bayes_hte.summary import Question
from bayes_hte.views import Tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from bayes_hte.report.background import Background
    from bayes_hte.report.dimensions import Level
    from bayes_hte.report.priors import Priors


@dataclass(frozen=True, slots=True)
class Arm:
    """Everything the page says of one arm."""

    title: str
    average: str
    segments: str
    notes: list[str]
    forest_wide: Markup
    forest_narrow: Markup
    shrinkage: Markup | None
    no_shrinkage: str
    rows: list[Row]
    quantities: list[Quantity]
    levels: "list[Level]"
    drivers: str
    effect_head: str
    interval_head: str
    centre: str
    new_segment: str


@dataclass(frozen=True, slots=True)
class Report:
    """The whole page.

    Attributes
    ----------
    title, question : str
        As the plan states them, or made from the names.
    status : str
        Whether the segments were declared before the test.
    facts : list of pairs
        What was compared, under the title.
    verdict : Diagnosis
    trust : list of str
        The diagnosis as sentences.
    arms : list of Arm
    dimensions, heads : list of str
        Columns of the segment table.
    footnotes : list of str
        Under the segment table.
    pooling : str
        What the shrinkage plot shows under this model.
    background : Background
        Assumptions, data, reproduction, glossary.
    priors : Priors
        Whether they matter.
    figure_css : Markup
        Styles of all figures.
    """

    title: str
    question: str
    status: str
    facts: list[tuple[str, str]]
    verdict: Diagnosis
    trust: list[str]
    arms: list[Arm]
    dimensions: list[str]
    footnotes: list[str]
    pooling: str
    background: "Background"
    priors: "Priors"
    figure_css: Markup


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What the page is made from, the same for every arm."""

    tree: xr.DataTree
    plan: Plan | None
    tables: Tables
    new_segment: dict[str, dict[str, Any]] | str
    sheet: Sheet


def collect(
    tree: xr.DataTree, question: Question, diagnosis: Diagnosis, plan: Plan | None, tables: Tables | None = None
) -> Report:
    """Compute the whole page; `tables` where they are known already."""
    tables = tables or views.tables(tree, question)
    cells, sheet = cells_of(tree), Sheet()
    material = Material(tree, plan, tables, _new_segments(tree, question), sheet)
    arms = [_arm(case, material) for case in cases(tree, question, plan, tables)]
    return Report(
        title=clean(plan.title) if plan is not None else _headline(cells),
        question=clean(plan.question) if plan is not None else "",
        status=background.status(plan),
        facts=_facts(cells, question),
        verdict=diagnosis,
        trust=background.trust(diagnosis),
        arms=arms,
        dimensions=[shorten(dimension) for dimension in schema.dimensions(cells)],
        footnotes=_footnotes(question, pooled=bool(tables.segments["pooling"].notna().any())),
        pooling=background.POOLING[_told(tree)],
        background=background.collect(tree, plan),
        priors=priors.collect(tree, question),
        figure_css=sheet.css(),
    )


def cases(tree: xr.DataTree, question: Question, plan: Plan | None, tables: Tables | None = None) -> list[Case]:
    """What is known of every arm, from the tables of `bayes_hte.summary`."""
    cells, family = cells_of(tree), family_of(tree)
    tables = tables or views.tables(tree, question)
    table, spread = tables.segments, tables.spread
    labels = [str(label) for label in cells[schema.SEGMENT].values]
    distinct, overall = _distinct(tree, question, cells), _overall(tree, question, tables, _unit(plan))
    found = []
    for average in _records(tables.average):
        arm = str(average["arm"])
        rows, own = table[table["arm"] == arm], tested(cells, arm)
        widths = [*(rows["ci_high"] - rows["ci_low"]), average["ci_high"] - average["ci_low"]]
        case = Case(
            arm=arm,
            control=str(cells.attrs["control"]),
            outcome=_outcome(cells),
            segments=answer.read(rows, labels, own, question),
            ate=average,
            spread={row["quantity"]: row for row in _records(spread[spread["arm"] == arm])},
            distinct=tuple(
                label for label, there in zip(labels, own, strict=True) if there and (arm, label) in distinct
            ),
            pooling=_told(tree),
            question=question,
            measure=measure(family, question.scale, _unit(plan), widths),
            overall=overall.get(arm),
        )
        found.append(case)
    return found


def _outcome(cells: xr.Dataset) -> str:
    """What was measured; of survival, until when."""
    outcome = str(cells.attrs["outcome"])
    return f"{outcome} within {cells.attrs['horizon']:.4g}" if "horizon" in cells.attrs else outcome


def _overall(tree: xr.DataTree, question: Question, tables: Tables, unit: str) -> dict[str, Overall]:
    """The absolute average effect of every arm, where another scale is reported that has one."""
    family = family_of(tree)
    same = question.scale == "absolute" or (question.scale == "link" and family.link == "identity")
    if same or not family.has_baseline or is_own(tree):
        return {}
    found = {}
    reported = {str(row["arm"]): row["effect"] for row in _records(tables.average)}
    for row in _records(summary.ate(tree, Question("absolute", question.ci_prob))):
        written = measure(family, "absolute", unit, [row["ci_high"] - row["ci_low"]])
        sign, chance = ("above", row["p_positive"]) if row["effect"] > 0 else ("below", row["p_negative"])
        found[str(row["arm"])] = Overall(
            words=f"{written.signed(row['effect'])}{written.words}",
            surely=f"{sign} zero with {p_is(chance)}",
            opposite=bool(row["effect"] * reported[str(row["arm"])] < 0),
        )
    return found


def _distinct(tree: xr.DataTree, question: Question, cells: xr.Dataset) -> set[tuple[str, str]]:
    """Arm and segment where the effect clearly differs from the average."""
    if cells.sizes[schema.SEGMENT] < 2:
        return set()
    rows = summary.contrasts(tree, question, "ate")
    clear = rows[(rows["p_positive"] > CALL) | (rows["p_negative"] > CALL)]
    return set(zip(clear["arm"].astype(str), clear["segment"].astype(str), strict=True))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _unit(plan: Plan | None) -> str:
    return "" if plan is None else plan.report.unit


def _arm(case: Case, material: Material) -> Arm:
    cells, family = cells_of(material.tree), family_of(material.tree)
    wide, narrow = _forests(case, material)
    shrinkage, reason = _shrinkage(case, material)
    return Arm(
        title=f"{name(case.arm)} against {name(case.control)}" if case.control else name(case.arm),
        average=answer.average_sentence(case),
        segments=answer.segments_sentence(case),
        notes=answer.notes(case),
        forest_wide=wide,
        forest_narrow=narrow,
        shrinkage=shrinkage,
        no_shrinkage=reason,
        rows=segment_rows(case, schema.dimensions(cells), units="n" in cells),
        quantities=quantities(case, family, _unit(material.plan)),
        levels=dimensions.levels(material.tree, case),
        drivers=dimensions.drivers(material.tree, case.arm, case.question),
        effect_head=effect_head(case),
        interval_head=f"{percent(case.question.ci_prob)} interval",
        centre=background.centre(case, family, units="n" in cells),
        new_segment=_new_segment(case, material),
    )


def _forests(case: Case, material: Material) -> tuple[Markup, Markup]:
    largest = max(case.segments, key=lambda segment: segment.row["effect"])
    smallest = min(case.segments, key=lambda segment: segment.row["effect"])
    described = (
        f"Forest plot of the effect of {name(case.arm)} on {name(case.outcome)} in {len(case.segments)} segments, "
        f"from {case.measure.signed(smallest.row['effect'])} ({name(smallest.label)}) "
        f"to {case.measure.signed(largest.row['effect'])} ({name(largest.label)}); "
        f"the average is {case.measure.signed(case.ate['effect'])}. All numbers are in the table that follows."
    )
    drawn = [
        material.sheet.add(_figure(views.forest, case, material, layout=layout), described)
        for layout in ("wide", "narrow")
    ]
    return drawn[0], drawn[1]


def _figure(
    view: Callable[..., "Figure | SubFigure"], case: Case, material: Material, **options: Any
) -> "Figure | SubFigure":
    """One arm's figure, from the tables that the page has."""
    return view(material.tree, case.question, material.plan, arm=case.arm, found=material.tables, **options)


def _shrinkage(case: Case, material: Material) -> tuple[Markup | None, str]:
    """The figure, or the reason why there is none."""
    try:
        figure = _figure(views.shrinkage, case, material)
    except DataError as nothing:
        return None, f"There is no such figure: {nothing}."
    described = (
        f"Arrows from the raw to the pooled effect of {name(case.arm)} in each segment, against its size. "
        "Small segments move furthest toward the average."
    )
    return material.sheet.add(figure, described), ""


def _new_segments(tree: xr.DataTree, question: Question) -> dict[str, dict[str, Any]] | str:
    """What to expect in a new segment, by arm; or why that cannot be said."""
    if model_of(tree).pooling == "none" and is_own(tree):
        return "What to expect in a segment that was not in the test is a question to your own model."
    if model_of(tree).pooling == "none":
        return "Without pooling, the segments say nothing about one that was not in the test."
    try:
        rows = _records(summary.predict_new_segment(tree, question, seed=int(tree.attrs["seed"])))
    except (DataError, ModelError):
        return "What to expect in a segment that was not in the test depends on where it stands in the model."
    return {str(row["arm"]): row for row in rows}


def _new_segment(case: Case, material: Material) -> str:
    if isinstance(material.new_segment, str):
        return material.new_segment
    row, measure_ = material.new_segment[case.arm], case.measure
    return (
        f"In a segment that was not in the test, expect {measure_.signed(row['effect'])}{measure_.words} "
        f"({percent(case.question.ci_prob)} interval {measure_.interval(row['ci_low'], row['ci_high'], sign=True)}); "
        f"probability of being above zero {probability(row['p_positive'])}."
    )


def _headline(cells: xr.Dataset) -> str:
    arms, outcome = listing(schema.treated_arms(cells)), name(_outcome(cells))
    control = str(cells.attrs["control"])
    if control:
        return f"{outcome}: {arms} against {name(control)}"
    return f"Effect of {arms}" if outcome == "effect" else f"Effect of {arms} on {outcome}"


def _facts(cells: xr.Dataset, question: Question) -> list[tuple[str, str]]:
    control = str(cells.attrs["control"])
    arms = listing(schema.treated_arms(cells))
    better = "higher" if question.higher_is_better else "lower"
    facts = [
        ("Compared", f"{arms} against {name(control)}") if control else ("Arm", arms),
        ("Outcome", f"{name(_outcome(cells))} ({better} is better)"),
        ("Segments", f"{cells.sizes[schema.SEGMENT]:,} by {listing(schema.dimensions(cells))}"),
    ]
    if "n" in cells:
        facts.append(("Units", count(float(cells["n"].sum()))))
    return facts


def _told(tree: xr.DataTree) -> Pooling:
    """How a model pools; one that is not known is taken to, because its effects are read from joint draws."""
    return "partial" if is_own(tree) else model_of(tree).pooling


def _footnotes(question: Question, *, pooled: bool) -> list[str]:
    """What the columns of the segment table mean, of those that are there."""
    found = [
        f"“Helps” and “harms” need {CALLED}; anything less is “not known”, however large the effect looks.",
        "“Raw” is the segment on its own, with its standard error; “effect” is the model’s, and the number to use.",
    ]
    if pooled:
        found.append(
            f"“Pooling” is the share of the estimate borrowed from the other segments: above {answer.BORROWED:g} the "
            "segment was hardly tested on its own."
        )
    if question.rope is not None:
        found.append("“Too small”, “benefit” and “harm” are relative to the smallest effect that matters.")
    return found
