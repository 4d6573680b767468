"""The contract of the cell table: which variables, dims, dtypes and units it holds.

Contracts cross the layers of this package, objects do not. Whoever makes a cell table ends with
`check`; whoever takes one starts with it, and trusts it from there on.

    dims    segment, arm          the control is the first arm, where there is one
    coords  segment, arm          unique text labels
            <dimension>(segment)  the level of each dimension, as text
            value                 outcomes that units of a histogram have, numbers in ascending order
            interval              labels, with start(interval) and end(interval) in the units of time
            covariate             names of what is known of whole segments
            pre_covariate         names of what was measured of units before treatment
            input_column          names of the columns that an adjusted mean is made of
    data    one of the kinds in `KINDS`, with dims (segment, arm) before any other; and any of `EXTRAS`
    attrs   outcome, control      text; control is "" for published estimates
            horizon               of survival: the time at which survival is compared
            recipe                of adjusted means: how they follow from `column_mean` and `column_ss`, as JSON
            shares                JSON, planned share of each arm; absent where nobody said
            spanning              JSON: clusters with rows in several segments; absent where there is none
            doubts                JSON list of text: why the arms may not be comparable; absent where there is none
            dimensions, notes     JSON lists of text: netCDF attributes hold no lists of one
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import xarray as xr

from bayes_hte.asked import type_of
from bayes_hte.errors import DataError

SEGMENT: Final = "segment"
ARM: Final = "arm"
OTHER_SEGMENT: Final = "other_segment"
"""Second dim of a covariance matrix between segments: one Dataset cannot use a dim twice."""
MISSING_LEVEL: Final = "(missing)"
OTHER_LEVEL: Final = "(other)"
"""Rare levels, where someone asked to put them together."""

VALUE: Final = "value"
INTERVAL: Final = "interval"
COVARIATE: Final = "covariate"
PRE: Final = "pre_covariate"
COLUMN: Final = "input_column"
OTHER_COLUMN: Final = "other_input_column"
"""Second dim of a matrix between columns."""

Kind = Literal["counts", "moments", "means", "estimates", "rates", "histogram", "two_part", "survival"]
Scale = Literal["absolute", "relative", "link"]
SCALES: Final[tuple[Scale, ...]] = ("absolute", "relative", "link")


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the contract."""

    dims: tuple[str, ...]
    kind: Literal["i", "f"]
    meaning: str


VARIABLES: Final[Mapping[str, Variable]] = MappingProxyType(
    {
        "n": Variable((SEGMENT, ARM), "i", "units in the cell; 0 where the arm was never seen"),
        "events": Variable((SEGMENT, ARM), "i", "units whose outcome is 1"),
        "mean": Variable((SEGMENT, ARM), "f", "mean outcome; NaN where the cell is empty"),
        "ss": Variable((SEGMENT, ARM), "f", "sum of squared deviations from the cell's mean; 0 where empty"),
        "se": Variable((SEGMENT, ARM), "f", "standard error of `mean` or `estimate`; NaN where the cell is empty"),
        "estimate": Variable((SEGMENT, ARM), "f", "published effect; NaN where there is none"),
        "exposure": Variable((SEGMENT, ARM), "f", "time, visits or area over which events were counted; 0 where empty"),
        "histogram": Variable((SEGMENT, ARM, VALUE), "i", "units with each value of the outcome"),
        "positive": Variable((SEGMENT, ARM), "i", "units whose outcome is greater than 0"),
        "log_mean": Variable(
            (SEGMENT, ARM), "f", "mean of the logarithm of positive outcomes; NaN where there are none"
        ),
        "log_ss": Variable((SEGMENT, ARM), "f", "sum of squared deviations from `log_mean`; 0 where there are none"),
        "failures": Variable((SEGMENT, ARM, INTERVAL), "i", "units whose event fell into the interval"),
        "at_risk": Variable((SEGMENT, ARM, INTERVAL), "f", "time that units spent in the interval before event or end"),
        "covariates": Variable((SEGMENT, COVARIATE), "f", "what is known of the segment as a whole"),
        "covariance": Variable((SEGMENT, OTHER_SEGMENT), "f", "covariance of the estimates between segments"),
        "column_mean": Variable((SEGMENT, ARM, COLUMN), "f", "mean of each column over units; NaN where empty"),
        "column_ss": Variable(
            (SEGMENT, ARM, COLUMN, OTHER_COLUMN),
            "f",
            "sums of products of deviations from `column_mean`; 0 where empty",
        ),
        "variance_reduction": Variable(
            (SEGMENT, ARM), "f", "share of the variance of the mean that the adjustment took away; NaN where empty"
        ),
        "n_rows": Variable((SEGMENT, ARM), "i", "rows of the data that the cell's units have"),
        "n_missing": Variable((SEGMENT, ARM), "i", "rows left out, since a number was missing or infinite"),
        "lowest": Variable((SEGMENT, ARM), "f", "smallest outcome; NaN where the cell is empty"),
        "highest": Variable((SEGMENT, ARM), "f", "largest outcome; NaN where the cell is empty"),
        "pre_n": Variable((SEGMENT, ARM, PRE), "i", "units of which it was measured before treatment"),
        "pre_mean": Variable((SEGMENT, ARM, PRE), "f", "its mean over these; NaN where there are none"),
        "pre_ss": Variable((SEGMENT, ARM, PRE), "f", "sum of squared deviations from `pre_mean`; 0 where empty"),
    }
)

