"""Reduce times to an event, some of them censored, to failures and time at risk per interval of time."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte._support.validation import check_nonempty_text, check_not_none, describe_value, to_float
from bayes_hte.cells.build import CellCoords, CellValues, build_cell_table, pool_groups
from bayes_hte.cells.reading.engines import check_dimensions, fetch_rows, open_table
from bayes_hte.cells.reading.labels import format_label, is_missing
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.units.binning import BinSpec, check_bins
from bayes_hte.cells.units.fold_groups import fold_group_labels
from bayes_hte.cells.units.group_by import (
    GroupedUnits,
    drop_incomplete_rows,
    group_unit_rows,
)
from bayes_hte.cells.units.scan.unit_rows import UnitColumns, UnitRows, prepare_unit_rows
from bayes_hte.cells.units.statistics import StatisticsQuery, query_quantiles
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec.cell_table import INTERVAL

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table

DEFAULT_INTERVALS = 4
"""Intervals of time without `breaks`: the hazard can change over time, and each interval has events enough."""

HORIZON_CANDIDATES = 20
"""Times of events among which the default horizon is chosen: each 5 % of the events after the one before."""
MIN_FOLLOWED_SHARE = 0.1
"""Of an arm, still at risk at the default horizon: beyond it few units decide what is said."""


def from_times(  # noqa: PLR0913, one keyword per column or decision
    data: "Table",
    *,
    time: str,
    event: str,
    arm: str,
    control: str,
    segments: Sequence[str],
    breaks: Sequence[float] | None = None,
    horizon: float | None = None,
    bins: Mapping[str, BinSpec] | None = None,
    outcome: str = "event",
    drop_missing: bool = False,
    fold_labels: bool = False,
    connection: Any = None,
    decimal: DecimalMark | None = None,
) -> xr.Dataset:
    """Reduce times to an event to cells: failures and time at risk per segment, arm and interval.

    Parameters
    ----------
    data
        One row per unit: a pandas, Polars (eager or lazy), PyArrow, DuckDB, PySpark, Dask or Ibis table, or the
        path of a text file, a Parquet file, a workbook or a database, a pattern such as "day-*.parquet", or a
        `DataSource`; with `connection` a query in SQL.
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
        Time at which survival is compared. By default the time by which half of the units of all arms together have
        had the event, or the last event up to which a tenth of every arm was followed, whichever is earlier: at the
        end of the follow-up everybody may have had it, and arms would not differ. A note says which.
    bins
        By dimension: where to cut its numbers, into how many bins of about equal size, or a period of its dates, as in
        `from_rows`.
    outcome
        What the event is, for tables and reports.
    drop_missing
        Leave out the rows whose time, event or arm is missing, and say so in a note.
    fold_labels
        Take labels that differ only in case, spaces or Unicode form for one, in the spelling that most rows have (that
        of the control stays), and say so in a note.
    connection
        DuckDB connection or Ibis backend in which `data`, then a query, is carried out.
    decimal
        "," or ".": the mark of decimals in a text file, as in `from_rows`.

    Returns
    -------
    xarray.Dataset
        n with dims (segment, arm), the control first; failures, and at_risk in the unit of time, with dims (segment,
        arm, interval). The coordinates start and end bound each interval; the attribute horizon is a time.

    Raises
    ------
    ArgumentError
        If one column is used twice, breaks are no ascending times, the horizon is none, or bins cannot be such.
    DataError
        If a column is missing or unsuitable, a time is not greater than 0, an event is not 0 or 1, there
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
    check_not_none(time=time, event=event, arm=arm, control=control)
    check_nonempty_text(outcome=outcome)
    number_columns = {"time": time, "event": event}
    dims = check_dimensions(segments, {**number_columns, "arm": arm}, reserved_names={INTERVAL, "start", "end"})
    columns = UnitColumns(number_columns, arm, dims, bins_by_dim=check_bins(bins or {}, dims))
    # Dimensions to be cut keep their type: they are numbers or dates until then.
    text_columns = [name for name in [*dims, arm] if name not in columns.bins_by_dim]
    numbers = [column for _, column in columns.roles_of_numbers]
    with open_table(data, text_columns, numbers, connection, decimal=decimal) as source:
        (unit_rows,) = prepare_unit_rows(source, [columns], [None])
        observed = _query_observed_times(unit_rows)
        cuts = _choose_breaks(unit_rows, observed) if breaks is None else _check_breaks(breaks, observed)
        # Nothing is known of the hazard after the last time observed: the last interval ends there.
        edges = [0.0, *cuts, observed.last_time]
        groups = _group_by_interval(unit_rows, edges)
        chosen_horizon = _choose_horizon(unit_rows, observed) if horizon is None else None
    fold_notes: list[str] = []
    if fold_labels:
        groups, fold_notes = fold_group_labels(groups, unit_rows.columns, control=control)
    groups, attributes = drop_incomplete_rows(
        unit_rows, groups, outcome_name=outcome, control=control, drop_missing=drop_missing
    )
    cut_notes = [cut.describe_cut(dim) for dim, cut in unit_rows.cuts_by_dim.items()]
    horizon_time, horizon_notes = chosen_horizon or (_check_horizon(horizon, observed), [])
    notes = [*fold_notes, *attributes.notes, *cut_notes, *horizon_notes]
    attributes = replace(attributes, horizon=horizon_time, notes=notes)
    if breaks is None and cuts:
        break_phrase = ", ".join(_format_time(break_time) for break_time in cuts)
        breaks_note = f"time is cut at {break_phrase}, so that each interval has about equally many events"
        attributes = replace(attributes, notes=[*attributes.notes, breaks_note])
    return build_cell_table(
        *pool_groups(groups.cell_keys, _stack_intervals(groups, len(edges) - 1)),
        attributes,
        extra_coords=build_interval_coords(edges),
    )


