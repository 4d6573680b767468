"""Open a table of any engine, a query or a file, and hand out the columns that are needed.

One code path serves every engine through narwhals. Files are DuckDB relations on a private
connection that lives as long as the `with` block: rows are never loaded, extensions never
installed, and nothing is fetched from a network. No engine is imported that is not in use.
"""

import difflib
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_hte.asked import described
from bayes_hte.cells.headers import check_headers
from bayes_hte.cells.labels import natural_order
from bayes_hte.errors import DataError
from bayes_hte.schema import MISSING_LEVEL, RESERVED, SEGMENT

if TYPE_CHECKING:
    import duckdb
    import narwhals.stable.v2 as nw
    from narwhals.stable.v2.typing import IntoFrame

    type Table = IntoFrame | str | os.PathLike[str]

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
ENGINES = frozenset({"duckdb", "ibis", "narwhals", "polars", "psycopg", "py4j", "pyarrow", "pyspark", "sqlglot"})
"""Packages whose exceptions mean that a table cannot be read."""
SHOWN = 20
"""How many names a message lists before it stops."""


@dataclass(frozen=True, slots=True)
class Source:
    """An opened table; no row has been read yet."""

    frame: "nw.LazyFrame[Any]"
    name: str


@contextmanager
def opened(
    data: "Table", labels: Sequence[str], numbers: Sequence[str] = (), connection: Any = None
) -> Iterator[Source]:
    """Open `data`; in a text file the columns `labels` are kept as they are written.

    Parameters
    ----------
    data
        A table, or the path of a file or a pattern; with `connection` a query in SQL.
    labels, numbers
        Columns that will be read as text, and as numbers.
    connection
        What carries out the query: a DuckDB connection, an Ibis backend or a Spark session.

    Raises
    ------
    DataError
        If `data` is no table, a file cannot be found or read, or an engine refuses, also when that shows only inside
        the `with` block.
    """
    is_file = connection is None and isinstance(data, str | os.PathLike)
    name = name_of(data) if connection is None else f"query on {_kind(connection)}"
    paths = _find(os.fspath(data)) if is_file else []  # type: ignore[arg-type]  # it is a path
    try:
        if is_file:
            with _connect() as private:
                yield Source(_lazy(_open_files(private, paths, labels, numbers), name), name)
        else:
            table: Any = data if connection is None else _queried(data, connection)
            yield Source(_as_numbers(_lazy(table, name), numbers), name)
    except Exception as error:
        if not _of_engine(error):
            raise
        if "not utf-8 encoded" in str(error):
            raise DataError(f"{name} is not text in UTF-8; save it as UTF-8 (in a spreadsheet: CSV UTF-8)") from error
        raise DataError(f"cannot read {name}: {_sentence(error, name)}; repair or convert it and try again") from error


def _sentence(error: Exception, name: str) -> str:
    """What an engine says in its first line, or of which line of a text file; the whole stays the cause."""
    first, *more = (str(error).strip() or type(error).__name__).splitlines()
    line = re.search(r"CSV Error on Line: (\d+)", first)
    reasons = [text for text in more if re.match(r"(Error when|Expected|Value with|Maximum|Could not)", text)]
    if line is None or not reasons:
        return first
    file = re.search(r"^\s*file = (.+)$", "\n".join(more), re.MULTILINE)
    where = f" of {Path(file[1]).name}" if file and not name.endswith(Path(file[1]).name) else ""
    return f"line {line[1]}{where}: {reasons[0].strip().rstrip('.')}"


def _of_engine(error: Exception) -> bool:
    """Whether an exception is one of an engine's own."""
    roots = {kind.__module__.split(".")[0].lstrip("_") for kind in type(error).__mro__}
    return not roots.isdisjoint(ENGINES)


def _queried(query: Any, connection: Any) -> "IntoFrame":
    """A table that is the answer to a query, which is not carried out yet."""
    if not isinstance(query, str):
        raise DataError(
            f"connection carries out a query in SQL, but data is a {name_of(query)}; give the query as text, or leave "
            "connection out"
        )
    if not callable(getattr(connection, "sql", None)):
        raise DataError(
            f"connection is a {_kind(connection)}, which takes no query here; give a DuckDB connection, an Ibis "
            "backend such as ibis.postgres.connect(...), or a Spark session"
        )
    table: IntoFrame = connection.sql(query)
    return table


def name_of(data: "Table") -> str:
    """What messages and the report call a table."""
    if isinstance(data, str | os.PathLike):
        return f"file {Path(data).name}"
    return _kind(data)


def _kind(value: Any) -> str:
    return f"{type(value).__module__.split('.')[0].lstrip('_')}.{type(value).__name__}"


