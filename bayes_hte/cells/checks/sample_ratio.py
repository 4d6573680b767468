"""Check whether the arms hold the units that a randomisation would have given them.

References
----------
Fabijan et al. 2019, Diagnosing sample ratio mismatch in online controlled experiments, KDD '19.
Kohavi, Tang & Xu 2020, Trustworthy online controlled experiments, chapter 21.
Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6:65.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.checks.hypothesis_tests import (
    ALARM_P_VALUE,
    MIN_EXPECTED_COUNT,
    RealValues,
    UnitCounts,
    compare_distributions,
    compare_with_shares,
    correct_by_holm,
)
from bayes_hte.cells.checks.wording import format_p_value, format_percentages, quote_column, shorten_label
from bayes_hte.cells.combine.planned_shares import read_planned_shares
from bayes_hte.cells.units.clusters import read_spanning_clusters
from bayes_hte.errors import DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, SEGMENT

if TYPE_CHECKING:
    import pandas as pd

MAX_NAMED_ITEMS = 3
"""A sentence gives numbers for so many segments or arms, those furthest from their shares: more are not read."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleRatioTests:
    """Tests of the numbers of units in each arm against their planned or expected shares.

    Attributes
    ----------
    arm_names : list of str
        Arms with units; where shares are stated, all of them.
    unit_counts : array
        Units, dims (segment, arm).
    total_counts : array
        Units of each arm in all segments together; empty where it is not known, as a unit may be in several.
    design_effect : float
        Sums of counts over segments, divided by the number of independent units that they are worth; 1 where no unit
        is in several segments, NaN where nobody knows.
    has_stated_shares : bool
        Whether planned shares were stated.
    planned_shares : array
        Shares that all segments together are held to.
    expected_shares : array
        Shares that each segment is held to.
    statistics, p_values, is_exact : tuple
        One value for all segments together, and an array with one value per segment.
    p_holm : array
        P-values of the segments with Holm's correction, one per segment.
    """

    arm_names: list[str]
    unit_counts: UnitCounts
    total_counts: UnitCounts
    design_effect: float
    has_stated_shares: bool
    planned_shares: RealValues
    expected_shares: RealValues
    statistics: tuple[float, RealValues]
    p_values: tuple[float, RealValues]
    is_exact: tuple[bool, npt.NDArray[np.bool_]]
    p_holm: RealValues

    @property
    def is_mismatched(self) -> bool:
        """Verdict on all segments together: True if the arms have the wrong shares."""
        return self.p_values[0] < ALARM_P_VALUE

    @property
    def alarming_segments(self) -> list[int]:
        """Segments in which the arms have the wrong shares, the surest first."""
        segment_indices = np.flatnonzero(self.p_holm < ALARM_P_VALUE)
        return [
            int(segment_index)
            for segment_index in segment_indices[np.argsort(self.p_values[1][segment_indices], kind="stable")]
        ]


def count_randomised_units(cells: xr.Dataset) -> xr.DataArray | None:
    """Count the units that were randomised, dims (segment, arm), with those without an outcome if they are known."""
    if "n" not in cells or "estimate" in cells:
        return None
    # Where units have several rows, `n_missing` counts rows, and nobody knows of how many units.
    missing_are_units = "n_missing" in cells and "n_rows" not in cells
    return (cells["n"] + cells["n_missing"] if missing_are_units else cells["n"]).transpose(SEGMENT, ARM)


