"""The distributions a prior may have, with parameters named and checked as in PyMC.

Each is a frozen value that can be put into other units: every family here is closed under
multiplication by a positive number, and the location families under a shift as well.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bayes_hte.errors import ModelError

Positive = Annotated[FiniteFloat, Field(gt=0)]


class _Base(BaseModel):
    """Frozen and closed: an unknown parameter is an error, and so is text or a boolean for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Normal(_Base):
    """Normal with mean `mu` and standard deviation `sigma`."""

    dist: Literal["Normal"] = "Normal"
    mu: FiniteFloat = 0.0
    sigma: Positive = 1.0


class StudentT(_Base):
    """Student's t with `nu` degrees of freedom, location `mu`, scale `sigma`."""

    dist: Literal["StudentT"] = "StudentT"
    nu: Positive
    mu: FiniteFloat = 0.0
    sigma: Positive = 1.0


class HalfNormal(_Base):
    """Normal(0, sigma) folded at zero."""

    dist: Literal["HalfNormal"] = "HalfNormal"
    sigma: Positive = 1.0


class HalfStudentT(_Base):
    """Student's t with location 0 folded at zero."""

    dist: Literal["HalfStudentT"] = "HalfStudentT"
    nu: Positive = 1.0
    sigma: Positive = 1.0


class HalfCauchy(_Base):
    """Cauchy with scale `beta` folded at zero: very heavy tail."""

    dist: Literal["HalfCauchy"] = "HalfCauchy"
    beta: Positive


class Exponential(_Base):
    """Exponential with rate `lam`, or with mean `scale`: give one."""

    dist: Literal["Exponential"] = "Exponential"
    lam: Positive | None = None
    scale: Positive | None = None

    @model_validator(mode="after")
    def _one_parameter(self) -> Self:
        if (self.lam is None) == (self.scale is None):
            raise ValueError("give exactly one of lam (rate) and scale (mean)")
        return self

    @property
    def mean(self) -> float:
        """The mean, whichever parameter was given."""
        return self.scale if self.scale is not None else 1.0 / float(self.lam or math.nan)


class Gamma(_Base):
    """Gamma with shape `alpha` and rate `beta`, or with mean `mu` and standard deviation `sigma`."""

    dist: Literal["Gamma"] = "Gamma"
    alpha: Positive | None = None
    beta: Positive | None = None
    mu: Positive | None = None
    sigma: Positive | None = None

    @model_validator(mode="after")
    def _one_pair(self) -> Self:
        given = {name for name in ("alpha", "beta", "mu", "sigma") if getattr(self, name) is not None}
        if given not in ({"alpha", "beta"}, {"mu", "sigma"}):
            raise ValueError("give alpha and beta (shape and rate), or mu and sigma (mean and SD)")
        return self

    @property
    def shape_rate(self) -> tuple[float, float]:
        """Shape and rate, whichever pair was given."""
        if self.alpha is not None and self.beta is not None:
            return self.alpha, self.beta
        mu, sigma = float(self.mu or math.nan), float(self.sigma or math.nan)
        return mu**2 / sigma**2, mu / sigma**2


class InverseGamma(_Base):
    """Inverse gamma with shape `alpha` and scale `beta`."""

    dist: Literal["InverseGamma"] = "InverseGamma"
    alpha: Positive
    beta: Positive = 1.0


class LogNormal(_Base):
    """The logarithm is Normal(mu, sigma)."""

    dist: Literal["LogNormal"] = "LogNormal"
    mu: FiniteFloat = 0.0
    sigma: Positive = 1.0


class Uniform(_Base):
    """Uniform between `lower` and `upper`."""

    dist: Literal["Uniform"] = "Uniform"
    lower: FiniteFloat = 0.0
    upper: FiniteFloat = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"lower ({self.lower}) must be less than upper ({self.upper})")
        return self


class LKJ(_Base):
    """Correlation of two quantities: (1 + correlation) / 2 is Beta(eta, eta); 1 is uniform, more favours 0."""

    dist: Literal["LKJ"] = "LKJ"
    eta: Positive = 2.0


Distribution = Annotated[
    Normal
    | StudentT
    | HalfNormal
    | HalfStudentT
    | HalfCauchy
    | Exponential
    | Gamma
    | InverseGamma
    | LogNormal
    | Uniform
    | LKJ,
    Field(discriminator="dist"),
]

_SCALE_LIKE = (HalfNormal, HalfStudentT, HalfCauchy, Exponential, Gamma, InverseGamma, LogNormal)


def is_positive(dist: Distribution) -> bool:
    """Whether the distribution puts no mass below zero, as a standard deviation needs."""
    return isinstance(dist, _SCALE_LIKE) or (isinstance(dist, Uniform) and dist.lower >= 0)


def bounds(dist: Distribution) -> tuple[float, float] | None:
    """The ends of a bounded support; None where the support has no end, or only one at 0."""
    match dist:
        case Uniform(lower=lower, upper=upper):
            return lower, upper
        case LKJ():
            return -1.0, 1.0
    return None


def rescaled(dist: Distribution, factor: float, shift: float = 0.0) -> Distribution:  # noqa: PLR0911 (a table of cases)
    """The distribution of ``shift + factor * x``.

    Raises
    ------
    ModelError
        If a shift is asked of a distribution that has no location.
    """
    match dist:
        case LKJ():
            return dist
        case Normal(mu=mu, sigma=sigma):
            return Normal(mu=shift + factor * mu, sigma=factor * sigma)
        case StudentT(nu=nu, mu=mu, sigma=sigma):
            return StudentT(nu=nu, mu=shift + factor * mu, sigma=factor * sigma)
        case Uniform(lower=lower, upper=upper):
            return Uniform(lower=shift + factor * lower, upper=shift + factor * upper)
    if shift:
        raise ModelError(f"{dist.dist} cannot be centred on the data; use Normal, StudentT or Uniform")
    match dist:
        case HalfNormal(sigma=sigma):
            return HalfNormal(sigma=factor * sigma)
        case HalfStudentT(nu=nu, sigma=sigma):
            return HalfStudentT(nu=nu, sigma=factor * sigma)
        case HalfCauchy(beta=beta):
            return HalfCauchy(beta=factor * beta)
        case Exponential():
            return Exponential(scale=factor * dist.mean)
        case Gamma():
            alpha, beta = dist.shape_rate
            return Gamma(alpha=alpha, beta=beta / factor)
        case InverseGamma(alpha=alpha, beta=beta):
            return InverseGamma(alpha=alpha, beta=factor * beta)
        case LogNormal(mu=mu, sigma=sigma):
            return LogNormal(mu=mu + math.log(factor), sigma=sigma)
