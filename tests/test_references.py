"""Against results that other people's software computed: brms, bayesmeta, exact quadrature (tests/reference).

Tolerances: means within 4 combined Monte-Carlo standard errors; P(effect > 0) within .01, or 4 of its own
standard errors where the reference itself has only thousands of draws. Seeds are fixed.
"""

import json
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte

FOLDER = Path(__file__).parent / "reference"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def fitted(case: dict[str, Any], *, draws: int, seed: int, engine: Any = "exact") -> hte.Fit:
    rows = pd.DataFrame(case["cells"])
    if "y" in rows:
        cells = hte.cells.from_estimates(rows, segments=["segment"], estimate="y", se="se")
    else:
        statistics = {"n": "n", "events": "events"} if "events" in rows else {"n": "n", "mean": "mean", "sd": "sd"}
        control = {"none", "control", "regular"}.intersection(rows["arm"]).pop()
        cells = hte.cells.from_summary(rows, arm="arm", control=control, segments=["segment"], **statistics)
    return hte.fit(cells, hte.Model.model_validate(case["model"]), sampler=engine, draws=draws, seed=seed)


def shown(fit: hte.Fit, case: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Our table and the reference's, in the same order."""
    ours = fit.table(scale="link", detail=True).set_index("segment")
    theirs = pd.DataFrame(case["effects"]).set_index("segment")
    return ours.loc[theirs.index], theirs


def hyper_check(fit: hte.Fit, case: dict[str, Any], reference_ess: float, extra: float = 0.0) -> None:
    posterior = fit.posterior["posterior"].to_dataset()
    for name, expected in case["hyper"].items():
        draws = posterior[name].squeeze()
        mcse = float(az.mcse(draws.to_dataset(name="x"), method="mean")["x"])
        allowed = 4 * np.hypot(mcse, expected["sd"] / np.sqrt(reference_ess)) + extra * expected["sd"]
        assert abs(float(draws.mean()) - expected["mean"]) < allowed, name


@pytest.fixture(scope="module", params=["exact", pytest.param("nuts", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Any:
    """Both engines answer to the same references."""
    return request.param


@pytest.fixture(scope="module")
def eight_schools(engine: Any) -> hte.Fit:
    return fitted(read("eight_schools"), draws=40_000, seed=1, engine=engine)


def test_eight_schools_equal_exact_quadrature(eight_schools: hte.Fit) -> None:
    case = read("eight_schools")
    ours, theirs = shown(eight_schools, case)
    assert (abs(ours["effect"] - theirs["mean"]) < 4 * ours["effect_mcse"]).all()
    assert (abs(ours["p_positive"] - theirs["p_positive"]) < 0.01).all()
    assert ours["sd"].to_numpy() == pytest.approx(theirs["sd"].to_numpy(), rel=0.03)
    hyper_check(eight_schools, case, np.inf)


def test_pooling_factors_of_eight_schools_equal_exact_quadrature(eight_schools: hte.Fit) -> None:
    ours, theirs = shown(eight_schools, read("eight_schools"))
    assert ours["pooling"].to_numpy() == pytest.approx(theirs["pooling"].to_numpy(), abs=0.01)


def test_new_school_equals_exact_quadrature(eight_schools: hte.Fit) -> None:
    expected = read("eight_schools")["new_segment"]
    new = eight_schools.predict_new_segment().iloc[0]
    # 40,000 draws, a quarter of them effective at worst: the standard error of the mean is sd / 100.
    assert abs(new["effect"] - expected["mean"]) < 4 * expected["sd"] / 100
    assert new["p_positive"] == pytest.approx(expected["p_gt0"], abs=0.01)


def test_bcg_trials_equal_bayesmeta(engine: Any) -> None:
    case = read("bcg")
    fit = fitted(case, draws=16_000, seed=2, engine=engine)
    ours, theirs = shown(fit, case)
    # bayesmeta integrates over a grid and does not state its error: a hundredth of an SD is allowed for it.
    assert (abs(ours["effect"] - theirs["mean"]) < 4 * ours["effect_mcse"] + 0.01 * theirs["sd"]).all()
    assert (abs(ours["p_positive"] - theirs["p_positive"]) < 0.01).all()
    hyper_check(fit, case, np.inf, extra=0.01)


@pytest.mark.parametrize("name", ["hillstrom_womens_visit", "blockers"])
def test_binomial_equals_brms(name: str, engine: Any) -> None:
    case = read(name)
    fit = fitted(case, draws=8000, seed=3, engine=engine)
    ours, theirs = shown(fit, case)
    assert fit.diagnosis.ok
    reference_mcse = theirs["sd"] / np.sqrt(case["ess"])
    assert (abs(ours["effect"] - theirs["mean"]) < 4 * np.hypot(ours["effect_mcse"], reference_mcse)).all()
    p = theirs["p_positive"].clip(0.5 / case["ess"], 1 - 0.5 / case["ess"])
    reference_p_mcse = np.sqrt(p * (1 - p) / case["ess"])
    allowed = np.maximum(0.01, 4 * np.hypot(ours["p_mcse"], reference_p_mcse))
    assert (abs(ours["p_positive"] - theirs["p_positive"]) < allowed).all()
    hyper_check(fit, case, case["ess"])


def test_seventy_nine_schools_equal_brms(engine: Any) -> None:
    case = read("star")
    fit = fitted(case, draws=8000, seed=4, engine=engine)
    ours, theirs = shown(fit, case)
    assert fit.diagnosis.ok
    # brms has one residual SD, we have one per arm: that moves a school by up to a tenth of its SD.
    allowed = 4 * np.hypot(ours["effect_mcse"], theirs["sd"] / np.sqrt(case["ess"])) + 0.1 * theirs["sd"]
    assert (abs(ours["effect"] - theirs["mean"]) < allowed).all()
    hyper_check(fit, case, case["ess"], extra=0.1)


def test_reversing_every_estimate_reverses_every_answer(eight_schools: hte.Fit) -> None:
    case = read("eight_schools")
    mirrored = {**case, "cells": [{**cell, "y": -cell["y"]} for cell in case["cells"]]}
    ours = eight_schools.table(detail=True)
    theirs = fitted(mirrored, draws=8000, seed=5).table(detail=True)
    error = np.hypot(ours["effect_mcse"], theirs["effect_mcse"])
    assert (abs(ours["effect"] + theirs["effect"]) < 4 * error).all()
    assert (
        abs(ours["p_positive"] - theirs["p_negative"]) < 4 * np.hypot(ours["p_mcse"], theirs["p_mcse"]) + 1e-9
    ).all()


def test_arviz_functions_take_the_posterior_as_it_is(eight_schools: hte.Fit) -> None:
    tree = eight_schools.posterior
    assert {"effect_mean[treated]", "effect_between[treated]"} <= set(az.summary(tree).index)
    assert np.isfinite(az.loo(tree).elpd)
    assert "effect_mean[treated]" in az.psense_summary(tree).index
    az.plot_forest(tree, var_names=["effect"], backend="matplotlib")
