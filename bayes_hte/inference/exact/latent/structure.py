"""Lay out a model as a Gaussian: coordinates u of what scales and shapes it, columns of means, slopes and levels.

u                what is not Gaussian given the rest: between-segment SDs, correlations, nuisance parameters
v ~ N(0, I)      means, slopes and effects of levels, in units of their SDs
z ~ N(0, I)      offsets of segments

coefficient_c[s] = location_c + Σ_columns design_c[s, column] scale[column](u) v[column] + SD_c(u) z_c[s]
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bayes_hte.model.normal_scores import Array, compute_value_of_score
from bayes_hte.model.parameters import (
    Coefficient,
    HyperparameterSpec,
    collect_hyperparameters,
    count_values,
    list_coefficients,
    name_term_variable,
)
from bayes_hte.model.priors import compute_log_prior
from bayes_hte.model.problem import Problem
from bayes_hte.spec.distributions import Cauchy, Distribution, InverseGamma, Normal, StudentT

DENSE_SHARE = 0.12
"""Share of entries that are not 0 from which a plain product is faster than a sparse one."""
type Matrix = Array | sp.csr_array
type NaturalValues = Mapping[str, Array]
"""Hyperparameters in their own units by name: (row, entry)."""


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One coordinate u of a point: an entry of a hyperparameter, as the normal score of its prior.

    Of values in ascending order all but the first are the logarithm of the distance from the one before.
    """

    name: str
    position: int
    prior: Distribution
    is_gap: bool = False
    is_ordered: bool = False

    @property
    def is_scale(self) -> bool:
        """Whether the coordinate is a standard deviation, whose posterior may have two peaks."""
        return self.name.endswith(("_between", "_mixing"))


@dataclass(frozen=True, slots=True)
class ColumnScales:
    """Scale of every column: a fixed number, times values of hyperparameters for some.

    Attributes
    ----------
    fixed : ndarray
        (column,).
    sources : tuple
        (hyperparameter, position, columns, power): its values, to that power, multiply these columns.
    """

    fixed: Array
    sources: tuple[tuple[str, int, NDArray[np.intp], float], ...]

    def evaluate(self, natural: NaturalValues, rows: int) -> Array:
        """Evaluate the scales at points: (row, column)."""
        scales = np.repeat(self.fixed[np.newaxis], rows, axis=0)
        for name, position, columns, power in self.sources:
            scales[:, columns] *= natural[name][:, position, np.newaxis] ** power
        return scales


@dataclass(frozen=True, slots=True)
class CoefficientLayout:
    """A coefficient of one arm: what it is named, its columns, and where they stand among all.

    Attributes
    ----------
    coefficient : Coefficient
    arm : int
        Of the effect; 0 for a baseline.
    location : ndarray
        (segment,): what prior means put it at.
    columns : ndarray
        Positions of its columns among those of all coefficients.
    design : ndarray
        (segment, column).
    """

    coefficient: Coefficient
    arm: int
    location: Array
    columns: NDArray[np.intp]
    design: Array


@dataclass(frozen=True, slots=True)
class ColumnPairs:
    """Products of the columns of two coefficients, (segment, pair): they carry precisions of segments to columns."""

    first: int
    second: int
    products: Matrix

    def gather(self, segment_values: Array) -> Array:
        """Sum segments' values (segment, row) times products over segments: (pair, row)."""
        return np.asarray(self.products.T @ segment_values)

    def spread(self, pair_values: Array) -> Array:
        """Sum pairs' values (pair, row) times products over pairs: (segment, row)."""
        return np.asarray(self.products @ pair_values)


@dataclass(frozen=True, slots=True)
class Structure:
    """The layout of a problem.

    Attributes
    ----------
    coordinates : tuple of Coordinate
    sizes : mapping
        Entries of every hyperparameter that is computed from a point or drawn with the columns.
    fixed : mapping
        (name, position) -> value, of hyperparameters that are conditioned on.
    ordered_name : str or None
        The hyperparameter whose entries ascend.
    layouts : tuple of CoefficientLayout
        The baseline first, if there is one; then the effect of every treated arm.
    scales : ColumnScales
    pairs : tuple of ColumnPairs
        Of every two coefficients, the first not after the second.
    column_names : tuple
        (hyperparameter or level variable, position) of every column, and its location.
    """

    coordinates: tuple[Coordinate, ...]
    sizes: Mapping[str, int]
    fixed: Mapping[tuple[str, int], float]
    ordered_name: str | None
    layouts: tuple[CoefficientLayout, ...]
    scales: ColumnScales
    pairs: tuple[ColumnPairs, ...]
    column_names: tuple[tuple[str, int, float], ...]
    has_baseline: bool
    segment_count: int
    strata_index: NDArray[np.intp] | None
    nuisance_name: str | None = None

    @property
    def column_count(self) -> int:
        """Number of columns of all coefficients."""
        return len(self.column_names)

    def compute_natural(self, points: Array) -> dict[str, Array]:
        """Compute hyperparameters in their own units at points (row, coordinate)."""
        natural = {name: np.empty((len(points), size)) for name, size in self.sizes.items()}
        for column, each in enumerate(self.coordinates):
            values = points[:, column]
            natural[each.name][:, each.position] = (
                np.exp(np.clip(values, -700.0, 700.0)) if each.is_gap else compute_value_of_score(each.prior, values)
            )
        for (name, position), value in self.fixed.items():
            natural[name][:, position] = value
        if self.ordered_name is not None:
            np.cumsum(natural[self.ordered_name], axis=1, out=natural[self.ordered_name])
        return natural

    def compute_log_prior(self, points: Array) -> Array:
        """Compute the log prior density of points: normal, but for values in order."""
        scores = [column for column, each in enumerate(self.coordinates) if not each.is_ordered]
        log_prior: Array = -0.5 * (points[:, scores] ** 2).sum(1) - 0.5 * len(scores) * np.log(2 * np.pi)
        ordered = [column for column, each in enumerate(self.coordinates) if each.is_ordered]
        if ordered and self.ordered_name is not None:
            # Every value has its prior apart from the order; a gap is e^u, and the first a normal score:
            # log p(first) |d first / du| = log N(u)
            prior = self.coordinates[ordered[0]].prior
            values = self.compute_natural(points)[self.ordered_name]
            log_prior -= 0.5 * points[:, ordered[0]] ** 2 + 0.5 * np.log(2 * np.pi)
            log_prior += compute_log_prior(prior, values[:, 1:]).sum(1) + points[:, ordered[1:]].sum(1)
        return log_prior


