"""Write tables and values as text for other programs: CSV that a spreadsheet can open safely, and strict JSON."""

import json
import math
import re
from typing import Any

import pandas as pd

_PLAIN_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def to_strict_json(json_content: Any) -> str:
    """Write a value as strict JSON, in which a number that is not finite becomes null."""
    return json.dumps(_replace_non_finite(json_content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_safe_csv(table: pd.DataFrame) -> str:
    """Write a table as CSV in which a spreadsheet runs no text as a formula: it gets a ' before it."""
    safe_table = table.rename(columns=_escape_formula)
    for column_name in safe_table.columns:
        if not pd.api.types.is_numeric_dtype(safe_table[column_name]):
            safe_table[column_name] = safe_table[column_name].map(_escape_formula)
    # RFC 4180 ends lines with CR LF.
    return str(safe_table.to_csv(index=False, lineterminator="\r\n"))


def _escape_formula(csv_value: Any) -> Any:
    # Spreadsheets run texts with these beginnings; a number such as "-3.5" begins so, too, and stays a number.
    if (
        isinstance(csv_value, str)
        and csv_value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        and not _PLAIN_NUMBER.fullmatch(csv_value)
    ):
        return f"'{csv_value}"
    return csv_value


def _replace_non_finite(json_value: Any) -> Any:
    match json_value:
        case dict():
            return {key: _replace_non_finite(item) for key, item in json_value.items()}
        case list() | tuple():
            return [_replace_non_finite(item) for item in json_value]
        case str() | None | bool():
            return json_value
        case _ if json_value is pd.NA:
            return None
    python_value = json_value.item() if hasattr(json_value, "item") else json_value
    return None if isinstance(python_value, float) and not math.isfinite(python_value) else python_value
