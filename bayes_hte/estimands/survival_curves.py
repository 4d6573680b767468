"""Compute survival at stated times, per segment and arm, from the hazards of a fit of times."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.errors import ArgumentError, ModelError
from bayes_hte.estimands.effects import get_fitted_family, select_parameters
from bayes_hte.estimands.tables import EffectQuestion, summarise_draws
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells


def tabulate_survival(
    fit_tree: xr.DataTree, times: Sequence[float] | float | None, question: EffectQuestion
) -> pd.DataFrame:
    """Tabulate survival, one row per segment, arm and time; see `Fit.survival`.

    Raises
    ------
    ModelError
        If the outcome is not survival.
    ArgumentError
        If a time is not within the follow-up.
    """
    family = get_fitted_family(fit_tree)
    compute_risk, compute_restricted_mean = family.compute_risk_by_time, family.compute_restricted_mean
    if compute_risk is None or compute_restricted_mean is None:
        family_names = [f'"{family.name}"' for family in FAMILIES.values() if family.compute_risk_by_time is not None]
        raise ModelError(f"survival is known of family {' or '.join(family_names)}; make the cells with from_times")
    cells, parameter_draws = get_fitted_cells(fit_tree), select_parameters(fit_tree)
    time_tables = []
    for time in _validate_times(times, cells):
        # S(t) = 1 − risk(t)
        control_survival, treated_survival = (
            1 - compute_risk(eta, parameter_draws, cells, time) for eta in _predict_both_arms(parameter_draws)
        )
        control_mean, treated_mean = (
            compute_restricted_mean(eta, parameter_draws, cells, time) for eta in _predict_both_arms(parameter_draws)
        )
        mean_columns = _summarise_mean_times(control_mean, treated_mean, question)
        time_tables.append(_tabulate_at_time(control_survival, treated_survival, time, question, mean_columns))
    survival_table = pd.concat(time_tables, ignore_index=True)
    # Tables were made time by time, but time is the innermost key here; and segments keep the cell table's order,
    # where a sort by label would put segment 10 before segment 2.
    segment_order = {str(label): index for index, label in enumerate(cells[cell_table.SEGMENT].values)}
    survival_table["segment"] = survival_table["segment"].map(segment_order)
    survival_table = survival_table.sort_values(["segment", "arm", "time"], kind="stable", ignore_index=True)
    segment_indices = survival_table.pop("segment").to_numpy()
    level_columns = {
        name: cells[name].values[segment_indices].astype(str) for name in cell_table.list_dimensions(cells)
    }
    return pd.concat([pd.DataFrame(level_columns), survival_table], axis=1)


def _validate_times(times: Sequence[float] | float | None, cells: xr.Dataset) -> list[float]:
    """Read the times as numbers within the follow-up, in the unit of the data; by default the horizon alone."""
    raw_times = (
        [float(cells.attrs["horizon"])] if times is None else np.atleast_1d(np.asarray(times, dtype=object)).tolist()
    )
    valid_times = [time for raw_time in raw_times if (time := to_float(raw_time)) is not None]
    if len(valid_times) < len(raw_times):
        raise ArgumentError(f"times are {describe_value(times)}; give numbers in the unit of the data, such as [7, 30]")
    # Beyond the last interval no hazard was estimated.
    follow_up_end = float(cells["end"].values[-1])
    out_of_range = [time for time in valid_times if not 0 < time <= follow_up_end]
    if out_of_range or not valid_times:
        raise ArgumentError(
            f"survival at {out_of_range} cannot be told: nobody was followed beyond {follow_up_end:g}; "
            "times are above 0"
        )
    return valid_times


def _predict_both_arms(parameter_draws: ParameterDraws) -> tuple[xr.DataArray, xr.DataArray]:
    """Predict eta of the control, (…, segment), and of the treated arms, (…, segment, arm)."""
    baseline, effect = parameter_draws["baseline"], parameter_draws["effect"]
    return baseline, (baseline + effect).transpose(*effect.dims)


def _tabulate_at_time(
    control_survival: xr.DataArray,
    treated_survival: xr.DataArray,
    time: float,
    question: EffectQuestion,
    more_columns: dict[str, xr.DataArray],
) -> pd.DataFrame:
    """Tabulate survival at one time, one row per segment and arm, arms innermost."""
    difference_summary = summarise_draws(treated_survival - control_survival, question)
    table_columns = {
        "survival_control": control_survival.mean(("chain", "draw")).broadcast_like(difference_summary["effect"]),
        "survival_treated": treated_survival.mean(("chain", "draw")),
        "difference": difference_summary.pop("effect"),
        **difference_summary,
        **more_columns,
    }
    column_data = xr.Dataset({name: values.reset_coords(drop=True) for name, values in table_columns.items()})
    time_table = column_data.to_dataframe(dim_order=["segment", "arm"]).reset_index()
    time_table = time_table[["segment", "arm", *table_columns]]
    time_table.insert(2, "time", time)
    return time_table


def _summarise_mean_times(
    control_mean: xr.DataArray, treated_mean: xr.DataArray, question: EffectQuestion
) -> dict[str, xr.DataArray]:
    """Summarise restricted mean times without the event, and their difference with its interval."""
    difference_summary = summarise_draws(treated_mean - control_mean, question)
    return {
        "mean_time_control": control_mean.mean(("chain", "draw")).broadcast_like(difference_summary["effect"]),
        "mean_time_treated": treated_mean.mean(("chain", "draw")),
        "mean_time_difference": difference_summary["effect"],
        "mean_time_low": difference_summary["ci_low"],
        "mean_time_high": difference_summary["ci_high"],
    }
