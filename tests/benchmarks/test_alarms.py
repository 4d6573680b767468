"""The stored rates at which checks speak are those of the code: every check has its row, a small part is made again."""

import json

import pytest
from benchmark_scripts import BENCHMARKS, load

alarms = load("alarms")
STORED = json.loads((BENCHMARKS / "results" / "alarms.json").read_text(encoding="utf-8"))
QUICK = ["published", "moved", "spelling", "days", "percent"]


def test_every_scenario_is_stored_and_the_table_is_made_of_it() -> None:
    assert set(STORED) == set(alarms.SCENARIOS)
    for name, scenario in alarms.SCENARIOS.items():
        assert STORED[name]["repetitions"] == scenario.repetitions
        assert set(STORED[name]["rates"]) == {check.title for check in alarms.CHECKS}
    assert alarms.write_table(STORED) in (BENCHMARKS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in STORED]
)
def test_the_first_data_sets_get_the_stored_answers(name: str) -> None:
    spoke = alarms.run_scenario(name, 2 if name in QUICK else alarms.KEPT_REPETITIONS)
    for title, answers in spoke.items():
        assert STORED[name]["first"][title][: len(answers)] == answers, title


@pytest.mark.parametrize("check", alarms.CHECKS, ids=lambda check: check.title)
def test_no_check_speaks_often_of_sound_data(check: object) -> None:
    """One in fifty at most; three standard errors of that rate allow for what simulation leaves."""
    for name, scenario in alarms.SCENARIOS.items():
        if scenario.is_sound:
            error = (0.02 * 0.98 / scenario.repetitions) ** 0.5
            assert STORED[name]["rates"][check.title] <= 0.02 + 3 * error, name  # type: ignore[attr-defined]
