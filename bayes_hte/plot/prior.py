"""What the prior believes of segments' effects, and what the data made of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure, SubFigure

from bayes_hte.errors import DataError
from bayes_hte.plot import text as words
from bayes_hte.plot.axis import bare, effect_label, fitting_ticks
from bayes_hte.plot.canvas import INK, POOLED, QUIET, RAW, Canvas, Ink, open_canvas

Array = npt.NDArray[np.float64]

_WIDTH, _MARGIN, _PANEL, _HEAD, _FOOT = 620.0, 14.0, 120.0, 46.0, 24.0
_BEFORE, _AFTER = "#c3cad2", "#a9c3df"
_SMOOTH = np.hanning(9) / np.hanning(9).sum()
_BINS = 160
_CENTRAL = 0.99
"""Share of the prior that is shown: the tails of some priors have no end."""


@dataclass(frozen=True, slots=True)
class Belief:
    """One arm.

    Attributes
    ----------
    arm : str
    prior : ndarray
        Draws of one segment's effect before the data.
    posterior : ndarray or None
        Draws of all segments' effects after them; None before.
    raw : ndarray
        Estimates of segments on their own; NaN where there are none.
    """

    arm: str
    prior: Array
    posterior: Array | None
    raw: Array


def prior(
    beliefs: list[Belief],
    *,
    title: str | None = None,
    axis_label: str | None = None,
    percent: bool = False,
    unit: str = "",
    where: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Draw prior and posterior densities of segments' effects, one panel per arm.

    Parameters
    ----------
    beliefs : list of Belief
    title, axis_label : str, optional
        Over the figure, and under its axis.
    percent : bool
        Multiply effects by 100.
    unit : str
        What an effect counts, for the axis.
    where : Figure or SubFigure, optional
        Draw into this; by default a new figure.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    DataError
        If there is no arm, or a prior without finite draws.
    """
    if not beliefs or not all(np.isfinite(each.prior).all() and len(each.prior) for each in beliefs):
        raise DataError("there is no prior to draw, or it is not finite on this scale: try scale='link'")
    height = _HEAD + len(beliefs) * _PANEL + _FOOT
    canvas = open_canvas(where, _WIDTH, height)
    factor = 100.0 if percent else 1.0
    ends = _ends(beliefs, factor)
    heading = title or "Effects of segments: what the prior allows"
    canvas.write(_MARGIN, 16, heading, Ink(13.0, bold=True))
    canvas.write(_MARGIN, 34, _key(beliefs), Ink(10.0, QUIET))
    for number, belief in enumerate(beliefs):
        _panel(canvas, belief, ends, factor, _HEAD + number * _PANEL)
    label = axis_label or effect_label(unit, percent=percent)
    canvas.write(canvas.width / 2, height - 14, label, Ink(11.0), "center")
    figure = canvas.axes.figure
    assert figure is not None  # noqa: S101 - only for the type checker: the axes were made with a figure
    return figure


def _key(beliefs: list[Belief]) -> str:
    after = "; blue: all segments after the data" if any(each.posterior is not None for each in beliefs) else ""
    return f"grey: one segment before the data{after}; ticks: raw estimates"


def _ends(beliefs: list[Belief], factor: float) -> tuple[float, float]:
    tail = (1 - _CENTRAL) / 2
    both = [np.quantile(each.prior, [tail, 1 - tail]) for each in beliefs]
    both += [np.quantile(each.posterior, [0.001, 0.999]) for each in beliefs if each.posterior is not None]
    return factor * float(min(low for low, _ in both)), factor * float(max(high for _, high in both))


def _shape(draws: Array, edges: Array) -> Array:
    """Density up to its height: each curve is as high as the panel."""
    height, _ = np.histogram(draws, bins=edges)
    smooth = np.convolve(height, _SMOOTH, mode="same")
    return np.asarray(smooth / max(smooth.max(), 1e-300))


def _panel(canvas: Canvas, belief: Belief, ends: tuple[float, float], factor: float, top: float) -> None:
    width = canvas.width - 2 * _MARGIN
    axes = canvas.inset((_MARGIN, top, width, _PANEL - 26))
    edges = np.linspace(*ends, _BINS + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    if belief.posterior is not None:
        axes.fill_between(middle, 0, _shape(factor * belief.posterior, edges), color=_AFTER, linewidth=0)
        axes.plot(middle, _shape(factor * belief.posterior, edges), color=POOLED, linewidth=1.2 * canvas.scale)
    before = _shape(factor * belief.prior, edges)
    axes.fill_between(middle, 0, before, color=_BEFORE, alpha=0.5, linewidth=0)
    axes.plot(middle, before, color=QUIET, linewidth=1.2 * canvas.scale)
    raw = factor * belief.raw[np.isfinite(belief.raw)]
    inside = raw[(raw >= ends[0]) & (raw <= ends[1])]
    axes.vlines(inside, -0.12, -0.02, color=RAW, linewidth=1.0 * canvas.scale)
    axes.axvline(0.0, color=INK, linewidth=0.8 * canvas.scale)
    axes.set_xlim(*ends)
    axes.set_ylim(-0.14, 1.05)
    axes.set_yticks([])
    ticks, labels = fitting_ticks(ends, width, 10.0)
    axes.set_xticks(ticks, labels)
    bare(axes, size=10.0, scale=canvas.scale)
    outside = len(raw) - len(inside)
    said = words.shorten(belief.arm) + (f"   ({outside} raw estimates outside)" if outside else "")
    canvas.write(_MARGIN, top + 8, said, Ink(11.0, bold=True))
