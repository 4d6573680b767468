"""Read plan and model files: TOML, a closed schema, and errors that name the way out. Runs no code.

The same schema, as JSON Schema, is what editors complete and check these files with.
"""

import hashlib
import json
import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from bayes_hte._support.validation import check_path, describe_value, expand_home, is_address
from bayes_hte.errors import ArgumentError, ModelError, PlanError, SpecError
from bayes_hte.spec.data_forms import DEFAULT_FORM
from bayes_hte.spec.error_messages import explain_errors
from bayes_hte.spec.plan import Plan

if TYPE_CHECKING:
    from bayes_hte.spec.model import Model

_PACKAGE_FOLDER = Path(__file__).resolve().parent.parent
MAX_FILE_BYTES = 1_000_000
"""A plan or model is a page of text; anything longer is another file given by mistake."""


def find_models_folder() -> Path:
    """Find the folder of the shipped models: inside a wheel, or beside the package in a checkout."""
    packaged_folder = _PACKAGE_FOLDER / "_models"
    return packaged_folder if packaged_folder.is_dir() else _PACKAGE_FOLDER.parent / "models"


def list_shipped_models() -> list[str]:
    """List the names of models that `read_model` knows without a path.

    Examples
    --------
    >>> from bayes_hte.spec import list_shipped_models
    >>> "conversion" in list_shipped_models()
    True
    """
    return sorted(path.stem for path in find_models_folder().glob("*.toml"))


def find_model_file(name_or_path: str | Path, folder: Path | None = None) -> Path:
    """Find the file of a model, from a shipped name or from a path relative to `folder`."""
    if not isinstance(name_or_path, str | os.PathLike):
        raise ArgumentError(
            f"{describe_value(name_or_path)} is no model; give the path of a .toml file, a Model made with "
            f"hte.Model(family=…), or one of the shipped {list_shipped_models()}"
        )
    if str(name_or_path) in list_shipped_models():
        return find_models_folder() / f"{name_or_path}.toml"
    # Shipped names have no suffix and files must have one: neither can hide the other.
    if is_address(name_or_path):
        raise ModelError("the model is given as an address, and nothing is fetched from a network; give its path")
    path = (folder or Path()) / expand_home(name_or_path)
    if path.suffix != ".toml":
        close_names = get_close_matches(str(name_or_path), list_shipped_models(), n=1)
        suggestion = f"; did you mean {close_names[0]!r}?" if close_names else "."
        raise ModelError(
            f"no model {str(name_or_path)!r}{suggestion} Shipped are {list_shipped_models()}; a model of yours is a "
            ".toml file"
        )
    return path


def read_model(source: str | Path) -> "Model":
    """Read a model: one of the shipped ones by name, or your own file by path.

    Parameters
    ----------
    source : str or Path
        A name such as ``"conversion"``, or the path of a ``.toml`` file.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If there is no such model, or the file is not valid; the message names the key.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> hte.read_model("conversion").family
    'binomial'
    """
    # Who only reads a plan does not wait for the schema of models.
    from bayes_hte.spec.model import Model

    return read_spec_file(find_model_file(source), Model, ModelError)


def read_plan(path: str | Path) -> Plan:
    """Read a plan file.

    Parameters
    ----------
    path : str or Path
        A ``.toml`` file.

    Returns
    -------
    Plan

    Raises
    ------
    PlanError
        If the file is missing or not valid; the message names the key.
    """
    return read_spec_file(check_path(path, "the plan"), Plan, PlanError)


def read_spec_file[T: BaseModel](path: Path, schema_class: type[T], error_class: type[SpecError]) -> T:
    """Read one TOML file and validate it against its schema.

    Raises
    ------
    SpecError
        Of the class `error_class`, if the file is missing, too long, no TOML, or breaks the schema.
    """
    try:
        size_in_bytes = path.stat().st_size
        # The size first: a data file of 10 GB given by mistake must not be read.
        toml_text = path.read_text(encoding="utf-8") if size_in_bytes <= MAX_FILE_BYTES else ""
    except FileNotFoundError:
        raise error_class(f"no file {path}; the folder has {_list_sibling_files(path)}") from None
    except (OSError, ValueError) as read_error:  # also no UTF-8, and NUL in the path
        raise error_class(f"{path} cannot be read: {read_error}") from read_error
    if size_in_bytes > MAX_FILE_BYTES:
        raise error_class(
            f"{path} has {size_in_bytes:,} bytes; a {schema_class.__name__.lower()} file is a page of text"
        )
    try:
        toml_content = tomllib.loads(toml_text)
    except (ValueError, RecursionError) as toml_error:  # also a number of 5,000 digits, and 10,000 brackets
        raise error_class(f"{path} is not valid TOML: {toml_error}") from toml_error
    return validate_content(toml_content, schema_class, error_class, error_prefix=str(path))


