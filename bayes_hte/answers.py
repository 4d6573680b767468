"""Which segments, which arm, and do they differ at all: questions about several effects at once, from joint draws."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from bayes_hte.effects import (
    Weights,
    average,
    cells_of,
    effects,
    family_of,
    model_of,
    parameters,
    raw,
    shares,
)
from bayes_hte.errors import DataError
from bayes_hte.pooling import DEFAULT_NU
from bayes_hte.spec.model import Effect
from bayes_hte.structure import Coefficient, coefficients, expanded, term_name
from bayes_hte.summary import Question, error_of_mean, frame, known_signs

Best = Literal["highest", "lowest"]
SAMPLE = ("chain", "draw")


def ranks(tree: xr.DataTree, question: Question, best: Best | None = None) -> pd.DataFrame:
    """One row per segment and arm: where its effect stands among all segments'; see `Fit.ranks`.

    Raises
    ------
    DataError
        If there is one segment, or `best` is neither end.
    """
    from scipy.stats import rankdata  # half a second

    best = best or ("highest" if question.higher_is_better else "lowest")
    if best not in ("highest", "lowest"):
        raise DataError(f'best is "highest" or "lowest", not {best!r}')
    draws = effects(tree, question.scale).transpose(*SAMPLE, "arm", "segment")
    if draws.sizes["segment"] < 2:
        raise DataError("one segment has nothing to be compared with")
    # Ties, as under complete pooling, share their ranks.
    found = draws.copy(data=rankdata(-draws.values if best == "highest" else draws.values, axis=-1))
    tail = (1 - question.ci_prob) / 2
    bounds = found.quantile([tail, 1 - tail], dim=SAMPLE)
    columns = {
        "rank_mean": found.mean(SAMPLE),
        "rank_low": bounds.isel(quantile=0, drop=True),
        "rank_high": bounds.isel(quantile=1, drop=True),
        "p_best": _extreme(draws if best == "highest" else -draws, "segment").mean(SAMPLE),
        "p_worst": _extreme(-draws if best == "highest" else draws, "segment").mean(SAMPLE),
    }
    return frame(columns, cells_of(tree))


def _extreme(gain: xr.DataArray, dim: str) -> xr.DataArray:
    """1 at the largest value along a dim; those that tie share it."""
    top = gain == gain.max(dim)
    return top / top.sum(dim)


def best_arm(tree: xr.DataTree, question: Question) -> pd.DataFrame:
    """One row per segment and arm, the control included; see `Fit.best_arm`."""
    cells = cells_of(tree)
    # The same numbers on every scale decide which arm is best: links are monotone, and the control's effect is 0.
    draws = effects(tree, question.scale)
    control = str(cells.attrs["control"]) or "control"
    nothing = xr.zeros_like(draws.isel(arm=[0])).assign_coords(arm=[control])
    every = xr.concat([nothing, draws], dim="arm", join="outer", coords="minimal", compat="override")
    gain = every if question.higher_is_better else -every
    best = _extreme(gain, "arm")
    columns = {
        "effect": every.mean(SAMPLE),
        "p_best": best.mean(SAMPLE),
        "p_mcse": error_of_mean(tree, gain == gain.max("arm")),
        "expected_loss": (gain.max("arm") - gain).mean(SAMPLE),
    }
    signs = known_signs(tree)
    if signs and draws.sizes["arm"] == 1:  # one arm is better than the control exactly when its effect is
        good = signs["p_positive" if question.higher_is_better else "p_negative"].isel(arm=0, drop=True)
        columns["p_best"] = xr.concat([1 - good, good], dim="arm").assign_coords(arm=every["arm"])
    return frame(columns, cells)


def heterogeneity(tree: xr.DataTree, question: Question, weights: Weights | None = None) -> pd.DataFrame:
    """One row per arm and quantity; see `Fit.heterogeneity`."""
    draws = effects(tree, question.scale)
    share = shares(cells_of(tree), weights)
    estimate = raw(tree, question.scale)
    if "covariance" in cells_of(tree):  # the test on raw estimates takes them to be independent
        estimate = estimate.where(False)
    rows: list[dict[str, Any]] = []
    for arm in map(str, draws["arm"].values):
        for coefficient in coefficients(expanded(model_of(tree), cells_of(tree))):
            if "arm" in coefficient.dims:
                rows += _common_effect(tree, coefficient, arm, question)
        rows += _spread(draws.sel(arm=arm), share, arm, question)
        rows += _crossing(draws.sel(arm=arm), estimate.sel(arm=arm), arm, question)
    return pd.DataFrame(rows, columns=["arm", "quantity", "value", "ci_low", "ci_high", "meaning"])


def _common_effect(tree: xr.DataTree, coefficient: Coefficient, arm: str, question: Question) -> list[dict[str, Any]]:
    """The centre and the between-segment SDs of the shared prior, and I², on the link scale."""
    posterior, name = tree["posterior"].to_dataset(), coefficient.name
    part = name.removesuffix("effect")
    of = {"": "", "chance_": " on the chance of a positive outcome", "amount_": " on the log of positive outcomes"}[
        part
    ]
    rows = []
    if f"{name}_mean" in posterior.data_vars:
        centre, meaning = _of_arm(posterior[f"{name}_mean"], arm), f"the effect{of} that segments shrink to, link scale"
        rows.append(_row(arm, f"{part}effect_mean", centre, meaning, question))
    if f"{name}_between" not in posterior.data_vars:
        return rows
    for quantity, draws, meaning in _spreads(posterior, coefficient, arm):
        said = meaning.replace("effects", f"effects{of}", 1) + ("" if quantity == "correlation" else ", link scale")
        rows.append(_row(arm, f"{part}{quantity}", draws, said, question))
    tau = None if part else _total_sd(posterior, coefficient, arm)
    return rows if tau is None else rows + _about_tau(tree, tau, arm, question)


def _of_arm(values: xr.DataArray, arm: str) -> xr.DataArray:
    return values.sel(arm=arm) if "arm" in values.dims else values


def _spreads(posterior: xr.Dataset, coefficient: Coefficient, arm: str) -> list[tuple[str, xr.DataArray, str]]:
    """Every between-segment SD and what else says how effects differ: quantity, draws, meaning."""
    name, pool = coefficient.name, coefficient.pool
    effect = pool if isinstance(pool, Effect) else None
    between = _of_arm(posterior[f"{name}_between"], arm)
    found = []
    if effect is not None and effect.strata:
        for level in map(str, between[effect.strata].values):
            meaning = f"SD of true effects between segments of {level} (tau)"
            found.append((f"between_sd[{level}]", between.sel({effect.strata: level}), meaning))
    else:
        found.append(("between_sd", between, _meaning_of_between(coefficient)))
    for term in pool.by:
        draws = _of_arm(posterior[f"{term_name(name, term)}_between"], arm)
        found.append((f"between_sd[{term}]", draws, f"SD of true effects between levels of {term.replace(':', ' × ')}"))
    if f"{name}_slope" in posterior.data_vars:
        slope = _of_arm(posterior[f"{name}_slope"], arm)
        for covariate in map(str, slope["covariate"].values):
            meaning = f"change in true effects per SD of {covariate}"
            found.append((f"slope[{covariate}]", slope.sel(covariate=covariate), meaning))
    if f"{name}_correlation" in posterior.data_vars:
        draws = _of_arm(posterior[f"{name}_correlation"], arm)
        found.append(("correlation", draws, "correlation of true effects with the control's mean"))
    return found


def _meaning_of_between(coefficient: Coefficient) -> str:
    pool = coefficient.pool
    shape = pool.shape if isinstance(pool, Effect) else "normal"
    what = {
        "normal": "SD of true effects between segments (tau)",
        "student_t": "scale of true effects between segments (tau); their tails are heavier than normal",
        "horseshoe": "scale of true effects between segments (tau), before some of them stand out",
    }[shape]
    left = [*(["dimensions"] if pool.by else []), *(["covariates"] if getattr(pool, "covariates", ()) else [])]
    return f"{what}, beyond what {' and '.join(left)} explain" if left else what


def _total_sd(posterior: xr.Dataset, coefficient: Coefficient, arm: str) -> xr.DataArray | None:
    """The SD of a segment's effect around its common effect, all terms together; None where there is no single one."""
    pool, name = coefficient.pool, coefficient.name
    variance = _of_arm(posterior[f"{name}_between"], arm) ** 2
    if isinstance(pool, Effect):
        if pool.strata or pool.shape == "horseshoe":
            return None
        if pool.shape == "student_t":
            nu = pool.nu or DEFAULT_NU
            if nu <= 2:
                return None
            variance = variance * nu / (nu - 2)
    for term in pool.by:
        variance = variance + _of_arm(posterior[f"{term_name(name, term)}_between"], arm) ** 2
    total: xr.DataArray = variance**0.5
    return total


