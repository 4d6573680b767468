"""The fast engine: posteriors of one-way segments by quadrature and importance sampling, with a certificate.

    beyond      why a problem is beyond it, if it is
    posterior   draws, the certificate, and probabilities of signs without the noise of counting

Nothing here imports PyMC; `bayes_hte.model.pymc.build.build_pymc_model` remains the definition, and a test compares the
two densities.
"""

from bayes_hte.inference.draws import Draws
from bayes_hte.inference.exact import direct, engine, parts
from bayes_hte.model.parameters import list_coefficients
from bayes_hte.model.problem import Problem
from bayes_hte.spec.distributions import Normal

__all__ = ["NUMBERS", "Draws", "beyond", "closed", "posterior"]

MAX_ARMS = 4
"""Control included; the space of hyperparameters grows by two or three with every arm."""

NUMBERS = 4e7
"""Draws × coefficients of segments that fit comfortably into memory (320 MB); callers ask for fewer draws beyond."""


def beyond(task: Problem) -> str | None:
    """Why this engine cannot solve a problem; None if it can."""
    arms = len(task.coords["variant"]) if task.family.has_baseline else 1
    if arms > MAX_ARMS:
        return f"it takes at most {MAX_ARMS} arms, these cells have {arms}"
    for asked in list_coefficients(task.model):
        if asked.pool_priors.by:
            return (
                f"segments share the effects of levels of {', '.join(asked.pool_priors.by)}, so that they are not "
                "independent"
            )
    if task.model.effect.shape == "horseshoe":
        return "given its scale a horseshoe has two peaks, at zero and at the data, which quadrature around one misses"
    if "covariance" in task.cell_statistics and not closed(task):
        if task.model.pooling == "none":
            return "estimates with a covariance matrix that are not pooled need a Normal prior"
        return "estimates with a covariance matrix must be pooled one way, without covariates, strata or heavy tails"
    return None


def posterior(task: Problem, *, draws: int, seed: int) -> Draws:
    """Draw from the posterior of a problem that is not `beyond` this engine."""
    if task.model.amount is not None:
        return parts.posterior(task, draws=draws, seed=seed)
    solve = direct.posterior if closed(task) else engine.posterior
    return solve(task, draws=draws, seed=seed)


def closed(task: Problem) -> bool:
    """Whether everything but tau has a closed form: published estimates, pooled one way."""
    model, effect = task.model, task.model.effect
    if task.family.has_baseline or (model.pooling == "none" and not isinstance(effect.mean, Normal)):
        return False
    several = effect.shared_between and len(task.coords["arm"]) > 1
    return not (effect.covariates or effect.strata or effect.shape != "normal" or several)
