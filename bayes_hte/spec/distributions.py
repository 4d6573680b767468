"""The distributions a prior may have, with parameters named and checked as in PyMC.

Each is a frozen value that can be put into other units: every family here is closed under
multiplication by a positive number, and the location families under a shift as well.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bayes_hte.errors import ModelError

# Finite as well: TOML has inf, with which no density can be computed.
PositiveNumber = Annotated[FiniteFloat, Field(gt=0)]


class _DistributionBase(BaseModel):
    """Base of all distributions: an unknown parameter is an error, and so is text or a boolean for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Normal(_DistributionBase):
    """Normal with mean `mu` and standard deviation `sigma`."""

    dist: Literal["Normal"] = Field(default="Normal", description="Name of the distribution.")
    mu: FiniteFloat = Field(default=0.0, description="Mean.")
    sigma: PositiveNumber = Field(default=1.0, description="Standard deviation.")


class StudentT(_DistributionBase):
    """Student's t with `nu` degrees of freedom, location `mu`, scale `sigma`."""

    dist: Literal["StudentT"] = Field(default="StudentT", description="Name of the distribution.")
    nu: PositiveNumber = Field(description="Degrees of freedom: the fewer, the heavier the tails.")
    mu: FiniteFloat = Field(default=0.0, description="Location.")
    sigma: PositiveNumber = Field(default=1.0, description="Scale.")


class Cauchy(_DistributionBase):
    """Cauchy with location `alpha` and scale `beta`: Student's t with one degree of freedom, tails without a mean."""

    dist: Literal["Cauchy"] = Field(default="Cauchy", description="Name of the distribution.")
    alpha: FiniteFloat = Field(default=0.0, description="Location: the median.")
    beta: PositiveNumber = Field(description="Scale: half of the prior lies within this of `alpha`.")

    # Student's t by its own names: what holds of its tails holds of these.
    @property
    def nu(self) -> float:
        """Degrees of freedom as Student's t."""
        return 1.0

    @property
    def mu(self) -> float:
        """Location as Student's t."""
        return self.alpha

    @property
    def sigma(self) -> float:
        """Scale as Student's t."""
        return self.beta


class HalfNormal(_DistributionBase):
    """Normal(0, sigma) folded at zero."""

    dist: Literal["HalfNormal"] = Field(default="HalfNormal", description="Name of the distribution.")
    sigma: PositiveNumber = Field(default=1.0, description="Scale: 95 % of the prior lies below 1.96 times this.")


class HalfStudentT(_DistributionBase):
    """Student's t with location 0 folded at zero."""

    dist: Literal["HalfStudentT"] = Field(default="HalfStudentT", description="Name of the distribution.")
    nu: PositiveNumber = Field(default=1.0, description="Degrees of freedom: the fewer, the heavier the tail.")
    sigma: PositiveNumber = Field(default=1.0, description="Scale.")


class HalfCauchy(_DistributionBase):
    """Cauchy with scale `beta` folded at zero: very heavy tail."""

    dist: Literal["HalfCauchy"] = Field(default="HalfCauchy", description="Name of the distribution.")
    beta: PositiveNumber = Field(description="Scale: the prior median.")


class Exponential(_DistributionBase):
    """Exponential with rate `lam`, or with mean `scale`: give one."""

    dist: Literal["Exponential"] = Field(default="Exponential", description="Name of the distribution.")
    lam: PositiveNumber | None = Field(default=None, description="Rate: one over the mean.")
    scale: PositiveNumber | None = Field(default=None, description="Mean.")

    @model_validator(mode="after")
    def _check_one_parameter(self) -> Self:
        if (self.lam is None) == (self.scale is None):
            raise ValueError("give exactly one of lam (rate) and scale (mean)")
        return self

    @property
    def mean(self) -> float:
        """Mean of the distribution, from either parameter."""
        # E(x) = 1 / λ
        return self.scale if self.scale is not None else 1.0 / float(self.lam or math.nan)


class Gamma(_DistributionBase):
    """Gamma with shape `alpha` and rate `beta`, or with mean `mu` and standard deviation `sigma`."""

    dist: Literal["Gamma"] = Field(default="Gamma", description="Name of the distribution.")
    alpha: PositiveNumber | None = Field(default=None, description="Shape.")
    beta: PositiveNumber | None = Field(default=None, description="Rate.")
    mu: PositiveNumber | None = Field(default=None, description="Mean.")
    sigma: PositiveNumber | None = Field(default=None, description="Standard deviation.")

    @model_validator(mode="after")
    def _check_one_pair(self) -> Self:
        stated_parameters = {
            parameter for parameter in ("alpha", "beta", "mu", "sigma") if getattr(self, parameter) is not None
        }
        if stated_parameters not in ({"alpha", "beta"}, {"mu", "sigma"}):
            raise ValueError("give alpha and beta (shape and rate), or mu and sigma (mean and SD)")
        return self

    @property
    def shape_rate(self) -> tuple[float, float]:
        """Shape and rate of the distribution, from either pair of parameters."""
        if self.alpha is not None and self.beta is not None:
            return self.alpha, self.beta
        # α = μ² / σ², β = μ / σ²
        mu, sigma = float(self.mu or math.nan), float(self.sigma or math.nan)
        return mu**2 / sigma**2, mu / sigma**2


