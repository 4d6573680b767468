"""The fast engine and the PyMC model are one definition: equal log densities at random points, to rounding error.

Points stay where probabilities are between 1e-6 and 1 - 1e-6: beyond, PyMC's Binomial loses digits, because it
takes the logarithm of 1 minus a probability that was rounded first.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pytensor import config
from scipy import stats

from bayes_hte import Model
from bayes_hte.inference.exact.coefficients import Map
from bayes_hte.inference.exact.estimates import likelihood, rotated
from bayes_hte.inference.exact.joint import log_joint
from bayes_hte.inference.exact.space import Hyperparameter
from bayes_hte.inference.exact.target import Target, target_of
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.model.pymc.build import build_pymc_model
from bayes_hte.spec.distributions import Distribution

NORMAL: dict[str, Any] = {"dist": "Normal", "mu": 0.2, "sigma": 1.1}
HALF: dict[str, Any] = {"dist": "HalfNormal", "sigma": 0.6}
REAL: list[dict[str, Any]] = [NORMAL, {"dist": "StudentT", "nu": 4.0, "mu": -0.1, "sigma": 1.2}]
POSITIVE: list[dict[str, Any]] = [
    HALF,
    {"dist": "HalfStudentT", "nu": 3.0, "sigma": 0.7},
    {"dist": "HalfCauchy", "beta": 0.3},
    {"dist": "Exponential", "lam": 2.5},
    {"dist": "Gamma", "alpha": 2.0, "beta": 3.0},
    {"dist": "InverseGamma", "alpha": 3.0, "beta": 1.3},
    {"dist": "LogNormal", "mu": -0.5, "sigma": 0.7},
    {"dist": "Uniform", "lower": 0.1, "upper": 2.3},
]
CELLS = {"binomial": "counts", "normal": "moments", "mean": "means", "estimate": "schools"}
STRUCTURES = [
    (family, pooling, baseline)
    for family in CELLS
    for pooling in ("partial", "none", "complete")
    for baseline in (("partial", "none") if family != "estimate" else ("absent",))
]
PRIORS = [
    *((structure, NORMAL, HALF) for structure in STRUCTURES),
    *((("binomial", "partial", "partial"), NORMAL, between) for between in POSITIVE),
    *((("normal", "partial", "partial"), NORMAL, between) for between in POSITIVE),
    *((("binomial", pooling, "none"), mean, HALF)
      for pooling in ("partial", "none", "complete")
      for mean in (*REAL, *POSITIVE, {"dist": "Uniform", "lower": -4.0, "upper": 3.0})),
    *((("estimate", pooling, "absent"), mean, POSITIVE[2]) for pooling in ("partial", "none") for mean in REAL),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _interpreted() -> Iterator[None]:
    """A few evaluations of each model: interpreting them is faster than compiling."""
    with config.change_flags(mode="FAST_COMPILE"):
        yield


def model_of(structure: tuple[str, str, str], mean: dict[str, Any], between: dict[str, Any]) -> Model:
    """The same priors for effects and baselines, whatever the structure."""
    family, pooling, baseline = structure
    content: dict[str, Any] = {"family": family, "pooling": pooling, "effect": {"mean": mean, "between": between}}
    if baseline == "partial":
        content["baseline"] = {"mean": mean, "between": between}
    if baseline == "none":
        content["baseline"] = {"mean": mean, "pooling": "none"}
    if family == "normal":
        content["nuisance"] = {"sigma": between}
    return Model.model_validate(content)


def named(structure: Any) -> str:
    if isinstance(structure, dict):
        return str(structure["dist"])
    return "-".join(structure)


@pytest.fixture(params=PRIORS, ids=lambda case: "-".join(map(named, case)))
def task(request: pytest.FixtureRequest) -> Problem:
    structure, mean, between = request.param
    return build_problem(request.getfixturevalue(CELLS[structure[0]]), model_of(structure, mean, between))


def value_of(point: dict[str, np.ndarray], name: str, prior: Distribution) -> tuple[np.ndarray, np.ndarray]:
    """A variable's entries on PyMC's real line, and in their own units."""
    suffix = {"real": "", "positive": "_log__", "interval": "_interval__"}[Hyperparameter(name, 0, prior).line]
    free = np.asarray(point[name + suffix], dtype=float)
    return free, Hyperparameter(name, 0, prior).natural(free)


def offsets_at(
    target: Target, point: dict[str, np.ndarray], name: str, each: Map, arm: int
) -> tuple[np.ndarray, float]:
    """Offsets of a coefficient at PyMC's point, and the Jacobian of PyMC's transform where there is no offset."""
    pool = target.model.effect if name == "effect" else target.model.baseline
    pooling = target.model.pooling if name == "effect" else getattr(pool, "pooling", "complete")
    size = target.segments.size
    if pool is None or pooling == "complete":
        return np.zeros(size), 0.0
    if pooling == "partial":
        found = point[f"{name}_offset"]
        return np.asarray(found[:, arm] if name == "effect" else found), 0.0
    free, value = value_of(point, name, pool.mean)
    if name == "effect":
        free, value = free[:, arm], value[:, arm]
    line = Hyperparameter(name, 0, pool.mean)
    jacobian = line.log_prior(free) - line.prior_density(free)
    return each.offset(value[None])[0], float(jacobian.sum())


def hyperpoint(target: Target, point: dict[str, np.ndarray]) -> np.ndarray:
    """The engine's coordinates of PyMC's point."""
    return np.array([value_of(point, p.name, p.prior)[0].reshape(-1)[p.position] for p in target.space.parameters])


def test_the_engines_joint_density_is_that_of_the_pymc_model(task: Problem) -> None:
    built, target = build_pymc_model(task), target_of(task)
    theirs = built.compile_logp()
    rng = np.random.default_rng(5)
    for _ in range(2):
        point = {name: rng.normal(0, 0.6, np.shape(value)) for name, value in built.initial_point().items()}
        free = hyperpoint(target, point)
        maps = target.maps(free[None])
        base, jacobian = offsets_at(target, point, "baseline", maps.baseline, 0)
        arms = [offsets_at(target, point, "effect", each, arm) for arm, each in enumerate(maps.effects)]
        ours = log_joint(target, free, base, [offset for offset, _ in arms])
        ours += jacobian + sum(each for _, each in arms)
        assert ours == pytest.approx(float(theirs(point)), rel=1e-9)


@pytest.mark.parametrize("tau", [0.0, 0.4, 30.0])
def test_correlated_estimates_have_the_density_of_the_multivariate_normal(tau: float) -> None:
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 5))
    covariance, y = root @ root.T + 0.1 * np.eye(5), rng.normal(size=5)
    data = rotated(y, np.sqrt(np.diag(covariance)), covariance)
    common = likelihood(data, np.array([tau]))
    for m in (-1.0, 0.3):
        ours = common.log_height[0] - 0.5 * (m - common.centre[0]) ** 2 / common.variance[0]
        theirs = stats.multivariate_normal(np.full(5, m), covariance + tau**2 * np.eye(5)).logpdf(y)
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_a_segment_without_one_arm_is_a_segment_like_any_other(counts: xr.Dataset) -> None:
    assert bool((counts["n"] == 0).any())
    target = target_of(build_problem(counts, model_of(("binomial", "partial", "partial"), NORMAL, HALF)))
    row, arm = np.argwhere(counts["n"].values == 0)[0]
    densities = target.segments.curve.compute_log_density(target.segments.arms[arm], np.full((1, 6), 0.3), None)
    assert densities[0, row] == 0.0
    assert isinstance(build_pymc_model(build_problem(counts, target.model)), pm.Model)
