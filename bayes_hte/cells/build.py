"""Build the cell table from a list of cells, and pool groups of units that belong to the same cell.

Pooling uses Chan's formula for several groups g at once, with mean the pooled mean of a cell:

    n = Σ n_g      mean = r + Σ n_g (mean_g - r) / n      ss = Σ ss_g + Σ n_g (mean_g - mean)²

where r is the mean of any one group: differences are small when means are large, so no digits are lost. Sums of
products of two columns pool in the same way, with the product of their deviations in place of the square.

References
----------
Chan, Golub & LeVeque 1983, Algorithms for computing the sample variance, The American Statistician 37:242.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.cells.reading.labels import CellKey, label_segments
from bayes_hte.cells.reading.level_order import LevelOrder, sort_levels, sort_segments
from bayes_hte.cells.reading.total_levels import refuse_totals
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, OTHER_SEGMENT, SEGMENT

type CellValues = npt.NDArray[np.int64 | np.float64]
"""A variable of the cell table: the first axis is the cell, others are the variable's own."""
type CellIndex = npt.NDArray[np.intp]
"""Positions of cells: in a list of cells, or along one dim of the cell table."""
type CellCoords = Mapping[str, tuple[str, Sequence[Any] | npt.NDArray[Any]]]
"""Coordinates of a cell table: by name, the dim and the values."""

SPANNING_ATTRIBUTE = "spanning"
"""Attribute with the counts of clusters: absent where no cluster has rows in several segments."""

NAN_WHEN_EMPTY = frozenset(
    {"mean", "se", "estimate", "log_mean", "column_mean", "variance_reduction", "lowest", "highest", "pre_mean"}
)
"""Variables that are NaN in an empty cell, as no unit defines them; counts and sums are 0 there."""

MOMENT_VARIABLES = (("n", "mean", "ss"), ("positive", "log_mean", "log_ss"), ("pre_n", "pre_mean", "pre_ss"))
"""Names of n, mean and sum of squared deviations: of the outcome, of its logarithm above 0, of pre-period columns."""
EXTREME_UFUNCS = MappingProxyType({"lowest": np.fmin, "highest": np.fmax})
"""How extremes of groups pool to the extreme of a cell; fmin and fmax pass over groups without one (NaN)."""


@dataclass(frozen=True, slots=True)
class TableAttributes:
    """The attributes of a cell table, before they are encoded as text."""

    outcome_name: str
    control_arm: str
    dims: Sequence[str]
    source_text: str
    notes: Sequence[str] = field(default=())
    horizon: float | None = None
    recipe_text: str | None = None
    shares_text: str | None = None
    spanning_text: str | None = None
    size_unit: str | None = None
    cluster_column: str | None = None
    validity_warnings: Sequence[str] = field(default=())
    level_orders: Mapping[str, LevelOrder] = field(default_factory=lambda: MappingProxyType({}))  # also of the arms


def build_cell_table(
    cell_keys: Sequence[CellKey],
    cell_variables: Mapping[str, CellValues],
    attributes: TableAttributes,
    *,
    covariance: CellValues | None = None,
    extra_coords: CellCoords = MappingProxyType({}),
) -> xr.Dataset:
    """Build the cell table from distinct cells; combinations of segment and arm without a cell stay empty.

    Parameters
    ----------
    cell_keys
        Segment and arm of each cell.
    cell_variables
        Variables of the cell table by name, one entry per cell, in the order of `cell_keys`.
    attributes
        Attributes of the cell table.
    covariance
        Covariance of the cells' estimates, rows and columns in the order of `cell_keys`; all cells are in one arm.
    extra_coords
        Coordinates of dims beyond segment and arm.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm) in the data's own order or else in natural order, the control first.
    """
    level_orders = attributes.level_orders
    segments = sort_segments((levels for levels, _ in cell_keys), attributes.dims, level_orders)
    arms = sort_levels((arm for _, arm in cell_keys), level_orders.get(ARM, ()))
    arms.sort(key=lambda arm: arm != attributes.control_arm)  # stable: the control first
    segment_row = {levels: i for i, levels in enumerate(segments)}
    arm_column = {arm: i for i, arm in enumerate(arms)}
    grid_index = (
        np.array([segment_row[levels] for levels, _ in cell_keys]),
        np.array([arm_column[arm] for _, arm in cell_keys]),
    )

    segment_labels = label_segments(segments)
    levels_by_dim = {dim: (SEGMENT, [levels[i] for levels in segments]) for i, dim in enumerate(attributes.dims)}
    # Before xarray sees them: some versions make text of another kind of labels, and fail with an error of their own.
    for dim, (_, labels) in levels_by_dim.items():
        cell_table.check_writable(f"a label of {dim!r},", labels)
    cells = xr.Dataset(
        {
            name: (
                cell_table.CELL_VARIABLES[name].dims,
                _scatter_to_grid(name, values, grid_index, (len(segments), len(arms))),
            )
            for name, values in cell_variables.items()
        },
        coords={**extra_coords, **levels_by_dim, SEGMENT: (SEGMENT, segment_labels), ARM: (ARM, arms)},
        attrs=_encode_attributes(attributes),
    )
    if covariance is not None:
        segment_order = np.argsort(grid_index[0])
        cells["covariance"] = (SEGMENT, OTHER_SEGMENT), covariance[np.ix_(segment_order, segment_order)]
        cells = cells.assign_coords({OTHER_SEGMENT: (OTHER_SEGMENT, segment_labels)})
    return refuse_totals(cell_table.check_cell_table(cells))


