"""Results of one arm, read from the tables with their verdicts: what its sentences and tables are written from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import clean_text
from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.decisions.verdicts import (
    VERDICTS_WITH_SIGN,
    SideProbabilities,
    Verdict,
    VerdictRule,
    choose_verdict_rule,
    find_distinct_segments,
    is_mostly_borrowed,
    judge_effects,
    list_side_probabilities,
    list_tested_rows,
)
from bayes_hte.estimands import tables
from bayes_hte.estimands.effects import get_fitted_family
from bayes_hte.estimands.result_tables import ResultTables, compute_result_tables
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.estimands.weights import describe_average, describe_dependence, describe_population
from bayes_hte.report.notation import EffectFormat, choose_effect_format, state_probability
from bayes_hte.spec import Plan, cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model, is_from_posterior
from bayes_hte.spec.model import PoolingKind


@dataclass(frozen=True, slots=True)
class SegmentReading:
    """Row of one segment in the table of effects, with the verdict that is read from it."""

    segment_label: str
    table_row: dict[str, Any]
    is_tested: bool
    verdict: Verdict

    @property
    def is_called(self) -> bool:
        """Whether the sign is called."""
        return self.verdict in VERDICTS_WITH_SIGN


@dataclass(frozen=True, slots=True)
class MeanOutcomeChange:
    """Change in the mean outcome of all units, where effects are reported on another scale.

    Attributes
    ----------
    change_text : str
        The absolute average effect with its unit.
    sign_text : str
        Which sign it has, and how probable that is.
    is_opposite : bool
        Whether it has the other sign than the average of the segments' effects.
    """

    change_text: str
    sign_text: str
    is_opposite: bool


@dataclass(frozen=True, slots=True)
class ArmResult:
    """Results for one arm, from which its sentences and tables are written.

    Attributes
    ----------
    arm, control, outcome : str
        Names; the control is "" for published estimates.
    readings : tuple of SegmentReading
        One per segment, in the order of the cell table.
    ate_row : dict
        Row of `tables.tabulate_ate`.
    ate_verdict : str
    ate_sides : SideProbabilities
        What the average effect is judged to be, and from which probabilities.
    direction_is_known : bool
        False where nobody has said which direction is better, and it is doubtful.
    heterogeneity : dict
        Rows of `heterogeneity.tabulate_heterogeneity` by the name of the quantity.
    distinct_segments : tuple of str
        Segments whose effect clearly differs from the average.
    pooling : str
    question : EffectQuestion
    rule : VerdictRule
        How probable something must be before it is called.
    effect_format : EffectFormat
    mean_change : MeanOutcomeChange, optional
        Absent on the absolute scale, where the average effect is the change in the mean.
    average_kind, population : str
        What the average effect is, and whose.
    dependence : str
        Why the average is less sure than it looks; "" where segments are independent.
    """

    arm: str
    control: str
    outcome: str
    readings: tuple[SegmentReading, ...]
    ate_row: dict[str, Any]
    ate_verdict: Verdict
    ate_sides: SideProbabilities
    direction_is_known: bool
    heterogeneity: dict[str, dict[str, Any]]
    distinct_segments: tuple[str, ...]
    pooling: PoolingKind
    question: EffectQuestion
    rule: VerdictRule
    effect_format: EffectFormat
    mean_change: MeanOutcomeChange | None = None
    average_kind: str = ""
    population: str = ""
    dependence: str = ""

    def select_labels(self, verdict: Verdict) -> list[str]:
        """Select the labels of the segments with a verdict."""
        return [reading.segment_label for reading in self.readings if reading.verdict == verdict]

    def is_mostly_borrowed(self, reading: SegmentReading) -> bool:
        """Tell whether a segment has data of its own, but its estimate is mostly that of the others."""
        return (
            self.pooling == "partial"
            and reading.is_tested
            and is_mostly_borrowed(reading.table_row["pooling"], self.rule)
        )


def collect_arm_results(
    fit_tree: xr.DataTree, question: EffectQuestion, plan: Plan | None, result_tables: ResultTables | None = None
) -> list[ArmResult]:
    """Collect the results of every arm from the tables of `bayes_hte.estimands.tables`, judged by the plan's rule."""
    family, rule = get_fitted_family(fit_tree), choose_verdict_rule(plan, question.ci_prob)
    result_tables = result_tables or compute_result_tables(fit_tree, question)
    cells, outcome_unit = get_fitted_cells(fit_tree), get_outcome_unit(plan)
    is_known = is_direction_known(fit_tree, question)
    judge = partial(judge_effects, rule=rule, higher_is_better=question.higher_is_better, direction_is_known=is_known)
    readings_by_arm = _read_segments(result_tables.segment_table, cells, judge)
    ate_verdicts = judge(result_tables.ate_table)
    ate_sides = list_side_probabilities(result_tables.ate_table, higher_is_better=question.higher_is_better)
    distinct_pairs = _find_segments_unlike_average(fit_tree, question, rule)
    mean_outcome_changes = _compute_mean_outcome_changes(fit_tree, question, result_tables, outcome_unit)
    heterogeneity_rows = list_records(result_tables.heterogeneity_table)
    arm_results = []
    ate_rows = zip(list_records(result_tables.ate_table), ate_verdicts, ate_sides, strict=True)
    for ate_row, ate_verdict, sides in ate_rows:
        arm = str(ate_row["arm"])
        readings = readings_by_arm[arm]
        # One number of digits for the whole arm: a column of mixed digits is hard to compare.
        interval_widths = [row["ci_high"] - row["ci_low"] for row in (*(r.table_row for r in readings), ate_row)]
        arm_result = ArmResult(
            arm=arm,
            control=str(cells.attrs["control"]),
            outcome=describe_outcome(cells),
            readings=readings,
            ate_row=ate_row,
            ate_verdict=ate_verdict,
            ate_sides=sides,
            direction_is_known=is_known,
            heterogeneity={row["quantity"]: row for row in heterogeneity_rows if str(row["arm"]) == arm},
            # A segment that lacks an arm has no effect of its own that could differ.
            distinct_segments=tuple(
                reading.segment_label
                for reading in readings
                if reading.is_tested and (arm, reading.segment_label) in distinct_pairs
            ),
            pooling=get_pooling(fit_tree),
            question=question,
            rule=rule,
            effect_format=choose_effect_format(family, question.scale, outcome_unit, interval_widths),
            mean_change=mean_outcome_changes.get(arm),
            average_kind=describe_average(fit_tree, question.scale),
            population=clean_text(describe_population(cells)),
            dependence=clean_text(describe_dependence(cells)),
        )
        arm_results.append(arm_result)
    return arm_results


