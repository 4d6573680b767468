"""Make the cell table that a plan asks for, and write a cell table as a data frame. Needs no model."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte._support.validation import locate_file
from bayes_hte.cells.combine.planned_shares import with_shares
from bayes_hte.cells.combine.protect import protect
from bayes_hte.cells.reading.files.data_source import DataSource
from bayes_hte.cells.summaries.from_levels import from_levels
from bayes_hte.cells.summaries.from_summary import from_estimates, from_summary
from bayes_hte.cells.summaries.from_table import from_table
from bayes_hte.cells.summaries.from_wide import from_wide
from bayes_hte.cells.summaries.segment_covariates import with_covariates
from bayes_hte.cells.units.from_rows import from_rows
from bayes_hte.cells.units.from_times import from_times
from bayes_hte.errors import ArgumentError, DataError, PlanError
from bayes_hte.spec.cell_table import (
    ARM,
    INTERVAL,
    SEGMENT,
    VALUE,
    VALUE_LABEL,
    encode_text_list,
    list_dimensions,
    list_notes,
    list_validity_warnings,
)
from bayes_hte.spec.data_forms import DATA_KEYS, PLACE_KEYS, DataPlace, Estimates, Rows, Times
from bayes_hte.spec.error_messages import translate_call_words
from bayes_hte.spec.plan import Plan

MAKER_BY_FORM: Mapping[str, Callable[..., xr.Dataset]] = MappingProxyType(
    {
        "rows": from_rows,
        "times": from_times,
        "summary": from_summary,
        "wide": from_wide,
        "table": from_table,
        "levels": from_levels,
        "estimates": from_estimates,
    }
)
"""The function that makes cells from each form of data."""


def from_plan(plan: Plan, folder: Path, *, data: Any = None, drop_missing: bool = False) -> xr.Dataset:
    """Make the cell table that a plan asks for; messages and notes say it in the words of plans.

    Raises
    ------
    PlanError
        If neither the plan nor the caller names the data, or a key of the plan has a value that it cannot take.
    DataError
        If the data cannot be analysed as asked.
    """
    with speak_of_plan():
        cells = _make_cells(plan, find_data(plan, folder, data), folder, drop_missing=drop_missing)
    return translate_notes(cells)


def find_data(plan: Plan, folder: Path, data: Any) -> Any:
    """Find the data: those given, else what the plan names; see `locate_data`.

    Raises
    ------
    PlanError
        If neither the plan nor the caller names the data.
    """
    if data is None and plan.data.path is None and plan.data.connection is None:
        raise PlanError("the plan names no data: add data.path, or pass --data FILE")
    return locate_data(plan.data, folder, data)


@contextmanager
def speak_of_plan() -> Iterator[None]:
    """Say what is wrong with a call in the words of plans, as the arguments are the plan's keys."""
    try:
        yield
    except ArgumentError as error:
        raise PlanError(f"[data]: {translate_call_words(str(error), DATA_KEYS)}") from error
    except DataError as error:
        message = translate_call_words(str(error), DATA_KEYS)
        raise DataError(message, missing_columns=error.missing_columns) from error


def translate_notes(cells: xr.Dataset) -> xr.Dataset:
    """Translate notes that name keywords of the call, for people who wrote a plan."""
    translated_texts = {
        name: encode_text_list([translate_call_words(text, DATA_KEYS) for text in texts])
        for name, texts in (("notes", list_notes(cells)), ("doubts", list_validity_warnings(cells)))
        if name in cells.attrs
    }
    return cells.assign_attrs(translated_texts)


def locate_data(place: DataPlace, folder: Path, data: Any = None) -> Any:
    """Locate the data that a plan in `folder` names: a path, or a `DataSource` where it says more than that.

    Parameters
    ----------
    place
        The table [data] of the plan.
    folder
        Folder of the plan, which its paths are relative to.
    data
        In place of the plan's path or connection; what the plan says of a table, a query or an encoding holds for a
        path then as well.
    """
    if data is not None and not isinstance(data, str | os.PathLike):
        return data
    # A file in place of a server holds what the query would have chosen.
    is_replaced_server = data is not None and place.connection is not None
    options = {} if is_replaced_server else place.model_dump(include={"table", "query", "encoding"}, exclude_none=True)
    if data is None and place.connection is not None:
        return DataSource(connection=place.connection, **options)
    # A path alone stays one: small plain files are then read without DuckDB.
    path = locate_file(str(place.path), folder) if data is None else data
    return DataSource(path, **options) if options else path


