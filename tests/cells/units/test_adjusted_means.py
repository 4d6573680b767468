"""Adjusted means against statsmodels, tea-tasting and a computation unit by unit; composed, merged, on every engine."""

import itertools
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
import tea_tasting as tt
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import bayes_hte as hte
from bayes_hte.cells import from_rows, merge
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

KEYS = {"outcome": "y", "arm": "arm", "control": "old", "segments": ["device"]}
EXACT = 1e-8
"""Rounding of another route to the same number."""


def people(n: int = 3000, seed: int = 4) -> pd.DataFrame:
    """Units whose outcome depends on what they did before, in villages."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "device": rng.choice(["mobile", "desktop", "tv"], n, p=[0.6, 0.3, 0.1]),
            "arm": rng.choice(["old", "new", "newer"], n),
            "village": rng.integers(0, 60, n),
            "before": rng.gamma(2.0, 30.0, n),
            "age": rng.normal(40.0, 12.0, n),
            "views": rng.poisson(6.0, n) + 1.0,
            "weight": rng.uniform(0.5, 2.0, n),
        }
    )
    rows["arm"] = np.array(["old", "new", "newer"])[rows["village"] % 3]
    common = rng.normal(size=60)[rows["village"]]
    rows["y"] = 0.4 * rows["before"] + 0.1 * rows["age"] + 5 * common + (rows["arm"] == "new") * 2 + rng.normal(size=n)
    return rows


def read(rows: Any, **asked: Any) -> xr.Dataset:
    return from_rows(rows, **{**KEYS, **asked})


def only(rows: pd.DataFrame, segment: str, arm: str) -> pd.DataFrame:
    return rows[(rows["device"] == segment) & (rows["arm"] == arm)]


def each_cell(cells: xr.Dataset) -> list[tuple[str, str]]:
    return list(itertools.product(cells["segment"].values.tolist(), cells["arm"].values.tolist()))


def close(found: Any, expected: Any, rtol: float = EXACT) -> None:
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=rtol)


def test_cuped_coefficients_and_effects_are_those_of_least_squares():
    rows = people()
    cells = read(rows, cuped=["before", "age"])
    fitted = smf.ols("y ~ 0 + C(device):C(arm) + before + age", rows).fit()
    for segment, arm in each_cell(cells):
        if arm != "old":
            name = "C(device)[{}]:C(arm)[{}]".format
            effect = cells["mean"].sel(segment=segment, arm=arm) - cells["mean"].sel(segment=segment, arm="old")
            close(effect, fitted.params[name(segment, arm)] - fitted.params[name(segment, "old")])
        mine = only(rows, segment, arm)
        residual = mine["y"] - fitted.params["before"] * mine["before"] - fitted.params["age"] * mine["age"]
        close(cells["se"].sel(segment=segment, arm=arm), sm.OLS(residual, np.ones(len(mine))).fit().bse.iloc[0])
        reduction = cells["variance_reduction"].sel(segment=segment, arm=arm)
        close(reduction, 1 - residual.var() / mine["y"].var())


def test_cuped_keeps_the_mean_of_a_segment_over_its_arms():
    rows = people()
    cells, plain = read(rows, cuped="before"), read(rows)
    close((cells["n"] * cells["mean"]).sum("arm"), (plain["n"] * plain["mean"]).sum("arm"), rtol=1e-12)


def test_a_ratio_is_that_of_tea_tasting():
    rows = people()
    cells = read(rows, denominator="views")
    for segment in ("mobile", "desktop", "tv"):
        mine = rows[(rows["device"] == segment) & (rows["arm"] != "newer")].assign(variant=lambda x: x["arm"] == "new")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies deprecate things
            experiment = tt.Experiment(ratio=tt.RatioOfMeans("y", "views", use_t=False, equal_var=False))
            found = experiment.analyze(mine, control=False).get("ratio")
        cell = cells.sel(segment=segment)
        close(cell["mean"].sel(arm=["old", "new"]), [found.control, found.treatment])
        half = 0.5 * (found.effect_size_ci_upper - found.effect_size_ci_lower)
        close(np.hypot(*cell["se"].sel(arm=["old", "new"]).values), half / norm.ppf(0.975))


@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_have_the_robust_standard_error_of_statsmodels(weighted):
    rows = people()
    cells = read(rows, cluster="village", weights="weight" if weighted else None)
    for segment, arm in each_cell(cells):
        mine = only(rows, segment, arm)
        number = mine["village"].nunique()
        fitted = sm.WLS(mine["y"], np.ones(len(mine)), weights=mine["weight"] if weighted else 1.0).fit(
            cov_type="cluster", cov_kwds={"groups": mine["village"], "use_correction": False}
        )
        cell = cells.sel(segment=segment, arm=arm)
        assert int(cell["n"]) == number
        assert int(cell["n_rows"]) == len(mine)
        close(cell["mean"], fitted.params.iloc[0])
        close(cell["se"], fitted.bse.iloc[0] * np.sqrt(number / (number - 1)))


def test_weights_have_the_robust_standard_error_of_statsmodels():
    rows = people()
    cells = read(rows, weights="weight")
    for segment, arm in each_cell(cells):
        mine = only(rows, segment, arm)
        fitted = sm.WLS(mine["y"], np.ones(len(mine)), weights=mine["weight"]).fit(cov_type="HC0")
        cell = cells.sel(segment=segment, arm=arm)
        close(cell["mean"], fitted.params.iloc[0])
        close(cell["se"], fitted.bse.iloc[0] * np.sqrt(len(mine) / (len(mine) - 1)))


OPTIONS: dict[str, dict[str, Any]] = {
    "denominator": {"denominator": "views"},
    "weights": {"weights": "weight"},
    "cluster": {"cluster": "village"},
    "cuped": {"cuped": ["before", "age"]},
    "cap": {"cap": (10.0, 60.0)},
}
COMBINATIONS = [
    combination
    for size in range(1, 6)
    for combination in itertools.combinations(OPTIONS, size)
    if combination != ("cap",)
]


def together(names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for name in names for key, value in OPTIONS[name].items()}


def unit_by_unit(rows: pd.DataFrame, names: tuple[str, ...]) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean and standard error of every cell from its units, without any formula for variances of products."""
    y = rows["y"].clip(10.0, 60.0) if "cap" in names else rows["y"]
    w = rows["weight"] if "weights" in names else pd.Series(1.0, rows.index)
    d = rows["views"] if "denominator" in names else pd.Series(1.0, rows.index)
    parts = {"y": w * y, "d": w * d, "w": w, "before": w * rows["before"], "age": w * rows["age"]}
    table = rows[["device", "arm", "village"]].assign(**parts)
    if "cluster" in names:
        table = table.groupby(["device", "arm", "village"], as_index=False).sum()
    pre = ["before", "age"] if "cuped" in names else []
    centres = {segment: [mine[x].sum() / mine["w"].sum() for x in pre] for segment, mine in table.groupby("device")}
    influence, values = [], {}
    for key, mine in table.groupby(["device", "arm"]):
        ratio = mine["y"].sum() / mine["d"].sum()
        z = (mine["y"] - ratio * mine["d"]) / mine["d"].mean()
        means = [mine[x].sum() / mine["w"].sum() for x in pre]
        zx = [(mine[x] - mean * mine["w"]) / mine["w"].mean() for x, mean in zip(pre, means, strict=True)]
        influence.append(pd.DataFrame({"z": z, **dict(zip(pre, zx, strict=True))}).assign(key=[key] * len(mine)))
        values[key] = ratio, means
    stacked = pd.concat(influence)
    theta = np.linalg.lstsq(stacked[pre].to_numpy(), stacked["z"].to_numpy())[0] if pre else np.zeros(0)
    found = {}
    for key, mine in stacked.groupby("key"):
        ratio, means = values[key]
        left = mine["z"] - mine[pre].to_numpy() @ theta
        found[key] = (
            ratio - (np.array(means) - centres[key[0]]) @ theta if pre else ratio,
            left.std() / len(left) ** 0.5,
        )
    return found


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_every_combination_is_what_its_units_say(names):
    rows = people()
    cells = read(rows, **together(names))
    for (segment, arm), (mean, se) in unit_by_unit(rows, names).items():
        close(cells["mean"].sel(segment=segment, arm=arm), mean)
        close(cells["se"].sel(segment=segment, arm=arm), se)


