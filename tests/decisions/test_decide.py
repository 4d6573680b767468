"""Decisions per segment and arm: what the table holds, when nothing is called, which arm, and the reason in words."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import CHAINS, example_fit, example_plan

import bayes_hte as hte
from bayes_hte import Fit
from bayes_hte.estimands.effects import compute_effects

COLUMNS = [
    "arm", "decision", "why", "p_benefit", "p_harm", "p_equivalent", "expected_gain", "expected_loss", "p_wrong",
    "pooling", "reliable",
]  # fmt: skip
FAMILIES: list[Any] = ["binomial", "normal", "mean", "estimate"]
ARMS = ("control", "sms", "email")


def own_fit(
    benefits: np.ndarray, arms: tuple[str, ...] = ("new",), *, spread: float = 1.0, ses: float = 0.1, **options: Any
) -> Fit:
    """A fit of draws chosen by hand, dims (draw, segment, arm); what is borrowed is se² / (se² + spread²)."""
    draw_count, segment_count, arm_count = benefits.shape
    table = pd.DataFrame(
        [(f"s{s}", arm, 0.5, ses) for s in range(segment_count) for arm in arms], columns=["site", "arm", "y", "se"]
    )
    cells = hte.cells.from_estimates(table, segments=["site"], estimate="y", se="se", arm="arm")
    draws = benefits.reshape(CHAINS, draw_count // CHAINS, segment_count, arm_count)
    coords = {"segment": [f"s{s}" for s in range(segment_count)], "arm": list(arms)}
    posterior = xr.Dataset({"effect": (("chain", "draw", "segment", "arm"), draws)}, coords)
    posterior["effect_mean"] = (("chain", "draw", "arm"), draws.mean(axis=2))
    # Hardly varying: a constant would fail the diagnosis.
    jitter = 1 + 1e-9 * np.random.default_rng(1).standard_normal(posterior["effect_mean"].shape)
    posterior["effect_between"] = posterior["effect_mean"].copy(data=spread * jitter)
    return hte.from_posterior(posterior, cells, **options)


def normal_draws(means: Any, sd: float = 0.1, seed: int = 3) -> np.ndarray:
    """Draws around means, dims (draw, segment, arm)."""
    means = np.atleast_2d(np.asarray(means, dtype=float))
    return np.random.default_rng(seed).normal(means, sd, (2000, *means.shape))


def decided(means: Any, rule: hte.Rule | None = None, arms: tuple[str, ...] = ("new",), **options: Any) -> pd.DataFrame:
    means = np.asarray(means, dtype=float)
    means = means[:, None] if means.ndim == 1 else means
    return own_fit(normal_draws(means), arms, **options).decide(rule)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("higher", [True, False])
def test_the_table_is_what_a_loop_over_joint_draws_gives(family: Any, higher: bool) -> None:
    plan = example_plan(report={"higher_is_better": higher})
    fit = example_fit(
        4, family, arms=ARMS, dimensions=("device", "plan"), effect=(2.0, 0.0, -2.0, 0.02), units=40_000, plan=plan
    )
    rule = hte.Rule(ship=[(0.0, 0.9), ("matters", 0.5)], stop=[(0.0, 0.9)], matters=0.01, cost=0.001, value=2.0)
    found = fit.decide(rule)
    assert list(found.columns) == ["device", "plan", *COLUMNS]
    benefits = compute_effects(fit.tree).transpose("segment", "arm", "chain", "draw").values
    benefits = benefits.reshape(*benefits.shape[:2], -1) * (1 if higher else -1)
    for row, draws in zip(found.to_dict("records"), benefits.reshape(-1, benefits.shape[-1]), strict=True):
        assert row["p_benefit"] == np.mean(draws > 0.01)
        assert row["p_harm"] == np.mean(draws < -0.01)
        assert row["p_equivalent"] == np.mean(abs(draws) <= 0.01)
        gains = 2.0 * draws - 0.001
        assert row["expected_gain"] == pytest.approx(gains.mean(), rel=1e-9)
        assert row["expected_loss"] == pytest.approx(np.maximum(-gains, 0).mean(), rel=1e-9)
        wrong = {"ship": np.mean(draws <= 0), "stop": np.mean(draws >= 0), "equivalent": np.mean(abs(draws) > 0.01)}
        assert row["p_wrong"] == pytest.approx(wrong.get(row["decision"], np.nan), abs=1e-12, nan_ok=True)
        if row["decision"] == "ship":
            assert np.mean(draws > 0) >= 0.9
            assert np.mean(draws > 0.01) >= 0.5
        if row["decision"] == "stop":
            assert np.mean(draws < 0) >= 0.9
    assert {"ship", "stop"} <= set(found["decision"])


def test_ship_stop_equivalent_and_undecided_each_say_why_with_numbers() -> None:
    found = decided([0.5, -0.5, 0.02, 0.12], hte.Rule(matters=0.2))
    assert found["decision"].tolist() == ["ship", "stop", "equivalent", "undecided"]
    ship, stop, equivalent, undecided = found["why"]
    assert ship.startswith(
        "The benefit is above 0 with probability > 99.9 % (95 % needed) and above 0.2 with probability"
    )
    assert "Shipping gains 0.5" in ship
    assert stop == "The benefit is below 0 with probability > 99.9 % (95 % needed)."
    assert equivalent.startswith("The effect is too small to matter: it lies within ±0.2 with probability 9")
    assert undecided.startswith("To ship, the benefit must be above 0 with probability 95 %, and is with 8")
    harmful = decided([-0.12], hte.Rule(matters=0.05))["why"][0]
    assert harmful.startswith("To stop, the benefit must be below 0 with probability 95 %, and is with 8")


@pytest.mark.parametrize(("p_above", "text"), [(0.9497, "just below 95 %"), (0.9494, "94.9 %"), (0.95, None)])
def test_what_falls_just_short_of_what_is_needed_does_not_read_as_if_it_were_met(
    p_above: float, text: str | None
) -> None:
    draws = np.where(np.arange(10_000) < round(10_000 * p_above), 0.1, -0.01)
    row = own_fit(np.random.default_rng(1).permutation(draws)[:, None, None]).decide().iloc[0]
    assert row["decision"] == ("ship" if text is None else "undecided")
    if text is not None:
        assert row["why"] == f"To ship, the benefit must be above 0 with probability 95 %, and is with {text}."


def test_a_segment_that_mostly_borrows_is_never_called_on_its_own() -> None:
    # se² / (se² + tau²) = .01 / (.01 + .0016) = .86
    found = decided([0.5, -0.5, 0.6], spread=0.04)
    assert found["decision"].tolist() == ["undecided"] * 3
    assert found["pooling"].round(2).tolist() == [0.86] * 3
    assert all("86 % of this estimate is borrowed" in why and "not called on its own" in why for why in found["why"])
    assert "The rule alone would say stop. All segments together: ship. The benefit is above 0" in found["why"][1]
    # .01 / (.01 + .00251) is just below .8
    assert decided([0.5], spread=0.0501)["decision"].tolist() == ["ship"]


def test_segments_of_one_common_effect_are_called_together() -> None:
    fit = example_fit(4, pooling="complete", effect=0.8)
    found = fit.decide()
    assert found["pooling"].tolist() == [1.0] * 4
    assert set(found["decision"]) == {"ship"}
    assert all(
        why.endswith("The model gives all segments one effect: they are called together.") for why in found["why"]
    )


def test_a_segment_without_data_in_an_arm_is_undecided() -> None:
    found = example_fit(4, effect=0.9, one_armed=(1,)).decide()
    assert found["decision"][1] == "undecided"
    assert found["why"][1].startswith("There are no data in this segment and arm")
    assert found["decision"][0] == "ship"


def test_nothing_is_called_while_it_is_doubtful_which_direction_is_better() -> None:
    fit = example_fit(2, effect=(2.0, -2.0), outcome="refunds", units=20_000)
    assert set(fit.decide()["decision"]) == {"undecided"}
    assert all("higher_is_better" in why for why in fit.decide()["why"])
    plan = example_plan(report={"higher_is_better": False})
    stated = example_fit(2, effect=(2.0, -2.0), outcome="refunds", units=20_000, plan=plan)
    assert stated.decide()["decision"][0] == "stop"


def test_of_the_arms_that_may_be_shipped_only_the_best_is() -> None:
    found = decided([[0.5, 0.8, -0.5], [0.5, 0.0, -0.4]], arms=("a", "b", "c"))
    assert found["decision"].tolist() == ["undecided", "ship", "stop", "ship", "undecided", "stop"]
    assert found["why"][0].startswith(
        "It may be shipped, but another arm gains more. Of 3 arms and the control, 'b' is"
    )
    assert found["why"][1].endswith("'b' is the best with probability 97.6 %.")
    assert "'a' is the best" in found["why"][3]


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_names_and_order_of_arms_leave_every_decision_as_it_is(order: tuple[str, ...]) -> None:
    means, arms = np.array([[0.5, 0.8, -0.5], [0.5, 0.0, -0.4]]), ("a", "b", "c")
    places = [arms.index(arm) for arm in order]
    benefits = normal_draws(means)
    before = own_fit(benefits, arms).decide().set_index(["site", "arm"])["decision"]
    after = own_fit(benefits[:, :, places], order).decide().set_index(["site", "arm"])["decision"]
    assert after.to_dict() == before.to_dict()


def test_what_costs_more_than_it_brings_is_not_shipped() -> None:
    found = decided([0.5, 0.9], hte.Rule(cost=0.7))
    assert found["decision"].tolist() == ["undecided", "ship"]
    assert "It costs 0.7 per treated unit, which is 0.1965 more than it brings on average" in found["why"][0]
    in_money = decided([0.5, 0.9], hte.Rule(cost=7.0, value=10.0))
    assert in_money["decision"].tolist() == ["undecided", "ship"]
    assert in_money.attrs["gain_units"] == "money per treated unit"
    assert "in money, which is" in in_money["why"][0]
    assert found.attrs["all_segments"] == {"new": found.attrs["all_segments"]["new"]}


def test_the_average_over_segments_is_not_shipped_at_a_loss_either() -> None:
    found = decided([0.5, 0.9], hte.Rule(cost=0.8))
    assert found.attrs["all_segments"]["new"].startswith("All segments together: undecided. The benefit is above 0")
    assert (
        decided([0.5, 0.9], hte.Rule(cost=0.6)).attrs["all_segments"]["new"].startswith("All segments together: ship")
    )


def test_a_sign_that_is_called_while_the_interval_holds_0_is_explained() -> None:
    row = decided([0.185])
    assert row["decision"].tolist() == ["ship"]
    assert "The 95 % interval, −0.0" in row["why"][0]
    assert (
        "holds 0 all the same: the probability counts one side of 0, and the interval leaves out 2.5 %" in row["why"][0]
    )
    assert "interval" not in decided([0.5])["why"][0]


@pytest.mark.parametrize(
    ("scale", "unit"), [("relative", "2 %"), ("absolute", "2 percentage points"), ("link", "0.02")]
)
def test_sizes_are_written_in_the_units_of_the_scale(scale: Any, unit: str) -> None:
    fit = example_fit(3, effect=0.9)
    found = fit.decide(hte.Rule(matters=0.02), scale=scale)
    assert f"above {unit} with probability" in found["why"][0]
    # Gains add up over people on the absolute scale only.
    np.testing.assert_allclose(found["expected_gain"], fit.table("absolute")["effect"], rtol=1e-9)


def test_a_failed_diagnosis_is_said_beside_every_call() -> None:
    found = example_fit(3, effect=0.9, ok=False).decide()
    assert not found["reliable"].any()
    assert all(why.endswith("mend that before you act.") for why in found.loc[found["decision"] == "ship", "why"])


def test_a_saved_fit_decides_by_the_rule_of_its_plan(tmp_path: Any) -> None:
    plan = example_plan(decision={"ship": [{"above": 0.0, "p": 0.9}], "cost": 0.001}, report={"rope": 0.01})
    fit = example_fit(3, effect=0.9, plan=plan)
    again = hte.load(fit.save(tmp_path / "fit.nc"))
    pd.testing.assert_frame_equal(again.decide(), fit.decide(), rtol=1e-5)
    assert "(90 % needed)" in fit.decide()["why"][0]


def test_an_exact_fit_decides_by_the_signs_that_its_engine_computed() -> None:
    fit = hte.example_fit()
    table, found = fit.table(), fit.decide(hte.Rule(ship=[(0.0, 0.9)], matters=0.001))
    called = found["decision"] == "ship"
    assert called.any()
    np.testing.assert_allclose(found.loc[called, "p_wrong"], 1 - table.loc[called, "p_positive"], rtol=1e-12)


def test_the_table_has_the_decisions_of_a_rule_and_the_columns_of_its_size() -> None:
    plan = example_plan(decision={}, report={"rope": 0.01})
    fit, plain = example_fit(3, effect=0.9, plan=plan), example_fit(3, effect=0.9)
    assert list(fit.table().columns[-5:]) == ["p_rope", "p_benefit", "p_harm", "decision", "reliable"]
    assert fit.table()["decision"].tolist() == fit.decide()["decision"].tolist()
    # The plan's rule is for its own scale.
    assert "decision" not in fit.table("relative").columns
    assert "decision" not in plain.table().columns
    rule = hte.Rule(matters=0.01)
    assert plain.table(rule=rule)["decision"].tolist() == plain.decide(rule)["decision"].tolist()
    for name, decided_name in (("p_rope", "p_equivalent"), ("p_benefit", "p_benefit"), ("p_harm", "p_harm")):
        assert plain.table(rule=rule)[name].tolist() == plain.decide(rule)[decided_name].tolist()
