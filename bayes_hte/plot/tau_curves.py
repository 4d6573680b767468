"""What a tau trace shows, read from tables: curves of effects given tau, and the posterior of tau."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from bayes_hte._support.phrases import choose_decimals, format_number, shorten_text
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.plot.arrangement import describe_selection, select_outstanding

TauArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TauPosterior:
    """Posterior of tau in one arm: density, median and central interval, whose values are points of the grid."""

    tau_grid: TauArray
    density: TauArray
    ci_low: float
    median: float
    ci_high: float

    def describe_interval(self, interval_name: str) -> str:
        """Describe median and interval in words, with two digits of the median."""
        decimal_places = choose_decimals([self.median])
        low, median, high = (
            format_number(value, decimal_places, sign=False) for value in (self.ci_low, self.median, self.ci_high)
        )
        return f"posterior median {median}, {interval_name} {low} to {high}"


@dataclass(frozen=True, slots=True)
class EffectCurve:
    """Effect of one segment at every tau, its weight, and whether its sign hinges on tau."""

    segment_label: str
    tau_grid: TauArray
    effects: TauArray
    weight: float
    changes_sign: bool


def read_curves(
    effect_table: pd.DataFrame,
    density_table: pd.DataFrame,
    dimension_names: Sequence[str],
    ci_prob: float,
    effect_factor: float,
) -> dict[str, tuple[list[EffectCurve], TauPosterior]]:
    """Read the curves of every arm and the posterior of its tau, in the order of the table."""
    if not 0 < ci_prob < 1:
        raise ArgumentError(f"ci_prob must be between 0 and 1, found {ci_prob}")
    row_weights, _ = weigh_rows(effect_table)
    curves_by_arm: dict[str, list[EffectCurve]] = {}
    posterior_by_arm = {
        arm: _summarise_tau(arm, arm_rows, ci_prob)
        for (arm,), arm_rows in _split_table(density_table, ["arm"], "density").items()
    }
    for (arm, *level_names), arm_rows in _split_table(effect_table, ["arm", *dimension_names], "effect").items():
        if arm not in posterior_by_arm:
            raise DataError(f"the table of density lacks the arm {arm!r}; it has {sorted(posterior_by_arm)}")
        arm_curves = curves_by_arm.setdefault(arm, [])
        # At the largest tau an effect owes least to other segments: its precision is the segment's own.
        curve_weight = row_weights[arm_rows.index[-1]]
        arm_curves.append(
            _read_curve((arm, *level_names), arm_rows, posterior_by_arm[arm], effect_factor, curve_weight)
        )
        if not np.array_equal(arm_curves[0].tau_grid, arm_curves[-1].tau_grid):
            both_labels = f"{arm_curves[0].segment_label!r} and {arm_curves[-1].segment_label!r}"
            raise DataError(f"{both_labels} in arm {arm!r} have different grids of tau")
    return {arm: (arm_curves, posterior_by_arm[arm]) for arm, arm_curves in curves_by_arm.items()}


def select_curves(
    curves_by_arm: dict[str, tuple[list[EffectCurve], TauPosterior]], max_segments: int | None
) -> tuple[dict[str, tuple[list[EffectCurve], TauPosterior]], str]:
    """Select the curves of every arm that stand out, where there are too many, and say which these are."""
    selected_curves, selection_note = {}, ""
    for arm, (curves, posterior) in curves_by_arm.items():
        selected_curves[arm] = (curves, posterior)
        if max_segments is None or len(curves) <= max_segments:
            continue
        effects = [float(np.interp(posterior.median, curve.tau_grid, curve.effects)) for curve in curves]
        # At the largest tau an effect is nearly the segment's own.
        movements = [abs(float(curve.effects[-1]) - effect) for curve, effect in zip(curves, effects, strict=True)]
        positions = select_outstanding(effects, movements, max_segments)
        kept_positions = sorted(position for part in positions for position in part)
        selected_curves[arm] = ([curves[position] for position in kept_positions], posterior)
        largest, moved, smallest = positions
        selection_note = describe_selection(len(curves), [len(largest), len(moved), len(smallest)])
    return selected_curves, selection_note


def _split_table(
    table: pd.DataFrame, key_columns: Sequence[str], value_column: str
) -> dict[tuple[str, ...], pd.DataFrame]:
    """Split a table by the values of its key columns, in the order in which they first occur."""
    missing_columns = [
        column_name for column_name in (*key_columns, "tau", value_column) if column_name not in table.columns
    ]
    if missing_columns:
        raise DataError(
            f"the table of {value_column} lacks the columns {missing_columns}; it has {list(map(str, table.columns))}"
        )
    if table.empty:
        raise DataError(f"the table of {value_column} has no rows, so there is nothing to plot")
    positions_by_key: dict[tuple[str, ...], list[int]] = {}
    for row_position, level_key in enumerate(
        zip(*([str(level) for level in table[column_name]] for column_name in key_columns), strict=True)
    ):
        positions_by_key.setdefault(level_key, []).append(row_position)
    return {level_key: table.iloc[positions].set_axis(positions) for level_key, positions in positions_by_key.items()}


def _read_floats(table_rows: pd.DataFrame, column_name: str) -> TauArray:
    if column_name not in table_rows.columns:
        return np.full(len(table_rows), np.nan)
    return np.asarray(table_rows[column_name].astype("Float64").to_numpy(na_value=np.nan), dtype=float)


def _read_tau_grid(table_rows: pd.DataFrame, column_name: str, rows_description: str) -> tuple[TauArray, TauArray]:
    """Read a grid of tau and the values of a column at its points."""
    tau_grid, column_values = _read_floats(table_rows, "tau"), _read_floats(table_rows, column_name)
    if not (np.isfinite(tau_grid).all() and np.isfinite(column_values).all()):
        raise DataError(f"{rows_description}: every tau and {column_name} must be a finite number")
    if len(tau_grid) < 2 or tau_grid[0] < 0 or (np.diff(tau_grid) <= 0).any():
        first_values = tau_grid[:5].tolist()
        raise DataError(
            f"{rows_description}: tau must increase over at least two rows, from 0 or more; found {first_values}"
        )
    return tau_grid, column_values


def _summarise_tau(arm: str, density_rows: pd.DataFrame, ci_prob: float) -> TauPosterior:
    rows_description = f"the density of tau in arm {arm!r}"
    tau_grid, density = _read_tau_grid(density_rows, "density", rows_description)
    if density.min() < 0 or density.max() == 0:
        raise DataError(f"{rows_description} must be positive somewhere and negative nowhere")
    # The density is linear between its points, its integral is not: 32 steps between them make it nearly so.
    fine_grid = np.interp(
        np.linspace(0, len(tau_grid) - 1, 32 * (len(tau_grid) - 1) + 1), np.arange(len(tau_grid)), tau_grid
    )
    fine_density = np.interp(fine_grid, tau_grid, density)
    # F(τ) up to a constant, by the trapezoidal rule; the quantiles solve F(τ) = p.
    cumulated_mass = np.concatenate([[0.0], np.cumsum(np.diff(fine_grid) * (fine_density[1:] + fine_density[:-1]))])
    ci_low, median, ci_high = np.interp(
        [(1 - ci_prob) / 2, 0.5, (1 + ci_prob) / 2], cumulated_mass / cumulated_mass[-1], fine_grid
    ).tolist()
    complete_grid = np.unique([*tau_grid, ci_low, median, ci_high])
    return TauPosterior(complete_grid, np.interp(complete_grid, tau_grid, density), ci_low, median, ci_high)


def _read_curve(
    curve_key: tuple[str, ...],
    curve_rows: pd.DataFrame,
    posterior: TauPosterior,
    effect_factor: float,
    curve_weight: float,
) -> EffectCurve:
    segment_label = LEVEL_SEPARATOR.join(map(shorten_text, curve_key[1:]))
    tau_grid, effects = _read_tau_grid(curve_rows, "effect", f"segment {segment_label!r} in arm {curve_key[0]!r}")
    # A curve is linear between its points: within the interval, its extremes are at points or at the ends.
    inner_tau = tau_grid[(tau_grid > posterior.ci_low) & (tau_grid < posterior.ci_high)]
    effects_inside = np.interp([posterior.ci_low, *inner_tau, posterior.ci_high], tau_grid, effects)
    changes_sign = bool(effects_inside.min() < 0 < effects_inside.max())
    return EffectCurve(segment_label, tau_grid, effect_factor * effects, curve_weight, changes_sign)


def weigh_rows(effect_table: pd.DataFrame) -> tuple[TauArray, str]:
    """Weigh the rows by units or, where no units are known, by the precision of the effect; name what weighs more."""
    unit_counts = _read_floats(effect_table, "n_control") + _read_floats(effect_table, "n_treated")
    if (unit_counts > 0).any():
        return np.where(unit_counts > 0, unit_counts, 0.0), "more units"
    # Precision: w = 1 / SD².
    sd = _read_floats(effect_table, "sd")
    return np.divide(1.0, sd**2, out=np.zeros(len(sd)), where=sd > 0), "a smaller standard error"
