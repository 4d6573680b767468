"""`Model`: what is believed about any experiment of one kind, before its data are seen."""

import html
import json
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bayes_hte.errors import ModelError
from bayes_hte.spec.distributions import LKJ, Cauchy, Distribution, Normal, StudentT, Uniform, is_positive
from bayes_hte.spec.error_messages import ExplainedTable
from bayes_hte.spec.family_rules import FAMILY_RULES, FamilyName, FamilyRules, UnitVariance

PoolingKind = Literal["partial", "none", "complete"]
PriorUnits = Literal["link", "control_sd"]
EffectShape = Literal["normal", "student_t", "horseshoe"]
DEFAULT_NU = 4.0
"""Degrees of freedom of heavy tails unless stated: finite variance, and outliers ten scales away stay believable."""
EVERY_DIMENSION = "*"
"""In `by`: stands for all dimensions of the data, so that a shipped model can be crossed without naming them."""
ColumnName = Annotated[str, Field(min_length=1)]


class _ModelTable(BaseModel):
    # Closed, so that a misspelt key is an error and no prior silently stays at its default.
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pool(_ModelTable):
    """Priors for the two numbers that pool one coefficient over segments, and the levels that share a part of it."""

    mean: Distribution = Field(
        description="Prior of the common value; under no pooling, the prior of every segment's own value.",
        examples=[{"dist": "Normal", "sigma": 1.0}],
    )
    between: Distribution | None = Field(
        default=None,
        description="Prior of the between-segment SD; only under partial pooling. With `by` it is the SD of what the "
        "levels leave.",
        examples=[{"dist": "HalfNormal", "sigma": 0.5}],
    )
    by: tuple[ColumnName, ...] = Field(
        default=(),
        description='Dimensions whose levels have an effect of their own, added up: `["device", "plan"]` for crossed '
        'dimensions, `["region", "region:district"]` for nested ones, `["*"]` for every dimension.',
        examples=[["device", "plan"], ["*"]],
    )
    by_between: Distribution | None = Field(
        default=None,
        description="Prior of the SD between the levels of each dimension in `by`; that of `between` if nothing is "
        "said.",
        examples=[{"dist": "HalfNormal", "sigma": 0.3}],
    )
    level_between: Mapping[ColumnName, Distribution] | None = Field(
        default=None,
        description="Priors of the SD between the levels of single dimensions in `by`, where one of them differs from "
        "`by_between`.",
        examples=[{"device": {"dist": "HalfNormal", "sigma": 0.1}}],
    )

    def get_level_prior(self, term: str) -> Distribution | None:
        """Return the prior of the SD between the levels of a dimension in `by`: its own, that of all, or `between`."""
        return (self.level_between or {}).get(term) or self.by_between or self.between

    @model_validator(mode="after")
    def _check_scales_positive(self) -> Self:
        level_priors = {f"level_between.{term}": prior for term, prior in (self.level_between or {}).items()}
        named_priors = {"between": self.between, "by_between": self.by_between, **level_priors}
        for prior_key, prior in named_priors.items():
            if prior is not None and not is_positive(prior):
                raise ValueError(f"{prior_key} is a standard deviation; {prior.dist} can be negative")
        for term in self.level_between or {}:
            if term not in self.by and EVERY_DIMENSION not in self.by:
                raise ValueError(f"level_between names {term!r}, which is not in by: {list(self.by)}")
        if self.by_between is not None and not self.by:
            raise ValueError("by_between is the SD between levels of the dimensions in by: name them, or delete it")
        # The union of distributions accepts LKJ anywhere; it has a place in `correlation` only.
        if isinstance(self.mean, LKJ):
            raise ValueError("LKJ is a prior of a correlation, not of a mean")
        if len(set(self.by)) < len(self.by):
            raise ValueError(f"by names a dimension twice: {list(self.by)}")
        return self


