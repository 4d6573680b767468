"""Means that are adjusted, ratios, weighted or of clusters: all of them are ratios of means of columns.

With columns v (1 … p) of units of analysis, a cell has n, the means m and the sums of products S of deviations. A
metric is R = m_y / m_d, where y is a numerator and d a denominator column (or 1). To first order R - E R is the mean of

    z = (y - R d) / m_d                                    (the delta method; Deng, Knoblich & Lu 2018)

    mean              y is the outcome, d is 1
    ratio             d is the denominator
    weights w         w·outcome over w, or over w·denominator
    clusters          the same columns, added up over the rows of a cluster; d is at least their number

so that var R = z'S z / (n (n - 1)). CUPED takes theta·(X - X̄) from R for every pre-period covariate, whose mean X is
such a ratio itself; X̄ is the mean of the segment over its arms, so that effects and baselines keep their meaning.
theta = (Σ S_xx)⁻¹ Σ S_xz, summed over all cells, is what least squares with one intercept per cell gives.

References
----------
Deng, Xu, Kohavi & Walker 2013, Improving the sensitivity of online controlled experiments by utilizing pre-experiment
data, WSDM. Deng, Knoblich & Lu 2018, Applying the delta method in metric analytics, KDD.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.assembly import Column, Coords, pool
from bayes_hte.cells.grouping import Groups, Units
from bayes_hte.cells.labels import SEPARATOR, Key, Levels
from bayes_hte.cells.sources import counted
from bayes_hte.cells.statistics import Counts, Floats, Query
from bayes_hte.errors import DataError
from bayes_hte.schema import COLUMN, LARGEST, OTHER_COLUMN

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type Ratio = tuple[str, str | None]
"""Numerator and denominator column; without the latter it is the plain mean."""

ALIKE = 1e-10
"""Covariates whose correlations have a smaller eigenvalue, relative to the largest, say nothing new."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adjusted mean follows from columns."""

    outcome: Ratio
    covariates: tuple[Ratio, ...] = ()
    made_of: str = ""  # the columns of the data, in words: means that are made otherwise do not merge

    @property
    def columns(self) -> list[str]:
        """The columns that are needed, each once."""
        return list(dict.fromkeys(name for pair in (self.outcome, *self.covariates) for name in pair if name))

    def text(self) -> str:
        """As an attribute of the cell table."""
        return json.dumps({"outcome": self.outcome, "covariates": self.covariates, "made_of": self.made_of})

    @classmethod
    def read(cls, text: str) -> "Recipe":
        """From the attribute of a cell table."""
        found = json.loads(text)
        return cls(tuple(found["outcome"]), tuple(map(tuple, found["covariates"])), found["made_of"])


def recipe(*, denominator: str | None, weights: str | None, cluster: str | None, cuped: Sequence[str]) -> Recipe:
    """The recipe of a metric, from the names of columns; those of `cuped` come first of what was before treatment.

    A covariate that is missing for some units comes with a column of its own that says for which.
    """
    size = None if weights is None and cluster is None else "w"
    covariates = [(f"{what}{j}", size) for j in range(len(cuped)) for what in ("x", "m")]
    said = {"ratio": denominator, "weights": weights, "clusters": cluster, "CUPED": ", ".join(cuped) or None}
    made_of = "; ".join(f"{what}: {column}" for what, column in said.items() if column is not None)
    return Recipe(("y", size if denominator is None else "d"), tuple(covariates), made_of)


def query(asked: Recipe, *, weight: int | None, denominator: int | None) -> Query:
    """What to ask: the moments of every column, and the products of every two.

    Parameters
    ----------
    asked
        The recipe.
    weight, denominator
        The places of these among the numbers of a unit.
    """
    import narwhals.stable.v2 as nw

    outcome = nw.col("y0")
    there = ~outcome.is_null()
    one = nw.when(there).then(1.0)
    w: nw.Expr = one if weight is None else nw.col(f"y{weight}")

    def weighed(value: "nw.Expr") -> "nw.Expr":
        return value if weight is None else value * w

    made = {"y": weighed(outcome), "w": w}
    if denominator is not None:
        made["d"] = weighed(nw.col(f"y{denominator}"))
    for name, _ in asked.covariates:
        value = nw.col(f"p{name[1:]}")
        known = nw.when(value.is_null()).then(0.0).otherwise(value)
        absent = nw.when(value.is_null()).then(1.0).otherwise(0.0)
        made[name] = nw.when(there).then(weighed(known if name.startswith("x") else absent))
    derived = {name: made[name] for name in asked.columns}
    counts = []
    if weight is not None:
        derived["negative"] = nw.when(w < 0).then(w)
        counts.append("negative")
    return Query(derived, counts, moments=asked.columns, pairs=list(combinations(asked.columns, 2)))


