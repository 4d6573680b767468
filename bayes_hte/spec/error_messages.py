"""Explain errors in a plan or a model in the words of those who write TOML: pydantic's, and those of calls for it."""

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ValidationError

from bayes_hte._support.toml_text import write_toml_value
from bayes_hte._support.validation import describe_value
from bayes_hte.errors import SpecError

WRONG_KEY_MARK = "[key]"
"""Last part of an error's path where the key itself is wrong, not its value."""
FIRST_ENTRY = "0"
"""Part of an error's path: all entries of a list of tables have the keys of the first."""
EXPECTED_BY_ERROR_TYPE = MappingProxyType(
    {
        "tuple": "should be a list: values between [ and ]",
        "dict": "should be a table of keys and values",
        "model": "should be a table of keys and values",
        "model_attributes": "should be a table of keys and values",
        "string": "should be text in quotes",
        "string_too_short": "should hold text",
        "int": "should be a whole number",
        "int_from_float": "should be a whole number",
        "float": "should be a number",
        "bool": "should be true or false",
    }
)
"""Phrase for the value that a key needs, by the type of pydantic's error without ``_type`` and ``_parsing``."""


class ExplainedTable(BaseModel):
    """Base of what callers build in Python: errors are the package's own, in the sentences that files get."""

    error_class: ClassVar[type[SpecError]] = SpecError

    def __init__(self, **content: Any) -> None:
        """Validate the content.

        Raises
        ------
        SpecError
            Of the class's own kind, if a key or a value is wrong; the message names it.
        """
        try:
            super().__init__(**content)
        except ValidationError as error:
            raise _build_call_error(error, type(self), content) from None

    # Pydantic would otherwise call this method for nested content too, and take the error for one of a validator.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Validate the content of a mapping; raise as the class itself does."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise _build_call_error(error, cls, obj if isinstance(obj, Mapping) else {}) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Validate JSON text, as saved fits hold it; raise as the class itself does."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            is_json = all(problem["type"] != "json_invalid" for problem in error.errors())
            content = json.loads(json_data) if is_json else {}
            raise _build_call_error(error, cls, content if isinstance(content, Mapping) else {}) from None


def _build_call_error(
    error: ValidationError, schema_class: type[ExplainedTable], content: Mapping[str, Any]
) -> SpecError:
    sentences = "; ".join(explain_errors(error.errors(), schema_class, content))
    return schema_class.error_class(f"{schema_class.__name__}: {sentences}")


def explain_errors(
    pydantic_errors: Sequence[Mapping[str, Any]], schema_class: type[BaseModel], file_content: Mapping[str, Any]
) -> list[str]:
    """Explain each of pydantic's errors in one sentence, which names the key in the file.

    Parameters
    ----------
    pydantic_errors : sequence of mapping
        The errors of a ValidationError.
    schema_class : type
        The schema that the content does not keep.
    file_content : mapping
        The content of the file.

    Returns
    -------
    list of str
        Without repetitions.
    """
    # An entry that is wrong is left out of a list, and pydantic then counts the list as too short as well.
    error_paths = [error["loc"] for error in pydantic_errors]
    outermost_errors = [
        error
        for error in pydantic_errors
        if not (error["type"] == "too_short" and _has_inner_error(error["loc"], error_paths))
    ]
    return list(dict.fromkeys(_explain_error(error, schema_class, file_content) for error in outermost_errors))


def _has_inner_error(key_path: tuple[object, ...], error_paths: Sequence[tuple[object, ...]]) -> bool:
    """Tell whether an entry inside of a list is wrong as well: then the list is too short for that reason only."""
    return any(
        len(error_path) > len(key_path) and error_path[: len(key_path)] == key_path for error_path in error_paths
    )


def _explain_error(error: Mapping[str, Any], schema_class: type[BaseModel], file_content: Mapping[str, Any]) -> str:
    key_path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        known_keys = _list_known_keys(schema_class, key_path[:-1])
        close_keys = get_close_matches(key_path[-1], known_keys, n=1)
        suggestion = f"; did you mean {close_keys[0]!r}?" if close_keys else "."
        # A key that another table has is not misspelt but misplaced.
        if not close_keys and (right_place := _find_key_place(schema_class, key_path[-1], file_content)):
            suggestion = f"; it belongs {right_place}."
        unknown_key = _format_key_path(key_path, file_content)
        return f"unknown key {unknown_key!r}{suggestion} Known keys here: {', '.join(known_keys)}"
    if key_path[-1:] == [WRONG_KEY_MARK]:
        return f"unknown key {_format_key_path(key_path[:-1], file_content)!r}; it {_explain_wrong_value(error)}"
    dotted_key = _format_key_path(key_path, file_content)
    if error["type"] == "missing":
        return f"the key {dotted_key!r} is missing"
    if error["type"] == "union_tag_not_found":
        return f"{dotted_key}: the key {_strip_quotes(error['ctx']['discriminator'])!r} is missing"
    return f"{dotted_key}: {_explain_wrong_value(error)}" if dotted_key else _explain_wrong_value(error)


