"""Power-scaling: what ArviZ is asked, and diagnoses that follow the strength of the prior."""

from typing import Literal

import arviz_stats as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import example_fit

import bayes_hte as hte
from bayes_hte import DataError
from bayes_hte.criticism import arviz_groups, prior_sensitivity


def schools(sigma: float) -> hte.Fit:
    rows = pd.DataFrame({"school": list("ABCDEFGH"), "y": [28.0, 8, -3, 7, -1, 1, 18, 12],
                         "se": [15.0, 10, 16, 11, 9, 11, 10, 18]})  # fmt: skip
    cells = hte.cells.from_estimates(rows, segments=["school"], estimate="y", se="se")
    effect = {"mean": {"dist": "Normal", "mu": 0.0, "sigma": sigma}, "between": {"dist": "HalfNormal", "sigma": 5.0}}
    return hte.fit(cells, hte.Model.model_validate({"family": "estimate", "effect": effect}), seed=3)


@pytest.mark.parametrize("component", ["prior", "likelihood"])
def test_sensitivities_are_arvizs_of_the_same_fit(component: Literal["prior", "likelihood"]) -> None:
    fit = example_fit(4, arms=("control", "sms", "email"))
    found = fit.sensitivity("link").set_index("quantity")[component]
    expected = az.psense(fit.posterior, var_names=["effect_mean", "effect_between", "effect"], group=component)
    for name, values in expected.items():
        for arm in ("sms", "email"):
            if name != "effect":
                assert found[f"{name}[{arm}]"] == pytest.approx(float(values.sel(arm=arm)), rel=1e-9)
                continue
            for segment in map(str, values["segment"].values):
                one = float(values.sel(arm=arm, segment=segment))
                assert found[f"effect[{segment}, {arm}]"] == pytest.approx(one, rel=1e-9)


def test_a_narrow_prior_is_found_to_matter_and_a_wide_one_is_not() -> None:
    narrow, wide = (schools(sigma).sensitivity().set_index("quantity") for sigma in (2.0, 100.0))
    assert narrow.loc["effect_mean[treated]", "prior"] > prior_sensitivity.MIN_NOTICEABLE_SENSITIVITY
    assert narrow.loc["effect_mean[treated]", "diagnosis"].startswith("the prior matters")
    assert wide.loc["effect_mean[treated]", "prior"] < narrow.loc["effect_mean[treated]", "prior"] / 2
    assert list(narrow.columns) == ["prior", "likelihood", "diagnosis", "reliable"]


@pytest.mark.parametrize(
    ("prior", "data", "words"),
    [
        (0.01, 0.2, "hardly matters"),
        (0.2, 0.01, "the data say little"),
        (0.2, 0.2, "pull on this number"),
        (np.nan, 0.2, "not known"),
    ],
)
def test_a_diagnosis_in_words(prior: float, data: float, words: str) -> None:
    assert words in prior_sensitivity.describe_sensitivity(prior, data)


def test_draws_that_do_not_vary_have_no_sensitivity() -> None:
    tree = example_fit(3).posterior.copy()
    posterior = tree["posterior"].to_dataset()
    tree["posterior"] = xr.DataTree(posterior.assign(effect_between=xr.full_like(posterior["effect_between"], 0.1)))
    found = hte.Fit(tree).sensitivity().set_index("quantity")
    assert found.loc["effect_between[email]", ["prior", "likelihood"]].isna().all()
    assert found.loc["effect_between[email]", "diagnosis"].startswith("not known")
    assert found.drop("effect_between[email]")["prior"].notna().all()


def test_a_chain_that_is_stuck_leaves_sensitivities_unknown() -> None:
    tree = example_fit(3).posterior.copy()
    density = tree["log_likelihood"].to_dataset().copy(deep=True)
    best = density["y"].sum("cell").argmax(...)
    density["y"][{"chain": 0}] = density["y"].isel(best)
    tree["log_likelihood"] = xr.DataTree(density)
    found = hte.Fit(tree).sensitivity()
    assert found["prior"].notna().all()
    assert found["likelihood"].isna().all()


def test_a_prior_that_is_flat_over_the_draws_does_not_matter() -> None:
    flat = {"mean": {"dist": "Normal", "mu": 0.0, "sigma": 1e12}}
    model = hte.Model.model_validate({"family": "estimate", "pooling": "complete", "effect": flat})
    found = hte.fit(schools(5.0).cells, model, seed=3).sensitivity()
    assert (found["prior"] == 0).all()
    assert (found["likelihood"] > prior_sensitivity.MIN_NOTICEABLE_SENSITIVITY).all()


def test_of_many_segments_only_what_they_share_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_sensitivity, "MAX_EXAMINED_SEGMENTS", 3)
    fit = example_fit(4, arms=("control", "sms", "email"))
    assert fit.sensitivity()["quantity"].tolist() == [
        "effect_mean[sms]", "effect_mean[email]", "effect_between[sms]", "effect_between[email]",
        "ate[sms]", "ate[email]",
    ]  # fmt: skip
    assert "effect[device 2, sms]" in example_fit(3, arms=("control", "sms")).sensitivity()["quantity"].tolist()


def test_a_log_likelihood_that_was_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arviz_groups, "MAX_VALUES_PER_GROUP", 1.0)
    with pytest.raises(DataError, match="fit with fewer draws"):
        example_fit(2).sensitivity()
