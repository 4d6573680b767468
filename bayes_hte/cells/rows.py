"""Reduce rows, one per unit, to the cell table: one group-by, inside the engine that holds the rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import xarray as xr

from bayes_hte import schema
from bayes_hte.cells.assembly import assemble
from bayes_hte.cells.grouping import grouped, settle, units
from bayes_hte.cells.metrics import METRICS, MetricName
from bayes_hte.cells.sources import check_arms, check_names, listed, opened
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM, SEGMENT, VALUE

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table


def from_rows(
    data: "Table",
    *,
    outcome: str,
    arm: str,
    control: str,
    segments: Sequence[str],
    drop_missing: bool = False,
    exposure: str | None = None,
    metric: MetricName = "mean",
) -> xr.Dataset:
    """Reduce rows to cells: by default n, mean and sum of squared deviations per segment and arm.

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
        Leave out the rows whose outcome or exposure is missing or infinite, or whose arm is missing, and say so in a
        note.
    exposure
        Column with the time, visits or area over which the outcome counts events: the cells hold rates.
    metric : {"mean", "histogram", "two_part"}
        What to keep of the outcome: its mean; the units by value, for counts and ratings; or the share of units above
        0 and the logarithms of their outcomes, for revenue.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. For the mean n, mean, ss, and events if every outcome is 0 or 1; with
        exposure n, events and exposure; for a histogram n and histogram with dims (segment, arm, value); for two parts
        n, mean, ss, positive, log_mean and log_ss. The mean has the unit of the outcome, ss that unit squared.

    Raises
    ------
    DataError
        If a column is missing, unsuitable or used twice, an outcome or arm is missing, the control or a second arm is
        not there, the outcome does not vary, or a dimension looks like an id. With exposure, if outcomes are no whole
        numbers or exposure is negative; for a histogram, if there are more than 1,000 values; for two parts, if the
        outcome is negative, never 0 or never above it.

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
    ...         "hours": [10, 10, 20, 10, 5, 5, 5, 0.5],
    ...     }
    ... )
    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"])
    >>> cells["mean"].sel(segment="mobile").values.tolist()
    [2.0, 6.0]

    With exposure the outcome is a number of events:

    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"], exposure="hours")
    >>> (cells["events"] / cells["exposure"]).sel(segment="mobile").values.tolist()
    [0.2, 0.4]

    Units by value of the outcome:

    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"], metric="histogram")
    >>> cells["histogram"].sel(segment="tv", arm="new").to_series().loc[lambda units: units > 0].to_dict()
    {1.0: 2}
    """
    if metric not in get_args(MetricName):
        raise DataError(f"no metric {metric!r}; there are {listed(get_args(MetricName))}")
    if exposure is not None and metric != "mean":
        raise DataError(f"exposure makes rates, and metric={metric!r} something else; leave one of them out")
    numbers = {"outcome": outcome} | ({} if exposure is None else {"exposure": exposure})
    asked = METRICS[metric if exposure is None else "rates"]
    dims = check_names(segments, {**numbers, "arm": arm}, taken={VALUE} if metric == "histogram" else ())
    with opened(data, labels=[*dims, arm], numbers=list(numbers.values())) as source:
        rows = units(source, numbers=numbers, arm=arm, dims=dims)
        groups = grouped(rows, asked.query())
    asked.checked(groups, rows)
    groups, about = settle(rows, groups, outcome=outcome, control=control, drop_missing=drop_missing)
    keys, columns, coords = asked.reduced(groups, rows)
    cells = assemble(keys, columns, about, coords=coords)
    seen = schema.present(cells).any(SEGMENT)  # units without exposure say nothing of an arm
    check_arms((str(label) for label in cells[ARM].values[seen.values]), about.control, arm)
    return cells
