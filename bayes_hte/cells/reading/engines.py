"""Open a table of any engine, a query or a file, and fetch the columns that are needed.

One code path serves every engine through narwhals. Files are DuckDB relations on a private
connection that lives as long as the `with` block. No engine is imported that is not in use.
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte._support.validation import describe_value
from bayes_hte.cells.reading.files.data_source import STANDARD_INPUT, DataSource
from bayes_hte.cells.reading.files.open_files import open_files
from bayes_hte.cells.reading.files.servers import open_server_table, resolve_connection
from bayes_hte.cells.reading.level_order import sort_naturally
from bayes_hte.cells.reading.text_numbers import DecimalMark, TextNumbers, check_decimal
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec.cell_table import MISSING_LEVEL, RESERVED_NAMES, SEGMENT

if TYPE_CHECKING:
    import duckdb
    import narwhals.stable.v2 as nw
    from narwhals.stable.v2.typing import IntoFrame

    type Table = IntoFrame | str | os.PathLike[str] | DataSource

ENGINE_PACKAGES = frozenset(
    {
        *("duckdb", "ibis", "narwhals", "polars", "psycopg", "py4j", "pyarrow", "pyspark", "python_calamine"),
        *("sqlglot", "sqlite3"),
    }
)
"""Packages whose exceptions mean that a table cannot be read."""


@dataclass(frozen=True, slots=True)
class Source:
    """An opened table of which no row has been read, and the name that messages call it by.

    Of text files also the texts behind the numbers, and notes on how these are written.
    """

    frame: "nw.LazyFrame[Any]"
    table_name: str
    text_numbers: TextNumbers | None = None
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self.frame.collect_schema().names()


@contextmanager
def open_table(
    data: "Table",
    label_columns: Sequence[str],
    number_columns: Sequence[str] = (),
    connection: Any = None,
    *,
    decimal: DecimalMark | None = None,
) -> Iterator[Source]:
    """Open `data`; in a text file `label_columns` are kept as they are written.

    Columns that are in the index of a pandas table, as `groupby` leaves them, are taken from there.

    Parameters
    ----------
    data
        A table, the path of a file or a pattern, or a `DataSource`; with `connection` a query in SQL.
    label_columns, number_columns
        Columns that will be read as text, and as numbers.
    connection
        Engine that carries out the query: a DuckDB connection, an Ibis backend or a Spark session.
    decimal
        Mark of decimals in a text file; without it a comma is taken for one where nothing else can be meant.

    Raises
    ------
    ArgumentError
        If `connection` takes no query, or `data` is none for it.
    DataError
        If `data` is no table, a file cannot be found or read, or an engine refuses, also when that shows only inside
        the `with` block.
    """
    decimal = check_decimal(decimal)
    source = _make_source(data) if connection is None else None
    table_name = f"query on {_name_type(connection)}" if source is None and connection is not None else name_table(data)
    source, url = (None, None) if source is None else resolve_connection(source)
    try:
        if source is not None and url is None:
            # Relations read from a private connection until the caller has fetched, hence the context manager.
            with open_files(source, label_columns, number_columns, table_name=table_name, decimal=decimal) as opened:
                frame = _open_lazy_frame(opened.relation, table_name)
                yield Source(frame, table_name, opened.text_numbers, opened.notes)
        elif source is not None and url is not None:
            with open_server_table(source, url) as server_table:
                yield Source(_cast_booleans(_open_lazy_frame(server_table, table_name), number_columns), table_name)
        else:
            native_table: Any = (
                restore_index_columns(data, [*label_columns, *number_columns])
                if connection is None
                else _build_query_table(data, connection)
            )
            yield Source(_cast_booleans(_open_lazy_frame(native_table, table_name), number_columns), table_name)
    except Exception as error:
        if not _is_engine_error(error):  # a mistake in our code must not pass for one in the data
            raise
        if "not utf-8 encoded" in str(error):
            raise DataError(
                f"{table_name} is not text in UTF-8; save it as UTF-8 (in a spreadsheet: CSV UTF-8), or say its "
                'encoding, as in encoding="latin-1"'
            ) from error
        raise DataError(
            f"cannot read {table_name}: {_shorten_engine_error(error, table_name)}; repair or convert it and try again"
        ) from error


def _make_source(data: "Table") -> DataSource | None:
    """Make a source of a path; None for tables, which are no files."""
    if isinstance(data, DataSource):
        return data
    return DataSource(data) if isinstance(data, str | os.PathLike) else None


def _shorten_engine_error(error: Exception, table_name: str) -> str:
    """Shorten an error to its first line, or to the reason and line of a text file; the whole stays the cause."""
    first_line, *more_lines = (str(error).strip() or type(error).__name__).splitlines()
    line_match = re.search(r"CSV Error on Line: (\d+)", first_line)
    reason_lines = [
        line for line in more_lines if re.match(r"(Error when|Expected|Value with|Maximum|Could not)", line)
    ]
    if line_match is None or not reason_lines:
        return first_line
    file_match = re.search(r"^\s*file = (.+)$", "\n".join(more_lines), re.MULTILINE)
    file_phrase = (
        f" of {Path(file_match[1]).name}" if file_match and not table_name.endswith(Path(file_match[1]).name) else ""
    )
    return f"line {line_match[1]}{file_phrase}: {reason_lines[0].strip().rstrip('.')}"


def _is_engine_error(error: Exception) -> bool:
    """Tell whether an exception was raised by an engine, or by a package that an engine uses."""
    root_packages = {base_class.__module__.split(".")[0].lstrip("_") for base_class in type(error).__mro__}
    return not root_packages.isdisjoint(ENGINE_PACKAGES)


def _build_query_table(query: Any, connection: Any) -> "IntoFrame":
    """Build the table of a query's answer, without carrying the query out."""
    if not isinstance(query, str):
        raise ArgumentError(
            f"connection carries out a query in SQL, but data is a {name_table(query)}; give the query as text, or "
            "leave connection out"
        )
    if not callable(getattr(connection, "sql", None)):
        raise ArgumentError(
            f"connection is a {_name_type(connection)}, which takes no query here; give a DuckDB connection, an Ibis "
            "backend such as ibis.postgres.connect(...), or a Spark session"
        )
    query_table: IntoFrame = connection.sql(query)
    return query_table


