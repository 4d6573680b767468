"""Units by value of the outcome: counts, ratings and other outcomes of few values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.asked import check_given, check_text
from bayes_hte.cells.assembly import About, Column, Coords, assemble
from bayes_hte.cells.labels import SEPARATOR, Key, text_of
from bayes_hte.cells.records import Floats, check_distinct, finite, read, whole
from bayes_hte.cells.sources import check_arms, check_names
from bayes_hte.errors import DataError
from bayes_hte.schema import VALUE

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table

MAX_VALUES = 1000
"""An outcome with more values is measured rather than counted, and its mean says as much in less space."""

MAX_NUMBERS = 20_000_000
"""Cells times values: 160 MB."""


def histogram(
    keys: Sequence[Key], values: Floats, units: npt.NDArray[np.int64], what: str
) -> tuple[list[Key], dict[str, Column], Coords]:
    """Put units by cell and value into their places; `what` names the outcome in messages.

    Raises
    ------
    DataError
        If there are too many values, or only one.
    """
    held = np.unique(values[units > 0])
    check_values(held, what)
    if len(held) < 2:
        found = f"it is {held[0]:g} for every unit" if len(held) else "there are no units"
        raise DataError(f"the outcome does not vary: {found}, so no effect can be seen; check {what}")
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    if len(index) * len(held) > MAX_NUMBERS:
        raise DataError(
            f"{len(index):,} cells with {len(held):,} values of {what} are too many for histograms; group the levels "
            'of the dimensions first, or use metric="mean"'
        )
    cell = np.array([index[key] for key in keys], dtype=np.intp)
    grid = np.zeros((len(index), len(held)), dtype=np.int64)
    full = units > 0
    np.add.at(grid, (cell[full], np.searchsorted(held, values[full])), units[full])
    return list(index), {"n": grid.sum(axis=-1), "histogram": grid}, {VALUE: (VALUE, held + 0.0)}  # -0.0 becomes 0.0


def check_values(values: Floats, what: str) -> None:
    """Raise DataError if there are too many distinct values."""
    count = len(np.unique(values))
    if count > MAX_VALUES:
        raise DataError(
            f"{what} has {count:,} values or more, and a histogram holds {MAX_VALUES:,}; "
            'use metric="mean", or round the outcome'
        )


def from_levels(
    table: "Table",
    *,
    arm: str,
    control: str,
    segments: Sequence[str],
    value: str,
    count: str,
    outcome: str = "outcome",
) -> xr.Dataset:
    """Read a long table with one row per segment, arm and value of the outcome, and the number of its units.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to a .csv, .csv.gz, .tsv or .parquet
        file.
    arm
        Column that names the arm.
    control
        The arm that the others are compared with, as text.
    segments
        Columns that define the segments: the dimensions.
    value
        Column with the value of the outcome, a number: stars of a rating, visits in a week.
    count
        Column with the units that have it; a value without a row has none.
    outcome
        What was measured, for tables and reports.

    Returns
    -------
    xarray.Dataset
        n with dims (segment, arm), the control first, and histogram with dims (segment, arm, value). Values that no
        unit has are left out.

    Raises
    ------
    DataError
        If columns are missing or used twice, a row appears twice, a value is no finite number, a count is no whole
        number, the control or a second arm is not there, the outcome does not vary, or it has more than 1,000 values.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile"] * 5,
    ...         "arm": ["old", "old", "new", "new", "new"],
    ...         "stars": [1, 5, 1, 3, 5],
    ...         "users": [40, 60, 30, 20, 50],
    ...     }
    ... )
    >>> cells = from_levels(table, arm="arm", control="old", segments=["device"], value="stars", count="users")
    >>> cells["histogram"].sel(segment="mobile").values.tolist()
    [[40, 0, 60], [30, 20, 50]]
    """
    check_given(arm=arm, control=control, value=value, count=count)
    check_text(outcome=outcome)
    dims = check_names(segments, {"arm": arm, "value": value, "count": count}, taken={VALUE})
    rows = read(table, dims=dims, arm=arm, columns={"value": value, "count": count})
    finite(rows, "value")
    units = whole(rows, "count")
    values = rows.numbers["value"]
    check_distinct(
        [(key, number) for key, number in zip(rows.keys, values.tolist(), strict=True)],
        lambda found: f"value {found[1]:g} of segment {SEPARATOR.join(found[0][0])!r}, arm {found[0][1]!r}",
    )
    about = About(outcome=outcome, control=text_of(control) or "", dims=dims, source=rows.source, notes=rows.notes)
    seen = (label for (_, label), number in zip(rows.keys, units, strict=True) if number)
    check_arms(seen, about.control, arm)
    keys, columns, coords = histogram(rows.keys, values, units, f"the column {value!r}")
    return assemble(keys, columns, about, coords=coords)
