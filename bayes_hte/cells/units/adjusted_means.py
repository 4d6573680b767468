"""Means that are adjusted, ratios, weighted or of clusters: all of them are ratios of means of columns.

With columns v (1 … p) of units of analysis, a cell has n, the means m and the sums of products S of deviations. A
metric is R = m_y / m_d, where y is a numerator and d a denominator column (or 1). To first order R - E R is the mean of

    z = (y - R d) / m_d                                    (the delta method; Deng, Knoblich & Lu 2018)

    mean              y is the outcome, d is 1
    ratio             d is the denominator
    weights w         w·outcome over w, or over w·denominator
    clusters          the same columns, added up over the rows of a cluster; d is at least their number

so that var R = z'S z / (n (n - 1)). CUPED takes theta·(X - X̄) from R for every pre-period covariate, whose mean X is
such a ratio itself; X̄ is the mean of the segment over its arms, so that means keep their meaning. By how much they
exceed those at the mean of all units is stored beside: a model that pools baselines compares segments at equal X̄.
theta = (Σ S_xx)⁻¹ Σ S_xz, summed over all cells, is what least squares with one intercept per cell gives.

References
----------
Deng, Xu, Kohavi & Walker 2013, Improving the sensitivity of online controlled experiments by utilizing pre-experiment
data, WSDM. Deng, Knoblich & Lu 2018, Applying the delta method in metric analytics, KDD.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.build import CellCoords, CellValues, pool_groups
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, CellKey, SegmentLevels
from bayes_hte.cells.units.group_by import GroupedUnits
from bayes_hte.cells.units.scan.unit_rows import UnitRows
from bayes_hte.cells.units.statistics import CountColumn, FloatColumn, StatisticsQuery
from bayes_hte.errors import DataError
from bayes_hte.spec.cell_table import INPUT_COLUMN, LARGEST_CELL_NUMBER, OTHER_INPUT_COLUMN

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type ColumnRatio = tuple[str, str | None]
"""Numerator and denominator column; without the latter it is the plain mean."""

MIN_EIGENVALUE_RATIO = 1e-10
"""Eigenvalues of the covariates' correlations below this, relative to the largest, are rounding: they are left out."""

SIZE_RTOL = 1e-12
"""Rounding error of a mean times its number of units, relative to the sum."""


@dataclass(frozen=True, slots=True)
class AdjustmentRecipe:
    """The ratios of columns from which an adjusted mean is computed."""

    outcome_ratio: ColumnRatio
    covariate_ratios: tuple[ColumnRatio, ...] = ()
    source_columns: str = ""  # in words: means of other columns of the data do not merge

    @property
    def column_names(self) -> list[str]:
        """Columns of all ratios, each once."""
        return list(
            dict.fromkeys(name for ratio in (self.outcome_ratio, *self.covariate_ratios) for name in ratio if name)
        )

    def to_json(self) -> str:
        """Write the recipe as an attribute of the cell table."""
        return json.dumps(
            {"outcome": self.outcome_ratio, "covariates": self.covariate_ratios, "made_of": self.source_columns}
        )

    @classmethod
    def from_json(cls, json_text: str) -> "AdjustmentRecipe":
        """Read a recipe from the attribute of a cell table."""
        stored_fields = json.loads(json_text)
        return cls(
            tuple(stored_fields["outcome"]), tuple(map(tuple, stored_fields["covariates"])), stored_fields["made_of"]
        )


def build_recipe(
    *, denominator: str | None, weights: str | None, cluster: str | None, cuped: Sequence[str]
) -> AdjustmentRecipe:
    """Build the recipe of a metric from the names of columns, of which those of `cuped` were measured before treatment.

    Each covariate x comes with a column m that is 1 where the covariate is missing: a second covariate.
    """
    size_column = None if weights is None and cluster is None else "w"
    covariate_ratios = [(f"{prefix}{j}", size_column) for j in range(len(cuped)) for prefix in ("x", "m")]
    described_columns = {
        "ratio": denominator,
        "weights": weights,
        "clusters": cluster,
        "CUPED": ", ".join(cuped) or None,
    }
    source_columns = "; ".join(f"{role}: {column}" for role, column in described_columns.items() if column is not None)
    return AdjustmentRecipe(("y", size_column if denominator is None else "d"), tuple(covariate_ratios), source_columns)


