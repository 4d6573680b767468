"""Times to an event, with hazards that are constant within intervals; units without it by the end are censored.

hazard[interval j] = e^eta · relative_hazards[j]
mean = 1 − exp(−e^eta Σ_j relative_hazards[j] · time_j),   the risk by the horizon, time_j in the interval before it

Units enter an interval, d ~ Binomial(entered, 1 − e^(−hazard · width)) of them have the event in it, at exponential
times cut off at its end, and the others spend all of it at risk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_hte.cells.build import CellCoords
from bayes_hte.cells.simulation.outcomes.law import CountGrid, DrawnValues, FloatGrid, LawParameters, OutcomeLink
from bayes_hte.cells.simulation.outcomes.unit_sums import MAX_UNITS_PER_CELL, sum_units
from bayes_hte.cells.simulation.stated.segments import StatedValues
from bayes_hte.cells.units.from_times import build_interval_coords

TIME_COLUMN, EVENT_COLUMN = "time", "event"


@dataclass(frozen=True, slots=True)
class SurvivalLaw:
    """Units have the event at a time, or are censored at the end of the follow-up.

    Attributes
    ----------
    event_name : str
        What the event is.
    edges : array
        Start of the first interval, 0, and end of every interval; the last is the end of the follow-up.
    relative_hazards : array
        Hazard of each interval relative to the first, (interval,).
    horizon : float
        Time at which risks are compared.
    """

    event_name: str
    edges: StatedValues
    relative_hazards: StatedValues
    horizon: float
    link: OutcomeLink = "log"
    range_phrase: str = "the risk of the event by the horizon lies between 0 and 1"
    default_baseline: float = 0.2

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options of `from_times`."""
        return {
            "time": TIME_COLUMN,
            "event": EVENT_COLUMN,
            "outcome": self.event_name,
            "breaks": self.edges[1:-1].tolist(),
            "horizon": self.horizon,
        }

    @property
    def hazard_to_horizon(self) -> float:
        """Cumulative relative hazard up to the horizon."""
        return float(np.interp(self.horizon, self.edges, self._cumulate_hazards()))

    def _cumulate_hazards(self) -> StatedValues:
        # Λ at each edge: Λ_j = Λ_{j−1} + relative hazard · width
        return np.concatenate([[0.0], np.cumsum(self.relative_hazards * np.diff(self.edges))])

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means are risks."""
        return (mean > 0) & (mean < 1)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Find the log hazard of the first interval that gives a risk by the horizon."""
        # p = 1 − e^(−e^eta Λ)   ⟹   eta = log(−log(1 − p) / Λ)
        return np.asarray(np.log(-np.log1p(-mean) / self.hazard_to_horizon))

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Find the risk by the horizon."""
        return np.asarray(-np.expm1(-np.exp(eta) * self.hazard_to_horizon))

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find the hazard of the first interval."""
        return {"hazard": np.exp(eta)}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Find the SD of the event by the horizon, √(p (1 − p))."""
        survival = np.exp(-parameters["hazard"] * self.hazard_to_horizon)
        return np.asarray(np.sqrt(survival * (1 - survival)))

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw n, and failures and time at risk in every interval."""
        at_start, failures, at_risk = n, [], []
        for relative_hazard, width in zip(self.relative_hazards, np.diff(self.edges), strict=True):
            hazard = np.broadcast_to(parameters["hazard"] * relative_hazard, n.shape)
            failed = rng.binomial(at_start, -np.expm1(-hazard * width))
            at_start = at_start - failed
            failures.append(failed)
            at_risk.append(at_start * width + _sum_failure_times(failed, hazard, float(width), rng))
        return {"n": n, "failures": np.stack(failures, axis=-1), "at_risk": np.stack(at_risk, axis=-1)}

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label the axis of the intervals."""
        return build_interval_coords(self.edges.tolist())

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the time of every unit, and whether it ended with the event."""
        # The cumulative hazard at the event is exponential: its time is where e^eta Λ(t) reaches it.
        reached = rng.exponential(size=parameters["hazard"].shape) / parameters["hazard"]
        cumulative = self._cumulate_hazards()
        has_event = reached < cumulative[-1]
        times = np.interp(reached, cumulative, self.edges)
        return {TIME_COLUMN: np.where(has_event, times, self.edges[-1]), EVENT_COLUMN: has_event.astype(np.int64)}


def _sum_failure_times(failed: CountGrid, hazard: FloatGrid, width: float, rng: np.random.Generator) -> FloatGrid:
    """Sum the times from the start of an interval to the events in it, each exponential and cut off at the end."""
    flat_failed, flat_hazard = failed.ravel(), hazard.ravel()
    # t = −log(1 − u (1 − e^(−hazard · width))) / hazard,   u uniform
    cut_chance = -np.expm1(-flat_hazard * width)

    def draw_times(cell_of_unit: NDArray[np.intp]) -> NDArray[np.float64]:
        uniform = rng.random(len(cell_of_unit))
        return (-np.log1p(-uniform * cut_chance[cell_of_unit]) / flat_hazard[cell_of_unit])[:, None]

    is_large = flat_failed > MAX_UNITS_PER_CELL
    sums = sum_units(np.where(is_large, 0, flat_failed), draw_times)[:, 0]
    if is_large.any():
        mean, variance = _find_cut_moments(flat_hazard[is_large], width)
        count = flat_failed[is_large]
        sums[is_large] = count * mean + np.sqrt(count * variance) * rng.standard_normal(count.shape)
    return sums.reshape(failed.shape)


def _find_cut_moments(hazard: StatedValues, width: float) -> tuple[StatedValues, StatedValues]:
    """Find mean and variance of an exponential time cut off at the end of an interval."""
    # With x = hazard · width:   E t = 1/h − w / (e^x − 1),   Var t = 1/h² − w² e^x / (e^x − 1)²
    x = hazard * width
    ratio = np.where(x > 1e-4, 1 / np.expm1(np.maximum(x, 1e-4)), 1.0)
    mean = np.where(x > 1e-4, 1 / hazard - width * ratio, width / 2)
    variance = np.where(x > 1e-4, 1 / hazard**2 - width**2 * ratio * (1 + ratio), width**2 / 12)
    return mean, np.maximum(variance, 0.0)
