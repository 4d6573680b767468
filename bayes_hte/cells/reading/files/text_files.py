"""Open text files as DuckDB relations: names as text, numbers as they are written.

Headers that DuckDB would rename, put in the wrong column or not find are refused. Rows are never loaded. What is not in
UTF-8 is written anew in a temporary folder first, as DuckDB reads nothing else without an extension.
"""

import codecs
import csv
import glob
import gzip
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, cast

from bayes_hte._support.validation import describe_value
from bayes_hte.cells.reading.files.find_files import FoundFiles
from bayes_hte.cells.reading.text_numbers import (
    FILE_COLUMN,
    NUMBER_TYPES,
    DecimalMark,
    TextNumbers,
    choose_number_kinds,
)
from bayes_hte.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import duckdb

FIELD_SEPARATORS = ",;\t|"
"""The characters that DuckDB tries between the fields of a line."""
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""The first bytes of a text in UTF-16, which Windows programs call Unicode."""
_CHARACTERS_PER_COPY = 1_000_000
"""Characters in memory at a time while a text is written anew."""


@dataclass(frozen=True, slots=True)
class OpenedFiles:
    """Files as one relation, what was found out about them, and the texts behind numbers of text files."""

    relation: "duckdb.DuckDBPyRelation"
    notes: Sequence[str] = ()
    text_numbers: TextNumbers | None = None


def open_text_files(
    connection: "duckdb.DuckDBPyConnection",
    found: FoundFiles,
    label_columns: Sequence[str],
    number_columns: Sequence[str],
    *,
    table_name: str,
    decimal: DecimalMark | None = None,
) -> OpenedFiles:
    """Open text files in UTF-8 as one relation: labels are text, and numbers are cast or flagged as words.

    Raises
    ------
    DataError
        If headers are doubtful, or a column of numbers holds words.
    """
    file_paths = found.paths
    reader_options: dict[str, Any] = choose_folder_options(
        found, _read_header(connection.read_csv, file_paths[0]) if found.folder_columns else ()
    )
    if re.search(r"\.tsv(\.gz)?$", file_paths[0], re.IGNORECASE):
        reader_options["sep"] = "\t"
    # The stubs of DuckDB do not know that read_csv takes a list of paths.
    read_csv: Callable[..., duckdb.DuckDBPyRelation] = partial(connection.read_csv, **reader_options)
    check_headers(read_csv, file_paths, [*label_columns, *number_columns])
    # Of several files columns go by their names, not by their place.
    read_table = partial(read_csv, list(map(glob.escape, file_paths)), header=True, union_by_name=len(file_paths) > 1)
    find_separator = partial(_sniff_separator, connection, file_paths[0])
    # What the names of folders say is text already, and no column of a file.
    return _open_text(
        read_table,
        [column for column in label_columns if column not in found.folder_columns],
        [column for column in number_columns if column not in found.folder_columns],
        find_separator=find_separator,
        table_name=table_name,
        decimal=decimal,
    )


def choose_folder_options(found: FoundFiles, header: Collection[str]) -> dict[str, Any]:
    """Choose whether names of folders, such as country=DE, become columns: only where no file has such a column.

    In a pattern they never do: a folder called arm=x would replace the column arm of the file.
    """
    if not found.folder_columns or set(found.folder_columns) & set(header):
        return {"hive_partitioning": False}
    return {"hive_partitioning": True, "hive_types_autocast": False}  # 1.10 is not 1.1


@contextmanager
def recode_files(file_paths: Sequence[str], encoding: str | None) -> Iterator[list[str]]:
    """Write what is not in UTF-8 anew in a temporary folder, under the same names, and give the paths to read.

    Parameters
    ----------
    file_paths
        Text files.
    encoding
        As Python names it; without it files are in UTF-8, or in UTF-16 where they begin with its mark.

    Raises
    ------
    ArgumentError
        If there is no such encoding.
    DataError
        If a file is not in its encoding.
    """
    # A mark of UTF-16 cannot begin a text in UTF-8: it is believed whatever is stated of the other files.
    is_utf_8 = encoding is None or _find_codec(encoding) == "utf-8"
    encodings = ["utf-16" if is_utf_8 and _begins_with_mark(path) else encoding for path in file_paths]
    if is_utf_8 and "utf-16" not in encodings:
        yield list(file_paths)
        return
    with TemporaryDirectory(prefix="bayes-hte-") as folder:
        yield [
            file_path if own_encoding is None else _recode_file(file_path, own_encoding, Path(folder) / str(i))
            for i, (file_path, own_encoding) in enumerate(zip(file_paths, encodings, strict=True))
        ]


def _find_codec(encoding: str) -> str:
    """Find Python's own name of an encoding of text."""
    try:
        "".encode(encoding)  # codecs that turn bytes into bytes are refused here
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise ArgumentError(
            f"there is no encoding {describe_value(encoding)}; name one as Python does, such as latin-1, windows-1252, "
            "utf-16 or shift-jis"
        ) from None


def _open_bytes(file_path: str) -> IO[bytes]:
    if file_path.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(file_path, "rb"))
    return Path(file_path).open("rb")


def _begins_with_mark(file_path: str) -> bool:
    with suppress(OSError, EOFError), _open_bytes(file_path) as binary_file:  # a broken .gz is told of when it is read
        return binary_file.read(2) in _UTF_16_MARKS
    return False


def _recode_file(file_path: str, encoding: str, folder: Path) -> str:
    # A folder for each file: parts in two folders may have one name.
    folder.mkdir()
    copy_path = folder / re.sub(r"\.gz$", "", Path(file_path).name, flags=re.IGNORECASE)
    try:
        with (
            TextIOWrapper(_open_bytes(file_path), encoding=encoding, newline="") as text_file,
            copy_path.open("w", encoding="utf-8", newline="") as copy,
        ):
            while characters := text_file.read(_CHARACTERS_PER_COPY):
                copy.write(characters)
    except (UnicodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(
            f"the file {Path(file_path).name} is not text in {encoding}; name its encoding, or save it as UTF-8"
        ) from error
    return str(copy_path)


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