class InverseGamma(_DistributionBase):
    """Inverse gamma with shape `alpha` and scale `beta`."""

    dist: Literal["InverseGamma"] = Field(default="InverseGamma", description="Name of the distribution.")
    alpha: PositiveNumber = Field(description="Shape.")
    beta: PositiveNumber = Field(default=1.0, description="Scale.")


class LogNormal(_DistributionBase):
    """The logarithm is Normal(mu, sigma)."""

    dist: Literal["LogNormal"] = Field(default="LogNormal", description="Name of the distribution.")
    mu: FiniteFloat = Field(default=0.0, description="Mean of the logarithm.")
    sigma: PositiveNumber = Field(default=1.0, description="Standard deviation of the logarithm.")


class Uniform(_DistributionBase):
    """Uniform between `lower` and `upper`."""

    dist: Literal["Uniform"] = Field(default="Uniform", description="Name of the distribution.")
    lower: FiniteFloat = Field(default=0.0, description="Lower end.")
    upper: FiniteFloat = Field(default=1.0, description="Upper end.")

    @model_validator(mode="after")
    def _check_bounds_ascending(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"lower ({self.lower}) must be less than upper ({self.upper})")
        return self


class LKJ(_DistributionBase):
    """Correlation of two quantities: (1 + correlation) / 2 is Beta(eta, eta); 1 is uniform, more favours 0."""

    dist: Literal["LKJ"] = Field(default="LKJ", description="Name of the distribution.")
    eta: PositiveNumber = Field(default=2.0, description="1 makes all correlations equally probable, more favours 0.")


Distribution = Annotated[
    Normal
    | StudentT
    | Cauchy
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

# Their support is (0, ∞) whatever the parameters are; that of a Uniform depends on them.
_POSITIVE_DISTRIBUTIONS = (HalfNormal, HalfStudentT, HalfCauchy, Exponential, Gamma, InverseGamma, LogNormal)


def is_positive(prior: Distribution) -> bool:
    """Tell whether a prior puts no mass below zero, as one of a standard deviation must."""
    return isinstance(prior, _POSITIVE_DISTRIBUTIONS) or (isinstance(prior, Uniform) and prior.lower >= 0)


def find_support_bounds(prior: Distribution) -> tuple[float, float] | None:
    """Find the ends of a bounded support; give None where the support has no end, or only one at 0."""
    match prior:
        case Uniform(lower=lower, upper=upper):
            return lower, upper
        case LKJ():
            return -1.0, 1.0
    return None


def rescale_distribution(prior: Distribution, scale_factor: float, shift_by: float = 0.0) -> Distribution:  # noqa: PLR0911, PLR0912 (a table of cases)
    """Put a prior of x into other units: give the distribution of ``shift_by + scale_factor * x``.

    Raises
    ------
    ModelError
        If a distribution without a location is to be shifted.
    """
    match prior:
        case LKJ():  # a correlation has no units
            return prior
        case Normal(mu=mu, sigma=sigma):
            return Normal(mu=shift_by + scale_factor * mu, sigma=scale_factor * sigma)
        case StudentT(nu=nu, mu=mu, sigma=sigma):
            return StudentT(nu=nu, mu=shift_by + scale_factor * mu, sigma=scale_factor * sigma)
        case Cauchy(alpha=alpha, beta=beta):
            return Cauchy(alpha=shift_by + scale_factor * alpha, beta=scale_factor * beta)
        case Uniform(lower=lower, upper=upper):
            return Uniform(lower=shift_by + scale_factor * lower, upper=shift_by + scale_factor * upper)
    # The distributions below begin at 0 and would not do so after a shift.
    if shift_by:
        raise ModelError(f"{prior.dist} cannot be centred on the data; use Normal, StudentT, Cauchy or Uniform")
    match prior:
        case HalfNormal(sigma=sigma):
            return HalfNormal(sigma=scale_factor * sigma)
        case HalfStudentT(nu=nu, sigma=sigma):
            return HalfStudentT(nu=nu, sigma=scale_factor * sigma)
        case HalfCauchy(beta=beta):
            return HalfCauchy(beta=scale_factor * beta)
        case Exponential():
            return Exponential(scale=scale_factor * prior.mean)
        case Gamma():
            # x ~ Gamma(α, β) ⇒ c x ~ Gamma(α, β / c), as β is a rate
            alpha, beta = prior.shape_rate
            return Gamma(alpha=alpha, beta=beta / scale_factor)
        case InverseGamma(alpha=alpha, beta=beta):
            return InverseGamma(alpha=alpha, beta=scale_factor * beta)
        case LogNormal(mu=mu, sigma=sigma):
            # ln(c x) = ln c + ln x
            return LogNormal(mu=mu + math.log(scale_factor), sigma=sigma)
