"""Power-scaling: how much answers would move if the priors, or the data, counted a little more or less.

A sensitivity is the distance between posteriors per doubling of the power of one component (Kallioinen et al. 2024,
Statistics and Computing 34:57), by importance weights on the draws at hand: nothing is fitted again. ArviZ's `psense`
computes it; here is what it is asked of, and what its answers say.
"""

import math
from typing import Literal

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
FLAT = 1e-6
"""Range of a log-density over the draws below which no power of it moves anything: the sensitivity is less."""
MAX_SEGMENTS = 200
"""Beyond so many segments only what they share is examined, and the average: rows that someone reads."""
SAMPLE = ("chain", "draw")


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
    rows = pd.DataFrame({
        "quantity": list(draws),
        "prior": power_scaling(draws, groups["log_prior"].to_dataset(), "prior"),
        "likelihood": power_scaling(draws, groups["log_likelihood"].to_dataset(), "likelihood"),
    })  # fmt: skip
    rows["diagnosis"] = [diagnose(prior, data) for prior, data in zip(rows["prior"], rows["likelihood"], strict=True)]
    return rows


def power_scaling(
    draws: dict[str, xr.DataArray], log_density: xr.Dataset, component: Literal["prior", "likelihood"]
) -> NDArray[np.float64]:
    """Sensitivity of every quantity to the power of one component; NaN where draws or weights do not vary."""
    import arviz_stats as az

    total = log_density.sum([dim for dim in log_density.dims if dim not in SAMPLE]).to_dataarray().sum("variable")
    if total.max() - total.min() < FLAT:
        return np.zeros(len(draws))
    values = xr.concat(list(draws.values()), pd.Index(list(draws), name="quantity")).to_dataset(name="x")
    tree = xr.DataTree.from_dict({"posterior": values, f"log_{component}": xr.Dataset({"total": total})})
    try:
        with np.errstate(invalid="ignore"):
            return np.asarray(az.psense(tree, group=component, sample_dims=list(SAMPLE))["x"].values)
    except ValueError:  # "All tail values are the same": a chain is stuck, which the diagnosis says
        return np.full(len(draws), np.nan)


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
    own = [str(dim) for dim in values.dims if dim not in SAMPLE]
    found = {}
    for place in np.ndindex(*(values.sizes[dim] for dim in own)):
        one = values.isel(dict(zip(own, place, strict=True)))
        labels = ", ".join(str(one[dim].values) for dim in own)
        found[f"{name}[{labels}]" if labels else name] = one.reset_coords(drop=True)
    return found


def diagnose(prior: float, data: float) -> str:
    """What a pair of sensitivities says, in words."""
    if not (math.isfinite(prior) and math.isfinite(data)):
        return "not known: the draws do not vary, or a chain is stuck"
    if prior < NOTICEABLE:
        return "the prior hardly matters"
    if data < NOTICEABLE:
        return "the prior matters: the data say little here"
    return "the prior matters: it and the data pull on this number"
