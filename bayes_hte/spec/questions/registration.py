"""`Registration`: what was declared before the test, as a lock file holds it, and what has changed since.

plan.toml ──register──► plan.lock.toml ──compare──► registered, or exploratory and why, of every question

Nothing here reads a clock or writes a file: the same plan, lock and looks give the same answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from bayes_hte._support.phrases import quote_names, write_count
from bayes_hte._support.toml_text import write_toml_document, write_toml_value
from bayes_hte.errors import PlanError
from bayes_hte.spec.data_forms import NonEmptyText, PlanTable
from bayes_hte.spec.error_messages import ExplainedTable
from bayes_hte.spec.files import read_spec_file
from bayes_hte.spec.plan import Plan
from bayes_hte.spec.questions.list_questions import (
    PlannedQuestion,
    QuestionKey,
    list_breakdowns,
    list_metrics,
    list_questions,
)
from bayes_hte.spec.questions.planned_metric import name_breakdown
from bayes_hte.spec.rule import Rule, settle_matters

LOCK_FORMAT: Final = "bayes_hte lock 1"
LOCK_ENDING: Final = ".lock.toml"
LOOKS_ENDING: Final = ".looks.toml"
MAX_DIMENSIONS: Final = 5
"""Good practice declares three to five: with more, some segment differs by luck, and nobody knows which was meant."""
KEYS_WITHOUT_BEARING: Final = frozenset(
    {
        *("title", "question", "source", "report.unit"),
        *("data.path", "data.decimal", "data.connection", "data.table", "data.encoding"),
    }
)
"""Keys that change neither what is asked nor a number: where the data lie is often known only after the test."""
_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

HEAD: Final = """\
# What was declared before the data were seen. Written by `bayes-hte register`; commit it with the plan.
# A run compares the plan with this file and calls a finding registered only if its question stands here unchanged.
"""
LOOKS_HEAD: Final = """\
# The sets of data that were analysed under the lock beside this file, one entry each; written by every run.
"""


class Registration(ExplainedTable, PlanTable):
    """The content of a lock file.

    Attributes
    ----------
    registered_on : datetime
        With its time zone.
    plan_file : str
        Name of the plan's file, without its folder.
    plan_sha256 : str
    models : dict
        SHA-256 of each model's file, by the name that the plan has for it.
    breakdowns, metrics, looks
        What is asked, by what, and how often.
    rule : dict
        What must hold before somebody acts, with its defaults written out.
    plan : Plan
        The whole plan, to show what has changed.
    """

    error_class: ClassVar = PlanError

    format: Literal["bayes_hte lock 1"] = Field(description="The version of the lock.")
    registered_on: datetime = Field(description="When the plan was registered.")
    plan_file: NonEmptyText = Field(description="The name of the plan's file.")
    plan_sha256: _Hash = Field(description="SHA-256 of the plan's file.")
    looks: Annotated[int, Field(ge=1)] = Field(description="How often the data are analysed while they come in.")
    breakdowns: tuple[tuple[NonEmptyText, ...], ...] = Field(description="The declared sets of dimensions.")
    models: dict[NonEmptyText, _Hash] = Field(description="SHA-256 of each model's file.")
    metrics: tuple[dict[str, Any], ...] = Field(description="The declared metrics, with everything said of them.")
    rule: dict[str, Any] = Field(description="What must hold before somebody acts, defaults written out.")
    plan: Plan = Field(description="The plan as it was.")


def name_lock_file(plan_file: Path) -> Path:
    """Name the lock of a plan: plan.lock.toml stands beside plan.toml."""
    return plan_file.with_name(f"{plan_file.stem}{LOCK_ENDING}")


def name_looks_file(plan_file: Path) -> Path:
    """Name the file that counts looks: plan.looks.toml stands beside plan.toml."""
    return plan_file.with_name(f"{plan_file.stem}{LOOKS_ENDING}")


def list_all_dimensions(plan: Plan) -> list[str]:
    """List the dimensions of all breakdowns of a plan, each once."""
    return list(dict.fromkeys(name for dimensions in list_breakdowns(plan) for name in dimensions))


def list_declaration_doubts(plan: Plan) -> list[str]:
    """List what is doubtful about what a plan declares: so far, too many dimensions."""
    # Levels do not count: a dimension of fifty countries is one question, five dimensions are thirty-one.
    dimensions = list_all_dimensions(plan)
    if len(dimensions) <= MAX_DIMENSIONS:
        return []
    return [
        f"the plan declares {len(dimensions)} dimensions ({quote_names(dimensions)}): with more than {MAX_DIMENSIONS} "
        "some segment differs by luck; keep those that a decision hangs on, and explore the others on half of the data"
    ]


def choose_rule(plan: Plan) -> Rule:
    """Choose the rule of a plan: without [decision] the defaults hold, so that to write them out changes nothing."""
    if plan.decision is not None:
        return plan.decision
    return Rule() if plan.metrics is not None else settle_matters(Rule(), plan.matters)


def declare_plan(
    plan: Plan, *, plan_file: str, plan_sha256: str, models: Mapping[str, str], registered_on: datetime
) -> Registration:
    """Declare a plan: the content of its lock."""
    rule = choose_rule(plan)
    return Registration(
        format=LOCK_FORMAT,
        registered_on=registered_on,
        plan_file=plan_file,
        plan_sha256=plan_sha256,
        looks=rule.looks,
        breakdowns=tuple(list_breakdowns(plan)),
        models=dict(models),
        metrics=tuple(metric.model_dump(mode="json", exclude_none=True) for metric in list_metrics(plan)),
        rule=rule.model_dump(mode="json", exclude_none=True),
        plan=plan,
    )


def write_lock(registration: Registration) -> str:
    """Write a registration as the text of a lock file, for people to read and `read_lock` to read back."""
    content = registration.model_dump(exclude_none=True)
    # The whole plan is there for differences; what it leaves at a default stays so in the version that reads it.
    # So a later version that has another default compares with its own.
    content["plan"] = registration.plan.model_dump(exclude_unset=True, exclude_none=True)
    return f"{HEAD}{write_toml_document(content)}"


def read_lock(lock_file: Path, plan_file: str) -> Registration:
    """Read a lock, and check that it is this plan's.

    Raises
    ------
    PlanError
        If it is no lock, was changed by hand into something else, or was written for another plan.
    """
    # A closed schema: a misspelt key in a lock is an error, as in a plan.
    registration = read_spec_file(lock_file, Registration, PlanError)
    if registration.plan_file != plan_file:
        raise PlanError(
            f"{lock_file} was written for {registration.plan_file}, not for {plan_file}: register this plan, or move "
            "the lock to the plan that it belongs to"
        )
    derived = declare_plan(
        registration.plan,
        plan_file=plan_file,
        plan_sha256=registration.plan_sha256,
        models=registration.models,
        registered_on=registration.registered_on,
    )
    # What stands at the top follows from the plan below it: whoever reads only the top must not read something else.
    for name in ("looks", "breakdowns", "metrics", "rule"):
        if getattr(registration, name) != getattr(derived, name):
            raise PlanError(
                f"{lock_file} contradicts itself: its {name} are not those of the plan in it, so it was changed by "
                "hand; restore it from the commit that it was written in, or register anew"
            )
    return registration


@dataclass(frozen=True, slots=True)
class Look:
    """One set of data that was analysed.

    Attributes
    ----------
    seen_on : datetime
    data : dict
        What tells these data from others: units by arm where they are known, else their SHA-256.
    """

    seen_on: datetime
    data: dict[str, Any]


def write_looks(looks: Sequence[Look]) -> str:
    """Write the looks taken so far as the text of their file."""
    return LOOKS_HEAD + write_toml_document({"looks": [{"seen_on": look.seen_on, "data": look.data} for look in looks]})


class LookRecord(PlanTable):
    """An entry of the file of looks."""

    seen_on: datetime = Field(description="When these data were first analysed.")
    data: dict[str, Any] = Field(description="What tells these data from others.")


class LookFile(ExplainedTable, PlanTable):
    """The file of looks."""

    error_class: ClassVar = PlanError

    looks: tuple[LookRecord, ...] = Field(description="The sets of data that were analysed, the first ones first.")


def read_looks(looks_file: Path) -> list[Look]:
    """Read the looks taken so far; none where the file is not there.

    Raises
    ------
    PlanError
        If the file is none of looks.
    """
    if not looks_file.exists():
        return []
    try:
        content = read_spec_file(looks_file, LookFile, PlanError)
    except PlanError as error:
        raise PlanError(f"{error}; restore it from a commit: without it nobody can count the looks") from error
    return [Look(entry.seen_on, dict(entry.data)) for entry in content.looks]


def add_look(looks: Sequence[Look], data: Mapping[str, Any], seen_on: datetime) -> list[Look]:
    """Add a look, unless the same data were analysed before: to run a plan again is no second look."""
    # A repeated run shows what was seen already: nobody gets a second chance from it.
    if any(look.data == dict(data) for look in looks):
        return list(looks)
    return [*looks, Look(seen_on, dict(data))]


@dataclass(frozen=True, slots=True)
class RegistrationStatus:
    """Whether one finding was registered; computed, never claimed.

    Attributes
    ----------
    registered : bool
    reasons : tuple of str
        Why not, as sentences without a full stop; none where it was.
    changes : tuple of str
        All keys of the plan that differ from the lock, as "key: was → is", whether they bear on this finding or not.
    registered_on : str
        Date of the lock; "" where there is none.
    """

    registered: bool
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    registered_on: str = ""

    def __bool__(self) -> bool:
        """Tell whether the finding was registered."""
        return self.registered

    def __str__(self) -> str:
        """Write the one word."""
        return "registered" if self.registered else "exploratory"

    def describe(self) -> str:
        """Describe the status in sentences, for a report."""
        if self.registered:
            unrelated = f" Changed since, without bearing on it: {'; '.join(self.changes)}." if self.changes else ""
            return (
                f"Registered: the lock of {self.registered_on} declares this metric, breakdown and rule, and nothing "
                f"that bears on them has changed.{unrelated}"
            )
        return f"Exploratory: {'; '.join(self.reasons)}. Replicate before acting on one of these segments."


NO_PLAN: Final = RegistrationStatus(False, ("there is no plan file that says what was asked before the test",))
NO_LOCK: Final = (
    "no lock shows that this was asked before the data were seen (`bayes-hte register` writes one before a test)"
)


@dataclass(frozen=True, slots=True)
class RunCircumstances:
    """What a run knows beside its plan: the hashes of the models' files, and the looks taken with this one.

    Attributes
    ----------
    models : mapping
        SHA-256 of each model's file, by the name that the plan has for it.
    look_count : int
        Different sets of data analysed so far, these included.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    look_count: int = 1