def _connect() -> "duckdb.DuckDBPyConnection":
    """A private database in memory that cannot fetch extensions, and so has no way to a network."""
    import duckdb

    off = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    connection = duckdb.connect(":memory:", config={**off})
    connection.execute("set TimeZone = 'UTC'")  # files hold points in time: days must not hang on where they are read
    return connection


def _lazy(data: "IntoFrame", name: str) -> "nw.LazyFrame[Any]":
    from narwhals.exceptions import DuplicateError

    try:
        frame = _relazy(data)
        unchecked = frame.implementation.is_spark_like() or frame.implementation.is_dask()
        names = list(frame.to_native().columns) if unchecked else []
        if len(set(names)) < len(names):
            raise DuplicateError(listed([name for name, count in Counter(names).items() if count > 1]))
        return frame
    except DuplicateError as error:
        raise DataError(f"column names repeat in the {name}; rename them: {' '.join(str(error).split())}") from error
    except TypeError as error:
        raise DataError(
            f"data of type {name} is no table; give a pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, or "
            f"a path to a file ending in {', '.join(SUFFIXES)}"
        ) from error


def _as_numbers(frame: "nw.LazyFrame[Any]", numbers: Sequence[str]) -> "nw.LazyFrame[Any]":
    """Booleans become 0 and 1 where an engine's own cast to a float cannot: PostgreSQL only knows one to integer."""
    if not frame.implementation.is_ibis():
        return frame
    table = frame.to_native()
    to_integer = {name: "int32" for name, kind in table.schema().items() if kind.is_boolean() and name in numbers}
    return _relazy(table.cast(to_integer)) if to_integer else frame


def as_floats(frame: "nw.LazyFrame[Any]", columns: Sequence[str]) -> "nw.LazyFrame[Any]":
    """Cast columns of an Ibis table to float64, also those it takes for that: to PostgreSQL a literal 1.0 is a decimal.

    Ibis leaves out a cast that looks needless to it.
    """
    import ibis.expr.datatypes as kinds
    from ibis.expr.operations import Cast

    table = frame.to_native()
    return _relazy(table.mutate(**{column: Cast(table[column], kinds.float64).to_expr() for column in columns}))


