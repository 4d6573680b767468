"""A sheet measured in points, on which rows of text and a data axis are placed.

Layouts are designed in points with the origin at the top left. A figure of its own is as large as the
design; a given figure or axes that is too small gets the same design, scaled down as a whole.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import TransformedPatchPath

from bayes_hte._support.phrases import clean_text
from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError
from bayes_hte.plot.drawing.fonts import MissingGlyphs, UncoveredText, choose_families, find_uncovered
from bayes_hte.plot.drawing.text import make_font
from bayes_hte.plot.drawing.theme import Theme

TextAlignment = Literal["left", "center", "right"]
DrawingTarget = Figure | SubFigure | Axes | None


MIN_SHRINK_FACTOR: Final = 0.4
"""Text of 10 points is then 4 high, which a good eye still reads on paper."""


@dataclass(frozen=True, slots=True)
class TextStyle:
    """Size in points, colour and weight of a text, and the name of the mark that it is."""

    font_size: float
    color: str | None = None  # by default the ink of the theme
    bold: bool = False
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Canvas:
    """An axes whose units are design points, y downwards; `shrink_factor` turns them into real points.

    Texts are not clipped to `clip_path`; but if they came without it, matplotlib would make one for each of them, which
    takes longer than the text itself.
    """

    axes: Axes
    shrink_factor: float
    width: float
    height: float
    clip_path: TransformedPatchPath
    theme: Theme
    missing_glyphs: MissingGlyphs = field(default_factory=MissingGlyphs)

    def write_line(self, x: float, y: float, text: str, text_style: TextStyle, align: TextAlignment = "left") -> None:
        """Put one line of text with its middle at height `y`."""
        # 0.36 em is half the height of a capital: so the baseline is the same whatever the glyphs.
        printed_text = clean_text(text)
        font_size = text_style.font_size * self.shrink_factor
        uncovered_characters = find_uncovered(printed_text)
        text_class = UncoveredText if uncovered_characters else Text
        # Not axes.text, which knows no other class.
        artist = text_class(
            x,
            y + 0.36 * text_style.font_size,
            printed_text,
            fontproperties=make_font(font_size, bold=text_style.bold, families=choose_families(printed_text)),
            transform=self.axes.transData,
            color=text_style.color or self.theme.ink_color,
            ha=align,
            va="baseline",
            parse_math=False,  # a "$" in a segment's name is a dollar
            usetex=False,
            zorder=3,
            clip_path=self.clip_path,
            gid=text_style.mark or None,
        )
        if isinstance(artist, UncoveredText):
            self.missing_glyphs.characters |= uncovered_characters
            artist.missing_glyphs = self.missing_glyphs
        self.axes.add_artist(artist)

    def write_lines(
        self, x: float, y: float, text_lines: list[str], text_style: TextStyle, align: TextAlignment = "left"
    ) -> None:
        """Put lines of text under each other, the first with its middle at `y`."""
        for index, text_line in enumerate(text_lines):
            self.write_line(x, y + index * compute_leading(text_style.font_size), text_line, text_style, align)

    def draw_rule(self, y: float, x_start: float, x_stop: float) -> None:
        """Draw a horizontal line."""
        self.axes.add_line(
            Line2D(
                [x_start, x_stop],
                [y, y],
                color=self.theme.rule_color,
                linewidth=0.8 * self.shrink_factor,
                zorder=1,
                gid="rule",
            )
        )

    def fill_box(self, design_box: tuple[float, float, float, float], color: str, mark: str) -> None:
        """Fill a rectangle, given as left, top, width, height; `mark` names it."""
        left, top, width, height = design_box
        # Not add_patch, which spends most of its time on limits that are fixed anyway.
        self.axes.add_artist(
            Rectangle((left, top), width, height, facecolor=color, edgecolor="none", zorder=0, gid=mark)
        )

    def add_inset_axes(self, design_box: tuple[float, float, float, float]) -> Axes:
        """Add a data axis at left, top, width, height; its y units are the canvas's own."""
        left, top, width, height = design_box
        relative_bounds = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        inset_axes = self.axes.inset_axes(relative_bounds, facecolor="none", zorder=2)  # above stripes, below text
        inset_axes.set_ylim(top + height, top)
        return inset_axes


def compute_leading(font_size: float) -> float:
    """Compute the distance between the baselines of two lines of text."""
    return 1.35 * font_size


def measure_target(drawing_target: DrawingTarget) -> tuple[float, float] | None:
    """Measure a given figure or axes: width and height in points, None where a new figure is to be made."""
    if drawing_target is None:
        return None
    pixel_box = drawing_target.get_window_extent() if isinstance(drawing_target, Axes) else drawing_target.bbox
    root_figure = drawing_target.get_figure(root=True)
    assert root_figure is not None  # noqa: S101 - only for the type checker: a figure is its own root
    return pixel_box.width * 72 / root_figure.dpi, pixel_box.height * 72 / root_figure.dpi


def open_canvas(drawing_target: DrawingTarget, design_width: float, design_height: float, theme: Theme) -> Canvas:
    """Open a canvas for a design of this size: on a new figure, or fitted into `drawing_target`."""
    if not isinstance(theme, Theme):
        raise ArgumentError(f"theme must be a bayes_hte.plot.Theme, not {describe_value(theme)}")
    target_size = measure_target(drawing_target)
    real_width, real_height = target_size or (design_width, design_height)
    # Never enlarged: a larger place gets a wider canvas, and texts of the size designed.
    shrink_factor = min(1.0, real_width / design_width, real_height / design_height)
    if shrink_factor < MIN_SHRINK_FACTOR:
        needed_width, needed_height = (MIN_SHRINK_FACTOR * size / 72 for size in (design_width, design_height))
        raise ArgumentError(
            f"a place of {real_width / 72:.1f} × {real_height / 72:.1f} inches is too small for this figure to be "
            f"read; give it at least {needed_width:.1f} × {needed_height:.1f} inches, or fewer segments (max_segments)"
        )
    if isinstance(drawing_target, Axes):
        axes = drawing_target
    else:
        figure = drawing_target or Figure(
            figsize=(design_width / 72, design_height / 72), dpi=100, facecolor=theme.paper_color
        )
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, real_width / shrink_factor)
    axes.set_ylim(real_height / shrink_factor, 0)
    return Canvas(
        axes,
        shrink_factor,
        real_width / shrink_factor,
        real_height / shrink_factor,
        TransformedPatchPath(axes.patch),
        theme,
    )