KINDS: Final[Mapping[Kind, tuple[tuple[str, ...], tuple[str, ...]]]] = MappingProxyType(
    {  # kind: (required variables, optional variables)
        "counts": (("n", "events"), ()),
        "moments": (("n", "mean", "ss"), ("events",)),
        "means": (("mean", "se"), ("n", "column_mean", "column_ss", "variance_reduction")),
        "estimates": (("estimate", "se"), ("n", "covariance")),
        "rates": (("events", "exposure"), ("n",)),
        "histogram": (("n", "histogram"), ()),
        "two_part": (("n", "mean", "ss", "positive", "log_mean", "log_ss"), ()),
        "survival": (("n", "failures", "at_risk"), ()),
    }
)

EXTRAS: Final = frozenset({"covariates", "n_rows", "n_missing", "lowest", "highest", "pre_n", "pre_mean", "pre_ss"})
"""What a table of any kind may hold besides: for the checks of the data, and for models with covariates."""

RESERVED: Final = frozenset(
    {*VARIABLES, ARM, OTHER_SEGMENT, "n_control", "n_treated", "raw", "raw_se", "effect", "sd", "ci_low", "ci_high"}
    | {
        "p_positive",
        "p_negative",
        "p_rope",
        "p_harm",
        "p_benefit",
        "pooling",
        "decision",
        "cell",
        "chain",
        "draw",
        "variant",
        "cutpoint",
        "p_best",
        "p_worst",
        "p_mcse",
        "rank_mean",
        "rank_low",
        "rank_high",
        "expected_loss",
        COVARIATE,
        COLUMN,
        OTHER_COLUMN,
        PRE,
    }
)
"""Names a dimension cannot have, because a result table or the model already uses them."""


_COUNTED: Final = (
    "n",
    "events",
    "exposure",
    "histogram",
    "positive",
    "failures",
    "at_risk",
    "n_rows",
    "n_missing",
    "pre_n",
)
_NOT_NEGATIVE: Final = (*_COUNTED, "ss", "log_ss", "pre_ss")

