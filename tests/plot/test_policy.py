"""The figure of a policy: its curve is the table's, it returns axes, its marks have names, hostile names stay text."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from example_posterior import example_fit
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayes_hte as hte
from bayes_hte.plot import Theme, draw_policy

FIT = hte.example_fit()
RULE = hte.Rule(cost=0.0075)


def find_marks(axes: Axes, name: str) -> list[mpl.artist.Artist]:
    return list(axes.get_figure(root=True).findobj(lambda artist: artist.get_gid() == name))


def test_the_line_is_the_tables_curve_from_nobody() -> None:
    curve = FIT.policy_curve(RULE)
    axes = FIT.plot_policy(RULE)
    (line,) = find_marks(axes, "curve")
    np.testing.assert_allclose(line.get_xdata(), [0, *curve["share_treated"]])
    np.testing.assert_allclose(line.get_ydata(), 100 * np.array([0, *curve["gain"]]))
    chosen = FIT.policy(RULE).set_index("policy").loc["ship to the chosen segments"]
    (ring,) = find_marks(axes, "policy_point")
    np.testing.assert_allclose(ring.get_offsets()[0], [chosen["share_treated"], 100 * chosen["gain"]])


def test_bars_are_as_wide_as_segments_and_as_high_as_they_are_sure() -> None:
    curve = FIT.policy_curve(RULE)
    axes = FIT.plot_policy(RULE)
    bars = [*find_marks(axes, "bar"), *find_marks(axes, "other_bar")]
    assert len(find_marks(axes, "bar")) == int((curve["part_treated"] > 0).sum())
    drawn = sorted((bar.get_x(), bar.get_width(), bar.get_height()) for bar in bars)
    np.testing.assert_allclose([bar[1] for bar in drawn], curve["population_share"])
    np.testing.assert_allclose([bar[2] for bar in drawn], curve["p_optimal"])


def test_the_budget_is_a_line_and_the_ring_stands_on_it() -> None:
    axes = FIT.plot_policy(RULE, budget=0.4)
    (line,) = find_marks(axes, "budget_line")
    assert line.get_xdata()[0] == 0.4
    assert find_marks(axes, "policy_point")[0].get_offsets()[0][0] == pytest.approx(0.4)
    assert find_marks(FIT.plot_policy(RULE), "budget_line") == []


def test_a_dimension_is_said_to_be_marginal() -> None:
    axes = FIT.plot_policy(RULE, by="device")
    notes = " ".join(text.get_text() for text in find_marks(axes, "note"))
    assert "marginal over customer" in notes
    assert {text.get_text() for text in find_marks(axes, "label")} <= {"mobile", "tablet", "desktop"}


def test_money_is_on_the_axis_as_it_is() -> None:
    axes = FIT.plot_policy(hte.Rule(value=38.0, cost=0.2))
    labels = [text.get_text() for text in find_marks(axes, "axis_label")]
    assert labels[0] == "gain, money per unit of the population"


def test_marks_are_restyled_left_out_and_drawn_where_the_caller_says() -> None:
    figure = Figure(figsize=(6, 8))
    place = figure.add_subplot()
    axes = FIT.plot_policy(RULE, ax=place, visuals={"band": False, "curve": {"color": "red"}}, theme=Theme())
    assert axes.get_figure() is figure
    assert find_marks(axes, "band") == []
    assert find_marks(axes, "curve")[0].get_color() == "red"
    with pytest.raises(hte.ArgumentError, match="no mark 'line'"):
        FIT.plot_policy(RULE, visuals={"line": False})
    with pytest.raises(hte.ArgumentError, match="both figure and ax"):
        FIT.plot_policy(RULE, figure=figure, ax=place)


def test_hostile_names_are_drawn_as_text_and_an_unreliable_fit_says_so() -> None:
    fit = example_fit(["<script>", "$\\frac{1}{0}$", "a\nb", "x" * 300], ok=False)
    axes = fit.plot_policy()
    axes.get_figure(root=True).draw_without_rendering()
    assert find_marks(axes, "title")[0].get_text().startswith("NOT RELIABLE")


@pytest.mark.parametrize("width_inches", [8.6, 5.4])
def test_texts_stay_inside_the_figure_at_both_widths(width_inches: float) -> None:
    figure = Figure(figsize=(width_inches, 8))
    fit = example_fit(12, effect=list(np.linspace(-0.4, 0.6, 12)))
    fit.plot_policy(hte.Rule(cost=0.02), budget=0.5, figure=figure)
    figure.draw_without_rendering()
    for text in figure.findobj(lambda artist: bool(artist.get_gid()) and hasattr(artist, "get_text")):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_a_table_of_something_else_is_refused() -> None:
    with pytest.raises(hte.DataError, match="lacks the columns"):
        draw_policy(FIT.table(), dimensions=["device"])
    with pytest.raises(hte.DataError, match="no rows"):
        draw_policy(FIT.policy_curve().iloc[:0], dimensions=["device"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "x"}, "labels is 'x'; give the number of segments to name"),
        ({"labels": 1.5}, "labels is 1.5"),
        ({"labels": -1}, "labels is -1"),
        ({"title": 5}, "words of a figure are 5; give a title, caption or label as text"),
        ({"caption": ["a"]}, r"words of a figure are \['a'\]"),
        ({"axis_label": b"x"}, "words of a figure are b'x'"),
    ],
)
def test_options_of_another_type_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(hte.ArgumentError, match=message):
        example_fit(3).plot_policy(**options)
