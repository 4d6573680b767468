"""Ranks and best arms equal brute force over the draws."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import example_fit, example_plan

from bayes_hte import ArgumentError, DataError, Fit
from bayes_hte.estimands.effects import compute_effects

FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]
ARMS = ("control", "sms", "email")  # not in alphabetical order


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("best", ["highest", "lowest"])
def test_ranks_equal_counting_in_every_draw(family: Any, best: Any) -> None:
    fit = example_fit(4, family, arms=ARMS, dimensions=("device", "plan"))
    found = fit.ranks(best=best, ci_prob=0.8)
    assert list(found.columns) == [
        "device", "plan", "arm", "rank_mean", "rank_low", "rank_high", "p_best", "p_worst",
        "reliable",
    ]  # fmt: skip
    draws = compute_effects(fit.tree).values.reshape(-1, 4, 2) * (1 if best == "highest" else -1)
    for row, (s, a) in enumerate(np.ndindex(4, 2)):
        rank = 1 + (draws[:, :, a] > draws[:, [s], a]).sum(1)
        expected = [rank.mean(), *np.quantile(rank, [0.1, 0.9]), (rank == 1).mean(), (rank == 4).mean()]
        assert found.iloc[row, 3:-1].tolist() == pytest.approx(expected, rel=1e-12)
    assert found.groupby("arm")["p_best"].sum().to_numpy() == pytest.approx([1, 1])
    assert found.groupby("arm")["rank_mean"].mean().to_numpy() == pytest.approx([2.5, 2.5])


def test_the_plan_says_which_effects_are_good() -> None:
    worse = example_fit(4, plan=example_plan(report={"higher_is_better": False}))
    pd.testing.assert_frame_equal(worse.ranks(), worse.ranks(best="lowest"))
    assert not worse.ranks().equals(worse.ranks(best="highest"))


def test_segments_with_one_common_effect_share_their_ranks() -> None:
    found = example_fit(4, pooling="complete").ranks("link")
    assert found["rank_mean"].to_numpy() == pytest.approx([2.5] * 4)
    assert found["p_best"].to_numpy() == pytest.approx([0.25] * 4)


def test_ranks_that_mean_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="one segment"):
        example_fit(1).ranks()
    with pytest.raises(ArgumentError, match='"highest" or "lowest", not \'first\''):
        example_fit(2).ranks(best="first")  # type: ignore[arg-type]


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("scale", ["absolute", "link"])
def test_the_best_arm_equals_comparing_the_arms_in_every_draw(higher: bool, scale: Any) -> None:
    fit = example_fit(3, arms=ARMS, effect=[0.3, 0.0, -0.3], plan=example_plan(report={"higher_is_better": higher}))
    found = fit.best_arm(scale)
    assert list(found.columns) == ["device", "arm", "effect", "p_best", "p_mcse", "expected_loss", "reliable"]
    assert found["arm"].tolist() == [*ARMS] * 3
    draws = compute_effects(fit.tree, scale).values.reshape(-1, 3, 2)
    every = np.concatenate([np.zeros((len(draws), 3, 1)), draws], axis=2)
    gain = every if higher else -every
    best, loss = gain == gain.max(2, keepdims=True), gain.max(2, keepdims=True) - gain
    assert found["effect"].to_numpy() == pytest.approx(every.mean(0).ravel())
    assert found["p_best"].to_numpy() == pytest.approx(best.mean(0).ravel())
    assert found["expected_loss"].to_numpy() == pytest.approx(loss.mean(0).ravel())
    assert (found["p_mcse"] > 0).all()


def test_with_one_treated_arm_the_best_arm_is_a_matter_of_its_sign() -> None:
    fit = example_fit(3, effect=[0.2, 0.0, -0.2])
    found = fit.best_arm().set_index("arm")
    assert found.loc["email", "p_best"].to_numpy() == pytest.approx(fit.table()["p_positive"].to_numpy())
    known = xr.DataArray([[0.6], [0.5], [0.0003]], dims=("segment", "arm"),
                         coords={"segment": fit.tree["posterior"]["segment"], "arm": ["email"]})  # fmt: skip
    tree = fit.tree.copy()
    tree["sign"] = xr.DataTree(xr.Dataset({"p_positive": known, "p_positive_mcse": 0 * known + 1e-5}))
    better = Fit(tree).best_arm().set_index("arm")
    assert better.loc["email", "p_best"].tolist() == [0.6, 0.5, 0.0003]
    assert better.loc["control", "p_best"].to_numpy() == pytest.approx([0.4, 0.5, 0.9997])


def test_both_kinds_of_answers_do_not_depend_on_the_order_of_segments() -> None:
    fit = example_fit(3, arms=ARMS)
    for order in itertools.permutations(range(3)):
        tree = fit.tree.copy()
        for group in ("posterior", "cells"):
            tree[group] = xr.DataTree(fit.tree[group].to_dataset().isel(segment=list(order)))
        turned = Fit(tree)
        for answer in (Fit.ranks, Fit.best_arm):
            before = answer(fit).sort_values(["device", "arm"]).set_index(["device", "arm"])
            after = answer(turned).sort_values(["device", "arm"]).set_index(["device", "arm"])
            np.testing.assert_allclose(after.astype(float), before.astype(float), rtol=1e-12)
