"""The first lines of text files: what DuckDB would rename, put in the wrong column or not find is refused here."""

import csv
import glob
import gzip
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_hte.errors import DataError

if TYPE_CHECKING:
    import duckdb

SEPARATORS = ",;\t|"
"""What DuckDB tries between the fields of a line."""


def check_headers(
    read: "Callable[..., duckdb.DuckDBPyRelation]", paths: Sequence[str], needed: Collection[str]
) -> None:
    """Raise DataError if columns cannot be told apart, or a file lacks a column that others have.

    Parameters
    ----------
    read
        DuckDB's reader of text files.
    paths
        The files.
    needed
        Columns that will be read.
    """
    names = {path: _header(read, path) for path in paths}
    first = paths[0]
    for path in paths:
        _check_names(Path(path).name, names[path], needed)
        _check_has(path, first, set(names[first]).difference(names[path]), needed)
        _check_has(first, path, set(names[path]).difference(names[first]), needed)


def _check_has(path: str, other: str, lacking: Collection[str], needed: Collection[str]) -> None:
    for column in needed:
        if column in lacking:
            raise DataError(
                f"the file {Path(path).name} lacks the column {column!r}, which {Path(other).name} has; all files of a "
                "pattern must have the columns that are needed"
            )


def _header(read: "Callable[..., duckdb.DuckDBPyRelation]", path: str) -> list[str]:
    """The names of the columns as they are written; unnamed ones are left out."""
    import duckdb

    try:
        rows = read([glob.escape(path)], header=False, all_varchar=True).limit(1).fetchall()
    except duckdb.InvalidInputException as error:
        if "sniffing" not in str(error):
            raise
        _raise_uneven(path)
        raise
    names = [str(name) for row in rows for name in row if name is not None]
    if len(names) == 1 and any(separator in names[0] for separator in SEPARATORS):
        _raise_uneven(path)
    return names


def _check_names(file: str, names: Sequence[str], needed: Collection[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"column names repeat in the file {file}: {', '.join(map(repr, twice))}; rename them")
    alike = [name for name in names if name in needed and [n.lower() for n in names].count(name.lower()) > 1]
    if alike:
        others = [name for name in names if name.lower() == alike[0].lower() and name != alike[0]]
        raise DataError(
            f"the columns {alike[0]!r} and {others[0]!r} of the file {file} differ in case alone, and are one "
            "column to the engine that reads files; rename one"
        )


def _raise_uneven(path: str) -> None:
    """Raise DataError at the first line that has not as many fields as the header, if there is one."""
    opened = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", errors="replace", newline="") as file:
        first = next((line for line in file if line.strip()), "")
        file.seek(0)
        rows = csv.reader(file, delimiter=max(SEPARATORS, key=first.count))
        filled = (row for row in rows if row)
        header = len(next(filled, []))
        for row in filled:
            if len(row) != header:
                raise DataError(
                    f"line {rows.line_num} of the file {Path(path).name} has {len(row)} fields, and its header, the "
                    f"first line, has {header}; every line must have as many as the header, and a text with a "
                    "separator in it stand in quotes"
                )