def columns_of(groups: Groups, asked: Recipe) -> dict[str, Column]:
    """n, and the mean and sums of products of every column, from the answer of the engine."""
    names = asked.columns
    moments = [groups.moments[name] for name in names]
    products = np.zeros((groups.n.size, len(names), len(names)))
    for i, each in enumerate(moments):
        products[:, i, i] = each.ss
    for i, j in combinations(range(len(names)), 2):
        products[:, i, j] = products[:, j, i] = groups.products[names[i], names[j]]
    return {"n": groups.n, "column_mean": np.stack([each.mean for each in moments], axis=-1), "column_ss": products}


def coords(asked: Recipe) -> Coords:
    """Labels of the columns."""
    return {COLUMN: (COLUMN, asked.columns), OTHER_COLUMN: (OTHER_COLUMN, asked.columns)}


def reduced(groups: Groups, units: Units, asked: Recipe) -> tuple[list[Key], dict[str, Column], Coords]:
    """Distinct cells with means and standard errors, and the columns that these follow from."""
    if groups.counts.get("negative", np.zeros(1)).any():
        count = int(groups.counts["negative"].sum())
        raise DataError(
            f"{counted(count, 'weight', 'weights')} in {units.numbers['weight']!r} {'is' if count == 1 else 'are'} "
            "negative; a weight says how many units a row stands for, 0 or more: correct the column"
        )
    keys, columns = pool(groups.keys, columns_of(groups, asked))
    return keys, {**columns, **solve(keys, columns, asked)}, coords(asked)


def solve(keys: Sequence[Key], columns: dict[str, Column], asked: Recipe) -> dict[str, Column]:
    """Mean and standard error of every cell, and with covariates the share of variance that they took away.

    Parameters
    ----------
    keys
        Distinct cells.
    columns
        n (cell), column_mean (cell, column) and column_ss (cell, column, column).
    asked
        The recipe.

    Raises
    ------
    DataError
        If a denominator is 0 in a cell, or nothing varies.
    """
    _check_sizes(keys, columns)
    n: Counts = columns["n"].astype(np.int64)
    full = n > 0
    mean = np.where(full[:, None], columns["column_mean"], 0.0)
    values, spread = [], np.zeros((len(keys), 1 + len(asked.covariates), len(asked.columns)))
    for k, ratio in enumerate((asked.outcome, *asked.covariates)):
        value, weights = _linearised(mean, full, ratio, asked.columns, keys)
        values.append(value)
        spread[:, k] = weights
    products = np.einsum("ckp,cpq,clq->ckl", spread, columns["column_ss"], spread)
    adjusted, ss = values[0], products[:, 0, 0]
    theta = _theta(products)
    if theta.size:
        adjusted = adjusted - (np.stack(values[1:], axis=-1) - _of_segments(keys, n, mean, asked)) @ theta
        loads = np.concatenate([[1.0], -theta])
        ss = np.maximum(np.einsum("k,ckl,l->c", loads, products, loads), 0.0)
    variance = _variance(keys, n, ss)
    found: dict[str, Column] = {
        "mean": np.where(full, adjusted, np.nan),
        "se": np.sqrt(variance / np.maximum(n, 1)),
    }
    if asked.covariates:
        raw = products[:, 0, 0]
        found["variance_reduction"] = np.where((n > 1) & (raw > 0), 1 - ss / np.where(raw > 0, raw, 1.0), np.nan)
    return found


