"""Standard errors of the family mean: one variance over units per arm, unless each cell's own is asked for."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.errors import ModelError, PlanError
from bayes_hte.model.families import select_model_statistics
from bayes_hte.spec.files import find_models_folder

POOLED = hte.read_model("metric")
OWN = POOLED.model_copy(update={"unit_variance": "per_cell"})
SD = np.array([[2.0, 3.0], [0.0, 5.0], [4.0, 1.0]])
N = np.array([[10, 20], [5, 40], [100, 1]])


def moments() -> xr.Dataset:
    labels = [(segment, arm) for segment in "abc" for arm in ("old", "new")]
    table = pd.DataFrame(labels, columns=["s", "arm"]).assign(n=N.ravel(), mean=np.arange(6.0), sd=SD.ravel())
    return hte.cells.from_summary(table, arm="arm", control="old", segments=["s"], n="n", mean="mean", sd="sd")


def test_the_cells_of_an_arm_share_one_variance_over_units() -> None:
    pooled_variance = ((N - 1) * SD**2).sum(0) / (N - 1).sum(0)
    found = select_model_statistics(moments(), POOLED)["se"].sel(segment=list("abc")).values
    assert found == pytest.approx(np.sqrt(pooled_variance / N))


def test_each_cell_has_its_own_variance_where_that_is_asked_for() -> None:
    pooled_variance = ((N - 1) * SD**2).sum(0) / (N - 1).sum(0)
    expected = np.sqrt(SD**2 / N)
    # Without variation, and of one unit, a cell says nothing of its spread.
    expected[1, 0], expected[2, 1] = np.sqrt(pooled_variance[0] / 5), np.sqrt(pooled_variance[1])
    assert select_model_statistics(moments(), OWN)["se"].values == pytest.approx(expected)
    fitted = hte.fit(moments(), OWN)
    assert fitted.table("absolute")["raw_se"].iloc[0] == pytest.approx(np.hypot(*expected[0]))


def test_published_standard_errors_are_left_alone() -> None:
    table = moments()[["mean"]].assign(se=(("segment", "arm"), SD + 1.0)).to_dataframe().reset_index()
    cells = hte.cells.from_summary(table, arm="arm", control="old", segments=["segment"], mean="mean", se="se")
    assert select_model_statistics(cells, POOLED)["se"].values == pytest.approx(SD + 1.0)


def customers(*, weighted: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"s": rng.choice(list("abcd"), 800), "arm": rng.choice(["old", "new"], 800)})
    rows["before"] = rng.normal(10.0 * rows["s"].map({"a": 0, "b": 1, "c": 2, "d": 4}), 1.0)
    rows["spent"] = 3 * rows["before"] + 1.0 * (rows["arm"] == "new") + rng.normal(0.0, 1.0 + rows["before"].abs() / 20)
    return rows.assign(weight=rng.uniform(1, 2, 800) if weighted else 1.0)


ASK = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["s"], "metric": "mean"}


def test_residuals_of_adjusted_means_share_one_variance_but_weighted_means_keep_their_own() -> None:
    cells = hte.cells.from_rows(customers(), cuped=["before"], **ASK)
    n, own_se = cells["n"], cells["se"]
    variance = (own_se**2 * n * (n - 1)).sum("segment") / (n - 1).sum("segment")
    expected = np.sqrt(variance / n).transpose("segment", "arm")
    xr.testing.assert_allclose(select_model_statistics(cells, POOLED)["se"].drop_attrs(), expected.drop_attrs())
    weighted = hte.cells.from_rows(customers(weighted=True), weights="weight", **ASK)
    xr.testing.assert_equal(select_model_statistics(weighted, POOLED)["se"], weighted["se"])


def test_baselines_of_adjusted_means_are_those_of_units_with_equal_covariates() -> None:
    rows = customers()
    cells = hte.cells.from_rows(rows, cuped=["before"], **ASK)
    modelled_means = select_model_statistics(cells, POOLED)["mean"].sel(arm="old")
    # Outcomes are 3 × before: once that is taken away, segments are alike, 3 × the overall mean of before.
    assert modelled_means.values == pytest.approx(3 * rows["before"].mean(), rel=0.05)
    assert np.ptp(cells["mean"].sel(arm="old").values) > 100  # what is reported is the segment's own mean


def test_relative_effects_of_adjusted_means_are_of_the_segments_own_mean() -> None:
    rows = customers()
    fit = hte.fit(hte.cells.from_rows(rows, cuped=["before"], **ASK), "metric")
    found = fit.table("relative").set_index("s")
    control_mean = rows[rows["arm"] == "old"].groupby("s")["spent"].mean()
    absolute = fit.table("absolute").set_index("s")["effect"]
    # The control's mean of 100 units around 40 to 120 is known to within a few percent of the adjusted one.
    assert found.loc[["c", "d"], "effect"].to_numpy() == pytest.approx(
        (absolute / control_mean)[["c", "d"]].to_numpy(), rel=0.1
    )
    assert found.loc[["c", "d"], "raw"].to_numpy() == pytest.approx(
        found.loc[["c", "d"], "effect"].to_numpy(), abs=0.01
    )


def test_only_the_family_mean_has_variances_to_choose_from(tmp_path) -> None:
    file = tmp_path / "conversion.toml"
    source = (find_models_folder() / "conversion.toml").read_text(encoding="utf-8")
    file.write_text('unit_variance = "per_cell"\n' + source, encoding="utf-8")
    with pytest.raises(ModelError, match='unit_variance is for family "mean"'):
        hte.read_model(file)


def write_plan(tmp_path, *, model: str):
    table = moments()[["n", "mean"]].assign(sd=(("segment", "arm"), SD)).to_dataframe().reset_index()
    table.to_csv(tmp_path / "cells.csv", index=False)
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'title = "Spend"\nmodel = "{model}"\nunit_variance = "per_cell"\n[data]\nform = "summary"\n'
        'path = "cells.csv"\noutcome = "spend"\narm = "arm"\ncontrol = "old"\nsegments = ["segment"]\n'
        'n = "n"\nmean = "mean"\nsd = "sd"\n',
        encoding="utf-8",
    )
    return plan


def test_a_plan_chooses_the_variances_in_place_of_the_model(tmp_path) -> None:
    assert hte.run(write_plan(tmp_path, model="metric")).model.unit_variance == "per_cell"
    with pytest.raises(PlanError, match="unit_variance is for models of family"):
        hte.run(write_plan(tmp_path, model="continuous"))
