"""Group rows of units inside the engine that holds them, in one query, and find what is missing among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte.cells.build import TableAttributes
from bayes_hte.cells.reading.answers import AnswerScale, find_scale, number_answers
from bayes_hte.cells.reading.engines import Source, check_arms, describe_missing_levels, fetch_rows, pick_columns
from bayes_hte.cells.reading.labels import CellKey, describe_equal_numbers, format_label, format_labels, match_label
from bayes_hte.cells.reading.level_order import find_level_orders
from bayes_hte.cells.reading.text_numbers import MAX_SHOWN_WORDS, find_text_words
from bayes_hte.cells.units.binning import BinSpec, DimensionCut, choose_cut, compute_quantiles
from bayes_hte.cells.units.clusters import UNIT_COUNT, aggregate_units
from bayes_hte.cells.units.statistics import ColumnPair, CountColumn, FloatColumn, Moments, StatisticsQuery
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec.cell_table import ARM, MISSING_LEVEL

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

MAX_SEARCHED_ROWS = 100_000
"""Rows among which a message looks for the texts that make a column no column of numbers."""
MAX_GROUPS = 1_000_000
"""Most groups of an answer: more come of an id among the dimensions, and would no longer be small."""

_PURPOSE_BY_ROLE = MappingProxyType(
    {
        "outcome": "a mean",
        "exposure": "a rate",
        "denominator": "a ratio",
        "weight": "a weighted mean",
        "time": "a time",
        "event": "an event",
    }
)
"""What each role of a number serves, as the subject of "needs numbers" in messages."""


@dataclass(frozen=True, slots=True)
class Cap:
    """The bounds that outcomes beyond are moved to, as values or as quantiles of all outcomes."""

    low: float = -np.inf
    high: float = np.inf
    as_quantiles: bool = False

    def __str__(self) -> str:
        """Write the finite bounds in words."""
        bounds = [("at least", self.low), ("at most", self.high)]
        return ", ".join(f"{phrase} {format_label(bound)}" for phrase, bound in bounds if np.isfinite(bound))


@dataclass(frozen=True, slots=True)
class UnitColumns:
    """The columns of a table with one row per unit, by what they are used for."""

    numbers: Mapping[str, str]  # column by role, the outcome first
    arm: str
    dims: Sequence[str]
    pre: Sequence[str] = ()  # numbers from before treatment
    cluster: str | None = None
    bins_by_dim: Mapping[str, BinSpec] = field(default_factory=lambda: MappingProxyType({}))  # only dims that are cut
    takes_answers: bool = False  # whether the outcome may be words in an order
    answer_scale: AnswerScale | None = None  # their order, where it is stated

    @property
    def roles_of_numbers(self) -> list[tuple[str, str]]:
        """Role and column of all numbers, dimensions that are cut by their numbers included."""
        cut_dims = [dim for dim, dim_bins in self.bins_by_dim.items() if not isinstance(dim_bins, str)]
        pre_roles = [("covariate", column) for column in self.pre]
        return [*self.numbers.items(), *pre_roles, *(("dimension", dim) for dim in cut_dims)]


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Opened rows, one per unit, of which none has been read.

    The numbers of a row are y0, y1, …: float64, all of them null where any is missing or infinite, or the cluster is
    missing. Numbers from before treatment are p0, p1, …: null where missing or infinite. The arm is k0, the dimensions
    are k1, k2, …, the cluster is g. Of text files, w is 1 where a row has a word in place of a number, else null.
    """

    frame: "nw.LazyFrame[Any]"
    fault_frame: "nw.LazyFrame[Any]"  # queried where rows are not complete: finite0, infinite0, …, lost
    columns: UnitColumns
    source: Source
    cuts_by_dim: Mapping[str, DimensionCut]  # only dims that are cut
    cap: Cap | None = None  # bounds as values, no longer quantiles
    level_orders: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))  # the data's own
    answer_scale: AnswerScale | None = None  # of an outcome of answers: stated, or that of its ordered categories

    @property
    def table_name(self) -> str:
        """What messages call the rows."""
        return self.source.table_name


