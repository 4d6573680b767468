"""Write a DataTree as a netCDF file and read it back, by xarray and h5netcdf.

A variable may be called "customer type" here, which the attribute that netCDF lists coordinates in cannot say: such a
name is written as customer_type, and what it stands for as an attribute of the file.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import xarray as xr

NAMES_ATTRIBUTE: Final = "names"
"""Attribute of the file, as JSON: name in the file -> name in the tree, where they differ."""
NON_COORDINATE_PREFIX: Final = "_nc4_non_coord_"
"""How netCDF marks a variable that is named like a dimension; taken away by whoever reads it."""


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write the attributes of a tree and the groups right below its root."""
    file_name_by_name = _choose_file_names(tree)
    file_tree = _rename_variables(tree, file_name_by_name)
    if file_name_by_name:
        name_by_file_name = {file_name: name for name, file_name in file_name_by_name.items()}
        file_tree.attrs[NAMES_ATTRIBUTE] = json.dumps(name_by_file_name, ensure_ascii=False)
    file_tree.to_netcdf(path, engine="h5netcdf")


def read_tree(path: Path) -> xr.DataTree:
    """Read what `write_tree` wrote; a file of anyone else comes back as xarray reads it.

    Raises
    ------
    OSError, ValueError, KeyError
        If this is no such file.
    """
    with xr.open_datatree(path, engine="h5netcdf") as opened_tree:
        file_tree = opened_tree.load()
    name_by_file_name = json.loads(file_tree.attrs.pop(NAMES_ATTRIBUTE, "{}"))
    return _rename_variables(file_tree, name_by_file_name) if name_by_file_name else file_tree


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
