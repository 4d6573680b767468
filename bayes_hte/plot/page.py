"""What a forest plot says, whatever its layout: rows, headings, legend and notes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from bayes_hte.plot import text as words
from bayes_hte.plot.bars import LARGEST_SIDE, sides
from bayes_hte.plot.canvas import INK, POOLED, QUIET, RAW, Canvas, Ink, leading
from bayes_hte.plot.rows import Block, Estimate, weights

Kind = Literal["arm", "group", "segment", "ate"]
Mark = Literal["raw", "pooled", "ate", "clipped"]
DAGGER = " †"
ONE_ARMED = "† not seen in one arm: the estimate comes from the prior and other segments"
_GAP = 18.0
_KEY = 22.0


@dataclass(frozen=True, slots=True)
class Page:
    """Everything a forest plot shows."""

    blocks: tuple[Block, ...]
    heading: str
    control: str
    ci_prob: float
    axis_label: str
    pooled: str
    title: str
    caption: str
    clipped: bool

    @property
    def rows(self) -> list[Estimate]:
        """Every row with numbers, averages included."""
        return [row for block in self.blocks for row in (*block.rows, block.ate)]

    @property
    def places(self) -> int:
        """Decimals of every effect."""
        return words.decimals(row.high - row.low for row in self.rows)

    @property
    def counted(self) -> bool:
        """Whether any number of units is known."""
        return any(n >= 0 for row in self.rows for n in (row.n_control, row.n_treated))

    @property
    def treated(self) -> str:
        """Heading of the treated units."""
        return "Treated" if len(self.blocks) > 1 else self.blocks[0].arm

    @property
    def interval(self) -> str:
        """Name of the intervals."""
        return f"{words.percentage(self.ci_prob)} interval"

    @property
    def notes(self) -> list[str]:
        """Footnotes and the caption, one paragraph each."""
        dagger = [ONE_ARMED] if any(row.one_armed for block in self.blocks for row in block.rows) else []
        return [*dagger, *([self.caption] if self.caption else [])]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the plot: a heading or a row with numbers."""

    kind: Kind
    top: float
    height: float
    block: int
    name: str
    row: Estimate
    side: float = LARGEST_SIDE

    @property
    def middle(self) -> float:
        """Height of the middle."""
        return self.top + self.height / 2


def name_of(row: Estimate) -> str:
    """A segment's name as it is printed."""
    return words.shorten(row.label, words.LONGEST_LABEL) + (DAGGER if row.one_armed else "")


def stack(page: Page, height: Callable[[Kind, str], float], top: float) -> list[Line]:
    """Every line of the plot under the one before it, the first at `top`; `height` is of its kind and name."""
    side = iter(sides([row for block in page.blocks for row in block.rows]))
    lines: list[Line] = []
    for index, block in enumerate(page.blocks):
        for kind, name, row in _contents(block, several=len(page.blocks) > 1):
            size = next(side) if kind == "segment" else LARGEST_SIDE
            lines.append(Line(kind, top, height(kind, name), index, name, row, size))
            top += height(kind, name)
    return lines


def _contents(block: Block, *, several: bool) -> Iterator[tuple[Kind, str, Estimate]]:
    """Kind, name and numbers of every line of one arm."""
    if several:
        yield "arm", words.shorten(block.arm), block.ate
    for group in block.groups:
        if group.name:
            yield "group", words.shorten(group.name), block.ate
        for row in group.rows:
            yield "segment", name_of(row), row
    yield "ate", "All (ATE)", block.ate


def legend(page: Page, width: float, size: float) -> list[list[tuple[Mark, str]]]:
    """The key, broken into lines that fit the width."""
    _, meaning = weights([row for block in page.blocks for row in block.rows])
    items: list[tuple[Mark, str]] = [
        ("raw", "raw, not pooled"),
        ("pooled", page.pooled + (f", area by {meaning}" if meaning else "")),
        ("ate", "average effect (ATE)"),
    ]
    if page.clipped:
        items.append(("clipped", "goes on beyond the axis"))
    lines: list[list[tuple[Mark, str]]] = [[]]
    left = width
    for mark, text in items:
        needed = _KEY + words.width(text, size) + _GAP
        if needed - _GAP > left and lines[-1]:
            lines.append([])
            left = width
        lines[-1].append((mark, text))
        left -= needed
    return lines


def footer_height(page: Page, width: float, size: float) -> float:
    """Height of legend and notes."""
    count = len(legend(page, width, size)) + sum(len(words.wrap(note, width, size)) for note in page.notes)
    return count * leading(size) + 6.0


def draw_footer(canvas: Canvas, page: Page, top: float, *, margin: float, size: float) -> None:
    """Legend and notes under the plot."""
    width, y = canvas.width - 2 * margin, top + leading(size) / 2
    for items in legend(page, width, size):
        x = margin
        for mark, text in items:
            _draw_key(canvas, mark, x, y)
            canvas.write(x + _KEY, y, text, Ink(size, QUIET))
            x += _KEY + words.width(text, size) + _GAP
        y += leading(size)
    y += 4.0 if page.notes else 0.0
    for note in page.notes:
        lines = words.wrap(note, width, size)
        canvas.lines(margin, y, lines, Ink(size, QUIET))
        y += len(lines) * leading(size)


def _draw_key(canvas: Canvas, mark: Mark, x: float, y: float) -> None:
    middle, scale = x + _KEY / 2 - 2, canvas.scale
    if mark in {"raw", "pooled"}:
        color, width = (RAW, 1.2) if mark == "raw" else (POOLED, 2.4)
        canvas.axes.hlines(y, x, x + _KEY - 5, color=color, linewidth=width * scale)
    shape, side, face, edge = {
        "raw": ("o", 4.2, "white", RAW),
        "pooled": ("s", 8.0, POOLED, POOLED),
        "ate": ("D", 6.5, INK, INK),
        "clipped": (">", 5.0, QUIET, QUIET),
    }[mark]
    canvas.axes.scatter(
        [middle], [y], s=(side * scale) ** 2, marker=shape, facecolor=face, edgecolor=edge, linewidth=scale, zorder=3
    )
