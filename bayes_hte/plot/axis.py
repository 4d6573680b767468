"""Ticks and names of data axes."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayes_hte.plot import text as words
from bayes_hte.plot.canvas import INK, QUIET

Ends = tuple[float, float]


def effect_label(unit: str, *, percent: bool) -> str:
    """What the axis of effects shows.

    Examples
    --------
    >>> effect_label("visit", percent=True), effect_label("", percent=False)
    ('change in visit, percentage points', 'effect')
    """
    quantity = f"change in {unit}" if unit else "effect"
    return f"{quantity}, percentage points" if percent else quantity


def fitting_ticks(ends: Ends, width: float, size: float) -> tuple[list[float], list[str]]:
    """At most seven round ticks whose labels fit side by side into `width` points."""
    for wanted in range(7, 0, -1):
        ticks, labels = round_ticks(ends, wanted)
        if len(ticks) * (words.widest(labels, size) + 12) <= width:
            break
    return ticks, labels


def round_ticks(ends: Ends, most: int) -> tuple[list[float], list[str]]:
    """Round ticks between the ends, and their labels."""
    found = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
    ticks = [float(tick) for tick in found if ends[0] <= tick <= ends[1]]
    return ticks, tick_labels(ticks)


def log_ticks(ends: Ends) -> tuple[list[float], list[str]]:
    """Ticks of a logarithmic axis: as few to a power of ten as give at least four."""
    powers = range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
    inside: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        inside = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
        if len(inside) >= 4:
            break
    return inside, [label for tick in inside for label in tick_labels([tick])]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Ticks with as many decimals as the finest of them needs.

    Examples
    --------
    >>> tick_labels([-2.5, 0.0, 2.5])
    ['−2.5', '0.0', '2.5']
    """
    finest = max((abs(tick) for tick in ticks), default=1.0) * 1e-9
    places = next((d for d in range(12) if all(abs(round(t, d) - t) <= finest for t in ticks)), 12)
    return [words.number(tick, places, sign=False) for tick in ticks]


def bare(axes: Axes, *, size: float, scale: float) -> None:
    """Only a line at the bottom, and texts in the bundled font."""
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=QUIET, linewidth=0.8 * scale)
    axes.tick_params(
        length=3.5 * scale,
        width=0.8 * scale,
        pad=2.5 * scale,
        color=QUIET,
        labelcolor=INK,
        labelsize=size * scale,
        labelfontfamily=words.FAMILY,
    )
