"""Two parts: an outcome that is mostly 0 and skewed where it is not: revenue, donations, costs.

positive[s, a] ~ Binomial(n[s, a], p[s, a]);   logit p = chance_baseline[s] + chance_effect[s, a]
log y[i]       ~ Normal(amount_baseline[s] + amount_effect[s, a], sigma[a])     for units with y[i] > 0

Everything is reported of the mean outcome, p exp(amount + sigma² / 2): `effect` is the log of the ratio of means and
`baseline` the log of the control's mean, made of both parts draw by draw.
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy import special

from bayes_hte.errors import DataError
from bayes_hte.families import binomial, normal
from bayes_hte.families.family import Family, against_control, exponential, need, no_spread, on_log_scale
from bayes_hte.layout import Parameters, linear_predictor, variant_values
from bayes_hte.priors import Given
from bayes_hte.schema import Scale
from bayes_hte.structure import AMOUNT, CHANCE

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def statistics(cells: xr.Dataset) -> xr.Dataset:
    """Units, those with a positive outcome, moments of its logarithm, and the mean of all for the raw estimate."""
    names = ["n", "positive", "log_mean", "log_ss", "mean", "ss"]
    found = need(cells, names, family="two_part", why='make the cells with metric="two_part"')
    if int(found["positive"].sum()) == 0:
        raise DataError("no positive outcome in any cell: there is nothing to compare")
    if float(found["log_ss"].sum()) <= 0:
        raise DataError("positive outcomes do not vary within any cell: use family binomial for whether there was one")
    return found


def chance(cells: xr.Dataset) -> xr.Dataset:
    """The first part as counts."""
    return cells[["n"]].assign(events=cells["positive"]).assign_attrs(cells.attrs)


def amount(cells: xr.Dataset) -> xr.Dataset:
    """The second part as moments."""
    names = {"positive": "n", "log_mean": "mean", "log_ss": "ss"}
    return cells[list(names)].rename(names).assign_attrs(cells.attrs)


def likelihood(
    cells: xr.Dataset, eta: "dict[str, TensorVariable]", nuisance: "dict[str, TensorVariable]", given: Given
) -> None:
    """Binomial × normal of the logarithm, through its sufficient statistics."""
    import pymc as pm

    sigma, arm = nuisance["sigma"], cells["arm_index"].values
    bought = np.flatnonzero(cells["positive"].values > 0)
    n, positive = given("n", cells["n"].values), given("positive", cells["positive"].values)
    log_mean = given("log_mean", cells["log_mean"].values[bought])
    root = given("root_positive", np.sqrt(cells["positive"].values[bought]))
    total, freedom = normal.within_arm(amount(cells).assign(arm_index=cells["arm_index"]))
    seen = np.flatnonzero((freedom > 0) & (total > 0))
    log_ss, half = given("log_ss", total[seen]), given("half_freedom", freedom[seen] / 2)

    pm.Binomial("positive", n=n, logit_p=eta[CHANCE], observed=positive, dims="cell")
    pm.Normal("log_mean", eta[AMOUNT][bought], sigma[arm[bought]] / root, observed=log_mean)
    pm.Gamma("log_ss", alpha=half, beta=0.5 / sigma[seen] ** 2, observed=log_ss)


def headline(parameters: Parameters) -> dict[str, xr.DataArray]:
    """effect and baseline, of the log of the mean outcome, from the draws of both parts."""
    variance = 0.5 * parameters["sigma"] ** 2
    baseline = _log_mean(
        parameters[f"{CHANCE}baseline"], parameters[f"{AMOUNT}baseline"], variance.isel(variant=0, drop=True)
    )
    treated = _log_mean(
        parameters[f"{CHANCE}baseline"] + parameters[f"{CHANCE}effect"],
        parameters[f"{AMOUNT}baseline"] + parameters[f"{AMOUNT}effect"],
        variance.isel(variant=slice(1, None)).rename(variant="arm"),
    )
    effect = (treated - baseline).transpose(*parameters[f"{CHANCE}effect"].dims)
    return {"effect": effect, "baseline": baseline.transpose(*parameters[f"{CHANCE}baseline"].dims)}


def _log_mean(log_odds: xr.DataArray, log_amount: xr.DataArray, half_variance: xr.DataArray) -> xr.DataArray:
    log_chance = log_odds.copy(data=special.log_expit(log_odds.values))
    return log_chance + log_amount + half_variance


def _predictors(cells: xr.Dataset, parameters: Parameters) -> tuple[xr.DataArray, xr.DataArray]:
    parts = (
        linear_predictor(cells, {"effect": parameters[f"{prefix}effect"], "baseline": parameters[f"{prefix}baseline"]})
        for prefix in (CHANCE, AMOUNT)
    )
    first, second = parts
    return first, second


def log_likelihood(cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
    """Log density of the cell's units, both parts."""
    first, second = _predictors(cells, parameters)
    counted = binomial.CURVE.log_likelihood(chance(cells), first, parameters)
    chosen = special.gammaln(cells["n"] + 1) - special.gammaln(cells["positive"] + 1)
    chosen = chosen - special.gammaln(cells["n"] - cells["positive"] + 1)
    part = amount(cells).assign(arm_index=cells["arm_index"], mean=amount(cells)["mean"].fillna(0.0))
    measured = normal.log_likelihood(part, second, parameters)
    # Units are known one by one here, not only how many of them were positive.
    return (counted - chosen + measured).transpose(*eta.dims)


