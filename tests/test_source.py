"""The PyMC text that reports and the models' page show is the model that is fitted: run, and compared."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from example_cells import example
from pymc.distributions.transforms import ordered
from pytensor import config
from test_exact_structures import FAMILIES, STRUCTURES, stated

from bayes_hte import Model, read_model, source, words
from bayes_hte.families import normal, two_part
from bayes_hte.model import Problem, build, problem
from bayes_hte.spec import shipped_models
from bayes_hte.structure import coefficients

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


def run_shown_text(task: Problem) -> pm.Model:
    """Execute the text on the arrays it names."""
    cells = task.cells
    names: dict[str, Any] = {name: cells[name].values for name in [*map(str, cells.data_vars), *map(str, cells.coords)]}
    if task.family.name == "normal":
        names["ss"], names["freedom"] = normal.within_arm(cells)
    if task.family.name == "two_part":
        amounts = two_part.amount(cells).assign(arm_index=cells["arm_index"])
        names["log_ss"], names["freedom"] = normal.within_arm(amounts)
    names |= {
        "pm": pm,
        "pt": pt,
        "np": np,
        "ordered": ordered,
        "coords": {**task.coords, "cell": list(cells["cell"].values)},
    }
    names |= {"index": task.design.index, "covariates": task.design.covariates}
    exec(source.pymc_text(task.model), names)  # noqa: S102 (the package's own text)
    shown: pm.Model = names["model"]
    return shown


def free_point(model: pm.Model, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.7, np.shape(value)) for name, value in model.initial_point().items()}


@pytest.mark.parametrize(("family", "structure"), CASES, ids=str)
def test_shown_pymc_text_is_the_model_that_is_fitted(family: str, structure: dict[str, Any]) -> None:
    task = problem(example(family), stated(family, structure))
    ours, shown = build(task), run_shown_text(task)
    point = free_point(ours, seed=1)
    assert ours.compile_logp()(point) == pytest.approx(float(shown.compile_logp()(point)), rel=1e-12)


@pytest.mark.parametrize(("family", "structure"), CASES, ids=str)
def test_a_reusable_model_is_the_same_model(family: str, structure: dict[str, Any]) -> None:
    task = problem(example(family), stated(family, structure))
    ours, reusable = build(task), build(task, reusable=True)
    point = free_point(ours, seed=2)
    # Constants are folded in one of them: a multinomial's shares are rounded differently.
    assert ours.compile_logp()(point) == pytest.approx(float(reusable.compile_logp()(point)), rel=1e-8)
    numbers = [value for value in reusable.data_vars if value.name.endswith("__data")]
    assert len(numbers) >= 3


@pytest.mark.parametrize("name", shipped_models())
def test_every_shipped_model_is_told_in_mathematics_and_in_sentences(name: str) -> None:
    model = read_model(name)
    lines = "\n".join(words.mathematics(model))
    for asked in coefficients(model):
        assert f"{asked.name}_mean" in lines or asked.pool.mean is None
        assert f"{asked.name}_between" in lines
    if model.nuisance is not None:
        assert all(parameter in lines for parameter in model.nuisance.given)
    told = words.sentences(model)
    assert len(told) >= 3
    assert all(sentence.endswith(".") for sentence in told)


def test_a_structure_is_told_in_words() -> None:
    for structure in [*STRUCTURES.values(), *NUTS_ONLY.values()]:
        model: Model = stated("binomial", structure)
        plain = set(words.sentences(stated("binomial", {})))
        assert not structure or set(words.sentences(model)) - plain
