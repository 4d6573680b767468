"""The exact engine's crossed and nested models against a grid over the SDs, where estimates are normal.

Given the SDs such a posterior is normal, so that it is a mixture over the grid, exact but for the grid
(`mixed_design.integrate_over_scales`); the slow test here says how exact: to two thousandths of an SD.

Tolerances: means and P(> 0) within 5 Monte-Carlo errors and 2e-3 (of an SD), SDs within 5 of their errors and half a
per cent. An engine that is right is 5 errors off with probability 6e-7, in about 700 comparisons with a new seed: one
run in 2,000. With the seed here the outcome is always the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
from crossed_agreement import name_key, select_draws
from example_cells import table
from long_runs import index_table
from metropolis_reference import Array
from mixed_design import MixedDesign, Structure, build_design, integrate_over_scales
from quadrature_oracle import AGE, DEVICE, PLAN, SE, Mixture, Y, estimates

import bayes_hte as hte

GRID_ERROR = 2e-3
SITE = [f"t{i % 4 // 2}" for i in range(9)]
DISTRICT = ["x", "x", "y", "y", "x", "y", "y", "x", "x"]
EFFECT: dict[str, Any] = {
    "mean": {"dist": "Normal", "mu": 0.2, "sigma": 1.1}, "between": {"dist": "HalfNormal", "sigma": 0.6},
    "by_between": {"dist": "HalfNormal", "sigma": 0.9},
}  # fmt: skip
BASELINE: dict[str, Any] = {
    "mean": {"dist": "Normal", "mu": 0.5, "sigma": 2.0}, "between": {"dist": "HalfNormal", "sigma": 0.5},
    "by_between": {"dist": "HalfNormal", "sigma": 0.7},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Effects by terms, of estimates or, with baselines by terms, of means; and the points of the grid per SD."""

    effect: Mapping[str, Any]
    dimensions: Mapping[str, list[str]]
    points: int
    baseline: Mapping[str, Any] | None = None
    arms: int = 1
    shift: float = 0.0
    """Added to the estimates of the first device."""

    @property
    def spec(self) -> dict[str, Any]:
        effect = {"effect": EFFECT | dict(self.effect)}
        if self.baseline is None:
            return {"family": "estimate", **effect}
        unused = set() if self.baseline["by"] else {"by_between"}
        baseline = BASELINE | dict(self.baseline)
        return {"family": "mean", **effect, "baseline": {key: baseline[key] for key in baseline.keys() - unused}}

    def draw_data(self) -> tuple[Array, Array]:
        """Estimates or means with their standard errors, (segment, variant)."""
        moved = Y + self.shift * (np.array(DEVICE) == "d0")
        if self.baseline is None:
            shifts = np.array([0.0, 0.7, -0.4])[: self.arms]
            return moved[:, None] + shifts * Y[::-1, None], np.column_stack(
                [SE * (1 + 0.2 * a) for a in range(self.arms)]
            )
        return np.column_stack([Y[::-1], Y[::-1] + moved]), np.column_stack([0.7 * SE, 0.7 * SE[::-1]])

    def build_oracle(self) -> MixedDesign:
        arms = [f"a{i}" for i in range(self.arms)] if self.baseline is None else ["email"]
        return build_design(self.spec, Structure([f"s{i}" for i in range(9)], self.dimensions, arms, {"age": AGE}))

    def integrate(self, points: int) -> tuple[Mixture, Array]:
        y, se = self.draw_data()
        return integrate_over_scales(self.build_oracle(), y.ravel(), se.ravel(), points)

    def build_cells(self) -> xr.Dataset:
        y, se = self.draw_data()
        if self.baseline is None:
            return estimates(y, se, {**self.dimensions, "own": [f"o{i}" for i in range(9)]}, {"age": AGE})
        cells = table({"mean": y, "se": se}, arms=("control", "email"), control="control", dimension="own")
        placed = {name: ("segment", levels) for name, levels in self.dimensions.items()}
        return cells.assign_coords(placed).assign_attrs(
            dimensions=hte.spec.cell_table.encode_text_list(["own", *self.dimensions])
        )