@dataclass(frozen=True)
class GroupedUnits:
    """Statistics of units by arm and levels, as an engine answers them; the last axis of every array is the group."""

    arm_labels: npt.NDArray[np.object_]  # text, or None if missing
    level_labels: npt.NDArray[np.object_]  # text, or None if missing; axes (dimension, group)
    row_counts: CountColumn  # all rows
    complete_counts: CountColumn  # rows in which all numbers are finite: the statistics are of these rows
    unit_counts: CountColumn  # units of analysis among complete rows: rows, or clusters
    fault_sentences: Sequence[str]  # why rows are not complete, over all groups
    numeric_keys: Mapping[str, FloatColumn]
    value_counts: Mapping[str, CountColumn]
    column_sums: Mapping[str, FloatColumn]
    column_moments: Mapping[str, Moments]
    pair_products: Mapping[ColumnPair, FloatColumn]

    @cached_property
    def cell_keys(self) -> list[CellKey]:
        """The cell of each group; levels that are missing form a level of their own."""
        filled_levels = np.where(self.level_labels == None, MISSING_LEVEL, self.level_labels)  # noqa: E711, elementwise
        return list(zip(map(tuple, filled_levels.T), self.arm_labels, strict=True))

    def take(self, kept_groups: npt.NDArray[Any]) -> "GroupedUnits":
        """Select groups by mask or index."""
        return GroupedUnits(
            self.arm_labels[kept_groups],
            self.level_labels[:, kept_groups],
            self.row_counts[kept_groups],
            self.complete_counts[kept_groups],
            self.unit_counts[kept_groups],
            self.fault_sentences,
            {name: values[kept_groups] for name, values in self.numeric_keys.items()},
            {name: values[kept_groups] for name, values in self.value_counts.items()},
            {name: values[kept_groups] for name, values in self.column_sums.items()},
            {name: values.take_groups(kept_groups) for name, values in self.column_moments.items()},
            {pair: values[kept_groups] for pair, values in self.pair_products.items()},
        )


def prepare_unit_rows(source: Source, columns: UnitColumns, cap: Cap | None = None) -> UnitRows:
    """Pick the columns that are needed, cast numbers to float64, and cut dimensions into bins.

    Raises
    ------
    DataError
        If a column is not there, numbers are text or dates, or a dimension cannot be cut.
    """
    import narwhals.stable.v2 as nw

    cluster_columns = [] if columns.cluster is None else [columns.cluster]
    flag_columns = [] if source.text_numbers is None else [source.text_numbers.flag_column]
    needed_columns = [
        *columns.numbers.values(), *columns.pre, columns.arm, *columns.dims, *cluster_columns, *flag_columns
    ]  # fmt: skip
    picked = {column: f"c{i}" for i, column in enumerate(needed_columns)}
    frame = pick_columns(source, needed_columns)
    scale = _find_answer_scale(source, columns, cap)
    for role, column in columns.roles_of_numbers:
        if role == "outcome" and scale is not None:
            frame = number_answers(frame, picked[column], scale, column=column)
            continue
        purpose = "a histogram" if role == "outcome" and columns.takes_answers else _PURPOSE_BY_ROLE.get(role)
        frame = _cast_to_float(
            frame, picked[column], role=role, column_name=column, purpose=purpose, table_name=source.table_name
        )
    cuts = {
        dim: choose_cut(frame, picked[dim], dimension=dim, bin_spec=dim_bins, table_name=source.table_name)
        for dim, dim_bins in columns.bins_by_dim.items()
    }
    if cap is not None:
        cap = _resolve_cap(frame, cap, next(iter(columns.numbers.values())), source.table_name)
    expressions = _build_number_expressions(columns, picked, cap)
    for i, column in enumerate([columns.arm, *columns.dims]):
        value = nw.col(picked[column])
        expressions.append((cuts[column].build_expression(value) if column in cuts else value).alias(f"k{i}"))
    expressions += [nw.col(picked[column]).alias("g") for column in cluster_columns]
    expressions += [nw.col(picked[column]).alias("w") for column in flag_columns]
    fault_frame = frame.select(*_build_fault_expressions(columns, picked))
    # Levels that were cut have the order of the cuts.
    label_columns = [column for column in (columns.arm, *columns.dims) if column not in cuts]
    level_orders = find_level_orders(source.frame, label_columns)
    if columns.arm in level_orders:
        level_orders[ARM] = level_orders.pop(columns.arm)
    return UnitRows(frame.select(*expressions), fault_frame, columns, source, cuts, cap, level_orders, scale)


