"""Bad input is named with a way out, and docs/bad-input.md shows what is really said."""

import importlib.util
import re
import sys
from types import ModuleType

import pytest
from bad_input import CASES, Case, message, parts
from paths import ROOT

DOCS = ROOT / "docs"
ALL = [case for group in CASES.values() for case in group]
each = pytest.mark.parametrize("case", ALL, ids=[case.what for case in ALL])


@each
def test_the_message_is_one_line_that_says_what_was_found(case: Case) -> None:
    said = message(case)
    assert case.found in said
    assert "\n" not in said
    assert len(said) < 600


@each
def test_the_message_says_a_way_out(case: Case, request: pytest.FixtureRequest) -> None:
    if case.unhelpful:
        request.applymarker(pytest.mark.xfail(strict=True, reason=case.unhelpful))
    said, way = parts(case)
    assert said
    assert len(way.split()) >= 2


def test_the_names_of_the_cases_are_different() -> None:
    assert len({case.what for case in ALL}) == len(ALL)


def test_the_page_is_generated_from_the_cases() -> None:
    page = _script().text()
    assert page == (DOCS / "bad-input.md").read_text(encoding="utf-8"), "run: python docs/bad_input.py"


def test_the_script_of_the_page_finds_the_cases_not_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)  # as when it is run
    monkeypatch.delitem(sys.modules, "bad_input")
    assert list(_script()._cases().CASES) == list(CASES)


def test_the_page_names_no_folder_of_the_machine_it_was_made_on() -> None:
    page = (DOCS / "bad-input.md").read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w/:])/\w+/|[A-Z]:\\\\|0x[0-9a-f]{6}", page)


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bad_input_page", DOCS / "bad_input.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
