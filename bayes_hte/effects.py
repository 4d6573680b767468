"""Effects as joint draws on a stated scale, from a posterior alone: nothing here needs PyMC.

absolute   E[y | treated] − E[y | control]
relative   absolute / E[y | control], draw by draw: the mean of a ratio is not the ratio of means
link       log-odds, or the outcome itself
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte import schema
from bayes_hte.errors import DataError, ModelError
from bayes_hte.families import FAMILIES, Family
from bayes_hte.layout import Parameters
from bayes_hte.schema import Scale
from bayes_hte.spec.model import Model

Weights = Mapping[str, float] | pd.Series


def model_of(tree: xr.DataTree) -> Model:
    """The model that was fitted, as its file states it."""
    return Model.model_validate_json(tree.attrs["model"])


def cells_of(tree: xr.DataTree) -> xr.Dataset:
    """The cell table that was fitted."""
    return tree["cells"].to_dataset()


def engine_of(tree: xr.DataTree) -> str:
    """Which engine drew the posterior, and why: one sentence."""
    return str(tree.attrs["engine"]) if "engine" in tree.attrs else f"Drawn by {tree.attrs['sampler']}."


def family_of(tree: xr.DataTree) -> Family:
    """The outcome family that was fitted."""
    return FAMILIES[model_of(tree).family]


def parameters(tree: xr.DataTree, group: str = "posterior") -> Parameters:
    """Draws of effect, baseline and sigma, where the family has them."""
    return likelihood_parameters(tree[group].to_dataset())


def likelihood_parameters(draws: xr.Dataset) -> Parameters:
    """What a likelihood needs, out of everything that was drawn."""
    return {name: draws[name] for name in ("effect", "baseline", "sigma") if name in draws}


def on_scale(family: Family, draws: Parameters, scale: Scale) -> xr.DataArray:
    """Every draw of every effect on a scale; dims (chain, draw, segment, arm).

    Raises
    ------
    ModelError
        If the scale needs a control mean that the family does not have.
    """
    effect = draws["effect"]
    if scale == "link" or (scale == "absolute" and family.link == "identity"):
        return effect
    if not family.has_baseline:
        raise ModelError(f'scale "{scale}" needs the control\'s mean, which published estimates lack; use "absolute"')
    control = family.inverse_link(draws["baseline"])
    eta = draws["baseline"] + effect
    treated = family.inverse_link(eta.transpose(*effect.dims))
    return treated - control if scale == "absolute" else treated / control - 1


def effects(tree: xr.DataTree, scale: Scale = "absolute") -> xr.DataArray:
    """Draws of every segment's effect; dims (chain, draw, segment, arm)."""
    return on_scale(family_of(tree), parameters(tree), scale).rename("effect")


def shares(cells: xr.Dataset, weights: Weights | None = None) -> xr.DataArray:
    """Each segment's share of the population; dims (segment,), sums to 1.

    Parameters
    ----------
    cells : xarray.Dataset
        The cell table.
    weights : mapping or pandas.Series, optional
        Population size of each segment by its label; by default the units of all arms together, or
        equal shares where the number of units is not known.

    Raises
    ------
    DataError
        If the weights do not name every segment, or are negative or all zero.
    """
    labels = [str(label) for label in cells[schema.SEGMENT].values]
    if weights is not None:
        given = {str(label): float(value) for label, value in dict(weights).items()}
        if missing := [label for label in labels if label not in given]:
            raise DataError(f"weights lack the segments {missing[:5]}; give one number for each of {labels[:5]} …")
        if unknown := sorted(set(given) - set(labels)):
            raise DataError(f"weights name segments that are not there: {unknown[:5]}; there are {labels[:5]} …")
        sizes = np.array([given[label] for label in labels])
    elif "n" in cells:
        sizes = cells["n"].fillna(0).sum(schema.ARM).values.astype(float)
    else:
        sizes = np.ones(len(labels))
    if not np.isfinite(sizes).all() or (sizes < 0).any() or sizes.sum() <= 0:
        raise DataError("weights must be finite, not negative, and not all zero")
    return xr.DataArray(sizes / sizes.sum(), dims=schema.SEGMENT, coords={schema.SEGMENT: labels})


def average(draws: xr.DataArray, share: xr.DataArray) -> xr.DataArray:
    """The ATE: effects averaged over segments with the population's shares, draw by draw."""
    return (draws * share).sum(schema.SEGMENT)


def raw(tree: xr.DataTree, scale: Scale) -> xr.Dataset:
    """Each segment's own estimate and standard error, without pooling; dims (segment, arm)."""
    family = family_of(tree)
    return family.raw(family.statistics(cells_of(tree)), scale)


def pooling_factor(tree: xr.DataTree) -> xr.DataArray:
    """se² / (se² + tau²) of every draw: the share of a segment's estimate that is borrowed.

    se is the standard error that the segment's effect would have on the link scale if it were
    estimated alone, at the drawn parameters; so a cell without events has one too.

    It describes the pooling of effects. Baselines are pooled as well and shared by all arms, so an estimate
    can also move because the control's mean does, which this factor does not count.

    References
    ----------
    Gelman & Pardoe (2006), Technometrics 48:241.
    """
    family, model = family_of(tree), model_of(tree)
    variance = family.effect_variance(family.statistics(cells_of(tree)), parameters(tree))
    variance = variance.broadcast_like(parameters(tree)["effect"]).transpose(*parameters(tree)["effect"].dims)
    if model.pooling != "partial":
        return variance.copy(data=np.full(variance.shape, 1.0 if model.pooling == "complete" else 0.0))
    tau2 = tree["posterior"]["effect_between"] ** 2
    return (1 / (1 + tau2 / variance)).transpose(*variance.dims)


def new_segment(tree: xr.DataTree, scale: Scale, seed: int) -> xr.DataArray:
    """Draws of the effect in a segment that was not in the experiment; dims (chain, draw, arm).

    Its effect and baseline come from the fitted distribution of segments; where baselines are not
    pooled, its baseline is that of a segment drawn with the population's shares.

    Raises
    ------
    ModelError
        If effects were not pooled: then segments say nothing about a new one.
    """
    model, posterior = model_of(tree), tree["posterior"].to_dataset()
    if model.pooling == "none":
        raise ModelError("without pooling the segments say nothing about a new one; fit with pooling = partial")
    rng = np.random.default_rng(seed)
    effect = posterior["effect_mean"]
    if model.pooling == "partial":
        effect = effect + posterior["effect_between"] * rng.standard_normal(effect.shape)
    draws = {"effect": effect}
    if model.baseline is not None:
        draws["baseline"] = _new_baseline(tree, posterior, model, rng)
    return on_scale(family_of(tree), draws, scale)


def _new_baseline(tree: xr.DataTree, posterior: xr.Dataset, model: Model, rng: np.random.Generator) -> xr.DataArray:
    if model.baseline is not None and model.baseline.pooling == "partial":
        mean = posterior["baseline_mean"]
        return mean + posterior["baseline_between"] * rng.standard_normal(mean.shape)
    known = posterior["baseline"]
    share = shares(cells_of(tree))
    shape = (known.sizes["chain"], known.sizes["draw"])
    picked = xr.DataArray(rng.choice(share.size, size=shape, p=share.values), dims=("chain", "draw"))
    return known.isel(segment=picked).drop_vars("segment")
