"""Draw cell tables of many experiments at once: how many units each cell has, and their sufficient statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import xarray as xr

from bayes_hte.cells.build import NAN_WHEN_EMPTY, CellCoords, TableAttributes, build_cell_table
from bayes_hte.cells.combine.planned_shares import with_shares
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.simulation.outcomes.counts import EXPOSURE_COLUMN
from bayes_hte.cells.simulation.outcomes.law import CountGrid, DrawnValues
from bayes_hte.cells.simulation.stated.design import SizeDesign
from bayes_hte.cells.simulation.stated.segments import ArmDesign, PopulationDesign, StatedValues
from bayes_hte.spec.cell_table import ARM, CELL_VARIABLES

EXPERIMENT, DAY = "experiment", "day"
MOMENT_NAMES = (("n", "mean", "ss"), ("positive", "log_mean", "log_ss"))
"""Names of n, mean and sum of squared deviations, which pool by Chan's formula; all other statistics add up."""


def draw_sizes(  # noqa: PLR0917
    sizes: SizeDesign,
    segments: PopulationDesign,
    arms: ArmDesign,
    rng: np.random.Generator,
    experiment_count: int,
    cluster_size: int | None = None,
) -> CountGrid:
    """Draw the number of units in every cell, (experiment, day, segment, arm), or of clusters of a stated size.

    Each experiment adds up to the same number.
    """
    # Clusters are assigned as a whole: as many as come nearest to the units that were asked for.
    total = sizes.unit_count if cluster_size is None else max(round(sizes.unit_count / cluster_size), 1)
    # P(cell) = share of the day × share of the segment × share of the arm: assignment looks at nothing else
    cell_shares = np.einsum("d,s,a->dsa", sizes.day_shares, segments.shares, arms.shares)
    flat_shares = cell_shares.ravel() / cell_shares.sum()
    if sizes.is_fixed:
        counts = np.broadcast_to(_round_shares(flat_shares, total), (experiment_count, flat_shares.size))
    else:
        counts = rng.multinomial(total, flat_shares, size=experiment_count)
    return np.ascontiguousarray(counts, dtype=np.int64).reshape(experiment_count, *cell_shares.shape)


def _round_shares(shares: StatedValues, total: int) -> np.ndarray:
    """Round shares of a total to whole numbers that add up to it: the largest remainders are rounded up."""
    # ⌊share × total⌋, and one more for those with the largest remainders: no cell is off by a whole unit
    expected = shares * total
    counts = np.floor(expected).astype(np.int64)
    largest_remainders = np.argsort(counts - expected, kind="stable")
    counts[largest_remainders[: total - int(counts.sum())]] += 1
    return counts


@dataclass(frozen=True, slots=True)
class CellNames:
    """The names in a simulated cell table: outcome, source, and coordinates of dims beyond segment and arm."""

    outcome_name: str
    source_text: str
    extra_coords: CellCoords = field(default_factory=lambda: MappingProxyType({}))
    horizon: float | None = None
    recipe_text: str | None = None
    cluster_column: str | None = None


