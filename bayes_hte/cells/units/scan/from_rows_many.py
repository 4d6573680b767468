"""Reduce rows to the cell tables of many metrics and breakdowns, in one pass over the rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayes_hte._support.validation import describe_value
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.units.binning import BinSpec
from bayes_hte.cells.units.metrics import METRIC_CLASSES, Metric, resolve_metric
from bayes_hte.cells.units.scan.reduce_rows import PairKey, RowOptions, name_place, reduce_rows
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.questions.planned_metric import name_breakdown

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table

type MetricSpec = Metric | str | Mapping[str, Any]
"""A metric, the column that a plain mean is of, or the keywords of `from_rows` that are short for a metric."""


def from_rows_many(  # noqa: PLR0913, one keyword per column or decision, as from_rows
    data: "Table",
    *,
    metrics: Mapping[str, MetricSpec],
    breakdowns: Mapping[str, str | Sequence[str]] | Sequence[str | Sequence[str]],
    arm: str,
    control: str,
    drop_missing: bool = False,
    weights: str | None = None,
    cluster: str | None = None,
    bins: Mapping[str, BinSpec] | None = None,
    rare: int | Mapping[str, int] | None = None,
    fold_labels: bool = False,
    unit: str | None = None,
    balance: str | Sequence[str] | None = None,
    connection: Any = None,
    decimal: DecimalMark | None = None,
) -> dict[PairKey, xr.Dataset]:
    """Reduce rows to a cell table of every metric by every breakdown, in one pass over the rows.

    Parameters
    ----------
    data
        One row per unit, in any form that `from_rows` takes.
    metrics
        By name: a metric, as in ``hte.cells.Mean("spent", cap=100)``; a column, of which the mean is taken; or the
        keywords that `from_rows` has for a metric, as in ``{"outcome": "visits", "metric": "histogram"}``.
    breakdowns
        The dimensions of each breakdown, by its name. A list of them names each by its dimensions: "device × plan".
    arm, control, drop_missing, weights, cluster, bins, rare, fold_labels, unit, balance, connection, decimal
        As `from_rows` takes them, for all metrics. `bins` and `rare` by dimension count wherever the dimension does.

    Returns
    -------
    dict
        By (metric, breakdown), in the order of both: the cell table that `from_rows` gives for the two alone, to
        rounding error.

    Raises
    ------
    ArgumentError, DataError
        As `from_rows`. The message begins with the metric and the breakdown that it is about, if there are several.
    TypeError
        If a keyword of a metric is not known.

    Notes
    -----
    One query answers for all metrics and breakdowns. Breakdowns that are part of others follow from these, and so do
    those whose levels are few when crossed, which the first rows tell; for the rest there are grouping sets in DuckDB
    (files, too) and Spark, one plan with several answers in Polars, all breakdowns by partition in Dask. pandas,
    PyArrow and Ibis are asked once for each of the rest.

    What takes a query of its own: a histogram, whose values are keys to group by; quantiles, one per column and cap or
    number of bins; `unit`; what is missing, once for all metrics if anything is. With `cluster`, each breakdown is a
    query: the total of a cluster is made anew for its segments, and sums of squares of totals do not add up.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import Mean, from_rows_many
    >>> rows = pd.DataFrame(
    ...     {
    ...         "device": ["mobile"] * 4 + ["tv"] * 4,
    ...         "plan": ["free", "paid"] * 4,
    ...         "arm": ["old", "old", "new", "new"] * 2,
    ...         "spent": [1, 3, 4, 8, 0, 2, 1, 1],
    ...     }
    ... )
    >>> tables = from_rows_many(
    ...     rows,
    ...     metrics={"spent": "spent", "spent, capped": Mean("spent", cap=5)},
    ...     breakdowns=[["device"], ["device", "plan"]],
    ...     arm="arm",
    ...     control="old",
    ... )
    >>> list(tables)[:2]
    [('spent', 'device'), ('spent', 'device × plan')]
    >>> tables["spent, capped", "device"]["mean"].sel(segment="mobile").values.tolist()
    [2.0, 4.5]
    """
    options = RowOptions(
        arm,
        control,
        drop_missing=drop_missing,
        weights=weights,
        cluster=cluster,
        bins=bins,
        rare=rare,
        fold_labels=fold_labels,
        unit=unit,
        balance=balance,
        connection=connection,
        decimal=decimal,
    )
    return reduce_rows(data, _read_metrics(metrics, options), _name_breakdowns(breakdowns), options)


def _read_metrics(metrics: Mapping[str, MetricSpec], options: RowOptions) -> dict[str, Metric]:
    """Read what is measured, by name."""
    if not isinstance(metrics, Mapping) or not metrics or not all(isinstance(name, str) and name for name in metrics):
        raise ArgumentError(
            f"metrics is {describe_value(metrics)}; give metrics by name, as in "
            '{"bought": "bought", "spent": Mean("spent", cap=100)}'
        )
    chosen_metrics = {}
    for name, spec in metrics.items():
        with name_place([name]):
            chosen_metrics[name] = _read_metric(spec, options)
    return chosen_metrics


def _read_metric(spec: MetricSpec, options: RowOptions) -> Metric:
    """Read a metric, the column of a mean, or the keywords of a metric."""
    if isinstance(spec, str):
        spec = {"outcome": spec}
    if isinstance(spec, Mapping):
        keywords: dict[str, Any] = dict(spec)
        metric = keywords.pop("metric", "mean")
    elif isinstance(spec, (*METRIC_CLASSES, type)):
        keywords, metric = {}, spec
    else:
        raise ArgumentError(
            f"it is {describe_value(spec)}; give a metric such as Mean('spent'), a column, or keywords such as "
            '{"outcome": "visits", "metric": "histogram"}'
        )
    # The keywords are those of a mapping, which no type checker sees: they are checked there.
    return resolve_metric(metric, keywords, weights=options.weights, cluster=options.cluster)  # type: ignore[arg-type]


def _name_breakdowns(
    breakdowns: Mapping[str, str | Sequence[str]] | Sequence[str | Sequence[str]],
) -> dict[str, str | Sequence[str]]:
    """Name the breakdowns of a list by their dimensions; those of a mapping have names."""
    if isinstance(breakdowns, Mapping):
        named = dict(breakdowns)
    elif isinstance(breakdowns, str) or not hasattr(breakdowns, "__iter__"):
        raise ArgumentError(
            f"breakdowns is {describe_value(breakdowns)}; give a list of lists of columns, as in "
            "[['device'], ['device', 'plan']]"
        )
    else:
        listed = [[dims] if isinstance(dims, str) else dims for dims in breakdowns]
        # What is no list of columns is refused where each is looked at, under whatever name.
        names = [name_breakdown(list(map(str, dims))) if hasattr(dims, "__iter__") else str(dims) for dims in listed]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise ArgumentError(f"breakdowns has {repeated[0]!r} twice; name each once")
        named = dict(zip(names, listed, strict=True))
    if not named:
        raise ArgumentError("breakdowns is empty; give at least one list of columns, such as [['device']]")
    return named
