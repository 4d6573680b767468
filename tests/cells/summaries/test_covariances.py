"""A covariance from a file: its labels decide the order, and what is no such matrix is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_estimates
from bayes_hte.errors import DataError

SCHOOLS = {"school": ["C", "A", "B"], "y": [-3.0, 28.0, 8.0], "se": [16.0, 15.0, 10.0]}
COVARIANCE = np.array([[256.0, 10.0, -20.0], [10.0, 225.0, 30.0], [-20.0, 30.0, 100.0]])
LABELLED = pd.DataFrame(COVARIANCE, index=SCHOOLS["school"], columns=SCHOOLS["school"])


def effects(columns: Any = SCHOOLS, **changes: Any) -> xr.Dataset:
    return from_estimates(pd.DataFrame(columns), **({"segments": ["school"], "estimate": "y", "se": "se"} | changes))


def write(table: pd.DataFrame, path: Path, index: bool = True) -> Path:
    if path.suffix == ".parquet":
        (table.reset_index() if index else table).to_parquet(path, index=False)
    else:
        table.to_csv(path, index=index, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.tsv", "c.parquet"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_the_matrix_it_holds(tmp_path, name, kind):
    cells = effects(covariance=kind(write(LABELLED, tmp_path / name)))
    xr.testing.assert_identical(cells.drop_attrs(), effects(covariance=COVARIANCE).drop_attrs())
    assert cells.attrs["source"] == f"3 rows of pandas.DataFrame, covariance of file {name}"


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.permutations("ABC"), columns=st.permutations("ABC"), se=st.booleans())
def test_labels_decide_the_order_of_rows_and_columns(tmp_path, rows, columns, se):
    path = write(LABELLED.loc[rows, columns], tmp_path / "c.csv")
    cells = effects(covariance=path, se="se" if se else None)
    xr.testing.assert_identical(cells.drop_attrs(), effects(covariance=COVARIANCE).drop_attrs())


def test_without_labels_of_rows_the_header_is_their_order(tmp_path):
    path = write(LABELLED.loc[list("BCA"), list("BCA")], tmp_path / "c.csv", index=False)
    xr.testing.assert_identical(
        effects(covariance=path, se=None).drop_attrs(), effects(covariance=COVARIANCE).drop_attrs()
    )


HOSTILE = ['O\'Neil, "the" school', "'; drop table x; --", "漢字 \u202e<b>", " 007 "]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("labels", [HOSTILE, ["007", "07", "7", "1e1"], ["true", "false", "NULL", "nan"]])
def test_labels_may_hold_anything(tmp_path, suffix, labels):
    table = {"school": labels, "y": [1.0, 2.0, 3.0, 4.0], "se": [1.0, 2.0, 3.0, 4.0]}
    matrix = np.diag([1.0, 4.0, 9.0, 16.0])
    path = write(pd.DataFrame(matrix, index=labels, columns=labels).iloc[::-1], tmp_path / f"c{suffix}")
    cells = effects(table, covariance=path)
    xr.testing.assert_identical(cells.drop_attrs(), effects(table, covariance=matrix).drop_attrs())


def test_numbers_are_labels_as_they_are_written_in_segments(tmp_path):
    table = {"school": [2, 1], "y": [1.0, 2.0], "se": [1.0, 2.0]}
    path = write(pd.DataFrame(np.diag([4.0, 1.0]), index=[1, 2], columns=["1", "2"]), tmp_path / "c.csv")
    assert effects(table, covariance=path).covariance.values.tolist() == [[4.0, 0.0], [0.0, 1.0]]


def test_levels_of_several_dimensions_are_joined(tmp_path):
    table = {"school": ["A", "B"], "year": [1, 1], "y": [1.0, 2.0], "se": [1.0, 2.0]}
    labels = ["B · 1", "A · 1"]
    path = write(pd.DataFrame(np.diag([4.0, 1.0]), index=labels, columns=labels), tmp_path / "c.csv")
    cells = effects(table, segments=["school", "year"], covariance=path)
    assert cells.covariance.values.tolist() == [[1.0, 0.0], [0.0, 4.0]]


def without(*labels: str) -> pd.DataFrame:
    return LABELLED.drop(index=list(labels), columns=list(labels))


BAD = {
    "other labels": (
        LABELLED.rename(columns={"C": "c"}),
        "the header of the covariance in file c.csv lacks 'C' and has 'c'; it must name the segments",
    ),
    "other rows": (LABELLED.rename(index={"C": "D"}), "the column 'column0' of .* lacks 'C' and has 'D'"),
    "row twice": (LABELLED.rename(index={"C": "A"}), "lacks 'C'; it must name"),
    "no labels": (pd.DataFrame(COVARIANCE), "the header .* lacks 'C', 'A', 'B' and has '0', '1', '2'"),
    "too small": (without("A"), r"has 3 columns|lacks 'A'"),
    "smaller": (without("A", "B"), "has 2 columns; 3 estimates need one for each"),
    "text": (LABELLED.astype(object).replace(256.0, "x"), "covariance must hold numbers"),
    "gap": (LABELLED.replace(256.0, np.nan), "has 1 entries that are not finite"),
    "asymmetric": (LABELLED.assign(A=[10.0, 225.0, 31.0]), "not symmetric: 'A' with 'B' differs"),
    "row missing": (LABELLED.iloc[:2], "lacks 'B'"),
    "row repeated": (pd.concat([LABELLED, LABELLED.iloc[:1]]), "has 'C', 'A', 'B', some of them twice"),
}


@pytest.mark.parametrize(("table", "message"), BAD.values(), ids=BAD)
def test_a_file_that_is_no_covariance_of_the_estimates_is_named(tmp_path, table, message):
    path = write(table, tmp_path / "c.csv")
    with pytest.raises(DataError, match=message):
        effects(covariance=path)


def test_rows_without_labels_are_counted(tmp_path):
    with pytest.raises(DataError, match=r"the covariance in file c\.csv has 2 rows; 3 estimates need 3"):
        effects(covariance=write(LABELLED.iloc[:2], tmp_path / "c.csv", index=False))


def test_a_missing_file_and_a_false_ending_are_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*none\.csv"):
        effects(covariance=tmp_path / "none.csv")
    with pytest.raises(DataError, match="is no file that can be read here"):
        effects(covariance="matrix.json")


def test_segments_with_one_label_need_a_matrix(tmp_path):
    table = {"a": ["x · y", "x"], "b": ["z", "y · z"], "y": [1.0, 2.0], "se": [1.0, 2.0]}
    path = write(pd.DataFrame(np.diag([1.0, 4.0])), tmp_path / "c.csv")
    with pytest.raises(DataError, match="some segments have the same label; give the covariance as a matrix"):
        effects(table, segments=["a", "b"], covariance=path)
