"""Validate arguments: numbers, seeds, column names, mappings and paths.

Python takes a boolean for a number, text for a list of letters, and NumPy's numbers for none of its own. What is
accepted here is what a caller means.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path

from bayes_hte.errors import ArgumentError

MAX_SHOWN_CHARACTERS = 60
"""Longest value that a message quotes as it is; a longer one would bury the sentence."""
MIN_DRAWS = 400
"""The diagnosis asks for 400 effective draws: fewer could not pass even if every draw were independent."""
SEED_LIMIT = 2**32
"""Seeds lie below this: NumPy's older generators, which some samplers start from, know no larger ones."""


def to_float(value: object) -> float | None:
    """Convert a number, NumPy's included, to a float; give None for all else, such as booleans and text.

    Examples
    --------
    >>> to_float(3), to_float(True), to_float("3")
    (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.nan  # 10**400 is beyond all that can be reckoned with


def to_int(value: object) -> int | None:
    """Convert a whole number, NumPy's included, to an int; give None for all else, such as booleans and 3.0."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def describe_value(value: object) -> str:
    """Name a value in a message: as Python writes it if that is short, else by its type.

    Examples
    --------
    >>> describe_value("5"), describe_value(list(range(99)))
    ("'5'", 'a list')
    """
    if type(value).__module__ == "numpy" and isinstance(value, Real):
        value = to_float(value) if to_int(value) is None else to_int(value)
    # An address (" at 0x") differs between runs and tells nobody anything; a line break would break the message.
    value_repr = repr(value)
    return (
        value_repr
        if len(value_repr) <= MAX_SHOWN_CHARACTERS and "\n" not in value_repr and " at 0x" not in value_repr
        else describe_type(value)
    )


def describe_type(value: object) -> str:
    """Name the type of a value in a message, with its article.

    Examples
    --------
    >>> describe_type(None), describe_type([1]), describe_type(Decimal(1))
    ('None', 'a list', 'a decimal.Decimal')
    """
    if value is None or isinstance(value, str):
        return "None" if value is None else "text"
    # Public names: the innermost module of a class is an implementation detail (pandas.DataFrame, not
    # pandas.core.frame.DataFrame).
    package_name, type_name = type(value).__module__.split(".")[0], type(value).__name__
    qualified_name = type_name if package_name == "builtins" else f"{package_name}.{type_name}"
    return f"{'an' if qualified_name[0] in 'aeioux' else 'a'} {qualified_name}"


def check_draw_count(value: object) -> int:
    """Check that a value is a number of draws that probabilities can be told from, and return it as an int.

    Raises
    ------
    ArgumentError
        If the value is no whole number, or too small.
    """
    draw_count = to_int(value)
    if draw_count is None:
        raise ArgumentError(
            f"draws={describe_value(value)} is no number of draws; give a whole number, {MIN_DRAWS} or more"
        )
    if draw_count < MIN_DRAWS:
        raise ArgumentError(f"draws={draw_count} is too few to report a probability; the least is {MIN_DRAWS}")
    return draw_count


def check_seed(value: object) -> int:
    """Check that a value is a seed, and return it as an int.

    Raises
    ------
    ArgumentError
        If the value is no whole number, or out of range.
    """
    seed = to_int(value)
    if seed is None or not 0 <= seed < SEED_LIMIT:
        raise ArgumentError(f"seed={describe_value(value)} is no seed: give a whole number from 0 to {SEED_LIMIT - 1}")
    return seed


def check_number(value: object, value_description: str) -> float:
    """Check that a value is a number, and return it as a float.

    Raises
    ------
    DataError
        If the value is no number; the message opens with `value_description`.
    """
    number = to_float(value)
    if number is None:
        raise ArgumentError(f"{value_description} is {describe_value(value)}; give a number")
    return number