ALL = ("denominator", "weights", "cluster", "cuped", "cap")


def test_every_engine_gives_the_same_adjusted_means(engine):
    rows = people(400)
    found = read(engine({name: list(column) for name, column in rows.items()}), **together(ALL))
    xr.testing.assert_allclose(found.drop_attrs(), read(rows, **together(ALL)).drop_attrs(), rtol=1e-10, atol=1e-10)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2), min_size=60, max_size=60), st.sampled_from(COMBINATIONS))
def test_parts_of_the_rows_merge_to_the_whole(where, names):
    rows = people(1200)
    part = np.array(where)[rows["village"]]  # a cluster is in one part only
    parts = [rows[part == i] for i in range(3)]
    usable = [mine for mine in parts if len(mine) and mine.groupby(["device", "arm"])["village"].nunique().min() > 1]
    usable = [mine for mine in usable if mine["arm"].nunique() == 3]
    if len(usable) < 2:
        return
    merged = merge(*(read(mine, **together(names)) for mine in usable))
    whole = read(pd.concat(usable), **together(names))
    assert set(merged.data_vars) == set(whole.data_vars)
    xr.testing.assert_allclose(merged.drop_attrs(), whole.drop_attrs(), rtol=1e-9, atol=1e-6)


def test_a_table_adjusted_otherwise_cannot_be_merged():
    rows = people(300)
    with pytest.raises(DataError, match="different adjustment"):
        merge(read(rows, cuped="before"), read(rows, cuped=["before", "age"]))


