"""Work out from the names of its columns what kind of summary a table is, and read it if there is only one way to."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayes_hte._support.phrases import quote_names
from bayes_hte.cells.reading.engines import check_dimensions, fetch_rows, name_table, open_table, pick_columns
from bayes_hte.cells.reading.labels import format_labels
from bayes_hte.cells.reading.level_order import sort_naturally
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.summaries.column_vocabulary import (
    ARM_WORDS,
    CONTROL_LABELS,
    PERHAPS_ARM_WORDS,
    POOLED_LABELS,
    ROLE_BY_WORDS,
    is_derived,
    is_error_of,
    split_role_and_arm,
    split_words,
)
from bayes_hte.cells.summaries.from_levels import from_levels
from bayes_hte.cells.summaries.from_summary import from_estimates, from_summary
from bayes_hte.cells.summaries.from_wide import from_wide
from bayes_hte.cells.summaries.statistics_given import SUMMARY_FORMS
from bayes_hte.errors import DataError
from bayes_hte.spec import cell_table

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table

MAX_SHOWN_READINGS = 5
"""A message shows so many ways to read a table: more are not read."""
MAX_TRIED_COMBINATIONS = 100
"""Combinations of columns that are tried: whoever has more has an ambiguous table in any case."""

# Roles of the columns of `from_levels` and of `from_estimates`, as `SUMMARY_FORMS` has those of `from_summary`.
LEVEL_FORMS = (frozenset({"value", "count"}),)
ESTIMATE_FORMS = (frozenset({"estimate", "se"}), frozenset({"n", "estimate", "se"}))
READING_FUNCTIONS: Mapping[str, Callable[..., xr.Dataset]] = MappingProxyType(
    {"from_summary": from_summary, "from_levels": from_levels, "from_estimates": from_estimates, "from_wide": from_wide}
)


def from_table(
    table: "Table",
    *,
    control: str | None = None,
    segments: Sequence[str] | None = None,
    arm: str | None = None,
    outcome: str | None = None,
    fold_labels: bool = False,
    decimal: DecimalMark | None = None,
) -> xr.Dataset:
    """Read a table of any form that has one row per cell or segment, if its columns' names leave no doubt.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, the path of a file, or a
        `DataSource`.
    control
        The arm that the others are compared with; may be left out if an arm is called control or placebo.
    segments
        Columns that define the segments: the dimensions. By default all columns of text that are nothing else, or the
        only column that is nothing else.
    arm
        Column that names the arm; by default one that is called arm, variant, treatment or the like, or else the one
        that holds the label control or placebo.
    outcome, fold_labels, decimal
        As in `from_summary`.

    Returns
    -------
    xarray.Dataset
        As from `from_summary`, `from_wide`, `from_levels` or `from_estimates`. The first of its notes is the call that
        the table was read with; others say where the control was found, and which columns were not used.

    Raises
    ------
    DataError
        If the table can be read in no way or in several, which are then named; or as the function it is read with does.

    Notes
    -----
    Known are names such as n, users or sample_size; events or conversions; mean, sd, se; sum and sum_squares; exposure
    or person_years; value with count; estimate or yi with se; each alone, or before or after the name of an arm in a
    wide table (n_old, new_events), and those of the R package metafor (ai, n1i, ci, n2i). Case does not matter, nor
    what is between words.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.spec import cell_table
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile", "tv"],
    ...         "users_control": [1000, 50],
    ...         "buyers_control": [100, 5],
    ...         "users_new": [1000, 50],
    ...         "buyers_new": [120, 4],
    ...     }
    ... )
    >>> cells = from_table(table)
    >>> cells["events"].values.tolist()
    [[100, 120], [5, 4]]
    >>> for note in cell_table.list_notes(cells):
    ...     print(note)
    read as from_wide(table, segments=['device'], arms={'control': {'n': 'users_control', 'events': 'buyers_control'}, \
'new': {'n': 'users_new', 'events': 'buyers_new'}}, control='control')
    the control is 'control', as its name says
    """
    if segments is not None:
        segments = check_dimensions(segments, {"arm": arm})
    request = _ReadingRequest(table, _read_column_types(table), segments, arm, control)
    reading = _choose_reading([*_find_long_readings(request), *_find_wide_readings(request)], request)
    options = dict(reading.options) | {"segments": _choose_dimensions(reading, request)}
    # Labels are read from the table only where an arm must be chosen as the control.
    arms = sort_naturally(reading.arms or request.read_labels(str(reading.arm)) if "control" in options else ())
    if "control" in options:
        options["control"] = _choose_control(arms, control, reading)
    options |= {name: value for name, value in (("outcome", outcome), ("decimal", decimal)) if value is not None}
    options |= {"fold_labels": True} if fold_labels else {}
    _check_pooled_arms(arms, _TableReading(reading.function, options))
    cells = READING_FUNCTIONS[reading.function](table, **options)
    _check_values(cells, reading)
    notes = [f"read as {_format_call(reading.function, options)}"]
    if "control" in options and control is None:
        notes.append(f"the control is {options['control']!r}, as its name says")
    unused = [name for name in request.is_numeric if name not in {*reading.columns, reading.arm, *options["segments"]}]
    if unused:
        notes.append(f"not used: {quote_names(unused)}")
    return cells.assign_attrs(notes=cell_table.encode_text_list([*notes, *cell_table.list_notes(cells)]))


@dataclass(frozen=True, slots=True)
class _ReadingRequest:
    """A table, whether each of its columns holds numbers, and what the caller said of these."""

    table: "Table"
    is_numeric: Mapping[str, bool]
    segments: Sequence[str] | None
    arm: str | None
    control: str | None

    @property
    def free_columns(self) -> list[str]:
        """Columns of which nothing was said."""
        return [name for name in self.is_numeric if name != self.arm and name not in (self.segments or ())]

    def read_labels(self, column: str) -> list[str]:
        """Read the distinct labels of a column, as text."""
        with open_table(self.table, label_columns=[column]) as source:
            label_rows = fetch_rows(pick_columns(source, [column]).unique(), source.table_name)
        return [label for label in format_labels([value for (value,) in label_rows]) if label is not None]

    def has_control(self, column: str) -> bool:
        """Tell whether a label of a column says that it is the control."""
        return any(label.casefold() in CONTROL_LABELS for label in self.read_labels(column))


@dataclass(frozen=True, slots=True)
class _TableReading:
    """One way to read a table: the call, but for the dimensions and the control."""

    function: str
    options: Mapping[str, Any]
    columns: frozenset[str] = frozenset()
    arm: str | None = None
    arms: Sequence[str] = field(default=())


def _read_column_types(table: "Table") -> dict[str, bool]:
    """Read from the header which columns hold numbers."""
    with open_table(table, label_columns=()) as source:
        column_types = source.frame.collect_schema()
    return {name: kind.is_numeric() for name, kind in column_types.items() if isinstance(name, str)}


def _find_long_readings(request: _ReadingRequest) -> Iterator[_TableReading]:
    """Find ways to read a table with one row per cell."""
    roles: dict[str, list[str]] = {}
    for name in request.free_columns:
        role = ROLE_BY_WORDS.get(split_words(name))
        if role is not None:
            roles.setdefault(role, []).append(name)
    # A standard error may be called after the mean or estimate: se_logor of logor.
    mean_columns = [name for role in ("mean", "estimate") for name in roles.get(role, ())]
    roles["se"] = roles.get("se", []) + [
        name for name in request.free_columns if any(is_error_of(name, mean) for mean in mean_columns)
    ]
    # A column called n or users may also be the count of a long table of values.
    roles["count"] = roles.get("count", []) + roles.get("n", [])
    for function, forms in (
        ("from_summary", SUMMARY_FORMS),
        ("from_levels", LEVEL_FORMS),
        ("from_estimates", ESTIMATE_FORMS),
    ):
        for form in forms:
            for chosen in _assign_columns(roles, form):
                if not _is_consistent(chosen):
                    continue
                yield from _find_arm_readings(function, chosen, request)


def _assign_columns(roles: Mapping[str, Sequence[str]], form: frozenset[str]) -> Iterator[dict[str, str]]:
    """Assign a column of its own to each role of a form, in every way."""
    role_order = [role for role in _ROLE_ORDER if role in form]
    for names in itertools.islice(
        itertools.product(*(roles.get(role, ()) for role in role_order)), MAX_TRIED_COMBINATIONS
    ):
        if len(set(names)) == len(names):
            yield dict(zip(role_order, names, strict=True))


_ROLE_ORDER = (
    "value", "count", "n", "events", "non_events", "estimate", "mean", "sd", "total", "sum_squares", "se", "exposure",
    "positive", "log_mean", "log_sd",
)  # fmt: skip
"""Order of roles in the calls that are shown."""


def _is_consistent(chosen: Mapping[str, str]) -> bool:
    """Tell whether the standard error may be that of the mean or estimate, by its name."""
    mean, se = chosen.get("mean", chosen.get("estimate")), chosen.get("se")
    return se is None or mean is None or split_words(se) in ROLE_BY_WORDS or is_error_of(se, mean)


def _find_arm_readings(function: str, chosen: dict[str, str], request: _ReadingRequest) -> Iterator[_TableReading]:
    """Find readings of the chosen columns with each column that may name the arm, or without an arm if none need be."""
    used = frozenset(chosen.values())
    candidates = [request.arm] if request.arm is not None else _list_arm_columns(request, used, function)
    if function == "from_estimates":
        if request.control is None and not candidates:
            yield _TableReading(function, {"segments": None, **chosen}, used)
        for arm in candidates:
            yield from _find_estimate_readings(arm, chosen, request)
        return
    for arm in candidates:
        yield _TableReading(function, {"arm": arm, "control": None, "segments": None, **chosen}, used, arm)


def _find_estimate_readings(arm: str, chosen: dict[str, str], request: _ReadingRequest) -> Iterator[_TableReading]:
    """Find readings of estimates by arm: effects, or the means of arms if there is a control among these."""
    used = frozenset(chosen.values())
    if request.control is None:
        yield _TableReading("from_estimates", {"arm": arm, "segments": None, **chosen}, used, arm)
    if request.control is not None or request.has_control(arm):
        mean_roles = {"mean" if role == "estimate" else role: name for role, name in chosen.items()}
        yield _TableReading("from_summary", {"arm": arm, "control": None, "segments": None, **mean_roles}, used, arm)


def _list_arm_columns(request: _ReadingRequest, used: frozenset[str], function: str) -> list[str]:
    """List columns that may name the arm: by their own name, or else by a label."""
    unused = [name for name in request.free_columns if name not in used]
    named_columns = [name for name in unused if split_words(name) in ARM_WORDS]
    if named_columns or function == "from_estimates":
        return named_columns
    # Less certain names only where no column has a certain one: labels are read last, from the rows.
    perhaps_columns = [name for name in unused if split_words(name) in PERHAPS_ARM_WORDS]
    text_columns = [name for name in unused if not request.is_numeric[name] and not perhaps_columns]
    return perhaps_columns or [name for name in text_columns if request.has_control(name)]


def _find_wide_readings(request: _ReadingRequest) -> Iterator[_TableReading]:
    """Find ways to read a table with one row per segment, and columns per arm."""
    if request.arm is not None:
        return
    roles_by_arm: dict[str, dict[str, list[str]]] = {}
    label_by_arm: dict[str, str] = {}
    for name in request.free_columns:
        for role, key, label in split_role_and_arm(name):
            roles_by_arm.setdefault(key, {}).setdefault(role, []).append(name)
            label_by_arm.setdefault(key, label)
    for form in SUMMARY_FORMS:
        assignments = [
            [(key, chosen) for chosen in _assign_columns(roles, form)] for key, roles in roles_by_arm.items()
        ]
        complete_assignments = [assignment for assignment in assignments if assignment]
        # An effect needs two arms that have all columns of the form.
        if len(complete_assignments) < 2:
            continue
        for chosen in itertools.islice(itertools.product(*complete_assignments), MAX_TRIED_COMBINATIONS):
            used_columns = [name for _, columns in chosen for name in columns.values()]
            if len(set(used_columns)) == len(used_columns):
                by_arm = {label_by_arm[key]: columns for key, columns in chosen}
                options = {"segments": None, "arms": by_arm, "control": None}
                yield _TableReading("from_wide", options, frozenset(used_columns), arms=tuple(by_arm))


def _choose_reading(readings: Sequence[_TableReading], request: _ReadingRequest) -> _TableReading:
    """Choose the only reading whose columns are not a part of another's; raise DataError unless there is one."""
    table_name = name_table(request.table)
    best = [candidate for candidate in readings if not any(candidate.columns < rival.columns for rival in readings)]
    if len(best) == 1:
        return best[0]
    if best:
        calls = [
            _format_call(one.function, {**one.options, **_fill_known_options(one, request)})
            for one in best[:MAX_SHOWN_READINGS]
        ]
        more = f" or {len(best) - MAX_SHOWN_READINGS} others" if len(best) > MAX_SHOWN_READINGS else ""
        raise DataError(
            f"{table_name} can be read in {len(best)} ways: as {' or as '.join(calls)}{more}; call the one you mean"
        )
    roles = [
        f"{ROLE_BY_WORDS[split_words(column)]}={column!r}"
        for column in request.free_columns
        if split_words(column) in ROLE_BY_WORDS
    ]
    understood_roles = f"understood are only {', '.join(roles)}" if roles else "no name of a column says what it holds"
    raise DataError(
        f"cannot tell what {table_name} holds: {understood_roles}; columns are "
        f"{quote_names([*request.is_numeric])}. Name them in from_summary, from_wide, from_levels or from_estimates; "
        "units, one in a row, are for from_rows"
    )