@dataclass(slots=True)
class _LayoutBuilder:
    """Collects coordinates and columns while the coefficients of a problem are gone through."""

    problem: Problem
    hyperparameters: Mapping[str, HyperparameterSpec]
    fixed: Mapping[tuple[str, int], float]
    coordinates: list[Coordinate]
    sizes: dict[str, int]
    column_names: list[tuple[str, int, float]]
    fixed_scales: list[float]
    scale_sources: list[tuple[str, int, NDArray[np.intp], float]]

    def add_hyperparameter(self, name: str) -> None:
        """Add every entry of a hyperparameter as a coordinate, unless it is conditioned on."""
        if name in self.sizes:
            return
        spec = self.hyperparameters[name]
        self.sizes[name] = count_values(spec.dims, self.problem.coords)
        for position in range(self.sizes[name]):
            if (name, position) not in self.fixed:
                is_gap = spec.is_ordered and position > 0
                self.coordinates.append(Coordinate(name, position, spec.prior, is_gap, spec.is_ordered))

    def add_column(self, name: str, position: int, location: float, scale: float) -> int:
        """Add a column with a fixed scale; return its position."""
        self.column_names.append((name, position, location))
        self.fixed_scales.append(scale)
        return len(self.column_names) - 1

    def add_normal_column(self, name: str, position: int, prior: Distribution) -> int:
        """Add the column of a mean or slope whose prior is normal, or a normal of random scale."""
        if isinstance(prior, Normal):
            return self.add_column(name, position, prior.mu, prior.sigma)
        if not isinstance(prior, StudentT | Cauchy):
            raise AssertionError(f"{name} has a prior that is no mixture of normals: {prior.dist}")
        # t = σ √λ z,  λ ~ InverseGamma(ν / 2, ν / 2)
        column = self.add_column(name, position, prior.mu, prior.sigma)
        mixing_name = f"{name}_mixing"
        self.sizes[mixing_name] = max(self.sizes.get(mixing_name, 0), position + 1)
        mixing_prior = InverseGamma(alpha=prior.nu / 2, beta=prior.nu / 2)
        self.coordinates.append(Coordinate(mixing_name, position, mixing_prior))
        self.scale_sources.append((mixing_name, position, np.array([column]), 0.5))
        return column


def build_structure(problem: Problem, fixed: Mapping[tuple[str, int], float] | None = None) -> Structure:
    """Lay out a problem; hyperparameters in `fixed` are conditioned on, by (name, position)."""
    hyperparameters = collect_hyperparameters(problem.model)
    builder = _LayoutBuilder(problem, hyperparameters, fixed or {}, [], {}, [], [], [])
    coefficients = {each.name: each for each in list_coefficients(problem.model)}
    layouts = []
    if "baseline" in coefficients:
        layouts.append(_lay_out_coefficient(builder, coefficients["baseline"], 0))
    layouts += [_lay_out_coefficient(builder, coefficients["effect"], arm) for arm in range(len(problem.coords["arm"]))]
    likelihood = problem.family.checked_cell_likelihood
    if likelihood.nuisance_name is not None:
        builder.add_hyperparameter(likelihood.nuisance_name)
    ordered_name = next((name for name, spec in hyperparameters.items() if spec.is_ordered), None)
    strata = coefficients["effect"].strata
    return Structure(
        coordinates=tuple(builder.coordinates),
        sizes=builder.sizes,
        fixed=dict(fixed or {}),
        ordered_name=ordered_name,
        layouts=tuple(layouts),
        scales=ColumnScales(np.array(builder.fixed_scales), tuple(builder.scale_sources)),
        pairs=_pair_columns(layouts),
        column_names=tuple(builder.column_names),
        has_baseline="baseline" in coefficients,
        segment_count=len(problem.coords["segment"]),
        strata_index=None if strata is None else problem.segment_design.level_index[strata],
        nuisance_name=likelihood.nuisance_name,
    )


