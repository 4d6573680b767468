"""`Model`: what is believed about any experiment of one kind, before its data are seen."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bayes_hte.spec.distributions import LKJ, Distribution, Normal, StudentT, Uniform, is_positive

FamilyName = Literal[
    "binomial",
    "normal",
    "mean",
    "estimate",
    "poisson",
    "negative_binomial",
    "two_part",
    "ordinal",
    "piecewise_exponential",
]
Pooling = Literal["partial", "none", "complete"]
Units = Literal["link", "control_sd"]
Shape = Literal["normal", "student_t", "horseshoe"]
NUISANCE: Mapping[str, str] = MappingProxyType(
    {
        "normal": "sigma",
        "two_part": "sigma",
        "negative_binomial": "alpha",
        "ordinal": "cutpoints",
        "piecewise_exponential": "hazards",
    }
)
"""The nuisance parameter that a family needs; families not listed have none."""
EVERY_DIMENSION = "*"
Text = Annotated[str, Field(min_length=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pool(_Closed):
    """Priors for the two numbers that pool one coefficient over segments, and the levels that share a part of it.

    Attributes
    ----------
    mean : Distribution
        Prior of the common value; under no pooling, the prior of every segment's own value.
    between : Distribution or None
        Prior of the between-segment SD; only under partial pooling. With `by` it is the SD of what is left.
    by : tuple of str
        Dimensions whose levels have an effect of their own, added up: ``["device", "plan"]`` for crossed
        dimensions, ``["region", "region:district"]`` for nested ones; ``["*"]`` for every dimension.
    by_between : Distribution or None
        Prior of the SD between the levels of each of them; by default that of `between`.
    """

    mean: Distribution
    between: Distribution | None = None
    by: tuple[Text, ...] = ()
    by_between: Distribution | None = None

    @model_validator(mode="after")
    def _scales_are_positive(self) -> Self:
        for name, prior in (("between", self.between), ("by_between", self.by_between)):
            if prior is not None and not is_positive(prior):
                raise ValueError(f"{name} is a standard deviation; {prior.dist} can be negative")
        if self.by_between is not None and not self.by:
            raise ValueError("by_between is the SD between levels of the dimensions in by: name them, or delete it")
        if isinstance(self.mean, LKJ):
            raise ValueError("LKJ is a prior of a correlation, not of a mean")
        if len(set(self.by)) < len(self.by):
            raise ValueError(f"by names a dimension twice: {list(self.by)}")
        return self


class Effect(Pool):
    """How treatment effects are pooled over segments, on the link scale.

    Attributes
    ----------
    shape : str
        Distribution of segments around their common effect: ``normal``; ``student_t`` or ``horseshoe`` where a few
        segments may lie far out. `between` is then the scale, not the SD.
    nu : float or None
        Degrees of freedom of ``student_t``; 4 unless stated.
    slab : float or None
        For ``horseshoe``: SD of the effects of segments that do stand out, link scale.
    covariates : tuple of str
        Numbers known of every segment that move its effect, in SDs over segments.
    slope : Distribution or None
        Prior of the change of the effect per SD of a covariate.
    correlation : LKJ or None
        Prior of the correlation between a segment's baseline and its effect; without it they are independent.
    strata : str or None
        A dimension whose levels have between-segment SDs of their own.
    shared_between : bool
        One between-segment SD for all arms, instead of one for each.
    """

    shape: Shape = "normal"
    nu: Annotated[FiniteFloat, Field(ge=2)] | None = None
    slab: Annotated[FiniteFloat, Field(gt=0)] | None = None
    covariates: tuple[Text, ...] = ()
    slope: Distribution | None = None
    correlation: LKJ | None = None
    strata: Text | None = None
    shared_between: bool = False

    @model_validator(mode="after")
    def _coherent_structure(self) -> Self:
        problem = _shape_problem(self) or _structure_problem(self)
        if problem:
            raise ValueError(problem)
        return self


def _shape_problem(effect: Effect) -> str | None:
    if effect.nu is not None and effect.shape != "student_t":
        return 'nu is a parameter of shape = "student_t"'
    if effect.slab is not None and effect.shape != "horseshoe":
        return 'slab is a parameter of shape = "horseshoe"'
    if effect.shape == "horseshoe" and effect.slab is None:
        return 'shape = "horseshoe" needs slab, the SD of effects of segments that stand out'
    return None


def _structure_problem(effect: Effect) -> str | None:
    if bool(effect.covariates) != (effect.slope is not None):
        return "covariates and slope, the prior of their coefficients, go together"
    if isinstance(effect.slope, LKJ):
        return "LKJ is a prior of a correlation, not of a slope"
    if effect.correlation is not None and effect.shape != "normal":
        return f'a correlation with the baseline needs shape = "normal", not "{effect.shape}"'
    if effect.by and (effect.strata or effect.shape == "horseshoe" or effect.correlation is not None):
        return "by goes with covariates and student_t, not with strata, horseshoe or a correlation"
    return None


class Baseline(Pool):
    """How the control's means are pooled over segments, on the link scale.

    `mean` is absent for family ``ordinal``, whose cutpoints play its role.
    """

    mean: Distribution | None = None  # type: ignore[assignment]
    pooling: Literal["partial", "none"] = "partial"

    @model_validator(mode="after")
    def _between_fits_pooling(self) -> Self:
        if self.pooling == "partial" and self.between is None:
            raise ValueError('baseline.pooling = "partial" needs a prior for baseline.between')
        if self.pooling == "none" and self.between is not None:
            raise ValueError('baseline.pooling = "none" has no between-segment SD: delete baseline.between')
        if self.pooling == "none" and self.by:
            raise ValueError('baseline.by shares parts of the baseline between segments: it needs pooling = "partial"')
        return self


class Amount(_Closed):
    """The second part of family ``two_part``: the logarithm of positive outcomes, identity link.

    Attributes
    ----------
    effect, baseline : Pool
        As in the model itself.
    """

    effect: Pool
    baseline: Baseline


class Nuisance(_Closed):
    """Priors of what is needed for the likelihood and reported only in passing; a family needs one of them at most.

    Attributes
    ----------
    sigma : Distribution or None
        Unit-level SD within an arm, for ``normal``; of the logarithm of positive outcomes, for ``two_part``.
    alpha : Distribution or None
        For ``negative_binomial``, one per arm: a count with mean m has variance m + m² / alpha.
    cutpoints : Distribution or None
        For ``ordinal``: each of the ascending log-odds of being at or below a level, in a segment like the average.
    hazards : Distribution or None
        For ``piecewise_exponential``: log hazard of each interval relative to the first.
    """

    sigma: Distribution | None = None
    alpha: Distribution | None = None
    cutpoints: Distribution | None = None
    hazards: Distribution | None = None

    @model_validator(mode="after")
    def _scales_are_positive(self) -> Self:
        for name, what, prior in (("sigma", "a standard deviation", self.sigma), ("alpha", "positive", self.alpha)):
            if prior is not None and not is_positive(prior):
                raise ValueError(f"{name} is {what}; {prior.dist} can be negative")
        for name, prior in (("cutpoints", self.cutpoints), ("hazards", self.hazards)):
            if prior is not None and not isinstance(prior, Normal | StudentT):
                raise ValueError(f"{name} can be negative and have no bound: use Normal or StudentT, not {prior.dist}")
        return self

    @property
    def given(self) -> dict[str, Distribution]:
        """The priors that are stated, by name."""
        found = {name: getattr(self, name) for name in ("sigma", "alpha", "cutpoints", "hazards")}
        return {name: prior for name, prior in found.items() if prior is not None}


class Model(_Closed):
    """A hierarchical model of treatment effects: outcome family, pooling and priors.

    Attributes
    ----------
    family : str
        Outcome family: ``binomial``, ``normal``, ``mean``, ``estimate``, ``poisson``, ``negative_binomial``,
        ``two_part``, ``ordinal`` or ``piecewise_exponential``.
    pooling : str
        ``partial`` pools segment effects under a shared prior; ``none`` gives every segment its
        own effect under the prior of `effect.mean`; ``complete`` gives all segments one effect.
    units : str
        ``link``: priors are in the units of the link scale (log-odds, or the outcome itself).
        ``control_sd``: priors are in standard deviations of the control's outcome over units, and
        `baseline.mean` is measured from the control's overall mean. Identity links only.
    effect : Effect
        Treatment minus control, link scale; for ``two_part``, of the chance of a positive outcome.
    baseline : Baseline or None
        The control's mean, link scale; absent for family ``estimate``.
    amount : Amount or None
        Effect and baseline of the logarithm of positive outcomes; family ``two_part`` only.
    nuisance : Nuisance or None
        Present for the families in `NUISANCE`.
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
    effect: Effect
    baseline: Baseline | None = None
    amount: Amount | None = None
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
    pools = [("effect", model.effect)] + ([("amount.effect", model.amount.effect)] if model.amount else [])
    if model.pooling == "partial":
        lacking = [name for name, pool in pools if pool.between is None]
        return (
            f'pooling = "partial" needs a prior for {lacking[0]}.between, the between-segment SD' if lacking else None
        )
    effect = model.effect
    structured = {
        "by": effect.by,
        "covariates": effect.covariates,
        "shape": effect.shape != "normal",
        "correlation": effect.correlation,
        "strata": effect.strata,
        "shared_between": effect.shared_between,
    }
    asked = [name for name, value in structured.items() if value]
    return f'effect.{asked[0]} says how effects are partially pooled: it needs pooling = "partial"' if asked else None


