"""A file holds the tree as it was, whatever its names and texts, and files of before are read as they were."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import example_fit, example_plan
from paths import ROOT
from saved_draws import round_draws

import bayes_hte as hte
from bayes_hte.analysis.netcdf import read_tree, thin_draws, write_tree
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
    assert loaded.identical(round_draws(tree))
    assert round_draws(read_by_xarray(tmp_path / "fit.nc")).equals(loaded)
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


def test_draws_are_written_in_single_precision_and_compressed_and_signs_and_diagnosis_as_they_are(
    tmp_path: Path,
) -> None:
    fit = hte.fit(example_fit(5).cells, "conversion", draws=800)
    path = fit.save(tmp_path / "fit.nc")
    written, again = read_by_xarray(path), hte.load(path)
    for name in ("effect", "baseline", "effect_between"):
        assert written["posterior"][name].dtype == np.float32
        assert written["posterior"][name].encoding["zlib"]
        assert again.tree["posterior"][name].dtype == np.float64
    assert again.tree["sign"].to_dataset().equals(fit.tree["sign"].to_dataset())
    assert again.tree.attrs == fit.tree.attrs
    # Rounding is off by 2⁻²⁴ at most; a difference of two means loses as many digits as they share.
    for scale in ("absolute", "relative", "link"):
        pd.testing.assert_frame_equal(again.table(scale, detail=True), fit.table(scale, detail=True), rtol=1e-5)
    assert again.table()["p_positive"].equals(fit.table()["p_positive"])


@pytest.mark.parametrize("number", [1e60, 1e-60])
def test_draws_beyond_single_precision_stay_double(tmp_path: Path, number: float) -> None:
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"x": (("chain", "draw"), np.full((1, 4), number))})})
    write_tree(tree, tmp_path / "tree.nc")
    assert read_tree(tmp_path / "tree.nc").identical(tree)


def test_log_densities_whose_sum_would_be_rounded_stay_double(tmp_path: Path) -> None:
    small, large = (
        xr.Dataset({"y": (("chain", "draw", "cell"), np.full((1, 4, 3), value))}) for value in (-3.1, -1e6 / 3)
    )
    for dataset, dtype in ((small, np.float32), (large, np.float64)):
        write_tree(xr.DataTree.from_dict({"log_likelihood": dataset}), tmp_path / "tree.nc")
        assert read_by_xarray(tmp_path / "tree.nc")["log_likelihood"]["y"].dtype == dtype


def test_a_file_of_many_segments_takes_less_than_half_of_its_numbers_in_double_precision(tmp_path: Path) -> None:
    tree = example_fit(300).posterior
    write_tree(tree, tmp_path / "fit.nc")
    assert (tmp_path / "fit.nc").stat().st_size < 0.5 * sum(
        values.nbytes for group in tree.children.values() for values in group.data_vars.values()
    )


def test_thinned_draws_are_evenly_spaced_and_belong_together_in_every_group(tmp_path: Path) -> None:
    fit = example_fit(3)
    chain_count, draw_count = (fit.tree["posterior"].sizes[dim] for dim in ("chain", "draw"))
    loaded = hte.load(fit.save(tmp_path / "fit.nc", draws=chain_count * 10))
    kept = loaded.posterior["posterior"]["draw"].values
    assert kept.tolist() == [position * draw_count // 10 for position in range(10)]
    assert loaded.posterior["log_likelihood"]["draw"].values.tolist() == kept.tolist()
    assert set(loaded.posterior.children) == set(fit.posterior.children)
    assert all(group.sizes.get("draw", 0) <= chain_count * 10 for group in loaded.posterior.children.values())
    assert loaded.tree.attrs == fit.tree.attrs
    assert loaded.tree["sign"].to_dataset().equals(fit.tree["sign"].to_dataset()) if "sign" in fit.tree else True


def test_a_thinned_fit_answers_everything(tmp_path: Path) -> None:
    fit = hte.fit(example_fit(3).cells, "conversion", draws=2000)
    loaded = hte.load(fit.save(tmp_path / "fit.nc", draws=400))
    # Half the width of the interval of 100 draws in each of four chains is off by 15 % at five standard errors.
    assert loaded.table()["sd"].to_numpy() == pytest.approx(fit.table()["sd"].to_numpy(), rel=0.2)
    assert loaded.table()["p_positive"].equals(fit.table()["p_positive"])
    loaded.report(tmp_path / "report.html")


def test_more_draws_than_there_are_keep_all() -> None:
    tree = example_fit(2).tree
    assert thin_draws(tree, 10**9).identical(tree)


@pytest.mark.parametrize("draws", [0, 1, 2.5, "many", True])
def test_a_number_of_draws_that_makes_no_sense_is_refused(draws: object, tmp_path: Path) -> None:
    with pytest.raises(hte.ArgumentError, match="draws is how many to keep of all chains together"):
        example_fit(2).save(tmp_path / "fit.nc", draws=draws)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
