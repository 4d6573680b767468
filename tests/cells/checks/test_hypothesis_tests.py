"""The p-values of the checks, held to SciPy's own tests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bayes_hte.cells.checks.hypothesis_tests import (
    bound_grubbs_p,
    compare_distributions,
    compare_means,
    compare_with_shares,
    compute_binomial_p,
    correct_by_holm,
)

COUNTS = st.integers(0, 400)
SHARES = st.floats(0.001, 0.999)


@given(st.lists(st.tuples(COUNTS, COUNTS, SHARES), min_size=1, max_size=20))
def test_the_binomial_test_is_that_of_scipy(drawn):
    for count, more, share in drawn:
        total = count + more
        if total:
            found = compute_binomial_p(np.array([count]), np.array([total]), share)[0]
            assert found == pytest.approx(stats.binomtest(count, total, share).pvalue, rel=1e-6, abs=1e-300)


@given(st.lists(st.integers(20, 5000), min_size=2, max_size=6), st.data())
def test_the_ratio_test_is_the_chi_square_test_of_scipy(counts, data):
    weights = data.draw(st.lists(st.floats(1, 5), min_size=len(counts), max_size=len(counts)))
    shares = np.array(weights) / sum(weights)
    (statistic,), (p,), (exact,) = compare_with_shares(np.array([counts]), shares, exact_below=0)
    if exact:  # an expected number below 5
        return
    oracle = stats.chisquare(counts, shares * sum(counts))
    assert statistic == pytest.approx(oracle.statistic, rel=1e-9)
    assert p == pytest.approx(oracle.pvalue, rel=1e-9, abs=1e-300)


@given(st.lists(st.integers(200, 5000), min_size=4, max_size=4))
def test_a_row_held_to_the_shares_of_all_rows_is_a_table_of_it_and_the_rest(counts):
    table = np.array(counts).reshape(2, 2)
    total = table.sum()
    statistics, p, exact = compare_with_shares(table, table.sum(axis=0) / total, table.sum(axis=1) / total)
    oracle = stats.chi2_contingency(table, correction=False)
    assert statistics == pytest.approx([oracle.statistic] * 2, rel=1e-6, abs=1e-9)
    assert not exact.all()  # a row of a twentieth or less of all has an exact test
    assert p[~exact] == pytest.approx(np.full((~exact).sum(), oracle.pvalue), rel=1e-6, abs=1e-9)


def test_of_several_small_categories_each_is_tested_against_the_rest():
    (_,), (p,), (exact,) = compare_with_shares(np.array([[9, 1, 2]]), np.array([0.2, 0.3, 0.5]))
    each = [stats.binomtest(k, 12, share).pvalue for k, share in zip([9, 1, 2], [0.2, 0.3, 0.5], strict=True)]
    assert exact
    assert p == pytest.approx(3 * min(each))


def test_exact_tests_keep_their_level_where_chi_square_does_not():
    """All outcomes of Binomial(60, 0.1), expected 6: what is called at 1e-5 has at most that probability."""
    counts = np.stack([np.arange(61), 60 - np.arange(61)], axis=-1)
    shares = np.array([0.1, 0.9])
    chance = stats.binom.pmf(np.arange(61), 60, 0.1)
    exact, approximate = (compare_with_shares(counts, shares, exact_below=limit)[1] for limit in (1000, 5))
    assert chance[exact < 1e-5].sum() <= 1e-5
    assert chance[approximate < 1e-5].sum() > 5e-5


def test_rows_without_counts_or_without_others_cannot_be_tested():
    found = compare_with_shares(np.array([[0, 0], [5, 7]]), np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1]).all()


@given(st.lists(st.tuples(st.integers(20, 900), st.integers(20, 900), st.integers(20, 900)), min_size=2, max_size=6))
def test_independence_is_the_contingency_test_of_scipy(rows):
    table = np.array(rows)
    statistic, p, kept, compared = compare_distributions(table)
    if len(kept) < len(table):  # some were put together
        assert len(compared) <= len(kept) + 1
        return
    oracle = stats.chi2_contingency(table, correction=False)
    assert statistic == pytest.approx(oracle.statistic, rel=1e-9, abs=1e-9)
    assert p == pytest.approx(oracle.pvalue, rel=1e-9, abs=1e-300)


def test_small_rows_are_put_together():
    table = np.array([[100, 110], [90, 80], *[[1, 0], [0, 1]] * 10, [0, 0]])
    statistic, p, kept, compared = compare_distributions(table)
    assert kept.tolist() == [0, 1]
    assert compared.tolist() == [[100, 110], [90, 80], [10, 10]]
    oracle = stats.chi2_contingency(compared, correction=False)
    assert (statistic, p) == pytest.approx((oracle.statistic, oracle.pvalue))


@pytest.mark.parametrize("table", [[[5, 6]], [[100], [90]], [[1, 0], [0, 1]], [[0, 0], [0, 0]]])
def test_what_cannot_be_compared_has_no_p_value(table):
    assert np.isnan(compare_distributions(np.array(table))[1])


def test_holm_by_hand():
    """Holm 1979: the least p times their number, the next times one less, and never less than the one before."""
    found = correct_by_holm(np.array([0.01, np.nan, 0.04, 0.03, 0.5]))
    np.testing.assert_allclose(found, [0.04, np.nan, 0.09, 0.09, 0.5])
    assert correct_by_holm(np.array([])).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms())
def test_holm_does_not_depend_on_the_order_and_raises_every_p(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    found = correct_by_holm(np.array(p))
    np.testing.assert_array_equal(correct_by_holm(np.array(p)[order]), found[order])
    assert (found >= np.array(p)).all()
    assert (found <= 1).all()


def moments(groups):
    return (
        np.array([len(g) for g in groups]),
        np.array([np.mean(g) for g in groups]),
        np.array([np.var(g) * len(g) for g in groups]),
    )


@pytest.mark.parametrize("sizes", [(30, 50), (8, 400), (20, 30, 40, 50)])
def test_equal_means_is_the_larger_p_of_welch_and_of_one_variance(sizes):
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.5, 2.0):
        groups = [rng.normal(shift * i, 1 + i, size) for i, size in enumerate(sizes)]
        oracle = max(stats.f_oneway(*groups, equal_var=equal).pvalue for equal in (True, False))
        assert compare_means(*moments(groups)) == pytest.approx(oracle, rel=1e-8)
    if len(sizes) == 2:
        assert oracle == pytest.approx(max(stats.ttest_ind(*groups, equal_var=equal).pvalue for equal in (True, False)))


def test_groups_that_do_not_vary_are_equal_or_not():
    n, ss = np.array([20, 30]), np.zeros(2)
    assert compare_means(n, np.array([1.0, 1.0]), ss) == 1.0
    assert compare_means(n, np.array([1.0, 2.0]), ss) == 0.0
    one = compare_means(n, np.array([1.0, 1.1]), np.array([0.0, 40.0]))
    assert 0.1 < one < 1
    assert np.isnan(compare_means(np.array([1, 30]), np.array([1.0, 2.0]), np.array([0.0, 4.0])))


def test_grubbs_is_the_maximum_of_normal_values():
    """Share of ss of one given value ~ Beta(1/2, (n − 2)/2); the largest of n is rarer than n times that."""
    rng = np.random.default_rng(5)
    y = rng.normal(size=(20_000, 12))
    deviations = (y - y.mean(axis=1, keepdims=True)) ** 2 * 12 / 11
    share = (deviations / (deviations * 11 / 12).sum(axis=1, keepdims=True)).max(axis=1)
    p = bound_grubbs_p(share, np.full(len(share), 12))
    assert stats.binomtest(int((p < 0.01).sum()), len(p), 0.01).pvalue > 1e-6


@pytest.mark.parametrize("measure", ["skewed", "rare", "normal"])
def test_equal_groups_differ_once_in_a_thousand_at_most(measure):
    """Arms of 9 to 1: 4,000 runs have more than 14 alarms with probability 2e-5; Welch's test alone has 20 and more."""
    rng = np.random.default_rng(5)
    draw = {
        "skewed": lambda n: rng.lognormal(0, 1, n),
        "rare": lambda n: (rng.random(n) < 0.02) * 1.0,
        "normal": lambda n: rng.normal(size=n),
    }[measure]
    assert sum(compare_means(*moments([draw(900), draw(100)])) < 0.001 for _ in range(4000)) <= 14
