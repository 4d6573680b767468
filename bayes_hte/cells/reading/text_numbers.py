"""Numbers in text files: which texts are numbers, which say that a number is missing, and which are neither.

Every column that is needed is read as text, whose meaning no later row can change: DuckDB guesses types from the first
20,480 rows, and a word after these would make the whole file unreadable. Numbers are cast in the same query that reads
them, and words are looked up only where that query met one.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bayes_hte._support.phrases import write_count
from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import duckdb

type DecimalMark = Literal[".", ","]
type NumberKind = Literal["point", "comma", "boolean"]
"""How the numbers of a column are written: with a decimal point, with a decimal comma, or as yes and no."""

MISSING_WORDS = ("na", "n/a", "#n/a", "<na>", "nan", "null", "none", ".")
"""Texts that say that a number is missing, whatever their case, besides an empty field.

R writes NA, pandas NaN and <NA>, Python None, databases NULL, spreadsheets #N/A, SAS and Stata a dot. A dash, "<5" or
"#DIV/0!" are no such words: they stand for a number that is known, was withheld or could not be computed, and leaving
out its row would change what is compared.
"""
NUMBER_TYPES = frozenset({"BIGINT", "DOUBLE", "FLOAT", "HUGEINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT"})
"""What DuckDB guesses of a column whose first rows are numbers."""
FILE_COLUMN = "file_of_row"
"""Column with the path of the file that a row is of, where a word is looked for."""
MAX_SHOWN_WORDS = 4
"""Words that a message quotes: more would hide what it says."""
_COMMA_NUMBER = r"[-+]?(\d+(,\d*)?|,\d+)([eE][-+]?\d+)?"
GROUPED_NUMBER = r"[-+]?[1-9]\d{0,2}(,\d{3})+"
_BOOLEAN_WORDS = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}


@dataclass(frozen=True, slots=True)
class FoundWord:
    """A text among numbers: how often it is there, and the first row that has it, counted from 1, if known."""

    word: str
    count: int
    first_row: int | None = None
    file_name: str = ""

    def __str__(self) -> str:
        """Write the word in quotes, and where it is."""
        places = [f"{self.count:,} times"] * (self.count > 1)
        if self.first_row is not None:
            places.append(
                f"{'first ' * (self.count > 1)}in row {self.first_row:,}{self.file_name and f' of {self.file_name}'}"
            )
        return f"{self.word[:60]!r}" + (f" ({', '.join(places)})" if places else "")


@dataclass(frozen=True, slots=True)
class TextNumbers:
    """Numbers of text files: the columns as text, and how each is written.

    Attributes
    ----------
    table
        All columns that are needed, as text.
    kinds
        How the numbers of each column are written.
    flag_column
        Column of the table of numbers that is 1 where a row has a word in place of a number, else null.
    read_with_files
        Reads the columns as text anew, with the path of its file in `FILE_COLUMN`.
    """

    table: "duckdb.DuckDBPyRelation"
    kinds: Mapping[str, NumberKind]
    flag_column: str
    read_with_files: "Callable[[], duckdb.DuckDBPyRelation]"

    def cast_numbers(self) -> "duckdb.DuckDBPyRelation":
        """Cast columns of numbers to float64, null where one is missing or a word, and flag rows with a word."""
        columns = [
            f"{_write_number_sql(column, self.kinds[column])} as {_quote(column)}"
            if column in self.kinds
            else _quote(column)
            for column in self.table.columns
        ]
        # One flag for all columns: the query that reads the numbers counts it along, at no further pass over the file.
        any_word = " or ".join(_write_word_sql(column, kind) for column, kind in self.kinds.items())
        return self.table.project(", ".join([*columns, f"case when {any_word} then 1.0 end as {self.flag_column}"]))

    def refuse_words(self, columns: Iterable[str], table_name: str) -> None:
        """Raise DataError for the first column that holds words in place of numbers; missing ones are none."""
        for column in columns:
            found_words, total = self._find_words(column, _write_word_sql(column, self.kinds[column]))
            if found_words:
                value_count = int(self.table.aggregate(f"count({_quote(column)})").fetchall()[0][0])
                raise make_word_error(f"the column {column!r} of {table_name}", found_words, total, value_count)

    def list_missing_words(self, column: str) -> list[str]:
        """List the words, as they are written, that say that a number of a column is missing."""
        return [found.word for found in self._find_words(column, _write_missing_sql(column))[0]]

    def _find_words(self, column: str, condition: str) -> tuple[list[FoundWord], int]:
        """Find the first words that meet a condition, with their files and rows, and count all such values."""
        places = self.read_with_files().project(
            f"row_number() over () as place, {FILE_COLUMN} as file, trim({_quote(column)}) as word, {condition} as hit"
        )
        words = places.filter("hit").aggregate(
            "word, count(*) as n, min(place) as p, arg_min(file, place) as f", "word"
        )
        word_rows = words.order("p").fetchall()
        # Rows are numbered within their file, in which they follow each other.
        first_places = dict(places.aggregate("file, min(place)", "file").fetchall()) if word_rows else {}
        found = [
            FoundWord(word, n, place - first_places[file] + 1, Path(file).name if len(first_places) > 1 else "")
            for word, n, place, file in word_rows[:MAX_SHOWN_WORDS]
        ]
        return found, sum(n for _, n, *_ in word_rows)


NUMBERS_NEEDED = re.compile(r"\b(?:must hold|needs) numbers\b")
"""How messages begin that refuse words in a column of numbers; where these may be answers, a way out is added."""


def make_word_error(subject: str, found_words: Sequence[FoundWord], word_count: int, value_count: int) -> DataError:
    """Make the error of a column of numbers that holds words: which, where, and the way out."""
    shown = ", ".join(map(str, found_words[:MAX_SHOWN_WORDS]))
    more = ", …" if len(found_words) > MAX_SHOWN_WORDS or sum(each.count for each in found_words) < word_count else ""
    verb = "is none" if word_count == 1 else "are none"
    return DataError(
        f"{subject} must hold numbers, but {word_count:,} of {write_count(value_count, 'value', 'values')} {verb}: "
        f"{shown}{more}; "
        f"{_suggest_remedy([each.word for each in found_words], subject, holds_words_only=word_count == value_count)}"
    )


def _suggest_remedy(words: Sequence[str], subject: str, *, holds_words_only: bool) -> str:
    """Suggest what to do about words in place of numbers, from how they look."""
    if holds_words_only and not any(re.search(r"\d", word) for word in words):
        return "it holds text: name another column"
    for is_such, remedy in _REMEDIES:
        if any(is_such(word) for word in words):
            return remedy
    # A header that files were put together with has the name of the column in the column.
    is_header = any(repr(word) in subject for word in words)
    return (
        "the header is repeated there: delete that line"
        if is_header
        else "correct them, or leave the field empty where a number is missing"
    )


_REMEDIES: tuple[tuple[Callable[[str], object], str], ...] = (
    (
        lambda word: "," in word and re.fullmatch(_COMMA_NUMBER, word),
        'if the comma is a decimal comma, say decimal=","; if it separates thousands, remove it',
    ),
    (
        re.compile(r"\d{1,3}([.,' \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]\d{3})+([.,]\d+)?").fullmatch,
        "remove what separates thousands",
    ),
    (
        re.compile(r"[<>\N{LESS-THAN OR EQUAL TO}]").match,
        "a number that was withheld is not 0: get it, or leave its row out",
    ),
    (re.compile(r".*%").fullmatch, "write a percentage as a number, such as 0.12 for 12 %"),
)
"""How words look that stand in place of numbers, and what to do about them."""


def parse_number(text: str, kind: NumberKind) -> float | None:
    """Parse a text as a number; NaN where it says that there is none, None where it is a word.

    Examples
    --------
    >>> parse_number("1,5", "comma"), parse_number("NA", "point"), parse_number("<5", "point")
    (1.5, nan, None)
    """
    text = text.strip()
    if not text or text.casefold() in MISSING_WORDS:
        return math.nan
    if kind == "boolean":
        return _BOOLEAN_WORDS.get(text.casefold(), {"1": 1.0, "0": 0.0}.get(text))
    if kind == "comma":
        if "." in text:
            return None
        text = text.replace(",", ".")
    try:
        return float(text) if text.isascii() else None
    except ValueError:
        return None


def find_text_words(values: Sequence[object]) -> list[FoundWord] | None:
    """Find the texts among values that are no numbers, with their counts and first rows; None if there is no text."""
    texts = {i: value for i, value in enumerate(values) if isinstance(value, str)}
    if not texts:
        return None
    # In the order of their first rows.
    rows_of_word: dict[str, list[int]] = {}
    for i, text in texts.items():
        number = parse_number(text, "point")
        if number is None or math.isnan(number):
            rows_of_word.setdefault(text, []).append(i + 1)
    return [FoundWord(word, len(rows), rows[0]) for word, rows in rows_of_word.items()]


def check_decimal(decimal: object) -> DecimalMark | None:
    """Check the decimal mark that a caller names.

    Raises
    ------
    ArgumentError
        If it is neither a point nor a comma.
    """
    if decimal in {None, ".", ","}:
        return decimal
    raise ArgumentError(f'decimal is {describe_value(decimal)}; give "," or ".", the mark between units and tenths')


@dataclass(frozen=True, slots=True)
class _ColumnCensus:
    """How many texts of a column are there, and how many of them can be read in each way."""

    n: int
    points: int
    commas: int  # also whole numbers
    with_comma: int
    grouped: int  # 1,234 may be either
    booleans: int


def choose_number_kinds(
    table: "duckdb.DuckDBPyRelation",
    guessed_types: Mapping[str, str],
    *,
    decimal: DecimalMark | None,
    find_separator: Callable[[], str],
    table_name: str,
) -> tuple[dict[str, NumberKind], list[str]]:
    """Choose how the numbers of each column are written, and note where that was found out.

    Decimal commas are taken for such without being named only where nothing else can be meant: fields are not separated
    by commas, no number has a point, and not every comma could separate thousands.

    Parameters
    ----------
    table
        The columns as text.
    guessed_types
        DuckDB's guess of the type of each column of numbers.
    decimal
        What the caller says.
    find_separator
        Finds what separates the fields of the file.
    table_name
        What messages call the file.

    Raises
    ------
    DataError
        If commas may separate thousands or be decimal.
    """
    kinds: dict[str, NumberKind] = {
        column: "boolean" if guess == "BOOLEAN" else "comma" if decimal == "," else "point"
        for column, guess in guessed_types.items()
    }
    # Only what DuckDB takes for no number is looked at, in a query of its own.
    unclear_columns = [column for column, guess in guessed_types.items() if guess not in {*NUMBER_TYPES, "BOOLEAN"}]
    censuses = {column: _count_readings(table, column) for column in unclear_columns}
    kinds |= {name: "boolean" for name, census in censuses.items() if 0 < census.n == census.booleans}
    comma_columns = [name for name, census in censuses.items() if census.with_comma and census.commas == census.n]
    has_points = any(guess in {"DOUBLE", "FLOAT"} for guess in guessed_types.values())
    if decimal is not None or not comma_columns or has_points or find_separator() == ",":
        return kinds, []
    if all(censuses[name].grouped == censuses[name].with_comma for name in comma_columns):
        raise DataError(
            f"the numbers in the column {comma_columns[0]!r} of {table_name} have commas that may be decimal or "
            'separate thousands, as in 1,234; say decimal=",", or remove them'
        )
    kinds |= {column: "comma" for column in kinds if kinds[column] == "point"}
    return kinds, [f"the numbers of {table_name} are read with a decimal comma"]


def _count_readings(table: "duckdb.DuckDBPyRelation", column: str) -> _ColumnCensus:
    text, is_missing = f"trim({_quote(column)})", _write_missing_sql(column)
    conditions = [
        "true",
        f"try_cast({text} as double) is not null",
        f"regexp_full_match({text}, '{_COMMA_NUMBER}')",
        f"contains({text}, ',')",
        f"regexp_full_match({text}, '{GROUPED_NUMBER}')",
        f"{_write_number_sql(column, 'boolean')} is not null",
    ]
    counts = ", ".join(f"count(*) filter ({condition})" for condition in conditions)
    return _ColumnCensus(
        *table.filter(f"{_quote(column)} is not null and not {is_missing}").aggregate(counts).fetchall()[0]
    )


def _quote(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _write_number_sql(column: str, kind: NumberKind) -> str:
    """Write the SQL expression of a column's numbers, null for any other text."""
    text = f"trim({_quote(column)})"
    match kind:
        case "boolean":
            pairs = " ".join(
                f"when '{word}' then {number}" for word, number in (*_BOOLEAN_WORDS.items(), ("1", 1.0), ("0", 0.0))
            )
            return f"case lower({text}) {pairs} end"
        case "comma":
            return f"case when not contains({text}, '.') then try_cast(replace({text}, ',', '.') as double) end"
    return f"try_cast({text} as double)"


def _write_missing_sql(column: str) -> str:
    words = ", ".join(f"'{word}'" for word in MISSING_WORDS)
    return f"(coalesce(lower(trim({_quote(column)})), '') in ({words}))"


def _write_word_sql(column: str, kind: NumberKind) -> str:
    """Write the SQL condition of a text that is neither a number nor says that one is missing."""
    text = f"trim({_quote(column)})"
    return f"({text} <> '' and {_write_number_sql(column, kind)} is null and not {_write_missing_sql(column)})"
