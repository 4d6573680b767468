"""A sheet measured in points, on which rows of text and a data axis are placed.

Layouts are designed in points with the origin at the top left. A figure of its own is as large as the
design; a given figure or axes that is too small gets the same design, scaled down as a whole.
"""

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import TransformedPatchPath

from bayes_hte.plot import text as words

INK = "#1b1f24"
QUIET = "#59636e"  # 6:1 against white: quiet, but readable
RAW = "#8a939d"
POOLED = "#17508f"  # dark blue: distinct from grey for every kind of colour vision, and darker when printed
RULE = "#b6bec7"
GRID = "#e4e8ec"
STRIPE = "#f4f6f9"
BAND = "#e3e9f0"

Align = Literal["left", "center", "right"]
Place = Figure | SubFigure | Axes | None


@dataclass(frozen=True, slots=True)
class Ink:
    """How a text looks."""

    size: float
    color: str = INK
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Canvas:
    """An axes whose units are design points, y downwards; `scale` turns them into real points.

    Texts are not clipped to `whole`; but if they came without it, matplotlib would make one for each of them, which
    takes longer than the text itself.
    """

    axes: Axes
    scale: float
    width: float
    height: float
    whole: TransformedPatchPath

    def write(self, x: float, y: float, text: str, ink: Ink, align: Align = "left") -> None:
        """Put one line of text with its middle at height `y`."""
        self.axes.text(
            x,
            y + 0.36 * ink.size,  # half the height of a capital: the baseline is the same whatever the glyphs
            words.clean(text),
            fontproperties=words.font(ink.size * self.scale, bold=ink.bold),
            color=ink.color,
            ha=align,
            va="baseline",
            parse_math=False,  # a "$" in a segment's name is a dollar
            usetex=False,
            zorder=3,
            clip_path=self.whole,
        )

    def lines(self, x: float, y: float, lines: list[str], ink: Ink, align: Align = "left") -> None:
        """Put lines of text under each other, the first with its middle at `y`."""
        for index, line in enumerate(lines):
            self.write(x, y + index * leading(ink.size), line, ink, align)

    def rule(self, y: float, start: float, stop: float, color: str = RULE) -> None:
        """A horizontal line."""
        self.axes.add_line(Line2D([start, stop], [y, y], color=color, linewidth=0.8 * self.scale, zorder=1))

    def stripe(self, box: tuple[float, float, float, float], color: str) -> None:
        """A filled rectangle: left, top, width, height."""
        left, top, width, height = box
        # Not add_patch, which spends most of its time on limits that are fixed anyway.
        self.axes.add_artist(Rectangle((left, top), width, height, facecolor=color, edgecolor="none", zorder=0))

    def inset(self, box: tuple[float, float, float, float]) -> Axes:
        """A data axis at left, top, width, height; its y units are the canvas's own."""
        left, top, width, height = box
        bounds = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        inner = self.axes.inset_axes(bounds, facecolor="none", zorder=2)  # above stripes, below text
        inner.set_ylim(top + height, top)
        return inner


def leading(size: float) -> float:
    """Distance between lines of text."""
    return 1.35 * size


def room(place: Place) -> tuple[float, float] | None:
    """Width and height in points of a given figure or axes."""
    if place is None:
        return None
    box = place.get_window_extent() if isinstance(place, Axes) else place.bbox
    root = place.get_figure(root=True)
    assert root is not None  # noqa: S101 - only for the type checker: a figure is its own root
    return box.width * 72 / root.dpi, box.height * 72 / root.dpi


def open_canvas(place: Place, width: float, height: float) -> Canvas:
    """A canvas for a design of this size: on a new figure, or fitted into `place`."""
    given = room(place)
    real_width, real_height = given or (width, height)
    scale = min(1.0, real_width / width, real_height / height)
    if isinstance(place, Axes):
        axes = place
    else:
        figure = place or Figure(figsize=(width / 72, height / 72), dpi=100, facecolor="white")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, real_width / scale)
    axes.set_ylim(real_height / scale, 0)
    return Canvas(axes, scale, real_width / scale, real_height / scale, TransformedPatchPath(axes.patch))
