"""Find files by path or pattern, and open them as DuckDB relations: names as text, numbers as they are written.

Headers that DuckDB would rename, put in the wrong column or not find are refused.

Relations are on a private connection: rows are never loaded, extensions never installed, and nothing is fetched from a
network.
"""

import csv
import difflib
import glob
import gzip
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_hte._support.validation import expand_home, is_address
from bayes_hte.cells.reading.text_numbers import (
    FILE_COLUMN,
    NUMBER_TYPES,
    DecimalMark,
    TextNumbers,
    choose_number_kinds,
)
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    import duckdb

FILE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
FIELD_SEPARATORS = ",;\t|"
"""The characters that DuckDB tries between the fields of a line."""
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""The first bytes of a text in UTF-16, which Windows programs call Unicode."""


@dataclass(frozen=True, slots=True)
class OpenedFiles:
    """Files as one relation, what was found out about them, and the texts behind numbers of text files."""

    relation: "duckdb.DuckDBPyRelation"
    notes: Sequence[str] = ()
    text_numbers: TextNumbers | None = None


def connect_to_duckdb() -> "duckdb.DuckDBPyConnection":
    """Open a private database in memory that cannot fetch extensions, and so has no way to a network."""
    import duckdb

    extension_settings = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    connection = duckdb.connect(":memory:", config={**extension_settings})
    connection.execute("set TimeZone = 'UTC'")  # files hold points in time: days must not hang on where they are read
    return connection


def find_files(path_pattern: str) -> list[str]:
    """Find the absolute paths of a file, or of the files that a pattern matches.

    Raises
    ------
    DataError
        If there is none, it is empty, or the path is a folder, an address or of a kind that is not read.
    """
    if is_address(path_pattern):
        raise DataError(
            "the data are given as an address or a connection, not as a path, and nothing is fetched from a network; "
            "download the file and give its path, or for a database give a query with connection="
        )
    path_pattern = str(expand_home(path_pattern))
    if Path(path_pattern).is_dir():
        raise DataError(_describe_folder(path_pattern))
    if not path_pattern.lower().endswith(FILE_SUFFIXES):
        hint = (
            "; a query needs connection=" if re.match(r"\s*(select|with|from)\s", path_pattern, re.IGNORECASE) else ""
        )
        raise DataError(
            f"{path_pattern!r} is no file that can be read here; known endings are {', '.join(FILE_SUFFIXES)}{hint}"
        )
    pattern_matches = glob.iglob(path_pattern, recursive=True)  # noqa: PTH207, Path.glob takes no absolute pattern
    file_paths = [path_pattern] if Path(path_pattern).exists() else sorted(pattern_matches)
    if not file_paths:
        raise DataError(_describe_absence(path_pattern))
    for file_path in file_paths:
        if Path(file_path).stat().st_size == 0:
            raise DataError(f"the file {file_path!r} is empty (0 bytes); write it again with a header and rows")
    return [str(Path(file_path).absolute()) for file_path in file_paths]


def _describe_folder(folder: str) -> str:
    """Describe a folder that was given as a file, with the pattern of the files in it."""
    suffixes = [suffix for suffix in FILE_SUFFIXES if any(Path(folder).glob(f"*{suffix}"))]
    pattern = str(Path(folder) / f"*{suffixes[0]}") if suffixes else ""
    way_out = f"give its files as a pattern, {pattern!r}" if pattern else "name a file in it"
    return f"{folder!r} is a folder; {way_out}"


def _describe_absence(path_pattern: str) -> str:
    """Describe what was looked for, and what is there that may have been meant."""
    absolute_path = Path(path_pattern).absolute()
    siblings = [sibling.name for sibling in absolute_path.parent.iterdir()] if absolute_path.parent.is_dir() else []
    near_names = difflib.get_close_matches(absolute_path.name, siblings, n=1)
    place = "" if Path(path_pattern).is_absolute() else f" (looked for as {str(absolute_path)!r})"
    if near_names:
        return f"there is no file {path_pattern!r}{place}; did you mean {near_names[0]!r}?"
    lacks_folder = not absolute_path.parent.is_dir() and not glob.has_magic(str(absolute_path.parent))
    reason = f": there is no folder {str(absolute_path.parent)!r}" if lacks_folder else ""
    return (
        f"there is no file {path_pattern!r}{place}{reason}; check the path: a relative one is taken from the current "
        "folder, and in a plan from the folder of the plan"
    )


def open_files(
    connection: "duckdb.DuckDBPyConnection",
    file_paths: list[str],
    label_columns: Sequence[str],
    number_columns: Sequence[str],
    *,
    table_name: str,
    decimal: DecimalMark | None = None,
) -> OpenedFiles:
    """Open files of one kind as a relation; in text files labels are text, and numbers are cast or flagged as words.

    Raises
    ------
    DataError
        If a text file is in UTF-16, its headers are doubtful, or a column of numbers holds words.
    """
    if file_paths[0].lower().endswith(".parquet"):
        return OpenedFiles(connection.read_parquet(list(map(glob.escape, file_paths))))
    for file_path in file_paths:
        with Path(file_path).open("rb") as binary_file:
            if binary_file.read(2) in _UTF_16_MARKS:
                raise DataError(
                    f"the file {Path(file_path).name} is in UTF-16 (Windows: Unicode); save it as UTF-8 (in a "
                    'spreadsheet: CSV UTF-8), or read it with pandas.read_csv(…, encoding="utf-16") and give the table'
                )
    # Hive partitioning would let a folder called arm=x replace the column arm of the file.
    reader_options: dict[str, Any] = {"hive_partitioning": False}
    if re.search(r"\.tsv(\.gz)?$", file_paths[0], re.IGNORECASE):
        reader_options["sep"] = "\t"
    # The stubs of DuckDB do not know that read_csv takes a list of paths.
    read_csv: Callable[..., duckdb.DuckDBPyRelation] = partial(connection.read_csv, **reader_options)
    check_headers(read_csv, file_paths, [*label_columns, *number_columns])
    # Of several files columns go by their names, not by their place.
    read_table = partial(read_csv, list(map(glob.escape, file_paths)), header=True, union_by_name=len(file_paths) > 1)
    find_separator = partial(_sniff_separator, connection, file_paths[0])
    return _open_text(
        read_table,
        [*label_columns],
        [*number_columns],
        find_separator=find_separator,
        table_name=table_name,
        decimal=decimal,
    )


def _sniff_separator(connection: "duckdb.DuckDBPyConnection", file_path: str) -> str:
    rows = connection.sql("select Delimiter from sniff_csv(?)", params=[glob.escape(file_path)]).fetchall()
    return str(rows[0][0])


def _open_text(
    read_table: "Callable[..., duckdb.DuckDBPyRelation]",
    label_columns: list[str],
    number_columns: list[str],
    *,
    find_separator: Callable[[], str],
    table_name: str,
    decimal: DecimalMark | None,
) -> OpenedFiles:
    """Read the columns that are needed as text, which no later row can contradict, and cast the numbers among them.

    DuckDB guesses types from the first rows. It would take 1.10 for 1.1, "yes" for true, and refuse the whole file for
    a later 2.0-rc1; dates that are to be cut into periods keep the type that it guesses.
    """
    # The guess is of use all the same: it says where numbers are written in another way, without a pass over the file.
    guessed_table = read_table()
    guessed_types = dict(zip(guessed_table.columns, map(str, guessed_table.types), strict=True))
    text_columns = [column for column in guessed_types if column in {*label_columns, *number_columns}]
    if not text_columns:
        return OpenedFiles(guessed_table)
    table = read_table(dtype=dict.fromkeys(text_columns, "VARCHAR"))
    number_types = {name: guessed_types[name] for name in dict.fromkeys(number_columns) if name in guessed_types}
    if not number_types:
        return OpenedFiles(table)
    kinds, notes = choose_number_kinds(
        table, number_types, decimal=decimal, find_separator=find_separator, table_name=table_name
    )
    flag_column = "has_word"
    while flag_column.lower() in map(str.lower, table.columns):
        flag_column += "_"
    read_with_files = partial(read_table, dtype=dict.fromkeys(text_columns, "VARCHAR"), filename=FILE_COLUMN)
    text_numbers = TextNumbers(table, kinds, flag_column, read_with_files)
    # What DuckDB takes for no number is known to hold a word, or to be written otherwise: said before any other query.
    text_numbers.refuse_words([name for name, guess in number_types.items() if guess not in NUMBER_TYPES], table_name)
    return OpenedFiles(text_numbers.cast_numbers(), notes, text_numbers)


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
