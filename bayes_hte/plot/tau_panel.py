"""One panel of the tau trace: the curves of one arm and their names, above the posterior of tau."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from bayes_hte.plot.drawing.axis import (
    AxisLimits,
    choose_fitting_ticks,
    choose_round_ticks,
    strip_axes,
)
from bayes_hte.plot.drawing.canvas import (
    Canvas,
    TextStyle,
)
from bayes_hte.plot.drawing.text import cut_to_width, measure_width
from bayes_hte.plot.drawing.theme import Theme
from bayes_hte.plot.tau_curves import EffectCurve, TauPosterior

SMALL_SIZE, MARGIN = 10.0, 14.0
LEFT_WIDTH = 50.0  # room for the tick labels
# From the top of a panel: "fully pooled" and "not pooled", curves, posterior in words, density.
ENDS_HEIGHT, EFFECTS_HEIGHT, SUMMARY_HEIGHT, DENSITY_HEIGHT = 18.0, 270.0, 22.0, 54.0
_LEADER_LENGTH = 18.0  # thin lines lead to the names
_NAME_SPACING = 1.25 * SMALL_SIZE
CURVE_MARKS = {
    "other": "other_curve",
    "other-turning": "other_turning_curve",
    "named": "curve",
    "turning": "turning_curve",
}
"""Mark of the curves of one colour."""
DASH_PATTERN = (0, (4.0, 2.6))
_CROWDED_COUNT = 40  # where there are more lines, those without a name are thinner, or they would run together


@dataclass(frozen=True, slots=True)
class TracePanel:
    """Curves of one arm, of which the first `named_count` are named, and the posterior of tau."""

    arm: str
    curves: tuple[EffectCurve, ...]
    named_count: int
    posterior: TauPosterior

    def select_curves(self, curve_kind: str) -> list[EffectCurve]:
        """Select the curves of one colour, by a key of CURVE_MARKS."""
        is_other = curve_kind.startswith("other")
        candidates = self.curves[self.named_count :] if is_other else self.curves[: self.named_count]
        return [curve for curve in candidates if curve.changes_sign == curve_kind.endswith("turning")]


@dataclass(frozen=True, slots=True)
class SharedAxes:
    """What all panels share: limits of effects, the largest weight, the width of names in points, words at the ends."""

    effect_limits: AxisLimits
    max_weight: float
    name_width: float
    end_labels: tuple[str, str] = ("", "")


def rank_curves(arm: str, curves: Sequence[EffectCurve], posterior: TauPosterior, max_names: int) -> TracePanel:
    """Put the curves first that are furthest, at the median of tau, from where all of them meet."""
    common_effect = np.mean([curve.effects[0] for curve in curves])
    ranked_curves = sorted(
        curves, key=lambda curve: -abs(np.interp(posterior.median, curve.tau_grid, curve.effects) - common_effect)
    )
    # As many names as have room under each other.
    named_count = min(max(max_names, 0), len(curves), int(EFFECTS_HEIGHT / _NAME_SPACING))
    return TracePanel(arm, tuple(ranked_curves), named_count, posterior)


def map_curve_colors(theme: Theme) -> dict[str, str]:
    """Map kinds of curves to their colours, in the order of drawing."""
    return {
        "other": theme.other_curve_color,
        "other-turning": theme.other_sign_change_color,
        "named": theme.pooled_color,
        "turning": theme.sign_change_color,
    }


def draw_trace_panel(
    canvas: Canvas, panel: TracePanel, shared_axes: SharedAxes, panel_top: float, interval_name: str
) -> None:
    """Draw one arm: curves, their names, and the posterior of tau on the same horizontal axis."""
    posterior, shrink_factor, tau_end = panel.posterior, canvas.shrink_factor, float(panel.curves[0].tau_grid[-1])
    axes_width = canvas.width - LEFT_WIDTH - _LEADER_LENGTH - shared_axes.name_width - MARGIN
    effect_axes = canvas.add_inset_axes((LEFT_WIDTH, panel_top, axes_width, EFFECTS_HEIGHT))
    density_top = panel_top + EFFECTS_HEIGHT + SUMMARY_HEIGHT
    density_axes = canvas.add_inset_axes((LEFT_WIDTH, density_top, axes_width, DENSITY_HEIGHT))
    density_axes.sharex(effect_axes)
    effect_axes.set_xlim(0.0, tau_end)
    for inset_axes in (effect_axes, density_axes):
        strip_axes(inset_axes, font_size=SMALL_SIZE, canvas=canvas)
        inset_axes.axvline(
            posterior.median,
            color=canvas.theme.pooled_color,
            linewidth=shrink_factor,
            linestyle=DASH_PATTERN,
            zorder=2.5,
            gid="median_line",
        )
    tick_positions, tick_labels = choose_fitting_ticks((0.0, tau_end), axes_width, SMALL_SIZE)
    density_axes.set_xticks(tick_positions, labels=tick_labels)
    density_axes.set_yticks([])
    _draw_density(density_axes, posterior, canvas)
    _draw_curves(effect_axes, panel, shared_axes, canvas)
    if panel.named_count:
        _draw_names(canvas, panel, shared_axes, (LEFT_WIDTH + axes_width, panel_top))
    ends_middle, ends_style = (
        panel_top - ENDS_HEIGHT / 2,
        TextStyle(SMALL_SIZE, canvas.theme.quiet_color, mark="end_label"),
    )
    canvas.write_line(LEFT_WIDTH, ends_middle, shared_axes.end_labels[0], ends_style)
    canvas.write_line(LEFT_WIDTH + axes_width, ends_middle, shared_axes.end_labels[1], ends_style, "right")
    _draw_tau_summary(canvas, posterior, (axes_width, panel_top), tau_end, posterior.describe_interval(interval_name))


def _draw_tau_summary(
    canvas: Canvas, posterior: TauPosterior, place: tuple[float, float], tau_end: float, interval_text: str
) -> None:
    """Draw the interval of tau as a band behind both axes, and its words between them.

    Parameters
    ----------
    canvas : Canvas
    posterior : TauPosterior
    place : tuple of float
        Width of the axes, and top of the panel, in design points.
    tau_end : float
        Where the axes end on the right.
    interval_text : str
    """
    axes_width, panel_top = place
    gap_top = panel_top + EFFECTS_HEIGHT
    density_top = gap_top + SUMMARY_HEIGHT
    interval_left, median_x, interval_right = (
        LEFT_WIDTH + min(tau / tau_end, 1.0) * axes_width
        for tau in (posterior.ci_low, posterior.median, posterior.ci_high)
    )
    panel_bottom = density_top + DENSITY_HEIGHT
    canvas.axes.fill_between(
        [interval_left, interval_right],
        panel_top,
        panel_bottom,
        color=canvas.theme.tau_band_color,
        linewidth=0,
        zorder=0,
        gid="tau_band",
    )
    text_left = min(median_x + 6, canvas.width - MARGIN - measure_width(interval_text, SMALL_SIZE))
    canvas.write_line(
        text_left,
        gap_top + SUMMARY_HEIGHT / 2,
        interval_text,
        TextStyle(SMALL_SIZE, canvas.theme.pooled_color, mark="tau_summary"),
    )
    # The line of the median goes on through the gap, unless through the words.
    if text_left > median_x and posterior.median < tau_end:
        line_ends = [median_x, median_x], [gap_top, density_top]
        canvas.axes.add_line(
            Line2D(
                *line_ends,
                color=canvas.theme.pooled_color,
                linewidth=canvas.shrink_factor,
                linestyle=DASH_PATTERN,
                zorder=1,
                gid="median_line",
            )
        )


def _draw_density(density_axes: Axes, posterior: TauPosterior, canvas: Canvas) -> None:
    density_axes.set_ylim(0.0, 1.06 * posterior.density.max())
    in_interval = (posterior.tau_grid >= posterior.ci_low) & (posterior.tau_grid <= posterior.ci_high)
    density_axes.fill_between(
        posterior.tau_grid, posterior.density, color=canvas.theme.tail_color, linewidth=0, zorder=1, gid="density_area"
    )
    density_axes.fill_between(
        posterior.tau_grid[in_interval],
        posterior.density[in_interval],
        color=canvas.theme.interval_color,
        linewidth=0,
        zorder=1.1,
        gid="density_interval",
    )
    density_axes.plot(
        posterior.tau_grid,
        posterior.density,
        color=canvas.theme.pooled_color,
        linewidth=1.1 * canvas.shrink_factor,
        zorder=2,
        gid="density_curve",
    )


def _draw_curves(effect_axes: Axes, panel: TracePanel, shared_axes: SharedAxes, canvas: Canvas) -> None:
    effect_axes.set_ylim(*shared_axes.effect_limits)
    tick_positions, tick_labels = choose_round_ticks(shared_axes.effect_limits, 6)
    effect_axes.set_yticks(tick_positions, labels=tick_labels)
    effect_axes.tick_params(length=0, labelbottom=False)
    effect_axes.spines["bottom"].set_visible(False)
    for tick in tick_positions:
        effect_axes.axhline(
            tick, color=canvas.theme.grid_color, linewidth=0.7 * canvas.shrink_factor, zorder=0.5, gid="grid"
        )
    effect_axes.axhline(
        0.0, color=canvas.theme.ink_color, linewidth=1.0 * canvas.shrink_factor, zorder=3, gid="zero_line"
    )  # above the veil
    unnamed_thickness = 0.6 * min(1.0, (_CROWDED_COUNT / len(panel.curves)) ** 0.4)
    for color_order, (curve_kind, color) in enumerate(map_curve_colors(canvas.theme).items()):
        curves = panel.select_curves(curve_kind)
        thickness = unnamed_thickness if curve_kind.startswith("other") else 1.0
        polylines = [np.column_stack([curve.tau_grid, curve.effects]) for curve in curves]
        # Width = thickness (0.8 + 1.6 √(w / w_max)); the square root keeps small segments visible.
        line_widths = [
            canvas.shrink_factor * thickness * (0.8 + 1.6 * (curve.weight / shared_axes.max_weight) ** 0.5)
            for curve in curves
        ]
        collection = LineCollection(
            polylines, colors=color, linewidths=line_widths, zorder=2 + color_order / 10, gid=CURVE_MARKS[curve_kind]
        )
        effect_axes.add_collection(collection, autolim=False)
    for veil_start, veil_stop in ((0.0, panel.posterior.ci_low), (panel.posterior.ci_high, effect_axes.get_xlim()[1])):
        veil_ends = (veil_start, max(veil_start, veil_stop))
        effect_axes.axvspan(*veil_ends, color=canvas.theme.paper_color, alpha=0.5, linewidth=0, zorder=2.4, gid="veil")


def _draw_names(canvas: Canvas, panel: TracePanel, shared_axes: SharedAxes, top_right: tuple[float, float]) -> None:
    """Write every name beside the end of its curve, moved as little as keeps the names apart."""
    from scipy.optimize import isotonic_regression

    lowest_effect, highest_effect = shared_axes.effect_limits
    right, top = top_right
    named_curves = sorted(panel.curves[: panel.named_count], key=lambda curve: -curve.effects[-1])
    effect_drops = highest_effect - np.array([curve.effects[-1] for curve in named_curves])
    curve_ends = top + EFFECTS_HEIGHT * effect_drops / (highest_effect - lowest_effect)
    # min Σ (yᵢ − endᵢ)² with yᵢ₊₁ ≥ yᵢ + spacing: without i · spacing, this is isotonic regression.
    name_offsets = _NAME_SPACING * np.arange(len(named_curves))
    name_positions = name_offsets + np.clip(
        isotonic_regression(curve_ends - name_offsets).x, top, top + EFFECTS_HEIGHT - name_offsets[-1]
    )
    for curve, curve_end, name_position in zip(named_curves, curve_ends.tolist(), name_positions.tolist(), strict=True):
        leader_x, leader_y = [right + 2, right + _LEADER_LENGTH - 4], [curve_end, name_position]
        leader_width = 0.6 * canvas.shrink_factor
        leader = Line2D(
            leader_x, leader_y, color=canvas.theme.raw_color, linewidth=leader_width, zorder=1, gid="leader"
        )
        canvas.axes.add_line(leader)
        label_color = canvas.theme.sign_change_color if curve.changes_sign else canvas.theme.pooled_color
        text_style = TextStyle(SMALL_SIZE, label_color, mark="label")
        short_label = cut_to_width(curve.segment_label, shared_axes.name_width, SMALL_SIZE)
        canvas.write_line(right + _LEADER_LENGTH, name_position, short_label, text_style)
