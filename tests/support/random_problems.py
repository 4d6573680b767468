"""Random one-way problems of every family: sizes, scales, priors, outliers, conflicts, sparse and precise cells.

A problem is a cell table and a model for the package, and plain arrays for the reference. It depends on a seed, the
family's name and its number alone, so that any of them can be made again.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from metropolis_reference import Array
from scipy import special

import bayes_hte as hte
from bayes_hte.spec import cell_table

FAMILIES = (
    "estimate", "mean", "normal", "binomial", "poisson", "negative_binomial", "ordinal", "piecewise_exponential",
    "two_part",
)  # fmt: skip
MAX_SEGMENTS = 6
ARMS = ("control", "email")


@dataclass(frozen=True)
class RandomProblem:
    """One problem: what the package gets, and its data as arrays (arm, segment[, level])."""

    family: str
    cells: xr.Dataset
    spec: dict[str, Any]
    data: dict[str, Array]

    @property
    def model(self) -> hte.Model:
        return hte.Model.model_validate(self.spec)


# ----------------------------------------------------------------------------------------------- priors


def draw_mean_prior(rng: np.random.Generator, sigma: float, mu: float = 0.0) -> dict[str, Any]:
    if rng.random() < 0.7:
        return {"dist": "Normal", "mu": mu, "sigma": sigma}
    return {"dist": "StudentT", "nu": float(rng.choice([1.0, 3.0, 5.0])), "mu": mu, "sigma": sigma}


def draw_sd_prior(rng: np.random.Generator, scale: float) -> dict[str, Any]:
    laws: list[dict[str, Any]] = [
        {"dist": "HalfNormal", "sigma": scale},
        {"dist": "HalfStudentT", "nu": 3.0, "sigma": scale},
        {"dist": "HalfCauchy", "beta": scale},
        {"dist": "Exponential", "scale": scale},
        {"dist": "Uniform", "lower": 0.0, "upper": 4 * scale},
        {"dist": "LogNormal", "mu": float(np.log(scale)), "sigma": 1.0},
        {"dist": "InverseGamma", "alpha": 2.0, "beta": scale},
    ]
    return laws[int(rng.choice(len(laws), p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]))]


def draw_priors(rng: np.random.Generator, unit: float, baseline_mean: float, baseline_scale: float) -> dict[str, Any]:
    """Shared priors of effects and baselines; `unit` is what the outcome is measured in."""
    effect_scale = unit * float(rng.choice([0.1, 0.5, 1.0, 3.0], p=[0.15, 0.35, 0.35, 0.15]))
    effect = {"mean": draw_mean_prior(rng, 2 * effect_scale), "between": draw_sd_prior(rng, effect_scale)}
    baseline = {
        "mean": draw_mean_prior(rng, baseline_scale, baseline_mean),
        "between": draw_sd_prior(rng, unit),
    }
    return {"effect": effect, "baseline": baseline}


def draw_truth(rng: np.random.Generator, spec: dict[str, Any], segments: int, unit: float) -> tuple[Array, Array]:
    """Baselines and effects: as the prior says, all alike, far from the prior, or with one outlier; (segment,)."""
    scale = spec["effect"]["mean"]["sigma"] / 2
    kind = rng.choice(["prior", "alike", "conflict", "outlier", "wide"], p=[0.4, 0.15, 0.15, 0.15, 0.15])
    mean, tau = scale * rng.normal(), scale * abs(rng.normal())
    if kind == "alike":
        tau = 0.0
    if kind == "conflict":
        mean = scale * rng.choice([-1, 1]) * rng.uniform(4, 10)
    if kind == "wide":
        tau = scale * rng.uniform(3, 10)
    effect = mean + tau * rng.normal(size=segments)
    if kind == "outlier":
        effect = mean + 0.1 * scale * rng.normal(size=segments)
        effect[0] += scale * rng.choice([-1, 1]) * rng.uniform(3, 8)
    return unit * rng.uniform(0, 1) * rng.normal(size=segments), effect


def draw_sizes(rng: np.random.Generator, segments: int, largest: float) -> Array:
    """Units per cell, (arm, segment): few, many, or from few to many within the same table."""
    low, high = ((0.0, 1.0), (1.0, 3.0), (3.0, 6.0), (0.3, 6.0))[int(rng.integers(4))]
    exponent = np.clip(rng.uniform(low, high, segments), 0, np.log10(largest))
    n = np.maximum(1, 10**exponent * rng.uniform(0.7, 1.4, (2, segments)))
    return np.floor(n)


# --------------------------------------------------------------------------------------------- families


def build_table(data: dict[str, Any], attrs: dict[str, Any] | None = None, **coords: Any) -> xr.Dataset:
    """Make a cell table; arrays have dims (arm, segment) or (arm, segment, third)."""
    third = next((name for name in coords if name in ("value", "interval")), None)
    segments = next(iter(data.values())).shape[1]
    arms = list(ARMS) if next(iter(data.values())).shape[0] == 2 else [ARMS[1]]
    names = [f"s{i}" for i in range(segments)]
    variables = {
        name: (("segment", "arm", *([third] if values.ndim == 3 and third else [])), np.swapaxes(values, 0, 1))
        for name, values in data.items()
    }
    extra = {name: values if isinstance(values, tuple) else (third, values) for name, values in coords.items()}
    table = xr.Dataset(
        variables,
        coords={"segment": names, "arm": arms, "device": ("segment", names)} | extra,
        attrs={"outcome": "y", "control": ARMS[0] if len(arms) == 2 else "",
               "dimensions": cell_table.encode_text_list(["device"]), "notes": "[]", **(attrs or {})},
    )  # fmt: skip
    return cell_table.check_cell_table(table)


def make_estimate(rng: np.random.Generator, segments: int) -> RandomProblem:
    unit = float(10.0 ** rng.integers(-4, 5))
    spec = {"family": "estimate", "effect": draw_priors(rng, unit, 0.0, unit)["effect"]}
    _, effect = draw_truth(rng, spec, segments, unit)
    se = unit * 10 ** rng.uniform(*[(-2.0, 0.0), (-0.5, 1.5), (-2.5, 1.0)][int(rng.integers(3))], segments)
    y = effect + se * rng.normal(size=segments)
    if rng.random() < 0.4:
        spec["effect"] |= {"shape": "student_t", "nu": float(rng.choice([3.0, 4.0, 10.0]))}
    data = {"estimate": y[None], "se": se[None]}
    return RandomProblem("estimate", build_table(data), spec, data)


def make_mean(rng: np.random.Generator, segments: int) -> RandomProblem:
    unit = float(10.0 ** rng.integers(-4, 5))
    spec = {"family": "mean", **draw_priors(rng, unit, 3 * unit, 2.5 * unit)}
    baseline, effect = draw_truth(rng, spec, segments, unit)
    baseline = baseline + 3 * unit
    se = unit / np.sqrt(draw_sizes(rng, segments, 1e6))
    mean = np.stack([baseline, baseline + effect]) + se * rng.normal(size=se.shape)
    data = {"mean": mean, "se": se}
    return RandomProblem("mean", build_table(data), spec, data)


def make_normal(rng: np.random.Generator, segments: int) -> RandomProblem:
    unit = float(10.0 ** rng.integers(-3, 4))
    prior = {"dist": "HalfNormal", "sigma": 2.0 * unit}
    spec = {"family": "normal", **draw_priors(rng, unit, 0.0, 2.5 * unit), "nuisance": {"sigma": prior}}
    baseline, effect = draw_truth(rng, spec, segments, unit)
    n = draw_sizes(rng, segments, 1e6) + 2
    sigma = unit * rng.uniform(0.3, 2.0, (2, 1))
    mean = np.stack([baseline, baseline + effect]) + sigma / np.sqrt(n) * rng.normal(size=n.shape)
    data = {"n": n, "mean": mean, "ss": sigma**2 * rng.chisquare(n - 1)}
    return RandomProblem("normal", build_table({**data, "n": n.astype(int)}), spec, data)


def make_binomial(rng: np.random.Generator, segments: int) -> RandomProblem:
    spec = {"family": "binomial", **draw_priors(rng, 1.0, 0.0, 2.5)}
    baseline, effect = draw_truth(rng, spec, segments, 1.0)
    baseline = baseline + rng.uniform(-4, 1)
    n = draw_sizes(rng, segments, 1e6)
    events = rng.binomial(n.astype(int), special.expit(np.stack([baseline, baseline + effect])))
    data = {"n": n, "events": events.astype(float)}
    return RandomProblem("binomial", build_table({"n": n.astype(int), "events": events}), spec, data)


def make_poisson(rng: np.random.Generator, segments: int) -> RandomProblem:
    spec = {"family": "poisson", **draw_priors(rng, 1.0, 0.0, 5.0)}
    baseline, effect = draw_truth(rng, spec, segments, 1.0)
    baseline = baseline + rng.uniform(-3, 2)
    exposure = draw_sizes(rng, segments, 1e5)
    events = rng.poisson(np.minimum(exposure * np.exp(np.stack([baseline, baseline + effect])), 1e9))
    data = {"events": events.astype(float), "exposure": exposure}
    return RandomProblem("poisson", build_table({"events": events, "exposure": exposure}), spec, data)


def make_negative_binomial(rng: np.random.Generator, segments: int) -> RandomProblem:
    prior = {"dist": "LogNormal", "mu": 0.0, "sigma": 1.5}
    spec = {"family": "negative_binomial", **draw_priors(rng, 0.5, 0.0, 2.5), "nuisance": {"alpha": prior}}
    baseline, effect = draw_truth(rng, spec, segments, 0.5)
    mean = np.exp(np.clip(np.stack([baseline, baseline + effect]) + rng.uniform(-1, 0.5), -4, 2.5))
    n, alpha = draw_sizes(rng, segments, 2000).astype(int), np.exp(rng.normal(0, 0.7, 2))
    counts = [[rng.negative_binomial(alpha[a], alpha[a] / (alpha[a] + mean[a, s]), n[a, s]) for s in range(segments)]
              for a in (0, 1)]  # fmt: skip
    top = max(1, *(int(each.max()) for arm in counts for each in arm))
    histogram = np.array([[np.bincount(each, minlength=top + 1) for each in arm] for arm in counts])
    if histogram[..., 1:].sum() == 0:
        histogram[1, 0, :2] += [-1, 1]
    data = {"n": n.astype(float), "histogram": histogram.astype(float)}
    table = build_table({"n": n, "histogram": histogram}, value=np.arange(top + 1.0))
    return RandomProblem("negative_binomial", table, spec, data)


def make_ordinal(rng: np.random.Generator, segments: int) -> RandomProblem:
    priors = draw_priors(rng, 1.0, 0.0, 2.5)
    spec = {"family": "ordinal", "effect": priors["effect"], "baseline": {"between": priors["baseline"]["between"]},
            "nuisance": {"cutpoints": {"dist": "Normal", "mu": 0.0, "sigma": 2.5}}}  # fmt: skip
    baseline, effect = draw_truth(rng, spec, segments, 0.5)
    levels = 3
    cuts = np.sort(rng.normal(0, 1.5, levels - 1))
    n = draw_sizes(rng, segments, 1e5).astype(int)
    below = special.expit(cuts - np.stack([baseline, baseline + effect])[..., None])
    p = np.diff(np.concatenate([np.zeros((2, segments, 1)), below, np.ones((2, segments, 1))], axis=-1))
    histogram = rng.multinomial(n, np.clip(p, 1e-15, 1) / np.clip(p, 1e-15, 1).sum(-1, keepdims=True))
    histogram[0, 0] += 1  # every level is seen, or the package would know one less
    n = histogram.sum(-1)
    data = {"n": n.astype(float), "histogram": histogram.astype(float)}
    return RandomProblem("ordinal", build_table({"n": n, "histogram": histogram}, value=np.arange(3.0)), spec, data)


def make_survival(rng: np.random.Generator, segments: int) -> RandomProblem:
    spec = {"family": "piecewise_exponential", **draw_priors(rng, 1.0, 0.0, 5.0),
            "nuisance": {"hazards": {"dist": "Normal", "mu": 0.0, "sigma": 1.0}}}  # fmt: skip
    baseline, effect = draw_truth(rng, spec, segments, 0.5)
    eta = np.stack([baseline, baseline + effect]) + rng.uniform(-4, -1)
    n = draw_sizes(rng, segments, 1e5)
    hazard = np.exp(np.minimum(eta, 0.5)[..., None] + np.array([0.0, rng.normal(0, 0.7)]))
    # Constant hazards within two intervals of length 1: those who fail in one are at risk for half of it.
    first = np.minimum(rng.poisson(n * -np.expm1(-hazard[..., 0])), n)
    second = np.minimum(rng.poisson((n - first) * -np.expm1(-hazard[..., 1])), n - first)
    failures = np.stack([first, second], axis=-1)
    at_risk = np.stack([n - first / 2, np.maximum(n - first - second / 2, 0.0)], axis=-1)
    if failures.sum() == 0:
        failures[1, 0, 0] = 1
    table = build_table(
        {"n": n.astype(int), "failures": failures.astype(int), "at_risk": at_risk}, {"horizon": 2.0},
        interval=["0-1", "1-2"], start=("interval", [0.0, 1.0]), end=("interval", [1.0, 2.0]),
    )  # fmt: skip
    return RandomProblem("piecewise_exponential", table, spec, {"failures": failures.astype(float), "at_risk": at_risk})


def make_two_part(rng: np.random.Generator, segments: int) -> RandomProblem:
    amount = draw_priors(rng, 1.0, 3.0, 2.5)
    spec = {"family": "two_part", **draw_priors(rng, 1.0, 0.0, 2.5), "amount": amount,
            "nuisance": {"sigma": {"dist": "HalfNormal", "sigma": 0.7}}}  # fmt: skip
    baseline, effect = draw_truth(rng, spec, segments, 1.0)
    amounts, gains = draw_truth(rng, amount, segments, 1.0)
    n = draw_sizes(rng, segments, 1e6) + 20
    p = special.expit(np.stack([baseline, baseline + effect]) + rng.uniform(-2, 0))
    positive = rng.binomial(n.astype(int), p)
    positive[:, 0] = np.maximum(positive[:, 0], 4)
    positive = np.minimum(positive, n.astype(int))
    sigma = rng.uniform(0.4, 1.0, (2, 1))
    some = np.maximum(positive, 1)
    log_mean = 3.0 + np.stack([amounts, amounts + gains]) + sigma / np.sqrt(some) * rng.normal(size=n.shape)
    log_ss = np.where(positive > 1, sigma**2 * rng.chisquare(np.maximum(positive - 1, 1)), 0.0)
    mean = positive / n * np.exp(log_mean + sigma**2 / 2)
    square = positive * np.exp(2 * log_mean + 2 * sigma**2)
    data = {"n": n, "positive": positive.astype(float), "log_mean": log_mean, "log_ss": log_ss}
    table = {"n": n.astype(int), "positive": positive, "mean": mean, "ss": np.maximum(square - n * mean**2, 0.0),
             "log_mean": np.where(positive > 0, log_mean, np.nan), "log_ss": log_ss}  # fmt: skip
    return RandomProblem("two_part", build_table(table), spec, data)


MAKERS: dict[str, Callable[[np.random.Generator, int], RandomProblem]] = {
    "estimate": make_estimate, "mean": make_mean, "normal": make_normal, "binomial": make_binomial,
    "poisson": make_poisson, "negative_binomial": make_negative_binomial, "ordinal": make_ordinal,
    "piecewise_exponential": make_survival, "two_part": make_two_part,
}  # fmt: skip


def make_problem(family: str, number: int, seed: int) -> RandomProblem:
    rng = np.random.default_rng([seed, zlib.crc32(family.encode()), number])
    return MAKERS[family](rng, int(rng.integers(1, MAX_SEGMENTS + 1)))
