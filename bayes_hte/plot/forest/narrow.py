"""The layout for a phone: a segment's name and numbers above its bar, which has the full width."""

from bayes_hte._support.phrases import (
    format_count,
    format_interval,
    format_number,
    format_percent_probability,
    shorten_text,
)
from bayes_hte.plot.drawing.canvas import (
    Canvas,
    DrawingTarget,
    TextStyle,
    compute_leading,
    measure_target,
    open_canvas,
)
from bayes_hte.plot.drawing.text import cut_to_width, measure_widest, measure_width, wrap_text
from bayes_hte.plot.drawing.theme import Theme
from bayes_hte.plot.forest import bars
from bayes_hte.plot.forest.page import (
    LABEL_MARKS,
    ForestContent,
    LayoutRow,
    RowKind,
    draw_footer,
    measure_footer,
    stack_rows,
)

_MIN_WIDTH = 390.0  # one design point is one CSS pixel of a common phone
# All lengths are design points; text is larger than on paper, because a phone is read at arm's length.
_TEXT_SIZE, _SMALL_SIZE, _TITLE_SIZE = 13.0, 11.5, 15.0
_MARGIN, _GAP = 12.0, 14.0
_BAND_HEIGHT, _TEXT_HEIGHT = 26.0, 35.0
_ROW_HEIGHTS: dict[RowKind, float] = {
    "arm": 28.0,
    "group": 28.0,
    "segment": _TEXT_HEIGHT + _BAND_HEIGHT,
    "ate": _TEXT_HEIGHT + _BAND_HEIGHT,
}
_HEADER_HEIGHT, _AXIS_HEIGHT = 40.0, 24.0


def draw_narrow(content: ForestContent, drawing_target: DrawingTarget, theme: Theme) -> Canvas:
    """Draw the forest plot for a phone, and return its canvas."""
    target_size = measure_target(drawing_target)
    figure_width = max(_MIN_WIDTH, target_size[0]) if target_size else _MIN_WIDTH
    title_lines = wrap_text(content.title, figure_width - 2 * _MARGIN, _TITLE_SIZE * 1.05)  # bold is wider
    header_bottom = _MARGIN / 2 + len(title_lines) * compute_leading(_TITLE_SIZE) + _HEADER_HEIGHT
    rows_top = header_bottom + (_AXIS_HEIGHT if content.is_tall else 0.0)
    name_room = _measure_name_room(content, figure_width)
    rows = stack_rows(
        content,
        lambda row_kind, printed_name: _ROW_HEIGHTS[row_kind] + _measure_second_line(row_kind, printed_name, name_room),
        rows_top,
    )
    rows_bottom = rows[-1].top + rows[-1].height
    label_lines = content.wrap_axis_label(figure_width - 2 * _MARGIN, _SMALL_SIZE)
    footer_top = rows_bottom + _AXIS_HEIGHT + len(label_lines) * compute_leading(_SMALL_SIZE) + 8
    figure_height = footer_top + measure_footer(content, figure_width - 2 * _MARGIN, _SMALL_SIZE) + _MARGIN / 2

    canvas = open_canvas(drawing_target, _MIN_WIDTH, figure_height, theme)
    canvas.write_lines(
        _MARGIN,
        _MARGIN / 2 + compute_leading(_TITLE_SIZE) / 2,
        title_lines,
        TextStyle(_TITLE_SIZE, bold=True, mark="title"),
    )
    _draw_header(canvas, content, header_bottom)
    for row in rows:
        _draw_text(canvas, content, row, name_room)
    _draw_bars(canvas, content, rows)
    canvas.write_lines(
        canvas.width / 2,
        rows_bottom + _AXIS_HEIGHT + compute_leading(_SMALL_SIZE) / 2,
        label_lines,
        TextStyle(_SMALL_SIZE, mark="axis_label"),
        "center",
    )
    draw_footer(canvas, content, footer_top, side_margin=_MARGIN, font_size=_SMALL_SIZE)
    return canvas


def _draw_header(canvas: Canvas, content: ForestContent, header_bottom: float) -> None:
    header_style = TextStyle(_SMALL_SIZE, canvas.theme.quiet_color, mark="header")
    right, first_y, second_y = canvas.width - _MARGIN, header_bottom - 29, header_bottom - 13
    probability_width = _measure_probability(content)
    effect_end = right - probability_width - _GAP
    heading_room = effect_end - measure_width("Effect", _SMALL_SIZE) - _GAP - _MARGIN
    canvas.write_line(
        _MARGIN,
        first_y,
        cut_to_width(content.label_heading, heading_room, _SMALL_SIZE),
        header_style,
    )
    canvas.write_line(effect_end, first_y, "Effect", header_style, "right")
    canvas.write_line(right, first_y, "P(> 0)", header_style, "right")
    canvas.write_line(right, second_y, content.interval_name, header_style, "right")
    if content.has_counts:
        arm_names = f"{shorten_text(content.control_name, 16)} / {shorten_text(content.treated_name, 16)}"
        names_room = right - measure_width(content.interval_name, _SMALL_SIZE) - _GAP - _MARGIN
        canvas.write_line(_MARGIN, second_y, cut_to_width(arm_names, names_room, _SMALL_SIZE), header_style)
    canvas.draw_rule(header_bottom, _MARGIN, right)


