"""Outcomes that are mostly 0 and else log-normal: spend, usage, days of absence.

positive[cell] ~ Binomial(n, p)        log y[unit] ~ Normal(mu, log_sd) where y > 0
mean of all units: e^eta = p e^(mu + log_sd² / 2)

An effect on the mean is made of one on the chance p and one on the amount: log p takes the part `chance_part` of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_hte.cells.build import CellCoords
from bayes_hte.cells.simulation.outcomes.law import (
    NO_COORDS,
    CountGrid,
    DrawnValues,
    FloatGrid,
    LawParameters,
    OutcomeLink,
)
from bayes_hte.cells.simulation.outcomes.unit_sums import MAX_UNITS_PER_CELL, sum_units
from bayes_hte.cells.simulation.stated.segments import StatedValues
from bayes_hte.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class TwoPartLaw:
    """Units have 0, or a log-normal amount.

    Attributes
    ----------
    outcome_column : str
    chance : array
        Chance of an outcome above 0 in the control, (segment, 1).
    log_sd : array
        SD of the logarithm of outcomes above 0, (segment, arm).
    chance_part : float
        Part of an effect on the log of the mean that acts on the chance; the rest acts on the amounts.
    """

    outcome_column: str
    chance: StatedValues
    log_sd: StatedValues
    chance_part: float
    link: OutcomeLink = "log"
    range_phrase: str = "the mean of an outcome in two parts is greater than 0"
    default_baseline: float = 1.0

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options of `from_rows`."""
        return {"outcome": self.outcome_column, "metric": "two_part"}

    def is_possible(self, mean: FloatGrid) -> NDArray[np.bool_]:
        """Tell which means are above 0."""
        return (mean > 0) & np.isfinite(mean)

    def find_link(self, mean: FloatGrid) -> FloatGrid:
        """Find the logarithm of the mean."""
        return np.log(mean)

    def find_mean(self, eta: FloatGrid) -> FloatGrid:
        """Find the mean of all units, zeros included."""
        return np.exp(eta)

    def find_parameters(self, eta: FloatGrid) -> LawParameters:
        """Find chance, mean and SD of the log amount in every cell.

        Raises
        ------
        ArgumentError
            If a chance would be 1 or more.
        """
        # log p₁ = log p₀ + part · effect;   mu = eta − log p − log_sd² / 2
        chance = self.chance * np.exp(self.chance_part * (eta - eta[..., :1]))
        if not (chance < 1).all():
            raise ArgumentError(
                f"the chance of an outcome above 0 would be {chance.max():.4g}, but a chance is below 1; state a "
                "smaller chance or effect, or a smaller chance_part"
            )
        log_sd = np.broadcast_to(self.log_sd, eta.shape)
        return {"chance": chance, "log_mean": eta - np.log(chance) - log_sd**2 / 2, "log_sd": log_sd}

    def find_unit_sd(self, parameters: LawParameters) -> FloatGrid:
        """Find the SD over all units, zeros included."""
        chance, log_sd = parameters["chance"], parameters["log_sd"]
        amount_mean = np.exp(parameters["log_mean"] + log_sd**2 / 2)
        # Var y = p E a² − (p E a)²,   E a² = (E a)² e^log_sd²
        return amount_mean * np.sqrt(chance * np.exp(log_sd**2) - chance**2)

    def draw_statistics(self, n: CountGrid, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw n, positive outcomes, and the moments of outcomes and of logarithms."""
        chance, log_mean, log_sd = (
            np.broadcast_to(parameters[name], n.shape) for name in ("chance", "log_mean", "log_sd")
        )
        positive = rng.binomial(n, chance)
        # Amounts are drawn in units of e^log_mean, so that sums of their squares stay small.
        sums = _sum_small_cells(positive.ravel(), log_sd.ravel(), rng)
        is_large = positive.ravel() > MAX_UNITS_PER_CELL
        sums[is_large] = _sum_large_cells(positive.ravel()[is_large], log_sd.ravel()[is_large], rng)
        z_sum, z_square_sum, amount_sum, square_sum = np.moveaxis(sums.reshape(*n.shape, 4), -1, 0)
        some = np.maximum(positive, 1)
        mean = amount_sum / np.maximum(n, 1)
        return {
            "n": n,
            "mean": np.where(n > 0, np.exp(log_mean) * mean, np.nan),
            "ss": np.exp(2 * log_mean) * np.maximum(square_sum - n * mean**2, 0.0),
            "positive": positive,
            "log_mean": np.where(positive > 0, log_mean + z_sum / some, np.nan),
            "log_ss": np.maximum(z_square_sum - z_sum**2 / some, 0.0) * (positive > 1),
        }

    def find_coords(self, statistics: DrawnValues) -> CellCoords:
        """Label no axis: there is none of its own."""
        return NO_COORDS

    def draw_units(self, parameters: LawParameters, rng: np.random.Generator) -> DrawnValues:
        """Draw 0 or an amount for every unit."""
        amounts = np.exp(
            parameters["log_mean"] + parameters["log_sd"] * rng.standard_normal(parameters["chance"].shape)
        )
        return {self.outcome_column: np.where(rng.random(amounts.shape) < parameters["chance"], amounts, 0.0)}


def _sum_small_cells(
    positive: NDArray[np.int64], log_sd: StatedValues, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Sum z, z², e^z and e^2z over the units of cells that are not large, z ~ Normal(0, log_sd); (cell, sum)."""

    def draw_powers(cell_of_unit: NDArray[np.intp]) -> NDArray[np.float64]:
        z = log_sd[cell_of_unit] * rng.standard_normal(len(cell_of_unit))
        amount = np.exp(z)
        return np.stack([z, z**2, amount, amount**2], axis=-1)

    return sum_units(np.where(positive > MAX_UNITS_PER_CELL, 0, positive), draw_powers)


def _sum_large_cells(count: NDArray[np.int64], log_sd: StatedValues, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the same sums of many units from their joint normal limit, by its regression on mean and variance of z.

    Mean and variance of z are efficient: what they leave of Σ e^z is not correlated with them. So

        mean e^z ≈ e^(z̄ + s² / 2 + r)        mean e^2z ≈ e^(2 z̄ + 2 s² + q)

    where r and q are normal, with the variance of the sums less what z̄ and s² explain of it.
    """
    variance = log_sd**2
    z_mean = log_sd * rng.standard_normal(count.shape) / np.sqrt(count)
    z_variance = variance * rng.chisquare(count - 1) / (count - 1)
    # Var e^z / E² = e^v − 1, of which z̄ explains v and s² / 2 explains v² / 2; of e^2z: e^4v − 1, 4 v and 8 v²
    first = np.expm1(variance) - variance - variance**2 / 2
    second = np.expm1(4 * variance) - 4 * variance - 8 * variance**2
    shared = np.expm1(2 * variance) - 2 * variance - 2 * variance**2
    first_noise = np.sqrt(first / count) * rng.standard_normal(count.shape)
    left_variance = np.maximum(second - shared**2 / np.maximum(first, 1e-300), 0.0)
    second_noise = shared / np.maximum(first, 1e-300) * first_noise
    second_noise = second_noise + np.sqrt(left_variance / count) * rng.standard_normal(count.shape)
    # E e^(z̄ + s²/2 + r) = e^(v/2) (1 + (Var e^z / E²) / 2n): less that, the mean is exact to the order of 1 / n
    amount_mean = np.exp(z_mean + z_variance / 2 + first_noise - np.expm1(variance) / (2 * count))
    square_mean = np.exp(2 * z_mean + 2 * z_variance + second_noise - np.expm1(4 * variance) / (2 * count))
    square_mean = np.maximum(square_mean, amount_mean**2)
    z_squares = (count - 1) * z_variance + count * z_mean**2
    return np.stack([count * z_mean, z_squares, count * amount_mean, count * square_mean], axis=-1)
