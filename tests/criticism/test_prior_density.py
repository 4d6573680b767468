"""The prior's density is that of its distributions: against the share of many draws below any value."""

from typing import Any

import numpy as np
import pytest
from example_posterior import example_fit

from bayes_hte.criticism.prior_density import build_prior_density
from bayes_hte.estimands.effects import convert_to_scale
from bayes_hte.model.prior_draws import draw_from_prior
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec.model import Model

NORMAL, WIDE = {"dist": "Normal", "mu": 0.1, "sigma": 0.4}, {"dist": "StudentT", "nu": 4.0, "sigma": 0.3}
HALF = {"dist": "HalfNormal", "sigma": 0.5}
DRAWS = 20_000


def pose_problem(family: Any, **effect: Any) -> Problem:
    cells = example_fit(3, family).cells
    specification: dict[str, Any] = {"family": family, "effect": {"mean": NORMAL, "between": HALF} | effect}
    if family != "estimate":
        specification["baseline"] = {"mean": {"dist": "Normal", "mu": -1.0, "sigma": 0.7}, "between": HALF}
    if family == "normal":
        specification["nuisance"] = {"sigma": {"dist": "HalfNormal", "sigma": 1.0}}
    return build_problem(cells, Model.model_validate(specification))


@pytest.mark.parametrize("scale", ["link", "absolute", "relative"])
@pytest.mark.parametrize("effect", [{}, {"mean": WIDE}, {"shape": "student_t"}], ids=["normal", "wide mean", "heavy"])
def test_the_share_of_draws_below_any_value_is_the_integral_of_the_density(scale: Any, effect: dict[str, Any]) -> None:
    problem = pose_problem("binomial", **effect)
    density = build_prior_density(problem, scale)
    assert density is not None
    draws = draw_from_prior(problem, draw_count=DRAWS, rng=np.random.default_rng(5))
    parameters = {name: values.isel(segment=0) for name, values in draws.items() if name in ("effect", "baseline")}
    effects = convert_to_scale(problem.family, parameters, scale, problem.cell_statistics).values.ravel()
    low, high = np.quantile(effects, [0.02, 0.98])
    grid = np.linspace(low, high, 801)
    values = density(grid)
    integral = np.concatenate([[0.0], np.cumsum(np.diff(grid) * (values[1:] + values[:-1]) / 2)])
    shares = np.searchsorted(np.sort(effects), grid) / len(effects) - 0.02
    # Dvoretzky-Kiefer-Wolfowitz: P(any share is off by more than 0.02) < 2 exp(-2 n 0.02^2) = 2e-7; quantiles in place
    # of integrals are off by less than half as much.
    assert np.abs(integral - shares).max() < 0.03


def test_the_density_is_smooth() -> None:
    density = build_prior_density(pose_problem("binomial"), "link")
    assert density is not None
    values = density(np.linspace(-2, 2, 201))
    # One peak: it rises, then falls, without the noise of counts.
    assert (np.diff(np.sign(np.diff(values))) != 0).sum() == 1


@pytest.mark.parametrize("family", ["normal", "estimate"])
def test_under_an_identity_link_differences_have_the_density_of_the_model(family: Any) -> None:
    problem = pose_problem(family)
    absolute, link = build_prior_density(problem, "absolute"), build_prior_density(problem, "link")
    assert absolute is not None
    assert link is not None
    grid = np.linspace(-1, 1, 11)
    assert (absolute(grid) == link(grid)).all()


def test_segments_that_differ_before_the_data_have_no_common_density() -> None:
    assert build_prior_density(pose_problem("binomial", by=["device"]), "link") is None