def build_query(
    recipe: AdjustmentRecipe, name_column: Callable[[str], str], *, weight: int | None, denominator: int | None
) -> StatisticsQuery:
    """Build the query for the moments of every column of a recipe, and for the products of every two.

    Parameters
    ----------
    recipe
        Ratios of columns.
    name_column
        How the rows name the columns of `UnitRows`, and those of the recipe.
    weight, denominator
        Positions of these among the numbers of a unit: i of the column yi.
    """
    import narwhals.stable.v2 as nw

    outcome = nw.col(name_column("y0"))
    has_outcome = ~outcome.is_null()
    unit_weight = nw.when(has_outcome).then(1.0)
    weight_values: nw.Expr = unit_weight if weight is None else nw.col(name_column(f"y{weight}"))

    def multiply_by_weight(column: "nw.Expr") -> "nw.Expr":
        return column if weight is None else column * weight_values

    column_expressions = {"y": multiply_by_weight(outcome), "w": weight_values}
    if denominator is not None:
        column_expressions["d"] = multiply_by_weight(nw.col(name_column(f"y{denominator}")))
    for name, _ in recipe.covariate_ratios:
        covariate_value = nw.col(name_column(f"p{name[1:]}"))
        # A missing covariate is 0, and its indicator 1: least squares then gives these units a mean of their own.
        filled_value = nw.when(covariate_value.is_null()).then(0.0).otherwise(covariate_value)
        missing_indicator = nw.when(covariate_value.is_null()).then(1.0).otherwise(0.0)
        column_expressions[name] = nw.when(has_outcome).then(
            multiply_by_weight(filled_value if name.startswith("x") else missing_indicator)
        )
    named_columns = {column: name_column(column) for column in recipe.column_names}
    derived_columns = {name: column_expressions[column] for column, name in named_columns.items()}
    count_columns = []
    if weight is not None:
        count_columns = [name_column("negative")]
        derived_columns[count_columns[0]] = nw.when(weight_values < 0).then(weight_values)
    return StatisticsQuery(
        derived_columns,
        count_columns,
        moment_columns=list(named_columns.values()),
        product_pairs=list(combinations(named_columns.values(), 2)),
    )


def collect_columns(groups: GroupedUnits, recipe: AdjustmentRecipe) -> dict[str, CellValues]:
    """Collect n, and the means and sums of products of the columns, from the answer of the engine."""
    column_names = recipe.column_names
    column_moments = [groups.column_moments[name] for name in column_names]
    products = np.zeros((groups.unit_counts.size, len(column_names), len(column_names)))
    for i, moments in enumerate(column_moments):
        products[:, i, i] = moments.ss
    for i, j in combinations(range(len(column_names)), 2):
        products[:, i, j] = products[:, j, i] = groups.pair_products[column_names[i], column_names[j]]
    return {
        "n": groups.unit_counts,
        "column_mean": np.stack([moments.mean for moments in column_moments], axis=-1),
        "column_ss": products,
    }


def build_column_coords(recipe: AdjustmentRecipe) -> CellCoords:
    """Build the coordinates that label the columns of a recipe."""
    return {
        INPUT_COLUMN: (INPUT_COLUMN, recipe.column_names),
        OTHER_INPUT_COLUMN: (OTHER_INPUT_COLUMN, recipe.column_names),
    }


