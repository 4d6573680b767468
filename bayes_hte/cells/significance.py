"""The p-values of the checks, for many rows at once.

They are written with `scipy.special`: importing `scipy.stats` takes longer than everything else in a run without a
report. The tests hold them to `scipy.stats`.
"""

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.float64]
type Counts = npt.NDArray[np.int64]

THRESHOLD = 0.001
"""Below this a check speaks: a platform runs thousands of tests, and false alarms cost trust (Fabijan et al. 2019)."""
LEAST = 5
"""The least expected count of a chi-square test (Cochran 1954)."""
SURELY = 1000
"""From here on the chi-square test is close to exact even in the far tails that Holm's correction asks for."""
SMALL_PART = 0.05


def ratio_tests(
    counts: Counts, shares: Floats, parts: Floats | float = 0.0, *, exact_below: float = SURELY
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Test the counts of each row against shares of its total.

    Parameters
    ----------
    counts
        Rows and categories.
    shares
        Of the categories, together 1.
    parts
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

    total = counts.sum(axis=-1)
    rest = 1 - np.broadcast_to(np.asarray(parts, dtype=np.float64), total.shape)
    testable = (total > 0) & (rest > 0) & (len(shares) > 1)
    expected = total[:, None] * shares
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(testable, ((counts - expected) ** 2 / expected).sum(axis=-1) / rest, np.nan)
    p = np.asarray(special.chdtrc(len(shares) - 1, statistic), dtype=np.float64)
    least = expected.min(axis=-1)
    exact = testable & ((least < LEAST) | ((least < exact_below) & (rest >= 1 - SMALL_PART)))
    if exact.any():
        p[exact] = _each_against_the_rest(counts[exact], total[exact], shares)
    return statistic, p, exact


def _each_against_the_rest(counts: Counts, total: Counts, shares: Floats) -> Floats:
    if len(shares) == 2:
        return binomial(counts[:, 0], total, float(shares[0]))
    every = [binomial(counts[:, i], total, float(share)) for i, share in enumerate(shares)]
    return np.minimum(np.min(every, axis=0) * len(shares), 1.0)


def binomial(count: Counts, total: Counts, share: float) -> Floats:
    """Two-sided p-values of `count` out of `total`: of all counts that are not more probable than the one seen."""
    from scipy import special

    flip = count > total * share
    k = np.where(flip, total - count, count)  # from here on below the mean
    p = np.where(flip, 1 - share, share)

    def log_probability(i: Counts) -> Floats:
        ways = special.gammaln(total + 1) - special.gammaln(i + 1) - special.gammaln(total - i + 1)
        return np.asarray(ways + special.xlogy(i, p) + special.xlog1py(total - i, -p))

    seen = log_probability(k) + 1e-7  # what is equally probable counts, whatever rounding says; as in SciPy
    low, high = (
        np.ceil(total * p).astype(np.int64),
        total + 1,
    )  # the first count above the mean that is no more probable
    while (low < high).any():
        middle = (low + high) // 2
        rare = log_probability(np.minimum(middle, total)) <= seen
        low, high = np.where(rare | (low >= high), low, middle + 1), np.where(rare, middle, high)
    below = np.where(k < total, special.betainc(np.maximum(total - k, 1), k + 1, 1 - p), 1.0)
    above = np.where(low <= total, special.betainc(np.maximum(low, 1), np.maximum(total - low, 0) + 1, p), 0.0)
    return np.where(k == total * p, 1.0, np.minimum(below + above, 1.0))


def independence(counts: Counts) -> tuple[float, float, npt.NDArray[np.intp], Counts]:
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

    total = counts.sum(axis=1)
    rarest = int(counts.sum(axis=0).min()) if counts.size else 0
    expected = total * (rarest / max(int(total.sum()), 1))
    kept = np.flatnonzero(expected >= LEAST)
    others = (total > 0) & (expected < LEAST)
    table = counts[kept]
    if expected[others].sum() >= LEAST:
        table = np.vstack([table, counts[others].sum(axis=0)])
    if len(table) < 2 or table.shape[1] < 2 or (table.sum(axis=0) == 0).any():
        return np.nan, np.nan, kept, table
    every = table.sum(axis=1, keepdims=True) * (table.sum(axis=0) / table.sum())
    statistic = float(((table - every) ** 2 / every).sum())
    p = float(special.chdtrc((len(table) - 1) * (table.shape[1] - 1), statistic))
    return statistic, p, kept, table


def holm(p: Floats) -> Floats:
    """P-values with Holm's (1979) correction for their number; those that are NaN do not count."""
    found = np.full(len(p), np.nan)
    there = np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    raised = p[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return found


def equal_means(n: Counts, mean: Floats, ss: Floats) -> float:
    """Test that groups have one mean: the larger p-value of Welch's test and of the analysis of variance.

    NaN without two groups of two. Of two groups these are Welch's and Student's t test.

    Notes
    -----
    After a randomisation the groups have one distribution, so both tests are right for large groups. For skewed
    measures and groups of unequal size they err on different sides: of a measure that 2 % of the units have, in arms
    of 1,800 and 200, Welch's test has p < .001 with probability .020, the analysis of variance with .002, and both with
    less than .0001. Of normal measures, or in arms of equal size, both together have .001.
    """
    many = n > 1
    n, mean, ss = n[many], mean[many], ss[many]
    if len(n) < 2:
        return float("nan")
    return max(_one_variance(n, mean, ss), _welch(n, mean, ss))


def _welch(n: Counts, mean: Floats, ss: Floats) -> float:
    """Welch 1951, On the comparison of several mean values; 0 where a group does not vary."""
    from scipy import special

    groups, variance = len(n), ss / (n - 1)
    if not (variance > 0).all():
        return 0.0
    weight = n / variance
    share = weight / weight.sum()
    spread = float((weight * (mean - (share * mean).sum()) ** 2).sum()) / (groups - 1)
    lack = float(((1 - share) ** 2 / (n - 1)).sum()) / (groups**2 - 1)
    return float(special.fdtrc(groups - 1, 1 / (3 * lack), spread / (1 + 2 * (groups - 2) * lack)))


def _one_variance(n: Counts, mean: Floats, ss: Floats) -> float:
    """Analysis of variance."""
    from scipy import special

    groups, total = len(n), int(n.sum())
    spread = float((n * (mean - (n * mean).sum() / total) ** 2).sum()) / (groups - 1)
    within = float(ss.sum()) / (total - groups)
    if within == 0:
        return 0.0 if spread > 0 else 1.0
    return float(special.fdtrc(groups - 1, total - groups, spread / within))


def grubbs(share: Floats, n: Counts) -> Floats:
    """P-values of the largest share of a sum of squares that one of n normal values has (Grubbs 1950), at most."""
    from scipy import special

    rest = np.clip(1 - share, 0.0, 1.0)
    return np.minimum(n * np.asarray(special.betainc(np.maximum(n - 2, 1) / 2, 0.5, rest)), 1.0)
