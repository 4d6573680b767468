"""Compute the p-values of the checks, for many rows at once.

They are written with `scipy.special`: importing `scipy.stats` takes longer than everything else in a run without a
report. The tests hold them to `scipy.stats`.
"""

import numpy as np
import numpy.typing as npt

type RealValues = npt.NDArray[np.float64]
type UnitCounts = npt.NDArray[np.int64]

ALARM_P_VALUE = 0.001
"""Below this a check speaks: a platform runs thousands of tests, and false alarms cost trust (Fabijan et al. 2019)."""
MIN_EXPECTED_COUNT = 5
"""The least expected count of a chi-square test (Cochran 1954)."""
MIN_COUNT_FOR_FAR_TAILS = 1000
"""From here on the chi-square test is close to exact even in the far tails that Holm's correction asks for."""
MAX_INDEPENDENT_PART = 0.05
"""A row that is a larger part of what its shares come from depends on them too much for an exact test."""


def compare_with_shares(
    counts: UnitCounts,
    shares: RealValues,
    row_parts: RealValues | float = 0.0,
    *,
    exact_below: float = MIN_COUNT_FOR_FAR_TAILS,
) -> tuple[RealValues, RealValues, npt.NDArray[np.bool_]]:
    """Test the counts of each row against shares of its total.

    Parameters
    ----------
    counts
        Rows and categories.
    shares
        Of the categories, together 1.
    row_parts
        Of each row in all the counts that the shares come from; 0 where they come from elsewhere.
    exact_below
        Expected counts less than this are tested exactly, where the shares come from elsewhere or the row is a small
        part of what they come from.

    Returns
    -------
    tuple
        Chi-square statistics, with one degree of freedom less than categories; p-values; and whether a p-value is that
        of exact tests. A row without counts, or one that is all there is, has NaN.

    Notes
    -----
    Where the shares come from the rows together, the statistic is that of a contingency table of the row and the rest.
    The exact test of two categories is binomial, and its p-value is the probability of all counts that are not more
    probable than the one that was seen. Of more categories each is tested against the rest, and the least p-value is
    multiplied by their number (Bonferroni). For a row that is a part of what the shares come from it is conservative.
    """
    from scipy import special

    row_totals = counts.sum(axis=-1)
    remaining_part = 1 - np.broadcast_to(np.asarray(row_parts, dtype=np.float64), row_totals.shape)
    is_testable = (row_totals > 0) & (remaining_part > 0) & (len(shares) > 1)
    expected_counts = row_totals[:, None] * shares
    # χ² = Σ (O − E)² / E of the row; of the row and the rest together it is that divided by 1 − part.
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.where(
            is_testable, ((counts - expected_counts) ** 2 / expected_counts).sum(axis=-1) / remaining_part, np.nan
        )
    p_values = np.asarray(special.chdtrc(len(shares) - 1, statistics), dtype=np.float64)
    smallest_expected = expected_counts.min(axis=-1)
    is_exact = is_testable & (
        (smallest_expected < MIN_EXPECTED_COUNT)
        | ((smallest_expected < exact_below) & (remaining_part >= 1 - MAX_INDEPENDENT_PART))
    )
    if is_exact.any():
        p_values[is_exact] = _compare_each_with_rest(counts[is_exact], row_totals[is_exact], shares)
    return statistics, p_values, is_exact


def _compare_each_with_rest(counts: UnitCounts, row_totals: UnitCounts, shares: RealValues) -> RealValues:
    """Compute p-values of each row from exact tests of each category against the rest."""
    if len(shares) == 2:
        return compute_binomial_p(counts[:, 0], row_totals, float(shares[0]))
    # Bonferroni: the least p-value times the number of categories.
    category_p = [
        compute_binomial_p(counts[:, category], row_totals, float(share)) for category, share in enumerate(shares)
    ]
    return np.minimum(np.min(category_p, axis=0) * len(shares), 1.0)