def _find(path: str) -> list[str]:
    """Absolute paths of the file or of the files a pattern matches."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):  # two letters or more: C:/ is a drive; Path() collapses //
        raise DataError(f"{path} is an address, and nothing is fetched from a network; download it and give the file")
    if not path.lower().endswith(SUFFIXES):
        hint = "; a query needs connection=" if re.match(r"\s*(select|with|from)\s", path, re.IGNORECASE) else ""
        raise DataError(f"{path!r} is no file that can be read here; known endings are {', '.join(SUFFIXES)}{hint}")
    matches = glob.iglob(path, recursive=True)  # noqa: PTH207, Path.glob takes no absolute pattern
    found = [path] if Path(path).exists() else sorted(matches)
    if not found:
        near = difflib.get_close_matches(Path(path).name, _siblings(path), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; check the path, relative ones start where you run this"
        raise DataError(f"there is no file {path!r}{hint}")
    for name in found:
        if Path(name).stat().st_size == 0:
            raise DataError(f"the file {name!r} is empty (0 bytes); write it again with a header and rows")
    return [str(Path(name).absolute()) for name in found]


def _siblings(path: str) -> list[str]:
    parent = Path(path).parent
    return [other.name for other in parent.iterdir()] if parent.is_dir() else []


def _open_files(
    connection: "duckdb.DuckDBPyConnection", paths: list[str], labels: Sequence[str], numbers: Sequence[str]
) -> "duckdb.DuckDBPyRelation":
    if paths[0].lower().endswith(".parquet"):
        return connection.read_parquet(list(map(glob.escape, paths)))
    # Hive partitioning would let a folder called arm=x replace the column arm of the file.
    options: dict[str, Any] = {"hive_partitioning": False}
    if re.search(r"\.tsv(\.gz)?$", paths[0], re.IGNORECASE):
        options["sep"] = "\t"
    # The stubs of DuckDB do not know that read_csv takes a list of paths.
    read: Callable[..., duckdb.DuckDBPyRelation] = partial(connection.read_csv, **options)
    check_headers(read, paths, [*labels, *numbers])
    return _read_csv(read, list(map(glob.escape, paths)), labels, numbers)


def _read_csv(
    read: "Callable[..., duckdb.DuckDBPyRelation]", paths: list[str], labels: Sequence[str], numbers: Sequence[str]
) -> "duckdb.DuckDBPyRelation":
    """Read text files with types that no later row can contradict where that can be helped.

    DuckDB guesses types from a sample. A label guessed to be a boolean would turn the arms "yes" and "no" into true
    and false, and a whole number may be followed by a fraction after the sample: those guesses are widened.
    The words nan and inf make a column of numbers text for DuckDB: if nothing else does, they are numbers here.
    """
    options: dict[str, Any] = {"header": True, "union_by_name": len(paths) > 1}  # else columns go by their place
    guessed = read(paths, **options)
    wider = {
        column: "VARCHAR" if column in labels else "DOUBLE"
        for column, guess in zip(guessed.columns, map(str, guessed.types), strict=True)
        if (column in labels and guess != "DOUBLE") or guess == "BIGINT"
    }
    for column, guess in zip(guessed.columns, map(str, guessed.types), strict=True):
        if column in numbers and guess == "VARCHAR" and _all_numbers(guessed, column):
            wider[column] = "DOUBLE"
    return read(paths, dtype=wider, **options) if wider else guessed


def _all_numbers(table: "duckdb.DuckDBPyRelation", column: str) -> bool:
    """Whether every text in a column can be read as a number."""
    name = column.replace('"', '""')
    answer = table.aggregate(f'count("{name}") = count(try_cast("{name}" as double))').fetchall()
    return bool(answer[0][0])


def fetch(frame: "nw.LazyFrame[Any]", name: str) -> list[tuple[Any, ...]]:
    """Carry out a query and return its rows as Python values; raise DataError if there is none."""
    rows: list[tuple[Any, ...]]
    if frame.implementation.is_duckdb():
        rows = _fetch_from_duckdb(frame.to_native())
    elif frame.implementation.is_ibis():
        rows = _fetch_from_ibis(frame)
    else:
        rows = list(frame.collect().rows())
    if not rows:
        raise no_rows(name)
    return rows


def _fetch_from_duckdb(table: "duckdb.DuckDBPyRelation") -> list[tuple[Any, ...]]:
    """Rows without the help of pyarrow or pandas, so that dates and decimals stay; points in time as in UTC.

    DuckDB hands out time zones through pytz only, which nothing here needs.
    """
    zoned = [i for i, kind in enumerate(table.types) if str(kind) == "TIMESTAMP WITH TIME ZONE"]
    if not zoned:
        return table.fetchall()
    quoted = [f'"{column.replace(chr(34), chr(34) * 2)}"' for column in table.columns]
    micros = [f"epoch_us({column})" if i in zoned else column for i, column in enumerate(quoted)]
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    return [
        tuple(begin + timedelta(microseconds=v) if i in zoned and v is not None else v for i, v in enumerate(row))
        for row in table.project(", ".join(micros)).fetchall()
    ]


def _fetch_from_ibis(frame: "nw.LazyFrame[Any]") -> list[tuple[Any, ...]]:
    """Rows of an Ibis table; of PostgreSQL's as its own client hands them out.

    Ibis asks PostgreSQL through a cursor on the server, for which it works on one core only, and refuses what Arrow
    has no type for, such as a uuid. What Ibis has to bring to the server first is left to it.
    """
    from ibis.expr.operations import AggUDF, InMemoryTable, ScalarUDF

    table = frame.to_native()
    backend = table.get_backend()
    if backend.name != "postgres" or table.op().find((AggUDF, InMemoryTable, ScalarUDF)):
        return list(frame.collect().rows())
    with backend.con.transaction(), backend.con.cursor() as cursor:
        rows: list[tuple[Any, ...]] = cursor.execute(backend.compile(table), prepare=False).fetchall()
        return rows


def no_rows(name: str) -> DataError:
    """What is wrong with a table without rows."""
    return DataError(f"{name} has no rows; check it, or the filter that made it")


def pick(source: Source, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
    """Keep `columns` only, renamed to c0, c1, …, so that no name can mean anything to an engine.

    Raises
    ------
    DataError
        If a column is not there; the message hints at near names.
    """
    known = source.frame.collect_schema().names()
    missing = [column for column in columns if column not in known]
    if missing:
        texts = [str(name) for name in known]  # pandas has columns that are no text
        near = [name for column in missing for name in difflib.get_close_matches(str(column), texts, n=1)]
        hint = f"; did you mean {listed(near)}?" if near else ""
        lacking = f"the column {missing[0]!r}" if len(missing) == 1 else f"the columns {listed(missing)}"
        raise DataError(f"{source.name} lacks {lacking}{hint}; columns are {listed(known)}")
    implementation = source.frame.implementation
    if implementation.is_duckdb():
        return _relazy(_pick_in_duckdb(source.frame.to_native(), columns))
    if implementation.is_spark_like():
        return _relazy(_pick_in_spark(source.frame.to_native(), columns))
    if implementation.is_ibis():
        table = source.frame.to_native()
        return _relazy(table.select(**{f"c{i}": table[column] for i, column in enumerate(columns)}))
    import narwhals.stable.v2 as nw

    prefix = "c"
    while any(f"{prefix}{i}" in known for i in range(len(columns))):
        prefix += "c"
    name = {column: f"{prefix}{i}" for i, column in enumerate(columns)}  # one column may be picked twice
    renamed = source.frame.rename(name)
    return renamed.select(*(nw.col(name[column]).alias(f"c{i}") for i, column in enumerate(columns)))


def _relazy(table: "IntoFrame") -> "nw.LazyFrame[Any]":
    import narwhals.stable.v2 as nw

    frame: nw.LazyFrame[Any] = nw.from_native(table).lazy()
    return frame


def _pick_in_duckdb(table: "duckdb.DuckDBPyRelation", columns: Sequence[str]) -> "duckdb.DuckDBPyRelation":
    """In SQL: elsewhere DuckDB takes a column called * for all columns."""
    quoted = (column.replace('"', '""') for column in columns)
    return table.project(", ".join(f'"{column}" as c{i}' for i, column in enumerate(quoted)))


def _pick_in_spark(table: Any, columns: Sequence[str]) -> Any:
    """By position: Spark's names know no case, and mean parts of a column after a dot."""
    numbered = table.toDF(*(f"x{i}" for i in range(len(table.columns))))
    chosen = numbered.select(*(f"x{table.columns.index(column)}" for column in columns))
    return chosen.toDF(*(f"c{i}" for i in range(len(columns))))


