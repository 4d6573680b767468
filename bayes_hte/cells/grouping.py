"""One group-by over rows of units, inside the engine that holds them, and what is missing among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.assembly import About
from bayes_hte.cells.bins import Bins, Cut, cuts_of, quantiles
from bayes_hte.cells.clusters import UNITS, ask_units
from bayes_hte.cells.labels import Key, text_of
from bayes_hte.cells.sources import Source, check_arms, counted, fetch, listed, missing_notes, pick
from bayes_hte.cells.statistics import Counts, Floats, Moments, Pair, Query
from bayes_hte.errors import DataError
from bayes_hte.schema import MISSING_LEVEL

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

MAX_GROUPS = 1_000_000
"""More cells than this are an id among the dimensions, and would no longer be small."""

_PURPOSE = MappingProxyType(
    {
        "outcome": "a mean",
        "exposure": "a rate",
        "denominator": "a ratio",
        "weight": "a weighted mean",
        "time": "a time",
        "event": "an event",
    }
)
"""What each number of a unit is needed for, as the subject of "needs numbers"."""


@dataclass(frozen=True, slots=True)
class Cap:
    """The bounds that outcomes are moved to, stated or as quantiles of all outcomes."""

    low: float = -np.inf
    high: float = np.inf
    quantiles: bool = False

    def __str__(self) -> str:
        """The bounds that are finite, in words."""
        bounds = [("at least", self.low), ("at most", self.high)]
        return ", ".join(f"{words} {text_of(bound)}" for words, bound in bounds if np.isfinite(bound))


@dataclass(frozen=True, slots=True)
class Units:
    """Opened rows, of which none has been read.

    Numbers are y0, y1, …: float64, and null in all of a row where any of it is missing or infinite, or its cluster
    is missing. What was measured before treatment is p0, p1, …: null where missing or infinite. The arm is k0, the
    dimensions are k1, k2, …, the cluster is g.
    """

    frame: "nw.LazyFrame[Any]"
    faults: "nw.LazyFrame[Any]"  # what is asked where rows are not complete: finite0, infinite0, …, lost
    numbers: Mapping[str, str]  # what each is, and its column
    arm: str
    dims: Sequence[str]
    name: str
    pre: Sequence[str] = ()
    cluster: str | None = None
    cuts: Mapping[str, Cut] = field(default_factory=lambda: MappingProxyType({}))  # by dimension
    cap: Cap | None = None  # with stated bounds


@dataclass(frozen=True)
class Groups:
    """What the engine answers, per combination of arm and levels. The last axis of all is the group."""

    arms: npt.NDArray[np.object_]  # text, or None if missing
    levels: npt.NDArray[np.object_]  # the same, (dimension, group)
    rows: Counts  # all rows
    complete: Counts  # rows in which all numbers are finite; the statistics are of these
    n: Counts  # the units of analysis among these: rows, or clusters
    faults: Sequence[str]  # why rows are not complete, in all groups together, as sentences
    by: Mapping[str, Floats]
    counts: Mapping[str, Counts]
    sums: Mapping[str, Floats]
    moments: Mapping[str, Moments]
    products: Mapping[Pair, Floats]

    @cached_property
    def keys(self) -> list[Key]:
        """The cell of each group; levels that are missing form a level of their own."""
        levels = np.where(self.levels == None, MISSING_LEVEL, self.levels)  # noqa: E711, elementwise
        return list(zip(map(tuple, levels.T), self.arms, strict=True))

    def take(self, which: npt.NDArray[Any]) -> "Groups":
        """Some of the groups."""
        return Groups(
            self.arms[which],
            self.levels[:, which],
            self.rows[which],
            self.complete[which],
            self.n[which],
            self.faults,
            {name: values[which] for name, values in self.by.items()},
            {name: values[which] for name, values in self.counts.items()},
            {name: values[which] for name, values in self.sums.items()},
            {name: values.take(which) for name, values in self.moments.items()},
            {pair: values[which] for pair, values in self.products.items()},
        )


def units(
    source: Source,
    *,
    numbers: Mapping[str, str],
    arm: str,
    dims: Sequence[str],
    pre: Sequence[str] = (),
    cluster: str | None = None,
    bins: Mapping[str, Bins] = MappingProxyType({}),
    cap: Cap | None = None,
) -> Units:
    """Choose the columns that are needed, turn the numbers into float64, and cut dimensions into bins.

    Raises
    ------
    DataError
        If a column is not there, numbers are text or dates, or a dimension cannot be cut.
    """
    import narwhals.stable.v2 as nw

    wanted = [*numbers.values(), *pre, arm, *dims, *([] if cluster is None else [cluster])]
    at = {column: f"c{i}" for i, column in enumerate(wanted)}
    frame = pick(source, wanted)
    typed = [*numbers.items(), *(("covariate", column) for column in pre)]
    typed += [("dimension", dim) for dim, asked in bins.items() if not isinstance(asked, str)]
    for noun, column in typed:
        frame = _numeric(frame, at[column], noun=noun, column=column, name=source.name)
    cuts = {}
    for dim, asked in bins.items():
        cuts[dim] = cuts_of(frame, at[dim], dim=dim, asked=asked, name=source.name)

    whole = nw.col("c0").is_finite()
    for column in [*numbers.values()][1:]:
        whole = whole & nw.col(at[column]).is_finite()
    if cluster is not None:
        whole = whole & ~nw.col(at[cluster]).is_null()
    picked: list[nw.Expr] = []
    if cap is not None:
        cap = _stated(frame, cap, next(iter(numbers.values())), source.name)
        value = nw.col("c0")
        picked.append(nw.when(whole & ((value < cap.low) | (value > cap.high))).then(value).alias("capped"))
    faults: list[nw.Expr] = []
    for i, column in enumerate(numbers.values()):
        value = nw.col(at[column])
        kept = value if i or cap is None else _within(value, cap)
        picked.append(nw.when(whole).then(kept).alias(f"y{i}"))
        faults.append(nw.when(value.is_finite()).then(value).alias(f"finite{i}"))
        faults.append(nw.when((value == np.inf) | (value == -np.inf)).then(value).alias(f"infinite{i}"))
    for j, column in enumerate(pre):
        value = nw.col(at[column])
        picked.append(nw.when(value.is_finite()).then(value).alias(f"p{j}"))
    for i, column in enumerate([arm, *dims]):
        value = nw.col(at[column])
        picked.append((cuts[column].expression(value) if column in cuts else value).alias(f"k{i}"))
    if cluster is not None:
        picked.append(nw.col(at[cluster]).alias("g"))
        faults.append(nw.when(nw.col(at[cluster]).is_null()).then(1.0).alias("lost"))
    return Units(frame.select(*picked), frame.select(*faults), numbers, arm, dims, source.name, pre, cluster, cuts, cap)


def _within(value: "nw.Expr", cap: Cap) -> "nw.Expr":
    low, high = (bound if np.isfinite(bound) else None for bound in (cap.low, cap.high))
    return value.clip(low, high)


def _stated(frame: "nw.LazyFrame[Any]", cap: Cap, column: str, name: str) -> Cap:
    """The bounds as values of the outcome."""
    if not cap.quantiles:
        return cap
    bounded = [bound for bound in (cap.low, cap.high) if np.isfinite(bound)]
    found = quantiles(frame, "c0", bounded, what=f"the outcome {column!r}", name=name)
    at = dict(zip(bounded, found, strict=True))
    at = {share: float(f"{value:.6g}") for share, value in at.items()}  # the same in every engine, and as it is said
    return Cap(at.get(cap.low, -np.inf), at.get(cap.high, np.inf))


def _numeric(frame: "nw.LazyFrame[Any]", name_here: str, *, noun: str, column: str, name: str) -> "nw.LazyFrame[Any]":
    """Turn a column into float64."""
    import narwhals.stable.v2 as nw

    dtype = frame.collect_schema()[name_here]
    purpose = _PURPOSE.get(noun, f"a {noun}")
    message = (
        f"the {noun} {column!r} has dtype {dtype}, and {purpose} needs numbers; convert it (one text such as 'NA' "
        "makes a whole column text), or name another column"
    )
    # pandas holds decimals, and booleans with gaps, as objects: there the values decide.
    if not (dtype.is_numeric() or dtype in (nw.Boolean, nw.Object)):
        fetch(frame.head(1), name)  # columns without rows have no type to speak of: that is said first
        raise DataError(message)
    try:
        return frame.with_columns(nw.col(name_here).cast(nw.Float64))
    except (TypeError, ValueError) as error:
        raise DataError(message) from error


def grouped(units: Units, query: Query) -> Groups:
    """Ask for the statistics per arm and levels; only functions that every engine computes stably.

    Raises
    ------
    DataError
        If there are no rows, they cannot be grouped, or a dimension looks like an id.
    """

    keys = [f"k{i}" for i in range(1 + len(units.dims))]
    capped = [] if units.cap is None else ["capped"]
    counts = dict.fromkeys(["y0", *capped, *query.counts])
    asked = replace(query, counts=list(counts), moments=[*query.moments, *(f"p{j}" for j in range(len(units.pre)))])
    try:
        answer = ask_units(
            units.frame, keys, asked, name=units.name, limit=MAX_GROUPS, clusters=units.cluster is not None
        )
    except TypeError as error:  # pandas cannot group by lists, dicts and the like
        raise DataError(
            f"the columns {listed([units.arm, *units.dims])} cannot all be grouped by: {error}; every row must hold a "
            "single value in them, a text or a number"
        ) from error
    arms, *levels = (_texts(column) for column in answer.keys)
    for dim, cut in units.cuts.items():
        texts = levels[units.dims.index(dim)]
        texts[:] = [None if text is None else cut.label(text) for text in texts]
    return Groups(
        arms,
        np.stack(levels),
        answer.rows,
        answer.counts["y0"],
        answer.counts[UNITS],
        _faults(units) if (answer.counts["y0"] < answer.rows).any() else [],
        answer.by,
        {name: answer.counts[name] for name in (*capped, *query.counts)},
        answer.sums,
        answer.moments,
        answer.products,
    )


def _texts(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Each as text; engines repeat the same few values in many groups."""
    known: dict[tuple[type, Any], str | None] = {}
    texts = []
    for value in values:
        key = type(value), value  # True and 1 are equal, but not the same text
        if key not in known:
            known[key] = text_of(value)
        texts.append(known[key])
    return np.array(texts, dtype=np.object_)


