"""A stated population is read as shares of segments, or refused in one sentence."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import bayes_hte as hte
from bayes_hte.decisions.policy.population import read_population

CELLS = hte.example_cells()
LABELS = [str(label) for label in CELLS["segment"].values]


def test_without_a_population_it_is_the_experiments() -> None:
    np.testing.assert_allclose(read_population(CELLS, None).values, CELLS["n"].sum("arm") / CELLS["n"].sum())


def test_shares_by_label_by_tuple_and_as_a_table_are_the_same() -> None:
    shares = np.array([0.1, 0.2, 0.3, 0.25, 0.15, 0.0])
    levels = list(zip(CELLS["device"].values, CELLS["customer"].values, strict=True))
    table = pd.DataFrame(levels, columns=["device", "customer"]).assign(share=shares)
    for stated in (
        dict(zip(LABELS, shares, strict=True)),
        dict(zip(levels, shares, strict=True)),
        pd.Series(shares, index=LABELS),
        table.iloc[::-1],
        table[["customer", "share", "device"]],
    ):
        np.testing.assert_allclose(read_population(CELLS, stated).values, shares, atol=1e-12)


def test_a_segment_that_the_experiment_lacks_units_of_takes_the_share_that_a_table_states() -> None:
    levels = pd.DataFrame({"device": CELLS["device"].values, "customer": CELLS["customer"].values})
    emptied = CELLS.copy(deep=True)
    emptied["n"][0] = 0
    emptied["events"][0] = 0
    shares = read_population(emptied, levels.assign(share=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))
    assert float(shares[0]) == pytest.approx(0.5)


def test_levels_keep_their_composition_by_the_weights_of_hand() -> None:
    shares = read_population(CELLS, {"device": {"mobile": 0.7, "desktop": 0.2, "tablet": 0.1}})
    own = (CELLS["n"].sum("arm") / CELLS["n"].sum()).values
    is_mobile = CELLS["device"].values == "mobile"
    np.testing.assert_allclose(shares.values[is_mobile], 0.7 * own[is_mobile] / own[is_mobile].sum())
    as_table = pd.DataFrame({"device": ["mobile", "desktop", "tablet"], "share": [0.7, 0.2, 0.1]})
    xr.testing.assert_allclose(shares, read_population(CELLS, as_table))


@given(st.floats(0.05, 0.9), st.floats(0.05, 0.95))
def test_shares_of_two_dimensions_are_both_met(mobile: float, new: float) -> None:
    rest = (1 - mobile) / 2
    devices = {"mobile": mobile, "desktop": rest, "tablet": rest}
    shares = read_population(CELLS, {"device": devices, "customer": {"new": new, "returning": 1 - new}})
    assert float(shares.sum()) == pytest.approx(1)
    for level, share in devices.items():
        assert float(shares[CELLS["device"].values == level].sum()) == pytest.approx(share, abs=1e-8)
    assert float(shares[CELLS["customer"].values == "new"].sum()) == pytest.approx(new, abs=1e-8)
    # Raking multiplies rows and columns: odds ratios between dimensions stay those of the experiment.
    odds = shares.values.reshape(3, 2) / read_population(CELLS, None).values.reshape(3, 2)
    np.testing.assert_allclose(odds[:, 0] / odds[:, 1], odds[0, 0] / odds[0, 1], rtol=1e-6)


def test_shares_of_two_decimals_are_set_right() -> None:
    stated = dict(zip(LABELS, [0.167, 0.167, 0.167, 0.167, 0.167, 0.167], strict=True))
    np.testing.assert_allclose(read_population(CELLS, stated).values, 1 / 6)


@pytest.mark.parametrize(
    ("population", "message"),
    [
        (dict.fromkeys(LABELS, 0.1), "add up to 0.6, not to 1"),
        (dict.fromkeys(LABELS, 100), "add up to 600, not to 1"),
        ({**dict.fromkeys(LABELS, 0.1), "phone": 0.4}, "segments that are not there: \\['phone'\\]"),
        (dict.fromkeys(LABELS[:5], 0.2), "lacks the segments \\['tablet · returning'\\]"),
        (dict(zip(LABELS, [-0.1, 0.3, 0.2, 0.2, 0.2, 0.2], strict=True)), "is -0.1; give a number from 0 to 1"),
        (dict(zip(LABELS, [float("nan")] * 6, strict=True)), "is nan; give a number"),
        (dict.fromkeys(LABELS, "many"), "is 'many'; give a number"),
        ({"phone": {"new": 1.0}}, "names the dimension 'phone'; there are 'device', 'customer'"),
        ({"device": {"mobile": 0.5, "desktop": 0.5}}, "lacks the levels \\['tablet'\\]"),
        ({"device": {"mobile": 0.5, "desktop": 0.3, "tablet": 0.1}}, "add up to 0.9"),
        ({}, "lacks the segments"),
        ([0.2, 0.8], "population must be a dict"),
        (pd.DataFrame({"device": ["mobile"]}), "give 'share' and at least one of the dimensions"),
        (pd.DataFrame({"device": ["mobile", "mobile"], "share": [0.5, 0.5]}), "two rows of 'mobile'"),
        ({"desktop · new": 0.5, ("desktop", "new"): 0.5}, "names 'desktop · new' twice"),
    ],
)
def test_what_is_no_population_is_refused(population: Any, message: str) -> None:
    with pytest.raises(hte.ArgumentError, match=message):
        read_population(CELLS, population)


def test_levels_that_no_population_has_together_are_refused() -> None:
    cells = CELLS.isel(segment=[0, 2, 4])  # new customers only
    with pytest.raises(hte.ArgumentError, match="levels that are not there"):
        read_population(cells, {"customer": {"new": 0.5, "returning": 0.5}})
    diagonal = CELLS.isel(segment=[0, 3])  # desktop · new, mobile · returning
    with pytest.raises(hte.ArgumentError, match="no population of these segments"):
        read_population(
            diagonal, {"device": {"desktop": 0.9, "mobile": 0.1}, "customer": {"new": 0.1, "returning": 0.9}}
        )