CROSSED = {"device": DEVICE, "plan": PLAN}
CASES = {
    "crossed": Case({"by": ["device", "plan"]}, CROSSED, 14),
    "three dimensions": Case({"by": ["device", "plan", "site"]}, CROSSED | {"site": SITE}, 10),
    "nested": Case({"by": ["region", "region:district"]}, {"region": PLAN, "district": DISTRICT}, 14),
    "covariate": Case(
        {"by": ["device"], "covariates": ["age"], "slope": {"dist": "Normal", "mu": 0.0, "sigma": 0.7}}, CROSSED, 20
    ),
    "one SD for three arms": Case({"by": ["device", "plan"], "shared_between": True}, CROSSED, 14, arms=3),
    "a dimension twice": Case({"by": ["device", "again"]}, {"device": DEVICE, "again": [f"{d}'" for d in DEVICE]}, 14),
    "a dimension of one level": Case({"by": ["all", "plan"]}, {"all": ["everyone"] * 9, "plan": PLAN}, 14),
    "levels of one segment": Case({"by": ["lonely"]}, {"lonely": [*map(str, range(8)), "7"]}, 20),
    "a level far out": Case({"by": ["device", "plan"]}, CROSSED, 20, shift=3.0),
    "means": Case({"by": ["device"]}, CROSSED, 9, baseline={"by": ["device"]}),
    "means, other terms": Case({"by": ["device"]}, CROSSED, 9, baseline={"by": ["plan"]}),
    "means, effects only": Case({"by": ["plan", "device"]}, CROSSED, 9, baseline={"by": []}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def fit(case: Case) -> hte.Fit:
    cells, model = case.build_cells(), hte.Model.model_validate(case.spec)
    return hte.fit(cells, model, sampler="exact", draws=8000, seed=5)


@pytest.mark.slow
def test_the_grid_is_as_fine_as_it_says(case: Case) -> None:
    coarse, fine = (case.integrate(points)[0].moments() for points in (case.points, case.points + 5))
    assert (np.abs(coarse["mean"] - fine["mean"]) < GRID_ERROR * fine["sd"]).all()
    assert coarse["sd"] == pytest.approx(fine["sd"], rel=GRID_ERROR)
    assert coarse["p_positive"] == pytest.approx(fine["p_positive"], abs=GRID_ERROR)


def test_every_coefficient_and_sd_equals_the_grid(case: Case, fit: hte.Fit) -> None:
    mixture, sds = case.integrate(case.points)
    design, exact = case.build_oracle(), mixture.moments()
    of_sds = np.array([mixture.average(column) for column in sds.T])
    mean, sd = (np.concatenate([exact[key], of_sds[:, at]]) for at, key in enumerate(("mean", "sd")))
    draws = select_draws(fit, [*design.keys, *design.scale_keys])
    draws[..., len(design.keys) :] = np.exp(draws[..., len(design.keys) :])
    found = xr.Dataset({"x": (("chain", "draw", "quantity"), draws)})
    error, error_sd = (az.mcse(found, method=method)["x"].values for method in ("mean", "sd"))
    off_mean = ~(np.abs(draws.mean((0, 1)) - mean) <= 5 * error + GRID_ERROR * sd)
    off_sd = ~(np.abs(draws.std((0, 1)) / sd - 1) <= 5 * error_sd / sd + 5e-3)
    assert fit.diagnosis.ok, fit.diagnosis
    names = list(map(name_key, [*design.keys, *design.scale_keys]))
    assert [name for name, off in zip(names, off_mean | off_sd, strict=True) if off] == []


def test_stated_probabilities_of_signs_equal_the_grid(case: Case, fit: hte.Fit) -> None:
    exact = case.integrate(case.points)[0].moments()["p_positive"]
    stated = index_table(fit)
    for (name, labels), p in zip(case.build_oracle().keys, exact, strict=True):
        if name == "effect":
            row = stated.loc[labels]
            assert abs(row["p_positive"] - p) <= 5 * row["p_mcse"] + GRID_ERROR, labels
