"""Survival at stated times, per segment and arm, from the hazards of a piecewise exponential fit."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte import schema
from bayes_hte.asked import described, number
from bayes_hte.effects import cells_of, family_of, parameters
from bayes_hte.errors import DataError, ModelError
from bayes_hte.families.piecewise_exponential import lengths, risk
from bayes_hte.layout import Parameters
from bayes_hte.summary import Question, describe


def survival(tree: xr.DataTree, times: Sequence[float] | float | None, question: Question) -> pd.DataFrame:
    """One row per segment, arm and time; see `Fit.survival`.

    Raises
    ------
    ModelError
        If the outcome is not survival.
    DataError
        If a time is not within the follow-up.
    """
    if family_of(tree).name != "piecewise_exponential":
        raise ModelError('survival is known of family "piecewise_exponential"; make the cells with from_times')
    cells, draws = cells_of(tree), parameters(tree)
    frames = [_at(cells, draws, time, question) for time in _checked(times, cells)]
    found = pd.concat(frames, ignore_index=True)
    order = {str(label): place for place, label in enumerate(cells[schema.SEGMENT].values)}
    found["segment"] = found["segment"].map(order)
    found = found.sort_values(["segment", "arm", "time"], kind="stable", ignore_index=True)
    rows = found.pop("segment").to_numpy()
    levels = {name: cells[name].values[rows].astype(str) for name in schema.dimensions(cells)}
    return pd.concat([pd.DataFrame(levels), found], axis=1)


def _checked(times: Sequence[float] | float | None, cells: xr.Dataset) -> list[float]:
    given = (
        [float(cells.attrs["horizon"])] if times is None else np.atleast_1d(np.asarray(times, dtype=object)).tolist()
    )
    asked = [time for each in given if (time := number(each)) is not None]
    if len(asked) < len(given):
        raise DataError(f"times are {described(times)}; give numbers in the unit of the data, such as [7, 30]")
    last = float(cells["end"].values[-1])
    wrong = [time for time in asked if not 0 < time <= last]
    if wrong or not asked:
        raise DataError(f"survival at {wrong} cannot be told: nobody was followed beyond {last:g}; times are above 0")
    return asked


def _at(cells: xr.Dataset, draws: Parameters, time: float, question: Question) -> pd.DataFrame:
    baseline, effect, hazards = draws["baseline"], draws["effect"], draws["hazards"]
    spent = lengths(cells, time)
    control = 1 - risk(baseline, hazards, spent)
    treated = 1 - risk((baseline + effect).transpose(*effect.dims), hazards, spent)
    told = describe(treated - control, question)
    columns = {
        "survival_control": control.mean(("chain", "draw")).broadcast_like(told["effect"]),
        "survival_treated": treated.mean(("chain", "draw")),
        "difference": told.pop("effect"),
        **told,
    }
    data = xr.Dataset({name: values.reset_coords(drop=True) for name, values in columns.items()})
    frame = data.to_dataframe(dim_order=["segment", "arm"]).reset_index()[["segment", "arm", *columns]]
    frame.insert(2, "time", time)
    return frame
