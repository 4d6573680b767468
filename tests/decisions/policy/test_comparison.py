"""Policies are compared by joint draws: gains by hand, brute force over all choices, money, direction, populations."""

import re
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import example_fit
from paths import ROOT
from scipy.stats import norm

import bayes_hte as hte
from bayes_hte.decisions.policy.population import read_population
from bayes_hte.decisions.policy.rule_choice import find_ruled_groups
from bayes_hte.decisions.policy.valuation import check_terms

FIT = hte.example_fit()
EFFECTS = FIT.effects("absolute").sel(arm="short")
SHARES = (FIT.cells["n"].sum("arm") / FIT.cells["n"].sum()).values
RULE = hte.Rule(cost=0.005)


def values_by_policy(table: pd.DataFrame, column: str) -> dict[str, Any]:
    return dict(zip(table["policy"], table[column], strict=True))


def make_normal_fit(means: list[float], sds: list[float], *, lower_is_better: bool = False) -> hte.Fit:
    """A fit of a posterior of independent normals, 20,000 draws, for closed forms."""
    labels = [f"s{i}" for i in range(len(means))]
    estimates = pd.DataFrame({"school": labels, "y": means, "se": sds})
    cells = hte.cells.from_estimates(estimates, segments=["school"], estimate="y", se="se")
    rng = np.random.default_rng(3)
    draws = np.array(means) + np.array(sds) * rng.standard_normal((4, 5000, len(means)))
    posterior = xr.Dataset({"effect": (("chain", "draw", "segment"), draws)}, coords={"segment": labels})
    return hte.from_posterior(posterior, cells, higher_is_better=not lower_is_better)


def test_gains_are_weighted_sums_of_effects_less_costs() -> None:
    policies = FIT.policy(RULE)
    chosen = (EFFECTS.mean(("chain", "draw")) > 0.005).values
    gains = {
        "ship to none": 0 * EFFECTS.isel(segment=0),
        "ship to all": ((EFFECTS - 0.005) * SHARES).sum("segment"),
        "ship to the chosen segments": ((EFFECTS - 0.005) * SHARES * chosen).sum("segment"),
    }
    gains["ship to the segments that the rule calls"] = (
        (EFFECTS - 0.005) * SHARES * (FIT.decide(RULE)["decision"] == "ship").to_numpy()
    ).sum("segment")
    reference = gains["ship to all"]
    for row in policies.to_dict("records"):
        gain = gains[row["policy"]]
        assert row["gain"] == pytest.approx(float(gain.mean()), abs=1e-12)
        assert row["ci_low"] == pytest.approx(float(gain.quantile(0.025)), abs=1e-12)
        assert row["versus_all_high"] == pytest.approx(float((gain - reference).quantile(0.975)), abs=1e-12)
        assert row["p_beats_all"] == pytest.approx(float((gain > reference + 1e-15).mean()), abs=1e-12)
        assert row["p_positive"] == float((gain > 0).mean())
    assert values_by_policy(policies, "share_treated")["ship to the chosen segments"] == pytest.approx(
        float(SHARES @ chosen)
    )
    stacked = np.stack([gain.values.ravel() for gain in gains.values()])
    expected_best = (stacked == stacked.max(axis=0)).mean(axis=1)
    np.testing.assert_allclose(policies["p_best"], expected_best)


def test_the_chosen_segments_are_the_best_of_all_sets() -> None:
    draws = (EFFECTS - 0.005).transpose("segment", "chain", "draw").values.reshape(6, -1)
    all_sets = np.array(list(product((0, 1), repeat=6)))
    gains = all_sets @ (SHARES[:, None] * draws)
    policies = FIT.policy(RULE).set_index("policy")
    chosen = policies.loc["ship to the chosen segments"]
    assert chosen["gain"] == pytest.approx(gains.mean(axis=1).max(), abs=1e-12)
    assert chosen["regret"] == pytest.approx(gains.max(axis=0).mean() - gains.mean(axis=1).max(), abs=1e-12)