def _about_tau(tree: xr.DataTree, tau: xr.DataArray, arm: str, question: Question) -> list[dict[str, Any]]:
    """I², and whether tau matters where the smallest effect that matters is stated on the same scale."""
    inconsistency = tau**2 / (tau**2 + _typical_variance(tree, arm))
    meaning = "share of the variation of raw estimates that is not chance (I²)"
    rows = [_row(arm, "i2", inconsistency, meaning, question)]
    same = question.scale == "link" or (question.scale == "absolute" and family_of(tree).link == "identity")
    if question.rope is not None and same:
        meaning = f"probability that tau exceeds {question.rope:g}, the smallest effect that matters"
        rows.append(_point(arm, "p_tau_matters", tau > question.rope, meaning))
    return rows


def _typical_variance(tree: xr.DataTree, arm: str) -> float:
    """The sampling variance of a typical segment: Higgins & Thompson (2002), Statistics in Medicine 21:1539."""
    family = family_of(tree)
    variance = family.effect_variance(family.statistics(cells_of(tree)), parameters(tree)).sel(arm=arm)
    sample = [dim for dim in SAMPLE if dim in variance.dims]
    w = (1 / variance.mean(sample)).values
    w = w[w > 0]
    if len(w) < 2:
        return float(1 / w.sum()) if len(w) else float("inf")
    return float((len(w) - 1) * w.sum() / (w.sum() ** 2 - (w**2).sum()))


