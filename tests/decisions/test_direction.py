"""The direction that is better: asked where it is doubtful, never guessed."""

import re

import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.analysis.export import build_summary
from bayes_hte.decisions.direction import ask_about_direction, judge_name

# Split by a function, because a list of so many words would fill a page.
BAD_NAMES = re.split(
    r"\s+",
    "deaths Deaths30d died isRefunded churned infected infection_rate cost totalCost latency_ms p95Latency errorRate "
    "HTTPErrors complaints bounce bounceRate mortality28 relapsed returns unsubscribed failure defects timeToEvent "
    "time_to_resolution pageLoadTime no_show drop-out refund_amount lost_sales cost_per_click readmitted_30d tod_30 "
    "Kündigung kosten coûts décès muertes custo_total",
)
OTHER_NAMES = re.split(
    r"\s+",
    "converted revenue visits spent posttest orders clicks points complaints_resolved cost_savings survived "
    "not_infected avoided_errors error_free mortgage deadline today language mission paint costume scrapbook "
    "advertising lateral value y outcome effect",
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_what_people_avoid_are_recognised_in_any_spelling(name: str) -> None:
    assert judge_name(name) == "bad"


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_that_only_look_alike_are_left_alone(name: str) -> None:
    assert judge_name(name) != "bad"


def counted(outcome: str, events: int = 30) -> xr.Dataset:
    table = pd.DataFrame({"site": ["A", "A", "B", "B"], "arm": ["old", "new"] * 2, "n": 900, "k": events})
    return hte.cells.from_summary(
        table, outcome=outcome, arm="arm", control="old", segments=["site"], n="n", events="k"
    )


def test_a_direction_that_was_stated_is_never_asked_about() -> None:
    assert ask_about_direction(counted("deaths"), None)
    assert ask_about_direction(counted("deaths"), True) == ask_about_direction(counted("deaths"), False) == ""


def test_a_rare_event_whose_name_says_nothing_is_asked_about_and_a_common_one_is_not() -> None:
    assert "3.3 % of the units" in ask_about_direction(counted("y"), None)
    assert ask_about_direction(counted("y", events=300), None) == ""
    assert ask_about_direction(counted("converted"), None) == ""


def fitted(**asked: bool) -> hte.Fit:
    table = pd.DataFrame(
        {"region": ["north", "north", "south", "south"], "arm": ["placebo", "vaccine"] * 2, "n": 9000}
    ).assign(infected=[270, 60, 300, 120])
    cells = hte.cells.from_summary(
        table, outcome="infected", arm="arm", control="placebo", segments=["region"], n="n", events="infected"
    )
    return hte.fit(cells, "conversion", **asked)


def test_nothing_is_called_harm_before_somebody_has_said_which_direction_is_better(tmp_path: object) -> None:
    page = fitted().report(f"{tmp_path}/r.html").read_text(encoding="utf-8")
    asked = page.index("which direction is better?")
    assert asked < page.index("vaccine lowered “infected”")
    assert "harms" not in page.split("What was assumed")[0].replace("no effect is called help or harm", "")
    summary = build_summary(fitted())
    assert [row["verdict"] for row in summary["segments"] + summary["ate"]] == ["lowers"] * 3
    assert summary["higher_is_better"] is None
    assert summary["warnings"][0].startswith("is a higher 'infected' better?")


@pytest.mark.parametrize(("stated", "verdict"), [(False, "helps"), (True, "harms")])
def test_a_stated_direction_turns_the_verdicts_and_ends_the_question(stated: bool, verdict: str) -> None:
    summary = build_summary(fitted(higher_is_better=stated))
    assert [row["verdict"] for row in summary["segments"] + summary["ate"]] == [verdict] * 3
    assert summary["higher_is_better"] is stated
    assert not any("better?" in warning for warning in summary["warnings"])
