"""Heterogeneity equals brute force over the draws; Gail & Simon's test equals its publication."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit
from scipy import stats

from bayes_hte import Fit
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.heterogeneity import compute_gail_simon_p
from bayes_hte.estimands.weights import compute_population_shares

FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]
ARMS = ("control", "sms", "email")  # not in alphabetical order


def redrawn(fit: Fit, effect: dict[str, Any] | None = None, **values: Any) -> Fit:
    """The same fit with other draws, and with other entries in its model's table [effect]."""
    tree = fit.tree.copy()
    tree["posterior"] = xr.DataTree(fit.tree["posterior"].to_dataset().assign(values))
    model = json.loads(fit.tree.attrs["model"])
    tree.attrs["model"] = json.dumps(model | {"effect": model["effect"] | (effect or {})})
    return Fit(tree)


def hyper(*labels: tuple[str, list[str]], seed: int = 5) -> xr.DataArray:
    """Positive draws of a hyperparameter with these dims and labels."""
    shape = [len(names) for _, names in labels]
    values = np.abs(np.random.default_rng(seed).standard_normal((CHAINS, DRAWS, *shape)))
    return xr.DataArray(values, dims=("chain", "draw", *(dim for dim, _ in labels)), coords=dict(labels))


def test_gail_and_simon_have_their_published_p_value() -> None:
    """Disease-free survival at 3 years in four groups of patients, Biometrics 41:361, section 3; p = .088 there."""
    difference, se = np.array([0.163, -0.114, -0.047, -0.151]), np.array([0.0788, 0.0689, 0.0614, 0.0547])
    assert compute_gail_simon_p(difference, se) == pytest.approx(0.0877, abs=5e-5)
    assert compute_gail_simon_p(-difference, se) == compute_gail_simon_p(difference, se)


@pytest.mark.parametrize(("segments", "critical"), [(2, 2.71), (3, 4.23), (4, 5.43), (5, 6.50)])
def test_gail_and_simon_have_their_published_critical_values(segments: int, critical: float) -> None:
    """Table 1, alpha = .05: min(Q+, Q-) equal to the critical value has that p-value, to its two decimals."""
    z = np.array([np.sqrt(critical), *[-np.sqrt(max(critical, 0) / (segments - 1))] * (segments - 1)])
    assert compute_gail_simon_p(z, np.ones(segments)) == pytest.approx(0.05, abs=3e-4)


def test_gail_and_simons_level_is_reached_where_it_is_worst() -> None:
    """One enormous effect and the others 0: 100,000 experiments, within 4 standard errors of 5 %."""
    z = np.random.default_rng(3).standard_normal((100_000, 6)) + np.array([50.0, 0, 0, 0, 0, 0])
    q = np.minimum((z**2 * (z > 0)).sum(1), (z**2 * (z < 0)).sum(1))
    edge = np.quantile(q, 0.95)
    at_edge = np.array([100.0, -np.sqrt(edge), 0, 0, 0, 0])
    assert compute_gail_simon_p(at_edge, np.ones(6)) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 100_000))


def test_gail_and_simon_need_two_estimates_and_see_no_crossing_where_there_is_none() -> None:
    assert np.isnan(compute_gail_simon_p(np.array([1.0, np.nan]), np.array([1.0, 1.0])))
    assert compute_gail_simon_p(np.array([1.0, 2.0, 0.5]), np.ones(3)) == 1.0


