"""Name what is measured, and how the rows give it: metrics as values, and the keywords that are short for them.

Each value holds the columns and options that belong to the outcome, and checks them. What belongs to the rows,
such as weights, clusters and bins, is said to `from_rows`; a value says which of it makes sense for it.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import check_column_names, check_not_none
from bayes_hte.cells.reading.answers import AnswerLevels, parse_levels
from bayes_hte.cells.units.reductions import (
    CapBounds,
    MetricReduction,
    parse_cap,
    plan_adjusted_means,
    plan_histograms,
    plan_means,
    plan_rates,
    plan_two_parts,
)
from bayes_hte.errors import ArgumentError

MetricName = Literal["mean", "histogram", "two_part"]


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of an outcome over units; of cluster totals per row where rows are clustered.

    Parameters
    ----------
    outcome : str
        Column of numbers or booleans, one per unit.
    cuped : sequence of str
        Columns of numbers that were measured before treatment, which the mean is adjusted for; one may be given as
        text. A unit without a value is adjusted by its own group of such units.
    cap : float or pair of float, optional
        Largest outcome, in its unit, or the smallest and the largest: what is beyond counts as this.
    cap_quantile : float or pair of float, optional
        The same, as quantiles of all outcomes together, such as 0.99 or (0.01, 0.99); a note says where they are.

    Raises
    ------
    ArgumentError
        If a column has no name, a covariate is repeated, or the cap is no number or pair, or given twice.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import Mean, from_rows
    >>> rows = pd.DataFrame({"device": "tv", "arm": ["old", "old", "new", "new"], "spent": [1, 3, 4, 80]})
    >>> cells = from_rows(rows, metric=Mean("spent", cap=10), arm="arm", control="old", segments=["device"])
    >>> cells["mean"].values.tolist(), cells.attrs["outcome"]
    ([[2.0, 7.0]], 'spent (at most 10)')
    """

    outcome: str
    _: KW_ONLY
    cuped: Sequence[str] = ()
    cap: CapBounds | None = None
    cap_quantile: CapBounds | None = None

    def __post_init__(self) -> None:
        """Check the options, and keep them in one form, so that equal metrics are equal."""
        _check_columns(outcome=self.outcome)
        # The dataclass is frozen for callers; its own constructor may still put a value into its one form.
        object.__setattr__(self, "cuped", tuple(list_columns("cuped", self.cuped)))
        _normalise_cap(self)

    def plan_reduction(self, *, weights: str | None, cluster: str | None) -> MetricReduction:
        """Plan the query and the cells; with covariates, weights or clusters of a mean with a standard error."""
        cap = parse_cap(self.cap, self.cap_quantile)
        if not (weights or cluster or self.cuped):
            return plan_means(self.outcome, cap)
        return plan_adjusted_means(
            {"outcome": self.outcome, "weight": weights}, cluster=cluster, cuped=self.cuped, cap=cap
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """Sum of an outcome over the sum of another, such as clicks per view; its standard error is by the delta method.

    Parameters
    ----------
    outcome : str
        Column of numbers or booleans, one per unit.
    per : str
        Column that the outcome is divided by.
    cuped, cap, cap_quantile
        As in `Mean`; the cap is one of the outcome, not of the ratio.

    Raises
    ------
    ArgumentError
        As `Mean`.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import Ratio, from_rows
    >>> rows = pd.DataFrame(
    ...     {"device": "tv", "arm": ["old", "old", "new", "new"], "clicks": [2, 1, 4, 3], "views": [4, 8, 10, 4]}
    ... )
    >>> cells = from_rows(rows, metric=Ratio("clicks", per="views"), arm="arm", control="old", segments=["device"])
    >>> cells["mean"].values.tolist(), cells.attrs["outcome"]
    ([[0.25, 0.5]], 'clicks per views')
    """

    outcome: str
    _: KW_ONLY
    per: str
    cuped: Sequence[str] = ()
    cap: CapBounds | None = None
    cap_quantile: CapBounds | None = None

    def __post_init__(self) -> None:
        """Check the options, and keep them in one form, so that equal metrics are equal."""
        _check_columns(outcome=self.outcome, per=self.per)
        object.__setattr__(self, "cuped", tuple(list_columns("cuped", self.cuped)))
        _normalise_cap(self)

    def plan_reduction(self, *, weights: str | None, cluster: str | None) -> MetricReduction:
        """Plan the query and the cells: ratios of means with their standard errors."""
        return plan_adjusted_means(
            {"outcome": self.outcome, "denominator": self.per, "weight": weights},
            cluster=cluster,
            cuped=self.cuped,
            cap=parse_cap(self.cap, self.cap_quantile),
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """Number of events per exposure, of independent units: for the families of rates.

    Parameters
    ----------
    outcome : str
        Column of whole numbers of events, one per unit.
    exposure : str
        Column with the time, visits or area over which they were counted.

    Raises
    ------
    ArgumentError
        If a column has no name.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import Rate, from_rows
    >>> rows = pd.DataFrame(
    ...     {"device": "tv", "arm": ["old", "old", "new", "new"], "clicks": [1, 3, 4, 8], "hours": [10, 10, 20, 10]}
    ... )
    >>> cells = from_rows(rows, metric=Rate("clicks", exposure="hours"), arm="arm", control="old", segments=["device"])
    >>> (cells["events"] / cells["exposure"]).values.tolist()
    [[0.2, 0.4]]
    """

    outcome: str
    _: KW_ONLY
    exposure: str

    def __post_init__(self) -> None:
        """Check the names of the columns."""
        _check_columns(outcome=self.outcome, exposure=self.exposure)

    def plan_reduction(self, *, weights: str | None, cluster: str | None) -> MetricReduction:
        """Plan the query and the cells: numbers of events and exposure.

        Raises
        ------
        ArgumentError
            If weights or clusters are asked for, which make no count of independent events.
        """
        row_options = _list_given(weights=weights, cluster=cluster)
        if row_options:
            raise ArgumentError(
                f"a Rate is of independent units, which {' and '.join(row_options)} cannot adjust; use "
                f"Ratio({self.outcome!r}, per={self.exposure!r}) in its place, for the family mean"
            )
        return plan_rates(self.outcome, self.exposure)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Units by value of the outcome, for counts, ratings and other outcomes of few values.

    Parameters
    ----------
    outcome : str
        Column of numbers or booleans, one per unit; or of answers in words, as ordered categories or with `levels`.
    levels : sequence of str or of float, optional
        All answers that could be given, the lowest first; one that nobody chose is kept. Without it those of ordered
        categories, or the numbers that occur. Words are numbered 1, 2, … and kept as the coordinate value_label.
    cap, cap_quantile
        As in `Mean`; not for answers on a scale.

    Raises
    ------
    ArgumentError
        If the column has no name, the cap is no number or pair, or given twice, or beside levels, or the levels are no
        list of two or more answers in order.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import Histogram, from_rows
    >>> rows = pd.DataFrame({"device": "tv", "arm": ["old", "old", "new", "new"], "visits": [0, 2, 1, 1]})
    >>> cells = from_rows(rows, metric=Histogram("visits"), arm="arm", control="old", segments=["device"])
    >>> cells["histogram"].sel(segment="tv").to_pandas().to_dict("index")
    {'old': {0.0: 1, 1.0: 0, 2.0: 1}, 'new': {0.0: 0, 1.0: 2, 2.0: 0}}

    Answers in words:

    >>> rows["answer"] = ["low", "high", "high", "middle"]
    >>> metric = Histogram("answer", levels=["low", "middle", "high"])
    >>> cells = from_rows(rows, metric=metric, arm="arm", control="old", segments=["device"])
    >>> cells["value_label"].values.tolist(), cells["histogram"].sel(segment="tv", arm="new").values.tolist()
    (['low', 'middle', 'high'], [0, 1, 1])
    """

    outcome: str
    _: KW_ONLY
    levels: AnswerLevels | None = None
    cap: CapBounds | None = None
    cap_quantile: CapBounds | None = None

    def __post_init__(self) -> None:
        """Check the options, and keep them in one form, so that equal metrics are equal."""
        _check_columns(outcome=self.outcome)
        _normalise_cap(self)
        if parse_levels(self.levels) is not None:
            if self.cap is not None or self.cap_quantile is not None:
                raise ArgumentError("levels are answers on a scale, and a cap is for amounts; leave one of them out")
            object.__setattr__(self, "levels", tuple(self.levels or ()))

    def plan_reduction(self, *, weights: str | None, cluster: str | None) -> MetricReduction:
        """Plan the query and the cells: units by value.

        Raises
        ------
        ArgumentError
            If weights or clusters are asked for, which make no count of units.
        """
        _refuse_adjustments("a Histogram", _list_given(weights=weights, cluster=cluster), alternative="Mean")
        return plan_histograms(self.outcome, parse_cap(self.cap, self.cap_quantile), parse_levels(self.levels))


@dataclass(frozen=True, slots=True)
class TwoPart:
    """Share of units above 0, and the logarithms of their outcomes, for revenue that is mostly 0.

    Parameters
    ----------
    outcome : str
        Column of numbers, 0 or more, one per unit.
    cap, cap_quantile
        As in `Mean`.

    Raises
    ------
    ArgumentError
        If the column has no name, or the cap is no number or pair, or given twice.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import TwoPart, from_rows
    >>> rows = pd.DataFrame({"device": "tv", "arm": ["old"] * 3 + ["new"] * 3, "spent": [0, 0, 9, 0, 1, 4]})
    >>> cells = from_rows(rows, metric=TwoPart("spent"), arm="arm", control="old", segments=["device"])
    >>> cells["positive"].values.tolist(), cells["mean"].values.round(2).tolist()
    ([[1, 2]], [[3.0, 1.67]])
    """

    outcome: str
    _: KW_ONLY
    cap: CapBounds | None = None
    cap_quantile: CapBounds | None = None

    def __post_init__(self) -> None:
        """Check the options, and keep them in one form, so that equal metrics are equal."""
        _check_columns(outcome=self.outcome)
        _normalise_cap(self)

    def plan_reduction(self, *, weights: str | None, cluster: str | None) -> MetricReduction:
        """Plan the query and the cells: moments of the outcome, and of the logarithms of those above 0.

        Raises
        ------
        ArgumentError
            If weights or clusters are asked for, of which sums have no two parts.
        """
        _refuse_adjustments("a TwoPart", _list_given(weights=weights, cluster=cluster), alternative="Mean")
        return plan_two_parts(self.outcome, parse_cap(self.cap, self.cap_quantile))


# The classes share no base: what they have in common is the one method that `from_rows` calls, `plan_reduction`.
type Metric = Mean | Ratio | Rate | Histogram | TwoPart
METRIC_CLASSES = (Mean, Ratio, Rate, Histogram, TwoPart)


class MetricKeywords(TypedDict, total=False):
    """The keywords that are short for a metric, as `from_rows` and plans take them."""

    outcome: str
    denominator: str | None
    exposure: str | None
    cuped: str | Sequence[str] | None
    levels: AnswerLevels | None
    cap: CapBounds | None
    cap_quantile: CapBounds | None


def resolve_metric(
    metric: Metric | MetricName, keywords: MetricKeywords, *, weights: str | None, cluster: str | None
) -> Metric:
    """Resolve a name and the keywords to the metric they are short for; a metric, which takes none, stays what it is.

    The columns `weights` and `cluster` of the rows adjust means and ratios only.

    Raises
    ------
    ArgumentError
        If there is no such metric, or the keywords do not go together.
    TypeError
        If a keyword is not known.
    """
    for keyword in keywords.keys() - MetricKeywords.__annotations__.keys():
        raise TypeError(f"from_rows() got an unexpected keyword argument {keyword!r}")
    # None is a keyword left out, as in the keywords of any function.
    given: dict[str, Any] = {keyword: value for keyword, value in keywords.items() if value is not None}
    if isinstance(metric, METRIC_CLASSES):
        if given:
            belonging = "it belongs" if len(given) == 1 else "they belong"
            raise ArgumentError(
                f"{' and '.join(given)} cannot stand beside a metric, to which {belonging}; write "
                f"metric={type(metric).__name__}({metric.outcome!r}, …) with all that is meant of it"
            )
        return metric
    if isinstance(metric, type):
        raise ArgumentError(f"metric is a class; say of what, as in {metric.__name__}('spent')")
    check_not_none(outcome=given.get("outcome"))
    _check_columns(**{role: given[role] for role in ("outcome", "exposure", "denominator") if role in given})
    given["cuped"] = list_columns("cuped", given.get("cuped"))
    has_cap = parse_cap(given.get("cap"), given.get("cap_quantile")) is not None
    if metric not in get_args(MetricName):
        raise ArgumentError(f"no metric {metric!r}; there are {quote_names(get_args(MetricName))}")
    adjustments = {"denominator": given.get("denominator"), "weights": weights, "cluster": cluster}
    adjustments["cuped"] = given["cuped"] or None
    _check_keywords(metric, given.get("exposure"), _list_given(**adjustments), has_cap=has_cap)
    caps = {keyword: given[keyword] for keyword in ("cap", "cap_quantile") if keyword in given}
    outcome = given["outcome"]
    if metric == "histogram":
        return Histogram(outcome, levels=given.get("levels"), **caps)
    if "levels" in given:
        raise ArgumentError('levels are those of answers on a scale; add metric="histogram", or leave levels out')
    if metric == "two_part":
        return TwoPart(outcome, **caps)
    if "exposure" in given:
        return Rate(outcome, exposure=given["exposure"])
    if "denominator" in given:
        return Ratio(outcome, per=given["denominator"], cuped=given["cuped"], **caps)
    return Mean(outcome, cuped=given["cuped"], **caps)


def _check_keywords(metric_name: object, exposure: str | None, adjustments: Sequence[str], *, has_cap: bool) -> None:
    """Raise ArgumentError if keywords exclude each other: what the values cannot be told at all."""
    if exposure is not None and metric_name != "mean":
        raise ArgumentError(f"exposure makes rates, and metric={metric_name!r} something else; leave one of them out")
    if exposure is not None and adjustments:
        raise ArgumentError(
            f"exposure makes rates of independent units, which {' and '.join(adjustments)} cannot adjust; name "
            "the column as denominator in place of exposure, for the family mean"
        )
    if exposure is not None and has_cap:
        raise ArgumentError(
            "exposure counts events, and a cap would leave some out; name the column as denominator instead"
        )
    if metric_name != "mean":
        _refuse_adjustments(f"metric={metric_name!r}", adjustments, alternative='metric="mean"')


def _refuse_adjustments(metric_phrase: str, adjustments: Sequence[str], *, alternative: str) -> None:
    """Raise ArgumentError if there are adjustments, which a metric of what independent units did does not know."""
    if adjustments:
        raise ArgumentError(
            f"{metric_phrase} keeps what independent units did, which {' and '.join(adjustments)} cannot adjust; use "
            f"{alternative}"
        )


def _list_given(**options: object) -> list[str]:
    return [name for name, value in options.items() if value is not None]


def _check_columns(**columns_by_role: object) -> None:
    check_not_none(**columns_by_role)
    for role, column in columns_by_role.items():
        if not isinstance(column, str):
            raise ArgumentError(f"{role} must be the name of one column, not {column!r}")


def list_columns(option_name: str, columns: str | Sequence[str] | None) -> list[str]:
    """List the columns of an option that takes one as text, or several; raise ArgumentError if one is repeated."""
    names = check_column_names(option_name, () if columns is None else columns)
    if len(set(names)) < len(names):
        raise ArgumentError(f"{option_name} repeats a column: {quote_names(names)}; name each once")
    return names


def _normalise_cap(metric: Mean | Ratio | Histogram | TwoPart) -> None:
    """Check the cap of a metric, and keep it as a number or a pair of numbers."""
    cap = parse_cap(metric.cap, metric.cap_quantile)
    if cap is not None:
        bounds = cap.high if cap.low == -np.inf else (cap.low, cap.high)
        object.__setattr__(metric, "cap_quantile" if cap.as_quantiles else "cap", bounds)
