"""The registry of families: each is one file of one form, and nothing outside of it knows a family by its name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import example_geometric
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_models import free_point, run_shown_text
from paths import ROOT
from pytensor import config
from scipy import stats

import bayes_hte as hte
from bayes_hte.cells.simulation.outcomes.build import LAW_MAKERS
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.planned_effect import with_planned_effect
from bayes_hte.model.problem import build_problem
from bayes_hte.model.pymc.build import build_pymc_model
from bayes_hte.model.text import describe
from bayes_hte.spec.family_rules import FAMILY_RULES

PACKAGE = ROOT / "bayes_hte"
FAMILIES_FOLDER = PACKAGE / "model" / "families"
MODEL_FILE = """
family = "geometric"
pooling = "{pooling}"

[effect]
mean = {{ dist = "Normal", sigma = 0.5 }}
{between}

[baseline]
pooling = "{pooling}"
mean = {{ dist = "Normal", mu = 0.5, sigma = 1.0 }}
{between}
"""


# One form

# Functions in the order in which a family's file defines them; a family has those that it needs.
ORDER = [
    "select_statistics",
    "add_likelihood",
    "pack_arrays",
    "compute_log_density",
    "compute_derivatives",
    "guess_eta",
    "compute_nuisance_density",
    "guess_nuisance",
    "compute_log_likelihood",
    "simulate_data",
    "compute_mean",
    "compute_risk_by_time",
    "estimate_raw_effects",
    "compute_effect_variance",
    "compute_between_variance",
    "measure_control_outcome",
    "compute_control_mean",
    "convert_mean_to_link",
    "describe_nuisance_prior",
    "label_nuisance_dims",
]


def define_names(path: Path) -> list[str]:
    """Names of a module's functions in order."""
    return [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_defines_the_same_names_in_the_same_order(name: str) -> None:
    defined = [function for function in define_names(FAMILIES_FOLDER / f"{name}.py") if function in ORDER]
    assert defined == [function for function in ORDER if function in defined]
    assert {"select_statistics", "add_likelihood", "simulate_data", "estimate_raw_effects"} <= set(defined)


def test_rules_of_files_and_families_are_of_the_same_families() -> None:
    assert list(FAMILY_RULES) == list(FAMILIES)
    for name, family in FAMILIES.items():
        rules = FAMILY_RULES[name]
        assert family.name == name
        assert rules.nuisance_name == (family.nuisance.name if family.nuisance else None)
        assert rules.has_amount is bool(family.parts)
        assert rules.has_baseline_mean is (family.baseline_sentence is None)
        if family.cell_likelihood is not None:
            assert family.cell_likelihood.nuisance_name == rules.nuisance_name


# Nothing else knows a family by its name

# "normal", "mean" and "estimate" are also names of distributions and statistics.
TELLING_NAMES = set(FAMILIES) - {"normal", "mean", "estimate"}
# A kind of cells and a metric have the name of the family that they were made for.
KIND_AND_METRIC = {
    "spec/cell_table.py", "spec/data_forms.py", "cells/units/metrics.py", "cells/units/from_rows.py", "cells/build.py",
}  # fmt: skip


def find_family_names(path: Path) -> list[str]:
    """Strings of a module that are the name of a family, and imports of a family's file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and node.value in TELLING_NAMES:
            found.append(str(node.value))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bayes_hte.model.families"):
            found += TELLING_NAMES & {str(node.module).rsplit(".", 1)[-1], *(alias.name for alias in node.names)}
    return found


def test_no_other_module_names_a_family() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if path.parent != FAMILIES_FOLDER]
    found = {str(path.relative_to(PACKAGE)): names for path in others if (names := find_family_names(path))}
    # Simulated data are to judge likelihoods, and so share no code with them: outcomes have laws of their own there.
    found = {path: names for path, names in found.items() if not path.startswith("cells/simulation/")}
    assert found.keys() <= KIND_AND_METRIC | {"spec/family_rules.py"}


def test_every_family_can_be_simulated() -> None:
    assert set(LAW_MAKERS) == set(FAMILIES)


# A family of one value, which the package has never seen


@pytest.fixture
def _geometric(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    example_geometric.add_to_registry(monkeypatch)
    with config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.fixture
def refusals() -> xr.Dataset:
    """Sums of geometric counts of 200 to 600 units per cell."""
    rng = np.random.default_rng(3)
    n = rng.integers(200, 600, (5, 2))
    means = 1.6 * np.exp(np.array([0.0, 0.3]) + rng.normal(0, 0.1, (5, 2)))
    columns = {"plan": np.repeat(list("abcde"), 2), "arm": ["old", "new"] * 5, "units": n.ravel(),
               "refusals": rng.negative_binomial(n, 1 / (1 + means)).ravel()}  # fmt: skip
    return hte.cells.from_summary(
        pd.DataFrame(columns), segments=["plan"], arm="arm", control="old", events="refusals", exposure="units"
    )


def read_model(tmp_path: Path, pooling: str) -> hte.Model:
    """The model's file, read as any other."""
    path = tmp_path / f"{pooling}.toml"
    between = 'between = { dist = "HalfNormal", sigma = 0.3 }' if pooling == "partial" else ""
    path.write_text(MODEL_FILE.format(pooling=pooling, between=between))
    return hte.read_model(path)


@pytest.mark.usefixtures("_geometric")
def test_a_new_family_is_told_in_mathematics_sentences_and_pymc(tmp_path: Path, refusals: xr.Dataset) -> None:
    model = read_model(tmp_path, "partial")
    told = "\n".join([*describe.write_mathematics(model), *describe.describe_model(model)])
    for expected in (*example_geometric.FAMILY.formula_lines, example_geometric.FAMILY.outcome_sentence,
                     "Control's mean number of refusals"):  # fmt: skip
        assert expected in told
    task = build_problem(refusals, model)
    ours, shown = build_pymc_model(task), run_shown_text(task)
    point = free_point(ours, seed=1)
    assert ours.compile_logp()(point) == pytest.approx(float(shown.compile_logp()(point)), rel=1e-12)


@pytest.mark.usefixtures("_geometric")
def test_a_new_family_is_solved_by_the_exact_engine(tmp_path: Path, refusals: xr.Dataset) -> None:
    fit = hte.fit(refusals, read_model(tmp_path, "none"), sampler="exact", draws=8000, seed=2)
    table = fit.table(scale="link")
    eta = np.linspace(-3.0, 3.0, 1201)
    for s in range(5):
        # Two arms of one segment, without pooling: the posterior of (baseline, effect) on a grid.
        y, n = refusals["events"].values[s], refusals["exposure"].values[s]
        likelihood = stats.nbinom.logpmf(y[:, None], n[:, None], 1 / (1 + np.exp(eta)))
        log_density = likelihood[0][:, None] + likelihood[1][None, :] + stats.norm.logpdf(eta, 0.5, 1.0)[:, None]
        effect = eta[None, :] - eta[:, None]
        density = np.exp(log_density + stats.norm.logpdf(effect, 0, 0.5) - log_density.max())
        mean = (density * effect).sum() / density.sum()
        sd = np.sqrt((density * (effect - mean) ** 2).sum() / density.sum())
        # 8,000 nearly independent draws: 4.5 standard errors of a mean; the grid's error is below one of them.
        assert abs(table["effect"][s] - mean) < 4.5 * sd / np.sqrt(4000)


@pytest.mark.usefixtures("_geometric")
def test_a_new_family_has_tables_checks_and_a_report(tmp_path: Path, refusals: xr.Dataset) -> None:
    fit = hte.fit(refusals, read_model(tmp_path, "partial"), sampler="exact", draws=2000, seed=2)
    for scale in ("absolute", "relative", "link"):
        assert np.isfinite(fit.table(scale=scale)[["effect", "ci_low", "ci_high", "raw", "pooling"]]).all(axis=None)
    assert "refusals in all cells" in set(fit.predictive_checks()["check"])
    assert len(hte.loso(fit)) == 5
    page = fit.report(tmp_path / "report.html").read_text()
    assert example_geometric.FAMILY.outcome_sentence in page
    fit.save(tmp_path / "fit.nc")
    assert hte.load(tmp_path / "fit.nc").model.family == "geometric"


@pytest.mark.usefixtures("_geometric")
def test_a_planned_effect_is_put_on_the_link_of_a_new_family(tmp_path: Path, refusals: xr.Dataset) -> None:
    model = with_planned_effect(read_model(tmp_path, "partial"), refusals, 0.2, "absolute")
    control = refusals.isel(arm=0)
    mean = float(control["events"].sum() / control["exposure"].sum())
    assert model.model_dump()["effect"]["between"]["sigma"] == pytest.approx(np.log((mean + 0.2) / mean))


def test_a_family_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hte.ModelError, match=r"should be 'binomial', .* or 'piecewise_exponential', not"):
        read_model(tmp_path, "partial")