def _make_cells(plan: Plan, table: Any, folder: Path, *, drop_missing: bool) -> xr.Dataset:
    data_options = plan.data
    # The sections of the plan have the keywords of these functions as keys.
    call_options = data_options.model_dump(exclude={"form", "shares", *PLACE_KEYS} - {"decimal"}, exclude_none=True)
    if data_options.segments is not None:
        call_options["segments"] = list(data_options.segments)
    if isinstance(data_options, Rows | Times):
        call_options["drop_missing"] = data_options.drop_missing or drop_missing
    if isinstance(data_options, Estimates) and data_options.covariance is not None:
        call_options["covariance"] = locate_file(data_options.covariance, folder)
    return complete_cells(MAKER_BY_FORM[data_options.form](table, **call_options), plan, folder)


def complete_cells(cells: xr.Dataset, plan: Plan, folder: Path) -> xr.Dataset:
    """Complete cells by what a plan says beside its data: covariates, planned shares, and privacy last."""
    if plan.covariates is not None:
        cells = with_covariates(cells, folder / plan.covariates.path, plan.covariates.columns)
    shares = getattr(plan.data, "shares", None)  # published estimates have none
    if shares is not None:
        cells = with_shares(cells, shares)
    return cells if plan.privacy is None else protect(cells, plan.privacy.min_units, plan.privacy.small)


def _tabulate_long_cells(cells: xr.Dataset) -> pd.DataFrame:
    """Tabulate histograms or survival: one row per segment, arm and value or interval."""
    extra_dim, variable_names = (VALUE, ["histogram"]) if "histogram" in cells else (INTERVAL, ["failures", "at_risk"])
    long_table = cells[variable_names].to_dataframe(dim_order=[SEGMENT, ARM, extra_dim]).reset_index()
    if "histogram" in cells:
        # A value without a row has no units: most combinations have none.
        long_table = (
            long_table[long_table["histogram"] > 0].rename(columns={"histogram": "units"}).reset_index(drop=True)
        )
        if VALUE_LABEL in long_table:  # answers in words are shown, and read again, as words
            long_table[VALUE] = long_table[VALUE_LABEL]
        return long_table[[*list_dimensions(cells), ARM, extra_dim, "units"]]
    return long_table[[*list_dimensions(cells), ARM, "start", "end", *variable_names]]


def tabulate_cells(cells: xr.Dataset) -> pd.DataFrame:
    """Tabulate cells as a data frame: one row per segment and arm, one column per dimension and statistic.

    Units by value of the outcome, and failures by interval, have one row for each of these; `from_levels` takes the
    former.
    """
    if "histogram" in cells or "failures" in cells:
        return _tabulate_long_cells(cells)
    variable_names = [name for name in map(str, cells.data_vars) if cells[name].dims == (SEGMENT, ARM)]
    flat_table = cells[variable_names].to_dataframe(dim_order=[SEGMENT, ARM]).reset_index()
    # sd = √(SS / (n − 1)): people read standard deviations, and `from_summary` takes them.
    if "ss" in variable_names:
        variable_names[variable_names.index("ss")] = "sd"
        flat_table["sd"] = (flat_table["ss"] / (flat_table["n"] - 1).where(flat_table["n"] > 1)) ** 0.5
    if "log_ss" in variable_names:
        variable_names[variable_names.index("log_ss")] = "log_sd"
        flat_table["log_sd"] = (
            flat_table["log_ss"] / (flat_table["positive"] - 1).where(flat_table["positive"] > 1)
        ) ** 0.5
    return flat_table[[*list_dimensions(cells), ARM, *variable_names]]
