"""Count clusters with rows in several segments: each segment counts them, so that counts do not add up.

Where a cluster is in m segments, a sum over segments counts it m times. The number of clusters in an arm is asked of
the rows; a test that needs independent units takes sums over segments for a sample of

    n / deff,    deff = Σ m² / Σ m    (Kish 1965, Survey Sampling, §11.7)

units, which is exact for what is the same in all rows of a cluster, as what was measured of it before treatment.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayes_hte.cells.reading.engines import fetch_rows, format_count, quote_names
from bayes_hte.cells.reading.labels import format_label
from bayes_hte.spec.cell_table import ARM, SEGMENT

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

SPANNING_ATTRIBUTE = "spanning"
"""Attribute of the cell table: absent where no cluster has rows in several segments."""


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
    frame: "nw.LazyFrame[Any]", dims: Sequence[str], table_name: str, *, crossing: bool = False
) -> tuple[int, int, SpanningClusters | None]:
    """Count clusters, clusters with rows in several segments, and these by arm and dimension.

    Parameters
    ----------
    frame
        Rows; g is the cluster, k0 the arm, k1, … the dimensions, y0 is null where a row is not complete.
    dims
        Names of the dimensions.
    table_name
        Name of the table in messages.
    crossing
        Whether some clusters are in several arms, so that counts of arms do not add up to the number of clusters.

    Returns
    -------
    tuple
        The number of clusters, the number with rows in several segments, and `SpanningClusters` if there are any.
    """
    import narwhals.stable.v2 as nw

    # Clusters are counted as the cells count them: of complete rows with an arm.
    rows = frame.filter(~nw.col("y0").is_null() & ~nw.col("k0").is_null())
    dim_keys = [f"k{i}" for i in range(1, 1 + len(dims))]
    cluster_segments = rows.group_by("g", "k0", *dim_keys, drop_null_keys=False).agg(nw.len().alias("rows"))
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
    for arm, cluster_count, squares, spanning in fetch_rows(
        arm_totals.select("k0", "clusters", "square", "several"), table_name
    ):
        arm_label = format_label(arm) or ""  # values such as 1 and "1" may be one arm
        clusters_by_arm[arm_label] = clusters_by_arm.get(arm_label, 0) + int(cluster_count)
        squares_by_arm[arm_label] = squares_by_arm.get(arm_label, 0) + int(squares)
        n_spanning += int(spanning)
    n_clusters = _count_clusters(rows, table_name) if crossing else sum(clusters_by_arm.values())
    if not n_spanning:
        return n_clusters, 0, None
    # With one dimension, clusters in several segments have several levels of that one: no query is needed.
    varying_dims = (
        dims
        if len(dims) == 1
        else [dim for dim, key in zip(dims, dim_keys, strict=True) if _has_several_levels(rows, key, table_name)]
    )
    return n_clusters, n_spanning, SpanningClusters(clusters_by_arm, squares_by_arm, list(varying_dims))


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
    unit_phrase = f"the units of analysis are {format_count(n_clusters, 'cluster', 'clusters')} in {cluster_column!r}"
    if spanning_clusters is None:
        return unit_phrase
    return (
        f"{unit_phrase}; {format_count(n_spanning, 'has', 'have')} rows in several levels of "
        f"{quote_names(spanning_clusters.varying_dims)}, and each segment "
        "counts them: segments are not independent then, so that what pools them or adds them up, such as the average "
        "effect, is less sure than it looks; to avoid it, use dimensions that are the same in all rows of a cluster"
    )
