"""Results for other programs: safe CSV, strict JSON, and all files or none."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from example_posterior import example_fit, example_plan

from bayes_hte import OutputError, load
from bayes_hte._support.atomic_files import write_text_atomically
from bayes_hte.analysis import export
from bayes_hte.analysis.export import make_staging_folder, to_safe_csv, to_strict_json, write_results

FILES = ["effects.csv", "fit.nc", "report.html", "summary.json"]
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "\nx", '=HYPERLINK("http://x")']


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def parsed(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_can_run_as_a_formula(text: str) -> None:
    assert parsed(to_safe_csv(pd.DataFrame({"device": [text], text: ["x"]}))) == [
        ["device", f"'{text}"],
        [f"'{text}", "x"],
    ]


def test_numbers_are_not_touched() -> None:
    numbers: dict[str, list[Any]] = {"a": [-1.5, np.nan, 1e-20], "b": pd.array([-3, None, 4], dtype="Int64")}
    levels = ["-1", "+2.5e3", "1"]
    _, *rows = parsed(to_safe_csv(pd.DataFrame({**numbers, "level": levels})))
    assert rows == [["-1.5", "-3", "-1"], ["", "", "+2.5e3"], ["1e-20", "4", "1"]]


def test_harmless_text_is_not_touched() -> None:
    for text in ("mobile", "a=b", "é", " =1", 'with "quotes", and commas', "two\nlines", "'quoted"):
        assert parsed(to_safe_csv(pd.DataFrame({"device": [text]})))[1] == [text]


def test_a_fit_with_hostile_names_exports_safely() -> None:
    fit = example_fit(["=1+1", "-cmd"], arms=("control", "@new"), dimensions=("=device",))
    header, *rows = parsed(to_safe_csv(fit.table(detail=True)))
    assert header[:2] == ["'=device", "arm"]
    assert [row[:2] for row in rows] == [["'=1+1", "'@new"], ["'-cmd", "'@new"]]


def test_every_number_comes_back_from_the_csv() -> None:
    table = example_fit(4, one_armed=(2,)).table(detail=True)
    back = pd.read_csv(io.StringIO(to_safe_csv(table)))
    numbers = list(table.columns[2:])
    # the default parser may be off by the last digit
    np.testing.assert_allclose(back[numbers].astype(float), table[numbers].astype(float), rtol=4 * np.finfo(float).eps)


def test_json_is_strict() -> None:
    content = {
        "nan": float("nan"), "inf": np.inf, "float": np.float64(0.5), "int": np.int64(3), "bool": np.True_,
        "missing": pd.NA, "none": None, "list": (1, np.nan), "nested": {"x": [{"y": -np.inf}]}, "text": "é\x1b",
    }  # fmt: skip
    text = to_strict_json(content)
    assert text.endswith("\n")
    assert "\x1b" not in text
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found == {
        "nan": None, "inf": None, "float": 0.5, "int": 3, "bool": True,
        "missing": None, "none": None, "list": [1, None], "nested": {"x": [{"y": None}]}, "text": "é\x1b",
    }  # fmt: skip


@pytest.mark.parametrize("family", ["binomial", "normal", "mean", "estimate"])
def test_the_summary_says_everything_a_program_needs(family: Any) -> None:
    fit = example_fit(3, family, arms=("control", "email", "sms"), one_armed=() if family == "estimate" else (1,))
    found = json.loads(
        to_strict_json(export.build_summary(fit)), parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert found["format"] == "bayes_hte summary 1"
    assert (found["scale"], found["ci_prob"], found["reliable"]) == ("absolute", 0.95, True)
    assert found["arms"] == ["email", "sms"]
    assert len(found["segments"]) == 6
    assert found["segments"][0]["effect"] == fit.table()["effect"][0]
    assert found["ate"][0]["effect"] == fit.ate()["effect"][0]
    assert found["ate"][0]["raw"] == fit.ate()["raw"][0]
    assert (found["average"], found["population"]) == (fit.ate().attrs["average"], fit.ate().attrs["population"])
    assert {"seed", "sampler", "versions", "data_sha256"} <= set(found["provenance"])
    if family == "binomial":
        assert found["segments"][3]["raw"] is None
        unequal, uneven, lacking = found["warnings"]
        assert "if equal shares were planned" in unequal
        assert "are distributed differently over the arms" in uneven
        assert "lacks an arm" in lacking


def test_a_fit_that_cannot_be_trusted_says_so_in_the_summary() -> None:
    found = export.build_summary(example_fit(3, ok=False))
    assert found["reliable"] is False
    assert found["diagnosis"]["problems"] == ["The chains disagree: R-hat is 1.700."]


def test_results_are_four_files(tmp_path: Path) -> None:
    fit = example_fit(3, plan=example_plan())
    written = write_results(fit, tmp_path / "a" / "out")
    assert sorted(path.name for path in written) == FILES
    assert sorted(path.name for path in (tmp_path / "a" / "out").iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    pd.testing.assert_frame_equal(load(tmp_path / "a" / "out" / "fit.nc").table(), fit.table())
    assert json.loads((tmp_path / "a" / "out" / "summary.json").read_text()) == json.loads(
        to_strict_json(export.build_summary(fit))
    )
    assert example_plan().title in (tmp_path / "a" / "out" / "report.html").read_text()


def test_the_csv_says_what_its_numbers_are_and_ends_with_whether_to_trust_them(tmp_path: Path) -> None:
    fit = example_fit(3, plan=example_plan(report={"scale": "relative"}), outcome="bought")
    write_results(fit, tmp_path, report=False)
    found, table = pd.read_csv(tmp_path / "effects.csv"), fit.table(detail=True)
    assert list(found.columns) == [*table.columns[:-1], "scale", "units", "reading", "registered", "reliable"]
    assert set(found["scale"]) == {"relative"}
    assert set(found["units"]) == {"share of the control's mean (0.01 is 1 %)"}
    verdicts = [row["verdict"] for row in export.build_summary(fit)["segments"]]
    assert [text.rpartition("; ")[2] for text in found["reading"]] == verdicts
    assert found["reading"].str.startswith("email − control in 'bought': ").all()
    # Six significant digits: off by less than half of the sixth.
    np.testing.assert_allclose(found["effect"], table["effect"], rtol=5.01e-6)
    digits = found["effect"].map(lambda value: len(f"{value!r}".replace("-", "").replace(".", "").strip("0")))
    assert digits.max() <= 6


def test_excel_finds_the_mark_of_its_encoding_only_on_request(tmp_path: Path) -> None:
    fit = example_fit(["Zürich", "Genève"])
    for excel in (True, False):
        write_results(fit, tmp_path, report=False, excel=excel)
        assert (tmp_path / "effects.csv").read_bytes().startswith(b"\xef\xbb\xbf") is excel
    assert set(pd.read_csv(tmp_path / "effects.csv")["device"]) == {"Zürich", "Genève"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that need no figures."""

    def writer(name: str) -> Any:
        return lambda path: write_text_atomically(path, f"the new {name}")

    monkeypatch.setattr(export, "_map_file_writers", lambda *fit: {name: writer(name) for name in FILES})


