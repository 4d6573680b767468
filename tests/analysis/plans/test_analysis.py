"""A plan with several questions has the answers of single plans, and one that fails does not lose the others."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from example_plans import BREAKDOWNS, GOAL, GUARDRAIL, SPENT, make_content, make_rows, write_plan

import bayes_hte as hte
from bayes_hte._support.toml_text import write_toml_document
from bayes_hte.analysis import run as run_module
from bayes_hte.errors import FitError

REPORT_KEYS = (("rope", "matters"), ("rope", "margin"), ("higher_is_better", "higher_is_better"))
RULE = {"ship": [{"above": 0.0, "p": 0.9}], "guardrail": {"p": 0.8}}


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> hte.Analysis:
    result = hte.run(write_plan(tmp_path_factory.mktemp("shop"), decision=RULE))
    assert isinstance(result, hte.Analysis)
    return result


def test_three_metrics_by_three_breakdowns_have_the_numbers_of_nine_runs(
    analysis: hte.Analysis, tmp_path: Path
) -> None:
    rows = make_rows()
    assert len(analysis.fits) == 9
    for metric in (GOAL, SPENT, GUARDRAIL):
        for dimensions in BREAKDOWNS:
            data = {"arm": "arm", "control": "old", "outcome": metric["outcome"], "segments": dimensions}
            data |= {key: metric[key] for key in ("cuped", "cap") if key in metric}
            report = {
                "rope": metric.get("matters", metric.get("margin")),
                "higher_is_better": metric["higher_is_better"],
            }
            one = {"model": metric["model"], "metrics": None, "breakdowns": None}
            # A guardrail alone ships nothing.
            rule = None if metric is GUARDRAIL else RULE
            content = make_content(data=data, report=report, decision=rule, **one)
            plan_file = tmp_path / "plan.toml"
            plan_file.write_text(write_toml_document(content), encoding="utf-8")
            alone = hte.run(plan_file, data=rows).table()
            together = analysis.fits[metric["name"], dimensions].table()
            # To rounding error: sums of a coarse breakdown are sums of finer ones.
            pd.testing.assert_frame_equal(together, alone, rtol=1e-9, atol=1e-12)


def test_the_table_is_long_and_every_row_says_what_it_is_of(analysis: hte.Analysis) -> None:
    table = analysis.table()
    assert list(table.columns[:4]) == ["metric", "breakdown", "segment", "arm"]
    assert list(table.columns[-3:]) == ["registered", "problem", "reliable"]
    assert len(table) == 3 * (2 + 3 + 4)
    chosen = table[(table["metric"] == "spent") & (table["breakdown"] == "device × customer")]
    own = analysis.fits["spent", "device × customer"].table()
    assert chosen["segment"].tolist() == [f"{row.device} · {row.customer}" for row in own.itertuples()]
    np.testing.assert_array_equal(chosen["effect"], own["effect"])
    assert len(analysis.ate()) == 9


def test_an_analysis_does_not_change(analysis: hte.Analysis) -> None:
    with pytest.raises(AttributeError):
        analysis.plan = None  # type: ignore[misc, assignment]


def test_it_describes_itself(analysis: hte.Analysis) -> None:
    assert repr(analysis) == "<Analysis: New checkout; 9 fits, 0 of 9 registered>"
    assert "<b>&lt;Analysis: New checkout" in analysis._repr_html_()


def test_a_saved_analysis_answers_as_before(analysis: hte.Analysis, tmp_path: Path) -> None:
    again = hte.load(analysis.save(tmp_path / "saved"))
    assert isinstance(again, hte.Analysis)
    pd.testing.assert_frame_equal(again.table(), analysis.table(), rtol=1e-5, atol=1e-6)
    assert (again.plan, again.dropped) == (analysis.plan, analysis.dropped)
    assert dict(again.registered) == dict(analysis.registered)


@pytest.mark.parametrize(("content", "sentence"), [("{", "cannot be read"), ('{"format": "x"}', "has the format 'x'")])
def test_a_folder_that_is_no_analysis_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "analysis.json").write_text(content, encoding="utf-8")
    with pytest.raises(hte.OutputError, match=sentence):
        hte.load(tmp_path)


def test_one_question_has_the_same_surface() -> None:
    fit = hte.example_fit()
    assert fit.fits["outcome", ["customer", "device"]] is fit
    assert not fit.registered
    assert list(fit.registered) == list(fit.fits) == [("outcome", ("device", "customer"))]


def test_a_plan_with_lists_is_an_analysis_even_of_one_question(tmp_path: Path) -> None:
    result = hte.run(write_plan(tmp_path, metrics=[GOAL], breakdowns=[["device"]]))
    assert isinstance(result, hte.Analysis)
    assert list(result.fits) == [("bought", ("device",))]


def test_a_question_that_fails_is_a_row_with_the_reason(tmp_path: Path) -> None:
    rows = make_rows().assign(same=1.0)
    metrics = [GOAL, {"name": "same", "outcome": "same", "model": "metric"}, {**SPENT, "model": "conversion"}]
    result = hte.run(write_plan(tmp_path, rows, metrics=metrics, breakdowns=[["device"]]))
    assert isinstance(result, hte.Analysis)
    assert list(result.fits) == [("bought", ("device",))]
    assert set(result.failed) == {("same", ("device",)), ("spent", ("device",))}
    failed = result.table().set_index("metric").loc[["same", "spent"]]
    assert (failed["problem"] != "").all()
    assert not failed["reliable"].any()
    assert not result.reliable
    assert "2 failed" in repr(result)
    assert "Could not be fitted" in result._repr_html_()
    with pytest.raises(KeyError, match="same by device could not be fitted: "):
        result.fits["same", "device"]


def test_an_engine_that_breaks_down_on_one_question_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_module.fit_and_record

    def fail_once(cells: Any, *rest: Any) -> Any:
        if cells.attrs["outcome"] == "returned":
            raise FitError("the sampler broke down")
        return real(cells, *rest)

    monkeypatch.setattr(run_module, "fit_and_record", fail_once)
    result = hte.run(write_plan(tmp_path, breakdowns=[["device"]], decision=RULE))
    assert isinstance(result, hte.Analysis)
    assert dict(result.failed) == {("returns", ("device",)): "the sampler broke down"}
    decisions = result.decide()
    # Phones surely gain, but nobody knows what they return.
    assert set(decisions["decision"]) <= {"undecided", "equivalent", "stop"}
    assert decisions["why"].str.contains("The guardrail 'returns' could not be fitted: the sampler broke down").all()


def test_decisions_are_of_all_metrics_together(analysis: hte.Analysis) -> None:
    decisions = analysis.decide()
    assert list(decisions.columns[:6]) == ["metric", "breakdown", "segment", "arm", "decision", "why"]
    by_segment = decisions.groupby(["breakdown", "segment"])
    assert (by_segment["decision"].nunique() == 1).all()
    assert set(decisions["metric"]) == {"bought", "spent"}
    # P(harm < margin) by hand, from joint draws: the outcome is bad, so harm is an effect above 0.
    effects = analysis.fits["returns", "device"].effects().sel(arm="new")
    p_kept = (effects < 0.02).mean(("chain", "draw"))
    rows = decisions[decisions["breakdown"] == "device"].drop_duplicates("segment").set_index("segment")
    for segment in p_kept["segment"].values:
        assert rows.loc[segment, "p_guardrail"] == pytest.approx(float(p_kept.sel(segment=segment)), abs=1e-12)


def test_a_rule_of_the_caller_keeps_each_metrics_sizes(analysis: hte.Analysis) -> None:
    strict = analysis.decide(hte.Rule(ship=[(0.0, 0.999999)], stop=[(0.0, 0.999999)], equivalent=None))
    assert set(strict["decision"]) == {"undecided"}
    own = analysis.fits["bought", "device"].decide()
    chosen = strict[(strict["metric"] == "bought") & (strict["breakdown"] == "device")]
    np.testing.assert_allclose(chosen["p_equivalent"], own["p_equivalent"])
    # What one more purchase is worth is the metric's own: 38 per unit of effect.
    np.testing.assert_allclose(chosen["expected_gain"], own["expected_gain"])


def test_a_broken_guardrail_stops_what_helps(tmp_path: Path) -> None:
    rows = make_rows(6000, effect=0.3, harm=0.3)
    result = hte.run(write_plan(tmp_path, rows, metrics=[GOAL, GUARDRAIL], breakdowns=[["device"]], decision=RULE))
    decisions = result.decide()
    assert set(decisions["decision"]) == {"stop"}
    assert decisions["why"].str.contains("A guardrail is broken").all()
