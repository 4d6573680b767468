"""Read tables that hold one row per cell already: summaries of an experiment, or published estimates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.cells import plain
from bayes_hte.cells.assembly import About, Column, assemble
from bayes_hte.cells.covariances import checked_covariance
from bayes_hte.cells.labels import SEPARATOR, Key, is_missing, text_of
from bayes_hte.cells.sources import check_arms, check_names, counted, fetch, missing_notes, name_of, opened, pick
from bayes_hte.errors import DataError
from bayes_hte.schema import MISSING_LEVEL

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table

type Floats = npt.NDArray[np.float64]

ONLY_ARM = "treated"
"""The arm of estimates that name none."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table: the cell that each describes, and its numbers (NaN where missing) by role."""

    keys: list[Key]
    numbers: dict[str, Floats]
    notes: list[str]
    source: str

    def fail_at(self, bad: npt.NDArray[np.bool_], what: str) -> None:
        """Raise DataError if `bad` is true anywhere; the message names the first cell."""
        if bad.any():
            count = int(bad.sum())
            others = f" and {counted(count - 1, 'other row', 'other rows')}" if count > 1 else ""
            raise DataError(f"{what}; wrong in {_name(self.keys[int(bad.argmax())])}{others}; correct the table")


def from_summary(
    table: "Table",
    *,
    arm: str,
    control: str,
    segments: Sequence[str],
    n: str | None = None,
    events: str | None = None,
    mean: str | None = None,
    sd: str | None = None,
    se: str | None = None,
    outcome: str = "outcome",
) -> xr.Dataset:
    """Read a summary with one row per segment and arm.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow or DuckDB table, or a path to a .csv, .csv.gz, .tsv or .parquet file.
    arm
        Column that names the arm.
    control
        The arm that the others are compared with, as text.
    segments
        Columns that define the segments: the dimensions.
    n, events
        Columns with the units, and with the units whose outcome is 1.
    mean, sd
        Columns with the mean outcome, and with the standard deviation between units (divisor n - 1).
    se
        Column with the standard error of the mean, for means that were adjusted or whose units are not independent.
    outcome
        What was measured, for tables and reports.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. n and events give n, events; n, mean and sd give n, mean and
        ss = sd² (n - 1); mean and se, with or without n, are kept.

    Raises
    ------
    DataError
        If columns are missing or no such combination is given, a row appears twice, a number is impossible, the
        control or a second arm is not there, or nothing varies.

    Notes
    -----
    A row with n = 0 is an empty cell, and so is a combination without a row.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile", "mobile", "tv", "tv"],
    ...         "arm": ["old", "new", "old", "new"],
    ...         "users": [1000, 1000, 50, 50],
    ...         "bought": [100, 120, 5, 4],
    ...     }
    ... )
    >>> cells = from_summary(table, arm="arm", control="old", segments=["device"], n="users", events="bought")
    >>> cells["events"].values.tolist()
    [[100, 120], [5, 4]]
    """
    columns = {"n": n, "events": events, "mean": mean, "sd": sd, "se": se}
    given = {role: column for role, column in columns.items() if column is not None}
    convert = _summaries(given)
    dims = check_names(segments, {"arm": arm, **columns})
    rows = _read(table, dims=dims, arm=arm, columns=given)
    about = About(outcome=outcome, control=text_of(control) or "", dims=dims, source=rows.source, notes=rows.notes)
    values = convert(rows)
    full = values["n"] > 0 if "n" in values else np.ones(len(rows.keys), dtype=np.bool_)
    check_arms((label for (_, label), there in zip(rows.keys, full, strict=True) if there), about.control, arm)
    return assemble(rows.keys, values, about)


def _summaries(given: dict[str, str]) -> "Callable[[Rows], dict[str, Column]]":
    """Choose what to make of the columns that are given."""
    convert = _ACCEPTED.get(frozenset(given))
    if convert is None:
        found = ", ".join(f"{role}={column!r}" for role, column in given.items()) or "none of them"
        raise DataError(
            "a summary needs n and events (yes or no), or n, mean and sd (numbers), "
            f"or mean and se, with n if known (adjusted means), and nothing else; given: {found}"
        )
    return convert


