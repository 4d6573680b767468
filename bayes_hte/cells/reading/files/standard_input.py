"""Standard input as a file: it can be read once, and most questions to data take several passes."""

import os
import shutil
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from bayes_hte.errors import DataError

_HEAD_BYTES = 16
_SUFFIX_BY_MAGIC = (
    (0, b"PAR1", ".parquet"),
    (0, b"SQLite format 3\x00", ".sqlite"),
    (8, b"DUCK", ".duckdb"),
    (0, b"PK\x03\x04", ".xlsx"),
    (0, b"\x1f\x8b", ".csv.gz"),
)
"""Where the first bytes of a file say its kind, what they are, and the ending that such a file has."""


def guess_suffix(head: bytes) -> str:
    """Guess the ending of a file from its first 16 bytes; what is of no known kind is text.

    Examples
    --------
    >>> guess_suffix(b"PAR1..."), guess_suffix(b"device,arm,n")
    ('.parquet', '.csv')
    """
    return next((suffix for at, magic, suffix in _SUFFIX_BY_MAGIC if head[at : at + len(magic)] == magic), ".csv")


def copy_standard_input() -> Path:
    """Copy standard input to a temporary file, once for the whole process, and return the path of the copy.

    Raises
    ------
    DataError
        If it is a terminal, or closed.
    """
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or sys.stdin.isatty():
        raise DataError("nothing comes in on standard input, which - stands for; pipe a file into it, or name a file")
    return _copy_stream(stream)


@lru_cache(maxsize=1)
def _copy_stream(stream: BinaryIO) -> Path:
    # DuckDB tells a zipped text by its ending, so that the copy needs the right one.
    head = stream.read(_HEAD_BYTES)
    descriptor, copy_name = tempfile.mkstemp(prefix="bayes-hte-stdin-", suffix=guess_suffix(head))
    with os.fdopen(descriptor, "wb") as copy:
        copy.write(head)
        shutil.copyfileobj(stream, copy)
    _copies.append(Path(copy_name))
    return Path(copy_name)


_copies: list[Path] = []


def remove_copies() -> None:
    """Remove what was copied of standard input: the command line calls this at its end, whatever happened."""
    while _copies:
        _copies.pop().unlink(missing_ok=True)
    _copy_stream.cache_clear()
