"""Tables from joint draws: columns, definitions, symmetries, and agreement with brute force."""

from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit, example_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from bayes_hte import ArgumentError, DataError, Fit, ModelError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.tables import MAX_SEGMENTS_FOR_PAIRS, EffectQuestion, compute_mcse_of_chains, pool_completely
from bayes_hte.estimands.weights import compute_population_shares
from bayes_hte.spec import cell_table

SIZE = CHAINS * DRAWS
FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]
SUMMARIES = ["effect", "sd", "ci_low", "ci_high", "p_positive", "p_negative"]
TABLE = ["arm", "n_control", "n_treated", "raw", "raw_se", *SUMMARIES, "pooling"]
ROPE = ["p_rope", "p_benefit", "p_harm"]
DETAIL = ["effect_mcse", "p_mcse", "pooling_low", "pooling_high", "complete", "complete_se"]
ARMS = ("control", "sms", "email")  # not in alphabetical order


def changed(fit: Fit, **groups: Any) -> Fit:
    """The same fit with other draws or another cell table."""
    datasets = {str(name): node.to_dataset() for name, node in fit.posterior.children.items()}
    tree = xr.DataTree.from_dict(datasets | groups)
    tree.attrs = dict(fit.posterior.attrs)
    return Fit(tree)


def redrawn(fit: Fit, **values: Any) -> Fit:
    return changed(fit, posterior=fit.posterior["posterior"].to_dataset().assign(values))


def described(draws: np.ndarray, prob: float = 0.95) -> dict[str, float]:
    """What a row says of its draws, in plain NumPy."""
    low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2])
    return {
        "effect": draws.mean(),
        "sd": draws.std(ddof=1),
        "ci_low": low,
        "ci_high": high,
        "p_positive": (draws > 0).mean(),
        "p_negative": (draws < 0).mean(),
    }


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_table_has_the_documented_columns_in_order(family: Any) -> None:
    fit = example_fit(4, family, arms=ARMS, dimensions=("device", "plan"))
    dims = ["device", "plan"]
    assert list(fit.table().columns) == [*dims, *TABLE, "reliable"]
    assert list(fit.table(rope=0.01).columns) == [*dims, *TABLE, *ROPE, "reliable"]
    assert list(fit.table(rope=0.01, detail=True).columns) == [*dims, *TABLE, *ROPE, *DETAIL, "reliable"]
    assert list(fit.ate().columns) == [
        *["arm", "n_control", "n_treated", *SUMMARIES, "p_mcse", "raw", "raw_se", "reliable"]
    ]
    assert list(fit.predict_new_segment().columns) == ["arm", *SUMMARIES, "reliable"]
    compared = ["arm", "segment", "against", "difference", *SUMMARIES[1:], "reliable"]
    for against in ("rest", "ate", "pairs"):
        assert list(fit.contrasts(against).columns) == compared  # type: ignore[arg-type]
    assert list(fit.heterogeneity().columns) == ["arm", "quantity", "value", "ci_low", "ci_high", "meaning", "reliable"]


def test_rows_are_segments_then_arms_with_levels_as_text() -> None:
    fit = example_fit([("tv", "new"), ("tv", "old"), ("pc", "new")], arms=ARMS, dimensions=("device", "plan"))
    found = fit.table()
    assert list(zip(found["device"], found["plan"], found["arm"], strict=True)) == [
        ("tv", "new", "sms"), ("tv", "new", "email"),
        ("tv", "old", "sms"), ("tv", "old", "email"),
        ("pc", "new", "sms"), ("pc", "new", "email"),
    ]  # fmt: skip
    n = fit.cells["n"].values
    assert list(found["n_control"]) == np.repeat(n[:, 0], 2).tolist()
    assert list(found["n_treated"]) == n[:, 1:].ravel().tolist()


@pytest.mark.parametrize("scale", cell_table.EFFECT_SCALES)
@pytest.mark.parametrize("prob", [0.5, 0.95])
def test_every_row_describes_its_own_draws(scale: Any, prob: float) -> None:
    fit = example_fit(3, arms=ARMS)
    draws, found = compute_effects(fit.posterior, scale).values, fit.table(scale, prob)
    for row, (s, a) in enumerate(np.ndindex(3, 2)):
        assert dict(found.loc[row, SUMMARIES]) == pytest.approx(described(draws[..., s, a], prob), rel=1e-10)


