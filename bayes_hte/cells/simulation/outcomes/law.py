"""What the law of an outcome can do, by the same names in every file of this folder.

A cell has the linear predictor eta on the link scale, and parameters that follow from it: arrays whose last two axes
are segment and arm, the control first, before axes of a parameter's own (such as the levels of an answer).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bayes_hte.cells.build import CellCoords

type FloatGrid = NDArray[np.float64]
"""Numbers by (experiment, day, segment, arm), or any part of these axes, in this order."""
type CountGrid = NDArray[np.int64]
"""Units by (experiment, day, segment, arm)."""
type LawParameters = Mapping[str, FloatGrid]
"""Parameters of the law by name; each has the shape of eta, and may have an axis of its own behind."""
type DrawnValues = dict[str, NDArray[Any]]
"""Statistics of cells by the names of the cell table, or outcomes of units by column."""
NO_COORDS: Final[CellCoords] = MappingProxyType({})
"""Of statistics that have no axes but segment and arm."""
OutcomeLink = Literal["identity", "log", "logit"]


class OutcomeLaw(Protocol):
    """The distribution of one kind of outcome in a cell."""

    @property
    def link(self) -> OutcomeLink:
        """Scale that effects of the family are on."""

    @property
    def range_phrase(self) -> str:
        """Say in a few words what a mean outcome can be."""

    @property
    def default_baseline(self) -> float:
        """Mean outcome of the control where nobody states one."""

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options with which `hte.cells.from_rows`, or `from_times`, reads the columns of units."""

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means an outcome can have."""

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Find the linear predictor that gives a mean."""

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Find the mean outcome that a linear predictor gives, (…, segment, arm)."""

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find the parameters of every cell."""

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Find the SD of the outcome over the units of a cell."""

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the sufficient statistics of cells with n units each, from their sampling distributions."""

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Find the coordinates of the axes that statistics have besides segment and arm."""

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the outcome of single units, whose parameters have the axis of the units in place of the cells'."""
