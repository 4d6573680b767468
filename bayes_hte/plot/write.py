"""Figures as files and as elements of a web page, byte for byte the same for the same figure."""

import io
import os
import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure, SubFigure

from bayes_hte.errors import OutputError
from bayes_hte.plot.text import FAMILY, clean
from bayes_hte.storage import write

FONTS = f"{FAMILY}, Verdana, sans-serif"
DPI = 200
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def save(figure: Figure | SubFigure, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file, whole or not at all.

    Parameters
    ----------
    figure : Figure or SubFigure
        Of a SubFigure, the whole figure is written.
    path : path
        Ends in ``.svg`` or ``.png`` (200 dots per inch).

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If the suffix is unknown or the file cannot be written; a file that was there is then unchanged.

    Examples
    --------
    >>> save(Figure(), "forest.gif")
    Traceback (most recent call last):
    bayes_hte.errors.OutputError: cannot write 'forest.gif': a figure's name must end in .svg or .png
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in {".svg", ".png"}:
        raise OutputError(f"cannot write {str(path)!r}: a figure's name must end in .svg or .png")
    content = _standalone(figure) if suffix == ".svg" else _printed(figure, "png")
    return write(target, lambda part: part.write_bytes(content))


def svg(figure: Figure | SubFigure, *, description: str, prefix: str = "figure") -> str:
    """A figure as an ``<svg>`` element for a web page, as wide as its container.

    Parameters
    ----------
    figure : Figure or SubFigure
        Of a SubFigure, the whole figure is written.
    description : str
        What the figure shows, for readers who cannot see it.
    prefix : str
        Starts every id; two figures on one page need different ones.

    Returns
    -------
    str
        The element, without XML prolog, metadata, scripts or style sheets.

    Raises
    ------
    OutputError
        If `prefix` is not a letter followed by letters, digits, ``_`` and ``-``.

    Examples
    --------
    >>> svg(Figure(figsize=(1, 1)), description="Nothing")[:60]
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72" '
    """
    return ET.tostring(element(figure, description=description, prefix=prefix), encoding="unicode")


def element(figure: Figure | SubFigure, *, description: str, prefix: str) -> ET.Element:
    """What `svg` writes, before it is text: whoever changes it need not parse it again."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", prefix):
        raise OutputError(f"prefix {prefix!r} must be a letter followed by letters, digits, _ and -")
    root = _element(figure, prefix)
    root.set("width", "100%")
    root.set("role", "img")
    root.set("aria-label", clean(description))
    return root


def _standalone(figure: Figure | SubFigure) -> bytes:
    root = _element(figure, "figure")
    width, height = root.attrib["viewBox"].split()[2:]
    root.set("width", f"{width}pt")
    root.set("height", f"{height}pt")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'.encode()


def _element(figure: Figure | SubFigure, prefix: str) -> ET.Element:
    """What matplotlib writes, without all that does not belong inside a page."""
    drawn = ET.fromstring(_printed(figure, "svg"))  # noqa: S314 - written by matplotlib one line above
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": drawn.attrib["viewBox"]})
    # matplotlib says this in a style sheet for "*", which would reach the whole page.
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    root.extend([child for child in drawn if child.tag not in {f"{_SVG}metadata"}])
    _drop_style_sheets(root)
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        node.tail = None
        _tidy(node, prefix)
    return root


def _drop_style_sheets(root: ET.Element) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == f"{_SVG}style"]:
            parent.remove(child)


def _tidy(node: ET.Element, prefix: str) -> None:
    """Prefix ids, use plain links, and name the fonts."""
    if _LINK in node.attrib:
        node.set("href", node.attrib.pop(_LINK))
    for name, value in node.attrib.items():
        if name == "id":
            node.set(name, f"{prefix}-{value}")
        elif name == "href" and value.startswith("#"):
            node.set(name, f"#{prefix}-{value[1:]}")
        elif "url(#" in value:
            node.set(name, value.replace("url(#", f"url(#{prefix}-"))
        elif name == "style":
            node.set(name, re.sub(rf"(['\"]){FAMILY}\1(, [^;]+)?", FONTS, value))
    if not (node.text or "").strip():
        node.text = None


def _printed(figure: Figure | SubFigure, kind: str) -> bytes:
    root = figure.get_figure(root=True)
    assert root is not None  # noqa: S101 - only for the type checker: a figure is its own root
    metadata = {"Software": None} if kind == "png" else dict.fromkeys(("Date", "Creator", "Format", "Type"))
    buffer = io.BytesIO()
    settings = mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be searched, and the browser has the missing glyphs
            "svg.hashsalt": "bayes_hte",
            "savefig.bbox": "standard",
            "savefig.transparent": False,
        }
    )
    with settings, warnings.catch_warnings():
        # Names may be in any script: a browser has the glyphs that the bundled font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        root.savefig(buffer, format=kind, dpi=DPI if kind == "png" else "figure", metadata=metadata)
    return buffer.getvalue()
