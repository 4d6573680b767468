"""The policy curve: what treating more and more people gains, above how sure each segment's place in the policy is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bayes_hte._support.phrases import format_percentage, shorten_text
from bayes_hte._support.validation import describe_value, to_int
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.plot.drawing.axis import choose_fitting_ticks, choose_round_ticks, label_effect_axis, strip_axes
from bayes_hte.plot.drawing.canvas import Canvas, TextStyle, compute_leading, measure_target, open_canvas
from bayes_hte.plot.drawing.names import DesignBox, Move, place_names
from bayes_hte.plot.drawing.text import cut_to_width, measure_widest, measure_width, wrap_text
from bayes_hte.plot.drawing.theme import DEFAULT_THEME, Theme
from bayes_hte.plot.drawing.visuals import KEY_PREFIX, Visuals, require_known_visuals, restyle_marks

POLICY_MARKS = (
    "title",
    "axis_label",
    "label",
    "note",
    "key",
    "grid",
    "zero_line",
    "band",
    "interval",
    "curve",
    "point",
    "policy_point",
    "chance_line",
    "budget_line",
    "bar",
    "other_bar",
)
"""Names of the marks that `visuals` can restyle or leave out."""
_TITLE_SIZE, _TEXT_SIZE, _SMALL_SIZE = 13.0, 11.0, 10.0
_PAGE_WIDTH, _PHONE_WIDTH = 620.0, 390.0
_MARGIN, _RIGHT_WIDTH = 12.0, 16.0
_CURVE_HEIGHT, _BARS_HEIGHT, _GAP_HEIGHT, _AXIS_HEIGHT = 230.0, 74.0, 40.0, 46.0
_DASH_PATTERN = (0, (4.0, 2.6))
_KEY_MARK_WIDTH, _KEY_GAP = 26.0, 16.0
_MAX_NAME_SHARE = 0.45  # of the panel's width: a longer name finds no place beside its point
_BAR_NAME_AIR = 8.0  # points that a name in a bar leaves on both sides together
_CURVE_OBSTACLES = 60  # points along the curve that no name may cover
REQUIRED_COLUMNS = (
    *("share_treated", "gain", "ci_low", "ci_high", "band_low", "band_high", "part_treated", "p_optimal"),
)


@dataclass(frozen=True, slots=True, eq=False)
class _PolicyCurve:
    """The curve from nobody to everybody, in shares of 1 and gains as they are shown; names by group."""

    shares: NDArray[np.float64]
    gains: NDArray[np.float64]
    interval: NDArray[np.float64]  # axes (end, point)
    band: NDArray[np.float64]
    treated_parts: NDArray[np.float64]
    p_optimal: NDArray[np.float64]
    names: list[str]

    @property
    def policy_point(self) -> tuple[float, float]:
        """Where the policy stands: the share that it treats, and its expected gain."""
        widths, rises = np.diff(self.shares), np.diff(self.gains)
        # Groups are treated in the order of the curve; the last one in part.
        return float(widths @ self.treated_parts), float(rises @ self.treated_parts)

    def rank_names(self, max_names: int) -> list[int]:
        """Rank the segments that move the curve most, as many as are named."""
        order = np.argsort(-abs(np.diff(self.gains)), kind="stable")[: max(max_names, 0)]
        return [int(index) for index in order]

    def fits_in_bar(self, index: int, panel_width: float) -> bool:
        """Tell whether the name of a segment fits into its bar."""
        bar_width = float(self.shares[index + 1] - self.shares[index]) * panel_width
        return measure_width(shorten_text(self.names[index]), _SMALL_SIZE) + _BAR_NAME_AIR <= bar_width

    @property
    def value_limits(self) -> tuple[float, float]:
        """Lowest and highest gain shown: the band of the whole curve, and 0."""
        low, high = min(0.0, float(self.band.min())), max(0.0, float(self.band.max()))
        margin = 0.06 * (high - low) or 1.0
        return low - margin, high + margin


def draw_policy(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
    table: pd.DataFrame,
    *,
    dimensions: Sequence[str],
    budget: float = 1.0,
    unit: str = "",
    percent: bool = False,
    axis_label: str | None = None,
    ci_prob: float = 0.95,
    labels: int = 8,
    title: str | None = None,
    caption: str | None = None,
    figure: Figure | SubFigure | None = None,
    ax: Axes | None = None,
    visuals: Visuals | None = None,
    theme: Theme = DEFAULT_THEME,
) -> Axes:
    """Draw the gain of treating more and more people, the most worthwhile segments first, above their stability.

    Parameters
    ----------
    table : DataFrame
        As `Fit.policy_curve` gives it: a row per segment in the order of treatment.
    dimensions : sequence of str
        Columns that hold the levels of a segment.
    budget : float
        The largest share that may be treated; below 1 it is drawn as a line.
    unit, percent, axis_label, title, caption, figure, ax
        As for `draw_shrinkage`; `percent` leaves shares as they are.
    ci_prob : float
        Probability of the intervals in the table.
    labels : int
        How many segments are named, as far as there is room: those that move the curve most.
    visuals : mapping, optional
        As for `draw_forest`; the marks are `POLICY_MARKS`.
    theme : Theme
        Colours.

    Returns
    -------
    Axes
        Of the curve, in the units of the table: share treated from 0 to 1, gain (times 100 with `percent`).

    Raises
    ------
    ArgumentError
        If both `figure` and `ax` are given, or `visuals` names an unknown mark.
    DataError
        If the table has no rows, or lacks a column.

    Notes
    -----
    The dark area is the interval at each share, the light one holds the whole curve with the same probability. The
    dashed line treats as many, drawn by chance: what lies above it is what targeting gains. Beneath, each segment is as
    wide as its share; its bar is the probability that a policy which knew all effects would treat it.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> table = hte.example_fit().policy_curve()
    >>> axes = draw_policy(table, dimensions=["device", "customer"], percent=True)
    >>> axes.get_xlim() == (0.0, 1.0)
    True
    """
    visuals = require_known_visuals(visuals, POLICY_MARKS)
    if figure is not None and ax is not None:
        raise ArgumentError("both figure and ax are given; give the one to draw into")
    if (label_count := to_int(labels)) is None or label_count < 0:
        raise ArgumentError(f"labels is {describe_value(labels)}; give the number of segments to name, 0 or more")
    curve = _read_curve(table, dimensions, 100.0 if percent else 1.0)
    drawing_target = ax if ax is not None else figure
    target_size = measure_target(drawing_target)
    figure_width = max(target_size[0], _PHONE_WIDTH) if target_size else _PAGE_WIDTH
    text_width = 0.95 * (figure_width - 2 * _MARGIN)
    effect_label = axis_label or f"gain: {label_effect_axis(unit, percent=percent)}"
    title_lines = wrap_text(title or "", text_width / 1.1, _TITLE_SIZE)
    label_lines = wrap_text(effect_label, text_width, _TEXT_SIZE)
    key_rows = _lay_out_key(_list_key_items(curve, budget, ci_prob), text_width)
    note_lines = [line for note in (caption or "",) for line in wrap_text(note, text_width, _SMALL_SIZE)]
    curve_top = (
        _MARGIN + len(title_lines) * compute_leading(_TITLE_SIZE) + len(label_lines) * compute_leading(_TEXT_SIZE)
    )
    bars_top = curve_top + 8 + _CURVE_HEIGHT + _GAP_HEIGHT
    footer_top = bars_top + _BARS_HEIGHT + _AXIS_HEIGHT
    footer_height = (len(key_rows) + len(note_lines) + 1) * compute_leading(_SMALL_SIZE)
    canvas = open_canvas(drawing_target, figure_width, footer_top + footer_height, theme)

    title_middle = _MARGIN / 2 + compute_leading(_TITLE_SIZE) / 2
    canvas.write_lines(_MARGIN, title_middle, title_lines, TextStyle(_TITLE_SIZE, bold=True, mark="title"))
    label_middle = curve_top - (len(label_lines) - 0.5) * compute_leading(_TEXT_SIZE)
    label_style = TextStyle(_TEXT_SIZE, canvas.theme.quiet_color, mark="axis_label")
    canvas.write_lines(_MARGIN, label_middle, label_lines, label_style)
    tick_texts = [*choose_round_ticks(curve.value_limits, 6)[1], "100 %"]
    left = _MARGIN + measure_widest(tick_texts, _SMALL_SIZE) + 6
    panel_width = canvas.width - left - _RIGHT_WIDTH
    curve_box = (left, curve_top + 8, panel_width, _CURVE_HEIGHT)
    curve_axes = _draw_curve_panel(canvas, curve, curve_box, budget, labels)
    bars_label = cut_to_width("probability that treating the segment is best", text_width, _TEXT_SIZE)
    canvas.write_line(_MARGIN, bars_top - 14, bars_label, label_style)
    _draw_bars_panel(canvas, curve, (left, bars_top, panel_width, _BARS_HEIGHT), labels)
    canvas.write_line(left, bars_top + _BARS_HEIGHT + 30, "share of the population that is treated", label_style)
    _draw_key(canvas, key_rows, footer_top)
    notes_middle = footer_top + (len(key_rows) + 0.5) * compute_leading(_SMALL_SIZE)
    canvas.write_lines(_MARGIN, notes_middle, note_lines, TextStyle(_SMALL_SIZE, canvas.theme.quiet_color, mark="note"))
    restyle_marks(canvas.axes, visuals)
    return curve_axes


def _read_curve(table: pd.DataFrame, dimensions: Sequence[str], gain_factor: float) -> _PolicyCurve:
    """Read the curve from a table, and begin it at nobody.

    Raises
    ------
    DataError
        If the table has no rows, or lacks a column.
    """
    if missing_columns := [name for name in (*REQUIRED_COLUMNS, *dimensions) if name not in table.columns]:
        raise DataError(f"the table of the policy lacks the columns {missing_columns[:5]}; take it from policy_curve")
    if table.empty:
        raise DataError("the table of the policy has no rows")
    columns = {name: table[name].to_numpy(dtype=float) for name in REQUIRED_COLUMNS}
    # Treating nobody gains exactly nothing: curve, interval and band begin at one point.
    from_nobody = {name: np.concatenate([[0.0], values]) for name, values in columns.items()}
    level_columns = [table[name].astype(str) for name in dimensions]
    names = [LEVEL_SEPARATOR.join(levels) for levels in zip(*level_columns, strict=True)]
    # With one arm there is nothing to tell apart.
    if "arm" in table.columns and table["arm"].nunique() > 1:
        names = [f"{name}: {arm}" for name, arm in zip(names, table["arm"].astype(str), strict=True)]
    return _PolicyCurve(
        from_nobody["share_treated"],
        gain_factor * from_nobody["gain"],
        gain_factor * np.stack([from_nobody["ci_low"], from_nobody["ci_high"]]),
        gain_factor * np.stack([from_nobody["band_low"], from_nobody["band_high"]]),
        columns["part_treated"],
        columns["p_optimal"],
        names,
    )


def _draw_curve_panel(canvas: Canvas, curve: _PolicyCurve, panel_box: DesignBox, budget: float, max_names: int) -> Axes:
    """Draw areas, lines and points of the curve, and the names of its segments."""
    theme, shrink_factor = canvas.theme, canvas.shrink_factor
    axes = canvas.add_inset_axes(panel_box)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(*curve.value_limits)
    strip_axes(axes, font_size=_SMALL_SIZE, canvas=canvas)
    y_ticks, y_tick_labels = choose_round_ticks(curve.value_limits, 6)
    axes.set_yticks(y_ticks, labels=y_tick_labels)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)
    for tick in y_ticks:
        axes.axhline(tick, color=theme.grid_color, linewidth=0.7 * shrink_factor, zorder=0.5, gid="grid")
    areas = (("band", curve.band, theme.tail_color), ("interval", curve.interval, theme.interval_color))
    for zorder, (mark, (low, high), color) in enumerate(areas):
        axes.fill_between(curve.shares, low, high, color=color, linewidth=0, zorder=0.2 + 0.1 * zorder, gid=mark)
    axes.axhline(0.0, color=theme.ink_color, linewidth=1.0 * shrink_factor, zorder=1, gid="zero_line")
    line_width = 1.1 * shrink_factor
    # Who is drawn by chance gains the average: a straight line from nobody to everybody.
    everybody = ([0.0, curve.shares[-1]], [0.0, curve.gains[-1]])
    axes.plot(
        *everybody, color=theme.quiet_color, linewidth=line_width, linestyle=_DASH_PATTERN, zorder=2, gid="chance_line"
    )
    if budget < 1:
        axes.axvline(budget, color=theme.sign_change_color, linewidth=line_width, zorder=2, gid="budget_line")
    axes.plot(curve.shares, curve.gains, color=theme.pooled_color, linewidth=1.8 * shrink_factor, zorder=3, gid="curve")
    point_size = (4.0 * shrink_factor) ** 2
    axes.scatter(
        curve.shares[1:],
        curve.gains[1:],
        s=point_size,
        color=theme.pooled_color,
        linewidth=0,
        zorder=4,
        clip_on=False,
        gid="point",
    )
    axes.scatter(
        *curve.policy_point,
        s=(10.0 * shrink_factor) ** 2,
        facecolor=theme.paper_color,
        edgecolor=theme.pooled_color,
        linewidth=2.0 * shrink_factor,
        zorder=5,
        clip_on=False,
        gid="policy_point",
    )
    _draw_names(canvas, curve, panel_box, [*y_ticks, 0.0], budget=budget, max_names=max_names)
    return axes


def _draw_names(
    canvas: Canvas,
    curve: _PolicyCurve,
    panel_box: DesignBox,
    guide_values: Sequence[float],
    *,
    budget: float,
    max_names: int,
) -> None:
    """Name the segments that move the curve most and have no name in their bar, where nothing runs through a name."""
    left, top, width, height = panel_box
    low, high = curve.value_limits

    def locate(share: float, gain: float) -> Move:
        y = top + (high - gain) / (high - low) * height
        return Move(left + share * width, y, y)

    # A name stands at the end of its segment's piece of the curve.
    ends = [locate(*point) for point in zip(curve.shares[1:], curve.gains[1:], strict=True)]
    shares = np.linspace(0.0, 1.0, _CURVE_OBSTACLES)
    obstacles = [locate(share, float(np.interp(share, curve.shares, curve.gains))) for share in shares]
    # The line of those who are drawn by chance.
    obstacles += [locate(share, float(share * curve.gains[-1])) for share in shares]
    named_moves = [
        (cut_to_width(shorten_text(curve.names[index]), _MAX_NAME_SHARE * width, _SMALL_SIZE), ends[index])
        for index in curve.rank_names(max_names)
        if not curve.fits_in_bar(index, width)
    ]
    # The budget stands from the bottom to the top.
    obstacles += [Move(left + budget * width, top, top + height)] if budget < 1 else []
    guide_heights = [locate(0.0, value).y_raw for value in guide_values]
    for name in place_names(named_moves, [*ends, *obstacles], guide_heights, panel_box, _SMALL_SIZE):
        canvas.write_line(name.x, name.y, name.text, TextStyle(_SMALL_SIZE, mark="label"), name.align)


def _draw_bars_panel(canvas: Canvas, curve: _PolicyCurve, panel_box: DesignBox, max_names: int) -> None:
    """Draw each segment's probability of belonging to the best policy, as wide as its share, and names that fit."""
    theme, shrink_factor = canvas.theme, canvas.shrink_factor
    axes = canvas.add_inset_axes(panel_box)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    strip_axes(axes, font_size=_SMALL_SIZE, canvas=canvas)
    axes.set_yticks([0.0, 0.5, 1.0], labels=["0 %", "50 %", "100 %"])
    axes.tick_params(axis="y", length=0)
    x_ticks, _ = choose_fitting_ticks((0.0, 1.0), panel_box[2], _SMALL_SIZE)
    axes.set_xticks(x_ticks, labels=[f"{100 * tick:.0f} %" for tick in x_ticks])
    for tick in (0.5, 1.0):
        axes.axhline(tick, color=theme.grid_color, linewidth=0.7 * shrink_factor, zorder=0.5, gid="grid")
    is_treated = curve.treated_parts > 0
    for mark, chosen, color in (("bar", is_treated, theme.pooled_color), ("other_bar", ~is_treated, theme.raw_color)):
        axes.bar(
            curve.shares[:-1][chosen],
            curve.p_optimal[chosen],
            width=np.diff(curve.shares)[chosen],
            align="edge",
            color=color,
            edgecolor=theme.paper_color,
            linewidth=0.6 * shrink_factor,
            zorder=2,
        )
        # Not by gid= of bar, which names the container and not its bars.
        for patch in axes.patches:
            if not patch.get_gid():
                patch.set_gid(mark)
    left, top, width, height = panel_box
    for index in curve.rank_names(max_names):
        if not curve.fits_in_bar(index, width):
            continue
        x = left + width * float(curve.shares[index] + curve.shares[index + 1]) / 2
        # At the foot of its bar; white only where the bar is dark and reaches over the name.
        is_on_dark = is_treated[index] and curve.p_optimal[index] * height > 2 * compute_leading(_SMALL_SIZE)
        color = theme.paper_color if is_on_dark else theme.ink_color
        style = TextStyle(_SMALL_SIZE, color, mark="label")
        middle = top + height - compute_leading(_SMALL_SIZE)
        canvas.write_line(x, middle, shorten_text(curve.names[index]), style, "center")


