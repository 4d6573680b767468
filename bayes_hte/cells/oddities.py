"""Cells that one unit carries, and averages that turn round when segments are added up.

References
----------
Charig et al. 1986, British Medical Journal 292:879: the paradox of Simpson (1951) in two kinds of kidney stones.
"""

import numpy as np
import xarray as xr

from bayes_hte.cells.significance import THRESHOLD, Counts, Floats, grubbs, independence
from bayes_hte.cells.sources import counted
from bayes_hte.cells.wording import label, number, place
from bayes_hte.schema import ARM, COLUMN, OTHER_COLUMN, SEGMENT, VALUE

MANY = 10
"""In fewer units than this one of them is always much."""
MOST = 0.5
"""A unit that makes up more than this share of a cell's sum of squares decides its mean and its standard error."""
CLEAR = 3.29
"""In standard errors: what chance alone gives with probability .001."""


def outliers(cells: xr.Dataset) -> list[str]:
    """Cells in which one unit makes up most of the variation.

    Without a unit of outcome x the sum of squares is less by (x − mean)² n / (n − 1), and the mean is
    (n mean − x) / (n − 1). In cells of few units that share is large by chance: said only where it would not be so
    large in any of the cells, with probability .999, were outcomes normal. Outcomes that are 0 or 1 have no outliers.
    """
    if "lowest" not in cells or "events" in cells:
        return []
    if "column_ss" in cells:  # an adjusted mean: the outcome is a column of it
        cells = cells.assign(
            mean=cells["column_mean"].sel({COLUMN: "y"}, drop=True),
            ss=cells["column_ss"].sel({COLUMN: "y", OTHER_COLUMN: "y"}, drop=True),
        )
    n, mean, ss, lowest, highest = (
        cells[name].transpose(SEGMENT, ARM).values for name in ("n", "mean", "ss", "lowest", "highest")
    )
    far = np.where(np.abs(lowest - mean) > np.abs(highest - mean), lowest, highest)
    enough = (n >= MANY) & (ss > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(enough, (far - mean) ** 2 * n / (n - 1) / ss, 0.0)
    share = np.nan_to_num(share)
    share[grubbs(share, n) * enough.sum() >= THRESHOLD] = 0.0
    count = int((share > MOST).sum())
    if not count:
        return []
    row, column = (int(i) for i in np.unravel_index(share.argmax(), share.shape))
    units, whole = int(n[row, column]), float(mean[row, column])
    without = (units * whole - float(far[row, column])) / (units - 1)
    verb = counted(count, "cell has", "cells have")
    scope = "" if count == 1 else ", most of all"
    return [
        f"{verb} one unit that makes up more than half of the variation of the outcome{scope}: "
        f"{place(cells, row, column)}, where the mean of {units:,} units is {number(whole)} with it and "
        f"{number(without)} without it; check the record, cap the outcome (cap=), or choose a family for such outcomes"
    ]


def reversals(cells: xr.Dataset) -> list[str]:
    """Arms that are better in every segment and worse in all together, or the other way round: Simpson's paradox.

    Said only where the segments' shares differ between the arms by more than chance, or, of rates without numbers of
    units, where the crude difference is clear: else the sum turns round by luck.
    """
    found = _sums(cells)
    if found is None:
        return []
    total, size = found
    sentences = []
    arms = cells[ARM].values
    for i in range(1, len(arms)):
        pair = [0, i]
        there = (size[:, pair] > 0).all(axis=1)
        if there.sum() < 2:
            continue
        raw = total[there, i] / size[there, i] - total[there, 0] / size[there, 0]
        crude = total[:, pair].sum(axis=0) / size[:, pair].sum(axis=0)
        difference = float(crude[1] - crude[0])
        turned = (raw > 0).all() if difference < 0 else (raw < 0).all() and difference > 0
        if turned and _by_more_than_chance(cells, pair, crude):
            sentences.append(_reversal(arms, i, crude, int(there.sum())))
    return sentences


def _sums(cells: xr.Dataset) -> tuple[Floats, Floats] | None:
    """Sums of outcomes, and the units or exposure they come from; None where there is no such thing."""
    if "estimate" in cells or "failures" in cells:
        return None
    if "exposure" in cells:
        total, size = cells["events"], cells["exposure"]
    elif "n" not in cells:
        return None
    elif "histogram" in cells:
        total, size = (cells["histogram"] * cells[VALUE]).sum(VALUE), cells["n"]
    elif "mean" in cells:
        total, size = (cells["mean"] * cells["n"]).where(cells["n"] > 0, 0.0), cells["n"]
    else:
        total, size = cells["events"], cells["n"]
    return total.transpose(SEGMENT, ARM).values.astype(float), size.transpose(SEGMENT, ARM).values.astype(float)


def _by_more_than_chance(cells: xr.Dataset, pair: list[int], crude: Floats) -> bool:
    if "n" in cells:
        counts: Counts = cells["n"].transpose(SEGMENT, ARM).values[:, pair]
        return independence(counts)[1] < THRESHOLD
    exposure = cells["exposure"].transpose(SEGMENT, ARM).values[:, pair].sum(axis=0)
    return bool(abs(crude[1] - crude[0]) > CLEAR * np.sqrt((crude / exposure).sum()))


def _reversal(arms: np.ndarray, i: int, crude: Floats, segments: int) -> str:
    better, worse = ("higher", "lower") if crude[1] < crude[0] else ("lower", "higher")
    return (
        f"{label(arms[i])} is {better} than {label(arms[0])} in each of {segments:,} segments, but {worse} when they "
        f"are added up ({number(float(crude[1]))} against {number(float(crude[0]))}), because the arms have different "
        "shares of the segments (Simpson's paradox); read the effects by segment and the average effect, never the "
        "crude sum"
    )
