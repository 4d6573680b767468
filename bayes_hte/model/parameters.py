"""Names, priors and dims of a model's parameters: one table for PyMC, for the fast engine, for prior draws.

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

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.errors import ModelError
from bayes_hte.model.families import FAMILIES
from bayes_hte.spec import cell_table
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import EVERY_DIMENSION, Baseline, Effect, EffectShape, Model, Pool, PoolingKind

EXAMPLE_DIMENSIONS = ("device", "plan")
"""Dimensions that stand for every dimension where a model is shown without cells."""


@dataclass(frozen=True, slots=True)
class HyperparameterSpec:
    """One variable that segments share: its prior, its dims, and whether its values ascend."""

    prior: Distribution
    dims: tuple[str, ...]
    is_ordered: bool = False


@dataclass(frozen=True, slots=True)
class Coefficient:
    """An effect or a baseline: its priors, and how it is pooled.

    Attributes
    ----------
    name : str
        ``effect``, ``baseline``, or these with the prefix of a part.
    pool_priors : Pool
        Priors of the mean and of what segments differ by.
    pooling : str
        ``partial``, ``none`` or ``complete``.
    dims : tuple of str
        ``("segment", "arm")`` or ``("segment",)``.
    """

    name: str
    pool_priors: Pool
    pooling: PoolingKind
    dims: tuple[str, ...]

    @property
    def effect_priors(self) -> Effect | None:
        """Priors as those of an effect with a structure; None for a coefficient without one."""
        return self.pool_priors if isinstance(self.pool_priors, Effect) else None

    @property
    def shape(self) -> EffectShape:
        """Distribution of segments around their centre; that of baselines is normal."""
        return self.pool_priors.shape if isinstance(self.pool_priors, Effect) else "normal"

    @property
    def strata(self) -> str | None:
        """Dimension whose levels have between-segment SDs of their own; None for a single SD."""
        return self.pool_priors.strata if isinstance(self.pool_priors, Effect) else None


def list_coefficients(model: Model) -> list[Coefficient]:
    """List the coefficients of a model that segments have of their own, effects first; part by part."""
    pools: list[tuple[Pool, Baseline | None]] = [(model.effect, model.baseline)]
    if model.amount is not None:
        pools.append((model.amount.effect, model.amount.baseline))
    coefficients = []
    for part, (effect_priors, baseline_priors) in zip(FAMILIES[model.family].listed_parts, pools, strict=True):
        coefficients.append(Coefficient(f"{part.prefix}effect", effect_priors, model.pooling, ("segment", "arm")))
        # Published estimates have no baseline.
        if baseline_priors is not None:
            baseline_name = f"{part.prefix}baseline"
            coefficients.append(Coefficient(baseline_name, baseline_priors, baseline_priors.pooling, ("segment",)))
    return coefficients


def collect_hyperparameters(model: Model) -> dict[str, HyperparameterSpec]:
    """Collect every prior that a model states, by the name of its variable."""
    hyperparameters: dict[str, HyperparameterSpec] = {}
    for coefficient in list_coefficients(model):
        hyperparameters |= _collect_coefficient_hyperparameters(coefficient)
    nuisance = FAMILIES[model.family].nuisance
    if nuisance is not None and model.nuisance is not None:
        prior = model.nuisance.stated_priors[nuisance.name]
        hyperparameters[nuisance.name] = HyperparameterSpec(prior, nuisance.dims, nuisance.is_ordered)
    return hyperparameters


def _collect_coefficient_hyperparameters(coefficient: Coefficient) -> dict[str, HyperparameterSpec]:
    name, pool_priors, arm_dims = coefficient.name, coefficient.pool_priors, coefficient.dims[1:]
    # Without pooling the prior of the mean is that of every segment.
    if coefficient.pooling == "none":
        return {name: HyperparameterSpec(pool_priors.mean, coefficient.dims)}
    hyperparameters = (
        {} if pool_priors.mean is None else {f"{name}_mean": HyperparameterSpec(pool_priors.mean, arm_dims)}
    )
    if coefficient.pooling == "complete" or pool_priors.between is None:
        return hyperparameters
    effect_priors = coefficient.effect_priors
    scale_dims = () if effect_priors is not None and effect_priors.shared_between else arm_dims
    strata_dims = () if coefficient.strata is None else (coefficient.strata,)
    hyperparameters[f"{name}_between"] = HyperparameterSpec(pool_priors.between, (*strata_dims, *scale_dims))
    for term in pool_priors.by:
        term_prior = pool_priors.get_level_prior(term) or pool_priors.between
        hyperparameters[f"{name_term_variable(name, term)}_between"] = HyperparameterSpec(term_prior, scale_dims)
    if effect_priors is not None and effect_priors.slope is not None:
        hyperparameters[f"{name}_slope"] = HyperparameterSpec(effect_priors.slope, ("covariate", *arm_dims))
    if effect_priors is not None and effect_priors.correlation is not None:
        hyperparameters[f"{name}_correlation"] = HyperparameterSpec(effect_priors.correlation, arm_dims)
    return hyperparameters


def name_term_variable(coefficient_name: str, term: str) -> str:
    """Name the variable of a term's effects: ``effect_region_district`` for ``region:district``."""
    return f"{coefficient_name}_{term.replace(':', '_')}"


