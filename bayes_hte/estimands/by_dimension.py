"""Average effects within a dimension's levels, and compute its share of all differences between segments."""

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte.cells.reading.level_order import list_levels
from bayes_hte.cells.units.clusters import read_spanning_clusters
from bayes_hte.errors import ArgumentError, ModelError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.pooling_factor import decompose_effects
from bayes_hte.estimands.tables import EffectQuestion, compute_rope_probabilities, count_units_by_arm, summarise_draws
from bayes_hte.estimands.weights import (
    SegmentWeights,
    compute_average_weights,
    compute_population_shares,
    describe_average,
    describe_population,
)
from bayes_hte.model.parameters import expand_dimensions
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model


def tabulate_marginal_effects(
    fit_tree: xr.DataTree, dimension: str, question: EffectQuestion, weights: SegmentWeights | None = None
) -> pd.DataFrame:
    """Tabulate the effects of a dimension's levels, one row per level and arm; see `Fit.marginal`.

    Raises
    ------
    ArgumentError
        If there is no such dimension, or a level has no weight.
    """
    cells = get_fitted_cells(fit_tree)
    if dimension not in cell_table.list_dimensions(cells):
        raise ArgumentError(f"no dimension {dimension!r}; there are {cell_table.list_dimensions(cells)}")
    level_labels = list_levels(cells, dimension)
    level_members = _mark_level_members(cells, dimension, level_labels)
    level_totals = (level_members * compute_population_shares(cells, weights)).sum("segment")
    if not bool((level_totals > 0).all()):
        empty_levels = [label for label, total in zip(level_labels, level_totals.values, strict=True) if not total > 0]
        raise ArgumentError(
            f"the levels {empty_levels[:5]} of {dimension} have no weight: give their segments some, or leave out"
        )
    segment_effects = compute_effects(fit_tree, question.scale)
    segment_weights = compute_average_weights(fit_tree, question.scale, weights)
    # effect of a level = Σ_s weight_s · effect_s / Σ_s weight_s, over the segments s that have the level
    level_sums = xr.dot(segment_effects * segment_weights, level_members, dim="segment")
    effect_draws = level_sums / xr.dot(segment_weights, level_members, dim="segment")
    segment_counts = count_units_by_arm(cells)
    unit_counts = {name: _sum_units_by_level(counts, level_members) for name, counts in segment_counts.items()}
    if _spans_within_levels(cells, dimension):
        # A cluster counts in each of its segments: how many there are in a level of several is not known.
        unit_counts = {name: counts.where(level_members.sum("segment") == 1) for name, counts in unit_counts.items()}
    table_columns = xr.Dataset(
        {**unit_counts, **summarise_draws(effect_draws, question), **compute_rope_probabilities(effect_draws, question)}
    )
    level_table = table_columns.to_dataframe(dim_order=["level", "arm"]).reset_index()
    # Nullable integers: units are whole, and may be unknown.
    for column_name in unit_counts:
        level_table[column_name] = level_table[column_name].astype("Int64")
    level_table = level_table[["level", "arm", *map(str, table_columns.data_vars)]]
    level_table.attrs["average"] = describe_average(fit_tree, question.scale)
    level_table.attrs["population"] = describe_population(cells, weights)
    return level_table


def _mark_level_members(cells: xr.Dataset, dimension: str, level_labels: list[str]) -> xr.DataArray:
    """Mark with 1 where a segment has a level; dims (level, segment)."""
    segment_levels = cells[dimension].values.astype(str)
    segment_labels = [str(label) for label in cells[cell_table.SEGMENT].values]
    member_flags = (segment_levels == np.array(level_labels)[:, None]).astype(float)
    return xr.DataArray(
        member_flags, dims=("level", "segment"), coords={"level": level_labels, "segment": segment_labels}
    )


def _spans_within_levels(cells: xr.Dataset, dimension: str) -> bool:
    """Tell whether clusters may have rows in several segments of one level."""
    spanning_clusters = read_spanning_clusters(cells)
    return spanning_clusters is not None and bool(set(spanning_clusters.varying_dims) - {dimension})


def _sum_units_by_level(segment_units: xr.DataArray, level_members: xr.DataArray) -> xr.DataArray:
    """Sum the units of every level's segments; NaN where no segment's number is known."""
    level_units: xr.DataArray = (
        segment_units.reset_coords(drop=True).where(level_members > 0).sum("segment", min_count=1)
    )
    return level_units


def tabulate_variance_shares(
    fit_tree: xr.DataTree, question: EffectQuestion, weights: SegmentWeights | None = None
) -> pd.DataFrame:
    """Tabulate shares of the differences between effects, one row per arm and source; see `Fit.variance_shares`.

    Raises
    ------
    ModelError
        If the model does not add effects up from dimensions or covariates.
    """
    cells = get_fitted_cells(fit_tree)
    model = expand_dimensions(get_fitted_model(fit_tree), cells)
    if not model.effect.by and not model.effect.covariates:
        dimension_names = cell_table.list_dimensions(cells)
        raise ModelError(
            "this model has no parts to divide the differences among: state the dimensions in the model file, "
            f"as in effect.by = {cell_table.encode_text_list(dimension_names)}, or effect.covariates"
        )
    segment_shares = compute_population_shares(cells, weights)
    part_variances = {
        name: _compute_population_variance(part_effects, segment_shares)
        for name, part_effects in decompose_effects(fit_tree).items()
    }
    # Shares of the parts' sum, not of the effects' variance, which correlations between parts change: they add up to 1.
    total_variance = sum(part_variances.values(), start=xr.zeros_like(next(iter(part_variances.values()))))
    table_rows = []
    for arm in map(str, total_variance["arm"].values):
        for source_name, part_variance in part_variances.items():
            table_row: dict[str, str | float] = {"arm": arm, "source": source_name}
            table_row |= _summarise_with_interval((part_variance / total_variance).sel(arm=arm), "share", question)
            table_row |= _summarise_with_interval((part_variance**0.5).sel(arm=arm), "sd", question)
            table_rows.append(table_row)
    return pd.DataFrame(table_rows)


def _compute_population_variance(part_effects: xr.DataArray, segment_shares: xr.DataArray) -> xr.DataArray:
    """Compute the finite-population variance over the segments at hand, draw by draw; dims (chain, draw, arm).

    References
    ----------
    Gelman (2005), Annals of Statistics 33:1.
    """
    # Var = Σ_s share_s (x_s − Σ_t share_t x_t)²; indices: chain, draw, segment, arm
    segment_weights = segment_shares.values
    effect_values = part_effects.values
    centred_values = effect_values - np.einsum("cdsa,s->cda", effect_values, segment_weights)[:, :, None, :]
    return part_effects.isel(segment=0, drop=True).copy(
        data=np.einsum("cdsa,s->cda", centred_values**2, segment_weights)
    )


def _summarise_with_interval(
    quantity_draws: xr.DataArray, column_name: str, question: EffectQuestion
) -> dict[str, float]:
    """Summarise draws by mean and interval with equal tails, as three columns of a row."""
    tail_prob = (1 - question.ci_prob) / 2
    ci_low, ci_high = np.quantile(quantity_draws.values, [tail_prob, 1 - tail_prob])
    return {
        column_name: float(quantity_draws.mean()),
        f"{column_name}_low": float(ci_low),
        f"{column_name}_high": float(ci_high),
    }
