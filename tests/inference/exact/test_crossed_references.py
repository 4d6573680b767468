"""Crossed and nested models by the exact engine, against long NUTS runs of PyMC models that are written out by hand.

The runs are in tests/reference/crossed, with make_crossed.py, which shares no line with the package: 60,000 draws
and more of every SD, mean, level and cell.

Tolerances, with the Monte-Carlo errors of both sides as ArviZ states them:

    means    4 combined standard errors
    SDs      3 %, or 4 combined standard errors where that is more
    P(> 0)   .01 and 4 combined standard errors; of draws, and as the table states it

False alarms: an engine that is right is 4 standard errors off with probability 6.3e-5. Over all files there are about
1,250 means, as many SDs and 600 probabilities, whose allowance is wider still: with a new seed at most 8 %, 8 % and
2 % that any of them is, less because the quantities of a fit move together. With the seed here the outcome is always
the same.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from long_runs import find_moved_means, find_moved_sds, find_moved_signs, index_table, side_by_side
from paths import REFERENCE

import bayes_hte as hte

DRAWS = 24_000  # of a skewed SD the SD of 8,000 draws is off by a twentieth
SEED = 14
FILES = sorted((REFERENCE / "crossed").glob("*.json"))
MIN_ESS_BETWEEN, MIN_ESS = 4000, 1500


@pytest.fixture(scope="module", params=[pytest.param(path, id=path.stem) for path in FILES])
def reference(request: pytest.FixtureRequest) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(request.param.read_text(encoding="utf-8"))
    return content


def read_cells(reference: dict[str, Any]) -> xr.Dataset:
    """Read the rows that were sampled."""
    rows = pd.DataFrame(reference["rows"])
    columns = {name: name for name in ("n", "events", "exposure", "mean") if name in rows}
    if "ss" in rows:
        rows["sd"] = np.sqrt(rows["ss"] / (rows["n"] - 1))
        columns["sd"] = "sd"
    return hte.cells.from_summary(
        rows, arm="arm", control="control", segments=reference["dimensions"],
        covariates=["age"] if "age" in rows else None, **columns,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fit(reference: dict[str, Any]) -> hte.Fit:
    cells, model = read_cells(reference), hte.Model.model_validate(reference["model"])
    return hte.fit(cells, model, sampler="exact", draws=DRAWS, seed=SEED)


@pytest.fixture(scope="module")
def compared(fit: hte.Fit, reference: dict[str, Any]) -> pd.DataFrame:
    return compare(fit, reference)


def compare(fit: hte.Fit, reference: dict[str, Any]) -> pd.DataFrame:
    """Put a fit and the reference side by side."""
    found = fit.posterior["posterior"].to_dataset()[list(reference["quantities"])]
    return side_by_side(found.sel({dim: reference["labels"][dim] for dim in map(str, found.dims) if dim in
                                   reference["labels"]}), reference["quantities"])  # fmt: skip


def test_long_runs_converged(reference: dict[str, Any]) -> None:
    run = reference["run"]
    assert run["max_rhat"] <= 1.005
    assert run["divergences"] <= 0.0005 * run["draws"]
    for name, numbers in reference["quantities"].items():
        assert np.min(numbers["ess"]) >= (MIN_ESS_BETWEEN if name.endswith("_between") else MIN_ESS), name


def test_fits_of_crossed_dimensions_pass_their_diagnosis(fit: hte.Fit) -> None:
    assert fit.diagnosis.ok, fit.diagnosis


def test_means_equal_those_of_long_nuts_runs(compared: pd.DataFrame) -> None:
    off = find_moved_means(compared)
    assert off.empty, off.to_string()


def test_sds_equal_those_of_long_nuts_runs(compared: pd.DataFrame) -> None:
    off = find_moved_sds(compared)
    assert off.empty, off.to_string()


def test_shares_of_positive_draws_equal_those_of_long_nuts_runs(compared: pd.DataFrame) -> None:
    off = find_moved_signs(compared)
    assert off.empty, off.to_string()


def test_stated_probabilities_of_signs_equal_those_of_long_nuts_runs(fit: hte.Fit, reference: dict[str, Any]) -> None:
    expected, labels = reference["quantities"]["effect"], reference["labels"]
    places = pd.MultiIndex.from_product([labels["segment"], labels["arm"]], names=["segment", "arm"])
    table = index_table(fit).loc[places]
    theirs = {f"{name}_nuts": np.ravel(expected[name]) for name in ("p_positive", "p_mcse")}
    off = find_moved_signs(table.assign(**theirs))
    assert off.empty, off.to_string()
