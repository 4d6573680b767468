"""One panel of the shrinkage plot: its scales, arrows and names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

from matplotlib.axes import Axes

from bayes_hte._support.phrases import shorten_text
from bayes_hte.plot.arrangement import select_outstanding
from bayes_hte.plot.drawing.axis import choose_log_ticks, choose_round_ticks, strip_axes
from bayes_hte.plot.drawing.canvas import (
    Canvas,
    TextStyle,
)
from bayes_hte.plot.drawing.names import DesignBox, Move, place_names
from bayes_hte.plot.drawing.text import cut_to_width
from bayes_hte.plot.rows import ArmBlock, Estimate

TEXT_SIZE, SMALL_SIZE = 11.0, 10.0
_MAX_NAME_COLUMNS = 56  # about half of the panel: a longer name finds no place beside its ring


@dataclass(frozen=True, slots=True)
class InformationMeasure:
    """Measure of how much was known about each segment before pooling: the horizontal axis, and its label."""

    axis_label: str
    measured_as: Literal["units", "error"]

    def measure_estimate(self, estimate: Estimate) -> float:
        """Measure a segment's place on the horizontal axis; NaN if it has none."""
        # The smaller arm decides: SE² = σ₀²/n₀ + σ₁²/n₁ is mostly its term.
        value = min(estimate.n_control, estimate.n_treated) if self.measured_as == "units" else estimate.raw_se
        return value if value > 0 else math.nan


@dataclass(frozen=True, slots=True)
class PanelAxes:
    """Limits that all panels share; where small segments have large values, `x_limits` run downwards."""

    information: InformationMeasure
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    average_effect: float = math.nan

    def locate_point(self, panel_box: DesignBox, information_value: float, effect_value: float) -> tuple[float, float]:
        """Locate a point on the canvas, in design points; an effect beyond the limits is moved to their edge."""
        left, top, width, height = panel_box
        log_start, log_stop = map(math.log, self.x_limits)
        low, high = self.y_limits
        # x is logarithmic; y grows downwards on the canvas.
        clipped_effect = min(max(effect_value, low), high)
        x = left + (math.log(information_value) - log_start) / (log_stop - log_start) * width
        return x, top + (high - clipped_effect) / (high - low) * height


def choose_information(estimates: Sequence[Estimate]) -> InformationMeasure:
    """Choose units in the smaller arm or, where none are known, the standard error of the raw estimate."""
    if any(min(estimate.n_control, estimate.n_treated) > 0 for estimate in estimates):
        return InformationMeasure("units in the smaller arm", "units")
    return InformationMeasure("standard error of the raw estimate", "error")


def select_plottable(estimates: Sequence[Estimate], information_measure: InformationMeasure) -> list[Estimate]:
    """Select the estimates that have a place on both axes."""
    return [
        estimate
        for estimate in estimates
        if all(
            map(math.isfinite, (estimate.raw_effect, estimate.effect, information_measure.measure_estimate(estimate)))
        )
    ]


def choose_panel_axes(arm_blocks: Sequence[ArmBlock]) -> PanelAxes:
    """Choose axes that hold every pooled estimate; raw ones may double the height, and are clipped beyond."""
    estimates = [estimate for block in arm_blocks for estimate in block.estimates]
    information = choose_information(estimates)
    shown_estimates = select_plottable(estimates, information)
    information_values = [information.measure_estimate(estimate) for estimate in shown_estimates]
    # The axis is logarithmic: a factor, not a margin, keeps points off its ends.
    x_ends = (min(information_values) / 1.35, max(information_values) * 1.35)
    pooled_values = [
        0.0,
        *(estimate.effect for estimate in shown_estimates),
        *(end for block in arm_blocks for end in (block.ate.ci_low, block.ate.ci_high)),
    ]
    pooled_values = [value for value in pooled_values if math.isfinite(value)]
    span = (max(pooled_values) - min(pooled_values)) or 1.0
    low = max(min([*pooled_values, *(estimate.raw_effect for estimate in shown_estimates)]), min(pooled_values) - span)
    high = min(max([*pooled_values, *(estimate.raw_effect for estimate in shown_estimates)]), max(pooled_values) + span)
    margin = 0.06 * (high - low)
    # Small segments are on the left: few units, or a large error.
    directed_x_limits = x_ends if information.measured_as == "units" else (x_ends[1], x_ends[0])
    return PanelAxes(information, directed_x_limits, (low - margin, high + margin))


