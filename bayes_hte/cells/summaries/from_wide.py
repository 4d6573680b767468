"""Read tables with one row per segment, in which each arm has columns of its own: 2×2 tables among them."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte._support.validation import check_nonempty_text, check_not_none
from bayes_hte.cells.build import TableAttributes
from bayes_hte.cells.reading.engines import check_dimensions
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, format_label, match_label
from bayes_hte.cells.reading.text_numbers import DecimalMark
from bayes_hte.cells.summaries.from_summary import build_summary_cells
from bayes_hte.cells.summaries.segment_covariates import name_covariate_roles
from bayes_hte.cells.summaries.small_tables import SummaryRows, check_distinct, read_summary_rows
from bayes_hte.cells.summaries.statistics_given import SUMMARY_ROLES, choose_conversion
from bayes_hte.errors import ArgumentError

if TYPE_CHECKING:
    from bayes_hte.cells.reading.engines import Table

type SummaryRole = Literal[
    "n",
    "events",
    "non_events",
    "mean",
    "sd",
    "total",
    "sum_squares",
    "se",
    "exposure",
    "positive",
    "log_mean",
    "log_sd",
    "size",
]
type ArmColumns = Mapping[str, Mapping[SummaryRole, str]]


def from_wide(
    table: "Table",
    *,
    segments: Sequence[str],
    arms: ArmColumns,
    control: str,
    outcome: str = "outcome",
    covariates: Sequence[str] | None = None,
    fold_labels: bool = False,
    decimal: DecimalMark | None = None,
) -> xr.Dataset:
    """Read a summary with one row per segment and a set of columns per arm.

    Parameters
    ----------
    table
        A pandas, Polars, PyArrow, DuckDB, PySpark, Dask or Ibis table, the path of a file, or a
        `DataSource`.
    segments
        Columns that define the segments: the dimensions.
    arms
        For each arm, what its columns mean and what they are called: the keywords of `from_summary` that describe
        outcomes, such as n and events, or events and non_events, and the same for every arm.
    control
        The arm that the others are compared with.
    outcome
        What was measured, for tables and reports.
    covariates
        Columns of numbers that are known of each segment as a whole.
    fold_labels
        Take levels that differ only in case, spaces or Unicode form for one, in the spelling that most rows have, and
        say so in a note.
    decimal
        "," or ".": the mark of decimals in a text file. Without it a comma is taken for one, with a note, where nothing
        else can be meant.

    Returns
    -------
    xarray.Dataset
        As from `from_summary`, with dims (segment, arm), the control first.

    Raises
    ------
    ArgumentError
        If arms are described differently, or in roles that are none.
    ArgumentError, DataError
        As `from_summary` does.

    Notes
    -----
    An arm without any number in a row was not seen in that segment: an empty cell.

    Examples
    --------
    Two trials of a vaccine against tuberculosis, each a 2×2 table (Colditz et al. 1994):

    >>> import pandas as pd
    >>> trials = pd.DataFrame(
    ...     {
    ...         "trial": ["Aronson 1948", "Ferguson & Simes 1949"],
    ...         "tpos": [4, 6],
    ...         "tneg": [119, 300],
    ...         "cpos": [11, 29],
    ...         "cneg": [128, 274],
    ...     }
    ... )
    >>> cells = from_wide(
    ...     trials,
    ...     segments=["trial"],
    ...     arms={
    ...         "vaccine": {"events": "tpos", "non_events": "tneg"},
    ...         "none": {"events": "cpos", "non_events": "cneg"},
    ...     },
    ...     control="none",
    ...     outcome="tuberculosis",
    ... )
    >>> cells["n"].values.tolist()
    [[139, 123], [303, 306]]
    """
    check_not_none(control=control)
    check_nonempty_text(outcome=outcome)
    columns_by_arm = _check_arm_columns(arms)
    # The roles of any arm: they are the same for all.
    roles = next(iter(columns_by_arm.values()))
    convert_rows = choose_conversion({role: column for role, column in roles.items() if role != "size"})
    covariate_columns = name_covariate_roles(covariates)
    column_by_role = {
        _name_arm_role(role, arm): column
        for arm, arm_columns in columns_by_arm.items()
        for role, column in arm_columns.items()
    }
    dims = check_dimensions(segments, {**column_by_role, **covariate_columns})
    wide_rows = read_summary_rows(
        table,
        dims=dims,
        arm_column=None,
        columns_by_role=column_by_role | covariate_columns,
        fold_labels=fold_labels,
        decimal=decimal,
    )
    # Before the arms are stacked, so that the message names rows as they stand in the table.
    check_distinct(
        [levels for levels, _ in wide_rows.cell_keys], lambda levels: f"segment {LEVEL_SEPARATOR.join(levels)!r}"
    )
    rows = _stack_arms(wide_rows, list(columns_by_arm), list(roles), list(covariate_columns))
    attributes = TableAttributes(
        outcome_name=outcome,
        control_arm=match_label(control, columns_by_arm),
        dims=dims,
        source_text=rows.source_text,
        level_orders=rows.level_orders,
    )
    return build_summary_cells(rows, convert_rows, attributes, arm="arms", covariate_columns=covariate_columns)


def _name_arm_role(role: str, arm_name: str) -> str:
    # Messages show this name, so it is a phrase.
    return f"{role} of arm {arm_name!r}"


def _check_arm_columns(arms: ArmColumns) -> dict[str, dict[str, str]]:
    """Check that all arms have columns of the same roles, and return these by the text of the arm."""
    if not isinstance(arms, Mapping) or not arms or not all(isinstance(columns, Mapping) for columns in arms.values()):
        raise ArgumentError(
            f"arms must say for each arm what its columns mean, such as {{'old': {{'n': 'n_old', 'events': "
            f"'events_old'}}, 'new': …}}, not {arms!r}"
        )
    columns_by_arm = {
        format_label(arm) or "": {str(role): column for role, column in columns.items()}
        for arm, columns in arms.items()
    }
    for arm, arm_columns in columns_by_arm.items():
        unknown_roles = [role for role in arm_columns if role not in SUMMARY_ROLES]
        if unknown_roles:
            close_roles = difflib.get_close_matches(unknown_roles[0], SUMMARY_ROLES, n=1)
            hint = (
                f"did you mean {close_roles[0]!r}?"
                if close_roles
                else f"known ones are {quote_names(sorted(SUMMARY_ROLES))}"
            )
            raise ArgumentError(f"no column of an arm can mean {unknown_roles[0]!r}, as said of arm {arm!r}; {hint}")
    if len(columns_by_arm) < len(arms):
        raise ArgumentError(f"two arms have the same name as text: {quote_names([*arms])}; name them differently")
    # One conversion reads all arms, so that they must have the same form.
    first_arm, *other_arms = columns_by_arm
    for arm in other_arms:
        if columns_by_arm[arm].keys() != columns_by_arm[first_arm].keys():
            raise ArgumentError(
                f"arms need the same columns: {first_arm!r} has {quote_names([*columns_by_arm[first_arm]])}, but "
                f"{arm!r} has {quote_names([*columns_by_arm[arm]])}; describe both alike"
            )
    return columns_by_arm


def _stack_arms(
    wide_rows: SummaryRows, arm_names: Sequence[str], roles: Sequence[str], covariate_roles: Sequence[str]
) -> SummaryRows:
    """Stack the columns of the arms: one row per segment and arm, but where an arm has no number in a segment."""
    numbers = {
        role: np.concatenate([wide_rows.numbers_by_role[_name_arm_role(role, arm)] for arm in arm_names])
        for role in roles
    }
    numbers |= {name: np.tile(wide_rows.numbers_by_role[name], len(arm_names)) for name in covariate_roles}
    # A gap in some columns of an arm is an error, which the conversion reports; a gap in all is an empty cell.
    # A size is of the population, which is there without an experiment.
    has_numbers = ~np.all([np.isnan(numbers[role]) for role in roles if role != "size"], axis=0)
    cell_keys = [(levels, arm) for arm in arm_names for levels, _ in wide_rows.cell_keys]
    empty_count = int((~has_numbers).sum())
    notes = (
        [f"{write_count(empty_count, 'cell has', 'cells have')} no numbers in the table: nothing was seen there"]
        if empty_count
        else []
    )
    return SummaryRows(
        [key for key, is_seen in zip(cell_keys, has_numbers, strict=True) if is_seen],
        {name: values[has_numbers] for name, values in numbers.items()},
        [*wide_rows.notes, *notes],
        wide_rows.source_text,
        {
            role: [word for arm in arm_names for word in wide_rows.missing_words.get(_name_arm_role(role, arm), ())]
            for role in roles
        },
        wide_rows.level_orders,
    )
