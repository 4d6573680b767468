"""Write values as TOML, for files that people read on and for messages on what a file should say."""

import json
import re
from collections.abc import Mapping
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
    # Text, finite numbers, true and false are written alike in JSON and in TOML, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_toml_key(key: str) -> str:
    """Write a key as TOML does: bare if it can be, else in quotes."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else write_toml_value(key)
