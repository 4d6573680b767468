"""One definition of a prior, three uses: a PyMC variable, a NumPy density and draws, a sentence."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bayes_hte.spec import distributions as d
from bayes_hte.spec.distributions import Distribution, rescaled
from bayes_hte.spec.model import Model, Nuisance

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def variable(name: str, prior: Distribution, *, dims: str | tuple[str, ...] | None = None) -> "TensorVariable":
    """The prior as a PyMC random variable: names and parameters are PyMC's own."""
    import pymc as pm

    parameters = prior.model_dump(exclude={"dist"}, exclude_none=True)
    return getattr(pm, prior.dist)(name, **parameters, dims=dims)


def frozen(prior: Distribution) -> Any:  # noqa: PLR0911 (a table of cases)
    """The prior as a frozen scipy distribution, for densities, draws and quantiles."""
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


class _FoldedT:
    """|t| for Student's t with location 0: scipy has no such distribution."""

    def __init__(self, nu: float, sigma: float) -> None:
        self._t = stats.t(nu, scale=sigma)

    def logpdf(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        density: NDArray[np.float64] = np.where(np.asarray(x) >= 0, np.log(2.0) + self._t.logpdf(x), -np.inf)
        return density

    def rvs(self, size: Any = None, random_state: Any = None) -> NDArray[np.float64]:
        return np.abs(np.asarray(self._t.rvs(size=size, random_state=random_state), dtype=np.float64))

    def ppf(self, q: float) -> float:
        return float(self._t.ppf((1 + q) / 2))


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
    if model.nuisance is not None:
        scaled["nuisance"] = Nuisance(sigma=rescaled(model.nuisance.sigma, control_sd))
    return model.model_copy(update=scaled)


def _rescaled_pool(pool: Any, factor: float, shift: float = 0.0) -> Any:
    between = None if pool.between is None else rescaled(pool.between, factor)
    return pool.model_copy(update={"mean": rescaled(pool.mean, factor, shift), "between": between})


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