def _counts(rows: Rows) -> dict[str, Column]:
    n = _whole(rows, "n")
    events = _whole(rows, "events", optional=n == 0)  # a sum over no rows is null in SQL
    rows.fail_at(events > n, "events must not be more than n")
    if not events.any():
        raise DataError("no events in any cell: no effect can be seen; check which column is events")
    if (events == n).all():
        raise DataError("the outcome does not vary: every unit has the event, so no effect can be seen")
    return {"n": n, "events": events}


def _moments(rows: Rows) -> dict[str, Column]:
    n = _whole(rows, "n")
    _check_finite(rows, "mean", n > 0)
    _check_finite(rows, "sd", n > 1)  # one unit has no standard deviation: any engine writes null
    rows.fail_at((rows.numbers["sd"] < 0), "sd must not be negative")
    mean = np.where(n > 0, rows.numbers["mean"], np.nan)
    ss = np.where(n > 1, rows.numbers["sd"] ** 2 * (n - 1), 0.0)
    if not ss.any() and len(np.unique(mean[n > 0])) == 1:
        raise DataError("the outcome does not vary: all means are equal and every sd is 0, so no effect can be seen")
    return {"n": n, "mean": mean, "ss": ss}


def _means(rows: Rows) -> dict[str, Column]:
    return _with_errors(rows, "mean")


def _with_errors(rows: Rows, role: str) -> dict[str, Column]:
    """A mean or estimate with its standard error; cells with n = 0 are empty."""
    columns: dict[str, Column] = {}
    full = np.ones(len(rows.keys), dtype=np.bool_)
    if "n" in rows.numbers:
        columns["n"] = _whole(rows, "n")
        full = columns["n"] > 0
    for name in (role, "se"):
        _check_finite(rows, name, full)
        columns[name] = np.where(full, rows.numbers[name], np.nan)
    rows.fail_at(full & ~(rows.numbers["se"] > 0), "se must be greater than 0")
    return columns


_ACCEPTED = MappingProxyType(
    {
        frozenset({"n", "events"}): _counts,
        frozenset({"n", "mean", "sd"}): _moments,
        frozenset({"mean", "se"}): _means,
        frozenset({"n", "mean", "se"}): _means,
    }
)


def from_estimates(
    table: "Table",
    *,
    segments: Sequence[str],
    estimate: str,
    se: str | None = None,
    covariance: npt.ArrayLike | None = None,
    arm: str | None = None,
    n: str | None = None,
    outcome: str = "effect",
) -> xr.Dataset:
    """Read effects that were estimated elsewhere, one row per segment (and arm).

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow or DuckDB table, or a path to a .csv, .csv.gz, .tsv or .parquet file.
    segments
        Columns that define the segments: the dimensions.
    estimate
        Column with the estimated effects.
    se
        Column with their standard errors; may be left out if `covariance` is given.
    covariance
        Covariance matrix of the estimates, rows and columns in the order of the table's rows; for one arm only.
    arm
        Column that names the treated arm; without it there is one arm, "treated".
    n
        Column with the units behind each estimate.
    outcome
        What was measured, for tables and reports.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm): estimate and se in the unit of the estimates, n if given, and covariance with dims
        (segment, other_segment) if given. There is no control: its attribute is "".

    Raises
    ------
    DataError
        If columns are missing, a row appears twice, a number is not finite, a standard error is not positive, or the
        covariance is not symmetric, not positive definite, or disagrees with the standard errors.

    Examples
    --------
    >>> import pandas as pd
    >>> schools = pd.DataFrame({"school": ["A", "B"], "y": [28.0, 8.0], "se": [15.0, 10.0]})
    >>> from_estimates(schools, segments=["school"], estimate="y", se="se")["estimate"].values.tolist()
    [[28.0], [8.0]]
    """
    if se is None and covariance is None:
        raise DataError(
            "estimates need their uncertainty: name the column of standard errors as se, or give covariance"
        )
    columns = {"estimate": estimate, "se": se, "n": n}
    given = {role: column for role, column in columns.items() if column is not None}
    dims = check_names(segments, {"arm": arm, **columns})
    rows = _read(table, dims=dims, arm=arm, columns=given)
    about = About(outcome=outcome, control="", dims=dims, source=rows.source, notes=rows.notes)
    if n is not None:
        rows.fail_at(rows.numbers["n"] == 0, "n must be at least 1 where there is an estimate")
    if covariance is None:
        return assemble(rows.keys, _with_errors(rows, "estimate"), about)
    if len({label for _, label in rows.keys}) > 1:
        raise DataError("a covariance can be given for one arm only; give one arm's rows at a time")
    matrix = checked_covariance(covariance, _labels(rows), rows.numbers.get("se"))
    rows.numbers["se"] = np.sqrt(np.diag(matrix))
    return assemble(rows.keys, _with_errors(rows, "estimate"), about, covariance=matrix)


