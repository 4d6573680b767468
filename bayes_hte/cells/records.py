"""Read a table that is small already: which cell each row describes, and its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte.cells import plain
from bayes_hte.cells.labels import SEPARATOR, Key, is_missing, text_of
from bayes_hte.cells.sources import counted, fetch, missing_notes, name_of, opened, pick
from bayes_hte.errors import DataError
from bayes_hte.schema import MISSING_LEVEL

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table

type Floats = npt.NDArray[np.float64]

ONLY_ARM = "treated"
"""The arm of estimates that name none."""

MOST = 2**53
"""Up to here float64 holds every whole number."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table: the cell that each describes, and its numbers (NaN where missing) by role.

    Whoever makes something of the numbers adds what is to be said of it to `notes`.
    """

    keys: list[Key]
    numbers: dict[str, Floats]
    notes: list[str]
    source: str

    def fail_at(self, bad: npt.NDArray[np.bool_], what: str) -> None:
        """Raise DataError if `bad` is true anywhere; the message names the first cell."""
        if bad.any():
            count = int(bad.sum())
            others = f" and {counted(count - 1, 'other row', 'other rows')}" if count > 1 else ""
            raise DataError(f"{what}; wrong in {name_cell(self.keys[int(bad.argmax())])}{others}; correct the table")


def read(table: "Table", *, dims: list[str], arm: str | None, columns: dict[str, str]) -> Rows:
    """Read the rows, and say which cell each describes.

    Parameters
    ----------
    table
        A table of any engine, or the path of a file.
    dims, arm
        Columns of labels; without an arm all rows are of one.
    columns
        What numbers mean, and their columns.

    Raises
    ------
    DataError
        If a column is missing, there are no rows, an arm is missing, or numbers are text.
    """
    labels = [*dims] if arm is None else [*dims, arm]
    answer = _fetched(table, labels, list(columns.values()))
    values = list(zip(*answer, strict=True))
    texts = [[text_of(value) for value in column] for column in values[: len(labels)]]
    arms = [ONLY_ARM] * len(answer) if arm is None else _arms(texts.pop(), arm)
    levels = ([level or MISSING_LEVEL for level in column] for column in texts)
    return Rows(
        list(zip(zip(*levels, strict=True), arms, strict=True)),
        {role: floats(role, column) for role, column in zip(columns, values[len(labels) :], strict=True)},
        missing_notes(texts, [1] * len(answer), dims, "row"),
        f"{counted(len(answer), 'row', 'rows')} of {name_of(table)}",
    )


def _fetched(table: "Table", labels: list[str], numbers: list[str]) -> Sequence[tuple[Any, ...]]:
    """The columns that are needed, row by row."""
    found = plain.rows(table, labels, numbers)
    if found is not None:
        return found
    with opened(table, labels=labels) as source:
        return fetch(pick(source, [*labels, *numbers]), source.name)


def _arms(texts: list[str | None], column: str) -> list[str]:
    arms = [text for text in texts if text is not None]
    if len(arms) < len(texts):
        missing = counted(len(texts) - len(arms), "row has", "rows have")
        raise DataError(f"{missing} no arm in {column!r}; fill it in or remove the rows")
    return arms


def check_distinct[T](found: Sequence[T], name: Callable[[T], str]) -> None:
    """Raise DataError if two rows describe the same; `name` says what."""
    first: dict[T, int] = {}
    for i, key in enumerate(found):
        if key in first:
            raise DataError(
                f"{name(key)} appears twice, in rows {first[key] + 1} and {i + 1}; add the rows up first, "
                "or name the column that tells them apart in segments"
            )
        first[key] = i


def name_cell(key: Key) -> str:
    """What messages call a cell."""
    return f"segment {SEPARATOR.join(key[0])!r}, arm {key[1]!r}"


def floats(role: str, values: Sequence[Any]) -> Floats:
    """Numbers, NaN where missing; raise DataError if there is text among them."""
    try:
        return np.array([np.nan if is_missing(value) else _float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{role} must be numbers, but holds text: {error}; convert the column") from error


def _float(value: Any) -> float:
    if isinstance(value, str):  # float() would read it, and a mistaken column with it
        raise ValueError(repr(value))
    return float(value)


def whole(rows: Rows, role: str, optional: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """Whole numbers, whatever the engine stored them as; 0 for a missing one where it is optional."""
    values = rows.numbers[role]
    if optional is not None:
        values = np.where(optional & np.isnan(values), 0.0, values)
    rows.fail_at(~np.isfinite(values), f"{role} must be a finite number")
    rows.fail_at((values < 0) | (values != np.floor(values)), f"{role} must be a whole number, 0 or more")
    rows.fail_at(values > MOST, f"{role} must be at most 2^53 = {MOST:,}, beyond which whole numbers are rounded")
    return values.astype(np.int64)


def finite(rows: Rows, role: str, needed: npt.NDArray[np.bool_] | bool = True) -> None:
    """Raise DataError unless numbers are finite where they are needed."""
    rows.fail_at(needed & ~np.isfinite(rows.numbers[role]), f"{role} must be a finite number")
