"""One table, written in every form that data come in, gives one cell table."""

import importlib.util
import io
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bad_input import write_workbook

from bayes_hte import ArgumentError, DataError
from bayes_hte.cells import DataSource, from_rows
from bayes_hte.cells.reading.files.standard_input import remove_copies

NO_WORKBOOKS = importlib.util.find_spec("python_calamine") is None


def invent_rows() -> pd.DataFrame:
    """Names with accents, commas, quotes and a line's worth of blanks; versions, dates, fractions and a missing one."""
    draw = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "name": draw.choice(["café", "naïve", 'x, y; "z"', "Ünï cöde"], 300),
            "version": draw.choice(["1.10", "1.1", "2.0-rc1"], 300),
            "arm": draw.choice([0, 1], 300),
            "day": pd.to_datetime("2026-03-02") + pd.to_timedelta(draw.integers(0, 20, 300), unit="D"),
            "spent": draw.gamma(2.0, 3.0, 300).round(3),
        }
    )
    rows["day"] = rows["day"].dt.date
    rows.loc[3, "spent"] = np.nan
    return rows


ROWS = invent_rows()
ASKED: dict[str, Any] = {
    "outcome": "spent", "arm": "arm", "control": "0", "segments": ["name", "version", "day"], "bins": {"day": "week"},
    "drop_missing": True,
}  # fmt: skip


def write_csv(name: str, **options: Any) -> str:
    ROWS.to_csv(name, index=False, **options)
    return name


def write_folder() -> str:
    Path("parts/more").mkdir(parents=True)
    ROWS[:100].to_parquet("parts/a.parquet")
    ROWS[100:].to_parquet("parts/more/b.parquet")
    Path("parts/_SUCCESS").touch()
    return "parts"


def write_partitions(ending: str) -> str:
    for version, part in ROWS.groupby("version"):
        folder = Path(f"lake/version={version}")
        folder.mkdir(parents=True)
        rest = part.drop(columns="version")
        rest.to_csv(folder / "part.csv", index=False) if ending == "csv" else rest.to_parquet(folder / "part.parquet")
    return "lake"


def write_duckdb(name: str = "shop.duckdb") -> str:
    with duckdb.connect(name) as connection:
        connection.register("rows", ROWS)
        connection.execute("create table visits as select * from rows")
        connection.execute("create view seen as select * from visits")
    return name


def write_sqlite(name: str = "shop.sqlite") -> str:
    connection = sqlite3.connect(name)
    with connection:
        ROWS.to_sql("visits", connection, index=False)
    connection.close()
    return name


def write_excel() -> str:
    if NO_WORKBOOKS:
        pytest.skip("python-calamine is not installed; pip install 'bayes-hte[excel]'")
    return write_workbook("shop.xlsx", {"my rows": ROWS})


def by_url(monkeypatch: pytest.MonkeyPatch, url: str) -> DataSource:
    monkeypatch.setenv("WAREHOUSE_URL", url)
    return DataSource(connection="WAREHOUSE_URL", query="select * from visits")


FORMS: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "semicolons and decimal commas": lambda _: write_csv("rows.csv", sep=";", decimal=","),
    "tabs": lambda _: write_csv("rows.tsv", sep="\t"),
    "zipped": lambda _: write_csv("rows.csv.gz"),
    "Unicode text of a spreadsheet": lambda _: write_csv("rows.txt", sep="\t", encoding="utf-16"),
    "UTF-16, the other way round": lambda _: write_csv("rows.csv", encoding="utf-16-be") and _add_mark("rows.csv"),
    "zipped UTF-16": lambda _: write_csv("rows.csv.gz", encoding="utf-16"),
    "Latin-1, stated": lambda _: DataSource(write_csv("rows.csv", encoding="latin-1"), encoding="latin-1"),
    "UTF-8, stated": lambda _: DataSource(write_csv("rows.csv"), encoding="UTF8"),
    "UTF-8 with a mark": lambda _: write_csv("rows.csv", encoding="utf-8-sig"),
    "Parquet": lambda _: ROWS.to_parquet("rows.parquet") or "rows.parquet",
    "a folder": lambda _: write_folder(),
    "folders with names of columns": lambda _: write_partitions("parquet"),
    "text in folders with names of columns": lambda _: write_partitions("csv"),
    "DuckDB, a table": lambda _: DataSource(write_duckdb(), table="visits"),
    "DuckDB, a view": lambda _: DataSource(write_duckdb("memory.db"), table="seen"),
    "DuckDB, a query": lambda _: DataSource(write_duckdb(), query="select * from shop.main.visits"),
    "SQLite, its only table": lambda _: write_sqlite("shop.db"),
    "SQLite, a query": lambda _: DataSource(write_sqlite(), query="with v as (select * from visits) select * from v"),
    "a workbook": lambda _: write_excel(),
    "a URL of SQLite": lambda patch: by_url(patch, f"sqlite:///{write_sqlite()}"),
    "a URL of DuckDB": lambda patch: by_url(patch, f"duckdb:///{Path(write_duckdb()).absolute()}"),
}


