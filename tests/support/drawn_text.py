"""What a figure shows as text, and where: boxes that must not overlap."""

import xml.etree.ElementTree as ET

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from bayes_hte.plot import svg

SVG = "{http://www.w3.org/2000/svg}"


def texts(figure: Figure) -> list[str]:
    """What the figure's SVG says, top to bottom as drawn."""
    root = ET.fromstring(svg(figure, description="test"))  # noqa: S314 - our own output
    return [node.text or "" for node in root.iter(f"{SVG}text")]


def boxes(figure: Figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [artist for artist in figure.findobj(Text) if artist.get_text() and artist.get_visible()]
    return [(artist.get_text(), artist.get_window_extent(renderer).extents) for artist in found]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that touch: any overlap across, more than two pixels of ascenders in descenders."""
    found = boxes(figure)
    return [
        (name, other)
        for index, (name, one) in enumerate(found)
        for other, two in found[index + 1 :]
        if one[0] < two[2] and two[0] < one[2] and one[1] + 2 < two[3] and two[1] + 2 < one[3]
    ]


HOSTILE = [
    "<script>alert(1)</script>",
    "$a_b$ \\frac{1}{0} $",
    "two\nlines\x00\x1b[31m\ud800\ufffe",
    "]]> & \"quoted\" 'url(#x)'",
    "x" * 300,
    "顧客セグメント 🎉",
    "\u202eright to left",
    "",
]
