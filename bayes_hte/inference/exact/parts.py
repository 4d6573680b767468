"""An outcome of two parts: two problems whose likelihoods and priors have nothing in common, and so their posteriors.

Each is solved on its own; draws of one go with draws of the other, and what is reported is made of both.
"""

from collections.abc import Callable, Hashable

import numpy as np
import xarray as xr

from bayes_hte.inference.draws import Draws, add_mean_outcome
from bayes_hte.inference.exact.one_part import draw_one_part
from bayes_hte.model.problem import Problem, build_problem


def split(task: Problem) -> list[Problem]:
    """Whether there is a positive outcome, and how large it is."""
    if task.family.split_parts is None:
        raise AssertionError(f'family "{task.family.name}" has one part')
    return [build_problem(cells, model) for model, cells in task.family.split_parts(task.model, task.cell_statistics)]


def posterior(task: Problem, *, draws: int, seed: int) -> Draws:
    """Draws of both parts, and the worse certificate."""
    found = [draw_one_part(each, draws=draws, seed=seed + shift) for shift, each in enumerate(split(task), start=1)]
    rng = np.random.default_rng([seed, 6])
    shared_names = {} if task.model.nuisance is None else task.model.nuisance.stated_priors
    merged: dict[Hashable, xr.DataArray] = {}
    for part, each in zip(task.family.parts, found, strict=True):
        names = {
            name: name if name in shared_names else f"{part.prefix}{name}"
            for name in map(str, each.posterior.data_vars)
        }
        # Copies of a point stand side by side in each: shuffled, those of one part do not meet those of the other.
        merged |= dict(_shuffled(each.posterior, rng).rename(names).data_vars)
    return Draws(add_mean_outcome(task, xr.Dataset(merged)), _worse([each.sample_stats for each in found]))


def _shuffled(posterior: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    order = rng.permutation(chains * draws)
    shuffled = {
        name: (values.dims, values.values.reshape(chains * draws, -1)[order].reshape(values.shape))
        for name, values in posterior.data_vars.items()
    }
    return xr.Dataset(shuffled, coords=posterior.coords)


def _worse(stats: list[xr.Dataset]) -> xr.Dataset:
    worst: dict[str, Callable[[list[float]], float]]
    worst = {"pareto_k": max, "effective_points": min, "quadrature_error": max, "unexplored_mass": max,
             "acceptance": min, "unmoved_share": max, "log_evidence": sum}  # fmt: skip
    # Engines measure different things: a number that one part lacks does not speak against it.
    measured = {name: [float(each[name]) for each in stats if name in each] for name in worst}
    return xr.Dataset({name: worst[name](values) for name, values in measured.items() if values})
