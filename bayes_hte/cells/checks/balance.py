"""Check whether units of the arms were alike before treatment, and were lost at the same rate after it.

References
----------
Austin 2009, Balance diagnostics for comparing the distribution of baseline covariates, Statistics in Medicine 28:3083.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.checks.hypothesis_tests import (
    ALARM_P_VALUE,
    MIN_EXPECTED_COUNT,
    RealValues,
    UnitCounts,
    compare_means,
    compare_with_shares,
    correct_by_holm,
)
from bayes_hte.cells.checks.wording import format_mean, format_p_value, format_percentages, quote_column, shorten_label
from bayes_hte.cells.units.clusters import read_spanning_clusters
from bayes_hte.spec.cell_table import ARM, PRE_COVARIATE, SEGMENT

MAX_NAMED_ITEMS = 3
"""A sentence gives numbers for so many covariates, the surest first: more are not read."""


@dataclass(frozen=True, slots=True, eq=False)
class PretreatmentMoments:
    """Moments of what was measured before treatment, over all segments: arrays with dims (arm, pre_covariate)."""

    n: UnitCounts
    mean: RealValues
    ss: RealValues


def pool_pretreatment_moments(cells: xr.Dataset) -> PretreatmentMoments:
    """Pool the moments of covariates before treatment over segments, by the formula of Chan, Golub & LeVeque 1983."""
    dim_order = (SEGMENT, ARM, PRE_COVARIATE)
    n = cells["pre_n"].transpose(*dim_order).values
    mean = np.where(n > 0, cells["pre_mean"].transpose(*dim_order).values, 0.0)
    # m = Σ_s n_s m_s / Σ_s n_s and SS = Σ_s SS_s + Σ_s n_s (m_s − m)²
    total_n = n.sum(axis=0)
    pooled_mean = (n * mean).sum(axis=0) / np.maximum(total_n, 1)
    pooled_ss = cells["pre_ss"].transpose(*dim_order).values.sum(axis=0) + (n * (mean - pooled_mean) ** 2).sum(axis=0)
    return PretreatmentMoments(total_n, pooled_mean, pooled_ss)


def describe_imbalance(cells: xr.Dataset) -> list[str]:
    """Describe covariates before treatment whose means differ between the arms (`compare_means`, Holm's correction)."""
    if not {"pre_n", "pre_mean", "pre_ss"} <= set(map(str, cells.data_vars)):
        return []
    moments = pool_pretreatment_moments(cells)
    spanning_clusters = read_spanning_clusters(cells)
    design_effect = 1.0 if spanning_clusters is None else spanning_clusters.design_effect(int(cells["n"].sum()))
    if not np.isfinite(design_effect):  # units are in several segments, nobody knows in how many
        return []
    # Clusters count in each of their segments: the tests take n / deff units (Kish), with the same variance SS / n.
    effective_counts, effective_ss = np.round(moments.n / design_effect), moments.ss / design_effect
    p_values = np.array(
        [
            compare_means(*arm_moments)
            for arm_moments in zip(effective_counts.T, moments.mean.T, effective_ss.T, strict=True)
        ]
    )
    corrected_p = correct_by_holm(p_values)
    covariate_order = np.argsort(p_values, kind="stable")
    alarming_indices = [int(index) for index in covariate_order if corrected_p[index] < ALARM_P_VALUE]
    if not alarming_indices:
        return []
    arms, names = cells[ARM].values, cells[PRE_COVARIATE].values
    covariate_texts = [
        f"{quote_column(names[index])} ({_describe_largest_gap(moments, index, arms)}; "
        f"{format_p_value(float(corrected_p[index]))})"
        for index in alarming_indices[:MAX_NAMED_ITEMS]
    ]
    listing = "; ".join(covariate_texts) + (
        f"; and {len(alarming_indices) - MAX_NAMED_ITEMS:,} more" if len(alarming_indices) > MAX_NAMED_ITEMS else ""
    )
    counted_covariates = write_count(len(alarming_indices), "covariate differs", "covariates differ")
    return [
        f"{counted_covariates} between the arms already before treatment: {listing}; randomisation hardly does that: "
        "find out how units came to their arms, and adjust for what differs"
    ]


def _describe_largest_gap(moments: PretreatmentMoments, covariate_index: int, arm_names: np.ndarray) -> str:
    """Describe the gap between the first arm with units, usually the control, and the arm furthest from it."""
    n, mean, ss = (
        moments.n[:, covariate_index],
        moments.mean[:, covariate_index],
        moments.ss[:, covariate_index],
    )
    candidate_arms = np.flatnonzero(n > 1)
    arm_variances = ss[candidate_arms] / (n[candidate_arms] - 1)
    # d = (m − m₀) / √((s² + s₀²) / 2), the standardised difference of Austin 2009
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = (mean[candidate_arms] - mean[candidate_arms[0]]) / np.sqrt((arm_variances + arm_variances[0]) / 2)
    differences[0] = 0.0
    worst_position = int(np.nanargmax(np.abs(differences)))
    first_arm, second_arm, largest_difference = (
        candidate_arms[0],
        candidate_arms[worst_position],
        differences[worst_position],
    )
    difference_text = (
        f", {abs(largest_difference):.2g} standard deviations apart" if np.isfinite(largest_difference) else ""
    )
    return (
        f"mean {format_mean(float(mean[first_arm]))} in {shorten_label(arm_names[first_arm])}, "
        f"{format_mean(float(mean[second_arm]))} in {shorten_label(arm_names[second_arm])}{difference_text}"
    )


def describe_attrition(cells: xr.Dataset) -> list[str]:
    """Describe rates of missing numbers that differ between the arms: what is left may not be comparable."""
    if "n_missing" not in cells or not {"n", "n_rows"} & set(map(str, cells.data_vars)):
        return []
    kept_counts = cells["n_rows" if "n_rows" in cells else "n"].sum(SEGMENT).values
    missing_counts = cells["n_missing"].sum(SEGMENT).values
    row_counts = kept_counts + missing_counts
    has_rows = row_counts > 0
    if not missing_counts.any() or has_rows.sum() < 2:
        return []
    arm_names, missing_counts, row_counts = cells[ARM].values[has_rows], missing_counts[has_rows], row_counts[has_rows]
    rows_by_fate = np.stack([missing_counts, row_counts - missing_counts])
    # The rarer of the two is the sharper test where expected numbers are small.
    rarer_counts = rows_by_fate[rows_by_fate.sum(axis=1).argmin()][None]
    _, p_values, _ = compare_with_shares(
        rarer_counts,
        row_counts / row_counts.sum(),
        rarer_counts.sum(axis=1) / row_counts.sum(),
        exact_below=MIN_EXPECTED_COUNT,
    )
    if not p_values[0] < ALARM_P_VALUE:
        return []
    missing_rates = missing_counts / row_counts
    rate_texts = format_percentages(missing_rates, float(missing_rates.max() - missing_rates.min()))
    # The control, the arm with the lowest and the one with the highest rate.
    shown_arms = sorted({0, int(missing_rates.argmin()), int(missing_rates.argmax())})
    listing = ", ".join(f"{rate_texts[index]} of the rows in {shorten_label(arm_names[index])}" for index in shown_arms)
    return [
        f"numbers are missing at different rates in the arms: {listing} ({format_p_value(float(p_values[0]))}); those "
        "that are left may "
        "differ even if the treatment does nothing: find out why they are missing before believing any effect"
    ]
