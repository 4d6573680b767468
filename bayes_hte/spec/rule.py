"""`Rule`: what must hold, and how probably, before somebody acts on an effect; the table [decision] of a plan."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from bayes_hte.errors import PlanError
from bayes_hte.spec.data_forms import FiniteNumber, PlanTable, WholeNumber, expect_one_of
from bayes_hte.spec.error_messages import ExplainedTable, format_as_toml

MATTERS = "matters"
"""Stands in a rule for the smallest effect that matters, which a plan states once."""
_AnyBenefit = Literal["matters", "-matters"]

# What an action rests on must be at least as probable as not; draws never make anything certain.
_ActionProbability = Annotated[FiniteNumber, Field(ge=0.5, lt=1)]
_Threshold = Annotated[
    FiniteNumber | _AnyBenefit,
    expect_one_of('a number, or "matters" or "-matters" for the smallest effect that matters and its mirror image'),
]
_HalfWidth = Annotated[
    Annotated[FiniteNumber, Field(gt=0)] | Literal["matters"],
    expect_one_of('"matters" or a number above 0, the half-width of what is too small to matter on both sides of 0'),
]
_PROBABILITY = Field(description="How probable that must be, from 0.5 to below 1.", examples=[0.9])


class ShipCondition(PlanTable):
    """A benefit above a threshold that must be probable before anything is shipped."""

    above: _Threshold = Field(
        description="The benefit exceeds this, on the scale of the report: a number, or `matters` for the smallest "
        "effect that matters.",
        examples=[0.0, "matters"],
    )
    p: _ActionProbability = _PROBABILITY


class StopCondition(PlanTable):
    """A benefit below a threshold, which is a harm below 0, that must be probable before a change is stopped."""

    below: _Threshold = Field(
        description="The benefit is less than this, on the scale of the report: a number, or `-matters` for a harm of "
        "the smallest size that matters.",
        examples=[0.0, "-matters"],
    )
    p: _ActionProbability = _PROBABILITY


class EquivalenceCondition(PlanTable):
    """How probable it must be that an effect is too small to matter before nobody asks any more."""

    within: _HalfWidth = Field(
        description="The effect is no further from 0 than this: a number, or `matters`.", examples=["matters"]
    )
    p: _ActionProbability = _PROBABILITY


class GuardrailCondition(PlanTable):
    """How probable it must be that a guardrail is harmed by less than its margin before anything is shipped."""

    p: _ActionProbability = _PROBABILITY


def _name_pair(example: str) -> BeforeValidator:
    """Take a pair of Python, ``(0.0, 0.95)``, for the table that a plan writes, ``{ above = 0.0, p = 0.95 }``."""
    first_key = example.split()[1]

    def name_pair(stated: Any) -> Any:
        if isinstance(stated, list | tuple) and len(stated) == 2:
            return {first_key: stated[0], "p": stated[1]}
        if not isinstance(stated, Mapping | BaseModel):
            raise ValueError(f"should be a table, as in {example}, not {format_as_toml(stated)}")
        return stated

    return BeforeValidator(name_pair)


_ShipConditions = tuple[Annotated[ShipCondition, _name_pair("{ above = 0.0, p = 0.95 }")], ...]
_StopConditions = tuple[Annotated[StopCondition, _name_pair("{ below = 0.0, p = 0.95 }")], ...]

DEFAULT_SHIP = (ShipCondition(above=0.0, p=0.95), ShipCondition(above="matters", p=0.5))
DEFAULT_STOP = (StopCondition(below=0.0, p=0.95),)
DEFAULT_EQUIVALENCE = EquivalenceCondition(within="matters", p=0.9)
DEFAULT_GUARDRAIL = GuardrailCondition(p=0.9)


class Rule(ExplainedTable, PlanTable):
    """What must hold, and how probably, before an effect is shipped, stopped or called too small to matter.

    *Benefit* is the effect in the direction in which the outcome is better. All conditions of an action must hold.
    Python may write a condition as a pair, ``(0.0, 0.95)``.

    Attributes
    ----------
    ship : tuple of ShipCondition
        By default the benefit is above 0 with probability .95, and above `matters` with .5: surely helps, and
        probably enough. Where no smallest effect that matters is stated anywhere, the second is left out.
    stop : tuple of StopCondition
        By default the benefit is below 0 with probability .95.
    equivalent : EquivalenceCondition or None
        By default the effect is smaller than `matters` with probability .9; never called without `matters`.
    guardrail : GuardrailCondition
        By default a guardrail's harm is below its margin with probability .9.
    matters : float, optional
        The smallest effect that matters, on the scale of the report: the same number as ``report.rope``.
    cost : float
        Of one treated unit: in money where `value` is stated, else in units of the outcome.
    value : float, optional
        Money that one unit of absolute benefit is worth, per unit treated.
    looks : int
        Planned analyses while data come in.
    wrong_calls : float
        Wanted share of wrong calls among the calls.

    Raises
    ------
    PlanError
        If a key or a value is wrong, or conditions contradict each other; the message says which.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> rule = hte.Rule(ship=[(0.0, 0.95), ("matters", 0.5)], matters=0.002)
    >>> rule.ship[1].above, rule.ship[1].p, rule == hte.Rule(matters=0.002)
    ('matters', 0.5, True)
    """

    error_class: ClassVar = PlanError

    if TYPE_CHECKING:  # pairs stand for conditions, which a type checker would read from the fields only

        def __init__(self, **content: Any) -> None: ...

    ship: Annotated[_ShipConditions, Field(min_length=1)] = Field(
        default=DEFAULT_SHIP,
        description="What must hold before the change is shipped to a segment: all of these. By default surely helps, "
        "and probably enough.",
        examples=[[{"above": 0.0, "p": 0.9}]],
    )
    stop: Annotated[_StopConditions, Field(min_length=1)] = Field(
        default=DEFAULT_STOP,
        description="What must hold before the change is stopped in a segment, because it harms: all of these.",
        examples=[[{"below": 0.0, "p": 0.9}]],
    )
    equivalent: Annotated[EquivalenceCondition, _name_pair('{ within = "matters", p = 0.9 }')] | None = Field(
        default=DEFAULT_EQUIVALENCE,
        description="What must hold before an effect is called too small to matter either way.",
        examples=[{"within": "matters", "p": 0.95}],
    )
    guardrail: GuardrailCondition = Field(
        default=DEFAULT_GUARDRAIL,
        description="How probable it must be, of every guardrail, that its harm is below its margin before anything is "
        "shipped.",
        examples=[{"p": 0.95}],
    )
    matters: Annotated[FiniteNumber, Field(gt=0)] | None = Field(
        default=None,
        description="The smallest effect that matters, on the scale of the report: the same number as `report.rope`, "
        "and stated in one of the two places.",
        examples=[0.002],
    )
    cost: FiniteNumber = Field(
        default=0.0,
        description="What one treated unit costs: in money if `value` is stated, else in units of the outcome.",
        examples=[0.05],
    )
    value: Annotated[FiniteNumber, Field(gt=0)] | None = Field(
        default=None,
        description="What one unit of absolute benefit is worth, in money per treated unit.",
        examples=[38.0],
    )
    looks: Annotated[WholeNumber, Field(ge=1)] = Field(
        default=1, description="How often the data are analysed while they come in.", examples=[4]
    )
    wrong_calls: Annotated[FiniteNumber, Field(gt=0, lt=1)] = Field(
        default=0.05,
        description="Wanted share of wrong calls (shipped without benefit, stopped without harm) among the calls.",
        examples=[0.1],
    )

    @model_validator(mode="after")
    def _check_cost(self) -> Self:
        if self.cost < 0 and self.value is None:
            raise ValueError(
                f"a cost of {self.cost:g} in units of the outcome would be a benefit of its own; a treatment that "
                "saves money needs `value`, and then the cost is in money"
            )
        return self

    @model_validator(mode="after")
    def _check_exclusive_actions(self) -> Self:
        # Where the size that matters is still unknown, it may be anything above 0: the smallest and the largest decide.
        sizes = (self.matters,) if self.matters is not None else (1e-300, 1e300)
        if not any(exclude_each_other(self.ship, self.stop, size) for size in sizes):
            ship_text = " and ".join(f"above {condition.above} with p = {condition.p:g}" for condition in self.ship)
            stop_text = " and ".join(f"below {condition.below} with p = {condition.p:g}" for condition in self.stop)
            raise ValueError(
                f"ship (a benefit {ship_text}) and stop ({stop_text}) can both hold for the same effect: let stop ask "
                "for a benefit below what ship asks for, with probabilities that add up to more than 1"
            )
        return self


def exclude_each_other(
    ship_conditions: Sequence[ShipCondition], stop_conditions: Sequence[StopCondition], matters: float
) -> bool:
    """Tell whether no effect can meet all conditions of shipping and all of stopping.

    Examples
    --------
    >>> ship, stop = ShipCondition(above=0.0, p=0.9), StopCondition(below=0.0, p=0.9)
    >>> exclude_each_other([ship], [stop], 1.0)
    True
    >>> exclude_each_other([ship], [StopCondition(below=2.0, p=0.9)], 1.0)
    False
    """
    # P(b > a) ≥ p and P(b < c) ≥ q exclude each other exactly where c ≤ a and p + q > 1; a distribution function that
    # meets every pair meets all conditions, as it only has to rise.
    return any(
        resolve_threshold(stop.below, matters) <= resolve_threshold(ship.above, matters) and ship.p + stop.p > 1
        for ship in ship_conditions
        for stop in stop_conditions
    )


def resolve_threshold(threshold: float | str, matters: float) -> float:
    """Resolve a threshold of a rule to a number, on the scale of `matters`."""
    match threshold:
        case "matters":
            return matters
        case "-matters":
            return -matters
    return float(threshold)


def find_size_conditions(rule: Rule, *, stated_only: bool = False) -> list[str]:
    """Find the keys of a rule whose conditions name the smallest effect that matters.

    Parameters
    ----------
    rule : Rule
    stated_only : bool
        Leave out what stands at its default.
    """
    thresholds: dict[str, list[float | str]] = {
        "ship": [condition.above for condition in rule.ship],
        "stop": [condition.below for condition in rule.stop],
        "equivalent": [] if rule.equivalent is None else [rule.equivalent.within],
    }
    return [
        key
        for key, values in thresholds.items()
        if any(isinstance(value, str) for value in values) and (not stated_only or key in rule.model_fields_set)
    ]


def settle_matters(rule: Rule, matters: float | None) -> Rule:
    """Settle the smallest effect that matters in a rule, once it is known whether another place states it.

    Where none does, defaults that name it are left out: every benefit then matters, and nothing is too small.

    Parameters
    ----------
    rule : Rule
    matters : float or None
        As it is stated elsewhere: ``report.rope``, ``matters`` of a metric.

    Raises
    ------
    PlanError
        If both state different numbers, neither does where a condition of the caller's names it, or ship and stop
        can both hold with that number.
    """
    if matters is not None and rule.matters is not None and matters != rule.matters:
        raise PlanError(
            f"the smallest effect that matters is stated twice, as {matters:g} and as {rule.matters:g} in the rule; "
            "state it once"
        )
    # Through the validation again: with the number known, ship and stop may turn out not to exclude each other.
    stated_rule: dict[str, Any] = {key: getattr(rule, key) for key in Rule.model_fields}
    if (settled := rule.matters if matters is None else matters) is not None:
        return Rule(**{**stated_rule, "matters": settled})
    if nameless := find_size_conditions(rule, stated_only=True):
        verb = "names" if len(nameless) == 1 else "name"
        raise PlanError(
            f"{' and '.join(nameless)} of the rule {verb} the smallest effect that matters, and none is stated: add "
            "matters = …, the number"
        )
    # The defaults of ship and equivalent name it; that of stop does not.
    defaults: dict[str, Any] = {"ship": DEFAULT_SHIP[:1], "equivalent": None}
    return Rule(**{**stated_rule, **{key: defaults[key] for key in find_size_conditions(rule)}})


def find_sign_probabilities(rule: Rule) -> dict[str, float]:
    """Find how probable a benefit above 0 must be to ship, and one below 0 to stop, by the key that says so."""
    ship = [condition.p for condition in rule.ship if condition.above == 0]
    stop = [condition.p for condition in rule.stop if condition.below == 0]
    return {key: max(needed) for key, needed in (("ship", ship), ("stop", stop)) if needed}


def settle_call_prob(rule: Rule, call_prob: float | None, stated_keys: Collection[str]) -> Rule:
    """Settle in a rule how probable a sign must be, where a plan states it as ``report.call_prob``.

    Parameters
    ----------
    rule : Rule
        With the smallest effect that matters settled.
    call_prob : float or None
    stated_keys : collection of str
        Keys of the rule that its author wrote: these do not change.

    Raises
    ------
    PlanError
        If the author's rule states another probability for a sign.
    """
    # Only conditions on the sign change: sizes have probabilities of their own.
    changed: dict[str, Any] = {}
    for key, probability in find_sign_probabilities(rule).items():
        if call_prob is None or probability == call_prob:
            continue
        if key in stated_keys:
            raise PlanError(
                f"report.call_prob is {call_prob:g}, and {key} of the rule calls a sign at {probability:g}: both say "
                "how probable a sign must be, so state one of them"
            )
        changed[key] = tuple(
            condition if _get_limit(condition) != 0 else condition.model_copy(update={"p": call_prob})
            for condition in getattr(rule, key)
        )
    return Rule(**{**{key: getattr(rule, key) for key in Rule.model_fields}, **changed}) if changed else rule


def _get_limit(condition: ShipCondition | StopCondition) -> float | str:
    return condition.above if isinstance(condition, ShipCondition) else condition.below