def name_table(data: "Table") -> str:
    """Name a table in messages and in the report, by its file or its type."""
    if isinstance(data, DataSource):
        return data.describe()
    if isinstance(data, str | os.PathLike):
        return "standard input" if str(data) == STANDARD_INPUT else f"file {Path(data).name}"
    return _name_type(data)


def _name_type(value: Any) -> str:
    # Compiled modules begin with an underscore that users never see, as in _duckdb.
    return f"{type(value).__module__.split('.')[0].lstrip('_')}.{type(value).__name__}"


def _open_lazy_frame(data: "IntoFrame", table_name: str) -> "nw.LazyFrame[Any]":
    from narwhals.exceptions import DuplicateError

    try:
        frame = to_lazy_frame(data)
        # Narwhals checks that names differ, but not of Spark and Dask tables.
        may_repeat_names = frame.implementation.is_spark_like() or frame.implementation.is_dask()
        names = list(frame.to_native().columns) if may_repeat_names else []
        if len(set(names)) < len(names):
            raise DuplicateError(quote_names([name for name, count in Counter(names).items() if count > 1]))
        return frame
    except DuplicateError as error:
        raise DataError(
            f"column names repeat in the {table_name}; rename them: {' '.join(str(error).split())}"
        ) from error
    except TypeError as error:
        raise DataError(f"data of type {table_name} is no table; {_suggest_table(table_name)}") from error


def _suggest_table(type_name: str) -> str:
    if type_name == "pandas.Series":
        return "make one of it: .reset_index(name=…) keeps the keys of groupby as columns"
    return (
        "give a pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, or the path of a text file, "
        "Parquet file, database or workbook"
    )