def _encode_attributes(attributes: TableAttributes) -> dict[str, str | float]:
    # An attribute that does not apply is left out: netCDF has no null, and readers ask whether the name is there.
    warning_attrs = (
        {"doubts": cell_table.encode_text_list(dict.fromkeys(attributes.validity_warnings))}
        if attributes.validity_warnings
        else {}
    )
    return (
        warning_attrs
        | {
            "outcome": attributes.outcome_name,
            "control": attributes.control_arm,
            "dimensions": cell_table.encode_text_list(attributes.dims),
            "notes": cell_table.encode_text_list(dict.fromkeys(attributes.notes)),
            "source": attributes.source_text,
        }
        | {
            attr_name: attr_value
            for attr_name, attr_value in (
                ("horizon", attributes.horizon),
                ("recipe", attributes.recipe_text),
                ("shares", attributes.shares_text),
                (SPANNING_ATTRIBUTE, attributes.spanning_text),
                ("size_unit", attributes.size_unit),
                ("cluster", attributes.cluster_column),
                ("level_orders", cell_table.encode_level_orders(attributes.level_orders)),
            )
            if attr_value is not None
        }
    )


def _scatter_to_grid(
    variable_name: str, cell_values: CellValues, grid_index: tuple[CellIndex, CellIndex], grid_shape: tuple[int, int]
) -> CellValues:
    cell_grid = np.full(
        grid_shape + cell_values.shape[1:], np.nan if variable_name in NAN_WHEN_EMPTY else 0, dtype=cell_values.dtype
    )
    cell_grid[grid_index] = cell_values
    return cell_grid


def pool_groups(
    group_keys: Sequence[CellKey], group_variables: Mapping[str, CellValues]
) -> tuple[list[CellKey], dict[str, CellValues]]:
    """Pool groups that have the same key: means and sums of squares by Chan's formula, counts and sums by adding."""
    cell_keys, cell_index = index_cells(group_keys)
    n_cells = len(cell_keys)
    if n_cells == len(group_keys):  # keys are distinct: nothing to pool
        return cell_keys, dict(group_variables)
    jointly_pooled = (
        {name for _, *names in MOMENT_VARIABLES for name in names} | {"column_mean", "column_ss"} | set(EXTREME_UFUNCS)
    )
    pooled = {
        name: sum_by_cell(values, cell_index, n_cells)
        for name, values in group_variables.items()
        if name not in jointly_pooled
    }
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused as such
        pooled |= _pool_moments(group_variables, cell_index, n_cells)
    for name in EXTREME_UFUNCS.keys() & group_variables.keys():
        pooled[name] = np.full(n_cells, np.nan)
        EXTREME_UFUNCS[name].at(pooled[name], cell_index, group_variables[name])
    return cell_keys, pooled


def index_cells(group_keys: Sequence[CellKey]) -> tuple[list[CellKey], CellIndex]:
    """List the distinct keys in the order of their first groups, and find the position of each group's key."""
    index_of_key = {cell_key: i for i, cell_key in enumerate(dict.fromkeys(group_keys))}
    return list(index_of_key), np.array([index_of_key[cell_key] for cell_key in group_keys], dtype=np.intp)


def _pool_moments(
    group_variables: Mapping[str, CellValues], cell_index: CellIndex, n_cells: int
) -> dict[str, CellValues]:
    """Pool means, sums of squared deviations and sums of products by Chan's formula."""
    pooled: dict[str, CellValues] = {}
    for n_name, mean_name, ss_name in MOMENT_VARIABLES:
        if mean_name in group_variables:
            pooled[mean_name], deviations = pool_means(
                group_variables[n_name], group_variables[mean_name], cell_index, n_cells
            )
            # ss = Σ ss_g + Σ n_g (mean_g − mean)²
            pooled[ss_name] = sum_by_cell(
                group_variables[ss_name] + group_variables[n_name] * deviations**2, cell_index, n_cells
            )
    if "column_mean" in group_variables:
        pooled["column_mean"], deviations = pool_means(
            group_variables["n"][:, None], group_variables["column_mean"], cell_index, n_cells
        )
        # products = Σ products_g + Σ n_g (mean_g − mean)(mean_g − mean)ᵀ, a matrix per cell
        deviation_products = group_variables["n"][:, None, None] * deviations[:, :, None] * deviations[:, None, :]
        pooled["column_ss"] = sum_by_cell(group_variables["column_ss"] + deviation_products, cell_index, n_cells)
    return pooled


def pool_means(
    group_sizes: CellValues, group_means: CellValues, cell_index: npt.NDArray[np.intp], n_cells: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Calculate the mean of each cell, and each group's deviation mean_g − mean from the mean of its cell."""
    group_sizes = np.broadcast_to(group_sizes, group_means.shape)
    has_units = group_sizes > 0
    reference_means = np.full((n_cells, *group_means.shape[1:]), np.nan)
    np.fmax.at(reference_means, cell_index, np.where(has_units, group_means, np.nan))  # r, the mean of any one group
    shifts = np.where(has_units, group_means - reference_means[cell_index], 0.0)
    # mean = r + Σ n_g (mean_g − r) / n
    pooled_shifts = sum_by_cell(group_sizes * shifts, cell_index, n_cells) / np.maximum(
        sum_by_cell(group_sizes, cell_index, n_cells), 1
    )
    return reference_means + pooled_shifts, np.where(has_units, shifts - pooled_shifts[cell_index], 0.0)


def sum_by_cell(group_values: CellValues, cell_index: npt.NDArray[np.intp], n_cells: int) -> CellValues:
    """Sum the values of groups by cell, the first axis."""
    cell_totals = np.zeros((n_cells, *group_values.shape[1:]), dtype=group_values.dtype)
    np.add.at(cell_totals, cell_index, group_values)
    return cell_totals