LARGEST: Final = 1e70
"""Of any number of a cell: fourth powers, and their sums over segments, must stay below 1e308. One over it is the
smallest standard error, for the same reason."""
_SQUARES: Final = frozenset({"ss", "log_ss", "column_ss", "pre_ss", "covariance"})
"""In the square of the units; never NaN, as they are 0 where a cell is empty."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def kind_of(cells: xr.Dataset) -> Kind:
    """Which kind of cell table this is."""
    found = set(map(str, cells.data_vars)) - EXTRAS
    for kind, (required, optional) in KINDS.items():
        if set(required) <= found <= {*required, *optional}:
            return kind
    raise DataError(
        f"these variables make no cell table: {sorted(found)}; known are "
        + "; ".join(f"{kind}: {', '.join(required)}" for kind, (required, _) in KINDS.items())
    )


def dimensions(cells: xr.Dataset) -> list[str]:
    """The dimensions whose levels define the segments, in the order they were given."""
    return list(map(str, json.loads(cells.attrs["dimensions"])))


def notes(cells: xr.Dataset) -> list[str]:
    """What happened while the rows were reduced, as sentences."""
    return list(map(str, json.loads(cells.attrs.get("notes", "[]"))))


def doubts(cells: xr.Dataset) -> list[str]:
    """What showed while the rows were reduced that may make the arms incomparable, as sentences."""
    return list(map(str, json.loads(cells.attrs.get("doubts", "[]"))))


def treated_arms(cells: xr.Dataset) -> list[str]:
    """The arms that have an effect: all but the control."""
    control = cells.attrs["control"]
    return [str(arm) for arm in cells[ARM].values if not control or str(arm) != control]


def present(cells: xr.Dataset) -> xr.DataArray:
    """Which cells hold data, dims (segment, arm)."""
    if "exposure" in cells:
        return cells["exposure"] > 0
    if "n" in cells and "estimate" not in cells:
        return cells["n"] > 0
    return cells["estimate" if "estimate" in cells else "mean"].notnull()


def encode(names: Iterable[str]) -> str:
    """A list of text as a netCDF attribute."""
    return json.dumps(list(names), ensure_ascii=False)


def fingerprint(cells: xr.Dataset) -> str:
    """SHA-256 of the cell table's labels and values, the same on every machine."""
    digest = hashlib.sha256()
    for name in [SEGMENT, ARM, *dimensions(cells)]:
        digest.update(json.dumps([name, [str(value) for value in cells[name].values]]).encode())
    for name in (VALUE, "start", "end", COVARIATE, COLUMN, PRE):
        if name in cells.coords and cells[name].dims != (SEGMENT,):
            digest.update(json.dumps([name, cells[name].values.tolist()]).encode())
    for name in sorted(map(str, cells.data_vars)):
        values = np.ascontiguousarray(cells[name].values, dtype="<f8")
        digest.update(name.encode() + str(values.shape).encode() + values.tobytes())
    digest.update(json.dumps([cells.attrs["outcome"], cells.attrs["control"]]).encode())
    if "horizon" in cells.attrs:
        digest.update(json.dumps(float(cells.attrs["horizon"])).encode())
    return digest.hexdigest()


def check(cells: xr.Dataset) -> xr.Dataset:
    """Return `cells` unchanged if they keep the contract.

    Raises
    ------
    DataError
        If this is no cell table, or a variable, dim, label or value breaks the contract; the message names it.
    """
    if not isinstance(cells, xr.Dataset):
        raise DataError(
            f"{type_of(cells)} is no cell table; make one with hte.cells.from_rows, or from_summary where the data are "
            "sums already"
        )
    kind = kind_of(cells)
    _check_labels(cells, kind)
    _check_text(cells)
    for name in map(str, cells.data_vars):
        spec = VARIABLES[name]
        if cells[name].dims != spec.dims:
            raise DataError(f"{name} has dims {cells[name].dims}, the cell table needs {spec.dims}")
        if cells[name].dtype.kind != spec.kind:
            raise DataError(
                f"{name} has dtype {cells[name].dtype}; it must be {'int64' if spec.kind == 'i' else 'float64'}"
            )
    _check_values(cells)
    return cells


