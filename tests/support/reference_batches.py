"""What the random walk gets of random problems: likelihoods, priors, rough curvatures and first guesses as arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from metropolis_reference import Array, Batch, Priors, pack_priors, softplus
from numpy.typing import NDArray
from random_problems import MAX_SEGMENTS, RandomProblem
from scipy import special


def pad(problems: Sequence[RandomProblem], name: str, fill: float = 0.0) -> Array:
    """Stack a statistic of all problems, (arm, problem, segment[, level]), with `fill` where there is no segment."""
    arrays = [problem.data[name] for problem in problems]
    deepest = max(each.shape[2] for each in arrays) if arrays[0].ndim == 3 else 0
    shape = (arrays[0].shape[0], len(arrays), MAX_SEGMENTS, *([deepest] if deepest else []))
    stacked = np.full(shape, fill)
    for number, each in enumerate(arrays):
        stacked[(slice(None), number, slice(each.shape[1]), *([slice(each.shape[2])] if deepest else []))] = each
    return stacked


def find_present(problems: Sequence[RandomProblem]) -> NDArray[np.bool_]:
    counts = [next(iter(problem.data.values())).shape[1] for problem in problems]
    return np.arange(MAX_SEGMENTS) < np.array(counts)[:, None]


def pack_block(problems: Sequence[RandomProblem], part: str, *path: str) -> Priors:
    specs = []
    for problem in problems:
        place = problem.spec
        for key in path:
            place = place[key]
        block = place[part]
        specs.append((block.get("mean", {"dist": "Normal", "mu": 0.0, "sigma": 1.0}), block["between"]))
    return pack_priors(specs)


def pack_means(problems: Sequence[RandomProblem], *path: str) -> dict[str, Any]:
    return {"present": find_present(problems), "effect": pack_block(problems, "effect", *path),
            "baseline": pack_block(problems, "baseline", *path)}  # fmt: skip


def broadcast(values: Array) -> Array:
    """(arm, problem, segment) -> (arm, problem, 1, segment): the same for every chain."""
    return values[:, :, None]


def pack_estimate(problems: Sequence[RandomProblem]) -> Batch:
    y, se = pad(problems, "estimate"), pad(problems, "se", 1.0)
    yy, ss = broadcast(y)[0], broadcast(se)[0]
    heavy = np.array([problem.spec["effect"].get("nu", np.inf) for problem in problems])[:, None]
    effect = pack_block(problems, "effect")
    return Batch(
        lambda arm, eta, nuisance: -0.5 * ((yy - eta) / ss) ** 2, np.stack([np.zeros_like(se[0]), se[0] ** -2]),
        np.stack([np.zeros_like(y[0]), y[0]]), find_present(problems), effect, None, heavy=heavy,
    )  # fmt: skip


def pack_mean(problems: Sequence[RandomProblem]) -> Batch:
    mean, se = pad(problems, "mean"), pad(problems, "se", 1.0)
    m, s = broadcast(mean), broadcast(se)
    return Batch(
        lambda arm, eta, nuisance: -0.5 * ((m[arm] - eta) / s[arm]) ** 2, se**-2.0, mean, **pack_means(problems)
    )


def pack_moments(
    problems: Sequence[RandomProblem], names: tuple[str, str, str], sigmas: Sequence[dict[str, Any]], *path: str
) -> Batch:
    """Normal outcomes with an SD per arm: log sigma is the nuisance, with a half-normal prior on sigma."""
    n, mean, ss = (pad(problems, name) for name in names)
    mean = np.where(n > 0, mean, 0.0)
    squares = ss.sum(-1).T  # (problem, arm)
    freedom = np.maximum(n - 1, 0).sum(-1).T
    known = (freedom > 0) & (squares > 0)
    freedom, squares = np.where(known, freedom, 0.0), np.where(known, squares, 0.0)
    scale = np.array([each["sigma"] for each in sigmas])[:, None, None]
    sigma = np.sqrt(np.where(known, squares, scale[:, 0] ** 2) / np.maximum(freedom, 1))
    nn, mm = broadcast(n), broadcast(mean)

    def log_likelihood(arm: int, eta: Array, nuisance: Array) -> Array:
        log_sigma = nuisance[..., arm, None]
        return -0.5 * nn[arm] * (mm[arm] - eta) ** 2 * np.exp(-2 * log_sigma) - log_sigma * (nn[arm] > 0)

    def log_nuisance(log_sigma: Array) -> Array:
        # SS | sigma ~ sigma² chi², the half-normal prior, and the Jacobian of the logarithm
        within = -freedom[:, None] * log_sigma - 0.5 * squares[:, None] * np.exp(-2 * log_sigma)
        return (within - 0.5 * (np.exp(log_sigma) / scale) ** 2 + log_sigma).sum(-1)

    information = n / sigma.T[..., None] ** 2
    return Batch(
        log_likelihood, information, mean, **pack_means(problems, *path), nuisance_start=np.log(sigma),
        nuisance_step=1 / np.sqrt(2 * freedom + 2), log_nuisance=log_nuisance,
    )  # fmt: skip


def pack_normal(problems: Sequence[RandomProblem]) -> Batch:
    return pack_moments(problems, ("n", "mean", "ss"), [each.spec["nuisance"]["sigma"] for each in problems])


def pack_amounts(problems: Sequence[RandomProblem]) -> Batch:
    sigmas = [each.spec["nuisance"]["sigma"] for each in problems]
    return pack_moments(problems, ("positive", "log_mean", "log_ss"), sigmas, "amount")


def pack_counts(problems: Sequence[RandomProblem], events: str) -> Batch:
    n, y = pad(problems, "n"), pad(problems, events)
    nn, yy = broadcast(n), broadcast(y)
    share = (y + 0.5) / (n + 1)
    return Batch(
        lambda arm, eta, nuisance: yy[arm] * eta - nn[arm] * softplus(eta), n * share * (1 - share),
        special.logit(share), **pack_means(problems),
    )  # fmt: skip


def pack_poisson(problems: Sequence[RandomProblem]) -> Batch:
    y, exposure = pad(problems, "events"), pad(problems, "exposure")
    yy, tt = broadcast(y), broadcast(exposure)
    return Batch(
        lambda arm, eta, nuisance: yy[arm] * eta - tt[arm] * np.exp(eta), y + 0.5,
        np.log((y + 0.5) / (exposure + 0.5)), **pack_means(problems),
    )  # fmt: skip


def pack_negative_binomial(problems: Sequence[RandomProblem]) -> Batch:
    n, histogram = pad(problems, "n"), pad(problems, "histogram")
    total = (histogram * np.arange(histogram.shape[-1])).sum(-1)
    nn, tt = broadcast(n), broadcast(total)
    # log Γ(k + alpha) / Γ(alpha) = Σ_{j < k} log(alpha + j): units with a count above j, (arm, problem, j)
    by_arm = histogram.sum(2)
    above = by_arm.sum(-1, keepdims=True) - np.cumsum(by_arm, axis=-1)
    j = np.arange(histogram.shape[-1])

    def log_likelihood(arm: int, eta: Array, nuisance: Array) -> Array:
        log_alpha = nuisance[..., arm, None]
        weight = tt[arm] + nn[arm] * np.exp(log_alpha)
        return tt[arm] * (eta - log_alpha) - weight * softplus(eta - log_alpha)

    def log_nuisance(log_alpha: Array) -> Array:
        rising = [(above[a][:, None] * np.log(np.exp(log_alpha[..., a, None]) + j)).sum(-1) for a in (0, 1)]
        return rising[0] + rising[1] - 0.5 * ((log_alpha / 1.5) ** 2).sum(-1)

    start = np.log((total + 0.5) / (n + 0.5))
    return Batch(
        log_likelihood, (total + 0.5) / (1 + np.exp(start)), start, **pack_means(problems),
        nuisance_start=np.zeros((len(problems), 2)), nuisance_step=1 / np.sqrt(0.2 * above[..., 0].T + 0.5),
        log_nuisance=log_nuisance,
    )  # fmt: skip


def pack_ordinal(problems: Sequence[RandomProblem]) -> Batch:
    histogram = pad(problems, "histogram")
    h, n = histogram[:, :, None], histogram.sum(-1)

    def log_likelihood(arm: int, eta: Array, nuisance: Array) -> Array:
        # The nuisance: the lower cutpoint, and the log of the distance to the upper one
        low = nuisance[..., 0, None]
        high = low + np.exp(nuisance[..., 1, None])
        top, bottom = -softplus(high - eta), -softplus(eta - low)
        # P(middle) = F(high - eta) F(eta - low) (1 - e^(low - high))
        middle = -softplus(eta - high) - softplus(low - eta) + np.log(-np.expm1(low - high))
        return h[arm, ..., 0] * bottom + h[arm, ..., 1] * middle + h[arm, ..., 2] * top

    def log_nuisance(values: Array) -> Array:
        low, high = values[..., 0], values[..., 0] + np.exp(values[..., 1])
        return -0.5 * (low**2 + high**2) / 2.5**2 + values[..., 1]

    totals = histogram.sum((0, 2)) + 0.5
    below = special.logit(np.cumsum(totals, axis=-1)[:, :2] / totals.sum(-1, keepdims=True))
    return Batch(
        log_likelihood, 0.2 * n, np.zeros_like(n), **pack_means(problems), fixed_baseline_mean=True,
        nuisance_start=np.stack([below[:, 0], np.log(below[:, 1] - below[:, 0])], axis=-1),
        nuisance_step=1 / np.sqrt(totals[:, [1, 1]] * 0.5 + 1), log_nuisance=log_nuisance,
    )  # fmt: skip


def pack_survival(problems: Sequence[RandomProblem]) -> Batch:
    d, t = pad(problems, "failures"), pad(problems, "at_risk")
    dd, tt = d[:, :, None], t[:, :, None]

    def log_likelihood(arm: int, eta: Array, nuisance: Array) -> Array:
        hazard = nuisance[..., 0, None]
        return dd[arm].sum(-1) * eta + dd[arm, ..., 1] * hazard - (
            tt[arm, ..., 0] + tt[arm, ..., 1] * np.exp(hazard)) * np.exp(eta)  # fmt: skip

    later = d[..., 1].sum((0, 2))[:, None]
    return Batch(
        log_likelihood, d.sum(-1) + 0.5, np.log((d.sum(-1) + 0.5) / (t.sum(-1) + 0.5)), **pack_means(problems),
        nuisance_start=np.zeros((len(problems), 1)), nuisance_step=1 / np.sqrt(later + 1),
        log_nuisance=lambda values: -0.5 * (values**2).sum(-1),
    )  # fmt: skip


PACKERS: dict[str, tuple[Callable[[Sequence[RandomProblem]], Batch], ...]] = {
    "estimate": (pack_estimate,), "mean": (pack_mean,), "normal": (pack_normal,),
    "binomial": (lambda problems: pack_counts(problems, "events"),), "poisson": (pack_poisson,),
    "negative_binomial": (pack_negative_binomial,), "ordinal": (pack_ordinal,),
    "piecewise_exponential": (pack_survival,),
    "two_part": (lambda problems: pack_counts(problems, "positive"), pack_amounts),
}  # fmt: skip
"""The parts of each family, whose posteriors are independent."""
