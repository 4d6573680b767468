"""What `fit_table` is asked, and what it answers of that."""

from typing import Any

import pytest
from cell_tables import KEYS, long_table

import bayes_hte as hte
from bayes_hte.errors import ArgumentError, ModelError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "log"}, "no scale 'log'"),
        ({"ci_prob": 95}, "ci_prob is a probability"),
        ({"draws": 10}, "draws=10 is too few"),
        ({"seed": -1}, "seed=-1 is no seed"),
        ({"sampler": "fast"}, "no sampler 'fast'"),
        ({"keys": "experiments"}, "the table lacks 'experiments'"),
    ],
)
def test_a_wrong_argument_is_wrong_for_all_problems_and_no_row(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hte.fit_table(long_table(), "conversion", **({"keys": KEYS} | changes))


def test_a_model_that_is_not_there_is_missed_before_anything_is_sent() -> None:
    with pytest.raises(ModelError, match="conversio"):
        hte.fit_table(long_table(), "conversio", keys=KEYS)


def test_a_column_of_the_table_may_not_be_called_as_one_of_the_result() -> None:
    with pytest.raises(ArgumentError, match="the result has columns 'row' of its own"):
        hte.fit_table(long_table().rename(columns={"experiment": "row"}), "conversion", keys=["row", "metric"])


def test_scale_and_interval_are_those_asked_for_and_stand_in_the_table() -> None:
    table = long_table().query("experiment == 2")
    result = hte.fit_table(table, "conversion", keys=KEYS, scale="relative", ci_prob=0.5, draws=1000)
    assert set(result["scale"]) == {"relative"}
    assert set(result["ci_prob"]) == {0.5}
    assert (result["effect"].abs() > 0.02).all()  # shares of a rate of a tenth: ten times the difference
    # Half of the draws lie in the interval: less than a standard deviation on each side.
    assert (result["ci_high"] - result["ci_low"] < 2 * result["sd"]).all()
