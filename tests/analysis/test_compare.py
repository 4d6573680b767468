"""Models side by side: closed forms, brute force over the simplex, and the same scores by leaving segments out."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import table
from paths import REFERENCE
from scipy import stats

import bayes_hte as hte
from bayes_hte.analysis import compare
from bayes_hte.analysis.fit import fit as fit_model
from bayes_hte.criticism import leave_one_segment_out
from bayes_hte.spec import cell_table

SCHOOLS = json.loads((REFERENCE / "eight_schools.json").read_text(encoding="utf-8"))
COLUMNS = [
    "model", "elpd", "se", "elpd_difference", "se_difference", "mcse", "weight", "pareto_k", "reliable",
]  # fmt: skip
SIGMA = 100.0


def model(pooling: str = "partial", **effect: Any) -> hte.Model:
    stated = {"mean": {"dist": "Normal", "sigma": SIGMA}, "between": {"dist": "Uniform", "upper": 104.44}}
    return hte.Model.model_validate({"family": "estimate", "pooling": pooling, "effect": stated | effect})


@pytest.fixture(scope="module")
def eight() -> hte.Fit:
    cells = hte.cells.from_estimates(pd.DataFrame(SCHOOLS["cells"]), segments=["segment"], estimate="y", se="se")
    return hte.fit(cells, model(), draws=4000)


@pytest.fixture(scope="module")
def compared(eight: hte.Fit) -> pd.DataFrame:
    return hte.compare(eight)


def none(y: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Without pooling every segment is predicted from the prior."""
    return np.asarray(stats.norm(0, np.hypot(SIGMA, se)).logpdf(y))


def complete(y: np.ndarray, se: np.ndarray) -> np.ndarray:
    """With one common effect: the conditional of a multivariate normal with SIGMA² everywhere."""
    found = []
    for s in range(len(y)):
        others = np.arange(len(y)) != s
        precision = SIGMA**-2 + (se[others] ** -2).sum()
        mean = (y[others] / se[others] ** 2).sum() / precision
        found.append(stats.norm(mean, np.hypot(precision**-0.5, se[s])).logpdf(y[s]))
    return np.array(found)


def test_eight_schools_without_and_with_complete_pooling_have_their_closed_forms(
    eight: hte.Fit, compared: pd.DataFrame
) -> None:
    y, se = eight.cells["estimate"].values[:, 0], eight.cells["se"].values[:, 0]
    found = compared.set_index("model")
    assert list(compared.columns) == COLUMNS
    assert set(found.index) == {"no pooling", "partial pooling", "complete pooling"}
    # quadrature error is below 1e-6
    assert found.loc["no pooling", "elpd"] == pytest.approx(none(y, se).sum(), abs=1e-6)
    assert found.loc["complete pooling", "elpd"] == pytest.approx(complete(y, se).sum(), abs=1e-6)
    assert found.loc["partial pooling", "elpd"] == pytest.approx(-31.338, abs=1e-3)


def test_differences_are_to_the_best_and_their_errors_are_of_pointwise_differences(
    eight: hte.Fit, compared: pd.DataFrame
) -> None:
    y, se = eight.cells["estimate"].values[:, 0], eight.cells["se"].values[:, 0]
    assert compared["model"].tolist() == ["complete pooling", "partial pooling", "no pooling"]
    difference = none(y, se) - complete(y, se)
    last = compared.iloc[-1]
    assert last["elpd_difference"] == pytest.approx(difference.sum(), abs=1e-6)
    assert last["se_difference"] == pytest.approx(np.sqrt(8) * difference.std(ddof=1), abs=1e-6)
    assert last["se"] == pytest.approx(np.sqrt(8) * none(y, se).std(ddof=1), abs=1e-6)
    assert compared.loc[0, ["elpd_difference", "se_difference"]].tolist() == [0.0, 0.0]
    assert compared["weight"].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_stacking_weights_are_the_best_on_the_simplex(seed: int) -> None:
    rng = np.random.default_rng(seed)
    elpd = rng.normal(-3, 1, (12, 3)) + rng.normal(0, 0.5, 3)
    grid = np.linspace(0, 1, 401)
    first, second = np.meshgrid(grid, grid)
    inside = first + second <= 1 + 1e-12
    weights = np.column_stack([first[inside], second[inside], (1 - first - second)[inside]])
    scores = np.log(np.exp(elpd) @ weights.T).mean(0)
    found = compare.compute_stacking_weights(elpd)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    # The bound that ends the climb: within 1e-6 of the maximum, which no point of the grid can exceed.
    assert np.log(np.exp(elpd) @ found).mean() > scores.max() - 1e-6
    np.testing.assert_allclose(found, weights[scores.argmax()], atol=0.03)


