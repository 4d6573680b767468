"""Query a Dask table partition by partition, where each is stored, and combine the answers in a tree.

Narwhals has Dask combine the variances of partitions through sums of squares, which loses the spread of numbers that
are far from 0, and cannot ask it for quantiles of several partitions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ANSWERS_PER_MERGE = 8
"""Answers that one task combines: few enough that they fit in memory together."""

BITS_PER_PASS = 16
"""Bits of a number that one pass over the data looks at: at most 2^16 = 65,536 counts per partition."""

type SortableBits = npt.NDArray[np.uint64]
type PrefixCounts = tuple[SortableBits, npt.NDArray[np.int64]]


def combine_partitions[T](
    table: Any, answer_partition: Callable[[Any], T], combine_answers: Callable[[Sequence[T]], T]
) -> T:
    """Query every partition, then combine answers until one is left.

    Parameters
    ----------
    table
        A Dask table.
    answer_partition
        Makes an answer of one partition, a pandas table.
    combine_answers
        Makes one answer of several, in the order of the partitions.
    """
    from dask.delayed import delayed

    # A tree: no task holds the answers of all partitions at once.
    delayed_answers = [delayed(answer_partition)(table_part) for table_part in table.to_delayed()]
    while len(delayed_answers) > 1:
        delayed_answers = [
            delayed(combine_answers)(delayed_answers[i : i + ANSWERS_PER_MERGE])
            for i in range(0, len(delayed_answers), ANSWERS_PER_MERGE)
        ]
    combined_answer: T = delayed_answers[0].compute()
    return combined_answer


def compute_quantiles(table: Any, column_name: str, probabilities: Sequence[float]) -> list[float]:
    """Calculate exact quantiles of a float64 column, linear between values; nulls are left out, NaN if all are null.

    Mapped to 64-bit whole numbers in the same order, the values at given ranks are found by counting, 16 bits in each
    of four passes.
    """
    first_counts = _count_prefixes(table, column_name, 64 - BITS_PER_PASS, None)
    value_count = int(first_counts[1].sum())
    if not value_count:
        return [math.nan] * len(probabilities)
    positions = [(value_count - 1) * probability for probability in probabilities]
    # The p-quantile of n values lies at rank (n − 1) p: between two values, where that is no whole number.
    ranks = sorted({int(rank) for position in positions for rank in (math.floor(position), math.ceil(position))})
    value_of_rank = dict(zip(ranks, _find_ranked_values(table, column_name, ranks, first_counts), strict=True))
    neighbour_values = [
        (
            value_of_rank[math.floor(position)],
            value_of_rank[math.ceil(position)],
            position - math.floor(position),
        )
        for position in positions
    ]
    return [low + (high - low) * share if low < high else low for low, high, share in neighbour_values]


def _find_ranked_values(table: Any, column_name: str, ranks: Sequence[int], first_counts: PrefixCounts) -> list[float]:
    """Find the values at `ranks`, 0 for the smallest; `first_counts` are counts by the first 16 bits."""
    ranked = [_find_prefix(first_counts, rank, 0) for rank in ranks]
    for bit_shift in range(64 - 2 * BITS_PER_PASS, -1, -BITS_PER_PASS):
        prefixes, counts = _count_prefixes(table, column_name, bit_shift, np.unique([prefix for prefix, _ in ranked]))
        parent_keys = prefixes >> np.uint64(BITS_PER_PASS)
        ranked = [
            _find_prefix((prefixes[parent_keys == prefix], counts[parent_keys == prefix]), rank, n_below)
            for rank, (prefix, n_below) in zip(ranks, ranked, strict=True)
        ]
    return [float(number) for number in _decode_sortable(np.array([prefix for prefix, _ in ranked]))]


def _find_prefix(prefix_counts: PrefixCounts, rank: int, n_below: int) -> tuple[np.uint64, int]:
    """Find the prefix that holds `rank`, and count the values below it; `n_below` values lie below all prefixes."""
    prefix_keys, counts = prefix_counts
    cumulative_counts = n_below + np.cumsum(counts)
    prefix_index = int(np.searchsorted(cumulative_counts, rank, side="right"))
    return prefix_keys[prefix_index], int(cumulative_counts[prefix_index] - counts[prefix_index])


def _count_prefixes(table: Any, column_name: str, bit_shift: int, wanted_prefixes: SortableBits | None) -> PrefixCounts:
    """Count values by their bits down to `bit_shift`, among those whose higher bits are in `wanted_prefixes`."""

    def count_partition(table_part: Any) -> PrefixCounts:
        numbers = table_part[column_name].to_numpy(dtype=np.float64, na_value=np.nan)
        prefix_keys = _encode_sortable(numbers[~np.isnan(numbers)])
        if wanted_prefixes is not None:
            prefix_keys = prefix_keys[np.isin(prefix_keys >> np.uint64(bit_shift + BITS_PER_PASS), wanted_prefixes)]
        return np.unique(prefix_keys >> np.uint64(bit_shift), return_counts=True)

    def sum_counts(partial_counts: Sequence[PrefixCounts]) -> PrefixCounts:
        prefix_keys, prefix_index = np.unique(
            np.concatenate([prefix_keys for prefix_keys, _ in partial_counts]), return_inverse=True
        )
        counts = np.zeros(len(prefix_keys), dtype=np.int64)
        np.add.at(counts, prefix_index, np.concatenate([counts for _, counts in partial_counts]))
        return prefix_keys, counts

    return combine_partitions(table, count_partition, sum_counts)


SIGN_BIT = np.uint64(1 << 63)
"""The highest bit of a float64: set in negative numbers."""


def _encode_sortable(numbers: npt.NDArray[np.float64]) -> SortableBits:
    """Map floats to whole numbers in the same order."""
    # Bits of negative floats ascend as the floats descend: all are flipped, and of other floats the sign.
    bits = (numbers + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    return np.where(bits & SIGN_BIT, ~bits, bits | SIGN_BIT)


def _decode_sortable(sortable_bits: SortableBits) -> npt.NDArray[np.float64]:
    """Map whole numbers back to the floats they stand for."""
    return np.where(sortable_bits & SIGN_BIT, sortable_bits & ~SIGN_BIT, ~sortable_bits).view(np.float64)
