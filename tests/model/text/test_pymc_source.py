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
NUTS_ONLY: dict[str, dict[str, Any]] = {
    "crossed": {"by": ["device", "plan"], "by_between": {"dist": "HalfCauchy", "beta": 0.4}},
    "nested": {"by": ["plan", "plan:device"], "shared_between": True},
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


MOVED: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    *(("binomial", structure) for structure in [*STRUCTURES.values(), *NUTS_ONLY.values()]),
    ("normal", STRUCTURES["all"]),
]


@pytest.mark.parametrize(("family", "structure"), MOVED, ids=str)
def test_the_model_that_is_sampled_is_the_same_in_other_coordinates(family: str, structure: dict[str, Any]) -> None:
    """Its density at a point is that of the plain model where the point leads, times the volume of the change."""
    task = build_problem(example(family, segments=3, arms=("control", "email")), stated(family, structure))
    plain, moved = build_pymc_model(task), build_pymc_model(task, reusable=True)
    assert len([each for each in moved.data_vars if str(each.name).endswith("__data")]) >= 3
    there = Coordinates(plain, moved)
    point = free_point(moved, seed=3)
    position = there.flat(point)
    leads_to = there.lead(position)
    steps = np.eye(len(position)) * 1e-5
    jacobian = [(there.lead(position + step) - there.lead(position - step)) / 2e-5 for step in steps]
    sign, volume = np.linalg.slogdet(np.array(jacobian))
    assert sign != 0
    expected = float(plain.compile_logp()(there.named(leads_to))) + volume
    # Central differences of smooth functions with steps of 1e-5: relative errors of 1e-9 in each of 30 derivatives.
    assert float(moved.compile_logp()(point)) == pytest.approx(expected, abs=1e-5)


def computed(model: pm.Model, names: list[str]) -> Any:
    """Values of variables at a point, without drawing anything."""
    outputs = model.replace_rvs_by_values([model[name] for name in names])
    return model.compile_fn(outputs, inputs=model.value_vars, on_unused_input="ignore")


class Coordinates:
    """From points of the sampled model to those of the plain one that have the same effects and baselines."""

    def __init__(self, plain: pm.Model, moved: pm.Model) -> None:
        self.shapes = {name: np.shape(value) for name, value in moved.initial_point().items()}
        self.plain_shapes = {name: np.shape(value) for name, value in plain.initial_point().items()}
        self.free = [each for each in ("baseline", "effect") if f"{each}_offset" in self.plain_shapes]
        shared = [name for name in self.plain_shapes if name not in self.shapes]
        self.shared = shared
        self.moved = computed(moved, [*self.free, *shared])
        self.plain = {name: computed(plain, [name]) for name in self.free}

    def flat(self, point: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([np.ravel(point[name]) for name in self.shapes])

    def named(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.plain_shapes.values()])[:-1]
        return {name: part.reshape(shape) for (name, shape), part in
                zip(self.plain_shapes.items(), np.split(flat, ends), strict=True)}  # fmt: skip

    def lead(self, position: np.ndarray) -> np.ndarray:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])[:-1]
        point = {name: part.reshape(shape) for (name, shape), part in
                 zip(self.shapes.items(), np.split(position, ends), strict=True)}  # fmt: skip
        values = dict(zip([*self.free, *self.shared], self.moved(point), strict=True))
        found = {name: np.asarray(point.get(name, values.get(name, np.zeros(shape))))
                 for name, shape in self.plain_shapes.items()}  # fmt: skip
        for name in self.free:  # a coefficient is a straight line in its offset: solve for it
            offset = f"{name}_offset"
            (low,) = self.plain[name](found | {offset: np.zeros(self.plain_shapes[offset])})
            (high,) = self.plain[name](found | {offset: np.ones(self.plain_shapes[offset])})
            found[offset] = (values[name] - low) / (high - low)
        return np.concatenate([np.ravel(found[name]) for name in self.plain_shapes])


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
