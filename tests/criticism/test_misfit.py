"""A result that the data contradict, or that a few draws decide, is not called reliable."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_revenue import revenue

import bayes_hte as hte
from bayes_hte.criticism.misfit import list_misfits
from bayes_hte.estimands.tables import is_mean_unsettled


def sell(amounts: str, *, buyers: float, seed: int = 2, units: int = 900) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"shop": rng.choice(list("abc"), units), "arm": rng.choice(["old", "new"], units)})
    sizes = {
        "log-normal": rng.lognormal(3.0, 1.0, units),
        "gamma": 40 * rng.gamma(0.5, 1.0, units),
        "two prices": np.where(rng.random(units) < 0.1, 500.0, 10.0),
    }[amounts]
    rows["spent"] = np.where(rng.random(units) < buyers, sizes, 0.0)
    return hte.cells.from_rows(
        rows, outcome="spent", arm="arm", control="old", segments=["shop"], metric="two_part"
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(1, 4))
def test_revenue_of_a_handful_of_buyers_is_refused_and_the_number_needed_is_said(seed: int) -> None:
    fit = hte.fit(sell("log-normal", buyers=0.01, seed=3), "revenue", seed=seed)
    assert not fit.diagnosis.ok
    assert any("units with a positive outcome" in problem and "needs" in problem for problem in fit.diagnosis.problems)
    for table in (fit.ate(), fit.table(), fit.best_arm(), fit.contrasts(), fit.predict_new_segment()):
        assert not table["reliable"].any()


def test_the_mean_effect_on_revenue_does_not_depend_on_the_seed() -> None:
    fits = [hte.fit(sell("log-normal", buyers=0.05), "revenue", seed=seed) for seed in (1, 2, 3)]
    assert all(fit.diagnosis.ok for fit in fits)
    for table in (hte.Fit.ate, hte.Fit.predict_new_segment):
        answers = pd.concat([table(fit) for fit in fits])
        assert ((answers["ci_low"] < answers["effect"]) & (answers["effect"] < answers["ci_high"])).all()
        # Each mean has an error of sd / √3,200 effective draws; a difference of a tenth of an SD is 4 of them.
        assert np.ptp(answers["effect"]) < 0.1 * answers["sd"].mean()


@pytest.mark.parametrize("amounts", ["gamma", "two prices"])
def test_amounts_that_are_not_log_normal_are_said_with_both_means(amounts: str) -> None:
    cells = sell(amounts, buyers=0.4)
    fit = hte.fit(cells, "revenue")
    assert not fit.diagnosis.ok
    (problem, *_) = fit.diagnosis.problems
    assert "not log-normal" in problem
    assert "the model metric" in problem
    plain_mean = float((cells["n"] * cells["mean"]).sel(arm="old").sum() / cells["n"].sel(arm="old").sum())
    assert f"{plain_mean:.4g}" in " ".join(fit.diagnosis.problems)
    # The way out works on the same cells.
    assert hte.fit(cells, "metric").diagnosis.ok


def test_log_normal_amounts_are_not_faulted() -> None:
    assert list_misfits(hte.fit(revenue(4, 5)[1], "revenue").posterior) == ()


def test_a_mean_that_one_draw_decides_is_seen() -> None:
    draws = np.random.default_rng(0).standard_normal((4, 500, 2))
    draws[1, 7, 1] = 1e6
    found = is_mean_unsettled(xr.DataArray(draws, dims=("chain", "draw", "segment")))
    assert found.values.tolist() == [False, True]
