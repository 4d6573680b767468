"""Keep small cells out of what is written: people in them could be recognised."""

import re
from typing import Literal, get_args

import xarray as xr

from bayes_hte import schema
from bayes_hte.asked import described, whole
from bayes_hte.cells.covariates import segment_levels
from bayes_hte.cells.slices import rebuilt
from bayes_hte.cells.sources import counted
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM, OTHER_LEVEL, OTHER_SEGMENT, SEGMENT

Small = Literal["suppress", "merge"]


def protect(cells: xr.Dataset, min_units: int, how: Small = "suppress") -> xr.Dataset:
    """Leave out segments that have an arm with few units, or put them together.

    Parameters
    ----------
    cells
        A cell table with n, dims (segment, arm).
    min_units
        A segment is small if an arm has fewer units than this, but some.
    how : {"suppress", "merge"}
        Leave small segments out; or put them together in one segment, whose levels are all (other), which is left out
        if it is small itself.

    Returns
    -------
    xarray.Dataset
        The cells without the small ones. The smallest and largest outcome of each cell, which are those of single
        units, the number of rows that were read, from which a segment's size could be worked out, and notes that name
        a number of units below `min_units` are left out as well, and so is what was measured before treatment of fewer
        units, or missing of fewer rows, in a cell; one note says how many segments are affected. Where
        segments are put together, covariates of segments are left out.

    Raises
    ------
    DataError
        If the number of units is not known or is no number above 1, nothing is left, or small segments of published
        estimates are to be merged.

    Notes
    -----
    This is a rule for tables, not a guarantee: who knows the total from elsewhere, or gets two tables that overlap,
    may still work out a cell, and a histogram holds single units at rare values.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> table = pd.DataFrame(
    ...     {
    ...         "country": ["DE", "DE", "MT", "MT"],
    ...         "arm": ["old", "new"] * 2,
    ...         "n": [900, 880, 12, 4],
    ...         "bought": [90, 97, 2, 1],
    ...     }
    ... )
    >>> cells = from_summary(table, arm="arm", control="old", segments=["country"], n="n", events="bought")
    >>> protect(cells, 10)["segment"].values.tolist()
    ['DE']
    """
    min_units = _checked(cells, min_units, how)
    bare = cells.drop_vars([name for name in ("lowest", "highest") if name in cells])
    small = _small(bare, min_units)
    count, total = int(small.sum()), cells.sizes[SEGMENT]
    what = f"fewer than {min_units} units in an arm"
    fate = "are left out"
    if count and how == "merge":
        bare, fate = _merged(bare, small), "together form the segment (other)"
        still = _small(bare, min_units)
        if bool(still.any()):
            bare, fate = _without(bare, still), "are left out, for together they are still too few"
    elif count:
        bare = _without(bare, small)
    if bare.sizes[SEGMENT] == 0:
        raise DataError(f"all {total} segments have {what}, so nothing is left; name fewer dimensions")
    verb = counted(count, "segment", "segments")
    note = [f"{verb} of {total} with {what} {fate}, to protect the people in them"] if count else []
    return schema.check(_described(_without_few(bare, min_units), min_units, note))


def _checked(cells: xr.Dataset, asked: object, how: str) -> int:
    """The least number of units, if the cells can be held to it."""
    if how not in get_args(Small):
        raise DataError(f"there is no way {how!r} to protect small cells; there are {', '.join(get_args(Small))}")
    min_units = whole(asked)
    if min_units is None or min_units < 2:
        raise DataError(f"min_units is {described(asked)}; give a number of units, 2 or more")
    if "n" not in schema.check(cells):
        raise DataError("how many units a cell has is not known, so small ones cannot be found; give n")
    if how == "merge" and "n_rows" in cells and bool(_small(cells, min_units).any()):
        raise DataError(
            "clusters with rows in two small segments would count twice if these were put together; use "
            '"suppress", or put the levels together in a column of the data'
        )
    return min_units


def _without_few(cells: xr.Dataset, min_units: int) -> xr.Dataset:
    """Without what is known of few units of a cell beside the outcome."""
    if "n_missing" in cells:
        cells = cells.assign(n_missing=cells["n_missing"].where(cells["n_missing"] >= min_units, 0))
    if "pre_n" in cells:
        known = cells["pre_n"] >= min_units
        cells = cells.assign(
            pre_n=cells["pre_n"].where(known, 0),
            pre_mean=cells["pre_mean"].where(known),
            pre_ss=cells["pre_ss"].where(known, 0.0),
        )
    return cells


def _described(cells: xr.Dataset, min_units: int, note: list[str]) -> xr.Dataset:
    """With what is said of the cells, but for numbers from which a small cell could be worked out."""
    kept = cells.assign_attrs(
        notes=schema.encode([*_without_numbers(schema.notes(cells), min_units), *note]),
        source=re.sub(r"\b[\d,]+ rows? of ", "", str(cells.attrs.get("source", "unknown"))),
    )
    doubts = _without_numbers(schema.doubts(cells), min_units)
    kept.attrs.pop("doubts", None)
    return kept.assign_attrs(doubts=schema.encode(doubts)) if doubts else kept


def _without_numbers(sentences: list[str], min_units: int) -> list[str]:
    return [sentence for sentence in sentences if not _names_few(sentence, min_units)]


def _small(cells: xr.Dataset, min_units: int) -> xr.DataArray:
    return ((cells["n"] > 0) & (cells["n"] < min_units)).any(ARM)


def _without(cells: xr.Dataset, segments: xr.DataArray) -> xr.Dataset:
    kept = ~segments.values
    return cells.isel({dim: kept for dim in (SEGMENT, OTHER_SEGMENT) if dim in cells.dims})


def _names_few(note: str, min_units: int) -> bool:
    """Whether a note names a number of units that a cell could not have."""
    return any(
        0 < int(found.replace(",", "")) < min_units for found in re.findall(r"(?<![\d.,])\d[\d,]*(?!\d|\.\d)", note)
    )


def _merged(cells: xr.Dataset, small: xr.DataArray) -> xr.Dataset:
    """Small segments pooled in one."""
    if schema.kind_of(cells) == "estimates" or (schema.kind_of(cells) == "means" and "recipe" not in cells.attrs):
        raise DataError(
            'segments known by estimates or standard errors alone cannot be put together; use "suppress", or give rows'
        )
    dims = schema.dimensions(cells)
    other = (OTHER_LEVEL,) * len(dims)
    keys = [
        (other if few else levels, str(arm))
        for levels, few in zip(segment_levels(cells), small.values, strict=True)
        for arm in cells[ARM].values
    ]
    return rebuilt(cells, keys, dims)
