"""The policy curve: cumulative gains by hand, a band that holds whole curves, and how often a place flips."""

from itertools import product

import numpy as np
import pytest

import bayes_hte as hte
from bayes_hte.decisions.policy.curve import compute_simultaneous_band

FIT = hte.example_fit()
RULE = hte.Rule(cost=0.005)
SHARES = (FIT.cells["n"].sum("arm") / FIT.cells["n"].sum()).values
NET = (FIT.effects("absolute").sel(arm="short") - 0.005).transpose("segment", "chain", "draw").values.reshape(6, -1)


def test_the_curve_adds_segments_in_the_order_of_their_net_gain() -> None:
    curve = FIT.policy_curve(RULE)
    order = np.argsort(-NET.mean(axis=1))
    cumulative = np.cumsum(SHARES[order, None] * NET[order], axis=0)
    np.testing.assert_allclose(curve["share_treated"], np.cumsum(SHARES[order]))
    np.testing.assert_allclose(curve["gain"], cumulative.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(curve["ci_high"], np.quantile(cumulative, 0.975, axis=1), atol=1e-12)
    assert curve["device"].tolist() == FIT.cells["device"].values[order].tolist()


def test_the_curve_meets_the_table_of_policies() -> None:
    curve, policies = FIT.policy_curve(RULE), FIT.policy(RULE).set_index("policy")
    everyone, chosen = policies.loc["ship to all"], policies.loc["ship to the chosen segments"]
    assert curve["gain"].iloc[-1] == pytest.approx(everyone["gain"], abs=1e-12)
    assert curve["gain"].max() == pytest.approx(chosen["gain"], abs=1e-12)
    assert float((curve["population_share"] * curve["part_treated"]).sum()) == pytest.approx(chosen["share_treated"])


def test_a_place_flips_as_often_as_the_best_of_all_sets_differs() -> None:
    curve = FIT.policy_curve(RULE)
    all_sets = np.array(list(product((0, 1), repeat=6)))
    best_sets = all_sets[(all_sets @ (SHARES[:, None] * NET)).argmax(axis=0)]
    order = np.argsort(-NET.mean(axis=1))
    np.testing.assert_allclose(curve["p_optimal"], best_sets.mean(axis=0)[order], atol=1e-12)
    chosen = (NET.mean(axis=1) > 0)[order]
    np.testing.assert_allclose(curve["p_flip"], (best_sets[:, order] != chosen).mean(axis=0), atol=1e-12)


def test_the_band_holds_the_stated_share_of_whole_curves() -> None:
    curve = FIT.policy_curve(RULE, ci_prob=0.9)
    order = np.argsort(-NET.mean(axis=1))
    cumulative = np.cumsum(SHARES[order, None] * NET[order], axis=0)
    low, high = curve["band_low"].to_numpy()[:, None], curve["band_high"].to_numpy()[:, None]
    inside = ((cumulative >= low) & (cumulative <= high)).all(axis=0)
    # The quantile of 4,000 draws lies between two of them.
    assert inside.mean() == pytest.approx(0.9, abs=2 / 4000)
    assert ((high - low)[:, 0] >= (curve["ci_high"] - curve["ci_low"]) * 0.99).all()


def test_the_band_of_one_row_is_its_interval() -> None:
    samples = np.random.default_rng(1).standard_normal((1, 100_000))
    low, high = compute_simultaneous_band(samples, 0.95)
    # SE of a normal quantile at .975: √(.025 · .975 / n) / φ(1.96) = .0085; 5 of them, one in a million.
    assert (low[0], high[0]) == pytest.approx((-1.96, 1.96), abs=5 * 0.0085)


def test_a_row_that_never_moves_has_no_band() -> None:
    low, high = compute_simultaneous_band(np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]), 0.95)
    assert low[0] == high[0] == 1.0


def test_under_a_budget_the_last_segment_is_treated_in_part() -> None:
    curve = FIT.policy_curve(RULE, budget=0.3)
    assert float((curve["population_share"] * curve["part_treated"]).sum()) == pytest.approx(0.3)
    assert ((curve["part_treated"] > 0) & (curve["part_treated"] < 1)).sum() == 1