def _list_key_items(curve: _PolicyCurve, budget: float, ci_prob: float) -> list[tuple[str, str]]:
    """List the marks that are explained, and what they mean."""
    interval_name = f"{format_percentage(ci_prob)} interval"
    key_items = [
        ("policy_point", "the policy: chosen segments"),
        ("chance_line", "as many, drawn by chance"),
        ("interval", f"{interval_name} at each share"),
        ("band", "of the whole curve"),
    ]
    key_items += [("budget_line", "budget")] if budget < 1 else []
    if bool((curve.treated_parts == 0).any()):
        key_items += [("bar", "treated"), ("other_bar", "not treated")]
    return key_items


def _lay_out_key(key_items: Sequence[tuple[str, str]], max_width: float) -> list[list[tuple[str, str]]]:
    """Lay out the key, as many marks to a row as there is room for."""
    key_rows: list[list[tuple[str, str]]] = [[]]
    for key_item in key_items:
        row_width = sum(
            _KEY_MARK_WIDTH + measure_width(meaning, _SMALL_SIZE) + _KEY_GAP for _, meaning in (*key_rows[-1], key_item)
        )
        key_rows += [[]] if key_rows[-1] and row_width - _KEY_GAP > max_width else []
        key_rows[-1].append(key_item)
    return key_rows


