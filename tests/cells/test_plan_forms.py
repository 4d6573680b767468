"""The forms of data in a plan say what the functions of `cells` take."""

import inspect
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from bayes_hte import cells
from bayes_hte.spec.plan import Data, Estimates, Levels, Rows, Summary, Times

BASE: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}
FORMS = [
    (Rows, cells.from_rows, BASE | {"outcome": "y"}),
    (Times, cells.from_times, BASE | {"time": "t", "event": "e"}),
    (Levels, cells.from_levels, BASE | {"value": "v", "count": "c"}),
    (Summary, cells.from_summary, BASE),
    (Estimates, cells.from_estimates, {"segments": ["device"], "estimate": "y", "se": "se"}),
]


def test_all_forms_are_here():
    assert {form for form, _, _ in FORMS} == set(get_args(get_args(Data)[0]))


@pytest.mark.parametrize(("form", "function", "least"), FORMS)
def test_a_form_has_the_keywords_of_its_function(form, function, least):
    parameters = inspect.signature(function).parameters
    taken = {name for name, parameter in parameters.items() if parameter.kind == parameter.KEYWORD_ONLY}
    asked = set(form.model_fields) - {"form", "path", "shares"}  # shares are of the cells, whatever made them
    assert asked == taken
    inspect.signature(function).bind(None, **options(form(**least)))
    for name in set(least) - {"segments"}:
        assert parameters[name].default in (inspect.Parameter.empty, None)


def options(form: Any) -> dict[str, Any]:
    return form.model_dump(exclude={"form", "path", "shares"}, exclude_none=True)


@pytest.mark.parametrize("form", [Rows, Times, Levels, Summary])
def test_every_form_with_units_takes_planned_shares(form):
    least = next(least for found, _, least in FORMS if found is form)
    assert form(**least, shares={"old": 1, "new": 3}).shares == {"old": 1.0, "new": 3.0}
    for wrong in (
        {"old": 0.5, "new": 0},
        {"old": 1},
        {"old": 0.5, "new": float("inf")},
        {"old": "x", "new": 1},
        [1, 1],
    ):
        with pytest.raises(ValidationError):
            form(**least, shares=wrong)


def test_plans_of_before_say_what_they_said():
    assert options(Rows(**BASE, outcome="y")) == BASE | {
        "outcome": "y",
        "segments": ("device",),
        "drop_missing": False,
    }
    assert options(Summary(**BASE, n="n", events="e")) == BASE | {
        "segments": ("device",),
        "outcome": "outcome",
        "n": "n",
        "events": "e",
    }
    assert options(Estimates(segments=["s"], estimate="y", se="se")) == {
        "segments": ("s",),
        "outcome": "effect",
        "estimate": "y",
        "se": "se",
    }


@pytest.mark.parametrize(("form", "function", "least"), FORMS)
def test_a_form_is_found_by_its_name(form, function, least):
    name = form.model_fields["form"].default
    assert TypeAdapter(Data).validate_python(least | {"form": name}) == form(**least)


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        (Rows, {"outcome": "y", "metric": "median"}),
        (Rows, {"outcome": "y", "exposure": ""}),
        (Times, {"time": "t", "event": "e", "breaks": [0]}),
        (Times, {"time": "t", "event": "e", "horizon": -1}),
        (Times, {"time": "t"}),
        (Levels, {"value": "v"}),
        (Summary, {"covariates": []}),
        (Estimates, {"control": "old"}),
    ],
)
def test_what_no_function_takes_is_refused(form, wrong):
    with pytest.raises(ValidationError):
        form(**BASE | wrong)
