"""Figures inside the page: what matplotlib writes, with repeated styles as shared classes and short numbers."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

from bayes_hte.plot.drawing.write import build_svg_element

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_DECIMAL_NUMBER = re.compile(r"-?\d+\.\d+")
_HARMLESS_STYLE = re.compile(r"[\w\s:;#.,%()'\"-]+")
"""All that a style may hold: it is moved out of an attribute into a style sheet, where < would end the sheet."""
_ID_REFERENCE = re.compile(r"(?:url\(|^)#([^)]+)")
"""An id that is used: as a clip path, a marker, or the target of a link."""
_COLOR_VARIABLE = re.compile(r"(--[\w-]+):\s*(#[0-9a-f]{6})")
_HEX_COLOR = re.compile(r"#[0-9a-f]{6}")
_ZERO_ROTATION = re.compile(r"rotate\(-?0 [^)]*\)")
_NUMERIC_ATTRIBUTES = frozenset({"d", "transform", "x", "y", "width", "height", "cx", "cy", "r"})


@dataclass(slots=True)
class FigureStyles:
    """Styles of all figures of one page, collected while they are added; every style becomes one class."""

    class_by_style: dict[str, str] = field(default_factory=dict)
    figure_count: int = 0

    def name_class(self, css_style: str) -> str:
        """Name the class that stands for a style; the name is short, because it stands at every mark."""
        return self.class_by_style.setdefault(css_style, f"f{len(self.class_by_style)}")

    def write_css(self) -> Markup:
        """Write the rules; they are safe, because `add_figure` admits only harmless styles."""
        return Markup("".join(f".{class_name}{{{css_style}}}" for css_style, class_name in self.class_by_style.items()))  # noqa: S704

    def add_figure(self, figure: "Figure | SubFigure", description: str) -> Markup:
        """Add a figure to the page, and return its element."""
        self.figure_count += 1
        svg_root = build_svg_element(figure, description=description, id_prefix=f"p{self.figure_count}")
        del svg_root.attrib["xmlns"]  # HTML knows what an <svg> is
        self._shrink_markup(svg_root)
        # Names inside are text and attributes, which an XML writer escapes.
        return Markup(ET.tostring(svg_root, encoding="unicode"))  # noqa: S704

    def _shrink_markup(self, svg_root: ET.Element) -> None:
        used_ids = {
            used_id
            for svg_node in svg_root.iter()
            for attribute_value in svg_node.attrib.values()
            for used_id in _ID_REFERENCE.findall(attribute_value)
        }
        short_ids = {used_id: f"p{self.figure_count}{id_index}" for id_index, used_id in enumerate(sorted(used_ids))}
        for svg_node in svg_root.iter():
            for attribute_name, attribute_value in list(svg_node.attrib.items()):
                self._shorten_attribute(svg_node, attribute_name, attribute_value, short_ids)
        _unwrap_groups(svg_root)

    def _shorten_attribute(
        self, svg_node: ET.Element, attribute_name: str, attribute_value: str, short_ids: dict[str, str]
    ) -> None:
        if attribute_name == "id":
            svg_node.attrib.pop(attribute_name)
            if attribute_value in short_ids:
                svg_node.set(attribute_name, short_ids[attribute_value])
        elif attribute_name == "style" and _HARMLESS_STYLE.fullmatch(attribute_value):
            svg_node.attrib.pop(attribute_name)
            svg_node.set("class", self.name_class(re.sub(r"\s*([:;,])\s*", r"\1", attribute_value)))
        elif attribute_name == "transform" and _ZERO_ROTATION.fullmatch(attribute_value):
            svg_node.attrib.pop(attribute_name)
        # Every target is in `short_ids`, which was made from all references.
        elif attribute_name == "href":
            svg_node.set(attribute_name, f"#{short_ids[attribute_value[1:]]}")
        elif "url(#" in attribute_value and attribute_name != "aria-label":
            svg_node.set(attribute_name, re.sub(r"#([^)]+)", lambda match: f"#{short_ids[match[1]]}", attribute_value))
        # Five digits are a hundredth of a point on the widest figure.
        elif attribute_name in _NUMERIC_ATTRIBUTES:
            svg_node.set(
                attribute_name,
                " ".join(_DECIMAL_NUMBER.sub(lambda match: f"{float(match[0]):.5g}", attribute_value).split()),
            )


def name_page_colors(figure_css: Markup, page_css: str) -> Markup:
    """Name the page's colours in the styles of figures, so that figures turn dark with the page.

    Parameters
    ----------
    figure_css : Markup
        Of `FigureStyles.write_css`.
    page_css : str
        Style sheet whose first rule names the colours on white paper: ``--ink: #1b1f24``.
    """
    light_rule = page_css[: page_css.index("}")]
    # Two variables may start from one colour: the first to be named stands for it.
    variable_by_color = {color: name for name, color in reversed(_COLOR_VARIABLE.findall(light_rule))}
    return Markup(  # noqa: S704 - harmless styles in which colours are replaced by names of the package's own sheet
        _HEX_COLOR.sub(
            lambda match: f"var({variable_by_color[match[0]]})" if match[0] in variable_by_color else match[0],
            figure_css,
        )
    )


def _unwrap_groups(svg_parent: ET.Element) -> None:
    """Lift what stands in groups that say nothing: matplotlib wraps every text in one."""
    for svg_child in list(svg_parent):
        _unwrap_groups(svg_child)
        if svg_child.tag == "g" and not svg_child.attrib:
            child_index = list(svg_parent).index(svg_child)
            svg_parent.remove(svg_child)
            for offset, grandchild in enumerate(list(svg_child)):
                svg_parent.insert(child_index + offset, grandchild)
