"""What the package offers: exactly these names, all explained, and light to import."""

import inspect
import subprocess
import sys
from typing import Any

import pytest

import bayes_hte as hte
from bayes_hte import cells

HEAVY = {"arviz", "duckdb", "matplotlib", "narwhals", "numpy", "pandas", "pydantic", "pymc", "scipy", "xarray"}

PUBLIC = [
    "Analysis", "ArgumentError", "DataError", "Fit", "FitError", "Fits", "HteError", "Model", "ModelError",
    "OutputError", "Plan", "PlanError", "Rule", "Simulation", "SpecError", "cells", "check", "combine",
    "compare", "example_cells", "example_fit", "fit", "fit_many", "fit_table", "from_posterior", "learn_prior", "load",
    "loso", "plot_prior", "prior_from_fit", "prior_predictive", "prior_sweep", "read_model", "read_plan", "register",
    "run", "simulate",
]  # fmt: skip
FUNCTIONS: list[Any] = [
    hte.combine,
    hte.compare, hte.fit, hte.fit_many, hte.fit_table, hte.from_posterior, hte.learn_prior, hte.load, hte.loso,
    hte.plot_prior, hte.prior_from_fit, hte.prior_predictive, hte.prior_sweep, hte.read_model, hte.read_plan,
    hte.register, hte.run, hte.simulate,
    cells.check, cells.from_estimates, cells.from_levels, cells.from_rows, cells.from_rows_many, cells.from_summary,
    cells.from_times, cells.from_table, cells.from_wide, cells.merge, cells.protect, cells.sample_ratio, cells.split,
    cells.with_covariates, cells.with_shares,
]  # fmt: skip
METHODS = [
    "ate", "best_arm", "compare_tests", "contrasts", "decide", "draws", "effects", "given_tau", "heterogeneity",
    "marginal", "multiplicity", "next_test",
    "plot_forest", "plot_policy", "plot_prior", "plot_shrinkage", "plot_tau_trace",
    "policy", "policy_curve", "predict_new_segment", "predictive_checks", "pymc_model", "question", "ranks",
    "replication", "report", "save", "sensitivity", "survival", "table", "variance_shares",
]  # fmt: skip
PROPERTIES = ["cells", "diagnosis", "engine", "fits", "model", "plan", "posterior", "registered", "tree"]


def test_the_public_names_are_exactly_these() -> None:
    assert hte.__all__ == PUBLIC
    assert sorted(cells.__all__) == [
        "DataSource", "Histogram", "Mean", "Rate", "Ratio", "TwoPart",
        "check", "from_estimates", "from_levels", "from_rows", "from_rows_many", "from_summary", "from_table",
        "from_times", "from_wide", "merge", "protect", "sample_ratio", "split", "with_covariates", "with_shares",
    ]  # fmt: skip
    assert dir(hte) == sorted([*PUBLIC, "__version__"])


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_explained(name: str) -> None:
    assert inspect.getdoc(getattr(hte, name))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'bayes_hte' has no attribute 'fitt'"):
        hte.fitt  # noqa: B018


@pytest.mark.parametrize("function", [hte.example_cells, hte.example_fit])
def test_the_examples_say_what_they_give_and_show_it(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    assert "Returns\n-------" in text
    assert "Examples\n--------\n>>> " in text


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_every_public_function_says_what_it_takes_gives_and_raises(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    asked = list(inspect.signature(function).parameters)
    sections = ["Returns", "Raises"] if not asked else ["Parameters", "Returns", "Raises"]
    missing = [section for section in sections if f"{section}\n{'-' * len(section)}" not in text]
    assert not missing, f"{function.__qualname__} lacks {missing}"
    parameters = text.split("Parameters\n---")[1].split("Returns\n---")[0]
    assert all(name in parameters for name in asked)


def test_a_fit_has_exactly_these_methods_and_properties_all_explained() -> None:
    members = {name: value for name, value in vars(hte.Fit).items() if not name.startswith("_")}
    assert sorted(members) == sorted([*METHODS, *PROPERTIES])
    assert all(inspect.getdoc(value) for value in members.values())


@pytest.mark.parametrize("name", ["table", "ate", "heterogeneity", "contrasts", "predict_new_segment"])
def test_every_table_says_its_columns(name: str) -> None:
    text = inspect.getdoc(getattr(hte.Fit, name)) or ""
    assert "Returns\n-------\npandas.DataFrame" in text


def test_errors_are_one_tree_of_value_errors() -> None:
    for name in PUBLIC:
        if name.endswith("Error"):
            assert issubclass(getattr(hte, name), hte.HteError)
    assert issubclass(hte.HteError, ValueError)


def test_importing_the_package_is_light() -> None:
    code = "import sys, bayes_hte; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(found.stdout.split())


def test_loading_a_fit_needs_no_pymc() -> None:
    code = "import sys, bayes_hte; bayes_hte.load, bayes_hte.fit; print('pymc' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
