"""Ask a Dask table partition by partition, where each is, and put the answers together in a tree.

Narwhals has Dask combine the variances of partitions through sums of squares, which loses the spread of numbers that
are far from 0, and cannot ask it for quantiles of several partitions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FAN = 8
"""How many answers are put together at once: few enough that they are small together."""

DIGITS = 16
"""Bits of a number that are looked at in one pass over the data: at most 65,536 counts."""

type Keys = npt.NDArray[np.uint64]
type Count = tuple[Keys, npt.NDArray[np.int64]]


def gathered[T](table: Any, answer: Callable[[Any], T], combine: Callable[[Sequence[T]], T]) -> T:
    """Answer for every partition, then combine answers until one is left.

    Parameters
    ----------
    table
        A Dask table.
    answer
        From a pandas table.
    combine
        From several answers, in the order of the partitions.
    """
    from dask.delayed import delayed

    parts = [delayed(answer)(part) for part in table.to_delayed()]
    while len(parts) > 1:
        parts = [delayed(combine)(parts[i : i + FAN]) for i in range(0, len(parts), FAN)]
    found: T = parts[0].compute()
    return found


def quantiles(table: Any, column: str, probabilities: Sequence[float]) -> list[float]:
    """Quantiles of a column of float64 without NaN but as null, in between by straight lines; NaN where there is none.

    They are exact: numbers in their order are whole numbers of 64 bits, which four passes find 16 bits at a time, by
    counting.
    """
    first = _counts(table, column, 64 - DIGITS, None)
    total = int(first[1].sum())
    if not total:
        return [math.nan] * len(probabilities)
    places = [(total - 1) * probability for probability in probabilities]
    ranks = sorted({int(whole) for place in places for whole in (math.floor(place), math.ceil(place))})
    at = dict(zip(ranks, _values(table, column, ranks, first), strict=True))
    ends = [(at[math.floor(place)], at[math.ceil(place)], place - math.floor(place)) for place in places]
    return [low + (high - low) * share if low < high else low for low, high, share in ends]


def _values(table: Any, column: str, ranks: Sequence[int], first: Count) -> list[float]:
    """The numbers that have these places among all, the smallest has 0; `first` counts their first bits."""
    found = [_child(first, rank, 0) for rank in ranks]
    for shift in range(64 - 2 * DIGITS, -1, -DIGITS):
        keys, counts = _counts(table, column, shift, np.unique([key for key, _ in found]))
        parents = keys >> np.uint64(DIGITS)
        found = [
            _child((keys[parents == key], counts[parents == key]), rank, below)
            for rank, (key, below) in zip(ranks, found, strict=True)
        ]
    return [float(number) for number in _numbers(np.array([key for key, _ in found]))]


def _child(counted: Count, rank: int, below: int) -> tuple[np.uint64, int]:
    """The key that holds a place, and how many numbers are less than all of its; `below` are less than all keys."""
    keys, counts = counted
    upto = below + np.cumsum(counts)
    i = int(np.searchsorted(upto, rank, side="right"))
    return keys[i], int(upto[i] - counts[i])


def _counts(table: Any, column: str, shift: int, wanted: Keys | None) -> Count:
    """How many numbers begin with each sequence of bits, of those that begin with a wanted one."""

    def answer(part: Any) -> Count:
        numbers = part[column].to_numpy(dtype=np.float64, na_value=np.nan)
        keys = _keys(numbers[~np.isnan(numbers)])
        if wanted is not None:
            keys = keys[np.isin(keys >> np.uint64(shift + DIGITS), wanted)]
        return np.unique(keys >> np.uint64(shift), return_counts=True)

    def combine(parts: Sequence[Count]) -> Count:
        keys, at = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
        counts = np.zeros(len(keys), dtype=np.int64)
        np.add.at(counts, at, np.concatenate([counts for _, counts in parts]))
        return keys, counts

    return gathered(table, answer, combine)


SIGN = np.uint64(1 << 63)


def _keys(numbers: npt.NDArray[np.float64]) -> Keys:
    """Whole numbers in the same order: of negative numbers all bits are turned round, of others the sign."""
    bits = (numbers + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def _numbers(keys: Keys) -> npt.NDArray[np.float64]:
    """The numbers of which these are the keys."""
    return np.where(keys & SIGN, keys & ~SIGN, ~keys).view(np.float64)
