"""Make the cell table that a plan asks for, and write a cell table as a data frame. Needs no model."""

from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte.errors import PlanError
from bayes_hte.spec import cell_table as schema
from bayes_hte.spec.plan import Plan


def from_plan(plan: Plan, folder: Path, *, data: Any = None, drop_missing: bool = False) -> xr.Dataset:
    """Make the cell table that a plan asks for.

    Raises
    ------
    PlanError
        If neither the plan nor the caller names the data.
    DataError
        If the data cannot be analysed as asked.
    """
    from bayes_hte import cells

    data_options = plan.data
    if data is None and data_options.path is None:
        raise PlanError("the plan names no data: add data.path, or pass --data FILE")
    table = folder / str(data_options.path) if data is None else data
    call_options = data_options.model_dump(exclude={"form", "path", "shares"}, exclude_none=True)
    if data_options.segments is not None:
        call_options["segments"] = list(data_options.segments)
    # The sections of the plan have the keywords of these functions as keys.
    match data_options.form:
        case "rows":
            call_options["drop_missing"] = data_options.drop_missing or drop_missing
            cell_table = cells.from_rows(table, **call_options)
        case "summary":
            cell_table = cells.from_summary(table, **call_options)
        case "wide":
            cell_table = cells.from_wide(table, **call_options)
        case "table":
            cell_table = cells.from_table(table, **call_options)
        case "levels":
            cell_table = cells.from_levels(table, **call_options)
        case "times":
            call_options["drop_missing"] = data_options.drop_missing or drop_missing
            cell_table = cells.from_times(table, **call_options)
        case "estimates":
            if data_options.covariance is not None:
                call_options["covariance"] = folder / data_options.covariance
            cell_table = cells.from_estimates(table, **call_options)
    shares = getattr(data_options, "shares", None)  # published estimates have none
    if shares is not None:
        cell_table = cells.with_shares(cell_table, shares)
    return cell_table if plan.privacy is None else cells.protect(cell_table, plan.privacy.min_units, plan.privacy.small)


def _tabulate_long_cells(cells: xr.Dataset) -> pd.DataFrame:
    """Tabulate histograms or survival: one row per segment, arm and value or interval."""
    extra_dim, variable_names = (
        (schema.VALUE, ["histogram"]) if "histogram" in cells else (schema.INTERVAL, ["failures", "at_risk"])
    )
    long_table = cells[variable_names].to_dataframe(dim_order=[schema.SEGMENT, schema.ARM, extra_dim]).reset_index()
    if "histogram" in cells:
        # A value without a row has no units: most combinations have none.
        long_table = (
            long_table[long_table["histogram"] > 0].rename(columns={"histogram": "units"}).reset_index(drop=True)
        )
        return long_table[[*schema.list_dimensions(cells), schema.ARM, extra_dim, "units"]]
    return long_table[[*schema.list_dimensions(cells), schema.ARM, "start", "end", *variable_names]]


def tabulate_cells(cells: xr.Dataset) -> pd.DataFrame:
    """Tabulate cells as a data frame: one row per segment and arm, one column per dimension and statistic.

    Units by value of the outcome, and failures by interval, have one row for each of these; `from_levels` takes the
    former.
    """
    if "histogram" in cells or "failures" in cells:
        return _tabulate_long_cells(cells)
    variable_names = [name for name in map(str, cells.data_vars) if cells[name].dims == (schema.SEGMENT, schema.ARM)]
    flat_table = cells[variable_names].to_dataframe(dim_order=[schema.SEGMENT, schema.ARM]).reset_index()
    # sd = √(SS / (n − 1)): people read standard deviations, and `from_summary` takes them.
    if "ss" in variable_names:
        variable_names[variable_names.index("ss")] = "sd"
        flat_table["sd"] = (flat_table["ss"] / (flat_table["n"] - 1).where(flat_table["n"] > 1)) ** 0.5
    if "log_ss" in variable_names:
        variable_names[variable_names.index("log_ss")] = "log_sd"
        flat_table["log_sd"] = (
            flat_table["log_ss"] / (flat_table["positive"] - 1).where(flat_table["positive"] > 1)
        ) ** 0.5
    return flat_table[[*schema.list_dimensions(cells), schema.ARM, *variable_names]]
