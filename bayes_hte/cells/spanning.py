"""Clusters with rows in several segments: they count in each, so that counts of segments do not add up.

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

from bayes_hte.cells.labels import text_of
from bayes_hte.cells.sources import counted, fetch, listed
from bayes_hte.schema import ARM, SEGMENT

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

ATTRIBUTE = "spanning"
"""Of the cell table: absent where no cluster has rows in several segments."""


@dataclass(frozen=True, slots=True)
class Spanning:
    """What is known of clusters with rows in several segments.

    Attributes
    ----------
    clusters : mapping
        Number of clusters in each arm; empty where it is not known.
    squares : mapping
        By arm, the sum over clusters of the square of the number of segments they are in.
    dims : sequence of str
        Dimensions of which some clusters have several levels.
    slice_of : str
        The dimension of which this table is one level, if the same clusters are in other levels.
    """

    clusters: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    squares: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    dims: Sequence[str] = ()
    slice_of: str = ""

    def text(self) -> str:
        """As the attribute of a cell table."""
        arms = sorted(self.clusters)  # engines answer in any order
        known = {name: {arm: each[arm] for arm in arms} for name, each in
                 (("clusters", self.clusters), ("squares", self.squares))}  # fmt: skip
        return json.dumps({**known, "dims": list(self.dims), "slice_of": self.slice_of}, ensure_ascii=False)

    def design_effect(self, counted: int) -> float:
        """By how much sums over segments, `counted` for clusters in all, overstate their number; NaN if not known."""
        return sum(self.squares.values()) / counted if self.squares and counted else float("nan")


def spanning(cells: xr.Dataset) -> Spanning | None:
    """What a cell table says of it; None where no cluster has rows in several segments."""
    if ATTRIBUTE not in cells.attrs:
        return None
    stored = json.loads(cells.attrs[ATTRIBUTE])
    return Spanning(stored["clusters"], stored["squares"], stored["dims"], stored["slice_of"])


def of_disjoint(cells: xr.Dataset) -> Spanning:
    """The same of a cell table none of whose clusters has rows in several segments."""
    counts = {str(arm): int(n) for arm, n in zip(cells[ARM].values, cells["n"].sum(SEGMENT).values, strict=True)}
    return Spanning(clusters=counts, squares=counts)


def ask_spanning(
    frame: "nw.LazyFrame[Any]", dims: Sequence[str], name: str, *, crossing: bool = False
) -> tuple[int, int, Spanning | None]:
    """How many clusters there are, how many of them have rows in several segments, and what is known of these.

    Parameters
    ----------
    frame
        Rows; g is the cluster, k0 the arm, k1, … the dimensions, y0 is null where a row is not complete.
    dims
        What the dimensions are called.
    name
        What messages call the rows.
    crossing
        Whether some are in several arms.
    """
    import narwhals.stable.v2 as nw

    known = frame.filter(~nw.col("y0").is_null() & ~nw.col("k0").is_null())
    keys = [f"k{i}" for i in range(1, 1 + len(dims))]
    places = known.group_by("g", "k0", *keys, drop_null_keys=False).agg(nw.len().alias("rows"))
    each = places.group_by("g", "k0").agg(nw.len().alias("segments"))
    each = each.with_columns(
        square=nw.col("segments") * nw.col("segments"), several=nw.when(nw.col("segments") > 1).then(1).otherwise(0)
    )
    totals = each.group_by("k0").agg(nw.len().alias("clusters"), nw.col("square").sum(), nw.col("several").sum())
    clusters: dict[str, int] = {}
    squares: dict[str, int] = {}
    several = 0
    for arm, count, square, spans in fetch(totals.select("k0", "clusters", "square", "several"), name):
        label = text_of(arm) or ""
        clusters[label] = clusters.get(label, 0) + int(count)
        squares[label] = squares.get(label, 0) + int(square)
        several += int(spans)
    count = _number(known, name) if crossing else sum(clusters.values())
    if not several:
        return count, 0, None
    wide = dims if len(dims) == 1 else [dim for dim, key in zip(dims, keys, strict=True) if _varies(known, key, name)]
    return count, several, Spanning(clusters, squares, list(wide))


def _number(known: "nw.LazyFrame[Any]", name: str) -> int:
    """How many clusters there are, in whichever arm."""
    import narwhals.stable.v2 as nw

    each = known.group_by("g").agg(nw.len().alias("rows")).with_columns(one=nw.col("rows") * 0 + 1)
    return int(fetch(each.select(nw.col("one").sum()), name)[0][0])


def _varies(known: "nw.LazyFrame[Any]", key: str, name: str) -> bool:
    """Whether a dimension has several levels within a cluster."""
    import narwhals.stable.v2 as nw

    levels = known.group_by("g", key, drop_null_keys=False).agg(nw.len().alias("rows"))
    each = levels.group_by("g").agg(nw.len().alias("levels"))
    return int(fetch(each.select(nw.col("levels").max()), name)[0][0]) > 1


def told(cluster: str, clusters: int, several: int, found: Spanning | None) -> str:
    """What the units of analysis are, as a note."""
    units = f"the units of analysis are {counted(clusters, 'cluster', 'clusters')} in {cluster!r}"
    if found is None:
        return units
    return (
        f"{units}; {counted(several, 'has', 'have')} rows in several levels of {listed(found.dims)}, and each segment "
        "counts them: segments are not independent then, so that what pools them or adds them up, such as the average "
        "effect, is less sure than it looks; to avoid it, use dimensions that are the same in all rows of a cluster"
    )
