"""Add cell tables up: what two tables of different units say together."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from bayes_hte import schema
from bayes_hte.cells.assembly import About, Column, assemble, pool
from bayes_hte.cells.labels import Key
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM, SEGMENT


def merge(*tables: xr.Dataset) -> xr.Dataset:
    """Combine cell tables of different units into the one that all their rows would have given.

    Parameters
    ----------
    *tables
        Cell tables with the same outcome, control and dimensions: days, regions, or a replication. Segments and arms
        that only some have are kept.

    Returns
    -------
    xarray.Dataset
        Counts add up; means and ss by Chan's formula. Events are kept if all tables have them.

    Raises
    ------
    DataError
        If there is no table, they differ in outcome, control or dimensions, or they hold means with standard errors
        or estimates, which cannot be combined exactly.

    Notes
    -----
    Assumes that no unit is in two tables. A unit that returned on the second day counts twice.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> monday, tuesday = (
    ...     from_summary(
    ...         pd.DataFrame({"plan": ["free", "free"], "arm": ["old", "new"], "n": [10, 10], "bought": bought}),
    ...         arm="arm",
    ...         control="old",
    ...         segments=["plan"],
    ...         n="n",
    ...         events="bought",
    ...     )
    ...     for bought in ([1, 2], [3, 5])
    ... )
    >>> merge(monday, tuesday)["events"].values.tolist()
    [[4, 7]]
    """
    if not tables:
        raise DataError("there is nothing to merge; give at least one cell table")
    for table in tables:
        schema.check(table)
    if len(tables) == 1:
        return tables[0]
    _check_same(tables)
    for table in tables:
        _check_mergeable(table)
    events = ("events",) if all("events" in table for table in tables) else ()
    names = events if all(schema.kind_of(table) == "counts" for table in tables) else ("mean", "ss", *events)
    keys = [key for table in tables for key in _keys(table)]
    columns = {name: np.concatenate([_column(table, name) for table in tables]) for name in ("n", *names)}
    return assemble(*pool(keys, columns), _about(tables))


def _check_same(tables: Sequence[xr.Dataset]) -> None:
    views: dict[str, Callable[[xr.Dataset], object]] = {
        "outcome": lambda table: table.attrs["outcome"],
        "control": lambda table: table.attrs["control"],
        "dimensions": schema.dimensions,
    }
    for what, view in views.items():
        for i, table in enumerate(tables[1:], start=2):
            if view(table) != view(tables[0]):
                raise DataError(
                    f"tables with different {what} cannot be merged: {view(tables[0])!r} in table 1, "
                    f"{view(table)!r} in table {i}; make both with the same {what}"
                )


def _check_mergeable(table: xr.Dataset) -> None:
    kind = schema.kind_of(table)
    if kind in {"means", "estimates"}:
        raise DataError(
            f"{kind} cannot be merged exactly: a standard error does not say how the units spread around another "
            "mean. Make the cells from rows, or from n, mean and sd; or give both tables in one, with a column "
            "that tells them apart among the segments"
        )


def _keys(table: xr.Dataset) -> list[Key]:
    """One key per cell, the arm fastest."""
    levels = zip(*(map(str, table[dim].values) for dim in schema.dimensions(table)), strict=True)
    return [(segment, str(arm)) for segment in levels for arm in table[ARM].values]


def _column(table: xr.Dataset, name: str) -> Column:
    """One variable, one value per cell, the arm fastest; for counts the mean and ss follow from n and events."""
    if name in table:
        values: Column = table[name].transpose(SEGMENT, ARM).values.ravel()
        return values
    n, events = _column(table, "n"), _column(table, "events")
    share = np.where(n > 0, events / np.maximum(n, 1), np.nan)
    return share if name == "mean" else np.where(n > 0, events * (1 - share), 0.0)


def _about(tables: Sequence[xr.Dataset]) -> About:
    first = tables[0]
    return About(
        outcome=first.attrs["outcome"],
        control=first.attrs["control"],
        dims=schema.dimensions(first),
        source=" + ".join(str(table.attrs.get("source", "unknown")) for table in tables),
        notes=[note for table in tables for note in schema.notes(table)],
    )
