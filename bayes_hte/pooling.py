"""How one coefficient is shared by segments: partially, not at all, or completely. PyMC, and draws from the prior.

    coefficient[s] = mean + Σ covariate[s] * slope + Σ level effect of s + between * offset[s]

offset ~ Normal(0, 1), Student's t, or Normal with a local scale (regularised horseshoe: Piironen & Vehtari 2017,
Electronic Journal of Statistics 11:5018), or tied to the baseline's offset by a correlation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayes_hte import informed
from bayes_hte.informed import Evidence
from bayes_hte.priors import Given, constant, random, variable
from bayes_hte.spec.distributions import Normal
from bayes_hte.structure import Coefficient, Design, Hyper, hyperparameters, size_of, term_name

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

    from bayes_hte.spec.model import Model

DEFAULT_NU = 4.0
"""Degrees of freedom of heavy tails unless stated: finite variance, and outliers ten scales away stay believable."""


@dataclass(frozen=True, slots=True)
class Builder:
    """Turns coefficients into PyMC variables, inside a model context.

    Attributes
    ----------
    hyper : mapping
        `structure.hyperparameters` of the model.
    design : Design
    given : callable
        What puts numbers into the model.
    segments : int
    """

    hyper: dict[str, Hyper]
    design: Design
    given: Given
    segments: int

    def hyperparameter(self, name: str) -> "TensorVariable":
        """One variable that segments share."""
        hyper = self.hyper[name]
        return variable(name, hyper.prior, dims=hyper.dims or None, given=self.given)

    def coefficient(
        self,
        asked: Coefficient,
        baseline_offset: "TensorVariable | None" = None,
        evidence: Evidence | None = None,
    ) -> "tuple[TensorVariable, TensorVariable | None]":
        """The coefficient of every segment, and its standard normal offset where it has one."""
        match asked.pooling:
            case "partial":
                return self.partial(asked, baseline_offset, evidence)
            case "none":
                return self.hyperparameter(asked.name), None
            case "complete":
                return self.complete(asked), None

    def partial(
        self, asked: Coefficient, baseline_offset: "TensorVariable | None", evidence: Evidence | None
    ) -> "tuple[TensorVariable, TensorVariable]":
        """Centre + between * offset, offset ~ Normal(0, 1): one row per segment."""
        import pymc as pm

        between = self.hyperparameter(f"{asked.name}_between")
        strata = asked.effect.strata if asked.effect is not None else None
        scale = between if strata is None else between[self.design.index[strata]]
        if strata is not None and scale.ndim < len(asked.dims):
            scale = scale[:, None]  # one SD for all arms
        centre = self.centre(asked, scale, evidence)
        spread, offset = self.spread(asked, centre, scale, baseline_offset, evidence)

        return pm.Deterministic(asked.name, centre + spread, dims=asked.dims), offset

    def centre(self, asked: Coefficient, scale: Any, evidence: Evidence | None) -> Any:
        """What the segment's levels and covariates say of it, and the common mean."""
        import pymc as pm

        name, centre = asked.name, 0.0
        if f"{name}_mean" in self.hyper:
            centre = self.mean(asked, scale, evidence)
        if f"{name}_slope" in self.hyper:
            slope = self.hyperparameter(f"{name}_slope")
            centre = centre + self.given(f"{name}_covariates", self.design.covariates) @ slope
        for term in asked.pool.by:
            variable_name = term_name(name, term)
            dims = (term, *asked.dims[1:])
            between = self.hyperparameter(f"{variable_name}_between")
            offset = pm.Normal(f"{variable_name}_offset", dims=dims)
            level = pm.Deterministic(variable_name, between * offset, dims=dims)
            centre = centre + level[self.design.index[term]]
        return centre

    def mean(self, asked: Coefficient, scale: Any, evidence: Evidence | None) -> "TensorVariable":
        """The common mean; in coordinates that follow the data where segments differ from it in one way only."""
        import pymc as pm

        name, hyper = f"{asked.name}_mean", self.hyper[f"{asked.name}_mean"]
        prior, plain = hyper.prior, not asked.pool.by and f"{asked.name}_slope" not in self.hyper
        horseshoe = asked.effect is not None and asked.effect.shape == "horseshoe"
        if evidence is None or not plain or horseshoe or not isinstance(prior, Normal):
            return self.hyperparameter(name)
        mu, sigma = self.given(f"{name}_mu", prior.mu), self.given(f"{name}_sigma", prior.sigma)
        common = evidence.of_common(scale)
        z = informed.offset(f"{name}_offset", common, mu, sigma, dims=hyper.dims or None)
        return pm.Deterministic(name, mu + sigma * z, dims=hyper.dims or None)

    def standard(
        self, asked: Coefficient, centre: Any, scale: Any, evidence: Evidence | None, nu: Any = None
    ) -> "TensorVariable":
        """An offset of every segment."""
        import pymc as pm

        name = f"{asked.name}_offset"
        if evidence is not None:
            return informed.offset(name, evidence, centre, scale, dims=asked.dims, nu=nu)
        return pm.Normal(name, dims=asked.dims) if nu is None else pm.StudentT(name, nu=nu, dims=asked.dims)

    def spread(
        self,
        asked: Coefficient,
        centre: Any,
        scale: Any,
        baseline_offset: "TensorVariable | None",
        evidence: Evidence | None,
    ) -> "tuple[Any, TensorVariable]":
        """How far every segment is from its centre."""
        import pymc as pm

        name, dims, effect = asked.name, asked.dims, asked.effect
        shape = "normal" if effect is None else effect.shape
        if effect is not None and shape == "student_t":
            nu = self.given(f"{name}_nu", effect.nu or DEFAULT_NU)
            offset = self.standard(asked, centre, scale, evidence, nu)
            return scale * offset, offset
        if effect is not None and shape == "horseshoe":
            local = pm.HalfCauchy(f"{name}_local_offset", beta=1.0, dims=dims)
            slab = self.given(f"{name}_slab", effect.slab)
            wide = scale * local
            scale = pm.Deterministic(f"{name}_local", slab * wide / (slab**2 + wide**2) ** 0.5, dims=dims)
        if f"{name}_correlation" in self.hyper and baseline_offset is not None:
            rho = self.hyperparameter(f"{name}_correlation")
            tied, alone = rho * baseline_offset[:, None], (1 - rho**2) ** 0.5
            offset = tied + alone * self.standard(asked, centre + scale * tied, scale * alone, evidence)
        else:
            offset = self.standard(asked, centre, scale, evidence)
        return scale * offset, offset

    def complete(self, asked: Coefficient) -> "TensorVariable":
        """One value for all segments."""
        import pymc as pm
        import pytensor.tensor as pt

        mean = self.hyperparameter(f"{asked.name}_mean")

        return pm.Deterministic(asked.name, pt.zeros((self.segments, *[1] * len(asked.dims[1:]))) + mean,
                                dims=asked.dims)  # fmt: skip


