"""Compute the density of a segment's effect before the data, from the distributions of the model and not from draws."""

from collections.abc import Callable
from typing import Final

import numpy as np

from bayes_hte.model.families import FAMILIES
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.model.priors import compute_log_prior, freeze_distribution
from bayes_hte.model.problem import Problem
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.distributions import Distribution

Density = Callable[[FloatArray], FloatArray]
NODES_PER_PARAMETER: Final = 64
"""Quantiles that stand for a distribution: what is averaged over them is smooth, so that few are enough."""
BASELINE_NODES: Final = 256
TABULATED_POINTS: Final = 4001
"""Of the density on the link scale, between which it is linear."""


def build_prior_density(problem: Problem, scale: EffectScale) -> Density | None:
    """Build the prior density of one segment's effect on a scale; None where it has no such form.

    Parameters
    ----------
    problem : Problem
    scale : str

    Returns
    -------
    callable or None
        From effects to their density. None for models whose segments differ a priori (levels, covariates, strata),
        horseshoes, effects that are correlated with the baseline, outcomes in two parts, and scales that need
        parameters besides effect and baseline.

    Notes
    -----
    effect = mean + τ z, so that p(effect) = E[p_mean(effect − τ z)] over τ and z. On another scale x that depends on
    the baseline b, p(x) = E[p(effect(x, b)) |∂effect / ∂x|] over b.
    """
    model, family = problem.model, FAMILIES[problem.model.family]
    effect = model.effect
    is_plain = not (effect.by or effect.covariates or effect.strata or effect.correlation is not None or model.amount)
    if not is_plain or effect.shape == "horseshoe":
        return None
    between = effect.between if model.pooling == "partial" else None
    link_density = _build_link_density(effect.mean, between, effect.tail_nu if effect.shape == "student_t" else None)
    if scale == "link" or (scale == "absolute" and family.link == "identity"):
        return link_density
    if scale == "relative" and family.link == "log":
        # x = exp(effect) − 1,  ∂effect / ∂x = 1 / (1 + x)
        return lambda x: np.where(
            x > -1, link_density(np.log1p(np.maximum(x, -1 + 1e-12))) / np.maximum(1 + x, 1e-12), 0
        )
    # The mean of other families depends on more than baseline and effect.
    is_risk = family.link == "logit" and family.mean_is_probability and family.nuisance is None
    if not is_risk or model.baseline is None or model.baseline.mean is None:
        return None
    return _build_risk_density(problem, scale, link_density)


def _build_link_density(mean_prior: Distribution, between_prior: Distribution | None, tail_nu: float | None) -> Density:
    """Build the density of mean + τ z: the prior of the mean, averaged over shifts by τ z."""
    if between_prior is None:
        return lambda x: np.exp(compute_log_prior(mean_prior, x))
    from scipy import special

    probabilities = (np.arange(NODES_PER_PARAMETER) + 0.5) / NODES_PER_PARAMETER
    standard_offsets = special.ndtri(probabilities) if tail_nu is None else special.stdtrit(tail_nu, probabilities)
    between_values = np.asarray(freeze_distribution(between_prior).ppf(probabilities))
    shifts = np.outer(between_values, standard_offsets).ravel()

    def compute_density(x: FloatArray) -> FloatArray:
        flat_density = [np.exp(compute_log_prior(mean_prior, value - shifts)).mean() for value in np.ravel(x)]
        return np.reshape(flat_density, np.shape(x))

    return compute_density


def _build_risk_density(problem: Problem, scale: EffectScale, link_density: Density) -> Density:
    """Build the density of a difference, or ratio less one, of probabilities under a logit link."""
    from scipy import special

    baseline_values = _list_baselines(problem)
    control_risks = special.expit(baseline_values)
    # 30 on the logit scale is a probability of 1 − 1e-13: beyond it nothing differs.
    link_grid = np.linspace(-30.0, 30.0, TABULATED_POINTS)
    tabulated_density = link_density(link_grid)

    def compute_density(x: FloatArray) -> FloatArray:
        differences = np.multiply.outer(
            np.asarray(x), control_risks if scale == "relative" else np.ones_like(control_risks)
        )
        risks = control_risks + differences
        is_possible = (risks > 0) & (risks < 1)
        inner_risks = np.where(is_possible, risks, 0.5)
        # effect = logit p₁ − b,  ∂effect / ∂p₁ = 1 / (p₁ (1 − p₁));  p₁ = p₀ + x, or p₀ (1 + x)
        slopes = (control_risks if scale == "relative" else 1.0) / (inner_risks * (1 - inner_risks))
        link_effects = special.logit(inner_risks) - baseline_values
        densities = np.interp(link_effects, link_grid, tabulated_density, left=0.0, right=0.0) * slopes
        return np.asarray(np.where(is_possible, densities, 0.0).mean(axis=-1))

    return compute_density


def _list_baselines(problem: Problem) -> FloatArray:
    """List baselines that stand for their prior distribution, spread evenly over it."""
    from scipy import special

    baseline = problem.model.baseline
    if baseline is None or baseline.mean is None:
        raise AssertionError("a baseline was required by the caller")
    # An additive recurrence (Roberts 2018): points of three dims without clusters, whatever their number.
    steps = np.array([0.8191725134, 0.6710436067, 0.5497004779])
    uniforms = (0.5 + np.outer(np.arange(1, BASELINE_NODES + 1), steps)) % 1.0
    mean_values = np.asarray(freeze_distribution(baseline.mean).ppf(uniforms[:, 0]))
    if problem.model.pooling != "partial" or baseline.between is None:
        return mean_values
    between_values = np.asarray(freeze_distribution(baseline.between).ppf(uniforms[:, 1]))
    return mean_values + between_values * special.ndtri(uniforms[:, 2])
