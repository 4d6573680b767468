"""Random problems of crossed and nested dimensions, awkward ones among them: a cell table and a model for the package.

A problem depends on a seed, the family's name and its number alone, so that any of them can be made again. In turn
its dimensions are awkward in one of the ways of `LAYOUTS`, its truth in one of those of `TRUTHS`.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from metropolis_reference import Array
from mixed_design import MixedDesign, Structure, build_design
from mixed_samplers import MixedData, walk_by_gradient, walk_over_scales
from numpy.typing import NDArray
from random_problems import draw_sd_prior
from scipy import special

import bayes_hte as hte
from bayes_hte.spec import cell_table

FAMILIES = ("estimate", "mean", "normal", "binomial", "poisson")
NORMAL_FAMILIES = ("estimate", "mean", "normal")
TRUTHS = ("prior", "prior", "alike", "huge", "conflict")
SIGMA_SCALE = 2.0

Levels = dict[str, list[str]]
Layout = Callable[[np.random.Generator], Levels]


@dataclass(frozen=True)
class CrossedProblem:
    """One problem: what the package gets, and the same as a product and plain arrays."""

    layout: str
    truth: str
    cells: xr.Dataset
    spec: dict[str, Any]
    design: MixedDesign
    data: MixedData

    @property
    def model(self) -> hte.Model:
        return hte.Model.model_validate(self.spec)

    def draw_reference(self, sweeps: int, seed: int) -> Array:
        """Draw functions and log SDs, (draw, 1, chain, quantity)."""
        if self.data.family in NORMAL_FAMILIES:
            return walk_over_scales(self.design, self.data, sweeps=sweeps, seed=seed, sigma_scale=SIGMA_SCALE)
        return walk_by_gradient(self.design, self.data, sweeps=sweeps, seed=seed)


# ----------------------------------------------------------------------------------------------- layouts


def cross(rng: np.random.Generator, *sizes: int, kept: float = 1.0) -> Levels:
    """All combinations of levels, or a share of them, one segment each; dimensions a, b, c."""
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))
    keep = rng.random(len(grid)) < kept
    keep[:2] = True
    return {name: [f"{name}{level}" for level in grid[keep, at]] for at, name in zip(range(len(sizes)), "abc")}  # noqa: B905


def draw_sizes_of(rng: np.random.Generator, count: int) -> list[int]:
    return [int(size) for size in rng.integers(2, 5 if count == 2 else 4, count)]


def lay_out_plain(rng: np.random.Generator) -> Levels:
    return cross(rng, *draw_sizes_of(rng, int(rng.integers(2, 4))))


def lay_out_gaps(rng: np.random.Generator) -> Levels:
    return cross(rng, *draw_sizes_of(rng, 3), kept=0.6)


def lay_out_single_level(rng: np.random.Generator) -> Levels:
    return cross(rng, 1, int(rng.integers(2, 6)), int(rng.integers(1, 4)))


def lay_out_two_levels(rng: np.random.Generator) -> Levels:
    return cross(rng, 2, 2)


def lay_out_accidental_nesting(rng: np.random.Generator) -> Levels:
    """Every level of b lies within one of a, without the model knowing."""
    levels = cross(rng, int(rng.integers(2, 4)), int(rng.integers(2, 4)), int(rng.integers(1, 3)))
    return levels | {"b": [a + b for a, b in zip(levels["a"], levels["b"], strict=True)]}


def lay_out_twin(rng: np.random.Generator) -> Levels:
    """The first dimension a second time under another name, labels and order."""
    levels = cross(rng, int(rng.integers(2, 6)), int(rng.integers(2, 4)))
    return levels | {"c": [f"twin of {label}" for label in levels["a"]]}


def lay_out_lonely_levels(rng: np.random.Generator) -> Levels:
    """Most levels of b hold a single segment: they cannot be told from what is left to segments."""
    count = int(rng.integers(5, 12))
    return {
        "a": [f"a{level}" for level in rng.integers(0, 3, count)],
        "b": ["b0", "b0", *(f"b{i}" for i in range(1, count - 1))],
    }


def lay_out_many_levels(rng: np.random.Generator) -> Levels:
    count = int(rng.integers(25, 40))
    return {"a": [f"a{i % 20}" for i in range(count)], "b": [f"b{level}" for level in rng.integers(0, 3, count)]}


def lay_out_nested(rng: np.random.Generator) -> Levels:
    """Districts whose names repeat between regions: the model states a and a:b."""
    count = int(rng.integers(2, 5))
    pairs = [(a, b, c) for a in range(count) for b in range(int(rng.integers(1, 4))) for c in range(2)]
    return {name: [f"{name}{pair[at]}" for pair in pairs] for at, name in enumerate("abc")}


LAYOUTS: dict[str, Layout] = {
    "plain": lay_out_plain, "gaps": lay_out_gaps, "an arm missing in a level": lay_out_plain,
    "one level": lay_out_single_level, "two levels": lay_out_two_levels, "nested": lay_out_nested,
    "nested by accident": lay_out_accidental_nesting, "a dimension twice": lay_out_twin,
    "levels of one segment": lay_out_lonely_levels, "many levels": lay_out_many_levels,
    "nested, arm missing": lay_out_nested,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- models


def draw_spec(rng: np.random.Generator, family: str, layout: str, levels: Levels) -> dict[str, Any]:
    """Priors and terms, alike for effects and baselines or not; at times slopes, and one SD for all arms."""
    names = list(levels)
    every = ["a", "a:b"] if layout.startswith("nested") and "accident" not in layout else names
    scale = float(rng.choice([0.2, 0.5, 1.0]))
    effect: dict[str, Any] = {
        "mean": {"dist": "Normal", "mu": 0.0, "sigma": 2 * scale}, "between": draw_sd_prior(rng, 0.5 * scale),
        "by": every, "by_between": draw_sd_prior(rng, scale),
    }  # fmt: skip
    if rng.random() < 0.2:
        effect["shared_between"] = True
    if rng.random() < 0.2:
        effect |= {"covariates": ["age"], "slope": {"dist": "Normal", "mu": 0.0, "sigma": scale}}
    spec: dict[str, Any] = {"family": family, "effect": effect}
    if family == "estimate":
        return spec
    spec["baseline"] = {
        "mean": {"dist": "Normal", "mu": 0.0 if family in NORMAL_FAMILIES else -1.0, "sigma": 2.5},
        "between": draw_sd_prior(rng, 0.5), "by": every, "by_between": draw_sd_prior(rng, 0.7),
    }  # fmt: skip
    if rng.random() < 0.3:
        spec[str(rng.choice(["effect", "baseline"]))]["by"] = every[-1:]
    if family == "normal":
        spec["nuisance"] = {"sigma": {"dist": "HalfNormal", "sigma": SIGMA_SCALE}}
    return spec


def draw_eta(rng: np.random.Generator, design: MixedDesign, truth: str) -> Array:
    """Linear predictors of cells: as the prior says, alike, with one huge SD, or with means far from their prior."""
    sds = np.array([0.4 * prior_scale(prior) * abs(rng.standard_normal()) for prior in design.scale_priors])
    if truth == "alike":
        sds = np.full(len(sds), 1e-3)
    if truth == "huge":
        sds[int(rng.integers(len(sds)))] = 3.0
    z = rng.standard_normal(len(design.centre))
    z[design.scale_index < 0] *= 2.5 if truth == "conflict" else 0.5
    return np.asarray(np.clip(design.cells @ (design.centre + design.scale_columns(sds) * z), -8.0, 6.0))


def prior_scale(prior: dict[str, Any]) -> float:
    """A typical SD under a prior as model files write it."""
    if prior["dist"] == "LogNormal":
        return float(np.exp(prior["mu"]))
    return float(next(prior[key] for key in ("sigma", "scale", "beta", "upper") if key in prior))


# -------------------------------------------------------------------------------------------------- data


def draw_seen(rng: np.random.Generator, layout: str, levels: Levels, variants: int) -> NDArray[np.bool_]:
    """Cells with data, (segment, variant): all, but for gaps, or for the last arm in one level."""
    seen = np.ones((len(levels["a"]), variants), dtype=bool)
    if layout == "gaps":
        seen = rng.random(seen.shape) < 0.8
    if "missing" in layout:
        seen[np.array(levels["a"]) == levels["a"][-1], -1] = False
    seen[~seen.any(1), 0] = True
    seen[0] = True  # of every arm something is known
    return seen


def draw_statistics(rng: np.random.Generator, family: str, eta: Array, seen: NDArray[np.bool_]) -> dict[str, Array]:
    """Few units, many, or from few to many within one table; (segment, variant), 0 or NaN where nothing was seen."""
    low, high = ((0.3, 1.0), (1.0, 2.5), (2.5, 4.5), (0.3, 4.0))[int(rng.integers(4))]
    n = np.where(seen, np.floor(10 ** rng.uniform(low, high, eta.shape)), 0.0)
    if family == "binomial":
        return {"n": n, "events": rng.binomial(n.astype(int), special.expit(eta)).astype(float)}
    if family == "poisson":
        return {"exposure": n, "events": rng.poisson(n * np.exp(np.minimum(eta, 3.0))).astype(float)}
    if family == "normal":
        n = np.where(seen, n + 1, 0.0)
        sigma = rng.uniform(0.5, 2.0, eta.shape[1])
        mean = eta + sigma / np.sqrt(np.maximum(n, 1)) * rng.standard_normal(eta.shape)
        ss = sigma**2 * rng.chisquare(np.maximum(n - 1, 1)) * (n > 1)
        return {"n": n, "mean": np.where(seen, mean, np.nan), "ss": ss}
    se = np.where(seen, 1.5 / np.sqrt(np.maximum(n, 1.0)), np.nan)
    return {"mean": eta + np.where(seen, se, np.nan) * rng.standard_normal(eta.shape), "se": se}


def build_table(family: str, statistics: dict[str, Array], levels: Levels, arms: list[str], age: Array) -> xr.Dataset:
    """Make the package's cell table; a further dimension tells segments with equal levels apart."""
    labels = [f"s{i}" for i in range(len(age))]
    dimensions = {**levels, "site": [f"site {i}" for i in range(len(age))]}
    names = {"mean": "estimate"} if family == "estimate" else {}
    whole = ("n", "events")
    variables: dict[str, Any] = {
        names.get(name, name): (("segment", "arm"), values.astype(int) if name in whole else values)
        for name, values in statistics.items()
    }
    variables["covariates"] = (("segment", "covariate"), age[:, None])
    control = "" if family == "estimate" else arms[0]
    return cell_table.check_cell_table(
        xr.Dataset(
            variables,
            coords={"segment": labels, "arm": arms, "covariate": ["age"]}
            | {name: ("segment", of_segment) for name, of_segment in dimensions.items()},
            attrs={"outcome": "y", "control": control, "dimensions": cell_table.encode_text_list(dimensions),
                   "notes": "[]"},
        )
    )  # fmt: skip


