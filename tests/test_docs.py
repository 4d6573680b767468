"""What the documents show is run, and what is generated is up to date."""

import doctest
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import load
from paths import ROOT
from table_engines import skip_without

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "bayes_hte").rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)
"""Modules with an example in a docstring."""


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)


PYTHON_PAGES = [
    "README.md",
    "docs/guide.md",
    "docs/data.md",
    "docs/data-files.md",
    "docs/clusters.md",
    "docs/exact-engine.md",
    "docs/simulation.md",
    "docs/policies.md",
    "docs/decisions.md",
    "docs/replication.md",
    "docs/plans-and-registration.md",
]


@pytest.mark.parametrize("document", PYTHON_PAGES)
def test_python_in_the_documents_runs(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if document == "docs/clusters.md":
        skip_without("dask")
    code = "\n".join(blocks(ROOT / document, "python"))
    assert code
    exec(compile(code, document, "exec"), {})  # noqa: S102 (the project's own documents)
    without_results = {
        *("docs/decisions.md", "docs/exact-engine.md", "docs/data-files.md", "docs/replication.md"),
        "docs/simulation.md",
    }
    assert document in without_results or list((tmp_path / "results").iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PySpark and Ray, of what they use
@pytest.mark.parametrize("engine", ["spark", "ray"])
def test_python_for_clusters_runs_on_local_ones(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    skip_without(engine)
    monkeypatch.chdir(tmp_path)
    cells_block, page = blocks(ROOT / "docs" / "clusters.md", "python")[0], blocks(ROOT / "docs" / "clusters.md", "py")
    (code,) = [block for block in page if f"in_{engine}" in block]
    # A session that runs already writes relative paths where it was started.
    code = code.replace('"results/', f'"{tmp_path.as_posix()}/results/')
    session = request.getfixturevalue("ray_data" if engine == "ray" else "spark")
    names = {"spark": session} if engine == "spark" else {}
    exec(compile(f"{cells_block}\n{code}", "docs/clusters.md", "exec"), names)  # noqa: S102
    assert list((tmp_path / "results" / engine).glob("*.parquet"))


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_models_readme_is_generated_from_the_models() -> None:
    script = _load(ROOT / "docs" / "models_readme.py")
    message = "run: python docs/models_readme.py"
    assert script.text() == (ROOT / "models" / "README.md").read_text(encoding="utf-8"), message


def test_the_page_of_plans_is_generated_from_the_schema() -> None:
    script = _load(ROOT / "docs" / "plan_page.py")
    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    assert script.write_page() == page, "run: python docs/plan_page.py"


def test_the_page_of_plans_has_every_key_of_every_table() -> None:
    from bayes_hte import Plan
    from bayes_hte.spec.data_forms import PLACE_KEYS
    from bayes_hte.spec.files import build_json_schema

    schema = build_json_schema(Plan)
    sections = re.split(r"^##+ ", (ROOT / "docs" / "plan.md").read_text(encoding="utf-8"), flags=re.M)
    keys_by_section = [set(re.findall(r"^\| `(\w+)` \|", section, flags=re.M)) for section in sections]
    assert PLACE_KEYS in keys_by_section  # once, as they mean the same in every form
    for table in (schema, *schema["$defs"].values()):
        keys = set(table["properties"])
        assert (keys - PLACE_KEYS if "form" in keys else keys) in keys_by_section, table["description"]


def test_the_plan_in_the_readme_is_one_that_its_commands_run() -> None:
    (plan,) = blocks(ROOT / "README.md", "toml")
    assert plan == (ROOT / "examples" / "forms" / "rows.toml").read_text(encoding="utf-8")


PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "models/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)


def test_every_page_with_python_is_run() -> None:
    with_python = {str(page.relative_to(ROOT)) for page in PAGES if blocks(page, "python")}
    # Those of the models are PyMC text: tests/model/text/test_pymc_source.py runs it.
    assert with_python == {*PYTHON_PAGES, "models/README.md"}


def list_anchors(page: Path) -> set[str]:
    """List the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_local_link_in_the_documents_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        led_to = (page.parent / target).resolve() if target else page
        assert led_to.exists(), f"{page.name} links to {target}"
        if anchor and led_to.suffix == ".md":
            assert anchor in list_anchors(led_to), f"{page.name} links to {target}#{anchor}"


def test_every_page_of_the_documents_is_in_their_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"]({page.name})" not in index] == ["README.md"]


def test_the_readme_names_the_commands_that_ci_runs() -> None:
    commands = [
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("pip install uv")
    ]
    assert len(commands) == 2
    assert "pytest" in commands[1]
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_pages_agree_on_how_long_the_tests_take() -> None:
    said = {
        name: re.findall(
            r"the tests, (?:which take )?(about [\w ]+ on \w+ cores[\w ]*)", (ROOT / name).read_text("utf-8")
        )
        for name in ("README.md", "CONTRIBUTING.md")
    }
    assert said["README.md"] == said["CONTRIBUTING.md"]
    assert len(said["README.md"]) == 1


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_benchmarks_are_those_that_were_measured() -> None:
    speed = load("speed")
    known = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text(encoding="utf-8"))
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert speed.renewed(page, known) == page