def _read_segments(
    segment_table: pd.DataFrame, cells: xr.Dataset, judge: Callable[..., list[Verdict]]
) -> dict[str, tuple[SegmentReading, ...]]:
    """Read the rows of the table of segments, each with its verdict, by arm and in the order of the cells."""
    tested_rows = list_tested_rows(segment_table, cells)
    verdicts = judge(segment_table, is_tested=tested_rows)
    segment_labels = [str(label) for label in cells[cell_table.SEGMENT].values]
    readings_by_arm: dict[str, list[SegmentReading]] = {}
    for table_row, is_tested, verdict in zip(list_records(segment_table), tested_rows, verdicts, strict=True):
        arm_readings = readings_by_arm.setdefault(str(table_row["arm"]), [])
        arm_readings.append(SegmentReading(segment_labels[len(arm_readings)], table_row, is_tested, verdict))
    return {arm: tuple(arm_readings) for arm, arm_readings in readings_by_arm.items()}


def describe_outcome(cells: xr.Dataset) -> str:
    """Describe what was measured; of survival, until when."""
    outcome = str(cells.attrs["outcome"])
    return f"{outcome} within {cells.attrs['horizon']:.4g}" if "horizon" in cells.attrs else outcome


def _compute_mean_outcome_changes(
    fit_tree: xr.DataTree, question: EffectQuestion, result_tables: ResultTables, outcome_unit: str
) -> dict[str, MeanOutcomeChange]:
    """Compute the absolute average effect of every arm, where another scale is reported that has one."""
    family = get_fitted_family(fit_tree)
    # On an identity link, effects on the link scale are absolute ones.
    is_reported_scale = question.scale == "absolute" or (question.scale == "link" and family.link == "identity")
    if is_reported_scale or not family.has_baseline or is_from_posterior(fit_tree):
        return {}
    mean_outcome_changes = {}
    reported_effects = {str(ate_row["arm"]): ate_row["effect"] for ate_row in list_records(result_tables.ate_table)}
    for ate_row in list_records(tables.tabulate_ate(fit_tree, EffectQuestion("absolute", question.ci_prob))):
        absolute_format = choose_effect_format(
            family, "absolute", outcome_unit, [ate_row["ci_high"] - ate_row["ci_low"]]
        )
        sign_word, sign_probability = (
            ("above", ate_row["p_positive"]) if ate_row["effect"] > 0 else ("below", ate_row["p_negative"])
        )
        mean_outcome_changes[str(ate_row["arm"])] = MeanOutcomeChange(
            change_text=f"{absolute_format.format_signed(ate_row['effect'])}{absolute_format.unit_phrase}",
            sign_text=f"{sign_word} zero with {state_probability(sign_probability)}",
            is_opposite=bool(ate_row["effect"] * reported_effects[str(ate_row["arm"])] < 0),
        )
    return mean_outcome_changes


def _find_segments_unlike_average(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: VerdictRule
) -> set[tuple[str, str]]:
    """Find pairs of arm and segment where the effect clearly differs from the average."""
    if get_fitted_cells(fit_tree).sizes[cell_table.SEGMENT] < 2:
        return set()
    return find_distinct_segments(tables.compute_signs_against_average(fit_tree, question), rule)


def list_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """List the rows of a table as mappings from the names of its columns."""
    # pandas types keys as Hashable; all columns here have names.
    return [{str(key): value for key, value in record.items()} for record in table.to_dict("records")]


def get_outcome_unit(plan: Plan | None) -> str:
    """Get what an absolute effect counts, as the plan says it; "" if nothing does."""
    return "" if plan is None else plan.report.unit


def get_pooling(fit_tree: xr.DataTree) -> PoolingKind:
    """Get how a model pools; a caller's own model is taken to, because its effects are read from joint draws."""
    return "partial" if is_from_posterior(fit_tree) else get_fitted_model(fit_tree).pooling
