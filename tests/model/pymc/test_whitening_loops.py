"""The loops that whiten what segments share, against dense matrices and against differences of their own values."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bayes_hte.model.pymc import whitening_loops as loops

SEGMENTS, CELLS, WIDTH, ENTRIES = 5, 3, 3, 11


class Example:
    """Random numbers for everything, one cell without data among them."""

    def __init__(self, has_baseline: bool) -> None:
        rng = np.random.default_rng(4)
        self.has_baseline = has_baseline
        self.precision = rng.gamma(2.0, 3.0, (SEGMENTS, CELLS))
        self.precision[0, 1] = 0.0
        self.moving = rng.normal(size=(3, SEGMENTS, CELLS))
        self.index = np.argsort(rng.random((CELLS, SEGMENTS, ENTRIES)), axis=2)[:, :, :WIDTH]
        self.value = rng.normal(size=(CELLS, SEGMENTS, WIDTH))
        self.scale, self.whitened = rng.gamma(3.0, 0.3, ENTRIES), rng.normal(size=ENTRIES)
        self.bar, self.change_bar = rng.normal(size=ENTRIES), 0.7

    def sum_segments(self, moving: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return loops.sum_segments(self.precision, moving, self.index, self.value, ENTRIES, self.has_baseline)

    def target(self, moving: NDArray[np.float64], scale: NDArray[np.float64], whitened: NDArray[np.float64]) -> float:
        standard, log_change = loops.solve_shared(*self.sum_segments(moving), scale, whitened)
        return float(self.bar @ standard + self.change_bar * log_change)


@pytest.fixture(params=[True, False], ids=["baseline", "estimates"])
def example(request: pytest.FixtureRequest) -> Example:
    return Example(request.param)


def test_sums_over_segments_are_those_of_dense_matrices(example: Example) -> None:
    pull, joint = np.zeros(ENTRIES), np.zeros((ENTRIES, ENTRIES))
    parts = np.eye(CELLS)
    parts[:, 0] = 1.0 if example.has_baseline else parts[:, 0]
    for s in range(SEGMENTS):
        places = np.zeros((CELLS, ENTRIES))
        np.put_along_axis(places, example.index[:, s], example.value[:, s], axis=1)
        design, weight = parts @ places, np.diag(example.precision[s])
        information, own_scale, loading = example.moving[:, s]
        # Offsets z ~ Normal(0, I) of linear predictors A z, integrated: W − W A (I + A' W A)⁻¹ A' W
        offsets = np.column_stack([loading, np.diag(own_scale)])
        shrunk = weight @ offsets @ np.linalg.inv(np.eye(CELLS + 1) + offsets.T @ weight @ offsets) @ offsets.T
        pull += design.T @ (information - shrunk @ information)
        joint += design.T @ (weight - shrunk @ weight) @ design
    found_pull, found_joint = example.sum_segments(example.moving)
    assert found_pull == pytest.approx(pull, rel=1e-10, abs=1e-12)
    assert found_joint == pytest.approx(joint, rel=1e-10, abs=1e-12)
    root = np.linalg.cholesky(np.eye(ENTRIES) + np.outer(example.scale, example.scale) * joint)
    standard = np.linalg.solve(root.T, np.linalg.solve(root, example.scale * pull) + example.whitened)
    change = 0.5 * (example.whitened @ example.whitened - standard @ standard) - np.log(np.diag(root)).sum()
    found_standard, found_change = loops.solve_shared(found_pull, found_joint, example.scale, example.whitened)
    assert found_standard == pytest.approx(standard, rel=1e-9)
    assert found_change == pytest.approx(change, rel=1e-9)


def test_derivatives_are_those_of_differences(example: Example) -> None:
    sums = example.sum_segments(example.moving)
    pull_bar, joint_bar, scale_bar, whitened_bar = loops.differentiate_shared(
        *sums, example.scale, example.whitened, example.bar, example.change_bar
    )
    moving_bar = np.zeros_like(example.moving)
    for s in range(SEGMENTS):
        cell_bars = loops.spread_bars(pull_bar, joint_bar, example.index, example.value, s, example.has_baseline)
        loops.differentiate_offsets(example.precision[s], example.moving[:, s], *cell_bars, moving_bar[:, s])
    arguments = [example.moving, example.scale, example.whitened]
    for position, bar in enumerate([moving_bar, scale_bar, whitened_bar]):
        for element in np.ndindex(bar.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = [argument.copy() for argument in arguments]
                moved[position][element] += step
                values.append(example.target(*moved))
            # Error of the difference: step² times the third derivative, and rounding 1e-16 / step.
            assert bar[element] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6, abs=1e-7)
