"""Fonts for names in any script: the bundled one first, then what is installed for the characters that it lacks."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.transforms import Bbox

FONT_FAMILY: Final = "DejaVu Sans"
"""Comes with matplotlib, so that widths are the same on every machine; Verdana has nearly the same ones."""
FALLBACK_FAMILIES: Final = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC", "Source Han Sans"),
    *("Hiragino Sans", "PingFang SC", "Yu Gothic", "MS Gothic", "Microsoft YaHei", "SimHei", "Malgun Gothic"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "IPAexGothic", "NanumGothic"),
    *("Noto Sans Arabic", "Noto Naskh Arabic", "Geeza Pro", "Noto Sans Devanagari", "Kohinoor Devanagari", "Mangal"),
    *("Nirmala UI", "Lohit Devanagari", "Noto Sans Hebrew", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil"),
    *("Noto Emoji", "Segoe UI Emoji", "Segoe UI Symbol", "Symbola", "Noto Sans Symbols2", "Segoe UI"),
    *("Arial Unicode MS", "FreeSans", "Unifont"),
)
"""Of the systems that people have; fonts of coloured pictures are not among them, matplotlib cannot draw those."""


@dataclass(slots=True)
class MissingGlyphs:
    """Characters of one figure that no installed font has, and whether its reader was told."""

    characters: set[str] = field(default_factory=set)
    is_told: bool = False

    def tell_reader(self) -> None:
        """Warn once for the whole figure, in one sentence."""
        if self.is_told:
            return
        self.is_told = True
        shown_characters = "".join(sorted(self.characters)[:8])
        warnings.warn(
            f"no installed font has the characters {shown_characters!r} of some names, which are drawn as boxes: save "
            "the figure as .svg, which browsers draw with fonts of their own, or install a font such as Noto Sans CJK",
            UserWarning,
            stacklevel=2,
        )


class UncoveredText(Text):
    """A text with characters that no font has: one warning for its figure, in place of matplotlib's for each glyph."""

    missing_glyphs: MissingGlyphs

    def draw(self, renderer: RendererBase) -> None:
        """Draw the text; in an SVG file it stays text, and whoever shows it has the fonts."""
        is_text_in_svg = isinstance(getattr(renderer, "_renderer", renderer), RendererSVG) and (
            mpl.rcParams["svg.fonttype"] == "none"
        )
        if not is_text_in_svg:
            self.missing_glyphs.tell_reader()
        with _silence_glyph_warnings():
            super().draw(renderer)

    def get_window_extent(self, renderer: RendererBase | None = None, dpi: float | None = None) -> Bbox:
        """Measure the text."""
        with _silence_glyph_warnings():
            return super().get_window_extent(renderer, dpi)


class _silence_glyph_warnings(warnings.catch_warnings):  # noqa: N801 - read as a function by who uses it
    def __enter__(self) -> Any:
        recorded = super().__enter__()
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support", category=UserWarning)
        return recorded


def find_uncovered(text: str) -> set[str]:
    """Find the characters of a text that neither the bundled font nor an installed one has."""
    missing_characters = _list_missing(text)
    if not missing_characters:
        return set()
    covered = {code for family in _list_installed_fallbacks() for code in _read_family_characters(family)}
    return {character for character in missing_characters if ord(character) not in covered}


def choose_families(text: str) -> tuple[str, ...]:
    """Choose the families that a text is drawn with: matplotlib takes each glyph from the first that has it."""
    missing_codes = set(map(ord, _list_missing(text)))
    families = [FONT_FAMILY]
    for family in _list_installed_fallbacks() if missing_codes else ():
        found_codes = missing_codes & _read_family_characters(family)
        if found_codes:
            families.append(family)
            missing_codes -= found_codes
    return tuple(families)


def _list_missing(text: str) -> Iterable[str]:
    """List the characters that the bundled font lacks."""
    return () if text.isascii() else [each for each in text if ord(each) not in read_font_characters()]


@cache
def read_font_characters() -> frozenset[int]:
    """Read the characters of the bundled font."""
    return _read_family_characters(FONT_FAMILY)


@cache
def _read_family_characters(family: str) -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=family))).get_charmap())


@cache
def _list_installed_fallbacks() -> tuple[str, ...]:
    installed_families = {font.name for font in fontManager.ttflist}
    return tuple(family for family in FALLBACK_FAMILIES if family in installed_families)