def reduce_to_adjusted_means(
    groups: GroupedUnits, units: UnitRows, recipe: AdjustmentRecipe
) -> tuple[list[CellKey], dict[str, CellValues], CellCoords]:
    """Reduce groups to distinct cells with adjusted means, their standard errors and the columns that give them."""
    if groups.value_counts.get("negative", np.zeros(1)).any():
        negative_count = int(groups.value_counts["negative"].sum())
        raise DataError(
            f"{write_count(negative_count, 'weight', 'weights')} in {units.columns.numbers['weight']!r} "
            f"{'is' if negative_count == 1 else 'are'} negative; a weight says how many units a row stands for, 0 or "
            "more: correct the column"
        )
    cell_keys, cell_columns = pool_groups(groups.cell_keys, collect_columns(groups, recipe))
    cell_sizes = measure_sizes(cell_columns, recipe)
    return (
        cell_keys,
        {
            **cell_columns,
            **solve_adjusted_means(cell_keys, cell_columns, recipe),
            **({} if cell_sizes is None else {"cell_size": cell_sizes}),
        },
        build_column_coords(recipe),
    )


def measure_sizes(cell_columns: dict[str, CellValues], recipe: AdjustmentRecipe) -> FloatColumn | None:
    """Measure what each cell stands for, (cell,): the sum of the column that its outcome is divided by.

    None where that is n, or where the column adds up to less than 0 in some cell: then it measures no population.
    """
    _, size_column = recipe.outcome_ratio
    if size_column is None:
        return None
    column_mean = cell_columns["column_mean"][:, recipe.column_names.index(size_column)]
    # Σ d = n m_d, which is whole where a column counts rows or views, but for rounding.
    size_sums: FloatColumn = np.where(cell_columns["n"] > 0, cell_columns["n"] * column_mean, 0.0)
    whole_sums = np.round(size_sums)
    size_sums = np.where(np.isclose(size_sums, whole_sums, rtol=SIZE_RTOL, atol=0.0), whole_sums, size_sums)
    return None if (size_sums < 0).any() else size_sums


def solve_adjusted_means(
    cell_keys: Sequence[CellKey], cell_columns: dict[str, CellValues], recipe: AdjustmentRecipe
) -> dict[str, CellValues]:
    """Solve for the mean and standard error of every cell, and the share of variance that covariates took away.

    Parameters
    ----------
    cell_keys
        Distinct cells.
    cell_columns
        n (cell), column_mean (cell, column) and column_ss (cell, column, column).
    recipe
        Ratios of columns.

    Raises
    ------
    DataError
        If a denominator is 0 in a cell, or nothing varies.
    """
    _check_magnitudes(cell_keys, cell_columns)
    # From here on c is the cell, k and l a ratio (0 is the outcome's), p and q a column.
    n: CountColumn = cell_columns["n"].astype(np.int64)
    has_units = n > 0
    column_mean = np.where(has_units[:, None], cell_columns["column_mean"], 0.0)
    ratio_values, gradients = [], np.zeros((len(cell_keys), 1 + len(recipe.covariate_ratios), len(recipe.column_names)))
    for k, ratio in enumerate((recipe.outcome_ratio, *recipe.covariate_ratios)):
        ratio_value, gradient = _linearise_ratio(column_mean, has_units, ratio, recipe.column_names, cell_keys)
        ratio_values.append(ratio_value)
        gradients[:, k] = gradient
    # z'S z of every two ratios: S_kl = Σ_pq g_kp S_pq g_lq, with the gradients g of the ratios.
    ratio_products = np.einsum("ckp,cpq,clq->ckl", gradients, cell_columns["column_ss"], gradients)
    adjusted_mean, residual_ss = ratio_values[0], ratio_products[:, 0, 0]
    theta, covariate_part = _estimate_theta(ratio_products), np.zeros(len(cell_keys))
    if theta.size:
        # R − θ·(X − X̄), whose residual sum of squares is (1, −θ) S (1, −θ)'.
        segment_average, overall_average = _average_covariates(cell_keys, n, column_mean, recipe)
        adjusted_mean = adjusted_mean - (np.stack(ratio_values[1:], axis=-1) - segment_average) @ theta
        # θ·(X̄_segment − X̄): less it, baselines are those of units with the same covariates.
        covariate_part = np.where(has_units, (segment_average - overall_average) @ theta, np.nan)
        loadings = np.concatenate([[1.0], -theta])
        residual_ss = np.maximum(np.einsum("k,ckl,l->c", loadings, ratio_products, loadings), 0.0)
    unit_variance = _estimate_unit_variance(cell_keys, n, residual_ss)
    # se² = z'S z / (n (n − 1)) = variance between units / n.
    solved_columns: dict[str, CellValues] = {
        "mean": np.where(has_units, adjusted_mean, np.nan),
        "se": np.sqrt(unit_variance / np.maximum(n, 1)),
    }
    if recipe.covariate_ratios:
        unadjusted_ss = ratio_products[:, 0, 0]
        solved_columns["variance_reduction"] = np.where(
            (n > 1) & (unadjusted_ss > 0), 1 - residual_ss / np.where(unadjusted_ss > 0, unadjusted_ss, 1.0), np.nan
        )
        solved_columns["covariate_part"] = covariate_part
    return solved_columns