def draw_panel(
    canvas: Canvas, arm_block: ArmBlock, panel_axes: PanelAxes, panel_box: DesignBox, max_names: int
) -> None:
    """Draw the segments of one arm: guides, arrows from raw to pooled, and names."""
    inset_axes = canvas.add_inset_axes(panel_box)
    inset_axes.set_xscale("log")
    inset_axes.set_xlim(*panel_axes.x_limits)
    inset_axes.set_ylim(*panel_axes.y_limits)
    strip_axes(inset_axes, font_size=SMALL_SIZE, canvas=canvas)
    _draw_guides(canvas, inset_axes, arm_block, panel_axes, panel_box)
    shown_estimates = select_plottable(arm_block.estimates, panel_axes.information)
    _draw_moves(inset_axes, shown_estimates, panel_axes, canvas)
    # Each arm has an average of its own, whose line no name may cross.
    own_axes = replace(panel_axes, average_effect=arm_block.ate.effect)
    _draw_names(canvas, shown_estimates, own_axes, panel_box, max_names)
    canvas.write_line(
        panel_box[0] + panel_box[2] / 2,
        panel_box[1] + panel_box[3] + 30,
        panel_axes.information.axis_label,
        TextStyle(TEXT_SIZE, mark="axis_label"),
        "center",
    )


def _draw_guides(
    canvas: Canvas, inset_axes: Axes, arm_block: ArmBlock, panel_axes: PanelAxes, panel_box: DesignBox
) -> None:
    shrink_factor, ate = canvas.shrink_factor, arm_block.ate
    y_ticks, y_tick_labels = choose_round_ticks(panel_axes.y_limits, 6)
    inset_axes.set_yticks(y_ticks, labels=y_tick_labels)
    inset_axes.tick_params(axis="y", length=0)
    x_ticks, x_tick_labels = choose_log_ticks((min(panel_axes.x_limits), max(panel_axes.x_limits)))
    inset_axes.set_xticks(x_ticks, labels=x_tick_labels)
    inset_axes.set_xticks([], minor=True)
    for tick in y_ticks:
        inset_axes.axhline(tick, color=canvas.theme.grid_color, linewidth=0.7 * shrink_factor, zorder=0.5, gid="grid")
    inset_axes.axhline(0.0, color=canvas.theme.ink_color, linewidth=1.0 * shrink_factor, zorder=1, gid="zero_line")
    if not ate.is_known:
        return
    inset_axes.axhspan(
        ate.ci_low, ate.ci_high, color=canvas.theme.tail_color, linewidth=0, zorder=0.4, gid="ate_interval"
    )
    inset_axes.axhline(
        ate.effect,
        color=canvas.theme.pooled_color,
        linewidth=1.0 * shrink_factor,
        linestyle=(0, (4.0, 2.6)),
        zorder=1.1,
        gid="ate_line",
    )
    _, y = panel_axes.locate_point(panel_box, panel_axes.x_limits[0], ate.effect)
    canvas.write_line(
        panel_box[0] + panel_box[2] + 6, y, "ATE", TextStyle(SMALL_SIZE, canvas.theme.pooled_color, mark="ate_label")
    )


