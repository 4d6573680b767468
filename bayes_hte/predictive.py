"""Whether data like these were to be expected under the fitted model: checks that are meant for the family.

cells       Σ over cells of ((observed − predicted) / SD of predictions)²: cells that no parameter explains
totals      zeros, events, answers at each level: what a wrong shape of the outcome gets wrong first
outliers    the largest |offset| of a segment's effect from its centre, against that of as many normal (or t) numbers:
            a segment that the common distribution does not expect

p is P(replicated ≥ observed); near 0 or 1 the model does not expect what was seen. Cells have parameters of their own,
so the first check is conservative (Gelman, Meng & Stern 1996, Statistica Sinica 6:733).
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import schema
from bayes_hte.effects import between_variance, contributions, known_model, model_of
from bayes_hte.errors import DataError
from bayes_hte.pooling import DEFAULT_NU
from bayes_hte.spec.model import Model
from bayes_hte.summary import Question

Array = NDArray[np.float64]
SURPRISING = 0.01
"""Of p, or of 1 − p: one check in fifty of a right model is marked."""
TOTALS = {
    "events": "events in all cells",
    "zeros": "units with a count of 0",
    "total": "sum of all counts",
    "positive": "units with a positive outcome",
}
COLUMNS = ["check", "observed", "expected", "low", "high", "p", "verdict"]


def predictive_checks(tree: xr.DataTree, question: Question) -> pd.DataFrame:
    """One row per check; see `Fit.predictive_checks`.

    Raises
    ------
    DataError
        If the fit is too large to hold predictive draws.
    ModelError
        If only draws of the model are known.
    """
    known_model(tree, "a predictive check")
    if "posterior_predictive" not in tree.children:
        raise DataError("this fit is too large to hold predictive draws; check a part of its segments")
    replicated = tree["posterior_predictive"].to_dataset()
    observed = tree["observed_data"].to_dataset()
    rows: list[dict[str, Any]] = []
    for name in map(str, replicated.data_vars):
        rows += _of_variable(name, observed[name], replicated[name], question)
    rows += _outliers(tree, question)
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_variable(
    name: str, observed: xr.DataArray, replicated: xr.DataArray, question: Question
) -> list[dict[str, Any]]:
    if schema.VALUE in observed.dims:
        return [
            _row(f"units with outcome {value:g}", float(observed.sel({schema.VALUE: value}).sum()),
                 _flat(replicated.sel({schema.VALUE: value}).sum("cell")), question)
            for value in observed[schema.VALUE].values
        ]  # fmt: skip
    y, draws = observed.values.astype(float), replicated.transpose("chain", "draw", "cell").values.astype(float)
    draws = draws.reshape(-1, draws.shape[-1])
    there = np.isfinite(y)
    y, draws = y[there], draws[:, there]
    middle, spread = draws.mean(0), draws.std(0)
    spread = np.where(spread > 0, spread, np.inf)
    distance = (((draws - middle) / spread) ** 2).sum(1)
    rows = [
        _row(f"cells: squared distances of {name}", float((((y - middle) / spread) ** 2).sum()), distance, question)
    ]
    if name in TOTALS:
        rows.append(_row(TOTALS[name], float(y.sum()), draws.sum(1), question))
    return rows


def _flat(values: xr.DataArray) -> Array:
    return np.asarray(values.values.reshape(-1), dtype=float)


def _row(check: str, observed: float, replicated: Array, question: Question) -> dict[str, Any]:
    tail = (1 - question.ci_prob) / 2
    low, high = np.quantile(replicated, [tail, 1 - tail])
    # Ties count half: a total that every replication hits is no surprise.
    p = float((replicated > observed).mean() + 0.5 * (replicated == observed).mean())
    return {"check": check, "observed": observed, "expected": float(replicated.mean()), "low": float(low),
            "high": float(high), "p": p, "verdict": _verdict(p)}  # fmt: skip


def _verdict(p: float) -> str:
    if p < SURPRISING:
        return "more than the model expects"
    return "less than the model expects" if p > 1 - SURPRISING else "as expected"


def _outliers(tree: xr.DataTree, question: Question) -> list[dict[str, Any]]:
    """The segment furthest from its centre, arm by arm; only where effects are drawn from a common distribution."""
    model = model_of(tree)
    if model.pooling != "partial" or model.amount is not None or model.effect.shape == "horseshoe":
        return []
    offsets = contributions(tree)["rest"] / between_variance(tree) ** 0.5
    rng = np.random.default_rng(int(tree.attrs["seed"]))
    rows = []
    for arm in map(str, offsets["arm"].values):
        largest = _flat(abs(offsets.sel(arm=arm)).max("segment"))
        fresh = np.abs(_noise(model, (len(largest), offsets.sizes["segment"]), rng)).max(1)
        p = float((fresh > largest).mean())
        low, high = np.quantile(fresh, [(1 - question.ci_prob) / 2, (1 + question.ci_prob) / 2])
        name = offsets.sel(arm=arm).mean(("chain", "draw"))
        furthest = str(name["segment"].values[int(np.abs(name.values).argmax())])
        rows.append({"check": f"furthest segment under {arm}: {furthest}, in between-segment SDs",
                     "observed": float(largest.mean()), "expected": float(fresh.mean()), "low": float(low),
                     "high": float(high), "p": p, "verdict": _verdict(p)})  # fmt: skip
    return rows


def _noise(model: Model, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Offsets of as many segments, in their own SDs."""
    if model.effect.shape == "student_t":
        nu = model.effect.nu or DEFAULT_NU
        return np.asarray(rng.standard_t(nu, shape) * np.sqrt(max(nu - 2, 0.1) / nu))
    return rng.standard_normal(shape)