def collect_variable_dims(model: Model) -> dict[str, tuple[str, ...]]:
    """Collect the dims of every variable that a posterior of this model may hold."""
    variable_dims = {name: hyperparameter.dims for name, hyperparameter in collect_hyperparameters(model).items()}
    for coefficient in list_coefficients(model):
        variable_dims[coefficient.name] = coefficient.dims
        for term in coefficient.pool_priors.by:
            variable_dims[name_term_variable(coefficient.name, term)] = (term, *coefficient.dims[1:])
    # Of a two-part outcome, effect and baseline of the mean are made of both parts' coefficients.
    return variable_dims | {"effect": ("segment", "arm"), "baseline": ("segment",)}


def expand_dimensions(model: Model, cells: xr.Dataset) -> Model:
    """Return the model with every dimension of the cells in place of ``"*"``.

    Raises
    ------
    ModelError
        If it names a dimension or covariate that the cells lack.
    """
    dimension_names = cell_table.list_dimensions(cells)
    pools_by_name = {"effect": model.effect, "baseline": model.baseline}
    updated_pools: dict[str, Pool] = {}
    for name, pool in pools_by_name.items():
        if pool is None:
            continue
        if EVERY_DIMENSION in pool.by:
            updated_pools[name] = pool.model_copy(update={"by": tuple(dimension_names)})
        for term in (updated_pools.get(name) or pool).by:
            _check_known_dimensions(term.split(":"), dimension_names, f"{name}.by")
    if model.effect.strata is not None:
        _check_known_dimensions([model.effect.strata], dimension_names, "effect.strata")
    if model.effect.covariates:
        known_covariates = list(map(str, cells["covariate"].values)) if "covariates" in cells else []
        missing_covariates = [name for name in model.effect.covariates if name not in known_covariates]
        if missing_covariates:
            raise ModelError(
                f"effect.covariates names {missing_covariates}, the cells hold {known_covariates or 'no covariates'}; "
                "add them with bayes_hte.cells.with_covariates"
            )
    return model.model_copy(update=updated_pools) if updated_pools else model


def with_example_dimensions(model: Model) -> Model:
    """Return the model with two dimensions in place of ``"*"``, to be shown without cells."""
    updated_pools = {
        name: pool.model_copy(update={"by": EXAMPLE_DIMENSIONS})
        for name, pool in (("effect", model.effect), ("baseline", model.baseline))
        if pool is not None and EVERY_DIMENSION in pool.by
    }
    return model.model_copy(update=updated_pools) if updated_pools else model


