"""Draws from models of one's own give the same answers as the same draws from a model shipped here."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import table
from example_posterior import example_fit
from paths import ROOT

from bayes_hte import ArgumentError, DataError, Fit, ModelError, compare, load, loso
from bayes_hte.analysis.from_posterior import LinkName, from_posterior

LINKS: list[tuple[str, LinkName]] = [("binomial", "logit"), ("mean", "identity"), ("estimate", "identity")]


def draws_of(fit: Fit) -> xr.Dataset:
    return fit.tree["posterior"].to_dataset()


@pytest.fixture(scope="module")
def shipped() -> Fit:
    return example_fit(6)


@pytest.fixture(scope="module")
def own(shipped: Fit) -> Fit:
    return from_posterior(shipped.tree, shipped.cells, link="logit", title="By hand")


@pytest.mark.parametrize(("family", "link"), LINKS)
def test_the_same_draws_give_the_same_tables(family: str, link: LinkName) -> None:
    shipped = example_fit(6, family)  # type: ignore[arg-type]
    own = from_posterior(shipped.tree, shipped.cells, link=link)
    scales = ["link", "absolute"] if family == "estimate" else ["link", "absolute", "relative"]
    for scale in scales:
        pd.testing.assert_frame_equal(own.table(scale), shipped.table(scale))  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(own.ate(scale), shipped.ate(scale))  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(own.heterogeneity(), shipped.heterogeneity())
    pd.testing.assert_frame_equal(own.contrasts(), shipped.contrasts())


def test_a_bare_dataset_will_do(shipped: Fit, own: Fit) -> None:
    bare = from_posterior(draws_of(shipped), shipped.cells, link="logit")
    pd.testing.assert_frame_equal(bare.table(), own.table())
    assert bare.diagnosis.divergences == 0


def test_segments_are_matched_by_label(shipped: Fit, own: Fit) -> None:
    shuffled = draws_of(shipped).isel(segment=[3, 0, 5, 1, 4, 2])
    pd.testing.assert_frame_equal(from_posterior(shuffled, shipped.cells, link="logit").table(), own.table())


def test_arms_are_matched_by_label() -> None:
    shipped = example_fit(4, arms=("control", "email", "app"))
    turned = draws_of(shipped).isel(arm=[1, 0])
    own = from_posterior(turned, shipped.cells, link="logit")
    pd.testing.assert_frame_equal(own.table(), shipped.table())


def test_one_arm_needs_no_dim(shipped: Fit, own: Fit) -> None:
    found = draws_of(shipped).isel(arm=0, drop=True)
    pd.testing.assert_frame_equal(from_posterior(found, shipped.cells, link="logit").table(), own.table())


def test_two_arms_do() -> None:
    shipped = example_fit(4, arms=("control", "email", "app"))
    with pytest.raises(DataError, match=r"no dim arm, and the cells have 2 treated arms .*: add the dim arm"):
        from_posterior(draws_of(shipped).isel(arm=0, drop=True), shipped.cells, link="logit")


def test_counts_on_the_identity_link_become_means() -> None:
    n, events = np.array([[100, 120], [80, 90]]), np.array([[10, 24], [0, 9]])
    cells = table({"n": n, "events": events}, arms=("control", "email"), control="control")
    effect = np.random.default_rng(0).normal(0.1, 0.03, (4, 500, 2))
    own = from_posterior(
        xr.Dataset({"effect": (("chain", "draw", "segment"), effect)}, {"segment": ["s0", "s1"]}), cells
    )
    found = own.table()
    np.testing.assert_allclose(found["raw"], events[:, 1] / n[:, 1] - events[:, 0] / n[:, 0], rtol=1e-12)
    p = events[0] / n[0]
    welch = np.sqrt((p * (1 - p) / (n[0] - 1)).sum())  # the unbiased variance of zeros and ones
    assert found["raw_se"][0] == pytest.approx(welch, rel=1e-12)
    np.testing.assert_allclose(found["effect"], effect.mean((0, 1)), rtol=1e-12)


def test_divergences_and_chains_that_disagree_are_noticed(shipped: Fit) -> None:
    tree = shipped.tree.copy()
    stats = tree["sample_stats"].to_dataset().copy(deep=True)
    stats["diverging"][1, 7] = True
    tree["sample_stats"] = xr.DataTree(stats)
    found = from_posterior(tree, shipped.cells, link="logit").diagnosis
    assert not found.ok
    assert found.divergences == 1
    apart = draws_of(shipped).copy(deep=True)
    apart["effect"][0] += 5
    assert from_posterior(apart, shipped.cells, link="logit").diagnosis.rhat_max > 1.5


def test_other_variables_are_kept_and_not_judged(shipped: Fit) -> None:
    stuck = draws_of(shipped).assign(mine=(("chain", "draw"), np.zeros((4, 250))))
    fit = from_posterior(stuck, shipped.cells, link="logit")
    assert "mine" in fit.tree["posterior"]
    assert fit.diagnosis.ok


def test_a_certificate_of_the_exact_engine_cannot_be_borrowed(shipped: Fit) -> None:
    tree = shipped.tree.copy()
    stats = tree["sample_stats"].to_dataset()
    tree["sample_stats"] = xr.DataTree(stats.assign(pareto_k=0.1, effective_points=1e6, quadrature_error=0.0))
    assert from_posterior(tree, shipped.cells, link="logit").diagnosis.pareto_k is None


WRONG = {
    "no variable effect": lambda d: d.drop_vars("effect"),
    "missing are": lambda d: d.isel(segment=slice(0, 4)),
    "not in the cells are": lambda d: d.assign_coords(segment=["?", *d["segment"].values[1:]]),
    "has no labels": lambda d: d.drop_vars("segment"),
    "the control left out": lambda d: d.assign_coords(arm=["control"]),
    "it needs": lambda d: d.assign(effect=d["effect"].expand_dims(copy=["a", "b"])),
    "not finite": lambda d: d.assign(effect=d["effect"].where(d["effect"] < 10**9).where(d["draw"] > 0)),
    "need the control's level": lambda d: d.drop_vars("baseline"),
    "too few": lambda d: d.isel(draw=slice(0, 99)),
    "is an SD": lambda d: d.assign(effect_between=-d["effect_between"]),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_matched_is_refused_with_the_way_out(shipped: Fit, said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_posterior(WRONG[said](draws_of(shipped)), shipped.cells, link="logit")


def test_links_must_fit_the_cells(shipped: Fit) -> None:
    with pytest.raises(DataError, match="go with link logit or identity, not log"):
        from_posterior(draws_of(shipped), shipped.cells, link="log")
    with pytest.raises(ArgumentError, match="no link 'probit'"):
        from_posterior(draws_of(shipped), shipped.cells, link="probit")  # type: ignore[arg-type]


def test_published_estimates_have_no_baseline() -> None:
    shipped = example_fit(4, "estimate")
    draws = draws_of(shipped)
    with pytest.raises(DataError, match="have no baseline"):
        from_posterior(draws.assign(baseline=draws["effect"].isel(arm=0, drop=True)), shipped.cells)


def test_a_tree_without_posterior_is_refused(shipped: Fit) -> None:
    with pytest.raises(DataError, match="no group posterior"):
        from_posterior(xr.DataTree(shipped.cells), shipped.cells)


def test_the_cells_of_the_caller_are_left_alone(shipped: Fit) -> None:
    before, draws = shipped.cells.copy(deep=True), draws_of(shipped).copy(deep=True)
    from_posterior(draws, shipped.cells)
    xr.testing.assert_identical(shipped.cells, before)
    xr.testing.assert_identical(draws, draws_of(shipped))


def test_it_is_saved_and_read_back(own: Fit, tmp_path: Path) -> None:
    again = load(own.save(tmp_path / "fit.nc"))
    pd.testing.assert_frame_equal(again.table(), own.table())
    assert again.diagnosis == own.diagnosis


def test_the_report_names_the_model_and_shows_no_prior(own: Fit, tmp_path: Path) -> None:
    page = own.report(tmp_path / "report.html").read_text()
    assert "By hand" in page
    assert "model of your own" in page
    assert "HalfNormal" not in page


def test_without_a_between_sd_there_is_no_pooling_factor(shipped: Fit) -> None:
    fit = from_posterior(draws_of(shipped).drop_vars("effect_between"), shipped.cells, link="logit")
    assert fit.table()["pooling"].isna().all()


@pytest.mark.parametrize("name", ["model", "pymc_model", "sensitivity", "given_tau"])
def test_what_needs_the_model_is_refused(own: Fit, name: str) -> None:
    with pytest.raises(ModelError, match="a model of your own"):
        getattr(own, name)()


@pytest.mark.parametrize("function", [loso, compare])
def test_scores_need_the_model(own: Fit, function: Callable[[Fit], pd.DataFrame]) -> None:
    with pytest.raises(ModelError, match="a model of your own"):
        function(own)


def test_a_report_needs_no_pooling_factor(shipped: Fit, own: Fit, tmp_path: Path) -> None:
    unpooled = draws_of(shipped).drop_vars(["effect_between", "effect_mean"])
    fit = from_posterior(unpooled, shipped.cells, link="logit")
    page = fit.report(tmp_path / "report.html").read_text()
    assert "nan" not in page.lower().replace("nan)", "").split("<body")[1].split("glossary")[0].split("svg")[0]
    explained = "“Pooling” is the share"
    assert 'data-head="Pooling"' not in page
    assert explained not in page
    assert explained in own.report(tmp_path / "pooled.html").read_text()


def test_groups_that_need_the_model_are_left_out(own: Fit) -> None:
    found = set(own.posterior.children)
    assert {"posterior", "sample_stats", "cells"} <= found
    assert not found & {"prior", "log_prior", "log_likelihood", "prior_predictive", "posterior_predictive"}


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "own_model" / "run.py", page], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("passed")
    lines = [line for line in done.stdout.splitlines() if "tablet" in line and "IN" in line]
    assert float(lines[0].split()[-1]) > 0.9  # the broken form is found, and
    assert page.exists()


def test_lower_can_be_better_for_draws_of_ones_own(shipped: Fit) -> None:
    given = from_posterior(shipped.tree, shipped.cells, link="logit", higher_is_better=False)
    assert not given.question().higher_is_better
    assert from_posterior(shipped.tree, shipped.cells, link="logit").question().higher_is_better
