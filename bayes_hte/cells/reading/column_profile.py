"""Profile the columns of a file, inside DuckDB: what each holds, and how its levels spread over the arms.

Three queries, whatever the number of rows: one for all columns, one for the levels of those that have few, one for
these by arm. Values are looked at as they are written: a CSV and a Parquet file of the same rows have one profile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bayes_hte.cells.reading.engines import make_no_rows_error, open_table
from bayes_hte.cells.reading.files.data_source import DataSource
from bayes_hte.cells.reading.labels import format_label
from bayes_hte.cells.reading.text_numbers import GROUPED_NUMBER, MISSING_WORDS
from bayes_hte.errors import ArgumentError

if TYPE_CHECKING:
    import duckdb

MAX_LEVELS = 60
"""Columns with more levels than this are no dimensions that anybody reads: their levels are not listed."""

type LevelCounts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column, as its values are written.

    Attributes
    ----------
    name : str
    n_present : int
        Rows with a value. Among numbers, dates and booleans a word such as NA says that one is missing; among words
        it is a level like others.
    n_distinct : int
        Distinct values: exact of names of units, else to a few percent.
    n_numbers, n_comma_numbers, n_booleans, n_dates : int
        Values that are numbers, numbers with or without a decimal comma, true or false, dates in ISO form. No comma is
        taken for a decimal one where all may separate thousands.
    minimum, maximum : float or None
        Of the numbers.
    is_whole : bool
        All numbers are whole.
    levels : mapping of str to int
        Rows of each level; empty where there are too many.
    levels_by_arm : mapping of str to mapping
        By arm, the rows of each level.
    """

    name: str
    n_present: int = 0
    n_distinct: int = 0
    n_numbers: int = 0
    n_comma_numbers: int = 0
    n_booleans: int = 0
    n_dates: int = 0
    minimum: float | None = None
    maximum: float | None = None
    is_whole: bool = False
    levels: LevelCounts = field(default_factory=lambda: MappingProxyType({}))
    levels_by_arm: Mapping[str, LevelCounts] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def has_decimal_commas(self) -> bool:
        """Whether its numbers are numbers with decimal commas only."""
        return 0 < self.n_present == self.n_comma_numbers > self.n_numbers

    @property
    def is_number(self) -> bool:
        """Whether every value is a number."""
        return self.n_present > 0 and (self.n_numbers == self.n_present or self.has_decimal_commas)

    @property
    def is_boolean(self) -> bool:
        """Whether every value is true or false."""
        return 0 < self.n_present == self.n_booleans

    @property
    def is_date(self) -> bool:
        """Whether every value is a date or a point in time."""
        return 0 < self.n_present == self.n_dates

    @property
    def is_binary(self) -> bool:
        """Whether there are two values, 0 and 1 or true and false."""
        is_zero_one = self.is_number and self.is_whole and (self.minimum, self.maximum) == (0.0, 1.0)
        return is_zero_one or (self.is_boolean and len(self.levels) == 2)


@dataclass(frozen=True, slots=True)
class TableProfile:
    """All columns of a table, in their order, and the number of its rows."""

    table_name: str
    n_rows: int
    columns: tuple[ColumnProfile, ...]

    def get_column(self, name: str) -> ColumnProfile:
        """Get a column by its name."""
        return next(column for column in self.columns if column.name == name)


def profile_table(
    source: DataSource, choose_keys: Callable[[TableProfile], tuple[str | None, Sequence[str]]]
) -> TableProfile:
    """Profile a file.

    Parameters
    ----------
    source
        A file; not a server.
    choose_keys
        Chooses, once levels are known, the column of arms, if there is one, and those whose distinct values are to be
        counted exactly.

    Raises
    ------
    ArgumentError
        If the source is a server.
    DataError
        If the file cannot be read, or has no rows.
    """
    if source.path is None:
        raise ArgumentError("a plan is proposed from a file; give its path")
    with open_table(source, label_columns=()) as opened:
        names = [name for name in opened.columns if name]
    # As labels, values of a text file stay as they are written.
    with open_table(source, label_columns=names) as opened:
        table: duckdb.DuckDBPyRelation = opened.frame.to_native()
        profile = TableProfile(opened.table_name, 0, _profile_columns(table, names, opened.table_name))
        (n_rows,) = table.aggregate("count(*)").fetchall()[0]
        profile = _add_levels(table, replace(profile, n_rows=int(n_rows)))
        arm, key_columns = choose_keys(profile)
        return _add_counts(table, profile, arm, key_columns)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _write_text_sql(name: str) -> str:
    """Write the SQL of a value as text, null where there is nothing."""
    return f"nullif(trim(cast({_quote(name)} as varchar)), '')"