def _draw_key(canvas: Canvas, key_rows: Sequence[Sequence[tuple[str, str]]], key_top: float) -> None:
    """Draw the rows of the key, each mark before its meaning."""
    theme, shrink_factor = canvas.theme, canvas.shrink_factor
    line_styles = {
        "chance_line": (theme.quiet_color, 1.1, _DASH_PATTERN),
        "budget_line": (theme.sign_change_color, 1.1, "-"),
        "interval": (theme.interval_color, 8.0, "-"),
        "band": (theme.tail_color, 8.0, "-"),
        "bar": (theme.pooled_color, 8.0, "-"),
        "other_bar": (theme.raw_color, 8.0, "-"),
    }
    for row_index, key_row in enumerate(key_rows):
        x, y = _MARGIN, key_top + (row_index + 0.5) * compute_leading(_SMALL_SIZE)
        for mark, meaning in key_row:
            mark_name = f"{KEY_PREFIX}{mark}"
            key_mark = Line2D([x, x + _KEY_MARK_WIDTH - 6], [y, y], zorder=1, gid=mark_name)
            if mark == "policy_point":
                key_mark.set(linestyle="none", marker="o", markersize=8.0 * shrink_factor, markevery=[0])
                key_mark.set(markerfacecolor=theme.paper_color, markeredgecolor=theme.pooled_color)
                key_mark.set(markeredgewidth=2.0 * shrink_factor, xdata=[x + 10, x + 10])
            else:
                color, line_width, line_style = line_styles[mark]
                key_mark.set(color=color, linewidth=line_width * shrink_factor, linestyle=line_style)
                key_mark.set(solid_capstyle="butt")
            canvas.axes.add_line(key_mark)
            text_style = TextStyle(_SMALL_SIZE, theme.quiet_color, mark=mark_name)
            canvas.write_line(x + _KEY_MARK_WIDTH, y, meaning, text_style)
            x += _KEY_MARK_WIDTH + measure_width(meaning, _SMALL_SIZE) + _KEY_GAP
