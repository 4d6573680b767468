"""Synthetic data of every family and structure that has a long NUTS run: what, cells, model.

Data are generated with a seed and reduced here, without the package's own reader.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

import bayes_hte as hte
from bayes_hte.spec import cell_table

Made = tuple[str, xr.Dataset, hte.Model]
CELL = ("segment", "arm")


def made(data: dict[str, Any], **coords: Any) -> xr.Dataset:
    """A checked cell table; data are arrays (segment, arm) or pairs of dims and array."""
    pairs = {name: values if isinstance(values, tuple) else (CELL, values) for name, values in data.items()}
    segments, arms = next(iter(pairs.values()))[1].shape[:2]
    labels = [f"s{i + 1:02d}" for i in range(segments)]
    names = ["control", *(f"arm {i}" for i in range(1, arms))]
    attrs: dict[str, Any] = {
        "outcome": "y",
        "control": "control",
        "dimensions": cell_table.encode_text_list(["group"]),
        "notes": "[]",
    }
    if "horizon" in coords:
        attrs["horizon"] = coords.pop("horizon")
    coords |= {"segment": labels, "arm": names, "group": ("segment", labels)}
    return cell_table.check_cell_table(xr.Dataset(pairs, coords=coords, attrs=attrs))


def predictors(rng: np.random.Generator, segments: int, centre: float, effect: list[float], tau: float) -> np.ndarray:
    """Baseline and effects of every segment, added up: (segment, arm)."""
    shift = np.array(effect) + tau * rng.standard_normal((segments, len(effect)))
    return rng.normal(centre, 0.4, (segments, 1)) + np.column_stack([np.zeros(segments), shift])


def rates() -> Made:
    rng = np.random.default_rng(601)
    exposure = rng.uniform(2.0, 80.0, (12, 3))
    exposure[4, 2] = 0.0
    eta = predictors(rng, 12, -1.5, [0.3, -0.2], 0.3)
    cells = made({"events": rng.poisson(exposure * np.exp(eta)), "exposure": exposure})
    return "Synthetic: events over an exposure, 12 segments, two treated arms", cells, hte.read_model("rates")


def counts() -> Made:
    rng = np.random.default_rng(602)
    n, alpha = rng.integers(5, 80, (12, 2)), np.array([0.6, 1.1])
    mean = np.exp(predictors(rng, 12, 0.2, [0.3], 0.3))
    units = [[rng.negative_binomial(alpha[a], alpha[a] / (alpha[a] + mean[s, a]), n[s, a]) for a in (0, 1)]
             for s in range(12)]  # fmt: skip
    values = np.arange(1.0 + max(y.max() for pair in units for y in pair))
    histogram = np.array([[np.bincount(y, minlength=len(values)) for y in pair] for pair in units])
    cells = made({"n": n, "histogram": ((*CELL, "value"), histogram)}, value=values)
    return "Synthetic: counts per unit, overdispersed, 12 segments", cells, hte.read_model("counts")


def ordered() -> Made:
    rng = np.random.default_rng(603)
    n, cuts = rng.integers(10, 70, (12, 2)), np.array([-1.5, -0.5, 0.4, 1.6])
    latent = predictors(rng, 12, 0.0, [0.4], 0.3)
    below = 1 / (1 + np.exp(latent[..., None] - cuts))
    share = np.diff(np.concatenate([np.zeros((12, 2, 1)), below, np.ones((12, 2, 1))], axis=-1))
    histogram = rng.multinomial(n, share)
    cells = made({"n": n, "histogram": ((*CELL, "value"), histogram)}, value=np.arange(1.0, 6.0))
    return "Synthetic: answers from 1 to 5, 12 segments", cells, hte.read_model("ordered-scale")


def survival() -> Made:
    rng = np.random.default_rng(604)
    n, edges = rng.integers(8, 60, (12, 2)), np.array([0.0, 2.0, 5.0, 9.0])
    rate = np.exp(predictors(rng, 12, -1.8, [-0.4], 0.3))
    failures, at_risk = np.zeros((12, 2, 3), dtype=int), np.zeros((12, 2, 3))
    for s, a in np.ndindex(12, 2):
        stop = rng.uniform(3.0, 9.0, n[s, a])
        time = rng.weibull(0.8, n[s, a]) / rate[s, a]
        spent = np.minimum(time, stop)
        for j in range(3):
            at_risk[s, a, j] = np.clip(np.minimum(spent, edges[j + 1]) - edges[j], 0, None).sum()
            failures[s, a, j] = ((time <= stop) & (time > edges[j]) & (time <= edges[j + 1])).sum()
    deep = (*CELL, "interval")
    cells = made(
        {"n": n, "failures": (deep, failures), "at_risk": (deep, at_risk)},
        interval=["0-2", "2-5", "5-9"], start=("interval", edges[:-1]), end=("interval", edges[1:]), horizon=6.0,
    )  # fmt: skip
    return "Synthetic: times until an event with censoring, 12 segments", cells, hte.read_model("survival")


def covariate_outliers() -> Made:
    rng = np.random.default_rng(605)
    n, z = rng.integers(100, 900, (14, 2)), rng.normal(50.0, 12.0, (14, 1))
    eta = predictors(rng, 14, -1.5, [0.2], 0.15)
    eta[:, 1] += 0.25 * (z[:, 0] - 50.0) / 12.0
    eta[3, 1] += 1.2
    cells = made({"n": n, "events": rng.binomial(n, 1 / (1 + np.exp(-eta)))}).assign(
        covariates=(("segment", "covariate"), z)
    )
    content = hte.read_model("conversion-outliers").model_dump(exclude_none=True)
    content["effect"] |= {"covariates": ["age"], "slope": {"dist": "Normal", "mu": 0.0, "sigma": 0.5}}
    what = "Synthetic: yes or no, 14 segments with a covariate, one of them an outlier"
    return what, cell_table.check_cell_table(cells.assign_coords(covariate=["age"])), hte.Model.model_validate(content)


def correlated() -> Made:
    rng = np.random.default_rng(606)
    n, base = rng.integers(40, 600, (15, 3)), rng.standard_normal((15, 1))
    own = rng.standard_normal((15, 2))
    effect = np.array([0.2, 0.4]) + 0.35 * (np.array([0.7, -0.3]) * base + np.array([0.71, 0.95]) * own)
    eta = -1.5 + 0.5 * base + np.column_stack([np.zeros(15), effect])
    cells = made({"n": n, "events": rng.binomial(n, 1 / (1 + np.exp(-eta)))})
    what = "Synthetic: yes or no, 15 segments, two treated arms, effects correlated with baselines"
    return what, cells, hte.read_model("conversion-correlated")


def revenue() -> Made:
    rng = np.random.default_rng(607)
    n = rng.integers(20, 200, (10, 2))
    chance, amount = predictors(rng, 10, -1.2, [0.3], 0.3), predictors(rng, 10, 3.0, [0.1], 0.15)
    p = 1 / (1 + np.exp(-chance))
    rows = [[rng.binomial(1, p[s, a], n[s, a]) * rng.lognormal(amount[s, a], 0.9 + 0.2 * a, n[s, a]) for a in (0, 1)]
            for s in range(10)]  # fmt: skip
    logs = [[np.log(y[y > 0]) for y in pair] for pair in rows]

    def each(function: Callable[[Any], Any], data: list[list[Any]]) -> np.ndarray:
        return np.array([[function(y) for y in pair] for pair in data])

    def squares(y: Any) -> float:
        return float(((y - y.mean()) ** 2).sum())

    data = {
        "n": n, "positive": each(len, logs), "mean": each(np.mean, rows), "ss": each(squares, rows),
        "log_mean": each(np.mean, logs), "log_ss": each(squares, logs),
    }  # fmt: skip
    return "Synthetic: revenue, mostly 0 and skewed, 10 segments", made(data), hte.read_model("revenue")


MADE: dict[str, Callable[[], Made]] = {
    each.__name__: each for each in (rates, counts, ordered, survival, covariate_outliers, correlated, revenue)
}
