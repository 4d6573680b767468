"""Figures inside the page: they have the page's colours, which turn dark with it."""

import re

from example_posterior import example_fit
from markupsafe import Markup

from bayes_hte.report import render
from bayes_hte.report.figures import name_page_colors

PAGE_CSS = ":root { --ink: #1b1f24; --track: #e4e8ec; --grid: #e4e8ec } :root { --ink: #ffffff }"


def test_colours_of_the_page_are_named_and_others_stay() -> None:
    named = name_page_colors(Markup(".f0{fill:#1b1f24;stroke:#e4e8ec}.f1{fill:#ffffff}"), PAGE_CSS)
    assert named == ".f0{fill:var(--ink);stroke:var(--track)}.f1{fill:#ffffff}"


def test_every_colour_of_a_figure_is_one_of_the_page() -> None:
    fit = example_fit(4)
    html = render(fit.tree, fit.question(), fit.diagnosis, fit.plan)
    figure_rules = re.findall(r"\.f\d+\{[^}]*\}", html)
    assert any("var(--" in rule for rule in figure_rules)
    # One that is not would stay as it is on white paper, and could not be seen on black.
    assert not [rule for rule in figure_rules if re.search(r"#[0-9a-f]{3}", rule)]
