"""The layout for paper and desktop: one line per segment, text left and right of the bars."""

from dataclasses import dataclass

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
from bayes_hte.plot.drawing.text import measure_widest, measure_width, wrap_text
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

# All lengths are design points.
_TEXT_SIZE, _SMALL_SIZE, _TITLE_SIZE = 11.0, 10.0, 13.0
_MARGIN, _GAP, _INDENT = 14.0, 18.0, 12.0
_MIN_WIDTH, _MIN_BARS_WIDTH = 860.0, 300.0  # long names widen the figure before they narrow the bars
_HEADER_HEIGHT, _AXIS_HEIGHT = 26.0, 22.0
_ROW_HEIGHTS: dict[RowKind, float] = {"arm": 28.0, "group": 24.0, "segment": 22.0, "ate": 26.0}
_MAX_ARM_COLUMNS = 16  # twice the width of a count of units: a longer name would spread the columns


@dataclass(frozen=True, slots=True)
class _ColumnPositions:
    """Ends of the columns, which are set flush right, and both ends of the bars, in design points."""

    control: float
    treated: float
    bars: tuple[float, float]
    effect: float
    interval: float
    probability: float


@dataclass(frozen=True, slots=True)
class _NumberTexts:
    """Text of the columns of numbers, one entry per row with numbers."""

    effects: list[str]
    intervals: list[str]
    probabilities: list[str]


def draw_wide(content: ForestContent, drawing_target: DrawingTarget, theme: Theme) -> Canvas:
    """Draw the forest plot for paper and desktop, and return its canvas."""
    number_texts = _format_numbers(content)
    left_width, right_width = _measure_left(content), _measure_right(content, number_texts)
    natural_width = max(_MIN_WIDTH, left_width + _MIN_BARS_WIDTH + right_width)
    target_size = measure_target(drawing_target)
    figure_width = max(natural_width, target_size[0]) if target_size else natural_width
    title_lines = wrap_text(content.title, figure_width - 2 * _MARGIN, _TITLE_SIZE)
    header_bottom = _MARGIN / 2 + len(title_lines) * compute_leading(_TITLE_SIZE) + _HEADER_HEIGHT
    rows_top = header_bottom + (_AXIS_HEIGHT if content.is_tall else 0.0)
    rows = stack_rows(content, _measure_row, rows_top)
    rows_bottom = rows[-1].top + rows[-1].height
    label_lines = content.wrap_axis_label(figure_width - left_width - right_width + 2 * _GAP, _TEXT_SIZE)
    footer_top = rows_bottom + _AXIS_HEIGHT + len(label_lines) * compute_leading(_TEXT_SIZE) + 8
    figure_height = footer_top + measure_footer(content, figure_width - 2 * _MARGIN, _SMALL_SIZE) + _MARGIN / 2

    canvas = open_canvas(drawing_target, natural_width, figure_height, theme)
    column_positions = _place_columns(content, number_texts, canvas.width)
    canvas.write_lines(
        _MARGIN,
        _MARGIN / 2 + compute_leading(_TITLE_SIZE) / 2,
        title_lines,
        TextStyle(_TITLE_SIZE, bold=True, mark="title"),
    )
    _draw_header(canvas, content, column_positions, header_bottom)
    _draw_text(canvas, content, column_positions, rows, number_texts)
    _draw_bars(canvas, content, column_positions, rows)
    bars_middle = sum(column_positions.bars) / 2
    canvas.write_lines(
        bars_middle,
        rows_bottom + _AXIS_HEIGHT + compute_leading(_TEXT_SIZE) / 2,
        label_lines,
        TextStyle(_TEXT_SIZE, mark="axis_label"),
        "center",
    )
    draw_footer(canvas, content, footer_top, side_margin=_MARGIN, font_size=_SMALL_SIZE)
    return canvas


def _measure_row(row_kind: RowKind, printed_name: str) -> float:
    """Look up the height of a row; in this layout every name has one line."""
    return _ROW_HEIGHTS[row_kind]


def _format_numbers(content: ForestContent) -> _NumberTexts:
    return _NumberTexts(
        [format_number(estimate.effect, content.decimal_places) for estimate in content.estimates],
        [
            f"({format_interval(estimate.ci_low, estimate.ci_high, content.decimal_places)})"
            for estimate in content.estimates
        ],
        [format_percent_probability(estimate.p_positive) for estimate in content.estimates],
    )