def _profile_columns(
    table: "duckdb.DuckDBPyRelation", names: Sequence[str], table_name: str
) -> tuple[ColumnProfile, ...]:
    words = ", ".join(f"'{word}'" for word in MISSING_WORDS)
    texts = table.project(
        ", ".join(
            f"{_write_text_sql(name)} as t{i}, if(lower(t{i}) in ({words}), null, t{i}) as c{i}"
            for i, name in enumerate(names)
        )
    )
    # try_cast gives null for what is no number: no row can make the query fail.
    aggregates: list[str] = ["count(*)"]
    for i in range(len(names)):
        text, number = f"c{i}", f"try_cast(replace(c{i}, ',', '.') as double)"
        aggregates += [
            f"count(t{i})",
            f"count({text})",
            f"approx_count_distinct({text})",
            f"count(*) filter (isfinite(try_cast({text} as double)))",
            # Commas that may all separate thousands, as in 1,234, are no decimal ones: nothing is guessed then.
            rf"if(bool_or(contains({text}, ',') and not regexp_full_match({text}, '{GROUPED_NUMBER}')), "
            rf"count(*) filter (regexp_full_match({text}, '[-+]?\d+(,\d+)?')), 0)",
            f"count(*) filter (lower({text}) in ('true', 'false', 'yes', 'no'))",
            rf"count(*) filter ({text} ~ '\d{{4}}-\d\d-\d\d.*' and try_cast({text} as timestamp) is not null)",
            f"min({number}) filter (isfinite({number}))",
            f"max({number}) filter (isfinite({number}))",
            f"coalesce(bool_and({number} = floor({number})), false)",
        ]
    (row,) = texts.aggregate(", ".join(aggregates)).fetchall()
    if not row[0]:
        raise make_no_rows_error(table_name)
    return tuple(_build_profile(name, *row[1 + 10 * i : 11 + 10 * i]) for i, name in enumerate(names))


def _build_profile(name: str, n_filled: int, n_present: int, *counts: Any) -> ColumnProfile:
    """Build the profile of a column, and decide whether words such as none are levels, or numbers that are missing."""
    column = ColumnProfile(name, n_present, *counts)
    is_text = not (column.is_number or column.is_boolean or column.is_date)
    return replace(column, n_present=n_filled) if is_text else column


def _add_levels(table: "duckdb.DuckDBPyRelation", profile: TableProfile) -> TableProfile:
    """Add the levels of columns that have few."""
    # The number of distinct values is estimated: those near the limit are counted to be sure.
    few = [column.name for column in profile.columns if 0 < column.n_distinct <= 2 * MAX_LEVELS]
    if not few:
        return profile
    (row,) = table.aggregate(", ".join(f"histogram({_write_text_sql(name)})" for name in few)).fetchall()
    # A word such as NA is a level of a column of words, and nothing in a column of numbers.
    levels_of = {name: _name_levels(levels) for name, levels in zip(few, row, strict=True)}
    for column in profile.columns:
        if column.name in levels_of and column.n_present < sum(levels_of[column.name].values()):
            own_levels = levels_of[column.name].items()
            levels_of[column.name] = {level: n for level, n in own_levels if level.casefold() not in MISSING_WORDS}
    columns = [
        replace(column, levels=levels, n_distinct=len(levels))
        if len(levels := levels_of.get(column.name, {})) in range(1, MAX_LEVELS + 1)
        else column
        for column in profile.columns
    ]
    return replace(profile, columns=tuple(columns))


def _name_levels(levels: Mapping[str, int] | None) -> dict[str, int]:
    """Name levels as cells do: 1.0 of a column of numbers is 1."""
    named: dict[str, int] = {}
    for text, count in (levels or {}).items():
        label = text.removesuffix(".0") if text.replace(".", "", 1).lstrip("-").isdecimal() else text
        name = format_label(label) or ""
        named[name] = named.get(name, 0) + int(count)
    return named


def _add_counts(
    table: "duckdb.DuckDBPyRelation", profile: TableProfile, arm: str | None, key_columns: Sequence[str]
) -> TableProfile:
    """Add levels by arm, and exact numbers of distinct values."""
    few = [column.name for column in profile.columns if column.levels and column.name != arm]
    levels_by_arm: dict[str, dict[str, LevelCounts]] = {name: {} for name in few}
    if arm is not None and few:
        aggregates = ", ".join(f"histogram({_write_text_sql(name)})" for name in few)
        for arm_label, *histograms in table.aggregate(f"{_write_text_sql(arm)} as a, {aggregates}", "a").fetchall():
            for name, levels in zip(few, histograms, strict=True):
                if arm_label is not None:
                    levels_by_arm[name][str(arm_label)] = _name_levels(levels)
    # Exact counts hold every value in memory: for names of units only, where one more or less decides.
    exact: dict[str, Any] = {}
    if key_columns:
        (row,) = table.aggregate(
            ", ".join(f"count(distinct {_write_text_sql(name)})" for name in key_columns)
        ).fetchall()
        exact = dict(zip(key_columns, row, strict=True))
    columns = [
        replace(
            column,
            levels_by_arm=levels_by_arm.get(column.name, {}),
            n_distinct=int(exact.get(column.name, column.n_distinct)),
        )
        for column in profile.columns
    ]
    return replace(profile, columns=tuple(columns))
