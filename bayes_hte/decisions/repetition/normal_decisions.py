"""Decide from posteriors of benefits that are mixtures of normals: for thousands of tests that were not made."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte.decisions.rules.evidence import (
    SHIP_CONDITION,
    STOP_CONDITION,
    decide_by_rule,
    get_size_that_matters,
    turn_to_benefit,
)
from bayes_hte.decisions.verdicts import MOSTLY_BORROWED_FACTOR
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, SEGMENT
from bayes_hte.spec.fit_tree import get_fitted_model, is_from_posterior
from bayes_hte.spec.rule import resolve_threshold

SAMPLE_TESTS = ("sample", SEGMENT, ARM)


@dataclass(frozen=True, slots=True)
class BenefitPosteriors:
    """Posteriors of effects after tests that were not made, link scale, and how they are read as benefits.

    Attributes
    ----------
    weights : ndarray
        Of the points of a mixture, (test, point, arm).
    means, sds : ndarray
        Of the normals at the points, (point, test, segment, arm) and (point, segment, arm).
    scale_factor : xarray.DataArray
        Benefit on the scale of the rule per unit of effect on the link scale; dims (segment, arm).
    pooling : ndarray
        Share of the estimate that each test borrows, (test, segment, arm).
    can_be_called : xarray.DataArray
        Where an effect is tested and its better direction known; dims (segment, arm).
    """

    weights: FloatArray
    means: FloatArray
    sds: FloatArray
    scale_factor: xr.DataArray
    pooling: FloatArray
    can_be_called: xr.DataArray

    def compute_probability_above(self, threshold: float) -> xr.DataArray:
        """Compute P(benefit > threshold) after every test; dims (sample, segment, arm)."""
        from scipy import special

        factor = self.scale_factor.values
        probability = np.zeros(self.means.shape[1:])
        for point, (means, sds) in enumerate(zip(self.means, self.sds, strict=True)):
            # Φ((b − threshold) / sd) of each normal, b = factor · mean
            z = (factor * means - threshold) / np.maximum(abs(factor) * sds, 1e-300)
            probability += self.weights[:, point, None, :] * special.ndtr(z)
        return self.label(probability)

    def compute_mean(self) -> xr.DataArray:
        """Compute the mean benefit after every test; dims (sample, segment, arm)."""
        return self.label(self.scale_factor.values * np.einsum("tka,ktsa->tsa", self.weights, self.means))

    def label(self, values: FloatArray) -> xr.DataArray:
        """Label values of (test, segment, arm)."""
        return xr.DataArray(values, dims=SAMPLE_TESTS, coords=self.scale_factor.coords)


def decide_benefits(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, benefits: BenefitPosteriors
) -> xr.DataArray:
    """Decide as `Fit.decide` does, after every test; dims (sample, segment, arm)."""
    size = get_size_that_matters(rule)
    by_ship = [benefits.compute_probability_above(resolve_threshold(each.above, size)) for each in rule.ship]
    by_stop = [1 - benefits.compute_probability_above(resolve_threshold(each.below, size)) for each in rule.stop]
    within = xr.full_like(by_ship[0], np.nan)
    if rule.equivalent is not None:
        width = resolve_threshold(rule.equivalent.within, size)
        within = benefits.compute_probability_above(-width) - benefits.compute_probability_above(width)
    evidence = xr.Dataset(
        {
            "p_ship": xr.concat(by_ship, SHIP_CONDITION),
            "p_stop": xr.concat(by_stop, STOP_CONDITION),
            "p_within": within,
        }
    )
    is_one_effect = get_fitted_model(fit_tree).pooling == "complete" and not is_from_posterior(fit_tree)
    # Nothing is called that was hardly tested; where nobody knows how much is borrowed (NaN), everything is.
    is_own = ~(benefits.label(benefits.pooling) > MOSTLY_BORROWED_FACTOR) | is_one_effect
    decisions = decide_by_rule(evidence, rule).where(benefits.can_be_called & is_own, "undecided")
    if rule.cost <= 0 and decisions.sizes[ARM] == 1:
        return decisions
    return _choose_paying_arms(decisions, estimate_gains(fit_tree, question, rule, benefits.compute_mean()), rule)


def _choose_paying_arms(decisions: xr.DataArray, gains: xr.DataArray, rule: Rule) -> xr.DataArray:
    """Ship only what pays its cost, and of several arms the one that gains most."""
    is_shipped = (decisions == "ship") & ((gains > 0) | (rule.cost <= 0))
    is_best = gains == gains.where(is_shipped).max(ARM)
    return decisions.where((decisions != "ship") | (is_shipped & is_best), "undecided")


def estimate_gains(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, benefit_means: xr.DataArray
) -> xr.DataArray:
    """Estimate gains per treated unit from mean benefits on the rule's scale, proportional as over the posterior."""
    value = 1.0 if rule.value is None else rule.value
    factor = xr.DataArray(1.0)
    if question.scale != "absolute":
        own, absolute = (
            turn_to_benefit(compute_effects(fit_tree, scale), higher_is_better=question.higher_is_better)
            for scale in (question.scale, "absolute")
        )
        # Through the origin, where both are 0: Σ absolute own / Σ own²
        factor = (absolute * own).mean(("chain", "draw")) / (own**2).mean(("chain", "draw"))
    gains: xr.DataArray = value * factor * benefit_means - rule.cost
    return gains
