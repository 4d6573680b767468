"""NUTS as an engine: its settings, and a second try with smaller steps where the first fails its diagnosis."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bayes_hte.inference.announcements import announce
from bayes_hte.inference.draws import Draws, add_mean_outcome
from bayes_hte.inference.nuts.sample import NutsSettings, sample_with_nuts
from bayes_hte.model.problem import Problem

FIRST_SETTINGS: Final = NutsSettings(0.95, 1000)
FUNNEL_SETTINGS: Final = NutsSettings(0.99, 1500, typical_gradients=150)
"""With a horseshoe, whose local scales make funnels of their own: smaller steps at once."""
RETRY_SETTINGS: Final = NutsSettings(0.995, 2500, typical_gradients=100)
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
        first_draws = draw_with(FUNNEL_SETTINGS if problem.model.effect.shape == "horseshoe" else FIRST_SETTINGS)

        def retry() -> Draws:
            if progress:
                announce("These draws do not pass their diagnosis: NUTS tries once more, with smaller steps.")
            return draw_with(RETRY_SETTINGS)

        return replace(first_draws, retry=retry)


def _sample_with_settings(problem: Problem, settings: NutsSettings, *, draws: int, seed: int, progress: bool) -> Draws:
    """Sample with NUTS, and add the effect on the mean outcome where a family is made of two parts."""
    nuts_draws = sample_with_nuts(problem, draws=draws, seed=seed, settings=settings, progress=progress)
    return replace(
        nuts_draws,
        posterior=add_mean_outcome(problem, nuts_draws.posterior),
        description="Sampled by NUTS on the PyMC model",
        library="nutpie",
    )
