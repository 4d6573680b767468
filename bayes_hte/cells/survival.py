"""Times to an event, some of them censored: failures and time at risk per interval of time."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayes_hte.asked import check_given, check_text, described, number
from bayes_hte.cells.assembly import Column, Coords, assemble, pool
from bayes_hte.cells.grouping import Groups, Units, grouped, settle, units
from bayes_hte.cells.labels import is_missing, text_of
from bayes_hte.cells.sources import check_names, counted, fetch, opened
from bayes_hte.cells.statistics import Query, ask_quantiles
from bayes_hte.errors import DataError
from bayes_hte.schema import INTERVAL

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table

INTERVALS = 4
"""Into how many intervals time is cut if nothing is said: the hazard may change, and each has events enough."""


def from_times(
    data: "Table",
    *,
    time: str,
    event: str,
    arm: str,
    control: str,
    segments: Sequence[str],
    breaks: Sequence[float] | None = None,
    horizon: float | None = None,
    outcome: str = "event",
    drop_missing: bool = False,
    connection: Any = None,
) -> xr.Dataset:
    """Reduce times to an event to cells: failures and time at risk per segment, arm and interval.

    Parameters
    ----------
    data
        One row per unit: a pandas, Polars (eager or lazy), PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to
        a .csv, .csv.gz, .tsv or .parquet file, or a pattern such as "day-*.parquet"; with `connection` a query in SQL.
    time
        Column with the time from the start until the event, or until the unit was last seen; greater than 0.
    event
        Column that is 1 (or true) if the event was seen, 0 if the unit was censored before.
    arm
        Column that says which variant the unit was assigned.
    control
        The arm that the others are compared with, as text.
    segments
        Columns known before treatment that divide the units: the dimensions.
    breaks
        Times in ascending order at which the hazard may change; by default those that divide the events of all arms
        together into four intervals with about equally many, and a note says which. A time equal to a break belongs
        to the interval that ends there. To merge tables later, give all the same.
    horizon
        Time at which survival is compared; by default that of the last event.
    outcome
        What the event is, for tables and reports.
    drop_missing
        Leave out the rows whose time, event or arm is missing, and say so in a note.
    connection
        DuckDB connection or Ibis backend in which `data`, then a query, is carried out.

    Returns
    -------
    xarray.Dataset
        n with dims (segment, arm), the control first; failures, and at_risk in the unit of time, with dims (segment,
        arm, interval). The coordinates start and end bound each interval; the attribute horizon is a time.

    Raises
    ------
    DataError
        If a column is missing, unsuitable or used twice, a time is not greater than 0, an event is not 0 or 1, there
        are no events, the breaks or the horizon lie where nothing was observed, the control or a second arm is not
        there, or a dimension looks like an id.

    Notes
    -----
    Assumes that units are independent, and that censoring says nothing of the event. With a hazard that is constant
    within intervals these are sufficient statistics.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame(
    ...     {
    ...         "stage": ["early"] * 4,
    ...         "arm": ["old", "old", "new", "new"],
    ...         "days": [10, 50, 30, 80],
    ...         "died": [1, 1, 0, 1],
    ...     }
    ... )
    >>> cells = from_times(
    ...     rows, time="days", event="died", arm="arm", control="old", segments=["stage"], breaks=[30], horizon=60
    ... )
    >>> cells["interval"].values.tolist()
    ['0–30', '30–80']
    >>> cells["failures"].sel(segment="early").values.tolist()
    [[1, 1], [0, 1]]
    >>> cells["at_risk"].sel(segment="early").values.tolist()
    [[40.0, 20.0], [60.0, 50.0]]
    """
    check_given(time=time, event=event, arm=arm, control=control)
    check_text(outcome=outcome)
    numbers = {"time": time, "event": event}
    dims = check_names(segments, {**numbers, "arm": arm}, taken={INTERVAL, "start", "end"})
    with opened(data, labels=[*dims, arm], numbers=[time, event], connection=connection) as source:
        rows = units(source, numbers=numbers, arm=arm, dims=dims)
        seen = _observed(rows)
        cuts = _cuts(rows, seen) if breaks is None else _given(breaks, seen)
        edges = [0.0, *cuts, seen.last]
        groups = grouped(rows, _query(edges))
    groups, about = settle(rows, groups, outcome=outcome, control=control, drop_missing=drop_missing)
    about = replace(about, horizon=_horizon(horizon, seen))
    if breaks is None and cuts:
        found = ", ".join(_text(cut) for cut in cuts)
        note = f"time is cut at {found}, so that each interval has about equally many events"
        about = replace(about, notes=[*about.notes, note])
    return assemble(*pool(groups.keys, _columns(groups, len(edges) - 1)), about, coords=interval_coords(edges))


@dataclass(frozen=True, slots=True)
class _Observed:
    """What was observed at all: of rows that are complete."""

    events: int
    last: float
    last_event: float


def _observed(rows: Units) -> _Observed:
    """Ask for the largest times, and refuse what is no time or no event."""
    import narwhals.stable.v2 as nw

    time, event = nw.col("y0"), nw.col("y1")
    flagged = rows.frame.filter(~nw.col("k0").is_null()).with_columns(
        early=nw.when(time <= 0).then(time),
        odd=nw.when((event != 0) & (event != 1)).then(event),
        failed=nw.when(event == 1).then(time),
    )
    asked = flagged.select(
        n=nw.col("y0").count(),
        n_early=nw.col("early").count(),
        n_odd=nw.col("odd").count(),
        n_failed=nw.col("failed").count(),
        last=nw.col("y0").max(),
        last_event=nw.col("failed").max(),
    )
    n, early, odd, events, last, last_event = fetch(asked, rows.name)[0]
    column, failed = rows.numbers["time"], rows.numbers["event"]
    if odd:
        raise DataError(
            f"{counted(odd, 'value', 'values')} of {failed!r} {'is' if odd == 1 else 'are'} neither 0 nor "
            "1; an event is 1 where it was seen, 0 where the unit was censored before"
        )
    if early:
        raise DataError(
            f"{counted(early, 'time', 'times')} in {column!r} {'is' if early == 1 else 'are'} not greater "
            "than 0; count time from the start of each unit, or add half a day to times in days"
        )
    if not n:  # nothing is complete: what is missing is said when the groups are settled
        return _Observed(0, 1.0, 1.0)
    if not events:
        raise DataError(f"no events: {failed!r} is 0 for every unit, so no effect can be seen; check the column")
    return _Observed(int(events), float(last), float(last_event))


def _cuts(rows: Units, seen: _Observed) -> list[float]:
    """Times of events that divide the events into about equal parts, fewer where many are at the same time."""
    import narwhals.stable.v2 as nw

    parts = min(INTERVALS, seen.events)
    if parts < 2:
        return []
    time, event = nw.col("y0"), nw.col("y1")
    failed = rows.frame.filter(~nw.col("k0").is_null()).select(failed=nw.when(event == 1).then(time))
    quantiles = ask_quantiles(failed, "failed", [i / parts for i in range(1, parts)], name=rows.name)
    below = failed.with_columns(
        **{f"q{i}": nw.when(nw.col("failed") <= value).then(nw.col("failed")) for i, value in enumerate(quantiles)}
    ).select(*(nw.col(f"q{i}").max() for i in range(len(quantiles))))
    # The time of an event at or below each quantile: no interval is then without events.
    found = (float(value) for value in fetch(below, rows.name)[0] if not is_missing(value))
    return sorted({value for value in found if value < seen.last_event})


def _given(breaks: Sequence[float], seen: _Observed) -> list[float]:
    found = [number(value) for value in breaks] if isinstance(breaks, Iterable) else [None]
    cuts = [value for value in found if value is not None]
    if len(cuts) < len(found):
        raise DataError(f"breaks must be a list of times, not {described(breaks)}; give numbers, such as [7, 30]")
    if not all(np.isfinite(cuts)) or any(a >= b for a, b in itertools.pairwise([0.0, *cuts])):
        raise DataError(
            f"breaks must be greater than 0 and ascend, but are {', '.join(map(_text, cuts))}; sort them, "
            "and leave out 0 and repetitions"
        )
    if seen.events and cuts and cuts[-1] >= seen.last:
        raise DataError(
            f"the break {_text(cuts[-1])} is not before the largest time, {_text(seen.last)}: nothing was "
            "observed after it; leave it out"
        )
    return cuts


def _horizon(horizon: float | None, seen: _Observed) -> float:
    if horizon is None:
        return seen.last_event
    time = number(horizon)
    if time is None or not 0 < time <= seen.last:  # also refuses NaN
        found = described(horizon) if time is None else f"{time:g}"
        raise DataError(
            f"horizon is {found}, but times were observed above 0 and up to {_text(seen.last)}; choose a time there"
        )
    return time


def _query(edges: Sequence[float]) -> Query:
    import narwhals.stable.v2 as nw

    time, event = nw.col("y0"), nw.col("y1")
    derived = {}
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        derived[f"risk{i}"] = time.clip(start, end) - start
        derived[f"fail{i}"] = nw.when((event == 1) & (time > start) & (time <= end)).then(event)
    intervals = range(len(edges) - 1)
    return Query(derived, [f"fail{i}" for i in intervals], [f"risk{i}" for i in intervals])


def _columns(groups: Groups, intervals: int) -> dict[str, Column]:
    return {
        "n": groups.n,
        "failures": np.stack([groups.counts[f"fail{i}"] for i in range(intervals)], axis=-1),
        "at_risk": np.stack([groups.sums[f"risk{i}"] for i in range(intervals)], axis=-1),
    }


def interval_coords(edges: Sequence[float]) -> Coords:
    """Coordinates of the intervals between `edges`."""
    labels = [f"{_text(start)}–{_text(end)}" for start, end in itertools.pairwise(edges)]
    return {
        INTERVAL: (INTERVAL, labels),
        "start": (INTERVAL, np.array(edges[:-1], dtype=np.float64)),
        "end": (INTERVAL, np.array(edges[1:], dtype=np.float64)),
    }


def _text(number: float) -> str:
    return text_of(float(number)) or ""
