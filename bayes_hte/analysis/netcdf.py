"""Write a DataTree as a netCDF file and read it back, by xarray and h5netcdf.

Draws are written in single precision, which has 7 digits: their Monte-Carlo error is in the second or third. They are
read back as the double precision that everything computes in. All else is written as it is.

A variable may be called "customer type" here, which the attribute that netCDF lists coordinates in cannot say: such a
name is written as customer_type, and what it stands for as an attribute of the file.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from bayes_hte._support.validation import describe_value, to_int
from bayes_hte.errors import ArgumentError

MIN_DRAWS_PER_CHAIN: Final = 2
"""A single draw has no variance."""
NAMES_ATTRIBUTE: Final = "names"
"""Attribute of the file, as JSON: name in the file -> name in the tree, where they differ."""
NON_COORDINATE_PREFIX: Final = "_nc4_non_coord_"
"""How netCDF marks a variable that is named like a dimension; taken away by whoever reads it."""

SAMPLE_DIMS: Final = ("chain", "draw")
MAX_ROUNDING_ERROR: Final = 1e-4
"""Of a sum of log densities, in nats: a ten-thousandth changes no importance weight by more than 0.01 %."""
LOG_DENSITY_GROUPS: Final = ("log_likelihood", "log_prior")
DOUBLE_GROUPS: Final = ("sample_stats",)
"""Groups of a few numbers to a draw, which diagnose it: they stay as they are."""
COMPRESSION: Final = {"zlib": True, "shuffle": True, "complevel": 1}
"""Higher levels take three times as long for one percent: what is left in draws is noise."""


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write the attributes of a tree and the groups right below its root."""
    file_name_by_name = _choose_file_names(tree)
    file_tree = _rename_variables(tree, file_name_by_name)
    if file_name_by_name:
        name_by_file_name = {file_name: name for name, file_name in file_name_by_name.items()}
        file_tree.attrs[NAMES_ATTRIBUTE] = json.dumps(name_by_file_name, ensure_ascii=False)
    file_tree.to_netcdf(path, engine="h5netcdf", encoding=_choose_encodings(file_tree))


def read_tree(path: Path) -> xr.DataTree:
    """Read what `write_tree` wrote; a file of anyone else comes back as xarray reads it.

    Raises
    ------
    OSError, ValueError, KeyError
        If this is no such file.
    """
    with xr.open_datatree(path, engine="h5netcdf") as opened_tree:
        file_tree = opened_tree.load().map_over_datasets(_restore_precision)
    name_by_file_name = json.loads(file_tree.attrs.pop(NAMES_ATTRIBUTE, "{}"))
    return _rename_variables(file_tree, name_by_file_name) if name_by_file_name else file_tree


def thin_draws(tree: xr.DataTree, draw_count: int) -> xr.DataTree:
    """Build a tree with evenly spaced draws of every group, `draw_count` in all chains together.

    Parameters
    ----------
    tree : xarray.DataTree
        Groups with dims chain and draw are thinned, each by its own number of draws; others stay as they are.
    draw_count : int
        Rounded up to a multiple of the chains. A group that has no more draws stays whole.

    Returns
    -------
    xarray.DataTree
        With the attributes of the tree given; draws keep their labels.

    Raises
    ------
    ArgumentError
        If `draw_count` is no whole number, or leaves a chain of the posterior less than two draws.

    Notes
    -----
    Means and intervals of fewer draws have a larger Monte-Carlo error: √(all / kept) times as large if draws are
    independent.
    """
    kept_count, chain_count = to_int(draw_count), tree["posterior"].sizes["chain"]
    if kept_count is None or kept_count < MIN_DRAWS_PER_CHAIN * chain_count:
        raise ArgumentError(
            f"draws is how many to keep of all chains together, a whole number of at least "
            f"{MIN_DRAWS_PER_CHAIN * chain_count} for {chain_count} chains, not {describe_value(draw_count)}"
        )
    # Groups of predictions have fewer draws than the posterior: each is thinned by a step of its own.
    groups = {name: _thin_group(node.to_dataset(inherit=False), kept_count) for name, node in tree.children.items()}
    thinned_tree = xr.DataTree.from_dict(groups)
    thinned_tree.attrs = dict(tree.attrs)
    return thinned_tree


