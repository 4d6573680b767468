"""Read the segments and arms of a simulated experiment: levels by dimension, and shares that add up to 1."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import describe_value, to_float, to_int
from bayes_hte.cells.reading.engines import check_dimensions
from bayes_hte.cells.reading.labels import SegmentLevels, format_level, label_segments
from bayes_hte.cells.reading.level_order import sort_segments
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import ARM

if TYPE_CHECKING:
    import pandas as pd

type StatedValues = NDArray[np.float64]

COUNTED_DIMENSION = "group"
"""The dimension of segments that are given by their number alone."""
TABLE_COLUMNS = ("share", "baseline", "effect")
"""Columns of a table of segments that are numbers of the design; all others are dimensions."""
MAX_SEGMENT_COUNT = 1_000_000
"""More segments than this fit neither into a table that anybody reads nor, some day, into memory."""
SHARE_TOLERANCE = 1e-3
"""By how much shares may miss 1: they are written with three digits, as 0.333."""
ROW_COLUMNS = frozenset({"day", "cluster", "before", "exposure", "time", "event", "experiment"})
"""Columns of rows and of tables of truth that a dimension cannot be called."""


@dataclass(frozen=True, slots=True)
class PopulationDesign:
    """The segments of the population.

    Attributes
    ----------
    dims : tuple of str
        Names of the dimensions.
    levels_by_segment : tuple of tuple of str
        One level per dimension, of each segment.
    shares : array
        Share of the population, (segment,); adds up to 1.
    level_orders : mapping
        Levels of each dimension in the order that was stated.
    """

    dims: tuple[str, ...]
    levels_by_segment: tuple[SegmentLevels, ...]
    shares: StatedValues
    level_orders: Mapping[str, tuple[str, ...]]

    @property
    def labels(self) -> list[str]:
        """Labels of the segments, as in the cell table."""
        return label_segments(self.levels_by_segment)

    def index_levels(self, dim: str) -> NDArray[np.intp]:
        """Find the place of each segment's level among the levels of a dimension, (segment,)."""
        rank_of_level = {level: rank for rank, level in enumerate(self.level_orders[dim])}
        dim_place = self.dims.index(dim)
        return np.array([rank_of_level[levels[dim_place]] for levels in self.levels_by_segment], dtype=np.intp)


@dataclass(frozen=True, slots=True)
class ArmDesign:
    """The arms, the control first, and the share of the units that each is assigned, (arm,)."""

    names: tuple[str, ...]
    shares: StatedValues

    @property
    def treated(self) -> tuple[str, ...]:
        """The arms that have an effect."""
        return self.names[1:]

    def name_shares(self) -> dict[str, float]:
        """Name the share of each arm."""
        return dict(zip(self.names, self.shares.tolist(), strict=True))


def read_segments(segments: object) -> tuple[PopulationDesign, dict[str, StatedValues]]:
    """Read segments from their number, from levels by dimension, or from a table with one row per segment.

    Returns
    -------
    design : PopulationDesign
    stated_columns : dict
        baseline and effect of each segment, (segment,), where a table has these columns.

    Raises
    ------
    ArgumentError
        If there is no segment, a dimension or level is none, or shares do not add up to 1.
    """
    if (segment_count := to_int(segments)) is not None:
        if segment_count < 1:
            raise ArgumentError(f"segments={segment_count} leaves nobody to simulate; give 1 segment or more")
        _check_segment_count(segment_count)
        segments = {COUNTED_DIMENSION: [str(i + 1) for i in range(segment_count)]}
    # By the name of its class: importing pandas here would slow down all that needs no table.
    if type(segments).__name__ == "DataFrame":
        return _read_segment_table(segments)  # type: ignore[arg-type]
    if not isinstance(segments, Mapping):
        raise ArgumentError(
            f"segments is {describe_value(segments)}; give the share of each level by dimension, such as "
            "{'device': {'mobile': 0.6, 'desktop': 0.4}}, a number of segments, or a pandas table with one row for each"
        )
    if not segments:
        raise ArgumentError("segments is empty, so nobody would be simulated; name one dimension and its levels")
    dims = _check_names(list(segments))
    shares_by_dim = [_read_level_shares(dim, segments[dim]) for dim in segments]
    _check_segment_count(math.prod(map(len, shares_by_dim)))
    # Dimensions that are given one by one are independent: the share of a crossing is the product of its levels'.
    crossings = itertools.product(*(shares.items() for shares in shares_by_dim))
    share_by_levels = {
        tuple(level for level, _ in crossing): math.prod(share for _, share in crossing) for crossing in crossings
    }
    level_orders = {dim: tuple(shares) for dim, shares in zip(dims, shares_by_dim, strict=True)}
    return build_population(dims, share_by_levels, level_orders), {}


def _check_segment_count(segment_count: int) -> None:
    """Raise ArgumentError where there are more segments than a table holds, before memory is asked for them."""
    if segment_count > MAX_SEGMENT_COUNT:
        raise ArgumentError(
            f"segments are {describe_value(segment_count)}, and {MAX_SEGMENT_COUNT:,} can be simulated; give fewer "
            "segments or levels"
        )


def _check_names(dims: Sequence[Any]) -> list[str]:
    return check_dimensions(dims, {}, reserved_names={*ROW_COLUMNS, *TABLE_COLUMNS})


