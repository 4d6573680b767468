"""One panel of the shrinkage plot: its scales, arrows and names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes

from bayes_hte.plot import text as words
from bayes_hte.plot.axis import bare, log_ticks, round_ticks
from bayes_hte.plot.canvas import GRID, INK, POOLED, QUIET, RAW, Align, Canvas, Ink
from bayes_hte.plot.rows import Block, Estimate

SIZE, SMALL = 11.0, 10.0
_BAND = "#dce6f2"
_LONGEST_NAME = 56
Box = tuple[float, float, float, float]
"""Left, top, width, height in design points."""


@dataclass(frozen=True, slots=True)
class Information:
    """How much was known about each row before pooling, and what that is measured in."""

    name: str
    kind: Literal["units", "error"]

    def of(self, row: Estimate) -> float:
        """A row's place on the horizontal axis; NaN if it has none."""
        value = min(row.n_control, row.n_treated) if self.kind == "units" else row.raw_se
        return value if value > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Frame:
    """The common axes of all panels."""

    information: Information
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]

    def at(self, box: Box, x: float, y: float) -> tuple[float, float]:
        """Where a point is on the canvas."""
        left, top, width, height = box
        start, stop = map(math.log, self.x_ends)
        low, high = self.y_ends
        kept = min(max(y, low), high)
        return left + (math.log(x) - start) / (stop - start) * width, top + (high - kept) / (high - low) * height


def information(rows: Sequence[Estimate]) -> Information:
    """Units in the smaller arm; where none are known, the standard error of the raw estimate."""
    if any(min(row.n_control, row.n_treated) > 0 for row in rows):
        return Information("units in the smaller arm", "units")
    return Information("standard error of the raw estimate", "error")


def movers(rows: Sequence[Estimate], known: Information) -> list[Estimate]:
    """The rows that have a place on both axes."""
    return [row for row in rows if all(map(math.isfinite, (row.raw, row.effect, known.of(row))))]


def frame(blocks: Sequence[Block]) -> Frame:
    """Axes that hold every pooled estimate; raw ones may double the height, and are clipped beyond."""
    rows = [row for block in blocks for row in block.rows]
    known = information(rows)
    shown = movers(rows, known)
    places = [known.of(row) for row in shown]
    x_ends = (min(places) / 1.35, max(places) * 1.35)
    pooled = [
        0.0,
        *(row.effect for row in shown),
        *(end for block in blocks for end in (block.ate.low, block.ate.high)),
    ]
    pooled = [value for value in pooled if math.isfinite(value)]
    span = (max(pooled) - min(pooled)) or 1.0
    low = max(min([*pooled, *(row.raw for row in shown)]), min(pooled) - span)
    high = min(max([*pooled, *(row.raw for row in shown)]), max(pooled) + span)
    margin = 0.06 * (high - low)
    # Small segments are on the left: few units, or a large error.
    ends = x_ends if known.kind == "units" else (x_ends[1], x_ends[0])
    return Frame(known, ends, (low - margin, high + margin))


def draw_panel(canvas: Canvas, block: Block, axes: Frame, box: Box, names: int) -> None:
    """Draw one arm's segments."""
    inner = canvas.inset(box)
    inner.set_xscale("log")
    inner.set_xlim(*axes.x_ends)
    inner.set_ylim(*axes.y_ends)
    bare(inner, size=SMALL, scale=canvas.scale)
    _draw_guides(canvas, inner, block, axes, box)
    shown = movers(block.rows, axes.information)
    _draw_moves(inner, shown, axes, canvas.scale)
    _draw_names(canvas, shown, axes, box, names)
    canvas.write(box[0] + box[2] / 2, box[1] + box[3] + 30, axes.information.name, Ink(SIZE), "center")


def _draw_guides(canvas: Canvas, inner: Axes, block: Block, axes: Frame, box: Box) -> None:
    scale, ate = canvas.scale, block.ate
    ticks, labels = round_ticks(axes.y_ends, 6)
    inner.set_yticks(ticks, labels=labels)
    inner.tick_params(axis="y", length=0)
    marks, mark_labels = log_ticks((min(axes.x_ends), max(axes.x_ends)))
    inner.set_xticks(marks, labels=mark_labels)
    inner.set_xticks([], minor=True)
    for tick in ticks:
        inner.axhline(tick, color=GRID, linewidth=0.7 * scale, zorder=0.5)
    inner.axhline(0.0, color=INK, linewidth=1.0 * scale, zorder=1)
    if not ate.known:
        return
    inner.axhspan(ate.low, ate.high, color=_BAND, linewidth=0, zorder=0.4, gid="ate")
    inner.axhline(ate.effect, color=POOLED, linewidth=1.0 * scale, linestyle=(0, (4.0, 2.6)), zorder=1.1)
    _, y = axes.at(box, axes.x_ends[0], ate.effect)
    canvas.write(box[0] + box[2] + 6, y, "ATE", Ink(SMALL, POOLED))


