"""The PyMC text that reports and the models' page show is the model that is fitted: run, and compared."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pymc as pm
import pytest
from example_cells import example
from example_models import free_point, run_shown_text
from example_structures import FAMILIES, STRUCTURES, stated
from pytensor import config

from bayes_hte import Model, read_model
from bayes_hte.model.parameters import list_coefficients
from bayes_hte.model.problem import build_problem
from bayes_hte.model.pymc.build import build_pymc_model
from bayes_hte.model.text import describe
from bayes_hte.spec import list_shipped_models

HALF: dict[str, Any] = {"dist": "HalfNormal", "sigma": 0.6}
GAMMA: dict[str, Any] = {"dist": "Gamma", "mu": 0.5, "sigma": 0.4}
NUTS_ONLY: dict[str, dict[str, Any]] = {
    "crossed": {"by": ["device", "plan"], "by_between": {"dist": "HalfCauchy", "beta": 0.4}},
    "nested": {"by": ["plan", "plan:device"], "shared_between": True},
    "own level": {"by": ["device", "plan"], "by_between": HALF, "level_between": {"plan": GAMMA}},
    "every": {"by": ["*"], "shape": "student_t", "nu": 6.0},
    "horseshoe": {"shape": "horseshoe", "slab": 1.3},
}
CASES = [(family, {}) for family in [*FAMILIES, "two_part"]]
CASES += [("binomial", structure) for structure in [*STRUCTURES.values(), *NUTS_ONLY.values()]]
CASES += [("ordinal", STRUCTURES["all"]), ("estimate", NUTS_ONLY["crossed"])]


@pytest.fixture(autouse=True)
def _interpreted() -> Iterator[None]:
    with config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.mark.parametrize(("family", "structure"), CASES, ids=str)
def test_shown_pymc_text_is_the_model_that_is_fitted(family: str, structure: dict[str, Any]) -> None:
    task = build_problem(example(family), stated(family, structure))
    ours, shown = build_pymc_model(task), run_shown_text(task)
    point = free_point(ours, seed=1)
    assert ours.compile_logp()(point) == pytest.approx(float(shown.compile_logp()(point)), rel=1e-12)


ARMS = ("control", "email", "sms")
MOVED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *((family, {}, {}) for family in FAMILIES),
    *(("binomial", structure, {}) for structure in [*STRUCTURES.values(), *NUTS_ONLY.values()]),
    ("normal", STRUCTURES["all"], {}),
    # Levels of baselines: the same dimensions, others, none; with covariates, heavy tails, one SD for all arms.
    ("binomial", {"by": ["device", "plan"]}, {"by": ["device", "plan"], "by_between": {"dist": "LogNormal"}}),
    ("poisson", {"by": ["plan", "plan:device"], **STRUCTURES["covariate"]}, {"by": ["device"]}),
    ("mean", {**STRUCTURES["student"], **STRUCTURES["shared"], "by": ["device"]}, {"by": ["plan"]}),
    ("binomial", {}, {"by": ["*"], "by_between": {"dist": "Exponential", "scale": 0.5}}),
    # Priors that are not normal, or whose scores have no formula, stay outside.
    ("binomial", {"mean": {"dist": "StudentT", "nu": 4.0}, "by": ["plan"]}, {"by": ["plan"], "by_between": GAMMA}),
    ("binomial", {"by": ["plan"], "between": GAMMA, "by_between": HALF}, {"pooling": "none", "between": None}),
    ("ordinal", {"by": ["plan"]}, {"by": ["device"]}),
    ("two_part", {}, {}),
]


@pytest.mark.parametrize(("family", "structure", "baseline"), MOVED, ids=str)
def test_the_model_that_is_sampled_is_the_same_in_other_coordinates(
    family: str, structure: dict[str, Any], baseline: dict[str, Any]
) -> None:
    """Its density at a point is that of the plain model where the point leads, times the volume of the change."""
    arms = ARMS if structure.get("by") else ARMS[:2]
    segments = 4 if structure.get("by") or baseline.get("by") else 3
    model = stated(family, structure)
    if baseline:
        content = model.model_dump(exclude_none=True)
        changed = {key: value for key, value in (content["baseline"] | baseline).items() if value is not None}
        model = Model.model_validate(content | {"baseline": changed})
    task = build_problem(example(family, segments=segments, arms=arms), model)
    plain, moved = build_pymc_model(task), build_pymc_model(task, reusable=True)
    assert len([each for each in moved.data_vars if str(each.name).endswith("__data")]) >= 3
    there = Coordinates(plain, moved)
    position = there.flat(free_point(moved, seed=3))
    leads_to = there.lead(position)
    sign, volume = np.linalg.slogdet(there.differentiate(position))
    assert sign != 0
    expected = float(plain.compile_logp()(there.named(leads_to))) + volume
    # Differences of sixth order in steps h = 1e-3: rounding (2e-16 / h) and h⁶ / 140 leave 1e-12 of each of 50
    # derivatives, times the condition of the matrix. PyTensor takes gamma functions of whole numbers in single
    # precision.
    slack = 1e-6 if "nu" in structure or "correlation" in structure else 1e-9
    assert float(moved.compile_logp()(there.point(position))) == pytest.approx(expected, rel=slack, abs=slack)


def computed(model: pm.Model, names: list[str]) -> Any:
    """Values of variables at a point, without drawing anything."""
    outputs = model.replace_rvs_by_values([model[name] for name in names])
    return model.compile_fn(outputs, inputs=model.value_vars, on_unused_input="ignore")


class Coordinates:
    """From points of the sampled model to those of the plain one that have the same effects, baselines and levels."""

    def __init__(self, plain: pm.Model, moved: pm.Model) -> None:
        self.shapes = {name: np.shape(value) for name, value in moved.initial_point().items()}
        self.plain_shapes = {name: np.shape(value) for name, value in plain.initial_point().items()}
        # Offsets mean something else in both; SDs are scores in one and logarithms in the other.
        coefficients = [str(each.name) for each in plain.deterministics if f"{each.name}_offset" in self.plain_shapes]
        self.levels = [name for name in coefficients if f"{name}_between" in plain.named_vars and "segment" not in
                       plain.named_vars_to_dims[name]]  # fmt: skip
        self.free = [name for name in coefficients if name not in self.levels]
        self.scales = [name.removesuffix("_log__") for name in self.plain_shapes if name.endswith("_between_log__")]
        known = {*self.shapes, *(f"{name}_offset" for name in coefficients), *(f"{name}_log__" for name in self.scales)}
        self.shared = [name for name in self.plain_shapes if name not in known]
        self.names = [*self.free, *self.levels, *self.scales, *self.shared]
        self.moved = computed(moved, self.names)
        self.plain = {name: computed(plain, [name]) for name in self.free}

    def flat(self, point: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([np.ravel(point[name]) for name in self.shapes])

    def point(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        return _split(flat, self.shapes)

    def named(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        return _split(flat, self.plain_shapes)

    def lead(self, position: np.ndarray) -> np.ndarray:
        point = self.point(position)
        values = dict(zip(self.names, self.moved(point), strict=True))
        values |= {f"{name}_log__": np.log(values[name]) for name in self.scales}
        values |= {f"{name}_offset": values[name] / values[f"{name}_between"] for name in self.levels}
        found = {name: np.asarray(values.get(name, point.get(name, np.zeros(shape))))
                 for name, shape in self.plain_shapes.items()}  # fmt: skip
        for name in self.free:  # a coefficient is a straight line in its offset: solve for it
            offset = f"{name}_offset"
            (low,) = self.plain[name](found | {offset: np.zeros(self.plain_shapes[offset])})
            (high,) = self.plain[name](found | {offset: np.ones(self.plain_shapes[offset])})
            found[offset] = (values[name] - low) / (high - low)
        return np.concatenate([np.ravel(found[name]) for name in self.plain_shapes])

    def differentiate(self, position: np.ndarray, step: float = 1e-3) -> np.ndarray:
        """Jacobian by central differences of sixth order."""
        weights = {1: 45.0, 2: -9.0, 3: 1.0}
        return np.array([
            sum(weight * (self.lead(position + k * each) - self.lead(position - k * each)) for k, weight in
                weights.items()) / (60 * step)
            for each in np.eye(len(position)) * step
        ])  # fmt: skip


def _split(flat: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), np.split(flat, ends), strict=True)}


@pytest.mark.parametrize("name", list_shipped_models())
def test_every_shipped_model_is_told_in_mathematics_and_in_sentences(name: str) -> None:
    model = read_model(name)
    lines = "\n".join(describe.write_mathematics(model))
    for asked in list_coefficients(model):
        assert f"{asked.name}_mean" in lines or asked.pool_priors.mean is None
        assert f"{asked.name}_between" in lines
    if model.nuisance is not None:
        assert all(parameter in lines for parameter in model.nuisance.stated_priors)
    told = describe.describe_model(model)
    assert len(told) >= 3
    assert all(sentence.endswith(".") for sentence in told)


def test_a_structure_is_told_in_words() -> None:
    for structure in [*STRUCTURES.values(), *NUTS_ONLY.values()]:
        model: Model = stated("binomial", structure)
        plain = set(describe.describe_model(stated("binomial", {})))
        assert not structure or set(describe.describe_model(model)) - plain
