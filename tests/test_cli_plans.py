"""The command line with plans of several questions: run, check, aggregate, register, and their exit codes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from example_plans import BREAKDOWNS, GOAL, GUARDRAIL, SPENT, make_rows, write_plan

from bayes_hte import cli

type Call = Callable[..., tuple[Any, str, str]]
SMALL: dict[str, Any] = {"metrics": [GOAL, GUARDRAIL], "breakdowns": [["device"]]}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["bayes-hte", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return command


def test_a_run_writes_one_page_one_table_one_summary_and_the_fits(call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", write_plan(tmp_path, **SMALL, decision={}), "--out", "out")
    assert code == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "report.html",
        "effects.csv",
        "summary.json",
        "fits",
    }
    assert len(list((tmp_path / "out" / "fits").glob("*.nc"))) == 2
    assert "0 of 2 questions were registered before the test." in out
    assert "bought by device" in err
    # The rule of the plan is carried out where people look first.
    decisions = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["decisions"]
    assert decisions
    assert all(f"{row['segment']} · {row['arm']}: {row['decision']}. {row['why']}" in out for row in decisions)


def test_json_is_the_summary_that_is_written(call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", write_plan(tmp_path, **SMALL), "--out", "out", "--json", "--no-report")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))


def test_a_question_that_fails_is_told_and_ends_with_3(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, metrics=[GOAL, {**SPENT, "model": "conversion"}], breakdowns=[["device"]])
    code, out, err = call("run", plan, "--out", "out", "--no-report")
    assert code == 3
    assert "spent by device cannot be fitted: " in err
    assert "1 of 2 questions could not be fitted." in out
    code, out, _ = call("check", plan, "--json")
    assert code == 3
    answer = json.loads(out)
    assert (answer["ok"], answer["failed"][0]["metric"]) == (False, "spent")


def test_a_column_that_is_not_there_is_an_error_and_nothing_is_written(call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", write_plan(tmp_path, breakdowns=[["devise"]]), "--out", "out")
    assert (code, out) == (1, "")
    assert "lacks the column 'devise'; did you mean 'device'?" in err
    assert not (tmp_path / "out").exists()


def test_check_restates_every_question_and_says_what_all_share_once(call: Call, tmp_path: Path) -> None:
    code, out, err = call("check", write_plan(tmp_path, make_rows().drop(index=range(0, 900, 2))))
    assert (code, err) == (0, "")
    assert out.startswith("The plan, the model and the data fit together: 9 questions.")
    assert out.count("status:   exploratory") == 9
    assert [line for line in out.splitlines() if line.endswith("by device × customer")]
    lines = [line for line in out.splitlines() if line.startswith("- ")]
    assert len(lines) == len(set(lines))


def test_check_warns_of_more_than_five_dimensions(call: Call, tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(6)]
    rows = make_rows().assign(**{name: make_rows()["customer"] for name in names})
    _, out, _ = call("check", write_plan(tmp_path, rows, metrics=[GOAL], breakdowns=[[name] for name in names]))
    assert "- the plan declares 6 dimensions ('d0'" in out


def test_aggregate_prints_the_cells_of_all_questions(call: Call, tmp_path: Path) -> None:
    code, _, _ = call("aggregate", write_plan(tmp_path), "--out", "cells.csv")
    assert code == 0
    cells = pd.read_csv(tmp_path / "cells.csv")
    assert list(cells.columns[:4]) == ["metric", "breakdown", "segment", "arm"]
    counts = cells.groupby(["metric", "breakdown"])["n"].sum()
    assert len(counts) == 3 * len(BREAKDOWNS)
    assert (counts == 2400).all()


def test_register_and_run_and_change(call: Call, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, **SMALL)
    code, out, _ = call("register", plan)
    assert (code, "plan.lock.toml; commit it" in out) == (0, True)
    code, out, _ = call("run", plan, "--out", "out", "--no-report")
    assert "2 of 2 questions were registered before the test." in out
    write_plan(tmp_path, **SMALL, report={"ci_prob": 0.9})
    code, _, err = call("register", plan)
    assert code == 1
    assert "what differs: report.ci_prob: 0.95 → 0.9" in err
    code, out, _ = call("run", plan, "--out", "out", "--no-report")
    assert "Changed in the plan since it was registered: report.ci_prob: 0.95 → 0.9." in out
    assert call("register", plan, "--force")[0] == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["registered"] is False


@pytest.mark.parametrize("content", ["", "format = 3\n", 'format = "bayes_hte lock 1"\n', "[["])
def test_a_lock_that_is_none_is_one_sentence(call: Call, tmp_path: Path, content: str) -> None:
    plan = write_plan(tmp_path, **SMALL)
    (tmp_path / "plan.lock.toml").write_text(content, encoding="utf-8")
    code, out, err = call("run", plan, "--out", "out")
    assert (code, out) == (1, "")
    assert "plan.lock.toml" in err
    assert "Traceback" not in err
