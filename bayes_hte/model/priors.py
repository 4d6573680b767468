"""Uses of one definition of a prior: a PyMC variable, a NumPy density, draws, quantiles, and its text."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.spec import distributions as d
from bayes_hte.spec.distributions import Distribution, rescale_distribution
from bayes_hte.spec.model import Model, Nuisance

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_LOG_2 = math.log(2.0)
_PRIORS_WITH_ZERO = (d.HalfNormal, d.HalfStudentT, d.HalfCauchy, d.Exponential)
"""Positive priors whose support includes 0."""


type ValueHolder = Callable[[str, Any], Any]
"""Holder of numbers in a PyMC model: (name, value) -> the value, or a variable that holds it."""


def hold_as_constant(name: str, value: Any) -> Any:
    """Return the number itself, for a model to be read, and used once."""
    return value


def hold_as_data(name: str, value: Any) -> Any:
    """Hold the number in a `pm.Data`, so that a compiled model can take other numbers."""
    import pymc as pm

    return pm.Data(f"{name}__data", value)


def add_prior_variable(
    name: str,
    prior: Distribution,
    *,
    dims: str | tuple[str, ...] | None = None,
    hold_value: ValueHolder = hold_as_constant,
) -> "TensorVariable":
    """Add the prior as a PyMC random variable: names and parameters are PyMC's own.

    A correlation is written as twice a Beta variable less one, which is LKJ for two quantities.
    """
    import pymc as pm

    if isinstance(prior, d.LKJ):
        eta = hold_value(f"{name}_eta", prior.eta)
        half_beta = pm.Beta(f"{name}_half", alpha=eta, beta=eta, dims=dims)
        return pm.Deterministic(name, 2 * half_beta - 1, dims=dims)
    # Our Exponential is stated by its rate or its mean; PyMC's scale is the mean.
    if isinstance(prior, d.Exponential):
        return pm.Exponential(name, scale=hold_value(f"{name}_scale", prior.mean), dims=dims)
    parameter_values = prior.model_dump(exclude={"dist"}, exclude_none=True)
    return getattr(pm, prior.dist)(
        name, **{key: hold_value(f"{name}_{key}", value) for key, value in parameter_values.items()}, dims=dims
    )


def add_ordered_variable(
    name: str, prior: Distribution, *, dims: tuple[str, ...], hold_value: ValueHolder = hold_as_constant
) -> "TensorVariable":
    """Add ascending numbers, each with the same prior apart from their order."""
    import pymc as pm
    from pymc.distributions.transforms import ordered

    value_count = pm.modelcontext(None).dim_lengths[dims[0]].eval()
    parameter_values = prior.model_dump(exclude={"dist"}, exclude_none=True)
    # Equal starting values would lie on the border of the ordered transform.
    return getattr(pm, prior.dist)(
        name,
        **{key: hold_value(f"{name}_{key}", value) for key, value in parameter_values.items()},
        dims=dims,
        transform=ordered,
        initval=np.linspace(-1.0, 1.0, int(value_count)),
    )


def freeze_distribution(prior: Distribution) -> Any:  # noqa: PLR0911 (a table of cases)
    """Make a frozen scipy distribution of the prior, for quantiles."""
    from scipy import stats  # half a second

    match prior:
        case d.Normal(mu=mu, sigma=sigma):
            return stats.norm(mu, sigma)
        case d.StudentT(nu=nu, mu=mu, sigma=sigma):
            return stats.t(nu, mu, sigma)
        case d.Cauchy(alpha=alpha, beta=beta):
            return stats.cauchy(alpha, beta)
        case d.HalfNormal(sigma=sigma):
            return stats.halfnorm(scale=sigma)
        case d.HalfStudentT(nu=nu, sigma=sigma):
            # The folded t is the square root of a scaled F: |t| with nu degrees of freedom.
            return _FoldedStudentT(nu, sigma)
        case d.HalfCauchy(beta=beta):
            return stats.halfcauchy(scale=beta)
        case d.Exponential():
            return stats.expon(scale=prior.mean)
        case d.Gamma():
            alpha, beta = prior.shape_rate
            return stats.gamma(alpha, scale=1 / beta)
        case d.InverseGamma(alpha=alpha, beta=beta):
            return stats.invgamma(alpha, scale=beta)
        case d.LogNormal(mu=mu, sigma=sigma):
            return stats.lognorm(sigma, scale=np.exp(mu))
        case d.Uniform(lower=lower, upper=upper):
            return stats.uniform(lower, upper - lower)
        case d.LKJ(eta=eta):
            return stats.beta(eta, eta, loc=-1.0, scale=2.0)


def draw_prior(  # noqa: PLR0911 (a table of cases)
    prior: Distribution, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw from the prior without SciPy's distributions, which take half a second to import."""
    match prior:
        case d.Normal(mu=mu, sigma=sigma):
            return rng.normal(mu, sigma, shape)
        case d.StudentT(nu=nu, mu=mu, sigma=sigma):
            return mu + sigma * rng.standard_t(nu, shape)
        case d.Cauchy(alpha=alpha, beta=beta):
            return alpha + beta * rng.standard_cauchy(shape)
        case d.HalfNormal(sigma=sigma):
            return np.abs(rng.normal(0.0, sigma, shape))
        case d.HalfStudentT(nu=nu, sigma=sigma):
            return sigma * np.abs(rng.standard_t(nu, shape))
        case d.HalfCauchy(beta=beta):
            return beta * np.abs(rng.standard_cauchy(shape))
        case d.Exponential():
            return rng.exponential(prior.mean, shape)
        case d.Gamma():
            alpha, beta = prior.shape_rate
            return rng.gamma(alpha, 1 / beta, shape)
        case d.InverseGamma(alpha=alpha, beta=beta):
            return beta / rng.gamma(alpha, 1.0, shape)
        case d.LogNormal(mu=mu, sigma=sigma):
            return rng.lognormal(mu, sigma, shape)
        case d.Uniform(lower=lower, upper=upper):
            return rng.uniform(lower, upper, shape)
        case d.LKJ(eta=eta):
            return 2 * rng.beta(eta, eta, shape) - 1


