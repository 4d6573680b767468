"""Which model predicts segments best: leave-one-segment-out scores side by side, and stacking weights.

Not `bayes_hte.compare` the function: a module of that name would replace it. `Fit.compare` is the way in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import schema
from bayes_hte.analysis import fit
from bayes_hte.effects import known_model
from bayes_hte.errors import DataError, ModelError
from bayes_hte.families import FAMILIES
from bayes_hte.loso import loso
from bayes_hte.result import Fit
from bayes_hte.spec import Model, read_model
from bayes_hte.spec.model import Pooling

NAMES: dict[Pooling, str] = {"none": "no pooling", "partial": "partial pooling", "complete": "complete pooling"}
THIS = "this model"
FOLD_DRAWS = 2000
"""Posterior draws of each fold's fit: their error is a part of the reported Monte-Carlo error."""
Other = Model | str | Path | Fit


def compare_models(one: Fit, others: Mapping[str, Other] | None = None) -> pd.DataFrame:
    """One row per model, best first; see `Fit.compare`.

    Raises
    ------
    DataError
        If there is one segment, no other model, a name twice, or a fit of other data.
    ModelError
        If a model does not fit the cells, or predicts other statistics of them.
    """
    if others is not None and not isinstance(others, Mapping):
        raise DataError(f'others is a {type(others).__name__}; name each, as in compare({{"no covariate": other}})')
    if others is not None and (not others or THIS in others):
        raise DataError(f'name the other models, and none of them "{THIS}", which is this fit')
    known_model(one.core, "a comparison of models")
    asked = poolings(one.spec) if others is None else others
    name = NAMES[one.spec.pooling] if others is None else THIS
    fits = {name: one} | {other: fitted(one, each) for other, each in asked.items()}
    for each in fits.values():
        _check_comparable(one, each)
    found = {other: scores(each) for other, each in fits.items()}
    return table(found, {other: each.diagnosis.ok for other, each in fits.items()})


def poolings(model: Model) -> dict[str, Model]:
    """The same model under the other poolings; partial only where the prior of a between-segment SD is stated."""
    found: dict[str, Model] = {}
    for pooling, name in NAMES.items():
        if pooling == model.pooling or (pooling == "partial" and model.effect.between is None):
            continue
        changes: dict[str, Any] = {"pooling": pooling, "effect": _plain(model.effect.model_dump(exclude_none=True))}
        if model.amount is not None:
            amount = model.amount.model_dump(exclude_none=True)
            changes["amount"] = amount | {"effect": _plain(amount["effect"])}
        found[name] = Model.model_validate(model.model_dump(exclude_none=True) | changes)
    return found


def _plain(effect: dict[str, Any]) -> dict[str, Any]:
    """The prior of the mean alone, and of the SD for those who have a use for it: no structure."""
    return {key: value for key, value in effect.items() if key in ("mean", "between")}


def fitted(one: Fit, other: Other) -> Fit:
    """A model fitted to the same cells, as the first one was."""
    if isinstance(other, Fit):
        return other
    model = other if isinstance(other, Model) else read_model(other)
    posterior = one.core["posterior"]
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    return fit(one.cells, model, draws=max(draws, 400), seed=int(one.core.attrs["seed"]), progress=False)


def _check_comparable(one: Fit, other: Fit) -> None:
    """Scores can be compared only as densities of the same numbers."""
    if schema.fingerprint(one.cells) != schema.fingerprint(other.cells):
        raise DataError("a fit of other cells cannot be compared: fit every model to the same cell table")
    mine, its = (set(FAMILIES[each.spec.family].statistics(each.cells).data_vars) for each in (one, other))
    if mine != its:
        raise ModelError(
            f'family "{other.spec.family}" predicts {sorted(map(str, its))}, "{one.spec.family}" '
            f"{sorted(map(str, mine))}: densities of different numbers cannot be compared"
        )


def scores(one: Fit) -> pd.DataFrame:
    """`Fit.loso`: by the exact engine where it applies, else by fitting again without a tenth of the segments."""
    seed = int(one.core.attrs["seed"])

    def refit(cells: xr.Dataset, model: Model) -> xr.DataTree:
        return fit(cells, model, draws=FOLD_DRAWS, seed=seed, progress=False).core

    return loso(one.core, refit)


def table(found: Mapping[str, pd.DataFrame], reliable: Mapping[str, bool]) -> pd.DataFrame:
    """Scores of every model side by side, best first."""
    names = list(found)
    elpd = np.column_stack([found[name]["elpd"].to_numpy(dtype=float) for name in names])
    mcse = np.column_stack([found[name]["mcse"].to_numpy(dtype=float) for name in names])
    total, size = elpd.sum(0), len(elpd)
    best = int(np.argmax(total))
    difference = elpd - elpd[:, [best]]
    rows = pd.DataFrame(
        {
            "model": names,
            "elpd": total,
            "se": np.sqrt(size) * elpd.std(0, ddof=1),
            "elpd_difference": difference.sum(0),
            "se_difference": np.sqrt(size) * difference.std(0, ddof=1),
            "mcse": np.sqrt((mcse**2).sum(0)),
            "weight": stacking(elpd),
            "pareto_k": [float(found[name]["pareto_k"].max()) for name in names],
            "reliable": [reliable[name] and bool(found[name].attrs.get("folds_reliable", True)) for name in names],
        }
    )
    return rows.sort_values("elpd", ascending=False, kind="stable", ignore_index=True)


def stacking(elpd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that maximise the mean log score of the mixture of predictive densities; (segment, model) -> (model,).

    The objective is concave on the simplex. Expectation-maximisation climbs it without steps to choose; at the
    maximum no model's mean density relative to the mixture's is above 1, which is the test of having arrived.

    References
    ----------
    Yao, Vehtari, Simpson & Gelman (2018), Bayesian Analysis 13:917.
    """
    density = np.exp(elpd - elpd.max(1, keepdims=True))
    weight = np.full(elpd.shape[1], 1 / elpd.shape[1])
    for _ in range(100_000):  # a second; ten models on ten segments arrive after some hundred rounds
        gain = (density / (density @ weight)[:, None]).mean(0)
        if gain.max() < 1 + 1e-6:  # the mean log score is within a millionth of its maximum
            break
        weight = weight * gain
    return np.asarray(weight / weight.sum())
