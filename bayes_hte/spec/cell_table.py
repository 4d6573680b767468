"""The contract of the cell table: which variables, dims, dtypes and units it holds.

Contracts cross the layers of this package, objects do not. Whoever makes a cell table ends with
`check_cell_table`; whoever takes one starts with it, and trusts it from there on.

    dims    segment, arm          the control is the first arm, where there is one
    coords  segment, arm          unique text labels
            <dimension>(segment)  the level of each dimension, as text
            value                 outcomes that units of a histogram have, numbers in ascending order
            interval              labels, with start(interval) and end(interval) in the units of time
            covariate             names of what is known of whole segments
            pre_covariate         names of what was measured of units before treatment
            input_column          names of the columns that an adjusted mean is made of
            value_label(value)    answers in words, where the numbers 1, 2, … stand for these in their order
    data    one of the kinds in `VARIABLES_BY_KIND`, with dims (segment, arm) before any other; and any of
            `EXTRA_VARIABLES`
    attrs   outcome, control      text; control is "" for published estimates
            horizon               of survival: the time at which survival is compared
            recipe                of adjusted means: how they follow from `column_mean` and `column_ss`, as JSON
            size_unit             text: what `cell_size` or `exposure` counts, in the plural; absent where nobody said
            cluster               column whose values are the units of analysis; absent where these are rows
            shares                JSON, planned share of each arm; absent where nobody said
            spanning              JSON: clusters with rows in several segments; absent where there is none
            doubts                JSON list of text: why the arms may not be comparable; absent where there is none
            level_orders          JSON: levels by dimension (and arms) in the data's own order; absent without one
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

from bayes_hte._support.validation import describe_type
from bayes_hte.errors import DataError

SEGMENT: Final = "segment"
ARM: Final = "arm"
OTHER_SEGMENT: Final = "other_segment"
"""Second dim of a covariance matrix between segments: one Dataset cannot use a dim twice."""
MISSING_LEVEL: Final = "(missing)"
"""Units whose level is not known form a level of their own: leaving them out would change what is compared."""
OTHER_LEVEL: Final = "(other)"
"""Rare levels, where someone asked to put them together."""

VALUE: Final = "value"
VALUE_LABEL: Final = "value_label"
"""Words of the values of a histogram, which are then numbered; numbers that were counted or measured have none."""
INTERVAL: Final = "interval"
COVARIATE: Final = "covariate"
PRE_COVARIATE: Final = "pre_covariate"
INPUT_COLUMN: Final = "input_column"
OTHER_INPUT_COLUMN: Final = "other_input_column"
"""Second dim of a matrix between columns."""

CellKind = Literal["counts", "moments", "means", "estimates", "rates", "histogram", "two_part", "survival"]
EffectScale = Literal["absolute", "relative", "link"]
EFFECT_SCALES: Final[tuple[EffectScale, ...]] = ("absolute", "relative", "link")


@dataclass(frozen=True, slots=True)
class CellVariable:
    """Dims, dtype and meaning of one variable of a cell table.

    Attributes
    ----------
    dims : tuple of str
    dtype_kind : str
        As in NumPy: ``i`` for int64, ``f`` for float64.
    description : str
        The numbers in a sentence, with their unit and what an empty cell holds.
    """

    dims: tuple[str, ...]
    dtype_kind: Literal["i", "f"]
    description: str


CELL_VARIABLES: Final[Mapping[str, CellVariable]] = MappingProxyType(
    {
        "n": CellVariable((SEGMENT, ARM), "i", "units in the cell; 0 where the arm was never seen"),
        "events": CellVariable((SEGMENT, ARM), "i", "units whose outcome is 1"),
        "mean": CellVariable((SEGMENT, ARM), "f", "mean outcome; NaN where the cell is empty"),
        "ss": CellVariable((SEGMENT, ARM), "f", "sum of squared deviations from the cell's mean; 0 where empty"),
        "se": CellVariable((SEGMENT, ARM), "f", "standard error of `mean` or `estimate`; NaN where the cell is empty"),
        "estimate": CellVariable((SEGMENT, ARM), "f", "published effect; NaN where there is none"),
        "exposure": CellVariable(
            (SEGMENT, ARM), "f", "time, visits or area over which events were counted; 0 where empty"
        ),
        "histogram": CellVariable((SEGMENT, ARM, VALUE), "i", "units with each value of the outcome"),
        "positive": CellVariable((SEGMENT, ARM), "i", "units whose outcome is greater than 0"),
        "log_mean": CellVariable(
            (SEGMENT, ARM), "f", "mean of the logarithm of positive outcomes; NaN where there are none"
        ),
        "log_ss": CellVariable(
            (SEGMENT, ARM), "f", "sum of squared deviations from `log_mean`; 0 where there are none"
        ),
        "failures": CellVariable((SEGMENT, ARM, INTERVAL), "i", "units whose event fell into the interval"),
        "at_risk": CellVariable(
            (SEGMENT, ARM, INTERVAL), "f", "time that units spent in the interval before event or end"
        ),
        "covariates": CellVariable((SEGMENT, COVARIATE), "f", "what is known of the segment as a whole"),
        "covariance": CellVariable((SEGMENT, OTHER_SEGMENT), "f", "covariance of the estimates between segments"),
        "column_mean": CellVariable(
            (SEGMENT, ARM, INPUT_COLUMN), "f", "mean of each column over units; NaN where empty"
        ),
        "column_ss": CellVariable(
            (SEGMENT, ARM, INPUT_COLUMN, OTHER_INPUT_COLUMN),
            "f",
            "sums of products of deviations from `column_mean`; 0 where empty",
        ),
        "variance_reduction": CellVariable(
            (SEGMENT, ARM), "f", "share of the variance of the mean that the adjustment took away; NaN where empty"
        ),
        "cell_size": CellVariable(
            (SEGMENT, ARM),
            "f",
            "the part of the population that the cell stands for, where that is not n; 0 where empty",
        ),
        "covariate_part": CellVariable(
            (SEGMENT, ARM),
            "f",
            "by how much the mean exceeds what it were with the covariates of all units, in every arm of the segment; "
            "NaN where empty",
        ),
        "n_rows": CellVariable((SEGMENT, ARM), "i", "rows of the data that the cell's units have"),
        "n_missing": CellVariable((SEGMENT, ARM), "i", "rows left out, since a number was missing or infinite"),
        "lowest": CellVariable((SEGMENT, ARM), "f", "smallest outcome; NaN where the cell is empty"),
        "highest": CellVariable((SEGMENT, ARM), "f", "largest outcome; NaN where the cell is empty"),
        "pre_n": CellVariable((SEGMENT, ARM, PRE_COVARIATE), "i", "units of which it was measured before treatment"),
        "pre_mean": CellVariable((SEGMENT, ARM, PRE_COVARIATE), "f", "its mean over these; NaN where there are none"),
        "pre_ss": CellVariable(
            (SEGMENT, ARM, PRE_COVARIATE), "f", "sum of squared deviations from `pre_mean`; 0 where empty"
        ),
    }
)

VARIABLES_BY_KIND: Final[Mapping[CellKind, tuple[tuple[str, ...], tuple[str, ...]]]] = MappingProxyType(
    {  # kind: (required variables, optional variables)
        "counts": (("n", "events"), ()),
        "moments": (("n", "mean", "ss"), ("events",)),
        "means": (("mean", "se"), ("n", "column_mean", "column_ss", "variance_reduction", "covariate_part")),
        "estimates": (("estimate", "se"), ("n", "covariance")),
        "rates": (("events", "exposure"), ("n",)),
        "histogram": (("n", "histogram"), ()),
        "two_part": (("n", "mean", "ss", "positive", "log_mean", "log_ss"), ()),
        "survival": (("n", "failures", "at_risk"), ()),
    }
)

EXTRA_VARIABLES: Final = frozenset(
    {"covariates", "cell_size", "n_rows", "n_missing", "lowest", "highest", "pre_n", "pre_mean", "pre_ss"}
)
"""What a table of any kind may hold besides: for averages over segments, checks of the data, models with covariates."""

RESERVED_NAMES: Final = frozenset(
    {
        *CELL_VARIABLES,
        ARM,
        OTHER_SEGMENT,
        "n_control",
        "n_treated",
        "size_control",
        "size_treated",
        "raw",
        "raw_se",
        "effect",
        "sd",
        "ci_low",
        "ci_high",
    }
    | {
        "p_positive",
        "p_negative",
        "p_rope",
        "p_harm",
        "p_benefit",
        "pooling",
        "decision",
        "why",
        "p_equivalent",
        "p_wrong",
        "test",
        "p_raw",
        "p_holm",
        "p_bh",
        "local_false_sign_rate",
        "simultaneous_low",
        "simultaneous_high",
        "expected_gain",
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
        "population_share",
        "net_gain",
        "net_low",
        "net_high",
        "share_treated",
        "gain",
        "band_low",
        "band_high",
        "part_treated",
        "p_optimal",
        "p_flip",
        "reliable",
        COVARIATE,
        INPUT_COLUMN,
        OTHER_INPUT_COLUMN,
        PRE_COVARIATE,
    }
)
"""Names a dimension cannot have, because a result table or the model already uses them."""


_COUNT_VARIABLES: Final = (
    "n",
    "events",
    "exposure",
    "histogram",
    "positive",
    "failures",
    "at_risk",
    "cell_size",
    "n_rows",
    "n_missing",
    "pre_n",
)
_NON_NEGATIVE_VARIABLES: Final = (*_COUNT_VARIABLES, "ss", "log_ss", "pre_ss")

LARGEST_CELL_NUMBER: Final = 1e70
"""Largest absolute value of any number in a cell: fourth powers, and their sums over segments, must stay below 1e308.
One over it is the smallest standard error, for the same reason."""
_SQUARED_VARIABLES: Final = frozenset({"ss", "log_ss", "column_ss", "pre_ss", "covariance"})
"""Variables in the square of the outcome's units; never NaN, as they are 0 where a cell is empty."""
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def identify_kind(cells: xr.Dataset) -> CellKind:
    """Find the kind of a cell table from the variables that it holds."""
    variable_names = set(map(str, cells.data_vars)) - EXTRA_VARIABLES
    for kind, (required_names, optional_names) in VARIABLES_BY_KIND.items():
        if set(required_names) <= variable_names <= {*required_names, *optional_names}:
            return kind
    raise DataError(
        f"these variables make no cell table: {sorted(variable_names)}; known are "
        + "; ".join(f"{kind}: {', '.join(required)}" for kind, (required, _) in VARIABLES_BY_KIND.items())
    )