def judge_registration(
    plan: Plan, lock: Registration | None, circumstances: RunCircumstances
) -> dict[QuestionKey, RegistrationStatus]:
    """Judge of every question of a plan whether it was registered.

    Parameters
    ----------
    plan : Plan
        As it was run.
    lock : Registration or None
        The one beside the plan; None if there is none.
    circumstances : RunCircumstances

    Returns
    -------
    dict
        Status by metric and dimensions.
    """
    questions = list_questions(plan)
    own_word = ("the plan itself says that the segments were chosen after the data were seen",)
    # Without a lock the plan's own word can only make it worse: "not exploratory" proves nothing.
    if lock is None:
        status = RegistrationStatus(False, own_word if plan.exploratory else (NO_LOCK,))
        return {question.key: status for question in questions}
    changes = _find_changes(_flatten_plan(lock.plan), _flatten_plan(plan))
    # The lock is asked question by question: a breakdown that was added leaves the others as they were.
    locked_questions = {_ignore_order(question.key): question for question in list_questions(lock.plan)}
    statuses = {}
    for question in questions:
        locked_question = locked_questions.get(_ignore_order(question.key))
        # All reasons are said, not the first: who mends one wants to know of the next.
        reasons = (
            *(own_word if plan.exploratory else ()),
            *_explain_question(question, locked_question, lock, changes),
            *_explain_model(question.plan.model, lock, circumstances.models),
            *_explain_looks(lock.looks, circumstances.look_count),
        )
        statuses[question.key] = RegistrationStatus(not reasons, reasons, tuple(changes.values()), _write_date(lock))
    return statuses