def _find_key_place(schema_class: type[BaseModel], key: str, file_content: Mapping[str, Any]) -> str | None:
    """Find the table of the file that has a key, as a phrase; None if no table has it."""
    top_keys = _list_known_keys(schema_class, [])
    if key in top_keys:
        return "at the top of the file, before every [table]"
    data = file_content.get("data")
    form = [str(data.get("form", "rows"))] if isinstance(data, Mapping) else []
    for table in top_keys:
        if key in _list_known_keys(schema_class, [table, *form] if table == "data" else [table]):
            return f"under [{table}]"
        if key in _list_known_keys(schema_class, [table, FIRST_ENTRY]):
            return f"under [[{table}]]"
    return None


def _strip_quotes(quoted_text: object) -> str:
    return str(quoted_text).strip("'")


def _explain_wrong_value(error: Mapping[str, Any]) -> str:
    """Explain which value a key needs, and which it has."""
    match error["type"]:
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
        case "union_tag_invalid":
            tag_key = _strip_quotes(error["ctx"]["discriminator"])
            return f"there is no {tag_key} {error['ctx']['tag']!r}; there are {error['ctx']['expected_tags']}"
        case "too_short" | "too_long":
            return _explain_wrong_length(error)
        case "string_too_long":
            return f"should have {error['ctx']['max_length']} characters or fewer, not {len(error['input'])}"
    return f"{_describe_expected_value(error)}, not {format_as_toml(error['input'])}"


def _explain_wrong_length(error: Mapping[str, Any]) -> str:
    min_length, actual_length = error["ctx"].get("min_length"), error["ctx"]["actual_length"]
    expected_length = (
        f"{error['ctx']['max_length']} entries or fewer" if min_length is None else _format_min_entries(int(min_length))
    )
    return f"should have {expected_length}, not {actual_length}"


def _format_min_entries(entry_count: int) -> str:
    return "1 entry or more" if entry_count == 1 else f"{entry_count} entries or more"


def _describe_expected_value(error: Mapping[str, Any]) -> str:
    wrong_value, error_type = (
        error["input"],
        error["type"].removesuffix("_type").removesuffix("_parsing"),
    )
    if error_type == "tuple" and isinstance(wrong_value, str | int | float):
        return f"should be a list, as in [{format_as_toml(wrong_value)}]"
    # A distribution is written as an inline table, [data] as a table with a header.
    if error_type == "model_attributes" and error["loc"] != ("data",):
        return 'should be a table, as in { dist = "Normal", sigma = 1.0 }'
    return EXPECTED_BY_ERROR_TYPE.get(error_type, str(error["msg"]).removeprefix("Input "))


def format_as_toml(toml_value: object) -> str:
    """Write a value as TOML does, or name its type where it is long.

    Examples
    --------
    >>> format_as_toml(True), format_as_toml("new"), format_as_toml([1, 2])
    ('true', '"new"', 'a list')
    """
    match toml_value:
        case bool():
            return str(toml_value).lower()
        case str() if len(toml_value) < 50:
            return f'"{toml_value}"'
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
    return describe_value(toml_value)


def _format_key_path(key_path: Sequence[str], content: object) -> str:
    """Write an error's path as TOML names the key, without the tags that pydantic adds for members of unions.

    Examples
    --------
    >>> _format_key_path(["data", "rows", "segments", "1"], {"data": {"segments": ["age", 7]}})
    'data.segments, entry 2'
    """
    dotted_key = ""
    for key in key_path:
        # Pydantic's path holds the tag of a union's member after its key: "effect", "mean", "Normal", "sigma". Data
        # without a form are rows.
        union_tag = content.get("dist", content.get("form", "rows")) if isinstance(content, dict) else None
        if isinstance(content, dict) and key not in content and key == union_tag:
            continue
        # TOML has no number for an entry of a list; people count from 1.
        in_list = isinstance(content, list | tuple) and key.isdigit()
        dotted_key += f", entry {int(key) + 1}" if in_list else f".{key}"
        content = content.get(key) if isinstance(content, dict) else _get_list_entry(content, key) if in_list else None
    return dotted_key.removeprefix(".")


