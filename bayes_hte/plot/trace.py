"""The tau trace: every segment's effect as a function of how much segments are assumed to differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from bayes_hte.errors import DataError
from bayes_hte.plot import text as words
from bayes_hte.plot.axis import Ends, bare, effect_label, fitting_ticks, round_ticks
from bayes_hte.plot.canvas import GRID, INK, POOLED, QUIET, RAW, Canvas, Ink, leading, open_canvas, room

Array = npt.NDArray[np.float64]

_LARGE, _SIZE, _SMALL, _MARGIN = 13.0, 11.0, 10.0, 14.0
_WIDTH, _NARROWEST = 620.0, 390.0  # a page, a phone: in between the design is as wide as its place
_LEFT = 50.0  # room for the tick labels
_HEADING, _ENDS, _UPPER, _BETWEEN, _LOWER, _UNDER = 24.0, 18.0, 270.0, 22.0, 54.0, 52.0
_NAMES, _LEADER = 0.33, 18.0  # names take at most this share of the width; thin lines lead to them
_NAME, _SAMPLE, _GAP = 1.25 * _SMALL, 26.0, 16.0  # from name to name; a mark of the key, and from one to the next
_BAND, _TAIL, _BODY = "#ebf1f8", "#dce6f2", "#a9c3df"
_TURNING = "#b04a0c"  # burnt orange: 5:1 against white, distinct from blue for every kind of colour vision
_KINDS = {"other": "#b3bcc6", "other-turning": "#d9a57f", "named": POOLED, "turning": _TURNING}
_DASHES = (0, (4.0, 2.6))
_CROWD = 40  # where there are more lines, those without a name are thinner, or they would run together


@dataclass(frozen=True, slots=True)
class Belief:
    """The posterior of tau: its density, median and central interval, which are points of its grid."""

    tau: Array
    density: Array
    low: float
    median: float
    high: float

    def said(self, interval: str) -> str:
        """The posterior in words, with two digits of the median."""
        places = words.decimals([self.median])
        low, median, high = (words.number(value, places, sign=False) for value in (self.low, self.median, self.high))
        return f"posterior median {median}, {interval} {low} to {high}"


@dataclass(frozen=True, slots=True)
class Line:
    """One segment: its effect at every tau, what it weighs, and whether its sign hinges on tau."""

    label: str
    tau: Array
    effect: Array
    weight: float
    turns: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One arm: its lines, of which the first few are named, and the posterior of tau."""

    arm: str
    lines: tuple[Line, ...]
    names: int
    belief: Belief

    def chosen(self, kind: str) -> list[Line]:
        """The lines of one colour."""
        lines = self.lines[self.names :] if kind.startswith("other") else self.lines[: self.names]
        return [line for line in lines if line.turns == kind.endswith("turning")]


@dataclass(frozen=True, slots=True)
class Frame:
    """What panels have in common: the axis of effects, the largest weight, and the room for names."""

    ends: Ends
    heaviest: float
    names: float


