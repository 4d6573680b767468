"""What one dimension does: effects averaged within its levels, and its share of all differences between segments."""

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte import schema
from bayes_hte.effects import Weights, cells_of, contributions, effects, model_of, shares
from bayes_hte.errors import DataError, ModelError
from bayes_hte.structure import expanded
from bayes_hte.summary import Question, beyond_rope, describe, sizes


def marginal(tree: xr.DataTree, dimension: str, question: Question, weights: Weights | None = None) -> pd.DataFrame:
    """One row per level and arm; see `Fit.marginal`.

    Raises
    ------
    DataError
        If there is no such dimension, or a level has no weight.
    """
    cells = cells_of(tree)
    if dimension not in schema.dimensions(cells):
        raise DataError(f"no dimension {dimension!r}; there are {schema.dimensions(cells)}")
    levels = list(dict.fromkeys(map(str, cells[dimension].values)))
    inside = _membership(cells, dimension, levels)
    share = inside * shares(cells, weights)
    total = share.sum("segment")
    if not bool((total > 0).all()):
        empty = [level for level, weight in zip(levels, total.values, strict=True) if not weight > 0]
        raise DataError(f"the levels {empty[:5]} of {dimension} have no weight: give their segments some, or leave out")
    draws = xr.dot(effects(tree, question.scale), share / total, dim="segment")
    units = {name: _within(values, inside) for name, values in sizes(cells).items()}
    columns = xr.Dataset({**units, **describe(draws, question), **beyond_rope(draws, question)})
    found = columns.to_dataframe(dim_order=["level", "arm"]).reset_index()
    for name in units:
        found[name] = found[name].astype("Int64")
    return found[["level", "arm", *map(str, columns.data_vars)]]


def _membership(cells: xr.Dataset, dimension: str, levels: list[str]) -> xr.DataArray:
    """1 where a segment has a level; dims (level, segment)."""
    own = cells[dimension].values.astype(str)
    segments = [str(label) for label in cells[schema.SEGMENT].values]
    values = (own == np.array(levels)[:, None]).astype(float)
    return xr.DataArray(values, dims=("level", "segment"), coords={"level": levels, "segment": segments})


def _within(units: xr.DataArray, inside: xr.DataArray) -> xr.DataArray:
    """Units in every level; NaN where no segment's number is known."""
    found: xr.DataArray = units.reset_coords(drop=True).where(inside > 0).sum("segment", min_count=1)
    return found


def variance_shares(tree: xr.DataTree, question: Question, weights: Weights | None = None) -> pd.DataFrame:
    """One row per arm and source of differences; see `Fit.variance_shares`.

    Raises
    ------
    ModelError
        If the model does not add effects up from dimensions or covariates.
    """
    cells = cells_of(tree)
    model = expanded(model_of(tree), cells)
    if not model.effect.by and not model.effect.covariates:
        dimensions = schema.dimensions(cells)
        raise ModelError(
            "this model has no parts to divide the differences among: state the dimensions in the model file, "
            f"as in effect.by = {schema.encode(dimensions)}, or effect.covariates"
        )
    share = shares(cells, weights)
    parts = {name: _variance(part, share) for name, part in contributions(tree).items()}
    total = sum(parts.values(), start=xr.zeros_like(next(iter(parts.values()))))
    rows = []
    for arm in map(str, total["arm"].values):
        for name, variance in parts.items():
            row: dict[str, str | float] = {"arm": arm, "source": name}
            row |= _interval((variance / total).sel(arm=arm), "share", question)
            row |= _interval((variance**0.5).sel(arm=arm), "sd", question)
            rows.append(row)
    return pd.DataFrame(rows)


def _variance(part: xr.DataArray, share: xr.DataArray) -> xr.DataArray:
    """Finite-population variance over the segments at hand, draw by draw (Gelman 2005, Annals of Statistics 33:1)."""
    weight = share.values
    values = part.values
    centred = values - np.einsum("cdsa,s->cda", values, weight)[:, :, None, :]
    return part.isel(segment=0, drop=True).copy(data=np.einsum("cdsa,s->cda", centred**2, weight))


def _interval(draws: xr.DataArray, name: str, question: Question) -> dict[str, float]:
    tail = (1 - question.ci_prob) / 2
    low, high = np.quantile(draws.values, [tail, 1 - tail])
    return {name: float(draws.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