def _check_labels(cells: xr.Dataset, kind: Kind) -> None:
    for attr in ("outcome", "control", "dimensions"):
        if attr not in cells.attrs:
            raise DataError(f"the cell table lacks the attribute {attr!r}; make it with bayes_hte.cells")
    for dim in (SEGMENT, ARM):
        if dim not in cells.coords or cells.sizes.get(dim, 0) == 0:
            raise DataError(f"the cell table needs at least one labelled {dim}")
        labels = [str(value) for value in cells[dim].values]
        if len(set(labels)) != len(labels):
            raise DataError(
                f"{dim} labels repeat: {sorted({label for label in labels if labels.count(label) > 1})[:5]}"
            )
    for name in dimensions(cells):
        if name not in cells.coords or cells[name].dims != (SEGMENT,):
            raise DataError(f"the cell table lacks the coordinate {name!r} with dims ('segment',)")
    control = cells.attrs["control"]
    if kind != "estimates" and (not control or str(cells[ARM].values[0]) != control):
        raise DataError(f"the control arm {control!r} must come first; arms are {[str(a) for a in cells[ARM].values]}")


def _check_text(cells: xr.Dataset) -> None:
    """No file can hold a NUL in a text, nor half of a surrogate pair, which is no character."""
    for dim in dimensions(cells):
        _check_writable("the dimension", [dim])
    for attr, value in cells.attrs.items():
        if isinstance(value, str):
            _check_writable(f"the {attr}", [value])
    for name, labels in cells.coords.items():
        if labels.dtype.kind in "UO":
            _check_writable(f"a label of {str(name)!r},", list(map(str, labels.values)))


def _check_writable(what: str, texts: list[str]) -> None:
    whole = "".join(texts)
    if "\0" not in whole and not _SURROGATE.search(whole):
        return
    bad = next(text for text in texts if "\0" in text or _SURROGATE.search(text))
    found = "a NUL character" if "\0" in bad else "half of a character (a lone surrogate)"
    raise DataError(
        f"{what} {bad[:80]!r} holds {found}, which no file can hold; remove it, or read the data in their own encoding"
    )


def _check_values(cells: xr.Dataset) -> None:
    _check_measurable(cells)
    there = present(cells)
    for name in _NOT_NEGATIVE:
        if name in cells and not bool((cells[name] >= 0).all()):
            raise DataError(f"{name} must not be negative")
    _check_parts(cells)
    if "events" in cells and "exposure" not in cells and bool((cells["events"] > cells["n"]).any()):
        bad = _first(cells, cells["events"] > cells["n"])
        raise DataError(f"more events than units in {bad}; check which column is n and which is events")
    for name in ("mean", "estimate", "se"):
        if name in cells and not bool(np.isfinite(cells[name].where(there, 0.0)).all()):
            raise DataError(f"{name} is not finite in {_first(cells, there & ~np.isfinite(cells[name]))}")
    if "se" in cells and bool((there & ~(cells["se"] > 0)).any()):
        bad = _first(cells, there & ~(cells["se"] > 0))
        raise DataError(f"a standard error must be greater than 0, but is not in {bad}")


def _check_measurable(cells: xr.Dataset) -> None:
    """What is computed of a cell must be a number: squares of a 1e308 that stands for a missing value are not."""
    for name in map(str, cells.data_vars):
        size = abs(cells[name])
        wrong = size > (LARGEST**2 if name in _SQUARES else LARGEST)
        if name in _SQUARES:
            wrong |= size.isnull()
        if VARIABLES[name].kind == "f" and bool(wrong.any()):
            value = cells[name].values[wrong.values][0]
            raise DataError(
                f"{name} is {value:g} in {_first(cells, wrong)}: the numbers there are too large, and one like 1e308 "
                f"often stands for a missing value; clean them, or state them in larger units, below {LARGEST:g}"
            )
    if "recipe" not in cells.attrs:  # what is computed from rows is small where these hardly differ
        _check_not_tiny(cells, "se", 1 / LARGEST)


