"""From a problem to posterior draws with a certificate.

structure   coordinates and columns of a model
peaks       all peaks of the posterior of the coordinates
sampling    weighted points, with a joint draw of everything at each
signs       P(effect > 0), mostly analytically
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.draws import CHAIN_COUNT, Draws
from bayes_hte.inference.exact.latent.density import LatentDensity, build_density
from bayes_hte.inference.exact.latent.peaks import Landscape, make_careful, survey_peaks
from bayes_hte.inference.exact.latent.requests import Steps, carry_out
from bayes_hte.inference.exact.latent.sampling import WeightedPoints, has_short_tail, sample_points
from bayes_hte.inference.exact.latent.signs import compute_positive_probability
from bayes_hte.model.normal_scores import Array
from bayes_hte.model.problem import Problem

EFFECTIVE_PER_DRAW = 0.5
"""Effective points that are worth computing for every draw that is wanted."""
LEAST_EFFECTIVE = 600.0
"""However few draws are wanted: 400 effective points are needed for the result to pass."""
MAX_WORK = 6e6
"""Effective points times segments that are aimed at, at most: draws of all segments are held at every point."""
NOISY_WEIGHTS = 0.1
"""Variance of the log weights of a point from which its sites are worth another step."""


def draw_latent_posterior(problem: Problem, *, draws: int, seed: int) -> Draws:
    """Draw from the posterior of a problem."""
    density, sample = carry_out(weigh_problem(problem, wanted=EFFECTIVE_PER_DRAW * draws, seed=seed))
    return summarise_sample(density, sample, draws=draws, seed=seed)


def summarise_sample(density: LatentDensity, sample: WeightedPoints, *, draws: int, seed: int) -> Draws:
    """Turn weighted points into draws of equal weight, P(effect > 0) and a certificate."""
    rng = np.random.default_rng([seed, 1])
    chosen = arrange_chains(resample(sample.weights, CHAIN_COUNT * -(-draws // CHAIN_COUNT), rng), rng)
    effects = compute_effects(density, sample)
    probability, error = compute_positive_probability(sample, effects, is_gaussian=density.is_gaussian)
    statistics = {
        "pareto_k": sample.pareto_k,
        "effective_points": sample.effective,
        "quadrature_error": 0.0,
        "unexplored_mass": sample.uncovered,
        "unmoved_share": 0.0,
        "log_evidence": sample.log_evidence,
    }
    return Draws.from_arrays(
        density.problem,
        name_variables(density, sample, effects, chosen),
        statistics,
        {"p_positive": probability, "p_positive_mcse": error},
    )


def weigh_problem(
    problem: Problem, *, wanted: float, seed: int, fixed: Mapping[tuple[str, int], float] | None = None
) -> Steps[tuple[LatentDensity, WeightedPoints]]:
    """Weigh points of a problem, with more care where the first ones are noisy."""
    wanted = max(min(wanted, MAX_WORK / len(problem.coords["segment"])), LEAST_EFFECTIVE)
    landscape = yield from survey_peaks(build_density(problem, fixed))
    sample = yield from sample_points(landscape, wanted=wanted, seed=seed)
    noise = float(sample.weights @ np.nan_to_num(sample.draws.noise, posinf=1e3))
    # Exact sites cannot be bettered: there the tail is that of the proposals.
    is_noisy = noise > NOISY_WEIGHTS or not has_short_tail(sample.weights, sample.pareto_k)
    if is_noisy and not landscape.peaks[0].density.is_gaussian:
        careful = Landscape(
            [make_careful(peak) for peak in landscape.peaks],
            landscape.scanned,
            landscape.scanned_density,
        )
        again = yield from sample_points(careful, wanted=wanted, seed=seed)
        if not again.pareto_k > sample.pareto_k or again.effective > sample.effective:
            return careful.peaks[0].density, again
    return landscape.peaks[0].density, sample


def resample(weights: Array, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Resample points systematically: as many copies of each as its weight says, to one."""
    places = (np.arange(count) + rng.random()) / count
    return np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1)


def arrange_chains(chosen: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Put distinct points in random order, copies side by side.

    ArviZ then sees copies as correlated draws, and its effective sample size counts what is really there.
    """
    distinct, counts = np.unique(chosen, return_counts=True)
    order = rng.permutation(len(distinct))
    return np.repeat(distinct[order], counts[order])


def compute_effects(density: LatentDensity, sample: WeightedPoints) -> Array:
    """Compute the drawn effects, (arm, segment, point)."""
    structure, predictors = density.structure, sample.draws.predictors
    effects = predictors[1:] - predictors[:1] if structure.has_baseline else predictors.copy()
    columns = sample.draws.columns * sample.draws.column_scales
    for arm, layout in enumerate(structure.layouts[structure.has_baseline :]):
        if layout.coefficient.pooling == "complete":
            # What is the same in all segments is so to the last digit.
            effects[arm] = layout.location[:, np.newaxis] + layout.design @ columns[:, layout.columns].T
    return effects


def name_variables(
    density: LatentDensity, sample: WeightedPoints, effects: Array, chosen: NDArray[np.intp]
) -> dict[str, Array]:
    """Name the drawn values of chosen points, (draw, …)."""
    variables = name_shared_variables(density, sample, chosen)
    if density.structure.has_baseline:
        variables["baseline"] = sample.draws.predictors[0][:, chosen].T
    variables["effect"] = effects[:, :, chosen].transpose(2, 1, 0)
    return variables


def name_shared_variables(density: LatentDensity, sample: WeightedPoints, chosen: NDArray[np.intp]) -> dict[str, Array]:
    """Name what segments share at chosen points, (draw, entry)."""
    structure, draws = density.structure, sample.draws
    natural = structure.compute_natural(sample.points[chosen])
    variables = {name: values for name, values in natural.items() if not name.endswith("_mixing")}
    columns = draws.columns[chosen] * draws.column_scales[chosen]
    sizes: dict[str, int] = {}
    for name, position, _ in structure.column_names:
        sizes[name] = max(sizes.get(name, 0), position + 1)
    for name, size in sizes.items():
        variables[name] = np.empty((len(chosen), size))
    for column, (name, position, location) in enumerate(structure.column_names):
        variables[name][:, position] = location + columns[:, column]
    return variables