def _check_sizes(keys: Sequence[Key], columns: dict[str, Column]) -> None:
    """Of what is too large nothing can be computed; every column counts, as all are multiplied with each other."""
    squares = np.diagonal(columns["column_ss"], axis1=1, axis2=2)
    fine = (np.abs(np.where(columns["n"] > 0, columns["column_mean"].T, 0.0).T) <= LARGEST) & (squares <= LARGEST**2)
    if not fine.all():
        levels, arm = keys[int((~fine).any(axis=1).argmax())]
        raise DataError(
            f"numbers in segment {SEPARATOR.join(levels)!r}, arm {arm!r} are too large to be squared, and one like "
            f"1e308 often stands for a missing value; clean them, or state them in larger units, below {LARGEST:g}"
        )


def _linearised(
    mean: Floats, full: npt.NDArray[np.bool_], ratio: Ratio, names: list[str], keys: Sequence[Key]
) -> tuple[Floats, Floats]:
    """A ratio of means, and how its value moves with each column."""
    above, below = ratio
    weights = np.zeros(mean.shape)
    if below is None:
        weights[:, names.index(above)] = 1.0
        return mean[:, names.index(above)], weights
    under = mean[:, names.index(below)]
    empty = full & ~(np.abs(under) > 0)
    if empty.any():
        levels, arm = keys[int(empty.argmax())]
        what = "weights add up" if below == "w" else "the denominator adds up"
        more = counted(int(empty.sum()), "cell", "cells")
        raise DataError(
            f"{what} to 0 in {more}, the first segment {SEPARATOR.join(levels)!r}, arm {arm!r}, so there is no mean; "
            "leave these units out, or group the levels"
        )
    under = np.where(full, under, 1.0)
    value = mean[:, names.index(above)] / under
    weights[:, names.index(above)] = 1 / under
    weights[:, names.index(below)] -= value / under
    return value, weights


def _theta(products: Floats) -> Floats:
    """Coefficients of the covariates, from the sums over all cells; 0 for what does not vary or repeats others."""
    total = products.sum(axis=0)
    scale = np.sqrt(np.diag(total)[1:])
    varies = scale > 0
    theta = np.zeros(len(scale))
    if varies.any():
        inverse = 1 / scale[varies]
        alike = total[1:, 1:][np.ix_(varies, varies)] * np.outer(inverse, inverse)
        theta[varies] = np.linalg.pinv(alike, rtol=ALIKE, hermitian=True) @ (total[1:, 0][varies] * inverse) * inverse
    return theta


def _of_segments(keys: Sequence[Key], n: Counts, mean: Floats, asked: Recipe) -> Floats:
    """The mean of every covariate in the cell's segment over all arms, (cell, covariate)."""
    index: dict[Levels, int] = {}
    at = np.array([index.setdefault(levels, len(index)) for levels, _ in keys])
    found = []
    for above, below in asked.covariates:
        over = n * mean[:, asked.columns.index(above)]
        under = n.astype(np.float64) if below is None else n * mean[:, asked.columns.index(below)]
        over, under = (np.bincount(at, values, len(index)) for values in (over, under))
        found.append((over / np.where(under > 0, under, 1.0))[at])
    return np.stack(found, axis=-1)


def _variance(keys: Sequence[Key], n: Counts, ss: Floats) -> Floats:
    """Between units of analysis; a cell of one unit, or without variation, takes that of its arm over all segments."""
    arms: dict[str, int] = {}
    at = np.array([arms.setdefault(arm, len(arms)) for _, arm in keys])
    freedom = np.bincount(at, np.maximum(n - 1, 0), len(arms))
    within = np.bincount(at, ss, len(arms)) / np.where(freedom > 0, freedom, 1.0)
    own = ss / np.maximum(n - 1, 1)
    trace = 1e-14 * np.max(own, initial=0.0)  # what rounding leaves of no variation
    variance = np.where((n > 1) & (own > trace), own, within[at])
    if not (variance[n > 0] > 0).all():
        raise DataError(
            "the metric does not vary between units within an arm, so its standard error cannot be estimated; check "
            "the outcome, and that the unit of analysis is not the whole cell"
        )
    return np.where(n > 0, variance, np.nan)
