"""Units by value of the outcome: counts, ratings and other outcomes of few values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte._support.validation import check_nonempty_text, check_not_none
from bayes_hte.cells.build import CellCoords, CellValues, TableAttributes, build_cell_table
from bayes_hte.cells.reading.answers import AnswerLevels, AnswerScale, describe_scale, explain_order, parse_levels
from bayes_hte.cells.reading.engines import check_arms, check_dimensions
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, CellKey, match_label
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.summaries.small_tables import (
    FloatValues,
    check_distinct,
    check_finite,
    read_summary_rows,
    require_whole_numbers,
)
from bayes_hte.errors import DataError
from bayes_hte.spec.cell_table import VALUE, VALUE_LABEL

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table

MAX_VALUES = 1000
"""An outcome with more values is measured rather than counted: its mean says as much in less space."""

MAX_HISTOGRAM_ENTRIES = 20_000_000
"""Cells times values that a histogram may have: 160 MB of int64, which any laptop can hold."""


def build_histogram(
    cell_keys: Sequence[CellKey],
    outcome_values: FloatValues,
    unit_counts: npt.NDArray[np.int64],
    outcome_name: str,
    scale: AnswerScale | None = None,
) -> tuple[list[CellKey], dict[str, CellValues], CellCoords]:
    """Build the histograms of cells from numbers of units by cell and value; messages say `outcome_name`.

    With the scale of the answers, those that nobody gave are values too, with 0 units.

    Raises
    ------
    DataError
        If there are too many values, or only one.
    """
    distinct_values = np.unique(outcome_values[unit_counts > 0])
    check_value_count(distinct_values, outcome_name)
    if len(distinct_values) < 2:
        single_value = scale.name_answers(distinct_values) if scale is not None else map("{:g}".format, distinct_values)
        observation = (
            f"it is {next(iter(single_value))} for every unit" if len(distinct_values) else "there are no units"
        )
        raise DataError(f"the outcome does not vary: {observation}, so no effect can be seen; check {outcome_name}")
    if scale is not None:
        scale.refuse_strays(distinct_values, outcome_name)
        distinct_values = np.array(scale.numbers)
    # In the order of first appearance, as `pool_groups` keeps it.
    cell_index = {key: i for i, key in enumerate(dict.fromkeys(cell_keys))}
    # Rows are counted by then; a table of all cells and values is what memory may not hold.
    if len(cell_index) * len(distinct_values) > MAX_HISTOGRAM_ENTRIES:
        raise DataError(
            f"{len(cell_index):,} cells with {len(distinct_values):,} values of {outcome_name} are too many for "
            "histograms; group the levels "
            'of the dimensions first, or use metric="mean"'
        )
    cell_of_count = np.array([cell_index[key] for key in cell_keys], dtype=np.intp)
    cell_histograms = np.zeros((len(cell_index), len(distinct_values)), dtype=np.int64)
    has_units = unit_counts > 0
    # `add.at` and not `+=`: the same cell and value may come several times.
    np.add.at(
        cell_histograms,
        (cell_of_count[has_units], np.searchsorted(distinct_values, outcome_values[has_units])),
        unit_counts[has_units],
    )
    coords: dict[str, tuple[str, Sequence[str] | FloatValues]] = {VALUE: (VALUE, distinct_values + 0.0)}  # no -0.0
    if scale is not None and scale.words:
        coords[VALUE_LABEL] = (VALUE, list(scale.words))
    return list(cell_index), {"n": cell_histograms.sum(axis=-1), "histogram": cell_histograms}, coords


def check_value_count(outcome_values: FloatValues, outcome_name: str) -> None:
    """Raise DataError if there are too many distinct values."""
    value_count = len(np.unique(outcome_values))
    if value_count > MAX_VALUES:
        raise DataError(
            f"{outcome_name} has {value_count:,} values or more, and a histogram holds {MAX_VALUES:,}; "
            'use metric="mean", or round the outcome'
        )


def from_levels(
    table: "Table",
    *,
    arm: str,
    control: str,
    segments: Sequence[str],
    value: str,
    count: str,
    levels: AnswerLevels | None = None,
    outcome: str = "outcome",
    fold_labels: bool = False,
    decimal: DecimalMark | None = None,
) -> xr.Dataset:
    """Read a long table with one row per segment, arm and value of the outcome, and the number of its units.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, the path of a file, or a
        `DataSource`.
    arm
        Column that names the arm.
    control
        The arm that the others are compared with, as text.
    segments
        Columns that define the segments: the dimensions.
    value
        Column with the value of the outcome: a number, such as stars of a rating or visits in a week, or an answer in
        words, where the column is one of ordered categories or `levels` gives the order.
    count
        Column with the units that have it; a value without a row has none.
    levels
        All answers that could be given, the lowest first; without them those of ordered categories, or the numbers
        that occur. One that nobody chose is kept. Words are numbered 1, 2, … and kept beside their numbers.
    outcome
        What was measured, for tables and reports.
    fold_labels
        Take labels that differ only in case, spaces or Unicode form for one, in the spelling that most rows have (that
        of the control stays), and say so in a note.
    decimal
        "," or ".": the mark of decimals in a text file. Without it a comma is taken for one, with a note, where nothing
        else can be meant.

    Returns
    -------
    xarray.Dataset
        n with dims (segment, arm), the control first, and histogram with dims (segment, arm, value). Values that no
        unit has are left out, unless they are known to be possible. Words are the coordinate value_label.

    Raises
    ------
    ArgumentError
        If the levels are no list of two or more answers in order.
    DataError
        If columns are missing or used twice, a row appears twice, a value is no finite number, a count is no whole
        number, the control or a second arm is not there, the outcome does not vary, or it has more than 1,000 values;
        if answers are words without an order, or not among the levels.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile"] * 5,
    ...         "arm": ["old", "old", "new", "new", "new"],
    ...         "stars": [1, 5, 1, 3, 5],
    ...         "users": [40, 60, 30, 20, 50],
    ...     }
    ... )
    >>> cells = from_levels(table, arm="arm", control="old", segments=["device"], value="stars", count="users")
    >>> cells["histogram"].sel(segment="mobile").values.tolist()
    [[40, 0, 60], [30, 20, 50]]

    Answers in words, of which nobody gave one:

    >>> words = table.assign(stars=["bad", "good", "bad", "fair", "good"])
    >>> options = {"arm": "arm", "control": "old", "segments": ["device"], "value": "stars", "count": "users"}
    >>> cells = from_levels(words, **options, levels=["awful", "bad", "fair", "good"])
    >>> cells["value_label"].values.tolist(), cells["histogram"].sel(segment="mobile", arm="new").values.tolist()
    (['awful', 'bad', 'fair', 'good'], [0, 30, 20, 50])
    """
    check_not_none(arm=arm, control=control, value=value, count=count)
    check_nonempty_text(outcome=outcome)
    stated_scale = parse_levels(levels)
    dims = check_dimensions(segments, {"arm": arm, "value": value, "count": count}, reserved_names={VALUE, VALUE_LABEL})
    with explain_order(value, role="value"):
        rows = read_summary_rows(
            table,
            dims=dims,
            arm_column=arm,
            columns_by_role={"value": value, "count": count},
            fold_labels=fold_labels,
            control=control,
            decimal=decimal,
            answer_role="value",
            stated_scale=stated_scale,
        )
    check_finite(rows, "value")
    unit_counts = require_whole_numbers(rows, "count")
    outcome_values = rows.numbers_by_role["value"]
    scale = rows.answer_scale
    has_words = scale is not None and bool(scale.words)
    value_names = (
        scale.name_answers(outcome_values) if scale is not None and has_words else map("{:g}".format, outcome_values)
    )
    check_distinct(
        list(zip(rows.cell_keys, value_names, strict=True)),
        lambda cell_value: (
            f"value {cell_value[1]} of segment {LEVEL_SEPARATOR.join(cell_value[0][0])!r}, arm {cell_value[0][1]!r}"
        ),
    )
    attributes = TableAttributes(
        outcome_name=outcome,
        control_arm=match_label(control, rows.arm_labels),
        dims=dims,
        source_text=rows.source_text,
        notes=[*rows.notes, *describe_scale(scale, outcome_values[unit_counts > 0])],
        level_orders=rows.level_orders,
    )
    # An arm whose counts are all 0 was never seen.
    seen_arms = (label for (_, label), unit_count in zip(rows.cell_keys, unit_counts, strict=True) if unit_count)
    check_arms(seen_arms, attributes.control_arm, arm)
    cell_keys, variables, coords = build_histogram(
        rows.cell_keys, outcome_values, unit_counts, f"the column {value!r}", scale
    )
    return build_cell_table(cell_keys, variables, attributes, extra_coords=coords)
