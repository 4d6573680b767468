"""What a plan asks, in words and before anything is computed."""

from typing import Any

import pandas as pd
import pytest

import bayes_hte as hte
from bayes_hte.decisions.restated_question import MAX_SEGMENTS_NAMED, restate_question
from bayes_hte.spec import Plan


def asked(segments: int = 2, decision: Any = None, **report: Any) -> dict[str, str]:
    table = pd.DataFrame(
        [(f"site {i}", arm, n) for i in range(segments) for arm, n in (("old", 1000 + i), ("new", 900))],
        columns=["site", "arm", "n"],
    ).assign(k=50)
    roles = {"arm": "arm", "control": "old", "segments": ["site"], "n": "n", "events": "k", "outcome": "relapsed"}
    plan = Plan.model_validate(
        {"title": "T", "model": "conversion", "data": {"form": "summary", **roles}, "report": report}
        | ({} if decision is None else {"decision": decision})
    )
    return restate_question(plan, hte.read_model("conversion"), hte.cells.from_summary(table, **roles))


@pytest.mark.parametrize(
    ("report", "direction"),
    [
        ({}, "higher is taken as better, as report.higher_is_better is not stated"),
        ({"higher_is_better": True}, "higher is better"),
        ({"higher_is_better": False}, "lower is better"),
    ],
)
def test_the_direction_is_restated_and_said_to_be_assumed_where_it_is(report: Any, direction: str) -> None:
    assert asked(**report)["outcome"] == f"'relapsed': {direction}"


@pytest.mark.parametrize(
    ("report", "size"),
    [
        ({"scale": "relative", "rope": 2}, "in percent of the control's mean; smaller than 200 % is"),
        ({"scale": "relative", "rope": 0.02}, "smaller than 2 % is too small to matter"),
        ({"rope": 0.002}, "difference in percentage points; smaller than 0.2 percentage points is"),
        ({"rope": 0.01}, "smaller than 1 percentage point is"),
        ({"scale": "link", "rope": 0.1}, "log odds ratio; smaller than 0.1 is"),
        ({}, "no smallest effect that matters is stated"),
    ],
)
def test_the_smallest_effect_is_restated_with_its_unit(report: Any, size: str) -> None:
    assert size in asked(**report)["effect"]


def test_arms_and_segments_come_with_their_sizes() -> None:
    restated = asked()
    assert restated["arms"] == "new (1,800 units) against old (2,001 units)"
    assert restated["segments"] == "2 by site: site 0 (1,900), site 1 (1,901)"
    assert asked(segments=MAX_SEGMENTS_NAMED + 3)["segments"].endswith(", and 3 more")


def test_the_model_is_named_with_its_family_and_the_threshold_with_its_interval() -> None:
    assert asked()["model"] == "conversion: binomial outcomes, partial pooling"
    assert asked(ci_prob=0.9)["called"] == "what is more probable than 95 %; intervals of 90 %"


def test_a_rule_is_restated_in_the_units_of_the_report() -> None:
    assert asked(decision={}, rope=0.01)["decided"] == (
        "ship where the benefit is above 0 (P ≥ 95 %) and above 1 percentage point (P ≥ 50 %), stop where it is below "
        "0 (P ≥ 95 %), equivalent where the effect is within ±1 percentage point (P ≥ 90 %); all else is undecided"
    )
    assert "decided" not in asked()