def _draw_moves(inner: Axes, shown: Sequence[Estimate], axes: Frame, scale: float) -> None:
    """A light ring at the raw estimate, a dark triangle at the pooled one that points away from it."""
    low, high = axes.y_ends
    places = [axes.information.of(row) for row in shown]
    starts = [min(max(row.raw, low), high) for row in shown]
    ends = [row.effect for row in shown]
    inner.vlines(places, starts, ends, color=RAW, linewidth=1.1 * scale, zorder=2)
    inside = [low <= row.raw <= high for row in shown]
    inner.scatter(
        [x for x, kept in zip(places, inside, strict=True) if kept],
        [y for y, kept in zip(starts, inside, strict=True) if kept],
        s=(4.4 * scale) ** 2,
        facecolor="white",
        edgecolor=RAW,
        linewidth=1.1 * scale,
        zorder=3,
        gid="raw",
    )
    for marker, upwards in (("^", True), ("v", False)):
        chosen = [i for i, row in enumerate(shown) if (row.effect >= row.raw) == upwards]
        inner.scatter(
            [places[i] for i in chosen],
            [ends[i] for i in chosen],
            s=(6.0 * scale) ** 2,
            marker=marker,
            color=POOLED,
            edgecolor="white",
            linewidth=0.4 * scale,
            zorder=4,
            gid="pooled",
        )
        beyond = [i for i in chosen if not inside[i]]
        inner.scatter(
            [places[i] for i in beyond],
            [starts[i] for i in beyond],
            s=(5.0 * scale) ** 2,
            marker="v" if upwards else "^",
            color=RAW,
            linewidth=0,
            clip_on=False,
            zorder=3,
            gid="clipped",
        )


def _draw_names(canvas: Canvas, shown: Sequence[Estimate], axes: Frame, box: Box, names: int) -> None:
    """Name the rows that moved most, each beside its ring, where nothing else is."""
    places = [axes.information.of(row) for row in shown]
    points = [
        axes.at(box, x, row.raw + share * (row.effect - row.raw))
        for x, row in zip(places, shown, strict=True)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    taken: list[Box] = []
    for row in sorted(shown, key=lambda row: -abs(row.raw - row.effect))[:names]:
        name = words.shorten(row.label, _LONGEST_NAME)
        x, y = axes.at(box, axes.information.of(row), row.raw)
        start = (x, min(max(y, box[1] + SMALL), box[1] + box[3] - SMALL))
        costs = [(_cost(spot, box, taken, points), spot, align) for spot, align in _spots(name, start)]
        cost, spot, align = min(costs, key=lambda choice: choice[0])
        if cost > _HIDDEN:
            continue
        taken.append(spot)
        anchor = {"left": spot[0], "center": spot[0] + spot[2] / 2, "right": spot[0] + spot[2]}[align]
        canvas.write(anchor, spot[1] + spot[3] / 2, name, Ink(SMALL, QUIET), align)


_FORBIDDEN = 1000
_HIDDEN = 2  # a name over more than this is no help to the reader


def _spots(name: str, point: tuple[float, float]) -> list[tuple[Box, Align]]:
    x, y, wide, high = *point, words.width(name, SMALL), 1.2 * SMALL
    beside: list[tuple[Box, Align]] = []
    for top in (y - high / 2, y - high - 2, y + 2):
        beside += [((x + 6, top, wide, high), "left"), ((x - 6 - wide, top, wide, high), "right")]
    above, below = (x - wide / 2, y - high - 5, wide, high), (x - wide / 2, y + 5, wide, high)
    return [*beside, (above, "center"), (below, "center")]


def _cost(spot: Box, box: Box, taken: Sequence[Box], points: Sequence[tuple[float, float]]) -> int:
    """How many points a name would hide; forbidden outside the panel and over another name."""
    left, top, wide, high = spot
    inside = left >= box[0] and left + wide <= box[0] + box[2] and box[1] <= top <= box[1] + box[3] - high
    free = not any(_overlap(spot, other) for other in taken)
    hidden = sum(left - 3 <= x <= left + wide + 3 and top - 2 <= y <= top + high + 2 for x, y in points)
    return hidden + (0 if inside and free else _FORBIDDEN)


def _overlap(one: Box, other: Box) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )
