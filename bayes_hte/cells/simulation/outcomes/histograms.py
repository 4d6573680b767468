"""Outcomes of which a cell keeps how many units have each value: counts with extra variation, and ordered answers.

negative binomial    y ~ Poisson(g),   g ~ Gamma with mean m = e^eta and variance m² / alpha
ordinal              P(y ≤ level k) = logistic(cutpoints[k] − eta)

n units fall on the values by a multinomial distribution, so a cell's histogram is drawn without any unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.cells.build import CellCoords
from bayes_hte.cells.simulation.outcomes.law import CountGrid, DrawnValues, FloatGrid, LawParameters, OutcomeLink
from bayes_hte.cells.simulation.stated.segments import StatedValues
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import VALUE

MAX_VALUES = 1000
"""Values of a histogram; `from_rows` takes no more either."""
TAIL_PROBABILITY = 1e-12
"""Chance of a count beyond the last value that a histogram holds: it is counted there."""
BISECTION_STEPS = 80
"""Each halves the error, from 100 log-odds to less than rounding."""


@dataclass(frozen=True, slots=True)
class NegativeBinomialLaw:
    """Units have counts with the mean m and the variance m + m² / alpha.

    Attributes
    ----------
    outcome_column : str
    alpha : array
        (segment, arm).
    """

    outcome_column: str
    alpha: StatedValues
    link: OutcomeLink = "log"
    range_phrase: str = "the mean of a count is greater than 0"
    default_baseline: float = 1.0

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options of `from_rows`."""
        return {"outcome": self.outcome_column, "metric": "histogram"}

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means a count can have."""
        return (mean > 0) & np.isfinite(mean)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Find the logarithm of the mean."""
        return np.log(mean)

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Find the mean count."""
        return np.exp(eta)

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find mean and alpha of every cell."""
        return {"mean": np.exp(eta), "alpha": np.broadcast_to(self.alpha, eta.shape)}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Find √(m + m² / alpha)."""
        return np.sqrt(parameters["mean"] + parameters["mean"] ** 2 / parameters["alpha"])

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw n, and the multinomial number of units with each count."""
        probabilities = compute_count_probabilities(parameters["mean"], parameters["alpha"])
        histogram = rng.multinomial(n, np.broadcast_to(probabilities, (*n.shape, probabilities.shape[-1])))
        # Counts that no unit has, beyond the largest that there is, would only make the table wide.
        is_seen = histogram.any(axis=tuple(range(n.ndim)))
        value_count = max(int(np.flatnonzero(is_seen).max(initial=0)) + 1, 2)
        return {"n": n, "histogram": histogram[..., :value_count]}

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label the axis of the counts."""
        return {VALUE: (VALUE, np.arange(statistics["histogram"].shape[-1], dtype=np.float64))}

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the count of every unit."""
        # A Poisson count whose rate is gamma distributed with the mean m and the shape alpha.
        mean, alpha = parameters["mean"], parameters["alpha"]
        return {self.outcome_column: rng.poisson(rng.gamma(alpha, mean / alpha))}


def compute_count_probabilities(mean: FloatGrid, alpha: FloatGrid) -> FloatGrid:
    """Compute the probability of every count, (…, count), up to one beyond which next to nothing lies."""
    largest_mean, spread = float(mean.max()), float((mean / alpha).max())
    # The tail falls by the factor m / (m + alpha) per count, or faster than e^-1 per √m where alpha is large.
    reach = largest_mean + 30 + 30 * np.sqrt(largest_mean) + 30 * spread
    counts = np.arange(min(int(reach), MAX_VALUES * 10), dtype=np.float64)
    chance = (mean / (mean + alpha))[..., None]
    # P(k) = Γ(k + alpha) / (Γ(alpha) k!) · (alpha / (m + alpha))^alpha · (m / (m + alpha))^k
    log_probability = (
        special.gammaln(counts + alpha[..., None]) - special.gammaln(alpha[..., None]) - special.gammaln(counts + 1)
    )
    probability = np.exp(log_probability + alpha[..., None] * np.log1p(-chance) + counts * np.log(chance))
    tail = 1 - np.cumsum(probability, axis=-1).reshape(-1, len(counts)).min(axis=0)
    value_count = int(np.argmax(tail < TAIL_PROBABILITY)) + 1 if (tail < TAIL_PROBABILITY).any() else len(counts)
    if value_count > MAX_VALUES:
        raise ArgumentError(
            f"counts with a mean of {largest_mean:.4g} would have more than {MAX_VALUES:,} values; simulate them with "
            'family="mean", or lower the baseline'
        )
    probability = probability[..., : max(value_count, 2)]
    return probability / probability.sum(axis=-1, keepdims=True)


@dataclass(frozen=True, slots=True)
class OrdinalLaw:
    """Units answer with a level from 1 up; the mean is that of the levels' numbers.

    Attributes
    ----------
    outcome_column : str
    cutpoints : array
        Log-odds of an answer up to each level but the last, of the control in an average segment, (level − 1,).
    """

    outcome_column: str
    cutpoints: StatedValues
    link: OutcomeLink = "logit"

    @property
    def range_phrase(self) -> str:
        """Say what a mean answer can be."""
        return f"a mean answer lies between 1 and {len(self.cutpoints) + 1}"

    @property
    def default_baseline(self) -> float:
        """Mean answer of the probabilities that were stated."""
        return float(self.find_mean(np.zeros(1))[0])

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options of `from_rows`."""
        return {"outcome": self.outcome_column, "metric": "histogram"}

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means lie within the levels."""
        return (mean > 1) & (mean < len(self.cutpoints) + 1)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Find the shift of the log-odds that gives a mean answer, by bisection: the mean rises with it."""
        lower, upper = np.full(mean.shape, -100.0), np.full(mean.shape, 100.0)
        for _ in range(BISECTION_STEPS):
            middle = (lower + upper) / 2
            is_low = self.find_mean(middle) < mean
            lower, upper = np.where(is_low, middle, lower), np.where(is_low, upper, middle)
        return np.asarray((lower + upper) / 2)

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Find the mean answer."""
        # E y = 1 + Σ_k P(y > k)
        return np.asarray(1 + special.expit(eta[..., None] - self.cutpoints).sum(axis=-1))

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find the probability of every level in every cell."""
        above = special.expit(eta[..., None] - self.cutpoints)
        ends = np.ones((*eta.shape, 1))
        # P(y = k) = P(y > k − 1) − P(y > k)
        return {"probabilities": np.concatenate([ends, above], -1) - np.concatenate([above, 0 * ends], -1)}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Find the SD of the levels' numbers."""
        # Var y = E y² − (E y)²
        levels = np.arange(1, len(self.cutpoints) + 2)
        mean, square_mean = ((parameters["probabilities"] * levels**power).sum(axis=-1) for power in (1, 2))
        return np.asarray(np.sqrt(square_mean - mean**2))

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw n, and the multinomial number of units at each level."""
        probabilities = parameters["probabilities"]
        return {
            "n": n,
            "histogram": rng.multinomial(n, np.broadcast_to(probabilities, (*n.shape, probabilities.shape[-1]))),
        }

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label the axis of the levels."""
        return {VALUE: (VALUE, np.arange(1, len(self.cutpoints) + 2, dtype=np.float64))}

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw the answer of every unit."""
        # The level is 1 and one more for every cumulative probability below the uniform number.
        cumulative = np.cumsum(parameters["probabilities"], axis=-1)[..., :-1]
        return {self.outcome_column: 1 + (rng.random((len(cumulative), 1)) > cumulative).sum(axis=-1)}
