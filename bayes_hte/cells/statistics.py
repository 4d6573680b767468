"""Ask an engine for the statistics of groups: counts, sums and moments, each of which adds up over parts of the rows.

Engines are asked only for what all of them compute stably: for a variance they keep the mean as they go, so that a
mean of 1e9 with a standard deviation of 1 loses no digits. One that does not (Dask combines partitions through sums
of squares) is asked partition by partition, and the parts are pooled here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte.cells import partitions
from bayes_hte.cells.assembly import Column, pool
from bayes_hte.cells.labels import Key, is_missing, text_of
from bayes_hte.cells.sources import as_floats, fetch, no_rows
from bayes_hte.errors import DataError

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
    rows = derived(rows, {both((one, other)): nw.col(one) + nw.col(other) for one, other in query.pairs})
    if not rows.implementation.is_ibis():
        return rows
    return as_floats(rows, [*query.sums, *query.moments, *map(both, query.pairs)])


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
        If there are no rows, or a text is none.
    TypeError
        If a key holds lists, dicts or the like.
    """
    rows = prepared(frame, query)
    if not frame.implementation.is_dask():
        try:
            return _read(fetch(_aggregated(rows, keys, query).head(limit + 1), name), keys, query)
        except UnicodeEncodeError as error:
            raise _no_text(name, error) from error
    derived = replace(query, derived={})  # what crosses to other processes holds no expressions
    answer = partial(_part, keys=keys, query=derived, limit=limit)
    found: Answer = partitions.gathered(rows.to_native(), answer, partial(_pooled, limit=limit))
    if not found.rows.size:
        raise no_rows(name)
    return found


def ask_quantiles(frame: "nw.LazyFrame[Any]", column: str, probabilities: Sequence[float], *, name: str) -> list[float]:
    """Quantiles of a column in which NaN is null, in between by straight lines; NaN where it has no value.

    Raises
    ------
    DataError
        If there are no rows.
    """
    import narwhals.stable.v2 as nw

    if frame.implementation.is_dask():
        return partitions.quantiles(frame.to_native(), column, probabilities)
    asked = {f"q{i}": nw.col(column).quantile(p, "linear") for i, p in enumerate(probabilities)}
    return [float(value) for value in floats(fetch(frame.select(**asked), name)[0])]


def _aggregated(rows: "nw.LazyFrame[Any]", keys: Sequence[str], query: Query) -> "nw.LazyFrame[Any]":
    grouped = rows.group_by(*keys, *query.by, drop_null_keys=False)
    return grouped.agg(*(expression.alias(name) for name, expression in expressions(query).items()))


def _no_text(name: str, error: UnicodeEncodeError) -> DataError:
    return DataError(
        f"a text in {name} holds {error.object[error.start : error.end]!r}, half of a character (a lone surrogate); "
        "remove it, or read the data in their own encoding"
    )


def _part(part: Any, keys: Sequence[str], query: Query, limit: int) -> Answer:
    """Of the rows of one partition."""
    import narwhals.stable.v2 as nw

    answer = _aggregated(nw.from_native(part).lazy(), keys, query).head(limit + 1)
    return _read(answer.collect().rows(), keys, query)


def _pooled(parts: Sequence[Answer], limit: int) -> Answer:
    """One entry per group; values that are the same as text are the same, as null and NaN are."""
    keys = [[value for part in parts for value in part.keys[i]] for i in range(len(parts[0].keys))]
    by = {name: _joined(part.by[name] for part in parts) for name in parts[0].by}
    texts = ([text_of(value) or "" for value in column] for column in (*keys, *by.values()))
    groups: list[Key] = [(levels, "") for levels in zip(*texts, strict=True)]
    kept = list({group: i for i, group in enumerate(groups)}.values())[: limit + 1]  # in the order of pool

    def pooled(**columns: Column) -> dict[str, Any]:
        return {name: column[: limit + 1] for name, column in pool(groups, columns)[1].items()}

    counts = {name: _joined(part.counts[name] for part in parts) for name in parts[0].counts}
    sums = {name: _joined(part.sums[name] for part in parts) for name in parts[0].sums}
    moments = {name: _all_moments([part.moments[name] for part in parts]) for name in parts[0].moments}
    products = {}
    for one, other in parts[0].products:
        product = _joined(part.products[one, other] for part in parts)
        mean = np.stack([moments[one].mean, moments[other].mean], axis=-1)
        square = product[:, None, None] * np.array([[0, 1], [1, 0]])  # the squares themselves are in the moments
        found = pooled(n=moments[one].n, column_mean=mean, column_ss=square)
        products[one, other] = found["column_ss"][:, 0, 1]
    for name, each in moments.items():
        found = pooled(n=each.n, mean=each.mean, ss=each.ss, lowest=each.low, highest=each.high)
        moments[name] = Moments(*(found[what] for what in ("n", "mean", "ss", "lowest", "highest")))
    return Answer(
        [[column[i] for i in kept] for column in keys],
        pooled(rows=_joined(part.rows for part in parts))["rows"],
        {name: values[kept] for name, values in by.items()},
        pooled(**counts),
        pooled(**sums),
        moments,
        products,
    )


def _joined(columns: Iterable[Column]) -> Any:
    return np.concatenate(list(columns))


def _all_moments(parts: Sequence[Moments]) -> Moments:
    return Moments(*(_joined(getattr(part, what) for part in parts) for what in ("n", "mean", "ss", "low", "high")))


def _read(rows: Sequence[tuple[Any, ...]], keys: Sequence[str], query: Query) -> Answer:
    names = [*query.by, *expressions(query)]
    for row in rows:
        hash(row[: len(keys)])  # some engines group by lists: refused as in pandas, where this is a TypeError
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(keys) + len(names))
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
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused as such
        return np.where(varies, (np.nan_to_num(var) * (one.n - 1) - one.ss - other.ss) / 2, 0.0)


def _moments(found: Mapping[str, Floats], name: str) -> Moments:
    """Rounding may leave a trace of variance among equal values, and one value has none."""
    n, mean, var, low, high = (found[f"{what}_{name}"] for what in ("n", "mean", "var", "low", "high"))
    with np.errstate(over="ignore"):  # what is too large is refused as such
        ss = np.where((n > 1) & (low < high), var * (n - 1), 0.0)
    return Moments(whole(n), mean, ss, low, high)


def floats(values: Sequence[Any]) -> Floats:
    """Numbers of any engine; NaN where there is none."""
    try:  # None becomes NaN, decimals become floats
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):  # pandas' own missing values do not
        return np.array([np.nan if is_missing(value) else float(value) for value in values], dtype=np.float64)


def whole(values: Floats) -> Counts:
    """Whole numbers; a sum over no rows is null in SQL."""
    return np.nan_to_num(values).astype(np.int64)
