"""Average P(effect > 0) over weighted points: by counting draws, less the noise that the Gaussian explains.

    counted   Σ w_i 1(draw_i > 0)
    control   h_i = w_i / R_i (Φ(m_i / s_i) − 1(plain draw_i > 0)),   of mean 0: the plain draw is one of the Gaussian

Where sites fit, the plain draw is the draw, R is nearly the same everywhere, and Σ (counted + h) is the average of Φ:
without any noise of counting. Where they do not, the best multiple β of h is near 0, and draws are counted.
"""

import numpy as np
from scipy import special

from bayes_hte.inference.exact.latent.sampling import WeightedPoints
from bayes_hte.model.normal_scores import Array


def compute_positive_probability(sample: WeightedPoints, effects: Array, *, is_gaussian: bool) -> tuple[Array, Array]:
    """Compute P(effect > 0) and its Monte-Carlo standard error.

    Parameters
    ----------
    sample : WeightedPoints
    effects : ndarray
        Draws of effects, (arm, segment, point).
    is_gaussian : bool
        Whether the sites are exact, so that nothing needs to be counted.

    Returns
    -------
    probability, standard_error : ndarray
        (segment, arm).
    """
    draws, weights = sample.draws, sample.weights
    with np.errstate(divide="ignore", invalid="ignore"):
        analytic = special.ndtr(draws.effect_means / draws.effect_sds)
    # Without any spread the effect is its mean.
    analytic = np.where(draws.effect_sds > 0, analytic, draws.effect_means > 0)
    unseen = 0.0
    if is_gaussian:
        values = analytic
        probability = values @ weights
        residual = values - probability[:, :, np.newaxis]
    else:
        counted = (effects > 0).astype(float)
        with np.errstate(over="ignore"):
            plain_weights = np.exp(np.clip(_find_weighted_median(draws.log_ratio, weights) - draws.log_ratio, -50, 50))
        control = plain_weights * (analytic - draws.plain_signs)
        share = counted @ weights
        residual = counted - share[:, :, np.newaxis]
        # β = −Cov(counted, control) / Var(control), one for all effects: of those far from 0 draws tell nothing.
        squares = weights**2
        variance = float((control**2 @ squares).sum())
        multiple = 1.0
        if variance > 0:
            multiple = float(np.clip(-((residual * control) @ squares).sum() / variance, 0.0, 1.0))
        probability = share + multiple * (control @ weights)
        residual = residual + multiple * control
        # No draw on one side of 0 in n effective ones is no certainty: as much as one in n may lie there.
        unseen = (1 - multiple) * (weights**2).sum()
    error = np.sqrt(residual**2 @ weights**2 + unseen**2)
    # The correction may leave [0, 1] by its noise.
    return np.clip(probability, 0.0, 1.0).T, error.T


def _find_weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5)])
