"""What dimensions may be called: any name is kept in a file, and one that a model needs itself is refused."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from saved_draws import round_draws

import bayes_hte as hte
from bayes_hte import DataError, ModelError
from bayes_hte.model.name_clashes import _list_own_variables, _list_term_variables
from bayes_hte.model.parameters import collect_variable_dims
from bayes_hte.model.problem import build_problem
from bayes_hte.model.pymc.build import build_pymc_model
from bayes_hte.spec import cell_table
from bayes_hte.spec.model import Model

STRANGE = [
    "customer type",
    " ",
    "\n",
    "ss ",
    ".",
    "..",
    "a\tb",
    "ü",
    "y",
    "coordinates",
    "_nc4_non_coord_x",
    "baseline",
]
NORMAL = {"dist": "Normal", "sigma": 1.0}
HALF = {"dist": "HalfNormal", "sigma": 1.0}


def counts(*dimensions: str) -> xr.Dataset:
    """Three levels of the first dimension, two of the second."""
    draw = np.random.default_rng(1)
    levels = list(itertools.product(*[["x", "y", "z"], ["u", "v"]][: len(dimensions)], ["old", "new"]))
    table = pd.DataFrame(levels, columns=[*dimensions, "arm"])
    table = table.assign(n=draw.integers(80, 200, len(table)), events=draw.integers(10, 40, len(table)))
    return hte.cells.from_summary(table, arm="arm", control="old", segments=list(dimensions), n="n", events="events")


def by_dimension(*by: str, **effect: object) -> Model:
    pool = {"mean": NORMAL, "between": HALF}
    return Model.model_validate({"family": "binomial", "effect": {**pool, "by": by} | effect, "baseline": pool})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", STRANGE)
def test_a_dimension_of_any_name_is_the_same_after_saving(name: str, tmp_path: Path) -> None:
    fit = hte.fit(counts(name, "a b"), "conversion", draws=400)
    loaded = hte.load(fit.save(tmp_path / "fit.nc"))
    assert loaded.tree.identical(round_draws(fit.posterior))
    assert list(loaded.table().columns) == list(fit.table().columns)
    again = hte.load(loaded.save(tmp_path / "again.nc"))
    assert again.tree.identical(loaded.tree)


def test_other_readers_find_such_a_dimension_among_the_coordinates(tmp_path: Path) -> None:
    path = hte.fit(counts("customer type", "customer_type"), "conversion", draws=400).save(tmp_path / "fit.nc")
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        assert {"customer_type", "customer_type_"} <= set(opened["cells"].coords)
        assert opened.attrs["names"] == '{"customer_type_": "customer type"}'


def test_a_slash_in_the_name_of_a_dimension_is_refused_at_once() -> None:
    with pytest.raises(DataError, match="rename the column"):
        counts("a/b")


@pytest.mark.parametrize(("bad", "found"), [("a\0b", "NUL"), ("\ud800", "surrogate")])
def test_text_that_no_file_can_hold_is_refused_when_cells_are_made(bad: str, found: str) -> None:
    cells = counts("device")
    table = pd.DataFrame({"device": pd.Series(["tv", bad] * 2, dtype=object), "arm": ["old", "old", "new", "new"]})
    table = table.assign(n=10, events=[1, 2, 3, 4])
    keys = {"arm": "arm", "control": "old", "segments": ["device"], "n": "n", "events": "events"}
    with pytest.raises(DataError, match=rf"label of 'device'.*{found}.*; remove it"):
        hte.cells.from_summary(table, **keys)
    with pytest.raises(DataError, match=rf"the outcome .*{found}"):
        hte.fit(cells.assign_attrs(outcome=bad), "conversion")
    try:
        relabelled = cells.assign_coords(arm=["old", bad])
    except UnicodeEncodeError:
        pytest.skip("this version of xarray refuses such labels itself")
    with pytest.raises(DataError, match=rf"label of 'arm'.*{found}"):
        hte.fit(relabelled, "conversion")
    with pytest.raises(DataError, match=rf"the dimension .*{found}"):
        hte.fit(
            cells.assign_coords({bad: cells["device"]}).assign_attrs(dimensions=cell_table.encode_text_list([bad])),
            "conversion",
        )


def test_half_a_character_in_rows_is_refused() -> None:
    levels = pd.Series(["tv", "\ud800"] * 10, dtype=object)
    rows = pd.DataFrame({"device": levels, "arm": ["old", "old", "new", "new"] * 5, "spent": range(20)})
    with pytest.raises(DataError, match=r"holds '\\ud800', half of a character .*; remove it"):
        hte.cells.from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"])


@pytest.mark.parametrize(
    ("dimensions", "named"),
    [
        (["baseline", "q"], "'baseline'"),
        (["effect_mean", "q"], "'effect_mean'"),
        (["between", "q"], "'effect_between'"),
        (["offset", "q"], "'effect_offset'"),
        (["device", "device_offset"], "'effect_device_offset', which the dimension 'device' leads to"),
        (["a", "a_between"], "'effect_a_between'"),
        (["later_interval", "q"], "'later_interval'"),
        (["unconstrained_parameter", "q"], "'unconstrained_parameter'"),
        (["x", "x_between_log__"], "'x_between_log__'"),
        (["a:b", "q"], "'a:b'"),
    ],
)
def test_a_dimension_that_leads_to_a_name_twice_is_refused_by_models_that_name_it(
    dimensions: Sequence[str], named: str
) -> None:
    cells = counts(*dimensions)
    for by in (["*"], dimensions):
        with pytest.raises(ModelError, match=f"{named}.*; rename the column"):
            build_problem(cells, by_dimension(*by))
    assert build_problem(cells, by_dimension()).coords["arm"] == ["new"]


def test_a_term_of_two_dimensions_and_a_dimension_do_not_share_a_name() -> None:
    with pytest.raises(ModelError, match="'a_b' leads to the name 'effect_a_b', which the dimension 'a:b'"):
        build_problem(counts("a", "b").assign_coords(a_b=("segment", list("uvwxyz"))).assign_attrs(
            dimensions='["a", "b", "a_b"]'), by_dimension("a:b", "a_b"))  # fmt: skip


def test_a_stratum_named_like_a_variable_is_refused() -> None:
    with pytest.raises(ModelError, match="'baseline'"):
        build_problem(counts("baseline", "q"), by_dimension(strata="baseline"))


@pytest.mark.parametrize(
    "changes",
    [{}, {"strata": "device"}, {"shape": "horseshoe", "slab": 1.0}, {"correlation": {"dist": "LKJ", "eta": 2.0}},
     {"by": ["device", "plan", "device:plan"]}, {"by": ["*"], "shape": "student_t"}],
)  # fmt: skip
@pytest.mark.parametrize("reusable", [False, True])
def test_every_variable_that_pymc_makes_is_among_the_names_that_are_compared(
    changes: dict[str, object], reusable: bool
) -> None:
    task = build_problem(counts("device", "plan"), by_dimension(**changes))
    known = {name for _, name in _list_term_variables(task.model)}
    known |= _list_own_variables(task.model, task.family.simulated_names)
    made = {
        name for name in build_pymc_model(task, reusable=reusable).named_vars if not name.endswith(("__", "__data"))
    }
    assert made <= known
    assert set(collect_variable_dims(task.model)) <= known


def test_dimensions_named_like_parameters_of_other_families_are_no_parameters(tmp_path: Path) -> None:
    fit = hte.fit(counts("eta", "alpha"), by_dimension("*"), draws=400, seed=1)
    fit.report(tmp_path / "report.html")
    assert "alpha" in set(fit.variance_shares()["source"])
    assert hte.load(fit.save(tmp_path / "fit.nc")).posterior.identical(round_draws(fit.posterior))
