"""Integrated probabilities of signs give way to counted draws where both cannot be right."""

import numpy as np
import pytest

from bayes_hte.inference.exact.sign import MAX_ERRORS, reconcile


def test_an_integral_within_the_error_of_counting_is_kept() -> None:
    effect = np.linspace(-1, 1, 4001)[:, None, None] * np.ones((1, 2, 1))
    integrated, error = np.array([[0.51], [0.49]]), np.full((2, 1), 1e-4)
    probability, kept_error, disagreement = reconcile(integrated, error, effect, 4000.0)
    assert probability == pytest.approx(integrated)
    assert kept_error == pytest.approx(error)
    assert disagreement == 0.0


def test_an_integral_beyond_the_error_of_counting_gives_way_to_it() -> None:
    effect = np.where(np.arange(4000)[:, None, None] < 3300, 1.0, -1.0) * np.ones((1, 2, 1))
    integrated, error = np.array([[0.66], [0.825]]), np.full((2, 1), 1e-3)
    probability, new_error, disagreement = reconcile(integrated, error, effect, 4000.0)
    assert probability.ravel() == pytest.approx([0.825, 0.825])
    counting_error = np.sqrt(0.825 * 0.175 / 4000)
    assert new_error.ravel() == pytest.approx([counting_error, 1e-3], rel=1e-3)
    assert disagreement == pytest.approx(0.165 - MAX_ERRORS * np.hypot(counting_error, 1e-3) - 0.002, abs=1e-4)


def test_an_effect_that_is_always_positive_leaves_room_for_a_small_share_below() -> None:
    probability, _, disagreement = reconcile(np.array([[0.9995]]), np.array([[1e-5]]), np.ones((4000, 1, 1)), 1000.0)
    assert probability.item() == 0.9995
    assert disagreement == 0.0
