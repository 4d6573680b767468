"""Take a cell table apart by a dimension: the days of an experiment, whose cells merge into the total."""

from dataclasses import replace
from typing import Any

import numpy.typing as npt
import xarray as xr

from bayes_hte import schema
from bayes_hte.cells import linear
from bayes_hte.cells.assembly import About, Column, assemble, pool
from bayes_hte.cells.covariates import segment_levels
from bayes_hte.cells.labels import Key, natural_order
from bayes_hte.cells.sources import listed
from bayes_hte.cells.spanning import ATTRIBUTE, Spanning, of_disjoint, spanning
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM, SEGMENT


def split(cells: xr.Dataset, by: str) -> dict[str, xr.Dataset]:
    """One cell table per level of a dimension, without that dimension.

    Parameters
    ----------
    cells
        A cell table, dims (segment, arm), with two dimensions or more. For days, make it with ``bins={"date": "day"}``.
    by
        The dimension.

    Returns
    -------
    dict of str to xarray.Dataset
        By level, in their natural order; every slice has all arms. Adjusted means are worked out anew, with
        coefficients of the slice. `merge` makes the total of them, unless clusters have rows in several. Covariates
        of segments are left out: add them to the parts that are analysed.

    Raises
    ------
    DataError
        If the dimension is not there or is the only one, the table holds estimates with a covariance, or an adjusted
        mean has no standard error in a slice.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_rows, merge
    >>> rows = pd.DataFrame(
    ...     {
    ...         "date": pd.to_datetime(["2026-03-01", "2026-03-01", "2026-03-02", "2026-03-02"] * 2),
    ...         "plan": ["free"] * 8,
    ...         "arm": ["old", "new"] * 4,
    ...         "spent": [1, 2, 3, 4, 5, 6, 7, 9],
    ...     }
    ... )
    >>> cells = from_rows(
    ...     rows, outcome="spent", arm="arm", control="old", segments=["date", "plan"], bins={"date": "day"}
    ... )
    >>> days = split(cells, "date")
    >>> {day: table["mean"].sel(segment="free", arm="new").item() for day, table in days.items()}
    {'2026-03-01': 4.0, '2026-03-02': 6.5}
    >>> merge(*days.values())["n"].values.tolist()
    [[4, 4]]
    """
    schema.check(cells)
    dims = schema.dimensions(cells)
    if by not in dims:
        raise DataError(f"there is no dimension {by!r} to split by; the dimensions are {listed(dims)}")
    if len(dims) == 1:
        raise DataError(f"{by!r} is the only dimension, so nothing would be left; add another one to segments")
    if "covariance" in cells:
        raise DataError(
            "estimates with a covariance cannot be split: it says how the parts hang together; leave the "
            "covariance out where the cells are made, or analyse them whole"
        )
    levels = cells[by].values
    return {
        level: _slice(cells.isel({SEGMENT: levels == level}), by, level) for level in natural_order(map(str, levels))
    }


def _slice(part: xr.Dataset, by: str, level: str) -> xr.Dataset:
    """The segments of one level, named without it."""
    at = schema.dimensions(part).index(by)
    dims = [dim for dim in schema.dimensions(part) if dim != by]
    keys = [
        ((*levels[:at], *levels[at + 1 :]), str(arm)) for levels in segment_levels(part) for arm in part[ARM].values
    ]
    try:
        found = rebuilt(part, keys, dims)
    except DataError as error:
        raise DataError(f"{by} {level} cannot be split off: {error}; or put it together with other levels") from error
    about = {"source": f"{by} {level} in {found.attrs['source']}"}
    if (spans := spanning(part)) is not None:
        others = [dim for dim in spans.dims if dim != by]
        known = Spanning() if others else of_disjoint(found)  # else nobody knows how many clusters the level has
        about[ATTRIBUTE] = replace(known, dims=others, slice_of=by if by in spans.dims else spans.slice_of).text()
    return found.assign_attrs(about)


def rebuilt(part: xr.Dataset, keys: list[Key], dims: list[str]) -> xr.Dataset:
    """The same cells under other keys, one per cell, the arm fastest; what has the same key is pooled.

    Adjusted means are worked out anew; covariates of segments are left out.
    """
    names = [str(name) for name in part.data_vars if name != "covariates"]
    columns: dict[str, Column] = {}
    for name in names:
        values = part[name].transpose(SEGMENT, ARM, ...).values
        columns[name] = values.reshape(-1, *values.shape[2:])
    recipe = linear.Recipe.read(part.attrs["recipe"]) if "recipe" in part.attrs else None
    if recipe is not None:
        columns = {name: columns[name] for name in columns.keys() - {"mean", "se", "variance_reduction"}}
    pooled_keys, pooled = pool(keys, columns)
    if recipe is not None:
        pooled |= linear.solve(pooled_keys, pooled, recipe)
    return assemble(pooled_keys, pooled, _about(part, dims), coords=_coords(part))


def _about(part: xr.Dataset, dims: list[str]) -> About:
    attrs = part.attrs
    return About(
        outcome=attrs["outcome"],
        control=attrs["control"],
        dims=dims,
        source=attrs.get("source", "unknown"),
        notes=schema.notes(part),
        doubts=schema.doubts(part),
        horizon=attrs.get("horizon"),
        recipe=attrs.get("recipe"),
        shares=attrs.get("shares"),
        spanning=attrs.get(ATTRIBUTE),
    )


def _coords(part: xr.Dataset) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Coordinates of dims beyond segment and arm."""
    kept = {}
    for name, coord in part.coords.items():
        if len(coord.dims) == 1 and coord.dims[0] not in {SEGMENT, ARM, schema.COVARIATE}:
            kept[str(name)] = (str(coord.dims[0]), coord.values)
    return kept
