"""Effects as joint draws on a stated scale, from a posterior alone: nothing here needs PyMC.

absolute   E[y | treated] − E[y | control]
relative   absolute / E[y | control], draw by draw: the mean of a ratio is not the ratio of means
           under a log link exp(effect) − 1, the same thing; for survival the hazard ratio less one
link       log-odds, logarithm, or the outcome itself
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte import schema
from bayes_hte.asked import described, items_of, number
from bayes_hte.cells.labels import level_of
from bayes_hte.errors import DataError, ModelError
from bayes_hte.families import FAMILIES, Family, two_part
from bayes_hte.layout import Parameters
from bayes_hte.model import problem
from bayes_hte.pooling import DEFAULT_NU
from bayes_hte.schema import Scale
from bayes_hte.spec.model import Model
from bayes_hte.structure import (
    AMOUNT,
    CHANCE,
    NUISANCE_DIMS,
    Coefficient,
    coefficients,
    design,
    expanded,
    term_name,
)

Weights = Mapping[str, float] | pd.Series


def model_of(tree: xr.DataTree) -> Model:
    """The model that was fitted, as its file states it."""
    return Model.model_validate_json(tree.attrs["model"])


def cells_of(tree: xr.DataTree) -> xr.Dataset:
    """The cell table that was fitted."""
    return tree["cells"].to_dataset()


def is_own(tree: xr.DataTree) -> bool:
    """Whether the draws come from a model that is not known here; see `bayes_hte.from_posterior`."""
    return "own" in tree.attrs


def known_model(tree: xr.DataTree, what: str) -> Model:
    """The model, where there is one to ask.

    Raises
    ------
    ModelError
        If only the draws of the model are known.
    """
    if is_own(tree):
        raise ModelError(f"{what} needs the model, and only draws of a model of your own are known: use ArviZ on those")
    return model_of(tree)


def engine_of(tree: xr.DataTree) -> str:
    """Which engine drew the posterior, and why: one sentence."""
    return str(tree.attrs["engine"]) if "engine" in tree.attrs else f"Drawn by {tree.attrs['sampler']}."


def family_of(tree: xr.DataTree) -> Family:
    """The outcome family that was fitted."""
    return FAMILIES[model_of(tree).family]


def parameters(tree: xr.DataTree, group: str = "posterior") -> Parameters:
    """Draws of effect, baseline and what else the likelihood needs."""
    return likelihood_parameters(tree[group].to_dataset())


def likelihood_parameters(draws: xr.Dataset) -> Parameters:
    """What a likelihood needs, out of everything that was drawn; dims of the draws may be called the same."""
    own = ("effect", "baseline")
    names = (*own, *NUISANCE_DIMS, *(f"{part}{name}" for part in (CHANCE, AMOUNT) for name in own))
    return {name: draws[name] for name in names if name in draws.data_vars}


def on_scale(family: Family, draws: Parameters, scale: Scale, statistics: xr.Dataset) -> xr.DataArray:
    """Every draw of every effect on a scale; dims (chain, draw, segment, arm).

    Parameters
    ----------
    family : Family
    draws : mapping
        effect, and baseline and nuisance parameters where the family has them.
    scale : str
    statistics : xarray.Dataset
        The cells, or the family's statistics of them: levels, intervals and the horizon are read from there.

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
    if scale == "relative" and family.link == "log":
        return effect.copy(data=np.expm1(effect.values))
    control, treated = means(family, draws, statistics)
    return treated - control if scale == "absolute" else treated / control - 1


