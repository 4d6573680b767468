"""The forest plot: the standard picture of effects that differ."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError
from bayes_hte.plot.arrangement import LAYOUT_NAMES, MAX_FOREST_SEGMENTS, arrange_blocks, require_segment_limit
from bayes_hte.plot.drawing.axis import label_effect_axis
from bayes_hte.plot.drawing.theme import DEFAULT_THEME, Theme
from bayes_hte.plot.drawing.visuals import Visuals, require_known_visuals, restyle_marks
from bayes_hte.plot.forest import bars
from bayes_hte.plot.forest.narrow import draw_narrow
from bayes_hte.plot.forest.page import ForestContent
from bayes_hte.plot.forest.wide import draw_wide
from bayes_hte.plot.rows import RowOrder, read_blocks

FOREST_MARKS = (
    "title",
    "axis_label",
    "header",
    "heading",
    "label",
    "number",
    "note",
    "key",
    "heading_band",
    "stripe",
    "rule",
    "grid",
    "zero_line",
    "ate_line",
    "ate_label",
    "ate_diamond",
    "raw_interval",
    "raw_point",
    "raw_arrow",
    "interval",
    "point",
    "arrow",
)
"""Names of the marks that `visuals` can restyle or leave out."""


def draw_forest(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
    table: pd.DataFrame,
    ate: pd.DataFrame,
    *,
    dimensions: Sequence[str],
    control: str = "control",
    unit: str = "",
    percent: bool = False,
    axis_label: str | None = None,
    pooled: str = "partially pooled",
    ci_prob: float = 0.95,
    order: RowOrder = "effect",
    group_by: str | None = "auto",
    max_segments: int | None = MAX_FOREST_SEGMENTS,
    layout: Literal["wide", "narrow"] = "wide",
    title: str | None = None,
    caption: str | None = None,
    figure: Figure | SubFigure | None = None,
    ax: Axes | None = None,
    visuals: Visuals | None = None,
    theme: Theme = DEFAULT_THEME,
) -> Figure | SubFigure:
    """Draw the raw and the pooled effect of every segment, under the average effect of its arm.

    Each segment has one row: units per arm, the raw estimate and its interval (light), the partially
    pooled one (dark), its numbers, and the probability that the effect is positive. The null line is
    solid, the average effect (ATE) dashed and drawn as a diamond at the end of its arm's rows.

    Parameters
    ----------
    table : DataFrame
        One row per segment and treated arm, with the columns named by `dimensions`, ``arm``, ``effect``,
        ``ci_low``, ``ci_high``, ``p_positive``; and, where known, ``n_control``, ``n_treated``, ``raw``,
        ``raw_se``. Further columns are ignored.
    ate : DataFrame
        One row per treated arm, with the same columns except the dimensions.
    dimensions : sequence of str
        Columns that hold the levels of a segment.
    control : str
        Name of the control arm.
    unit : str
        What the effect is a change in, such as ``"visit"``; it names the axis.
    percent : bool
        Show effects times 100, as percentage points.
    pooled : str
        What the dark estimates are called.
    axis_label : str, optional
        Replaces the axis label made from `unit` and `percent`.
    ci_prob : float
        Probability of the intervals in the tables; the raw intervals get the same.
    order : {"effect", "lowest", "name", "given"}
        Order of the rows, and of the groups, the same for all arms; ``"effect"`` puts the largest first, ``"lowest"``
        the lowest.
    group_by : str, optional
        Dimension whose levels become headings. ``"auto"`` takes the first of two or more dimensions;
        None gives no headings.
    max_segments : int or None
        Of more segments only so many are drawn, a third each: the largest effects, the smallest, and the others that
        pooling moved most. A line says so. None draws all.
    layout : {"wide", "narrow"}
        ``"narrow"`` is 390 points wide, for a phone.
    title, caption : str, optional
        Text above and below the plot.
    figure : Figure or SubFigure, optional
        Drawn into this, shrunk as a whole if it is too small; otherwise into a new figure of the size needed.
    ax : Axes, optional
        Drawn into the place of this instead; its own axis is hidden.
    visuals : mapping, optional
        By name of a mark (`FOREST_MARKS`): properties of its matplotlib artists, such as ``{"interval": {"color":
        "black"}}``, or False to leave the mark out. Sizes are in real points. Its key follows a mark. Words are laid
        out in the default size.
    theme : Theme
        Colours.

    Returns
    -------
    Figure or SubFigure
        The figure that was given, or that holds `ax`, or a new one.

    Raises
    ------
    ArgumentError
        If an option has a value that it cannot take, both `figure` and `ax` are given, or `visuals` names
        an unknown mark or property.
    DataError
        If a column is missing, or there are no rows.

    Notes
    -----
    Points have an area in proportion to the units in both arms; where those are unknown, to the precision
    of the raw estimate. An interval that would squash all others is clipped and ends in an arrow head.

    Examples
    --------
    >>> import pandas as pd
    >>> numbers = {"effect": 0.08, "ci_low": 0.06, "ci_high": 0.1, "p_positive": 0.9999}
    >>> table = pd.DataFrame([{"device": "mobile", "arm": "new", **numbers}])
    >>> ate = pd.DataFrame([{"arm": "new", **numbers}])
    >>> figure = draw_forest(table, ate, dimensions=["device"], unit="conversion", percent=True)
    >>> round(float(figure.get_figwidth()), 1)
    11.9
    """
    visuals = require_known_visuals(visuals, FOREST_MARKS)
    if figure is not None and ax is not None:
        raise ArgumentError("both figure and ax are given; give the one to draw into")
    # The options come from callers who have no type checker: a typo must not draw something else.
    for option_name, option, known_options in (("order", order, get_args(RowOrder)), ("layout", layout, LAYOUT_NAMES)):
        if option not in known_options:
            raise ArgumentError(f"no {option_name} {describe_value(option)}; there are {', '.join(known_options)}")
    require_segment_limit(max_segments)
    heading_by = _choose_heading_dimension(dimensions, group_by)
    effect_factor = 100.0 if percent else 1.0
    read_options: dict[str, Any] = {"dimension_names": dimensions, "effect_factor": effect_factor}
    all_blocks = read_blocks(table, ate, group_by=heading_by, **read_options)
    if max_segments is not None and max(len(block.estimates) for block in all_blocks) > max_segments:
        # What is selected has headings of its own: the labels say all levels.
        all_blocks = read_blocks(table, ate, group_by=None, **read_options)
    arm_blocks, selection_note = arrange_blocks(all_blocks, order, max_segments)
    # The limits are chosen again where the axis is drawn: they depend on the content only, not on the layout.
    content = ForestContent(
        arm_blocks=tuple(arm_blocks),
        label_heading=_write_label_heading(dimensions, heading_by),
        control_name=control,
        ci_prob=ci_prob,
        axis_label=label_effect_axis(unit, percent=percent) if axis_label is None else axis_label,
        pooled_name=pooled,
        title=title or "",
        caption=" ".join(part for part in (selection_note, caption) if part),
        has_clipping=bars.has_clipped_interval(arm_blocks, bars.choose_axis_limits(arm_blocks, ci_prob), ci_prob),
    )
    canvas = (draw_wide if layout == "wide" else draw_narrow)(content, ax if ax is not None else figure, theme)
    restyle_marks(canvas.axes, visuals)
    drawn_figure = canvas.axes.get_figure()
    assert drawn_figure is not None  # noqa: S101 - only for the type checker: the axes was just drawn on
    return drawn_figure


def _choose_heading_dimension(dimension_names: Sequence[str], group_by: str | None) -> str | None:
    if group_by is None or group_by in dimension_names:
        return group_by
    if group_by != "auto":
        raise ArgumentError(f"cannot group by {group_by!r}; the dimensions are {list(dimension_names)}")
    # With one dimension every heading would have a single row.
    return dimension_names[0] if len(dimension_names) > 1 else None


def _write_label_heading(dimension_names: Sequence[str], heading_dimension: str | None) -> str:
    other_dimensions = ", ".join(name for name in dimension_names if name != heading_dimension)
    return " / ".join(part for part in (heading_dimension, other_dimensions) if part) or "segment"
