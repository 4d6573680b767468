"""Parts of what segments are pooled around that are linear in normal variables, and where their entries stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARED_OFFSET = "shared_offset"
"""Name of the variable that is sampled in place of what segments share."""
BETWEEN_SCORE = "between_score"
"""Name of the variable that is sampled in place of between-segment SDs."""


@dataclass(frozen=True, slots=True)
class LinearTerm:
    """A part of a coefficient's centre that is linear in normal variables: design @ (prior mean + prior scale * v).

    Attributes
    ----------
    variable_name : str
        Of the values, such as ``effect_mean`` or ``effect_device``.
    dims : tuple of str
        Of the values: of the columns, where there are several, then of the coefficient after segments.
    prior_mean, prior_scale : number or variable
        Of no dims, or one per arm.
    column_count : int
    level_index : ndarray, optional
        (segment,): the column that is 1 where the others are 0. Without it, and without covariates, there is one
        column of ones.
    covariates : array or variable, optional
        (segment, column).
    scale_positions : ndarray, optional
        Of `prior_scale` in the vector of all between-segment SDs; of no dims, or one per arm.
    """

    variable_name: str
    dims: tuple[str, ...]
    prior_mean: Any
    prior_scale: Any
    column_count: int = 1
    level_index: NDArray[np.intp] | None = None
    covariates: Any = None
    scale_positions: NDArray[np.intp] | None = None

    @property
    def prior_centre(self) -> Any:
        """What the prior mean adds to the coefficient of every segment; broadcasts with it."""
        # Covariates are of effects alone: (segment, 1) for all arms.
        return self.prior_mean if self.covariates is None else self.prior_mean * self.covariates.sum(axis=1)[:, None]

    def list_columns(self) -> list[tuple[Any, Any]]:
        """List the columns that are not 0 of every segment, and their values: each a number or one per segment."""
        if self.level_index is not None:
            return [(self.level_index, 1.0)]
        if self.covariates is None:
            return [(0, 1.0)]
        return [(column, self.covariates[:, column]) for column in range(self.column_count)]


@dataclass(frozen=True, slots=True)
class BetweenScales:
    """All between-segment SDs whose normal scores are sampled.

    Attributes
    ----------
    vector : variable
        (SD,)
    positions : mapping
        Name of a hyperparameter -> positions of its values in the vector, with the dims of the hyperparameter.
    values : mapping
        Name of a hyperparameter -> its values.
    """

    vector: Any
    positions: Mapping[str, NDArray[np.intp]]
    values: Mapping[str, Any]

    @property
    def count(self) -> int:
        """Number of SDs."""
        return sum(positions.size for positions in self.positions.values())


type PlacedTerm = tuple[LinearTerm, tuple[int, ...]]
"""A term, and its coefficient's positions among the baseline and the effects of the arms."""


@dataclass(frozen=True, slots=True)
class SharedLayout:
    """The normal variables of all terms as one vector, and the segments that each entry is part of.

    Attributes
    ----------
    prior_scale : variable
        (entry,)
    entry_index : ndarray
        (coefficient, segment, place): entries that are part of a segment's coefficient.
    entry_value : array or variable
        What each is multiplied by; 0 in places that are not taken.
    """

    prior_scale: Any
    entry_index: NDArray[np.int64]
    entry_value: Any


def lay_out_terms(
    placed_terms: Sequence[PlacedTerm], between_scales: BetweenScales, segment_count: int, coefficient_count: int
) -> SharedLayout:
    """Lay out the values of all terms as one vector: (column, arm) of the first term, then of the next.

    Parameters
    ----------
    placed_terms : sequence of PlacedTerm
    between_scales : BetweenScales
        What `LinearTerm.scale_positions` are positions in.
    segment_count, coefficient_count : int
    """
    import pytensor.tensor as pt

    # One vector of SDs and one index into it: a graph that compiles soon.
    scale_parts, scale_index = [between_scales.vector], list[NDArray[np.intp]]()
    scale_count = between_scales.count
    places: list[list[tuple[Any, Any]]] = [[] for _ in range(coefficient_count)]
    start = 0
    for term, positions in placed_terms:
        for arm, coefficient in enumerate(positions):
            for column, value in term.list_columns():
                places[coefficient].append((start + column * len(positions) + arm, value))
        # SDs without scores, and the prior SDs of means and slopes, are put behind those with scores.
        scale_positions = term.scale_positions
        if scale_positions is None:
            own_scales = pt.as_tensor(term.prior_scale)
            scale_positions = scale_count + (np.arange(len(positions)) if own_scales.ndim else np.zeros((), dtype=int))
            scale_parts.append(own_scales.reshape((-1,)))
            scale_count += len(positions) if own_scales.ndim else 1
        scale_index.append(np.broadcast_to(scale_positions, (term.column_count, len(positions))).ravel())
        start += term.column_count * len(positions)
    entry_index, entry_value = _fill_places(places, segment_count)
    return SharedLayout(pt.concatenate(scale_parts)[np.concatenate(scale_index)], entry_index, entry_value)


def _fill_places(places: list[list[tuple[Any, Any]]], segment_count: int) -> tuple[NDArray[np.int64], Any]:
    """Fill the places of every coefficient with entries and values: a number, or a variable of one per segment."""
    import pytensor.tensor as pt

    shape = (len(places), segment_count, max(map(len, places)))
    entry_index, entry_value = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    covariate_values = list[tuple[int, int, Any]]()
    for coefficient, taken_places in enumerate(places):
        for place, (entry, value) in enumerate(taken_places):
            entry_index[coefficient, :, place] = entry
            if isinstance(value, float):
                entry_value[coefficient, :, place] = value
            else:
                covariate_values.append((coefficient, place, value))
    # Covariates are data that may be exchanged: the array is then computed from them, once per data set.
    held_value: Any = entry_value
    for coefficient, place, value in covariate_values:
        held_value = pt.set_subtensor(pt.as_tensor(held_value)[coefficient, :, place], value)
    return entry_index, held_value