def restore_index_columns(table: Any, needed_columns: Sequence[str]) -> Any:
    """Make columns of the named levels of a pandas index that are needed; of all, where no column is named yet."""
    index_names = getattr(getattr(table, "index", None), "names", None)
    if index_names is None or not hasattr(table, "reset_index") or not hasattr(table, "columns"):
        return table
    if getattr(table.columns, "nlevels", 1) > 1:
        raise DataError(
            "the columns of the table have several levels, as agg leaves them; name each result, as in "
            '.agg(n=("y", "count"), mean=("y", "mean"))'
        )
    # An index that nobody asks for stays where it is: moving it would copy the table.
    is_needed = set(needed_columns).__contains__ if needed_columns else lambda name: True
    restored = [name for name in index_names if name is not None and name not in table.columns and is_needed(name)]
    return table.reset_index(level=restored) if restored else table


def _cast_booleans(frame: "nw.LazyFrame[Any]", number_columns: Sequence[str]) -> "nw.LazyFrame[Any]":
    """Cast booleans among `number_columns` to 0 and 1, in an Ibis table.

    PostgreSQL casts booleans to integers only, and columns of numbers are cast to float64 later.
    """
    if not frame.implementation.is_ibis():
        return frame
    native_table = frame.to_native()
    integer_casts = {
        name: "int32" for name, dtype in native_table.schema().items() if dtype.is_boolean() and name in number_columns
    }
    return to_lazy_frame(native_table.cast(integer_casts)) if integer_casts else frame


def cast_to_float64(frame: "nw.LazyFrame[Any]", column_names: Sequence[str]) -> "nw.LazyFrame[Any]":
    """Cast columns of an Ibis table to float64, also those that Ibis takes for float64 already.

    A literal 1.0 is float64 to Ibis, which leaves out a cast of it, and a decimal to PostgreSQL.
    """
    import ibis.expr.datatypes as kinds
    from ibis.expr.operations import Cast

    native_table = frame.to_native()
    return to_lazy_frame(
        native_table.mutate(**{column: Cast(native_table[column], kinds.float64).to_expr() for column in column_names})
    )


def fetch_rows(frame: "nw.LazyFrame[Any]", table_name: str) -> list[tuple[Any, ...]]:
    """Carry out a query and return its rows as Python values; raise DataError if there is none."""
    rows = fetch_rows_or_none(frame)
    if not rows:
        raise make_no_rows_error(table_name)
    return rows


def fetch_rows_or_none(frame: "nw.LazyFrame[Any]") -> list[tuple[Any, ...]]:
    """Carry out a query that may well have no rows."""
    if frame.implementation.is_duckdb():
        return _fetch_from_duckdb(frame.to_native())
    if frame.implementation.is_ibis():
        return _fetch_from_ibis(frame)
    return list(frame.collect().rows())


def _fetch_from_duckdb(table: "duckdb.DuckDBPyRelation") -> list[tuple[Any, ...]]:
    """Fetch rows without pyarrow or pandas, so that dates and decimals stay as they are; points in time are in UTC."""
    # DuckDB hands out points in time through pytz, which nothing else here needs: fetch microseconds instead.
    zoned_columns = [i for i, column_type in enumerate(table.types) if str(column_type) == "TIMESTAMP WITH TIME ZONE"]
    if not zoned_columns:
        return table.fetchall()
    quoted_names = [f'"{column_name.replace(chr(34), chr(34) * 2)}"' for column_name in table.columns]
    projected_columns = [
        f"epoch_us({quoted_name})" if i in zoned_columns else quoted_name for i, quoted_name in enumerate(quoted_names)
    ]
    unix_epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return [
        tuple(
            unix_epoch + timedelta(microseconds=value) if i in zoned_columns and value is not None else value
            for i, value in enumerate(row)
        )
        for row in table.project(", ".join(projected_columns)).fetchall()
    ]


