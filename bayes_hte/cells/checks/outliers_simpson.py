"""Find cells that one unit carries, and averages that turn round when segments are added up.

References
----------
Charig et al. 1986, British Medical Journal 292:879: the paradox of Simpson (1951) in two kinds of kidney stones.
"""

import numpy as np
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.checks.hypothesis_tests import (
    ALARM_P_VALUE,
    RealValues,
    UnitCounts,
    bound_grubbs_p,
    compare_distributions,
)
from bayes_hte.cells.checks.wording import format_mean, name_cell, shorten_label
from bayes_hte.spec.cell_table import ARM, INPUT_COLUMN, OTHER_INPUT_COLUMN, SEGMENT, VALUE

MIN_UNITS_FOR_OUTLIERS = 10
"""Of fewer units one always makes up much of the sum of squares: a share of 1/n on average."""
MAX_SHARE_OF_ONE_UNIT = 0.5
"""A unit that makes up more than this share of a cell's sum of squares decides its mean and its standard error."""
CLEAR_DIFFERENCE_IN_SE = 3.29
"""A difference of so many standard errors has a two-sided p-value of .001, as the other checks."""


def describe_outliers(cells: xr.Dataset) -> list[str]:
    """Describe cells in which one unit makes up most of the variation.

    Without a unit of outcome x the sum of squares is less by (x − mean)² n / (n − 1), and the mean is
    (n mean − x) / (n − 1). In cells of few units that share is large by chance: said only where it would not be so
    large in any of the cells, with probability .999, were outcomes normal. Outcomes that are 0 or 1 have no outliers.
    """
    if "lowest" not in cells or "events" in cells:
        return []
    if "column_ss" in cells:  # an adjusted mean: the outcome is a column of it
        cells = cells.assign(
            mean=cells["column_mean"].sel({INPUT_COLUMN: "y"}, drop=True),
            ss=cells["column_ss"].sel({INPUT_COLUMN: "y", OTHER_INPUT_COLUMN: "y"}, drop=True),
        )
    n, mean, ss, lowest, highest = (
        cells[name].transpose(SEGMENT, ARM).values for name in ("n", "mean", "ss", "lowest", "highest")
    )
    extreme = np.where(np.abs(lowest - mean) > np.abs(highest - mean), lowest, highest)
    is_testable = (n >= MIN_UNITS_FOR_OUTLIERS) & (ss > 0)
    # share = (x − m)² n / (n − 1) / SS
    with np.errstate(divide="ignore", invalid="ignore"):
        extreme_share = np.where(is_testable, (extreme - mean) ** 2 * n / (n - 1) / ss, 0.0)
    extreme_share = np.nan_to_num(extreme_share)
    # Bonferroni's correction for the number of cells; p itself is one for the units of a cell.
    extreme_share[bound_grubbs_p(extreme_share, n) * is_testable.sum() >= ALARM_P_VALUE] = 0.0
    outlier_count = int((extreme_share > MAX_SHARE_OF_ONE_UNIT).sum())
    if not outlier_count:
        return []
    segment_index, arm_index = (
        int(position) for position in np.unravel_index(extreme_share.argmax(), extreme_share.shape)
    )
    unit_count, mean_with = int(n[segment_index, arm_index]), float(mean[segment_index, arm_index])
    # (n m − x) / (n − 1)
    mean_without = (unit_count * mean_with - float(extreme[segment_index, arm_index])) / (unit_count - 1)
    outlier_cells = write_count(outlier_count, "cell has", "cells have")
    scope_text = "" if outlier_count == 1 else ", most of all"
    return [
        f"{outlier_cells} one unit that makes up more than half of the variation of the outcome{scope_text}: "
        f"{name_cell(cells, segment_index, arm_index)}, where the mean of {unit_count:,} units is "
        f"{format_mean(mean_with)} with it and {format_mean(mean_without)} without it; check the record, cap the "
        "outcome (cap), or choose a family for such outcomes"
    ]