def _add_mark(name: str) -> str:
    Path(name).write_bytes(b"\xfe\xff" + Path(name).read_bytes())
    return name


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_same_cells(data: Any) -> None:
    ROWS.to_csv("reference.csv", index=False)
    expected, cells = from_rows("reference.csv", **ASKED), from_rows(data, **ASKED)
    # Sums are added up in another order: 300 roundings at most.
    xr.testing.assert_allclose(cells.drop_attrs(), expected.drop_attrs(), rtol=300 * np.finfo(float).eps)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_cells_of_the_csv(form, monkeypatch):
    assert_same_cells(FORMS[form](monkeypatch))


@pytest.mark.parametrize(
    "write",
    [
        lambda: write_csv("rows.csv"),
        lambda: write_csv("rows.csv.gz"),
        lambda: write_csv("rows.txt", encoding="utf-16"),
        lambda: ROWS.to_parquet("rows.parquet") or "rows.parquet",
        write_sqlite,
    ],
)
def test_standard_input_is_read_whatever_its_kind(write, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(write()).read_bytes())))
    assert_same_cells("-")
    assert_same_cells("-")  # it can be read once, but asked about many times
    assert from_rows("-", **ASKED).attrs["source"] == "300 rows of standard input"
    remove_copies()


def test_standard_input_that_is_a_terminal_is_refused(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(DataError, match="nothing comes in on standard input"):
        from_rows("-", **ASKED)


@pytest.mark.skipif(NO_WORKBOOKS, reason="python-calamine is not installed; pip install 'bayes-hte[excel]'")
def test_a_sheet_is_chosen_by_name_and_doubtful_ones_are_refused():
    empty, twice = pd.DataFrame(), pd.DataFrame([[1, 2]], columns=["spent", "Spent"])
    path = write_workbook("shop.xlsx", {"rows": ROWS, "empty": empty, "twice": twice})
    assert_same_cells(DataSource(path, table="rows"))
    for table, message in {
        None: "holds several sheets: name one as table; its sheets are 'rows', 'empty', 'twice'",
        "Rows": "has no sheet 'Rows'; its sheets are",
        "empty": "the sheet 'empty' of shop.xlsx is empty",
        "twice": "column names repeat in the sheet 'twice' of shop.xlsx: 'spent'",
    }.items():
        with pytest.raises(DataError, match=message):
            from_rows(DataSource(path, table=table), **ASKED)


def test_a_broken_workbook_is_a_data_error():
    Path("rows.xlsx").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(DataError, match=r"rows\.xlsx"):
        from_rows("rows.xlsx", **ASKED)


def test_a_workbook_without_the_extra_says_how_to_get_it(monkeypatch):
    Path("rows.xlsx").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(DataError, match=r"pip install 'bayes-hte\[excel\]', or save the sheet as CSV UTF-8"):
        from_rows("rows.xlsx", **ASKED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": "select 1"}, "query chooses rows of a DuckDB or SQLite file"),
        ({"table": "rows"}, "table names a table of a database or a sheet of a workbook"),
        ({"encoding": "klingon"}, "there is no encoding 'klingon'; name one as Python does"),
        ({"encoding": "base64"}, "there is no encoding 'base64'"),
    ],
)
def test_options_of_other_kinds_of_files_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        from_rows(DataSource(write_csv("rows.csv"), **options), **ASKED)


def test_an_encoding_of_parquet_is_refused():
    ROWS.to_parquet("rows.parquet")
    with pytest.raises(ArgumentError, match="encoding is of text files only"):
        from_rows(DataSource("rows.parquet", encoding="latin-1"), **ASKED)


def test_text_that_is_not_in_its_encoding_says_what_to_state():
    write_csv("rows.csv", encoding="latin-1")
    with pytest.raises(DataError, match=r"not text in UTF-8; save it as UTF-8 .* encoding=\"latin-1\""):
        from_rows("rows.csv", **ASKED)
    with pytest.raises(DataError, match=r"the file rows\.csv is not text in ascii; name its encoding"):
        from_rows(DataSource("rows.csv", encoding="ascii"), **ASKED)


def test_a_folder_that_leaves_doubts_is_refused():
    Path("mixed").mkdir()
    with pytest.raises(DataError, match=r"the folder 'mixed' holds no file ending in \.csv"):
        from_rows("mixed", **ASKED)
    write_csv("mixed/a.csv")
    ROWS.to_parquet("mixed/b.parquet")
    with pytest.raises(DataError, match=r"holds text files and Parquet files; .* 'mixed/\*\.parquet'"):
        from_rows("mixed", **ASKED)
    Path("uneven/version=1").mkdir(parents=True)
    write_csv("uneven/a.csv")
    write_csv("uneven/version=1/b.csv")
    with pytest.raises(DataError, match="do not name the same columns"):
        from_rows("uneven", **ASKED)


def test_a_column_of_the_files_goes_before_the_name_of_their_folder():
    Path("lake/arm=1").mkdir(parents=True)
    ROWS.to_parquet("lake/arm=1/a.parquet")
    assert_same_cells("lake")


def test_several_databases_are_no_parts_of_a_table():
    write_sqlite("a.db"), write_sqlite("b.db")
    with pytest.raises(DataError, match=r"parts of one table in text files and Parquet only, not 'a\.db', 'b.db'"):
        from_rows("*.db", **ASKED)
