"""From joint draws to tables. Every number shown has an interval, every probability its Monte-Carlo error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte import schema
from bayes_hte.asked import described, number
from bayes_hte.effects import (
    Weights,
    average,
    cells_of,
    effects,
    new_segment,
    pooling_factor,
    raw,
    shares,
)
from bayes_hte.errors import DataError
from bayes_hte.schema import Scale

Against = Literal["ate", "rest", "pairs"]
MAX_PAIRS_OF = 200
"""Pairs of more segments than this are more rows than anyone reads, and gigabytes of draws."""


@dataclass(frozen=True, slots=True)
class Question:
    """How an answer is wanted.

    Attributes
    ----------
    scale : str
        ``absolute``, ``relative`` or ``link``.
    ci_prob : float
        Probability of the intervals, with equal tails: 0 is outside exactly when p_positive or
        p_negative is above (1 + ci_prob) / 2.
    rope : float or None
        The smallest effect that matters, on `scale`.
    higher_is_better : bool
        Which side of zero is harm.
    """

    scale: Scale = "absolute"
    ci_prob: float = 0.95
    rope: float | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be answered."""
        if self.scale not in schema.SCALES:
            raise DataError(f"no scale {described(self.scale)}; scales are {', '.join(schema.SCALES)}")
        if not 0 < (number(self.ci_prob) or 0.0) < 1:
            raise DataError(f"ci_prob is a probability between 0 and 1, such as 0.95, not {described(self.ci_prob)}")
        if self.rope is not None and not (number(self.rope) or 0.0) > 0:
            raise DataError(
                f"rope is the smallest effect that matters, a number greater than 0, not {described(self.rope)}"
            )


def describe(draws: xr.DataArray, question: Question) -> dict[str, xr.DataArray]:
    """Posterior mean, SD, interval and probabilities of signs, over chains and draws."""
    sample = ("chain", "draw")
    tail = (1 - question.ci_prob) / 2
    bounds = draws.quantile([tail, 1 - tail], dim=sample)
    return {
        "effect": draws.mean(sample),
        "sd": draws.std(sample, ddof=1),
        "ci_low": bounds.isel(quantile=0, drop=True),
        "ci_high": bounds.isel(quantile=1, drop=True),
        "p_positive": (draws > 0).mean(sample),
        "p_negative": (draws < 0).mean(sample),
    }


def beyond_rope(draws: xr.DataArray, question: Question) -> dict[str, xr.DataArray]:
    """Probability that an effect is too small to matter, does good, does harm."""
    if question.rope is None:
        return {}
    sample, gain = ("chain", "draw"), draws if question.higher_is_better else -draws
    return {
        "p_rope": (abs(draws) <= question.rope).mean(sample),
        "p_benefit": (gain > question.rope).mean(sample),
        "p_harm": (gain < -question.rope).mean(sample),
    }


def table(tree: xr.DataTree, question: Question, *, detail: bool = False) -> pd.DataFrame:
    """One row per segment and arm; see `Fit.table` for the columns."""
    cells = cells_of(tree)
    draws = effects(tree, question.scale)
    estimate = raw(tree, question.scale)
    columns = {
        **sizes(cells),
        "raw": estimate["raw"],
        "raw_se": estimate["raw_se"],
        **describe(draws, question),
        **known_signs(tree),
        "pooling": pooling_factor(tree).mean(("chain", "draw")),
        **beyond_rope(draws, question),
    }
    if detail:
        columns |= _detail(tree, draws, estimate, question)
    return frame(columns, cells)