def _thin_group(dataset: xr.Dataset, kept_count: int) -> xr.Dataset:
    if not all(dim in dataset.dims for dim in SAMPLE_DIMS):
        return dataset
    draws_per_chain = dataset.sizes["draw"]
    kept_per_chain = min(-(-kept_count // dataset.sizes["chain"]), draws_per_chain)
    # Positions ⌊i n / k⌋ are distinct for k ≤ n, and the same for groups of equal length: draws stay together.
    return dataset.isel(draw=np.arange(kept_per_chain) * draws_per_chain // kept_per_chain)


def _choose_encodings(tree: xr.DataTree) -> dict[str, dict[str, dict[str, Any]]]:
    """Choose the encoding of every variable that holds draws: compressed, and in single precision where that is enough.

    The keys are paths of groups, as xarray wants them.
    """
    # Whole numbers keep their type: shuffled bytes of zeros take no room once they are compressed.
    return {
        f"/{group_name}": {
            str(variable_name): _choose_encoding(variable, is_log_density=group_name in LOG_DENSITY_GROUPS)
            for variable_name, variable in group.data_vars.items()
            if group_name not in DOUBLE_GROUPS
            if _holds_draws(variable) and variable.dtype.kind in "fiu"
        }
        for group_name, group in tree.children.items()
    }


def _choose_encoding(variable: xr.DataArray, *, is_log_density: bool) -> dict[str, Any]:
    if variable.dtype != np.float64 or variable.size == 0:
        return dict(COMPRESSION)
    # Infinities and NaN are the same in both precisions; ±max is what would become an infinity, and 0 < x < tiny a 0.
    magnitudes = np.abs(variable.values)
    finite_magnitudes = magnitudes[np.isfinite(magnitudes) & (magnitudes > 0)]
    single = np.finfo(np.float32)
    is_in_range = finite_magnitudes.size == 0 or (
        finite_magnitudes.max() < single.max and finite_magnitudes.min() > single.tiny
    )
    # A sum of n rounded terms is off by √n ε |x| / 2: of log densities that is absolute error in a weight.
    terms = variable.size / (variable.sizes["chain"] * variable.sizes["draw"])
    is_exact_enough = not is_log_density or (
        finite_magnitudes.size == 0 or terms**0.5 * finite_magnitudes.max() * single.eps / 2 < MAX_ROUNDING_ERROR
    )
    return COMPRESSION | ({"dtype": "float32"} if is_in_range and is_exact_enough else {})


def _holds_draws(variable: xr.DataArray) -> bool:
    return all(dim in variable.dims for dim in SAMPLE_DIMS)


def _restore_precision(dataset: xr.Dataset) -> xr.Dataset:
    """Restore the double precision of draws: sums over thousands of them need it."""
    # Nothing downstream knows where draws came from: seven digits must not spread into what is computed.
    single_draws = {
        name: values.astype(np.float64)
        for name, values in dataset.data_vars.items()
        if values.dtype == np.float32 and _holds_draws(values)
    }
    return dataset.assign(single_draws) if single_draws else dataset


def _choose_file_names(tree: xr.DataTree) -> dict[str, str]:
    """Choose name -> name in the file, for names that netCDF or HDF5 cannot hold."""
    all_names = {str(name) for group in tree.children.values() for name in (*group.variables, *group.to_dataset().dims)}
    taken_names, file_name_by_name = {name for name in all_names if _can_be_written(name)}, dict[str, str]()
    for name in sorted(all_names - taken_names):
        file_name = re.sub(r"\W", "_", name.removeprefix(NON_COORDINATE_PREFIX)) or "_"
        while file_name in taken_names:
            file_name += "_"
        taken_names.add(file_name)
        file_name_by_name[name] = file_name
    return file_name_by_name


def _can_be_written(name: str) -> bool:
    """Tell whether a file can hold a name."""
    # Space divides the names in a list of coordinates; "." is the group itself in HDF5.
    return name.split() == [name] and name != "." and not name.startswith(NON_COORDINATE_PREFIX)


def _rename_variables(tree: xr.DataTree, new_names: Mapping[str, str]) -> xr.DataTree:
    """Build a tree whose variables and dims have new names, as far as these are given."""
    groups = {}
    for group_name, group in tree.children.items():
        dataset = group.to_dataset(inherit=False)
        changed = {name: new_names[str(name)] for name in (*dataset.variables, *dataset.dims) if name in new_names}
        # Encodings of a file that was read name the coordinates of then.
        groups[group_name] = dataset.drop_encoding().rename(changed) if changed else dataset
    renamed_tree = xr.DataTree.from_dict(groups)
    renamed_tree.attrs = dict(tree.attrs)
    return renamed_tree
