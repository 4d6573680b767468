"""The shrinkage plot: how far pooling moved each segment, against how much was known about it."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from bayes_hte.errors import DataError
from bayes_hte.plot import text as words
from bayes_hte.plot.axis import effect_label
from bayes_hte.plot.canvas import POOLED, QUIET, RAW, Canvas, Ink, leading, open_canvas, room
from bayes_hte.plot.panel import SIZE, SMALL, draw_panel, frame, information, movers
from bayes_hte.plot.rows import Block, read

_LARGE, _MARGIN = 13.0, 14.0
_WIDTH, _PANEL = 620.0, 260.0
_LEFT, _RIGHT = 56.0, 42.0  # room for the tick labels, and for "ATE"
_HEADING, _UNDER = 26.0, 48.0


def shrinkage(
    table: pd.DataFrame,
    ate: pd.DataFrame,
    *,
    dimensions: Sequence[str],
    unit: str = "",
    percent: bool = False,
    axis_label: str | None = None,
    pooled: str = "partially pooled",
    labels: int = 4,
    title: str | None = None,
    caption: str | None = None,
    figure: Figure | SubFigure | None = None,
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Arrows from each segment's raw estimate to its pooled one, small segments on the left.

    Parameters
    ----------
    table, ate : DataFrame
        As for `forest`.
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
        How many segments are named in each panel: those that moved most.
    title, caption : str, optional
        Text above and below the plot.
    figure : Figure or SubFigure, optional
        Drawn into this, shrunk as a whole if it is too small; otherwise into a new figure.
    ax : Axes, optional
        Drawn into the place of this instead; its own axis is hidden.

    Returns
    -------
    Figure or SubFigure
        The figure that was given, or that holds `ax`, or a new one.

    Raises
    ------
    DataError
        If a column is missing, no segment has a raw estimate, or both `figure` and `ax` are given.

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
    >>> figure = shrinkage(pd.DataFrame([row]), ate, dimensions=["device"], percent=True)
    >>> round(float(figure.get_figwidth()), 1)
    8.6
    """
    if figure is not None and ax is not None:
        raise DataError("both figure and ax are given; give the one to draw into")
    factor = 100.0 if percent else 1.0
    blocks = read(table, ate, dimensions=dimensions, group_by=None, factor=factor)
    if not _moved(blocks):
        raise DataError("no segment has a raw estimate, so there is no shrinkage to plot")
    label = effect_label(unit, percent=percent) if axis_label is None else axis_label
    place = ax if ax is not None else figure
    given = room(place)
    width = max(_WIDTH, given[0]) if given else _WIDTH
    titles = words.wrap(title or "", (width - 2 * _MARGIN) / 1.1, _LARGE)
    notes = [line for note in _notes(blocks, caption) for line in words.wrap(note, width - 2 * _MARGIN, SMALL)]
    top = _MARGIN + len(titles) * leading(_LARGE) + leading(SIZE) + 8
    heading = _HEADING if len(blocks) > 1 else 0.0
    panels = len(blocks) * (heading + _PANEL + _UNDER)
    canvas = open_canvas(place, _WIDTH, top + panels + (len(notes) + 2) * leading(SMALL))

    canvas.lines(_MARGIN, _MARGIN / 2 + leading(_LARGE) / 2, titles, Ink(_LARGE, bold=True))
    canvas.write(_MARGIN, top - 8 - leading(SIZE) / 2, label, Ink(SIZE, QUIET))
    common = frame(blocks)
    for index, block in enumerate(blocks):
        start = top + index * (heading + _PANEL + _UNDER)
        if heading:
            canvas.write(_MARGIN, start + heading / 2, words.shorten(block.arm), Ink(SIZE, bold=True))
        box = (_LEFT, start + heading, canvas.width - _LEFT - _RIGHT, _PANEL)
        draw_panel(canvas, block, common, box, labels)
    _draw_key(canvas, top + panels, pooled)
    canvas.lines(_MARGIN, top + panels + 1.5 * leading(SMALL), notes, Ink(SMALL, QUIET))
    owner = canvas.axes.get_figure()
    assert owner is not None  # noqa: S101 - only for the type checker: the axes was just drawn on
    return owner


def _moved(blocks: Sequence[Block]) -> int:
    """How many estimates the plot can show."""
    rows = [row for block in blocks for row in block.rows]
    return len(movers(rows, information(rows)))


def _notes(blocks: Sequence[Block], caption: str | None) -> list[str]:
    count = sum(len(block.rows) for block in blocks)
    absent = count - _moved(blocks)
    note = f"{absent} of {count} segments have no raw estimate of their own and are not shown." if absent else ""
    return [text for text in (note, caption) if text]


def _draw_key(canvas: Canvas, top: float, pooled: str) -> None:
    y, scale = top + leading(SMALL) / 2, canvas.scale
    canvas.axes.scatter(
        [_MARGIN + 4], [y], s=(4.4 * scale) ** 2, facecolor="white", edgecolor=RAW, linewidth=1.1 * scale
    )
    canvas.write(_MARGIN + 14, y, "raw, not pooled", Ink(SMALL, QUIET))
    x = _MARGIN + 14 + words.width("raw, not pooled", SMALL) + 18
    for step, marker in ((4, "^"), (13, "v")):
        canvas.axes.scatter([x + step], [y], s=(6.0 * scale) ** 2, color=POOLED, linewidth=0, marker=marker)
    canvas.write(x + 22, y, f"{pooled}; the band is the interval of the average effect (ATE)", Ink(SMALL, QUIET))
