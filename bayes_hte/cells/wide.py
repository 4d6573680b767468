"""Read tables with one row per segment, in which each arm has columns of its own: 2×2 tables among them."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from bayes_hte.asked import check_given, check_text
from bayes_hte.cells.assembly import About
from bayes_hte.cells.covariates import covariate_roles
from bayes_hte.cells.forms import ROLES, form_of
from bayes_hte.cells.labels import SEPARATOR, text_of
from bayes_hte.cells.records import Rows, check_distinct, read
from bayes_hte.cells.sources import check_names, counted, listed
from bayes_hte.cells.tables import summarised
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table

type Role = Literal[
    "n",
    "events",
    "non_events",
    "mean",
    "sd",
    "total",
    "sum_squares",
    "se",
    "exposure",
    "positive",
    "log_mean",
    "log_sd",
]
type Arms = Mapping[str, Mapping[Role, str]]


def from_wide(
    table: "Table",
    *,
    segments: Sequence[str],
    arms: Arms,
    control: str,
    outcome: str = "outcome",
    covariates: Sequence[str] | None = None,
) -> xr.Dataset:
    """Read a summary with one row per segment and a set of columns per arm.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to a .csv, .csv.gz, .tsv or .parquet
        file.
    segments
        Columns that define the segments: the dimensions.
    arms
        For each arm, what its columns mean and what they are called: the keywords of `from_summary` that describe
        outcomes, such as n and events, or events and non_events, and the same for every arm.
    control
        The arm that the others are compared with.
    outcome
        What was measured, for tables and reports.
    covariates
        Columns of numbers that are known of each segment as a whole.

    Returns
    -------
    xarray.Dataset
        As from `from_summary`, with dims (segment, arm), the control first.

    Raises
    ------
    DataError
        If arms are described differently, or as `from_summary` does.

    Notes
    -----
    An arm without any number in a row was not seen in that segment: an empty cell.

    Examples
    --------
    Two trials of a vaccine against tuberculosis, each a 2×2 table (Colditz et al. 1994):

    >>> import pandas as pd
    >>> trials = pd.DataFrame(
    ...     {
    ...         "trial": ["Aronson 1948", "Ferguson & Simes 1949"],
    ...         "tpos": [4, 6],
    ...         "tneg": [119, 300],
    ...         "cpos": [11, 29],
    ...         "cneg": [128, 274],
    ...     }
    ... )
    >>> cells = from_wide(
    ...     trials,
    ...     segments=["trial"],
    ...     arms={
    ...         "vaccine": {"events": "tpos", "non_events": "tneg"},
    ...         "none": {"events": "cpos", "non_events": "cneg"},
    ...     },
    ...     control="none",
    ...     outcome="tuberculosis",
    ... )
    >>> cells["n"].values.tolist()
    [[139, 123], [303, 306]]
    """
    check_given(control=control)
    check_text(outcome=outcome)
    columns = _by_arm(arms)
    roles = next(iter(columns.values()))
    convert = form_of(roles)
    known = covariate_roles(covariates)
    named = {_of(role, arm): column for arm, own in columns.items() for role, column in own.items()}
    dims = check_names(segments, {**named, **known})
    wide = read(table, dims=dims, arm=None, columns=named | known)
    check_distinct([levels for levels, _ in wide.keys], lambda levels: f"segment {SEPARATOR.join(levels)!r}")
    rows = _longer(wide, list(columns), list(roles), list(known))
    about = About(outcome=outcome, control=text_of(control) or "", dims=dims, source=rows.source)
    return summarised(rows, convert, about, arm="arms", known=known)


def _of(role: str, arm: str) -> str:
    return f"{role} of arm {arm!r}"


def _by_arm(arms: Arms) -> dict[str, dict[str, str]]:
    """The columns of each arm by their roles, which are the same for every arm."""
    if not isinstance(arms, Mapping) or not arms or not all(isinstance(own, Mapping) for own in arms.values()):
        raise DataError(
            f"arms must say for each arm what its columns mean, such as {{'old': {{'n': 'n_old', 'events': "
            f"'events_old'}}, 'new': …}}, not {arms!r}"
        )
    columns = {text_of(arm) or "": {str(role): column for role, column in own.items()} for arm, own in arms.items()}
    for arm, own in columns.items():
        unknown = [role for role in own if role not in ROLES]
        if unknown:
            near = difflib.get_close_matches(unknown[0], ROLES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known ones are {listed(sorted(ROLES))}"
            raise DataError(f"no column of an arm can mean {unknown[0]!r}, as said of arm {arm!r}; {hint}")
    if len(columns) < len(arms):
        raise DataError(f"two arms have the same name as text: {listed([*arms])}; name them differently")
    first, *others = columns
    for arm in others:
        if columns[arm].keys() != columns[first].keys():
            raise DataError(
                f"arms need the same columns: {first!r} has {listed([*columns[first]])}, but {arm!r} has "
                f"{listed([*columns[arm]])}; describe both alike"
            )
    return columns


def _longer(wide: Rows, arms: Sequence[str], roles: Sequence[str], known: Sequence[str]) -> Rows:
    """One row per segment and arm, but for arms without any number in the row of a segment."""
    numbers = {role: np.concatenate([wide.numbers[_of(role, arm)] for arm in arms]) for role in roles}
    numbers |= {name: np.tile(wide.numbers[name], len(arms)) for name in known}
    seen = ~np.all([np.isnan(numbers[role]) for role in roles], axis=0)
    keys = [(levels, arm) for arm in arms for levels, _ in wide.keys]
    gaps = int((~seen).sum())
    notes = (
        [f"{counted(gaps, 'cell has', 'cells have')} no numbers in the table: nothing was seen there"] if gaps else []
    )
    return Rows(
        [key for key, there in zip(keys, seen, strict=True) if there],
        {name: values[seen] for name, values in numbers.items()},
        [*wide.notes, *notes],
        wide.source,
    )
