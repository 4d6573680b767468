"""A DataTree as a netCDF file: what `DataTree.to_netcdf` writes through h5netcdf, in a seventh of the time.

h5netcdf looks up every dimension of every variable again and again: 0.4 s for a fit of thirty segments, more than the
fit itself. A netCDF-4 file is an HDF5 file whose dimensions are HDF5 dimension scales, and h5py writes those
directly. Reading is left to xarray and h5netcdf.

References
----------
https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import xarray as xr
from xarray.conventions import cf_encoder, encode_dataset_coordinates

_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable.{:10d}"
"""Name of a dimension without a coordinate; every netCDF library knows the sentence."""


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write the attributes of a tree and the groups right below its root."""
    numbers = count()
    with h5py.File(path, "w", track_order=True) as file:  # netCDF libraries ask for the order of creation
        file.attrs["_NCProperties"] = np.bytes_(f"version=2,h5py={h5py.__version__},hdf5={h5py.version.hdf5_version}")
        _describe(file, tree.attrs)
        for name, node in tree.children.items():
            _write_group(file.create_group(name, track_order=True), node.to_dataset(inherit=False), numbers)


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