def compute_log_prior(prior: Distribution, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the log density at `x`; −inf outside the support.

    A test compares it with `freeze_distribution`: building and calling a frozen scipy distribution takes longer than
    the fast engine takes for a whole set of segments.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        in_support = np.ones(np.shape(x), dtype=bool) if not d.is_positive(prior) else np.asarray(x) > 0
        if isinstance(prior, _PRIORS_WITH_ZERO):
            in_support = np.asarray(x) >= 0
        support_bounds = d.find_support_bounds(prior)
        if support_bounds is not None:
            in_support = (x >= support_bounds[0]) & (x <= support_bounds[1])
        return np.where(in_support, _evaluate_log_density(prior, x), -np.inf)


def _evaluate_log_density(prior: Distribution, x: NDArray[np.float64]) -> NDArray[np.float64] | float:  # noqa: PLR0911 (a table of cases)
    # On the support only; a distribution folded at 0 has twice the density (log 2 more).
    match prior:
        case d.Normal(mu=mu, sigma=sigma):
            return -0.5 * ((x - mu) / sigma) ** 2 - math.log(sigma) - _HALF_LOG_2PI
        case d.StudentT(nu=nu, mu=mu, sigma=sigma):
            return _evaluate_log_t(nu, (x - mu) / sigma) - math.log(sigma)
        case d.Cauchy(alpha=alpha, beta=beta):  # Student's t with one degree of freedom
            return _evaluate_log_t(1.0, (x - alpha) / beta) - math.log(beta)
        case d.HalfNormal(sigma=sigma):
            return -0.5 * (x / sigma) ** 2 - math.log(sigma) - _HALF_LOG_2PI + _LOG_2
        case d.HalfStudentT(nu=nu, sigma=sigma):
            return _evaluate_log_t(nu, x / sigma) - math.log(sigma) + _LOG_2
        case d.HalfCauchy(beta=beta):
            return _evaluate_log_t(1.0, x / beta) - math.log(beta) + _LOG_2
        case d.Exponential():
            return -x / prior.mean - math.log(prior.mean)
        case d.Gamma():
            alpha, beta = prior.shape_rate
            return alpha * math.log(beta) - special.gammaln(alpha) + (alpha - 1) * np.log(x) - beta * x
        case d.InverseGamma(alpha=alpha, beta=beta):
            return alpha * math.log(beta) - special.gammaln(alpha) - (alpha + 1) * np.log(x) - beta / x
        case d.LogNormal(mu=mu, sigma=sigma):
            return -0.5 * ((np.log(x) - mu) / sigma) ** 2 - math.log(sigma) - _HALF_LOG_2PI - np.log(x)
        case d.Uniform(lower=lower, upper=upper):
            return -math.log(upper - lower)
        case d.LKJ(eta=eta):
            # p(x) ∝ (1 − x²)^(eta − 1) on (−1, 1),   ∫ = B(eta, eta) 2^(2 eta − 1)
            log_norm = special.betaln(eta, eta) + (2 * eta - 1) * _LOG_2
            return (eta - 1) * np.log1p(-np.minimum(x**2, 1.0)) - float(log_norm)


def _evaluate_log_t(nu: float, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the log density of the standard t, such that z² may overflow."""
    # log Γ((ν + 1) / 2) − log Γ(ν / 2) − ½ log νπ − ½ (ν + 1) log(1 + z² / ν)
    log_constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * math.log(nu * math.pi)
    log_density: NDArray[np.float64] = log_constant - 0.5 * (nu + 1) * np.log1p(z**2 / nu)
    return log_density


class _FoldedStudentT:
    """Distribution of |t| for Student's t with location 0, with the methods of scipy's, which has none."""

    def __init__(self, nu: float, sigma: float) -> None:
        from scipy import stats

        self._t = stats.t(nu, scale=sigma)

    # P(|t| > x) = 2 P(t > x): survival and its inverse keep their digits in the tail.
    def logpdf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        log_density: NDArray[np.float64] = np.where(np.asarray(x) >= 0, np.log(2.0) + self._t.logpdf(x), -np.inf)
        return log_density

    def cdf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(1 - 2 * np.asarray(self._t.sf(x)), 0.0)

    def sf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.minimum(2 * np.asarray(self._t.sf(x)), 1.0)

    def ppf(self, q: NDArray[np.float64] | float) -> NDArray[np.float64]:
        # Some versions of SciPy put the median of t a rounding error below 0.
        return np.maximum(np.asarray(self._t.isf((1 - np.asarray(q)) / 2)), 0.0)

    def isf(self, q: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.maximum(np.asarray(self._t.isf(np.asarray(q) / 2)), 0.0)


def resolve_units(model: Model, *, control_mean: float, control_sd: float) -> Model:
    """Convert priors to the outcome's own units, whatever units the model file uses.

    Under ``units = "control_sd"`` every prior is multiplied by the control's unit-level SD, and
    the baseline's mean is measured from the control's overall mean. Neither looks at an effect.
    """
    if model.units == "link":
        return model
    scaled_sections = {"effect": _rescale_pool(model.effect, control_sd), "units": "link"}
    if model.baseline is not None:
        scaled_sections["baseline"] = _rescale_pool(model.baseline, control_sd, shift=control_mean)
    if model.nuisance is not None and model.nuisance.sigma is not None:
        scaled_sections["nuisance"] = Nuisance(sigma=rescale_distribution(model.nuisance.sigma, control_sd))
    return model.model_copy(update=scaled_sections)


def _rescale_pool(pool_priors: Any, unit_factor: float, shift: float = 0.0) -> Any:
    scaled_priors: dict[str, Any] = {"mean": rescale_distribution(pool_priors.mean, unit_factor, shift)}
    for prior_name in ("between", "by_between", "slope"):
        prior = getattr(pool_priors, prior_name, None)
        if prior is not None:
            scaled_priors[prior_name] = rescale_distribution(prior, unit_factor)
    if getattr(pool_priors, "level_between", None):
        scaled_priors["level_between"] = {
            term: rescale_distribution(prior, unit_factor) for term, prior in pool_priors.level_between.items()
        }
    if getattr(pool_priors, "slab", None) is not None:
        scaled_priors["slab"] = unit_factor * pool_priors.slab
    return pool_priors.model_copy(update=scaled_priors)


def format_prior(prior: Distribution) -> str:
    """Format the prior as it is written in mathematics: ``Normal(mu=0, sigma=1)``."""
    parameter_values = prior.model_dump(exclude={"dist"}, exclude_none=True)
    return f"{prior.dist}({', '.join(f'{key}={value:.4g}' for key, value in parameter_values.items())})"


def compute_central_interval(prior: Distribution, probability: float = 0.9) -> tuple[float, float]:
    """Compute the interval that holds the stated probability, with equal tails."""
    distribution = freeze_distribution(prior)
    tail_probability = (1 - probability) / 2
    return float(distribution.ppf(tail_probability)), float(distribution.ppf(1 - tail_probability))


def compute_upper_bound(prior: Distribution, probability: float = 0.9) -> float:
    """Compute the value that is not exceeded with the stated probability."""
    return float(freeze_distribution(prior).ppf(probability))
