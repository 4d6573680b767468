"""The data axis of a forest plot: limits, points, intervals, diamonds and lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from bayes_hte.plot.drawing.axis import choose_fitting_ticks, strip_axes
from bayes_hte.plot.drawing.canvas import Canvas
from bayes_hte.plot.rows import ArmBlock, Estimate, weigh_estimates

TALL_ROW_COUNT = 25
"""Rows beyond which a reader of the first no longer sees the axis under the last: it is written above too."""
MAX_POINT_SIDE = 12.0
MIN_POINT_SIDE = 4.0  # smaller would vanish in the interval's own line
RAW_RISE, POOLED_DROP = 5.2, 2.8  # points from the middle of a row: the raw interval stands above the pooled one


@dataclass(frozen=True, slots=True)
class PlacedEstimate:
    """An estimate, the height of its row's middle, and the side of its point, both in points."""

    estimate: Estimate
    y_middle: float
    point_side: float = MAX_POINT_SIDE


def compute_raw_interval(estimate: Estimate, ci_prob: float) -> tuple[float, float]:
    """Compute the normal interval of the unpooled estimate."""
    # ŷ ± z SE, z = Φ⁻¹((1 + p) / 2)
    half_width = NormalDist().inv_cdf(0.5 + ci_prob / 2) * estimate.raw_se
    return estimate.raw_effect - half_width, estimate.raw_effect + half_width


def choose_axis_limits(arm_blocks: Sequence[ArmBlock], ci_prob: float) -> tuple[float, float]:
    """Choose the ends of the axis: the pooled intervals, zero and the averages, whatever a wild row does.

    An end reaches at most three typical half-widths beyond the outermost effect, and effects themselves are
    followed for six spreads; raw intervals may widen the axis by a third. What goes beyond is clipped.
    """
    estimates = [estimate for block in arm_blocks for estimate in block.estimates]
    known_estimates = [estimate for estimate in estimates if estimate.is_known]
    average_bounds = [value for block in arm_blocks for value in (block.ate.ci_low, block.ate.ci_high)]
    shown_values = [0.0, *(value for value in average_bounds if math.isfinite(value))]
    if known_estimates:
        shown_values += _compute_typical_reach(known_estimates)
    low, high = min(shown_values), max(shown_values)
    # A span of zero would leave an axis without length.
    span = (high - low) or 1.0
    raw_bounds = [
        value for estimate in estimates for value in compute_raw_interval(estimate, ci_prob) if math.isfinite(value)
    ]
    low = max(min([low, *raw_bounds]), low - span / 3)
    high = min(max([high, *raw_bounds]), high + span / 3)
    margin = 0.03 * ((high - low) or 1.0)
    return low - margin, high + margin


def _compute_typical_reach(estimates: Sequence[Estimate]) -> tuple[float, float]:
    # Quartiles and medians hold still when a few rows are wild: range and SD would follow those.
    effects = np.array([estimate.effect for estimate in estimates])
    median_half_width = float(np.median([(estimate.ci_high - estimate.ci_low) / 2 for estimate in estimates]))
    first_quartile, third_quartile = np.quantile(effects, [0.25, 0.75])
    spread = max(float(third_quartile - first_quartile), median_half_width)
    effects = effects.clip(first_quartile - 6 * spread, third_quartile + 6 * spread)
    low = max(min([estimate.ci_low for estimate in estimates]), effects.min() - 3 * median_half_width)
    high = min(max([estimate.ci_high for estimate in estimates]), effects.max() + 3 * median_half_width)
    return float(low), float(high)


def compute_point_sides(estimates: Sequence[Estimate]) -> list[float]:
    """Compute the side of each point in points, so that the *area* is in proportion to the row's weight."""
    point_weights, _ = weigh_estimates(estimates)
    largest_weight = max(point_weights, default=0.0) or 1.0
    # side² ∝ weight
    return [
        max(MAX_POINT_SIDE * math.sqrt(point_weight / largest_weight), MIN_POINT_SIDE) for point_weight in point_weights
    ]


def draw_axis(
    axes: Axes,
    axis_limits: tuple[float, float],
    *,
    axis_width: float,
    font_size: float,
    canvas: Canvas,
    at_top_too: bool = False,
) -> list[float]:
    """Set the limits and the ticks that fit the width, also above where that is asked for; return their positions."""
    strip_axes(axes, font_size=font_size, canvas=canvas)
    axes.set_xlim(*axis_limits)
    axes.set_yticks([])
    tick_positions, tick_labels = choose_fitting_ticks(axis_limits, axis_width, font_size)
    axes.set_xticks(tick_positions, labels=tick_labels)
    if at_top_too:
        axes.tick_params(top=True, labeltop=True)
    return tick_positions


@dataclass(frozen=True, slots=True)
class GuideBand:
    """Heights over which lines guide the eye, and the average effect there."""

    top: float
    bottom: float
    ate: float


def draw_guides(
    axes: Axes, guide_bands: Sequence[GuideBand], tick_positions: Sequence[float], *, canvas: Canvas
) -> None:
    """Draw grid, null line and average effect in each band; one artist for each, as artists are what takes time."""
    grid_lines = [(tick, band.top, band.bottom) for band in guide_bands for tick in tick_positions]
    average_lines = [(band.ate, band.top, band.bottom) for band in guide_bands if math.isfinite(band.ate)]
    null_lines = [(0.0, band.top, band.bottom) for band in guide_bands]
    _draw_vertical_lines(
        axes, grid_lines, color=canvas.theme.grid_color, linewidth=0.7 * canvas.shrink_factor, zorder=0.5, gid="grid"
    )
    _draw_vertical_lines(
        axes, null_lines, color=canvas.theme.ink_color, linewidth=1.0 * canvas.shrink_factor, zorder=1, gid="zero_line"
    )
    _draw_vertical_lines(
        axes,
        average_lines,
        color=canvas.theme.pooled_color,
        linewidth=1.0 * canvas.shrink_factor,
        linestyles=(0, (4.0, 2.6)),
        zorder=1.1,
        gid="ate_line",
    )


