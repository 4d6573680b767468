"""Figures as files and as elements of a web page, byte for byte the same for the same figure."""

import io
import os
import re
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure, SubFigure

from bayes_hte._support.atomic_files import write_file_atomically
from bayes_hte._support.phrases import clean_text
from bayes_hte.errors import ArgumentError, OutputError
from bayes_hte.plot.drawing.fonts import FONT_FAMILY

FONT_STACK = f"{FONT_FAMILY}, Verdana, sans-serif"  # readers without the first have one that is as wide
PNG_DPI = 200  # twice what most screens show
_SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"
_LINK_ATTRIBUTE = "{http://www.w3.org/1999/xlink}href"


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
    target_path = Path(path)
    suffix = target_path.suffix.lower()
    if suffix not in {".svg", ".png"}:
        raise OutputError(f"cannot write {str(path)!r}: a figure's name must end in .svg or .png")
    file_content = _render_svg_file(figure) if suffix == ".svg" else _render_figure(figure, "png")
    return write_file_atomically(target_path, lambda temporary_path: temporary_path.write_bytes(file_content))


def svg(figure: Figure | SubFigure, *, description: str, prefix: str = "figure") -> str:
    """Write a figure as an ``<svg>`` element for a web page, as wide as its container.

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
    return ET.tostring(build_svg_element(figure, description=description, id_prefix=prefix), encoding="unicode")


def build_svg_element(figure: Figure | SubFigure, *, description: str, id_prefix: str) -> ET.Element:
    """Build the element that `svg` writes, for callers who change it before it becomes text."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", id_prefix):
        raise ArgumentError(f"prefix {id_prefix!r} must be a letter followed by letters, digits, _ and -")
    svg_root = _extract_svg(figure, id_prefix)
    svg_root.set("width", "100%")
    svg_root.set("role", "img")
    svg_root.set("aria-label", clean_text(description))
    return svg_root


def _render_svg_file(figure: Figure | SubFigure) -> bytes:
    svg_root = _extract_svg(figure, "figure")
    width, height = svg_root.attrib["viewBox"].split()[2:]
    svg_root.set("width", f"{width}pt")
    svg_root.set("height", f"{height}pt")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(svg_root, encoding="unicode")}\n'.encode()


def _extract_svg(figure: Figure | SubFigure, id_prefix: str) -> ET.Element:
    """Extract from matplotlib's SVG what belongs inside a page: no metadata, style sheets or prefixes."""
    matplotlib_root = ET.fromstring(_render_figure(figure, "svg"))  # noqa: S314 - written by matplotlib one line above
    svg_root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": matplotlib_root.attrib["viewBox"]})
    # matplotlib says this in a style sheet for "*", which would reach the whole page.
    svg_root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    svg_root.extend([svg_child for svg_child in matplotlib_root if svg_child.tag not in {f"{_SVG_NAMESPACE}metadata"}])
    _drop_style_sheets(svg_root)
    for svg_node in svg_root.iter():
        svg_node.tag = svg_node.tag.removeprefix(_SVG_NAMESPACE)
        svg_node.tail = None
        _tidy_attributes(svg_node, id_prefix)
    _number_repeated_ids(svg_root)
    return svg_root


def _drop_style_sheets(svg_root: ET.Element) -> None:
    for svg_parent in list(svg_root.iter()):
        for svg_child in [svg_child for svg_child in svg_parent if svg_child.tag == f"{_SVG_NAMESPACE}style"]:
            svg_parent.remove(svg_child)


def _number_repeated_ids(svg_root: ET.Element) -> None:
    """Append a number to repeated ids: many artists are one mark, but an id may stand once on a page."""
    id_counts: Counter[str] = Counter()
    for svg_node in svg_root.iter():
        node_id = svg_node.get("id")
        if node_id is not None:
            id_counts[node_id] += 1
            if id_counts[node_id] > 1:
                svg_node.set("id", f"{node_id}-{id_counts[node_id]}")


def _tidy_attributes(svg_node: ET.Element, id_prefix: str) -> None:
    """Prefix ids, use plain links, and name the fonts."""
    if _LINK_ATTRIBUTE in svg_node.attrib:
        svg_node.set("href", svg_node.attrib.pop(_LINK_ATTRIBUTE))
    for attribute_name, attribute_value in svg_node.attrib.items():
        if attribute_name == "id":
            svg_node.set(attribute_name, f"{id_prefix}-{attribute_value}")
        elif attribute_name == "href" and attribute_value.startswith("#"):
            svg_node.set(attribute_name, f"#{id_prefix}-{attribute_value[1:]}")
        elif "url(#" in attribute_value:
            svg_node.set(attribute_name, attribute_value.replace("url(#", f"url(#{id_prefix}-"))
        elif attribute_name == "style":
            svg_node.set(attribute_name, re.sub(rf"(['\"]){FONT_FAMILY}\1(, [^;]+)?", FONT_STACK, attribute_value))
    if not (svg_node.text or "").strip():
        svg_node.text = None


def _render_figure(figure: Figure | SubFigure, file_format: str) -> bytes:
    root_figure = figure.get_figure(root=True)
    assert root_figure is not None  # noqa: S101 - only for the type checker: a figure is its own root
    file_metadata = {"Software": None} if file_format == "png" else dict.fromkeys(("Date", "Creator", "Format", "Type"))
    file_buffer = io.BytesIO()
    svg_settings = mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be searched, and the browser has the missing glyphs
            "svg.hashsalt": "bayes_hte",
            "savefig.bbox": "standard",
            "savefig.transparent": False,
        }
    )
    with svg_settings, warnings.catch_warnings():
        # Names may be in any script: a browser has the glyphs that the bundled font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        root_figure.savefig(
            file_buffer, format=file_format, dpi=PNG_DPI if file_format == "png" else "figure", metadata=file_metadata
        )
    return file_buffer.getvalue()
