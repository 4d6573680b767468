"""One definition of a prior, three uses: a PyMC variable, a NumPy density and draws, a sentence."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayes_hte.spec import distributions as d
from bayes_hte.spec.distributions import Distribution, rescaled
from bayes_hte.spec.model import Model, Nuisance

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_LOG_2 = math.log(2.0)
_FROM_ZERO = (d.HalfNormal, d.HalfStudentT, d.HalfCauchy, d.Exponential)
"""Positive priors whose support includes 0."""


type Given = Callable[[str, Any], Any]
"""What puts numbers into a PyMC model: (name, value) -> the value, or a variable that holds it."""


def constant(name: str, value: Any) -> Any:
    """The number itself: a model to be read, and used once."""
    return value


def exchangeable(name: str, value: Any) -> Any:
    """A `pm.Data`, so that a compiled model can take other numbers."""
    import pymc as pm

    return pm.Data(f"{name}__data", value)


def variable(
    name: str, prior: Distribution, *, dims: str | tuple[str, ...] | None = None, given: Given = constant
) -> "TensorVariable":
    """The prior as a PyMC random variable: names and parameters are PyMC's own.

    A correlation is written as twice a Beta variable less one, which is LKJ for two quantities.
    """
    import pymc as pm

    if isinstance(prior, d.LKJ):
        eta = given(f"{name}_eta", prior.eta)
        half = pm.Beta(f"{name}_half", alpha=eta, beta=eta, dims=dims)
        return pm.Deterministic(name, 2 * half - 1, dims=dims)
    if isinstance(prior, d.Exponential):
        return pm.Exponential(name, scale=given(f"{name}_scale", prior.mean), dims=dims)
    parameters = prior.model_dump(exclude={"dist"}, exclude_none=True)
    return getattr(pm, prior.dist)(
        name, **{key: given(f"{name}_{key}", value) for key, value in parameters.items()}, dims=dims
    )


def ordered_variable(
    name: str, prior: Distribution, *, dims: tuple[str, ...], given: Given = constant
) -> "TensorVariable":
    """Ascending numbers, each with the same prior apart from their order."""
    import pymc as pm
    from pymc.distributions.transforms import ordered

    size = pm.modelcontext(None).dim_lengths[dims[0]].eval()
    parameters = prior.model_dump(exclude={"dist"}, exclude_none=True)
    return getattr(pm, prior.dist)(
        name,
        **{key: given(f"{name}_{key}", value) for key, value in parameters.items()},
        dims=dims,
        transform=ordered,
        initval=np.linspace(-1.0, 1.0, int(size)),
    )


def frozen(prior: Distribution) -> Any:  # noqa: PLR0911 (a table of cases)
    """The prior as a frozen scipy distribution, for quantiles."""
    from scipy import stats  # half a second

    match prior:
        case d.Normal(mu=mu, sigma=sigma):
            return stats.norm(mu, sigma)
        case d.StudentT(nu=nu, mu=mu, sigma=sigma):
            return stats.t(nu, mu, sigma)
        case d.HalfNormal(sigma=sigma):
            return stats.halfnorm(scale=sigma)
        case d.HalfStudentT(nu=nu, sigma=sigma):
            # The folded t is the square root of a scaled F: |t| with nu degrees of freedom.
            return _FoldedT(nu, sigma)
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


def random(  # noqa: PLR0911 (a table of cases)
    prior: Distribution, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draws, without SciPy's distributions, which take half a second to import."""
    match prior:
        case d.Normal(mu=mu, sigma=sigma):
            return rng.normal(mu, sigma, shape)
        case d.StudentT(nu=nu, mu=mu, sigma=sigma):
            return mu + sigma * rng.standard_t(nu, shape)
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


