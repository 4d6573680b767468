"""Draw rows of units in memory: one per unit, in random order, with the columns that `from_rows` reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bayes_hte.cells.simulation.drawing.cells import DAY
from bayes_hte.cells.simulation.outcomes.law import CountGrid, FloatGrid, LawParameters, OutcomeLaw
from bayes_hte.cells.simulation.stated.segments import ArmDesign, PopulationDesign
from bayes_hte.spec.cell_table import ARM


def draw_rows(
    counts: CountGrid,
    eta: FloatGrid,
    law: OutcomeLaw,
    names: tuple[PopulationDesign, ArmDesign],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Draw the rows of one experiment.

    Parameters
    ----------
    counts : array
        Units by (day, segment, arm).
    eta : array
        Linear predictor, (segment, arm).
    law : OutcomeLaw
    names : PopulationDesign and ArmDesign
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        Dimensions, arm, day (from 1) where there are several, and the columns of the outcome.
    """
    # Each cell as often as it has units, then shuffled: people who look at the first rows see all of it.
    cell_of_unit = rng.permutation(np.repeat(np.arange(counts.size), counts.ravel()))
    day_index, segment_index, arm_index = np.unravel_index(cell_of_unit, counts.shape)
    unit_parameters = select_unit_parameters(law.find_parameters(eta), segment_index, arm_index)
    return pd.DataFrame(
        {
            **label_units(segment_index, arm_index, *names),
            **({DAY: day_index + 1} if counts.shape[0] > 1 else {}),
            **law.draw_units(unit_parameters, rng),
        }
    )


def select_unit_parameters(
    parameters: LawParameters, segment_index: np.ndarray, arm_index: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Select the parameters of each unit's cell; the axes segment and arm become one of units."""
    # One look-up for all parameters, also those with an axis of their own behind (levels, intervals).
    return {name: values[segment_index, arm_index] for name, values in parameters.items()}


def label_units(
    segment_index: np.ndarray, arm_index: np.ndarray, segments: PopulationDesign, arms: ArmDesign
) -> dict[str, Any]:
    """Label units with their levels and arm, as ordered categories: levels keep the order that was stated."""
    columns = {
        dim: _categorise(segments.index_levels(dim)[segment_index], segments.level_orders[dim]) for dim in segments.dims
    }
    return {**columns, ARM: _categorise(arm_index, arms.names)}


def _categorise(codes: Any, categories: Sequence[str]) -> Any:
    # Ordered, so that `from_rows` keeps the stated order of levels; and a code of one byte takes little memory.
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(categories), ordered=True))
