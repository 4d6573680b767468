"""Registered or exploratory is computed from plan, lock, models and looks; nothing else has a say."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from example_plans import GOAL, GUARDRAIL, SPENT, make_content, make_plan
from example_posterior import example_plan

from bayes_hte import Plan, PlanError
from bayes_hte.spec.questions.registration import (
    Look,
    Registration,
    RegistrationStatus,
    RunCircumstances,
    add_look,
    compare_plans,
    declare_plan,
    judge_registration,
    list_declaration_doubts,
    list_dropped_questions,
    read_lock,
    read_looks,
    write_lock,
    write_looks,
)

DAY = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
MODELS = {"conversion": "1" * 64, "metric": "2" * 64}


def lock(plan: Plan) -> Registration:
    return declare_plan(plan, plan_file="plan.toml", plan_sha256="0" * 64, models=MODELS, registered_on=DAY)


def judge(plan: Plan, registered: Plan, looks: int = 1, **models: str) -> dict[Any, RegistrationStatus]:
    return judge_registration(plan, lock(registered), RunCircumstances(MODELS | models, looks))


@pytest.mark.parametrize(
    "plan",
    [
        make_plan(),
        make_plan(decision={"ship": [{"above": "matters", "p": 0.6}], "looks": 3, "wrong_calls": 0.1}),
        example_plan(),
        example_plan(decision={"matters": 0.02}),
        example_plan(decision={"ship": [{"above": 0.0, "p": 0.9}]}, breakdowns=[["a b", 'c"d'], ["é"]]),
    ],
)
def test_a_lock_is_read_as_it_was_written(tmp_path: Path, plan: Plan) -> None:
    file = tmp_path / "plan.lock.toml"
    file.write_text(write_lock(lock(plan)), encoding="utf-8")
    again = read_lock(file, "plan.toml")
    assert again == lock(plan)
    assert all(judge_registration(plan, again, RunCircumstances(MODELS)).values())


def test_a_lock_says_to_people_what_was_declared() -> None:
    text = write_lock(lock(make_plan(decision={"looks": 2})))
    for line in (
        "registered_on = 2026-03-01T09:30:00+00:00", 'breakdowns = [["device"], ["country"], ["device", "customer"]]',
        "looks = 2", 'role = "guardrail"', "margin = 0.02", "[rule]", f'conversion = "{"1" * 64}"',
    ):  # fmt: skip
        assert line in text


def test_without_a_lock_everything_is_exploratory() -> None:
    statuses = judge_registration(make_plan(), None, RunCircumstances())
    assert len(statuses) == 9
    assert not any(statuses.values())
    assert all("no lock shows" in status.describe() for status in statuses.values())


def test_the_plan_s_own_word_can_only_make_it_worse() -> None:
    plan = make_plan(exploratory=True)
    assert not any(judge(plan, plan).values())


def test_what_the_lock_lacks_is_exploratory_and_the_rest_stays_registered() -> None:
    registered = make_plan(metrics=[GOAL, GUARDRAIL], breakdowns=[["device"], ["customer", "device"]])
    statuses = judge(make_plan(), registered)
    assert {key for key, status in statuses.items() if status} == {
        (name, dimensions) for name in ("bought", "returns") for dimensions in [("device",), ("device", "customer")]
    }
    assert "the lock has no metric 'spent'; it has 'bought', 'returns'" in statuses["spent", ("device",)].reasons
    assert "the lock has no breakdown 'country'" in statuses["bought", ("country",)].reasons[0]


@pytest.mark.parametrize(
    ("changes", "shown", "left"),
    [
        ({"metrics": [{**GOAL, "matters": 0.02}, SPENT, GUARDRAIL]}, "metrics.bought.matters: 0.01 → 0.02", 6),
        ({"metrics": [GOAL, SPENT, {**GUARDRAIL, "margin": 0.05}]}, "metrics.returns.margin: 0.02 → 0.05", 6),
        ({"metrics": [GOAL, {**SPENT, "cap": 100}, GUARDRAIL]}, "metrics.spent.cap: 200.0 → 100.0", 6),
        ({"report": {"ci_prob": 0.9}}, "report.ci_prob: 0.95 → 0.9", 0),
        ({"decision": {"wrong_calls": 0.2}}, "decision.wrong_calls: 0.05 → 0.2", 0),
        ({"sampling": {"draws": 400, "seed": 7}}, "sampling.seed: 1 → 7", 0),
        ({"data": {"path": "rows.csv", "arm": "group", "control": "old"}}, 'data.arm: "arm" → "group"', 0),
    ],
)
def test_a_change_is_shown_as_was_and_is_where_it_bears(changes: dict[str, Any], shown: str, left: int) -> None:
    statuses = judge(make_plan(**changes), make_plan())
    assert sum(map(bool, statuses.values())) == left
    changed = [status for status in statuses.values() if not status]
    assert all(f"the plan has changed since 2026-03-01 09:30 UTC: {shown}" in status.reasons[0] for status in changed)
    assert all(shown in status.changes for status in statuses.values())


@pytest.mark.parametrize("changes", [
    {"title": "Newer checkout"}, {"question": "Why?"}, {"source": "shop"}, {"decision": {"looks": 1}},
    {"data": {"path": "other.csv", "arm": "arm", "control": "old"}}, {"metrics": [GUARDRAIL, SPENT, GOAL]},
    {"report": {"ci_prob": 0.95}},
])  # fmt: skip
def test_what_changes_neither_question_nor_number_changes_no_status(changes: dict[str, Any]) -> None:
    assert all(judge(make_plan(**changes), make_plan()).values())


def test_a_changed_model_makes_the_questions_exploratory_that_it_answers() -> None:
    statuses = judge(make_plan(), make_plan(), metric="3" * 64)
    assert {key[0] for key, status in statuses.items() if not status} == {"spent"}
    assert "the file of the model 'metric' has changed: SHA-256 222222222222… → 333333333333…" in str(
        statuses["spent", ("device",)].reasons
    )


def test_more_looks_than_planned_are_exploratory() -> None:
    plan = make_plan(decision={"looks": 2})
    assert all(judge(plan, plan, looks=2).values())
    statuses = judge(plan, plan, looks=3)
    assert not any(statuses.values())
    assert "2 looks were planned, and this is look 3" in statuses["bought", ("device",)].describe()


def test_what_was_registered_and_is_not_asked_any_more_is_told() -> None:
    now = make_plan(metrics=[GOAL, GUARDRAIL])
    assert list_dropped_questions(now, lock(make_plan())) == [
        ("spent", ("device",)), ("spent", ("country",)), ("spent", ("device", "customer")),
    ]  # fmt: skip
    assert list_dropped_questions(make_plan(), None) == []


def test_to_write_out_a_default_is_no_change() -> None:
    assert compare_plans(example_plan(), example_plan(sampling={"seed": 1}, decision={"looks": 1})) == []


@pytest.mark.parametrize(
    ("was", "now", "sentence"),
    [
        ("looks = 1\nbreak", "looks = 9\nbreak", "contradicts itself: its looks"),
        ('[["device"], ["country"]', '[["country"]', "contradicts itself: its breakdowns"),
        ('plan_file = "plan.toml"', 'plan_file = "other.toml"', "was written for other.toml, not for plan.toml"),
        ('format = "bayes_hte lock 1"', 'format = "lock"', "format: should be 'bayes_hte lock 1'"),
        ("[rule]", "[ruel]", "unknown key 'ruel'"),
        ("[rule]", "[rule", "is not valid TOML"),
    ],
)
def test_a_lock_that_is_none_is_refused_in_one_sentence(tmp_path: Path, was: str, now: str, sentence: str) -> None:
    text, file = write_lock(lock(make_plan())), tmp_path / "plan.lock.toml"
    assert was in text
    file.write_text(text.replace(was, now, 1), encoding="utf-8")
    with pytest.raises(PlanError) as raised:
        read_lock(file, "plan.toml")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_same_data_are_one_look(tmp_path: Path) -> None:
    first = add_look([], {"units": {"old": 10.0, "new": 12.0}}, DAY)
    assert add_look(first, {"units": {"new": 12.0, "old": 10.0}}, DAY) == first
    both = add_look(first, {"units": {"old": 20.0, "new": 12.0}}, DAY)
    file = tmp_path / "plan.looks.toml"
    assert read_looks(file) == []
    file.write_text(write_looks(both), encoding="utf-8")
    assert read_looks(file) == both
    assert both[0] == Look(DAY, {"units": {"old": 10.0, "new": 12.0}})


def test_more_than_five_dimensions_warn() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    assert list_declaration_doubts(make_plan(breakdowns=[names[:5]])) == []
    (doubt,) = list_declaration_doubts(make_plan(breakdowns=[["a"], names]))
    assert doubt.startswith("the plan declares 6 dimensions ('a', 'b'")
    assert len(list_declaration_doubts(Plan(**make_content(breakdowns=[[name] for name in names])))) == 1


def test_a_broken_file_of_looks_says_how_to_get_it_back(tmp_path: Path) -> None:
    file = tmp_path / "plan.looks.toml"
    file.write_text("looks", encoding="utf-8")
    with pytest.raises(PlanError, match=r"plan.looks.toml is not valid TOML.*restore it from a commit"):
        read_looks(file)
