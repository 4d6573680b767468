"""Every key of a plan or a model says what it means, once; editors get the schema that files are checked with."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from paths import ROOT
from pydantic import BaseModel, TypeAdapter

from bayes_hte import Model, Plan, PlanError
from bayes_hte.spec.files import build_json_schema, find_models_folder, write_json_schema

# Locks and looks stand beside plans; the package writes them, and people do not.
PLANS = sorted(
    path
    for path in (ROOT / "examples").glob("*/*.toml")
    if path.name != "model.toml" and not path.name.endswith((".lock.toml", ".looks.toml"))
)
FILES = [
    *((Plan, path) for path in PLANS),
    *((Model, path) for path in sorted(find_models_folder().glob("*.toml"))),
]


def list_tables(schema_class: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """List the tables of keys that a file may have: the file itself, and those in it."""
    schema = build_json_schema(schema_class)
    return {schema_class.__name__: schema, **schema["$defs"]}


def list_keys(schema_class: type[BaseModel]) -> Iterator[tuple[str, dict[str, Any]]]:
    for table, schema in list_tables(schema_class).items():
        for key, of_key in schema["properties"].items():
            yield f"{table}.{key}", of_key


@pytest.mark.parametrize("schema_class", [Plan, Model])
def test_every_key_has_a_description_that_is_a_sentence(schema_class: type[BaseModel]) -> None:
    keys = dict(list_keys(schema_class))
    assert len(keys) > 40
    silent = [name for name, of_key in keys.items() if not str(of_key.get("description", "")).endswith(".")]
    assert silent == [], "give Field(description=…) to these keys: docs/plan.md and editors show it"


@pytest.mark.parametrize("schema_class", [Plan, Model])
def test_every_key_but_tables_and_tags_shows_an_example(schema_class: type[BaseModel]) -> None:
    distributions = [name for name, table in list_tables(schema_class).items() if "dist" in table["properties"]]
    without = [
        name
        for name, of_key in list_keys(schema_class)
        if not of_key.get("examples") and "const" not in of_key and name.split(".")[0] not in distributions
    ]
    tables = {"Plan.data", "Plan.covariates", "Plan.privacy", "Plan.sampling", "Plan.report", "Plan.decision"}
    tables |= {"Plan.metrics"}
    tables |= {"Amount.effect", "Amount.baseline", *(f"Model.{key}" for key in ("effect", "baseline", "amount"))}
    assert set(without) <= tables | {"Model.nuisance"}, "give Field(examples=[…]) to these keys"


def list_types(annotation: Any) -> list[Any]:
    """List every type inside an annotation, whatever it is wrapped in."""
    value = getattr(annotation, "__value__", annotation)  # of a type alias
    return [value, *(inner for argument in get_args(value) for inner in list_types(argument))]


def list_models(schema_class: type[BaseModel]) -> set[type[BaseModel]]:
    """List the classes of all tables that a file may hold."""
    found: set[type[BaseModel]] = set()
    queue = [schema_class]
    while queue:
        table = queue.pop()
        if table not in found:
            found.add(table)
            types = [each for field in table.model_fields.values() for each in list_types(field.annotation)]
            queue += [each for each in types if isinstance(each, type) and issubclass(each, BaseModel)]
    return found


@pytest.mark.parametrize("schema_class", [Plan, Model])
def test_every_example_is_a_value_that_the_key_takes(schema_class: type[BaseModel]) -> None:
    count = 0
    for table in list_models(schema_class):
        for key, field in table.model_fields.items():
            adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
            for example in field.examples or ():
                adapter.validate_python(example)
                assert example != field.default, f"{table.__name__}.{key} shows its default, which need not be written"
                count += 1
    assert count > 20


@pytest.mark.parametrize("kind", ["plan", "model"])
def test_the_schema_is_one_of_the_draft_that_it_names(kind: Any) -> None:
    schema = json.loads(write_json_schema(kind))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("schema_class", "path"), FILES, ids=[path.stem for _, path in FILES])
def test_editors_accept_every_file_that_is_shipped(schema_class: type[BaseModel], path: Path) -> None:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    schema = build_json_schema(schema_class)
    Draft202012Validator(schema).validate(content)
    # Editors that know older drafts only skip what is new.
    Draft7Validator({**schema, "$schema": "http://json-schema.org/draft-07/schema#"}).validate(content)


ROWS: dict[str, Any] = {"outcome": "y", "arm": "arm", "control": "old", "segments": ["device"]}
VALUES: list[Any] = [True, 3, -1.5, "text", "", [], ["text"], [1, "text"], [1, 2], [0, 1], {}, {"text": 1}, {"a": []}]


def is_accepted(content: dict[str, Any]) -> bool:
    try:
        Plan.model_validate(content)
    except PlanError:
        return False
    return True


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_editors_and_the_package_agree_on_the_value_of_every_key_of_rows(value: Any) -> None:
    validator = Draft202012Validator(build_json_schema(Plan))
    keys = build_json_schema(Plan)["$defs"]["Rows"]["properties"]
    for key in keys:
        content = {"title": "t", "model": "m", "data": {**ROWS, key: value}}
        assert validator.is_valid(content) == is_accepted(content), (key, value)


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        {**ROWS, "cuped": "pretest"},
        {**ROWS, "cupd": "pretest"},
        {**ROWS, "n": "n"},
        {**ROWS, "form": "summary", "n": "n"},
        {**ROWS, "form": "levels", "value": "v"},
        {"form": "wide", "control": "a", "segments": "s", "arms": {"a": {"n": "x"}, "b": {"mode": "y"}}},
        {"form": "table"},
        {},
    ],
)
def test_editors_and_the_package_agree_on_which_keys_a_form_has(data: dict[str, Any]) -> None:
    content = {"title": "t", "model": "m", "data": data}
    assert Draft202012Validator(build_json_schema(Plan)).is_valid(content) == is_accepted(content)


def test_a_prior_without_the_name_of_its_distribution_is_underlined() -> None:
    validator = Draft202012Validator(build_json_schema(Model))
    effect = {"mean": {"dist": "Normal"}, "between": {"dist": "HalfNormal"}}
    assert validator.is_valid({"family": "estimate", "effect": effect})
    assert not validator.is_valid({"family": "estimate", "effect": {**effect, "mean": {"sigma": 1.0}}})
    assert not validator.is_valid({"family": "estimates", "effect": effect})