def build_simulated_cells(
    statistics: DrawnValues, segments: PopulationDesign, arms: ArmDesign, names: CellNames, dims: Sequence[str]
) -> xr.Dataset:
    """Build the cell tables of many experiments, or of their days, as one dataset.

    Parameters
    ----------
    statistics : dict
        Variables of the cell table; leading axes are those of `dims`, then segment, arm and the variable's own.
    segments, arms, names
        Labels and attributes.
    dims : sequence of str
        Dims before segment and arm.

    Returns
    -------
    xarray.Dataset
        Each slice along `dims` is a cell table that keeps the contract.
    """
    # Labels and attributes are the same in every table: they are checked once, of the first one.
    first_table = {name: values[(0,) * len(dims)] for name, values in statistics.items()}
    # Published estimates are of treated arms, and have no control beside them.
    has_control = "estimate" not in statistics
    arm_names = arms.names if has_control else arms.treated
    template = build_cell_table(
        list_cell_keys(segments, arm_names),
        {name: values.reshape(-1, *values.shape[2:]) for name, values in first_table.items()},
        TableAttributes(
            outcome_name=names.outcome_name,
            control_arm=arms.names[0] if has_control else "",
            dims=segments.dims,
            source_text=names.source_text,
            size_unit=_name_size_unit(statistics),
            recipe_text=names.recipe_text,
            cluster_column=names.cluster_column,
            level_orders={**segments.level_orders, ARM: arm_names},
            horizon=names.horizon,
        ),
        extra_coords=names.extra_coords,
    )
    # Planned shares make `check` compare the sizes of arms with what was stated.
    if has_control:
        template = with_shares(template, arms.name_shares())
    data = {name: ((*dims, *CELL_VARIABLES[name].dims), _blank_empty_cells(name, statistics)) for name in statistics}
    leading_shape = next(iter(statistics.values())).shape[: len(dims)]
    # Days are counted from 1, as people do; experiments from 0, as the rows of an array.
    places = {dim: np.arange(size) + (dim == DAY) for dim, size in zip(dims, leading_shape, strict=True)}
    return xr.Dataset(data, coords={**template.coords, **places}, attrs=template.attrs)


def list_cell_keys(segments: PopulationDesign, arm_names: Sequence[str]) -> list[CellKey]:
    """List the cells, the arms of the first segment first."""
    return [(levels, arm) for levels in segments.levels_by_segment for arm in arm_names]


def _name_size_unit(statistics: DrawnValues) -> str | None:
    if "cell_size" in statistics:
        return "rows"  # of clusters, as `from_rows` counts them
    return EXPOSURE_COLUMN if "exposure" in statistics else None


def _blank_empty_cells(name: str, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
    values = statistics[name]
    if name in NAN_WHEN_EMPTY and "n" in statistics:
        # n has no axes behind those of the cells; statistics such as column means do.
        is_empty = statistics["n"] == 0
        return np.where(is_empty.reshape(*is_empty.shape, *(1,) * (values.ndim - is_empty.ndim)), np.nan, values)
    return values


def pool_days(statistics: DrawnValues, *, cumulative: bool = False) -> DrawnValues:
    """Pool the statistics of days, the second axis: of all of them, or up to each one.

    Counts add up. With r the mean of all days and n the units so far,

        mean = r + Σ n_d (mean_d − r) / n        ss = Σ (ss_d + n_d (mean_d − r)²) − n (mean − r)²
    """

    def add_up(values: np.ndarray) -> np.ndarray:
        return np.cumsum(values, axis=1) if cumulative else values.sum(axis=1)

    pooled = {name: add_up(values) for name, values in statistics.items()}
    for n_name, mean_name, ss_name in MOMENT_NAMES:
        if mean_name in statistics:
            # Deviations from the mean of all days are small, also where means are large: no digits are lost.
            n, day_mean = statistics[n_name], np.where(statistics[n_name] > 0, statistics[mean_name], 0.0)
            total_n = n.sum(axis=1, keepdims=True)
            reference_mean = (n * day_mean).sum(axis=1, keepdims=True) / np.maximum(total_n, 1)
            shift = np.where(n > 0, day_mean - reference_mean, 0.0)
            pooled_n = pooled[n_name]
            pooled_shift = add_up(n * shift) / np.maximum(pooled_n, 1)
            mean = (reference_mean if cumulative else reference_mean[:, 0]) + pooled_shift
            pooled[mean_name] = np.where(pooled_n > 0, mean, np.nan)
            # Σ n_d (mean_d − mean)² = Σ n_d (mean_d − r)² − n (mean − r)²
            pooled_ss = add_up(statistics[ss_name] + n * shift**2) - pooled_n * pooled_shift**2
            pooled[ss_name] = np.maximum(pooled_ss, 0.0)
    return pooled
