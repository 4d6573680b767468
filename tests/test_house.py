"""The house is as ARCHITECTURE.md tells it: rooms, names, docstrings and layers that a newcomer can rely on."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from benchmark_scripts import load
from hypothesis import settings
from paths import ROOT

PACKAGE = ROOT / "bayes_hte"
RENEWED_LATER = ("inference/exact",)
"""The exact engine moved as it was: a renewal of the engine brings names of its own."""
FILE_PER_FAMILY = "model/families"
"""A folder that grows by a file with every kind of outcome, all alike."""
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md")


def find_packages() -> set[str]:
    """Find every folder of the package that holds modules, as a path from the checkout."""
    return {str(init.parent.relative_to(ROOT)) for init in PACKAGE.rglob("__init__.py")} - {"bayes_hte"}


def read_layers() -> list[set[str]]:
    """Read the layers of the first contract, highest first, siblings together."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return [set(layer.replace(" ", "").split("|")) for layer in contracts[0]["layers"]]


@pytest.mark.parametrize("measure", ["loose_modules", "widest_folder"])
def test_rooms_stay_small_enough_to_be_seen_at_once(measure: str) -> None:
    result = load("house").measure_package(PACKAGE, excluded=(*RENEWED_LATER, FILE_PER_FAMILY))[measure]
    assert result.meets_goal(), result.findings


@pytest.mark.parametrize(
    "measure",
    [
        "one_word_identifiers", "one_word_functions", "participle_functions", "duplicate_types", "comment_lines",
        "explaining_comments", "long_functions", "docstring_openings",
    ],
)  # fmt: skip
def test_names_and_comments_meet_the_goals_of_the_house(measure: str) -> None:
    result = load("house").measure_package(PACKAGE, excluded=RENEWED_LATER)[measure]
    assert result.meets_goal(), (result.value, result.findings[:20])


def test_the_architecture_has_a_line_for_every_package_and_no_other() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(bayes_hte/[\w/]+)` \|", page, flags=re.M))
    assert described == find_packages()


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:bayes_hte|tests|models|docs|benchmarks|examples|\.ci)/[\w./-]*\*?[\w./-]*)`", text)
    assert len(named) > 20
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


def test_the_order_of_layers_is_the_one_that_the_architecture_tells() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^`errors` < .*$", page, flags=re.M)
    lowest_first = [set(re.findall(r"`(\w+)`", layer)) for layer in told.split(" < ")]
    assert [{name.removeprefix("bayes_hte.") for name in layer} for layer in read_layers()] == lowest_first[::-1]


def test_every_room_has_its_layer() -> None:
    layered = set().union(*read_layers())
    rooms = {f"bayes_hte.{path.stem}" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    loose = {f"bayes_hte.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert layered == rooms | loose


def test_every_room_says_what_it_is_for() -> None:
    silent = [
        path for path in find_packages() if not ast.get_docstring(ast.parse((ROOT / path / "__init__.py").read_text()))
    ]
    assert silent == []


def test_modules_of_the_package_are_imported_by_name_only() -> None:
    dynamic = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "import_module(" in path.read_text(encoding="utf-8")
    }
    assert dynamic <= {"__init__.py", "spec/__init__.py"}  # names that are imported when they are first used


def test_no_property_test_can_fail_by_a_clock() -> None:
    """A busy machine makes any example slow."""
    assert settings().deadline is None
    own_deadlines = {path.name for path in (ROOT / "tests").rglob("*.py") if "deadline=" in path.read_text("utf-8")}
    assert own_deadlines == {"conftest.py", Path(__file__).name}


def test_a_test_file_stands_where_its_module_stands() -> None:
    """A folder of tests is a folder of the package, or says what else it is."""
    beside = {"adversarial", "benchmarks", "reference", "reference/nuts", "support"}
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")} - {
        "."
    }
    assert {folder for folder in folders - beside if not (PACKAGE / folder).is_dir()} == set()


def test_the_measures_see_what_they_are_meant_to_see(tmp_path: Path) -> None:
    package = tmp_path / "untidy"
    package.mkdir()
    (package / "__init__.py").write_text('"""Untidy."""\n')
    (package / "first.py").write_text("class Line: ...\n\n\ndef settled(found):\n    return found\n")
    (package / "second.py").write_text('class Line: ...\n\n\ndef told(x):\n    """What was told."""\n    return x\n')
    measures = load("house").measure_package(package)
    assert measures["participle_functions"].value == 2
    assert measures["duplicate_types"].value == 1
    assert measures["docstring_openings"].value == 1
    assert measures["one_word_functions"].value == 100
    assert not measures["comment_lines"].meets_goal()
