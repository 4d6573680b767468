"""Work out from the names of its columns what kind of summary a table is, and read it if there is only one way to."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayes_hte import schema
from bayes_hte.cells.forms import FORMS
from bayes_hte.cells.histograms import from_levels
from bayes_hte.cells.labels import natural_order, text_of
from bayes_hte.cells.sources import check_names, fetch, listed, name_of, opened, pick
from bayes_hte.cells.tables import from_estimates, from_summary
from bayes_hte.cells.vocabulary import (
    ARMS,
    CONTROLS,
    PERHAPS_ARMS,
    ROLE_OF,
    TOGETHER,
    is_derived,
    is_of,
    with_arms,
    words_of,
)
from bayes_hte.cells.wide import from_wide
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    from bayes_hte.cells.sources import Table

MOST = 5
"""How many ways to read a table a message shows."""
ENOUGH = 100
"""Combinations of columns that are tried before a table counts as ambiguous."""

LEVELS = (frozenset({"value", "count"}),)
ESTIMATES = (frozenset({"estimate", "se"}), frozenset({"n", "estimate", "se"}))
FUNCTIONS: Mapping[str, Callable[..., xr.Dataset]] = MappingProxyType(
    {
        "from_summary": from_summary,
        "from_levels": from_levels,
        "from_estimates": from_estimates,
        "from_wide": from_wide,
    }
)


def from_table(
    table: "Table",
    *,
    control: str | None = None,
    segments: Sequence[str] | None = None,
    arm: str | None = None,
    outcome: str | None = None,
) -> xr.Dataset:
    """Read a table of any form that has one row per cell or segment, if its columns' names leave no doubt.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, or a path to a .csv, .csv.gz, .tsv or .parquet
        file.
    control
        The arm that the others are compared with; may be left out if an arm is called control or placebo.
    segments
        Columns that define the segments: the dimensions. By default all columns of text that are nothing else, or the
        only column that is nothing else.
    arm
        Column that names the arm; by default one that is called arm, variant, treatment or the like, or else the one
        that holds the label control or placebo.
    outcome
        What was measured, for tables and reports.

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
    >>> from bayes_hte import schema
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
    >>> for note in schema.notes(cells):
    ...     print(note)
    read as from_wide(table, segments=['device'], arms={'control': {'n': 'users_control', 'events': 'buyers_control'}, \
'new': {'n': 'users_new', 'events': 'buyers_new'}}, control='control')
    the control is 'control', as its name says
    """
    if segments is not None:
        segments = check_names(segments, {"arm": arm})
    asked = _Asked(table, _columns(table), segments, arm, control)
    reading = _only([*_long(asked), *_wide(asked)], asked)
    options = dict(reading.options) | {"segments": _dimensions(reading, asked)}
    arms = natural_order(reading.arms or asked.labels(str(reading.arm)) if "control" in options else ())
    if "control" in options:
        options["control"] = _control(arms, control, reading)
    if outcome is not None:
        options["outcome"] = outcome
    _check_together(arms, _Reading(reading.function, options))
    cells = FUNCTIONS[reading.function](table, **options)
    _check_values(cells, reading)
    notes = [f"read as {_call(reading.function, options)}"]
    if "control" in options and control is None:
        notes.append(f"the control is {options['control']!r}, as its name says")
    unused = [name for name in asked.columns if name not in {*reading.columns, reading.arm, *options["segments"]}]
    if unused:
        notes.append(f"not used: {listed(unused)}")
    return cells.assign_attrs(notes=schema.encode([*notes, *schema.notes(cells)]))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A table, its columns, and whether each holds numbers; what the caller said of them."""

    table: "Table"
    columns: Mapping[str, bool]
    segments: Sequence[str] | None
    arm: str | None
    control: str | None

    @property
    def free(self) -> list[str]:
        """Columns of which nothing was said."""
        return [name for name in self.columns if name != self.arm and name not in (self.segments or ())]

    def labels(self, column: str) -> list[str]:
        """The different labels of a column, as text."""
        with opened(self.table, labels=[column]) as source:
            found = fetch(pick(source, [column]).unique(), source.name)
        return [label for (value,) in found if (label := text_of(value)) is not None]

    def has_control(self, column: str) -> bool:
        """Whether a label says that it is the control."""
        return any(label.casefold() in CONTROLS for label in self.labels(column))


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read a table: the call, but for the dimensions and the control."""

    function: str
    options: Mapping[str, Any]
    columns: frozenset[str] = frozenset()
    arm: str | None = None
    arms: Sequence[str] = field(default=())


def _columns(table: "Table") -> dict[str, bool]:
    with opened(table, labels=()) as source:
        known = source.frame.collect_schema()
    return {name: kind.is_numeric() for name, kind in known.items() if isinstance(name, str)}


def _long(asked: _Asked) -> Iterator[_Reading]:
    """Ways to read one row per cell."""
    roles: dict[str, list[str]] = {}
    for name in asked.free:
        role = ROLE_OF.get(words_of(name))
        if role is not None:
            roles.setdefault(role, []).append(name)
    means = [name for role in ("mean", "estimate") for name in roles.get(role, ())]
    roles["se"] = roles.get("se", []) + [name for name in asked.free if any(is_of(name, mean) for mean in means)]
    roles["count"] = roles.get("count", []) + roles.get("n", [])
    for function, forms in (("from_summary", FORMS), ("from_levels", LEVELS), ("from_estimates", ESTIMATES)):
        for form in forms:
            for chosen in _choices(roles, form):
                if not _fit(chosen):
                    continue
                yield from _with_arm(function, chosen, asked)


def _choices(roles: Mapping[str, Sequence[str]], form: frozenset[str]) -> Iterator[dict[str, str]]:
    """Every way to give each role of a form a column of its own."""
    order = [role for role in _ORDER if role in form]
    for names in itertools.islice(itertools.product(*(roles.get(role, ()) for role in order)), ENOUGH):
        if len(set(names)) == len(names):
            yield dict(zip(order, names, strict=True))


_ORDER = (
    "value", "count", "n", "events", "non_events", "estimate", "mean", "sd", "total", "sum_squares", "se", "exposure",
    "positive", "log_mean", "log_sd",
)  # fmt: skip
"""Of roles in the calls that are shown."""


def _fit(chosen: Mapping[str, str]) -> bool:
    """Whether a standard error is of no other column."""
    mean, se = chosen.get("mean", chosen.get("estimate")), chosen.get("se")
    return se is None or mean is None or words_of(se) in ROLE_OF or is_of(se, mean)


def _with_arm(function: str, chosen: dict[str, str], asked: _Asked) -> Iterator[_Reading]:
    """The same columns with each column that may name the arm, or with none where there need be none."""
    used = frozenset(chosen.values())
    candidates = [asked.arm] if asked.arm is not None else _arm_columns(asked, used, function)
    if function == "from_estimates":
        if asked.control is None and not candidates:
            yield _Reading(function, {"segments": None, **chosen}, used)
        for arm in candidates:
            yield from _effects_or_means(arm, chosen, asked)
        return
    for arm in candidates:
        yield _Reading(function, {"arm": arm, "control": None, "segments": None, **chosen}, used, arm)


def _effects_or_means(arm: str, chosen: dict[str, str], asked: _Asked) -> Iterator[_Reading]:
    """Estimates by arm are effects; with a control among the arms they are the arms' means."""
    used = frozenset(chosen.values())
    if asked.control is None:
        yield _Reading("from_estimates", {"arm": arm, "segments": None, **chosen}, used, arm)
    if asked.control is not None or asked.has_control(arm):
        means = {"mean" if role == "estimate" else role: name for role, name in chosen.items()}
        yield _Reading("from_summary", {"arm": arm, "control": None, "segments": None, **means}, used, arm)


