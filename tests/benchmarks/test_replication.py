"""The refitted second tests of the benchmark are those that a fit predicts."""

import numpy as np
from benchmark_scripts import load

import bayes_hte as hte


def test_refitted_second_tests_agree_with_what_is_predicted() -> None:
    benchmark, fit, repeats = load("replication"), hte.example_fit(), 10
    same_sign, same_decision = benchmark.refit_second_tests(fit, repeats)
    predicted = fit.replication(rule=benchmark.RULE)
    for column, share in (("p_same_sign", same_sign), ("p_same_decision", same_decision)):
        expected = predicted[column].to_numpy()
        # 4 standard errors of a share of ten, and half a test: a false alarm in a thousand runs of other seeds
        limit = 4 * np.sqrt(expected * (1 - expected) / repeats) + 0.5 / repeats
        assert (abs(share - expected) <= limit).all()
    assert not (same_decision == 1).all()
