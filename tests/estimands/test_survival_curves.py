"""Survival at stated times from a fit, against the hazards it is made of."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import example

import bayes_hte as hte


@pytest.fixture(scope="module")
def fit() -> hte.Fit:
    return hte.fit(example("piecewise_exponential", segments=6), "survival", draws=800)


def test_survival_is_one_minus_the_risk_of_the_absolute_scale_at_the_horizon(fit: hte.Fit) -> None:
    found, table = fit.survival(), fit.table("absolute").sort_values(["device", "plan", "arm"])
    found = found.sort_values(["device", "plan", "arm"])
    assert found["difference"].to_numpy() == pytest.approx(-table["effect"].to_numpy(), abs=1e-12)
    assert (found["time"] == 12.0).all()
    # Signs are counted among the draws here, and averaged analytically in the table.
    assert found["p_negative"].to_numpy() == pytest.approx(table["p_positive"].to_numpy(), abs=4 * 0.5 / np.sqrt(800))


def test_survival_multiplies_over_intervals(fit: hte.Fit) -> None:
    """S(t) = exp(−Σ hazard × time in the interval), draw by draw, by hand for one segment."""
    draws = fit.posterior["posterior"].to_dataset()
    hazards = np.concatenate([np.zeros((*draws["hazards"].shape[:2], 1)), draws["hazards"].values], axis=-1)
    rate = np.exp(draws["baseline"].values[..., 2, None] + hazards)
    for time, spent in ((5.0, [5, 0, 0]), (7.0, [5, 2, 0]), (20.0, [5, 5, 10])):
        expected = np.exp(-(rate * spent).sum(-1)).mean()
        shown = fit.survival(time)
        row = shown[(shown["device"] == "d2") & (shown["plan"] == "p0") & (shown["arm"] == "email")]
        assert row["survival_control"].item() == pytest.approx(expected)


def test_survival_falls_with_time_and_comes_in_order(fit: hte.Fit) -> None:
    found = fit.survival([2.0, 10.0, 20.0])
    assert list(found.columns[:6]) == ["device", "plan", "arm", "time", "survival_control", "survival_treated"]
    for _, one in found.groupby(["device", "plan", "arm"]):
        assert one["time"].tolist() == [2.0, 10.0, 20.0]
        assert (np.diff(one["survival_control"]) < 0).all()


def test_times_beyond_the_follow_up_and_other_outcomes_are_refused(fit: hte.Fit, counts: xr.Dataset) -> None:
    with pytest.raises(hte.ArgumentError, match="nobody was followed beyond 20"):
        fit.survival(25.0)
    with pytest.raises(hte.ArgumentError, match="times are above 0"):
        fit.survival([0.0])
    with pytest.raises(hte.ModelError, match="from_times"):
        hte.fit(counts, "conversion", draws=400).survival()


def test_times_and_censoring_of_units_reach_the_hazard_ratio() -> None:
    """2,000 units per cell with hazards 0.10 and 0.07, and half of them censored: the hazard ratio is 0.7."""
    rng = np.random.default_rng(4)
    rows = []
    for plan in ("a", "b", "c"):
        for arm, hazard in (("old", 0.10), ("new", 0.07)):
            time, censored = rng.exponential(1 / hazard, 2000), rng.exponential(12.0, 2000)
            rows.append(pd.DataFrame({"plan": plan, "arm": arm, "time": np.minimum(time, censored),
                                      "event": (time <= censored).astype(int)}))  # fmt: skip
    cells = hte.cells.from_times(
        pd.concat(rows), time="time", event="event", arm="arm", control="old", segments=["plan"], breaks=[5.0, 15.0]
    )
    fit = hte.fit(cells, "survival")
    ate = fit.ate("relative").iloc[0]
    # About 900 events per cell and arm: the log hazard ratio has a standard error near 0.03 over three segments.
    assert ate["effect"] == pytest.approx(0.7 - 1, abs=4 * 0.7 * 0.03)
    at_ten = fit.survival(10.0).iloc[0]
    assert at_ten["survival_control"] == pytest.approx(np.exp(-1.0), abs=0.05)
    assert at_ten["survival_treated"] == pytest.approx(np.exp(-0.7), abs=0.05)


def test_the_restricted_mean_is_the_area_under_the_survival_curve(fit: hte.Fit) -> None:
    end = float(fit.cells["end"].values[-1])
    times = np.linspace(0, end, 401)[1:]
    curve = fit.survival(times.tolist())
    last = fit.survival(end)
    for column in ("control", "treated"):
        # Trapezoids of 400 steps of a curve that is smooth within intervals: far below a thousandth of the area.
        heights = curve[f"survival_{column}"].to_numpy().reshape(len(last), -1)
        area = np.trapezoid(np.pad(heights, ((0, 0), (1, 0)), constant_values=1.0), np.append(0.0, times), axis=1)
        assert last[f"mean_time_{column}"].to_numpy() == pytest.approx(area, rel=1e-3)
    difference = last["mean_time_treated"] - last["mean_time_control"]
    assert last["mean_time_difference"].to_numpy() == pytest.approx(difference.to_numpy())
    assert (last["mean_time_low"] < last["mean_time_difference"]).all()


@pytest.mark.parametrize("sampler", ["exact", "nuts"])
@pytest.mark.parametrize("days", ["all at once", "constant hazard"])
def test_a_single_interval_of_time_gives_the_ratio_of_rates(sampler: str, days: str) -> None:
    rng = np.random.default_rng(8)
    rows = pd.DataFrame({"site": np.resize(["a", "b"], 2000), "arm": np.resize(["old", "old", "new", "new"], 2000)})
    rows["died"] = rng.random(2000) < np.where(rows["arm"] == "new", 0.8, 0.4)
    rows["days"] = 1.0 if days == "all at once" else 0.1 + rng.exponential(5.0, 2000)
    cells = hte.cells.from_times(
        rows, time="days", event="died", arm="arm", control="old", segments=["site"], breaks=[]
    )  # fmt: skip
    rates = (cells["failures"] / cells["at_risk"]).isel(interval=0).transpose("segment", "arm").values
    fit = hte.fit(cells, "survival", sampler=sampler, draws=1000)
    table = fit.table("link")
    # Pooling moves two like segments by less than an SD, Monte-Carlo error is a thirtieth of one.
    assert (abs(table["effect"] - np.log(rates[:, 1] / rates[:, 0])) < table["sd"]).all()
    assert fit.survival()["mean_time_difference"].lt(0).all()
