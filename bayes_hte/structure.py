"""What a model's parameters are called and which dims they have: one table for PyMC, for the fast engine, for priors.

dims that are not segment or arm:
    variant          every arm, the control included
    covariate        of segments
    cutpoint         between neighbouring levels of an ordinal outcome
    later_interval   of survival, all but the first
    <dimension>      levels of a dimension whose levels have an effect or a between-segment SD of their own;
                     "region:district" for a term of two dimensions
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import schema
from bayes_hte.errors import ModelError
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import EVERY_DIMENSION, Amount, Effect, Model, Pool, Pooling

NUISANCE_DIMS: Mapping[str, tuple[str, ...]] = {
    "sigma": ("variant",),
    "alpha": ("variant",),
    "cutpoints": ("cutpoint",),
    "hazards": ("later_interval",),
}
EXAMPLE_DIMENSIONS = ("device", "plan")
"""What stands for every dimension where a model is shown without cells."""
CHANCE, AMOUNT = "chance_", "amount_"
"""Prefixes of the two parts of a two-part outcome."""


@dataclass(frozen=True, slots=True)
class Hyper:
    """One variable that segments share."""

    prior: Distribution
    dims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coefficient:
    """An effect or a baseline: its priors, and how it is pooled.

    Attributes
    ----------
    name : str
        ``effect``, ``baseline``, or these with the prefix of a part.
    pool : Pool
    pooling : str
    dims : tuple of str
        ``("segment", "arm")`` or ``("segment",)``.
    """

    name: str
    pool: Pool
    pooling: Pooling
    dims: tuple[str, ...]

    @property
    def effect(self) -> Effect | None:
        """The priors as those of an effect with a structure, if they are."""
        return self.pool if isinstance(self.pool, Effect) else None


def coefficients(model: Model) -> list[Coefficient]:
    """Every coefficient of a model that segments have of their own, effects first."""
    if model.amount is None:
        return _pair("", model.effect, model)
    return _pair(CHANCE, model.effect, model) + _pair(AMOUNT, model.amount.effect, model)


def _pair(prefix: str, effect: Pool, model: Model) -> list[Coefficient]:
    found = [Coefficient(f"{prefix}effect", effect, model.pooling, ("segment", "arm"))]
    baseline = model.amount.baseline if prefix == AMOUNT and isinstance(model.amount, Amount) else model.baseline
    if baseline is not None:
        found.append(Coefficient(f"{prefix}baseline", baseline, baseline.pooling, ("segment",)))
    return found


def hyperparameters(model: Model) -> dict[str, Hyper]:
    """Every prior that a model states, by the name of its variable."""
    found: dict[str, Hyper] = {}
    for coefficient in coefficients(model):
        found |= _of_coefficient(coefficient)
    if model.nuisance is not None:
        found |= {name: Hyper(prior, NUISANCE_DIMS[name]) for name, prior in model.nuisance.given.items()}
    return found


def _of_coefficient(coefficient: Coefficient) -> dict[str, Hyper]:
    name, pool, shared = coefficient.name, coefficient.pool, coefficient.dims[1:]
    if coefficient.pooling == "none":
        return {name: Hyper(pool.mean, coefficient.dims)}
    found = {} if pool.mean is None else {f"{name}_mean": Hyper(pool.mean, shared)}
    if coefficient.pooling == "complete" or pool.between is None:
        return found
    effect = coefficient.effect
    scale_dims = () if effect is not None and effect.shared_between else shared
    strata = (effect.strata,) if effect is not None and effect.strata else ()
    found[f"{name}_between"] = Hyper(pool.between, (*strata, *scale_dims))
    for term in pool.by:
        found[f"{term_name(name, term)}_between"] = Hyper(pool.by_between or pool.between, scale_dims)
    if effect is not None and effect.slope is not None:
        found[f"{name}_slope"] = Hyper(effect.slope, ("covariate", *shared))
    if effect is not None and effect.correlation is not None:
        found[f"{name}_correlation"] = Hyper(effect.correlation, shared)
    return found


def term_name(name: str, term: str) -> str:
    """The variable of a term's effects: ``effect_region_district`` for ``region:district``."""
    return f"{name}_{term.replace(':', '_')}"


def dims_of(model: Model) -> dict[str, tuple[str, ...]]:
    """Dims of every variable that a posterior of this model may hold."""
    found = {name: hyper.dims for name, hyper in hyperparameters(model).items()}
    for coefficient in coefficients(model):
        found[coefficient.name] = coefficient.dims
        for term in coefficient.pool.by:
            found[term_name(coefficient.name, term)] = (term, *coefficient.dims[1:])
    return found | {"effect": ("segment", "arm"), "baseline": ("segment",)}


