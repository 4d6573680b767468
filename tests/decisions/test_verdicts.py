"""Verdicts: what a stated probability makes of the tables of effects."""

import json
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from example_posterior import example_fit, example_plan

from bayes_hte import PlanError
from bayes_hte.analysis.export import build_summary
from bayes_hte.decisions.verdicts import (
    VerdictRule,
    choose_verdict_rule,
    compute_false_sign_rate,
    find_distinct_segments,
    find_tested_cells,
    holds_zero_against_sign,
    is_mostly_borrowed,
    judge_effects,
    list_tested_rows,
)

EFFECTS = pd.DataFrame({"p_positive": [0.976, 0.975, 0.5, 0.024, np.nan]}).assign(
    p_negative=lambda table: 1 - table["p_positive"]
)


def test_a_sign_is_called_only_above_the_stated_probability() -> None:
    called = ["helps", "not known", "not known", "harms", "not known"]
    assert judge_effects(EFFECTS, VerdictRule(), higher_is_better=True) == called
    strict, lax = VerdictRule(call_prob=0.98), VerdictRule(call_prob=0.9)
    assert set(judge_effects(EFFECTS, strict, higher_is_better=True)) == {"not known"}
    assert judge_effects(EFFECTS, lax, higher_is_better=True)[1] == "helps"


def test_lower_is_better_turns_every_verdict_round() -> None:
    turned = {"helps": "harms", "harms": "helps", "not known": "not known"}
    above = judge_effects(EFFECTS, VerdictRule(), higher_is_better=True)
    assert judge_effects(EFFECTS, VerdictRule(), higher_is_better=False) == [turned[verdict] for verdict in above]


SIZES = pd.DataFrame(
    {
        "p_positive": [0.999, 0.02, 0.999, 0.999, 0.001, 0.6],
        "p_benefit": [0.99, 0.0, 0.01, 0.6, 0.0, 0.5],
        "p_harm": [0.0, 0.003, 0.0, 0.0, 0.4, 0.4],
    }
).assign(
    p_negative=lambda table: 1 - table["p_positive"], p_rope=lambda table: 1 - table["p_benefit"] - table["p_harm"]
)


def test_benefit_and_harm_are_effects_that_matter_and_no_row_has_two_verdicts() -> None:
    """Surely below 0 and surely too small to matter is not harmed: the second row."""
    found = judge_effects(SIZES, VerdictRule(), higher_is_better=True)
    assert found == ["helps", "too small", "too small", "better", "worse", "not known"]


@pytest.mark.parametrize("call_prob", [0.8, 0.9, 0.975, 0.999])
def test_a_coloured_verdict_is_that_of_the_columns_of_benefit_and_harm(call_prob: float) -> None:
    draws = np.random.default_rng(3).dirichlet([0.2] * 3, 500)
    sizes = pd.DataFrame(draws, columns=["p_benefit", "p_harm", "p_rope"])
    table = sizes.assign(p_positive=sizes["p_benefit"] + sizes["p_rope"] / 2)
    table = table.assign(p_negative=1 - table["p_positive"])
    found = pd.Series(judge_effects(table, VerdictRule(call_prob), higher_is_better=True))
    for verdict, column in {"helps": "p_benefit", "harms": "p_harm", "too small": "p_rope"}.items():
        assert ((found == verdict) == (table[column] > call_prob)).all()
        assert (found == verdict).any()


def test_where_the_better_direction_is_doubtful_verdicts_name_the_direction() -> None:
    neutral = {"helps": "raises", "harms": "lowers", "better": "above 0", "worse": "below 0"}
    for table in (SIZES, EFFECTS):
        judged = judge_effects(table, VerdictRule(), higher_is_better=True)
        found = judge_effects(table, VerdictRule(), higher_is_better=True, direction_is_known=False)
        assert found == [neutral.get(verdict, verdict) for verdict in judged]


def test_by_default_a_sign_is_called_exactly_where_the_interval_shows_it() -> None:
    for ci_prob in (0.8, 0.9, 0.95, 0.99):
        # A normal posterior with SD 1: the interval's nearer end is at mean − z.
        means, z = np.linspace(0, 4, 401), NormalDist().inv_cdf((1 + ci_prob) / 2)
        table = pd.DataFrame({"p_positive": [NormalDist().cdf(mean) for mean in means]})
        table = table.assign(p_negative=1 - table["p_positive"])
        found = judge_effects(table, choose_verdict_rule(None, ci_prob), higher_is_better=True)
        assert [verdict == "helps" for verdict in found] == (means > z).tolist()