def test_normal_posteriors_have_the_closed_form() -> None:
    """Gain Σ w max(0, m), regret Σ w (E max(0, x) − max(0, m)): within 5 Monte-Carlo errors, one in a million."""
    means, sds = np.array([1.0, -0.5, 0.2]), np.array([0.5, 1.0, 0.4])
    policies = make_normal_fit(list(means), list(sds)).policy().set_index("policy")
    chosen = policies.loc["ship to the chosen segments"]
    expected_loss = means * norm.cdf(means / sds) + sds * norm.pdf(means / sds) - np.maximum(means, 0)
    assert chosen["gain"] == pytest.approx(np.maximum(means, 0).mean(), abs=5 * 0.4 / np.sqrt(20_000))
    assert chosen["regret"] == pytest.approx(expected_loss.mean(), abs=5 * 0.4 / np.sqrt(20_000))
    everyone = policies.loc["ship to all"]
    z = means.mean() / (np.sqrt((sds**2).sum()) / 3)
    assert everyone["p_positive"] == pytest.approx(norm.cdf(z), abs=5 * 0.5 / np.sqrt(20_000))
    assert chosen["p_beats_all"] == pytest.approx(norm.cdf(0.5), abs=5 * 0.5 / np.sqrt(20_000))


def test_another_currency_scales_gains_and_leaves_choices_alone() -> None:
    euros = FIT.policy(hte.Rule(value=38.0, cost=0.19))
    cents = FIT.policy(hte.Rule(value=3800.0, cost=19.0))
    money = ["gain", "ci_low", "ci_high", "versus_all", "versus_all_low", "versus_all_high", "raw_gain", "regret"]
    np.testing.assert_allclose(cents[money], 100 * euros[money], rtol=1e-9, atol=1e-12)
    for column in ("policy", "treats", "share_treated", "p_best", "p_beats_all", "outcome_gain"):
        assert cents[column].tolist() == pytest.approx(euros[column].tolist())
    in_outcome = FIT.policy(RULE)
    np.testing.assert_allclose(euros["gain"], 38 * in_outcome["gain"], atol=1e-12)
    assert euros.attrs["gain"] == "money per unit of the population"


def test_a_lower_outcome_that_is_better_gains_by_falling() -> None:
    rises = make_normal_fit([1.0, -0.5, 0.2], [0.5, 1.0, 0.4]).policy()
    falls = make_normal_fit([1.0, -0.5, 0.2], [0.5, 1.0, 0.4], lower_is_better=True).policy()
    assert values_by_policy(rises, "treats")["ship to the chosen segments"] == "s0, s2"
    assert values_by_policy(falls, "treats")["ship to the chosen segments"] == "s1"
    assert values_by_policy(falls, "gain")["ship to all"] == pytest.approx(
        -values_by_policy(rises, "gain")["ship to all"]
    )
    assert values_by_policy(falls, "gain")["ship to the chosen segments"] > 0


def test_another_population_is_the_experiment_weighed_by_hand() -> None:
    population = dict(zip(map(str, FIT.cells["segment"].values), [0.05, 0.05, 0.1, 0.1, 0.3, 0.4], strict=True))
    weights = np.array(list(population.values()))
    policies = FIT.policy(RULE, population)
    by_hand = float(((EFFECTS - 0.005) * weights).sum("segment").mean())
    assert values_by_policy(policies, "gain")["ship to all"] == pytest.approx(by_hand, abs=1e-12)
    assert float(FIT.ate("absolute", weights=population)["effect"].iloc[0]) - 0.005 == pytest.approx(by_hand, abs=1e-12)
    assert policies.attrs["population"] == "the population stated"


def test_a_policy_by_dimension_is_marginal_over_the_others() -> None:
    policies = FIT.policy(RULE, by="device")
    marginal = FIT.marginal("device", "absolute").set_index("level")["effect"] - 0.005
    shares = pd.Series(SHARES).groupby(FIT.cells["device"].values).sum()
    chosen = marginal > 0
    assert values_by_policy(policies, "gain")["ship to the chosen levels of device"] == pytest.approx(
        float((marginal * shares)[chosen].sum()), abs=1e-9
    )
    assert values_by_policy(policies, "treats")["ship to the chosen levels of device"] == "mobile, tablet"
    assert policies.attrs["marginal"].startswith("The choice is among levels of device: marginal over customer")
    finer = FIT.policy(RULE, by=["customer", "device"])
    assert finer["gain"].tolist() == FIT.policy(RULE)["gain"].tolist()
    assert finer.attrs["marginal"] == ""
    # Choosing among fewer groups cannot be expected to gain more.
    assert policies["gain"].max() <= finer["gain"].max()


