"""Rows that belong together: where a cluster was assigned, its total is what varies, not its rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bayes_hte.cells.sources import counted, fetch
from bayes_hte.cells.statistics import Answer, Query, ask, derived, whole

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

UNITS: Final = "units"
"""The name under which an answer counts the units of analysis: complete rows, or clusters with any."""


def ask_units(
    frame: "nw.LazyFrame[Any]", keys: Sequence[str], query: Query, *, name: str, limit: int, clusters: bool
) -> Answer:
    """Carry out one group-by, over rows or over the totals of clusters.

    Parameters
    ----------
    frame
        Rows; y0 is null where a row is not complete, g is the cluster.
    keys, query, name, limit
        As `bayes_hte.cells.statistics.ask` takes them; of clusters, what `query` derives is added up over rows, and
        everything after is of these totals. Counts are of rows either way.
    clusters
        Whether to add up rows of the same cluster, key by key, first.

    Returns
    -------
    Answer
        With one count more, `UNITS`.
    """
    if not clusters:
        answer = ask(frame, keys, query, name=name, limit=limit)
        return replace(answer, counts={**answer.counts, UNITS: answer.counts["y0"]})
    totals, asked = _totals(frame, keys, query)
    answer = ask(totals, keys, asked, name=name, limit=limit)
    counts = {column: whole(answer.sums[f"n_of_{column}"]) for column in query.counts}
    return replace(answer, rows=whole(answer.sums["all_rows"]), counts={**counts, UNITS: answer.counts[UNITS]})


def _totals(frame: "nw.LazyFrame[Any]", keys: Sequence[str], query: Query) -> "tuple[nw.LazyFrame[Any], Query]":
    """One row per cluster and key, and the query that asks of these what was asked of rows."""
    import narwhals.stable.v2 as nw

    before = [column for column in query.moments if column not in query.derived]
    grouped = derived(frame, query.derived).group_by(*keys, "g", drop_null_keys=False)
    totals = grouped.agg(
        nw.len().alias("all_rows"),
        *(nw.col(column).count().alias(f"n_of_{column}") for column in query.counts),
        *(nw.col(column).sum().alias(f"total_{column}") for column in query.derived),
        *(nw.col(column).mean().alias(column) for column in before),
    )
    there = nw.col("n_of_y0") > 0  # else a sum over nothing is 0 in some engines, null in others
    totals = totals.with_columns(
        nw.when(there).then(1.0).alias(UNITS),
        *(nw.when(there).then(nw.col(f"total_{column}")).alias(column) for column in query.derived),
    )
    sums = ["all_rows", *(f"n_of_{column}" for column in query.counts)]
    return totals, Query(counts=[UNITS], sums=sums, moments=query.moments, pairs=query.pairs)


def crossing_note(frame: "nw.LazyFrame[Any]", column: str, name: str) -> list[str]:
    """One sentence if clusters have rows in several arms; asked in a query of its own.

    Parameters
    ----------
    frame
        Rows; g is the cluster, k0 the arm.
    column
        What the cluster is called.
    name
        What messages call the rows.
    """
    total, _, several = _repeats(frame, "g", name)
    if not several:
        return []
    verb = "has" if several == 1 else "have"
    return [
        f"{several:,} of {counted(total, 'cluster', 'clusters')} in {column!r} {verb} rows in more than one arm, so "
        "arms were not assigned by cluster: standard errors take the arms for independent, which overstates them where "
        "outcomes of a cluster are alike; check that this is the unit that was randomised"
    ]


def repeated_notes(frame: "nw.LazyFrame[Any]", column: str, name: str) -> list[str]:
    """Sentences if units have several rows, or are in several arms; asked in a query of its own.

    Parameters
    ----------
    frame
        Rows; u is the unit, k0 the arm.
    column
        What the unit is called.
    name
        What messages call the rows.
    """
    total, repeated, several = _repeats(frame, "u", name)
    units = counted(total, "unit", "units")
    notes = []
    if several:
        verb = "is" if several == 1 else "are"
        notes.append(
            f"{several:,} of {units} in {column!r} {verb} in more than one arm: they saw both, and effects are "
            "blurred; find out how that happened, and leave these units out"
        )
    if repeated:
        verb = "has" if repeated == 1 else "have"
        notes.append(
            f"{repeated:,} of {units} in {column!r} {verb} more than one row: standard errors take them for different "
            f"units and are too small; add up their rows first, or pass cluster={column!r}"
        )
    return notes


def _repeats(frame: "nw.LazyFrame[Any]", column: str, name: str) -> tuple[int, int, int]:
    """How many different values there are, how many have several rows, and how many several arms."""
    import narwhals.stable.v2 as nw

    known = frame.filter(~nw.col(column).is_null() & ~nw.col("k0").is_null())
    by_arm = known.group_by(column, "k0").agg(nw.len().alias("in_arm"))
    by_value = by_arm.group_by(column).agg(nw.len().alias("arms"), nw.col("in_arm").sum().alias("all"))
    flagged = by_value.select(
        one=nw.col("all") * 0 + 1,
        repeated=nw.when(nw.col("all") > 1).then(1).otherwise(0),
        several=nw.when(nw.col("arms") > 1).then(1).otherwise(0),
    )
    found = fetch(flagged.select(nw.col("one").sum(), nw.col("repeated").sum(), nw.col("several").sum()), name)[0]
    total, repeated, several = (0 if value is None else int(value) for value in found)
    return total, repeated, several