def _find_answer_scale(source: Source, columns: UnitColumns, cap: Cap | None) -> AnswerScale | None:
    """Find the scale of an outcome of answers; None of numbers, which are their own scale."""
    if not columns.takes_answers:
        return None
    scale = find_scale(source.frame, columns.numbers["outcome"], columns.answer_scale)
    if scale is not None and cap is not None:
        raise ArgumentError("a cap is for amounts, and these are answers on a scale; leave cap and cap_quantile out")
    return scale


def _build_number_expressions(columns: UnitColumns, picked: Mapping[str, str], cap: Cap | None) -> "list[nw.Expr]":
    """Build y0, y1, … and p0, p1, … of `UnitRows`, and which outcomes lie beyond the cap."""
    import narwhals.stable.v2 as nw

    # A row without one of its numbers takes part in no statistic, so that all statistics are of the same rows.
    is_complete = nw.col("c0").is_finite()
    for column in [*columns.numbers.values()][1:]:
        is_complete = is_complete & nw.col(picked[column]).is_finite()
    if columns.cluster is not None:
        is_complete = is_complete & ~nw.col(picked[columns.cluster]).is_null()
    expressions: list[nw.Expr] = []
    if cap is not None:
        outcome = nw.col("c0")
        is_beyond = (outcome < cap.low) | (outcome > cap.high)
        expressions.append(nw.when(is_complete & is_beyond).then(outcome).alias("capped"))
    for i, column in enumerate(columns.numbers.values()):
        value = nw.col(picked[column])
        capped_value = value if i or cap is None else _clip_to_cap(value, cap)
        expressions.append(nw.when(is_complete).then(capped_value).alias(f"y{i}"))
    for j, column in enumerate(columns.pre):
        value = nw.col(picked[column])
        expressions.append(nw.when(value.is_finite()).then(value).alias(f"p{j}"))
    return expressions


def _build_fault_expressions(columns: UnitColumns, picked: Mapping[str, str]) -> "list[nw.Expr]":
    """Build the columns that count what is missing or infinite: values where there is a fault, else null."""
    import narwhals.stable.v2 as nw

    faults: list[nw.Expr] = []
    for i, column in enumerate(columns.numbers.values()):
        value = nw.col(picked[column])
        faults.append(nw.when(value.is_finite()).then(value).alias(f"finite{i}"))
        faults.append(nw.when((value == np.inf) | (value == -np.inf)).then(value).alias(f"infinite{i}"))
    if columns.cluster is not None:
        faults.append(nw.when(nw.col(picked[columns.cluster]).is_null()).then(1.0).alias("lost"))
    return faults


def _clip_to_cap(value: "nw.Expr", cap: Cap) -> "nw.Expr":
    low, high = (bound if np.isfinite(bound) else None for bound in (cap.low, cap.high))
    return value.clip(low, high)


