"""Outcomes of 0 and 1: events[cell] ~ Binomial(n, p), logit p = eta."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.cells.build import CellCoords
from bayes_hte.cells.simulation.outcomes.law import (
    NO_COORDS,
    CountGrid,
    DrawnValues,
    FloatGrid,
    LawParameters,
    OutcomeLink,
)


@dataclass(frozen=True, slots=True)
class BinaryLaw:
    """Units have the outcome 1 with the probability p, else 0."""

    outcome_column: str
    link: OutcomeLink = "logit"
    range_phrase: str = "a probability lies between 0 and 1"
    default_baseline: float = 0.1

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options of `from_rows`."""
        return {"outcome": self.outcome_column}

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means are probabilities; 0 and 1 have no finite log-odds."""
        return (mean > 0) & (mean < 1)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Find the log-odds."""
        return np.asarray(special.logit(mean))

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Find the probability."""
        return np.asarray(special.expit(eta))

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find the probability of every cell."""
        return {"mean": self.find_mean(eta)}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Find √(p (1 − p))."""
        # Var y = E y² − (E y)² = p − p², as y² = y
        return np.sqrt(parameters["mean"] * (1 - parameters["mean"]))

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw n and the binomial number of events."""
        # A sum of n independent 0s and 1s: the binomial number holds all that the units tell of p.
        return {"n": n, "events": rng.binomial(n, parameters["mean"])}

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label no axis: there is none of its own."""
        return NO_COORDS

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw 0 or 1 for every unit."""
        return {self.outcome_column: (rng.random(parameters["mean"].shape) < parameters["mean"]).astype(np.int64)}
