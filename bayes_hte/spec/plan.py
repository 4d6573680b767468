"""`Plan`: what one experiment asks. The data, the arms, the declared segments, the model, the reporting."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import holds_password
from bayes_hte.errors import PlanError
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.data_forms import (
    DEFAULT_FORM,
    ColumnNames,
    CountFromTwo,
    DataTable,
    Estimates,
    FiniteNumber,
    NonEmptyText,
    PlanTable,
    Rows,
    TrueOrFalse,
    WholeNumber,
)
from bayes_hte.spec.error_messages import ExplainedTable
from bayes_hte.spec.family_rules import UnitVariance
from bayes_hte.spec.questions.planned_metric import (
    BreakdownList,
    PlannedMetric,
    build_metric_rule,
    check_breakdowns,
    check_metrics,
    find_cost_doubt,
)
from bayes_hte.spec.rule import Rule, settle_call_prob, settle_matters

SamplerName = Literal["auto", "exact", "nuts"]


class Sampling(PlanTable):
    """How the posterior is drawn: a run with the same seed and versions gives the same numbers."""

    sampler: SamplerName = Field(
        default="auto",
        description="`exact` computes the posterior in a fraction of a second, `nuts` samples it by MCMC; `auto` is "
        "exact where that can be certified, else nuts.",
        examples=["nuts"],
    )
    # Monte-Carlo error of an end of a 95 % interval, in SDs: √(0.025 · 0.975 / draws) / φ(1.96), 4 % with 4000 draws.
    # With 400 each end has only ten draws beyond it.
    draws: Annotated[WholeNumber, Field(ge=400, le=1_000_000)] = Field(
        default=4000, description="Posterior draws in all.", examples=[10_000]
    )
    seed: Annotated[WholeNumber, Field(ge=0)] = Field(
        default=1, description="The only source of randomness.", examples=[20260302]
    )


class Reporting(PlanTable):
    """How effects are shown, and what is called a finding."""

    scale: EffectScale = Field(
        default="absolute",
        description="`absolute`: difference of means or probabilities; `relative`: that difference as a share of the "
        "control's mean; `link`: the scale of the model, such as log odds.",
        examples=["relative"],
    )
    # An interval that is wrong as often as right is none to act on, and one of 100 % has no ends.
    ci_prob: Annotated[FiniteNumber, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="Probability of every interval.", examples=[0.9]
    )
    rope: Annotated[FiniteNumber, Field(gt=0)] | None = Field(
        default=None,
        description="The smallest effect that matters, on `scale` (0.02 on the relative scale is 2 %): adds to every "
        "segment the probabilities that its effect is too small to matter, a benefit, and a harm, which add up to 1; "
        "verdicts follow these three.",
        examples=[0.002],
    )
    unit: str = Field(
        default="",
        description="What an absolute effect counts; shown beside every number.",
        examples=["USD per customer"],
    )
    higher_is_better: TrueOrFalse | None = Field(
        default=None,
        description="`false` where the outcome is bad (deaths, cancellations, costs): helps and harms, best and worst "
        "then turn round. Where it is not stated, higher is taken as better, and an outcome whose name or whose rare "
        "events make that doubtful is asked about: until then no effect is called help or harm.",
        examples=[False],
    )
    # The report words a probability below 0.8 as no tendency at all: such a sign cannot be called.
    call_prob: Annotated[FiniteNumber, Field(ge=0.8, lt=1)] | None = Field(
        default=None,
        description="A segment is said to be helped, harmed, or affected too little to matter where the probability "
        "of that is above this; by default where the interval shows it, (1 + ci_prob) / 2, which is 0.975 for 95 %.",
        examples=[0.99],
    )


class Privacy(PlanTable):
    """What is done about small cells before anything is written."""

    min_units: CountFromTwo = Field(
        description="A segment is small if an arm has fewer units than this, but some.", examples=[10]
    )
    # The words and the default of `cells.protect`.
    small: Literal["suppress", "merge"] = Field(
        default="suppress",
        description="`suppress` leaves small segments out, `merge` puts them together in one.",
        examples=["merge"],
    )


class SegmentTable(PlanTable):
    """A second file with numbers known of each segment as a whole, for models with `covariates`."""

    path: NonEmptyText = Field(
        description="File with one row per segment, relative to the folder of the plan: the columns of the dimensions, "
        "and of the covariates.",
        examples=["sites.csv"],
    )
    columns: ColumnNames = Field(description="Columns of the covariates.", examples=[["beds", "staff"], "beds"])


class Plan(ExplainedTable, PlanTable):
    """The analysis of one experiment.

    Examples
    --------
    >>> from bayes_hte import Plan
    >>> plan = Plan(
    ...     title="New checkout",
    ...     model="conversion",
    ...     data={"path": "orders.csv", "outcome": "bought", "arm": "arm", "control": "old", "segments": ["device"]},
    ... )
    >>> plan.data.form, plan.report.ci_prob
    ('rows', 0.95)
    """

    error_class: ClassVar = PlanError

    title: NonEmptyText = Field(description="One line at the top of the report.", examples=["New checkout"])
    question: str = Field(
        default="",
        description="What the people who ran the experiment want to know.",
        examples=["For whom does the new checkout sell more?"],
    )
    exploratory: TrueOrFalse = Field(
        default=False,
        description="`true` if the segments were chosen after the data were seen; the report then says so.",
        examples=[True],
    )
    source: str = Field(
        default="",
        description="Where the data come from; shown at the end of the report.",
        examples=["Web shop, 2 to 15 March 2026"],
    )
    model: NonEmptyText = Field(
        description="The name of a shipped model, or the path of a model file, relative to the folder of the plan.",
        examples=["conversion", "models/mine.toml"],
    )
    planned_effect: FiniteNumber | None = Field(
        default=None,
        description="The effect that the experiment was planned for, on the scale of the report: the between-segment "
        "SD then has the prior HalfNormal(planned effect, on the link scale) in place of the model file's.",
        examples=[0.01],
    )
    unit_variance: UnitVariance | None = Field(
        default=None,
        description="In place of the key of the model file, which says what the values mean: for family `mean`, "
        "whether the cells of an arm share one variance over units.",
        examples=["per_cell"],
    )
    breakdowns: BreakdownList | None = None
    data: DataTable = Field(description="Where the data are, and what their columns mean.")
    metrics: Annotated[tuple[PlannedMetric, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="The outcomes, where there are several: goals and guardrails, each with its model and options. "
        "Without it `data.outcome` and `model` are the one goal.",
    )
    covariates: SegmentTable | None = Field(
        default=None,
        description="Numbers known of each segment as a whole, in a file of their own; nothing without it.",
    )
    privacy: Privacy | None = Field(
        default=None, description="What is done about small cells before anything is written; nothing without it."
    )
    sampling: Sampling = Field(default_factory=Sampling, description="How the posterior is drawn.")
    report: Reporting = Field(default_factory=Reporting, description="How effects are shown, and which are called.")
    decision: Rule | None = Field(
        default=None,
        description="What must hold, and how probably, before a segment is called `ship`, `stop` or `equivalent`; no "
        "decisions are reported without it.",
    )

    @property
    def matters(self) -> float | None:
        """The smallest effect that matters, on the scale of the report: ``report.rope``, else the rule's."""
        if self.report.rope is not None or self.decision is None:
            return self.report.rope
        return self.decision.matters

    @model_validator(mode="before")
    @classmethod
    def _default_form_to_rows(cls, content: Any) -> Any:
        # Before anything that may quote a value: a plan is written into reports and saved fits.
        if holds_password(content):
            raise ValueError(
                "a URL with a password stands in the plan (it is not shown); put it into an environment variable, name "
                "that as data.connection, and change the password if others have seen the plan"
            )
        if isinstance(content, dict) and isinstance(content.get("data"), dict):
            return {**content, "data": {"form": DEFAULT_FORM, **content["data"]}}
        return content

    @model_validator(mode="before")
    @classmethod
    def _fill_first_question(cls, content: Any) -> Any:
        """Let the first metric and breakdown stand where a plan with one question names outcome, model and segments."""
        if not isinstance(content, dict):
            return content
        metrics, breakdowns = (_list_entries(content.get(key)) for key in ("metrics", "breakdowns"))
        metric_tables = [dict(metric) for metric in metrics if isinstance(metric, Mapping | PlannedMetric)]
        # One metric without a model needs the plan's: that of another metric is no default for it.
        models = [table.get("model") for table in metric_tables]
        if content.get("model") is None and models and None not in models:
            content = {**content, "model": models[0]}
        if isinstance(data := content.get("data"), Mapping):
            implied = {
                "outcome": metric_tables[0].get("outcome") if metric_tables else None,
                "segments": breakdowns[0] if breakdowns else None,
            }
            implied = {key: value for key, value in implied.items() if value is not None and data.get(key) is None}
            content = {**content, "data": {**data, **implied}}
        return content

    @model_validator(mode="after")
    def _settle_rule(self) -> Self:
        if self.decision is None:
            return self
        if self.metrics is not None:
            # Each metric has a size of its own, so the rule is settled where its question is made: here for its errors.
            for metric in self.metrics:
                build_metric_rule(self.decision, metric, self.matters, self.report.call_prob)
        else:
            # Nothing but the validation of this very plan may write to it.
            settled_rule = settle_matters(self.decision, self.report.rope)
            settled_rule = settle_call_prob(settled_rule, self.report.call_prob, self.decision.model_fields_set)
            object.__setattr__(self, "decision", settled_rule)
        return self

    @model_validator(mode="after")
    def _check_relative_scale(self) -> Self:
        # relative effect = (treated mean − control mean) / control mean
        if isinstance(self.data, Estimates) and self.report.scale == "relative":
            raise ValueError('report.scale = "relative" needs the control\'s mean, which published estimates lack')
        return self

    @model_validator(mode="after")
    def _check_questions(self) -> Self:
        if self.metrics is not None:
            if not isinstance(self.data, Rows):
                raise ValueError(
                    f'[[metrics]] are measured on rows of units, and data.form = "{self.data.form}" has one outcome: '
                    "write a plan for each outcome, or give the rows"
                )
            check_metrics(self.metrics)
            self._check_cost()
        if self.breakdowns is not None:
            check_breakdowns(self.breakdowns)
        self._check_cut_dimensions()
        return self

    def _check_cost(self) -> None:
        """Raise ValueError if the rule's cost has no one unit for all goals."""
        rule = self.decision or Rule()
        goals = [metric for metric in self.metrics or () if metric.role == "goal"]
        values = {goal.name: rule.value if goal.value is None else goal.value for goal in goals}
        if doubt := find_cost_doubt(rule.cost, values):
            raise ValueError(doubt)

    def _check_cut_dimensions(self) -> None:
        """Raise ValueError if a cut is of no dimension of any breakdown: each breakdown takes those of its own."""
        dimensions = {name for names in self.breakdowns or () for name in names} | {*(self.data.segments or ())}
        for table_name, table in [
            ("data", self.data),
            *((f"metric {each.name!r}", each) for each in self.metrics or ()),
        ]:
            for key in ("bins", "rare"):
                cuts = getattr(table, key, None)
                unknown = [name for name in cuts if name not in dimensions] if isinstance(cuts, Mapping) else []
                if unknown and (self.breakdowns is not None or table is not self.data):
                    raise ValueError(
                        f"{key} of {table_name} names {unknown[0]!r}, which is in no breakdown; dimensions are "
                        f"{quote_names(sorted(dimensions))}"
                    )


def _list_entries(toml_value: Any) -> list[Any]:
    """List the entries of what should be a list; that a single text is none is told by the key's own check."""
    return list(toml_value) if isinstance(toml_value, list | tuple) else [toml_value] if toml_value else []
