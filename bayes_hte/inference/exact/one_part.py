"""Choose how an outcome of one part is computed: as a Gaussian given some coordinates, or by quadrature."""

from bayes_hte.inference.draws import Draws
from bayes_hte.inference.exact import engine
from bayes_hte.inference.exact.latent.engine import draw_latent_posterior
from bayes_hte.inference.exact.latent.structure import find_unsupported_reason
from bayes_hte.model.parameters import list_coefficients
from bayes_hte.model.problem import Problem

MAX_ONE_WAY_SEGMENTS = 1000
"""Beyond it quadrature takes less time and memory where segments share no levels: it holds few points at once."""


def is_one_way(problem: Problem) -> bool:
    """Tell whether segments are independent given means and between-segment SDs: no levels are shared."""
    return not any(coefficient.pool_priors.by for coefficient in list_coefficients(problem.model))


def is_latent(problem: Problem) -> bool:
    """Tell whether a problem is solved as a Gaussian given a few coordinates."""
    if find_unsupported_reason(problem) is not None:
        return False
    return not is_one_way(problem) or len(problem.coords["segment"]) <= MAX_ONE_WAY_SEGMENTS


def draw_one_part(problem: Problem, *, draws: int, seed: int) -> Draws:
    """Draw from the posterior of an outcome of one part that has no closed form."""
    if not is_latent(problem):
        return engine.posterior(problem, draws=draws, seed=seed)
    return replace_unsound_draws(
        problem, draw_latent_posterior(problem, draws=draws, seed=seed), draws=draws, seed=seed
    )


def replace_unsound_draws(problem: Problem, latent_draws: Draws, *, draws: int, seed: int) -> Draws:
    """Return the draws, or those by quadrature where they are unsound and quadrature is not."""
    if is_one_way(problem) and not _is_sound(latent_draws):
        # Cutpoints move with all baselines at once, which proposals in straight coordinates follow poorly.
        quadrature_draws = engine.posterior(problem, draws=draws, seed=seed)
        if _is_sound(quadrature_draws):
            return quadrature_draws
    return latent_draws


def _is_sound(draws: Draws) -> bool:
    return draws.is_finite and not draws.require_certificate().list_warnings()