class Effect(Pool):
    """How treatment effects are pooled over segments, on the link scale."""

    shape: EffectShape = Field(
        default="normal",
        description="Distribution of segments around their common effect: `student_t` or `horseshoe` where a few "
        "segments may lie far out. `between` is then the scale, not the SD.",
        examples=["student_t"],
    )
    nu: Annotated[FiniteFloat, Field(ge=2)] | None = Field(
        default=None,
        description=f"Degrees of freedom of `student_t`; {DEFAULT_NU:g} if nothing is said.",
        examples=[3],
    )
    slab: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        default=None,
        description="For `horseshoe`: SD of the effects of segments that do stand out, on the link scale.",
        examples=[1.0],
    )
    covariates: tuple[ColumnName, ...] = Field(
        default=(),
        description="Numbers known of every segment that move its effect, counted in SDs over segments.",
        examples=[["beds"]],
    )
    slope: Distribution | None = Field(
        default=None,
        description="Prior of the change of the effect per SD of a covariate; goes with `covariates`.",
        examples=[{"dist": "Normal", "sigma": 0.2}],
    )
    correlation: LKJ | None = Field(
        default=None,
        description="Prior of the correlation between a segment's baseline and its effect; without it they are "
        "independent.",
        examples=[{"dist": "LKJ", "eta": 2.0}],
    )
    strata: ColumnName | None = Field(
        default=None,
        description="A dimension whose levels have between-segment SDs of their own.",
        examples=["region"],
    )
    shared_between: bool = Field(
        default=False,
        description="One between-segment SD for all arms, instead of one for each.",
        examples=[True],
    )

    @property
    def tail_nu(self) -> float:
        """Degrees of freedom of heavy tails, stated or not."""
        return DEFAULT_NU if self.nu is None else self.nu

    @model_validator(mode="after")
    def _check_structure(self) -> Self:
        reason = _why_shape_invalid(self) or _why_structure_invalid(self)
        if reason:
            raise ValueError(reason)
        return self


def _why_shape_invalid(effect: Effect) -> str | None:
    if effect.nu is not None and effect.shape != "student_t":
        return 'nu is a parameter of shape = "student_t"'
    if effect.slab is not None and effect.shape != "horseshoe":
        return 'slab is a parameter of shape = "horseshoe"'
    if effect.shape == "horseshoe" and effect.slab is None:
        return 'shape = "horseshoe" needs slab, the SD of effects of segments that stand out'
    return None


def _why_structure_invalid(effect: Effect) -> str | None:
    if bool(effect.covariates) != (effect.slope is not None):
        return "covariates and slope, the prior of their coefficients, go together"
    if isinstance(effect.slope, LKJ):
        return "LKJ is a prior of a correlation, not of a slope"
    if effect.correlation is not None and effect.shape != "normal":
        return f'a correlation with the baseline needs shape = "normal", not "{effect.shape}"'
    # Each of these would need an SD, a shape or a correlation for every set of levels: no such model is built.
    if effect.by and (effect.strata or effect.shape == "horseshoe" or effect.correlation is not None):
        return "by goes with covariates and student_t, not with strata, horseshoe or a correlation"
    return None


class Baseline(Pool):
    """How the control's means are pooled over segments, on the link scale."""

    # Wider than in Pool, because the cutpoints of an ordinal outcome hold its level.
    mean: Distribution | None = Field(  # type: ignore[assignment]
        default=None,
        description="Prior of the control's mean in an average segment, on the link scale; absent for family "
        "`ordinal`, whose cutpoints play its role.",
        examples=[{"dist": "Normal", "sigma": 2.5}],
    )
    pooling: Literal["partial", "none"] = Field(
        default="partial",
        description="`none` gives every segment a baseline of its own, under the prior `mean`.",
        examples=["none"],
    )

    @model_validator(mode="after")
    def _check_between_fits_pooling(self) -> Self:
        if self.pooling == "partial" and self.between is None:
            raise ValueError('baseline.pooling = "partial" needs a prior for baseline.between')
        if self.pooling == "none" and self.between is not None:
            raise ValueError('baseline.pooling = "none" has no between-segment SD: delete baseline.between')
        if self.pooling == "none" and self.by:
            raise ValueError('baseline.by shares parts of the baseline between segments: it needs pooling = "partial"')
        return self


class Amount(_ModelTable):
    """The second part of family ``two_part``: the logarithm of positive outcomes, identity link."""

    effect: Pool = Field(description="How effects on the logarithm of positive outcomes are pooled.")
    baseline: Baseline = Field(description="How the control's means of that logarithm are pooled.")