def _read_level_shares(dim: str, stated_levels: object) -> dict[str, float]:
    """Read the share of each level; levels without shares have equal ones."""
    if isinstance(stated_levels, Mapping):
        level_shares = {format_level(level): share for level, share in stated_levels.items()}
        if len(level_shares) < len(stated_levels):
            raise ArgumentError(f"a level of {dim!r} is named twice: {quote_names([*stated_levels])}")
        return check_shares(level_shares, f"the levels of {dim!r}")
    if isinstance(stated_levels, str) or not isinstance(stated_levels, Iterable):
        raise ArgumentError(
            f"the levels of {dim!r} are {describe_value(stated_levels)}; give the share of each, such as "
            "{'mobile': 0.6, 'desktop': 0.4}, or a list of levels that are equally frequent"
        )
    levels = [format_level(level) for level in stated_levels]
    if len(set(levels)) < len(levels):
        raise ArgumentError(f"a level of {dim!r} is named twice: {quote_names(levels)}")
    if not levels:
        raise ArgumentError(f"{dim!r} has no levels, so nobody would be simulated; name one at least")
    # Nothing is said of their shares: equal ones favour no level.
    return dict.fromkeys(levels, 1 / len(levels))


def check_shares(stated_shares: Mapping[str, object], role_phrase: str) -> dict[str, float]:
    """Check that shares are numbers above 0 that add up to 1, and divide away what rounding left.

    Raises
    ------
    ArgumentError
        If they are not; the message calls them the shares of `role_phrase`.
    """
    shares = {}
    for name, stated_share in stated_shares.items():
        share = to_float(stated_share)
        if share is None or not math.isfinite(share) or share <= 0:
            raise ArgumentError(
                f"the share of {name!r} among {role_phrase} is {describe_value(stated_share)}; give a number above 0, "
                "or leave it out"
            )
        shares[name] = share
    # Exactly rounded, so that the order of the names does not matter.
    total_share = math.fsum(shares.values())
    if abs(total_share - 1) > SHARE_TOLERANCE:
        raise ArgumentError(
            f"the shares of {role_phrase} add up to {total_share:.4g}, not to 1; state them so that they do"
        )
    return {name: share / total_share for name, share in shares.items()}


def _read_segment_table(table: "pd.DataFrame") -> tuple[PopulationDesign, dict[str, StatedValues]]:
    """Read a table with one row per segment: dimensions, and share, baseline and effect where it has these columns."""
    dims = _check_names([column for column in table.columns if column not in TABLE_COLUMNS])
    if table.empty:
        raise ArgumentError("the table of segments has no row, so nobody would be simulated; give one row per segment")
    keys = [tuple(map(format_level, levels)) for levels in table[dims].itertuples(index=False)]
    if len(set(keys)) < len(keys):
        raise ArgumentError("the table of segments has a segment twice; give one row for each")
    raw_shares = table["share"].tolist() if "share" in table else [1 / len(keys)] * len(keys)
    labels = label_segments(keys)
    shares = check_shares(dict(zip(labels, raw_shares, strict=True)), "the segments")
    level_orders = {
        dim: tuple(dict.fromkeys(levels)) for dim, levels in zip(dims, zip(*keys, strict=True), strict=True)
    }
    design = build_population(dims, dict(zip(keys, shares.values(), strict=True)), level_orders)
    # The design has its own order of segments: the columns of the table follow it.
    row_of_key = {key: row for row, key in enumerate(keys)}
    row_order = [row_of_key[key] for key in design.levels_by_segment]
    stated_columns = {
        name: _read_numbers(table[name].tolist(), name)[row_order] for name in ("baseline", "effect") if name in table
    }
    return design, stated_columns


def _read_numbers(values: Sequence[object], column_name: str) -> StatedValues:
    numbers = [to_float(value) for value in values]
    if any(number is None or not math.isfinite(number) for number in numbers):
        raise ArgumentError(f"the column {column_name!r} of the segments holds something that is no finite number")
    return np.array(numbers, dtype=np.float64)


def build_population(
    dims: Sequence[str], share_by_levels: Mapping[SegmentLevels, float], level_orders: Mapping[str, tuple[str, ...]]
) -> PopulationDesign:
    """Build a population whose segments stand in the order that the cell table will have; shares may be sizes."""
    # The order of `build_cell_table`: arrays of the design and of cells then need no labels to fit each other.
    ordered_segments = sort_segments(share_by_levels, dims, level_orders)
    shares = np.array([share_by_levels[levels] for levels in ordered_segments])
    return PopulationDesign(tuple(dims), tuple(ordered_segments), shares / shares.sum(), level_orders)


def read_arms(arms: object) -> ArmDesign:
    """Read arms, the control first: names with equal shares, or the share of each.

    Raises
    ------
    ArgumentError
        If there are not two arms, one is named twice, or shares do not add up to 1.
    """
    if isinstance(arms, Mapping):
        named_shares = {format_level(arm): share for arm, share in arms.items()}
        if len(named_shares) < len(arms):
            raise ArgumentError(f"an arm is named twice: {quote_names([*arms])}")
        arm_shares = check_shares(named_shares, "the arms")
    elif isinstance(arms, str) or not isinstance(arms, Iterable):
        raise ArgumentError(
            f"{ARM}s is {describe_value(arms)}; give the names of the arms, the control first, such as "
            "['old', 'new'], or the share of each"
        )
    else:
        names = [format_level(arm) for arm in arms]
        if len(set(names)) < len(names):
            raise ArgumentError(f"an arm is named twice: {quote_names(names)}")
        arm_shares = dict.fromkeys(names, 1 / max(len(names), 1))
    if len(arm_shares) < 2:
        raise ArgumentError(
            f"the arms are {quote_names(list(arm_shares)) or 'none'}; name two at least, the control first"
        )
    return ArmDesign(tuple(arm_shares), np.array(list(arm_shares.values())))
