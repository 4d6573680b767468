"""Read small CSV files that leave nothing to guess, without DuckDB: importing DuckDB takes longer than a whole fit.

This reader knows one dialect, and leaves every other file to DuckDB, errors and their messages included. Where it
answers, it answers what `bayes_hte.cells.reading.engines` does; a test draws files at random and asks both.

Measured on the table of eight schools, with pandas imported and bytecode cached, medians of 7 on a busy machine of two
cores: 0.1 ms here against 0.95 s by DuckDB, its import included. `pandas.read_csv` takes 40 ms
and would replace no check, only the splitting of lines: it fills short rows and renames repeated columns.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

MAX_BYTES, MAX_LINES = 200_000, 2000
"""A table of cells is smaller."""
_AMBIGUOUS_TEXT = re.compile(r"""["\\;|#]|(^|,)[' ]|[' ](,|$)|,,|^,|,$|^$""", re.MULTILINE)
"""Text that DuckDB may read in several ways: quotes, escapes, other delimiters, comments, spaces, empty fields."""
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})")
_DECIMAL_NUMBER = re.compile(rf"{_WHOLE_NUMBER.pattern}(\.[0-9]{{1,17}})?([eE][-+]?[0-9]{{1,2}})?")

type CsvRows = list[tuple[str | float, ...]]


def read_plain_csv(data: object, label_columns: Sequence[str], number_columns: Sequence[str]) -> CsvRows | None:
    """Read `label_columns` as text, then `number_columns` as numbers, row by row; None if DuckDB is to read `data`."""
    if not isinstance(data, str | os.PathLike):
        return None
    text_lines = _read_plain_lines(Path(data))
    if text_lines is None:
        return None
    column_names, *body_rows = ([*text_line.split(",")] for text_line in text_lines)
    # What is left to DuckDB is read or refused there, with its own messages.
    if not _is_rectangular(column_names, body_rows) or not {*label_columns, *number_columns} <= {*column_names}:
        return None
    fields_by_column = dict(zip(column_names, zip(*body_rows, strict=True), strict=True))
    if not all(_DECIMAL_NUMBER.fullmatch(field) for name in number_columns for field in fields_by_column[name]):
        return None
    label_fields = [fields_by_column[name] for name in label_columns]
    number_values = [[float(field) for field in fields_by_column[name]] for name in number_columns]
    return list(zip(*label_fields, *number_values, strict=True))


def _read_plain_lines(path: Path) -> list[str] | None:
    """Read the lines of a file; None unless the file is small, text and plain."""
    if path.suffix.lower() != ".csv" or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None
    try:
        file_text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    # DuckDB guesses the end of lines for the whole file: a file with both kinds is left to it, as \r is not printable.
    line_end = "\r\n" if "\r\n" in file_text else "\n"
    text_lines = file_text.removesuffix(line_end).split(line_end)
    joined_lines = "\n".join(text_lines)
    is_plain = all(text_line.isprintable() for text_line in text_lines) and not _AMBIGUOUS_TEXT.search(joined_lines)
    return text_lines if is_plain and 2 <= len(text_lines) <= MAX_LINES else None


def _is_rectangular(column_names: list[str], body_rows: list[list[str]]) -> bool:
    """Tell whether there are two columns or more, with distinct names, and all rows are as long as the header."""
    return len({name.casefold() for name in column_names}) == len(column_names) > 1 and {
        len(row) for row in body_rows
    } == {len(column_names)}