def _get_list_entry(toml_list: Any, entry_index: str) -> object:
    return toml_list[int(entry_index)] if int(entry_index) < len(toml_list) else None


_QUOTED_TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
# Dots stand for what the reader knows: columns=[…].
_PYTHON_LITERAL = rf"(?:{_QUOTED_TEXT}|True|False|None|-?[\d.]+\b|…|\[[^\]]*\]|\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}})"
_CALL_WORDS = re.compile(
    rf"\bfrom_(?P<form>\w+)\(table(?P<arguments>(?:, \w+={_PYTHON_LITERAL})*)\)"
    rf"|(?<![\w.])(?P<keyword>\w+)=(?P<literal>{_PYTHON_LITERAL})"
    r"|\bfrom_(?P<function>rows|times|summary|wide|levels|table|estimates)\b"
    rf"|{_QUOTED_TEXT}"
)
"""What messages show of calls; a text in quotes that is no argument is one of the data's, and stays as it is."""


def translate_call_words(message: str, data_keys: Collection[str]) -> str:
    """Translate what a message says of a call into what the table [data] of a plan would say.

    Parameters
    ----------
    message : str
        A message of a function of `hte.cells`, which names its keywords and other functions.
    data_keys : collection of str
        The keys of [data] in any form; they are the keywords.

    Examples
    --------
    >>> translate_call_words("clean them or pass drop_missing=True", {"drop_missing"})
    'clean them or set data.drop_missing = true'
    >>> translate_call_words("call from_levels(table, segments=['a'], value='v')", {"segments", "value"})
    'set data.form = "levels", data.segments = ["a"], data.value = "v"'
    >>> translate_call_words("columns are 'from_rows', 'value=3'", {"value"})
    "columns are 'from_rows', 'value=3'"
    """

    def translate_match(found: re.Match[str]) -> str:
        if found["form"] is not None:
            return f'data.form = "{found["form"]}"{translate_call_words(found["arguments"], data_keys)}'
        if found["function"] is not None:
            return f'data.form = "{found["function"]}"'
        if found["keyword"] in data_keys:
            return f"data.{found['keyword']} = {_translate_literal(found['literal'])}"
        return found[0]

    # What is called or passed in Python is set in a plan.
    return re.sub(r"\b(?:call|pass) (data\.)", r"set \1", _CALL_WORDS.sub(translate_match, message))


def _translate_literal(python_text: str) -> str:
    try:
        return write_toml_value(ast.literal_eval(python_text))
    except (ValueError, SyntaxError):  # dots in place of values
        return python_text


def _list_known_keys(schema_class: type[BaseModel], table_path: Sequence[str]) -> list[str]:
    """List the keys that the schema allows in a table, read from the JSON Schema that editors use."""
    json_schema = schema_class.model_json_schema()
    schema_node: dict[str, Any] = json_schema
    for path_part in table_path:
        schema_node = _follow_schema_step(json_schema, schema_node, path_part)
    return sorted(schema_node.get("properties", {}))


def _follow_schema_step(json_schema: dict[str, Any], schema_node: dict[str, Any], path_part: str) -> dict[str, Any]:
    """Follow one step of a path through properties, references and tagged unions."""
    # A part that is no property is the tag of a union's member: then the step stays at the node, and the tag chooses.
    next_node = schema_node.get("properties", {}).get(path_part, schema_node)
    if "items" in schema_node and path_part.isdigit():
        next_node = schema_node["items"]
    # An optional value is a union with null: the other member has the keys.
    for union_member in next_node.get("anyOf", []):
        if "$ref" in union_member or "discriminator" in union_member or union_member.get("type") == "array":
            next_node = union_member
    if path_part.isdigit() and "items" in next_node:
        next_node = next_node["items"]
    reference_by_tag = next_node.get("discriminator", {}).get("mapping", {})
    schema_reference = reference_by_tag.get(path_part, next_node.get("$ref"))
    if schema_reference:
        next_node = json_schema["$defs"][str(schema_reference).rsplit("/", 1)[-1]]
    return dict(next_node)