def describe_reversals(cells: xr.Dataset) -> list[str]:
    """Describe arms that are better in every segment and worse in all together, or vice versa: Simpson's paradox.

    Said only where the segments' shares differ between the arms by more than chance, or, of rates without numbers of
    units, where the crude difference is clear: else the sum turns round by luck.
    """
    outcome_sums = _sum_outcomes(cells)
    if outcome_sums is None:
        return []
    outcome_totals, cell_sizes = outcome_sums
    sentences = []
    arm_names = cells[ARM].values
    for arm_index in range(1, len(arm_names)):
        arm_pair = [0, arm_index]
        has_both_arms = (cell_sizes[:, arm_pair] > 0).all(axis=1)
        if has_both_arms.sum() < 2:
            continue
        segment_differences = (
            outcome_totals[has_both_arms, arm_index] / cell_sizes[has_both_arms, arm_index]
            - outcome_totals[has_both_arms, 0] / cell_sizes[has_both_arms, 0]
        )
        crude_means = outcome_totals[:, arm_pair].sum(axis=0) / cell_sizes[:, arm_pair].sum(axis=0)
        crude_difference = float(crude_means[1] - crude_means[0])
        # A difference of 0 has no sign that could be the opposite one.
        is_reversed = (
            (segment_differences > 0).all()
            if crude_difference < 0
            else (segment_differences < 0).all() and crude_difference > 0
        )
        if is_reversed and _is_beyond_chance(cells, arm_pair, crude_means):
            sentences.append(_describe_reversal(arm_names, arm_index, crude_means, int(has_both_arms.sum())))
    return sentences


def _sum_outcomes(cells: xr.Dataset) -> tuple[RealValues, RealValues] | None:
    """Sum the outcomes of each cell, and return their units or exposure; None where outcomes have no sum."""
    if "estimate" in cells or "failures" in cells:
        return None
    if "exposure" in cells:
        totals, sizes = cells["events"], cells["exposure"]
    elif "n" not in cells:
        return None
    elif "histogram" in cells:
        totals, sizes = (cells["histogram"] * cells[VALUE]).sum(VALUE), cells["n"]
    elif "mean" in cells:
        totals, sizes = (cells["mean"] * cells["n"]).where(cells["n"] > 0, 0.0), cells["n"]
    else:
        totals, sizes = cells["events"], cells["n"]
    return totals.transpose(SEGMENT, ARM).values.astype(float), sizes.transpose(SEGMENT, ARM).values.astype(float)


def _is_beyond_chance(cells: xr.Dataset, arm_pair: list[int], crude_means: RealValues) -> bool:
    """Tell whether segments' shares differ between two arms, or crude rates do, by more than chance."""
    if "n" in cells:
        unit_counts: UnitCounts = cells["n"].transpose(SEGMENT, ARM).values[:, arm_pair]
        return compare_distributions(unit_counts)[1] < ALARM_P_VALUE
    # Of Poisson counts: Var(rate) = rate / exposure.
    exposure = cells["exposure"].transpose(SEGMENT, ARM).values[:, arm_pair].sum(axis=0)
    return bool(abs(crude_means[1] - crude_means[0]) > CLEAR_DIFFERENCE_IN_SE * np.sqrt((crude_means / exposure).sum()))


def _describe_reversal(arm_names: np.ndarray, arm_index: int, crude_means: RealValues, segment_count: int) -> str:
    """Describe one arm whose crude difference from the control has the opposite sign of those in all segments."""
    segment_direction, crude_direction = ("higher", "lower") if crude_means[1] < crude_means[0] else ("lower", "higher")
    return (
        f"{shorten_label(arm_names[arm_index])} is {segment_direction} than {shorten_label(arm_names[0])} in each of "
        f"{segment_count:,} segments, but {crude_direction} when they are added up "
        f"({format_mean(float(crude_means[1]))} against {format_mean(float(crude_means[0]))}), because the arms have "
        "different shares of the segments (Simpson's paradox); read the effects by segment and the average effect, "
        "never the crude sum"
    )