def test_the_average_effect_describes_the_weighted_draws() -> None:
    fit = example_fit(4, arms=ARMS)
    n = fit.cells["n"].values
    draws = np.einsum("cdsa,s->cda", compute_effects(fit.posterior).values, n.sum(1) / n.sum())
    found = fit.ate()
    for row in range(2):
        assert dict(found.loc[row, SUMMARIES]) == pytest.approx(described(draws[..., row]), rel=1e-10)
    assert list(found["n_control"]) == [n[:, 0].sum()] * 2
    assert list(found["n_treated"]) == n[:, 1:].sum(0).tolist()
    only = fit.ate(weights={"device 1": 1, "device 2": 0, "device 3": 0, "device 4": 0})
    first = fit.table()[fit.table()["device"] == "device 1"]
    np.testing.assert_allclose(only[SUMMARIES], first[SUMMARIES].to_numpy(), rtol=1e-12)


@pytest.mark.parametrize("higher", [True, False])
def test_the_three_probabilities_of_a_rope_add_up_and_turn_with_what_is_good(higher: bool) -> None:
    plan = example_plan(report={"rope": 0.05, "higher_is_better": higher})
    found = example_fit(6, plan=plan, effect=[-0.6, -0.2, 0.0, 0.1, 0.3, 0.8], units=300).table()
    assert found[ROPE].sum(axis=1).to_numpy() == pytest.approx(np.ones(6), abs=1e-12)
    draws = compute_effects(example_fit(6, effect=[-0.6, -0.2, 0.0, 0.1, 0.3, 0.8], units=300).posterior).values[..., 0]
    above, below = (draws > 0.05).mean((0, 1)), (draws < -0.05).mean((0, 1))
    good, bad = ("p_benefit", "p_harm") if higher else ("p_harm", "p_benefit")
    assert found[good].to_numpy() == pytest.approx(above)
    assert found[bad].to_numpy() == pytest.approx(below)


def test_a_plans_rope_is_not_used_on_another_scale() -> None:
    fit = example_fit(3, plan=example_plan(report={"rope": 0.05, "scale": "absolute", "ci_prob": 0.8}))
    assert set(ROPE) <= set(fit.table())
    assert not set(ROPE) & set(fit.table("link"))
    assert set(ROPE) <= set(fit.table("link", rope=0.3))
    np.testing.assert_array_equal(fit.table(), fit.table("absolute", 0.8))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": "odds"}, "no scale 'odds'; scales are absolute, relative, link"),
        ({"ci_prob": 0.0}, "between 0 and 1"),
        ({"ci_prob": 1.0}, "between 0 and 1"),
        ({"ci_prob": 95}, "between 0 and 1"),
        ({"ci_prob": float("nan")}, "between 0 and 1"),
        ({"rope": 0.0}, "greater than 0"),
        ({"rope": -0.1}, "greater than 0"),
        ({"rope": float("nan")}, "greater than 0"),
    ],
)
def test_a_question_without_an_answer_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        EffectQuestion(**changes)
    with pytest.raises(ArgumentError, match=match):
        example_fit(2).table(**changes)


def random_draws(fit: Fit, seed: int) -> Fit:
    """Hostile draws: large and small, of both signs."""
    rng = np.random.default_rng(seed)
    posterior = fit.posterior["posterior"]
    values = {
        name: posterior[name].copy(data=rng.normal(rng.normal(), rng.gamma(1.0), posterior[name].shape))
        for name in ("effect", "baseline")
    }
    return redrawn(fit, **values)