def _check_magnitudes(cell_keys: Sequence[CellKey], cell_columns: dict[str, CellValues]) -> None:
    """Raise DataError where a column is too large for products with the others to be computed."""
    # Every column counts, as all are multiplied with each other.
    squares = np.diagonal(cell_columns["column_ss"], axis1=1, axis2=2)
    is_computable = (
        np.abs(np.where(cell_columns["n"] > 0, cell_columns["column_mean"].T, 0.0).T) <= LARGEST_CELL_NUMBER
    ) & (squares <= LARGEST_CELL_NUMBER**2)
    if not is_computable.all():
        levels, arm = cell_keys[int((~is_computable).any(axis=1).argmax())]
        raise DataError(
            f"numbers in segment {LEVEL_SEPARATOR.join(levels)!r}, arm {arm!r} are too large to be squared, and one "
            "like 1e308 often stands for a missing value; clean them, or state them in larger units, below "
            f"{LARGEST_CELL_NUMBER:g}"
        )


def _linearise_ratio(
    column_mean: FloatColumn,
    has_units: npt.NDArray[np.bool_],
    ratio: ColumnRatio,
    column_names: list[str],
    cell_keys: Sequence[CellKey],
) -> tuple[FloatColumn, FloatColumn]:
    """Compute a ratio of column means in each cell, and its gradient with respect to these: (cell), (cell, column)."""
    numerator, denominator = ratio
    gradient = np.zeros(column_mean.shape)
    if denominator is None:
        gradient[:, column_names.index(numerator)] = 1.0
        return column_mean[:, column_names.index(numerator)], gradient
    denominator_mean = column_mean[:, column_names.index(denominator)]
    is_undefined = has_units & ~(np.abs(denominator_mean) > 0)
    if is_undefined.any():
        levels, arm = cell_keys[int(is_undefined.argmax())]
        zero_sum = "weights add up" if denominator == "w" else "the denominator adds up"
        cell_count = write_count(int(is_undefined.sum()), "cell", "cells")
        raise DataError(
            f"{zero_sum} to 0 in {cell_count}, the first segment {LEVEL_SEPARATOR.join(levels)!r}, arm {arm!r}, "
            "so there is no mean; leave these units out, or group the levels"
        )
    denominator_mean = np.where(has_units, denominator_mean, 1.0)
    ratio_value = column_mean[:, column_names.index(numerator)] / denominator_mean
    # R = m_y / m_d: ∂R/∂m_y = 1 / m_d and ∂R/∂m_d = −R / m_d.
    gradient[:, column_names.index(numerator)] = 1 / denominator_mean
    gradient[:, column_names.index(denominator)] -= ratio_value / denominator_mean
    return ratio_value, gradient


