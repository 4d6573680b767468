"""Average effects while one hyperparameter is held at each of several values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bayes_hte.inference.exact.latent.density import build_density
from bayes_hte.inference.exact.latent.engine import compute_effects
from bayes_hte.inference.exact.latent.peaks import Landscape, choose_start, climb_peak
from bayes_hte.inference.exact.latent.requests import carry_out
from bayes_hte.inference.exact.latent.sampling import sample_points
from bayes_hte.model.normal_scores import Array
from bayes_hte.model.problem import Problem

type EffectConverter = Callable[[Array, Array], Array]
"""(baseline (point, segment), effect (point, segment, arm)) -> effects on another scale, of the same dims."""


@dataclass(frozen=True, slots=True)
class ConditionalEffects:
    """Mean effects given a value of one hyperparameter, and the log evidence there.

    Attributes
    ----------
    effects : ndarray
        (segment, arm).
    log_evidence : float
    """

    effects: Array
    log_evidence: float


def average_effects_given(
    problem: Problem,
    fixed_values: Iterable[Mapping[tuple[str, int], float]],
    convert_effect: EffectConverter,
    *,
    wanted: float,
    seed: int,
) -> list[ConditionalEffects]:
    """Average effects at each of several values of hyperparameters, in their order.

    Parameters
    ----------
    problem : Problem
    fixed_values : iterable of mapping
        (name, position) -> value: what is conditioned on, the same hyperparameters each time.
    convert_effect : callable
    wanted : float
        Effective points at each value.
    seed : int
        The same at every value: Monte-Carlo error shifts lines, but does not make them rough.
    """
    found: list[ConditionalEffects] = []
    start: Array | None = None
    for fixed in fixed_values:
        density = build_density(problem, fixed)
        # The next value is near: its peak is where the last one was.
        peak = carry_out(climb_peak(density, choose_start(density) if start is None else start))
        start = peak.point
        landscape = Landscape([peak], np.empty((0, len(peak.point))), np.empty(0))
        sample = carry_out(sample_points(landscape, wanted=wanted, seed=seed))
        effects = compute_effects(peak.density, sample).transpose(2, 1, 0)
        baseline = sample.draws.predictors[0].T if density.structure.has_baseline else np.zeros(effects.shape[:2])
        averaged = np.tensordot(sample.weights, convert_effect(baseline, effects), axes=1)
        found.append(ConditionalEffects(averaged, sample.log_evidence))
    return found
