"""The content of a forest plot, whatever its layout: rows, headings, legend and notes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from bayes_hte._support.phrases import MAX_LABEL_COLUMNS, choose_decimals, format_percentage, shorten_text
from bayes_hte.plot.drawing.canvas import (
    Canvas,
    TextStyle,
    compute_leading,
)
from bayes_hte.plot.drawing.text import measure_width, wrap_text
from bayes_hte.plot.drawing.visuals import KEY_PREFIX
from bayes_hte.plot.forest.bars import MAX_POINT_SIDE, TALL_ROW_COUNT, compute_point_sides
from bayes_hte.plot.rows import ArmBlock, Estimate, weigh_estimates

RowKind = Literal["arm", "group", "segment", "ate"]
LegendMark = Literal["raw", "pooled", "ate", "clipped"]
_POINT_MARKS: dict[LegendMark, str] = {"raw": "raw_point", "pooled": "point", "ate": "ate_diamond", "clipped": "arrow"}
LABEL_MARKS: dict[RowKind, str] = {"arm": "heading", "group": "heading", "segment": "label", "ate": "label"}
"""Mark that the name of a row is, by kind of row."""
LACKS_ARM_MARK = " †"
LACKS_ARM_NOTE = "† not seen in one arm: the estimate comes from the prior and other segments"
_LEGEND_GAP = 18.0  # points from the end of a text to the next mark
_LEGEND_MARK_WIDTH = 22.0  # points from the start of a mark to its text


@dataclass(frozen=True, slots=True)
class ForestContent:
    """Rows, names and notes of a forest plot, before they have a place."""

    arm_blocks: tuple[ArmBlock, ...]
    label_heading: str
    control_name: str
    ci_prob: float
    axis_label: str
    pooled_name: str
    title: str
    caption: str
    has_clipping: bool

    @property
    def estimates(self) -> list[Estimate]:
        """Every row with numbers, averages included."""
        return [estimate for block in self.arm_blocks for estimate in (*block.estimates, block.ate)]

    @property
    def decimal_places(self) -> int:
        """Decimals of every effect."""
        return choose_decimals(estimate.ci_high - estimate.ci_low for estimate in self.estimates)

    @property
    def is_tall(self) -> bool:
        """Whether the axis stands above the rows as well as below them."""
        return sum(len(block.estimates) for block in self.arm_blocks) > TALL_ROW_COUNT

    @property
    def has_counts(self) -> bool:
        """Whether any number of units is known."""
        return any(count >= 0 for estimate in self.estimates for count in (estimate.n_control, estimate.n_treated))

    @property
    def treated_name(self) -> str:
        """Heading of the treated units."""
        # With several arms no name fits all rows; each block has its own above it.
        return "Treated" if len(self.arm_blocks) > 1 else self.arm_blocks[0].arm

    @property
    def interval_name(self) -> str:
        """Name of the intervals."""
        return f"{format_percentage(self.ci_prob)} interval"

    def wrap_axis_label(self, max_width: float, font_size: float) -> list[str]:
        """Wrap the label of the axis; a line break in it stays one, such as before whom each side favours."""
        return [line for part in self.axis_label.split("\n") for line in wrap_text(part, max_width, font_size)]

    @property
    def footnotes(self) -> list[str]:
        """Footnotes and the caption, one paragraph each."""
        lacks_arm_notes = (
            [LACKS_ARM_NOTE]
            if any(estimate.lacks_an_arm for block in self.arm_blocks for estimate in block.estimates)
            else []
        )
        return [*lacks_arm_notes, *([self.caption] if self.caption else [])]


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """One row of the layout, a heading or one with numbers; heights in design points from the top."""

    row_kind: RowKind
    top: float
    height: float
    block_index: int
    printed_name: str
    estimate: Estimate
    point_side: float = MAX_POINT_SIDE

    @property
    def y_middle(self) -> float:
        """Height of the middle."""
        return self.top + self.height / 2


def format_segment_name(estimate: Estimate) -> str:
    """Write a segment's name as it is printed: short, and with a dagger where an arm is missing."""
    return shorten_text(estimate.segment_label, MAX_LABEL_COLUMNS) + (LACKS_ARM_MARK if estimate.lacks_an_arm else "")


def stack_rows(
    content: ForestContent, measure_row: Callable[[RowKind, str], float], first_top: float
) -> list[LayoutRow]:
    """Stack the rows of the plot under each other, the first at `first_top`; `measure_row` gives their heights."""
    point_sides = iter(compute_point_sides([estimate for block in content.arm_blocks for estimate in block.estimates]))
    layout_rows: list[LayoutRow] = []
    for block_index, block in enumerate(content.arm_blocks):
        for row_kind, printed_name, estimate in _list_block_rows(block, has_several_arms=len(content.arm_blocks) > 1):
            point_side = next(point_sides) if row_kind == "segment" else MAX_POINT_SIDE
            layout_rows.append(
                LayoutRow(
                    row_kind,
                    first_top,
                    measure_row(row_kind, printed_name),
                    block_index,
                    printed_name,
                    estimate,
                    point_side,
                )
            )
            first_top += measure_row(row_kind, printed_name)
    return layout_rows


