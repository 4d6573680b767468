"""Reduce rows, one per unit, to cells, inside the engine that holds them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import xarray as xr

from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.units.binning import BinSpec
from bayes_hte.cells.units.metrics import Metric, MetricKeywords, MetricName, resolve_metric
from bayes_hte.cells.units.scan.reduce_rows import RowOptions, reduce_rows

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table


def from_rows(  # noqa: PLR0913, one keyword per column or decision
    data: "Table",
    *,
    metric: Metric | MetricName = "mean",
    arm: str,
    control: str,
    segments: Sequence[str],
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
    **metric_keywords: Unpack[MetricKeywords],
) -> xr.Dataset:
    """Reduce rows to cells: by default n, mean and sum of squared deviations per segment and arm.

    Parameters
    ----------
    data
        One row per unit: a pandas, Polars (eager or lazy), PyArrow, DuckDB, PySpark, Dask or Ibis table, or the
        path of a text file, a Parquet file, a workbook or a database, a pattern such as "day-*.parquet", or a
        `DataSource`; with `connection` a query in SQL.
    metric : Mean, Ratio, Rate, Histogram, TwoPart, or a name
        What is measured, and what to keep of it, as in ``hte.cells.Mean("spent", cuped=["before"])``. The names
        "mean", "histogram" and "two_part" go with the keywords below, which are short for such a value.
    arm
        Column that says which variant the unit was assigned.
    control
        The arm that the others are compared with, as text.
    segments
        Columns known before treatment that divide the units: the dimensions.
    drop_missing
        Leave out the rows whose outcome or another number is missing or infinite, or whose arm or cluster is missing,
        and say so in a note.
    weights
        Column that says how many units a row stands for, 0 or more.
    cluster
        Column that names what was assigned, if that is not the row: a village, or a user with many sessions. Rows of
        a cluster are added up, and n counts clusters.
    bins
        By dimension: where to cut its numbers, as in [18, 35, 65] (a bin includes its lower end); into how many bins
        of about equal size; or, of dates, "day", "week", "month", "quarter" or "year".
    rare
        Levels with fewer rows than this form the level (other), in all dimensions or by dimension.
    fold_labels
        Take labels that differ only in case, spaces or Unicode form for one, in the spelling that most rows have (that
        of the control stays), and say so in a note.
    unit
        Column that names the unit: a note says how many have several rows, or are in several arms.
    balance
        Columns of numbers that were measured before treatment: `check` says if they differ between the arms.
    connection
        DuckDB connection or Ibis backend in which `data`, then a query, is carried out.
    decimal
        "," or ".": the mark of decimals in a text file. Without it a comma is taken for one, with a note, where nothing
        else can be meant.
    **metric_keywords
        The short form of `metric`: the column `outcome`, and the options of a metric under their names there;
        `denominator` is what `Ratio` calls ``per``.

        ==========================================  =========================================
        short form                                  metric
        ==========================================  =========================================
        ``outcome="y"``                             ``Mean("y")``
        ``outcome="y", denominator="d"``            ``Ratio("y", per="d")``
        ``outcome="y", exposure="e"``               ``Rate("y", exposure="e")``
        ``outcome="y", metric="histogram"``         ``Histogram("y")``
        ``outcome="y", metric="two_part"``          ``TwoPart("y")``
        ``cuped="x"``, ``levels``, ``cap=9``, …     the same of a metric that has the option
        ==========================================  =========================================

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. For the mean n, mean, ss, and events if every outcome is 0 or 1; with
        exposure n, events and exposure; for a histogram n and histogram with dims (segment, arm, value); for two parts
        n, mean, ss, positive, log_mean and log_ss. The mean has the unit of the outcome, ss that unit squared. With
        a denominator, weights, cluster or cuped: n, mean and se, the columns that these follow from, so that tables can
        be merged, variance_reduction, the share of the mean's variance that the adjustment took away, and cell_size,
        the sum of the denominator, of the weights, or of the rows of clusters: averages over segments count each by
        it, or by exposure where there is one. The attribute size_unit says what it counts. Besides, for `check`:
        lowest and highest outcome, n_missing, n_rows, and pre_n, pre_mean and pre_ss, where they apply.

    Raises
    ------
    ArgumentError
        If an option has a value that it cannot take, options exclude each other, or one column is used twice.
    DataError
        If a column is missing or unsuitable, an outcome or arm is missing, the control or a second arm is
        not there, the outcome does not vary, or a dimension looks like an id. With exposure, if outcomes are no whole
        numbers or exposure is negative; for a histogram, if there are more than 1,000 values; for two parts, if the
        outcome is negative, never 0 or never above it. If a weight is negative, denominators add up to 0, bins cannot
        be made, or what is asked does not go together.
    TypeError
        If a keyword is not known.

    Notes
    -----
    Assumes that rows, or clusters, are independent. Missing levels form a level of their own: a unit is never dropped
    for what is unknown about it before treatment.

    The engine that holds the data is asked one query, and answers with one row per cell; quantiles (cap_quantile,
    bins by number) and the check of unit take a query more each, cluster takes two, and one per dimension where
    clusters have rows in several segments.

    References
    ----------
    Deng et al. 2013 (CUPED), Deng et al. 2018 (delta method): see `bayes_hte.cells.units.adjusted_means`.

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

    The same, with its largest outcomes capped, as a value:

    >>> from bayes_hte.cells import Mean
    >>> cells = from_rows(rows, metric=Mean("spent", cap=5), arm="arm", control="old", segments=["device"])
    >>> cells["mean"].sel(segment="mobile").values.tolist()
    [2.0, 4.5]
    """
    chosen_metric = resolve_metric(metric, metric_keywords, weights=weights, cluster=cluster)
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
    (cells,) = reduce_rows(data, {"": chosen_metric}, {"": segments}, options).values()
    return cells
