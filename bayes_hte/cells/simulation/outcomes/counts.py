"""Counts of events over an exposure: events[unit] ~ Poisson(exposure · e^eta).

The sum of independent Poisson counts is Poisson with the sum of their means, so a cell's events need no unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_hte.cells.build import CellCoords
from bayes_hte.cells.simulation.outcomes.law import (
    NO_COORDS,
    CountGrid,
    DrawnValues,
    FloatGrid,
    LawParameters,
    OutcomeLink,
)

EXPOSURE_COLUMN = "exposure"
LARGEST_RATE = 1e12
"""Largest expected count: NumPy's Poisson numbers end near 9e18, and sums of counts stay whole far below it."""


@dataclass(frozen=True, slots=True)
class PoissonLaw:
    """Units have Poisson counts, each over the same exposure.

    Attributes
    ----------
    outcome_column : str
    unit_exposure : array
        Exposure of one unit, (segment, arm).
    """

    outcome_column: str
    unit_exposure: FloatGrid
    link: OutcomeLink = "log"
    range_phrase: str = "a rate is greater than 0"
    default_baseline: float = 1.0

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options of `from_rows`."""
        return {"outcome": self.outcome_column, "exposure": EXPOSURE_COLUMN}

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means are rates."""
        return (mean > 0) & (mean < LARGEST_RATE)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Find the logarithm of the rate."""
        return np.log(mean)

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Find the rate per unit of exposure."""
        return np.exp(eta)

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find rate and exposure of a unit in every cell."""
        return {"mean": np.exp(eta), "exposure": np.broadcast_to(self.unit_exposure, eta.shape)}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Find the SD of a unit's count, √(rate · exposure)."""
        # The variance of a Poisson count is its mean.
        return np.sqrt(parameters["mean"] * parameters["exposure"])

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw n, the exposure of all units, and the Poisson number of events in it."""
        # Σ exposure over the n units, all alike; events ~ Poisson(rate × exposure)
        exposure = n * parameters["exposure"]
        return {"n": n, "events": rng.poisson(parameters["mean"] * exposure), "exposure": exposure}

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label no axis: there is none of its own."""
        return NO_COORDS

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the count of every unit."""
        return {
            self.outcome_column: rng.poisson(parameters["mean"] * parameters["exposure"]),
            EXPOSURE_COLUMN: np.array(parameters["exposure"]),
        }
