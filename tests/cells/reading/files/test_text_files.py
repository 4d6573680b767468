"""Text files: columns go by name, and what cannot be read says in which line."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from bayes_hte import DataError
from bayes_hte.cells import from_rows, from_summary

ASKED = {"arm": "arm", "control": "old", "segments": ["plan"]}
DAY = pd.DataFrame(
    {"spent": [1.0, 2.0, 3.0, 5.0], "before": [9.0] * 4, "arm": ["old", "new"] * 2, "plan": ["free"] * 2 + ["paid"] * 2}
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def text(name: str, *lines: str) -> str:
    Path(name).write_text("\n".join(lines) + "\n")
    return name


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "tsv.gz", "parquet"])
def test_columns_of_several_files_go_by_their_names(suffix):
    for i, columns in enumerate([["spent", "before", "arm", "plan"], ["plan", "before", "spent", "arm"]]):
        if suffix == "parquet":
            DAY[columns].to_parquet(f"day-{i}.parquet")
        else:
            DAY[columns].to_csv(f"day-{i}.{suffix}", index=False, sep="\t" if "tsv" in suffix else ",")
    cells = from_rows(f"day-*.{suffix}", outcome="spent", **ASKED)
    assert cells["n"].values.tolist() == [[2, 2], [2, 2]]
    assert cells["mean"].values.tolist() == [[1.0, 2.0], [3.0, 5.0]]


def test_files_may_have_columns_that_others_lack_if_nobody_needs_them():
    DAY.to_csv("day-1.csv", index=False)
    DAY.drop(columns="before").assign(more=1).to_csv("day-2.csv", index=False)
    assert from_rows("day-*.csv", outcome="spent", **ASKED)["mean"].values.tolist() == [[1.0, 2.0], [3.0, 5.0]]
    with pytest.raises(
        DataError, match=r"the file day-2.csv lacks the column 'before', which day-1.csv has; all files"
    ):
        from_rows("day-*.csv", outcome="spent", cuped="before", **ASKED)
    with pytest.raises(DataError, match=r"the file day-1.csv lacks the column 'more', which day-2.csv has; all files"):
        from_rows("day-*.csv", outcome="more", **ASKED)


def test_a_name_that_repeats_is_refused_as_in_a_data_frame():
    path = text("cells.csv", "plan,arm,n,bought,n", "free,old,10,2,99", "free,new,10,3,98")
    with pytest.raises(DataError, match=r"column names repeat in the file cells.csv: 'n'; rename them"):
        from_summary(path, n="n", events="bought", **ASKED)


def test_columns_without_a_name_are_left_alone():
    path = text("rows.csv", "plan,arm,spent,,", "free,old,1,,", "free,new,3,,", "free,old,2,,")
    assert from_rows(path, outcome="spent", **ASKED)["mean"].values.tolist() == [[1.5, 3.0]]


def test_names_that_differ_in_case_are_refused_only_where_they_matter():
    path = text("rows.csv", "plan,arm,spent,Spent,Other,other", "free,old,1,7,0,0", "free,new,3,8,0,0")
    with pytest.raises(DataError, match=r"'spent' and 'Spent' of the file rows.csv differ in case alone.*; rename one"):
        from_rows(path, outcome="spent", **ASKED)
    assert from_rows(text("rows.csv", *("plan,arm,spent,A,a", "x,old,1,2,3", "x,new,2,2,3")), outcome="spent", **ASKED)


@pytest.mark.parametrize("at", [3, 30_000])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_line_with_too_many_fields_is_named(at, zipped):
    lines = ["plan,arm,spent", *['"a, b",old,1'] * (at - 1), "free,old,1,7", *["free,new,2"] * 5]
    path = text("rows.csv", *lines)
    if zipped:
        Path("rows.csv.gz").write_bytes(gzip.compress(Path(path).read_bytes()))
        path = "rows.csv.gz"
    with pytest.raises(DataError, match=rf"line {at + 1}\b"):
        from_rows(path, outcome="spent", **ASKED)


def test_a_word_far_down_in_a_column_of_numbers_is_named_with_its_row():
    lines = ["plan,arm,spent", *["free,old,1"] * 30_000, "free,new,?"]
    with pytest.raises(
        DataError, match=r"'spent' of file rows.csv must .* 1 of 30,001 values is none: '\?' \(in row 30,001\)"
    ):
        from_rows(text("rows.csv", *lines), outcome="spent", **ASKED)


def test_a_word_in_one_of_several_files_names_the_file():
    text("day-1.csv", "plan,arm,spent", "free,old,1", "free,new,1")
    text("day-2.csv", "plan,arm,spent", *["free,old,1"] * 30_000, "free,new,?")
    with pytest.raises(DataError, match=r"'\?' \(in row 30,001 of day-2.csv\)"):
        from_rows("day-*.csv", outcome="spent", **ASKED)
