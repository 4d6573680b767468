"""Against results that other people's software computed: brms, Bambi, bayesmeta, metafor, lme4, exact quadrature.

Tolerances: means within 4 combined Monte-Carlo standard errors; P(effect > 0) within .01, or 4 of its own
standard errors where the reference itself has only thousands of draws. Seeds are fixed.
"""

import json
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from paths import REFERENCE
from quadrature_oracle import grid_of, matches, posterior
from scipy import stats

import bayes_hte as hte
from bayes_hte.inference.exact import engine as exact_engine
from bayes_hte.inference.exact import sign
from bayes_hte.inference.nuts.sample import NutsSettings, sample_with_nuts
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import cell_table

FOLDER = REFERENCE


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


def test_catheter_infections_equal_brms(engine: Any) -> None:
    case = read("catheters")
    rows = pd.DataFrame(case["cells"])
    cells = hte.cells.from_summary(
        rows, arm="arm", control="control", segments=["segment"], events="events", exposure="exposure"
    )
    fit = hte.fit(cells, hte.Model.model_validate(case["model"]), sampler=engine, draws=8000, seed=6)
    ours, theirs = shown(fit, case)
    assert fit.diagnosis.ok
    reference_mcse = theirs["sd"] / np.sqrt(case["ess"])
    assert (abs(ours["effect"] - theirs["mean"]) < 4 * np.hypot(ours["effect_mcse"], reference_mcse)).all()
    p = theirs["p_positive"].clip(0.5 / case["ess"], 1 - 0.5 / case["ess"])
    allowed = np.maximum(0.01, 4 * np.hypot(ours["p_mcse"], np.sqrt(p * (1 - p) / case["ess"])))
    assert (abs(ours["p_positive"] - theirs["p_positive"]) < allowed).all()
    hyper_check(fit, case, case["ess"])
    # Free intercepts: log rates per catheter-day, one for each trial.
    known = pd.DataFrame(case["baselines"]).set_index("segment")
    draws = fit.posterior["posterior"]["baseline"].sel(segment=known.index)
    mcse = az.mcse(draws.to_dataset(name="x"), method="mean")["x"].values
    off = abs(draws.mean(("chain", "draw")).values - known["mean"].to_numpy())
    assert (off < 4 * np.hypot(mcse, known["sd"].to_numpy() / np.sqrt(case["ess"]))).all()


@pytest.fixture(scope="module")
def latitude() -> tuple[hte.Fit, dict[str, Any]]:
    case = read("bcg_latitude")
    cells = hte.cells.from_estimates(
        pd.DataFrame(case["cells"]), segments=["segment"], estimate="y", se="se", covariates=["latitude"]
    )
    return hte.fit(cells, hte.Model.model_validate(case["model"]), sampler="exact", draws=16_000, seed=7), case


def test_bcg_trials_by_latitude_equal_quadrature(latitude: tuple[hte.Fit, dict[str, Any]]) -> None:
    fit, case = latitude
    rows = pd.DataFrame(case["cells"]).set_index("segment").loc[fit.cells["segment"].values]
    z = ((rows["latitude"] - rows["latitude"].mean()) / rows["latitude"].std(ddof=1)).to_numpy()
    (scale,), prior = grid_of([stats.halfnorm(scale=1.0)], 200)
    observed = np.concatenate(
        [np.broadcast_to(np.column_stack([np.ones(13), z]), (200, 13, 2)), scale[:, None, None] * np.eye(13)], axis=-1
    )
    functions = np.concatenate([observed, np.broadcast_to(np.eye(2, 15), (200, 2, 15))], axis=1)
    d = np.concatenate([[2.0, 1.0], np.ones(13)])
    found = posterior(rows["y"].to_numpy(), rows["se"].to_numpy(), prior, observed, functions, np.zeros(15), d)
    names = {"effect": np.arange(13), "effect_mean": np.array([13]), "effect_slope": np.array([14])}
    matches(fit, names, found, {"effect_between": scale})


