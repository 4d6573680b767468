"""Decisions as lines: each with its reason, counted first, and no more than a terminal can take."""

import pandas as pd

from bayes_hte.decisions.decision_lines import MAX_LINES, list_decision_lines


def build_table(decisions: list[str]) -> pd.DataFrame:
    return pd.DataFrame({
        "device": [f"d{number}" for number in range(len(decisions))], "arm": "new", "decision": decisions, "why": "So.",
    })  # fmt: skip


def test_rows_that_say_the_same_are_one_line() -> None:
    table = build_table(["ship", "stop"])
    twice = pd.concat([table.assign(metric="a"), table.assign(metric="b")])
    assert list_decision_lines(twice, ["device", "arm"]) == [
        "decisions: 1 ship, 1 stop", "  d0 · new: ship. So.", "  d1 · new: stop. So.",
    ]  # fmt: skip


def test_of_many_only_those_that_ask_for_an_action_are_written() -> None:
    lines = list_decision_lines(build_table(["undecided"] * 100 + ["ship"] * 3), ["device"])
    assert lines[0] == "decisions: 3 ship, 100 undecided"
    assert lines[1:] == [
        "  d100: ship. So.",
        "  d101: ship. So.",
        "  d102: ship. So.",
        "  … and 100 more: see effects.csv",
    ]
    assert len(list_decision_lines(build_table(["stop"] * 500), ["device"])) == MAX_LINES + 2