def list_dimensions(cells: xr.Dataset) -> list[str]:
    """List the dimensions whose levels define the segments, in the order in which the caller named them."""
    return list(map(str, json.loads(cells.attrs["dimensions"])))


def list_notes(cells: xr.Dataset) -> list[str]:
    """List the notes on how rows were reduced to cells, as sentences."""
    return list(map(str, json.loads(cells.attrs.get("notes", "[]"))))


def read_level_orders(cells: xr.Dataset) -> dict[str, list[str]]:
    """Read the order that the data themselves gave the levels of a dimension, or the arms, by its name."""
    return {
        str(name): list(map(str, levels)) for name, levels in json.loads(cells.attrs.get("level_orders", "{}")).items()
    }


def encode_level_orders(level_orders: Mapping[str, Iterable[str]]) -> str | None:
    """Write orders of levels as JSON; give None where there is none."""
    stated_orders = {name: list(levels) for name, levels in level_orders.items()}
    return json.dumps(stated_orders, ensure_ascii=False) if stated_orders else None


def list_answers(cells: xr.Dataset) -> list[str]:
    """List the values of a histogram as they are shown: answers by their words, else numbers."""
    if VALUE_LABEL in cells.coords:
        return list(map(str, cells[VALUE_LABEL].values))
    return [f"{value:g}" for value in cells[VALUE].values]