def list_dropped_questions(plan: Plan, lock: Registration | None) -> list[QuestionKey]:
    """List what was registered and is not asked any more: a reader of the rest should know of it."""
    if lock is None:
        return []
    # Five metrics registered and the best two shown is selection too.
    asked = {_ignore_order(question.key) for question in list_questions(plan)}
    return [question.key for question in list_questions(lock.plan) if _ignore_order(question.key) not in asked]


def _ignore_order(key: QuestionKey) -> tuple[str, frozenset[str]]:
    """Take device × country and country × device for the same segments."""
    return key[0], frozenset(key[1])


def _explain_question(
    question: PlannedQuestion,
    locked_question: PlannedQuestion | None,
    lock: Registration,
    plan_changes: Mapping[str, str],
) -> list[str]:
    """Explain why a question is not the registered one; nothing where it is."""
    if locked_question is None:
        # The metric goes first: without it there is no breakdown of it either.
        declared_names = [metric["name"] for metric in lock.metrics]
        if question.metric.name not in declared_names:
            return [f"the lock has no metric {question.metric.name!r}; it has {quote_names(declared_names)}"]
        declared = list(map(name_breakdown, lock.breakdowns))
        return [f"the lock has no breakdown {name_breakdown(question.dimensions)!r}; it has {quote_names(declared)}"]
    date = _write_date(lock)
    own_changes = _find_changes(_flatten_question(locked_question), _flatten_question(question))
    if not own_changes:
        return []
    # As the plan's own keys say it; the plan of one question repeats them in other places.
    shown_changes = [text for key, text in plan_changes.items() if _bears_on(key, question.metric.name)] or list(
        own_changes.values()
    )
    return [f"the plan has changed since {date}: {'; '.join(shown_changes)}"]


