"""The fast engine: posteriors of one-way, crossed and nested segments, with a certificate.

    ExactEngine   the engine as the registry knows it: it refuses what it cannot vouch for
    beyond        why a problem is beyond it, if it is
    posterior     draws, the certificate, and probabilities of signs with little noise of counting

`latent` solves what is Gaussian given a few coordinates, `direct` published estimates in closed form, `parts` outcomes
of two parts; what is left goes to quadrature over segments (`engine`), and `one_part` chooses.

Nothing here imports PyMC; `bayes_hte.model.pymc.build.build_pymc_model` remains the definition, and a test compares the
two densities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayes_hte._support.validation import MIN_DRAWS
from bayes_hte.inference.draws import Draws, EngineRefusalError
from bayes_hte.inference.exact import direct, parts
from bayes_hte.inference.exact.latent.batch import draw_latent_posteriors
from bayes_hte.inference.exact.latent.structure import find_unsupported_reason
from bayes_hte.inference.exact.one_part import draw_one_part, is_latent, replace_unsound_draws
from bayes_hte.model.parameters import list_coefficients
from bayes_hte.model.problem import Problem
from bayes_hte.spec.distributions import Normal

__all__ = ["NUMBERS", "Draws", "ExactEngine", "beyond", "closed", "posterior"]

MAX_ARMS = 6
"""Control included; the space of hyperparameters grows by two or three with every arm."""

NUMBERS = 4e7
"""Draws × coefficients of segments that fit comfortably into memory (320 MB); callers ask for fewer draws beyond."""


@dataclass(frozen=True, slots=True)
class ExactEngine:
    """Importance sampling without MCMC, where the result has a certificate that holds."""

    name: str = "exact"

    def supports(self, problem: Problem) -> str | None:
        """Give the reason why a problem is beyond this engine; None if it is not."""
        return beyond(problem)

    def draw(self, problem: Problem, *, draws: int, seed: int, progress: bool) -> Draws:
        """Draw from the posterior; fewer draws than asked for where they would not fit into memory.

        Raises
        ------
        EngineRefusalError
            If the linear algebra fails, a number is not finite, or the certificate does not hold.
        """
        kept_draw_count = _limit_draws(problem, draws)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused below
                exact_draws = posterior(problem, draws=kept_draw_count, seed=seed)
        except np.linalg.LinAlgError as error:
            raise _refuse_failed_algebra(error) from error
        return _vouch_for_draws(exact_draws, kept_draw_count, draws)

    def draw_many(
        self, problems: Sequence[Problem], *, draws: int, seeds: Sequence[int]
    ) -> list[Draws | EngineRefusalError]:
        """Draw from the posterior of every problem, those of the same shape together, with the numbers of `draw`."""
        together = [number for number, problem in enumerate(problems) if _is_joint(problem, draws)]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            joint_draws = draw_latent_posteriors(
                [problems[number] for number in together], draws=draws, seeds=[seeds[number] for number in together]
            )
        draws_by_number = dict(zip(together, joint_draws, strict=True))
        results: list[Draws | EngineRefusalError] = []
        for number, (problem, seed) in enumerate(zip(problems, seeds, strict=True)):
            try:
                results.append(self._finish_draws(problem, draws_by_number.get(number), draws, seed))
            except EngineRefusalError as refusal:
                results.append(refusal)
        return results

    def _finish_draws(
        self, problem: Problem, joint_draws: Draws | np.linalg.LinAlgError | None, draws: int, seed: int
    ) -> Draws:
        """Vouch for draws that were computed together with others, or draw those that were not."""
        if joint_draws is None:
            return self.draw(problem, draws=draws, seed=seed, progress=False)
        if isinstance(joint_draws, np.linalg.LinAlgError):
            raise _refuse_failed_algebra(joint_draws)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            sound_draws = replace_unsound_draws(problem, joint_draws, draws=draws, seed=seed)
        return _vouch_for_draws(sound_draws, draws, draws)


def _limit_draws(problem: Problem, draws: int) -> int:
    """Limit draws to those that fit into memory."""
    # A draw holds an effect per segment and treated arm, and a baseline per segment.
    numbers_per_draw = len(problem.coords["segment"]) * (len(problem.coords["arm"]) + problem.family.has_baseline)
    return max(MIN_DRAWS, min(draws, int(NUMBERS / numbers_per_draw)))


def _is_joint(problem: Problem, draws: int) -> bool:
    """Tell whether a problem may be computed together with others."""
    is_one_part = problem.model.amount is None and not closed(problem)
    return is_one_part and is_latent(problem) and _limit_draws(problem, draws) == draws


def _refuse_failed_algebra(error: np.linalg.LinAlgError) -> EngineRefusalError:
    return EngineRefusalError(f"its linear algebra failed ({error})")


def _vouch_for_draws(exact_draws: Draws, kept_draw_count: int, draws: int) -> Draws:
    """Describe draws whose certificate holds, or raise EngineRefusalError."""
    if not exact_draws.is_finite:
        raise EngineRefusalError(
            "some of its numbers are not finite, as where data lie far outside of what a prior allows"
        )
    certificate = exact_draws.require_certificate()
    if certificate_warnings := certificate.list_warnings():
        raise EngineRefusalError(" ".join(certificate_warnings).rstrip("."))
    fewer_draws_note = ""
    if kept_draw_count != draws:
        fewer_draws_note = f"; {kept_draw_count:,} draws instead of {draws:,}, to fit into memory"
    return replace(
        exact_draws,
        description=f"Computed by the exact engine, without MCMC: {certificate.describe()}{fewer_draws_note}",
    )


def beyond(task: Problem) -> str | None:
    """Why this engine cannot solve a problem; None if it can."""
    arms = len(task.coords["variant"]) if task.family.has_baseline else 1
    if arms > MAX_ARMS:
        return f"it takes at most {MAX_ARMS} arms, these cells have {arms}"
    crossed = [term for asked in list_coefficients(task.model) for term in asked.pool_priors.by]
    if crossed and (reason := find_unsupported_reason(task)):
        return f"segments share the effects of levels of {', '.join(dict.fromkeys(crossed))}, and {reason}"
    if shape_reason := _find_shape_reason(task):
        return shape_reason
    if "covariance" in task.cell_statistics and not closed(task):
        if task.model.pooling == "none":
            return "estimates with a covariance matrix that are not pooled need a Normal prior"
        return "estimates with a covariance matrix must be pooled one way, without covariates, strata or heavy tails"
    return None


def _find_shape_reason(task: Problem) -> str | None:
    """Find the reason why the distribution of effects is beyond this engine; None if it is not."""
    if task.model.effect.shape == "horseshoe":
        return "given its scale a horseshoe has two peaks, at zero and at the data, which quadrature around one misses"
    if task.model.effect.shape == "student_t" and len(task.coords["arm"]) > 1:
        return "with heavy tails it takes one treated arm: every arm multiplies the components of the mixture"
    return None


def posterior(task: Problem, *, draws: int, seed: int) -> Draws:
    """Draw from the posterior of a problem that is not `beyond` this engine."""
    if task.model.amount is not None:
        return parts.posterior(task, draws=draws, seed=seed)
    if closed(task):
        return direct.posterior(task, draws=draws, seed=seed)
    return draw_one_part(task, draws=draws, seed=seed)


def closed(task: Problem) -> bool:
    """Whether everything but tau has a closed form: published estimates, pooled one way."""
    model, effect = task.model, task.model.effect
    if task.family.has_baseline or effect.by:
        return False
    if model.pooling == "none" and not isinstance(effect.mean, Normal):
        return "covariance" not in task.cell_statistics
    several = effect.shared_between and len(task.coords["arm"]) > 1
    return not (effect.covariates or effect.strata or effect.shape != "normal" or several)
