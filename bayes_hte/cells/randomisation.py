"""Whether the arms hold the units that a randomisation would have given them.

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

from bayes_hte import schema
from bayes_hte.cells.shares import planned
from bayes_hte.cells.significance import LEAST, THRESHOLD, Counts, Floats, holm, independence, ratio_tests
from bayes_hte.cells.sources import counted
from bayes_hte.cells.spanning import spanning
from bayes_hte.cells.wording import label, p_is, percentages, quoted
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM, SEGMENT

if TYPE_CHECKING:
    import pandas as pd

NAMED = 3
"""How many segments or arms a sentence gives numbers for."""


@dataclass(frozen=True, slots=True, eq=False)
class Ratios:
    """The units of each arm, and what they were to be.

    Attributes
    ----------
    arms : list of str
        Those with units; where shares are stated, all of them.
    counts : array
        Units, dims (segment, arm).
    total : array
        Units of each arm in all segments together; empty where it is not known, as a unit may be in several.
    overstated : float
        Sums over segments by the number of units that they are worth: 1, but where units are in several.
    stated : bool
        Whether somebody said the planned shares.
    planned : array
        Shares that all segments together are held to.
    expected : array
        Shares that each segment is held to.
    statistic, p, exact : tuple
        Of all segments together, and an array with one value per segment.
    p_holm : array
        One value per segment.
    """

    arms: list[str]
    counts: Counts
    total: Counts
    overstated: float
    stated: bool
    planned: Floats
    expected: Floats
    statistic: tuple[float, Floats]
    p: tuple[float, Floats]
    exact: tuple[bool, npt.NDArray[np.bool_]]
    p_holm: Floats

    @property
    def mismatched(self) -> bool:
        """Whether the arms of all segments together have the wrong shares."""
        return self.p[0] < THRESHOLD

    @property
    def wrong(self) -> list[int]:
        """Segments in which the arms have the wrong shares, the surest first."""
        found = np.flatnonzero(self.p_holm < THRESHOLD)
        return [int(i) for i in found[np.argsort(self.p[1][found], kind="stable")]]


def units(cells: xr.Dataset) -> xr.DataArray | None:
    """Units that were randomised, dims (segment, arm): those without a measured outcome count, where they are known."""
    if "n" not in cells or "estimate" in cells:
        return None
    lost = "n_missing" in cells and "n_rows" not in cells  # else those are rows, of which a unit has several
    return (cells["n"] + cells["n_missing"] if lost else cells["n"]).transpose(SEGMENT, ARM)


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

    schema.check(cells)
    found = ratios(cells, shares)
    if found is None:
        raise DataError("these cells do not say how many units are in each arm; give n, the column of their number")
    total = found.total if found.total.size else np.zeros(len(found.arms), dtype=np.int64)
    counts = np.vstack([total, found.counts])
    expected = counts.sum(axis=1, keepdims=True) * np.vstack(
        [found.planned, np.broadcast_to(found.expected, found.counts.shape)]
    )
    return pd.DataFrame(
        {
            SEGMENT: ["(all)", *map(str, cells[SEGMENT].values)],
            **{f"n_{arm}": counts[:, i] for i, arm in enumerate(found.arms)},
            **{f"expected_{arm}": expected[:, i] for i, arm in enumerate(found.arms)},
            "statistic": np.append(*found.statistic),
            "dof": len(found.arms) - 1,
            "p": np.append(*found.p),
            "p_holm": np.append(np.nan, found.p_holm),
            "exact": np.append(*found.exact),
        }
    )


def ratios(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> Ratios | None:
    """The tests of `sample_ratio`; None where the number of units is not known."""
    wanted = planned(cells, shares)
    known = units(cells)
    if known is None:
        return None
    counts = known.values.astype(np.int64)
    arms = [str(arm) for arm in cells[ARM].values]
    if wanted is None:
        seen = counts.sum(axis=0) > 0
        arms, counts = [arm for arm, there in zip(arms, seen, strict=True) if there], counts[:, seen]
    spans = spanning(cells)
    total = counts.sum(axis=0)
    overstated = 1.0 if spans is None else spans.design_effect(int(total.sum()))
    if spans is not None:
        total = np.array([spans.clusters.get(arm, 0) for arm in arms if spans.clusters], dtype=np.int64)
    shares_seen = total if total.size else counts.sum(axis=0)
    of_plan = np.full(len(arms), 1 / len(arms)) if wanted is None else np.array([*wanted.values()])
    expected = shares_seen / shares_seen.sum() if wanted is None else of_plan
    # Segments that have units in common are no parts of a whole: taking them for independent of it is conservative.
    parts = counts.sum(axis=1) / total.sum() if wanted is None and spans is None else 0.0
    tested = total if total.size else np.zeros(len(arms), dtype=np.int64)
    all_statistic, all_p, all_exact = ratio_tests(tested[None], of_plan, exact_below=LEAST)
    statistic, p, exact = ratio_tests(counts, expected, parts)
    return Ratios(
        arms=arms,
        counts=counts,
        total=total,
        overstated=overstated,
        stated=wanted is not None,
        planned=of_plan,
        expected=expected,
        statistic=(float(all_statistic[0]), statistic),
        p=(float(all_p[0]), p),
        exact=(bool(all_exact[0]), exact),
        p_holm=holm(p),
    )


def doubts(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> list[str]:
    """What speaks against a randomisation, as sentences: the shares of the arms, overall, by dimension and segment.

    One cause is said once: segments are named where no dimension as a whole is uneven, or where the plan says which of
    its segments are.
    """
    found = ratios(cells, shares)
    if found is None:
        return []
    names = [str(segment) for segment in cells[SEGMENT].values]
    by_dimension = _uneven_dimensions(cells, found)
    sentences = [_overall(found, names)] if found.mismatched else []
    said = found.mismatched and found.stated  # the segments are in that sentence
    if found.wrong and not said and (not by_dimension or (found.stated and len(schema.dimensions(cells)) > 1)):
        sentences.append(_in_segments(found, names))
    return [*sentences, *by_dimension]


def _overall(found: Ratios, names: list[str]) -> str:
    total = found.total
    observed = total / total.sum()
    order = np.argsort(-np.abs(observed - found.planned), kind="stable")
    shown = np.sort(order[:NAMED])
    apart = float(np.abs(observed - found.planned).max())
    have, wanted = percentages(observed, apart), percentages(found.planned, apart)
    p = p_is(found.p[0])
    numbers = "; ".join(
        f"{label(found.arms[i])} {total[i]:,} ({have[i]}{f', planned {wanted[i]}' if found.stated else ''})"
        for i in shown
    )
    more = len(found.arms) - len(shown)
    numbers += f"; and {counted(more, 'other arm', 'other arms')}" if more else ""
    if not found.stated:
        return (
            f"the arms have different numbers of units: {numbers}; if equal shares were planned, this is a "
            f"sample-ratio mismatch ({p}): find the cause before believing any effect; if not, state the planned "
            "shares as data.shares in the plan (hte.cells.with_shares in Python)"
        )
    sentence = (
        f"sample-ratio mismatch: the arms do not have their planned shares of the units ({p}): {numbers}; find the "
        "cause before believing any effect, such as a filter, a redirect or logging that differs between the arms"
    )
    if found.wrong and len(names) > 1:
        sentence += (
            f"; it shows in {len(found.wrong):,} of {len(names):,} segments on their own, most clearly in "
            f"{label(names[found.wrong[0]])}"
        )
    return sentence


def _in_segments(found: Ratios, names: list[str]) -> str:
    wrong = found.wrong
    each = [
        f"{label(names[i])} ({', '.join(_numbers(found, i))}; {p_is(float(found.p_holm[i]))})" for i in wrong[:NAMED]
    ]
    listing = "; ".join(each) + (f"; and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else "")
    scope = f"in {len(wrong):,} of {counted(len(names), 'segment', 'segments')}"
    if found.stated:
        return (
            f"sample-ratio mismatch {scope}, where the arms do not have their planned shares: {listing}; find the "
            "cause before believing the effects there"
        )
    return (
        f"{scope} the shares of the arms are not those of the other segments: {listing}; unless that was planned, find "
        "the cause before believing the effects there"
    )


def _numbers(found: Ratios, segment: int) -> list[str]:
    counts = found.counts[segment]
    share = counts / counts.sum()
    shown = np.sort(np.argsort(-np.abs(share - found.expected), kind="stable")[:NAMED])
    return [f"{label(found.arms[i])} {counts[i]:,}" for i in shown]


def _uneven_dimensions(cells: xr.Dataset, found: Ratios) -> list[str]:
    """Dimensions whose levels are distributed differently over the arms: was one changed by the treatment?

    Of units that are in several segments, as many are tested as all these are worth.
    """
    if not np.isfinite(found.overstated):
        return []
    seen = found.counts.sum(axis=0) > 0
    arms = [arm for arm, there in zip(found.arms, seen, strict=True) if there]
    dims = schema.dimensions(cells)
    tested = [_by_level(cells[dim].values.astype(str), found.counts[:, seen]) for dim in dims]
    worth = [(levels, np.round(counts / found.overstated).astype(np.int64)) for levels, counts in tested]
    p = holm(np.array([independence(counts)[1] for _, counts in worth]))
    return [
        _uneven(dim, levels, counts, arms, float(p[i]))
        for i, (dim, (levels, counts)) in enumerate(zip(dims, tested, strict=True))
        if p[i] < THRESHOLD
    ]


def _by_level(levels: npt.NDArray[np.str_], counts: Counts) -> tuple[list[str], Counts]:
    names, code = np.unique(levels, return_inverse=True)
    together = np.zeros((len(names), counts.shape[1]), dtype=np.int64)
    np.add.at(together, code, counts)
    return names.tolist(), together


def _uneven(dim: str, levels: list[str], counts: Counts, arms: list[str], p: float) -> str:
    _, _, kept, table = independence(counts)
    share = table / table.sum(axis=0)
    apart = share.max(axis=1) - share.min(axis=1)
    worst = int(apart.argmax())
    rest = len(levels) - len(kept)
    level = (
        label(levels[kept[worst]]) if worst < len(kept) else f"{counted(rest, 'small level', 'small levels')} together"
    )
    low, high = sorted({int(share[worst].argmin()), int(share[worst].argmax())})
    part = percentages(share[worst], float(apart[worst]))
    return (
        f"the levels of {quoted(dim)} are distributed differently over the arms ({p_is(p)}; largest difference: "
        f"{level}, {part[low]} of {label(arms[low])}, {part[high]} of {label(arms[high])}): was it measured after "
        "treatment, or changed by it? Then use the value from before; if its levels were given the arms in different "
        "shares by plan, this is as it should be"
    )
