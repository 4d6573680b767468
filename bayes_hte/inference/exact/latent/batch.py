"""Draw from the posteriors of many problems, those that are alike together."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from bayes_hte.inference.draws import Draws
from bayes_hte.inference.exact.latent.density import LatentDensity
from bayes_hte.inference.exact.latent.engine import (
    EFFECTIVE_PER_DRAW,
    draw_latent_posterior,
    summarise_sample,
    weigh_problem,
)
from bayes_hte.inference.exact.latent.joint_density import is_joinable
from bayes_hte.inference.exact.latent.likelihood import pack_cells
from bayes_hte.inference.exact.latent.requests import Steps, carry_out_together
from bayes_hte.inference.exact.latent.sampling import WeightedPoints
from bayes_hte.model.parameters import list_coefficients
from bayes_hte.model.problem import Problem

MAX_SEGMENTS_TOGETHER = 1280
"""Segments of all problems that are computed together: their points take about 100 MB."""
MAX_PROBLEMS_TOGETHER = 128


def draw_latent_posteriors(
    problems: Sequence[Problem], *, draws: int, seeds: Sequence[int]
) -> list[Draws | np.linalg.LinAlgError]:
    """Draw from the posterior of every problem, with the numbers that `draw_latent_posterior` gives.

    Parameters
    ----------
    problems : sequence of Problem
    draws : int
        Of each problem.
    seeds : sequence of int
        One for each problem.

    Returns
    -------
    list
        Draws of each problem, or the error of its linear algebra.
    """
    results: dict[int, Draws | np.linalg.LinAlgError] = {}
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for number, problem in enumerate(problems):
        alike[_describe_shape(problem, number)].append(number)
    for numbers in alike.values():
        size = MAX_SEGMENTS_TOGETHER // len(problems[numbers[0]].coords["segment"])
        size = min(max(size, 1), MAX_PROBLEMS_TOGETHER)
        for first in range(0, len(numbers), size):
            members = numbers[first : first + size]
            drawn = _draw_together([problems[number] for number in members], draws, [seeds[each] for each in members])
            results.update(zip(members, drawn, strict=True))
    return [results[number] for number in range(len(problems))]


def _describe_shape(problem: Problem, number: int) -> Hashable:
    """Describe what problems must share to be computed together; a problem that cannot be has a shape of its own."""
    coefficients = list_coefficients(problem.model)
    shares_levels = any(each.pool_priors.by or each.strata is not None for each in coefficients)
    if shares_levels or problem.model.effect.covariates:
        return number
    # Priors are those of the model with all scales filled in, so the same text is the same structure.
    shape = tuple(len(problem.coords[dim]) for dim in ("segment", "arm"))
    return problem.model.model_dump_json(), shape, problem.cell_statistics.sizes["arm"]


def _draw_together(
    problems: Sequence[Problem], draws: int, seeds: Sequence[int]
) -> list[Draws | np.linalg.LinAlgError]:
    """Draw from posteriors of the same structure."""
    if len(problems) == 1 or not is_joinable(pack_cells(problems[0])):
        return [_draw_alone(problem, draws, seed) for problem, seed in zip(problems, seeds, strict=True)]
    wanted = EFFECTIVE_PER_DRAW * draws
    all_steps: list[Steps[tuple[LatentDensity, WeightedPoints]]] = [
        weigh_problem(problem, wanted=wanted, seed=seed) for problem, seed in zip(problems, seeds, strict=True)
    ]
    return [
        result if isinstance(result, np.linalg.LinAlgError) else summarise_sample(*result, draws=draws, seed=seed)
        for result, seed in zip(carry_out_together(all_steps), seeds, strict=True)
    ]


def _draw_alone(problem: Problem, draws: int, seed: int) -> Draws | np.linalg.LinAlgError:
    try:
        return draw_latent_posterior(problem, draws=draws, seed=seed)
    except np.linalg.LinAlgError as error:
        return error