def expanded(model: Model, cells: xr.Dataset) -> Model:
    """The model with every dimension in place of ``"*"``.

    Raises
    ------
    ModelError
        If it names a dimension or covariate that the cells lack.
    """
    dimensions = schema.dimensions(cells)
    named = {"effect": model.effect, "baseline": model.baseline}
    update: dict[str, Pool] = {}
    for name, pool in named.items():
        if pool is None:
            continue
        if EVERY_DIMENSION in pool.by:
            update[name] = pool.model_copy(update={"by": tuple(dimensions)})
        for term in (update.get(name) or pool).by:
            _check_known(term.split(":"), dimensions, f"{name}.by")
    if model.effect.strata is not None:
        _check_known([model.effect.strata], dimensions, "effect.strata")
    if model.effect.covariates:
        known = list(map(str, cells["covariate"].values)) if "covariates" in cells else []
        missing = [name for name in model.effect.covariates if name not in known]
        if missing:
            raise ModelError(
                f"effect.covariates names {missing}, the cells hold {known or 'no covariates'}; "
                "add them with bayes_hte.cells.with_covariates"
            )
    return model.model_copy(update=update) if update else model


def illustrated(model: Model) -> Model:
    """The model with two dimensions in place of ``"*"``, to be shown without cells."""
    update = {
        name: pool.model_copy(update={"by": EXAMPLE_DIMENSIONS})
        for name, pool in (("effect", model.effect), ("baseline", model.baseline))
        if pool is not None and EVERY_DIMENSION in pool.by
    }
    return model.model_copy(update=update) if update else model


def _check_known(names: list[str], dimensions: list[str], key: str) -> None:
    unknown = [name for name in names if name not in dimensions]
    if unknown:
        raise ModelError(f"{key} names {unknown}, the dimensions of these cells are {dimensions}")


@dataclass(frozen=True, slots=True)
class Design:
    """Where every segment stands in the model's structure.

    Attributes
    ----------
    levels : mapping
        Dim -> its labels, for terms and strata.
    index : mapping
        Dim -> position of every segment among these labels, (segment,).
    covariates : ndarray
        (segment, covariate), standardised over segments.
    location, scale : ndarray
        (covariate,): what was subtracted, and divided by.
    """

    levels: Mapping[str, list[str]]
    index: Mapping[str, NDArray[np.intp]]
    covariates: NDArray[np.float64]
    location: NDArray[np.float64]
    scale: NDArray[np.float64]


def design(model: Model, cells: xr.Dataset) -> Design:
    """The structure of these segments under an `expanded` model."""
    terms = [term for coefficient in coefficients(model) for term in coefficient.pool.by]
    terms += [model.effect.strata] if model.effect.strata else []
    levels: dict[str, list[str]] = {}
    index: dict[str, NDArray[np.intp]] = {}
    for term in dict.fromkeys(terms):
        labels = [
            " | ".join(parts) for parts in zip(*(map(str, cells[d].values) for d in term.split(":")), strict=True)
        ]
        levels[term] = list(dict.fromkeys(labels))
        place = {label: position for position, label in enumerate(levels[term])}
        index[term] = np.array([place[label] for label in labels], dtype=np.intp)
    raw = np.zeros((cells.sizes[schema.SEGMENT], 0))
    if model.effect.covariates:
        raw = cells["covariates"].sel(covariate=list(model.effect.covariates)).transpose(schema.SEGMENT, ...).values
    location, scale = raw.mean(0), raw.std(0, ddof=1) if len(raw) > 1 else np.ones(raw.shape[1])
    if not (scale > 0).all():
        flat = [name for name, each in zip(model.effect.covariates, scale, strict=True) if not each > 0]
        raise ModelError(f"the covariates {flat} are the same in every segment: leave them out of effect.covariates")
    return Design(levels, index, (raw - location) / scale, location, scale)


def extra_coords(model: Model, cells: xr.Dataset, found: Design) -> dict[str, list[str]]:
    """Labels of the dims that a structure or a family adds to segment, arm and variant."""
    coords = dict(found.levels)
    if model.effect.covariates:
        coords["covariate"] = list(model.effect.covariates)
    if model.family == "ordinal":
        values = [f"{value:g}" for value in cells[schema.VALUE].values]
        coords["cutpoint"] = [f"{low}|{high}" for low, high in pairwise(values)]
    if model.family == "piecewise_exponential":
        coords["later_interval"] = [str(label) for label in cells[schema.INTERVAL].values[1:]]
    return coords


def size_of(dims: tuple[str, ...], coords: Mapping[str, list[str]]) -> int:
    """How many numbers a variable with these dims holds."""
    return math.prod(len(coords[dim]) for dim in dims)
