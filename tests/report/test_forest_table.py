"""The forest plot of the page: its words and numbers are those of the tables, and its marks stand where they say."""

import math
import re
from typing import Any

import pytest
from example_posterior import example_fit, example_plan
from hostile_text import HOSTILE
from matplotlib.text import Text

from bayes_hte.analysis.run import Fit
from bayes_hte.estimands.result_tables import compute_result_tables
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.report import render
from bayes_hte.report.arm_results import collect_arm_results
from bayes_hte.report.forest_table import AxisScale, ForestTable, build_forest_table

HALF_OF_THE_LAST_DIGIT = 0.005
"""Places are written with two decimals."""


def forest(fit: Fit, **question: Any) -> ForestTable:
    asked = EffectQuestion(**question)
    tables = compute_result_tables(fit.tree, asked)
    return build_forest_table(fit.tree, collect_arm_results(fit.tree, asked, fit.plan, tables)[0], fit.plan, tables)


def page(fit: Fit) -> str:
    return render(fit.tree, fit.question(), fit.diagnosis, fit.plan)


def test_intervals_of_all_rows_stand_on_one_axis() -> None:
    fit = example_fit(5, effect=[0.5, 0.3, 0.1, -0.1, -0.3])
    shown, table = forest(fit), fit.table().sort_values("effect", ascending=False)
    (zero, low, high) = (float(shown.axis.zero), shown.average.drawing.diamond, fit.ate().iloc[0])
    assert low is not None
    per_unit = (float(low.start) - zero) / high["ci_low"]
    (group,) = shown.groups
    for row, numbers in zip(group.rows, table.to_dict("records"), strict=True):
        mark = row.drawing.pooled
        assert mark is not None
        assert mark.point is not None
        for place, name in ((mark.start, "ci_low"), (mark.point, "effect"), (mark.stop, "ci_high")):
            # Both the place and the slope are rounded: the slope by a relative 0.005 / |place of the average - zero|.
            error = HALF_OF_THE_LAST_DIGIT * (2 + abs(numbers[name] / high["ci_low"]) * 2)
            assert float(place) == pytest.approx(zero + per_unit * numbers[name], abs=error)


def test_the_words_are_the_numbers_of_the_tables_with_the_largest_effect_first() -> None:
    fit = example_fit(6, dimensions=("device", "customer"))
    shown, table = forest(fit), fit.table()
    assert shown.label_heading == "device / customer"
    assert shown.count_headings == ("control", "email")
    for group in shown.groups:
        wanted = table[table["device"] == group.heading].sort_values("effect", ascending=False)
        assert [row.name for row in group.rows] == wanted["customer"].tolist()
        for row, numbers in zip(group.rows, wanted.to_dict("records"), strict=True):
            assert row.unit_counts == (f"{numbers['n_control']:,}", f"{numbers['n_treated']:,}")
            # Percentage points, with as many digits as the page has.
            assert float(row.effect_text.replace("−", "-")) == pytest.approx(100 * numbers["effect"], abs=0.51)


def test_an_interval_beyond_the_axis_is_cut_and_a_point_there_is_left_out() -> None:
    scale = AxisScale(-1.0, 3.0)
    inside = scale.mark_interval(0.0, 2.0, 1.0)
    assert inside is not None
    assert (inside.start, inside.point, inside.stop) == ("25", "50", "75")
    assert not inside.is_cut_left
    assert not inside.is_cut_right
    cut = scale.mark_interval(-2.0, 9.0, 4.0)
    assert cut is not None
    assert (cut.start, cut.point, cut.stop) == ("0", None, "100")
    assert cut.is_cut_left
    assert cut.is_cut_right


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
def test_unknown_numbers_are_not_drawn(unknown: float) -> None:
    assert AxisScale(0.0, 1.0).mark_interval(0.2, unknown, 0.5) is None


def test_labels_stay_on_the_page() -> None:
    scale = AxisScale(0.0, 100.0)
    assert [scale.place_label(value, "1,250,000").anchor for value in (0, 50, 100)] == ["start", "middle", "end"]
    assert scale.place_label(0, "0.2").anchor == "middle"


def test_what_is_too_small_to_matter_is_a_band_around_zero() -> None:
    fit = example_fit(4)
    assert forest(fit).axis.rope is None
    shown = forest(fit, rope=0.01)
    assert shown.axis.rope is not None
    start, width = map(float, shown.axis.rope)
    assert start + width / 2 == pytest.approx(float(shown.axis.zero), abs=3 * HALF_OF_THE_LAST_DIGIT)
    assert ("rope", "too small to matter") in shown.legend


def test_a_segment_without_an_arm_has_a_mark_and_a_note_and_no_raw_interval() -> None:
    shown = forest(example_fit(3, one_armed=(1,)))
    (marked,) = [row for row in shown.groups[0].rows if row.name.endswith("†")]
    assert marked.drawing.raw is None
    assert shown.footnotes == ["† not seen in one arm: the estimate comes from the prior and other segments"]
    assert not forest(example_fit(3)).footnotes


def test_published_estimates_have_no_columns_of_units() -> None:
    shown = forest(example_fit(4, family="estimate", known_n=False))
    assert shown.count_headings == ()
    assert all(row.unit_counts == () for row in shown.groups[0].rows)
    assert ("pooled", "partially pooled, area by precision") in shown.legend


def test_a_failed_diagnosis_stands_over_the_plot() -> None:
    assert forest(example_fit(3, ok=False)).warning == "NOT RELIABLE: the fit did not pass its own checks"
    assert forest(example_fit(3)).warning == ""


def test_names_are_text_of_their_own_direction_and_drawings_are_silent() -> None:
    (table,) = re.findall(r'<table class="forest".*?</table>', page(example_fit(HOSTILE, plan=example_plan())), re.S)
    assert "<bdi>مرحبا بالعالم</bdi>" in table
    assert "<script" not in table
    body = table[: table.index("<tfoot")]
    # A screen reader reads the cells; the drawing says nothing that they do not.
    assert body.count('<svg aria-hidden="true">') == len(HOSTILE) + 2
    assert table.count('role="row"') == len(HOSTILE) + 3


def test_the_same_fit_gives_the_same_bytes() -> None:
    assert page(example_fit(7, dimensions=("a", "b"))) == page(example_fit(7, dimensions=("a", "b")))


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_best_comes_first_and_the_axis_says_whom_each_side_favours(higher_is_better: bool) -> None:
    plan = example_plan(report={"higher_is_better": higher_is_better})
    fit = example_fit(4, effect=[0.4, -0.3, 0.1, 0.8], plan=plan)
    (arm_result,) = collect_arm_results(fit.tree, fit.question(), plan)
    table = build_forest_table(fit.tree, arm_result, plan, compute_result_tables(fit.tree, fit.question()))
    favoured = ["favours control", "favours email"]
    left, right = favoured if higher_is_better else favoured[::-1]
    assert table.axis.sides == (f"← {left}", f"{right} →")
    names = [row.name for group in table.groups for row in group.rows]
    effects = fit.table().set_index("device")["effect"]
    assert names == list(effects.sort_values(ascending=not higher_is_better).index)
    label = " ".join(text.get_text() for text in fit.plot_forest().findobj(Text))
    assert left in label
    assert right in label