def test_bcg_trials_by_latitude_agree_with_metafor(latitude: tuple[hte.Fit, dict[str, Any]]) -> None:
    fit, case = latitude
    draws = fit.posterior["posterior"].to_dataset().squeeze("arm")
    per_degree = draws["effect_slope"].squeeze() / pd.DataFrame(case["cells"])["latitude"].std(ddof=1)
    # REML holds tau at its estimate; the posterior, with weak priors, is as far away as tau is uncertain.
    assert abs(float(per_degree.mean()) - case["slope_per_degree"]) < 0.25 * case["slope_se"]
    assert 0.9 < float(per_degree.std()) / case["slope_se"] < 1.35
    low, high = np.sqrt(case["tau2_interval"])
    assert low < float(draws["effect_between"].mean()) < high
    assert abs(float(draws["effect_between"].median()) - case["tau"]) < 0.1
    effect = draws["effect"].sel(segment=[cell["segment"] for cell in case["cells"]])
    off = effect.mean(("chain", "draw")).values - case["blup"]
    assert (abs(off) < 0.5 * np.array(case["blup_se"])).all()


def visits(case: dict[str, Any]) -> xr.Dataset:
    """Cells of the RAND experiment, histograms of visits."""
    values = np.array(case["value"], float)
    units = np.zeros((len(case["segment"]), 2, len(values)), dtype=int)
    for s, label in enumerate(case["segment"]):
        for a, counted in enumerate(case["units"][label]):
            units[s, a, : len(counted)] = counted
    attrs = {
        "outcome": "visits",
        "control": case["arm"][0],
        "dimensions": cell_table.encode_text_list(["group"]),
        "notes": "[]",
    }
    return cell_table.check_cell_table(
        xr.Dataset(
            {"n": (("segment", "arm"), units.sum(-1)), "histogram": (("segment", "arm", "value"), units)},
            coords={
                "segment": case["segment"],
                "arm": case["arm"],
                "value": values,
                "group": ("segment", case["segment"]),
            },
            attrs=attrs,
        )
    )


@pytest.fixture(scope="module")
def rand() -> tuple[dict[str, Any], hte.Fit, hte.Fit]:
    case = read("rand_visits")
    cells = visits(case)
    events = (cells["histogram"] * cells["value"]).sum("value").astype(int)
    rates = cells[["n"]].assign(events=events, exposure=cells["n"].astype(float)).drop_vars("value", errors="ignore")
    counted = hte.fit(cells, "counts", sampler="exact", draws=4000, seed=8)
    return case, counted, hte.fit(rates.assign_attrs(cells.attrs), "rates", sampler="exact", draws=4000, seed=8)


HYPER = ("baseline_mean", "effect_mean", "baseline_between", "effect_between")


def scaled(fit: hte.Fit, expected: dict[str, float]) -> dict[str, float]:
    """How many posterior SDs the posterior mean is from a maximum-likelihood estimate."""
    draws = fit.posterior["posterior"].to_dataset()
    return {name: float((draws[name].mean() - expected[name]) / draws[name].std()) for name in HYPER}


def test_visits_to_doctors_agree_with_glmmtmb(rand: tuple[dict[str, Any], hte.Fit, hte.Fit]) -> None:
    case, counted, rates = rand
    for fit, name in ((counted, "negative_binomial"), (rates, "poisson")):
        off = scaled(fit, case[name])
        # Of an SD the posterior mean is larger than the most likely value, by less than a posterior SD.
        assert all(abs(value) < 1 for value in off.values()), off
    theirs = pd.Series(case["slopes"])
    ours = counted.table(scale="link").set_index("group").loc[theirs.index]
    assert (abs(ours["effect"] - theirs) < 0.5 * ours["sd"]).all()
    # They have one dispersion for both arms, we have one for each.
    alpha = counted.posterior["posterior"]["alpha"]
    low, high = alpha.mean(("chain", "draw")).min(), alpha.mean(("chain", "draw")).max()
    spread = float(alpha.std(("chain", "draw")).max())
    assert float(low) - 2 * spread < case["negative_binomial"]["theta"] < float(high) + 2 * spread


def test_a_poisson_takes_repeated_visits_for_differences_between_segments(
    rand: tuple[dict[str, Any], hte.Fit, hte.Fit],
) -> None:
    _, counted, rates = rand
    tau = [float(fit.posterior["posterior"]["effect_between"].mean()) for fit in (counted, rates)]
    assert tau[1] > 1.3 * tau[0]
    ours, poisson = (fit.table(scale="link").set_index("group") for fit in (counted, rates))
    # Counts have seven times the variance of a Poisson here: a large segment's error is a fraction of what it is.
    large = ours["n_treated"] + ours["n_control"] > 300
    assert large.sum() >= 20
    assert (poisson["sd"][large] < 0.8 * ours["sd"][large]).all()