def list_validity_warnings(cells: xr.Dataset) -> list[str]:
    """List the reasons why the arms may not be comparable, as sentences."""
    return list(map(str, json.loads(cells.attrs.get("doubts", "[]"))))


def list_treated_arms(cells: xr.Dataset) -> list[str]:
    """List the arms that have an effect: all but the control."""
    control = cells.attrs["control"]
    # Published estimates have no control: attrs hold "", and every arm is treated.
    return [str(arm) for arm in cells[ARM].values if not control or str(arm) != control]


def has_data(cells: xr.Dataset) -> xr.DataArray:
    """Mark the cells that hold data, dims (segment, arm)."""
    # Rates need no count of units, and units without exposure tell nothing of a rate. Means may come without n, and an
    # estimate's n is no proof of it: there the number itself shows that it is known.
    if "exposure" in cells:
        return cells["exposure"] > 0
    if "n" in cells and "estimate" not in cells:
        return cells["n"] > 0
    return cells["estimate" if "estimate" in cells else "mean"].notnull()


def get_cell_sizes(cells: xr.Dataset) -> xr.DataArray | None:
    """Return the part of the population that each cell stands for, dims (segment, arm); None where nobody knows.

    An outcome per view is of views, a weighted one of what the weights count, one of clusters of the rows in them:
    `cell_size`. Rates are of exposure. All else, and tables of before sizes were kept, are of units, n.
    """
    for size_name in ("cell_size", "exposure", "n"):
        if size_name in cells:
            # An arm that a segment lacks has nothing there.
            return cells[size_name].fillna(0).astype(float)
    return None


