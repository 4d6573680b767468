"""Write values as TOML, for files that people read on and for messages on what a file should say."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any


def write_toml_value(value: Any) -> str:
    """Write a value as TOML does; a mapping as an inline table.

    Examples
    --------
    >>> write_toml_value({"old": 0.5, "a b": [True, 7]})
    '{ old = 0.5, "a b" = [true, 7] }'
    """
    match value:
        case Mapping():
            entries = [f"{write_toml_key(str(key))} = {write_toml_value(entry)}" for key, entry in value.items()]
            return f"{{ {', '.join(entries)} }}"
        case list() | tuple():
            return f"[{', '.join(map(write_toml_value, value))}]"
        case float() if value in (float("inf"), -float("inf")):
            return "inf" if value > 0 else "-inf"
        case datetime():
            return value.isoformat(timespec="seconds")
    # Text, finite numbers, true and false are written alike in JSON and in TOML, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_toml_key(key: str) -> str:
    """Write a key as TOML does: bare if it can be, else in quotes."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else write_toml_value(key)


def write_toml_document(
    content: Mapping[str, Any], *, stays_inline: Callable[[Mapping[str, Any]], bool] = lambda table: False
) -> str:
    """Write a table as the text of a TOML file: its values, then the tables in it under heads of their own.

    Parameters
    ----------
    content : mapping
    stays_inline : callable
        Whether a table is read as one thing and stays on one line, such as a distribution.

    Examples
    --------
    >>> print(write_toml_document({"plan": {"data": {"n": 3}}, "title": "x", "metrics": [{"name": "a"}]}), end="")
    title = "x"
    <BLANKLINE>
    [plan.data]
    n = 3
    <BLANKLINE>
    [[metrics]]
    name = "a"
    """
    return "\n".join(_write_table(content, (), stays_inline)).strip() + "\n"


def _write_table(
    content: Mapping[str, Any], path: tuple[str, ...], stays_inline: Callable[[Mapping[str, Any]], bool]
) -> list[str]:
    def is_table(value: Any) -> bool:
        return isinstance(value, Mapping) and not stays_inline(value)

    def is_table_list(value: Any) -> bool:
        # Inside of a table a short list of tables reads best on its line, as conditions of a rule do.
        return not path and isinstance(value, list | tuple) and bool(value) and all(map(is_table, value))

    # TOML takes every value after a head for one of that table: so values go before the first head.
    nested = {key: value for key, value in content.items() if is_table(value) or is_table_list(value)}
    values = {key: value for key, value in content.items() if key not in nested}
    head = ".".join(map(write_toml_key, path))
    # A table that only holds others needs no head.
    lines = [f"[{head}]"] if path and (values or not nested) else []
    lines += [f"{write_toml_key(key)} = {write_toml_value(value)}" for key, value in values.items()]
    for key, table in nested.items():
        if isinstance(table, Mapping):
            inner_lines = _write_table(table, (*path, key), stays_inline)
            # A table without a head begins with the empty line of the first one in it.
            lines += inner_lines if inner_lines[:1] == [""] else ["", *inner_lines]
            continue
        for entry in table:
            lines += ["", f"[[{write_toml_key(key)}]]"]
            lines += [f"{write_toml_key(name)} = {write_toml_value(value)}" for name, value in entry.items()]
    return lines
