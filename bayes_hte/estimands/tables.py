"""Turn joint draws into tables, with an interval beside every number and a Monte-Carlo error beside probabilities."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.units.clusters import read_spanning_clusters
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.estimands.effects import compute_effects, estimate_plain_difference, estimate_without_pooling
from bayes_hte.estimands.new_segment import draw_new_segment_effect
from bayes_hte.estimands.pooling_factor import average_pooling, compute_pooling_factor
from bayes_hte.estimands.weights import (
    AveragedThing,
    SegmentWeights,
    average_over_segments,
    compute_average_weights,
    compute_population_shares,
    describe_average,
    describe_dependence,
    describe_population,
)
from bayes_hte.inference.certificate import read_certificate
from bayes_hte.inference.draw_blocks import split_draws, summarise_rows
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import get_fitted_cells, is_reliable

ContrastReference = Literal["ate", "rest", "pairs"]
"""With what a segment's effect is compared: the average of all, the average of the others, each other one."""
MAX_SEGMENTS_FOR_PAIRS = 200
"""Pairs of more segments than this are more rows than anyone reads, and gigabytes of draws."""


@dataclass(frozen=True, slots=True)
class EffectQuestion:
    """Scale, interval and smallest relevant effect of an answer.

    Attributes
    ----------
    scale : str
        ``absolute``, ``relative`` or ``link``.
    ci_prob : float
        Probability of the intervals, with equal tails: 0 is outside exactly when p_positive or
        p_negative is above (1 + ci_prob) / 2.
    rope : float or None
        The smallest effect that matters, on `scale`.
    higher_is_better : bool
        Which side of zero is harm.
    """

    scale: EffectScale = "absolute"
    ci_prob: float = 0.95
    rope: float | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        """Refuse a scale, probability or smallest effect that has no meaning."""
        if self.scale not in cell_table.EFFECT_SCALES:
            raise ArgumentError(
                f"no scale {describe_value(self.scale)}; scales are {', '.join(cell_table.EFFECT_SCALES)}"
            )
        if not 0 < (to_float(self.ci_prob) or 0.0) < 1:
            raise ArgumentError(
                f"ci_prob is a probability between 0 and 1, such as 0.95, not {describe_value(self.ci_prob)}"
            )
        if self.rope is not None and not (to_float(self.rope) or 0.0) > 0:
            raise ArgumentError(
                f"rope is the smallest effect that matters, a number greater than 0, not {describe_value(self.rope)}"
            )


