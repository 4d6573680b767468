"""Weight segments by their shares of a population, and average effects over them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.validation import check_number, list_mapping_items
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.errors import ArgumentError
from bayes_hte.spec import cell_table

SegmentWeights = Mapping[str, float] | pd.Series
"""Population size of each segment by its label."""


def compute_population_shares(cells: xr.Dataset, weights: SegmentWeights | None = None) -> xr.DataArray:
    """Compute each segment's share of the population; dims (segment,), sums to 1.

    Parameters
    ----------
    cells : xarray.Dataset
        The cell table.
    weights : mapping or pandas.Series, optional
        Population size of each segment by its label; by default the units of all arms together, or
        equal shares where the number of units is not known.

    Raises
    ------
    ArgumentError
        If the weights do not name every segment, or are negative or all zero.
    """
    segment_labels = [str(label) for label in cells[cell_table.SEGMENT].values]
    if weights is not None:
        weight_by_label = _parse_weights(weights, segment_labels)
        if missing_labels := [label for label in segment_labels if label not in weight_by_label]:
            raise ArgumentError(
                f"weights lack the segments {missing_labels[:5]}; give one number for each of {segment_labels[:5]} …"
            )
        if unknown_labels := sorted(set(weight_by_label) - set(segment_labels)):
            raise ArgumentError(
                f"weights name segments that are not there: {unknown_labels[:5]}; there are {segment_labels[:5]} …"
            )
        segment_sizes = np.array([weight_by_label[label] for label in segment_labels])
    elif "n" in cells:
        # An arm that a segment lacks has no units there.
        segment_sizes = cells["n"].fillna(0).sum(cell_table.ARM).values.astype(float)
    else:
        segment_sizes = np.ones(len(segment_labels))
    if not np.isfinite(segment_sizes).all() or (segment_sizes < 0).any() or segment_sizes.sum() <= 0:
        raise ArgumentError("weights must be finite, not negative, and not all zero")
    return xr.DataArray(
        segment_sizes / segment_sizes.sum(), dims=cell_table.SEGMENT, coords={cell_table.SEGMENT: segment_labels}
    )


def _parse_weights(weights: object, segment_labels: list[str]) -> dict[str, float]:
    """Read the weights of segments as numbers by label."""
    weight_items = list_mapping_items("weights", weights, str(dict.fromkeys(segment_labels[:2], 1)))
    weight_by_label = {
        format_level(label): check_number(raw_weight, f"the weight of {label!r}") for label, raw_weight in weight_items
    }
    if len(weight_by_label) < len(weight_items):
        raise ArgumentError(f"weights name a segment twice: {[label for label, _ in weight_items][:5]}; add them up")
    return weight_by_label


def average_over_segments(effect_draws: xr.DataArray, segment_shares: xr.DataArray) -> xr.DataArray:
    """Average effects over segments with the population's shares, draw by draw: the ATE, dims (chain, draw, arm)."""
    # ATE = Σ_s share_s · effect_s
    return (effect_draws * segment_shares).sum(cell_table.SEGMENT)
