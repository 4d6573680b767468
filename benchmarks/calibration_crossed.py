"""Designs of calibration whose segments share levels: crossed and nested dimensions, dense and sparse.

Every term's SDs, levels, the means and three segments are ranked, so that a model takes some forty quantities.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from calibration_designs import (
    METRIC,
    POOLED,
    THREE,
    TWO,
    Counts,
    Design,
    beliefs,
    counts,
    events,
    half_normal,
    moments,
    normal,
    rates,
    table,
)

DENSE = np.geomspace(40, 4000, 18).round().astype(int)[:, None] * [1, 1]
"""18 segments of 40 to 4,000 units an arm, the last level of every dimension the largest."""
SPARSE = np.array([[1 + 7 * i % 40, 1 + 11 * i % 40] for i in range(24)])
"""24 segments of 1 to 40 units an arm; two cells are empty."""
SPARSE[5, 1] = SPARSE[16, 0] = 0
FEW = np.array([[2 + 5 * i % 23, 2 + 3 * i % 19, 2 + 7 * i % 29] for i in range(12)])
"""12 segments, three arms, 2 to 30 units each."""
PLACES = np.array([[20 + 31 * i % 400, 20 + 47 * i % 400] for i in range(18)])
"""Three regions of three districts, two shops in each."""
TERMS = {"by_between": half_normal(0.4), "between": half_normal(0.2)}
BASELINE_TERMS = {"by_between": half_normal(0.5), "between": half_normal(0.3)}


def cross(*dimensions: tuple[str, int]) -> dict[str, list[str]]:
    """Levels of every segment, all combinations, the first dimension outermost."""
    grid = list(product(*(range(1, size + 1) for _, size in dimensions)))
    return {name: [f"{name}{place[at]}" for place in grid] for at, (name, _) in enumerate(dimensions)}


def nest(regions: int, districts: int, shops: int) -> dict[str, list[str]]:
    """Districts whose names repeat between regions, and shops that no term knows of."""
    return cross(("region", regions), ("district", districts), ("shop", shops))


def pooled_by(terms: Sequence[str], baseline: Mapping[str, object] = POOLED) -> dict[str, object]:
    """Baselines that share levels, with the mean of other designs."""
    return {"mean": baseline["mean"], "by": list(terms), **BASELINE_TERMS}


def crossed_designs() -> dict[str, Design]:
    """Three hundred experiments each, some forty quantities of every one."""
    everything = ("device", "plan", "region")
    nested = ("region", "region:district")
    age = np.array([35.0, 61, 48, 22, 55, 41, 30, 67, 44, 52, 38, 29, 58, 46, 33, 63, 25, 50])[:, None]
    slope = {"covariates": ["age"], "slope": normal(0.3)}
    exposure: Counts = PLACES
    return {
        "crossed": Design(
            "binomial, 3 devices × 3 plans × 2 regions, 40 to 4,000 units per cell",
            beliefs("binomial", TERMS | {"by": everything}, baseline=pooled_by(everything)),
            counts(DENSE, levels=cross(("device", 3), ("plan", 3), ("region", 2))), ("s1", "s8", "s18"), events,
            replications=300,
        ),
        "crossed, sparse": Design(
            "binomial, 4 devices × 3 plans × 2 regions, 0 to 40 units per cell",
            beliefs("binomial", TERMS | {"by": everything}, baseline=pooled_by(everything)),
            counts(SPARSE, levels=cross(("device", 4), ("plan", 3), ("region", 2))), ("s1", "s6", "s24"), events,
            replications=300,
        ),
        "crossed, three arms": Design(
            "normal, 3 arms, effects differ by device, baselines by plan and device",
            beliefs("normal", TERMS | {"by": ["device"]}, baseline=pooled_by(["plan", "device"], METRIC),
                    nuisance={"sigma": half_normal(2.0)}),
            table({"n": FEW, "mean": np.zeros(FEW.shape), "ss": FEW - 1.0}, THREE,
                  levels=cross(("device", 4), ("plan", 3))),
            ("s1", "s6", "s12"), moments, replications=300,
        ),
        "nested": Design(
            "binomial, 3 regions of 3 districts of 2 shops, 20 to 420 units per cell",
            beliefs("binomial", TERMS | {"by": nested}, baseline=pooled_by(nested)),
            counts(PLACES, levels=nest(3, 3, 2)), ("s1", "s10", "s18"), events, replications=300,
        ),
        "nested, covariate": Design(
            "poisson, 3 regions of 3 districts of 2 shops, effects depend on a covariate",
            beliefs("poisson", TERMS | {"by": nested} | slope, baseline=pooled_by(["region"])),
            table({"events": np.ones(exposure.shape, dtype=int), "exposure": 0.5 * exposure}, TWO,
                  levels=nest(3, 3, 2), covariate=["age"]).assign(covariates=(("segment", "covariate"), age)),
            ("s1", "s10", "s18"), rates, replications=300,
        ),
    }  # fmt: skip