def sample_ratio(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> "pd.DataFrame":
    """Test whether the arms have the shares of the units that were planned, overall and in each segment.

    Parameters
    ----------
    cells
        A cell table with numbers of units, dims (segment, arm).
    shares
        The planned share of each arm, or numbers in proportion to them; in place of those that the cells state.

    Returns
    -------
    pandas.DataFrame
        The row ``(all)``, then one row per segment: ``segment``; ``n_<arm>``, units with and without a measured
        outcome; ``expected_<arm>``; the chi-square ``statistic`` and its ``dof``; ``p``; ``p_holm``, with Holm's
        correction for the number of segments; and ``exact``, whether p is that of an exact test. NaN where a segment
        has no units or nothing to be compared with.

    Raises
    ------
    DataError
        If the cells do not hold numbers of units, or the shares are not those of the arms.

    Notes
    -----
    Where planned shares are stated, every row is held to them. Where nobody stated any, ``(all)`` is held to equal
    shares of the arms that have units, and each segment to the shares in all segments together: its statistic is that
    of the table of this segment and the others, so that it is right also where the segment is a large part of all.

    Where an expected number is below 5, and in a segment where it is below 1,000, p is that of an exact binomial test;
    of more than two arms each is tested against the others, and the least p is multiplied by their number. A segment
    that holds more than 5 % of all units and is held to the others has the chi-square test down to 5.

    Clusters that have rows in several segments count in each of these, and once in ``(all)``; in slices of such a
    table it is not known how many they are, and ``(all)`` has 0 and NaN.

    References
    ----------
    Fabijan et al. 2019, Diagnosing sample ratio mismatch in online controlled experiments, KDD '19.
    Kohavi, Tang & Xu 2020, Trustworthy online controlled experiments, chapter 21.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> table = pd.DataFrame({"site": "all", "arm": ["old", "new"], "n": [821_588, 815_482], "bought": [100, 90]})
    >>> cells = from_summary(table, arm="arm", control="old", segments=["site"], n="n", events="bought")
    >>> found = sample_ratio(cells, {"old": 0.5, "new": 0.5})
    >>> f"{found['p'][0]:.1e}"  # Kohavi et al. 2020, scenario 1 of chapter 21
    '1.8e-06'
    """
    import pandas as pd

    cell_table.check_cell_table(cells)
    ratio_tests = compute_ratio_tests(cells, shares)
    if ratio_tests is None:
        raise DataError("these cells do not say how many units are in each arm; give n, the column of their number")
    # 0 where nobody knows how many clusters there are in all.
    total_counts = (
        ratio_tests.total_counts
        if ratio_tests.total_counts.size
        else np.zeros(len(ratio_tests.arm_names), dtype=np.int64)
    )
    unit_counts = np.vstack([total_counts, ratio_tests.unit_counts])
    expected_counts = unit_counts.sum(axis=1, keepdims=True) * np.vstack(
        [ratio_tests.planned_shares, np.broadcast_to(ratio_tests.expected_shares, ratio_tests.unit_counts.shape)]
    )
    return pd.DataFrame(
        {
            SEGMENT: ["(all)", *map(str, cells[SEGMENT].values)],
            **{f"n_{arm}": unit_counts[:, arm_index] for arm_index, arm in enumerate(ratio_tests.arm_names)},
            **{f"expected_{arm}": expected_counts[:, arm_index] for arm_index, arm in enumerate(ratio_tests.arm_names)},
            "statistic": np.append(*ratio_tests.statistics),
            "dof": len(ratio_tests.arm_names) - 1,
            "p": np.append(*ratio_tests.p_values),
            "p_holm": np.append(np.nan, ratio_tests.p_holm),
            "exact": np.append(*ratio_tests.is_exact),
        }
    )


def compute_ratio_tests(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> SampleRatioTests | None:
    """Compute the tests of `sample_ratio`; None where the number of units is not known."""
    shares_by_arm = read_planned_shares(cells, shares)
    randomised_units = count_randomised_units(cells)
    if randomised_units is None:
        return None
    if shares_by_arm is None:  # without a plan, an arm without units may be one that the experiment never had
        randomised_units = randomised_units.isel({ARM: randomised_units.values.sum(axis=0) > 0})
    unit_counts = randomised_units.values.astype(np.int64)
    arm_names = [str(arm) for arm in randomised_units[ARM].values]
    spanning_clusters = read_spanning_clusters(cells)
    total_counts = unit_counts.sum(axis=0)
    design_effect = 1.0 if spanning_clusters is None else spanning_clusters.design_effect(int(total_counts.sum()))
    if spanning_clusters is not None:
        total_counts = np.array(
            [spanning_clusters.clusters_by_arm.get(arm, 0) for arm in arm_names if spanning_clusters.clusters_by_arm],
            dtype=np.int64,
        )
    # Where nobody knows the number of clusters, their sums over segments still give the shares.
    counts_in_all = total_counts if total_counts.size else unit_counts.sum(axis=0)
    segment_parts: float | npt.NDArray[np.float64] = 0.0
    if shares_by_arm is None:
        planned_shares = np.full(len(arm_names), 1 / len(arm_names))
        expected_shares = counts_in_all / counts_in_all.sum()
        # Segments that have units in common are no parts of a whole: taking them for independent of it is conservative.
        if spanning_clusters is None:
            segment_parts = unit_counts.sum(axis=1) / total_counts.sum()
    else:
        planned_shares = expected_shares = np.array([*shares_by_arm.values()])
    # Zeros have no test: statistic and p-value are NaN.
    tested_totals = total_counts if total_counts.size else np.zeros(len(arm_names), dtype=np.int64)
    all_statistic, all_p, all_exact = compare_with_shares(
        tested_totals[None], planned_shares, exact_below=MIN_EXPECTED_COUNT
    )
    segment_statistics, segment_p, is_exact = compare_with_shares(unit_counts, expected_shares, segment_parts)
    return SampleRatioTests(
        arm_names=arm_names,
        unit_counts=unit_counts,
        total_counts=total_counts,
        design_effect=design_effect,
        has_stated_shares=shares_by_arm is not None,
        planned_shares=planned_shares,
        expected_shares=expected_shares,
        statistics=(float(all_statistic[0]), segment_statistics),
        p_values=(float(all_p[0]), segment_p),
        is_exact=(bool(all_exact[0]), is_exact),
        p_holm=correct_by_holm(segment_p),
    )


def describe_mismatches(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> list[str]:
    """Describe what speaks against a randomisation: the shares of the arms, overall, by dimension and by segment.

    One cause is said once: segments are named where no dimension as a whole is uneven, or where the plan says which of
    its segments are.
    """
    ratio_tests = compute_ratio_tests(cells, shares)
    if ratio_tests is None:
        return []
    segment_names = [str(segment) for segment in cells[SEGMENT].values]
    by_dimension = _describe_uneven_dimensions(cells, ratio_tests)
    # One cause makes one alarm: an overall mismatch shows in segments, and uneven dimensions are uneven segments.
    sentences = [_describe_overall_mismatch(ratio_tests, segment_names)] if ratio_tests.is_mismatched else []
    names_segments = ratio_tests.is_mismatched and ratio_tests.has_stated_shares  # the segments are in that sentence
    if (
        ratio_tests.alarming_segments
        and not names_segments
        and (not by_dimension or (ratio_tests.has_stated_shares and len(cell_table.list_dimensions(cells)) > 1))
    ):
        sentences.append(_describe_segment_mismatches(ratio_tests, segment_names))
    return [*sentences, *by_dimension]


def _describe_overall_mismatch(ratio_tests: SampleRatioTests, segment_names: list[str]) -> str:
    """Describe the shares of the arms in all segments together, those furthest from the plan first."""
    total_counts = ratio_tests.total_counts
    observed_shares = total_counts / total_counts.sum()
    arm_order = np.argsort(-np.abs(observed_shares - ratio_tests.planned_shares), kind="stable")
    shown_arms = np.sort(arm_order[:MAX_NAMED_ITEMS])
    largest_difference = float(np.abs(observed_shares - ratio_tests.planned_shares).max())
    # The same digits for both: as many as show the largest difference between them.
    observed_texts, planned_texts = (
        format_percentages(observed_shares, largest_difference),
        format_percentages(ratio_tests.planned_shares, largest_difference),
    )
    p_text = format_p_value(ratio_tests.p_values[0])
    arm_texts = "; ".join(
        f"{shorten_label(ratio_tests.arm_names[index])} {total_counts[index]:,} ({observed_texts[index]}"
        f"{f', planned {planned_texts[index]}' if ratio_tests.has_stated_shares else ''})"
        for index in shown_arms
    )
    hidden_count = len(ratio_tests.arm_names) - len(shown_arms)
    arm_texts += f"; and {write_count(hidden_count, 'other arm', 'other arms')}" if hidden_count else ""
    if not ratio_tests.has_stated_shares:
        return (
            f"the arms have different numbers of units: {arm_texts}; if equal shares were planned, this is a "
            f"sample-ratio mismatch ({p_text}): find the cause before believing any effect; if not, state the planned "
            "shares as data.shares in the plan (hte.cells.with_shares in Python)"
        )
    sentence = (
        f"sample-ratio mismatch: the arms do not have their planned shares of the units ({p_text}): {arm_texts}; find "
        "the "
        "cause before believing any effect, such as a filter, a redirect or logging that differs between the arms"
    )
    if ratio_tests.alarming_segments and len(segment_names) > 1:
        sentence += (
            f"; it shows in {len(ratio_tests.alarming_segments):,} of {len(segment_names):,} segments on their own, "
            f"most clearly in {shorten_label(segment_names[ratio_tests.alarming_segments[0]])}"
        )
    return sentence


def _describe_segment_mismatches(ratio_tests: SampleRatioTests, segment_names: list[str]) -> str:
    """Describe the segments in which the arms have the wrong shares."""
    alarming_segments = ratio_tests.alarming_segments
    segment_texts = [
        f"{shorten_label(segment_names[segment_index])} ({', '.join(_list_arm_counts(ratio_tests, segment_index))}; "
        f"{format_p_value(float(ratio_tests.p_holm[segment_index]))})"
        for segment_index in alarming_segments[:MAX_NAMED_ITEMS]
    ]
    listing = "; ".join(segment_texts) + (
        f"; and {len(alarming_segments) - MAX_NAMED_ITEMS:,} more" if len(alarming_segments) > MAX_NAMED_ITEMS else ""
    )
    scope = f"in {len(alarming_segments):,} of {write_count(len(segment_names), 'segment', 'segments')}"
    if ratio_tests.has_stated_shares:
        return (
            f"sample-ratio mismatch {scope}, where the arms do not have their planned shares: {listing}; find the "
            "cause before believing the effects there"
        )
    return (
        f"{scope} the shares of the arms are not those of the other segments: {listing}; unless that was planned, find "
        "the cause before believing the effects there"
    )


def _list_arm_counts(ratio_tests: SampleRatioTests, segment_index: int) -> list[str]:
    """List the units of the arms of a segment that are furthest from their expected shares."""
    unit_counts = ratio_tests.unit_counts[segment_index]
    arm_shares = unit_counts / unit_counts.sum()
    shown_arms = np.sort(np.argsort(-np.abs(arm_shares - ratio_tests.expected_shares), kind="stable")[:MAX_NAMED_ITEMS])
    return [f"{shorten_label(ratio_tests.arm_names[index])} {unit_counts[index]:,}" for index in shown_arms]


def _describe_uneven_dimensions(cells: xr.Dataset, ratio_tests: SampleRatioTests) -> list[str]:
    """Describe dimensions whose levels are distributed differently over the arms, maybe changed by the treatment."""
    if not np.isfinite(ratio_tests.design_effect):
        return []
    has_units = ratio_tests.unit_counts.sum(axis=0) > 0
    arm_names = [arm for arm, is_seen in zip(ratio_tests.arm_names, has_units, strict=True) if is_seen]
    dims = cell_table.list_dimensions(cells)
    counts_by_dim = [
        _sum_by_level(cells[dim].values.astype(str), ratio_tests.unit_counts[:, has_units]) for dim in dims
    ]
    # Units that are in several segments are not independent: n / deff of them are tested (Kish).
    effective_counts = [
        (levels, np.round(counts / ratio_tests.design_effect).astype(np.int64)) for levels, counts in counts_by_dim
    ]
    p_values = correct_by_holm(np.array([compare_distributions(counts)[1] for _, counts in effective_counts]))
    return [
        _describe_uneven_levels(dim, levels, counts, arm_names, float(p_values[dim_index]))
        for dim_index, (dim, (levels, counts)) in enumerate(zip(dims, counts_by_dim, strict=True))
        if p_values[dim_index] < ALARM_P_VALUE
    ]


def _sum_by_level(segment_levels: npt.NDArray[np.str_], unit_counts: UnitCounts) -> tuple[list[str], UnitCounts]:
    """Sum the units of segments by the level of one dimension: the levels, and counts with dims (level, arm)."""
    level_names, level_codes = np.unique(segment_levels, return_inverse=True)
    level_counts = np.zeros((len(level_names), unit_counts.shape[1]), dtype=np.int64)
    np.add.at(level_counts, level_codes, unit_counts)
    return level_names.tolist(), level_counts


def _describe_uneven_levels(
    dimension: str, level_names: list[str], level_counts: UnitCounts, arm_names: list[str], p_value: float
) -> str:
    """Describe the level whose share differs most between the arms."""
    # Small levels are put together in one row, the last.
    _, _, kept_levels, tested_counts = compare_distributions(level_counts)
    level_shares = tested_counts / tested_counts.sum(axis=0)
    differences = level_shares.max(axis=1) - level_shares.min(axis=1)
    worst_row = int(differences.argmax())
    pooled_count = len(level_names) - len(kept_levels)
    worst_level = (
        shorten_label(level_names[kept_levels[worst_row]])
        if worst_row < len(kept_levels)
        else f"{write_count(pooled_count, 'small level', 'small levels')} together"
    )
    lowest_arm, highest_arm = sorted({int(level_shares[worst_row].argmin()), int(level_shares[worst_row].argmax())})
    share_texts = format_percentages(level_shares[worst_row], float(differences[worst_row]))
    return (
        f"the levels of {quote_column(dimension)} are distributed differently over the arms "
        f"({format_p_value(p_value)}; largest difference: {worst_level}, {share_texts[lowest_arm]} of "
        f"{shorten_label(arm_names[lowest_arm])}, {share_texts[highest_arm]} of "
        f"{shorten_label(arm_names[highest_arm])}): was it measured after treatment, or changed by it? Then use the "
        "value from before; if its levels were given the arms in different shares by plan, this is as it should be"
    )
