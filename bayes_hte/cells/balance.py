"""Whether units of the arms were alike before treatment, and were lost at the same rate after it.

References
----------
Austin 2009, Balance diagnostics for comparing the distribution of baseline covariates, Statistics in Medicine 28:3083.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte.cells.significance import LEAST, THRESHOLD, Counts, Floats, equal_means, holm, ratio_tests
from bayes_hte.cells.sources import counted
from bayes_hte.cells.spanning import spanning
from bayes_hte.cells.wording import label, number, p_is, percentages, quoted
from bayes_hte.schema import ARM, PRE, SEGMENT

NAMED = 3
"""How many covariates or arms a sentence gives numbers for."""


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """What was measured before treatment, over all segments: arrays with dims (arm, pre_covariate)."""

    n: Counts
    mean: Floats
    ss: Floats


def before(cells: xr.Dataset) -> Before:
    """Pool over segments by the formula of Chan, Golub & LeVeque 1983."""
    order = (SEGMENT, ARM, PRE)
    n = cells["pre_n"].transpose(*order).values
    mean = np.where(n > 0, cells["pre_mean"].transpose(*order).values, 0.0)
    total = n.sum(axis=0)
    pooled = (n * mean).sum(axis=0) / np.maximum(total, 1)
    ss = cells["pre_ss"].transpose(*order).values.sum(axis=0) + (n * (mean - pooled) ** 2).sum(axis=0)
    return Before(total, pooled, ss)


def imbalance(cells: xr.Dataset) -> list[str]:
    """Covariates from before treatment whose means differ between the arms: see `equal_means`; Holm's correction."""
    if not {"pre_n", "pre_mean", "pre_ss"} <= set(map(str, cells.data_vars)):
        return []
    pooled = before(cells)
    spans = spanning(cells)
    over = 1.0 if spans is None else spans.design_effect(int(cells["n"].sum()))
    if not np.isfinite(over):  # units are in several segments, nobody knows in how many
        return []
    worth, ss = np.round(pooled.n / over), pooled.ss / over
    p = np.array([equal_means(*each) for each in zip(worth.T, pooled.mean.T, ss.T, strict=True)])
    corrected = holm(p)
    order = np.argsort(p, kind="stable")
    wrong = [int(i) for i in order if corrected[i] < THRESHOLD]
    if not wrong:
        return []
    arms, names = cells[ARM].values, cells[PRE].values
    each = [f"{quoted(names[i])} ({_apart(pooled, i, arms)}; {p_is(float(corrected[i]))})" for i in wrong[:NAMED]]
    listing = "; ".join(each) + (f"; and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else "")
    verb = counted(len(wrong), "covariate differs", "covariates differ")
    return [
        f"{verb} between the arms already before treatment: {listing}; randomisation hardly does that: find out how "
        "units came to their arms, and adjust for what differs"
    ]


def _apart(pooled: Before, i: int, arms: np.ndarray) -> str:
    """The two arms that are furthest apart, one of them the control where it has units."""
    n, mean, ss = pooled.n[:, i], pooled.mean[:, i], pooled.ss[:, i]
    there = np.flatnonzero(n > 1)
    variance = ss[there] / (n[there] - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = (mean[there] - mean[there[0]]) / np.sqrt((variance + variance[0]) / 2)
    differences[0] = 0.0
    worst = int(np.nanargmax(np.abs(differences)))
    first, second, d = there[0], there[worst], differences[worst]
    units = f", {abs(d):.2g} standard deviations apart" if np.isfinite(d) else ""
    return (
        f"mean {number(float(mean[first]))} in {label(arms[first])}, {number(float(mean[second]))} in "
        f"{label(arms[second])}{units}"
    )


def attrition(cells: xr.Dataset) -> list[str]:
    """Numbers missing at different rates in the arms: what is left of them may differ though they were alike."""
    if "n_missing" not in cells or not {"n", "n_rows"} & set(map(str, cells.data_vars)):
        return []
    kept = cells["n_rows" if "n_rows" in cells else "n"].sum(SEGMENT).values
    missing = cells["n_missing"].sum(SEGMENT).values
    total = kept + missing
    seen = total > 0
    if not missing.any() or seen.sum() < 2:
        return []
    arms, missing, total = cells[ARM].values[seen], missing[seen], total[seen]
    rows = np.stack([missing, total - missing])
    rarer = rows[rows.sum(axis=1).argmin()][
        None
    ]  # the rarer of the two is the sharper where expected numbers are small
    _, p, _ = ratio_tests(rarer, total / total.sum(), rarer.sum(axis=1) / total.sum(), exact_below=LEAST)
    if not p[0] < THRESHOLD:
        return []
    rate = missing / total
    parts = percentages(rate, float(rate.max() - rate.min()))
    shown = sorted({0, int(rate.argmin()), int(rate.argmax())})
    listing = ", ".join(f"{parts[i]} of the rows in {label(arms[i])}" for i in shown)
    return [
        f"numbers are missing at different rates in the arms: {listing} ({p_is(float(p[0]))}); those that are left may "
        "differ even if the treatment does nothing: find out why they are missing before believing any effect"
    ]
