"""The reader of plain CSV files answers what DuckDB answers, or nothing."""

import gzip
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from bayes_hte.cells.reading.engines import fetch_rows, open_table, pick_columns
from bayes_hte.cells.reading.files import plain_csv
from bayes_hte.cells.reading.files.plain_csv import CsvRows

WORDS = [
    "Men's e-mail", "No e-mail", "$200 or more", "women", "é", "日本", "<b>", "a.b", "week 1", "true", "T", "no", "NA",
    "nan", "inf", "Infinity", "NULL", "none", "2024-01-01", "12:30", "1/2", "10%", "18-24", "65+", "007", "0x10",
    "1_000", "e5", "1e5", "E", "0", "1", "12", "-3", "1.5", "0.25", "½", "١", "+5", "=1+1", "x'y", "today", "1 day",
]  # fmt: skip
NUMBERS = ["0", "1", "-1", "12", "007", "123456789012345", "12345678901234567890", "0.5", "-0.25", ".5", "5.", "1e5",
           "1E-7", "3.4569909502262437", "-0", "+1", "nan", "inf", "", "1,0", "0x1", " 1", "1_0", "true"]  # fmt: skip
NAMES = ["device", "arm", "n", "a b", "é", "1", "2.5", "true", "null", "c0", "N"]


def by_duckdb(path: Path, labels: list[str], numbers: list[str]) -> CsvRows:
    with open_table(path, label_columns=labels, number_columns=numbers) as source:
        return fetch_rows(pick_columns(source, [*labels, *numbers]), source.table_name)


def exactly(rows: CsvRows) -> list[list[tuple[type, str]]]:
    """Types and all digits; unlike ==, this tells -0.0 from 0.0."""
    return [[(type(value), repr(value)) for value in row] for row in rows]


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    """Text of a CSV file, and the names of its columns of labels and of numbers."""
    labels, numbers = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=labels + numbers, max_size=labels + numbers, unique=True))
    usual = st.integers(0, 10**6).map(str) | st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr)
    columns = []
    for position in range(labels + numbers):
        few = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
        odd = draw(st.booleans()) and draw(st.booleans())
        number = st.sampled_from(NUMBERS) if odd else usual
        columns.append(st.sampled_from(few) if position < labels else number)
    rows = draw(st.lists(st.tuples(*columns), min_size=1, max_size=6))
    order = draw(st.permutations(range(labels + numbers)))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = "".join(",".join(row[i] for i in order) + end for row in [names, *rows])
    at = draw(st.integers(0, len(text)))
    extra = draw(st.sampled_from(["", "", "", "'", '"', " ", ",", ";", "#", "\n", "\t", "\ufeff", end]))
    return text[:at] + extra + text[at:], names[:labels], names[labels:]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_what_it_reads_is_what_duckdb_reads(tmp_path: Path, table: tuple[str, list[str], list[str]]) -> None:
    text, labels, numbers = table
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    found = plain_csv.read_plain_csv(path, labels, numbers)
    if found is not None:
        assert exactly(found) == exactly(by_duckdb(path, labels, numbers))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_a_table_of_cells_is_plain(tmp_path: Path, end: str, last: bool) -> None:
    path = tmp_path / "cells.csv"
    lines = ["spent,arm,n,mean,note", "$200 or more,Men's e-mail,10,1.5,x y", "under $200,No e-mail,0,-2e-3,z"]
    path.write_bytes((end.join(lines) + (end if last else "")).encode())
    expected: CsvRows = [("$200 or more", "Men's e-mail", 10.0, 1.5), ("under $200", "No e-mail", 0.0, -0.002)]
    assert plain_csv.read_plain_csv(path, ["spent", "arm"], ["n", "mean"]) == expected
    assert plain_csv.read_plain_csv(str(path), ["arm"], []) == [("Men's e-mail",), ("No e-mail",)]


def test_names_are_kept_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    names = ["1.1", "1.10", "1e5", "007", "2024-01-01", "NA", "nan", "TRUE", "2.0-rc1"]
    path.write_text("".join(f"{name},{i}\n" for i, name in enumerate(["arm", *names])).replace("arm,0", "arm,n"))
    assert plain_csv.read_plain_csv(path, ["arm"], []) == [(name,) for name in names]


GUESSED: dict[str, str | bytes] = {
    "quotes": 'arm,n\n"a",1\n',
    "apostrophes around a field": "arm,n\n'a',1\n",
    "a tab": "arm\tx,n\na,1\n",
    "semicolons": "arm,n\na;b,1\n",
    "a comment": "arm,n\n# a,1\n",
    "an escape": "arm,n\na\\,1\n",
    "space around a field": "arm,n\na, 1\n",
    "an empty field": "arm,n\n,1\n",
    "a missing number": "arm,n\na,\nb,1\n",
    "a number that is text": "arm,n\na,NA\n",
    "a number beyond double precision": "arm,n\na,12345678901234567\n",
    "a short row": "arm,n\na\n",
    "a long row": "arm,n\na,1,2\n",
    "a blank line": "arm,n\n\na,1\n",
    "a blank line at the end": "arm,n\na,1\n\n",
    "mixed ends of lines": "arm,n\r\na,1\nb,2\r\n",
    "names that differ in case only": "arm,n,N\na,1,2\n",
    "one column": "arm\na\n",
    "no rows": "arm,n\n",
    "a byte order mark": "\ufeffarm,n\na,1\n",
    "a control character": "arm,n\na\x07,1\n",
    "another encoding": "arm,n\né,1\n".encode("latin-1"),
    "too many rows": "arm,n\n" + "a,1\n" * plain_csv.MAX_LINES,
    "a lack of the column": "arm,m\na,1\n",
}


@pytest.mark.parametrize("case", GUESSED)
def test_what_must_be_guessed_is_left_to_duckdb(tmp_path: Path, case: str) -> None:
    content = GUESSED[case]
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert plain_csv.read_plain_csv(path, ["arm"], ["n"] if case != "one column" else []) is None


def test_other_files_tables_and_patterns_are_left_to_duckdb(tmp_path: Path) -> None:
    text = "arm,n\na,1\n"
    for name in ("table.tsv", "table.txt", "one.csv"):
        (tmp_path / name).write_text(text)
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(text.encode()))
    others: list[Any] = ["table.tsv", "table.txt", "table.csv.gz", "*.csv", "absent.csv", ""]
    assert all(plain_csv.read_plain_csv(tmp_path / name, ["arm"], ["n"]) is None for name in others)
    assert all(
        plain_csv.read_plain_csv(data, ["arm"], ["n"]) is None for data in (None, 3, [("a", 1)], "https://a.b/c.csv")
    )
    assert plain_csv.read_plain_csv(tmp_path / "one.csv", ["arm"], ["n"]) is not None
