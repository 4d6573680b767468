"""The plain difference of the arms beside the average effect: what all units say, whatever they were divided by."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte
from bayes_hte.cells import from_estimates, from_rows, from_summary, from_times
from bayes_hte.errors import ModelError
from bayes_hte.model.families import FAMILIES

ASKED: dict[str, Any] = {"arm": "arm", "control": "old"}
RTOL = 1e-9
"""Rounding of another route to the same number."""


@cache
def people(n: int = 4000) -> pd.DataFrame:
    """Units of two devices, whose shares differ between the arms; villages have one arm, and both devices."""
    rng = np.random.default_rng(8)
    arm = rng.choice(["old", "new"], n)
    device = np.where(rng.random(n) < np.where(arm == "new", 0.7, 0.5), "mobile", "desktop")
    before = rng.normal(10.0, 2.0, n)
    is_new, is_mobile = arm == "new", device == "mobile"
    return pd.DataFrame(
        {
            "device": device,
            "arm": arm,
            "one": "everyone",
            "household": rng.permutation(n) // 2 * 4 + is_new * 2 + is_mobile,  # pairs of one arm and device
            "before": before,
            "views": rng.integers(1, 9, n),
            "w": rng.uniform(0.5, 2.0, n),
            "bought": rng.random(n) < 0.1 + 0.1 * is_mobile + 0.03 * is_new,
            "y": before + 2 * is_mobile + 0.5 * is_new + rng.normal(size=n),
            "stars": rng.integers(1, 6, n) + (is_new & (rng.random(n) < 0.1)),
            "clicks": rng.poisson(1 + is_mobile),
            "spent": np.where(rng.random(n) < 0.3, rng.lognormal(3.0, 0.5, n), 0.0),
            "days": rng.exponential(20.0 / (1 + is_mobile)) + 0.01,
        }
    )


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "yes or no": ("conversion", {"outcome": "bought"}),
    "mean": ("metric", {"outcome": "y"}),
    "ratio": ("metric", {"outcome": "y", "denominator": "views"}),
    "weights": ("metric", {"outcome": "y", "weights": "w"}),
    "clusters": ("metric", {"outcome": "y", "cluster": "household"}),
    "all": ("metric", {"outcome": "y", "denominator": "views", "weights": "w", "cluster": "household"}),
    "continuous": ("continuous", {"outcome": "y"}),
    "rates": ("rates", {"outcome": "clicks", "exposure": "views"}),
    "counts": ("counts", {"outcome": "clicks", "metric": "histogram"}),
    "scale": ("ordered-scale", {"outcome": "stars", "metric": "histogram"}),
    "revenue": ("revenue", {"outcome": "spent", "metric": "two_part"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_plain_difference_is_that_of_the_same_units_without_segments(name):
    model, asked = CASES[name]
    fit = hte.fit(from_rows(people(), segments=["device"], **asked, **ASKED), model, draws=400, progress=False)
    family = FAMILIES[fit.model.family]
    undivided = family.select_statistics(from_rows(people(), segments=["one"], **asked, **ASKED))
    for scale in ("absolute", "relative", "link"):
        expected, found = family.estimate_raw_effects(undivided, scale), fit.ate(scale).iloc[0]
        np.testing.assert_allclose(found["raw"], expected["raw"].item(), rtol=RTOL)
        np.testing.assert_allclose(found["raw_se"], expected["raw_se"].item(), rtol=1e-6)


def test_survival_is_compared_without_segments_too():
    rows = people().assign(end=lambda d: d["days"].clip(upper=30.0), seen=lambda d: d["days"] < 30)
    asked = {"time": "end", "event": "seen", "horizon": 20.0, "breaks": [5.0, 15.0]}
    fit = hte.fit(from_times(rows, segments=["device"], **asked, **ASKED), "survival", draws=400, progress=False)
    family = FAMILIES["piecewise_exponential"]
    undivided = family.select_statistics(from_times(rows, segments=["one"], **asked, **ASKED))
    for scale in ("absolute", "relative", "link"):
        expected = family.estimate_raw_effects(undivided, scale)
        np.testing.assert_allclose(fit.ate(scale)["raw"].item(), expected["raw"].item(), rtol=RTOL)


def test_it_is_the_difference_of_two_means_by_hand():
    rows = people()
    fit = hte.fit(from_rows(rows, outcome="y", segments=["device"], **ASKED), "metric", draws=400)
    new, old = (rows.loc[rows["arm"] == arm, "y"] for arm in ("new", "old"))
    found = fit.ate().iloc[0]
    assert found["raw"] == pytest.approx(new.mean() - old.mean(), rel=RTOL)
    assert found["raw_se"] == pytest.approx(np.sqrt(new.var() / len(new) + old.var() / len(old)), rel=1e-6)
    assert fit.ate("relative")["raw"].item() == pytest.approx(new.mean() / old.mean() - 1, rel=RTOL)
    # Mobile is 70 % of one arm and 50 % of the other: the plain difference holds 0.2 × 2 of what devices differ by.
    assert found["raw"] - found["effect"] == pytest.approx(0.4, abs=0.1)


def test_it_does_not_depend_on_what_the_units_are_divided_by():
    rows = people().assign(half=lambda d: np.where(d["before"] > 10, "high", "low"))
    dimensions = (["device"], ["half"], ["device", "half"])
    averages = [
        hte.fit(from_rows(rows, outcome="bought", segments=names, **ASKED), "conversion", draws=400).ate("relative")
        for names in dimensions
    ]
    assert len({round(table["effect"].item(), 6) for table in averages}) == 3
    for table in averages:
        np.testing.assert_allclose(table[["raw", "raw_se"]], averages[0][["raw", "raw_se"]], rtol=RTOL)


def test_it_is_not_adjusted_for_what_was_before():
    rows = people()
    plain, adjusted = (
        hte.fit(from_rows(rows, outcome="y", segments=["device"], **options, **ASKED), "metric", draws=400).ate()
        for options in ({}, {"cuped": ["before"]})
    )
    np.testing.assert_allclose(adjusted["raw"], plain["raw"], rtol=1e-6)
    assert adjusted["sd"].item() < 0.6 * plain["sd"].item()


def test_means_with_standard_errors_are_averaged_by_their_sizes():
    table = pd.DataFrame(
        {
            "site": ["a", "a", "b", "b"],
            "arm": ["old", "new"] * 2,
            "m": [1.0, 2.0, 3.0, 7.0],
            "se": [0.3, 0.4, 0.3, 0.4],
            "size": [10.0, 20.0, 30.0, 60.0],
        }
    )
    cells = from_summary(table, segments=["site"], mean="m", se="se", size="size", **ASKED)
    model = {
        "family": "mean",
        "effect": {"mean": {"dist": "Normal", "sigma": 5.0}, "between": {"dist": "HalfNormal", "sigma": 5.0}},
        "baseline": {"mean": {"dist": "Normal", "sigma": 5.0}, "between": {"dist": "HalfNormal", "sigma": 5.0}},
    }
    found = hte.fit(cells, hte.Model.model_validate(model), draws=400).ate().iloc[0]
    # 1/4 of each arm is in a, 3/4 in b.
    assert found["raw"] == pytest.approx((2 + 3 * 7) / 4 - (1 + 3 * 3) / 4, rel=RTOL)
    assert found["raw_se"] == pytest.approx(np.sqrt((1 + 9) / 16 * (0.3**2 + 0.4**2)), rel=RTOL)


@pytest.mark.parametrize("covariance", [None, [[0.04, 0.02], [0.02, 0.09]]])
def test_published_estimates_are_averaged_as_they_are(covariance):
    table = pd.DataFrame({"site": ["a", "b"], "y": [1.0, 4.0], "se": [0.2, 0.3], "n": [100, 300]})
    cells = from_estimates(table, segments=["site"], estimate="y", se="se", n="n", covariance=covariance)
    fit = hte.fit(cells, "published-estimates", draws=400)
    found = fit.ate().iloc[0]
    shared = 0.02 if covariance else 0.0
    assert found["raw"] == pytest.approx(0.25 * 1 + 0.75 * 4, rel=RTOL)
    assert found["raw_se"] == pytest.approx(np.sqrt(0.04 / 16 + 0.09 * 9 / 16 + 2 * 3 / 16 * shared), rel=RTOL)
    with pytest.raises(ModelError, match="published estimates"):
        fit.ate("relative")


def clustered() -> pd.DataFrame:
    rows = people().assign(school=lambda d: np.arange(len(d)) % 40 * 2 + (d["arm"] == "new"))
    return rows.assign(half=np.where(rows.index % 3 == 0, "first", "second"))


def test_clusters_in_several_segments_count_once_and_their_rows_are_shown():
    rows = clustered()
    cells = from_rows(rows, outcome="y", cluster="school", segments=["device"], **ASKED)
    fit = hte.fit(cells, "metric", draws=400)
    found, by_segment = fit.ate().iloc[0], fit.table()
    assert (found["n_control"], found["n_treated"]) == (40, 40)
    assert by_segment["n_control"].tolist() == [40, 40]
    in_arm = rows.groupby("arm").size()
    assert (found["size_control"], found["size_treated"]) == (in_arm["old"], in_arm["new"])
    in_cell = rows.groupby(["device", "arm"]).size()
    assert by_segment["size_treated"].tolist() == [in_cell[device, "new"] for device in by_segment["device"]]
    # How the totals of a cluster depend on each other over segments is not in the cells.
    assert np.isnan(found["raw_se"])
    assert np.isfinite(found["raw"])
    sentence = fit.ate().attrs["dependence"]
    assert sentence.startswith("Clusters of school have rows in several levels of 'device', so segments are not")
    for table in (fit.ate(), fit.marginal("device"), fit.contrasts(), fit.heterogeneity()):
        assert table.attrs["population"] == "4,000 rows"
    by_level = fit.marginal("device")
    assert by_level["n_control"].tolist() == [40, 40]


def test_a_level_of_several_segments_has_an_unknown_number_of_clusters():
    cells = from_rows(clustered(), outcome="y", cluster="school", segments=["device", "half"], **ASKED)
    fit = hte.fit(cells, "metric", draws=400)
    assert fit.ate()["n_control"].tolist() == [40]
    assert fit.marginal("device")["n_control"].isna().all()


def test_units_that_stand_for_themselves_have_no_columns_of_sizes():
    fit = hte.example_fit()
    assert not {"size_control", "size_treated"} & {*fit.table().columns, *fit.ate().columns}
    assert "dependence" not in fit.ate().attrs