def _measure_left(content: ForestContent) -> float:
    return _MARGIN + _measure_labels(content) + _GAP + sum(_measure_counts(content))


def _measure_labels(content: ForestContent) -> float:
    rows = stack_rows(content, _measure_row, 0.0)
    plain_width = measure_widest((row.printed_name for row in rows if row.row_kind == "segment"), _TEXT_SIZE)
    bold_width = measure_widest((row.printed_name for row in rows if row.row_kind != "segment"), _TEXT_SIZE, bold=True)
    return max(
        plain_width + _choose_indent(content),
        bold_width,
        measure_width(shorten_text(content.label_heading), _TEXT_SIZE),
    )


def _choose_indent(content: ForestContent) -> float:
    return _INDENT if any(row.row_kind in {"arm", "group"} for row in stack_rows(content, _measure_row, 0.0)) else 0.0


def _measure_counts(content: ForestContent) -> tuple[float, float]:
    """Measure the two columns of units, each with the gap after it, in points."""
    if not content.has_counts:
        return 0.0, 0.0
    control_width = measure_widest(
        (format_count(estimate.n_control) for estimate in content.estimates), _TEXT_SIZE, bold=True
    )
    treated_width = measure_widest(
        (format_count(estimate.n_treated) for estimate in content.estimates), _TEXT_SIZE, bold=True
    )
    return (
        max(control_width, measure_width(_shorten_arm(content.control_name), _TEXT_SIZE)) + _GAP,
        max(treated_width, measure_width(_shorten_arm(content.treated_name), _TEXT_SIZE)) + _GAP,
    )


def _shorten_arm(arm_name: str) -> str:
    return shorten_text(arm_name, _MAX_ARM_COLUMNS)


def _measure_right(content: ForestContent, number_texts: _NumberTexts) -> float:
    return _GAP + sum(_measure_numbers(content, number_texts)) + _MARGIN


def _measure_numbers(content: ForestContent, number_texts: _NumberTexts) -> tuple[float, float, float]:
    """Measure the columns of effect, interval and probability with the gaps between them, in points."""
    effect_width = measure_widest(number_texts.effects, _TEXT_SIZE, bold=True)
    interval_width = measure_widest(number_texts.intervals, _TEXT_SIZE, bold=True)
    header_width = measure_width(_write_effect_header(content), _TEXT_SIZE)
    probability_width = max(
        measure_widest(number_texts.probabilities, _TEXT_SIZE, bold=True), measure_width("P(> 0)", _TEXT_SIZE)
    )
    # Effect and interval stand 8 points apart, under one header that may be wider than both.
    return effect_width, max(interval_width + 8, header_width - effect_width), probability_width + _GAP


def _write_effect_header(content: ForestContent) -> str:
    return f"Effect ({content.interval_name})"


def _place_columns(content: ForestContent, number_texts: _NumberTexts, figure_width: float) -> _ColumnPositions:
    control_width, treated_width = _measure_counts(content)
    counts_left = _MARGIN + _measure_labels(content) + _GAP
    effect_width, interval_width, probability_width = _measure_numbers(content, number_texts)
    # What a wider figure has to spare goes to the bars.
    bars_right = figure_width - _measure_right(content, number_texts)
    return _ColumnPositions(
        control=counts_left + control_width - _GAP,
        treated=counts_left + control_width + treated_width - _GAP,
        bars=(counts_left + control_width + treated_width, bars_right),
        effect=bars_right + _GAP + effect_width,
        interval=bars_right + _GAP + effect_width + interval_width,
        probability=bars_right + _GAP + effect_width + interval_width + probability_width,
    )


def _draw_header(
    canvas: Canvas, content: ForestContent, column_positions: _ColumnPositions, header_bottom: float
) -> None:
    y, text_style = header_bottom - _HEADER_HEIGHT / 2, TextStyle(_TEXT_SIZE, canvas.theme.quiet_color, mark="header")
    canvas.write_line(_MARGIN, y, shorten_text(content.label_heading), text_style)
    if content.has_counts:
        canvas.write_line(column_positions.control, y, _shorten_arm(content.control_name), text_style, "right")
        canvas.write_line(column_positions.treated, y, _shorten_arm(content.treated_name), text_style, "right")
    canvas.write_line(column_positions.interval, y, _write_effect_header(content), text_style, "right")
    canvas.write_line(column_positions.probability, y, "P(> 0)", text_style, "right")
    canvas.draw_rule(header_bottom, _MARGIN, canvas.width - _MARGIN)