def quantities(fit: Fit, arm: str = "email", **asked: Any) -> pd.DataFrame:
    found = fit.heterogeneity(**asked)
    return found[found["arm"] == arm].set_index("quantity")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_heterogeneity_equals_brute_force(family: Any) -> None:
    fit = example_fit(4, family, arms=ARMS, effect=[0.3, -0.1, 0.2, 0.05], units=400)
    found = quantities(fit, rope=0.02)
    draws, share = compute_effects(fit.posterior).values[..., 1], compute_population_shares(fit.cells).values
    mean = (draws * share).sum(-1, keepdims=True)
    spread = np.sqrt(((draws - mean) ** 2 * share).sum(-1))
    posterior = fit.posterior["posterior"]
    expected = {
        "effect_mean": posterior["effect_mean"].values[..., 1].mean(),
        "between_sd": posterior["effect_between"].values[..., 1].mean(),
        "spread": spread.mean(),
        "p_all_positive": (draws > 0).all(-1).mean(),
        "p_all_negative": (draws < 0).all(-1).mean(),
        "share_harmed": share[(draws < 0).mean((0, 1)) > 0.9].sum(),
        "p_spread_matters": (spread > 0.02).mean(),
    }
    assert {name: found.loc[name, "value"] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert found.loc["spread", ["ci_low", "ci_high"]].tolist() == pytest.approx(np.quantile(spread, [0.025, 0.975]))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_inconsistency_is_a_share(family: Any) -> None:
    found = quantities(example_fit(5, family)).loc["i2"]
    assert 0 <= found["ci_low"] <= found["value"] <= found["ci_high"] <= 1


def test_inconsistency_follows_higgins_and_thompson() -> None:
    fit = example_fit(5, "estimate")
    w = fit.cells["se"].values[:, 0] ** -2
    typical = (len(w) - 1) * w.sum() / (w.sum() ** 2 - (w**2).sum())
    tau2 = fit.posterior["posterior"]["effect_between"].values[..., 0] ** 2
    assert quantities(fit).loc["i2", "value"] == pytest.approx((tau2 / (tau2 + typical)).mean())


def test_heterogeneity_leaves_out_what_the_pooling_does_not_have() -> None:
    assert {"effect_mean", "between_sd", "i2"} & set(quantities(example_fit(3, pooling="none")).index) == set()
    assert "between_sd" not in quantities(example_fit(3, pooling="complete")).index


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("rope", [None, 0.02])
def test_a_qualitative_interaction_is_counted_in_every_draw(family: Any, rope: float | None) -> None:
    fit = example_fit(4, family, arms=ARMS, effect=[0.3, -0.3, 0.1, 0.0], units=400)
    found = quantities(fit, rope=rope)
    draws, least = compute_effects(fit.tree).values[..., 1], rope or 0.0
    assert found.loc["p_qualitative", "value"] == ((draws.max(-1) > least) & (draws.min(-1) < -least)).mean()
    table = fit.table()
    table = table[table["arm"] == "email"]
    expected = compute_gail_simon_p(table["raw"].to_numpy(), table["raw_se"].to_numpy())
    assert found.loc["gail_simon_p", "value"] == pytest.approx(expected)
    assert 0 < expected < 1


def test_one_segment_cannot_cross_and_correlated_estimates_have_no_test() -> None:
    assert not {"p_qualitative", "gail_simon_p"} & set(quantities(example_fit(1)).index)
    fit = example_fit(3, "estimate")
    tree = fit.tree.copy()
    covariance = xr.DataArray(np.diag(fit.cells["se"].values[:, 0] ** 2), dims=("segment", "other_segment"))
    tree["cells"] = xr.DataTree(fit.cells.assign(covariance=covariance))
    found = quantities(Fit(tree))
    assert "p_qualitative" in found.index
    assert "gail_simon_p" not in found.index


def test_tau_is_compared_with_what_matters_only_on_its_own_scale() -> None:
    for family, scale, same in [
        ("binomial", "absolute", False),
        ("binomial", "link", True),
        ("mean", "absolute", True),
    ]:
        fit = example_fit(4, family)  # type: ignore[arg-type]
        found = quantities(fit, scale=scale, rope=0.1)
        assert ("p_tau_matters" in found.index) is same
        if same:
            tau = fit.tree["posterior"]["effect_between"].values
            assert found.loc["p_tau_matters", "value"] == (tau > 0.1).mean()


def test_every_stratum_has_its_own_between_segment_sd() -> None:
    fit = example_fit([("tv", "new"), ("tv", "old"), ("pc", "new")], arms=ARMS, dimensions=("device", "plan"))
    between = hyper(("device", ["tv", "pc"]), ("arm", ["sms", "email"]))
    found = quantities(redrawn(fit, {"strata": "device"}, effect_between=between))
    assert found.loc["between_sd[pc]", "value"] == pytest.approx(between.sel(device="pc", arm="email").mean())
    assert not {"between_sd", "i2"} & set(found.index)


def test_one_between_segment_sd_for_all_arms_is_shown_for_each() -> None:
    tau = hyper()
    fit = redrawn(example_fit(3, arms=ARMS), {"shared_between": True}, effect_between=tau)
    for arm in ("sms", "email"):
        assert quantities(fit, arm).loc["between_sd", "value"] == pytest.approx(float(tau.mean()))


def test_crossed_dimensions_slopes_and_correlations_have_rows() -> None:
    fit = example_fit([("tv", "new"), ("tv", "old"), ("pc", "new")], dimensions=("device", "plan"))
    arm = ("arm", ["email"])
    crossed = redrawn(
        fit, {"by": ["*"]}, effect_device_between=hyper(arm, seed=1), effect_plan_between=hyper(arm, seed=2),
        effect_device=hyper(("device", ["tv", "pc"]), arm), effect_plan=hyper(("plan", ["new", "old"]), arm),
    )  # fmt: skip
    found = quantities(crossed, rope=0.2, scale="link")
    parts = [hyper(arm, seed=1), hyper(arm, seed=2), fit.tree["posterior"]["effect_between"]]
    assert found.loc["between_sd[device]", "value"] == pytest.approx(float(parts[0].mean()))
    assert found.loc["between_sd[plan]", "value"] == pytest.approx(float(parts[1].mean()))
    total = sum(part**2 for part in parts) ** 0.5
    assert found.loc["p_tau_matters", "value"] == float((total > 0.2).mean())
    assert "beyond what dimensions explain" in found.loc["between_sd", "meaning"]
    tied = redrawn(fit, {"correlation": {"dist": "LKJ", "eta": 2.0}}, effect_correlation=hyper(arm) / 10)
    assert quantities(tied).loc["correlation", "value"] == pytest.approx(float(hyper(arm).mean()) / 10)


def test_heavy_tails_have_a_larger_sd_than_their_scale() -> None:
    fit = example_fit(4)
    heavy = quantities(redrawn(fit, {"shape": "student_t", "nu": 4.0}), scale="link", rope=0.1)
    tau = fit.tree["posterior"]["effect_between"].values
    assert heavy.loc["p_tau_matters", "value"] == (tau * np.sqrt(stats.t(4).var()) > 0.1).mean()
    wild = quantities(redrawn(fit, {"shape": "student_t", "nu": 2.0}))
    assert "i2" not in wild.index
