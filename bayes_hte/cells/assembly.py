"""Put cells in their places: from a list of cells to the cell table, and pooling cells that share a place.

Pooling uses Chan's formula for several groups at once, with mean the pooled mean of a cell:

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

from bayes_hte import schema
from bayes_hte.cells.labels import Key, natural_order, order_segments, segment_labels
from bayes_hte.cells.spanning import ATTRIBUTE
from bayes_hte.schema import ARM, OTHER_SEGMENT, SEGMENT

type Column = npt.NDArray[np.int64 | np.float64]
"""A variable of the cell table: the first axis is the cell, others are the variable's own."""
type Places = npt.NDArray[np.intp]
type Coords = Mapping[str, tuple[str, Sequence[Any] | npt.NDArray[Any]]]

UNKNOWN = frozenset(
    {"mean", "se", "estimate", "log_mean", "column_mean", "variance_reduction", "lowest", "highest", "pre_mean"}
)
"""What an empty cell has none of: NaN there. Of all else it holds 0."""

MOMENTS = (("n", "mean", "ss"), ("positive", "log_mean", "log_ss"), ("pre_n", "pre_mean", "pre_ss"))
"""Number, mean and sum of squares: of the outcome, of its logarithm where it is positive, of what was before."""
EXTREMES = MappingProxyType({"lowest": np.fmin, "highest": np.fmax})
"""Of all groups of a cell; those that have none (NaN) say nothing."""


@dataclass(frozen=True, slots=True)
class About:
    """What a cell table says of itself beside its numbers."""

    outcome: str
    control: str
    dims: Sequence[str]
    source: str
    notes: Sequence[str] = field(default=())
    horizon: float | None = None
    recipe: str | None = None
    shares: str | None = None
    spanning: str | None = None
    doubts: Sequence[str] = field(default=())


def assemble(
    keys: Sequence[Key],
    columns: Mapping[str, Column],
    about: About,
    *,
    covariance: Column | None = None,
    coords: Coords = MappingProxyType({}),
) -> xr.Dataset:
    """Make the cell table from distinct cells; combinations of segment and arm that are not among them are empty.

    Parameters
    ----------
    keys
        Segment and arm of each cell.
    columns
        Variables of the cell table.
    about
        Attributes.
    covariance
        Between the cells, in their order; all are in one arm.
    coords
        Coordinates of dims beyond segment and arm.
    """
    segments = order_segments(levels for levels, _ in keys)
    arms = natural_order(arm for _, arm in keys)
    arms.sort(key=lambda arm: arm != about.control)  # stable: the control first
    row = {levels: i for i, levels in enumerate(segments)}
    column = {arm: i for i, arm in enumerate(arms)}
    place = np.array([row[levels] for levels, _ in keys]), np.array([column[arm] for _, arm in keys])

    labels = segment_labels(segments)
    levels_of = {dim: (SEGMENT, [levels[i] for levels in segments]) for i, dim in enumerate(about.dims)}
    cells = xr.Dataset(
        {
            name: (schema.VARIABLES[name].dims, _fill(name, values, place, (len(segments), len(arms))))
            for name, values in columns.items()
        },
        coords={**coords, **levels_of, SEGMENT: (SEGMENT, labels), ARM: (ARM, arms)},
        attrs=_attributes(about),
    )
    if covariance is not None:
        order = np.argsort(place[0])
        cells["covariance"] = (SEGMENT, OTHER_SEGMENT), covariance[np.ix_(order, order)]
        cells = cells.assign_coords({OTHER_SEGMENT: (OTHER_SEGMENT, labels)})
    return schema.check(cells)


def _attributes(about: About) -> dict[str, str | float]:
    doubts = {"doubts": schema.encode(dict.fromkeys(about.doubts))} if about.doubts else {}
    return (
        doubts
        | {
            "outcome": about.outcome,
            "control": about.control,
            "dimensions": schema.encode(about.dims),
            "notes": schema.encode(dict.fromkeys(about.notes)),
            "source": about.source,
        }
        | {
            name: value
            for name, value in (
                ("horizon", about.horizon),
                ("recipe", about.recipe),
                ("shares", about.shares),
                (ATTRIBUTE, about.spanning),
            )
            if value is not None
        }
    )


def _fill(name: str, values: Column, place: tuple[Places, Places], shape: tuple[int, int]) -> Column:
    grid = np.full(shape + values.shape[1:], np.nan if name in UNKNOWN else 0, dtype=values.dtype)
    grid[place] = values
    return grid


def pool(keys: Sequence[Key], columns: Mapping[str, Column]) -> tuple[list[Key], dict[str, Column]]:
    """Pool the groups that have the same key: means and sums of squares by Chan's formula, all else adds up."""
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    at = np.array([index[key] for key in keys], dtype=np.intp)
    if len(index) == len(keys):
        return list(index), dict(columns)
    size = len(index)
    joint = {name for _, *names in MOMENTS for name in names} | {"column_mean", "column_ss"} | set(EXTREMES)
    pooled = {name: _add_up(values, at, size) for name, values in columns.items() if name not in joint}
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused as such
        pooled |= _pooled_moments(columns, at, size)
    for name in EXTREMES.keys() & columns.keys():
        pooled[name] = np.full(size, np.nan)
        EXTREMES[name].at(pooled[name], at, columns[name])
    return list(index), pooled


def _pooled_moments(columns: Mapping[str, Column], at: Places, size: int) -> dict[str, Column]:
    """Means, and sums of squares and products, by Chan's formula."""
    pooled: dict[str, Column] = {}
    for number, mean, ss in MOMENTS:
        if mean in columns:
            pooled[mean], away = _chan(columns[number], columns[mean], at, size)
            pooled[ss] = _add_up(columns[ss] + columns[number] * away**2, at, size)
    if "column_mean" in columns:
        pooled["column_mean"], away = _chan(columns["n"][:, None], columns["column_mean"], at, size)
        products = columns["n"][:, None, None] * away[:, :, None] * away[:, None, :]
        pooled["column_ss"] = _add_up(columns["column_ss"] + products, at, size)
    return pooled


def _chan(
    n: Column, mean: Column, at: npt.NDArray[np.intp], size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean of the pooled groups, and how far each group's mean is from it; `at` says where each group goes."""
    n = np.broadcast_to(n, mean.shape)
    full = n > 0
    reference = np.full((size, *mean.shape[1:]), np.nan)
    np.fmax.at(reference, at, np.where(full, mean, np.nan))  # any of them will do
    shift = np.where(full, mean - reference[at], 0.0)
    offset = _add_up(n * shift, at, size) / np.maximum(_add_up(n, at, size), 1)
    return reference + offset, np.where(full, shift - offset[at], 0.0)


def _add_up(values: Column, at: npt.NDArray[np.intp], size: int) -> Column:
    total = np.zeros((size, *values.shape[1:]), dtype=values.dtype)
    np.add.at(total, at, values)
    return total