def _list_block_rows(arm_block: ArmBlock, *, has_several_arms: bool) -> Iterator[tuple[RowKind, str, Estimate]]:
    """List kind, name and numbers of the rows of one arm."""
    if has_several_arms:
        yield "arm", shorten_text(arm_block.arm), arm_block.ate
    for group in arm_block.groups:
        if group.name:
            yield "group", shorten_text(group.name), arm_block.ate
        for estimate in group.estimates:
            yield "segment", format_segment_name(estimate), estimate
    yield "ate", "All (ATE)", arm_block.ate


def lay_out_legend(content: ForestContent, max_width: float, font_size: float) -> list[list[tuple[LegendMark, str]]]:
    """Lay out the legend in lines that fit the width."""
    # The area of the points is explained only where it means something.
    _, weight_meaning = weigh_estimates([estimate for block in content.arm_blocks for estimate in block.estimates])
    legend_items: list[tuple[LegendMark, str]] = [
        ("raw", "raw, not pooled"),
        ("pooled", content.pooled_name + (f", area by {weight_meaning}" if weight_meaning else "")),
        ("ate", "average effect (ATE)"),
    ]
    if content.has_clipping:
        legend_items.append(("clipped", "goes on beyond the axis"))
    legend_lines: list[list[tuple[LegendMark, str]]] = [[]]
    width_left = max_width
    for legend_mark, text in legend_items:
        item_width = _LEGEND_MARK_WIDTH + measure_width(text, font_size) + _LEGEND_GAP
        # The last item of a line needs no gap after it.
        if item_width - _LEGEND_GAP > width_left and legend_lines[-1]:
            legend_lines.append([])
            width_left = max_width
        legend_lines[-1].append((legend_mark, text))
        width_left -= item_width
    return legend_lines


def measure_footer(content: ForestContent, max_width: float, font_size: float) -> float:
    """Measure the height of legend and notes in points."""
    line_count = len(lay_out_legend(content, max_width, font_size)) + sum(
        len(wrap_text(footnote, max_width, font_size)) for footnote in content.footnotes
    )
    return line_count * compute_leading(font_size) + 6.0


def draw_footer(
    canvas: Canvas, content: ForestContent, footer_top: float, *, side_margin: float, font_size: float
) -> None:
    """Draw legend and notes under the plot."""
    max_width, y = canvas.width - 2 * side_margin, footer_top + compute_leading(font_size) / 2
    for legend_items in lay_out_legend(content, max_width, font_size):
        x = side_margin
        for legend_mark, text in legend_items:
            _draw_legend_mark(canvas, legend_mark, x, y)
            text_style = TextStyle(font_size, canvas.theme.quiet_color, mark=f"{KEY_PREFIX}{_POINT_MARKS[legend_mark]}")
            canvas.write_line(x + _LEGEND_MARK_WIDTH, y, text, text_style)
            x += _LEGEND_MARK_WIDTH + measure_width(text, font_size) + _LEGEND_GAP
        y += compute_leading(font_size)
    y += 4.0 if content.footnotes else 0.0
    for footnote in content.footnotes:
        note_lines = wrap_text(footnote, max_width, font_size)
        canvas.write_lines(side_margin, y, note_lines, TextStyle(font_size, canvas.theme.quiet_color, mark="note"))
        y += len(note_lines) * compute_leading(font_size)


def _draw_legend_mark(canvas: Canvas, legend_mark: LegendMark, x_left: float, y_middle: float) -> None:
    x_middle, scale = x_left + _LEGEND_MARK_WIDTH / 2 - 2, canvas.shrink_factor
    if legend_mark in {"raw", "pooled"}:
        line_color, line_width = (
            (canvas.theme.raw_color, 1.2) if legend_mark == "raw" else (canvas.theme.pooled_color, 2.4)
        )
        canvas.axes.hlines(
            y_middle,
            x_left,
            x_left + _LEGEND_MARK_WIDTH - 5,
            color=line_color,
            linewidth=line_width * scale,
            gid=f"{KEY_PREFIX}{'raw_interval' if legend_mark == 'raw' else 'interval'}",
        )
    # The same marks as in the plot, at sizes that are legible in a line of text.
    marker_shape, marker_side, face_color, edge_color = {
        "raw": ("o", 4.2, canvas.theme.paper_color, canvas.theme.raw_color),
        "pooled": ("s", 8.0, canvas.theme.pooled_color, canvas.theme.pooled_color),
        "ate": ("D", 6.5, canvas.theme.ink_color, canvas.theme.ink_color),
        "clipped": (">", 5.0, canvas.theme.quiet_color, canvas.theme.quiet_color),
    }[legend_mark]
    canvas.axes.scatter(
        [x_middle],
        [y_middle],
        s=(marker_side * scale) ** 2,
        marker=marker_shape,
        facecolor=face_color,
        edgecolor=edge_color,
        linewidth=scale,
        zorder=3,
        gid=f"{KEY_PREFIX}{_POINT_MARKS[legend_mark]}",
    )
