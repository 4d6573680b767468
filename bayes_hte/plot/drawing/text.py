"""Measure how wide words are when they are printed, and cut or wrap them to a width.

Segment names come from data, so every one of them is treated as hostile: `bayes_hte._support.phrases.clean_text` is
applied to all text before it is measured or drawn.
"""

from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from bayes_hte._support.phrases import MAX_NAME_COLUMNS, clean_text, shorten_text
from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError
from bayes_hte.plot.drawing.fonts import FONT_FAMILY, read_font_characters


def cut_to_width(text: str, max_width: float, font_size: float) -> str:
    """Cut the middle out of a text until it is at most `max_width` points wide."""
    shortened_text = shorten_text(text, 10 * MAX_NAME_COLUMNS)
    kept_columns = len(shortened_text)
    while kept_columns > 4 and measure_width(shortened_text, font_size) > max_width:
        kept_columns -= 1
        shortened_text = shorten_text(text, kept_columns)
    return shortened_text


def wrap_text(text: str, max_width: float, font_size: float) -> list[str]:
    """Break a text at spaces into lines at most `max_width` points wide; an endless word is cut.

    Raises
    ------
    ArgumentError
        If it is no text: titles, captions and labels of axes come from callers.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"words of a figure are {describe_value(text)}; give a title, caption or label as text")
    text_lines: list[str] = []
    for word in clean_text(text).split(" "):
        longer_line = f"{text_lines[-1]} {word}" if text_lines else word
        if text_lines and measure_width(longer_line, font_size) <= max_width:
            text_lines[-1] = longer_line
        elif word:
            text_lines.append(cut_to_width(word, max_width, font_size))
    return text_lines


@cache
def measure_width(text: str, font_size: float, *, bold: bool = False) -> float:
    """Measure the width of one line of text in points.

    A character that the font lacks counts as one em: a browser will show it in another font, and East
    Asian characters and emoji are that wide.
    """
    font_characters = read_font_characters()
    measurable_text = "".join(character if ord(character) in font_characters else "W" for character in clean_text(text))
    return float(
        text_to_path.get_text_width_height_descent(measurable_text, make_font(font_size, bold=bold), ismath=False)[0]
    )


@cache
def make_font(font_size: float, *, bold: bool = False, families: tuple[str, ...] = (FONT_FAMILY,)) -> FontProperties:
    """Make the bundled font in a size; it can be shared, because matplotlib copies what it is given."""
    return FontProperties(family=list(families), size=font_size, weight="bold" if bold else "normal")


def measure_widest(text_lines: Iterable[str], font_size: float, *, bold: bool = False) -> float:
    """Measure the widest of some lines in points; 0 if there are none."""
    return max((measure_width(text_line, font_size, bold=bold) for text_line in text_lines), default=0.0)
