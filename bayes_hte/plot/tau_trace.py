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

from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.plot.drawing.axis import (
    AxisLimits,
    choose_fitting_ticks,
    choose_round_ticks,
    label_effect_axis,
    strip_axes,
)
from bayes_hte.plot.drawing.canvas import (
    GRID_COLOR,
    INK_COLOR,
    POOLED_COLOR,
    QUIET_COLOR,
    RAW_COLOR,
    Canvas,
    TextStyle,
    compute_leading,
    measure_target,
    open_canvas,
)
from bayes_hte.plot.drawing.text import (
    choose_decimals,
    cut_to_width,
    format_number,
    format_percentage,
    measure_widest,
    measure_width,
    shorten_text,
    wrap_text,
)
from bayes_hte.plot.drawing.visuals import KEY_PREFIX, Visuals, require_known_visuals, restyle_marks

TAU_TRACE_MARKS = (
    "title",
    "axis_label",
    "heading",
    "end_label",
    "label",
    "leader",
    "tau_summary",
    "note",
    "key",
    "grid",
    "zero_line",
    "curve",
    "turning_curve",
    "other_curve",
    "other_turning_curve",
    "veil",
    "tau_band",
    "median_line",
    "density_area",
    "density_interval",
    "density_curve",
)
"""Names of the marks that `visuals` can restyle or leave out."""
TauArray = npt.NDArray[np.float64]

_TITLE_SIZE, _TEXT_SIZE, _SMALL_SIZE, _MARGIN = 13.0, 11.0, 10.0, 14.0
_PAGE_WIDTH, _PHONE_WIDTH = 620.0, 390.0  # in between the design is as wide as its place
_LEFT_WIDTH = 50.0  # room for the tick labels
# From the top of a panel: arm, "fully pooled" and "not pooled", curves, posterior in words, density, ticks and label.
_HEADING_HEIGHT, _ENDS_HEIGHT, _EFFECTS_HEIGHT = 24.0, 18.0, 270.0
_SUMMARY_HEIGHT, _DENSITY_HEIGHT, _AXIS_HEIGHT = 22.0, 54.0, 52.0
_MAX_NAME_SHARE, _LEADER_LENGTH = 0.33, 18.0  # names take at most this share of the width; thin lines lead to them
_NAME_SPACING = 1.25 * _SMALL_SIZE
_KEY_MARK_WIDTH, _KEY_GAP = 26.0, 16.0  # from the start of a mark to its text, and from there to the next mark
_BAND_COLOR, _TAIL_COLOR, _INTERVAL_COLOR = "#ebf1f8", "#dce6f2", "#a9c3df"
_SIGN_CHANGE_COLOR = "#b04a0c"  # burnt orange: 5:1 against white, distinct from blue for every kind of colour vision
_CURVE_COLORS = {"other": "#b3bcc6", "other-turning": "#d9a57f", "named": POOLED_COLOR, "turning": _SIGN_CHANGE_COLOR}
CURVE_MARKS = {
    "other": "other_curve",
    "other-turning": "other_turning_curve",
    "named": "curve",
    "turning": "turning_curve",
}
"""Mark of the curves of one colour."""
_KEY_MARKS = CURVE_MARKS | {"band": "tau_band", "median": "median_line"}
_DASH_PATTERN = (0, (4.0, 2.6))
_CROWDED_COUNT = 40  # where there are more lines, those without a name are thinner, or they would run together


@dataclass(frozen=True, slots=True)
class TauPosterior:
    """Posterior of tau in one arm: density, median and central interval, whose values are points of the grid."""

    tau_grid: TauArray
    density: TauArray
    ci_low: float
    median: float
    ci_high: float

    def describe_interval(self, interval_name: str) -> str:
        """Describe median and interval in words, with two digits of the median."""
        decimal_places = choose_decimals([self.median])
        low, median, high = (
            format_number(value, decimal_places, sign=False) for value in (self.ci_low, self.median, self.ci_high)
        )
        return f"posterior median {median}, {interval_name} {low} to {high}"


@dataclass(frozen=True, slots=True)
class EffectCurve:
    """Effect of one segment at every tau, its weight, and whether its sign hinges on tau."""

    segment_label: str
    tau_grid: TauArray
    effects: TauArray
    weight: float
    changes_sign: bool


