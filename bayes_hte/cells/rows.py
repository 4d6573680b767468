"""Reduce rows, one per unit, to cells, inside the engine that holds them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import xarray as xr

from bayes_hte import schema
from bayes_hte.asked import check_given, described, names, number
from bayes_hte.cells import linear
from bayes_hte.cells.assembly import Column, Coords, assemble, pool
from bayes_hte.cells.bins import Bins, check_bins
from bayes_hte.cells.clusters import crossing_note, repeated_notes
from bayes_hte.cells.grouping import Cap, Groups, Units, grouped, settle, units
from bayes_hte.cells.labels import Key
from bayes_hte.cells.metrics import METRICS, Metric, MetricName, check_cap
from bayes_hte.cells.rare import check_rare, merged
from bayes_hte.cells.sources import Source, check_arms, check_names, listed, opened, pick
from bayes_hte.cells.spanning import Spanning, ask_spanning, told
from bayes_hte.cells.statistics import Moments
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM, PRE, SEGMENT, VALUE

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table


def from_rows(  # noqa: PLR0913, one keyword per column or decision
    data: "Table",
    *,
    outcome: str,
    arm: str,
    control: str,
    segments: Sequence[str],
    drop_missing: bool = False,
    exposure: str | None = None,
    metric: MetricName = "mean",
    denominator: str | None = None,
    weights: str | None = None,
    cluster: str | None = None,
    cuped: str | Sequence[str] | None = None,
    cap: float | tuple[float, float] | None = None,
    cap_quantile: float | tuple[float, float] | None = None,
    bins: Mapping[str, Bins] | None = None,
    rare: int | Mapping[str, int] | None = None,
    unit: str | None = None,
    balance: str | Sequence[str] | None = None,
    connection: Any = None,
) -> xr.Dataset:
    """Reduce rows to cells: by default n, mean and sum of squared deviations per segment and arm.

    Parameters
    ----------
    data
        One row per unit: a pandas, Polars (eager or lazy), PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to
        a .csv, .csv.gz, .tsv or .parquet file, or a pattern such as "day-*.parquet"; with `connection` a query in SQL.
    outcome
        Column of numbers or booleans, one per unit.
    arm
        Column that says which variant the unit was assigned.
    control
        The arm that the others are compared with, as text.
    segments
        Columns known before treatment that divide the units: the dimensions.
    drop_missing
        Leave out the rows whose outcome or another number is missing or infinite, or whose arm or cluster is missing,
        and say so in a note.
    exposure
        Column with the time, visits or area over which the outcome counts events: the cells hold rates.
    metric : {"mean", "histogram", "two_part"}
        What to keep of the outcome: its mean; the units by value, for counts and ratings; or the share of units above
        0 and the logarithms of their outcomes, for revenue.
    denominator
        Column that the outcome is divided by: the metric is the sum of outcomes over the sum of denominators, such as
        clicks per view. Its standard error is that of the delta method.
    weights
        Column that says how many units a row stands for, 0 or more.
    cluster
        Column that names what was assigned, if that is not the row: a village, or a user with many sessions. Rows of
        a cluster are added up, and n counts clusters.
    cuped
        Columns of numbers that were measured before treatment: the outcome's mean is adjusted for them. A unit
        without a value is adjusted by its own group of such units.
    cap
        Largest outcome, in its unit, or the smallest and the largest: what is beyond counts as this.
    cap_quantile
        The same, as quantiles of all outcomes together, such as 0.99 or (0.01, 0.99); a note says where they are.
    bins
        By dimension: where to cut its numbers, as in [18, 35, 65] (a bin includes its lower end); into how many bins
        of about equal size; or, of dates, "day", "week", "month", "quarter" or "year".
    rare
        Levels with fewer rows than this form the level (other), in all dimensions or by dimension.
    unit
        Column that names the unit: a note says how many have several rows, or are in several arms.
    balance
        Columns of numbers that were measured before treatment: `check` says if they differ between the arms.
    connection
        DuckDB connection or Ibis backend in which `data`, then a query, is carried out.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm), the control first. For the mean n, mean, ss, and events if every outcome is 0 or 1; with
        exposure n, events and exposure; for a histogram n and histogram with dims (segment, arm, value); for two parts
        n, mean, ss, positive, log_mean and log_ss. The mean has the unit of the outcome, ss that unit squared. With
        denominator, weights, cluster or cuped: n, mean and se, the columns that these follow from, so that tables can
        be merged, and variance_reduction, the share of the mean's variance that the adjustment took away. Besides, for
        `check`: lowest and highest outcome, n_missing, n_rows, and pre_n, pre_mean and pre_ss, where they apply.

    Raises
    ------
    DataError
        If a column is missing, unsuitable or used twice, an outcome or arm is missing, the control or a second arm is
        not there, the outcome does not vary, or a dimension looks like an id. With exposure, if outcomes are no whole
        numbers or exposure is negative; for a histogram, if there are more than 1,000 values; for two parts, if the
        outcome is negative, never 0 or never above it. If a weight is negative, denominators add up to 0, bins cannot
        be made, or what is asked does not go together.

    Notes
    -----
    Assumes that rows, or clusters, are independent. Missing levels form a level of their own: a unit is never dropped
    for what is unknown about it before treatment.

    The engine that holds the data is asked one query, and answers with one row per cell; quantiles (cap_quantile,
    bins by number) and the check of unit take a query more each, cluster takes two, and one per dimension where
    clusters have rows in several segments.

    References
    ----------
    Deng et al. 2013 (CUPED), Deng et al. 2018 (delta method): see `bayes_hte.cells.linear`.

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

    A ratio of two columns, which need not be whole numbers:

    >>> cells = from_rows(rows, outcome="spent", arm="arm", control="old", segments=["device"], denominator="hours")
    >>> cells["mean"].sel(segment="mobile").values.tolist(), cells.attrs["outcome"]
    ([0.2, 0.4], 'spent per hours')
    """
    check_given(outcome=outcome, arm=arm, control=control)
    bins = {} if bins is None else bins
    given = {"outcome": outcome, "exposure": exposure, "denominator": denominator, "weight": weights}
    numbers = {noun: column for noun, column in given.items() if column is not None}
    pre = _listed("cuped", cuped), _listed("balance", balance)
    bounds = _bounds(cap, cap_quantile)
    adjusted = {"denominator": denominator, "weights": weights, "cluster": cluster, "cuped": pre[0] or None}
    _check_together(metric, exposure, [name for name, value in adjusted.items() if value is not None], bounds)
    before = {f"cuped {name!r}": name for name in pre[0]}
    before |= {f"balance {name!r}": name for name in pre[1] if name not in pre[0]}
    roles = {**numbers, "arm": arm, "cluster": cluster}  # what was before treatment may be cut into levels as well
    cut = bins if isinstance(bins, Mapping) else {}
    roles |= {role: name for role, name in before.items() if name not in cut}
    dims = check_names(segments, roles, taken={VALUE} if metric == "histogram" else ())
    asked_bins, asked_rare = check_bins(bins, dims), check_rare(rare, dims)
    if cluster is not None:
        _check_clusters(asked_rare, asked_bins)
    texts = [dim for dim in dims if dim not in asked_bins]
    as_numbers = [dim for dim, each in asked_bins.items() if not isinstance(each, str)]
    ids = [name for name in (cluster, unit) if name is not None]
    if unit is not None and not isinstance(unit, str):
        raise DataError(f"unit must be the name of one column, not {described(unit)}")
    labels = list(dict.fromkeys([*texts, arm, *(name for name in ids if name not in roles)]))
    needed = [*numbers.values(), *before.values(), *as_numbers]
    with opened(data, labels=labels, numbers=needed, connection=connection) as source:
        rows = units(
            source,
            numbers=numbers,
            arm=arm,
            dims=dims,
            pre=list(before.values()),
            cluster=cluster,
            bins=asked_bins,
            cap=bounds,
        )
        how = _how(metric, exposure, rows, pre[0])
        groups = grouped(rows, how.query())
        doubts = [] if cluster is None else crossing_note(rows.frame, cluster, rows.name)
        spans, cluster_notes = (None, []) if cluster is None else _clusters(rows, groups, crossing=bool(doubts))
        doubts += [] if unit in {None, cluster} else _repeated(source, str(unit), arm)  # clusters may have many rows
    how.checked(groups, rows)
    groups, rare_notes = merged(groups, dims, asked_rare)
    missing = left_out(groups)
    groups, about = settle(rows, groups, outcome=_outcome(rows), control=control, drop_missing=drop_missing)
    check_cap(groups, rows, how.extremes)
    keys, columns, coords = how.reduced(groups, rows)
    notes = [*about.notes, *_done(rows, groups), *cluster_notes, *_reduction(columns, pre[0]), *rare_notes]
    about = replace(about, notes=notes, doubts=doubts, recipe=None if how.recipe is None else how.recipe.text())
    about = replace(about, spanning=None if spans is None else spans.text())
    wide = "events" not in columns and how.extremes in groups.moments and "denominator" not in numbers
    extremes = groups.moments[how.extremes] if wide and cluster is None and weights is None else None
    extras, more = _extras(groups, rows, keys, missing, extremes)
    cells = assemble(keys, {**columns, **extras}, about, coords={**coords, **more})
    seen = schema.present(cells).any(SEGMENT)  # units without exposure say nothing of an arm
    check_arms((str(label) for label in cells[ARM].values[seen.values]), about.control, arm)
    return cells


def _listed(what: str, columns: str | Sequence[str] | None) -> list[str]:
    found = [columns] if isinstance(columns, str) else names(what, columns or ())
    if len(set(found)) < len(found):
        raise DataError(f"{what} repeats a column: {listed(found)}; name each once")
    return found


def _bounds(cap: float | tuple[float, float] | None, quantile: float | tuple[float, float] | None) -> Cap | None:
    """The bounds of outcomes, if there are any."""
    if cap is not None and quantile is not None:
        raise DataError("cap and cap_quantile are both given; name the value, or the quantile, at which to cap")
    asked = cap if quantile is None else quantile
    if asked is None:
        return None
    name = "cap" if quantile is None else "cap_quantile"
    low, high = _pair(asked)
    if not low < high or not np.isfinite(high) or (quantile is not None and not (low >= 0 or low == -np.inf)):
        raise DataError(f"{name} is {described(asked)}; give a finite number, or a pair of them, the smaller first")
    if quantile is not None and not 0 < high < 1:
        raise DataError(
            f"cap_quantile is {described(asked)}; quantiles lie between 0 and 1, such as 0.99 or (0.01, 0.99)"
        )
    return Cap(low, high, quantiles=quantile is not None)


def _pair(asked: object) -> tuple[float, float]:
    """The smallest and the largest value, NaN for what is no number."""
    plain: Any = asked.tolist() if isinstance(asked, np.ndarray) else asked
    single = number(plain)
    if single is not None:
        return -np.inf, single
    several = isinstance(plain, Iterable) and not isinstance(plain, Mapping | bytes)
    match [number(bound) for bound in plain] if several else []:
        case [float(low), float(high)]:
            return low, high
    return np.nan, np.nan


def _check_together(metric: str, exposure: str | None, adjusted: Sequence[str], cap: Cap | None) -> None:
    """Raise DataError if what is asked does not go together."""
    if metric not in get_args(MetricName):
        raise DataError(f"no metric {metric!r}; there are {listed(get_args(MetricName))}")
    if exposure is not None and metric != "mean":
        raise DataError(f"exposure makes rates, and metric={metric!r} something else; leave one of them out")
    if exposure is not None and adjusted:
        raise DataError(
            f"exposure makes rates of independent units, which {' and '.join(adjusted)} cannot adjust; name the column "
            "as denominator in place of exposure, for the family mean"
        )
    if exposure is not None and cap is not None:
        raise DataError(
            "exposure counts events, and a cap would leave some out; name the column as denominator instead"
        )
    if metric != "mean" and adjusted:
        raise DataError(
            f"metric={metric!r} keeps what independent units did, which {' and '.join(adjusted)} cannot adjust; use "
            'metric="mean"'
        )


def _check_clusters(rare: Mapping[str, int], bins: Mapping[str, Bins]) -> None:
    """Raise DataError where levels would be put together after clusters were added up level by level."""
    weekly = [dim for dim, each in bins.items() if each == "week"]
    if rare or weekly:
        what = "rare levels" if rare else f"the days of {weekly[0]!r}"
        raise DataError(
            f"{what} are put together after the rows of a cluster are added up, so that one with rows in two of them "
            "would count twice; put them together in a column of the data, and name that"
        )


def _how(metric: MetricName, exposure: str | None, rows: Units, cuped: Sequence[str]) -> Metric:
    """The way to reduce the rows."""
    nouns = list(rows.numbers)
    weights, denominator = rows.numbers.get("weight"), rows.numbers.get("denominator")
    if exposure is not None or not (weights or denominator or rows.cluster or cuped):
        return METRICS[metric if exposure is None else "rates"]
    recipe = linear.recipe(denominator=denominator, weights=weights, cluster=rows.cluster, cuped=cuped)
    places = {noun: nouns.index(noun) if noun in nouns else None for noun in ("weight", "denominator")}
    return Metric(
        lambda: linear.query(recipe, **places),
        lambda groups, units: linear.reduced(groups, units, recipe),
        recipe=recipe,
    )


def _repeated(source: Source, unit: str, arm: str) -> list[str]:
    import narwhals.stable.v2 as nw

    picked = pick(source, [unit, arm]).select(nw.col("c0").alias("u"), nw.col("c1").alias("k0"))
    return repeated_notes(picked, unit, source.name)


def _outcome(rows: Units) -> str:
    """What was measured, with what was done to it."""
    name = rows.numbers["outcome"]
    if rows.cap is not None:
        name += f" ({rows.cap})"
    return f"{name} per {rows.numbers['denominator']}" if "denominator" in rows.numbers else name


def _done(rows: Units, groups: Groups) -> list[str]:
    """What was done to the rows, as notes."""
    notes = [cut.told(dim) for dim, cut in rows.cuts.items()]
    if rows.cap is not None:
        count, total = int(groups.counts["capped"].sum()), int(groups.complete.sum())
        notes.append(
            f"{count:,} of {total:,} outcomes in {rows.numbers['outcome']!r} lie beyond the cap; {_outcome(rows)}"
        )
    return notes


def _clusters(rows: Units, groups: Groups, *, crossing: bool) -> tuple[Spanning | None, list[str]]:
    """What is known of clusters in several segments, and how many clusters there are, as a note."""
    if not groups.n[groups.arms != None].any():  # noqa: E711, elementwise
        return None, []
    clusters, several, found = ask_spanning(rows.frame, rows.dims, rows.name, crossing=crossing)
    return found, [told(str(rows.cluster), clusters, several, found)]


def _reduction(columns: Mapping[str, Column], cuped: Sequence[str]) -> list[str]:
    """How much the adjustment brought, as a note."""
    if "variance_reduction" not in columns or not np.isfinite(columns["variance_reduction"]).any():
        return []
    shares = columns["variance_reduction"]
    low, middle, high = (round(float(share), 2) + 0.0 for share in np.nanquantile(shares, [0, 0.5, 1]))  # no -0 %
    return [
        f"adjusting for {', '.join(cuped)} (CUPED) took away {middle:.0%} of the variance of a cell's mean "
        f"(median; from {low:.0%} to {high:.0%})"
    ]


def left_out(groups: Groups) -> dict[Key, int]:
    """How many rows with an arm are not complete, by cell."""
    if not groups.faults:
        return {}
    known = groups.take(groups.arms != None)  # noqa: E711, elementwise
    keys, columns = pool(known.keys, {"n_missing": known.rows - known.complete})
    return dict(zip(keys, columns["n_missing"].tolist(), strict=True))


def _extras(
    groups: Groups, rows: Units, keys: Sequence[Key], missing: Mapping[Key, int], extremes: Moments | None
) -> tuple[dict[str, Column], Coords]:
    """What `check` wants to know of the cells besides."""
    found: dict[str, Column] = {}
    if rows.cluster is not None:
        found["n_rows"] = groups.complete
    if extremes is not None:
        found |= {"lowest": extremes.low, "highest": extremes.high}
    coords: Coords = {}
    if rows.pre:
        pre = [groups.moments[f"p{j}"] for j in range(len(rows.pre))]
        found["pre_n"] = np.stack([each.n for each in pre], axis=-1)
        found["pre_mean"] = np.stack([each.mean for each in pre], axis=-1)
        found["pre_ss"] = np.stack([each.ss for each in pre], axis=-1)
        coords = {PRE: (PRE, list(rows.pre))}
    order, pooled = pool(groups.keys, found)
    if order != keys:  # a histogram leaves out cells without values
        place = {key: i for i, key in enumerate(order)}
        pooled = {name: values[[place[key] for key in keys]] for name, values in pooled.items()}
    if any(missing.values()):
        pooled["n_missing"] = np.array([missing[key] for key in keys], dtype=np.int64)
    return pooled, coords
