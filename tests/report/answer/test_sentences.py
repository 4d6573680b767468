"""What reports say of scales, weights, directions and parts, held to the numbers behind it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.text import describe
from bayes_hte.report.page import ArmSection, ReportPage, collect_page


def page(fit: hte.Fit, question: EffectQuestion | None = None) -> ReportPage:
    return collect_page(fit.tree, question or fit.question(), fit.diagnosis, fit.plan)


def arm(fit: hte.Fit, question: EffectQuestion | None = None) -> ArmSection:
    return page(fit, question).arm_sections[0]


def crossing(**asked: Any) -> hte.Fit:
    """A large loss from a high rate, a large relative gain from a low one: visits fall."""
    table = pd.DataFrame(
        {"device": ["pc", "pc", "tv", "tv"], "arm": ["old", "new"] * 2, "n": 5000, "visits": [2000, 1700, 50, 110]}
    )
    cells = hte.cells.from_summary(
        table, outcome="visits", arm="arm", control="old", segments=["device"], n="n", events="visits"
    )
    return hte.fit(cells, "conversion", **asked)


def test_an_average_of_log_ratios_does_not_pass_for_what_happens_to_everyone() -> None:
    fit = crossing()
    found = arm(fit, EffectQuestion("link"))
    ate = fit.ate("absolute").iloc[0]
    assert fit.ate("link")["effect"].item() > 0 > ate["effect"]
    assert "help" not in found.average_sentence
    assert found.average_sentence.endswith("but the mean of all units went the other way.")
    assert found.answer_notes[0].startswith("Mind the scale")
    shown = f"−{abs(100 * ate['effect']):.1f} percentage points"
    assert shown in found.answer_notes[0]
    assert f"If everyone gets the treatment, the mean of all units changes by {shown}." in found.averages_text


def test_the_relative_average_is_what_happens_to_everyone() -> None:
    fit = crossing()
    found = arm(fit, EffectQuestion("relative"))
    # 2,050 visits became 1,810; the mean of the segments' −15 % and +120 % would be a rise.
    change = fit.ate("relative")["effect"].item()
    assert abs(change - (1810 / 2050 - 1)) < 0.03
    start = f"Over all 20,000 units together, new lowered “visits” by {abs(100 * change):.1f} % relative to the control"
    assert found.average_sentence.startswith(start)
    assert found.average_sentence.endswith("it is almost certain to harm (P\xa0>\xa099.9\xa0%).")
    assert not any("Mind the scale" in note for note in found.answer_notes)
    assert "is the change in the mean of all, relative to the control's" in found.averages_text


def test_the_absolute_average_is_what_happens_to_everyone() -> None:
    found = arm(crossing())
    assert found.average_sentence.endswith("it is almost certain to harm (P\xa0>\xa099.9\xa0%).")
    assert not any("Mind the scale" in note for note in found.answer_notes)
    assert "is over 20,000 units and answers what happens if everyone gets the treatment" in found.averages_text
    # 2,050 and 1,810 of 10,000 units.
    assert (
        "The plain difference of the arms, without segments, pooling or adjustment, is −2.4 ± 0.6"
        in found.averages_text
    )


def test_signs_that_agree_need_no_warning() -> None:
    table = pd.DataFrame({"device": ["a", "a", "b", "b"], "arm": ["old", "new"] * 2, "n": 900, "k": [90, 140, 80, 120]})
    cells = hte.cells.from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="k")
    found = arm(hte.fit(cells, "conversion"), EffectQuestion("relative"))
    assert "help" in found.average_sentence
    assert not any("Mind the scale" in note for note in found.answer_notes)


def test_lower_may_be_better_without_a_plan(tmp_path: Any) -> None:
    fit = crossing(higher_is_better=False)
    assert arm(fit).average_sentence.endswith("it is almost certain to help (P\xa0>\xa099.9\xa0%).")
    assert dict(page(fit).comparison_facts)["Outcome"] == "visits (lower is better)"
    again = hte.load(fit.save(tmp_path / "fit.nc"))
    assert again.question() == fit.question() == EffectQuestion(higher_is_better=False)
    mirrored = crossing().table(rope=0.01)
    assert fit.table(rope=0.01)["p_benefit"].tolist() == mirrored["p_harm"].tolist()


def test_weights_that_are_no_units_are_not_called_so() -> None:
    table = pd.DataFrame({"trial": list("abcd"), "effect": [1.0, 2.0, 0.5, 1.5], "se": [0.5, 0.4, 0.6, 0.3]})
    fit = hte.fit(
        hte.cells.from_estimates(table, estimate="effect", se="se", segments=["trial"]), "published-estimates"
    )
    found = arm(fit)
    assert "gives all segments one weight, as the numbers of units are unknown" in found.averages_text
    assert "everyone" not in found.averages_text
    assert fit.ate()["effect"].item() == pytest.approx(fit.table()["effect"].mean(), rel=1e-9)


def survey(units: int = 2000) -> pd.DataFrame:
    draw = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "plan": draw.choice(["free", "paid", "team"], units),
            "arm": draw.choice(["old", "new"], units),
            "days": draw.exponential(20, units).clip(0.1, 14.9512),
            "spent": np.where(draw.uniform(size=units) < 0.3, draw.lognormal(3, 1, units), 0.0),
            "visits": draw.negative_binomial(2, 0.4, units),
        }
    )


ASKED: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["plan"]}


def test_survival_says_until_when() -> None:
    data = survey().assign(left=lambda rows: (rows["days"] < 14.95).astype(int))
    fit = hte.fit(hte.cells.from_times(data, time="days", event="left", **ASKED), "survival")
    found = page(fit)
    horizon = float(fit.cells.attrs["horizon"])
    assert dict(found.comparison_facts)["Outcome"].startswith(f"event within {horizon:.4g} ")
    assert f"“event” within {horizon:.4g} by " in found.arm_sections[0].average_sentence


def test_parts_of_revenue_have_units_of_their_own() -> None:
    fit = hte.fit(hte.cells.from_rows(survey(), outcome="spent", metric="two_part", **ASKED), "revenue")
    shown = {quantity.quantity_title: quantity for quantity in arm(fit).quantity_rows}
    for name in ("Common effect", "Between-segment SD (τ)"):
        assert shown[f"{name}, chance of a positive outcome"].value_text.endswith(" in log-odds")
        assert shown[f"{name}, amount"].value_text.endswith(" in the log of positive outcomes")


@pytest.mark.parametrize("model", ["counts", "survival"])
def test_a_trace_is_drawn_on_a_scale_that_is_known(model: str) -> None:
    data = survey(400).assign(left=1)
    cells = (
        hte.cells.from_times(data, time="days", event="left", **ASKED)
        if model == "survival"
        else hte.cells.from_rows(data, outcome="visits", metric="histogram", **ASKED)
    )
    fit = hte.fit(cells, model)
    pd.testing.assert_frame_equal(fit.given_tau(), fit.given_tau("link"))
    assert fit.plot_tau_trace().axes
    with pytest.raises(hte.ModelError, match='pass scale="link"'):
        fit.given_tau("absolute")


def prior_of(name: str, segments: int, draws: int = 4000) -> np.ndarray:
    """Effects drawn from a model's prior with its between-segment SDs at their medians; (draw, segment)."""
    model = hte.read_model(name)
    tau = np.median(np.abs(np.random.default_rng(1).normal(0, model.effect.between.sigma, 100_000)))
    draw = np.random.default_rng(2)
    if model.effect.shape == "student_t":
        return tau * draw.standard_t(4, (draws, segments))
    return tau * draw.standard_normal((draws, segments))


