"""The cell table in long form, which likelihoods take: one row per cell that holds data.

dim     cell                     coords cell ("mobile | email"), segment_of(cell), arm_of(cell)
data    the family's statistics, segment_index(cell), arm_index(cell): 0 is the control
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.spec import cell_table

ParameterDraws = Mapping[str, xr.DataArray]
"""Draws by name: baseline (…, segment), effect (…, segment, arm), sigma (…, variant)."""


def build_long_form(cell_statistics: xr.Dataset) -> xr.Dataset:
    """Stack the cells that hold data to one dim, segments outermost."""
    has_data = cell_table.has_data(cell_statistics).transpose(cell_table.SEGMENT, cell_table.ARM).values
    segment_index, arm_index = np.nonzero(has_data)
    segment_labels = [str(label) for label in cell_statistics[cell_table.SEGMENT].values]
    arm_labels = [str(label) for label in cell_statistics[cell_table.ARM].values]
    cell_labels = [
        f"{segment_labels[segment]} | {arm_labels[arm]}" for segment, arm in zip(segment_index, arm_index, strict=True)
    ]
    # Published estimates have treated arms only; arm 0 is always the control.
    control_shift = 0 if cell_statistics.attrs["control"] else 1
    stacked_variables: dict[str, Any] = {
        name: (
            "cell",
            cell_statistics[name].transpose(cell_table.SEGMENT, cell_table.ARM).values[segment_index, arm_index],
        )
        for name in map(str, cell_statistics.data_vars)
        if cell_statistics[name].dims == (cell_table.SEGMENT, cell_table.ARM)
    }
    for name in map(str, cell_statistics.data_vars):
        dims = cell_statistics[name].dims
        if set(dims) > {cell_table.SEGMENT, cell_table.ARM}:
            (extra_dim,) = (dim for dim in dims if dim not in (cell_table.SEGMENT, cell_table.ARM))
            values = cell_statistics[name].transpose(cell_table.SEGMENT, cell_table.ARM, extra_dim).values
            stacked_variables[name] = (("cell", extra_dim), values[segment_index, arm_index])
    if "covariance" in cell_statistics:  # estimates with a covariance have one arm and no gap
        stacked_variables["covariance"] = (("cell", "other_cell"), cell_statistics["covariance"].values)
    return xr.Dataset(
        {**stacked_variables, "segment_index": ("cell", segment_index),
         "arm_index": ("cell", arm_index + control_shift)},
        coords={
            "cell": number_duplicates(cell_labels),
            "segment_of": ("cell", np.array(segment_labels, dtype=object)[segment_index].astype(str)),
            "arm_of": ("cell", np.array(arm_labels, dtype=object)[arm_index].astype(str)),
            **{name: cell_statistics[name] for name in (cell_table.VALUE, cell_table.INTERVAL, "start", "end")
               if name in cell_statistics.coords},
        },
        attrs={name: value for name, value in cell_statistics.attrs.items() if name == "horizon"},
    )  # fmt: skip


def number_duplicates(labels: list[str]) -> list[str]:
    """Tell equal labels apart by a number: 'a | b' can come from two pairs of hostile names."""
    label_counts: dict[str, int] = {}
    numbered_labels = []
    for label in labels:
        label_counts[label] = label_counts.get(label, 0) + 1
        numbered_labels.append(label if label_counts[label] == 1 else f"{label} ({label_counts[label]})")
    return numbered_labels


def label_dims(cells: xr.Dataset) -> dict[str, list[str]]:
    """Label the dims of any model: segment, arm (those with an effect), variant (every arm)."""
    return {
        "segment": [str(label) for label in cells[cell_table.SEGMENT].values],
        "arm": cell_table.list_treated_arms(cells),
        "variant": [str(label) for label in cells[cell_table.ARM].values],
    }


def compute_linear_predictor(long_cells: xr.Dataset, parameter_draws: ParameterDraws) -> xr.DataArray:
    """Compute baseline + effect of every cell from draws: dims (…, cell)."""
    segment_index = xr.DataArray(long_cells["segment_index"].values, dims="cell")
    effect_index = xr.DataArray(np.maximum(long_cells["arm_index"].values - 1, 0), dims="cell")
    is_treated = xr.DataArray(long_cells["arm_index"].values > 0, dims="cell")
    # eta[cell] = baseline[segment of cell] + effect[segment of cell, arm of cell], 0 for the control; of control cells
    # the first arm's effect is read, and replaced.
    cell_effect = parameter_draws["effect"].isel(segment=segment_index, arm=effect_index).reset_coords(drop=True)
    eta = cell_effect.where(is_treated, 0.0)
    if "baseline" in parameter_draws:
        eta = eta + parameter_draws["baseline"].isel(segment=segment_index).reset_coords(drop=True)
    sample_dims = [dim for dim in cell_effect.dims if dim != "cell"]
    ordered_eta: xr.DataArray = eta.transpose(*sample_dims, "cell")
    return ordered_eta.assign_coords(cell=long_cells["cell"])


def select_variant_values(long_cells: xr.Dataset, variant_draws: xr.DataArray) -> xr.DataArray:
    """Pick each cell's entry of a quantity that has one value per arm, control included."""
    arm_index = xr.DataArray(long_cells["arm_index"].values, dims="cell")
    return variant_draws.isel(variant=arm_index).reset_coords(drop=True)


def move_dim_first(draws: xr.DataArray, dim: str, dim_count: int) -> NDArray[np.float64]:
    """Move a dim to the front, and add axes of length 1 at the end, for broadcasting with `dim_count` dims of draws."""
    moved_values = draws.transpose(dim, ...).values
    return moved_values.reshape(*moved_values.shape, *[1] * (dim_count + 1 - moved_values.ndim))
