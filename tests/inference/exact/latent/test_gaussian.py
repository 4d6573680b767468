"""The Gaussian's algebra against plain matrices, and its predictors against the structure that PyMC's are held to."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_structures import HALF, NORMAL
from scipy import stats

import bayes_hte as hte
from bayes_hte.inference.exact.latent.density import LatentDensity, build_density
from bayes_hte.inference.exact.latent.gaussian import compute_centres, compute_offset_scales
from bayes_hte.model.coefficients import SegmentOffsets, compute_coefficients, place_segments
from bayes_hte.model.parameters import collect_variable_dims, list_coefficients
from bayes_hte.model.problem import Problem, build_problem

LEVELS: dict[str, Any] = {"by": ["device", "plan"], "by_between": HALF}
NESTED: dict[str, Any] = {"by": ["device", "device:plan"], "by_between": HALF}
COVARIATE: dict[str, Any] = {"covariates": ["age"], "slope": NORMAL}
TIED: dict[str, Any] = {"correlation": {"dist": "LKJ", "eta": 2.0}}
DESIGNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one-way": ({}, {}),
    "crossed": (LEVELS, LEVELS),
    "crossed effect": (LEVELS, {}),
    "crossed baseline": ({}, LEVELS),
    "nested": (NESTED, {"by": ["plan"]}),
    "covariate": (LEVELS | COVARIATE, {}),
    "shared SD": (LEVELS | {"shared_between": True}, {}),
    "correlated": (TIED, {}),
    "strata": ({"strata": "plan"} | COVARIATE, LEVELS),
}


def make_cells(arms: int = 2) -> xr.Dataset:
    rng = np.random.default_rng(3)
    places = [(device, plan) for device in "abc" for plan in "xy"][:5]
    rows = [
        (*place, f"arm{arm}", rng.normal(0.3 * arm, 1.0), rng.uniform(0.2, 0.6))
        for place in places
        for arm in range(arms)
    ]
    frame = pd.DataFrame(rows, columns=["device", "plan", "arm", "mean", "se"])
    cells = hte.cells.from_summary(frame, arm="arm", control="arm0", segments=["device", "plan"], mean="mean", se="se")
    ages = pd.DataFrame(places, columns=["device", "plan"]).assign(age=rng.normal(40.0, 9.0, len(places)))
    return hte.cells.with_covariates(cells, ages, ["age"])


def make_problem(design: str, arms: int = 2) -> Problem:
    effect, baseline = DESIGNS[design]
    pool = {"mean": NORMAL, "between": HALF}
    model = {"family": "mean", "effect": pool | effect, "baseline": pool | baseline}
    return build_problem(make_cells(arms), hte.Model.model_validate(model))


def compute_plain_log_density(density: LatentDensity, problem: Problem, point: np.ndarray) -> float:
    """Integrate means, levels and offsets by the covariance matrix of all cell means, built from unit vectors."""
    structure = density.structure
    natural = structure.compute_natural(point[np.newaxis])
    segments, cells = structure.segment_count, len(structure.layouts)
    scales = compute_offset_scales(structure, natural, 1)
    column_scales = structure.scales.evaluate(natural, 1)[0]
    zero = tuple(np.zeros((segments, 1)) for _ in range(cells))
    directions = [
        np.concatenate(compute_centres(structure, zero, (unit * column_scales)[np.newaxis]))[:, 0]
        for unit in np.eye(structure.column_count)
    ]
    for segment in range(segments):
        mine = np.eye(segments)[segment]
        shared = [np.broadcast_to(scale, (segments, 1))[:, 0] * mine for scale in scales.shared]
        directions.append(np.concatenate(shared))
        for j in range(cells):
            own = np.broadcast_to(scales.own[j], (segments, 1))[:, 0] * mine
            directions.append(np.concatenate([own if i == j else np.zeros(segments) for i in range(cells)]))
    loadings = np.stack(directions, axis=1)
    statistics = problem.cell_statistics.transpose("arm", "segment")
    observed, errors = (statistics[name].values.reshape(-1) for name in ("mean", "se"))
    centre = np.concatenate(
        [
            start[:, 0] + reference[:, 0]
            for start, reference in zip(density.start, density.cells.references, strict=True)
        ]
    )
    covariance = loadings @ loadings.T + np.diag(errors**2)
    prior = stats.norm.logpdf(point).sum()
    return float(stats.multivariate_normal.logpdf(observed, centre, covariance) + prior)


@pytest.mark.parametrize("arms", [2, 4])
@pytest.mark.parametrize("design", DESIGNS)
def test_the_integral_is_that_of_the_covariance_of_all_cells(design: str, arms: int) -> None:
    problem = make_problem(design, arms)
    density = build_density(problem)
    rng = np.random.default_rng(1)
    density = density.settled(np.zeros(len(density.structure.coordinates)))
    points = rng.normal(0.0, 1.2, (4, len(density.structure.coordinates)))
    expected = [compute_plain_log_density(density, problem, point) for point in points]
    assert density.approximate(points) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("design", DESIGNS)
def test_predictors_are_those_of_the_structure(design: str) -> None:
    problem = make_problem(design, 3)
    structure = build_density(problem).structure
    rng = np.random.default_rng(2)
    natural = structure.compute_natural(rng.normal(size=(1, len(structure.coordinates))))
    columns = rng.normal(size=(1, structure.column_count))
    dims = collect_variable_dims(problem.model)
    values = {
        name: xr.DataArray(entries[0].reshape([len(problem.coords[dim]) for dim in dims[name]]), dims=dims[name])
        for name, entries in natural.items()
    }
    sizes: dict[str, int] = {}
    for name, position, _ in structure.column_names:
        sizes[name] = max(sizes.get(name, 0), position + 1)
    flat = {name: np.empty(size) for name, size in sizes.items()}
    scales = structure.scales.evaluate(natural, 1)
    for column, (name, position, location) in enumerate(structure.column_names):
        flat[name][position] = location + (columns * scales)[0, column]
    values |= {
        name: xr.DataArray(entries.reshape([len(problem.coords[dim]) for dim in dims[name]]), dims=dims[name])
        for name, entries in flat.items()
    }
    segments, arms = structure.segment_count, len(problem.coords["arm"])
    base, own = rng.normal(size=segments), rng.normal(size=(segments, arms))
    offsets = {
        "baseline": SegmentOffsets(xr.DataArray(base, dims="segment")),
        "effect": SegmentOffsets(
            xr.DataArray(own, dims=("segment", "arm")), baseline=xr.DataArray(base, dims="segment")
        ),
    }
    placement = place_segments(problem.segment_design)
    expected = {
        each.name: compute_coefficients(each, values, offsets[each.name], placement).values
        for each in list_coefficients(problem.model)
    }
    start = build_density(problem)
    centres = compute_centres(structure, start.start, columns * scales)
    offset_scales = compute_offset_scales(structure, natural, 1)
    found = [
        (centre + reference + shared * base[:, np.newaxis] + scale * ([base, *own.T][j])[:, np.newaxis])[:, 0]
        for j, (centre, reference, shared, scale) in enumerate(
            zip(centres, start.cells.references, offset_scales.shared, offset_scales.own, strict=True)
        )
    ]
    assert found[0] == pytest.approx(expected["baseline"], abs=1e-12)
    for arm in range(arms):
        assert found[arm + 1] == pytest.approx(expected["baseline"] + expected["effect"][:, arm], abs=1e-12)


def test_a_mean_under_a_t_is_a_normal_of_random_scale() -> None:
    """Averaged over its mixing coordinate, the prior of the mean is Student's t: quantiles of 200,000 draws."""
    prior = {"dist": "StudentT", "nu": 4.0, "mu": 0.5, "sigma": 2.0}
    pool = {"mean": NORMAL, "between": HALF}
    model = hte.Model.model_validate({"family": "mean", "effect": pool | {"mean": prior}, "baseline": pool})
    structure = build_density(build_problem(make_cells(), model)).structure
    rng = np.random.default_rng(5)
    natural = structure.compute_natural(rng.normal(size=(200_000, len(structure.coordinates))))
    column = [name for name, _, _ in structure.column_names].index("effect_mean")
    scales = structure.scales.evaluate(natural, 200_000)[:, column]
    draws = structure.column_names[column][2] + scales * rng.normal(size=200_000)
    levels = np.array([0.01, 0.25, 0.5, 0.9, 0.995])
    # A share of 200,000 draws has an error of at most .0011; 5 of them: a false alarm in 3e-6
    found = np.array([(draws < stats.t.ppf(level, 4.0, 0.5, 2.0)).mean() for level in levels])
    assert found == pytest.approx(levels, abs=5 * 0.0011)
