"""The command line: exit codes, one-line errors, nothing written when something is wrong.

The whole pipeline runs here, files included; only the engines are replaced by hand-made draws. Two slow tests sample.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import example_posterior
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from paths import ROOT

import bayes_hte as hte
from bayes_hte import cli, report
from bayes_hte.analysis import run
from bayes_hte.inference import exact
from bayes_hte.inference.draws import Draws
from bayes_hte.inference.nuts import engine as nuts_engine
from bayes_hte.model.problem import Problem
from bayes_hte.spec import list_shipped_models

FILES = ["effects.csv", "fit.nc", "report.html", "summary.json"]
EXAMPLES = sorted(ROOT.glob("examples/*/*.toml"))
PLANS = [path for path in EXAMPLES if "[data]" in path.read_text(encoding="utf-8")]
ESC = "\x1b[31mred\x9b2J\x07\u202e"


class Sampler:
    """Stands in for NUTS; may disagree with itself, or be stopped."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.bad = False
        self.stopped = False

    def __call__(self, task: Problem, **asked: Any) -> Draws:
        self.asked.append(asked)
        if self.stopped:
            raise KeyboardInterrupt
        draws = example_posterior._posterior(task, np.random.default_rng(asked["seed"]))
        if self.bad:
            draws["effect"][{"chain": 0}] += 5.0
        return Draws(draws, xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 1000), dtype=bool))}))


@pytest.fixture(autouse=True)
def sampler(monkeypatch: pytest.MonkeyPatch) -> Sampler:
    found = Sampler()
    monkeypatch.setattr(example_posterior, "DRAWS", 1000)
    monkeypatch.setattr(nuts_engine, "sample_with_nuts", found)
    monkeypatch.setattr(exact, "beyond", lambda task: "NUTS can be made to fail in a test")
    return found


def hostile(text: str) -> bool:
    return any(not c.isprintable() and c not in "\r\n" for c in text)


class Answer:
    """What a command said."""

    def __init__(self, code: Any, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


type Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["bayes-hte", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return Answer(stop.value.code, said.out, said.err)

    return command


def users(**changes: Any) -> pd.DataFrame:
    """120 users: two devices, two arms, 30 users in each cell."""
    columns: dict[str, Any] = {
        "device": np.repeat(["mobile", "tv"], 60),
        "arm": np.tile(["none", "email"], 60),
        "visit": [int(i % 7 < 2 + i % 2) for i in range(120)],
    }
    return pd.DataFrame(columns | changes)


ROWS = {"outcome": "visit", "arm": "arm", "control": "none", "segments": ["device"]}
SUMMARY: dict[str, Any] = {
    "form": "summary", "outcome": "visit", "arm": "arm", "control": "none", "segments": ["device"]
}  # fmt: skip
ESTIMATES: dict[str, Any] = {"form": "estimates", "segments": ["school"], "estimate": "y", "se": "se"}


def counted(**changes: Any) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "device": ["mobile", "mobile", "tv", "tv"],
        "arm": ["none", "email"] * 2,
        "n": [100, 100, 80, 90],
        "events": [10, 15, 8, 9],
    }
    return pd.DataFrame(columns | changes)


def schools(**changes: Any) -> pd.DataFrame:
    columns: dict[str, Any] = {"school": ["A", "B", "C"], "y": [2.8, 0.8, -0.3], "se": [1.5, 1.0, 1.6]}
    return pd.DataFrame(columns | changes)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=True)


