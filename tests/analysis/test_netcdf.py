"""A file holds the tree as it was, whatever its names and texts, and files of before are read as they were."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_posterior import example_fit, example_plan
from paths import ROOT

import bayes_hte as hte
from bayes_hte.analysis.netcdf import read_tree, write_tree
from bayes_hte.spec.cell_table import list_dimensions
from bayes_hte.spec.fit_tree import get_engine_name
from bayes_hte.spec.model import FamilyName

HOSTILE = ["<b>é</b>", "two\nlines", "=1+1"]


def read_by_xarray(path: Path) -> xr.DataTree:
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        return opened.load()


@pytest.mark.parametrize("family", ["binomial", "normal", "mean", "estimate"])
def test_every_group_comes_back_with_its_texts_order_and_types(tmp_path: Path, family: FamilyName) -> None:
    tree = example_fit(HOSTILE, family, arms=("a", "b", "c"), plan=example_plan()).posterior
    write_tree(tree, tmp_path / "fit.nc")
    loaded = read_tree(tmp_path / "fit.nc")
    assert loaded.identical(tree)
    assert loaded.identical(read_by_xarray(tmp_path / "fit.nc"))
    for before, after in zip(tree.subtree, loaded.subtree, strict=True):
        assert list(before.variables) == list(after.variables)
        assert [values.dtype.kind for values in before.data_vars.values()] == [
            values.dtype.kind for values in after.data_vars.values()
        ]


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
                attrs={"control": "", "n": 2, "dims": ["segment", "arm"]},
            ),
            "b": xr.Dataset(),
        }
    )
    tree.attrs = {"seed": 1, "long": "x" * 100_000}
    write_tree(tree, tmp_path / "tree.nc")
    loaded = read_tree(tmp_path / "tree.nc")
    assert list(loaded["a"].attrs.pop("dims")) == tree["a"].attrs.pop("dims")
    assert loaded.identical(tree)


@pytest.mark.parametrize("name", ["customer type", ".", "_nc4_non_coord_x", "a\tb"])
def test_names_that_netcdf_cannot_hold_come_back(tmp_path: Path, name: str) -> None:
    tree = xr.DataTree.from_dict({"g": xr.Dataset({"x": (name, [1.0, 2.0])}, coords={name: ["p", "q"]})})
    write_tree(tree, tmp_path / "tree.nc")
    assert read_tree(tmp_path / "tree.nc").identical(tree)
    assert set(tree.attrs) == set()


def test_the_same_tree_makes_the_same_bytes(tmp_path: Path) -> None:
    fit = example_fit(3)
    for name in ("one.nc", "two.nc"):
        write_tree(fit.posterior, tmp_path / name)
    assert (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()


def test_a_file_of_before_is_read() -> None:
    """Written through h5py by the version before engines were named: no engine_name, a dimension with a space."""
    fit = hte.load(ROOT / "tests" / "reference" / "fit_of_before.nc")
    assert list_dimensions(fit.cells) == ["customer type"]
    assert fit.table("link")["customer type"].tolist() == ["phone", "two words"]
    assert fit.engine == "Drawn by nuts (nutpie)."
    assert get_engine_name(fit.tree) == "nuts"
    assert fit.diagnosis.ok
