"""Aggregate rows of clusters: where a cluster was assigned, its total is what varies, not its rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bayes_hte.cells.reading.engines import fetch_rows, format_count
from bayes_hte.cells.units.statistics import (
    StatisticsAnswer,
    StatisticsQuery,
    add_columns,
    convert_to_counts,
    query_statistics,
)

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

UNIT_COUNT: Final = "units"
"""Name under which an answer counts the units of analysis: complete rows, or clusters with a complete row."""


def aggregate_units(
    frame: "nw.LazyFrame[Any]",
    key_columns: Sequence[str],
    query: StatisticsQuery,
    *,
    table_name: str,
    max_groups: int,
    by_cluster: bool,
) -> StatisticsAnswer:
    """Carry out one group-by, over rows or over the totals of clusters.

    Parameters
    ----------
    frame
        Rows; y0 is null where a row is not complete, g is the cluster.
    key_columns, query, table_name, max_groups
        As `query_statistics` of `units.statistics` takes them. By cluster, the columns that `query` derives are
        added up over the rows of a cluster, and sums and moments are of these totals; counts are of rows either way.
    by_cluster
        Whether to add up the rows of each cluster first, key by key.

    Returns
    -------
    StatisticsAnswer
        With one count more, `UNIT_COUNT`.
    """
    if not by_cluster:
        answer = query_statistics(frame, key_columns, query, table_name=table_name, group_limit=max_groups)
        return replace(answer, value_counts={**answer.value_counts, UNIT_COUNT: answer.value_counts["y0"]})
    cluster_totals, totals_query = _sum_within_clusters(frame, key_columns, query)
    answer = query_statistics(cluster_totals, key_columns, totals_query, table_name=table_name, group_limit=max_groups)
    # Counts over totals would be of clusters; the number of rows is a sum over clusters.
    row_counts = {column: convert_to_counts(answer.column_sums[f"n_of_{column}"]) for column in query.count_columns}
    return replace(
        answer,
        row_counts=convert_to_counts(answer.column_sums["all_rows"]),
        value_counts={**row_counts, UNIT_COUNT: answer.value_counts[UNIT_COUNT]},
    )


def _sum_within_clusters(
    frame: "nw.LazyFrame[Any]", key_columns: Sequence[str], query: StatisticsQuery
) -> "tuple[nw.LazyFrame[Any], StatisticsQuery]":
    """Sum rows to one per cluster and key, and make the query for statistics of these totals."""
    import narwhals.stable.v2 as nw

    # Columns of pre-treatment values are not derived; a cluster has their mean, as the totals are of the outcome only.
    pre_columns = [column for column in query.moment_columns if column not in query.derived_columns]
    clustered_rows = add_columns(frame, query.derived_columns).group_by(*key_columns, "g", drop_null_keys=False)
    totals = clustered_rows.agg(
        nw.len().alias("all_rows"),
        *(nw.col(column).count().alias(f"n_of_{column}") for column in query.count_columns),
        *(nw.col(column).sum().alias(f"total_{column}") for column in query.derived_columns),
        *(nw.col(column).mean().alias(column) for column in pre_columns),
    )
    has_complete_rows = nw.col("n_of_y0") > 0  # else a sum over nothing is 0 in some engines, null in others
    totals = totals.with_columns(
        nw.when(has_complete_rows).then(1.0).alias(UNIT_COUNT),
        *(nw.when(has_complete_rows).then(nw.col(f"total_{column}")).alias(column) for column in query.derived_columns),
    )
    summed_columns = ["all_rows", *(f"n_of_{column}" for column in query.count_columns)]
    return totals, StatisticsQuery(
        count_columns=[UNIT_COUNT],
        sum_columns=summed_columns,
        moment_columns=query.moment_columns,
        product_pairs=query.product_pairs,
    )


def note_crossing_clusters(frame: "nw.LazyFrame[Any]", cluster_column: str, table_name: str) -> list[str]:
    """Note in one sentence that clusters have rows in several arms, if any have; runs a query.

    Parameters
    ----------
    frame
        Rows; g is the cluster, k0 the arm.
    cluster_column
        Name of the cluster's column, for the note.
    table_name
        Name of the table in messages.
    """
    n_clusters, _, n_crossing = _count_repeats(frame, "g", table_name)
    if not n_crossing:
        return []
    verb = "has" if n_crossing == 1 else "have"
    return [
        f"{n_crossing:,} of {format_count(n_clusters, 'cluster', 'clusters')} in {cluster_column!r} {verb} rows in "
        "more than one arm, so arms were not assigned by cluster: standard errors take the arms for independent, which "
        "overstates them where outcomes of a cluster are alike; check that this is the unit that was randomised"
    ]


def note_repeated_units(frame: "nw.LazyFrame[Any]", unit_column: str, table_name: str) -> list[str]:
    """Note in sentences that units have several rows, or are in several arms, if any do; runs a query.

    Parameters
    ----------
    frame
        Rows; u is the unit, k0 the arm.
    unit_column
        Name of the unit's column, for the notes.
    table_name
        Name of the table in messages.
    """
    n_units, n_repeated, n_crossing = _count_repeats(frame, "u", table_name)
    unit_phrase = format_count(n_units, "unit", "units")
    notes = []
    if n_crossing:
        verb = "is" if n_crossing == 1 else "are"
        notes.append(
            f"{n_crossing:,} of {unit_phrase} in {unit_column!r} {verb} in more than one arm: they saw both, and "
            "effects are blurred; find out how that happened, and leave these units out"
        )
    if n_repeated:
        verb = "has" if n_repeated == 1 else "have"
        notes.append(
            f"{n_repeated:,} of {unit_phrase} in {unit_column!r} {verb} more than one row: standard errors take them "
            f"for different units and are too small; add up their rows first, or pass cluster={unit_column!r}"
        )
    return notes


def _count_repeats(frame: "nw.LazyFrame[Any]", id_column: str, table_name: str) -> tuple[int, int, int]:
    """Count distinct ids, ids with several rows, and ids with rows in several arms."""
    import narwhals.stable.v2 as nw

    # Rows without an id cannot be told to repeat one, and rows without an arm cannot cross arms.
    known_rows = frame.filter(~nw.col(id_column).is_null() & ~nw.col("k0").is_null())
    by_arm = known_rows.group_by(id_column, "k0").agg(nw.len().alias("in_arm"))
    by_value = by_arm.group_by(id_column).agg(nw.len().alias("arms"), nw.col("in_arm").sum().alias("all"))
    flagged_ids = by_value.select(
        one=nw.col("all") * 0 + 1,  # a column of ones that every engine takes for one
        repeated=nw.when(nw.col("all") > 1).then(1).otherwise(0),
        several=nw.when(nw.col("arms") > 1).then(1).otherwise(0),
    )
    flag_sums = fetch_rows(
        flagged_ids.select(nw.col("one").sum(), nw.col("repeated").sum(), nw.col("several").sum()), table_name
    )[0]
    n_ids, n_repeated, n_crossing = (0 if flag_sum is None else int(flag_sum) for flag_sum in flag_sums)
    return n_ids, n_repeated, n_crossing
