"""Say what is weak about a cell table, in sentences a person can act on."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayes_hte import schema
from bayes_hte.cells.sources import counted
from bayes_hte.schema import ARM, INTERVAL, SEGMENT, VALUE

NAMED = 5
"""How many segments a sentence names before it stops."""

FEW = 10
"""Below this an arm's mean says next to nothing: its standard error is a third of a standard deviation or more."""


def check(cells: xr.Dataset) -> tuple[str, ...]:
    """Say what is weak about the cells; nothing here prevents an analysis.

    Parameters
    ----------
    cells
        A cell table, dims (segment, arm).

    Returns
    -------
    tuple of str
        The notes of the reduction, then what is missing, tiny or constant. Empty if there is nothing to say.

    Raises
    ------
    DataError
        If this is no cell table.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile", "mobile", "tv"],
    ...         "arm": ["old", "new", "old"],
    ...         "n": [100, 100, 50],
    ...         "bought": [10, 12, 5],
    ...     }
    ... )
    >>> check(from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="bought"))
    ('1 segment lacks an arm: tv (no new); kept, but the effect there comes from the prior',)
    """
    schema.check(cells)
    there = schema.present(cells)
    return (
        *schema.notes(cells),
        *_missing_arms(there),
        *_nothing(there),
        *_tiny(cells),
        *_constant(cells),
        *_no_events(cells),
    )


def _missing_arms(there: xr.DataArray) -> list[str]:
    """Segments that have some arms, but not all."""
    lacking = there[ARM].values[~there.any(SEGMENT).values]
    sentences = [f"the arm {str(arm)!r} has no data in any segment; its effects come from the prior" for arm in lacking]
    seen = there.sel({ARM: there.any(SEGMENT)})
    partial = seen.any(ARM) & ~seen.all(ARM)
    names = []
    for segment in seen[SEGMENT].values[partial.values]:
        absent = seen[ARM].values[~seen.sel({SEGMENT: segment}).values]
        names.append(f"{segment} ({', '.join(f'no {arm}' for arm in absent)})")
    if names:
        verb = counted(len(names), "segment lacks", "segments lack")
        sentences.append(f"{verb} an arm: {_some(names)}; kept, but the effect there comes from the prior")
    return sentences


def _nothing(there: xr.DataArray) -> list[str]:
    names = [str(segment) for segment in there[SEGMENT].values[~there.any(ARM).values]]
    if not names:
        return []
    verb = counted(len(names), "segment has", "segments have")
    return [f"{verb} no data in any arm: {_some(names)}; kept, but all said of it comes from the prior"]


def _tiny(cells: xr.Dataset) -> list[str]:
    if "n" not in cells:
        return []
    count = int(((cells["n"] > 0) & (cells["n"] < FEW)).any(ARM).sum())
    if not count:
        return []
    verb = counted(count, "segment has", "segments have")
    return [f"{verb} fewer than {FEW} units in an arm; what is said there is mostly borrowed from the other segments"]


def _constant(cells: xr.Dataset) -> list[str]:
    """Cells of two units or more whose outcomes are all equal; one unit cannot vary."""
    if "ss" in cells:
        constant = (cells["n"] > 1) & (cells["ss"] == 0)
    elif "histogram" in cells:
        constant = (cells["n"] > 1) & (cells["histogram"].max(VALUE) == cells["n"])
    elif "events" in cells and "exposure" not in cells:
        constant = (cells["n"] > 1) & ((cells["events"] == 0) | (cells["events"] == cells["n"]))
    else:
        return []
    count = int(constant.sum())
    if not count:
        return []
    verb = counted(count, "cell has", "cells have")
    where = _where(constant)
    return [f"{verb} no variation in the outcome{where}; raw estimates there look more certain than they are"]


def _no_events(cells: xr.Dataset) -> list[str]:
    """Cells with rates or survival in which nothing happened, though there was time for it."""
    if "exposure" in cells:
        idle = (cells["exposure"] > 0) & (cells["events"] == 0)
    elif "failures" in cells:
        idle = (cells["n"] > 0) & (cells["failures"].sum(INTERVAL) == 0)
    else:
        return []
    count = int(idle.sum())
    if not count:
        return []
    where = _where(idle)
    return [f"no events in {counted(count, 'cell', 'cells')}{where}; raw estimates there are 0 or unbounded"]


def _where(cells: xr.DataArray) -> str:
    """The first cell where a condition holds, and whether there are others."""
    rows, columns = np.nonzero(cells.transpose(SEGMENT, ARM).values)
    first = f"{cells[SEGMENT].values[rows[0]]}, arm {cells[ARM].values[columns[0]]}"
    return f": {first}" if len(rows) == 1 else f", the first {first}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
