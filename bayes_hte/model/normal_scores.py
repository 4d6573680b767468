"""Compute quantiles of priors at normal scores: what stands for a hyperparameter is u, and its prior is N(0, 1).

    value = F⁻¹(Φ(u))      F: distribution function of the prior

As τ goes to 0 the likelihood becomes flat in u while the prior is normal: no exponential tail, no funnel. Every
quantile is taken from the nearer tail, so that data far outside of a prior find their place. The exact engine computes
with arrays, NUTS with variables of a graph, which has formulas for some priors only; a test holds the two together.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec import distributions as d
from bayes_hte.spec.distributions import Distribution

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

Array = NDArray[np.float64]
MAX_SCORE = 37.0
"""Φ(−37) is 1e-300: beyond it a double cannot tell tails apart."""
_LOG_2 = math.log(2.0)
_PRIORS_WITH_SCORES = (d.HalfNormal, d.HalfCauchy, d.Exponential, d.LogNormal)
"""Positive priors whose quantiles have a formula."""


def compute_value_of_score(prior: Distribution, score: Array) -> Array:  # noqa: PLR0911 (a table of cases)
    """Compute F⁻¹(Φ(u)) of a prior.

    Parameters
    ----------
    prior : Distribution
    score : ndarray
        Normal scores u, any shape; beyond ±37 they are taken as ±37.

    Examples
    --------
    >>> compute_value_of_score(d.HalfNormal(sigma=2.0), np.array([0.0])).round(4)
    array([1.349])
    """
    u = np.clip(score, -MAX_SCORE, MAX_SCORE)
    match prior:
        case d.Normal(mu=mu, sigma=sigma):
            return mu + sigma * u
        case d.LogNormal(mu=mu, sigma=sigma):
            return np.exp(mu + sigma * u)
        case d.HalfNormal(sigma=sigma):
            # P(|z| > x) = 2 Φ(−x) = Φ(−u)
            return np.asarray(-sigma * special.ndtri_exp(special.log_ndtr(-u) - _LOG_2))
        case d.HalfStudentT(nu=nu, sigma=sigma):
            return sigma * _invert_folded_t(nu, u)
        case d.HalfCauchy(beta=beta):
            return beta * _invert_folded_t(1.0, u)
        case d.StudentT(nu=nu, mu=mu, sigma=sigma):
            return mu + sigma * _invert_t(nu, u)
        case d.Cauchy(alpha=alpha, beta=beta):
            return alpha + beta * _invert_t(1.0, u)
        case d.Exponential():
            # P(x > value) = e^(−value / mean) = Φ(−u)
            return np.asarray(-prior.mean * special.log_ndtr(-u))
        case d.Gamma():
            alpha, rate = prior.shape_rate
            return _invert_gamma(alpha, u) / rate
        case d.InverseGamma(alpha=alpha, beta=beta):
            return np.asarray(beta / np.maximum(_invert_gamma(alpha, -u), 1e-300))
        case d.Uniform(lower=lower, upper=upper):
            return np.asarray(np.where(u < 0, lower + (upper - lower) * special.ndtr(u),
                                       upper - (upper - lower) * special.ndtr(-u)))  # fmt: skip
        case d.LKJ(eta=eta):
            # (1 + ρ) / 2 ~ Beta(eta, eta), symmetric around ½
            return np.asarray(np.sign(u) * (1 - 2 * special.betaincinv(eta, eta, special.ndtr(-np.abs(u)))))


def _invert_t(nu: float, u: Array) -> Array:
    """Compute the quantile of Student's t at Φ(u)."""
    tail_quantile = special.ndtr(-np.abs(u))
    magnitude = 1 / np.tan(np.pi * tail_quantile) if nu == 1.0 else -special.stdtrit(nu, tail_quantile)
    # Some versions of SciPy put the median a rounding error below 0.
    return np.asarray(np.sign(u) * np.maximum(magnitude, 0.0))


