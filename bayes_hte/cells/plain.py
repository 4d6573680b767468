"""Small CSV files in which nothing is left to guess, read without DuckDB: importing it takes longer than a whole fit.

This reader knows one dialect, and leaves every other file to DuckDB, errors and their messages included. Where it
answers, it answers what `bayes_hte.cells.sources` does; a test draws files at random and asks both.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

MOST_BYTES, MOST_LINES = 200_000, 2000
"""A table of cells is smaller; DuckDB guesses the types of columns from more lines than these."""
_GUESSED = re.compile(r"""["\\;|#]|(^|,)[' ]|[' ](,|$)|,,|^,|,$|^$""", re.MULTILINE)
"""Quotes, escapes, other delimiters, comments, space around fields, empty fields and lines."""
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")
_NUMBER = re.compile(rf"{_WHOLE.pattern}(\.[0-9]{{1,17}})?([eE][-+]?[0-9]{{1,2}})?")
_WORD = re.compile(r"(?!nan|inf)[^\W\d_]|[^\w\s.+-]", re.IGNORECASE)
"""How no number starts, however it is written: a letter or a sign such as $."""

type Rows = list[tuple[str | float, ...]]


def rows(data: object, labels: Sequence[str], numbers: Sequence[str]) -> Rows | None:
    """The columns `labels` as text and then `numbers` as numbers, row by row; None if DuckDB is to read `data`."""
    if not isinstance(data, str | os.PathLike):
        return None
    lines = _lines(Path(data))
    if lines is None:
        return None
    header, *body = ([*line.split(",")] for line in lines)
    if not _table(header, body) or not {*labels, *numbers} <= {*header}:
        return None
    columns = dict(zip(header, zip(*body, strict=True), strict=True))
    if not all(map(_as_written, (columns[name] for name in labels))):
        return None
    if not all(_NUMBER.fullmatch(field) for name in numbers for field in columns[name]):
        return None
    texts = [columns[name] for name in labels]
    values = [[float(field) for field in columns[name]] for name in numbers]
    return list(zip(*texts, *values, strict=True))


def _lines(path: Path) -> list[str] | None:
    """The lines of a file that is small, text and plain."""
    if path.suffix.lower() != ".csv" or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.removesuffix(end).split(end)
    whole = "\n".join(lines)
    plain = all(line.isprintable() for line in lines) and not _GUESSED.search(whole)
    return lines if plain and 2 <= len(lines) <= MOST_LINES else None


def _table(header: list[str], body: list[list[str]]) -> bool:
    """Two columns or more, with different names, and every row as long as the header."""
    return len({name.casefold() for name in header}) == len(header) > 1 and {len(row) for row in body} == {len(header)}


def _as_written(column: Sequence[str]) -> bool:
    """Whether the fields are surely kept as they are written: words, or whole numbers, but no fractions."""
    return any(map(_WORD.match, column)) or all(map(_WHOLE.fullmatch, column))
