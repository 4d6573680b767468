"""The front door of the exact engine: when it is used, what it says of itself, and what does not change its numbers."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import table
from random_problems import make_problem
from saved_draws import round_draws

import bayes_hte as hte
from bayes_hte.inference import exact
from bayes_hte.inference.certificate import Certificate
from bayes_hte.inference.draws import Draws
from bayes_hte.inference.exact import draw, parts, target
from bayes_hte.inference.exact import engine as quadrature_engine
from bayes_hte.inference.nuts import engine as nuts_engine
from bayes_hte.model.problem import build_problem


def many_segments(count: int, arms: int = 2, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    n = np.exp(rng.uniform(np.log(50), np.log(5000), (count, 1))).astype(int) * np.ones((1, arms), int)
    eta = rng.normal(-2.0, 0.5, (count, 1)) + np.where(np.arange(arms) > 0, rng.normal(0.2, 0.3, (count, arms)), 0.0)
    names = tuple(f"arm {a}" for a in range(arms))
    return table({"n": n, "events": rng.binomial(n, 1 / (1 + np.exp(-eta)))}, arms=names, control=names[0])


@pytest.fixture(scope="module")
def fifty() -> hte.Fit:
    return hte.fit(many_segments(50), "conversion")


def test_the_default_is_exact_where_it_applies_and_says_so(fifty: hte.Fit) -> None:
    assert fifty.tree.attrs["sampler"] == "exact"
    assert fifty.engine.startswith("Computed by the exact engine, without MCMC: Pareto k")
    assert fifty.table().attrs["caption"] == fifty.engine
    assert fifty.engine in fifty._repr_html_()
    assert fifty.diagnosis.ok


def test_default_settings_give_two_thousand_effective_draws_of_tau(fifty: hte.Fit) -> None:
    posterior = fifty.posterior["posterior"].to_dataset()
    assert float(az.ess(posterior[["effect_between"]])["effect_between"].min()) >= 2000
    assert float(az.rhat(posterior)["effect_between"].max()) < 1.02


def test_the_certificate_is_in_sample_stats_and_survives_saving(fifty: hte.Fit, tmp_path: Path) -> None:
    again = hte.load(fifty.save(tmp_path / "fit.nc"))
    for name in ("pareto_k", "effective_points", "quadrature_error", "unexplored_mass", "log_evidence"):
        assert float(again.posterior["sample_stats"][name]) == float(fifty.posterior["sample_stats"][name])
    assert (again.engine, again.diagnosis) == (fifty.engine, fifty.diagnosis)


def test_probabilities_are_those_of_the_integral(fifty: hte.Fit) -> None:
    sign = fifty.tree["sign"].to_dataset()
    shown = fifty.table(detail=True)
    assert (shown["p_positive"].to_numpy() == sign["p_positive"].values.ravel()).all()
    counted = (fifty.posterior["posterior"]["effect"] > 0).mean(("chain", "draw")).values.ravel()
    # 50 comparisons at 4.5 standard errors of 2,000 draws: a false alarm in 1 of 3,000 seeds
    assert (np.abs(counted - shown["p_positive"]) < 4.5 * np.sqrt(0.25 / 2000)).all()
    assert shown["p_mcse"].max() < np.sqrt(0.25 / 2000) / 2


def test_the_same_seed_gives_the_same_numbers_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = many_segments(30, arms=3)
    first = hte.fit(cells, "conversion", seed=7)
    for cores in (1, 3):
        monkeypatch.setattr(target, "cores", lambda cores=cores: cores)
        again = hte.fit(cells, "conversion", seed=7)
        xr.testing.assert_identical(again.tree["posterior"].to_dataset(), first.tree["posterior"].to_dataset())
        pd.testing.assert_frame_equal(again.table(), first.table())
    assert not hte.fit(cells, "conversion", seed=8).table().equals(first.table())


class Nuts:
    """Stands in for NUTS: draws of the exact engine without its certificate."""

    def __call__(self, task: Any, **asked: Any) -> Draws:
        drawn = exact.posterior(task, draws=asked["draws"], seed=asked["seed"])
        return Draws(drawn.posterior, xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 1000), bool))}))


@pytest.fixture
def nuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuts_engine, "sample_with_nuts", Nuts())


def test_seven_arms_are_left_to_nuts_with_the_reason(nuts: None) -> None:
    cells = many_segments(6, arms=7)
    fit = hte.fit(cells, "conversion")
    assert fit.tree.attrs["sampler"] == "nuts (nutpie)"
    assert "the exact engine cannot solve this: it takes at most 6 arms, these cells have 7" in fit.engine
    with pytest.raises(hte.FitError, match=r"at most 6 arms.*use sampler auto or nuts"):
        hte.fit(cells, "conversion", sampler="exact")


def test_a_certificate_that_fails_is_left_to_nuts_with_the_reason(nuts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Certificate, "list_warnings", lambda certificate: ("Pareto k is 0.90.",))
    cells = many_segments(6)
    assert hte.fit(cells, "conversion").engine == (
        "Sampled by NUTS on the PyMC model, because the exact engine cannot solve this: Pareto k is 0.90."
    )
    with pytest.raises(hte.FitError, match=r"Pareto k is 0.90; use sampler auto or nuts"):
        hte.fit(cells, "conversion", sampler="exact")


def test_nuts_is_there_for_whoever_asks(nuts: None) -> None:
    fit = hte.fit(many_segments(4), "conversion", sampler="nuts")
    assert fit.engine == "Sampled by NUTS on the PyMC model, as asked."
    assert "sign" not in fit.tree.children


def test_an_exact_fit_never_imports_pymc(tmp_path: Path) -> None:
    code = (
        "import sys, pandas as pd, bayes_hte as hte\n"
        "frame = pd.DataFrame({'d': ['x', 'x', 'y', 'y'], 'arm': ['a', 'b'] * 2, 'n': 90, 'k': [9, 15, 20, 21]})\n"
        "cells = hte.cells.from_summary(frame, arm='arm', control='a', segments=['d'], n='n', events='k')\n"
        "fit = hte.fit(cells, 'conversion', sampler='exact')\n"
        "fit.table(); fit.ate(); fit.heterogeneity(); hte.loso(fit); fit.save('fit.nc')\n"
        "ours = {'pymc', 'pytensor', 'nutpie'} | ({'numba'} if 'sparse' not in sys.modules else set())\n"
        "print(sorted(ours & set(sys.modules)))"  # xarray imports sparse where it is installed, and that numba
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"


def test_large_tables_get_fewer_draws_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "NUMBERS", 16_000)
    fit = hte.fit(many_segments(16), "conversion")
    assert fit.tree["posterior"].sizes["draw"] * 4 == 500
    assert "500 draws instead of 4,000, to fit into memory" in fit.engine


@pytest.mark.parametrize("pooling", ["none", "complete"])
def test_no_and_complete_pooling_are_exact_too(pooling: Any, counts: xr.Dataset) -> None:
    stated = hte.read_model("conversion").model_copy(update={"pooling": pooling})
    fit = hte.fit(counts, stated, sampler="exact")
    effect = fit.posterior["posterior"]["effect"]
    same = bool((effect == effect.isel(segment=0)).all())
    assert same == (pooling == "complete")
    assert np.isfinite(fit.table(detail=True)[["effect", "p_positive"]]).all(axis=None)


def test_counting_the_others_turns_every_answer_round(counts: xr.Dataset) -> None:
    model = hte.read_model("conversion")
    ours = hte.fit(counts, model, draws=8000).table("link", detail=True)
    theirs = hte.fit(counts.assign(events=counts["n"] - counts["events"]), model, draws=8000).table("link", detail=True)
    error = np.hypot(ours["effect_mcse"], theirs["effect_mcse"])
    # 12 comparisons of each kind at 4.5 standard errors: a false alarm in 1 of 6,000 seeds
    assert (abs(ours["effect"] + theirs["effect"]) < 4.5 * error).all()
    assert (abs(ours["p_positive"] - theirs["p_negative"]) < 4.5 * np.hypot(ours["p_mcse"], theirs["p_mcse"])).all()


SHIPPED = {"counts": "conversion", "moments": "continuous", "means": "", "schools": "published-estimates"}
"""A cell table of every family, and the shipped model that fits it."""


def model_for(cells: str) -> hte.Model:
    if SHIPPED[cells]:
        return hte.read_model(SHIPPED[cells])
    prior = {"mean": {"dist": "Normal", "mu": 10.0, "sigma": 5.0}, "between": {"dist": "HalfNormal", "sigma": 2.0}}
    effect = {"mean": {"dist": "Normal", "sigma": 2.0}, "between": {"dist": "HalfNormal", "sigma": 1.0}}
    return hte.Model.model_validate({"family": "mean", "effect": effect, "baseline": prior})


@pytest.fixture(scope="module")
def every_family() -> dict[str, hte.Fit]:
    """Fits by the name of their cells; made when they are first asked for."""
    return {}


@pytest.fixture(params=SHIPPED)
def fit(request: pytest.FixtureRequest, every_family: dict[str, hte.Fit]) -> hte.Fit:
    name = request.param
    if name not in every_family:
        every_family[name] = hte.fit(request.getfixturevalue(name), model_for(name), sampler="exact", seed=5)
    return every_family[name]


def test_every_family_has_every_group_that_arviz_knows(fit: hte.Fit) -> None:
    wanted = {
        "posterior", "sample_stats", "cells", "sign", "log_likelihood", "log_prior", "posterior_predictive", "prior",
        "prior_predictive", "observed_data", "constant_data",
    }  # fmt: skip
    assert set(fit.posterior.children) == wanted
    posterior = fit.posterior["posterior"].to_dataset()
    assert dict(posterior.sizes)["chain"] == 4
    for name in ("posterior", "log_likelihood", "log_prior", "posterior_predictive", "prior"):
        for values in fit.posterior[name].to_dataset().data_vars.values():
            assert np.isfinite(values).all(), (name, values.name)
    assert set(fit.posterior["log_prior"].data_vars) == set(posterior.data_vars) - {"effect", "baseline"}


def test_draws_of_every_family_pass_the_checks_of_arviz(fit: hte.Fit) -> None:
    posterior = fit.posterior["posterior"].to_dataset()
    rhat, ess = az.rhat(posterior), az.ess(posterior)
    assert max(float(values.max()) for values in rhat.data_vars.values()) < 1.02
    # The sampler aims at 0.8 effective points per draw; 400 is what the diagnosis asks for.
    assert min(float(values.min()) for values in ess.data_vars.values()) > 1000


def test_every_table_of_every_family_can_be_made(fit: hte.Fit) -> None:
    assert np.isfinite(fit.table()[["effect", "sd", "ci_low", "ci_high", "p_positive"]]).all(axis=None)
    assert np.isfinite(fit.ate()[["effect", "sd", "p_positive"]]).all(axis=None)
    assert np.isfinite(fit.heterogeneity()["value"]).all()
    for name in ("table", "ate", "heterogeneity"):
        assert getattr(fit, name)().attrs["caption"] == fit.engine
        # Estimates in points of a test, ±4, under a prior for standardised ones, ±1: the diagnosis says so.
        assert getattr(fit, name)().attrs["reliable"] is (fit.model.family != "estimate")


def test_every_family_survives_saving(fit: hte.Fit, tmp_path: Path) -> None:
    again = hte.load(fit.save(tmp_path / "fit.nc"))
    assert again.engine == fit.engine
    assert again.posterior.equals(round_draws(fit.posterior))
    pd.testing.assert_frame_equal(again.table(detail=True), fit.table(detail=True))


@pytest.mark.parametrize(("asked", "given"), [(400, 100), (1001, 251), (4000, 1000), (4003, 1001)])
@pytest.mark.parametrize("cells", ["counts", "schools"])
def test_there_are_as_many_draws_as_asked_in_four_chains(
    cells: str, asked: int, given: int, request: pytest.FixtureRequest
) -> None:
    fit = hte.fit(request.getfixturevalue(cells), model_for(cells), sampler="exact", draws=asked)
    assert dict(fit.tree["posterior"].sizes)["chain"] == 4
    assert dict(fit.tree["posterior"].sizes)["draw"] == given
    assert "instead of" not in fit.engine


@pytest.mark.parametrize("cells", ["counts", "moments", "means", "schools"])
def test_the_order_of_segments_changes_nothing_but_their_order(cells: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(cells)
    order = np.random.default_rng(2).permutation(data.sizes["segment"])
    fits = [hte.fit(each, model_for(cells), sampler="exact", seed=5) for each in (data, data.isel(segment=order))]
    ours, theirs = (fit.table("link", detail=True) for fit in fits)
    key = [ours.columns[0], "arm"]
    both = ours.merge(theirs, on=key, suffixes=("", "_other"))
    assert len(both) == len(ours)
    error = np.hypot(both["effect_mcse"], both["effect_mcse_other"])
    # At most 12 comparisons of each kind, at 4.5 standard errors: a false alarm in 1 of 6,000 seeds
    assert (abs(both["effect"] - both["effect_other"]) < 4.5 * error).all()
    error = np.hypot(both["p_mcse"], both["p_mcse_other"])
    assert (abs(both["p_positive"] - both["p_positive_other"]) < 4.5 * error + 1e-9).all()


@pytest.mark.parametrize("cells", ["moments", "means", "schools"])
def test_a_negative_outcome_turns_every_answer_round(cells: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(cells)
    name = "estimate" if cells == "schools" else "mean"
    model = model_for(cells)
    if cells == "means":  # its baseline is not centred at 0
        turned = {"mean": model.baseline.mean.model_copy(update={"mu": -10.0})}
        other = model.model_copy(update={"baseline": model.baseline.model_copy(update=turned)})
    else:
        other = model
    ours = hte.fit(data, model, sampler="exact", draws=8000).table(detail=True)
    theirs = hte.fit(data.assign({name: -data[name]}), other, sampler="exact", draws=8000).table(detail=True)
    assert (abs(ours["effect"] + theirs["effect"]) < 4.5 * np.hypot(ours["effect_mcse"], theirs["effect_mcse"])).all()
    error = np.hypot(ours["p_mcse"], theirs["p_mcse"]) + 1e-9
    assert (abs(ours["p_positive"] - theirs["p_negative"]) < 4.5 * error).all()


def test_another_currency_scales_effects_and_leaves_signs_alone(moments: xr.Dataset) -> None:
    """Priors in control SDs: the same belief in any currency."""
    cents = moments.assign(mean=100 * moments["mean"], ss=100**2 * moments["ss"])
    ours, theirs = (hte.fit(cells, "continuous", sampler="exact").table(detail=True) for cells in (moments, cents))
    error = np.hypot(ours["effect_mcse"], theirs["effect_mcse"] / 100)
    assert (abs(ours["effect"] - theirs["effect"] / 100) < 4.5 * error).all()
    assert (abs(ours["p_positive"] - theirs["p_positive"]) < 4.5 * np.hypot(ours["p_mcse"], theirs["p_mcse"])).all()


def test_an_arm_more_for_other_segments_is_no_obstacle(counts: xr.Dataset) -> None:
    """One cell was never seen: its effect is a draw from the common distribution."""
    fit = hte.fit(counts, "conversion", sampler="exact", draws=8000)
    unseen = fit.table("link", detail=True).query("device == 's5' and arm == 'sms'").iloc[0]
    posterior = fit.tree["posterior"].sel(arm="sms")
    mean, tau = posterior["effect_mean"], posterior["effect_between"]
    assert unseen["pooling"] == 1.0
    assert abs(unseen["effect"] - float(mean.mean())) < 4.5 * unseen["effect_mcse"]
    # sd² = var(m) + E[tau²]; an SD of 4,000 effective draws of a skewed posterior is known to about 2 %
    assert unseen["sd"] == pytest.approx(float(np.sqrt(mean.var() + (tau**2).mean())), rel=4 * 0.02)


def test_correlated_estimates_without_pooling_need_a_normal_prior(schools: xr.Dataset, nuts: None) -> None:
    covariance = xr.DataArray(np.diag(schools["se"].values[:, 0] ** 2), dims=("segment", "other_segment"))
    cells = schools.assign(covariance=covariance)
    student = {"mean": {"dist": "StudentT", "nu": 4.0, "sigma": 10.0}}
    model = hte.Model.model_validate({"family": "estimate", "pooling": "none", "effect": student})
    with pytest.raises(hte.FitError, match="need a Normal prior; use sampler auto or nuts"):
        hte.fit(cells, model, sampler="exact")
    plain = hte.Model.model_validate(
        {"family": "estimate", "pooling": "none", "effect": {"mean": {"dist": "Normal", "sigma": 10.0}}}
    )
    ours, theirs = (hte.fit(each, plain, sampler="exact").table() for each in (cells, schools))
    assert ours["p_positive"].to_numpy() == pytest.approx(theirs["p_positive"].to_numpy(), abs=1e-9)


@pytest.mark.parametrize("cells", ["counts", "schools"])
def test_standard_errors_are_how_much_answers_scatter_over_seeds(cells: str, request: pytest.FixtureRequest) -> None:
    data, count = request.getfixturevalue(cells), 40
    fits = [hte.fit(data, model_for(cells), sampler="exact", draws=1000, seed=seed) for seed in range(count)]
    tables = [fit.table("link", detail=True) for fit in fits]
    ratios = np.std([table["effect"] for table in tables], axis=0, ddof=1) / np.mean(
        [table["effect_mcse"] for table in tables], axis=0
    )
    # Never worse than promised: an SD of 40 answers is known to 11 %. Draws that are stratified do better.
    assert 0.3 < ratios.mean() < 1.0 + 4 * 0.11
    # the last arm: of the first P(> 0) is so near 1 that a thousand draws are all on one side
    averages = [fit.ate("link").iloc[-1] for fit in fits]
    scatter = np.std([one["p_positive"] for one in averages], ddof=1)
    assert 0 < scatter < (1.0 + 4 * 0.11) * np.mean([one["p_mcse"] for one in averages])


def test_draws_that_never_leave_a_wrong_place_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One precise segment of ordered answers among small ones: cutpoints move its mode by many of its SDs."""
    problem = make_problem("ordinal", 10, 1)
    task = build_problem(problem.cells, problem.model)
    sound = quadrature_engine.posterior(task, draws=4000, seed=1)
    assert float(sound.sample_stats["unmoved_share"]) < 0.03
    monkeypatch.setattr(draw, "needs_refining", lambda segments, maps: False)
    stuck = quadrature_engine.posterior(task, draws=4000, seed=1)
    assert re.search(r"stuck at their first proposal in \d+%", " ".join(stuck.require_certificate().list_warnings()))


def test_of_two_parts_the_worse_certificate_counts() -> None:
    names = "pareto_k effective_points quadrature_error unexplored_mass acceptance unmoved_share log_evidence"
    stats = dict.fromkeys(names.split(), 1.0)
    worse = stats | {"unexplored_mass": 2.0, "unmoved_share": 3.0}
    found = parts._worse([xr.Dataset(stats), xr.Dataset(worse)])
    assert set(found.data_vars) == set(stats)
    assert (float(found["unexplored_mass"]), float(found["unmoved_share"])) == (2.0, 3.0)
