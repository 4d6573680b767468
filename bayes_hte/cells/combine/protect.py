"""Keep small cells out of what is written: people in them could be recognised."""

import re
from typing import Literal, get_args

import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte._support.validation import describe_value, to_int
from bayes_hte.cells.combine.split import rebuild_cells
from bayes_hte.cells.summaries.segment_covariates import list_segment_levels
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, OTHER_LEVEL, OTHER_SEGMENT, SEGMENT

SmallSegmentPolicy = Literal["suppress", "merge"]


def protect(cells: xr.Dataset, min_units: int, how: SmallSegmentPolicy = "suppress") -> xr.Dataset:
    """Protect people in small segments: leave out those that have an arm with few units, or put them together.

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
    ArgumentError
        If there is no such method, or `min_units` is no whole number above 1.
    DataError
        If the number of units is not known, nothing is left, or small segments of published
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
    min_units = _check_request(cells, min_units, how)
    # The smallest and the largest outcome are each the outcome of one person.
    protected_cells = cells.drop_vars([name for name in ("lowest", "highest") if name in cells])
    small_segments = _find_small_segments(protected_cells, min_units)
    small_count, segment_count = int(small_segments.sum()), cells.sizes[SEGMENT]
    reason = f"fewer than {min_units} units in an arm"
    fate = "are left out"
    if small_count and how == "merge":
        protected_cells, fate = (
            _merge_small_segments(protected_cells, small_segments),
            "together form the segment (other)",
        )
        # All small segments together may still be few.
        still_small_segments = _find_small_segments(protected_cells, min_units)
        if bool(still_small_segments.any()):
            protected_cells, fate = (
                _drop_segments(protected_cells, still_small_segments),
                "are left out, for together they are still too few",
            )
    elif small_count:
        protected_cells = _drop_segments(protected_cells, small_segments)
    if protected_cells.sizes[SEGMENT] == 0:
        raise DataError(f"all {segment_count} segments have {reason}, so nothing is left; name fewer dimensions")
    counted_segments = write_count(small_count, "segment", "segments")
    new_notes = (
        [f"{counted_segments} of {segment_count} with {reason} {fate}, to protect the people in them"]
        if small_count
        else []
    )
    return cell_table.check_cell_table(
        _redact_attributes(_drop_small_details(protected_cells, min_units), min_units, new_notes)
    )


def _check_request(cells: xr.Dataset, raw_min_units: object, method: str) -> int:
    """Check that cells can be held to a number of units, and return it as int."""
    if method not in get_args(SmallSegmentPolicy):
        raise ArgumentError(
            f"there is no way {method!r} to protect small cells; there are {', '.join(get_args(SmallSegmentPolicy))}"
        )
    min_units = to_int(raw_min_units)
    if min_units is None or min_units < 2:
        raise ArgumentError(f"min_units is {describe_value(raw_min_units)}; give a number of units, 2 or more")
    if "n" not in cell_table.check_cell_table(cells):
        raise DataError("how many units a cell has is not known, so small ones cannot be found; give n")
    if method == "merge" and "n_rows" in cells and bool(_find_small_segments(cells, min_units).any()):
        raise DataError(
            "clusters with rows in two small segments would count twice if these were put together; use "
            '"suppress", or put the levels together in a column of the data'
        )
    return min_units


def _drop_small_details(cells: xr.Dataset, min_units: int) -> xr.Dataset:
    """Drop what is known of few units of a cell beside the outcome: missing numbers, and means before treatment."""
    if "n_missing" in cells:
        cells = cells.assign(n_missing=cells["n_missing"].where(cells["n_missing"] >= min_units, 0))
    if "pre_n" in cells:
        has_enough = cells["pre_n"] >= min_units
        cells = cells.assign(
            pre_n=cells["pre_n"].where(has_enough, 0),
            pre_mean=cells["pre_mean"].where(has_enough),
            pre_ss=cells["pre_ss"].where(has_enough, 0.0),
        )
    return cells


def _redact_attributes(cells: xr.Dataset, min_units: int, new_notes: list[str]) -> xr.Dataset:
    """Redact notes, warnings and source: no number stays from which a small cell could be worked out."""
    redacted_cells = cells.assign_attrs(
        notes=cell_table.encode_text_list(
            [*_drop_revealing_sentences(cell_table.list_notes(cells), min_units), *new_notes]
        ),
        # The total number of rows less the cells that are left is the size of those left out.
        source=re.sub(r"\b[\d,]+ rows? of ", "", str(cells.attrs.get("source", "unknown"))),
    )
    warnings = _drop_revealing_sentences(cell_table.list_validity_warnings(cells), min_units)
    redacted_cells.attrs.pop("doubts", None)
    if "level_orders" in redacted_cells.attrs:
        # The levels of segments that were left out are nobody's business.
        kept_orders = {
            name: [level for level in order if level in set(map(str, cells[name].values))]
            for name, order in cell_table.read_level_orders(cells).items()
        }
        redacted_cells.attrs["level_orders"] = cell_table.encode_level_orders(kept_orders)
    return redacted_cells.assign_attrs(doubts=cell_table.encode_text_list(warnings)) if warnings else redacted_cells


def _drop_revealing_sentences(sentences: list[str], min_units: int) -> list[str]:
    return [sentence for sentence in sentences if not _reveals_small_count(sentence, min_units)]


def _find_small_segments(cells: xr.Dataset, min_units: int) -> xr.DataArray:
    # An empty cell gives nobody away.
    return ((cells["n"] > 0) & (cells["n"] < min_units)).any(ARM)


def _drop_segments(cells: xr.Dataset, dropped_segments: xr.DataArray) -> xr.Dataset:
    # A covariance has segments in both of its dims.
    kept_segments = ~dropped_segments.values
    return cells.isel({dim: kept_segments for dim in (SEGMENT, OTHER_SEGMENT) if dim in cells.dims})


def _reveals_small_count(sentence: str, min_units: int) -> bool:
    """Tell whether a sentence names a number above 0 and below `min_units`."""
    # Whole numbers with thousands separators; not those that are part of a decimal number.
    return any(
        0 < int(number_text.replace(",", "")) < min_units
        for number_text in re.findall(r"(?<![\d.,])\d[\d,]*(?!\d|\.\d)", sentence)
    )


def _merge_small_segments(cells: xr.Dataset, small_segments: xr.DataArray) -> xr.Dataset:
    """Pool small segments in one, whose levels are all (other)."""
    if cell_table.identify_kind(cells) == "estimates" or (
        cell_table.identify_kind(cells) == "means" and "recipe" not in cells.attrs
    ):
        raise DataError(
            'segments known by estimates or standard errors alone cannot be put together; use "suppress", or give rows'
        )
    dims = cell_table.list_dimensions(cells)
    merged_levels = (OTHER_LEVEL,) * len(dims)
    cell_keys = [
        (merged_levels if is_small else levels, str(arm))
        for levels, is_small in zip(list_segment_levels(cells), small_segments.values, strict=True)
        for arm in cells[ARM].values
    ]
    return rebuild_cells(cells, cell_keys, dims)
