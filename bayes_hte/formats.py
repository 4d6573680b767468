"""Text for other programs: CSV that a spreadsheet can open safely, and strict JSON."""

import json
import math
import re
from typing import Any

import pandas as pd

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def to_json(content: Any) -> str:
    """Strict JSON: what is not a finite number becomes null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(frame: pd.DataFrame) -> str:
    """CSV in which no text can be run as a formula by a spreadsheet (a ' is put before it)."""
    safe = frame.rename(columns=_harmless)
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(_harmless)
    return str(safe.to_csv(index=False, lineterminator="\r\n"))


def _harmless(value: Any) -> Any:
    if (
        isinstance(value, str)
        and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        and not _NUMBER.fullmatch(value)
    ):
        return f"'{value}"
    return value


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case str() | None | bool():
            return value
        case _ if value is pd.NA:
            return None
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
