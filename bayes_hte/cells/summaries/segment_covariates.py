"""Covariates of whole segments: numbers that may explain why effects differ."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte._support import validation
from bayes_hte._support.phrases import quote_names
from bayes_hte.cells.reading.engines import check_dimensions
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, SegmentLevels
from bayes_hte.cells.summaries.small_tables import (
    FloatValues,
    SummaryRows,
    check_distinct,
    check_finite,
    read_summary_rows,
)
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import COVARIATE, SEGMENT

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table


def with_covariates(cells: xr.Dataset, table: "Table", covariates: Sequence[str]) -> xr.Dataset:
    """Add covariates of each segment as a whole: the age of a market, the dose of a trial.

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
    ArgumentError
        If `covariates` is no list of distinct columns.
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
    cell_table.check_cell_table(cells)
    column_by_role = name_covariate_roles(covariates)
    if not column_by_role:
        raise ArgumentError("covariates is empty; name at least one column of numbers, or leave the cells as they are")
    dims = cell_table.list_dimensions(cells)
    check_dimensions(dims, column_by_role)
    rows = read_summary_rows(table, dims=dims, arm_column=None, columns_by_role=column_by_role)
    cell_segments = set(list_segment_levels(cells))
    # A table of all markets serves every experiment: rows of other segments are not even checked.
    kept_index = [row_index for row_index, (levels, _) in enumerate(rows.cell_keys) if levels in cell_segments]
    check_distinct(
        [rows.cell_keys[row_index][0] for row_index in kept_index],
        lambda levels: f"segment {LEVEL_SEPARATOR.join(levels)!r}",
    )
    kept_rows = SummaryRows(
        [rows.cell_keys[row_index] for row_index in kept_index],
        {role: rows.numbers_by_role[role][kept_index] for role in column_by_role},
        [],
        rows.source_text,
    )
    return attach_covariates(cells, kept_rows, column_by_role)


def name_covariate_roles(covariates: Sequence[str] | None) -> dict[str, str]:
    """Name the role of each covariate as messages do, with its column; an empty mapping for None.

    Raises
    ------
    ArgumentError
        If this is no list, or a column is in it twice.
    """
    covariate_names = [] if covariates is None else validation.check_column_names("covariates", covariates)
    if len(set(covariate_names)) < len(covariate_names):
        raise ArgumentError(f"covariates repeat: {quote_names(covariate_names)}; name each column once")
    return {f"covariate {name!r}": name for name in covariate_names}


def attach_covariates(cells: xr.Dataset, rows: SummaryRows, column_by_role: Mapping[str, str]) -> xr.Dataset:
    """Attach covariates from rows to the cells; several rows may be of one segment if they agree."""
    if not column_by_role:
        return cells
    for role in column_by_role:
        check_finite(rows, role)
    return add_covariates(cells, list(column_by_role.values()), _collect_by_segment(rows, column_by_role))


def _collect_by_segment(rows: SummaryRows, column_by_role: Mapping[str, str]) -> dict[SegmentLevels, FloatValues]:
    """Collect the covariates of each segment; raise DataError if they differ between its arms."""
    values_by_segment: dict[SegmentLevels, FloatValues] = {}
    covariate_matrix = np.stack([rows.numbers_by_role[role] for role in column_by_role], axis=-1)
    for (segment, _), covariate_values in zip(rows.cell_keys, covariate_matrix, strict=True):
        # Every arm's row repeats the covariates of its segment.
        first_values = values_by_segment.setdefault(segment, covariate_values)
        if (first_values != covariate_values).any():
            differing_index = int((first_values != covariate_values).argmax())
            raise DataError(
                f"{[*column_by_role][differing_index]} differs between the arms of segment "
                f"{LEVEL_SEPARATOR.join(segment)!r}: {first_values[differing_index]:g} and "
                f"{covariate_values[differing_index]:g}; a covariate says something of the segment as a whole, so "
                "give both rows the same"
            )
    return values_by_segment


def list_segment_levels(cells: xr.Dataset) -> list[SegmentLevels]:
    """List the levels of each segment, one per dimension."""
    return list(zip(*(map(str, cells[dim].values) for dim in cell_table.list_dimensions(cells)), strict=True))


def add_covariates(
    cells: xr.Dataset, covariate_names: Sequence[str], values_by_segment: Mapping[SegmentLevels, FloatValues]
) -> xr.Dataset:
    """Add covariates, given by the levels of segments, to a cell table.

    Raises
    ------
    DataError
        If a segment is not among the known, or a covariate does not vary.
    """
    segment_order = list_segment_levels(cells)
    missing_segments = [LEVEL_SEPARATOR.join(levels) for levels in segment_order if levels not in values_by_segment]
    if missing_segments:
        raise DataError(
            f"covariates are missing for {len(missing_segments)} of {len(segment_order)} segments: "
            f"{quote_names(missing_segments)}; add a row for each"
        )
    # (segment, covariate)
    covariate_matrix = np.stack([values_by_segment[levels] for levels in segment_order])
    for covariate_name, segment_values in zip(covariate_names, covariate_matrix.T, strict=True):
        # Its slope could not be told from the mean effect.
        if (segment_values == segment_values[0]).all():
            raise DataError(
                f"the covariate {covariate_name!r} is {segment_values[0]:g} in every segment, so it explains no "
                "difference between them; leave it out"
            )
    # Covariates from before would fix the length of the dim.
    bare_cells = cells.drop_vars([name for name in ("covariates", COVARIATE) if name in cells.variables])
    return cell_table.check_cell_table(
        bare_cells.assign(covariates=((SEGMENT, COVARIATE), covariate_matrix)).assign_coords(
            {COVARIATE: (COVARIATE, list(covariate_names))}
        )
    )