def _fill_known_options(reading: _TableReading, request: _ReadingRequest) -> dict[str, Any]:
    """Fill in the dimensions and the control where they are known, to show a call."""
    dims, doubtful = _split_dimensions(reading, request)
    known_options = {"segments": None if doubtful or not dims else dims}
    return known_options | ({"control": request.control} if "control" in reading.options else {})


def _split_dimensions(reading: _TableReading, request: _ReadingRequest) -> tuple[list[str], list[str]]:
    """Split the unused columns into those that are the dimensions, and those that may be."""
    if request.segments is not None:
        return list(request.segments), []
    unused = [name for name in request.free_columns if name not in reading.columns and name != reading.arm]
    text_columns = [name for name in unused if not request.is_numeric[name]]
    number_columns = [name for name in unused if request.is_numeric[name] and not _is_known_number(name, reading)]
    # A single column of numbers must be the dimension; of several some may be results.
    if not text_columns and len(number_columns) == 1:
        return number_columns, []
    return [name for name in text_columns if not is_derived(name)], [*filter(is_derived, text_columns), *number_columns]


def _is_known_number(name: str, reading: _TableReading) -> bool:
    """Tell whether unused numbers are known by their name to be of no dimension."""
    return (
        split_words(name) in ROLE_BY_WORDS or is_derived(name) or (bool(reading.arms) and any(split_role_and_arm(name)))
    )