def _draw_text(
    canvas: Canvas,
    content: ForestContent,
    column_positions: _ColumnPositions,
    rows: list[LayoutRow],
    number_texts: _NumberTexts,
) -> None:
    row_texts = iter(zip(number_texts.effects, number_texts.intervals, number_texts.probabilities, strict=True))
    indent, is_striped = _choose_indent(content), False
    for row in rows:
        y, is_bold = row.y_middle, row.row_kind != "segment"
        # Every second segment is shaded, and the first below each heading.
        is_striped = row.row_kind == "segment" and not is_striped
        color, band_mark = (
            (canvas.theme.heading_band_color, "heading_band")
            if row.row_kind == "arm"
            else (canvas.theme.stripe_color, "stripe")
        )
        if is_striped or row.row_kind == "arm":
            canvas.fill_box((_MARGIN, row.top, canvas.width - 2 * _MARGIN, row.height), color, band_mark)
        canvas.write_line(
            _MARGIN + (0 if is_bold else indent) + (4 if row.row_kind == "arm" else 0),
            y,
            row.printed_name,
            TextStyle(_TEXT_SIZE, bold=is_bold, mark=LABEL_MARKS[row.row_kind]),
        )
        if row.row_kind in {"arm", "group"}:
            continue
        number_style = TextStyle(_TEXT_SIZE, bold=is_bold, mark="number")
        if content.has_counts:
            canvas.write_line(
                column_positions.control,
                y,
                format_count(row.estimate.n_control),
                number_style,
                "right",
            )
            canvas.write_line(
                column_positions.treated,
                y,
                format_count(row.estimate.n_treated),
                number_style,
                "right",
            )
        column_ends = (column_positions.effect, column_positions.interval, column_positions.probability)
        for x, text in zip(column_ends, next(row_texts), strict=True):
            canvas.write_line(x, y, text, number_style, "right")
        if row.row_kind == "ate":
            canvas.draw_rule(row.top, _MARGIN, canvas.width - _MARGIN)


def _draw_bars(
    canvas: Canvas, content: ForestContent, column_positions: _ColumnPositions, rows: list[LayoutRow]
) -> None:
    left, right = column_positions.bars
    top, bottom = rows[0].top, rows[-1].top + rows[-1].height
    axes = canvas.add_inset_axes((left, top, right - left, bottom - top))
    axis_limits = bars.choose_axis_limits(content.arm_blocks, content.ci_prob)
    tick_positions = bars.draw_axis(
        axes,
        axis_limits,
        axis_width=right - left,
        font_size=_TEXT_SIZE,
        canvas=canvas,
        at_top_too=content.is_tall,
    )
    guide_bands = []
    for block_index, block in enumerate(content.arm_blocks):
        block_rows = [row for row in rows if row.block_index == block_index and row.row_kind != "arm"]
        guide_bands.append(
            bars.GuideBand(block_rows[0].top, block_rows[-1].top + block_rows[-1].height, block.ate.effect)
        )
        if not block.ate.is_known:
            continue
        x = left + (block.ate.effect - axis_limits[0]) / (axis_limits[1] - axis_limits[0]) * (right - left)
        # The label stays within the bars: near their end it would run into the numbers.
        half_width = measure_width("ATE", _SMALL_SIZE) / 2
        canvas.write_line(
            min(max(x, left + half_width), right - half_width),
            # Above the upper axis, where there is one right over the rows.
            block_rows[0].top - 9 - (_AXIS_HEIGHT + 2 if content.is_tall and block_rows[0] is rows[0] else 0),
            "ATE",
            TextStyle(_SMALL_SIZE, canvas.theme.pooled_color, mark="ate_label"),
            "center",
        )
    bars.draw_guides(axes, guide_bands, tick_positions, canvas=canvas)
    placed_estimates = [
        bars.PlacedEstimate(row.estimate, row.y_middle, row.point_side) for row in rows if row.row_kind == "segment"
    ]
    bars.draw_estimates(axes, placed_estimates, ci_prob=content.ci_prob, canvas=canvas)
    for row in rows:
        if row.row_kind == "ate" and row.estimate.is_known:
            bars.draw_diamond(axes, bars.PlacedEstimate(row.estimate, row.y_middle), canvas=canvas)