def settle(units: Units, groups: Groups, *, outcome: str, control: str, drop_missing: bool) -> tuple[Groups, About]:
    """Keep what has an arm and finite numbers, and say what was dropped; or refuse, unless `drop_missing`.

    Raises
    ------
    DataError
        If something is missing or infinite, the control or a second arm is not there, or a dimension looks like an id.
    """
    _check_ids(groups, units.dims)
    total = counted(int(groups.rows.sum()), "row", "rows")
    groups, notes = _complete(units, groups, drop_missing=drop_missing)
    about = About(
        outcome=outcome,
        control=text_of(control) or "",
        dims=units.dims,
        source=f"{total} of {units.name}",
        notes=notes + missing_notes(groups.levels, groups.n, units.dims, "unit"),
    )
    check_arms(groups.arms, about.control, units.arm)
    return groups, about


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


def _complete(units: Units, groups: Groups, *, drop_missing: bool) -> tuple[Groups, list[str]]:
    armless = groups.arms == None  # noqa: E711, elementwise
    faults = [*groups.faults, *_lacking(int(groups.rows[armless].sum()), "arm", units.arm)]
    if not faults:
        return groups, []
    if not drop_missing:
        raise DataError(f"{'; '.join(faults)}; clean them or pass drop_missing=True (--drop-missing)")
    keep = ~armless & (groups.n > 0)  # the statistics of a group are of its complete rows anyway
    if not keep.any():
        columns = "both columns" if len(units.numbers) == 1 else "these columns"
        raise DataError(f"{'; '.join(faults)}: no row is left when they are dropped; check {columns}")
    kept = groups.take(keep)
    return kept, [f"{fault}; dropped" for fault in faults]


