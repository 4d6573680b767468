"""Ask an engine for the statistics of groups: counts, sums and moments, each of which adds up over parts of the rows.

Engines are asked only for what all of them compute stably: for a variance they keep the mean as they go, so that a
mean of 1e9 with a standard deviation of 1 loses no digits. One that does not (Dask combines partitions through sums
of squares) is asked partition by partition, and the parts are pooled here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.labels import is_missing
from bayes_hte.cells.sources import fetch

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type Floats = npt.NDArray[np.float64]
type Counts = npt.NDArray[np.int64]
type Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """Statistics of columns, some of which are derived first; nulls take no part in any of them."""

    derived: "Mapping[str, nw.Expr]" = field(default_factory=lambda: MappingProxyType({}))
    counts: Sequence[str] = ()
    sums: Sequence[str] = ()
    moments: Sequence[str] = ()
    by: Sequence[str] = ()  # columns of numbers to group by, beside the keys
    pairs: Sequence[Pair] = ()  # columns of `moments` whose products of deviations are asked


@dataclass(frozen=True, slots=True)
class Moments:
    """Of one column in each group: how many values, their mean, squared deviations, smallest and largest."""

    n: Counts
    mean: Floats
    ss: Floats
    low: Floats
    high: Floats

    def take(self, which: npt.NDArray[Any]) -> "Moments":
        """Those of some groups."""
        return Moments(self.n[which], self.mean[which], self.ss[which], self.low[which], self.high[which])


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says, one entry per group; the same group may appear more than once, as parts to be pooled."""

    keys: Sequence[Sequence[Any]]  # one sequence per key
    rows: Counts
    by: Mapping[str, Floats]
    counts: Mapping[str, Counts]
    sums: Mapping[str, Floats]
    moments: Mapping[str, Moments]
    products: Mapping[Pair, Floats]  # sums of products of deviations; they pool as those of one column do


def expressions(query: Query) -> "dict[str, nw.Expr]":
    """The statistics of a query by their names in the answer."""
    import narwhals.stable.v2 as nw

    asked = {"rows": nw.len()}
    asked |= {f"count_{name}": nw.col(name).count() for name in query.counts}
    asked |= {f"sum_{name}": nw.col(name).sum() for name in query.sums}
    for name in query.moments:
        column = nw.col(name)
        asked |= {
            f"n_{name}": column.count(),
            f"mean_{name}": column.mean(),
            f"var_{name}": column.var(ddof=1),
            f"low_{name}": column.min(),
            f"high_{name}": column.max(),
        }
    asked |= {f"var_{both(pair)}": nw.col(both(pair)).var(ddof=1) for pair in query.pairs}
    return asked


def both(pair: Pair) -> str:
    """What the sum of two columns is called. Its variance gives their covariance, stably, in every engine."""
    return "_and_".join(pair)


def prepared(frame: "nw.LazyFrame[Any]", query: Query) -> "nw.LazyFrame[Any]":
    """Rows with the columns that the statistics are of."""
    import narwhals.stable.v2 as nw

    rows = derived(frame, query.derived)
    return derived(rows, {both((one, other)): nw.col(one) + nw.col(other) for one, other in query.pairs})


def derived(frame: "nw.LazyFrame[Any]", columns: "Mapping[str, nw.Expr]") -> "nw.LazyFrame[Any]":
    """Rows with columns more."""
    return frame.with_columns(**columns) if columns else frame


def ask(frame: "nw.LazyFrame[Any]", keys: Sequence[str], query: Query, *, name: str, limit: int) -> Answer:
    """Carry out one group-by.

    Parameters
    ----------
    frame
        Rows.
    keys
        Columns to group by; nulls form a group.
    query
        What is asked.
    name
        What messages call the rows.
    limit
        The answer has at most one group more than this.

    Raises
    ------
    DataError
        If there are no rows.
    TypeError
        If a key holds values that pandas cannot group by.
    """
    asked = expressions(query)
    by = [*keys, *query.by]
    grouped = prepared(frame, query).group_by(*by, drop_null_keys=False)
    answer = grouped.agg(*(expression.alias(name) for name, expression in asked.items()))
    rows = fetch(answer.head(limit + 1), name)
    return _read(rows, keys, query, [*query.by, *asked])


def _read(rows: Sequence[tuple[Any, ...]], keys: Sequence[str], query: Query, names: Sequence[str]) -> Answer:
    columns = list(zip(*rows, strict=True))
    found = {name: floats(column) for name, column in zip(names, columns[len(keys) :], strict=True)}
    moments = {name: _moments(found, name) for name in query.moments}
    return Answer(
        columns[: len(keys)],
        whole(found["rows"]),
        {name: found[name] for name in query.by},
        {name: whole(found[f"count_{name}"]) for name in query.counts},
        {name: found[f"sum_{name}"] for name in query.sums},
        moments,
        {pair: _product(moments[pair[0]], moments[pair[1]], found[f"var_{both(pair)}"]) for pair in query.pairs},
    )


def _product(one: Moments, other: Moments, var: Floats) -> Floats:
    """From the variance of the sum of two columns that are known of the same units."""
    varies = (one.ss > 0) & (other.ss > 0)
    return np.where(varies, (np.nan_to_num(var) * (one.n - 1) - one.ss - other.ss) / 2, 0.0)


def _moments(found: Mapping[str, Floats], name: str) -> Moments:
    """Rounding may leave a trace of variance among equal values, and one value has none."""
    n, mean, var, low, high = (found[f"{what}_{name}"] for what in ("n", "mean", "var", "low", "high"))
    return Moments(whole(n), mean, np.where((n > 1) & (low < high), var * (n - 1), 0.0), low, high)


def floats(values: Iterable[Any]) -> Floats:
    """Numbers of any engine; NaN where there is none."""
    return np.array([np.nan if is_missing(value) else float(value) for value in values], dtype=np.float64)


def whole(values: Floats) -> Counts:
    """Whole numbers; a sum over no rows is null in SQL."""
    return np.nan_to_num(values).astype(np.int64)