def test_several_arms_are_compared_with_the_best_of_those_shipped_to_all() -> None:
    fit = example_fit(4, arms=("control", "email", "letter"), effect=[0.4, 0.1, -0.2, 0.3])
    policies = fit.policy(costs={"email": 0.01, "letter": 0.03})
    names = policies["policy"].tolist()
    assert names[1:3] == ["ship 'email' to all", "ship 'letter' to all"]
    assert names[-1] == "ship the best arm for each of the segments"
    gains = values_by_policy(policies, "gain")
    assert policies.attrs["all"] == max(names[1:3], key=gains.__getitem__)
    assert gains[names[-1]] == max(gains.values())
    net = fit.effects("absolute") - xr.DataArray([0.01, 0.03], dims="arm", coords={"arm": ["email", "letter"]})
    expected = net.mean(("chain", "draw")).max("arm").clip(min=0)
    shares = fit.cells["n"].sum("arm") / fit.cells["n"].sum()
    assert gains[names[-1]] == pytest.approx(float((expected * shares).sum()), abs=1e-12)


def test_under_a_budget_no_policy_treats_more() -> None:
    policies = FIT.policy(RULE, budget=0.3)
    assert (policies["share_treated"] <= 0.3 + 1e-12).all()
    assert policies["policy"].tolist()[1] == "ship to 30 % of all, by chance"
    everyone = FIT.policy(RULE).set_index("policy").loc["ship to all"]
    assert policies["gain"].iloc[1] == pytest.approx(0.3 * everyone["gain"], abs=1e-12)
    assert policies["treats"].tolist()[:2] == ["nobody", "30 % of each"]


def test_policies_that_treat_the_same_people_have_one_probability_of_being_best() -> None:
    policies = FIT.policy(hte.Rule(cost=0.0)).set_index("policy")
    everyone, chosen = policies.loc["ship to all"], policies.loc["ship to the chosen segments"]
    assert chosen["treats"] == "all"
    assert chosen["p_best"] == everyone["p_best"] > 0.8
    assert (chosen["versus_all"], chosen["p_beats_all"]) == (0.0, 0.0)


def test_groups_without_anybody_make_no_policy_another_one() -> None:
    phones = {"device": {"mobile": 1.0, "desktop": 0.0, "tablet": 0.0}}
    policies = FIT.policy(hte.Rule(), phones).set_index("policy")
    everyone, ruled = policies.loc["ship to all"], policies.loc["ship to the segments that the rule calls"]
    assert (everyone["treats"], ruled["treats"]) == ("all", "mobile · new, mobile · returning")
    assert ruled["share_treated"] == pytest.approx(1.0)
    assert ruled["p_best"] == everyone["p_best"] > 0.9


def test_the_raw_gain_values_the_same_policy_without_pooling() -> None:
    policies, table = FIT.policy(RULE).set_index("policy"), FIT.table("absolute")
    chosen = (table["effect"] > 0.005).to_numpy()
    expected = float((SHARES * (table["raw"] - 0.005))[chosen].sum())
    assert policies.loc["ship to the chosen segments", "raw_gain"] == pytest.approx(expected, abs=1e-12)


def test_a_segment_that_was_not_tested_has_no_raw_gain() -> None:
    fit = example_fit(4, effect=[0.5, 0.5, 0.5, 0.5], one_armed=(3,))
    policies = fit.policy().set_index("policy")
    assert np.isnan(policies.loc["ship to all", "raw_gain"])
    assert policies.loc["ship to none", "raw_gain"] == 0.0
    by_level = fit.policy(
        population=dict(zip(map(str, fit.cells["segment"].values), [0.4, 0.3, 0.3, 0.0], strict=True))
    )
    assert np.isfinite(by_level["raw_gain"]).all()


@pytest.mark.parametrize("family", ["binomial", "normal", "mean", "estimate"])
def test_every_family_and_a_saved_fit_have_policies(family: Any, tmp_path: Any) -> None:
    fit = example_fit(5, family)
    policies = fit.policy(hte.Rule(cost=0.05))
    assert policies.columns[-1] == "reliable"
    loaded = hte.load(fit.save(tmp_path / "fit.nc")).policy(hte.Rule(cost=0.05))
    np.testing.assert_allclose(loaded["gain"], policies["gain"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 30}, "budget is the largest share of the population"),
        ({"budget": 0}, "such as 0.3 for 30 %, not 0"),
        ({"budget": "all"}, "not 'all'"),
        ({"by": "country"}, "by names the dimension 'country'; there are 'device', 'customer'"),
        ({"by": []}, "by is empty"),
        ({"costs": {"long": 1.0}}, "one finite number for each of the arms 'short'"),
        ({"costs": 0.1}, "costs must be a dict"),
        ({"rule": 0.95}, "rule is 0.95; give hte.Rule"),
        ({"ci_prob": 95}, "ci_prob is a probability"),
    ],
)
def test_terms_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(hte.ArgumentError, match=message):
        FIT.policy(**options)


