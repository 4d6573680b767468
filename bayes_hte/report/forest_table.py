"""The forest plot of the page: a table whose words are words, with a small drawing on a shared axis in every row.

Places on the axis are percent of its width, so that one drawing fits a phone and a desktop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import xarray as xr

from bayes_hte._support.phrases import (
    format_count,
    format_interval,
    format_number,
    format_percent_probability,
    shorten_text,
)
from bayes_hte.estimands.result_tables import ResultTables
from bayes_hte.plot.arrangement import MAX_FOREST_SEGMENTS, arrange_blocks
from bayes_hte.plot.drawing.axis import choose_fitting_ticks, label_effect_axis
from bayes_hte.plot.forest.bars import choose_axis_limits, compute_point_sides, compute_raw_interval
from bayes_hte.plot.forest.page import LACKS_ARM_NOTE, format_segment_name
from bayes_hte.plot.from_fit import choose_wording
from bayes_hte.plot.rows import ArmBlock, Estimate, RowOrder, read_blocks, weigh_estimates
from bayes_hte.report.arm_results import ArmResult
from bayes_hte.report.notation import EffectFormat, format_interval_probability, isolate_name
from bayes_hte.spec import Plan, cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells

NARROWEST_AXIS_POINTS = 200.0
"""Width for which ticks are chosen: 270 pixels, what a small phone or a table with long names leaves the axis."""
TICK_LABEL_POINTS = 10.0
MAX_ARM_COLUMNS = 16
"""Twice the width of a count of units: a longer name would spread the columns."""
CHARACTER_PERCENT = 2.6
"""Width of a character of a label on an axis of 270 pixels."""
MAX_OVERHANG_PERCENT = 5.0
"""How far a label may reach beyond the axis: as far as the margin of a page on a phone."""

LegendSymbol = Literal["raw", "pooled", "average", "cut", "rope"]
LabelAnchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class IntervalMark:
    """An interval on the axis in percent of its width; an end beyond the axis is cut, and a point there left out."""

    start: str
    stop: str
    point: str | None
    is_cut_left: bool
    is_cut_right: bool


@dataclass(frozen=True, slots=True)
class DiamondMark:
    """The average effect: a diamond as wide as its interval, whose top stands at `peak` percent of that width."""

    start: str
    width: str
    peak: str


@dataclass(frozen=True, slots=True)
class RowDrawing:
    """Marks of one row, None where a number is unknown; the point's side in pixels, its area by the row's weight."""

    raw: IntervalMark | None = None
    pooled: IntervalMark | None = None
    point_side: str = ""
    diamond: DiamondMark | None = None


@dataclass(frozen=True, slots=True)
class ForestRow:
    """Words, numbers and marks of one segment, or of the average."""

    name: str
    unit_counts: tuple[str, ...]
    effect_text: str
    interval_text: str
    probability_text: str
    drawing: RowDrawing


@dataclass(frozen=True, slots=True)
class ForestGroup:
    """Segments under one heading; "" where there is one dimension."""

    heading: str
    rows: list[ForestRow]


@dataclass(frozen=True, slots=True)
class AxisLabel:
    """A label at a place on the axis, aligned so that it stays within the page."""

    place: str
    text: str
    anchor: LabelAnchor


@dataclass(frozen=True, slots=True)
class SharedAxis:
    """Lines behind every row, and the labels under the last one.

    Attributes
    ----------
    ticks : list of AxisLabel
    zero : str
        Place of no effect.
    average : AxisLabel or None
        Place of the average effect, if it is known.
    rope : pair of str or None
        Start and width of what is too small to matter.
    title : str
        What the axis measures, in which unit.
    sides : pair of str or None
        Whom effects left and right of zero favour, if that is known.
    """

    ticks: list[AxisLabel]
    zero: str
    average: AxisLabel | None
    rope: tuple[str, str] | None
    title: str
    sides: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class ForestTable:
    """The forest plot of one arm; `warning` says that its numbers are not reliable, else ""."""

    description: str
    warning: str
    label_heading: str
    count_headings: tuple[str, ...]
    interval_heading: str
    groups: list[ForestGroup]
    average: ForestRow
    axis: SharedAxis
    legend: list[tuple[LegendSymbol, str]]
    footnotes: list[str]


@dataclass(frozen=True, slots=True)
class AxisScale:
    """From effects in shown units to places on the axis."""

    low: float
    high: float

    def locate(self, value: float) -> float:
        """Locate a value in percent of the axis's width."""
        return 100 * (value - self.low) / (self.high - self.low)

    def write_place(self, value: float) -> str:
        """Write the place of a value, which is moved to the axis's end if it is beyond it: ``37.25``."""
        # A hundredth of a percent is a tenth of a pixel on the widest page.
        return f"{min(max(self.locate(value), 0.0), 100.0):.2f}".rstrip("0").rstrip(".")

    def mark_interval(self, low: float, high: float, point: float) -> IntervalMark | None:
        """Mark an interval and its point; None if a number is unknown."""
        if not all(map(math.isfinite, (low, high, point))):
            return None
        is_inside = self.low <= point <= self.high
        return IntervalMark(
            self.write_place(low),
            self.write_place(high),
            self.write_place(point) if is_inside else None,
            low < self.low,
            high > self.high,
        )

    def mark_diamond(self, average: Estimate) -> DiamondMark | None:
        """Mark the average effect; None if it is unknown. The axis always holds its whole interval."""
        width = average.ci_high - average.ci_low
        if not average.is_known or width <= 0:
            return None
        return DiamondMark(
            self.write_place(average.ci_low),
            f"{self.locate(average.ci_high) - self.locate(average.ci_low):.2f}",
            f"{100 * (average.effect - average.ci_low) / width:.1f}",
        )

    def place_label(self, value: float, text: str) -> AxisLabel:
        """Place a label above or under a value."""
        percent, half_width = self.locate(value), CHARACTER_PERCENT * len(text) / 2
        anchor: LabelAnchor = "middle"
        if half_width - percent > MAX_OVERHANG_PERCENT:
            anchor = "start"
        elif half_width - (100 - percent) > MAX_OVERHANG_PERCENT:
            anchor = "end"
        return AxisLabel(self.write_place(value), text, anchor)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How all rows of one arm are written and drawn."""

    effect_format: EffectFormat
    scale: AxisScale
    ci_prob: float
    has_counts: bool

    def build_segment(self, estimate: Estimate, point_side: float) -> ForestRow:
        """Build the row of a segment: its raw interval above its pooled one."""
        raw_low, raw_high = compute_raw_interval(estimate, self.ci_prob)
        return self._build_row(
            estimate,
            format_segment_name(estimate),
            RowDrawing(
                raw=self.scale.mark_interval(raw_low, raw_high, estimate.raw_effect),
                pooled=self.scale.mark_interval(estimate.ci_low, estimate.ci_high, estimate.effect),
                point_side=f"{point_side:.1f}",
            ),
        )

    def build_average(self, average: Estimate) -> ForestRow:
        """Build the last row."""
        return self._build_row(average, "All (ATE)", RowDrawing(diamond=self.scale.mark_diamond(average)))

    def _build_row(self, estimate: Estimate, name: str, drawing: RowDrawing) -> ForestRow:
        # The estimates are in shown units already: 100 times the effect where that is in percent.
        decimal_places = self.effect_format.decimal_places
        return ForestRow(
            name=name,
            unit_counts=(format_count(estimate.n_control), format_count(estimate.n_treated)) if self.has_counts else (),
            effect_text=format_number(estimate.effect, decimal_places),
            interval_text=format_interval(estimate.ci_low, estimate.ci_high, decimal_places),
            probability_text=format_percent_probability(estimate.p_positive),
            drawing=drawing,
        )


def build_forest_table(
    fit_tree: xr.DataTree, arm_result: ArmResult, plan: Plan | None, result_tables: ResultTables
) -> ForestTable:
    """Build the forest plot of one arm from the tables that the page has."""
    dimension_names = cell_table.list_dimensions(get_fitted_cells(fit_tree))
    # With one dimension every heading would have a single row.
    heading_dimension = dimension_names[0] if len(dimension_names) > 1 else None
    if len(arm_result.readings) > MAX_FOREST_SEGMENTS:
        heading_dimension = None  # what is selected has headings of its own
    arm_blocks, selection_note = _read_arm_blocks(arm_result, result_tables, dimension_names, heading_dimension)
    arm_block = next(block for block in arm_blocks if block.arm == arm_result.arm)
    estimates, average = arm_block.estimates, arm_block.ate
    wording = choose_wording(fit_tree, arm_result.question, plan)
    row_format = RowFormat(
        arm_result.effect_format,
        # One axis for all arms: they are compared by eye.
        AxisScale(*choose_axis_limits(arm_blocks, arm_result.question.ci_prob)),
        arm_result.question.ci_prob,
        has_counts=any(row.n_control >= 0 or row.n_treated >= 0 for row in (*estimates, average)),
    )
    groups = _build_groups(arm_block, row_format)
    axis_title = wording.get("axis_label") or label_effect_axis(
        wording["unit"], percent=arm_result.effect_format.display_factor > 1
    )
    label_names = [name for name in dimension_names if name != heading_dimension]
    return ForestTable(
        description=_write_description(arm_result),
        warning=wording.get("title", ""),
        label_heading=" / ".join(shorten_text(name) for name in (heading_dimension, ", ".join(label_names)) if name),
        count_headings=_write_count_headings(arm_result) if row_format.has_counts else (),
        interval_heading=f"Effect ({format_interval_probability(row_format.ci_prob)} interval)",
        groups=groups,
        average=row_format.build_average(average),
        axis=_build_axis(average, row_format, arm_result, axis_title),
        legend=_list_legend(estimates, groups, wording["pooled"], has_rope=arm_result.question.rope is not None),
        footnotes=[
            *([f"{selection_note} All are in the list below."] if selection_note else []),
            *([LACKS_ARM_NOTE] if any(estimate.lacks_an_arm for estimate in estimates) else []),
        ],
    )


def _read_arm_blocks(
    arm_result: ArmResult, result_tables: ResultTables, dimension_names: list[str], heading_dimension: str | None
) -> tuple[list[ArmBlock], str]:
    """Read the rows of all arms in shown units, in one order: the best effect first; and what was left out of many."""
    arm_blocks = read_blocks(
        result_tables.segment_table,
        result_tables.ate_table,
        dimension_names=dimension_names,
        group_by=heading_dimension,
        effect_factor=arm_result.effect_format.display_factor,
    )
    row_order: RowOrder = "effect" if arm_result.question.higher_is_better else "lowest"
    return arrange_blocks(arm_blocks, row_order, MAX_FOREST_SEGMENTS)


def _build_groups(arm_block: ArmBlock, row_format: RowFormat) -> list[ForestGroup]:
    # Areas are compared over the whole plot, not within a group.
    point_sides = iter(compute_point_sides(arm_block.estimates))
    return [
        ForestGroup(
            shorten_text(group.name),
            [row_format.build_segment(estimate, next(point_sides)) for estimate in group.estimates],
        )
        for group in arm_block.groups
    ]


def _build_axis(average: Estimate, row_format: RowFormat, arm_result: ArmResult, axis_title: str) -> SharedAxis:
    scale, smallest_effect = row_format.scale, arm_result.question.rope
    tick_values, tick_texts = choose_fitting_ticks((scale.low, scale.high), NARROWEST_AXIS_POINTS, TICK_LABEL_POINTS)
    rope = None
    if smallest_effect is not None:
        half_width = row_format.effect_format.display_factor * smallest_effect
        # What is too small to matter may be wider than the axis.
        start, stop = scale.write_place(-half_width), scale.write_place(half_width)
        rope = (start, f"{float(stop) - float(start):.2f}")
    return SharedAxis(
        ticks=[scale.place_label(value, text) for value, text in zip(tick_values, tick_texts, strict=True)],
        zero=scale.write_place(0.0),
        average=scale.place_label(average.effect, "ATE") if average.is_known else None,
        rope=rope,
        title=axis_title,
        sides=name_axis_sides(arm_result),
    )


def name_axis_sides(arm_result: ArmResult) -> tuple[str, str] | None:
    """Name whom effects left and right of zero favour; None where no control is named or the direction is doubtful."""
    if not arm_result.control or not arm_result.direction_is_known:
        return None
    worse, better = (f"favours {shorten_text(name, MAX_ARM_COLUMNS)}" for name in (arm_result.control, arm_result.arm))
    left, right = (worse, better) if arm_result.question.higher_is_better else (better, worse)
    return f"← {left}", f"{right} →"


def _write_count_headings(arm_result: ArmResult) -> tuple[str, str]:
    control_heading, treated_heading = (
        shorten_text(name, MAX_ARM_COLUMNS) for name in (arm_result.control or "control", arm_result.arm)
    )
    return control_heading, treated_heading


def _write_description(arm_result: ArmResult) -> str:
    """Write what the plot shows, for screen readers and for whoever reads the page's source."""
    largest = max(arm_result.readings, key=lambda reading: reading.table_row["effect"])
    smallest = min(arm_result.readings, key=lambda reading: reading.table_row["effect"])
    format_signed = arm_result.effect_format.format_signed
    return (
        f"Forest plot of the effect of {isolate_name(arm_result.arm)} on {isolate_name(arm_result.outcome)} in "
        f"{len(arm_result.readings)} segments, from {format_signed(smallest.table_row['effect'])} "
        f"({isolate_name(smallest.segment_label)}) to {format_signed(largest.table_row['effect'])} "
        f"({isolate_name(largest.segment_label)}); the average is {format_signed(arm_result.ate_row['effect'])}. "
        "All numbers are in the table that follows."
    )


def _list_legend(
    estimates: Sequence[Estimate], groups: Sequence[ForestGroup], pooled_name: str, *, has_rope: bool
) -> list[tuple[LegendSymbol, str]]:
    # The area of the points is explained only where it means something.
    _, weight_meaning = weigh_estimates(estimates)
    legend: list[tuple[LegendSymbol, str]] = [
        ("raw", "raw, not pooled"),
        ("pooled", pooled_name + (f", area by {weight_meaning}" if weight_meaning else "")),
        ("average", "average effect (ATE)"),
    ]
    if any(_is_cut(row.drawing) for group in groups for row in group.rows):
        legend.append(("cut", "goes on beyond the axis"))
    if has_rope:
        legend.append(("rope", "too small to matter"))
    return legend


def _is_cut(drawing: RowDrawing) -> bool:
    return any(mark.is_cut_left or mark.is_cut_right for mark in (drawing.raw, drawing.pooled) if mark is not None)
