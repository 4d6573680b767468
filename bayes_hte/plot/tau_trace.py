"""The tau trace: every segment's effect as a function of how much segments are assumed to differ."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from bayes_hte._support.phrases import format_percentage, shorten_text
from bayes_hte.errors import ArgumentError
from bayes_hte.plot.arrangement import MAX_POINT_SEGMENTS, require_segment_limit
from bayes_hte.plot.drawing.axis import (
    label_effect_axis,
)
from bayes_hte.plot.drawing.canvas import (
    Canvas,
    TextStyle,
    compute_leading,
    measure_target,
    open_canvas,
)
from bayes_hte.plot.drawing.text import cut_to_width, measure_widest, measure_width, wrap_text
from bayes_hte.plot.drawing.theme import DEFAULT_THEME, Theme
from bayes_hte.plot.drawing.visuals import KEY_PREFIX, Visuals, require_known_visuals, restyle_marks
from bayes_hte.plot.tau_curves import read_curves, select_curves, weigh_rows
from bayes_hte.plot.tau_panel import (
    CURVE_MARKS,
    DASH_PATTERN,
    DENSITY_HEIGHT,
    EFFECTS_HEIGHT,
    ENDS_HEIGHT,
    LEFT_WIDTH,
    MARGIN,
    SMALL_SIZE,
    SUMMARY_HEIGHT,
    SharedAxes,
    TracePanel,
    draw_trace_panel,
    map_curve_colors,
    rank_curves,
)

TAU_TRACE_MARKS = (
    "title",
    "axis_label",
    "heading",
    "end_label",
    "label",
    "leader",
    "tau_summary",
    "note",
    "key",
    "grid",
    "zero_line",
    "curve",
    "turning_curve",
    "other_curve",
    "other_turning_curve",
    "veil",
    "tau_band",
    "median_line",
    "density_area",
    "density_interval",
    "density_curve",
)
"""Names of the marks that `visuals` can restyle or leave out."""
_TITLE_SIZE, _TEXT_SIZE = 13.0, 11.0
_PAGE_WIDTH, _PHONE_WIDTH = 620.0, 390.0  # in between the design is as wide as its place
_HEADING_HEIGHT, _AXIS_HEIGHT = 24.0, 52.0  # of the arm above a panel, and of ticks and label below it
_MAX_NAME_SHARE = 0.33  # names take at most this share of the width
_KEY_MARK_WIDTH, _KEY_GAP = 26.0, 16.0  # from the start of a mark to its text, and from there to the next mark
_KEY_MARKS = CURVE_MARKS | {"band": "tau_band", "median": "median_line"}


def draw_tau_trace(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
    table: pd.DataFrame,
    density: pd.DataFrame,
    *,
    dimensions: Sequence[str],
    unit: str = "",
    percent: bool = False,
    axis_label: str | None = None,
    tau_label: str = "between-segment SD (tau)",
    end_labels: tuple[str, str] = ("← fully pooled", "not pooled →"),
    ci_prob: float = 0.95,
    labels: int = 8,
    max_segments: int | None = MAX_POINT_SEGMENTS,
    title: str | None = None,
    caption: str | None = None,
    figure: Figure | SubFigure | None = None,
    ax: Axes | None = None,
    visuals: Visuals | None = None,
    theme: Theme = DEFAULT_THEME,
) -> Figure | SubFigure:
    """Draw every segment's effect given tau, the SD of effects between segments, above the posterior of tau.

    Parameters
    ----------
    table : DataFrame
        One row per arm, segment and tau; tau increases within a segment, and is the same for all segments of an
        arm. Columns: the dimensions, ``arm``, ``tau``, ``effect`` (conditional posterior mean); optional:
        ``n_control`` and ``n_treated`` (units, NaN if unknown), ``sd`` (conditional posterior SD).
    density : DataFrame
        The posterior density of tau: columns ``arm``, ``tau`` (increasing, on any grid) and ``density``.
    dimensions : sequence of str
        Columns that hold the levels of a segment.
    tau_label : str
        Label of the horizontal axis.
    end_labels : tuple of str
        What the left and the right end mean.
    ci_prob : float
        Probability of the central interval of tau that is shaded.
    labels : int
        How many segments are named in each panel, as far as there is room (about 20): those whose effect is
        furthest from the common one at the posterior median of tau.
    max_segments : int or None
        As for `draw_forest`; what pooling moves is the effect at the median of tau, from that at the largest.
    unit, percent, axis_label, title, caption, figure, ax
        As for `draw_shrinkage`. `percent` leaves tau as it is.
    visuals : mapping, optional
        As for `draw_forest`; the marks are `TAU_TRACE_MARKS`.
    theme : Theme
        Colours.

    Returns
    -------
    Figure or SubFigure
        The figure that was given, or that holds `ax`, or a new one.

    Raises
    ------
    ArgumentError
        If `ci_prob` is not between 0 and 1, both `figure` and `ax` are given, or `visuals` names an unknown mark.
    DataError
        If a table has no rows, a column or an arm's density is missing, a number is not finite, or a grid of tau is
        not as described.

    Notes
    -----
    On the left, segments do not differ: all lines meet at the common effect (complete pooling). To the right,
    each goes to its own estimate (no pooling). The posterior of tau says which part of the picture matters;
    outside its central interval everything is paler. Orange lines change sign inside the interval, so that the
    sign of this segment's effect hinges on how much segments differ. Thicker lines have more units or, where
    units are unknown, a smaller `sd` at the largest tau. There is one panel per arm; panels share the axis of
    effects, and each has the range of tau that its lines have.

    References
    ----------
    Rubin (1981), Journal of Educational Statistics 6:377.
    Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, figures 5.5 to 5.7.
    Röver & Friede (2023), Computer Methods and Programs in Biomedicine 229:107303 (R package bayesmeta).
    Röver, Rindskopf & Friede (2023), How trace plots help interpret meta-analysis results, arXiv:2306.17043.

    Examples
    --------
    >>> rows = [("mobile", 0.0, 0.05), ("mobile", 0.1, 0.08), ("desktop", 0.0, 0.05), ("desktop", 0.1, 0.01)]
    >>> table = pd.DataFrame(rows, columns=["device", "tau", "effect"]).assign(arm="new")
    >>> density = pd.DataFrame({"arm": "new", "tau": [0.0, 0.05, 0.1], "density": [10.0, 8.0, 2.0]})
    >>> figure = draw_tau_trace(table, density, dimensions=["device"], percent=True)
    >>> round(float(figure.get_figwidth()), 1)
    8.6
    """
    visuals = require_known_visuals(visuals, TAU_TRACE_MARKS)
    if figure is not None and ax is not None:
        raise ArgumentError("both figure and ax are given; give the one to draw into")
    curves_by_arm = read_curves(table, density, dimensions, ci_prob, 100.0 if percent else 1.0)
    require_segment_limit(max_segments)
    curves_by_arm, selection_note = select_curves(curves_by_arm, max_segments)
    panels = [rank_curves(arm, curves, posterior, labels) for arm, (curves, posterior) in curves_by_arm.items()]
    drawing_target = ax if ax is not None else figure
    target_size = measure_target(drawing_target)
    figure_width = max(target_size[0], _PHONE_WIDTH) if target_size else _PAGE_WIDTH
    interval_name = f"{format_percentage(ci_prob)} interval"
    # Small text is wider on a screen, where letters start at whole pixels; bold text is a tenth wider.
    text_width = 0.95 * (figure_width - 2 * MARGIN)
    title_lines = wrap_text(title or "", text_width / 1.1, _TITLE_SIZE)
    effect_label = label_effect_axis(unit, percent=percent) if axis_label is None else axis_label
    label_lines = wrap_text(effect_label, text_width, _TEXT_SIZE)
    key_rows = _lay_out_key(panels, interval_name, text_width)
    sign_note = _write_note(panels, interval_name, weigh_rows(table)[1])
    note_lines = [
        line for note in (sign_note, selection_note, caption or "") for line in wrap_text(note, text_width, SMALL_SIZE)
    ]
    title_bottom = MARGIN + len(title_lines) * compute_leading(_TITLE_SIZE)
    panels_top = title_bottom + len(label_lines) * compute_leading(_TEXT_SIZE) + 8
    heading_height = _HEADING_HEIGHT if len(panels) > 1 else 0.0
    panel_height = heading_height + ENDS_HEIGHT + EFFECTS_HEIGHT + SUMMARY_HEIGHT + DENSITY_HEIGHT + _AXIS_HEIGHT
    panels_bottom = panels_top + len(panels) * panel_height
    footer_height = (len(key_rows) + len(note_lines) + 1) * compute_leading(SMALL_SIZE)
    canvas = open_canvas(drawing_target, figure_width, panels_bottom + footer_height, theme)

    title_middle = MARGIN / 2 + compute_leading(_TITLE_SIZE) / 2
    canvas.write_lines(MARGIN, title_middle, title_lines, TextStyle(_TITLE_SIZE, bold=True, mark="title"))
    label_middle = panels_top - 8 - (len(label_lines) - 0.5) * compute_leading(_TEXT_SIZE)
    canvas.write_lines(
        MARGIN, label_middle, label_lines, TextStyle(_TEXT_SIZE, canvas.theme.quiet_color, mark="axis_label")
    )
    shared_axes = replace(_choose_shared_axes(panels, figure_width), end_labels=end_labels)
    for panel_index, panel in enumerate(panels):
        panel_top = panels_top + panel_index * panel_height + heading_height + ENDS_HEIGHT
        if heading_height:
            heading_middle = panel_top - ENDS_HEIGHT - heading_height / 2
            canvas.write_line(
                MARGIN, heading_middle, shorten_text(panel.arm), TextStyle(_TEXT_SIZE, bold=True, mark="heading")
            )
        draw_trace_panel(canvas, panel, shared_axes, panel_top, interval_name)
        tau_text = cut_to_width(tau_label, canvas.width - LEFT_WIDTH - MARGIN, _TEXT_SIZE)
        density_bottom = panel_top + EFFECTS_HEIGHT + SUMMARY_HEIGHT + DENSITY_HEIGHT
        canvas.write_line(LEFT_WIDTH, density_bottom + 30, tau_text, TextStyle(_TEXT_SIZE, mark="axis_label"))
    _draw_key(canvas, key_rows, panels_bottom)
    notes_middle = panels_bottom + (len(key_rows) + 0.5) * compute_leading(SMALL_SIZE)
    canvas.write_lines(MARGIN, notes_middle, note_lines, TextStyle(SMALL_SIZE, canvas.theme.quiet_color, mark="note"))
    restyle_marks(canvas.axes, visuals)
    drawn_figure = canvas.axes.get_figure()
    assert drawn_figure is not None  # noqa: S101 - only for the type checker: the axes was just drawn on
    return drawn_figure


def _choose_shared_axes(panels: Sequence[TracePanel], figure_width: float) -> SharedAxes:
    curves = [curve for panel in panels for curve in panel.curves]
    effects = np.concatenate([[0.0], *(curve.effects for curve in curves)])
    low, high = float(effects.min()), float(effects.max())
    margin = 0.06 * (high - low) or 1.0
    name_width = measure_widest(
        (curve.segment_label for panel in panels for curve in panel.curves[: panel.named_count]), SMALL_SIZE
    )
    max_weight = max(curve.weight for curve in curves) or 1.0
    return SharedAxes((low - margin, high + margin), max_weight, min(name_width + 1, _MAX_NAME_SHARE * figure_width))


def _lay_out_key(panels: Sequence[TracePanel], interval_name: str, max_width: float) -> list[list[tuple[str, str]]]:
    """Lay out the meanings of marks and their kinds, as many to a row as there is room for."""
    has_unnamed = any(len(panel.curves) > panel.named_count for panel in panels)
    named_meaning = "furthest from the common effect" if has_unnamed else "segment"
    change_meaning = "changes sign inside the band"
    meaning_by_kind = {
        "named": named_meaning,
        "other-turning": change_meaning,
        "turning": change_meaning,
        "other": "other segments",
    }
    # Of two kinds that mean the same, the darker stays.
    kind_by_meaning = {
        meaning: mark_kind
        for mark_kind, meaning in meaning_by_kind.items()
        if any(panel.select_curves(mark_kind) for panel in panels)
    }
    key_rows: list[list[tuple[str, str]]] = [[]]
    for key_item in (kind_by_meaning | {f"{interval_name} of tau": "band", "its median": "median"}).items():
        row_width = sum(
            _KEY_MARK_WIDTH + measure_width(meaning, SMALL_SIZE) + _KEY_GAP for meaning, _ in (*key_rows[-1], key_item)
        )
        key_rows += [[]] if key_rows[-1] and row_width - _KEY_GAP > max_width else []
        key_rows[-1].append(key_item)
    return key_rows


def _write_note(panels: Sequence[TracePanel], interval_name: str, weight_meaning: str) -> str:
    curves = [curve for panel in panels for curve in panel.curves]
    changing_count = sum(curve.changes_sign for curve in curves)
    changing_phrase = f"{changing_count} of {len(curves)} segments change{'s' * (changing_count == 1)}"
    change_clause = changing_phrase if changing_count else "No segment changes"
    # Thickness is explained only where it differs.
    weight_sentence = f" Thicker lines have {weight_meaning}." if len({curve.weight for curve in curves}) > 1 else ""
    return f"{change_clause} sign inside the {interval_name} of tau.{weight_sentence}"


def _draw_key(canvas: Canvas, key_rows: Sequence[Sequence[tuple[str, str]]], key_top: float) -> None:
    for row_index, key_row in enumerate(key_rows):
        x, y = MARGIN, key_top + (row_index + 0.5) * compute_leading(SMALL_SIZE)
        for meaning, mark_kind in key_row:
            other_marks = {"band": (canvas.theme.interval_color, 8.0), "median": (canvas.theme.pooled_color, 1.0)}
            color, line_width = other_marks.get(mark_kind) or (map_curve_colors(canvas.theme)[mark_kind], 1.8)
            mark_name = f"{KEY_PREFIX}{_KEY_MARKS[mark_kind]}"
            key_mark = Line2D([x, x + _KEY_MARK_WIDTH - 6], [y, y], zorder=1, gid=mark_name)
            if mark_kind == "median":
                key_mark.set_linestyle(DASH_PATTERN)
            key_mark.set(color=color, linewidth=line_width * canvas.shrink_factor, solid_capstyle="butt")
            canvas.axes.add_line(key_mark)
            canvas.write_line(
                x + _KEY_MARK_WIDTH, y, meaning, TextStyle(SMALL_SIZE, canvas.theme.quiet_color, mark=mark_name)
            )
            x += _KEY_MARK_WIDTH + measure_width(meaning, SMALL_SIZE) + _KEY_GAP
