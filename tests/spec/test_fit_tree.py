"""The tree of a fit is written and read in one place, and says what it lacks."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_posterior import example_fit, example_plan
from paths import ROOT

import bayes_hte as hte
from bayes_hte.spec import fit_tree
from bayes_hte.spec.fit_tree import FitRecord
from bayes_hte.spec.plan import Reporting

MODEL = hte.read_model("conversion")
COMPLETE = FitRecord(
    model=MODEL,
    seed=7,
    resolved_model=MODEL,
    plan=example_plan(),
    diagnosis={"ok": False, "problems": ["Too few."]},
    engine_name="nuts",
    engine_sentence="Sampled by NUTS on the PyMC model, as asked.",
    sampler="nuts (nutpie)",
    versions=("python 3.12", "numpy 2"),
    data_sha256="0" * 64,
    model_sha256="1" * 64,
    plan_sha256="2" * 64,
    higher_is_better=False,
    is_from_posterior=True,
)
KEYS = set(COMPLETE.encode())


def tree_of(record: FitRecord) -> xr.DataTree:
    return fit_tree.build_fit_tree({}, record)


def test_what_is_written_is_read_back() -> None:
    tree = tree_of(COMPLETE)
    assert fit_tree.get_fitted_model(tree) == fit_tree.get_resolved_model(tree) == MODEL
    assert fit_tree.get_seed(tree) == 7
    assert fit_tree.get_plan(tree) == COMPLETE.plan
    assert fit_tree.get_diagnosis_fields(tree) == COMPLETE.diagnosis
    assert not fit_tree.is_reliable(tree)
    assert fit_tree.get_engine_name(tree) == "nuts"
    assert fit_tree.describe_engine(tree) == COMPLETE.engine_sentence
    assert fit_tree.get_versions(tree) == ["python 3.12", "numpy 2"]
    assert fit_tree.get_file_hashes(tree) == {"data": "0" * 64, "model": "1" * 64, "plan": "2" * 64}
    assert not fit_tree.is_higher_better(tree)
    assert fit_tree.is_from_posterior(tree)
    assert json.loads(json.dumps(fit_tree.collect_provenance(tree)))["versions"] == ["python 3.12", "numpy 2"]


def test_what_is_not_known_is_left_out() -> None:
    tree = tree_of(FitRecord(model=MODEL, seed=1))
    assert set(tree.attrs) == {"model", "seed"}
    assert fit_tree.get_plan(tree) is None
    assert not fit_tree.is_reliable(tree)
    assert fit_tree.is_higher_better(tree)
    assert not fit_tree.is_from_posterior(tree)
    assert fit_tree.get_file_hashes(tree) == {}


@pytest.mark.parametrize("stated", [True, False, None])
def test_a_direction_that_was_not_stated_is_told_from_one_that_was(stated: bool | None) -> None:
    tree = tree_of(FitRecord(model=MODEL, seed=1, higher_is_better=stated))
    assert fit_tree.get_stated_direction(tree) is stated
    assert fit_tree.is_higher_better(tree) is (stated is not False)


def test_the_plan_s_direction_goes_before_the_caller_s() -> None:
    plan = COMPLETE.plan.model_copy(update={"report": Reporting(higher_is_better=True)})
    assert fit_tree.get_stated_direction(tree_of(replace(COMPLETE, plan=plan, higher_is_better=False))) is True


@pytest.mark.parametrize(("sampler", "name"), [("exact", "exact"), ("nuts (nutpie)", "nuts"), ("own", "own")])
def test_fits_of_before_name_their_engine_by_the_sampler(sampler: str, name: str) -> None:
    assert fit_tree.get_engine_name(tree_of(replace(COMPLETE, engine_name=None, sampler=sampler))) == name


def test_further_groups_leave_the_tree_as_it_was() -> None:
    tree = example_fit(2).tree
    larger = fit_tree.add_groups(tree, {"prior": xr.Dataset({"effect": ("draw", [1.0])})})
    assert set(larger.children) - set(tree.children) == {"prior"}
    assert larger.attrs == tree.attrs
    larger.attrs["seed"] = -1
    assert fit_tree.get_seed(tree) != -1


def test_every_group_is_computed_without_touching_the_fit() -> None:
    fit = example_fit(2)
    groups = set(fit.tree.children)
    assert groups < set(fit.posterior.children)
    assert set(fit.tree.children) == groups


def test_a_complete_tree_passes() -> None:
    fit_tree.check_fit_tree(example_fit(3, plan=example_plan()).tree)
    fit_tree.check_fit_tree(example_fit(3, family="estimate").posterior)


@pytest.mark.parametrize("group", fit_tree.REQUIRED_GROUPS)
def test_a_missing_group_is_named(group: str) -> None:
    tree = example_fit(2).tree
    del tree[group]
    with pytest.raises(hte.DataError, match=f"my.nc is damaged: it lacks {group}; save the fit again"):
        fit_tree.check_fit_tree(tree, "my.nc")


@pytest.mark.parametrize("attribute", fit_tree.REQUIRED_ATTRIBUTES)
def test_a_missing_attribute_is_named(attribute: str) -> None:
    tree = example_fit(2).tree
    del tree.attrs[attribute]
    with pytest.raises(hte.DataError, match=f"it lacks {attribute}"):
        fit_tree.check_fit_tree(tree)


def test_effects_without_the_dims_of_effects_are_refused() -> None:
    tree = example_fit(2).tree
    posterior = tree["posterior"].to_dataset()
    tree["posterior"] = xr.DataTree(posterior.assign(effect=posterior["effect"].isel(arm=0, drop=True)))
    with pytest.raises(hte.DataError, match=r"effect has dims \['chain', 'draw', 'segment'\], not"):
        fit_tree.check_fit_tree(tree)


def test_cells_that_break_their_contract_are_refused() -> None:
    tree = example_fit(2).tree
    cells = tree["cells"].to_dataset()
    tree["cells"] = xr.DataTree(cells.assign(n=cells["n"] * np.nan))
    with pytest.raises(hte.DataError, match="the tree is damaged: "):
        fit_tree.check_fit_tree(tree)


@pytest.mark.parametrize("attribute", ["model", "resolved_model", "plan"])
@pytest.mark.parametrize(
    ("change", "said"), [({"titel": ""}, "unknown key 'titel'; did you mean 'title'?"), (None, "Invalid JSON")]
)
def test_a_model_or_plan_that_breaks_its_schema_is_told_in_words(
    attribute: str, change: dict[str, str] | None, said: str
) -> None:
    tree = example_fit(2, plan=example_plan()).tree
    content = json.loads(tree.attrs.get(attribute, tree.attrs["model"]))
    tree.attrs[attribute] = "{" if change is None else json.dumps(content | change)
    kind = "Plan" if attribute == "plan" else "Model"
    with pytest.raises(hte.DataError, match=f"^my.nc is damaged: {kind}: {re.escape(said)}"):
        fit_tree.check_fit_tree(tree, "my.nc")


def attribute_keys(code: str) -> set[str]:
    """Texts that index, search or update something called attrs."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Subscript(value=ast.Attribute(attr="attrs"), slice=ast.Constant(value=str(key))):
                found.add(key)
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr="attrs")), args=[ast.Constant(value=str(key)), *_]
            ):
                found.add(key)
            case ast.Compare(left=ast.Constant(value=str(key)), comparators=[ast.Attribute(attr="attrs"), *_]):
                found.add(key)
            case (
                ast.AugAssign(target=ast.Attribute(attr="attrs"), value=ast.Dict(keys=keys))
                | ast.Assign(targets=[ast.Attribute(attr="attrs")], value=ast.Dict(keys=keys))
            ):
                found |= {key.value for key in keys if isinstance(key, ast.Constant)}
    return found


@pytest.mark.parametrize(
    "code", ['t.attrs["seed"]', 't.attrs.get("seed", 1)', '"seed" in t.attrs', 't.attrs |= {"seed": 1}',
             't.tree.attrs = {"seed": 1}', 'del t.attrs["seed"]']
)  # fmt: skip
def test_the_search_for_keys_finds_them(code: str) -> None:
    assert attribute_keys(code) == {"seed"}


@pytest.mark.parametrize("path", sorted((ROOT / "bayes_hte").rglob("*.py")), ids=lambda path: path.stem)
def test_no_other_module_knows_a_key_of_the_trees_attributes(path: Path) -> None:
    if path.name != "fit_tree.py":
        assert not attribute_keys(path.read_text(encoding="utf-8")) & KEYS
