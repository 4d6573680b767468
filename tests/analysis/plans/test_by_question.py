"""Questions are found however people write them, and what is not there is explained."""

import pickle

import pytest

from bayes_hte.analysis.plans.by_question import ByQuestion, RegisteredQuestions
from bayes_hte.spec.questions.registration import RegistrationStatus

TABLE = ByQuestion(
    {("bought", ("device",)): 1, ("bought", ("device", "plan")): 2, ("spent", ("a × b",)): 3, ("x", ("a", "b")): 4},
    {("lost", ("device",)): "nothing varies"},
)


@pytest.mark.parametrize(
    ("breakdown", "value"),
    [
        ("device", 1), (["device"], 1), (("device",), 1),
        ("device × plan", 2), (["device", "plan"], 2), (("plan", "device"), 2),
    ],
)  # fmt: skip
def test_a_breakdown_may_be_written_in_every_form(breakdown: object, value: int) -> None:
    assert TABLE["bought", breakdown] == value
    assert ("bought", breakdown) in TABLE
    assert TABLE.get(("bought", breakdown)) == value


def test_a_cross_in_a_name_is_no_crossing() -> None:
    assert TABLE["spent", "a × b"] == 3
    assert TABLE["x", "a × b"] == 4
    assert ("spent", ["a", "b"]) not in TABLE


@pytest.mark.parametrize("key", ["bought", ("bought",), ("bought", "country"), ("sold", "device"), 7, ("bought", 7)])
def test_what_is_not_there_is_an_error_that_names_what_is(key: object) -> None:
    assert key not in TABLE
    with pytest.raises(KeyError, match="bought by device × plan"):
        TABLE[key]


def test_a_question_that_failed_says_why() -> None:
    with pytest.raises(KeyError, match="lost by device could not be fitted: nothing varies"):
        TABLE["lost", "device"]


def test_it_is_a_mapping_with_the_declared_keys_in_order() -> None:
    assert list(TABLE)[:2] == [("bought", ("device",)), ("bought", ("device", "plan"))]
    assert len(TABLE) == 4
    assert dict(pickle.loads(pickle.dumps(TABLE))) == dict(TABLE)  # noqa: S301


def test_all_or_nothing_is_registered() -> None:
    yes, no = RegistrationStatus(True), RegistrationStatus(False, ("no lock",), ("title: a → b",))
    assert RegisteredQuestions({("a", ("d",)): yes})
    mixed = RegisteredQuestions({("a", ("d",)): yes, ("b", ("d",)): no})
    assert not mixed
    assert mixed["a", "d"]
    assert mixed.table().to_dict("records")[1] == {
        "metric": "b", "breakdown": "d", "registered": False, "why": "no lock", "changes": "title: a → b",
    }  # fmt: skip
