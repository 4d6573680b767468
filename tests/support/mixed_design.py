"""Crossed and nested models as one product, and their posterior by brute force where estimates are normal.

Baselines and effects of segments are sums of a mean, slopes, levels and what is left, so that every cell's linear
predictor is

    eta = J (centre + s ∘ z),    z ~ Normal(0, I),    s[j] = an SD that is to be learnt, or that of a prior

with J of 0, 1 and covariates. Nothing here comes from the package: a model is the table of a model file.

Dims: cell, column (of J, and of z), scale (SDs that are learnt), function (what is reported), point (of a grid).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from metropolis_reference import Array, Priors, pack_priors
from numpy.typing import NDArray
from quadrature_oracle import Mixture, grid_of
from scipy import stats

Key = tuple[str, tuple[str, ...]]
"""Name of a variable of the posterior, and its labels in the order of its dims."""


@dataclass(frozen=True)
class Structure:
    """What is known of segments: labels, levels of every dimension, arms with an effect, covariates.

    Attributes
    ----------
    labels : sequence of str
    dimensions : mapping
        Dimension -> level of every segment.
    arms : sequence of str
        Treated arms.
    covariates : mapping
        Name -> value of every segment, not standardised.
    """

    labels: Sequence[str]
    dimensions: Mapping[str, Sequence[str]]
    arms: Sequence[str]
    covariates: Mapping[str, Array]


@dataclass(frozen=True)
class MixedDesign:
    """A model as J, centre and s; cells are segments × arms, the control first, segments outermost."""

    cells: Array
    """J, (cell, column)."""
    functions: Array
    """The same of what is reported, (function, column)."""
    centre: Array
    """(column,)"""
    scale_index: NDArray[np.intp]
    """Of every column's SD, -1 where it is fixed, (column,)."""
    fixed_scale: Array
    """(column,)"""
    keys: list[Key]
    """Of functions."""
    scale_keys: list[Key]
    scale_priors: list[dict[str, Any]]

    @property
    def log_prior(self) -> Priors:
        """Of log SDs, with the scale as outermost dim."""
        unused = {"dist": "Normal", "mu": 0.0, "sigma": 1.0}
        return pack_priors([(unused, prior) for prior in self.scale_priors])

    def scale_columns(self, sds: Array) -> Array:
        """s of every column, (…, column), from SDs (…, scale)."""
        padded = np.concatenate([sds, np.ones((*sds.shape[:-1], 1))], axis=-1)
        return np.asarray(np.where(self.scale_index >= 0, padded[..., self.scale_index], self.fixed_scale))


