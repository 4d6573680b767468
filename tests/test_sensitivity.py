"""Power-scaling: ArviZ's formulas, and diagnoses that follow the strength of the prior."""

import arviz_stats as az
import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from example_posterior import example_fit
from hypothesis import given, settings
from hypothesis import strategies as st

import bayes_hte as hte
from bayes_hte import DataError, groups, sensitivity


def schools(sigma: float) -> hte.Fit:
    rows = pd.DataFrame({"school": list("ABCDEFGH"), "y": [28.0, 8, -3, 7, -1, 1, 18, 12],
                         "se": [15.0, 10, 16, 11, 9, 11, 10, 18]})  # fmt: skip
    cells = hte.cells.from_estimates(rows, segments=["school"], estimate="y", se="se")
    effect = {"mean": {"dist": "Normal", "mu": 0.0, "sigma": sigma}, "between": {"dist": "HalfNormal", "sigma": 5.0}}
    return hte.fit(cells, hte.Model.model_validate({"family": "estimate", "effect": effect}), seed=3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_sensitivities_are_arvizs_for_the_same_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, log_density = rng.standard_normal((800, 3)) * [1, 100, 1e-3] + 5, rng.gamma(2.0, 3.0, 800)
    values[:, 1] += 20 * log_density
    order = np.argsort(values, axis=0)
    found = sensitivity.power_scaling(np.take_along_axis(values, order, 0), order, log_density)
    for column in range(3):
        weights = [np.exp((power - 1) * log_density) for power in sensitivity.STEPS]
        lower, upper = ((each / each.sum()).reshape(4, 200) for each in weights)
        expected = array_stats.power_scale_sense(values[:, column].reshape(4, 200), lower, upper, *sensitivity.STEPS)
        assert found[column] == pytest.approx(float(expected), rel=1e-6)


def test_smoothing_the_weights_as_arviz_does_changes_no_diagnosis() -> None:
    fit = schools(5.0)
    found = fit.sensitivity().set_index("quantity")
    whole = az.psense(fit.posterior, var_names=["effect_mean", "effect_between"], group="prior")
    for name in ("effect_mean", "effect_between"):
        expected = float(whole[name].values[0])
        assert found.loc[f"{name}[treated]", "prior"] == pytest.approx(expected, rel=0.1)  # a tenth of what is shown


def test_a_narrow_prior_is_found_to_matter_and_a_wide_one_is_not() -> None:
    narrow, wide = (schools(sigma).sensitivity().set_index("quantity") for sigma in (2.0, 100.0))
    assert narrow.loc["effect_mean[treated]", "prior"] > sensitivity.NOTICEABLE
    assert narrow.loc["effect_mean[treated]", "diagnosis"].startswith("the prior matters")
    assert wide.loc["effect_mean[treated]", "prior"] < narrow.loc["effect_mean[treated]", "prior"] / 2
    assert list(narrow.columns) == ["prior", "likelihood", "diagnosis"]


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
    assert words in sensitivity.diagnose(prior, data)


def test_draws_that_do_not_vary_have_no_sensitivity() -> None:
    order = np.zeros((50, 1), dtype=np.intp) + np.arange(50)[:, None]
    assert np.isnan(sensitivity.power_scaling(np.ones((50, 1)), order, np.arange(50.0)))[0]


def test_of_many_segments_only_what_they_share_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "MAX_SEGMENTS", 3)
    fit = example_fit(4, arms=("control", "sms", "email"))
    assert fit.sensitivity()["quantity"].tolist() == [
        "effect_mean[sms]", "effect_mean[email]", "effect_between[sms]", "effect_between[email]",
        "ate[sms]", "ate[email]",
    ]  # fmt: skip
    assert "effect[device 2, sms]" in example_fit(3, arms=("control", "sms")).sensitivity()["quantity"].tolist()


def test_a_log_likelihood_that_was_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "BULKY", 1.0)
    with pytest.raises(DataError, match="fit with fewer draws"):
        example_fit(2).sensitivity()