@dataclass(frozen=True, slots=True)
class _ObservedTimes:
    """The number of events and the largest times, over complete rows."""

    event_count: int
    last_time: float
    last_event_time: float


def _query_observed_times(unit_rows: UnitRows) -> _ObservedTimes:
    """Query the largest times, and raise DataError where a time or an event is out of range."""
    import narwhals.stable.v2 as nw

    time, event = nw.col("y0"), nw.col("y1")
    # Rows without an arm are in no cell: what is wrong in them is no reason to refuse the others.
    flagged_rows = unit_rows.frame.filter(~nw.col("k0").is_null()).with_columns(
        early=nw.when(time <= 0).then(time),
        odd=nw.when((event != 0) & (event != 1)).then(event),
        failed=nw.when(event == 1).then(time),
    )
    observed_query = flagged_rows.select(
        n=nw.col("y0").count(),
        n_early=nw.col("early").count(),
        n_odd=nw.col("odd").count(),
        n_failed=nw.col("failed").count(),
        last=nw.col("y0").max(),
        last_event=nw.col("failed").max(),
    )
    n_complete, n_early, n_invalid, n_events, last_time, last_event_time = fetch_rows(
        observed_query, unit_rows.table_name
    )[0]
    time_column, event_column = unit_rows.columns.numbers["time"], unit_rows.columns.numbers["event"]
    if n_invalid:
        raise DataError(
            f"{write_count(n_invalid, 'value', 'values')} of {event_column!r} {'is' if n_invalid == 1 else 'are'} "
            "neither 0 nor 1; an event is 1 where it was seen, 0 where the unit was censored before"
        )
    if n_early:
        raise DataError(
            f"{write_count(n_early, 'time', 'times')} in {time_column!r} {'is' if n_early == 1 else 'are'} not "
            "greater than 0; count time from the start of each unit, or add half a day to times in days"
        )
    if not n_complete:  # no row is complete: drop_incomplete_rows says what is missing
        return _ObservedTimes(0, 1.0, 1.0)
    if not n_events:
        raise DataError(f"no events: {event_column!r} is 0 for every unit, so no effect can be seen; check the column")
    return _ObservedTimes(int(n_events), float(last_time), float(last_event_time))


def _choose_breaks(unit_rows: UnitRows, observed_times: _ObservedTimes) -> list[float]:
    """Choose times of events that divide the events into about equal parts, fewer where many events coincide."""
    import narwhals.stable.v2 as nw

    # Quantiles of fewer events than intervals would coincide.
    n_intervals = min(DEFAULT_INTERVALS, observed_times.event_count)
    if n_intervals < 2:
        return []
    time, event = nw.col("y0"), nw.col("y1")
    failure_times = unit_rows.frame.filter(~nw.col("k0").is_null()).select(failed=nw.when(event == 1).then(time))
    time_quantiles = query_quantiles(
        failure_times, "failed", [i / n_intervals for i in range(1, n_intervals)], table_name=unit_rows.table_name
    )
    candidates = _find_events_below(failure_times, time_quantiles, unit_rows.table_name)
    return [cut for cut in candidates if cut < observed_times.last_event_time]