def trace(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
    table: pd.DataFrame,
    density: pd.DataFrame,
    *,
    dimensions: Sequence[str],
    unit: str = "",
    percent: bool = False,
    axis_label: str | None = None,
    tau_label: str = "between-segment SD (tau)",
    ci_prob: float = 0.95,
    labels: int = 8,
    title: str | None = None,
    caption: str | None = None,
    figure: Figure | SubFigure | None = None,
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Every segment's effect given tau, the SD of effects between segments, above the posterior of tau.

    Parameters
    ----------
    table : DataFrame
        One row per arm, segment and tau; tau increases within a segment, and is the same for all segments of an
        arm. Columns: the dimensions, ``arm``, ``tau``, ``effect`` (conditional posterior mean); optional:
        ``n_control`` and ``n_treated`` (units, NaN if unknown), ``sd`` (conditional posterior SD).
    density : DataFrame
        The posterior density of tau: columns ``arm``, ``tau`` (increasing, on any grid) and ``density``.
    dimensions : sequence of str
        Columns that hold the levels of a segment.
    tau_label : str
        Label of the horizontal axis.
    ci_prob : float
        Probability of the central interval of tau that is shaded.
    labels : int
        How many segments are named in each panel, as far as there is room (about 20): those whose effect is
        furthest from the common one at the posterior median of tau.
    unit, percent, axis_label, title, caption, figure, ax
        As for `shrinkage`. `percent` leaves tau as it is.

    Returns
    -------
    Figure or SubFigure
        The figure that was given, or that holds `ax`, or a new one.

    Raises
    ------
    DataError
        If a table has no rows, a column or an arm's density is missing, a number is not finite, a grid of tau is
        not as described, `ci_prob` is not between 0 and 1, or both `figure` and `ax` are given.

    Notes
    -----
    On the left, segments do not differ: all lines meet at the common effect (complete pooling). To the right,
    each goes to its own estimate (no pooling). The posterior of tau says which part of the picture matters;
    outside its central interval everything is paler. Orange lines change sign inside the interval, so that the
    sign of this segment's effect hinges on how much segments differ. Thicker lines have more units or, where
    units are unknown, a smaller `sd` at the largest tau. There is one panel per arm; panels share the axis of
    effects, and each has the range of tau that its lines have.

    References
    ----------
    Rubin (1981), Journal of Educational Statistics 6:377.
    Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, figures 5.5 to 5.7.
    Röver & Friede (2023), Computer Methods and Programs in Biomedicine 229:107303 (R package bayesmeta).
    Röver, Rindskopf & Friede (2023), How trace plots help interpret meta-analysis results, arXiv:2306.17043.

    Examples
    --------
    >>> rows = [("mobile", 0.0, 0.05), ("mobile", 0.1, 0.08), ("desktop", 0.0, 0.05), ("desktop", 0.1, 0.01)]
    >>> table = pd.DataFrame(rows, columns=["device", "tau", "effect"]).assign(arm="new")
    >>> density = pd.DataFrame({"arm": "new", "tau": [0.0, 0.05, 0.1], "density": [10.0, 8.0, 2.0]})
    >>> figure = trace(table, density, dimensions=["device"], percent=True)
    >>> round(float(figure.get_figwidth()), 1)
    8.6
    """
    if figure is not None and ax is not None:
        raise DataError("both figure and ax are given; give the one to draw into")
    found = _read(table, density, dimensions, ci_prob, 100.0 if percent else 1.0)
    panels = [_panel(arm, lines, belief, labels) for arm, (lines, belief) in found.items()]
    place = ax if ax is not None else figure
    given = room(place)
    width = max(given[0], _NARROWEST) if given else _WIDTH
    interval = f"{words.percentage(ci_prob)} interval"
    inner = 0.95 * (width - 2 * _MARGIN)  # small text is wider on a screen, where letters start at whole pixels
    titles = words.wrap(title or "", inner / 1.1, _LARGE)
    quantity = words.wrap(effect_label(unit, percent=percent) if axis_label is None else axis_label, inner, _SIZE)
    key = _key(panels, interval, inner)
    note = _note(panels, interval, _weights(table)[1])
    notes = words.wrap(note, inner, _SMALL) + words.wrap(caption or "", inner, _SMALL)
    start = _MARGIN + len(titles) * leading(_LARGE) + len(quantity) * leading(_SIZE) + 8
    heading = _HEADING if len(panels) > 1 else 0.0
    each = heading + _ENDS + _UPPER + _BETWEEN + _LOWER + _UNDER
    end = start + len(panels) * each
    canvas = open_canvas(place, width, end + (len(key) + len(notes) + 1) * leading(_SMALL))

    canvas.lines(_MARGIN, _MARGIN / 2 + leading(_LARGE) / 2, titles, Ink(_LARGE, bold=True))
    canvas.lines(_MARGIN, start - 8 - (len(quantity) - 0.5) * leading(_SIZE), quantity, Ink(_SIZE, QUIET))
    frame = _frame(panels, width)
    for index, panel in enumerate(panels):
        top = start + index * each + heading + _ENDS
        if heading:
            canvas.write(_MARGIN, top - _ENDS - heading / 2, words.shorten(panel.arm), Ink(_SIZE, bold=True))
        _draw_panel(canvas, panel, frame, top, interval)
        label = words.fit(tau_label, canvas.width - _LEFT - _MARGIN, _SIZE)
        canvas.write(_LEFT, top + _UPPER + _BETWEEN + _LOWER + 30, label, Ink(_SIZE))
    _draw_key(canvas, key, end)
    canvas.lines(_MARGIN, end + (len(key) + 0.5) * leading(_SMALL), notes, Ink(_SMALL, QUIET))
    owner = canvas.axes.get_figure()
    assert owner is not None  # noqa: S101 - only for the type checker: the axes was just drawn on
    return owner


def _read(
    table: pd.DataFrame, density: pd.DataFrame, dimensions: Sequence[str], ci_prob: float, factor: float
) -> dict[str, tuple[list[Line], Belief]]:
    """The lines of every arm and the posterior of its tau, in the order of the table."""
    if not 0 < ci_prob < 1:
        raise DataError(f"ci_prob must be between 0 and 1, found {ci_prob}")
    weights, _ = _weights(table)
    found: dict[str, list[Line]] = {}
    beliefs = {arm: _belief(arm, rows, ci_prob) for (arm,), rows in _parts(density, ["arm"], "density").items()}
    for (arm, *levels), rows in _parts(table, ["arm", *dimensions], "effect").items():
        if arm not in beliefs:
            raise DataError(f"the table of density lacks the arm {arm!r}; it has {sorted(beliefs)}")
        lines = found.setdefault(arm, [])
        lines.append(_line((arm, *levels), rows, beliefs[arm], factor, weights[rows.index[-1]]))
        if not np.array_equal(lines[0].tau, lines[-1].tau):
            raise DataError(f"{lines[0].label!r} and {lines[-1].label!r} in arm {arm!r} have different grids of tau")
    return {arm: (lines, beliefs[arm]) for arm, lines in found.items()}


def _panel(arm: str, lines: Sequence[Line], belief: Belief, labels: int) -> Panel:
    """The lines that are furthest from where all of them meet, at the median of tau, come first."""
    common = np.mean([line.effect[0] for line in lines])
    ranked = sorted(lines, key=lambda line: -abs(np.interp(belief.median, line.tau, line.effect) - common))
    return Panel(arm, tuple(ranked), min(max(labels, 0), len(lines), int(_UPPER / _NAME)), belief)


def _parts(table: pd.DataFrame, columns: Sequence[str], value: str) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of every combination of values, in the order in which they first occur."""
    missing = [name for name in (*columns, "tau", value) if name not in table.columns]
    if missing:
        raise DataError(f"the table of {value} lacks the columns {missing}; it has {list(map(str, table.columns))}")
    if table.empty:
        raise DataError(f"the table of {value} has no rows, so there is nothing to plot")
    places: dict[tuple[str, ...], list[int]] = {}
    for place, key in enumerate(zip(*([str(level) for level in table[name]] for name in columns), strict=True)):
        places.setdefault(key, []).append(place)
    return {key: table.iloc[chosen].set_axis(chosen) for key, chosen in places.items()}


def _floats(rows: pd.DataFrame, name: str) -> Array:
    if name not in rows.columns:
        return np.full(len(rows), np.nan)
    return np.asarray(rows[name].astype("Float64").to_numpy(na_value=np.nan), dtype=float)


def _curve(rows: pd.DataFrame, name: str, where: str) -> tuple[Array, Array]:
    """tau and a value at each."""
    tau, values = _floats(rows, "tau"), _floats(rows, name)
    if not (np.isfinite(tau).all() and np.isfinite(values).all()):
        raise DataError(f"{where}: every tau and {name} must be a finite number")
    if len(tau) < 2 or tau[0] < 0 or (np.diff(tau) <= 0).any():
        raise DataError(f"{where}: tau must increase over at least two rows, from 0 or more; found {tau[:5].tolist()}")
    return tau, values


def _belief(arm: str, rows: pd.DataFrame, ci_prob: float) -> Belief:
    where = f"the density of tau in arm {arm!r}"
    tau, density = _curve(rows, "density", where)
    if density.min() < 0 or density.max() == 0:
        raise DataError(f"{where} must be positive somewhere and negative nowhere")
    # The density is linear between its points, its integral is not: 32 steps between them make it nearly so.
    fine = np.interp(np.linspace(0, len(tau) - 1, 32 * (len(tau) - 1) + 1), np.arange(len(tau)), tau)
    heights = np.interp(fine, tau, density)
    mass = np.concatenate([[0.0], np.cumsum(np.diff(fine) * (heights[1:] + heights[:-1]))])
    low, median, high = np.interp([(1 - ci_prob) / 2, 0.5, (1 + ci_prob) / 2], mass / mass[-1], fine).tolist()
    grid = np.unique([*tau, low, median, high])
    return Belief(grid, np.interp(grid, tau, density), low, median, high)


def _line(key: tuple[str, ...], rows: pd.DataFrame, belief: Belief, factor: float, weight: float) -> Line:
    label = ", ".join(map(words.shorten, key[1:]))
    tau, effect = _curve(rows, "effect", f"segment {label!r} in arm {key[0]!r}")
    inside = np.interp([belief.low, *tau[(tau > belief.low) & (tau < belief.high)], belief.high], tau, effect)
    return Line(label, tau, factor * effect, weight, bool(inside.min() < 0 < inside.max()))


def _weights(table: pd.DataFrame) -> tuple[Array, str]:
    """What makes the line of a row thicker: units, or the precision of the effect where no units are known."""
    units, sd = _floats(table, "n_control") + _floats(table, "n_treated"), _floats(table, "sd")
    if (units > 0).any():
        return np.where(units > 0, units, 0.0), "more units"
    return np.divide(1.0, sd**2, out=np.zeros(len(sd)), where=sd > 0), "a smaller standard error"


def _frame(panels: Sequence[Panel], width: float) -> Frame:
    lines = [line for panel in panels for line in panel.lines]
    effects = np.concatenate([[0.0], *(line.effect for line in lines)])
    low, high = float(effects.min()), float(effects.max())
    margin = 0.06 * (high - low) or 1.0
    names = words.widest((line.label for panel in panels for line in panel.lines[: panel.names]), _SMALL)
    heaviest = max(line.weight for line in lines) or 1.0
    return Frame((low - margin, high + margin), heaviest, min(names + 1, _NAMES * width))


def _key(panels: Sequence[Panel], interval: str, room: float) -> list[list[tuple[str, str]]]:
    """What marks mean and their kind, as many to a row as there is room for."""
    named = "furthest from the common effect" if any(len(p.lines) > p.names for p in panels) else "segment"
    turns = "changes sign inside the band"
    means = {"named": named, "other-turning": turns, "turning": turns, "other": "other segments"}
    # Of two kinds that mean the same, the darker stays.
    items = {text: kind for kind, text in means.items() if any(panel.chosen(kind) for panel in panels)}
    rows: list[list[tuple[str, str]]] = [[]]
    for item in (items | {f"{interval} of tau": "band", "its median": "median"}).items():
        taken = sum(_SAMPLE + words.width(text, _SMALL) + _GAP for text, _ in (*rows[-1], item))
        rows += [[]] if rows[-1] and taken - _GAP > room else []
        rows[-1].append(item)
    return rows


def _note(panels: Sequence[Panel], interval: str, meaning: str) -> str:
    lines = [line for panel in panels for line in panel.lines]
    count = sum(line.turns for line in lines)
    turned = f"{count} of {len(lines)} segments change{'s' * (count == 1)}" if count else "No segment changes"
    thicker = f" Thicker lines have {meaning}." if len({line.weight for line in lines}) > 1 else ""
    return f"{turned} sign inside the {interval} of tau.{thicker}"


def _draw_panel(canvas: Canvas, panel: Panel, frame: Frame, top: float, interval: str) -> None:
    """One arm: its lines, their names, and the posterior of tau on the same horizontal axis."""
    belief, scale, end = panel.belief, canvas.scale, float(panel.lines[0].tau[-1])
    wide = canvas.width - _LEFT - _LEADER - frame.names - _MARGIN
    upper = canvas.inset((_LEFT, top, wide, _UPPER))
    lower = canvas.inset((_LEFT, top + _UPPER + _BETWEEN, wide, _LOWER))
    lower.sharex(upper)
    upper.set_xlim(0.0, end)
    for inner in (upper, lower):
        bare(inner, size=_SMALL, scale=scale)
        inner.axvline(belief.median, color=POOLED, linewidth=scale, linestyle=_DASHES, zorder=2.5)
    ticks, marks = fitting_ticks((0.0, end), wide, _SMALL)
    lower.set_xticks(ticks, labels=marks)
    lower.set_yticks([])
    _draw_density(lower, belief, scale)
    _draw_lines(upper, panel, frame, scale)
    if panel.names:
        _draw_names(canvas, panel, frame, (_LEFT + wide, top))
    canvas.write(_LEFT, top - _ENDS / 2, "← fully pooled", Ink(_SMALL, QUIET))
    canvas.write(_LEFT + wide, top - _ENDS / 2, "not pooled →", Ink(_SMALL, QUIET), "right")

    start, middle, stop = (_LEFT + min(tau / end, 1.0) * wide for tau in (belief.low, belief.median, belief.high))
    y, bottom, said = top + _UPPER, top + _UPPER + _BETWEEN + _LOWER, belief.said(interval)
    canvas.axes.fill_between([start, stop], top, bottom, color=_BAND, linewidth=0, zorder=0, gid="band")
    x = min(middle + 6, canvas.width - _MARGIN - words.width(said, _SMALL))
    canvas.write(x, y + _BETWEEN / 2, said, Ink(_SMALL, POOLED))
    if x > middle and belief.median < end:  # the line goes on through the gap, unless through the words
        ends = [middle, middle], [y, y + _BETWEEN]
        canvas.axes.add_line(Line2D(*ends, color=POOLED, linewidth=scale, linestyle=_DASHES, zorder=1))


def _draw_density(lower: Axes, belief: Belief, scale: float) -> None:
    lower.set_ylim(0.0, 1.06 * belief.density.max())
    body = (belief.tau >= belief.low) & (belief.tau <= belief.high)
    lower.fill_between(belief.tau, belief.density, color=_TAIL, linewidth=0, zorder=1, gid="density")
    lower.fill_between(belief.tau[body], belief.density[body], color=_BODY, linewidth=0, zorder=1.1, gid="interval")
    lower.plot(belief.tau, belief.density, color=POOLED, linewidth=1.1 * scale, zorder=2)


def _draw_lines(upper: Axes, panel: Panel, frame: Frame, scale: float) -> None:
    upper.set_ylim(*frame.ends)
    ticks, marks = round_ticks(frame.ends, 6)
    upper.set_yticks(ticks, labels=marks)
    upper.tick_params(length=0, labelbottom=False)
    upper.spines["bottom"].set_visible(False)
    for tick in ticks:
        upper.axhline(tick, color=GRID, linewidth=0.7 * scale, zorder=0.5)
    upper.axhline(0.0, color=INK, linewidth=1.0 * scale, zorder=3)  # above the veil
    quiet = 0.6 * min(1.0, (_CROWD / len(panel.lines)) ** 0.4)
    for order, (kind, color) in enumerate(_KINDS.items()):
        lines, thick = panel.chosen(kind), quiet if kind.startswith("other") else 1.0
        curves = [np.column_stack([line.tau, line.effect]) for line in lines]
        # The square root keeps small segments visible.
        widths = [scale * thick * (0.8 + 1.6 * (line.weight / frame.heaviest) ** 0.5) for line in lines]
        drawn = LineCollection(curves, colors=color, linewidths=widths, zorder=2 + order / 10, gid=kind)
        upper.add_collection(drawn, autolim=False)
    for start, stop in ((0.0, panel.belief.low), (panel.belief.high, upper.get_xlim()[1])):
        upper.axvspan(start, max(start, stop), color="white", alpha=0.5, linewidth=0, zorder=2.4)


def _draw_names(canvas: Canvas, panel: Panel, frame: Frame, corner: tuple[float, float]) -> None:
    """Every name beside the end of its line, moved as little as keeps the names apart."""
    from scipy.optimize import isotonic_regression

    low, high = frame.ends
    right, top = corner
    named = sorted(panel.lines[: panel.names], key=lambda line: -line.effect[-1])
    starts = top + _UPPER * (high - np.array([line.effect[-1] for line in named])) / (high - low)
    steps = _NAME * np.arange(len(named))
    places = steps + np.clip(isotonic_regression(starts - steps).x, top, top + _UPPER - steps[-1])
    for line, start, place in zip(named, starts.tolist(), places.tolist(), strict=True):
        xs, ys = [right + 2, right + _LEADER - 4], [start, place]
        canvas.axes.add_line(Line2D(xs, ys, color=RAW, linewidth=0.6 * canvas.scale, zorder=1))
        ink = Ink(_SMALL, _TURNING if line.turns else POOLED)
        canvas.write(right + _LEADER, place, words.fit(line.label, frame.names, _SMALL), ink)


def _draw_key(canvas: Canvas, rows: Sequence[Sequence[tuple[str, str]]], top: float) -> None:
    for index, row in enumerate(rows):
        x, y = _MARGIN, top + (index + 0.5) * leading(_SMALL)
        for text, kind in row:
            color, width = {"band": (_BODY, 8.0), "median": (POOLED, 1.0)}.get(kind) or (_KINDS[kind], 1.8)
            mark = Line2D([x, x + _SAMPLE - 6], [y, y], linestyle=_DASHES if kind == "median" else "-", zorder=1)
            mark.set(color=color, linewidth=width * canvas.scale, solid_capstyle="butt")
            canvas.axes.add_line(mark)
            canvas.write(x + _SAMPLE, y, text, Ink(_SMALL, QUIET))
            x += _SAMPLE + words.width(text, _SMALL) + _GAP