def predictive(
    cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Replicated numbers of positive outcomes, and means of their logarithm where there were any."""
    first, second = _predictors(cells, parameters)
    positive = rng.binomial(cells["n"].values, special.expit(first.values))
    sigma = variant_values(cells, parameters["sigma"]).transpose(*second.dims).values
    se = sigma / np.sqrt(np.maximum(cells["positive"].values, 1))
    return {"positive": first.copy(data=positive), "log_mean": second.copy(data=rng.normal(second.values, se))}


def raw(cells: xr.Dataset, scale: Scale) -> xr.Dataset:
    """Difference or ratio of plain means with Welch's standard error, which assumes no distribution."""
    n = cells["n"]
    variance = cells["ss"] / (n - 1).where(n > 1) / n
    return on_log_scale(cells["mean"], variance) if scale == "link" else against_control(cells["mean"], variance, scale)


def effect_variance(cells: xr.Dataset, parameters: Parameters) -> xr.DataArray:
    """Delta method for the log ratio of means: what n and the expected number of positive outcomes tell of both parts.

    The log of the mean moves by 1 − p per log-odds, and by 1 per unit of the log amount.
    """
    log_odds = parameters[f"{CHANCE}baseline"]
    control = _of_arm(cells["n"].isel(arm=0, drop=True), log_odds, parameters["sigma"].isel(variant=0, drop=True))
    sigma = parameters["sigma"].isel(variant=slice(1, None)).rename(variant="arm")
    return control + _of_arm(cells["n"].isel(arm=slice(1, None)), log_odds + parameters[f"{CHANCE}effect"], sigma)


def _of_arm(n: xr.DataArray, log_odds: xr.DataArray, sigma: xr.DataArray) -> xr.DataArray:
    p = binomial.probability(log_odds)
    with np.errstate(divide="ignore"):
        return (1 - p) / (n * p) + sigma**2 / (n * p)


def between_variance(posterior: xr.Dataset) -> xr.DataArray:
    """Of the log ratio of means between segments, to first order: (1 − p)² tau² of chances + tau² of amounts."""
    p = binomial.probability(posterior[f"{CHANCE}baseline"])
    found: xr.DataArray = (1 - p) ** 2 * posterior[f"{CHANCE}effect_between"] ** 2
    return found + posterior[f"{AMOUNT}effect_between"] ** 2


FAMILY = Family(
    name="two_part",
    link="log",
    ratio="ratio of means",
    percent=False,
    has_baseline=True,
    statistics=statistics,
    likelihood=likelihood,
    curve=None,
    log_likelihood=log_likelihood,
    predictive=predictive,
    predictive_names=("positive", "log_mean"),
    mean=exponential,
    raw=raw,
    effect_variance=effect_variance,
    control_location=no_spread,
)
