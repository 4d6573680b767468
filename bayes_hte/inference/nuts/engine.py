"""NUTS as an engine: its settings, and a second try with smaller steps where the first fails its diagnosis."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bayes_hte.inference.draws import Draws, add_mean_outcome
from bayes_hte.inference.nuts.sample import sample_with_nuts
from bayes_hte.model.problem import Problem
from bayes_hte.spec.model import Model


@dataclass(frozen=True, slots=True)
class NutsSettings:
    """The acceptance rate that step sizes are tuned for, and the number of tuning steps.

    The higher the acceptance rate, the smaller the steps.
    """

    target_accept: float
    tuning_steps: int


FIRST_SETTINGS: Final = NutsSettings(0.95, 1000)
FUNNEL_SETTINGS: Final = NutsSettings(0.99, 1500)
"""Where levels of dimensions have effects, or with a horseshoe, there are several funnels: smaller steps at once."""
RETRY_SETTINGS: Final = NutsSettings(0.995, 2500)
"""Taken once, when the first draws do not pass their diagnosis."""


@dataclass(frozen=True, slots=True)
class NutsEngine:
    """NUTS on the PyMC model: for every problem, in minutes rather than fractions of a second."""

    name: str = "nuts"

    def supports(self, problem: Problem) -> str | None:
        """Give no reason against any problem: whatever has a PyMC model can be sampled."""
        return None

    def draw(self, problem: Problem, *, draws: int, seed: int, progress: bool) -> Draws:
        """Sample the PyMC model; the draws can be drawn once more, with smaller steps and more tuning.

        Raises
        ------
        FitError
            If the sampler cannot start or breaks down.
        """
        draw_with = partial(_sample_with_settings, problem, draws=draws, seed=seed, progress=progress)
        first_draws = draw_with(FUNNEL_SETTINGS if _has_funnels(problem.model) else FIRST_SETTINGS)
        return replace(first_draws, retry=partial(draw_with, RETRY_SETTINGS))


def _sample_with_settings(problem: Problem, settings: NutsSettings, *, draws: int, seed: int, progress: bool) -> Draws:
    """Sample with NUTS, and add the effect on the mean outcome where a family is made of two parts."""
    nuts_draws = sample_with_nuts(
        problem,
        draws=draws,
        seed=seed,
        target_accept=settings.target_accept,
        tune=settings.tuning_steps,
        progress=progress,
    )
    return replace(
        nuts_draws,
        posterior=add_mean_outcome(problem, nuts_draws.posterior),
        description="Sampled by NUTS on the PyMC model",
        library="nutpie",
    )


def _has_funnels(model: Model) -> bool:
    """Tell whether the model learns more scales than one per coefficient."""
    # Each scale that multiplies offsets makes a funnel: where it is small, steps have to be small too.
    all_pool_priors = [model.effect] + ([] if model.baseline is None else [model.baseline])
    return model.effect.shape == "horseshoe" or any(pool_priors.by for pool_priors in all_pool_priors)
