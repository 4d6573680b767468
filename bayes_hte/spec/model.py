"""`Model`: what is believed about any experiment of one kind, before its data are seen."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bayes_hte.spec.distributions import Distribution, Normal, StudentT, Uniform, is_positive

FamilyName = Literal["binomial", "normal", "mean", "estimate"]
Pooling = Literal["partial", "none", "complete"]
Units = Literal["link", "control_sd"]
IDENTITY_FAMILIES = ("normal", "mean", "estimate")


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pool(_Closed):
    """Priors for the two numbers that pool one coefficient over segments.

    Attributes
    ----------
    mean : Distribution
        Prior of the common value; under no pooling, the prior of every segment's own value.
    between : Distribution or None
        Prior of the between-segment SD; only under partial pooling.
    """

    mean: Distribution
    between: Distribution | None = None

    @model_validator(mode="after")
    def _scale_is_positive(self) -> Self:
        if self.between is not None and not is_positive(self.between):
            raise ValueError(f"between is a standard deviation; {self.between.dist} can be negative")
        return self


class Baseline(Pool):
    """How the control's means are pooled over segments, on the link scale."""

    pooling: Literal["partial", "none"] = "partial"

    @model_validator(mode="after")
    def _between_fits_pooling(self) -> Self:
        if self.pooling == "partial" and self.between is None:
            raise ValueError('baseline.pooling = "partial" needs a prior for baseline.between')
        if self.pooling == "none" and self.between is not None:
            raise ValueError('baseline.pooling = "none" has no between-segment SD: delete baseline.between')
        return self


class Nuisance(_Closed):
    """Priors of what is needed for the likelihood and reported only in passing.

    Attributes
    ----------
    sigma : Distribution
        Unit-level SD within an arm; family ``normal`` only.
    """

    sigma: Distribution

    @model_validator(mode="after")
    def _scale_is_positive(self) -> Self:
        if not is_positive(self.sigma):
            raise ValueError(f"sigma is a standard deviation; {self.sigma.dist} can be negative")
        return self


class Model(_Closed):
    """A hierarchical model of treatment effects: outcome family, pooling and priors.

    Attributes
    ----------
    family : str
        Outcome family: ``binomial``, ``normal``, ``mean`` or ``estimate``.
    pooling : str
        ``partial`` pools segment effects under a shared prior; ``none`` gives every segment its
        own effect under the prior of `effect.mean`; ``complete`` gives all segments one effect.
    units : str
        ``link``: priors are in the units of the link scale (log-odds, or the outcome itself).
        ``control_sd``: priors are in standard deviations of the control's outcome over units, and
        `baseline.mean` is measured from the control's overall mean. Identity links only.
    effect : Pool
        Treatment minus control, link scale.
    baseline : Baseline or None
        The control's mean, link scale; absent for family ``estimate``.
    nuisance : Nuisance or None
        Present for family ``normal``.
    title, notes : str
        For people: one line, and the mathematics with the reasons.

    Examples
    --------
    >>> from bayes_hte import Model
    >>> model = Model(
    ...     family="estimate",
    ...     effect={"mean": {"dist": "Normal", "sigma": 5.0}, "between": {"dist": "HalfCauchy", "beta": 5.0}},
    ... )
    >>> model.effect.between.beta
    5.0
    """

    family: FamilyName
    pooling: Pooling = "partial"
    units: Units = "link"
    effect: Pool
    baseline: Baseline | None = None
    nuisance: Nuisance | None = None
    title: str = Field(default="", max_length=200)
    notes: str = ""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        problem = _pooling_problem(self) or _table_problem(self) or _units_problem(self)
        if problem:
            raise ValueError(problem)
        return self


def _pooling_problem(model: Model) -> str | None:
    if model.pooling == "partial" and model.effect.between is None:
        return 'pooling = "partial" needs a prior for effect.between, the between-segment SD'
    return None


def _table_problem(model: Model) -> str | None:
    if model.family == "estimate" and model.baseline is not None:
        return 'family = "estimate" has no baseline: delete the table [baseline]'
    if model.family != "estimate" and model.baseline is None:
        return f'family = "{model.family}" needs the table [baseline]'
    if model.family == "normal" and model.nuisance is None:
        return 'family = "normal" needs [nuisance] with a prior for sigma, the SD of the outcome within an arm'
    if model.family != "normal" and model.nuisance is not None:
        return f'family = "{model.family}" has no nuisance parameter: delete the table [nuisance]'
    return None


def _units_problem(model: Model) -> str | None:
    if model.units == "link":
        return None
    if model.family not in ("normal", "mean"):
        return f'units = "control_sd" needs unit-level outcomes on an identity link; family is "{model.family}"'
    if model.baseline is not None and not isinstance(model.baseline.mean, Normal | StudentT | Uniform):
        return "baseline.mean is centred on the data under control_sd; use Normal, StudentT or Uniform"
    return None
