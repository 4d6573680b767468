"""Draw rows of units in memory: one per unit, in random order, with the columns that `from_rows` reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bayes_hte.cells.simulation.drawing.cells import DAY
from bayes_hte.cells.simulation.drawing.unit_ties import draw_cluster_parameters, draw_covariate
from bayes_hte.cells.simulation.outcomes.counts import EXPOSURE_COLUMN
from bayes_hte.cells.simulation.outcomes.law import CountGrid, FloatGrid, LawParameters, OutcomeLaw
from bayes_hte.cells.simulation.outcomes.survival import TIME_COLUMN
from bayes_hte.cells.simulation.stated.design import Design
from bayes_hte.cells.simulation.stated.unit_structure import CLUSTER_COLUMN, COVARIATE_COLUMN
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import ARM


def draw_rows(counts: CountGrid, eta: FloatGrid, design: Design, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the rows of one experiment.

    Parameters
    ----------
    counts : array
        Units by (day, segment, arm), or clusters where units come in clusters.
    eta : array
        Linear predictor, (segment, arm).
    design : Design
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        Dimensions, arm, day (from 1) where there are several, cluster, the columns of the outcome, and before.
    """
    law, structure = design.law, design.structure
    # Each cell as often as it has units, then shuffled: people who look at the first rows see all of it.
    cell_of_unit = rng.permutation(np.repeat(np.arange(counts.size), counts.ravel()))
    parameters = law.find_parameters(eta)
    unit_places = np.unravel_index(cell_of_unit, counts.shape)
    unit_parameters = select_unit_parameters(parameters, unit_places[1], unit_places[2])
    cluster_column: dict[str, Any] = {}
    if structure.cluster_size is not None:
        # Parameters of clusters first; each cluster then has as many units.
        own_parameters = draw_cluster_parameters(law, unit_parameters, structure.icc, rng)
        cluster_of_unit = np.repeat(np.arange(len(cell_of_unit)), structure.cluster_size)
        unit_parameters = {name: values[cluster_of_unit] for name, values in own_parameters.items()}
        unit_places = tuple(place[cluster_of_unit] for place in unit_places)
        cluster_column = {CLUSTER_COLUMN: cluster_of_unit}
    day_index, segment_index, arm_index = unit_places
    outcome_columns = law.draw_units(unit_parameters, rng)
    if structure.pre_correlation is not None:
        moments = {"mean": law.find_mean(eta), "sd": law.find_unit_sd(parameters)}
        outcome_columns[COVARIATE_COLUMN] = draw_covariate(
            _find_measured_outcome(outcome_columns, law),
            select_unit_parameters(moments, segment_index, arm_index),
            select_unit_parameters(moments, segment_index, np.zeros_like(arm_index)),
            structure.pre_correlation,
            rng,
        )
    return pd.DataFrame(
        {
            **label_units(segment_index, arm_index, design),
            **({DAY: day_index + 1} if counts.shape[0] > 1 else {}),
            **cluster_column,
            **outcome_columns,
        }
    )


def _find_measured_outcome(columns: Mapping[str, np.ndarray], law: OutcomeLaw) -> np.ndarray:
    """Find the column that a covariate can be correlated with: one number per unit."""
    if TIME_COLUMN in columns or EXPOSURE_COLUMN in columns:
        raise ArgumentError(
            "a covariate is drawn of outcomes with one number per unit, not of times or of events over an exposure; "
            "leave pre_correlation out"
        )
    return columns[str(law.reader_options["outcome"])]


def select_unit_parameters(
    parameters: LawParameters, segment_index: np.ndarray, arm_index: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Select the parameters of each unit's cell; the axes segment and arm become one of units."""
    # One look-up for all parameters, also those with an axis of their own behind (levels, intervals).
    return {name: values[segment_index, arm_index] for name, values in parameters.items()}


def label_units(segment_index: np.ndarray, arm_index: np.ndarray, design: Design) -> dict[str, Any]:
    """Label units with their levels and arm, as ordered categories: levels keep the order that was stated."""
    segments = design.segments
    columns = {
        dim: _categorise(segments.index_levels(dim)[segment_index], segments.level_orders[dim]) for dim in segments.dims
    }
    return {**columns, ARM: _categorise(arm_index, design.arms.names)}


def _categorise(codes: Any, categories: Sequence[str]) -> Any:
    # Ordered, so that `from_rows` keeps the stated order of levels; and a code of one byte takes little memory.
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(categories), ordered=True))
