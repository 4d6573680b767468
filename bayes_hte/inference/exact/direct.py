"""Published estimates, from a problem to posterior draws: see `estimates` for the mathematics."""

import numpy as np

from bayes_hte.inference.draws import CHAIN_COUNT, Draws
from bayes_hte.inference.exact.common_mean import Common, draw_mean, integrate_mean, to_natural
from bayes_hte.inference.exact.estimates import Arm, arms_of, effects_given, list_separate, sign
from bayes_hte.inference.exact.panels import Panels
from bayes_hte.inference.exact.space import Array
from bayes_hte.model.problem import Problem
from bayes_hte.spec.distributions import Normal


def arms(task: Problem) -> list[Arm]:
    """The problem of every arm."""
    statistics = task.cell_statistics.transpose("segment", "arm", ...)
    covariance = statistics["covariance"].values if "covariance" in statistics else None
    return arms_of(task.model, statistics["estimate"].values, statistics["se"].values, covariance)


def posterior(task: Problem, *, draws: int, seed: int) -> Draws:
    """Independent draws, and probabilities of signs that are exact to quadrature error."""
    rng = np.random.default_rng([seed, 4])
    count = CHAIN_COUNT * -(-draws // CHAIN_COUNT)
    if is_separate(task):
        return _draw_separate(task, count, rng)
    taus, means, effects, signs = [], [], [], []
    coarse, evidence = 0.0, 0.0
    for arm in arms(task):
        nodes = arm.nodes()
        coarse = max(coarse, nodes.error)
        evidence += nodes.log_evidence
        tau, mean = arm.draw(count, rng)
        taus.append(tau)
        means.append(mean)
        effects.append(_drawn(arm, tau, mean, rng))
        signs.append(sign(arm.data, nodes))
    shared = {"effect_mean": np.stack(means, 1), "effect_between": np.stack(taus, 1)}
    kept = {"partial": shared, "complete": {"effect_mean": shared["effect_mean"]}, "none": {}}[task.model.pooling]
    probability = np.stack(signs, 1)
    return _package(task, {**kept, "effect": np.stack(effects, 2)}, probability, (coarse, evidence))


def is_separate(task: Problem) -> bool:
    """Tell whether every segment is a problem of its own, with more than a normal to integrate."""
    return task.model.pooling == "none" and not isinstance(task.model.effect.mean, Normal)


def integrate_separate(task: Problem) -> list[tuple[Common, Panels]]:
    """Integrate every segment's effect by itself, arm by arm: likelihoods, and panels whose rows are segments."""
    statistics = task.cell_statistics.transpose("segment", "arm", ...)
    likelihoods = [
        list_separate(estimate, se)
        for estimate, se in zip(statistics["estimate"].values.T, statistics["se"].values.T, strict=True)
    ]
    return [(own, integrate_mean(own, task.model.effect.mean)) for own in likelihoods]


def _draw_separate(task: Problem, count: int, rng: np.random.Generator) -> Draws:
    """Draw every segment's effect by itself, from its own prior and estimate."""
    prior = task.model.effect.mean
    segments, arms = (task.cell_statistics.sizes[dim] for dim in ("segment", "arm"))
    effects, signs = np.empty((count, segments, arms)), np.empty((segments, arms))
    coarse, evidence = 0.0, 0.0
    for arm, (own, panels) in enumerate(integrate_separate(task)):
        terms = panels.log_terms - panels.log_total[panels.row, None]
        is_positive = to_natural(panels.nodes, prior) > 0
        signs[:, arm] = np.bincount(panels.row, weights=(np.exp(terms) * is_positive).sum(1), minlength=segments)
        coarse, evidence = max(coarse, float(panels.error.max())), evidence + float(panels.log_total.sum())
        for segment in range(segments):
            ranks = (rng.permutation(count) + rng.random(count)) / count
            effects[:, segment, arm] = draw_mean(own.pick(np.full(count, segment)), prior, ranks)
    return _package(task, {"effect": effects}, np.clip(signs, 0.0, 1.0), (coarse, evidence))


def _package(task: Problem, arrays: dict[str, Array], probability: Array, quality: tuple[float, float]) -> Draws:
    """Name the dims of independent draws, and certify them by the error of their integrals."""
    error, log_evidence = quality
    statistics = {
        "pareto_k": -np.inf,
        "effective_points": float(len(arrays["effect"])),
        "quadrature_error": error,
        "acceptance": 1.0,
        "log_evidence": log_evidence,
    }
    return Draws.from_arrays(
        task, arrays, statistics, {"p_positive": probability, "p_positive_mcse": np.zeros_like(probability)}
    )


def _drawn(arm: Arm, tau: Array, mean: Array, rng: np.random.Generator) -> Array:
    """Effects given τ and m: (draw, segment)."""
    effect, sd = effects_given(arm.data, tau, mean)
    effect += sd * rng.standard_normal(sd.shape)
    return effect if arm.data.axes is None else effect @ arm.data.axes.T
