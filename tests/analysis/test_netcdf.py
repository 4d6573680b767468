"""A file is what xarray itself would have written, for whoever reads it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_posterior import example_fit, example_plan

from bayes_hte.analysis.netcdf import write_tree
from bayes_hte.spec.family_rules import FamilyName

HOSTILE = ["<b>é</b>", "two\nlines", "=1+1"]


def read(path: Path) -> xr.DataTree:
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        return opened.load()


def same(ours: xr.Variable, theirs: xr.Variable) -> bool:
    """More than `identical` asks for: types of values and attributes, and how both are stored."""
    stored = [
        {key: str(variable.encoding.get(key)) for key in ("dtype", "_FillValue", "coordinates")}
        for variable in (ours, theirs)
    ]
    kinds = [{key: type(value) for key, value in variable.attrs.items()} for variable in (ours, theirs)]
    return ours.identical(theirs) and ours.dtype == theirs.dtype and stored[0] == stored[1] and kinds[0] == kinds[1]


@pytest.mark.parametrize("family", ["binomial", "normal", "mean", "estimate"])
def test_every_group_is_read_as_if_xarray_had_written_it(tmp_path: Path, family: FamilyName) -> None:
    fit = example_fit(HOSTILE, family, arms=("a", "b", "c"), plan=example_plan())
    write_tree(fit.posterior, tmp_path / "ours.nc")
    fit.posterior.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    ours, theirs = read(tmp_path / "ours.nc"), read(tmp_path / "theirs.nc")
    assert ours.identical(theirs)
    for one, other in zip(ours.subtree, theirs.subtree, strict=True):
        assert list(one.variables) == list(other.variables)
        assert all(same(one.variables[name], other.variables[name]) for name in one.variables)


def test_dimensions_without_coordinates_numbers_flags_and_gaps_are_kept(tmp_path: Path) -> None:
    tree = xr.DataTree.from_dict(
        {
            "a": xr.Dataset(
                {
                    "flag": (("chain", "draw"), np.array([[True, False, True]] * 2)),
                    "value": (("draw",), [1.0, np.nan, np.inf], {"unit": "€", "size": 3, "share": 0.5}),
                    "whole": ((), 7),
                    "word": (("draw",), np.array(["", "é", "x"])),
                },
                coords={"chain": [0, 1], "level": ("chain", ["x", "y"])},
                attrs={"control": "", "n": 2},
            ),
            "b": xr.Dataset(),
        }
    )
    tree.attrs = {"seed": 1, "long": "x" * 100_000}
    write_tree(tree, tmp_path / "ours.nc")
    tree.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    ours = read(tmp_path / "ours.nc")
    assert ours.identical(read(tmp_path / "theirs.nc"))
    assert ours.identical(tree)


def test_the_same_tree_makes_the_same_bytes(tmp_path: Path) -> None:
    fit = example_fit(3)
    for name in ("one.nc", "two.nc"):
        write_tree(fit.posterior, tmp_path / name)
    assert (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()
