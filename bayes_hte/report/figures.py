"""Figures inside the page: what matplotlib writes, with repeated styles as shared classes and short numbers.

A forest plot of sixty segments is 190 kB as matplotlib writes it, and there are two of them per arm.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

from bayes_hte.plot.write import element

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_PRECISE = re.compile(r"-?\d+\.\d+")
_STYLE = re.compile(r"[\w\s:;#.,%()'\"-]+")
"""All that a style may hold: it is moved out of an attribute into a style sheet, where < would end the sheet."""
_LINK = re.compile(r"(?:url\(|^)#([^)]+)")
"""An id that is used: as a clip path, a marker, or the target of a link."""
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
        root = element(figure, description=description, prefix=f"p{self.count}")
        del root.attrib["xmlns"]  # HTML knows what an <svg> is
        self._shrink(root)
        # Names inside are text and attributes, which an XML writer escapes.
        return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704

    def _shrink(self, root: ET.Element) -> None:
        used = {name for node in root.iter() for value in node.attrib.values() for name in _LINK.findall(value)}
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
        elif "url(#" in value and key != "aria-label":
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
