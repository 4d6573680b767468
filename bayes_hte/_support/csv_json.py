"""Write tables and values as text for other programs: CSV that a spreadsheet can open safely, and strict JSON."""

import re
from typing import Any

import pandas as pd
from pydantic_core import to_json

_PLAIN_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def to_strict_json(json_content: Any) -> str:
    """Write a value as strict JSON, in which a number that is not finite becomes null.

    Examples
    --------
    >>> to_strict_json([0.5, float("nan")]).split()
    ['[', '0.5,', 'null', ']']
    """
    return to_json(json_content, indent=2, inf_nan_mode="null", fallback=_convert_scalar).decode() + "\n"


BYTE_ORDER_MARK = "\ufeff"
"""Before a text it tells Excel that the file is UTF-8; else Excel takes the encoding of the computer's language."""


def to_safe_csv(table: pd.DataFrame, *, significant_digits: int | None = None) -> str:
    """Write a table as CSV in which a spreadsheet runs no text as a formula: it gets a ' before it.

    Numbers have all their digits, unless `significant_digits` says how many.

    Examples
    --------
    >>> to_safe_csv(pd.DataFrame({"level": ["=1+1", "-3"], "n": [-3, 4]})).split()
    ['level,n', "'=1+1,-3", '-3,4']
    """
    safe_table = table.rename(columns=_escape_formula)
    for column_name in safe_table.columns:
        if not pd.api.types.is_numeric_dtype(safe_table[column_name]):
            safe_table[column_name] = safe_table[column_name].map(_escape_formula)
    float_format = None if significant_digits is None else f"%.{significant_digits}g"
    # RFC 4180 ends lines with CR LF.
    return str(safe_table.to_csv(index=False, lineterminator="\r\n", float_format=float_format))


def _escape_formula(csv_value: Any) -> Any:
    # Spreadsheets run texts with these beginnings; a number such as "-3.5" begins so, too, and stays a number.
    if (
        isinstance(csv_value, str)
        and csv_value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        and not _PLAIN_NUMBER.fullmatch(csv_value)
    ):
        return f"'{csv_value}"
    return csv_value


def _convert_scalar(value: Any) -> Any:
    # pydantic_core knows Python's own types; NumPy's scalars know the one that they stand for.
    return None if value is pd.NA else value.item()
