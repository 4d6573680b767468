"""Draw cells whose units are clusters, or whose means are adjusted for a covariate: moments of columns, without rows.

clusters      totals of clusters of m units with intra-cluster correlation rho. Of measurements they are normal with the
              variance sd² (m² rho + m (1 − rho)); of 0 and 1 they are binomial with a probability of their own, beta
              distributed, so that two units of a cluster have the correlation rho.
covariate     x = r (y − mean) / sd + √(1 − r²) e, e ~ Normal(0, 1), on the scale of the control's outcome. Given the
              moments of y those of x are drawn exactly:
              S_xy | S_yy ~ Normal(r' S_yy, s² S_yy)     S_xx = S_xy² / S_yy + s² χ²(n − 2),     r', s in units of x
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_hte.cells.build import CellCoords
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.simulation.drawing.unit_ties import draw_cluster_parameters
from bayes_hte.cells.simulation.outcomes.binary import BinaryLaw
from bayes_hte.cells.simulation.outcomes.gaussian import GaussianLaw
from bayes_hte.cells.simulation.outcomes.law import CountGrid, DrawnValues, FloatGrid, LawParameters, OutcomeLaw
from bayes_hte.cells.simulation.outcomes.unit_sums import sum_units
from bayes_hte.cells.simulation.stated.unit_structure import COVARIATE_COLUMN, UnitStructure
from bayes_hte.cells.units.adjusted_means import (
    AdjustmentRecipe,
    build_column_coords,
    build_recipe,
    measure_sizes,
    solve_adjusted_means,
)
from bayes_hte.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class ColumnMoments:
    """Moments of the columns that adjusted means are made of, over the units of analysis of each cell.

    Attributes
    ----------
    n : array
        Units of analysis, (experiment, day, segment, arm).
    means : array
        (…, column).
    products : array
        Sums of products of deviations, (…, column, column).
    """

    n: CountGrid
    means: FloatGrid
    products: FloatGrid


def plan_recipe(structure: UnitStructure) -> AdjustmentRecipe:
    """Plan how adjusted means follow from columns, as `from_rows` would for the same rows."""
    return build_recipe(
        denominator=None,
        weights=None,
        cluster=structure.cluster_column,
        cuped=[] if structure.pre_correlation is None else [COVARIATE_COLUMN],
    )


def draw_column_moments(
    law: OutcomeLaw, n: CountGrid, parameters: LawParameters, structure: UnitStructure, rng: np.random.Generator
) -> ColumnMoments:
    """Draw the moments of the columns of every cell; n counts clusters where there are any.

    Raises
    ------
    ArgumentError
        If the outcome is neither 0 and 1 nor a measurement, or there are clusters and a covariate at once.
    """
    if not isinstance(law, BinaryLaw | GaussianLaw):
        raise ArgumentError(
            "cells of clusters, or with a covariate, are means: they are drawn for the families binomial, normal and "
            "mean; choose one of these, or leave cluster_size and pre_correlation out"
        )
    # Totals of clusters and of their covariates would be correlated by a second icc, which nobody has stated.
    if structure.cluster_size is not None:
        if structure.pre_correlation is not None:
            raise ArgumentError("cells of clusters are drawn without a covariate; draw rows=True for both at once")
        return _draw_cluster_moments(law, n, parameters, structure, rng)
    return _draw_covariate_moments(law, n, parameters, float(structure.pre_correlation or 0.0), rng)


def _draw_cluster_moments(
    law: OutcomeLaw, n: CountGrid, parameters: LawParameters, structure: UnitStructure, rng: np.random.Generator
) -> ColumnMoments:
    size = int(structure.cluster_size or 1)
    if isinstance(law, GaussianLaw):
        # Var of a total = sd² (m² rho + m (1 − rho))
        inflation = np.sqrt(size**2 * structure.icc + size * (1 - structure.icc))
        totals = {"mean": size * parameters["mean"], "sd": inflation * parameters["sd"]}
        drawn = law.draw_statistics(n, totals, rng)
        mean, ss = np.nan_to_num(drawn["mean"]), drawn["ss"]
    else:
        probability = np.broadcast_to(parameters["mean"], n.shape).ravel()

        def draw_totals(cell_of_cluster: NDArray[np.intp]) -> NDArray[np.float64]:
            own = draw_cluster_parameters(law, {"mean": probability[cell_of_cluster]}, structure.icc, rng)
            totals = rng.binomial(size, own["mean"]).astype(np.float64)
            return np.stack([totals, totals**2], axis=-1)

        sums = sum_units(n.ravel(), draw_totals).reshape(*n.shape, 2)
        mean = sums[..., 0] / np.maximum(n, 1)
        ss = np.maximum(sums[..., 1] - n * mean**2, 0.0)
    # The second column, rows in a cluster, is m everywhere: it does not vary.
    products = np.zeros((*n.shape, 2, 2))
    products[..., 0, 0] = ss
    return ColumnMoments(n, np.stack([mean, np.where(n > 0, float(size), 0.0)], axis=-1), products)


def _draw_covariate_moments(
    law: OutcomeLaw, n: CountGrid, parameters: LawParameters, correlation: float, rng: np.random.Generator
) -> ColumnMoments:
    drawn = law.draw_statistics(n, parameters, rng)
    some = np.maximum(n, 1)
    if isinstance(law, BinaryLaw):
        mean = drawn["events"] / some
        ss = n * mean * (1 - mean)
    else:
        mean, ss = np.nan_to_num(drawn["mean"]), drawn["ss"]
    unit_sd = law.find_unit_sd(parameters)
    control_mean, control_sd = parameters["mean"][..., :1], unit_sd[..., :1]
    slope = correlation * control_sd / unit_sd
    left_sd = np.sqrt(1 - correlation**2) * control_sd
    # x̄ = mean of the control + slope (ȳ − mean) + noise;   S_xy = slope S_yy + noise √S_yy
    pre_mean = (
        control_mean + slope * (mean - parameters["mean"]) + left_sd / np.sqrt(some) * rng.standard_normal(n.shape)
    )
    cross = slope * ss + left_sd * np.sqrt(ss) * rng.standard_normal(n.shape)
    # A cell in which y does not vary says nothing of S_xy: then S_xx has a degree of freedom more.
    varies = ss > 0
    freedom = np.where(varies, n - 2, n - 1)
    chi_squared = np.where(freedom > 0, rng.chisquare(np.maximum(freedom, 1)), 0.0)
    pre_ss = np.where(varies, cross**2 / np.where(varies, ss, 1.0), 0.0) + left_sd**2 * chi_squared
    # Columns y, the covariate, and the indicator that it is missing, which is 0.
    products = np.zeros((*n.shape, 3, 3))
    products[..., 0, 0], products[..., 1, 1] = ss, pre_ss
    products[..., 0, 1] = products[..., 1, 0] = cross
    means = np.stack([mean, pre_mean, np.zeros(n.shape)], axis=-1)
    return ColumnMoments(n, np.where((n > 0)[..., None], means, 0.0), products)


def pool_column_days(moments: ColumnMoments) -> ColumnMoments:
    """Pool the moments of all days: n and products of deviations from the pooled mean, by Chan's formula."""
    n = moments.n.sum(axis=1)
    weights = moments.n[..., None]
    means = (weights * moments.means).sum(axis=1) / np.maximum(n, 1)[..., None]
    shift = np.where(weights > 0, moments.means - means[:, None], 0.0)
    between_days = (weights[..., None] * shift[..., :, None] * shift[..., None, :]).sum(axis=1)
    return ColumnMoments(n, means, moments.products.sum(axis=1) + between_days)


