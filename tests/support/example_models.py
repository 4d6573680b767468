"""PyMC models to compare: the text that reports and the models' page show, run; and points to compare them at."""

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered

from bayes_hte import Model
from bayes_hte.model.families import normal, two_part
from bayes_hte.model.problem import Problem
from bayes_hte.model.text import pymc_source

EFFECT: dict[str, Any] = {
    "mean": {"dist": "StudentT", "nu": 4.0, "sigma": 1.2},
    "between": {"dist": "HalfStudentT", "nu": 3.0, "sigma": 0.7},
}
POOLED: dict[str, Any] = {"mean": {"dist": "Normal", "sigma": 2.0}, "between": {"dist": "Exponential", "scale": 0.8}}
FREE: dict[str, Any] = {"pooling": "none", "mean": {"dist": "Uniform", "lower": -30.0, "upper": 30.0}}
SIGMA: dict[str, Any] = {"sigma": {"dist": "Gamma", "mu": 3.0, "sigma": 2.0}}


def run_shown_text(task: Problem) -> pm.Model:
    """Execute the text on the arrays it names."""
    cells = task.long_cells
    names: dict[str, Any] = {name: cells[name].values for name in [*map(str, cells.data_vars), *map(str, cells.coords)]}
    if task.family.name == "normal":
        names["ss"], names["freedom"] = normal.sum_squares_within_arms(cells)
    if task.family.name == "two_part":
        amounts = two_part.select_amount_moments(cells).assign(arm_index=cells["arm_index"])
        names["log_ss"], names["freedom"] = normal.sum_squares_within_arms(amounts)
    names |= {
        "pm": pm,
        "pt": pt,
        "np": np,
        "ordered": ordered,
        "coords": {**task.coords, "cell": list(cells["cell"].values)},
    }
    names |= {"index": task.segment_design.level_index, "covariates": task.segment_design.standardised_covariates}
    exec(pymc_source.write_pymc_source(task.model), names)  # noqa: S102 (the package's own text)
    shown: pm.Model = names["model"]
    return shown


def free_point(model: pm.Model, seed: int) -> dict[str, np.ndarray]:
    """A random point on the unconstrained scale."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.7, np.shape(value)) for name, value in model.initial_point().items()}


def beliefs(family: str, pooling: str, baseline: str) -> Model:
    """A model of every family, pooling and baseline pooling."""
    tables: dict[str, Any] = {"effect": EFFECT}
    if family != "estimate":
        tables["baseline"] = POOLED if baseline == "partial" else FREE
    if family == "normal":
        tables["nuisance"] = SIGMA
    return Model.model_validate({"family": family, "pooling": pooling, **tables})
