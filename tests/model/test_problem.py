"""A model and cells that fit each other: what is refused, the long form, and priors in the control's SDs."""

import numpy as np
import pytest
import xarray as xr
from example_models import beliefs

from bayes_hte import DataError, ModelError, read_model
from bayes_hte.model.long_form import build_long_form
from bayes_hte.model.problem import build_problem


def test_cells_that_were_never_seen_are_left_out(counts: xr.Dataset) -> None:
    cells = build_long_form(counts)
    assert cells.sizes["cell"] == 17
    assert "s5 | sms" not in cells["cell"].values


def test_hostile_labels_stay_apart_in_the_long_form(counts: xr.Dataset) -> None:
    clash = counts.assign_coords(segment=["a | b", "a", "c", "d", "e", "f"], arm=["control", "b | control", "x"])
    assert len(set(build_long_form(clash)["cell"].values)) == 17


@pytest.mark.parametrize(
    ("family", "cells", "message"),
    [
        ("binomial", "moments", r"needs n, events of every cell.*every outcome must be 0 or 1"),
        ("normal", "counts", r"needs n, mean, ss of every cell"),
        ("estimate", "counts", r'family "estimate" takes published estimates'),
        ("normal", "schools", r'published estimates need family "estimate"'),
    ],
)
def test_a_family_says_which_statistics_it_lacks(
    family: str, cells: str, message: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ModelError, match=message):
        build_problem(request.getfixturevalue(cells), beliefs(family, "partial", "partial"))


def test_no_event_anywhere_is_an_error(counts: xr.Dataset) -> None:
    with pytest.raises(DataError, match="no events in any cell"):
        build_problem(counts.assign(events=counts["events"] * 0), read_model("conversion"))


def test_control_sd_units_refer_to_all_units_of_the_control(moments: xr.Dataset) -> None:
    task = build_problem(moments, read_model("continuous"))
    n, mean, ss = (moments[name].isel(arm=0).values for name in ("n", "mean", "ss"))
    overall = (n * mean).sum() / n.sum()
    sd = np.sqrt((ss.sum() + (n * (mean - overall) ** 2).sum()) / (n.sum() - 1))
    assert task.model.baseline is not None
    assert task.model.effect.mean.sigma == pytest.approx(sd)
    assert task.model.baseline.mean.mu == pytest.approx(overall)


def test_mean_family_finds_the_same_control_spread_from_standard_errors(moments: xr.Dataset) -> None:
    kept = moments.isel(segment=[0, 1, 2])
    variance = kept["ss"] / (kept["n"] - 1)
    by_se = kept.drop_vars("ss").assign(se=np.sqrt(variance / kept["n"]))[["mean", "se", "n"]]
    model = read_model("metric")
    from_moments, from_se = build_problem(kept, model).model, build_problem(by_se, model).model
    assert from_se.effect.mean.sigma == pytest.approx(from_moments.effect.mean.sigma, rel=1e-12)


def test_the_control_need_not_be_the_first_arm_of_the_alphabet(moments: xr.Dataset) -> None:
    kept = moments.isel(segment=[0, 1, 2])
    by_se = kept.drop_vars("ss").assign(se=np.sqrt(kept["ss"] / (kept["n"] - 1) / kept["n"]))[["mean", "se", "n"]]
    renamed = by_se.assign_coords(arm=["zero", "a"]).assign_attrs(control="zero")
    assert build_problem(renamed, read_model("metric")).model == build_problem(by_se, read_model("metric")).model


def test_control_sd_units_need_the_number_of_units(means: xr.Dataset) -> None:
    with pytest.raises(ModelError, match="give n, or write priors in the outcome's own units"):
        build_problem(means, read_model("metric"))


def test_a_cell_without_variation_borrows_the_arms_spread(moments: xr.Dataset) -> None:
    task = build_problem(moments, read_model("metric"))
    se = task.cell_statistics["se"]
    freedom = (moments["n"] - 1).sum("segment")
    pooled = np.sqrt(moments["ss"].sum("segment") / freedom)
    assert float(se.sel(segment="s4", arm="control")) == pytest.approx(float(pooled[0]) / 2)
    assert float(se.sel(segment="s3", arm="email")) == pytest.approx(float(pooled[1]))