def test_what_is_said_of_heavy_tails_is_true_of_the_prior() -> None:
    """9 of 10 segments within the stated factor: the share's standard error is .0015 over 40,000 draws."""
    (said,) = [
        text for text in describe.describe_model(hte.read_model("conversion-outliers")) if "Between-segment" in text
    ]
    assert "within a factor of 1.7 in odds of the common effect" in said
    inside = np.abs(prior_of("conversion-outliers", 10)) < np.log(1.7)
    assert inside.mean() == pytest.approx(0.9, abs=0.02)  # the factor is rounded


def test_what_is_said_of_levels_is_true_of_the_prior() -> None:
    (said,) = [
        text for text in describe.describe_model(hte.read_model("conversion-by-dimension")) if "Between-segment" in text
    ]
    assert "two segments that differ in one dimension have effects that differ by less than a factor of 2.4" in said
    own, draw = prior_of("conversion-by-dimension", 2, 40_000), np.random.default_rng(3)
    tau = np.median(np.abs(draw.normal(0, 0.5, 100_000)))
    difference = own[:, 0] - own[:, 1] + tau * np.sqrt(2) * draw.standard_normal(40_000)
    assert (np.abs(difference) < np.log(2.4)).mean() == pytest.approx(0.9, abs=0.02)  # the factor is rounded


def test_effects_that_are_not_pooled_have_no_common_one() -> None:
    model = hte.Model(family="estimate", pooling="none", effect={"mean": {"dist": "Normal", "sigma": 1.0}})
    assert any(text.startswith("Each segment's effect: 9 times in 10") for text in describe.describe_model(model))
    assert not any("Common effect" in text for text in describe.describe_model(model))


def test_rows_and_clusters_are_told_apart_and_their_dependence_is_said_with_the_answer() -> None:
    rows = pd.DataFrame({"school": np.arange(600) % 30, "y": np.random.default_rng(2).normal(5.0, 1.0, 600)})
    rows = rows.assign(arm=np.where(rows["school"] % 2, "new", "old"), part=np.where(rows.index < 450, "a", "b"))
    cells = hte.cells.from_rows(rows, outcome="y", cluster="school", arm="arm", control="old", segments=["part"])
    fit = hte.fit(cells, "metric", draws=400)
    facts, data_facts = dict(page(fit).comparison_facts), dict(page(fit).background.data_facts)
    assert facts["Units"] == "600 rows in 30 clusters of school"
    assert (data_facts["Clusters in old"], data_facts["Rows in new"]) == ("15", "300")
    found = arm(fit)
    assert found.average_sentence.startswith("On average over 600 rows, new ")
    assert any(
        note.startswith("Clusters of school have rows in several levels of 'part'") for note in found.answer_notes
    )
    assert "“n” counts clusters, and “size” rows" in page(fit).table_footnotes[0]