BINOMIAL, NORMAL = example_fit(4), example_fit(4, "normal")


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), family=st.sampled_from(["binomial", "normal"]))
@pytest.mark.parametrize("scale", ["absolute", "link"])
def test_swapping_the_arms_turns_every_sign(seed: int, family: str, scale: Any) -> None:
    fit = random_draws(BINOMIAL if family == "binomial" else NORMAL, seed)
    effect, baseline = fit.posterior["posterior"]["effect"], fit.posterior["posterior"]["baseline"]
    there = fit.table(scale)
    back = redrawn(fit, effect=-effect, baseline=baseline + effect.isel(arm=0, drop=True)).table(scale)
    # b + e − (b + e − e) loses digits of b + e, of the order of 10 at most
    close = {"rtol": 1e-9, "atol": 1e-13}
    np.testing.assert_allclose(back["effect"], -there["effect"], **close)
    np.testing.assert_allclose(back["sd"], there["sd"], **close)
    np.testing.assert_allclose(back["ci_low"], -there["ci_high"], **close)
    np.testing.assert_allclose(back["ci_high"], -there["ci_low"], **close)
    np.testing.assert_array_equal(back["p_positive"], there["p_negative"])
    np.testing.assert_array_equal(back["p_negative"], there["p_positive"])


@settings(max_examples=5)
@given(order=st.permutations(range(4)), family=st.sampled_from(["binomial", "normal"]))
def test_the_order_and_the_names_of_segments_only_permute_rows(order: list[int], family: str) -> None:
    fit = BINOMIAL if family == "binomial" else NORMAL
    names = {"segment": [f"renamed {i}" for i in order]}
    posterior = fit.posterior["posterior"].to_dataset().isel(segment=order).assign_coords(names)
    cells = fit.cells.isel(segment=order).assign_coords(names | {"device": ("segment", names["segment"])})
    other = changed(fit, posterior=posterior, cells=cells)
    before, after = fit.table(detail=True), other.table(detail=True)
    assert list(after["device"]) == names["segment"]
    numbers = list(before.columns[2:])
    np.testing.assert_allclose(
        after[numbers].astype(float), before[numbers].astype(float).iloc[order], rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(other.ate()[SUMMARIES], fit.ate()[SUMMARIES], rtol=1e-12)
    same = other.heterogeneity()["value"].to_numpy()
    np.testing.assert_allclose(same, fit.heterogeneity()["value"], rtol=1e-12)


UNEQUAL = {family: example_fit(4, family, arms=ARMS, effect=[0.4, -0.2, 0.0, 0.1], units=60) for family in FAMILY_NAMES}
UNITS = {"normal": {"mean": 1, "ss": 2}, "mean": {"mean": 1, "se": 1}, "estimate": {"estimate": 1, "se": 1}}


@settings(max_examples=5)
@given(factor=st.floats(1e-4, 1e4), family=st.sampled_from(sorted(UNITS)))
def test_a_change_of_unit_scales_effects_and_leaves_probabilities_alone(factor: float, family: Any) -> None:
    fit = UNEQUAL[family]
    cells = fit.cells.assign({name: fit.cells[name] * factor**power for name, power in UNITS[family].items()})
    other = changed(fit, posterior=fit.posterior["posterior"].to_dataset() * factor, cells=cells)
    before = fit.table(rope=0.1, detail=True)
    after = other.table(rope=0.1 * factor, detail=True)
    scaled = ["raw", "raw_se", "effect", "sd", "ci_low", "ci_high", "complete", "complete_se"]
    np.testing.assert_allclose(after[scaled], before[scaled] * factor, rtol=1e-9, atol=1e-12 * factor)
    np.testing.assert_allclose(after[["pooling", "effect_mcse"]], before[["pooling", "effect_mcse"]] * [1, factor])
    np.testing.assert_array_equal(after[["p_positive", "p_negative"]], before[["p_positive", "p_negative"]])
    # a draw may sit on the edge of the rope and fall to the other side by rounding
    np.testing.assert_allclose(after[ROPE], before[ROPE], atol=1 / SIZE)
    if family != "estimate":
        np.testing.assert_allclose(
            other.table("relative")["effect"], fit.table("relative")["effect"], rtol=1e-9, atol=1e-12
        )


def contrast_by_hand(draws: np.ndarray, share: np.ndarray, against: str, s: int) -> np.ndarray:
    if against == "ate":
        return np.asarray(draws[..., s] - (draws * share).sum(-1))
    others = [other for other in range(len(share)) if other != s]
    return np.asarray(draws[..., s] - (draws * share)[..., others].sum(-1) / share[..., others].sum(-1))


@pytest.mark.parametrize("against", ["rest", "ate"])
@pytest.mark.parametrize("scale", cell_table.EFFECT_SCALES)
@pytest.mark.parametrize("weighted", [True, False])
def test_contrasts_equal_brute_force(against: Any, scale: Any, weighted: bool) -> None:
    fit = example_fit(4, arms=ARMS)
    weights = dict(zip(map(str, fit.cells["segment"].values), [1.0, 2.0, 0.0, 5.0], strict=True)) if weighted else None
    share = compute_population_shares(fit.cells, weights).values
    if scale == "relative":  # ratios count by the control's total, so that their average is the change of the total
        control = share * special.expit(fit.tree["posterior"]["baseline"].values)
        share = control / control.sum(-1, keepdims=True)
    found = fit.contrasts(against, scale, weights=weights)
    draws = compute_effects(fit.posterior, scale).values
    assert len(found) == 8
    for row, (a, s) in enumerate(np.ndindex(2, 4)):
        expected = described(contrast_by_hand(draws[..., a], share, against, s))
        assert (found.loc[row, "arm"], found.loc[row, "segment"]) == (ARMS[a + 1], f"device {s + 1}")
        assert dict(found.loc[row].rename({"difference": "effect"})[SUMMARIES]) == pytest.approx(expected, rel=1e-9)


def test_pairs_equal_brute_force() -> None:
    fit = example_fit(4, arms=ARMS)
    draws, found = compute_effects(fit.posterior).values, fit.contrasts("pairs")
    pairs = [(a, i, j) for a in range(2) for i in range(4) for j in range(i + 1, 4)]
    assert len(found) == len(pairs)
    for row, (a, i, j) in enumerate(pairs):
        name = (found.loc[row, "arm"], found.loc[row, "segment"], found.loc[row, "against"])
        assert name == (ARMS[a + 1], f"device {i + 1}", f"device {j + 1}")
        expected = described(draws[..., i, a] - draws[..., j, a])
        assert dict(found.loc[row].rename({"difference": "effect"})[SUMMARIES]) == pytest.approx(expected, rel=1e-9)


def test_pairs_are_antisymmetric() -> None:
    fit = example_fit(3)
    turned = changed(
        fit,
        posterior=fit.posterior["posterior"].to_dataset().isel(segment=[2, 1, 0]),
        cells=fit.cells.isel(segment=[2, 1, 0]),
    )
    there = fit.contrasts("pairs").set_index(["segment", "against"]).sort_index()
    back = turned.contrasts("pairs").set_index(["against", "segment"]).sort_index()
    assert list(there.index) == list(back.index)
    np.testing.assert_allclose(back["difference"], -there["difference"], rtol=1e-12)
    np.testing.assert_allclose(back["ci_low"], -there["ci_high"], rtol=1e-9)
    np.testing.assert_array_equal(back["p_positive"], there["p_negative"])


def test_contrasts_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(DataError, match="one segment has nothing to be compared with"):
        example_fit(1).contrasts()
    with pytest.raises(ArgumentError, match="no contrast against 'all'; there are ate, rest and pairs"):
        example_fit(2).contrasts("all")  # type: ignore[arg-type]
    many = MAX_SEGMENTS_FOR_PAIRS + 1
    with pytest.raises(DataError, match=f"{many} segments make {many * (many - 1) // 2:,} pairs"):
        example_fit(many, "estimate").contrasts("pairs")


def test_a_segment_that_is_the_whole_population_has_no_rest() -> None:
    weights = {"device 1": 1.0, "device 2": 0.0}
    with pytest.raises(DataError, match="one segment is the whole population"):
        example_fit(2).contrasts(weights=weights)
    assert example_fit(2).contrasts("ate", weights=weights).loc[0, "difference"] == 0


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_complete_pooling_is_the_inverse_variance_mean(family: Any) -> None:
    fit = example_fit(5, family, arms=ARMS, one_armed=() if family == "estimate" else (1,))
    found = fit.table(detail=True)
    for _, rows in found.groupby("arm"):
        usable = rows[np.isfinite(rows["raw"]) & np.isfinite(rows["raw_se"])]
        weight = usable["raw_se"] ** -2
        assert rows["complete"].to_numpy() == pytest.approx((weight * usable["raw"]).sum() / weight.sum())
        assert rows["complete_se"].to_numpy() == pytest.approx(weight.sum() ** -0.5)


def test_nothing_to_pool_completely_is_said_by_nan() -> None:
    nothing = xr.DataArray(np.full((3, 1), np.nan), dims=("segment", "arm"))
    mean, se = pool_completely(xr.Dataset({"raw": nothing, "raw_se": nothing}))
    assert np.isnan(mean).all()
    assert np.isnan(se).all()


@pytest.mark.parametrize("family", ["binomial", "normal", "mean"])
def test_a_segment_with_one_arm_has_an_effect_but_no_raw_estimate(family: Any) -> None:
    found = example_fit(4, family, one_armed=(2,)).table(detail=True)
    assert found.loc[2, ["raw", "raw_se"]].isna().all()
    assert found.loc[2, "n_treated"] == 0
    assert found.loc[2, "pooling"] == 1
    assert np.isfinite(found.loc[2, SUMMARIES].astype(float)).all()
    assert found.loc[[0, 1, 3], "raw"].notna().all()


@pytest.mark.parametrize("call", ["table", "ate", "heterogeneity", "contrasts", "predict_new_segment"])
def test_published_estimates_have_no_table_relative_to_the_control(call: str) -> None:
    with pytest.raises(ModelError, match="control"):
        getattr(example_fit(3, "estimate"), call)(scale="relative")


def without_n(fit: Fit) -> Fit:
    return changed(fit, cells=fit.cells.drop_vars("n"))


def test_unknown_numbers_of_units_are_missing_not_zero() -> None:
    for family in ("mean", "estimate"):
        found = without_n(example_fit(3, family)).table()  # type: ignore[arg-type]
        assert found[["n_control", "n_treated"]].isna().all(axis=None)
        assert [str(kind) for kind in found[["n_control", "n_treated"]].dtypes] == ["Int64", "Int64"]
    estimates = example_fit(3, "estimate").table()
    assert estimates["n_control"].isna().all()
    assert estimates["n_treated"].notna().all()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_other_table_engines_take_every_table(family: Any) -> None:
    fit = example_fit(3, family, arms=ARMS, known_n=family not in ("mean", "estimate"))
    tables = [fit.table(detail=True, rope=0.1), fit.ate(), fit.heterogeneity(), fit.contrasts(), fit.contrasts("pairs")]
    for table in [*tables, fit.predict_new_segment()]:
        assert pl.from_pandas(table).shape == table.shape
        assert nw.from_native(table).columns == list(table.columns)


def independent(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("chain", "draw", "segment"))


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_the_error_of_a_probability_is_the_binomials_for_independent_draws(p: float) -> None:
    found = compute_mcse_of_chains(independent(np.random.default_rng(1).random((4, 1000, 60)) < p))
    ratio = found.values / np.sqrt(p * (1 - p) / 4000)
    # Geyer's estimate of the effective draws scatters; the mean of 60 is right within 4 of its standard errors.
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / np.sqrt(60))


