"""Power-scaling: how much answers would move if the priors, or the data, counted a little more or less.

A sensitivity is the distance between posteriors per doubling of the power of one component (Kallioinen et al. 2024,
Statistics and Computing 34:57), by importance weights on the draws at hand: nothing is fitted again. The formulas are
ArviZ's `psense`; importing that would take longer than everything else in a report.
"""

import math

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import schema
from bayes_hte.effects import average, cells_of, effects, known_model, shares
from bayes_hte.errors import DataError
from bayes_hte.groups import complete
from bayes_hte.summary import Question

NOTICEABLE = 0.05
"""A shift of a normal posterior by 0.3 SD per doubling of the power: the threshold of Kallioinen et al."""
STEPS = (0.99, 1.01)
"""Powers at which the change is measured: near 1, so that the weights stay even."""
MAX_SEGMENTS = 200
"""Beyond so many segments only what they share is examined, and the average: rows that someone reads."""
Array = NDArray[np.float64]


def sensitivity(tree: xr.DataTree, question: Question) -> pd.DataFrame:
    """One row per quantity; see `Fit.sensitivity`.

    Raises
    ------
    DataError
        If the log-likelihood of the fit is too large to be kept.
    """
    known_model(tree, "the sensitivity to priors")
    groups = complete(tree)
    if "log_likelihood" not in groups.children:
        raise DataError("the log-likelihood of every draw and cell is too large to be kept: fit with fewer draws")
    draws = quantities(tree, question)
    values = np.column_stack([each.transpose("chain", "draw").values.ravel() for each in draws.values()])
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    found = {}
    for component, group in (("prior", "log_prior"), ("likelihood", "log_likelihood")):
        log_density = sum(_over_draws(each) for each in groups[group].to_dataset().data_vars.values())
        found[component] = power_scaling(ordered, order, np.asarray(log_density))
    rows = pd.DataFrame({"quantity": list(draws), **found})
    rows["diagnosis"] = [diagnose(prior, data) for prior, data in zip(rows["prior"], rows["likelihood"], strict=True)]
    return rows


def _over_draws(density: xr.DataArray) -> Array:
    """Added up within every draw."""
    own = [dim for dim in density.dims if dim not in ("chain", "draw")]
    return np.asarray(density.sum(own).transpose("chain", "draw").values.ravel())


def power_scaling(ordered: Array, order: NDArray[np.intp], log_density: Array) -> Array:
    """Sensitivity of every column of sorted draws to the power of one component, by small steps up and down."""
    slopes = []
    for power in STEPS:
        log_weights = (power - 1) * (log_density - log_density.max())
        weights = np.exp(log_weights - log_weights.max())
        own = (weights / weights.sum())[order]
        distance = np.maximum(_distance(ordered, own), _distance(-ordered[::-1], own[::-1]))
        slopes.append(distance / abs(math.log2(power)))
    return np.asarray(np.mean(slopes, axis=0))


def _distance(ordered: Array, weights: Array) -> Array:
    """Square root of the cumulative Jensen–Shannon divergence between draws and weighted draws, column by column.

    It lies between 0 and 1, and is NaN for draws that do not vary (Nguyen & Vreeken 2015).
    """
    size = len(ordered)
    gap = np.diff(ordered, axis=0)
    p = np.linspace(1 / size, 1 - 1 / size, size - 1)[:, None]
    q = weights.cumsum(axis=0)[:-1]
    middle = np.log2((p + q) / 2)
    area_p, area_q = (gap * p).sum(0), (gap * q).sum(0)
    apart = (area_q - area_p) / (2 * math.log(2))
    up = (gap * p * (np.log2(p) - middle)).sum(0) + apart
    down = (gap * q * (np.log2(q) - middle)).sum(0) - apart
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt((up.clip(min=0) + down.clip(min=0)) / (area_p + area_q)))


def quantities(tree: xr.DataTree, question: Question) -> dict[str, xr.DataArray]:
    """Draws of what is reported, dims (chain, draw), by the names of the rows."""
    posterior, cells = tree["posterior"].to_dataset(), cells_of(tree)
    effect = effects(tree, question.scale)
    found: dict[str, xr.DataArray] = {}
    for name in map(str, posterior.data_vars):
        if "effect" in name and name.endswith(("_mean", "_between", "_slope", "_correlation")):
            found |= _each(name, posterior[name])
    found |= _each("ate", average(effect, shares(cells)))
    if cells.sizes[schema.SEGMENT] <= MAX_SEGMENTS:
        found |= _each("effect", effect.transpose("chain", "draw", "segment", "arm"))
    return found


def _each(name: str, values: xr.DataArray) -> dict[str, xr.DataArray]:
    """The scalars of a variable, named as ArviZ names them: ``effect[mobile, email]``."""
    own = [str(dim) for dim in values.dims if dim not in ("chain", "draw")]
    found = {}
    for place in np.ndindex(*(values.sizes[dim] for dim in own)):
        one = values.isel(dict(zip(own, place, strict=True)))
        labels = ", ".join(str(one[dim].values) for dim in own)
        found[f"{name}[{labels}]" if labels else name] = one.reset_coords(drop=True)
    return found


def diagnose(prior: float, data: float) -> str:
    """What a pair of sensitivities says, in words."""
    if not (math.isfinite(prior) and math.isfinite(data)):
        return "not known: the draws do not vary, or their weights are too uneven"
    if prior < NOTICEABLE:
        return "the prior hardly matters"
    if data < NOTICEABLE:
        return "the prior matters: the data say little here"
    return "the prior matters: it and the data pull on this number"
