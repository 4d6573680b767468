"""The test of log-normal amounts has the false-alarm rate that it states, and sees what would mislead."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bayes_hte.model.families.lognormal_amounts import PositiveOutcomes, is_shape_wrong

Draw = Callable[[np.random.Generator, int], np.ndarray]


def collect(units: list[np.ndarray]) -> PositiveOutcomes:
    logs = [np.log(y) for y in units]
    return PositiveOutcomes(
        np.array([len(y) for y in units], dtype=float), np.array([each.mean() for each in logs]),
        np.array([y.sum() for y in units]), np.array([(y**2).sum() for y in units]),
        float(sum(((each - each.mean()) ** 2).sum() for each in logs)),
    )  # fmt: skip


def count_alarms(draw: Draw, sizes: list[int], repetitions: int) -> int:
    rng = np.random.default_rng(7)
    return sum(
        is_shape_wrong(collect([np.exp(cell) * draw(rng, size) for cell, size in enumerate(sizes)]))
        for _ in range(repetitions)
    )


@pytest.mark.parametrize("log_sd", [0.5, 2.0])
def test_log_normal_amounts_raise_an_alarm_twice_in_a_thousand(log_sd: float) -> None:
    alarms = count_alarms(lambda rng, size: rng.lognormal(3.0, log_sd, size), [4, 9, 2], 300)
    # 0.6 are expected: more than 5 would come once in 3,000 runs of a test that keeps its rate.
    assert stats.binom.sf(5, 300, 0.002) < 1 / 3000
    assert alarms <= 5


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng, size: rng.gamma(0.5, 1.0, size), id="gamma"),
        pytest.param(lambda rng, size: np.where(rng.random(size) < 0.1, 500.0, 10.0), id="two prices"),
    ],
)
def test_amounts_of_another_shape_are_seen_from_a_few_hundred(draw: Draw) -> None:
    assert count_alarms(draw, [150, 150], 10) >= 9


def test_a_large_arm_is_judged_without_taking_long_and_in_any_unit() -> None:
    rng = np.random.default_rng(3)
    units = [rng.lognormal(0.0, 1.0, 50_000), rng.gamma(0.5, 1.0, 50_000)]
    for scale in (1e-140, 1.0, 1e140):
        assert [is_shape_wrong(collect([scale * each])) for each in units] == [False, True]


def test_more_spread_needs_more_outcomes() -> None:
    def needed(log_sd: float) -> int:
        return PositiveOutcomes(np.array([11.0]), np.zeros(1), np.ones(1), np.ones(1), 10 * log_sd**2).needed_freedom

    # 8 sigma², and never fewer than 8
    assert [needed(0.3), needed(1.0), needed(1.5), needed(2.0)] == [8, 8, 18, 32]
