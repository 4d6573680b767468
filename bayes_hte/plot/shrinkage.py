"""The shrinkage plot: how far pooling moved each segment, against how much was known about it."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from bayes_hte._support.phrases import shorten_text
from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.plot.arrangement import LAYOUT_NAMES, MAX_POINT_SEGMENTS, arrange_blocks, require_segment_limit
from bayes_hte.plot.drawing.axis import label_effect_axis
from bayes_hte.plot.drawing.canvas import (
    Canvas,
    TextStyle,
    compute_leading,
    measure_target,
    open_canvas,
)
from bayes_hte.plot.drawing.panel import (
    SMALL_SIZE,
    TEXT_SIZE,
    choose_information,
    choose_panel_axes,
    draw_panel,
    select_plottable,
)
from bayes_hte.plot.drawing.text import cut_to_width, measure_width, wrap_text
from bayes_hte.plot.drawing.theme import DEFAULT_THEME, Theme
from bayes_hte.plot.drawing.visuals import KEY_PREFIX, Visuals, require_known_visuals, restyle_marks
from bayes_hte.plot.rows import ArmBlock, read_blocks

SHRINKAGE_MARKS = (
    "title",
    "axis_label",
    "heading",
    "label",
    "note",
    "key",
    "grid",
    "zero_line",
    "ate_interval",
    "ate_line",
    "ate_label",
    "move",
    "raw_point",
    "raw_arrow",
    "point",
)
"""Names of the marks that `visuals` can restyle or leave out."""
_TITLE_SIZE, _MARGIN = 13.0, 14.0
_PAGE_WIDTH, _PHONE_WIDTH, _MIN_WIDTH = 620.0, 390.0, 260.0
_PANEL_HEIGHT, _MIN_PANEL_HEIGHT = 260.0, 120.0  # in a place that is low the panels are
# Design points, as all lengths here. Left and right there is room for the tick labels, and for "ATE".
_LEFT_WIDTH, _RIGHT_WIDTH = 56.0, 42.0
_HEADING_HEIGHT, _AXIS_HEIGHT = 26.0, 48.0


def draw_shrinkage(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
    table: pd.DataFrame,
    ate: pd.DataFrame,
    *,
    dimensions: Sequence[str],
    unit: str = "",
    percent: bool = False,
    axis_label: str | None = None,
    pooled: str = "partially pooled",
    labels: int = 6,
    max_segments: int | None = MAX_POINT_SEGMENTS,
    layout: Literal["wide", "narrow"] = "wide",
    title: str | None = None,
    caption: str | None = None,
    figure: Figure | SubFigure | None = None,
    ax: Axes | None = None,
    visuals: Visuals | None = None,
    theme: Theme = DEFAULT_THEME,
) -> Figure | SubFigure:
    """Draw arrows from each segment's raw estimate to its pooled one, small segments on the left.

    Parameters
    ----------
    table, ate : DataFrame
        As for `draw_forest`.
    dimensions : sequence of str
        Columns that hold the levels of a segment.
    unit : str
        What the effect is a change in.
    percent : bool
        Show effects times 100, as percentage points.
    pooled : str
        What the dark estimates are called.
    axis_label : str, optional
        Replaces the axis label made from `unit` and `percent`.
    labels : int
        How many segments are named in each panel, as far as there is room: the largest effects, the smallest, and
        those that moved most.
    max_segments : int or None
        As for `draw_forest`.
    layout : {"wide", "narrow"}
        ``"narrow"`` is 390 points wide, for a phone.
    title, caption : str, optional
        Text above and below the plot.
    figure : Figure or SubFigure, optional
        Drawn into this, shrunk as a whole if it is too small; otherwise into a new figure.
    ax : Axes, optional
        Drawn into the place of this instead; its own axis is hidden.
    visuals : mapping, optional
        As for `draw_forest`; the marks are `SHRINKAGE_MARKS`.
    theme : Theme
        Colours.

    Returns
    -------
    Figure or SubFigure
        The figure that was given, or that holds `ax`, or a new one.

    Raises
    ------
    ArgumentError
        If both `figure` and `ax` are given or are too small to be read, an option has a value that it cannot take,
        or `visuals` names an unknown mark.
    DataError
        If a column is missing, or no segment has a raw estimate.

    Notes
    -----
    The horizontal axis is the number of units in the smaller arm; where units are unknown, the precision of
    the raw estimate. There is one panel per arm, with common axes. The band is the interval of the average
    effect. An arrow whose raw estimate lies far outside starts at the edge.

    Examples
    --------
    >>> import pandas as pd
    >>> numbers = {"effect": 0.08, "ci_low": 0.06, "ci_high": 0.1, "p_positive": 0.9999}
    >>> row = {"device": "mobile", "arm": "new", "n_control": 90, "n_treated": 95, "raw": 0.09, **numbers}
    >>> ate = pd.DataFrame([{"arm": "new", **numbers}])
    >>> figure = draw_shrinkage(pd.DataFrame([row]), ate, dimensions=["device"], percent=True)
    >>> round(float(figure.get_figwidth()), 1)
    8.6
    """
    visuals = require_known_visuals(visuals, SHRINKAGE_MARKS)
    if figure is not None and ax is not None:
        raise ArgumentError("both figure and ax are given; give the one to draw into")
    effect_factor = 100.0 if percent else 1.0
    if layout not in LAYOUT_NAMES:
        raise ArgumentError(f"no layout {describe_value(layout)}; there are {', '.join(LAYOUT_NAMES)}")
    require_segment_limit(max_segments)
    all_blocks = read_blocks(table, ate, dimension_names=dimensions, group_by=None, effect_factor=effect_factor)
    arm_blocks, selection_note = arrange_blocks(all_blocks, "given", max_segments)
    if not _count_plottable(arm_blocks):
        raise DataError("no segment has a raw estimate, so there is no shrinkage to plot")
    effect_label = label_effect_axis(unit, percent=percent) if axis_label is None else axis_label
    drawing_target = ax if ax is not None else figure
    target_size = measure_target(drawing_target)
    own_width = _PAGE_WIDTH if layout == "wide" else _PHONE_WIDTH
    # In between the design is as wide as its place: text keeps its size, the panels give way.
    figure_width = max(_MIN_WIDTH, target_size[0]) if target_size else own_width
    title_lines, note_lines = _wrap_title_and_notes(
        title, _write_notes(all_blocks, selection_note, caption), figure_width
    )
    panels_top = _MARGIN + len(title_lines) * compute_leading(_TITLE_SIZE) + compute_leading(TEXT_SIZE) + 8
    heading_height = _HEADING_HEIGHT if len(arm_blocks) > 1 else 0.0
    key_rows = _lay_out_key(pooled, figure_width)
    # A line more than key and notes have: a margin below.
    footer_height = (len(key_rows) + len(note_lines) + 1) * compute_leading(SMALL_SIZE)
    panel_height = _PANEL_HEIGHT
    if target_size:
        free_height = (target_size[1] - panels_top - footer_height) / len(arm_blocks) - heading_height - _AXIS_HEIGHT
        panel_height = min(max(free_height, _MIN_PANEL_HEIGHT), _PANEL_HEIGHT)
    panels_height = len(arm_blocks) * (heading_height + panel_height + _AXIS_HEIGHT)
    canvas = open_canvas(drawing_target, figure_width, panels_top + panels_height + footer_height, theme)

    _write_head(canvas, title_lines, effect_label, panels_top)
    # Common axes: arms can be compared by eye.
    panel_axes = choose_panel_axes(arm_blocks)
    for panel_index, block in enumerate(arm_blocks):
        panel_top = panels_top + panel_index * (heading_height + panel_height + _AXIS_HEIGHT)
        if heading_height:
            canvas.write_line(
                _MARGIN,
                panel_top + heading_height / 2,
                shorten_text(block.arm),
                TextStyle(TEXT_SIZE, bold=True, mark="heading"),
            )
        panel_box = (_LEFT_WIDTH, panel_top + heading_height, canvas.width - _LEFT_WIDTH - _RIGHT_WIDTH, panel_height)
        draw_panel(canvas, block, panel_axes, panel_box, labels)
    _draw_key(canvas, key_rows, panels_top + panels_height)
    canvas.write_lines(
        _MARGIN,
        panels_top + panels_height + (len(key_rows) + 0.5) * compute_leading(SMALL_SIZE),
        note_lines,
        TextStyle(SMALL_SIZE, canvas.theme.quiet_color, mark="note"),
    )
    restyle_marks(canvas.axes, visuals)
    drawn_figure = canvas.axes.get_figure()
    assert drawn_figure is not None  # noqa: S101 - only for the type checker: the axes was just drawn on
    return drawn_figure


def _write_head(canvas: Canvas, title_lines: list[str], effect_label: str, panels_top: float) -> None:
    """Write the title, and what the vertical axis measures above the first panel."""
    canvas.write_lines(
        _MARGIN,
        _MARGIN / 2 + compute_leading(_TITLE_SIZE) / 2,
        title_lines,
        TextStyle(_TITLE_SIZE, bold=True, mark="title"),
    )
    canvas.write_line(
        _MARGIN,
        panels_top - 8 - compute_leading(TEXT_SIZE) / 2,
        cut_to_width(effect_label, canvas.width - 2 * _MARGIN, TEXT_SIZE),
        TextStyle(TEXT_SIZE, canvas.theme.quiet_color, mark="axis_label"),
    )


def _count_plottable(arm_blocks: Sequence[ArmBlock]) -> int:
    """Count the estimates that the plot can show."""
    estimates = [estimate for block in arm_blocks for estimate in block.estimates]
    return len(select_plottable(estimates, choose_information(estimates)))


def _wrap_title_and_notes(
    title: str | None, footnotes: Sequence[str], figure_width: float
) -> tuple[list[str], list[str]]:
    """Wrap the title and the footnotes into lines that fit between the margins of a figure."""
    text_width = figure_width - 2 * _MARGIN
    # Bold letters are a tenth wider than the plain ones that are measured.
    title_lines = wrap_text(title or "", text_width / 1.1, _TITLE_SIZE)
    return title_lines, [line for footnote in footnotes for line in wrap_text(footnote, text_width, SMALL_SIZE)]


def _write_notes(arm_blocks: Sequence[ArmBlock], selection_note: str, caption: str | None) -> list[str]:
    segment_count = sum(len(block.estimates) for block in arm_blocks)
    absent_count = segment_count - _count_plottable(arm_blocks)
    absence_note = (
        f"{absent_count} of {segment_count} segments have no raw estimate of their own and are not shown."
        if absent_count
        else ""
    )
    return [text for text in (absence_note, selection_note, caption) if text]


_KEY_TEXT_START, _KEY_GAP = 20.0, 16.0  # from the start of a mark to its text, and from there to the next mark


def _lay_out_key(pooled_name: str, figure_width: float) -> list[list[tuple[str, str]]]:
    """Lay out the marks and their meanings, as many to a row as there is room for."""
    key_items = [
        ("raw_point", "raw, not pooled"),
        ("point", pooled_name),
        ("ate_interval", "interval of the average (ATE)"),
    ]
    key_rows: list[list[tuple[str, str]]] = [[]]
    for key_item in key_items:
        row_width = sum(
            _KEY_TEXT_START + measure_width(meaning, SMALL_SIZE) + _KEY_GAP for _, meaning in (*key_rows[-1], key_item)
        )
        if key_rows[-1] and row_width - _KEY_GAP > figure_width - 2 * _MARGIN:
            key_rows.append([])
        key_rows[-1].append(key_item)
    return key_rows


def _draw_key(canvas: Canvas, key_rows: Sequence[Sequence[tuple[str, str]]], key_top: float) -> None:
    for row_index, key_row in enumerate(key_rows):
        x, y = _MARGIN, key_top + (row_index + 0.5) * compute_leading(SMALL_SIZE)
        for mark, meaning in key_row:
            _draw_key_mark(canvas, mark, (x, y))
            text_style = TextStyle(SMALL_SIZE, canvas.theme.quiet_color, mark=f"{KEY_PREFIX}{mark}")
            canvas.write_line(x + _KEY_TEXT_START, y, meaning, text_style)
            x += _KEY_TEXT_START + measure_width(meaning, SMALL_SIZE) + _KEY_GAP


def _draw_key_mark(canvas: Canvas, mark: str, place: tuple[float, float]) -> None:
    """Draw one mark of the key at its left end and the middle of its height."""
    (x, y), shrink_factor = place, canvas.shrink_factor
    if mark == "ate_interval":
        canvas.fill_box((x, y - 4, 14, 8), canvas.theme.tail_color, f"{KEY_PREFIX}{mark}")
    elif mark == "raw_point":
        canvas.axes.scatter(
            [x + 7],
            [y],
            s=(4.4 * shrink_factor) ** 2,
            facecolor=canvas.theme.paper_color,
            edgecolor=canvas.theme.raw_color,
            linewidth=1.1 * shrink_factor,
            gid=f"{KEY_PREFIX}{mark}",
        )
    else:
        # An arrow may point both ways: the key shows one of each, side by side.
        for x_offset, marker in ((4, "^"), (12, "v")):
            canvas.axes.scatter(
                [x + x_offset],
                [y],
                s=(6.0 * shrink_factor) ** 2,
                color=canvas.theme.pooled_color,
                linewidth=0,
                marker=marker,
                gid=f"{KEY_PREFIX}{mark}",
            )
