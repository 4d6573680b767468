"""Weight segments by their shares of a population, and average effects over them.

On the relative scale the average is the change of the total: with shares s of the population, and the mean outcome m of
the control and m' of the treated,

    Σ s m' / Σ s m − 1  =  Σ w (m' / m − 1),      w = s m / Σ s m

draw by draw: the mean of the segments' ratios, weighted by their shares of what the controls have. So every average of
relative effects uses w in place of s. The plain mean Σ s (m' / m − 1) is another number, far from it where small
baselines rise most.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import check_number, describe_value, list_mapping_items
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.cells.units.clusters import read_spanning_clusters
from bayes_hte.errors import ArgumentError
from bayes_hte.estimands.effects import compute_arm_means, describe_units, get_fitted_family, select_parameters
from bayes_hte.inference.draw_blocks import compute_by_draw
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import get_fitted_cells

SegmentWeights = Mapping[str, float] | pd.Series
"""Population size of each segment by its label."""
AveragedThing = Literal["total", "segments"]
"""Of what an average is: the change of the total outcome, or the mean of the segments' own effects."""


def compute_population_shares(cells: xr.Dataset, weights: SegmentWeights | None = None) -> xr.DataArray:
    """Compute each segment's share of the population; dims (segment,), sums to 1.

    Parameters
    ----------
    cells : xarray.Dataset
        The cell table.
    weights : mapping or pandas.Series, optional
        Population size of each segment by its label; by default the sizes of its cells in all arms together
        (`cell_table.get_cell_sizes`), or equal shares where these are not known.

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
    else:
        # All arms together: who was assigned to which arm is chance, or the plan's, and says nothing of a population.
        cell_sizes = cell_table.get_cell_sizes(cells)
        segment_sizes = np.ones(len(segment_labels)) if cell_sizes is None else cell_sizes.sum(cell_table.ARM).values
    if not np.isfinite(segment_sizes).all() or (segment_sizes < 0).any() or segment_sizes.sum() <= 0:
        raise ArgumentError("weights must be finite, not negative, and not all zero")
    return xr.DataArray(
        segment_sizes / segment_sizes.sum(), dims=cell_table.SEGMENT, coords={cell_table.SEGMENT: segment_labels}
    )


def compute_average_weights(
    fit_tree: xr.DataTree,
    scale: EffectScale,
    weights: SegmentWeights | None = None,
    averaged_thing: AveragedThing = "total",
) -> xr.DataArray:
    """Compute the weight of each segment in averages of effects on a scale.

    Parameters
    ----------
    fit_tree : xarray.DataTree
        A fit whose effects are known on the scale.
    scale : str
    weights : mapping or pandas.Series, optional
        As `compute_population_shares` takes them.
    averaged_thing : {"total", "segments"}
        Of relative effects: "total" makes their average the change of the total.

    Returns
    -------
    xarray.DataArray
        The population's shares, dims (segment,); of relative effects the shares of the control's total, dims (chain,
        draw, segment). They sum to 1.

    Raises
    ------
    ArgumentError
        If the weights make no population, or there is no such average.
    """
    if averaged_thing not in get_args(AveragedThing):
        raise ArgumentError(f'of is "total" or "segments", not {describe_value(averaged_thing)}')
    cells = get_fitted_cells(fit_tree)
    segment_shares = compute_population_shares(cells, weights)
    if scale != "relative" or averaged_thing == "segments":
        return segment_shares
    family, parameter_draws = get_fitted_family(fit_tree), select_parameters(fit_tree)
    if family.link == "log":
        # e^baseline is the control's mean, or its hazard, which ratios are of; the largest is taken out of all.
        log_levels = parameter_draws["baseline"] - parameter_draws["baseline"].max(cell_table.SEGMENT)
        control_levels = log_levels.copy(data=np.exp(log_levels.values))
    else:
        control_levels, _ = compute_arm_means(family, parameter_draws, cells)
    # w = s m / Σ s m
    control_totals = control_levels * segment_shares
    return control_totals / control_totals.sum(cell_table.SEGMENT)


def describe_average(fit_tree: xr.DataTree, scale: EffectScale, averaged_thing: AveragedThing = "total") -> str:
    """Describe in a few words what an average of effects on a scale is."""
    family = get_fitted_family(fit_tree)
    if scale == "absolute":
        return "change in the mean of all"
    if scale == "link":
        return f"mean of the segments' effects, in {describe_units(family, scale)}"
    if averaged_thing == "segments":
        return "mean of the segments' relative effects"
    # Of survival a relative effect is a hazard ratio less one: at the start, when nobody has left, hazards add up.
    total_name = "mean of all" if family.compute_risk_by_time is None else "hazard of all at the start"
    return f"change in the {total_name}, relative to the control's"


def describe_population(cells: xr.Dataset, weights: SegmentWeights | None = None) -> str:
    """Describe in a few words whose average an average over segments is."""
    if weights is not None:
        return "the population that the weights describe"
    cell_sizes = cell_table.get_cell_sizes(cells)
    if cell_sizes is None:
        return "segments that count the same, as their sizes are not known"
    total_size = float(cell_sizes.sum())
    size_text = f"{total_size:,.0f}" if total_size >= 100 else f"{total_size:.3g}"
    return f"{size_text} {cell_table.name_size_unit(cells)}"


def describe_dependence(cells: xr.Dataset) -> str:
    """Describe in a sentence why averages are less sure than they look; "" where segments are independent."""
    spanning_clusters = read_spanning_clusters(cells)
    if spanning_clusters is None:
        return ""
    cluster_phrase = f"Clusters of {cells.attrs['cluster']}" if "cluster" in cells.attrs else "Clusters"
    level_phrase = (
        f"several levels of {quote_names(spanning_clusters.varying_dims)}"
        if spanning_clusters.varying_dims
        else f"other levels of {spanning_clusters.sliced_dim!r}"
    )
    return (
        f"{cluster_phrase} have rows in {level_phrase}, so segments are not independent: the average effect, and what "
        "compares segments, is less sure than its interval."
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
    """Average effects over segments with their weights, draw by draw: the ATE, dims (chain, draw, arm)."""
    # ATE = Σ_s weight_s · effect_s
    return compute_by_draw(
        lambda block: (block["effect"] * block["weight"]).sum(cell_table.SEGMENT),
        {"effect": effect_draws, "weight": segment_shares},
    )