@pytest.mark.usefixtures("quick")
def test_others_may_read_the_results(tmp_path: Path) -> None:
    for path in write_results(example_fit(2), tmp_path / "out"):
        assert path.stat().st_mode & 0o044 == 0o044


@pytest.mark.usefixtures("quick")
def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "effects.csv").write_text("old")
    write_results(example_fit(2), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "effects.csv").read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])


@pytest.mark.parametrize("failing", FILES)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("bug")])
@pytest.mark.parametrize("there", [True, False])
def test_all_files_are_written_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException, there: bool
) -> None:
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
        for name in FILES:
            (folder / name).write_text(f"the old {name}")
    before = snapshot(tmp_path)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise error

    writers = {name: (fail if name == failing else lambda path: path.write_text("new")) for name in FILES}
    monkeypatch.setattr(export, "_map_file_writers", lambda *fit: writers)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        write_results(example_fit(2), folder)
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("quick")
def test_without_a_report_an_older_one_does_not_stay(tmp_path: Path) -> None:
    for name in (*FILES, "notes.txt"):
        (tmp_path / name).write_text("old")
    written = write_results(example_fit(2), tmp_path, report=False)
    left = [name for name in FILES if name != "report.html"]
    assert sorted(path.name for path in written) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*left, "notes.txt"])
    assert all((tmp_path / name).read_text() == f"the new {name}" for name in left)


