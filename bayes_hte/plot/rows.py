"""From result tables to the rows of a figure: read, group and order."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bayes_hte.errors import DataError
from bayes_hte.plot.text import shorten

Order = Literal["effect", "name", "given"]
_NEEDED = ("effect", "ci_low", "ci_high", "p_positive")
_OPTIONAL = ("n_control", "n_treated", "raw", "raw_se")


@dataclass(frozen=True, slots=True)
class Estimate:
    """One row: a segment in one arm, or the average effect of an arm. NaN is unknown."""

    group: str
    label: str
    arm: str
    effect: float
    low: float
    high: float
    p_positive: float
    n_control: float = math.nan
    n_treated: float = math.nan
    raw: float = math.nan
    raw_se: float = math.nan

    @property
    def n(self) -> float:
        """Units in both arms."""
        return self.n_control + self.n_treated

    @property
    def known(self) -> bool:
        """Whether the effect and both ends of its interval are finite."""
        return all(map(math.isfinite, (self.effect, self.low, self.high)))

    @property
    def one_armed(self) -> bool:
        """Whether one arm, or both, was never seen here."""
        return self.n_control == 0 or self.n_treated == 0


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one heading; the name is "" where there is no grouping."""

    name: str
    rows: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """All rows of one arm, and its average effect."""

    arm: str
    groups: tuple[Group, ...]
    ate: Estimate

    @property
    def rows(self) -> tuple[Estimate, ...]:
        """The segments, in order."""
        return tuple(row for group in self.groups for row in group.rows)


def read(
    table: pd.DataFrame, ate: pd.DataFrame, *, dimensions: Sequence[str], group_by: str | None, factor: float
) -> list[Block]:
    """One block per arm, rows in the order given; every effect is multiplied by `factor`.

    Raises
    ------
    DataError
        If there are no rows, a column is missing, or an arm has no average effect.
    """
    _require(table, [*dimensions, "arm", *_NEEDED], "the table of segments")
    _require(ate, ["arm", *_NEEDED], "the table of average effects")
    segments = _estimates(table, dimensions, group_by, factor)
    averages = {row.arm: row for row in _estimates(ate, (), None, factor)}
    if not segments:
        raise DataError("the table of segments has no rows, so there is nothing to plot")
    unknown = sorted({row.arm for row in segments} - set(averages))
    if unknown:
        raise DataError(f"the table of average effects lacks the arms {unknown}; it has {sorted(averages)}")
    blocks = [(average, [row for row in segments if row.arm == arm]) for arm, average in averages.items()]
    return [Block(average.arm, _grouped(rows), average) for average, rows in blocks if rows]


def _require(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(f"{name} lacks the columns {missing}; it has {list(map(str, table.columns))}")


def _estimates(table: pd.DataFrame, dimensions: Sequence[str], group_by: str | None, factor: float) -> list[Estimate]:
    def floats(name: str) -> list[float]:
        if name not in table.columns:
            return [math.nan] * len(table)
        values = table[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        return list(map(float, values if name in {"p_positive", "n_control", "n_treated"} else factor * values))

    named = [name for name in dimensions if name != group_by]
    levels = [[shorten(str(level)) for level in table[name]] for name in named]
    labels = [", ".join(parts) for parts in zip(*levels, strict=True)] if named else [""] * len(table)
    groups = [str(level) for level in table[group_by]] if group_by is not None else [""] * len(table)
    arms = [str(arm) for arm in table["arm"]]
    columns = [floats(name) for name in (*_NEEDED, *_OPTIONAL)]
    return [Estimate(*values) for values in zip(groups, labels, arms, *columns, strict=True)]


def _grouped(rows: Sequence[Estimate]) -> tuple[Group, ...]:
    names = dict.fromkeys(row.group for row in rows)
    return tuple(Group(name, tuple(row for row in rows if row.group == name)) for name in names)


def ordered(block: Block, order: Order) -> Block:
    """The same block with its groups, and the rows in each, in order; the largest effect comes first."""
    if order == "given":
        return block
    if order == "name":
        by_name = [Group(group.name, tuple(sorted(group.rows, key=_row_name))) for group in block.groups]
        return Block(block.arm, tuple(sorted(by_name, key=lambda group: _natural(group.name))), block.ate)
    by_effect = [Group(group.name, tuple(sorted(group.rows, key=_row_effect))) for group in block.groups]
    return Block(block.arm, tuple(sorted(by_effect, key=_group_effect)), block.ate)


def _row_name(row: Estimate) -> list[tuple[int, int, str]]:
    return _natural(row.label)


def _row_effect(row: Estimate) -> float:
    return _last_if_unknown(row.effect)


def _group_effect(group: Group) -> float:
    return _last_if_unknown(_mean_effect(group.rows))


def _last_if_unknown(effect: float) -> float:
    return -effect if math.isfinite(effect) else math.inf


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which "week 9" comes before "week 10"."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _mean_effect(rows: Sequence[Estimate]) -> float:
    seen = [row for row in rows if math.isfinite(row.effect)]
    sizes, _ = weights(seen)
    return float(np.average([row.effect for row in seen], weights=sizes)) if sum(sizes) > 0 else math.nan


def weights(rows: Sequence[Estimate]) -> tuple[list[float], str]:
    """How much each row counts, and what that is: units, else precision, else nothing known.

    Published estimates come without units; a forest plot then sizes its points by precision.
    """
    if any(row.n > 0 for row in rows):
        return [row.n if row.n > 0 else 0.0 for row in rows], "number of units"
    if any(row.raw_se > 0 for row in rows):
        return [row.raw_se**-2 if row.raw_se > 0 else 0.0 for row in rows], "precision"
    return [1.0] * len(rows), ""
