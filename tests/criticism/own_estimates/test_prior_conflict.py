"""Priors that contradict the data are said where they pull the answer away, and only there."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte


def published(y: list[float], se: list[float]) -> xr.Dataset:
    rows = pd.DataFrame({"site": [f"s{i}" for i in range(len(y))], "y": y, "se": se})
    return hte.cells.from_estimates(rows, segments=["site"], estimate="y", se="se")


def conversions(rates: tuple[float, float], n: int, segments: int = 8, seed: int = 1) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    rows = [
        {"site": f"s{i}", "arm": arm, "n": n, "y": int(rng.binomial(n, rate))}
        for i in range(segments)
        for arm, rate in zip(("c", "t"), rates, strict=True)
    ]
    return hte.cells.from_summary(pd.DataFrame(rows), arm="arm", control="c", segments=["site"], n="n", events="y")


def with_effect_priors(name: str, **priors: Any) -> hte.Model:
    content = hte.read_model(name).model_dump(exclude_none=True)
    return hte.Model.model_validate({**content, "effect": {**content["effect"], **priors}})


@pytest.mark.parametrize(
    ("y", "se"),
    [
        ([900.0, 1100.0, 1000.0, 700.0], [150.0, 120.0, 200.0, 160.0]),  # cents
        ([-8.0, -9.5, -7.2], [1.0, 1.2, 0.9]),  # percentage points
        ([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),  # points
    ],
)
def test_estimates_in_other_units_than_the_prior_fail_the_diagnosis(y: list[float], se: list[float]) -> None:
    fit = hte.fit(published(y, se), "published-estimates")
    assert not fit.diagnosis.ok
    (sentence,) = fit.diagnosis.problems
    assert sentence.startswith("The prior and the data contradict each other: the data put the average of the effects")
    assert "same units" in sentence
    assert fit.table().attrs["problems"] == [sentence]
    assert not fit.ate()["reliable"].any()
    assert not fit.sensitivity()["diagnosis"].str.contains("say little").any()


def test_noisy_estimates_in_other_units_are_at_least_noted() -> None:
    fit = hte.fit(published([3.0, -4.0, 6.0, -2.0], [9.0, 8.0, 10.0, 9.0]), "published-estimates")
    assert "Nearly all that is said of the effects of treated comes from the prior" in fit.diagnosis.notes[0]


def test_the_same_estimates_in_the_units_of_the_prior_pass() -> None:
    fit = hte.fit(published([0.52, 0.31, 0.48, 0.61, 0.45], [0.08, 0.09, 0.1, 0.12, 0.07]), "published-estimates")
    assert fit.diagnosis.ok
    assert fit.diagnosis.problems == fit.diagnosis.notes == ()


def test_a_prior_that_the_data_outweigh_is_a_note_and_no_problem() -> None:
    fit = hte.fit(published([5.1, 5.0, 4.9, 5.05], [0.01] * 4), "published-estimates")
    assert fit.diagnosis.ok
    (note,) = fit.diagnosis.notes
    assert "they outweigh it" in note
    assert fit.ate()["effect"].item() == pytest.approx(5.0, abs=0.1)
    assert fit.table().attrs["notes"] == [note]


def test_a_narrow_prior_of_a_log_odds_ratio_is_found() -> None:
    """Odds triple, the prior says that they change by 2 % at most: the fit believes the prior."""
    narrow = {"dist": "Normal", "mu": 0.0, "sigma": 0.01}, {"dist": "HalfNormal", "sigma": 0.01}
    model = with_effect_priors("conversion", mean=narrow[0], between=narrow[1])
    fit = hte.fit(conversions((0.1, 0.25), 400), model)
    assert not fit.diagnosis.ok
    assert "log-odds" in fit.diagnosis.problems[0]
    assert hte.fit(conversions((0.1, 0.25), 400), "conversion").diagnosis.ok


def test_a_spread_beyond_the_prior_is_found_where_it_misleads() -> None:
    y = [3.0, -3.2, 2.8, -2.9, 3.1, -3.0, 2.9, -2.8, 3.3, -3.1]
    wide = with_effect_priors("published-estimates", between={"dist": "HalfNormal", "sigma": 0.02})
    fit = hte.fit(published(y, [0.9] * 10), wide)
    assert any("scatter between segments" in sentence for sentence in fit.diagnosis.problems)
    assert hte.fit(published(y, [0.1] * 10), "published-estimates").diagnosis.ok


def test_rare_events_with_many_units_are_no_conflict() -> None:
    """One in 20,000: 4 prior SDs below the baseline's prior, and well known."""
    fit = hte.fit(conversions((5e-5, 6e-5), 2_000_000), "conversion")
    assert fit.diagnosis.ok, fit.diagnosis


def test_right_priors_hardly_ever_fail() -> None:
    """At most .002 each: two of 60 have probability .007, three 3e-4."""
    rng = np.random.default_rng(7)
    failed = 0
    for _ in range(60):
        se = rng.uniform(0.05, 0.6, 6)
        effects = rng.normal(rng.normal(), abs(rng.normal(0, 0.5)), 6)
        failed += not hte.fit(
            published(list(rng.normal(effects, se)), list(se)), "published-estimates", draws=400
        ).diagnosis.ok
    assert failed <= 2


def test_a_saved_fit_keeps_its_notes(tmp_path: Any) -> None:
    fit = hte.fit(published([5.1, 5.0, 4.9], [0.01] * 3), "published-estimates", draws=400)
    fit.save(tmp_path / "fit.nc")
    assert hte.load(tmp_path / "fit.nc").diagnosis == fit.diagnosis
