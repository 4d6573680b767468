"""Ticks and names of data axes."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayes_hte._support.phrases import format_number
from bayes_hte.plot.drawing.canvas import Canvas
from bayes_hte.plot.drawing.fonts import FONT_FAMILY
from bayes_hte.plot.drawing.text import measure_widest

AxisLimits = tuple[float, float]
"""Lowest and highest value of an axis, in units of the data."""
_LABEL_GAP = 12
"""Points between the labels of neighbouring ticks."""


def label_effect_axis(unit: str, *, percent: bool) -> str:
    """Name the quantity on the axis of effects.

    Examples
    --------
    >>> label_effect_axis("visit", percent=True), label_effect_axis("", percent=False)
    ('change in visit, percentage points', 'effect')
    """
    quantity = f"change in {unit}" if unit else "effect"
    return f"{quantity}, percentage points" if percent else quantity


def choose_fitting_ticks(axis_limits: AxisLimits, axis_width: float, font_size: float) -> tuple[list[float], list[str]]:
    """Choose at most seven round ticks whose labels fit side by side into `axis_width` points."""
    for max_ticks in range(7, 0, -1):
        tick_positions, tick_labels = choose_round_ticks(axis_limits, max_ticks)
        if len(tick_positions) * (measure_widest(tick_labels, font_size) + _LABEL_GAP) <= axis_width:
            break
    return tick_positions, tick_labels


def choose_round_ticks(axis_limits: AxisLimits, max_ticks: int) -> tuple[list[float], list[str]]:
    """Choose round ticks within the limits, and write their labels."""
    candidate_ticks = MaxNLocator(nbins=max_ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(*axis_limits)
    tick_positions = [float(tick) for tick in candidate_ticks if axis_limits[0] <= tick <= axis_limits[1]]
    return tick_positions, format_ticks(tick_positions)


def choose_log_ticks(axis_limits: AxisLimits) -> tuple[list[float], list[str]]:
    """Choose ticks of a logarithmic axis: as few to a power of ten as give at least four."""
    exponents = range(math.floor(math.log10(axis_limits[0])), math.ceil(math.log10(axis_limits[1])) + 1)
    ticks_inside: list[float] = []
    # From text: 3e-1 is the nearest number to 0.3, but 3 * 10**-1 is not always.
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        candidate_ticks = [float(f"{mantissa}e{exponent}") for exponent in exponents for mantissa in mantissas]
        ticks_inside = [tick for tick in candidate_ticks if axis_limits[0] <= tick <= axis_limits[1]]
        if len(ticks_inside) >= 4:
            break
    return ticks_inside, [label for tick in ticks_inside for label in format_ticks([tick])]


def format_ticks(ticks: Sequence[float]) -> list[str]:
    """Write ticks with as many decimals as the finest of them needs.

    Examples
    --------
    >>> format_ticks([-2.5, 0.0, 2.5])
    ['−2.5', '0.0', '2.5']
    """
    # The locator's own sums are off by rounding, which would ask for all decimals.
    tolerance = max((abs(tick) for tick in ticks), default=1.0) * 1e-9
    decimal_places = next(
        (places for places in range(12) if all(abs(round(value, places) - value) <= tolerance for value in ticks)), 12
    )
    return [format_number(tick, decimal_places, sign=False) for tick in ticks]


def strip_axes(axes: Axes, *, font_size: float, canvas: Canvas) -> None:
    """Strip axes down to a line at the bottom, and set their texts in the bundled font."""
    for spine_side in ("left", "right", "top"):
        axes.spines[spine_side].set_visible(False)
    axes.spines["bottom"].set(color=canvas.theme.quiet_color, linewidth=0.8 * canvas.shrink_factor)
    axes.tick_params(
        length=3.5 * canvas.shrink_factor,
        width=0.8 * canvas.shrink_factor,
        pad=2.5 * canvas.shrink_factor,
        color=canvas.theme.quiet_color,
        labelcolor=canvas.theme.ink_color,
        labelsize=font_size * canvas.shrink_factor,
        labelfontfamily=FONT_FAMILY,
    )