def solve_cells(
    moments: ColumnMoments, recipe: AdjustmentRecipe, cell_keys: Sequence[CellKey], structure: UnitStructure
) -> DrawnValues:
    """Solve for the adjusted means of every table: each has coefficients of its own, as a table of rows has."""
    table_shape, grid_shape = moments.n.shape[:-2], moments.n.shape[-2:]
    tables = [_solve_table(moments, place, recipe, cell_keys, structure) for place in np.ndindex(table_shape)]
    return {
        name: np.stack([table[name] for table in tables]).reshape(*table_shape, *grid_shape, *tables[0][name].shape[1:])
        for name in tables[0]
    }


def _solve_table(
    moments: ColumnMoments,
    place: tuple[int, ...],
    recipe: AdjustmentRecipe,
    cell_keys: Sequence[CellKey],
    structure: UnitStructure,
) -> DrawnValues:
    column_count = len(recipe.column_names)
    columns = {
        "n": moments.n[place].ravel(),
        "column_mean": moments.means[place].reshape(-1, column_count),
        "column_ss": moments.products[place].reshape(-1, column_count, column_count),
    }
    # The same variables as `from_rows` gives of such rows, so that tables merge and models read them.
    cell_sizes = measure_sizes(columns, recipe)
    cluster_rows = {} if structure.cluster_size is None else {"n_rows": columns["n"] * structure.cluster_size}
    sizes = {} if cell_sizes is None else {"cell_size": cell_sizes}
    return {**columns, **solve_adjusted_means(cell_keys, columns, recipe), **sizes, **cluster_rows}


def label_columns(recipe: AdjustmentRecipe) -> CellCoords:
    """Label the columns of a recipe."""
    return build_column_coords(recipe)