def test_the_error_of_a_mean_grows_with_autocorrelation() -> None:
    rng = np.random.default_rng(2)
    noise, rho = rng.standard_normal((4, 4000, 8)), 0.8
    chain = np.zeros_like(noise)
    chain[:, 0] = noise[:, 0]
    for t in range(1, 4000):
        chain[:, t] = rho * chain[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    # AR(1): variance of the mean is (1 + rho) / (1 − rho) / N; an estimate of it from 8 series
    ratio = compute_mcse_of_chains(independent(chain)).values / np.sqrt((1 + rho) / (1 - rho) / 16_000)
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std(ddof=1) / np.sqrt(8))


@pytest.mark.parametrize("value", [True, False])
def test_a_probability_on_which_all_draws_agree_still_has_an_error(value: bool) -> None:
    found = compute_mcse_of_chains(independent(np.full((4, 250, 2), value)))
    half = 0.5 / 1001  # half an event in N + 1 draws
    assert found.values == pytest.approx(np.sqrt(half / 1000), rel=1e-9)


def test_tables_carry_the_verdict() -> None:
    for ok in (True, False):
        fit = example_fit(3, ok=ok)
        for table in (fit.table(), fit.ate(), fit.heterogeneity(), fit.contrasts(), fit.predict_new_segment()):
            assert table.attrs["reliable"] is ok
            assert bool(table.attrs["problems"]) is not ok