def name_size_unit(cells: xr.Dataset) -> str:
    """Name what the sizes of cells count, in the plural: views, hours, rows, units."""
    if "size_unit" in cells.attrs and ("cell_size" in cells or "exposure" in cells):
        return str(cells.attrs["size_unit"])
    if "cell_size" in cells:
        return "units of the stated sizes"
    return "units of exposure" if "exposure" in cells else "units"


def encode_text_list(texts: Iterable[str]) -> str:
    """Write a list of texts as JSON, because a netCDF attribute holds no list of one."""
    return json.dumps(list(texts), ensure_ascii=False)


def hash_cell_table(cells: xr.Dataset) -> str:
    """Compute the SHA-256 of a cell table's labels and values, the same on every machine."""
    sha256_hash = hashlib.sha256()
    # Labels as text and numbers as little-endian doubles: neither depends on the machine or on a dtype's width.
    for variable_name in [SEGMENT, ARM, *list_dimensions(cells)]:
        sha256_hash.update(json.dumps([variable_name, [str(value) for value in cells[variable_name].values]]).encode())
    # A dimension may bear one of these names: with dims (segment) it is hashed above already.
    for variable_name in (VALUE, VALUE_LABEL, "start", "end", COVARIATE, INPUT_COLUMN, PRE_COVARIATE):
        if variable_name in cells.coords and cells[variable_name].dims != (SEGMENT,):
            sha256_hash.update(json.dumps([variable_name, cells[variable_name].values.tolist()]).encode())
    for variable_name in sorted(map(str, cells.data_vars)):
        values = np.ascontiguousarray(cells[variable_name].values, dtype="<f8")
        sha256_hash.update(variable_name.encode() + str(values.shape).encode() + values.tobytes())
    sha256_hash.update(json.dumps([cells.attrs["outcome"], cells.attrs["control"]]).encode())
    if "horizon" in cells.attrs:
        sha256_hash.update(json.dumps(float(cells.attrs["horizon"])).encode())
    return sha256_hash.hexdigest()


