"""Take a cell table apart by a dimension: the days of an experiment, whose cells merge into the total."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte._support.phrases import quote_names
from bayes_hte.cells.build import SPANNING_ATTRIBUTE, CellValues, TableAttributes, build_cell_table, pool_groups
from bayes_hte.cells.reading.labels import CellKey, SegmentLevels
from bayes_hte.cells.reading.level_order import list_levels
from bayes_hte.cells.summaries.segment_covariates import list_segment_levels
from bayes_hte.cells.units import adjusted_means
from bayes_hte.cells.units.clusters import SpanningClusters, count_disjoint_clusters, read_spanning_clusters
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, SEGMENT

ALL_LEVELS: Final = "(all)"
"""Level of the one segment that holds all units."""


def split(cells: xr.Dataset, by: str) -> dict[str, xr.Dataset]:
    """Split a cell table by the levels of a dimension: one table per level, without that dimension.

    Parameters
    ----------
    cells
        A cell table, dims (segment, arm), with two dimensions or more. For days, make it with ``bins={"date": "day"}``.
    by
        The dimension.

    Returns
    -------
    dict of str to xarray.Dataset
        By level, in their order; every slice has all arms. Adjusted means are worked out anew, with
        coefficients of the slice. `merge` makes the total of them, unless clusters have rows in several. Covariates
        of segments are left out: add them to the parts that are analysed.

    Raises
    ------
    ArgumentError
        If there is no such dimension.
    DataError
        If the dimension is the only one, the table holds estimates with a covariance, or an adjusted
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
    cell_table.check_cell_table(cells)
    dims = cell_table.list_dimensions(cells)
    if by not in dims:
        raise ArgumentError(f"there is no dimension {by!r} to split by; the dimensions are {quote_names(dims)}")
    if len(dims) == 1:
        raise DataError(f"{by!r} is the only dimension, so nothing would be left; add another one to segments")
    if "covariance" in cells:
        raise DataError(
            "estimates with a covariance cannot be split: it says how the parts hang together; leave the "
            "covariance out where the cells are made, or analyse them whole"
        )
    levels = cells[by].values  # one per segment: a level has as many segments as the other dimensions make
    return {level: _slice_level(cells.isel({SEGMENT: levels == level}), by, level) for level in list_levels(cells, by)}


def _slice_level(slice_cells: xr.Dataset, dimension: str, level: str) -> xr.Dataset:
    """Make the table of one level, whose segments are named without it."""
    dim_index = cell_table.list_dimensions(slice_cells).index(dimension)
    other_dims = [dim for dim in cell_table.list_dimensions(slice_cells) if dim != dimension]
    slice_keys = [
        ((*levels[:dim_index], *levels[dim_index + 1 :]), str(arm))
        for levels in list_segment_levels(slice_cells)
        for arm in slice_cells[ARM].values
    ]
    try:
        rebuilt_slice = rebuild_cells(slice_cells, slice_keys, other_dims)
    except DataError as error:
        raise DataError(
            f"{dimension} {level} cannot be split off: {error}; or put it together with other levels"
        ) from error
    slice_attrs = {"source": f"{dimension} {level} in {rebuilt_slice.attrs['source']}"}
    if (stored_spans := read_spanning_clusters(slice_cells)) is not None:
        spanning_dims = [dim for dim in stored_spans.varying_dims if dim != dimension]
        # Where clusters span other dimensions too, nobody knows how many of them the level has.
        known_spans = SpanningClusters() if spanning_dims else count_disjoint_clusters(rebuilt_slice)
        slice_attrs[SPANNING_ATTRIBUTE] = replace(
            known_spans,
            varying_dims=spanning_dims,
            sliced_dim=dimension if dimension in stored_spans.varying_dims else stored_spans.sliced_dim,
        ).to_json()
    return rebuilt_slice.assign_attrs(slice_attrs)


def pool_segments(cells: xr.Dataset) -> xr.Dataset:
    """Pool all segments in one, as if nobody had divided the units; means are not adjusted for covariates.

    Means that are known by standard errors alone, and published estimates, are averaged by the sizes of their cells,
    or as alike where these are not known.
    """
    kind = cell_table.identify_kind(cells)
    dims = cell_table.list_dimensions(cells)
    one_segment = (ALL_LEVELS,) * len(dims)
    if kind == "estimates" or (kind == "means" and "recipe" not in cells.attrs):
        return _average_segments(cells, "estimate" if kind == "estimates" else "mean", one_segment)
    plain_cells = _drop_adjustment(cells) if "recipe" in cells.attrs else cells
    # Only what the outcome needs: what checks read of single cells says nothing here.
    plain_cells = plain_cells.drop_vars(cell_table.EXTRA_VARIABLES & set(map(str, plain_cells.data_vars)))
    cell_keys = [(one_segment, str(arm)) for _ in plain_cells[SEGMENT].values for arm in plain_cells[ARM].values]
    return rebuild_cells(plain_cells, cell_keys, dims)


