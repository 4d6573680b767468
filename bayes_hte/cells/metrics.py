"""What rows are reduced to: mean, rate, two-part outcome or histogram. Each says what to ask the engine, and checks."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from bayes_hte.cells.assembly import Column, Coords, pool
from bayes_hte.cells.grouping import Groups, Units
from bayes_hte.cells.histograms import check_values, histogram
from bayes_hte.cells.labels import Key
from bayes_hte.cells.linear import Recipe
from bayes_hte.cells.sources import counted
from bayes_hte.cells.statistics import Moments, Query
from bayes_hte.errors import DataError

MetricName = Literal["mean", "histogram", "two_part"]

type Reduced = tuple[list[Key], dict[str, Column], Coords]
"""Distinct cells, their variables, and coordinates of dims beyond segment and arm."""

ROUNDING = 1e-9
"""How exact a sum of squares is, relative to it; one value of 1/2 shows among 100 million ones."""

MOST_EVENTS = 2**53
"""Beyond this float64, in which engines add, skips whole numbers."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to reduce rows: what is asked of the engine, and what is made of the answer."""

    query: Callable[[], Query]
    reduced: Callable[[Groups, Units], Reduced]
    checked: Callable[[Groups, Units], None] = lambda groups, units: None  # of the answer as it came
    recipe: Recipe | None = None  # of adjusted means
    extremes: str = "y"  # the column whose smallest and largest value are the outcome's


def check_cap(groups: Groups, units: Units, extremes: str) -> None:
    """Raise DataError if a cap moved all outcomes to one value; `extremes` is the column that holds them."""
    if units.cap is None or not groups.counts["capped"].any():
        return
    if units.cluster is not None or not {"weight", "denominator"}.isdisjoint(units.numbers):
        return  # what they are divided by may vary
    found = groups.moments.get(extremes)
    values = groups.by["value"] if found is None else np.append(found.low, found.high)
    if np.nanmin(values) == np.nanmax(values):
        raise DataError(
            f"the cap ({units.cap}) makes all outcomes in {units.numbers['outcome']!r} equal, so no effect can be "
            "seen; give cap_quantile a higher quantile, or cap a value that outcomes lie on both sides of"
        )


def _means(groups: Groups, units: Units) -> Reduced:
    _check_varies(groups, units.numbers["outcome"])
    y = groups.moments["y0"]
    keys, columns = pool(groups.keys, {"n": groups.n, "mean": y.mean, "ss": y.ss})
    if _yes_or_no(y):
        columns["events"] = np.round(columns["n"] * columns["mean"]).astype(np.int64)
    return keys, columns, {}


def _yes_or_no(y: Moments) -> bool:
    """Whether all values are 0 or 1: within [0, 1], where y² = y says so, and so do the sums of both.

    Counting the zeros and ones would make the whole query a fifth slower.
    """
    n, total = y.n, y.n * y.mean
    there = n > 0
    if not np.isin(y.low[there], (0, 1)).all() or not np.isin(y.high[there], (0, 1)).all():
        return False
    between = total - (y.ss + total * y.mean)
    return bool((np.abs(between[there]) <= ROUNDING * np.maximum(total[there], 1)).all())


def _check_varies(groups: Groups, outcome: str) -> None:
    y = groups.moments["y0"]
    low, high = float(np.nanmin(y.low)), float(np.nanmax(y.high))
    if low == high == 0:
        raise DataError(
            f"no events in any cell: every outcome in {outcome!r} is 0, so no effect can be seen; check "
            "the column, and that no filter removed what happened"
        )
    if low == high:
        raise DataError(
            f"the outcome does not vary: {outcome!r} is {low:g} for every unit, so no effect can be seen; "
            "check the column"
        )


def _rates_query() -> Query:
    import narwhals.stable.v2 as nw

    events, exposure = nw.col("y0"), nw.col("y1")
    derived = {
        "broken": nw.when((events < 0) | (events != events.floor())).then(events),
        "negative": nw.when(exposure < 0).then(exposure),
    }
    return Query(derived, ["broken", "negative"], sums=["y0", "y1"])


def _rates(groups: Groups, units: Units) -> Reduced:
    outcome, column = units.numbers["outcome"], units.numbers["exposure"]
    broken, negative = int(groups.counts["broken"].sum()), int(groups.counts["negative"].sum())
    if broken:
        raise DataError(
            f"{counted(broken, 'outcome', 'outcomes')} in {outcome!r} cannot be a number of events: with exposure the "
            "outcome must be a whole number, 0 or more; for other numbers leave exposure out"
        )
    if negative:
        raise DataError(
            f"{counted(negative, 'exposure', 'exposures')} in {column!r} {'is' if negative == 1 else 'are'} negative; "
            "exposure is time, visits or area, 0 or more: correct the column"
        )
    events, exposure = groups.sums["y0"], groups.sums["y1"]
    if not events.any():
        raise DataError(f"no events in any cell: every outcome in {outcome!r} is 0, so no effect can be seen")
    if events.sum() >= MOST_EVENTS:
        raise DataError(f"there are {events.sum():g} events in {outcome!r}, too many to count; check the column")
    return *pool(groups.keys, {"n": groups.n, "events": events.astype(np.int64), "exposure": exposure}), {}


def _two_part_query() -> Query:
    import narwhals.stable.v2 as nw

    y = nw.col("y0")
    logs = nw.when(y > 0).then(y).otherwise(1.0).log()  # pandas takes logarithms of what is masked, too
    return Query({"logs": nw.when(y > 0).then(logs)}, moments=["y0", "logs"])


def _two_part(groups: Groups, units: Units) -> Reduced:
    outcome = units.numbers["outcome"]
    other = 'use metric="mean" with the family mean or normal'
    y, logs = groups.moments["y0"], groups.moments["logs"]
    if (y.low < 0).any():
        raise DataError(f"a two-part outcome is 0 or more, but {outcome!r} goes down to {y.low.min():g}; {other}")
    positive = logs.n
    if not positive.any():
        raise DataError(f"no outcome in {outcome!r} is greater than 0, so no effect can be seen; check the column")
    if (positive == groups.n).all():
        raise DataError(f"no outcome in {outcome!r} is 0, so it has one part, not two; {other}")
    if np.nanmin(logs.low) == np.nanmax(logs.high):
        raise DataError(
            f"all outcomes in {outcome!r} that are greater than 0 are equal: it says yes or no; make it 0 "
            'or 1, and use metric="mean" with the family binomial'
        )
    columns: dict[str, Column] = {
        "n": groups.n,
        "mean": y.mean,
        "ss": y.ss,
        "positive": positive,
        "log_mean": logs.mean,
        "log_ss": logs.ss,
    }
    return *pool(groups.keys, columns), {}


def _histogram_query() -> Query:
    import narwhals.stable.v2 as nw

    return Query({"value": nw.col("y0")}, by=["value"])


def _check_histogram(groups: Groups, units: Units) -> None:
    """Too many values would look like too many cells: say it first."""
    values = groups.by["value"]
    check_values(values[np.isfinite(values)], f"the outcome {units.numbers['outcome']!r}")


def _histogram(groups: Groups, units: Units) -> Reduced:
    return histogram(groups.keys, groups.by["value"], groups.n, f"the outcome {units.numbers['outcome']!r}")


METRICS = MappingProxyType(
    {
        "mean": Metric(lambda: Query(moments=["y0"]), _means, extremes="y0"),
        "rates": Metric(_rates_query, _rates),
        "two_part": Metric(_two_part_query, _two_part, extremes="y0"),
        "histogram": Metric(_histogram_query, _histogram, _check_histogram),
    }
)