def check_cell_table(cells: xr.Dataset) -> xr.Dataset:
    """Return `cells` unchanged if they keep the contract.

    Raises
    ------
    DataError
        If this is no cell table, or a variable, dim, label or value breaks the contract; the message names it.
    """
    if not isinstance(cells, xr.Dataset):
        raise DataError(
            f"{describe_type(cells)} is no cell table; make one with hte.cells.from_rows, or from_summary where the "
            "data are sums already"
        )
    kind = identify_kind(cells)
    _check_labels(cells, kind)
    _check_texts(cells)
    for variable_name in map(str, cells.data_vars):
        cell_variable = CELL_VARIABLES[variable_name]
        values = cells[variable_name]
        if values.dims != cell_variable.dims:
            raise DataError(f"{variable_name} has dims {values.dims}, the cell table needs {cell_variable.dims}")
        if values.dtype.kind != cell_variable.dtype_kind:
            needed_dtype = "int64" if cell_variable.dtype_kind == "i" else "float64"
            raise DataError(f"{variable_name} has dtype {values.dtype}; it must be {needed_dtype}")
    _check_values(cells)
    return cells


def _check_labels(cells: xr.Dataset, kind: CellKind) -> None:
    for attr_name in ("outcome", "control", "dimensions"):
        if attr_name not in cells.attrs:
            raise DataError(f"the cell table lacks the attribute {attr_name!r}; make it with bayes_hte.cells")
    for dim_name in (SEGMENT, ARM):
        if dim_name not in cells.coords or cells.sizes.get(dim_name, 0) == 0:
            raise DataError(f"the cell table needs at least one labelled {dim_name}")
        labels = [str(value) for value in cells[dim_name].values]
        if len(set(labels)) != len(labels):
            raise DataError(
                f"{dim_name} labels repeat: {sorted({label for label in labels if labels.count(label) > 1})[:5]}"
            )
    for dimension in list_dimensions(cells):
        if dimension not in cells.coords or cells[dimension].dims != (SEGMENT,):
            raise DataError(f"the cell table lacks the coordinate {dimension!r} with dims ('segment',)")
    control = cells.attrs["control"]
    # Estimates are contrasts with a control already, so their tables hold treated arms only.
    if kind != "estimates" and (not control or str(cells[ARM].values[0]) != control):
        raise DataError(
            f"the control arm {control!r} must come first; arms are {[str(arm) for arm in cells[ARM].values]}"
        )


def _check_texts(cells: xr.Dataset) -> None:
    """Raise DataError for labels and attributes that no file can hold: a NUL, or half of a surrogate pair."""
    for dimension in list_dimensions(cells):
        check_writable("the dimension", [dimension])
    for attr_name, attr_value in cells.attrs.items():
        if isinstance(attr_value, str):
            check_writable(f"the {attr_name}", [attr_value])
    for coord_name, labels in cells.coords.items():
        if labels.dtype.kind in "UO":
            check_writable(f"a label of {str(coord_name)!r},", list(map(str, labels.values)))


def check_writable(text_role: str, texts: list[str]) -> None:
    """Raise DataError where one of the texts holds a NUL or a lone surrogate."""
    joined_texts = "".join(texts)  # one search for all: a table may have many thousands of labels
    if "\0" not in joined_texts and not _LONE_SURROGATE.search(joined_texts):
        return
    offending_text = next(text for text in texts if "\0" in text or _LONE_SURROGATE.search(text))
    bad_character = "a NUL character" if "\0" in offending_text else "half of a character (a lone surrogate)"
    raise DataError(
        f"{text_role} {offending_text[:80]!r} holds {bad_character}, which no file can hold; remove it, or read the "
        "data in their own encoding"
    )


