"""`Plan`: what one experiment asks. The data, the arms, the declared segments, the model, the reporting."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from bayes_hte._support.validation import describe_value
from bayes_hte.spec.cell_table import EffectScale

NonEmptyText = Annotated[str, Field(min_length=1)]
SamplerName = Literal["auto", "exact", "nuts"]
ArmShares = Annotated[dict[NonEmptyText, Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=2)]
"""Planned share of the units by arm, or numbers in proportion to them: ``{ old = 0.5, new = 0.5 }``."""


def _expect_one_of(expected_values: str) -> WrapValidator:
    """State once which values a key may have, where each member of a union would explain why it is not met."""

    def check_value(toml_value: Any, validate_value: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate_value(toml_value)
        except ValidationError:  # pydantic's own report has a sentence for each member of the union
            raise ValueError(f"should be {expected_values}, not {describe_value(toml_value)}") from None

    return WrapValidator(check_value)


# Aliases of values that several tables of a plan share, or that are unions: their message names all members at once.
OutcomeCap = Annotated[
    FiniteFloat | tuple[FiniteFloat, FiniteFloat], _expect_one_of("a number, or a list of two, the smaller first")
]
CountFromTwo = Annotated[int, Field(ge=2)]
RareThreshold = Annotated[
    CountFromTwo | dict[NonEmptyText, CountFromTwo],
    _expect_one_of("a number of rows, 2 or more, or such numbers by dimension, as in { country = 50 }"),
]
BinDefinition = Annotated[
    Annotated[int, Field(ge=2, le=100)]
    | Literal["day", "week", "month", "quarter", "year"]
    | Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=99)],
    _expect_one_of(
        'a number from 2 to 100, a list of cuts such as [18, 35, 65], or "day", "week", "month", "quarter", "year"'
    ),
]


class _PlanTable(BaseModel):
    # Closed, so that a misspelt key is an error and nothing silently stays at its default.
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rows(_PlanTable):
    """One row per unit.

    Attributes
    ----------
    path : str
        CSV or Parquet file, relative to the plan file; may be left to ``--data``.
    outcome, arm, control : str
        Columns of the outcome and the arm; the arm that is the control.
    segments : tuple of str
        The dimensions declared before the test.
    shares : dict or None
        Planned share of the units by arm: what the checks of the data hold the arms to.
    drop_missing : bool
        Drop units without a finite outcome, and say how many.
    exposure : str or None
        Column of the time, visits or area over which the outcome counts events: rates.
    metric : str or None
        What to keep of the outcome: its ``mean`` (so if nothing is said), the units by value (``histogram``), or the
        share above 0 and the logarithms above it (``two_part``).
    denominator, weights, cluster : str or None
        Columns that the outcome is divided by, that say how many units a row stands for, and that name what was
        assigned if that is not the row.
    cuped : tuple of str or None
        Columns measured before treatment that the mean is adjusted for.
    cap, cap_quantile : float or pair of float, or None
        Largest outcome, or smallest and largest, or the quantiles at which they lie; what is beyond counts as this.
    bins : dict or None
        By dimension: cuts, a number of bins, or a period such as ``day``.
    rare : int, dict or None
        Levels with fewer rows form the level (other), in all dimensions or by dimension.
    unit : str or None
        Column that names the unit: repeated ones are reported.
    balance : tuple of str or None
        Columns measured before treatment whose balance is checked.
    """

    form: Literal["rows"] = "rows"
    path: NonEmptyText | None = None
    outcome: NonEmptyText
    arm: NonEmptyText
    control: NonEmptyText
    segments: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)]
    drop_missing: bool = False
    exposure: NonEmptyText | None = None
    metric: Literal["mean", "histogram", "two_part"] | None = None
    denominator: NonEmptyText | None = None
    weights: NonEmptyText | None = None
    cluster: NonEmptyText | None = None
    cuped: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)] | None = None
    cap: OutcomeCap | None = None
    cap_quantile: OutcomeCap | None = None
    bins: dict[NonEmptyText, BinDefinition] | None = None
    rare: RareThreshold | None = None
    unit: NonEmptyText | None = None
    balance: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)] | None = None
    shares: ArmShares | None = None


class Times(_PlanTable):
    """One row per unit: the time until an event, or until the unit was last seen.

    Attributes
    ----------
    path : str
        CSV or Parquet file, relative to the plan file; may be left to ``--data``.
    time, event : str
        Columns of the time, and of whether the event was seen (1) or the unit was censored (0).
    arm, control : str
        Column of the arm; the arm that is the control.
    segments : tuple of str
        The dimensions declared before the test.
    shares : dict or None
        Planned share of the units by arm: what the checks of the data hold the arms to.
    breaks : tuple of float or None
        Times at which the hazard may change; by default four intervals with about equally many events.
    horizon : float or None
        Time at which survival is compared; by default that of the last event.
    outcome : str
        What the event is.
    drop_missing : bool
        Drop units without a finite time or without an event, and say how many.
    """

    form: Literal["times"] = "times"
    path: NonEmptyText | None = None
    outcome: NonEmptyText = "event"
    time: NonEmptyText
    event: NonEmptyText
    arm: NonEmptyText
    control: NonEmptyText
    segments: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)]
    breaks: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] | None = None
    horizon: Annotated[FiniteFloat, Field(gt=0)] | None = None
    drop_missing: bool = False
    shares: ArmShares | None = None


class Levels(_PlanTable):
    """One row per segment, arm and value of the outcome, with the number of units that have it; `shares` as in Rows."""

    form: Literal["levels"] = "levels"
    path: NonEmptyText | None = None
    outcome: NonEmptyText = "outcome"
    arm: NonEmptyText
    control: NonEmptyText
    segments: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)]
    value: NonEmptyText
    count: NonEmptyText
    shares: ArmShares | None = None


class Summary(_PlanTable):
    """One row per segment and arm.

    Columns are n and events; or events and non_events; or n, mean and sd; or n, total and sum_squares; or mean and se;
    or events and exposure; or n, mean, sd, positive, log_mean and log_sd. Covariates are known of each segment as a
    whole. `shares` as in Rows.
    """

    form: Literal["summary"] = "summary"
    path: NonEmptyText | None = None
    outcome: NonEmptyText = "outcome"
    arm: NonEmptyText
    control: NonEmptyText
    segments: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)]
    n: NonEmptyText | None = None
    events: NonEmptyText | None = None
    non_events: NonEmptyText | None = None
    mean: NonEmptyText | None = None
    sd: NonEmptyText | None = None
    total: NonEmptyText | None = None
    sum_squares: NonEmptyText | None = None
    se: NonEmptyText | None = None
    exposure: NonEmptyText | None = None
    positive: NonEmptyText | None = None
    log_mean: NonEmptyText | None = None
    log_sd: NonEmptyText | None = None
    covariates: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)] | None = None
    shares: ArmShares | None = None


# The statistics that a table can hold of one arm: the keys of [data.arms.<arm>].
ArmRole = Literal[
    "n", "events", "non_events", "mean", "sd", "total", "sum_squares", "se", "exposure", "positive", "log_mean",
    "log_sd",
]  # fmt: skip


class Wide(_PlanTable):
    """One row per segment, with columns for each arm.

    `arms` says for each arm what its columns mean and what they are called, in the words of Summary:
    ``arms.old = { n = "n_old", events = "events_old" }``. `shares` as in Rows.
    """

    form: Literal["wide"] = "wide"
    path: NonEmptyText | None = None
    outcome: NonEmptyText = "outcome"
    arms: Annotated[dict[NonEmptyText, dict[ArmRole, NonEmptyText]], Field(min_length=2)]
    control: NonEmptyText
    segments: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)]
    covariates: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)] | None = None
    shares: ArmShares | None = None


class Table(_PlanTable):
    """A table of any form but rows of units, whose columns' names leave no doubt; what is said here is not guessed.

    `shares` as in Rows.
    """

    form: Literal["table"] = "table"
    path: NonEmptyText | None = None
    outcome: NonEmptyText | None = None
    arm: NonEmptyText | None = None
    control: NonEmptyText | None = None
    segments: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)] | None = None
    shares: ArmShares | None = None


class Estimates(_PlanTable):
    """One row per segment: a published effect, and its standard error or the covariance of all.

    `covariance` is a CSV or Parquet file, relative to the plan file, with the square matrix; its header names the
    segments.
    """

    form: Literal["estimates"] = "estimates"
    path: NonEmptyText | None = None
    outcome: NonEmptyText = "effect"
    segments: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)]
    estimate: NonEmptyText
    se: NonEmptyText | None = None
    covariance: NonEmptyText | None = None
    arm: NonEmptyText | None = None
    n: NonEmptyText | None = None
    covariates: Annotated[tuple[NonEmptyText, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_uncertainty(self) -> Self:
        # Both may be stated: the covariance then says how estimates depend, and its diagonal is checked against se.
        if self.se is None and self.covariance is None:
            raise ValueError(
                "estimates need their uncertainty: name the column of standard errors as se, or covariance"
            )
        return self


# `form` tells which table [data] is, so that errors speak of its keys only.
DataTable = Annotated[Rows | Summary | Wide | Table | Levels | Times | Estimates, Field(discriminator="form")]


class Sampling(_PlanTable):
    """How the posterior is drawn: a run with the same seed and versions gives the same numbers."""

    sampler: SamplerName = "auto"
    # Monte-Carlo error of an end of a 95 % interval, in SDs: √(0.025 · 0.975 / draws) / φ(1.96), 4 % with 4000 draws.
    # With 400 each end has only ten draws beyond it.
    draws: Annotated[int, Field(ge=400, le=1_000_000)] = 4000
    seed: Annotated[int, Field(ge=0)] = 1


class Reporting(_PlanTable):
    """How effects are shown.

    Attributes
    ----------
    scale : str
        ``absolute``, ``relative`` or ``link``.
    ci_prob : float
        Probability of every interval.
    rope : float or None
        The smallest effect that matters, on `scale`: adds ``p_rope`` (too small to matter),
        ``p_benefit`` (above it) and ``p_harm`` (below its negative) to the table.
    unit : str
        What an absolute effect counts ("USD per customer"); shown beside every number.
    higher_is_better : bool
        False when the outcome is bad (deaths, churn): words and ``p_harm`` turn round.
    call_prob : float
        A sign is called (helps, harms) where its probability is above this.
    """

    scale: EffectScale = "absolute"
    # An interval that is wrong as often as right is none to act on, and one of 100 % has no ends.
    ci_prob: Annotated[FiniteFloat, Field(gt=0.5, lt=1)] = 0.95
    rope: Annotated[FiniteFloat, Field(gt=0)] | None = None
    unit: str = ""
    higher_is_better: bool = True
    # The report words a probability below 0.8 as no tendency at all: such a sign cannot be called.
    call_prob: Annotated[FiniteFloat, Field(ge=0.8, lt=1)] = 0.95


class Privacy(_PlanTable):
    """What is done about small cells before anything is written.

    Attributes
    ----------
    min_units : int
        A segment is small if an arm has fewer units than this, but some.
    small : str
        ``suppress`` leaves small segments out, ``merge`` puts them together in one.
    """

    min_units: CountFromTwo
    # The words and the default of `cells.protect`.
    small: Literal["suppress", "merge"] = "suppress"


class Plan(_PlanTable):
    """The analysis that was declared before the test.

    Attributes
    ----------
    title : str
        One line at the top of the report.
    question : str
        What the people who ran the experiment want to know.
    exploratory : bool
        True if the segments were chosen after the data were seen; the report then says so.
    model : str
        The name of a shipped model, or the path of a model file relative to the plan.
    planned_effect : float or None
        The effect the experiment was planned for, on the scale of the report: the between-segment SD then has the
        prior HalfNormal(planned effect on the link scale), in place of the model file's.
    data : Rows, Times, Summary, Wide, Table, Levels or Estimates
        Where the data are and what its columns mean.
    privacy : Privacy or None
        What is done about small cells before anything is written.
    sampling : Sampling
    report : Reporting
    """

    title: NonEmptyText
    question: str = ""
    exploratory: bool = False
    source: str = ""
    model: NonEmptyText
    planned_effect: FiniteFloat | None = None
    data: DataTable
    privacy: Privacy | None = None
    sampling: Sampling = Sampling()
    report: Reporting = Reporting()

    @model_validator(mode="before")
    @classmethod
    def _default_form_to_rows(cls, content: Any) -> Any:
        # Rows are what most plans have: `form = "rows"` need not be written.
        if isinstance(content, dict) and isinstance(content.get("data"), dict):
            return {**content, "data": {"form": "rows", **content["data"]}}
        return content

    @model_validator(mode="after")
    def _check_relative_scale(self) -> Self:
        # relative effect = (treated mean − control mean) / control mean
        if isinstance(self.data, Estimates) and self.report.scale == "relative":
            raise ValueError('report.scale = "relative" needs the control\'s mean, which published estimates lack')
        return self
