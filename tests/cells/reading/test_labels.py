"""Labels are what the data say: text as it is written, values alike in every engine."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayes_hte.cells import from_rows, from_summary
from bayes_hte.cells.reading.labels import format_labels, match_label
from bayes_hte.spec.cell_table import list_notes

LABELS = {
    "versions": ["1.1", "1.10", "1.9"],
    "product codes": ["1e5", "1E5", "100000", "007", "7"],
    "decimals": ["0.50", "0.5", "1.0", "1", "5."],
    "long decimals": ["0.1000000000000000055", "0.1"],
    "words for missing": ["NA", "NULL", "nan", "None", "inf"],
    "booleans among others": ["TRUE", "True", "true", "yes"],
    "dates": ["2026-03-01", "03/01/2026", "2026-03-01 00:00:00"],
}


def write_rows(path: Path, labels: list[str], repeats: int = 4) -> Path:
    """Write units of two arms for every label, which is segment, arm suffix and cluster at once."""
    lines = [f"{label},{arm},{label}-{i},{i % 2}" for label in labels for arm in "ab" for i in range(repeats)]
    path.write_text("\n".join(["seg,arm,who,y", *lines]) + "\n")
    return path


@pytest.mark.parametrize("case", LABELS)
def test_levels_of_text_files_are_kept_as_they_are_written(tmp_path: Path, case: str) -> None:
    path = write_rows(tmp_path / "rows.csv", LABELS[case])
    cells = from_rows(path, outcome="y", arm="arm", control="a", segments=["seg"], unit="who")
    assert sorted(cells["segment"].values.tolist()) == sorted(LABELS[case])
    assert (cells["n"] == 4).all()


def test_a_label_late_in_a_file_does_not_make_it_unreadable(tmp_path: Path) -> None:
    # DuckDB guesses from the first 20,480 rows.
    path = write_rows(tmp_path / "rows.csv", ["1.1", "1.2", "2.0-rc1"], repeats=6000)
    cells = from_rows(path, outcome="y", arm="arm", control="a", segments=["seg"])
    assert cells["segment"].values.tolist() == ["1.1", "1.2", "2.0-rc1"]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_arms_and_clusters_are_names_too(tmp_path: Path, kind: str) -> None:
    mark = {"csv": ",", "tsv": "\t"}[kind]
    lines = [
        mark.join(("x", arm, f"{place}.{"0" * (i % 2)}1", str(i % 3 + i // 3)))
        for place in (1, 2) for arm in ("2.1", "2.10") for i in range(6)
    ]  # fmt: skip
    path = tmp_path / f"rows.{kind}"
    path.write_text("\n".join([mark.join(("seg", "arm", "who", "y")), *lines]) + "\n")
    cells = from_rows(path, outcome="y", arm="arm", control="2.10", segments=["seg"])
    assert cells["arm"].values.tolist() == ["2.10", "2.1"]
    clustered = from_rows(path, outcome="y", arm="arm", control="2.1", segments=["seg"], cluster="who")
    assert clustered["n"].values.tolist() == [[4, 4]]  # 1.1, 1.01, 2.1 and 2.01: as numbers two of them


@pytest.mark.parametrize("control", [0, 0.0, "0.0", "0", np.int64(0)])
def test_the_control_is_found_by_its_number(tmp_path: Path, control: object) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("seg,arm,n,k\nx,0.0,10,1\nx,1.0,10,2\n")
    cells = from_summary(path, arm="arm", control=control, segments=["seg"], n="n", events="k")  # type: ignore[arg-type]
    assert cells.attrs["control"] == "0.0"


def test_a_number_that_fits_several_labels_or_none_names_none() -> None:
    assert match_label(1, ["1.0", "1.00"]) == "1"
    assert match_label("1.1", ["1.10"]) == "1.1"
    assert match_label(True, ["True", "x"]) == "True"


def test_labels_that_are_equal_as_numbers_are_said(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.csv", ["63", "63.0", "70"])
    cells = from_rows(path, outcome="y", arm="arm", control="a", segments=["seg"])
    assert any("'63' and '63.0' are levels of their own in seg" in note for note in list_notes(cells))


def test_a_column_of_booleans_reads_the_same_from_a_text_file() -> None:
    assert format_labels([True, False]) == format_labels(["True", "False"]) == format_labels(["TRUE", "FALSE"])


@pytest.mark.parametrize("as_text", [False, True])
def test_interval_labels_have_the_digits_that_tell_them_apart(as_text: bool) -> None:
    edges = np.linspace(0, 1, 4) + 0.1 + 0.2
    intervals = list(pd.IntervalIndex.from_breaks(edges))
    labels = format_labels([str(interval) for interval in intervals] if as_text else intervals)
    assert labels == ["(0.3, 0.633333]", "(0.633333, 0.966667]", "(0.966667, 1.3]"]
    close = list(pd.IntervalIndex.from_breaks([1.0, 1.00000001, 1.00000002]))
    assert len(set(format_labels(close))) == 2