def _arm_columns(asked: _Asked, used: frozenset[str], function: str) -> list[str]:
    """Columns that may name the arm: by their own name, or else by a label."""
    left = [name for name in asked.free if name not in used]
    named = [name for name in left if words_of(name) in ARMS]
    if named or function == "from_estimates":
        return named
    perhaps = [name for name in left if words_of(name) in PERHAPS_ARMS]
    text = [name for name in left if not asked.columns[name] and not perhaps]
    return perhaps or [name for name in text if asked.has_control(name)]


def _wide(asked: _Asked) -> Iterator[_Reading]:
    """Ways to read one row per segment, with columns per arm."""
    if asked.arm is not None:
        return
    arms: dict[str, dict[str, list[str]]] = {}
    labels: dict[str, str] = {}
    for name in asked.free:
        for role, key, label in with_arms(name):
            arms.setdefault(key, {}).setdefault(role, []).append(name)
            labels.setdefault(key, label)
    for form in FORMS:
        ways = [[(key, chosen) for chosen in _choices(roles, form)] for key, roles in arms.items()]
        full = [way for way in ways if way]
        if len(full) < 2:
            continue
        for chosen in itertools.islice(itertools.product(*full), ENOUGH):
            used = [name for _, own in chosen for name in own.values()]
            if len(set(used)) == len(used):
                by_arm = {labels[key]: own for key, own in chosen}
                options = {"segments": None, "arms": by_arm, "control": None}
                yield _Reading("from_wide", options, frozenset(used), arms=tuple(by_arm))