def _resolve_cap(frame: "nw.LazyFrame[Any]", cap: Cap, column_name: str, table_name: str) -> Cap:
    """Turn bounds that are quantiles into values of the outcome."""
    if not cap.as_quantiles:
        return cap
    bound_shares = [share for share in (cap.low, cap.high) if np.isfinite(share)]
    bound_values = compute_quantiles(
        frame, "c0", bound_shares, subject=f"the outcome {column_name!r}", table_name=table_name
    )
    bound_of_share = dict(zip(bound_shares, bound_values, strict=True))
    bound_of_share = {
        share: float(f"{value:.6g}") for share, value in bound_of_share.items()
    }  # the same in every engine, and as it is said
    return Cap(bound_of_share.get(cap.low, -np.inf), bound_of_share.get(cap.high, np.inf))


def _cast_to_float(
    frame: "nw.LazyFrame[Any]", picked_name: str, *, role: str, column_name: str, purpose: str | None, table_name: str
) -> "nw.LazyFrame[Any]":
    """Cast a column to float64; raise DataError if it holds no numbers."""
    import narwhals.stable.v2 as nw

    dtype = frame.collect_schema()[picked_name]
    # pandas holds decimals, and booleans with gaps, as objects: there the values decide.
    if dtype.is_numeric() or dtype in (nw.Boolean, nw.Object):
        try:
            return frame.with_columns(nw.col(picked_name).cast(nw.Float64))
        except (TypeError, ValueError):
            pass
    else:
        fetch_rows(frame.head(1), table_name)  # columns without rows have no type to speak of: that is said first
    raise DataError(
        f"the {role} {column_name!r} has dtype {dtype}, and {purpose or f'a {role}'} needs numbers; "
        f"{_describe_text_values(frame, picked_name)}"
    )


def _describe_text_values(frame: "nw.LazyFrame[Any]", picked_name: str) -> str:
    """Describe the first values of a column that are no numbers, and what to do about them."""
    # The first rows only: a database is not to send a column of millions for the sake of a message.
    first_values = [value for (value,) in fetch_rows(frame.select(picked_name).head(MAX_SEARCHED_ROWS), "the column")]
    words = find_text_words(first_values)
    if words is None:
        return "convert it, or name another column"
    if not words:
        return "its texts are all numbers: convert it, as pandas.to_numeric does"
    shown = ", ".join(map(str, words[:MAX_SHOWN_WORDS]))
    return f"no numbers are {shown}: correct them and convert the column, or name another one"


def group_unit_rows(unit_rows: UnitRows, query: StatisticsQuery) -> GroupedUnits:
    """Query the statistics of units by arm and levels, through functions that every engine computes stably.

    Raises
    ------
    DataError
        If there are no rows, they cannot be grouped, or a dimension looks like an id.
    """
    key_columns = [f"k{i}" for i in range(1 + len(unit_rows.columns.dims))]
    capped_columns = [] if unit_rows.cap is None else ["capped"]
    count_columns = dict.fromkeys(["y0", *capped_columns, *query.count_columns])
    flag_columns = [] if unit_rows.source.text_numbers is None else ["w"]
    count_columns |= dict.fromkeys(flag_columns)
    full_query = replace(
        query,
        count_columns=list(count_columns),
        moment_columns=[*query.moment_columns, *(f"p{j}" for j in range(len(unit_rows.columns.pre)))],
    )
    try:
        answer = aggregate_units(
            unit_rows.frame,
            key_columns,
            full_query,
            table_name=unit_rows.table_name,
            max_groups=MAX_GROUPS,
            by_cluster=unit_rows.columns.cluster is not None,
        )
    except TypeError as error:  # pandas cannot group by lists, dicts and the like
        raise DataError(
            f"the columns {quote_names([unit_rows.columns.arm, *unit_rows.columns.dims])} cannot all be grouped by: "
            f"{error}; every row must hold a single value in them, a text or a number"
        ) from error
    # Words are looked up only now that there are some: it takes another pass over the file.
    if unit_rows.source.text_numbers is not None and answer.value_counts["w"].any():
        unit_rows.source.text_numbers.refuse_words(
            [column for _, column in unit_rows.columns.roles_of_numbers], unit_rows.table_name
        )
    arm_labels, *level_labels = (_format_labels(raw_labels) for raw_labels in answer.key_columns)
    for dim, cut in unit_rows.cuts_by_dim.items():
        dim_labels = level_labels[unit_rows.columns.dims.index(dim)]
        dim_labels[:] = [None if bin_text is None else cut.label_bin(bin_text) for bin_text in dim_labels]
    return GroupedUnits(
        arm_labels,
        np.stack(level_labels),
        answer.row_counts,
        answer.value_counts["y0"],
        answer.value_counts[UNIT_COUNT],
        _describe_faults(unit_rows) if (answer.value_counts["y0"] < answer.row_counts).any() else [],
        answer.numeric_keys,
        {name: answer.value_counts[name] for name in (*capped_columns, *query.count_columns)},
        answer.column_sums,
        answer.column_moments,
        answer.pair_products,
    )