def listed(names: Sequence[str]) -> str:
    """Names in quotes, cut after the first few."""
    text = ", ".join(repr(name) for name in names[:SHOWN])
    return text + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_names(segments: Sequence[str], others: Mapping[str, str | None], taken: Collection[str] = ()) -> list[str]:
    """Return the dimensions of the segments as a list, if these can be dimensions.

    Parameters
    ----------
    segments
        Columns that divide the units.
    others
        What every other column is used for, and its name.
    taken
        Names that this kind of cell table uses itself, besides the reserved ones.

    Raises
    ------
    DataError
        If there is no dimension, a name is reserved, or one column is used twice.
    """
    if isinstance(segments, str):
        raise DataError(f"segments must be a list of columns; write segments=[{segments!r}]")
    if not isinstance(segments, Iterable):
        raise DataError(f"segments is {described(segments)}; give a list of columns, such as ['device']")
    dims = list(segments)
    if not dims:
        raise DataError("segments is empty; name at least one column that divides the units, such as ['device']")
    for name in dims:
        if not isinstance(name, str) or not name or "/" in name:
            raise DataError(f"{name!r} cannot name a dimension; rename the column to text without '/'")
        if name in RESERVED or name in taken or (name == SEGMENT and len(dims) > 1):
            raise DataError(
                f"the result uses the name {name!r} itself, so a dimension cannot have it; rename the column"
            )
    uses = [("segments", name) for name in dims] + [(role, name) for role, name in others.items() if name is not None]
    seen: dict[str, str] = {}
    for role, name in uses:
        if not isinstance(name, str):
            raise DataError(f"{role} must be the name of one column, not {name!r}")
        if name in seen:
            raise DataError(f"the column {name!r} is used twice, for {seen[name]} and for {role}; name two columns")
        seen[name] = role
    return dims


def check_arms(arms: Iterable[str], control: str, column: str) -> None:
    """Raise DataError unless the control and at least one other arm are among `arms`."""
    seen = natural_order(arms)
    if control not in seen:
        near = difflib.get_close_matches(control, seen, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "name one of them as the control"
        raise DataError(f"no unit is in the control arm {control!r}; arms in {column!r} are {listed(seen)}; {hint}")
    if len(seen) == 1:
        raise DataError(
            f"all units are in one arm, {control!r}; an effect needs a second arm in {column!r}: "
            "check the column, and that no filter removed the treated units"
        )


def counted(count: int, one: str, many: str) -> str:
    """Count things in words: 1 unit, 12 units."""
    return f"{count:,} {one if count == 1 else many}"


def missing_notes(
    levels: Iterable[Iterable[str | None]], weights: Iterable[int], dims: Sequence[str], noun: str
) -> list[str]:
    """One sentence per dimension some of whose levels (None) are missing; `weights` say how often each occurs."""
    sentences = []
    for dim, column in zip(dims, levels, strict=True):
        count = sum(int(weight) for level, weight in zip(column, weights, strict=True) if level is None)
        if count:
            have, form = ("has", "it forms") if count == 1 else ("have", "they form")
            units = counted(count, noun, noun + "s")
            sentences.append(f"{units} {have} no value for {dim}; {form} the level {MISSING_LEVEL}")
    return sentences