def test_stacking_survives_scores_that_are_far_apart() -> None:
    found = compare.compute_stacking_weights(np.array([[-1000.0, -1.0], [-3000.0, -2.0]]))
    assert found == pytest.approx([0.0, 1.0], abs=1e-6)


def test_other_models_and_fits_are_compared_by_name(eight: hte.Fit) -> None:
    narrow = model(between={"dist": "HalfNormal", "sigma": 0.5})
    found = hte.compare(eight, {"narrow": narrow, "again": eight})
    assert set(found["model"]) == {"narrow", "again", "this model"}
    by_name = found.set_index("model")
    assert by_name.loc["again", "elpd"] == by_name.loc["this model", "elpd"]
    assert by_name.loc["narrow", "elpd"] > by_name.loc["again", "elpd"]


@pytest.mark.parametrize("pooling", ["none", "complete"])
def test_every_pooling_is_compared_with_the_others(eight: hte.Fit, pooling: Any) -> None:
    others = compare.vary_pooling(model(pooling))
    assert set(others) == set(compare.NAME_BY_POOLING.values()) - {compare.NAME_BY_POOLING[pooling]}
    unstated = hte.Model.model_validate(
        {"family": "estimate", "pooling": pooling, "effect": {"mean": {"dist": "Normal", "sigma": 1.0}}}
    )
    assert "partial pooling" not in compare.vary_pooling(unstated)


def test_a_structure_is_left_behind_by_the_poolings_that_cannot_have_it() -> None:
    stated = {"by": ["*"], "shape": "student_t", "shared_between": True}
    for other in compare.vary_pooling(model(**stated)).values():
        assert other.effect.by == ()
        assert other.effect.shape == "normal"


def test_what_cannot_be_compared_is_refused(eight: hte.Fit, counts: xr.Dataset, moments: xr.Dataset) -> None:
    with pytest.raises(hte.DataError, match="other cells"):
        hte.compare(eight, {"counts": hte.fit(counts, "conversion", sampler="exact")})
    with pytest.raises(hte.ArgumentError, match="this model"):
        hte.compare(eight, {"this model": eight})
    with pytest.raises(hte.ArgumentError, match=r"others is a Fit; name each, as in compare"):
        hte.compare(eight, eight)  # type: ignore[arg-type]
    with pytest.raises(hte.ArgumentError, match="name the other models"):
        hte.compare(eight, {})
    with pytest.raises(hte.DataError, match="no others"):
        hte.compare(hte.fit(eight.cells.isel(segment=[0]), model()))


def test_densities_of_other_statistics_are_not_compared(counts: xr.Dataset) -> None:
    one = hte.fit(counts, "conversion", sampler="exact")
    tree = hte.fit(counts, "conversion", sampler="exact", seed=2).tree
    tree.attrs["model"] = json.dumps(json.loads(tree.attrs["model"]) | {"family": "binomial"})
    other = hte.Fit(tree)
    assert set(hte.compare(one, {"again": other})["model"]) == {"again", "this model"}


KNOWN = {"mean": 5.0, "between": 4.0, "device": 6.0}


