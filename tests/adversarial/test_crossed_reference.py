"""The references of crossed and nested problems: right where a grid is exact, and able to see a fault.

False alarms: five errors each, over 30 quantities and four values: with a new seed one in 10,000 runs if errors were
known; they are estimated from 40 blocks, so one in some hundreds. With the seeds here the outcome is always the same.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from crossed_agreement import MIN_SIGN_ERROR, QUANTILES, compute_rhat
from metropolis_reference import Array, summarise
from mixed_design import MixedDesign, Structure, build_design, integrate_over_scales
from mixed_samplers import HamiltonianWalk, MixedData, walk_by_gradient, walk_over_scales
from paths import REFERENCE
from quadrature_oracle import DEVICE, PLAN, SE, Mixture, Y
from random_crossed import FAMILIES, LAYOUTS, make_crossed_problem
from scipy import stats

SE_OF_CELLS = np.repeat(SE, 2)
MEANS = np.column_stack([Y[::-1], 0.5 * Y[::-1] + Y]).ravel()


def half_normal(sigma: float) -> dict[str, Any]:
    return {"dist": "HalfNormal", "sigma": sigma}


def normal(sigma: float, mu: float = 0.0) -> dict[str, Any]:
    return {"dist": "Normal", "mu": mu, "sigma": sigma}


SPEC = {
    "effect": {"mean": normal(1.1, 0.2), "between": half_normal(0.6), "by": ["device"],
               "by_between": half_normal(0.9)},
    "baseline": {"mean": normal(2.0), "between": half_normal(0.5), "by": ["plan"], "by_between": half_normal(0.7)},
}  # fmt: skip


@pytest.fixture(scope="module")
def design() -> MixedDesign:
    """Nine segments by device and plan: effects differ by device, baselines by plan, four SDs."""
    return build_design(SPEC, Structure([f"s{i}" for i in range(9)], {"device": DEVICE, "plan": PLAN}, ["email"], {}))


@pytest.fixture(scope="module")
def grid(design: MixedDesign) -> tuple[Mixture, Array]:
    return integrate_over_scales(design, MEANS, SE_OF_CELLS, 9)


@pytest.fixture(scope="module")
def data() -> MixedData:
    return MixedData("mean", np.ones(18, dtype=bool), {"mean": MEANS, "se": SE_OF_CELLS}, np.tile([0, 1], 9))


def find_largest_z(draws: Array, grid: tuple[Mixture, Array]) -> float:
    """Largest distance, in errors, of P(> 0) and of shares below quantiles from those of the grid; R-hat is checked."""
    mixture, sds = grid
    found = summarise(draws, QUANTILES)
    exact = mixture.moments()["p_positive"]
    count, z = len(exact), []
    assert compute_rhat(draws[:, 0]).max() < 1.05
    z.append((found["p_positive"][0, :count] - exact) / np.maximum(found["error"][-1, 0, :count], MIN_SIGN_ERROR))
    for value, share in enumerate(QUANTILES):
        at, error = found["at"][value, 0], found["error"][value, 0]
        below = mixture.weights @ stats.norm.cdf((at[:count] - mixture.mean) / np.sqrt(mixture.variance))
        z.append((below - share) / error[:count])
        # The grid's SDs are few values: a share below one of them is known to half of its weight.
        order = np.argsort(sds, axis=0)
        for k in range(sds.shape[1]):
            nodes = np.log(sds[order[:, k], k])
            below_sd = float(np.interp(at[count + k], nodes, mixture.weights[order[:, k]].cumsum()))
            z.append(np.array([max(abs(below_sd - share) - 0.1, 0.0) / error[count + k]]))
    return float(np.abs(np.concatenate(z)).max())


def test_nine_points_for_every_sd_are_enough(design: MixedDesign, grid: tuple[Mixture, Array]) -> None:
    coarse, fine = (each.moments() for each in (integrate_over_scales(design, MEANS, SE_OF_CELLS, 7)[0], grid[0]))
    assert (np.abs(coarse["mean"] - fine["mean"]) < 2e-3 * fine["sd"]).all()
    assert coarse["sd"] == pytest.approx(fine["sd"], rel=2e-3)


def test_the_walk_over_sds_agrees_with_a_grid(
    design: MixedDesign, data: MixedData, grid: tuple[Mixture, Array]
) -> None:
    assert find_largest_z(walk_over_scales(design, data, sweeps=450, seed=1), grid) < 5


@pytest.mark.slow
def test_the_walk_by_gradient_agrees_with_a_grid(
    design: MixedDesign, data: MixedData, grid: tuple[Mixture, Array]
) -> None:
    assert find_largest_z(walk_by_gradient(design, data, sweeps=500, seed=2, kept=500), grid) < 5


def test_a_walk_under_another_prior_is_seen(data: MixedData, grid: tuple[Mixture, Array]) -> None:
    narrow = SPEC | {"effect": SPEC["effect"] | {"by_between": half_normal(0.45)}}
    structure = Structure([f"s{i}" for i in range(9)], {"device": DEVICE, "plan": PLAN}, ["email"], {})
    draws = walk_over_scales(build_design(narrow, structure), data, sweeps=450, seed=1)
    assert find_largest_z(draws, grid) > 5


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_the_gradient_is_that_of_the_density(family: str) -> None:
    problem = make_crossed_problem(family, 5, seed=1)
    walk = HamiltonianWalk(problem.design, problem.data, seed=1)
    rng = np.random.default_rng(3)
    at = 0.3 * rng.standard_normal(walk.at.shape)
    at[:, -walk.count :] += np.log(0.2 * walk.law.first[:, 0])  # not at the wall of a uniform prior
    slope, step = walk.density(at)[1], 1e-5
    for column in (0, 7, at.shape[1] - 1):
        high, low = at.copy(), at.copy()
        high[:, column] += step
        low[:, column] -= step
        difference = (walk.density(high)[0] - walk.density(low)[0]) / (2 * step)
        assert slope[:, column] == pytest.approx(difference, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_problems_are_what_both_sides_take(family: str) -> None:
    for number in range(len(LAYOUTS)):
        problem = make_crossed_problem(family, number, seed=3)
        assert problem.model.effect.by
        assert len(problem.design.cells) == problem.cells.sizes["segment"] * problem.cells.sizes["arm"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weak", "tiny"])
def test_the_walk_by_gradient_agrees_with_a_long_nuts_run(name: str) -> None:
    stored = json.loads((REFERENCE / "crossed" / f"{name}.json").read_text(encoding="utf-8"))
    design, data = read_stored_run(stored)
    draws = walk_by_gradient(design, data, sweeps=2000, seed=1)
    found = summarise(draws, ())
    assert compute_rhat(draws[:, 0]).max() < 1.02
    chains = draws[:, 0, :, : len(design.keys)].astype(float)
    mean, error = chains.mean((0, 1)), chains.mean(0).std(0, ddof=1) / np.sqrt(chains.shape[1])
    for i, (variable, labels) in enumerate(design.keys):
        numbers = stored["quantities"][variable]
        place = tuple(stored["labels"][dim].index(label) for dim, label in zip(numbers["dims"], labels, strict=True))
        # Student's t with 15 degrees of freedom: beyond six errors once in 40,000.
        assert abs(mean[i] - np.array(numbers["mean"])[place]) < 6 * np.hypot(
            error[i], np.array(numbers["mcse"])[place]
        )
        if "p_positive" in numbers:
            allowed = 5 * np.hypot(found["error"][-1, 0, i], np.array(numbers["p_mcse"])[place])
            assert abs(found["p_positive"][0, i] - np.array(numbers["p_positive"])[place]) < allowed + 1e-3


def read_stored_run(stored: dict[str, Any]) -> tuple[MixedDesign, MixedData]:
    """Read the rows of a stored run of yes or no as a product and arrays."""
    rows, dimensions = pd.DataFrame(stored["rows"]), stored["dimensions"]
    segments = rows.drop_duplicates(dimensions)
    labels = [" · ".join(levels) for levels in segments[dimensions].itertuples(index=False)]
    levels_of = {name: list(segments[name]) for name in dimensions}
    arms = stored["labels"]["arm"]
    variants = ["control", *arms]
    design = build_design(stored["model"], Structure(labels, levels_of, arms, {}))
    place = [
        labels.index(" · ".join(levels)) * len(variants) + variants.index(arm)
        for arm, *levels in rows[["arm", *dimensions]].itertuples(index=False)
    ]
    statistics = {name: np.zeros(len(labels) * len(variants)) for name in ("n", "events")}
    for name, values in statistics.items():
        values[place] = rows[name]
    seen = np.isin(np.arange(len(labels) * len(variants)), place)
    return design, MixedData("binomial", seen, statistics, np.tile(np.arange(len(variants)), len(labels)))