def _find_events_below(failure_times: Any, time_quantiles: Sequence[float], table_name: str) -> list[float]:
    """Find the time of the event at or below each quantile, each once: no interval is then without events."""
    import narwhals.stable.v2 as nw

    times_below = failure_times.with_columns(
        **{
            f"q{i}": nw.when(nw.col("failed") <= quantile).then(nw.col("failed"))
            for i, quantile in enumerate(time_quantiles)
        }
    ).select(*(nw.col(f"q{i}").max() for i in range(len(time_quantiles))))
    return sorted({float(cut) for cut in fetch_rows(times_below, table_name)[0] if not is_missing(cut)})


def _check_breaks(breaks: Sequence[float], observed_times: _ObservedTimes) -> list[float]:
    parsed_breaks = [to_float(value) for value in breaks] if isinstance(breaks, Iterable) else [None]
    cuts = [value for value in parsed_breaks if value is not None]
    if len(cuts) < len(parsed_breaks):
        raise ArgumentError(
            f"breaks must be a list of times, not {describe_value(breaks)}; give numbers, such as [7, 30]"
        )
    if not all(np.isfinite(cuts)) or any(earlier >= later for earlier, later in itertools.pairwise([0.0, *cuts])):
        raise ArgumentError(
            f"breaks must be greater than 0 and ascend, but are {', '.join(map(_format_time, cuts))}; sort them, and "
            "leave out 0 and repetitions"
        )
    # An interval without time at risk says nothing of its hazard, which its prior alone would decide.
    if observed_times.event_count and cuts and cuts[-1] >= observed_times.last_time:
        raise DataError(
            f"the break {_format_time(cuts[-1])} is not before the largest time, "
            f"{_format_time(observed_times.last_time)}: nothing was observed after it; leave it out"
        )
    return cuts


def _choose_horizon(unit_rows: UnitRows, observed_times: _ObservedTimes) -> tuple[float, list[str]]:
    """Choose the time at which arms are compared, and say in a note why; see `from_times`."""
    if not observed_times.event_count:
        return observed_times.last_event_time, []
    candidates = _query_event_times(unit_rows, min(HORIZON_CANDIDATES, observed_times.event_count))
    groups = _group_by_interval(unit_rows, [0.0, *candidates], with_reached=True)
    failures, time_at_risk = (
        np.array([values[f"{name}{i}"].sum() for i in range(len(candidates))], dtype=float)
        for name, values in (("fail", groups.value_counts), ("risk", groups.column_sums))
    )
    # S(t) of all arms together = exp(−Σ_j hazard_j Δ_j),   hazard_j = failures_j / time at risk_j
    interval_time = np.diff([0.0, *candidates])
    survival = np.exp(-np.cumsum(failures / np.maximum(time_at_risk, 1e-300) * interval_time))
    followed_shares = np.min(
        [_measure_followed_shares(groups, arm, len(candidates)) for arm in _list_arms(groups)], axis=0
    )
    last_followed = int(np.flatnonzero(followed_shares >= MIN_FOLLOWED_SHARE).max(initial=0))
    half_reached = int(np.argmax(survival <= 0.5)) if (survival <= 0.5).any() else len(candidates) - 1
    chosen = min(last_followed, half_reached)
    if chosen == len(candidates) - 1:
        return candidates[chosen], []
    reason = (
        "half of the units have had the event"
        if half_reached <= last_followed
        else f"a tenth of every arm was still followed ({MIN_FOLLOWED_SHARE:.0%} at least)"
    )
    return candidates[chosen], [
        f"risks are compared at the horizon {candidates[chosen]:.4g}, the time by which {reason}; the last "
        f"event was at {candidates[-1]:.4g}: state horizon to compare at another time"
    ]