def test_where_the_rule_ships_is_what_fit_decide_calls() -> None:
    decisions = FIT.decide(hte.Rule(cost=0.005))
    called = (decisions["decision"] == "ship").to_numpy()
    assert 0 < called.sum() < 6
    policies = FIT.policy(RULE).set_index("policy")
    ruled = policies.loc["ship to the segments that the rule calls"]
    net = EFFECTS - 0.005
    assert ruled["gain"] == pytest.approx(float((net * SHARES * called).sum("segment").mean()), abs=1e-12)


def test_of_several_arms_the_rule_ships_the_one_it_calls() -> None:
    fit = example_fit(4, arms=("control", "email", "letter"), effect=[0.6, 0.5, -0.2, 0.5])
    decisions = fit.decide()
    shipped = decisions[decisions["decision"] == "ship"]
    treated = fit.policy().set_index("policy").loc["ship to the segments that the rule calls", "treats"]
    assert treated == ", ".join(shipped["device"])


def test_costs_by_arm_decide_which_of_the_called_arms_is_shipped() -> None:
    fit = example_fit(3, arms=("control", "email", "letter"), effect=0.6, units=50_000, pooling="none")
    costs = {"email": 0.0, "letter": 1.0}
    # Both arms surely help; by costs of 0 a letter may be the one that gains more.
    for names in (costs, dict(zip(costs, reversed(costs.values()), strict=True))):
        free_arm = min(names, key=lambda arm: names[arm])
        policies = fit.policy(costs=names).set_index("policy")
        ruled = policies.loc["ship to the segments that the rule calls"]
        assert ruled["treats"] == "all"
        assert ruled["gain"] == pytest.approx(policies.loc[f"ship {free_arm!r} to all", "gain"], abs=1e-12)


def test_a_rule_is_held_against_the_average_of_a_level() -> None:
    """On the relative scale, with another population: by hand, from draws of both arms' means."""
    population = {"device": {"mobile": 0.2, "desktop": 0.7, "tablet": 0.1}}
    rule = hte.Rule(ship=[(0.05, 0.8)], stop=[(0.0, 0.95)])
    question = FIT.question("relative")
    terms = check_terms(FIT.tree, population, by="device")
    called = find_ruled_groups(FIT.tree, question, rule, terms).sel(arm="short")
    weights = read_population(FIT.cells, population).to_series()
    for level in ("mobile", "desktop", "tablet"):
        marginal = FIT.marginal("device", "relative", ci_prob=0.6, weights=weights).set_index("level").loc[level]
        # P(benefit > 0.05) ≥ 0.8 where the lower end of the central 60 % interval is above it.
        assert bool(called.sel(group=level)) == (marginal["ci_low"] >= 0.05)
    assert called.any()
    assert not called.all()


def test_nothing_is_called_before_the_direction_is_known() -> None:
    fit = example_fit(4, effect=0.6, dimensions=("device", "customer"), outcome="deaths")
    for by in (None, "device"):
        policies = fit.policy(by=by)
        assert policies[policies["policy"].str.endswith("that the rule calls")]["treats"].tolist() == ["nobody"]


def test_the_page_shows_what_its_first_example_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Within 5 Monte-Carlo errors of a probability, for engines that draw other numbers: 5 · √(.25 / 4,000) = .04."""
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    code, shown = re.findall(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```", page, flags=re.M | re.S)[0]
    exec(compile(code, "docs/policies.md", "exec"), {})  # noqa: S102 (the project's own documents)
    printed = capsys.readouterr().out
    number = r"-?\d+\.\d+"
    assert re.sub(rf"\s+{number}", "", printed) == re.sub(rf"\s+{number}", "", shown)
    numbers = [[float(text) for text in re.findall(number, table)] for table in (printed, shown)]
    np.testing.assert_allclose(*numbers, atol=0.04)


def test_the_rule_is_on_the_scale_that_decide_takes() -> None:
    rule = hte.Rule(ship=[(0.05, 0.8)], stop=[(0.0, 0.95)])
    called = FIT.decide(rule, scale="relative").query("decision == 'ship'")
    policies = FIT.policy(rule, scale="relative").set_index("policy")
    treated = policies.loc["ship to the segments that the rule calls", "treats"]
    assert treated == ", ".join(called["device"] + " · " + called["customer"])
    # An effect of five percentage points is far above all of these; gains are absolute whatever the scale.
    assert FIT.policy(rule).set_index("policy").loc["ship to the segments that the rule calls", "treats"] == "nobody"
    assert policies.loc["ship to all", "gain"] == FIT.policy().set_index("policy").loc["ship to all", "gain"]
