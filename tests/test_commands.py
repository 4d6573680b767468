"""Every command that a document shows runs as it is printed, or is one whose parts are all there."""

import argparse
import io
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from bayes_hte import cli

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "models/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN_COMMAND = "bayes-hte"
# Plans whose fits take long, or draw by MCMC: run with the slow tests.
SLOW_WORDS = ("hillstrom/", "thornton/")


def list_commands() -> list[str]:
    """List the commands of all shell blocks, without comments, one by one."""
    commands = []
    for page in PAGES:
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
            if language in {"", "sh", "bash", "console"} and "──" not in block:
                lines = [line.split(" #")[0].strip() for line in block.splitlines()]
                commands += [part.strip() for line in lines for part in line.split("&&") if part.strip()]
    return list(dict.fromkeys(commands))


def strip_uv(words: list[str]) -> list[str]:
    """Drop `uv run` and its groups, which must be groups of the project."""
    if words[:2] != ["uv", "run"]:
        return words
    rest = words[2:]
    while rest[0] == "--group":
        assert rest[1] in PROJECT["dependency-groups"]
        rest = rest[2:]
    return rest


COMMANDS = list_commands()
OWN_COMMANDS = [command for command in COMMANDS if strip_uv(shlex.split(command))[0] == OWN_COMMAND]
OTHER_COMMANDS = [command for command in COMMANDS if command not in OWN_COMMANDS]


def test_the_commands_of_the_documents_are_found() -> None:
    assert len(OWN_COMMANDS) > 10
    assert {"pip install bayes-hte", "uv add bayes-hte", "pip install uv", ".ci/run"} <= set(OTHER_COMMANDS)


def is_slow(command: str) -> bool:
    return any(word in command for word in SLOW_WORDS)


@pytest.mark.parametrize(
    "command", [pytest.param(one, marks=pytest.mark.slow) if is_slow(one) else one for one in OWN_COMMANDS]
)
def test_a_command_of_the_documents_runs_as_printed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("examples", "docs", "models"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    words, _, file_name = command.partition(" > ")
    words, _, input_name = words.partition(" < ")
    if input_name:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((tmp_path / input_name).read_bytes())))
    monkeypatch.setattr("sys.argv", strip_uv(shlex.split(words)))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    assert stop.value.code == 0, printed.err
    assert printed.out
    assert not file_name or re.fullmatch(r"[\w.-]+", file_name)
    if " run " in f" {words.split(OWN_COMMAND)[1]} ":
        written = [path.name for path in (tmp_path / "results").glob("*/*")]
        assert {"report.html", "effects.csv", "summary.json"} <= set(written)
        # One question has one fit, several have a folder of them.
        assert len({"fit.nc", "fits"} & set(written)) == 1


@pytest.mark.parametrize("command", OTHER_COMMANDS)
def test_every_other_command_names_what_is_there(command: str) -> None:
    words = strip_uv(shlex.split(command))
    match words:
        case ["pip", "install", "uv"]:
            return
        case ["pip", "install", package] if "[" in package:
            name, extra = package.removesuffix("]").split("[")
            assert (name, extra in PROJECT["project"]["optional-dependencies"]) == (PROJECT["project"]["name"], True)
        case ["pip", "install", package] | ["uv", "add", package]:
            assert package == PROJECT["project"]["name"]
        case ["pytest", *options]:
            check_pytest_options(options)
        case ["python", script, *options]:
            text = (ROOT / script).read_text(encoding="utf-8")
            assert all(f'"{option}"' in text for option in options if option.startswith("--"))
        case _:
            assert (ROOT / words[0]).stat().st_mode & 0o100, f"no test knows what {command!r} is"


def check_pytest_options(options: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", default="slow")
    marker = parser.parse_args(options).m
    assert marker in [line.split(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]


def test_the_results_folder_that_a_document_names_is_the_one_that_the_command_writes() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for plan, folder in re.findall(r"run (examples/\S+\.toml) .*results/([\w-]+)", text):
            assert cli._name_results_folder(ROOT / plan) == folder