def known_signs(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Probabilities of signs that the engine knows better than by counting draws; every scale has the same signs."""
    if "sign" not in tree.children:
        return {}
    positive = tree["sign"].to_dataset()["p_positive"]
    return {"p_positive": positive, "p_negative": 1 - positive}


def _detail(
    tree: xr.DataTree, draws: xr.DataArray, estimate: xr.Dataset, question: Question
) -> dict[str, xr.DataArray]:
    """What a reviewer asks next: Monte-Carlo errors, the pooling factor's interval, complete pooling."""
    tail = (1 - question.ci_prob) / 2
    factor = pooling_factor(tree).quantile([tail, 1 - tail], dim=("chain", "draw"))
    complete, complete_se = complete_pooling(estimate)
    return {
        "effect_mcse": error_of_mean(tree, draws),
        "p_mcse": _sign_error(tree, draws),
        "pooling_low": factor.isel(quantile=0, drop=True),
        "pooling_high": factor.isel(quantile=1, drop=True),
        "complete": complete.broadcast_like(estimate["raw"]),
        "complete_se": complete_se.broadcast_like(estimate["raw"]),
    }


def _sign_error(tree: xr.DataTree, draws: xr.DataArray) -> xr.DataArray:
    """Monte-Carlo standard error of p_positive."""
    if "sign" in tree.children:
        return tree["sign"].to_dataset()["p_positive_mcse"]
    return error_of_mean(tree, draws > 0)


def complete_pooling(estimate: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """One effect for all: the inverse-variance mean of the raw estimates and its standard error, per arm."""
    usable = np.isfinite(estimate["raw"]) & (estimate["raw_se"] > 0)
    weight = (1 / estimate["raw_se"] ** 2).where(usable)
    total = weight.sum("segment")
    mean = (weight * estimate["raw"]).sum("segment") / total.where(total > 0)
    return mean, total.where(total > 0) ** -0.5


def error_of_mean(tree: xr.DataTree, draws: xr.DataArray) -> xr.DataArray:
    """Monte-Carlo standard error of the mean of draws, whichever engine drew them.

    The exact engine's draws are independent given the points of its hyperparameters, which are worth
    `effective_points`: variance (1 / draws + 1 / points) times the posterior's, at most.
    """
    known = tree["sample_stats"]
    if "pareto_k" not in known:
        return monte_carlo_error(draws)
    size = draws.sizes["chain"] * draws.sizes["draw"]
    weighted = np.isfinite(float(known["pareto_k"]))
    variance = 1 / size + (1 / float(known["effective_points"]) if weighted else 0.0)
    error: xr.DataArray = draws.astype(float).std(("chain", "draw"), ddof=1) * np.sqrt(variance)
    return _not_zero(error, draws)


def monte_carlo_error(draws: xr.DataArray) -> xr.DataArray:
    """Standard error of the mean of draws that depend on each other (ArviZ)."""
    import arviz_stats as az

    error: xr.DataArray = az.mcse(draws.astype(float).to_dataset(name="x"), method="mean")["x"]
    return _not_zero(error, draws)


def _not_zero(error: xr.DataArray, draws: xr.DataArray) -> xr.DataArray:
    """Where all N draws of an event agree its probability is not exactly 0 or 1: half an event in N + 1 draws."""
    if draws.dtype != bool:
        return error
    size = draws.sizes["chain"] * draws.sizes["draw"]
    floor = np.sqrt(0.5 / (size + 1) / size)
    settled = draws.all(("chain", "draw")) | ~draws.any(("chain", "draw"))
    return error.where(~settled, floor)


def ate(tree: xr.DataTree, question: Question, weights: Weights | None = None) -> pd.DataFrame:
    """One row per arm; see `Fit.ate`."""
    cells = cells_of(tree)
    draws = average(effects(tree, question.scale), shares(cells, weights))
    units = {name: values.sum("segment", min_count=1) for name, values in sizes(cells).items()}
    columns = {**units, **describe(draws, question), **beyond_rope(draws, question)}
    columns["p_mcse"] = error_of_mean(tree, draws > 0)
    return frame(columns, cells, dims=("arm",))


def contrasts(tree: xr.DataTree, question: Question, against: Against, weights: Weights | None = None) -> pd.DataFrame:
    """One row per comparison; see `Fit.contrasts`.

    Raises
    ------
    DataError
        If there is one segment, one that is the whole population, or too many for all pairs.
    """
    draws, share = effects(tree, question.scale), shares(cells_of(tree), weights)
    if draws.sizes["segment"] < 2:
        raise DataError("one segment has nothing to be compared with")
    match against:
        case "ate":
            difference = (draws - average(draws, share)).expand_dims(against=["ATE"])
        case "rest":
            if bool((share == 1).any()):
                raise DataError(
                    "by these weights one segment is the whole population: it has no rest; use ate or pairs"
                )
            rest = (draws - average(draws, share)) / (1 - share)
            difference = rest.expand_dims(against=["rest"])
        case "pairs":
            return _pairs(draws, question)
        case _:
            raise DataError(f"no contrast against {described(against)}; there are ate, rest and pairs")
    found = xr.Dataset(describe(difference, question))
    rows = found.to_dataframe(dim_order=["arm", "segment", "against"]).reset_index()
    return rows[["arm", "segment", "against", *found.data_vars]].rename(columns={"effect": "difference"})


def _pairs(draws: xr.DataArray, question: Question) -> pd.DataFrame:
    size = draws.sizes["segment"]
    if size > MAX_PAIRS_OF:
        raise DataError(f"{size} segments make {size * (size - 1) // 2:,} pairs; compare against rest or ate instead")
    frames = []
    for position in range(size - 1):
        one, others = draws.isel(segment=position, drop=True), draws.isel(segment=slice(position + 1, None))
        found = xr.Dataset(describe(one - others, question)).rename(segment="against")
        one_frame = found.to_dataframe(dim_order=["arm", "against"]).reset_index()
        one_frame.insert(1, "segment", str(draws["segment"].values[position]))
        frames.append(one_frame)
    columns = ["arm", "segment", "against", "effect", "sd", "ci_low", "ci_high", "p_positive", "p_negative"]
    rows = pd.concat(frames, ignore_index=True)[columns].rename(columns={"effect": "difference"})
    order = {str(arm): position for position, arm in enumerate(draws["arm"].values)}
    return rows.sort_values("arm", kind="stable", ignore_index=True, key=lambda arms: arms.map(order))


def predict_new_segment(
    tree: xr.DataTree,
    question: Question,
    *,
    seed: int,
    where: Mapping[str, str] | None = None,
    covariates: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """One row per arm; see `Fit.predict_new_segment`."""
    draws = new_segment(tree, question.scale, seed, where=where, covariates=covariates)
    columns = {**describe(draws, question), **beyond_rope(draws, question)}
    return frame(columns, cells_of(tree), dims=("arm",))


def sizes(cells: xr.Dataset) -> dict[str, xr.DataArray]:
    """Units per arm; unknown for most published estimates."""
    arms = schema.treated_arms(cells)
    unknown = xr.full_like(schema.present(cells).sel(arm=arms), np.nan, dtype=float)
    if "n" not in cells:
        return {"n_control": unknown, "n_treated": unknown}
    treated = cells["n"].sel(arm=arms)
    if not cells.attrs["control"]:
        return {"n_control": unknown, "n_treated": treated}
    control = cells["n"].sel(arm=cells.attrs["control"], drop=True)
    return {"n_control": control.broadcast_like(treated), "n_treated": treated}


def frame(
    columns: dict[str, xr.DataArray], cells: xr.Dataset, dims: tuple[str, ...] = ("segment", "arm")
) -> pd.DataFrame:
    """Columns side by side, segments outermost, one column per dimension first."""
    data = xr.Dataset({name: values.reset_coords(drop=True) for name, values in columns.items()})
    rows = data.transpose(*dims).to_dataframe(dim_order=list(dims)).reset_index()
    levels = {}
    if "segment" in dims:
        place = rows["segment"].map({str(s): i for i, s in enumerate(cells["segment"].values)}).to_numpy()
        levels = {name: cells[name].values[place].astype(str) for name in schema.dimensions(cells)}
    for name in ("n_control", "n_treated"):
        if name in rows:
            rows[name] = rows[name].astype("Int64")
    return pd.concat([pd.DataFrame(levels, index=rows.index), rows[["arm", *columns]]], axis=1)
