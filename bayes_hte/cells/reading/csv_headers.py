"""Check the headers of text files: refuse what DuckDB would rename, put in the wrong column or not find."""

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

FIELD_SEPARATORS = ",;\t|"
"""The characters that DuckDB tries between the fields of a line."""


def check_headers(
    read_csv: "Callable[..., duckdb.DuckDBPyRelation]", file_paths: Sequence[str], needed_columns: Collection[str]
) -> None:
    """Raise DataError if columns cannot be told apart, or a file lacks a column that others have.

    Parameters
    ----------
    read_csv
        DuckDB's reader of text files.
    file_paths
        Files that one pattern matches; the first sets the columns.
    needed_columns
        Columns that will be read.
    """
    names_by_path = {file_path: _read_header(read_csv, file_path) for file_path in file_paths}
    first_path = file_paths[0]
    for file_path in file_paths:
        _check_distinct_names(Path(file_path).name, names_by_path[file_path], needed_columns)
        _check_has_columns(
            file_path, first_path, set(names_by_path[first_path]).difference(names_by_path[file_path]), needed_columns
        )
        _check_has_columns(
            first_path, file_path, set(names_by_path[file_path]).difference(names_by_path[first_path]), needed_columns
        )


def _check_has_columns(
    lacking_path: str, complete_path: str, lacking_columns: Collection[str], needed_columns: Collection[str]
) -> None:
    # DuckDB would fill the column of that file with nulls: units would go missing without a word.
    for column_name in needed_columns:
        if column_name in lacking_columns:
            raise DataError(
                f"the file {Path(lacking_path).name} lacks the column {column_name!r}, which "
                f"{Path(complete_path).name} has; all files of a pattern must have the columns that are needed"
            )


def _read_header(read_csv: "Callable[..., duckdb.DuckDBPyRelation]", file_path: str) -> list[str]:
    """Read the names of the columns as they are written; unnamed columns are left out."""
    import duckdb

    try:
        header_rows = read_csv([glob.escape(file_path)], header=False, all_varchar=True).limit(1).fetchall()
    except duckdb.InvalidInputException as error:
        # DuckDB finds no dialect in which all lines have as many fields, and does not say which line is to blame.
        if "sniffing" not in str(error):
            raise
        _refuse_uneven_lines(file_path)
        raise
    column_names = [str(name) for row in header_rows for name in row if name is not None]
    # One name with a separator in it: no separator split the lines evenly, so that DuckDB took none.
    if len(column_names) == 1 and any(separator in column_names[0] for separator in FIELD_SEPARATORS):
        _refuse_uneven_lines(file_path)
    return column_names


def _check_distinct_names(file_name: str, column_names: Sequence[str], needed_columns: Collection[str]) -> None:
    if repeated_names := [name for name, count in Counter(column_names).items() if count > 1]:
        raise DataError(
            f"column names repeat in the file {file_name}: {', '.join(map(repr, repeated_names))}; rename them"
        )
    # To DuckDB Age and age are one column, of which it renames the second.
    case_variants = [
        name
        for name in column_names
        if name in needed_columns and [other.lower() for other in column_names].count(name.lower()) > 1
    ]
    if case_variants:
        other_variants = [
            name for name in column_names if name.lower() == case_variants[0].lower() and name != case_variants[0]
        ]
        raise DataError(
            f"the columns {case_variants[0]!r} and {other_variants[0]!r} of the file {file_name} differ in case alone, "
            "and are one column to the engine that reads files; rename one"
        )


def _refuse_uneven_lines(file_path: str) -> None:
    """Raise DataError at the first line whose number of fields differs from the header's, if there is one."""
    open_text = gzip.open if file_path.lower().endswith(".gz") else open
    with open_text(file_path, "rt", encoding="utf-8", errors="replace", newline="") as text_file:
        first_line = next((text_line for text_line in text_file if text_line.strip()), "")
        text_file.seek(0)
        csv_rows = csv.reader(text_file, delimiter=max(FIELD_SEPARATORS, key=first_line.count))
        filled_rows = (csv_row for csv_row in csv_rows if csv_row)
        header_width = len(next(filled_rows, []))
        for csv_row in filled_rows:
            if len(csv_row) != header_width:
                raise DataError(
                    f"line {csv_rows.line_num} of the file {Path(file_path).name} has {len(csv_row)} fields, and its "
                    f"header, the first line, has {header_width}; every line must have as many as the header, and a "
                    "text with a separator in it stand in quotes"
                )