def _check_values(cells: xr.Dataset) -> None:
    _check_measurable(cells)
    cell_has_data = has_data(cells)
    for variable_name in _NON_NEGATIVE_VARIABLES:
        if variable_name in cells and not bool((cells[variable_name] >= 0).all()):
            raise DataError(f"{variable_name} must not be negative")
    _check_parts(cells)
    if "events" in cells and "exposure" not in cells and bool((cells["events"] > cells["n"]).any()):
        cell_name = _name_first_cell(cells, cells["events"] > cells["n"])
        raise DataError(f"more events than units in {cell_name}; check which column is n and which is events")
    for variable_name in ("mean", "estimate", "se"):
        # An empty cell has no mean: its NaN is allowed, and a number in it is not looked at.
        if variable_name in cells and not bool(np.isfinite(cells[variable_name].where(cell_has_data, 0.0)).all()):
            cell_name = _name_first_cell(cells, cell_has_data & ~np.isfinite(cells[variable_name]))
            raise DataError(f"{variable_name} is not finite in {cell_name}")
    if "se" in cells and bool((cell_has_data & ~(cells["se"] > 0)).any()):
        cell_name = _name_first_cell(cells, cell_has_data & ~(cells["se"] > 0))
        raise DataError(f"a standard error must be greater than 0, but is not in {cell_name}")


def _check_measurable(cells: xr.Dataset) -> None:
    """Raise DataError for numbers whose squares overflow, such as a 1e308 that stands for a missing value."""
    for variable_name in map(str, cells.data_vars):
        magnitudes = abs(cells[variable_name])
        is_too_large = magnitudes > (
            LARGEST_CELL_NUMBER**2 if variable_name in _SQUARED_VARIABLES else LARGEST_CELL_NUMBER
        )
        # Sums of squares and covariances are never NaN in a valid table: one is the trace of an overflow.
        if variable_name in _SQUARED_VARIABLES:
            is_too_large |= magnitudes.isnull()
        if CELL_VARIABLES[variable_name].dtype_kind == "f" and bool(is_too_large.any()):
            first_value = cells[variable_name].values[is_too_large.values][0]
            cell_name = _name_first_cell(cells, is_too_large)
            raise DataError(
                f"{variable_name} is {first_value:g} in {cell_name}: the numbers there are too large, and one like "
                "1e308 often stands for a missing value; clean them, or state them in larger units, below "
                f"{LARGEST_CELL_NUMBER:g}"
            )
    if "recipe" not in cells.attrs:  # what is computed from rows is small where these hardly differ
        _check_not_tiny(cells, "se", 1 / LARGEST_CELL_NUMBER)


def check_precision(cells: xr.Dataset) -> None:
    """Raise DataError if what is known of a cell is more precise than anything can be, so that no model can use it."""
    _check_not_tiny(cells, "se", 1 / LARGEST_CELL_NUMBER)
    _check_not_tiny(cells, "ss", LARGEST_CELL_NUMBER**-2)


def _check_not_tiny(cells: xr.Dataset, variable_name: str, lower_limit: float) -> None:
    if variable_name not in cells:
        return
    values = cells[variable_name]
    is_too_small = (values > 0) & (values < lower_limit)
    if bool(is_too_small.any()):
        first_value, cell_name = values.values[is_too_small.values][0], _name_first_cell(cells, is_too_small)
        raise DataError(
            f"{variable_name} is {first_value:g} in {cell_name}: that is too small to be measured; check it, or state "
            f"the outcome in smaller units, so that errors are above {1 / LARGEST_CELL_NUMBER:g}"
        )


def _check_parts(cells: xr.Dataset) -> None:
    """Raise DataError where variables of the same cell contradict each other."""
    if "covariates" in cells and not bool(np.isfinite(cells["covariates"]).all()):
        raise DataError("a covariate is not finite; give every segment a number for each covariate")
    if "exposure" in cells:
        if not bool(np.isfinite(cells["exposure"]).all()):
            raise DataError("exposure must be finite")
        events_without_exposure = (cells["events"] > 0) & ~(cells["exposure"] > 0)
        if bool(events_without_exposure.any()):
            raise DataError(f"events without exposure in {_name_first_cell(cells, events_without_exposure)}")
    if "histogram" in cells:
        _check_histogram(cells)
    if "positive" in cells:
        if bool((cells["positive"] > cells["n"]).any()):
            raise DataError(
                f"more positive outcomes than units in {_name_first_cell(cells, cells['positive'] > cells['n'])}"
            )
        missing_log_mean = (cells["positive"] > 0) & ~np.isfinite(cells["log_mean"])
        if bool(missing_log_mean.any()):
            raise DataError(f"log_mean is not finite in {_name_first_cell(cells, missing_log_mean)}")
    if "failures" in cells:
        _check_intervals(cells)


