"""Figures of a result: tables in, matplotlib figures out, never through pyplot's global state.

    draw_forest      every segment's raw and pooled effect in one row, under the average effect
    draw_shrinkage   how far pooling moved each segment, against its size
    draw_prior       what the prior allows effects to be, and what the data made of it
    draw_policy      what treating more and more people gains, above each segment's place in the policy
    draw_tau_trace   every segment's effect as a function of tau, above the posterior of tau
    Theme            colours, given to any of them as `theme`
    save             a figure to an .svg or .png file
    svg              a figure as an element for a web page

`forest`, `shrinkage`, `prior` and `trace` are the names that the first four had before.
matplotlib is loaded with this package and by nothing else in bayes_hte.
"""

from bayes_hte.plot.drawing.theme import Theme
from bayes_hte.plot.drawing.write import save, svg
from bayes_hte.plot.forest.figure import draw_forest
from bayes_hte.plot.forest.figure import draw_forest as forest
from bayes_hte.plot.policy import draw_policy
from bayes_hte.plot.prior import ArmBelief, draw_prior
from bayes_hte.plot.prior import draw_prior as prior
from bayes_hte.plot.shrinkage import draw_shrinkage
from bayes_hte.plot.shrinkage import draw_shrinkage as shrinkage
from bayes_hte.plot.tau_trace import draw_tau_trace
from bayes_hte.plot.tau_trace import draw_tau_trace as trace

__all__ = [
    "ArmBelief",
    "Theme",
    "draw_forest",
    "draw_policy",
    "draw_prior",
    "draw_shrinkage",
    "draw_tau_trace",
    "forest",
    "prior",
    "save",
    "shrinkage",
    "svg",
    "trace",
]