def compute_binomial_p(successes: UnitCounts, trials: UnitCounts, share: RealValues | float) -> RealValues:
    """Compute two-sided p-values: the probability of all counts not more probable than `successes` of `trials`."""
    from scipy import special

    is_flipped = successes > trials * share
    k = np.where(is_flipped, trials - successes, successes)  # from here on below the mean
    p = np.where(is_flipped, 1 - share, share)

    def compute_log_probability(counts: UnitCounts) -> RealValues:
        # log P(i) = log n! / (i! (n − i)!) + i log p + (n − i) log(1 − p)
        log_combinations = (
            special.gammaln(trials + 1) - special.gammaln(counts + 1) - special.gammaln(trials - counts + 1)
        )
        return np.asarray(log_combinations + special.xlogy(counts, p) + special.xlog1py(trials - counts, -p))

    # What is equally probable counts, whatever rounding says; the tolerance is SciPy's.
    seen_log_probability = compute_log_probability(k) + 1e-7
    # Bisection for the first count above the mean that is no more probable: from there on probabilities fall.
    lowest_candidate, candidate_end = np.ceil(trials * p).astype(np.int64), trials + 1
    while (lowest_candidate < candidate_end).any():
        middle_candidate = (lowest_candidate + candidate_end) // 2
        is_no_more_probable = compute_log_probability(np.minimum(middle_candidate, trials)) <= seen_log_probability
        lowest_candidate, candidate_end = (
            np.where(is_no_more_probable | (lowest_candidate >= candidate_end), lowest_candidate, middle_candidate + 1),
            np.where(is_no_more_probable, middle_candidate, candidate_end),
        )
    # P(X ≤ k) = I_{1 − p}(n − k, k + 1) and P(X ≥ j) = I_p(j, n − j + 1), with the regularised incomplete beta function
    lower_tail = np.where(
        k < trials,
        special.betainc(np.maximum(trials - k, 1), k + 1, 1 - p),
        1.0,
    )
    upper_tail = np.where(
        lowest_candidate <= trials,
        special.betainc(np.maximum(lowest_candidate, 1), np.maximum(trials - lowest_candidate, 0) + 1, p),
        0.0,
    )
    return np.where(k == trials * p, 1.0, np.minimum(lower_tail + upper_tail, 1.0))


def compare_distributions(counts: UnitCounts) -> tuple[float, float, npt.NDArray[np.intp], UnitCounts]:
    """Test whether the rows are distributed alike over the columns.

    Parameters
    ----------
    counts
        Rows and columns; no column is empty.

    Returns
    -------
    tuple
        The chi-square statistic without correction; its p-value, NaN where nothing can be compared; the rows that were
        compared; and their counts. Rows of which a column expects fewer than 5 are put together to one, the last; it is
        left out if that is not enough.
    """
    from scipy import special

    row_totals = counts.sum(axis=1)
    smallest_column = int(counts.sum(axis=0).min()) if counts.size else 0
    smallest_expected = row_totals * (smallest_column / max(int(row_totals.sum()), 1))
    kept_rows = np.flatnonzero(smallest_expected >= MIN_EXPECTED_COUNT)
    is_rare = (row_totals > 0) & (smallest_expected < MIN_EXPECTED_COUNT)
    tested_counts = counts[kept_rows]
    if smallest_expected[is_rare].sum() >= MIN_EXPECTED_COUNT:
        tested_counts = np.vstack([tested_counts, counts[is_rare].sum(axis=0)])
    if len(tested_counts) < 2 or tested_counts.shape[1] < 2 or (tested_counts.sum(axis=0) == 0).any():
        return np.nan, np.nan, kept_rows, tested_counts
    # E_rc = total_r · share_c; χ² = Σ (O − E)² / E with (rows − 1)(columns − 1) degrees of freedom
    expected_counts = tested_counts.sum(axis=1, keepdims=True) * (tested_counts.sum(axis=0) / tested_counts.sum())
    statistic = float(((tested_counts - expected_counts) ** 2 / expected_counts).sum())
    p_value = float(special.chdtrc((len(tested_counts) - 1) * (tested_counts.shape[1] - 1), statistic))
    return statistic, p_value, kept_rows, tested_counts