def test_a_sign_more_probable_than_the_interval_that_holds_zero_is_found_on_both_sides() -> None:
    row = {"p_positive": 0.96, "p_negative": 0.04, "ci_low": -0.01, "ci_high": 0.2}
    mirrored = {"p_positive": 0.04, "p_negative": 0.96, "ci_low": -0.2, "ci_high": 0.01}
    assert holds_zero_against_sign(row, 0.95)
    assert holds_zero_against_sign(mirrored, 0.95)
    assert not holds_zero_against_sign(row | {"ci_low": 0.01}, 0.95)
    assert not holds_zero_against_sign(row | {"p_positive": 0.95}, 0.95)


def test_what_was_not_tested_is_never_called() -> None:
    assert judge_effects(EFFECTS, VerdictRule(), higher_is_better=True, is_tested=[False] * 5) == ["not tested"] * 5


def test_a_row_is_tested_if_both_arms_have_data() -> None:
    fit = example_fit(4, arms=("control", "a", "b"), one_armed=(2,))  # the last arm lacks the third segment
    table = fit.table()
    lacks_arm = (table["n_control"] == 0) | (table["n_treated"] == 0)
    assert lacks_arm.sum() == 1
    assert list_tested_rows(table, fit.cells) == (~lacks_arm).tolist()
    assert find_tested_cells(fit.cells).sum() == 7


def test_published_estimates_are_tested_without_a_control() -> None:
    fit = example_fit(3, family="estimate", known_n=False)
    assert list_tested_rows(fit.table(), fit.cells) == [True] * 3


def test_segments_unlike_the_average_are_found_on_both_sides() -> None:
    contrasts = EFFECTS.assign(arm="new", segment=list("abcde"))
    assert find_distinct_segments(contrasts, VerdictRule()) == {("new", "a"), ("new", "d")}


def test_an_unknown_pooling_factor_is_not_called_borrowed() -> None:
    assert [is_mostly_borrowed(factor, VerdictRule()) for factor in (0.79, 0.81, np.nan)] == [False, True, False]


def test_the_expected_share_of_wrong_signs_is_the_mean_over_what_is_called() -> None:
    assert compute_false_sign_rate(EFFECTS.iloc[[0, 3]]) == pytest.approx((0.024 + 0.024) / 2)
    assert np.isnan(compute_false_sign_rate(EFFECTS.iloc[:0]))


def test_a_plan_states_the_rule_and_an_old_plan_has_the_default() -> None:
    assert choose_verdict_rule(None) == choose_verdict_rule(example_plan()) == VerdictRule(0.975)
    assert choose_verdict_rule(example_plan(), ci_prob=0.9) == VerdictRule(0.95)
    assert choose_verdict_rule(example_plan(report={"call_prob": 0.9})) == VerdictRule(0.9)
    ruled = example_plan(decision={"ship": [{"above": 0.0, "p": 0.9}]})
    assert choose_verdict_rule(ruled) == VerdictRule(0.95)  # the default of stopping is stricter
    assert choose_verdict_rule(example_plan(decision={"ship": [(0.01, 0.9)], "stop": [(-0.01, 0.9)]})) == VerdictRule()
    for refused in (0.79, 1.0):
        with pytest.raises(PlanError, match="call_prob"):
            example_plan(report={"call_prob": refused})


def test_the_summary_holds_the_verdict_of_every_segment_and_arm() -> None:
    effect = [0.8, 0.5, 0.1, -0.8]
    for call_prob in (0.8, 0.999):
        fit = example_fit(4, effect=effect, one_armed=(1,), plan=example_plan(report={"call_prob": call_prob}))
        summary = json.loads(json.dumps(build_summary(fit), default=str))
        assert summary["call_prob"] == call_prob
        rows = [*summary["segments"], *summary["ate"]]
        for row in rows:
            called = "helps" if row["p_positive"] > call_prob else "harms"
            is_known = max(row["p_positive"], row["p_negative"]) > call_prob
            assert row["verdict"] == ("not tested" if row["n_treated"] == 0 else called if is_known else "not known")
        assert len(rows) == 5