def _draw_moves(inset_axes: Axes, estimates: Sequence[Estimate], panel_axes: PanelAxes, canvas: Canvas) -> None:
    """Draw a light ring at each raw estimate, and a dark triangle at the pooled one that points away from it."""
    low, high = panel_axes.y_limits
    information_values = [panel_axes.information.measure_estimate(estimate) for estimate in estimates]
    shown_raw_effects = [min(max(estimate.raw_effect, low), high) for estimate in estimates]
    pooled_effects = [estimate.effect for estimate in estimates]
    inset_axes.vlines(
        information_values,
        shown_raw_effects,
        pooled_effects,
        color=canvas.theme.raw_color,
        linewidth=1.1 * canvas.shrink_factor,
        zorder=2,
        gid="move",
    )
    raw_in_view = [low <= estimate.raw_effect <= high for estimate in estimates]
    inset_axes.scatter(
        [x for x, in_view in zip(information_values, raw_in_view, strict=True) if in_view],
        [y for y, in_view in zip(shown_raw_effects, raw_in_view, strict=True) if in_view],
        s=(4.4 * canvas.shrink_factor) ** 2,
        facecolor=canvas.theme.paper_color,
        edgecolor=canvas.theme.raw_color,
        linewidth=1.1 * canvas.shrink_factor,
        zorder=3,
        gid="raw_point",
    )
    for marker, points_up in (("^", True), ("v", False)):
        moved_indices = [
            index for index, estimate in enumerate(estimates) if (estimate.effect >= estimate.raw_effect) == points_up
        ]
        inset_axes.scatter(
            [information_values[index] for index in moved_indices],
            [pooled_effects[index] for index in moved_indices],
            s=(6.0 * canvas.shrink_factor) ** 2,
            marker=marker,
            color=canvas.theme.pooled_color,
            edgecolor=canvas.theme.paper_color,
            linewidth=0.4 * canvas.shrink_factor,
            zorder=4,
            gid="point",
        )
        clipped_indices = [index for index in moved_indices if not raw_in_view[index]]
        inset_axes.scatter(
            [information_values[index] for index in clipped_indices],
            [shown_raw_effects[index] for index in clipped_indices],
            s=(5.0 * canvas.shrink_factor) ** 2,
            marker="v" if points_up else "^",
            color=canvas.theme.raw_color,
            linewidth=0,
            clip_on=False,
            zorder=3,
            gid="raw_arrow",
        )


def _draw_names(
    canvas: Canvas, estimates: Sequence[Estimate], panel_axes: PanelAxes, panel_box: DesignBox, max_names: int
) -> None:
    """Name the winners, the losers and those that moved most, where nothing runs through a name."""
    moves = [_locate_move(estimate, panel_axes, panel_box) for estimate in estimates]
    movements = [abs(estimate.raw_effect - estimate.effect) for estimate in estimates]
    largest, moved, smallest = select_outstanding([estimate.effect for estimate in estimates], movements, max_names)
    # In turn, so that each of the three has its most important name written.
    turns = zip_longest(largest, reversed(smallest), sorted(moved, key=lambda index: -movements[index]))
    name_order = [index for turn in turns for index in turn if index is not None][: max(max_names, 0)]
    # Half of the panel: a longer name finds no place beside its ring.
    widest = 0.5 * panel_box[2]
    named_moves = [
        (
            cut_to_width(shorten_text(estimates[index].segment_label, _MAX_NAME_COLUMNS), widest, SMALL_SIZE),
            moves[index],
        )
        for index in name_order
    ]
    guide_values = [*choose_round_ticks(panel_axes.y_limits, 6)[0], 0.0, panel_axes.average_effect]
    guide_heights = [
        panel_axes.locate_point(panel_box, panel_axes.x_limits[0], value)[1]
        for value in guide_values
        if math.isfinite(value)
    ]
    for name in place_names(named_moves, moves, guide_heights, panel_box, SMALL_SIZE):
        text_style = TextStyle(SMALL_SIZE, canvas.theme.quiet_color, mark="label")
        canvas.write_line(name.x, name.y, name.text, text_style, name.align)


def _locate_move(estimate: Estimate, panel_axes: PanelAxes, panel_box: DesignBox) -> Move:
    information_value = panel_axes.information.measure_estimate(estimate)
    x, y_raw = panel_axes.locate_point(panel_box, information_value, estimate.raw_effect)
    return Move(x, y_raw, panel_axes.locate_point(panel_box, information_value, estimate.effect)[1])
