"""Reduce rows, one per unit, to the cell table: one group-by, inside the engine that holds the rows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte.cells.assembly import About, Column, assemble, pool
from bayes_hte.cells.labels import Key, is_missing, text_of
from bayes_hte.cells.sources import check_arms, check_names, counted, fetch, listed, missing_notes, opened, pick
from bayes_hte.errors import DataError
from bayes_hte.schema import MISSING_LEVEL

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

    from bayes_hte.cells.sources import Table

MAX_GROUPS = 1_000_000
"""More cells than this are an id among the dimensions, and would no longer be small."""


@dataclass(frozen=True, slots=True)
class Groups:
    """What the engine answers: statistics per combination of arm and levels. The last axis of all is the group."""

    arms: npt.NDArray[np.object_]  # text, or None if missing
    levels: npt.NDArray[np.object_]  # the same, (dimension, group)
    rows: npt.NDArray[np.int64]  # all rows
    n: npt.NDArray[np.int64]  # rows with a finite outcome; what follows is of these, but for `infinite`
    infinite: npt.NDArray[np.int64]
    zeros: npt.NDArray[np.int64]
    ones: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    ss: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def from_rows(
    data: "Table", *, outcome: str, arm: str, control: str, segments: Sequence[str], drop_missing: bool = False
) -> xr.Dataset:
    """Reduce rows to cells: n, mean and sum of squared deviations per segment and arm.

    Parameters
    ----------
    data
        One row per unit: a pandas, Polars (eager or lazy), PyArrow or DuckDB table, or a path to a .csv, .csv.gz,
        .tsv or .parquet file, or a pattern such as "day-*.parquet".
    outcome
        Column of numbers or booleans, one per unit.
    arm
        Column that says which variant the unit was assigned.
    control
        The arm that the others are compared with, as text.
    segments
        Columns known before treatment that divide the units: the dimensions.
    drop_missing
        Leave out the rows whose outcome is missing or infinite, or whose arm is missing, and say so in a note.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first; n, mean, ss, and events if every outcome is 0 or 1. The mean has the
        unit of the outcome, ss that unit squared.

    Raises
    ------
    DataError
        If a column is missing, unsuitable or used twice, an outcome or arm is missing, the control or a second arm is
        not there, the outcome does not vary, or a dimension looks like an id.

    Notes
    -----
    Assumes that rows are independent units. Missing levels form a level of their own: a unit is never dropped for
    what is unknown about it before treatment.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame(
    ...     {
    ...         "device": ["mobile"] * 4 + ["tv"] * 4,
    ...         "arm": ["old", "old", "new", "new"] * 2,
    ...         "spent": [1, 3, 4, 8, 0, 2, 1, 1],
    ...     }
    ... )
    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"])
    >>> cells["mean"].sel(segment="mobile").values.tolist()
    [2.0, 6.0]
    """
    dims = check_names(segments, {"outcome": outcome, "arm": arm})
    with opened(data, labels=[*dims, arm], numbers=[outcome]) as source:
        frame = _numeric(pick(source, [outcome, arm, *dims]), outcome, source.name)
        try:
            groups = _groups(fetch(_aggregate(frame, len(dims)), source.name), len(dims))
        except TypeError as error:  # pandas cannot group by lists, dicts and the like
            raise DataError(
                f"the columns {listed([arm, *dims])} cannot all be grouped by: {error}; every row must hold a single "
                "value in them, a text or a number"
            ) from error
    _check_ids(groups, dims)
    total = counted(int(groups.rows.sum()), "row", "rows")
    groups, notes = _settle(groups, outcome=outcome, arm=arm, drop_missing=drop_missing)
    about = About(
        outcome=outcome,
        control=text_of(control) or "",
        dims=dims,
        source=f"{total} of {source.name}",
        notes=notes + missing_notes(groups.levels, groups.n, dims, "unit"),
    )
    check_arms(groups.arms, about.control, arm)
    _check_varies(groups, outcome)
    levels = np.where(groups.levels == None, MISSING_LEVEL, groups.levels)  # noqa: E711, elementwise
    keys: list[Key] = list(zip(map(tuple, levels.T), groups.arms, strict=True))
    return assemble(*pool(keys, _columns(groups)), about)


def _numeric(frame: "nw.LazyFrame[Any]", outcome: str, name: str) -> "nw.LazyFrame[Any]":
    """Turn the outcome, c0, into float64."""
    import narwhals.stable.v2 as nw

    dtype = frame.collect_schema()["c0"]
    message = (
        f"the outcome {outcome!r} has dtype {dtype}, and a mean needs numbers; convert it (one text such as 'NA' "
        "makes a whole column text), or name another column"
    )
    # pandas holds decimals, and booleans with gaps, as objects: there the values decide.
    if not (dtype.is_numeric() or dtype in (nw.Boolean, nw.Object)):
        fetch(frame.head(1), name)  # columns without rows have no type to speak of: that is said first
        raise DataError(message)
    try:
        return frame.with_columns(nw.col("c0").cast(nw.Float64))
    except (TypeError, ValueError) as error:
        raise DataError(message) from error


def _aggregate(frame: "nw.LazyFrame[Any]", n_dims: int) -> "nw.LazyFrame[Any]":
    """Ask for the statistics per arm and levels; only functions that every engine computes stably."""
    import narwhals.stable.v2 as nw

    y = nw.col("c0")
    finite = frame.with_columns(
        finite=nw.when(y.is_finite()).then(y),
        infinite=nw.when((y == np.inf) | (y == -np.inf)).then(y),
        zeros=nw.when(y == 0).then(y),
        ones=nw.when(y == 1).then(y),
    )
    keys = [f"c{i + 1}" for i in range(1 + n_dims)]
    grouped = finite.group_by(*keys, drop_null_keys=False).agg(
        nw.len().alias("rows"),
        nw.col("finite").count().alias("n"),
        nw.col("infinite").count().alias("n_infinite"),
        nw.col("zeros").count().alias("n_zeros"),
        nw.col("ones").count().alias("n_ones"),
        nw.col("finite").mean().alias("mean"),
        nw.col("finite").var(ddof=1).alias("var"),
        nw.col("finite").min().alias("low"),
        nw.col("finite").max().alias("high"),
    )
    return grouped.head(MAX_GROUPS + 1)


def _groups(answer: list[tuple[Any, ...]], n_dims: int) -> Groups:
    columns = list(zip(*answer, strict=True))
    arms, *levels = (_texts(column) for column in columns[: 1 + n_dims])
    rows, n, infinite, zeros, ones = (np.array(column, dtype=np.int64) for column in columns[1 + n_dims : 6 + n_dims])
    mean, var, low, high = (_floats(column) for column in columns[6 + n_dims :])
    # Rounding may leave a trace of variance among equal values, and one value has none.
    ss = np.where((n > 1) & (low < high), var * (n - 1), 0.0)
    return Groups(arms, np.stack(levels), rows, n, infinite, zeros, ones, mean, ss, low, high)


def _texts(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    return np.array([text_of(value) for value in values], dtype=np.object_)


def _floats(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if is_missing(value) else float(value) for value in values], dtype=np.float64)


def _check_ids(groups: Groups, dims: Sequence[str]) -> None:
    units = int(groups.rows.sum())
    levels = {dim: len(set(column)) for dim, column in zip(dims, groups.levels, strict=True)}
    worst = max(levels, key=lambda dim: levels[dim])
    many = f"the dimension {worst!r} has {levels[worst]:,} levels"
    way_out = "did you mean an id? Name a column whose levels many units share, or group its levels first"
    if groups.arms.size > MAX_GROUPS:
        raise DataError(f"there are more than {MAX_GROUPS:,} cells, and {many} or more; {way_out}")
    if 1 < units <= levels[worst] or (units >= 100 and levels[worst] > units / 2):
        raise DataError(f"{many} for {units:,} units; {way_out}")


def _settle(groups: Groups, *, outcome: str, arm: str, drop_missing: bool) -> tuple[Groups, list[str]]:
    """Keep what has an arm and a finite outcome, and say what was dropped; or refuse, unless `drop_missing`."""
    armless = groups.arms == None  # noqa: E711, elementwise
    faults = _faults(groups, outcome) + _armless(int(groups.rows[armless].sum()), arm)
    if not faults:
        return groups, []
    if not drop_missing:
        raise DataError(f"{'; '.join(faults)}; clean them or pass drop_missing=True (--drop-missing)")
    keep = ~armless & (groups.n > 0)  # the statistics of a group are of its finite outcomes anyway
    if not keep.any():
        raise DataError(f"{'; '.join(faults)}: no row is left when they are dropped; check both columns")
    kept = Groups(*(getattr(groups, column.name)[..., keep] for column in fields(Groups)))
    return kept, [f"{fault}; dropped" for fault in faults]


def _faults(groups: Groups, outcome: str) -> list[str]:
    total, infinite = int(groups.rows.sum()), int(groups.infinite.sum())
    missing = total - int(groups.n.sum()) - infinite
    if not missing and not infinite:
        return []
    verb = "is" if missing + infinite == 1 else "are"
    parts = [f"{missing:,} of {total:,} outcomes in {outcome!r} {verb} missing"] * (missing > 0)
    if infinite:
        parts.append(
            f"{infinite:,} infinite"
            if missing
            else f"{infinite:,} of {total:,} outcomes in {outcome!r} {verb} infinite"
        )
    return [" and ".join(parts)]


def _armless(count: int, arm: str) -> list[str]:
    return [f"{counted(count, 'row has', 'rows have')} no arm in {arm!r}"] if count else []


def _check_varies(groups: Groups, outcome: str) -> None:
    low, high = float(groups.low.min()), float(groups.high.max())
    if low == high == 0:
        raise DataError(f"no events in any cell: every outcome in {outcome!r} is 0, so no effect can be seen")
    if low == high:
        raise DataError(f"the outcome does not vary: {outcome!r} is {low:g} for every unit, so no effect can be seen")


def _columns(groups: Groups) -> dict[str, Column]:
    columns: dict[str, Column] = {"n": groups.n, "mean": groups.mean, "ss": groups.ss}
    if (groups.zeros + groups.ones == groups.n).all():
        columns["events"] = groups.ones
    return columns
