"""The certificate of draws that were computed, not sampled by chains: its numbers, their limits, and sentences.

Chains are judged by R-hat and effective draws, which independent draws pass whatever they are worth. An engine that
weights points and integrates by quadrature measures instead

    Pareto k           tail of the importance weights w;  k ≤ 0.7 for means of w to settle (Vehtari et al. 2024)
    effective points   (Σ w)² / Σ w²
    quadrature error   by how much a finer rule changes the log density of hyperparameters, as an SD
    unexplored mass    share of the posterior that a scan of the hyperparameters sees where no point lies
    unmoved share      share of points at which a segment's first proposal was never left

The first three judge what was seen; only a scan tells of a peak that no point lies near, and only counting tells that
some points' proposals were all wrong.
"""

import math
from dataclasses import MISSING, dataclass, fields
from typing import Final

import xarray as xr

from bayes_hte.spec.fit_tree import is_from_posterior

MIN_ESS: Final = 400.0
"""Effective draws, bulk and tail: 100 for each of four chains, as Vehtari et al. (2021) advise."""
MAX_PARETO_K: Final = 0.7
"""Beyond it an importance-weighted mean needs too many points to settle (Vehtari et al. 2024)."""
MAX_QUADRATURE_ERROR: Final = 0.05
"""Of the log density of hyperparameters, as an SD: no posterior mean is off by more than 0.05 of its own SD."""
MAX_UNEXPLORED_MASS: Final = 0.01
"""Share of the posterior: no probability is off by more than it. A scan is rough, but sees a peak that was missed."""

MAX_UNMOVED_SHARE: Final = 0.05
"""Of a segment's points: no probability of a segment is off by more than it. Sound proposals leave .03 at most."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an engine without chains measured of its own draws; variables of the group sample_stats, all scalars.

    Attributes
    ----------
    pareto_k : float
        Tail of the importance weights; −∞ where there were none.
    effective_points : float
        Weighted points of the hyperparameters that the draws are worth.
    quadrature_error : float
        Of the log density of hyperparameters, as an SD.
    unexplored_mass : float
        Share of the posterior seen by a scan where no point lies; 0 in files of before there was a scan.
    unmoved_share : float
        Largest share of a segment's points whose first proposal was never left; 0 in files of before it was counted.
    """

    pareto_k: float
    effective_points: float
    quadrature_error: float
    unexplored_mass: float = 0.0
    unmoved_share: float = 0.0

    @classmethod
    def from_sample_stats(cls, sample_stats: xr.Dataset) -> "Certificate | None":
        """Read the certificate of an engine's statistics; None where they hold none, as those of chains."""
        found = {field.name: float(sample_stats[field.name]) for field in fields(cls) if field.name in sample_stats}
        is_complete = all(field.name in found for field in fields(cls) if field.default is MISSING)
        return cls(**found) if is_complete else None

    @property
    def relative_variance(self) -> float:
        """Variance that weighted points add to a mean, as a share of the posterior's own: 1 / points."""
        # Without importance weights the hyperparameters are integrated: then only the draws are random.
        return 1 / self.effective_points if math.isfinite(self.pareto_k) else 0.0

    def list_warnings(self) -> tuple[str, ...]:
        """List the sentences why the engine cannot vouch for its draws; empty if it can."""
        warnings = []
        # "not ≤" rather than ">": a NaN fails too.
        if not self.pareto_k <= MAX_PARETO_K:
            warnings.append(
                f"The importance weights have too long a tail: Pareto k is {self.pareto_k:.2f}, at most "
                f"{MAX_PARETO_K} is allowed."
            )
        if not self.effective_points >= MIN_ESS:
            warnings.append(f"Only {self.effective_points:.0f} points are effective, {MIN_ESS:.0f} are needed.")
        if not self.quadrature_error <= MAX_QUADRATURE_ERROR:
            warnings.append(
                f"A finer quadrature rule changes the log density by {self.quadrature_error:.2g}, at most "
                f"{MAX_QUADRATURE_ERROR} is allowed."
            )
        if not self.unexplored_mass <= MAX_UNEXPLORED_MASS:
            warnings.append(
                f"A scan of the between-segment SDs finds {self.unexplored_mass:.0%} of the posterior where the "
                f"sampler did not look, at most {MAX_UNEXPLORED_MASS:.0%} is allowed."
            )
        if not self.unmoved_share <= MAX_UNMOVED_SHARE:
            warnings.append(
                f"Draws of a segment were stuck at their first proposal in {self.unmoved_share:.0%} of the points, at "
                f"most {MAX_UNMOVED_SHARE:.0%} is allowed."
            )
        return tuple(warnings)

    def describe(self) -> str:
        """Write the numbers as a phrase; what was not done, weighting or quadrature, has none."""
        # A negative k is a bounded tail, no better for a reader than 0.
        weight_phrase = "quadrature only" if self.pareto_k == -math.inf else f"Pareto k {max(self.pareto_k, 0.0):.2f}"
        error_phrase = f", quadrature error {self.quadrature_error:.1g}" if self.quadrature_error > 0 else ""
        return f"{weight_phrase}, {self.effective_points:,.0f} effective points{error_phrase}"


def read_certificate(fit_tree: xr.DataTree) -> Certificate | None:
    """Read the certificate of a fit's draws; None for chains, and for draws of a model of the caller's own.

    Statistics of a foreign sampler may have the same names: they vouch for nothing here.
    """
    if is_from_posterior(fit_tree):
        return None
    return Certificate.from_sample_stats(fit_tree["sample_stats"].to_dataset())