def _faults(units: Units) -> list[str]:
    """How many of each number are missing or infinite, as sentences; asked only where rows are not complete."""
    import narwhals.stable.v2 as nw

    frame = units.faults
    names = frame.collect_schema().names()
    one = nw.lit(1.0)  # rows are counted through a column, so that every engine takes them for an aggregate
    counted_rows = frame.with_columns(all_rows=one).select(nw.col("all_rows", *names).count())
    total, *found = (int(count) for count in fetch(counted_rows, units.name)[0])
    at = dict(zip(names, found, strict=True))
    sentences = []
    for i, (noun, column) in enumerate(units.numbers.items()):
        infinite = at[f"infinite{i}"]
        missing = total - at[f"finite{i}"] - infinite
        sentences += _unusable(total, missing, infinite, f"{noun}s in {column!r}")
    return sentences + _lacking(at.get("lost", 0), "cluster", str(units.cluster))


def _unusable(total: int, missing: int, infinite: int, what: str) -> list[str]:
    if not missing and not infinite:
        return []
    verb = "is" if missing + infinite == 1 else "are"
    parts = [f"{missing:,} of {total:,} {what} {verb} missing"] * (missing > 0)
    if infinite:
        parts.append(f"{infinite:,} infinite" if missing else f"{infinite:,} of {total:,} {what} {verb} infinite")
    return [" and ".join(parts)]


def _lacking(count: int, what: str, column: str) -> list[str]:
    return [f"{counted(count, 'row has', 'rows have')} no {what} in {column!r}"] if count else []
