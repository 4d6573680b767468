"""Published estimates: estimate[segment, arm] ~ Normal(effect, se²). There are no units, and no control."""

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
from bayes_hte.cells.simulation.stated.segments import StatedValues
from bayes_hte.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class EstimateLaw:
    """Estimates are normal around the effects.

    Attributes
    ----------
    outcome_column : str
    standard_error : array
        (segment, arm); that of the control is not used.
    """

    outcome_column: str
    standard_error: StatedValues
    link: OutcomeLink = "identity"
    range_phrase: str = "an effect is a finite number"
    default_baseline: float = 0.0

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Columns of `from_estimates`."""
        return {"outcome": self.outcome_column}

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which effects are finite."""
        return np.isfinite(mean)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Return the effect itself."""
        return mean

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Return the effect itself."""
        return eta

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find effect and standard error."""
        return {"effect": eta - eta[..., :1], "se": np.broadcast_to(self.standard_error, eta.shape)}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Return the standard error: an estimate is its own unit."""
        return parameters["se"]

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the estimates of the treated arms."""
        # All days hold the same estimate: it does not grow with n.
        shape = np.broadcast_shapes(parameters["se"].shape, (*n.shape[:1], 1, *n.shape[2:]))
        standard_error = np.broadcast_to(parameters["se"], shape)[..., 1:]
        effect = np.broadcast_to(parameters["effect"], shape)[..., 1:]
        return {
            "estimate": effect + standard_error * rng.standard_normal(effect.shape),
            "se": np.ascontiguousarray(standard_error),
        }

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label no axis: there is none of its own."""
        return NO_COORDS

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Refuse: estimates have no units.

        Raises
        ------
        ArgumentError
        """
        raise ArgumentError("published estimates have no units, so there are no rows; leave rows out")
