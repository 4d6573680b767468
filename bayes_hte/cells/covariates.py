"""What is known of whole segments: numbers that may explain why effects differ."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte import asked, schema
from bayes_hte.cells.labels import SEPARATOR, Levels
from bayes_hte.cells.records import Floats, Rows, check_distinct, finite, read
from bayes_hte.cells.sources import check_names, listed
from bayes_hte.errors import DataError
from bayes_hte.schema import COVARIATE, SEGMENT

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table


def with_covariates(cells: xr.Dataset, table: "Table", covariates: Sequence[str]) -> xr.Dataset:
    """Add what is known of each segment as a whole: the age of a market, the dose of a trial.

    Parameters
    ----------
    cells
        A cell table, dims (segment, arm).
    table
        One row per segment: the columns of the dimensions, and of the covariates. Rows of other segments are ignored.
    covariates
        Columns of numbers.

    Returns
    -------
    xarray.Dataset
        The cells, and covariates with dims (segment, covariate), in the units of the table. Covariates that the cells
        had before are replaced.

    Raises
    ------
    DataError
        If a column is missing, a segment is missing or appears twice, or a covariate is not finite or does not vary.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_estimates
    >>> trials = pd.DataFrame({"trial": ["A", "B"], "y": [0.5, 0.1], "se": [0.1, 0.1]})
    >>> doses = pd.DataFrame({"trial": ["B", "A", "C"], "mg": [10.0, 20.0, 40.0]})
    >>> cells = from_estimates(trials, segments=["trial"], estimate="y", se="se")
    >>> with_covariates(cells, doses, ["mg"])["covariates"].sel(covariate="mg").values.tolist()
    [20.0, 10.0]
    """
    schema.check(cells)
    roles = covariate_roles(covariates)
    if not roles:
        raise DataError("covariates is empty; name at least one column of numbers, or leave the cells as they are")
    dims = schema.dimensions(cells)
    check_names(dims, roles)
    rows = read(table, dims=dims, arm=None, columns=roles)
    wanted = set(segment_levels(cells))
    kept = [i for i, (levels, _) in enumerate(rows.keys) if levels in wanted]
    check_distinct([rows.keys[i][0] for i in kept], lambda levels: f"segment {SEPARATOR.join(levels)!r}")
    mine = Rows([rows.keys[i] for i in kept], {role: rows.numbers[role][kept] for role in roles}, [], rows.source)
    return attach(cells, mine, roles)


def covariate_roles(covariates: Sequence[str] | None) -> dict[str, str]:
    """What messages call each covariate, and its column; None is none.

    Raises
    ------
    DataError
        If this is no list, or a column is in it twice.
    """
    names = [] if covariates is None else asked.names("covariates", covariates)
    if len(set(names)) < len(names):
        raise DataError(f"covariates repeat: {listed(names)}; name each column once")
    return {f"covariate {name!r}": name for name in names}


def attach(cells: xr.Dataset, rows: Rows, roles: Mapping[str, str]) -> xr.Dataset:
    """Add covariates from rows, of which several may be of one segment if they agree; no `roles`, no change."""
    if not roles:
        return cells
    for role in roles:
        finite(rows, role)
    return add(cells, list(roles.values()), _by_segment(rows, roles))


def _by_segment(rows: Rows, roles: Mapping[str, str]) -> dict[Levels, Floats]:
    known: dict[Levels, Floats] = {}
    matrix = np.stack([rows.numbers[role] for role in roles], axis=-1)
    for (levels, _), values in zip(rows.keys, matrix, strict=True):
        before = known.setdefault(levels, values)
        if (before != values).any():
            i = int((before != values).argmax())
            raise DataError(
                f"{[*roles][i]} differs between the arms of segment {SEPARATOR.join(levels)!r}: {before[i]:g} and "
                f"{values[i]:g}; a covariate says something of the segment as a whole, so give both rows the same"
            )
    return known


def segment_levels(cells: xr.Dataset) -> list[Levels]:
    """The levels of each segment, one per dimension."""
    return list(zip(*(map(str, cells[dim].values) for dim in schema.dimensions(cells)), strict=True))


def add(cells: xr.Dataset, names: Sequence[str], known: Mapping[Levels, Floats]) -> xr.Dataset:
    """Add covariates, given by the levels of segments, to a cell table.

    Raises
    ------
    DataError
        If a segment is not among the known, or a covariate does not vary.
    """
    order = segment_levels(cells)
    missing = [SEPARATOR.join(levels) for levels in order if levels not in known]
    if missing:
        raise DataError(
            f"covariates are missing for {len(missing)} of {len(order)} segments: {listed(missing)}; add a row for each"
        )
    matrix = np.stack([known[levels] for levels in order])
    for name, column in zip(names, matrix.T, strict=True):
        if (column == column[0]).all():
            raise DataError(
                f"the covariate {name!r} is {column[0]:g} in every segment, so it explains no difference between them; "
                "leave it out"
            )
    bare = cells.drop_vars([name for name in ("covariates", COVARIATE) if name in cells.variables])
    return schema.check(
        bare.assign(covariates=((SEGMENT, COVARIATE), matrix)).assign_coords({COVARIATE: (COVARIATE, list(names))})
    )
