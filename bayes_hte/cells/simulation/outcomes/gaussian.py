"""Measurements: y[unit] ~ Normal(eta, sd), of which a cell keeps mean and sum of squared deviations.

mean ~ Normal(eta, sd² / n) and ss ~ sd² χ²(n − 1) are independent of each other, so both are drawn without any unit.
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


@dataclass(frozen=True, slots=True)
class GaussianLaw:
    """Units are normal around the cell's mean.

    Attributes
    ----------
    outcome_column : str
    unit_sd : array
        SD over units, (segment, arm).
    """

    outcome_column: str
    unit_sd: FloatGrid
    link: OutcomeLink = "identity"
    range_phrase: str = "a mean is a finite number"
    default_baseline: float = 0.0

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options of `from_rows`."""
        return {"outcome": self.outcome_column}

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means are finite."""
        return np.isfinite(mean)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Return the mean itself."""
        return mean

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Return the linear predictor itself."""
        return eta

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find mean and SD of every cell."""
        return {"mean": eta, "sd": np.broadcast_to(self.unit_sd, eta.shape)}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Return the SD over units."""
        return parameters["sd"]

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw n, the mean, and the sum of squared deviations from it."""
        # mean ~ Normal(mean, sd² / n);   ss ~ sd² χ²(n − 1), independent of it (Cochran's theorem)
        standard_error = parameters["sd"] / np.sqrt(np.maximum(n, 1))
        drawn_mean = parameters["mean"] + standard_error * rng.standard_normal(n.shape)
        # χ² with 0 degrees of freedom is 0: a single unit does not deviate from its own mean.
        chi_squared = np.where(n > 1, rng.chisquare(np.maximum(n - 1, 1)), 0.0)
        return {"n": n, "mean": np.where(n > 0, drawn_mean, np.nan), "ss": parameters["sd"] ** 2 * chi_squared}

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label no axis: there is none of its own."""
        return NO_COORDS

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the measurement of every unit."""
        noise = rng.standard_normal(parameters["mean"].shape)
        return {self.outcome_column: parameters["mean"] + parameters["sd"] * noise}