def _fetch_from_ibis(frame: "nw.LazyFrame[Any]") -> list[tuple[Any, ...]]:
    """Fetch rows of an Ibis table; from PostgreSQL through its own client.

    Ibis asks PostgreSQL through a cursor on the server, for which PostgreSQL works on one core only, and refuses types
    that Arrow lacks, such as uuid. Queries with tables or functions that Ibis first has to bring to the server are left
    to Ibis.
    """
    from ibis.expr.operations import AggUDF, InMemoryTable, ScalarUDF

    native_table = frame.to_native()
    backend = native_table.get_backend()
    if backend.name != "postgres" or native_table.op().find((AggUDF, InMemoryTable, ScalarUDF)):
        return list(frame.collect().rows())
    with backend.con.transaction(), backend.con.cursor() as cursor:
        rows: list[tuple[Any, ...]] = cursor.execute(backend.compile(native_table), prepare=False).fetchall()
        return rows


def make_no_rows_error(table_name: str) -> DataError:
    """Make the error of a table without rows."""
    return DataError(f"{table_name} has no rows; check it, or the filter that made it")


def pick_columns(source: Source, column_names: Sequence[str]) -> "nw.LazyFrame[Any]":
    """Keep `column_names` only, renamed to c0, c1, …, so that no name can mean anything to an engine.

    Raises
    ------
    DataError
        If a column is not there; the message hints at near names.
    """
    known_names = source.frame.collect_schema().names()
    missing_names = [column for column in column_names if column not in known_names]
    if missing_names:
        # The reader of text files adds a column of its own, which nobody can mean.
        own_column = None if source.text_numbers is None else source.text_numbers.flag_column
        known_names = [name for name in known_names if name != own_column]
        known_texts = [str(name) for name in known_names]  # pandas has columns that are no text
        near_names = [
            name for column in missing_names for name in difflib.get_close_matches(str(column), known_texts, n=1)
        ]
        hint = f"; did you mean {quote_names(near_names)}?" if near_names else ""
        lacking_phrase = (
            f"the column {missing_names[0]!r}"
            if len(missing_names) == 1
            else f"the columns {quote_names(missing_names)}"
        )
        raise DataError(
            f"{source.table_name} lacks {lacking_phrase}{hint}; columns are {quote_names(known_names)}",
            missing_columns=list(map(str, missing_names)),
        )
    implementation = source.frame.implementation
    if implementation.is_duckdb():
        return to_lazy_frame(_pick_in_duckdb(source.frame.to_native(), column_names))
    if implementation.is_spark_like():
        return to_lazy_frame(pick_in_spark(source.frame.to_native(), column_names))
    if implementation.is_ibis():
        native_table = source.frame.to_native()
        return to_lazy_frame(
            native_table.select(**{f"c{i}": native_table[column] for i, column in enumerate(column_names)})
        )
    import narwhals.stable.v2 as nw

    # Two steps, through names that no column has: columns may be called c0, c1, … themselves.
    interim_prefix = "c"
    while any(f"{interim_prefix}{i}" in known_names for i in range(len(column_names))):
        interim_prefix += "c"
    interim_names = {
        column: f"{interim_prefix}{i}" for i, column in enumerate(column_names)
    }  # one column may be picked twice
    renamed_frame = source.frame.rename(interim_names)
    return renamed_frame.select(
        *(nw.col(interim_names[column]).alias(f"c{i}") for i, column in enumerate(column_names))
    )


def to_lazy_frame(table: "IntoFrame") -> "nw.LazyFrame[Any]":
    """Wrap a table of any engine, so that all are asked in the same words."""
    import narwhals.stable.v2 as nw

    frame: nw.LazyFrame[Any] = nw.from_native(table).lazy()
    return frame


def _pick_in_duckdb(table: "duckdb.DuckDBPyRelation", column_names: Sequence[str]) -> "duckdb.DuckDBPyRelation":
    """Pick columns in SQL: elsewhere DuckDB takes a column called * for all columns."""
    escaped_names = (column_name.replace('"', '""') for column_name in column_names)
    return table.project(", ".join(f'"{column_name}" as c{i}' for i, column_name in enumerate(escaped_names)))