def validate_content[T: BaseModel](
    toml_content: dict[str, Any], schema_class: type[T], error_class: type[SpecError], *, error_prefix: str
) -> T:
    """Build a plan or a model from the content of its file, or explain the errors in sentences.

    Raises
    ------
    SpecError
        Of the class `error_class`; the message begins with `error_prefix` and names each wrong key.
    """
    try:
        # The validator itself: errors of a file are told with its name, those of a call without.
        validated_content: T = schema_class.__pydantic_validator__.validate_python(toml_content)
        return validated_content
    except ValidationError as validation_error:
        raise error_class(
            f"{error_prefix}: " + "; ".join(explain_errors(validation_error.errors(), schema_class, toml_content))
        ) from None


class _TomlSchemaGenerator(GenerateJsonSchema):
    """Generate JSON Schema of what TOML can hold; readers of older drafts than 2020-12 understand it too."""

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        """Leave out null, which TOML does not have: an optional key is left out instead."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """Leave out defaults that are null."""
        json_schema = super().default_schema(schema)
        return {key: value for key, value in json_schema.items() if key != "default" or value is not None}

    def tagged_union_schema(self, schema: Any) -> dict[str, Any]:
        """Require the key that tells the members of a union apart, so that one member at most fits a table."""
        tag_key = schema["discriminator"]
        members = []
        for tag, member in schema["choices"].items():
            member_schema = self.generate_inner(member)
            # Beside a reference, older drafts ignore every key: so both stand in allOf.
            members.append(
                member_schema if tag == DEFAULT_FORM else {"allOf": [member_schema, {"required": [tag_key]}]}
            )
        return {"oneOf": members}

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        """Keep keys in the order in which a reader should meet them."""
        return value

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles, which would repeat the key in capitals."""
        return False


def build_json_schema(schema_class: type[BaseModel]) -> dict[str, Any]:
    """Build the JSON Schema, draft 2020-12, of a plan or a model file.

    Examples
    --------
    >>> from bayes_hte import Plan
    >>> build_json_schema(Plan)["properties"]["title"]["description"]
    'One line at the top of the report.'
    """
    json_schema = schema_class.model_json_schema(schema_generator=_TomlSchemaGenerator)
    if schema_class is Plan:
        json_schema = _require_either(json_schema)
    # Of a docstring only the first paragraph: its examples are of Python.
    first_paragraph = json_schema["description"].split("\n\n")[0]
    return {"$schema": GenerateJsonSchema.schema_dialect, **json_schema, "description": first_paragraph}


QUESTION_KEYS = MappingProxyType({"model": "metrics", "outcome": "metrics", "segments": "breakdowns"})
"""Keys that a plan needs unless it has the other one, which says it for several questions."""


def _require_either(json_schema: dict[str, Any]) -> dict[str, Any]:
    """Require outcome, model and segments of the schema of plans only where no list of metrics or breakdowns has them.

    JSON Schema can say this of a whole plan only: so the requirement moves there from the tables.
    """
    alternatives: list[dict[str, Any]] = []
    for key, other_key in QUESTION_KEYS.items():
        if key in json_schema["required"]:
            json_schema["required"].remove(key)
            alternatives.append({"anyOf": [{"required": [key]}, {"required": [other_key]}]})
        forms = []
        for table in json_schema["$defs"].values():
            if "form" in table["properties"] and key in table.get("required", ()):
                table["required"].remove(key)
                forms.append(table["properties"]["form"]["const"])
        if forms:
            # Without the key `form` the condition holds: such data are rows, which are among the forms.
            of_form = {"if": {"properties": {"form": {"enum": forms}}}, "then": {"required": [key]}}
            alternatives.append({"if": {"required": [other_key]}, "else": {"properties": {"data": of_form}}})
    return {**json_schema, "allOf": alternatives}


def write_json_schema(file_kind: Literal["plan", "model"]) -> str:
    """Write the JSON Schema of plan or model files as text, for editors."""
    from bayes_hte.spec.model import Model

    schema_class = Plan if file_kind == "plan" else Model
    return json.dumps(build_json_schema(schema_class), indent=2, ensure_ascii=False) + "\n"


def hash_file(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _list_sibling_files(path: Path) -> str:
    file_names = sorted(toml_file.name for toml_file in path.parent.glob("*.toml")) if path.parent.is_dir() else []
    return ", ".join(file_names) if file_names else "no .toml files"
