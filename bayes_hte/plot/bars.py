"""The data axis of a forest plot: limits, points, intervals, diamonds and lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from bayes_hte.plot.axis import bare, fitting_ticks
from bayes_hte.plot.canvas import GRID, INK, POOLED, RAW
from bayes_hte.plot.rows import Block, Estimate, weights

LARGEST_SIDE = 12.0
SMALLEST_SIDE = 4.0  # smaller would vanish in the interval's own line
RAW_LIFT, POOLED_DROP = 5.2, 2.8


@dataclass(frozen=True, slots=True)
class Placed:
    """A row, the height of its middle, and the side of its point."""

    row: Estimate
    y: float
    side: float = LARGEST_SIDE


def raw_interval(row: Estimate, ci_prob: float) -> tuple[float, float]:
    """Normal interval of the unpooled estimate."""
    half = NormalDist().inv_cdf(0.5 + ci_prob / 2) * row.raw_se
    return row.raw - half, row.raw + half


def limits(blocks: Sequence[Block], ci_prob: float) -> tuple[float, float]:
    """Ends of the axis: the pooled intervals, zero and the averages, whatever a wild row does.

    An end reaches at most three typical half-widths beyond the outermost effect, and effects themselves are
    followed for six spreads; raw intervals may widen the axis by a third. What goes beyond is clipped.
    """
    rows = [row for block in blocks for row in block.rows]
    known = [row for row in rows if row.known]
    averages = [value for block in blocks for value in (block.ate.low, block.ate.high)]
    kept = [0.0, *(value for value in averages if math.isfinite(value))]
    if known:
        kept += _typical_reach(known)
    low, high = min(kept), max(kept)
    span = (high - low) or 1.0
    raws = [value for row in rows for value in raw_interval(row, ci_prob) if math.isfinite(value)]
    low = max(min([low, *raws]), low - span / 3)
    high = min(max([high, *raws]), high + span / 3)
    margin = 0.03 * ((high - low) or 1.0)
    return low - margin, high + margin


def _typical_reach(rows: Sequence[Estimate]) -> tuple[float, float]:
    effects = np.array([row.effect for row in rows])
    half = float(np.median([(row.high - row.low) / 2 for row in rows]))
    first, third = np.quantile(effects, [0.25, 0.75])
    spread = max(float(third - first), half)
    effects = effects.clip(first - 6 * spread, third + 6 * spread)
    low = max(min([row.low for row in rows]), effects.min() - 3 * half)
    high = min(max([row.high for row in rows]), effects.max() + 3 * half)
    return float(low), float(high)


def sides(rows: Sequence[Estimate]) -> list[float]:
    """Side of each point in points: the *area* is in proportion to the row's weight."""
    sizes, _ = weights(rows)
    largest = max(sizes, default=0.0) or 1.0
    return [max(LARGEST_SIDE * math.sqrt(size / largest), SMALLEST_SIDE) for size in sizes]


def draw_axis(axes: Axes, ends: tuple[float, float], *, width: float, size: float, scale: float) -> list[float]:
    """Set the limits and the ticks that fit the width; the ticks are returned."""
    bare(axes, size=size, scale=scale)
    axes.set_xlim(*ends)
    axes.set_yticks([])
    ticks, labels = fitting_ticks(ends, width, size)
    axes.set_xticks(ticks, labels=labels)
    return ticks


@dataclass(frozen=True, slots=True)
class Band:
    """Heights over which lines guide the eye, and the average effect there."""

    top: float
    bottom: float
    ate: float


def draw_guides(axes: Axes, bands: Sequence[Band], ticks: Sequence[float], *, scale: float) -> None:
    """Grid, null line and the average effect in each band; one artist for each, as artists are what takes time."""
    grid = [(tick, band.top, band.bottom) for band in bands for tick in ticks]
    averages = [(band.ate, band.top, band.bottom) for band in bands if math.isfinite(band.ate)]
    null = [(0.0, band.top, band.bottom) for band in bands]
    _upright(axes, grid, color=GRID, linewidth=0.7 * scale, zorder=0.5)
    _upright(axes, null, color=INK, linewidth=1.0 * scale, zorder=1)
    _upright(axes, averages, color=POOLED, linewidth=1.0 * scale, linestyles=(0, (4.0, 2.6)), zorder=1.1)


