"""From result tables to the rows of a figure: read, group and order."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bayes_hte._support.phrases import shorten_text
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR
from bayes_hte.errors import DataError

RowOrder = Literal["effect", "lowest", "name", "given"]
# In the order of the fields of Estimate.
_REQUIRED_COLUMNS = ("effect", "ci_low", "ci_high", "p_positive")
_OPTIONAL_COLUMNS = ("n_control", "n_treated", "raw", "raw_se")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Numbers of one row: a segment in one arm, or the average effect of an arm. NaN is unknown."""

    group_name: str
    segment_label: str
    arm: str
    effect: float
    ci_low: float
    ci_high: float
    p_positive: float
    n_control: float = math.nan
    n_treated: float = math.nan
    raw_effect: float = math.nan
    raw_se: float = math.nan

    @property
    def n_units(self) -> float:
        """Units in both arms."""
        return self.n_control + self.n_treated

    @property
    def is_known(self) -> bool:
        """Whether the effect and both ends of its interval are finite."""
        return all(map(math.isfinite, (self.effect, self.ci_low, self.ci_high)))

    @property
    def lacks_an_arm(self) -> bool:
        """Whether one arm, or both, was never seen in the segment."""
        return self.n_control == 0 or self.n_treated == 0


@dataclass(frozen=True, slots=True)
class EstimateGroup:
    """Rows under one heading; the name is "" where there is no grouping."""

    name: str
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class ArmBlock:
    """All rows of one arm, and its average effect."""

    arm: str
    groups: tuple[EstimateGroup, ...]
    ate: Estimate

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """The segments, in order."""
        return tuple(estimate for group in self.groups for estimate in group.estimates)


def read_blocks(
    segment_table: pd.DataFrame,
    ate_table: pd.DataFrame,
    *,
    dimension_names: Sequence[str],
    group_by: str | None,
    effect_factor: float,
) -> list[ArmBlock]:
    """Read one block per arm, rows in the order given; every effect is multiplied by `effect_factor`.

    Raises
    ------
    DataError
        If there are no rows, a column is missing, or an arm has no average effect.
    """
    _require_columns(segment_table, [*dimension_names, "arm", *_REQUIRED_COLUMNS], "the table of segments")
    _require_columns(ate_table, ["arm", *_REQUIRED_COLUMNS], "the table of average effects")
    segment_estimates = _read_estimates(segment_table, dimension_names, group_by, effect_factor)
    # Arms come in the order of their averages.
    average_by_arm = {estimate.arm: estimate for estimate in _read_estimates(ate_table, (), None, effect_factor)}
    if not segment_estimates:
        raise DataError("the table of segments has no rows, so there is nothing to plot")
    arms_without_average = sorted({estimate.arm for estimate in segment_estimates} - set(average_by_arm))
    if arms_without_average:
        raise DataError(
            f"the table of average effects lacks the arms {arms_without_average}; it has {sorted(average_by_arm)}"
        )
    estimates_by_average = [
        (average, [estimate for estimate in segment_estimates if estimate.arm == arm])
        for arm, average in average_by_arm.items()
    ]
    return [
        ArmBlock(average.arm, _group_estimates(estimates), average)
        for average, estimates in estimates_by_average
        if estimates
    ]


def _require_columns(table: pd.DataFrame, column_names: Sequence[str], table_name: str) -> None:
    missing_columns = [column_name for column_name in column_names if column_name not in table.columns]
    if missing_columns:
        raise DataError(f"{table_name} lacks the columns {missing_columns}; it has {list(map(str, table.columns))}")