def _check_histogram(cells: xr.Dataset) -> None:
    outcome_values = cells[VALUE].values if VALUE in cells.coords else np.array([])
    # Ordinal outcomes take their order from here, and with a single value there is nothing to compare.
    is_number = outcome_values.dtype.kind in "if"
    if not is_number or len(outcome_values) < 2 or not bool((np.diff(outcome_values) > 0).all()):
        raise DataError("a histogram needs two values of the outcome at least, numbers in ascending order")
    if not bool((abs(outcome_values) <= LARGEST_CELL_NUMBER).all()):
        largest_value = outcome_values[abs(outcome_values).argmax()]
        raise DataError(
            f"the outcome has the value {largest_value:g}, which often stands for a missing one; "
            f"clean it, or state the outcome in larger units, below {LARGEST_CELL_NUMBER:g}"
        )
    if VALUE_LABEL in cells.coords and (
        cells[VALUE_LABEL].dims != (VALUE,) or len(set(list_answers(cells))) < len(outcome_values)
    ):
        raise DataError("the words of a histogram's values must differ, one for each value")
    # n = Σ_value histogram
    differs_from_n = cells["histogram"].sum(VALUE) != cells["n"]
    if bool(differs_from_n.any()):
        raise DataError(f"a histogram does not add up to n in {_name_first_cell(cells, differs_from_n)}")


def _check_intervals(cells: xr.Dataset) -> None:
    missing_coords = [
        coord_name
        for coord_name in ("start", "end")
        if coord_name not in cells.coords or cells[coord_name].dims != (INTERVAL,)
    ]
    if missing_coords or not float(cells.attrs.get("horizon", 0)) > 0:
        raise DataError("survival cells need start(interval), end(interval) and a horizon; make them with from_times")
    # 0 = start_1 < end_1 = start_2 < end_2 = …
    interval_starts, interval_ends = cells["start"].values, cells["end"].values
    if (
        interval_starts[0] != 0
        or bool((interval_starts[1:] != interval_ends[:-1]).any())
        or bool((interval_ends <= interval_starts).any())
    ):
        raise DataError("intervals must begin at 0 and follow each other without gaps")
    events_without_time = ((cells["failures"] > 0) & ~(cells["at_risk"] > 0)).any(INTERVAL)
    if bool(events_without_time.any()):
        raise DataError(f"events without time at risk in {_name_first_cell(cells, events_without_time)}")


def _name_first_cell(cells: xr.Dataset, condition: xr.DataArray) -> str:
    """Name the first cell where a condition holds and count such cells; name a segment if the condition has no arms."""
    if ARM not in condition.dims:  # covariates and covariances are known of segments, not of cells
        return f"segment {str(cells[SEGMENT].values[np.nonzero(condition.transpose(SEGMENT, ...).values)[0][0]])!r}"
    cell_condition = condition.any([other_dim for other_dim in condition.dims if other_dim not in (SEGMENT, ARM)])
    segment_indices, arm_indices = np.nonzero(cell_condition.transpose(SEGMENT, ARM).values)
    cell_name = (
        f"segment {str(cells[SEGMENT].values[segment_indices[0]])!r}, arm {str(cells[ARM].values[arm_indices[0]])!r}"
    )
    return cell_name if len(segment_indices) == 1 else f"{len(segment_indices)} cells, the first {cell_name}"