def log_density(prior: Distribution, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log density at `x`; −inf outside the support.

    `frozen` says the same and is what this is tested against; building and calling a frozen scipy
    distribution takes longer than the fast engine takes for a whole set of segments.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inside = np.ones(np.shape(x), dtype=bool) if not d.is_positive(prior) else np.asarray(x) > 0
        if isinstance(prior, _FROM_ZERO):
            inside = np.asarray(x) >= 0
        ends = d.bounds(prior)
        if ends is not None:
            inside = (x >= ends[0]) & (x <= ends[1])
        return np.where(inside, _log_formula(prior, x), -np.inf)


def _log_formula(prior: Distribution, x: NDArray[np.float64]) -> NDArray[np.float64] | float:  # noqa: PLR0911 (a table of cases)
    match prior:
        case d.Normal(mu=mu, sigma=sigma):
            return -0.5 * ((x - mu) / sigma) ** 2 - math.log(sigma) - _HALF_LOG_2PI
        case d.StudentT(nu=nu, mu=mu, sigma=sigma):
            return _t_formula(nu, (x - mu) / sigma) - math.log(sigma)
        case d.HalfNormal(sigma=sigma):
            return -0.5 * (x / sigma) ** 2 - math.log(sigma) - _HALF_LOG_2PI + _LOG_2
        case d.HalfStudentT(nu=nu, sigma=sigma):
            return _t_formula(nu, x / sigma) - math.log(sigma) + _LOG_2
        case d.HalfCauchy(beta=beta):
            return _t_formula(1.0, x / beta) - math.log(beta) + _LOG_2
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
            norm = special.betaln(eta, eta) + (2 * eta - 1) * _LOG_2
            return (eta - 1) * np.log1p(-np.minimum(x**2, 1.0)) - float(norm)


def _t_formula(nu: float, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log density of the standard t; written so that z² may overflow."""
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * math.log(nu * math.pi)
    density: NDArray[np.float64] = constant - 0.5 * (nu + 1) * np.log1p(z**2 / nu)
    return density


class _FoldedT:
    """|t| for Student's t with location 0: scipy has no such distribution."""

    def __init__(self, nu: float, sigma: float) -> None:
        from scipy import stats

        self._t = stats.t(nu, scale=sigma)

    def logpdf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        density: NDArray[np.float64] = np.where(np.asarray(x) >= 0, np.log(2.0) + self._t.logpdf(x), -np.inf)
        return density

    def cdf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(1 - 2 * np.asarray(self._t.sf(x)), 0.0)

    def sf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.minimum(2 * np.asarray(self._t.sf(x)), 1.0)

    def ppf(self, q: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(self._t.isf((1 - np.asarray(q)) / 2))

    def isf(self, q: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(self._t.isf(np.asarray(q) / 2))


def resolve(model: Model, *, control_mean: float, control_sd: float) -> Model:
    """Priors in the outcome's own units, whatever units the model file uses.

    Under ``units = "control_sd"`` every prior is multiplied by the control's unit-level SD, and
    the baseline's mean is measured from the control's overall mean. Neither looks at an effect.
    """
    if model.units == "link":
        return model
    scaled = {"effect": _rescaled_pool(model.effect, control_sd), "units": "link"}
    if model.baseline is not None:
        scaled["baseline"] = _rescaled_pool(model.baseline, control_sd, shift=control_mean)
    if model.nuisance is not None and model.nuisance.sigma is not None:
        scaled["nuisance"] = Nuisance(sigma=rescaled(model.nuisance.sigma, control_sd))
    return model.model_copy(update=scaled)


def _rescaled_pool(pool: Any, factor: float, shift: float = 0.0) -> Any:
    update = {"mean": rescaled(pool.mean, factor, shift)}
    for name in ("between", "by_between", "slope"):
        prior = getattr(pool, name, None)
        if prior is not None:
            update[name] = rescaled(prior, factor)
    if getattr(pool, "slab", None) is not None:
        update["slab"] = factor * pool.slab
    return pool.model_copy(update=update)


def as_text(prior: Distribution) -> str:
    """The prior as it is written in mathematics: ``Normal(mu=0, sigma=1)``."""
    parameters = prior.model_dump(exclude={"dist"}, exclude_none=True)
    return f"{prior.dist}({', '.join(f'{key}={value:.4g}' for key, value in parameters.items())})"


def central_interval(prior: Distribution, prob: float = 0.9) -> tuple[float, float]:
    """The interval that holds the stated probability, with equal tails."""
    law = frozen(prior)
    tail = (1 - prob) / 2
    return float(law.ppf(tail)), float(law.ppf(1 - tail))


def upper_bound(prior: Distribution, prob: float = 0.9) -> float:
    """The value that is not exceeded with the stated probability."""
    return float(frozen(prior).ppf(prob))