def test_without_a_report_a_failure_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FILES:
        (tmp_path / name).write_text("old")
    before = snapshot(tmp_path)

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_map_file_writers", lambda *fit: dict.fromkeys(FILES, fail))
    with pytest.raises(OutputError, match="No space left"):
        write_results(example_fit(2), tmp_path, report=False)
    assert snapshot(tmp_path) == before


def test_answers_are_the_tables_of_the_fit() -> None:
    fit = example_fit(4, arms=("control", "email", "sms"), plan=example_plan(report={"unit": "visit", "rope": 0.01}))
    found = export.build_result_tables(fit)
    pd.testing.assert_frame_equal(found.segment_table, fit.table(detail=True))
    pd.testing.assert_frame_equal(found.brief_segment_table, fit.table().drop(columns="reliable"))
    pd.testing.assert_frame_equal(found.ate_table, fit.ate())
    pd.testing.assert_frame_equal(found.heterogeneity_table, fit.heterogeneity())


@pytest.mark.parametrize("ok", [True, False])
def test_every_row_in_a_file_says_whether_to_trust_it(tmp_path: Path, ok: bool) -> None:
    fit = example_fit(3, ok=ok)
    write_results(fit, tmp_path, report=False)
    effects = pd.read_csv(tmp_path / "effects.csv")
    assert effects.columns[-1] == "reliable"
    assert effects["reliable"].tolist() == [ok] * 3
    summary = json.loads((tmp_path / "summary.json").read_text())
    for part in ("ate", "segments", "heterogeneity"):
        assert {row["reliable"] for row in summary[part]} == {ok}


def test_files_hold_what_the_plans_rule_decides_and_nothing_where_it_has_none(tmp_path: Path) -> None:
    ruled = example_fit(3, effect=0.9, plan=example_plan(decision={"cost": 0.001}, report={"rope": 0.01}))
    write_results(ruled, tmp_path / "ruled", report=False)
    decisions = ruled.decide()
    effects = pd.read_csv(tmp_path / "ruled" / "effects.csv")
    assert list(effects.columns[-3:]) == ["decision", "why", "reliable"]
    assert effects["decision"].tolist() == decisions["decision"].tolist()
    assert effects["why"].tolist() == decisions["why"].tolist()
    summary = json.loads((tmp_path / "ruled" / "summary.json").read_text())["decisions"]
    assert summary["rule"]["ship"] == [{"above": 0.0, "p": 0.95}, {"above": "matters", "p": 0.5}]
    assert (summary["rule"]["matters"], summary["rule"]["cost"]) == (0.01, 0.001)
    assert [row["decision"] for row in summary["segments"]] == decisions["decision"].tolist()
    assert summary["all_segments"] == decisions.attrs["all_segments"]
    write_results(example_fit(3), tmp_path / "plain", report=False)
    assert json.loads((tmp_path / "plain" / "summary.json").read_text())["decisions"] is None
    assert "decision" not in pd.read_csv(tmp_path / "plain" / "effects.csv").columns


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("blocked", FILES)
def test_a_result_that_cannot_be_replaced_leaves_all_as_they_were(tmp_path: Path, blocked: str) -> None:
    for name in FILES:
        (tmp_path / name).mkdir() if name == blocked else (tmp_path / name).write_text("old")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=f"{blocked} is a folder, in the way of the file"):
        write_results(example_fit(2), tmp_path)
    assert snapshot(tmp_path) == before


def test_a_folder_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutputError, match=r"cannot be a folder: .*file is a file"):
            make_staging_folder(folder)
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_reserving_makes_only_the_staging_folder(tmp_path: Path) -> None:
    staging = make_staging_folder(tmp_path / "a" / "b")
    assert staging.parent == tmp_path
    assert list(tmp_path.iterdir()) == [staging]
