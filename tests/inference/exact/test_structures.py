"""Families and structures: the fast engine's density is that of the PyMC model, at random points, to rounding error."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from example_cells import example
from example_structures import FAMILIES, STRUCTURES, stated
from pytensor import config

from bayes_hte.inference import exact
from bayes_hte.inference.exact import draw, engine, parts
from bayes_hte.inference.exact.coefficients import Heavy, Quantile
from bayes_hte.inference.exact.integrate import Maps, Segments, expectation, locate
from bayes_hte.inference.exact.joint import log_joint
from bayes_hte.inference.exact.space import Hyperparameter
from bayes_hte.inference.exact.target import Target, target_of
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.model.pymc.build import build_pymc_model

CASES = [
    (family, structure)
    for family in FAMILIES
    for structure in STRUCTURES
    if not (family == "estimate" and "correlation" in STRUCTURES[structure])
]


BENT = ("student", "correlated", "covariate")
"""Structures whose segments' posteriors lean, or move with each other."""


@pytest.fixture(autouse=True)
def _interpreted() -> Iterator[None]:
    """A few evaluations of each model: interpreting them is faster than compiling."""
    with config.change_flags(mode="FAST_COMPILE"):
        yield


SUFFIX = {"real": "", "positive": "_log__", "interval": "_half_logodds__", "ascending": "_ordered__"}


def entry(point: dict[str, Any], parameter: Hyperparameter) -> float:
    """One coordinate of PyMC's point."""
    suffix = "_ordered__" if parameter.name == "cutpoints" else SUFFIX[parameter.line]
    return float(np.reshape(point[parameter.name + suffix], -1)[parameter.position])


def offsets(point: dict[str, Any], target: Target, arm: int | None, each: Any) -> np.ndarray:
    """Of the engine: PyMC's, or for heavy tails the normal quantile of its rank."""
    if arm is None:
        found = point.get("baseline_offset")
        return np.zeros(target.segments.size) if found is None else np.asarray(found)
    found = np.asarray(point["effect_offset"])[:, arm]
    if isinstance(each, Heavy):
        return np.asarray(Heavy(np.zeros((1, 1)), np.ones((1, 1)), each.nu).offset(found[None])[0])
    assert not isinstance(each, Quantile)
    return found


def densities(task: Problem, seed: int) -> Iterator[tuple[float, float]]:
    """Ours and PyMC's at random points."""
    built, target = build_pymc_model(task), target_of(task)
    theirs = built.compile_logp()
    rng = np.random.default_rng(seed)
    for _ in range(2):
        point = {name: rng.normal(0, 0.6, np.shape(value)) for name, value in built.initial_point().items()}
        free = np.array([entry(point, each) for each in target.space.parameters])
        maps = target.maps(free[None])
        base = offsets(point, target, None, maps.baseline)
        arms = [offsets(point, target, arm, each) for arm, each in enumerate(maps.effects)]
        yield log_joint(target, free, base, arms), float(theirs(point))


@pytest.mark.parametrize(("family", "structure"), CASES, ids=lambda each: each)
def test_the_engines_joint_density_is_that_of_the_pymc_model(family: str, structure: str) -> None:
    task = build_problem(example(family), stated(family, STRUCTURES[structure]))
    # Heavy tails in several arms are left to NUTS; the density of the offsets is the engine's all the same.
    assert exact.beyond(task) is None or task.model.effect.shape == "student_t"
    for ours, theirs in densities(task, 7):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_the_two_parts_of_an_outcome_add_up_to_the_pymc_model() -> None:
    task = build_problem(example("two_part"), stated("two_part", {}))
    built, targets = build_pymc_model(task), [target_of(each) for each in parts.split(task)]
    theirs, rng = built.compile_logp(), np.random.default_rng(3)
    for _ in range(2):
        point = {name: rng.normal(0, 0.6, np.shape(value)) for name, value in built.initial_point().items()}
        ours = 0.0
        for prefix, target in zip(("chance_", "amount_"), targets, strict=True):
            mine = {name.removeprefix(prefix): value for name, value in point.items()
                    if name.startswith(prefix) or name == "sigma_log__"}  # fmt: skip
            free = np.array([entry(mine, each) for each in target.space.parameters])
            arms = [np.asarray(mine["effect_offset"])[:, arm] for arm in range(2)]
            ours += log_joint(target, free, np.asarray(mine["baseline_offset"]), arms)
        assert ours == pytest.approx(float(theirs(point)), rel=1e-9)


@pytest.mark.parametrize(
    ("family", "structure"),
    [case for case in CASES if case[0] in ("binomial", "estimate", "ordinal") and case[1] in BENT],
)
def test_draws_have_the_moments_of_the_quadrature_they_stand_for(family: str, structure: str) -> None:
    """Means of coefficients given the same hyperparameters, an outlying segment included.

    Forty draws at each of 150 points against the integral at that point: 18 to 24 standard normal numbers, of which
    the largest exceeds 4.2 with probability 6e-4.
    """
    cells = example(family, segments=8, arms=("control", "email"), seed=3)
    if family == "binomial":  # nearly everybody in one segment, nearly nobody elsewhere
        cells["n"][2], cells["events"][2] = 60, [12, 55]
    if family == "estimate":
        cells["estimate"][2], cells["se"][2] = 4.0, 0.3
    task = build_problem(cells, stated(family, STRUCTURES[structure]))
    target, sample = engine.points(task, wanted=1000, seed=1)
    few = sample.points[sample.resampled(150, np.random.default_rng(1))]
    drawn = draw.coefficients(target, np.repeat(few, 40, axis=0), seed=2).effect
    order = 17

    def means(segments: Segments, maps: Maps) -> np.ndarray:
        return expectation(segments, maps, locate(segments, maps), order, lambda _, effect: effect)

    expected = target.over(few, np.arange(8), means, width=order)
    blocks = drawn.reshape(150, 40, *drawn.shape[1:])
    z = (blocks.mean(1) - expected) / (blocks.std(1, ddof=1) / np.sqrt(40))
    # Of t with 39 degrees of freedom: SD 1.03; its mean over 150 points is close to normal.
    assert np.abs(z.mean(0) * np.sqrt(150) / 1.03).max() < 4.2