class _Collector:
    """Columns of every coefficient, collected one by one."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.blocks: list[tuple[str, int, Array]] = []  # coefficient, arm, (segment, column)
        self.index: list[int] = []
        self.fixed: list[float] = []
        self.centre: list[float] = []
        self.unit_keys: list[tuple[Key, int]] = []
        self.scale_keys: list[Key] = []
        self.priors: list[dict[str, Any]] = []

    def add_block(self, where: tuple[str, int], z: Array, *, scale: int = -1, sd: float = 1.0, mu: float = 0.0) -> None:
        self.blocks.append((*where, z))
        self.index += [scale] * z.shape[1]
        self.fixed += [sd] * z.shape[1]
        self.centre += [mu] * z.shape[1]

    def find_scale(self, key: Key, prior: dict[str, Any]) -> int:
        if key not in self.scale_keys:
            self.scale_keys.append(key)
            self.priors.append(prior)
        return self.scale_keys.index(key)

    def add_coefficient(self, name: str, arm: int, priors: Mapping[str, Any]) -> None:
        structure, ones = self.structure, np.ones((len(self.structure.labels), 1))
        of_arm = () if name == "baseline" else (structure.arms[arm],)
        of_scale = () if priors.get("shared_between") else of_arm
        where = (name, arm)
        self.unit_keys.append(((f"{name}_mean", of_arm), len(self.index)))
        self.add_block(where, ones, sd=priors["mean"]["sigma"], mu=priors["mean"].get("mu", 0.0))
        for covariate in priors.get("covariates", ()):
            x = np.asarray(structure.covariates[covariate], dtype=float)
            self.unit_keys.append(((f"{name}_slope", (covariate, *of_arm)), len(self.index)))
            slope = priors["slope"]
            z = ((x - x.mean()) / x.std(ddof=1))[:, None]
            self.add_block(where, z, sd=slope["sigma"], mu=slope.get("mu", 0.0))
        for term in priors.get("by", ()):
            variable = f"{name}_{term.replace(':', '_')}"
            of_segment = [" | ".join(each) for each in zip(*(structure.dimensions[d] for d in term.split(":")),
                                                           strict=True)]  # fmt: skip
            levels = list(dict.fromkeys(of_segment))
            scale = self.find_scale((f"{variable}_between", of_scale), priors.get("by_between") or priors["between"])
            for place, level in enumerate(levels):
                self.unit_keys.append(((variable, (level, *of_arm)), len(self.index) + place))
            self.add_block(where, np.array([[float(each == level) for level in levels] for each in of_segment]),
                           scale=scale)  # fmt: skip
        self.add_block(
            where, np.eye(len(ones)), scale=self.find_scale((f"{name}_between", of_scale), priors["between"])
        )

    def spread(self, name: str, arm: int) -> Array:
        """One coefficient of all segments, (segment, column)."""
        return np.concatenate(
            [z if (each, at) == (name, arm) else np.zeros(z.shape) for each, at, z in self.blocks], axis=1
        )


def build_design(spec: Mapping[str, Any], structure: Structure) -> MixedDesign:
    """Write a model down as one product; `spec` is the table of a model file, with dimensions by name."""
    collector, arms = _Collector(structure), range(len(structure.arms))
    has_baseline = "baseline" in spec
    if has_baseline:
        collector.add_coefficient("baseline", 0, spec["baseline"])
    for arm in arms:
        collector.add_coefficient("effect", arm, spec["effect"])
    effects = [collector.spread("effect", arm) for arm in arms]
    keys: list[Key] = [("effect", (label, arm)) for arm in structure.arms for label in structure.labels]
    functions = list(effects)
    cells = effects
    if has_baseline:
        baseline = collector.spread("baseline", 0)
        cells = [baseline, *(baseline + effect for effect in effects)]
        keys += [("baseline", (label,)) for label in structure.labels]
        functions.append(baseline)
    units = np.eye(len(collector.index))[[place for _, place in collector.unit_keys]]
    return MixedDesign(
        np.stack(cells, axis=1).reshape(-1, len(collector.index)), np.concatenate([*functions, units]),
        np.array(collector.centre), np.array(collector.index), np.array(collector.fixed),
        keys + [key for key, _ in collector.unit_keys], collector.scale_keys, collector.priors,
    )  # fmt: skip


def integrate_over_scales(
    design: MixedDesign, y: Array, se: Array, points: int, *, chunk: int = 2000
) -> tuple[Mixture, Array]:
    """Posterior of the functions given normal estimates, exactly but for the grid; and the SDs at its points.

    The grid is Gauss and Legendre's on the prior probabilities of every SD; cells without data have infinite `se`.
    """
    laws = [stats.halfnorm(scale=prior["sigma"]) for prior in design.scale_priors]
    values, prior = grid_of(laws, points)
    sds, seen = np.stack(values, axis=-1), np.isfinite(se)
    parts = [condition_on_scales(design, y, se, seen, sds[at : at + chunk]) for at in range(0, len(sds), chunk)]
    log_likelihood, mean, variance = (np.concatenate(each) for each in zip(*parts, strict=True))
    weights = prior * np.exp(log_likelihood - log_likelihood.max())
    return Mixture(weights / weights.sum(), mean, variance), sds


def condition_on_scales(
    design: MixedDesign, y: Array, se: Array, seen: NDArray[np.bool_], sds: Array
) -> tuple[Array, Array, Array]:
    """Marginal log likelihood (point,), mean and variance of the functions (point, function), given SDs."""
    s = design.scale_columns(sds)
    forward = design.cells[seen] * s[:, None, :]  # (point, cell, column)
    covariance = forward @ forward.transpose(0, 2, 1) + np.diag(se[seen] ** 2)
    residual = y[seen] - design.cells[seen] @ design.centre
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, np.concatenate([np.broadcast_to(residual[:, None], (len(s), len(residual), 1)),
                                                  forward], axis=-1))  # fmt: skip
    log = -0.5 * (white[..., 0] ** 2).sum(-1) - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(-1)
    after = np.einsum("pyz,py->pz", white[..., 1:], white[..., 0])
    scaled = design.functions * s[:, None, :]
    mean = design.functions @ design.centre + np.einsum("pfz,pz->pf", scaled, after)
    gain = scaled @ white[..., 1:].transpose(0, 2, 1)  # (point, function, cell)
    variance = (scaled**2).sum(-1) - (gain**2).sum(-1)
    return log, mean, np.maximum(variance, 0.0)
