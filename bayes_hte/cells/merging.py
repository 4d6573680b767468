"""Add cell tables up: what two tables of different units say together."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from bayes_hte import schema
from bayes_hte.asked import type_of
from bayes_hte.cells import linear
from bayes_hte.cells.assembly import About, Column, Coords, assemble, pool
from bayes_hte.cells.covariates import add, segment_levels
from bayes_hte.cells.labels import SEPARATOR, Key, Levels
from bayes_hte.cells.records import Floats
from bayes_hte.cells.sources import listed
from bayes_hte.cells.spanning import Spanning, of_disjoint, spanning
from bayes_hte.cells.survival import interval_coords
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM, COVARIATE, PRE, SEGMENT, VALUE


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
        Counts, exposures, histograms and time at risk add up; means and sums of squares by Chan's formula. Events are
        kept if all tables have them. The last interval of survival ends, and its horizon is, where the later one does.
        Adjusted means are worked out anew from their columns, with coefficients of the pooled data. Covariates and
        planned shares are kept.

    Raises
    ------
    DataError
        If there is no table, they differ in outcome, control, dimensions, kind, breaks of time, adjustment, covariates
        or planned shares, they are slices that have clusters in common, or they hold means with standard errors alone
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
    if isinstance(tables[0], list | tuple | dict):
        way = "merge(*tables.values())" if isinstance(tables[0], dict) else "merge(*tables)"
        raise DataError(f"merge takes each table on its own, not {type_of(tables[0])} of them; write {way}")
    for table in tables:
        schema.check(table)
    if len(tables) == 1:
        return tables[0]
    _check_same(tables)
    for table in tables:
        _check_mergeable(table)
    _check_kinds(tables)
    _check_disjoint(tables)
    aligned, coords = _aligned(tables)
    names, about = _names(aligned), _about(tables)
    if "pre_n" in names:
        coords = {**coords, PRE: (PRE, aligned[0][PRE].values)}
    groups = [key for table in aligned for key in _keys(table)]
    columns = {name: np.concatenate([_column(table, name) for table in aligned]) for name in names}
    keys, columns = pool(groups, columns)
    if about.recipe is not None:
        recipe = linear.Recipe.read(about.recipe)
        columns |= linear.solve(keys, columns, recipe)
        coords = {**coords, **linear.coords(recipe)}
    return _with_covariates(assemble(keys, columns, about, coords=coords), tables)


def _check_same(tables: Sequence[xr.Dataset]) -> None:
    views: dict[str, Callable[[xr.Dataset], object]] = {
        "outcome": lambda table: table.attrs["outcome"],
        "control": lambda table: table.attrs["control"],
        "dimensions": schema.dimensions,
        "adjustment": _adjustment,
    }
    for what, view in views.items():
        for i, table in enumerate(tables[1:], start=2):
            if view(table) != view(tables[0]):
                raise DataError(
                    f"tables with different {what} cannot be merged: {view(tables[0])!r} in table 1, "
                    f"{view(table)!r} in table {i}; make both with the same {what}"
                )


def _adjustment(table: xr.Dataset) -> str:
    """How means were adjusted, in words."""
    return linear.Recipe.read(table.attrs["recipe"]).made_of if "recipe" in table.attrs else "none"


def _check_mergeable(table: xr.Dataset) -> None:
    kind = schema.kind_of(table)
    if kind == "estimates" or (kind == "means" and "recipe" not in table.attrs):
        raise DataError(
            f"{kind} cannot be merged exactly: a standard error does not say how the units spread around another "
            "mean. Make the cells from rows, or from n, mean and sd; or give both tables in one, with a column "
            "that tells them apart among the segments"
        )


def _check_kinds(tables: Sequence[xr.Dataset]) -> None:
    kinds = sorted({schema.kind_of(table) for table in tables})
    if len(kinds) > 1 and kinds != ["counts", "moments"]:
        raise DataError(f"{' and '.join(kinds)} cannot be merged; make all tables the same way, from the same columns")


def _check_disjoint(tables: Sequence[xr.Dataset]) -> None:
    """Clusters that are known to be in several of the tables would count as many, with standard errors too small."""
    slices = [found.slice_of for found in map(spanning, tables) if found is not None and found.slice_of]
    if len(slices) > 1:
        raise DataError(
            f"clusters with rows in several levels of {slices[0]!r} would count in each of these tables, and standard "
            f"errors come out too small; make the total from the rows, without {slices[0]!r} among the segments"
        )


def _spanning(tables: Sequence[xr.Dataset]) -> str | None:
    """What is known of clusters in several segments; tables without any have their clusters in n."""
    found = [spanning(table) for table in tables]
    if not any(found):
        return None
    known = [each or of_disjoint(table) for each, table in zip(found, tables, strict=True)]
    complete = all(each.clusters for each in known)
    return Spanning(
        clusters=_sum([each.clusters for each in known]) if complete else {},
        squares=_sum([each.squares for each in known]) if complete else {},
        dims=list(dict.fromkeys(dim for each in known for dim in each.dims)),
        slice_of=next((each.slice_of for each in known if each.slice_of), ""),
    ).text()


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    arms = dict.fromkeys(arm for each in counts for arm in each)
    return {arm: sum(each.get(arm, 0) for each in counts) for arm in arms}


def _names(tables: Sequence[xr.Dataset]) -> list[str]:
    """The variables that all tables have, or can be given."""
    if {schema.kind_of(table) for table in tables} == {"counts", "moments"}:
        shared = all("events" in table for table in tables)
        return ["n", "mean", "ss", *(["events"] if shared else []), *_extras(tables)]
    solved = _SOLVED if "recipe" in tables[0].attrs else frozenset()
    first = [str(name) for name in tables[0].data_vars if name not in schema.EXTRAS | solved]
    return [*(name for name in first if all(name in table for table in tables)), *_extras(tables)]


def _extras(tables: Sequence[xr.Dataset]) -> list[str]:
    """What the tables hold for checks, where it can be said of all of them."""
    found = [name for name in ("n_rows", "pre_n", "pre_mean", "pre_ss") if all(name in table for table in tables)]
    if "pre_n" in found and len({tuple(table[PRE].values) for table in tables}) > 1:
        found = [name for name in found if not name.startswith("pre_")]
    if any("n_missing" in table for table in tables):  # a table that has none left nothing out
        found.append("n_missing")
    bounded = all("lowest" in table or _yes_or_no(table) for table in tables)
    return [*found, "lowest", "highest"] if bounded and any("lowest" in table for table in tables) else found


def _yes_or_no(table: xr.Dataset) -> bool:
    return "events" in table and "exposure" not in table


_SOLVED = frozenset({"mean", "se", "variance_reduction"})
"""What follows from columns, where a table has these."""


def _aligned(tables: Sequence[xr.Dataset]) -> tuple[Sequence[xr.Dataset], Coords]:
    """The tables with the same values or intervals, and their coordinates."""
    if "histogram" in tables[0]:
        values = np.unique(np.concatenate([table[VALUE].values for table in tables]))
        return [table.reindex({VALUE: values}, fill_value=0) for table in tables], {VALUE: (VALUE, values)}
    if "failures" not in tables[0]:
        return tables, {}
    breaks = [table["start"].values.tolist() for table in tables]
    for i, starts in enumerate(breaks[1:], start=2):
        if starts != breaks[0]:
            raise DataError(
                f"tables with different breaks of time cannot be merged: {breaks[0][1:]} in table 1, {starts[1:]} in "
                f"table {i}; make both with the same breaks"
            )
    last = max(float(table["end"].values[-1]) for table in tables)
    return tables, interval_coords([*breaks[0], last])


def _with_covariates(merged: xr.Dataset, tables: Sequence[xr.Dataset]) -> xr.Dataset:
    """Keep what the tables know of segments; they must not contradict each other."""
    having = [table for table in tables if "covariates" in table]
    if not having:
        return merged
    names = [list(map(str, table[COVARIATE].values)) for table in having]
    for one, other in pairwise(names):
        if set(one) != set(other):
            raise DataError(
                f"tables with different covariates cannot be merged: {listed(one)} and {listed(other)}; "
                "add them after merging, with with_covariates"
            )
    known: dict[Levels, Floats] = {}
    for table in having:
        found = dict(zip(segment_levels(table), table["covariates"].sel({COVARIATE: names[0]}).values, strict=True))
        for levels in found.keys() & known.keys():
            if (found[levels] != known[levels]).any():
                raise DataError(
                    f"the covariates of segment {SEPARATOR.join(levels)!r} differ between the tables; add "
                    "them after merging, with with_covariates"
                )
        known |= found
    return add(merged, names[0], known)


def _keys(table: xr.Dataset) -> list[Key]:
    """One key per cell, the arm fastest."""
    return [(levels, str(arm)) for levels in segment_levels(table) for arm in table[ARM].values]


def _column(table: xr.Dataset, name: str) -> Column:
    """One variable, one value per cell, the arm fastest; for counts the mean and ss follow from n and events."""
    if name in table:
        values: Column = table[name].transpose(SEGMENT, ARM, ...).values
        return values.reshape(-1, *values.shape[2:])
    n = _column(table, "n")
    if name == "n_missing":
        return np.zeros_like(n)
    events = _column(table, "events")
    share = np.where(n > 0, events / np.maximum(n, 1), np.nan)
    match name:
        case "mean":
            return share
        case "lowest":
            return np.where(n > 0, (events == n) * 1.0, np.nan)
        case "highest":
            return np.where(n > 0, (events > 0) * 1.0, np.nan)
    return np.where(n > 0, events * (1 - share), 0.0)


def _about(tables: Sequence[xr.Dataset]) -> About:
    first = tables[0]
    return About(
        outcome=first.attrs["outcome"],
        control=first.attrs["control"],
        dims=schema.dimensions(first),
        source=" + ".join(str(table.attrs.get("source", "unknown")) for table in tables),
        notes=[note for table in tables for note in schema.notes(table)],
        doubts=[doubt for table in tables for doubt in schema.doubts(table)],
        recipe=first.attrs.get("recipe"),
        shares=_shares(tables),
        spanning=_spanning(tables),
        horizon=max(float(table.attrs["horizon"]) for table in tables) if "horizon" in first.attrs else None,
    )


def _shares(tables: Sequence[xr.Dataset]) -> str | None:
    """The planned shares, which cannot change in the middle of an experiment without bias."""
    stated = list(dict.fromkeys(str(table.attrs["shares"]) for table in tables if "shares" in table.attrs))
    if len(stated) > 1:
        raise DataError(
            f"tables with different planned shares cannot be merged: {stated[0]} and {stated[1]}; days on which the "
            "shares were different are different experiments: name what tells them apart among the segments"
        )
    return stated[0] if stated else None