def _measure_probability(content: ForestContent) -> float:
    # "> 99.9 %" is the widest that a probability can be.
    return max(measure_width("P(> 0)", _SMALL_SIZE), measure_width("> 99.9 %", _TEXT_SIZE, bold=True))


def _measure_name_room(content: ForestContent, figure_width: float) -> float:
    """Measure the width left for names beside the widest effect, in points."""
    effect_width = measure_widest(
        (format_number(estimate.effect, content.decimal_places) for estimate in content.estimates),
        _TEXT_SIZE,
        bold=True,
    )
    return figure_width - 2 * _MARGIN - _measure_probability(content) - effect_width - 2 * _GAP


def _wrap_name(segment_name: str, name_room: float) -> list[str]:
    """Wrap a name on at most two lines; the second is cut where it is too long."""
    first_line, *other_lines = wrap_text(segment_name, name_room, _TEXT_SIZE) or [""]
    return [first_line, cut_to_width(" ".join(other_lines), name_room, _TEXT_SIZE)] if other_lines else [first_line]


def _measure_second_line(row_kind: RowKind, segment_name: str, name_room: float) -> float:
    """Measure the height that a name's second line adds, in points."""
    return (
        compute_leading(_TEXT_SIZE) * (len(_wrap_name(segment_name, name_room)) - 1) if row_kind == "segment" else 0.0
    )


def _draw_heading(canvas: Canvas, row: LayoutRow) -> None:
    inset = 0.0
    if row.row_kind == "arm":
        canvas.fill_box(
            (_MARGIN, row.top, canvas.width - 2 * _MARGIN, row.height), canvas.theme.heading_band_color, "heading_band"
        )
        inset = 6.0
    heading_text = cut_to_width(row.printed_name, (canvas.width - 3 * _MARGIN) / 1.12, _TEXT_SIZE)  # bold is wider
    canvas.write_line(_MARGIN + inset, row.y_middle, heading_text, TextStyle(_TEXT_SIZE, bold=True, mark="heading"))


def _draw_text(canvas: Canvas, content: ForestContent, row: LayoutRow, name_room: float) -> None:
    if row.row_kind in {"arm", "group"}:
        _draw_heading(canvas, row)
        return
    right, name_y = canvas.width - _MARGIN, row.top + 11
    interval_y = name_y + 16 + _measure_second_line(row.row_kind, row.printed_name, name_room)
    is_bold = row.row_kind == "ate"
    name_style = TextStyle(_TEXT_SIZE, bold=is_bold, mark=LABEL_MARKS[row.row_kind])
    number_style = TextStyle(_TEXT_SIZE, bold=is_bold, mark="number")
    small_style = TextStyle(_SMALL_SIZE, canvas.theme.quiet_color, mark="number")
    effect_end = right - _measure_probability(content) - _GAP
    canvas.write_lines(_MARGIN, name_y, _wrap_name(row.printed_name, name_room), name_style)
    canvas.write_line(
        effect_end, name_y, format_number(row.estimate.effect, content.decimal_places), number_style, "right"
    )
    canvas.write_line(right, name_y, format_percent_probability(row.estimate.p_positive), number_style, "right")
    canvas.write_line(
        right,
        interval_y,
        format_interval(row.estimate.ci_low, row.estimate.ci_high, content.decimal_places),
        small_style,
        "right",
    )
    if content.has_counts:
        counts_text = f"{format_count(row.estimate.n_control)} / {format_count(row.estimate.n_treated)}"
        canvas.write_line(_MARGIN, interval_y, counts_text, small_style)


def _draw_bars(canvas: Canvas, content: ForestContent, rows: list[LayoutRow]) -> None:
    top, bottom = rows[0].top, rows[-1].top + rows[-1].height
    bars_width = canvas.width - 2 * _MARGIN
    axes = canvas.add_inset_axes((_MARGIN, top, bars_width, bottom - top))
    axis_limits = bars.choose_axis_limits(content.arm_blocks, content.ci_prob)
    tick_positions = bars.draw_axis(
        axes,
        axis_limits,
        axis_width=bars_width,
        font_size=_SMALL_SIZE,
        canvas=canvas,
        at_top_too=content.is_tall,
    )
    placed_estimates, guide_bands = [], []
    for row in rows:
        if row.row_kind in {"arm", "group"}:
            continue
        row_bottom = row.top + row.height
        band = (row_bottom - _BAND_HEIGHT, row_bottom - 4)
        canvas.fill_box((_MARGIN, band[0], bars_width, band[1] - band[0]), canvas.theme.stripe_color, "stripe")
        guide_bands.append(bars.GuideBand(*band, content.arm_blocks[row.block_index].ate.effect))
        placed_estimate = bars.PlacedEstimate(row.estimate, sum(band) / 2, row.point_side)
        if row.row_kind == "ate" and row.estimate.is_known:
            bars.draw_diamond(axes, placed_estimate, canvas=canvas)
        elif row.row_kind == "segment":
            placed_estimates.append(placed_estimate)
    bars.draw_guides(axes, guide_bands, tick_positions, canvas=canvas)
    bars.draw_estimates(axes, placed_estimates, ci_prob=content.ci_prob, canvas=canvas)
