"""Find the files that a path, a pattern or a folder stands for, and tell of what kind they are."""

import difflib
import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import expand_home, is_address
from bayes_hte.cells.reading.files.data_source import STANDARD_INPUT
from bayes_hte.cells.reading.files.standard_input import copy_standard_input, guess_suffix
from bayes_hte.errors import DataError

type FileKind = Literal["text", "parquet", "duckdb", "sqlite", "workbook"]

TEXT_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
DATABASE_SUFFIXES = (".duckdb", ".ddb", ".sqlite", ".sqlite3", ".db")
WORKBOOK_SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
FILE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", *DATABASE_SUFFIXES, *WORKBOOK_SUFFIXES)
PART_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
"""Endings of files that several of may be the parts of one table."""


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """Files of one kind, by their absolute paths, and what the names of the folders that they lie in say of them.

    Attributes
    ----------
    kind : str
    paths : list of str
    folder_columns : list of str
        Columns that stand in names of folders only, as in ``country=DE/part-0.parquet``.
    """

    kind: FileKind
    paths: list[str]
    folder_columns: tuple[str, ...] = ()


def find_files(path_pattern: str) -> FoundFiles:
    """Find a file, the files that a pattern matches or a folder holds, or the copy of standard input.

    Raises
    ------
    DataError
        If there is none, one is empty, or the path is an address or of a kind that is not read.
    """
    if is_address(path_pattern):
        raise DataError(
            "the data are given as an address or a connection, not as a path, and nothing is fetched from a network; "
            "download the file and give its path; for a database put its URL into an environment variable, and give a "
            "query with the variable's name as connection"
        )
    if path_pattern == STANDARD_INPUT:
        path_pattern = str(copy_standard_input())
    path_pattern = str(expand_home(path_pattern))
    if Path(path_pattern).is_dir():
        return _find_in_folder(Path(path_pattern))
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
    return _check_files(file_paths)


def _check_files(file_paths: list[str], folder_columns: tuple[str, ...] = ()) -> FoundFiles:
    for file_path in file_paths:
        if Path(file_path).stat().st_size == 0:
            raise DataError(f"the file {file_path!r} is empty (0 bytes); write it again with a header and rows")
    kind = _tell_kind(Path(file_paths[0]))
    # Tables of two databases may have equal names and mean other things.
    if len(file_paths) > 1 and kind not in {"text", "parquet"}:
        names = quote_names([Path(file_path).name for file_path in file_paths[:3]])
        raise DataError(
            f"several files can be parts of one table in text files and Parquet only, not {names}; name one"
        )
    return FoundFiles(kind, [str(Path(file_path).absolute()) for file_path in file_paths], folder_columns)


def _tell_kind(file_path: Path) -> FileKind:
    """Tell the kind of a file by its ending, and of a database by its first bytes: .db is used by many."""
    name = file_path.name.lower()
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith(WORKBOOK_SUFFIXES):
        return "workbook"
    if not name.endswith(DATABASE_SUFFIXES):
        return "text"
    with file_path.open("rb") as binary_file:
        suffix = guess_suffix(binary_file.read(16))
    if suffix not in {".duckdb", ".sqlite"}:
        raise DataError(f"the file {file_path.name} is no DuckDB or SQLite database; check what wrote it")
    return "duckdb" if suffix == ".duckdb" else "sqlite"


def _find_in_folder(folder: Path) -> FoundFiles:
    """Find the parts of a table in a folder and the folders in it; programs hide their own notes by _ and a dot."""
    parts = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name.lower().endswith(PART_SUFFIXES)
        and not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    ]
    if not parts:
        raise DataError(
            f"the folder {str(folder)!r} holds no file ending in {', '.join(PART_SUFFIXES)}; give the path of a file"
        )
    if len({part.suffix.lower() == ".parquet" for part in parts}) > 1:
        raise DataError(
            f"the folder {str(folder)!r} holds text files and Parquet files; give those that are meant as a pattern, "
            f"{str(folder / '*.parquet')!r}"
        )
    # country=DE/2026/part-0.parquet says a country; a folder without = says nothing.
    names_by_part = [
        tuple(part.partition("=")[0] for part in path.relative_to(folder).parent.parts if "=" in part) for path in parts
    ]
    if len(set(names_by_part)) > 1:
        raise DataError(
            f"the folders in {str(folder)!r} do not name the same columns; lay all files at the same depth, or give "
            "those that are meant as a pattern"
        )
    return _check_files([str(part) for part in parts], names_by_part[0])


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
