"""What callers ask for, told apart from what Python would take for it: numbers, names and paths.

A boolean is a number to Python, a number of NumPy is none of its own, and text is a list of letters.
"""

import math
import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path

from bayes_hte.errors import DataError, HteError

SHOWN = 60
"""How many characters of a value a message shows."""
SEEDS = 2**32
"""NumPy's older generators, which some samplers start from, know no more."""


def number(value: object) -> float | None:
    """A number, NumPy's included, as Python's own; None for all else, such as booleans and text.

    Examples
    --------
    >>> number(3), number(True), number("3")
    (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.nan  # 10**400 is beyond all that can be reckoned with


def whole(value: object) -> int | None:
    """A whole number, NumPy's included, as Python's own; None for all else, such as booleans and 3.0."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def described(value: object) -> str:
    """What a message calls a value: as Python writes it if that is short, else what kind it is.

    Examples
    --------
    >>> described("5"), described(list(range(99)))
    ("'5'", 'a list')
    """
    if type(value).__module__ == "numpy" and isinstance(value, Real):
        value = number(value) if whole(value) is None else whole(value)
    text = repr(value)
    return text if len(text) <= SHOWN and "\n" not in text and " at 0x" not in text else type_of(value)


def type_of(value: object) -> str:
    """What a message calls a value of the wrong kind.

    Examples
    --------
    >>> type_of(None), type_of([1]), type_of(Decimal(1))
    ('None', 'a list', 'a decimal.Decimal')
    """
    if value is None or isinstance(value, str):
        return "None" if value is None else "text"
    owner, name = type(value).__module__.split(".")[0], type(value).__name__
    told = name if owner == "builtins" else f"{owner}.{name}"
    return f"{'an' if told[0] in 'aeioux' else 'a'} {told}"


def seed_of(value: object) -> int:
    """A seed as Python's own number.

    Raises
    ------
    DataError
        If it is none.
    """
    seed = whole(value)
    if seed is None or not 0 <= seed < SEEDS:
        raise DataError(f"seed={described(value)} is no seed: give a whole number from 0 to {SEEDS - 1}")
    return seed


def names(what: str, value: object) -> list[str]:
    """The names in a list of columns.

    Raises
    ------
    DataError
        If this is no list of text.
    """
    if isinstance(value, str):
        raise DataError(f"{what} must be a list of columns; write {what}=[{value!r}]")
    if not isinstance(value, Iterable):
        raise DataError(f"{what} must be a list of columns such as ['age'], not {described(value)}")
    found = list(value)
    for name in found:
        if not isinstance(name, str):
            raise DataError(f"each of {what} must be the name of one column, not {described(name)}")
    return found


def check_given(**columns: object) -> None:
    """Raise DataError for what cannot be left out, but is None."""
    for what, name in columns.items():
        if name is None:
            raise DataError(f"{what} is None; name {'an arm' if what == 'control' else 'a column'}")


def check_text(**texts: object) -> None:
    """Raise DataError for what must be text, but is none."""
    for what, text in texts.items():
        if not isinstance(text, str) or not text:
            raise DataError(f"{what} is {described(text)}; say in words what was measured")


def items_of(what: str, value: object, example: str) -> list[tuple[object, object]]:
    """The pairs of a mapping, or of a pandas Series.

    Raises
    ------
    DataError
        If it is neither.
    """
    if not isinstance(value, Mapping) and type(value).__name__ != "Series":
        raise DataError(f"{what} must be a dict, such as {example}, not {described(value)}")
    pairs: Iterable[tuple[object, object]] = value.items()  # type: ignore[attr-defined]  # a Series has them, too
    return list(pairs)


def path_of(value: object, what: str, error: type[HteError]) -> Path:
    """A path.

    Raises
    ------
    HteError
        The error asked for, if it is neither text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise error(f"{what} is {described(value)}; give its path, as text or a pathlib.Path")
    return Path(value)
