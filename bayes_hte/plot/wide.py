"""The layout for paper and desktop: one line per segment, text left and right of the bars."""

from dataclasses import dataclass

from bayes_hte.plot import bars
from bayes_hte.plot import text as words
from bayes_hte.plot.canvas import BAND, POOLED, QUIET, STRIPE, Canvas, Ink, Place, leading, open_canvas, room
from bayes_hte.plot.page import Kind, Line, Page, draw_footer, footer_height, stack

_SIZE, _SMALL, _LARGE = 11.0, 10.0, 13.0
_MARGIN, _GAP, _INDENT = 14.0, 18.0, 12.0
_WIDTH, _BARS = 860.0, 300.0
_HEADER, _AXIS = 26.0, 22.0
_HEIGHTS: dict[Kind, float] = {"arm": 28.0, "group": 24.0, "segment": 22.0, "ate": 26.0}
_LONGEST_ARM = 16


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where each column starts (left) or ends (right), in design points."""

    control: float
    treated: float
    bars: tuple[float, float]
    effect: float
    interval: float
    probability: float


@dataclass(frozen=True, slots=True)
class _Cells:
    """The text of the columns, one entry per line with numbers."""

    effects: list[str]
    intervals: list[str]
    probabilities: list[str]


def draw_wide(page: Page, place: Place) -> Canvas:
    """Draw the page and return the canvas it is on."""
    cells = _cells(page)
    left, right = _left_width(page), _right_width(page, cells)
    natural = max(_WIDTH, left + _BARS + right)
    given = room(place)
    width = max(natural, given[0]) if given else natural
    titles = words.wrap(page.title, width - 2 * _MARGIN, _LARGE)
    top = _MARGIN / 2 + len(titles) * leading(_LARGE) + _HEADER
    lines = stack(page, _height, top)
    bottom = lines[-1].top + lines[-1].height
    labels = words.wrap(page.axis_label, width - left - right + 2 * _GAP, _SIZE)
    footer = bottom + _AXIS + len(labels) * leading(_SIZE) + 8
    height = footer + footer_height(page, width - 2 * _MARGIN, _SMALL) + _MARGIN / 2

    canvas = open_canvas(place, natural, height)
    columns = _columns(page, cells, canvas.width)
    canvas.lines(_MARGIN, _MARGIN / 2 + leading(_LARGE) / 2, titles, Ink(_LARGE, bold=True))
    _draw_header(canvas, page, columns, top)
    _draw_text(canvas, page, columns, lines, cells)
    _draw_bars(canvas, page, columns, lines)
    middle = sum(columns.bars) / 2
    canvas.lines(middle, bottom + _AXIS + leading(_SIZE) / 2, labels, Ink(_SIZE), "center")
    draw_footer(canvas, page, footer, margin=_MARGIN, size=_SMALL)
    return canvas


def _height(kind: Kind, name: str) -> float:
    """Here every name has one line."""
    return _HEIGHTS[kind]


def _cells(page: Page) -> _Cells:
    return _Cells(
        [words.number(row.effect, page.places) for row in page.rows],
        [f"({words.interval(row.low, row.high, page.places)})" for row in page.rows],
        [words.probability(row.p_positive) for row in page.rows],
    )


def _left_width(page: Page) -> float:
    return _MARGIN + _label_width(page) + _GAP + sum(_count_widths(page))


def _label_width(page: Page) -> float:
    lines = stack(page, _height, 0.0)
    plain = words.widest((line.name for line in lines if line.kind == "segment"), _SIZE)
    strong = words.widest((line.name for line in lines if line.kind != "segment"), _SIZE, bold=True)
    return max(plain + _indent(page), strong, words.width(words.shorten(page.heading), _SIZE))


def _indent(page: Page) -> float:
    return _INDENT if any(line.kind in {"arm", "group"} for line in stack(page, _height, 0.0)) else 0.0


def _count_widths(page: Page) -> tuple[float, float]:
    """Widths of the two columns of units, each with the gap after it."""
    if not page.counted:
        return 0.0, 0.0
    control = words.widest((words.count(row.n_control) for row in page.rows), _SIZE, bold=True)
    treated = words.widest((words.count(row.n_treated) for row in page.rows), _SIZE, bold=True)
    return (
        max(control, words.width(_arm(page.control), _SIZE)) + _GAP,
        max(treated, words.width(_arm(page.treated), _SIZE)) + _GAP,
    )


def _arm(name: str) -> str:
    return words.shorten(name, _LONGEST_ARM)


def _right_width(page: Page, cells: _Cells) -> float:
    return _GAP + sum(_number_widths(page, cells)) + _MARGIN


def _number_widths(page: Page, cells: _Cells) -> tuple[float, float, float]:
    """Widths of effect, interval and probability, each with the gap between them."""
    effect = words.widest(cells.effects, _SIZE, bold=True)
    interval = words.widest(cells.intervals, _SIZE, bold=True)
    header = words.width(_effect_header(page), _SIZE)
    probability = max(words.widest(cells.probabilities, _SIZE, bold=True), words.width("P(> 0)", _SIZE))
    return effect, max(interval + 8, header - effect), probability + _GAP


def _effect_header(page: Page) -> str:
    return f"Effect ({page.interval})"


def _columns(page: Page, cells: _Cells, width: float) -> _Columns:
    control, treated = _count_widths(page)
    start = _MARGIN + _label_width(page) + _GAP
    effect, interval, probability = _number_widths(page, cells)
    end = width - _right_width(page, cells)
    return _Columns(
        control=start + control - _GAP,
        treated=start + control + treated - _GAP,
        bars=(start + control + treated, end),
        effect=end + _GAP + effect,
        interval=end + _GAP + effect + interval,
        probability=end + _GAP + effect + interval + probability,
    )


def _draw_header(canvas: Canvas, page: Page, columns: _Columns, top: float) -> None:
    y, ink = top - _HEADER / 2, Ink(_SIZE, QUIET)
    canvas.write(_MARGIN, y, words.shorten(page.heading), ink)
    if page.counted:
        canvas.write(columns.control, y, _arm(page.control), ink, "right")
        canvas.write(columns.treated, y, _arm(page.treated), ink, "right")
    canvas.write(columns.interval, y, _effect_header(page), ink, "right")
    canvas.write(columns.probability, y, "P(> 0)", ink, "right")
    canvas.rule(top, _MARGIN, canvas.width - _MARGIN)


def _draw_text(canvas: Canvas, page: Page, columns: _Columns, lines: list[Line], cells: _Cells) -> None:
    numbers = iter(zip(cells.effects, cells.intervals, cells.probabilities, strict=True))
    indent, striped = _indent(page), False
    for line in lines:
        y, strong = line.middle, line.kind != "segment"
        striped = line.kind == "segment" and not striped
        color = BAND if line.kind == "arm" else STRIPE
        if striped or line.kind == "arm":
            canvas.stripe((_MARGIN, line.top, canvas.width - 2 * _MARGIN, line.height), color)
        canvas.write(
            _MARGIN + (0 if strong else indent) + (4 if line.kind == "arm" else 0),
            y,
            line.name,
            Ink(_SIZE, bold=strong),
        )
        if line.kind in {"arm", "group"}:
            continue
        if page.counted:
            canvas.write(columns.control, y, words.count(line.row.n_control), Ink(_SIZE, bold=strong), "right")
            canvas.write(columns.treated, y, words.count(line.row.n_treated), Ink(_SIZE, bold=strong), "right")
        ends = (columns.effect, columns.interval, columns.probability)
        for x, text in zip(ends, next(numbers), strict=True):
            canvas.write(x, y, text, Ink(_SIZE, bold=strong), "right")
        if line.kind == "ate":
            canvas.rule(line.top, _MARGIN, canvas.width - _MARGIN)


def _draw_bars(canvas: Canvas, page: Page, columns: _Columns, lines: list[Line]) -> None:
    left, right = columns.bars
    top, bottom = lines[0].top, lines[-1].top + lines[-1].height
    axes = canvas.inset((left, top, right - left, bottom - top))
    ends = bars.limits(page.blocks, page.ci_prob)
    ticks = bars.draw_axis(axes, ends, width=right - left, size=_SIZE, scale=canvas.scale)
    bands = []
    for index, block in enumerate(page.blocks):
        own = [line for line in lines if line.block == index and line.kind != "arm"]
        bands.append(bars.Band(own[0].top, own[-1].top + own[-1].height, block.ate.effect))
        if not block.ate.known:
            continue
        x = left + (block.ate.effect - ends[0]) / (ends[1] - ends[0]) * (right - left)
        half = words.width("ATE", _SMALL) / 2
        canvas.write(min(max(x, left + half), right - half), own[0].top - 9, "ATE", Ink(_SMALL, POOLED), "center")
    bars.draw_guides(axes, bands, ticks, scale=canvas.scale)
    placed = [bars.Placed(line.row, line.middle, line.side) for line in lines if line.kind == "segment"]
    bars.draw_rows(axes, placed, ci_prob=page.ci_prob, scale=canvas.scale)
    for line in lines:
        if line.kind == "ate" and line.row.known:
            bars.draw_diamond(axes, bars.Placed(line.row, line.middle), scale=canvas.scale)