def pick_in_spark(table: Any, column_names: Sequence[str]) -> Any:
    """Pick columns by position: to Spark, names have no case, and a dot in a name means a part of a column."""
    numbered_table = table.toDF(*(f"x{i}" for i in range(len(table.columns))))
    chosen_columns = numbered_table.select(*(f"x{table.columns.index(column_name)}" for column_name in column_names))
    return chosen_columns.toDF(*(f"c{i}" for i in range(len(column_names))))


def check_dimensions(
    segments: Sequence[str], columns_by_role: Mapping[str, str | None], reserved_names: Collection[str] = ()
) -> list[str]:
    """Check that columns can be dimensions and no column is used twice; return the dimensions as a list.

    Parameters
    ----------
    segments
        Columns that divide the units.
    columns_by_role
        Every other column, by what it is used for; None where a role has no column.
    reserved_names
        Names that this kind of cell table uses itself, besides `RESERVED_NAMES`.

    Raises
    ------
    ArgumentError
        If there is no dimension, or one column is used twice.
    DataError
        If a name is reserved.
    """
    if not isinstance(segments, Iterable):
        raise ArgumentError(f"segments is {describe_value(segments)}; give a list of columns, such as ['device']")
    dims = [segments] if isinstance(segments, str) else list(segments)  # one column needs no list
    # A single dimension may be called segment, as its levels are the labels of the segments.
    if not dims:
        raise ArgumentError("segments is empty; name at least one column that divides the units, such as ['device']")
    for name in dims:
        if not isinstance(name, str) or not name or "/" in name:
            raise DataError(f"{name!r} cannot name a dimension; rename the column to text without '/'")
        if name in RESERVED_NAMES or name in reserved_names or (name == SEGMENT and len(dims) > 1):
            raise DataError(
                f"the result uses the name {name!r} itself, so a dimension cannot have it; rename the column"
            )
    # A column in two roles is most often a mistaken name.
    uses = [("segments", name) for name in dims] + [
        (role, name) for role, name in columns_by_role.items() if name is not None
    ]
    role_of_column: dict[str, str] = {}
    for role, name in uses:
        if not isinstance(name, str):
            raise ArgumentError(f"{role} must be the name of one column, not {name!r}")
        if name in role_of_column:
            raise ArgumentError(
                f"the column {name!r} is used twice, for {role_of_column[name]} and for {role}; name two columns"
            )
        role_of_column[name] = role
    return dims


def check_arms(arm_labels: Iterable[str], control: str, arm_column: str) -> None:
    """Raise DataError unless the control and at least one other arm are among `arm_labels`."""
    distinct_arms = sort_naturally(arm_labels)
    if control not in distinct_arms:
        near_arms = difflib.get_close_matches(control, distinct_arms, n=1)
        hint = f"did you mean {near_arms[0]!r}?" if near_arms else "name one of them as the control"
        raise DataError(
            f"no unit is in the control arm {control!r}; arms in {arm_column!r} are {quote_names(distinct_arms)}; "
            f"{hint}"
        )
    if len(distinct_arms) == 1:
        raise DataError(
            f"all units are in one arm, {control!r}; an effect needs a second arm in {arm_column!r}: "
            "check the column, and that no filter removed the treated units"
        )


def describe_missing_levels(
    levels_by_dim: Iterable[Iterable[str | None]], level_counts: Iterable[int], dims: Sequence[str], counted_noun: str
) -> list[str]:
    """Describe missing levels (None) in one sentence per dimension; `level_counts` says how often each level occurs."""
    sentences = []
    for dim, dim_levels in zip(dims, levels_by_dim, strict=True):
        missing_count = sum(int(count) for level, count in zip(dim_levels, level_counts, strict=True) if level is None)
        if missing_count:
            have_verb, form_phrase = ("has", "it forms") if missing_count == 1 else ("have", "they form")
            unit_phrase = write_count(missing_count, counted_noun, counted_noun + "s")
            sentences.append(f"{unit_phrase} {have_verb} no value for {dim}; {form_phrase} the level {MISSING_LEVEL}")
    return sentences