def _table_problem(model: Model) -> str | None:
    if model.family == "estimate" and model.baseline is not None:
        return 'family = "estimate" has no baseline: delete the table [baseline]'
    if model.family != "estimate" and model.baseline is None:
        return f'family = "{model.family}" needs the table [baseline]'
    if (model.family == "two_part") != (model.amount is not None):
        told = "needs the tables [amount.effect] and [amount.baseline]" if model.amount is None else "has no [amount]"
        return f'family = "{model.family}" {told}'
    return _nuisance_problem(model) or _baseline_problem(model)


def _nuisance_problem(model: Model) -> str | None:
    wanted, given = NUISANCE.get(model.family), list(model.nuisance.given) if model.nuisance is not None else []
    if wanted is None and model.nuisance is not None:
        return f'family = "{model.family}" has no nuisance parameter: delete the table [nuisance]'
    if wanted is not None and given != [wanted]:
        return f'family = "{model.family}" needs [nuisance] with a prior for {wanted}' + (
            f", and nothing else; given: {', '.join(given)}" if given else ""
        )
    return None


def _baseline_problem(model: Model) -> str | None:
    baseline = model.baseline
    if baseline is None:
        return "a correlation with the baseline needs a baseline" if model.effect.correlation is not None else None
    if model.family == "ordinal" and (baseline.mean is not None or baseline.pooling != "partial"):
        return 'family = "ordinal" has cutpoints in place of baseline.mean: delete it, and pool baselines partially'
    if model.family != "ordinal" and baseline.mean is None:
        return "baseline.mean is missing: the prior of the control's mean on the link scale"
    if model.effect.correlation is not None and (baseline.pooling != "partial" or baseline.by):
        return "a correlation between baseline and effect needs a baseline that is partially pooled, without by"
    return None if model.amount is None else _amount_problem(model, model.amount)


def _amount_problem(model: Model, amount: Amount) -> str | None:
    if amount.baseline.mean is None:
        return "amount.baseline.mean is missing: the prior of the log of a typical positive outcome"
    if _structured(model):
        return 'family = "two_part" pools both of its parts one way: by, covariates, shapes and strata are not for it'
    return None


def _structured(model: Model) -> bool:
    effect, baselines = model.effect, (model.baseline, model.amount.baseline if model.amount else None)
    parts = (effect.by, effect.covariates, effect.shape != "normal", effect.correlation, effect.strata)
    nested = any(pool is not None and pool.by for pool in (*baselines, model.amount.effect if model.amount else None))
    return any(map(bool, parts)) or effect.shared_between or nested


def _units_problem(model: Model) -> str | None:
    if model.units == "link":
        return None
    if model.family not in ("normal", "mean"):
        return f'units = "control_sd" needs unit-level outcomes on an identity link; family is "{model.family}"'
    if model.baseline is not None and not isinstance(model.baseline.mean, Normal | StudentT | Uniform):
        return "baseline.mean is centred on the data under control_sd; use Normal, StudentT or Uniform"
    return None
