"""Read a small table of summaries: the cell that each row describes, and the numbers of the row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte.cells.reading.answers import AnswerScale, find_scale
from bayes_hte.cells.reading.engines import (
    describe_missing_levels,
    fetch_rows,
    name_table,
    open_table,
    pick_columns,
    to_lazy_frame,
)
from bayes_hte.cells.reading.files import plain_csv
from bayes_hte.cells.reading.labels import (
    LEVEL_SEPARATOR,
    CellKey,
    describe_equal_numbers,
    format_label,
    format_labels,
    is_missing,
)
from bayes_hte.cells.reading.level_order import find_level_orders
from bayes_hte.cells.reading.similar_labels import fold_column
from bayes_hte.cells.reading.text_numbers import (
    MISSING_WORDS,
    DecimalMark,
    NumberKind,
    find_text_words,
    make_word_error,
    parse_number,
)
from bayes_hte.errors import DataError
from bayes_hte.spec.cell_table import ARM, MISSING_LEVEL

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table

type FloatValues = npt.NDArray[np.float64]
"""Numbers of the rows of a small table, or of the cells that they describe; NaN where missing."""

ONLY_ARM = "treated"
"""The arm of estimates whose table names no arm."""

MAX_EXACT_INTEGER = 2**53
"""The largest whole number up to which float64 holds every one."""


@dataclass(frozen=True, slots=True)
class SummaryRows:
    """The rows of a small table: the cell that each row describes, and its numbers (NaN where missing) by role.

    Functions that convert the numbers append to `notes` what a reader of the result must know. Missing words are those
    that stand for missing numbers of a role, as they are written; level orders are the data's own, of dimensions and
    arms; the answer scale is that of the values, stated or the data's own.
    """

    cell_keys: list[CellKey]
    numbers_by_role: dict[str, FloatValues]
    notes: list[str]
    source_text: str
    missing_words: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    level_orders: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    answer_scale: AnswerScale | None = None

    @property
    def arm_labels(self) -> list[str]:
        """The arm of each row."""
        return [arm for _, arm in self.cell_keys]

    def fail_at_not_finite(self, bad_rows: npt.NDArray[np.bool_], role: str) -> None:
        """Raise DataError if any of `bad_rows` is true, where a number that is needed is missing or infinite."""
        words = self.missing_words.get(role, ())
        spelling = f", and the column holds {quote_names(words)}" if words else ""
        self.fail_at(bad_rows, f"{role} must be a finite number{spelling}")

    def fail_at(self, bad_rows: npt.NDArray[np.bool_], message: str) -> None:
        """Raise DataError if any of `bad_rows` is true; the message names the cell of the first."""
        if bad_rows.any():
            bad_count = int(bad_rows.sum())
            others_phrase = f" and {write_count(bad_count - 1, 'other row', 'other rows')}" if bad_count > 1 else ""
            raise DataError(
                f"{message}; wrong in {describe_cell(self.cell_keys[int(bad_rows.argmax())])}{others_phrase}; correct "
                "the table"
            )


def read_summary_rows(
    table: "Table",
    *,
    dims: list[str],
    arm_column: str | None,
    columns_by_role: dict[str, str],
    fold_labels: bool = False,
    control: Any = None,
    decimal: DecimalMark | None = None,
    answer_role: str | None = None,
    stated_scale: AnswerScale | None = None,
) -> SummaryRows:
    """Read the rows of a table of summaries, and the cell that each describes.

    Parameters
    ----------
    table
        A table of any engine, or the path of a file.
    dims, arm_column
        Columns of labels; without `arm_column` all rows belong to one arm.
    columns_by_role
        Columns of numbers, by what the numbers mean, such as n or mean.
    fold_labels
        Whether labels that differ only in case, spaces or Unicode form are one.
    control
        The arm whose spelling then stays.
    decimal
        Mark of decimals in a text file.
    answer_role
        The role whose column may hold answers in words, which become numbers.
    stated_scale
        The order of these answers; without it that of the column itself.

    Raises
    ------
    DataError
        If a column is missing, there are no rows, an arm is missing, or numbers are text.
    """
    label_columns = [*dims] if arm_column is None else [*dims, arm_column]
    answer_column = None if answer_role is None else columns_by_role[answer_role]
    has_stated_words = stated_scale is not None and bool(stated_scale.words)
    # Words are read as labels are: a text file keeps them as they are written.
    word_columns = [answer_column] if has_stated_words and answer_column is not None else []
    number_columns = [column for column in columns_by_role.values() if column not in word_columns]
    fetched = _fetch_columns(table, [*label_columns, *word_columns], number_columns, decimal, answer_column)
    # Rows to columns: labels first, then numbers.
    column_values = list(zip(*fetched.rows, strict=True))
    label_texts = [format_labels(column) for column in column_values[: len(label_columns)]]
    fold_notes: list[str] = []
    if fold_labels:
        preferred = [None] * len(dims) + [format_label(control)]
        for index, column in enumerate(label_columns):
            label_texts[index], notes = fold_column(
                label_texts[index], [1] * len(fetched.rows), column, preferred[index]
            )
            fold_notes += notes
    arm_labels = (
        [ONLY_ARM] * len(fetched.rows) if arm_column is None else _check_arm_labels(label_texts.pop(), arm_column)
    )
    dim_levels = ([text or MISSING_LEVEL for text in column] for column in label_texts)
    values_by_column = dict(zip([*word_columns, *number_columns], column_values[len(label_columns) :], strict=True))
    raw_numbers = {role: values_by_column[column] for role, column in columns_by_role.items()}
    answer_scale = stated_scale or fetched.own_scale
    word_scales = {answer_role: answer_scale} if answer_scale is not None and answer_scale.words else {}
    kind_by_role = {role: fetched.kinds.get(column) for role, column in columns_by_role.items()}
    notes = [
        *fetched.notes,
        *fold_notes,
        *describe_missing_levels(label_texts, [1] * len(fetched.rows), dims, "row"),
        *(note for dim, texts in zip(dims, label_texts, strict=True) for note in describe_equal_numbers(texts, dim)),
    ]
    level_orders = dict(fetched.level_orders)
    if arm_column in level_orders:
        level_orders[ARM] = level_orders.pop(arm_column)
    return SummaryRows(
        list(zip(zip(*dim_levels, strict=True), arm_labels, strict=True)),
        {
            role: word_scales[role].convert_words(values, role)
            if role in word_scales
            else require_numbers(role, values, kind_by_role[role])
            for role, values in raw_numbers.items()
        },
        notes,
        f"{write_count(len(fetched.rows), 'row', 'rows')} of {name_table(table)}",
        {role: _list_missing_words(values) for role, values in raw_numbers.items() if kind_by_role[role] is not None},
        level_orders,
        answer_scale,
    )


@dataclass(frozen=True, slots=True)
class _FetchedRows:
    """Rows of the needed columns, labels first; of a text file numbers are text, and `kinds` says how it is written."""

    rows: Sequence[tuple[Any, ...]]
    kinds: Mapping[str, NumberKind] = field(default_factory=lambda: MappingProxyType({}))
    notes: Sequence[str] = ()
    level_orders: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    own_scale: AnswerScale | None = None  # of the column of answers, where it is one of ordered categories


def _fetch_columns(
    table: "Table",
    label_columns: list[str],
    number_columns: list[str],
    decimal: DecimalMark | None,
    answer_column: str | None,
) -> _FetchedRows:
    # Importing DuckDB takes longer than reading a small file by hand.
    plain_rows = plain_csv.read_plain_csv(table, label_columns, number_columns) if decimal != "," else None
    if plain_rows is not None:
        return _FetchedRows(plain_rows)
    with open_table(table, label_columns, number_columns, decimal=decimal) as source:
        level_orders = find_level_orders(source.frame, [name for name in label_columns if name in source.columns])
        if source.text_numbers is None:
            picked_frame = pick_columns(source, [*label_columns, *number_columns])
            own_scale = None if answer_column is None else find_scale(source.frame, answer_column, None)
            return _FetchedRows(
                fetch_rows(picked_frame, source.table_name), level_orders=level_orders, own_scale=own_scale
            )
        # Numbers as they are written: parsed below, so that a message can show the text of a cell.
        text_source = replace(source, frame=to_lazy_frame(source.text_numbers.table))
        picked_frame = pick_columns(text_source, [*label_columns, *number_columns])
        rows = fetch_rows(picked_frame, source.table_name)
        return _FetchedRows(rows, source.text_numbers.kinds, source.notes)


def _list_missing_words(texts: Sequence[str | None]) -> list[str]:
    """List the texts, but for empty ones, that say that a number is missing."""
    words = dict.fromkeys(text.strip() for text in texts if text is not None)
    return [word for word in words if word and word.casefold() in MISSING_WORDS]


def _check_arm_labels(arm_texts: list[str | None], arm_column: str) -> list[str]:
    # A missing level is a level of its own, but a missing arm belongs to no comparison.
    arm_labels = [arm_text for arm_text in arm_texts if arm_text is not None]
    if len(arm_labels) < len(arm_texts):
        missing_phrase = write_count(len(arm_texts) - len(arm_labels), "row has", "rows have")
        raise DataError(f"{missing_phrase} no arm in {arm_column!r}; fill it in or remove the rows")
    return arm_labels


def check_distinct[T](row_keys: Sequence[T], describe_key: Callable[[T], str]) -> None:
    """Raise DataError if two rows have the same key; `describe_key` names it in the message."""
    # Two rows of a cell may be parts of it or the same units twice: only the user knows whether they add up.
    first_row_of_key: dict[T, int] = {}
    for i, row_key in enumerate(row_keys):
        if row_key in first_row_of_key:
            raise DataError(
                f"{describe_key(row_key)} appears twice, in rows {first_row_of_key[row_key] + 1} and {i + 1}; add the "
                "rows up first, or name the column that tells them apart in segments"
            )
        first_row_of_key[row_key] = i


def describe_cell(cell_key: CellKey) -> str:
    """Describe a cell in messages, by segment and arm."""
    return f"segment {LEVEL_SEPARATOR.join(cell_key[0])!r}, arm {cell_key[1]!r}"


def require_numbers(role: str, raw_values: Sequence[Any], kind: NumberKind | None = None) -> FloatValues:
    """Convert values to float64, NaN where missing; raise DataError if there is text among them.

    Texts are numbers only in a text file, where `kind` says how numbers are written.
    """
    if kind is not None:
        numbers = [parse_number(text or "", kind) for text in raw_values]
        if None in numbers:
            words = [text if number is None else None for text, number in zip(raw_values, numbers, strict=True)]
            _refuse_words(role, words, sum(text is not None for text in raw_values))
        return np.array(numbers, dtype=np.float64)
    # In a table of numbers text is a mistaken column, even if all of it could be read as numbers.
    if find_text_words(raw_values) is not None:
        _refuse_words(role, raw_values, sum(not is_missing(value) for value in raw_values))
    try:
        return np.array([np.nan if is_missing(value) else float(value) for value in raw_values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{role} must be numbers, but holds something else: {error}; convert the column") from error


def _refuse_words(role: str, raw_values: Sequence[Any], value_count: int) -> NoReturn:
    """Raise DataError for texts in place of numbers; numbers that are written as text would hide a mistaken column."""
    words = find_text_words(raw_values) or []
    if not words:
        example = next(value for value in raw_values if isinstance(value, str))
        raise DataError(
            f"{role} must be numbers, but holds text, such as {example!r}; convert the column, as pandas.to_numeric "
            "does"
        )
    raise make_word_error(role, words, sum(word.count for word in words), value_count)


def require_whole_numbers(
    rows: SummaryRows, role: str, may_be_missing: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Convert numbers to int64, 0 where missing and optional; raise DataError unless all are whole, 0 or more."""
    # Engines store whole numbers as floats where a column has gaps, so that the values decide, not the dtype.
    role_numbers = rows.numbers_by_role[role]
    if may_be_missing is not None:
        role_numbers = np.where(may_be_missing & np.isnan(role_numbers), 0.0, role_numbers)
    rows.fail_at_not_finite(~np.isfinite(role_numbers), role)
    rows.fail_at(
        (role_numbers < 0) | (role_numbers != np.floor(role_numbers)), f"{role} must be a whole number, 0 or more"
    )
    rows.fail_at(
        role_numbers > MAX_EXACT_INTEGER,
        f"{role} must be at most 2^53 = {MAX_EXACT_INTEGER:,}, beyond which whole numbers are rounded",
    )
    return role_numbers.astype(np.int64)


def check_finite(rows: SummaryRows, role: str, needed_rows: npt.NDArray[np.bool_] | bool = True) -> None:
    """Raise DataError unless the numbers of `role` are finite in `needed_rows`."""
    rows.fail_at_not_finite(needed_rows & ~np.isfinite(rows.numbers_by_role[role]), role)