def _drop_adjustment(cells: xr.Dataset) -> xr.Dataset:
    """Drop the covariates of adjusted means, and what was computed with them."""
    recipe = adjusted_means.AdjustmentRecipe.from_json(cells.attrs["recipe"])
    plain_recipe = replace(recipe, covariate_ratios=())
    kept_columns = plain_recipe.column_names
    solved_names = [name for name in ("variance_reduction",) if name in cells]
    plain_cells = cells.drop_vars(solved_names).sel(
        {cell_table.INPUT_COLUMN: kept_columns, cell_table.OTHER_INPUT_COLUMN: kept_columns}
    )
    return plain_cells.assign_attrs(recipe=plain_recipe.to_json())


def _average_segments(cells: xr.Dataset, value_name: str, one_segment: SegmentLevels) -> xr.Dataset:
    """Average means or estimates over the segments that have them, each arm by the sizes of its cells."""
    values, se = cells[value_name].transpose(SEGMENT, ARM), cells["se"].transpose(SEGMENT, ARM)
    cell_sizes = cell_table.get_cell_sizes(cells)
    is_known = cell_table.has_data(cells).transpose(SEGMENT, ARM)
    shares = (xr.ones_like(values) if cell_sizes is None else cell_sizes.transpose(SEGMENT, ARM)).where(is_known, 0.0)
    shares = shares / shares.sum(SEGMENT).where(shares.sum(SEGMENT) > 0)
    # mean = Σ share_s y_s,   se² = Σ share_s² se_s², or share' Σ share with a covariance
    variances = (shares**2 * se.where(is_known, 0.0) ** 2).sum(SEGMENT, skipna=False)
    if "covariance" in cells:
        segment_shares = shares.values[:, 0]
        variances = xr.full_like(variances, segment_shares @ cells["covariance"].values @ segment_shares)
    averages = (shares * values.where(is_known, 0.0)).sum(SEGMENT, skipna=False)
    variables: dict[str, CellValues] = {value_name: averages.values, "se": np.sqrt(variances.values)}
    if "n" in cells:
        variables["n"] = cells["n"].sum(SEGMENT).values
    return build_cell_table(
        [(one_segment, str(arm)) for arm in averages[ARM].values],
        variables,
        _read_metadata(cells, cell_table.list_dimensions(cells)),
    )


def rebuild_cells(cells: xr.Dataset, cell_keys: list[CellKey], dims: list[str]) -> xr.Dataset:
    """Rebuild cells under other keys, one per cell, the arm fastest; cells with the same key are pooled.

    Adjusted means are worked out anew; covariates of segments are left out.
    """
    variable_names = [str(name) for name in cells.data_vars if name != "covariates"]
    variables: dict[str, CellValues] = {}
    for name in variable_names:
        cell_values = cells[name].transpose(SEGMENT, ARM, ...).values
        variables[name] = cell_values.reshape(-1, *cell_values.shape[2:])
    recipe = adjusted_means.AdjustmentRecipe.from_json(cells.attrs["recipe"]) if "recipe" in cells.attrs else None
    if recipe is not None:
        # Solved anew below: coefficients are those of the cells that are left.
        variables = {name: variables[name] for name in variables.keys() - {"mean", "se", "variance_reduction"}}
    pooled_keys, pooled_variables = pool_groups(cell_keys, variables)
    if recipe is not None:
        pooled_variables |= adjusted_means.solve_adjusted_means(pooled_keys, pooled_variables, recipe)
    return build_cell_table(
        pooled_keys, pooled_variables, _read_metadata(cells, dims), extra_coords=_read_extra_coords(cells)
    )


def _read_metadata(cells: xr.Dataset, dims: list[str]) -> TableAttributes:
    attrs = cells.attrs  # some tables were made by hand, and lack what they need not have
    return TableAttributes(
        outcome_name=attrs["outcome"],
        control_arm=attrs["control"],
        dims=dims,
        source_text=attrs.get("source", "unknown"),
        notes=cell_table.list_notes(cells),
        validity_warnings=cell_table.list_validity_warnings(cells),
        horizon=attrs.get("horizon"),
        recipe_text=attrs.get("recipe"),
        shares_text=attrs.get("shares"),
        spanning_text=attrs.get(SPANNING_ATTRIBUTE),
        size_unit=attrs.get("size_unit"),
        cluster_column=attrs.get("cluster"),
        level_orders={
            name: order for name, order in cell_table.read_level_orders(cells).items() if name in {*dims, ARM}
        },
    )


def _read_extra_coords(cells: xr.Dataset) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Read the coordinates of dims beyond segment and arm, but for covariates."""
    extra_coords = {}
    for coord_name, coordinate in cells.coords.items():
        # Values of a histogram, intervals of time, input columns: not levels, which follow from the keys.
        if len(coordinate.dims) == 1 and coordinate.dims[0] not in {SEGMENT, ARM, cell_table.COVARIATE}:
            extra_coords[str(coord_name)] = (str(coordinate.dims[0]), coordinate.values)
    return extra_coords
