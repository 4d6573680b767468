"""Aggregate rows of clusters, and count the clusters that have rows in several segments.

Where a cluster was assigned, its total is what varies, not its rows. Each segment counts the clusters with rows in
it, so that counts do not add up: a sum over segments counts a cluster m times that is in m segments. The number of
clusters in an arm is asked of the rows; a test that needs independent units takes sums over segments for a sample of

    n / deff,    deff = Σ m² / Σ m    (Kish 1965, Survey Sampling, §11.7)

units, which is exact for what is the same in all rows of a cluster, as what was measured of it before treatment.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte.cells.build import SPANNING_ATTRIBUTE
from bayes_hte.cells.reading.engines import Source, fetch_rows, pick_columns
from bayes_hte.cells.reading.labels import format_labels
from bayes_hte.cells.units.statistics import (
    StatisticsAnswer,
    StatisticsQuery,
    add_columns,
    convert_to_counts,
    merge_queries,
    query_statistics,
)
from bayes_hte.spec.cell_table import ARM, SEGMENT

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw


def aggregate_clusters(
    frame: "nw.LazyFrame[Any]",
    key_columns: Sequence[str],
    queries: Sequence[StatisticsQuery],
    *,
    table_name: str,
    group_limit: int,
) -> StatisticsAnswer:
    """Carry out one group-by over the totals of clusters, for several metrics.

    Parameters
    ----------
    frame
        Rows; g is the cluster.
    key_columns, table_name, group_limit
        As `query_statistics` of `units.statistics` takes them.
    queries
        The query of each metric. The columns that they derive are added up over the rows of a cluster, and sums and
        moments are of these totals; counts are of rows.

    Returns
    -------
    StatisticsAnswer
        With one count more per query, `name_cluster_count`: its clusters with a complete row.
    """
    cluster_totals, totals_query = _sum_within_clusters(frame, key_columns, queries)
    answer = query_statistics(cluster_totals, key_columns, totals_query, table_name=table_name, group_limit=group_limit)
    # Counts over totals would be of clusters; the number of rows is a sum over clusters.
    row_columns = merge_queries(queries).count_columns
    row_counts = {column: convert_to_counts(answer.column_sums[f"n_of_{column}"]) for column in row_columns}
    return replace(
        answer,
        row_counts=convert_to_counts(answer.column_sums["all_rows"]),
        value_counts={**row_counts, **answer.value_counts},
    )


def name_cluster_count(complete_column: str) -> str:
    """Name the count of clusters with a complete row, by the column that is null where one is not."""
    return f"clusters_of_{complete_column}"


def _sum_within_clusters(
    frame: "nw.LazyFrame[Any]", key_columns: Sequence[str], queries: Sequence[StatisticsQuery]
) -> "tuple[nw.LazyFrame[Any], StatisticsQuery]":
    """Sum rows to one per cluster and key, and make the query for statistics of these totals."""
    import narwhals.stable.v2 as nw

    query = merge_queries(queries)
    # Columns of pre-treatment values are not derived; a cluster has their mean, as the totals are of the outcome only.
    pre_columns = [column for column in query.moment_columns if column not in query.derived_columns]
    clustered_rows = add_columns(frame, query.derived_columns).group_by(*key_columns, "g", drop_null_keys=False)
    totals = clustered_rows.agg(
        nw.len().alias("all_rows"),
        *(nw.col(column).count().alias(f"n_of_{column}") for column in query.count_columns),
        *(nw.col(column).sum().alias(f"total_{column}") for column in query.derived_columns),
        *(nw.col(column).mean().alias(column) for column in pre_columns),
    )
    known_totals: dict[str, nw.Expr] = {}
    for metric_query in queries:
        # Else a sum over nothing is 0 in some engines, null in others.
        has_complete_rows = nw.col(f"n_of_{metric_query.complete_column}") > 0
        known_totals[name_cluster_count(metric_query.complete_column)] = nw.when(has_complete_rows).then(1.0)
        known_totals |= {
            column: nw.when(has_complete_rows).then(nw.col(f"total_{column}"))
            for column in metric_query.derived_columns
        }
    summed_columns = ["all_rows", *(f"n_of_{column}" for column in query.count_columns)]
    return totals.with_columns(**known_totals), StatisticsQuery(
        count_columns=list(dict.fromkeys(name_cluster_count(each.complete_column) for each in queries)),
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
        f"{n_crossing:,} of {write_count(n_clusters, 'cluster', 'clusters')} in {cluster_column!r} {verb} rows in "
        "more than one arm, so arms were not assigned by cluster: standard errors take the arms for independent, which "
        "overstates them where outcomes of a cluster are alike; check that this is the unit that was randomised"
    ]


def note_repeated_units(source: Source, unit_column: str, arm_column: str) -> list[str]:
    """Note in sentences that units have several rows, or are in several arms, if any do; runs a query.

    Parameters
    ----------
    source
        The opened table.
    unit_column, arm_column
        Columns of the units and of the arms.
    """
    import narwhals.stable.v2 as nw

    picked_rows = pick_columns(source, [unit_column, arm_column])
    unit_rows = picked_rows.select(nw.col("c0").alias("u"), nw.col("c1").alias("k0"))
    n_units, n_repeated, n_crossing = _count_repeats(unit_rows, "u", source.table_name)
    unit_phrase = write_count(n_units, "unit", "units")
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


@dataclass(frozen=True, slots=True)
class SpanningClusters:
    """Counts of clusters, some of which have rows in several segments.

    Attributes
    ----------
    clusters_by_arm : mapping
        Number of clusters in each arm; empty where it is not known.
    squares_by_arm : mapping
        By arm, Σ m² over clusters, with m the number of segments a cluster is in.
    varying_dims : sequence of str
        Dimensions of which some clusters have several levels.
    sliced_dim : str
        The dimension of which this table is one level, if the same clusters are in other levels.
    """

    clusters_by_arm: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    squares_by_arm: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    varying_dims: Sequence[str] = ()
    sliced_dim: str = ""

    def to_json(self) -> str:
        """Encode as the attribute of a cell table."""
        sorted_arms = sorted(self.clusters_by_arm)  # engines answer in any order
        counts_by_name = {count_name: {arm: count_by_arm[arm] for arm in sorted_arms} for count_name, count_by_arm in
                 (("clusters", self.clusters_by_arm), ("squares", self.squares_by_arm))}  # fmt: skip
        return json.dumps(
            {**counts_by_name, "dims": list(self.varying_dims), "slice_of": self.sliced_dim}, ensure_ascii=False
        )

    def design_effect(self, summed_count: int) -> float:
        """Calculate the Kish design effect Σ m² / Σ m of summing cluster counts over segments; NaN if not known."""
        return (
            sum(self.squares_by_arm.values()) / summed_count if self.squares_by_arm and summed_count else float("nan")
        )


def read_spanning_clusters(cells: xr.Dataset) -> SpanningClusters | None:
    """Read the counts of clusters from a cell table; None where no cluster has rows in several segments."""
    if SPANNING_ATTRIBUTE not in cells.attrs:
        return None
    stored_fields = json.loads(cells.attrs[SPANNING_ATTRIBUTE])
    return SpanningClusters(
        stored_fields["clusters"], stored_fields["squares"], stored_fields["dims"], stored_fields["slice_of"]
    )


def count_disjoint_clusters(cells: xr.Dataset) -> SpanningClusters:
    """Count the clusters of a cell table none of whose clusters has rows in several segments."""
    # m = 1 for every cluster, so that Σ m² is the number of clusters.
    clusters_by_arm = {
        str(arm): int(n_clusters)
        for arm, n_clusters in zip(cells[ARM].values, cells["n"].sum(SEGMENT).values, strict=True)
    }
    return SpanningClusters(clusters_by_arm=clusters_by_arm, squares_by_arm=clusters_by_arm)


def count_spanning_clusters(
    frame: "nw.LazyFrame[Any]",
    key_by_dim: Mapping[str, str],
    table_name: str,
    *,
    complete_column: str = "y0",
    crossing: bool = False,
) -> tuple[int, int, SpanningClusters | None]:
    """Count clusters, clusters with rows in several segments, and these by arm and dimension.

    Parameters
    ----------
    frame
        Rows; g is the cluster, k0 the arm.
    key_by_dim
        By dimension, the column of its levels.
    table_name
        Name of the table in messages.
    complete_column
        Column that is null where a row is not complete.
    crossing
        Whether some clusters are in several arms, so that counts of arms do not add up to the number of clusters.

    Returns
    -------
    tuple
        The number of clusters, the number with rows in several segments, and `SpanningClusters` if there are any.
    """
    import narwhals.stable.v2 as nw

    # Clusters are counted as the cells count them: of complete rows with an arm.
    rows = frame.filter(~nw.col(complete_column).is_null() & ~nw.col("k0").is_null())
    cluster_segments = rows.group_by("g", "k0", *key_by_dim.values(), drop_null_keys=False).agg(nw.len().alias("rows"))
    segment_counts = cluster_segments.group_by("g", "k0").agg(nw.len().alias("segments"))
    segment_counts = segment_counts.with_columns(
        square=nw.col("segments") * nw.col("segments"),  # m²
        several=nw.when(nw.col("segments") > 1).then(1).otherwise(0),
    )
    arm_totals = segment_counts.group_by("k0").agg(
        nw.len().alias("clusters"), nw.col("square").sum(), nw.col("several").sum()
    )
    clusters_by_arm: dict[str, int] = {}
    squares_by_arm: dict[str, int] = {}
    n_spanning = 0
    total_rows = fetch_rows(arm_totals.select("k0", "clusters", "square", "several"), table_name)
    arm_labels = format_labels([arm for arm, *_ in total_rows])
    for arm_label, (_, cluster_count, squares, spanning) in zip(map(str, arm_labels), total_rows, strict=True):
        # Values such as 1 and "1" may be one arm.
        clusters_by_arm[arm_label] = clusters_by_arm.get(arm_label, 0) + int(cluster_count)
        squares_by_arm[arm_label] = squares_by_arm.get(arm_label, 0) + int(squares)
        n_spanning += int(spanning)
    n_clusters = _count_clusters(rows, table_name) if crossing else sum(clusters_by_arm.values())
    if not n_spanning:
        return n_clusters, 0, None
    # With one dimension, clusters in several segments have several levels of that one: no query is needed.
    varying_dims = [
        dim for dim, key in key_by_dim.items() if len(key_by_dim) == 1 or _has_several_levels(rows, key, table_name)
    ]
    return n_clusters, n_spanning, SpanningClusters(clusters_by_arm, squares_by_arm, varying_dims)


def _count_clusters(known_rows: "nw.LazyFrame[Any]", table_name: str) -> int:
    """Count distinct clusters over all arms."""
    import narwhals.stable.v2 as nw

    cluster_rows = known_rows.group_by("g").agg(nw.len().alias("rows")).with_columns(one=nw.col("rows") * 0 + 1)
    return int(fetch_rows(cluster_rows.select(nw.col("one").sum()), table_name)[0][0])


def _has_several_levels(known_rows: "nw.LazyFrame[Any]", dim_key: str, table_name: str) -> bool:
    """Tell whether a dimension has several levels within any cluster."""
    import narwhals.stable.v2 as nw

    cluster_levels = known_rows.group_by("g", dim_key, drop_null_keys=False).agg(nw.len().alias("rows"))
    level_counts = cluster_levels.group_by("g").agg(nw.len().alias("levels"))
    return int(fetch_rows(level_counts.select(nw.col("levels").max()), table_name)[0][0]) > 1


def describe_analysis_units(
    cluster_column: str, n_clusters: int, n_spanning: int, spanning_clusters: SpanningClusters | None
) -> str:
    """Describe the units of analysis in a note."""
    unit_phrase = f"the units of analysis are {write_count(n_clusters, 'cluster', 'clusters')} in {cluster_column!r}"
    if spanning_clusters is None:
        return unit_phrase
    return (
        f"{unit_phrase}; {write_count(n_spanning, 'has', 'have')} rows in several levels of "
        f"{quote_names(spanning_clusters.varying_dims)}, and each segment "
        "counts them: segments are not independent then, so that what pools them or adds them up, such as the average "
        "effect, is less sure than it looks; to avoid it, use dimensions that are the same in all rows of a cluster"
    )
