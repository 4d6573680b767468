"""Read the population that a policy is for: shares of segments, stated by label, by level or as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import check_number, describe_value, list_mapping_items
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, format_level
from bayes_hte.errors import ArgumentError
from bayes_hte.estimands.weights import compute_population_shares, describe_population
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import SEGMENT

StatedPopulation = Mapping[Any, Any] | pd.DataFrame
"""Shares by segment, shares by level of one or more dimensions, or a table with a column ``share``."""
SHARE_COLUMN: Final = "share"
MAX_ROUNDING: Final = 0.005
"""Shares that people write have two decimals: their sum may miss 1 by half of the last one, and is then set right."""
MAX_RAKING_ROUNDS: Final = 1000
"""Raking halves its error in a few rounds where a population with the margins exists."""
RAKING_TOLERANCE: Final = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class _MarginTarget:
    """Shares that the levels of a margin shall have, and the position of every segment's level among them."""

    level_positions: NDArray[np.intp]
    level_shares: NDArray[np.float64]

    def sum_levels(self, segment_shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum the shares of segments by level."""
        return np.bincount(self.level_positions, segment_shares, len(self.level_shares))


def read_population(cells: xr.Dataset, population: StatedPopulation | None) -> xr.DataArray:
    """Read each segment's share of the population that a policy is for; dims (segment,), sums to 1.

    Parameters
    ----------
    cells : xarray.Dataset
        The cell table.
    population : mapping or pandas.DataFrame, optional
        ``{segment label: share}``, where a label may be the tuple of its levels; ``{dimension: {level: share}}``; or a
        table with columns of dimensions and ``share``. Of levels, and of a table that lacks a dimension, the
        composition within is that of the experiment. By default the experiment's own shares.

    Raises
    ------
    ArgumentError
        If shares do not add up to 1, are negative, or name what is not there or leave out what is.

    Notes
    -----
    With shares of several dimensions the population is the one nearest to the experiment's that has them all: the
    experiment's shares, raked (Deming & Stephan 1940, Annals of Mathematical Statistics 11:427).

    Examples
    --------
    >>> import bayes_hte as hte
    >>> shares = read_population(hte.example_cells(), {"device": {"mobile": 0.7, "desktop": 0.2, "tablet": 0.1}})
    >>> shares.sel(segment=["mobile · new", "mobile · returning"]).values.round(3).tolist()
    [0.475, 0.225]
    """
    if population is None:
        return compute_population_shares(cells)
    if isinstance(population, pd.DataFrame):
        dimension_names, share_by_levels = _read_share_table(cells, population)
        start_shares = compute_population_shares(cells)
        if set(dimension_names) == set(cell_table.list_dimensions(cells)):
            # Every segment has a share of its own: those of the experiment, which may be 0, do not matter.
            start_shares = xr.full_like(start_shares, 1 / start_shares.size)
        return _rake_shares(start_shares, [_build_margin_target(cells, dimension_names, share_by_levels)])
    population_items = list_mapping_items(
        "population", population, str({str(label): 0.5 for label in cells[SEGMENT].values[:2]})
    )
    # Shares of levels are a mapping of mappings; of segments, one of numbers.
    if population_items and all(isinstance(shares, Mapping) for _, shares in population_items):
        return _rake_shares(compute_population_shares(cells), _read_margins(cells, population_items))
    return _read_segment_shares(cells, _read_labelled_shares(population_items))


def describe_stated_population(cells: xr.Dataset, population: StatedPopulation | None) -> str:
    """Describe in a few words whose gain a policy's worth is."""
    if population is None:
        return describe_population(cells)
    return "the population stated"


def _read_labelled_shares(share_items: Sequence[tuple[object, object]]) -> dict[str, float]:
    """Read shares by label; a tuple of levels is the label that its segment has."""
    share_by_label: dict[str, float] = {}
    for raw_label, raw_share in share_items:
        levels = raw_label if isinstance(raw_label, tuple) else (raw_label,)
        label = LEVEL_SEPARATOR.join(map(format_level, levels))
        if label in share_by_label:
            raise ArgumentError(f"population names {label!r} twice; add its shares up")
        share_by_label[label] = check_number(raw_share, f"the share of {label!r}")
    return share_by_label


def _read_share_table(cells: xr.Dataset, population: pd.DataFrame) -> tuple[list[str], dict[tuple[str, ...], float]]:
    """Read a table of shares: the dimensions it names, and the share of each combination of levels."""
    known_dimensions = cell_table.list_dimensions(cells)
    dimension_names = [name for name in map(str, population.columns) if name in known_dimensions]
    if SHARE_COLUMN not in population.columns or not dimension_names:
        raise ArgumentError(
            f"population has the columns {list(map(str, population.columns))[:8]}; give {SHARE_COLUMN!r} and at least "
            f"one of the dimensions {quote_names(known_dimensions)}"
        )
    level_columns = [[format_level(level) for level in population[name]] for name in dimension_names]
    share_by_levels: dict[tuple[str, ...], float] = {}
    for levels, raw_share in zip(zip(*level_columns, strict=True), population[SHARE_COLUMN], strict=True):
        if levels in share_by_levels:
            raise ArgumentError(f"population has two rows of {LEVEL_SEPARATOR.join(levels)!r}; add their shares up")
        share_by_levels[levels] = check_number(raw_share, f"the share of {LEVEL_SEPARATOR.join(levels)!r}")
    return dimension_names, share_by_levels


def _read_margins(cells: xr.Dataset, margin_items: Sequence[tuple[object, object]]) -> list[_MarginTarget]:
    """Read the shares of the levels of each dimension."""
    known_dimensions = cell_table.list_dimensions(cells)
    margin_targets = []
    for dimension_name, level_shares in margin_items:
        if dimension_name not in known_dimensions:
            raise ArgumentError(
                f"population names the dimension {describe_value(dimension_name)}; there are "
                f"{quote_names(known_dimensions)}"
            )
        share_by_label = _read_labelled_shares(list_mapping_items("population", level_shares, "{'mobile': 0.7}"))
        share_by_levels: dict[tuple[str, ...], float] = {(label,): share for label, share in share_by_label.items()}
        margin_targets.append(_build_margin_target(cells, [str(dimension_name)], share_by_levels))
    return margin_targets


def _read_segment_shares(cells: xr.Dataset, share_by_label: Mapping[str, float]) -> xr.DataArray:
    """Read the share of every segment from shares by its label."""
    segment_labels = [str(label) for label in cells[SEGMENT].values]
    shares = _check_shares(share_by_label, segment_labels, "segments")
    return xr.DataArray(shares, dims=SEGMENT, coords={SEGMENT: segment_labels})


def _check_shares(share_by_label: Mapping[str, float], known_labels: Sequence[str], role: str) -> NDArray[np.float64]:
    """Check that shares name exactly what is there and add up to 1; return them in its order.

    Raises
    ------
    ArgumentError
        If they do not.
    """
    # A typing error is both unknown and missing: the name that is wrong says more than the one that is not there.
    if unknown_labels := [label for label in share_by_label if label not in set(known_labels)]:
        raise ArgumentError(
            f"population names {role} that are not there: {unknown_labels[:5]}; there are {list(known_labels[:5])}"
            f"{' …' if len(known_labels) > 5 else ''}"
        )
    # A share of 0 is said, not assumed: whoever forgets a segment would otherwise give its people to the others.
    if missing_labels := [label for label in known_labels if label not in share_by_label]:
        raise ArgumentError(
            f"population lacks the {role} {missing_labels[:5]}; give each a share, 0 if nobody is there"
        )
    shares = np.array([share_by_label[label] for label in known_labels])
    if not np.isfinite(shares).all() or (shares < 0).any():
        wrong_label = known_labels[int(np.argmin(np.isfinite(shares) & (shares >= 0)))]
        raise ArgumentError(
            f"the share of {wrong_label!r} is {share_by_label[wrong_label]:.4g}; give a number from 0 to 1"
        )
    if abs(shares.sum() - 1) > MAX_ROUNDING:
        raise ArgumentError(
            f"the shares of the population add up to {shares.sum():.4g}, not to 1; divide each by that, or state "
            "what is left out"
        )
    return np.asarray(shares / shares.sum())


def _build_margin_target(
    cells: xr.Dataset, dimension_names: Sequence[str], share_by_levels: Mapping[tuple[str, ...], float]
) -> _MarginTarget:
    """Build the target of a margin, whose levels are combinations of the levels of its dimensions."""
    level_columns = [cells[name].values.astype(str) for name in dimension_names]
    segment_levels = [LEVEL_SEPARATOR.join(levels) for levels in zip(*level_columns, strict=True)]
    # In the order in which the data name them.
    level_labels = list(dict.fromkeys(segment_levels))
    stated_shares = {LEVEL_SEPARATOR.join(levels): share for levels, share in share_by_levels.items()}
    role = "segments" if set(dimension_names) == set(cell_table.list_dimensions(cells)) else "levels"
    return _MarginTarget(
        np.array([level_labels.index(label) for label in segment_levels]),
        _check_shares(stated_shares, level_labels, role),
    )


def _rake_shares(start_shares: xr.DataArray, margin_targets: Sequence[_MarginTarget]) -> xr.DataArray:
    """Rake shares until each margin has the shares that are stated.

    Raises
    ------
    ArgumentError
        If no population has all margins together.
    """
    segment_shares = np.asarray(start_shares.values, dtype=float)
    for _ in range(MAX_RAKING_ROUNDS):
        for target in margin_targets:
            # share_s ← share_s · target(level of s) / current(level of s); a level without anybody stays so.
            level_sums = target.sum_levels(segment_shares)
            ratios = np.divide(target.level_shares, level_sums, out=np.zeros_like(level_sums), where=level_sums > 0)
            segment_shares = segment_shares * ratios[target.level_positions]
        largest_gap = max(
            float(abs(target.sum_levels(segment_shares) - target.level_shares).max()) for target in margin_targets
        )
        if largest_gap < RAKING_TOLERANCE:
            return start_shares.copy(data=segment_shares / segment_shares.sum())
    raise ArgumentError(
        "no population of these segments has all the shares stated of their levels; state the share of each segment"
    )