def means(family: Family, draws: Parameters, statistics: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean outcome of the control, dims (chain, draw, segment), and of every treated arm, (…, segment, arm)."""
    control = family.mean(draws["baseline"], draws, statistics)
    eta = draws["baseline"] + draws["effect"]
    return control, family.mean(eta.transpose(*draws["effect"].dims), draws, statistics)


def effects(tree: xr.DataTree, scale: Scale = "absolute") -> xr.DataArray:
    """Draws of every segment's effect; dims (chain, draw, segment, arm)."""
    return on_scale(family_of(tree), parameters(tree), scale, cells_of(tree)).rename("effect")


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
        given = _sizes(weights, labels)
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


def _sizes(weights: object, labels: list[str]) -> dict[str, float]:
    """The weights by label, as numbers."""
    pairs = items_of("weights", weights, str(dict.fromkeys(labels[:2], 1)))
    found = {level_of(label): _number(value, f"the weight of {label!r}") for label, value in pairs}
    if len(found) < len(pairs):
        raise DataError(f"weights name a segment twice: {[label for label, _ in pairs][:5]}; add them up")
    return found


def _number(value: object, what: str) -> float:
    found = number(value)
    if found is None:
        raise DataError(f"{what} is {described(value)}; give a number")
    return found


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
    if is_own(tree) and model.pooling != "partial":
        return variance.copy(data=np.full(variance.shape, np.nan))
    if model.pooling != "partial":
        return variance.copy(data=np.full(variance.shape, 1.0 if model.pooling == "complete" else 0.0))
    tau2 = between_variance(tree)
    return (1 / (1 + tau2 / variance)).transpose(*variance.dims)


def between_variance(tree: xr.DataTree) -> xr.DataArray:
    """Variance of effects around what a segment's levels and covariates say of them, link scale; dims (chain, draw, …).

    Of heavy tails it is the scale's square times nu / (nu − 2); of a horseshoe that of each segment's own scale.
    """
    model, posterior = model_of(tree), tree["posterior"].to_dataset()
    if model.amount is not None:
        return two_part.between_variance(posterior)
    effect = model.effect
    if effect.shape == "horseshoe":
        return posterior["effect_local"] ** 2
    tau2 = posterior["effect_between"] ** 2
    if effect.shape == "student_t":
        nu = effect.nu or DEFAULT_NU
        tau2 = tau2 * nu / max(nu - 2, 0.1)
    return of_segments(tau2, model, cells_of(tree))


def contributions(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """What every part of the model adds to each segment's effect, link scale; dims (chain, draw, segment, arm).

    Together they are the effect less the common effect; "rest" is what levels and covariates leave over.
    """
    posterior, cells = tree["posterior"].to_dataset(), cells_of(tree)
    model = expanded(model_of(tree), cells)
    placed = design(model, cells)
    parts: dict[str, xr.DataArray] = {}
    for term in model.effect.by:
        place = xr.DataArray(placed.index[term], dims="segment")
        parts[term.replace(":", " × ")] = posterior[term_name("effect", term)].isel({term: place}).drop_vars(term)
    if model.effect.covariates:
        known = xr.DataArray(placed.covariates, dims=("segment", "covariate"))
        parts["covariates"] = xr.dot(posterior["effect_slope"].drop_vars("covariate"), known, dim="covariate")
    explained = sum(parts.values(), start=xr.zeros_like(posterior["effect_mean"]))
    parts["rest"] = posterior["effect"] - posterior["effect_mean"] - explained
    return {name: part.transpose("chain", "draw", "segment", "arm") for name, part in parts.items()}


def of_segments(values: xr.DataArray, model: Model, cells: xr.Dataset) -> xr.DataArray:
    """Values that strata have, segment by segment; others unchanged."""
    stratum = model.effect.strata
    if stratum is None or stratum not in values.dims:
        return values
    mine = xr.DataArray(cells[stratum].values.astype(str), dims=schema.SEGMENT)
    found = values.sel({stratum: mine}).drop_vars(stratum)
    return found.assign_coords({schema.SEGMENT: cells[schema.SEGMENT]})


def new_segment(
    tree: xr.DataTree,
    scale: Scale,
    seed: int,
    *,
    where: Mapping[str, str] | None = None,
    covariates: Mapping[str, float] | None = None,
) -> xr.DataArray:
    """Draws of the effect in a segment that was not in the experiment; dims (chain, draw, arm).

    Its effect and baseline come from the fitted distribution of segments; where baselines are not
    pooled, its baseline is that of a segment drawn with the population's shares.

    Parameters
    ----------
    tree : xarray.DataTree
    scale : str
    seed : int
    where : mapping, optional
        Dimension -> level, for the dimensions whose levels have effects or between-segment SDs of their own; a level
        that was not seen, or is not stated, is drawn as well.
    covariates : mapping, optional
        Covariate -> value in its own units; one that is not stated is at the mean of the segments.

    Raises
    ------
    ModelError
        If effects were not pooled: then segments say nothing about a new one.
    DataError
        If a dimension or covariate is not part of the model.
    """  # fmt: skip
    model = model_of(tree)
    if model.pooling == "none":
        raise ModelError("without pooling the segments say nothing about a new one; fit with pooling = partial")
    said = items_of("where", {} if where is None else where, "{'device': 'mobile'}")
    known = items_of("covariates", {} if covariates is None else covariates, "{'age': 40}")
    new = NewSegment.of(
        tree,
        np.random.default_rng(seed),
        {str(dimension): level_of(level) for dimension, level in said},
        {str(name): _number(value, f"the covariate {name!r}") for name, value in known},
    )
    draws = new.draws()
    draws |= {name: values for name, values in parameters(tree).items() if name in NUISANCE_DIMS}
    if model.amount is not None:
        draws |= two_part.headline(draws)
    return on_scale(family_of(tree), draws, scale, cells_of(tree))


@dataclass(frozen=True, slots=True)
class NewSegment:
    """Draws a segment's coefficients from the distribution that segments were found to have."""

    model: Model
    posterior: xr.Dataset
    cells: xr.Dataset
    rng: np.random.Generator
    where: dict[str, str]
    covariates: dict[str, float]

    @classmethod
    def of(
        cls, tree: xr.DataTree, rng: np.random.Generator, where: dict[str, str], covariates: dict[str, float]
    ) -> "NewSegment":
        """Check what was said of the segment."""
        cells = cells_of(tree)
        model = problem(cells, model_of(tree)).model
        dimensions = schema.dimensions(cells)
        if unknown := [name for name in where if name not in dimensions]:
            raise DataError(f"no dimension {unknown[0]!r}; there are {dimensions}")
        known = list(model.effect.covariates)
        if unknown := [name for name in covariates if name not in known]:
            raise DataError(f"no covariate {unknown[0]!r} in this model; it has {known or 'none'}")
        return cls(model, tree["posterior"].to_dataset(), cells, rng, where, covariates)

    def draws(self) -> dict[str, xr.DataArray]:
        """Effect and baseline, or those of both parts."""
        found: dict[str, xr.DataArray] = {}
        base_offset: xr.DataArray | None = None
        for asked in reversed(coefficients(self.model)):  # baselines first
            if asked.pooling == "none":
                found[asked.name] = self._someone(asked.name)
            else:
                found[asked.name], offset = self._drawn(asked, base_offset)
                base_offset = offset if asked.name.endswith("baseline") else None
        return found

    def _drawn(self, asked: Coefficient, base: xr.DataArray | None) -> tuple[xr.DataArray, xr.DataArray]:
        name, posterior = asked.name, self.posterior
        shape = posterior[asked.name].isel(segment=0, drop=True)
        centre: xr.DataArray = posterior[f"{name}_mean"] if f"{name}_mean" in posterior.data_vars else 0.0 * shape
        if asked.pooling == "complete":
            return centre, 0.0 * shape
        if f"{name}_slope" in posterior.data_vars:
            placed = design(self.model, self.cells)
            given = [self.covariates.get(each, location) for each, location in
                     zip(self.model.effect.covariates, placed.location, strict=True)]  # fmt: skip
            z = xr.DataArray((np.array(given) - placed.location) / placed.scale, dims="covariate")
            centre = centre + (posterior[f"{name}_slope"].reset_coords(drop=True) * z).sum("covariate")
        for term in asked.pool.by:
            centre = centre + self._level(name, term, shape)
        offset = self._noise(shape, asked)
        between = self._between(asked, shape)
        rho = posterior.data_vars.get(f"{name}_correlation")
        if rho is not None and base is not None:
            offset = rho * base + (1 - rho**2) ** 0.5 * offset
        return (centre + between * offset).transpose(*shape.dims), offset

    def _noise(self, shape: xr.DataArray, asked: Coefficient) -> xr.DataArray:
        effect = asked.effect
        if effect is not None and effect.shape == "student_t":
            return shape.copy(data=self.rng.standard_t(effect.nu or DEFAULT_NU, shape.shape))
        return shape.copy(data=self.rng.standard_normal(shape.shape))

    def _between(self, asked: Coefficient, shape: xr.DataArray) -> xr.DataArray:
        between, effect = self.posterior[f"{asked.name}_between"], asked.effect
        if effect is None:
            return between
        if effect.strata is not None:
            level = self.where.get(effect.strata)
            labels = [str(label) for label in between[effect.strata].values]
            if level not in labels:
                raise DataError(f"say in which {effect.strata} the new segment is: where={{{effect.strata!r}: …}}; "
                                f"there are {labels}")  # fmt: skip
            between = between.sel({effect.strata: level}, drop=True)
        if effect.shape == "horseshoe" and effect.slab is not None:
            wide = between * shape.copy(data=np.abs(self.rng.standard_cauchy(shape.shape)))
            between = effect.slab * wide / (effect.slab**2 + wide**2) ** 0.5
        return between

    def _level(self, name: str, term: str, shape: xr.DataArray) -> xr.DataArray:
        """The effect of a level: as fitted where it is stated and was seen, else drawn."""
        found = self.posterior[term_name(name, term)]
        parts = [self.where.get(dimension) for dimension in term.split(":")]
        label = " | ".join(part for part in parts if part is not None) if None not in parts else None
        if label is not None and label in found[term].values.astype(str):
            return found.sel({term: label}, drop=True)
        return self.posterior[f"{term_name(name, term)}_between"] * shape.copy(
            data=self.rng.standard_normal(shape.shape)
        )

    def _someone(self, name: str) -> xr.DataArray:
        """That of a segment drawn with the population's shares."""
        known, share = self.posterior[name], shares(self.cells)
        size = (known.sizes["chain"], known.sizes["draw"])
        picked = xr.DataArray(self.rng.choice(share.size, size=size, p=share.values), dims=("chain", "draw"))
        return known.isel(segment=picked).drop_vars("segment")
