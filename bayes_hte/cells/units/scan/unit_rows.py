"""Prepare rows of units for a query: numbers that are complete, keys to group by, dimensions cut into bins.

Several metrics share one frame. What is the same in two of them, such as an outcome that both average, is one column of
it; each metric knows its own columns by names that do not depend on the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial, reduce
from operator import and_
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bayes_hte.cells.reading.answers import AnswerScale, find_scale, number_answers
from bayes_hte.cells.reading.engines import Source, fetch_rows, pick_columns
from bayes_hte.cells.reading.labels import format_label
from bayes_hte.cells.reading.level_order import find_level_orders
from bayes_hte.cells.reading.text_numbers import MAX_SHOWN_WORDS, find_text_words
from bayes_hte.cells.units.binning import BinSpec, DimensionCut, choose_cut, compute_quantiles
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec.cell_table import ARM

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

MAX_SEARCHED_ROWS = 100_000
"""Rows among which a message looks for the texts that make a column no column of numbers."""

WORD_FLAG: Final = "has_word"
"""Column of the frame that is 1 where a row of a text file has a word in place of a number."""

type ColumnUse = tuple[str, AnswerScale | bool | None]
"""A column of the table, and how its answers are numbered; None where they are not."""

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
    """Opened rows, one per unit, of which none has been read, as one metric sees them.

    The numbers of a row are y0, y1, …: float64, all of them null where any is missing or infinite, or the cluster is
    missing. Numbers from before treatment are p0, p1, …: null where missing or infinite. The arm is k0, the dimensions
    are k1, k2, …, the cluster is g. Of text files, has_word is 1 where a row has a word for a number, else null.
    The frame has these columns under the names that `name_column` gives, as other metrics have some of them, too.
    """

    frame: "nw.LazyFrame[Any]"
    columns: UnitColumns
    source: Source
    cuts_by_dim: Mapping[str, DimensionCut]  # only dims that are cut
    count_faults: Callable[[], Mapping[str, int]]  # runs a query: rows, and finite and infinite values by column
    list_missing_words: Callable[[str], list[str]]  # reads a text file: words of a column that say that it is missing
    cap: Cap | None = None  # bounds as values, no longer quantiles
    level_orders: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))  # the data's own
    answer_scale: AnswerScale | None = None  # of an outcome of answers: stated, or that of its ordered categories
    key_columns: Sequence[str] = ()  # of the arm and the dimensions, as the frame calls them
    frame_names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # where they differ
    prefix: str = ""  # of columns that only this metric has
    has_binary_outcome: bool = False  # whether its column holds booleans, so that all outcomes are 0 or 1

    @property
    def table_name(self) -> str:
        """What messages call the rows."""
        return self.source.table_name

    def name_column(self, column: str) -> str:
        """Name a column of the metric as the frame does."""
        return self.frame_names.get(column, f"{self.prefix}{column}")

    def select_dims(self, dims: Sequence[str]) -> "UnitRows":
        """Keep some of the dimensions, in the order of `dims`."""
        key_of_dim = dict(zip(self.columns.dims, self.key_columns[1:], strict=True))
        bins_by_dim = {dim: bins for dim, bins in self.columns.bins_by_dim.items() if dim in dims}
        return replace(
            self,
            columns=replace(self.columns, dims=dims, bins_by_dim=bins_by_dim),
            cuts_by_dim={dim: cut for dim, cut in self.cuts_by_dim.items() if dim in dims},
            level_orders={name: order for name, order in self.level_orders.items() if name in {ARM, *dims}},
            key_columns=[self.key_columns[0], *(key_of_dim[dim] for dim in dims)],
        )


def prepare_unit_rows(
    source: Source, columns_by_metric: Sequence[UnitColumns], caps: Sequence[Cap | None]
) -> list[UnitRows]:
    """Pick the columns that are needed, cast numbers to float64, and cut dimensions into bins.

    Parameters
    ----------
    source
        The opened table.
    columns_by_metric
        The columns of each metric. All have the same arm, dimensions, bins and cluster.
    caps
        The bounds of the outcomes of each metric.

    Returns
    -------
    list of UnitRows
        One per metric, all of the same frame.

    Raises
    ------
    DataError
        If a column is not there, numbers are text or dates, or a dimension cannot be cut.
    """
    import narwhals.stable.v2 as nw

    shared = columns_by_metric[0]
    picked = _name_picked_columns(source, columns_by_metric)
    frame = pick_columns(source, [column for column, _ in picked])
    scales = [_find_answer_scale(source, columns, cap) for columns, cap in zip(columns_by_metric, caps, strict=True)]
    dtypes = frame.collect_schema()
    frame = _cast_numbers(frame, source, columns_by_metric, scales, picked)
    cuts = {
        dim: choose_cut(frame, picked[dim, None], dimension=dim, bin_spec=dim_bins, table_name=source.table_name)
        for dim, dim_bins in shared.bins_by_dim.items()
    }
    numbers = [_list_numbers(columns, picked) for columns in columns_by_metric]
    # Metrics may have the same cap: its quantile is asked for once.
    resolve_cap = cache(partial(_resolve_cap, frame, source.table_name))
    resolved_caps = [
        None if cap is None else resolve_cap(cap, *metric_numbers[0])
        for metric_numbers, cap in zip(numbers, caps, strict=True)
    ]
    names_by_metric, expressions = _build_number_expressions(columns_by_metric, numbers, resolved_caps, picked, dtypes)
    expressions |= _build_key_expressions(shared, cuts, picked, source)
    fault_frame = frame.select(*_build_fault_expressions(numbers, shared.cluster, picked))
    # Faults are counted once for all metrics, and only if there are any.
    count_faults = cache(partial(_count_faults, fault_frame, source.table_name))
    list_missing_words = cache(partial(_list_missing_words, source))
    rows_frame = frame.select(*(expression.alias(name) for name, expression in expressions.items()))
    # Levels that were cut have the order of the cuts.
    level_orders = find_level_orders(source.frame, [name for name in (shared.arm, *shared.dims) if name not in cuts])
    if shared.arm in level_orders:
        level_orders[ARM] = level_orders.pop(shared.arm)
    return [
        UnitRows(
            rows_frame,
            columns,
            source,
            cuts,
            count_faults,
            list_missing_words,
            cap,
            level_orders,
            scale,
            [f"k{i}" for i in range(1 + len(shared.dims))],
            names,
            f"q{i}_" if i else "",
            has_binary_outcome=cap is None and dtypes[numbers[i][0][0]] == nw.Boolean,
        )
        for i, (columns, cap, scale, names) in enumerate(
            zip(columns_by_metric, resolved_caps, scales, names_by_metric, strict=True)
        )
    ]


def _name_use(columns: UnitColumns, role: str, column: str) -> ColumnUse:
    """Name what a metric takes a column for: answers are numbered by their scale, all else is what it is."""
    return column, (columns.answer_scale or True) if role == "outcome" and columns.takes_answers else None


def _list_numbers(columns: UnitColumns, picked: Mapping[ColumnUse, str]) -> list[tuple[str, str]]:
    """List the numbers of a metric, by their picked names and their own."""
    return [(picked[_name_use(columns, role, column)], column) for role, column in columns.numbers.items()]


def _name_picked_columns(source: Source, columns_by_metric: Sequence[UnitColumns]) -> dict[ColumnUse, str]:
    """Name the columns that are needed c0, c1, …, each use of one once."""
    shared = columns_by_metric[0]
    number_uses = [
        _name_use(columns, role, column) for columns in columns_by_metric for role, column in columns.numbers.items()
    ]
    label_columns = [
        *(column for columns in columns_by_metric for column in columns.pre),
        shared.arm,
        *shared.dims,
        *([] if shared.cluster is None else [shared.cluster]),
        *([] if source.text_numbers is None else [source.text_numbers.flag_column]),
    ]
    uses: list[ColumnUse] = [*number_uses, *((column, None) for column in label_columns)]
    return {use: f"c{i}" for i, use in enumerate(dict.fromkeys(uses))}


def _cast_numbers(
    frame: "nw.LazyFrame[Any]",
    source: Source,
    columns_by_metric: Sequence[UnitColumns],
    scales: Sequence[AnswerScale | None],
    picked: Mapping[ColumnUse, str],
) -> "nw.LazyFrame[Any]":
    """Cast every column of numbers to float64, and number the answers of scales."""
    done: set[ColumnUse] = set()
    for columns, scale in zip(columns_by_metric, scales, strict=True):
        for role, column in columns.roles_of_numbers:
            use = _name_use(columns, role, column)
            if use in done:
                continue
            done.add(use)
            if role == "outcome" and scale is not None:
                frame = number_answers(frame, picked[use], scale, column=column)
                continue
            purpose = "a histogram" if role == "outcome" and columns.takes_answers else _PURPOSE_BY_ROLE.get(role)
            frame = _cast_to_float(
                frame, picked[use], role=role, column_name=column, purpose=purpose, table_name=source.table_name
            )
    return frame


def _find_answer_scale(source: Source, columns: UnitColumns, cap: Cap | None) -> AnswerScale | None:
    """Find the scale of an outcome of answers; None of numbers, which are their own scale."""
    if not columns.takes_answers:
        return None
    scale = find_scale(source.frame, columns.numbers["outcome"], columns.answer_scale)
    if scale is not None and cap is not None:
        raise ArgumentError("a cap is for amounts, and these are answers on a scale; leave cap and cap_quantile out")
    return scale


def _build_number_expressions(
    columns_by_metric: Sequence[UnitColumns],
    numbers_by_metric: Sequence[Sequence[tuple[str, str]]],
    caps: Sequence[Cap | None],
    picked: Mapping[ColumnUse, str],
    dtypes: Mapping[str, Any],
) -> "tuple[list[dict[str, str]], dict[str, nw.Expr]]":
    """Build the numbers of `UnitRows`, and which outcomes lie beyond a cap; return each metric's names of them, too."""
    import narwhals.stable.v2 as nw

    shared = _SharedExpressions()
    has_cluster = columns_by_metric[0].cluster is not None
    names_by_metric = []
    for columns, numbers, cap in zip(columns_by_metric, numbers_by_metric, caps, strict=True):
        # A row without one of its numbers takes part in no statistic, so that all statistics are of the same rows.
        finite_names = tuple(sorted({name for name, _ in numbers}))
        is_complete = reduce(and_, [_tell_finite(name, dtypes[name]) for name in finite_names])
        if has_cluster:
            is_complete = is_complete & ~nw.col(picked[str(columns.cluster), None]).is_null()
        names = {f"finite{i}": f"finite_{name}" for i, (name, _) in enumerate(numbers)}
        names |= {f"infinite{i}": f"infinite_{name}" for i, (name, _) in enumerate(numbers)}
        if cap is not None:
            outcome = nw.col(numbers[0][0])
            is_beyond = (outcome < cap.low) | (outcome > cap.high)
            names["capped"] = shared.name_expression(
                "capped", (numbers[0][0], finite_names, cap), nw.when(is_complete & is_beyond).then(outcome)
            )
        for i, (name, _) in enumerate(numbers):
            number_cap = None if i else cap
            value = nw.col(name) if number_cap is None else _clip_to_cap(nw.col(name), number_cap)
            names[f"y{i}"] = shared.name_expression(
                "y", (name, finite_names, number_cap), nw.when(is_complete).then(value)
            )
        for j, column in enumerate(columns.pre):
            value = nw.col(picked[column, None])
            names[f"p{j}"] = shared.name_expression("p", column, nw.when(value.is_finite()).then(value))
        names_by_metric.append(names)
    return names_by_metric, shared.expressions