class Nuisance(_ModelTable):
    """Priors of what is needed for the likelihood and reported only in passing; a family needs one of them at most."""

    sigma: Distribution | None = Field(
        default=None,
        description="SD over units within an arm, for `normal`; of the logarithm of positive outcomes, for `two_part`.",
        examples=[{"dist": "HalfNormal", "sigma": 2.0}],
    )
    alpha: Distribution | None = Field(
        default=None,
        description="For `negative_binomial`, one per arm: a count with mean m has variance m + m² / alpha.",
        examples=[{"dist": "Gamma", "mu": 2.0, "sigma": 2.0}],
    )
    cutpoints: Distribution | None = Field(
        default=None,
        description="For `ordinal`: each of the ascending log odds of being at or below a level, in a segment like "
        "the average.",
        examples=[{"dist": "Normal", "sigma": 3.0}],
    )
    hazards: Distribution | None = Field(
        default=None,
        description="For `piecewise_exponential`: log hazard of each interval relative to the first.",
        examples=[{"dist": "Normal", "sigma": 1.0}],
    )

    @model_validator(mode="after")
    def _check_supports(self) -> Self:
        for prior_key, requirement, prior in (
            ("sigma", "a standard deviation", self.sigma),
            ("alpha", "positive", self.alpha),
        ):
            if prior is not None and not is_positive(prior):
                raise ValueError(f"{prior_key} is {requirement}; {prior.dist} can be negative")
        # A bounded or positive prior would forbid hazards below the first one's, and cutpoints below even odds.
        for prior_key, prior in (("cutpoints", self.cutpoints), ("hazards", self.hazards)):
            if prior is not None and not isinstance(prior, Normal | StudentT | Cauchy):
                raise ValueError(
                    f"{prior_key} can be negative and have no bound: use Normal, StudentT or Cauchy, not {prior.dist}"
                )
        return self

    @property
    def stated_priors(self) -> dict[str, Distribution]:
        """Priors that the file states, by key."""
        prior_by_name = {prior_key: getattr(self, prior_key) for prior_key in type(self).model_fields}
        return {name: prior for name, prior in prior_by_name.items() if prior is not None}


class Model(ExplainedTable):
    """A hierarchical model of treatment effects: outcome family, pooling and priors.

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

    model_config = ConfigDict(frozen=True, extra="forbid")
    error_class: ClassVar = ModelError

    family: FamilyName = Field(
        description="The kind of outcome, which says what the data must hold.", examples=["mean"]
    )
    pooling: PoolingKind = Field(
        default="partial",
        description="`partial` pools segment effects under a shared prior; `none` gives every segment its own effect "
        "under the prior `effect.mean`; `complete` gives all segments one effect.",
        examples=["none"],
    )
    units: PriorUnits = Field(
        default="link",
        description="`link`: priors are in the units of the link scale (log odds, or the outcome itself). "
        "`control_sd`: they are in standard deviations of the control's outcome over units, and `baseline.mean` is "
        "measured from the control's overall mean; for identity links only.",
        examples=["control_sd"],
    )
    unit_variance: UnitVariance | None = Field(
        default=None,
        description="For family `mean`, the variance over units behind each standard error. `per_arm`, the default, "
        "pools it over the cells of an arm where numbers of units and sums of squares are known; `per_cell` takes each "
        "cell's own, under which cells with a low mean of a skewed outcome weigh too much. Published means, ratios, "
        "and means that are weighted or of clusters keep the standard errors that they have.",
        examples=["per_cell"],
    )
    effect: Effect = Field(
        description="Treatment minus control on the link scale, and how it is pooled; for `two_part`, of the chance of "
        "a positive outcome."
    )
    baseline: Baseline | None = Field(
        default=None,
        description="The control's mean on the link scale, and how it is pooled; absent for family `estimate`.",
    )
    amount: Amount | None = Field(
        default=None, description="The logarithm of positive outcomes, the second part of family `two_part`."
    )
    nuisance: Nuisance | None = Field(
        default=None,
        description="Priors of the other parameters of the likelihood, for the families that have one.",
    )
    title: str = Field(
        default="", max_length=200, description="One line for people.", examples=["Conversion, sceptical prior"]
    )
    notes: str = Field(
        default="",
        description="The mathematics, and the reasons for the priors, for people.",
        examples=["Effects above 10 % were never seen in 40 tests."],
    )

    def __repr__(self) -> str:
        """Name the model on one line: all its keys would fill a page."""
        title = " ".join(self.title.split())
        return f"<Model{f' {title!r}' if title else ''}: {self.family} outcomes, {self.pooling} pooling>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Write the line and all keys that are set as HTML, for notebooks."""
        keys_text = json.dumps(self.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False)
        return f"<p><b>{html.escape(repr(self))}</b></p><pre>{html.escape(keys_text)}</pre>"

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        rules = FAMILY_RULES[self.family]
        reason = _why_pooling_invalid(self) or _why_tables_invalid(self, rules) or _why_units_invalid(self, rules)
        if reason is None and self.unit_variance is not None and not rules.allows_unit_variance:
            reason = f'unit_variance is for family "mean": family = "{self.family}" has none to pool; delete the key'
        if reason:
            raise ValueError(reason)
        return self