def check_precision(cells: xr.Dataset) -> None:
    """Raise DataError if what is known of a cell is more precise than anything can be, so that no model can use it."""
    _check_not_tiny(cells, "se", 1 / LARGEST)
    _check_not_tiny(cells, "ss", LARGEST**-2)


def _check_not_tiny(cells: xr.Dataset, name: str, least: float) -> None:
    if name in cells and bool((small := (cells[name] > 0) & (cells[name] < least)).any()):
        raise DataError(
            f"{name} is {cells[name].values[small.values][0]:g} in {_first(cells, small)}: that is too small to be "
            f"measured; check it, or state the outcome in smaller units, so that errors are above {1 / LARGEST:g}"
        )


def _check_parts(cells: xr.Dataset) -> None:
    """What the parts of a cell say of each other."""
    if "covariates" in cells and not bool(np.isfinite(cells["covariates"]).all()):
        raise DataError("a covariate is not finite; give every segment a number for each covariate")
    if "exposure" in cells:
        if not bool(np.isfinite(cells["exposure"]).all()):
            raise DataError("exposure must be finite")
        idle = (cells["events"] > 0) & ~(cells["exposure"] > 0)
        if bool(idle.any()):
            raise DataError(f"events without exposure in {_first(cells, idle)}")
    if "histogram" in cells:
        values = cells[VALUE].values if VALUE in cells.coords else np.array([])
        if values.dtype.kind not in "if" or len(values) < 2 or not bool((np.diff(values) > 0).all()):
            raise DataError("a histogram needs two values of the outcome at least, numbers in ascending order")
        if not bool((abs(values) <= LARGEST).all()):
            raise DataError(
                f"the outcome has the value {values[abs(values).argmax()]:g}, which often stands for a missing one; "
                f"clean it, or state the outcome in larger units, below {LARGEST:g}"
            )
        if bool((cells["histogram"].sum(VALUE) != cells["n"]).any()):
            raise DataError(f"a histogram does not add up to n in "
                            f"{_first(cells, cells['histogram'].sum(VALUE) != cells['n'])}")  # fmt: skip
    if "positive" in cells:
        if bool((cells["positive"] > cells["n"]).any()):
            raise DataError(f"more positive outcomes than units in {_first(cells, cells['positive'] > cells['n'])}")
        unknown = (cells["positive"] > 0) & ~np.isfinite(cells["log_mean"])
        if bool(unknown.any()):
            raise DataError(f"log_mean is not finite in {_first(cells, unknown)}")
    if "failures" in cells:
        _check_intervals(cells)


def _check_intervals(cells: xr.Dataset) -> None:
    lacking = [name for name in ("start", "end") if name not in cells.coords or cells[name].dims != (INTERVAL,)]
    if lacking or not float(cells.attrs.get("horizon", 0)) > 0:
        raise DataError("survival cells need start(interval), end(interval) and a horizon; make them with from_times")
    start, end = cells["start"].values, cells["end"].values
    if start[0] != 0 or bool((start[1:] != end[:-1]).any()) or bool((end <= start).any()):
        raise DataError("intervals must begin at 0 and follow each other without gaps")
    idle = ((cells["failures"] > 0) & ~(cells["at_risk"] > 0)).any(INTERVAL)
    if bool(idle.any()):
        raise DataError(f"events without time at risk in {_first(cells, idle)}")


def _first(cells: xr.Dataset, where: xr.DataArray) -> str:
    """Name the first cell where a condition holds, and how many there are; or the first segment."""
    if ARM not in where.dims:
        return f"segment {str(cells[SEGMENT].values[np.nonzero(where.transpose(SEGMENT, ...).values)[0][0]])!r}"
    cell = where.any([dim for dim in where.dims if dim not in (SEGMENT, ARM)])
    rows, columns = np.nonzero(cell.transpose(SEGMENT, ARM).values)
    name = f"segment {str(cells[SEGMENT].values[rows[0]])!r}, arm {str(cells[ARM].values[columns[0]])!r}"
    return name if len(rows) == 1 else f"{len(rows)} cells, the first {name}"