def _check_known_dimensions(named_dimensions: list[str], known_dimensions: list[str], model_key: str) -> None:
    unknown_dimensions = [name for name in named_dimensions if name not in known_dimensions]
    if unknown_dimensions:
        raise ModelError(
            f"{model_key} names {unknown_dimensions}, the dimensions of these cells are {known_dimensions}"
        )


@dataclass(frozen=True, slots=True)
class SegmentDesign:
    """Levels and covariates of every segment, as the model's structure needs them.

    Attributes
    ----------
    level_labels : mapping
        Dim -> its labels, for terms and strata.
    level_index : mapping
        Dim -> position of every segment among the dim's labels, (segment,).
    standardised_covariates : ndarray
        (segment, covariate), with mean 0 and SD 1 over segments.
    covariate_means, covariate_sds : ndarray
        (covariate,): mean and SD over segments before standardising.
    """

    level_labels: Mapping[str, list[str]]
    level_index: Mapping[str, NDArray[np.intp]]
    standardised_covariates: NDArray[np.float64]
    covariate_means: NDArray[np.float64]
    covariate_sds: NDArray[np.float64]


def build_segment_design(model: Model, cells: xr.Dataset) -> SegmentDesign:
    """Build the design of the cells' segments under a model whose dimensions are named (`expand_dimensions`)."""
    terms = [term for coefficient in list_coefficients(model) for term in coefficient.pool_priors.by]
    terms += [model.effect.strata] if model.effect.strata else []
    level_labels: dict[str, list[str]] = {}
    level_index: dict[str, NDArray[np.intp]] = {}
    for term in dict.fromkeys(terms):
        segment_levels = [
            " | ".join(parts) for parts in zip(*(map(str, cells[d].values) for d in term.split(":")), strict=True)
        ]
        level_labels[term] = list(dict.fromkeys(segment_levels))
        level_position = {label: position for position, label in enumerate(level_labels[term])}
        level_index[term] = np.array([level_position[label] for label in segment_levels], dtype=np.intp)
    return SegmentDesign(level_labels, level_index, *_standardise_covariates(model, cells))


def _standardise_covariates(
    model: Model, cells: xr.Dataset
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Standardise the model's covariates over segments, (segment, covariate); return their means and SDs, too."""
    raw_covariates = np.zeros((cells.sizes[cell_table.SEGMENT], 0))
    if model.effect.covariates:
        raw_covariates = (
            cells["covariates"].sel(covariate=list(model.effect.covariates)).transpose(cell_table.SEGMENT, ...).values
        )
    # One segment has no SD, and its covariates are centred to 0 whatever they are divided by.
    covariate_means, covariate_sds = raw_covariates.mean(0), np.ones(raw_covariates.shape[1])
    if len(raw_covariates) > 1:
        covariate_sds = raw_covariates.std(0, ddof=1)
    if not (covariate_sds > 0).all():
        constant_covariates = [
            name
            for name, covariate_sd in zip(model.effect.covariates, covariate_sds, strict=True)
            if not covariate_sd > 0
        ]
        raise ModelError(
            f"the covariates {constant_covariates} are the same in every segment: leave them out of effect.covariates"
        )
    # z = (x − mean) / SD over segments
    return (raw_covariates - covariate_means) / covariate_sds, covariate_means, covariate_sds


def collect_extra_coords(model: Model, cells: xr.Dataset, segment_design: SegmentDesign) -> dict[str, list[str]]:
    """Collect the labels of the dims that a structure or a family adds to segment, arm and variant."""
    coords = dict(segment_design.level_labels)
    if model.effect.covariates:
        coords["covariate"] = list(model.effect.covariates)
    nuisance = FAMILIES[model.family].nuisance
    if nuisance is not None:
        coords |= nuisance.label_dims(cells)
    return coords


def count_values(dims: tuple[str, ...], coords: Mapping[str, list[str]]) -> int:
    """Count the numbers that a variable with these dims holds."""
    return math.prod(len(coords[dim]) for dim in dims)
