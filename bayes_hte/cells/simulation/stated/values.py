"""Spread what is stated over segments and arms: one number for all, or numbers by level, segment or arm."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.cells.simulation.stated.segments import PopulationDesign, StatedValues
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import ARM

if TYPE_CHECKING:
    import pandas as pd


def spread_over_segments(stated: object, design: PopulationDesign, value_name: str) -> StatedValues:
    """Spread a stated value over segments, (segment,).

    Parameters
    ----------
    stated : object
        One number for all; a number by segment, whose key is its label or the tuple of its levels; for each of the
        dimensions a number by level, which add up; or a table with the dimensions and a column `value_name`.
    design : PopulationDesign
    value_name : str
        Names the value in messages.

    Raises
    ------
    ArgumentError
        If something is no finite number, a segment or level has none, or a name is not known.
    """
    if (number := to_float(stated)) is not None:
        return np.full(len(design.shares), _check_finite(number, value_name))
    if type(stated).__name__ == "DataFrame":
        stated = _list_table_values(stated, design, value_name)  # type: ignore[arg-type]
    if not isinstance(stated, Mapping):
        raise ArgumentError(
            f"{value_name} is {describe_value(stated)}; give a number, a number by segment, or by level of a dimension "
            f"such as {{{design.dims[0]!r}: {dict.fromkeys(design.level_orders[design.dims[0]][:2], 0.1)}}}"
        )
    # Values that are mappings themselves can only be numbers by level, and keys then are dimensions.
    if stated and all(isinstance(values, Mapping) for values in stated.values()):
        return _add_up_dimensions(stated, design, value_name)
    return _look_up_segments(stated, design, value_name)


def _check_finite(stated_number: object, value_name: str) -> float:
    number = to_float(stated_number)
    if number is None or not math.isfinite(number):
        raise ArgumentError(f"{value_name} is {describe_value(stated_number)}; give a finite number")
    return number


def _add_up_dimensions(
    stated: Mapping[object, Mapping[object, object]], design: PopulationDesign, value_name: str
) -> StatedValues:
    # value of a segment = Σ over dimensions of the value of its level
    total_values = np.zeros(len(design.shares))
    for dim, stated_levels in stated.items():
        if dim not in design.dims:
            raise ArgumentError(
                f"{value_name} names the dimension {describe_value(dim)}; the dimensions are {quote_names(design.dims)}"
            )
        level_names = design.level_orders[str(dim)]
        named_values = _name_values(stated_levels, level_names, f"{value_name} by {dim}", "levels")
        total_values += np.array([named_values[level] for level in level_names])[design.index_levels(str(dim))]
    return total_values


def _look_up_segments(stated: Mapping[object, object], design: PopulationDesign, value_name: str) -> StatedValues:
    labels = design.labels
    # A key is a tuple of levels, the label that joins them, or the level of the only dimension, which is its label.
    label_of_levels = dict(zip(design.levels_by_segment, labels, strict=True))
    labelled_values = {}
    for key, stated_number in stated.items():
        levels = tuple(map(format_level, key)) if isinstance(key, tuple) else (format_level(key),)
        labelled_values[label_of_levels.get(levels, levels[0] if len(levels) == 1 else key)] = stated_number
    named_values = _name_values(labelled_values, labels, value_name, "segments")
    return np.array([named_values[label] for label in labels])


def _name_values(
    stated: Mapping[object, object], known_names: "tuple[str, ...] | list[str]", value_name: str, noun: str
) -> dict[str, float]:
    """Check that every name has one finite number, and no other name does."""
    named_numbers = {name if isinstance(name, tuple) else format_level(name): number for name, number in stated.items()}
    if unknown_names := [name for name in named_numbers if name not in known_names]:
        raise ArgumentError(
            f"{value_name} names {quote_names([str(name) for name in unknown_names])}; "
            f"the {noun} are {quote_names(list(known_names))}"
        )
    if missing_names := [name for name in known_names if name not in named_numbers]:
        raise ArgumentError(f"{value_name} lacks {quote_names(missing_names)}; give a number for each of the {noun}")
    return {str(name): _check_finite(number, f"{value_name} of {name!r}") for name, number in named_numbers.items()}


def _list_table_values(
    table: "pd.DataFrame", design: PopulationDesign, value_name: str
) -> dict[tuple[str, ...], object]:
    if missing_columns := [column for column in (*design.dims, value_name) if column not in table]:
        raise ArgumentError(f"the table of {value_name} lacks the columns {quote_names(missing_columns)}")
    keys = [tuple(map(format_level, levels)) for levels in table[list(design.dims)].itertuples(index=False)]
    if len(set(keys)) < len(keys):
        raise ArgumentError(f"the table of {value_name} has a segment twice; give one row for each")
    return dict(zip(keys, table[value_name].tolist(), strict=True))


def spread_over_arms(stated: object, design: PopulationDesign, arms: tuple[str, ...], value_name: str) -> StatedValues:
    """Spread a stated value over segments and arms, (segment, arm): one for all arms, or by arm.

    Raises
    ------
    ArgumentError
        As `spread_over_segments`, or if an arm has no value.
    """
    if type(stated).__name__ == "DataFrame" and ARM in stated:  # type: ignore[operator]
        stated = {arm: rows.drop(columns=ARM) for arm, rows in stated.groupby(ARM)}  # type: ignore[attr-defined]
    # Names of arms come first: what is meant by segments that bear the names of all arms, nobody can tell.
    if isinstance(stated, Mapping) and stated and {format_level(key) for key in stated} <= set(arms):
        by_arm = {format_level(arm): values for arm, values in stated.items()}
        if missing_arms := [arm for arm in arms if arm not in by_arm]:
            raise ArgumentError(f"{value_name} lacks the arms {quote_names(missing_arms)}; state it for every arm")
        return np.stack([spread_over_segments(by_arm[arm], design, value_name) for arm in arms], axis=-1)
    return np.repeat(spread_over_segments(stated, design, value_name)[:, None], len(arms), axis=1)