def _bears_on(key: str, metric_name: str) -> bool:
    """Tell whether a key of a plan may bear on the questions of a metric: not those of others, or of breakdowns."""
    if key in KEYS_WITHOUT_BEARING or key in ("breakdowns", "data.segments"):
        return False
    return not key.startswith("metrics.") or key.startswith(f"metrics.{metric_name}.")


def _explain_model(model: str, lock: Registration, hash_by_model: Mapping[str, str]) -> list[str]:
    """Explain that the model's file is another one now; another name is a change of the plan."""
    # Hashes are of files: a comment counts, as nobody can tell from a hash what changed.
    was, now = lock.models.get(model), hash_by_model.get(model)
    if was is None or now is None or was == now:
        return []
    return [f"the file of the model {model!r} has changed: SHA-256 {was[:12]}… → {now[:12]}…"]


def _explain_looks(planned_looks: int, look_count: int) -> list[str]:
    if look_count <= planned_looks:
        return []
    planned_text = write_count(planned_looks, "look was planned", "looks were planned")
    return [f"{planned_text}, and this is look {look_count}: a finding may be one that came and went"]


def compare_plans(was: Plan, now: Plan) -> list[str]:
    """Compare two plans key by key.

    Returns
    -------
    list of str
        Every key that differs, as "key: was → is"; a key that is not stated has its default.

    Examples
    --------
    >>> from bayes_hte import Plan
    >>> data = {"outcome": "bought", "arm": "arm", "control": "old", "segments": ["device"]}
    >>> was = Plan(title="t", model="conversion", data=data)
    >>> compare_plans(was, Plan(title="t", model="conversion", data=data, report={"ci_prob": 0.9}))
    ['report.ci_prob: 0.95 → 0.9']
    """
    return list(_find_changes(_flatten_plan(was), _flatten_plan(now)).values())


def _find_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Find the keys that differ, each with "key: was → is"."""
    return {
        key: f"{key}: {_write_value(was.get(key))} → {_write_value(now.get(key))}"
        for key in dict.fromkeys((*was, *now))
        if was.get(key) != now.get(key)
    }


def _write_date(lock: Registration) -> str:
    return f"{lock.registered_on:%Y-%m-%d %H:%M %Z}"


def _write_value(value: Any) -> str:
    return "not stated" if value is None else write_toml_value(value)


def _flatten_plan(plan: Plan) -> dict[str, Any]:
    """Flatten a plan to dotted keys; a metric is named, so that its place in the list means nothing."""
    # Defaults are written out, so that a key which states its default is no change.
    content = plan.model_dump(exclude={"metrics", "decision"}, exclude_none=True)
    content["decision"] = choose_rule(plan).model_dump(exclude_none=True)
    content["metrics"] = {metric.name: metric.model_dump(exclude_none=True) for metric in plan.metrics or ()}
    return _flatten_table(content)


def _flatten_question(question: PlannedQuestion) -> dict[str, Any]:
    """Flatten what bears on one question; its metric's options stand in the tables of its own plan."""
    plan, metric = question.plan, question.metric
    content = _flatten_plan(plan.model_copy(update={"decision": question.rule})) | {
        "role": metric.role,
        "margin": metric.margin,
    }
    return {
        key: value
        for key, value in content.items()
        # The name and the dimensions are what the question was found by.
        if key not in KEYS_WITHOUT_BEARING and key != "data.segments" and not key.startswith(("metrics.", "breakdowns"))
    }


def _flatten_table(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        # An empty table says something, and has no keys to say it by.
        if isinstance(value, Mapping) and value:
            flat |= _flatten_table(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