def _draw_vertical_lines(axes: Axes, line_ends: Sequence[tuple[float, float, float]], **line_style: Any) -> None:
    """Draw vertical lines, given as position, top and bottom."""
    axes.vlines(
        [x_position for x_position, *_ in line_ends],
        [top for _, top, _ in line_ends],
        [bottom for *_, bottom in line_ends],
        **line_style,
    )


def draw_estimates(axes: Axes, placed_estimates: Sequence[PlacedEstimate], *, ci_prob: float, canvas: Canvas) -> None:
    """Draw raw estimates above the middle of each row, light, and pooled ones below it, dark."""
    raw_in_view = [point for point in placed_estimates if _is_inside(axes, point.estimate.raw_effect)]
    raw_bars = [
        (*compute_raw_interval(point.estimate, ci_prob), point.y_middle - RAW_RISE) for point in placed_estimates
    ]
    _draw_intervals(axes, raw_bars, mark_prefix="raw_", color=canvas.theme.raw_color, line_width=1.2, canvas=canvas)
    axes.scatter(
        [point.estimate.raw_effect for point in raw_in_view],
        [point.y_middle - RAW_RISE for point in raw_in_view],
        s=(3.9 * canvas.shrink_factor) ** 2,
        facecolor=canvas.theme.paper_color,
        edgecolor=canvas.theme.raw_color,
        linewidth=1.1 * canvas.shrink_factor,
        zorder=3,
        gid="raw_point",
    )
    pooled_bars = [
        (point.estimate.ci_low, point.estimate.ci_high, point.y_middle + POOLED_DROP) for point in placed_estimates
    ]
    _draw_intervals(axes, pooled_bars, mark_prefix="", color=canvas.theme.pooled_color, line_width=2.4, canvas=canvas)
    pooled_in_view = [point for point in placed_estimates if _is_inside(axes, point.estimate.effect)]
    axes.scatter(
        [point.estimate.effect for point in pooled_in_view],
        [point.y_middle + POOLED_DROP for point in pooled_in_view],
        s=[(point.point_side * canvas.shrink_factor) ** 2 for point in pooled_in_view],
        marker="s",
        color=canvas.theme.pooled_color,
        edgecolor=canvas.theme.paper_color,
        linewidth=0.5 * canvas.shrink_factor,
        zorder=4,
        gid="point",
    )


def _is_inside(axes: Axes, value: float) -> bool:
    left_end, right_end = axes.get_xlim()
    return left_end <= value <= right_end


def _draw_intervals(
    axes: Axes,
    interval_bars: Sequence[tuple[float, float, float]],
    *,
    mark_prefix: str,
    color: str,
    line_width: float,
    canvas: Canvas,
) -> None:
    """Draw intervals, given as lower end, upper end and height; an arrow head shows where one leaves the axis."""
    left_end, right_end = axes.get_xlim()
    # An interval wholly beyond one end shrinks to a point there, under its arrow head.
    finite_bars = [bar for bar in interval_bars if all(map(math.isfinite, bar))]
    clipped_bars = [
        (min(max(low, left_end), right_end), max(min(high, right_end), left_end), y) for low, high, y in finite_bars
    ]
    axes.hlines(
        [y for *_, y in clipped_bars],
        [low for low, *_ in clipped_bars],
        [high for _, high, _ in clipped_bars],
        color=color,
        linewidth=line_width * canvas.shrink_factor,
        zorder=2,
        gid=f"{mark_prefix}interval",
    )
    for marker, axis_end, heights_beyond in (
        ("<", left_end, [y for low, _, y in finite_bars if low < left_end]),
        (">", right_end, [y for _, high, y in finite_bars if high > right_end]),
    ):
        axes.scatter(
            [axis_end] * len(heights_beyond),
            heights_beyond,
            marker=marker,
            s=((4.2 + line_width) * canvas.shrink_factor) ** 2,
            color=color,
            linewidth=0,
            clip_on=False,
            zorder=3,
            gid=f"{mark_prefix}arrow",
        )


def has_clipped_interval(arm_blocks: Sequence[ArmBlock], axis_limits: tuple[float, float], ci_prob: float) -> bool:
    """Tell whether any interval goes beyond the axis."""
    estimates = [estimate for block in arm_blocks for estimate in block.estimates]
    interval_bounds = [
        bound
        for estimate in estimates
        for bound in (estimate.ci_low, estimate.ci_high, *compute_raw_interval(estimate, ci_prob))
    ]
    return any(bound < axis_limits[0] or bound > axis_limits[1] for bound in interval_bounds)


def draw_diamond(axes: Axes, placed_average: PlacedEstimate, *, canvas: Canvas) -> None:
    """Draw the average effect as a diamond that is as wide as its interval."""
    average_effect, y, half_height = placed_average.estimate, placed_average.y_middle, 6.5
    corners = [
        (average_effect.ci_low, y),
        (average_effect.effect, y - half_height),
        (average_effect.ci_high, y),
        (average_effect.effect, y + half_height),
    ]
    axes.add_patch(
        Polygon(
            corners,
            closed=True,
            facecolor=canvas.theme.ink_color,
            edgecolor=canvas.theme.ink_color,
            linewidth=0.6 * canvas.shrink_factor,
            zorder=4,
            gid="ate_diamond",
        )
    )