def _invert_folded_t(nu: float, u: Array) -> Array:
    """Compute the quantile of |t| at Φ(u)."""
    # P(|t| > x) = 2 P(t < −x) = Φ(−u)
    half_tail = 0.5 * special.ndtr(-u)
    magnitude = 1 / np.tan(np.pi * half_tail) if nu == 1.0 else -special.stdtrit(nu, half_tail)
    return np.asarray(np.maximum(magnitude, 0.0))


def _invert_gamma(alpha: float, u: Array) -> Array:
    """Compute the quantile of Gamma(alpha, 1) at Φ(u)."""
    lower, upper = special.gammaincinv(alpha, special.ndtr(u)), special.gammainccinv(alpha, special.ndtr(-u))
    return np.asarray(np.where(u < 0, lower, upper))


def find_score_of_value(prior: Distribution, value: float) -> float:
    """Find the score of a value by bisection; the nearest end of ±37 where it is beyond.

    Examples
    --------
    >>> round(find_score_of_value(d.HalfNormal(sigma=2.0), 1.349), 3)
    0.0
    """
    lower, upper = -MAX_SCORE, MAX_SCORE
    # 60 halvings of 74 leave 6e-17.
    for _ in range(60):
        middle = 0.5 * (lower + upper)
        if float(compute_value_of_score(prior, np.array(middle))) < value:
            lower = middle
        else:
            upper = middle
    return 0.5 * (lower + upper)


def has_score_formula(prior: Distribution) -> bool:
    """Tell whether the quantiles of a positive prior have a formula, so that its normal score can be sampled."""
    return isinstance(prior, _PRIORS_WITH_SCORES)


def compute_from_scores(priors: "list[Distribution]", scores: "TensorVariable", hold_value: ValueHolder) -> Any:
    """Compute values from their normal scores, x = F⁻¹(Φ(score)): score ~ Normal(0, 1) gives x its prior.

    Near x = 0, where data may not tell one small SD from another, scores have the light tail of a normal, and log x
    that of an exponential.

    Parameters
    ----------
    priors : list of Distribution
        Of each value; `has_score_formula`.
    scores : variable
        (value,)
    hold_value : callable
    """
    import pytensor.tensor as pt

    value_parts, position_parts = [], []
    for prior_class in dict.fromkeys(map(type, priors)):
        positions = [position for position, prior in enumerate(priors) if isinstance(prior, prior_class)]
        parameters = np.array([_list_score_parameters(priors[position]) for position in positions])
        held_parameters = hold_value(f"between_{prior_class.__name__}", parameters)
        own_scores = scores if len(positions) == len(priors) else scores[positions]
        value_parts.append(_invert_scores(prior_class, held_parameters.T, own_scores))
        position_parts += positions
    return value_parts[0] if len(value_parts) == 1 else pt.concatenate(value_parts)[np.argsort(position_parts)]


def _list_score_parameters(prior: Distribution) -> tuple[float, ...]:
    if isinstance(prior, d.Exponential):
        return (prior.mean,)
    return tuple(prior.model_dump(exclude={"dist"}).values())


def _invert_scores(prior_class: type, parameters: Any, scores: "TensorVariable") -> "TensorVariable":
    """Compute F⁻¹(Φ(score)) of one distribution; parameters are (parameter, value)."""
    import pytensor.tensor as pt

    # P(x > value) = Φ(−score): the upper tail keeps its digits where x is large.
    upper_tail = 0.5 * pt.erfc(scores / math.sqrt(2))
    if prior_class is d.HalfNormal:
        return parameters[0] * math.sqrt(2) * pt.erfcinv(upper_tail)
    if prior_class is d.HalfCauchy:
        return parameters[0] / pt.tan(0.5 * math.pi * upper_tail)
    if prior_class is d.Exponential:
        return -parameters[0] * pt.log(upper_tail)
    return pt.exp(parameters[0] + parameters[1] * scores)  # LogNormal
