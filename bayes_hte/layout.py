"""The cell table in long form: one row per cell that holds data. What every likelihood sees.

dim     cell                     coords cell ("mobile | email"), segment_of(cell), arm_of(cell)
data    the family's statistics, segment_index(cell), arm_index(cell): 0 is the control
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import schema

Parameters = Mapping[str, xr.DataArray]
"""Draws by name: baseline (…, segment), effect (…, segment, arm), sigma (…, variant)."""


def long_form(statistics: xr.Dataset) -> xr.Dataset:
    """Stack the cells that hold data, segments outermost."""
    there = schema.present(statistics).transpose(schema.SEGMENT, schema.ARM).values
    rows, columns = np.nonzero(there)
    segments = [str(label) for label in statistics[schema.SEGMENT].values]
    arms = [str(label) for label in statistics[schema.ARM].values]
    labels = [f"{segments[row]} | {arms[column]}" for row, column in zip(rows, columns, strict=True)]
    shift = 0 if statistics.attrs["control"] else 1
    stacked: dict[str, Any] = {
        name: ("cell", statistics[name].transpose(schema.SEGMENT, schema.ARM).values[rows, columns])
        for name in map(str, statistics.data_vars)
        if statistics[name].dims == (schema.SEGMENT, schema.ARM)
    }
    for name in map(str, statistics.data_vars):
        dims = statistics[name].dims
        if set(dims) > {schema.SEGMENT, schema.ARM}:
            (extra,) = (dim for dim in dims if dim not in (schema.SEGMENT, schema.ARM))
            values = statistics[name].transpose(schema.SEGMENT, schema.ARM, extra).values
            stacked[name] = (("cell", extra), values[rows, columns])
    if "covariance" in statistics:  # estimates with a covariance have one arm and no gap
        stacked["covariance"] = (("cell", "other_cell"), statistics["covariance"].values)
    return xr.Dataset(
        {**stacked, "segment_index": ("cell", rows), "arm_index": ("cell", columns + shift)},
        coords={
            "cell": unique(labels),
            "segment_of": ("cell", np.array(segments, dtype=object)[rows].astype(str)),
            "arm_of": ("cell", np.array(arms, dtype=object)[columns].astype(str)),
            **{name: statistics[name] for name in (schema.VALUE, schema.INTERVAL, "start", "end")
               if name in statistics.coords},
        },
        attrs={name: value for name, value in statistics.attrs.items() if name == "horizon"},
    )  # fmt: skip


def unique(labels: list[str]) -> list[str]:
    """Tell equal labels apart by a number: 'a | b' can come from two pairs of hostile names."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return result


def coordinates(cells: xr.Dataset) -> dict[str, list[str]]:
    """The named dims of the model: segment, arm (those with an effect), variant (every arm)."""
    return {
        "segment": [str(label) for label in cells[schema.SEGMENT].values],
        "arm": schema.treated_arms(cells),
        "variant": [str(label) for label in cells[schema.ARM].values],
    }


def linear_predictor(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """``baseline + effect`` of every cell, from draws: dims (…, cell)."""
    segment = xr.DataArray(cells["segment_index"].values, dims="cell")
    arm = xr.DataArray(np.maximum(cells["arm_index"].values - 1, 0), dims="cell")
    treated = xr.DataArray(cells["arm_index"].values > 0, dims="cell")
    effect = parameters["effect"].isel(segment=segment, arm=arm).reset_coords(drop=True)
    eta = effect.where(treated, 0.0)
    if "baseline" in parameters:
        eta = eta + parameters["baseline"].isel(segment=segment).reset_coords(drop=True)
    leading = [dim for dim in effect.dims if dim != "cell"]
    ordered: xr.DataArray = eta.transpose(*leading, "cell")
    return ordered.assign_coords(cell=cells["cell"])


def variant_values(cells: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """Pick each cell's entry of a quantity that has one value per arm, control included."""
    index = xr.DataArray(cells["arm_index"].values, dims="cell")
    return values.isel(variant=index).reset_coords(drop=True)


def dim_first(draws: xr.DataArray, dim: str, ndim: int) -> NDArray[np.float64]:
    """(dim, …) to go with draws of `ndim` dims, whose dims (chain, draw) are followed by others."""
    values = draws.transpose(dim, ...).values
    return values.reshape(*values.shape, *[1] * (ndim + 1 - values.ndim))