def conjugate(cells: xr.Dataset, structured: hte.Model) -> xr.DataTree:
    """Draws of a crossed normal model whose SDs are known: what NUTS would give, in closed form."""
    y, se = cells["estimate"].values[:, 0], cells["se"].values[:, 0]
    there = np.isfinite(y)
    devices = list(dict.fromkeys(map(str, cells["device"].values)))
    design = np.column_stack([np.ones(len(y)), cells["device"].values.astype(str)[:, None] == np.array(devices)])
    prior = np.diag([KNOWN["mean"] ** -2, *[KNOWN["device"] ** -2] * len(devices)])
    own = 1 / (se[there] ** 2 + KNOWN["between"] ** 2)
    covariance = np.linalg.inv(prior + design[there].T * own @ design[there])
    centre = covariance @ (design[there].T * own @ y[there])
    rng = np.random.default_rng(4)
    drawn = rng.multivariate_normal(centre, covariance, (4, 500))
    arm, segment = ["treated"], list(map(str, cells["segment"].values))
    sample = ("chain", "draw")
    posterior = xr.Dataset(
        {
            "effect_mean": ((*sample, "arm"), drawn[..., :1]),
            "effect_between": ((*sample, "arm"), np.full((4, 500, 1), KNOWN["between"])),
            "effect_device_between": ((*sample, "arm"), np.full((4, 500, 1), KNOWN["device"])),
            "effect_device": ((*sample, "device", "arm"), drawn[..., 1:, None]),
            "effect": ((*sample, "segment", "arm"), np.zeros((4, 500, len(y), 1))),
        },
        coords={"arm": arm, "segment": segment, "device": devices, "chain": range(4), "draw": range(500)},
    )
    tree = xr.DataTree.from_dict({"posterior": posterior})
    tree.attrs["diagnosis"] = json.dumps({"ok": True})
    return tree


def crossed_cells() -> xr.Dataset:
    rng = np.random.default_rng(1)
    y, se = rng.normal(3, 8, (9, 1)), rng.uniform(2, 6, (9, 1))
    cells = table({"estimate": y, "se": se}, arms=("treated",), control="")
    return cells.assign_coords(device=("segment", ["tv", "pc", "app"] * 3))


