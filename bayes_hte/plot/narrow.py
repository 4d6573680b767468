"""The layout for a phone: a segment's name and numbers above its bar, which has the full width."""

from bayes_hte.plot import bars
from bayes_hte.plot import text as words
from bayes_hte.plot.canvas import BAND, QUIET, STRIPE, Canvas, Ink, Place, leading, open_canvas, room
from bayes_hte.plot.page import Kind, Line, Page, draw_footer, footer_height, stack

_WIDTH = 390.0  # one design point is one CSS pixel of a common phone
_SIZE, _SMALL, _LARGE = 13.0, 11.5, 15.0
_MARGIN, _GAP = 12.0, 14.0
_BAND, _TEXT = 26.0, 35.0
_HEIGHTS: dict[Kind, float] = {"arm": 28.0, "group": 28.0, "segment": _TEXT + _BAND, "ate": _TEXT + _BAND}
_HEADER, _AXIS = 40.0, 24.0


def draw_narrow(page: Page, place: Place) -> Canvas:
    """Draw the page and return the canvas it is on."""
    given = room(place)
    width = max(_WIDTH, given[0]) if given else _WIDTH
    titles = words.wrap(page.title, width - 2 * _MARGIN, _LARGE * 1.05)  # bold is wider
    top = _MARGIN / 2 + len(titles) * leading(_LARGE) + _HEADER
    name_room = _name_room(page, width)
    lines = stack(page, lambda kind, name: _HEIGHTS[kind] + _extra(kind, name, name_room), top)
    bottom = lines[-1].top + lines[-1].height
    labels = words.wrap(page.axis_label, width - 2 * _MARGIN, _SMALL)
    footer = bottom + _AXIS + len(labels) * leading(_SMALL) + 8
    height = footer + footer_height(page, width - 2 * _MARGIN, _SMALL) + _MARGIN / 2

    canvas = open_canvas(place, _WIDTH, height)
    canvas.lines(_MARGIN, _MARGIN / 2 + leading(_LARGE) / 2, titles, Ink(_LARGE, bold=True))
    _draw_header(canvas, page, top)
    for line in lines:
        _draw_text(canvas, page, line, name_room)
    _draw_bars(canvas, page, lines)
    canvas.lines(canvas.width / 2, bottom + _AXIS + leading(_SMALL) / 2, labels, Ink(_SMALL), "center")
    draw_footer(canvas, page, footer, margin=_MARGIN, size=_SMALL)
    return canvas


def _draw_header(canvas: Canvas, page: Page, top: float) -> None:
    right, first, second = canvas.width - _MARGIN, top - 29, top - 13
    probability = _probability_width(page)
    effect = right - probability - _GAP
    room_left = effect - words.width("Effect", _SMALL) - _GAP - _MARGIN
    canvas.write(_MARGIN, first, words.fit(page.heading, room_left, _SMALL), Ink(_SMALL, QUIET))
    canvas.write(effect, first, "Effect", Ink(_SMALL, QUIET), "right")
    canvas.write(right, first, "P(> 0)", Ink(_SMALL, QUIET), "right")
    canvas.write(right, second, page.interval, Ink(_SMALL, QUIET), "right")
    if page.counted:
        names = f"{words.shorten(page.control, 16)} / {words.shorten(page.treated, 16)}"
        limit = right - words.width(page.interval, _SMALL) - _GAP - _MARGIN
        canvas.write(_MARGIN, second, words.fit(names, limit, _SMALL), Ink(_SMALL, QUIET))
    canvas.rule(top, _MARGIN, right)


def _probability_width(page: Page) -> float:
    return max(words.width("P(> 0)", _SMALL), words.width("> .999", _SIZE, bold=True))


def _name_room(page: Page, width: float) -> float:
    """Width left for names, beside the widest effect."""
    effect = words.widest((words.number(row.effect, page.places) for row in page.rows), _SIZE, bold=True)
    return width - 2 * _MARGIN - _probability_width(page) - effect - 2 * _GAP


def _name_lines(name: str, name_room: float) -> list[str]:
    """A name on at most two lines."""
    first, *rest = words.wrap(name, name_room, _SIZE) or [""]
    return [first, words.fit(" ".join(rest), name_room, _SIZE)] if rest else [first]


def _extra(kind: Kind, name: str, name_room: float) -> float:
    """Height of a name's second line."""
    return leading(_SIZE) * (len(_name_lines(name, name_room)) - 1) if kind == "segment" else 0.0


def _draw_heading(canvas: Canvas, line: Line) -> None:
    inset = 0.0
    if line.kind == "arm":
        canvas.stripe((_MARGIN, line.top, canvas.width - 2 * _MARGIN, line.height), BAND)
        inset = 6.0
    name = words.fit(line.name, (canvas.width - 3 * _MARGIN) / 1.12, _SIZE)  # bold is wider
    canvas.write(_MARGIN + inset, line.middle, name, Ink(_SIZE, bold=True))


def _draw_text(canvas: Canvas, page: Page, line: Line, name_room: float) -> None:
    if line.kind in {"arm", "group"}:
        _draw_heading(canvas, line)
        return
    right, first = canvas.width - _MARGIN, line.top + 11
    second = first + 16 + _extra(line.kind, line.name, name_room)
    ink, small = Ink(_SIZE, bold=line.kind == "ate"), Ink(_SMALL, QUIET)
    end = right - _probability_width(page) - _GAP
    canvas.lines(_MARGIN, first, _name_lines(line.name, name_room), ink)
    canvas.write(end, first, words.number(line.row.effect, page.places), ink, "right")
    canvas.write(right, first, words.probability(line.row.p_positive), ink, "right")
    canvas.write(right, second, words.interval(line.row.low, line.row.high, page.places), small, "right")
    if page.counted:
        units = f"{words.count(line.row.n_control)} / {words.count(line.row.n_treated)}"
        canvas.write(_MARGIN, second, units, small)


def _draw_bars(canvas: Canvas, page: Page, lines: list[Line]) -> None:
    top, bottom = lines[0].top, lines[-1].top + lines[-1].height
    width = canvas.width - 2 * _MARGIN
    axes = canvas.inset((_MARGIN, top, width, bottom - top))
    ends = bars.limits(page.blocks, page.ci_prob)
    ticks = bars.draw_axis(axes, ends, width=width, size=_SMALL, scale=canvas.scale)
    placed, bands = [], []
    for line in lines:
        if line.kind in {"arm", "group"}:
            continue
        bottom_of_line = line.top + line.height
        band = (bottom_of_line - _BAND, bottom_of_line - 4)
        canvas.stripe((_MARGIN, band[0], width, band[1] - band[0]), STRIPE)
        bands.append(bars.Band(*band, page.blocks[line.block].ate.effect))
        item = bars.Placed(line.row, sum(band) / 2, line.side)
        if line.kind == "ate" and line.row.known:
            bars.draw_diamond(axes, item, scale=canvas.scale)
        elif line.kind == "segment":
            placed.append(item)
    bars.draw_guides(axes, bands, ticks, scale=canvas.scale)
    bars.draw_rows(axes, placed, ci_prob=page.ci_prob, scale=canvas.scale)