def make_crossed_problem(family: str, number: int, seed: int) -> CrossedProblem:
    """Make one problem."""
    rng = np.random.default_rng([seed, zlib.crc32(f"crossed {family}".encode()), number])
    layout, truth = list(LAYOUTS)[number % len(LAYOUTS)], TRUTHS[int(rng.integers(len(TRUTHS)))]
    levels = LAYOUTS[layout](rng)
    spec = draw_spec(rng, family, layout, levels)
    arms = [f"arm {i + 1}" for i in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])))]
    variants = arms if family == "estimate" else ["control", *arms]
    age = rng.normal(40.0, 10.0, len(levels["a"]))
    structure = Structure([f"s{i}" for i in range(len(age))], levels, arms, {"age": age})
    design = build_design(spec, structure)
    seen = draw_seen(rng, layout, levels, len(variants))
    eta = draw_eta(rng, design, truth).reshape(seen.shape)
    statistics = draw_statistics(rng, family, eta, seen)
    flat = {name: values.ravel() for name, values in statistics.items()}
    if family == "normal":
        flat["freedom"] = np.maximum(flat["n"] - 1, 0)
    data = MixedData(family, seen.ravel(), flat, np.tile(np.arange(len(variants)), len(age)))
    table = build_table(family, statistics, levels, variants, age)
    return CrossedProblem(layout, truth, table, spec, design, data)
