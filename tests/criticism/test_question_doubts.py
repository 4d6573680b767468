"""A smallest effect or an answer that is hardly what was meant is questioned in a sentence with the way out."""

from pathlib import Path

import pandas as pd
import pytest

import bayes_hte as hte
from bayes_hte.criticism.question_doubts import list_answer_doubts, list_question_doubts
from bayes_hte.estimands.tables import EffectQuestion

CELLS = hte.example_cells()
CONVERSION = hte.read_model("conversion")


@pytest.mark.parametrize(
    ("scale", "rope", "said"),
    [
        (
            "relative",
            2.0,
            "200 % of the control's mean: anything less counts as too small; if 2 % is meant, state 0.02",
        ),
        ("relative", 1.5, "if 1.5 % is meant, state 0.015"),
        ("absolute", 1.0, "more than there can be"),
        ("link", 5.0, "on the scale of logarithms"),
    ],
)
def test_per_cent_in_place_of_shares_are_questioned(scale: str, rope: float, said: str) -> None:
    (doubt,) = list_question_doubts(EffectQuestion(scale, 0.95, rope), CELLS, CONVERSION)  # type: ignore[arg-type]
    assert said in doubt


@pytest.mark.parametrize(("scale", "rope"), [("relative", 0.02), ("relative", 0.5), ("absolute", 0.02), ("link", 0.1)])
def test_plausible_smallest_effects_are_not(scale: str, rope: float) -> None:
    assert list_question_doubts(EffectQuestion(scale, 0.95, rope), CELLS, CONVERSION) == []  # type: ignore[arg-type]
    assert list_question_doubts(EffectQuestion(scale), CELLS, CONVERSION) == []  # type: ignore[arg-type]


def test_answers_out_of_range_are_questioned() -> None:
    rows = [{"effect": 0.01, "ci_low": -0.02, "ci_high": 0.04}, {"effect": 3.0, "ci_low": 1.2, "ci_high": 5.0}]
    (doubt,) = list_answer_doubts(rows, ["mobile", "tv"], EffectQuestion("relative"))
    assert "beyond ±100 %" in doubt
    assert "tv" in doubt
    (doubt,) = list_answer_doubts(rows[:1], ["mobile"], EffectQuestion("absolute", 0.95, 2.0))
    assert "wider than every interval" in doubt
    assert list_answer_doubts(rows[:1], ["mobile"], EffectQuestion("absolute", 0.95, 0.03)) == []


def test_check_run_and_report_show_the_doubt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from bayes_hte.cli import build_parser

    rows = [(d, a, 900, 90 + 9 * (a == "new")) for d in ("mobile", "tv", "desktop") for a in ("old", "new")]
    pd.DataFrame(rows, columns=["device", "arm", "n", "y"]).to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "plan.toml").write_text(
        'title = "t"\nmodel = "conversion"\n[data]\nform = "summary"\npath = "data.csv"\narm = "arm"\ncontrol = "old"\n'
        'segments = ["device"]\nn = "n"\nevents = "y"\n[report]\nscale = "relative"\nrope = 2\n'
    )
    for command in (["check"], ["run", "--out", str(tmp_path / "out")]):
        arguments = build_parser().parse_args([command[0], str(tmp_path / "plan.toml"), *command[1:]])
        arguments.action(arguments)
        captured = capfd.readouterr()
        assert "if 2 % is meant, state 0.02" in captured.out + captured.err
    assert "if 2 % is meant, state 0.02" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
