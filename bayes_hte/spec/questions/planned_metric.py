"""`PlannedMetric`: one outcome of a plan that has several, the table [[metrics]]; and the breakdowns of a plan."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from bayes_hte._support.phrases import quote_names
from bayes_hte.errors import PlanError
from bayes_hte.spec.data_forms import (
    BalanceColumns,
    ClusterColumn,
    ColumnNames,
    CupedColumns,
    DenominatorColumn,
    DimensionBins,
    ExposureColumn,
    FiniteNumber,
    NonEmptyText,
    OutcomeCap,
    OutcomeCapQuantiles,
    OutcomeColumn,
    PlanTable,
    RareLevels,
    StatedLevels,
    StatisticKind,
    TrueOrFalse,
    UnitColumn,
    WeightsColumn,
)
from bayes_hte.spec.family_rules import UnitVariance
from bayes_hte.spec.rule import Rule, settle_call_prob, settle_matters

MetricRole = Literal["goal", "guardrail"]
DIMENSION_JOINER: Final = " × "
"""What stands between the dimensions in the name of a breakdown."""


class PlannedMetric(PlanTable):
    """One outcome of the experiment: what is measured, by which model, and what is wanted of it.

    What a metric does not say is as [data], [report], [decision] and the top of the plan say it.
    """

    name: NonEmptyText = Field(
        description="What the metric is called in tables, files and the report.", examples=["bought"]
    )
    outcome: OutcomeColumn
    model: NonEmptyText | None = Field(
        default=None,
        description="The name of a shipped model, or the path of a model file; the plan's `model` if nothing is said.",
        examples=["conversion"],
    )
    role: MetricRole = Field(
        default="goal",
        description="A `goal` is to be improved; a `guardrail` must not be harmed by more than its `margin`.",
        examples=["guardrail"],
    )
    matters: Annotated[FiniteNumber, Field(gt=0)] | None = Field(
        default=None,
        description="The smallest effect on this metric that matters, on the scale of the report: what `report.rope` "
        "is where there is one outcome.",
        examples=[0.002],
    )
    value: Annotated[FiniteNumber, Field(gt=0)] | None = Field(
        default=None,
        description="What one unit of absolute benefit in this metric is worth, in money per treated unit.",
        examples=[38.0],
    )
    higher_is_better: TrueOrFalse | None = Field(
        default=None,
        description="`false` where less of it is better (returns, cancellations, costs); a guardrail needs it.",
        examples=[False],
    )
    margin: Annotated[FiniteNumber, Field(gt=0)] | None = Field(
        default=None,
        description="Of a guardrail, which needs it: the harm that is tolerated, on the scale of the report.",
        examples=[0.001],
    )
    effect_unit: NonEmptyText | None = Field(
        default=None,
        description="What an absolute effect counts; shown beside every number, as `report.unit`.",
        examples=["USD per customer"],
    )
    planned_effect: FiniteNumber | None = Field(
        default=None,
        description="The effect that the experiment was planned for, as the key of that name at the top of the plan.",
        examples=[0.01],
    )
    unit_variance: UnitVariance | None = Field(
        default=None,
        description="For family `mean`, whether the cells of an arm share one variance over units.",
        examples=["per_cell"],
    )
    metric: StatisticKind = None
    levels: StatedLevels = None
    exposure: ExposureColumn = None
    denominator: DenominatorColumn = None
    weights: WeightsColumn = None
    cluster: ClusterColumn = None
    cuped: CupedColumns = None
    cap: OutcomeCap = None
    cap_quantile: OutcomeCapQuantiles = None
    bins: DimensionBins = None
    rare: RareLevels = None
    unit: UnitColumn = None
    balance: BalanceColumns = None
    drop_missing: TrueOrFalse | None = Field(
        default=None,
        description="Leave out rows in which a number of this metric or the arm is missing, and say how many.",
        examples=[True],
    )
    fold_labels: TrueOrFalse | None = Field(
        default=None,
        description="Take labels that differ only in case, spaces or Unicode form for one, and say which.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        if self.role == "goal" and self.margin is not None:
            raise ValueError(
                f"the goal {self.name!r} has a margin, which is the harm that a guardrail tolerates: say "
                'role = "guardrail", or delete margin'
            )
        if self.role == "goal":
            return self
        # P(harm < margin) has no meaning without the side of 0 that is harm, and the number.
        missing_keys = []
        if self.higher_is_better is None:
            missing_keys.append("its direction: say higher_is_better = true, or false where less of it is better")
        if self.margin is None:
            missing_keys.append("its margin: say margin = …, the harm that is tolerated on the scale of the report")
        if missing_keys:
            raise ValueError(f"the guardrail {self.name!r} lacks {'; it lacks '.join(missing_keys)}")
        return self


METRIC_DATA_KEYS: Final = (
    *("outcome", "metric", "levels", "exposure", "denominator", "weights", "cluster", "cuped", "cap", "cap_quantile"),
    *("bins", "rare", "unit", "balance", "drop_missing", "fold_labels"),
)
"""Keys of a metric that stand in for those of [data]."""


def name_breakdown(dimensions: Sequence[str]) -> str:
    """Name a breakdown by its dimensions.

    Examples
    --------
    >>> name_breakdown(["device", "customer"])
    'device × customer'
    """
    return DIMENSION_JOINER.join(dimensions)


def check_breakdowns(breakdowns: Sequence[Sequence[str]]) -> None:
    """Raise ValueError if a breakdown has a dimension twice, or is there twice in whatever order."""
    # device × country and country × device are the same segments.
    seen: dict[frozenset[str], Sequence[str]] = {}
    for dimensions in breakdowns:
        if repeated := [name for name in dimensions if list(dimensions).count(name) > 1]:
            raise ValueError(f"the breakdown {list(dimensions)} has {repeated[0]!r} twice; name each dimension once")
        if (first := seen.setdefault(frozenset(dimensions), dimensions)) is not dimensions:
            other_order = "" if tuple(first) == tuple(dimensions) else ", in another order"
            raise ValueError(f"the breakdown {name_breakdown(dimensions)!r} is there twice{other_order}; state it once")


def check_metrics(metrics: Sequence[PlannedMetric]) -> None:
    """Raise ValueError if metrics share a name, there is no goal, or goals want opposite things of one outcome."""
    names = [metric.name for metric in metrics]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the metric {repeated[0]!r} is there twice; give each a name of its own")
    # Guardrails may share an outcome with a goal: how much may be lost where something is to be won.
    goals = [metric for metric in metrics if metric.role == "goal"]
    # The plan of one question has one metric, whatever its role.
    if not goals and len(metrics) > 1:
        raise ValueError('every metric is a guardrail; say role = "goal" of what the change should improve')
    for i, goal in enumerate(goals):
        for other in goals[i + 1 :]:
            directions = {goal.higher_is_better is not False, other.higher_is_better is not False}
            if goal.outcome == other.outcome and goal.denominator == other.denominator and len(directions) == 2:
                raise ValueError(
                    f"the goals {goal.name!r} and {other.name!r} disagree: both measure {goal.outcome!r}, and higher "
                    "is better in one and worse in the other; nothing could improve both, so delete one, or make it a "
                    "guardrail"
                )


def find_cost_doubt(cost: float, goal_values: Mapping[str, float | None]) -> str:
    """Find out why a cost has no one unit for several goals: some have a value in money, or none has; "" where it has.

    Parameters
    ----------
    cost : float
        Of one treated unit.
    goal_values : mapping
        Name of a goal -> what one unit of it is worth in money, None where nobody has said.
    """
    worthless = [name for name, value in goal_values.items() if value is None]
    # Of one goal without a value the cost is in units of its outcome; two outcomes have different ones.
    if not cost or len(goal_values) < 2 or not worthless:
        return ""
    return (
        f"a cost of {cost:g} per treated unit is in money, or in units of one outcome, and there are "
        f"{len(goal_values)} goals: say value = …, what one unit is worth in money, of {quote_names(worthless)}"
    )


def choose_matters(metric: PlannedMetric, plan_matters: float | None) -> float | None:
    """Choose the smallest effect that matters of a metric: its own, a guardrail's margin, else the plan's."""
    # A harm below the margin is tolerated: where nothing else is said, that is what does not matter.
    return next((size for size in (metric.matters, metric.margin, plan_matters) if size is not None), None)


def build_metric_rule(
    rule: Rule, metric: PlannedMetric, plan_matters: float | None, call_prob: float | None = None
) -> Rule:
    """Build the rule for one metric: the plan's, with the size that matters in it and what a unit of it is worth.

    `plan_matters` and `call_prob` are what the plan says of all metrics that say nothing else.

    Raises
    ------
    PlanError
        If the rule names the smallest effect that matters, and neither the metric nor the plan states it, or ship and
        stop can both hold with that number.
    """
    value = rule.value if metric.value is None else metric.value
    # Settled anew, so that sizes of the plan and of the metric are never both in one rule.
    own_rule = rule.model_copy(update={"matters": None, "value": value})
    try:
        settled_rule = settle_matters(own_rule, choose_matters(metric, plan_matters))
        return settle_call_prob(settled_rule, call_prob, rule.model_fields_set)
    except PlanError as error:
        raise PlanError(f"metric {metric.name!r}: {error}") from error


BreakdownList = Annotated[
    Annotated[tuple[ColumnNames, ...], Field(min_length=1)],
    Field(
        description="The sets of dimensions that segments are made of, each analysed on its own: in place of "
        "`data.segments`, or beside it. A list of several dimensions is their combinations.",
        examples=[[["device"], ["country"], ["device", "customer"]]],
    ),
]