def _tell_finite(picked_name: str, dtype: Any) -> "nw.Expr":
    """Tell which numbers are there and finite; whole numbers and booleans cannot be infinite, and need no such test."""
    import narwhals.stable.v2 as nw

    value = nw.col(picked_name)
    return ~value.is_null() if dtype.is_integer() or dtype == nw.Boolean else value.is_finite()


class _SharedExpressions:
    """Expressions by their names in a frame; what is defined alike in two metrics is one column."""

    def __init__(self) -> None:
        self.expressions: dict[str, nw.Expr] = {}
        self._names: dict[tuple[str, object], str] = {}

    def name_expression(self, letter: str, definition: object, expression: "nw.Expr") -> str:
        """Add an expression, unless there is one of this definition, and return its name, such as y0."""
        position = sum(known_letter == letter for known_letter, _ in self._names)
        name = self._names.setdefault((letter, definition), f"{letter}{position}")
        self.expressions.setdefault(name, expression)
        return name


def _build_key_expressions(
    columns: UnitColumns, cuts: Mapping[str, DimensionCut], picked: Mapping[ColumnUse, str], source: Source
) -> "dict[str, nw.Expr]":
    """Build the arm and the dimensions, k0, k1, …, the cluster g, and the flag of rows with a word, by their names."""
    import narwhals.stable.v2 as nw

    expressions = {}
    for i, column in enumerate([columns.arm, *columns.dims]):
        value = nw.col(picked[column, None])
        expressions[f"k{i}"] = cuts[column].build_expression(value) if column in cuts else value
    if columns.cluster is not None:
        expressions["g"] = nw.col(picked[columns.cluster, None])
    if source.text_numbers is not None:
        expressions[WORD_FLAG] = nw.col(picked[source.text_numbers.flag_column, None])
    return expressions