def correct_by_holm(p_values: RealValues) -> RealValues:
    """Correct p-values by the method of Holm (1979) for their number; those that are NaN do not count."""
    corrected_p = np.full(len(p_values), np.nan)
    known_positions = np.flatnonzero(~np.isnan(p_values))
    ascending_positions = known_positions[np.argsort(p_values[known_positions], kind="stable")]
    # p_(i) (m − i + 1) for the i-th smallest of m, made ascending
    stepwise_p = p_values[ascending_positions] * np.arange(len(ascending_positions), 0, -1)
    corrected_p[ascending_positions] = np.minimum(np.maximum.accumulate(stepwise_p), 1.0)
    return corrected_p


def compare_means(n: UnitCounts, means: RealValues, ss: RealValues) -> float:
    """Test that groups have one mean: the larger p-value of Welch's test and of the analysis of variance.

    NaN without two groups of two. Of two groups these are Welch's and Student's t test.

    Notes
    -----
    After a randomisation the groups have one distribution, so both tests are right for large groups. For skewed
    measures and groups of unequal size they err on different sides: of a measure that 2 % of the units have, in arms
    of 1,800 and 200, Welch's test has p < .001 with probability .020, the analysis of variance with .002, and both with
    less than .0001. Of normal measures, or in arms of equal size, both together have .001.
    """
    has_variance = n > 1
    n, means, ss = n[has_variance], means[has_variance], ss[has_variance]
    if len(n) < 2:
        return float("nan")
    return max(_compute_anova_p(n, means, ss), _compute_welch_p(n, means, ss))


def _compute_welch_p(n: UnitCounts, means: RealValues, ss: RealValues) -> float:
    """Compute the p-value of Welch 1951, On the comparison of several mean values; 0 where a group is constant."""
    from scipy import special

    group_count, variances = len(n), ss / (n - 1)
    if not (variances > 0).all():
        return 0.0
    # With w = n / s², m̃ = Σ w m / Σ w and h = Σ (1 − w / Σ w)² / (n − 1) / (k² − 1):
    # F = Σ w (m − m̃)² / (k − 1) / (1 + 2 (k − 2) h), with k − 1 and 1 / (3 h) degrees of freedom.
    weights = n / variances
    weight_shares = weights / weights.sum()
    between_variance = float((weights * (means - (weight_shares * means).sum()) ** 2).sum()) / (group_count - 1)
    heterogeneity = float(((1 - weight_shares) ** 2 / (n - 1)).sum()) / (group_count**2 - 1)
    return float(
        special.fdtrc(
            group_count - 1,
            1 / (3 * heterogeneity),
            between_variance / (1 + 2 * (group_count - 2) * heterogeneity),
        )
    )


def _compute_anova_p(n: UnitCounts, means: RealValues, ss: RealValues) -> float:
    """Compute the p-value of the analysis of variance."""
    from scipy import special

    group_count, total_n = len(n), int(n.sum())
    # F = Σ n (m − m̄)² / (k − 1) / (Σ SS / (N − k))
    between_variance = float((n * (means - (n * means).sum() / total_n) ** 2).sum()) / (group_count - 1)
    within_variance = float(ss.sum()) / (total_n - group_count)
    if within_variance == 0:
        return 0.0 if between_variance > 0 else 1.0
    return float(special.fdtrc(group_count - 1, total_n - group_count, between_variance / within_variance))


def bound_grubbs_p(largest_shares: RealValues, n: UnitCounts) -> RealValues:
    """Compute an upper bound of the p-value of the largest share that one of n normal values has in their SS."""
    from scipy import special

    # Grubbs 1950: the share of one value is Beta(1/2, (n − 2)/2); P(largest ≥ s) ≤ n I_{1 − s}((n − 2)/2, 1/2).
    remaining_shares = np.clip(1 - largest_shares, 0.0, 1.0)
    return np.minimum(n * np.asarray(special.betainc(np.maximum(n - 2, 1) / 2, 0.5, remaining_shares)), 1.0)