def builder(model: "Model", design: Design, segments: int, given: Given = constant) -> Builder:
    """For the coefficients of one model."""
    return Builder(hyperparameters(model), design, given, segments)


@dataclass(frozen=True, slots=True)
class PriorDraws:
    """Draws from the prior of a structure, with NumPy; all arrays start with (draw,).

    Attributes
    ----------
    hyper, design, coords
        As in `Builder`, and the labels of every dim.
    draws : int
    rng : numpy.random.Generator
    """

    hyper: dict[str, Hyper]
    design: Design
    coords: dict[str, list[str]]
    draws: int
    rng: np.random.Generator

    def all(self, coefficients: list[Coefficient]) -> dict[str, xr.DataArray]:
        """Every hyperparameter, and every coefficient of every segment; dims (chain, draw, …)."""
        values = {
            name: random(hyper.prior, (self.draws, *self._shape(hyper.dims)), self.rng)
            for name, hyper in self.hyper.items()
        }
        if "cutpoints" in values:
            values["cutpoints"] = np.sort(values["cutpoints"], axis=-1)
        dims = {name: hyper.dims for name, hyper in self.hyper.items()}
        offsets: dict[str, np.ndarray] = {}
        for asked in sorted(coefficients, key=lambda each: len(each.dims)):  # baselines first
            if asked.pooling == "none":
                continue
            values |= self._coefficient(asked, values, offsets)
            dims |= {asked.name: asked.dims} | {
                term_name(asked.name, term): (term, *asked.dims[1:]) for term in asked.pool.by
            }
        return {
            name: xr.DataArray(
                each[None], dims=("chain", "draw", *dims[name]), coords={dim: self.coords[dim] for dim in dims[name]}
            )
            for name, each in values.items()
        }

    def _shape(self, dims: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(size_of((dim,), self.coords) for dim in dims)

    def _coefficient(
        self, asked: Coefficient, values: dict[str, np.ndarray], offsets: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        name, shape = asked.name, self._shape(asked.dims)
        found: dict[str, np.ndarray] = {}
        centre = np.zeros((self.draws, *shape))
        if f"{name}_mean" in values:
            centre = centre + values[f"{name}_mean"][:, None]
        if asked.pooling == "complete":
            return {name: centre}
        if f"{name}_slope" in values:
            centre = centre + np.einsum("sc,dca->dsa", self.design.covariates, values[f"{name}_slope"])
        for term in asked.pool.by:
            variable_name = term_name(name, term)
            level_shape = (len(self.coords[term]), *shape[1:])
            scale = _widened(values[f"{variable_name}_between"], len(level_shape))
            found[variable_name] = scale * self.rng.standard_normal((self.draws, *level_shape))
            centre = centre + found[variable_name][:, self.design.index[term]]
        effect = asked.effect
        between = values[f"{name}_between"]
        if effect is not None and effect.strata:
            between = between[:, self.design.index[effect.strata]]
            between = between if between.ndim == centre.ndim else between[..., None]
        else:
            between = _widened(between, len(shape))
        offset = self.rng.standard_normal((self.draws, *shape))
        offsets[name] = offset
        if effect is not None and effect.shape == "student_t":
            offset = self.rng.standard_t(effect.nu or DEFAULT_NU, offset.shape)
        if effect is not None and effect.shape == "horseshoe" and effect.slab is not None:
            wide = between * np.abs(self.rng.standard_cauchy(offset.shape))
            between = effect.slab * wide / np.hypot(effect.slab, wide)
        if f"{name}_correlation" in values:
            rho, base = values[f"{name}_correlation"][:, None], offsets[name.replace("effect", "baseline")]
            offset = rho * base[..., None] + np.sqrt(1 - rho**2) * offset
        return found | {name: centre + between * offset}


def _widened(between: np.ndarray, ndim: int) -> np.ndarray:
    """A scale of shape (draw,) or (draw, arm) with a segment axis, to be multiplied with (draw, segment[, arm])."""
    return between[:, None] if between.ndim == ndim else between.reshape(len(between), *[1] * ndim)


def prior_draws(
    model: "Model",
    design: Design,
    coords: dict[str, list[str]],
    coefficients: list[Coefficient],
    *,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, xr.DataArray]:
    """Draws from the prior of all parameters of a model; dims (chain, draw, …) with one chain."""
    return PriorDraws(hyperparameters(model), design, coords, draws, rng).all(coefficients)
