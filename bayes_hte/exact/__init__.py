"""The fast engine: posteriors of one-way segments by quadrature and importance sampling, with a certificate.

    beyond      why a problem is beyond it, if it is
    posterior   draws, the certificate, and probabilities of signs without the noise of counting

Nothing here imports PyMC; `bayes_hte.model.build` remains the definition, and a test compares the two densities.
"""

from bayes_hte.drawn import Drawn
from bayes_hte.exact import direct, engine
from bayes_hte.model import Problem
from bayes_hte.spec.distributions import Normal

__all__ = ["NUMBERS", "Drawn", "beyond", "posterior"]

MAX_ARMS = 4
"""Control included; the space of hyperparameters grows by two or three with every arm."""

NUMBERS = 4e7
"""Draws × coefficients of segments that fit comfortably into memory (320 MB); callers ask for fewer draws beyond."""


def beyond(task: Problem) -> str | None:
    """Why this engine cannot solve a problem; None if it can."""
    arms = len(task.coords["variant"]) if task.family.has_baseline else 1
    if arms > MAX_ARMS:
        return f"it takes at most {MAX_ARMS} arms, these cells have {arms}"
    if "covariance" in task.statistics and not _closed(task):
        return "estimates with a covariance matrix that are not pooled need a Normal prior"
    return None


def posterior(task: Problem, *, draws: int, seed: int) -> Drawn:
    """Draw from the posterior of a problem that is not `beyond` this engine."""
    closed = not task.family.has_baseline and _closed(task)
    solve = direct.posterior if closed else engine.posterior
    return solve(task, draws=draws, seed=seed)


def _closed(task: Problem) -> bool:
    return task.model.pooling != "none" or isinstance(task.model.effect.mean, Normal)
