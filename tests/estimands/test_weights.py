"""Shares of a population, by units or by stated weights, and averages over it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import CHAINS, DRAWS, example_fit

from bayes_hte import ArgumentError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.weights import average_over_segments, compute_population_shares
from bayes_hte.spec.fit_tree import get_fitted_cells

SIZE = CHAINS * DRAWS
FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]


def test_shares_are_the_units_of_all_arms() -> None:
    cells = get_fitted_cells(example_fit(5, arms=("control", "email", "sms"), one_armed=(1,)).posterior)
    n = cells["n"].values
    np.testing.assert_allclose(compute_population_shares(cells), n.sum(axis=1) / n.sum(), rtol=1e-12)


def test_segments_count_the_same_where_units_are_unknown() -> None:
    cells = get_fitted_cells(example_fit(4, "estimate", known_n=False).posterior)
    np.testing.assert_allclose(compute_population_shares(cells), np.full(4, 0.25))


def test_weights_go_by_label_and_in_any_order() -> None:
    cells = get_fitted_cells(example_fit(3).posterior)
    labels = [str(label) for label in cells["segment"].values]
    weights = pd.Series([3.0, 1.0, 0.0], index=labels).iloc[[2, 0, 1]]
    np.testing.assert_allclose(compute_population_shares(cells, weights), [0.75, 0.25, 0.0])
    np.testing.assert_allclose(compute_population_shares(cells, dict(weights)), [0.75, 0.25, 0.0])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1.0, 2.0], r"weights lack the segments \['device 3'\]"),
        ([1.0, -2.0, 1.0], "not negative"),
        ([0.0, 0.0, 0.0], "not all zero"),
        ([1.0, float("nan"), 1.0], "finite"),
        ([1.0, float("inf"), 1.0], "finite"),
    ],
)
def test_weights_that_make_no_population_are_refused(values: list[float], match: str) -> None:
    cells = get_fitted_cells(example_fit(3).posterior)
    with pytest.raises(ArgumentError, match=match):
        compute_population_shares(cells, dict(zip(["device 1", "device 2", "device 3"], values, strict=False)))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_average_effect_is_the_share_weighted_sum_of_every_draw(family: Any) -> None:
    fit = example_fit(4, family, arms=("control", "email", "sms"))
    share = np.array([0.1, 0.2, 0.3, 0.4])
    weights = dict(zip(map(str, fit.cells["segment"].values), share, strict=True))
    draws = compute_effects(fit.posterior)
    found = average_over_segments(draws, compute_population_shares(fit.cells, weights))
    np.testing.assert_allclose(found, np.einsum("cdsa,s->cda", draws.values, share), rtol=1e-12, atol=1e-15)


def test_weights_for_segments_that_are_not_there_are_an_error(counts: xr.Dataset) -> None:
    weights = {f"s{i}": 1.0 for i in range(6)} | {"tablet": 1.0}
    with pytest.raises(ArgumentError, match=r"not there: \['tablet'\]"):
        compute_population_shares(counts, weights)