def summarise_draws(draws: xr.DataArray, question: EffectQuestion) -> dict[str, xr.DataArray]:
    """Compute posterior mean, SD, interval and probabilities of signs, over chains and draws."""
    tail_prob = (1 - question.ci_prob) / 2

    def summarise_block(block: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        # Unknown draws are left out of means and intervals, and are neither positive nor negative.
        has_unknown = bool(np.isnan(block).any())
        compute_mean, compute_sd, compute_quantile = (
            (np.nanmean, np.nanstd, np.nanquantile) if has_unknown else (np.mean, np.std, np.quantile)
        )
        with warnings.catch_warnings():
            # Without any known draw the answer is NaN: no news for the caller.
            warnings.simplefilter("ignore", RuntimeWarning)
            # Equal tails, so that the interval excludes 0 exactly when a sign's probability exceeds (1 + ci_prob) / 2.
            ci_low, ci_high = compute_quantile(block, [tail_prob, 1 - tail_prob], axis=1)
            mean_effects, sd = compute_mean(block, axis=1), compute_sd(block, axis=1, ddof=1)
        return [mean_effects, sd, ci_low, ci_high, (block > 0).mean(axis=1), (block < 0).mean(axis=1)]

    column_names = ("effect", "sd", "ci_low", "ci_high", "p_positive", "p_negative")
    return dict(zip(column_names, summarise_rows(draws, summarise_block), strict=True))


def compute_rope_probabilities(effect_draws: xr.DataArray, question: EffectQuestion) -> dict[str, xr.DataArray]:
    """Compute the probabilities that an effect is too small to matter, does good, does harm; they add up to 1."""
    if question.rope is None:
        return {}
    rope = question.rope

    def count_block(block: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        is_above, is_below = (block > rope).mean(axis=1), (block < -rope).mean(axis=1)
        benefit, harm = (is_above, is_below) if question.higher_is_better else (is_below, is_above)
        return [(abs(block) <= rope).mean(axis=1), benefit, harm]

    column_names = ("p_rope", "p_benefit", "p_harm")
    return dict(zip(column_names, summarise_rows(effect_draws, count_block), strict=True))


def is_mean_unsettled(draws: xr.DataArray) -> xr.DataArray:
    """Tell where a few extreme draws decide the mean: it lies outside of the central 95 %."""
    # Of the interval that most tables show: a mean outside of it contradicts the numbers beside it.
    share_below = (draws < draws.mean(("chain", "draw"))).mean(("chain", "draw"))
    return (share_below < 0.025) | (share_below > 0.975)


def compute_harm_probability(effect_draws: xr.DataArray, question: EffectQuestion) -> xr.DataArray:
    """Compute the probability of harm: on the worse side of 0, and larger than the smallest effect that matters."""
    if question.rope is not None:
        return compute_rope_probabilities(effect_draws, question)["p_harm"]
    # Where no smallest effect is stated, every effect matters.
    benefit_sign = 1.0 if question.higher_is_better else -1.0
    (p_harm,) = summarise_rows(effect_draws, lambda block: [(benefit_sign * block < 0).mean(axis=1)])
    return p_harm


def tabulate_segments(fit_tree: xr.DataTree, question: EffectQuestion, *, with_detail: bool = False) -> pd.DataFrame:
    """Tabulate effects, one row per segment and arm; see `Fit.table` for the columns."""
    cells = get_fitted_cells(fit_tree)
    effect_draws = compute_effects(fit_tree, question.scale)
    raw_estimates = estimate_without_pooling(fit_tree, question.scale)
    table_columns = {
        **count_units_by_arm(cells),
        "raw": raw_estimates["raw"],
        "raw_se": raw_estimates["raw_se"],
        **summarise_draws(effect_draws, question),
        **select_sign_probabilities(fit_tree),
        "pooling": average_pooling(fit_tree)["pooling"],
        **compute_rope_probabilities(effect_draws, question),
    }
    if with_detail:
        table_columns |= _compute_detail_columns(fit_tree, effect_draws, raw_estimates, question)
    table_columns |= measure_sizes_by_arm(cells)
    return build_effect_table(table_columns, cells)


def select_sign_probabilities(fit_tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Select the probabilities of signs that the exact engine computed better than by counting draws.

    Every scale has the same signs. Empty where the engine left none.
    """
    if "sign" not in fit_tree.children:
        return {}
    p_positive = fit_tree["sign"].to_dataset()["p_positive"]
    return {"p_positive": p_positive, "p_negative": 1 - p_positive}


def _compute_detail_columns(
    fit_tree: xr.DataTree, effect_draws: xr.DataArray, raw_estimates: xr.Dataset, question: EffectQuestion
) -> dict[str, xr.DataArray]:
    """Compute the columns for reviewers: Monte-Carlo errors, the pooling factor's interval, complete pooling."""
    tail_prob = (1 - question.ci_prob) / 2
    factor_bounds = compute_pooling_factor(fit_tree).quantile([tail_prob, 1 - tail_prob], dim=("chain", "draw"))
    complete_effect, complete_se = pool_completely(raw_estimates)
    return {
        "effect_mcse": compute_mcse(fit_tree, effect_draws),
        "p_mcse": _compute_sign_mcse(fit_tree, effect_draws),
        "pooling_low": factor_bounds.isel(quantile=0, drop=True),
        "pooling_high": factor_bounds.isel(quantile=1, drop=True),
        "complete": complete_effect.broadcast_like(raw_estimates["raw"]),
        "complete_se": complete_se.broadcast_like(raw_estimates["raw"]),
    }


def _compute_sign_mcse(fit_tree: xr.DataTree, effect_draws: xr.DataArray) -> xr.DataArray:
    """Compute the Monte-Carlo standard error of p_positive."""
    if "sign" in fit_tree.children:
        return fit_tree["sign"].to_dataset()["p_positive_mcse"]
    return compute_mcse(fit_tree, effect_draws > 0)


def pool_completely(raw_estimates: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Pool the raw estimates into one effect per arm: their inverse-variance mean and its standard error."""
    is_usable = np.isfinite(raw_estimates["raw"]) & (raw_estimates["raw_se"] > 0)
    # w = 1 / se²,  mean = Σ w y / Σ w,  se = (Σ w)^(−1/2); NaN where nothing is usable
    precision_weights = (1 / raw_estimates["raw_se"] ** 2).where(is_usable)
    total_precision = precision_weights.sum("segment")
    pooled_mean = (precision_weights * raw_estimates["raw"]).sum("segment") / total_precision.where(total_precision > 0)
    return pooled_mean, total_precision.where(total_precision > 0) ** -0.5


def compute_mcse(fit_tree: xr.DataTree, draws: xr.DataArray) -> xr.DataArray:
    """Compute the Monte-Carlo standard error of the mean of draws, whichever engine drew them.

    Draws with a certificate are independent given the points of their hyperparameters, which are worth
    `effective_points`: variance (1 / draws + 1 / points) times the posterior's, at most.
    """
    certificate = read_certificate(fit_tree)
    if certificate is None:
        return compute_mcse_of_chains(draws)
    draw_count = draws.sizes["chain"] * draws.sizes["draw"]
    relative_variance = 1 / draw_count + certificate.relative_variance
    standard_error: xr.DataArray = draws.astype(float).std(("chain", "draw"), ddof=1) * np.sqrt(relative_variance)
    return _floor_mcse(standard_error, draws)


def compute_mcse_of_chains(draws: xr.DataArray) -> xr.DataArray:
    """Compute the standard error of the mean of draws that depend on each other, by ArviZ."""
    import arviz_stats as az

    standard_error: xr.DataArray = az.mcse(draws.astype(float).to_dataset(name="x"), method="mean")["x"]
    return _floor_mcse(standard_error, draws)


def _floor_mcse(standard_error: xr.DataArray, draws: xr.DataArray) -> xr.DataArray:
    """Replace the error 0 of an event on which all draws agree: its probability is not exactly 0 or 1."""
    if draws.dtype != bool:
        return standard_error
    draw_count = draws.sizes["chain"] * draws.sizes["draw"]
    # A standard error of 0 would claim certainty that N draws cannot give.
    # Half an event in N + 1 draws: p = 0.5 / (N + 1), error √(p / N).
    smallest_error = np.sqrt(0.5 / (draw_count + 1) / draw_count)
    is_unanimous = draws.all(("chain", "draw")) | ~draws.any(("chain", "draw"))
    return standard_error.where(~is_unanimous, smallest_error)


def tabulate_ate(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    weights: SegmentWeights | None = None,
    averaged_thing: AveragedThing = "total",
) -> pd.DataFrame:
    """Tabulate the average effect, one row per arm; see `Fit.ate`.

    Raises
    ------
    ArgumentError
        If the weights make no population, or there is no such average.
    """
    cells = get_fitted_cells(fit_tree)
    effect_draws = compute_effects(fit_tree, question.scale)
    ate_draws = average_over_segments(
        effect_draws, compute_average_weights(fit_tree, question.scale, weights, averaged_thing)
    )
    table_columns = {
        **count_all_units(cells),
        **summarise_draws(ate_draws, question),
        **compute_rope_probabilities(ate_draws, question),
    }
    table_columns["p_mcse"] = compute_mcse(fit_tree, ate_draws > 0)
    plain_estimates = estimate_plain_difference(fit_tree, question.scale)
    table_columns |= {"raw": plain_estimates["raw"], "raw_se": plain_estimates["raw_se"]}
    table_columns |= {name: sizes.sum("segment") for name, sizes in measure_sizes_by_arm(cells).items()}
    ate_table = build_effect_table(table_columns, cells, dims=("arm",))
    ate_table.attrs["average"] = describe_average(fit_tree, question.scale, averaged_thing)
    ate_table.attrs["population"] = describe_population(cells, weights)
    if dependence_sentence := describe_dependence(cells):
        ate_table.attrs["dependence"] = dependence_sentence
    return ate_table


def tabulate_contrasts(
    fit_tree: xr.DataTree, question: EffectQuestion, against: ContrastReference, weights: SegmentWeights | None = None
) -> pd.DataFrame:
    """Tabulate comparisons between effects, one row each; see `Fit.contrasts`.

    Raises
    ------
    ArgumentError
        If there is no such contrast.
    DataError
        If there is one segment, one that is the whole population, or too many for all pairs.
    """
    effect_draws = compute_effects(fit_tree, question.scale)
    segment_shares = compute_population_shares(get_fitted_cells(fit_tree), weights)
    segment_weights = compute_average_weights(fit_tree, question.scale, weights)
    if effect_draws.sizes["segment"] < 2:
        raise DataError("one segment has nothing to be compared with")
    ate_contrast = effect_draws - average_over_segments(effect_draws, segment_weights)
    match against:
        case "ate":
            contrast_draws = ate_contrast.expand_dims(against=["ATE"])
        case "rest":
            if bool((segment_shares == 1).any()):
                raise DataError(
                    "by these weights one segment is the whole population: it has no rest; use ate or pairs"
                )
            # ATE = weight · effect + (1 − weight) · rest, so effect − rest = (effect − ATE) / (1 − weight)
            contrast_draws = (ate_contrast / (1 - segment_weights)).expand_dims(against=["rest"])
        case "pairs":
            return _tabulate_pairs(effect_draws, question)
        case _:
            raise ArgumentError(f"no contrast against {describe_value(against)}; there are ate, rest and pairs")
    contrast_summary = xr.Dataset(summarise_draws(contrast_draws, question))
    contrast_table = contrast_summary.to_dataframe(dim_order=["arm", "segment", "against"]).reset_index()
    contrast_table = contrast_table[["arm", "segment", "against", *contrast_summary.data_vars]].rename(
        columns={"effect": "difference"}
    )
    contrast_table.attrs["average"] = describe_average(fit_tree, question.scale)
    contrast_table.attrs["population"] = describe_population(get_fitted_cells(fit_tree), weights)
    return contrast_table


def compute_signs_against_average(fit_tree: xr.DataTree, question: EffectQuestion) -> pd.DataFrame:
    """Compute how probably each segment's effect is above, and below, the average: of `tabulate_contrasts`, the signs.

    Returns
    -------
    pandas.DataFrame
        arm, segment, p_positive, p_negative.
    """
    effect_draws = compute_effects(fit_tree, question.scale)
    average_draws = average_over_segments(effect_draws, compute_average_weights(fit_tree, question.scale))
    above_counts = below_counts = xr.zeros_like(effect_draws.isel(chain=0, draw=0, drop=True), dtype=int)
    for block_slice, block_draws in split_draws({"effect": effect_draws}):
        block_contrasts = block_draws["effect"] - average_draws.isel(draw=block_slice)
        above_counts = above_counts + (block_contrasts > 0).sum(("chain", "draw"))
        below_counts = below_counts + (block_contrasts < 0).sum(("chain", "draw"))
    draw_count = effect_draws.sizes["chain"] * effect_draws.sizes["draw"]
    sign_probabilities = xr.Dataset(
        {"p_positive": above_counts / draw_count, "p_negative": below_counts / draw_count}
    ).reset_coords(drop=True)
    return sign_probabilities.to_dataframe(dim_order=["arm", "segment"]).reset_index()


def _tabulate_pairs(effect_draws: xr.DataArray, question: EffectQuestion) -> pd.DataFrame:
    """Tabulate the differences between all pairs of segments; one segment at a time, to hold few draws in memory."""
    segment_count = effect_draws.sizes["segment"]
    if segment_count > MAX_SEGMENTS_FOR_PAIRS:
        raise DataError(
            f"{segment_count} segments make {segment_count * (segment_count - 1) // 2:,} pairs; "
            "compare against rest or ate instead"
        )
    pair_tables = []
    for segment_index in range(segment_count - 1):
        segment_draws = effect_draws.isel(segment=segment_index, drop=True)
        other_draws = effect_draws.isel(segment=slice(segment_index + 1, None))
        pair_summary = xr.Dataset(summarise_draws(segment_draws - other_draws, question)).rename(segment="against")
        segment_table = pair_summary.to_dataframe(dim_order=["arm", "against"]).reset_index()
        segment_table.insert(1, "segment", str(effect_draws["segment"].values[segment_index]))
        pair_tables.append(segment_table)
    column_names = ["arm", "segment", "against", "effect", "sd", "ci_low", "ci_high", "p_positive", "p_negative"]
    pair_table = pd.concat(pair_tables, ignore_index=True)[column_names].rename(columns={"effect": "difference"})
    # Tables were built segment by segment; a stable sort by arm keeps the order of pairs within an arm.
    arm_order = {str(arm): arm_index for arm_index, arm in enumerate(effect_draws["arm"].values)}
    return pair_table.sort_values("arm", kind="stable", ignore_index=True, key=lambda arms: arms.map(arm_order))


def tabulate_new_segment(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    *,
    seed: int,
    where: Mapping[str, str] | None = None,
    covariates: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Tabulate the effect in a new segment, one row per arm; see `Fit.predict_new_segment`."""
    effect_draws = draw_new_segment_effect(fit_tree, question.scale, seed, where=where, covariates=covariates)
    table_columns = {**summarise_draws(effect_draws, question), **compute_rope_probabilities(effect_draws, question)}
    # A new segment's mean outcome may have no expectation though those of the segments at hand do: its prior of tau
    # needs a tail below exp(−tau² / 2) under a log link, and few segments do not bound it.
    table_columns["reliable"] = ~is_mean_unsettled(effect_draws) & is_reliable(fit_tree)
    return build_effect_table(table_columns, get_fitted_cells(fit_tree), dims=("arm",))


def count_units_by_arm(cells: xr.Dataset) -> dict[str, xr.DataArray]:
    """Count the units of control and treatment by segment and arm; NaN where not known, as of published estimates."""
    if "n" not in cells:
        unknown_counts = xr.full_like(cell_table.has_data(cells), np.nan, dtype=float)
        unknown_counts = unknown_counts.sel(arm=cell_table.list_treated_arms(cells))
        return {"n_control": unknown_counts, "n_treated": unknown_counts}
    return _split_by_arm(cells["n"], cells, "n")


def measure_sizes_by_arm(cells: xr.Dataset) -> dict[str, xr.DataArray]:
    """Measure what the cells of control and treatment stand for, where that is not their units; else nothing."""
    return _split_by_arm(cells["cell_size"], cells, "size") if "cell_size" in cells else {}


def _split_by_arm(cell_values: xr.DataArray, cells: xr.Dataset, prefix: str) -> dict[str, xr.DataArray]:
    """Split a number of every cell into that of the control, NaN where there is none, and of the treated arms."""
    treated_values = cell_values.sel(arm=cell_table.list_treated_arms(cells))
    control_values = xr.full_like(treated_values, np.nan, dtype=float)
    if cells.attrs["control"]:
        # The control's column once for each treated arm; xarray would align labels to find that they are the same.
        control_column = cell_values.sel(arm=[cells.attrs["control"]]).values
        control_values = treated_values.copy(data=np.broadcast_to(control_column, treated_values.shape))
    return {f"{prefix}_control": control_values, f"{prefix}_treated": treated_values}


def count_all_units(cells: xr.Dataset) -> dict[str, xr.DataArray]:
    """Count the units of control and treatment by arm, each once; dims (arm,), NaN where nobody knows.

    A cluster counts in every segment where it has rows, but once here.
    """
    segment_counts = count_units_by_arm(cells)
    spanning_clusters = read_spanning_clusters(cells)
    if spanning_clusters is None:
        # Unknown only where all segments are: a segment without units adds none.
        return {name: counts.sum("segment", min_count=1) for name, counts in segment_counts.items()}
    cluster_counts = spanning_clusters.clusters_by_arm
    arms = segment_counts["n_treated"]["arm"]
    control_count = cluster_counts.get(str(cells.attrs["control"]), np.nan)
    treated_counts = arms.copy(data=[float(cluster_counts.get(str(arm), np.nan)) for arm in arms.values])
    return {"n_control": xr.full_like(treated_counts, control_count, dtype=float), "n_treated": treated_counts}


def build_effect_table(
    table_columns: dict[str, xr.DataArray], cells: xr.Dataset, dims: tuple[str, ...] = ("segment", "arm")
) -> pd.DataFrame:
    """Build a table of columns side by side, segments outermost, one column per dimension first."""
    long_table = _stack_columns(table_columns, dims)
    level_columns = {}
    if "segment" in dims:
        segment_positions = {str(label): position for position, label in enumerate(cells["segment"].values)}
        segment_index = long_table["segment"].map(segment_positions).to_numpy()
        level_columns = {
            name: cells[name].values[segment_index].astype(str) for name in cell_table.list_dimensions(cells)
        }
    # Nullable integers: units are whole, and unknown for published estimates.
    for name in ("n_control", "n_treated"):
        if name in long_table:
            long_table[name] = long_table[name].astype("Int64")
    return pd.concat([pd.DataFrame(level_columns, index=long_table.index), long_table[["arm", *table_columns]]], axis=1)


def _stack_columns(table_columns: Mapping[str, xr.DataArray], dims: tuple[str, ...]) -> pd.DataFrame:
    """Stack columns side by side, one row per combination of the labels of `dims`, the last one fastest."""
    first_column = next(iter(table_columns.values()))
    labels = {dim: first_column[dim].values for dim in dims}
    is_alike = all(
        set(values.dims) == set(dims) and all(np.array_equal(values[dim].values, labels[dim]) for dim in dims)
        for values in table_columns.values()
    )
    if not is_alike:  # columns with labels of their own, or without one of the dims
        column_data = xr.Dataset({name: values.reset_coords(drop=True) for name, values in table_columns.items()})
        return column_data.transpose(*dims).to_dataframe(dim_order=list(dims)).reset_index()
    # By hand: xarray would align every column with every other one, which takes longer than all else here.
    label_grids = np.meshgrid(*labels.values(), indexing="ij")
    return pd.DataFrame(
        {dim: grid.ravel() for dim, grid in zip(dims, label_grids, strict=True)}
        | {name: values.transpose(*dims).values.ravel() for name, values in table_columns.items()}
    )