def _choose_dimensions(reading: _TableReading, request: _ReadingRequest) -> list[str]:
    """Choose the dimensions; raise DataError if there is doubt."""
    table_name = name_table(request.table)
    dims, doubtful = _split_dimensions(reading, request)
    if doubtful:
        others = f", besides {quote_names(dims)}" if dims else ""
        raise DataError(
            f"columns of {table_name} that may be dimensions or not{others}: {quote_names(doubtful)}; name the "
            "dimensions as segments=[…]"
        )
    if not dims:
        raise DataError(
            f"no column of {table_name} is left for the segments; columns are "
            f"{quote_names([*request.is_numeric])}; name one"
        )
    return dims


def _choose_control(arms: Sequence[str], control: str | None, reading: _TableReading) -> str:
    """Choose the control that was named, or the only arm whose label says so."""
    if control is not None:
        return control
    labels = [label for label in arms if label.casefold() in CONTROL_LABELS]
    if len(labels) != 1:
        doubt = "several arms could be" if labels else "no arm is called control or placebo, so none is known to be"
        raise DataError(f"{doubt} the control; name it as control=…, one of {quote_names(arms)}")
    return labels[0]


def _check_pooled_arms(arms: Sequence[str], reading: _TableReading) -> None:
    """Raise DataError if an arm is called total or the like: it would be compared with its own parts."""
    pooled_labels = [label for label in arms if label.casefold() in POOLED_LABELS]
    if pooled_labels:
        raise DataError(
            f"the arm {pooled_labels[0]!r} may hold the units of all arms; leave it out, or if it is an arm, call "
            f"{_format_call(reading.function, reading.options)}"
        )


def _check_values(cells: xr.Dataset, reading: _TableReading) -> None:
    """Raise DataError if a mean in a column called value was read as a histogram of one value in each cell."""
    if "histogram" in cells and int((cells["histogram"] > 0).sum(cell_table.VALUE).max()) < 2:
        raise DataError(
            f"every cell has one value in {reading.options['value']!r}: if it is a mean, its standard deviation or "
            "standard error is needed, for from_summary; if it is the outcome of every unit, call from_levels"
        )


def _format_call(function: str, options: Mapping[str, Any]) -> str:
    """Format the call that reads the table."""
    argument_text = ", ".join(f"{name}={'...' if value is None else repr(value)}" for name, value in options.items())
    return f"{function}(table, {argument_text})"