def _why_pooling_invalid(model: Model) -> str | None:
    named_pools = [("effect", model.effect)] + ([("amount.effect", model.amount.effect)] if model.amount else [])
    if model.pooling == "partial":
        pools_without_between = [name for name, pool in named_pools if pool.between is None]
        return (
            f'pooling = "partial" needs a prior for {pools_without_between[0]}.between, the between-segment SD'
            if pools_without_between
            else None
        )
    # All that says how segments differ around a common effect means nothing where they share all of it, or none.
    effect = model.effect
    partial_pooling_keys = {
        "by": effect.by,
        "covariates": effect.covariates,
        "shape": effect.shape != "normal",
        "correlation": effect.correlation,
        "strata": effect.strata,
        "shared_between": effect.shared_between,
    }
    stated_keys = [pool_name for pool_name, value in partial_pooling_keys.items() if value]
    return (
        f'effect.{stated_keys[0]} says how effects are partially pooled: it needs pooling = "partial"'
        if stated_keys
        else None
    )


def _why_tables_invalid(model: Model, rules: FamilyRules) -> str | None:
    if not rules.has_baseline and model.baseline is not None:
        return f'family = "{model.family}" has no baseline: delete the table [baseline]'
    if rules.has_baseline and model.baseline is None:
        return f'family = "{model.family}" needs the table [baseline]'
    # Either a family of two parts without the second, or a second part of another family.
    if rules.has_amount != (model.amount is not None):
        wrong_tables = (
            "needs the tables [amount.effect] and [amount.baseline]" if model.amount is None else "has no [amount]"
        )
        return f'family = "{model.family}" {wrong_tables}'
    return _why_nuisance_invalid(model, rules) or _why_baseline_invalid(model, rules)


def _why_nuisance_invalid(model: Model, rules: FamilyRules) -> str | None:
    stated_names = list(model.nuisance.stated_priors) if model.nuisance is not None else []
    if rules.nuisance_name is None and model.nuisance is not None:
        return f'family = "{model.family}" has no nuisance parameter: delete the table [nuisance]'
    if rules.nuisance_name is not None and stated_names != [rules.nuisance_name]:
        return f'family = "{model.family}" needs [nuisance] with a prior for {rules.nuisance_name}' + (
            f", and nothing else; given: {', '.join(stated_names)}" if stated_names else ""
        )
    return None


def _why_baseline_invalid(model: Model, rules: FamilyRules) -> str | None:
    baseline = model.baseline
    if baseline is None:
        return "a correlation with the baseline needs a baseline" if model.effect.correlation is not None else None
    if not rules.has_baseline_mean and (baseline.mean is not None or baseline.pooling != "partial"):
        return (
            f'family = "{model.family}" has {rules.nuisance_name} in place of baseline.mean: delete it, and pool '
            "baselines partially"
        )
    if rules.has_baseline_mean and baseline.mean is None:
        return "baseline.mean is missing: the prior of the control's mean on the link scale"
    # Correlated are one normal offset of the baseline and one of the effect in each segment: without pooling, or with
    # levels, a baseline has no such offset.
    if model.effect.correlation is not None and (baseline.pooling != "partial" or baseline.by):
        return "a correlation between baseline and effect needs a baseline that is partially pooled, without by"
    return None if model.amount is None else _why_amount_invalid(model, model.amount)


def _why_amount_invalid(model: Model, amount: Amount) -> str | None:
    if amount.baseline.mean is None:
        return "amount.baseline.mean is missing: the prior of the log of a typical positive outcome"
    if _has_structure(model):
        return (
            f'family = "{model.family}" pools both of its parts one way: by, covariates, shapes and strata are not for '
            "it"
        )
    return None


def _has_structure(model: Model) -> bool:
    effect, baseline_pools = model.effect, (model.baseline, model.amount.baseline if model.amount else None)
    effect_structure = (effect.by, effect.covariates, effect.shape != "normal", effect.correlation, effect.strata)
    has_levels = any(
        pool is not None and pool.by for pool in (*baseline_pools, model.amount.effect if model.amount else None)
    )
    return any(map(bool, effect_structure)) or effect.shared_between or has_levels


def _why_units_invalid(model: Model, rules: FamilyRules) -> str | None:
    if model.units == "link":
        return None
    # Priors are multiplied by the SD of the outcome: that is a change of units on an identity link only.
    if not rules.allows_control_sd:
        return f'units = "control_sd" needs unit-level outcomes on an identity link; family is "{model.family}"'
    # baseline.mean = ȳ_control + s_control · x: only distributions with a location can be shifted so.
    if model.baseline is not None and not isinstance(model.baseline.mean, Normal | StudentT | Cauchy | Uniform):
        return "baseline.mean is centred on the data under control_sd; use Normal, StudentT, Cauchy or Uniform"
    return None