def _list_arms(groups: GroupedUnits) -> list[str]:
    """List the arms that have complete rows."""
    return list(dict.fromkeys(
        arm for (_, arm), unit_count in zip(groups.cell_keys, groups.unit_counts, strict=True)
        if unit_count and not is_missing(arm)
    ))  # fmt: skip


def _measure_followed_shares(groups: GroupedUnits, arm: str, time_count: int) -> npt.NDArray[np.float64]:
    """Measure the share of an arm's units that were still followed at each of the candidate times."""
    is_arm = np.array([label == arm for _, label in groups.cell_keys])
    followed_counts = [int(groups.value_counts[f"reach{i}"][is_arm].sum()) for i in range(time_count)]
    return np.array(followed_counts, dtype=np.float64) / float(groups.unit_counts[is_arm].sum())


def _query_event_times(unit_rows: UnitRows, count: int) -> list[float]:
    """Query times of events, about equally many events apart, the last event among them."""
    import narwhals.stable.v2 as nw

    time, event = nw.col("y0"), nw.col("y1")
    failure_times = unit_rows.frame.filter(~nw.col("k0").is_null()).select(failed=nw.when(event == 1).then(time))
    quantiles = query_quantiles(
        failure_times, "failed", [i / count for i in range(1, count + 1)], table_name=unit_rows.table_name
    )
    return _find_events_below(failure_times, quantiles, unit_rows.table_name)


def _check_horizon(horizon: object, observed_times: _ObservedTimes) -> float:
    """Check that a horizon lies within what was observed."""
    # Survival beyond the last time observed would be a guess about the hazard there.
    horizon_time = to_float(horizon)
    if horizon_time is None or not 0 < horizon_time <= observed_times.last_time:  # also refuses NaN
        value_phrase = describe_value(horizon) if horizon_time is None else f"{horizon_time:g}"
        error_class = DataError if horizon_time is not None and horizon_time > 0 else ArgumentError
        raise error_class(
            f"horizon is {value_phrase}, but times were observed above 0 and up to "
            f"{_format_time(observed_times.last_time)}; choose a time there"
        )
    return horizon_time


def _group_by_interval(unit_rows: UnitRows, edges: Sequence[float], *, with_reached: bool = False) -> GroupedUnits:
    """Group rows by arm and levels, for what `_build_interval_query` asks."""
    query = _build_interval_query(edges, with_reached=with_reached)
    return group_unit_rows([unit_rows], [lambda _: query], [unit_rows.columns.dims])[0][0]


def _build_interval_query(edges: Sequence[float], *, with_reached: bool = False) -> StatisticsQuery:
    """Build the query for failures and time at risk between edges; and for units followed up to the end of each."""
    import narwhals.stable.v2 as nw

    time, event = nw.col("y0"), nw.col("y1")
    derived_columns = {}
    # In the interval (start, end]: time at risk is min(max(t, start), end) − start; a failure is an event at t in it.
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        derived_columns[f"risk{i}"] = time.clip(start, end) - start
        derived_columns[f"fail{i}"] = nw.when((event == 1) & (time > start) & (time <= end)).then(event)
        if with_reached:
            derived_columns[f"reach{i}"] = nw.when(time >= end).then(time)
    intervals = range(len(edges) - 1)
    count_columns = [f"{name}{i}" for name in ("fail", *(["reach"] if with_reached else [])) for i in intervals]
    return StatisticsQuery(derived_columns, count_columns, [f"risk{i}" for i in intervals])


def _stack_intervals(groups: GroupedUnits, n_intervals: int) -> dict[str, CellValues]:
    return {
        "n": groups.unit_counts,
        "failures": np.stack([groups.value_counts[f"fail{i}"] for i in range(n_intervals)], axis=-1),
        "at_risk": np.stack([groups.column_sums[f"risk{i}"] for i in range(n_intervals)], axis=-1),
    }


def build_interval_coords(edges: Sequence[float]) -> CellCoords:
    """Build the coordinates of the intervals between `edges`."""
    interval_labels = [f"{_format_time(start)}–{_format_time(end)}" for start, end in itertools.pairwise(edges)]
    return {
        INTERVAL: (INTERVAL, interval_labels),
        "start": (INTERVAL, np.array(edges[:-1], dtype=np.float64)),
        "end": (INTERVAL, np.array(edges[1:], dtype=np.float64)),
    }


def _format_time(number: float) -> str:
    return format_label(float(number)) or ""