def _read_estimates(
    table: pd.DataFrame, dimension_names: Sequence[str], group_by: str | None, effect_factor: float
) -> list[Estimate]:
    def read_floats(name: str) -> list[float]:
        if name not in table.columns:
            return [math.nan] * len(table)
        # Only effects have the unit that `effect_factor` changes; probabilities and counts have none.
        values = table[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        return list(map(float, values if name in {"p_positive", "n_control", "n_treated"} else effect_factor * values))

    label_dimensions = [name for name in dimension_names if name != group_by]
    level_columns = [[shorten_text(str(level)) for level in table[name]] for name in label_dimensions]
    segment_labels = (
        [LEVEL_SEPARATOR.join(level_names) for level_names in zip(*level_columns, strict=True)]
        if label_dimensions
        else [""] * len(table)
    )
    group_names = [str(level) for level in table[group_by]] if group_by is not None else [""] * len(table)
    arms = [str(arm) for arm in table["arm"]]
    number_columns = [read_floats(name) for name in (*_REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS)]
    return [Estimate(*values) for values in zip(group_names, segment_labels, arms, *number_columns, strict=True)]


def _group_estimates(estimates: Sequence[Estimate]) -> tuple[EstimateGroup, ...]:
    group_names = dict.fromkeys(estimate.group_name for estimate in estimates)
    return tuple(
        EstimateGroup(group_name, tuple(estimate for estimate in estimates if estimate.group_name == group_name))
        for group_name in group_names
    )


def sort_block(arm_block: ArmBlock, row_order: RowOrder) -> ArmBlock:
    """Sort the groups of a block, and the rows in each; by effect the largest comes first, by "lowest" the lowest."""
    if row_order == "given":
        return arm_block
    if row_order == "name":
        by_name = [
            EstimateGroup(group.name, tuple(sorted(group.estimates, key=_build_name_key))) for group in arm_block.groups
        ]
        return ArmBlock(
            arm_block.arm, tuple(sorted(by_name, key=lambda group: _build_natural_key(group.name))), arm_block.ate
        )
    sign = 1.0 if row_order == "lowest" else -1.0
    by_effect = [
        EstimateGroup(
            group.name,
            tuple(sorted(group.estimates, key=lambda estimate: _put_unknown_last(sign * estimate.effect))),
        )
        for group in arm_block.groups
    ]
    sorted_groups = sorted(by_effect, key=lambda group: _put_unknown_last(sign * _compute_mean_effect(group.estimates)))
    return ArmBlock(arm_block.arm, tuple(sorted_groups), arm_block.ate)


def _build_name_key(estimate: Estimate) -> list[tuple[int, int, str]]:
    return _build_natural_key(estimate.segment_label)


def _put_unknown_last(sort_key: float) -> float:
    # NaN would leave the order to chance.
    return sort_key if math.isfinite(sort_key) else math.inf


def _build_natural_key(printed_name: str) -> list[tuple[int, int, str]]:
    """Build a sort key under which "week 9" comes before "week 10"."""
    # Digits compare as numbers and stand before letters; the empty string fills their third place.
    parts = re.split(r"([0-9]+)", printed_name.casefold())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _compute_mean_effect(estimates: Sequence[Estimate]) -> float:
    known_estimates = [estimate for estimate in estimates if math.isfinite(estimate.effect)]
    estimate_weights, _ = weigh_estimates(known_estimates)
    return (
        float(np.average([estimate.effect for estimate in known_estimates], weights=estimate_weights))
        if sum(estimate_weights) > 0
        else math.nan
    )


def weigh_estimates(estimates: Sequence[Estimate]) -> tuple[list[float], str]:
    """Weigh each row by its units, else its precision, else all alike; name what the weight is.

    Published estimates come without units; a forest plot then sizes its points by precision.
    """
    if any(estimate.n_units > 0 for estimate in estimates):
        return [estimate.n_units if estimate.n_units > 0 else 0.0 for estimate in estimates], "number of units"
    # Precision: w = 1 / SE².
    if any(estimate.raw_se > 0 for estimate in estimates):
        return [estimate.raw_se**-2 if estimate.raw_se > 0 else 0.0 for estimate in estimates], "precision"
    return [1.0] * len(estimates), ""