def _lay_out_coefficient(builder: _LayoutBuilder, coefficient: Coefficient, arm: int) -> CoefficientLayout:
    """Lay out one coefficient of one arm: its mean, its slopes, the levels of its dimensions."""
    design, pool, name = builder.problem.segment_design, coefficient.pool_priors, coefficient.name
    segment_count = len(builder.problem.coords["segment"])
    arm_count = len(builder.problem.coords["arm"]) if len(coefficient.dims) > 1 else 1
    if coefficient.pooling == "none":
        if not isinstance(pool.mean, Normal):
            raise AssertionError("an unpooled coefficient under this prior is not Gaussian")
        location = np.full(segment_count, pool.mean.mu)
        return CoefficientLayout(coefficient, arm, location, np.empty(0, np.intp), np.empty((segment_count, 0)))
    columns: list[int] = []
    blocks: list[Array] = []
    if pool.mean is not None:
        columns.append(builder.add_normal_column(f"{name}_mean", arm, pool.mean))
        blocks.append(np.ones((segment_count, 1)))
    if coefficient.pooling == "partial":
        scale_position = 0 if _shares_between(coefficient) else arm
        builder.add_hyperparameter(f"{name}_between")
        effect_priors = coefficient.effect_priors
        if effect_priors is not None and effect_priors.slope is not None:
            for covariate in range(design.standardised_covariates.shape[1]):
                position = covariate * arm_count + arm
                columns.append(builder.add_normal_column(f"{name}_slope", position, effect_priors.slope))
            blocks.append(design.standardised_covariates)
        if effect_priors is not None and effect_priors.correlation is not None:
            builder.add_hyperparameter(f"{name}_correlation")
        for term in pool.by:
            term_name = name_term_variable(name, term)
            builder.add_hyperparameter(f"{term_name}_between")
            levels = len(design.level_labels[term])
            level_columns = [
                builder.add_column(term_name, level * arm_count + arm, 0.0, 1.0) for level in range(levels)
            ]
            builder.scale_sources.append((f"{term_name}_between", scale_position, np.array(level_columns), 1.0))
            columns += level_columns
            blocks.append((design.level_index[term][:, np.newaxis] == np.arange(levels)).astype(float))
    matrix = np.concatenate(blocks, axis=1) if blocks else np.empty((segment_count, 0))
    location = matrix @ np.array([builder.column_names[column][2] for column in columns])
    return CoefficientLayout(coefficient, arm, location, np.array(columns, dtype=np.intp), matrix)


def _shares_between(coefficient: Coefficient) -> bool:
    return coefficient.effect_priors is not None and coefficient.effect_priors.shared_between


def _pair_columns(layouts: list[CoefficientLayout]) -> tuple[ColumnPairs, ...]:
    """Multiply the columns of every two coefficients, segment by segment."""
    pairs = []
    products_of: dict[tuple[bytes, bytes], Matrix] = {}
    for second, later in enumerate(layouts):
        for first, earlier in enumerate(layouts[: second + 1]):
            key = (earlier.design.tobytes(), later.design.tobytes())
            if key not in products_of:
                products_of[key] = _multiply_columns(earlier.design, later.design)
            pairs.append(ColumnPairs(first, second, products_of[key]))
    return tuple(pairs)


def _multiply_columns(first: Array, second: Array) -> Matrix:
    rows, share = len(first), np.mean(first != 0) * np.mean(second != 0) if first.size and second.size else 1.0
    if share >= DENSE_SHARE:
        return np.ascontiguousarray(
            (first[:, :, np.newaxis] * second[:, np.newaxis, :]).reshape(rows, first.shape[1] * second.shape[1])
        )
    # Row by row Kronecker product of sparse designs, which would not fit into memory as a plain one.
    left, right = sp.csr_array(first), sp.csr_array(second)
    return sp.csr_array(sp.vstack([sp.kron(left[[row]], right[[row]], format="csr") for row in range(rows)]))


def find_unsupported_reason(problem: Problem) -> str | None:
    """Find the reason why a problem is not Gaussian given a few coordinates, as a clause; None if it is."""
    if "covariance" in problem.cell_statistics:
        return "estimates have a covariance matrix"
    for coefficient in list_coefficients(problem.model):
        pool = coefficient.pool_priors
        if coefficient.shape != "normal":
            return f"effects have the shape {coefficient.shape}"
        if coefficient.pooling == "none" and not isinstance(pool.mean, Normal):
            return (
                f"an unpooled {coefficient.name} has a prior {pool.mean.dist if pool.mean else ''} that is not Normal"
            )
        stated = [pool.mean, coefficient.effect_priors.slope if coefficient.effect_priors is not None else None]
        for prior in stated:
            if prior is not None and not isinstance(prior, Normal | StudentT | Cauchy):
                return f"the prior {prior.dist} of a mean or slope is no mixture of normals"
    return None