def _labels(rows: Rows) -> list[str]:
    return [SEPARATOR.join(levels) for levels, _ in rows.keys]


def _read(table: "Table", *, dims: list[str], arm: str | None, columns: dict[str, str]) -> Rows:
    """Read the rows and say which cell each describes; none may be described twice."""
    labels = [*dims] if arm is None else [*dims, arm]
    answer = _fetched(table, labels, list(columns.values()))
    values = list(zip(*answer, strict=True))
    texts = [[text_of(value) for value in column] for column in values[: len(labels)]]
    arms = [ONLY_ARM] * len(answer) if arm is None else _arms(texts.pop(), arm)
    levels = ([level or MISSING_LEVEL for level in column] for column in texts)
    keys: list[Key] = list(zip(zip(*levels, strict=True), arms, strict=True))
    _check_distinct(keys)
    return Rows(
        keys,
        {role: _floats(role, column) for role, column in zip(columns, values[len(labels) :], strict=True)},
        missing_notes(texts, [1] * len(answer), dims, "row"),
        f"{counted(len(answer), 'row', 'rows')} of {name_of(table)}",
    )


def _fetched(table: "Table", labels: list[str], numbers: list[str]) -> Sequence[tuple[Any, ...]]:
    """The columns that are needed, row by row."""
    found = plain.rows(table, labels, numbers)
    if found is not None:
        return found
    with opened(table, labels=labels) as source:
        return fetch(pick(source, [*labels, *numbers]), source.name)


def _arms(texts: list[str | None], column: str) -> list[str]:
    arms = [text for text in texts if text is not None]
    if len(arms) < len(texts):
        missing = counted(len(texts) - len(arms), "row has", "rows have")
        raise DataError(f"{missing} no arm in {column!r}; fill it in or remove the rows")
    return arms


def _check_distinct(keys: list[Key]) -> None:
    first: dict[Key, int] = {}
    for i, key in enumerate(keys):
        if key in first:
            raise DataError(
                f"{_name(key)} appears twice, in rows {first[key] + 1} and {i + 1}; add the rows up first, "
                "or name the column that tells them apart in segments"
            )
        first[key] = i


def _name(key: Key) -> str:
    return f"segment {SEPARATOR.join(key[0])!r}, arm {key[1]!r}"


def _floats(role: str, values: Sequence[Any]) -> Floats:
    try:
        return np.array([np.nan if is_missing(value) else _float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{role} must be numbers, but holds text: {error}; convert the column") from error


def _float(value: Any) -> float:
    if isinstance(value, str):  # float() would read it, and a mistaken column with it
        raise ValueError(repr(value))
    return float(value)


def _whole(rows: Rows, role: str, optional: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """Whole numbers, whatever the engine stored them as; 0 for a missing one where it is optional."""
    values = rows.numbers[role]
    if optional is not None:
        values = np.where(optional & np.isnan(values), 0.0, values)
    rows.fail_at(~np.isfinite(values), f"{role} must be a finite number")
    rows.fail_at((values < 0) | (values != np.floor(values)), f"{role} must be a whole number, 0 or more")
    return values.astype(np.int64)


def _check_finite(rows: Rows, role: str, needed: npt.NDArray[np.bool_]) -> None:
    rows.fail_at(needed & ~np.isfinite(rows.numbers[role]), f"{role} must be a finite number")