def test_units_without_a_covariate_are_adjusted_by_a_group_of_their_own():
    rows = people()
    rows.loc[rows.index % 5 == 0, "before"] = np.nan
    cells = read(rows, cuped="before")
    assert int(cells["n"].sum()) == len(rows)
    filled = rows.assign(new=rows["before"].isna() * 1.0, before=rows["before"].fillna(0.0))
    fitted = smf.ols("y ~ 0 + C(device):C(arm) + before + new", filled).fit()
    name = "C(device)[tv]:C(arm)[{}]".format
    effect = cells["mean"].sel(segment="tv", arm="new") - cells["mean"].sel(segment="tv", arm="old")
    close(effect, fitted.params[name("new")] - fitted.params[name("old")])
    assert cells["pre_n"].sum().item() == rows["before"].notna().sum()


def test_covariates_that_say_nothing_new_change_nothing():
    rows = people().assign(same=1.0, twice=lambda x: 2 * x["before"])
    cells = read(rows, cuped=["before", "same", "twice"])
    close(cells["mean"], read(rows, cuped="before")["mean"])
    close(cells["se"], read(rows, cuped="before")["se"])


def test_large_means_keep_their_digits():
    rows = people()
    far = rows.assign(y=rows["y"] + 1e9, before=rows["before"] + 1e9)
    near = read(rows, cuped="before")
    cells = read(far, cuped="before")
    close(cells["se"], near["se"], rtol=1e-6)
    difference = cells["mean"].sel(arm="new") - cells["mean"].sel(arm="old")
    close(difference, near["mean"].sel(arm="new") - near["mean"].sel(arm="old"), rtol=1e-6)


