"""A DataTree as a netCDF file: what `DataTree.to_netcdf` writes through h5netcdf, in a seventh of the time.

h5netcdf looks up every dimension of every variable again and again: 0.4 s for a fit of thirty segments, more than the
fit itself. A netCDF-4 file is an HDF5 file whose dimensions are HDF5 dimension scales, and h5py writes those
directly. Reading is left to xarray and h5netcdf.

A variable may be called "customer type" here, which the attribute that netCDF lists coordinates in cannot say: such a
name is written as customer_type, and what it stands for as an attribute of the file.

References
----------
https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import xarray as xr
from xarray.conventions import cf_encoder, encode_dataset_coordinates

_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable.{:10d}"
"""Name of a dimension without a coordinate; every netCDF library knows the sentence."""
_NOT_A_COORDINATE = "_nc4_non_coord_"
"""How netCDF marks a variable that is named like a dimension; taken away by whoever reads it."""
_NAMES = "names"
"""Attribute of the file, as JSON: name in the file -> name in the tree, where they differ."""


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write the attributes of a tree and the groups right below its root."""
    numbers, written = count(), _written_names(tree)
    with h5py.File(path, "w", track_order=True) as file:  # netCDF libraries ask for the order of creation
        file.attrs["_NCProperties"] = np.bytes_(f"version=2,h5py={h5py.__version__},hdf5={h5py.version.hdf5_version}")
        _describe(file, tree.attrs)
        if written:
            file.attrs[_NAMES] = json.dumps({name: own for own, name in written.items()}, ensure_ascii=False)
        for name, node in tree.children.items():
            dataset = _renamed(node.to_dataset(inherit=False), written)
            _write_group(file.create_group(name, track_order=True), dataset, numbers)


def read_tree(path: Path) -> xr.DataTree:
    """Read what `write_tree` wrote; a file of anyone else comes back as xarray reads it.

    Raises
    ------
    OSError, ValueError, KeyError
        If this is no such file.
    """
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        tree = opened.load()
    own = json.loads(tree.attrs.pop(_NAMES, "{}"))
    if not own:
        return tree
    groups = {name: _renamed(node.to_dataset(inherit=False), own) for name, node in tree.children.items()}
    read = xr.DataTree.from_dict(groups)
    read.attrs = tree.attrs
    return read


def _written_names(tree: xr.DataTree) -> dict[str, str]:
    """Name -> its name in the file, for names that netCDF or HDF5 cannot hold."""
    names = {str(name) for node in tree.children.values() for name in _names_in(node.to_dataset(inherit=False))}
    taken, written = {name for name in names if _can_be_written(name)}, dict[str, str]()
    for name in sorted(names - taken):
        free = re.sub(r"\W", "_", name.removeprefix(_NOT_A_COORDINATE)) or "_"
        while free in taken:
            free += "_"
        taken.add(free)
        written[name] = free
    return written


def _can_be_written(name: str) -> bool:
    """Space divides the names in a list of coordinates; "." is the group itself in HDF5."""
    return name.split() == [name] and name != "." and not name.startswith(_NOT_A_COORDINATE)


def _renamed(dataset: xr.Dataset, names: Mapping[str, str]) -> xr.Dataset:
    found = {name: names[name] for name in map(str, _names_in(dataset)) if name in names}
    return dataset.drop_encoding().rename(found) if found else dataset


def _names_in(dataset: xr.Dataset) -> Iterable[Any]:
    return dict.fromkeys((*dataset.variables, *dataset.dims))


def _write_group(group: Any, dataset: xr.Dataset, numbers: Iterator[int]) -> None:
    """One Dataset; `numbers` are those of dimensions, unique in the file."""
    variables, attributes = cf_encoder(*encode_dataset_coordinates(dataset))
    _describe(group, attributes)
    stored = {str(name): _store(group, str(name), variable) for name, variable in variables.items()}
    scales = {}
    for dim, size in dataset.sizes.items():
        named = dim in variables
        scale = stored[str(dim)] if named else group.create_dataset(str(dim), shape=(size,), dtype=">f4")
        scale.make_scale(str(dim) if named else _NO_VARIABLE.format(size))
        scale.attrs["_Netcdf4Dimid"] = np.int32(next(numbers))
        scales[dim] = scale
    for name, variable in variables.items():
        if name not in scales:
            for axis, dim in enumerate(variable.dims):
                stored[str(name)].dims[axis].attach_scale(scales[dim])


def _store(group: Any, name: str, variable: xr.Variable) -> Any:
    values, attributes = np.asarray(variable.data), dict(variable.attrs)
    text = values.dtype.kind in "UO"
    dtype = h5py.string_dtype() if text else values.dtype
    stored = group.create_dataset(name, data=values.astype(object) if text else values, dtype=dtype, track_order=True)
    if "_FillValue" in attributes:  # must be of the variable's own type
        attributes["_FillValue"] = np.array([attributes["_FillValue"]], dtype=values.dtype)
    _describe(stored, attributes)
    return stored


def _describe(place: Any, attributes: Mapping[Any, Any]) -> None:
    """Attributes: text as it is, lists of texts (ArviZ names the dims of draws so) and numbers as arrays."""
    for name, value in attributes.items():
        values = np.atleast_1d(value)
        if isinstance(value, str):
            place.attrs[str(name)] = value
        elif values.dtype.kind in "UO":
            place.attrs.create(str(name), values.astype(object), dtype=h5py.string_dtype())
        else:
            place.attrs[str(name)] = values