def _upright(axes: Axes, lines: Sequence[tuple[float, float, float]], **look: Any) -> None:
    """Vertical lines: where, from, to."""
    axes.vlines([x for x, *_ in lines], [top for _, top, _ in lines], [bottom for *_, bottom in lines], **look)


def draw_rows(axes: Axes, placed: Sequence[Placed], *, ci_prob: float, scale: float) -> None:
    """Raw estimates above the middle of each row, light; pooled ones below it, dark."""
    raw = [item for item in placed if _inside(axes, item.row.raw)]
    raw_bars = [(*raw_interval(item.row, ci_prob), item.y - RAW_LIFT) for item in placed]
    _intervals(axes, raw_bars, color=RAW, width=1.2, scale=scale)
    axes.scatter(
        [item.row.raw for item in raw],
        [item.y - RAW_LIFT for item in raw],
        s=(3.9 * scale) ** 2,
        facecolor="white",
        edgecolor=RAW,
        linewidth=1.1 * scale,
        zorder=3,
        gid="raw",
    )
    bars = [(item.row.low, item.row.high, item.y + POOLED_DROP) for item in placed]
    _intervals(axes, bars, color=POOLED, width=2.4, scale=scale)
    shown = [item for item in placed if _inside(axes, item.row.effect)]
    axes.scatter(
        [item.row.effect for item in shown],
        [item.y + POOLED_DROP for item in shown],
        s=[(item.side * scale) ** 2 for item in shown],
        marker="s",
        color=POOLED,
        edgecolor="white",
        linewidth=0.5 * scale,
        zorder=4,
        gid="pooled",
    )


def _inside(axes: Axes, value: float) -> bool:
    low, high = axes.get_xlim()
    return low <= value <= high


def _intervals(
    axes: Axes, bars: Sequence[tuple[float, float, float]], *, color: str, width: float, scale: float
) -> None:
    """Lines that end in an arrow head where they leave the axis."""
    first, last = axes.get_xlim()
    known = [bar for bar in bars if all(map(math.isfinite, bar))]
    lines = [(min(max(low, first), last), max(min(high, last), first), y) for low, high, y in known]
    axes.hlines(
        [y for *_, y in lines],
        [low for low, *_ in lines],
        [high for _, high, _ in lines],
        color=color,
        linewidth=width * scale,
        zorder=2,
    )
    for marker, edge, beyond in (
        ("<", first, [y for low, _, y in known if low < first]),
        (">", last, [y for _, high, y in known if high > last]),
    ):
        axes.scatter(
            [edge] * len(beyond),
            beyond,
            marker=marker,
            s=((4.2 + width) * scale) ** 2,
            color=color,
            linewidth=0,
            clip_on=False,
            zorder=3,
            gid="clipped",
        )


def clipped(blocks: Sequence[Block], ends: tuple[float, float], ci_prob: float) -> bool:
    """Whether any interval goes beyond the axis."""
    rows = [row for block in blocks for row in block.rows]
    values = [value for row in rows for value in (row.low, row.high, *raw_interval(row, ci_prob))]
    return any(value < ends[0] or value > ends[1] for value in values)


def draw_diamond(axes: Axes, item: Placed, *, scale: float) -> None:
    """The average effect: as wide as its interval."""
    row, y, half = item.row, item.y, 6.5
    corners = [(row.low, y), (row.effect, y - half), (row.high, y), (row.effect, y + half)]
    axes.add_patch(
        Polygon(corners, closed=True, facecolor=INK, edgecolor=INK, linewidth=0.6 * scale, zorder=4, gid="diamond")
    )
