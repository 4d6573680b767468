"""Simulated experiments whose truth is known: what decision rules and policies are tried on.

    scenario = SCENARIOS["few winners"]
    experiment = scenario.draw_experiment(np.random.default_rng([seed, repetition]), segment_count=8)
    fit = hte.fit(experiment.build_cells(), MODEL, sampler="exact", draws=1000, seed=1)

One unit of effect is the effect that the experiment was planned for: the average effect has a standard error of 1/2.8,
which gives a power of 80 % at that effect. Segments differ twenty-fold in size; a segment with the share w of the units
has the standard error (1 / 2.8) / √w. An experiment is a published estimate and its standard error for each segment, so
that a fit takes the exact engine milliseconds; what is learned holds for every outcome whose raw effects are normal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

import bayes_hte as hte

POWERED_ERROR: Final = 1 / 2.8
"""Standard error of the average effect: z(.975) + z(.8) = 2.8 of them are the planned effect."""
SIZE_RATIO: Final = 20.0
SEGMENT_COUNTS: Final = (8, 40)
WINNER_SHARE, WINNER_EFFECT = 1 / 8, 2.0

MODEL: Final = hte.Model(
    title="Effects in units of the planned one, partially pooled",
    family="estimate",
    pooling="partial",
    effect={"mean": {"dist": "Normal", "sigma": 1.0}, "between": {"dist": "HalfNormal", "sigma": 1.0}},
)
"""The planned effect is one SD of the mean effect, and of the scale of differences between segments."""

type Rng = np.random.Generator
type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Experiment:
    """One experiment: what is true of each segment, and what was seen.

    Attributes
    ----------
    true_effects, raw_effects, raw_errors, shares : array, axis (segment,)
        In units of the planned effect; shares sum to 1.
    """

    true_effects: Floats
    raw_effects: Floats
    raw_errors: Floats
    shares: Floats

    def build_cells(self) -> xr.Dataset:
        """Build the cell table, with units so that shares of the population are those of the segments."""
        template = build_template(len(self.shares))
        measured = {"estimate": self.raw_effects, "se": self.raw_errors}
        return template.assign({name: template[name].copy(data=values[:, None]) for name, values in measured.items()})


@cache
def build_template(segment_count: int) -> xr.Dataset:
    """Build the cell table that all experiments with so many segments share, but for what was seen."""
    labels = [f"segment {index + 1}" for index in range(segment_count)]
    unit_counts = np.rint(1e6 * compute_shares(segment_count)).astype(int)
    estimates = pd.DataFrame({"segment": labels, "effect": 0.0, "se": 1.0, "n": unit_counts})
    return hte.cells.from_estimates(estimates, segments=["segment"], estimate="effect", se="se", n="n")


def compute_shares(segment_count: int) -> Floats:
    """Compute the shares of segments, the largest first."""
    sizes = np.geomspace(SIZE_RATIO, 1.0, segment_count)
    return np.asarray(sizes / sizes.sum())


def draw_null(rng: Rng, shares: Floats) -> Floats:
    """Draw no effect anywhere."""
    return np.zeros_like(shares)


def draw_few_winners(rng: Rng, shares: Floats) -> Floats:
    """Draw two planned effects in one of eight segments, whichever, and none in all others."""
    effects = np.zeros_like(shares)
    winner_count = max(1, round(WINNER_SHARE * len(shares)))
    effects[rng.choice(len(shares), winner_count, replace=False)] = WINNER_EFFECT
    return effects


def draw_prior(rng: Rng, shares: Floats) -> Floats:
    """Draw effects as the model's prior has them."""
    mean, between = rng.normal(0, 1), abs(rng.normal(0, 1))
    return np.asarray(rng.normal(mean, between, len(shares)))


def draw_quarter(rng: Rng, shares: Floats) -> Floats:
    """Draw effects that are four times smaller than the prior has them."""
    return draw_prior(rng, shares) / 4


def draw_size_trend(rng: Rng, shares: Floats) -> Floats:
    """Draw effects that rise or fall with the logarithm of the size, from −1.2 to 1.2 SDs of the sizes and more."""
    log_sizes = np.log(shares)
    standardised = (log_sizes - log_sizes.mean()) / log_sizes.std()
    slope = rng.choice([-0.7, 0.7])
    return np.asarray(rng.normal(0, 0.5) + slope * standardised + rng.normal(0, 0.3, len(shares)))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world to draw experiments from.

    Attributes
    ----------
    description : str
    draw_effects : callable
        From a generator and the shares of segments to their true effects.
    """

    description: str
    draw_effects: Callable[[Rng, Floats], Floats]

    def draw_experiment(self, rng: Rng, segment_count: int) -> Experiment:
        """Draw an experiment of this world."""
        shares = compute_shares(segment_count)
        true_effects = self.draw_effects(rng, shares)
        # se of a segment = se of the average / √share: the average of all has the powered error again
        raw_errors = POWERED_ERROR / np.sqrt(shares)
        return Experiment(true_effects, rng.normal(true_effects, raw_errors), raw_errors, shares)


SCENARIOS: Final = {
    "null": Scenario("nothing works", draw_null),
    "few winners": Scenario("two planned effects in one of eight segments, none elsewhere", draw_few_winners),
    "prior": Scenario("effects as the model's prior has them", draw_prior),
    "quarter": Scenario("effects four times smaller than the prior", draw_quarter),
    "size trend": Scenario("effects rise or fall with the segment's size", draw_size_trend),
}
