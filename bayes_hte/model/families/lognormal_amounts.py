"""Ask whether the mean of positive outcomes is known under a log-normal law, and whether the data follow one.

y = exp(mu_c + sigma z) for the k_c positive outcomes of cell c, sigma common to an arm; mean exp(mu_c + sigma² / 2)

A mean exists where the posterior of sigma falls faster than exp(−sigma² / 2). The likelihood falls as sigma^−ν only,
ν = Σ_c (k_c − 1): whatever the number of units, the prior of sigma must do it. A prior with an end does.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_hte.model.families.cell_likelihood import FloatArray

FREEDOM_PER_VARIANCE = 8.0
"""ν needed per unit of sigma². sigma^−ν exp(−ν s² / (2 sigma²) + sigma²), what a variance of the mean is made of, has
a peak near s only if ν > 8 s²; below it large values that nobody saw decide. A mean alone would need half as much."""
MIN_FREEDOM = 8.0
"""An SD of the logarithm below 1 is not believed from fewer than eight outcomes."""
MATERIAL_RATIO = 1.1
"""A mean that is off by less than a tenth is no reason to refuse a model."""
SIMULATION_COUNT = 1999
"""What is observed lies below or above all that is simulated with probability 2 / 2000 = .001 under the model."""
MAX_SIMULATED_OUTCOMES = 2000
"""More outcomes are judged as if there were so many: the test is then weaker than it could be, never too strict."""


@dataclass(frozen=True, slots=True)
class PositiveOutcomes:
    """Positive outcomes of one arm, the cells that have any; dims (cell,).

    Attributes
    ----------
    counts, log_means, totals, squares : ndarray
        Number of positive outcomes, mean of their logarithm, their sum, and the sum of their squares.
    log_squares : float
        Squared deviations of the logarithms from the means of their cells, over all cells.
    """

    counts: FloatArray
    log_means: FloatArray
    totals: FloatArray
    squares: FloatArray
    log_squares: float

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the SD of the logarithm: the outcomes beyond the first of each cell."""
        # ν = Σ_c (k_c − 1)
        return float((self.counts - 1).sum())

    @property
    def log_sd(self) -> float:
        """SD of the logarithm within cells; 0 where it is not known."""
        return math.sqrt(self.log_squares / self.freedom) if self.freedom > 0 else 0.0

    @property
    def needed_freedom(self) -> int:
        """Smallest ν with which the mean is known well enough to be reported."""
        return math.ceil(max(MIN_FREEDOM, FREEDOM_PER_VARIANCE * self.log_sd**2))


def is_shape_wrong(outcomes: PositiveOutcomes) -> bool:
    """Tell whether the sum of the outcomes, or that of their squares given it, contradicts a log-normal law.

    Means and squares of the logarithms are sufficient: given them, what is left of the outcomes has a distribution
    without unknown parameters. It is simulated, so that under a log-normal law with one SD per arm each of the two
    speaks with probability .001 whatever the number of outcomes and their skewness; less often for more than 2,000.
    The sum sees a tail that is lighter or heavier, its relation to the squares a few prices in place of a tail.
    """
    # The scale drops out of the comparison; without it exp could overflow.
    log_unit = float(outcomes.log_means.max())
    log_scales = outcomes.log_means - log_unit
    kept_share = min(1.0, MAX_SIMULATED_OUTCOMES / outcomes.counts.sum())
    kept_counts = np.ceil(outcomes.counts * kept_share).astype(int)
    log_sums = _simulate_log_sums(kept_counts, log_scales, outcomes.log_sd)
    observed_sums = []
    for power, sums in ((1, outcomes.totals), (2, outcomes.squares)):
        weights = np.exp(power * log_scales)
        represented_share = (kept_counts @ weights) / (outcomes.counts @ weights)
        observed_sums.append(math.log(float((sums * np.exp(-power * log_unit)).sum() * represented_share)))
    log_totals, log_squares = np.column_stack([log_sums, observed_sums])
    # Totals less what their squares predict: the last one is the observed one, exchangeable with the others.
    predictors = np.column_stack([np.ones_like(log_squares), log_squares])
    residuals = np.abs(log_totals - predictors @ np.linalg.lstsq(predictors, log_totals, rcond=None)[0])
    is_total_extreme = not log_totals[:-1].min() <= log_totals[-1] <= log_totals[:-1].max()
    return bool(is_total_extreme or residuals[-1] >= np.sort(residuals[:-1])[-2])


def _simulate_log_sums(counts: NDArray[np.int_], log_scales: FloatArray, log_sd: float) -> FloatArray:
    """Simulate log sums of log-normal outcomes, and of their squares, given moments of the logarithms: (2, run)."""
    rng = np.random.default_rng(1)
    cell_starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    freedom, log_sums = float((counts - 1).sum()), []
    # In blocks, so that a large arm does not take a gigabyte.
    for block_size in np.diff(np.linspace(0, SIMULATION_COUNT, 9).astype(int)):
        noise = rng.standard_normal((block_size, int(counts.sum())))
        # r = z − mean of its cell, scaled so that Σ r² / ν = sigma²
        noise -= np.repeat(np.add.reduceat(noise, cell_starts, axis=1) / counts, counts, axis=1)
        noise *= log_sd * np.sqrt(freedom / np.einsum("ij,ij->i", noise, noise))[:, None]
        outcomes = np.exp(noise + np.repeat(log_scales, counts))
        log_sums.append(np.log([outcomes.sum(1), np.einsum("ij,ij->i", outcomes, outcomes)]))
    return np.concatenate(log_sums, axis=1)