def _spread(draws: xr.DataArray, share: xr.DataArray, arm: str, question: Question) -> list[dict[str, Any]]:
    """How much, and in which direction, the segments at hand differ on the reported scale."""
    mean = average(draws, share)
    spread = ((draws - mean) ** 2 * share).sum("segment") ** 0.5
    gain = draws if question.higher_is_better else -draws
    harmed: xr.DataArray = (gain < 0).mean(SAMPLE) > 0.9
    rows = [
        _row(arm, "spread", spread, f"SD of effects over the population, {question.scale} scale", question),
        _point(arm, "p_all_positive", (draws > 0).all("segment"), "probability that every effect is positive"),
        _point(arm, "p_all_negative", (draws < 0).all("segment"), "probability that every effect is negative"),
        _point(arm, "share_harmed", share.where(harmed, 0).sum(), "share of units in segments with P(harm) > .9"),
    ]
    if question.rope is not None:
        meaning = f"probability that the spread exceeds {question.rope:g}, the smallest effect that matters"
        rows.append(_point(arm, "p_spread_matters", spread > question.rope, meaning))
    return rows


def _crossing(draws: xr.DataArray, estimate: xr.Dataset, arm: str, question: Question) -> list[dict[str, Any]]:
    """Whether some segments gain while others lose: a qualitative interaction."""
    if draws.sizes["segment"] < 2:
        return []
    least = question.rope or 0.0
    crossed = (draws > least).any("segment") & (draws < -least).any("segment")
    enough = f" by more than {least:g}, the smallest effect that matters" if least else ""
    meaning = f"probability that some effects are positive and some negative{enough}"
    rows = [_point(arm, "p_qualitative", crossed, meaning)]
    p_value = gail_simon(estimate["raw"].values, estimate["raw_se"].values)
    if np.isfinite(p_value):
        meaning = "Gail–Simon test of a qualitative interaction on raw estimates: its p-value, not a probability of one"
        rows.append(_point(arm, "gail_simon_p", xr.DataArray(p_value), meaning))
    return rows


def gail_simon(estimate: NDArray[np.float64], se: NDArray[np.float64]) -> float:
    """The p-value of the test that all effects have one sign, whatever their sizes; NaN for fewer than two.

    min(Σ z² of the positive, Σ z² of the negative estimates) is largest under that hypothesis, in distribution, where
    one effect is infinite and all others are 0: then the number of estimates against the sign is binomial.

    References
    ----------
    Gail & Simon (1985), Biometrics 41:361.
    """
    usable = np.isfinite(estimate) & np.isfinite(se) & (se > 0)
    z = estimate[usable] / se[usable]
    others = len(z) - 1
    if others < 1:
        return float("nan")
    q = min((z[z > 0] ** 2).sum(), (z[z < 0] ** 2).sum())
    if q == 0:  # no estimate is against the others
        return 1.0
    h = np.arange(1, others + 1)
    binomial = np.exp(
        special.gammaln(others + 1) - special.gammaln(h + 1) - special.gammaln(others - h + 1) - others * np.log(2)
    )
    return float((binomial * special.chdtrc(h, q)).sum())


def _row(arm: str, quantity: str, draws: xr.DataArray, meaning: str, question: Question) -> dict[str, Any]:
    tail = (1 - question.ci_prob) / 2
    low, high = np.quantile(draws.values, [tail, 1 - tail])
    return {
        "arm": arm,
        "quantity": quantity,
        "value": float(draws.mean()),
        "ci_low": float(low),
        "ci_high": float(high),
        "meaning": meaning,
    }


def _point(arm: str, quantity: str, draws: xr.DataArray, meaning: str) -> dict[str, Any]:
    nan = float("nan")
    value = float(draws.mean())
    return {"arm": arm, "quantity": quantity, "value": value, "ci_low": nan, "ci_high": nan, "meaning": meaning}