def test_a_segment_is_predicted_from_the_levels_that_it_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving out by folds, against the conditional of a multivariate normal: the SDs are known."""
    cells = crossed_cells()
    monkeypatch.setattr(leave_one_segment_out, "beyond", lambda task: "a crossed structure")
    tree = xr.DataTree.from_dict({"cells": cells})
    tree.attrs |= {"model": model(by=["device"]).model_dump_json(exclude_none=True), "seed": 7}
    found = leave_one_segment_out.score_left_out_segments(tree, conjugate)
    y, se = cells["estimate"].values[:, 0], cells["se"].values[:, 0]
    same = cells["device"].values[:, None] == cells["device"].values
    whole = KNOWN["mean"] ** 2 + KNOWN["device"] ** 2 * same + np.diag(se**2 + KNOWN["between"] ** 2)
    for s in range(9):
        kept = np.arange(9) != s
        expected = stats.multivariate_normal(np.zeros(9), whole).logpdf(y)
        expected -= stats.multivariate_normal(np.zeros(8), whole[np.ix_(kept, kept)]).logpdf(y[kept])
        # nine comparisons at 4 standard errors: a false alarm in 1 of 1800 seeds
        assert abs(found.loc[s, "elpd"] - expected) < 4 * found.loc[s, "mcse"]
        assert found.loc[s, "mcse"] < 0.1
    assert found.attrs["folds_reliable"]


@pytest.mark.parametrize("name", [pytest.param("counts", marks=pytest.mark.slow), "moments", "means", "revenue"])
def test_folds_give_the_scores_that_weights_give(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = request.getfixturevalue(name)
    stated = {"counts": "conversion", "moments": "continuous", "means": "metric", "revenue": "revenue"}[name]
    if name == "means":
        cells = cells.assign(n=xr.full_like(cells["mean"], 50).astype(int))
    one = hte.fit(cells, stated, sampler="exact", draws=8000)
    exact = leave_one_segment_out.score_left_out_segments(one.tree)
    monkeypatch.setattr(leave_one_segment_out, "beyond", lambda task: "a test")

    def refit(without: xr.Dataset, structured: hte.Model) -> xr.DataTree:
        return fit_model(without, structured, draws=4000, seed=11, progress=False).tree

    found = leave_one_segment_out.score_left_out_segments(one.tree, refit)
    # The engine's draws share its weighted points, so their errors are larger than those of independent draws:
    # 2000 points at the least for 4000 draws make them larger by the root of 3.
    error = np.hypot(exact["mcse"], np.sqrt(3) * found["mcse"])
    assert (abs(found["elpd"] - exact["elpd"]) < 4 * error + 0.01).all()


@pytest.fixture
def revenue() -> xr.Dataset:
    """Four segments of an outcome that is mostly 0, made unit by unit."""
    rng = np.random.default_rng(6)
    size = 1200
    units = pd.DataFrame({"device": rng.choice(list("abcd"), size), "arm": rng.choice(["old", "new"], size)})
    units["spent"] = (rng.random(size) < 0.3) * rng.lognormal(2.0, 1.0, size)
    return hte.cells.from_rows(units, outcome="spent", arm="arm", control="old", segments=["device"], metric="two_part")


def test_emptied_segments_keep_their_names_and_lose_their_data(counts: xr.Dataset, schools: xr.Dataset) -> None:
    for cells in (counts, schools):
        found = leave_one_segment_out.clear_segments(cells, np.array([1, 3]))
        hte.cells.check(found)
        assert list(found["segment"].values) == list(cells["segment"].values)
        there = cell_table.has_data(found).any("arm").values
        assert there.tolist() == [i not in (1, 3) for i in range(len(there))]
        kept = [0, 2, 4, 5]
        xr.testing.assert_identical(found.isel(segment=kept), cells.isel(segment=kept))


def test_a_structure_beyond_the_engine_needs_something_that_fits(
    eight: hte.Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leave_one_segment_out, "beyond", lambda task: "it is a test")
    with pytest.raises(hte.ModelError, match="need the exact engine: it is a test"):
        leave_one_segment_out.score_left_out_segments(eight.tree)


def test_a_fold_that_failed_its_diagnosis_marks_the_row() -> None:
    scores = pd.DataFrame({"elpd": [-1.0, -2.0], "mcse": [0.0, 0.0], "pareto_k": [-np.inf, -np.inf]})
    bad = scores.copy()
    bad.attrs["folds_reliable"] = False
    found = compare.tabulate_scores({"a": scores, "b": bad}, {"a": True, "b": True})
    assert found.set_index("model")["reliable"].to_dict() == {"a": True, "b": False}


@pytest.mark.slow
def test_a_crossed_model_is_compared_by_sampling_without_each_fold() -> None:
    """The whole way with NUTS, against the same normal conditional: SDs are all but known."""

    def near(value: float) -> dict[str, Any]:
        return {"dist": "Uniform", "lower": 0.999 * value, "upper": 1.001 * value}

    cells = crossed_cells()
    stated = model(
        mean={"dist": "Normal", "sigma": KNOWN["mean"]}, between=near(KNOWN["between"]),
        by=["device"], by_between=near(KNOWN["device"]),
    )  # fmt: skip
    found = leave_one_segment_out.score_left_out_segments(
        hte.fit(cells, stated, sampler="nuts").tree,
        lambda without, structured: fit_model(without, structured, draws=2000, sampler="nuts", progress=False).tree,
    )
    y, se = cells["estimate"].values[:, 0], cells["se"].values[:, 0]
    same = cells["device"].values[:, None] == cells["device"].values
    whole = KNOWN["mean"] ** 2 + KNOWN["device"] ** 2 * same + np.diag(se**2 + KNOWN["between"] ** 2)
    for s in range(9):
        kept = np.arange(9) != s
        expected = stats.multivariate_normal(np.zeros(9), whole).logpdf(y)
        expected -= stats.multivariate_normal(np.zeros(8), whole[np.ix_(kept, kept)]).logpdf(y[kept])
        # the SDs' width of 0.1 % changes a score by 0.005 at most
        assert abs(found.loc[s, "elpd"] - expected) < 4 * found.loc[s, "mcse"] + 0.005