def test_rows_that_are_not_complete_are_left_out_of_clusters():
    rows = people(600)
    rows.loc[::50, "y"] = np.nan
    rows["village"] = rows["village"].astype(float)
    rows.loc[7::90, "village"] = np.nan
    with pytest.raises(DataError, match=r"outcomes in 'y' are missing; .* rows have no cluster in 'village'"):
        read(rows, cluster="village", cuped="before")
    cells = read(rows, cluster="village", cuped="before", drop_missing=True)
    whole = read(rows.dropna(), cluster="village", cuped="before")
    kept = [name for name in cells.data_vars if name not in {"n_missing", "pre_n", "pre_mean", "pre_ss"}]
    xr.testing.assert_allclose(cells[kept].drop_attrs(), whole[kept].drop_attrs(), rtol=1e-9)
    lost = rows[["y", "village"]].isna().any(axis=1)
    assert int(cells["n_missing"].sum()) == lost.sum()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"exposure": "views", "cluster": "village"},
            "exposure makes rates of independent units, which cluster cannot",
        ),
        ({"exposure": "views", "cap": 3.0}, "exposure counts events, and a cap would leave some out"),
        ({"metric": "histogram", "weights": "weight"}, "metric='histogram' keeps what independent units did"),
        ({"metric": "two_part", "cuped": "before", "cluster": "village"}, "which cluster and cuped cannot adjust"),
        ({"cap": 3.0, "cap_quantile": 0.9}, "cap and cap_quantile are both given"),
        ({"cap": (3.0, 2.0)}, r"cap is \(3.0, 2.0\); give a finite number, or a pair"),
        ({"cap_quantile": 1.5}, "quantiles lie between 0 and 1"),
        ({"cuped": ["before", "before"]}, "cuped repeats a column"),
        ({"denominator": "y"}, "'y' is used twice, for outcome and for denominator"),
        ({"weights": "minus"}, "3000 weights in 'minus' are negative|3,000 weights in 'minus' are negative"),
        ({"denominator": "none"}, "the denominator adds up to 0 in 9 cells"),
        ({"denominator": "village", "cluster": "village"}, "'village' is used twice"),
    ],
)
def test_what_does_not_go_together_is_refused(asked, message):
    rows = people().assign(minus=-1.0, none=0.0)
    with pytest.raises((ArgumentError, DataError), match=message):
        read(rows, **asked)


def test_an_outcome_without_variation_has_no_standard_error():
    rows = people(300).assign(y=lambda x: (x["arm"] == "new") * 1.0)
    with pytest.raises(DataError, match="does not vary between units within an arm"):
        read(rows, weights="weight")


def test_a_cell_of_one_unit_takes_the_variance_of_its_arm():
    rows = people(400)
    lone = rows.assign(device=np.where(rows.index == 0, "lone", rows["device"]))
    cells = read(lone, weights="weight")
    arm = rows["arm"][0]
    assert int(cells["n"].sel(segment="lone", arm=arm)) == 1
    assert cells["se"].sel(segment="lone", arm=arm).item() > 0


def test_adjusted_cells_are_fitted_saved_and_read_again(tmp_path):
    cells = read(people(), cuped="before", cluster="village")
    model = hte.read_model("metric")
    fit = hte.fit(cells, model, draws=400, seed=1)
    fit.save(tmp_path / "fit.nc")
    again = hte.load(tmp_path / "fit.nc")
    xr.testing.assert_allclose(again.cells, fit.cells)
    assert cell_table.identify_kind(again.cells) == "means"
    raw = cells["mean"].sel(arm="new") - cells["mean"].sel(arm="old")
    table = fit.table(scale="absolute")
    close(table[table["arm"] == "new"]["raw"], raw)


def test_what_one_unit_carries_is_seen_in_adjusted_means_too():
    rows = people(600)
    rows.loc[7, "y"] = 1e5
    said = hte.check(read(rows, cuped="before"))
    assert any("one unit that makes up more than half of the variation" in sentence for sentence in said)
    assert not any("one unit" in sentence for sentence in hte.check(read(people(600), cuped="before")))


def test_clusters_in_several_arms_come_before_any_result():
    rows = people(600).assign(arm=lambda x: np.where(x.index % 2, "old", "new"))
    sentences = hte.check(read(rows, cluster="village"))
    assert "rows in more than one arm" in sentences[0]
    merged = merge(*(read(mine, cluster="village") for _, mine in rows.groupby(rows["village"] % 2)))
    assert sum("rows in more than one arm" in sentence for sentence in hte.check(merged)) == 2


def test_how_much_cuped_brought_is_said():
    cells = read(people(), cuped=["before", "age"])
    middle = float(cells["variance_reduction"].median())
    assert cell_table.list_notes(cells)[-1].startswith(
        f"adjusting for before, age (CUPED) took away {100 * middle:.0f} % of the variance"
    )
