"""Numbers in text files: what is a number, what is missing, and what is a word that a message must name."""

import gzip
import math
from pathlib import Path

import pytest

from bayes_hte.cells import from_rows, from_summary
from bayes_hte.cells.reading.text_numbers import MISSING_WORDS, parse_number
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec.cell_table import list_notes

ASKED = {"arm": "arm", "control": "a", "segments": ["seg"]}


def units(path: Path, *values: str) -> Path:
    """Write a file of units in two segments and arms, one value each; by its ending with tabs, or compressed."""
    mark = "\t" if ".tsv" in path.name else ";" if any("," in value for value in values) else ","
    lines = [
        mark.join(("seg", "arm", "y")),
        *(mark.join(("xy"[i % 2], "ab"[i // 2 % 2], y)) for i, y in enumerate(values)),
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("word", ["<5", "-", "#DIV/0!", "n. d.", "12 %", "1.2.3"])
@pytest.mark.parametrize("after", [6, 25_000])
def test_a_word_among_numbers_is_named_with_its_row_and_never_dropped(tmp_path: Path, word: str, after: int) -> None:
    path = units(tmp_path / "rows.csv", *(["1", "2", "3", "5"] * after)[:after], word)
    for drop_missing in (False, True):
        with pytest.raises(DataError) as raised:
            from_rows(path, outcome="y", drop_missing=drop_missing, **ASKED)
        assert f"1 of {after + 1:,} values is none: {word!r} (in row {after + 1:,})" in str(raised.value)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.tsv"])
@pytest.mark.parametrize("word", [*MISSING_WORDS, "NA", "N/A", "NaN", "NULL", "None", ""])
def test_words_for_missing_numbers_are_missing_in_every_text_file(tmp_path: Path, name: str, word: str) -> None:
    path = units(tmp_path / name, *["1", "2", "3", "5"] * 4, word)
    assert int(from_rows(path, outcome="y", drop_missing=True, **ASKED)["n"].sum()) == 16
    with pytest.raises(DataError, match=r"1 of 17 outcomes in 'y' is missing.*drop_missing=True"):
        from_rows(path, outcome="y", **ASKED)


def test_a_repeated_header_is_recognised(tmp_path: Path) -> None:
    path = units(tmp_path / "rows.csv", *["1", "2", "3", "5"] * 4, "y")
    with pytest.raises(DataError, match=r"'y' .*the header is repeated there: delete that line"):
        from_rows(path, outcome="y", **ASKED)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
@pytest.mark.parametrize("decimal", [None, ","])
def test_decimal_commas_are_read_where_nothing_else_can_be_meant_and_said(
    tmp_path: Path, name: str, decimal: None
) -> None:
    path = units(tmp_path / name, "1,5", "2", "3,25", "4", "2,5", "0", "-1,75", "8")
    cells = from_rows(path, outcome="y", decimal=decimal, **ASKED)
    assert cells["mean"].values.tolist() == [[2.0, 0.75], [1.0, 6.0]]
    assert any("decimal comma" in note for note in list_notes(cells)) == (decimal is None)


def test_a_comma_that_may_separate_thousands_is_asked_about(tmp_path: Path) -> None:
    path = units(tmp_path / "rows.csv", "1,500", "2,250", "3,000", "4,125")
    with pytest.raises(DataError, match=r'may be decimal or separate thousands.*say decimal=","'):
        from_rows(path, outcome="y", **ASKED)
    assert from_rows(path, outcome="y", decimal=",", **ASKED)["mean"].values.tolist() == [[1.5, 3.0], [2.25, 4.125]]


def test_commas_beside_points_are_left_to_whoever_knows_them(tmp_path: Path) -> None:
    path = units(tmp_path / "rows.csv", "1,5", "2.5", "3,25", "4", "2,5", "0", "1,75", "8")
    with pytest.raises(DataError, match=r"'1,5' \(in row 1\).*decimal=\",\""):
        from_rows(path, outcome="y", **ASKED)
    with pytest.raises(ArgumentError, match=r"decimal is ';'; give"):
        from_rows(path, outcome="y", decimal=";", **ASKED)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["NA", "<5", "-", "#DIV/0!", "n/a"])
def test_a_summary_names_the_word_that_is_no_number(tmp_path: Path, word: str) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(f"seg,arm,n,k\nx,a,100,10\nx,b,110,12\ny,a,100,{word}\ny,b,100,5\n")
    with pytest.raises(DataError) as raised:
        from_summary(path, n="n", events="k", **ASKED)
    assert repr(word) in str(raised.value)
    assert "'10'" not in str(raised.value)


def test_numbers_are_parsed_as_they_are_written() -> None:
    assert parse_number(" 1e3 ", "point") == 1000
    assert parse_number("1,5", "point") is None
    assert parse_number("1.5", "comma") is None
    assert math.isnan(parse_number("NULL", "comma") or 0)
    assert [parse_number(word, "boolean") for word in ("yes", "F", "1", "2")] == [1, 0, 1, None]
