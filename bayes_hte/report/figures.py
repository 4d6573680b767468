"""Figures inside the page: what matplotlib writes, with repeated styles as shared classes and short numbers.

A forest plot of sixty segments is 190 kB as matplotlib writes it, and there are two of them per arm.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

from bayes_hte import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_PRECISE = re.compile(r"-?\d+\.\d+")
_STYLE = re.compile(r"[\w\s:;#.,%()'\"-]+")
"""All that a style may hold: it is moved out of an attribute into a style sheet, where < would end the sheet."""
_NO_TURN = re.compile(r"rotate\(-?0 [^)]*\)")
_NUMERIC = frozenset({"d", "transform", "x", "y", "width", "height", "cx", "cy", "r"})


@dataclass(slots=True)
class Sheet:
    """Collects the styles of all figures of one page; every style becomes one class."""

    classes: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def name(self, style: str) -> str:
        """The class that stands for a style."""
        return self.classes.setdefault(style, f"f{len(self.classes)}")

    def css(self) -> Markup:
        """The rules; safe, because `add` admits only harmless styles."""
        return Markup("".join(f".{name}{{{style}}}" for style, name in self.classes.items()))  # noqa: S704

    def add(self, figure: "Figure | SubFigure", description: str) -> Markup:
        """A figure as an element of the page."""
        self.count += 1
        # Names inside are text and attributes that an XML writer has escaped: the contract of plot.svg.
        written = plot.svg(figure, description=description, prefix=f"p{self.count}")
        root = ET.fromstring(written)  # noqa: S314 - written by this package one line above
        for node in root.iter():
            node.tag = node.tag.rpartition("}")[2]
        self._shrink(root)
        # HTML knows what an <svg> is without the namespace.
        return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704

    def _shrink(self, root: ET.Element) -> None:
        markup = ET.tostring(root, encoding="unicode")
        used = set(re.findall(r"url\(#([^)]+)\)", markup)) | set(re.findall(r'href="#([^"]+)"', markup))
        short = {name: f"p{self.count}{index}" for index, name in enumerate(sorted(used))}
        for node in root.iter():
            for key, value in list(node.attrib.items()):
                self._shorten(node, key, value, short)
        _unwrap(root)

    def _shorten(self, node: ET.Element, key: str, value: str, short: dict[str, str]) -> None:
        if key == "id":
            node.attrib.pop(key)
            if value in short:
                node.set(key, short[value])
        elif key == "style" and _STYLE.fullmatch(value):
            node.attrib.pop(key)
            node.set("class", self.name(re.sub(r"\s*([:;,])\s*", r"\1", value)))
        elif key == "transform" and _NO_TURN.fullmatch(value):
            node.attrib.pop(key)
        elif key == "href":
            node.set(key, f"#{short[value[1:]]}")
        elif "url(#" in value:
            node.set(key, re.sub(r"#([^)]+)", lambda found: f"#{short[found[1]]}", value))
        elif key in _NUMERIC:
            node.set(key, " ".join(_PRECISE.sub(lambda found: f"{float(found[0]):.5g}", value).split()))


def _unwrap(parent: ET.Element) -> None:
    """Lift what stands in groups that say nothing: matplotlib wraps every text in one."""
    for child in list(parent):
        _unwrap(child)
        if child.tag == "g" and not child.attrib:
            place = list(parent).index(child)
            parent.remove(child)
            for offset, grandchild in enumerate(list(child)):
                parent.insert(place + offset, grandchild)