def _build_fault_expressions(
    numbers_by_metric: Sequence[Sequence[tuple[str, str]]], cluster: str | None, picked: Mapping[ColumnUse, str]
) -> "list[nw.Expr]":
    """Build the columns that count what is missing or infinite: values where there is a fault, else null."""
    import narwhals.stable.v2 as nw

    faults: list[nw.Expr] = []
    for name in dict.fromkeys(name for numbers in numbers_by_metric for name, _ in numbers):
        value = nw.col(name)
        faults.append(nw.when(value.is_finite()).then(value).alias(f"finite_{name}"))
        faults.append(nw.when((value == np.inf) | (value == -np.inf)).then(value).alias(f"infinite_{name}"))
    if cluster is not None:
        faults.append(nw.when(nw.col(picked[cluster, None]).is_null()).then(1.0).alias("lost"))
    return faults


def _count_faults(fault_frame: "nw.LazyFrame[Any]", table_name: str) -> dict[str, int]:
    """Count all rows, and the values of each column of `_build_fault_expressions`; runs a query."""
    import narwhals.stable.v2 as nw

    fault_names = fault_frame.collect_schema().names()
    unit_literal = nw.lit(1.0)  # rows are counted through a column, so that every engine takes them for an aggregate
    count_query = fault_frame.with_columns(all_rows=unit_literal).select(nw.col("all_rows", *fault_names).count())
    counts = fetch_rows(count_query, table_name)[0]
    return {name: int(count) for name, count in zip(["all_rows", *fault_names], counts, strict=True)}


def _list_missing_words(source: Source, column: str) -> list[str]:
    """List the words that say in a text file that a number is missing; none of tables of other engines."""
    return [] if source.text_numbers is None else source.text_numbers.list_missing_words(column)


def _clip_to_cap(value: "nw.Expr", cap: Cap) -> "nw.Expr":
    low, high = (bound if np.isfinite(bound) else None for bound in (cap.low, cap.high))
    return value.clip(low, high)


def _resolve_cap(frame: "nw.LazyFrame[Any]", table_name: str, cap: Cap, picked_name: str, column_name: str) -> Cap:
    """Turn bounds that are quantiles into values of the outcome."""
    if not cap.as_quantiles:
        return cap
    bound_shares = [share for share in (cap.low, cap.high) if np.isfinite(share)]
    bound_values = compute_quantiles(
        frame, picked_name, bound_shares, subject=f"the outcome {column_name!r}", table_name=table_name
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