@dataclass(frozen=True, slots=True)
class TracePanel:
    """Curves of one arm, of which the first `named_count` are named, and the posterior of tau."""

    arm: str
    curves: tuple[EffectCurve, ...]
    named_count: int
    posterior: TauPosterior

    def select_curves(self, curve_kind: str) -> list[EffectCurve]:
        """Select the curves of one colour, by a key of _CURVE_COLORS."""
        is_other = curve_kind.startswith("other")
        candidates = self.curves[self.named_count :] if is_other else self.curves[: self.named_count]
        return [curve for curve in candidates if curve.changes_sign == curve_kind.endswith("turning")]


@dataclass(frozen=True, slots=True)
class SharedAxes:
    """Measures that all panels share: limits of effects, the largest weight, and the width of names in points."""

    effect_limits: AxisLimits
    max_weight: float
    name_width: float


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
    visuals: Visuals | None = None,
) -> Figure | SubFigure:
    """Draw every segment's effect given tau, the SD of effects between segments, above the posterior of tau.

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
    visuals : mapping, optional
        As for `forest`; the marks are `TAU_TRACE_MARKS`.

    Returns
    -------
    Figure or SubFigure
        The figure that was given, or that holds `ax`, or a new one.

    Raises
    ------
    ArgumentError
        If `ci_prob` is not between 0 and 1, both `figure` and `ax` are given, or `visuals` names an unknown mark.
    DataError
        If a table has no rows, a column or an arm's density is missing, a number is not finite, or a grid of tau is
        not as described.

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
    visuals = require_known_visuals(visuals, TAU_TRACE_MARKS)
    if figure is not None and ax is not None:
        raise ArgumentError("both figure and ax are given; give the one to draw into")
    curves_by_arm = _read_curves(table, density, dimensions, ci_prob, 100.0 if percent else 1.0)
    panels = [_rank_curves(arm, curves, posterior, labels) for arm, (curves, posterior) in curves_by_arm.items()]
    drawing_target = ax if ax is not None else figure
    target_size = measure_target(drawing_target)
    figure_width = max(target_size[0], _PHONE_WIDTH) if target_size else _PAGE_WIDTH
    interval_name = f"{format_percentage(ci_prob)} interval"
    # Small text is wider on a screen, where letters start at whole pixels; bold text is a tenth wider.
    text_width = 0.95 * (figure_width - 2 * _MARGIN)
    title_lines = wrap_text(title or "", text_width / 1.1, _TITLE_SIZE)
    effect_label = label_effect_axis(unit, percent=percent) if axis_label is None else axis_label
    label_lines = wrap_text(effect_label, text_width, _TEXT_SIZE)
    key_rows = _lay_out_key(panels, interval_name, text_width)
    sign_note = _write_note(panels, interval_name, _weigh_rows(table)[1])
    note_lines = wrap_text(sign_note, text_width, _SMALL_SIZE) + wrap_text(caption or "", text_width, _SMALL_SIZE)
    title_bottom = _MARGIN + len(title_lines) * compute_leading(_TITLE_SIZE)
    panels_top = title_bottom + len(label_lines) * compute_leading(_TEXT_SIZE) + 8
    heading_height = _HEADING_HEIGHT if len(panels) > 1 else 0.0
    panel_height = heading_height + _ENDS_HEIGHT + _EFFECTS_HEIGHT + _SUMMARY_HEIGHT + _DENSITY_HEIGHT + _AXIS_HEIGHT
    panels_bottom = panels_top + len(panels) * panel_height
    footer_height = (len(key_rows) + len(note_lines) + 1) * compute_leading(_SMALL_SIZE)
    canvas = open_canvas(drawing_target, figure_width, panels_bottom + footer_height)

    title_middle = _MARGIN / 2 + compute_leading(_TITLE_SIZE) / 2
    canvas.write_lines(_MARGIN, title_middle, title_lines, TextStyle(_TITLE_SIZE, bold=True, mark="title"))
    label_middle = panels_top - 8 - (len(label_lines) - 0.5) * compute_leading(_TEXT_SIZE)
    canvas.write_lines(_MARGIN, label_middle, label_lines, TextStyle(_TEXT_SIZE, QUIET_COLOR, mark="axis_label"))
    shared_axes = _choose_shared_axes(panels, figure_width)
    for panel_index, panel in enumerate(panels):
        panel_top = panels_top + panel_index * panel_height + heading_height + _ENDS_HEIGHT
        if heading_height:
            heading_middle = panel_top - _ENDS_HEIGHT - heading_height / 2
            canvas.write_line(
                _MARGIN, heading_middle, shorten_text(panel.arm), TextStyle(_TEXT_SIZE, bold=True, mark="heading")
            )
        _draw_panel(canvas, panel, shared_axes, panel_top, interval_name)
        tau_text = cut_to_width(tau_label, canvas.width - _LEFT_WIDTH - _MARGIN, _TEXT_SIZE)
        density_bottom = panel_top + _EFFECTS_HEIGHT + _SUMMARY_HEIGHT + _DENSITY_HEIGHT
        canvas.write_line(_LEFT_WIDTH, density_bottom + 30, tau_text, TextStyle(_TEXT_SIZE, mark="axis_label"))
    _draw_key(canvas, key_rows, panels_bottom)
    notes_middle = panels_bottom + (len(key_rows) + 0.5) * compute_leading(_SMALL_SIZE)
    canvas.write_lines(_MARGIN, notes_middle, note_lines, TextStyle(_SMALL_SIZE, QUIET_COLOR, mark="note"))
    restyle_marks(canvas.axes, visuals)
    drawn_figure = canvas.axes.get_figure()
    assert drawn_figure is not None  # noqa: S101 - only for the type checker: the axes was just drawn on
    return drawn_figure


def _read_curves(
    effect_table: pd.DataFrame,
    density_table: pd.DataFrame,
    dimension_names: Sequence[str],
    ci_prob: float,
    effect_factor: float,
) -> dict[str, tuple[list[EffectCurve], TauPosterior]]:
    """Read the curves of every arm and the posterior of its tau, in the order of the table."""
    if not 0 < ci_prob < 1:
        raise ArgumentError(f"ci_prob must be between 0 and 1, found {ci_prob}")
    row_weights, _ = _weigh_rows(effect_table)
    curves_by_arm: dict[str, list[EffectCurve]] = {}
    posterior_by_arm = {
        arm: _summarise_tau(arm, arm_rows, ci_prob)
        for (arm,), arm_rows in _split_table(density_table, ["arm"], "density").items()
    }
    for (arm, *level_names), arm_rows in _split_table(effect_table, ["arm", *dimension_names], "effect").items():
        if arm not in posterior_by_arm:
            raise DataError(f"the table of density lacks the arm {arm!r}; it has {sorted(posterior_by_arm)}")
        arm_curves = curves_by_arm.setdefault(arm, [])
        # At the largest tau an effect owes least to other segments: its precision is the segment's own.
        curve_weight = row_weights[arm_rows.index[-1]]
        arm_curves.append(
            _read_curve((arm, *level_names), arm_rows, posterior_by_arm[arm], effect_factor, curve_weight)
        )
        if not np.array_equal(arm_curves[0].tau_grid, arm_curves[-1].tau_grid):
            both_labels = f"{arm_curves[0].segment_label!r} and {arm_curves[-1].segment_label!r}"
            raise DataError(f"{both_labels} in arm {arm!r} have different grids of tau")
    return {arm: (arm_curves, posterior_by_arm[arm]) for arm, arm_curves in curves_by_arm.items()}


def _rank_curves(arm: str, curves: Sequence[EffectCurve], posterior: TauPosterior, max_names: int) -> TracePanel:
    """Put the curves first that are furthest, at the median of tau, from where all of them meet."""
    common_effect = np.mean([curve.effects[0] for curve in curves])
    ranked_curves = sorted(
        curves, key=lambda curve: -abs(np.interp(posterior.median, curve.tau_grid, curve.effects) - common_effect)
    )
    # As many names as have room under each other.
    named_count = min(max(max_names, 0), len(curves), int(_EFFECTS_HEIGHT / _NAME_SPACING))
    return TracePanel(arm, tuple(ranked_curves), named_count, posterior)


def _split_table(
    table: pd.DataFrame, key_columns: Sequence[str], value_column: str
) -> dict[tuple[str, ...], pd.DataFrame]:
    """Split a table by the values of its key columns, in the order in which they first occur."""
    missing_columns = [
        column_name for column_name in (*key_columns, "tau", value_column) if column_name not in table.columns
    ]
    if missing_columns:
        raise DataError(
            f"the table of {value_column} lacks the columns {missing_columns}; it has {list(map(str, table.columns))}"
        )
    if table.empty:
        raise DataError(f"the table of {value_column} has no rows, so there is nothing to plot")
    positions_by_key: dict[tuple[str, ...], list[int]] = {}
    for row_position, level_key in enumerate(
        zip(*([str(level) for level in table[column_name]] for column_name in key_columns), strict=True)
    ):
        positions_by_key.setdefault(level_key, []).append(row_position)
    return {level_key: table.iloc[positions].set_axis(positions) for level_key, positions in positions_by_key.items()}


def _read_floats(table_rows: pd.DataFrame, column_name: str) -> TauArray:
    if column_name not in table_rows.columns:
        return np.full(len(table_rows), np.nan)
    return np.asarray(table_rows[column_name].astype("Float64").to_numpy(na_value=np.nan), dtype=float)


def _read_tau_grid(table_rows: pd.DataFrame, column_name: str, rows_description: str) -> tuple[TauArray, TauArray]:
    """Read a grid of tau and the values of a column at its points."""
    tau_grid, column_values = _read_floats(table_rows, "tau"), _read_floats(table_rows, column_name)
    if not (np.isfinite(tau_grid).all() and np.isfinite(column_values).all()):
        raise DataError(f"{rows_description}: every tau and {column_name} must be a finite number")
    if len(tau_grid) < 2 or tau_grid[0] < 0 or (np.diff(tau_grid) <= 0).any():
        first_values = tau_grid[:5].tolist()
        raise DataError(
            f"{rows_description}: tau must increase over at least two rows, from 0 or more; found {first_values}"
        )
    return tau_grid, column_values


def _summarise_tau(arm: str, density_rows: pd.DataFrame, ci_prob: float) -> TauPosterior:
    rows_description = f"the density of tau in arm {arm!r}"
    tau_grid, density = _read_tau_grid(density_rows, "density", rows_description)
    if density.min() < 0 or density.max() == 0:
        raise DataError(f"{rows_description} must be positive somewhere and negative nowhere")
    # The density is linear between its points, its integral is not: 32 steps between them make it nearly so.
    fine_grid = np.interp(
        np.linspace(0, len(tau_grid) - 1, 32 * (len(tau_grid) - 1) + 1), np.arange(len(tau_grid)), tau_grid
    )
    fine_density = np.interp(fine_grid, tau_grid, density)
    # F(τ) up to a constant, by the trapezoidal rule; the quantiles solve F(τ) = p.
    cumulated_mass = np.concatenate([[0.0], np.cumsum(np.diff(fine_grid) * (fine_density[1:] + fine_density[:-1]))])
    ci_low, median, ci_high = np.interp(
        [(1 - ci_prob) / 2, 0.5, (1 + ci_prob) / 2], cumulated_mass / cumulated_mass[-1], fine_grid
    ).tolist()
    complete_grid = np.unique([*tau_grid, ci_low, median, ci_high])
    return TauPosterior(complete_grid, np.interp(complete_grid, tau_grid, density), ci_low, median, ci_high)


def _read_curve(
    curve_key: tuple[str, ...],
    curve_rows: pd.DataFrame,
    posterior: TauPosterior,
    effect_factor: float,
    curve_weight: float,
) -> EffectCurve:
    segment_label = ", ".join(map(shorten_text, curve_key[1:]))
    tau_grid, effects = _read_tau_grid(curve_rows, "effect", f"segment {segment_label!r} in arm {curve_key[0]!r}")
    # A curve is linear between its points: within the interval, its extremes are at points or at the ends.
    inner_tau = tau_grid[(tau_grid > posterior.ci_low) & (tau_grid < posterior.ci_high)]
    effects_inside = np.interp([posterior.ci_low, *inner_tau, posterior.ci_high], tau_grid, effects)
    changes_sign = bool(effects_inside.min() < 0 < effects_inside.max())
    return EffectCurve(segment_label, tau_grid, effect_factor * effects, curve_weight, changes_sign)


def _weigh_rows(effect_table: pd.DataFrame) -> tuple[TauArray, str]:
    """Weigh the rows by units or, where no units are known, by the precision of the effect; name what weighs more."""
    unit_counts = _read_floats(effect_table, "n_control") + _read_floats(effect_table, "n_treated")
    if (unit_counts > 0).any():
        return np.where(unit_counts > 0, unit_counts, 0.0), "more units"
    # Precision: w = 1 / SD².
    sd = _read_floats(effect_table, "sd")
    return np.divide(1.0, sd**2, out=np.zeros(len(sd)), where=sd > 0), "a smaller standard error"


def _choose_shared_axes(panels: Sequence[TracePanel], figure_width: float) -> SharedAxes:
    curves = [curve for panel in panels for curve in panel.curves]
    effects = np.concatenate([[0.0], *(curve.effects for curve in curves)])
    low, high = float(effects.min()), float(effects.max())
    margin = 0.06 * (high - low) or 1.0
    name_width = measure_widest(
        (curve.segment_label for panel in panels for curve in panel.curves[: panel.named_count]), _SMALL_SIZE
    )
    max_weight = max(curve.weight for curve in curves) or 1.0
    return SharedAxes((low - margin, high + margin), max_weight, min(name_width + 1, _MAX_NAME_SHARE * figure_width))


def _lay_out_key(panels: Sequence[TracePanel], interval_name: str, max_width: float) -> list[list[tuple[str, str]]]:
    """Lay out the meanings of marks and their kinds, as many to a row as there is room for."""
    has_unnamed = any(len(panel.curves) > panel.named_count for panel in panels)
    named_meaning = "furthest from the common effect" if has_unnamed else "segment"
    change_meaning = "changes sign inside the band"
    meaning_by_kind = {
        "named": named_meaning,
        "other-turning": change_meaning,
        "turning": change_meaning,
        "other": "other segments",
    }
    # Of two kinds that mean the same, the darker stays.
    kind_by_meaning = {
        meaning: mark_kind
        for mark_kind, meaning in meaning_by_kind.items()
        if any(panel.select_curves(mark_kind) for panel in panels)
    }
    key_rows: list[list[tuple[str, str]]] = [[]]
    for key_item in (kind_by_meaning | {f"{interval_name} of tau": "band", "its median": "median"}).items():
        row_width = sum(
            _KEY_MARK_WIDTH + measure_width(meaning, _SMALL_SIZE) + _KEY_GAP for meaning, _ in (*key_rows[-1], key_item)
        )
        key_rows += [[]] if key_rows[-1] and row_width - _KEY_GAP > max_width else []
        key_rows[-1].append(key_item)
    return key_rows


def _write_note(panels: Sequence[TracePanel], interval_name: str, weight_meaning: str) -> str:
    curves = [curve for panel in panels for curve in panel.curves]
    changing_count = sum(curve.changes_sign for curve in curves)
    changing_phrase = f"{changing_count} of {len(curves)} segments change{'s' * (changing_count == 1)}"
    change_clause = changing_phrase if changing_count else "No segment changes"
    # Thickness is explained only where it differs.
    weight_sentence = f" Thicker lines have {weight_meaning}." if len({curve.weight for curve in curves}) > 1 else ""
    return f"{change_clause} sign inside the {interval_name} of tau.{weight_sentence}"


def _draw_panel(
    canvas: Canvas, panel: TracePanel, shared_axes: SharedAxes, panel_top: float, interval_name: str
) -> None:
    """Draw one arm: curves, their names, and the posterior of tau on the same horizontal axis."""
    posterior, shrink_factor, tau_end = panel.posterior, canvas.shrink_factor, float(panel.curves[0].tau_grid[-1])
    axes_width = canvas.width - _LEFT_WIDTH - _LEADER_LENGTH - shared_axes.name_width - _MARGIN
    effect_axes = canvas.add_inset_axes((_LEFT_WIDTH, panel_top, axes_width, _EFFECTS_HEIGHT))
    gap_top, density_top = panel_top + _EFFECTS_HEIGHT, panel_top + _EFFECTS_HEIGHT + _SUMMARY_HEIGHT
    density_axes = canvas.add_inset_axes((_LEFT_WIDTH, density_top, axes_width, _DENSITY_HEIGHT))
    density_axes.sharex(effect_axes)
    effect_axes.set_xlim(0.0, tau_end)
    for inset_axes in (effect_axes, density_axes):
        strip_axes(inset_axes, font_size=_SMALL_SIZE, shrink_factor=shrink_factor)
        inset_axes.axvline(
            posterior.median,
            color=POOLED_COLOR,
            linewidth=shrink_factor,
            linestyle=_DASH_PATTERN,
            zorder=2.5,
            gid="median_line",
        )
    tick_positions, tick_labels = choose_fitting_ticks((0.0, tau_end), axes_width, _SMALL_SIZE)
    density_axes.set_xticks(tick_positions, labels=tick_labels)
    density_axes.set_yticks([])
    _draw_density(density_axes, posterior, shrink_factor)
    _draw_curves(effect_axes, panel, shared_axes, shrink_factor)
    if panel.named_count:
        _draw_names(canvas, panel, shared_axes, (_LEFT_WIDTH + axes_width, panel_top))
    ends_middle, ends_style = panel_top - _ENDS_HEIGHT / 2, TextStyle(_SMALL_SIZE, QUIET_COLOR, mark="end_label")
    canvas.write_line(_LEFT_WIDTH, ends_middle, "← fully pooled", ends_style)
    canvas.write_line(_LEFT_WIDTH + axes_width, ends_middle, "not pooled →", ends_style, "right")

    interval_left, median_x, interval_right = (
        _LEFT_WIDTH + min(tau / tau_end, 1.0) * axes_width
        for tau in (posterior.ci_low, posterior.median, posterior.ci_high)
    )
    interval_text = posterior.describe_interval(interval_name)
    panel_bottom = density_top + _DENSITY_HEIGHT
    canvas.axes.fill_between(
        [interval_left, interval_right],
        panel_top,
        panel_bottom,
        color=_BAND_COLOR,
        linewidth=0,
        zorder=0,
        gid="tau_band",
    )
    text_left = min(median_x + 6, canvas.width - _MARGIN - measure_width(interval_text, _SMALL_SIZE))
    canvas.write_line(
        text_left,
        gap_top + _SUMMARY_HEIGHT / 2,
        interval_text,
        TextStyle(_SMALL_SIZE, POOLED_COLOR, mark="tau_summary"),
    )
    # The line of the median goes on through the gap, unless through the words.
    if text_left > median_x and posterior.median < tau_end:
        line_ends = [median_x, median_x], [gap_top, density_top]
        canvas.axes.add_line(
            Line2D(
                *line_ends,
                color=POOLED_COLOR,
                linewidth=shrink_factor,
                linestyle=_DASH_PATTERN,
                zorder=1,
                gid="median_line",
            )
        )


def _draw_density(density_axes: Axes, posterior: TauPosterior, shrink_factor: float) -> None:
    density_axes.set_ylim(0.0, 1.06 * posterior.density.max())
    in_interval = (posterior.tau_grid >= posterior.ci_low) & (posterior.tau_grid <= posterior.ci_high)
    density_axes.fill_between(
        posterior.tau_grid, posterior.density, color=_TAIL_COLOR, linewidth=0, zorder=1, gid="density_area"
    )
    density_axes.fill_between(
        posterior.tau_grid[in_interval],
        posterior.density[in_interval],
        color=_INTERVAL_COLOR,
        linewidth=0,
        zorder=1.1,
        gid="density_interval",
    )
    density_axes.plot(
        posterior.tau_grid,
        posterior.density,
        color=POOLED_COLOR,
        linewidth=1.1 * shrink_factor,
        zorder=2,
        gid="density_curve",
    )


def _draw_curves(effect_axes: Axes, panel: TracePanel, shared_axes: SharedAxes, shrink_factor: float) -> None:
    effect_axes.set_ylim(*shared_axes.effect_limits)
    tick_positions, tick_labels = choose_round_ticks(shared_axes.effect_limits, 6)
    effect_axes.set_yticks(tick_positions, labels=tick_labels)
    effect_axes.tick_params(length=0, labelbottom=False)
    effect_axes.spines["bottom"].set_visible(False)
    for tick in tick_positions:
        effect_axes.axhline(tick, color=GRID_COLOR, linewidth=0.7 * shrink_factor, zorder=0.5, gid="grid")
    effect_axes.axhline(
        0.0, color=INK_COLOR, linewidth=1.0 * shrink_factor, zorder=3, gid="zero_line"
    )  # above the veil
    unnamed_thickness = 0.6 * min(1.0, (_CROWDED_COUNT / len(panel.curves)) ** 0.4)
    for color_order, (curve_kind, color) in enumerate(_CURVE_COLORS.items()):
        curves = panel.select_curves(curve_kind)
        thickness = unnamed_thickness if curve_kind.startswith("other") else 1.0
        polylines = [np.column_stack([curve.tau_grid, curve.effects]) for curve in curves]
        # Width = thickness (0.8 + 1.6 √(w / w_max)); the square root keeps small segments visible.
        line_widths = [
            shrink_factor * thickness * (0.8 + 1.6 * (curve.weight / shared_axes.max_weight) ** 0.5) for curve in curves
        ]
        collection = LineCollection(
            polylines, colors=color, linewidths=line_widths, zorder=2 + color_order / 10, gid=CURVE_MARKS[curve_kind]
        )
        effect_axes.add_collection(collection, autolim=False)
    for veil_start, veil_stop in ((0.0, panel.posterior.ci_low), (panel.posterior.ci_high, effect_axes.get_xlim()[1])):
        veil_ends = (veil_start, max(veil_start, veil_stop))
        effect_axes.axvspan(*veil_ends, color="white", alpha=0.5, linewidth=0, zorder=2.4, gid="veil")


def _draw_names(canvas: Canvas, panel: TracePanel, shared_axes: SharedAxes, top_right: tuple[float, float]) -> None:
    """Write every name beside the end of its curve, moved as little as keeps the names apart."""
    from scipy.optimize import isotonic_regression

    lowest_effect, highest_effect = shared_axes.effect_limits
    right, top = top_right
    named_curves = sorted(panel.curves[: panel.named_count], key=lambda curve: -curve.effects[-1])
    effect_drops = highest_effect - np.array([curve.effects[-1] for curve in named_curves])
    curve_ends = top + _EFFECTS_HEIGHT * effect_drops / (highest_effect - lowest_effect)
    # min Σ (yᵢ − endᵢ)² with yᵢ₊₁ ≥ yᵢ + spacing: without i · spacing, this is isotonic regression.
    name_offsets = _NAME_SPACING * np.arange(len(named_curves))
    name_positions = name_offsets + np.clip(
        isotonic_regression(curve_ends - name_offsets).x, top, top + _EFFECTS_HEIGHT - name_offsets[-1]
    )
    for curve, curve_end, name_position in zip(named_curves, curve_ends.tolist(), name_positions.tolist(), strict=True):
        leader_x, leader_y = [right + 2, right + _LEADER_LENGTH - 4], [curve_end, name_position]
        leader_width = 0.6 * canvas.shrink_factor
        leader = Line2D(leader_x, leader_y, color=RAW_COLOR, linewidth=leader_width, zorder=1, gid="leader")
        canvas.axes.add_line(leader)
        label_color = _SIGN_CHANGE_COLOR if curve.changes_sign else POOLED_COLOR
        text_style = TextStyle(_SMALL_SIZE, label_color, mark="label")
        short_label = cut_to_width(curve.segment_label, shared_axes.name_width, _SMALL_SIZE)
        canvas.write_line(right + _LEADER_LENGTH, name_position, short_label, text_style)


def _draw_key(canvas: Canvas, key_rows: Sequence[Sequence[tuple[str, str]]], key_top: float) -> None:
    for row_index, key_row in enumerate(key_rows):
        x, y = _MARGIN, key_top + (row_index + 0.5) * compute_leading(_SMALL_SIZE)
        for meaning, mark_kind in key_row:
            other_marks = {"band": (_INTERVAL_COLOR, 8.0), "median": (POOLED_COLOR, 1.0)}
            color, line_width = other_marks.get(mark_kind) or (_CURVE_COLORS[mark_kind], 1.8)
            mark_name = f"{KEY_PREFIX}{_KEY_MARKS[mark_kind]}"
            key_mark = Line2D([x, x + _KEY_MARK_WIDTH - 6], [y, y], zorder=1, gid=mark_name)
            if mark_kind == "median":
                key_mark.set_linestyle(_DASH_PATTERN)
            key_mark.set(color=color, linewidth=line_width * canvas.shrink_factor, solid_capstyle="butt")
            canvas.axes.add_line(key_mark)
            canvas.write_line(x + _KEY_MARK_WIDTH, y, meaning, TextStyle(_SMALL_SIZE, QUIET_COLOR, mark=mark_name))
            x += _KEY_MARK_WIDTH + measure_width(meaning, _SMALL_SIZE) + _KEY_GAP
