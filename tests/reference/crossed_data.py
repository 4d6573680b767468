"""Data of crossed and nested dimensions for make_crossed.py: rows of one segment and arm each, simulated by seed.

Levels of every dimension add up on the link scale, for baselines and for effects; what is left to a segment comes on
top. The package has no part in it.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def cross_levels(**sizes: int) -> pd.DataFrame:
    """All combinations of d1, d2, … of every dimension; one row per segment."""
    labels = [[f"{name[0]}{i + 1}" for i in range(size)] for name, size in sizes.items()]
    return pd.DataFrame(list(itertools.product(*labels)), columns=list(sizes))


def draw_predictors(
    rng: np.random.Generator, segments: pd.DataFrame, base: float, effects: list[float], between: tuple[float, float]
) -> np.ndarray:
    """Linear predictors, (segment, arm): every column of segments adds levels with SD between, cells a third of it."""
    arms = len(effects)
    eta = np.column_stack([np.full(len(segments), base), np.tile(effects, (len(segments), 1))])
    for column in segments:
        known = list(dict.fromkeys(segments[column]))
        level = rng.standard_normal((len(known), arms + 1)) * [between[0], *[between[1]] * arms]
        eta += level[[known.index(each) for each in segments[column]]]
    eta += rng.standard_normal(eta.shape) * [between[0] / 3, *[between[1] / 3] * arms]
    return eta[:, :1] + np.column_stack([np.zeros(len(segments)), eta[:, 1:]])


def stack_arms(segments: pd.DataFrame, **columns: np.ndarray) -> pd.DataFrame:
    """One row per segment and arm, from arrays (segment, arm), the control first; without cells of no units."""
    arms = next(iter(columns.values())).shape[1]
    rows = segments.loc[segments.index.repeat(arms)].reset_index(drop=True)
    rows["arm"] = ["control", *(f"arm {a}" for a in range(1, arms))] * len(segments)
    for name, values in columns.items():
        rows[name] = values.ravel()
    size = rows["n" if "n" in rows else "exposure"]
    return rows[size > 0].reset_index(drop=True)


def draw_counts(rng: np.random.Generator, segments: pd.DataFrame, n: np.ndarray, eta: np.ndarray) -> pd.DataFrame:
    """Yes or no."""
    return stack_arms(segments, n=n, events=rng.binomial(n, 1 / (1 + np.exp(-eta))))


def hillstrom() -> pd.DataFrame:
    """Visits to Hillstrom's shop, two e-mails against none, 10 segments by three dimensions."""
    rows = pd.read_csv(EXAMPLES / "hillstrom" / "cells.csv")
    arms = {"No e-mail": "control", "Men's e-mail": "arm 1", "Women's e-mail": "arm 2"}
    rows["arm"] = rows["arm"].map(arms)
    rows = rows.rename(columns={"visits": "events"})[["bought", "customer", "spent", "arm", "n", "events"]]
    return rows.sort_values(["bought", "customer", "spent", "arm"], key=lambda each: each.replace("control", "a")
                            ).reset_index(drop=True)  # fmt: skip


def large() -> pd.DataFrame:
    """18 segments, 400,000 units: data that are strong against the levels."""
    rng = np.random.default_rng(701)
    segments = cross_levels(device=3, plan=3, region=2)
    n = np.round(rng.dirichlet(np.full(36, 2.0)) * 400_000).astype(int).reshape(18, 2)
    return draw_counts(rng, segments, n, draw_predictors(rng, segments, -2.2, [0.1], (0.3, 0.1)))


def weak() -> pd.DataFrame:
    """23 of 24 combinations, 6 to 41 units a cell, one arm unseen in one of them."""
    rng = np.random.default_rng(702)
    segments = cross_levels(device=4, plan=3, region=2).drop(index=9).reset_index(drop=True)
    n = rng.integers(6, 42, (23, 2))
    n[17, 1] = 0
    return draw_counts(rng, segments, n, draw_predictors(rng, segments, -1.2, [0.4], (0.6, 0.4)))


def tiny() -> pd.DataFrame:
    """30 segments of 1 to 5 units a cell."""
    rng = np.random.default_rng(703)
    segments = cross_levels(device=5, plan=3, region=2)
    n = rng.integers(1, 6, (30, 2))
    return draw_counts(rng, segments, n, draw_predictors(rng, segments, -0.5, [0.8], (0.7, 0.6)))


def normal() -> pd.DataFrame:
    """60 segments, three arms, 2 to 30 units a cell with an SD of 2, 2 and 3."""
    rng = np.random.default_rng(704)
    segments, sds = cross_levels(device=5, plan=4, region=3), np.array([2.0, 2.0, 3.0])
    n = rng.integers(2, 31, (60, 3))
    eta = draw_predictors(rng, segments, 5.0, [0.5, -0.3], (0.8, 0.4))
    return stack_arms(
        segments, n=n, mean=eta + sds / np.sqrt(n) * rng.standard_normal(eta.shape), ss=sds**2 * rng.chisquare(n - 1)
    )


def poisson() -> pd.DataFrame:
    """Events over an exposure, 19 of 20 segments, two treated arms."""
    rng = np.random.default_rng(705)
    segments = cross_levels(device=5, plan=4).drop(index=13).reset_index(drop=True)
    exposure = np.round(rng.uniform(1.0, 60.0, (19, 3)), 1)
    eta = draw_predictors(rng, segments, -1.0, [0.3, -0.2], (0.4, 0.25))
    return stack_arms(segments, exposure=exposure, events=rng.poisson(exposure * np.exp(eta)))


def nested() -> pd.DataFrame:
    """13 districts of 4 regions by two devices; names of districts repeat between regions."""
    rng = np.random.default_rng(706)
    places = [(f"r{r + 1}", f"d{d + 1}") for r, count in enumerate((2, 5, 3, 3)) for d in range(count)]
    segments = pd.DataFrame(
        [(*place, device) for place in places for device in ("app", "web")], columns=["region", "district", "device"]
    )
    both = pd.DataFrame({"region": segments["region"], "pair": segments["region"] + segments["district"]})
    n = rng.integers(20, 500, (26, 2))
    return draw_counts(rng, segments, n, draw_predictors(rng, both, -1.8, [0.3], (0.5, 0.3)))


def nested_covariate() -> pd.DataFrame:
    """Two to four districts of 8 regions, 3 to 60 units a cell; effects fall with the district's age."""
    rng = np.random.default_rng(707)
    places = [(f"r{r + 1}", f"d{d + 1}") for r, count in enumerate((2, 3, 4, 2, 3, 4, 2, 3)) for d in range(count)]
    places = [place for place in places for _ in range(2)]
    segments = pd.DataFrame(places, columns=["region", "district"])
    segments["ward"] = [f"w{i % 2 + 1}" for i in range(len(segments))]
    age = np.round(rng.normal(45, 9, len(segments)), 1)
    both = pd.DataFrame({"region": segments["region"], "pair": segments["region"] + segments["district"]})
    eta = draw_predictors(rng, both, -0.8, [0.2], (0.5, 0.4))
    eta[:, 1] -= 0.4 * (age - 45) / 9
    return draw_counts(rng, segments.assign(age=age), rng.integers(3, 61, (len(segments), 2)), eta)