def plan_file(folder: Path, *, data: dict[str, Any] | None = None, model: str = "conversion", more: str = "") -> Path:
    """Write a plan; keys of its tables as given."""
    lines = ['title = "A test"', f"model = {toml(model)}", more, "[data]"]
    lines += [f"{key} = {toml(value)}" for key, value in (data or {"path": "users.csv", **ROWS}).items()]
    path = folder / "plan.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def experiment(folder: Path, table: pd.DataFrame, data: dict[str, Any] = ROWS, **plan: Any) -> Path:
    """A plan and its CSV file in a folder of their own."""
    table.to_csv(folder / "users.csv", index=False)
    return plan_file(folder, data={"path": "users.csv", **data}, **plan)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without figures, where the report is not what is tested: drawing takes most of the time."""
    monkeypatch.setattr(report, "render", lambda *everything: "<!doctype html>")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_run_writes_four_files_and_prints_the_table(call: Call, tmp_path: Path, sampler: Sampler) -> None:
    answer = call("run", experiment(tmp_path, users()), "--out", "out")
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plan.toml", "users.csv"]
    assert answer.out.split()[:2] == ["device", "arm"]
    assert "diagnosis: passed" in answer.out
    assert all(stage in answer.err for stage in ("reading", "fitting", "reporting"))
    fit = hte.load(tmp_path / "out" / "fit.nc")
    assert fit.plan is not None
    assert (fit.plan.title, fit.diagnosis.ok) == ("A test", True)
    asked = {name: value for name, value in sampler.asked[0].items() if name != "settings"}
    assert asked == {"draws": 4000, "seed": 1, "progress": False}


@pytest.mark.usefixtures("plain")
def test_results_go_to_a_folder_named_after_the_plan(call: Call, tmp_path: Path) -> None:
    (tmp_path / "email").mkdir()
    experiment(tmp_path / "email", users())
    assert call("run", "email/plan.toml", "--quiet").code == 0
    assert sorted(path.name for path in (tmp_path / "results" / "email").iterdir()) == FILES


@pytest.mark.usefixtures("plain")
def test_options_win_over_the_plan(call: Call, tmp_path: Path, sampler: Sampler) -> None:
    plan = experiment(tmp_path, users(), more="[sampling]\ndraws = 500\nseed = 3")
    users(visit=1 - users()["visit"]).to_csv(tmp_path / "other.csv", index=False)
    answer = call("run", plan, "--data", "other.csv", "--draws", "800", "--seed", "0", "--quiet", "--out", "out")
    assert (answer.code, answer.err) == (0, "")
    assert (sampler.asked[0]["draws"], sampler.asked[0]["seed"]) == (800, 0)
    events = hte.load("out/fit.nc").cells["events"].sum()
    assert events == (users()["visit"] == 0).sum()


@pytest.mark.usefixtures("plain")
def test_json_is_all_that_is_printed(call: Call, tmp_path: Path) -> None:
    plan = experiment(tmp_path, users())
    said = {}
    for command, *more in (["run", "--out", "out"], ["check"], ["aggregate"]):
        answer = call(command, plan, *more, "--json")
        assert (answer.code, answer.err) == (0, "")
        json.loads(answer.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        said[command] = answer.out
    assert said["run"] == (tmp_path / "out" / "summary.json").read_text()


def test_without_a_report_the_other_files_are_the_same(call: Call, tmp_path: Path) -> None:
    plan = experiment(tmp_path, users())
    whole = call("run", plan, "--out", "out")
    before = snapshot(tmp_path / "out")
    answer = call("run", plan, "--out", "out", "--no-report")
    assert (answer.code, whole.code) == (0, 0)
    assert "report.html" in whole.out
    assert "report.html" not in answer.out
    after = snapshot(tmp_path / "out")
    assert sorted(after) == [name for name in FILES if name != "report.html"]
    assert all(after[name] == before[name] for name in after)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("terminal", "environment", "look"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_a_terminal_that_wants_it_gets_a_look(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], look: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    err = call("run", experiment(tmp_path, users()), "--out", "out").err
    assert ("\x1b[2mreading …\x1b[0m\n" in err) is (look and os.name != "nt")
    assert ("\x1b" in err) is (look and os.name != "nt")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("flags", [["--json"], ["--quiet"], []])
def test_progress_is_shown_only_to_people_who_want_it(
    call: Call, tmp_path: Path, sampler: Sampler, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    call("run", experiment(tmp_path, users()), "--out", "out", *flags)
    assert sampler.asked[-1]["progress"] is (not flags)


@pytest.mark.usefixtures("plain")
def test_a_failed_diagnosis_is_written_marked_and_told_by_the_exit_code(
    call: Call, tmp_path: Path, sampler: Sampler
) -> None:
    sampler.bad = True
    plan = experiment(tmp_path, users())
    answer = call("run", plan, "--out", "out")
    assert answer.code == 3
    assert "diagnosis: FAILED" in answer.out
    assert len(sampler.asked) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (found["reliable"], found["diagnosis"]["refitted"]) == (False, True)
    assert found["diagnosis"]["problems"]
    assert not hte.load("out/fit.nc").diagnosis.ok
    answer = call("run", plan, "--out", "out", "--json")
    assert (answer.code, json.loads(answer.out)["reliable"]) == (3, False)


def test_ctrl_c_writes_nothing(call: Call, tmp_path: Path, sampler: Sampler) -> None:
    plan = experiment(tmp_path, users())
    before = snapshot(tmp_path)
    sampler.stopped = True
    answer = call("run", plan, "--out", "out", "--quiet")
    assert (answer.code, answer.out, answer.err) == (130, "", "stopped; nothing was written\n")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [[], ["fit"], ["run"], ["run", "plan.toml", "--draws", "many"], ["check", "plan.toml", "--out", "x"], ["show"]],
)
def test_wrong_usage_is_exit_code_2(call: Call, words: list[str]) -> None:
    answer = call(*words)
    assert (answer.code, answer.out) == (2, "")
    assert "usage: bayes-hte" in answer.err


def test_an_option_that_is_no_number_is_named(call: Call) -> None:
    assert "argument --draws: invalid int value: 'many'" in call("run", "plan.toml", "--draws", "many").err


def test_the_version_is_the_one_in_pyproject(call: Call) -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    answer = call("--version")
    assert (answer.code, answer.out) == (0, f"bayes-hte {stated}\n")
    assert hte.__version__ == stated


type Made = tuple[str, Callable[[Path], Path]]


def csv_case(table: pd.DataFrame, data: dict[str, Any] = ROWS, **plan: Any) -> Callable[[Path], Path]:
    return lambda folder: experiment(folder, table, data, **plan)


def bytes_case(content: bytes, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return plan_file(folder, data={"path": name, **ROWS})

    return make


def truncated_parquet(folder: Path) -> Path:
    users().to_parquet(folder / "users.parquet")
    whole = (folder / "users.parquet").read_bytes()
    (folder / "users.parquet").write_bytes(whole[: len(whole) // 2])
    return plan_file(folder, data={"path": "users.parquet", **ROWS})


def parquet_case(table: pd.DataFrame) -> Callable[[Path], Path]:
    """Infinity is a number in Parquet; in a CSV file it is the text "inf"."""

    def make(folder: Path) -> Path:
        table.to_parquet(folder / "users.parquet")
        return plan_file(folder, data={"path": "users.parquet", **ROWS})

    return make


def own_model(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "mine.toml").write_text(text, encoding="utf-8")
        return experiment(folder, users(), model="mine.toml")

    return make


def broken_plan(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "plan.toml").write_text(text, encoding="utf-8")
        return folder / "plan.toml"

    return make


N_EVENTS = SUMMARY | {"n": "n", "events": "events"}
MEAN_SE = SUMMARY | {"mean": "mean", "se": "se"}
MEANS = counted(mean=[1.0, 2.0, 1.5, 1.7], se=[0.1, 0.2, 0.1, 0.2])
WITH_NAN = users(visit=[np.nan, np.nan, 1, *users()["visit"][3:]])
WITH_INF = users(visit=[np.inf, *users()["visit"][1:].astype(float)])

BAD: dict[str, Made] = {
    "missing column": (r"lacks the column 'device'; .*columns are 'dev', 'arm', 'visit'",
                       csv_case(users().rename(columns={"device": "dev"}))),
    "control not found": (r"control arm 'control'; arms in 'arm' are 'email', 'none'",
                          csv_case(users(), ROWS | {"control": "control"})),
    "one arm": ("all units are in one arm, 'none'", csv_case(users(arm="none"))),
    "text outcome": ("'visit'.* must hold numbers, .*'often'", csv_case(users(visit=["often", "never", "NA"] * 40))),
    "not 0 or 1": ("every outcome must be 0 or 1; for other outcomes use family normal or mean",
                   csv_case(users(visit=np.arange(120)))),
    "NaN": (r"2 of 120 outcomes in 'visit' are missing; .*--drop-missing", csv_case(WITH_NAN)),
    "infinite": (r"1 of 120 outcomes in 'visit' is infinite; .*--drop-missing", parquet_case(WITH_INF)),
    "empty file": (r"is empty \(0 bytes\)", bytes_case(b"", "users.csv")),
    "header only": ("has no rows", bytes_case(b"device,arm,visit\n", "users.csv")),
    "no such file": ("there is no file", lambda folder: plan_file(folder, data={"path": "absent.csv", **ROWS})),
    "no data named": ("the plan names no data: add data.path, or pass --data FILE",
                      lambda folder: plan_file(folder, data=ROWS)),
    "not a table": ("known endings are .csv", bytes_case(b"x", "users.json")),
    "no events": ("no events in any cell", csv_case(users(visit=0))),
    "no events in a summary": ("no events in any cell", csv_case(counted(events=0), N_EVENTS)),
    "constant": ("the outcome does not vary", csv_case(users(visit=3.5), model="continuous")),
    "zero se": ("se must be greater than 0; wrong in segment 'mobile', arm 'email'",
                csv_case(MEANS.assign(se=[0.1, 0.0, 0.1, 0.1]), MEAN_SE, model="metric")),
    "negative se": ("se must be greater than 0; wrong in segment 'B'",
                    csv_case(schools(se=[1.0, -1.0, 1.0]), ESTIMATES, model="published-estimates")),
    "n below events": ("events must not be more than n; wrong in segment 'tv', arm 'none'",
                       csv_case(counted(n=[100, 100, 5, 90]), N_EVENTS)),
    "an id": (r"'device' has 120 levels for 120 units; did you mean an id\?", csv_case(users(device=np.arange(120)))),
    "duplicate rows": ("appears twice, in rows 1 and 3",
                       csv_case(counted(device="mobile"), N_EVENTS)),
    "column used twice": ("is used twice", csv_case(users(), ROWS | {"outcome": "arm"})),
    "unknown key in plan": (r"unknown key 'data.segmnts'; did you mean 'segments'\?",
                            csv_case(users(), {**ROWS, "segmnts": ["device"]})),
    "unknown key in model": (r"unknown key 'effect.betwen'; did you mean 'between'\?",
                             own_model('family = "binomial"\n[effect]\nbetwen = 1')),
    "unknown model": (r"no model 'converson'; did you mean 'conversion'\?", csv_case(users(), model="converson")),
    "missing model file": (r"no file .*absent.toml; the folder has plan.toml", csv_case(users(), model="absent.toml")),
    "model of another family": ('published estimates; these cells', csv_case(users(), model="published-estimates")),
    "means without n": ("give n", csv_case(MEANS, MEAN_SE, model="metric")),
    "invalid TOML": ("is not valid TOML", broken_plan('title = "open')),
    "invalid TOML in model": ("is not valid TOML", own_model("family = ")),
    "empty plan": ("the key 'title' is missing", broken_plan("")),
    "no plan": ("no file absent.toml; the folder has no .toml files", lambda folder: Path("absent.toml")),
    "unreadable parquet": ("cannot read file users.parquet", bytes_case(b"this is no parquet file", "users.parquet")),
    "truncated parquet": ("cannot read file users.parquet", truncated_parquet),
    "relative estimates": ("needs the control's mean",
                           csv_case(schools(), ESTIMATES, model="published-estimates",
                                    more='[report]\nscale = "relative"')),
    "newline in a name": ("control arm", csv_case(users(), ROWS | {"control": "a\nerror: all is well\x1b[2J"})),
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_written(
    call: Call, tmp_path: Path, sampler: Sampler, command: str, case: str
) -> None:
    match, make = BAD[case]
    plan = make(tmp_path)
    before = snapshot(tmp_path)
    flags = ["--out", "out", "--json"] if command == "run" else []
    answer = call(command, plan, *flags)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, "one line"
    assert not hostile(answer.err)
    with pytest.raises(hte.HteError, match=match):
        raise hte.HteError(answer.err)
    assert snapshot(tmp_path) == before
    assert sampler.asked == []


DATA_ONLY = ["missing column", "control not found", "NaN", "empty file", "an id", "truncated parquet", "no events"]


@pytest.mark.parametrize("case", DATA_ONLY)
def test_aggregate_refuses_bad_data_too(call: Call, tmp_path: Path, case: str) -> None:
    plan = BAD[case][1](tmp_path)
    before = snapshot(tmp_path)
    answer = call("aggregate", plan, "--out", "cells.csv")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: ")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("out", ["file", "file/deeper"])
def test_an_unwritable_place_is_told_before_the_fit(call: Call, tmp_path: Path, sampler: Sampler, out: str) -> None:
    plan = experiment(tmp_path, users())
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    answer = call("run", plan, "--out", out, "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: ")
    assert "is a file" in answer.err
    answer = call("aggregate", plan, "--out", "file/cells.csv")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert snapshot(tmp_path) == before
    assert sampler.asked == []


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    "words",
    [
        ["--draws", "0"],
        ["--draws", "399"],
        ["--draws", "-1"],
        ["--seed", "-1"],
    ],
)
def test_draws_and_seeds_that_make_no_sense_are_refused(
    call: Call, tmp_path: Path, sampler: Sampler, words: list[str]
) -> None:
    plan = experiment(tmp_path, users())
    before = snapshot(tmp_path)
    answer = call("run", plan, "--out", "out", "--quiet", *words)
    assert (answer.code, answer.out) == (2, "")
    assert f"error: argument {words[0]}: {words[0][2:]}={words[1]} is " in answer.err
    assert snapshot(tmp_path) == before
    assert sampler.asked == []


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("table", [WITH_NAN, WITH_INF], ids=["NaN", "infinite"])
def test_units_without_an_outcome_can_be_dropped_and_are_counted(
    call: Call, tmp_path: Path, table: pd.DataFrame
) -> None:
    plan = parquet_case(table)(tmp_path)
    answer = call("check", plan, "--drop-missing")
    assert (answer.code, answer.err) == (0, "")
    assert "; dropped" in answer.out
    assert call("run", plan, "--drop-missing", "--out", "out", "--quiet").code == 0
    left = int(np.isfinite(table["visit"]).sum())
    assert int(hte.load("out/fit.nc").cells["n"].sum()) == left
    assert any("dropped" in warning for warning in json.loads(Path("out/summary.json").read_text())["warnings"])


@pytest.mark.usefixtures("plain")
def test_a_segment_with_one_arm_is_kept_and_told(call: Call, tmp_path: Path) -> None:
    table = users()
    plan = experiment(tmp_path, table[(table["device"] != "tv") | (table["arm"] == "none")])
    answer = call("check", plan)
    assert (answer.code, answer.err) == (0, "")
    assert "- 1 segment lacks an arm: tv (no email); kept" in answer.out
    found = json.loads(call("check", plan, "--json").out)
    assert (found["ok"], found["segments"], found["arms"]) == (True, 2, 2)
    assert any("lacks an arm" in warning for warning in found["warnings"])
    answer = call("run", plan, "--out", "out")
    assert answer.code == 0
    assert "note: 1 segment lacks an arm" in answer.err


@pytest.mark.usefixtures("plain")
def test_a_mismatch_with_the_planned_shares_is_told_first_and_stops_nothing(call: Call, tmp_path: Path) -> None:
    plan = experiment(tmp_path, users(), ROWS | {"shares": {"none": 1, "email": 9}})
    answer = call("check", plan)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[1].startswith("- sample-ratio mismatch: the arms do not have their planned shares ")
    answer = call("run", plan, "--out", "out")
    assert answer.code == 0
    assert "note: sample-ratio mismatch: " in answer.err
    assert json.loads(Path("out/summary.json").read_text())["warnings"][0].startswith("sample-ratio mismatch: ")
    sound = call("check", experiment(tmp_path, users(), ROWS | {"shares": {"none": 1, "email": 1}})).out
    assert not [line for line in sound.splitlines() if line.startswith("- ")]


@pytest.mark.usefixtures("plain")
def test_what_is_asked_is_restated_before_the_fit_and_a_doubtful_direction_is_asked_about(
    call: Call, tmp_path: Path
) -> None:
    plan = experiment(tmp_path, users().rename(columns={"visit": "churned"}), ROWS | {"outcome": "churned"})
    answer = call("check", plan)
    assert "  outcome:  'churned': higher is taken as better, as report.higher_is_better is not stated\n" in answer.out
    assert answer.out.splitlines()[1].startswith("- is a higher 'churned' better? ")
    found = json.loads(call("check", plan, "--json").out)
    assert found["question"]["higher_is_better"] is None
    assert found["warnings"][0].startswith("is a higher 'churned' better? ")
    said = call("run", plan, "--out", "out", "--seed", "7").err
    assert said.index("'churned': higher is taken as better") < said.index("better? ") < said.index("fitting …")
    assert hte.load("out/fit.nc").tree.attrs["command"] == f"bayes-hte run {plan} --seed 7"
    plan.write_text(f"{plan.read_text()}\n[report]\nhigher_is_better = false\n")
    answer = call("check", plan)
    assert "'churned': lower is better" in answer.out
    assert "better? " not in answer.out


@pytest.mark.usefixtures("plain")
def test_a_plan_with_shares_of_other_arms_is_refused(call: Call, tmp_path: Path) -> None:
    answer = call("check", experiment(tmp_path, users(), ROWS | {"shares": {"none": 1, "e-mail": 1}}))
    assert answer.code == 1
    assert "shares name 'e-mail', but no unit is in such an arm; arms are 'none', 'email'" in answer.err


@pytest.mark.usefixtures("plain")
def test_control_characters_never_reach_the_terminal(call: Call, tmp_path: Path, sampler: Sampler) -> None:
    table = users(device=np.repeat([f"{ESC}1", f"{ESC}2"], 60))
    plan = experiment(tmp_path, table[(table["device"] != f"{ESC}2") | (table["arm"] == "none")])
    sampler.bad = True  # the diagnosis then names a segment
    for words in (["check", plan], ["run", plan, "--out", f"out{ESC}"]):
        answer = call(*words)
        assert answer.code in (0, 3)
        assert not hostile(answer.out + answer.err)
        assert "\N{REPLACEMENT CHARACTER}" in answer.out
    answer = call("check", experiment(tmp_path, users(), ROWS | {"control": ESC}))
    assert answer.code == 1
    assert not hostile(answer.err)
    answer = call("check", f"{ESC}.toml")
    assert answer.code == 1
    assert not hostile(answer.err)


def test_a_hostile_model_cannot_reach_the_terminal_either(call: Call, tmp_path: Path) -> None:
    shipped = (run.find_model_file("conversion")).read_text(encoding="utf-8")
    title = '"\\u001b[2J\\u0007"'
    (tmp_path / "evil.toml").write_text(shipped.replace("title ", f"notes = {title}\ntitle = {title} #"))
    answer = call("show", "evil.toml")
    assert answer.code == 0
    assert not hostile(answer.out)


def test_cells_on_a_terminal_are_printable_and_in_a_pipe_exact(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = experiment(tmp_path, users(device=np.repeat([ESC, "tv"], 60)))
    assert ESC in call("aggregate", plan).out
    monkeypatch.setattr(cli.sys.stdout, "isatty", lambda: True, raising=False)
    assert not hostile(call("aggregate", plan).out)


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_example_plan_is_valid(call: Call, plan: Path) -> None:
    answer = call("check", plan)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("The plan, the model and the data fit together: ")


@pytest.mark.parametrize("name", list_shipped_models())
def test_show_prints_mathematics_and_pymc(call: Call, name: str) -> None:
    answer = call("show", name)
    assert (answer.code, answer.err) == (0, "")
    assert hte.read_model(name).title in answer.out
    assert re.search(
        r"effect\[s, a\] ~ \w+\((4, )?(chance_|amount_)?effect_mean\[a\].*effect_between\[a\]\)", answer.out
    )
    assert "with pm.Model(coords=coords) as model:" in answer.out
    assert "9 times in 10" in answer.out


def test_show_reads_a_model_of_yours(call: Call, tmp_path: Path) -> None:
    text = run.find_model_file("conversion").read_text(encoding="utf-8").replace("sigma = 0.5", "sigma = 0.123")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert "HalfNormal(sigma=0.123)" in call("show", "mine.toml").out
    assert call("show", "absent").code == 1


def test_aggregated_counts_come_back_from_csv(call: Call, tmp_path: Path) -> None:
    plan = experiment(tmp_path, counted(), N_EVENTS)
    answer = call("aggregate", plan)
    assert (answer.code, answer.err) == (0, "")
    (tmp_path / "cells.csv").write_text(answer.out, newline="")
    names = {"arm": "arm", "control": "none", "segments": ["device"], "n": "n", "events": "events", "outcome": "visit"}
    again = hte.cells.from_summary(tmp_path / "cells.csv", **names)  # type: ignore[arg-type]
    xr.testing.assert_equal(again, hte.cells.from_summary(counted(), **names))  # type: ignore[arg-type]
    assert call("aggregate", plan, "--out", "new/cells.csv").out == ""
    assert (tmp_path / "new" / "cells.csv").read_text(newline="") == answer.out


def test_aggregated_yes_or_no_rows_come_back_as_counts(call: Call, tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(call("aggregate", experiment(tmp_path, users())).out))
    names = {"arm": "arm", "control": "none", "segments": ["device"]}
    again = hte.cells.from_summary(frame, n="n", events="events", **names)  # type: ignore[arg-type]
    cells = hte.cells.from_rows(users(), outcome="visit", **names)  # type: ignore[arg-type]
    xr.testing.assert_equal(again, cells[["n", "events"]])


def test_aggregated_moments_come_back_from_csv(call: Call, tmp_path: Path) -> None:
    table = users(visit=np.random.default_rng(0).normal(1e6, 1.0, 120))
    frame = pd.read_csv(io.StringIO(call("aggregate", experiment(tmp_path, table)).out))
    names = {"arm": "arm", "control": "none", "segments": ["device"]}
    again = hte.cells.from_summary(frame, n="n", mean="mean", sd="sd", **names)  # type: ignore[arg-type]
    cells = hte.cells.from_rows(tmp_path / "users.csv", outcome="visit", **names)  # type: ignore[arg-type]
    kept = ["n", "mean", "ss"]  # the extremes are single units, and not read back
    xr.testing.assert_allclose(again[kept], cells[kept], rtol=1e-12)


def test_aggregated_cells_are_also_json(call: Call, tmp_path: Path) -> None:
    plan = experiment(tmp_path, counted(), N_EVENTS)
    printed = call("aggregate", plan, "--json").out
    assert call("aggregate", plan, "--out", "cells.json").code == 0
    assert (tmp_path / "cells.json").read_text() == printed
    assert json.loads(printed)[0] == {"device": "mobile", "arm": "none", "n": 100, "events": 10}


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys, contextlib, io
from bayes_hte.cli import main
for words in ([], ["run"], ["aggregate"], ["check"], ["init"], ["show"], ["schema"]):
    sys.argv = ["bayes-hte", *words, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
        main()
    assert said.getvalue().startswith("usage: bayes-hte"), words
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "pandas", "xarray", "pymc", "scipy", "arviz", "duckdb", "pydantic", "rich", "matplotlib"}
    assert not heavy & set(found.stdout.split())


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["--help"], 0, "usage: bayes-hte", ""),
        (["fit"], 2, "", "usage: bayes-hte"),
        (["check", "absent.toml"], 1, "", "error: no file absent.toml"),
    ],
)
def test_the_installed_command_says_all_it_has_to_say_before_it_leaves(
    words: list[str], code: int, out: str, err: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "from bayes_hte.cli import script; script()", *words]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == code
    assert found.stdout.startswith(out)
    assert found.stderr.startswith(err)
    assert (out == "") == (found.stdout == "")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_installed_command_aggregates_as_the_function_does(call: Call, tmp_path: Path, suffix: str) -> None:
    days = pd.to_datetime(np.repeat(["2026-03-01", "2026-03-02"], 60)).date
    table = users(device=days, visit=[Decimal(i % 7) / 10 for i in range(120)])
    path = experiment(tmp_path, table)
    table.to_parquet(tmp_path / "users.parquet")
    words = ["aggregate", path.name, "--data", f"users{suffix}"]
    command = [sys.executable, "-c", "from bayes_hte.cli import script; script()", *words]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == call(*words).out.splitlines()
    assert len(found.stdout.splitlines()) == 1 + 4


def process(folder: Path, *words: str) -> "subprocess.Popen[str]":
    # A shell that starts the tests in the background leaves them, and so this process, deaf to SIGINT.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{code}; from bayes_hte.cli import main; main()", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_whole_run_with_real_sampling(tmp_path: Path) -> None:
    experiment(tmp_path, users(), more='[sampling]\nsampler = "nuts"')
    with process(tmp_path, "run", "plan.toml", "--out", "out", "--json") as running:
        out, err = running.communicate(timeout=300)
    assert (running.returncode, err) == (0, "")
    assert json.loads(out)["reliable"] is True
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
def test_ctrl_c_while_sampling_writes_nothing(tmp_path: Path) -> None:
    experiment(tmp_path, users(), more='[sampling]\nsampler = "nuts"')
    before = snapshot(tmp_path)
    with process(tmp_path, "run", "plan.toml", "--out", "out", "--draws", "1000000") as running:
        assert running.stderr is not None
        while not running.stderr.readline().startswith("fitting"):
            assert running.poll() is None, "ended before it sampled"
        time.sleep(40)  # compiling takes up to twenty seconds beside other work; a million draws take minutes
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert err.splitlines()[-1] == "stopped; nothing was written"
    assert snapshot(tmp_path) == before


def test_init_writes_a_plan_that_check_takes_and_never_replaces_one(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(ROOT / "examples" / "forms" / "rows.csv")
    answer = call("init", "--from", data)
    assert answer.code == 0
    assert 'guessed outcome           "bought": it is 0 or 1, and its name sounds like one' in answer.out
    assert answer.out.endswith("written: plan.toml; next: bayes-hte check plan.toml\n")
    assert call("check", "plan.toml").code == 0
    again = call("init", "--from", data)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith("error: there is a file plan.toml already, and nothing is overwritten")
    assert call("init", "--out", "template.toml").out.startswith("a template: fill in what is empty")
    blank = call("check", "template.toml")
    assert blank.code == 1
    assert 'data.outcome: should hold text, not ""' in blank.err


def test_standard_input_takes_the_place_of_the_plans_data(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "examples" / "forms"
    content = (folder / "rows.csv").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    piped = call("aggregate", str(folder / "rows.toml"), "--data", "-")
    assert piped.code == 0
    assert piped.out == call("aggregate", str(folder / "rows.toml")).out


@pytest.mark.parametrize("kind", ["plan", "model"])
def test_schema_prints_what_editors_read(call: Call, kind: str) -> None:
    answer = call("schema", kind)
    assert answer.code == 0
    assert json.loads(answer.out)["$schema"].startswith("https://json-schema.org/")
    assert call("schema", "report").code == 2
