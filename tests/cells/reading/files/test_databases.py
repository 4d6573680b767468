"""Databases are read, and never written; what a file holds runs nothing but a SELECT, and reaches no other file."""

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bayes_hte import DataError
from bayes_hte.cells import DataSource, from_rows

ASKED: dict[str, Any] = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["plan"]}
FILL = "insert into visits values ('free', 'old', 1), ('free', 'old', 2), ('free', 'new', 3), ('free', 'new', 5)"
ONE_SELECT = r"^the query (is not one SELECT|cannot be read as SQL).*; give one SELECT, which may begin with WITH$"


@pytest.fixture(params=["shop.duckdb", "shop.sqlite"])
def database(request, tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("secret.csv").write_text("plan,arm,spent\nhidden,old,1\nhidden,new,2\n")
    carry_out(request.param, "create table visits (plan text, arm text, spent real)", FILL)
    return str(request.param)


def carry_out(name: str, *statements: str) -> None:
    connection: Any = duckdb.connect(name) if name.endswith("duckdb") else sqlite3.connect(name)
    for statement in statements:
        connection.execute(statement)
    if not name.endswith("duckdb"):
        connection.commit()
    connection.close()


def hash_content(name: str) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "query",
    [
        "delete from visits", "drop table visits", "insert into visits values ('x', 'old', 1)", "select 1; select 2",
        "create table more as select 1", "attach 'other.db' as other", "update visits set spent = 0", "",
        "insert into visits values ('x', 'old', 1) returning *", "pragma journal_mode = wal", "vacuum into 'copy.db'",
        "select * from visits; drop table visits",
    ],
)  # fmt: skip
def test_anything_but_one_select_is_refused_and_changes_nothing(database, query):
    before = hash_content(database)
    # An empty query is no value of the key at all.
    with pytest.raises(ValueError, match=ONE_SELECT if query else "give text, or leave it out"):
        from_rows(DataSource(database, query=query), **ASKED)
    assert hash_content(database) == before
    assert {path.name for path in Path().iterdir()} == {database, "secret.csv"}


def test_reading_leaves_the_file_as_it_is(database):
    before = hash_content(database)
    assert from_rows(database, **ASKED)["mean"].values.tolist() == [[1.5, 4.0]]
    assert from_rows(DataSource(database, query="select * from visits order by spent -- all"), **ASKED)["n"].sum() == 4
    assert hash_content(database) == before


@pytest.mark.parametrize("source", ["read_csv('secret.csv')", "'secret.csv'", "read_text('secret.csv')"])
def test_neither_a_view_nor_a_query_of_duckdb_reads_another_file(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("secret.csv").write_text("plan,arm,spent\nhidden,old,1\nhidden,new,2\n")
    carry_out("shop.duckdb", "create view visits as select * from " + source)  # noqa: S608, of the test's own
    for trap in (DataSource("shop.duckdb"), DataSource("shop.duckdb", query="select * from " + source)):  # noqa: S608, of the test's own
        with pytest.raises(DataError, match=r"cannot read .* Permission Error"):
            from_rows(trap, **ASKED)


def test_a_query_finds_no_variable_of_the_caller(database):
    with pytest.raises(DataError, match=r"ASKED|no such table"):
        from_rows(DataSource(database, query="select * from ASKED"), **ASKED)


def test_tables_are_listed_where_one_has_to_be_named(database):
    carry_out(database, "create table more (x integer)", "create view seen as select * from visits")
    with pytest.raises(DataError, match="several tables: name one as table; its tables are 'more', 'seen', 'visits'"):
        from_rows(database, **ASKED)
    with pytest.raises(DataError, match="has no table 'visit'; its tables are"):
        from_rows(DataSource(database, table="visit"), **ASKED)
    assert from_rows(DataSource(database, table="seen"), **ASKED)["n"].sum() == 4


def test_hostile_names_of_tables_and_columns_are_names(database):
    name = 'a"; drop table visits; --'
    quoted = name.replace('"', '""')
    carry_out(database, 'create table "' + quoted + '" as select plan as "' + quoted + '", arm, spent from visits')  # noqa: S608, of the test's own
    cells = from_rows(DataSource(database, table=name), **{**ASKED, "segments": [name]})
    assert cells["mean"].values.tolist() == [[1.5, 4.0]]
    assert from_rows(DataSource(database, table="visits"), **ASKED)["n"].sum() == 4


def test_a_file_whose_name_has_quotes_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('it\'s "new" #1?.duckdb', 'it\'s "new" #1?.sqlite'):
        carry_out(name, "create table visits (plan text, arm text, spent real)", FILL)
        assert from_rows(name, **ASKED)["n"].sum() == 4


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "rows.db"
    path.write_bytes(b"plan,arm,spent\n" * 10)
    with pytest.raises(DataError, match=r"rows\.db is no DuckDB or SQLite database"):
        from_rows(path, **ASKED)


def test_an_empty_database_is_refused(tmp_path):
    carry_out(str(tmp_path / "a.duckdb"))
    with pytest.raises(DataError, match=r"the file a\.duckdb holds no table"):
        from_rows(tmp_path / "a.duckdb", **ASKED)


def test_a_broken_sqlite_file_is_a_data_error(tmp_path):
    path = tmp_path / "rows.db"
    path.write_bytes(b"SQLite format 3\x00" + b"\x00" * 5000)
    with pytest.raises(DataError, match=r"rows\.db"):
        from_rows(path, **ASKED)


def test_values_of_sqlite_keep_what_they_are(tmp_path):
    path = tmp_path / "rows.sqlite"
    carry_out(
        str(path),
        "create table t (plan, arm, spent)",
        "insert into t values (1.0, 'old', 1), ('1.10', 'old', 2.5), (null, 'new', 3), (2, 'new', 9007199254740993)",
        "insert into t values (x'ff41', 'new', 4), ('', 'old', 5), ('', 'old', 6)",
    )
    cells = from_rows(path, **ASKED)
    assert set(cells["segment"].values.tolist()) == {"1", "1.10", "(missing)", "2", "\\xffA", "(empty)"}
    # One number is a fraction: all are float64, as in every other file.
    assert float(cells["mean"].sel(segment="2", arm="new")) == 9007199254740992.0


def test_a_word_among_the_numbers_of_a_database_is_refused(tmp_path):
    path = tmp_path / "rows.sqlite"
    carry_out(
        str(path),
        "create table t (plan, arm, spent)",
        "insert into t values ('a', 'old', 1), ('a', 'old', '?'), ('a', 'new', 3), ('a', 'new', 2)",
    )
    with pytest.raises(DataError, match="'spent'"):
        from_rows(path, **ASKED)


def test_more_rows_than_a_chunk_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("bayes_hte.cells.reading.files.load_rows.ROWS_PER_CHUNK", 3)
    path = tmp_path / "rows.sqlite"
    carry_out(str(path), "create table visits (plan text, arm text, spent real)", *[FILL] * 5)
    assert from_rows(path, **ASKED)["n"].values.tolist() == [[10, 10]]