def _estimate_theta(ratio_products: FloatColumn) -> FloatColumn:
    """Estimate the coefficients of the covariates from all cells; 0 for what does not vary or repeats others."""
    total_products = ratio_products.sum(axis=0)
    scale = np.sqrt(np.diag(total_products)[1:])
    varies = scale > 0
    theta = np.zeros(len(scale))
    if varies.any():
        # θ = (Σ S_xx)⁻¹ Σ S_xz, on the scale of correlations: covariates may differ by many orders of magnitude.
        inverse_scale = 1 / scale[varies]
        correlations = total_products[1:, 1:][np.ix_(varies, varies)] * np.outer(inverse_scale, inverse_scale)
        theta[varies] = (
            np.linalg.pinv(correlations, rtol=MIN_EIGENVALUE_RATIO, hermitian=True)
            @ (total_products[1:, 0][varies] * inverse_scale)
            * inverse_scale
        )
    return theta


def _average_covariates(
    cell_keys: Sequence[CellKey], n: CountColumn, column_mean: FloatColumn, recipe: AdjustmentRecipe
) -> tuple[FloatColumn, FloatColumn]:
    """Average covariates over the arms of the cell's segment, (cell, covariate), and over all units, (covariate,)."""
    segment_index: dict[SegmentLevels, int] = {}
    segment_of_cell = np.array([segment_index.setdefault(levels, len(segment_index)) for levels, _ in cell_keys])
    segment_means, overall_means = [], []
    for numerator, denominator in recipe.covariate_ratios:
        # X̄ = Σ n m_x / Σ n m_d: the ratio in the segment, or the experiment, as a whole.
        numerator_sums = n * column_mean[:, recipe.column_names.index(numerator)]
        denominator_sums = (
            n.astype(np.float64) if denominator is None else n * column_mean[:, recipe.column_names.index(denominator)]
        )
        overall_means.append(numerator_sums.sum() / max(denominator_sums.sum(), 1e-300))
        numerator_sums, denominator_sums = (
            np.bincount(segment_of_cell, cell_values, len(segment_index))
            for cell_values in (numerator_sums, denominator_sums)
        )
        segment_means.append((numerator_sums / np.where(denominator_sums > 0, denominator_sums, 1.0))[segment_of_cell])
    return np.stack(segment_means, axis=-1), np.array(overall_means)


def _estimate_unit_variance(cell_keys: Sequence[CellKey], n: CountColumn, ss: FloatColumn) -> FloatColumn:
    """Estimate the variance between units of analysis in each cell.

    A cell of one unit, or without variation, takes the pooled variance of its arm over all segments.
    """
    arm_index: dict[str, int] = {}
    arm_of_cell = np.array([arm_index.setdefault(arm, len(arm_index)) for _, arm in cell_keys])
    # SS / (n − 1) in a cell, and Σ SS / Σ (n − 1) over the cells of an arm.
    degrees_of_freedom = np.bincount(arm_of_cell, np.maximum(n - 1, 0), len(arm_index))
    arm_variance = np.bincount(arm_of_cell, ss, len(arm_index)) / np.where(
        degrees_of_freedom > 0, degrees_of_freedom, 1.0
    )
    cell_variance = ss / np.maximum(n - 1, 1)
    rounding_variance = 1e-14 * np.max(cell_variance, initial=0.0)  # a variance of 0 may come out as this
    unit_variance = np.where((n > 1) & (cell_variance > rounding_variance), cell_variance, arm_variance[arm_of_cell])
    if not (unit_variance[n > 0] > 0).all():
        raise DataError(
            "the metric does not vary between units within an arm, so its standard error cannot be estimated; check "
            "the outcome, and that the unit of analysis is not the whole cell"
        )
    return np.where(n > 0, unit_variance, np.nan)