def check_column_names(argument_name: str, value: object) -> list[str]:
    """Check that a value is a list of column names, or one name as text, and return it as a list.

    Raises
    ------
    ArgumentError
        If the value is no list of text; the message calls it `argument_name`.

    Examples
    --------
    >>> check_column_names("covariates", "age"), check_column_names("covariates", ("age", "beds"))
    (['age'], ['age', 'beds'])
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable):
        raise ArgumentError(f"{argument_name} must be a list of columns such as ['age'], not {describe_value(value)}")
    column_names = list(value)
    for column_name in column_names:
        if not isinstance(column_name, str):
            raise ArgumentError(
                f"each of {argument_name} must be the name of one column, not {describe_value(column_name)}"
            )
    return column_names


def check_not_none(**column_arguments: object) -> None:
    """Raise ArgumentError if one of the arguments that cannot be left out is None."""
    for argument_name, column_name in column_arguments.items():
        if column_name is None:
            raise ArgumentError(
                f"{argument_name} is None; name {'an arm' if argument_name == 'control' else 'a column'}"
            )


def check_nonempty_text(**text_arguments: object) -> None:
    """Raise ArgumentError if one of the arguments is no text, or empty."""
    for argument_name, argument in text_arguments.items():
        if not isinstance(argument, str) or not argument:
            raise ArgumentError(f"{argument_name} is {describe_value(argument)}; say in words what was measured")


def list_mapping_items(argument_name: str, value: object, example_code: str) -> list[tuple[object, object]]:
    """List the pairs of key and value of a mapping, or of a pandas Series.

    Raises
    ------
    ArgumentError
        If the value is neither; the message shows `example_code`.
    """
    # The class's name stands for isinstance: importing pandas here would slow down all that only reads a plan.
    if not isinstance(value, Mapping) and type(value).__name__ != "Series":
        raise ArgumentError(f"{argument_name} must be a dict, such as {example_code}, not {describe_value(value)}")
    mapping_items: Iterable[tuple[object, object]] = value.items()  # type: ignore[attr-defined]  # a Series has them, too
    return list(mapping_items)


def check_path(value: object, file_role: str) -> Path:
    """Check that a value is a path, and return it as a Path.

    Parameters
    ----------
    value : object
    file_role : str
        Names the file in the message, such as ``the plan``.

    Raises
    ------
    ArgumentError
        If the value is neither text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise ArgumentError(f"{file_role} is {describe_value(value)}; give its path, as text or a pathlib.Path")
    if is_address(value):
        raise ArgumentError(
            f"{file_role} is given as an address or a connection, not as a path, and nothing is fetched from a "
            "network; download the file and give its path"
        )
    return expand_home(value)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Tell whether a text is an address on a network or a connection to a database, and no path.

    Such a text may hold a password: no message shows any of it.

    Examples
    --------
    >>> is_address("postgresql://ann:secret@db/shop"), is_address("host=db password=secret"), is_address("C:/rows.csv")
    (True, True, False)
    """
    # Two letters or more before the colon, as C:/ is a drive; one slash, as Path() makes one of two.
    return (
        re.search(
            r"^\s*[A-Za-z][A-Za-z0-9+.-]+:/|\b(password|passwd|pwd)\s*=|^[^/\s\\]{2,}:[^/\s\\]+@",
            os.fspath(path),
            re.IGNORECASE,
        )
        is not None
    )


def holds_password(content: object) -> bool:
    """Tell whether a text, or one inside of lists and tables, is a URL with a password in it.

    Examples
    --------
    >>> holds_password({"source": ["see postgresql://ann:secret@db/shop"]}), holds_password("https://db/shop:8080/@")
    (True, False)
    """
    match content:
        case str():
            return re.search(r"[A-Za-z][A-Za-z0-9+.-]*:/+[^\s/@:]*:[^\s/@]+@", content) is not None
        case Mapping():
            return any(map(holds_password, [*content.keys(), *content.values()]))
        case list() | tuple():
            return any(map(holds_password, content))
    return False


def locate_file(path: str | os.PathLike[str], folder: Path) -> Path | str:
    """Locate a file that a plan in `folder` names: beside the plan, in the home folder, or where the path says.

    An address stays as it is, for the reader to refuse it without showing it; so does -, which is standard input.
    """
    return os.fspath(path) if is_address(path) or os.fspath(path) == "-" else folder / expand_home(path)


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Replace a leading ~ by the home folder, as a shell does; leave the path as it is where there is no such user.

    Examples
    --------
    >>> expand_home("~/rows.csv") == Path.home() / "rows.csv", str(expand_home("a~b.csv"))
    (True, 'a~b.csv')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~nobody: a file may be called so
        return Path(path)
