"""Published estimates, from a problem to posterior draws: see `estimates` for the mathematics."""

import numpy as np

from bayes_hte.inference.draws import CHAIN_COUNT, Draws
from bayes_hte.inference.exact.estimates import NODES, Arm, Nodes, arms_of, effects_given, sign
from bayes_hte.inference.exact.space import Array
from bayes_hte.model.problem import Problem


def arms(task: Problem) -> list[Arm]:
    """The problem of every arm."""
    statistics = task.cell_statistics.transpose("segment", "arm", ...)
    covariance = statistics["covariance"].values if "covariance" in statistics else None
    return arms_of(task.model, statistics["estimate"].values, statistics["se"].values, covariance)


def posterior(task: Problem, *, draws: int, seed: int) -> Draws:
    """Independent draws, and probabilities of signs that are exact to quadrature error."""
    rng = np.random.default_rng([seed, 4])
    count = CHAIN_COUNT * -(-draws // CHAIN_COUNT)
    taus, means, effects, signs = [], [], [], []
    coarse, evidence = 0.0, 0.0
    for arm in arms(task):
        limits = arm.limits()
        nodes = arm.nodes(limits)
        coarse = max(coarse, disagreement(arm, limits, nodes))
        evidence += nodes.log_evidence
        tau, mean = arm.draw(count, limits, rng)
        taus.append(tau)
        means.append(mean)
        effects.append(_drawn(arm, tau, mean, rng))
        signs.append(sign(arm.data, nodes))
    shared = {"effect_mean": np.stack(means, 1), "effect_between": np.stack(taus, 1)}
    kept = {"partial": shared, "complete": {"effect_mean": shared["effect_mean"]}, "none": {}}[task.model.pooling]
    probability = np.stack(signs, 1)
    return Draws.from_arrays(
        task,
        {**kept, "effect": np.stack(effects, 2)},
        {
            "pareto_k": -np.inf,
            "effective_points": float(count),
            "quadrature_error": coarse,
            "acceptance": 1.0,
            "log_evidence": evidence,
        },
        {"p_positive": probability, "p_positive_mcse": np.zeros_like(probability)},
    )


def disagreement(arm: Arm, limits: tuple[float, float], nodes: Nodes) -> float:
    """By how much half as many nodes change the log evidence, or the mean of m in its own SDs."""
    half = arm.nodes(limits, NODES // 2)
    means = [each.weights @ each.mean for each in (nodes, half)]
    variance = nodes.weights @ (nodes.spread + (nodes.mean - means[0]) ** 2)
    shift = abs(means[0] - means[1]) / np.sqrt(variance) if variance > 0 else 0.0
    return float(max(abs(nodes.log_evidence - half.log_evidence), shift))


def _drawn(arm: Arm, tau: Array, mean: Array, rng: np.random.Generator) -> Array:
    """Effects given τ and m: (draw, segment)."""
    effect, sd = effects_given(arm.data, tau, mean)
    effect += sd * rng.standard_normal(sd.shape)
    return effect if arm.data.axes is None else effect @ arm.data.axes.T