def _only(readings: Sequence[_Reading], asked: _Asked) -> _Reading:
    """The only way to read the table that leaves out nothing another way would use."""
    name = name_of(asked.table)
    best = [one for one in readings if not any(one.columns < other.columns for other in readings)]
    if len(best) == 1:
        return best[0]
    if best:
        calls = [_call(one.function, {**one.options, **_said(one, asked)}) for one in best[:MOST]]
        more = f" or {len(best) - MOST} others" if len(best) > MOST else ""
        raise DataError(
            f"{name} can be read in {len(best)} ways: as {' or as '.join(calls)}{more}; call the one you mean"
        )
    roles = [f"{ROLE_OF[words_of(column)]}={column!r}" for column in asked.free if words_of(column) in ROLE_OF]
    found = f"understood are only {', '.join(roles)}" if roles else "no name of a column says what it holds"
    raise DataError(
        f"cannot tell what {name} holds: {found}; columns are {listed([*asked.columns])}. Name them in from_summary, "
        "from_wide, from_levels or from_estimates; units, one in a row, are for from_rows"
    )


def _said(reading: _Reading, asked: _Asked) -> dict[str, Any]:
    """What is known of the dimensions and of the control, to show a call."""
    dims, doubtful = _left(reading, asked)
    known = {"segments": None if doubtful or not dims else dims}
    return known | ({"control": asked.control} if "control" in reading.options else {})


def _left(reading: _Reading, asked: _Asked) -> tuple[list[str], list[str]]:
    """Columns that are the dimensions, and columns that may be."""
    if asked.segments is not None:
        return list(asked.segments), []
    left = [name for name in asked.free if name not in reading.columns and name != reading.arm]
    text = [name for name in left if not asked.columns[name]]
    numbers = [name for name in left if asked.columns[name] and not _known(name, reading)]
    if not text and len(numbers) == 1:
        return numbers, []
    return [name for name in text if not is_derived(name)], [*filter(is_derived, text), *numbers]


def _known(name: str, reading: _Reading) -> bool:
    """Whether numbers that are not used are known by their name to be of no dimension."""
    return words_of(name) in ROLE_OF or is_derived(name) or (bool(reading.arms) and any(with_arms(name)))


def _dimensions(reading: _Reading, asked: _Asked) -> list[str]:
    name = name_of(asked.table)
    dims, doubtful = _left(reading, asked)
    if doubtful:
        others = f", besides {listed(dims)}" if dims else ""
        raise DataError(
            f"columns of {name} that may be dimensions or not{others}: {listed(doubtful)}; name the dimensions as "
            "segments=[…]"
        )
    if not dims:
        raise DataError(
            f"no column of {name} is left for the segments; columns are {listed([*asked.columns])}; name one"
        )
    return dims


def _control(arms: Sequence[str], control: str | None, reading: _Reading) -> str:
    if control is not None:
        return control
    named = [label for label in arms if label.casefold() in CONTROLS]
    if len(named) != 1:
        found = "several arms could be" if named else "no arm is called control or placebo, so none is known to be"
        raise DataError(f"{found} the control; name it as control=…, one of {listed(arms)}")
    return named[0]


def _check_together(arms: Sequence[str], reading: _Reading) -> None:
    """An arm called total would be compared with its own parts."""
    odd = [label for label in arms if label.casefold() in TOGETHER]
    if odd:
        raise DataError(
            f"the arm {odd[0]!r} may hold the units of all arms; leave it out, or if it is an arm, call "
            f"{_call(reading.function, reading.options)}"
        )


def _check_values(cells: xr.Dataset, reading: _Reading) -> None:
    """A mean in a column called value would be a histogram of one value in each cell."""
    if "histogram" in cells and int((cells["histogram"] > 0).sum(schema.VALUE).max()) < 2:
        raise DataError(
            f"every cell has one value in {reading.options['value']!r}: if it is a mean, its standard deviation or "
            "standard error is needed, for from_summary; if it is the outcome of every unit, call from_levels"
        )


def _call(function: str, options: Mapping[str, Any]) -> str:
    said = ", ".join(f"{name}={'...' if value is None else repr(value)}" for name, value in options.items())
    return f"{function}(table, {said})"
