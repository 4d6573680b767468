"""What pydantic finds wrong with a plan or a model, in the words of those who write TOML."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from bayes_hte.asked import described

ENTRY = "[key]"
"""How pydantic marks that a key is wrong, not what it holds."""
WANTED = MappingProxyType(
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
"""What a value should be, by the kind of pydantic's error."""


def sentences(found: Sequence[Mapping[str, Any]], kind: type[BaseModel], content: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that is wrong, with the place in the file.

    Parameters
    ----------
    found
        Pydantic's report.
    kind
        What the content was to be.
    content
        What was read.
    """
    places = [item["loc"] for item in found]
    kept = [item for item in found if not (item["type"] == "too_short" and _inside(item["loc"], places))]
    return list(dict.fromkeys(_sentence(item, kind, content) for item in kept))


def _inside(place: tuple[object, ...], others: Sequence[tuple[object, ...]]) -> bool:
    """Whether something inside of a place is wrong as well: then the list is too short for that reason only."""
    return any(len(other) > len(place) and other[: len(place)] == place for other in others)


def _sentence(item: Mapping[str, Any], kind: type[BaseModel], content: Mapping[str, Any]) -> str:
    place = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        known = _known_keys(kind, place[:-1])
        close = get_close_matches(place[-1], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        return f"unknown key {_dotted(place, content)!r}{hint} Known keys here: {', '.join(known)}"
    if place[-1:] == [ENTRY]:
        return f"unknown key {_dotted(place[:-1], content)!r}; it {_said(item)}"
    where = _dotted(place, content)
    if item["type"] == "missing":
        return f"the key {where!r} is missing"
    if item["type"] == "union_tag_not_found":
        return f"{where}: the key {_unquoted(item['ctx']['discriminator'])!r} is missing"
    return f"{where}: {_said(item)}" if where else _said(item)


def _unquoted(text: object) -> str:
    return str(text).strip("'")


def _said(item: Mapping[str, Any]) -> str:
    """What a value should be, and what was found."""
    match item["type"]:
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, ")
        case "union_tag_invalid":
            tag = _unquoted(item["ctx"]["discriminator"])
            return f"there is no {tag} {item['ctx']['tag']!r}; there are {item['ctx']['expected_tags']}"
        case "too_short" | "too_long":
            return _of_length(item)
        case "string_too_long":
            return f"should have {item['ctx']['max_length']} characters or fewer, not {len(item['input'])}"
    return f"{_wanted(item)}, not {_toml(item['input'])}"


def _of_length(item: Mapping[str, Any]) -> str:
    least, size = item["ctx"].get("min_length"), item["ctx"]["actual_length"]
    bound = f"{item['ctx']['max_length']} entries or fewer" if least is None else _at_least(int(least))
    return f"should have {bound}, not {size}"


def _at_least(count: int) -> str:
    return "1 entry or more" if count == 1 else f"{count} entries or more"


def _wanted(item: Mapping[str, Any]) -> str:
    value, name = item["input"], item["type"].removesuffix("_type").removesuffix("_parsing")
    if name == "tuple" and isinstance(value, str | int | float):
        return f"should be a list, as in [{_toml(value)}]"
    if name == "model_attributes" and item["loc"] != ("data",):
        return 'should be a table, as in { dist = "Normal", sigma = 1.0 }'
    return WANTED.get(name, str(item["msg"]).removeprefix("Input "))


def _toml(value: object) -> str:
    """A value as a TOML file holds it."""
    match value:
        case bool():
            return str(value).lower()
        case str() if len(value) < 50:
            return f'"{value}"'
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
    return described(value)


def _dotted(place: Sequence[str], content: object) -> str:
    """A place as TOML names it, without the tags that pydantic puts into a path for the member of a union.

    Data without a form are rows.
    """
    kept = ""
    for part in place:
        tag = content.get("dist", content.get("form", "rows")) if isinstance(content, dict) else None
        if isinstance(content, dict) and part not in content and part == tag:
            continue
        in_list = isinstance(content, list | tuple) and part.isdigit()
        kept += f", entry {int(part) + 1}" if in_list else f".{part}"
        content = content.get(part) if isinstance(content, dict) else _entry(content, part) if in_list else None
    return kept.removeprefix(".")


def _entry(content: Any, part: str) -> object:
    return content[int(part)] if int(part) < len(content) else None


def _known_keys(kind: type[BaseModel], place: Sequence[str]) -> list[str]:
    """Keys the schema allows at a place, read from the JSON Schema that editors use."""
    schema = kind.model_json_schema()
    node: dict[str, Any] = schema
    for part in place:
        node = _resolve(schema, node, part)
    return sorted(node.get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any], part: str) -> dict[str, Any]:
    """Follow one step of a path through properties, references and tagged unions."""
    target = node.get("properties", {}).get(part, node)
    for option in target.get("anyOf", []):
        if "$ref" in option or "discriminator" in option:
            target = option
    mapping = target.get("discriminator", {}).get("mapping", {})
    reference = mapping.get(part, target.get("$ref"))
    if reference:
        target = schema["$defs"][str(reference).rsplit("/", 1)[-1]]
    return dict(target)
