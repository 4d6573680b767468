"""Densities of segments' effects before and after the data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure, SubFigure

from bayes_hte._support.phrases import shorten_text
from bayes_hte.errors import DataError
from bayes_hte.plot.drawing.axis import choose_fitting_ticks, label_effect_axis, strip_axes
from bayes_hte.plot.drawing.canvas import (
    Canvas,
    TextStyle,
    open_canvas,
)
from bayes_hte.plot.drawing.theme import DEFAULT_THEME, Theme
from bayes_hte.plot.drawing.visuals import Visuals, require_known_visuals, restyle_marks

PRIOR_MARKS = (
    "title",
    "axis_label",
    "heading",
    "key",
    "zero_line",
    "raw_tick",
    "prior_area",
    "prior_curve",
    "posterior_area",
    "posterior_curve",
)
"""Names of the marks that `visuals` can restyle or leave out."""
EffectArray = npt.NDArray[np.float64]

_FIGURE_WIDTH, _MARGIN, _PANEL_HEIGHT, _HEADER_HEIGHT, _FOOTER_HEIGHT = 620.0, 14.0, 120.0, 46.0, 24.0
# Counts in narrow bins are noisy: a bell over nine of them is smooth, and no wider than a twentieth of the axis.
_SMOOTHING_WEIGHTS = np.hanning(9) / np.hanning(9).sum()
_BIN_COUNT = 160  # under four points wide, so that a curve has no corners
_SHOWN_PRIOR_SHARE = 0.99
"""Share of the prior that is shown: the tails of some priors have no end."""


@dataclass(frozen=True, slots=True)
class ArmBelief:
    """Draws of segments' effects in one arm, before and after the data.

    Attributes
    ----------
    arm : str
    prior_draws : ndarray
        Draws of one segment's effect before the data.
    posterior_draws : ndarray or None
        Draws of all segments' effects after the data; None before a fit.
    raw_effects : ndarray
        Estimates of segments on their own; NaN where there are none.
    prior_density : callable, optional
        From effects to their density before the data; without it the draws are counted.
    """

    arm: str
    prior_draws: EffectArray
    posterior_draws: EffectArray | None
    raw_effects: EffectArray
    prior_density: Callable[[EffectArray], EffectArray] | None = None


def draw_prior(
    beliefs: list[ArmBelief],
    *,
    title: str | None = None,
    axis_label: str | None = None,
    percent: bool = False,
    unit: str = "",
    where: Figure | SubFigure | None = None,
    visuals: Visuals | None = None,
    theme: Theme = DEFAULT_THEME,
) -> Figure | SubFigure:
    """Draw prior and posterior densities of segments' effects, one panel per arm.

    Parameters
    ----------
    beliefs : list of ArmBelief
    title, axis_label : str, optional
        Over the figure, and under its axis.
    percent : bool
        Multiply effects by 100.
    unit : str
        What an effect counts, for the axis.
    where : Figure or SubFigure, optional
        Draw into this; by default a new figure.
    visuals : mapping, optional
        As for `draw_forest`; the marks are `PRIOR_MARKS`.
    theme : Theme
        Colours.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    ArgumentError
        If `visuals` names an unknown mark.
    DataError
        If there is no arm, or a prior without finite draws.
    """
    visuals = require_known_visuals(visuals, PRIOR_MARKS)
    if not beliefs or not all(np.isfinite(belief.prior_draws).all() and len(belief.prior_draws) for belief in beliefs):
        raise DataError("there is no prior to draw, or it is not finite on this scale: try scale='link'")
    height = _HEADER_HEIGHT + len(beliefs) * _PANEL_HEIGHT + _FOOTER_HEIGHT
    canvas = open_canvas(where, _FIGURE_WIDTH, height, theme)
    effect_factor = 100.0 if percent else 1.0
    axis_limits = _choose_axis_limits(beliefs, effect_factor)
    heading = title or "Effects of segments: what the prior allows"
    canvas.write_line(_MARGIN, 16, heading, TextStyle(13.0, bold=True, mark="title"))
    canvas.write_line(_MARGIN, 34, _write_key(beliefs), TextStyle(10.0, canvas.theme.quiet_color, mark="key"))
    for panel_index, belief in enumerate(beliefs):
        _draw_panel(canvas, belief, axis_limits, effect_factor, _HEADER_HEIGHT + panel_index * _PANEL_HEIGHT)
    label = axis_label or label_effect_axis(unit, percent=percent)
    canvas.write_line(canvas.width / 2, height - 14, label, TextStyle(11.0, mark="axis_label"), "center")
    restyle_marks(canvas.axes, visuals)
    figure = canvas.axes.figure
    assert figure is not None  # noqa: S101 - only for the type checker: the axes were made with a figure
    return figure


def _write_key(beliefs: list[ArmBelief]) -> str:
    posterior_key = (
        "; blue: all segments after the data" if any(belief.posterior_draws is not None for belief in beliefs) else ""
    )
    return f"grey: one segment before the data{posterior_key}; ticks: raw estimates"


def _choose_axis_limits(beliefs: list[ArmBelief], effect_factor: float) -> tuple[float, float]:
    tail_probability = (1 - _SHOWN_PRIOR_SHARE) / 2
    quantile_pairs = [np.quantile(belief.prior_draws, [tail_probability, 1 - tail_probability]) for belief in beliefs]
    # More of the posterior is shown: its tails hold the segments that differ most.
    quantile_pairs += [
        np.quantile(belief.posterior_draws, [0.001, 0.999]) for belief in beliefs if belief.posterior_draws is not None
    ]
    low, high = min(low for low, _ in quantile_pairs), max(high for _, high in quantile_pairs)
    return effect_factor * float(low), effect_factor * float(high)


def _estimate_density(effect_draws: EffectArray, bin_edges: EffectArray) -> EffectArray:
    """Estimate a density at the middles of bins, scaled so that each curve is as high as the panel."""
    bin_counts, _ = np.histogram(effect_draws, bins=bin_edges)
    smoothed_counts = np.convolve(bin_counts, _SMOOTHING_WEIGHTS, mode="same")
    return np.asarray(smoothed_counts / max(smoothed_counts.max(), 1e-300))


def _draw_panel(
    canvas: Canvas, belief: ArmBelief, axis_limits: tuple[float, float], effect_factor: float, panel_top: float
) -> None:
    width = canvas.width - 2 * _MARGIN
    axes = canvas.add_inset_axes((_MARGIN, panel_top, width, _PANEL_HEIGHT - 26))
    edges = np.linspace(*axis_limits, _BIN_COUNT + 1)
    bin_middles = 0.5 * (edges[1:] + edges[:-1])
    if belief.posterior_draws is not None:
        axes.fill_between(
            bin_middles,
            0,
            _estimate_density(effect_factor * belief.posterior_draws, edges),
            color=canvas.theme.interval_color,
            linewidth=0,
            gid="posterior_area",
        )
        axes.plot(
            bin_middles,
            _estimate_density(effect_factor * belief.posterior_draws, edges),
            color=canvas.theme.pooled_color,
            linewidth=1.2 * canvas.shrink_factor,
            gid="posterior_curve",
        )
    if belief.prior_density is None:
        prior_density = _estimate_density(effect_factor * belief.prior_draws, edges)
    else:
        exact_density = belief.prior_density(bin_middles / effect_factor)
        prior_density = exact_density / max(float(exact_density.max()), 1e-300)
    axes.fill_between(
        bin_middles, 0, prior_density, color=canvas.theme.prior_color, alpha=0.5, linewidth=0, gid="prior_area"
    )
    axes.plot(
        bin_middles,
        prior_density,
        color=canvas.theme.quiet_color,
        linewidth=1.2 * canvas.shrink_factor,
        gid="prior_curve",
    )
    finite_raw_effects = effect_factor * belief.raw_effects[np.isfinite(belief.raw_effects)]
    raw_in_view = finite_raw_effects[(finite_raw_effects >= axis_limits[0]) & (finite_raw_effects <= axis_limits[1])]
    # Below zero density there is room for the ticks of raw estimates.
    axes.vlines(
        raw_in_view, -0.12, -0.02, color=canvas.theme.raw_color, linewidth=1.0 * canvas.shrink_factor, gid="raw_tick"
    )
    axes.axvline(0.0, color=canvas.theme.ink_color, linewidth=0.8 * canvas.shrink_factor, gid="zero_line")
    axes.set_xlim(*axis_limits)
    axes.set_ylim(-0.14, 1.05)
    axes.set_yticks([])
    tick_positions, tick_labels = choose_fitting_ticks(axis_limits, width, 10.0)
    axes.set_xticks(tick_positions, tick_labels)
    strip_axes(axes, font_size=10.0, canvas=canvas)
    raw_outside_count = len(finite_raw_effects) - len(raw_in_view)
    panel_title = shorten_text(belief.arm) + (
        f"   ({raw_outside_count} raw estimates outside)" if raw_outside_count else ""
    )
    canvas.write_line(_MARGIN, panel_top + 8, panel_title, TextStyle(11.0, bold=True, mark="heading"))
