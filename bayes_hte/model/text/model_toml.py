"""Write a model as the TOML file that `read_model` takes: to run it again, or to change a prior."""

import json
import re
from collections.abc import Mapping
from typing import Any

from bayes_hte.spec import Model

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def write_model_toml(model: Model) -> str:
    """Write the keys of a model that are set, as TOML; `read_model` of the text gives the same model.

    Examples
    --------
    >>> from bayes_hte import read_model
    >>> lines = write_model_toml(read_model("conversion")).splitlines()
    >>> [line for line in lines if line.startswith(("family", "mean"))][:2]
    ['family = "binomial"', 'mean = {dist = "Normal", mu = 0.0, sigma = 1.0}']
    """
    return "\n".join(_write_table(model.model_dump(mode="json", exclude_none=True), path=())).strip() + "\n"


def _write_table(content: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Write the lines of a table: its values first, as TOML wants, then the tables in it under their own heads."""
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping) and not _is_prior(value)}
    values = {key: value for key, value in content.items() if key not in tables}
    lines = [f"[{'.'.join(map(_write_key, path))}]"] if path and (values or not tables) else []
    lines += [f"{_write_key(key)} = {_write_value(value)}" for key, value in values.items()]
    for key, table in tables.items():
        lines += ["", *_write_table(table, (*path, key))]
    return lines


def _is_prior(value: Mapping[str, Any]) -> bool:
    # A distribution is read as one thing: it stays on its line.
    return "dist" in value


def _write_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _write_value(key)


def _write_value(value: Any) -> str:
    match value:
        case Mapping():
            return "{" + ", ".join(f"{_write_key(key)} = {_write_value(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_write_value, value)) + "]"
        # A JSON string is a TOML string but for the delete character, which TOML wants escaped.
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool():
            return "true" if value else "false"
        case _:
            return repr(value)
