"""The cell table that a plan asks for, and a cell table as a data frame. Needs no model."""

from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte import schema
from bayes_hte.errors import PlanError
from bayes_hte.spec.plan import Plan


def aggregate(plan: Plan, folder: Path, *, data: Any = None, drop_missing: bool = False) -> xr.Dataset:
    """The cell table that a plan asks for.

    Raises
    ------
    PlanError
        If neither the plan nor the caller names the data.
    DataError
        If the data cannot be analysed as asked.
    """
    from bayes_hte import cells

    asked = plan.data
    if data is None and asked.path is None:
        raise PlanError("the plan names no data: add data.path, or pass --data FILE")
    source = folder / str(asked.path) if data is None else data
    options = asked.model_dump(exclude={"form", "path", "shares"}, exclude_none=True)
    if asked.segments is not None:
        options["segments"] = list(asked.segments)
    match asked.form:
        case "rows":
            options["drop_missing"] = asked.drop_missing or drop_missing
            made = cells.from_rows(source, **options)
        case "summary":
            made = cells.from_summary(source, **options)
        case "wide":
            made = cells.from_wide(source, **options)
        case "table":
            made = cells.from_table(source, **options)
        case "levels":
            made = cells.from_levels(source, **options)
        case "times":
            options["drop_missing"] = asked.drop_missing or drop_missing
            made = cells.from_times(source, **options)
        case "estimates":
            if asked.covariance is not None:
                options["covariance"] = folder / asked.covariance
            made = cells.from_estimates(source, **options)
    shares = getattr(asked, "shares", None)  # published estimates have none
    if shares is not None:
        made = cells.with_shares(made, shares)
    return made if plan.privacy is None else cells.protect(made, plan.privacy.min_units, plan.privacy.small)


def _long_frame(cells: xr.Dataset) -> pd.DataFrame:
    """One row per segment, arm and value, or interval."""
    extra, names = (schema.VALUE, ["histogram"]) if "histogram" in cells else (schema.INTERVAL, ["failures", "at_risk"])
    frame = cells[names].to_dataframe(dim_order=[schema.SEGMENT, schema.ARM, extra]).reset_index()
    if "histogram" in cells:
        frame = frame[frame["histogram"] > 0].rename(columns={"histogram": "units"}).reset_index(drop=True)
        return frame[[*schema.dimensions(cells), schema.ARM, extra, "units"]]
    return frame[[*schema.dimensions(cells), schema.ARM, "start", "end", *names]]


def cell_frame(cells: xr.Dataset) -> pd.DataFrame:
    """The cell table as a data frame: one row per segment and arm, one column per dimension and statistic.

    Units by value of the outcome, and failures by interval, have one row for each of these; `from_levels` takes the
    former.
    """
    if "histogram" in cells or "failures" in cells:
        return _long_frame(cells)
    names = [name for name in map(str, cells.data_vars) if cells[name].dims == (schema.SEGMENT, schema.ARM)]
    frame = cells[names].to_dataframe(dim_order=[schema.SEGMENT, schema.ARM]).reset_index()
    if "ss" in names:  # people read standard deviations, and `from_summary` takes them
        names[names.index("ss")] = "sd"
        frame["sd"] = (frame["ss"] / (frame["n"] - 1).where(frame["n"] > 1)) ** 0.5
    if "log_ss" in names:
        names[names.index("log_ss")] = "log_sd"
        frame["log_sd"] = (frame["log_ss"] / (frame["positive"] - 1).where(frame["positive"] > 1)) ** 0.5
    return frame[[*schema.dimensions(cells), schema.ARM, *names]]
