"""Figures of a fit carry its words and numbers; what a caller says wins."""

import numpy as np
import pandas as pd
import pytest
from example_posterior import example_fit, example_plan
from matplotlib.figure import Figure
from matplotlib.text import Text

from bayes_hte.errors import ArgumentError
from bayes_hte.plot import from_fit


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_forest_names_the_unit_the_control_and_percentage_points_of_a_rate() -> None:
    fit = example_fit(3, plan=example_plan())
    found = texts(fit.plot_forest())
    assert "effect on visit, percentage points" in found
    assert "control" in found
    effect = 100 * fit.table()["effect"].max()
    assert f"+{effect:.1f}" in found


def test_relative_effects_are_in_percent_of_the_control() -> None:
    assert "effect relative to the control, %" in texts(example_fit(3).plot_forest(scale="relative"))


def test_link_effects_of_a_rate_are_log_odds_and_not_percent() -> None:
    fit = example_fit(3)
    found = texts(fit.plot_forest(scale="link"))
    assert "effect, log odds ratio" in found
    assert f"+{fit.table('link')['effect'].max():.2f}" in found


def test_means_are_not_shown_in_percent() -> None:
    assert not any("percentage" in text for text in texts(example_fit(3, family="mean").plot_forest()))


def test_an_explicit_option_wins_over_the_fit() -> None:
    fit = example_fit(3, plan=example_plan())
    found = texts(fit.plot_forest(axis_label="my axis", control="placebo"))
    assert {"my axis", "placebo"} <= set(found)
    assert "control" not in found


def test_an_explicit_interval_changes_the_numbers_and_not_only_the_heading() -> None:
    fit = example_fit(3)
    found = " ".join(texts(fit.plot_forest(ci_prob=0.5)))
    row = fit.table(ci_prob=0.5).iloc[0]
    assert "50 % interval" in found
    assert f"+{100 * row['ci_low']:.1f} to +{100 * row['ci_high']:.1f}" in found


@pytest.mark.parametrize("view", [from_fit.plot_forest, from_fit.plot_shrinkage])
def test_one_arm_can_be_shown_alone(view: object) -> None:
    fit = example_fit(3, arms=("control", "email", "push"))
    both = texts(view(fit.posterior, fit.question()))  # type: ignore[operator]
    one = texts(view(fit.posterior, fit.question(), arm="push"))  # type: ignore[operator]
    assert {"email", "push"} <= set(both)
    assert "email" not in one


def test_an_unknown_arm_is_named_with_the_known_ones() -> None:
    fit = example_fit(2)
    with pytest.raises(ArgumentError, match=r"no treated arm 'control'; there are \['email'\]"):
        from_fit.plot_forest(fit.posterior, fit.question(), arm="control")


def test_a_figure_of_an_unreliable_fit_says_so_in_its_title() -> None:
    assert from_fit.UNRELIABLE_TITLE in texts(example_fit(2, ok=False).plot_forest())
    assert from_fit.UNRELIABLE_TITLE in texts(example_fit(2, ok=False).plot_shrinkage())
    assert from_fit.UNRELIABLE_TITLE not in texts(example_fit(2).plot_forest())


@pytest.mark.parametrize("family", ["estimate", "mean", "normal", "binomial"])
def test_the_axis_of_tau_names_the_logarithm_that_it_is_on(family: str) -> None:
    fit = example_fit(3, family)  # type: ignore[arg-type]
    lines = {"tau": np.repeat([0.1, 0.2], 3), "effect": 0.1, "density": np.repeat([1.0, 2.0], 3)}
    found = pd.DataFrame({"device": fit.cells["device"].values.tolist() * 2, "arm": "email", **lines})
    said = " ".join(texts(from_fit.plot_tau_trace(fit.tree, fit.question("link"), None, found)))
    assert ("log odds ratio" in said) is (family == "binomial")