@pytest.mark.slow
def test_crossed_dimensions_of_hillstrom_agree_with_lme4() -> None:
    case = read("hillstrom_crossed")
    cells = hte.cells.from_summary(
        pd.DataFrame(case["cells"]), arm="arm", control="none", segments=case["dimensions"], n="n", events="events"
    )
    # What is compared is wide, so that a short run is enough: maximum likelihood is no posterior mean.
    task = build_problem(cells, hte.read_model("conversion-by-dimension"))
    drawn = sample_with_nuts(task, draws=1000, seed=9, settings=NutsSettings(0.9, 500), progress=False)
    draws = drawn.posterior.squeeze("arm")
    for name in ("effect_mean", "baseline_mean"):
        assert abs(float(draws[name].mean()) - case[name]) < float(draws[name].std())
    for name in case["dimensions"]:
        for kind in ("effect", "baseline"):
            between = draws[f"{kind}_{name}_between"]
            low, high = between.quantile([0.005, 0.995])
            # Where the likelihood is highest at 0 the posterior still is all above it.
            assert (0.0 if float(low) < 0.05 else float(low)) <= case[f"{kind}_sd"][name] < float(high), (kind, name)
        theirs = pd.Series(case["levels"][name])
        ours = draws[f"effect_{name}"].sel({name: list(theirs.index)})
        # Maximum likelihood puts the SD between channels at 0; every deviation is within a posterior SD.
        assert (abs(ours.mean(("chain", "draw")).values - theirs.to_numpy()) < ours.std(("chain", "draw")).values).all()


@pytest.mark.slow
def test_crossed_dimensions_equal_bambi() -> None:
    case = read("bambi_crossed")
    rows = pd.DataFrame(case["cells"]).assign(arm=lambda each: np.where(each["treat"] == 1, "treated", "control"))
    cells = hte.cells.from_summary(
        rows, arm="arm", control="control", segments=["device", "plan"], n="n", events="events"
    )
    fit = hte.fit(cells, "conversion-by-dimension", sampler="nuts", draws=8000, seed=10)
    assert fit.diagnosis.ok
    found = fit.posterior["posterior"].to_dataset()[list(case["quantities"])].squeeze("arm", drop=True)
    found = found.sel(segment=[" · ".join(label.split(" | ")) for label in case["segment"]])
    # Some sixty comparisons of slowly mixing quantities, whose standard errors are themselves uncertain by a tenth:
    # five of them, which a right engine exceeds once in a thousand runs or less.
    mcse, mcse_sd = az.mcse(found, method="mean"), az.mcse(found, method="sd")
    for name, theirs in case["quantities"].items():
        off = abs(found[name].mean(("chain", "draw")).values - theirs["mean"])
        assert (off < 5 * np.hypot(mcse[name].values, theirs["mcse"])).all(), name
        off = abs(found[name].std(("chain", "draw"), ddof=1).values - theirs["sd"])
        assert (off < 5 * np.hypot(mcse_sd[name].values, theirs["mcse_sd"])).all(), name


def test_signs_are_integrated_finely_where_a_treated_cell_is_far_more_precise_than_its_control() -> None:
    """P(effect > 0 | baseline) is nearly a step there: three nodes over the baseline were off by .08 of it."""
    cells = visits(read("rand_visits"))
    events = (cells["histogram"] * cells["value"]).sum("value").astype(int)
    rates = cells[["n"]].assign(events=events, exposure=cells["n"].astype(float)).drop_vars("value", errors="ignore")
    problem = build_problem(rates.assign_attrs(cells.attrs), hte.read_model("rates"))
    density, sample = exact_engine.points(problem, wanted=2000, seed=1)
    found, _ = sign.positive(density, sample, seed=1)
    some = sample.points[sample.resampled(100, np.random.default_rng(2))]
    everyone = np.arange(rates.sizes["segment"])
    finest = density.over(some, everyone, sign._integrated(61), width=24).mean(0)
    coarse = density.over(some, everyone, sign._integrated(3), width=12).mean(0)
    assert np.abs(coarse - finest).max() > 0.05
    # P varies little between points: 100 of them leave less than a hundredth.
    assert np.abs(found - finest).max() < 0.02
