"""Effects within the levels of a dimension, and the parts that differences are made of: equal to brute force."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit
from scipy import special

from bayes_hte import ArgumentError, Fit, ModelError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.spec import cell_table

ARMS = ("control", "sms", "email")
LEVELS = [("tv", "new"), ("tv", "old"), ("pc", "new"), ("pc", "old"), ("app", "new")]
DEVICE, PLAN = ["tv", "pc", "app"], ["new", "old"]
SAMPLE = ("chain", "draw")


def normal(*labels: tuple[str, list[str]], seed: int) -> xr.DataArray:
    values = np.random.default_rng(seed).standard_normal((CHAINS, DRAWS, *(len(names) for _, names in labels)))
    return xr.DataArray(values, dims=(*SAMPLE, *(dim for dim, _ in labels)), coords=dict(labels))


def with_effect(fit: Fit, structure: dict[str, Any], cells: xr.Dataset | None = None, **values: xr.DataArray) -> Fit:
    """The same fit, as if its model had this structure and these draws."""
    tree = fit.tree.copy()
    tree["posterior"] = xr.DataTree(fit.tree["posterior"].to_dataset().assign(values))
    if cells is not None:
        tree["cells"] = xr.DataTree(cells)
    model = json.loads(fit.tree.attrs["model"])
    tree.attrs["model"] = json.dumps(model | {"effect": model["effect"] | structure})
    return Fit(tree)


def example() -> Fit:
    return example_fit(LEVELS, arms=ARMS, dimensions=("device", "plan"))


@pytest.mark.parametrize("scale", cell_table.EFFECT_SCALES)
@pytest.mark.parametrize("weighted", [True, False])
def test_a_level_averages_its_segments_with_their_shares(scale: Any, weighted: bool) -> None:
    fit = example()
    n = fit.cells["n"].values
    weight = np.array([3.0, 1.0, 0.0, 2.0, 5.0]) if weighted else n.sum(1)
    given = dict(zip(map(str, fit.cells["segment"].values), weight, strict=True)) if weighted else None
    found = fit.marginal("plan", scale, weights=given)
    assert list(found.columns) == [
        "level", "arm", "n_control", "n_treated", "effect", "sd", "ci_low", "ci_high", "p_positive", "p_negative",
        "reliable",
    ]  # fmt: skip
    draws = compute_effects(fit.tree, scale).values
    drawn_weight = np.broadcast_to(weight, draws.shape[:3])
    if scale == "relative":  # ratios count by the control's total, so that their average is the change of the total
        drawn_weight = weight * special.expit(fit.tree["posterior"]["baseline"].values)
    for row, (level, a) in enumerate((level, a) for level in PLAN for a in range(2)):
        inside = fit.cells["plan"].values == level
        own = (draws[:, :, inside, a] * drawn_weight[:, :, inside]).sum(-1) / drawn_weight[:, :, inside].sum(-1)
        assert (found.loc[row, "level"], found.loc[row, "arm"]) == (level, ARMS[a + 1])
        assert found.loc[row, "effect"] == pytest.approx(own.mean())
        assert found.loc[row, "sd"] == pytest.approx(own.std(ddof=1))
        assert found.loc[row, ["ci_low", "ci_high"]].tolist() == pytest.approx(np.quantile(own, [0.025, 0.975]))
        assert found.loc[row, "p_positive"] == pytest.approx((own > 0).mean())
        assert found.loc[row, "n_control"] == n[inside, 0].sum()
        assert found.loc[row, "n_treated"] == n[inside, a + 1].sum()


def test_levels_averaged_with_their_sizes_are_the_average_effect() -> None:
    fit = example()
    size = fit.cells["n"].sum("arm").groupby(fit.cells["device"]).sum().sel(device=DEVICE).values
    found = fit.marginal("device").pivot_table(index="level", columns="arm", values="effect", sort=False).loc[DEVICE]
    ate = fit.ate().set_index("arm")["effect"]
    for arm in ("sms", "email"):
        assert found[arm].to_numpy() @ size / size.sum() == pytest.approx(ate[arm])


def test_the_levels_of_the_only_dimension_are_its_segments() -> None:
    fit = example_fit(4)
    numbers = ["n_control", "n_treated", "effect", "sd", "ci_low", "ci_high", "p_positive", "p_negative"]
    found = fit.marginal("device")
    np.testing.assert_allclose(found[numbers].astype(float), fit.table()[numbers].astype(float), rtol=1e-12)


def test_unknown_numbers_of_units_stay_unknown() -> None:
    fit = example_fit(LEVELS, "estimate", dimensions=("device", "plan"), known_n=False)
    assert fit.marginal("plan")[["n_control", "n_treated"]].isna().all(axis=None)


def test_what_is_not_a_dimension_or_has_no_weight_is_refused() -> None:
    fit = example()
    with pytest.raises(ArgumentError, match=r"no dimension 'age'; there are \['device', 'plan'\]"):
        fit.marginal("age")
    nobody = dict.fromkeys(map(str, fit.cells["segment"].values), 1.0) | {"app · new": 0.0}
    with pytest.raises(ArgumentError, match=r"levels \['app'\] of device have no weight"):
        fit.marginal("device", weights=nobody)


def crossed(rest: float = 0.2) -> tuple[Fit, dict[str, np.ndarray]]:
    """A fit whose effects are made of known parts, and these parts as (chain, draw, segment, arm)."""
    fit, arm = example(), ("arm", list(ARMS[1:]))
    segment = ("segment", [str(label) for label in fit.cells["segment"].values])
    device, plan = 0.5 * normal(("device", DEVICE), arm, seed=1), 0.3 * normal(("plan", PLAN), arm, seed=2)
    mean, left = normal(arm, seed=3), rest * normal(segment, arm, seed=4)
    places = [[DEVICE.index(d) for d, _ in LEVELS], [PLAN.index(p) for _, p in LEVELS]]
    parts = {"device": device.values[:, :, places[0]], "plan": plan.values[:, :, places[1]], "rest": left.values}
    effect = left.copy(data=sum(parts.values()) + mean.values[:, :, None])
    structure = {"by": ["device", "plan"]}
    made = with_effect(fit, structure, effect=effect, effect_mean=mean, effect_device=device, effect_plan=plan)
    return made, parts


def shares_by_hand(parts: dict[str, np.ndarray], weight: np.ndarray) -> dict[str, np.ndarray]:
    variance = {}
    for name, part in parts.items():
        centred = part - (part * weight[:, None]).sum(2, keepdims=True)
        variance[name] = (centred**2 * weight[:, None]).sum(2)
    return {name: each / sum(variance.values()) for name, each in variance.items()}


def test_shares_of_variance_are_finite_population_variances_of_the_parts() -> None:
    fit, parts = crossed()
    found = fit.variance_shares()
    n = fit.cells["n"].values.sum(1)
    expected = shares_by_hand(parts, n / n.sum())
    assert found["source"].tolist() == ["device", "plan", "rest"] * 2
    for (_, row), (a, name) in zip(found.iterrows(), [(a, name) for a in range(2) for name in parts], strict=True):
        share = expected[name][:, :, a]
        assert row["share"] == pytest.approx(share.mean())
        assert [row["share_low"], row["share_high"]] == pytest.approx(np.quantile(share, [0.025, 0.975]).tolist())
    assert found.groupby("arm")["share"].sum().to_numpy() == pytest.approx([1.0, 1.0])


def test_a_dimension_that_alone_makes_the_differences_has_all_of_the_variance() -> None:
    fit, _ = crossed(rest=0.0)
    posterior = fit.tree["posterior"].to_dataset()
    plan = 0 * posterior["effect_plan"]
    mine = [DEVICE.index(d) for d, _ in LEVELS]
    effect = posterior["effect"].copy(
        data=posterior["effect_device"].values[:, :, mine] + posterior["effect_mean"].values[:, :, None]
    )
    found = with_effect(fit, {}, effect=effect, effect_plan=plan).variance_shares().set_index(["arm", "source"])
    assert found.loc[("sms", "device"), "share"] == pytest.approx(1.0)
    assert found.loc[("sms", "rest"), "sd_high"] == pytest.approx(0.0, abs=1e-12)


def test_nested_terms_and_covariates_are_parts_too() -> None:
    fit, arm = example(), ("arm", list(ARMS[1:]))
    pairs = [f"{d} | {p}" for d, p in LEVELS]
    device, both = normal(("device", DEVICE), arm, seed=1), normal(("device:plan", pairs), arm, seed=2)
    size = xr.DataArray([[1.0], [2.0], [4.0], [3.0], [0.0]], dims=("segment", "covariate"),
                        coords={"segment": fit.cells["segment"], "covariate": ["size"]})  # fmt: skip
    slope = normal(("covariate", ["size"]), arm, seed=3)
    z = (size.values - size.values.mean()) / size.values.std(ddof=1)
    parts = {
        "device": device.values[:, :, [DEVICE.index(d) for d, _ in LEVELS]],
        "device × plan": both.values,
        "covariates": np.einsum("sc,xyca->xysa", z, slope.values),
        "rest": 0.1 * np.random.default_rng(8).standard_normal((CHAINS, DRAWS, 5, 2)),
    }
    mean = fit.tree["posterior"]["effect_mean"]
    effect = fit.tree["posterior"]["effect"].copy(data=sum(parts.values()) + mean.values[:, :, None])
    structure = {"by": ["device", "device:plan"], "covariates": ["size"], "slope": {"dist": "Normal", "sigma": 1.0}}
    made = with_effect(
        fit, structure, fit.cells.assign(covariates=size),
        effect=effect, effect_device=device, effect_device_plan=both, effect_slope=slope,
    )  # fmt: skip
    found = made.variance_shares().query("arm == 'email'")
    n = fit.cells["n"].values.sum(1)
    expected = shares_by_hand(parts, n / n.sum())
    assert found["source"].tolist() == list(parts)
    assert found["share"].to_numpy() == pytest.approx([expected[name][:, :, 1].mean() for name in parts])


def test_a_model_without_parts_says_how_to_state_them() -> None:
    with pytest.raises(ModelError, match=r'state the dimensions in the model file, as in effect.by = \["device"'):
        example().variance_shares()