def _format_labels(raw_labels: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Write labels as text, each distinct value once: engines repeat the same few values in many groups."""
    distinct_values = dict.fromkeys(
        (type(value), value) for value in raw_labels
    )  # True and 1 are equal, but two labels
    labels = format_labels([value for _, value in distinct_values])
    label_of_value = dict(zip(distinct_values, labels, strict=True))
    return np.array([label_of_value[type(value), value] for value in raw_labels], dtype=np.object_)


def drop_incomplete_rows(
    unit_rows: UnitRows, groups: GroupedUnits, *, outcome_name: str, control: str, drop_missing: bool
) -> tuple[GroupedUnits, TableAttributes]:
    """Keep groups of rows that have an arm and finite numbers, and note the rows dropped, or refuse to drop any.

    Raises
    ------
    DataError
        If something is missing or infinite without `drop_missing`, the control or a second arm is not there, or a
        dimension looks like an id.
    """
    _check_ids(groups, unit_rows.columns.dims)
    row_phrase = write_count(int(groups.row_counts.sum()), "row", "rows")
    groups, drop_notes = _keep_complete_groups(unit_rows, groups, drop_missing=drop_missing)
    attributes = TableAttributes(
        outcome_name=outcome_name,
        control_arm=match_label(control, (arm for arm in groups.arm_labels if arm is not None)),
        dims=unit_rows.columns.dims,
        source_text=f"{row_phrase} of {unit_rows.table_name}",
        notes=[
            *unit_rows.source.notes,
            *drop_notes,
            *describe_missing_levels(groups.level_labels, groups.unit_counts, unit_rows.columns.dims, "unit"),
            *_note_equal_numbers(unit_rows, groups),
        ],
        level_orders=unit_rows.level_orders,
    )
    check_arms(groups.arm_labels, attributes.control_arm, unit_rows.columns.arm)
    return groups, attributes


def _note_equal_numbers(unit_rows: UnitRows, groups: GroupedUnits) -> list[str]:
    dims = unit_rows.columns.dims
    levels_by_dim = dict(zip(dims, groups.level_labels, strict=True))
    # Bins are named by their edges, which differ.
    return [
        note
        for dim in dims
        if dim not in unit_rows.cuts_by_dim
        for note in describe_equal_numbers(levels_by_dim[dim], dim)
    ]


def _check_ids(groups: GroupedUnits, dims: Sequence[str]) -> None:
    n_rows = int(groups.row_counts.sum())
    # An id has a level of its own for most units, which leaves nothing to compare within a segment.
    level_counts = {dim: len(set(dim_levels)) for dim, dim_levels in zip(dims, groups.level_labels, strict=True)}
    widest_dim = max(level_counts, key=lambda dim: level_counts[dim])
    level_phrase = f"the dimension {widest_dim!r} has {level_counts[widest_dim]:,} levels"
    way_out = "did you mean an id? Name a column whose levels many units share, or group its levels first"
    if groups.arm_labels.size > MAX_GROUPS:
        raise DataError(f"there are more than {MAX_GROUPS:,} cells, and {level_phrase} or more; {way_out}")
    if 1 < n_rows <= level_counts[widest_dim] or (n_rows >= 100 and level_counts[widest_dim] > n_rows / 2):
        raise DataError(f"{level_phrase} for {n_rows:,} units; {way_out}")


def _keep_complete_groups(
    unit_rows: UnitRows, groups: GroupedUnits, *, drop_missing: bool
) -> tuple[GroupedUnits, list[str]]:
    lacks_arm = groups.arm_labels == None  # noqa: E711, elementwise
    faults = [
        *groups.fault_sentences,
        *_describe_rows_without(int(groups.row_counts[lacks_arm].sum()), "arm", unit_rows.columns.arm),
    ]
    if not faults:
        return groups, []
    if not drop_missing:
        raise DataError(f"{'; '.join(faults)}; clean them or pass drop_missing=True (--drop-missing)")
    is_kept = ~lacks_arm & (groups.unit_counts > 0)  # the statistics of a group are of its complete rows anyway
    if not is_kept.any():
        column_phrase = "both columns" if len(unit_rows.columns.numbers) == 1 else "these columns"
        raise DataError(f"{'; '.join(faults)}: no row is left when they are dropped; check {column_phrase}")
    kept_groups = groups.take(is_kept)
    return kept_groups, [f"{fault}; dropped" for fault in faults]


def _describe_faults(unit_rows: UnitRows) -> list[str]:
    """Describe missing and infinite numbers in sentences; runs a query, which complete rows do not need."""
    import narwhals.stable.v2 as nw

    fault_frame = unit_rows.fault_frame
    fault_names = fault_frame.collect_schema().names()
    unit_literal = nw.lit(1.0)  # rows are counted through a column, so that every engine takes them for an aggregate
    count_query = fault_frame.with_columns(all_rows=unit_literal).select(nw.col("all_rows", *fault_names).count())
    total_rows, *fault_counts = (int(count) for count in fetch_rows(count_query, unit_rows.table_name)[0])
    count_by_fault = dict(zip(fault_names, fault_counts, strict=True))
    sentences = []
    for i, (role, column_name) in enumerate(unit_rows.columns.numbers.items()):
        n_infinite = count_by_fault[f"infinite{i}"]
        n_missing = total_rows - count_by_fault[f"finite{i}"] - n_infinite
        subject = f"{role}s in {column_name!r}"
        text_numbers = unit_rows.source.text_numbers
        words = text_numbers.list_missing_words(column_name) if text_numbers is not None and n_missing else []
        spelling = f" (written {', '.join(map(repr, words))})" if words else ""
        sentences += _describe_unusable_numbers(total_rows, n_missing, n_infinite, subject, spelling)
    return sentences + _describe_rows_without(count_by_fault.get("lost", 0), "cluster", str(unit_rows.columns.cluster))


def _describe_unusable_numbers(
    n_rows: int, n_missing: int, n_infinite: int, subject: str, spelling: str = ""
) -> list[str]:
    if not n_missing and not n_infinite:
        return []
    verb = "is" if n_missing + n_infinite == 1 else "are"
    phrases = [f"{n_missing:,} of {n_rows:,} {subject} {verb} missing{spelling}"] * (n_missing > 0)
    if n_infinite:
        phrases.append(
            f"{n_infinite:,} infinite" if n_missing else f"{n_infinite:,} of {n_rows:,} {subject} {verb} infinite"
        )
    return [" and ".join(phrases)]


def _describe_rows_without(n_rows: int, label_role: str, column_name: str) -> list[str]:
    return [f"{write_count(n_rows, 'row has', 'rows have')} no {label_role} in {column_name!r}"] if n_rows else []
